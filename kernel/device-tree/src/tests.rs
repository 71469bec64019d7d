//! Sound trees, wrong properties, and damage.

use std::vec;
use std::vec::Vec;

use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

use super::*;

const BASE: PhysAddr = PhysAddr::new(0x6000_0000);

fn property(name: &str, value: &[u8]) -> DeviceTreeProperty {
    DeviceTreeProperty::new(name, value).expect("a name")
}

fn cells(name: &str, value: &[u32]) -> DeviceTreeProperty {
    DeviceTreeProperty::new(name, value).expect("a name")
}

/// A tree of the usual form, with `memory` as its bank and `chosen` in its node of that name.
fn tree(widths: [u32; 2], memory: &[u32], chosen: Vec<DeviceTreeProperty>) -> Vec<u8> {
    let mut tree = DeviceTree::new();
    tree.root.add_property(cells("#address-cells", &widths[..1]));
    tree.root.add_property(cells("#size-cells", &widths[1..]));
    let mut node = DeviceTreeNode::new("memory@60000000").expect("a name");
    node.add_property(property("device_type", b"memory\0"));
    node.add_property(cells("reg", memory));
    tree.root.add_child(node);
    let mut node = DeviceTreeNode::new("chosen").expect("a name");
    for property in chosen {
        node.add_property(property);
    }
    tree.root.add_child(node);
    tree.to_dtb()
}

fn read_all(tree: &[u8]) -> (Handover<'_>, Vec<Problem>) {
    let mut problems = vec![];
    let handover = read(tree, BASE, |problem| problems.push(problem));
    (handover, problems)
}

const RAM: [u32; 2] = [0x6000_0000, 512 << 20];

#[test]
fn a_tree_tells_ram_command_line_and_initial_ram_disk() {
    let chosen = || {
        vec![
            property("bootargs", b"seed=3 list\0"),
            cells("linux,initrd-start", &[0x6800_0000]),
            cells("linux,initrd-end", &[0, 0x6800_0064]),
        ]
    };
    let initrd = Some(Span { start: PhysAddr::new(0x6800_0000), bytes: 100 });
    let command_line: Option<&[u8]> = Some(b"seed=3 list");
    let expected = Handover { command_line, ram: Some(512 << 20), initrd };
    assert_eq!(read_all(&tree([1, 1], &RAM, chosen())), (expected, vec![]));
    let wide = tree([2, 2], &[0, 0x6000_0000, 0, 512 << 20], chosen());
    assert_eq!(read_all(&wide), (expected, vec![]));
}

#[test]
fn the_size_is_known_from_the_header_of_a_tree_and_of_nothing_else() {
    let tree = tree([1, 1], &RAM, vec![]);
    let bytes = u32::try_from(tree.len()).expect("short");
    assert_eq!(size(&tree[..8]), Some(bytes));
    assert_eq!(size(&tree[..7]), None);
    assert_eq!(size(&[0; 8]), None);
}

#[test]
fn wrong_properties_are_named_and_the_others_are_used() {
    let line = || property("bootargs", b"list\0");
    let wrong = |widths, memory: &[u32], more: Vec<DeviceTreeProperty>| {
        let tree = tree(widths, memory, [vec![line()], more].concat());
        let (handover, problems) = read_all(&tree);
        assert_eq!(handover.command_line, Some(&b"list"[..]));
        assert_eq!(handover.initrd, None);
        problems
    };
    let named = |name| vec![Problem::Property { name }];
    assert_eq!(wrong([3, 1], &RAM, vec![]), named("#address-cells"));
    assert_eq!(wrong([1, 0], &RAM, vec![]), named("#size-cells"));
    assert_eq!(wrong([1, u32::MAX], &RAM, vec![]), named("#size-cells"));
    assert_eq!(wrong([1, 1], &RAM[..1], vec![]), named("reg"));
    let bank = Problem::Bank { start: 0x6100_0000, bytes: 1 };
    assert_eq!(wrong([1, 1], &[0x6100_0000, 1], vec![]), [bank]);
    let start = cells("linux,initrd-start", &[9, 9, 9]);
    assert_eq!(wrong([1, 1], &RAM, vec![start]), named("linux,initrd-start"));
    let bounds = vec![cells("linux,initrd-start", &[0x6800_0000]), cells("linux,initrd-end", &[8])];
    let disk = Problem::Initrd { start: 0x6800_0000, bytes: 0 };
    assert_eq!(wrong([1, 1], &RAM, bounds), [disk]);
}

#[test]
fn a_command_line_without_an_end_is_passed_over() {
    let tree = tree([1, 1], &RAM, vec![property("bootargs", b"list")]);
    let expected = Handover { ram: Some(512 << 20), ..Handover::default() };
    assert_eq!(read_all(&tree), (expected, vec![Problem::Unterminated]));
}

/// Every length of a sound tree, and every wrong word in it: no panic, and never more RAM than has addresses.
#[test]
fn no_damage_to_a_tree_is_fatal() {
    let sound = tree([1, 1], &RAM, vec![property("bootargs", b"seed=3\0")]);
    for length in 0..sound.len() {
        let expected = (Handover::default(), vec![Problem::DeviceTree]);
        assert_eq!(read_all(&sound[..length]), expected, "{length}");
    }
    let words = [0, 1, 2, 3, 4, 9, 40, 0x100, 0x7fff_ffff, 0x8000_0000, u32::MAX - 3, u32::MAX];
    for place in (0..sound.len()).step_by(4) {
        for wrong in words {
            let mut tree = sound.clone();
            tree[place..place + 4].copy_from_slice(&wrong.to_be_bytes());
            let (handover, _problems) = read_all(&tree);
            if let Some(ram) = handover.ram {
                assert!(BASE.raw().checked_add(ram - 1).is_some(), "{ram:#x}");
            }
        }
    }
    for place in 0..sound.len() {
        for bit in 0..8 {
            let mut tree = sound.clone();
            tree[place] ^= 1 << bit;
            read_all(&tree);
        }
    }
}
