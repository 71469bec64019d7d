//! The global heap: alignment, contents, growth by frames, and an end that is an error.

extern crate alloc;

use alloc::alloc::{alloc, dealloc, realloc};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr::{self, NonNull};

use arch::irq;
use kerncore::addr::VirtAddr;
use kerncore::frames::{FrameOwner, FrameRequest};
use kerncore::layout::{HEAP_END, HEAP_START};
use ktest::ktest;
use mm::heap::usage;

use super::witness::ask_host;

/// A piece of the heap with a pattern in it.
struct Piece {
    memory: NonNull<u8>,
    layout: Layout,
    stamp: u8,
}

impl Piece {
    fn new(bytes: usize, alignment: usize, stamp: u8) -> Option<Self> {
        let layout = Layout::from_size_align(bytes, alignment).expect("a layout");
        // SAFETY: the size is not zero.
        let memory = NonNull::new(unsafe { alloc(layout) })?;
        let address = memory.as_ptr().addr();
        assert!(address.is_multiple_of(alignment), "{address:#x} for {layout:?}");
        let (start, end) = (HEAP_START.raw() as usize, HEAP_END.raw() as usize);
        assert!(address >= start && address + bytes <= end, "{address:#x} is no heap");
        let mut piece = Self { memory, layout, stamp };
        for (index, byte) in piece.bytes_mut().iter_mut().enumerate() {
            *byte = stamp ^ index.to_le_bytes()[0] ^ index.to_le_bytes()[1];
        }
        Some(piece)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the piece has these bytes, which `new` has written.
        unsafe { core::slice::from_raw_parts(self.memory.as_ptr(), self.layout.size()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, before anybody reads them: any byte will do.
        unsafe { ptr::write_bytes(self.memory.as_ptr(), 0, self.layout.size()) };
        // SAFETY: as above; `&mut self` makes it exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.memory.as_ptr(), self.layout.size()) }
    }

    #[track_caller]
    fn check(&self) {
        for (index, &byte) in self.bytes().iter().enumerate() {
            let wanted = self.stamp ^ index.to_le_bytes()[0] ^ index.to_le_bytes()[1];
            assert_eq!(byte, wanted, "byte {index} of {:?}", self.layout);
        }
        ask_host(VirtAddr::new(self.memory.as_ptr() as u32));
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: it came from `alloc` with this layout.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) };
    }
}

/// A row of numbers that is the same in every run.
struct Row(u32);

impl Row {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as usize % limit
    }
}

#[ktest]
fn every_alignment_up_to_64_kib_is_kept_for_every_odd_size() {
    let before = usage().used;
    let mut pieces = Vec::new();
    for shift in 0..=16 {
        for bytes in [1, 3, 7, 13, 61, 509, 4097] {
            pieces.push(Piece::new(bytes, 1 << shift, bytes.to_le_bytes()[0]).expect("memory"));
        }
    }
    pieces.iter().for_each(Piece::check);
    drop(pieces);
    assert_eq!(usage().used, before);
}

#[ktest]
fn pieces_taken_and_given_back_in_any_order_keep_what_they_hold() {
    let before = usage().used;
    let mut row = Row(7);
    let mut pieces: Vec<Piece> = Vec::with_capacity(128);
    for round in 0..3000_u32 {
        if pieces.len() == 128 || (row.below(3) == 0 && !pieces.is_empty()) {
            let gone = pieces.swap_remove(row.below(pieces.len()));
            gone.check();
        } else {
            let bytes = 1 + row.below(if round % 50 == 0 { 20_000 } else { 300 });
            let alignment = 1 << row.below(8);
            let piece = Piece::new(bytes, alignment, round.to_le_bytes()[0]).expect("memory");
            pieces.push(piece);
        }
    }
    pieces.iter().for_each(Piece::check);
    drop(pieces);
    assert_eq!(usage().used, before);
}

#[ktest]
fn no_two_pieces_overlap() {
    let pieces: Vec<_> =
        (1..200).map(|size| Piece::new(size, 1 << (size % 6), 1).expect("memory")).collect();
    let mut ends: Vec<_> =
        pieces.iter().map(|piece| (piece.memory.as_ptr().addr(), piece.layout.size())).collect();
    ends.sort_unstable();
    for pair in ends.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
    }
}

#[ktest]
fn the_heap_grows_by_frames_of_its_own_and_keeps_them() {
    let zones = mm::kernel().zones();
    let owned = || zones.table().census().of(FrameOwner::Heap);
    let before = usage();
    assert_eq!(owned(), before.pages, "frames and pages of the heap");
    // More than the heap has: it must grow, wherever its holes are.
    let bytes = before.pages as usize * 4096 + 5;
    let piece = Piece::new(bytes, 8, 0x42).expect("memory");
    let grown = usage();
    assert!(grown.pages > before.pages);
    assert_eq!(owned(), grown.pages);
    piece.check();
    drop(piece);
    assert_eq!(usage(), mm::heap::HeapUse { used: before.used, pages: grown.pages });
    // What it has grown by serves the next one.
    drop(Piece::new(bytes, 8, 0x43).expect("memory"));
    assert_eq!(usage().pages, grown.pages, "it grew again for what had room");
}

#[ktest]
fn more_than_there_can_be_is_an_error_and_no_end() {
    let before = usage();
    let free = mm::kernel().zones().free_pages();
    let region = (HEAP_END.raw() - HEAP_START.raw()) as usize;
    for bytes in [region - 4096, region, region + 1, 0x3000_0000, isize::MAX as usize - 70_000] {
        let mut vector: Vec<u8> = Vec::new();
        let reserved = vector.try_reserve_exact(bytes);
        // Looked at, or the compiler leaves the whole allocation out and calls it a success.
        core::hint::black_box(vector.as_ptr());
        assert!(reserved.is_err(), "{bytes:#x}");
    }
    // The address space ends 128 MiB above the region: to round an address up to these passes its end.
    for shift in [27, 28, 29, 30] {
        let layout = Layout::from_size_align(64, 1 << shift).expect("a layout");
        // SAFETY: the size is not zero.
        let memory = core::hint::black_box(unsafe { alloc(layout) });
        assert!(memory.is_null(), "{memory:?} is aligned to {layout:?}");
    }
    assert_eq!(usage(), before, "a failed growth changed the heap");
    assert_eq!(mm::kernel().zones().free_pages(), free, "a failed growth kept frames");
    Piece::new(1000, 8, 9).expect("memory").check();
}

#[ktest]
fn without_frames_the_heap_says_no_and_recovers() {
    let zones = mm::kernel().zones();
    let before = usage().used;
    let mut pieces = Vec::with_capacity(4096);
    let free = zones.free_pages();
    let pages = usage().pages;
    let all = zones.allocate_list_from(FrameRequest::ANY, free, FrameOwner::Test);
    let all = all.expect("all that is free");
    let failed = (0..4096).any(|_| match Piece::new(64 * 1024, 4, 3) {
        Some(piece) => {
            pieces.push(piece);
            false
        }
        None => true,
    });
    let after = usage().pages;
    zones.free_list(all).expect("it was ours");
    assert_eq!(after, pages, "the heap grew by frames that somebody else had");
    assert!(failed, "{} pieces without a frame", pieces.len());
    pieces.iter().for_each(Piece::check);
    Piece::new(64 * 1024, 4, 4).expect("there are frames again").check();
    drop(pieces);
    assert_eq!(usage().used, before);
}

#[ktest]
fn the_heap_serves_with_interrupts_masked_and_leaves_them_so() {
    let before = usage().used;
    irq::masked(|| {
        let piece = Piece::new(777, 16, 1).expect("memory");
        assert!(irq::are_masked());
        piece.check();
        drop(piece);
        assert!(irq::are_masked());
    });
    let saved = irq::save_and_mask();
    // SAFETY: no source of interrupts is enabled, and no lock is held.
    unsafe { irq::unmask() };
    let piece = Piece::new(777, 16, 1).expect("memory");
    assert!(!irq::are_masked(), "the heap left interrupts masked");
    drop(piece);
    assert!(!irq::are_masked());
    saved.restore();
    assert_eq!(usage().used, before);
}

#[ktest]
fn a_piece_that_is_resized_keeps_what_fits() {
    let layout = Layout::from_size_align(100, 32).expect("a layout");
    // SAFETY: the size is not zero.
    let mut memory = unsafe { alloc(layout) };
    assert!(!memory.is_null());
    for index in 0..100_u8 {
        // SAFETY: the piece has 100 bytes.
        let place = unsafe { memory.add(index.into()) };
        // SAFETY: as above.
        unsafe { place.write(index) };
    }
    let mut size = 100;
    for new in [10_000, 101, 99, 64, 5000] {
        let old = Layout::from_size_align(size, 32).expect("a layout");
        // SAFETY: the piece has this layout, and the new size is not zero.
        memory = unsafe { realloc(memory, old, new) };
        assert!(!memory.is_null() && memory.addr().is_multiple_of(32));
        size = new;
        for index in 0..64_u8 {
            // SAFETY: the piece has never fewer than 64 bytes.
            let place = unsafe { memory.add(index.into()) };
            // SAFETY: as above, and they were written.
            assert_eq!(unsafe { place.read() }, index, "after {new}");
        }
    }
    let last = Layout::from_size_align(size, 32).expect("a layout");
    // SAFETY: as above.
    unsafe { dealloc(memory, last) };
}

#[ktest]
fn zeroed_memory_is_zero_where_something_was() {
    let bytes = 5000;
    drop(Piece::new(bytes, 8, 0xff).expect("memory"));
    let zeroed = alloc::vec![0_u8; bytes];
    assert!(zeroed.iter().all(|&byte| byte == 0));
}

#[ktest]
fn the_collections_of_alloc_work_and_give_everything_back() {
    let before = usage().used;
    let mut map = BTreeMap::new();
    for key in 0..2000_u32 {
        map.insert(key.wrapping_mul(2_654_435_761), Box::new(format!("value {key}")));
    }
    for key in (0..2000_u32).step_by(2) {
        let value = map.remove(&key.wrapping_mul(2_654_435_761)).expect("it was put in");
        assert_eq!(*value, format!("value {key}"));
    }
    assert_eq!(map.len(), 1000);
    assert!(usage().used > before);
    drop(map);
    assert_eq!(usage().used, before);
}
