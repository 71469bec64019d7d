//! The registers of one virtio-mmio slot, as both generations lay them out (Virtio 1.2, 4.2.2 and 4.2.4).

use core::ptr::NonNull;

use safe_mmio::UniqueMmioPointer;
use safe_mmio::fields::{ReadPure, ReadPureWrite, WriteOnly};
use virtio_drivers::transport::mmio::{MmioError, MmioTransport, VirtIOHeader};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The registers of a slot, with the names of the legacy interface.
#[derive(Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Slot {
    /// Reads "virt".
    pub magic: ReadPure<u32>,
    /// 1 for legacy registers, 2 for modern ones.
    pub version: ReadPure<u32>,
    /// What the device is; 0 for none.
    pub device_id: ReadPure<u32>,
    /// Who made it.
    pub vendor_id: ReadPure<u32>,
    /// The device's features, 32 at a time.
    pub host_features: ReadPure<u32>,
    /// Which 32 of them.
    pub host_features_select: WriteOnly<u32>,
    _reserved_1: [u32; 2],
    /// The driver's features, 32 at a time.
    pub guest_features: WriteOnly<u32>,
    /// Which 32 of them.
    pub guest_features_select: WriteOnly<u32>,
    /// The unit of `queue_page`, in bytes.
    pub guest_page_size: WriteOnly<u32>,
    _reserved_2: u32,
    /// Which queue the following registers mean.
    pub queue_select: WriteOnly<u32>,
    /// The longest queue that the device can serve.
    pub queue_size_maximum: ReadPure<u32>,
    /// The queue's length.
    pub queue_size: WriteOnly<u32>,
    /// The alignment of its used ring, in bytes.
    pub queue_align: WriteOnly<u32>,
    /// Where it lies, in pages; 0 for nowhere.
    pub queue_page: ReadPureWrite<u32>,
    _reserved_3: [u32; 3],
    /// Tells the device that a queue has something new.
    pub queue_notify: WriteOnly<u32>,
    _reserved_4: [u32; 3],
    /// Why the device interrupts.
    pub interrupt_status: ReadPure<u32>,
    /// Ends that.
    pub interrupt_acknowledge: WriteOnly<u32>,
    _reserved_5: [u32; 2],
    /// How far the driver has come; 0 resets the device.
    pub status: ReadPureWrite<u32>,
    _reserved_6: [u32; 35],
    /// The device's own registers.
    pub config: [ReadPureWrite<u32>; 64],
}

const _: () = assert!(core::mem::offset_of!(Slot, config) == size_of::<VirtIOHeader>());
const _: () = assert!(size_of::<Slot>() == 0x200);

/// The crate's own transport over a slot whose registers are of version 2.
///
/// # Errors
/// Those of the crate, for a device that it does not know.
pub fn modern_transport(
    mut slot: UniqueMmioPointer<'_, Slot>,
) -> Result<MmioTransport<'_>, MmioError> {
    let registers: NonNull<Slot> = slot.ptr_nonnull();
    // SAFETY: `slot` is device memory, mapped for as long as its lifetime, which the result keeps, and nobody else points to
    // it: it is given up here. It has 0x200 bytes (asserted above), of which the header is the first half, and is
    // aligned to words, as the header is.
    unsafe { MmioTransport::new(registers.cast(), size_of::<Slot>()) }
}
