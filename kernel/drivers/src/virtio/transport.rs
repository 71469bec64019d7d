//! One transport for both generations of virtio-mmio registers.
//!
//! `virtio-drivers` has a transport of its own, which serves the modern generation here. On the legacy one it
//! touches registers that the legacy interface does not have, so [`super::legacy`] takes its place.

use core::fmt;

use mm::io_mem::IoMem;
use safe_mmio::{UniqueMmioPointer, field_shared};
use virtio_drivers::transport::mmio::MmioTransport;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{PhysAddr, Result};
use virtio_hal::Slot;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::legacy::LegacyTransport;

/// "virt", as every slot's first register reads.
const MAGIC: u32 = 0x7472_6976;

/// Why a slot gives no transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotError {
    /// Not a virtio-mmio slot at all.
    NotVirtio {
        /// What the first register reads.
        magic: u32,
    },
    /// A slot without a device.
    Empty,
    /// Another device than the one that was asked for.
    Other {
        /// The device's number.
        device: u32,
        /// The number of the one that was.
        wanted: u32,
    },
    /// A device of a type or generation that is not known.
    Unknown {
        /// The generation of the registers.
        version: u32,
        /// The device's number.
        device: u32,
    },
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotVirtio { magic } => write!(f, "no virtio slot: it reads {magic:#010x}"),
            Self::Empty => f.write_str("an empty slot"),
            Self::Other { device, wanted } => {
                write!(f, "device {device}, and {wanted} is wanted")
            }
            Self::Unknown { version, device } => {
                write!(f, "device {device} with registers of version {version} is not known")
            }
        }
    }
}

impl core::error::Error for SlotError {}

/// The number of the device in a slot; zero for none.
pub(super) fn device_in(slot: &mut IoMem<Slot>) -> u32 {
    field_shared!(slot.registers(), device_id).read()
}

/// The way to one device.
pub enum SlotTransport<'a> {
    /// Registers of version 1.
    Legacy(LegacyTransport<'a>),
    /// Registers of version 2.
    Modern(MmioTransport<'a>),
}

impl<'a> SlotTransport<'a> {
    /// Takes `slot` over, in which a device with the number `wanted` is to be.
    ///
    /// # Errors
    /// [`SlotError`]; nothing was written there.
    pub fn new(
        slot: UniqueMmioPointer<'a, Slot>,
        wanted: u32,
    ) -> core::result::Result<Self, SlotError> {
        let magic = field_shared!(slot, magic).read();
        let version = field_shared!(slot, version).read();
        let device = field_shared!(slot, device_id).read();
        let unknown = SlotError::Unknown { version, device };
        match (magic, version, device) {
            (MAGIC, _, 0) => Err(SlotError::Empty),
            (MAGIC, 1 | 2, _) if device != wanted => Err(SlotError::Other { device, wanted }),
            (MAGIC, 1, _) => DeviceType::try_from(device)
                .map(|kind| Self::Legacy(LegacyTransport::new(slot, kind)))
                .map_err(|_| unknown),
            (MAGIC, 2, _) => {
                virtio_hal::modern_transport(slot).map(Self::Modern).map_err(|_| unknown)
            }
            (MAGIC, _, _) => Err(unknown),
            _ => Err(SlotError::NotVirtio { magic }),
        }
    }
}

/// Passes each call on to the generation in place.
macro_rules! either {
    ($self:ident, $transport:ident => $call:expr) => {
        match $self {
            Self::Legacy($transport) => $call,
            Self::Modern($transport) => $call,
        }
    };
}

impl Transport for SlotTransport<'_> {
    fn device_type(&self) -> DeviceType {
        either!(self, transport => transport.device_type())
    }

    fn read_device_features(&mut self) -> u64 {
        either!(self, transport => transport.read_device_features())
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        either!(self, transport => transport.write_driver_features(driver_features));
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        either!(self, transport => transport.max_queue_size(queue))
    }

    fn notify(&mut self, queue: u16) {
        // The ring lies in Normal memory and the doorbell in Device memory; only a DSB orders the two for an observer
        // outside the processor (ARM DDI 0406C, A3.8.3).
        arch::barrier::dsb();
        either!(self, transport => transport.notify(queue));
    }

    fn get_status(&self) -> DeviceStatus {
        either!(self, transport => transport.get_status())
    }

    fn set_status(&mut self, status: DeviceStatus) {
        either!(self, transport => transport.set_status(status));
    }

    fn set_guest_page_size(&mut self, guest_page_size: u32) {
        either!(self, transport => transport.set_guest_page_size(guest_page_size));
    }

    fn requires_legacy_layout(&self) -> bool {
        either!(self, transport => transport.requires_legacy_layout())
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        either!(self, transport =>
            transport.queue_set(queue, size, descriptors, driver_area, device_area));
    }

    fn queue_unset(&mut self, queue: u16) {
        either!(self, transport => transport.queue_unset(queue));
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        either!(self, transport => transport.queue_used(queue))
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        either!(self, transport => transport.ack_interrupt())
    }

    fn read_config_generation(&self) -> u32 {
        either!(self, transport => transport.read_config_generation())
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        either!(self, transport => transport.read_config_space(offset))
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<()> {
        either!(self, transport => transport.write_config_space(offset, value))
    }
}

impl fmt::Debug for SlotTransport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy(_) => "SlotTransport::Legacy",
            Self::Modern(_) => "SlotTransport::Modern",
        })
    }
}
