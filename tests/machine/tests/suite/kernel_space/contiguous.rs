//! Coherent memory from the contiguous region (S75, S101).

use super::bed::{Bed, CALLER, Furniture, LowMemory, RAM, RAM_PAGES, frame};
use kerncore::{
    addr::{PAGE_SIZE, VirtAddr},
    attributes::Attributes,
    contiguous::{Borrower, ContiguousError, RegionUse, Unmovable},
    failure::Afterwards,
    frames::{FrameOwner, MAX_BLOCK},
    kernel_space::CoherentError,
};
use machine::{Behaviour, Fault, fail_nth};
use std::num::NonZeroU32;

const PAGES: u32 = 512;

/// A kernel with a region of two sections.
fn bed(behaviour: Behaviour) -> Bed {
    let furniture = Furniture { contiguous: PAGES, ..Furniture::with(LowMemory::All) };
    let bed = Bed::furnished(behaviour, furniture, |machine| machine.cpu(0));
    bed.warm_up();
    bed
}

fn idle() -> RegionUse {
    RegionUse { pages: PAGES, held: 0, lent: 0, largest: PAGES }
}

#[test]
fn a_buffer_of_the_region_is_zero_uncached_and_has_no_linear_view_s85_s97_s101() {
    for behaviour in Behaviour::all(6) {
        let bed = bed(behaviour);
        let region = bed.space.contiguous().expect("furnished");
        for round in 0..3 {
            bed.changes_nothing(|bed| {
                let area = bed.space.contiguous_alloc(3 * PAGE_SIZE, FrameOwner::Dma, CALLER);
                let area = area.expect("memory");
                assert_eq!(area.physical.pfn(), frame(RAM + RAM_PAGES - PAGES), "the lowest run");
                let base = area.pages.start();
                let cpu = bed.machine.cpu(1);
                for offset in 0..3 {
                    let address = VirtAddr::new(base.raw() + offset * PAGE_SIZE);
                    let entry = bed.space.table().translate(address).expect("mapped");
                    assert_eq!(entry.attributes(), Ok(Attributes::WRITE_COMBINE));
                    assert_eq!(cpu.load(address), Ok(0), "round {round}");
                    let linear = bed.space.linear().pages_of(entry.physical.pfn(), 1);
                    let linear = linear.expect("low RAM").start();
                    assert_eq!(cpu.load(linear), Err(Fault::Translation(linear)));
                    cpu.store(address, 0xaa00 + offset).expect("mapped");
                    assert_eq!(bed.machine.device_read(entry.physical), 0xaa00 + offset);
                }
                assert_eq!(bed.clean().lent_pages, 3);
                assert_eq!(region.usage().held, 3);
                let freed = bed.space.coherent_free((), base, 3 * PAGE_SIZE);
                assert_eq!(freed.map(|freed| freed.actual), Ok(3));
                assert_eq!(region.usage(), idle());
            });
        }
    }
}

#[test]
fn remapping_and_the_region_do_not_meet_and_each_gets_its_own_back_s75() {
    let bed = bed(Behaviour::Forgetful);
    let region = bed.space.contiguous().expect("furnished");
    bed.changes_nothing(|bed| {
        let areas: Vec<_> = (0..20)
            .map(|round| {
                let owner = FrameOwner::Dma;
                let (area, from) = if round % 2 == 0 {
                    (bed.space.coherent_alloc(PAGE_SIZE, owner, CALLER), false)
                } else {
                    (bed.space.contiguous_alloc(PAGE_SIZE, owner, CALLER), true)
                };
                let area = area.expect("memory");
                assert_eq!(region.contains(area.physical.pfn()), from);
                area.pages.start()
            })
            .collect();
        assert_eq!(region.usage().held, 10);
        bed.clean();
        for base in areas {
            bed.space.coherent_free((), base, PAGE_SIZE).expect("a live area");
        }
        assert_eq!(region.usage(), idle());
    });
}

#[test]
fn a_buffer_may_be_all_of_the_region_and_no_more() {
    let bed = bed(Behaviour::Forgetful);
    let alloc = |pages: u32| bed.space.contiguous_alloc(pages * PAGE_SIZE, FrameOwner::Dma, CALLER);
    bed.changes_nothing(|bed| {
        let area = alloc(PAGES).expect("all of it");
        bed.clean();
        let usage = RegionUse { held: PAGES, largest: 0, ..idle() };
        let exhausted = ContiguousError::Exhausted { pages: 1, usage };
        assert_eq!(alloc(1), Err(CoherentError::Contiguous(exhausted)));
        bed.space.coherent_free((), area.pages.start(), PAGES * PAGE_SIZE).expect("a live area");
        let too_large = |pages| ContiguousError::TooLarge { pages, region: PAGES };
        for pages in [PAGES + 1, MAX_BLOCK + 1] {
            assert_eq!(alloc(pages), Err(CoherentError::Contiguous(too_large(pages))));
        }
        assert_eq!(alloc(0), Err(CoherentError::Contiguous(ContiguousError::Zero)));
    });
    let without = Bed::warm();
    let absent = without.space.contiguous_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER);
    assert_eq!(absent, Err(CoherentError::Contiguous(ContiguousError::Absent)));
}

/// S28: whichever step fails, the region has everything back.
#[test]
fn a_buffer_that_lacks_anything_leaves_nothing() {
    let bed = bed(Behaviour::Hoarding);
    let region = bed.space.contiguous().expect("furnished");
    let mut failed = 0;
    for nth in (1..).filter_map(NonZeroU32::new) {
        let done = bed.changes_nothing(|bed| {
            let (made, outcome) = fail_nth(nth, Afterwards::Nothing, || {
                bed.space.contiguous_alloc(2 * PAGE_SIZE, FrameOwner::Dma, CALLER)
            });
            if let Ok(area) = made {
                bed.space.coherent_free((), area.pages.start(), 2 * PAGE_SIZE).expect("live");
            } else {
                failed += 1;
            }
            assert_eq!(region.usage(), idle(), "{:?} failed", outcome.failed);
            bed.clean();
            outcome.failed.is_none()
        });
        if done {
            break;
        }
    }
    assert!(failed >= 4, "frames, linear map, record, addresses: {failed}");
}

/// Nobody who could move the page was told how: that is an error, and not a wait.
#[test]
fn a_lent_page_that_nobody_can_move_is_named() {
    let bed = bed(Behaviour::Forgetful);
    let region = bed.space.contiguous().expect("furnished");
    let borrower = Borrower::Movable { place: 0 };
    let lent = region.lend(borrower, FrameOwner::Pages).expect("free");
    assert_eq!(lent.first(), frame(RAM + RAM_PAGES - 1));
    bed.changes_nothing(|bed| {
        let bytes = PAGES * PAGE_SIZE;
        let refused = bed.space.contiguous_alloc(bytes, FrameOwner::Dma, CALLER);
        let (frame, why) = (lent.first(), Unmovable::Busy);
        let error = ContiguousError::Unmovable { pages: PAGES, frame, why };
        assert_eq!(refused, Err(CoherentError::Contiguous(error)));
        // What does not need it is not held up.
        let area = bed.space.contiguous_alloc(bytes / 2, FrameOwner::Dma, CALLER).expect("room");
        bed.space.coherent_free((), area.pages.start(), bytes / 2).expect("a live area");
    });
    region.take_back(lent).expect("lent");
    assert_eq!(region.usage(), idle());
}
