//! The machine of a domain's tables: the kernel's, but for what it invalidates.

use core::fmt;
use core::sync::atomic::AtomicU32;

use crate::addr::{PageRange, Pfn, PhysAddr};
use crate::lines::Edge;
use crate::lock::Locks;
use crate::machine::Machine;
use crate::user::machine::UserMachine;
use crate::user::{Spaces, Visitor};

/// What remembers a domain's translations. Any context; nothing here waits: what was asked is complete after
/// [`Machine::barrier`].
pub trait Iotlb {
    /// Forgets what translates any of `pages`, whatever the size of its entry, and the upper levels above it.
    fn invalidate(&self, pages: PageRange);

    /// Forgets everything.
    fn invalidate_all(&self);
}

impl<T: Iotlb> Iotlb for &T {
    fn invalidate(&self, pages: PageRange) {
        (**self).invalidate(pages);
    }

    fn invalidate_all(&self) {
        (**self).invalidate_all();
    }
}

/// A machine whose page table is a domain's: it writes as `machine` does, and invalidates what `iotlb` remembers.
#[derive(Debug)]
pub struct DomainMachine<M, T> {
    pub(super) machine: M,
    pub(super) iotlb: T,
}

impl<M: Machine, T: Iotlb> Machine for DomainMachine<M, T> {
    type Authority = M::Authority;

    #[inline(always)]
    fn read_descriptor(&self, slot: PhysAddr) -> u32 {
        self.machine.read_descriptor(slot)
    }

    #[inline(always)]
    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        self.machine.write_descriptors(first, descriptors);
    }

    #[inline(always)]
    fn join_descriptors(
        &self,
        first: PhysAddr,
        count: u32,
        bits: u32,
        join: impl Fn(u32, u32) -> u32,
    ) -> u32 {
        self.machine.join_descriptors(first, count, bits, join)
    }

    #[inline(always)]
    fn all_hold(&self, first: PhysAddr, count: u32, descriptor: u32) -> bool {
        self.machine.all_hold(first, count, descriptor)
    }

    #[inline(always)]
    fn fill_descriptors(&self, first: PhysAddr, count: u32, descriptor: u32) {
        self.machine.fill_descriptors(first, count, descriptor);
    }

    #[inline(always)]
    fn clean_descriptors(&self, first: PhysAddr, count: u32) {
        self.machine.clean_descriptors(first, count);
    }

    #[inline(always)]
    fn barrier(&self) {
        self.machine.barrier();
    }

    #[inline(always)]
    fn invalidate_tlb(&self, pages: PageRange) {
        self.iotlb.invalidate(pages);
    }

    /// What a device sees is no address of the processor's, and has no lines: those are whoever's who has the memory mapped.
    fn clean_and_invalidate(&self, _pages: PageRange, _first: Pfn) {}

    /// As above: nothing is written through a device's addresses.
    fn zero_pages(&self, _pages: PageRange) {}

    #[inline(always)]
    fn write_steps<const STEP: u32>(&self, words: &[AtomicU32], first: u32) {
        self.machine.write_steps::<STEP>(words, first);
    }

    #[inline(always)]
    fn clear_words(&self, words: &[AtomicU32]) {
        self.machine.clear_words(words);
    }

    #[inline(always)]
    fn common_bits(&self, words: &[AtomicU32]) -> u32 {
        self.machine.common_bits(words)
    }

    #[inline(always)]
    fn note(&self, call: &'static str, edge: Edge, first: PhysAddr, bytes: u32) {
        self.machine.note(call, edge, first, bytes);
    }

    fn in_interrupt(&self) -> bool {
        self.machine.in_interrupt()
    }

    #[inline(always)]
    fn cpu(&self) -> usize {
        self.machine.cpu()
    }
}

/// A processor's TLB as a domain's IOTLB: that of every CPU which stands in for the device (S110). It goes with its domain, whose
/// number is free then.
pub struct CpuIotlb<'k, M, L: Locks> {
    machine: M,
    spaces: &'k Spaces<L>,
    visitor: Visitor,
}

impl<'k, M: UserMachine, L: Locks> CpuIotlb<'k, M, L> {
    /// The TLBs of `machine` and of all other CPUs, under a number of its own among those of `spaces`.
    pub fn new(machine: M, spaces: &'k Spaces<L>) -> Self {
        Self { machine, spaces, visitor: spaces.visitor() }
    }

    /// Runs `act` while this CPU sees what the device does at the first-level table at `root`, which is the domain's, below
    /// [`crate::user::USER_END`]. May not be called in interrupt context, nor by `act`.
    ///
    /// # Panics
    /// In interrupt context, or if this CPU has the lower half open already.
    pub fn with_open<R>(&self, root: PhysAddr, act: impl FnOnce() -> R) -> R {
        self.with_open_on(&self.machine, root, act)
    }

    /// As [`CpuIotlb::with_open`], for machines each value of which is one CPU.
    ///
    /// # Panics
    /// In interrupt context, or if this CPU has the lower half open already.
    pub fn with_open_on<R>(&self, machine: &M, root: PhysAddr, act: impl FnOnce() -> R) -> R {
        self.spaces.with_table(machine, &self.visitor, root, act)
    }
}

impl<M: UserMachine, L: Locks> Iotlb for CpuIotlb<'_, M, L> {
    #[inline]
    fn invalidate(&self, pages: PageRange) {
        self.visitor.invalidate(&self.machine, pages);
    }

    fn invalidate_all(&self) {
        self.visitor.invalidate_all(&self.machine);
    }
}

impl<M, L: Locks> Drop for CpuIotlb<'_, M, L> {
    fn drop(&mut self) {
        self.spaces.retire(&self.visitor);
    }
}

impl<M, L: Locks> fmt::Debug for CpuIotlb<'_, M, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuIotlb").field("visitor", &self.visitor).finish_non_exhaustive()
    }
}
