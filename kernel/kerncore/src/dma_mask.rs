//! What a device reaches: the highest address that it can put on the bus (S100).
//!
//! ```text
//!   0           RAM                          mask                  4 GiB
//!   ├───────────┼─────────────────────────────┼─────────────────────┤
//!               └──── what a buffer is of ────┘   never given to it
//! ```
//!
//! A device has two masks: one for memory that is mapped for it and unmapped again (streaming), one for buffers that both see
//! all the time (coherent). A mask that reaches no whole frame of RAM could never be served, and is refused when it is set.

use core::fmt;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use crate::addr::{DmaAddr, PhysAddr};
use crate::frames::FrameRequest;

/// The last address that a device reaches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DmaMask(u32);

impl DmaMask {
    /// All of 32 address lines: what a device has that was told nothing else.
    pub const ALL: Self = Self(u32::MAX);

    /// Up to and with the address `last`. What passes 32 bits is all that there is.
    pub const fn new(last: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "compared before")]
        if last > u32::MAX as u64 { Self::ALL } else { Self(last as u32) }
    }

    /// The last address.
    pub const fn last(self) -> DmaAddr {
        DmaAddr::new(self.0)
    }

    /// Whether it reaches all of `bytes` from `first` on. Of zero bytes nothing is out of reach.
    pub const fn reaches(self, first: DmaAddr, bytes: u32) -> bool {
        if bytes == 0 {
            return true;
        }
        // What wraps is reached by nobody.
        match first.checked_add(bytes - 1) {
            Some(last) => last.raw() <= self.0,
            None => false,
        }
    }

    /// The highest address from which it reaches all of `bytes`, of which there are some; `None` if there is none.
    #[inline(always)]
    pub const fn highest(self, bytes: u32) -> Option<DmaAddr> {
        match self.0.checked_sub(bytes.wrapping_sub(1)) {
            Some(highest) => Some(DmaAddr::new(highest)),
            None => None,
        }
    }

    /// Of `request`, the frames that it reaches whole. For a board on which devices see physical addresses.
    pub const fn narrow(self, request: FrameRequest) -> FrameRequest {
        request.reached_by(PhysAddr::new(self.0))
    }

    /// Itself, if it reaches all of the frame that ends with `least`, the lowest there is.
    ///
    /// # Errors
    /// [`MaskError`].
    pub const fn checked(self, least: DmaAddr) -> Result<Self, MaskError> {
        if self.0 >= least.raw() { Ok(self) } else { Err(MaskError { mask: self, least }) }
    }
}

impl fmt::Debug for DmaMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaMask({self})")
    }
}

impl fmt::Display for DmaMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.last().fmt(f)
    }
}

/// Why a mask was not set: it reaches no frame of RAM, or no page of the addresses behind its IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskError {
    /// The mask.
    pub mask: DmaMask,
    /// The smallest that would do.
    pub least: DmaAddr,
}

impl fmt::Display for MaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mask, least } = self;
        write!(f, "a mask of {mask} reaches no memory, which takes {least} at least")
    }
}

impl core::error::Error for MaskError {}

/// Both masks of a device. Who sets one does so before the device has memory, as a rule; what it has is left alone.
#[derive(Debug)]
pub struct DmaMasks {
    streaming: AtomicU32,
    coherent: AtomicU32,
}

impl DmaMasks {
    /// Those of a device that was told nothing.
    pub const fn new() -> Self {
        Self { streaming: AtomicU32::new(u32::MAX), coherent: AtomicU32::new(u32::MAX) }
    }

    /// What is mapped for the device lies no higher.
    pub fn streaming(&self) -> DmaMask {
        DmaMask(self.streaming.load(Relaxed))
    }

    /// Its coherent buffers lie no higher.
    pub fn coherent(&self) -> DmaMask {
        DmaMask(self.coherent.load(Relaxed))
    }

    /// Sets the first.
    pub fn set_streaming(&self, mask: DmaMask) {
        self.streaming.store(mask.0, Relaxed);
    }

    /// Sets the second.
    pub fn set_coherent(&self, mask: DmaMask) {
        self.coherent.store(mask.0, Relaxed);
    }
}

impl Default for DmaMasks {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: DmaAddr = DmaAddr::new(0x6000_0000);

    #[test]
    fn a_mask_reaches_up_to_its_last_byte_and_no_further_s100() {
        let mask = DmaMask::new(0x6000_1fff);
        assert!(mask.reaches(FIRST, 0x2000));
        assert!(!mask.reaches(FIRST, 0x2001));
        assert!(mask.reaches(DmaAddr::new(0x6000_1fff), 1));
        assert!(!mask.reaches(DmaAddr::new(0x6000_2000), 1));
        assert!(mask.reaches(DmaAddr::new(0x6000_2000), 0));
        assert!(DmaMask::ALL.reaches(DmaAddr::new(u32::MAX), 1));
        assert!(!DmaMask::ALL.reaches(DmaAddr::new(u32::MAX), 2), "it wraps");
    }

    #[test]
    fn the_highest_address_of_a_mask_is_the_last_from_which_it_reaches_all_s100() {
        for last in [0, 0xfff, 0x6000_1fff, u32::MAX] {
            let mask = DmaMask::new(u64::from(last));
            for bytes in [1, 2, 0x1000, 0x1001, 0x1_0000, u32::MAX] {
                match mask.highest(bytes) {
                    Some(highest) => {
                        assert!(mask.reaches(highest, bytes), "{last:#x}, {bytes}");
                        let above = highest.checked_add(1);
                        assert!(above.is_none_or(|above| !mask.reaches(above, bytes)));
                    }
                    None => assert!(!mask.reaches(DmaAddr::new(0), bytes), "{last:#x}, {bytes}"),
                }
            }
        }
    }

    #[test]
    fn a_mask_of_more_lines_than_there_are_reaches_all() {
        for last in [u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX] {
            assert_eq!(DmaMask::new(last), DmaMask::ALL, "{last:#x}");
        }
        assert_eq!(DmaMask::new(0x00ff_ffff).last(), DmaAddr::new(0x00ff_ffff));
    }

    #[test]
    fn a_mask_that_reaches_no_frame_of_ram_is_refused_and_names_the_least_that_would_do_s100() {
        let least = DmaAddr::new(0x6000_0fff);
        assert_eq!(DmaMask::new(0x6000_0fff).checked(least), Ok(DmaMask::new(0x6000_0fff)));
        assert_eq!(DmaMask::ALL.checked(least), Ok(DmaMask::ALL));
        for last in [0, 0x00ff_ffff, 0x5fff_ffff, 0x6000_0ffe] {
            let mask = DmaMask::new(last);
            let error = mask.checked(least).expect_err("out of reach");
            assert_eq!(error, MaskError { mask, least });
        }
        let text = DmaMask::new(0xff_ffff).checked(least).expect_err("out of reach").to_string();
        assert_eq!(text, "a mask of 0x00ffffff reaches no memory, which takes 0x60000fff at least");
    }

    #[test]
    fn a_request_is_narrowed_to_whole_frames_and_by_no_mask_at_all_stays_as_it_is_s100() {
        let limited = DmaMask::new(0x6fff_fffe).narrow(FrameRequest::LOW);
        assert_eq!(limited.last(), 0x6_fffe);
        assert_eq!(DmaMask::ALL.narrow(FrameRequest::LOW), FrameRequest::LOW);
    }

    #[test]
    fn each_mask_is_set_alone() {
        let masks = DmaMasks::default();
        assert_eq!((masks.streaming(), masks.coherent()), (DmaMask::ALL, DmaMask::ALL));
        let (one, other) = (DmaMask::new(0x6fff_ffff), DmaMask::new(0x7fff_ffff));
        masks.set_streaming(one);
        assert_eq!((masks.streaming(), masks.coherent()), (one, DmaMask::ALL));
        masks.set_coherent(other);
        assert_eq!((masks.streaming(), masks.coherent()), (one, other));
        assert_eq!(format!("{one:?}"), "DmaMask(0x6fffffff)");
    }
}
