//! Short-lived mappings that end without what S23 asks for.

use super::{Verdict, board, same};
use histories::bed::{Bed, CALLER};
use kerncore::{
    addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr, VirtAddr},
    machine::Machine,
};
use machine::{Behaviour, Fault, Kind, Privilege, SoftCpu, SoftMachine, pass_on};
use std::cell::{Cell, RefCell};

/// Pages of the mapping that ends.
const PAGES: u32 = 3;

/// What drives the tables.
trait Drives {
    type Cpu: Machine<Authority = ()> + Clone;

    fn drive(&self, machine: &'static SoftMachine) -> Self::Cpu;
}

/// CPU 0 itself.
struct Right;

impl Drives for Right {
    type Cpu = SoftCpu<'static>;

    fn drive(&self, machine: &'static SoftMachine) -> SoftCpu<'static> {
        machine.cpu(0)
    }
}

/// How the invalidation of a mapping that ends is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    /// As it should be.
    Right,
    /// Not at all.
    Never,
    /// Before the descriptors are cleared.
    BeforeClear,
    /// With the next descriptor that somebody writes.
    Later,
    /// Of the first page only.
    FirstPage,
    /// Of the pages one further up.
    Beside,
    /// In this CPU's TLB only.
    Local,
}

/// CPU 0 with one way to flush.
struct Flushes {
    cpu: SoftCpu<'static>,
    how: Flush,
    /// The mapping that ends, and is in use until then by the other CPU.
    in_use: RefCell<Option<PageRange>>,
    put_off: Cell<Option<PageRange>>,
}

impl Drives for Flush {
    type Cpu = &'static Flushes;

    fn drive(&self, machine: &'static SoftMachine) -> &'static Flushes {
        let (in_use, put_off) = (RefCell::new(None), Cell::new(None));
        Box::leak(Box::new(Flushes { cpu: machine.cpu(0), how: *self, in_use, put_off }))
    }
}

impl Flushes {
    fn invalidate(&self, pages: PageRange) {
        self.cpu.invalidate_tlb(pages);
        self.cpu.barrier();
    }
}

impl Machine for Flushes {
    type Authority = ();

    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        if let Some(pages) = self.put_off.take() {
            self.invalidate(pages);
        }
        if self.how == Flush::BeforeClear
            && let Some(pages) = self.in_use.take()
        {
            self.invalidate(pages);
            touch(self.cpu.machine().cpu(1), pages);
        }
        self.cpu.write_descriptors(first, descriptors);
    }

    fn invalidate_tlb(&self, pages: PageRange) {
        match self.how {
            Flush::Right => self.cpu.invalidate_tlb(pages),
            Flush::Never | Flush::BeforeClear => {}
            Flush::Later => self.put_off.set(Some(pages)),
            Flush::FirstPage => {
                self.cpu.invalidate_tlb(pages.sub_range(0, 1).expect("one or more"));
            }
            Flush::Beside => {
                let first = pages.first() + 1;
                let beside = PageRange::from_numbers(first, pages.count()).expect("below the top");
                self.cpu.invalidate_tlb(beside);
            }
            Flush::Local => self.cpu.invalidate_tlb_local(pages),
        }
    }

    pass_on!(cpu: read_descriptor clean_descriptors barrier clean_and_invalidate zero_frames
        in_interrupt cpu);
}

fn each(pages: PageRange) -> impl Iterator<Item = VirtAddr> {
    (pages.first()..pages.end()).map(|number| VirtAddr::new(number * PAGE_SIZE))
}

fn touch(cpu: SoftCpu<'_>, pages: PageRange) {
    each(pages).for_each(|address| _ = cpu.load(address).expect("mapped"));
}

/// What the killers need to tell a driver of; the right one wants nothing.
trait Told {
    fn ends(&self, _pages: PageRange) {}
}

impl Told for SoftCpu<'static> {}

impl Told for &'static Flushes {
    fn ends(&self, pages: PageRange) {
        self.in_use.replace(Some(pages));
    }
}

/// S23: when the unmapping has returned, no CPU reaches the frames any more.
fn no_cpu_reaches_an_ended_mapping<D: Drives<Cpu: Told>>(drives: &D) -> Verdict {
    ended(drives, |bed, pages, _| {
        for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
            for address in each(pages) {
                let reached = cpu.access(address, Kind::Write, Privilege::Kernel);
                same(&format!("{cpu:?}"), &reached, &Err(Fault::Translation(address)))?;
            }
        }
        Ok(())
    })
}

/// S23: who is given a block's addresses anew finds his own frames there, on every CPU.
fn reused_addresses_lead_to_the_new_frames<D: Drives<Cpu: Told>>(drives: &D) -> Verdict {
    ended(drives, |bed, pages, others| {
        // What the machine still remembers shows once the frames are others'.
        let records = bed.records(others);
        let again = bed.space.map_ram(&records, CALLER).map_err(|error| error.to_string())?;
        same("the addresses", &again, &pages.start())?;
        for cpu in [bed.machine.cpu(1), bed.machine.cpu(0)] {
            for (address, frame) in each(pages).zip(others) {
                let reached = cpu.access(address, Kind::Write, Privilege::Kernel);
                same(&format!("{cpu:?}"), &reached, &Ok(frame.base()))?;
            }
        }
        Ok(())
    })
}

/// Maps, uses and ends a mapping, on machines of every behaviour, and has `judge` look at what is left.
fn ended<D: Drives<Cpu: Told>>(
    drives: &D,
    judge: impl Fn(&Bed<D::Cpu>, PageRange, &[Pfn]) -> Verdict,
) -> Verdict {
    for behaviour in Behaviour::all(8) {
        let bed = Bed::driven_by(behaviour, |machine| drives.drive(machine));
        bed.warm_up();
        let (_list, frames) = bed.frames(2 * PAGES);
        let (ours, others) = frames.split_at(PAGES as usize);
        let address = bed.space.map_ram(&bed.records(ours), CALLER);
        let address = address.map_err(|error| error.to_string())?;
        let pages = PageRange::new(address, PAGES).ok_or("pages")?;
        touch(bed.machine.cpu(0), pages);
        touch(bed.machine.cpu(1), pages);
        bed.space.table().raw_machine(()).ends(pages);
        bed.space.unmap_ram((), address, PAGES).map_err(|error| error.to_string())?;
        judge(&bed, pages, others).map_err(|saw| format!("{behaviour:?}: {saw}"))?;
    }
    Ok(())
}

board! {
    no_cpu_reaches_an_ended_mapping(Right, Flush::Right) {
        fragment_never_flushed: "S23", "a fragment goes back without a flush", Flush::Never;
        fragment_flushed_before_clear: "S23", "a fragment is flushed, then its descriptors are cleared", Flush::BeforeClear;
        fragment_flushed_with_the_next: "S23", "a fragment goes back before its flush", Flush::Later;
        fragment_flushed_in_part: "S23", "of a fragment the first page only is flushed", Flush::FirstPage;
        fragment_flushed_on_one_cpu: "S23", "a fragment is flushed in the TLB of one CPU", Flush::Local;
    }
    reused_addresses_lead_to_the_new_frames(Right, Flush::Right) {
        block_reused_unflushed: "S87", "a block's addresses are used again without a flush", Flush::Never;
        block_reused_after_another_flush: "S87", "the pages beside those used again are flushed", Flush::Beside;
    }
}
