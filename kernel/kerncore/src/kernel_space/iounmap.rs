//! The end of what ioremap mapped.

use crate::addr::VirtAddr;
use crate::kernel_space::areas::AreaPlace;
use crate::kernel_space::{KernelSpace, RemoveError};
use crate::lock::{Lock, Locks};
use crate::machine::Machine;

impl<'s, M: Machine, L: Locks> KernelSpace<'s, M, L> {
    /// Ends a use of the mapping of device registers that `address` lies in; any address inside will do, since ioremap
    /// gives back the base plus the offset in the page. The mapping goes with its last use: [`super::sharing`] says why whoever
    /// was not the last may return at once. Not in interrupt context (S35).
    ///
    /// # Errors
    /// [`RemoveError`].
    ///
    /// # Panics
    /// In interrupt context.
    #[inline(always)]
    pub fn iounmap(&self, _authority: M::Authority, address: VirtAddr) -> Result<(), RemoveError> {
        // Most registers lie in their area's first page.
        if self.iounmap_at_hand(address.page_base()) { Ok(()) } else { self.end_use(address) }
    }

    /// As [`KernelSpace::iounmap`], of what is shared, or not at hand, or is to be refused.
    #[cold]
    #[inline(never)]
    fn end_use(&self, address: VirtAddr) -> Result<(), RemoveError> {
        // What is mapped for good stays (S95).
        if self.static_mapping_at(address).is_some() {
            return Ok(());
        }
        match self.areas.with(|areas| areas.end_use(address))? {
            Some(dying) => self.end_devices(dying),
            None => Ok(()),
        }
    }

    /// Dying → Flushed → Free, of an area that devices are mapped in. The index forgets them with the addresses, after the flush:
    /// until then a TLB may have them, and they count as mapped (S14a, S97).
    pub(super) fn end_devices(&self, mut dying: AreaPlace<'s>) -> Result<(), RemoveError> {
        let Some(usable) = dying.mapping.take_devices() else { return self.tear_down(dying) };
        self.readers.wait_for(usable.start());
        match self.table.unmap_few(usable, ()) {
            Ok((range, ())) => {
                self.areas.with(|areas| {
                    // Of few pages, so not many.
                    while areas.forget_run(&mut dying) {}
                    areas.release(range, dying);
                });
                Ok(())
            }
            Err((range, ())) => self.end_many_borrowed(range, dying),
        }
    }
}
