//! As every image, and the tests that are written in C, if there is a compiler for them: `ARM_CC`, which `scripts/cargo` sets.

#[path = "../../kernel/image/build.rs"]
mod image;

use std::env;
use std::path::Path;
use std::process::Command;

const SOURCE: &str = "c/c_unit.c";
const HEADERS: &str = "../../include";
/// What the images' Rust is compiled as: no floating point, no unaligned access, a chain of frames, no library.
const FLAGS: [&str; 12] = [
    "-std=c11",
    "-O2",
    "-g",
    "-marm",
    "-ffreestanding",
    "-fno-builtin",
    "-fno-omit-frame-pointer",
    "-mfloat-abi=soft",
    "-mno-unaligned-access",
    "-Wall",
    "-Wextra",
    "-Werror",
];

fn main() {
    image::main();
    println!("cargo::rustc-check-cfg=cfg(c_unit)");
    println!("cargo::rerun-if-env-changed=ARM_CC");
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed={HEADERS}/mapwright.h");
    let arm = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "arm");
    let compiler = env::var("ARM_CC").unwrap_or_default();
    if !arm || compiler.is_empty() {
        return;
    }
    let target =
        if compiler.contains("clang") { "--target=armv7a-none-eabi" } else { "-march=armv7-a" };
    let object = Path::new(&env::var("OUT_DIR").expect("Cargo names it")).join("c_unit.o");
    let mut command = Command::new(&compiler);
    command.arg(target).args(FLAGS).args(["-I", HEADERS, "-c", SOURCE, "-o"]).arg(&object);
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
    println!("cargo::rustc-cfg=c_unit");
    println!("cargo::rustc-link-arg-bins={}", object.display());
}
