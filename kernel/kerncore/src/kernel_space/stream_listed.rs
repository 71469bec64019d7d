//! Which frames devices may have for transfers, by the records of their pages: of a list, most of whose records say the same (S105).
//!
//! What [`KernelSpace::is_streamable`] says yes of is found here, by less. A no says nothing: it has words for why.

use crate::frames::{Belonging, FrameOwner, FrameTable, Likeness};
use crate::kernel_space::KernelSpace;
use crate::kernel_space::vmap::OwnerSet;
use crate::lock::Locks;
use crate::machine::Machine;

/// A look at records, one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Streamable<'t> {
    table: FrameTable<'t>,
    /// What the last one said that was looked up at length, and said by itself that devices may have its frame.
    like: Likeness,
}

/// What most records of lists say.
const USUAL: Likeness = Likeness::single(FrameOwner::Pages);
const _: () = assert!(USUAL.is_of(OwnerSet::STREAMABLE.bits()), "devices may have such frames");

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// The records of all frames, and the number of the first.
    #[inline(always)]
    pub(crate) fn streamable(&self) -> Streamable<'_> {
        Streamable { table: *self.zones.table(), like: USUAL }
    }
}

impl<'t> Streamable<'t> {
    /// The records.
    #[inline(always)]
    pub(crate) const fn table(&self) -> FrameTable<'t> {
        self.table
    }

    /// The number of the frame whose record begins at `record`, counted from the table's first, if that says what one has said whose frame
    /// devices may have. A no is for [`Streamable::at_length`].
    #[inline(always)]
    pub(crate) fn at_a_glance(&self, record: usize) -> Option<u32> {
        self.table.index_if_like(record, self.like)
    }

    /// The same of whichever frame devices may have, but of the kernel's image. The next that are like it are seen at a glance.
    #[inline(never)]
    pub(crate) fn at_length(&mut self, record: usize) -> Option<u32> {
        let said = self.table.likeness_at_record(record)?;
        if said.is_of(OwnerSet::STREAMABLE.bits()) {
            self.like = said;
            return self.at_a_glance(record);
        }
        // Inside a block a record says nothing.
        let Belonging { frame, owner } = self.table.belonging_at_record(record)?;
        let index = frame.checked_sub(self.table.first())?;
        OwnerSet::STREAMABLE.contains(owner).then_some(index)
    }
}
