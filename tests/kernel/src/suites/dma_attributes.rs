//! Coherent buffers with attributes: cookies in the place of addresses, and what programs see by them (S78, S99).

extern crate alloc;

use core::ffi::c_void;
use core::ptr;

use dma::atomic_pool;
use dma::attributes::{allocate, free, revealed};
use dma::coherent::{self, Buffer, FreeError, first_frame};
use dma::device::Device;
use dma::scatter::{Link, ScatterError, ScatterTable};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::attributes::MemoryType;
use kerncore::coherent::{AllocationFlags, Sleep};
use kerncore::dma_attributes::DmaAttributes;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::dma_attrs::{dma_alloc_attrs, dma_alloc_wc, dma_free_attrs, dma_free_wc};
use linux::dma_sgtable::{dma_get_sgtable, sg_free_table};
use linux::errno::{EINVAL, ENXIO};
use linux::user::{dma_mmap_attrs, dma_mmap_coherent, dma_mmap_wc};
use mm::kernel;

use super::user::at;
use super::user_programs as code;
use super::user_sharing::{WINDOW, waiting, window};
use super::witness::{Books, NOBODY, ask_host, each_page, frame_at, plus, word_at};

static DEVICE: Device = Device::new("a test's device");
static SNOOPING: Device = Device::coherent("a test's snooping device");

const HIDDEN: DmaAttributes = DmaAttributes::NO_KERNEL_MAPPING;

#[track_caller]
fn hidden(bytes: u32) -> Buffer {
    allocate(&DEVICE, bytes, Sleep::May, HIDDEN, NOBODY).expect("memory")
}

fn try_free(bytes: u32, given: Buffer, attributes: DmaAttributes) -> Result<(), FreeError> {
    // SAFETY: no test here has a reference to memory that it gives back; what is no buffer is to be refused.
    unsafe { free(&DEVICE, bytes, given, attributes) }
}

/// S99: what comes back leads to no buffer, and back to the buffer by the call that knows cookies.
#[ktest]
fn a_buffer_without_a_mapping_is_a_cookie_that_only_its_own_free_knows_s99() {
    let books = Books::now();
    let bytes = 3 * PAGE_SIZE;
    let given = hidden(bytes);
    let frame = PhysAddr::new(given.dma.raw()).pfn();
    assert_eq!(given.address.raw(), kernel().zones().table().pointer_to(frame));
    let behind = revealed(&DEVICE, given, HIDDEN).expect("its own cookie");
    assert_ne!(behind.address, given.address);
    ask_host(behind.address);
    assert!((0..bytes).step_by(4).all(|at| word_at(plus(behind.address, at)) == 0), "S85");
    // Neither by the plain way, nor by another cookie, nor with another handle, nor by the address behind it.
    let refused = |given: Buffer, attributes| {
        let (freed, log) = capture_log(|| try_free(bytes, given, attributes));
        assert!(log.text().contains("Backtrace:"), "{log:?}");
        freed.expect_err("the free was accepted")
    };
    let plain = refused(given, DmaAttributes::NONE);
    assert!(matches!(plain, FreeError::Invalid(_)), "{plain:?}");
    let address = VirtAddr::new(given.address.raw() + 16);
    for wrong in [
        Buffer { address, ..given },
        Buffer { dma: DmaAddr::new(given.dma.raw() + PAGE_SIZE), ..given },
        behind,
    ] {
        let error = FreeError::Cookie { given: wrong.address, dma: wrong.dma };
        assert_eq!(refused(wrong, HIDDEN), error);
    }
    let by_address = FreeError::Hidden { given: behind.address, cookie: given.address };
    assert_eq!(refused(behind, DmaAttributes::NONE), by_address);
    assert_eq!(revealed(&DEVICE, given, HIDDEN), Some(behind), "nothing has changed");
    assert_eq!(try_free(bytes, given, HIDDEN), Ok(()));
    assert_eq!(refused(given, HIDDEN), FreeError::Cookie { given: given.address, dma: given.dma });
    books.assert_unchanged();
}

/// Two at once, given back in the order of taking and in the other.
#[ktest]
fn each_cookie_leads_to_its_own_buffer_s99() {
    let books = Books::now();
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let given = [1, 2, 5].map(|pages| (pages * PAGE_SIZE, hidden(pages * PAGE_SIZE)));
        for (bytes, given) in given {
            let behind = revealed(&DEVICE, given, HIDDEN).expect("its own cookie");
            assert_eq!(first_frame(&DEVICE, behind, bytes), Some(frame_at(behind.address)));
            assert_eq!(frame_at(behind.address).base().raw(), given.dma.raw());
        }
        for index in order {
            let (bytes, given) = given[index];
            assert_eq!(try_free(bytes, given, HIDDEN), Ok(()));
        }
        books.assert_unchanged();
    }
}

/// What is mapped whoever has it needs no cookie: an address is as good.
#[ktest]
fn the_pool_s_buffers_and_those_of_snooping_devices_keep_their_addresses_s99() -> Completion {
    let books = Books::now();
    let given = allocate(&SNOOPING, PAGE_SIZE, Sleep::May, HIDDEN, NOBODY).expect("memory");
    assert_eq!(frame_at(given.address).base().raw(), given.dma.raw());
    // SAFETY: the test's own, without a reference.
    assert_eq!(unsafe { free(&SNOOPING, PAGE_SIZE, given, HIDDEN) }, Ok(()));
    if atomic_pool::usage().is_none() {
        return Skipped("no atomic pool in this boot");
    }
    let given = allocate(&DEVICE, PAGE_SIZE, Sleep::MayNot, HIDDEN, NOBODY).expect("pages");
    assert_eq!(frame_at(given.address).base().raw(), given.dma.raw());
    assert_eq!(try_free(PAGE_SIZE, given, HIDDEN), Ok(()));
    books.assert_unchanged();
    Ran
}

#[expect(clippy::cast_possible_truncation, reason = "pointers have 32 bits")]
fn address<T>(pointer: *const T) -> VirtAddr {
    VirtAddr::new(pointer.addr() as u32)
}

/// By C's names: zeroed, with all attributes that mean nothing more, without a word where none is wanted.
#[ktest]
fn attributes_by_their_linux_names_s99() {
    let books = Books::now();
    let (dev, kernel_flags) = (&raw const DEVICE, AllocationFlags::KERNEL);
    let mut dma = DmaAddr::new(0);
    let all = DmaAttributes::WRITE_COMBINE
        .with(DmaAttributes::FORCE_CONTIGUOUS)
        .with(DmaAttributes::SKIP_CPU_SYNC)
        .with(DmaAttributes::NO_WARN);
    // SAFETY: a device, and a place for an address.
    let memory = unsafe { dma_alloc_attrs(dev, 5000, &raw mut dma, kernel_flags, all.bits()) };
    assert_eq!(frame_at(address(memory)).base().raw(), dma.raw());
    assert!((0..2 * PAGE_SIZE).step_by(4).all(|at| word_at(plus(address(memory), at)) == 0));
    // SAFETY: the test's own, without a reference.
    unsafe { dma_free_attrs(dev, 5000, memory, dma, all.bits()) };
    // SAFETY: a device, and a place for an address.
    let memory = unsafe { dma_alloc_wc(dev, 1, &raw mut dma, kernel_flags) };
    let entry = kernel().table().translate(address(memory)).expect("mapped");
    let attributes = entry.attributes().expect("as ours are");
    assert_eq!(attributes.memory(), MemoryType::NormalNonCacheable, "writes are combined");
    // SAFETY: the test's own, without a reference.
    unsafe { dma_free_wc(dev, 1, memory, dma) };
    for (attributes, told) in [(DmaAttributes::NONE, true), (all, false)] {
        let (memory, log) = capture_log(|| {
            // SAFETY: a device, and a place for an address.
            unsafe { dma_alloc_attrs(dev, 0, &raw mut dma, kernel_flags, attributes.bits()) }
        });
        assert!(memory.is_null());
        assert!(told || log.text().is_empty(), "{log:?}");
    }
    books.assert_unchanged();
}

/// S78: the same window by each name, and by a cookie; what does not fit is refused by each.
#[ktest]
fn windows_show_what_a_cookie_stands_for_s78_s99() {
    let books = Books::now();
    let bytes = 3 * PAGE_SIZE;
    let given = hidden(bytes);
    let behind = revealed(&DEVICE, given, HIDDEN).expect("its own cookie");
    let cookie: *const c_void = ptr::with_exposed_provenance(given.address.raw() as usize);
    let dev = &raw const DEVICE;
    let space = waiting(code::exits(), 2);
    let mut vma = window(&space, 2, 1);
    // SAFETY: a device, and a window whose space lives.
    let map =
        |vma: &mut _, attrs| unsafe { dma_mmap_attrs(dev, vma, cookie, given.dma, bytes, attrs) };
    assert_eq!(map(&mut vma, 0), -ENXIO, "a cookie is no address");
    assert_eq!(map(&mut vma, 1), -EINVAL, "no such attribute");
    for (count, offset) in [(2, 2), (2, 3), (2, u32::MAX)] {
        assert_eq!(map(&mut window(&space, count, offset), HIDDEN.bits()), -ENXIO);
    }
    // SAFETY: as above.
    assert_eq!(unsafe { dma_mmap_coherent(dev, &raw mut vma, cookie, given.dma, bytes) }, -ENXIO);
    assert_eq!(map(&mut vma, HIDDEN.bits()), 0);
    let word = 0x1122_3344_u32;
    space.copy_to(at(WINDOW + PAGE_SIZE), &word.to_le_bytes()).expect("its own");
    assert_eq!(word_at(plus(behind.address, 2 * PAGE_SIZE)), word);
    let (freed, _log) = capture_log(|| try_free(bytes, given, HIDDEN));
    assert!(freed.is_err(), "S46: a program sees it");
    drop(space);
    assert_eq!(try_free(bytes, given, HIDDEN), Ok(()));

    let plain = allocate(&DEVICE, bytes, Sleep::May, DmaAttributes::NONE, NOBODY).expect("memory");
    let memory: *const c_void = ptr::with_exposed_provenance(plain.address.raw() as usize);
    let space = waiting(code::exits(), 3);
    let mut vma = window(&space, 3, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { dma_mmap_wc(dev, &raw mut vma, memory, plain.dma, bytes) }, 0);
    drop(space);
    assert_eq!(try_free(bytes, plain, DmaAttributes::NONE), Ok(()));
    books.assert_unchanged();
}

/// S99: the list of a buffer is its frames, once, and of nothing else is there a list.
#[ktest]
fn the_list_of_a_buffer_is_its_pages_s99() {
    let books = Books::now();
    let bytes = 3 * PAGE_SIZE;
    let buffer = coherent::allocate(&DEVICE, bytes, Sleep::May, NOBODY).expect("memory");
    let memory: *const c_void = ptr::with_exposed_provenance(buffer.address.raw() as usize);
    let mut table = ScatterTable::NONE;
    let mut list = |dma, size| {
        // SAFETY: a device, and a place for a table.
        unsafe { dma_get_sgtable(&raw const DEVICE, &raw mut table, memory, dma, size) }
    };
    for size in [bytes + 1, u32::MAX] {
        assert_eq!(list(buffer.dma, size), -ENXIO, "{size}");
    }
    assert_eq!(list(DmaAddr::new(buffer.dma.raw() + PAGE_SIZE), bytes), -ENXIO);
    assert_eq!(list(buffer.dma, 0), -EINVAL);
    assert_eq!(list(buffer.dma, bytes - 1), 0);
    // SAFETY: the list has one entry.
    let entry = unsafe { *table.sgl };
    let page = kernel().zones().table().pointer_to(frame_at(buffer.address));
    assert_eq!((entry.link(), entry.length, entry.offset), (Link::Page(page), bytes, 0));
    assert!(entry.is_last() && (table.nents, table.orig_nents) == (1, 1));
    // SAFETY: the list was made above.
    unsafe { sg_free_table(&raw mut table) };
    assert!(table.sgl.is_null());
    assert_eq!(try_free(bytes, buffer, DmaAttributes::NONE), Ok(()));
    assert_eq!(first_frame(&DEVICE, buffer, bytes), None, "it is gone");
    assert_eq!(ScatterTable::new(0).expect_err("no entries"), ScatterError::Empty);
    books.assert_unchanged();
}

/// Every page of a buffer of the pool, too, and no page of two buffers.
#[ktest]
fn the_first_frame_of_a_buffer_of_the_pool_is_its_own_s99() -> Completion {
    if atomic_pool::usage().is_none_or(|pool| pool.pages < 4) {
        return Skipped("no atomic pool of 4 pages in this boot");
    }
    let buffer = coherent::allocate(&DEVICE, 2 * PAGE_SIZE, Sleep::MayNot, NOBODY).expect("pages");
    let pages = kernel().find_containing(buffer.address).expect("the pool's area").pages;
    assert!(each_page(pages).any(|page| page == buffer.address));
    let frame = first_frame(&DEVICE, buffer, 2 * PAGE_SIZE);
    assert_eq!(frame, Some(frame_at(buffer.address)));
    assert_eq!(try_free(2 * PAGE_SIZE, buffer, DmaAttributes::NONE), Ok(()));
    Ran
}
