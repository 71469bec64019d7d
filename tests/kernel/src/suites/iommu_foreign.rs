//! Buffers of adjacent frames behind an IOMMU that go while somebody else's entry stands in the device's tables (S22, S81).

extern crate alloc;

use alloc::format;
use core::iter::once;

use arch::machine::Authority;
use dma::attributes;
use dma::coherent::{FreeError, free};
use dma::device::Device;
use dma::iommu::{IommuMapping, detach};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::attributes::Attributes;
use kerncore::coherent::Sleep;
use kerncore::descriptor::l1;
use kerncore::descriptor::l2::SmallPages;
use kerncore::dma_attributes::DmaAttributes;
use kerncore::frames::FrameOwner;
use kerncore::kernel_space::{FramesError, RemoveError};
use kerncore::layout::linear_address;
use kerncore::machine::Machine;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use mm::kernel;

use super::iommu::BASE;
use super::witness::{Books, NOBODY, authority, overwrite};

static OWNER: Device = Device::new("a device of foreign entries");
static SNOOPING: Device = Device::coherent("a snooping device of foreign entries");
static ON_BUS: Device = Device::new("a device that has nothing to do with it");

/// A section that leads elsewhere.
const SECTION: u32 = 0x6011_141e;

/// Writes the first-level slot of the domain for its first address. Gives the old descriptor.
fn poke(mapping: &IommuMapping, descriptor: u32) -> u32 {
    let machine = kernel().table().raw_machine(authority());
    let index = l1::index(VirtAddr::new(BASE.raw()));
    let slot = mapping.domain().root().checked_add(4 * index).expect("inside the table");
    let old = machine.read_descriptor(slot);
    machine.write_descriptors(slot, once(descriptor));
    machine.clean_descriptors(slot, 1);
    machine.barrier();
    old
}

fn free_of(device: &Device, address: VirtAddr, dma: DmaAddr) -> Result<(), FreeError> {
    // SAFETY: nobody uses the buffer, or the call is refused.
    capture_log(|| unsafe { free(device, PAGE_SIZE, address, dma) }).0
}

/// What a foreign entry still shows the device is nobody else's: neither its memory nor its device addresses are given out again.
#[ktest]
fn memory_that_a_foreign_entry_still_shows_a_device_stays_out_of_use_s22_s81() -> Completion {
    if kernel().contiguous().is_some() {
        return Skipped("nobody could give the region back what stays out of use");
    }
    let books = Books::now();
    for (device, sleep, marks, owner) in [
        (&SNOOPING, Sleep::May, DmaAttributes::FORCE_CONTIGUOUS, Some(FrameOwner::Pages)),
        (&OWNER, Sleep::May, DmaAttributes::FORCE_CONTIGUOUS, Some(FrameOwner::Dma)),
        (&OWNER, Sleep::MayNot, DmaAttributes::NONE, None),
    ] {
        let mapping = IommuMapping::new(BASE, 1 << 20).expect("memory");
        // SAFETY: it has nothing.
        unsafe { mapping.attach(device) }.expect("attached to nothing");
        let buffer = attributes::allocate(device, PAGE_SIZE, sleep, marks, NOBODY).expect("memory");
        let physical = device.physical_address(buffer.dma);
        let table = poke(&mapping, SECTION);
        let error =
            RemoveError::Frames { address: buffer.address, error: FramesError::StillMapped };
        let freed = free_of(device, buffer.address, buffer.dma);
        assert_eq!(freed, Err(FreeError::Invalid(error)), "{marks:?}");
        assert!(free_of(device, buffer.address, buffer.dma).is_err(), "{marks:?}: it is no buffer");
        let on_bus = DmaAddr::new(physical.raw());
        assert!(free_of(&ON_BUS, buffer.address, on_bus).is_err(), "{marks:?}: on the bus");
        if let Some(owner) = owner {
            assert_eq!(kernel().zones().table().owner_of(physical.pfn()), owner, "{marks:?}");
        }
        assert_eq!(mapping.domain().usage().taken, 1, "{marks:?}: nobody else has the addresses");
        poke(&mapping, table);
        // SAFETY: the test's own, which nobody else ends.
        let authority = unsafe { Authority::claim() };
        let iova = mapping.domain().claim(authority, buffer.dma, 1).expect("taken still");
        mapping.domain().unmap(iova, ()).flush();
        // SAFETY: it has nothing that comes back.
        capture_log(|| unsafe { detach(device) }).0.expect("attached");
        drop(mapping);
        match owner {
            Some(owner) => take_back(physical, owner),
            // The domain is gone, and so is who saw it.
            None => assert_eq!(free_of(&ON_BUS, buffer.address, on_bus), Ok(())),
        }
    }
    books.assert_unchanged();
    Ran
}

/// What was freed and stays out of use is no buffer that an attachment takes back, and no transfer: a device that leaves is told so.
#[ktest]
fn what_stays_out_of_use_is_counted_as_that_when_its_device_leaves_s22_s108() -> Completion {
    if kernel().contiguous().is_some() {
        return Skipped("nobody could give the region back what stays out of use");
    }
    let books = Books::now();
    for (device, sleep, marks, owner) in [
        (&SNOOPING, Sleep::May, DmaAttributes::FORCE_CONTIGUOUS, Some(FrameOwner::Pages)),
        (&OWNER, Sleep::MayNot, DmaAttributes::NONE, None),
    ] {
        let mapping = IommuMapping::new(BASE, 1 << 20).expect("memory");
        // SAFETY: it has nothing.
        unsafe { mapping.attach(device) }.expect("attached to nothing");
        let allocate = || attributes::allocate(device, PAGE_SIZE, sleep, marks, NOBODY);
        let [stays, buffer] = [(); 2].map(|()| allocate().expect("memory"));
        let physical = device.physical_address(buffer.dma);
        let table = poke(&mapping, SECTION);
        assert!(free_of(device, buffer.address, buffer.dma).is_err(), "{marks:?}");
        poke(&mapping, table);
        // SAFETY: what it has comes back below.
        let (detached, log) = capture_log(|| unsafe { detach(device) });
        detached.expect("attached");
        let kind = match owner {
            Some(_) => "1 of adjacent ones, 0 of the",
            None => "0 of adjacent ones, 1 of the",
        };
        let told = format!(
            "leaves its IOMMU, and 1 buffers that only an attachment to the same mapping takes back \
             (0 of scattered frames, {kind} atomic pool's), and 1 freed buffers that stay out of use"
        );
        assert!(log.text().contains(&told), "{marks:?}: {}", log.text());
        assert!(!log.text().contains("for transfers"), "{marks:?}: {}", log.text());
        // SAFETY: as above.
        unsafe { mapping.attach(device) }.expect("detached");
        assert_eq!(free_of(device, stays.address, stays.dma), Ok(()));
        // SAFETY: the test's own, which nobody else ends.
        let authority = unsafe { Authority::claim() };
        let iova = mapping.domain().claim(authority, buffer.dma, 1).expect("taken still");
        mapping.domain().unmap(iova, ()).flush();
        // SAFETY: it has nothing that comes back.
        capture_log(|| unsafe { detach(device) }).0.expect("attached");
        drop(mapping);
        if let Some(owner) = owner {
            take_back(physical, owner);
        } else {
            let on_bus = DmaAddr::new(physical.raw());
            assert_eq!(free_of(&ON_BUS, buffer.address, on_bus), Ok(()));
        }
    }
    books.assert_unchanged();
    Ran
}

/// Frees the frame at `physical`, which stayed out of use, and puts it back into the linear map, if it was not there.
fn take_back(physical: PhysAddr, owner: FrameOwner) {
    if owner == FrameOwner::Dma {
        let linear = linear_address(physical).expect("low memory");
        let word = SmallPages::new(Attributes::KERNEL_DATA).word(physical.pfn());
        assert_eq!(overwrite(linear, word), 0, "it was out of the linear map");
    }
    assert_eq!(kernel().free_frames_at(authority(), physical.pfn(), 0, owner), Ok(()));
}
