//! ioremap on the live tables and on real registers (S4, S8, S19, S57, S59, S93 to S98).
//!
//! Nothing here touches an address that no device answers: QEMU would tell of it, and the run would fail.

extern crate alloc;

use alloc::string::ToString;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use arch::exception::FaultStatus;
use arch::failure::fail_nth;
use arch::probe;
use board::vexpress_a9::{SCU, SYSTEM_REGISTERS, VRAM};
use kerncore::addr::{PAGE_SIZE, PhysAddr, SECTION_SIZE, SUPERSECTION_SIZE, VirtAddr, pages_for};
use kerncore::area::{AreaFlags, AreaKind, AreaSummary};
use kerncore::attributes::Attributes;
use kerncore::failure::{Afterwards, Point};
use kerncore::kernel_space::{IoRemapError, NoArea, RemoveError, VmallocError};
use kerncore::page_table::MapError;
use kerncore::va_space::ReserveError;
use ktest::{assert_err, ktest};
use mm::io_mem::{IoMem, IoMemError};
use mm::kernel;
use mm::vm_area::VmArea;

use super::witness::{
    Books, NOBODY, areas_by_address, assert_absent, assert_fenced, assert_leads, authority,
    byte_at, each_page, guard_of, lowest_fit, plus, word_at,
};

/// `SYS_ID`: what the board says it is. (QEMU, `hw/arm/vexpress.c`)
const SYS_ID: u32 = 0x1190_f500;

fn try_map(physical: u32, bytes: u32) -> Result<VirtAddr, IoRemapError> {
    kernel().ioremap(PhysAddr::new(physical), bytes, Attributes::DEVICE, NOBODY)
}

#[track_caller]
fn map(physical: u32, bytes: u32) -> VirtAddr {
    try_map(physical, bytes)
        .unwrap_or_else(|error| panic!("{bytes:#x} bytes at {physical:#010x}: {error}"))
}

#[track_caller]
fn unmap(address: VirtAddr) {
    kernel().iounmap(authority(), address).unwrap_or_else(|error| panic!("{error}"));
}

/// The area that stands behind a mapping.
#[track_caller]
fn area_of(address: VirtAddr) -> AreaSummary {
    kernel().find_containing(address).expect("a live area")
}

/// S94, S16: the offset is kept, the page of the first and of the last byte and all between are mapped, no other is.
#[ktest]
fn exactly_the_pages_that_hold_the_bytes_are_mapped_and_the_offset_is_kept_s94() {
    let base = VRAM.base.raw();
    let ranges = [
        (0, 1, 1),
        (0, 0x1000, 1),
        (0, 0x1001, 2),
        (0xfff, 1, 1),
        (0xfff, 2, 2),
        (0x400, 0x1000, 2),
        (0x1234, 0x5678, 6),
        (0x3001, 0x1fff, 2),
        (0x3001, 0x2000, 3),
        (0xf_f800, 0x10_0000, 257),
    ];
    for (offset, bytes, count) in ranges {
        let physical = base + offset;
        let address = map(physical, bytes);
        let area = area_of(address);
        assert_eq!(address.page_offset(), offset % PAGE_SIZE, "{offset:#x}, {bytes:#x}");
        assert_eq!(address.page_base(), area.pages.start());
        assert_eq!(area.pages.count(), count, "{offset:#x}, {bytes:#x}");
        assert_eq!((area.kind, area.flags), (AreaKind::IoRemap, AreaFlags::IOREMAP));
        assert_eq!(area.physical, PhysAddr::new(physical).page_base());
        assert_leads(address, PhysAddr::new(physical));
        assert_leads(plus(address, bytes - 1), PhysAddr::new(physical + bytes - 1));
        for (number, page) in (0..).zip(each_page(area.pages)) {
            assert_leads(page, plus_physical(area.physical, number * PAGE_SIZE));
        }
        let _readable = byte_at(plus(address, bytes - 1));
        assert_fenced(area.pages);
        unmap(address);
        each_page(area.pages).for_each(assert_absent);
    }
}

#[track_caller]
fn plus_physical(physical: PhysAddr, bytes: u32) -> PhysAddr {
    physical.checked_add(bytes).expect("below 4 GiB")
}

/// S93, by the bits of a small page (ARM ARM, figure B3-5): nothing else shows the memory type on this board.
#[ktest]
fn registers_are_shareable_device_memory_never_executed_s93_s112() {
    let address = map(VRAM.base.raw(), 3 * PAGE_SIZE);
    for page in each_page(area_of(address).pages) {
        let entry = kernel().table().translate(page).expect("an entry");
        let descriptor = entry.descriptor();
        assert_eq!(descriptor & 0b11, 0b11, "small page, XN");
        assert_eq!(descriptor >> 2 & 0b11, 0b01, "C = 0, B = 1");
        assert_eq!(descriptor >> 6 & 0b111, 0b000, "TEX = 0: shareable Device");
        assert_eq!((descriptor >> 9 & 1, descriptor >> 4 & 0b11), (0, 0b01), "AP: kernel only");
        assert_eq!(descriptor >> 11 & 1, 0, "global");
        assert_eq!(entry.attributes(), Ok(Attributes::DEVICE));
        // SAFETY: could the page be executed, the zeros of the frame buffer would be harmless, and the run would hang.
        let fault = unsafe { probe::execute(page) }.expect_err("registers were executed");
        assert!(matches!(fault.status, FaultStatus::Permission(_)), "{fault}");
    }
    unmap(address);
}

#[ktest]
fn nothing_is_refused_at_the_edges_of_the_bus_and_a_wrap_is_s94() {
    let books = Books::now();
    for physical in [0, 0x1000_0000, 0x6000_0000, 0xffff_ffff] {
        let physical = PhysAddr::new(physical);
        assert_eq!(try_map(physical.raw(), 0), Err(IoRemapError::ZeroSize { physical }));
    }
    let wraps = [
        (0xffff_ffff, 2),
        (0xffff_f000, 0x1001),
        (0xffff_f001, 0xfff + 1),
        (0x1000, 0xffff_ffff),
        (0x1000, 0xffff_f001),
        (0xa000_0000, 0x6000_0001),
        (0x6000_0000, 0xa000_0001),
    ];
    for (raw, bytes) in wraps {
        let physical = PhysAddr::new(raw);
        assert_eq!(try_map(raw, bytes), Err(IoRemapError::Wraps { physical, bytes }));
    }
    books.assert_unchanged();
    // The last byte of all is a byte like any other; these are only mapped and never touched.
    for (physical, bytes) in [(0xffff_ffff, 1), (0xffff_f000, 0x1000), (0xfffe_f001, 0x1_0fff)] {
        let address = map(physical, bytes);
        assert_leads(plus(address, bytes - 1), PhysAddr::new(0xffff_ffff));
        unmap(address);
    }
    for bytes in [1, PAGE_SIZE] {
        let address = map(0, bytes);
        assert_leads(address, PhysAddr::new(0));
        unmap(address);
    }
    books.assert_unchanged();
}

#[ktest]
fn one_byte_of_ram_is_enough_to_be_refused_and_the_byte_beside_it_is_not_s94() {
    let table = kernel().zones().table();
    let ram = table.first().base();
    let end = ram.raw() + table.len() * PAGE_SIZE;
    let books = Books::now();
    let refusals = [
        (ram.raw(), 1, ram.raw()),
        (ram.raw() - 1, 2, ram.raw()),
        (ram.raw() - 0x1000, 0x1001, ram.raw()),
        (ram.raw() - 0x1800, 0x10_0000, ram.raw()),
        (end - 1, 1, end - 1),
        (end - 1, 2, end - 1),
        (end - 0x1000, 0x2000, end - 0x1000),
        (ram.raw() + 0x12_3456, 4, ram.raw() + 0x12_3456),
        // All of RAM, from below to above.
        (ram.raw() - 1, end - ram.raw() + 2, ram.raw()),
        (0, 0xffff_ffff, ram.raw()),
    ];
    for (raw, bytes, first) in refusals {
        let (physical, ram) = (PhysAddr::new(raw), PhysAddr::new(first));
        assert_eq!(try_map(raw, bytes), Err(IoRemapError::Ram { physical, bytes, ram }));
        books.assert_unchanged();
    }
    for (physical, bytes) in
        [(ram.raw() - 1, 1), (ram.raw() - 0x1800, 0x1800), (end, 1), (end, 0x1800)]
    {
        let address = map(physical, bytes);
        assert_leads(address, PhysAddr::new(physical));
        unmap(address);
    }
    books.assert_unchanged();
}

#[ktest]
fn registers_read_what_the_board_says_at_any_offset() {
    let system = map(SYSTEM_REGISTERS.base.raw(), 4);
    assert_eq!(word_at(system), SYS_ID);
    unmap(system);
    let scu_configuration = map(SCU.base.raw() + 4, 4);
    assert_eq!(scu_configuration.page_offset(), 4);
    let cpus = (word_at(scu_configuration) & 0b11) + 1;
    assert!((1..=4).contains(&cpus));
    unmap(scu_configuration);
}

/// S57: each of two drivers whose registers share a page has a mapping of its own, and ends it alone.
#[ktest]
fn two_mappings_of_one_device_page_are_two_areas_that_read_alike_s57() {
    let books = Books::now();
    let scu = SCU.base.raw();
    let (first, second) = (map(scu, 0x100), map(scu + 4, 0x1c));
    assert_ne!(area_of(first).pages, area_of(second).pages);
    assert_eq!(word_at(plus(first, 4)), word_at(second));
    let value = word_at(second);
    unmap(first);
    assert_absent(first);
    assert_eq!(word_at(second), value);
    unmap(second);
    books.assert_unchanged();
}

/// S59: Morton's example. Nothing answers there, so the pointers alone are looked at.
#[ktest]
fn registers_at_0x400_in_a_page_get_a_pointer_0x400_into_it_s59() {
    let (one, two) = (map(0x2000_1000, 0x400), map(0x2000_1400, 0x400));
    assert_eq!((one.page_offset(), two.page_offset()), (0, 0x400));
    assert_leads(one, PhysAddr::new(0x2000_1000));
    assert_leads(two, PhysAddr::new(0x2000_1400));
    assert_eq!(area_of(two).physical, PhysAddr::new(0x2000_1000), "the page's base is recorded");
    unmap(two);
    assert_leads(one, PhysAddr::new(0x2000_1000));
    unmap(one);
}

/// S59: a driver knows its own pointer and not the area's base.
#[ktest]
fn any_address_inside_ends_the_mapping_and_none_outside_s59() {
    let books = Books::now();
    let bytes = 3 * PAGE_SIZE;
    for inside in [0, 1, 0x400, PAGE_SIZE - 1, PAGE_SIZE, 2 * PAGE_SIZE + 7, bytes - 1] {
        let address = map(VRAM.base.raw(), bytes);
        let pages = area_of(address).pages;
        for outside in [guard_of(pages), plus(guard_of(pages), PAGE_SIZE - 1)] {
            assert_eq!(
                kernel().iounmap(authority(), outside),
                Err(RemoveError::Unknown { address: outside }),
                "the guard is nobody's"
            );
        }
        assert_eq!(area_of(address).pages, pages);
        unmap(plus(address, inside));
        each_page(pages).for_each(assert_absent);
        for address in [plus(address, inside), address] {
            assert_eq!(
                kernel().iounmap(authority(), address),
                Err(RemoveError::Unknown { address })
            );
        }
        books.assert_unchanged();
    }
}

/// S4, the modern rule: the least power of two that holds the pages, up to a supersection. Small areas between keep the
/// addresses from being aligned by themselves.
#[ktest]
fn a_mapping_is_aligned_to_its_size_up_to_16_mib_at_the_lowest_fit_s1_s4() {
    let table = [
        (1, 0x1000),
        (0xfff, 0x1000),
        (0x1000, 0x1000),
        (0x1001, 0x2000),
        (0x2000, 0x2000),
        (0x3000, 0x4000),
        (0x4001, 0x8000),
        (0x10_0000, 0x10_0000),
        (0x30_0000, 0x40_0000),
        (SUPERSECTION_SIZE, SUPERSECTION_SIZE),
        (SUPERSECTION_SIZE + 1, SUPERSECTION_SIZE),
    ];
    let mut between = Vec::new();
    for (bytes, alignment) in table {
        between.push(VmArea::new(1).expect("memory"));
        let order = (alignment / PAGE_SIZE).trailing_zeros();
        let wanted = lowest_fit(pages_for(bytes), order);
        let address = map(0x4000_0000, bytes); // flash: mapped, not touched
        assert!(address.raw().is_multiple_of(alignment), "{bytes:#x} bytes at {address}");
        assert_eq!(Some(address), wanted, "{bytes:#x} bytes");
        unmap(address);
    }
}

/// S18, S19: without a table the mapping ends, be it half way, and what was mapped until then goes again.
#[ktest]
fn a_mapping_that_gets_no_table_leaves_nothing_behind_s19() {
    for afterwards in [Afterwards::Plenty, Afterwards::Nothing] {
        let mut half_way = 0;
        // Which allocations are tables, or frames for some, depends on what is there already: each fails in turn.
        for nth in (1..32).filter_map(NonZeroU32::new) {
            let books = Books::now();
            // Not on a border of anything: by small pages.
            let make = || try_map(0x4000_1000, 5 * SECTION_SIZE);
            let (made, outcome) = fail_nth(nth, afterwards, make);
            match made {
                Ok(address) => unmap(address),
                Err(IoRemapError::Map(MapError::Table { mapped, .. })) => {
                    half_way += u32::from(mapped > 0);
                }
                Err(_) => assert_ne!(outcome.failed, Some(Point::Table)),
            }
            books.assert_unchanged();
            let mut mapped = 0;
            kernel().table().for_each_entry(kernel().window(), |_| mapped += 1);
            let of_areas = areas_by_address().map(|area| area.pages.count()).sum::<u32>();
            assert_eq!(mapped, of_areas, "entries that belong to no area");
            if outcome.failed.is_none() {
                break;
            }
        }
        assert!(half_way > 0, "each of five MiB needs a table");
    }
}

#[ktest]
fn a_full_window_is_told_by_the_parameter_that_enlarges_it_and_empties_again_s8() {
    let mut maps = Vec::with_capacity(2048);
    let books = Books::now();
    for bytes in [SUPERSECTION_SIZE, SECTION_SIZE, 63 * PAGE_SIZE] {
        let refused = loop {
            match try_map(0x4000_0000, bytes) {
                Ok(address) => maps.push(address),
                Err(refused) => break refused,
            }
        };
        let largest = kernel().area_counts().largest_hole;
        let wanted = pages_for(bytes) + 1;
        assert_err!(
            Err::<VirtAddr, _>(refused),
            IoRemapError::Area(NoArea::Addresses(ReserveError::NoSpace { wanted: told, largest_hole, .. }))
                if (told, largest_hole) == (wanted, largest)
        );
        assert!(refused.to_string().contains("vmalloc="), "{refused}: the parameter is named");
    }
    let hole = kernel().area_counts().largest_hole;
    let refused = VmArea::new(hole * PAGE_SIZE).map(drop).expect_err("no room for the guard");
    assert!(
        matches!(refused, VmallocError::Area(NoArea::Addresses(ReserveError::NoSpace { .. }))),
        "{refused}"
    );
    assert!(refused.to_string().contains("vmalloc="), "{refused}: the parameter is named");
    drop(VmArea::new((hole - 1) * PAGE_SIZE).expect("exactly what is left"));
    maps.into_iter().for_each(unmap);
    books.assert_unchanged();
}

/// S98: the typed block refuses what its registers could not be read at, and ends with its owner.
#[ktest]
fn a_typed_block_is_mapped_for_as_long_as_its_owner_lives_s98() {
    let books = Books::now();
    let misaligned = PhysAddr::new(SCU.base.raw() + 2);
    assert_err!(
        IoMem::<[u32; 2]>::map(misaligned),
        IoMemError::Misaligned { physical, alignment: 4 } if physical == misaligned
    );
    let nothing = IoMem::<[u32; 0]>::map(SCU.base);
    assert_err!(nothing, IoMemError::Map(IoRemapError::ZeroSize { .. }));
    let ram = kernel().zones().table().first().base();
    assert_err!(IoMem::<u32>::map(ram), IoMemError::Map(IoRemapError::Ram { .. }));
    books.assert_unchanged();
    let owner = IoMem::<u32>::map(SYSTEM_REGISTERS.base).expect("addresses");
    let address = owner.address();
    assert_eq!((word_at(address), owner.physical()), (SYS_ID, SYSTEM_REGISTERS.base));
    drop(owner);
    assert_absent(address);
    books.assert_unchanged();
}
