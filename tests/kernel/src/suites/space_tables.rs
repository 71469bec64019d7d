//! The tables of programs and of devices' domains, of both levels: no device has them, and nobody writes them beside the kernel (S105, S112).

extern crate alloc;

use alloc::vec::Vec;
use core::ptr;

use dma::device::Device;
use dma::iommu::IommuMapping;
use dma::scatter::ScatterEntry;
use dma::streaming::MAPPING_ERROR;
use image::capture::capture_log;
use kerncore::addr::{PAGE_SIZE, Pfn};
use kerncore::attributes::{Attributes, MemoryType};
use kerncore::frames::FrameOwner;
use kerncore::iommu::Grant;
use kerncore::kernel_space::VmapError;
use kerncore::kmap::KmapError;
use kerncore::streaming::Flow;
use ktest::ktest;
use linux::page::pointer_to;
use linux::streaming::dma_map_page;
use linux::streaming_sg::dma_map_sg;
use mm::kernel;
use mm::page_alloc::Pages;

use super::iommu::{Attached, BASE, BYTES};
use super::streaming_kernel::assert_refused_by;
use super::user_programs as code;
use super::user_sharing::waiting;
use super::witness::{Books, NOBODY};

static ON_BUS: Device = Device::new("a device that asks for tables");
static SNOOPING: Device = Device::coherent("a snooping device that asks for tables");
static BEHIND: Device = Device::coherent("a device behind an IOMMU that asks for tables");

const OWNER: FrameOwner = FrameOwner::PageTable;
const BOTH: u32 = Flow::Bidirectional as u32;

/// All frames of tables.
fn tables() -> Vec<Pfn> {
    let table = kernel().zones().table();
    let frames = core::iter::successors(Some(table.first()), |frame| frame.checked_add(1));
    frames.take(1 << 18).filter(|&frame| table.owner_of(frame) == OWNER).collect()
}

/// Those that `make` takes, with what it makes.
fn tables_of<R>(make: impl FnOnce() -> R) -> (Vec<Pfn>, R) {
    let before = tables();
    let made = make();
    (tables().into_iter().filter(|frame| !before.contains(frame)).collect(), made)
}

/// The audit counts every table while somebody has some.
#[track_caller]
fn assert_accounted_for() {
    let summary = mm::audit::audit(&mut |finding| panic!("{finding}"));
    assert_eq!(summary.violations, 0);
}

/// By no way at all, and the refusal names frame and owner.
#[track_caller]
fn assert_kept(frame: Pfn) {
    let refused = KmapError::KernelsOwn { frame, owner: OWNER };
    for device in [&ON_BUS, &SNOOPING, &BEHIND] {
        assert_refused_by(device, frame.base(), PAGE_SIZE, refused);
        assert_refused_by(device, frame.base(), 64, refused);
        let page = pointer_to(frame);
        // SAFETY: to be refused.
        let (mapped, _log) = capture_log(|| unsafe {
            dma_map_page(ptr::from_ref(device), page, 0, PAGE_SIZE, BOTH)
        });
        assert_eq!(mapped, MAPPING_ERROR);
        let mut list = [ScatterEntry::EMPTY];
        ScatterEntry::initialise(&mut list);
        list[0].set_page(u32::try_from(page.addr()).expect("32 bits"), PAGE_SIZE, 0);
        // SAFETY: to be refused.
        let (mapped, _log) = capture_log(|| unsafe {
            dma_map_sg(ptr::from_ref(device), list.as_mut_ptr(), 1, BOTH)
        });
        assert_eq!(mapped, 0);
    }
    let attributes = Attributes::KERNEL_DATA;
    let protection = VmapError::Protection { frame, owner: OWNER, wanted: attributes };
    assert_eq!(kernel().vmap(&[frame], attributes, NOBODY), Err(protection));
}

#[ktest]
fn no_device_has_a_table_of_a_domain_s105_s108_s112() {
    let books = Books::now();
    let attached = Attached::new(&BEHIND, BYTES);
    let (root, domain) = tables_of(|| IommuMapping::new(BASE, BYTES).expect("memory"));
    assert_eq!(root.first(), Some(&domain.domain().root().pfn()), "the first of them");
    let memory = Pages::new(0).expect("memory");
    // SAFETY: the page is the test's, and no device sees it.
    let authority = unsafe { arch::machine::Authority::claim() };
    let (leaf, iova) = tables_of(|| {
        let run = core::iter::once((memory.first(), 1));
        domain
            .domain()
            .map(authority, run, Grant::ReadWrite, MemoryType::NormalWriteBack)
            .expect("addresses")
    });
    assert_eq!((root.len(), leaf.len()), (2, 1), "a half's first level, and a frame of four");
    let taken = attached.taken();
    assert_accounted_for();
    for &frame in root.iter().chain(&leaf) {
        assert_kept(frame);
    }
    assert_eq!(attached.taken(), taken, "nothing stays mapped");
    domain.domain().unmap(iova, memory).flush();
    drop(domain);
    for frame in root.into_iter().chain(leaf) {
        assert_ne!(kernel().zones().table().owner_of(frame), OWNER, "gone with the domain");
    }
    drop(attached);
    books.assert_unchanged();
}

#[ktest]
fn no_device_has_a_table_of_a_program_s105_s112_s118() {
    let books = Books::now();
    let attached = Attached::new(&BEHIND, BYTES);
    let (all, space) = tables_of(|| waiting(code::exits(), 1));
    assert!(all.len() >= 3, "two of the first level, and one of tables: {all:?}");
    assert_accounted_for();
    for &frame in &all {
        assert_kept(frame);
    }
    drop(space);
    for frame in all {
        assert_ne!(kernel().zones().table().owner_of(frame), OWNER, "gone with the program");
    }
    drop(attached);
    books.assert_unchanged();
}
