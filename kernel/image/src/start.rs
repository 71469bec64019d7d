//! From `kernel_main` to a kernel that has memory.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arch::lock::IrqSpinLock;
use board::vexpress_a9;
use kerncore::config::{Bound, Config, IoMappings, LargeMappings, Limits, Memory, SizeLimit};
use kerncore::layout;
use kerncore::lock::Class;
use mm::Kernel;
use mm::bring_up::{BringUpError, EarlySpace, MemoryPlan};
use spin::Once;

use crate::console::{self, LogStyle};
use crate::loader::{self, Loaded, Registers, Source};

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
    /// Who told of it, and of the command line.
    pub source: Source,
}

/// How much RAM there is, by every witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ram {
    /// Bytes that the kernel manages.
    pub used: u32,
    /// Bytes that the boot loader told of, else the host.
    pub told: Option<u32>,
    /// Bytes that were found by probing.
    pub probed: u32,
}

/// What was found at boot, once [`start`] has run.
pub fn started() -> Option<&'static Started> {
    STARTED.get()
}

/// Brings the kernel up: log, command line, RAM, tables, heap. Called first and once, by each binary's `kernel_main`, with
/// what that was entered with.
///
/// # Errors
/// [`BringUpError`]: there is no kernel without memory.
pub fn start(style: LogStyle, registers: Registers) -> Result<&'static Started, BringUpError> {
    boot::link();
    linux::link();
    console::init_log(style);
    // SAFETY: `kernel_main` runs once, on CPU 0, with the MMU as the stub left it, and this is the first thing that touches a
    // descriptor; interrupts are masked and the other CPUs wait until the binary lets them in, later. From here on `mm` keeps
    // the second promise.
    let mut early = unsafe { EarlySpace::take()? };
    let room = take_buffer().unwrap_or_default();
    let loaded = loader::read(&mut early, registers, room);
    let config = configuration(loaded.and_then(|loaded| loaded.command_line), room);
    console::set_log_level(config.log_level);
    if let Some(initrd) = loaded.and_then(|loaded| loaded.initrd) {
        log::info!("an initial RAM disk, {initrd}: nobody reads it, its memory is free");
    }
    let ram = ram(&mut early, &config, loaded.and_then(|loaded| loaded.ram));
    let kernel = early.finish(MemoryPlan {
        ram: ram.used,
        low: config.low_memory.unwrap_or(u32::MAX),
        nodes: config.nodes,
        vmalloc: config.vmalloc.unwrap_or(layout::VMALLOC_DEFAULT),
        contiguous: config.contiguous.unwrap_or(0),
        statics: vexpress_a9::STATIC_MAPPINGS,
    })?;
    mm::bus::set_on_chip(vexpress_a9::ON_CHIP);
    if config.large_mappings == LargeMappings::Forbidden {
        kernel.forbid_large_mappings();
    }
    if config.ioremap == IoMappings::Shared {
        kernel.share_by_default();
    }
    let source = loaded.map_or(Source::Host, |Loaded { source, .. }| source);
    Ok(STARTED.call_once(|| Started { kernel, config, ram, source }))
}

/// What the address map, the board and the frames allow.
fn limits() -> Limits {
    Limits {
        coherent_pool: SizeLimit::up_to(layout::LINEAR_BYTES, Bound::AddressMap),
        contiguous: SizeLimit {
            least: BLOCK,
            most: layout::LINEAR_BYTES,
            unit: BLOCK,
            bound: Bound::AddressMap,
        },
        bounce: SizeLimit::up_to(BLOCK, Bound::LargestBlock),
        vmalloc: SizeLimit {
            least: layout::VMALLOC_MINIMUM,
            most: layout::VMALLOC_DEFAULT,
            unit: kerncore::addr::SECTION_SIZE,
            bound: Bound::AddressMap,
        },
        memory: SizeLimit {
            least: RAM_MINIMUM,
            most: vexpress_a9::RAM_MAX,
            unit: kerncore::addr::PAGE_SIZE,
            bound: Bound::Board,
        },
        low_memory: SizeLimit {
            least: LOW_MEMORY_MINIMUM,
            most: layout::LINEAR_BYTES,
            unit: BLOCK,
            bound: Bound::AddressMap,
        },
    }
}

/// Bytes of the largest block of frames: borders within RAM are multiples of it.
const BLOCK: u32 = kerncore::frames::MAX_BLOCK * kerncore::addr::PAGE_SIZE;

/// The least that `mem=` may say: the image and its books, with room to work.
const RAM_MINIMUM: u32 = 16 << 20;

/// The least that `lowmem=` may say: the image, and the books of all memory that the board can have, with room to work.
const LOW_MEMORY_MINIMUM: u32 = 32 << 20;

/// Parses the command line: the loader's, which is in `room` already, else the host's. Each complaint is one line, and the
/// boot goes on (S114).
fn configuration(loaded: Option<usize>, room: &'static mut [u8]) -> Config<'static> {
    let complain = |complaint| log::warn!("{complaint}");
    if let Some(bytes) = loaded {
        let line = room.get(..bytes).and_then(|line| core::str::from_utf8(line).ok());
        return Config::parse_parameters(line.unwrap_or_default(), &limits(), complain);
    }
    let line = arch::semihosting::command_line(room).unwrap_or_else(|error| {
        log::warn!("the command line could not be read: {error}; all of it is ignored");
        ""
    });
    Config::parse(line, &limits(), complain)
}

/// The buffer that the command line is read into and lives in for good; to be had once.
fn take_buffer() -> Option<&'static mut [u8]> {
    static STORAGE: IrqSpinLock<[u8; LINE]> = IrqSpinLock::new(Class::CommandLine, [0; LINE]);
    static TAKEN: AtomicBool = AtomicBool::new(false);

    if TAKEN.swap(true, Relaxed) {
        return None;
    }
    let start = STORAGE.with(|storage| storage.as_mut_ptr());
    // SAFETY: the flag makes this the only reference there ever is to the storage, which is not used through its lock
    // again.
    Some(unsafe { core::slice::from_raw_parts_mut(start, LINE) })
}

/// What the boot loader and the host say, and of two answers the smaller one.
fn told(loaded: Option<u32>) -> Option<u32> {
    let host = arch::semihosting::ram_end().and_then(|end| end.checked_sub(vexpress_a9::RAM_BASE));
    // Foreign, and a kernel without room would not come up.
    let usable = |&bytes: &u32| (RAM_MINIMUM..=vexpress_a9::RAM_MAX).contains(&bytes);
    if let Some(bytes) = loaded.filter(|bytes| !usable(bytes)) {
        log::warn!("the boot loader tells of {} KiB of RAM, ignored", bytes >> 10);
    }
    match (loaded.filter(usable), host) {
        (Some(loaded), Some(host)) if loaded != host => {
            let (loaded, host) = (loaded.min(host), loaded.max(host));
            log::warn!(
                "boot loader and host differ about RAM: {} and {} KiB",
                loaded >> 10,
                host >> 10
            );
            Some(loaded.min(host))
        }
        (loaded, host) => loaded.or(host),
    }
}

/// Who tells knows best; else `mem=`; else what probing finds. `mem=` may also say less than there is, as in Linux.
fn ram(early: &mut EarlySpace, config: &Config<'_>, loaded: Option<u32>) -> Ram {
    let told = told(loaded);
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
        Memory::Reported | Memory::Bytes(_)
            if loaded.is_some() && told.is_some_and(|told| told > probed) =>
        {
            log::warn!("only {} KiB of the boot loader's RAM answer", probed >> 10);
            probed
        }
        Memory::Reported | Memory::Bytes(_) => told.or(given).unwrap_or(probed),
    };
    let used = given.unwrap_or(there).min(there);
    if let Some(wanted) = given.filter(|&wanted| wanted > there) {
        log::warn!("mem={}K: more than the {} KiB of RAM, ignored", wanted >> 10, there >> 10);
    }
    Ram { used, told, probed }
}

impl Started {
    /// Who this is, and where: the first line that a user sees.
    pub fn banner(&self) -> impl fmt::Display {
        let ram = self.ram;
        fmt::from_fn(move |f| {
            let version = env!("CARGO_PKG_VERSION");
            write!(f, "Mapwright {version} on vexpress-a9, {ram} of RAM")
        })
    }
}

impl fmt::Display for Ram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.used >> 20)
    }
}
