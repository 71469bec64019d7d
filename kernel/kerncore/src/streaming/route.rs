//! Whether a device is given the buffer itself, or a copy within its reach (S100, S105, S106).

use core::fmt;

use crate::addr::PhysAddr;
use crate::coherent::Coherency;

use super::Flow;

/// Why a copy is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounced {
    /// The command line says so (`swiotlb=force`).
    Forced,
    /// The buffer does not lie within the device's mask.
    OutOfReach,
    /// The device writes, and the buffer's first or last line holds something else, too.
    SharesLines,
    /// The buffer is not in one piece on the bus, or nobody knows where: it is not in the linear map.
    Scattered,
    /// The buffer lies in the kernel's image, among its constants, which a device is not given; it only reads.
    Constant,
}

impl fmt::Display for Bounced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forced => "copies are forced",
            Self::OutOfReach => "its mask does not reach the buffer",
            Self::SharesLines => "the buffer shares cache lines with something else",
            Self::Scattered => "the buffer is not in one piece on the bus",
            Self::Constant => "the buffer is one of the kernel's constants",
        })
    }
}

/// Which way a buffer goes to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The device is given the buffer itself.
    Direct,
    /// The device is given a copy.
    Bounce(Bounced),
}

/// A size that nothing can be done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Zero.
    Empty,
    /// The buffer passes the top of the bus.
    Wraps {
        /// Its first byte.
        first: PhysAddr,
        /// Its size.
        bytes: u32,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a size of zero"),
            Self::Wraps { first, bytes } => {
                write!(f, "{bytes} bytes from {first} pass the top of the bus")
            }
        }
    }
}

impl core::error::Error for Refusal {}

/// What is to be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The buffer's first byte on the bus.
    pub first: PhysAddr,
    /// Its size.
    pub bytes: u32,
    /// Which way data flows.
    pub flow: Flow,
    /// Whether the device snoops.
    pub coherency: Coherency,
    /// The last address that the device reaches.
    pub last: PhysAddr,
    /// Bytes in the longest line of any cache: a power of two.
    pub line: u32,
}

/// How the buffer goes to the device, unless copies are forced anyway.
///
/// # Errors
/// [`Refusal`].
pub const fn route(question: &Question) -> Result<Route, Refusal> {
    let Question { first, bytes, flow, coherency, last, line } = *question;
    if bytes == 0 {
        return Err(Refusal::Empty);
    }
    let Some(end) = first.checked_add(bytes - 1) else {
        return Err(Refusal::Wraps { first, bytes });
    };
    if end.raw() > last.raw() {
        return Ok(Route::Bounce(Bounced::OutOfReach));
    }
    if writes_part_of_a_line((first, bytes), line, (flow, coherency)) {
        return Ok(Route::Bounce(Bounced::SharesLines));
    }
    Ok(Route::Direct)
}

/// Whether the `bytes` from `first` have a part of a `line` that the device writes without a look at caches.
#[inline(always)]
pub const fn writes_part_of_a_line(
    (first, bytes): (PhysAddr, u32),
    line: u32,
    (flow, coherency): (Flow, Coherency),
) -> bool {
    let partial = (first.raw() | bytes) & (line - 1) != 0;
    partial && flow.device_writes() && matches!(coherency, Coherency::NonCoherent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Question = Question {
        first: PhysAddr::new(0x6010_0040),
        bytes: 64,
        flow: Flow::FromDevice,
        coherency: Coherency::NonCoherent,
        last: PhysAddr::new(u32::MAX),
        line: 32,
    };

    #[test]
    fn a_buffer_of_whole_lines_within_reach_is_given_itself_s105() {
        for flow in Flow::ALL {
            assert_eq!(route(&Question { flow, ..WHOLE }), Ok(Route::Direct));
        }
    }

    #[test]
    fn what_shares_lines_and_is_written_by_a_device_that_does_not_snoop_is_copied_s105() {
        for (first, bytes) in
            [(0x6010_0044, 60), (0x6010_0040, 63), (0x6010_003f, 65), (0x6010_0050, 4)]
        {
            let odd = Question { first: PhysAddr::new(first), bytes, ..WHOLE };
            let shares = Ok(Route::Bounce(Bounced::SharesLines));
            assert_eq!(route(&odd), shares, "{first:#x} {bytes}");
            assert_eq!(route(&Question { flow: Flow::Bidirectional, ..odd }), shares);
            assert_eq!(route(&Question { flow: Flow::ToDevice, ..odd }), Ok(Route::Direct));
            let snoops = Question { coherency: Coherency::Coherent, ..odd };
            assert_eq!(route(&snoops), Ok(Route::Direct));
        }
    }

    #[test]
    fn the_last_byte_decides_what_a_mask_reaches_s100() {
        let of = |last| route(&Question { last: PhysAddr::new(last), ..WHOLE });
        assert_eq!(of(0x6010_007f), Ok(Route::Direct));
        assert_eq!(of(0x6010_007e), Ok(Route::Bounce(Bounced::OutOfReach)));
        assert_eq!(of(0x00ff_ffff), Ok(Route::Bounce(Bounced::OutOfReach)));
    }

    #[test]
    fn no_bytes_and_a_wrapped_end_are_refused() {
        assert_eq!(route(&Question { bytes: 0, ..WHOLE }), Err(Refusal::Empty));
        let first = PhysAddr::new(0xffff_ffe0);
        assert_eq!(route(&Question { first, bytes: 32, ..WHOLE }), Ok(Route::Direct));
        let wraps = Err(Refusal::Wraps { first, bytes: 33 });
        assert_eq!(route(&Question { first, bytes: 33, ..WHOLE }), wraps);
        assert!(route(&Question { first, bytes: u32::MAX, ..WHOLE }).is_err());
    }
}
