//! The interrupt controller of this board, and the way to it from the vectors.

use core::fmt;

use arch::exception::{Frame, Kind};
use arch::irq;
use board::vexpress_a9::{GIC_CPU, GIC_DISTRIBUTOR};
use drivers::interrupts::{self, InterruptError};
use mm::io_mem::{IoMem, IoMemError};

/// Why there are no interrupts. They stay masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The controller's registers could not be mapped.
    Registers(IoMemError),
    /// The controller refuses.
    Controller(InterruptError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registers(error) => error.fmt(f),
            Self::Controller(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for StartError {}

/// Starts the controller, lets interrupts through to this CPU, and unmasks its IRQs. Called once, on CPU 0, when memory is up, by
/// a binary whose `kernel_exception` calls [`serve`].
///
/// # Errors
/// [`StartError`].
pub fn start() -> Result<(), StartError> {
    let distributor = IoMem::map(GIC_DISTRIBUTOR.base).map_err(StartError::Registers)?;
    interrupts::start(distributor).map_err(StartError::Controller)?;
    start_cpu()
}

/// The same for another CPU, on which it runs.
///
/// # Errors
/// [`StartError`].
pub fn start_cpu() -> Result<(), StartError> {
    let interface = IoMem::map(GIC_CPU.base).map_err(StartError::Registers)?;
    interrupts::start_cpu(interface).map_err(StartError::Controller)?;
    // SAFETY: the binary serves interrupts, by what `start` asks of it; no lock is held here, and nothing relied on the mask
    // but that there was no controller.
    unsafe { irq::unmask() };
    Ok(())
}

/// Serves the interrupt that `frame` is of, or says that it is of none.
pub fn serve(frame: &Frame) -> bool {
    let is_interrupt = frame.kind() == Kind::Irq;
    if is_interrupt {
        interrupts::serve();
    }
    is_interrupt
}
