//! A machine is a trait.
//!
//! Page-table algorithms do not touch hardware; they ask a [`Machine`]. The Cortex-A9 is one. SoftMachine, in the
//! tests, is another, whose TLB and cache keep stale data for as long as the architecture lets them, so that a
//! forgotten flush or clean fails there even where an emulator forgives it.
//!
//! Methods take `&self` and work on *runs*: write n descriptors, clean them, invalidate a range, and one barrier at
//! the end. Page by page through barriers would cost several times as much. What each step guarantees, and what
//! it does not, is the architecture's own wording (ARM DDI 0406C, B3.10 and A3.8); no method implies another.
//!
//! ```text
//!   make a mapping            remove a mapping                 lend a frame uncached
//!   ──────────────            ────────────────                 ─────────────────────
//!   write_descriptors         write_descriptors (zeros)        remove its linear entry, as left
//!   clean_descriptors         clean_descriptors                make the uncached mapping
//!   barrier                   barrier                          clean_and_invalidate, through it
//!                             invalidate_tlb                   barrier
//!                             barrier
//! ```
//!
//! The authority to change live tables is the machine value itself: the constructor of one that drives hardware
//! is `unsafe`, and its contract is the proof obligation of everything below it.

use core::iter;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use crate::addr::{PageRange, Pfn, PhysAddr};
use crate::descriptor::SLOT_SIZE;
use crate::lines::Edge;

/// What page tables need of a processor and its memory.
///
/// Calls may come from any context, with interrupts on or off; none sleeps.
pub trait Machine {
    /// The right to step past the owners for one call: to free by address, or to use the machine itself. On hardware only
    /// `unsafe` code can make one, by promising that nobody else uses what the call takes away or writes.
    type Authority;

    /// Reads the descriptor at `slot`, which lies in table memory and is word-aligned.
    fn read_descriptor(&self, slot: PhysAddr) -> u32;

    /// Writes `descriptors` to consecutive slots from `first`, each as one atomic word. The caller keeps to one
    /// table, or to one array of adjacent tables. Nobody but this CPU is promised to see them before [`Machine::clean_descriptors`] and
    /// [`Machine::barrier`].
    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>);

    /// As [`Machine::write_descriptors`], four at a time: what `words` makes of each four of `pointers`, as long as it makes
    /// something and all four slots are zero. Returns how many it wrote.
    #[inline(always)]
    fn write_fours_if_empty<T>(
        &self,
        first: PhysAddr,
        pointers: &[[*const T; 4]],
        words: impl Fn([*const T; 4]) -> Option<[u32; 4]>,
    ) -> u32 {
        let mut written = 0u32;
        for &four in pointers {
            let at = PhysAddr::new(first.raw().wrapping_add(written.wrapping_mul(SLOT_SIZE)));
            if self.join_descriptors(at, 4, 0, |bits, descriptor| bits | descriptor) != 0 {
                break;
            }
            let Some(four) = words(four) else { break };
            self.write_descriptors(at, four.into_iter());
            written = written.wrapping_add(4);
        }
        written
    }

    /// As [`Machine::write_descriptors`], up to the first slot that is not zero. Returns how many it wrote.
    #[inline(always)]
    fn write_if_empty(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) -> u32 {
        let mut written = 0u32;
        for descriptor in descriptors {
            let at = PhysAddr::new(first.raw().wrapping_add(written.wrapping_mul(SLOT_SIZE)));
            if self.read_descriptor(at) != 0 {
                break;
            }
            self.write_descriptors(at, iter::once(descriptor));
            written = written.wrapping_add(1);
        }
        written
    }

    /// Joins what `count` consecutive slots from `first` hold by `join`, a bitwise operation, beginning with `bits`. All lie in
    /// one table.
    #[inline(always)]
    fn join_descriptors(
        &self,
        first: PhysAddr,
        count: u32,
        bits: u32,
        join: impl Fn(u32, u32) -> u32,
    ) -> u32 {
        let slots = (0..count).map(|index| first.raw().wrapping_add(index.wrapping_mul(SLOT_SIZE)));
        let held = slots.map(|slot| self.read_descriptor(PhysAddr::new(slot)));
        held.fold(bits, join)
    }

    /// Whether `count` consecutive slots from `first` all hold `descriptor`. All lie in one table.
    #[inline(always)]
    fn all_hold(&self, first: PhysAddr, count: u32, descriptor: u32) -> bool {
        self.join_descriptors(first, count, 0, |differ, held| differ | held ^ descriptor) == 0
    }

    /// As [`Machine::write_descriptors`], with `descriptor` into `count` slots.
    #[inline(always)]
    fn fill_descriptors(&self, first: PhysAddr, count: u32, descriptor: u32) {
        self.write_descriptors(first, iter::repeat_n(descriptor, count as usize));
    }

    /// The same with zeros.
    #[inline(always)]
    fn clear_descriptors(&self, first: PhysAddr, count: u32) {
        self.fill_descriptors(first, count, 0);
    }

    /// Cleans the cache lines that hold `count` slots from `first` to where the table walker reads (S16a).
    /// Complete only after [`Machine::barrier`].
    fn clean_descriptors(&self, first: PhysAddr, count: u32);

    /// Waits until every write, clean and invalidation before it has completed on every CPU, then makes the
    /// following instructions see them (DSB, ISB).
    fn barrier(&self);

    /// Invalidates what any CPU's TLB holds for `pages`, in every address space. Complete only after
    /// [`Machine::barrier`].
    fn invalidate_tlb(&self, pages: PageRange);

    /// Cleans and invalidates, to the point of coherency, the data-cache lines of the consecutive frames from
    /// `first`, which are mapped at `pages` (as many). The mapping may be of any memory type: maintenance by MVA
    /// acts on the physical line behind the address, whatever attributes the address has (ARM DDI 0406C, B2.2),
    /// and [`crate::linear_map`] argues why it must be made through the new mapping and not the old. The frames
    /// are named too, for outer caches that are maintained by physical address.
    /// Complete only after [`Machine::barrier`].
    fn clean_and_invalidate(&self, pages: PageRange, first: Pfn);

    /// Fills the memory that is mapped at `pages`, cacheable and writable, with zeros.
    fn zero_pages(&self, pages: PageRange);

    /// Writes `first` into the first of `words` and into each other one what is `STEP` more than in the one before, by what is
    /// quickest for many: each word is one atomic store.
    #[inline(always)]
    fn write_steps<const STEP: u32>(&self, words: &[AtomicU32], first: u32) {
        write_steps::<STEP>(words, first);
    }

    /// Writes zeros into `words`, as [`Machine::write_steps`] does.
    #[inline(always)]
    fn clear_words(&self, words: &[AtomicU32]) {
        write_steps::<0>(words, 0);
    }

    /// The bits that all of `words` have, by what is quickest for many: each word is one atomic load.
    #[inline(always)]
    fn common_bits(&self, words: &[AtomicU32]) -> u32 {
        common_bits(words)
    }

    /// Told of every step of memory from one owner to the next, if caches have to do with it: `call` takes `edge` with `bytes` from
    /// `first`. Machines of tests keep a ledger of it ([`crate::lines`]); on others nothing is left of this.
    #[inline(always)]
    fn note(&self, _call: &'static str, _edge: Edge, _first: PhysAddr, _bytes: u32) {}

    /// Whether this CPU runs an interrupt's handler (S115).
    fn in_interrupt(&self) -> bool;

    /// The number of this CPU. Who is interrupted may have another when he goes on: it chooses among equals, no more.
    fn cpu(&self) -> usize;
}

/// [`Machine::write_steps`], word by word.
#[inline(always)]
pub fn write_steps<const STEP: u32>(words: &[AtomicU32], first: u32) {
    let mut next = first;
    let mut write = |word: &AtomicU32| {
        word.store(next, Relaxed);
        next = next.wrapping_add(STEP);
    };
    // Eight at a time: what counts them costs more than what writes them.
    let (eights, rest) = words.as_chunks::<8>();
    for eight in eights {
        eight.iter().for_each(&mut write);
    }
    rest.iter().for_each(write);
}

/// [`Machine::common_bits`], word by word.
#[inline(always)]
pub fn common_bits(words: &[AtomicU32]) -> u32 {
    let join = |common: u32, word: &AtomicU32| common & word.load(Relaxed);
    let (eights, rest) = words.as_chunks::<8>();
    let common = eights.iter().fold(u32::MAX, |common, eight| eight.iter().fold(common, join));
    rest.iter().fold(common, join)
}

/// A borrowed machine is a machine.
impl<M: Machine> Machine for &M {
    type Authority = M::Authority;

    fn read_descriptor(&self, slot: PhysAddr) -> u32 {
        (**self).read_descriptor(slot)
    }

    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        (**self).write_descriptors(first, descriptors);
    }

    #[inline(always)]
    fn write_fours_if_empty<T>(
        &self,
        first: PhysAddr,
        pointers: &[[*const T; 4]],
        words: impl Fn([*const T; 4]) -> Option<[u32; 4]>,
    ) -> u32 {
        (**self).write_fours_if_empty(first, pointers, words)
    }

    #[inline(always)]
    fn write_if_empty(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) -> u32 {
        (**self).write_if_empty(first, descriptors)
    }

    #[inline(always)]
    fn join_descriptors(
        &self,
        first: PhysAddr,
        count: u32,
        bits: u32,
        join: impl Fn(u32, u32) -> u32,
    ) -> u32 {
        (**self).join_descriptors(first, count, bits, join)
    }

    #[inline(always)]
    fn all_hold(&self, first: PhysAddr, count: u32, descriptor: u32) -> bool {
        (**self).all_hold(first, count, descriptor)
    }

    #[inline(always)]
    fn fill_descriptors(&self, first: PhysAddr, count: u32, descriptor: u32) {
        (**self).fill_descriptors(first, count, descriptor);
    }

    fn clean_descriptors(&self, first: PhysAddr, count: u32) {
        (**self).clean_descriptors(first, count);
    }

    fn barrier(&self) {
        (**self).barrier();
    }

    fn invalidate_tlb(&self, pages: PageRange) {
        (**self).invalidate_tlb(pages);
    }

    fn clean_and_invalidate(&self, pages: PageRange, first: Pfn) {
        (**self).clean_and_invalidate(pages, first);
    }

    fn zero_pages(&self, pages: PageRange) {
        (**self).zero_pages(pages);
    }

    #[inline(always)]
    fn write_steps<const STEP: u32>(&self, words: &[AtomicU32], first: u32) {
        (**self).write_steps::<STEP>(words, first);
    }

    #[inline(always)]
    fn clear_words(&self, words: &[AtomicU32]) {
        (**self).clear_words(words);
    }

    #[inline(always)]
    fn common_bits(&self, words: &[AtomicU32]) -> u32 {
        (**self).common_bits(words)
    }

    #[inline(always)]
    fn note(&self, call: &'static str, edge: Edge, first: PhysAddr, bytes: u32) {
        (**self).note(call, edge, first, bytes);
    }

    fn in_interrupt(&self) -> bool {
        (**self).in_interrupt()
    }

    #[inline(always)]
    fn cpu(&self) -> usize {
        (**self).cpu()
    }
}

#[cfg(test)]
mod tests;
