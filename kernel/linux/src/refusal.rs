//! What the console hears of refusals of the areas' names, at a limited rate (S8).
//!
//! Each [`Cause`] has a limit of its own, so that neither callers' mistakes nor one kind of shortage keep the first of another
//! quiet.

use core::fmt;

use kerncore::addr::VirtAddr;
use kerncore::coherent::AllocationFlags;
use kerncore::gfp::Warning;
use mm::report::{Called, RateLimit};

use crate::cause::{Cause, Refusal};

static NO_ADDRESSES: RateLimit = RateLimit::new();
static NO_WINDOW: RateLimit = RateLimit::new();
static NO_MEMORY: RateLimit = RateLimit::new();
static MISTAKEN: RateLimit = RateLimit::new();

/// How often there was something to tell, told or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusals {
    /// Of addresses that could not be had: the vmalloc window is full.
    pub addresses: u32,
    /// Of what could not be had: addresses as above, addresses in a window that the caller named, memory, a free slot.
    pub short: u32,
    /// Of what means nothing: flags, protections, nodes, pointers, frames that cannot be mapped so.
    pub mistaken: u32,
}

/// How often there was something to tell until now, or since [`tell_again`].
pub fn refusals() -> Refusals {
    let addresses = NO_ADDRESSES.count();
    let short = addresses.wrapping_add(NO_WINDOW.count()).wrapping_add(NO_MEMORY.count());
    Refusals { addresses, short, mistaken: MISTAKEN.count() }
}

/// Forgets what was told: the next refusals are told in full again. For whoever has read what there was.
pub fn tell_again() {
    for limit in [&NO_ADDRESSES, &NO_WINDOW, &NO_MEMORY, &MISTAKEN] {
        limit.restart();
    }
}

/// Warns of a refusal, by what it is the fault of; of some there is nothing to say.
#[cold]
#[inline(never)]
pub(crate) fn refused(what: &str, bytes: u32, error: &dyn Refusal) {
    if let Some(limit) = limit_of(error.cause()) {
        limit.warn(format_args!("{what}: {bytes} bytes were refused: {error}"));
    }
}

/// As [`refused`], with who asked: what he is refused for may be another's, whom the error names (S97).
#[cold]
#[inline(never)]
pub(crate) fn refused_to(caller: VirtAddr, what: &str, bytes: u32, error: &dyn Refusal) {
    if let Some(limit) = limit_of(error.cause()) {
        let caller = Called(caller);
        limit.warn(format_args!("{what}: {bytes} bytes for {caller} were refused: {error}"));
    }
}

fn limit_of(cause: Cause) -> Option<&'static RateLimit> {
    match cause {
        Cause::Nothing => None,
        Cause::Addresses => Some(&NO_ADDRESSES),
        Cause::Window => Some(&NO_WINDOW),
        Cause::Memory => Some(&NO_MEMORY),
        Cause::Mistake => Some(&MISTAKEN),
    }
}

/// As [`refused`], unless the caller's flags forbid words.
#[cold]
#[inline(never)]
pub(crate) fn refused_unless(gfp: AllocationFlags, what: &str, bytes: u32, error: &dyn Refusal) {
    if gfp.warning() == Warning::Told {
        refused(what, bytes, error);
    }
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
