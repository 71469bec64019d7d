//! Random histories of a page table: mapping, unmapping whole ranges and parts of them, gaps and slots in use (S16 to S25).
//!
//! ```text
//!   pages    244        264   270              508       516     600   604
//!              ├──────────┼─────┤                ├─────────┤       ├─────┤
//!   tables   0 …     255│256 …                     … 511│512 …
//! ```
//!
//! The model is a map from pages to frames. After each step it, a walk of the tables, and accesses through the TLBs of both CPUs
//! agree about every page, the neighbours of the ranges included.

use crate::support::{Table, WINDOW, World, absent, at, frame};
use kerncore::{
    addr::Pfn,
    attributes::Attributes,
    owned_range::OwnedRange,
    page_table::{MapError, OutsideRange},
};
use machine::{Behaviour, SoftCpu};
use proptest::{collection::vec, option, prelude::*};
use std::collections::BTreeMap;

/// First page and length of each range.
const RANGES: [(u32, u32); 4] = [(244, 20), (264, 6), (508, 8), (600, 4)];
const PAGES_IN_TABLE: u32 = 256;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Frames `stride` apart, with nothing in place of the one at `gap`.
    Map {
        range: usize,
        offset: u32,
        count: u32,
        first: u32,
        stride: u32,
        gap: Option<u32>,
    },
    MapConsecutive {
        range: usize,
        offset: u32,
        count: u32,
        first: u32,
    },
    Unmap {
        range: usize,
    },
    UnmapPart {
        range: usize,
        offset: u32,
        count: u32,
    },
}

fn steps() -> impl Strategy<Value = Step> {
    let range = || 0..RANGES.len();
    let (offset, count) = (|| 0..22_u32, || prop_oneof![0..4_u32, 0..22_u32]);
    let first = || 0x6_0100..0x6_0400_u32;
    prop_oneof![
        4 => (range(), offset(), count(), first(), 0..3_u32, option::weighted(0.2, 0..20_u32))
            .prop_map(|(range, offset, count, first, stride, gap)| {
                Step::Map { range, offset, count, first, stride, gap }
            }),
        3 => (range(), offset(), count(), first()).prop_map(|(range, offset, count, first)| {
            Step::MapConsecutive { range, offset, count, first }
        }),
        3 => range().prop_map(|range| Step::Unmap { range }),
        3 => (range(), offset(), count())
            .prop_map(|(range, offset, count)| Step::UnmapPart { range, offset, count }),
    ]
}

struct History<'w> {
    world: &'w World,
    table: Table<SoftCpu<'w>>,
    ranges: Vec<OwnedRange>,
    /// What each page of the window leads to.
    mapped: BTreeMap<u32, Pfn>,
}

impl<'w> History<'w> {
    fn new(world: &'w World) -> Self {
        let (table, mut rest) = world.table();
        let (mut ranges, mut at) = (Vec::new(), 0);
        for (first, count) in RANGES {
            if first != at {
                rest = rest.split_at(first - at).expect("inside the window").1;
            }
            let (range, behind) = rest.split_at(count).expect("inside the window");
            ranges.push(range);
            (rest, at) = (behind, first + count);
        }
        Self { world, table, ranges, mapped: BTreeMap::new() }
    }

    /// What mapping `frames` must do, by the rules: the slots of a table are looked at before the first is written.
    fn expect(
        &mut self,
        range: usize,
        offset: u32,
        frames: &[Option<Pfn>],
    ) -> Result<u32, MapError> {
        let (first, length) = RANGES[range];
        let whole = self.ranges[range].pages();
        let count = u32::try_from(frames.len()).expect("few");
        if count == 0 {
            return Err(MapError::NoFrames { range: whole });
        }
        if offset + count > length {
            return Err(MapError::DoesNotFit { range: whole, offset, frames: count });
        }
        let mut mapped = 0;
        while mapped < count {
            let page = first + offset + mapped;
            let run = (PAGES_IN_TABLE - page % PAGES_IN_TABLE).min(count - mapped);
            if let Some((&page, frame)) = self.mapped.range(page..page + run).next() {
                let descriptor = frame.number() << 12 | 0x45f;
                return Err(MapError::Occupied { address: at(WINDOW + page), descriptor, mapped });
            }
            for page in page..page + run {
                let Some(frame) = frames[mapped as usize] else {
                    return Err(MapError::MissingFrame { address: at(WINDOW + page), mapped });
                };
                self.mapped.insert(page, frame);
                mapped += 1;
            }
        }
        Ok(mapped)
    }

    /// Takes the pages from `first` on out of the model, and says how many were mapped.
    fn forget(&mut self, first: u32, count: u32) -> u32 {
        let before = self.mapped.len();
        self.mapped.retain(|page, _| !(first..first + count).contains(page));
        u32::try_from(before - self.mapped.len()).expect("few")
    }

    fn take(&mut self, step: Step) {
        let data = Attributes::KERNEL_DATA;
        match step {
            Step::Map { range, offset, count, first, stride, gap } => {
                let frames: Vec<Option<Pfn>> = (0..count)
                    .map(|index| (gap != Some(index)).then(|| frame(first + index * stride)))
                    .collect();
                let expected = self.expect(range, offset, &frames);
                let (owned, tables) = (&mut self.ranges[range], &self.world.tables);
                assert_eq!(self.table.map(owned, offset, frames, data, tables), expected);
            }
            Step::MapConsecutive { range, offset, count, first } => {
                let frames: Vec<Option<Pfn>> =
                    (first..first + count).map(|number| Some(frame(number))).collect();
                let expected = self.expect(range, offset, &frames);
                let (owned, tables) = (&mut self.ranges[range], &self.world.tables);
                let first = (frame(first), count);
                let mapped = self.table.map_consecutive(owned, offset, first, data, tables);
                assert_eq!(mapped, expected);
            }
            Step::Unmap { range } => {
                let owned = self.ranges.swap_remove(range);
                let pages = owned.pages();
                let released = self.table.unmap(owned, range).flush();
                assert_eq!((released.range.pages(), released.payload), (pages, range));
                let (first, length) = RANGES[range];
                assert_eq!(released.removal.pages, self.forget(first, length));
                assert_eq!(released.removal.oddities, 0);
                self.ranges.push(released.range);
                let last = self.ranges.len() - 1;
                self.ranges.swap(range, last);
            }
            Step::UnmapPart { range, offset, count } => {
                let (first, length) = RANGES[range];
                let whole = self.ranges[range].pages();
                let removal = self.table.unmap_part(&mut self.ranges[range], offset, count);
                if offset + count > length {
                    assert_eq!(removal, Err(OutsideRange { range: whole, offset, count }));
                } else {
                    let expected = self.forget(first + offset, count);
                    assert_eq!(removal.map(|removal| removal.pages), Ok(expected));
                }
            }
        }
    }

    /// Model, walk and both CPUs agree about every page of the ranges, and about their neighbours.
    fn compare(&self) {
        let pages = RANGES.iter().flat_map(|&(first, count)| first - 1..=first + count);
        for page in pages {
            let expected = self.mapped.get(&page).copied();
            let found = self.table.translate(at(WINDOW + page)).map(|found| found.physical.pfn());
            assert_eq!(found, expected, "the tables at page {page}");
            let reached = self.world.reach(WINDOW + page);
            assert_eq!(reached, expected.map_or(absent(WINDOW + page), Ok), "page {page}");
        }
    }
}

#[test]
fn model_tables_and_cpus_agree_after_every_step() {
    let behaviours = prop_oneof![
        1 => Just(Behaviour::Hoarding),
        1 => Just(Behaviour::Forgetful),
        4 => any::<u64>().prop_map(Behaviour::Random),
    ];
    properties::run::prove(
        "-p machine --test suite",
        "page_table_history::model_tables_and_cpus_agree_after_every_step",
        120,
        &(behaviours, vec(steps(), 1..30)),
        |(behaviour, steps)| {
            let world = World::new(behaviour);
            let mut history = History::new(&world);
            for &step in &steps {
                history.take(step);
                history.compare();
            }
            Ok(())
        },
    );
}
