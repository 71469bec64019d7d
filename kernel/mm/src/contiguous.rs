//! The contiguous region of this kernel (`cma=`, S101).

use arch::lock::IrqLocks;
use kerncore::contiguous::{Borrower, Contiguous, Region, Word};
use spin::Once;

use crate::Kernel;
use crate::bring_up::{BringUpError, make_array};
use crate::frame_plan::Frames;

static CONTIGUOUS: Once<Contiguous<'static, IrqLocks>> = Once::new();

/// Makes the books of what was set aside, if anything was.
pub(crate) fn set_up(kernel: &mut Kernel, frames: &Frames) -> Result<(), BringUpError> {
    let Some((first, pages)) = frames.contiguous() else { return Ok(()) };
    let zones = kernel.zones();
    let words = make_array(zones, Region::words_for(pages), Word::default)?;
    let borrowers = make_array(zones, pages as usize, || Borrower::Nobody)?;
    let region = words.zip(borrowers).and_then(|(words, borrowers)| Region::new(words, borrowers));
    let contiguous = region.and_then(|region| Contiguous::new(*zones.table(), first, region));
    let contiguous = contiguous.ok_or(BringUpError::Contiguous { pages })?;
    kernel.set_contiguous(CONTIGUOUS.call_once(|| contiguous));
    log::info!("cma: {} KiB from {} are set aside, and lent", pages << 2, first.base());
    Ok(())
}
