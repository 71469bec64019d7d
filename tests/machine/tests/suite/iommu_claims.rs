//! Two who end the same mapping at once: one of them does, and the other finds that it is being ended (S22, S81, S109).

use crate::{
    iommu_listed::{records_of, with_tables},
    mutants::iommu::{Devices, Of, audit, domain_of},
};
use histories::bed::{Bed, RAM, frame};
use kerncore::{
    addr::{DmaAddr, PAGE_SIZE, Pfn, PhysAddr},
    attributes::MemoryType,
    coherent::Coherency,
    descriptor::l1,
    frames::{FrameBlock, FrameOwner},
    iommu::{Grant, IovaError},
    streaming::Flow,
};

/// From so many pages on a run has no short way of its own, but a large page.
const FEW: u32 = 8;
const FLOW: Flow = Flow::Bidirectional;

fn map(domain: &Of<'_>, (first, pages): (Pfn, u32)) -> DmaAddr {
    let run = [(first, pages)].into_iter();
    domain.map((), run, Grant::ReadWrite, MemoryType::NormalWriteBack).expect("room").leak()
}

/// Ends the mapping by the way that is the shortest for so many pages.
fn end_soon(domain: &Of<'_>, start: DmaAddr, pages: u32) -> bool {
    match pages {
        1 => domain.unmap_page_at_hand((), start, |_| true),
        16 => domain.unmap_large_page_at_hand((), start, |_| true),
        _ => domain.unmap_few_at_hand((), (start, pages), |_| true),
    }
}

fn end_listed(domain: &Of<'_>, start: DmaAddr, records: &[usize]) -> bool {
    let pages = u32::try_from(records.len()).expect("a few");
    domain.unmap_list_at_hand((), (start, pages), FLOW, &mut records.iter().copied(), |_| true)
}

/// S81: from the claim to the flush nobody else ends the mapping, by whatever way; its neighbours end by theirs, and its addresses are
/// another's after the flush alone.
#[test]
fn a_mapping_that_somebody_ends_is_ended_by_nobody_else_s81() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0x10_0000, 1 << 20);
    with_tables(&domain);
    let memory = bed.space.zones().allocate(5, FrameOwner::Pages).expect("memory");
    let frames: Vec<_> = (0..32).filter_map(|page| memory.first().checked_add(page)).collect();
    for pages in [1, 2, FEW - 1, 16, 20] {
        let block = (memory.first(), pages);
        let records = records_of(&bed, &frames[..pages as usize]);
        let make = || match pages {
            17.. => {
                let mut all = records.iter().copied();
                domain.map_list_at_hand((), pages, FLOW, &mut all).expect("at hand")
            }
            _ => map(&domain, block),
        };
        let [before, start, behind] = [(); 3].map(|()| make());
        let refused = |when: &str| {
            let twice = domain.claim((), start, pages).map(|_| "claimed by both");
            assert_eq!(twice, Err(IovaError::Claimed { start }), "{pages} pages, {when}");
            assert!(!end_soon(&domain, start, pages), "{pages} pages, {when}");
            assert!(!end_listed(&domain, start, &records), "{pages} pages, {when}");
            assert_eq!(domain.find(start, pages), Ok(()), "{pages} pages, {when}");
        };
        let iova = domain.claim((), start, pages).expect("it stands");
        refused("claimed");
        let first = domain.translate(start).map(|found| found.physical);
        assert_eq!(first, Some(memory.first().base()), "who is refused has changed nothing");
        for neighbour in [before, behind] {
            let is_short = pages < FEW || pages == 16 && neighbour.raw().is_multiple_of(16 << 12);
            assert_eq!(end_soon(&domain, neighbour, pages), is_short, "{pages} pages");
            if !is_short {
                assert!(end_listed(&domain, neighbour, &records), "{pages} pages");
            }
        }
        let unmapped = domain.unmap(iova, ());
        refused("unmapped");
        unmapped.flush();
        assert_eq!(domain.find(start, pages), Err(IovaError::Free { start }));
        assert!(domain.is_unused());
        audit(&domain);
        // Whose the addresses are next knows nothing of it.
        let again = [(); 3].map(|()| make());
        assert_eq!(again, [before, start, behind]);
        for start in again {
            if !end_soon(&domain, start, pages) {
                domain.unmap(domain.claim((), start, pages).expect("it stands"), ()).flush();
            }
        }
        assert!(domain.is_unused());
    }
    bed.space.zones().free(memory).expect("the test's own");
}

/// S105: who ends a list is asked with no lock held whether he may: meanwhile it is his, and if he may not it is anybody's again.
#[test]
fn a_list_that_somebody_ends_is_ended_by_nobody_else_s105() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0x10_0000, 1 << 20);
    with_tables(&domain);
    let page = |_| bed.space.zones().allocate(0, FrameOwner::Pages).expect("memory");
    let blocks: Vec<_> = (0..20).map(page).collect();
    let frames: Vec<_> = blocks.iter().map(FrameBlock::first).collect();
    let records = records_of(&bed, &frames);
    let start = domain.map_list_at_hand((), 20, FLOW, &mut records.iter().copied());
    let start = start.expect("at hand");
    for (may_end, is_its) in [(false, true), (true, true), (true, false)] {
        let mut all = records.iter().copied();
        let ended = domain.unmap_list_at_hand((), (start, 20), FLOW, &mut all, |_| {
            let twice = domain.claim((), start, 20).map(|_| "claimed by both");
            assert_eq!(twice, Err(IovaError::Claimed { start }));
            assert!(!end_listed(&domain, start, &records), "by both");
            may_end
        });
        assert_eq!(ended, may_end && is_its);
        // Who names other pages has claimed nothing that he keeps.
        assert!(!end_listed(&domain, start, &records[1..]));
        let mut others = records.clone();
        others.swap(3, 4);
        assert!(!end_listed(&domain, start, &others));
    }
    assert!(domain.is_unused());
    for block in blocks {
        bed.space.zones().free(block).expect("the test's own");
    }
}

/// S22: what stays out of use because of a foreign entry is claimed again, when that is gone.
#[test]
fn what_stays_out_of_use_is_claimed_again_s22() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0, 2 << 20);
    let words = (FLOW, Coherency::Coherent);
    let start = domain.map_page_at_hand((), frame(RAM), words, DmaAddr::new(u32::MAX));
    let start = start.unwrap_or_else(|| map(&domain, (frame(RAM), 1)));
    let slot = l1::index(kerncore::addr::VirtAddr::new(start.raw())) * 4;
    let slot = PhysAddr::new(domain.root().raw() + slot);
    // A section of which one page is to go.
    let table = bed.poke(slot, 0x6011_141e);
    for _ in 0..2 {
        let iova = domain.claim((), start, 1).expect("nobody else is ending it");
        let ((), removal) = domain.unmap(iova, ()).flush();
        assert_eq!(removal.left_alone, 1);
    }
    bed.poke(slot, table);
    domain.unmap(domain.claim((), start, 1).expect("it is taken still"), ()).flush();
    assert_eq!(domain.find(start, 1), Err(IovaError::Free { start }));
    let next = map(&domain, (frame(RAM), 1));
    assert_eq!((next, end_soon(&domain, next, 1)), (start, true), "{PAGE_SIZE} bytes anew");
    audit(&domain);
}
