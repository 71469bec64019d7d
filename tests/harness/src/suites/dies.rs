//! Tests that the kernel does not survive.

use core::hint::black_box;

use ktest::ktest;
use mm::vm_area::VmArea;

#[ktest]
fn of_an_assertion() {
    assert_eq!(2 + 2, black_box(5), "arithmetic");
}

#[ktest]
fn of_a_panic() {
    panic!("{} of a kind", black_box("seventeen"));
}

#[ktest]
fn of_an_error_returned() -> Result<(), &'static str> {
    Err(black_box("no room"))
}

#[ktest]
fn of_a_fault_outside_a_probe() {
    let area = VmArea::new(1).expect("memory for one page");
    let guard = area.address().raw() + kerncore::addr::PAGE_SIZE;
    // SAFETY: none: this is the mistake that must not go unnoticed. As assembly, it is one to the compiler as well.
    unsafe { core::arch::asm!("ldr {0}, [{0}]", inout(reg) guard => _, options(nostack)) };
}

#[ktest]
fn of_an_undefined_instruction() {
    // SAFETY: none, as above.
    unsafe { core::arch::asm!("udf #1", options(nostack)) };
}

#[ktest]
fn of_its_own_depth() {
    /// Uses a little stack, and more by calling itself.
    fn descend(depth: u32) -> u32 {
        let here = black_box([depth; 16]);
        if depth == u32::MAX { depth } else { descend(depth + 1) ^ here[depth as usize % 16] }
    }
    assert_ne!(descend(0), u32::MAX);
}
