//! Each CPU's device, on the bus and behind IOMMUs that come and go, driven by one driver (S108, S109).

extern crate alloc;

use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering::{Acquire, Release};

use dma::device::Device;
use dma::iommu::{IommuMapping, Shared, detach};
use kerncore::coherent::Coherency;

use super::Worker;
use crate::suites::iommu::{BASE, copy_by};
use crate::suites::iommu_lists::copy_list_by;

static DEVICES: [Device; 4] = [
    Device::new("stress behind an IOMMU, of CPU 0"),
    Device::coherent("stress behind an IOMMU, of CPU 1"),
    Device::new("stress behind an IOMMU, of CPU 2"),
    Device::coherent("stress behind an IOMMU, of CPU 3"),
];

/// A mapping that any device may be attached to, besides those of its own.
static SHARED: AtomicPtr<Shared> = AtomicPtr::new(ptr::null_mut());

pub(super) fn open_mapping() {
    let mapping = IommuMapping::new(BASE, 4 << 20).expect("memory");
    SHARED.store(mapping.into_raw(), Release);
}

/// When no CPU makes another step.
pub(super) fn close_mapping() {
    for device in DEVICES.iter().filter(|device| device.iommu().is_some()) {
        // SAFETY: it has nothing between two steps.
        unsafe { detach(device) }.expect("attached");
    }
    let raw = NonNull::new(SHARED.swap(ptr::null_mut(), Acquire)).expect("opened");
    // SAFETY: `open_mapping` gave it, and it is made back once.
    let mapping = unsafe { IommuMapping::from_raw(raw) };
    assert_eq!((mapping.holders(), mapping.domain().usage().taken), (1, 0));
}

impl Worker<'_> {
    /// Puts this CPU's device elsewhere, or leaves it, and lets it copy.
    pub(super) fn behind(&mut self) {
        let device = &DEVICES[arch::cpu::id() as usize];
        let place = self.draw.below(4);
        if place != 0 && device.iommu().is_some() {
            // SAFETY: it has nothing between two steps, and is this CPU's.
            unsafe { detach(device) }.expect("attached");
        }
        if place >= 2 {
            let raw = NonNull::new(SHARED.load(Acquire)).expect("opened");
            // SAFETY: `open_mapping` gave it; this holder is not dropped.
            let shared = ManuallyDrop::new(unsafe { IommuMapping::from_raw(raw) });
            let own = (place == 2).then(|| IommuMapping::new(BASE, 1 << 20).expect("memory"));
            // SAFETY: as above. One of its own lives as long as the device is attached.
            unsafe { own.as_ref().unwrap_or(&shared).attach(device) }.expect("attached to nothing");
        }
        let (seed, pages) = (self.draw.below(1000), 1 + self.draw.below(5));
        // The coherent buffers of a device that does not snoop have no linear address, by which the engine would reach them on the bus.
        let is_reached = device.iommu().is_some() || device.coherency() == Coherency::Coherent;
        if is_reached && self.draw.below(2) == 0 {
            copy_by(device, seed, pages);
        } else {
            copy_list_by(device, seed, pages as usize);
        }
    }
}
