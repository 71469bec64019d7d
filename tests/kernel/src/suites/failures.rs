//! Nothing is lost when an allocation fails: each point of each operation at which something is taken is made to fail in turn
//! (S9, S18, S28, S29, S37, S44, S66).
//!
//! An operation is run with its first allocation failing, then with its second, and so on until none is left to fail; each time
//! once so that only this one fails, and once so that all behind it fail too. Whatever came of it, the ledgers must be as they
//! were and the audits must hold. A new operation is a test of a few lines: what it does, which error each point must give,
//! and what undoes it.

extern crate alloc;

use alloc::vec::Vec;
use core::fmt::Debug;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use arch::failure::{arm, disarm, fail_nth};
use dma::coherent::{AllocateError as DmaError, Buffer, allocate, free};
use dma::device::Device;
use kerncore::addr::{LARGE_PAGE_SIZE, PAGE_SIZE, Pfn, SECTION_SIZE};
use kerncore::area::{AreaFlags, AreaSummary, VmStruct};
use kerncore::attributes::Attributes;
use kerncore::coherent::{AllocationFlags, Sleep};
use kerncore::failure::{Afterwards, Outcome, Point};
use kerncore::frames::{self, Frame, FrameOwner};
use kerncore::kernel_space::{
    CoherentError, ExecError, Fill, FillAreaError, MapAreaError, NoArea, VmallocError, VmapError,
};
use kerncore::kmap::KmapError;
use kerncore::page_table::{MapError, ReserveError};
use kerncore::pool;
use kerncore::user::{PlaceError, Protection, ShowError, WindowError};
use kerncore::va_space::{self, Request};
use ktest::{Ledger, Snapshot, ktest};
use linux::areas;
use linux::page::pointer_to;
use mm::kernel;
use mm::user::{AddressSpace, SpaceError};
use mm::user_area::UserArea;

use super::failures_wider::no_array;
use super::interrupts::in_handler;
use super::user::{at, pages};
use super::witness::{NOBODY, authority, feed};
use crate::ledgers;

/// An operation has fewer points than that, or something is asked for ever.
const MOST: u32 = 1000;

static DEVICE: Device = Device::new("a device whose memory fails");
static SNOOPING: Device = Device::coherent("a snooping device whose memory fails");

/// What all layers have lent and taken, with nothing that lags behind.
pub(super) fn books() -> [Snapshot; ledgers::COUNT] {
    let all = ledgers::all();
    for ledger in all {
        ledger.settle();
    }
    all.map(Ledger::snapshot)
}

/// The ledgers are as they were, and every audit holds.
#[track_caller]
pub(super) fn assert_intact(
    before: &[Snapshot; ledgers::COUNT],
    when: &str,
    failed: Option<Point>,
    nth: u32,
) {
    for (before, after) in before.iter().zip(&books()) {
        before.compare(after, &mut |difference| {
            panic!("{when}, {failed:?} failing as number {nth}: {difference}");
        });
    }
    for ledger in ledgers::all() {
        ledger.audit(&mut |violation| {
            panic!("{when}, {failed:?} failing as number {nth}: {violation}");
        });
    }
}

/// Makes every allocation of `operation` fail in turn. An error must be the one that `is_right` of the point that failed; what
/// comes of a success, be it that the operation found another way, is ended by `undo`.
#[track_caller]
pub(super) fn survives<T, E: Debug>(
    name: &str,
    operation: impl Fn() -> Result<T, E>,
    is_right: impl Fn(Point, &E) -> bool,
    undo: impl Fn(T),
) {
    // What is made once and kept, such as tables, is there from now on.
    undo(operation().unwrap_or_else(|error| panic!("{name}: {error:?}")));
    for afterwards in [Afterwards::Plenty, Afterwards::Nothing] {
        let mut points = 0;
        for nth in (1..MOST).filter_map(NonZeroU32::new) {
            let before = books();
            let (result, Outcome { failed, .. }) = fail_nth(nth, afterwards, &operation);
            match (result, failed) {
                (Ok(made), _) => undo(made),
                (Err(error), Some(point)) => {
                    assert!(is_right(point, &error), "{name}: {point} failed: {error:?}");
                }
                (Err(error), None) => panic!("{name}: nothing failed, and yet: {error:?}"),
            }
            assert_intact(&before, name, failed, nth.get());
            if failed.is_none() {
                break;
            }
            points += 1;
        }
        assert!((1..MOST - 1).contains(&points), "{name}: {points} points");
        let rest = if afterwards == Afterwards::Nothing { ", with all behind them" } else { "" };
        log::info!("{name}: {points} of {points} points survived{rest}");
    }
}

/// As [`survives`], of a C symbol: null is an error without a reason.
#[track_caller]
pub(super) fn survives_by_name<T>(
    name: &str,
    operation: impl Fn() -> *mut T,
    undo: impl Fn(*mut T),
) {
    let operation = || Some(operation()).filter(|made| !made.is_null()).ok_or(());
    survives(name, operation, |_, ()| true, undo);
}

pub(super) const fn is_exhausted(error: &frames::AllocateError) -> bool {
    matches!(error, frames::AllocateError::Exhausted { .. })
}

pub(super) fn no_area(point: Point, error: &NoArea) -> bool {
    match error {
        NoArea::Record(error) => {
            matches!(point, Point::Record | Point::Frames) && is_exhausted(error)
        }
        NoArea::Addresses(error) => {
            point == Point::Addresses && matches!(error, va_space::ReserveError::NoSpace { .. })
        }
        NoArea::TooManyAreas { .. } | NoArea::Alias(_) => false,
    }
}

/// A table fails, or the frame that it is to be cut from.
pub(super) fn no_table(point: Point, error: &MapError) -> bool {
    let is_table = matches!(error, MapError::Table { reason: ReserveError::NoTable(_), .. });
    matches!(point, Point::Table | Point::Frames) && is_table
}

pub(super) fn no_vmalloc(point: Point, error: &VmallocError) -> bool {
    match error {
        VmallocError::Area(error) => no_area(point, error),
        VmallocError::Frames(error) => point == Point::Frames && is_exhausted(error),
        VmallocError::Zero(KmapError::Exhausted { .. }) => point == Point::Slot,
        VmallocError::Map(error) => no_table(point, error),
        VmallocError::PageArray(error) => no_array(point, error),
        _ => false,
    }
}

pub(super) fn no_coherent(point: Point, error: &CoherentError) -> bool {
    match error {
        CoherentError::Frames(error) => point == Point::Frames && is_exhausted(error),
        CoherentError::Contiguous(_) => point == Point::Frames,
        CoherentError::Area(error) => no_area(point, error),
        CoherentError::Linear(_) => point == Point::Linear,
        CoherentError::Map(error) => no_table(point, error),
    }
}

pub(super) fn no_place(point: Point, error: &PlaceError) -> bool {
    match error {
        PlaceError::Window(error) => {
            point == Point::Window && matches!(error, WindowError::Full { .. })
        }
        PlaceError::Frames(error) => point == Point::Frames && is_exhausted(error),
        PlaceError::Linear(_) => point == Point::Linear,
        PlaceError::Map(error) => no_table(point, error),
        PlaceError::TooLong { .. } => false,
    }
}

#[track_caller]
pub(super) fn vfree(area: AreaSummary) {
    assert_eq!(kernel().vfree(authority(), area.pages.start()), Ok(()));
}

#[track_caller]
fn vmalloc_survives(name: &str, bytes: u32, fill: Fill) {
    survives(name, || kernel().vmalloc(bytes, fill, NOBODY), no_vmalloc, vfree);
}

#[ktest]
fn vmalloc_of_a_page_and_of_some_s8_s9_s28_s29() {
    vmalloc_survives("vmalloc, 1 page", 1, Fill::Uninitialised);
    vmalloc_survives("vzalloc, 17 pages", 17 * PAGE_SIZE, Fill::Zeroed);
}

/// Over many second-level tables, each of which fails: what was mapped before it goes again.
#[ktest]
fn vmalloc_of_more_than_four_mebibytes_s19_s27_s29() {
    vmalloc_survives("vmalloc, 1025 pages", 1025 * PAGE_SIZE, Fill::Uninitialised);
}

#[ktest]
fn vmalloc_user_s31_s53() {
    let make = || kernel().vmalloc_user(3 * PAGE_SIZE, NOBODY);
    survives("vmalloc_user, 3 pages", make, no_vmalloc, vfree);
}

/// By a section, large pages and small ones.
#[ktest]
fn vmalloc_huge_s90() {
    let bytes = SECTION_SIZE + LARGE_PAGE_SIZE + 3 * PAGE_SIZE;
    let make = || kernel().vmalloc_huge(bytes, Fill::Uninitialised, NOBODY);
    survives("vmalloc_huge, 275 pages", make, no_vmalloc, vfree);
}

#[ktest]
fn vmap_s37() {
    let zones = kernel().zones();
    let list = zones.allocate_list(300, FrameOwner::Test).expect("memory");
    let frames: Vec<Pfn> = list.frames(zones.table()).collect();
    survives(
        "vmap, 300 pages",
        || kernel().vmap(&frames, Attributes::KERNEL_DATA, NOBODY),
        no_vmap,
        |area| assert_eq!(kernel().vunmap(authority(), area.pages.start()), Ok(())),
    );
    feed(list);
}

#[track_caller]
fn dma_survives(name: &str, device: &'static Device, bytes: u32, sleep: Sleep) {
    let is_right = |point, error: &DmaError| match error {
        DmaError::Remap(error) => no_coherent(point, error),
        DmaError::Simple(error) => point == Point::Frames && is_exhausted(error),
        DmaError::NoEntry { bytes: wanted } => point == Point::Heap && *wanted == bytes,
        DmaError::Pool(dma::atomic_pool::PoolError::Refused(error)) => {
            point == Point::Pool && matches!(error, pool::AllocateError::Exhausted { .. })
        }
        _ => false,
    };
    let give_back = |Buffer { address, dma }| {
        // SAFETY: nobody has a reference to it.
        let freed = unsafe { free(device, bytes, address, dma) };
        assert_eq!(freed, Ok(()));
    };
    survives(name, || allocate(device, bytes, sleep, NOBODY), is_right, give_back);
}

#[ktest]
fn coherent_memory_for_who_may_sleep_s66_s97() {
    dma_survives("dma_alloc_coherent, 5 pages", &DEVICE, 5 * PAGE_SIZE, Sleep::May);
    dma_survives("dma_alloc_coherent, 2 MiB", &DEVICE, 2 << 20, Sleep::May);
}

#[ktest]
fn coherent_memory_of_the_pool_s71_s77() {
    dma_survives("dma_alloc_coherent, atomic", &DEVICE, 3 * PAGE_SIZE, Sleep::MayNot);
}

#[ktest]
fn coherent_memory_of_a_device_that_snoops() {
    dma_survives("dma_alloc_coherent, snooping", &SNOOPING, 3 * PAGE_SIZE, Sleep::May);
}

pub(super) fn no_code(point: Point, error: &ExecError) -> bool {
    match error {
        ExecError::Area(error) => no_area(point, error),
        ExecError::PageArray(error) => no_array(point, error),
        ExecError::Frames(error) => point == Point::Frames && is_exhausted(error),
        ExecError::Linear(_) => point == Point::Linear,
        ExecError::Map(error) => no_table(point, error),
        ExecError::ZeroSize | ExecError::MoreThanMemory { .. } => false,
    }
}

#[ktest]
fn memory_for_code_s30_s112() {
    let make = || kernel().vmalloc_exec(3 * PAGE_SIZE, NOBODY);
    survives("vmalloc_exec, 3 pages", make, no_code, vfree);
    // To seal it takes nothing, so that nothing can be short.
    let made = make().expect("memory").pages;
    let seal = || kernel().seal(authority(), made.start(), made.count());
    let (sealed, outcome) = fail_nth(NonZeroU32::MIN, Afterwards::Nothing, seal);
    assert_eq!((sealed, outcome), (Ok(()), Outcome { asked: 0, failed: None }));
    assert_eq!(kernel().vfree(authority(), made.start()), Ok(()));
}

pub(super) fn no_vmap(point: Point, error: &VmapError) -> bool {
    match error {
        VmapError::Area(error) => no_area(point, error),
        VmapError::Map(error) => no_table(point, error),
        _ => false,
    }
}

/// S47: `alloc_vm_area` makes every table that its area can need, and fails when it cannot.
#[ktest]
fn bare_areas_s8_s9_s47() {
    // SAFETY: reserved a moment before; nothing is mapped there.
    let free = |area: *mut VmStruct| unsafe { areas::free_vm_area(area) };
    let get = || areas::get_vm_area(3 * PAGE_SIZE, 0).cast_mut();
    survives_by_name("get_vm_area, 3 pages", get, free);
    let alloc = || areas::alloc_vm_area(3 << 20).cast_mut();
    survives_by_name("alloc_vm_area, 3 MiB", alloc, free);
}

/// S19: what was mapped before the failure stays until the area's owner unmaps it.
#[ktest]
fn mappings_into_bare_areas_s19_s38() {
    let zones = kernel().zones();
    let list = zones.allocate_list(2, FrameOwner::Test).expect("memory");
    let frames: Vec<Pfn> = list.frames(zones.table()).collect();
    let area = areas::get_vm_area(2 * PAGE_SIZE, 0);
    // SAFETY: nobody uses what is mapped there.
    let unmap = || unsafe { areas::unmap_vm_area(area) };
    // SAFETY: the descriptor of a live area.
    let base = unsafe { (*area).addr() };
    let table = *zones.table();
    survives(
        "map_vm_area, 2 pages",
        || {
            let frames = frames.iter().map(|&frame| Some(table.belonging(frame)));
            kernel().map_area(base, frames, Attributes::KERNEL_DATA).inspect_err(|_| unmap())
        },
        |point, error| match error {
            MapAreaError::Map { reason, .. } => no_vmap(point, reason),
            MapAreaError::Change(_) => false,
        },
        |_| unmap(),
    );
    // SAFETY: nothing is mapped there any more.
    unsafe { areas::free_vm_area(area) };
    feed(list);
}

/// S85a: when there is no memory for it, the area is consumed.
#[ktest]
fn memory_at_reserved_addresses_s28_s85a() {
    let request = Request::of_bytes(5 * PAGE_SIZE);
    survives(
        "__vmalloc_area, 5 pages",
        || {
            let reserved = kernel().reserve_area(request, AreaFlags::NONE, NOBODY);
            let base = reserved.map_err(|error| (Some(error), None))?.area.pages.start();
            kernel().fill_area(base, Fill::Zeroed).map_err(|error| (None, Some(error)))
        },
        |point, error| match error {
            (Some(error), _) => no_area(point, error),
            (None, Some(FillAreaError::Consumed(error))) => no_vmalloc(point, error),
            (None, _) => false,
        },
        vfree,
    );
}

/// Of a block of this CPU, which is made anew each time, and of an area of its own.
#[ktest]
fn short_lived_mappings_s87() {
    let zones = kernel().zones();
    let list = zones.allocate_list(80, FrameOwner::Test).expect("memory");
    let records: Vec<*const Frame> = list.frames(zones.table()).map(pointer_to).collect();
    for (name, count) in [("vm_map_ram, 16 pages", 16), ("vm_map_ram, 80 pages", 80)] {
        let map = || kernel().map_ram(&records[..count], NOBODY);
        let pages = u32::try_from(count).expect("few");
        // Who gets no block tries an area of its own, which may fail by the next point.
        let points = [Point::Record, Point::Addresses, Point::Frames, Point::Table];
        let is_right = |_, error: &VmapError| points.iter().any(|&point| no_vmap(point, error));
        survives(name, map, is_right, |address| {
            let pointer = core::ptr::with_exposed_provenance(address.raw() as usize);
            // SAFETY: nobody uses the mapping.
            unsafe { linux::map_ram::vm_unmap_ram(pointer, pages) };
        });
    }
    feed(list);
}

/// S86: small objects come from elsewhere when the heap has none.
#[ktest]
fn objects_of_any_size_s86() {
    for (name, bytes) in [("kvmalloc(100)", 100), ("kvmalloc(3 pages)", 3 * PAGE_SIZE)] {
        survives_by_name(
            name,
            || linux::objects::kvmalloc(bytes, AllocationFlags::KERNEL),
            // SAFETY: made a moment before, and nobody has a reference.
            |object| unsafe { linux::objects::kvfree(object) },
        );
    }
}

const DATA: u32 = 0x0010_0000 - PAGE_SIZE;

/// A window over two second-level tables.
#[ktest]
fn windows_of_programs() {
    let space = AddressSpace::new().expect("memory");
    let window = pages(DATA, 2);
    let undo = |()| assert_eq!(space.unmap(at(DATA)), Ok(()));
    let data = || space.map_data(window, Protection::ReadWrite);
    survives("a program's data, 2 pages", data, no_place, undo);
    let text = || space.map_text(window, &[0; 8]);
    survives("a program's text, 2 pages", text, no_place, undo);
}

/// The first thing that is taken is the first-level table.
#[ktest]
fn an_address_space_without_a_table() {
    let before = books();
    let (space, outcome) = fail_nth(NonZeroU32::MIN, Afterwards::Nothing, AddressSpace::new);
    assert_eq!(outcome.failed, Some(Point::Frames));
    assert!(matches!(space, Err(SpaceError::Frames(error)) if is_exhausted(&error)));
    assert_intact(&before, "an address space", outcome.failed, 1);
}

/// What was mapped before the failure stays until the window's owner ends it (S45); then everything is back.
#[ktest]
fn memory_shown_to_programs_s44_s45_s46() {
    let area = UserArea::new(3 * PAGE_SIZE).expect("memory");
    let space = AddressSpace::new().expect("memory");
    survives(
        "remap_vmalloc_range, 2 pages",
        || {
            space
                .reserve(pages(DATA, 2), Protection::ReadOnly)
                .map_err(|error| (Some(error), None))?;
            area.show(&space, at(DATA), 1).map_err(|error| {
                assert_eq!(space.unmap(at(DATA)), Ok(()), "its owner ends it");
                (None, Some(error))
            })
        },
        |point, error| match error {
            (Some(place), _) => no_place(point, place),
            (None, Some(ShowError::Map(error))) => no_table(point, error),
            (None, _) => false,
        },
        |()| assert_eq!(space.unmap(at(DATA)), Ok(())),
    );
}

/// A request that says what went wrong; what the language allocates on its own ends the kernel instead.
#[ktest]
fn bytes_of_the_heap() {
    let reserve = || {
        let mut bytes = Vec::<u8>::new();
        bytes.try_reserve_exact(100).map(|()| bytes)
    };
    survives("Vec::try_reserve_exact", reserve, |point, _| point == Point::Heap, drop);
}

#[ktest]
fn c_callers_get_null_s8_s28_s37_s53() {
    // SAFETY: made a moment before, and nobody has a reference.
    let free = |address: *mut _| unsafe { linux::free::vfree(address) };
    survives_by_name("vmalloc(8 KiB)", || linux::vmalloc::vmalloc(8192), free);
    survives_by_name("vzalloc(8 KiB)", || linux::vmalloc::vzalloc(8192), free);
    survives_by_name("vmalloc_user(8 KiB)", || linux::vmalloc::vmalloc_user(8192), free);
    let order = 1;
    survives_by_name(
        "alloc_pages(1)",
        || linux::page::alloc_pages(AllocationFlags::KERNEL, order).cast_mut(),
        // SAFETY: as above.
        |page| unsafe { linux::page::__free_pages(page, order) },
    );
}

fn take_a_frame() -> bool {
    let taken = kernel().zones().allocate(0, FrameOwner::Test);
    taken.map(|block| kernel().zones().free(block)) == Ok(Ok(()))
}

/// The nth is the same one in every run, whatever interrupts and the other CPUs do.
#[ktest]
fn what_handlers_and_other_cpus_take_is_not_counted() {
    static MISSED: AtomicU32 = AtomicU32::new(0);
    let taken_by_others = || {
        let missed = u32::from(!(0..10).all(|_| take_a_frame()));
        MISSED.fetch_add(missed, Relaxed);
    };
    MISSED.store(0, Relaxed);
    let here = arch::cpu::id();
    arm(NonZeroU32::MIN, Afterwards::Nothing);
    arch::smp::run_on_each(|number| {
        if number != here {
            taken_by_others();
        }
    });
    in_handler(|| _ = MISSED.fetch_add(u32::from(!take_a_frame()), Relaxed));
    let taken = take_a_frame();
    assert_eq!(disarm(), Outcome { asked: 1, failed: Some(Point::Frames) });
    assert_eq!((MISSED.load(Relaxed), taken), (0, false));
}
