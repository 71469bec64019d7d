//! The CPUs other than 0: from the loader, or the stub, to work for others.

use core::fmt;

use arch::smp::{self, Bell};
use board::vexpress_a9::SYS_FLAGS;
use drivers::gic::Receivers;
use drivers::interrupts::{self, InterruptError};
use drivers::pen::{self, Flags};
use mm::io_mem::{IoMem, IoMemError};

/// The software interrupt that wakes a CPU: to look for work, or at the end of all.
const BELL: u16 = 0;

/// Why the other CPUs are not at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BringUpError {
    /// The system registers could not be mapped.
    Registers(IoMemError),
    /// There is no interrupt to wake them by.
    Bell(InterruptError),
    /// A CPU has not come up.
    Missing {
        /// Its number.
        cpu: u32,
        /// How many there are.
        count: u32,
    },
}

impl fmt::Display for BringUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registers(error) => error.fmt(f),
            Self::Bell(error) => error.fmt(f),
            Self::Missing { cpu, count } => write!(f, "CPU {cpu} of {count} does not come up"),
        }
    }
}

impl core::error::Error for BringUpError {}

/// Brings the other CPUs up and waits for them. Called once, on CPU 0, when interrupts are up ([`crate::interrupts::start`]),
/// before anything that is to run on several CPUs.
///
/// # Errors
/// [`BringUpError`]: the kernel goes on with those that are up.
pub fn bring_up() -> Result<(), BringUpError> {
    let count = boot::secondaries::count();
    if count == 1 {
        return Ok(());
    }
    interrupts::register(BELL, &smp::stop_if_ended).map_err(BringUpError::Bell)?;
    smp::set_bells(ring);
    let mut flags = IoMem::<Flags>::map(SYS_FLAGS.base).map_err(BringUpError::Registers)?;
    pen::open(&mut flags, boot::secondaries::entry());
    drop(flags);
    // SAFETY: the kernel has its memory and its interrupts, and `kernel_secondary` needs nothing more.
    unsafe { boot::secondaries::let_in() };
    interrupts::send(BELL, Receivers::Others).map_err(BringUpError::Bell)?;
    smp::await_up(count).map_err(|cpu| BringUpError::Missing { cpu, count })
}

fn ring(bell: Bell) {
    // It was registered before anybody could ring it, so it can be sent; at the end what cannot be sent is not heard.
    let _rung = match bell {
        Bell::Of(cpu) => interrupts::send(BELL, Receivers::Mask(1 << (cpu & 7))).is_ok(),
        Bell::AllOthersAtTheEnd => interrupts::try_send(BELL, Receivers::Others),
    };
}

/// Entered by the stub on every CPU but 0, high, with the MMU on, on a stack of its own, with interrupts masked.
#[unsafe(no_mangle)]
extern "C" fn kernel_secondary() -> ! {
    let started = crate::interrupts::start_cpu()
        .map_err(|error| log::error!("CPU {}: {error}", arch::cpu::id()))
        .and_then(|()| {
            interrupts::enable_here(BELL)
                .map_err(|error| log::error!("CPU {}: {error}", arch::cpu::id()))
        });
    match started {
        Ok(()) => smp::serve(),
        Err(()) => arch::cpu::halt(),
    }
}
