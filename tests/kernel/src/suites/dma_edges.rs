//! What lies between the suites of coherent memory: short ways that must refuse what the long ones do, parts of the pool that grew,
//! callers, pages that are gone (S65, S74, S75, S83, S99, S102, S104).

extern crate alloc;

use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr;

use board::vexpress_a9::VRAM;
use dma::atomic_pool;
use dma::attributes;
use dma::coherent::{self, Buffer, CoherentBox, allocate};
use dma::device::Device;
use dma::pool_growth::{grow, grown, release_idle};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, VirtAddr};
use kerncore::coherent::Sleep;
use kerncore::dma_attributes::DmaAttributes;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::dma::dma_free_coherent;
use linux::dma_sgtable::dma_get_sgtable_attrs;
use linux::errno::{EINVAL, ENXIO};
use linux::user::dma_mmap_attrs;
use mm::kernel;
use mm::report::Called;

use super::buffers::{NO_POOL, give, pool_pages};
use super::user_programs as code;
use super::user_sharing::{waiting, window};
use super::witness::{Books, NOBODY, overwrite, plus};

static DEVICE: Device = Device::new("a device at the edge");

const HIDDEN: DmaAttributes = DmaAttributes::NO_KERNEL_MAPPING;

/// By the C name a free of the pool's buffers is short: it refuses what the long one does, which then says why.
#[ktest]
fn a_wrong_free_to_the_pool_by_its_c_name_is_told_and_changes_nothing_s74_s75() -> Completion {
    if pool_pages().is_none() {
        return NO_POOL;
    }
    let buffer = allocate(&DEVICE, 2 * PAGE_SIZE, Sleep::MayNot, NOBODY).expect("pages");
    let with = |address, dma| (plus(buffer.address, address), DmaAddr::new(buffer.dma.raw() + dma));
    let aligned = "does not begin a page";
    let end = atomic_pool::usage().map_or(0, |pool| pool.pages * PAGE_SIZE);
    let wrong = [
        (with(4, 0), 2 * PAGE_SIZE, "is the device's"),
        (with(4, 4), 2 * PAGE_SIZE, aligned),
        (with(2048, 2048), PAGE_SIZE, aligned),
        (with(0, PAGE_SIZE), 2 * PAGE_SIZE, "is the device's"),
        (with(0, 4), 2 * PAGE_SIZE, "is the device's"),
        (with(0, 0), PAGE_SIZE, "has 2 pages, was freed with 1"),
        (with(PAGE_SIZE, PAGE_SIZE), PAGE_SIZE, "lies inside the run of 2 pages"),
        (with(2 * PAGE_SIZE, 2 * PAGE_SIZE), PAGE_SIZE, "is not allocated"),
        (with(end, end), PAGE_SIZE, "trying to free invalid coherent area"),
    ];
    let before = (Books::now(), atomic_pool::usage());
    for ((address, dma), bytes, said) in wrong {
        let memory: *const c_void = ptr::with_exposed_provenance(address.raw() as usize);
        // SAFETY: to be refused.
        let free = || unsafe { dma_free_coherent(&raw const DEVICE, bytes, memory, dma) };
        let ((), log) = capture_log(free);
        let told = (log.text().matches("Backtrace:").count(), log.text().contains(said));
        assert_eq!(told, (1, true), "{bytes} bytes at {address}: {log:?}");
        assert_eq!(atomic_pool::usage(), before.1, "{bytes} bytes at {address}: {log:?}");
    }
    before.0.assert_unchanged();
    give(&DEVICE, 2 * PAGE_SIZE, buffer);
    Ran
}

/// S75, S99, S104: what a part that grew has given is the pool's, too, whoever asks.
#[ktest]
fn buffers_of_a_part_that_grew_keep_their_addresses_and_go_back_there_s99_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    let books = Books::now();
    if grow().is_err() {
        return Skipped("no memory for another part");
    }
    let take = || allocate(&DEVICE, PAGE_SIZE, Sleep::MayNot, NOBODY).expect("pages");
    let boot: Vec<Buffer> = (0..pages).map(|_| take()).collect();
    let given = attributes::allocate(&DEVICE, PAGE_SIZE, Sleep::MayNot, HIDDEN, NOBODY);
    let given = given.expect("pages of the other part");
    assert_eq!(grown().1, 1);
    assert_eq!(attributes::revealed(&DEVICE, given, HIDDEN), Some(given));
    // SAFETY: the test's own, without a reference.
    assert_eq!(unsafe { attributes::free(&DEVICE, PAGE_SIZE, given, HIDDEN) }, Ok(()));
    assert_eq!(grown().1, 0);
    for buffer in boot {
        give(&DEVICE, PAGE_SIZE, buffer);
    }
    assert_ne!(release_idle(), 0);
    books.assert_unchanged();
    Ran
}

/// S83, S104: also who is not served by the short way is named when there is no room.
#[ktest]
fn who_holds_the_pool_by_the_long_way_is_named_s83_s104() -> Completion {
    let Some(pages) = pool_pages() else { return NO_POOL };
    // Somebody with a name.
    let caller = (ask_for_nothing as fn() as *const ()).addr();
    let caller = VirtAddr::new(u32::try_from(caller).expect("32 bits"));
    let take = || allocate(&DEVICE, PAGE_SIZE, Sleep::MayNot, caller);
    let buffers: Vec<Buffer> = (0..pages).filter_map(|_| take().ok()).collect();
    // Repetitions are printed ever more seldom; one of many is.
    let said = (0..20_000).find_map(|_| {
        let (refused, log) = capture_log(take);
        assert!(refused.is_err(), "there was room: this test has no teeth");
        (!log.text().is_empty()).then_some(log)
    });
    let line = alloc::format!(
        "{pages} of its pages, in {} buffers, are of {}",
        buffers.len(),
        Called(caller)
    );
    let said = said.expect("a message");
    assert_eq!(said.text().matches(line.as_str()).count(), 1, "{said:?}");
    assert!(!line.contains("of 0x"), "{line}");
    for buffer in buffers {
        give(&DEVICE, PAGE_SIZE, buffer);
    }
    Ran
}

#[inline(never)]
fn ask_for_nothing() {
    core::hint::black_box(());
}

/// S99, S102: memory of a device's own has no cookie; its address goes back by the same attributes.
#[ktest]
fn buffers_in_a_device_s_own_memory_keep_their_addresses_s99_s102() {
    let device = Device::new("a device with memory");
    let place = (VRAM.base, DmaAddr::new(0x0010_0000));
    assert_eq!(device.declare_memory(place, 8 * PAGE_SIZE, NOBODY), Ok(()));
    for sleep in [Sleep::May, Sleep::MayNot] {
        let given = attributes::allocate(&device, 2 * PAGE_SIZE, sleep, HIDDEN, NOBODY);
        let given = given.expect("room");
        assert_eq!(
            kernel().find_containing(given.address).map(|area| area.physical),
            Some(VRAM.base)
        );
        assert_eq!(attributes::revealed(&device, given, HIDDEN), Some(given));
        // It has no frames, and so no list.
        assert_eq!(coherent::first_frame(&device, given, PAGE_SIZE), None);
        // SAFETY: the test's own, without a reference.
        assert_eq!(unsafe { attributes::free(&device, 2 * PAGE_SIZE, given, HIDDEN) }, Ok(()));
    }
    // SAFETY: nobody but the test has the device.
    assert_eq!(unsafe { device.release_memory() }, Ok(()));
}

/// S99: a cookie stands for its buffer together with the device's address, for every call that knows cookies.
#[ktest]
fn a_cookie_with_another_handle_or_unknown_attributes_leads_nowhere_s99() {
    let given = attributes::allocate(&DEVICE, 2 * PAGE_SIZE, Sleep::May, HIDDEN, NOBODY);
    let given = given.expect("memory");
    let cookie: *const c_void = ptr::with_exposed_provenance(given.address.raw() as usize);
    let wrong = DmaAddr::new(given.dma.raw() + PAGE_SIZE);
    assert_eq!(attributes::revealed(&DEVICE, Buffer { dma: wrong, ..given }, HIDDEN), None);
    let dev = &raw const DEVICE;
    let mut table = dma::scatter::ScatterTable::NONE;
    let mut list = |dma, attrs| {
        // SAFETY: a device, and a place for a table.
        unsafe { dma_get_sgtable_attrs(dev, &raw mut table, cookie, dma, PAGE_SIZE, attrs) }
    };
    let unknown = HIDDEN.bits() | 1;
    assert_eq!([list(wrong, HIDDEN.bits()), list(given.dma, 0)], [-ENXIO; 2]);
    assert_eq!(list(given.dma, unknown), -EINVAL);
    let space = waiting(code::exits(), 1);
    let mut vma = window(&space, 1, 0);
    let mut show = |dma, attrs| {
        // SAFETY: a device, and a window whose space lives.
        unsafe { dma_mmap_attrs(dev, &raw mut vma, cookie, dma, 2 * PAGE_SIZE, attrs) }
    };
    assert_eq!(show(wrong, HIDDEN.bits()), -ENXIO);
    assert_eq!(show(given.dma, unknown), -EINVAL);
    assert_eq!(show(given.dma, HIDDEN.bits()), 0);
    drop(space);
    // SAFETY: the test's own, without a reference.
    assert_eq!(unsafe { attributes::free(&DEVICE, 2 * PAGE_SIZE, given, HIDDEN) }, Ok(()));
}

/// S65: a page that somebody has unmapped in the middle is told when the buffer is freed.
#[ktest]
fn a_page_found_missing_at_free_is_told_s65() {
    let books = Books::now();
    let buffer = allocate(&DEVICE, 3 * PAGE_SIZE, Sleep::May, NOBODY).expect("memory");
    let _was = overwrite(plus(buffer.address, PAGE_SIZE), 0);
    let ((), log) = capture_log(|| give(&DEVICE, 3 * PAGE_SIZE, buffer));
    let line = alloc::format!("1 pages of the buffer at {} were not mapped", buffer.address);
    assert_eq!(log.text().matches(line.as_str()).count(), 1, "{log:?}");
    books.assert_unchanged();
}

/// Who asks is who called, whatever owner or way is between (S83).
#[ktest]
fn a_buffer_s_area_knows_who_asked_for_it_s83() {
    let buffer = CoherentBox::new(&DEVICE, 2 * PAGE_SIZE).expect("memory");
    let caller = kernel().find(buffer.address()).expect("an area").caller;
    let name = alloc::format!("{}", Called(caller));
    assert!(caller != VirtAddr::new(0) && !name.contains("CoherentBox"), "{name}");
    assert!(name.contains("kernel_tests") || name.contains("call_once"), "{name}");
}
