//! Devices behind an IOMMU, and a device model that reaches memory as such a one does (S108, S109).
//!
//! ```text
//!   driver ──▶ ring of descriptors (coherent) ──▶ Engine ──▶ source, destination (streaming mappings)
//!                                        every access by the domain, if the device is attached; else on the bus
//! ```

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::ptr;

use arch::user::{copy_from, copy_to};
use dma::atomic_pool;
use dma::bounce;
use dma::coherent::{self, AllocateError, Coherent, CoherentBox, FreeError};
use dma::device::Device;
use dma::iommu::{AttachError, IommuMapping, NotAttached, detach};
use dma::mapping::Streaming;
use dma::streaming::MapError;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::area::AreaKind;
use kerncore::coherent::Sleep;
use kerncore::dma_mask::DmaMask;
use kerncore::iommu::{DomainMapError, IovaError};
use kerncore::kernel_space::RemoveError;
use kerncore::layout::linear_address;
use kerncore::streaming::{FromDevice, ToDevice};
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use mm::page_alloc::Pages;

use super::smp::Barrier;
use super::witness::NOBODY;

pub(super) const BASE: DmaAddr = DmaAddr::new(0x2000_0000);
pub(super) const BYTES: u32 = 16 << 20;

static DEVICE: Device = Device::new("an iommu test's device");
static SNOOPING: Device = Device::coherent("an iommu test's snooping device");

/// A mapping with `device` attached, which is let go in the end.
pub(super) struct Attached(&'static Device, pub(super) IommuMapping);

impl Attached {
    pub(super) fn new(device: &'static Device, bytes: u32) -> Self {
        let mapping = IommuMapping::new(BASE, bytes).expect("memory");
        // SAFETY: the test's device has nothing yet.
        unsafe { mapping.attach(device) }.expect("attached to nothing");
        Self(device, mapping)
    }

    pub(super) fn taken(&self) -> u32 {
        self.1.domain().usage().taken
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        assert_eq!(self.taken(), 0, "all that was mapped is unmapped");
        // SAFETY: the device has nothing any more.
        unsafe { detach(self.0) }.expect("attached");
    }
}

/// A device that copies: it reads descriptors of four words, where from, where to, how many bytes, and where the next one is, or 0.
pub(super) struct Engine(pub(super) &'static Device);

impl Engine {
    pub(super) fn read(&self, dma: u32, to: &mut [u8]) -> Result<(), Option<VirtAddr>> {
        if let Some(iommu) = self.0.iommu() {
            let read = iommu.domain().with_open(|| copy_from(to, VirtAddr::new(dma)));
            read.map_err(|error| error.fault.address)
        } else {
            // SAFETY: memory that the driver has mapped for the device that this plays.
            to.copy_from_slice(unsafe { on_bus(dma, to.len()) });
            Ok(())
        }
    }

    pub(super) fn write(&self, dma: u32, from: &[u8]) -> Result<(), Option<VirtAddr>> {
        if let Some(iommu) = self.0.iommu() {
            let written = iommu.domain().with_open(|| copy_to(VirtAddr::new(dma), from));
            written.map_err(|error| error.fault.address)
        } else {
            // SAFETY: as in `read`.
            unsafe { on_bus(dma, from.len()) }.copy_from_slice(from);
            Ok(())
        }
    }

    /// Carries out the descriptors from that at `dma` on. A fault ends it.
    fn run(&self, dma: DmaAddr) -> Result<u32, Option<VirtAddr>> {
        let (mut next, mut done) = (dma.raw(), 0);
        while next != 0 {
            let mut words = [0; 16];
            self.read(next, &mut words)?;
            let word = |index: usize| {
                words[4 * index..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word))
            };
            let mut bytes = vec![0; word(2) as usize];
            self.read(word(0), &mut bytes)?;
            self.write(word(1), &bytes)?;
            (next, done) = (word(3), done + 1);
        }
        Ok(done)
    }
}

/// # Safety
/// `bytes` lie there on the bus, in low memory, and are nobody's but the device's.
unsafe fn on_bus<'b>(dma: u32, bytes: usize) -> &'b mut [u8] {
    let address = linear_address(PhysAddr::new(dma)).expect("low memory");
    let start = ptr::with_exposed_provenance_mut(address.raw() as usize);
    // SAFETY: by the caller's promise.
    unsafe { core::slice::from_raw_parts_mut(start, bytes) }
}

/// Whether copies must be made, and `pages` of them have no room at once.
pub(super) fn copies_lack(pages: u32) -> bool {
    bounce::is_forced() && bounce::largest_copy().is_none_or(|most| most < pages * PAGE_SIZE)
}

/// Whether no buffer of `pages` fits into the atomic pool as it was made.
pub(super) fn pool_lacks(pages: u32) -> bool {
    atomic_pool::usage().is_none_or(|pool| pool.pages < pages)
}

pub(super) fn pattern(seed: u32, count: u32) -> Vec<u8> {
    let bytes = (0..count).map(|index| (index * 7 + seed * 13 + (index >> 8)).to_le_bytes()[0]);
    bytes.collect()
}

/// The driver: it knows a device, and nothing of where that sees memory.
pub(super) fn copy_by(device: &'static Device, seed: u32, pages: u32) {
    let bytes = pages * PAGE_SIZE;
    let ring = CoherentBox::new(device, PAGE_SIZE).expect("memory");
    let mut ring: Coherent = ring.share();
    let mut source = Pages::exactly(pages).expect("memory");
    source.copy_from_slice(&pattern(seed, bytes));
    let destination = Pages::exactly(pages).expect("memory");
    let source = Streaming::<ToDevice, _>::map(device, source).expect("a mapping");
    let destination = Streaming::<FromDevice, _>::map(device, destination).expect("a mapping");
    let (from, to) = (source.dma_address().raw(), destination.dma_address().raw());
    let (half, at) = (bytes / 2 + 5, ring.dma_address().raw());
    let words = [from, to, half, at + 16, from + half, to + half, bytes - half, 0];
    let words: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    assert_eq!(ring.write(&words), 32);
    assert_eq!(Engine(device).run(ring.dma_address()), Ok(2));
    // SAFETY: the engine is done.
    let copied = unsafe { destination.unmap() }.expect("low memory");
    assert!(copied[..] == pattern(seed, bytes)[..], "what was copied is what was there");
    // SAFETY: as above.
    drop(unsafe { source.unmap() }.expect("low memory"));
    // SAFETY: as above.
    drop(unsafe { ring.reclaim() });
}

/// S109: a driver cannot tell.
#[ktest]
fn one_driver_serves_a_device_with_and_without_an_iommu_s109() -> Completion {
    if copies_lack(2 * 17) {
        return Skipped("the bounce buffers are too small for its copies");
    }
    copy_by(&SNOOPING, 1, 2);
    for device in [&SNOOPING, &DEVICE] {
        let attached = Attached::new(device, BYTES);
        for pages in [1, 2, 16, 17] {
            copy_by(device, pages, pages);
            assert_eq!(attached.taken(), 0, "{pages} pages");
        }
    }
    copy_by(&SNOOPING, 2, 2);
    Ran
}

/// S109: on all CPUs at once, each with a device of its own behind one mapping.
#[ktest]
fn devices_of_all_cpus_share_one_mapping_smp() {
    static DEVICES: [Device; 4] = [
        Device::new("the device of CPU 0"),
        Device::coherent("the device of CPU 1"),
        Device::new("the device of CPU 2"),
        Device::coherent("the device of CPU 3"),
    ];
    let mapping = IommuMapping::new(BASE, BYTES).expect("memory");
    for device in &DEVICES {
        // SAFETY: the test's device has nothing yet.
        unsafe { mapping.attach(device) }.expect("attached to nothing");
    }
    let begin = Barrier::new();
    arch::smp::run_on_each(|cpu| {
        begin.wait();
        for round in 0..12 {
            copy_by(&DEVICES[cpu as usize], cpu * 100 + round, 1 + (round + cpu) % 5);
        }
    });
    assert_eq!(mapping.domain().usage().taken, 0);
    for device in &DEVICES {
        // SAFETY: the device has nothing any more.
        unsafe { detach(device) }.expect("attached");
    }
}

/// S108: who may be attached, and how long a mapping lives.
#[ktest]
fn a_mapping_lives_as_long_as_its_maker_or_a_device_holds_it_s108() {
    let live = || mm::domain::usage().0;
    let mapping = IommuMapping::new(BASE, BYTES).expect("memory");
    let other = IommuMapping::new(BASE, PAGE_SIZE).expect("memory");
    // SAFETY: the test's device has nothing.
    unsafe { mapping.attach(&DEVICE) }.expect("attached to nothing");
    let again = Err(AttachError::Again { device: DEVICE.name() });
    for attached_again in [&mapping, &other] {
        // SAFETY: as above; and it is refused.
        assert_eq!(unsafe { attached_again.attach(&DEVICE) }, again);
    }
    assert_eq!((mapping.holders(), other.holders(), live()), (2, 1, 2));
    drop(other);
    drop(mapping);
    assert_eq!(live(), 1, "the device holds it");
    copy_by(&DEVICE, 3, 1);
    // SAFETY: the device has nothing any more.
    unsafe { detach(&DEVICE) }.expect("attached");
    assert_eq!(live(), 0);
    let none = Err(NotAttached { device: DEVICE.name() });
    // SAFETY: it is refused.
    assert_eq!(unsafe { detach(&DEVICE) }, none);
}

/// S67, S81: a coherent buffer behind an IOMMU, of those who may sleep and those who may not; and frees that are refused.
#[ktest]
fn a_coherent_buffer_is_seen_by_both_until_it_is_freed_s81() {
    for device in [&DEVICE, &SNOOPING] {
        for sleep in [Sleep::May, Sleep::MayNot] {
            let attached = Attached::new(device, BYTES);
            let bytes = 3 * PAGE_SIZE;
            let buffer = coherent::allocate(device, bytes, sleep, NOBODY).expect("memory");
            assert!(buffer.dma >= BASE, "a device address");
            let engine = Engine(device);
            let last = buffer.dma.raw() + bytes - 4;
            assert_eq!(engine.write(last, &[1, 2, 3, 4]), Ok(()));
            let own = buffer.address.checked_add(bytes - 4).expect("an address");
            let own = ptr::with_exposed_provenance_mut::<u32>(own.raw() as usize);
            // SAFETY: the buffer's last word, which nobody writes meanwhile.
            assert_eq!(unsafe { own.read_volatile() }, 0x0403_0201);
            let behind = last + 4;
            assert_eq!(engine.read(behind, &mut [0]), Err(Some(VirtAddr::new(behind))));
            // Another size, another place: refused by what is there, and nothing has changed.
            let (found, has) = (buffer.dma, 3);
            let refused = |start, pages| {
                let error = IovaError::OtherRun { start, pages, found, has };
                Err(FreeError::Iommu { device: device.name(), error })
            };
            let second = DmaAddr::new(buffer.dma.raw() + PAGE_SIZE);
            for (bytes, dma, error) in [
                (2 * PAGE_SIZE, buffer.dma, refused(buffer.dma, 2)),
                (bytes, second, refused(second, 3)),
            ] {
                // SAFETY: refused.
                assert_eq!(unsafe { coherent::free(device, bytes, buffer.address, dma) }, error);
            }
            let wrong = VirtAddr::new(buffer.address.raw() + PAGE_SIZE);
            // SAFETY: refused.
            let free = unsafe { coherent::free(device, bytes, wrong, buffer.dma) };
            assert!(matches!(free, Err(FreeError::Invalid(_))), "{free:?}");
            assert_eq!(attached.taken(), 3);
            // SAFETY: the engine is done.
            let freed = unsafe { coherent::free(device, bytes, buffer.address, buffer.dma) };
            assert_eq!(freed, Ok(()));
            assert_eq!(engine.read(last, &mut [0]), Err(Some(VirtAddr::new(last))));
        }
    }
}

/// S67: who is not behind the IOMMU any more cannot free what he had there.
#[ktest]
fn a_plain_free_of_a_buffer_behind_an_iommu_is_refused_s67() {
    let attached = Attached::new(&DEVICE, BYTES);
    let buffer = coherent::allocate(&DEVICE, PAGE_SIZE, Sleep::May, NOBODY).expect("memory");
    let other = Device::new("a device on the bus");
    // SAFETY: refused.
    let free = unsafe { coherent::free(&other, PAGE_SIZE, buffer.address, buffer.dma) };
    let (address, found) = (buffer.address, AreaKind::Scattered);
    let wrong_kind = RemoveError::WrongKind { address, found };
    assert_eq!(free, Err(FreeError::Invalid(wrong_kind)), "the back end is recorded with it");
    assert_eq!(attached.taken(), 1);
    // SAFETY: nobody uses it.
    assert_eq!(unsafe { coherent::free(&DEVICE, PAGE_SIZE, buffer.address, buffer.dma) }, Ok(()));
}

/// S100, S108: addresses run out, or lie too high; what was taken goes back.
#[ktest]
fn what_a_device_cannot_see_is_not_mapped_for_it_s108() -> Completion {
    if pool_lacks(5) {
        return Skipped("the atomic pool is too small");
    }
    let attached = Attached::new(&DEVICE, 4 * PAGE_SIZE);
    let pages = Pages::exactly(5).expect("memory");
    let exhausted = IovaError::Exhausted { pages: 5, largest: 4, free: 4 };
    let wanted = DomainMapError::Iova(exhausted);
    let refused = Streaming::<ToDevice, _>::map(&DEVICE, pages).expect_err("more than there is");
    assert_eq!(refused.error, MapError::Iommu(wanted));
    for sleep in [Sleep::May, Sleep::MayNot] {
        let refused = coherent::allocate(&DEVICE, 5 * PAGE_SIZE, sleep, NOBODY);
        assert_eq!(refused, Err(AllocateError::Iommu { device: DEVICE.name(), error: wanted }));
    }
    assert_eq!(attached.taken(), 0);
    drop(attached);
    let high = IommuMapping::new(DmaAddr::new(0x7f00_0000), PAGE_SIZE).expect("memory");
    let device = Device::new("a device of 31 bits less a little");
    let mask = DmaMask::new(0x7dff_ffff);
    device.set_mask_and_coherent(mask).expect("RAM begins below");
    // SAFETY: the test's device has nothing.
    unsafe { high.attach(&device) }.expect("attached to nothing");
    let refused = coherent::allocate(&device, PAGE_SIZE, Sleep::May, NOBODY);
    let reach = |error: &AllocateError| {
        let AllocateError::Iommu { error: DomainMapError::Iova(error), .. } = error else {
            return false;
        };
        matches!(error, IovaError::OutOfReach { .. })
    };
    assert!(refused.as_ref().is_err_and(reach), "{refused:?}");
    assert_eq!(high.domain().usage().taken, 0);
    // SAFETY: the device has nothing.
    unsafe { detach(&device) }.expect("attached");
    Ran
}
