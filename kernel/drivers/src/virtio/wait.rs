//! How requests are waited for.

use virtio_hal::Notices;

/// How requests are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// By looking into the ring all the time. Any context.
    Polling,
    /// Asleep, until an interrupt comes: the slot has a [`Completion`](super::completion::Completion). Where one may
    /// sleep.
    Interrupt,
}

impl Wait {
    /// Whether the device is to say that it is done.
    pub(super) const fn notices(self) -> Notices {
        match self {
            Self::Polling => Notices::Unwanted,
            Self::Interrupt => Notices::Wanted,
        }
    }

    pub(super) fn until(self, done: &mut dyn FnMut() -> bool) {
        match self {
            Self::Polling => core::hint::spin_loop(),
            Self::Interrupt => arch::cpu::wait_until(done),
        }
    }
}
