//! What the boot loader left in RAM, read before that RAM is anybody's.
//!
//! ```text
//!   r2 ──▶ 0                      nothing: an ELF loader's way; the host is asked
//!      ──▶ a device tree's magic  `device_tree`
//!      ──▶ ATAG_CORE              `kerncore::handover::atags`
//!      ──▶ anything else          said, and ignored
//! ```
//!
//! Nothing refers to the loader's memory afterwards: the command line is copied, so the frames become free like all others.

use board::vexpress_a9::{MACHINE_NUMBER, RAM};
use kerncore::addr::PhysAddr;
use kerncore::handover::{Handover, Problem, Span, atags};
use mm::bring_up::EarlySpace;

/// What the stub was entered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// Zero.
    pub r0: u32,
    /// The machine's number, with a list of tags.
    pub r1: u32,
    /// Where the list of tags or the device tree lies; zero if there is none.
    pub r2: u32,
}

/// Who told of command line and RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The host, by semihosting.
    Host,
    /// The loader, by a list of tags.
    Tags,
    /// The loader, by a device tree.
    DeviceTree,
}

/// What can be used of what was handed over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loaded {
    pub(crate) source: Source,
    /// The bytes of the command line at the start of the room.
    pub(crate) command_line: Option<usize>,
    pub(crate) ram: Option<u32>,
    pub(crate) initrd: Option<Span>,
}

/// Reads what `registers` point to, if they do. The command line is copied to the start of `room`.
pub(crate) fn read(
    early: &mut EarlySpace,
    registers: Registers,
    room: &mut [u8],
) -> Option<Loaded> {
    if registers.r2 == 0 {
        return None;
    }
    let address = PhysAddr::new(registers.r2);
    let header = early.with_ram(address, device_tree::HEADER_BYTES, |bytes| {
        (device_tree::size(bytes), atags::begins_with_core(bytes))
    });
    let (source, bytes) = match header {
        Some((Some(size), _)) if size <= device_tree::MAX_BYTES => (Source::DeviceTree, size),
        Some((Some(_), _)) => {
            complain(Problem::DeviceTree);
            return None;
        }
        Some((None, true)) => (Source::Tags, atags::MAX_BYTES.min(RAM.last().raw() - registers.r2)),
        Some((None, false)) | None => {
            log::warn!(
                "the boot loader points to {address}, where nothing is that it could mean; ignored"
            );
            return None;
        }
    };
    if source == Source::Tags && registers.r1 != MACHINE_NUMBER {
        log::warn!("the boot loader takes this for the machine {:#x}", registers.r1);
    }
    early.with_ram(address, bytes, |bytes| {
        let handover = match source {
            Source::DeviceTree => device_tree::read(bytes, RAM.base, complain),
            Source::Tags | Source::Host => atags::read(address, bytes, RAM.base, complain),
        };
        let Handover { command_line, ram, initrd } = handover;
        let command_line = command_line.and_then(|line| copy(line, room));
        Loaded { source, command_line, ram, initrd }
    })
}

/// Copies the command line, which has to outlive the loader's memory.
fn copy(line: &[u8], room: &mut [u8]) -> Option<usize> {
    let Some(copy) = room.get_mut(..line.len()) else {
        log::warn!("the boot loader's command line is too long; all of it is ignored");
        return None;
    };
    for (place, &byte) in copy.iter_mut().zip(line) {
        // A word with a foreign character in it suffers, and no other.
        *place = if byte.is_ascii() { byte } else { b'?' };
    }
    Some(line.len())
}

fn complain(problem: Problem) {
    log::warn!("the boot loader: {problem}");
}
