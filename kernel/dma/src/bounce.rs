//! Bounce buffers: copies of what a device does not reach (S106).
//!
//! ```text
//!   made at boot, low in RAM      ┌──────┬──────┬──────┬ … ┐  cacheable, kept like any buffer of a streaming mapping
//!   slots (kerncore::bounce)      └──────┴──────┴──────┴ … ┘
//! ```
//!
//! Bytes are copied in when the device is given the copy, whatever the direction, so that what it leaves alone comes back as it was;
//! and copied out when it is taken back, if the device writes. In between nobody copies: who forgets to synchronise sees what was
//! there before, on every machine.
//!
//! Synchronising copies only what the direction says, either way. So a driver that looks whether its device is done, and gives the buffer
//! back because it is not, does not write over what the device wrote meanwhile; and what the processor writes into a buffer that a
//! device only writes is lost with the next copy out. Linux says the same of such buffers: the driver only reads them, and one that it
//! writes goes both ways. Rust code cannot write them ([`kerncore::streaming::Outgoing`]). *Instead:* copying in whatever the direction, as
//! at the start; what the device wrote since would be gone without a trace, and no copy knows who wrote last.

use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU32};

use arch::lock::IrqSpinLock;
use arch::machine::Authority;
use kerncore::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::bounce::{
    Bounce, Exhausted, Found, GiveBackError, Granule, Loan, Original, SLOT, Slot,
};
use kerncore::config::Copies;
use kerncore::frames::{AllocateError, FrameOwner, FrameRequest, ZoneKind};
use kerncore::kmap::KmapError;
use kerncore::layout::linear_address;
use kerncore::lock::Class;
use kerncore::streaming::{Flow, Handover};
use mm::kernel;
use mm::report::RateLimit;

static BOUNCE: IrqSpinLock<Bounce<'static>> =
    IrqSpinLock::new(Class::BounceBuffers, Bounce::empty());

/// Copies are made also where the device reaches the buffer.
static FORCED: AtomicBool = AtomicBool::new(false);

/// Bytes of all of them, for those who ask before each request.
static BYTES: AtomicU32 = AtomicU32::new(0);

static EXHAUSTED: RateLimit = RateLimit::new();

/// Why there are no bounce buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitError {
    /// There are some already.
    Again,
    /// The size holds no page.
    NoPages,
    /// No memory for the records of slots.
    NoRecords,
    /// No memory.
    NoMemory(AllocateError),
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Again => f.write_str("there are bounce buffers already"),
            Self::NoPages => f.write_str("the size holds no page"),
            Self::NoRecords => f.write_str("no memory for the records of slots"),
            Self::NoMemory(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for InitError {}

/// How much is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BounceUse {
    /// Slots there are.
    pub slots: u32,
    /// Slots that are taken.
    pub taken: u32,
}

/// Sets `bytes` aside, as low in RAM as there is memory. Once, at boot; says in one line how it went.
///
/// # Errors
/// [`InitError`]; nothing was kept. Buffers that a device does not reach are refused.
pub fn init(bytes: u32, copies: Copies) -> Result<(), InitError> {
    let made = make(bytes);
    let kibibytes = bytes / 1024;
    match made {
        Ok(()) => {
            FORCED.store(copies == Copies::Always, Relaxed);
            let when = if copies == Copies::Always { ", always used" } else { "" };
            log::info!("DMA: {kibibytes} KiB of bounce buffers{when}");
        }
        Err(error) => log::error!("DMA: no {kibibytes} KiB of bounce buffers: {error}"),
    }
    made
}

fn make(bytes: u32) -> Result<(), InitError> {
    if usage().slots != 0 {
        return Err(InitError::Again);
    }
    let pages = bytes / PAGE_SIZE;
    if pages == 0 {
        return Err(InitError::NoPages);
    }
    let slots = (pages * (PAGE_SIZE / SLOT)) as usize;
    let mut records = Vec::new();
    records.try_reserve_exact(slots).map_err(|_| InitError::NoRecords)?;
    records.resize(slots, Slot::FREE);
    let request = FrameRequest::of(ZoneKind::Dma);
    // Nobody's to map: no slot is part of a buffer.
    let block = kernel().zones().allocate_pages_from(request, pages, FrameOwner::Reserved);
    // Kept for good.
    let (first, _) = block.map_err(InitError::NoMemory)?.leak();
    let records = records.leak();
    BOUNCE.with(|bounce| *bounce = Bounce::new(first.base(), records));
    BYTES.store(pages * PAGE_SIZE, Relaxed);
    Ok(())
}

/// Whether copies are made for every device.
pub fn is_forced() -> bool {
    FORCED.load(Relaxed)
}

/// How much is taken.
pub fn usage() -> BounceUse {
    BOUNCE.with(|bounce| BounceUse { slots: bounce.slots(), taken: bounce.taken() })
}

/// The most bytes that one copy can have, when no other is made; `None` if there are no bounce buffers.
pub fn largest_copy() -> Option<u32> {
    match BYTES.load(Relaxed) {
        0 => None,
        bytes => Some(bytes),
    }
}

/// Takes slots at or below `last` for `loan`. Any context.
pub(crate) fn take(loan: Loan, last: PhysAddr) -> Result<PhysAddr, Exhausted> {
    BOUNCE
        .with(|bounce| bounce.take(loan, last))
        .inspect_err(|error| EXHAUSTED.warn(format_args!("DMA: {error}")))
}

/// The buffer whose copy `physical` lies in; `None` if that is no slot.
///
/// # Errors
/// [`GiveBackError::Free`], of a slot that no buffer has: what was copied there has come back already.
pub(crate) fn find(physical: PhysAddr) -> Result<Option<Found>, GiveBackError> {
    BOUNCE.with(|bounce| {
        if !bounce.contains(physical) {
            return Ok(None);
        }
        bounce.find(physical).map(Some).ok_or(GiveBackError::Free { physical })
    })
}

/// Gives the slots back that begin at `physical`.
pub(crate) fn give_back(physical: PhysAddr) -> Result<Loan, GiveBackError> {
    BOUNCE.with(|bounce| bounce.give_back(physical))
}

/// Which way bytes are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Into the slots.
    In,
    /// Out of them.
    Out,
}

/// Copies `bytes` between the buffer of `loan` and its slots, which begin at `first`, both from `offset` on.
///
/// # Errors
/// [`KmapError`], of high memory that is not in use; some may have been copied. For want of a temporary address it does not fail.
///
/// # Safety
/// `offset` and `bytes` lie in the buffer. It is mapped and, for [`Way::Out`], writable, and nobody else uses it meanwhile. The slots
/// are the buffer's, and the processor's for now.
pub(crate) unsafe fn copy(
    loan: &Loan,
    first: PhysAddr,
    (offset, bytes): (u32, u32),
    way: Way,
) -> Result<(), KmapError> {
    let slots = PhysAddr::new(first.raw() + offset);
    let slots = linear_address(slots).expect("slots are low memory");
    match loan.original.plus(offset) {
        Original::Address(address) => {
            // SAFETY: by our caller's promise.
            unsafe { copy_piece(address, slots, bytes, way) };
            Ok(())
        }
        Original::Physical(start) => {
            let mut done = 0;
            while done < bytes {
                let physical = PhysAddr::new(start.raw() + done);
                let here = (bytes - done).min(PAGE_SIZE - physical.page_offset());
                let slots = VirtAddr::new(slots.raw() + done);
                kernel().reach(physical.pfn(), |page| {
                    let address = VirtAddr::new(page.start().raw() | physical.page_offset());
                    // SAFETY: as above; the page is mapped until this returns.
                    unsafe { copy_piece(address, slots, here, way) };
                })?;
                done += here;
            }
            Ok(())
        }
    }
}

/// Fills what the buffer of `loan` leaves of its pages with zeros, for its device, too, if that sees whole pages: what others' buffers
/// left there is not for it. The slots begin at `first`, and were just taken for it.
pub(crate) fn wipe_rest(handover: Handover, loan: &Loan, first: PhysAddr) -> Result<(), KmapError> {
    if loan.granule == Granule::Slot {
        return Ok(());
    }
    let all = loan.slots() * SLOT;
    let rest = linear_address(PhysAddr::new(first.raw() + loan.bytes));
    let rest = rest.expect("slots are low memory").raw() as usize;
    let rest = core::ptr::with_exposed_provenance_mut::<u8>(rest);
    // SAFETY: the slots are mapped, and were just taken for this buffer, of which these bytes are none.
    unsafe { rest.write_bytes(0, (all - loan.bytes) as usize) };
    // The line that the buffer ends in goes to the device with it; those behind are cleaned, and the processor's.
    let lines = loan.bytes.next_multiple_of(kernel().line_bytes());
    if lines >= all {
        return Ok(());
    }
    let (physical, bytes) = (PhysAddr::new(first.raw() + lines), all - lines);
    let handover = Handover { flow: Flow::ToDevice, ..handover };
    // SAFETY: nobody uses these lines.
    let authority = unsafe { Authority::claim() };
    kernel().give_to_device(authority, handover, physical, bytes)?;
    // SAFETY: as above.
    let authority = unsafe { Authority::claim() };
    kernel().take_from_device(authority, handover, physical, bytes)
}

/// # Safety
/// As for [`copy`], of what is contiguous.
unsafe fn copy_piece(buffer: VirtAddr, slots: VirtAddr, bytes: u32, way: Way) {
    let buffer = core::ptr::with_exposed_provenance_mut::<u8>(buffer.raw() as usize);
    let slots = core::ptr::with_exposed_provenance_mut::<u8>(slots.raw() as usize);
    let (from, to) = if way == Way::In { (buffer, slots) } else { (slots, buffer) };
    // SAFETY: both are mapped, and nobody else's; slots are never part of a buffer.
    unsafe { to.copy_from_nonoverlapping(from, bytes as usize) };
}
