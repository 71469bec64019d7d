//! Coherent memory as its users have it: devices that snoop, the owners of Rust code, the functions by their Linux names
//! (S64, S75, S76, S83, S85).

extern crate alloc;

use core::ffi::c_void;
use core::ptr;

use dma::atomic_pool;
use dma::coherent::{Buffer, CoherentBox, FreeError, allocate, free};
use dma::device::Device;
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PageRange, PhysAddr, VirtAddr, pages_for};
use kerncore::area::{AreaFlags, AreaKind};
use kerncore::coherent::{AllocationFlags, Sleep};
use kerncore::frames::{FrameOwner, order_for};
use kerncore::kernel_space::RemoveError;
use kerncore::layout::linear_address;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::dma::{dma_alloc_coherent, dma_free_coherent, init_consistent_dma_size};
use linux::lookup::find_vm_area;
use mm::kernel;
use mm::page_alloc::Pages;

use super::witness::{
    Books, NOBODY, ask_host, assert_absent, assert_leads, byte_at, each_page, feed, plus, starve,
    word_at,
};

static DEVICE: Device = Device::new("a test's device");
static SNOOPING: Device = Device::coherent("a test's snooping device");

fn try_free(device: &Device, bytes: u32, buffer: Buffer) -> Result<(), FreeError> {
    // SAFETY: no test here has a reference to memory whose address it gives back; what is not a buffer is to be refused.
    unsafe { free(device, bytes, buffer.address, buffer.dma) }
}

fn pool_taken() -> Option<u32> {
    atomic_pool::usage().map(|pool| pool.taken)
}

/// A device that snoops needs no uncached memory: its buffers are frames where they always are, atomic or not (S75).
#[ktest]
fn a_snooping_device_gets_zeroed_frames_at_their_linear_addresses_s75() {
    for sleep in [Sleep::May, Sleep::MayNot] {
        for bytes in [1, 4096, 3 * 4096, 1 << 20] {
            let mut dirty = Pages::new(order_for(pages_for(bytes))).expect("memory");
            dirty.fill(0xa5);
            let first = dirty.first();
            let books = Books::now();
            let list = starve(0);
            drop(dirty);
            let buffer = allocate(&SNOOPING, bytes, sleep, NOBODY);
            feed(list);
            let buffer = buffer.expect("just those frames are free");
            assert_eq!(buffer.dma.raw(), first.base().raw(), "other frames: no teeth");
            assert_eq!(Some(buffer.address), linear_address(first.base()));
            let pages = PageRange::new(buffer.address, pages_for(bytes)).expect("its pages");
            for page in each_page(pages) {
                let entry = kernel().table().translate(page).expect("an entry").descriptor();
                assert_eq!(entry & 0xfff, 0x45f, "Normal write-back, never executed");
                assert!((0..PAGE_SIZE).step_by(4).all(|at| word_at(plus(page, at)) == 0), "{page}");
            }
            assert_eq!(kernel().find_containing(buffer.address), None, "no area");
            assert_eq!(pool_taken(), atomic_pool::usage().map(|_| 0), "nothing of the pool");
            assert_eq!(try_free(&SNOOPING, bytes, buffer), Ok(()));
            // The dirty frames, which were the books' then, are free.
            let held = Pages::new(order_for(pages_for(bytes))).expect("memory");
            books.assert_unchanged();
            drop(held);
        }
    }
}

/// Each back end knows its own buffers; and an address inside a page is not the page's.
#[ktest]
fn buffers_of_one_back_end_are_refused_by_the_other_s75() {
    let bytes = 2 * PAGE_SIZE;
    let simple = allocate(&SNOOPING, bytes, Sleep::May, NOBODY).expect("memory");
    let remapped = allocate(&DEVICE, bytes, Sleep::May, NOBODY).expect("memory");
    let books = Books::now();
    let refused = |device: &Device, bytes: u32, buffer: Buffer| {
        let (freed, log) = capture_log(|| try_free(device, bytes, buffer));
        let address = buffer.address.raw();
        let line = alloc::format!("trying to free invalid coherent area: {address:#010x}");
        assert_eq!((log.count(&line), log.count("Backtrace:")), (1, 1), "{log:?}");
        books.assert_unchanged();
        freed.expect_err("the free was accepted")
    };
    let address = remapped.address;
    let unknown = FreeError::Invalid(RemoveError::Unknown { address });
    assert_eq!(refused(&SNOOPING, bytes, remapped), unknown);
    let address = simple.address;
    let unknown = FreeError::Invalid(RemoveError::Unknown { address });
    assert_eq!(refused(&DEVICE, bytes, simple), unknown);
    // The linear address of the remapped buffer, whose frames have another owner; and pages that nobody asked for a device.
    let linear = linear_address(PhysAddr::new(remapped.dma.raw())).expect("RAM");
    let hidden = Buffer { address: linear, dma: remapped.dma };
    let pages = Pages::new(order_for(pages_for(bytes))).expect("memory");
    let base = pages.first().base();
    let raw = Buffer {
        address: linear_address(base).expect("low memory"),
        dma: DmaAddr::new(base.raw()),
    };
    for buffer in [hidden, raw] {
        let unknown = FreeError::Invalid(RemoveError::Unknown { address: buffer.address });
        let (freed, _) = capture_log(|| try_free(&SNOOPING, bytes, buffer));
        assert_eq!(freed, Err(unknown));
    }
    drop(pages);
    // Sizes of the same order, too.
    for wrong in [0, PAGE_SIZE, 3 * PAGE_SIZE, 4 * PAGE_SIZE, 1 << 22, u32::MAX] {
        let (address, found, wanted) = (simple.address, pages_for(bytes), pages_for(wrong));
        let other = RemoveError::OtherSize { address, found, wanted };
        assert_eq!(refused(&SNOOPING, wrong, simple), FreeError::Invalid(other));
    }
    for offset in [1, 4, 4095] {
        let address = plus(simple.address, offset);
        let dma = DmaAddr::new(simple.dma.raw() + offset);
        let error = refused(&SNOOPING, bytes, Buffer { address, dma });
        assert_eq!(error, FreeError::Invalid(RemoveError::Misaligned { address }));
    }
    let second = Buffer {
        address: plus(simple.address, PAGE_SIZE),
        dma: DmaAddr::new(simple.dma.raw() + PAGE_SIZE),
    };
    let inside = FreeError::Invalid(RemoveError::Unknown { address: second.address });
    assert_eq!(refused(&SNOOPING, PAGE_SIZE, second), inside);
    assert_eq!(try_free(&DEVICE, bytes, remapped), Ok(()));
    assert_eq!(try_free(&SNOOPING, bytes, simple), Ok(()));
    assert_eq!(try_free(&SNOOPING, bytes, simple), Err(unknown));
}

/// The owner is a slice of just the bytes asked for, and gives everything back when it goes.
#[ktest]
fn a_box_is_a_slice_of_its_bytes_and_goes_back_when_dropped() {
    let books = Books::now();
    for bytes in [1, 100, 4096, 4097, 1 << 20] {
        for made in [CoherentBox::new(&DEVICE, bytes), CoherentBox::new(&SNOOPING, bytes)] {
            let mut buffer = made.expect("memory");
            assert_eq!(buffer.len(), bytes as usize);
            assert!(buffer.iter().all(|&byte| byte == 0), "S85");
            buffer.fill(0x77);
            assert_leads(buffer.address(), PhysAddr::new(buffer.dma_address().raw()));
            assert_eq!(byte_at(plus(buffer.address(), bytes - 1)), 0x77);
            ask_host(buffer.address());
            if bytes % PAGE_SIZE != 0 {
                assert_eq!(byte_at(plus(buffer.address(), bytes)), 0, "past the slice");
            }
        }
        books.assert_unchanged();
    }
}

/// While a device may write, bytes are copied: never more than the buffer has, never more than fit.
#[ktest]
fn copies_into_and_out_of_a_shared_buffer_stay_inside_it() {
    const BYTES: u32 = 10;
    let books = Books::now();
    let mut shared = CoherentBox::new(&DEVICE, BYTES).expect("memory").share();
    assert_eq!((shared.len(), shared.is_empty()), (10, false));
    let long = alloc::vec![0x5a_u8; 3 * PAGE_SIZE as usize];
    assert_eq!(shared.write(&long), 10);
    for offset in BYTES..PAGE_SIZE {
        assert_eq!(byte_at(plus(shared.address(), offset)), 0, "byte {offset}");
    }
    assert_eq!(shared.write(&[1, 2, 3]), 3);
    assert_eq!(shared.write(&[]), 0);
    let mut out = [0xee_u8; 16];
    assert_eq!(shared.read(&mut out), 10);
    let (read, rest) = out.split_at(10);
    assert_eq!(read, [1, 2, 3, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a]);
    assert!(rest.iter().all(|&byte| byte == 0xee));
    let mut few = [0; 2];
    assert_eq!((shared.read(&mut few), few), (2, [1, 2]));
    assert_eq!(shared.read(&mut []), 0);
    // SAFETY: no device was ever told of the buffer.
    let reclaimed = unsafe { shared.reclaim() };
    assert_eq!(reclaimed[..3], [1, 2, 3]);
    drop(reclaimed);
    let dropped_shared = CoherentBox::new(&DEVICE, 5 * PAGE_SIZE).expect("memory").share();
    drop(dropped_shared);
    books.assert_unchanged();
}

/// One page from where its last byte lies to the guard: a copy of a whole page stops before it.
#[ktest]
fn a_copy_of_a_whole_page_ends_before_the_guard() {
    let mut shared = CoherentBox::new(&DEVICE, PAGE_SIZE).expect("memory").share();
    let mut bytes = alloc::vec![0x11_u8; PAGE_SIZE as usize + 1];
    assert_absent(plus(shared.address(), PAGE_SIZE));
    assert_eq!(shared.write(&bytes), PAGE_SIZE as usize);
    bytes.fill(0);
    assert_eq!(shared.read(&mut bytes), PAGE_SIZE as usize);
    assert!(bytes[..PAGE_SIZE as usize].iter().all(|&byte| byte == 0x11));
    assert_eq!(bytes[PAGE_SIZE as usize], 0);
}

/// What `dma_handle` holds before a call.
const UNTOUCHED: DmaAddr = DmaAddr::new(0x5151_5151);

#[expect(clippy::cast_possible_truncation, reason = "pointers have 32 bits")]
fn c_alloc(device: &Device, bytes: u32, flags: u32) -> Option<Buffer> {
    let mut dma = UNTOUCHED;
    // SAFETY: a device, and a place for an address.
    let memory = unsafe { dma_alloc_coherent(device, bytes, &raw mut dma, AllocationFlags(flags)) };
    let address = VirtAddr::new(memory.addr() as u32);
    (!memory.is_null()).then_some(Buffer { address, dma })
}

fn c_free(device: &Device, bytes: u32, buffer: Buffer) {
    let memory: *const c_void = ptr::with_exposed_provenance(buffer.address.raw() as usize);
    // SAFETY: no test here has a reference to memory whose address it gives back; what is not a buffer is to be refused.
    unsafe { dma_free_coherent(device, bytes, memory, buffer.dma) };
}

/// Bug 4: the seed tests one flag's bits. It is not that flag which says whether a caller may sleep.
#[ktest]
fn flags_that_may_not_sleep_get_the_pool_and_all_others_a_mapping_s76() -> Completion {
    let Some(pool) = atomic_pool::usage() else { return Skipped("no atomic pool in this boot") };
    let books = Books::now();
    let area = kernel().find(pool.base).expect("the pool's area");
    for (flags, atomic) in [
        (0, true),
        (AllocationFlags::ATOMIC.0, true),
        (0xc0, true), // input and output allowed, waiting not
        (AllocationFlags::KERNEL.0, false),
        (AllocationFlags::WAIT, false),
        (AllocationFlags::WAIT | AllocationFlags::HIGH_PRIORITY, false),
        (AllocationFlags::KERNEL.0 | AllocationFlags::HIGH_PRIORITY, false),
    ] {
        let bytes = PAGE_SIZE + 1;
        let buffer = c_alloc(&DEVICE, bytes, flags).expect("memory");
        assert_eq!(area.pages.contains(buffer.address), atomic, "flags {flags:#x}");
        assert_eq!(pool_taken(), Some(if atomic { 2 } else { 0 }), "flags {flags:#x}");
        let physical = PhysAddr::new(buffer.dma.raw());
        assert_leads(buffer.address, physical);
        let owner = if atomic { FrameOwner::AtomicPool } else { FrameOwner::Dma };
        assert_eq!(kernel().zones().table().owner_of(physical.pfn()), owner);
        c_free(&DEVICE, bytes, buffer);
        assert_eq!(pool_taken(), Some(0), "S75: flags {flags:#x}");
        books.assert_unchanged();
    }
    Ran
}

/// S64, S66, S83: what a C caller reads in the descriptor of a buffer.
#[ktest]
fn the_descriptor_of_a_buffer_says_what_it_is_and_who_asked_s64_s66_s83() {
    let buffer = c_alloc(&DEVICE, 3 * PAGE_SIZE, AllocationFlags::KERNEL.0).expect("memory");
    let memory: *const c_void = ptr::with_exposed_provenance(buffer.address.raw() as usize);
    // SAFETY: nobody removes the area while this test has it.
    let area = unsafe { find_vm_area(memory).as_ref() }.expect("a live area");
    assert_eq!((area.addr(), area.size()), (buffer.address, 4 * PAGE_SIZE), "S2: the guard counts");
    assert_eq!(area.flags(), AreaFlags::DMA.with(AreaFlags::USERMAP));
    assert_eq!((area.phys_addr().raw(), area.nr_pages()), (buffer.dma.raw(), 0));
    assert!(boot::layout::parts()[0].pages.contains(area.caller()), "{} called", area.caller());
    assert_eq!(kernel().find(buffer.address).map(|area| area.kind), Some(AreaKind::Dma));
    c_free(&DEVICE, 3 * PAGE_SIZE, buffer);
}

#[ktest]
fn what_c_callers_cannot_have_is_null_and_leaves_the_handle_alone() {
    let books = Books::now();
    let mut dma = UNTOUCHED;
    for (bytes, flags) in [
        (0, AllocationFlags::KERNEL),
        (0, AllocationFlags::ATOMIC),
        (1 << 30, AllocationFlags::KERNEL),
        (u32::MAX, AllocationFlags::KERNEL),
        (u32::MAX, AllocationFlags::ATOMIC),
    ] {
        // SAFETY: a device, and a place for an address.
        let memory = unsafe { dma_alloc_coherent(&raw const DEVICE, bytes, &raw mut dma, flags) };
        assert!(memory.is_null(), "{bytes} bytes");
    }
    // SAFETY: null stands for no device, which is answered.
    let memory =
        unsafe { dma_alloc_coherent(ptr::null(), 1, &raw mut dma, AllocationFlags::KERNEL) };
    assert!(memory.is_null());
    assert_eq!(dma, UNTOUCHED);
    books.assert_unchanged();
}

#[ktest]
fn c_callers_may_free_null_and_are_told_of_double_frees_s67() {
    let books = Books::now();
    let nothing = Buffer { address: VirtAddr::new(0), dma: DmaAddr::new(0) };
    let ((), log) = capture_log(|| c_free(&DEVICE, PAGE_SIZE, nothing));
    assert_eq!(log.text(), "");
    let buffer = c_alloc(&DEVICE, PAGE_SIZE, AllocationFlags::KERNEL.0).expect("memory");
    let ((), log) = capture_log(|| c_free(&DEVICE, PAGE_SIZE, buffer));
    assert_eq!(log.text(), "");
    let ((), log) = capture_log(|| c_free(&DEVICE, PAGE_SIZE, buffer));
    let address = buffer.address.raw();
    let line = alloc::format!("trying to free invalid coherent area: {address:#010x}");
    assert_eq!(log.count(&line), 1, "{log:?}");
    books.assert_unchanged();
}

/// S85: atomic callers are not made to pay for zeros, but may ask for them.
#[ktest]
fn an_atomic_buffer_is_zeroed_only_on_request_s85() -> Completion {
    if atomic_pool::usage().is_none() {
        return Skipped("no atomic pool in this boot");
    }
    let atomic = AllocationFlags::ATOMIC.0;
    let dirty = || {
        let mut dirty = CoherentBox::new_atomic(&DEVICE, 2 * PAGE_SIZE).expect("the pool is free");
        dirty.fill(0x99);
    };
    for (flags, wanted) in [(atomic, 0x9999_9999), (atomic | AllocationFlags::ZERO, 0)] {
        dirty();
        let buffer = c_alloc(&DEVICE, 2 * PAGE_SIZE, flags).expect("the pool is free");
        for offset in (0..2 * PAGE_SIZE).step_by(4) {
            assert_eq!(word_at(plus(buffer.address, offset)), wanted, "flags {flags:#x}");
        }
        c_free(&DEVICE, 2 * PAGE_SIZE, buffer);
    }
    Ran
}

/// S64: the fixed region is gone; its size may still be named, to no effect.
#[ktest]
fn the_size_of_the_old_region_is_accepted_and_ignored_s64() {
    let books = Books::now();
    for bytes in [0, 2 << 20, u32::MAX] {
        init_consistent_dma_size(bytes);
    }
    books.assert_unchanged();
}
