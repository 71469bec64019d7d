//! Pages that are reached through a pinning guard alone: who has one can do without its frame while no guard lives (S101).
//!
//! ```text
//!   place     frame        guards
//!     0       0x6_7fff     0          moved out when asked for: copied, and the place names the copy
//!     1       0x6_7ffe     2          stays: an error names how many guards
//!     2       –
//! ```
//! The owner of a page knows its place for as long as he has it, and asks for the frame each time that he pins it.
//!
//! Plain state: the caller keeps it behind a lock, under which a page that is not pinned is copied.

use crate::addr::Pfn;
use crate::contiguous::Unmovable;

/// Where a movable page is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    frame: Option<Pfn>,
    guards: u32,
}

/// The places of movable pages.
#[derive(Debug)]
pub struct Places<'r> {
    places: &'r mut [Place],
}

/// A place was named that nobody has, or with the wrong number of guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPlace;

impl<'r> Places<'r> {
    /// All of them vacant.
    pub fn new(places: &'r mut [Place]) -> Self {
        places.fill(Place::default());
        Self { places }
    }

    /// The lowest vacant place, for whoever is about to borrow a frame.
    pub fn vacant(&self) -> Option<u32> {
        let place = self.places.iter().position(|place| place.frame.is_none())?;
        u32::try_from(place).ok()
    }

    /// Notes that the page of the vacant `place` is in `frame`, pinned by whoever fills it.
    ///
    /// # Errors
    /// [`NoPlace`]: it is not vacant.
    pub fn occupy(&mut self, place: u32, frame: Pfn) -> Result<(), NoPlace> {
        match self.places.get_mut(place as usize) {
            Some(place) if place.frame.is_none() => {
                *place = Place { frame: Some(frame), guards: 1 };
                Ok(())
            }
            _ => Err(NoPlace),
        }
    }

    /// One guard more: the frame does not change until [`Places::unpin`].
    ///
    /// # Errors
    /// [`NoPlace`].
    pub fn pin(&mut self, place: u32) -> Result<Pfn, NoPlace> {
        let place = self.places.get_mut(place as usize).ok_or(NoPlace)?;
        let frame = place.frame.ok_or(NoPlace)?;
        place.guards = place.guards.checked_add(1).ok_or(NoPlace)?;
        Ok(frame)
    }

    /// One guard less.
    ///
    /// # Errors
    /// [`NoPlace`]: there is none.
    pub fn unpin(&mut self, place: u32) -> Result<(), NoPlace> {
        let place = self.places.get_mut(place as usize).ok_or(NoPlace)?;
        place.guards = place.guards.checked_sub(1).ok_or(NoPlace)?;
        Ok(())
    }

    /// Makes the page at `place`, which is in `old` and not pinned, one in `new`, after `copy`.
    ///
    /// # Errors
    /// [`Unmovable`]; nothing was copied.
    pub fn relocate(
        &mut self,
        place: u32,
        old: Pfn,
        new: Pfn,
        copy: impl FnOnce(),
    ) -> Result<(), Unmovable> {
        match self.places.get_mut(place as usize) {
            Some(Place { frame: Some(frame), .. }) if *frame != old => Err(Unmovable::Busy),
            Some(Place { frame: Some(frame), guards: 0 }) => {
                copy();
                *frame = new;
                Ok(())
            }
            Some(Place { frame: Some(_), guards }) => Err(Unmovable::Pinned { guards: *guards }),
            Some(Place { frame: None, .. }) | None => Err(Unmovable::Busy),
        }
    }

    /// Makes `place` vacant, whose page is its owner's no more: the frame that it was in.
    ///
    /// # Errors
    /// [`Unmovable`]: a guard lives, or the place is vacant.
    pub fn vacate(&mut self, place: u32) -> Result<Pfn, Unmovable> {
        let place = self.places.get_mut(place as usize).ok_or(Unmovable::Busy)?;
        match *place {
            Place { frame: Some(frame), guards: 0 } => {
                *place = Place::default();
                Ok(frame)
            }
            Place { frame: Some(_), guards } => Err(Unmovable::Pinned { guards }),
            Place { frame: None, .. } => Err(Unmovable::Busy),
        }
    }

    /// How many are occupied, and how many guards live.
    pub fn counts(&self) -> (u32, u32) {
        self.places
            .iter()
            .filter(|place| place.frame.is_some())
            .fold((0, 0), |(pages, guards), place| (pages + 1, guards + place.guards))
    }
}
