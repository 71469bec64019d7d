//! ioremap and iounmap.

use super::bed::{Bed, CALLER, RAM, RAM_PAGES, WINDOW, WINDOW_PAGES, page};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    area::AreaKind,
    attributes::Attributes,
    kernel_space::{IoRemapError, NoArea, RemoveError},
};

const DEVICE: PhysAddr = PhysAddr::new(0x1001_3000);

#[test]
fn registers_are_mapped_as_asked_to_the_last_byte_and_given_back_s94() {
    let bed = Bed::warm();
    for (offset, bytes, count) in [
        (0, 1, 1),
        (0, 0x1000, 1),
        (0, 0x1001, 2),
        (0xffc, 4, 1),
        (0xffc, 5, 2),
        (0x123, 0x2000, 3),
    ] {
        bed.changes_nothing(|bed| {
            let physical = PhysAddr::new(DEVICE.raw() + offset);
            let address = bed.space.ioremap(physical, bytes, Attributes::DEVICE, CALLER);
            let address = address.expect("addresses");
            assert_eq!(address.page_offset(), offset, "{offset:#x}, {bytes:#x}");
            let area = bed.space.find_containing(address).expect("a live area");
            assert_eq!((area.pages.count(), area.physical), (count, DEVICE));
            let last = VirtAddr::new(address.raw() + bytes - 1);
            for (byte, wanted) in
                [(address, physical), (last, PhysAddr::new(physical.raw() + bytes - 1))]
            {
                let entry = bed.space.table().translate(byte).expect("mapped");
                assert_eq!(entry.physical, wanted);
                assert_eq!(entry.attributes(), Ok(Attributes::DEVICE));
            }
            assert_eq!(bed.clean().areas, [0, 0, 1, 0, 0, 0, 0]);
            assert_eq!(bed.space.iounmap((), address), Ok(()));
            assert_eq!(bed.space.iounmap((), address), Err(RemoveError::Unknown { address }));
        });
    }
}

#[test]
fn zero_a_wrapped_end_and_ram_are_refused_each_in_its_own_words_s94() {
    let bed = Bed::warm();
    let ram = PhysAddr::new(RAM * PAGE_SIZE);
    let end = PhysAddr::new((RAM + RAM_PAGES) * PAGE_SIZE);
    bed.changes_nothing(|bed| {
        let map = |physical: PhysAddr, bytes| {
            bed.space.ioremap(physical, bytes, Attributes::DEVICE, CALLER)
        };
        assert_eq!(map(DEVICE, 0), Err(IoRemapError::ZeroSize { physical: DEVICE }));
        let top = PhysAddr::new(0xffff_f000);
        assert_eq!(map(top, 0x1001), Err(IoRemapError::Wraps { physical: top, bytes: 0x1001 }));
        assert_eq!(
            map(DEVICE, u32::MAX),
            Err(IoRemapError::Wraps { physical: DEVICE, bytes: u32::MAX })
        );
        let below = PhysAddr::new(ram.raw() - 4);
        let last = PhysAddr::new(end.raw() - 1);
        for (physical, bytes, first) in
            [(ram, 1, ram), (last, 1, last), (below, 8, ram), (below, 5, ram)]
        {
            let refused = Err(IoRemapError::Ram { physical, bytes, ram: first });
            assert_eq!(map(physical, bytes), refused);
        }
    });
    // Right beside RAM, and the very last page of the bus, are fine.
    bed.gives_back(|bed| {
        for (physical, bytes) in [(ram.raw() - 4, 4), (end.raw(), 1), (0xffff_f000, 0x1000)] {
            let physical = PhysAddr::new(physical);
            let address = bed.space.ioremap(physical, bytes, Attributes::DEVICE, CALLER);
            let address = address.expect("no RAM");
            bed.clean();
            bed.space.iounmap((), address).expect("a live area");
        }
    });
}

#[test]
fn what_does_not_fit_the_window_is_refused_and_leaves_nothing_s8() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let bytes = WINDOW_PAGES * PAGE_SIZE;
        let refused = bed.space.ioremap(DEVICE, bytes, Attributes::DEVICE, CALLER);
        assert!(matches!(refused, Err(IoRemapError::Area(NoArea::Addresses(_)))), "{refused:?}");
    });
}

#[test]
fn any_address_inside_unmaps_and_none_outside_does() {
    let bed = Bed::warm();
    let address = bed.space.ioremap(DEVICE, 0x2000, Attributes::DEVICE, CALLER).expect("addresses");
    bed.changes_nothing(|bed| {
        let guard = VirtAddr::new(address.raw() + 0x2000);
        let below = VirtAddr::new(page(WINDOW).raw() - 1);
        for outside in [guard, below, page(WINDOW + 500)] {
            let unknown = Err(RemoveError::Unknown { address: outside });
            assert_eq!(bed.space.iounmap((), outside), unknown);
        }
    });
    assert_eq!(bed.space.iounmap((), VirtAddr::new(address.raw() + 0x1fff)), Ok(()));
    bed.clean();
}

#[test]
fn two_mappings_of_one_block_live_side_by_side_s57() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let map = || bed.space.ioremap(DEVICE, 4, Attributes::DEVICE, CALLER).expect("addresses");
        let (one, two) = (map(), map());
        assert_ne!(one, two);
        assert_eq!(bed.clean().areas, [0, 0, 2, 0, 0, 0, 0]);
        bed.space.iounmap((), one).expect("a live area");
        assert_eq!(bed.space.find(two).map(|area| area.kind), Some(AreaKind::IoRemap));
        bed.space.iounmap((), two).expect("a live area");
    });
}
