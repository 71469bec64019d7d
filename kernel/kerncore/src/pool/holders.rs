//! Who holds a pool, by caller: for the message of who finds no room.

use crate::addr::VirtAddr;

/// How many callers are told apart.
const MOST: usize = 6;

/// What one caller holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who asked; zero stands for all that are not told apart.
    pub caller: VirtAddr,
    /// How many runs.
    pub runs: u32,
    /// Of how many pages together.
    pub pages: u32,
}

/// What each of some callers holds, and what all others do. Needs no memory: it is filled under a lock, and read after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holders {
    callers: [Holder; MOST],
    others: Holder,
}

impl Holders {
    const NOBODY: Holder = Holder { caller: VirtAddr::new(0), runs: 0, pages: 0 };

    /// Nobody yet.
    pub const fn new() -> Self {
        Self { callers: [Self::NOBODY; MOST], others: Self::NOBODY }
    }

    /// Notes a run of `pages` that `caller` holds.
    pub fn note(&mut self, caller: VirtAddr, pages: u32) {
        let place =
            self.callers.iter_mut().find(|holder| holder.runs == 0 || holder.caller == caller);
        let holder = match place {
            Some(holder) => {
                holder.caller = caller;
                holder
            }
            None => &mut self.others,
        };
        holder.runs = holder.runs.saturating_add(1);
        holder.pages = holder.pages.saturating_add(pages);
    }

    /// All that hold something: who has the most pages comes first, those that are not told apart last.
    pub fn sorted(mut self) -> impl Iterator<Item = Holder> {
        self.callers.sort_unstable_by_key(|holder| core::cmp::Reverse((holder.pages, holder.runs)));
        self.callers.into_iter().chain([self.others]).filter(|holder| holder.runs != 0)
    }
}

impl Default for Holders {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_holder_comes_first_and_the_rest_together_last() {
        let mut holders = Holders::default();
        assert_eq!(holders.sorted().count(), 0);
        for round in 1..=9 {
            for run in 0..round {
                holders.note(VirtAddr::new(round * 4), run + 1);
            }
        }
        let found: Vec<(u32, u32, u32)> = holders
            .sorted()
            .map(|Holder { caller, runs, pages }| (caller.raw(), runs, pages))
            .collect();
        let told = [6, 5, 4, 3, 2, 1].map(|round| (round * 4, round, round * (round + 1) / 2));
        assert_eq!(found[..6], told);
        assert_eq!(found[6..], [(0, 7 + 8 + 9, 28 + 36 + 45)]);
    }
}
