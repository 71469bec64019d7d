//! As [`super::failures`], for memory that devices reach in another way than by a plain coherent buffer: with attributes, below a mask,
//! of their own, in small blocks, out of a pool that grows, shown to programs, in lists, in high memory (S78, S99 to S106).

extern crate alloc;

use core::cell::Cell;
use core::ffi::{c_int, c_void};
use core::num::NonZeroU32;
use core::ptr;

use arch::failure::fail_nth;
use board::vexpress_a9::VRAM;
use dma::atomic_pool::{self, InitError, PoolError};
use dma::attributes;
use dma::bounce::usage;
use dma::coherent::{AllocateError, Buffer, allocate, free};
use dma::declared::DeclareError;
use dma::device::Device;
use dma::dma_pool::{DmaPool, TakeError};
use dma::pool_growth::{grow, grown, is_low, release_idle};
use dma::scatter::ScatterTable;
use dma::streaming::{self, Call, Memory};
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr};
use kerncore::coherent::{AllocationFlags, Sleep};
use kerncore::dma_attributes::DmaAttributes;
use kerncore::dma_mask::DmaMask;
use kerncore::failure::{Afterwards, Outcome, Point};
use kerncore::frames::{FrameOwner, FrameRequest};
use kerncore::kernel_space::IoRemapError;
use kerncore::misuse::Family;
use kerncore::pool;
use kerncore::streaming::Flow;
use kerncore::user::{Protection, ShowError};
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::dma_attrs::{dma_alloc_attrs, dma_alloc_wc, dma_free_attrs, dma_free_wc};
use linux::dma_pool::{dma_pool_alloc, dma_pool_create, dma_pool_destroy, dma_pool_free};
use linux::dma_sgtable::{dma_get_sgtable, sg_alloc_table, sg_free_table};
use mm::kernel;
use mm::user::AddressSpace;

use super::buffers::show;
use super::failures::{
    is_exhausted, no_area, no_coherent, no_place, no_table, survives, survives_by_name,
};
use super::kmap::slots;
use super::user::{at, pages};
use super::user_sharing::WINDOW;
use super::witness::{Books, NOBODY, authority};

static DEVICE: Device = Device::new("a device whose memory fails");

const HIDDEN: DmaAttributes = DmaAttributes::NO_KERNEL_MAPPING;
const BYTES: u32 = 3 * PAGE_SIZE;

fn no_pages(error: &pool::AllocateError) -> bool {
    matches!(error, pool::AllocateError::Exhausted { .. })
}

/// What each point gives a device that is called this.
fn no_buffer(point: Point, error: &AllocateError) -> bool {
    match error {
        AllocateError::Remap(error) => no_coherent(point, error),
        AllocateError::Simple(error) => point == Point::Frames && is_exhausted(error),
        AllocateError::Pool(PoolError::Refused(error)) => point == Point::Pool && no_pages(error),
        AllocateError::NoEntry { bytes } => point == Point::Heap && *bytes == BYTES,
        AllocateError::OutOfReach { device, .. } => {
            point == Point::Frames && *device == DEVICE.name()
        }
        _ => false,
    }
}

/// S99: the kernel's own note of a buffer is one thing more that may fail.
#[ktest]
fn a_buffer_behind_a_cookie_s99() {
    let make = || attributes::allocate(&DEVICE, BYTES, Sleep::May, HIDDEN, NOBODY);
    survives("dma_alloc_attrs, without a mapping", make, no_buffer, |given| {
        // SAFETY: made a moment before, and nobody has a reference.
        assert_eq!(unsafe { attributes::free(&DEVICE, BYTES, given, HIDDEN) }, Ok(()));
    });
}

/// S100: who does not reach all memory, and finds none where he reaches, is told so by name.
#[ktest]
fn buffers_below_a_mask_s100() {
    for device in [Device::new(DEVICE.name()), Device::coherent(DEVICE.name())] {
        let high = allocate(&device, BYTES, Sleep::May, NOBODY).expect("memory");
        let give_back = |Buffer { address, dma }| {
            // SAFETY: made a moment before, and nobody has a reference.
            assert_eq!(unsafe { free(&device, BYTES, address, dma) }, Ok(()));
        };
        give_back(high);
        let mask = DmaMask::new(u64::from(high.dma.raw()) + u64::from(BYTES) - 1);
        assert_eq!(device.set_coherent_mask(mask), Ok(()));
        let make = || allocate(&device, BYTES, Sleep::May, NOBODY);
        let is_right = |point, error: &AllocateError| {
            let named = matches!(error, AllocateError::OutOfReach { .. });
            no_buffer(point, error) && (named || point != Point::Frames)
        };
        survives("dma_alloc_coherent, below a mask", make, is_right, give_back);
    }
}

/// By their C names: null.
#[ktest]
fn c_callers_get_null_for_buffers_with_attributes_s99() {
    let view = Cell::new(DmaAddr::new(0));
    let handle = view.as_ptr();
    let device = &raw const DEVICE;
    for attrs in [0, HIDDEN.bits()] {
        // SAFETY: a device, and a place for an address.
        let make =
            || unsafe { dma_alloc_attrs(device, BYTES, handle, AllocationFlags::KERNEL, attrs) };
        // SAFETY: made a moment before, whose handle lies there; nobody has a reference.
        let undo = |memory: *mut c_void| unsafe {
            dma_free_attrs(device, BYTES, memory, view.get(), attrs);
        };
        survives_by_name("dma_alloc_attrs", make, undo);
    }
    // SAFETY: a device, and a place for an address.
    let make = || unsafe { dma_alloc_wc(device, BYTES, handle, AllocationFlags::KERNEL) };
    // SAFETY: as above.
    let undo = |memory: *mut c_void| unsafe { dma_free_wc(device, BYTES, memory, view.get()) };
    survives_by_name("dma_alloc_wc", make, undo);
}

/// A pool without a free block, and one of its blocks.
fn block_of_new_pool(sleep: Sleep) -> Result<(DmaPool<'static>, Buffer), TakeError> {
    let pool = DmaPool::new("blocks", &DEVICE, 100, 4, 0).expect("such blocks can be");
    match pool.allocate(sleep, NOBODY) {
        Ok(block) => Ok((pool, block)),
        Err(error) => {
            // SAFETY: it has no blocks.
            assert_eq!(unsafe { pool.destroy() }, 0);
            Err(error)
        }
    }
}

/// S103: pages for more blocks, and the books of those.
#[ktest]
fn blocks_of_a_pool_that_has_none_s103() {
    let is_right = |point, error: &TakeError| match error {
        TakeError::Pages(error) => no_buffer(point, error),
        TakeError::NoBooks => point == Point::Heap,
        TakeError::Moved { .. } => false,
    };
    let undo = |(pool, block): (DmaPool<'static>, Buffer)| {
        assert_eq!(pool.free(block), Ok(()));
        // SAFETY: nobody uses a block.
        assert_eq!(unsafe { pool.destroy() }, 0);
    };
    survives("dma_pool_alloc", || block_of_new_pool(Sleep::May), is_right, undo);
    if atomic_pool::usage().is_some() {
        survives("dma_pool_alloc, atomic", || block_of_new_pool(Sleep::MayNot), is_right, undo);
    }
}

/// By their C names; and a free block needs nothing.
#[ktest]
fn c_callers_get_null_for_pools_and_their_blocks_s103() {
    let view = Cell::new(DmaAddr::new(0));
    let handle = view.as_ptr();
    // SAFETY: a device for good.
    let create = || unsafe { dma_pool_create(ptr::null(), &raw const DEVICE, 64, 4, 0) };
    // SAFETY: nobody uses a block.
    survives_by_name("dma_pool_create", create, |pool| unsafe { dma_pool_destroy(pool) });
    let pool = create();
    // SAFETY: the pool made above, and a place for an address.
    let block = || unsafe { dma_pool_alloc(pool, AllocationFlags::KERNEL, handle) };
    let first = block();
    let (second, outcome) = fail_nth(NonZeroU32::MIN, Afterwards::Nothing, block);
    assert!(!first.is_null() && !second.is_null());
    assert_eq!(outcome, Outcome { asked: 0, failed: None });
    let second_dma = view.get();
    let apart = second.addr() - first.addr();
    let first_dma = DmaAddr::new(second_dma.raw() - u32::try_from(apart).expect("a page"));
    for (block, dma) in [(first, first_dma), (second, second_dma)] {
        // SAFETY: nobody uses it.
        unsafe { dma_pool_free(pool, block, dma) };
    }
    // SAFETY: nobody uses a block.
    unsafe { dma_pool_destroy(pool) };
}

/// S102: to declare it takes books, addresses and tables; a buffer in it takes nothing.
#[ktest]
fn memory_of_a_device_s_own_s102() {
    let device = Device::new("a device with memory");
    let is_right = |point, error: &DeclareError| match error {
        DeclareError::NoBooks => point == Point::Heap,
        DeclareError::Map(IoRemapError::Area(error)) => no_area(point, error),
        DeclareError::Map(IoRemapError::Map(error)) => no_table(point, error),
        _ => false,
    };
    // SAFETY: nobody but the test has the device.
    let release = |()| assert_eq!(unsafe { device.release_memory() }, Ok(()));
    let place = (VRAM.base, DmaAddr::new(0x0010_0000));
    let declare = || device.declare_memory(place, 8 * PAGE_SIZE, NOBODY);
    survives("dma_declare_coherent_memory", declare, is_right, release);
    assert_eq!(declare(), Ok(()));
    for sleep in [Sleep::May, Sleep::MayNot] {
        let take = || allocate(&device, BYTES, sleep, NOBODY);
        let (taken, outcome) = fail_nth(NonZeroU32::MIN, Afterwards::Nothing, take);
        assert_eq!(outcome, Outcome { asked: 0, failed: None });
        let Buffer { address, dma } = taken.expect("room");
        // SAFETY: the test's own, of which it has no reference.
        assert_eq!(unsafe { free(&device, BYTES, address, dma) }, Ok(()));
    }
    release(());
}

/// S104: what grows without enough memory grows by less, or not at all.
#[ktest]
fn the_growth_of_the_atomic_pool_s104() -> Completion {
    if atomic_pool::usage().is_none() {
        return Skipped("no atomic pool in this boot");
    }
    // Of the second try, whatever failed in the first.
    let points = [Point::Frames, Point::Record, Point::Addresses, Point::Table, Point::Linear];
    let is_right = |_, error: &InitError| match error {
        InitError::NoBitmap => true,
        InitError::NoMemory(error) => points.iter().any(|&point| no_coherent(point, error)),
        InitError::Again | InitError::Changing | InitError::Pool(_) => false,
    };
    let undo = |bytes: u32| {
        assert_eq!(grown(), (bytes / PAGE_SIZE, 0));
        assert_eq!(release_idle() * PAGE_SIZE, bytes);
    };
    survives("the pool's growth", grow, is_right, undo);
    assert!(!is_low(), "so that who waits may make it grow again");
    Ran
}

/// S78, S102: what was mapped before the failure stays until the window's owner ends it (S45).
#[ktest]
fn coherent_memory_shown_to_programs_s78_s102() {
    let own = Device::new("a device with memory");
    let place = (VRAM.base, DmaAddr::new(0x0010_0000));
    assert_eq!(own.declare_memory(place, 8 * PAGE_SIZE, NOBODY), Ok(()));
    let space = AddressSpace::new().expect("memory");
    for device in [&DEVICE, &own] {
        let buffer = allocate(device, BYTES, Sleep::May, NOBODY).expect("memory");
        survives(
            "dma_mmap_coherent, 2 pages",
            || {
                space
                    .reserve(pages(WINDOW, 2), Protection::ReadWrite)
                    .map_err(|error| (Some(error), None))?;
                show(device, &space, at(WINDOW), (buffer, BYTES), 1).map_err(|error| {
                    assert_eq!(space.unmap(at(WINDOW)), Ok(()), "its owner ends it");
                    (None, Some(error))
                })
            },
            |point, error| match error {
                (Some(place), _) => no_place(point, place),
                (None, Some(ShowError::Map(error))) => no_table(point, error),
                (None, _) => false,
            },
            |()| assert_eq!(space.unmap(at(WINDOW)), Ok(())),
        );
        // SAFETY: no program sees it any more, and the test has no reference.
        assert_eq!(unsafe { free(device, BYTES, buffer.address, buffer.dma) }, Ok(()));
    }
    // SAFETY: nobody but the test has the device.
    assert_eq!(unsafe { own.release_memory() }, Ok(()));
}

/// S99: a list takes memory for its entries, and nothing else.
#[ktest]
fn c_callers_get_numbers_for_lists_s99() {
    let buffer = allocate(&DEVICE, BYTES, Sleep::May, NOBODY).expect("memory");
    let memory: *const c_void = ptr::with_exposed_provenance(buffer.address.raw() as usize);
    let mut table = ScatterTable::NONE;
    let table = &raw mut table;
    let is_right = |point, &answer: &c_int| (point, answer) == (Point::Heap, -linux::errno::ENOMEM);
    let answered = |answer: c_int| if answer == 0 { Ok(()) } else { Err(answer) };
    // SAFETY: made a moment before.
    let undo = |()| unsafe { sg_free_table(table) };
    // SAFETY: a place for a table.
    let make = || answered(unsafe { sg_alloc_table(table, 5, AllocationFlags::KERNEL) });
    survives("sg_alloc_table", make, is_right, undo);
    let list = || {
        // SAFETY: a device, its buffer, and a place for a table.
        answered(unsafe { dma_get_sgtable(&raw const DEVICE, table, memory, buffer.dma, BYTES) })
    };
    survives("dma_get_sgtable", list, is_right, undo);
    // SAFETY: the test's own, of which it has no reference.
    assert_eq!(unsafe { free(&DEVICE, BYTES, buffer.address, buffer.dma) }, Ok(()));
}

/// S105, S106, S117: high memory has no address to be maintained or copied by, until it is given one; and there always is one, so that
/// nothing that is mapped for a device is refused to whoever takes it back.
#[ktest]
fn high_memory_on_its_way_to_a_device_s105_s106() -> Completion {
    if let Err(skipped) = slots() {
        return skipped;
    }
    let zones = kernel().zones();
    let block = zones.allocate_from(FrameRequest::ANY, 1, FrameOwner::Pages).expect("two frames");
    let (first, _) = block.leak();
    // The one reaches it, the other does not.
    let low = Device::new("a device of few lines");
    let last = zones.table().first().base().raw() + (64 << 20) - 1;
    assert_eq!(low.set_mask(DmaMask::new(u64::from(last))), Ok(()));
    let start = PhysAddr::new(first.base().raw() + 32);
    for device in [&DEVICE, &low] {
        let (name, flow, family) = ("a test", Flow::Bidirectional, Family::Page);
        let call = Call { name, device, flow, caller: NOBODY, family };
        // SAFETY: the frames are the test's, and nobody has them mapped.
        let map = |bytes| unsafe { streaming::map(call, Memory::Physical(start), bytes) };
        // SAFETY: mapped a moment before; there is no device.
        let unmap = |dma, bytes| assert_eq!(unsafe { streaming::unmap(call, dma, bytes) }, Ok(()));
        survives("dma_map_page, high memory", || map(64), |_, _| false, |dma| unmap(dma, 64));
        let books = (Books::now(), arch::lines::runs(), usage());
        for nth in (1..4).filter_map(NonZeroU32::new) {
            for afterwards in [Afterwards::Plenty, Afterwards::Nothing] {
                // Of two pages each.
                let (dma, outcome) = fail_nth(nth, afterwards, || map(PAGE_SIZE));
                assert_eq!(outcome.failed, (nth.get() < 3).then_some(Point::Slot));
                let dma = dma.expect("an address");
                let (synced, outcome) = fail_nth(nth, afterwards, || {
                    // SAFETY: mapped a moment before; there is no device.
                    unsafe { streaming::sync_for_cpu(call, dma, PAGE_SIZE) }?;
                    // SAFETY: as above.
                    unsafe { streaming::sync_for_device(call, dma, PAGE_SIZE) }
                });
                assert_eq!((synced, outcome.failed), (Ok(()), Some(Point::Slot)));
                let ((), outcome) = fail_nth(nth, afterwards, || unmap(dma, PAGE_SIZE));
                assert_eq!(outcome.failed, (nth.get() < 3).then_some(Point::Slot));
                books.0.assert_unchanged();
                assert_eq!((arch::lines::runs(), usage()), (books.1, books.2));
            }
        }
    }
    let freed = kernel().free_frames_at(authority(), first, 1, FrameOwner::Pages);
    assert_eq!(freed, Ok(()));
    Ran
}
