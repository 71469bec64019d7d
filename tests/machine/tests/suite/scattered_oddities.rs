//! What stands in the way when a buffer of scattered frames goes, on SoftMachine: an entry that somebody else has put into the device's
//! tables, and somebody who is just reading the buffer (S14a, S22, S81).

use crate::mutants::{
    exec::linear_of,
    iommu::{Devices, audit, domain_of},
};
use crate::scattered::{BOTH, free, make, try_free};
use histories::bed::{Bed, CALLER, page};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    descriptor::l1,
    frames::FrameOwner,
    kernel_space::{Access, FramesError, RemoveError, Span},
};
use machine::{Behaviour, Fault};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::{
    thread,
    time::{Duration, Instant},
};

/// S22, S81: what a foreign entry still shows the device is nobody else's. Neither the frames nor the device's addresses are given out
/// again, and no linear address leads there.
#[test]
fn frames_that_a_foreign_entry_still_shows_the_device_stay_out_of_use_s22_s81() {
    for (count, coherency) in [1, 3].into_iter().flat_map(|count| BOTH.map(|how| (count, how))) {
        let bed = Bed::warm();
        let devices = Devices::new(&bed);
        let domain = domain_of(&devices, 0, 2 << 20);
        // Of one page, all is at hand.
        let warm = make(&bed, &domain, count, coherency);
        free(&bed, &domain, warm, count);
        let buffer @ (base, start) = make(&bed, &domain, count, coherency);
        let pages = (0..count).map(|index| page(base.page_number() + index));
        let own: Vec<_> = pages.map(|page| (bed.frame_at(page), linear_of(&bed, page))).collect();
        // A section, of which a few pages are to go.
        let slot = domain.root().raw() + l1::index(VirtAddr::new(start.raw())) * 4;
        let table = bed.poke(PhysAddr::new(slot), 0x6011_141e);
        let before = bed.space.zones().free_pages();
        let freed = try_free(&bed, &domain, buffer);
        let error = FramesError::StillMapped;
        assert_eq!(freed, Err(RemoveError::Frames { address: base, error }));
        assert_eq!(bed.space.zones().free_pages(), before, "{coherency:?}");
        assert_eq!(domain.find(start, count), Ok(()), "nobody else has the addresses");
        for (frame, linear) in own {
            assert_eq!(bed.space.zones().table().owner_of(frame), FrameOwner::Dma);
            let found = bed.machine.cpu(0).load(linear);
            assert_eq!(found, Err(Fault::Translation(linear)), "{coherency:?}");
        }
        // To the processor it is gone.
        let again = try_free(&bed, &domain, buffer);
        assert_eq!(again, Err(RemoveError::Unknown { address: base }));
        assert_eq!(bed.machine.cpu(0).load(base), Err(Fault::Translation(base)));
        bed.poke(PhysAddr::new(slot), table);
        let iova = domain.claim((), start, count).expect("it is taken still");
        domain.unmap(iova, ()).flush();
        audit(&domain);
        assert!(domain.is_unused());
    }
}

/// S81: the same of adjacent frames, of which whoever hides them from the device says so.
#[test]
fn adjacent_frames_that_a_device_still_sees_stay_out_of_use_s81() {
    let bed = Bed::warm();
    let area = bed.space.coherent_alloc(PAGE_SIZE * 2, FrameOwner::Dma, CALLER).expect("memory");
    let (base, linear) = (area.pages.start(), linear_of(&bed, area.pages.start()));
    let (before, error) = (bed.space.zones().free_pages(), FramesError::StillMapped);
    let between = || Err(error);
    let freed = bed.space.coherent_free_between((), base, area.physical, 2 * PAGE_SIZE, between);
    assert_eq!(freed, Err(RemoveError::Frames { address: base, error }));
    assert_eq!(bed.space.find(base), None, "to the processor it is gone");
    assert_eq!(bed.space.zones().free_pages(), before);
    assert_eq!(bed.space.zones().table().owner_of(area.physical.pfn()), FrameOwner::Dma);
    assert_eq!(bed.machine.cpu(0).load(linear), Err(Fault::Translation(linear)));
}

/// S14a, S81: whoever frees a buffer that is being read waits; until then it is not found, and to the processor and to the device all of it
/// is there.
#[test]
fn a_free_waits_until_the_buffer_is_read_s14a() {
    let bed = Bed::warm_on(Behaviour::Hoarding);
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0, 1 << 20);
    for coherency in BOTH {
        let buffer @ (base, start) = make(&bed, &domain, 2, coherency);
        let last = VirtAddr::new(base.raw() + PAGE_SIZE);
        bed.machine.cpu(0).store(last, 0xfeed).expect("mapped");
        let (freed, started) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            let mut words = Vec::new();
            let done = bed.space.for_each_span(base, 2 * PAGE_SIZE, Access::Read, |span| {
                let Span::Memory { address, .. } = span else { return };
                if !started.swap(true, SeqCst) {
                    scope.spawn(|| {
                        free(&bed, &domain, buffer, 2);
                        freed.store(true, SeqCst);
                    });
                    while bed.space.find(base).is_some() {
                        thread::yield_now();
                    }
                }
                // As long as who does not wait needs, and longer.
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_millis(20) {
                    assert!(!freed.load(SeqCst), "freed while it was read");
                    thread::yield_now();
                }
                assert!(domain.translate(start).is_some(), "the device sees it still");
                words.push(bed.machine.cpu(0).load(address).expect("mapped"));
            });
            assert_eq!((done, words), (2 * PAGE_SIZE, vec![0, 0xfeed]));
        });
        assert!(freed.into_inner());
        assert!(domain.is_unused());
    }
}
