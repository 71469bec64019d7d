//! Tests that break the written order of locks, where nobody else is there to wait with.

use arch::lock::IrqSpinLock;
use kerncore::addr::VirtAddr;
use kerncore::lock::Class;
use ktest::ktest;
use mm::vm_area::VmArea;

#[ktest]
fn are_taken_in_the_wrong_order() {
    let area = VmArea::new(1).expect("memory for one page");
    let outer = IrqSpinLock::new(Class::OuterTest(0), ());
    mm::kernel().with_area(area.address(), |_| outer.with(|()| ()));
}

#[ktest]
fn are_held_twice() {
    let area = VmArea::new(1).expect("memory for one page");
    mm::kernel().with_area(area.address(), |_| mm::kernel().find(VirtAddr::new(0)));
}

#[ktest]
fn are_held_by_who_may_sleep() {
    let lock = IrqSpinLock::new(Class::OuterTest(0), ());
    lock.with(|()| VmArea::new(1).map(drop)).expect("memory for one page");
}
