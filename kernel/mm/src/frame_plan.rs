//! Who gets which frames at boot, before there is an allocator.

use kerncore::addr::{PAGE_SIZE, Pfn, pages_for};
use kerncore::contiguous;
use kerncore::descriptor::L2_TABLE_SIZE;
use kerncore::frames::{Frame, FrameOwner, MAX_BLOCK};
use kerncore::layout::{self, LINEAR_PHYSICAL, linear_physical};

use crate::bring_up::{BringUpError, MemoryPlan};

/// Bytes of the largest block: borders of zones are multiples of it.
const BLOCK_BYTES: u32 = MAX_BLOCK * PAGE_SIZE;

/// Who gets which frames at boot.
///
/// ```text
///   base   image ………… (its unused tables)   frame table   pointers          low memory's end      end
///   │ free │ image │ PageTable │ free        │             │ read-only │ free │ contiguous region │ high …
/// ```
pub(crate) struct Frames {
    pub(crate) first: Pfn,
    pub(crate) total: u32,
    /// How many of them have linear addresses.
    pub(crate) low: u32,
    pub(crate) image: Pfn,
    pub(crate) image_pages: u32,
    /// The first frame of the linear map's tables that RAM does not need.
    pub(crate) spare_tables: Pfn,
    pub(crate) spare_table_pages: u32,
    pub(crate) table: Pfn,
    pub(crate) table_pages: u32,
    /// The pages of pointers behind the table.
    pub(crate) pointer_pages: u32,
    /// What is set aside for contiguous buffers, counted from the first frame: where it begins, and how many pages.
    contiguous: (u32, u32),
}

impl Frames {
    pub(crate) fn of(plan: &MemoryPlan) -> Result<Self, BringUpError> {
        let bytes = plan.ram.min(layout::LINEAR_BYTES);
        let low_bytes = if plan.low < bytes { plan.low & !(BLOCK_BYTES - 1) } else { bytes };
        let too_little = BringUpError::TooLittleRam { bytes: low_bytes };
        let first = LINEAR_PHYSICAL.pfn();
        let total = bytes / PAGE_SIZE;
        let image_range = boot::layout::image();
        let outside = BringUpError::Image { address: image_range.start() };
        let image = linear_physical(image_range.start()).ok_or(outside)?.pfn();
        let image_pages = image_range.count();
        let low = low_bytes / PAGE_SIZE;
        let tables_used = low_bytes.div_ceil(kerncore::addr::SECTION_SIZE) * L2_TABLE_SIZE;
        let tables = linear_physical(boot::layout::linear_tables()).ok_or(outside)?.pfn();
        let spare_tables = tables.checked_add(pages_for(tables_used)).ok_or(outside)?;
        let table = image.checked_add(image_pages).ok_or(outside)?;
        let spare_table_pages = table.checked_sub(spare_tables).ok_or(outside)?;
        let table_pages = pages_for(total * FRAME_BYTES);
        let pointer_pages = pages_for(total * POINTER_BYTES);
        let used = table.checked_sub(first).ok_or(outside)? + table_pages + pointer_pages;
        if used >= low {
            return Err(too_little);
        }
        let contiguous = contiguous::set_aside(low, used, plan.contiguous / PAGE_SIZE)
            .unwrap_or_else(|most| {
                let (wanted, most) = (plan.contiguous >> 10, most * (PAGE_SIZE >> 10));
                log::warn!("cma={wanted}K: no more than {most} KiB can be set aside, ignored");
                (low, 0)
            });
        Ok(Self {
            first,
            total,
            low,
            image,
            image_pages,
            spare_tables,
            spare_table_pages,
            table,
            table_pages,
            pointer_pages,
            contiguous,
        })
    }

    /// The first frame of the pointers.
    pub(crate) fn pointers(&self) -> Option<Pfn> {
        self.table.checked_add(self.table_pages)
    }

    /// What is set aside for contiguous buffers, if anything is: its first frame, and how many.
    pub(crate) fn contiguous(&self) -> Option<(Pfn, u32)> {
        let (start, pages) = self.contiguous;
        self.first.checked_add(start).filter(|_| pages != 0).map(|first| (first, pages))
    }

    pub(crate) fn taken(&self) -> impl Iterator<Item = (Pfn, u32, FrameOwner)> {
        let image = self.image_pages - self.spare_table_pages;
        let table = self.table_pages + self.pointer_pages;
        let contiguous =
            self.contiguous().map(|(first, pages)| (first, pages, FrameOwner::Reserved));
        [(self.image, image, FrameOwner::KernelImage), (self.table, table, FrameOwner::FrameTable)]
            .into_iter()
            .chain(contiguous)
    }

    pub(crate) fn free(&self) -> impl Iterator<Item = (Pfn, u32)> {
        let below = (self.first, self.image.number() - self.first.number());
        let spare = (self.spare_tables, self.spare_table_pages);
        let (start, pages) = self.contiguous;
        let between = |from: u32, to: u32| {
            self.first.checked_add(from).map(|first| (first, to.saturating_sub(from)))
        };
        let used =
            self.table.number() - self.first.number() + self.table_pages + self.pointer_pages;
        let above = [between(used, start), between(start + pages, self.total)];
        [below, spare].into_iter().chain(above.into_iter().flatten())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a frame's record has 16 bytes")]
const FRAME_BYTES: u32 = size_of::<Frame>() as u32;
const POINTER_BYTES: u32 = u32::BITS / u8::BITS;
