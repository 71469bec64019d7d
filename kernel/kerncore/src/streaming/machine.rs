//! What streaming asks of a processor beyond [`Machine`]: its data caches, by line.

use crate::addr::{PhysAddr, VirtAddr};
use crate::machine::Machine;

/// What is done to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// What is dirty is written back; the line may stay.
    Clean,
    /// The line is dropped, dirty or not.
    Invalidate,
    /// What is dirty is written back, then the line is dropped.
    CleanAndInvalidate,
}

/// Which caches lie between a processor and what a device sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Levels {
    /// The processors' own.
    Inner,
    /// Those, and one that is maintained by physical address (PL310).
    InnerAndOuter,
}

/// A cache behind the processors' own, maintained by physical address.
///
/// Calls may come in any context, on several CPUs at once; none sleeps.
pub trait OuterCache: Sync {
    /// Begins `what` for every line that `bytes` from `first` touch. Complete only after [`OuterCache::wait`].
    fn maintain(&self, what: Upkeep, first: PhysAddr, bytes: u32);

    /// Waits until all that this CPU began is complete, down to memory.
    fn wait(&self);

    /// Both: `what` for every line that `bytes` from `first` touch, complete when this returns.
    #[inline]
    fn maintain_now(&self, what: Upkeep, first: PhysAddr, bytes: u32) {
        self.maintain(what, first, bytes);
        self.wait();
    }
}

/// A processor whose caches are maintained by hand around transfers of devices that do not snoop.
///
/// Maintenance of the inner cache is complete after [`Machine::barrier`], that of the outer one after
/// [`StreamMachine::wait_outer`]; neither waits for the other.
pub trait StreamMachine: Machine {
    /// Bytes in the longest line of any of the caches: a power of two.
    fn line_bytes(&self) -> u32;

    /// Begins `what` for every line of the processors' caches that `bytes` from `start`, which are mapped, touch.
    fn maintain_inner(&self, what: Upkeep, start: VirtAddr, bytes: u32);

    /// Begins `what` for every line of the outer cache that `bytes` from `first` touch; without one, nothing.
    fn maintain_outer(&self, what: Upkeep, first: PhysAddr, bytes: u32);

    /// Waits until the outer cache is done.
    fn wait_outer(&self);
}

/// A borrowed machine is a machine.
impl<M: StreamMachine> StreamMachine for &M {
    fn line_bytes(&self) -> u32 {
        (**self).line_bytes()
    }

    fn maintain_inner(&self, what: Upkeep, start: VirtAddr, bytes: u32) {
        (**self).maintain_inner(what, start, bytes);
    }

    fn maintain_outer(&self, what: Upkeep, first: PhysAddr, bytes: u32) {
        (**self).maintain_outer(what, first, bytes);
    }

    fn wait_outer(&self) {
        (**self).wait_outer();
    }
}
