//! A device that a test of streaming mappings plays (S105): it reaches memory at the address that it was given, past every mapping of
//! its driver.

extern crate alloc;

use alloc::vec::Vec;
use core::ptr;

use dma::device::Device;
use dma::streaming::Call;
use kerncore::addr::{DmaAddr, PhysAddr};
use kerncore::layout::linear_address;
use kerncore::misuse::Family;
use kerncore::streaming::Flow;

use super::witness::NOBODY;

pub(super) const fn call(device: &Device, flow: Flow) -> Call<'_> {
    Call { name: "a test", device, flow, caller: NOBODY, family: Family::Single }
}

/// The byte that the device has at `dma`.
fn device_byte(dma: DmaAddr, index: u32) -> *mut u8 {
    let address = linear_address(PhysAddr::new(dma.raw() + index)).expect("low memory");
    ptr::with_exposed_provenance_mut(address.raw() as usize)
}

pub(super) fn device_reads(dma: DmaAddr, count: u32) -> Vec<u8> {
    // SAFETY: mapped for the device that the test plays.
    (0..count).map(|index| unsafe { device_byte(dma, index).read_volatile() }).collect()
}

pub(super) fn device_writes(dma: DmaAddr, bytes: &[u8]) {
    for (index, &byte) in (0..).zip(bytes) {
        // SAFETY: as above.
        unsafe { device_byte(dma, index).write_volatile(byte) };
    }
}
