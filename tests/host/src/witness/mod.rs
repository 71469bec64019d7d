//! The witnesses outside the kernel: the emulator's own walker, and a decoder over physical memory that shares nothing with
//! the kernel.
//!
//! A kernel that is told `witness=uart1` asks about its mappings while they live (crate `witness`, which has the protocol). Here
//! is who answers: one thread a boot, at the other end of UART1, with a QMP session of its own. For each request the machine
//! is stopped, so that nothing moves while it is looked at.
//!
//! Neither side waits for ever: the kernel gives up when it gets no answer, the emulator's answers have a deadline, and when the
//! emulator ends, so does the thread.

mod decode;
mod judge;
mod qmp;
pub(crate) mod screen;
mod stand;
mod stopped;
mod testimony;
mod witnessed;

pub(crate) use qmp::Qmp;
pub(crate) use stand::{Heard, Stand, accept, socket_in};
pub(crate) use witnessed::Witnessed;

/// The word of the kernel's command line that says who listens.
pub(crate) const PARAMETER: &str = "witness=uart1";
