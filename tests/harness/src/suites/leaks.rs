//! Tests that keep what they took: one a kind of thing that the ledgers count.

extern crate alloc;

use alloc::boxed::Box;
use core::mem::forget;

use dma::coherent::CoherentBox;
use dma::device::Device;
use ktest::ktest;
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;

static DEVICE: Device = Device::new("nobody");

#[ktest]
fn a_frame() {
    forget(Pages::new(0).expect("one frame"));
}

#[ktest]
fn an_area() {
    forget(VmArea::new(1).expect("memory for one page"));
}

#[ktest]
fn heap_bytes() {
    forget(core::hint::black_box(Box::new([1_u8; 40])));
}

#[ktest]
fn a_coherent_buffer() {
    forget(CoherentBox::new(&DEVICE, 4096).expect("memory for one page"));
}

#[ktest]
fn a_page_of_the_atomic_pool() {
    forget(CoherentBox::new_atomic(&DEVICE, 4096).expect("a page of the pool"));
}
