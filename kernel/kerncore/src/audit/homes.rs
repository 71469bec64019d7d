//! Where a frame has its home: marks in the frame table, so that nothing is found twice unseen.
//!
//! A frame of a vmalloc or DMA area, or of the heap, has one home: the page of addresses at which its owner maps it. The
//! audit notes it in the frame's spare word, as a page number, and a second home shows. For a frame of second-level
//! tables the word has a bit for each quarter that a first-level slot names. Words are cleared before they are set, so
//! that nothing remains from the audit before.

use core::sync::atomic::Ordering::Relaxed;

use super::{Audit, Violation};
use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::descriptor::L2_TABLE_SIZE;
use crate::lock::Locks;
use crate::machine::Machine;

/// Whether a mark was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It was set just now.
    New,
    /// It was there already.
    Known,
}

impl<M: Machine, L: Locks> Audit<'_, '_, M, L> {
    /// Forgets what was noted for `frame`.
    pub(super) fn clear_mark(&self, frame: Pfn) {
        if let Some(record) = self.space.zones().table().frame(frame) {
            record.spare().store(0, Relaxed);
        }
    }

    /// Notes that the owner of `frame` maps it at `address`; a second address is a violation.
    pub(super) fn mark_home(&mut self, frame: Pfn, address: VirtAddr) -> Mark {
        let Some(record) = self.space.zones().table().frame(frame) else { return Mark::Known };
        match record.spare().load(Relaxed) {
            0 => {
                record.spare().store(address.page_number(), Relaxed);
                Mark::New
            }
            first => {
                let first = VirtAddr::new(first * PAGE_SIZE);
                self.found(Violation::MappedTwice { frame, first, second: address });
                Mark::Known
            }
        }
    }

    /// The home that was noted for `frame`.
    pub(super) fn home_of(&self, frame: Pfn) -> Option<VirtAddr> {
        let page = self.space.zones().table().frame(frame)?.spare().load(Relaxed);
        (page != 0).then(|| VirtAddr::new(page.wrapping_mul(PAGE_SIZE)))
    }

    /// Notes that a first-level slot names `table`, which lies in a frame of the page tables.
    pub(super) fn mark_table(&self, table: PhysAddr) -> Mark {
        let Some(record) = self.space.zones().table().frame(table.pfn()) else {
            return Mark::Known;
        };
        let bit = 1 << (table.page_offset() / L2_TABLE_SIZE);
        if record.spare().fetch_or(bit, Relaxed) & bit == 0 { Mark::New } else { Mark::Known }
    }
}
