//! Coherent buffers with attributes, and those whose caller gets a cookie in the place of an address (S99).
//!
//! ```text
//!   NO_KERNEL_MAPPING    caller ◀── page pointer of the first frame ──▶ book of hidden buffers ──▶ the buffer itself
//!   behind an IOMMU             ◀── its page array
//! ```
//! Behind a cookie lies a buffer as any other, mapped where only the kernel knows: its lines must be cleaned and its windows counted
//! by that mapping. The caller reaches it by the device, and by windows of programs.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use arch::lock::IrqSpinLock;
use kerncore::addr::{DmaAddr, VirtAddr};
use kerncore::coherent::Sleep;
use kerncore::dma_attributes::DmaAttributes;
use kerncore::holder::Tag;
use kerncore::lock::Class;
use kerncore::user::ShowError;
use mm::report::dump_stack;
use mm::user::AddressSpace;

use crate::book::{Book, Leaf};
use crate::coherent::{self, AllocateError, Buffer, FreeError};
use crate::device::Device;
use crate::iommu::scattered;

/// A buffer whose caller has its cookie.
struct Hidden {
    cookie: VirtAddr,
    buffer: Buffer,
}

/// All of them. They are few.
static HIDDEN: IrqSpinLock<Book<Hidden>> = IrqSpinLock::new(Class::HiddenBuffers, Book::new());

/// How many there are, for those who only ask whether there is any.
static COUNT: AtomicU32 = AtomicU32::new(0);

fn enter(entry: Leaf<Hidden>) {
    COUNT.fetch_add(1, Relaxed);
    HIDDEN.with(|book| book.add(entry));
}

/// The cookie of the hidden buffer that begins at `address`, where only the kernel knows it. Almost always there is none.
#[inline]
pub(crate) fn cookie_of(address: VirtAddr) -> Option<VirtAddr> {
    if COUNT.load(Relaxed) == 0 { None } else { find_cookie(address) }
}

#[cold]
#[inline(never)]
fn find_cookie(address: VirtAddr) -> Option<VirtAddr> {
    let is_it = |hidden: &mut Hidden| (hidden.buffer.address == address).then_some(hidden.cookie);
    HIDDEN.with(|book| book.find(is_it))
}

/// As [`coherent::allocate`], with attributes. [`DmaAttributes::NO_WARN`] keeps quiet what that says of an empty pool. If they ask for
/// no mapping, and the buffer would have one of its own, the address in
/// what is given is a cookie: for [`free`], [`show`] and [`revealed`], and for nothing else.
///
/// # Errors
/// [`AllocateError`]; nothing was taken.
pub fn allocate(
    device: &Device,
    bytes: u32,
    sleep: Sleep,
    attributes: DmaAttributes,
    caller: VirtAddr,
) -> Result<Buffer, AllocateError> {
    let combined = attributes.contains(DmaAttributes::WRITE_COMBINE);
    let marks = if combined { Tag::COMBINED } else { Tag::NONE };
    let marks = if attributes.contains(DmaAttributes::FORCE_CONTIGUOUS) {
        marks.with(Tag::CONTIGUOUS)
    } else {
        marks
    };
    if !is_hidden(device, sleep, (attributes, marks)) {
        let taken = coherent::allocate_marked(device, bytes, sleep, caller, marks);
        return match taken {
            Err(error) if !attributes.contains(DmaAttributes::NO_WARN) => {
                error.complain(device, bytes);
                Err(error)
            }
            _ => taken,
        };
    }
    let marks = marks.with(Tag::HIDDEN);
    // The entry first, so that a buffer once made need not be given up.
    let nothing = Buffer { address: VirtAddr::new(0), dma: DmaAddr::new(0) };
    let entry = Leaf::new(Hidden { cookie: nothing.address, buffer: nothing });
    let mut entry = entry.ok_or(AllocateError::NoEntry { bytes })?;
    let buffer = coherent::allocate_marked(device, bytes, sleep, caller, marks)?;
    let cookie = scattered::cookie_of(buffer.address).unwrap_or_else(|| {
        let frame = device.physical_address(buffer.dma).pfn();
        VirtAddr::new(mm::kernel().zones().table().pointer_to(frame))
    });
    *entry.value_mut() = Hidden { cookie, buffer };
    enter(entry);
    Ok(Buffer { address: cookie, dma: buffer.dma })
}

/// Whether what is allocated so is given out by a cookie.
fn is_hidden(device: &Device, sleep: Sleep, (attributes, marks): (DmaAttributes, Tag)) -> bool {
    if scattered::serves(device, sleep, marks).is_some() {
        return attributes.contains(DmaAttributes::NO_KERNEL_MAPPING);
    }
    device.declared().is_none() && attributes.hides(coherent::back_end(device, sleep))
}

/// The buffer behind what [`allocate`] gave a device with these attributes: itself, if they ask for a mapping or it is not hidden.
/// `None` if it should be a cookie and is none.
pub fn revealed(device: &Device, given: Buffer, attributes: DmaAttributes) -> Option<Buffer> {
    if !attributes.contains(DmaAttributes::NO_KERNEL_MAPPING) {
        return Some(given);
    }
    let found = HIDDEN.with(|book| {
        book.find(|hidden| {
            let is_it = hidden.cookie == given.address && hidden.buffer.dma == given.dma;
            is_it.then_some(hidden.buffer)
        })
    });
    found.or_else(|| coherent::lies_in_shared_memory(device, given.address).then_some(given))
}

/// Gives back what [`allocate`] gave with the same attributes: as [`coherent::free`], and what should be a cookie is looked for.
///
/// # Errors
/// [`FreeError`]; nothing has changed.
///
/// # Safety
/// As for [`coherent::free`].
pub unsafe fn free(
    device: &Device,
    bytes: u32,
    given: Buffer,
    attributes: DmaAttributes,
) -> Result<(), FreeError> {
    // Whoever takes the entry out frees the buffer, and nobody else can.
    let is_it = |hidden: &Hidden| hidden.cookie == given.address && hidden.buffer.dma == given.dma;
    let hides = attributes.contains(DmaAttributes::NO_KERNEL_MAPPING);
    let entry = if hides { HIDDEN.with(|book| book.take(is_it)) } else { None };
    let Some(entry) = entry else {
        if hides && !coherent::lies_in_shared_memory(device, given.address) {
            return Err(no_cookie(given));
        }
        // SAFETY: by the caller's promise.
        return unsafe { coherent::free(device, bytes, given.address, given.dma) };
    };
    COUNT.fetch_sub(1, Relaxed);
    let buffer = entry.value().buffer;
    // SAFETY: by the caller's promise; this is the buffer that it means.
    let freed = unsafe { coherent::free(device, bytes, buffer.address, buffer.dma) };
    if freed.is_err() {
        enter(entry);
    }
    freed
}

#[cold]
fn no_cookie(given: Buffer) -> FreeError {
    let error = FreeError::Cookie { given: given.address, dma: given.dma };
    log::error!("DMA: {error}");
    dump_stack();
    error
}

/// As [`coherent::show`], of what [`allocate`] gave with the same attributes.
///
/// # Errors
/// [`ShowError`].
///
/// # Safety
/// As for that.
pub unsafe fn show(
    device: &Device,
    space: &AddressSpace,
    start: VirtAddr,
    (given, bytes): (Buffer, u32),
    offset: u32,
    attributes: DmaAttributes,
) -> Result<(), ShowError> {
    // What is no cookie is no buffer's address either, and is refused as that.
    let buffer = revealed(device, given, attributes).unwrap_or(given);
    // SAFETY: by the caller's promise.
    unsafe { coherent::show(device, space, start, (buffer, bytes), offset) }
}
