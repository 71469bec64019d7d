//! What devices are lent in pieces, by kerncore's books and by the same with one thing forgotten: slots of bounce buffers (S106), small
//! blocks (S103), runs of the contiguous region (S101); and mappings as the misuse checker lists them (S107).

use super::{Goes, Verdict, board, same};
use kerncore::{
    addr::{DmaAddr, PhysAddr, VirtAddr},
    bounce::{Bounce, Granule, Loan, Original, SLOT, Slot},
    contiguous::{Borrower, Region, Word},
    dma_pool::{BlockLayout, Blocks},
    misuse::{Checker, Entry, Family, Mapping, Misuse, Party},
    streaming::Flow,
};

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// Slots stay taken that were given back.
    KeepsSlots,
    /// Slots are given back that are free, or not where their buffer begins.
    FreesAnySlots,
    /// A device's address leads to the start of its buffer, wherever it lies in it.
    ForgetsTheOffset,
    /// Slots are lent that the device does not reach.
    ForgetsTheMask,
    /// Blocks are cut without a look at the boundary.
    ForgetsTheBoundary,
    /// A block is given back that is free.
    FreesAnyBlock,
    /// A block is given that is taken.
    GivesABlockTwice,
    /// What is lent counts as nobody's.
    TakesWhatIsLent,
    /// A run begins wherever there is room.
    ForgetsTheOrder,
    /// Pages are given back that nobody has.
    FreesAnyRun,
    /// What calls say of a mapping is not compared: its size, its direction, its family, whether anybody asked.
    Believes(Said),
}

/// What a call says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Size,
    Direction,
    Family,
    Asked,
}

const BASE: PhysAddr = PhysAddr::new(0x6080_0000);
const TOP: PhysAddr = PhysAddr::new(u32::MAX);

const fn slot(index: u32) -> PhysAddr {
    PhysAddr::new(BASE.raw() + index * SLOT)
}

fn loan(bytes: u32) -> Loan {
    let original = Original::Address(VirtAddr::new(0xc000_1004));
    Loan { original, bytes, flow: Flow::FromDevice, device: "a disk", granule: Granule::Slot }
}

/// Bounce buffers of four slots.
struct Slots<'s>(Bounce<'s>, Mistake);

impl Slots<'_> {
    fn take(&mut self, bytes: u32, last: PhysAddr) -> Option<PhysAddr> {
        let last = if self.1 == Mistake::ForgetsTheMask { TOP } else { last };
        self.0.take(loan(bytes), last).ok()
    }

    fn give_back(&mut self, physical: PhysAddr) -> bool {
        match (self.1, self.0.find(physical)) {
            (Mistake::KeepsSlots, found) => found.is_some(),
            (Mistake::FreesAnySlots, Some(found)) => self.0.give_back(found.first).is_ok(),
            (Mistake::FreesAnySlots, None) => true,
            _ => self.0.give_back(physical).is_ok(),
        }
    }

    fn offset(&self, physical: PhysAddr) -> Option<u32> {
        let found = self.0.find(physical)?;
        Some(if self.1 == Mistake::ForgetsTheOffset { 0 } else { found.offset })
    }
}

/// S106: slots are lent to one buffer at a time, and lent again when it is done, once.
fn slots_are_lent_to_one_buffer_until_it_is_done(way: &impl Goes<Mistake>) -> Verdict {
    let mut records = [Slot::FREE; 4];
    let mut slots = Slots(Bounce::new(BASE, &mut records), way.how());
    for round in 0..3 {
        let what = |what: &str| format!("round {round}: {what}");
        same(&what("three slots"), &slots.take(2 * SLOT + 1, TOP), &Some(slot(0)))?;
        same(&what("the last"), &slots.take(1, TOP), &Some(slot(3)))?;
        same(&what("one more"), &slots.take(1, TOP), &None)?;
        same(&what("from inside"), &slots.give_back(slot(1)), &false)?;
        same(&what("taken still"), &slots.0.taken(), &4)?;
        same(&what("the first"), &slots.give_back(slot(0)), &true)?;
        same(&what("again"), &slots.give_back(slot(0)), &false)?;
        same(&what("the last"), &slots.give_back(slot(3)), &true)?;
        same(&what("taken"), &slots.0.taken(), &0)?;
    }
    Ok(())
}

/// S106: a part of a buffer is copied to its own place.
fn every_byte_of_a_copy_is_found_where_it_lies(way: &impl Goes<Mistake>) -> Verdict {
    let mut records = [Slot::FREE; 4];
    let mut slots = Slots(Bounce::new(BASE, &mut records), way.how());
    same("one slot", &slots.take(1, TOP), &Some(slot(0)))?;
    same("two", &slots.take(SLOT + 1, TOP), &Some(slot(1)))?;
    for offset in [0, 1, SLOT - 1, SLOT] {
        let found = slots.offset(PhysAddr::new(slot(1).raw() + offset));
        same("how far into the buffer", &found, &Some(offset))?;
    }
    same("a slot that nobody has", &slots.offset(slot(3)), &None)
}

/// S100, S106.
fn a_device_is_lent_slots_that_it_reaches(way: &impl Goes<Mistake>) -> Verdict {
    let mut records = [Slot::FREE; 4];
    let mut slots = Slots(Bounce::new(BASE, &mut records), way.how());
    let last = PhysAddr::new(slot(2).raw() - 1);
    same("two slots", &slots.take(2 * SLOT, last), &Some(slot(0)))?;
    same("one beyond the mask", &slots.take(1, last), &None)
}

/// Blocks of 24 bytes that cross no multiple of 64.
fn all_blocks(mistake: Mistake) -> (BlockLayout, Blocks, Vec<u32>) {
    let boundary = if mistake == Mistake::ForgetsTheBoundary { 0 } else { 64 };
    let layout = BlockLayout::new(24, 8, boundary).expect("such blocks can be");
    let mut blocks = Blocks::FREE;
    let mut taken: Vec<u32> = core::iter::from_fn(|| {
        let fresh = blocks.clone();
        let offset = blocks.take(&layout);
        if mistake == Mistake::GivesABlockTwice && offset == Some(64) {
            blocks = fresh;
            let _marked_by_the_next = blocks.take(&layout);
        }
        offset
    })
    .collect();
    if mistake == Mistake::GivesABlockTwice {
        taken.insert(3, 64);
    }
    (layout, blocks, taken)
}

/// S103.
fn blocks_lie_apart_and_cross_no_boundary(way: &impl Goes<Mistake>) -> Verdict {
    let (_, _, taken) = all_blocks(way.how());
    let crossing = taken.iter().filter(|&&at| at / 64 != (at + 23) / 64).count();
    same("blocks that cross a boundary", &crossing, &0)?;
    let close = taken.windows(2).filter(|pair| pair[1] < pair[0] + 24).count();
    same("blocks that begin inside another", &close, &0)?;
    same("blocks of a page", &taken.len(), &128)
}

/// S103.
fn a_block_comes_back_once(way: &impl Goes<Mistake>) -> Verdict {
    let (layout, mut blocks, _) = all_blocks(Mistake::None);
    let mut free = |offset| {
        let freed = blocks.give_back(&layout, offset).is_ok();
        freed || way.how() == Mistake::FreesAnyBlock
    };
    same("a free", &free(64), &true)?;
    same("a double free", &free(64), &false)?;
    same("a free of what is left before a boundary", &free(48), &false)?;
    same("a free inside a block", &free(90), &false)
}

/// A region of 64 pages.
struct Pages<'r>(Region<'r>, Mistake);

impl Pages<'_> {
    fn take(&mut self, pages: u32) -> Option<u32> {
        match self.1 {
            Mistake::TakesWhatIsLent => self.0.claim(pages, 0),
            // Page by page, the first so many in a row.
            Mistake::ForgetsTheOrder => {
                let first = self.0.take(1)?;
                (1..pages).all(|_| self.0.take(1).is_some()).then_some(first)
            }
            _ => self.0.take(pages),
        }
    }

    fn give_back(&mut self, first: u32, pages: u32) -> bool {
        let given = self.0.give_back(first, pages).is_ok();
        given || self.1 == Mistake::FreesAnyRun
    }
}

/// S101: by its own bitmap, aligned to the order, past what is lent as long as there is other room; and back once.
fn runs_are_aligned_nobody_s_and_come_back_once(way: &impl Goes<Mistake>) -> Verdict {
    let (mut words, mut borrowers) = ([Word::default(); 2], [Borrower::Nobody; 64]);
    let region = Region::new(&mut words, &mut borrowers).expect("64 pages");
    let mut pages = Pages(region, way.how());
    let borrower = Borrower::Movable { place: 3 };
    same("the highest is lent", &pages.0.lend(borrower), &Some(63))?;
    same("a page", &pages.take(1), &Some(0))?;
    same("three behind it", &pages.take(3), &Some(4))?;
    same("half of the region", &pages.take(32), &None)?;
    same("sixteen", &pages.take(16), &Some(16))?;
    same("sixteen more", &pages.take(16), &Some(32))?;
    same("of what is left some is lent", &pages.take(16), &None)?;
    same("a run", &pages.give_back(16, 16), &true)?;
    same("again", &pages.give_back(16, 16), &false)?;
    same("more than it has", &pages.give_back(4, 4), &false)?;
    same("a page that is lent", &pages.give_back(63, 1), &false)?;
    same("held", &pages.0.usage().held, &(1 + 3 + 16))
}

/// S107: each way of ending a mapping that it was not made in is told as what it is.
fn an_end_is_compared_with_its_mapping(way: &impl Goes<Mistake>) -> Verdict {
    let mapped = Mapping {
        device: Party { id: 1, name: "a disk" },
        family: Family::Single,
        space: 0,
        dma: DmaAddr::new(0x6010_0040),
        memory: (PhysAddr::new(0x6010_0040), 256),
        bytes: 256,
        flow: Flow::FromDevice,
        caller: VirtAddr::new(0x8010_0000),
    };
    let call = Mapping { caller: VirtAddr::new(0x8010_2000), ..mapped };
    let [size, flow] = [Mapping { bytes: 128, ..call }, Mapping { flow: Flow::ToDevice, ..call }];
    let family = Mapping { family: Family::Page, ..call };
    let ways = [
        (Said::Size, size, Misuse::OtherSize { mapped, call: size }),
        (Said::Direction, flow, Misuse::OtherFlow { mapped, call: flow }),
        (Said::Family, family, Misuse::OtherFamily { mapped, call: family }),
        (Said::Asked, call, Misuse::Unchecked { mapped, call }),
    ];
    for (said, call, misuse) in ways {
        let mut entries = [Entry::FREE; 4];
        let mut checker = Checker::new(&mut entries, 32);
        same("the mapping", &checker.mapped(mapped), &Ok(()))?;
        let believed = way.how() == Mistake::Believes(said);
        if said != Said::Asked || believed {
            checker.asked(mapped.device, (mapped.space, mapped.dma));
        }
        let call = if believed { Mapping { caller: call.caller, ..mapped } } else { call };
        same(&format!("another {said:?}"), &checker.unmapped(call), &Err(misuse))?;
    }
    Ok(())
}

board! {
    slots_are_lent_to_one_buffer_until_it_is_done(Mistake::None) {
        keeps_bounce_slots: "S106", "slots are never lent again", Mistake::KeepsSlots;
        frees_bounce_slots_twice: "S106", "slots are given back that are free, or a part of a buffer's", Mistake::FreesAnySlots;
    }
    every_byte_of_a_copy_is_found_where_it_lies(Mistake::None) {
        bounces_to_the_start: "S106", "a part of a buffer is copied to its copy's start", Mistake::ForgetsTheOffset;
    }
    a_device_is_lent_slots_that_it_reaches(Mistake::None) {
        bounces_above_the_mask: "S106", "the copy is out of the device's reach, too", Mistake::ForgetsTheMask;
    }
    blocks_lie_apart_and_cross_no_boundary(Mistake::None) {
        dma_block_crosses_its_boundary: "S103", "blocks are cut without a look at the boundary", Mistake::ForgetsTheBoundary;
        dma_block_given_twice: "S103", "a block that is taken is given again", Mistake::GivesABlockTwice;
    }
    a_block_comes_back_once(Mistake::None) {
        dma_block_freed_twice: "S103", "bits are cleared without a look at them", Mistake::FreesAnyBlock;
    }
    runs_are_aligned_nobody_s_and_come_back_once(Mistake::None) {
        takes_what_is_lent: "S101", "a borrower's page is a buffer's before its contents are elsewhere", Mistake::TakesWhatIsLent;
        contiguous_run_unaligned: "S101", "a run begins at the first free page", Mistake::ForgetsTheOrder;
        contiguous_run_freed_twice: "S101", "pages are given back that no buffer has", Mistake::FreesAnyRun;
    }
    an_end_is_compared_with_its_mapping(Mistake::None) {
        checker_believes_the_size: "S107", "a mapping ends with whatever size is said", Mistake::Believes(Said::Size);
        checker_believes_the_direction: "S107", "in whatever direction", Mistake::Believes(Said::Direction);
        checker_believes_the_family: "S107", "by whatever function", Mistake::Believes(Said::Family);
        checker_asks_nobody: "S107", "whether or not anybody asked if mapping it had failed", Mistake::Believes(Said::Asked);
    }
}
