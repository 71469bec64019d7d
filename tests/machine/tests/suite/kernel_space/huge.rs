//! `vmalloc_huge`: whole mebibytes by sections (S22 to S24, S90).

use super::bed::{Bed, CALLER, RAM, WINDOW, WINDOW_PAGES, frame, l1_slot, page};
use kerncore::{
    addr::{LARGE_PAGE_SIZE, PAGE_SIZE, PhysAddr, SECTION_SIZE, VirtAddr},
    area::{AreaKind, AreaSummary},
    attributes::Attributes,
    audit::Violation,
    descriptor::{PageSize, l1, l2},
    frames::{FrameOwner, FrameRequest},
    kernel_space::{
        Access, ChangeError, Fill, ReallocError, SealError, Span, UnmapAreaError, VmallocError,
    },
    machine::Machine,
    page_table::MapError,
};
use machine::{Behaviour, Fault, Kind, Privilege};

const SECTION_PAGES: u32 = SECTION_SIZE / PAGE_SIZE;

#[track_caller]
fn huge(bed: &Bed, bytes: u32) -> AreaSummary {
    bed.space.vmalloc_huge(bytes, Fill::Uninitialised, CALLER).expect("memory")
}

/// The size by which `address` is mapped.
#[track_caller]
fn size_at(bed: &Bed, address: VirtAddr) -> PageSize {
    bed.space.table().translate(address).expect("mapped").size
}

fn nth(area: &AreaSummary, number: u32) -> VirtAddr {
    VirtAddr::new(area.pages.start().raw() + number * PAGE_SIZE)
}

/// A table for each section of the window, kept from areas that were there.
fn with_tables(bed: &Bed) {
    let all = bed.vmalloc(WINDOW_PAGES - 1);
    bed.space.vfree((), all).expect("a live area");
}

#[test]
fn whole_mebibytes_are_sections_and_whole_64k_large_pages_s90() {
    for behaviour in Behaviour::all(6) {
        let bed = Bed::warm_on(behaviour);
        bed.gives_back(|bed| {
            let area = huge(bed, 2 * SECTION_SIZE + LARGE_PAGE_SIZE + 3 * PAGE_SIZE);
            assert_eq!(
                (area.kind, area.pages.count()),
                (AreaKind::Vmalloc, 2 * SECTION_PAGES + 19)
            );
            assert_eq!(area.pages.start().raw() % SECTION_SIZE, 0);
            for (number, size) in [
                (0, PageSize::Section),
                (255, PageSize::Section),
                (511, PageSize::Section),
                (512, PageSize::Large),
                (527, PageSize::Large),
                (528, PageSize::Small),
                (530, PageSize::Small),
            ] {
                let address = nth(&area, number);
                assert_eq!(size_at(bed, address), size, "page {number}");
                let frame = bed.frame_at(address);
                assert_eq!(bed.space.zones().table().owner_of(frame), FrameOwner::Vmalloc);
                for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                    assert_eq!(cpu.store(address, number), Ok(()));
                    assert_eq!(cpu.load(address), Ok(number));
                    let run = cpu.access(address, Kind::Execute, Privilege::Kernel);
                    assert_eq!(run, Err(Fault::Permission(address)));
                }
            }
            let guard = nth(&area, 531);
            assert_eq!(bed.machine.cpu(1).load(guard), Err(Fault::Translation(guard)));
            assert_eq!(bed.clean().area_pages, 531);
            bed.space.vfree((), area.pages.start()).expect("a live area");
        });
    }
}

/// S88: lookups answer for pages inside a section.
#[test]
fn lookups_answer_inside_a_section_s88() {
    let bed = Bed::warm();
    let area = huge(&bed, SECTION_SIZE);
    let inside = nth(&area, 77);
    let behind = bed.space.frame_behind(inside).expect("RAM");
    let table = bed.space.zones().table();
    let found = table.frame_at_record(std::ptr::from_ref(behind).addr());
    assert_eq!(found, Some(bed.frame_at(inside)));
    assert_eq!(bed.space.find_containing(inside), Some(area));
    assert!(bed.space.frame_behind(nth(&area, 256)).is_none(), "the guard");
    bed.space.vfree((), area.pages.start()).expect("a live area");
}

/// S24: the table that a section displaces comes back with the next free, and no cycle makes a table anew.
#[test]
fn displaced_tables_wait_and_return_s24() {
    for behaviour in Behaviour::all(6) {
        let bed = Bed::warm_on(behaviour);
        with_tables(&bed);
        let made = bed.space.table_memory().tables_made();
        let cpu = bed.machine.cpu(0);
        let slots: Vec<PhysAddr> = (0..WINDOW_PAGES / SECTION_PAGES)
            .map(|number| l1_slot(page(WINDOW + number * 256)))
            .collect();
        let named = || slots.iter().map(|&slot| cpu.read_descriptor(slot)).collect::<Vec<_>>();
        let mut before = named();
        for _ in 0..3 {
            let area = huge(&bed, 3 * SECTION_SIZE);
            bed.clean();
            bed.space.vfree((), area.pages.start()).expect("a live area");
            bed.clean();
            assert_eq!(bed.space.table_memory().tables_made(), made);
        }
        let mut after = named();
        before.sort_unstable();
        after.sort_unstable();
        assert_eq!(after, before, "each table is above some section again");
        // And they serve: whatever their words were used for meanwhile, they are empty.
        let all = bed.vmalloc(WINDOW_PAGES - 1);
        bed.clean();
        bed.space.vfree((), all).expect("a live area");
        assert_eq!(bed.space.table_memory().tables_made(), made);
    }
}

/// S23: after the free no CPU reaches the frames, by whatever address of the sections.
#[test]
fn no_tlb_remembers_a_freed_section_s23() {
    for behaviour in Behaviour::all(12) {
        let bed = Bed::warm_on(behaviour);
        with_tables(&bed);
        bed.changes_nothing(|bed| {
            let area = huge(bed, 2 * SECTION_SIZE);
            let touched = [0, 100, 255, 256, 300, 511].map(|number| nth(&area, number));
            for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                for address in touched {
                    cpu.load(address).expect("mapped");
                }
            }
            bed.space.vfree((), area.pages.start()).expect("a live area");
            for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                for address in touched {
                    assert_eq!(
                        cpu.load(address),
                        Err(Fault::Translation(address)),
                        "{behaviour:?}"
                    );
                }
            }
            // Small pages at the same addresses lead to their own frames.
            let base = bed.vmalloc(300);
            for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                for number in [0, 100, 255, 256, 299] {
                    let address = VirtAddr::new(base.raw() + number * PAGE_SIZE);
                    let reached = cpu.access(address, Kind::Read, Privilege::Kernel);
                    assert_eq!(reached, Ok(bed.frame_at(address).base()));
                }
            }
            bed.space.vfree((), base).expect("a live area");
        });
    }
}

#[test]
fn zeroed_sections_are_zero_s86() {
    let bed = Bed::warm();
    let area = bed.space.vmalloc_huge(SECTION_SIZE + PAGE_SIZE, Fill::Zeroed, CALLER);
    let area = area.expect("memory");
    for number in [0, 1, 255, 256] {
        for word in [0, 0xffc] {
            let address = VirtAddr::new(nth(&area, number).raw() + word);
            assert_eq!(bed.machine.cpu(1).load(address), Ok(0));
        }
    }
    bed.space.vfree((), area.pages.start()).expect("a live area");
}

/// S90: as large as frames and addresses allow: where these are in pieces, where less is asked for, or where it is forbidden,
/// smaller entries serve.
#[test]
fn smaller_entries_serve_where_larger_cannot_s90() {
    let bed = Bed::warm();
    bed.gives_back(|bed| {
        let large = huge(bed, SECTION_SIZE - PAGE_SIZE);
        assert_eq!(size_at(bed, large.pages.start()), PageSize::Large);
        assert_eq!(size_at(bed, nth(&large, 239)), PageSize::Large);
        assert_eq!(size_at(bed, nth(&large, 240)), PageSize::Small);
        bed.space.vfree((), large.pages.start()).expect("a live area");
        let small = huge(bed, LARGE_PAGE_SIZE - PAGE_SIZE);
        assert_eq!(size_at(bed, small.pages.start()), PageSize::Small);
        bed.space.vfree((), small.pages.start()).expect("a live area");
        // Frames enough, and no 256 of them adjacent.
        let mut held = Vec::new();
        while let Ok(block) = bed.space.zones().allocate(8, FrameOwner::Test) {
            held.push(block);
        }
        let rest = bed.starve(0);
        bed.space.zones().free(held.pop().expect("some")).expect("the test's");
        held.push(bed.space.zones().allocate(0, FrameOwner::Test).expect("one of them"));
        bed.feed(rest);
        let pieces = huge(bed, SECTION_SIZE);
        assert_eq!(size_at(bed, pieces.pages.start()), PageSize::Large);
        assert_eq!(pieces.pages.first() % 16, 0);
        bed.space.vfree((), pieces.pages.start()).expect("a live area");
        for block in held {
            bed.space.zones().free(block).expect("the test's");
        }
        bed.space.forbid_large_mappings();
        let forbidden = huge(bed, SECTION_SIZE);
        assert_eq!(size_at(bed, forbidden.pages.start()), PageSize::Small);
        bed.space.vfree((), forbidden.pages.start()).expect("a live area");
    });
}

/// S90: frames enough, and no sixteen of them adjacent.
#[test]
fn single_frames_are_mapped_one_by_one_s90() {
    let bed = Bed::warm();
    bed.gives_back(|bed| {
        let zones = bed.space.zones();
        let mut singles = Vec::new();
        while let Ok(block) = zones.allocate(0, FrameOwner::Test) {
            singles.push(block);
        }
        let (held, given): (Vec<_>, Vec<_>) =
            singles.into_iter().partition(|block| block.first().number() % 8 == 0);
        for block in given {
            zones.free(block).expect("the test's");
        }
        let area = huge(bed, 4 * LARGE_PAGE_SIZE);
        (0..64).for_each(|page| assert_eq!(size_at(bed, nth(&area, page)), PageSize::Small));
        bed.clean();
        bed.space.vfree((), area.pages.start()).expect("a live area");
        for block in held {
            zones.free(block).expect("the test's");
        }
    });
}

/// S90: addresses enough, and no aligned ones: the only hole straddles a border.
#[test]
fn addresses_that_are_not_aligned_take_what_fits_s90() {
    for (before, pages, size) in
        [(130, 299, PageSize::Large), (130, 256, PageSize::Small), (3, 20, PageSize::Small)]
    {
        let bed = Bed::warm();
        bed.gives_back(|bed| {
            let sizes = [before, pages, WINDOW_PAGES - before - pages - 3];
            let areas = sizes.map(|pages| bed.vmalloc(pages));
            bed.space.vfree((), areas[1]).expect("a live area");
            let wanted = pages.min(256).next_power_of_two().min(pages);
            let area = huge(bed, wanted * PAGE_SIZE);
            let aligned = if size == PageSize::Large { 16 } else { 1 };
            assert_eq!(area.pages.first(), areas[1].page_number().next_multiple_of(aligned));
            assert_eq!(size_at(bed, area.pages.start()), size, "{pages} pages from {before}");
            bed.clean();
            for area in [area.pages.start(), areas[0], areas[2]] {
                bed.space.vfree((), area).expect("a live area");
            }
        });
    }
}

/// S90: what would split a large mapping is refused by name, and changes nothing.
#[test]
fn no_part_of_a_large_mapping_is_changed_s90() {
    let bed = Bed::warm();
    for bytes in [SECTION_SIZE + PAGE_SIZE, 2 * LARGE_PAGE_SIZE] {
        let area = huge(&bed, bytes);
        let address = area.pages.start();
        bed.changes_nothing(|bed| {
            let resize = |bytes| {
                bed.space.vrealloc(
                    (),
                    address,
                    bytes,
                    Fill::Uninitialised,
                    FrameRequest::ANY,
                    CALLER,
                )
            };
            assert_eq!(resize(bytes), Ok(area), "it has that size");
            let large = Err(ReallocError::Change(ChangeError::Large { address }));
            assert_eq!(resize(bytes - PAGE_SIZE), large);
            assert_eq!(resize(bytes + 1), large);
            let found = AreaKind::Vmalloc;
            let sealed = bed.space.seal((), address, area.pages.count());
            assert_eq!(sealed, Err(SealError::NotExec { address, found }));
            let first = area.pages.sub_range(0, 1).expect("a page");
            let kind = UnmapAreaError::Change(ChangeError::WrongKind { address, found });
            assert_eq!(bed.space.unmap_area((), first), Err(kind));
        });
        for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
            assert_eq!(cpu.store(nth(&area, area.pages.count() - 1), 1), Ok(()));
        }
        bed.space.vfree((), address).expect("a live area");
    }
}

/// S40: copies go through large mappings as through others.
#[test]
fn a_large_mapping_is_memory_to_copies_s40() {
    let bed = Bed::warm();
    let bytes = SECTION_SIZE + LARGE_PAGE_SIZE + PAGE_SIZE;
    let area = huge(&bed, bytes);
    let mut memory = 0;
    let done =
        bed.space.for_each_span(area.pages.start(), bytes, Access::Write, |span| match span {
            Span::Memory { bytes, .. } => memory += bytes,
            Span::Gap { .. } => panic!("{span:?} in memory"),
        });
    assert_eq!((done, memory), (bytes, bytes));
    bed.space.vfree((), area.pages.start()).expect("a live area");
}

/// S26: what vmalloc refuses.
#[test]
fn nothing_and_more_than_ram_are_refused_s26() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let refused =
            |bytes| bed.space.vmalloc_huge(bytes, Fill::Zeroed, CALLER).expect_err("refused");
        assert_eq!(refused(0), VmallocError::ZeroSize);
        assert!(matches!(refused(0x4000_0000), VmallocError::MoreThanMemory { .. }));
    });
}

/// S17: what lies in a table that would be displaced is neither hidden nor overwritten.
#[test]
fn a_slot_in_use_below_a_section_is_refused_and_left_alone_s17() {
    let bed = Bed::warm();
    with_tables(&bed);
    let at = page(WINDOW + 256 + 7);
    let descriptor = l2::Descriptor::SmallPage(frame(RAM + 64), Attributes::KERNEL_DATA);
    let descriptor = descriptor.encode().expect("a small page");
    let slot = bed.l2_slot(at);
    bed.poke(slot, descriptor);
    let before = bed.ledger();
    let refused = bed.space.vmalloc_huge(2 * SECTION_SIZE, Fill::Uninitialised, CALLER);
    let occupied = MapError::Occupied { address: at, descriptor, mapped: 256 };
    assert_eq!(refused, Err(VmallocError::Map(occupied)));
    assert_eq!(before.leaks(&bed.ledger()).count(), 0);
    assert_eq!(bed.poke(slot, 0), descriptor);
    bed.clean();
}

/// The audit judges what a section leads to, page by page.
#[test]
fn a_section_that_leads_elsewhere_is_seen_s90() {
    let bed = Bed::warm();
    let area = huge(&bed, SECTION_SIZE);
    let other = bed.space.zones().allocate(8, FrameOwner::Test).expect("memory");
    let word = l1::Descriptor::Section(other.first().base(), Attributes::KERNEL_DATA);
    let right = bed.poke(l1_slot(area.pages.start()), word.encode().expect("aligned"));
    let (_, found) = bed.audit();
    let wrong = |found: &Violation| matches!(found, Violation::WrongFrame { .. });
    assert_eq!(found.iter().filter(|found| wrong(found)).count(), 256);
    bed.poke(l1_slot(area.pages.start()), right);
    bed.space.zones().free(other).expect("the test's");
    bed.clean();
    bed.space.vfree((), area.pages.start()).expect("a live area");
    bed.clean();
}

/// The audit judges each of the sixteen slots of a large page, and their teardown tells which was not as the others.
#[test]
fn sixteen_slots_that_disagree_are_seen_and_go_together_s22_s90() {
    let bed = Bed::warm();
    let area = huge(&bed, 2 * LARGE_PAGE_SIZE);
    let right = bed.frame_at(area.pages.start()).base();
    let at = |slot| bed.l2_slot(nth(&area, slot));
    for wrong in [
        l2::Descriptor::LargePage(right, Attributes::KERNEL_RODATA),
        l2::Descriptor::LargePage(PhysAddr::new(right.raw() ^ 0x10_0000), Attributes::KERNEL_DATA),
        l2::Descriptor::SmallPage(frame(right.pfn().number() + 9), Attributes::KERNEL_DATA),
        l2::Descriptor::Fault,
    ] {
        let before = bed.poke(at(9), wrong.encode().expect("aligned"));
        let (_, found) = bed.audit();
        assert_eq!(found.len(), 1, "{wrong:?}: {found:?}");
        bed.poke(at(9), before);
        bed.clean();
    }
    bed.space.vfree((), area.pages.start()).expect("a live area");
    bed.clean();
}

/// S84: there is no combination to refuse: areas of sections and coherent buffers stand side by side, and each has the other's memory next.
#[test]
fn large_mappings_and_coherent_buffers_have_each_others_memory_s84() {
    let bed = Bed::warm();
    bed.gives_back(|bed| {
        for round in 0..3 {
            let area = huge(bed, SECTION_SIZE);
            let buffer = bed.space.coherent_alloc(SECTION_SIZE, FrameOwner::Dma, CALLER);
            let buffer = buffer.expect("memory").pages.start();
            let large = area.pages.start();
            assert_eq!(size_at(bed, large), PageSize::Section);
            assert_eq!(size_at(bed, buffer), PageSize::Small);
            for (address, word) in [(large, 0x84 + round), (buffer, 0x8400 + round)] {
                assert_eq!(bed.machine.cpu(0).store(address, word), Ok(()));
            }
            let found = [large, buffer].map(|address| bed.machine.cpu(0).load(address));
            assert_eq!(found, [Ok(0x84 + round), Ok(0x8400 + round)]);
            bed.clean();
            if round == 1 {
                bed.space.vfree((), large).expect("a live area");
                bed.space.coherent_free((), buffer, SECTION_SIZE).expect("a live buffer");
            } else {
                bed.space.coherent_free((), buffer, SECTION_SIZE).expect("a live buffer");
                bed.space.vfree((), large).expect("a live area");
            }
        }
    });
}
