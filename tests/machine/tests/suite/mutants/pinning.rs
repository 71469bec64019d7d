//! What of the contiguous region a device has for a transfer stays where it is (S101, S105): by kerncore's pins, and by drivers' ways to
//! forget one.

use super::{Goes, Verdict, board, same};
use histories::bed::{Bed, Furniture, LowMemory};
use kerncore::{
    addr::Pfn,
    contiguous::{Borrower, Contiguous, ContiguousError, Unmovable},
    frames::{FrameBlock, FrameOwner},
};
use machine::{Behaviour, HostLocks};
use std::cell::RefCell;

type Region = Contiguous<'static, HostLocks>;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// A mapping for a device pins nothing.
    MapsWithoutPin,
    /// It pins the first page of a buffer.
    PinsTheFirstPage,
    /// The end of a mapping leaves its pins.
    UnmapsWithoutUnpin,
    /// It ends those of another device, too.
    UnpinsForAll,
    /// A mapping that is refused leaves the pins that it had made.
    KeepsPinsOfRefused,
}

/// A driver's mapping of two pages from `first`, as far as the region hears of it.
fn map(mistake: Mistake, region: &Region, first: Pfn) -> Result<(), Pfn> {
    match mistake {
        Mistake::MapsWithoutPin => Ok(()),
        Mistake::PinsTheFirstPage => region.pin(first, 1),
        Mistake::KeepsPinsOfRefused => {
            let pages = (0..2).filter_map(|page| first.checked_add(page));
            pages.into_iter().try_for_each(|frame| region.pin(frame, 1))
        }
        _ => region.pin(first, 2),
    }
}

/// Its end.
fn unmap(mistake: Mistake, region: &Region, first: Pfn) {
    match mistake {
        Mistake::UnmapsWithoutUnpin => {}
        Mistake::UnpinsForAll => {
            region.unpin(first, 2);
            region.unpin(first, 2);
        }
        _ => region.unpin(first, 2),
    }
}

const PAGES: u32 = 512;

/// A region of which all is taken but two pages, which are lent.
struct Scene {
    region: &'static Region,
    first: Pfn,
    lent: RefCell<Vec<FrameBlock>>,
    // Buffers, which hold their frames.
    _held: Vec<FrameBlock>,
}

impl Scene {
    fn new() -> Result<Self, String> {
        let furniture = Furniture { contiguous: PAGES, ..Furniture::with(LowMemory::All) };
        let bed: &'static Bed =
            Box::leak(Box::new(Bed::furnished(Behaviour::Forgetful, furniture, |machine| {
                machine.cpu(0)
            })));
        let region = bed.space.contiguous().ok_or("a bed without a region")?;
        let borrower = Borrower::Movable { place: 0 };
        let lent = [0; 2].map(|_| region.lend(borrower, FrameOwner::Pages));
        let lent: Vec<FrameBlock> = lent.into_iter().flatten().collect();
        let first = lent.last().ok_or("nothing was lent")?.first();
        let mut held = Vec::new();
        for order in (1..9).rev() {
            let taken = region.take(1 << order, FrameOwner::Dma, |_, _| Err(Unmovable::Busy));
            held.push(taken.map_err(|error| format!("{error:?}"))?);
        }
        Ok(Self { region, first, lent: RefCell::new(lent), _held: held })
    }

    /// The borrower's handle of `frame`, whose contents are elsewhere now.
    fn move_out(&self, frame: Pfn) -> Result<FrameBlock, Unmovable> {
        let mut lent = self.lent.borrow_mut();
        let place = lent.iter().position(|block| block.first() == frame);
        place.map(|place| lent.swap_remove(place)).ok_or(Unmovable::Busy)
    }

    /// A buffer of one page: its frame.
    fn take(&self) -> Result<Pfn, ContiguousError> {
        let taken = self.region.take(1, FrameOwner::Dma, |_, frame| self.move_out(frame));
        taken.map(|block| block.first())
    }

    fn stays(&self, devices: u16) -> Result<Pfn, ContiguousError> {
        let (frame, why) = (self.first, Unmovable::Mapped { devices });
        Err(ContiguousError::Unmovable { pages: 1, frame, why })
    }
}

/// S101: no page of what two devices have is moved before both are done; then each is.
fn what_devices_have_stays_until_the_last_is_done(mistake: &impl Goes<Mistake>) -> Verdict {
    let (mistake, scene) = (mistake.how(), Scene::new()?);
    for device in 0..2 {
        same(&format!("device {device}"), &map(mistake, scene.region, scene.first), &Ok(()))?;
    }
    same("a buffer while two devices work", &scene.take(), &scene.stays(2))?;
    unmap(mistake, scene.region, scene.first);
    same("a buffer while one device works", &scene.take(), &scene.stays(1))?;
    unmap(mistake, scene.region, scene.first);
    same("a buffer afterwards", &scene.take(), &Ok(scene.first))?;
    same("another", &scene.take().map(Some), &Ok(scene.first.checked_add(1)))
}

/// S101: a mapping of a page that is just on its way elsewhere is refused, and the page beside it is as movable as before.
fn a_mapping_that_is_refused_leaves_no_pin(mistake: &impl Goes<Mistake>) -> Verdict {
    let (mistake, scene) = (mistake.how(), Scene::new()?);
    let Scene { region, first, .. } = scene;
    // So that the second is the one that is moved.
    same("the first page", &region.pin(first, 1), &Ok(()))?;
    let mut refused = None;
    let taken = region.take(1, FrameOwner::Dma, |_, frame| {
        refused = Some((frame, map(mistake, region, first)));
        scene.move_out(frame)
    });
    let second = taken.map_err(|error| format!("{error:?}"))?.first();
    same("a mapping meanwhile", &refused, &Some((second, Err(second))))?;
    region.unpin(first, 1);
    same("a buffer afterwards", &scene.take(), &Ok(first))
}

board! {
    what_devices_have_stays_until_the_last_is_done(Mistake::None) {
        map_for_a_device_does_not_pin: "S101", "a page is moved away while a device works on it", Mistake::MapsWithoutPin;
        map_for_a_device_pins_one_page: "S101", "the second page of a buffer is moved while a device works on it", Mistake::PinsTheFirstPage;
        unmap_does_not_unpin: "S101", "pages that no device has are never moved again", Mistake::UnmapsWithoutUnpin;
        unmap_unpins_for_all_devices: "S101", "the end of one mapping moves a page that another device has", Mistake::UnpinsForAll;
    }
    a_mapping_that_is_refused_leaves_no_pin(Mistake::None) {
        refused_map_keeps_its_pins: "S101", "pages that no device has are never moved again", Mistake::KeepsPinsOfRefused;
    }
}
