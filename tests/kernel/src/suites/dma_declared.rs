//! Memory that was declared for a device: it answers first, and alone (S78, S102).

extern crate alloc;

use alloc::string::ToString;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use board::vexpress_a9::VRAM;
use dma::atomic_pool;
use dma::coherent::{AllocateError, Buffer, Found, FreeError, allocate, free};
use dma::declared::{DeclareError, ReleaseError};
use dma::device::Device;
use dma::iommu::{AttachError, IommuMapping, NotAttached, detach};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr};
use kerncore::attributes::MemoryType;
use kerncore::coherent::Sleep;
use kerncore::dma_mask::DmaMask;
use kerncore::kernel_space::{RemoveError, ShareError};
use kerncore::pool;
use kerncore::user::ShowError;
use ktest::ktest;
use mm::kernel;

use super::buffers::show;
use super::iommu::{Attached, BASE};
use super::user::at;
use super::user_programs as code;
use super::user_sharing::{WINDOW, waiting};
use super::witness::{Books, NOBODY, ask_host, assert_leads, plus, word_at};

/// Where the device sees its memory.
pub(super) const DMA: DmaAddr = DmaAddr::new(0x0010_0000);
pub(super) const PAGES: u32 = 8;

/// A device with memory of its own.
#[track_caller]
pub(super) fn device() -> Device {
    let device = Device::new("a device with memory");
    let declared = device.declare_memory((VRAM.base, DMA), PAGES * PAGE_SIZE + 5, NOBODY);
    assert_eq!(declared, Ok(()));
    device
}

#[track_caller]
pub(super) fn release(device: &Device) {
    // SAFETY: nobody but the test has the device.
    assert_eq!(unsafe { device.release_memory() }, Ok(()));
}

pub(super) fn try_free(device: &Device, bytes: u32, buffer: Buffer) -> Result<(), FreeError> {
    // SAFETY: no test here has a reference to memory that it gives back; what is no buffer is to be refused.
    unsafe { free(device, bytes, buffer.address, buffer.dma) }
}

/// S102: by order, zeroed, uncached, wherever the device sees it; and when it is full there is no other.
#[ktest]
fn buffers_lie_in_the_memory_of_their_device_and_nowhere_else_s102() {
    let books = Books::now();
    let device = device();
    let in_use = Books::now();
    let taken = atomic_pool::usage().map(|pool| pool.taken);
    let mut buffers = alloc::vec::Vec::new();
    // One page, then four aligned to four, then two that fit between.
    for (pages, first) in [(1, 0), (4, 4), (2, 2)] {
        for sleep in [Sleep::May, Sleep::MayNot] {
            let buffer = allocate(&device, pages * PAGE_SIZE, sleep, NOBODY).expect("room");
            assert_eq!(buffer.dma.raw(), DMA.raw() + first * PAGE_SIZE, "{pages} pages");
            let physical = PhysAddr::new(VRAM.base.raw() + first * PAGE_SIZE);
            assert_leads(buffer.address, physical);
            ask_host(buffer.address);
            let entry = kernel().table().translate(buffer.address).expect("mapped");
            let memory = entry.attributes().expect("as ours are").memory();
            assert_eq!(memory, MemoryType::NormalNonCacheable);
            let words = (0..pages * PAGE_SIZE).step_by(4);
            assert!(words.clone().all(|at| word_at(plus(buffer.address, at)) == 0), "S85");
            // SAFETY: the buffer is the test's own, and it has no reference to it.
            unsafe { arch::probe::write_u32(buffer.address, !0) }.expect("writable");
            if sleep == Sleep::May {
                assert_eq!(try_free(&device, pages * PAGE_SIZE, buffer), Ok(()));
            } else {
                buffers.push((pages * PAGE_SIZE, buffer));
            }
        }
    }
    for sleep in [Sleep::May, Sleep::MayNot] {
        let refused = allocate(&device, 2 * PAGE_SIZE, sleep, NOBODY);
        let error = pool::AllocateError::Exhausted { pages: 2, largest: 1, free: 1, taken: 7 };
        let error = AllocateError::Declared { device: device.name(), error };
        assert_eq!(refused, Err(error), "no other memory is used");
    }
    assert_eq!(atomic_pool::usage().map(|pool| pool.taken), taken);
    in_use.assert_unchanged();
    // SAFETY: nobody but the test has the device.
    let released = unsafe { device.release_memory() };
    assert_eq!(released, Err(ReleaseError::InUse { device: device.name(), pages: 7 }));
    for (bytes, buffer) in buffers {
        assert_eq!(try_free(&device, bytes, buffer), Ok(()));
    }
    release(&device);
    let again = allocate(&device, 1, Sleep::May, NOBODY).expect("memory");
    assert_ne!(again.dma.raw() & !0xffff, DMA.raw(), "RAM again");
    assert_eq!(try_free(&device, 1, again), Ok(()));
    books.assert_unchanged();
}

/// S100: of its own memory, too, a device gets what it reaches, and else learns what there was.
#[ktest]
fn of_a_device_s_own_memory_it_gets_what_it_reaches_s100_s102() {
    let books = Books::now();
    let device = Device::new("a device with memory and few lines");
    // Higher than RAM, since a mask below that is refused.
    let region = DmaAddr::new(0xb000_0000);
    assert_eq!(device.declare_memory((VRAM.base, region), PAGES * PAGE_SIZE, NOBODY), Ok(()));
    let mask = DmaMask::new(u64::from(region.raw()) + 3 * u64::from(PAGE_SIZE) - 1);
    assert_eq!(device.set_coherent_mask(mask), Ok(()));
    let take = |pages| allocate(&device, pages * PAGE_SIZE, Sleep::MayNot, NOBODY);
    let refused = |pages, lowest: u32| {
        let lowest = DmaAddr::new(region.raw() + lowest * PAGE_SIZE);
        let found = Found::Declared { lowest, region, pages: PAGES };
        let bytes = pages * PAGE_SIZE;
        let error = AllocateError::OutOfReach { device: device.name(), mask, bytes, found };
        assert_eq!(take(pages), Err(error), "{pages} pages");
        error
    };
    let text = refused(4, 0).to_string();
    let part = "of its own 8 pages at 0xb0000000 the lowest are at 0xb0000000";
    assert!(text.ends_with(part) && text.contains("reaches up to 0xb0002fff"), "{text}");
    let two = take(2).expect("in reach");
    let one = take(1).expect("in reach");
    assert_eq!((two.dma, one.dma.raw()), (region, region.raw() + 2 * PAGE_SIZE));
    refused(1, 3);
    refused(2, 4);
    assert_eq!(device.set_coherent_mask(DmaMask::ALL), Ok(()));
    let five = take(4).expect("what was refused went back");
    assert_eq!(five.dma.raw(), region.raw() + 4 * PAGE_SIZE);
    for (pages, buffer) in [(2, two), (1, one), (4, five)] {
        assert_eq!(try_free(&device, pages * PAGE_SIZE, buffer), Ok(()));
    }
    release(&device);
    books.assert_unchanged();
}

/// S74, S102: each wrong free is named, and changes nothing.
#[ktest]
fn wrong_frees_of_a_device_s_own_memory_are_refused_s102() {
    let device = device();
    let buffer = allocate(&device, 3 * PAGE_SIZE, Sleep::May, NOBODY).expect("room");
    let refused = |device: &Device, bytes, buffer| {
        let (freed, log) = capture_log(|| try_free(device, bytes, buffer));
        assert!(log.text().contains("Backtrace:"), "{log:?}");
        freed.expect_err("the free was accepted")
    };
    let own = |error| FreeError::Declared { device: device.name(), error };
    let start = buffer.address;
    let size = pool::FreeError::WrongSize { start, pages: 2, allocated: 3 };
    assert_eq!(refused(&device, 2 * PAGE_SIZE, buffer), own(size));
    let given = DmaAddr::new(VRAM.base.raw());
    let handle = FreeError::Handle { address: start, wanted: buffer.dma, given };
    assert_eq!(refused(&device, 3 * PAGE_SIZE, Buffer { dma: given, ..buffer }), handle);
    let inside =
        Buffer { address: plus(start, PAGE_SIZE), dma: DmaAddr::new(buffer.dma.raw() + PAGE_SIZE) };
    let not_a_start = pool::FreeError::NotAStart { start: inside.address, run: start, pages: 3 };
    assert_eq!(refused(&device, 2 * PAGE_SIZE, inside), own(not_a_start));
    // Another device's free does not look there.
    let other = Device::new("another device");
    assert!(matches!(refused(&other, 3 * PAGE_SIZE, buffer), FreeError::Invalid(_)));
    assert_eq!(try_free(&device, 3 * PAGE_SIZE, buffer), Ok(()));
    let twice = pool::FreeError::NotAllocated { start };
    assert_eq!(refused(&device, 3 * PAGE_SIZE, buffer), own(twice));
    release(&device);
}

/// S78: the device's own memory answers first when a program is to see a buffer, and only its buffers are shown.
#[ktest]
fn a_program_sees_a_buffer_in_a_device_s_own_memory_s78_s102() {
    let books = Books::now();
    let device = device();
    let one = allocate(&device, PAGE_SIZE, Sleep::May, NOBODY).expect("room");
    let two = allocate(&device, 2 * PAGE_SIZE, Sleep::May, NOBODY).expect("room");
    let space = waiting(code::exits(), 1);
    let shown = |buffer: Buffer, pages: u32, offset| {
        show(&device, &space, at(WINDOW), (buffer, pages * PAGE_SIZE), offset)
    };
    for offset in [2, 3, u32::MAX] {
        let outside = ShareError::Outside { area: 2, offset, window: 1 };
        assert_eq!(shown(two, 2, offset), Err(ShowError::Share(outside)));
    }
    let address = one.address;
    let unknown = Err(ShowError::Share(ShareError::Unknown { address }));
    assert_eq!(shown(one, 2, 1), unknown, "more than the buffer has");
    assert_eq!(shown(two, 2, 1), Ok(()));
    let seen = space.attributes_at(at(WINDOW)).expect("mapped").memory();
    assert_eq!(seen, MemoryType::NormalNonCacheable, "as the kernel sees it (S97)");
    space.copy_to(at(WINDOW + 8), &77_u32.to_le_bytes()).expect("its own");
    assert_eq!(word_at(plus(two.address, PAGE_SIZE + 8)), 77);
    // It stays while a program sees it, and others do not.
    assert_eq!(try_free(&device, PAGE_SIZE, one), Ok(()));
    let in_use = Err(FreeError::Invalid(RemoveError::InUse { address: two.address, users: 1 }));
    for _ in 0..2 {
        let (freed, log) = capture_log(|| try_free(&device, 2 * PAGE_SIZE, two));
        assert_eq!(freed, in_use);
        assert!(log.text().contains("is seen by programs, in 1 windows"), "{log:?}");
    }
    let next = allocate(&device, 2 * PAGE_SIZE, Sleep::May, NOBODY).expect("room");
    assert_ne!(next.address, two.address);
    // What no program ever sees can be freed anywhere.
    let freed = arch::irq::masked(|| try_free(&device, 2 * PAGE_SIZE, next));
    assert_eq!(freed, Ok(()));
    let mut word = [0; 4];
    space.copy_from(&mut word, at(WINDOW + 8)).expect("its own");
    assert_eq!(u32::from_le_bytes(word), 77);
    // SAFETY: nobody but the test has the device.
    let released = unsafe { device.release_memory() };
    assert_eq!(released, Err(ReleaseError::InUse { device: device.name(), pages: 2 }));
    drop(space);
    assert_eq!(try_free(&device, 2 * PAGE_SIZE, two), Ok(()));
    assert!(try_free(&device, 2 * PAGE_SIZE, two).is_err(), "twice");
    release(&device);
    books.assert_unchanged();
}

/// S102: who has a window of the mapping by other means keeps that, too.
#[ktest]
fn a_mapping_that_a_program_sees_is_not_released_s102() {
    let books = Books::now();
    let device = device();
    let buffer = allocate(&device, PAGE_SIZE, Sleep::May, NOBODY).expect("room");
    let space = waiting(code::exits(), 1);
    let shown = space.show_device_memory(at(WINDOW), (buffer.address, VRAM.base), 3, || Ok(()));
    assert_eq!(shown, Ok(()));
    assert_eq!(try_free(&device, PAGE_SIZE, buffer), Ok(()));
    // SAFETY: nobody but the test has the device.
    let released = unsafe { device.release_memory() };
    assert!(matches!(released, Err(ReleaseError::Unmap(_))), "{released:?}");
    drop(space);
    release(&device);
    books.assert_unchanged();
}

/// S78: on four CPUs, buffers are shown, freed and seen no more, and nobody ever sees another's.
#[ktest]
fn no_program_sees_what_was_another_s_buffer_s78_s102() {
    let books = Books::now();
    let device = device();
    let refused = AtomicU32::new(0);
    arch::smp::run_on_each(|cpu| {
        for round in 0..20 {
            let buffer = allocate(&device, PAGE_SIZE, Sleep::May, NOBODY).expect("a page for each");
            let own = 1 + cpu * 1000 + round;
            // SAFETY: the buffer is this CPU's own, and it has no reference to it.
            unsafe { arch::probe::write_u32(buffer.address, own) }.expect("writable");
            let space = waiting(code::exits(), 1);
            assert_eq!(show(&device, &space, at(WINDOW), (buffer, PAGE_SIZE), 0), Ok(()));
            refused.fetch_add(try_free(&device, PAGE_SIZE, buffer).is_err().into(), Relaxed);
            let mut word = [0; 4];
            space.copy_from(&mut word, at(WINDOW)).expect("its own");
            assert_eq!(u32::from_le_bytes(word), own);
            drop(space);
            assert_eq!(try_free(&device, PAGE_SIZE, buffer), Ok(()));
        }
    });
    assert_eq!(refused.load(Relaxed) % 20, 0);
    assert_ne!(refused.load(Relaxed), 0);
    release(&device);
    books.assert_unchanged();
}

#[ktest]
fn what_cannot_be_a_device_s_own_memory_is_refused_s102() {
    let books = Books::now();
    let device = Device::new("a device with memory");
    let declare = |physical: u32, dma: u32, bytes| {
        let place = (PhysAddr::new(physical), DmaAddr::new(dma));
        device.declare_memory(place, bytes, NOBODY)
    };
    let (base, dma) = (VRAM.base.raw(), DMA.raw());
    for (physical, dma) in [(base + 4, dma), (base, dma + 4)] {
        let (physical, dma) = (PhysAddr::new(physical), DmaAddr::new(dma));
        let error = Err(DeclareError::Misaligned { physical, dma });
        assert_eq!(device.declare_memory((physical, dma), PAGE_SIZE, NOBODY), error);
    }
    for bytes in [0, PAGE_SIZE - 1] {
        let error = DeclareError::Pages(pool::NewError::NoPages { bytes });
        assert_eq!(declare(base, dma, bytes), Err(error));
    }
    let wraps = DeclareError::Wraps { dma: DmaAddr::new(0xffff_f000), bytes: 2 * PAGE_SIZE };
    assert_eq!(declare(base, 0xffff_f000, 2 * PAGE_SIZE), Err(wraps));
    let ram = kernel().zones().table().first().base().raw();
    assert!(matches!(declare(ram, dma, PAGE_SIZE), Err(DeclareError::Map(_))));
    // SAFETY: nobody but the test has the device.
    let released = unsafe { device.release_memory() };
    assert_eq!(released, Err(ReleaseError::None { device: device.name() }));
    assert_eq!(declare(base, dma, PAGE_SIZE), Ok(()));
    let again = Err(DeclareError::Again { device: device.name() });
    assert_eq!(declare(base + PAGE_SIZE, dma, PAGE_SIZE), again);
    release(&device);
    books.assert_unchanged();
}

/// Buffers would be taken from there and looked for in what the IOMMU shows.
#[ktest]
fn a_device_behind_an_iommu_has_no_memory_of_its_own_s102_s108() {
    static DEVICE: Device = Device::new("a device behind an iommu");
    let books = Books::now();
    let attached = Attached::new(&DEVICE, 1 << 20);
    let declare = || DEVICE.declare_memory((VRAM.base, DMA), PAGE_SIZE, NOBODY);
    let device = DEVICE.name();
    assert_eq!(declare(), Err(DeclareError::Iommu { device }));
    assert_eq!(DeclareError::Iommu { device }.to_string().find(device), Some(0));
    drop(attached);
    assert_eq!(declare(), Ok(()));
    release(&DEVICE);
    books.assert_unchanged();
}

/// What the IOMMU would show it lies beside that.
#[ktest]
fn a_device_with_memory_of_its_own_is_put_behind_no_iommu_s102_s108() {
    let books = Books::now();
    let device = device();
    let mapping = IommuMapping::new(BASE, 1 << 20).expect("memory");
    let name = device.name();
    for _ in 0..2 {
        // SAFETY: to be refused.
        let refused = unsafe { mapping.attach(&device) };
        assert_eq!(refused, Err(AttachError::Declared { device: name }));
        assert_eq!((mapping.holders(), device.iommu().is_none()), (1, true));
    }
    assert_eq!(AttachError::Declared { device: name }.to_string().find(name), Some(0));
    // SAFETY: as above.
    assert_eq!(unsafe { detach(&device) }, Err(NotAttached { device: name }));
    let buffer = allocate(&device, PAGE_SIZE, Sleep::May, NOBODY).expect("room");
    assert_eq!(buffer.dma, DMA, "its own as before");
    assert_eq!(try_free(&device, PAGE_SIZE, buffer), Ok(()));
    release(&device);
    // SAFETY: the device has nothing.
    assert_eq!(unsafe { mapping.attach(&device) }, Ok(()));
    // SAFETY: as above.
    assert_eq!(unsafe { detach(&device) }, Ok(()));
    drop(mapping);
    books.assert_unchanged();
}
