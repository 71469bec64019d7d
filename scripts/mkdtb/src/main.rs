//! Writes the board's device tree, for boots by Linux's protocol.
//!
//! The emulator has no device tree for vexpress-a9: it wants one and adds to it the size of RAM, the command line, the
//! initial RAM disk and its virtio transports. The tree says no more than that takes and a reader of trees expects; the
//! kernel knows its board by itself (`kernel/board`).
//!
//! ```text
//! mkdtb FILE
//! ```

use std::process::ExitCode;
use std::{env, fs};

use dtoolkit::error::ModelError;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

fn main() -> ExitCode {
    let Some(path) = env::args_os().nth(1) else {
        eprintln!("error: mkdtb: usage: mkdtb FILE");
        return ExitCode::from(2);
    };
    let tree = board().map_err(|error| error.to_string());
    match tree.and_then(|tree| fs::write(&path, tree.to_dtb()).map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: mkdtb: {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

/// The interrupt controller's handle.
const GIC: u32 = 1;

/// Versatile Express with the A9x4 tile, by its public memory map.
fn board() -> Result<DeviceTree, ModelError> {
    let mut tree = DeviceTree::new();
    let root = &mut tree.root;
    for property in [
        strings("model", &["V2P-CA9"])?,
        strings("compatible", &["arm,vexpress,v2p-ca9", "arm,vexpress"])?,
        cells("#address-cells", &[1])?,
        cells("#size-cells", &[1])?,
        cells("interrupt-parent", &[GIC])?,
    ] {
        root.add_property(property);
    }
    root.add_child(node("chosen", [])?);
    root.add_child(node(
        "memory@60000000",
        [strings("device_type", &["memory"])?, cells("reg", &[0x6000_0000, 0])?],
    )?);
    let mut cpus = node("cpus", [cells("#address-cells", &[1])?, cells("#size-cells", &[0])?])?;
    for number in 0..4 {
        cpus.add_child(node(
            &format!("cpu@{number}"),
            [
                strings("device_type", &["cpu"])?,
                strings("compatible", &["arm,cortex-a9"])?,
                cells("reg", &[number])?,
            ],
        )?);
    }
    root.add_child(cpus);
    root.add_child(node(
        "interrupt-controller@1e001000",
        [
            strings("compatible", &["arm,cortex-a9-gic"])?,
            cells("#interrupt-cells", &[3])?,
            cells("#address-cells", &[0])?,
            DeviceTreeProperty::new("interrupt-controller", &[][..] as &[u8])?,
            cells("reg", &[0x1e00_1000, 0x1000, 0x1e00_0100, 0x100])?,
            cells("phandle", &[GIC])?,
        ],
    )?);
    root.add_child(node(
        "serial@10009000",
        [
            strings("compatible", &["arm,pl011", "arm,primecell"])?,
            cells("reg", &[0x1000_9000, 0x1000])?,
            cells("interrupts", &[0, 5, 4])?,
        ],
    )?);
    Ok(tree)
}

fn node<const N: usize>(
    name: &str,
    properties: [DeviceTreeProperty; N],
) -> Result<DeviceTreeNode, ModelError> {
    let mut node = DeviceTreeNode::new(name)?;
    for property in properties {
        node.add_property(property);
    }
    Ok(node)
}

fn cells(name: &str, value: &[u32]) -> Result<DeviceTreeProperty, ModelError> {
    DeviceTreeProperty::new(name, value)
}

fn strings(name: &str, value: &[&str]) -> Result<DeviceTreeProperty, ModelError> {
    DeviceTreeProperty::new(name, value)
}
