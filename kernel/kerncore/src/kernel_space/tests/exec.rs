//! Memory for code in whose frames' linear entries somebody else has written: none is lost but those that are not its own (S28,
//! S97, S112).

use super::oddities::overwrite;
use super::*;
use crate::area::Mapping;
use crate::frames::FrameOwner;
use crate::linear_map::LinearFault;

/// More than a record has page pointers of, in several blocks.
const PAGES: u32 = 21;

fn code(space: &Space) -> Result<AreaSummary, ExecError> {
    space.vmalloc_exec(PAGES * PAGE_SIZE, VirtAddr::new(0))
}

fn text(space: &Space) -> u32 {
    space.zones.census().of(FrameOwner::Text)
}

fn linear_of(space: &Space, pages: PageRange, index: u32) -> VirtAddr {
    let page = pages.sub_range(index, 1).expect("inside").start();
    let frame = space.table.small_page(page).expect("mapped");
    space.linear.pages_of(frame, 1).expect("low RAM").start()
}

/// All of its frames lie in several blocks, in the order of the addresses, and the audit knows them by the record.
#[test]
fn code_has_frames_of_its_own_in_their_order_s28_s85a() {
    let space = space();
    let pages = code(&space).expect("memory").pages;
    finds(&space, &[]);
    assert_eq!(text(&space), PAGES);
    let frames: Vec<Pfn> = space
        .with_area(pages.start(), |record| match &record.mapping {
            Mapping::Code { lent, .. } => lent.list().frames(space.zones.table()).collect(),
            other => panic!("{other:?}"),
        })
        .expect("live");
    let blocks = space.with_area(pages.start(), |record| match &record.mapping {
        Mapping::Code { lent, .. } => lent.list().blocks(space.zones.table()).count(),
        _ => 0,
    });
    assert!(blocks > Some(1), "{blocks:?}: one block has no teeth");
    for (index, frame) in (0..PAGES).zip(frames) {
        let page = pages.sub_range(index, 1).expect("inside").start();
        assert_eq!(space.table.small_page(page), Some(frame));
        assert_eq!(space.table.translate(linear_of(&space, pages, index)), None);
    }
    assert_eq!(space.vfree((), pages.start()), Ok(()));
    assert_eq!(text(&space), 0);
    finds(&space, &[]);
}

/// Whichever of the entries is missing, it is named, and the others are as they were.
#[test]
fn frames_that_cannot_leave_the_linear_map_come_back_s28_s112() {
    let space = space();
    let pages = code(&space).expect("memory").pages;
    let linear: Vec<VirtAddr> = (0..PAGES).map(|index| linear_of(&space, pages, index)).collect();
    assert_eq!(space.vfree((), pages.start()), Ok(()));
    let (free, counts) = (space.zones.free_pages(), space.area_counts());
    for bad in linear {
        let was = space.table.translate(bad).expect("mapped").physical;
        overwrite(&space, bad, 0);
        let refused = code(&space);
        assert!(
            matches!(refused, Err(ExecError::Linear(LinearFault::Unexpected { address, found: 0, .. })) if address == bad),
            "{bad}: {refused:?}"
        );
        assert!(
            refused.map_err(|error| error.to_string()).is_err_and(|said| said.contains("linear"))
        );
        let entry = crate::descriptor::l2::SmallPages::new(Attributes::KERNEL_DATA);
        overwrite(&space, bad, entry.word(was.pfn()));
        assert_eq!((space.zones.free_pages(), space.area_counts()), (free, counts));
        finds(&space, &[]);
    }
}

/// S23: what cannot go back into the linear map stays out of use; the addresses and the array come back.
#[test]
fn code_whose_linear_place_is_taken_keeps_its_frames_out_of_use_s23() {
    let space = space();
    let pages = code(&space).expect("memory").pages;
    let linear = linear_of(&space, pages, 13);
    let arrays = space.zones.census().of(FrameOwner::Vmalloc);
    overwrite(&space, linear, 0xdead_0000);
    let freed = space.vfree((), pages.start());
    let Err(RemoveError::Frames { address, error: FramesError::Linear(fault) }) = freed else {
        panic!("{freed:?}");
    };
    assert_eq!(address, pages.start());
    let found = 0xdead_0000;
    assert_eq!(fault, LinearFault::Unexpected { address: linear, wanted: 0, found });
    assert_eq!((text(&space), space.find(address)), (PAGES, None));
    assert_eq!(space.zones.census().of(FrameOwner::Vmalloc), arrays - 1, "the array is free");
    assert_eq!(space.area_counts().pages_taken, 0, "nothing is mapped at its addresses");
}
