//! What one line is in.

use super::{Edge, Level, Wrong};
use crate::streaming::{Flow, Levels, Step, Upkeep};

/// Whose a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Processor,
    /// On its way to a device, or to be used uncached.
    Leaving,
    /// A device may write it.
    Device(Flow),
    /// A device's that writes, and the processor's for the moment.
    Synchronised(Flow),
    /// As many transfers as that read it.
    Readers(u16),
    /// On its way back.
    Returning(Flow),
    Uncached,
}

/// The state of a line. A cache *may hold* it: dirty while it leaves, stale while a device has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    owner: Owner,
    inner: bool,
    outer: bool,
    /// Readers that it had when it was given once more.
    readers: u16,
}

impl State {
    /// The processor's, as all that is not listed.
    pub(super) const UNLISTED: Self =
        Self { owner: Owner::Processor, inner: true, outer: true, readers: 0 };

    const fn held(self, levels: Levels) -> Option<Level> {
        match (self.inner, self.outer, levels) {
            (true, _, _) => Some(Level::Inner),
            (false, true, Levels::InnerAndOuter) => Some(Level::Outer),
            (false, _, _) => None,
        }
    }

    const fn of(owner: Owner) -> Self {
        Self { owner, ..Self::UNLISTED }
    }

    /// The state after `edge`.
    pub(super) fn after(self, edge: Edge, levels: Levels) -> Result<Self, Wrong> {
        match edge {
            Edge::Giving(flow, Step::Whole) => self.giving(flow),
            Edge::Giving(flow, Step::Sync) => self.giving_again(flow),
            Edge::Given(flow, step) => match (self.owner, self.held(levels)) {
                (Owner::Leaving, None) if flow.device_writes() => Ok(Self::of(Owner::Device(flow))),
                (Owner::Leaving, None) => {
                    let more = u16::from(step == Step::Whole);
                    Ok(Self::of(Owner::Readers(self.readers.saturating_add(more))))
                }
                (Owner::Leaving, Some(level)) => Err(Wrong::StillDirty(level)),
                _ => Err(Wrong::StillDirty(Level::Inner)),
            },
            Edge::Taking(flow, _) => match self.owner {
                Owner::Device(given) | Owner::Synchronised(given) if given == flow => {
                    Ok(Self::of(Owner::Returning(flow)))
                }
                Owner::Device(given) | Owner::Synchronised(given) => {
                    Err(Wrong::OtherFlow { given, taken: flow })
                }
                // Nothing changes before it is taken: others may read on.
                Owner::Readers(_) if flow == Flow::ToDevice => Ok(self),
                Owner::Readers(_) => Err(Wrong::OtherFlow { given: Flow::ToDevice, taken: flow }),
                _ => Err(Wrong::NotTheDevices),
            },
            Edge::Taken(flow, step) => match (self.owner, self.held(levels)) {
                (Owner::Readers(_), _) if flow == Flow::ToDevice && step == Step::Sync => Ok(self),
                (Owner::Readers(1), _) if flow == Flow::ToDevice => Ok(Self::UNLISTED),
                (Owner::Readers(more), _) if flow == Flow::ToDevice => {
                    Ok(Self::of(Owner::Readers(more - 1)))
                }
                (Owner::Returning(given), None) if given == flow => match step {
                    Step::Whole => Ok(Self::UNLISTED),
                    Step::Sync => Ok(Self::of(Owner::Synchronised(flow))),
                },
                (Owner::Returning(given), Some(level)) if given == flow => {
                    Err(Wrong::StillStale(level))
                }
                _ => Err(Wrong::NotTheDevices),
            },
            Edge::Lending => match self.owner {
                Owner::Processor => Ok(Self::of(Owner::Leaving)),
                _ => self.giving(Flow::Bidirectional),
            },
            Edge::Lent => match (self.owner, self.held(levels)) {
                (Owner::Leaving, None) => Ok(Self::of(Owner::Uncached)),
                (_, Some(level)) => Err(Wrong::StillCached(level)),
                (_, None) => Err(Wrong::StillCached(Level::Inner)),
            },
            Edge::Returned => match self.owner {
                Owner::Uncached => Ok(Self::UNLISTED),
                _ => Err(Wrong::NotUncached),
            },
        }
    }

    fn giving(self, flow: Flow) -> Result<Self, Wrong> {
        let leaving = Self::of(Owner::Leaving);
        match self.owner {
            Owner::Processor => Ok(leaving),
            Owner::Readers(readers) if flow == Flow::ToDevice => Ok(Self { readers, ..leaving }),
            Owner::Readers(_) | Owner::Leaving => Err(Wrong::TheDevices(Flow::ToDevice)),
            Owner::Device(flow) | Owner::Synchronised(flow) | Owner::Returning(flow) => {
                Err(Wrong::TheDevices(flow))
            }
            Owner::Uncached => Err(Wrong::Uncached),
        }
    }

    /// What is a device's already is given to it once more.
    fn giving_again(self, flow: Flow) -> Result<Self, Wrong> {
        let leaving = Self::of(Owner::Leaving);
        match self.owner {
            Owner::Device(given) | Owner::Synchronised(given) if given == flow => Ok(leaving),
            Owner::Device(given) | Owner::Synchronised(given) => {
                Err(Wrong::OtherFlow { given, taken: flow })
            }
            Owner::Readers(readers) if flow == Flow::ToDevice => Ok(Self { readers, ..leaving }),
            Owner::Readers(_) => Err(Wrong::OtherFlow { given: Flow::ToDevice, taken: flow }),
            _ => Err(Wrong::NotTheDevices),
        }
    }

    /// The state after `what` was done in the cache `level`.
    pub(super) const fn maintained(self, level: Level, what: Upkeep) -> Result<Self, Wrong> {
        let cleans = matches!(what, Upkeep::Clean | Upkeep::CleanAndInvalidate);
        match (self.owner, level) {
            (Owner::Device(_) | Owner::Returning(_), _) if cleans => {
                Err(Wrong::CleanedUnderTheDevice)
            }
            // What is written back lands in the outer cache.
            (Owner::Leaving, Level::Inner) if cleans => {
                Ok(Self { inner: false, outer: self.outer || self.inner, ..self })
            }
            // What the data cache still has is written back later.
            (Owner::Leaving, Level::Outer) if cleans => Ok(Self { outer: self.inner, ..self }),
            (Owner::Returning(_), Level::Outer) => Ok(Self { outer: false, ..self }),
            // It may be read in again at once, from the outer cache.
            (Owner::Returning(_), Level::Inner) => Ok(Self { inner: self.outer, ..self }),
            _ => Ok(self),
        }
    }
}
