//! vmap of frames that lie one after the other: by sections and large pages (S22 to S24, S37, S90).

use super::bed::{Bed, CALLER, frame, page};
use kerncore::{
    addr::{PAGES_PER_SECTION, PageRange, Pfn, VirtAddr},
    area::{AreaKind, AreaSummary},
    attributes::Attributes,
    audit::Violation,
    descriptor::{PageSize, l2},
    frames::{FrameBlock, FrameOwner},
    kernel_space::{RemoveError, UnmapAreaError, VmapError},
};
use machine::{Behaviour, Fault, Kind, Privilege};

const READ_WRITE: Attributes = Attributes::KERNEL_DATA;

/// The sizes by which pages are mapped, each as often as it serves one after the other.
type Sizes = &'static [(PageSize, u32)];

/// A block of the test's own, and its frames in order.
fn block(bed: &Bed, order: u32) -> (FrameBlock, Vec<Pfn>) {
    let block = bed.space.zones().allocate(order, FrameOwner::Test).expect("memory");
    let first = block.first().number();
    let frames = (first..first + block.pages()).map(frame).collect();
    (block, frames)
}

#[track_caller]
fn map(bed: &Bed, frames: &[Pfn], attributes: Attributes) -> AreaSummary {
    let area = bed.space.vmap(frames, attributes, CALLER).expect("addresses");
    assert_eq!((area.kind, area.pages.count() as usize), (AreaKind::Vmap, frames.len()));
    for (number, &frame) in (0..).zip(frames) {
        assert_eq!(bed.frame_at(nth(&area, number)), frame, "page {number}");
    }
    area
}

fn nth(area: &AreaSummary, number: u32) -> VirtAddr {
    page(area.pages.first() + number)
}

fn sizes(bed: &Bed, area: &AreaSummary) -> Vec<(PageSize, u32)> {
    let mut sizes: Vec<(PageSize, u32)> = Vec::new();
    for number in 0..area.pages.count() {
        let size = bed.space.table().translate(nth(area, number)).expect("mapped").size;
        match sizes.last_mut() {
            Some((last, count)) if *last == size => *count += 1,
            _ => sizes.push((size, 1)),
        }
    }
    sizes
}

fn unmap(bed: &Bed, area: &AreaSummary) {
    assert_eq!(bed.space.vunmap((), area.pages.start()), Ok(()));
}

/// S90, S23: whatever way the frames lie, every CPU reaches them while the area lives, and none afterwards.
#[test]
fn runs_of_frames_are_as_large_as_they_can_be_s23_s90() {
    use PageSize::{Large, Section, Small};
    for behaviour in Behaviour::all(1) {
        let bed = Bed::warm_on(behaviour);
        bed.gives_back(|bed| {
            let (first, mib) = block(bed, 8);
            let (second, other) = block(bed, 6);
            let (third, single) = block(bed, 2);
            let cases: [(Vec<Pfn>, Sizes); 7] = [
                (
                    [&mib[..], &other[..], &single[..]].concat(),
                    &[(Section, 256), (Large, 64), (Small, 4)],
                ),
                ([&other[..], &mib[..]].concat(), &[(Large, 320)]),
                (mib[..33].to_vec(), &[(Large, 32), (Small, 1)]),
                (mib[..15].to_vec(), &[(Small, 15)]),
                (mib[1..17].to_vec(), &[(Small, 16)]),
                (mib[..32].iter().rev().copied().collect(), &[(Small, 32)]),
                ([&mib[16..32], &mib[..16], &mib[..16]].concat(), &[(Large, 48)]),
            ];
            for (frames, wanted) in cases {
                let area = map(bed, &frames, READ_WRITE);
                assert_eq!(sizes(bed, &area), wanted, "{behaviour:?}");
                let cpus = [bed.machine.cpu(0), bed.machine.cpu(1)];
                let last = area.pages.count() - 1;
                for (cpu, number) in
                    cpus.into_iter().flat_map(|cpu| [(cpu, 0), (cpu, 7), (cpu, last)])
                {
                    let reached = cpu.access(nth(&area, number), Kind::Write, Privilege::Kernel);
                    assert_eq!(reached, Ok(frames[number as usize].base()));
                }
                unmap(bed, &area);
                for (cpu, number) in
                    cpus.into_iter().flat_map(|cpu| [(cpu, 0), (cpu, 8), (cpu, last)])
                {
                    let (kind, privilege) = (Kind::Read, Privilege::Kernel);
                    let address = nth(&area, number);
                    let gone = Err(Fault::Translation(address));
                    assert_eq!(cpu.access(address, kind, privilege), gone, "{behaviour:?}");
                }
            }
            for block in [first, second, third] {
                bed.space.zones().free(block).expect("the test's");
            }
        });
    }
}

/// S37, S112: rights are the caller's; S90: and the command line's word is kept.
#[test]
fn rights_are_the_callers_and_large_entries_can_be_forbidden_s37_s90() {
    let bed = Bed::warm();
    bed.gives_back(|bed| {
        let (block, frames) = block(bed, 5);
        let area = map(bed, &frames, Attributes::KERNEL_RODATA);
        assert_eq!(sizes(bed, &area), [(PageSize::Large, 32)]);
        let denied = bed.machine.cpu(1).store(nth(&area, 17), 1);
        assert_eq!(denied, Err(Fault::Permission(nth(&area, 17))));
        bed.clean();
        unmap(bed, &area);
        bed.space.forbid_large_mappings();
        let area = map(bed, &frames, READ_WRITE);
        assert_eq!(sizes(bed, &area), [(PageSize::Small, 32)]);
        unmap(bed, &area);
        bed.space.zones().free(block).expect("the test's");
    });
}

/// S18, S37: the frame that may not be mapped is named, wherever it lies, and nothing stays.
#[test]
fn a_frame_that_may_not_be_mapped_is_named_behind_large_ones_s18_s37() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let (block, mut frames) = block(bed, 6);
        let free = bed.space.zones().allocate(0, FrameOwner::Test).expect("memory");
        let stranger = free.first();
        bed.space.zones().free(free).expect("the test's");
        for place in [0, 15, 16, 40, 63] {
            let right = std::mem::replace(&mut frames[place], stranger);
            let refused = bed.space.vmap(&frames, READ_WRITE, CALLER);
            let owner = FrameOwner::Free;
            assert_eq!(refused, Err(VmapError::NotMemory { frame: stranger, owner }));
            frames[place] = right;
        }
        bed.space.zones().free(block).expect("the test's");
    });
}

/// S24: the table that a section of somebody else's memory displaces returns, too.
#[test]
fn a_displaced_table_returns_with_vunmap_s24() {
    let bed = Bed::warm();
    let (block, frames) = block(&bed, 8);
    let all = bed.vmalloc(super::bed::WINDOW_PAGES - 1);
    bed.space.vfree((), all).expect("a live area");
    bed.changes_nothing(|bed| {
        let area = map(bed, &frames, READ_WRITE);
        assert_eq!(sizes(bed, &area), [(PageSize::Section, PAGES_PER_SECTION)]);
        bed.clean();
        unmap(bed, &area);
    });
    bed.space.zones().free(block).expect("the test's");
}

/// S90, S55: a part is refused by name; the whole is unmapped, and the area keeps its addresses.
#[test]
fn a_part_is_never_unmapped_and_the_whole_may_be_s55_s90() {
    for order in [8, 4] {
        let bed = Bed::warm();
        bed.gives_back(|bed| {
            let (block, frames) = block(bed, order);
            let area = map(bed, &frames, READ_WRITE);
            let count = area.pages.count();
            let part = |offset, count| PageRange::from_numbers(area.pages.first() + offset, count);
            for pages in [(0, 1), (3, count - 3), (0, count - 1), (count - 1, 2)] {
                let pages = part(pages.0, pages.1).expect("pages");
                let refused = UnmapAreaError::Large { pages, area: area.pages };
                assert_eq!(bed.space.unmap_area((), pages), Err(refused));
                assert_eq!(
                    bed.machine.cpu(0).load(nth(&area, 3)),
                    bed.machine.cpu(1).load(nth(&area, 3))
                );
                bed.clean();
            }
            let removal = bed.space.unmap_area((), area.pages).expect("all of it");
            assert_eq!((removal.pages, removal.oddities), (count, 0));
            assert_eq!(
                bed.machine.cpu(1).load(nth(&area, 3)),
                Err(Fault::Translation(nth(&area, 3)))
            );
            assert_eq!(
                bed.space.find(area.pages.start()).map(|found| found.pages),
                Some(area.pages)
            );
            unmap(bed, &area);
            bed.space.zones().free(block).expect("the test's");
        });
    }
}

/// S14, S34: every way to remove an area of vmap is one for large ones, and vfree is none.
#[test]
fn each_removal_ends_a_large_mapping_s14_s34() {
    let bed = Bed::warm();
    bed.gives_back(|bed| {
        let (block, frames) = block(bed, 4);
        let area = map(bed, &frames, READ_WRITE);
        let address = area.pages.start();
        let found = AreaKind::Vmap;
        assert_eq!(bed.space.vfree((), address), Err(RemoveError::WrongKind { address, found }));
        let descriptor = bed.space.remove_area((), address).expect("a live area");
        assert!(bed.space.free_removed((), descriptor));
        bed.clean();
        let area = map(bed, &frames, READ_WRITE);
        let descriptor = bed.space.with_area(area.pages.start(), |record| &raw const record.vm);
        let freed = bed.space.free_area((), area.pages.start(), descriptor.expect("live"));
        assert_eq!(freed, Ok(()));
        bed.clean();
        bed.space.zones().free(block).expect("the test's");
    });
}

/// The audit judges what the slots of somebody else's large page lead to.
#[test]
fn a_slot_that_leads_elsewhere_is_seen_s90() {
    let bed = Bed::warm();
    let (block, frames) = block(&bed, 5);
    let area = map(&bed, &frames, READ_WRITE);
    let slot = bed.l2_slot(nth(&area, 21));
    let wrong = l2::Descriptor::LargePage(frames[0].base(), READ_WRITE).encode().expect("aligned");
    let right = bed.poke(slot, wrong);
    bed.finds(&[Violation::WrongFrame {
        address: nth(&area, 21),
        place: kerncore::audit::Place::Area { kind: AreaKind::Vmap, base: area.pages.start() },
        wanted: frames[21].base(),
        had: frames[5].base(),
    }]);
    bed.poke(slot, right);
    unmap(&bed, &area);
    bed.space.zones().free(block).expect("the test's");
}
