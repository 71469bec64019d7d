//! What can go wrong with a pool, one enum an operation.

use core::fmt;

use crate::addr::VirtAddr;

/// Why a pool was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewError {
    /// The memory does not begin with a page.
    Unaligned {
        /// Where it begins.
        base: VirtAddr,
    },
    /// The memory holds no whole page.
    NoPages {
        /// How large it is.
        bytes: u32,
    },
    /// The memory passes the top of the address space.
    Wraps {
        /// Where it begins.
        base: VirtAddr,
        /// How large it is.
        bytes: u32,
    },
    /// The memory of its bits is too small.
    TooFewWords {
        /// Words that it needs.
        wanted: usize,
        /// Words that it was lent.
        had: usize,
    },
}

impl fmt::Display for NewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unaligned { base } => write!(f, "a pool cannot begin inside a page, at {base}"),
            Self::NoPages { bytes } => write!(f, "{bytes} bytes hold no page"),
            Self::Wraps { base, bytes } => {
                write!(f, "{bytes} bytes from {base} pass the top of the address space")
            }
            Self::TooFewWords { wanted, had } => {
                write!(f, "the bits of the pages need {wanted} words and have {had}")
            }
        }
    }
}

/// Why no run was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocateError {
    /// Zero bytes were asked for.
    Zero,
    /// No aligned run of that size is free.
    Exhausted {
        /// Pages wanted.
        pages: u32,
        /// Pages of the largest run that could be given.
        largest: u32,
        /// Pages that are free, in whatever runs.
        free: u32,
        /// Pages that are taken.
        taken: u32,
    },
}

impl AllocateError {
    /// What two parts of a pool say, both of which have no run.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::Exhausted { pages, largest, free, taken },
                Self::Exhausted {
                    largest: others_largest,
                    free: others_free,
                    taken: others_taken,
                    ..
                },
            ) => Self::Exhausted {
                pages,
                largest: largest.max(others_largest),
                free: free.saturating_add(others_free),
                taken: taken.saturating_add(others_taken),
            },
            (Self::Zero, _) | (_, Self::Zero) => Self::Zero,
        }
    }
}

impl fmt::Display for AllocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Zero => f.write_str("a run of no bytes"),
            Self::Exhausted { pages, largest, free, taken } => {
                let all = free + taken;
                write!(
                    f,
                    "no run of {pages} pages: {free} of {all} are free, at most {largest} in a run"
                )
            }
        }
    }
}

/// Why a run was not taken back. No bit was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeError {
    /// The address lies outside the pool: some other memory, to be freed elsewhere.
    NotMine {
        /// The address.
        start: VirtAddr,
    },
    /// The run begins inside and ends behind the pool.
    Overruns {
        /// Where it begins.
        start: VirtAddr,
        /// How large it was said to be.
        bytes: u32,
        /// The pool's last byte.
        last: VirtAddr,
    },
    /// The address is not that of a page.
    Unaligned {
        /// The address.
        start: VirtAddr,
    },
    /// The page is free: a double free, or it never was taken.
    NotAllocated {
        /// The address.
        start: VirtAddr,
    },
    /// The page lies inside a run and does not begin it.
    NotAStart {
        /// The address.
        start: VirtAddr,
        /// Where its run begins.
        run: VirtAddr,
        /// Pages of that run.
        pages: u32,
    },
    /// The run has another size.
    WrongSize {
        /// The address.
        start: VirtAddr,
        /// Pages it was said to have.
        pages: u32,
        /// Pages it has.
        allocated: u32,
    },
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotMine { start } => write!(f, "{start} lies outside the pool"),
            Self::Overruns { start, bytes, last } => {
                write!(f, "{bytes} bytes at {start} run past the pool's last byte, {last}")
            }
            Self::Unaligned { start } => write!(f, "{start} does not begin a page"),
            Self::NotAllocated { start } => write!(f, "{start} is not allocated"),
            Self::NotAStart { start, run, pages } => {
                write!(f, "{start} lies inside the run of {pages} pages at {run}")
            }
            Self::WrongSize { start, pages, allocated } => {
                write!(f, "the run at {start} has {allocated} pages, was freed with {pages}")
            }
        }
    }
}

impl core::error::Error for NewError {}
impl core::error::Error for AllocateError {}
impl core::error::Error for FreeError {}
