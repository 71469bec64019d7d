//! The board's static mappings: registers that are mapped at boot, for good, and that ioremap answers from (S95).
//!
//! ```text
//!   static region   │ gap │ registers │ gap │ registers │ gap │      small pages, one after the other, nothing between
//! ```
//! Who asks for a range that lies inside one, in its way, gets its address; there is nothing to end when he is done. Who wants any
//! byte of one in another way is refused, with both named: they would be mismatched aliases (S97). What lies partly inside, in the same
//! way, is mapped anew like anything else. So are frames that [`KernelSpace::vmap_devices`] is given by their numbers.

use core::fmt;

use crate::addr::{PageRange, Pfn, PhysAddr, VirtAddr};
use crate::attributes::Attributes;
use crate::bus::BusRange;
use crate::kernel_space::KernelSpace;
use crate::lock::Locks;
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::MapError;
use crate::physical_index::clash;

/// Static mappings that there can be.
pub const MOST_STATIC: usize = 4;

/// Registers that are to be mapped at boot: whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticRequest {
    /// What and where.
    pub range: BusRange,
    /// How.
    pub attributes: Attributes,
}

/// Registers that are mapped for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticMapping {
    /// What and where.
    pub range: BusRange,
    /// How.
    pub attributes: Attributes,
    /// At which addresses.
    pub pages: PageRange,
}

impl StaticMapping {
    /// Where `frame` is mapped, if it is one of these.
    pub fn page_of(&self, frame: Pfn) -> Option<VirtAddr> {
        let offset = frame.checked_sub(self.range.first.pfn())?;
        Some(self.pages.sub_range(offset, 1)?.start())
    }
}

/// What, how and where.
impl fmt::Display for StaticMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { range, attributes, pages } = self;
        write!(f, "{range} is {attributes}, at {}", pages.start())
    }
}

/// Why registers were not mapped at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaticError {
    /// No whole pages, RAM among them, or no room for them in the region or in the list.
    Unfit(BusRange),
    /// Some of them are mapped for good already, in a way that does not go together with this one (S97).
    Alias {
        /// What was to be mapped, and how.
        wanted: StaticRequest,
        /// What is, and how.
        had: StaticMapping,
    },
    /// The mapping failed.
    Map(MapError),
}

impl fmt::Display for StaticError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfit(range) => write!(f, "{range} cannot be mapped for good"),
            Self::Alias { wanted: StaticRequest { range, attributes }, had } => {
                write!(f, "{range} cannot be {attributes} for good: {had}")
            }
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for StaticError {}

/// All static mappings.
#[derive(Debug)]
pub(super) struct Statics {
    list: [Option<StaticMapping>; MOST_STATIC],
    /// Bounds of them all: the lowest byte and the highest. The first lies above the second if there are none.
    bounds: (PhysAddr, PhysAddr),
    /// The addresses that were set aside for them.
    region: PageRange,
}

impl Statics {
    pub(super) const NONE: Self = Self {
        list: [None; MOST_STATIC],
        bounds: (PhysAddr::new(u32::MAX), PhysAddr::new(0)),
        region: PageRange::EMPTY,
    };

    /// Whether some of the bytes from `first` to `last` may be mapped statically.
    #[inline(always)]
    pub(super) fn may_have(&self, first: PhysAddr, last: PhysAddr) -> bool {
        first <= self.bounds.1 && last >= self.bounds.0
    }

    fn all(&self) -> impl Iterator<Item = &StaticMapping> {
        self.list.iter().flatten()
    }
}

/// What the static mappings say of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is none of theirs, or not wholly.
    Nothing,
    /// Its first byte is mapped here.
    At(VirtAddr),
    /// It is this one's, who has it otherwise.
    Otherwise(StaticMapping),
}

impl<M: Machine, L: Locks> KernelSpace<'_, M, L> {
    /// Maps `wanted` in `region`, for good, each behind a page that stays unmapped. Once, at boot, before anybody else has the
    /// kernel.
    ///
    /// # Errors
    /// [`StaticError`]; what was mapped until then stays.
    pub fn map_statics(
        &mut self,
        mut region: OwnedRange,
        wanted: &[StaticRequest],
    ) -> Result<(), StaticError> {
        let whole = region.pages();
        self.statics.region = whole;
        let mut offset = 1;
        for (request, place) in wanted.iter().zip(0..) {
            let StaticRequest { range, attributes } = *request;
            let unfit = StaticError::Unfit(range);
            let (first, last) = (range.first, range.last);
            let count = last.pfn().number() - first.pfn().number() + 1;
            let is_whole =
                first.is_page_aligned() && last.page_offset() == crate::addr::PAGE_SIZE - 1;
            let pages = whole.sub_range(offset, count).ok_or(unfit)?;
            if !is_whole || self.zones.ram_within(first, last).is_some() || place >= MOST_STATIC {
                return Err(unfit);
            }
            let run = (first.pfn(), count);
            let frames = (0..count).filter_map(|offset| run.0.checked_add(offset));
            if let Some((_, had)) = self.static_clash(frames, attributes) {
                return Err(StaticError::Alias { wanted: *request, had });
            }
            let tables = self.tables.source(&self.zones);
            let mapped = self.table.map_consecutive(&mut region, offset, run, attributes, &tables);
            mapped.map_err(StaticError::Map)?;
            let Statics { list, bounds, .. } = &mut self.statics;
            list[place] = Some(StaticMapping { range, attributes, pages });
            *bounds = (bounds.0.min(first), bounds.1.max(last));
            offset += count + 1;
        }
        Ok(())
    }

    /// The static mappings.
    pub fn static_mappings(&self) -> impl Iterator<Item = &StaticMapping> {
        self.statics.all()
    }

    /// The addresses that were set aside for static mappings; empty if nobody did.
    pub const fn static_region(&self) -> PageRange {
        self.statics.region
    }

    /// The static mapping that `address` lies in.
    pub fn static_mapping_at(&self, address: VirtAddr) -> Option<&StaticMapping> {
        self.statics.all().find(|mapping| mapping.pages.contains(address))
    }

    /// The first of `frames` that is mapped for good in a way that does not go together with `wanted`, and by which mapping (S97).
    pub(crate) fn static_clash(
        &self,
        mut frames: impl Iterator<Item = Pfn>,
        wanted: Attributes,
    ) -> Option<(Pfn, StaticMapping)> {
        let unfit = |had: &&StaticMapping| clash(had.attributes, wanted);
        frames.find_map(|frame| {
            // Most are far from all of them.
            if !self.statics.may_have(frame.base(), frame.base()) {
                return None;
            }
            let had = self.statics.all().filter(unfit).find(|had| had.page_of(frame).is_some())?;
            Some((frame, *had))
        })
    }

    /// What the static mappings say of the bytes from `first` to `last`, wanted so.
    pub(super) fn static_answer(
        &self,
        (first, last): (PhysAddr, PhysAddr),
        wanted: Attributes,
    ) -> Answer {
        if !self.statics.may_have(first, last) {
            return Answer::Nothing;
        }
        for mapping in self.statics.all() {
            let StaticMapping { range, attributes, pages: at } = mapping;
            // The mapping is of whole pages: who wants none of its bytes wants none of its pages.
            if first > range.last || last < range.first {
                continue;
            }
            if *attributes != wanted {
                return Answer::Otherwise(*mapping);
            }
            if range.has_all(first, last) {
                let offset = first.raw() - range.first.raw();
                return Answer::At(VirtAddr::new(at.start().raw() + offset));
            }
        }
        Answer::Nothing
    }
}
