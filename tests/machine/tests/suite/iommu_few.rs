//! A few adjacent frames, shown to a device and hidden from it in one go: as the general way does it, or not at all (S105, S109).

use crate::mutants::iommu::{Devices, Of, audit, domain_of, single, with_open};
use histories::bed::{Bed, RAM, frame};
use kerncore::{
    addr::{DmaAddr, PAGE_SIZE, Pfn, PhysAddr, VirtAddr},
    attributes::MemoryType,
    coherent::Coherency,
    frames::FrameOwner,
    iommu::{Grant, Iova, IovaError},
    machine::Machine,
    page_table::Translation,
    streaming::Flow,
};
use machine::{Behaviour, Kind, Privilege};

const TYPE: MemoryType = MemoryType::NormalWriteBack;
/// The highest address of a device that reaches all.
const ANYWHERE: DmaAddr = DmaAddr::new(u32::MAX);
const HOW: (Flow, Coherency) = (Flow::Bidirectional, Coherency::Coherent);

/// By the short cut for as many pages.
fn map(domain: &Of<'_>, first: Pfn, pages: u32, how: (Flow, Coherency)) -> Option<DmaAddr> {
    match pages {
        1 => domain.map_page_at_hand((), first, how, ANYWHERE),
        16 if first.number().is_multiple_of(16) => {
            domain.map_large_page_at_hand((), first, how, ANYWHERE)
        }
        pages => domain.map_few_at_hand((), (first, pages), how, ANYWHERE),
    }
}

fn unmap(
    domain: &Of<'_>,
    start: DmaAddr,
    pages: u32,
    may_end: impl FnOnce(PhysAddr) -> bool,
) -> bool {
    match pages {
        1 => domain.unmap_page_at_hand((), start, may_end),
        16 if start.raw().is_multiple_of(16 * PAGE_SIZE) => {
            domain.unmap_large_page_at_hand((), start, may_end)
        }
        pages => domain.unmap_few_at_hand((), (start, pages), may_end),
    }
}

fn look(domain: &Of<'_>, start: DmaAddr, page: u32) -> Option<Translation> {
    domain.translate(DmaAddr::new(start.raw() + page * PAGE_SIZE))
}

/// Tables for the first two MiB, and the first word of the bitmaps that has a page, so that all below is at hand.
fn with_tables(domain: &Of<'_>) {
    for count in [512, 1] {
        let pages = (0..count).map(|index| (frame(RAM + 2 * index), 1));
        let iova = domain.map((), pages, Grant::Read, TYPE).expect("room");
        domain.unmap(iova, ()).flush();
    }
}

/// Frames that are somebody's, a block of 1 MiB: the number of the first.
fn block(bed: &Bed) -> u32 {
    let block = bed.space.zones().allocate(8, FrameOwner::Pages).expect("memory");
    block.leak().0.number()
}

/// S100: what the device would not reach all of is not at hand, and nothing of it is left; what it just reaches is.
#[test]
fn addresses_out_of_reach_are_not_at_hand_s100() {
    let bed = Bed::warm_on(Behaviour::Hoarding);
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0x10_0000, 8 << 20);
    with_tables(&domain);
    let first = frame(block(&bed));
    for pages in [1, 3, 16] {
        let by = |highest| match pages {
            1 => domain.map_page_at_hand((), first, HOW, highest),
            16 => domain.map_large_page_at_hand((), first, HOW, highest),
            pages => domain.map_few_at_hand((), (first, pages), HOW, highest),
        };
        let lowest = by(ANYWHERE).expect("at hand");
        assert!(unmap(&domain, lowest, pages, |_| true));
        assert_eq!(by(DmaAddr::new(lowest.raw() - 1)), None, "{pages} pages");
        assert!(domain.is_unused(), "{pages} pages");
        audit(&domain);
        assert_eq!(by(lowest), Some(lowest), "{pages} pages");
        assert!(unmap(&domain, lowest, pages, |_| true));
    }
}

/// S105, S109: at the same addresses, by the same entries, for as long; and who looked meanwhile has forgotten it.
#[test]
fn a_few_frames_are_seen_and_hidden_as_the_general_way_does_s109() {
    for behaviour in Behaviour::all(2) {
        let bed = Bed::warm_on(behaviour);
        let devices = Devices::new(&bed);
        let cpu = devices.cpu(1);
        let domains = [(); 2].map(|()| domain_of(&devices, 0x10_0000, 8 << 20));
        domains.iter().for_each(with_tables);
        let [short, long] = &domains;
        let base = block(&bed);
        let mut at_hand = 0;
        for flow in Flow::ALL {
            for (coherency, memory) in [
                (Coherency::Coherent, MemoryType::NormalWriteBack),
                (Coherency::NonCoherent, MemoryType::NormalNonCacheable),
            ] {
                for (first, pages) in
                    (0..=18_u32).flat_map(|pages| [0, 1, 16].map(|at| (frame(base + at), pages)))
                {
                    let is_few = pages.wrapping_sub(1) < 7;
                    let is_large = pages == 16 && first.number().is_multiple_of(16);
                    let seen = map(short, first, pages, (flow, coherency));
                    assert_eq!(seen.is_some(), is_few || is_large, "{pages} from {first:?}");
                    audit(short);
                    let Some(seen) = seen else {
                        assert!(short.is_unused(), "{pages} from {first:?}");
                        continue;
                    };
                    at_hand += 1;
                    let run = [(first, pages)].into_iter();
                    let other = long.map((), run, Grant::for_flow(flow), memory).expect("room");
                    assert_eq!(seen, other.start());
                    let kind = if flow.device_writes() { Kind::Write } else { Kind::Read };
                    for page in 0..pages {
                        assert_eq!(look(short, seen, page), look(long, seen, page), "{page}");
                        let at = VirtAddr::new(seen.raw() + page * PAGE_SIZE);
                        let found =
                            with_open(short, &cpu, || cpu.access(at, kind, Privilege::User));
                        let there = PhysAddr::new(first.base().raw() + page * PAGE_SIZE);
                        assert_eq!(found, Ok(there), "when it returns, the device sees it");
                    }
                    assert_eq!(short.find(seen, pages), Ok(()));
                    let mut told = None;
                    let is_hidden = unmap(short, seen, pages, |leads| {
                        told = Some(leads);
                        true
                    });
                    assert!(is_hidden, "{pages} from {first:?}");
                    assert_eq!(told, Some(first.base()), "where the first lies");
                    for page in 0..pages {
                        let at = VirtAddr::new(seen.raw() + page * PAGE_SIZE);
                        let found =
                            with_open(short, &cpu, || cpu.access(at, kind, Privilege::User));
                        assert!(found.is_err(), "when it returns, the device sees nothing");
                    }
                    assert!(short.is_unused());
                    audit(short);
                    long.unmap(other, ()).flush();
                }
            }
        }
        assert_eq!(at_hand, 3 * 2 * (7 * 3 + 2), "how many were at hand");
    }
}

/// S105: whoever may not end it leaves it as it was, and so does who names something else.
#[test]
fn what_is_no_such_mapping_or_may_not_end_stays_as_it_was_s105() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    // It begins inside the bitmaps' first word.
    let domain = domain_of(&devices, 0x10_1000, 8 << 20);
    with_tables(&domain);
    let base = block(&bed);
    let runs: [(u32, u32); 5] =
        [(base + 1, 1), (base + 3, 3), (base + 0x40, 16), (base + 0x81, 20), (base + 9, 1)];
    let mapped = runs.map(|(first, pages)| {
        let run = [(frame(first), pages)].into_iter();
        let iova = domain.map((), run, Grant::ReadWrite, TYPE).expect("room");
        (iova.leak(), pages)
    });
    let scattered = [0xa0, 0xa1, 0xa3].map(|at| base + at).map(|number| single(frame(number)));
    let scattered =
        domain.map((), scattered.into_iter(), Grant::ReadWrite, TYPE).expect("room").leak();
    let used = domain.usage();
    let unchanged = |what: &str| {
        assert_eq!(domain.usage(), used, "{what}");
        for ((start, pages), (first, _)) in mapped.into_iter().zip(runs) {
            assert_eq!(domain.find(start, pages), Ok(()), "{what}");
            for page in 0..pages {
                let there = look(&domain, start, page).map(|found| found.physical.pfn());
                assert_eq!(there, Some(frame(first + page)), "{what}");
            }
        }
        audit(&domain);
    };
    let never = |_: PhysAddr| -> bool { panic!("asked of no such mapping") };
    for (start, pages) in mapped {
        for wrong in (0..=20).filter(|&wrong| wrong != pages) {
            assert!(!unmap(&domain, start, wrong, never), "{wrong} of {pages}");
        }
        for beside in [PAGE_SIZE, PAGE_SIZE.wrapping_neg()] {
            let beside = DmaAddr::new(start.raw().wrapping_add(beside));
            let is_other = mapped.iter().all(|&(start, _)| start != beside);
            assert!(!is_other || !unmap(&domain, beside, pages, never), "beside");
        }
        if pages < 20 {
            assert!(!unmap(&domain, start, pages, |_| false), "it may not end");
        }
        unchanged("wrong calls");
    }
    assert!(!unmap(&domain, scattered, 3, never), "no adjacent frames");
    for start in [0, 0x10_0000, 0x90_1000, 0xffff_f000, 0xffff_ffff, 0x8000_0000] {
        for pages in [1, 2, 16] {
            assert!(!unmap(&domain, DmaAddr::new(start), pages, never), "{start:#x}");
        }
    }
    unchanged("all of them");
    // Somebody else's entry, or none, where the tables should have this one's.
    for (start, pages) in mapped.into_iter().filter(|&(_, pages)| pages <= 16) {
        let slot = devices.slot(&domain, VirtAddr::new(start.raw()));
        let cpu = devices.cpu(0);
        let right = cpu.read_descriptor(slot);
        for wrong in [0, right ^ 3, right ^ 0x1_0000] {
            cpu.write_descriptors(slot, [wrong].into_iter());
            // Of one page any small one will do: whose it is `may_end` says.
            let may_end = |leads: PhysAddr| pages == 1 && leads.raw() == right & !0xfff;
            assert!(!unmap(&domain, start, pages, may_end), "{wrong:#x} of {pages}");
            cpu.write_descriptors(slot, [right].into_iter());
        }
    }
    unchanged("after other entries");
    for (start, pages) in mapped {
        let is_at_hand = pages <= 16;
        assert_eq!(unmap(&domain, start, pages, |_| true), is_at_hand, "{pages}");
        if !is_at_hand {
            domain.unmap(domain.claim((), start, pages).expect("it stands"), ()).flush();
        }
    }
    domain.unmap(domain.claim((), scattered, 3).expect("it stands"), ()).flush();
    assert!(domain.is_unused());
    audit(&domain);
}

/// S105: no table, a slot in use, and no room: nothing is taken.
#[test]
fn what_is_not_at_hand_takes_nothing_s105() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0x10_0000, 1 << 20);
    let base = block(&bed);
    for pages in [1, 2, 7, 16] {
        assert_eq!(map(&domain, frame(base + 16), pages, HOW), None, "there is no table");
        assert!(domain.is_unused());
    }
    let first = domain.map((), [single(frame(base))].into_iter(), Grant::Read, TYPE).expect("room");
    let start = first.start();
    domain.unmap(first, ()).flush();
    // An entry that nobody has taken addresses for.
    let cpu = devices.cpu(0);
    let last = DmaAddr::new(start.raw() + 6 * PAGE_SIZE);
    for (at, refused) in [(start, [1, 2, 7, 16].as_slice()), (last, &[7, 16])] {
        let slot = devices.slot(&domain, VirtAddr::new(at.raw()));
        cpu.write_descriptors(slot, [0x6020_0c7f].into_iter());
        for &pages in refused {
            assert_eq!(map(&domain, frame(base + 16), pages, HOW), None, "{pages}: in the way");
            assert!(domain.is_unused());
        }
        cpu.write_descriptors(slot, [0].into_iter());
    }
    // All of it taken, page by page, and given back: the last of the window was at hand, too.
    let mut all: Vec<DmaAddr> = Vec::new();
    for page in 0..256 {
        let seen = map(&domain, frame(base + page), 1, HOW).or_else(|| {
            // A full word is stepped over by the general way alone.
            let run = [single(frame(base + page))].into_iter();
            domain.map((), run, Grant::ReadWrite, TYPE).ok().map(Iova::leak)
        });
        all.push(seen.expect("room"));
    }
    assert_eq!(domain.usage().taken, 256);
    for pages in [1, 2, 16] {
        assert_eq!(map(&domain, frame(base), pages, HOW), None, "nothing is left");
    }
    let none = IovaError::Exhausted { pages: 1, largest: 0, free: 0 };
    assert_eq!(domain.has_room(1), Err(none));
    audit(&domain);
    for (page, seen) in (0..).zip(all) {
        assert!(unmap(&domain, seen, 1, |leads| leads == frame(base + page).base()));
        assert!(!unmap(&domain, seen, 1, |_| true), "only once");
    }
    assert!(domain.is_unused());
    audit(&domain);
}
