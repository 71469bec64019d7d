//! What a device tree says of command line, RAM and initial RAM disk.
//!
//! A face of the crate `dtoolkit`, for whoever must not believe what a loader says: the tree is validated as a whole
//! before anything is asked of it, the few properties that matter are taken as bytes, and their lengths are checked here.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

#[cfg(test)]
mod tests;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use kerncore::addr::PhysAddr;
use kerncore::handover::{Handover, Problem, Span};

/// The most that is read of a tree, in bytes.
pub const MAX_BYTES: u32 = 512 << 10;

/// A tree's first word, big-endian.
const MAGIC: u32 = 0xd00d_feed;
/// Where its size stands, in words.
const SIZE: usize = 1;
/// The header's bytes up to the size.
pub const HEADER_BYTES: u32 = 8;

/// The bytes of the tree that begins with `header`, if it is one.
pub fn size(header: &[u8]) -> Option<u32> {
    (word(header, 0)? == MAGIC).then(|| word(header, SIZE))?
}

/// Reads the tree that is all of `tree`. The board's RAM begins at `ram_base`. Each problem is told to `complain`; what is
/// sound beside it is used.
pub fn read(tree: &[u8], ram_base: PhysAddr, mut complain: impl FnMut(Problem)) -> Handover<'_> {
    let mut handover = Handover::default();
    // The library does not look at a slice that is shorter than a header.
    let whole = usize::try_from(MAX_BYTES).is_ok_and(|most| tree.len() <= most)
        && tree.len() >= MINIMUM
        && tree.as_ptr().addr().is_multiple_of(4);
    let Some(tree) = whole.then(|| Fdt::new(tree).ok()).flatten() else {
        complain(Problem::DeviceTree);
        return handover;
    };
    if let Err(problem) = banks(tree.root(), &mut handover, ram_base, &mut complain) {
        complain(problem);
    }
    let Some(chosen) = tree.find_node("/chosen") else { return handover };
    if let Some(line) = value(chosen, "bootargs") {
        match line.iter().position(|&byte| byte == 0) {
            Some(end) => handover.command_line = Some(&line[..end]),
            None => complain(Problem::Unterminated),
        }
    }
    match initrd(chosen) {
        Ok(found) => handover.initrd = found,
        Err(problem) => complain(problem),
    }
    handover
}

/// A header of the version that is in use.
const MINIMUM: usize = 40;

/// Takes in the banks of every memory node.
fn banks<'h>(
    root: FdtNode<'h>,
    handover: &mut Handover<'h>,
    ram_base: PhysAddr,
    complain: &mut impl FnMut(Problem),
) -> Result<(), Problem> {
    let (address, size) = (cells(root, "#address-cells", 2)?, cells(root, "#size-cells", 1)?);
    for node in root.children() {
        if value(node, "device_type") != Some(b"memory\0") {
            continue;
        }
        let problem = Problem::Property { name: "reg" };
        let register = value(node, "reg").ok_or(problem)?;
        let pairs = register.chunks_exact((address + size) * 4);
        if !pairs.remainder().is_empty() {
            return Err(problem);
        }
        for pair in pairs {
            let (start, bytes) = pair.split_at(address * 4);
            let (start, bytes) = (number(start).ok_or(problem)?, number(bytes).ok_or(problem)?);
            if let Err(problem) = handover.add_bank(ram_base, start, bytes) {
                complain(problem);
            }
        }
    }
    Ok(())
}

/// The initial RAM disk: from its first byte to the one behind its last.
fn initrd(chosen: FdtNode<'_>) -> Result<Option<Span>, Problem> {
    let bound = |name| match value(chosen, name) {
        None => Ok(None),
        Some(bytes) => number(bytes).map(Some).ok_or(Problem::Property { name }),
    };
    match (bound("linux,initrd-start")?, bound("linux,initrd-end")?) {
        (Some(start), Some(end)) => {
            let bytes = end.saturating_sub(start);
            Span::new(start, bytes).map(Some).ok_or(Problem::Initrd { start, bytes })
        }
        _ => Ok(None),
    }
}

/// How many cells a number of the root's children has: one or two.
fn cells(root: FdtNode<'_>, name: &'static str, default: u64) -> Result<usize, Problem> {
    let cells = value(root, name).map_or(Some(default), number);
    match cells {
        Some(1) => Ok(1),
        Some(2) => Ok(2),
        _ => Err(Problem::Property { name }),
    }
}

/// The bytes of a node's property.
fn value<'h>(node: FdtNode<'h>, wanted: &str) -> Option<&'h [u8]> {
    node.property(wanted)?.value_as().ok()
}

/// A number of one cell or two.
fn number(bytes: &[u8]) -> Option<u64> {
    match bytes.len() {
        4 => Some(u32::from_be_bytes(*bytes.first_chunk()?).into()),
        8 => Some(u64::from_be_bytes(*bytes.first_chunk()?)),
        _ => None,
    }
}

fn word(bytes: &[u8], index: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(index * 4..)?.first_chunk()?))
}
