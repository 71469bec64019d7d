//! memcpy, memmove, memset, memclr and the zeroing of pages, against copies byte by byte.
//!
//! Every size from nothing to several blocks of the widest loop, at every alignment, with bytes around it that must stay.

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::hint::black_box;
use core::ptr;

use kerncore::addr::{PAGE_SIZE, PageRange, VirtAddr};
use ktest::ktest;
use mm::mapped_pages::VmMap;
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;

use super::witness::ask_host_of;

type Copy = unsafe extern "C" fn(*mut u8, *const u8, usize) -> *mut u8;
type AeabiCopy = unsafe extern "C" fn(*mut u8, *const u8, usize);

unsafe extern "C" {
    fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8;
    fn memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8;
    fn memset(to: *mut u8, value: i32, bytes: usize) -> *mut u8;
    fn __aeabi_memcpy(to: *mut u8, from: *const u8, bytes: usize);
    fn __aeabi_memcpy4(to: *mut u8, from: *const u8, bytes: usize);
    fn __aeabi_memcpy8(to: *mut u8, from: *const u8, bytes: usize);
    fn __aeabi_memmove(to: *mut u8, from: *const u8, bytes: usize);
    fn __aeabi_memmove4(to: *mut u8, from: *const u8, bytes: usize);
    fn __aeabi_memmove8(to: *mut u8, from: *const u8, bytes: usize);
    fn __aeabi_memset(to: *mut u8, bytes: usize, value: i32);
    fn __aeabi_memset4(to: *mut u8, bytes: usize, value: i32);
    fn __aeabi_memset8(to: *mut u8, bytes: usize, value: i32);
    fn __aeabi_memclr(to: *mut u8, bytes: usize);
    fn __aeabi_memclr4(to: *mut u8, bytes: usize);
    fn __aeabi_memclr8(to: *mut u8, bytes: usize);
}

/// Bytes before and behind that must stay.
const MARGIN: usize = 24;
const LONGEST: usize = 300;
const ROOM: usize = MARGIN + 8 + LONGEST + MARGIN;

/// Memory whose first byte is aligned to 64.
#[repr(align(64))]
struct Room([u8; ROOM]);

/// What byte `index` of the source holds: never the same as its neighbours, nor as a word later.
fn source(index: usize) -> u8 {
    (index.wrapping_mul(29) ^ index >> 8).to_le_bytes()[0] | 1
}

/// What byte `index` holds before.
fn before(index: usize) -> u8 {
    (index.wrapping_mul(53)).to_le_bytes()[0] & !1
}

/// Volatile, so that the compiler does not make a memset of it, which is under test.
fn fill(memory: &mut [u8], value: impl Fn(usize) -> u8) {
    for (index, byte) in memory.iter_mut().enumerate() {
        // SAFETY: the byte is borrowed.
        unsafe { ptr::from_mut(byte).write_volatile(value(index)) };
    }
}

#[track_caller]
fn check(memory: &[u8], what: [usize; 3], wanted: impl Fn(usize) -> u8) {
    for (index, byte) in memory.iter().enumerate() {
        let want = wanted(index);
        assert_eq!(*byte, want, "byte {index} with [to, from, size] = {what:?}");
    }
}

/// Copies between two buffers, with each alignment of both that `step` leaves.
fn copies_exactly(
    copy: &dyn Fn(*mut u8, *const u8, usize),
    step: usize,
    sizes: &(impl Iterator<Item = usize> + Clone),
) {
    let (mut from, mut to) = (Room([0; ROOM]), Room([0; ROOM]));
    fill(&mut from.0, source);
    for to_at in (0..8).step_by(step) {
        for from_at in (0..8).step_by(step) {
            for size in sizes.clone() {
                let (first, start) = (MARGIN + to_at, MARGIN + from_at);
                let room = first + size + MARGIN;
                fill(&mut to.0[..room], before);
                copy(to.0[first..].as_mut_ptr(), from.0[start..].as_ptr(), size);
                check(&to.0[..room], [to_at, from_at, size], |index| {
                    if (first..first + size).contains(&index) {
                        source(index - first + start)
                    } else {
                        before(index)
                    }
                });
            }
        }
    }
    check(&from.0, [0; 3], source);
}

fn returning(copy: Copy) -> impl Fn(*mut u8, *const u8, usize) {
    // The compiler knows what these functions do, and would put that in the place of a call that it sees.
    let copy = black_box(copy);
    move |to, from, bytes| {
        // SAFETY: `copies_exactly` gives room for `bytes` at both ends.
        assert_eq!(unsafe { copy(to, from, bytes) }, to, "what it returns");
    }
}

fn plain(copy: AeabiCopy) -> impl Fn(*mut u8, *const u8, usize) {
    move |to, from, bytes| {
        // SAFETY: as above.
        unsafe { copy(to, from, bytes) };
    }
}

#[ktest]
fn memcpy_copies_every_size_at_every_alignment_and_touches_nothing_else() {
    copies_exactly(&returning(memcpy), 1, &(0..=LONGEST));
}

#[ktest]
fn memmove_of_separate_memory_copies_every_size_at_every_alignment() {
    copies_exactly(&returning(memmove), 1, &(0..=80).chain(120..=140).chain(LONGEST - 4..=LONGEST));
}

#[ktest]
fn the_run_time_abi_s_copies_are_the_same_functions() {
    let sizes = (0..=40).chain(60..=70).chain(126..=131);
    copies_exactly(&plain(__aeabi_memcpy), 1, &sizes);
    copies_exactly(&plain(__aeabi_memmove), 1, &sizes);
    copies_exactly(&plain(__aeabi_memcpy4), 4, &sizes);
    copies_exactly(&plain(__aeabi_memmove4), 4, &sizes);
    copies_exactly(&plain(__aeabi_memcpy8), 8, &sizes);
    copies_exactly(&plain(__aeabi_memmove8), 8, &sizes);
}

/// Moves within one buffer, by every distance up to `FARTHEST` in both directions.
fn moves_exactly(
    shift: impl Fn(*mut u8, *const u8, usize),
    sizes: &(impl Iterator<Item = usize> + Clone),
) {
    const FARTHEST: usize = 40;
    let mut memory = Room([0; ROOM]);
    let memory = &mut memory.0[..];
    for start in FARTHEST..FARTHEST + 4 {
        for to in start - FARTHEST..=start + FARTHEST {
            for size in sizes.clone() {
                let room = start.max(to) + size + 8;
                fill(&mut memory[..room], source);
                let base = memory.as_mut_ptr();
                // `wrapping_add`: whether the routine stays inside is what is looked at.
                shift(base.wrapping_add(to), base.wrapping_add(start), size);
                check(&memory[..room], [to, start, size], |index| {
                    if (to..to + size).contains(&index) {
                        source(index - to + start)
                    } else {
                        source(index)
                    }
                });
            }
        }
    }
}

#[ktest]
fn memmove_of_overlapping_memory_is_right_in_both_directions() {
    let sizes = (0..=72).chain([95, 96, 127, 128, 129, 130, 131, 191, 192, 193, 220]);
    moves_exactly(returning(memmove), &sizes);
}

#[ktest]
fn the_run_time_abi_s_memmove_of_overlapping_memory_is_right_in_both_directions() {
    moves_exactly(plain(__aeabi_memmove), &[1, 3, 15, 16, 17, 33, 64, 65, 130].into_iter());
}

/// Fills with each alignment that `step` leaves, and looks at all around.
fn fills_exactly(set: impl Fn(*mut u8, usize), value: u8, step: usize) {
    let mut memory = Room([0; ROOM]);
    for at in (0..8).step_by(step) {
        for size in 0..=LONGEST {
            let first = MARGIN + at;
            let room = &mut memory.0[..first + size + MARGIN];
            fill(room, source);
            set(room[first..].as_mut_ptr(), size);
            check(room, [at, 0, size], |index| {
                if (first..first + size).contains(&index) { value } else { source(index) }
            });
        }
    }
}

#[ktest]
fn memset_fills_every_size_at_every_alignment_with_the_value_s_low_byte() {
    let set = black_box(memset as unsafe extern "C" fn(*mut u8, i32, usize) -> *mut u8);
    for (value, byte) in [(0xc4, 0xc4), (-2, 0xfe), (0x1234_5600, 0)] {
        fills_exactly(
            |to, bytes| {
                // SAFETY: `fills_exactly` gives room for `bytes`.
                assert_eq!(unsafe { set(to, value, bytes) }, to, "what it returns");
            },
            byte,
            1,
        );
    }
}

#[ktest]
fn the_run_time_abi_s_fills_take_their_arguments_in_their_own_order() {
    // SAFETY: `fills_exactly` gives room for `bytes`, here and below.
    fills_exactly(|to, bytes| unsafe { __aeabi_memset(to, bytes, 0x7a4) }, 0xa4, 1);
    // SAFETY: as above.
    fills_exactly(|to, bytes| unsafe { __aeabi_memset4(to, bytes, 0x5a) }, 0x5a, 4);
    // SAFETY: as above.
    fills_exactly(|to, bytes| unsafe { __aeabi_memset8(to, bytes, 0x5a) }, 0x5a, 8);
    // SAFETY: as above.
    fills_exactly(|to, bytes| unsafe { __aeabi_memclr(to, bytes) }, 0, 1);
    // SAFETY: as above.
    fills_exactly(|to, bytes| unsafe { __aeabi_memclr4(to, bytes) }, 0, 4);
    // SAFETY: as above.
    fills_exactly(|to, bytes| unsafe { __aeabi_memclr8(to, bytes) }, 0, 8);
}

/// Pages that lie in descending order in RAM and ascending in the window: no two neighbours are neighbours.
fn scattered(pages: usize) -> VmMap {
    let mut given: Vec<_> = (0..pages).map(|_| Pages::new(0).expect("a page")).collect();
    given.sort_by_key(|page| core::cmp::Reverse(page.first()));
    let map = VmArea::map(given).expect("a mapping");
    ask_host_of(map.pages());
    map
}

#[ktest]
fn copies_cross_the_borders_of_scattered_pages() {
    let (mut from, mut to) = (scattered(3), scattered(3));
    fill(&mut from, source);
    let page = PAGE_SIZE as usize;
    for to_at in (page - 70..page + 4).step_by(7) {
        for from_at in (page - 68..page + 4).step_by(5) {
            for size in [1, 17, 64, 65, 71, 130, page, page + 1, page + 67] {
                fill(&mut to[to_at - 4..to_at + size + 4], before);
                to[to_at..to_at + size].copy_from_slice(&from[from_at..from_at + size]);
                check(&to[to_at - 4..to_at + size + 4], [to_at, from_at, size], |index| {
                    if (4..4 + size).contains(&index) {
                        source(from_at + index - 4)
                    } else {
                        before(index)
                    }
                });
            }
        }
    }
}

/// Behind an area lies its guard, and before it that of the area below: one byte too many would end the kernel.
#[ktest]
fn copies_up_to_a_guard_page_read_and_write_no_byte_beyond() {
    let below = VmArea::new(PAGE_SIZE).expect("memory");
    let (mut to, mut from) =
        (VmArea::new(PAGE_SIZE).expect("memory"), VmArea::new(PAGE_SIZE).expect("memory"));
    for area in [&to, &from] {
        let start = area.address().raw();
        for raw in [start - 1, start + PAGE_SIZE] {
            assert!(arch::probe::read_u8(VirtAddr::new(raw)).is_err(), "{raw:#x} is no guard");
        }
    }
    drop(below);
    fill(&mut from, source);
    let page = PAGE_SIZE as usize;
    for size in 0..=140 {
        for shift in 0..5 {
            // Both to the end, and the one of them not quite, so that they differ in alignment.
            for (to_at, from_at) in [
                (page - size, page - size - shift),
                (page - size - shift, page - size),
                (0, shift),
                (shift, 0),
                (0, page - size),
                (page - size, 0),
            ] {
                to[to_at..to_at + size].copy_from_slice(&from[from_at..from_at + size]);
                let base = to.as_mut_ptr();
                let (there, here) = (base.wrapping_add(to_at), base.wrapping_add(from_at));
                check(&to[to_at..to_at + size], [to_at, from_at, size], |index| {
                    source(from_at + index)
                });
                // SAFETY: both runs lie in the area.
                unsafe { memmove(there, here, size) };
            }
            to[page - size..].fill(0);
            to[..size].fill(0);
        }
    }
}

#[ktest]
fn large_copies_are_exact_to_the_last_byte() {
    const SIZE: u32 = (1 << 20) + 4099;
    const BYTES: usize = SIZE as usize;
    let mut from = VmArea::new(SIZE + 16).expect("memory");
    let mut to = VmArea::zeroed(SIZE + 16).expect("memory");
    fill(&mut from, |index| source(index) ^ (index >> 13).to_le_bytes()[0]);
    for (to_at, from_at) in [(0, 0), (1, 0), (3, 5), (8, 2)] {
        to.fill(0xee);
        to[to_at..to_at + BYTES].copy_from_slice(&from[from_at..from_at + BYTES]);
        assert!(to[..to_at].iter().all(|&byte| byte == 0xee));
        assert!(to[to_at + BYTES..].iter().all(|&byte| byte == 0xee));
        for index in 0..BYTES {
            assert_eq!(to[to_at + index], from[from_at + index], "byte {index}");
        }
    }
    // In place, one byte up and down again.
    to[..BYTES].copy_from_slice(&from[..BYTES]);
    to.copy_within(..BYTES, 1);
    to.copy_within(1..=BYTES, 0);
    assert!(to[..BYTES] == from[..BYTES]);
}

#[ktest]
fn pages_are_zeroed_whole_and_alone() {
    let mut area = scattered(5);
    for (first, count) in [(1, 1), (1, 3), (0, 2), (2, 0), (0, 5)] {
        fill(&mut area, source);
        let start = area.pages().first() + first;
        let pages = PageRange::from_numbers(start, count).expect("a range");
        // SAFETY: pages of ours.
        unsafe { arch::memory::zero_pages(pages) };
        let zeroed = (first * PAGE_SIZE) as usize..((first + count) * PAGE_SIZE) as usize;
        check(&area, [first as usize, 0, count as usize], |index| {
            if zeroed.contains(&index) { 0 } else { source(index) }
        });
    }
}

#[ktest(fatal = "the whole address space is not to be zeroed")]
fn zeroing_everything_is_refused() {
    let all = PageRange::from_numbers(0, 1 << 20).expect("all pages");
    // SAFETY: refused before anything is written.
    unsafe { arch::memory::zero_pages(all) };
}

/// What the compiler makes of Rust's own copies comes here, too.
#[ktest]
fn a_vector_that_grows_keeps_its_contents() {
    let mut bytes = vec![0_u8; 0];
    for index in 0..20_000 {
        bytes.push(source(index));
        if index % 4999 == 0 {
            bytes.shrink_to_fit();
        }
    }
    check(&bytes, [0; 3], source);
}
