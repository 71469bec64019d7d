//! What was asked of the machine, in order: for tests that are about the asking itself.

use kerncore::addr::{PageRange, Pfn, PhysAddr};

/// One call of a [`kerncore::machine::Machine`] method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// This many descriptors written from this slot on.
    Write(PhysAddr, u32),
    /// The lines of this many slots cleaned, from this slot on.
    Clean(PhysAddr, u32),
    /// A barrier.
    Barrier,
    /// These pages invalidated on every CPU.
    Invalidate(PageRange),
    /// These pages invalidated on the CPU that asked, only.
    InvalidateLocal(PageRange),
    /// The frames' lines, named by these pages, cleaned and invalidated.
    CleanAndInvalidate(PageRange, Pfn),
    /// This many frames filled with zeros.
    Zero(Pfn, u32),
}
