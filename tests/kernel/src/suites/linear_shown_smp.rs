//! A free of a coherent buffer at its linear address on one CPU, while others show it to programs (S46, S78).

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use arch::{cpu, smp};
use dma::coherent::{Buffer, FreeError, allocate, free};
use dma::device::Device;
use kerncore::addr::PAGE_SIZE;
use kerncore::coherent::Sleep;
use kerncore::kernel_space::{RemoveError, ShareError};
use kerncore::user::{Protection, ShowError};
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use mm::page_alloc::Pages;
use mm::user::AddressSpace;

use super::buffers::show;
use super::user::{at, pages};
use super::user_sharing::WINDOW;
use super::witness::{Books, NOBODY};

static SNOOPING: Device = Device::coherent("a snooping device whose buffers come and go");

/// Shows the buffer in a window, if it is there, writes and reads it, and ends the window.
fn use_buffer(space: &AddressSpace, buffer: Buffer, cpu: u32) -> bool {
    match show(&SNOOPING, space, at(WINDOW), (buffer, 2 * PAGE_SIZE), 0) {
        Ok(()) => {}
        Err(ShowError::Share(ShareError::Unknown { .. })) => return false,
        Err(other) => panic!("CPU {cpu}: {other}"),
    }
    // At a place of its own: others show the same pages.
    let (place, mark) = (at(WINDOW + PAGE_SIZE + cpu * 64), [cpu.to_le_bytes()[0] + 1; 64]);
    let mut found = [0; 64];
    space.copy_to(place, &mark).expect("shown");
    space.copy_from(&mut found, place).expect("shown");
    assert_eq!(found, mark, "CPU {cpu}: somebody else has the page");
    space.unmap(at(WINDOW)).expect("a window");
    space.reserve(pages(WINDOW, 2), Protection::ReadWrite).expect("free again");
    true
}

/// S46: whichever comes first, the free or the window, the other is refused; memory that came back is nobody's to write.
#[ktest]
fn a_free_and_a_window_of_a_linear_buffer_never_both_win_s46_s116() -> Completion {
    const ROUNDS: u32 = 24;
    if smp::up().count() < 2 {
        return Skipped("needs another CPU");
    }
    let books = Books::now();
    let [shown, refused] = [const { AtomicU32::new(0) }; 2];
    for _ in 0..ROUNDS {
        let buffer = allocate(&SNOOPING, 2 * PAGE_SIZE, Sleep::May, NOBODY).expect("memory");
        let shows = AtomicBool::new(false);
        smp::run_on_each(|cpu| {
            if cpu != 0 {
                let space = AddressSpace::new().expect("memory");
                space.reserve(pages(WINDOW, 2), Protection::ReadWrite).expect("free addresses");
                // A bounded number: while windows follow each other without a gap, the free waits.
                for _ in 0..8 {
                    if !use_buffer(&space, buffer, cpu) {
                        break;
                    }
                    shown.fetch_add(1, SeqCst);
                    shows.store(true, SeqCst);
                    smp::beat();
                }
                return;
            }
            // So that there is something to race with.
            while !shows.load(SeqCst) {
                smp::beat();
                cpu::relax();
            }
            loop {
                let bytes = 2 * PAGE_SIZE;
                // SAFETY: nobody but the windows uses it, and while there are any it is refused, by what is tested here.
                let freed = unsafe { free(&SNOOPING, bytes, buffer.address, buffer.dma) };
                match freed {
                    Ok(()) => break,
                    Err(FreeError::Invalid(RemoveError::InUse { .. })) => {
                        refused.fetch_add(1, SeqCst);
                    }
                    Err(other) => panic!("{other}"),
                }
                smp::beat();
                cpu::relax();
            }
            // The same frames, as a rule: they came back last.
            let mut next = Pages::new(1).expect("memory");
            next.fill(0xee);
            for _ in 0..4 {
                assert!(next.iter().all(|&byte| byte == 0xee), "written after it came back");
            }
        });
    }
    assert!(shown.load(SeqCst) >= ROUNDS);
    log::info!("{} windows, {} frees refused", shown.load(SeqCst), refused.load(SeqCst));
    books.assert_unchanged();
    Ran
}
