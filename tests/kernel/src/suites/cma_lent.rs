//! What is lent of the contiguous region, to programs and to buffers behind guards, and how it comes back (S101).

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use arch::lock::IrqLocks;
use arch::smp;
use dma::coherent::{AllocateError, allocate};
use image::programs;
use kerncore::addr::PAGE_SIZE;
use kerncore::coherent::Sleep;
use kerncore::contiguous::{Contiguous, ContiguousError, PageUse, Unmovable};
use kerncore::kernel_space::CoherentError;
use kerncore::user::Protection;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use mm::kernel;
use mm::movable_buffer::MovableBuffer;
use mm::user::{AddressSpace, End, waits};

use super::buffers::{DEVICE, NO_REGION, give_all, take_region};
use super::user::{DATA, at, pages, program};
use super::user_programs as code;
use super::witness::{Books, NOBODY};

type Region = Contiguous<'static, IrqLocks>;

fn lent(region: &Region) -> u32 {
    region.usage().lent
}

/// Bytes that are unlike at each place.
fn pattern(bytes: u32) -> Vec<u8> {
    (0..bytes).map(|at| (at.wrapping_mul(167) >> 5).to_le_bytes()[0]).collect()
}

#[ktest]
fn a_programs_data_moves_out_when_buffers_want_its_memory_s101() -> Completion {
    let Some(region) = kernel().contiguous() else { return NO_REGION };
    let books = Books::now();
    let before = lent(region);
    let bytes = pattern(5 * PAGE_SIZE);
    let space = AddressSpace::new().expect("memory");
    space.map_data(pages(DATA, 5), Protection::ReadWrite).expect("memory");
    assert_eq!(lent(region) - before, 5, "what can be lent is");
    space.copy_to(at(DATA), &bytes).expect("mapped");
    for _ in 0..2 {
        let (buffers, why) = take_region();
        assert_eq!((lent(region), region.usage().held), (0, region.pages()), "{why}");
        let mut found = vec![0; bytes.len()];
        space.copy_from(&mut found, at(DATA)).expect("mapped");
        assert!(found == bytes, "words were lost on the way");
        give_all(buffers);
    }
    // What was moved out does not come back; what is asked for next is lent again.
    assert_eq!(lent(region), 0);
    space.map_data(pages(DATA + 0x10_0000, 2), Protection::ReadOnly).expect("memory");
    assert_eq!(lent(region), 2);
    drop(space);
    assert_eq!(lent(region), 0);
    books.assert_unchanged();
    Ran
}

/// A program that touches a page which is just being moved waits for it, and never sees a stale one.
#[ktest]
fn programs_run_on_while_their_memory_is_taken_and_given_back_smp_s101() -> Completion {
    let Some(region) = kernel().contiguous() else { return NO_REGION };
    if smp::up().count() < 2 {
        return Skipped("needs another CPU");
    }
    // All but one run is taken, the last and smallest: buffers and programs meet there.
    let (mut buffers, _) = take_region();
    let (last, meeting) = buffers.pop().expect("there were some");
    give_all(vec![(last, meeting)]);
    let [taken, refused, moved, ran] = [const { AtomicU32::new(0) }; 4];
    let done = AtomicBool::new(false);
    let waited = waits();
    smp::run_on_each(|cpu| {
        if cpu == 0 {
            // Until others have begun, and then many times.
            let mut rounds = 0;
            while rounds < 600 {
                let had = lent(region);
                match allocate(&DEVICE, meeting, Sleep::May, NOBODY) {
                    Ok(buffer) => {
                        taken.fetch_add(1, SeqCst);
                        moved.fetch_add(had, SeqCst);
                        give_all(vec![(buffer, meeting)]);
                    }
                    // A page was just being lent or given back.
                    Err(_) => _ = refused.fetch_add(1, SeqCst),
                }
                rounds += u32::from(ran.load(SeqCst) != 0);
                smp::beat();
            }
            done.store(true, SeqCst);
            return;
        }
        let mut round = 0;
        while !done.load(SeqCst) {
            round += 1;
            let mark = cpu << 16 | round;
            let mut program = program(code::fills(), &[DATA, mark, PAGE_SIZE / 4]);
            assert_eq!(program.run(programs::answer), End::Exited(0), "CPU {cpu}");
            let mut found = vec![0; PAGE_SIZE as usize];
            program.space().copy_from(&mut found, at(DATA)).expect("its own");
            assert!(found.chunks(4).all(|word| word == mark.to_le_bytes()), "CPU {cpu}");
            ran.fetch_add(1, SeqCst);
            smp::beat();
        }
    });
    let [taken, refused, moved, ran] = [taken, refused, moved, ran].map(AtomicU32::into_inner);
    log::info!(
        "{ran} programs; {taken} buffers in the place of {moved} lent pages, {refused} refused; {} waits",
        waits() - waited
    );
    give_all(buffers);
    assert_eq!(lent(region), 0);
    assert!(taken > 0 && ran > 0);
    Ran
}

/// S101: failure to move is an error, not a hang; and what is not pinned moves.
#[ktest]
fn a_pinned_page_is_not_moved_and_the_refusal_names_it_s101() -> Completion {
    let Some(region) = kernel().contiguous() else { return NO_REGION };
    let books = Books::now();
    let mut buffer = MovableBuffer::new(4).expect("memory");
    assert_eq!((buffer.count(), buffer.movable(), lent(region)), (4, 4, 4));
    for index in 0..4 {
        let mut page = buffer.pin_mut(index).expect("a page");
        assert!(page.iter().all(|&byte| byte == 0), "zeroed");
        page.fill(index.to_le_bytes()[0] + 1);
    }
    assert!(buffer.pin(4).is_none());
    let guard = buffer.pin(2).expect("a page");
    let second = buffer.pin(2).expect("a page");
    let pinned = guard.frame();
    assert_eq!(region.use_of(pinned), Some(PageUse::Lent));
    let (buffers, why) = take_region();
    let stays = Unmovable::Pinned { guards: 2 };
    let error = ContiguousError::Unmovable { pages: 1, frame: pinned, why: stays };
    assert_eq!(why, AllocateError::Remap(CoherentError::Contiguous(error)));
    assert_eq!((lent(region), region.usage().held), (1, region.pages() - 1));
    assert!(guard.iter().chain(second.iter()).all(|&byte| byte == 3));
    assert_eq!(region.movable_counts(), (4, 2));
    drop((guard, second));
    let last = allocate(&DEVICE, PAGE_SIZE, Sleep::May, NOBODY).expect("nobody pins it");
    assert_eq!(last.dma.raw(), pinned.base().raw());
    for index in 0..4 {
        let page = buffer.pin(index).expect("a page");
        assert!(!region.contains(page.frame()));
        assert!(page.iter().all(|&byte| usize::from(byte) == index + 1), "page {index}");
    }
    let own = MovableBuffer::new(2).expect("memory");
    assert_eq!(own.movable(), 0, "there is none to lend");
    drop((buffer, own));
    give_all(buffers);
    give_all(vec![(last, PAGE_SIZE)]);
    assert_eq!((lent(region), region.movable_counts()), (0, (0, 0)));
    books.assert_unchanged();
    Ran
}

/// Never to memory of vmalloc: another CPU or a handler may be touching it.
#[ktest]
fn nothing_is_lent_to_vmalloc_however_short_memory_is_s101() -> Completion {
    let Some(region) = kernel().contiguous() else { return NO_REGION };
    let books = Books::now();
    let list = super::witness::starve(0);
    let refused = mm::vm_area::VmArea::new(PAGE_SIZE).is_err();
    let pages = mm::page_alloc::Pages::new(0).is_err();
    let now = lent(region);
    super::witness::feed(list);
    assert!(refused && pages && now == 0);
    books.assert_unchanged();
    Ran
}
