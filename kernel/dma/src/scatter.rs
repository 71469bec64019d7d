//! Scatter lists: memory in pieces, as C callers pass it (S99, S105).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_uint;
use core::fmt;
use core::ptr;

pub use kerncore::scatter::{Link, ScatterEntry};

/// A list with the memory of its entries, as C callers read it.
#[derive(Debug)]
#[repr(C)]
pub struct ScatterTable {
    /// The first entry, or null.
    pub sgl: *mut ScatterEntry,
    /// How many entries a device sees.
    pub nents: c_uint,
    /// How many there are.
    pub orig_nents: c_uint,
}

/// Why there is no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScatterError {
    /// A list of no entries.
    Empty,
    /// No memory for so many entries.
    NoMemory {
        /// How many were wanted.
        entries: u32,
    },
}

impl fmt::Display for ScatterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a scatter list of no entries"),
            Self::NoMemory { entries } => {
                write!(f, "no memory for a scatter list of {entries} entries")
            }
        }
    }
}

impl core::error::Error for ScatterError {}

impl ScatterTable {
    /// The table of no list.
    pub const NONE: Self = Self { sgl: ptr::null_mut(), nents: 0, orig_nents: 0 };

    /// A list of `entries`, all of no memory, adjacent, in the heap. Any context.
    ///
    /// # Errors
    /// [`ScatterError`].
    pub fn new(entries: u32) -> Result<Self, ScatterError> {
        if entries == 0 {
            return Err(ScatterError::Empty);
        }
        let none = ScatterError::NoMemory { entries };
        let mut list = Vec::new();
        if list.try_reserve_exact(entries as usize).is_err() {
            return Err(none);
        }
        list.resize(entries as usize, ScatterEntry::EMPTY);
        ScatterEntry::initialise(&mut list);
        let sgl = Box::into_raw(list.into_boxed_slice()).cast();
        Ok(Self { sgl, nents: entries, orig_nents: entries })
    }

    /// Frees the entries. A table of no list stays one.
    ///
    /// # Safety
    /// The entries are those that [`ScatterTable::new`] made, and nobody else uses them.
    pub unsafe fn free(&mut self) {
        let Self { sgl, orig_nents, .. } = core::mem::replace(self, Self::NONE);
        if !sgl.is_null() {
            let list = ptr::slice_from_raw_parts_mut(sgl, orig_nents as usize);
            // SAFETY: a boxed slice of so many entries was made into this pointer, and is nobody's but the caller's.
            drop(unsafe { Box::from_raw(list) });
        }
    }
}
