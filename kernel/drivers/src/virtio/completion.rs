//! A device's word that it is done, by interrupt.
//!
//! ```text
//!   Disk::read ──▶ the ring ──▶ the device ──▶ its line ──▶ Completion::handle: what for? ends that
//!       ▲ asleep                                                │
//!       └───────────────────── looks into the ring ◀────────────┘
//! ```
//!
//! The handler only makes the device lower its line; whoever waits was woken by that and looks into the ring himself. So it
//! needs the slot's registers and not the driver, which is in use meanwhile: it has a mapping of its own (S57).

use core::sync::atomic::{AtomicU32, Ordering};

use arch::lock::IrqSpinLock;
use kerncore::lock::Class;
use mm::io_mem::IoMem;
use safe_mmio::{field, field_shared};
use virtio_hal::Slot;

use crate::interrupts::{self, Handler, InterruptError};

/// One slot's interrupt.
#[derive(Debug)]
pub struct Completion {
    slot: IrqSpinLock<Option<IoMem<Slot>>>,
    taken: AtomicU32,
}

impl Completion {
    /// Of a slot that is not listened to yet.
    pub const fn new() -> Self {
        Self { slot: IrqSpinLock::new(Class::DeviceHandler, None), taken: AtomicU32::new(0) }
    }

    /// Listens to the device in `slot`, whose interrupt is `line`. Where one may sleep.
    ///
    /// # Errors
    /// [`InterruptError`]; the mapping was given back.
    pub fn listen(&'static self, slot: IoMem<Slot>, line: u16) -> Result<(), InterruptError> {
        // The mapping first, for the handler needs it; what is refused is dropped outside of the lock.
        let mut slot = Some(slot);
        self.slot.with(|place| {
            if place.is_some() {
                return Err(InterruptError::Taken { line });
            }
            *place = slot.take();
            Ok(())
        })?;
        let registered = interrupts::register(line, self);
        if registered.is_err() {
            drop(self.slot.with(Option::take));
        }
        registered
    }

    /// Listens no more. Where one may sleep.
    ///
    /// # Errors
    /// [`InterruptError`] if `line` was not listened to.
    pub fn stop(&self, line: u16) -> Result<(), InterruptError> {
        interrupts::unregister(line)?;
        drop(self.slot.with(Option::take));
        Ok(())
    }

    /// How many interrupts the device has raised; the count goes round.
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Default for Completion {
    fn default() -> Self {
        Self::new()
    }
}

impl Handler for Completion {
    fn handle(&self) {
        self.slot.with(|slot| {
            let Some(slot) = slot else { return };
            let mut slot = slot.registers();
            let why = field_shared!(slot, interrupt_status).read();
            field!(slot, interrupt_acknowledge).write(why);
        });
        self.taken.fetch_add(1, Ordering::Relaxed);
    }
}
