//! Reading and writing through areas, whatever is there (S39 to S42).
//!
//! ```text
//!    from                                                         what vread sees
//!     │  ┌──────┬─┐      ┌──────┬─┐   ┌──────┬─┐                  0: gaps, guards, pages that are not mapped, registers
//!     ▼  │ area │g│      │ regs │g│   │ area │g│                  x: memory
//!     000 xxxxxx 0 000000 000000 0 000 xxxxxx│                    it ends with the last area's last byte
//! ```
//!
//! Each area is pinned while its bytes are copied: a removal meanwhile makes it Dying and waits (S14a). No lock is held.

use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::area::{AreaFlags, AreaKind, AreaRecord, AreaSummary};
use crate::kernel_space::KernelSpace;
use crate::kernel_space::readers::Reading;
use crate::lock::{Locks, SharedLock};
use crate::machine::Machine;

/// What is to be done with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// They are read.
    Read,
    /// They are written.
    Write,
}

/// Bytes at adjacent addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Nothing that could be read or written without harm: zeros to a reader, nowhere to a writer.
    Gap {
        /// How many.
        bytes: u32,
    },
    /// Memory, mapped as the access wants it until the visit is over; of one page.
    Memory {
        /// The first byte.
        address: VirtAddr,
        /// How many.
        bytes: u32,
    },
}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Shows the bytes from `from` on to `visit`, in order and without a gap between spans: as many as `bytes`, but none beyond
    /// the last live area's last usable byte (S40), nor beyond the top of memory (S39). Says how many.
    ///
    /// What is removed or made meanwhile may be shown or not. Not in interrupt context, and `visit` removes no area: a removal
    /// waits for the visit to end.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn for_each_span(
        &self,
        from: VirtAddr,
        bytes: u32,
        access: Access,
        mut visit: impl FnMut(Span),
    ) -> u32 {
        self.may_sleep_for(match access {
            Access::Read => "vread",
            Access::Write => "vwrite",
        });
        // From here to the top of memory; from zero that is more than can be said.
        let to_top = match from.raw() {
            0 => u32::MAX,
            from => from.wrapping_neg(),
        };
        let wanted = bytes.min(to_top);
        let mut done = 0;
        while done < wanted {
            let Some(position) = from.checked_add(done) else { break };
            let Some((area, reading)) = self.pin_next(position) else { break };
            let before = area.pages.start().raw().saturating_sub(position.raw());
            let gap = before.min(wanted - done);
            if gap != 0 {
                visit(Span::Gap { bytes: gap });
            }
            done += gap;
            done += self.spans_of(&area, from, (done, wanted), access, &mut visit);
            self.readers.leave(reading);
        }
        done
    }

    /// Shows the bytes of `area` from `done` on, counted from `from`, and says how many that were.
    fn spans_of(
        &self,
        area: &AreaSummary,
        from: VirtAddr,
        (begun, wanted): (u32, u32),
        access: Access,
        visit: &mut impl FnMut(Span),
    ) -> u32 {
        let mut done = begun;
        while done < wanted {
            let Some(address) = from.checked_add(done) else { break };
            if !area.pages.contains(address) {
                break;
            }
            let bytes = (PAGE_SIZE - address.page_offset()).min(wanted - done);
            visit(if self.is_accessible(area, address, access) {
                Span::Memory { address, bytes }
            } else {
                Span::Gap { bytes }
            });
            done += bytes;
        }
        done - begun
    }

    /// Whether the page at `address` of `area` is memory that an access cannot harm nor be stopped at (S42).
    fn is_accessible(&self, area: &AreaSummary, address: VirtAddr, access: Access) -> bool {
        let is_registers =
            area.kind == AreaKind::IoRemap || area.flags.contains(AreaFlags::IOREMAP);
        // What is being changed may go while it is copied: whoever changes it waits for those that came before him alone. And
        // the fragments of a block come and go without their area.
        let may_go = area.users == AreaRecord::BUSY || area.kind == AreaKind::MapRamBlock;
        if is_registers || may_go {
            return false;
        }
        let Some(translation) = self.table.translate(address) else { return false };
        let Ok(attributes) = translation.attributes() else { return false };
        let is_ram = self.zones.table().frame(translation.physical.pfn()).is_some();
        // What lies in a page array the kernel alone writes.
        let is_array = area.kind == AreaKind::PageArray;
        let may = access == Access::Read || attributes.is_writable() && !is_array;
        is_ram && attributes.memory().is_normal() && may
    }

    /// The live area that has `position` among its usable bytes, or else the next above, pinned.
    fn pin_next(&self, position: VirtAddr) -> Option<(AreaSummary, Reading)> {
        loop {
            let found = self.areas.look(|areas| {
                let within = areas.find_containing(position);
                let area = within.or_else(|| areas.next_area(position))?;
                Some((area, self.readers.enter(area.pages.start())))
            });
            match found {
                None => return None,
                Some((area, Some(reading))) => return Some((area, reading)),
                // As many read as can at once; they hold nothing that this waits with.
                Some((_, None)) => core::hint::spin_loop(),
            }
        }
    }
}
