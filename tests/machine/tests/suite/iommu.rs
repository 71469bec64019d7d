//! Domains of an IOMMU on SoftMachine (S108 to S110): CPUs stand in for the device, and their TLBs, which keep what they may, for
//! the IOTLB.

use crate::mutants::iommu::{Devices, audit, domain_of, single, with_open};
use histories::bed::{Bed, CALLER, RAM, frame};
use kerncore::{
    addr::{DmaAddr, PAGE_SIZE, PageRange, PhysAddr, VirtAddr},
    attributes::MemoryType,
    descriptor::PageSize,
    frames::FrameOwner,
    iommu::{CreateError, DomainMapError, DomainViolation, Grant, IovaError},
    kernel_space::{CoherentFreed, RemoveError},
    machine::Machine,
    page_table::MapError,
};
use machine::{Behaviour, Fault, Kind, Privilege};

const TYPE: MemoryType = MemoryType::NormalWriteBack;

fn everywhere(test: impl Fn(&Devices<'_>)) {
    for behaviour in Behaviour::all(2) {
        println!("{behaviour:?}");
        let bed = Bed::warm_on(behaviour);
        bed.changes_nothing(|bed| {
            let devices = Devices::new(bed);
            test(&devices);
            assert_eq!(devices.spaces.numbers_taken(), 0, "the numbers came back, too");
        });
    }
}

fn at(address: DmaAddr, offset: u32) -> VirtAddr {
    VirtAddr::new(address.raw() + offset)
}

/// S109, S110: scattered frames are contiguous to the device, and both views agree.
#[test]
fn scattered_frames_are_contiguous_to_the_device_and_both_views_agree() {
    everywhere(|devices| {
        let domain = domain_of(devices, 0x10_0000, 1 << 20);
        let scattered = devices.bed.scatter();
        let (list, frames) = devices.bed.frames(5);
        let iova = domain.map((), frames.iter().copied().map(single), Grant::ReadWrite, TYPE);
        let iova = iova.expect("room");
        assert_eq!((iova.start().raw() % (8 * PAGE_SIZE), iova.pages()), (0, 5));
        let start = iova.start();
        let cpu = devices.cpu(1);
        for (index, frame) in (0..).zip(&frames) {
            let linear = VirtAddr::new(frame.base().raw() + 0x2000_0000);
            let seen = at(start, index * PAGE_SIZE + 4 * index);
            let own = VirtAddr::new(linear.raw() + 4 * index);
            with_open(&domain, &cpu, || {
                assert_eq!(cpu.store(seen, 0xd1_0000 + index), Ok(()));
            });
            assert_eq!(cpu.load(own), Ok(0xd1_0000 + index), "the device wrote, the kernel reads");
            assert_eq!(cpu.store(own, index), Ok(()));
            let read = with_open(&domain, &cpu, || cpu.load(seen));
            assert_eq!(read, Ok(index), "the kernel wrote, the device reads");
        }
        let (end, before) = (at(start, 5 * PAGE_SIZE), VirtAddr::new(start.raw() - 4));
        for outside in [end, before] {
            let read = with_open(&domain, &cpu, || cpu.load(outside));
            assert_eq!(read, Err(Fault::Translation(outside)));
        }
        assert_eq!(audit(&domain).pages, 5);
        let (list, _) = domain.unmap(iova, list).flush();
        devices.bed.feed(list);
        devices.bed.feed(scattered);
    });
}

/// S110: what a device may, by what it was granted.
#[test]
fn a_device_may_do_what_it_was_granted_and_no_more() {
    everywhere(|devices| {
        let (list, frames) = devices.bed.frames(1);
        let domain = domain_of(devices, 0, 1 << 20);
        let cpu = devices.cpu(0);
        let wanted = [
            (Grant::Nothing, [false, false]),
            (Grant::Read, [true, false]),
            (Grant::ReadWrite, [true, true]),
        ];
        for (grant, may) in wanted {
            let iova = domain.map((), [single(frames[0])].into_iter(), grant, TYPE).expect("room");
            let page = at(iova.start(), 0);
            let found = with_open(&domain, &cpu, || {
                [Kind::Read, Kind::Write].map(|kind| cpu.access(page, kind, Privilege::User))
            });
            for (found, may) in found.into_iter().zip(may) {
                let denied = Err(Fault::Permission(page));
                assert!(if may { found.is_ok() } else { found == denied }, "{grant:?}: {found:?}");
            }
            let run = with_open(&domain, &cpu, || cpu.access(page, Kind::Execute, Privilege::User));
            assert_eq!(run, Err(Fault::Permission(page)), "{grant:?}");
            domain.unmap(iova, ()).flush();
        }
        devices.bed.feed(list);
    });
}

/// S110: domains are apart, and what a device sees of none it does not see of another.
#[test]
fn two_domains_do_not_see_each_others_frames() {
    everywhere(|devices| {
        let (list, frames) = devices.bed.frames(2);
        let domains = [domain_of(devices, 0, 1 << 20), domain_of(devices, 0, 1 << 20)];
        let iovas = [0, 1].map(|index: usize| {
            let run = [single(frames[index])].into_iter();
            domains[index].map((), run, Grant::ReadWrite, TYPE).expect("room")
        });
        let start = iovas[0].start();
        assert_eq!(start, iovas[1].start(), "the same address of each");
        let cpu = devices.cpu(0);
        for (mark, domain) in (1..).zip(&domains) {
            with_open(domain, &cpu, || assert_eq!(cpu.store(at(start, 8), mark), Ok(())));
        }
        for (mark, domain) in (1..).zip(&domains) {
            let read = with_open(domain, &cpu, || cpu.load(at(start, 8)));
            assert_eq!(read, Ok(mark));
        }
        let none = at(start, 0);
        assert_eq!(cpu.load(none), Err(Fault::Translation(none)), "a device without a domain");
        for (domain, iova) in domains.iter().zip(iovas) {
            domain.unmap(iova, ()).flush();
        }
        devices.bed.feed(list);
    });
}

/// S109: entries of all sizes, in one mapping and one after the other at the same addresses.
#[test]
fn entries_are_as_large_as_both_sides_allow_and_all_go() {
    everywhere(|devices| {
        let domain = domain_of(devices, 0, 64 << 20);
        let size = |address: DmaAddr, page: u32| {
            let address = DmaAddr::new(address.raw() + page * PAGE_SIZE);
            domain.translate(address).map(|found| (found.size, found.physical.pfn().number()))
        };
        let map = |runs: &[(u32, u32)]| {
            let runs = runs.iter().map(|&(first, count)| (frame(first), count));
            domain.map((), runs, Grant::Read, TYPE).expect("room")
        };
        // Both sides at multiples of 16 MiB, and an entry of each size behind.
        let iova = map(&[(0x3_0000, 4096 + 256 + 16 + 1)]);
        let start = iova.start();
        assert_eq!(start, DmaAddr::new(0), "aligned to 16 MiB, no further");
        let sizes = [0, 4095, 4096, 4351, 4352, 4367, 4368].map(|page| size(start, page));
        let wanted = [
            (PageSize::Supersection, 0x3_0000),
            (PageSize::Supersection, 0x3_0fff),
            (PageSize::Section, 0x3_1000),
            (PageSize::Section, 0x3_10ff),
            (PageSize::Large, 0x3_1100),
            (PageSize::Large, 0x3_110f),
            (PageSize::Small, 0x3_1110),
        ];
        assert_eq!(sizes, wanted.map(Some));
        let ((), removal) = domain.unmap(iova, ()).flush();
        assert_eq!((removal.pages, removal.oddities), (4096 + 256 + 16 + 1, 0));
        // The same addresses again, by frames that begin 64 KiB later: a table where the supersection was.
        let iova = map(&[(0x3_0010, 256)]);
        assert_eq!(iova.start(), start);
        assert_eq!(size(start, 0), Some((PageSize::Large, 0x3_0010)));
        domain.unmap(iova, ()).flush();
        // And by scattered runs: what is contiguous in each, at whatever place it comes to lie.
        let iova = map(&[(0x3_0001, 1), (0x3_0011, 31), (0x3_0020, 16)]);
        let sizes = [0, 1, 15, 16, 31, 32].map(|page| size(start, page));
        let wanted = [
            (PageSize::Small, 0x3_0001),
            (PageSize::Small, 0x3_0011),
            (PageSize::Small, 0x3_001f),
            (PageSize::Large, 0x3_0020),
            (PageSize::Large, 0x3_002f),
            (PageSize::Large, 0x3_0020),
        ];
        assert_eq!(sizes, wanted.map(Some));
        domain.unmap(iova, ()).flush();
        // A section over the table that is there now, which waits to be used again.
        let tables = audit(&domain).table_frames;
        let iova = map(&[(0x3_0100, 256)]);
        assert_eq!(size(start, 0), Some((PageSize::Section, 0x3_0100)));
        domain.unmap(iova, ()).flush();
        let iova = map(&[(0x3_0100, 1)]);
        assert_eq!(audit(&domain).table_frames, tables, "no table was made anew");
        domain.unmap(iova, ()).flush();
        assert!((0..4400).all(|page| size(start, page).is_none()));
        audit(&domain);
        assert!(domain.is_unused());
    });
}

/// S23: the IOTLB forgets with one invalidation what one entry holds, and nobody sees what was there.
#[test]
fn what_was_unmapped_is_seen_by_no_device() {
    everywhere(|devices| {
        let domain = domain_of(devices, 0, 64 << 20);
        let cpus = [devices.cpu(0), devices.cpu(1)];
        for (first, count) in [(RAM, 1), (RAM, 16), (RAM, 256), (RAM, 512), (RAM + 3, 300)] {
            let run = [(frame(first), count)].into_iter();
            let iova = domain.map((), run, Grant::Read, TYPE).expect("room");
            let pages = [0, 1, count / 2, count - 1].map(|page| at(iova.start(), page * PAGE_SIZE));
            with_open(&domain, &cpus[0], || {
                with_open(&domain, &cpus[1], || {
                    for (cpu, page) in cpus.iter().flat_map(|cpu| pages.map(|page| (cpu, page))) {
                        let inside = page < at(iova.start(), count * PAGE_SIZE);
                        let read = cpu.access(page, Kind::Read, Privilege::User);
                        assert_eq!(read.is_ok(), inside);
                    }
                    domain.unmap(iova, ()).flush();
                    for (cpu, page) in cpus.iter().flat_map(|cpu| pages.map(|page| (cpu, page))) {
                        let read = cpu.access(page, Kind::Read, Privilege::User);
                        assert_eq!(read, Err(Fault::Translation(page)), "{first:#x}, {count}");
                    }
                });
            });
        }
    });
}

#[test]
fn refusals_name_what_was_wrong_and_take_nothing() {
    everywhere(|devices| {
        let made = |base, bytes| devices.domain(DmaAddr::new(base), bytes).map(drop);
        let base = DmaAddr::new(0x800);
        assert_eq!(made(0x800, 0x1000), Err(CreateError::Unaligned { base }));
        assert_eq!(made(0, 0xfff), Err(CreateError::NoPages { bytes: 0xfff }));
        let base = DmaAddr::new(0xffff_e000);
        assert_eq!(made(0xffff_e000, 0x2000), Err(CreateError::Wraps { base, bytes: 0x2000 }));
        assert_eq!(made(0xffff_e000, 0x1fff), Ok(()));
        let domain = domain_of(devices, 0x10_0000, 16 * PAGE_SIZE);
        let map = |run| domain.map((), [run].into_iter(), Grant::Read, TYPE);
        let none = |error| Err(DomainMapError::Iova(error));
        assert_eq!(map((frame(RAM), 0)), none(IovaError::Empty));
        let exhausted = IovaError::Exhausted { pages: 17, largest: 16, free: 16 };
        assert_eq!(map((frame(RAM), 17)), none(exhausted));
        assert!(matches!(
            map((frame(0xf_ffff), 2)),
            Err(DomainMapError::Map(MapError::DoesNotFit { frames: 2, .. }))
        ));
        let start = map((frame(RAM), 4)).expect("room").leak();
        let beyond = |pages: u32| DmaAddr::new(start.raw() + pages * PAGE_SIZE);
        let claim = |start, pages| domain.claim((), start, pages).map(drop);
        assert_eq!(claim(beyond(4), 1), Err(IovaError::Free { start: beyond(4) }));
        let outside = DmaAddr::new(0xf_f000);
        assert_eq!(claim(outside, 1), Err(IovaError::Outside { start: outside }));
        assert_eq!(claim(beyond(16), 1), Err(IovaError::Outside { start: beyond(16) }));
        for (from, pages) in [(start, 3), (start, 5), (beyond(1), 3), (beyond(3), 1)] {
            let other = IovaError::OtherRun { start: from, pages, found: start, has: 4 };
            assert_eq!(claim(from, pages), Err(other));
        }
        assert_eq!(domain.mapping_of(beyond(3)).map(PageRange::count), Some(4));
        let iova = domain.claim((), start, 4).expect("what was given");
        domain.unmap(iova, ()).flush();
        assert_eq!(claim(start, 4), Err(IovaError::Free { start }), "unmapped twice");
        assert_eq!(domain.mapping_of(start), None);
    });
}

/// Whatever runs out, nothing is taken; and what is in the way is left alone (S17).
#[test]
fn a_mapping_that_fails_leaves_nothing() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    for left in 0..3 {
        bed.changes_nothing(|bed| {
            let domain = domain_of(&devices, 0, 16 << 20);
            let rest = bed.starve(left);
            // Pages that no larger entry fits, below two sections; tables are cut from frames by four.
            let runs = [(frame(RAM), 255), (frame(RAM + 1), 255)];
            let mapped = domain.map((), runs.into_iter(), Grant::Read, TYPE);
            assert_eq!(mapped.is_ok(), left > 0, "{left}: {mapped:?}");
            if let Ok(iova) = mapped {
                domain.unmap(iova, ()).flush();
            }
            assert!(domain.is_unused());
            audit(&domain);
            bed.feed(rest);
        });
    }
    let domain = domain_of(&devices, 0, 16 << 20);
    let iova =
        domain.map((), [(frame(RAM + 1), 300)].into_iter(), Grant::Read, TYPE).expect("room");
    let slot = devices.slot(&domain, at(iova.start(), 299 * PAGE_SIZE));
    let word = bed.machine.cpu(0).read_descriptor(slot);
    domain.unmap(iova, ()).flush();
    bed.poke(slot, word);
    let blocked = domain.map((), [(frame(RAM + 1), 300)].into_iter(), Grant::Read, TYPE);
    let occupied =
        |error| matches!(error, MapError::Occupied { descriptor, .. } if descriptor == word);
    assert!(matches!(blocked, Err(DomainMapError::Map(error)) if occupied(error)), "{blocked:?}");
    assert_eq!(bed.machine.cpu(0).read_descriptor(slot), word, "somebody else's");
    let address = VirtAddr::new(299 * PAGE_SIZE);
    let physical = PhysAddr::new((RAM + 300) << 12);
    let mut found = Vec::new();
    domain.audit(&mut |violation| found.push(violation));
    assert_eq!(found, [DomainViolation::Stray { address, physical }]);
    bed.poke(slot, 0);
    audit(&domain);
}

/// The audit believes the bitmaps and nothing else.
#[test]
fn the_audit_sees_each_kind_of_damage() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0, 16 << 20);
    let (list, frames) = bed.frames(2);
    let iova = domain.map((), frames.iter().copied().map(single), Grant::Read, TYPE).expect("room");
    let page = at(iova.start(), PAGE_SIZE);
    let slot = devices.slot(&domain, page);
    let finds = |word: u32, wanted: &[DomainViolation]| {
        let before = bed.poke(slot, word);
        let mut found = Vec::new();
        domain.audit(&mut |violation| {
            assert!(violation.to_string().starts_with("device addresses: "));
            found.push(violation);
        });
        bed.poke(slot, before);
        assert_eq!(found, wanted);
    };
    let word = bed.machine.cpu(0).read_descriptor(slot);
    finds(word, &[]);
    finds(0, &[DomainViolation::Missing { address: page }]);
    finds(word & !1, &[DomainViolation::Rights { address: page }]);
    finds(word & !(1 << 11), &[DomainViolation::Rights { address: page }]);
    let free = bed.starve(1);
    let hole = bed.space.zones().allocate(0, FrameOwner::Test).expect("one is left");
    let physical = hole.first().base();
    bed.space.zones().free(hole).expect("the test's own");
    let had = FrameOwner::Free;
    finds(
        word & 0xfff | physical.raw(),
        &[DomainViolation::Owner { address: page, physical, had }],
    );
    bed.feed(free);
    audit(&domain);
    let (list, _) = domain.unmap(iova, list).flush();
    bed.feed(list);
}

/// S23: a domain that goes is seen by no device, whatever was mapped in it, and its tables go with it.
#[test]
fn a_domain_that_goes_takes_its_tables_along() {
    everywhere(|devices| {
        let (list, frames) = devices.bed.frames(1);
        let domain = domain_of(devices, 0, 0xf000_0000);
        let cpu = devices.cpu(0);
        let start = domain.map((), [single(frames[0])].into_iter(), Grant::Read, TYPE);
        let start = at(start.expect("room").leak(), 0);
        with_open(&domain, &cpu, || assert!(cpu.load(start).is_ok()));
        drop(domain);
        let other = domain_of(devices, 0, 1 << 20);
        let read = with_open(&other, &cpu, || cpu.load(start));
        assert_eq!(read, Err(Fault::Translation(start)));
        devices.bed.feed(list);
    });
}

/// S81: the processor sees a buffer no more, then the device does not, and only then are the frames anybody's.
#[test]
fn a_buffer_of_both_goes_from_the_processor_then_from_the_device_then_to_anybody_s81() {
    everywhere(|devices| {
        let (kernel, bytes) = (&devices.bed.space, 3 * PAGE_SIZE);
        let area = kernel.coherent_alloc(bytes, FrameOwner::Dma, CALLER).expect("memory");
        let (base, first) = (area.pages.start(), area.physical.pfn());
        let domain = domain_of(devices, 0, 1 << 20);
        // As the processor sees it (S97).
        let uncached = MemoryType::NormalNonCacheable;
        let iova =
            domain.map((), [(first, 3)].into_iter(), Grant::ReadWrite, uncached).expect("room");
        let seen = at(iova.start(), 2 * PAGE_SIZE);
        let cpu = devices.cpu(1);
        with_open(&domain, &cpu, || assert_eq!(cpu.store(seen, 7), Ok(())));
        assert_eq!(cpu.load(VirtAddr::new(base.raw() + 2 * PAGE_SIZE)), Ok(7));
        let wrong = area.physical.checked_add(PAGE_SIZE).expect("RAM");
        let refused =
            kernel.coherent_free_between((), base, wrong, bytes, || panic!("it is refused"));
        assert_eq!(refused, Err(RemoveError::Elsewhere { address: base, found: area.physical }));
        let freed = kernel.coherent_free_between((), base, area.physical, bytes, || {
            assert_eq!(cpu.load(base), Err(Fault::Translation(base)), "not the processor's");
            let frames = kernel.zones().table();
            assert_eq!(frames.owner_of(first), FrameOwner::Dma, "not yet anybody's");
            domain.unmap(iova, ()).flush();
            let read = with_open(&domain, &cpu, || cpu.load(seen));
            assert_eq!(read, Err(Fault::Translation(seen)), "not the device's");
            Ok(())
        });
        assert_eq!(freed, Ok(CoherentFreed { actual: 3, given: 3, missing: 0 }));
    });
}
