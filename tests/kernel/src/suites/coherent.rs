//! Coherent buffers for callers that may sleep: what is mapped, what is gone, what is refused (S64 to S67, S85, S97).

extern crate alloc;

use alloc::vec::Vec;
use core::num::NonZeroU32;

use arch::failure::fail_nth;
use dma::coherent::{AllocateError, Buffer, FreeError, allocate, free};
use dma::device::Device;
use image::capture::{CapturedLog, capture_log};
use kerncore::addr::{DmaAddr, PAGE_SIZE, PageRange, PhysAddr, VirtAddr, pages_for};
use kerncore::area::{AreaFlags, AreaKind};
use kerncore::attributes::Attributes;
use kerncore::coherent::Sleep;
use kerncore::failure::{Afterwards, Point};
use kerncore::frames::{self, FrameOwner, order_for};
use kerncore::kernel_space::{CoherentError, NoArea, RemoveError};
use kerncore::layout::linear_address;
use kerncore::va_space::ReserveError;
use ktest::{assert_err, ktest};
use mm::kernel;
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;

use super::witness::{
    Books, NOBODY, Numbers, ask_host, assert_absent, assert_fenced, assert_leads, authority,
    byte_at, each_page, feed, frame_at, linear, lowest_fit, plus, starve, word_at,
};

static DEVICE: Device = Device::new("a test's device");
static SNOOPING: Device = Device::coherent("a test's snooping device");

/// A small page, Normal non-cacheable (TEX 001, C 0, B 0), shareable, read and written by the kernel alone, execute-never,
/// global: spelled out from the manual, so that it does not lean on the code under test.
const UNCACHED: u32 = 0x453;
/// The same, Normal write-back write-allocate (C 1, B 1): what the linear map has.
const CACHED: u32 = 0x45f;

/// Sizes about every edge: of a page, of a section, of the largest block, and none a power of two.
const SIZES: [u32; 13] = [
    1,
    4095,
    4096,
    4097,
    3 * 4096,
    5 * 4096 + 1,
    31 * 4096,
    33 * 4096,
    (1 << 20) - 4096,
    1 << 20,
    (1 << 20) + 1,
    777 * 4096,
    4 << 20,
];

#[track_caller]
fn take(device: &Device, bytes: u32) -> Buffer {
    let buffer = allocate(device, bytes, Sleep::May, NOBODY);
    let buffer = buffer.unwrap_or_else(|error| panic!("{bytes}: {error}"));
    ask_host(buffer.address);
    ask_host(linear_of(buffer));
    buffer
}

fn try_free(device: &Device, bytes: u32, buffer: Buffer) -> Result<(), FreeError> {
    // SAFETY: no test here has a reference to memory whose address it gives back; what is not a buffer is to be refused.
    unsafe { free(device, bytes, buffer.address, buffer.dma) }
}

#[track_caller]
fn give(device: &Device, bytes: u32, buffer: Buffer) {
    let (freed, log) = capture_log(|| try_free(device, bytes, buffer));
    assert_eq!((freed, log.text()), (Ok(()), ""), "{bytes} bytes at {}", buffer.address);
}

fn pages_of(buffer: Buffer, bytes: u32) -> PageRange {
    PageRange::new(buffer.address, pages_for(bytes)).expect("a buffer's pages")
}

/// Where its bytes lie in the linear map.
#[track_caller]
fn linear_of(buffer: Buffer) -> VirtAddr {
    linear_address(PhysAddr::new(buffer.dma.raw())).expect("RAM")
}

#[track_caller]
fn descriptor(address: VirtAddr) -> u32 {
    kernel().table().translate(address).expect("an entry").descriptor()
}

/// Every word of the pages is `wanted`.
#[track_caller]
fn assert_words(pages: PageRange, wanted: u32) {
    for page in each_page(pages) {
        for offset in (0..PAGE_SIZE).step_by(4) {
            assert_eq!(word_at(plus(page, offset)), wanted, "at {}", plus(page, offset));
        }
    }
}

#[ktest]
fn a_buffer_is_contiguous_uncached_and_begins_at_its_device_address_s65_s66_s85() {
    for bytes in SIZES {
        let books = Books::now();
        let buffer = take(&DEVICE, bytes);
        let pages = pages_of(buffer, bytes);
        for (offset, page) in (0..).step_by(PAGE_SIZE as usize).zip(each_page(pages)) {
            let physical = PhysAddr::new(buffer.dma.raw() + offset);
            assert_leads(plus(page, 4092), PhysAddr::new(physical.raw() + 4092));
            assert_eq!(descriptor(page), physical.raw() | UNCACHED, "{page}");
            assert_eq!(kernel().zones().table().owner_of(physical.pfn()), FrameOwner::Dma);
        }
        assert_fenced(pages);
        let area = kernel().find(buffer.address).expect("an area");
        assert_eq!((area.pages, area.kind), (pages, AreaKind::Dma));
        assert_eq!(area.flags, AreaFlags::DMA.with(AreaFlags::USERMAP), "S64");
        assert_eq!(area.physical.raw(), buffer.dma.raw(), "S66: the physical base is recorded");
        give(&DEVICE, bytes, buffer);
        each_page(pages).for_each(assert_absent);
        books.assert_unchanged();
    }
}

/// Makes a buffer while no frames are free but `pages`, so that it must lie in them; its tables are there already.
#[track_caller]
fn take_in(pages: Pages, bytes: u32) -> Buffer {
    give(&DEVICE, bytes, take(&DEVICE, bytes));
    let list = starve(0);
    let first = pages.first();
    drop(pages);
    let buffer = take(&DEVICE, bytes);
    feed(list);
    assert_eq!(buffer.dma.raw(), first.base().raw(), "other frames: this test has no teeth");
    buffer
}

/// S97: while a frame is lent uncached, no cacheable view of it is left; the neighbours keep theirs.
#[ktest]
fn no_frame_of_a_buffer_is_in_the_linear_map_until_it_comes_back_s97() {
    for bytes in SIZES {
        let count = pages_for(bytes);
        let warm = Pages::new(order_for(count)).expect("memory");
        let whole = PageRange::new(warm.address(), warm.count()).expect("linear pages");
        // The linear addresses are in the TLB when the buffer is made: a stale entry would still be read through.
        for page in each_page(whole) {
            let _touched = byte_at(page);
        }
        let buffer = take_in(warm, bytes);
        for (index, page) in (0..).zip(each_page(whole)) {
            let frame = kernel().linear().frame_of(page).expect("RAM");
            if index < count {
                assert_absent(page);
            } else {
                assert_eq!(descriptor(page), frame.base().raw() | CACHED, "the rest of the block");
            }
        }
        give(&DEVICE, bytes, buffer);
        for page in each_page(whole) {
            let frame = kernel().linear().frame_of(page).expect("RAM");
            assert_leads(page, frame.base());
            assert_eq!(descriptor(page), frame.base().raw() | CACHED);
            let _readable = byte_at(page);
        }
    }
}

#[ktest]
fn a_buffer_is_zero_to_its_last_page_in_frames_that_were_dirty_s85() {
    for bytes in SIZES {
        let mut dirty = Pages::new(order_for(pages_for(bytes))).expect("memory");
        dirty.fill(0xa5);
        let buffer = take_in(dirty, bytes);
        assert_words(pages_of(buffer, bytes), 0);
        give(&DEVICE, bytes, buffer);
    }
}

/// S65: the virtual range is aligned to its order, a section at most; and the lowest such place is taken (S1).
#[ktest]
fn buffers_lie_at_the_lowest_address_aligned_to_their_order_or_a_section_s65_s1() {
    let books = Books::now();
    let mut numbers = Numbers::new(0x0d3a);
    let mut live: Vec<(u32, Buffer)> = Vec::new();
    for step in 0..300 {
        if live.len() > 12 || (!live.is_empty() && numbers.below(100) < 40) {
            let victim = numbers.below(u32::try_from(live.len()).expect("few")) as usize;
            let (bytes, buffer) = live.swap_remove(victim);
            give(&DEVICE, bytes, buffer);
            continue;
        }
        let most = if step % 16 == 0 { 700 } else { 40 };
        let pages = 1 + numbers.below(most);
        let order = order_for(pages).min(8);
        let wanted = lowest_fit(pages, order);
        let buffer = take(&DEVICE, pages * PAGE_SIZE - numbers.below(PAGE_SIZE));
        assert_eq!(Some(buffer.address), wanted, "step {step}: {pages} pages");
        assert_eq!(buffer.address.raw() % (PAGE_SIZE << order), 0, "{pages} pages");
        live.push((pages * PAGE_SIZE, buffer));
    }
    for (bytes, buffer) in live {
        give(&DEVICE, bytes, buffer);
    }
    books.assert_unchanged();
}

#[ktest]
fn sizes_of_zero_or_beyond_the_largest_block_are_refused_and_take_nothing() {
    let books = Books::now();
    for device in [&DEVICE, &SNOOPING] {
        for sleep in [Sleep::May, Sleep::MayNot] {
            assert_err!(allocate(device, 0, sleep, NOBODY), AllocateError::ZeroSize);
        }
        for bytes in [(4 << 20) + 1, 8 << 20, 0x8000_0000, 0xffff_f000, 0xffff_f001, u32::MAX] {
            let refused = allocate(device, bytes, Sleep::May, NOBODY);
            assert_err!(
                refused,
                AllocateError::Remap(CoherentError::Frames(_)) | AllocateError::Simple(_)
            );
            books.assert_unchanged();
        }
    }
}

/// S65: the line that the change lost, and the actual size that it used.
#[ktest]
fn a_free_of_the_wrong_size_is_printed_and_the_actual_size_is_freed_s65() {
    let wrong = [
        (3 * PAGE_SIZE, PAGE_SIZE, "freeing wrong coherent size (12288 != 4096)"),
        (3 * PAGE_SIZE, 4 * PAGE_SIZE, "freeing wrong coherent size (12288 != 16384)"),
        (1, 4097, "freeing wrong coherent size (4096 != 8192)"),
        (2 * PAGE_SIZE, 0, "freeing wrong coherent size (8192 != 0)"),
        (1 << 20, u32::MAX, "freeing wrong coherent size (1048576 != 4294967296)"),
    ];
    for (bytes, given, line) in wrong {
        let books = Books::now();
        let buffer = take(&DEVICE, bytes);
        let (freed, log) = capture_log(|| try_free(&DEVICE, given, buffer));
        assert_eq!(freed, Ok(()));
        assert_eq!((log.count(line), log.count("Backtrace:")), (1, 1), "{log:?}");
        each_page(pages_of(buffer, bytes)).for_each(assert_absent);
        books.assert_unchanged();
    }
    // Sizes that fill the same pages are not wrong.
    let buffer = take(&DEVICE, 4097);
    give(&DEVICE, 8192, buffer);
}

/// Frees `address` in vain: the line of S67, a backtrace, and nothing has changed.
#[track_caller]
fn refused(device: &Device, bytes: u32, address: VirtAddr, dma: DmaAddr) -> FreeError {
    let books = Books::now();
    let (freed, log) = capture_log(|| try_free(device, bytes, Buffer { address, dma }));
    assert_says_invalid(&log, address);
    books.assert_unchanged();
    freed.expect_err("the free was accepted")
}

#[track_caller]
fn assert_says_invalid(log: &CapturedLog, address: VirtAddr) {
    let line = alloc::format!("trying to free invalid coherent area: {:#010x}", address.raw());
    assert_eq!((log.count(&line), log.count("Backtrace:")), (1, 1), "{log:?}");
}

#[ktest]
fn what_is_no_coherent_buffer_is_not_freed_and_nothing_changes_s67() {
    let bytes = 3 * PAGE_SIZE;
    let buffer = take(&DEVICE, bytes);
    let inside = |offset| (plus(buffer.address, offset), DmaAddr::new(buffer.dma.raw() + offset));
    for offset in [1, 4, 4095, 4096, 2 * 4096, 2 * 4096 + 1, bytes, bytes + 1] {
        let (address, dma) = inside(offset);
        let error = refused(&DEVICE, bytes, address, dma);
        let wanted = if offset % PAGE_SIZE == 0 {
            RemoveError::Unknown { address }
        } else {
            RemoveError::Misaligned { address }
        };
        assert_eq!(error, FreeError::Invalid(wanted), "{offset:#x}");
    }
    for raw in [0, 1, 0x1000, 0x7fff_f000, linear_of(buffer).raw(), 0xf000_0000, 0xffff_f000] {
        refused(&DEVICE, bytes, VirtAddr::new(raw), buffer.dma);
    }
    assert_words(pages_of(buffer, bytes), 0);
    give(&DEVICE, bytes, buffer);
    let again = refused(&DEVICE, bytes, buffer.address, buffer.dma);
    let address = buffer.address;
    assert_eq!(again, FreeError::Invalid(RemoveError::Unknown { address }), "a double free");
}

#[ktest]
fn areas_of_vmalloc_vmap_and_ioremap_are_not_freed_as_coherent_s67() {
    let mut memory = VmArea::new(2 * PAGE_SIZE).expect("memory");
    memory.fill(0x3c);
    let pages = alloc::vec![Pages::new(0).expect("memory"), Pages::new(0).expect("memory")];
    let map = VmArea::map(pages).expect("addresses");
    let rtc = PhysAddr::new(0x1001_7000);
    let registers =
        kernel().ioremap(rtc, PAGE_SIZE, Attributes::DEVICE, NOBODY).expect("addresses");
    for (address, found) in [
        (memory.address(), AreaKind::Vmalloc),
        (map.address(), AreaKind::Vmap),
        (registers, AreaKind::IoRemap),
    ] {
        let dma = DmaAddr::new(frame_at(address).base().raw());
        let error = refused(&DEVICE, 2 * PAGE_SIZE, address, dma);
        assert_eq!(error, FreeError::Invalid(RemoveError::WrongKind { address, found }));
        let _readable = byte_at(address);
    }
    assert!(memory.iter().all(|&byte| byte == 0x3c));
    assert_eq!(kernel().iounmap(authority(), registers), Ok(()));
}

#[ktest]
fn other_frees_refuse_a_coherent_buffer_s34() {
    let buffer = take(&DEVICE, 2 * PAGE_SIZE);
    let books = Books::now();
    let address = buffer.address;
    let wrong = Err(RemoveError::WrongKind { address, found: AreaKind::Dma });
    assert_eq!(kernel().vfree(authority(), address), wrong);
    assert_eq!(kernel().vunmap(authority(), address), wrong);
    assert_eq!(kernel().iounmap(authority(), address), wrong);
    books.assert_unchanged();
    assert_words(pages_of(buffer, 2 * PAGE_SIZE), 0);
    give(&DEVICE, 2 * PAGE_SIZE, buffer);
}

#[ktest]
fn a_free_with_another_device_address_is_refused_and_changes_nothing() {
    for device in [&DEVICE, &SNOOPING] {
        let buffer = take(device, 2 * PAGE_SIZE);
        let books = Books::now();
        for given in [0, buffer.dma.raw() + 1, buffer.dma.raw() + 4096, !0].map(DmaAddr::new) {
            let Buffer { address, dma: wanted } = buffer;
            let freed = try_free(device, 2 * PAGE_SIZE, Buffer { address, dma: given });
            assert_eq!(freed, Err(FreeError::Handle { address, wanted, given }));
            books.assert_unchanged();
        }
        give(device, 2 * PAGE_SIZE, buffer);
    }
}

/// S64: the fixed region is gone; and when frames are gone, nothing is kept of what was begun.
#[ktest]
fn without_adjacent_frames_nothing_is_taken_and_afterwards_all_is_well() {
    let before = Books::now();
    let list = starve(0);
    let starved = Books::now();
    for bytes in [1, 8192, 1 << 20] {
        let refused = allocate(&DEVICE, bytes, Sleep::May, NOBODY);
        assert_err!(
            refused,
            AllocateError::Remap(CoherentError::Frames(frames::AllocateError::Exhausted {
                owner: FrameOwner::Dma,
                ..
            }))
        );
        starved.assert_unchanged();
    }
    feed(list);
    before.assert_unchanged();
    give(&DEVICE, 1 << 20, take(&DEVICE, 1 << 20));
}

/// S66: the last step fails, for want of a second-level table. Everything before it is undone: the linear map too.
#[ktest]
fn a_mapping_that_fails_gives_frames_addresses_and_linear_entries_back_s66() {
    const MIB: u32 = 1 << 20;
    let block = kernel().zones().allocate(8, FrameOwner::Test).expect("a MiB");
    let first = block.first();
    // Whose record is there for the next, when the memory for another is not.
    let record = take(&DEVICE, PAGE_SIZE);
    let list = starve(0);
    kernel().zones().free(block).expect("our own block");
    give(&DEVICE, PAGE_SIZE, record);
    let starved = Books::now();
    let make = || allocate(&DEVICE, MIB, Sleep::May, NOBODY);
    // Frames, the linear map, the record, perhaps with a frame of its own, the addresses, the table.
    let refused = (1..8).filter_map(NonZeroU32::new).find_map(|nth| {
        let (refused, outcome) = fail_nth(nth, Afterwards::Nothing, make);
        (outcome.failed == Some(Point::Table)).then_some(refused)
    });
    let had = Books::now();
    let frames = (0..256).filter_map(|index| first.checked_add(index));
    let linear_again = frames.filter(|&frame| {
        let entry = kernel().table().translate(linear(frame));
        entry.map(|entry| entry.descriptor()) == Some(frame.base().raw() | CACHED)
            && arch::probe::read_u8(linear(frame)).is_ok()
    });
    let linear_again = linear_again.count();
    feed(list);
    assert_err!(refused.expect("it needs a table"), AllocateError::Remap(CoherentError::Map(_)));
    assert_eq!((had, linear_again), (starved, 256));
}

/// Behind RAM on a board that has all it can; nobody touches what is mapped there.
const BEYOND_RAM: PhysAddr = PhysAddr::new(0xa000_0000);

/// Takes addresses with mappings of what lies behind RAM, which nobody touches, until not even a page is left.
fn fill_window() -> Vec<VirtAddr> {
    let mut taken = Vec::with_capacity(4096);
    let mut bytes = 1 << 29;
    while bytes >= PAGE_SIZE {
        match kernel().ioremap(BEYOND_RAM, bytes, Attributes::DEVICE, NOBODY) {
            Ok(address) => taken.push(address),
            Err(_) => bytes /= 2,
        }
    }
    taken
}

#[ktest]
fn without_addresses_the_frames_go_back_to_the_linear_map_s66() {
    let before = Books::now();
    let taken = fill_window();
    let full = Books::now();
    for bytes in [1, 1 << 20, 4 << 20] {
        let refused = allocate(&DEVICE, bytes, Sleep::May, NOBODY);
        assert_err!(
            refused,
            AllocateError::Remap(CoherentError::Area(NoArea::Addresses(
                ReserveError::NoSpace { .. }
            )))
        );
        full.assert_unchanged();
    }
    for address in taken {
        assert_eq!(kernel().iounmap(authority(), address), Ok(()));
    }
    before.assert_unchanged();
    give(&DEVICE, 4 << 20, take(&DEVICE, 4 << 20));
}
