//! Address space identifiers: 255 numbers for any number of spaces (ARM DDI 0406C, B3.9.1).
//!
//! ```text
//!   number   0         1      2      3      …    255
//!          ┌────────┬──────┬──────┬──────┬────┬──────┐
//!   owner  │ kernel │ A    │ –    │ C    │ …  │ Z    │   a space runs under the number that names it here,
//!          └────────┴──────┴──────┴──────┴────┴──────┘   and under no other
//! ```
//!
//! An entry of the TLB that is not global is tagged with the number that was current when it was read. So a number may
//! change hands only when no TLB holds an entry under it:
//!
//! * when its space dies, which invalidates what it left behind and then calls [`Asids::retire`];
//! * at a **rollover**, when a space needs a number and none is free: every number that no CPU is running under is taken
//!   away, and all TLBs are emptied, before the first of them is given out again. A space that lost its number gets
//!   another when it next runs. What a CPU runs under at that moment stays as it is: it cannot be told, and its
//!   entries come back as soon as it runs on.
//!
//! A generation, as such numbers are often told apart by, is not needed: a number is a space's for exactly as long as the
//! table above says so, and names of spaces are never used twice.
//!
//! Number 0 is the kernel's: under it nothing of a program is ever translated.

use core::sync::atomic::{AtomicU8, Ordering};

/// How many numbers the processor has, the kernel's included.
pub const NUMBERS: usize = 256;

/// The number of an address space: what CONTEXTIDR holds while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asid(u8);

impl Asid {
    /// The kernel's: no program runs under it.
    pub const KERNEL: Self = Self(0);

    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// The name of an address space, unlike that of any other there ever was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpaceId(u64);

/// Where a space keeps the number that it last ran under. Read at any time, without a lock, by whoever invalidates
/// translations of the space; written under the lock of the [`Asids`] only.
///
/// One who has cleared a descriptor, waited at a barrier, and then reads the number here invalidates enough: a CPU that
/// is given another number afterwards walks the tables afterwards, too, and finds the descriptor clear.
#[derive(Debug, Default)]
pub struct Current(AtomicU8);

impl Current {
    /// No number yet.
    pub const fn new() -> Self {
        Self(AtomicU8::new(Asid::KERNEL.0))
    }

    /// The number; the kernel's if there never was one. It may be another space's by now, if this one has not run since
    /// it lost it.
    pub fn asid(&self) -> Asid {
        Asid(self.0.load(Ordering::SeqCst))
    }
}

/// Which number is whose, and which CPU runs under which. To be kept under a lock.
///
/// `CPUS` is how many there can be, `COUNT` how many numbers, fewer only in tests.
#[derive(Clone, Debug)]
pub struct Asids<const CPUS: usize, const COUNT: usize = NUMBERS> {
    /// Of each number. `None` is free; so is the kernel's, which is never looked at.
    owners: [Option<SpaceId>; COUNT],
    running: [Option<Running>; CPUS],
    /// How many of the numbers are used.
    used: usize,
    /// Where the search for a free number begins.
    next: usize,
    spaces: u64,
    rollovers: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Running {
    space: SpaceId,
    asid: Asid,
}

impl<const CPUS: usize, const COUNT: usize> Asids<CPUS, COUNT> {
    /// All numbers free.
    pub const fn new() -> Self {
        Self::with_numbers(COUNT)
    }

    /// All numbers below `used` free, and no others used: the fewer there are, the more often they change hands.
    ///
    /// # Panics
    /// If there are not more than CPUs, or more than `COUNT`. At a rollover every CPU may keep one; one more must be
    /// there for who asked.
    pub const fn with_numbers(used: usize) -> Self {
        const { assert!(COUNT <= NUMBERS) };
        assert!(used > CPUS && used <= COUNT, "too few numbers, or too many");
        let (owners, running) = ([None; COUNT], [None; CPUS]);
        Self { owners, running, used, next: 1, spaces: 0, rollovers: 0 }
    }

    /// Names a new space. It has no number until it is entered.
    pub const fn register(&mut self) -> SpaceId {
        self.spaces += 1;
        SpaceId(self.spaces)
    }

    /// `cpu` is about to run in `space`: the number to run under, written to `current` too.
    ///
    /// `empty_tlbs`, called when numbers change hands, must empty the TLBs of all CPUs and wait until it is done.
    ///
    /// # Panics
    /// If `cpu` runs in a space already: there is one TTBR0 a CPU.
    pub fn enter(
        &mut self,
        cpu: usize,
        space: SpaceId,
        current: &Current,
        empty_tlbs: impl FnOnce(),
    ) -> Asid {
        assert!(self.running[cpu].is_none(), "CPU {cpu} is in user memory already");
        let known = current.asid();
        let asid = if self.owners[usize::from(known.0)] == Some(space) {
            known
        } else {
            self.give(space, empty_tlbs)
        };
        current.0.store(asid.0, Ordering::SeqCst);
        self.running[cpu] = Some(Running { space, asid });
        asid
    }

    /// `cpu` runs in no space any more: it has the kernel's number, and that has taken effect.
    pub const fn leave(&mut self, cpu: usize) {
        self.running[cpu] = None;
    }

    /// `space` is dead, and no TLB holds anything under `current`, which was its number: that is free.
    ///
    /// # Panics
    /// If a CPU is running in it.
    pub fn retire(&mut self, space: SpaceId, current: &Current) {
        let runs =
            |running: &Option<Running>| running.is_some_and(|running| running.space == space);
        assert!(!self.running.iter().any(runs), "a space dies while a CPU runs in it");
        let owner = &mut self.owners[usize::from(current.asid().0)];
        if *owner == Some(space) {
            *owner = None;
        }
    }

    /// How many numbers have an owner.
    pub fn taken(&self) -> usize {
        self.owners.iter().flatten().count()
    }

    /// How often all numbers were taken away.
    pub const fn rollovers(&self) -> u64 {
        self.rollovers
    }

    fn give(&mut self, space: SpaceId, empty_tlbs: impl FnOnce()) -> Asid {
        let number = match self.free_number() {
            Some(number) => number,
            None => self.roll_over(empty_tlbs),
        };
        self.owners[number] = Some(space);
        self.next = number + 1;
        #[expect(clippy::cast_possible_truncation, reason = "there are at most 256 numbers")]
        Asid(number as u8)
    }

    /// The first free number from `next` on, then from the lowest on: one that was just given back is used late.
    fn free_number(&self) -> Option<usize> {
        let is_free = |&number: &usize| self.owners[number].is_none();
        (self.next..self.used).find(is_free).or_else(|| (1..self.next).find(is_free))
    }

    #[cold]
    fn roll_over(&mut self, empty_tlbs: impl FnOnce()) -> usize {
        self.rollovers += 1;
        for (number, owner) in self.owners.iter_mut().enumerate() {
            let runs = |running: &Option<Running>| {
                running.is_some_and(|running| usize::from(running.asid.0) == number)
            };
            if !self.running.iter().any(runs) {
                *owner = None;
            }
        }
        empty_tlbs();
        self.next = 1;
        self.free_number().expect("there are more numbers than CPUs, and one is free for who asks")
    }
}

impl<const CPUS: usize, const COUNT: usize> Default for Asids<CPUS, COUNT> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
