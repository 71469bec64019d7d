//! Tells the linker to keep the C symbols of `scripts/c-symbols.list`, which nothing in the image calls.

use std::path::Path;

pub(crate) fn main() {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/c-symbols.list");
    println!("cargo::rerun-if-changed={}", list.display());
    println!("cargo::rerun-if-changed=../../linker.ld");
    let symbols = std::fs::read_to_string(&list).expect("scripts/c-symbols.list is readable");
    let arm = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "arm");
    for symbol in symbols.lines().map(str::trim) {
        if arm && !symbol.is_empty() && !symbol.starts_with('#') {
            println!("cargo::rustc-link-arg-bins=--undefined={symbol}");
        }
    }
}
