//! Who may name registers by their address, read from the sources: S98.
//!
//! ```text
//!   board      says where devices lie        data only
//!   image      hands a driver its block      by the board's names, through an owner
//!   drivers    know their registers' layout  no unsafe code, so no pointer that they could follow
//!   mm         makes the owners              the one place that makes a pointer to registers of an address
//! ```

use std::fs;
use std::path::{Path, PathBuf};

/// What makes a typed pointer to registers of a mere address.
const MAKERS: [&str; 3] =
    ["UniqueMmioPointer::new(", "SharedMmioPointer::new(", "MmioTransport::new("];
/// Who may: the owner, and whoever hands what that gave to a crate that wants a bare pointer.
const MAY_MAKE: [&str; 2] = ["kernel/mm/src/io_mem.rs", "kernel/drivers/virtio-hal/src/slot.rs"];
/// What maps registers and leaves the end to whoever asked.
const MAPPERS: [&str; 6] =
    [".ioremap(", ".ioremap_own(", ".ioremap_shared(", ".ioremap_exec(", ".memremap(", "::ioremap"];
/// The owners, a device's own memory among them, the C names, and those who define what they call.
const MAY_MAP: [&str; 5] = [
    "kernel/dma/src/declared.rs",
    "kernel/mm/src/io_mem.rs",
    "kernel/mm/src/io_memory.rs",
    "kernel/linux/src/",
    "kernel/kerncore/src/",
];
/// Crates that must not be able to follow a pointer at all.
const WITHOUT_UNSAFE: [&str; 4] =
    ["kernel/drivers", "kernel/board", "kernel/monitor", "kernel/kerncore"];
/// Physical addresses of devices end where RAM begins.
const RAM: u32 = 0x6000_0000;
/// Nothing lies lower but an alias of flash; smaller numbers are sizes and offsets.
const LOWEST_DEVICE: u32 = 0x1000_0000;
/// Numbers of that size that are none: what RAM is tried with, the mark of the symbols, what the L2 controller calls itself.
const NO_ADDRESSES: [u32; 3] = [0x5aa5_c33c, 0x4d59_534b, 0x4100_00c0];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All Rust sources below `folder`, by their names from the top.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![top().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(top()).expect("below the top").display().to_string();
                found.push((name, fs::read_to_string(&path).expect("text")));
            }
        }
    }
    found
}

/// The lines that are compiled into an image: no comments, and none of a module of tests, which stands last.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.filter(|line| !line.trim_start().starts_with("//"))
}

/// The hexadecimal numbers of a line.
fn numbers(line: &str) -> impl Iterator<Item = u32> {
    line.split("0x").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_hexdigit() && c != '_');
        let digits = rest[..end.unwrap_or(rest.len())].replace('_', "");
        u32::from_str_radix(&digits, 16).ok()
    })
}

/// Lines with one of `words`, in files whose names begin with none of `allowed`.
fn offenders(files: &[(String, String)], words: &[&str], allowed: &[&str]) -> Vec<String> {
    let foreign = files.iter().filter(|(name, _)| !allowed.iter().any(|own| name.starts_with(own)));
    foreign
        .flat_map(|(name, text)| {
            let has_one = |line: &&str| words.iter().any(|word| line.contains(word));
            code(text).filter(has_one).map(move |line| format!("{name}: {}", line.trim()))
        })
        .collect()
}

/// Lines with a number that could be the address of a device.
fn addresses(files: &[(String, String)]) -> Vec<String> {
    let is_device =
        |number| (LOWEST_DEVICE..RAM).contains(&number) && !NO_ADDRESSES.contains(&number);
    files
        .iter()
        .flat_map(|(name, text)| {
            let with_address = code(text).filter(move |line| numbers(line).any(is_device));
            with_address.map(move |line| format!("{name}: {}", line.trim()))
        })
        .collect()
}

fn kernel() -> Vec<(String, String)> {
    let files = sources("kernel");
    assert!(files.len() > 200, "{} files", files.len());
    files
}

/// S98: the compiler refuses them what it takes to follow an address.
#[test]
fn drivers_have_no_unsafe_code() {
    for folder in WITHOUT_UNSAFE {
        let root = fs::read_to_string(top().join(folder).join("src/lib.rs")).expect("a crate");
        assert!(
            root.lines().any(|line| line == "#![forbid(unsafe_code)]"),
            "{folder} has unsafe code"
        );
    }
}

/// S98.
#[test]
fn pointers_to_registers_are_made_by_their_owner_alone() {
    let mut files = kernel();
    files.extend(sources("tests/kernel"));
    files.extend(sources("tests/bench"));
    assert_eq!(offenders(&files, &MAKERS, &MAY_MAKE), [""; 0]);
    for name in MAY_MAKE {
        let (_, text) = files.iter().find(|file| file.0 == name).expect("the file is there");
        assert!(MAKERS.iter().any(|maker| text.contains(maker)), "{name} makes none");
    }
}

/// S98: nobody has a mapping whose end he could forget, but C callers.
#[test]
fn registers_are_mapped_by_their_owner_alone() {
    assert_eq!(offenders(&kernel(), &MAPPERS, &MAY_MAP), [""; 0]);
}

/// S98: where a device lies is the board's to say.
#[test]
fn addresses_of_devices_are_named_by_the_board_alone() {
    let crates = ["drivers", "image", "dma", "mm", "linux", "monitor", "arch"];
    let files: Vec<_> = crates.iter().flat_map(|name| sources(&format!("kernel/{name}"))).collect();
    assert_eq!(addresses(&files), [""; 0]);
    assert!(addresses(&sources("kernel/board")).len() > 10, "the board's are read");
}

/// What the tests above look for they find.
#[test]
fn a_raw_address_is_found_where_it_is_used_and_not_where_it_is_told() {
    let file = |text: &str| vec![("kernel/drivers/src/some.rs".to_owned(), text.to_owned())];
    for text in [
        "let base = PhysAddr::new(0x1000_9000);",
        "    const UART: u32 = 0x10009000;",
        "f(0x0, 0x1e00_0100)",
        "let base = 0x5fff_ffff_u32;",
    ] {
        assert_eq!(addresses(&file(text)).len(), 1, "{text}");
    }
    for text in [
        "// at 0x1000_9000",
        "    /// 0x1000_9000",
        "mask(0xffff_ffff, 0x6000_0000, 0x1000)",
        "fn f() {}\n#[cfg(test)]\nmod tests {\n    const AT: u32 = 0x1000_9000;\n}",
    ] {
        assert_eq!(addresses(&file(text)), [""; 0], "{text}");
    }
    let maker = file("unsafe { UniqueMmioPointer::new(pointer) }");
    assert_eq!(offenders(&maker, &MAKERS, &MAY_MAKE).len(), 1);
    assert_eq!(offenders(&maker, &MAKERS, &["kernel/drivers/src/"]), [""; 0]);
    let mapper = file("let address = kernel().ioremap(at, 4, Attributes::DEVICE, caller)?;");
    assert_eq!(offenders(&mapper, &MAPPERS, &MAY_MAP).len(), 1);
    assert_eq!(offenders(&file("//! [`linux::ioremap`] is"), &MAPPERS, &MAY_MAP), [""; 0]);
}
