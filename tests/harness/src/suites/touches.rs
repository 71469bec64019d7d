//! A test that touches what is not there. The board says nothing of it; QEMU's log does.

use core::hint::black_box;

use ktest::ktest;
use linux::ioremap::{ioremap, iounmap};

/// Beyond the RAM of every machine that boots this image, and no device's.
const HOLE: u32 = 0x9000_0000;

#[ktest]
fn a_hole() {
    let registers = ioremap(black_box(HOLE), 4096);
    assert!(!registers.is_null());
    // SAFETY: mapped as device memory just now. That nothing answers is the mistake to be noticed.
    unsafe { registers.cast::<u32>().write_volatile(1) };
    // SAFETY: what was mapped above, and nobody uses it.
    unsafe { iounmap(registers) };
}
