//! From `kernel_main` to a kernel that has memory.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arch::lock::IrqSpinLock;
use board::vexpress_a9;
use kerncore::config::{Config, Limits, Memory, SizeLimit};
use kerncore::layout;
use mm::Kernel;
use mm::bring_up::{BringUpError, EarlySpace};
use spin::Once;

use crate::console::{self, LogStyle};

/// The longest command line that is read.
const LINE: usize = 2048;

static STARTED: Once<Started> = Once::new();

/// What was found at boot.
#[expect(missing_debug_implementations, reason = "the kernel's memory shows nothing by itself")]
pub struct Started {
    /// The kernel's memory.
    pub kernel: &'static Kernel,
    /// What the command line said.
    pub config: Config<'static>,
    /// RAM, and how its size is known.
    pub ram: Ram,
}

/// How much RAM there is, by every witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ram {
    /// Bytes that the kernel manages.
    pub used: u32,
    /// Bytes that the host told of.
    pub told: Option<u32>,
    /// Bytes that were found by probing.
    pub probed: u32,
}

/// What was found at boot, once [`start`] has run.
pub fn started() -> Option<&'static Started> {
    STARTED.get()
}

/// Brings the kernel up: log, command line, RAM, tables, heap. Called first and once, by each binary's `kernel_main`.
///
/// # Errors
/// [`BringUpError`]: there is no kernel without memory.
pub fn start(style: LogStyle) -> Result<&'static Started, BringUpError> {
    boot::link();
    linux::link();
    console::init_log(style);
    let config = configuration();
    console::set_log_level(config.log_level);
    // SAFETY: `kernel_main` runs once, on CPU 0, with the MMU as the stub left it, and this is the first thing that touches a
    // descriptor; from here on `mm` keeps the second promise.
    let mut early = unsafe { EarlySpace::take()? };
    let ram = ram(&mut early, &config);
    let kernel = early.finish(ram.used, config.vmalloc.unwrap_or(layout::VMALLOC_DEFAULT))?;
    Ok(STARTED.call_once(|| Started { kernel, config, ram }))
}

/// What the address map and the board allow.
fn limits() -> Limits {
    Limits {
        coherent_pool: SizeLimit::up_to(layout::LINEAR_BYTES),
        vmalloc: SizeLimit {
            least: layout::VMALLOC_MINIMUM,
            most: layout::VMALLOC_DEFAULT,
            unit: kerncore::addr::SECTION_SIZE,
        },
        memory: SizeLimit {
            least: RAM_MINIMUM,
            most: vexpress_a9::RAM_MAX,
            unit: kerncore::addr::PAGE_SIZE,
        },
    }
}

/// The least that `mem=` may say: the image and its books, with room to work.
const RAM_MINIMUM: u32 = 16 << 20;

/// Reads the command line from the host and parses it; each complaint is one line, and the boot goes on (S114).
fn configuration() -> Config<'static> {
    static PARSED: Once<&'static str> = Once::new();

    let line = PARSED.call_once(|| {
        let Some(buffer) = take_buffer() else { return "" };
        arch::semihosting::command_line(buffer).unwrap_or_else(|error| {
            log::warn!("the command line could not be read: {error}; all of it is ignored");
            ""
        })
    });
    Config::parse(line, &limits(), |complaint| log::warn!("{complaint}"))
}

/// The buffer that the command line is read into and lives in for good; to be had once.
fn take_buffer() -> Option<&'static mut [u8]> {
    static STORAGE: IrqSpinLock<[u8; LINE]> = IrqSpinLock::new([0; LINE]);
    static TAKEN: AtomicBool = AtomicBool::new(false);

    if TAKEN.swap(true, Relaxed) {
        return None;
    }
    let start = STORAGE.with(|storage| storage.as_mut_ptr());
    // SAFETY: the flag makes this the only reference there ever is to the storage, which is not used through its lock
    // again.
    Some(unsafe { core::slice::from_raw_parts_mut(start, LINE) })
}

/// The host knows best; else `mem=`; else what probing finds. `mem=` may also say less than there is, as in Linux.
fn ram(early: &mut EarlySpace, config: &Config<'_>) -> Ram {
    let told = arch::semihosting::ram_end().and_then(|end| end.checked_sub(vexpress_a9::RAM_BASE));
    let given = if let Memory::Bytes(bytes) = config.memory { Some(bytes) } else { None };
    // Beyond what somebody vouches for there may be nothing, and to look would be to touch it; so looking is for the
    // case that nobody does, or that it is asked for.
    let limit = match config.memory {
        Memory::Probed => layout::LINEAR_BYTES,
        Memory::Reported | Memory::Bytes(_) => told.or(given).unwrap_or(layout::LINEAR_BYTES),
    };
    let probed = early.probe_ram(limit);
    let there = match config.memory {
        Memory::Probed => probed,
        Memory::Reported | Memory::Bytes(_) => told.or(given).unwrap_or(probed),
    };
    let used = given.unwrap_or(there).min(there);
    if let Some(wanted) = given.filter(|&wanted| wanted > there) {
        log::warn!("mem={}K: more than the {} KiB of RAM, ignored", wanted >> 10, there >> 10);
    }
    Ram { used, told, probed }
}

impl fmt::Display for Ram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.used >> 20)
    }
}
