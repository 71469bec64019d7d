//! Short cuts of devices behind an IOMMU beside the general ways: both give the same, or the short cut nothing at all (S105, S109).

use crate::mutants::iommu::{Devices, audit, domain_of, single, with_open};
use histories::bed::{Bed, CALLER, RAM, frame};
use kerncore::{
    addr::{DmaAddr, PAGE_SIZE, Pfn, PhysAddr, VirtAddr},
    attributes::MemoryType,
    coherent::Coherency,
    frames::FrameOwner,
    iommu::{DomainMapError, Grant, IovaError},
    page_table::MapError,
    streaming::{Flow, Handover, Step},
};
use machine::{Behaviour, Kind, Privilege};

const TYPE: MemoryType = MemoryType::NormalWriteBack;

/// S109: pages by themselves are mapped as runs of one are, up to a table's border and across it.
#[test]
fn pages_by_themselves_are_mapped_as_runs_of_one_are_s109() {
    for behaviour in Behaviour::all(2) {
        let bed = Bed::warm_on(behaviour);
        let devices = Devices::new(&bed);
        let cpu = devices.cpu(1);
        for count in [1, 2, 3, 7, 8, 9, 31, 32, 33, 255, 256, 257, 600] {
            let pages = |index: u32| frame(RAM + (index * 7 + 5) % 2048);
            let domains = [(); 2].map(|()| domain_of(&devices, 0x10_0000, 8 << 20));
            let run = domains[0].map((), (0..count).map(pages).map(single), Grant::ReadWrite, TYPE);
            let run = run.expect("room");
            let apart = (0..count).map(|index| Some(pages(index)));
            let each =
                domains[1].map_pages((), apart, count, Grant::ReadWrite, TYPE).expect("room");
            assert_eq!((each.start(), each.pages()), (run.start(), count));
            for page in 0..count {
                let at = DmaAddr::new(run.start().raw() + page * PAGE_SIZE);
                let found = domains[1].translate(at);
                assert_eq!(found, domains[0].translate(at), "{page} of {count}");
                assert_eq!(found.map(|found| found.physical), Some(pages(page).base()));
                let seen = with_open(&domains[1], &cpu, || {
                    cpu.access(VirtAddr::new(at.raw()), Kind::Write, Privilege::User)
                });
                assert_eq!(seen, Ok(pages(page).base()), "when it returns, the device sees it");
            }
            for (domain, iova) in domains.iter().zip([run, each]) {
                domain.unmap(iova, ()).flush();
                assert!(domain.is_unused());
            }
        }
    }
}

/// S105: fewer pages than were counted, one that is none, and no room: nothing is taken.
#[test]
fn pages_that_are_not_as_many_as_was_said_take_nothing_s105() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0x10_0000, 4 << 20);
    let map = |pages: &[Option<Pfn>], count| {
        let mapped = domain.map_pages((), pages.iter().copied(), count, Grant::Read, TYPE);
        mapped.map(|iova| iova.pages())
    };
    let all: Vec<Option<Pfn>> = (0..300).map(|index| Some(frame(RAM + 3 * index))).collect();
    for (missing, count) in [(0, 1), (0, 8), (1, 8), (7, 8), (255, 300), (256, 300), (299, 300)] {
        let short = &all[..missing];
        let mut gap = all.clone();
        gap[missing] = None;
        for pages in [short, &gap[..]] {
            let refused = map(pages, count).expect_err("a page is missing");
            let page = u32::try_from(missing).expect("a few");
            let named = matches!(refused, DomainMapError::Map(MapError::MissingFrame { address, mapped })
                if mapped == page && address.page_number() & 0xff == page & 0xff);
            assert!(named, "{missing} of {count}: {refused:?}");
            assert!(domain.is_unused(), "{missing} of {count}");
            audit(&domain);
        }
    }
    assert_eq!(map(&all, 0), Err(DomainMapError::Iova(IovaError::Empty)));
    let exhausted = IovaError::Exhausted { pages: 1025, largest: 512, free: 1024 };
    assert_eq!(map(&all, 1025), Err(DomainMapError::Iova(exhausted)));
    assert!(domain.is_unused());
    assert_eq!(map(&all, 3), Ok(3), "those behind the last are left out");
}

/// S109: whoever follows addresses finds what a look at each by itself finds: entries of all sizes, holes, and the window's edges.
#[test]
fn who_follows_addresses_finds_what_one_look_at_each_finds_s109() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    // It begins and ends inside a section.
    let domain = domain_of(&devices, 0xf_8000, (8 << 20) + 0x1_0000);
    let runs: [(u32, u32); 6] =
        [(RAM, 256), (RAM + 1, 3), (RAM + 0x50, 16), (RAM + 9, 1), (RAM + 3, 300), (RAM + 8, 2)];
    let iovas = runs.map(|(first, count)| {
        domain.map((), [(frame(first), count)].into_iter(), Grant::Read, TYPE).expect("room")
    });
    let addresses: Vec<DmaAddr> =
        (0xe0..0x940_u32).map(|page| DmaAddr::new(page * PAGE_SIZE + page % 5 * 0x321)).collect();
    let look = |at: DmaAddr| domain.translate(at).map(|found| found.physical);
    assert!(addresses.iter().filter(|&&at| look(at).is_some()).count() > 500);
    // Up, down, and in leaps from within a section that has a table.
    let leaps = (0..addresses.len()).map(|index| (index * 389 + 810) % addresses.len());
    let orders: [Vec<usize>; 3] =
        [(0..addresses.len()).collect(), (0..addresses.len()).rev().collect(), leaps.collect()];
    for order in orders {
        let mut follow = domain.follow();
        for at in order.into_iter().map(|index| addresses[index]) {
            assert_eq!(follow.at(at), look(at), "{at}");
        }
    }
    for iova in iovas {
        domain.unmap(iova, ()).flush();
    }
}

/// Whatever has a word for it: memory of every kind, and where the short cut may take it.
#[test]
fn memory_at_hand_is_what_may_be_streamed_and_goes_as_that_does_s105() {
    let bed = Bed::warm();
    let kernel = &bed.space;
    let cpu = bed.machine.cpu(0);
    let block = kernel.zones().allocate(2, FrameOwner::Pages).expect("memory");
    let free = kernel.zones().allocate(0, FrameOwner::Pages).expect("memory");
    let hole = free.first().base();
    kernel.zones().free(free).expect("the test's own");
    let lent = kernel.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER).expect("memory");
    let base = block.first().base();
    let inside = |offset: u32| PhysAddr::new(base.raw() + offset);
    let cases = [
        (base, 1, true),
        (base, PAGE_SIZE, true),
        (inside(0xfff), 1, true),
        (inside(0x123), 0x1000, true),
        (base, 4 * PAGE_SIZE, true),
        (inside(4), 4 * PAGE_SIZE - 4, true),
        // Not from its first frame on, and past its end: for the general way to say.
        (inside(PAGE_SIZE), 32, false),
        (base, 4 * PAGE_SIZE + 1, false),
        (hole, 32, false),
        (lent.physical, 32, false),
        (PhysAddr::new(0x1000_0000), 32, false),
        (PhysAddr::new(0xffff_f000), PAGE_SIZE, false),
    ];
    for flow in Flow::ALL {
        let coherency = Coherency::NonCoherent;
        let handover = Handover { call: "a test", coherency, flow, step: Step::Whole };
        for (first, bytes, is_at_hand) in cases {
            assert_eq!(kernel.give_at_hand((), handover, first, bytes), is_at_hand, "{first}");
            assert_eq!(kernel.is_at_hand(first, bytes), is_at_hand, "{first}");
            assert!(
                !is_at_hand || kernel.is_streamable(first, bytes, |_| false).is_ok(),
                "{first}"
            );
            if is_at_hand {
                assert!(kernel.take_at_hand((), handover, first, bytes), "{first}");
            }
        }
        // What was written before is the device's to read, and what it writes the processor's.
        let linear = VirtAddr::new(base.raw() + 0x2000_0000);
        assert_eq!(cpu.store(linear, 0x1d1d), Ok(()));
        assert!(kernel.give_at_hand((), handover, base, 64));
        assert_eq!(bed.machine.device_read(base), 0x1d1d, "{flow:?}");
        if flow.device_writes() {
            bed.machine.device_write(base, 0x2e2e);
        }
        assert!(kernel.take_at_hand((), handover, base, 64));
        let now = if flow.device_writes() { 0x2e2e } else { 0x1d1d };
        assert_eq!(cpu.load(linear), Ok(now), "{flow:?}");
    }
    kernel.coherent_free((), lent.pages.start(), PAGE_SIZE).expect("the test's own");
    kernel.zones().free(block).expect("the test's own");
}
