//! Temporary mappings of single frames: how memory without linear addresses is reached.
//!
//! ```text
//!   window     │ CPU 0: 32 slots, one kept back   │ CPU 1 …            one second-level table, made at boot
//!              │ slot │ gap │ slot │ gap │ …      │                    nothing is ever mapped in a gap
//! ```
//! A slot is a page and the gap behind it. Each CPU takes from slots of its own, by one word of bits that is changed as a
//! whole. So no lock is taken and nothing is allocated: any context will do, a handler that interrupted the taking of a
//! slot included, and mappings nest as deep as there are slots. Which CPU's slot it is decides about nothing but who waits for
//! whom in the bus: a mapping may be used, and given up, wherever its owner is.
//!
//! # When all of a CPU's slots are held
//!
//! Whoever asks for one more is told so ([`KmapError::Exhausted`]), and may give one up or try again. To wait is no choice:
//! most who map may not sleep, and who holds all at once might be the one that waits. To take another CPU's would only put the
//! end off. To end the kernel would be right only if no caller could do without, and each here can.
//!
//! But who takes memory back from a device can not: what it wrote would be lost, and what stands for the mapping kept for good. For
//! those each CPU has one slot more, which nobody holds for longer than a step takes, with interrupts masked, one CPU at a
//! time ([`crate::kernel_space::KernelSpace::reach`]). So it is never taken when somebody comes.
//!
//! # Why every CPU's TLB is told
//!
//! Most often no other CPU has ever used a slot's address, and to invalidate it here would seem to do. But any CPU may walk the
//! tables for an address that it only guesses, and keep what it finds. The frame may go to somebody else when it is given
//! back, to one who maps it with another memory type, say; then an entry that a guess left in another TLB would be the second
//! mapping that must not be (S23, S97). So the invalidation is inner-shareable, as everywhere.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::addr::{PageRange, Pfn, PhysAddr, VirtAddr};
use crate::attributes::Attributes;
use crate::descriptor::l2::SmallPages;
use crate::failure::Point;
use crate::frames::FrameOwner;
use crate::lock::Locks;
use crate::machine::Machine;
use crate::owned_range::OwnedRange;
use crate::page_table::{AdoptError, PageTable, Slots};

/// CPUs that have slots of their own.
const CPUS: u32 = 4;
/// Slots of each: a bit of a word for each.
const NUMBERS: u32 = u32::BITS;
/// Those of them that whoever asks may hold. The last is for who cannot be refused.
pub const SLOTS: u32 = NUMBERS - 1;
/// Pages of a slot, its gap included.
const STRIDE: u32 = 2;
/// Pages of a window: one section.
pub const WINDOW_PAGES: u32 = CPUS * NUMBERS * STRIDE;

/// The window of temporary mappings.
#[derive(Debug)]
pub struct Kmap<M> {
    machine: M,
    /// Never given out: the right to every slot. `None` where there is no window.
    window: Option<OwnedRange>,
    /// The table's first slot, which is the window's first page's.
    slots: PhysAddr,
    /// A bit for each slot that is taken.
    taken: [AtomicU32; CPUS as usize],
}

/// Why a frame was not mapped. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KmapError {
    /// All of this CPU's slots are taken.
    Exhausted {
        /// The CPU.
        cpu: usize,
        /// How many it has.
        slots: u32,
    },
    /// The frame is not memory that anybody has.
    NotMemory {
        /// The frame.
        frame: Pfn,
        /// Whose it is.
        owner: FrameOwner,
    },
    /// The frame is mapped with another memory type, or executable (S97, S112).
    Lent {
        /// The frame.
        frame: Pfn,
        /// To whom.
        owner: FrameOwner,
    },
    /// The kernel's safety hangs on what the frame holds: text, constants, tables, books (S112).
    KernelsOwn {
        /// The frame.
        frame: Pfn,
        /// Whose it is.
        owner: FrameOwner,
    },
}

/// Nothing is mapped there for a moment: in a gap, unmapped before, or elsewhere. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KunmapError {
    /// The address given.
    pub address: VirtAddr,
}

/// A frame at an address of its own, until this is dropped.
#[must_use = "dropped, it is unmapped"]
pub struct Mapped<'k, M: Machine> {
    /// The window, and the slot by CPU and number; `None` of a linear address.
    slot: Option<(&'k Kmap<M>, usize, u32)>,
    page: PageRange,
}

impl<M: Machine> Kmap<M> {
    /// The window at `window`, a section, below the second-level table at `second_level`, which is empty.
    ///
    /// # Errors
    /// [`AdoptError`].
    pub fn new<L: Locks>(
        table: &PageTable<M, L>,
        mut window: OwnedRange,
        second_level: PhysAddr,
    ) -> Result<Self, AdoptError>
    where
        M: Clone,
    {
        if window.count() != WINDOW_PAGES {
            return Err(AdoptError::NotSections(window.pages()));
        }
        table.adopt_tables(&mut window, second_level)?;
        let machine = table.machine().clone();
        Ok(Self { machine, window: Some(window), slots: second_level, taken: Default::default() })
    }

    /// No window: every request is refused. For a kernel whose memory all has linear addresses.
    pub fn none<L: Locks>(table: &PageTable<M, L>) -> Self
    where
        M: Clone,
    {
        let machine = table.machine().clone();
        Self { machine, window: None, slots: PhysAddr::new(0), taken: Default::default() }
    }

    /// Its addresses.
    pub fn window(&self) -> PageRange {
        self.window.as_ref().map_or(PageRange::EMPTY, OwnedRange::pages)
    }

    /// How many slots are taken.
    pub fn taken(&self) -> u32 {
        self.taken.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum()
    }

    /// Maps `frame`, which is the caller's to reach, as ordinary memory.
    ///
    /// # Errors
    /// [`KmapError::Exhausted`].
    pub(crate) fn map<L: Locks>(&self, frame: Pfn) -> Result<Mapped<'_, M>, KmapError> {
        let cpu = self.machine.cpu() % self.taken.len();
        let window = self.window.as_ref().ok_or(KmapError::Exhausted { cpu, slots: 0 })?;
        let exhausted = KmapError::Exhausted { cpu, slots: SLOTS };
        if L::fails(Point::Slot) {
            return Err(exhausted);
        }
        let number = self.claim(cpu).ok_or(exhausted)?;
        self.map_in(window, cpu, number, frame).ok_or(exhausted)
    }

    /// As [`Kmap::map`], in the slot that is kept back; `None` where there is no window. For whoever has the lock that keeps others from
    /// that, for as long as he has it.
    pub(crate) fn map_in_last(&self, frame: Pfn) -> Option<Mapped<'_, M>> {
        let cpu = self.machine.cpu() % self.taken.len();
        let window = self.window.as_ref()?;
        take(&self.taken[cpu], SLOTS).then(|| self.map_in(window, cpu, SLOTS, frame))?
    }

    /// Maps `frame` in a slot that was taken for it.
    fn map_in(
        &self,
        window: &OwnedRange,
        cpu: usize,
        number: u32,
        frame: Pfn,
    ) -> Option<Mapped<'_, M>> {
        let offset = (u32::try_from(cpu).unwrap_or(0) * NUMBERS + number) * STRIDE;
        let page = window.pages().sub_range(offset, 1)?;
        self.write(page, SmallPages::new(Attributes::KERNEL_DATA).word(frame));
        Some(Mapped { slot: Some((self, cpu, number)), page })
    }

    /// Takes a slot of `cpu`: the lowest that is free.
    fn claim(&self, cpu: usize) -> Option<u32> {
        let word = &self.taken[cpu];
        loop {
            let number = (!word.load(Ordering::Relaxed)).trailing_zeros();
            if number >= SLOTS {
                return None;
            }
            // A handler, or another CPU that was told the same number, may have been faster.
            if take(word, number) {
                return Some(number);
            }
        }
    }

    /// Writes the descriptor of `page`, whose slot the caller has, and makes it visible to walkers.
    fn write(&self, page: PageRange, descriptor: u32) {
        let mut range = OwnedRange::mint(page);
        let base = self.window().start();
        if let Some(mut slots) = Slots::in_array(&mut range, self.slots, base) {
            slots.write(&self.machine, core::iter::once(descriptor));
        }
        self.machine.barrier();
    }

    /// As the drop of the mapping that `address` lies in, for who has given that up ([`Mapped::keep`]).
    pub(crate) fn unmap_at(&self, address: VirtAddr) -> Result<(), KunmapError> {
        let (page, cpu, number) = self.held_at(address).ok_or(KunmapError { address })?;
        self.unmap(page, cpu, number);
        Ok(())
    }

    /// Whether a frame is mapped at the page that `address` lies in, or was a moment ago.
    pub fn is_held(&self, address: VirtAddr) -> bool {
        self.held_at(address).is_some()
    }

    /// The page of the slot that `address` lies in, and the slot by CPU and number, if it is taken.
    fn held_at(&self, address: VirtAddr) -> Option<(PageRange, usize, u32)> {
        let window = self.window();
        let offset = window.contains(address).then(|| address.page_number() - window.first())?;
        let (cpu, number) = ((offset / STRIDE / NUMBERS) as usize, offset / STRIDE % NUMBERS);
        let taken = self.taken.get(cpu)?.load(Ordering::Relaxed) & 1 << number != 0;
        if !taken || !offset.is_multiple_of(STRIDE) {
            return None;
        }
        Some((window.sub_range(offset, 1)?, cpu, number))
    }

    /// 1. Clears the descriptor. 2. Waits until no TLB has it. 3. Gives the slot back.
    fn unmap(&self, page: PageRange, cpu: usize, number: u32) {
        self.write(page, 0);
        self.machine.invalidate_tlb(page);
        self.machine.barrier();
        self.taken[cpu].fetch_and(!(1 << number), Ordering::Release);
    }
}

/// Takes the slot of that number; `false` if somebody has it.
fn take(word: &AtomicU32, number: u32) -> bool {
    let bit = 1 << number;
    word.fetch_or(bit, Ordering::Acquire) & bit == 0
}

impl<M: Machine> Mapped<'_, M> {
    /// A frame that has an address for good.
    pub(crate) const fn linear(page: PageRange) -> Self {
        Self { slot: None, page }
    }

    /// Where it is.
    pub const fn page(&self) -> PageRange {
        self.page
    }

    /// Gives the handle up and leaves the frame mapped: for raw interfaces, which unmap by address.
    pub fn keep(self) -> VirtAddr {
        let address = self.page.start();
        core::mem::forget(self);
        address
    }

    /// Whether it is at an address that is its own only until this is dropped.
    pub const fn is_temporary(&self) -> bool {
        self.slot.is_some()
    }
}

impl<M: Machine> Drop for Mapped<'_, M> {
    fn drop(&mut self) {
        if let Some((kmap, cpu, number)) = self.slot {
            kmap.unmap(self.page, cpu, number);
        }
    }
}

impl<M: Machine> fmt::Debug for Mapped<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapped").field("page", &self.page).finish_non_exhaustive()
    }
}

impl fmt::Display for KmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted { cpu, slots } => {
                write!(f, "all {slots} temporary mappings of CPU {cpu} are in use")
            }
            Self::NotMemory { frame, owner } => {
                write!(f, "frame {frame} is not memory in use ({owner})")
            }
            Self::KernelsOwn { frame, owner } => {
                write!(f, "{frame} ({owner}) is the kernel's own")
            }
            Self::Lent { frame, owner } => {
                write!(f, "frame {frame} ({owner}) is mapped otherwise")
            }
        }
    }
}

impl fmt::Display for KunmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no temporary mapping is at {}", self.address)
    }
}

impl core::error::Error for KmapError {}
impl core::error::Error for KunmapError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two who both saw it free: one has it.
    #[test]
    fn a_slot_is_given_to_one_of_those_who_reach_for_it() {
        let word = AtomicU32::new(0b101);
        assert!(take(&word, 1) && !take(&word, 1) && !take(&word, 0) && !take(&word, 2));
        assert!(take(&word, NUMBERS - 1) && !take(&word, NUMBERS - 1));
        assert_eq!(word.load(Ordering::Relaxed), 0x8000_0007);
    }
}
