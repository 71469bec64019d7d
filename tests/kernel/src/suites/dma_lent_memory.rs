//! What becomes of memory that was somebody's and is given to the next (S64, S85, S99, S102, S103): what is zeroed and what is not, how far
//! a buffer goes, and how lists name it meanwhile.

extern crate alloc;

use alloc::vec::Vec;
use core::ptr;

use board::vexpress_a9::VRAM;
use dma::atomic_pool;
use dma::attributes;
use dma::coherent::{Buffer, FreeError, allocate, first_frame, free};
use dma::device::Device;
use dma::dma_pool::DmaPool;
use dma::listing;
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::attributes::MemoryType;
use kerncore::coherent::{AllocationFlags, Sleep};
use kerncore::dma_attributes::DmaAttributes;
use kerncore::dma_mask::DmaMask;
use kerncore::holder::Tag;
use kerncore::kernel_space::RemoveError;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::dma::dma_alloc_coherent;
use linux::dma_attrs::dma_alloc_attrs;
use linux::dma_pool::{dma_pool_alloc, dma_pool_create, dma_pool_destroy, dma_pool_free};
use mm::io_memory::IoMemory;

use super::buffers::give;
use super::buffers::show;
use super::user::at;
use super::user_programs as code;
use super::user_sharing::{WINDOW, waiting};
use super::witness::{Books, NOBODY, plus, word_at};

static DEVICE: Device = Device::new("a device after another");
static NEAR: Device = Device::new("a device of one frame");

/// Where devices see memory of their own.
const DMA: DmaAddr = DmaAddr::new(0x0010_0000);

#[track_caller]
fn device(first: u32, pages: u32) -> Device {
    let device = Device::new("a device with a past");
    let physical = PhysAddr::new(VRAM.base.raw() + first * PAGE_SIZE);
    assert_eq!(device.declare_memory((physical, DMA), pages * PAGE_SIZE, NOBODY), Ok(()));
    device
}

#[track_caller]
fn release(device: &Device) {
    // SAFETY: nobody but the test has the device.
    assert_eq!(unsafe { device.release_memory() }, Ok(()));
}

fn words(buffer: Buffer, bytes: u32) -> impl Iterator<Item = *mut u32> {
    let first: *mut u32 = ptr::with_exposed_provenance_mut(buffer.address.raw() as usize);
    (0..bytes as usize / 4).map(move |index| first.wrapping_add(index))
}

fn mark(buffer: Buffer, bytes: u32, mark: u32) {
    for word in words(buffer, bytes) {
        // SAFETY: the buffer is the test's, mapped and writable.
        unsafe { word.write_volatile(mark) };
    }
}

/// Whole pages are given, and may be shown to programs: also behind a buffer's last byte there is nothing of whoever had them before.
#[ktest]
fn a_device_s_own_memory_is_zeroed_to_the_end_of_its_pages_s85_s102() {
    let device = device(0, 4);
    for (bytes, pages) in [(1, 1), (100, 1), (PAGE_SIZE + 1, 2), (3 * PAGE_SIZE - 4, 3)] {
        for sleep in [Sleep::May, Sleep::MayNot] {
            let before = allocate(&device, 4 * PAGE_SIZE, sleep, NOBODY).expect("room");
            mark(before, 4 * PAGE_SIZE, 0x5ec2_e7ed);
            give(&device, 4 * PAGE_SIZE, before);
            let buffer = allocate(&device, bytes, sleep, NOBODY).expect("room");
            let mut offsets = (0..pages * PAGE_SIZE).step_by(4);
            let left = offsets.find(|&offset| word_at(plus(buffer.address, offset)) != 0);
            assert_eq!(left, None, "of {bytes} bytes");
            give(&device, bytes, buffer);
        }
    }
    release(&device);
}

/// Blocks whose run had to be made larger to be aligned lie in what was taken for them, and in nobody else's.
#[ktest]
fn aligned_blocks_lie_in_pages_of_their_own_s102_s103() {
    let odd = Device::new("a device with oddly placed memory");
    let place = (VRAM.base, DmaAddr::new(0x0010_1000));
    assert_eq!(odd.declare_memory(place, 16 * PAGE_SIZE, NOBODY), Ok(()));
    for (size, alignment, boundary) in [(8192, 8192, 0), (12_288, 4, 16_384), (100, 16_384, 0)] {
        let pool = DmaPool::new("aligned", &odd, size, alignment, boundary).expect("a layout");
        let block = pool.allocate(Sleep::May, NOBODY).expect("room");
        mark(block, size, 0xb10c_b10c);
        let mut others = Vec::new();
        while let Ok(page) = allocate(&odd, PAGE_SIZE, Sleep::May, NOBODY) {
            mark(page, PAGE_SIZE, 0);
            others.push(page);
        }
        assert!(others.len() < 16, "its pages are taken");
        // SAFETY: the block is the test's, mapped and readable.
        let kept = words(block, size).all(|word| unsafe { word.read_volatile() } == 0xb10c_b10c);
        assert!(kept, "blocks of {size}: others were given their memory");
        for page in others {
            give(&odd, PAGE_SIZE, page);
        }
        assert_eq!(pool.free(block), Ok(()));
        // SAFETY: nobody uses a block.
        assert_eq!(unsafe { pool.destroy() }, 0);
    }
    release(&odd);
}

/// S64: memory that goes while somebody looks at the list hides nobody else's.
#[ktest]
fn what_is_listed_after_memory_that_goes_meanwhile_is_listed_whole_s64_s102() {
    let books = Books::now();
    let (first, second) = (device(0, 4), device(8, 4));
    let going = allocate(&first, PAGE_SIZE, Sleep::May, NOBODY).expect("room");
    let staying: Vec<Buffer> =
        (0..3).map(|_| allocate(&second, PAGE_SIZE, Sleep::May, NOBODY).expect("room")).collect();
    let mut seen = Vec::new();
    let totals = listing::for_each_line(|line| {
        seen.push(line.address);
        if line.address == going.address {
            give(&first, PAGE_SIZE, going);
            release(&first);
        }
    });
    assert!(seen.contains(&going.address), "this test has no teeth");
    let missing = staying.iter().find(|buffer| !seen.contains(&buffer.address));
    assert_eq!(missing, None);
    assert_eq!(totals.of(listing::Source::Declared), (4, 4));
    for buffer in staying {
        give(&second, PAGE_SIZE, buffer);
    }
    release(&second);
    books.assert_unchanged();
}

/// S64, S99: what is peculiar to a buffer is in its line, also of a device that does not reach all memory.
#[ktest]
fn the_marks_of_a_buffer_below_a_mask_are_listed_s64_s99_s100() {
    let near = Device::new("a device with a mask and marks");
    let first = mm::kernel().zones().table().first().base().raw();
    let mask = DmaMask::new(u64::from(first) + (64 << 20) - 1);
    assert_eq!(near.set_coherent_mask(mask), Ok(()));
    let combined = DmaAttributes::WRITE_COMBINE;
    let hidden = DmaAttributes::NO_KERNEL_MAPPING;
    for (wanted, marks) in [
        (DmaAttributes::NONE, Tag::NONE),
        (combined, Tag::COMBINED),
        (hidden, Tag::HIDDEN),
        (combined.with(hidden), Tag::COMBINED.with(Tag::HIDDEN)),
    ] {
        let bytes = 2 * PAGE_SIZE;
        let given = attributes::allocate(&near, bytes, Sleep::May, wanted, NOBODY);
        let given = given.expect("memory");
        let mut found = Vec::new();
        let _totals = listing::for_each_line(|line| {
            if line.dma == given.dma {
                let tag = line.holder.tag;
                found.push((line.device(), tag.words().collect::<Vec<_>>()));
            }
        });
        assert_eq!(found, [(near.name(), marks.words().collect())], "{wanted:?}");
        // SAFETY: the test's own, without a reference.
        assert_eq!(unsafe { attributes::free(&near, bytes, given, wanted) }, Ok(()));
    }
}

/// S85: zeros for who asks for them where one may not sleep, also by the long ways; and what was there for who does not.
#[ktest]
fn atomic_buffers_are_zeroed_on_request_by_every_way_s85_s99_s100() -> Completion {
    if atomic_pool::usage().is_none_or(|pool| pool.pages < 4) {
        return Skipped("no atomic pool of 4 pages in this boot");
    }
    // Of all of RAM, and yet not all addresses: no short way leads there.
    let far = Device::new("a device with a wide mask");
    assert_eq!(far.set_coherent_mask(DmaMask::new(0xf000_0000)), Ok(()));
    let bytes = PAGE_SIZE + 8;
    let mut dma = DmaAddr::new(0);
    let zero = AllocationFlags(AllocationFlags::ATOMIC.0 | AllocationFlags::ZERO);
    for by_attributes in [false, true] {
        for (flags, left) in [(AllocationFlags::ATOMIC, 0x0dd_ba11), (zero, 0)] {
            let before = allocate(&DEVICE, bytes, Sleep::MayNot, NOBODY).expect("pages");
            mark(before, bytes, 0x0dd_ba11);
            give(&DEVICE, bytes, before);
            let device = &raw const far;
            let memory = if by_attributes {
                // SAFETY: a device, and a place for an address.
                unsafe { dma_alloc_attrs(device, bytes, &raw mut dma, flags, 0) }
            } else {
                // SAFETY: as above.
                unsafe { dma_alloc_coherent(device, bytes, &raw mut dma, flags) }
            };
            #[expect(clippy::cast_possible_truncation, reason = "pointers have 32 bits")]
            let buffer = Buffer { address: VirtAddr::new(memory.addr() as u32), dma };
            assert_eq!(buffer, before, "other pages: this test has no teeth");
            // SAFETY: the buffer is the test's, mapped and readable.
            let found = words(buffer, bytes).map(|word| unsafe { word.read_volatile() });
            assert!(found.into_iter().all(|word| word == left), "zeros: {}", left == 0);
            give(&far, bytes, buffer);
        }
    }
    Ran
}

/// S74, S78, S99: what is not the start of a coherent buffer has no list of frames, though the addresses agree.
#[ktest]
fn what_is_no_coherent_buffer_has_no_frames_s99() {
    let buffer = allocate(&DEVICE, 2 * PAGE_SIZE, Sleep::May, NOBODY).expect("memory");
    let moved = |bytes| Buffer {
        address: plus(buffer.address, bytes),
        dma: DmaAddr::new(buffer.dma.raw() + bytes),
    };
    for (offset, bytes) in [(4, 100), (2048, 1), (PAGE_SIZE - 1, 1), (PAGE_SIZE + 32, 64)] {
        assert_eq!(first_frame(&DEVICE, moved(offset), bytes), None, "{offset}");
    }
    give(&DEVICE, 2 * PAGE_SIZE, buffer);
    let registers = IoMemory::map(VRAM.base, PAGE_SIZE, MemoryType::NormalNonCacheable);
    let registers = registers.expect("no RAM");
    let dma = DmaAddr::new(registers.physical().raw());
    let mapped = Buffer { address: registers.address(), dma };
    assert_eq!(first_frame(&DEVICE, mapped, PAGE_SIZE), None, "a mapping of no RAM");
}

/// S67, S78: a page is freed as quickly as can be, and yet by its own handle and not while a program sees it.
#[ktest]
fn a_single_page_is_refused_as_any_buffer_is_s67_s78() {
    let books = Books::now();
    let buffer = allocate(&DEVICE, PAGE_SIZE, Sleep::May, NOBODY).expect("memory");
    let end = |address, dma| {
        // SAFETY: to be refused, or the test's own.
        capture_log(|| unsafe { free(&DEVICE, PAGE_SIZE, address, dma) }).0
    };
    let given = DmaAddr::new(buffer.dma.raw() + PAGE_SIZE);
    let (address, wanted) = (buffer.address, buffer.dma);
    assert_eq!(end(address, given), Err(FreeError::Handle { address, wanted, given }));
    let space = waiting(code::exits(), 1);
    assert_eq!(show(&DEVICE, &space, at(WINDOW), (buffer, PAGE_SIZE), 0), Ok(()));
    let in_use = RemoveError::InUse { address, users: 1 };
    assert_eq!(end(address, wanted), Err(FreeError::Invalid(in_use)));
    drop(space);
    assert_eq!(end(address, wanted), Ok(()));
    let gone = end(address, wanted);
    assert_eq!(gone, Err(FreeError::Invalid(RemoveError::Unknown { address })));
    books.assert_unchanged();
}

/// A refusal is told, by name, of the back end that refuses.
#[ktest]
fn a_refusal_by_a_c_name_is_told_s71() {
    let mut dma = DmaAddr::new(0);
    // Repetitions are printed ever more seldom; one of many is.
    let said = (0..20_000).find_map(|_| {
        let flags = AllocationFlags::KERNEL;
        // SAFETY: a device, and a place for an address.
        let take = || unsafe { dma_alloc_coherent(&raw const DEVICE, 0, &raw mut dma, flags) };
        let (none, log) = capture_log(take);
        assert!(none.is_null());
        (!log.text().is_empty()).then_some(log)
    });
    let said = said.expect("a message");
    let line =
        "dma_alloc_coherent: 0 bytes for a device after another were refused: a size of zero";
    assert!(said.text().contains(line), "{said:?}");
}

/// S85, S99: a block is zeroed for who asks for that and for nobody else, to its last byte; who wants no words about a failure hears none.
#[ktest]
fn c_callers_get_zeros_and_words_as_their_flags_say_s85_s99_s103() {
    let mut dma = DmaAddr::new(0);
    // SAFETY: a device that lives for good.
    let pool = unsafe { dma_pool_create(ptr::null(), &raw const DEVICE, 60, 4, 0) };
    let zeroed = AllocationFlags(AllocationFlags::KERNEL.0 | AllocationFlags::ZERO);
    let mut had = ptr::null_mut();
    for (flags, found) in [(AllocationFlags::KERNEL, 0x1234_5678), (zeroed, 0)] {
        for round in 0..2 {
            let flags = if round == 0 { AllocationFlags::KERNEL } else { flags };
            // SAFETY: the pool made above, and a place for an address.
            let block = unsafe { dma_pool_alloc(pool, flags, &raw mut dma) }.cast::<u32>();
            assert!(round == 0 || block == had, "another block: this test has no teeth");
            for word in (0..15).map(|index| block.wrapping_add(index)) {
                if round == 1 {
                    // SAFETY: the block is the test's.
                    assert_eq!(unsafe { word.read_volatile() }, found);
                }
                // SAFETY: as above.
                unsafe { word.write_volatile(0x1234_5678) };
            }
            // SAFETY: nobody uses it.
            unsafe { dma_pool_free(pool, block.cast(), dma) };
            had = block;
        }
    }
    // SAFETY: nobody uses a block.
    unsafe { dma_pool_destroy(pool) };
    for (device, size, words) in [
        (ptr::null(), 64, "dma_pool_create: a pool: no device given"),
        (
            &raw const DEVICE,
            0,
            "dma_pool_create: a pool of a device after another: blocks of no bytes",
        ),
    ] {
        // SAFETY: a device that lives for good, or none.
        let create = || unsafe { dma_pool_create(ptr::null(), device, size, 4, 0) };
        let (none, log) = capture_log(create);
        assert!(none.is_null() && log.text().matches(words).count() == 1, "{log:?}");
    }
    let least = mm::kernel().zones().table().first().base().raw() + PAGE_SIZE - 1;
    assert_eq!(NEAR.set_coherent_mask(DmaMask::new(u64::from(least))), Ok(()));
    // A run of two pages does not lie in one frame.
    // SAFETY: a device that lives for good.
    let pool = unsafe { dma_pool_create(ptr::null(), &raw const NEAR, 2 * PAGE_SIZE, 4, 0) };
    let quiet = AllocationFlags(AllocationFlags::KERNEL.0 | AllocationFlags::NO_WARNING);
    for (flags, words) in [(quiet, 0), (AllocationFlags::KERNEL, 1)] {
        // SAFETY: the pool made above, and a place for an address.
        let take = || unsafe { dma_pool_alloc(pool, flags, &raw mut dma) };
        let (none, log) = capture_log(take);
        assert!(none.is_null());
        let told = log.text().matches("dma_pool_alloc: a block of 8192 bytes").count();
        assert!(told <= words && (words != 0 || log.text().is_empty()), "{log:?}");
    }
    // SAFETY: it has no blocks.
    unsafe { dma_pool_destroy(pool) };
}
