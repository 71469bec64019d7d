//! A page for a device behind an IOMMU, where all is at hand, on SoftMachine: it is what the general way makes, and what is not at hand, or
//! not as it should be, is left to that with nothing changed (S17, S67, S79, S81, S109). What it must not forget is on the board of mutants.

use crate::mutants::{
    exec::linear_of,
    iommu::{Devices, Of, audit, domain_of},
    user::{Programs, Right},
};
use crate::scattered::{BOTH, everywhere, viewer};
use histories::bed::{Bed, CALLER, RAM, WINDOW, frame, page, pages};
use kerncore::{
    addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr},
    area::{AreaFlags, AreaKind},
    attributes::Attributes,
    coherent::Coherency,
    descriptor::l1,
    dma_mask::DmaMask,
    frames::FrameOwner,
    holder::{Holder, Moment, Tag},
    iommu::{SeenAt, SeenList},
    kernel_space::{CoherentFreed, RemoveError, ScatteredFreed, Viewer},
    page_table::Removal,
    user::Protection,
};
use machine::Fault;

const HOLDER: Holder = Holder { caller: CALLER, tag: Tag::NONE, since: Moment::new(7) };

type Buffer = (VirtAddr, DmaAddr);

/// The tables of both sides are there, and a frame waits.
fn warm(bed: &Bed, domain: &Of<'_>, coherency: Coherency) {
    let made = bed.space.scattered_alloc(domain, PAGE_SIZE, viewer(coherency), CALLER);
    let (area, at) = made.expect("memory");
    bed.space.scattered_free((), domain, (area.pages.start(), at.start)).expect("just made");
}

fn make(bed: &Bed, domain: &Of<'_>, coherency: Coherency) -> Option<Buffer> {
    bed.space.scattered_page(domain, viewer(coherency), HOLDER)
}

fn made(bed: &Bed, domain: &Of<'_>, coherency: Coherency) -> Buffer {
    warm(bed, domain, coherency);
    make(bed, domain, coherency).expect("all is at hand")
}

fn free(bed: &Bed, domain: &Of<'_>, buffer: Buffer) -> Option<Result<ScatteredFreed, RemoveError>> {
    bed.space.scattered_free_page((), domain, buffer)
}

/// As [`Bed::changes_nothing`], beside the tables of `domains`.
#[track_caller]
fn unchanged(bed: &Bed, domains: [&Of<'_>; 2], test: impl FnOnce(&Bed)) {
    let _beside = bed.beside(domains.map(|domain| audit(domain).table_frames).iter().sum());
    bed.changes_nothing(test);
}

#[track_caller]
fn assert_freed(bed: &Bed, domain: &Of<'_>, buffer: Buffer) {
    let counts = CoherentFreed { actual: 1, given: 1, missing: 0 };
    let hidden = Removal { pages: 1, ..Removal::default() };
    let freed = free(bed, domain, buffer);
    assert_eq!(freed, Some(Ok(ScatteredFreed { freed: counts, hidden })));
    assert!(domain.is_unused());
    assert_eq!(bed.space.find(buffer.0), None);
}

/// S79, S83, S97, S109: by its record, its listing and its mappings it is as any.
#[test]
fn a_page_at_hand_is_a_buffer_as_any_s79_s97() {
    everywhere(|devices| {
        let bed = devices.bed;
        let domain = domain_of(devices, 0x10_0000, 1 << 20);
        for coherency in BOTH {
            let buffer @ (base, start) = made(bed, &domain, coherency);
            let area = bed.space.find(base).expect("live");
            assert_eq!((area.kind, area.flags), (AreaKind::Scattered, AreaKind::Scattered.flags()));
            assert!(!area.flags.contains(AreaFlags::VPAGES));
            assert_eq!((area.pages.count(), area.caller, area.users), (1, CALLER, 0));
            let own = bed.space.table().translate(base).expect("mapped");
            let frame = own.physical.pfn();
            let noted = bed.space.with_area(base, |record| {
                let first = record.within[0].load(std::sync::atomic::Ordering::Relaxed);
                (record.holder(), record.vm.nr_pages(), first)
            });
            let pointer = bed.space.zones().table().pointer_to(frame);
            assert_eq!(noted, Some((Some(HOLDER), 1, pointer)));
            let at = SeenAt { root: domain.root(), start, coherency };
            assert_eq!(bed.space.with_scattered(base, SeenList::at), Some(at));
            let wanted = match coherency {
                Coherency::Coherent => Attributes::KERNEL_DATA,
                Coherency::NonCoherent => Attributes::WRITE_COMBINE,
            };
            assert_eq!(own.attributes(), Ok(wanted));
            let seen = domain.translate(start).expect("the device sees it");
            assert_eq!(seen.physical, own.physical);
            assert_eq!(seen.attributes().map(Attributes::memory), Ok(at.memory()));
            assert_eq!(bed.space.zones().table().owner_of(frame), FrameOwner::Dma);
            let summary = audit(&domain);
            assert_eq!(summary.pages, 1);
            bed.clean_beside(summary.table_frames);
            assert_freed(bed, &domain, buffer);
            bed.clean_beside(summary.table_frames);
        }
    });
}

/// S17, S28, S97, S100: no table of the device's, no address, none within reach, a slot in use, a linear entry that is another.
#[test]
fn what_is_not_at_hand_is_left_to_the_general_way_s17_s28_s100() {
    let bed = Bed::warm();
    for coherency in BOTH {
        let devices = Devices::new(&bed);
        let elsewhere = domain_of(&devices, 0, 1 << 20);
        let domain = domain_of(&devices, 0, PAGE_SIZE);
        warm(&bed, &elsewhere, coherency);
        unchanged(&bed, [&elsewhere, &domain], |bed| {
            warm(bed, &elsewhere, coherency);
            assert_eq!(make(bed, &domain, coherency), None, "no table");
            assert!(domain.is_unused());
        });
        warm(&bed, &domain, coherency);
        unchanged(&bed, [&elsewhere, &domain], |bed| {
            warm(bed, &domain, coherency);
            let near = Viewer { coherency, mask: DmaMask::new(u64::from(PAGE_SIZE) - 2) };
            assert_eq!(bed.space.scattered_page(&domain, near, HOLDER), None, "out of reach");
            assert!(domain.is_unused());
        });
        let buffer = made(&bed, &domain, coherency);
        unchanged(&bed, [&elsewhere, &domain], |bed| {
            warm(bed, &elsewhere, coherency);
            assert_eq!(make(bed, &domain, coherency), None, "no address");
        });
        assert_freed(&bed, &domain, buffer);
        unchanged(&bed, [&elsewhere, &domain], |bed| {
            warm(bed, &domain, coherency);
            assert_eq!(bed.poke_page(page(WINDOW), frame(RAM), Attributes::KERNEL_RODATA), 0);
            assert_eq!(make(bed, &domain, coherency), None, "a slot in use");
            bed.poke(bed.l2_slot(page(WINDOW)), 0);
            let buffer = made(bed, &domain, coherency);
            let linear = linear_of(bed, buffer.0);
            assert_freed(bed, &domain, buffer);
            let behind = bed.frame_at(linear);
            let wanted = bed.poke_page(linear, behind, Attributes::WRITE_THROUGH);
            assert_eq!(make(bed, &domain, coherency), None, "another linear entry");
            bed.poke(bed.l2_slot(linear), wanted);
            assert!(domain.is_unused());
        });
        let buffer = made(&bed, &domain, coherency);
        assert_freed(&bed, &domain, buffer);
    }
}

/// S33, S46, S67: of another domain, at another address, of another kind or size, while it is shown, or with a null for its page.
#[test]
fn what_is_no_such_page_is_left_to_the_general_way_s46_s67() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    for coherency in BOTH {
        let (domain, other) = (domain_of(&devices, 0, 1 << 20), domain_of(&devices, 0, 1 << 20));
        let buffer @ (base, start) = made(&bed, &domain, coherency);
        let three = bed.space.scattered_alloc(&other, 3 * PAGE_SIZE, viewer(coherency), CALLER);
        let (three, at) = three.expect("memory");
        let dma = bed.space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER).expect("memory");
        unchanged(&bed, [&domain, &other], |bed| {
            for (domain, address, start) in [
                (&other, base, start),
                (&domain, base, DmaAddr::new(start.raw() + PAGE_SIZE)),
                (&domain, base, DmaAddr::new(start.raw() + 4)),
                (&domain, VirtAddr::new(base.raw() + 4), start),
                (&domain, page(base.page_number() + 1), start),
                (&other, three.pages.start(), at.start),
                (&domain, dma.pages.start(), start),
            ] {
                assert_eq!(free(bed, domain, (address, start)), None, "{address}, {start}");
            }
            bed.space.with_area(base, |record| {
                let pointer = record.within[0].swap(0, std::sync::atomic::Ordering::Relaxed);
                (pointer != 0).then_some(pointer).expect("its page");
            });
            assert_eq!(free(bed, &domain, buffer), None, "a null");
            let pointer = bed.space.zones().table().pointer_to(bed.frame_at(base));
            bed.space.with_area(base, |record| {
                record.within[0].store(pointer, std::sync::atomic::Ordering::Relaxed);
            });
        });
        let programs = Programs::new(&bed, &Right);
        let space = programs.space();
        space.reserve(pages(0x123, 1), Protection::ReadWrite).expect("free addresses");
        let at_it = SeenAt { root: domain.root(), start, coherency };
        space.show_seen(page(0x123), base, at_it, 0).expect("it is seen there");
        assert_eq!(free(&bed, &domain, buffer), None, "a program sees it");
        drop(space);
        assert_freed(&bed, &domain, buffer);
        assert_eq!(free(&bed, &domain, buffer), None, "only once");
        bed.space.scattered_free((), &other, (three.pages.start(), at.start)).expect("live");
        bed.space.coherent_free((), dma.pages.start(), PAGE_SIZE).expect("live");
    }
    bed.clean();
}

/// S22, S25, S97: the processor's entry is gone, the linear one is somebody's, the device's is gone or leads elsewhere.
#[test]
fn a_page_whose_entries_somebody_changed_goes_the_general_way_s22_s97() {
    for coherency in BOTH {
        let bed = Bed::warm();
        let devices = Devices::new(&bed);
        let domain = domain_of(&devices, 0, 1 << 20);
        let buffer @ (base, start) = made(&bed, &domain, coherency);
        let (slot, linear) = (bed.l2_slot(base), bed.l2_slot(linear_of(&bed, base)));
        let own = bed.poke(slot, 0);
        assert_eq!(free(&bed, &domain, buffer), None, "not mapped");
        bed.poke(slot, own);
        assert_eq!(bed.poke(linear, 0x6000_0413), 0, "withdrawn");
        assert_eq!(free(&bed, &domain, buffer), None, "a linear entry");
        bed.poke(linear, 0);
        // The device's table is named by the first-level slot of its first address.
        let above = domain.root().raw() + l1::index(VirtAddr::new(start.raw())) * 4;
        let table = bed.poke(PhysAddr::new(above), 0);
        bed.poke(PhysAddr::new(above), table);
        let theirs = PhysAddr::new((table & !0x3ff) + (start.raw() >> 12 & 0xff) * 4);
        let shown = bed.poke(theirs, 0);
        let freed = free(&bed, &domain, buffer).expect("the processor's side was as it should be");
        let ScatteredFreed { freed, hidden } = freed.expect("nothing else leads there");
        assert_eq!((freed.actual, freed.missing, hidden.pages, hidden.left_alone), (1, 0, 0, 0));
        bed.clean_beside(audit(&domain).table_frames);
        let again = make(&bed, &domain, coherency).expect("all is at hand");
        let elsewhere = shown & 0xfff | frame(RAM).base().raw();
        bed.poke(theirs, elsewhere);
        let freed = free(&bed, &domain, again).expect("as above").expect("cleared, and free");
        assert_eq!((freed.hidden.pages, freed.hidden.left_alone), (1, 0));
        assert!(domain.is_unused());
        let fault = bed.machine.cpu(0).load(base);
        assert_eq!(fault, Err(Fault::Translation(base)));
        bed.clean_beside(audit(&domain).table_frames);
    }
}
