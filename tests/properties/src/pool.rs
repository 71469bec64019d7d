//! The atomic pool's bitmaps against a list of runs: S71 to S74 in pools of any size, at any address.

use std::collections::BTreeMap;

use kerncore::addr::{PAGE_SIZE, VirtAddr, pages_for};
use kerncore::pool::{AllocateError, FreeError, Pool, Word};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use crate::run::prove;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// This many bytes.
    Allocate(u32),
    /// One of the runs that are out, rightly.
    Free(u32),
    /// One of the runs that are out, at another address or of another size.
    Mistake { run: u32, by: i32, bytes: u32 },
    /// Anything at all.
    FreeAnything(u32, u32),
}

fn steps() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![
        4 => (0..=8_u32).prop_map(|pages| pages * PAGE_SIZE),
        2 => 0..80 * PAGE_SIZE,
        1 => 0..400 * PAGE_SIZE,
        1 => any::<u32>(),
    ];
    let by = prop_oneof![Just(0), -3..=3_i32, (-5..=5_i32).prop_map(|pages| pages * 4096)];
    prop_oneof![
        8 => bytes.clone().prop_map(Step::Allocate),
        6 => any::<u32>().prop_map(Step::Free),
        2 => (any::<u32>(), by, bytes.clone()).prop_map(|(run, by, bytes)| Step::Mistake { run, by, bytes }),
        1 => (any::<u32>(), bytes).prop_map(|(address, bytes)| Step::FreeAnything(address, bytes)),
    ]
}

/// The runs that are out: pages by the number of the first page.
struct Model {
    base: u64,
    pages: u32,
    runs: BTreeMap<u32, u32>,
}

impl Model {
    fn taken(&self) -> u32 {
        self.runs.values().sum()
    }

    /// The lowest aligned run of `pages` free pages.
    fn lowest(&self, pages: u32) -> Option<u32> {
        let step = pages.checked_next_power_of_two()?;
        let mut first = 0_u32;
        while first.checked_add(pages)? <= self.pages {
            let mut below = self.runs.range(..first + pages);
            if below.next_back().is_none_or(|(start, length)| start + length <= first) {
                return Some(first);
            }
            first = first.checked_add(step)?;
        }
        None
    }

    fn judge(&self, start: VirtAddr, bytes: u32) -> Result<u32, FreeError> {
        let (raw, end) = (u64::from(start.raw()), self.base + u64::from(self.pages) * 4096);
        if raw < self.base || raw >= end {
            return Err(FreeError::NotMine { start });
        }
        if raw + u64::from(bytes) > end {
            let last = VirtAddr::new(u32::try_from(end - 1).expect("a pool does not wrap"));
            return Err(FreeError::Overruns { start, bytes, last });
        }
        if raw % 4096 != 0 {
            return Err(FreeError::Unaligned { start });
        }
        let page = u32::try_from((raw - self.base) / 4096).expect("a page of the pool");
        let run =
            self.runs.range(..=page).next_back().filter(|(first, length)| *first + *length > page);
        let (&first, &allocated) = run.ok_or(FreeError::NotAllocated { start })?;
        if first != page {
            return Err(FreeError::NotAStart { start, run: self.address(first), pages: allocated });
        }
        let pages = pages_for(bytes);
        if pages == allocated {
            Ok(first)
        } else {
            Err(FreeError::WrongSize { start, pages, allocated })
        }
    }

    fn address(&self, page: u32) -> VirtAddr {
        let raw = self.base + u64::from(page) * 4096;
        VirtAddr::new(u32::try_from(raw).expect("a page of the pool"))
    }

    fn pick(&self, choice: u32) -> Option<(u32, u32)> {
        let index = (choice as usize).checked_rem(self.runs.len())?;
        self.runs.iter().nth(index).map(|(&first, &pages)| (first, pages))
    }
}

fn take(pool: &mut Pool<'_>, model: &mut Model, step: &Step) -> TestCaseResult {
    let free = |pool: &mut Pool<'_>, model: &mut Model, start: VirtAddr, bytes: u32| {
        let expected = model.judge(start, bytes);
        prop_assert_eq!(pool.free(start, bytes), expected.map(|_| ()));
        if let Ok(first) = expected {
            model.runs.remove(&first);
        }
        Ok(())
    };
    match *step {
        Step::Allocate(bytes) => {
            let pages = pages_for(bytes);
            match (pool.allocate(bytes), model.lowest(pages)) {
                (Err(AllocateError::Zero), _) => prop_assert_eq!(bytes, 0),
                (Ok(run), Some(first)) => {
                    prop_assert_eq!((run.first, run.pages), (first, pages));
                    prop_assert_eq!(run.start, model.address(first));
                    model.runs.insert(first, pages);
                }
                (Err(AllocateError::Exhausted { pages: wanted, largest, free, taken }), None) => {
                    prop_assert_eq!((wanted, taken), (pages, model.taken()));
                    prop_assert_eq!(free, model.pages - taken);
                    prop_assert!(largest == 0 || model.lowest(largest).is_some());
                    prop_assert_eq!(model.lowest(largest + 1), None);
                }
                (ours, theirs) => prop_assert!(false, "{ours:?}, the model says {theirs:?}"),
            }
            Ok(())
        }
        Step::Free(choice) => match model.pick(choice) {
            Some((first, pages)) => {
                let start = model.address(first);
                free(pool, model, start, pages * PAGE_SIZE)
            }
            None => Ok(()),
        },
        Step::Mistake { run, by, bytes } => match model.pick(run) {
            Some((first, _)) => {
                let start = model.address(first).raw().wrapping_add_signed(by);
                free(pool, model, VirtAddr::new(start), bytes)
            }
            None => Ok(()),
        },
        Step::FreeAnything(address, bytes) => free(pool, model, VirtAddr::new(address), bytes),
    }
}

#[test]
fn s71_s74_every_pool_agrees_with_a_list_of_runs() {
    let pages = prop_oneof![1..=70_u32, 1..=400_u32];
    let histories = (pages, 0..PAGE_SIZE, any::<u32>(), any::<bool>(), vec(steps(), 1..150));
    prove(
        "-p properties",
        "pool::s71_s74_every_pool_agrees_with_a_list_of_runs",
        600,
        &histories,
        |(pages, tail, place, at_top, steps)| {
            // Anywhere, or ending at the very top of the address space.
            let room = (1 << 20) - pages;
            let base = if at_top { room } else { place % room } << 12;
            let tail = if at_top { 0 } else { tail };
            let words = Pool::words_for(pages * PAGE_SIZE + tail);
            let mut words = vec![Word::FREE; words];
            let bytes = pages * PAGE_SIZE + tail;
            let made = Pool::new(VirtAddr::new(base), bytes, &mut words);
            let mut pool = made.map_err(|error| TestCaseError::fail(error.to_string()))?;
            let mut model = Model { base: base.into(), pages, runs: BTreeMap::new() };
            for step in &steps {
                take(&mut pool, &mut model, step)?;
                prop_assert_eq!(pool.taken_pages(), model.taken());
                let runs = pool.runs().map(|run| (run.first, run.pages));
                prop_assert!(runs.eq(model.runs.iter().map(|(&first, &pages)| (first, pages))));
            }
            Ok(())
        },
    );
}
