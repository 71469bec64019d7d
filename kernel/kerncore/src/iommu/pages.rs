//! Pages that lie anywhere, and that a device sees one behind the other: each is an entry, and nobody asks for a larger one.
//!
//! [`Domain::map`] goes by its runs twice: to count them, and to map them. Who knows already how many pages there are, and that each
//! is by itself, comes here, and has each of them looked at once.

use crate::addr::Pfn;
use crate::attributes::MemoryType;
use crate::iommu::domain::{Domain, Iova};
use crate::iommu::machine::Iotlb;
use crate::iommu::{DomainMapError, Grant};
use crate::lock::Locks;
use crate::machine::Machine;
use crate::page_table::MapError;

/// The first `left` of items, of which somebody has counted as many.
struct Counted<I> {
    items: I,
    left: usize,
}

impl<I: Iterator> Iterator for Counted<I> {
    type Item = I::Item;

    #[inline(always)]
    fn next(&mut self) -> Option<I::Item> {
        self.left = self.left.checked_sub(1)?;
        self.items.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<I: Iterator> ExactSizeIterator for Counted<I> {}

impl<M: Machine, T: Iotlb, L: Locks> Domain<'_, '_, M, T, L> {
    /// As [`Domain::map`], of `pages` frames, each a page by itself. `None` is no frame. The authority is that one's, too.
    ///
    /// ```compile_fail
    /// # use kerncore::{addr::Pfn, attributes::MemoryType, iommu::{Domain, Grant}, iommu::machine::Iotlb, lock::Locks, machine::Machine};
    /// fn anybodys<M: Machine, T: Iotlb, L: Locks>(domain: &Domain<'_, '_, M, T, L>, frame: Pfn) {
    ///     let frames = core::iter::once(frame);
    ///     let _iova = domain.map_pages(frames, 1, Grant::ReadWrite, MemoryType::NormalWriteBack);
    /// }
    /// ```
    ///
    /// # Errors
    /// [`DomainMapError`], of fewer frames than `pages`, too; nothing was taken. Those behind the last are left out.
    #[inline(always)]
    pub fn map_pages(
        &self,
        _authority: M::Authority,
        frames: impl Iterator<Item: Into<Option<Pfn>>>,
        pages: u32,
        grant: Grant,
        memory: MemoryType,
    ) -> Result<Iova, DomainMapError> {
        let mut iova = self.reserve(pages).map_err(DomainMapError::Iova)?;
        match self.map_each(&mut iova, frames, grant, memory) {
            Ok(()) => Ok(iova),
            Err(error) => Err(self.unwind(iova, error)),
        }
    }

    /// Maps all of `iova`, a frame a page. An error says how many of them are.
    #[inline(always)]
    pub(super) fn map_each(
        &self,
        iova: &mut Iova,
        frames: impl Iterator<Item: Into<Option<Pfn>>>,
        grant: Grant,
        memory: MemoryType,
    ) -> Result<(), (u32, MapError)> {
        let (attributes, source) = (grant.attributes(memory), self.source());
        let frames = Counted { items: frames, left: iova.pages() as usize };
        let mapped = self.table.map(&mut iova.range, 0, frames, attributes, &source);
        mapped.map(drop).map_err(|error| (error.mapped(), error))
    }
}
