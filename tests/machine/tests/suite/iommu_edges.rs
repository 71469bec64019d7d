//! What a domain asks of the machine and of its books, step by step: barriers, flushes, and what stays out of use (S16a, S22, S81, S108).

use crate::mutants::iommu::{Devices, audit, domain_of, single};
use histories::bed::{Bed, RAM, frame};
use kerncore::{
    addr::{DmaAddr, PAGE_SIZE, PhysAddr},
    attributes::MemoryType,
    descriptor::l1,
    iommu::{Grant, IovaError},
    machine::Machine,
};
use machine::{Event, Scope};

const TYPE: MemoryType = MemoryType::NormalWriteBack;

/// What was asked meanwhile.
fn asked(bed: &Bed, act: impl FnOnce()) -> Vec<Event> {
    drop(bed.machine.take_log());
    act();
    bed.machine.take_log().into_iter().map(|(_, event)| event).collect()
}

/// S16a: a device may look as soon as there is an address: its entries are complete before that, whatever their size.
#[test]
fn entries_are_complete_when_a_device_is_told_of_them_s16a() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0, 64 << 20);
    for runs in [
        vec![(RAM, 1)],
        vec![(RAM, 1), (RAM + 7, 1)],
        vec![(RAM, 16)],
        vec![(RAM + 3, 40), (RAM, 1)],
        vec![(RAM, 256)],
        vec![(RAM, 4096)],
    ] {
        let mut iova = None;
        let log = asked(&bed, || {
            let runs = runs.iter().map(|&(first, count)| (frame(first), count));
            iova = Some(domain.map((), runs, Grant::Read, TYPE).expect("room"));
        });
        let cleans = |event: &Event| matches!(event, Event::Clean(..));
        let last = log.iter().rposition(cleans).expect("entries were written and cleaned");
        let waits = log[last..].iter().any(|event| matches!(event, Event::Barrier));
        assert!(waits, "{runs:x?}: {log:?}");
        domain.unmap(iova.expect("mapped"), ()).flush();
    }
}

/// S16a: the walker finds an empty table, and not what the cache hides: all of the first level is cleaned before there is a domain.
#[test]
fn the_first_level_is_cleaned_before_anybody_walks_it_s16a() {
    for (bytes, slots) in [(1 << 20, 2048), (0x9000_0000, 4096)] {
        let bed = Bed::warm();
        let devices = Devices::new(&bed);
        let mut root = PhysAddr::new(0);
        let log = asked(&bed, || root = domain_of(&devices, 0, bytes).root());
        let cleaned = Event::Clean(root, slots);
        let place = log.iter().position(|event| *event == cleaned).expect("cleaned");
        assert!(log[place..].contains(&Event::Barrier), "{log:?}");
    }
}

/// S108: a domain that goes empties each first-level slot in use, and then its IOTLB forgets, before its tables are anybody's.
#[test]
fn a_domain_that_goes_empties_its_first_level_and_then_the_iotlb_s108() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0, 64 << 20);
    let root = domain.root();
    let small = domain.map((), [(frame(RAM), 1)].into_iter(), Grant::Read, TYPE).expect("room");
    let large = domain.map((), [(frame(RAM), 256)].into_iter(), Grant::Read, TYPE).expect("room");
    let slots = [small.leak(), large.leak()]
        .map(|start| PhysAddr::new(root.raw() + l1::index(at(start)) * 4));
    let log = asked(&bed, || drop(domain));
    let forgets = |event: &Event| matches!(event, Event::Invalidate(Scope::Space(_), _));
    let forgotten = log.iter().position(forgets).unwrap_or_else(|| panic!("it forgets: {log:?}"));
    for slot in slots {
        let emptied = Event::Write(slot, 1);
        let place = log.iter().position(|event| *event == emptied).expect("emptied");
        assert!(place < forgotten, "{slot}");
        assert_eq!(bed.machine.cpu(0).read_descriptor(slot), 0);
    }
}

const fn at(address: DmaAddr) -> kerncore::addr::VirtAddr {
    kerncore::addr::VirtAddr::new(address.raw())
}

/// S81: addresses are somebody else's after the flush, and not before it.
#[test]
fn addresses_are_free_after_the_flush_and_not_before_s81() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0x10_0000, 4 * PAGE_SIZE);
    let map = |pages| domain.map((), [(frame(RAM), pages)].into_iter(), Grant::Read, TYPE);
    let iova = map(4).expect("all of it");
    let start = iova.start();
    let unmapped = domain.unmap(iova, ());
    assert_eq!(domain.find(start, 4), Ok(()), "taken until an IOTLB has forgotten it");
    assert!(map(1).is_err(), "no address is free");
    unmapped.flush();
    assert_eq!(domain.find(start, 4), Err(IovaError::Free { start }));
    domain.unmap(map(4).expect("all of it again"), ()).flush();
}

/// S22: where somebody else's entry reaches into what was unmapped, its addresses stay out of use.
#[test]
fn addresses_that_a_foreign_entry_reaches_into_stay_out_of_use_s22() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0, 2 << 20);
    let iova = domain.map((), [single(frame(RAM))].into_iter(), Grant::Read, TYPE).expect("room");
    let start = iova.start();
    let slot = PhysAddr::new(domain.root().raw() + l1::index(at(start)) * 4);
    // A section of which one page is to go.
    let table = bed.poke(slot, 0x6011_141e);
    let ((), removal) = domain.unmap(iova, ()).flush();
    assert_eq!((removal.oddities, removal.left_alone), (1, 1));
    assert_eq!(domain.find(start, 1), Ok(()), "nobody else has them");
    assert_eq!(domain.usage().taken, 1);
    bed.poke(slot, table);
    let iova = domain.claim((), start, 1).expect("it is taken still");
    domain.unmap(iova, ()).flush();
    audit(&domain);
    assert!(domain.is_unused());
}

/// S108: who has addresses of one domain cannot end them in another, which has some at the same place.
#[test]
#[should_panic(expected = "addresses of another domain are unmapped")]
fn addresses_of_another_domain_are_not_unmapped_s108() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let [own, other] = [(); 2].map(|()| domain_of(&devices, 0, 1 << 20));
    let [iova, twin] = [&own, &other].map(|domain| {
        domain.map((), [single(frame(RAM))].into_iter(), Grant::Read, TYPE).expect("room")
    });
    assert_eq!(iova.start(), twin.start());
    own.unmap(twin, ()).flush();
}
