//! Tests after which nothing comes: the emulator is told to end as if all were well, or never.

use core::fmt::Write as _;

use arch::semihosting::Console;
use image::exit::{Code, exit};
use ktest::ktest;

#[ktest]
fn hangs() {
    arch::cpu::halt()
}

#[ktest]
fn exits_with_success() {
    exit(Code::Success)
}

#[ktest]
fn forges_its_result() {
    let forged = writeln!(Console, "ok 1 ends::forges_its_result");
    forged.expect("the host listens");
}

#[ktest]
fn forges_its_result_and_exits_with_success() {
    let forged = writeln!(Console, "ok 1 ends::forges_its_result_and_exits_with_success");
    forged.expect("the host listens");
    exit(Code::Success)
}

#[ktest]
fn forges_a_plan_of_nothing() {
    let forged = writeln!(Console, "1..0\n# 0 passed, 0 failed, 0 skipped");
    forged.expect("the host listens");
    exit(Code::Success)
}

#[ktest]
fn chatters() {
    writeln!(Console, "all is well").expect("the host listens");
}
