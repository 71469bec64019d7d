//! Wrong machines: each forgets one thing that `kerncore` asked of it, so that the code above it is as wrong as if it
//! had not asked. A right machine is [`SoftCpu`].

use super::{Verdict, board, same};
use crate::{
    linear_map::{frames_that_become_read_only, life_of_a_coherent_buffer},
    support::{SEEDS, TABLES, WINDOW, World, absent, at, cut, frame, pages, table_of},
};
use kerncore::{
    addr::{PageRange, Pfn, PhysAddr},
    attributes::{self, Access, Attributes, Execute, MemoryType},
    frames::FrameBlock,
    machine::Machine,
    page_table::{MapError, consecutive},
};
use machine::{Asid, Behaviour, Fault, Kind, Privilege, Reach, Register, Scope, SoftCpu, pass_on};
use std::cell::Cell;

/// Whose CPU 0 drives the tables.
pub(crate) trait Cpus {
    type Cpu<'w>: Machine<Authority = ()> + Clone;

    fn cpu<'w>(&self, world: &'w World) -> Self::Cpu<'w>;

    /// Whoever asked for the last step is done: nothing is put off any longer.
    fn settle(&self, _cpu: &Self::Cpu<'_>) {}

    /// `block` is about to leave the linear map.
    fn before_withdrawal(&self, _cpu: &Self::Cpu<'_>, _block: &FrameBlock) {}
}

/// CPUs that do as they are told.
struct Right;

impl Cpus for Right {
    type Cpu<'w> = SoftCpu<'w>;

    fn cpu<'w>(&self, world: &'w World) -> SoftCpu<'w> {
        world.cpu(0)
    }
}

/// The address space that CPU 0 is in when it unmaps.
const CURRENT: Asid = Asid(2);

/// What goes wrong. Of several of a kind each is a mutant of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    NoFlush,
    OnePageTooFew,
    OnlyTheFirstPage,
    LocalFlush,
    /// Invalidated in the current address space only.
    FlushOfOneSpace,
    /// The whole address space is invalidated, and with it nothing that is global.
    FlushOfAllOfASpace,
    NoClean,
    OneSlotTooFewCleaned,
    NoBarrier,
    /// A barrier is left out if what follows it is an invalidation.
    NoBarrierBeforeFlush,
    /// A barrier is left out if what follows it is the writing of a descriptor.
    NoBarrierBeforeLinking,
    /// The barrier comes before the clean that it should wait for, and not after it.
    BarrierBeforeClean,
    /// The barrier comes before the invalidation that it should wait for, and not after it.
    BarrierBeforeFlush,
    /// Second-level slots are not looked at before they are written.
    SlotsLookEmpty,
    NoCleanOfBuffer,
    OneFrameTooFewCleaned,
    /// A buffer is cleaned while its linear entry is live, and not again.
    BufferCleanedTooEarly,
    /// The barrier behind the clean of a buffer is left out.
    NoBarrierAfterBuffer,
}

impl Cpus for Mistake {
    type Cpu<'w> = Wrong<'w>;

    fn cpu<'w>(&self, world: &'w World) -> Wrong<'w> {
        let (due, done) = (Cell::new(false), Cell::new(false));
        Wrong { cpu: world.cpu(0), mistake: *self, due, done }
    }

    fn settle(&self, cpu: &Wrong<'_>) {
        cpu.settle(Self::None);
    }

    fn before_withdrawal(&self, cpu: &Wrong<'_>, block: &FrameBlock) {
        if *self == Self::BufferCleanedTooEarly {
            let linear = pages(block.first().number() + 0x2_0000, block.pages());
            cpu.cpu.clean_and_invalidate(linear, block.first());
            cpu.cpu.barrier();
        }
    }
}

/// CPU 0 with a mistake.
#[derive(Clone)]
struct Wrong<'m> {
    cpu: SoftCpu<'m>,
    mistake: Mistake,
    /// A barrier that is put off until it is known what follows it.
    due: Cell<bool>,
    /// The next barrier was done already, too early.
    done: Cell<bool>,
}

impl Wrong<'_> {
    /// Does the barrier that is due, unless the mistake is to leave it out here.
    fn settle(&self, left_out: Mistake) {
        if self.due.replace(false) && self.mistake != left_out {
            self.cpu.barrier();
        }
    }

    /// Does the barrier that should come next, if the mistake is to do it here.
    fn hurry(&self, too_early: Mistake) {
        if self.mistake == too_early {
            self.cpu.barrier();
            self.done.set(true);
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
        let is_second_level = slot.raw() >= TABLES.raw();
        match self.mistake {
            Mistake::SlotsLookEmpty if is_second_level => 0,
            _ => self.cpu.read_descriptor(slot),
        }
    }

    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        self.settle(Mistake::NoBarrierBeforeLinking);
        self.cpu.write_descriptors(first, descriptors);
    }

    fn clean_descriptors(&self, first: PhysAddr, count: u32) {
        self.settle(Mistake::None);
        self.hurry(Mistake::BarrierBeforeClean);
        match self.mistake {
            Mistake::NoClean => {}
            Mistake::OneSlotTooFewCleaned => {
                self.cpu.clean_descriptors(first, count.max(2) - 1);
            }
            _ => self.cpu.clean_descriptors(first, count),
        }
    }

    fn barrier(&self) {
        if self.done.replace(false) {
            return;
        }
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
        self.hurry(Mistake::BarrierBeforeFlush);
        match self.mistake {
            Mistake::NoFlush => {}
            Mistake::LocalFlush => self.cpu.invalidate_tlb_local(pages),
            Mistake::FlushOfOneSpace => {
                self.cpu.invalidate(Scope::PagesOf(pages, CURRENT), Reach::InnerShareable);
            }
            Mistake::FlushOfAllOfASpace => {
                self.cpu.invalidate(Scope::Space(CURRENT), Reach::InnerShareable);
            }
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
            Mistake::NoCleanOfBuffer | Mistake::BufferCleanedTooEarly => {}
            Mistake::OneFrameTooFewCleaned => {
                if let Some(pages) = Self::but_last(pages) {
                    self.cpu.clean_and_invalidate(pages, first);
                }
            }
            _ => self.cpu.clean_and_invalidate(pages, first),
        }
        // The next barrier is taken for done.
        self.done.set(self.mistake == Mistake::NoBarrierAfterBuffer);
    }

    pass_on!(cpu: zero_pages in_interrupt cpu);
}

/// The first behaviour of the machine on which `killer` does not hold.
fn everywhere(killer: impl Fn(&World) -> Verdict) -> Verdict {
    Behaviour::all(SEEDS).into_iter().try_for_each(|behaviour| {
        killer(&World::new(behaviour)).map_err(|saw| format!("{behaviour:?}: {saw}"))
    })
}

/// Maps, unmaps and maps anew over the border of two tables, and looks from both CPUs after each step. The last
/// page's slot is the first of its cache line, so that a clean that is one slot short misses it.
fn map_unmap_map(cpus: &impl Cpus, world: &World) -> Verdict {
    let (table, window) = table_of(cpus.cpu(world));
    let mut range = cut(window, 250, 15);
    let look = |page: u32, wanted| {
        (0..2).try_for_each(|number| {
            let found = world.cpu(number).access(at(page), Kind::Read, Privilege::Kernel);
            same(&format!("CPU {number}, page {page:#x}"), &found.map(PhysAddr::pfn), &wanted)
        })
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
        cpus.settle(table.raw_machine(()));
        (0..15).try_for_each(|page| look(WINDOW + 250 + page, Ok(frame(first + page))))?;
        nothing(248, 250)?;
        nothing(265, 268)?;
        range = table.unmap(range, ()).flush().range;
        cpus.settle(table.raw_machine(()));
        nothing(248, 268)?;
    }
    Ok(())
}

/// S16a, S21, S23, S116: what is mapped is seen, and what was unmapped is not, at once and by all CPUs.
fn every_cpu_sees_each_mapping_and_each_unmapping_at_once(cpus: &impl Cpus) -> Verdict {
    everywhere(|world| map_unmap_map(cpus, world))
}

/// S23: what is unmapped is gone from every address space that had seen it, whether it was global or not.
fn every_address_space_forgets_what_was_unmapped(cpus: &impl Cpus) -> Verdict {
    let of_one_space = Attributes::new(
        MemoryType::NormalWriteBack,
        Access::UserReadWrite,
        Execute::Never,
        attributes::Scope::NonGlobal,
    )
    .map_err(|error| error.to_string())?;
    everywhere(|world| {
        let (table, window) = table_of(cpus.cpu(world));
        let mut range = cut(window, 0, 4);
        let enter = |asid| {
            world.cpu(0).write_register(Register::ContextId(asid));
            world.cpu(0).barrier();
        };
        let look = |wanted: &dyn Fn(u32) -> Result<Pfn, Fault>| {
            [Asid(1), CURRENT].into_iter().try_for_each(|asid| {
                enter(asid);
                (WINDOW..WINDOW + 4).try_for_each(|page| {
                    let found = world.cpu(0).access(at(page), Kind::Read, Privilege::Kernel);
                    same(
                        &format!("{asid:?}, page {page:#x}"),
                        &found.map(PhysAddr::pfn),
                        &wanted(page),
                    )
                })
            })
        };
        for attributes in [of_one_space, Attributes::KERNEL_DATA] {
            let list = consecutive(frame(0x6_0200), 4).expect("below 4 GiB");
            table
                .map(&mut range, 0, list, attributes, &world.tables)
                .map_err(|error| error.to_string())?;
            cpus.settle(table.raw_machine(()));
            look(&|page| Ok(frame(0x6_0200 + page - WINDOW)))?;
            range = table.unmap(range, ()).flush().range;
            cpus.settle(table.raw_machine(()));
            look(&absent)?;
        }
        Ok(())
    })
}

/// S85, S97: CPU and device see each other's words in a buffer all through its life.
fn cpu_and_device_agree_on_a_buffer(cpus: &impl Cpus) -> Verdict {
    everywhere(|world| {
        let before_withdrawal = |cpu: &_, block: &_| cpus.before_withdrawal(cpu, block);
        Ok(life_of_a_coherent_buffer(world, cpus.cpu(world), before_withdrawal)?)
    })
}

/// S112: nobody writes to protected frames any more, by whichever CPU and whatever its TLB had.
fn protected_frames_are_read_only_for_all(cpus: &impl Cpus) -> Verdict {
    everywhere(|world| {
        Ok(frames_that_become_read_only(world, cpus.cpu(world), |cpu| cpus.settle(cpu))?)
    })
}

/// S17: a slot in use is refused by name and left alone, in whichever table of the range it lies.
fn a_slot_in_use_is_refused_and_left_alone(cpus: &impl Cpus) -> Verdict {
    everywhere(|world| {
        let (table, window) = table_of(cpus.cpu(world));
        let mut range = cut(window, 254, 6);
        let theirs = [frame(0x6_0500)];
        table
            .map(&mut range, 4, theirs, Attributes::KERNEL_DATA, &world.tables)
            .map_err(|error| error.to_string())?;
        let list = consecutive(frame(0x6_0300), 6).expect("below 4 GiB");
        let refused = table.map(&mut range, 0, list, Attributes::DEVICE, &world.tables);
        let address = at(WINDOW + 258);
        let wanted = MapError::Occupied { address, descriptor: 0x6050_045f, mapped: 2 };
        same("mapping over a mapping", &refused, &Err(wanted))?;
        same("the page that was there", &world.reach(WINDOW + 258), &Ok(theirs[0]))
    })
}

board! {
    every_cpu_sees_each_mapping_and_each_unmapping_at_once(Right) {
        no_flush: "S23", "an unmapping invalidates nothing", Mistake::NoFlush;
        flush_one_page_too_few: "S21", "the last page is not invalidated", Mistake::OnePageTooFew;
        flush_of_the_first_page_only: "S21", "the first page alone is invalidated", Mistake::OnlyTheFirstPage;
        flush_local: "S116", "invalidated on this CPU, not inner-shareable", Mistake::LocalFlush;
        no_clean_of_the_descriptor: "S16a", "written descriptors are not cleaned", Mistake::NoClean;
        clean_one_slot_too_few: "S16a", "the last slot is not cleaned", Mistake::OneSlotTooFewCleaned;
        no_barrier: "S16a", "nothing is waited for", Mistake::NoBarrier;
        no_barrier_before_the_flush: "S21", "invalidated before the cleared slot is visible", Mistake::NoBarrierBeforeFlush;
        no_barrier_before_the_link: "S16a", "a table is linked before its slots are visible", Mistake::NoBarrierBeforeLinking;
        barrier_before_the_clean: "S16a", "the barrier comes before the clean it is for", Mistake::BarrierBeforeClean;
        barrier_before_the_invalidation: "S23", "the barrier comes before the invalidation it is for", Mistake::BarrierBeforeFlush;
    }
    every_address_space_forgets_what_was_unmapped(Right) {
        flush_of_the_current_address_space_only: "S23", "invalidated by address in one address space", Mistake::FlushOfOneSpace;
        flush_of_an_address_space_for_a_global_page: "S23", "invalidated by address space, which leaves global pages", Mistake::FlushOfAllOfASpace;
    }
    cpu_and_device_agree_on_a_buffer(Right) {
        no_clean_of_the_buffer: "S85", "a lent frame's lines stay in the cache", Mistake::NoCleanOfBuffer;
        buffer_cleaned_one_frame_too_few: "S85", "the last frame's lines stay in the cache", Mistake::OneFrameTooFewCleaned;
        buffer_cleaned_too_early: "S97", "cleaned while the linear entry is live, not after", Mistake::BufferCleanedTooEarly;
        no_barrier_after_the_buffer: "S85", "the clean of a buffer is not waited for", Mistake::NoBarrierAfterBuffer;
        linear_entry_not_flushed: "S97", "a lent frame's linear entry is not invalidated", Mistake::NoFlush;
    }
    protected_frames_are_read_only_for_all(Right) {
        protected_without_a_flush: "S112", "frames become read-only, and TLBs are not told", Mistake::NoFlush;
        protected_and_flushed_here: "S112", "frames become read-only, and this CPU's TLB is told", Mistake::LocalFlush;
        protected_without_a_clean: "S16a", "read-only entries stay in the cache", Mistake::NoClean;
    }
    a_slot_in_use_is_refused_and_left_alone(Right) {
        overwrites_a_slot_in_use: "S17", "slots are written without a look at them", Mistake::SlotsLookEmpty;
    }
}

/// The hoarding machine kills each of these, and so does at least one seed; the forgetful one, which is what an emulator is
/// most like, kills none.
#[test]
fn an_emulator_would_forgive_what_the_hoarding_machine_does_not() {
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
        Mistake::BarrierBeforeClean,
        Mistake::BarrierBeforeFlush,
    ] {
        let on = |behaviour| map_unmap_map(&mistake, &World::new(behaviour));
        assert!(on(Behaviour::Hoarding).is_err(), "{mistake:?} passed on the hoarding machine");
        let caught = (0..SEEDS * 4).any(|seed| on(Behaviour::Random(seed)).is_err());
        assert!(caught, "{mistake:?} passed on every seed");
        assert_eq!(on(Behaviour::Forgetful), Ok(()), "{mistake:?}");
    }
}
