//! Who has a buffer of a device's, and since when: what listings say of it (S64, S83).
//!
//! ```text
//!    31                     16 15       12 11             0
//!   ┌─────────────────────────┬───────────┬───────────────┐
//!   │ which of those so named │   marks   │   its name    │   a tag
//!   └─────────────────────────┴───────────┴───────────────┘
//! ```
//! Three words, so that to note one costs next to nothing: a device is two numbers, of a name that is kept elsewhere and of itself, and
//! a moment is a count of ticks. Names are few; devices may come and go, and one of 65,536 has the number of another.

use core::fmt;

use crate::addr::VirtAddr;

/// A moment, in ticks of 256 µs since the clock was started. After 12 days it begins anew. Zero where there is no clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Moment(u32);

impl Moment {
    /// Microseconds in a tick.
    pub const TICK: u32 = 256;

    /// So many ticks after the start.
    #[inline(always)]
    pub const fn new(ticks: u32) -> Self {
        Self(ticks)
    }

    /// Ticks since the start.
    #[inline(always)]
    pub const fn ticks(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = u64::from(self.0) * u64::from(Self::TICK) / 1000;
        write!(f, "{}.{:03}s", milliseconds / 1000, milliseconds % 1000)
    }
}

/// For which device a buffer is, and what is peculiar to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Tag(u32);

impl Tag {
    /// Of no device that is known.
    pub const NONE: Self = Self(0);
    /// Its caller has a cookie in the place of an address (S99).
    pub const HIDDEN: Self = Self(1 << 12);
    /// A pool of small blocks cuts it (S103).
    pub const BLOCKS: Self = Self(1 << 13);
    /// It was asked for with write-combining (S99).
    pub const COMBINED: Self = Self(1 << 14);

    /// It was asked for in one piece of physical memory (S99).
    pub const CONTIGUOUS: Self = Self(1 << 15);

    /// The marks, and the words for them.
    const WORDS: [(Self, &'static str); 4] = [
        (Self::HIDDEN, "no_kernel_mapping"),
        (Self::BLOCKS, "dma_pool"),
        (Self::COMBINED, "write_combine"),
        (Self::CONTIGUOUS, "force_contiguous"),
    ];

    /// The largest number that a name can have.
    pub const LAST_NAME: u16 = 0xfff;

    /// All that there may be.
    const MARKS: u32 = 0xf000;

    /// Of device `which` of those that have the name of this number, [`Tag::LAST_NAME`] at most, with no marks.
    #[inline(always)]
    pub const fn of(name: u16, which: u16) -> Self {
        Self((name & Self::LAST_NAME) as u32 | (which as u32) << 16)
    }

    /// The same, and marked as `other`.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it has all marks of `other`.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The number of the device's name; zero is nobody's.
    pub const fn name(self) -> u16 {
        let [low, high, _, _] = self.0.to_le_bytes();
        u16::from_le_bytes([low, high]) & Self::LAST_NAME
    }

    /// Whether it is of the same device, whatever the marks.
    pub const fn is_of(self, other: Self) -> bool {
        (self.0 ^ other.0) & !Self::MARKS == 0
    }

    /// The words for its marks.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Self::WORDS.into_iter().filter(move |(mark, _)| self.has(*mark)).map(|(_, word)| word)
    }

    /// As it is noted.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.0
    }

    /// What was noted.
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }
}

/// Who has a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Holder {
    /// Who asked for it.
    pub caller: VirtAddr,
    /// For which device, and how.
    pub tag: Tag,
    /// Since when.
    pub since: Moment,
}

impl Holder {
    /// Who is known by nothing: what a place for a holder has before there was one.
    pub const NOBODY: Self =
        Self { caller: VirtAddr::new(0), tag: Tag::NONE, since: Moment::new(0) };
}

/// Who asks for no device, at no time: the kernel for itself.
impl From<VirtAddr> for Holder {
    #[inline(always)]
    fn from(caller: VirtAddr) -> Self {
        Self { caller, ..Self::NOBODY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_in_seconds_and_thousandths() {
        for (ticks, text) in [
            (0, "0.000s"),
            (3, "0.000s"),
            (4, "0.001s"),
            (3906, "0.999s"),
            (3907, "1.000s"),
            (u32::MAX, "1099511.627s"),
        ] {
            assert_eq!(Moment::new(ticks).to_string(), text);
        }
    }

    #[test]
    fn a_tag_keeps_its_device_whatever_its_marks_and_names_each_mark() {
        let all = [Tag::HIDDEN, Tag::BLOCKS, Tag::COMBINED, Tag::CONTIGUOUS];
        for (name, which) in [(0, 0), (1, 0), (255, 1), (256, 0xffff), (Tag::LAST_NAME, 0x1234)] {
            let mut tag = Tag::of(name, which);
            let plain = tag;
            assert_eq!((tag.name(), tag.words().count()), (name, 0));
            for (count, mark) in all.into_iter().enumerate() {
                assert!(!tag.has(mark));
                tag = tag.with(mark);
                assert_eq!((tag.name(), tag.words().count()), (name, count + 1));
                assert!(tag.is_of(plain) && plain.is_of(tag));
                assert!(!tag.is_of(Tag::of(name ^ 1, which)) && !tag.is_of(Tag::of(name, !which)));
            }
            assert_eq!(Tag::from_word(tag.word()), tag);
            let words: Vec<&str> = tag.words().collect();
            let wanted = ["no_kernel_mapping", "dma_pool", "write_combine", "force_contiguous"];
            assert_eq!(words, wanted);
        }
    }
}
