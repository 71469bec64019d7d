//! ioremap's kin, and the board's static mappings (S93 to S95, S97).

use super::bed::{Bed, CALLER, RAM, RAM_PAGES, TEXT};
use histories::bed::STATICS;
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    attributes::{Attributes, MemoryType},
    audit::{Place, Violation},
    bus::BusRange,
    frames::FrameOwner,
    kernel_space::{IoRemapError, MemRemapError, StaticError, StaticMapping, StaticRequest},
};
use machine::{Behaviour, Fault, Kind, Privilege};

const DEVICE: u32 = 0x1e00_a000;

fn at(physical: u32) -> PhysAddr {
    PhysAddr::new(physical)
}

fn request(first: u32, bytes: u32) -> StaticRequest {
    let range = BusRange { name: "l2", first: at(first), last: at(first + (bytes - 1)) };
    StaticRequest { range, attributes: Attributes::DEVICE }
}

/// S93, S97: RAM where the linear map has it, as that has it, or a refusal; other memory as it is asked for.
#[test]
fn memory_is_mapped_as_it_is_asked_for_and_ram_is_where_it_is_s93_s97() {
    use MemoryType::{Device, NormalNonCacheable, NormalWriteBack, NormalWriteThrough};
    let bed = Bed::warm();
    let ram = RAM * PAGE_SIZE;
    let end = (RAM + RAM_PAGES) * PAGE_SIZE;
    let map = |physical, bytes, memory| bed.space.memremap(at(physical), bytes, memory, CALLER);
    bed.changes_nothing(|bed| {
        for (physical, bytes) in [(ram, 1), (ram + 0x4_0123, 0x2_0000), (end - 1, 1)] {
            let address = map(physical, bytes, NormalWriteBack).expect("linear");
            assert_eq!(address.raw(), physical + 0x2000_0000);
            assert_eq!(bed.space.memunmap((), address), Ok(()));
            assert!(bed.space.table().translate(address).is_some(), "it stays");
            let wanted = Attributes::WRITE_THROUGH;
            let refused = map(physical, bytes, NormalWriteThrough);
            assert!(
                matches!(refused, Err(MemRemapError::RamOtherwise { wanted: w, .. }) if w == wanted)
            );
        }
        // The image's text may not be written.
        let text = map(TEXT.raw() - 0x2000_0000, 4, NormalWriteBack);
        assert!(matches!(text, Err(MemRemapError::RamOtherwise { had, .. }) if !had.is_writable()));
        for (physical, bytes) in [(ram - 4, 8), (end - 4, 8), (ram - 4, end - ram + 8)] {
            let refused = map(physical, bytes, NormalWriteBack);
            assert!(matches!(refused, Err(MemRemapError::PartlyRam { .. })), "{refused:?}");
        }
        let physical = at(ram);
        let wanted = Device;
        assert_eq!(map(ram, 4, Device), Err(MemRemapError::NotMemory { physical, wanted }));
        let zero = MemRemapError::Map(IoRemapError::ZeroSize { physical });
        assert_eq!(map(ram, 0, NormalWriteBack), Err(zero));
        let wraps = map(u32::MAX, 2, NormalWriteBack);
        assert!(matches!(wraps, Err(MemRemapError::Map(IoRemapError::Wraps { .. }))), "{wraps:?}");
    });
    bed.changes_nothing(|bed| {
        let lent = bed.space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER).expect("memory");
        let physical = lent.physical;
        let refused = map(physical.raw() + 8, 4, NormalWriteBack);
        assert_eq!(refused, Err(MemRemapError::NoLinearAddress { physical }));
        let freed = bed.space.coherent_free((), lent.pages.start(), PAGE_SIZE);
        assert!(freed.is_ok(), "{freed:?}");
    });
    bed.gives_back(|bed| {
        for (memory, wanted) in [
            (NormalWriteBack, Attributes::KERNEL_DATA),
            (NormalWriteThrough, Attributes::WRITE_THROUGH),
            (NormalNonCacheable, Attributes::WRITE_COMBINE),
        ] {
            let address = map(0x4800_0404, 8, memory).expect("addresses");
            let entry = bed.space.table().translate(address).expect("mapped");
            assert_eq!(entry.attributes(), Ok(wanted));
            assert_eq!(bed.space.memunmap((), address), Ok(()));
            assert!(bed.space.memunmap((), address).is_err(), "once");
        }
    });
}

fn with_statics(behaviour: Behaviour) -> (Bed, StaticMapping) {
    let mut bed = Bed::warm_on(behaviour);
    bed.map_statics(&[request(DEVICE, 0x2000), request(0x1000_0000, 0x1000)]).expect("room");
    let mapping = *bed.space.static_mappings().next().expect("the first");
    (bed, mapping)
}

/// S95, S97.
#[test]
fn what_is_mapped_for_good_answers_for_all_of_it_and_refuses_other_types_s95() {
    for behaviour in Behaviour::all(1) {
        let (bed, had) = with_statics(behaviour);
        bed.changes_nothing(|bed| {
            let start = had.pages.start().raw();
            for (offset, bytes) in [(0, 1), (0, 0x2000), (0x1ffc, 4), (0x123, 0x1000)] {
                let physical = at(DEVICE + offset);
                let address = bed.space.ioremap(physical, bytes, Attributes::DEVICE, CALLER);
                assert_eq!(address, Ok(VirtAddr::new(start + offset)));
                assert_eq!(bed.space.iounmap((), VirtAddr::new(start + offset)), Ok(()));
                for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
                    let reached =
                        cpu.access(VirtAddr::new(start + offset), Kind::Write, Privilege::Kernel);
                    assert_eq!(reached, Ok(physical));
                }
                let wanted = Attributes::WRITE_COMBINE;
                let refused = IoRemapError::Static { physical, bytes, wanted, had };
                assert_eq!(bed.space.ioremap(physical, bytes, wanted, CALLER), Err(refused));
            }
            for gap in [start - 1, start + 0x2000] {
                let gap = VirtAddr::new(gap);
                let reached = bed.machine.cpu(1).access(gap, Kind::Read, Privilege::Kernel);
                assert_eq!(reached, Err(Fault::Translation(gap)));
                assert!(bed.space.iounmap((), gap).is_err());
            }
        });
        // Beyond its end, in the same way: a mapping of its own; in another, from the page beside.
        bed.gives_back(|bed| {
            let map = |physical, bytes, wanted| {
                bed.space.ioremap(at(physical), bytes, wanted, CALLER).expect("addresses")
            };
            let own = map(DEVICE + 0x1000, 0x1001, Attributes::DEVICE);
            assert!(bed.space.window().contains(own));
            let beside = map(DEVICE - 1, 1, Attributes::WRITE_COMBINE);
            assert_eq!(bed.space.iounmap((), own), Ok(()));
            assert_eq!(bed.space.iounmap((), beside), Ok(()));
        });
    }
}

/// The audit has them in its books.
#[test]
fn whoever_changes_a_static_mapping_is_found_s95() {
    let (bed, had) = with_statics(Behaviour::Forgetful);
    bed.clean();
    let (address, place) = (had.pages.start(), Place::Static);
    let slot = bed.l2_slot(address);
    let right = bed.poke(slot, 0);
    bed.finds(&[Violation::Missing { address, place, wanted: Some(at(DEVICE)) }]);
    bed.poke(slot, right + PAGE_SIZE);
    let (wanted, other) = (at(DEVICE), at(DEVICE + PAGE_SIZE));
    bed.finds(&[Violation::WrongFrame { address, place, wanted, had: other }]);
    bed.poke(slot, right);
    let gap = VirtAddr::new(address.raw() + 0x2000);
    let before = bed.poke(bed.l2_slot(gap), right);
    bed.finds(&[Violation::Present { address: gap, place, had: at(DEVICE) }]);
    bed.poke(bed.l2_slot(gap), before);
    bed.clean();
}

#[test]
fn what_cannot_be_mapped_for_good_is_named_s95() {
    let ram = RAM * PAGE_SIZE;
    for unfit in [
        request(DEVICE + 4, 0x1000),
        request(DEVICE, 0x1001),
        request(ram - 0x1000, 0x2000),
        request(DEVICE, STATICS * PAGE_SIZE),
    ] {
        let refused = Bed::warm().map_statics(&[unfit]);
        assert_eq!(refused, Err(StaticError::Unfit(unfit.range)));
        assert!(refused.expect_err("unfit").to_string().contains("l2"));
    }
    let five = [0, 1, 2, 3, 4].map(|number| request(DEVICE + number * 0x1000, 0x1000));
    let refused = Bed::warm().map_statics(&five);
    assert_eq!(refused, Err(StaticError::Unfit(five[4].range)), "as many as there can be");
}
