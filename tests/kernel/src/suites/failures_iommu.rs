//! As [`super::failures`], for devices behind an IOMMU: mappings, and what an attached device is given (S108, S109).

use core::cell::RefCell;

use dma::coherent::{self, AllocateError};
use dma::device::Device;
use dma::iommu::{IommuMapping, detach};
use dma::streaming::{self, MapError, Memory};
use kerncore::addr::{DmaAddr, PAGE_SIZE};
use kerncore::coherent::Sleep;
use kerncore::failure::Point;
use kerncore::iommu::{CreateError, DomainMapError, IovaError, SegmentLimits};
use kerncore::kernel_space::ScatteredError;
use kerncore::layout::linear_address;
use kerncore::page_table::MapError as TableError;
use kerncore::streaming::Flow;
use ktest::{Completion, ktest};
use mm::domain::DomainError;
use mm::page_alloc::Pages;

use super::exec_scattered::Pieces;
use super::failures::{assert_intact, books, survives};
use super::iommu_lists::Scattered;
use super::played_device::call;
use super::witness::{NOBODY, feed, starve};

const BASE: DmaAddr = DmaAddr::new(0x4000_0000);
const BYTES: u32 = 4 << 20;

static DEVICE: Device = Device::new("the device of a failing IOMMU");

/// Addresses fail, or a table, or the frame that it is to be cut from.
const fn no_view(point: Point, error: &DomainMapError) -> bool {
    match error {
        DomainMapError::Iova(IovaError::Exhausted { .. }) => matches!(point, Point::Addresses),
        DomainMapError::Map(TableError::Table { .. }) => {
            matches!(point, Point::Table | Point::Frames)
        }
        _ => false,
    }
}

/// Each thing that a buffer of scattered frames takes, by the points at which there may be none.
fn no_scattered(point: Point, error: &ScatteredError) -> bool {
    match error {
        ScatteredError::Area(_) => {
            matches!(point, Point::Record | Point::Addresses | Point::Frames)
        }
        ScatteredError::PageArray(_) => {
            matches!(point, Point::Frames | Point::Record | Point::Addresses | Point::Table)
        }
        ScatteredError::Frames(_) => point == Point::Frames,
        ScatteredError::Linear(_) => point == Point::Linear,
        ScatteredError::Map(_) => matches!(point, Point::Table | Point::Frames),
        _ => false,
    }
}

/// Runs `test` while the device is attached to a mapping of its own.
fn while_attached(bytes: u32, test: impl FnOnce()) {
    let mapping = IommuMapping::new(BASE, bytes).expect("memory");
    // SAFETY: the test's device has nothing.
    unsafe { mapping.attach(&DEVICE) }.expect("attached to nothing");
    test();
    assert!(mapping.domain().is_unused());
    // SAFETY: the device has nothing any more.
    unsafe { detach(&DEVICE) }.expect("attached");
}

#[ktest]
fn a_mapping_of_device_addresses_survives_each_failure_s108() {
    survives(
        "arm_iommu_create_mapping",
        || IommuMapping::new(BASE, BYTES),
        |point, error| match error {
            DomainError::Heap { .. } => point == Point::Heap,
            DomainError::Create(CreateError::Frames(_)) => point == Point::Frames,
            _ => false,
        },
        drop,
    );
}

#[ktest]
fn a_coherent_buffer_behind_an_iommu_survives_each_failure_s109() {
    // Pointers to its pages in the record, in a frame, and in an area of their own.
    for (sleep, pages) in
        [(Sleep::May, 3), (Sleep::May, 19), (Sleep::May, 1030), (Sleep::MayNot, 3)]
    {
        let bytes = pages * PAGE_SIZE;
        while_attached(2 * bytes.next_power_of_two(), || {
            survives(
                "arm_iommu_alloc_attrs",
                || coherent::allocate(&DEVICE, bytes, sleep, NOBODY),
                |point, error| match error {
                    AllocateError::Iommu { error, .. } => no_view(point, error),
                    AllocateError::Pool(_) => point == Point::Pool,
                    AllocateError::NoEntry { .. } => point == Point::Heap,
                    AllocateError::Scattered(error) => no_scattered(point, error),
                    _ => false,
                },
                |buffer| {
                    // SAFETY: nobody uses it.
                    let freed =
                        unsafe { coherent::free(&DEVICE, bytes, buffer.address, buffer.dma) };
                    assert_eq!(freed, Ok(()));
                },
            );
        });
    }
}

#[ktest]
fn a_streaming_mapping_behind_an_iommu_survives_each_failure_s109() {
    let pages = Pages::exactly(3).expect("memory");
    let address = linear_address(pages.physical()).expect("low memory");
    let (memory, bytes) = (Memory::Linear(address), 3 * PAGE_SIZE);
    let call = call(&DEVICE, Flow::Bidirectional);
    while_attached(BYTES, || {
        survives(
            "dma_map_single behind an IOMMU",
            // SAFETY: nobody uses the pages meanwhile.
            || unsafe { streaming::map(call, memory, bytes) },
            |point, error| matches!(error, MapError::Iommu(error) if no_view(point, error)),
            |dma| {
                // SAFETY: mapped by the operation; no device has it.
                let ended = unsafe { streaming::unmap(call, dma, bytes) };
                assert_eq!(ended, Ok(()));
            },
        );
    });
}

/// As many entries are told, or none, whichever of them has no addresses or no table.
#[ktest]
fn a_list_behind_an_iommu_survives_each_failure_s105_s109() {
    let limits = SegmentLimits::new(3 * PAGE_SIZE, u32::MAX).expect("limits");
    DEVICE.set_segment_limits(limits);
    let list = RefCell::new(Scattered::new(11, 0, PAGE_SIZE));
    let flow = Flow::Bidirectional as u32;
    while_attached(BYTES, || {
        survives(
            "dma_map_sg behind an IOMMU",
            || {
                let mapped = list.borrow_mut().map(&DEVICE, flow);
                if mapped == 0 { Err(()) } else { Ok(()) }
            },
            |point, ()| matches!(point, Point::Addresses | Point::Table | Point::Frames),
            |()| list.borrow_mut().unmap(&DEVICE, flow),
        );
    });
    DEVICE.set_segment_limits(SegmentLimits::DEFAULT);
}

/// S28, S79: no two free frames are adjacent, so that a buffer is taken frame by frame; whichever is the first that there is none for, be
/// it of the buffer or of the pointers to its pages.
#[ktest]
fn a_buffer_of_single_frames_survives_the_failure_of_each_of_them_s28_s79() -> Completion {
    // More pointers than a record has room for.
    const PAGES: u32 = 20;
    let mut is_there = true;
    while_attached(BYTES, || {
        let take = || coherent::allocate(&DEVICE, PAGES * PAGE_SIZE, Sleep::May, NOBODY);
        let give = |buffer: coherent::Buffer| {
            // SAFETY: nobody uses it.
            let freed =
                unsafe { coherent::free(&DEVICE, PAGES * PAGE_SIZE, buffer.address, buffer.dma) };
            assert_eq!(freed, Ok(()));
        };
        // What is made once and kept.
        give(take().expect("memory"));
        let Some(pieces) = Pieces::new() else {
            is_there = false;
            return;
        };
        for left in 0.. {
            let before = books();
            let rest = starve(left);
            let made = take();
            match made {
                Ok(buffer) => {
                    assert!(left >= PAGES, "{left} frames are too few");
                    give(buffer);
                }
                Err(ref error) => {
                    assert!(left <= PAGES, "{left} frames are enough: {error}");
                    let AllocateError::Scattered(error) = error else { panic!("{error}") };
                    assert!(no_scattered(Point::Frames, error), "{left} frames: {error}");
                }
            }
            feed(rest);
            assert_intact(&before, "single frames", Some(Point::Frames), left + 1);
            if made.is_ok() {
                break;
            }
        }
        pieces.end();
    });
    if is_there { Completion::Ran } else { Completion::Skipped("too little low memory") }
}
