//! Programs on all CPUs at once (S116, S118), and a free on one CPU while another shows the memory (S46).

extern crate alloc;

use alloc::vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use arch::cpu;
use arch::machine::Authority;
use arch::smp;
use image::programs;
use kerncore::addr::{PAGE_SIZE, VirtAddr};
use kerncore::kernel_space::{RemoveError, ShareError};
use kerncore::user::{Protection, ShowError};
use ktest::{Completion, ktest};
use mm::kernel;
use mm::user::{AddressSpace, End};
use mm::vm_area::VmArea;

use super::user::{DATA, at, pages, program};
use super::user_programs as code;

const ROUNDS: u32 = 24;
const WINDOW: u32 = 0x5008_0000;

/// Each CPU runs programs of its own, all at the same addresses; nothing of one is seen by another.
#[ktest]
fn programs_run_on_all_cpus_at_once_s116_s118() -> Completion {
    if smp::up().count() < 2 {
        return Completion::Skipped("needs another CPU");
    }
    let rounds = AtomicU32::new(0);
    smp::run_on_each(|cpu| {
        for round in 0..ROUNDS {
            let mark = cpu << 16 | round;
            let mut program = program(code::fills(), &[DATA, mark, PAGE_SIZE / 4]);
            assert_eq!(program.run(programs::answer), End::Exited(0), "CPU {cpu}");
            let mut found = vec![0; PAGE_SIZE as usize];
            program.space().copy_from(&mut found, at(DATA)).expect("its own");
            assert!(found.chunks(4).all(|word| word == mark.to_le_bytes()), "CPU {cpu}");
            rounds.fetch_add(1, SeqCst);
            smp::beat();
        }
    });
    assert_eq!(rounds.load(SeqCst) as usize, smp::up().count() * ROUNDS as usize);
    Completion::Ran
}

/// Shows the area at `base` in a window, if it is there, writes and reads it, and ends the window.
fn use_area(space: &AddressSpace, base: VirtAddr, cpu: u32) -> bool {
    match space.show_vmalloc(at(WINDOW), base, 0) {
        Ok(()) => {}
        Err(ShowError::Share(ShareError::Unknown { .. } | ShareError::NotForUsers { .. })) => {
            return false;
        }
        Err(other) => panic!("CPU {cpu}: {other}"),
    }
    // At a place of its own: others show the same pages.
    let (place, mark) = (at(WINDOW + cpu * 64), [cpu.to_le_bytes()[0] + 1; 64]);
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
fn a_free_and_a_window_on_two_cpus_never_both_win_s46_s116() -> Completion {
    if smp::up().count() < 2 {
        return Completion::Skipped("needs another CPU");
    }
    let [shown, refused] = [const { AtomicU32::new(0) }; 2];
    for _ in 0..ROUNDS {
        let area = kernel().vmalloc_user(2 * PAGE_SIZE, at(0)).expect("memory");
        let base = area.pages.start();
        let shows = AtomicBool::new(false);
        smp::run_on_each(|cpu| {
            if cpu != 0 {
                let space = AddressSpace::new().expect("memory");
                space.reserve(pages(WINDOW, 2), Protection::ReadWrite).expect("free addresses");
                // A bounded number: while windows follow each other without a gap, the free waits.
                for _ in 0..8 {
                    if !use_area(&space, base, cpu) {
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
                // SAFETY: nobody but the windows uses it, and while there are any it is refused, by what is tested here.
                let authority = unsafe { Authority::claim() };
                match kernel().vfree(authority, base) {
                    Ok(()) => break,
                    Err(RemoveError::InUse { .. }) => _ = refused.fetch_add(1, SeqCst),
                    Err(other) => panic!("{other}"),
                }
                smp::beat();
                cpu::relax();
            }
            // The same frames, as a rule: they came back last.
            let mut next = VmArea::new(2 * PAGE_SIZE).expect("memory");
            next.fill(0xee);
            for _ in 0..4 {
                assert!(next.iter().all(|&byte| byte == 0xee), "written after it came back");
            }
        });
    }
    assert!(shown.load(SeqCst) >= ROUNDS);
    log::info!("{} windows, {} frees refused", shown.load(SeqCst), refused.load(SeqCst));
    Completion::Ran
}
