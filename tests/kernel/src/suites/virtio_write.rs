//! A disk that is written by the device's DMA out of memory of every kind, and looked at by the host in the end.
//!
//! ```text
//!   sector 0        64         128        192        256                         512
//!          ├ linear ─┼ heap ────┼ coherent ┼ pool ────┼ never written, zero ───────┤
//! ```
//! Byte n of the disk, where it was written, is byte n of what [`SEED`] gives: the host (`tests/host`, `devices`) compares all.

extern crate alloc;

use dma::bounce::largest_copy;
use drivers::virtio::block::{Disk, SECTOR, is_disk};
use drivers::virtio::completion::Completion as DeviceInterrupt;
use drivers::virtio::{RequestError, Wait};
use ktest::Completion;
use ktest::ktest;
use mm::io_mem::IoMem;
use virtio_drivers::Error;
use virtio_hal::Slot;

use super::virtio_devices::{KINDS, Kind, assert_known, fill_known, with_device};

pub(super) const NONE: &str = "no virtio slot holds a disk that may be written";

/// What the disk's bytes are made of in the end.
const SEED: u64 = 0x6469_736b;

/// Sectors that are written from memory of one kind.
const REGION: u64 = 64;

static INTERRUPT: DeviceInterrupt = DeviceInterrupt::new();

pub(super) fn is_writable(slot: &mut IoMem<Slot>) -> bool {
    is_disk(slot) && Disk::new(slot, Wait::Polling).is_ok_and(|disk| !disk.is_read_only())
}

/// How many requests are made of so many bytes.
fn requests_for(bytes: usize) -> u32 {
    let most = largest_copy().map_or(64 << 10, |copy| copy.min(64 << 10));
    u32::try_from(bytes).expect("few").div_ceil(most)
}

/// Writes and reads a region by requests of some sizes, first other bytes than those which stay.
fn write_from(kind: Kind, first: u64) -> Completion {
    with_device(is_writable, NONE, &INTERRUPT, |slot| {
        let mut disk = Disk::new(slot, Wait::Interrupt).expect("a disk that comes up");
        let before = INTERRUPT.taken();
        let mut requests = 0;
        for seed in [SEED + 1, SEED] {
            let (mut sector, mut count) = (0, 1);
            while sector < REGION {
                let bytes = usize::try_from(count).expect("few") * SECTOR;
                let place = (first + sector) * SECTOR as u64;
                let mut memory = kind.memory(bytes);
                fill_known(&mut memory, seed, place);
                assert_eq!(disk.write(first + sector, &memory), Ok(()));
                assert_known(&memory, seed, place, "what was written has changed");
                memory.fill(0xee);
                assert_eq!(disk.read(first + sector, &mut memory), Ok(()));
                assert_known(&memory, seed, place, "read back");
                requests += 2 * requests_for(bytes);
                sector += count;
                count = (count * 2).min(REGION - sector);
            }
        }
        assert_eq!(INTERRUPT.taken().wrapping_sub(before), requests, "one interrupt a request");
    })
}

#[ktest]
fn sectors_are_written_from_the_linear_map() -> Completion {
    write_from(Kind::Linear, 0)
}

#[ktest]
fn sectors_are_written_from_the_heap() -> Completion {
    write_from(Kind::Heap, REGION)
}

#[ktest]
fn sectors_are_written_from_coherent_memory() -> Completion {
    write_from(Kind::Coherent, 2 * REGION)
}

#[ktest]
fn sectors_are_written_from_the_atomic_pool() -> Completion {
    write_from(Kind::Pool, 3 * REGION)
}

/// More than one request holds: each part goes to its own place and comes from there.
#[ktest]
fn all_regions_are_written_and_read_at_once() -> Completion {
    with_device(is_writable, NONE, &INTERRUPT, |slot| {
        let mut disk = Disk::new(slot, Wait::Interrupt).expect("a disk that comes up");
        let bytes = usize::try_from(4 * REGION).expect("few") * SECTOR;
        let mut memory = Kind::Heap.memory(bytes);
        for seed in [SEED + 2, SEED] {
            fill_known(&mut memory, seed, 0);
            assert_eq!(disk.write(0, &memory), Ok(()));
            assert_eq!(disk.flush(), Ok(()));
            assert_known(&memory, seed, 0, "what was written has changed");
            memory.fill(0xee);
            assert_eq!(disk.read(0, &mut memory), Ok(()));
            assert_known(&memory, seed, 0, "read back");
            let mut part = Kind::Linear.memory(7 * SECTOR);
            for first in (0..4 * REGION - 7).step_by(61) {
                assert_eq!(disk.read(first, &mut part), Ok(()));
                assert_known(&part, seed, first * SECTOR as u64, "read back in parts");
            }
        }
    })
}

#[ktest]
fn sectors_are_read_into_memory_of_each_kind() -> Completion {
    with_device(is_disk, "no virtio slot holds a disk", &INTERRUPT, |slot| {
        let mut disk = Disk::new(slot, Wait::Interrupt).expect("a disk that comes up");
        let sectors = disk.sectors();
        let mut wanted = alloc::vec![0; 8 * SECTOR];
        for (number, kind) in (1_u64..).zip(KINDS) {
            let first = (number * 331) % (sectors - 8);
            assert_eq!(disk.read(first, &mut wanted), Ok(()));
            let mut memory = kind.memory(8 * SECTOR);
            memory.fill(0xee);
            assert_eq!(disk.read(first, &mut memory), Ok(()));
            assert!(*memory == *wanted, "{kind:?}: sector {first} differs");
        }
    })
}

#[ktest]
fn what_cannot_be_written_is_refused() -> Completion {
    with_device(is_writable, NONE, &INTERRUPT, |slot| {
        let mut disk = Disk::new(slot, Wait::Interrupt).expect("a disk that comes up");
        let (end, sector) = (disk.sectors(), [0x5a; SECTOR]);
        assert_eq!(disk.write(end, &sector), Err(RequestError::Device(Error::IoError)));
        for bytes in [0, 1, SECTOR - 1] {
            assert_eq!(
                disk.write(0, &sector[..bytes]),
                Err(RequestError::Device(Error::InvalidParam))
            );
        }
    })
}

/// The disk of `scripts/mkdisk` may not be written.
#[ktest]
fn a_disk_that_may_not_be_written_refuses() -> Completion {
    let is_read_only = |slot: &mut IoMem<Slot>| is_disk(slot) && !is_writable(slot);
    with_device(is_read_only, "no virtio slot holds such a disk", &INTERRUPT, |slot| {
        let mut disk = Disk::new(slot, Wait::Interrupt).expect("a disk that comes up");
        let (mut before, mut after) = ([0; SECTOR], [0; SECTOR]);
        assert_eq!(disk.read(1, &mut before), Ok(()));
        assert_eq!(disk.write(1, &[0x5a; SECTOR]), Err(RequestError::Device(Error::IoError)));
        assert_eq!(disk.read(1, &mut after), Ok(()));
        assert_eq!(before, after);
    })
}
