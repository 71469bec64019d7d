//! Coherent buffers of scattered frames on SoftMachine: CPUs stand in for the device, and remember what they may (S79 to S81, S109).
//! What is refused is in [`super::scattered_refusals`], what must not be forgotten on the board of mutants.

use crate::mutants::{
    exec::linear_of,
    iommu::{Devices, Of, audit, domain_of, with_open},
};
use histories::bed::{Bed, CALLER, Furniture, LowMemory, RAM_PAGES, frame, page};
use kerncore::{
    addr::{DmaAddr, PAGE_SIZE, Pfn, VirtAddr},
    area::{AreaFlags, AreaKind, AreaSummary, IN_A_FRAME, Mapping},
    attributes::Attributes,
    audit::{Place, Violation},
    coherent::Coherency,
    descriptor::PageSize,
    dma_mask::DmaMask,
    failure::{Afterwards, Point},
    frames::{FrameList, FrameOwner},
    holder::{Holder, Moment, Tag},
    iommu::{DomainMapError, SeenAt, SeenList},
    kernel_space::{
        CoherentFreed, ListedKind, RemoveError, ScatteredError, ScatteredFreed, Viewer,
    },
    page_table::Removal,
};
use machine::{Behaviour, Fault, fail_nth};
use std::num::NonZeroU32;
use std::sync::atomic::Ordering::Relaxed;

pub(crate) const BOTH: [Coherency; 2] = [Coherency::NonCoherent, Coherency::Coherent];

/// As many pointers as a record holds, and one more; several blocks; and not few.
const SIZES: [u32; 4] = [1, 3, 15, 37];

pub(crate) fn everywhere(test: impl Fn(&Devices<'_>)) {
    for behaviour in Behaviour::all(2) {
        println!("{behaviour:?}");
        let bed = Bed::warm_on(behaviour);
        bed.changes_nothing(|bed| {
            let devices = Devices::new(bed);
            test(&devices);
            assert_eq!(devices.spaces.numbers_taken(), 0, "the numbers came back, too");
        });
    }
}

pub(crate) const fn viewer(coherency: Coherency) -> Viewer {
    Viewer { coherency, mask: DmaMask::ALL }
}

/// A buffer for a device that reaches everything; of one page by the short way, if that has all at hand.
pub(crate) fn try_make(
    bed: &Bed,
    domain: &Of<'_>,
    pages: u32,
    coherency: Coherency,
) -> Result<(AreaSummary, SeenAt), ScatteredError> {
    let viewer = viewer(coherency);
    if pages == 1
        && let Some((base, start)) = bed.space.scattered_page(domain, viewer, CALLER.into())
    {
        let area = bed.space.find(base).expect("live");
        return Ok((area, SeenAt { root: domain.root(), start, coherency }));
    }
    bed.space.scattered_alloc(domain, pages * PAGE_SIZE, viewer, CALLER)
}

pub(crate) fn make(
    bed: &Bed,
    domain: &Of<'_>,
    pages: u32,
    coherency: Coherency,
) -> (VirtAddr, DmaAddr) {
    let (area, at) = try_make(bed, domain, pages, coherency).expect("memory");
    assert_eq!((area.kind, area.pages.count()), (AreaKind::Scattered, pages));
    assert_eq!((at.root, at.coherency), (domain.root(), coherency));
    (area.pages.start(), at.start)
}

/// By the short way, if that has all at hand, which it has of one page alone.
pub(crate) fn try_free(
    bed: &Bed,
    domain: &Of<'_>,
    buffer: (VirtAddr, DmaAddr),
) -> Result<ScatteredFreed, RemoveError> {
    let page = bed.space.scattered_free_page((), domain, buffer);
    page.unwrap_or_else(|| bed.space.scattered_free((), domain, buffer))
}

#[track_caller]
pub(crate) fn free(bed: &Bed, domain: &Of<'_>, buffer: (VirtAddr, DmaAddr), pages: u32) {
    let freed = try_free(bed, domain, buffer);
    let counts = CoherentFreed { actual: pages, given: pages, missing: 0 };
    let hidden = Removal { pages, ..Removal::default() };
    assert_eq!(freed, Ok(ScatteredFreed { freed: counts, hidden }));
}

/// Leaves memory in a few single frames, no two of which are adjacent, full of what somebody left there.
fn in_pieces(bed: &Bed) -> [FrameList; 2] {
    let rest = bed.starve(128);
    let cpu = bed.machine.cpu(0);
    let all = bed.starve(0);
    for frame in all.frames(bed.space.zones().table()) {
        let linear = VirtAddr::new(frame.base().raw() + 0x2000_0000);
        assert_eq!(cpu.store(linear, 0xdead_beef), Ok(()));
    }
    bed.feed(all);
    [rest, bed.scatter()]
}

/// S79, S85, S109: where no two frames are adjacent, the buffer is contiguous to both, zeroed, and each reads what the other wrote.
#[test]
fn a_buffer_of_scattered_frames_is_contiguous_to_both_who_agree_s79_s109() {
    everywhere(|devices| {
        let bed = devices.bed;
        let domain = domain_of(devices, 0x10_0000, 4 << 20);
        let pieces = in_pieces(bed);
        assert!(bed.space.coherent_alloc(2 * PAGE_SIZE, FrameOwner::Dma, CALLER).is_err());
        let cpus = [devices.cpu(0), devices.cpu(1)];
        for (pages, coherency) in SIZES.into_iter().flat_map(|pages| BOTH.map(|how| (pages, how))) {
            let buffer @ (base, start) = make(bed, &domain, pages, coherency);
            let mut before = None;
            for index in 0..pages {
                let own = VirtAddr::new(base.raw() + index * PAGE_SIZE + 4 * (index % 1024));
                let seen = VirtAddr::new(start.raw() + index * PAGE_SIZE + 4 * (index % 1024));
                let (one, other) = (cpus[(index % 2) as usize], cpus[(1 - index % 2) as usize]);
                with_open(&domain, &one, || {
                    assert_eq!(one.load(seen), Ok(0), "zeroed, and where the device sees it");
                    assert_eq!(one.store(seen, 0xd1_0000 + index), Ok(()));
                });
                assert_eq!(other.load(own), Ok(0xd1_0000 + index), "the device wrote");
                assert_eq!(other.store(own, index), Ok(()));
                let read = with_open(&domain, &one, || one.load(seen));
                assert_eq!(read, Ok(index), "the processor wrote");
                let (frame, linear) = (bed.frame_at(own), linear_of(bed, own));
                assert_eq!(one.load(linear), Err(Fault::Translation(linear)), "no second view");
                assert_eq!(bed.space.zones().table().owner_of(frame), FrameOwner::Dma);
                let apart = |before: u32| before.abs_diff(frame.number()) > 1;
                assert!(before.is_none_or(apart), "adjacent frames have no teeth");
                before = Some(frame.number());
            }
            for (address, last) in [(base, pages), (base, u32::MAX)] {
                let outside =
                    VirtAddr::new(address.raw().wrapping_add(last.wrapping_mul(PAGE_SIZE)));
                assert_eq!(cpus[0].load(outside), Err(Fault::Translation(outside)), "its guard");
            }
            let summary = audit(&domain);
            assert_eq!(summary.pages, pages);
            bed.clean_beside(summary.table_frames);
            free(bed, &domain, buffer, pages);
            let gone = with_open(&domain, &cpus[1], || cpus[1].load(VirtAddr::new(start.raw())));
            assert_eq!(gone, Err(Fault::Translation(VirtAddr::new(start.raw()))));
            assert_eq!(cpus[1].load(base), Err(Fault::Translation(base)));
            assert!(domain.is_unused());
        }
        for list in pieces {
            bed.feed(list);
        }
    });
}

/// S79: where there are large blocks, they come first; the device's entries are as large as they allow.
#[test]
fn the_largest_blocks_come_first_s79() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let devices = Devices::new(bed);
        let domain = domain_of(&devices, 0, 64 << 20);
        for (pages, sizes) in [
            (16, [(0, PageSize::Large), (15, PageSize::Large)]),
            (256, [(0, PageSize::Section), (255, PageSize::Section)]),
            (277, [(255, PageSize::Section), (256, PageSize::Large)]),
            (21, [(15, PageSize::Large), (16, PageSize::Small)]),
        ] {
            let buffer @ (base, start) = make(bed, &domain, pages, Coherency::NonCoherent);
            for (index, size) in sizes {
                let seen = DmaAddr::new(start.raw() + index * PAGE_SIZE);
                assert_eq!(domain.translate(seen).map(|found| found.size), Some(size), "{pages}");
            }
            let aligned = pages.next_power_of_two().min(256) * PAGE_SIZE;
            assert_eq!((base.raw() % aligned, start.raw() % aligned), (0, 0), "S65");
            free(bed, &domain, buffer, pages);
        }
    });
}

/// S79, S80, S83: the descriptor shows the page array and the flags, and the record who has it.
#[test]
fn the_record_has_the_page_array_and_who_has_the_buffer_s79_s83() {
    let furniture = Furniture { window_pages: 3 << 10, ..Furniture::with(LowMemory::All) };
    let bed = Bed::furnished(Behaviour::Forgetful, furniture, |machine| machine.cpu(0));
    bed.warm_up();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0, 16 << 20);
    let holder = Holder { caller: CALLER, tag: Tag::of(7, 0), since: Moment::new(99) };
    for pages in [1, 14, 15, IN_A_FRAME + 1] {
        let made = bed.space.scattered_alloc(
            &domain,
            pages * PAGE_SIZE - 1,
            viewer(Coherency::NonCoherent),
            holder,
        );
        let (area, at) = made.expect("memory");
        let base = area.pages.start();
        bed.clean_beside(audit(&domain).table_frames);
        let found = bed.space.with_area(base, |record| {
            let Mapping::Scattered(seen) = &record.mapping else { panic!("{record:?}") };
            assert_eq!(seen.at(), at);
            (record.vm.flags(), record.vm.nr_pages(), record.vm.pages() != 0, record.holder())
        });
        let flags = AreaFlags::DMA.with(AreaFlags::USERMAP);
        let own = if pages > IN_A_FRAME { flags.with(AreaFlags::VPAGES) } else { flags };
        assert_eq!(found, Some((own, pages, true, Some(holder))), "{pages}");
        let listed = bed.space.next_listed(base).expect("it lives");
        let ListedKind::Live(live) = listed.what else { panic!("{listed:?}") };
        assert_eq!((live.holder, live.summary.physical.raw()), (Some(holder), 0));
        assert_eq!(live.seen, Some((at, bed.frame_at(base))));
        let mut frames = Vec::new();
        let visit = &mut |first: Pfn, count| {
            frames.extend((0..count).map(|index| frame(first.number() + index)));
        };
        assert_eq!(bed.space.scattered_runs((base, at), pages, visit), Some(()));
        let wanted: Vec<_> =
            (0..pages).map(|index| bed.frame_at(page(base.page_number() + index))).collect();
        assert_eq!(frames, wanted, "the runs are the frames, in their order");
        free(&bed, &domain, (base, at.start), pages);
    }
    bed.clean_beside(audit(&domain).table_frames);
}

/// S82: runs end with the pages that are asked for, and are as long as can be.
#[test]
fn runs_of_frames_are_as_long_as_can_be_and_no_longer_than_asked_s82() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0, 16 << 20);
    let buffer @ (base, _) = make(&bed, &domain, 21, Coherency::NonCoherent);
    let at = bed.space.with_scattered(base, SeenList::at).expect("one");
    for pages in 0..=21 {
        let (mut total, mut end) = (0, None);
        let visit = &mut |first: Pfn, count: u32| {
            assert_ne!(count, 0);
            assert_ne!(end, Some(first.number()), "two runs that adjoin are one");
            end = Some(first.number() + count);
            total += count;
        };
        assert_eq!(bed.space.scattered_runs((base, at), pages, visit), Some(()));
        assert_eq!(total, pages);
    }
    let nothing = &mut |_, _| panic!("nothing is shown");
    for pages in [22, u32::MAX] {
        assert_eq!(bed.space.scattered_runs((base, at), pages, nothing), None, "{pages}");
    }
    let coherency = Coherency::Coherent;
    for other in
        [SeenAt { coherency, ..at }, SeenAt { start: DmaAddr::new(4096 + at.start.raw()), ..at }]
    {
        assert_eq!(bed.space.scattered_runs((base, other), 1, nothing), None);
    }
    free(&bed, &domain, buffer, 21);
}

/// S28: with one frame too few nothing is taken; with just enough it is made, whatever the pieces.
#[test]
fn memory_is_used_to_the_last_frame_and_nothing_is_kept_if_it_does_not_do_s28() {
    for coherency in BOTH {
        let bed = Bed::warm();
        let devices = Devices::new(&bed);
        let domain = domain_of(&devices, 0, 4 << 20);
        // The tables of both sides.
        let kept = make(&bed, &domain, 1, coherency);
        let _beside = bed.beside(audit(&domain).table_frames);
        let scattered = bed.scatter();
        for pages in [1_u32, 2, 7, 13] {
            for left in [0, 1, pages - 1, pages] {
                let rest = bed.starve(left);
                bed.changes_nothing(|bed| match try_make(bed, &domain, pages, coherency) {
                    Ok((area, at)) => {
                        assert_eq!(left, pages, "as many as there are");
                        free(bed, &domain, (area.pages.start(), at.start), pages);
                    }
                    Err(error) => {
                        assert!(left < pages, "{error}");
                        assert!(matches!(error, ScatteredError::Frames(_)), "{error}");
                        assert_eq!(audit(&domain).pages, 1);
                    }
                });
                bed.feed(rest);
            }
        }
        bed.feed(scattered);
        free(&bed, &domain, kept, 1);
    }
}

/// S9, S18, S66, S79: each thing that it takes is refused in turn; nobody sees anything afterwards, and all is back.
#[test]
fn a_buffer_survives_each_failure_s79() {
    everywhere(|devices| {
        let bed = devices.bed;
        for (pages, coherency) in
            [1, 3, 19].into_iter().flat_map(|pages| BOTH.map(|how| (pages, how)))
        {
            let domain = domain_of(devices, 0, 1 << 20);
            let buffer = make(bed, &domain, pages, coherency);
            free(bed, &domain, buffer, pages);
            // The first page of its window, where its buffer was.
            let seen = VirtAddr::new(buffer.1.raw());
            let mut failed = Vec::new();
            for nth in (1..).filter_map(NonZeroU32::new) {
                let run = || try_make(bed, &domain, pages, coherency);
                let (made, outcome) = fail_nth(nth, Afterwards::Plenty, run);
                match (made, outcome.failed) {
                    (Ok((area, at)), _) => {
                        free(bed, &domain, (area.pages.start(), at.start), pages);
                    }
                    (Err(error), Some(point)) => {
                        let right = match error {
                            ScatteredError::Area(_) => {
                                matches!(point, Point::Record | Point::Addresses | Point::Frames)
                            }
                            ScatteredError::PageArray(_) | ScatteredError::Frames(_) => {
                                point == Point::Frames
                            }
                            ScatteredError::Linear(_) => point == Point::Linear,
                            ScatteredError::Map(_) => {
                                matches!(point, Point::Table | Point::Frames)
                            }
                            ScatteredError::View(DomainMapError::Iova(_)) => {
                                point == Point::Addresses
                            }
                            ScatteredError::View(DomainMapError::Map(_)) => {
                                matches!(point, Point::Table | Point::Frames)
                            }
                            _ => false,
                        };
                        assert!(right, "{point}: {error}");
                        failed.push(point);
                    }
                    (Err(error), None) => panic!("nothing failed: {error}"),
                }
                assert!(domain.is_unused());
                bed.clean_beside(audit(&domain).table_frames);
                for cpu in [0, 1].map(|cpu| devices.cpu(cpu)) {
                    assert_eq!(cpu.load(buffer.0), Err(Fault::Translation(buffer.0)));
                    let found = with_open(&domain, &cpu, || cpu.load(seen));
                    assert_eq!(found, Err(Fault::Translation(seen)));
                }
                if outcome.failed.is_none() {
                    break;
                }
            }
            for point in
                [Point::Record, Point::Addresses, Point::Frames, Point::Linear, Point::Table]
            {
                assert!(failed.contains(&point), "{point} was never asked: {failed:?}");
            }
            let addresses = failed.iter().filter(|&&point| point == Point::Addresses).count();
            assert_eq!(addresses, 2, "on both sides");
        }
    });
}

/// S97, S112: the audit knows the kind: by record, frames, entries, type and page array.
#[test]
fn the_audit_sees_damage_to_a_buffer_of_scattered_frames() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0, 1 << 20);
    let scattered = bed.scatter();
    for coherency in BOTH {
        let buffer @ (base, _) = make(&bed, &domain, 3, coherency);
        let _beside = bed.beside(audit(&domain).table_frames);
        bed.clean();
        let (own, other) = match coherency {
            Coherency::NonCoherent => (Attributes::WRITE_COMBINE, Attributes::KERNEL_DATA),
            Coherency::Coherent => (Attributes::KERNEL_DATA, Attributes::WRITE_COMBINE),
        };
        let second = page(base.page_number() + 1);
        let place = Place::Area { kind: AreaKind::Scattered, base };
        let was = bed.poke_page(second, bed.frame_at(second), other);
        bed.finds(&[Violation::WrongAttributes {
            address: second,
            place,
            wanted: own,
            had: other,
        }]);
        bed.poke(bed.l2_slot(second), was);
        // A page of it that is not mapped, and one that leads to another's frame.
        bed.poke(bed.l2_slot(second), 0);
        assert!(
            matches!(bed.audit().1[..], [Violation::Missing { address, .. }] if address == second)
        );
        bed.poke(bed.l2_slot(second), was);
        let elsewhere = bed.frame_at(base);
        let before = bed.poke_page(second, elsewhere, own);
        assert!(bed.audit().1.iter().any(
            |found| matches!(found, Violation::WrongFrame { address, .. } if *address == second)
        ));
        bed.poke(bed.l2_slot(second), before);
        // What C callers read of it.
        let words = bed.space.with_area(base, |record| {
            let null = record.within[1].swap(0, Relaxed);
            (null, record.vm.flags())
        });
        let (pointer, flags) = words.expect("live");
        assert!(
            matches!(bed.audit().1[..], [Violation::Record { part: "page pointer", had: 0, wanted, .. }] if wanted == pointer)
        );
        bed.space.with_area(base, |record| {
            record.within[1].store(pointer, Relaxed);
            record.vm.set_flags(AreaFlags::ALLOC);
        });
        assert!(matches!(bed.audit().1[..], [Violation::Record { part: "flags", .. }]));
        bed.space.with_area(base, |record| record.vm.set_flags(flags));
        // A linear view that is left.
        let linear = linear_of(&bed, second);
        bed.poke_page(linear, bed.frame_at(second), Attributes::KERNEL_DATA);
        assert!(bed.audit().1.iter().any(
            |found| matches!(found, Violation::Present { address, .. } if *address == linear)
        ));
        bed.poke(bed.l2_slot(linear), 0);
        bed.clean();
        free(&bed, &domain, buffer, 3);
        bed.clean();
    }
    bed.feed(scattered);
    assert!(bed.space.zones().free_pages() < RAM_PAGES);
}
