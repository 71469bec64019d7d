//! One page of coherent memory, made and ended in one critical section: no step of the general way is missing, and what is not as
//! it should be is done, or refused, as it always was.

use super::bed::{Bed, CALLER, RAM, WINDOW, frame, page};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    area::{AreaKind, AreaSummary},
    attributes::Attributes,
    frames::FrameOwner,
    kernel_space::{CoherentError, CoherentFreed, FramesError, RemoveError},
    linear_map::LinearFault,
    page_table::MapError,
};
use machine::{Behaviour, Fault};

const ONE: CoherentFreed = CoherentFreed { actual: 1, given: 1, missing: 0 };

/// A frame waits, which was written through a cacheable address, and which every processor remembers by its linear one.
fn leave_one_dirty(bed: &Bed) -> VirtAddr {
    let area = bed.vmalloc(1);
    let linear = linear_of(bed, bed.frame_at(area).base());
    for offset in (0..PAGE_SIZE).step_by(32) {
        bed.machine.cpu(0).store(at(area, offset), 0xdead_0000 | offset).expect("mapped");
    }
    for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
        cpu.load(linear).expect("a linear address");
    }
    bed.space.vfree((), area).expect("a live area");
    linear
}

fn at(address: VirtAddr, offset: u32) -> VirtAddr {
    VirtAddr::new(address.raw() + offset)
}

fn linear_of(bed: &Bed, physical: PhysAddr) -> VirtAddr {
    bed.space.linear().pages_of(physical.pfn(), 1).expect("low RAM").start()
}

fn alloc(bed: &Bed) -> AreaSummary {
    bed.space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER).expect("memory")
}

fn free(bed: &Bed, area: &AreaSummary) -> Result<CoherentFreed, RemoveError> {
    bed.space.coherent_free_at((), area.pages.start(), area.physical, PAGE_SIZE)
}

/// S66, S85, S97: whatever the page held, and whoever remembers it.
#[test]
fn a_page_is_zero_uncached_and_has_no_linear_view_and_then_it_has_s66_s85_s97() {
    for behaviour in Behaviour::all(6) {
        let bed = Bed::warm_on(behaviour);
        bed.gives_back(|bed| {
            for bytes in [1, PAGE_SIZE - 1, PAGE_SIZE] {
                let linear = leave_one_dirty(bed);
                let area =
                    bed.space.coherent_alloc(bytes, FrameOwner::Dma, CALLER).expect("memory");
                let (base, physical) = (area.pages.start(), area.physical);
                assert_eq!(linear_of(bed, physical), linear, "the frame that waited");
                assert_eq!(
                    (area.kind, area.pages.count(), area.caller),
                    (AreaKind::Dma, 1, CALLER)
                );
                assert_eq!(bed.space.find(base), Some(area));
                assert_eq!(bed.space.zones().table().owner_of(physical.pfn()), FrameOwner::Dma);
                let entry = bed.space.table().translate(base).expect("mapped");
                assert_eq!(
                    (entry.physical, entry.attributes()),
                    (physical, Ok(Attributes::WRITE_COMBINE))
                );
                for offset in (0..PAGE_SIZE).step_by(32) {
                    let there = physical.checked_add(offset).expect("in the page");
                    assert_eq!(bed.machine.device_read(there), 0, "{behaviour:?}");
                    bed.machine.device_write(there, 0xbb00 | offset);
                }
                for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                    assert_eq!(cpu.load(linear), Err(Fault::Translation(linear)), "{behaviour:?}");
                    assert_eq!(cpu.load(at(base, 64)), Ok(0xbb40), "{behaviour:?}");
                    cpu.store(at(base, 64), 0xbb40).expect("mapped");
                }
                assert_eq!(bed.clean().lent_pages, 1);
                let freed = bed.space.coherent_free_at((), base, physical, bytes);
                assert_eq!(freed, Ok(ONE));
                assert_eq!(bed.space.find(base), None);
                for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                    assert_eq!(cpu.load(base), Err(Fault::Translation(base)), "{behaviour:?}");
                    cpu.store(linear, 8).expect("mapped again");
                    assert_eq!(cpu.load(linear), Ok(8), "{behaviour:?}");
                }
                assert_eq!(bed.space.zones().table().owner_of(physical.pfn()), FrameOwner::Free);
                bed.clean();
            }
        });
    }
}

/// S65, S67: another place on the bus, another size, another kind, and a second time.
#[test]
fn a_page_is_freed_by_its_own_words_alone_s65_s67() {
    let bed = Bed::warm();
    leave_one_dirty(&bed);
    let area = alloc(&bed);
    let (address, found) = (area.pages.start(), area.physical);
    let free_as = |address, physical| bed.space.coherent_free_at((), address, physical, PAGE_SIZE);
    let other = bed.vmalloc(1);
    bed.changes_nothing(|_| {
        for physical in [0, found.raw() + PAGE_SIZE, found.raw() + 4] {
            let refused = free_as(address, PhysAddr::new(physical));
            assert_eq!(refused, Err(RemoveError::Elsewhere { address, found }));
        }
        let refused = RemoveError::WrongKind { address: other, found: AreaKind::Vmalloc };
        assert_eq!(free_as(other, found), Err(refused));
        let inside = at(address, 4);
        assert_eq!(free_as(inside, found), Err(RemoveError::Misaligned { address: inside }));
    });
    let freed = bed.space.coherent_free_at((), address, found, PAGE_SIZE + 1);
    assert_eq!(freed, Ok(CoherentFreed { actual: 1, given: 2, missing: 0 }));
    assert_eq!(free(&bed, &area), Err(RemoveError::Unknown { address }));
    bed.space.vfree((), other).expect("a live area");
    bed.clean();
}

/// S17: the entry stays, and what was withdrawn is back.
#[test]
fn a_slot_in_use_is_named_and_the_page_is_ordinary_again_s17() {
    let bed = Bed::warm();
    leave_one_dirty(&bed);
    let address = page(WINDOW);
    bed.changes_nothing(|bed| {
        bed.poke_page(address, frame(RAM), Attributes::KERNEL_RODATA);
        let descriptor = bed.poke(bed.l2_slot(address), 0);
        bed.poke(bed.l2_slot(address), descriptor);
        let refused = bed.space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER);
        let occupied = MapError::Occupied { address, descriptor, mapped: 0 };
        assert_eq!(refused, Err(CoherentError::Map(occupied)));
        assert_eq!(bed.poke(bed.l2_slot(address), 0), descriptor, "the entry stays");
    });
}

/// S22, S97: a linear entry that is not what it should be is named, not overwritten, on the way out and on the way back.
#[test]
fn a_linear_entry_that_somebody_changed_is_named_and_stays_s97() {
    let bed = Bed::warm();
    let linear = leave_one_dirty(&bed);
    let slot = bed.l2_slot(linear);
    bed.changes_nothing(|bed| {
        let behind = bed.frame_at(linear);
        let wanted = bed.poke_page(linear, behind, Attributes::WRITE_THROUGH);
        let refused = bed.space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER);
        let found = bed.poke(slot, wanted);
        let fault = LinearFault::Unexpected { address: linear, wanted, found };
        assert_eq!(refused, Err(CoherentError::Linear(fault)), "and the entry stayed");
    });
    let area = alloc(&bed);
    assert_eq!(linear_of(&bed, area.physical), linear);
    let (address, foreign) = (area.pages.start(), 0x6000_0413);
    assert_eq!(bed.poke(slot, foreign), 0, "withdrawn");
    let fault = LinearFault::Unexpected { address: linear, wanted: 0, found: foreign };
    let error = FramesError::Linear(fault);
    assert_eq!(free(&bed, &area), Err(RemoveError::Frames { address, error }));
    assert_eq!(bed.poke(slot, 0), foreign, "the entry stays");
    assert_eq!(bed.space.find(address), None);
}

/// S65: a page that is not mapped any more.
#[test]
fn a_page_found_missing_is_counted_s65() {
    let bed = Bed::warm();
    leave_one_dirty(&bed);
    let area = alloc(&bed);
    bed.poke(bed.l2_slot(area.pages.start()), 0);
    assert_eq!(free(&bed, &area), Ok(CoherentFreed { actual: 1, given: 1, missing: 1 }));
    bed.clean();
}
