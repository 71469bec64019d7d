//! A disk, read by the device's DMA into every kind of memory that Rust code may have.
//!
//! The disk is the one that `scripts/mkdisk` makes: sector n holds n in 511 decimal digits and a line feed. Without a disk
//! what depends on it is skipped; another disk is not taken for a reason to skip, since wrong bytes would be one as well.

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec::Vec;

use board::vexpress_a9::{SYSTEM_REGISTERS, VIRTIO_INTERRUPTS, VIRTIO_SLOTS};
use dma::atomic_pool;
use drivers::interrupts::InterruptError;
use drivers::virtio::block::{Disk, SECTOR, is_disk};
use drivers::virtio::completion::Completion as DiskInterrupt;
use drivers::virtio::transport::SlotError;
use drivers::virtio::{DeviceError, RequestError, Wait};
use kerncore::addr::PAGE_SIZE;
use ktest::Completion::{self, Ran, Skipped};
use ktest::{assert_err, ktest};
use mm::io_mem::IoMem;
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;
use virtio_drivers::Error;
use virtio_hal::{Slot, shared_buffers};

use super::virtio_devices::without_memory;
use super::witness::{Books, ask_host_of, each_page, feed, frame_at, starve};

const NO_DISK: Completion = Skipped("no virtio slot holds a disk");

/// Byte `index` of sector `number`.
fn byte_of(number: u64, index: usize) -> u8 {
    if index == SECTOR - 1 {
        return b'\n';
    }
    let place = u32::try_from(SECTOR - 2 - index).expect("below 512");
    let digit = 10_u64.checked_pow(place).map_or(0, |power| number / power % 10);
    b'0' + u8::try_from(digit).expect("a digit")
}

#[track_caller]
fn assert_sectors(buffer: &[u8], first: u64) {
    for (number, sector) in (first..).zip(buffer.chunks(SECTOR)) {
        let wrong = (0..sector.len()).find(|&index| sector[index] != byte_of(number, index));
        assert_eq!(wrong, None, "sector {number} is not what the host wrote");
    }
}

/// The registers of the first slot that holds a disk.
fn slot() -> Option<IoMem<Slot>> {
    numbered_slot().map(|(_, registers)| registers)
}

fn numbered_slot() -> Option<(usize, IoMem<Slot>)> {
    VIRTIO_SLOTS.iter().enumerate().find_map(|(number, slot)| {
        let mut registers = IoMem::map(slot.base).expect("addresses");
        is_disk(&mut registers).then_some((number, registers))
    })
}

/// Runs `test` on the disk, and makes sure that nothing of it stays.
fn with_disk(test: impl FnOnce(&mut Disk<'_>)) -> Completion {
    let books = Books::now();
    let pool = atomic_pool::usage();
    let Some(mut registers) = slot() else { return NO_DISK };
    let mut disk = Disk::new(&mut registers, Wait::Polling).expect("a disk that comes up");
    assert!(disk.sectors() >= 64, "this is not the disk of scripts/mkdisk");
    test(&mut disk);
    assert_eq!(shared_buffers(), 0, "buffers that the device still has");
    drop(disk);
    drop(registers);
    books.assert_unchanged();
    assert_eq!(atomic_pool::usage(), pool);
    Ran
}

#[ktest]
fn every_sector_of_the_disk_holds_its_number() -> Completion {
    with_disk(|disk| {
        let mut buffer = alloc::vec![0; 16 * SECTOR];
        let sectors = disk.sectors();
        let mut sector = 0;
        while sector < sectors {
            let count = usize::try_from(sectors - sector).expect("a small disk").min(16);
            let part = &mut buffer[..count * SECTOR];
            part.fill(0xee);
            assert_eq!(disk.read(sector, part), Ok(()));
            assert_sectors(part, sector);
            sector += count as u64;
        }
    })
}

#[ktest]
fn requests_of_1_to_16_sectors_read_just_those() -> Completion {
    with_disk(|disk| {
        let mut buffer = alloc::vec![0; 18 * SECTOR];
        for count in 1..=16 {
            for first in [0, 1, 7, disk.sectors() - count as u64] {
                buffer.fill(0xee);
                let part = &mut buffer[SECTOR..(1 + count) * SECTOR];
                assert_eq!(disk.read(first, part), Ok(()));
                assert_sectors(part, first);
                let beside = (&buffer[..SECTOR], &buffer[(1 + count) * SECTOR..]);
                assert!(beside.0.iter().chain(beside.1).all(|&byte| byte == 0xee), "{count}");
            }
        }
    })
}

/// Neither the stack nor an odd address is a device's business: the bytes are copied.
#[ktest]
fn buffers_on_the_stack_at_any_address_are_read_into() -> Completion {
    with_disk(|disk| {
        for offset in [0, 1, 2, 3, 5, 17, 511] {
            let mut stack = [0xee_u8; 3 * SECTOR];
            assert_eq!(disk.read(3, &mut stack[offset..offset + 2 * SECTOR]), Ok(()));
            assert_sectors(&stack[offset..offset + 2 * SECTOR], 3);
            assert!(stack[..offset].iter().all(|&byte| byte == 0xee));
            assert!(stack[offset + 2 * SECTOR..].iter().all(|&byte| byte == 0xee));
        }
    })
}

/// Frames that are not adjacent, behind addresses that are; and a request that crosses the pages at an odd place.
#[ktest]
fn vmalloc_memory_over_scattered_frames_is_read_into() -> Completion {
    with_disk(|disk| {
        // Its tables are there when there is no memory for more.
        drop(VmArea::new(16 * PAGE_SIZE).expect("memory"));
        // While every other frame is all that is free, the area's frames lie apart.
        let mut pages: Vec<_> = (0..64).map(|_| Pages::new(0).ok()).collect();
        pages.sort_by_key(|page| page.as_ref().map(Pages::first));
        let list = starve(0);
        pages.iter_mut().step_by(2).for_each(|page| *page = None);
        let area = VmArea::new(16 * PAGE_SIZE);
        feed(list);
        let mut area = area.expect("half of 64 frames are free");
        let frames: Vec<_> = each_page(area.pages()).map(frame_at).collect();
        let apart = frames.windows(2).all(|pair| pair[0].checked_add(1) != Some(pair[1]));
        assert!(apart, "frames are adjacent: this test has no teeth");
        let buffer = &mut area[PAGE_SIZE as usize - 77..][..60 * SECTOR];
        buffer.fill(0xee);
        assert_eq!(disk.read(2, buffer), Ok(()));
        assert_sectors(buffer, 2);
        ask_host_of(area.pages());
    })
}

/// More than any contiguous block holds: the driver cuts it into requests.
#[ktest]
fn a_buffer_larger_than_any_block_of_frames_is_read_in_parts() -> Completion {
    with_disk(|disk| {
        let mut large = VmArea::new(5 << 20).expect("memory");
        let whole = usize::try_from(disk.sectors()).expect("a small disk") * SECTOR;
        let fits = whole.min(large.len());
        let part = &mut large[..fits];
        part.fill(0xee);
        assert_eq!(disk.read(0, part), Ok(()));
        assert_sectors(part, 0);
        // And one that goes on behind the disk's end is an error, not a panic.
        if whole < large.len() {
            assert_eq!(disk.read(0, &mut large), Err(RequestError::Device(Error::IoError)));
        }
    })
}

#[ktest]
fn sectors_behind_the_end_are_errors_and_the_disk_goes_on() -> Completion {
    with_disk(|disk| {
        let end = disk.sectors();
        let mut buffer = [0; 2 * SECTOR];
        for sector in [end, end + 1, end - 1, u64::from(u32::MAX)] {
            assert_eq!(
                disk.read(sector, &mut buffer),
                Err(RequestError::Device(Error::IoError)),
                "{sector}"
            );
            assert_eq!(shared_buffers(), 0);
        }
        for sector in [1 << 32, u64::MAX] {
            assert_eq!(
                disk.read(sector, &mut buffer),
                Err(RequestError::Device(Error::InvalidParam))
            );
        }
        for bytes in [0, 1, SECTOR - 1, SECTOR + 1, 2 * SECTOR - 1] {
            assert_eq!(
                disk.read(0, &mut buffer[..bytes]),
                Err(RequestError::Device(Error::InvalidParam)),
                "{bytes}"
            );
        }
        assert_eq!(disk.read(end - 2, &mut buffer), Ok(()));
        assert_sectors(&buffer, end - 2);
    })
}

/// The ring's indices pass 2¹⁶ only after very many requests; its sixteen places are used up much earlier.
#[ktest]
fn many_requests_one_after_the_other_leave_nothing_behind() -> Completion {
    with_disk(|disk| {
        let books = Books::now();
        let mut buffer = [0; SECTOR];
        for number in 0..200 {
            let sector = number * 13 % disk.sectors();
            assert_eq!(disk.read(sector, &mut buffer), Ok(()));
            assert_sectors(&buffer, sector);
            // Looking at all of RAM takes longer than a request.
            if number % 20 == 0 {
                books.assert_unchanged();
            }
        }
        books.assert_unchanged();
    })
}

/// S115: the device says that it is done by its interrupt, for each request, and whoever waits sleeps until then.
#[ktest]
fn requests_are_waited_for_asleep_s115() -> Completion {
    static INTERRUPT: DiskInterrupt = DiskInterrupt::new();
    let books = Books::now();
    let Some((number, mut registers)) = numbered_slot() else { return NO_DISK };
    let line = VIRTIO_INTERRUPTS[number].id();
    let map = || IoMem::map(VIRTIO_SLOTS[number].base).expect("addresses");
    assert_eq!(INTERRUPT.stop(line), Err(InterruptError::Free { line }));
    assert_eq!(INTERRUPT.listen(map(), line), Ok(()));
    assert_eq!(INTERRUPT.listen(map(), line), Err(InterruptError::Taken { line }));
    let before = INTERRUPT.taken();
    let mut disk = Disk::new(&mut registers, Wait::Interrupt).expect("a disk that comes up");
    let mut buffer = alloc::vec![0; 3 * SECTOR];
    for first in 0..32 {
        buffer.fill(0xee);
        assert_eq!(disk.read(first, &mut buffer), Ok(()));
        assert_sectors(&buffer, first);
    }
    assert_err!(disk.read(disk.sectors(), &mut buffer), RequestError::Device(Error::IoError));
    // One may come for two requests if the first is looked for while the second is made; here each is waited for.
    assert_eq!(INTERRUPT.taken().wrapping_sub(before), 33, "one interrupt a request");
    // A flush is looked for, and whoever waits for what comes behind it sleeps again.
    let before = INTERRUPT.taken();
    assert_eq!(disk.flush(), Ok(()));
    assert_eq!(disk.read(7, &mut buffer), Ok(()));
    assert_sectors(&buffer, 7);
    assert_ne!(INTERRUPT.taken(), before, "nobody was woken");
    drop(disk);
    assert_eq!(INTERRUPT.stop(line), Ok(()));
    drop(registers);
    books.assert_unchanged();
    Ran
}

/// Where one may not sleep, or with interrupts masked, the ring is looked at.
#[ktest]
fn requests_are_polled_for_with_interrupts_masked() -> Completion {
    with_disk(|disk| {
        let mut buffer = [0; SECTOR];
        assert_eq!(arch::irq::masked(|| disk.read(5, &mut buffer)), Ok(()));
        assert_sectors(&buffer, 5);
    })
}

/// Each start resets the device; each end takes its rings away before their memory goes.
#[ktest]
fn a_disk_comes_up_again_and_again() -> Completion {
    if with_disk(|_| {}) == NO_DISK {
        return NO_DISK;
    }
    let mut buffer = Box::new([0; SECTOR]);
    let books = Books::now();
    for round in 0..20 {
        let mut registers = slot().expect("the disk is still there");
        for sector in [round, round + 1] {
            // Every other time without a request in between.
            let mut disk = Disk::new(&mut registers, Wait::Polling).expect("a disk that comes up");
            if sector % 2 == 0 {
                assert_eq!(disk.read(sector, &mut *buffer), Ok(()));
                assert_sectors(&*buffer, sector);
            }
        }
        drop(registers);
        books.assert_unchanged();
    }
    Ran
}

/// Without memory for its rings, two pages, and its headers the disk does not come up; the device is reset, and comes up later.
#[ktest]
fn a_disk_without_memory_for_its_rings_takes_nothing() -> Completion {
    let Some(mut registers) = slot() else { return NO_DISK };
    let before = Books::now();
    for frames in 0..3 {
        let refused = without_memory(frames, || Disk::new(&mut registers, Wait::Polling).map(drop));
        let none = DeviceError::Device(RequestError::Device(Error::DmaError));
        assert_eq!(refused, Err(none), "{frames}");
    }
    Disk::new(&mut registers, Wait::Polling).expect("a disk that comes up now");
    before.assert_unchanged();
    Ran
}

#[ktest]
fn slots_without_a_disk_say_so_and_take_nothing() {
    for slot in VIRTIO_SLOTS {
        let books = Books::now();
        let mut registers = IoMem::map(slot.base).expect("addresses");
        if !is_disk(&mut registers) {
            assert_err!(
                Disk::new(&mut registers, Wait::Polling),
                DeviceError::Slot(SlotError::Empty | SlotError::Other { wanted: 2, .. })
            );
        }
        drop(registers);
        books.assert_unchanged();
    }
}

/// The system registers, whose first ones can all be read without harm.
#[ktest]
fn other_registers_are_no_slot() {
    let mut registers = IoMem::map(SYSTEM_REGISTERS.base).expect("addresses");
    assert_err!(
        Disk::new(&mut registers, Wait::Polling),
        DeviceError::Slot(SlotError::NotVirtio { .. })
    );
}
