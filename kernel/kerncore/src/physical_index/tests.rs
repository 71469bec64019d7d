//! The index against a list that is looked through.

use super::*;

fn frame(number: u32) -> Pfn {
    Pfn::new(number).expect("below 4 GiB")
}

/// Numbers that look random, the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).expect("31 bits") % bound
    }
}

const WAYS: [Attributes; 4] = [
    Attributes::DEVICE,
    Attributes::WRITE_COMBINE,
    Attributes::STRONGLY_ORDERED,
    Attributes::KERNEL_RODATA,
];

fn chunk(entries: u32) -> &'static mut [IndexEntry<'static>] {
    (0..entries).map(|_| IndexEntry::new(Node::vacant())).collect::<Vec<_>>().leak()
}

/// An index, and what it should know.
struct Both {
    index: PhysicalIndex<'static>,
    list: Vec<(Name, Run)>,
    page: u32,
}

impl Both {
    fn new() -> Self {
        Self { index: PhysicalIndex::new(), list: Vec::new(), page: 0xc_0000 }
    }

    fn insert(&mut self, first: u32, last: u32, attributes: Attributes) {
        // Addresses do not come in the order of frames.
        self.page = 0xc_0000 | (self.page + 0x1235) & 0x3_ffff;
        let run =
            Run::new((frame(first), frame(last)), self.page, Class::new(attributes), Name::NONE);
        if let Err(NoPlace::NeedsChunk { entries, .. }) = self.index.has_room() {
            assert!(self.index.insert(run).is_err(), "nothing is made of nothing");
            assert!(self.index.add_chunk(chunk(entries)));
        }
        let name = self.index.insert(run).expect("there is room");
        self.list.push((name, run));
    }

    fn toggle(&mut self, which: usize) {
        let (name, run) = self.list[which];
        let sharing = match run.sharing() {
            Sharing::Own => Sharing::Shared,
            Sharing::Shared => Sharing::Own,
        };
        let name = self.index.set_sharing(name, run.page, sharing);
        self.list[which] = (name, run.with_sharing(sharing));
    }

    fn remove(&mut self, which: usize) {
        let (name, run) = self.list.swap_remove(which);
        assert_eq!(self.index.remove(name, run.page), Some(run));
    }

    /// Every answer about these pages.
    fn agree(&mut self, first: u32, last: u32) {
        let range = (frame(first), frame(last));
        for attributes in WAYS {
            let clashes =
                |run: &Run| run.overlaps(first, last) && clash(run.attributes(), attributes);
            let found = self.index.conflict(range, Class::new(attributes));
            assert!(found.is_none_or(|run| clashes(&run) && self.has(&run)), "{found:?}");
            assert_eq!(found.is_some(), self.list.iter().any(|(_, run)| clashes(run)));
            if let Some(found) = found {
                let but = self.index.conflict_but((first, last), attributes, found.page);
                let other = |run: &Run| clashes(run) && run.page != found.page;
                assert!(but.is_none_or(|run| other(&run) && self.has(&run)), "{but:?}");
                assert_eq!(but.is_some(), self.list.iter().any(|(_, run)| other(run)));
            }
            let covers = |run: &Run| {
                run.sharing() == Sharing::Shared
                    && run.attributes() == attributes
                    && run.first() <= first
                    && last <= run.last()
            };
            let found = self.index.covering(range, Class::new(attributes));
            assert!(found.is_none_or(|run| covers(&run) && self.has(&run)), "{found:?}");
            assert_eq!(found.is_some(), self.list.iter().any(|(_, run)| covers(run)));
        }
    }

    fn has(&self, run: &Run) -> bool {
        self.list.iter().any(|(_, listed)| listed == run)
    }

    fn check(&self) {
        assert!(self.index.is_sound());
        assert_eq!(self.index.count() as usize, self.list.len());
        for (name, run) in &self.list {
            assert_eq!(self.index.run(*name, run.page), Some(*run));
            assert_eq!(self.index.run(*name, run.page + 1), None);
        }
    }
}

/// S58, S97: whatever came and went, the index answers as a list does, in the row and in the tree.
#[test]
fn the_index_answers_as_a_list_does_s58_s97() {
    for (seed, most) in (0..24).zip([5, 40, 300].into_iter().cycle()) {
        let (mut both, mut chance) = (Both::new(), Chance(seed));
        for step in 0..1200 {
            let count = u32::try_from(both.list.len()).expect("few");
            match chance.below(8) {
                0..=3 if count < most => {
                    let first = chance.below(0x400);
                    let way = WAYS[chance.below(4) as usize];
                    both.insert(first, first + chance.below(24), way);
                }
                0..=5 if count > 0 => both.remove(chance.below(count) as usize),
                _ if count > 0 => both.toggle(chance.below(count) as usize),
                _ => {}
            }
            let first = chance.below(0x400);
            both.agree(first, first + chance.below(8));
            if step % 100 == 0 {
                both.check();
            }
        }
        while !both.list.is_empty() {
            both.remove(0);
        }
        both.check();
        assert_eq!(both.index.count(), 0);
        assert_eq!(both.index.odd, 0);
    }
}

/// Whatever the order in which runs come, the tree is no deeper than logarithmic.
#[test]
fn the_tree_stays_shallow() {
    for step in [1_i64, -1, 7919] {
        let mut both = Both::new();
        for number in 0..4096_i64 {
            let first = u32::try_from((number * step).rem_euclid(4096)).expect("small");
            both.insert(first, first, Attributes::DEVICE);
        }
        both.check();
        let depth = both.index.tree.depth();
        assert!(depth <= 40, "{depth} levels for 4,064 runs");
    }
}

/// S97: what goes together, and what does not; S112 too.
#[test]
fn equal_types_go_together_unless_one_writes_what_the_other_executes_s97_s112() {
    for one in WAYS {
        for other in WAYS {
            assert_eq!(clash(one, other), one != other, "{one} {other}");
        }
    }
    assert!(!clash(Attributes::KERNEL_DATA, Attributes::KERNEL_RODATA));
    assert!(!clash(Attributes::KERNEL_TEXT, Attributes::KERNEL_RODATA));
    assert!(clash(Attributes::KERNEL_DATA, Attributes::KERNEL_TEXT));
    assert!(clash(Attributes::KERNEL_TEXT, Attributes::KERNEL_DATA));
}

/// The first and the last page of the bus, and runs that only touch.
#[test]
fn runs_that_only_touch_do_not_overlap_and_the_last_frame_is_one() {
    for filled in [0, 40] {
        let mut both = Both::new();
        (0..filled).for_each(|number| both.insert(0x8_0000 + number, 0x8_0000 + number, WAYS[1]));
        both.insert(0, 9, Attributes::DEVICE);
        both.insert(20, FRAMES, Attributes::DEVICE);
        for (first, last, is_one) in
            [(10, 19, false), (9, 9, true), (10, 20, true), (FRAMES, FRAMES, true), (0, 0, true)]
        {
            let found = both.index.conflict((frame(first), frame(last)), Class::new(WAYS[2]));
            assert_eq!(found.is_some(), is_one, "{first}-{last}");
            both.agree(first, last);
        }
    }
}
