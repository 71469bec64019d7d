//! Wrong machines, each of which forgets one thing: the tests that say "right" of the real one must say "wrong" of
//! each of these, or they prove nothing.

use crate::{
    linear_map::life_of_a_coherent_buffer,
    support::{SEEDS, WINDOW, World, absent, cut, everywhere, frame, table_of},
};
use kerncore::{
    addr::{PageRange, Pfn, PhysAddr},
    attributes::Attributes,
    machine::Machine,
    page_table::consecutive,
};
use machine::{Behaviour, Kind, Privilege, SoftCpu};
use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    NoFlush,
    OnePageTooFew,
    OnlyTheFirstPage,
    LocalFlush,
    NoClean,
    OneSlotTooFewCleaned,
    NoBarrier,
    /// A barrier is left out if what follows it is an invalidation.
    NoBarrierBeforeFlush,
    /// A barrier is left out if what follows it is the writing of a descriptor.
    NoBarrierBeforeLinking,
    NoCleanOfBuffer,
    OneFrameTooFewCleaned,
}

/// CPU 0 with a mistake. Barriers are put off until it is known what follows them.
#[derive(Clone)]
struct Wrong<'m> {
    cpu: SoftCpu<'m>,
    mistake: Mistake,
    due: Cell<bool>,
}

impl<'m> Wrong<'m> {
    fn new(world: &'m World, mistake: Mistake) -> Self {
        Self { cpu: world.cpu(0), mistake, due: Cell::new(false) }
    }

    /// Does the barrier that is due, unless the mistake is to leave it out here.
    fn settle(&self, left_out: Mistake) {
        if self.due.replace(false) && self.mistake != left_out {
            self.cpu.barrier();
        }
    }

    /// All but the last page, or none at all.
    fn but_last(pages: PageRange) -> Option<PageRange> {
        let count = pages.count().checked_sub(1).filter(|&count| count != 0)?;
        pages.sub_range(0, count)
    }
}

impl Machine for Wrong<'_> {
    type Authority = ();

    fn read_descriptor(&self, slot: PhysAddr) -> u32 {
        self.cpu.read_descriptor(slot)
    }

    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        self.settle(Mistake::NoBarrierBeforeLinking);
        self.cpu.write_descriptors(first, descriptors);
    }

    fn clean_descriptors(&self, first: PhysAddr, count: u32) {
        self.settle(Mistake::None);
        match self.mistake {
            Mistake::NoClean => {}
            Mistake::OneSlotTooFewCleaned => {
                self.cpu.clean_descriptors(first, count.max(2) - 1);
            }
            _ => self.cpu.clean_descriptors(first, count),
        }
    }

    fn barrier(&self) {
        match self.mistake {
            Mistake::NoBarrier => {}
            Mistake::NoBarrierBeforeFlush | Mistake::NoBarrierBeforeLinking => {
                self.settle(Mistake::None);
                self.due.set(true);
            }
            _ => self.cpu.barrier(),
        }
    }

    fn invalidate_tlb(&self, pages: PageRange) {
        self.settle(Mistake::NoBarrierBeforeFlush);
        match self.mistake {
            Mistake::NoFlush => {}
            Mistake::LocalFlush => self.cpu.invalidate_tlb_local(pages),
            Mistake::OnePageTooFew => {
                if let Some(pages) = Self::but_last(pages) {
                    self.cpu.invalidate_tlb(pages);
                }
            }
            Mistake::OnlyTheFirstPage => {
                self.cpu.invalidate_tlb(pages.sub_range(0, 1).unwrap_or(pages));
            }
            _ => self.cpu.invalidate_tlb(pages),
        }
    }

    fn clean_and_invalidate(&self, pages: PageRange, first: Pfn) {
        self.settle(Mistake::None);
        match self.mistake {
            Mistake::NoCleanOfBuffer => {}
            Mistake::OneFrameTooFewCleaned => {
                if let Some(pages) = Self::but_last(pages) {
                    self.cpu.clean_and_invalidate(pages, first);
                }
            }
            _ => self.cpu.clean_and_invalidate(pages, first),
        }
    }

    fn zero_frames(&self, first: Pfn, count: u32) {
        self.cpu.zero_frames(first, count);
    }
}

/// Maps, unmaps and maps anew over the border of two tables, and looks from both CPUs after each step. The last
/// page's slot is the first of its cache line, so that a clean that is one slot short misses it.
fn map_unmap_map(world: &World, mistake: Mistake) -> Result<(), String> {
    let (table, window) = table_of(Wrong::new(world, mistake));
    let mut range = cut(window, 250, 16);
    let look = |page: u32, wanted| {
        for number in 0..2 {
            let cpu = world.cpu(number);
            let found = cpu.access(crate::support::at(page), Kind::Read, Privilege::Kernel);
            if found.map(PhysAddr::pfn) != wanted {
                return Err(format!("CPU {number}, page {page:#x}: {found:?}, not {wanted:?}"));
            }
        }
        Ok(())
    };
    let nothing = |from: u32, to: u32| {
        (WINDOW + from..WINDOW + to).try_for_each(|page| look(page, absent(page)))
    };
    nothing(248, 268)?;
    for first in [0x6_0200, 0x6_0300] {
        let list = consecutive(frame(first), 15).expect("below 4 GiB");
        table
            .map(&mut range, 0, list, Attributes::KERNEL_DATA, &world.tables)
            .map_err(|error| error.to_string())?;
        table.raw_machine(()).settle(Mistake::None);
        (0..15).try_for_each(|page| look(WINDOW + 250 + page, Ok(frame(first + page))))?;
        nothing(248, 250)?;
        nothing(265, 268)?;
        range = table.unmap(range, ()).flush().range;
        table.raw_machine(()).settle(Mistake::None);
        nothing(248, 268)?;
    }
    Ok(())
}

#[test]
fn the_real_machine_passes_what_kills_the_wrong_ones() {
    everywhere(|world| assert_eq!(map_unmap_map(world, Mistake::None), Ok(())));
}

/// The hoarding machine alone kills each of them, and so does at least one seed.
#[test]
fn every_wrong_machine_is_caught() {
    for mistake in [
        Mistake::NoFlush,
        Mistake::OnePageTooFew,
        Mistake::OnlyTheFirstPage,
        Mistake::LocalFlush,
        Mistake::NoClean,
        Mistake::OneSlotTooFewCleaned,
        Mistake::NoBarrier,
        Mistake::NoBarrierBeforeFlush,
        Mistake::NoBarrierBeforeLinking,
    ] {
        let outcome = map_unmap_map(&World::new(Behaviour::Hoarding), mistake);
        println!("{mistake:?}: {outcome:?}");
        assert!(outcome.is_err(), "{mistake:?} passed on the hoarding machine");
        let caught = (0..SEEDS * 4)
            .any(|seed| map_unmap_map(&World::new(Behaviour::Random(seed)), mistake).is_err());
        assert!(caught, "{mistake:?} passed on every seed");
        let forgiven = map_unmap_map(&World::new(Behaviour::Forgetful), mistake);
        assert_eq!(forgiven, Ok(()), "{mistake:?}: this is why an emulator does not suffice");
    }
}

/// S85, S97: what the device and the CPU see of a buffer whose lines were not cleaned, or cleaned too early.
#[test]
fn every_wrong_treatment_of_a_buffers_lines_is_caught() {
    for mistake in [Mistake::NoCleanOfBuffer, Mistake::OneFrameTooFewCleaned, Mistake::NoFlush] {
        let world = World::new(Behaviour::Hoarding);
        let outcome = life_of_a_coherent_buffer(&world, Wrong::new(&world, mistake), |_, _| ());
        assert!(outcome.is_err(), "{mistake:?} passed on the hoarding machine");
    }
}

/// Cleaned while the linear entry is live, and not again: reading ahead brings the lines back.
#[test]
fn cleaning_before_the_linear_entry_is_gone_is_caught() {
    let world = World::new(Behaviour::Hoarding);
    let wrong = Wrong::new(&world, Mistake::NoCleanOfBuffer);
    let outcome = life_of_a_coherent_buffer(&world, wrong, |machine, block| {
        let first = PageRange::from_numbers(block.first().number() + 0x2_0000, block.pages());
        machine.cpu.clean_and_invalidate(first.expect("a range"), block.first());
        machine.cpu.barrier();
    });
    assert_eq!(outcome, Err("the CPU sees the device's word"));
}
