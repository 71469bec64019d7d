//! Coherent memory by remapping.

use super::bed::{Bed, CALLER};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    area::{AreaFlags, AreaKind},
    attributes::Attributes,
    frames::{AllocateError, FrameOwner, MAX_BLOCK},
    kernel_space::{CoherentError, CoherentFreed, RemoveError},
    ledger::Count,
};
use machine::{Behaviour, Fault};

#[test]
fn a_buffer_is_zero_contiguous_uncached_and_has_no_linear_view_s66_s85_s97() {
    for behaviour in Behaviour::all(6) {
        let bed = Bed::warm_on(behaviour);
        bed.changes_nothing(|bed| {
            let area =
                bed.space.coherent_alloc(3 * PAGE_SIZE, FrameOwner::Dma, CALLER).expect("memory");
            assert_eq!((area.kind, area.pages.count()), (AreaKind::Dma, 3));
            assert!(area.flags.contains(AreaFlags::DMA.with(AreaFlags::USERMAP)));
            let base = area.pages.start();
            let cpu = bed.machine.cpu(1);
            for offset in 0..3 {
                let address = VirtAddr::new(base.raw() + offset * PAGE_SIZE);
                let entry = bed.space.table().translate(address).expect("mapped");
                let physical = area.physical.checked_add(offset * PAGE_SIZE);
                assert_eq!(Some(entry.physical), physical);
                assert_eq!(entry.attributes(), Ok(Attributes::WRITE_COMBINE));
                assert_eq!(cpu.load(address), Ok(0));
                let frame = entry.physical.pfn();
                let linear = bed.space.linear().pages_of(frame, 1).expect("low RAM").start();
                assert_eq!(cpu.load(linear), Err(Fault::Translation(linear)));
                // Both ways past the cache.
                cpu.store(address, 0xaa00 + offset).expect("mapped");
                assert_eq!(bed.machine.device_read(entry.physical), 0xaa00 + offset);
                bed.machine.device_write(entry.physical, 0xbb00 + offset);
                assert_eq!(cpu.load(address), Ok(0xbb00 + offset), "{behaviour:?}");
            }
            let summary = bed.clean();
            assert_eq!((summary.areas, summary.lent_pages), ([0, 0, 0, 1, 0, 0, 0], 3));
            let freed = bed.space.coherent_free((), base, 3 * PAGE_SIZE);
            assert_eq!(freed, Ok(CoherentFreed { actual: 3, given: 3, missing: 0 }));
        });
    }
}

#[test]
fn a_block_that_came_back_is_ordinary_memory_again_s97() {
    for behaviour in Behaviour::all(6) {
        let bed = Bed::warm_on(behaviour);
        let area = bed.space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER).expect("memory");
        let frame = area.physical.pfn();
        bed.machine.cpu(0).store(area.pages.start(), 7).expect("mapped");
        bed.space.coherent_free((), area.pages.start(), PAGE_SIZE).expect("a live area");
        let linear = bed.space.linear().pages_of(frame, 1).expect("low RAM").start();
        let cpu = bed.machine.cpu(1);
        cpu.store(linear, 8).expect("mapped again");
        assert_eq!(cpu.load(linear), Ok(8), "{behaviour:?}");
        bed.clean();
    }
}

#[test]
fn addresses_are_aligned_to_the_order_up_to_a_section_s65() {
    let bed = Bed::new();
    bed.gives_back(|bed| {
        let bases = [1, 2, 3, 5, 16, 33].map(|count| {
            let area = bed.space.coherent_alloc(count * PAGE_SIZE, FrameOwner::Dma, CALLER);
            let base = area.expect("memory").pages.start();
            let alignment = count.next_power_of_two() * PAGE_SIZE;
            assert!(base.raw().is_multiple_of(alignment), "{count} pages at {base}");
            (base, count)
        });
        bed.clean();
        for (base, count) in bases {
            bed.space.coherent_free((), base, count * PAGE_SIZE).expect("a live area");
        }
    });
}

#[test]
fn a_free_with_another_size_frees_what_there_is_and_says_so_s65() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let area =
            bed.space.coherent_alloc(2 * PAGE_SIZE, FrameOwner::Dma, CALLER).expect("memory");
        let freed = bed.space.coherent_free((), area.pages.start(), 5 * PAGE_SIZE);
        assert_eq!(freed, Ok(CoherentFreed { actual: 2, given: 5, missing: 0 }));
        let address = area.pages.start();
        let twice = bed.space.coherent_free((), address, 2 * PAGE_SIZE);
        assert_eq!(twice, Err(RemoveError::Unknown { address }));
    });
}

#[test]
fn a_free_from_another_place_on_the_bus_or_of_another_kind_changes_nothing_s67() {
    let bed = Bed::warm();
    let area = bed.space.coherent_alloc(2 * PAGE_SIZE, FrameOwner::Dma, CALLER).expect("memory");
    let other = bed.vmalloc(1);
    let (address, found) = (area.pages.start(), area.physical);
    let free = |address, physical| {
        bed.space.coherent_free_at((), address, physical, 2 * PAGE_SIZE).map(|freed| freed.actual)
    };
    bed.changes_nothing(|_| {
        let below = PhysAddr::new(found.raw() - PAGE_SIZE);
        assert_eq!(free(address, below), Err(RemoveError::Elsewhere { address, found }));
        let kind = AreaKind::Vmalloc;
        let refused = RemoveError::WrongKind { address: other, found: kind };
        assert_eq!(free(other, found), Err(refused));
        let inside = VirtAddr::new(address.raw() + 4);
        assert_eq!(free(inside, found), Err(RemoveError::Misaligned { address: inside }));
        let second = VirtAddr::new(address.raw() + PAGE_SIZE);
        assert_eq!(free(second, found), Err(RemoveError::Unknown { address: second }));
    });
    assert_eq!(free(address, found), Ok(2));
    assert_eq!(free(address, found), Err(RemoveError::Unknown { address }));
    bed.space.vfree((), other).expect("a live area");
    bed.clean();
}

#[test]
fn a_page_found_missing_at_free_is_counted_s65() {
    let bed = Bed::warm();
    let area = bed.space.coherent_alloc(3 * PAGE_SIZE, FrameOwner::Dma, CALLER).expect("memory");
    let middle = VirtAddr::new(area.pages.start().raw() + PAGE_SIZE);
    bed.poke(bed.l2_slot(middle), 0);
    let freed = bed.space.coherent_free((), area.pages.start(), 3 * PAGE_SIZE);
    assert_eq!(freed, Ok(CoherentFreed { actual: 3, given: 3, missing: 1 }));
    bed.clean();
}

#[test]
fn zero_bytes_and_more_than_any_block_are_refused_and_leave_nothing() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let owner = FrameOwner::Dma;
        let alloc = |bytes| bed.space.coherent_alloc(bytes, owner, CALLER);
        assert_eq!(alloc(0), Err(CoherentError::Frames(AllocateError::Zero { owner })));
        let pages = MAX_BLOCK + 1;
        let too_large = CoherentError::Frames(AllocateError::TooLarge { pages, owner });
        assert_eq!(alloc(pages * PAGE_SIZE), Err(too_large));
    });
    assert_eq!(bed.count(Count::UnmappedLinear), 3, "the image's guards");
}
