//! What a boot loader says, read from any bytes: no panic, and nothing out of range comes out.

use kerncore::addr::PhysAddr;
use kerncore::config::{Bound, Config, Limits, Memory, SizeLimit};
use kerncore::handover::{Handover, atags};

/// Where the board's RAM begins.
const RAM: PhysAddr = PhysAddr::new(0x6000_0000);
/// The largest RAM that a board can have.
const MOST_RAM: u32 = 1 << 30;

/// Reads `bytes` as whatever their first byte says: a list of tags, a device tree, or a command line.
///
/// # Panics
/// If something comes out that cannot be.
pub fn read(bytes: &[u8]) {
    let Some((&what, rest)) = bytes.split_first() else { return };
    match what % 3 {
        0 => tags(rest),
        1 => tree(rest),
        _ => command_line(rest),
    }
}

fn tags(list: &[u8]) {
    let mut problems = 0;
    let handover = atags::read(RAM, list, RAM, |problem| {
        problems += 1;
        assert!(!problem.to_string().is_empty());
    });
    assert!(problems <= list.len() / 8 + 1, "no tag has two problems");
    check(&handover, list);
}

fn tree(bytes: &[u8]) {
    // A loader puts a tree at a multiple of eight, and the reader wants four.
    let mut words = vec![0_u64; bytes.len() / 8 + 1];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut little = [0; 8];
        little[..chunk.len()].copy_from_slice(chunk);
        *word = u64::from_ne_bytes(little);
    }
    let copy: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let aligned = copy.as_ptr().addr() % 4;
    let whole = &copy[if aligned == 0 { 0 } else { 4 - aligned }..];
    let size = device_tree::size(whole).and_then(|size| usize::try_from(size).ok());
    for tree in [size.and_then(|size| whole.get(..size)), whole.get(..bytes.len())] {
        let Some(tree) = tree else { continue };
        let handover = device_tree::read(tree, RAM, |problem| {
            assert!(!problem.to_string().is_empty());
        });
        check(&handover, tree);
    }
}

/// What is handed over lies in the bytes that it was read from, or below 4 GiB.
fn check(handover: &Handover<'_>, bytes: &[u8]) {
    if let Some(line) = handover.command_line {
        assert!(bytes.as_ptr_range().contains(&line.as_ptr()) || line.is_empty());
        assert!(line.len() <= bytes.len() && !line.contains(&0));
        command_line(line);
    }
    if let Some(bytes) = handover.ram {
        assert!(bytes != 0 && RAM.checked_add(bytes - 1).is_some());
    }
    if let Some(span) = handover.initrd {
        assert!(span.bytes != 0 && span.start.checked_add(span.bytes - 1).is_some());
    }
}

fn command_line(line: &[u8]) {
    let Ok(line) = core::str::from_utf8(line) else { return };
    let bound = Bound::AddressMap;
    let limits = Limits {
        bounce: SizeLimit::up_to(4 << 20, Bound::LargestBlock),
        coherent_pool: SizeLimit::up_to(MOST_RAM, bound),
        contiguous: SizeLimit { least: 4 << 20, most: 1 << 30, unit: 4 << 20, bound },
        vmalloc: SizeLimit { least: 1 << 20, most: 768 << 20, unit: 1 << 20, bound },
        low_memory: SizeLimit { least: 32 << 20, most: 1 << 30, unit: 4 << 20, bound },
        memory: SizeLimit { least: 1 << 20, most: MOST_RAM, unit: 1 << 20, bound: Bound::Board },
    };
    let words = line.split_ascii_whitespace().count();
    let mut complaints = 0;
    let config = Config::parse_parameters(line, &limits, |complaint| {
        complaints += 1;
        assert!(!complaint.to_string().is_empty());
    });
    assert!(complaints <= words, "no word is complained of twice");
    let fits = |bytes: u32, limit: SizeLimit| {
        (limit.least..=limit.most).contains(&bytes) && bytes.is_multiple_of(limit.unit)
    };
    assert!(fits(config.coherent_pool, limits.coherent_pool));
    assert!(config.vmalloc.is_none_or(|bytes| fits(bytes, limits.vmalloc)));
    assert!(match config.memory {
        Memory::Bytes(bytes) => fits(bytes, limits.memory),
        Memory::Reported | Memory::Probed => true,
    });
}
