//! What a boot loader hands over (S111, S114): command line, RAM, initial RAM disk.
//!
//! A loader speaks Linux's boot protocol for ARM: r0 is zero, r1 a machine number, r2 the address of a list of tags
//! ([`atags`]) or of a device tree. All of it is foreign: what cannot be used is one [`Problem`], by name, and is passed
//! over; the boot goes on.

pub mod atags;

use core::fmt;

use crate::addr::PhysAddr;

/// Physical memory from `start` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: PhysAddr,
    /// How many; not zero, and the last one lies below 4 GiB.
    pub bytes: u32,
}

impl Span {
    /// The `bytes` at `start`, if there are any and all have addresses.
    pub fn new(start: u64, bytes: u64) -> Option<Self> {
        let end = start.checked_add(bytes.checked_sub(1)?)?;
        u32::try_from(end).ok()?;
        let (start, bytes) = (u32::try_from(start).ok()?, u32::try_from(bytes).ok()?);
        Some(Self { start: PhysAddr::new(start), bytes })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB at {}", self.bytes >> 10, self.start)
    }
}

/// What was handed over and can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handover<'h> {
    /// The command line, without the kernel's path and without the final zero.
    pub command_line: Option<&'h [u8]>,
    /// Bytes of RAM from the board's first on, without a gap.
    pub ram: Option<u32>,
    /// The initial RAM disk.
    pub initrd: Option<Span>,
}

impl Handover<'_> {
    /// Takes in a bank of RAM: the first one begins at `base`, each later one where the last ended.
    ///
    /// # Errors
    /// [`Problem::Bank`]: it lies elsewhere, or passes 4 GiB.
    pub fn add_bank(&mut self, base: PhysAddr, start: u64, bytes: u64) -> Result<(), Problem> {
        let problem = Problem::Bank { start, bytes };
        let bank = Span::new(start, bytes).ok_or(problem)?;
        let had = self.ram.unwrap_or(0);
        if base.checked_add(had) != Some(bank.start) {
            return Err(problem);
        }
        self.ram = Some(had.checked_add(bank.bytes).ok_or(problem)?);
        Ok(())
    }
}

/// What could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// r2 is no multiple of four.
    Unaligned {
        /// The address.
        address: PhysAddr,
    },
    /// The first tag is not `ATAG_CORE`.
    NotCore {
        /// What is there.
        tag: u32,
    },
    /// A tag's size is none that this tag can have. If it is less than a header, the list ends here.
    Size {
        /// The tag.
        tag: u32,
        /// Where it lies in the list, in bytes.
        offset: u32,
        /// Its size in words, header included.
        words: u32,
    },
    /// A tag reaches beyond what is read of the list; the list ends here.
    Overlong {
        /// The tag.
        tag: u32,
        /// Where it lies in the list, in bytes.
        offset: u32,
        /// Its size in words, header included.
        words: u32,
    },
    /// The list, or what is read of it, ends without `ATAG_NONE`.
    NoEnd,
    /// A bank of RAM does not follow the one before it, or the board's base, or passes 4 GiB.
    Bank {
        /// Its first byte.
        start: u64,
        /// Its length.
        bytes: u64,
    },
    /// The initial RAM disk is empty or passes 4 GiB.
    Initrd {
        /// Its first byte.
        start: u64,
        /// Its length.
        bytes: u64,
    },
    /// The command line has no final zero.
    Unterminated,
    /// The device tree is not valid, or larger than what is read of one.
    DeviceTree,
    /// A property of the device tree is not what it should be.
    Property {
        /// Its name.
        name: &'static str,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unaligned { address } => write!(f, "{address} is no place for a list of tags"),
            Self::NotCore { tag } => write!(f, "the list of tags begins with {tag:#x}"),
            Self::Size { tag, offset, words } => {
                write!(f, "the tag {tag:#x} at offset {offset} has {words} words, ignored")
            }
            Self::Overlong { tag, offset, words } => write!(
                f,
                "the tag {tag:#x} at offset {offset} has {words} words, too many; the rest is ignored"
            ),
            Self::NoEnd => f.write_str("the list of tags has no end; what was read is used"),
            Self::Bank { start, bytes } => {
                write!(f, "{bytes:#x} bytes of RAM at {start:#x} cannot be used, ignored")
            }
            Self::Initrd { start, bytes } => {
                write!(f, "an initial RAM disk of {bytes:#x} bytes at {start:#x}, ignored")
            }
            Self::Unterminated => f.write_str("the command line has no end, ignored"),
            Self::DeviceTree => f.write_str("the device tree is not valid, ignored"),
            Self::Property { name } => {
                write!(f, "the device tree's property {name} is not valid, ignored")
            }
        }
    }
}

impl core::error::Error for Problem {}
