//! vmap and vunmap, and the refusals between the kinds.

use super::bed::{Bed, CALLER, RAM, RAM_PAGES, TEXT, WINDOW, WINDOW_PAGES, frame, page};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    area::{AreaFlags, AreaKind},
    attributes::{Attributes, MemoryType},
    descriptor::l2,
    frames::FrameOwner,
    kernel_space::{RemoveError, VmapError},
};

#[test]
fn frames_are_mapped_in_their_order_and_stay_their_owners_s37() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let (list, mut frames) = bed.frames(4);
        frames.swap(0, 3);
        let area = bed.space.vmap(&frames, Attributes::KERNEL_DATA, CALLER).expect("addresses");
        assert_eq!(area.kind, AreaKind::Vmap);
        for (&frame, number) in frames.iter().zip(area.pages.first()..) {
            assert_eq!(bed.frame_at(page(number)), frame);
        }
        assert_eq!(bed.clean().areas, [0, 1, 0, 0, 0, 0, 0]);
        bed.space.vunmap((), area.pages.start()).expect("a live area");
        for &frame in &frames {
            assert_eq!(bed.space.zones().table().owner_of(frame), FrameOwner::Test);
        }
        bed.feed(list);
    });
}

#[test]
fn a_frame_may_be_mapped_twice_in_one_area_and_in_two_s37() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let (list, frames) = bed.frames(1);
        let twice = [frames[0], frames[0]];
        let one = bed.space.vmap(&twice, Attributes::KERNEL_DATA, CALLER).expect("addresses");
        let two = bed.space.vmap(&frames, Attributes::KERNEL_DATA, CALLER).expect("addresses");
        bed.clean();
        let (first, second) = (one.pages.start(), page(one.pages.first() + 1));
        bed.machine.cpu(0).store(first, 42).expect("mapped");
        assert_eq!(bed.machine.cpu(1).load(second), Ok(42));
        assert_eq!(bed.machine.cpu(1).load(two.pages.start()), Ok(42));
        bed.space.vunmap((), first).expect("a live area");
        bed.space.vunmap((), two.pages.start()).expect("a live area");
        bed.feed(list);
    });
}

#[test]
fn a_vmalloc_page_may_be_mapped_elsewhere_as_well() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let base = bed.vmalloc(1);
        let frames = [bed.frame_at(base)];
        let alias = bed.space.vmap(&frames, Attributes::KERNEL_DATA, CALLER).expect("addresses");
        bed.clean();
        bed.space.vunmap((), alias.pages.start()).expect("a live area");
        bed.space.vfree((), base).expect("a live area");
    });
}

/// S37: the caller's flags are shown instead of the kind's own, whatever they mean.
#[test]
fn vmaps_descriptor_shows_its_callers_flags_s37() {
    let bed = Bed::warm();
    let (list, frames) = bed.frames(1);
    let table = bed.space.zones().table();
    let flags = AreaFlags::from_bits(0x8000_0044);
    let belonging = || frames.iter().map(|&frame| Some(table.belonging(frame)));
    let data = Attributes::KERNEL_DATA;
    let area = bed.space.vmap_flags(belonging(), data, flags, CALLER).expect("addresses");
    assert_eq!((area.flags, area.kind), (flags, AreaKind::Vmap));
    let base = area.pages.start();
    assert_eq!(bed.space.with_area(base, |record| record.vm.flags()), Some(flags));
    bed.space.vunmap((), base).expect("a live area");
    bed.feed(list);
}

#[test]
fn nothing_too_much_and_what_is_not_memory_in_use_are_refused_s37_s97() {
    let bed = Bed::warm();
    let coherent = bed.space.coherent_alloc(1, FrameOwner::Dma, CALLER).expect("memory");
    let lent = coherent.physical.pfn();
    let (list, frames) = bed.frames(1);
    bed.changes_nothing(|bed| {
        let data = Attributes::KERNEL_DATA;
        let refused = |frames: &[_], attributes| {
            bed.space.vmap(frames, attributes, CALLER).expect_err("refused")
        };
        assert_eq!(refused(&[], data), VmapError::NoPages);
        let wanted = RAM_PAGES as usize + 1;
        assert_eq!(
            refused(&vec![frames[0]; wanted], data),
            VmapError::MoreThanMemory { wanted, total: RAM_PAGES }
        );
        let free = frame(RAM + RAM_PAGES - 1);
        assert_eq!(
            refused(&[frames[0], free], data),
            VmapError::NotMemory { frame: free, owner: FrameOwner::Free }
        );
        let device = PhysAddr::new(0x1000_9000).pfn();
        assert_eq!(
            refused(&[device], data),
            VmapError::NotMemory { frame: device, owner: FrameOwner::Absent }
        );
        assert_eq!(
            refused(&[lent], data),
            VmapError::MemoryType {
                frame: lent,
                owner: FrameOwner::Dma,
                wanted: MemoryType::NormalWriteBack
            }
        );
        for attributes in [Attributes::WRITE_COMBINE, Attributes::DEVICE, Attributes::WRITE_THROUGH]
        {
            let wanted = attributes.memory();
            let owner = FrameOwner::Test;
            assert_eq!(
                refused(&frames, attributes),
                VmapError::MemoryType { frame: frames[0], owner, wanted }
            );
        }
    });
    bed.feed(list);
    bed.space.coherent_free((), coherent.pages.start(), 1).expect("a live area");
}

/// The call that removes areas of `kind`.
fn remove(bed: &Bed, kind: AreaKind, address: VirtAddr) -> Result<(), RemoveError> {
    match kind {
        AreaKind::Vmalloc | AreaKind::PageArray => bed.space.vfree((), address),
        AreaKind::Vmap | AreaKind::Bare => bed.space.vunmap((), address),
        AreaKind::MapRam | AreaKind::MapRamBlock => bed.space.unmap_ram((), address, 1),
        AreaKind::IoRemap => bed.space.iounmap((), address),
        // Of the second kind it frees none: that takes a domain (`scattered_refusals`).
        AreaKind::Dma | AreaKind::Scattered => {
            bed.space.coherent_free((), address, PAGE_SIZE).map(drop)
        }
    }
}

/// S34: each kind is removed by its own call only; a refusal changes nothing and says what the area is.
#[test]
fn the_wrong_call_for_a_kind_is_refused_and_names_it_s34_s67() {
    let bed = Bed::warm();
    let (list, frames) = bed.frames(1);
    let device = PhysAddr::new(0x1000_9000);
    let vmalloc = bed.vmalloc(1);
    let vmap = bed.space.vmap(&frames, Attributes::KERNEL_DATA, CALLER).expect("addresses");
    let vmap = vmap.pages.start();
    let ioremap = bed.space.ioremap(device, 4, Attributes::DEVICE, CALLER).expect("addresses");
    let dma = bed.space.coherent_alloc(1, FrameOwner::Dma, CALLER).expect("memory").pages.start();
    let areas = [
        (vmalloc, AreaKind::Vmalloc),
        (vmap, AreaKind::Vmap),
        (ioremap, AreaKind::IoRemap),
        (dma, AreaKind::Dma),
    ];
    bed.changes_nothing(|bed| {
        for (address, found) in areas {
            let refused = Err(RemoveError::WrongKind { address, found });
            for (_, kind) in areas.iter().filter(|(_, kind)| *kind != found) {
                assert_eq!(remove(bed, *kind, address), refused, "{kind} call on {found}");
            }
        }
    });
    for (address, kind) in areas {
        assert_eq!(remove(&bed, kind, address), Ok(()));
    }
    bed.feed(list);
    bed.clean();
}

/// S112: a second mapping must not make what is executable writable, or what is writable executable.
#[test]
fn a_mapping_that_would_undo_the_images_protection_is_seen_s112() {
    let bed = Bed::warm();
    let text = [frame(RAM + 16)];
    assert_eq!(bed.frame_at(TEXT), text[0]);
    match bed.space.vmap(&text, Attributes::KERNEL_DATA, CALLER) {
        // Refused at the door: nothing to see.
        Err(_) => assert_eq!(bed.clean().violations, 0),
        Ok(area) => bed.finds(&[kerncore::audit::Violation::ProtectionAlias {
            frame: text[0],
            address: area.pages.start(),
            attributes: Attributes::KERNEL_DATA,
            linear: TEXT,
            linear_attributes: Attributes::KERNEL_TEXT,
        }]),
    }
}

/// S88: the record of the frame behind an address of the window, however it is mapped; nobody's, if it is no RAM's.
#[test]
fn the_frame_behind_an_address_is_found_and_nothing_else_is_s88() {
    let bed = Bed::warm();
    let behind = |address| {
        let record =
            bed.space.frame_behind(address).map(|record| std::ptr::from_ref(record).addr());
        record.and_then(|address| bed.space.zones().table().frame_at_record(address))
    };
    let area = bed.vmalloc(2);
    let at = |offset| VirtAddr::new(area.raw() + offset);
    assert_eq!(behind(at(0)), Some(bed.frame_at(area)));
    assert_eq!(behind(at(PAGE_SIZE + 77)), Some(bed.frame_at(at(PAGE_SIZE))));
    assert_eq!(behind(at(2 * PAGE_SIZE)), None, "the guard");
    assert_eq!(behind(TEXT), None, "mapped, and not by vmalloc");
    assert_eq!(behind(page(WINDOW + WINDOW_PAGES)), None, "behind the window");
    let registers = PhysAddr::new(0x1001_3000);
    let mapped = bed.space.ioremap(registers, 4, Attributes::DEVICE, CALLER).expect("addresses");
    assert_eq!(behind(mapped), None, "no RAM");
    // What nobody makes yet: a large page, at the window's page 32.
    let large = l2::Descriptor::LargePage(frame(RAM + 64).base(), Attributes::KERNEL_DATA);
    let large = large.encode().expect("aligned");
    for index in 32..48 {
        bed.poke(bed.l2_slot(page(WINDOW + index)), large);
    }
    assert_eq!(behind(page(WINDOW + 37)), Some(frame(RAM + 69)));
}
