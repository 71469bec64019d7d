//! Scatter lists for the streaming DMA functions, by their Linux names (S105).
//!
//! On the bus each entry is mapped by itself: what is adjacent by accident is not joined, so that a list has as many entries for the
//! device as it has for its driver. Behind an IOMMU entries are joined whose seams are those of pages, and the device has fewer: the
//! first entries say where it sees them, and those behind them have no bytes for it.

use core::ffi::{c_int, c_uint};

use dma::device::Device;
use dma::list::{self, Piece, Pieces};
use dma::scatter::{Link, ScatterEntry};
use dma::streaming::{self, Call, Memory, UnmapError};
use kerncore::addr::{DmaAddr, PhysAddr};
use kerncore::misuse::Family;
use mm::report::RateLimit;

use crate::page::frame_of;
use crate::streaming::{call, report};

static REFUSED: RateLimit = RateLimit::new();

/// Forgets what was told of lists that were refused: the next are told in full again. For whoever has read what there was.
pub fn tell_again() {
    REFUSED.restart();
}

/// The entries of a list, from the first on.
#[derive(Clone)]
struct Entries {
    next: *mut ScatterEntry,
    /// Where it would be with all of them behind it, if no entry leads elsewhere.
    end: *mut ScatterEntry,
}

impl Entries {
    /// At most `count` entries from `first`, which may be null.
    ///
    /// # Safety
    /// `first` points to a list of as many entries, which nobody else uses for as long as this is used.
    const unsafe fn new(first: *mut ScatterEntry, count: c_uint) -> Self {
        let end = if first.is_null() { first } else { first.wrapping_add(count as usize) };
        Self { next: first, end }
    }

    /// How many there are at most.
    #[inline(always)]
    fn left(&self) -> usize {
        self.end.addr().wrapping_sub(self.next.addr()) / size_of::<ScatterEntry>()
    }

    /// The list goes on at `first`.
    #[cold]
    #[inline(never)]
    fn turn_to(&mut self, first: *mut ScatterEntry) {
        let left = if first.is_null() { 0 } else { self.left() };
        (self.next, self.end) = (first, first.wrapping_add(left));
    }
}

impl Iterator for Entries {
    type Item = Handle;

    #[inline(always)]
    fn next(&mut self) -> Option<Handle> {
        loop {
            if self.next == self.end {
                return None;
            }
            // SAFETY: by the promise of `new`: the list has another entry, and this is it.
            let entry = unsafe { self.next.read() };
            if let Link::Chain(next) = entry.link() {
                self.turn_to(core::ptr::with_exposed_provenance_mut(next as usize));
                continue;
            }
            let found = self.next;
            // Entries are adjacent up to the last, or one that leads to others.
            self.next = found.wrapping_add(1);
            if entry.is_last() {
                self.end = self.next;
            }
            return Some(Handle(found));
        }
    }

    /// The list may end before it has as many.
    #[inline(always)]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left()))
    }
}

impl Pieces for Entries {
    #[inline(always)]
    fn glance(&self) -> Option<usize> {
        if self.next == self.end {
            return None;
        }
        // SAFETY: as in `next`.
        let entry = unsafe { self.next.read() };
        entry.whole_page_within().map(|page| page as usize)
    }

    #[inline(always)]
    fn step(&mut self) -> Option<Handle> {
        // Not `next` otherwise: its ways to other entries would keep this one's place in memory, in loops that only step.
        self.glance()?;
        let found = self.next;
        // It is not the last, and leads nowhere.
        self.next = found.wrapping_add(1);
        Some(Handle(found))
    }
}

/// An entry of a list that nobody else uses: [`Entries`] made it.
#[derive(Clone, Copy)]
struct Handle(*mut ScatterEntry);

impl Handle {
    const fn read(self) -> ScatterEntry {
        // SAFETY: an entry of a list, by the promise of `Entries::new`.
        unsafe { self.0.read() }
    }
}

impl Piece for Handle {
    fn memory(self) -> Option<(Memory, u32)> {
        let entry = self.read();
        Some((Memory::Physical(place(&entry)?), entry.length))
    }

    #[inline(always)]
    fn whole_page(self) -> Option<usize> {
        self.read().whole_page().map(|page| page as usize)
    }

    fn told(self) -> (DmaAddr, u32) {
        let ScatterEntry { dma_address, dma_length, .. } = self.read();
        (dma_address, dma_length)
    }

    fn tell(self, dma: DmaAddr, bytes: u32) {
        // SAFETY: as in `read`; nobody else uses the list.
        let entry = unsafe { &mut *self.0 };
        (entry.dma_address, entry.dma_length) = (dma, bytes);
    }
}

/// Where the memory of an entry lies.
fn place(entry: &ScatterEntry) -> Option<PhysAddr> {
    match entry.link() {
        Link::Page(page) => {
            let page = core::ptr::with_exposed_provenance(page as usize);
            frame_of(page)?.base().checked_add(entry.offset)
        }
        Link::Chain(_) => None,
    }
}

/// Maps the first `nents` entries of a list for the device: how many pieces it sees, of which the first entries say where, and how many
/// bytes: as many as were mapped, or fewer behind an IOMMU. 0, and nothing is mapped then. Any context.
///
/// # Safety
/// `dev` points to a device and `sg` to a list of as many entries. Nobody uses the bytes while the device has them.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_map_sg(
    dev: *const Device,
    sg: *mut ScatterEntry,
    nents: c_uint,
    dir: c_uint,
) -> c_int {
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    let Some(call) = (unsafe { call("dma_map_sg", dev, dir, Family::Scatter, caller) }) else {
        return 0;
    };
    // SAFETY: by the caller's promise.
    let entries = unsafe { Entries::new(sg, nents) };
    // SAFETY: by the caller's promise.
    match unsafe { list::map(call, entries) } {
        Ok(segments) => c_int::try_from(segments).unwrap_or(c_int::MAX),
        Err(error) => {
            let (name, device, index) = (call.name, call.device.name(), error.index());
            REFUSED.warn(format_args!(
                "{name}: entry {index} of {nents} for {device} was refused: {error}"
            ));
            0
        }
    }
}

/// Whether `call` names entries at all; otherwise that is told.
#[inline(always)]
fn names_any(call: &Call<'_>, sg: *const ScatterEntry, count: c_uint) -> bool {
    let names_any = !sg.is_null() && count != 0;
    if !names_any {
        tell_empty(call, sg.is_null(), count);
    }
    names_any
}

#[cold]
#[inline(never)]
fn tell_empty(call: &Call<'_>, is_null: bool, count: c_uint) {
    let (name, device) = (call.name, call.device.name());
    let list = if is_null { "no list" } else { "a list" };
    REFUSED.warn(format_args!("{name}: {list} of {count} entries of {device}: nothing is done"));
}

/// Does `step` with each piece that the device sees, and reports what fails.
///
/// # Safety
/// `sg` points to a list of as many entries, which are mapped.
unsafe fn each(
    call: Call<'_>,
    sg: *mut ScatterEntry,
    count: c_uint,
    step: impl Fn(Call<'_>, DmaAddr, u32) -> Result<(), UnmapError>,
) {
    if !names_any(&call, sg, count) {
        return;
    }
    // SAFETY: by the caller's promise.
    for (dma, bytes) in list::segments(unsafe { Entries::new(sg, count) }) {
        report(&call, step(call, dma, bytes));
    }
}

/// Ends the mapping of a list. Any context. What names no entries ends nothing, and that is told.
///
/// # Safety
/// [`dma_map_sg`] was given as many entries, and that direction, and the device is done with them. It is not how many pieces that gave.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_unmap_sg(
    dev: *const Device,
    sg: *mut ScatterEntry,
    nents: c_uint,
    dir: c_uint,
) {
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    if let Some(call) = unsafe { call("dma_unmap_sg", dev, dir, Family::Scatter, caller) }
        && names_any(&call, sg, nents)
    {
        // SAFETY: by the caller's promise.
        let entries = unsafe { Entries::new(sg, nents) };
        // SAFETY: by the caller's promise.
        unsafe { list::unmap(call, entries, |_, ended| report(&call, ended)) };
    }
}

/// Makes a mapped list the processor's for the moment. Any context.
///
/// # Safety
/// As for [`dma_unmap_sg`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_sync_sg_for_cpu(
    dev: *const Device,
    sg: *mut ScatterEntry,
    nelems: c_uint,
    dir: c_uint,
) {
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    if let Some(call) = unsafe { call("dma_sync_sg_for_cpu", dev, dir, Family::Scatter, caller) } {
        let step = |call: Call<'_>, dma, bytes| {
            // SAFETY: by the caller's promise.
            unsafe { streaming::sync_for_cpu(call, dma, bytes) }
        };
        // SAFETY: by the caller's promise.
        unsafe { each(call, sg, nelems, step) };
    }
}

/// Makes a mapped list the device's again. Any context.
///
/// # Safety
/// As for [`dma_map_sg`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn dma_sync_sg_for_device(
    dev: *const Device,
    sg: *mut ScatterEntry,
    nelems: c_uint,
    dir: c_uint,
) {
    let caller = arch::backtrace::return_address();
    // SAFETY: by the caller's promise.
    let call = unsafe { call("dma_sync_sg_for_device", dev, dir, Family::Scatter, caller) };
    if let Some(call) = call {
        let step = |call: Call<'_>, dma, bytes| {
            // SAFETY: by the caller's promise.
            unsafe { streaming::sync_for_device(call, dma, bytes) }
        };
        // SAFETY: by the caller's promise.
        unsafe { each(call, sg, nelems, step) };
    }
}
