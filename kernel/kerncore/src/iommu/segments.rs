//! Which pieces of a scatter list a device behind an IOMMU sees as one: its segments (S109).
//!
//! ```text
//!   pieces      [  .. end of page][page][page ..  ]   [ .. ][page ..
//!   segments    └───────────── one ───────────────┘   └ two ┘└ three
//! ```
//! Device addresses are given by pages. So a piece is joined to the one before it if that ends with a page and it begins with one,
//! wherever on the bus the two lie.

use core::fmt;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use crate::addr::{PAGE_SHIFT, PhysAddr};
use crate::pool::MOST_ALIGNED;

/// What a device takes as one segment. A piece that is larger by itself stays whole: it is its driver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentLimits {
    /// At most so many bytes.
    most: u32,
    /// No multiple of this and one more lies inside.
    boundary: u32,
}

/// What no device can have for a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitError {
    /// Segments of no bytes.
    Empty,
    /// A boundary that is not a power of two less one.
    Boundary {
        /// What was given.
        mask: u32,
    },
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("segments of no bytes"),
            Self::Boundary { mask } => write!(f, "{mask:#x} is no power of two less one"),
        }
    }
}

impl core::error::Error for LimitError {}

impl SegmentLimits {
    /// Of a device that has not said otherwise: 64 KiB, and no boundary.
    pub const DEFAULT: Self = Self { most: 64 << 10, boundary: u32::MAX };

    /// Segments of at most `most` bytes, inside of which no multiple of `boundary` and one more lies.
    ///
    /// # Errors
    /// [`LimitError`].
    pub const fn new(most: u32, boundary: u32) -> Result<Self, LimitError> {
        if most == 0 {
            return Err(LimitError::Empty);
        }
        if boundary & boundary.wrapping_add(1) != 0 || boundary == 0 {
            return Err(LimitError::Boundary { mask: boundary });
        }
        Ok(Self { most, boundary })
    }

    /// How many pages one behind the other are one segment at most that begins `offset` bytes into the first: one, at least, as a piece
    /// stays whole.
    pub const fn pages_from(self, offset: u32) -> u32 {
        let most = self.most.saturating_add(offset) >> PAGE_SHIFT;
        let below = (self.boundary >> PAGE_SHIFT) + 1;
        let fewest = if most < below { most } else { below };
        match fewest {
            0 => 1,
            1..MOST_ALIGNED => fewest,
            _ => MOST_ALIGNED,
        }
    }

    /// The most bytes that are joined.
    pub const fn most(self) -> u32 {
        self.most
    }

    /// The boundary, less one.
    pub const fn boundary(self) -> u32 {
        self.boundary
    }
}

/// [`SegmentLimits`], as a device has them. Who changes them while a list is mapped may be seen half.
#[derive(Debug)]
pub struct DeviceSegments {
    most: AtomicU32,
    boundary: AtomicU32,
}

impl DeviceSegments {
    /// Those of a device that was told nothing.
    pub const fn new() -> Self {
        let SegmentLimits { most, boundary } = SegmentLimits::DEFAULT;
        Self { most: AtomicU32::new(most), boundary: AtomicU32::new(boundary) }
    }

    /// What was set last.
    pub fn limits(&self) -> SegmentLimits {
        SegmentLimits { most: self.most.load(Relaxed), boundary: self.boundary.load(Relaxed) }
    }

    /// Sets both.
    pub fn set(&self, limits: SegmentLimits) {
        self.most.store(limits.most, Relaxed);
        self.boundary.store(limits.boundary, Relaxed);
    }
}

impl Default for DeviceSegments {
    fn default() -> Self {
        Self::new()
    }
}

/// Pieces that a device is to see as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// How far the first of them begins into its page.
    offset: u32,
    bytes: u32,
}

impl Segment {
    /// The bytes up to which runs of device addresses are aligned as their size is, so that nothing of that size crosses a boundary.
    const ALIGNED: u32 = MOST_ALIGNED << PAGE_SHIFT;

    /// Of one piece, of `bytes` from `first` on.
    pub const fn new(first: PhysAddr, bytes: u32) -> Self {
        Self { offset: first.page_offset(), bytes }
    }

    /// How many bytes it has.
    pub const fn bytes(self) -> u32 {
        self.bytes
    }

    /// The same and a piece of `bytes` from `first` on, if both can be one within `limits`.
    #[inline]
    pub fn joined(self, first: PhysAddr, bytes: u32, limits: SegmentLimits) -> Option<Self> {
        let end = self.offset.checked_add(self.bytes)?;
        let is_seam = PhysAddr::new(end | first.raw()).page_offset() == 0;
        // Both have no more bytes than lie before the end of the second, which does not wrap. It is not 0 where any has a byte.
        let last = end.checked_add(bytes)?.wrapping_sub(1);
        let bytes = self.bytes.wrapping_add(bytes);
        let fits = bytes <= limits.most && last <= limits.boundary && last < Self::ALIGNED;
        (is_seam && fits).then_some(Self { bytes, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u32 = 1 << 10;

    fn joined(pieces: &[(u32, u32)], limits: SegmentLimits) -> Vec<u32> {
        let mut segments: Vec<Segment> = Vec::new();
        for &(first, bytes) in pieces {
            let first = PhysAddr::new(first);
            match segments
                .last_mut()
                .and_then(|last| Some((last.joined(first, bytes, limits)?, last)))
            {
                Some((whole, last)) => *last = whole,
                None => segments.push(Segment::new(first, bytes)),
            }
        }
        segments.iter().map(|segment| segment.bytes()).collect()
    }

    #[test]
    fn pieces_are_joined_where_one_ends_with_a_page_and_the_next_begins_with_one() {
        let limits = SegmentLimits::DEFAULT;
        // From the middle of a page to the middle of another, by pages that lie in any order.
        let pieces = [(0x6000_5e0c, 0x1f4), (0x6000_1000, 0x2000), (0x6100_0000, 1)];
        assert_eq!(joined(&pieces, limits), [0x1f4 + 0x2000 + 1]);
        // One byte too few before the seam, and behind it.
        assert_eq!(joined(&[(0x6000_0000, 0xfff), (0x6000_1000, 8)], limits), [0xfff, 8]);
        assert_eq!(joined(&[(0x6000_0000, 0x1000), (0x6000_1001, 8)], limits), [0x1000, 8]);
        // Adjacent inside a page.
        assert_eq!(joined(&[(0x6000_0000, 0x800), (0x6000_0800, 0x800)], limits), [0x800; 2]);
    }

    #[test]
    fn a_segment_is_no_larger_than_its_device_takes() {
        let whole = [(0x6000_0000, 4 * KIB); 5];
        let at_most = |most| joined(&whole, SegmentLimits::new(most, u32::MAX).expect("bytes"));
        assert_eq!(at_most(20 * KIB), [20 * KIB]);
        assert_eq!(at_most(20 * KIB - 1), [16 * KIB, 4 * KIB]);
        assert_eq!(at_most(8 * KIB), [8 * KIB, 8 * KIB, 4 * KIB]);
        assert_eq!(at_most(1), [4 * KIB; 5], "a piece stays whole");
        assert_eq!(joined(&[(0, 64 * KIB), (0, 4 * KIB)], SegmentLimits::DEFAULT).len(), 2);
    }

    #[test]
    fn as_many_pages_are_one_segment_as_are_joined() {
        for most in [1, 0xfff, 0x1000, 0x1fff, 0x2000, 64 * KIB - 1, 64 * KIB, 16 << 20, u32::MAX] {
            for boundary in [1, 0x7ff, 0xfff, 0x1fff, 0xffff, 0xff_ffff, u32::MAX] {
                let limits = SegmentLimits::new(most, boundary).expect("limits");
                for offset in [0, 1, 0x800, 0xfff] {
                    let mut whole = Segment::new(PhysAddr::new(offset), 4 * KIB - offset);
                    let mut pages = 1;
                    while let Some(joined) = whole.joined(PhysAddr::new(0), 4 * KIB, limits) {
                        (whole, pages) = (joined, pages + 1);
                    }
                    let said = limits.pages_from(offset);
                    assert_eq!(said, pages, "{limits:x?} from {offset:#x}");
                }
            }
        }
    }

    #[test]
    fn no_seam_lies_on_a_boundary_of_the_device() {
        let below = |boundary| {
            let limits = SegmentLimits::new(u32::MAX, boundary).expect("a boundary");
            joined(&[(0x6000_0800, 0x800), (0x6000_7000, 0x1000), (0x6000_4000, 0x1000)], limits)
        };
        assert_eq!(below(0x3fff), [0x2800]);
        assert_eq!(below(0x1fff), [0x1800, 0x1000]);
        assert_eq!(below(0xfff), [0x800, 0x1000, 0x1000]);
        // Further than addresses are aligned a boundary would not be kept.
        let (large, limits) = (Segment::ALIGNED / 2, SegmentLimits::new(u32::MAX, u32::MAX));
        let limits = limits.expect("a boundary");
        assert_eq!(joined(&[(0, large), (0, large)], limits), [2 * large]);
        assert_eq!(joined(&[(0, large), (0, large), (0, 1)], limits), [2 * large, 1]);
        assert_eq!(joined(&[(0, 0xffff_f000), (0, 0x2000)], limits).len(), 2, "past all addresses");
    }

    #[test]
    fn a_limit_that_cannot_be_is_refused() {
        assert_eq!(SegmentLimits::new(0, u32::MAX), Err(LimitError::Empty));
        for mask in [0, 1 << 12, 0x1001, 0xffff_fffe] {
            assert_eq!(SegmentLimits::new(1, mask), Err(LimitError::Boundary { mask }));
            let told = LimitError::Boundary { mask }.to_string();
            assert_eq!(told, std::format!("{mask:#x} is no power of two less one"));
        }
        let limits = SegmentLimits::new(1, 1).expect("a boundary");
        let device = DeviceSegments::default();
        assert_eq!(device.limits(), SegmentLimits::DEFAULT);
        device.set(limits);
        assert_eq!((device.limits().most(), device.limits().boundary()), (1, 1));
        assert_eq!(LimitError::Empty.to_string(), "segments of no bytes");
    }
}
