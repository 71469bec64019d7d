//! Machines that flush wrongly, for whoever ends a mapping.

use kerncore::{
    addr::{PAGE_SIZE, PageRange, PhysAddr, VirtAddr},
    machine::Machine,
};
use machine::{SoftCpu, SoftMachine, pass_on};
use std::cell::{Cell, RefCell};

/// What drives the tables.
pub(super) trait Drives {
    type Cpu: Machine<Authority = ()> + Clone;

    fn drive(&self, machine: &'static SoftMachine) -> Self::Cpu;
}

/// CPU 0 itself.
pub(super) struct Right;

impl Drives for Right {
    type Cpu = SoftCpu<'static>;

    fn drive(&self, machine: &'static SoftMachine) -> SoftCpu<'static> {
        machine.cpu(0)
    }
}

/// How the invalidation of a mapping that ends is done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
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
    /// Of the first range that goes, and of none that goes with it.
    FirstRange,
    /// Of the lower half of what goes.
    LowerHalf,
    /// In this CPU's TLB only.
    Local,
}

/// CPU 0 with one way to flush.
pub(super) struct Flushes {
    cpu: SoftCpu<'static>,
    how: Flush,
    /// The mapping that ends, and is in use until then by the other CPU.
    in_use: RefCell<Option<PageRange>>,
    put_off: Cell<Option<PageRange>>,
    /// Whether a range was flushed since the last mapping that was in use went.
    flushed: Cell<bool>,
}

impl Drives for Flush {
    type Cpu = &'static Flushes;

    fn drive(&self, machine: &'static SoftMachine) -> &'static Flushes {
        let (in_use, put_off) = (RefCell::new(None), Cell::new(None));
        let flushed = Cell::new(false);
        Box::leak(Box::new(Flushes { cpu: machine.cpu(0), how: *self, in_use, put_off, flushed }))
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
            Flush::FirstRange => {
                if !self.flushed.replace(true) {
                    self.cpu.invalidate_tlb(pages);
                }
            }
            Flush::LowerHalf => {
                let goes = self.in_use.borrow().unwrap_or(pages);
                if pages.first() < goes.first() + goes.count() / 2 {
                    self.cpu.invalidate_tlb(pages);
                }
            }
            Flush::Local => self.cpu.invalidate_tlb_local(pages),
        }
    }

    pass_on!(cpu: read_descriptor clean_descriptors barrier clean_and_invalidate zero_pages
        in_interrupt cpu);
}

pub(super) fn each(pages: PageRange) -> impl Iterator<Item = VirtAddr> {
    (pages.first()..pages.end()).map(|number| VirtAddr::new(number * PAGE_SIZE))
}

pub(super) fn touch(cpu: SoftCpu<'_>, pages: PageRange) {
    each(pages).for_each(|address| _ = cpu.load(address).expect("mapped"));
}

/// What the killers need to tell a driver of; the right one wants nothing.
pub(super) trait Told {
    fn ends(&self, _pages: PageRange) {}
}

impl Told for SoftCpu<'static> {}

impl Told for &'static Flushes {
    fn ends(&self, pages: PageRange) {
        self.in_use.replace(Some(pages));
        self.flushed.set(false);
    }
}
