//! No physical page of a device has two live mappings that do not go together, whoever made them (S97).

use super::bed::{Bed, CALLER, frame};
use kerncore::{
    addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr},
    area::AreaKind,
    attributes::{Access, Attributes, Execute, MemoryType, Scope},
    audit::{Place, Violation},
    bus::BusRange,
    kernel_space::{
        Alias, IoRemapError, LiveMapping, NoArea, StaticError, StaticMapping, StaticRequest,
        VmapError,
    },
};
use machine::Behaviour;

const DEVICE: u32 = 0x1001_3000;
const OTHER_CALLER: VirtAddr = VirtAddr::new(0x8002_0000);
const WAYS: [Attributes; 3] =
    [Attributes::DEVICE, Attributes::WRITE_COMBINE, Attributes::STRONGLY_ORDERED];

/// Who maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    IoRemap,
    VmapPfn,
}

impl By {
    const ALL: [Self; 2] = [Self::IoRemap, Self::VmapPfn];

    fn kind(self) -> AreaKind {
        match self {
            Self::IoRemap => AreaKind::IoRemap,
            Self::VmapPfn => AreaKind::Vmap,
        }
    }

    /// Maps `pages` from page number `page` behind [`DEVICE`].
    fn map(
        self,
        bed: &Bed,
        (page, pages): (u32, u32),
        attributes: Attributes,
        caller: VirtAddr,
    ) -> Result<VirtAddr, NoArea> {
        let physical = PhysAddr::new(DEVICE + page * PAGE_SIZE);
        match self {
            Self::IoRemap => {
                let mapped = bed.space.ioremap(physical, pages * PAGE_SIZE, attributes, caller);
                mapped.map_err(|error| match error {
                    IoRemapError::Area(error) => error,
                    other => panic!("{other}"),
                })
            }
            Self::VmapPfn => {
                let frames = (0..pages).map(|page| frame(physical.pfn().number() + page));
                let mapped = bed.space.vmap_devices(frames, attributes, caller);
                mapped.map(|area| area.pages.start()).map_err(|error| match error {
                    VmapError::Area(error) => error,
                    other => panic!("{other}"),
                })
            }
        }
    }

    fn unmap(self, bed: &Bed, address: VirtAddr) {
        let unmapped = match self {
            Self::IoRemap => bed.space.iounmap((), address),
            Self::VmapPfn => bed.space.vunmap((), address),
        };
        unmapped.expect("a live area");
    }
}

fn alias(pages: (u32, u32), wanted: Attributes, live: LiveMapping) -> NoArea {
    let physical = PhysAddr::new(DEVICE + pages.0 * PAGE_SIZE);
    NoArea::Alias(Alias { physical, pages: pages.1, wanted, live })
}

/// Every way to map after every other, over pages that overlap in part, wholly, or not.
#[test]
fn who_maps_a_page_otherwise_is_refused_and_both_are_named_s97() {
    let bed = Bed::warm();
    for (first, second) in By::ALL.map(|first| By::ALL.map(|second| (first, second))).concat() {
        for (one, other) in WAYS.map(|one| WAYS.map(|other| (one, other))).concat() {
            let live = first.map(&bed, (4, 3), one, OTHER_CALLER).expect("nobody else");
            for (pages, overlaps) in [
                ((4, 3), Some(0)),
                ((5, 1), Some(1)),
                ((2, 3), Some(0)),
                ((6, 4), Some(2)),
                ((0, 9), Some(0)),
                ((2, 2), None),
                ((7, 1), None),
            ] {
                bed.changes_nothing(|bed| {
                    let mapped = second.map(bed, pages, other, CALLER);
                    match overlaps {
                        Some(offset) if one != other => {
                            let address = VirtAddr::new(live.raw() + offset * PAGE_SIZE);
                            let area = Some((first.kind(), OTHER_CALLER));
                            let live = LiveMapping { address, attributes: one, area };
                            let refused = Err(alias(pages, other, live));
                            assert_eq!(mapped, refused, "{first:?} {one}, {second:?} {other}");
                        }
                        _ => second.unmap(bed, mapped.expect("they go together")),
                    }
                });
            }
            first.unmap(&bed, live);
            // Nobody is left to clash with.
            let after = second.map(&bed, (4, 3), other, CALLER).expect("nobody else");
            second.unmap(&bed, after);
        }
    }
    bed.clean();
}

/// Frames in no order are as many runs; each is known for as long as the area lives, and none longer.
#[test]
fn each_run_of_a_scattered_mapping_is_known_and_forgotten_s97() {
    let bed = Bed::warm();
    let numbers = [9, 3, 4, 5, 20, 8, 9, 1, 0];
    let base = PhysAddr::new(DEVICE).pfn().number();
    let frames: Vec<Pfn> = numbers.map(|number| frame(base + number)).into();
    bed.changes_nothing(|bed| {
        let device = By::IoRemap.map(bed, (8, 1), Attributes::DEVICE, CALLER).expect("nobody");
        let refused =
            bed.space.vmap_devices(frames.iter().copied(), Attributes::WRITE_COMBINE, CALLER);
        let live = LiveMapping {
            address: device,
            attributes: Attributes::DEVICE,
            area: Some((AreaKind::IoRemap, CALLER)),
        };
        // The run of 8 and 9 is asked for after those behind it were noted.
        let wanted = alias((8, 2), Attributes::WRITE_COMBINE, live);
        assert_eq!(refused, Err(VmapError::Area(wanted)), "and what was noted before is forgotten");
        bed.clean();
        By::IoRemap.unmap(bed, device);
        let area =
            bed.space.vmap_devices(frames.iter().copied(), Attributes::WRITE_COMBINE, CALLER);
        let area = area.expect("nobody else");
        bed.clean();
        for number in 0..24 {
            let mapped = By::IoRemap.map(bed, (number, 1), Attributes::DEVICE, CALLER);
            assert_eq!(mapped.is_err(), numbers.contains(&number), "page {number}");
            if let Ok(address) = mapped {
                By::IoRemap.unmap(bed, address);
            }
        }
        // Ended by its descriptor, as C callers may.
        let descriptor = bed.space.remove_area((), area.pages.start()).expect("a live area");
        assert!(bed.space.free_removed((), descriptor));
    });
    let all = By::IoRemap.map(&bed, (0, 24), Attributes::DEVICE, CALLER).expect("all forgotten");
    By::IoRemap.unmap(&bed, all);
}

/// More mappings than stand in the index's row, and more than its first chunk of nodes holds.
#[test]
fn many_mappings_are_all_known_s97() {
    let bed = Bed::warm();
    let count = 150;
    let mapped: Vec<VirtAddr> = (0..count)
        .map(|page| By::IoRemap.map(&bed, (2 * page, 1), Attributes::DEVICE, CALLER))
        .map(|mapped| mapped.expect("nobody else"))
        .collect();
    bed.clean();
    bed.changes_nothing(|bed| {
        for page in 0..count {
            let refused = By::VmapPfn.map(bed, (2 * page, 1), Attributes::WRITE_COMBINE, CALLER);
            assert!(matches!(refused, Err(NoArea::Alias(_))), "{page}: {refused:?}");
            let between = (2 * page + 1, 1);
            let made = By::VmapPfn.map(bed, between, Attributes::WRITE_COMBINE, CALLER);
            By::VmapPfn.unmap(bed, made.expect("nobody else"));
        }
    });
    // In another order than they came.
    for step in 0..count as usize {
        By::IoRemap.unmap(&bed, mapped[step * 67 % count as usize]);
    }
    let all = By::VmapPfn.map(&bed, (0, 2 * count), Attributes::WRITE_COMBINE, CALLER);
    By::VmapPfn.unmap(&bed, all.expect("nobody else"));
    bed.clean();
}

/// What a TLB may still have counts as mapped: the index forgets a page with its addresses, after the flush (S14a).
#[test]
fn a_part_that_was_unmapped_counts_until_the_area_goes_s97() {
    let bed = Bed::warm();
    let area = By::VmapPfn.map(&bed, (0, 4), Attributes::WRITE_COMBINE, CALLER).expect("nobody");
    let pages = bed.space.find(area).expect("a live area").pages;
    let part = pages.sub_range(1, 2).expect("inside");
    let removed = bed.space.unmap_area((), part).expect("inside one area");
    assert_eq!(removed.pages, 2);
    let refused = By::IoRemap.map(&bed, (1, 1), Attributes::DEVICE, CALLER);
    assert!(matches!(refused, Err(NoArea::Alias(_))), "{refused:?}");
    By::VmapPfn.unmap(&bed, area);
    let device = By::IoRemap.map(&bed, (1, 1), Attributes::DEVICE, CALLER).expect("nobody");
    By::IoRemap.unmap(&bed, device);
    bed.clean();
}

/// Pages 4 and 5 behind [`DEVICE`] are mapped for good, as Device memory, and far above another, write-combining.
fn with_statics() -> (Bed, StaticMapping) {
    let mut bed = Bed::warm_on(Behaviour::Forgetful);
    let request = |name, first: u32, bytes: u32, attributes| {
        let (first, last) = (PhysAddr::new(first), PhysAddr::new(first + bytes - 1));
        StaticRequest { range: BusRange { name, first, last }, attributes }
    };
    let l2 = request("l2", DEVICE + 4 * PAGE_SIZE, 2 * PAGE_SIZE, Attributes::DEVICE);
    let screen = request("screen", DEVICE + 90 * PAGE_SIZE, PAGE_SIZE, Attributes::WRITE_COMBINE);
    bed.map_statics(&[l2, screen]).expect("room");
    let had = *bed.space.static_mappings().next().expect("the first");
    (bed, had)
}

/// Frames of devices by their numbers: one that is mapped for good is not mapped otherwise, wherever in the list it stands.
#[test]
fn frames_that_are_mapped_for_good_are_not_mapped_otherwise_s95_s97() {
    let (bed, had) = with_statics();
    let base = PhysAddr::new(DEVICE).pfn().number();
    let map = |numbers: &[u32], attributes| {
        let frames: Vec<Pfn> = numbers.iter().map(|number| frame(base + number)).collect();
        bed.space.vmap_devices(frames.into_iter(), attributes, CALLER)
    };
    let lists: [(&[u32], Option<u32>); 9] = [
        (&[4], Some(4)),
        (&[5], Some(5)),
        (&[5, 4], Some(5)),
        (&[3, 4, 6], Some(4)),
        (&[20, 9, 1, 5], Some(5)),
        (&[3], None),
        (&[6], None),
        (&[3, 6, 80, 0], None),
        // Between the two that are mapped for good.
        (&[89, 50, 91], None),
    ];
    for (numbers, clash) in lists {
        for wanted in WAYS {
            bed.changes_nothing(|bed| match (map(numbers, wanted), clash) {
                (mapped, Some(number)) if wanted != Attributes::DEVICE => {
                    let frame = frame(base + number);
                    assert_eq!(mapped, Err(VmapError::Static { frame, wanted, had }));
                }
                (mapped, _) => {
                    let area = mapped.expect("they go together").pages.start();
                    By::VmapPfn.unmap(bed, area);
                }
            });
        }
    }
    // The board may have two kinds.
    let screen = map(&[90], Attributes::WRITE_COMBINE).expect("as it is").pages.start();
    By::VmapPfn.unmap(&bed, screen);
    assert!(matches!(map(&[90], Attributes::DEVICE), Err(VmapError::Static { .. })));
    // What cannot be written goes together with what can, if nothing is executed.
    bed.changes_nothing(|bed| {
        let read_only = Attributes::new(
            MemoryType::Device,
            Access::KernelReadOnly,
            Execute::Never,
            Scope::Global,
        );
        let area = map(&[4, 5], read_only.expect("never executed")).expect("of one type");
        let area = area.pages.start();
        By::VmapPfn.unmap(bed, area);
    });
    bed.clean();
}

/// The audit asks the board's mappings, too.
#[test]
fn a_mapping_that_clashes_with_one_for_good_is_found_s95_s97() {
    let (bed, had) = with_statics();
    let area = By::VmapPfn.map(&bed, (5, 1), Attributes::DEVICE, CALLER).expect("they go together");
    bed.clean();
    let physical = PhysAddr::new(DEVICE + 5 * PAGE_SIZE);
    let before = bed.poke_page(area, physical.pfn(), Attributes::STRONGLY_ORDERED);
    let place = Place::Area { kind: AreaKind::Vmap, base: area };
    let (_, found) = bed.audit();
    let (first_type, second_type) =
        (Attributes::STRONGLY_ORDERED.memory(), Attributes::DEVICE.memory());
    let second = VirtAddr::new(had.pages.start().raw() + PAGE_SIZE);
    let clash = Violation::MemoryTypes { physical, first: area, first_type, second, second_type };
    assert!(found.contains(&clash), "{found:?} at {place}");
    bed.poke(bed.l2_slot(area), before);
    By::VmapPfn.unmap(&bed, area);
    bed.clean();
}

/// A board whose own mappings do not go together is refused the second.
#[test]
fn two_mappings_for_good_go_together_or_the_second_is_refused_s97() {
    let range = |name, first, pages| {
        let last = PhysAddr::new(DEVICE + (first + pages) * PAGE_SIZE - 1);
        BusRange { name, first: PhysAddr::new(DEVICE + first * PAGE_SIZE), last }
    };
    let first = StaticRequest { range: range("first", 3, 3), attributes: Attributes::DEVICE };
    let second = |first, attributes| StaticRequest { range: range("second", first, 3), attributes };
    for (offset, attributes, clashes) in [
        (1, Attributes::WRITE_COMBINE, true),
        (5, Attributes::WRITE_COMBINE, true),
        (3, Attributes::STRONGLY_ORDERED, true),
        (5, Attributes::DEVICE, false),
        (0, Attributes::WRITE_COMBINE, false),
        (6, Attributes::WRITE_COMBINE, false),
    ] {
        let mut bed = Bed::warm();
        let wanted = second(offset, attributes);
        let mapped = bed.map_statics(&[first, wanted]);
        let had = *bed.space.static_mappings().next().expect("the first");
        let refused = StaticError::Alias { wanted, had };
        assert_eq!(mapped, if clashes { Err(refused) } else { Ok(()) }, "{offset} {attributes}");
        let said = refused.to_string();
        assert!(said.contains("second") && said.contains("first"), "{said}");
        bed.clean();
    }
}
