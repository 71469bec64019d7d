//! The Cortex-A9 as a [`Machine`].
//!
//! ```text
//!   physical 0x6000_0000 + x  ──▶  table memory and frames are reached at 0x8000_0000 + x, the linear map
//! ```
//!
//! Slots are atomic words: another CPU's walker may read one while it is written, and sees the old or the new word.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use kerncore::addr::{PageRange, Pfn, PhysAddr, VirtAddr};
use kerncore::layout::{LINEAR_PHYSICAL, LINEAR_START};
use kerncore::lines::{Edge, Level};
use kerncore::machine::Machine;
use kerncore::streaming::Upkeep;

use crate::{barrier, cache, cpu, lines, memory, outer, stream, tlb};

/// The right to change this processor's translation tables.
#[derive(Clone, Copy, Debug)]
pub struct CortexA9(());

impl CortexA9 {
    /// Takes the right.
    ///
    /// # Safety
    /// This is the proof obligation of everything that is built on a page table (ARCHITECTURE.md, "Authority is a value, and one
    /// contract"). Whoever calls it promises that, from now on:
    ///
    /// 1. table memory (the first-level tables, the linear map's second-level tables, and every frame that is named to a
    ///    page table as one) is reached through this value alone, and is mapped in the linear map, as ordinary memory;
    /// 2. descriptors are written only for pages whose [`OwnedRange`](kerncore::owned_range::OwnedRange) the writer
    ///    holds, and no such page is memory that Rust sees but through the handle that holds it;
    /// 3. pages given to [`Machine::zero_pages`] are mapped, writable, to frames that are exclusively the caller's;
    /// 4. memory whose lines are to be invalidated is the caller's, and nothing that the processor wrote there is wanted any more;
    /// 5. it runs on a processor that the boot stub has set up: coherent, with the linear map in TTBR1.
    ///
    /// # Panics
    /// If the processor's data-cache lines are not those of a Cortex-A9: every clean would miss some.
    pub unsafe fn new() -> Self {
        assert_eq!(cache::data_line_bytes(), cache::A9_LINE, "this is no Cortex-A9");
        Self(())
    }
}

/// The right to step past the owners of memory, for one call.
///
/// Not `Clone`: each call that needs one is a promise of its own.
#[derive(Debug)]
pub struct Authority(());

impl Authority {
    /// Makes the promise.
    ///
    /// # Safety
    /// The call that this is given to takes away, or writes, only what nobody else uses or refers to.
    #[inline(always)]
    pub const unsafe fn claim() -> Self {
        Self(())
    }
}

/// Where the table word or frame at `physical` is reached. For memory in the linear map; nothing is checked.
#[inline(always)]
const fn linear(physical: PhysAddr) -> VirtAddr {
    VirtAddr::new(physical.raw().wrapping_add(LINEAR_START.raw() - LINEAR_PHYSICAL.raw()))
}

/// The slot at `physical`.
#[inline(always)]
fn slot(physical: PhysAddr) -> *const AtomicU32 {
    core::ptr::with_exposed_provenance(linear(physical).raw() as usize)
}

/// How many slots lie between the two.
#[inline(always)]
fn slots_between(start: *const AtomicU32, end: *const AtomicU32) -> u32 {
    let bytes = end.addr().wrapping_sub(start.addr());
    u32::try_from(bytes / size_of::<u32>()).unwrap_or(u32::MAX)
}

impl Machine for CortexA9 {
    type Authority = Authority;

    #[inline(always)]
    fn read_descriptor(&self, descriptor: PhysAddr) -> u32 {
        // SAFETY: promises 1 and 5 of `new`: a table word, mapped, aligned, and accessed as an atomic word only.
        unsafe { &*slot(descriptor) }.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        // By `fold`, which keeps the place in a register.
        descriptors.fold(slot(first), |next, descriptor| {
            // SAFETY: as in `read_descriptor`; the caller keeps to one table.
            unsafe { &*next }.store(descriptor, Ordering::Relaxed);
            next.wrapping_add(1)
        });
    }

    #[inline(always)]
    fn write_if_empty(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) -> u32 {
        let start = slot(first);
        let mut next = start;
        for descriptor in descriptors {
            // SAFETY: as in `read_descriptor`; the caller keeps to one table.
            let word = unsafe { &*next };
            if word.load(Ordering::Relaxed) != 0 {
                break;
            }
            word.store(descriptor, Ordering::Relaxed);
            next = next.wrapping_add(1);
        }
        slots_between(start, next)
    }

    /// Four slots and four pointers by one load each, as much as one of them costs by itself.
    #[inline(always)]
    fn write_fours_if_empty<T>(
        &self,
        first: PhysAddr,
        pointers: &[[*const T; 4]],
        words: impl Fn([*const T; 4]) -> Option<[u32; 4]>,
    ) -> u32 {
        let start = slot(first);
        let (mut next, mut four) = (start, pointers.as_ptr_range());
        while four.start != four.end {
            let (a, b, c, d): (u32, u32, u32, u32);
            // SAFETY: as in `read_descriptor`, for four words; the caller keeps to one table.
            unsafe {
                asm!(
                    "ldm {next}, {{r0, r1, r2, r3}}",
                    next = in(reg) next,
                    out("r0") a, out("r1") b, out("r2") c, out("r3") d,
                    options(nostack, preserves_flags, readonly),
                );
            }
            if (a | b) | (c | d) != 0 {
                break;
            }
            let (a, b, c, d);
            // SAFETY: reads four pointers of the slice, which are words here.
            unsafe {
                asm!(
                    "ldm {four}!, {{r0, r1, r2, r3}}",
                    four = inout(reg) four.start,
                    out("r0") a, out("r1") b, out("r2") c, out("r3") d,
                    options(nostack, preserves_flags, readonly),
                );
            }
            let Some([a, b, c, d]) = words([a, b, c, d]) else { break };
            // SAFETY: as in `write_descriptors`, for four words; each word of a store of several is atomic by itself, as in
            // `join_descriptors`.
            unsafe {
                asm!(
                    "stm {next}!, {{r0, r1, r2, r3}}",
                    next = inout(reg) next,
                    in("r0") a, in("r1") b, in("r2") c, in("r3") d,
                    options(nostack, preserves_flags),
                );
            }
        }
        slots_between(start, next)
    }

    /// Eight or sixteen at a time: this is half of what mapping a page costs. Each word of a load of several is atomic by itself
    /// (ARM DDI 0406C, A3.5.3).
    #[inline(always)]
    fn join_descriptors(
        &self,
        first: PhysAddr,
        count: u32,
        bits: u32,
        join: impl Fn(u32, u32) -> u32,
    ) -> u32 {
        let (mut joined, mut next, mut left) = (bits, slot(first), count);
        let mut join_eight = |joined: u32| {
            let mut words = [0; 8];
            // SAFETY: as in `read_descriptor`, for eight words; the caller keeps to one table.
            unsafe {
                asm!(
                    "ldm {next}!, {{r0, r1, r2, r3, r4, r5, r8, r12}}",
                    next = inout(reg) next,
                    out("r0") words[0], out("r1") words[1], out("r2") words[2], out("r3") words[3],
                    out("r4") words[4], out("r5") words[5], out("r8") words[6], out("r12") words[7],
                    options(nostack, preserves_flags, readonly),
                );
            }
            words.into_iter().fold(joined, &join)
        };
        while left >= 16 {
            joined = join_eight(joined);
            joined = join_eight(joined);
            left -= 16;
        }
        if left == 0 {
            return joined;
        }
        if left >= 8 {
            joined = join_eight(joined);
            left -= 8;
        }
        while left > 0 {
            // SAFETY: as in `read_descriptor`.
            joined = join(joined, unsafe { &*next }.load(Ordering::Relaxed));
            next = next.wrapping_add(1);
            left -= 1;
        }
        joined
    }

    /// Of sixteen, which make up a large page or a supersection, by one comparison each: the compiler's way takes two, and more
    /// registers than there are.
    #[inline(always)]
    fn all_hold(&self, first: PhysAddr, count: u32, descriptor: u32) -> bool {
        if count != 16 {
            return self
                .join_descriptors(first, count, 0, |differ, held| differ | held ^ descriptor)
                == 0;
        }
        let same: u32;
        // SAFETY: as in `join_descriptors`, for sixteen words. A comparison is made only if those before found no difference.
        unsafe {
            asm!(
                "ldm {next}!, {{r0, r1, r2, r3, r4, r5, r8, r12}}",
                "cmp r0, {wanted}",
                "cmpeq r1, {wanted}",
                "cmpeq r2, {wanted}",
                "cmpeq r3, {wanted}",
                "cmpeq r4, {wanted}",
                "cmpeq r5, {wanted}",
                "cmpeq r8, {wanted}",
                "cmpeq r12, {wanted}",
                "ldm {next}, {{r0, r1, r2, r3, r4, r5, r8, r12}}",
                "cmpeq r0, {wanted}",
                "cmpeq r1, {wanted}",
                "cmpeq r2, {wanted}",
                "cmpeq r3, {wanted}",
                "cmpeq r4, {wanted}",
                "cmpeq r5, {wanted}",
                "cmpeq r8, {wanted}",
                "cmpeq r12, {wanted}",
                "mov r0, #0",
                "moveq r0, #1",
                next = inout(reg) slot(first) => _,
                wanted = in(reg) descriptor,
                out("r0") same, out("r1") _, out("r2") _, out("r3") _,
                out("r4") _, out("r5") _, out("r8") _, out("r12") _,
                options(nostack, readonly),
            );
        }
        same != 0
    }

    /// Eight at a time, as in `join_descriptors`. Sixteen, which make up a large page or a supersection, take no loop.
    #[inline(always)]
    fn fill_descriptors(&self, first: PhysAddr, count: u32, descriptor: u32) {
        let (mut next, mut left) = (slot(first), count % 8);
        if count == 16 {
            // SAFETY: as in `write_descriptors`, for sixteen words.
            unsafe {
                asm!(
                    "stm {next}!, {{r0, r1, r2, r3, r4, r5, r8, r12}}",
                    "stm {next}, {{r0, r1, r2, r3, r4, r5, r8, r12}}",
                    next = inout(reg) next => _,
                    in("r0") descriptor, in("r1") descriptor, in("r2") descriptor, in("r3") descriptor,
                    in("r4") descriptor, in("r5") descriptor, in("r8") descriptor, in("r12") descriptor,
                    options(nostack, preserves_flags),
                );
            }
            return;
        }
        if count >= 8 {
            // SAFETY: as in `write_descriptors`, for as many eights as there are. A loop of its own: it takes one instruction less
            // than the compiler's.
            unsafe {
                asm!(
                    "2:",
                    "stm {next}!, {{r0, r1, r2, r3, r4, r5, r8, r12}}",
                    "subs {eights}, {eights}, #8",
                    "bne 2b",
                    next = inout(reg) next,
                    eights = inout(reg) count - left => _,
                    in("r0") descriptor, in("r1") descriptor, in("r2") descriptor, in("r3") descriptor,
                    in("r4") descriptor, in("r5") descriptor, in("r8") descriptor, in("r12") descriptor,
                    options(nostack),
                );
            }
        }
        while left > 0 {
            // SAFETY: as in `write_descriptors`.
            unsafe { &*next }.store(descriptor, Ordering::Relaxed);
            next = next.wrapping_add(1);
            left -= 1;
        }
    }

    #[inline(always)]
    fn clean_descriptors(&self, first: PhysAddr, count: u32) {
        cache::clean_slots_to_unification(linear(first), count);
    }

    #[inline(always)]
    fn barrier(&self) {
        barrier::dsb();
        barrier::isb();
    }

    #[inline(always)]
    fn invalidate_tlb(&self, pages: PageRange) {
        tlb::invalidate(pages);
    }

    #[inline]
    fn clean_and_invalidate(&self, pages: PageRange, first: Pfn) {
        cache::clean_and_invalidate_pages(pages);
        stream::done(Level::Inner, Upkeep::CleanAndInvalidate, first.base(), pages.bytes());
        if outer::is_there() {
            stream::outer_too(first.base(), pages.bytes());
        }
    }

    #[inline(always)]
    fn note(&self, call: &'static str, edge: Edge, first: PhysAddr, bytes: u32) {
        lines::edge(call, edge, first, bytes);
    }

    #[inline]
    fn zero_pages(&self, pages: PageRange) {
        // SAFETY: promise 3 of `new`.
        unsafe { memory::zero_pages(pages) };
    }

    #[inline(always)]
    fn write_steps<const STEP: u32>(&self, words: &[AtomicU32], first: u32) {
        memory::write_steps::<STEP>(words, first);
    }

    #[inline(always)]
    fn clear_words(&self, words: &[AtomicU32]) {
        memory::clear_words(words);
    }

    #[inline(always)]
    fn common_bits(&self, words: &[AtomicU32]) -> u32 {
        memory::common_bits(words)
    }

    #[inline(always)]
    fn in_interrupt(&self) -> bool {
        cpu::in_interrupt()
    }

    #[inline(always)]
    fn cpu(&self) -> usize {
        cpu::id() as usize
    }
}
