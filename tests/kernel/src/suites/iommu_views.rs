//! What a device sees through entries of every size, when it is detached, and when an IOTLB is not told (S108 to S110).
//!
//! The host's witnesses are asked as long as this CPU stands in for the device: to the emulator's walker, and to the decoder over
//! physical memory, its addresses are those of the lower half.

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use ::witness::{Entry, Testimony};
use arch::exception::{Access, FaultStatus, Level};
use arch::lock::IrqLocks;
use arch::machine::CortexA9;
use arch::translate::{Direction, TranslationFault, translate};
use dma::device::Device;
use dma::iommu::{IommuMapping, detach};
use kerncore::addr::{DmaAddr, PAGE_SIZE, PageRange, Pfn, VirtAddr};
use kerncore::descriptor::PageSize;
use kerncore::frames::{FrameBlock, FrameOwner};
use kerncore::iommu::iova::IovaSpace;
use kerncore::iommu::machine::{CpuIotlb, Iotlb};
use kerncore::iommu::{Domain, Grant};
use kerncore::pool::Word;
use ktest::ktest;
use mm::domain::DeviceDomain;
use mm::kernel;

use super::iommu::Engine;
use super::iommu_witness::{read, shown, write};

const BASE: DmaAddr = DmaAddr::new(0x1000_0000);

/// The emulator's walker and the host's decoder agree with ours and the processor's about `address` of `domain`.
#[track_caller]
fn ask_host(domain: &DeviceDomain, address: VirtAddr) {
    if !::witness::is_open() {
        return;
    }
    let found = domain.translate(DmaAddr::new(address.raw())).map(|found| Entry {
        physical: found.physical,
        size: found.size,
        attributes: found.attributes().ok(),
    });
    let asked = domain.with_open(|| ::witness::ask(&[Testimony::of_device(address, found)]));
    assert_eq!(asked.map_err(|failure| alloc::format!("{failure}")), Ok(()), "{address}");
}

/// S109, S110: rights are those of every entry, whatever its size, and all witnesses see the same.
#[ktest]
fn entries_of_every_size_grant_what_they_should_s110() {
    let domain = DeviceDomain::new(BASE, 64 << 20).expect("memory");
    let zones = kernel().zones();
    let ram = zones.table().first().number().next_multiple_of(4096);
    for (order, size, level) in [
        (0, PageSize::Small, Level::Second),
        (4, PageSize::Large, Level::Second),
        (8, PageSize::Section, Level::First),
        // No block is so large: these frames are looked at through a device's eyes, and not written.
        (12, PageSize::Supersection, Level::First),
    ] {
        let block = (order < 12).then(|| zones.allocate(order, FrameOwner::Test).expect("memory"));
        let first = block.as_ref().map_or(Pfn::new(ram).expect("RAM"), FrameBlock::first);
        for grant in [Grant::Nothing, Grant::Read, Grant::ReadWrite] {
            let run = (first, 1 << order);
            let iova = shown(&domain, [run].into_iter(), grant);
            let start = iova.start().raw();
            for page in [0, (1 << order) / 2, (1 << order) - 1] {
                let address = VirtAddr::new(start + page * PAGE_SIZE + 0x7f8);
                let leads = first.base().checked_add(page * PAGE_SIZE + 0x7f8).expect("RAM");
                let found = domain.translate(DmaAddr::new(address.raw())).expect("mapped");
                assert_eq!((found.size, found.physical), (size, leads));
                let denied = |access| (FaultStatus::Permission(level), Some(address), access);
                let reads = domain.with_open(|| read(address)).map(drop);
                let may_read = grant != Grant::Nothing;
                assert_eq!(reads, if may_read { Ok(()) } else { Err(denied(Access::Read)) });
                if grant != Grant::ReadWrite || block.is_some() {
                    let writes = domain.with_open(|| write(address, page));
                    let may_write = grant == Grant::ReadWrite;
                    let wanted = if may_write { Ok(()) } else { Err(denied(Access::Write)) };
                    assert_eq!(writes, wanted, "{size:?}, {grant:?}");
                }
                // The kernel has no more rights there than the device, but to read.
                let status = FaultStatus::Permission(level);
                let refused = Err(TranslationFault::Refused { address, status });
                let walked = domain.with_open(|| translate(address, Direction::Write));
                assert_eq!(walked, if grant == Grant::ReadWrite { Ok(leads) } else { refused });
                ask_host(&domain, address);
            }
            domain.unmap(iova, ()).flush();
            ask_host(&domain, VirtAddr::new(start));
        }
        if let Some(block) = block {
            zones.free(block).expect("the test's own");
        }
    }
}

/// S108: a device that was detached sees nothing at its old addresses, be it by another mapping or on the bus.
#[ktest]
fn a_detached_device_sees_nothing_at_its_old_addresses_s108() {
    static DEVICE: Device = Device::new("a device that is detached");
    let zones = kernel().zones();
    let block = zones.allocate(0, FrameOwner::Test).expect("memory");
    let mappings = [(); 2].map(|()| IommuMapping::new(BASE, 1 << 20).expect("memory"));
    // SAFETY: the device has nothing.
    unsafe { mappings[0].attach(&DEVICE) }.expect("attached to nothing");
    let run = [(block.first(), 1)].into_iter();
    let iova = shown(mappings[0].domain(), run, Grant::ReadWrite);
    let word = iova.start().raw() + 8;
    let engine = Engine(&DEVICE);
    assert_eq!(engine.write(word, &[1, 2, 3, 4]), Ok(()));
    // SAFETY: whoever has the mapping has what is in it, and not the device.
    unsafe { detach(&DEVICE) }.expect("attached");
    assert_eq!(DEVICE.physical_address(DmaAddr::new(word)).raw(), word, "on the bus");
    // SAFETY: the device has nothing.
    unsafe { mappings[1].attach(&DEVICE) }.expect("attached to nothing");
    let fault = Err(Some(VirtAddr::new(word)));
    assert_eq!(engine.read(word, &mut [0; 4]), fault, "another mapping has nothing there");
    assert_eq!(engine.write(word, &[9; 4]), fault);
    // SAFETY: as above.
    unsafe { detach(&DEVICE) }.expect("attached");
    // SAFETY: as above.
    unsafe { mappings[0].attach(&DEVICE) }.expect("attached to nothing");
    let mut found = [0; 4];
    assert_eq!((engine.read(word, &mut found), found), (Ok(()), [1, 2, 3, 4]));
    mappings[0].domain().unmap(iova, ()).flush();
    assert_eq!(engine.read(word, &mut found), fault);
    // SAFETY: as above.
    unsafe { detach(&DEVICE) }.expect("attached");
    assert_eq!(mappings.each_ref().map(|mapping| mapping.holders()), [1, 1]);
    zones.free(block).expect("the test's own");
}

/// An IOTLB that is told, or nobody tells; and what it heard.
#[derive(Debug)]
struct Ear {
    cpus: CpuIotlb<'static, CortexA9, IrqLocks>,
    is_deaf: bool,
    invalidations: AtomicU32,
    pages: AtomicU32,
}

impl Ear {
    /// How often it was told, and of how many pages.
    fn heard(&self) -> (u32, u32) {
        (self.invalidations.load(Relaxed), self.pages.load(Relaxed))
    }
}

impl Iotlb for Ear {
    fn invalidate(&self, pages: PageRange) {
        self.invalidations.fetch_add(1, Relaxed);
        self.pages.fetch_add(pages.count(), Relaxed);
        if !self.is_deaf {
            self.cpus.invalidate(pages);
        }
    }

    fn invalidate_all(&self) {
        self.cpus.invalidate_all();
    }
}

type Listening = Domain<'static, 'static, CortexA9, Ear, IrqLocks>;

/// Lends `act` a domain of `bytes` whose IOTLB is an [`Ear`].
fn with_ear(bytes: u32, is_deaf: bool, act: impl FnOnce(&Listening)) {
    let window = Listening::window_of(BASE, bytes).expect("a window");
    let words = Box::leak(vec![Word::FREE; IovaSpace::words_for(window)].into_boxed_slice());
    let own: *mut [Word] = words;
    // SAFETY: made of a box above, and the domain's alone until it is gone.
    let words = unsafe { &mut *own };
    let (invalidations, pages) = (AtomicU32::new(0), AtomicU32::new(0));
    let ear = Ear { cpus: mm::domain::iotlb(), is_deaf, invalidations, pages };
    let domain = Listening::new(kernel(), ear, window, words).expect("memory");
    act(&domain);
    drop(domain);
    // SAFETY: as above; the domain is gone.
    drop(unsafe { Box::from_raw(own) });
}

/// S110: a missing invalidation shows: the device goes on seeing what was unmapped. One that is not missing does its work.
#[ktest]
fn an_iotlb_that_is_not_told_goes_on_seeing_what_was_unmapped_s110() {
    let zones = kernel().zones();
    for (order, is_deaf) in [(0, true), (0, false), (4, true), (4, false), (8, true), (8, false)] {
        let block = zones.allocate(order, FrameOwner::Test).expect("memory");
        with_ear(4 << 20, is_deaf, |domain| {
            let run = [(block.first(), 1 << order)].into_iter();
            let iova = shown(domain, run, Grant::ReadWrite);
            let word = VirtAddr::new(iova.start().raw() + ((1 << order) - 1) * PAGE_SIZE + 4);
            let (before, after) = domain.iotlb().cpus.with_open(domain.root(), || {
                let before = read(word).map(drop);
                domain.unmap(iova, ()).flush();
                (before, read(word).map(drop))
            });
            assert_eq!(before, Ok(()));
            assert_eq!(after.is_ok(), is_deaf, "order {order}: {after:?}");
        });
        zones.free(block).expect("the test's own");
    }
}

/// S23, S109: an entry of any size is forgotten by one invalidation of one page.
#[ktest]
fn an_entry_of_any_size_is_forgotten_by_one_invalidation_s23_s109() {
    // Devices may be led to frames that others have, as long as nobody writes there.
    let ram = kernel().zones().table().first().number().next_multiple_of(4096);
    with_ear(64 << 20, false, |domain| {
        for (pages, size) in [
            (1, PageSize::Small),
            (16, PageSize::Large),
            (256, PageSize::Section),
            (4096, PageSize::Supersection),
        ] {
            let first = Pfn::new(ram).expect("RAM");
            let iova = shown(domain, [(first, pages)].into_iter(), Grant::Read);
            assert_eq!(domain.translate(iova.start()).map(|found| found.size), Some(size));
            // What it displaced was forgotten by now.
            let (invalidations, page) = domain.iotlb().heard();
            domain.unmap(iova, ()).flush();
            assert_eq!(
                domain.iotlb().heard(),
                (invalidations + 1, page + 1),
                "{size:?}: one entry"
            );
        }
    });
}
