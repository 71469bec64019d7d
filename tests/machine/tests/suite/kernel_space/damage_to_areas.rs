//! The audit bites: damage to live areas, each done by hand.

use super::bed::{Bed, CALLER, RAM, TEXT, frame, l1_slot, page};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    area::{AreaFlags, AreaKind},
    attributes::{Attributes, MemoryType},
    audit::{Place, Violation},
    descriptor::{PageSize, l1, l2},
    frames::FrameOwner,
    va_space::Request,
};

const DATA: Attributes = Attributes::KERNEL_DATA;
const DEVICE: PhysAddr = PhysAddr::new(0x1001_3000);
/// A free frame.
const SOME: u32 = RAM + 1000;

fn next(address: VirtAddr) -> VirtAddr {
    VirtAddr::new(address.raw() + PAGE_SIZE)
}

const fn place(kind: AreaKind, base: VirtAddr) -> Place {
    Place::Area { kind, base }
}

fn ioremap(bed: &Bed, pages: u32, attributes: Attributes) -> VirtAddr {
    bed.space.ioremap(DEVICE, pages * PAGE_SIZE, attributes, CALLER).expect("addresses")
}

fn dma(bed: &Bed, pages: u32) -> VirtAddr {
    let area = bed.space.coherent_alloc(pages * PAGE_SIZE, FrameOwner::Dma, CALLER);
    area.expect("memory").pages.start()
}

/// A vmap of two frames of the test's.
fn vmap(bed: &Bed) -> VirtAddr {
    let (list, frames) = bed.frames(2);
    list.leak();
    bed.space.vmap(&frames, DATA, CALLER).expect("addresses").pages.start()
}

#[test]
fn an_audit_counts_the_areas_of_each_kind_and_their_pages() {
    let bed = Bed::warm();
    let before = bed.clean();
    assert!(before.linear_tables > 1, "one for each MiB of RAM");
    let _areas = (bed.vmalloc(2), vmap(&bed), ioremap(&bed, 5, Attributes::DEVICE), dma(&bed, 4));
    let request = Request::of_bytes(PAGE_SIZE);
    bed.space.reserve_area(request, AreaFlags::NONE, CALLER).expect("addresses");
    let after = bed.clean();
    assert_eq!((before.live_areas(), after.areas), (0, [1, 1, 1, 1, 1, 0, 0]));
    assert_eq!(after.area_pages - before.area_pages, 2 + 2 + 5 + 4);
    assert_eq!(after.lent_pages - before.lent_pages, 4);
    assert_eq!(before.linear_pages - after.linear_pages, 4, "lent frames have no linear entry");
    assert_eq!(after.linear_tables, before.linear_tables);
}

/// S97: a block of one frame, whose neighbours are as they should be.
#[test]
fn a_single_lent_frame_that_is_still_in_the_linear_map_is_seen_s97() {
    let bed = Bed::warm();
    let had = bed.frame_at(dma(&bed, 1)).base();
    let address = VirtAddr::new(had.raw() - RAM * PAGE_SIZE + 0x8000_0000);
    let word = l2::Descriptor::SmallPage(had.pfn(), DATA).encode().expect("a small page");
    bed.poke(bed.l2_slot(address), word);
    bed.finds(&[Violation::Present { address, place: Place::Lent(FrameOwner::Dma), had }]);
}

/// What is well is counted beside what is not, page by page.
#[test]
fn pages_beside_damage_are_counted() {
    let bed = Bed::warm();
    let first = bed.frame_at(dma(&bed, 4));
    let before = bed.clean();
    let address = VirtAddr::new(first.base().raw() - RAM * PAGE_SIZE + 0x8000_0000);
    let word = l2::Descriptor::SmallPage(first, DATA).encode().expect("a small page");
    let absent = bed.poke(bed.l2_slot(address), word);
    assert_eq!(bed.audit().0.lent_pages, before.lent_pages - 1);
    bed.poke(bed.l2_slot(address), absent);
    let elsewhere = VirtAddr::new((SOME - RAM) * PAGE_SIZE + 0x8000_0000);
    let entry = bed.poke(bed.l2_slot(elsewhere), 0);
    assert_eq!(bed.audit().0.linear_pages, before.linear_pages - 1);
    bed.poke(bed.l2_slot(elsewhere), entry);
    assert_eq!(bed.clean(), before);
}

/// The pool's frames have a home as others have.
#[test]
fn the_atomic_pools_area_is_in_order() {
    let bed = Bed::warm();
    let before = bed.clean();
    let pool = bed.space.coherent_alloc(8 * PAGE_SIZE, FrameOwner::AtomicPool, CALLER);
    let pool = pool.expect("memory").pages.start();
    assert_eq!(bed.clean().lent_pages - before.lent_pages, 8);
    bed.space.coherent_free((), pool, 8 * PAGE_SIZE).expect("a live area");
    bed.clean();
}

/// Without its table every page of an area is missed, each at its own address.
#[test]
fn an_area_without_its_table_is_missed_page_by_page() {
    let bed = Bed::warm();
    let base = bed.space.ioremap(DEVICE, 3 * PAGE_SIZE, Attributes::DEVICE, CALLER);
    let base = base.expect("addresses");
    let above = bed.poke(l1_slot(base), 0);
    let place = place(AreaKind::IoRemap, base);
    let missing = |page: u32| Violation::Missing {
        address: VirtAddr::new(base.raw() + page * PAGE_SIZE),
        place,
        wanted: PhysAddr::new(DEVICE.raw() + page * PAGE_SIZE).into(),
    };
    let (_, found) = bed.audit();
    assert_eq!(found[..3], [0, 1, 2].map(missing));
    assert_eq!(found.len(), 4, "and the table that is lost: {found:?}");
    bed.poke(l1_slot(base), above);
    bed.clean();
}

/// A section in the place of a table is said once, and not again for each page of each area below it.
#[test]
fn a_section_above_live_areas_is_seen_once_s22() {
    let bed = Bed::warm();
    let base = bed.space.ioremap(DEVICE, 3 * PAGE_SIZE, Attributes::DEVICE, CALLER);
    let base = base.expect("addresses");
    let section = l1::Descriptor::Section(PhysAddr::new(0x1000_0000), Attributes::DEVICE);
    let above = bed.poke(l1_slot(base), section.encode().expect("aligned"));
    let (_, found) = bed.audit();
    let (address, place) = (base.page_base(), Place::NoArea);
    assert_eq!(found[0], Violation::PageSize { address, place, had: PageSize::Section });
    assert_eq!(found.len(), 2, "and the table that is lost: {found:?}");
    bed.poke(l1_slot(base), above);
    bed.clean();
}

#[test]
fn a_page_of_an_area_that_is_gone_is_seen_in_every_kind() {
    let bed = Bed::warm();
    let areas = [
        (AreaKind::Vmalloc, bed.vmalloc(2)),
        (AreaKind::Vmap, vmap(&bed)),
        (AreaKind::IoRemap, ioremap(&bed, 2, Attributes::DEVICE)),
        (AreaKind::Dma, dma(&bed, 2)),
    ];
    bed.clean();
    for (kind, base) in areas {
        let address = next(base);
        let right = bed.frame_at(address).base();
        // What vmap mapped is not in its record.
        let wanted = (kind != AreaKind::Vmap).then_some(right);
        let before = bed.poke(bed.l2_slot(address), 0);
        bed.finds(&[Violation::Missing { address, place: place(kind, base), wanted }]);
        bed.poke(bed.l2_slot(address), before);
        bed.clean();
    }
}

#[test]
fn a_guard_that_is_present_is_seen_behind_every_kind_s2() {
    let bed = Bed::warm();
    for base in [bed.vmalloc(2), vmap(&bed), ioremap(&bed, 2, Attributes::DEVICE), dma(&bed, 2)] {
        let address = next(next(base));
        bed.poke_page(address, frame(SOME), DATA);
        let (place, had) = (Place::Guard { base }, frame(SOME).base());
        bed.finds(&[Violation::Present { address, place, had }]);
        bed.poke(bed.l2_slot(address), 0);
        bed.clean();
    }
}

#[test]
fn an_entry_that_outlives_its_area_is_seen_s23() {
    let bed = Bed::warm();
    let address = bed.vmalloc(1);
    let (slot, had) = (bed.l2_slot(address), bed.frame_at(address).base());
    let stale = bed.poke(slot, 0);
    bed.poke(slot, stale);
    bed.space.vfree((), address).expect("a live area");
    bed.poke(slot, stale);
    bed.finds(&[Violation::Present { address, place: Place::NoArea, had }]);
}

#[test]
fn pages_in_another_order_than_the_list_are_seen_s16() {
    let bed = Bed::warm();
    let first = bed.vmalloc(3);
    let second = next(first);
    let (one, two) = (bed.frame_at(first), bed.frame_at(second));
    bed.poke_page(first, two, DATA);
    bed.poke_page(second, one, DATA);
    let place = place(AreaKind::Vmalloc, first);
    let wrong = |address, wanted: PhysAddr, had: PhysAddr| Violation::WrongFrame {
        address,
        place,
        wanted,
        had,
    };
    bed.finds(&[wrong(first, one.base(), two.base()), wrong(second, two.base(), one.base())]);
}

#[test]
fn a_run_that_is_not_contiguous_is_seen_s66() {
    let bed = Bed::warm();
    for (kind, base) in
        [(AreaKind::Dma, dma(&bed, 2)), (AreaKind::IoRemap, ioremap(&bed, 2, Attributes::DEVICE))]
    {
        let address = next(base);
        let entry = bed.space.table().translate(address).expect("mapped");
        let wanted = entry.physical;
        let other = PhysAddr::new(0x1002_0000);
        let attributes = entry.attributes().expect("ours");
        let before = bed.poke_page(address, other.pfn(), attributes);
        let place = place(kind, base);
        bed.finds(&[Violation::WrongFrame { address, place, wanted, had: other }]);
        bed.poke(bed.l2_slot(address), before);
        bed.clean();
    }
}

#[test]
fn pages_that_promise_something_else_are_seen() {
    let bed = Bed::warm();
    for (kind, base, wanted, had) in [
        (AreaKind::Vmalloc, bed.vmalloc(2), DATA, Attributes::KERNEL_RODATA),
        (AreaKind::Vmalloc, bed.vmalloc(2), DATA, Attributes::WRITE_COMBINE),
        (AreaKind::Dma, dma(&bed, 2), Attributes::WRITE_COMBINE, DATA),
        (
            AreaKind::IoRemap,
            ioremap(&bed, 2, Attributes::DEVICE),
            Attributes::DEVICE,
            Attributes::STRONGLY_ORDERED,
        ),
    ] {
        let address = next(base);
        let before = bed.poke_page(address, bed.frame_at(address), had);
        let place = place(kind, base);
        bed.finds(&[Violation::WrongAttributes { address, place, wanted, had }]);
        bed.poke(bed.l2_slot(address), before);
        bed.clean();
    }
}

#[test]
fn a_frame_freed_behind_its_areas_back_is_seen_and_so_is_its_second_home() {
    let bed = Bed::warm();
    let first = bed.vmalloc(1);
    let frame = bed.frame_at(first);
    bed.space.free_frames_at((), frame, 0, FrameOwner::Vmalloc).expect("the area's frame");
    let (wanted, had) = (FrameOwner::Vmalloc, FrameOwner::Free);
    let place = place(AreaKind::Vmalloc, first);
    bed.finds(&[Violation::WrongOwner { address: first, place, frame, wanted, had }]);
    // The frame that was freed last is lent first.
    let second = bed.vmalloc(1);
    assert_eq!(bed.frame_at(second), frame);
    bed.finds(&[Violation::MappedTwice { frame, first, second }]);
}

#[test]
fn a_lent_block_that_somebody_freed_or_mapped_again_is_seen_s97() {
    let bed = Bed::warm();
    // More pages than the image has to spare.
    let base = dma(&bed, 4);
    let first = bed.frame_at(base);
    let linear = bed.space.linear().pages_of(first, 4).expect("low RAM");
    bed.poke_page(linear.start(), first, DATA);
    let (lent, had) = (Place::Lent(FrameOwner::Dma), first.base());
    bed.finds(&[Violation::Present { address: linear.start(), place: lent, had }]);
    bed.poke(bed.l2_slot(linear.start()), 0);
    bed.clean();
    bed.space.free_frames_at((), first, 2, FrameOwner::Dma).expect("the buffer's frames");
    let frames = [0, 1, 2, 3].map(|offset| (offset, frame(first.number() + offset)));
    let missing = frames.map(|(offset, frame)| {
        let (address, wanted) = (page(linear.first() + offset), Some(frame.base()));
        Violation::Missing { address, place: Place::Linear, wanted }
    });
    let foreign = frames.map(|(offset, frame)| {
        let (address, place) = (page(base.page_number() + offset), place(AreaKind::Dma, base));
        let (wanted, had) = (FrameOwner::Dma, FrameOwner::Free);
        Violation::WrongOwner { address, place, frame, wanted, had }
    });
    bed.finds(&[missing, foreign].concat());
}

#[test]
fn memory_that_was_freed_while_it_was_mapped_is_seen_s37() {
    let bed = Bed::warm();
    let (list, frames) = bed.frames(1);
    let base = bed.space.vmap(&frames, DATA, CALLER).expect("addresses").pages.start();
    bed.feed(list);
    let (place, frame, had) = (place(AreaKind::Vmap, base), frames[0], FrameOwner::Free);
    bed.finds(&[Violation::NotInUse { address: base, place, frame, had }]);
}

#[test]
fn ram_behind_a_device_mapping_is_seen_s94() {
    let bed = Bed::warm();
    let address = ioremap(&bed, 1, Attributes::DEVICE);
    bed.poke_page(address, frame(SOME), Attributes::DEVICE);
    let physical = frame(SOME).base();
    bed.finds(&[Violation::DeviceOverRam { address, physical, had: FrameOwner::Free }]);
}

#[test]
fn two_memory_types_for_one_page_are_seen_s97() {
    // RAM: the linear map's type, and another.
    let bed = Bed::warm();
    let base = vmap(&bed);
    let frame = bed.frame_at(base);
    let linear = bed.space.linear().pages_of(frame, 1).expect("low RAM").start();
    let before = bed.poke_page(base, frame, Attributes::WRITE_COMBINE);
    let types = |physical, first, first_type, second, second_type| Violation::MemoryTypes {
        physical,
        first,
        first_type,
        second,
        second_type,
    };
    let (cached, uncached) = (MemoryType::NormalWriteBack, MemoryType::NormalNonCacheable);
    bed.finds(&[types(frame.base(), linear, cached, base, uncached)]);
    bed.poke(bed.l2_slot(base), before);
    bed.clean();
    // RAM that is lent: the buffer's type, and another.
    let buffer = dma(&bed, 1);
    let lent = bed.frame_at(buffer);
    bed.poke_page(base, lent, DATA);
    bed.finds(&[types(lent.base(), buffer, uncached, base, cached)]);
    bed.poke(bed.l2_slot(base), before);
    // Devices: two mappings that overlap in their last and their first page.
    let first = ioremap(&bed, 2, Attributes::DEVICE);
    let overlap = PhysAddr::new(DEVICE.raw() + PAGE_SIZE);
    let second = bed.space.ioremap(overlap, 1, Attributes::DEVICE, CALLER).expect("addresses");
    bed.clean();
    bed.poke_page(second, overlap.pfn(), Attributes::STRONGLY_ORDERED);
    let (one, other) = (MemoryType::Device, MemoryType::StronglyOrdered);
    let attributes = Attributes::STRONGLY_ORDERED;
    let unindexed = Violation::Unindexed { address: second, physical: overlap, attributes };
    bed.finds(&[unindexed, types(overlap, next(first), one, second, other)]);
}

#[test]
fn a_second_mapping_that_undoes_protection_is_seen_s112() {
    let bed = Bed::warm();
    let base = vmap(&bed);
    let (own, text, rodata) = (bed.frame_at(base), frame(RAM + 16), frame(RAM + 18));
    let own_linear = bed.space.linear().pages_of(own, 1).expect("low RAM").start();
    let rodata_linear = page(0x8_0012);
    for (frame, attributes, linear, linear_attributes) in [
        (text, DATA, TEXT, Attributes::KERNEL_TEXT),
        (rodata, DATA, rodata_linear, Attributes::KERNEL_RODATA),
        (own, Attributes::KERNEL_TEXT, own_linear, DATA),
    ] {
        let address = base;
        let before = bed.poke_page(address, frame, attributes);
        bed.finds(&[Violation::ProtectionAlias {
            frame,
            address,
            attributes,
            linear,
            linear_attributes,
        }]);
        bed.poke(bed.l2_slot(address), before);
    }
    // To read what is read-only, and to execute what is executable, is no breach.
    bed.poke_page(base, rodata, Attributes::KERNEL_RODATA);
    bed.clean();
    bed.poke_page(base, text, Attributes::KERNEL_TEXT);
    bed.clean();
}
