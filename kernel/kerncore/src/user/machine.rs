//! What address spaces ask of a processor beyond [`Machine`]: its registers for the lower half, and flushes by space.

use crate::addr::{PageRange, Pfn, PhysAddr};
use crate::machine::Machine;
use crate::user::asid::{Asid, Current};

/// Whether a miss of the TLB below [`super::USER_END`] may walk TTBR0's table (TTBCR.PD0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walks {
    /// It may.
    Allowed,
    /// It faults.
    Forbidden,
}

/// A processor that runs programs. Nothing here waits: what was asked is complete, and a register in effect, after
/// [`Machine::barrier`]; of two registers that were written without one between, either may come first.
///
/// A clone is the same processor.
pub trait UserMachine: Machine + Clone {
    /// Invalidates what any CPU's TLB holds for `pages` under `space`.
    fn invalidate_tlb_in(&self, space: Asid, pages: PageRange);

    /// Invalidates what any CPU's TLB holds under `space`, what it remembers of upper levels included.
    fn invalidate_tlb_space(&self, space: Asid);

    /// Empties every CPU's TLB, and its branch predictor.
    fn invalidate_tlb_everything(&self);

    /// Makes this CPU translate the lower half by the table at `table` (TTBR0).
    fn set_user_table(&self, table: PhysAddr);

    /// Makes this CPU run in the address space `asid` (CONTEXTIDR).
    fn set_asid(&self, asid: Asid);

    /// Allows or forbids this CPU to walk the user's table (TTBCR.PD0).
    fn set_user_walks(&self, walks: Walks);

    /// Writes `bytes` to the frames from `first` on, which have room for them, are the caller's, and are in the linear map.
    fn write_frames(&self, first: Pfn, bytes: &[u8]);

    /// Copies the frame `from` to the frame `to`, which is the caller's alone; both are in the linear map.
    fn copy_frame(&self, from: Pfn, to: Pfn);

    /// Cleans the data-cache lines of `count` frames from `first`, which are in the linear map, to where instructions are
    /// fetched from.
    fn clean_instructions(&self, first: Pfn, count: u32);

    /// Empties every CPU's instruction cache and branch predictor. All of it: such a cache may be indexed by virtual
    /// addresses, so that maintenance through one address misses what another has brought in (ARM DDI 0406C, B3.11.2).
    fn invalidate_instructions(&self);
}

/// From no user memory to that of one space. The TLB never sees one space's table under another's number: while either
/// changes, walks are forbidden (B3.10.4, "Synchronization of changes of ASID and TTBR").
pub(super) fn open(machine: &impl UserMachine, table: PhysAddr, asid: Asid) {
    machine.set_user_table(table);
    machine.barrier();
    // The barrier before it also keeps the A9's erratum 754322 away: a walk that is under way when the number changes.
    machine.set_asid(asid);
    machine.barrier();
    machine.set_user_walks(Walks::Allowed);
    machine.barrier();
}

/// The way back. Walks are forbidden first; but what the TLB holds would serve on, so the number goes, too.
pub(super) fn close(machine: &impl UserMachine, empty: PhysAddr) {
    machine.set_user_walks(Walks::Forbidden);
    machine.barrier();
    machine.set_asid(Asid::KERNEL);
    machine.barrier();
    machine.set_user_table(empty);
    machine.barrier();
}

/// A machine whose page table is that of one space: it invalidates under that space's number alone.
#[derive(Debug)]
pub(super) struct SpaceMachine<M> {
    pub(super) machine: M,
    pub(super) current: Current,
}

impl<M: UserMachine> Machine for SpaceMachine<M> {
    type Authority = M::Authority;

    fn read_descriptor(&self, slot: PhysAddr) -> u32 {
        self.machine.read_descriptor(slot)
    }

    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        self.machine.write_descriptors(first, descriptors);
    }

    fn clean_descriptors(&self, first: PhysAddr, count: u32) {
        self.machine.clean_descriptors(first, count);
    }

    fn barrier(&self) {
        self.machine.barrier();
    }

    fn invalidate_tlb(&self, pages: PageRange) {
        self.machine.invalidate_tlb_in(self.current.asid(), pages);
    }

    /// The space must be open: maintenance is by address.
    fn clean_and_invalidate(&self, pages: PageRange, first: Pfn) {
        self.machine.clean_and_invalidate(pages, first);
    }

    fn zero_pages(&self, pages: PageRange) {
        self.machine.zero_pages(pages);
    }

    fn in_interrupt(&self) -> bool {
        self.machine.in_interrupt()
    }

    fn cpu(&self) -> usize {
        self.machine.cpu()
    }
}
