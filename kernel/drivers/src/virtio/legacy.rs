//! The legacy generation of virtio-mmio registers (Virtio 1.2, 4.2.4).
//!
//! It touches the legacy interface's registers and no other, so that an emulator which logs a guest's errors has
//! nothing to log.

use core::fmt;

use safe_mmio::{UniqueMmioPointer, field, field_shared};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PAGE_SIZE, PhysAddr, Result};
use virtio_hal::Slot;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The way to a device whose registers are of version 1.
pub struct LegacyTransport<'a> {
    slot: UniqueMmioPointer<'a, Slot>,
    kind: DeviceType,
}

impl<'a> LegacyTransport<'a> {
    /// Takes over the slot of a device of `kind`; the caller has read both from the slot itself.
    pub(super) const fn new(slot: UniqueMmioPointer<'a, Slot>, kind: DeviceType) -> Self {
        Self { slot, kind }
    }

    fn select(&mut self, queue: u16) {
        field!(self.slot, queue_select).write(u32::from(queue));
    }
}

impl Transport for LegacyTransport<'_> {
    fn device_type(&self) -> DeviceType {
        self.kind
    }

    fn read_device_features(&mut self) -> u64 {
        field!(self.slot, host_features_select).write(0);
        u64::from(field_shared!(self.slot, host_features).read())
    }

    #[expect(clippy::cast_possible_truncation, reason = "legacy devices have 32 feature bits")]
    fn write_driver_features(&mut self, driver_features: u64) {
        field!(self.slot, guest_features_select).write(0);
        field!(self.slot, guest_features).write(driver_features as u32);
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.select(queue);
        field_shared!(self.slot, queue_size_maximum).read()
    }

    fn notify(&mut self, queue: u16) {
        field!(self.slot, queue_notify).write(u32::from(queue));
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(field_shared!(self.slot, status).read())
    }

    fn set_status(&mut self, status: DeviceStatus) {
        field!(self.slot, status).write(status.bits());
    }

    fn set_guest_page_size(&mut self, guest_page_size: u32) {
        field!(self.slot, guest_page_size).write(guest_page_size);
    }

    fn requires_legacy_layout(&self) -> bool {
        true
    }

    #[expect(clippy::cast_possible_truncation, reason = "page numbers of 32-bit addresses")]
    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        _driver_area: PhysAddr,
        _device_area: PhysAddr,
    ) {
        self.select(queue);
        field!(self.slot, queue_size).write(size);
        field!(self.slot, queue_align).write(PAGE_SIZE as u32);
        field!(self.slot, queue_page).write((descriptors / PAGE_SIZE as u64) as u32);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.select(queue);
        field!(self.slot, queue_page).write(0);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.select(queue);
        field_shared!(self.slot, queue_page).read() != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let pending = field_shared!(self.slot, interrupt_status).read();
        if pending != 0 {
            field!(self.slot, interrupt_acknowledge).write(pending);
        }
        InterruptStatus::from_bits_truncate(pending)
    }

    fn read_config_generation(&self) -> u32 {
        0
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let mut value = T::new_zeroed();
        for (at, byte) in (offset..).zip(value.as_mut_bytes()) {
            let config = field_shared!(self.slot, config);
            let word = config.get(at / 4).ok_or(Error::ConfigSpaceTooSmall)?.read();
            *byte = word.to_le_bytes()[at % 4];
        }
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        _offset: usize,
        _value: T,
    ) -> Result<()> {
        Err(Error::Unsupported)
    }
}

/// Resets the device: it forgets the addresses of its rings before their memory goes.
impl Drop for LegacyTransport<'_> {
    fn drop(&mut self) {
        self.set_status(DeviceStatus::empty());
        // A write to Device memory may wait in a buffer; the read behind it makes sure that it has arrived.
        self.get_status();
    }
}

impl fmt::Debug for LegacyTransport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LegacyTransport").field("kind", &self.kind).finish_non_exhaustive()
    }
}
