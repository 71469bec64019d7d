//! Taking frames: from the first zone that will do and has them.

use super::Zones;
use super::plan::{ZONES, ZoneIndex};
use crate::addr::Pfn;
use crate::failure::Point;
use crate::frames::{
    AllocateError, Frame, FrameAllocator, FrameBlock, FrameList, FrameOwner, FrameRequest,
    MAX_BLOCK, Place, ZoneKind,
};
use crate::lock::{Lock, Locks};

impl<'s, L: Locks> Zones<'s, L> {
    /// Takes a block of 2^`order` frames of low memory, aligned to its size.
    ///
    /// # Errors
    /// [`AllocateError`].
    pub fn allocate(&self, order: u32, owner: FrameOwner) -> Result<FrameBlock, AllocateError> {
        self.refuse_if_it_fails(FrameRequest::LOW, frames_of(order), owner)?;
        match self.first.with(|zone| zone.allocate(order, owner)) {
            Err(AllocateError::Exhausted { .. }) => self.block(FrameRequest::LOW, order, owner),
            taken => taken,
        }
    }

    /// As [`Zones::allocate`], if that takes no more than a look at the spare block or a front list, for callers that keep no
    /// handle: the record of the first frame. `None` says nothing about memory: ask [`Zones::allocate`].
    #[inline(always)]
    pub fn take_waiting(&self, order: u32, owner: FrameOwner) -> Option<&'s Frame> {
        if L::fails(Point::ShortCut) {
            return None;
        }
        match self.spares.take(order, owner) {
            Some(record) => Some(record),
            None => self.take_from_front(order, owner),
        }
    }

    /// As [`Zones::take_waiting`] of memory that will do, for callers that keep a handle.
    #[inline(always)]
    pub(crate) fn take_waiting_block(
        &self,
        request: FrameRequest,
        order: u32,
        owner: FrameOwner,
    ) -> Option<FrameBlock> {
        if !self.begins_with_first(request) {
            return None;
        }
        Some(self.table.block_at(self.take_waiting(order, owner)?, order))
    }

    #[inline(never)]
    fn take_from_front(&self, order: u32, owner: FrameOwner) -> Option<&'s Frame> {
        self.first.with(|zone| zone.take_waiting(order, owner))
    }

    /// Takes a block of 2^`order` frames that will do, aligned to its size.
    ///
    /// # Errors
    /// [`AllocateError`].
    pub fn allocate_from(
        &self,
        request: FrameRequest,
        order: u32,
        owner: FrameOwner,
    ) -> Result<FrameBlock, AllocateError> {
        self.refuse_if_it_fails(request, frames_of(order), owner)?;
        self.block(request, order, owner)
    }

    #[cold]
    fn block(
        &self,
        request: FrameRequest,
        order: u32,
        owner: FrameOwner,
    ) -> Result<FrameBlock, AllocateError> {
        self.first_that(request, frames_of(order), owner, |zone, last| match last {
            None => zone.allocate(order, owner),
            Some(last) => zone.allocate_below(order, owner, last),
        })
    }

    /// Takes exactly `pages` adjacent frames of low memory, the first aligned to the next power of two.
    ///
    /// # Errors
    /// [`AllocateError`].
    pub fn allocate_pages(
        &self,
        pages: u32,
        owner: FrameOwner,
    ) -> Result<FrameBlock, AllocateError> {
        self.refuse_if_it_fails(FrameRequest::LOW, pages, owner)?;
        match self.first.with(|zone| zone.allocate_pages(pages, owner)) {
            Err(AllocateError::Exhausted { .. }) => self.run(FrameRequest::LOW, pages, owner),
            taken => taken,
        }
    }

    /// As [`Zones::allocate_pages`], of frames that will do.
    ///
    /// # Errors
    /// [`AllocateError`].
    pub fn allocate_pages_from(
        &self,
        request: FrameRequest,
        pages: u32,
        owner: FrameOwner,
    ) -> Result<FrameBlock, AllocateError> {
        self.refuse_if_it_fails(request, pages, owner)?;
        self.run(request, pages, owner)
    }

    #[cold]
    fn run(
        &self,
        request: FrameRequest,
        pages: u32,
        owner: FrameOwner,
    ) -> Result<FrameBlock, AllocateError> {
        self.first_that(request, pages, owner, |zone, last| match last {
            None => zone.allocate_pages(pages, owner),
            Some(last) => zone.allocate_pages_below(pages, owner, last),
        })
    }

    /// Takes `pages` frames of low memory that need not be adjacent: all or none.
    ///
    /// # Errors
    /// [`AllocateError`].
    pub fn allocate_list(&self, pages: u32, owner: FrameOwner) -> Result<FrameList, AllocateError> {
        self.allocate_list_from(FrameRequest::LOW, pages, owner)
    }

    /// As [`Zones::allocate_list`], of frames that will do.
    ///
    /// # Errors
    /// [`AllocateError`].
    #[inline(always)]
    pub fn allocate_list_from(
        &self,
        request: FrameRequest,
        pages: u32,
        owner: FrameOwner,
    ) -> Result<FrameList, AllocateError> {
        self.refuse_if_it_fails(request, pages, owner)?;
        // What is small is a spare block, as a rule.
        match self.take_spare_list(request, pages, owner) {
            Some(list) => Ok(list),
            None => self.allocate_list_of_blocks(request, pages, owner),
        }
    }

    /// As [`Zones::allocate_list_from`], if that is one block, and a spare one.
    #[inline(always)]
    fn take_spare_list(
        &self,
        request: FrameRequest,
        pages: u32,
        owner: FrameOwner,
    ) -> Option<FrameList> {
        if !pages.is_power_of_two() || !self.begins_with_first(request) {
            return None;
        }
        let record = self.spares.take(pages.trailing_zeros(), owner)?;
        Some(FrameList::of_one(self.table.chain_of_one(record), pages))
    }

    #[inline(never)]
    fn allocate_list_of_blocks(
        &self,
        request: FrameRequest,
        pages: u32,
        owner: FrameOwner,
    ) -> Result<FrameList, AllocateError> {
        if self.begins_with_first(request) {
            if let Some(block) = self.first.with(|zone| zone.take_list_of_one(pages, owner)) {
                return Ok(FrameList::of_one(block, pages));
            }
            match self.first.with(|zone| zone.allocate_list(pages, owner)) {
                Err(AllocateError::Exhausted { .. }) => {}
                taken => return taken,
            }
        }
        self.gather(request, pages, owner)
    }

    /// The refusal of `pages` frames that a test wants.
    #[inline(always)]
    fn refuse_if_it_fails(
        &self,
        request: FrameRequest,
        pages: u32,
        owner: FrameOwner,
    ) -> Result<(), AllocateError> {
        if L::fails(Point::Frames) { Err(self.none_left(request, pages, owner)) } else { Ok(()) }
    }

    /// What is said when there are no `pages` frames for `owner`.
    pub(crate) fn none_left(
        &self,
        request: FrameRequest,
        pages: u32,
        owner: FrameOwner,
    ) -> AllocateError {
        let free = self.free_pages_of(request);
        AllocateError::Exhausted { pages, owner, free, largest: None, from: request }
    }

    /// Whether the zone that serves the most is the first that is tried.
    #[inline(always)]
    pub(crate) fn begins_with_first(&self, request: FrameRequest) -> bool {
        request == FrameRequest::LOW
            || request == FrameRequest::ANY && self.first_of_any == ZoneIndex::FIRST
    }

    /// What the first zone that has it gives; a zone that reaches beyond what will do is shown the last frame that will.
    #[cold]
    #[inline(never)]
    fn first_that(
        &self,
        request: FrameRequest,
        pages: u32,
        owner: FrameOwner,
        mut take: impl FnMut(&mut FrameAllocator<'s>, Option<Pfn>) -> Result<FrameBlock, AllocateError>,
    ) -> Result<FrameBlock, AllocateError> {
        self.judge(request, owner)?;
        for (zone, lock) in self.order(request) {
            let limit = self.limit(request, zone);
            match self.with_spares_home((zone, lock), |zone| take(zone, limit)) {
                Err(AllocateError::Exhausted { .. }) => {}
                taken => return taken,
            }
        }
        // What can be had of no zone is said as such; the rest was asked for in vain.
        if pages == 0 {
            return Err(AllocateError::Zero { owner });
        }
        if pages > MAX_BLOCK {
            return Err(AllocateError::TooLarge { pages, owner });
        }
        Err(self.exhausted(request, pages, owner))
    }

    /// A list from as many zones as it takes. All or none: what the last of them lacks, the others get back.
    #[cold]
    #[inline(never)]
    fn gather(
        &self,
        request: FrameRequest,
        pages: u32,
        owner: FrameOwner,
    ) -> Result<FrameList, AllocateError> {
        self.judge(request, owner)?;
        if pages == 0 {
            return Err(AllocateError::Zero { owner });
        }
        // In vain, all that is free would be away meanwhile.
        if self.free_pages_of(request) < pages {
            return Err(self.exhausted(request, pages, owner));
        }
        let mut list = FrameList::new();
        for (zone, lock) in self.order(request) {
            let left = pages - list.pages();
            if left == 0 {
                break;
            }
            let part =
                self.with_spares_home((zone, lock), |allocator| match self.limit(request, zone) {
                    None => allocator.take_list(left, owner),
                    Some(last) => allocator.take_list_below(left, owner, last),
                });
            list.append(&self.table, part);
        }
        if list.pages() == pages {
            return Ok(list);
        }
        let freed = self.free_list(list);
        debug_assert!(freed.is_ok(), "just taken: {freed:?}");
        Err(self.exhausted(request, pages, owner))
    }

    /// Whether anybody can be given such memory.
    fn judge(&self, request: FrameRequest, owner: FrameOwner) -> Result<(), AllocateError> {
        FrameAllocator::judge(0, owner)?;
        match request.place() {
            Place::Prefer(node) | Place::Only(node) if node.number() >= self.nodes().count() => {
                Err(AllocateError::UnknownNode { node, nodes: self.nodes().count(), owner })
            }
            _ => Ok(()),
        }
    }

    /// The zones that have frames that will do, in the order in which they are tried.
    pub(super) fn order(
        &self,
        request: FrameRequest,
    ) -> impl Iterator<Item = (ZoneIndex, &L::Lock<FrameAllocator<'s>>)> {
        const DEAREST_FIRST: [ZoneKind; 3] = [ZoneKind::High, ZoneKind::Normal, ZoneKind::Dma];
        let by_kind = DEAREST_FIRST.map(|kind| [(0, kind), (1, kind)]);
        let by_node = |node: u8| DEAREST_FIRST.map(|kind| (node, kind));
        let mut order = [(0, ZoneKind::Dma); ZONES];
        match request.place() {
            Place::Anywhere => order.copy_from_slice(by_kind.as_flattened()),
            Place::Prefer(node) | Place::Only(node) => {
                let node = u8::from(node.number() != 0);
                order.copy_from_slice([by_node(node), by_node(1 - node)].as_flattened());
            }
        }
        let last = request.last().checked_sub(self.table.first().number());
        let only = if let Place::Only(node) = request.place() { Some(node.number()) } else { None };
        order.into_iter().filter_map(move |(node, kind)| {
            let (start, end) = self.span(ZoneIndex::of(node, kind));
            let will_do = self.will_do(kind, request.kind())
                && only.is_none_or(|only| only == u32::from(node))
                && start < end
                && last.is_some_and(|last| start <= last);
            let zone = ZoneIndex::of(node, kind);
            will_do.then(|| Some((zone, self.lock_of(zone)?))).flatten()
        })
    }

    /// Whether memory of `kind` will do where `wanted` was asked for. Where nothing was set apart for DMA, low memory is as
    /// good.
    fn will_do(&self, kind: ZoneKind, wanted: ZoneKind) -> bool {
        let (start, end) = self.span(ZoneIndex::of(0, ZoneKind::Dma));
        let wanted = if start == end { wanted.max(ZoneKind::Normal) } else { wanted };
        kind <= wanted
    }

    /// The last frame that will do of a zone that has others behind it.
    fn limit(&self, request: FrameRequest, zone: ZoneIndex) -> Option<Pfn> {
        let last = Pfn::new(request.last())?;
        let (_, end) = self.span(zone);
        (last.checked_sub(self.table.first())? < end - 1).then_some(last)
    }

    /// How many frames are free that will do: none of a node alone that is not there. Whether the node that is preferred is there,
    /// only taking frames asks.
    pub fn free_pages_of(&self, request: FrameRequest) -> u32 {
        let free = |(zone, lock): (ZoneIndex, &L::Lock<FrameAllocator<'s>>)| {
            let limit = self.limit(request, zone);
            self.with_spares_home((zone, lock), |zone| match limit {
                Some(last) => zone.supply_below(last).free,
                None => zone.free_pages(),
            })
        };
        self.order(request).map(free).sum()
    }

    fn exhausted(&self, request: FrameRequest, pages: u32, owner: FrameOwner) -> AllocateError {
        let (mut free, mut largest) = (0, None);
        for (zone, lock) in self.order(request) {
            let limit = self.limit(request, zone);
            let supply = self.with_spares_home((zone, lock), |zone| match limit {
                Some(last) => zone.supply_below(last),
                None => zone.supply(),
            });
            free += supply.free;
            largest = largest.max(supply.largest);
        }
        AllocateError::Exhausted { pages, owner, free, largest, from: request }
    }
}

/// How many frames a block of that order has, saturating.
const fn frames_of(order: u32) -> u32 {
    if order < u32::BITS { 1 << order } else { u32::MAX }
}
