//! The audit bites: damage to the first level, the linear map, the image, the heap and the books, each done by hand.

use super::bed::{
    Bed, HEAP, HEAP_MAPPED, IMAGE_GUARD, RAM, RAM_PAGES, TEXT, WINDOW, frame, l1_slot, page,
};
use kerncore::{
    addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr},
    attributes::{Access, Attributes, AttributesError},
    audit::{Place, Violation, survey},
    descriptor::{BadDescriptor, BadReason, PageSize, l1, l2},
    frames::{FrameAllocator, FrameOwner, Unsound},
};

const DATA: Attributes = Attributes::KERNEL_DATA;
/// A free frame, high up in the linear map, and its address there.
const SOME: u32 = RAM + 1000;
const SOME_ADDRESS: VirtAddr = VirtAddr::new(0x8000_0000 + 1000 * PAGE_SIZE);
/// Above the end of RAM, where the linear map could go on.
const BEYOND: VirtAddr = VirtAddr::new(0x8080_0000);
/// A section of no region at all.
const NOWHERE: VirtAddr = VirtAddr::new(0xf800_0000);

fn small(frame: Pfn, attributes: Attributes) -> u32 {
    l2::Descriptor::SmallPage(frame, attributes).encode().expect("a small page")
}

fn bad(descriptor: u32, reason: BadReason) -> BadDescriptor {
    BadDescriptor { descriptor, reason }
}

/// Puts a second-level table in a frame of the test's above `address`.
fn foreign_table(bed: &Bed, address: VirtAddr) -> (PhysAddr, Violation) {
    let block = bed.space.zones().allocate(0, FrameOwner::Test).expect("a free frame");
    let table = block.leak().0.base();
    let descriptor = l1::Descriptor::Table(table).encode().expect("aligned");
    bed.poke(l1_slot(address), descriptor);
    (table, Violation::ForeignTable { address, table, had: FrameOwner::Test })
}

#[test]
fn writable_and_executable_is_seen_wherever_it_is_s112() {
    let bed = Bed::warm();
    let reason =
        BadReason::Attributes(AttributesError::WritableAndExecutable(Access::KernelReadWrite));
    let places = [
        (SOME_ADDRESS, Place::Linear),
        (TEXT, Place::Image("text")),
        (IMAGE_GUARD, Place::ImageGuard),
        (page(HEAP), Place::Heap),
        (page(HEAP + HEAP_MAPPED), Place::HeapRest),
        (page(WINDOW + 9), Place::NoArea),
    ];
    for (address, place) in places {
        // Execute-never is bit 0 of a small page.
        let word = small(frame(SOME), DATA) & !1;
        let before = bed.poke(bed.l2_slot(address), word);
        let damage = Violation::BadDescriptor { address, place, descriptor: bad(word, reason) };
        if place == Place::Heap {
            // And the frame that was there is missed.
            let (owner, owned) = (FrameOwner::Heap, HEAP_MAPPED);
            bed.finds(&[damage, Violation::FrameCount { owner, owned, found: owned - 1 }]);
        } else {
            bed.finds(&[damage]);
        }
        bed.poke(bed.l2_slot(address), before);
        bed.clean();
    }
}

#[test]
fn words_that_nobody_writes_are_seen_on_both_levels_s21_s22() {
    let bed = Bed::warm();
    let (address, place) = (page(WINDOW + 9), Place::NoArea);
    for (word, reason) in
        [(0x4, BadReason::Leftover), (0x6001_0017 | 1 << 10, BadReason::Shareability(device()))]
    {
        bed.poke(bed.l2_slot(address), word);
        let descriptor = bad(word, reason);
        bed.finds(&[Violation::BadDescriptor { address, place, descriptor }]);
    }
    bed.poke(bed.l2_slot(address), 0);
    for (address, place) in
        [(page(WINDOW + 256), Place::NoArea), (NOWHERE, Place::NoRegion), (BEYOND, Place::NoRegion)]
    {
        let word = 0x6000_0403;
        bed.poke(l1_slot(address), word);
        let descriptor = bad(word, BadReason::ReservedType);
        bed.finds(&[Violation::BadDescriptor { address, place, descriptor }]);
        bed.poke(l1_slot(address), 0);
    }
    bed.clean();
}

fn device() -> kerncore::attributes::MemoryType {
    Attributes::DEVICE.memory()
}

#[test]
fn a_section_and_a_large_page_are_seen_s22() {
    let bed = Bed::warm();
    let section = l1::Descriptor::Section(PhysAddr::new(0x6010_0000), DATA).encode().expect("ok");
    for (address, place) in [(page(WINDOW + 512), Place::NoArea), (NOWHERE, Place::NoRegion)] {
        bed.poke(l1_slot(address), section);
        bed.finds(&[Violation::PageSize { address, place, had: PageSize::Section }]);
        bed.poke(l1_slot(address), 0);
    }
    let (address, place, had) = (SOME_ADDRESS, Place::Linear, PageSize::Large);
    let large = l2::Descriptor::LargePage(PhysAddr::new(0x603e_0000), DATA).encode().expect("ok");
    bed.poke(bed.l2_slot(address), large);
    bed.finds(&[Violation::PageSize { address, place, had }]);
}

#[test]
fn a_survey_counts_the_pages_of_a_section() {
    let bed = Bed::warm();
    let before = survey(&bed.space).mapped_pages;
    let section = l1::Descriptor::Section(PhysAddr::new(0x1000_0000), Attributes::DEVICE);
    bed.poke(l1_slot(page(WINDOW + 256)), section.encode().expect("aligned"));
    assert_eq!(survey(&bed.space).mapped_pages, before + 256);
}

#[test]
fn one_table_below_two_slots_is_seen() {
    let bed = Bed::warm();
    let (first, second) = (page(WINDOW), page(WINDOW + 256));
    let table = PhysAddr::new(bed.l2_slot(first).raw());
    let above = bed.poke(l1_slot(first), 0);
    bed.poke(l1_slot(first), above);
    bed.poke(l1_slot(second), above);
    bed.finds(&[Violation::SharedTable { first, second, table }]);
    // The linear map's tables too: then everything in it shows at the second place as well.
    let first = VirtAddr::new(0x8070_0000);
    let table = PhysAddr::new(bed.l2_slot(first).raw());
    bed.poke(l1_slot(second), l1::Descriptor::Table(table).encode().expect("aligned"));
    let (_, found) = bed.audit();
    assert_eq!(found[0], Violation::SharedTable { first, second, table });
    assert_eq!(found.len(), 1 + 256);
}

#[test]
fn a_table_in_a_frame_of_another_owner_is_seen_and_so_is_what_it_maps() {
    let bed = Bed::warm();
    for (address, place) in [(BEYOND, Place::BeyondRam), (NOWHERE, Place::NoRegion)] {
        let (_, foreign) = foreign_table(&bed, address);
        bed.finds(&[foreign]);
        bed.poke_page(address, frame(SOME), DATA);
        let had = frame(SOME).base();
        bed.finds(&[foreign, Violation::Present { address, place, had }]);
        bed.poke(l1_slot(address), 0);
    }
}

#[test]
fn a_table_that_boot_code_had_in_the_image_is_no_stranger_but_still_has_one_place() {
    let bed = Bed::warm();
    let table = PhysAddr::new((RAM + 20) * PAGE_SIZE + 0x400);
    let descriptor = l1::Descriptor::Table(table).encode().expect("aligned");
    bed.poke(l1_slot(NOWHERE), descriptor);
    assert_eq!(bed.clean().image_tables, 1);
    bed.poke(l1_slot(page(WINDOW + 256)), descriptor);
    let (first, second) = (page(WINDOW + 256), NOWHERE);
    bed.finds(&[Violation::SharedTable { first, second, table }]);
}

#[test]
fn a_table_that_was_lost_is_seen_s24() {
    let bed = Bed::warm();
    // The window's and the heap's were made; nothing is mapped below the window's.
    bed.poke(l1_slot(page(WINDOW)), 0);
    bed.finds(&[Violation::Tables { made: 2, found: 1 }]);
}

#[test]
fn a_linear_slot_without_its_own_table_is_seen() {
    let bed = Bed::warm();
    let (address, other) = (VirtAddr::new(0x8070_0000), VirtAddr::new(0x8060_0000));
    let wanted = PhysAddr::new(bed.l2_slot(address).raw());
    let had = bed.poke(l1_slot(other), 0);
    bed.poke(l1_slot(other), had);
    for had in [0, had] {
        bed.poke(l1_slot(address), had);
        bed.finds(&[Violation::LinearTable { address, wanted, had }]);
    }
}

#[test]
fn pages_that_are_gone_lead_elsewhere_or_promise_something_else_are_seen() {
    let bed = Bed::warm();
    let text = Attributes::KERNEL_TEXT;
    let rodata = Attributes::KERNEL_RODATA;
    for (address, place, frame_number, attributes) in [
        (SOME_ADDRESS, Place::Linear, SOME, DATA),
        (VirtAddr::new(0x8000_0000), Place::Linear, RAM, DATA),
        (VirtAddr::new(0x807f_f000), Place::Linear, RAM + RAM_PAGES - 1, DATA),
        (TEXT, Place::Image("text"), RAM + 16, text),
        (VirtAddr::new(0x8001_2000), Place::Image("rodata"), RAM + 18, rodata),
        (VirtAddr::new(0x8001_4000), Place::Image("data"), RAM + 20, DATA),
    ] {
        let right = frame(frame_number).base();
        let before = bed.poke(bed.l2_slot(address), 0);
        bed.finds(&[Violation::Missing { address, place, wanted: Some(right) }]);
        let wrong = frame(RAM + 7);
        bed.poke_page(address, wrong, attributes);
        let had = wrong.base();
        bed.finds(&[Violation::WrongFrame { address, place, wanted: right, had }]);
        let had = if attributes == rodata { DATA } else { rodata };
        bed.poke_page(address, frame(frame_number), had);
        bed.finds(&[Violation::WrongAttributes { address, place, wanted: attributes, had }]);
        bed.poke(bed.l2_slot(address), before);
        bed.clean();
    }
}

#[test]
fn what_is_mapped_where_nothing_may_be_is_seen() {
    let bed = Bed::warm();
    for (address, place) in [
        (IMAGE_GUARD, Place::ImageGuard),
        (page(HEAP + HEAP_MAPPED), Place::HeapRest),
        (page(HEAP + 255), Place::HeapRest),
        (page(WINDOW), Place::NoArea),
        (page(WINDOW + 255), Place::NoArea),
    ] {
        bed.poke_page(address, frame(SOME), DATA);
        bed.finds(&[Violation::Present { address, place, had: frame(SOME).base() }]);
        bed.poke(bed.l2_slot(address), 0);
        bed.clean();
    }
}

#[test]
fn heap_pages_that_are_gone_foreign_or_double_are_seen() {
    let bed = Bed::warm();
    let (first, second, place) = (page(HEAP), page(HEAP + 1), Place::Heap);
    let (owner, owned) = (FrameOwner::Heap, HEAP_MAPPED);
    let missed = Violation::FrameCount { owner, owned, found: owned - 1 };
    let before = bed.poke(bed.l2_slot(second), 0);
    bed.finds(&[Violation::Missing { address: second, place, wanted: None }, missed]);
    let twice = bed.frame_at(first);
    bed.poke_page(second, twice, DATA);
    bed.finds(&[Violation::MappedTwice { frame: twice, first, second }, missed]);
    bed.poke(bed.l2_slot(second), before);
    let had = Attributes::WRITE_COMBINE;
    bed.poke_page(second, bed.frame_at(second), had);
    bed.finds(&[Violation::WrongAttributes { address: second, place, wanted: DATA, had }]);
    bed.poke(bed.l2_slot(second), before);
    bed.clean();
    // The heap's four frames are one block, freed behind its back.
    bed.space.free_frames_at((), twice, 2, owner).expect("the heap's frames");
    let (wanted, had) = (owner, FrameOwner::Free);
    let wrong = [0, 1, 2, 3].map(|offset| {
        let (address, frame) = (page(HEAP + offset), frame(twice.number() + offset));
        Violation::WrongOwner { address, place, frame, wanted, had }
    });
    bed.finds(&wrong);
}

#[test]
fn a_protected_page_of_the_image_in_other_hands_is_seen() {
    let bed = Bed::warm();
    let (wanted, had) = (FrameOwner::KernelImage, FrameOwner::Reserved);
    for (address, place) in [(TEXT, Place::Image("text")), (IMAGE_GUARD, Place::ImageGuard)] {
        let frame = bed.space.linear().frame_of(address).expect("linear");
        let table = bed.space.zones().table();
        table.reserve(frame, 1, had).expect("set aside before");
        bed.finds(&[Violation::WrongOwner { address, place, frame, wanted, had }]);
        table.reserve(frame, 1, wanted).expect("set aside before");
        bed.clean();
    }
}

#[test]
fn frames_that_leaked_are_seen_under_their_owners_name() {
    for (owner, found) in
        [(FrameOwner::Vmalloc, 0), (FrameOwner::PageTable, 1), (FrameOwner::Heap, HEAP_MAPPED)]
    {
        let bed = Bed::warm();
        bed.space.zones().allocate(0, owner).expect("a free frame").leak();
        bed.finds(&[Violation::FrameCount { owner, owned: found + 1, found }]);
    }
    // Nobody's buffer, and yet in the linear map: both are wrong.
    for owner in [FrameOwner::Dma, FrameOwner::AtomicPool] {
        let bed = Bed::warm();
        let frame = bed.space.zones().allocate(0, owner).expect("a free frame").leak().0;
        let address = bed.space.linear().pages_of(frame, 1).expect("low RAM").start();
        let (place, had) = (Place::Lent(owner), frame.base());
        bed.finds(&[
            Violation::Present { address, place, had },
            Violation::FrameCount { owner, owned: 1, found: 0 },
        ]);
    }
}

#[test]
fn a_frame_table_that_contradicts_the_allocator_is_seen() {
    let bed = Bed::warm();
    let frame = bed.space.zones().allocate(0, FrameOwner::Test).expect("a free frame").leak().0;
    let mut other = FrameAllocator::new(*bed.space.zones().table());
    other.free_at(frame, 0, FrameOwner::Test).expect("by an allocator that never had it");
    let (_, found) = bed.audit();
    assert!(matches!(found[..], [Violation::Frames(Unsound::Lost { .. })]), "{found:?}");
}
