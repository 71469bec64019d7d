//! The owner of a mapped scatter list: ownership by type, of buffers that go to a device together (S105).
//!
//! ```text
//!   buffers ──map──▶ StreamingList<direction> ──unsafe sync_for_cpu──▶ SyncedList (slices) ──drop──▶ the device's again
//!                          │
//!                          └──unsafe unmap──▶ buffers, in their order
//! ```
//! All are mapped or none. Each buffer is an entry of its own, in the order of the list, as `dma_map_sg` has it: what happens to be
//! adjacent on the bus is not merged, so that a device is told of as many pieces as its driver has, and each ends and is copied
//! (S106) by itself.
//!
//! A list that is dropped keeps its buffers for good, as a single mapping does: the device may still be writing there.

use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;

use kerncore::addr::{DmaAddr, VirtAddr};
use kerncore::misuse::Family;
use kerncore::streaming::Direction;

use crate::device::Device;
use crate::mapping::{Buffer, NotMapped, Streaming};
use crate::streaming::{Call, MapError, UnmapError};

/// Buffers that are a device's, for data that flows as `D` says.
///
/// The processor has no way to their bytes; [`StreamingList::unmap`] and [`StreamingList::sync_for_cpu`] give one, and are unsafe,
/// because who calls them says that the device is done.
#[must_use = "dropped, the buffers stay the device's"]
pub struct StreamingList<D: Direction, B: Buffer> {
    device: &'static Device,
    /// Never empty.
    entries: Vec<Entry<D, B>>,
    /// Where the buffers go when they are taken back: nothing is allocated then.
    room: Vec<B>,
}

struct Entry<D: Direction, B: Buffer> {
    mapping: Streaming<D, B>,
    memory: NonNull<[u8]>,
}

/// Why a list was not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListError {
    /// It has no buffers.
    Empty,
    /// No memory for the kernel's own note of so many.
    NoMemory {
        /// How many.
        entries: usize,
    },
    /// A buffer cannot be mapped.
    Entry {
        /// Which, from 0 on.
        index: usize,
        /// Why.
        error: MapError,
    },
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a list of no buffers"),
            Self::NoMemory { entries } => write!(f, "no memory for a list of {entries} buffers"),
            Self::Entry { index, error } => write!(f, "buffer {index} of the list: {error}"),
        }
    }
}

impl core::error::Error for ListError {}

/// A list that was not mapped, and all its buffers, in their order.
pub struct ListNotMapped<B> {
    /// Why.
    pub error: ListError,
    /// What was to be mapped.
    pub buffers: Vec<B>,
}

/// A list of which not all was taken back. What is missing in `buffers` stays the device's.
pub struct ListNotUnmapped<B> {
    /// The first that was not, from 0 on.
    pub index: usize,
    /// Why.
    pub error: UnmapError,
    /// The others, in their order.
    pub buffers: Vec<B>,
}

impl<B> fmt::Debug for ListNotMapped<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListNotMapped").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for ListNotUnmapped<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, error, .. } = self;
        let mut shown = f.debug_struct("ListNotUnmapped");
        shown.field("index", index).field("error", error).finish_non_exhaustive()
    }
}

impl<D: Direction, B: Buffer> StreamingList<D, B> {
    /// Gives `buffers` to `device`, all or none. Where one may allocate from the heap.
    ///
    /// # Errors
    /// [`ListNotMapped`], with the buffers.
    #[inline(never)] // so that the caller recorded is the one who asked
    pub fn map(device: &'static Device, buffers: Vec<B>) -> Result<Self, ListNotMapped<B>> {
        let caller = arch::backtrace::return_address();
        let mut entries = Vec::new();
        if buffers.is_empty() {
            return Err(ListNotMapped { error: ListError::Empty, buffers });
        }
        if entries.try_reserve_exact(buffers.len()).is_err() {
            let error = ListError::NoMemory { entries: buffers.len() };
            return Err(ListNotMapped { error, buffers });
        }
        // From the end, so that what is left stays in its place, with room for what may come back.
        let mut left = buffers;
        left.reverse();
        while let Some(mut buffer) = left.pop() {
            let memory = buffer.memory();
            match Streaming::map_by(Self::call(device, "StreamingList::map", caller), buffer) {
                Ok(mapping) => entries.push(Entry { mapping, memory }),
                Err(NotMapped { error, buffer }) => {
                    let error = ListError::Entry { index: entries.len(), error };
                    left.push(buffer);
                    while let Some(Entry { mapping, .. }) = entries.pop() {
                        let call = Self::call(device, "StreamingList::map", caller);
                        // SAFETY: mapped a moment ago, and the device was not told.
                        match unsafe { mapping.unmap_by(call) } {
                            Ok(buffer) => left.push(buffer),
                            Err(error) => log::error!("DMA: a buffer of a list is lost: {error}"),
                        }
                    }
                    left.reverse();
                    return Err(ListNotMapped { error, buffers: left });
                }
            }
        }
        Ok(Self { device, entries, room: left })
    }

    /// How many buffers it has; at least one.
    #[expect(clippy::len_without_is_empty, reason = "there is no empty list")]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where the device sees each buffer, and how many bytes: what it is told, in the list's order.
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = (DmaAddr, usize)> {
        self.entries.iter().map(|entry| (entry.mapping.dma_address(), entry.mapping.len()))
    }

    /// Takes the buffers back, in their order.
    ///
    /// # Errors
    /// [`ListNotUnmapped`], if high memory has no temporary address.
    ///
    /// # Safety
    /// The device is done with all of them, and will not touch them again.
    #[inline(never)] // as in `map`
    pub unsafe fn unmap(self) -> Result<Vec<B>, ListNotUnmapped<B>> {
        let caller = arch::backtrace::return_address();
        let Self { device, entries, room: mut buffers } = self;
        let mut first = None;
        for (index, Entry { mapping, .. }) in entries.into_iter().enumerate() {
            let call = Self::call(device, "StreamingList::unmap", caller);
            // SAFETY: by the caller's promise.
            match unsafe { mapping.unmap_by(call) } {
                Ok(buffer) => buffers.push(buffer),
                Err(error) => _ = first.get_or_insert((index, error)),
            }
        }
        match first {
            None => Ok(buffers),
            Some((index, error)) => Err(ListNotUnmapped { index, error, buffers }),
        }
    }

    /// Takes the bytes of all buffers back for as long as the result lives; then they are the device's again. Any context.
    ///
    /// # Errors
    /// The first buffer that cannot be, and why; all are the device's.
    ///
    /// # Safety
    /// The device does not touch the buffers until the result is dropped.
    #[inline(never)] // as in `map`
    pub unsafe fn sync_for_cpu(&mut self) -> Result<SyncedList<'_, D, B>, (usize, UnmapError)> {
        let caller = arch::backtrace::return_address();
        let call = Self::call(self.device, "StreamingList::sync_for_cpu", caller);
        let mut synced = SyncedList { list: self, count: 0 };
        for index in 0..synced.list.len() {
            // SAFETY: by the caller's promise. Where one fails, those before it go back with `synced`.
            let result = unsafe { synced.list.entries[index].mapping.sync_by(call) };
            result.map_err(|error| (index, error))?;
            synced.count += 1;
        }
        Ok(synced)
    }

    const fn call(device: &'static Device, name: &'static str, caller: VirtAddr) -> Call<'static> {
        Call { name, device, flow: D::FLOW, caller, family: Family::Scatter }
    }
}

impl<D: Direction, B: Buffer> fmt::Debug for StreamingList<D, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mappings = self.entries.iter().map(|entry| &entry.mapping);
        f.debug_list().entries(mappings).finish()
    }
}

/// The bytes of a mapped list, the processor's until this is dropped.
#[must_use = "dropped, the bytes are the device's again"]
pub struct SyncedList<'m, D: Direction, B: Buffer> {
    list: &'m mut StreamingList<D, B>,
    /// So many, from the first on, are the processor's: all, once this is handed out.
    count: usize,
}

impl<D: Direction, B: Buffer> SyncedList<'_, D, B> {
    /// The bytes of each buffer, in the list's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.list.entries.iter().map(|entry| {
            // SAFETY: mapped until the owner is dropped, and nobody else's: whoever took the bytes back promised it for the device.
            unsafe { entry.memory.as_ref() }
        })
    }

    /// The same, to be written.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = &mut [u8]> {
        self.list.entries.iter_mut().map(|entry| {
            // SAFETY: as in `iter`; `&mut self` makes the slice the only one, and no two buffers share bytes.
            unsafe { entry.memory.as_mut() }
        })
    }
}

impl<D: Direction, B: Buffer> Drop for SyncedList<'_, D, B> {
    fn drop(&mut self) {
        let StreamingList { device, ref entries, .. } = *self.list;
        let caller = arch::backtrace::return_address();
        let call = StreamingList::<D, B>::call(device, "SyncedList::drop", caller);
        for entry in &entries[..self.count] {
            // SAFETY: taken back by `sync_for_cpu`; the slices that this gave are gone.
            if let Err(error) = unsafe { entry.mapping.give_by(call) } {
                log::error!("DMA: {} does not get its buffer back: {error}", device.name());
            }
        }
    }
}

impl<D: Direction, B: Buffer> fmt::Debug for SyncedList<'_, D, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SyncedList").field(&self.list).finish()
    }
}
