//! What was asked of the machine, in order: for tests that are about the asking itself.

use crate::{Reach, Scope};
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
    /// Translations invalidated.
    Invalidate(Scope, Reach),
    /// The frames' lines, named by these pages, cleaned and invalidated.
    CleanAndInvalidate(PageRange, Pfn),
    /// These pages filled with zeros.
    Zero(PageRange),
}
