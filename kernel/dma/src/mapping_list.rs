//! The owner of a mapped scatter list: ownership by type, of buffers that go to a device together (S105).
//!
//! ```text
//!   buffers ──map──▶ StreamingList<direction> ──unsafe sync_for_cpu──▶ SyncedList (slices) ──drop──▶ the device's again
//!                          │
//!                          └──unsafe unmap──▶ buffers, in their order
//! ```
//! All are mapped or none. On the bus each buffer is a piece of its own, in the order of the list, as `dma_map_sg` has it: what happens
//! to be adjacent there is not merged, and each is copied (S106) by itself. Behind an IOMMU the device sees those as one piece whose
//! seams are those of pages (S109).
//!
//! A list that is dropped keeps its buffers for good, as a single mapping does: the device may still be writing there.

use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::{self, ManuallyDrop};
use core::ptr::NonNull;
use core::slice;

use kerncore::addr::{DmaAddr, PAGE_SIZE, VirtAddr};
use kerncore::layout::linear_physical;
use kerncore::misuse::Family;
use kerncore::streaming::{Direction, Outgoing};

use crate::debug;
use crate::device::Device;
use crate::list::{self, ListMapError, NO_SEGMENT, Piece, Pieces};
use crate::mapping::{Buffer, kept, place};
use crate::streaming::{self, Call, MapError, Memory, UnmapError};

/// Buffers that are a device's, for data that flows as `D` says.
///
/// The processor has no way to their bytes; [`StreamingList::unmap`] and [`StreamingList::sync_for_cpu`] give one, and are unsafe,
/// because who calls them says that the device is done.
#[must_use = "dropped, the buffers stay the device's"]
pub struct StreamingList<D: Direction, B: Buffer> {
    device: &'static Device,
    /// Never empty, but of a list that was ended.
    entries: Vec<Entry<B>>,
    /// Where the buffers go when they are taken back: nothing is allocated then.
    room: Vec<B>,
    direction: PhantomData<D>,
}

struct Entry<B> {
    /// Kept for good if nobody takes it back.
    buffer: ManuallyDrop<B>,
    memory: NonNull<[u8]>,
    told: Cell<(DmaAddr, u32)>,
    /// Whether it stays the device's though the list was ended.
    is_lost: Cell<bool>,
}

impl<B> Piece for &Entry<B> {
    fn memory(self) -> Option<(Memory, u32)> {
        let (address, bytes) = place(self.memory);
        Some((Memory::Anywhere(address), bytes))
    }

    fn whole_page(self) -> Option<usize> {
        let (address, bytes) = place(self.memory);
        let is_whole = bytes == PAGE_SIZE && address.is_page_aligned();
        let page = linear_physical(address).filter(|_| is_whole)?.pfn();
        Some(mm::kernel().zones().table().pointer_to(page) as usize)
    }

    fn told(self) -> (DmaAddr, u32) {
        self.told.get()
    }

    fn tell(self, dma: DmaAddr, bytes: u32) {
        self.told.set((dma, bytes));
    }
}

impl<B> Pieces for slice::Iter<'_, Entry<B>> {
    #[inline(always)]
    fn glance(&self) -> Option<usize> {
        self.as_slice().first()?.whole_page()
    }
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
    /// The first that was not, from 0 on; those go with it that the device sees as one piece.
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
        let mut room = buffers;
        entries.extend(room.drain(..).map(|mut buffer| {
            let (memory, told) = (buffer.memory(), Cell::new(NO_SEGMENT));
            Entry { buffer: ManuallyDrop::new(buffer), memory, told, is_lost: Cell::new(false) }
        }));
        let mut whole = Self { device, entries, room, direction: PhantomData };
        let call = Self::call(device, "StreamingList::map", caller);
        // SAFETY: the memory is the buffers' alone, which are in the result, or forgotten with it; nobody reaches it until it was taken
        // back.
        match unsafe { list::map(call, whole.entries.iter()) } {
            Ok(_) => {
                list::segments(whole.entries.iter()).for_each(|(dma, _)| debug::asked(device, dma));
                Ok(whole)
            }
            Err(error) => {
                let index = error.index() as usize;
                let error = match error {
                    ListMapError::Piece { error, .. } => ListError::Entry { index, error },
                    ListMapError::NoMemory { .. } => unreachable!("a buffer is memory"),
                };
                Err(ListNotMapped { error, buffers: whole.take_back() })
            }
        }
    }

    /// The buffers that are the processor's again, in their order.
    fn take_back(&mut self) -> Vec<B> {
        let mut buffers = mem::take(&mut self.room);
        let entries = mem::take(&mut self.entries).into_iter();
        let back = entries.filter(|entry| !entry.is_lost.get());
        // No more than there is room for.
        buffers.extend(back.map(|entry| ManuallyDrop::into_inner(entry.buffer)));
        buffers
    }

    /// How many buffers it has; at least one.
    #[expect(clippy::len_without_is_empty, reason = "there is no empty list")]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where the device sees each piece, and how many bytes: what it is told, in the list's order. As many as buffers, or fewer behind an
    /// IOMMU.
    pub fn pieces(&self) -> impl Iterator<Item = (DmaAddr, usize)> {
        list::segments(self.entries.iter()).map(|(dma, bytes)| (dma, bytes as usize))
    }

    /// Takes the buffers back, in their order.
    ///
    /// # Errors
    /// [`ListNotUnmapped`], as [`Streaming::unmap`](crate::mapping::Streaming::unmap) has it.
    ///
    /// # Safety
    /// The device is done with all of them, and will not touch them again.
    #[inline(never)] // as in `map`
    pub unsafe fn unmap(mut self) -> Result<Vec<B>, ListNotUnmapped<B>> {
        let caller = arch::backtrace::return_address();
        let call = Self::call(self.device, "StreamingList::unmap", caller);
        let (mut first, mut done) = (None, 0);
        let ended = |count: u32, result| {
            let next = done + count as usize;
            if let Err(error) = result {
                self.entries[done..next].iter().for_each(|entry| entry.is_lost.set(true));
                _ = first.get_or_insert((done, error));
            }
            done = next;
        };
        // SAFETY: by the caller's promise.
        unsafe { list::unmap(call, self.entries.iter(), ended) };
        let buffers = self.take_back();
        match first {
            None => Ok(buffers),
            Some((index, error)) => Err(ListNotUnmapped { index, error, buffers }),
        }
    }

    /// Takes the bytes of all buffers back for as long as the result lives; then they are the device's again. Any context.
    ///
    /// # Errors
    /// The first piece that cannot be, as [`StreamingList::pieces`] has them, and why; all are the device's.
    ///
    /// # Safety
    /// The device does not touch the buffers until the result is dropped.
    #[inline(never)] // as in `map`
    pub unsafe fn sync_for_cpu(&mut self) -> Result<SyncedList<'_, D, B>, (usize, UnmapError)> {
        let caller = arch::backtrace::return_address();
        let call = Self::call(self.device, "StreamingList::sync_for_cpu", caller);
        let mut synced = SyncedList { list: self, count: 0 };
        loop {
            let told = synced.list.entries.get(synced.count).map(Piece::told);
            let Some((dma, bytes)) = told.filter(|told| *told != NO_SEGMENT) else {
                return Ok(synced);
            };
            // SAFETY: by the caller's promise. Where one fails, those before it go back with `synced`.
            let result = unsafe { streaming::sync_for_cpu(call, dma, bytes) };
            result.map_err(|error| (synced.count, error))?;
            synced.count += 1;
        }
    }

    const fn call(device: &'static Device, name: &'static str, caller: VirtAddr) -> Call<'static> {
        Call { name, device, flow: D::FLOW, caller, family: Family::Scatter }
    }
}

impl<D: Direction, B: Buffer> Drop for StreamingList<D, B> {
    fn drop(&mut self) {
        for (dma, bytes) in list::segments(self.entries.iter()) {
            kept(self.device, dma, bytes);
        }
    }
}

impl<D: Direction, B: Buffer> fmt::Debug for StreamingList<D, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamingList")
            .field("device", &self.device.name())
            .field("flow", &D::FLOW)
            .finish_non_exhaustive()
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
}

impl<D: Outgoing, B: Buffer> SyncedList<'_, D, B> {
    /// The same, to be written, which the device will read.
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
        for (dma, bytes) in list::segments(entries.iter()).take(self.count) {
            // SAFETY: taken back by `sync_for_cpu`; the slices that this gave are gone.
            if let Err(error) = unsafe { streaming::sync_for_device(call, dma, bytes) } {
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
