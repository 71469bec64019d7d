//! What is no buffer of scattered frames, or cannot be one, on SoftMachine: each is refused by what is wrong, and changes nothing
//! (S34, S67, S82).

use crate::mutants::{
    iommu::{Devices, audit, domain_of},
    user::{Programs, Right},
};
use crate::scattered::{BOTH, everywhere, free, make, try_make, viewer};
use histories::bed::{Bed, CALLER, RAM_PAGES, page, pages};
use kerncore::{
    addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr},
    area::AreaKind,
    attributes::Attributes,
    coherent::Coherency,
    dma_mask::DmaMask,
    frames::FrameOwner,
    iommu::{DomainMapError, IovaError, SeenAt},
    kernel_space::{RemoveError, ScatteredError, ShareError, Viewer},
    user::{Protection, ShowError},
};

/// S34, S67: by the wrong name, for the wrong device, of another domain, or at another address.
#[test]
fn a_buffer_is_freed_by_what_it_is_for_whom_and_where_and_by_nothing_else_s67() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0, 1 << 20);
    let other = domain_of(&devices, 0, 1 << 20);
    let pieces = bed.scatter();
    let buffer @ (base, start) = make(&bed, &domain, 3, Coherency::NonCoherent);
    let twin = make(&bed, &other, 3, Coherency::NonCoherent);
    assert_eq!(twin.1, start, "the same address of another domain");
    let dma = bed.space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER).expect("memory");
    let bytes = 3 * PAGE_SIZE;
    let _beside = bed.beside(audit(&domain).table_frames + audit(&other).table_frames);
    bed.changes_nothing(|bed| {
        let found = AreaKind::Scattered;
        let wrong_kind = RemoveError::WrongKind { address: base, found };
        assert!(wrong_kind.to_string().ends_with("of kind scattered dma"));
        let space = &bed.space;
        for refused in [
            space.vfree((), base),
            space.vfree_atomic((), base),
            space.vunmap((), base),
            space.iounmap((), base),
            space.coherent_free((), base, bytes).map(drop),
            space.coherent_free_at((), base, PhysAddr::new(0), bytes).map(drop),
            space.coherent_free_at((), base, bed.frame_at(base).base(), bytes).map(drop),
        ] {
            assert_eq!(refused, Err(wrong_kind));
        }
        let freed = |domain, address, start| {
            let freed = space.scattered_free((), domain, (address, start));
            freed.expect_err("refused")
        };
        let elsewhere = RemoveError::SeenElsewhere { address: base, found: start };
        let next = DmaAddr::new(start.raw() + PAGE_SIZE);
        assert_eq!(freed(&domain, base, next), elsewhere);
        assert_eq!(freed(&other, base, start), elsewhere, "the other domain has a buffer there");
        assert_eq!(
            freed(&domain, twin.0, start),
            RemoveError::SeenElsewhere { address: twin.0, found: start }
        );
        let odd = VirtAddr::new(base.raw() + 4);
        assert_eq!(freed(&domain, odd, start), RemoveError::Misaligned { address: odd });
        for unknown in [page(base.page_number() + 1), page(base.page_number() + 3), page(1)] {
            assert_eq!(freed(&domain, unknown, start), RemoveError::Unknown { address: unknown });
        }
        let address = dma.pages.start();
        let found = AreaKind::Dma;
        assert_eq!(freed(&domain, address, start), RemoveError::WrongKind { address, found });
    });
    // Its own size, which nobody has to say.
    let freed = bed.space.scattered_free((), &domain, buffer).expect("it is the one");
    assert_eq!((freed.freed.actual, freed.freed.given), (3, 3));
    let again = bed.space.scattered_free((), &domain, buffer);
    assert_eq!(again, Err(RemoveError::Unknown { address: base }));
    free(&bed, &other, twin, 3);
    bed.space.coherent_free((), dma.pages.start(), PAGE_SIZE).expect("live");
    bed.feed(pieces);
    bed.clean();
}

/// S26, S79, S100, S108: what is too large for memory, the device's window, or its reach is refused with nothing taken.
#[test]
fn sizes_that_cannot_be_are_refused_before_anything_is_kept_s79() {
    everywhere(|devices| {
        let bed = devices.bed;
        let domain = domain_of(devices, 0x100_0000, 8 * PAGE_SIZE);
        let total = bed.space.zones().total();
        assert_eq!(total, RAM_PAGES);
        for coherency in BOTH {
            let refused = |bytes| {
                let made = bed.space.scattered_alloc(&domain, bytes, viewer(coherency), CALLER);
                made.expect_err("refused")
            };
            assert_eq!(refused(0), ScatteredError::ZeroSize);
            for (bytes, wanted) in [
                (total * PAGE_SIZE + 1, total + 1),
                (u32::MAX, 0x10_0000),
                (u32::MAX - 4094, 0x10_0000),
                (u32::MAX - 4095, 0xf_ffff),
            ] {
                assert_eq!(refused(bytes), ScatteredError::MoreThanMemory { wanted, total });
            }
            for pages in [9, total] {
                let error = IovaError::Exhausted { pages, largest: 8, free: 8 };
                let no_view = ScatteredError::View(DomainMapError::Iova(error));
                assert_eq!(refused(pages * PAGE_SIZE), no_view);
            }
            // All addresses of the device's are somebody's.
            let all = try_make(bed, &domain, 8, coherency).expect("all that there is");
            let exhausted = IovaError::Exhausted { pages: 1, largest: 0, free: 0 };
            assert_eq!(refused(1), ScatteredError::View(DomainMapError::Iova(exhausted)));
            free(bed, &domain, (all.0.pages.start(), all.1.start), 8);
            // The device reaches four pages.
            let mask = DmaMask::new(0x100_3fff);
            let near = Viewer { coherency, mask };
            let five = bed.space.scattered_alloc(&domain, 5 * PAGE_SIZE, near, CALLER);
            let (start, last) = (DmaAddr::new(0x100_0000), DmaAddr::new(0x100_3fff));
            let beyond = DomainMapError::Iova(IovaError::OutOfReach { start, last });
            assert_eq!(five, Err(ScatteredError::View(beyond)));
            let four = bed.space.scattered_alloc(&domain, 4 * PAGE_SIZE, near, CALLER);
            let (area, at) = four.expect("within reach");
            free(bed, &domain, (area.pages.start(), at.start), 4);
            assert!(domain.is_unused());
            audit(&domain);
        }
    });
}

/// S82: by offset and window exactly what lies in the buffer, and by its own type; while it is shown it is not freed (S46).
#[test]
fn a_window_shows_what_lies_in_the_buffer_and_nothing_else_s82() {
    const AT: u32 = 0x123;
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0, 1 << 20);
    for coherency in BOTH {
        let buffer @ (base, start) = make(&bed, &domain, 4, coherency);
        let at = SeenAt { root: domain.root(), start, coherency };
        let programs = Programs::new(&bed, &Right);
        let waiting = |count| {
            let space = programs.space();
            space.reserve(pages(AT, count), Protection::ReadWrite).expect("free addresses");
            space
        };
        for window in 1..=6 {
            for offset in (0..=6).chain([0x10_0000, 0xffff_f000, u32::MAX - 1, u32::MAX]) {
                let space = waiting(window);
                let fits = u64::from(offset) + u64::from(window) <= 4;
                let outside = ShareError::Outside { area: 4, offset, window };
                let wanted = if fits { Ok(()) } else { Err(ShowError::Share(outside)) };
                assert_eq!(space.show_seen(page(AT), base, at, offset), wanted);
                for index in 0..window {
                    let found = space.translate(page(AT + index));
                    let leads =
                        fits.then(|| bed.frame_at(page(base.page_number() + offset + index)));
                    assert_eq!(
                        found.map(|found| found.physical.pfn()),
                        leads,
                        "{window} from {offset}"
                    );
                    let memory = found.map(|found| found.attributes().expect("ours").memory());
                    assert_eq!(memory, fits.then(|| at.memory()));
                }
                crate::mutants::user::audit(&space);
                if fits {
                    let in_use = Err(RemoveError::InUse { address: base, users: 1 });
                    let freed = bed.space.scattered_free((), &domain, buffer);
                    assert_eq!(freed, in_use);
                }
            }
        }
        let space = waiting(1);
        let refused = |space: &kerncore::user::UserSpace<'_, '_, _, _>, base, at| {
            let shown = space.show_seen(page(AT), base, at, 0);
            let Err(ShowError::Share(error)) = shown else { panic!("{shown:?}") };
            error
        };
        let elsewhere = ShareError::SeenElsewhere { address: base, found: start };
        let other = match coherency {
            Coherency::Coherent => Coherency::NonCoherent,
            Coherency::NonCoherent => Coherency::Coherent,
        };
        for wrong in [
            SeenAt { start: DmaAddr::new(start.raw() + PAGE_SIZE), ..at },
            SeenAt { root: bed.space.table().root(), ..at },
            SeenAt { coherency: other, ..at },
        ] {
            assert_eq!(refused(&space, base, wrong), elsewhere);
        }
        let second = page(base.page_number() + 1);
        assert_eq!(refused(&space, second, at), ShareError::Unknown { address: second });
        let odd = VirtAddr::new(base.raw() + 1);
        assert_eq!(refused(&space, odd, at), ShareError::Misaligned { address: odd });
        // As what it is not.
        let found = AreaKind::Scattered;
        let not_so = Err(ShowError::Share(ShareError::NotForUsers { address: base, found }));
        assert_eq!(space.show_vmalloc(page(AT), base, 0), not_so);
        let physical = bed.frame_at(base).base();
        assert_eq!(space.show_coherent(page(AT), base, physical, 0), not_so);
        assert_eq!(space.show_device_memory(page(AT), (base, physical), 0, || Ok(())), not_so);
        let data = bed.vmalloc(1);
        let found = AreaKind::Vmalloc;
        assert_eq!(refused(&space, data, at), ShareError::NotForUsers { address: data, found });
        bed.space.vfree((), data).expect("live");
        drop(space);
        free(&bed, &domain, buffer, 4);
    }
    bed.clean_beside(audit(&domain).table_frames);
}

/// S97: nobody makes a second view of its frames.
#[test]
fn its_frames_are_mapped_nowhere_else_s97() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0, 1 << 20);
    for coherency in BOTH {
        let buffer @ (base, _) = make(&bed, &domain, 2, coherency);
        for attributes in [Attributes::KERNEL_DATA, Attributes::WRITE_COMBINE] {
            assert!(bed.space.vmap(&[bed.frame_at(base)], attributes, CALLER).is_err());
        }
        free(&bed, &domain, buffer, 2);
    }
}
