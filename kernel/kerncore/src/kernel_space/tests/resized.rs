//! What is found of an area while its length changes (S13, S86, S91): one length, whoever asks.

use super::*;
use crate::area::Mapping;
use crate::kernel_space::{Access, Fill, Listed, Span};

fn who() -> VirtAddr {
    VirtAddr::new(0x8001_0000)
}

/// Looks at the area at `base`, of `count` pages, in every way there is.
#[track_caller]
fn assert_found(space: &Space, base: VirtAddr, count: u32) {
    let pages = PageRange::new(base, count).expect("a range");
    let listed = space.next_listed(base).expect("it lives");
    let ListedKind::Live(live) = listed.what else { panic!("{listed:?}") };
    assert_eq!((listed.pages, live.summary.pages), (pages, pages));
    assert_eq!(space.find(base).map(|area| area.pages), Some(pages));
    assert_eq!(space.next_area(base).map(|area| area.pages), Some(pages));
    for inside in 0..count {
        let address = base.checked_add(inside * PAGE_SIZE + 5).expect("inside");
        let found = space.find_containing(address).map(|area| area.pages);
        assert_eq!(found, Some(pages), "page {inside}");
    }
    for outside in count..count + 5 {
        let address = base.checked_add(outside * PAGE_SIZE).expect("inside the window");
        assert_eq!(space.find_containing(address), None, "page {outside}");
    }
    // It is not read while it changes, and whoever tries comes to an end.
    let mut read = 0;
    let done = space.for_each_span(base, count * PAGE_SIZE, Access::Read, |span| match span {
        Span::Gap { bytes } => read += bytes,
        Span::Memory { address, .. } => panic!("memory at {address}"),
    });
    assert_eq!((done, read), (count * PAGE_SIZE, count * PAGE_SIZE));
}

#[test]
fn an_area_whose_length_changes_has_one_length_s13_s86_s91() {
    let space = space();
    let made = space.vmalloc(5 * PAGE_SIZE, Fill::Uninitialised, who()).expect("memory");
    let base = made.pages.start();
    let mapping = space.take(base, |_| true).expect("nobody else has it");
    let Mapping::Frames { mut usable, list } = mapping else { panic!("{mapping:?}") };
    assert_found(&space, base, 5);
    let added = space.areas.with(|areas| areas.extend(&usable, 3)).expect("the rest is free");
    assert_found(&space, base, 8);
    assert!(space.areas.with(|areas| areas.shrink(&usable, added)).is_ok());
    assert_found(&space, base, 5);
    let unmapped = space.table.unmap_part(&mut usable, 2, 3).expect("inside");
    assert_eq!(unmapped.pages, 3);
    let (usable, gone) = usable.split_at(2).expect("inside");
    assert!(space.areas.with(|areas| areas.shrink(&usable, gone)).is_ok());
    assert_found(&space, base, 2);
    // Its addresses are another's at once.
    let next = space.vmalloc(2 * PAGE_SIZE, Fill::Uninitialised, who()).expect("memory");
    assert_eq!(next.pages.first(), usable.pages().end() + 1);
    let mut areas = vec![];
    let mut from = base;
    while let Some(area) = space.next_listed(from) {
        areas.push(area.pages);
        from = Listed::next(&area).expect("below the top");
    }
    assert_eq!(areas, [usable.pages(), next.pages]);
    drop((usable, list));
}
