//! Buffers in a device's own memory, and the programs that are shown them: what keeps a buffer, what does not, and who may free it where
//! (S46, S77, S78, S102).

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use arch::{cpu, smp};
use board::vexpress_a9::VRAM;
use dma::coherent::{Buffer, FreeError, allocate};
use dma::device::Device;
use image::capture::capture_log;
use kerncore::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::coherent::Sleep;
use kerncore::kernel_space::{RemoveError, ShareError};
use kerncore::user::ShowError;
use ktest::Completion::{self, Ran};
use ktest::ktest;
use mm::user::AddressSpace;

use super::buffers::show;
use super::dma_declared::{DMA, PAGES, device, release, try_free};
use super::smp::another;
use super::user::at;
use super::user_programs as code;
use super::user_sharing::{WINDOW, waiting};
use super::witness::{Books, NOBODY};

fn page_of(device: &Device) -> Buffer {
    allocate(device, PAGE_SIZE, Sleep::May, NOBODY).expect("room")
}

/// A program that sees all of a buffer of one page.
#[track_caller]
fn seen_by_a_program(device: &Device, buffer: Buffer) -> AddressSpace {
    let space = waiting(code::exits(), 1);
    assert_eq!(show(device, &space, at(WINDOW), (buffer, PAGE_SIZE), 0), Ok(()));
    space
}

#[track_caller]
fn assert_kept(device: &Device, buffer: Buffer, users: u16) {
    let (freed, _log) = capture_log(|| try_free(device, PAGE_SIZE, buffer));
    let in_use = RemoveError::InUse { address: buffer.address, users };
    assert_eq!(freed, Err(FreeError::Invalid(in_use)));
}

/// A free that is refused leaves the buffer what it was: other programs may be shown it, while the first sees it and afterwards.
#[ktest]
fn a_buffer_that_was_not_freed_is_shown_to_others_s46_s78_s102() {
    let books = Books::now();
    let device = device();
    let buffer = page_of(&device);
    let first = seen_by_a_program(&device, buffer);
    assert_kept(&device, buffer, 1);
    let second = seen_by_a_program(&device, buffer);
    assert_kept(&device, buffer, 2);
    drop(first);
    assert_kept(&device, buffer, 1);
    drop(second);
    let third = seen_by_a_program(&device, buffer);
    assert_kept(&device, buffer, 1);
    drop(third);
    assert_eq!(try_free(&device, PAGE_SIZE, buffer), Ok(()));
    release(&device);
    books.assert_unchanged();
}

/// Windows onto the pages before it and behind it, and onto the memory of another device, are none onto the buffer.
#[ktest]
fn windows_onto_other_buffers_do_not_keep_this_one_s78_s102() {
    let books = Books::now();
    let device = device();
    let other = Device::new("another device with memory");
    let beside = PhysAddr::new(VRAM.base.raw() + PAGES * PAGE_SIZE);
    assert_eq!(other.declare_memory((beside, DMA), PAGES * PAGE_SIZE, NOBODY), Ok(()));
    let buffers = [(); 3].map(|()| page_of(&device));
    let elsewhere = [(); 3].map(|()| page_of(&other));
    let spaces = buffers.map(|buffer| seen_by_a_program(&device, buffer));
    let others = elsewhere.map(|buffer| seen_by_a_program(&other, buffer));
    let mut spaces = spaces.map(Some);
    for (index, rest) in [(1, &[0, 2][..]), (0, &[2]), (2, &[])] {
        assert_kept(&device, buffers[index], 1);
        drop(spaces[index].take());
        let freed = try_free(&device, PAGE_SIZE, buffers[index]);
        assert_eq!(freed, Ok(()), "page {index} of its memory is seen by nobody");
        for &left in rest {
            assert_kept(&device, buffers[left], 1);
        }
    }
    for buffer in elsewhere {
        assert_kept(&other, buffer, 1);
    }
    drop(others);
    for buffer in elsewhere {
        assert_eq!(try_free(&other, PAGE_SIZE, buffer), Ok(()));
    }
    release(&other);
    release(&device);
    books.assert_unchanged();
}

/// S77: whether a program sees it still must be waited for, and where one may not wait that is said; nothing has changed.
#[ktest]
fn what_programs_were_shown_is_freed_where_one_may_wait_s77_s102() {
    let books = Books::now();
    let device = device();
    let buffer = page_of(&device);
    drop(seen_by_a_program(&device, buffer));
    let (freed, log) = capture_log(|| arch::irq::masked(|| try_free(&device, PAGE_SIZE, buffer)));
    let busy = RemoveError::Busy { address: buffer.address };
    assert_eq!(freed, Err(FreeError::Invalid(busy)), "{log:?}");
    drop(seen_by_a_program(&device, buffer));
    assert_eq!(try_free(&device, PAGE_SIZE, buffer), Ok(()));
    // The next that lies there has been shown to nobody.
    let next = page_of(&device);
    assert_eq!(next.address, buffer.address);
    assert_eq!(arch::irq::masked(|| try_free(&device, PAGE_SIZE, next)), Ok(()));
    release(&device);
    books.assert_unchanged();
}

/// One CPU shows a buffer to one program after the other, another frees it: each program sees that buffer as long as it sees anything, and
/// nobody is shown what lies there afterwards.
#[ktest]
fn a_buffer_is_shown_or_freed_and_never_both_s78_s102_s116() -> Completion {
    const ROUNDS: u32 = 100;
    static PLACE: AtomicU32 = AtomicU32::new(0);
    static DONE: AtomicU32 = AtomicU32::new(0);
    static SHOWN: AtomicU32 = AtomicU32::new(0);
    let other = match another() {
        Ok(other) => other,
        Err(skipped) => return skipped,
    };
    let books = Books::now();
    let (device, here) = (device(), cpu::id());
    for word in [&PLACE, &DONE, &SHOWN] {
        word.store(0, Relaxed);
    }
    let wait_for = |is_it: &dyn Fn() -> bool| {
        while !is_it() {
            smp::beat();
            smp::stop_if_ended();
            cpu::relax();
        }
    };
    let mark = |buffer: Buffer, word| {
        // SAFETY: the buffer is the test's own, and it has no reference to it.
        unsafe { arch::probe::write_u32(buffer.address, word) }.expect("writable");
    };
    smp::run_on_each(|number| {
        for round in 1..=ROUNDS {
            if number == here {
                let buffer = page_of(&device);
                mark(buffer, round);
                PLACE.store(buffer.address.raw(), Release);
                wait_for(&|| SHOWN.load(Relaxed) >= round);
                (0..round * 20).for_each(|_| cpu::relax());
                while capture_log(|| try_free(&device, PAGE_SIZE, buffer)).0.is_err() {
                    smp::beat();
                    smp::stop_if_ended();
                }
                // Of another size, so that it is not what the other CPU names.
                let next = allocate(&device, 2 * PAGE_SIZE, Sleep::May, NOBODY).expect("room");
                assert_eq!(next.address, buffer.address);
                mark(next, !0);
                wait_for(&|| DONE.load(Acquire) == round);
                assert_eq!(try_free(&device, 2 * PAGE_SIZE, next), Ok(()));
            } else if number == other {
                wait_for(&|| PLACE.load(Acquire) != 0);
                let address = VirtAddr::new(PLACE.swap(0, Relaxed));
                let buffer = Buffer { address, dma: DMA };
                loop {
                    smp::beat();
                    smp::stop_if_ended();
                    let space = waiting(code::exits(), 1);
                    match show(&device, &space, at(WINDOW), (buffer, PAGE_SIZE), 0) {
                        Ok(()) => {}
                        Err(error) => {
                            let unknown = ShareError::Unknown { address };
                            assert_eq!(error, ShowError::Share(unknown), "round {round}");
                            break;
                        }
                    }
                    let mut word = [0; 4];
                    for _ in 0..20 {
                        space.copy_from(&mut word, at(WINDOW)).expect("its own");
                        assert_eq!(u32::from_le_bytes(word), round, "another's buffer");
                    }
                    SHOWN.fetch_add(1, Relaxed);
                }
                DONE.store(round, Release);
            }
        }
    });
    release(&device);
    books.assert_unchanged();
    Ran
}
