//! Reserved areas that are filled with memory, whatever their owners did with them before (S55, S85a).

use super::*;
use crate::area::AreaKind;
use crate::kernel_space::{ChangeError, Fill, FillAreaError};
use crate::va_space::Request;

/// Reserves an area of so many pages.
fn reserve(space: &Space, count: u32) -> PageRange {
    let request = Request::of_bytes(count * PAGE_SIZE);
    let bare = space.reserve_area(request, AreaFlags::NONE, VirtAddr::new(0));
    bare.expect("addresses").area.pages
}

#[test]
fn an_area_that_is_unmapped_again_can_be_filled_s55_s85a() {
    let space = space();
    let list = space.zones.allocate_list(2, FrameOwner::Pages).expect("frames");
    let frames: Vec<_> = list.frames(space.zones.table()).collect();
    let area = reserve(&space, 2);
    let base = area.start();
    let found = |&frame| Some(space.zones.table().belonging(frame));
    let mapped = space.map_area(base, frames.iter().map(found), Attributes::KERNEL_DATA);
    assert_eq!(mapped, Ok(2));
    for (offset, left) in [(0, Some(frames[1])), (1, None)] {
        let refused = space.fill_area(base, Fill::Uninitialised).map(drop);
        assert_eq!(refused, Err(FillAreaError::Mapped { address: base }));
        let page = area.sub_range(offset, 1).expect("inside");
        space.unmap_area((), page).expect("a bare area");
        let second = base.checked_add(PAGE_SIZE).expect("inside");
        assert_eq!(space.table.small_page(second), left);
    }
    let filled = space.fill_area(base, Fill::Uninitialised).expect("memory");
    assert_eq!((filled.kind, filled.pages), (AreaKind::Vmalloc, area));
    finds(&space, &[]);
    assert_eq!(space.vfree((), base), Ok(()));
    assert_eq!(space.zones.free_list(list), Ok(()));
}

/// Its frames lie anywhere; the descriptor tells of no physical base.
#[test]
fn what_its_owner_noted_of_a_physical_base_goes_when_an_area_is_filled_s85a() {
    let space = space();
    let base = reserve(&space, 1).start();
    space.areas.with(|areas| {
        let record = areas.find_mut(base).expect("live");
        let physical = PhysAddr::new(0x6000_5000);
        let (size, none) = (record.vm.size(), (VirtAddr::new(0), 0));
        record.vm = VmStruct::new(base, size, AreaFlags::NONE, physical, VirtAddr::new(8), none);
    });
    let filled = space.fill_area(base, Fill::Zeroed).expect("memory");
    assert_eq!((filled.physical, filled.caller), (PhysAddr::new(0), VirtAddr::new(8)));
    finds(&space, &[]);
}

/// As every failure does that comes later; what may not be filled stays.
#[test]
fn an_area_that_is_not_to_be_had_as_asked_is_consumed_s85a() {
    let space = space();
    let other = an_area(&space);
    let base = reserve(&space, 2).start();
    assert_eq!(space.consume_area(base), Ok(()));
    let unknown = ChangeError::Unknown { address: base };
    assert_eq!(space.consume_area(base), Err(FillAreaError::Change(unknown)));
    let wrong = ChangeError::WrongKind { address: other, found: AreaKind::Vmalloc };
    assert_eq!(space.consume_area(other), Err(FillAreaError::Change(wrong)));

    let list = space.zones.allocate_list(1, FrameOwner::Pages).expect("frames");
    let found = |frame| Some(space.zones.table().belonging(frame));
    let again = reserve(&space, 2);
    assert_eq!(again.start(), base, "its addresses are free");
    let frames: Vec<_> = list.frames(space.zones.table()).map(found).collect();
    let mapped = space.map_area(base, frames.into_iter(), Attributes::KERNEL_DATA);
    assert_eq!(mapped, Ok(1));
    assert_eq!(space.consume_area(base), Err(FillAreaError::Mapped { address: base }));
    space.unmap_area((), again).expect("a bare area");
    assert_eq!(space.consume_area(base), Ok(()));
    assert_eq!((space.area_counts().areas, space.area_counts().records), (1, 1));
    assert_eq!(space.zones.free_list(list), Ok(()));
    finds(&space, &[]);
}
