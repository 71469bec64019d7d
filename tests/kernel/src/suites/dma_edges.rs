//! What lies between the suites of coherent memory: short ways that must refuse what the long ones do, parts of the pool that grew,
//! callers, pages that are gone (S65, S74, S75, S83, S99, S102, S104).

extern crate alloc;

use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr;

use board::vexpress_a9::VRAM;
use dma::atomic_pool;
use dma::attributes;
use dma::coherent::{Buffer, CoherentBox, allocate, first_frame};
use dma::device::Device;
use dma::pool_growth::{grow, grown, release_idle};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::coherent::{AllocationFlags, Sleep};
use kerncore::dma_attributes::DmaAttributes;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::dma::{dma_alloc_coherent, dma_free_coherent};
use linux::dma_attrs::{dma_alloc_attrs, dma_free_attrs};
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
static SNOOPING: Device = Device::coherent("a snooping device at the edge");

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
        assert_eq!(first_frame(&device, given, PAGE_SIZE), None);
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

/// S99: of the pool a buffer has frames from its start to its end, as long as it is one; a device that snoops has them where it sees
/// them.
#[ktest]
fn frames_are_those_of_one_buffer_that_is_there_s99() -> Completion {
    if pool_pages().is_none() {
        return NO_POOL;
    }
    let frame = |dma: DmaAddr| Some(PhysAddr::new(dma.raw()).pfn());
    let bytes = 2 * PAGE_SIZE;
    let buffer = allocate(&DEVICE, bytes, Sleep::MayNot, NOBODY).expect("room");
    let dma = DmaAddr::new(buffer.dma.raw() + PAGE_SIZE);
    let inside = Buffer { address: plus(buffer.address, PAGE_SIZE), dma };
    assert_eq!(first_frame(&DEVICE, buffer, bytes), frame(buffer.dma));
    assert_eq!(first_frame(&DEVICE, buffer, bytes + 1), None, "more than it has");
    assert_eq!(first_frame(&DEVICE, inside, PAGE_SIZE), None, "from its second page on");
    give(&DEVICE, bytes, buffer);
    assert_eq!(first_frame(&DEVICE, buffer, PAGE_SIZE), None, "it was given back");
    let take = || allocate(&SNOOPING, PAGE_SIZE, Sleep::May, NOBODY).expect("memory");
    let (one, other) = (take(), take());
    assert_eq!(first_frame(&SNOOPING, one, PAGE_SIZE), frame(one.dma));
    let elsewhere = Buffer { dma: other.dma, ..one };
    assert_eq!(first_frame(&SNOOPING, elsewhere, PAGE_SIZE), None);
    give(&SNOOPING, PAGE_SIZE, one);
    give(&SNOOPING, PAGE_SIZE, other);
    Ran
}

/// S67, S99: what is given back with attributes that mean nothing stays.
#[ktest]
fn a_free_with_attributes_that_mean_nothing_is_told_and_changes_nothing_s67_s99() {
    let device = &raw const DEVICE;
    let mut dma = DmaAddr::new(0);
    // SAFETY: a device, and a place for an address.
    let memory =
        unsafe { dma_alloc_attrs(device, PAGE_SIZE, &raw mut dma, AllocationFlags::KERNEL, 0) };
    assert!(!memory.is_null(), "no memory");
    let free = |bits| {
        // SAFETY: no reference to the memory was ever made.
        capture_log(|| unsafe { dma_free_attrs(device, PAGE_SIZE, memory, dma, bits) }).1
    };
    let books = Books::now();
    let log = free(1 << 31);
    assert!(log.text().contains("dma_free_attrs: "), "{log:?}");
    books.assert_unchanged();
    let log = free(0);
    assert!(log.text().is_empty(), "it was there: {log:?}");
}

/// S71, S99: a refusal is told, by both names, now and then; to whom flags say that he wants no words there are none.
#[ktest]
fn refusals_by_c_names_have_words_unless_flags_say_otherwise_s71_s99() {
    let mut dma = DmaAddr::new(0);
    let place = &raw mut dma;
    let ask = |device: *const Device, flags| {
        let (memory, log) = capture_log(|| {
            // SAFETY: a device or null, and a place for an address.
            unsafe { dma_alloc_attrs(device, u32::MAX, place, flags, 0) }
        });
        assert!(memory.is_null(), "more than there is");
        !log.text().is_empty()
    };
    let device = &raw const DEVICE;
    // Repetitions are printed when there were twice as many: after the second, twice as many as lay between.
    let until_told =
        || (1..20_000).find(|_| ask(device, AllocationFlags::KERNEL)).expect("a message");
    let _first = until_told();
    let between = until_told();
    let quiet = AllocationFlags(AllocationFlags::KERNEL.0 | AllocationFlags::NO_WARNING);
    let words = (0..=2 * between).filter(|_| ask(device, quiet)).count();
    assert_eq!(words, 0);
    let told = (0..40_000).any(|_| {
        let (memory, log) = capture_log(|| {
            // SAFETY: refused.
            unsafe { dma_alloc_coherent(ptr::null(), 1, place, AllocationFlags::KERNEL) }
        });
        assert!(memory.is_null(), "for nobody");
        log.text().contains("dma_alloc_coherent: no device given")
    });
    assert!(told, "nobody was told");
}
