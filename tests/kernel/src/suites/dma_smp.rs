//! DMA by all CPUs at once: blocks of one pool, cookies, a device's own memory, copies, and masks that change meanwhile (S102 to S106,
//! S116). Nobody gets what another has, and nothing is left.

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arch::{cpu, irq, smp};
use board::vexpress_a9::VRAM;
use dma::atomic_pool;
use dma::attributes;
use dma::bounce::usage;
use dma::coherent::{self, Buffer};
use dma::device::Device;
use dma::dma_pool::DmaPool;
use dma::mapping::Streaming;
use kerncore::addr::{DmaAddr, PAGE_SIZE};
use kerncore::coherent::Sleep;
use kerncore::dma_attributes::DmaAttributes;
use kerncore::dma_mask::DmaMask;
use kerncore::streaming::{Bidirectional, FromDevice};
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;

use super::smp::Barrier;
use super::witness::{Books, NOBODY};

static DEVICE: Device = Device::new("everybody's device");
static OWN: Device = Device::new("everybody's device with memory");

const ROUNDS: u32 = 60;

/// The words of a buffer, which is the caller's alone.
fn words(buffer: Buffer, bytes: u32) -> impl Iterator<Item = *mut u32> {
    let first: *mut u32 = ptr::with_exposed_provenance_mut(buffer.address.raw() as usize);
    (0..bytes as usize / 4).map(move |index| first.wrapping_add(index))
}

/// Writes a mark all over a buffer and, after a while, finds it there: nobody else has it.
fn use_alone(buffer: Buffer, bytes: u32, mark: u32) {
    for word in words(buffer, bytes) {
        // SAFETY: the buffer is the caller's, mapped and writable.
        unsafe { word.write_volatile(mark) };
    }
    for word in words(buffer, bytes) {
        // SAFETY: as above.
        assert_eq!(unsafe { word.read_volatile() }, mark, "somebody else wrote at {word:p}");
    }
}

/// Does `work` on every CPU, with the number of the CPU and of the round.
fn by_all(work: impl Fn(u32, u32) + Sync) {
    let barrier = Barrier::new();
    smp::run_on_each(|cpu| {
        barrier.wait();
        for round in 0..ROUNDS {
            smp::beat();
            work(cpu, round);
        }
    });
}

/// S103: each block is one CPU's at a time, with interrupts on or off, and every one comes back.
#[ktest]
fn all_cpus_take_blocks_of_one_pool_s103_s116() -> Completion {
    if atomic_pool::usage().is_none_or(|pool| pool.pages < 64) {
        return Skipped("no atomic pool of 64 pages in this boot");
    }
    let books = Books::now();
    for (size, boundary) in [(64, 0), (1000, 1024), (5000, 0)] {
        let pool = DmaPool::new("everybody's", &DEVICE, size, 4, boundary).expect("a layout");
        by_all(|cpu, round| {
            let mark = cpu << 16 | round;
            let sleep = if round % 3 == 0 { Sleep::May } else { Sleep::MayNot };
            let blocks: Vec<Buffer> =
                (0..=round % 3).filter_map(|_| pool.allocate(sleep, NOBODY).ok()).collect();
            assert!(!blocks.is_empty(), "no block on CPU {cpu}");
            for &block in &blocks {
                use_alone(block, size, mark);
            }
            for block in blocks {
                let freed = if round % 2 == 0 {
                    irq::masked(|| pool.free(block))
                } else {
                    pool.free(block)
                };
                assert_eq!(freed, Ok(()));
            }
        });
        // SAFETY: nobody uses a block.
        assert_eq!(unsafe { pool.destroy() }, 0);
    }
    books.assert_unchanged();
    Ran
}

/// S99: each cookie is its taker's, and the buffer behind it nobody else's.
#[ktest]
fn all_cpus_have_cookies_of_their_own_s99_s116() {
    let books = Books::now();
    let hidden = DmaAttributes::NO_KERNEL_MAPPING;
    by_all(|cpu, round| {
        let bytes = (1 + round % 4) * PAGE_SIZE;
        let given = attributes::allocate(&DEVICE, bytes, Sleep::May, hidden, NOBODY);
        let given = given.expect("memory");
        let behind = attributes::revealed(&DEVICE, given, hidden).expect("its own cookie");
        assert_eq!(behind.dma, given.dma);
        use_alone(behind, bytes, cpu << 16 | round);
        // SAFETY: no reference to its memory was made.
        assert_eq!(unsafe { attributes::free(&DEVICE, bytes, given, hidden) }, Ok(()));
    });
    books.assert_unchanged();
}

/// S102: a device's own memory, by all at once, while there is more and less of it.
#[ktest]
fn all_cpus_share_a_device_s_own_memory_s102_s116() {
    let books = Books::now();
    let place = (VRAM.base, DmaAddr::new(0x0010_0000));
    assert_eq!(OWN.declare_memory(place, 64 * PAGE_SIZE, NOBODY), Ok(()));
    by_all(|cpu, round| {
        let bytes = (1 + (round + cpu) % 5) * PAGE_SIZE;
        let buffer = coherent::allocate(&OWN, bytes, Sleep::MayNot, NOBODY).expect("room");
        use_alone(buffer, bytes, cpu << 16 | round);
        // SAFETY: no reference to its memory was made.
        let freed = unsafe { coherent::free(&OWN, bytes, buffer.address, buffer.dma) };
        assert_eq!(freed, Ok(()));
    });
    // SAFETY: nobody uses the device any more.
    assert_eq!(unsafe { OWN.release_memory() }, Ok(()));
    books.assert_unchanged();
}

/// S100, S102: masks are set by one CPU while another declares memory of the device's own: whatever comes between, what is allocated
/// after that lies there, and after the end of it elsewhere.
#[ktest]
fn a_mask_that_is_set_meanwhile_does_not_hide_a_device_s_own_memory_s100_s102_s116() {
    static SHARED: Device = Device::new("a device with memory and masks");
    static OVER: AtomicBool = AtomicBool::new(false);
    let books = Books::now();
    OVER.store(false, Relaxed);
    let here = cpu::id();
    smp::run_on_each(|number| {
        if number != here {
            while !OVER.load(Relaxed) {
                assert_eq!(SHARED.set_coherent_mask(DmaMask::ALL), Ok(()));
                smp::beat();
                smp::stop_if_ended();
                // Where CPUs take turns, the next one's.
                cpu::relax();
            }
            return;
        }
        for round in 0..ROUNDS {
            smp::beat();
            let own = DmaAddr::new(0x0010_0000);
            assert_eq!(SHARED.declare_memory((VRAM.base, own), 2 * PAGE_SIZE, NOBODY), Ok(()));
            for is_own in [true, false] {
                for _ in 0..50 {
                    let buffer =
                        coherent::allocate(&SHARED, 1, Sleep::May, NOBODY).expect("memory");
                    assert_eq!(buffer.dma == own, is_own, "round {round}: {}", buffer.dma);
                    // SAFETY: the test's own, without a reference.
                    let freed = unsafe { coherent::free(&SHARED, 1, buffer.address, buffer.dma) };
                    assert_eq!(freed, Ok(()));
                }
                if is_own {
                    // SAFETY: nobody but this CPU has buffers of the device.
                    assert_eq!(unsafe { SHARED.release_memory() }, Ok(()));
                }
            }
        }
        OVER.store(true, Relaxed);
    });
    books.assert_unchanged();
}

/// S105, S106: buffers that are copied go out and come back whole; slots are one buffer's at a time.
#[ktest]
fn all_cpus_map_buffers_that_are_copied_s105_s106_s116() {
    by_all(|cpu, round| {
        let mark = u8::try_from(cpu * 64 + round).expect("four CPUs, 60 rounds");
        let bytes = 1 + (round as usize * 997 + cpu as usize * 131) % 9000;
        let buffer = vec![mark; bytes];
        // All may be taken by others.
        let Ok(mut mapped) = Streaming::<Bidirectional, _>::map(&DEVICE, buffer) else { return };
        // SAFETY: there is no device.
        let mut synced = unsafe { mapped.sync_for_cpu() }.expect("nothing to map");
        assert!(synced.iter().all(|&byte| byte == mark), "another's bytes on CPU {cpu}");
        synced.fill(!mark);
        drop(synced);
        // SAFETY: as above.
        let buffer = unsafe { mapped.unmap() }.expect("nothing to map");
        assert!(buffer.iter().all(|&byte| byte == !mark), "another's bytes on CPU {cpu}");
    });
    assert_eq!(usage().taken, 0);
    // What is left in the slots is nobody's secret, but nobody's bytes come out of them either.
    let clean = vec![0_u8; 9000];
    let mapped = Streaming::<FromDevice, _>::map(&DEVICE, clean).expect("slots");
    // SAFETY: there is no device.
    let clean = unsafe { mapped.unmap() }.expect("nothing to map");
    assert!(clean.iter().all(|&byte| byte == 0), "what the device left alone");
}

/// S100: a mask that changes meanwhile is the old one or the new one, for each buffer.
#[ktest]
fn a_mask_that_changes_meanwhile_is_the_old_or_the_new_s100_s116() {
    let books = Books::now();
    let device = Device::new("a device of two minds");
    let first = mm::kernel().zones().table().first().base().raw();
    let low = DmaMask::new(u64::from(first) + (32 << 20) - 1);
    by_all(|cpu, round| {
        if cpu == 0 {
            let mask = if round % 2 == 0 { low } else { DmaMask::ALL };
            assert_eq!(device.set_mask_and_coherent(mask), Ok(()));
        }
        let sleep = if round % 2 == 0 { Sleep::May } else { Sleep::MayNot };
        let Ok(buffer) = coherent::allocate(&device, PAGE_SIZE, sleep, NOBODY) else { return };
        use_alone(buffer, PAGE_SIZE, cpu << 16 | round);
        // SAFETY: no reference to its memory was made.
        let freed = unsafe { coherent::free(&device, PAGE_SIZE, buffer.address, buffer.dma) };
        assert_eq!(freed, Ok(()));
    });
    books.assert_unchanged();
}
