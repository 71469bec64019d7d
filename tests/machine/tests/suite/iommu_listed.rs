//! Pages of a list, shown to a device and hidden from it by a loop of their own: as the general way does it, or not at all (S105, S109).

use std::{cell::Cell, iter};

use crate::mutants::iommu::{Devices, Of, audit, domain_of, single, with_open};
use histories::bed::{Bed, RAM, frame};
use kerncore::{
    addr::{DmaAddr, PAGE_SIZE, Pfn, VirtAddr},
    attributes::MemoryType,
    frames::{FrameBlock, FrameOwner},
    iommu::{Grant, Iova},
    machine::Machine,
    page_table::Translation,
    streaming::Flow,
};
use machine::{Behaviour, Kind, Privilege, SoftCpu};

const TYPE: MemoryType = MemoryType::NormalWriteBack;
const FLOW: Flow = Flow::Bidirectional;

/// Where the records of `frames` begin.
pub(crate) fn records_of(bed: &Bed, frames: &[Pfn]) -> Vec<usize> {
    bed.records(frames).into_iter().map(<*const _>::addr).collect()
}

fn count_of<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).expect("a few")
}

fn map(domain: &Of<'_>, flow: Flow, records: &[usize]) -> Option<DmaAddr> {
    let mut all = records.iter().copied();
    let seen = domain.map_list_at_hand((), count_of(records), flow, &mut all)?;
    assert_eq!(all.next(), None, "each is asked for once");
    Some(seen)
}

fn unmap(domain: &Of<'_>, start: DmaAddr, flow: Flow, records: &[usize]) -> bool {
    let mut all = records.iter().copied();
    domain.unmap_list_at_hand((), (start, count_of(records)), flow, &mut all, |_| true)
}

fn look(domain: &Of<'_>, start: DmaAddr, page: u32) -> Option<Translation> {
    domain.translate(DmaAddr::new(start.raw() + page * PAGE_SIZE))
}

/// What its device sees there.
fn sees(domain: &Of<'_>, cpu: &SoftCpu<'static>, (start, page): (DmaAddr, u32)) -> Option<Pfn> {
    let at = VirtAddr::new(start.raw() + page * PAGE_SIZE);
    let found = with_open(domain, cpu, || cpu.access(at, Kind::Read, Privilege::User));
    found.ok().map(kerncore::addr::PhysAddr::pfn)
}

fn end(domain: &Of<'_>, iova: Iova) {
    domain.unmap(iova, ()).flush();
}

/// Tables for the whole window.
pub(crate) fn with_tables(domain: &Of<'_>) {
    let section = || {
        let pages = (0..256).map(|index| single(frame(RAM + 2 * index)));
        domain.map((), pages, Grant::Read, TYPE).ok()
    };
    let all: Vec<_> = iter::from_fn(section).collect();
    for iova in all {
        end(domain, iova);
    }
}

/// Frames by themselves and in blocks, of several owners, in no order.
fn mixed(bed: &Bed) -> Vec<Pfn> {
    let mut frames = Vec::new();
    for (order, owner, blocks) in [
        (0, FrameOwner::Pages, 150),
        (0, FrameOwner::User, 40),
        (2, FrameOwner::Pages, 40),
        (5, FrameOwner::Heap, 8),
        (1, FrameOwner::Test, 20),
    ] {
        for _ in 0..blocks {
            let block = bed.space.zones().allocate(order, owner).expect("memory").leak().0;
            frames.extend((0..1 << order).filter_map(|index| block.checked_add(index)));
        }
    }
    let count = frames.len();
    // In stretches of the same owner, and then by leaps.
    let leaps = (0..count).map(|index| frames[(index * 127 + 5) % count]).collect::<Vec<_>>();
    frames.into_iter().zip(leaps).flat_map(|(first, second)| [first, second]).collect()
}

/// S105, S109: at the same addresses, by the same entries, for as long; and who looked meanwhile has forgotten it.
#[test]
fn pages_of_a_list_are_seen_and_hidden_as_the_general_way_does_s109() {
    for behaviour in Behaviour::all(2) {
        let bed = Bed::warm_on(behaviour);
        let devices = Devices::new(&bed);
        let cpu = devices.cpu(1);
        let domains = [(); 2].map(|()| domain_of(&devices, 0x10_0000, 8 << 20));
        domains.iter().for_each(with_tables);
        let [short, long] = &domains;
        let all = mixed(&bed);
        // So that a list begins within a table, too.
        let beside = [0, 37].map(|pages| {
            let own = |domain: &Of<'_>| {
                let run = all[..pages].iter().copied().map(single);
                (pages != 0).then(|| domain.map((), run, Grant::Read, TYPE).expect("room"))
            };
            [own(short), own(long)]
        });
        for (count, flow) in [1, 2, 7, 8, 9, 16, 31, 32, 33, 255, 256, 257, 600]
            .into_iter()
            .flat_map(|count| Flow::ALL.map(|flow| (count, flow)))
        {
            let frames = &all[count % 7..][..count];
            let (records, pages) = (records_of(&bed, frames), count_of(frames));
            let seen = map(short, flow, &records).expect("at hand");
            audit(short);
            let each = frames.iter().copied().map(Some);
            let other = long.map_pages((), each, pages, Grant::for_flow(flow), TYPE);
            let other = other.expect("room");
            assert_eq!(seen, other.start());
            for (page, &frame) in (0..).zip(frames) {
                assert_eq!(look(short, seen, page), look(long, seen, page), "{page} of {count}");
                assert_eq!(sees(short, &cpu, (seen, page)), Some(frame), "when it returns");
            }
            assert_eq!(short.find(seen, pages), Ok(()));
            assert!(unmap(short, seen, flow, &records), "{count}");
            for page in 0..pages {
                assert_eq!(sees(short, &cpu, (seen, page)), None, "when it returns");
            }
            audit(short);
            long.unmap(other, ()).flush();
            assert_eq!(short.usage(), long.usage());
        }
        for (domain, iova) in beside.into_iter().flat_map(|both| domains.iter().zip(both)) {
            if let Some(iova) = iova {
                end(domain, iova);
            }
        }
        assert!(domains.iter().all(Of::is_unused));
    }
}

/// S105: whatever is no page that may be lent, wherever it stands in a list, and whatever is not at hand: nothing is taken.
#[test]
fn a_list_that_is_not_all_such_pages_takes_nothing_s105() {
    let bed = Bed::warm_on(Behaviour::Hoarding);
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0x10_0000, 4 << 20);
    let all = mixed(&bed);
    let good = records_of(&bed, &all[..300]);
    assert_eq!(map(&domain, FLOW, &good), None, "there is no table");
    assert!(domain.is_unused());
    with_tables(&domain);
    let free = bed.space.zones().allocate(0, FrameOwner::Pages).expect("memory");
    let hole = free.first();
    bed.space.zones().free(free).expect("the test's own");
    let named = [FrameOwner::PageTable, FrameOwner::Dma, FrameOwner::Slab]
        .map(|owner| bed.space.zones().allocate(1, owner).expect("memory").leak().0);
    let behind = named.map(|head| head.checked_add(1).expect("a block of two"));
    let refused = [&[hole][..], &named, &behind].concat();
    let mut wrong = records_of(&bed, &refused);
    wrong.extend([0, good[0] + 1, good[0] + 8, good[0] ^ 1 << 40, usize::MAX]);
    for (index, record) in [0, 1, 2, 7, 8, 15, 255, 256, 299]
        .into_iter()
        .flat_map(|index| wrong.iter().map(move |&record| (index, record)))
    {
        let mut list = good.clone();
        list[index] = record;
        assert_eq!(map(&domain, FLOW, &list), None, "{record:#x} at {index}");
        assert!(domain.is_unused(), "{record:#x} at {index}");
        audit(&domain);
    }
    // Fewer than was said, none, and more than there are addresses for.
    for (count, pages) in [(0, 1), (1, 2), (255, 256), (256, 300), (300, 0), (300, 1025)] {
        let mut some = good[..count].iter().copied();
        assert_eq!(domain.map_list_at_hand((), pages, FLOW, &mut some), None, "{count}");
        assert!(domain.is_unused(), "{count}");
        audit(&domain);
    }
    // An entry that nobody has taken addresses for.
    let start = map(&domain, FLOW, &good).expect("at hand");
    assert!(unmap(&domain, start, FLOW, &good));
    for page in [0, 5, 31, 255, 256, 299] {
        let at = VirtAddr::new(start.raw() + page * PAGE_SIZE);
        let (slot, word) = (devices.slot(&domain, at), 0x6020_0c7f);
        devices.cpu(0).write_descriptors(slot, [word].into_iter());
        assert_eq!(map(&domain, FLOW, &good), None, "{page}: in the way");
        assert!(domain.is_unused());
        assert_eq!(devices.cpu(0).read_descriptor(slot), word, "it is left alone");
        devices.cpu(0).write_descriptors(slot, [0].into_iter());
        audit(&domain);
    }
}

/// S23, S105: who looked while the first pages of a list were mapped, of which a later one was refused, has forgotten them.
#[test]
fn pages_of_a_list_that_was_refused_are_forgotten_s105() {
    let looked = Cell::new(0);
    for behaviour in Behaviour::all(8) {
        let bed = Bed::warm_on(behaviour);
        let devices = Devices::new(&bed);
        let domain = domain_of(&devices, 0x10_0000, 4 << 20);
        with_tables(&domain);
        let cpu = devices.cpu(0);
        let mut list = records_of(&bed, &mixed(&bed)[..300]);
        let start = map(&domain, FLOW, &list).expect("at hand");
        assert!(unmap(&domain, start, FLOW, &list));
        list[270] = 0;
        let third = VirtAddr::new(start.raw() + 3 * PAGE_SIZE);
        let mut looking = list.iter().copied().inspect(|_| {
            let found = cpu.access(third, Kind::Read, Privilege::User);
            looked.set(looked.get() + u32::from(found.is_ok()));
        });
        let refused =
            with_open(&domain, &cpu, || domain.map_list_at_hand((), 300, FLOW, &mut looking));
        assert_eq!(refused, None);
        assert_eq!(sees(&domain, &cpu, (start, 3)), None);
        assert!(domain.is_unused());
    }
    assert!(looked.get() > 0, "they were there for a while");
}

/// S105: a list that is not the one that was mapped, that may not end, or whose memory is nobody's, stays as it was.
#[test]
fn a_list_that_is_not_what_was_mapped_stays_as_it_was_s105() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0x10_0000, 4 << 20);
    with_tables(&domain);
    let all = mixed(&bed);
    let (frames, others) = all.split_at(300);
    let others = records_of(&bed, &others[..20]);
    let before = map(&domain, FLOW, &others).expect("at hand");
    let records = records_of(&bed, frames);
    let start = map(&domain, FLOW, &records).expect("at hand");
    let used = domain.usage();
    let unchanged = |what: &str| {
        assert_eq!(domain.usage(), used, "{what}");
        for (page, &frame) in (0..).zip(frames) {
            let there = look(&domain, start, page).map(|found| found.physical.pfn());
            assert_eq!(there, Some(frame), "{what}");
        }
        audit(&domain);
    };
    let wrong_end = |start: DmaAddr, pages: u32, records: &[usize]| {
        let mut records = records.iter().copied();
        domain.unmap_list_at_hand((), (start, pages), FLOW, &mut records, |_| {
            panic!("asked of no such list")
        })
    };
    for index in [0, 1, 15, 255, 256, 299] {
        let stranger = others.iter().find(|record| !records.contains(record));
        for wrong in [0, records[index] + 1, *stranger.expect("one"), usize::MAX] {
            let mut changed = records.clone();
            changed[index] = wrong;
            assert!(!wrong_end(start, 300, &changed), "{wrong:#x} at {index}");
        }
        assert!(!wrong_end(start, 300, &records[..index]), "the first {index}");
        let mut turned = records.clone();
        turned.swap(index, (index + 1) % 300);
        assert!(!wrong_end(start, 300, &turned), "another order at {index}");
    }
    unchanged("other pages");
    for pages in [0, 1, 299, 301, 512, u32::MAX] {
        assert!(!wrong_end(start, pages, &records), "{pages}");
    }
    for at in [before.raw(), start.raw() + PAGE_SIZE, start.raw() - PAGE_SIZE, 0, u32::MAX] {
        assert!(!wrong_end(DmaAddr::new(at), 300, &records), "{at:#x}");
    }
    unchanged("other addresses");
    // What the device may do there is not what such a transfer takes: the general way says what it makes of that.
    assert!(!unmap(&domain, start, Flow::ToDevice, &records));
    let mut some = records.iter().copied();
    let may_not = domain.unmap_list_at_hand((), (start, 300), FLOW, &mut some, |_| false);
    assert!(!may_not, "it may not end");
    unchanged("wrong calls");
    let cpu = devices.cpu(0);
    for page in [0, 17, 255, 256, 299] {
        let slot = devices.slot(&domain, VirtAddr::new(start.raw() + page * PAGE_SIZE));
        let right = cpu.read_descriptor(slot);
        for wrong in [0, right ^ 3, right ^ 0x1000, right & !0xfff] {
            cpu.write_descriptors(slot, [wrong].into_iter());
            assert!(!wrong_end(start, 300, &records), "{wrong:#x} at {page}");
            cpu.write_descriptors(slot, [right].into_iter());
        }
    }
    unchanged("other entries");
    assert!(unmap(&domain, start, FLOW, &records));
    assert!(!unmap(&domain, start, FLOW, &records), "only once");
    assert!(unmap(&domain, before, FLOW, &others));
    assert!(domain.is_unused());
}

/// S105: the device goes on seeing what was freed meanwhile, until the general way has said so and ended it.
#[test]
fn a_list_of_pages_that_were_freed_is_left_to_the_general_way_s105() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0x10_0000, 4 << 20);
    with_tables(&domain);
    let page = |_| bed.space.zones().allocate(0, FrameOwner::Pages).expect("memory");
    let blocks: Vec<_> = (0..20).map(page).collect();
    let frames: Vec<Pfn> = blocks.iter().map(FrameBlock::first).collect();
    let records = records_of(&bed, &frames);
    let start = map(&domain, FLOW, &records).expect("at hand");
    for (page, block) in (0..).zip(blocks) {
        let frame = block.first();
        bed.space.zones().free(block).expect("the test's own");
        assert!(!unmap(&domain, start, FLOW, &records), "{page} is free");
        assert_eq!(look(&domain, start, page).map(|found| found.physical.pfn()), Some(frame));
    }
    end(&domain, domain.claim((), start, 20).expect("it stands"));
    assert!(domain.is_unused());
}
