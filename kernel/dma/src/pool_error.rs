//! What goes wrong with the atomic pool.

use core::fmt;

use kerncore::addr::PhysAddr;
use kerncore::kernel_space::CoherentError;
use kerncore::pool;

/// Why there is no pool (S69). Atomic allocations fail until the next boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitError {
    /// There is one already.
    Again,
    /// Somebody else makes it grow at this moment, or gives parts back.
    Changing,
    /// No memory for the bitmaps.
    NoBitmap,
    /// No memory for the pool.
    NoMemory(CoherentError),
    /// The size holds no page.
    Pool(pool::NewError),
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Again => f.write_str("there is a pool already"),
            Self::Changing => f.write_str("another CPU changes it"),
            Self::NoBitmap => f.write_str("no memory for its bitmaps"),
            Self::NoMemory(error) => error.fmt(f),
            Self::Pool(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for InitError {}

/// Why the pool gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// There is no pool (S70).
    NotInitialised,
    /// The pool refused.
    Refused(pool::AllocateError),
    /// It has runs, but none that the device reaches (S100).
    Beyond {
        /// The lowest of them.
        lowest: PhysAddr,
    },
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInitialised => f.write_str("there is no atomic pool"),
            Self::Refused(error) => error.fmt(f),
            Self::Beyond { lowest } => {
                write!(f, "the lowest run of the atomic pool is at {lowest}")
            }
        }
    }
}

/// Why a part of the pool gave no run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRun {
    /// None is free.
    Refused(pool::AllocateError),
    /// The lowest begins here, out of reach.
    Beyond(PhysAddr),
}

/// Why the pool did not take a run back. No bit was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PoolFreeError {
    /// Some other memory, to be freed elsewhere: an answer, not a complaint.
    NotMine,
    /// The address lies inside, but elsewhere on the bus than the caller says.
    Elsewhere {
        /// Where it lies.
        wanted: PhysAddr,
    },
    /// The bitmaps say otherwise (S74). It was printed, with a backtrace.
    Refused(pool::FreeError),
}
