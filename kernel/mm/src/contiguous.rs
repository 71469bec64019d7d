//! The contiguous region of this kernel (`cma=`, S101).

use arch::lock::IrqLocks;
use kerncore::addr::Pfn;
use kerncore::contiguous::{Borrower, Contiguous, Place, Places, Region, Unmovable, Word};
use kerncore::frames::FrameBlock;
use spin::Once;

use crate::bring_up::{BringUpError, make_array};
use crate::frame_plan::Frames;
use crate::{Kernel, user};

static CONTIGUOUS: Once<Contiguous<'static, IrqLocks>> = Once::new();

/// Makes the books of what was set aside, if anything was.
pub(crate) fn set_up(kernel: &mut Kernel, frames: &Frames) -> Result<(), BringUpError> {
    let Some((first, pages)) = frames.contiguous() else { return Ok(()) };
    let zones = kernel.zones();
    let words = make_array(zones, Region::words_for(pages), Word::default)?;
    let borrowers = make_array(zones, pages as usize, || Borrower::Nobody)?;
    let pins = make_array(zones, pages as usize, || 0_u16)?;
    let region = words.zip(borrowers).and_then(|(words, borrowers)| Region::new(words, borrowers));
    let region = region.zip(pins).map(|(region, pins)| region.with_pins(pins));
    let places = make_array(zones, pages as usize, Place::default)?.map(Places::new);
    let contiguous = region
        .zip(places)
        .and_then(|(region, places)| Contiguous::new(*zones.table(), first, region, places));
    let contiguous = contiguous.ok_or(BringUpError::Contiguous { pages })?;
    kernel.set_contiguous(CONTIGUOUS.call_once(|| contiguous));
    log::info!("cma: {} KiB from {} are set aside, and lent", pages << 2, first.base());
    Ok(())
}

/// Moves what `borrower` has in the lent `frame` elsewhere.
pub(crate) fn move_out(borrower: Borrower, frame: Pfn) -> Result<FrameBlock, Unmovable> {
    match borrower {
        Borrower::Nobody => Err(Unmovable::Busy),
        Borrower::Program { space, page } => user::move_out(space, page, frame),
        Borrower::Movable { place } => crate::kernel().move_movable(place, frame),
    }
}
