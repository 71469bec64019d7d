//! The windows of an address space: which of its pages are taken, and by what.
//!
//! ```text
//!   reserve             publish             take               release
//!  ─────────▶ reserved ─────────▶   live   ──────▶ reserved ─────────▶ free
//!             (taken; its maker    (found by        (taken; its owner
//!              maps it)             address)         unmaps it)
//! ```
//!
//! As with the kernel's areas, who owns a range maps and unmaps it outside the lock that guards this set, and nobody finds
//! what is being made or removed. There are few windows in a space: a sorted array serves.

use core::fmt;

use crate::addr::{PageRange, VirtAddr};
use crate::owned_range::OwnedRange;

/// Runs of pages of one address space, each with what stands behind it. To be kept under a lock.
#[derive(Debug)]
pub struct Windows<P, const CAPACITY: usize> {
    /// The right to all of the space, of which the windows' own are minted.
    whole: OwnedRange,
    /// Sorted by address, without overlap; the first `len` are in use.
    slots: [Slot<P>; CAPACITY],
    len: usize,
}

#[derive(Debug)]
struct Slot<P> {
    pages: PageRange,
    /// `None` while it is being made or removed.
    live: Option<P>,
}

/// Why pages could not be taken. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowError {
    /// No pages (S44).
    Empty,
    /// Some lie outside the space: on page zero, in the kernel's half.
    Outside {
        /// What was asked for.
        wanted: PageRange,
        /// All that there is.
        whole: PageRange,
    },
    /// Some are taken.
    Taken {
        /// What was asked for.
        wanted: PageRange,
        /// The lowest window in the way.
        by: PageRange,
    },
    /// There are as many windows as there can be.
    Full {
        /// How many.
        capacity: usize,
    },
}

/// No live window begins there: none ever did, it lies inside one, or it is being made or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoWindow {
    /// The address given.
    pub address: VirtAddr,
}

impl<P, const CAPACITY: usize> Windows<P, CAPACITY> {
    /// No windows in all of `whole`.
    pub fn new(whole: OwnedRange) -> Self {
        let vacant = || Slot { pages: PageRange::EMPTY, live: None };
        Self { whole, slots: core::array::from_fn(|_| vacant()), len: 0 }
    }

    /// All pages that there can be windows in.
    pub const fn whole(&self) -> PageRange {
        self.whole.pages()
    }

    /// Free → reserved: the right to exactly `wanted`.
    ///
    /// # Errors
    /// [`WindowError`].
    pub fn reserve(&mut self, wanted: PageRange) -> Result<OwnedRange, WindowError> {
        let whole = self.whole();
        if wanted.is_empty() {
            return Err(WindowError::Empty);
        }
        if !whole.contains_range(wanted) {
            return Err(WindowError::Outside { wanted, whole });
        }
        let used = &self.slots[..self.len];
        if let Some(slot) = used.iter().find(|slot| slot.pages.overlaps(wanted)) {
            return Err(WindowError::Taken { wanted, by: slot.pages });
        }
        if self.len == CAPACITY {
            return Err(WindowError::Full { capacity: CAPACITY });
        }
        let place = used.partition_point(|slot| slot.pages.first() < wanted.first());
        // The vacant slot behind the last comes to `place`, the others move up by one.
        self.slots[place..=self.len].rotate_right(1);
        self.slots[place] = Slot { pages: wanted, live: None };
        self.len += 1;
        Ok(OwnedRange::mint(wanted))
    }

    /// Reserved → live, with `payload` behind it, which holds the right to its pages.
    ///
    /// # Errors
    /// `payload`, if no reserved window begins at `start`.
    pub fn publish(&mut self, start: VirtAddr, payload: P) -> Result<(), P> {
        match self.slot_at(start) {
            Some(slot) if slot.live.is_none() => {
                slot.live = Some(payload);
                Ok(())
            }
            _ => Err(payload),
        }
    }

    /// Live → reserved: what stands behind the window that begins at `start`.
    ///
    /// # Errors
    /// [`NoWindow`].
    pub fn take(&mut self, start: VirtAddr) -> Result<P, NoWindow> {
        self.take_if(start, |_| Ok(()))
    }

    /// As [`Windows::take`], of a window that `judge` allows.
    ///
    /// # Errors
    /// [`NoWindow`], or what `judge` says; nothing has changed.
    pub fn take_if<E: From<NoWindow>>(
        &mut self,
        start: VirtAddr,
        judge: impl FnOnce(&P) -> Result<(), E>,
    ) -> Result<P, E> {
        let none = NoWindow { address: start };
        let slot = self.slot_at(start).ok_or(none)?;
        judge(slot.live.as_ref().ok_or(none)?)?;
        slot.live.take().ok_or_else(|| none.into())
    }

    /// Reserved → free.
    ///
    /// # Errors
    /// The range, if it is not that of a reserved window.
    pub fn release(&mut self, range: OwnedRange) -> Result<(), OwnedRange> {
        let is_it = |slot: &Slot<P>| slot.pages == range.pages() && slot.live.is_none();
        let Some(place) = self.slots[..self.len].iter().position(is_it) else { return Err(range) };
        self.slots[place].pages = PageRange::EMPTY;
        self.slots[place..self.len].rotate_left(1);
        self.len -= 1;
        Ok(())
    }

    /// The live window that `address` lies in.
    pub fn find(&self, address: VirtAddr) -> Option<(PageRange, &P)> {
        self.live().find(|(pages, _)| pages.contains(address))
    }

    /// What stands behind the live window that `address` lies in.
    pub fn find_mut(&mut self, address: VirtAddr) -> Option<&mut P> {
        let used = self.slots[..self.len].iter_mut();
        used.filter(|slot| slot.pages.contains(address)).find_map(|slot| slot.live.as_mut())
    }

    /// The live windows, in the order of their addresses.
    pub fn live(&self) -> impl Iterator<Item = (PageRange, &P)> {
        let used = self.slots[..self.len].iter();
        used.filter_map(|slot| Some((slot.pages, slot.live.as_ref()?)))
    }

    /// How many windows there are, those that are being made or removed included.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// How many windows are being made or removed.
    pub fn unfinished(&self) -> usize {
        self.slots[..self.len].iter().filter(|slot| slot.live.is_none()).count()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first live window's first address.
    pub fn first(&self) -> Option<VirtAddr> {
        self.live().next().map(|(pages, _)| pages.start())
    }

    fn slot_at(&mut self, start: VirtAddr) -> Option<&mut Slot<P>> {
        self.slots[..self.len].iter_mut().find(|slot| slot.pages.start() == start)
    }
}

impl fmt::Display for WindowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a window of no pages"),
            Self::Outside { wanted, whole } => write!(f, "{wanted} does not lie in {whole}"),
            Self::Taken { wanted, by } => write!(f, "of {wanted} some is taken by {by}"),
            Self::Full { capacity } => write!(f, "there are {capacity} windows, the most"),
        }
    }
}

impl fmt::Display for NoWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no window begins at {}", self.address)
    }
}

impl core::error::Error for WindowError {}
impl core::error::Error for NoWindow {}

#[cfg(test)]
mod tests;
