//! ioremap of what fills supersections, sections and large pages, on the live tables (S4, S22 to S24, S91, S94, S96).
//!
//! The board's static RAM stands for registers: there are 32 MiB of it, from a border of 16 MiB on, and it keeps what is written.

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use arch::{probe, smp};
use board::vexpress_a9::SRAM;
use kerncore::addr::{
    LARGE_PAGE_SIZE, PAGE_SIZE, PhysAddr, SECTION_SIZE, SUPERSECTION_SIZE, VirtAddr, pages_for,
};
use kerncore::attributes::Attributes;
use kerncore::descriptor::PageSize::{self, Large, Section, Small, Supersection};
use kerncore::descriptor::l1;
use ktest::{Completion, ktest};
use mm::area_list::Line;
use mm::kernel;

use super::smp::{another, on_each};
use super::witness::{
    Books, NOBODY, assert_absent, assert_fenced, assert_leads, assert_walkers_lead, authority,
    lowest_fit, plus, word_at,
};

/// What a test writes lies behind the first MiB: with a raw image other CPUs may wait in the first page.
const BASE: u32 = SRAM.base.raw();
const MIB: u32 = SECTION_SIZE;

#[track_caller]
fn map_as(physical: u32, bytes: u32, attributes: Attributes) -> VirtAddr {
    kernel()
        .ioremap(PhysAddr::new(physical), bytes, attributes, NOBODY)
        .unwrap_or_else(|error| panic!("{bytes:#x} bytes at {physical:#010x}: {error}"))
}

#[track_caller]
fn map(physical: u32, bytes: u32) -> VirtAddr {
    map_as(physical, bytes, Attributes::DEVICE)
}

#[track_caller]
fn unmap(address: VirtAddr) {
    kernel().iounmap(authority(), address).unwrap_or_else(|error| panic!("{error}"));
}

#[track_caller]
fn write(address: VirtAddr, value: u32) {
    // SAFETY: static RAM, which nobody else uses; nothing borrows it.
    unsafe { probe::write_u32(address, value) }.unwrap_or_else(|fault| panic!("{fault}"));
}

/// The sizes by which an area is mapped, with `attributes` each, as often as it serves one after the other.
#[track_caller]
fn sizes(base: VirtAddr, pages: u32, attributes: Attributes) -> Vec<(PageSize, u32)> {
    let mut sizes: Vec<(PageSize, u32)> = Vec::new();
    for page in 0..pages {
        let found = kernel().table().translate(plus(base, page * PAGE_SIZE)).expect("mapped");
        assert_eq!(found.attributes(), Ok(attributes), "page {page}, {:?}", found.size);
        let size = found.size;
        match sizes.last_mut() {
            Some((last, count)) if *last == size => *count += 1,
            _ => sizes.push((size, 1)),
        }
    }
    sizes
}

/// The sizes by which pages are mapped, each as often as it serves one after the other.
type Sizes<'a> = &'a [(PageSize, u32)];

/// Offset in static RAM, bytes, and the entries that serve them, in pages.
const CASES: [(u32, u32, Sizes<'static>); 10] = [
    (0, SUPERSECTION_SIZE, &[(Supersection, 4096)]),
    (0, MIB + PAGE_SIZE, &[(Section, 256), (Small, 1)]),
    (0, 2 * SUPERSECTION_SIZE, &[(Supersection, 8192)]),
    (16 * MIB, MIB, &[(Section, 256)]),
    (MIB, SUPERSECTION_SIZE, &[(Section, 4096)]),
    (0, 17 * MIB + 0x1_1000, &[(Supersection, 4096), (Section, 256), (Large, 16), (Small, 1)]),
    (0x1_0000, MIB + 0x2000, &[(Large, 256), (Small, 2)]),
    (0x2_0000, 0x1_0000, &[(Large, 16)]),
    // The start decides, and the last byte is counted from there.
    (3 * MIB + 0xffc, MIB, &[(Section, 256), (Small, 1)]),
    (5 * MIB + 0x1000, MIB, &[(Small, 256)]),
];

/// Every memory type that registers have.
const WAYS: [Attributes; 3] =
    [Attributes::DEVICE, Attributes::WRITE_COMBINE, Attributes::STRONGLY_ORDERED];

/// Maps so many bytes there, which must be done by the entries that are wanted, as is asked for, to the last byte; and ends it,
/// whereupon none of them is left.
#[track_caller]
fn come_and_go(physical: u32, bytes: u32, wanted: Sizes, attributes: Attributes) -> VirtAddr {
    let address = map_as(physical, bytes, attributes);
    let pages = pages_for(physical % PAGE_SIZE + bytes);
    assert_eq!(address.page_offset(), physical % PAGE_SIZE);
    assert_eq!(sizes(address.page_base(), pages, attributes), wanted, "{bytes:#x}, {physical:#x}");
    let last = bytes - 1;
    assert_leads(address, PhysAddr::new(physical));
    assert_leads(plus(address, last), PhysAddr::new(physical + last));
    for at in (0..bytes).step_by(MIB as usize / 2) {
        assert_walkers_lead(plus(address, at), PhysAddr::new(physical + at));
    }
    // The last word, written through small pages of its own, is read here.
    let word = (last & !3) - 4;
    let other = map_as(physical + word, 4, attributes);
    for value in [0x1234_5678, !0, 0] {
        write(other, value);
        assert_eq!(word_at(plus(address, word)), value, "{bytes:#x} at {physical:#x}");
    }
    unmap(other);
    // What any TLB may hold of it must go with it.
    let places = || (0..bytes).step_by(LARGE_PAGE_SIZE as usize).chain([last]);
    for at in places() {
        assert!(probe::read_u8(plus(address, at)).is_ok(), "{at:#x}");
    }
    assert_fenced(kernel().find_containing(address).expect("a live area").pages);
    // By its base it may end in one go, by any other address it never does.
    unmap(if attributes == Attributes::DEVICE { plus(address, last) } else { address });
    for at in places() {
        let reached = probe::read_u8(plus(address, at));
        assert!(reached.is_err(), "{bytes:#x} at {physical:#x} were reached at {at:#x}");
    }
    for at in (0..bytes).step_by(MIB as usize / 2).chain([last]) {
        assert_absent(plus(address, at));
    }
    address
}

/// S94, S96: by as few entries as both sides permit, to the last byte, each in the type that is asked for; the same entries go,
/// and the addresses come back.
#[ktest]
fn what_is_large_is_mapped_by_the_largest_entries_to_the_last_byte_s94_s96() {
    let books = Books::now();
    for (number, (offset, bytes, wanted)) in CASES.into_iter().enumerate() {
        for attributes in [WAYS[number % 3], WAYS[(number + 1) % 3]] {
            // So that it is not its neighbour's end that aligns it.
            let below = map_as(BASE, 1, attributes);
            come_and_go(BASE + offset, bytes, wanted, attributes);
            unmap(below);
            books.assert_unchanged();
        }
    }
}

/// Whether nothing at all, not even a table, is above any of `bytes` bytes at `address`.
fn is_fresh(address: VirtAddr, bytes: u32) -> bool {
    let table = kernel().table();
    (0..bytes).step_by(MIB as usize).all(|at| {
        let slot = table.root().checked_add(4 * l1::index(plus(address, at))).expect("a table");
        table.read_descriptor(slot) == 0
    })
}

/// Where the next mapping of `bytes` bytes will lie once nothing was there before, behind what is put `below` it; `None` if there is no
/// such place.
fn fresh_place(bytes: u32, below: &mut Vec<VirtAddr>) -> Option<VirtAddr> {
    let order = bytes.next_power_of_two().trailing_zeros() - PAGE_SIZE.trailing_zeros();
    loop {
        let at = lowest_fit(pages_for(bytes), order)?;
        if is_fresh(at, bytes) {
            return Some(at);
        }
        // Flash: it is not touched.
        let flash = PhysAddr::new(0x4000_0000);
        below.push(kernel().ioremap(flash, bytes, Attributes::DEVICE, NOBODY).ok()?);
    }
}

/// S22, S96: where there was no table yet, large entries of one size are written, and cleared, in one go.
#[ktest]
fn large_registers_come_and_go_where_there_is_no_table_s22_s96() -> Completion {
    let books = Books::now();
    let mut below = Vec::new();
    for bytes in [SUPERSECTION_SIZE, MIB, 3 * MIB, 16 * MIB - MIB] {
        let entry = if bytes == SUPERSECTION_SIZE { Supersection } else { Section };
        let wanted = [(entry, bytes / PAGE_SIZE)];
        for attributes in WAYS {
            let Some(at) = fresh_place(bytes, &mut below) else {
                below.into_iter().for_each(unmap);
                return Completion::Skipped("there are tables everywhere");
            };
            assert_eq!(come_and_go(BASE + SUPERSECTION_SIZE, bytes, &wanted, attributes), at);
            assert!(is_fresh(at, bytes), "{bytes:#x} at {at}");
        }
    }
    below.into_iter().for_each(unmap);
    books.assert_unchanged();
    Completion::Ran
}

/// S22: between neighbours that stay, entry by entry, in whatever order they go.
#[ktest]
fn large_registers_go_and_their_neighbours_stay_s22_s96() {
    let books = Books::now();
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        let physical = [0, 16 * MIB, 8 * MIB, 0x1_0000].map(|offset| BASE + offset);
        let bytes = [SUPERSECTION_SIZE, SUPERSECTION_SIZE, 3 * MIB, 0x3_0000];
        let mut live: [Option<VirtAddr>; 4] = [None; 4];
        for (place, (&physical, &bytes)) in live.iter_mut().zip(physical.iter().zip(&bytes)) {
            *place = Some(map(physical, bytes));
        }
        for gone in order {
            let address = live[gone].take().expect("live until now");
            unmap(address);
            assert_absent(address);
            assert_absent(plus(address, bytes[gone] - 1));
            for (index, address) in live.iter().enumerate() {
                let Some(address) = *address else { continue };
                for at in [0, bytes[index] / 2, bytes[index] - 1] {
                    assert_walkers_lead(plus(address, at), PhysAddr::new(physical[index] + at));
                }
            }
        }
        books.assert_unchanged();
    }
}

/// S24: supersections and small pages take turns at the same addresses, and no table is made anew.
#[ktest]
fn supersections_and_small_pages_take_turns_at_an_address_s24() {
    let small = || map(BASE + 0x1000, SUPERSECTION_SIZE);
    // Once, so that every table is there.
    let first = small();
    unmap(first);
    let made = kernel().table_memory().tables_made();
    for _ in 0..4 {
        let large = map(BASE, SUPERSECTION_SIZE);
        assert_eq!(large, first);
        assert_eq!(sizes(large, 4096, Attributes::DEVICE), [(Supersection, 4096)]);
        for at in [0, 5 * MIB, SUPERSECTION_SIZE - 4] {
            assert_walkers_lead(plus(large, at), PhysAddr::new(BASE + at));
        }
        unmap(large);
        let pages = small();
        assert_eq!(pages, first);
        assert_eq!(sizes(pages, 4096, Attributes::DEVICE), [(Small, 4096)]);
        for at in [0, 5 * MIB, SUPERSECTION_SIZE - 4] {
            assert_walkers_lead(plus(pages, at), PhysAddr::new(BASE + 0x1000 + at));
        }
        unmap(pages);
    }
    assert_eq!(kernel().table_memory().tables_made(), made);
}

/// S91.
#[ktest]
fn the_listing_counts_large_entries_of_each_size_s91_s96() {
    let address = map(BASE, 17 * MIB + 0x1_1000);
    let listed = kernel().next_listed(address.page_base()).expect("a live area");
    let line = format!("{}", Line(listed));
    for words in
        [" pages=4369 phys=0x48000000 ioremap", " supersections=1", " sections=1", " large_pages=1"]
    {
        assert!(line.contains(words), "{line}: {words}");
    }
    unmap(address);
}

/// S23, S116: what one CPU ends no other reaches, though each has it in its TLB.
#[ktest]
fn no_cpu_of_smp_reaches_a_supersection_that_is_gone_s23_s116() {
    let other = another().unwrap_or(0);
    for bytes in [SUPERSECTION_SIZE, 2 * SUPERSECTION_SIZE, 18 * MIB, 3 * MIB, 0x3_0000] {
        let address = map(BASE, bytes);
        let places = [0, bytes / 2, bytes - MIB.min(bytes), bytes - 4];
        let read = || places.map(|at| probe::read_u32(plus(address, at)).is_ok());
        assert!(on_each(read).into_iter().all(|read| read == [true; 4]));
        let gone = smp::run_on(other, || kernel().iounmap(authority(), address).is_ok());
        assert_eq!(gone, Ok(true));
        assert!(on_each(read).into_iter().all(|read| read == [false; 4]), "{bytes:#x}");
    }
}

/// S17, S24, S116: all CPUs make and end large registers side by side.
#[ktest]
fn cpus_of_smp_make_and_end_large_registers_side_by_side_s96_s116() {
    const ROUNDS: u32 = 40;
    let turns = AtomicU32::new(0);
    let books = Books::now();
    on_each(|| {
        for round in 0..ROUNDS {
            let (offset, bytes, _) = CASES[(round * 7 + arch::cpu::id()) as usize % CASES.len()];
            let physical = BASE + offset;
            let address = map(physical, bytes);
            for at in [0, bytes / 2, bytes - 1] {
                let found = kernel().table().translate(plus(address, at)).expect("mapped");
                assert_eq!(found.physical, PhysAddr::new(physical + at));
                assert!(probe::read_u8(plus(address, at)).is_ok());
            }
            unmap(address);
            turns.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert!(turns.load(Ordering::Relaxed) >= ROUNDS);
    books.assert_unchanged();
}
