//! A flag a page and 64-bit byte addresses: nothing to get wrong.

use std::collections::BTreeMap;

use kerncore::va_space::{Alignment, IoRemapPolicy};

use super::step::{Scene, Wish};

pub(super) const PAGE: u64 = 4096;
const TOP_OF_MEMORY: u64 = 1 << 32;

/// What the model says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No bytes.
    Zero,
    /// With the guard it passes the top of memory wherever it lies.
    TooLarge,
    /// No place.
    NoSpace,
    /// The lowest place.
    At(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Reserved,
    Live(u32),
    Dying,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ModelArea {
    /// Without the guard.
    pub(super) bytes: u64,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) struct Model {
    start: u64,
    taken: Vec<bool>,
    pub(super) areas: BTreeMap<u64, ModelArea>,
}

impl Model {
    pub(super) fn new(scene: Scene) -> Self {
        Self {
            start: u64::from(scene.first) * PAGE,
            taken: vec![false; scene.pages as usize],
            areas: BTreeMap::new(),
        }
    }

    /// The lowest page that satisfies the wish, every page tried.
    pub(super) fn judge(&self, wish: &Wish) -> Verdict {
        if wish.bytes == 0 {
            return Verdict::Zero;
        }
        let wanted = rounded(wish.bytes) + PAGE;
        if wanted >= TOP_OF_MEMORY + PAGE || u64::from(wish.bytes) >= TOP_OF_MEMORY - PAGE {
            return Verdict::TooLarge;
        }
        let align = alignment(wish);
        let (low, high) = match wish.window {
            None => (0, TOP_OF_MEMORY),
            Some(limits) => (u64::from(limits.start), limits.end.map_or(TOP_OF_MEMORY, u64::from)),
        };
        let pages = usize::try_from(wanted / PAGE).expect("fewer than 2^20");
        let mut page = 0;
        while page + pages <= self.taken.len() {
            let base = self.start + page as u64 * PAGE;
            if base + wanted > high {
                break;
            }
            // Nothing that has a taken page fits; go on behind the last such page.
            if base < low || !base.is_multiple_of(align) {
                page += 1;
                continue;
            }
            match self.taken[page..page + pages].iter().rposition(|&taken| taken) {
                Some(last) => page += last + 1,
                None => return Verdict::At(base),
            }
        }
        Verdict::NoSpace
    }

    pub(super) fn reserve(&mut self, base: u64, bytes: u32) {
        let area = ModelArea { bytes: rounded(bytes), state: State::Reserved };
        self.mark(base, area.bytes + PAGE, true);
        self.areas.insert(base, area);
    }

    pub(super) fn release(&mut self, base: u64) {
        if let Some(area) = self.areas.remove(&base) {
            self.mark(base, area.bytes + PAGE, false);
        }
    }

    /// Whether all of these bytes are free pages of the space.
    pub(super) fn is_free(&self, start: u64, bytes: u64) -> bool {
        let page = |bytes| usize::try_from(bytes / PAGE).expect("fewer than 2^21");
        let first = page(start - self.start);
        let pages = self.taken.get(first..first + page(bytes));
        pages.is_some_and(|pages| pages.iter().all(|&taken| !taken))
    }

    /// The area at `base` has so many bytes now, and one guard.
    pub(super) fn resize(&mut self, base: u64, bytes: u64) {
        let mut area = self.areas[&base];
        self.mark(base, area.bytes + PAGE, false);
        area.bytes = bytes;
        self.mark(base, area.bytes + PAGE, true);
        self.areas.insert(base, area);
    }

    /// The live area with `address` among its usable bytes.
    pub(super) fn containing(&self, address: u64) -> Option<(u64, u32)> {
        self.areas.iter().find_map(|(&base, area)| match area.state {
            State::Live(record) if address >= base && address < base + area.bytes => {
                Some((base, record))
            }
            _ => None,
        })
    }

    /// Pages of the longest free run, and all free pages.
    pub(super) fn free(&self) -> (usize, usize) {
        let runs = self.taken.split(|&taken| taken).map(<[bool]>::len);
        (runs.clone().max().unwrap_or(0), runs.sum())
    }

    fn mark(&mut self, base: u64, bytes: u64, taken: bool) {
        let page = |bytes| usize::try_from(bytes / PAGE).expect("fewer than 2^20");
        let first = page(base - self.start);
        for flag in &mut self.taken[first..first + page(bytes)] {
            assert_ne!(*flag, taken, "the page changes");
            *flag = taken;
        }
    }
}

/// Bytes in whole pages.
fn rounded(bytes: u32) -> u64 {
    u64::from(bytes).div_ceil(PAGE) * PAGE
}

/// The alignment in bytes, by S4's sentences.
fn alignment(wish: &Wish) -> u64 {
    let bytes = u64::from(wish.bytes);
    let mut powers = (0..64).map(|bit| 1_u64 << bit);
    match wish.alignment {
        Alignment::Page => PAGE,
        Alignment::Order(order) => PAGE << order.min(48),
        // One more than the highest set bit: the least power above the size.
        Alignment::IoRemap(IoRemapPolicy::Seed) => {
            powers.find(|&power| power > bytes).unwrap_or(1 << 24).clamp(PAGE, 16 << 20)
        }
        Alignment::IoRemap(IoRemapPolicy::Modern) => {
            powers.find(|&power| power >= bytes).unwrap_or(1 << 24).clamp(PAGE, 16 << 20)
        }
    }
}
