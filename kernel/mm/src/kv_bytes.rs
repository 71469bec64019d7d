//! Bytes of which nobody needs to know where they lie: in the heap while they are few, in an area otherwise (S86).
//!
//! ```text
//!   up to a page   heap ── has none ──┐
//!   more           ───────────────────┴─▶ area of vmalloc
//! ```

extern crate alloc;

use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::kernel_space::{Fill, VmallocError};

use crate::vm_area::VmArea;

/// The most that the heap is asked for.
const MOST_OF_HEAP: u32 = PAGE_SIZE;

#[derive(Debug)]
enum Place {
    Heap(Vec<u8>),
    Area { area: VmArea, bytes: usize },
}

/// Zeroed bytes of the heap or of an area; its drop knows which. Made, and dropped where they may be an area, where one may
/// sleep.
#[derive(Debug)]
pub struct KvBytes(Place);

impl KvBytes {
    /// So many bytes, all zero.
    ///
    /// # Errors
    /// [`VmallocError`]; nothing was taken.
    #[inline(never)] // so that the caller recorded is the one who asked
    pub fn zeroed(bytes: u32) -> Result<Self, VmallocError> {
        let caller = arch::backtrace::return_address();
        if bytes == 0 {
            return Err(VmallocError::ZeroSize);
        }
        match Self::of_heap(bytes) {
            Some(memory) => Ok(memory),
            None => Self::of_area(bytes, caller),
        }
    }

    fn of_heap(bytes: u32) -> Option<Self> {
        if bytes > MOST_OF_HEAP {
            return None;
        }
        let mut memory = Vec::new();
        memory.try_reserve_exact(bytes as usize).ok()?;
        memory.resize(bytes as usize, 0);
        Some(Self(Place::Heap(memory)))
    }

    fn of_area(bytes: u32, caller: VirtAddr) -> Result<Self, VmallocError> {
        let area = VmArea::filled(bytes, Fill::Zeroed, caller)?;
        Ok(Self(Place::Area { area, bytes: bytes as usize }))
    }

    /// The area, if it is one.
    pub const fn area(&self) -> Option<&VmArea> {
        match &self.0 {
            Place::Heap(_) => None,
            Place::Area { area, .. } => Some(area),
        }
    }
}

impl Deref for KvBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Place::Heap(memory) => memory,
            Place::Area { area, bytes } => area.get(..*bytes).unwrap_or(area),
        }
    }
}

impl DerefMut for KvBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Place::Heap(memory) => memory,
            // An area has at least the bytes it was made for.
            Place::Area { area, bytes } => &mut area[..*bytes],
        }
    }
}
