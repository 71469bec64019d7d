//! How requests are waited for.

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
    pub(super) fn until(self, done: &mut dyn FnMut() -> bool) {
        match self {
            Self::Polling => core::hint::spin_loop(),
            Self::Interrupt => arch::cpu::wait_until(done),
        }
    }
}
