//! Tests that leave the tables other than the books say, and nothing else to be counted.

use core::iter::once;

use arch::machine::Authority;
use kerncore::addr::{PhysAddr, VirtAddr};
use kerncore::descriptor::{l1, l2};
use kerncore::layout::linear_address;
use kerncore::machine::Machine;
use kerncore::page_table::TableSource;
use ktest::ktest;
use mm::kernel;
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;

/// "Never executed", in a small page.
const XN: u32 = 1;
/// Cacheable and bufferable, in a small page.
const CACHED: u32 = 0b1100;

/// Changes the descriptor of `address` behind the back of everybody.
fn change(address: VirtAddr, by: impl Fn(u32) -> u32) {
    let at = |base: PhysAddr, index: u32| base.checked_add(index * 4).expect("inside a table");
    let table = kernel().table();
    let above = table.read_descriptor(at(table.root(), l1::index(address)));
    let slot = match l1::Descriptor::decode(above) {
        Ok(l1::Descriptor::Table(base)) => at(base, l2::index(address)),
        other => panic!("{address} has no second-level table: {other:?}"),
    };
    // SAFETY: none: that this must not be done is what the audit is for. Nobody uses the page meanwhile.
    let authority = unsafe { Authority::claim() };
    let machine = table.raw_machine(authority);
    machine.write_descriptors(slot, once(by(machine.read_descriptor(slot))));
    machine.clean_descriptors(slot, 1);
    machine.barrier();
    arch::tlb::invalidate_page(address);
}

/// The linear map's view of a frame that is free by then.
fn free_frame() -> VirtAddr {
    let physical = Pages::new(0).expect("one frame").physical();
    linear_address(physical).expect("RAM is in the linear map")
}

#[ktest]
fn a_page_is_left_writable_and_executable() {
    change(free_frame(), |descriptor| descriptor & !XN);
}

#[ktest]
fn a_page_is_left_with_another_memory_type() {
    change(free_frame(), |descriptor| descriptor & !CACHED);
}

#[ktest]
fn a_table_is_lost() {
    kernel().table_memory().source(kernel().zones()).take_table().expect("memory for a table");
}

/// The book says that there is a page, and there is none.
#[ktest]
fn an_area_s_page_is_cleared() {
    let area = VmArea::new(1).expect("memory for one page");
    change(area.into_address(), |_| 0);
}
