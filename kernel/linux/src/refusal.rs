//! What the console hears of refusals of the areas' names, at a limited rate (S8).
//!
//! What cannot be had and what cannot be asked for are counted apart, so that callers' mistakes do not keep the first shortage
//! quiet.

use core::fmt;

use kerncore::coherent::AllocationFlags;
use kerncore::frames::AllocateError;
use kerncore::gfp::Warning;
use kerncore::kernel_space::{ArrayError, VmallocError};
use mm::report::RateLimit;

static SHORT: RateLimit = RateLimit::new();
static MISTAKEN: RateLimit = RateLimit::new();

/// How often there was something to tell, told or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusals {
    /// Of what could not be had: memory, addresses, a free slot.
    pub short: u32,
    /// Of what means nothing: flags, protections, nodes, pointers.
    pub mistaken: u32,
}

/// How often there was something to tell until now.
pub fn refusals() -> Refusals {
    Refusals { short: SHORT.count(), mistaken: MISTAKEN.count() }
}

/// Warns of what could not be had.
pub(crate) fn warn(what: &str, bytes: u32, error: &dyn fmt::Display) {
    SHORT.warn(format_args!("{what}: {bytes} bytes were refused: {error}"));
}

/// Warns of what cannot be asked for.
#[cold]
#[inline(never)]
pub(crate) fn mistake(what: &str, bytes: u32, error: &dyn fmt::Display) {
    MISTAKEN.warn(format_args!("{what}: {bytes} bytes were refused: {error}"));
}

/// Warns of a product that cannot be counted.
#[cold]
pub(crate) fn no_product(what: &str, n: u32, size: u32) {
    MISTAKEN.warn(format_args!("{what}: {n} elements of {size} bytes are too many"));
}

/// As [`warn`], unless the caller's flags forbid words.
#[cold]
#[inline(never)]
pub(crate) fn warn_unless(gfp: AllocationFlags, what: &str, bytes: u32, error: &dyn fmt::Display) {
    if gfp.warning() == Warning::Told {
        warn(what, bytes, error);
    }
}

/// As [`mistake`], unless the caller's flags forbid words.
#[cold]
#[inline(never)]
pub(crate) fn mistake_unless(
    gfp: AllocationFlags,
    what: &str,
    bytes: u32,
    error: &dyn fmt::Display,
) {
    if gfp.warning() == Warning::Told {
        mistake(what, bytes, error);
    }
}

/// Warns of memory of vmalloc that was refused: not of zero bytes, nor of more than there is (S26).
#[cold]
#[inline(never)]
pub(crate) fn no_memory(what: &str, bytes: u32, error: &VmallocError) {
    match error {
        VmallocError::ZeroSize | VmallocError::MoreThanMemory { .. } => {}
        VmallocError::Frames(AllocateError::UnknownNode { .. })
        | VmallocError::PageArray(ArrayError::Frames(AllocateError::UnknownNode { .. })) => {
            mistake(what, bytes, error);
        }
        error => warn(what, bytes, error),
    }
}
