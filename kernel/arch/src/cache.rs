//! Cache maintenance by address (ARM ARM B2.2.6, B4.2.1).
//!
//! ```text
//!   core ── L1 data ──┐                        to the point of unification: what the core's instruction fetches
//!        ── L1 instr ─┴── (outer cache) ── RAM     and table walks see
//!        ── walker ───┘                        to the point of coherency: what every bus master sees
//! ```
//!
//! By address only: the operations by set and way act on one CPU's cache and race with the other CPUs, and belong to
//! the way up from reset (boot). None of this reaches an outer cache, which is maintained by physical address, through its controller's
//! registers ([`crate::outer`]).
//!
//! Every function acts on all cache lines that the range touches, and none waits: complete is what was started only
//! after a [`dsb`]. An address must be mapped, but with any memory type and any permissions of privileged
//! reading.

use aarch32_cpu::register::SysRegWrite;
use kerncore::addr::{PageRange, VirtAddr};

use crate::barrier::{dsb, isb};
use crate::by_address;
use crate::cp15::{self, Bpiallis, Ctr, Dccimvac, Dccmvac, Dccmvau, Dcimvac, Icimvau};

/// Bytes in the smallest line of any data cache (CTR.DminLine).
#[inline(always)]
pub fn data_line_bytes() -> u32 {
    4 << (Ctr::read().0 >> 16 & 0xf)
}

/// Bytes in the smallest line of any instruction cache (CTR.IminLine).
#[inline(always)]
pub fn instruction_line_bytes() -> u32 {
    4 << (Ctr::read().0 & 0xf)
}

/// Bytes in a line of the Cortex-A9's data cache (A9 TRM 7.1).
pub(crate) const A9_LINE: u32 = 32;

/// Issues `R` for each line of `line` bytes, a power of two, that `bytes` from `start` touch, `AHEAD` lines a turn.
///
/// # Safety
/// As for [`cp15::issue`], for every line.
#[inline(always)]
unsafe fn each_line<R: SysRegWrite, const AHEAD: u32>(start: VirtAddr, bytes: u32, line: u32) {
    // SAFETY: by the caller's promise.
    let issue = |address| unsafe { cp15::issue::<R>(address) };
    by_address::each_line::<AHEAD>(start.raw(), bytes, line, issue);
}

/// Cleans data-cache lines to the point of unification.
#[inline]
pub fn clean_to_unification(start: VirtAddr, bytes: u32) {
    // SAFETY: cleaning changes no value that a program can read.
    unsafe { each_line::<Dccmvau, 4>(start, bytes, data_line_bytes()) };
}

/// As [`clean_to_unification`], on a Cortex-A9, for `count` descriptors from the slot at `first`.
#[inline(always)]
pub(crate) fn clean_slots_to_unification(first: VirtAddr, count: u32) {
    // SAFETY: cleaning changes no value that a program can read.
    let clean = |address| unsafe { cp15::issue::<Dccmvau>(address) };
    by_address::each_line_of_slots(first.raw(), count, A9_LINE, clean);
}

/// Cleans data-cache lines to the point of coherency: a device then reads what the CPU wrote, if there is no outer cache.
#[inline]
pub fn clean(start: VirtAddr, bytes: u32) {
    // SAFETY: cleaning changes no value that a program can read.
    unsafe { each_line::<Dccmvac, 4>(start, bytes, data_line_bytes()) };
}

/// Cleans and invalidates data-cache lines to the point of coherency: nothing of the range is cached afterwards.
#[inline]
pub fn clean_and_invalidate(start: VirtAddr, bytes: u32) {
    clean_and_invalidate_by(start, bytes, data_line_bytes());
}

/// As [`clean_and_invalidate`], for a caller that knows [`data_line_bytes`].
#[inline(always)]
fn clean_and_invalidate_by(start: VirtAddr, bytes: u32, line: u32) {
    // SAFETY: what the cache holds is written back before it is dropped.
    unsafe { each_line::<Dccimvac, 8>(start, bytes, line) };
}

/// As [`clean_and_invalidate`], of whole pages, where [`data_line_bytes`] is [`A9_LINE`]: two instructions a line.
#[inline(always)]
pub(crate) fn clean_and_invalidate_pages(pages: PageRange) {
    let (mut address, mut turns) = (pages.start().raw(), pages.bytes() / (A9_LINE * 64));
    while turns != 0 {
        // SAFETY: DCCIMVAC: what the cache holds is written back before it is dropped. No memory of Rust's is touched: what other
        // views of these lines show is the same before and after.
        unsafe {
            core::arch::asm!(
                ".rept 64",
                "mcr p15, 0, {address}, c7, c14, 1",
                "add {address}, {address}, #32",
                ".endr",
                address = inout(reg) address,
                options(nostack, preserves_flags),
            );
        }
        turns -= 1;
    }
}

/// Invalidates data-cache lines to the point of coherency: the CPU then reads what a device wrote. A line that lies
/// only partly in the range is cleaned first, for what else is in it.
///
/// # Safety
/// Whatever the CPU wrote to the range and has not cleaned may be lost. Nothing may rely on it.
pub unsafe fn invalidate(start: VirtAddr, bytes: u32) {
    let line = data_line_bytes();
    let end = start.raw().saturating_add(bytes);
    let (whole_start, whole_end) = by_address::whole_lines(start.raw(), end, line);
    clean_and_invalidate_by(start, whole_start - start.raw(), line);
    // SAFETY: whole lines of the range only, which the caller gives up.
    unsafe { each_line::<Dcimvac, 4>(VirtAddr::new(whole_start), whole_end - whole_start, line) };
    clean_and_invalidate_by(VirtAddr::new(whole_end), end - whole_end, line);
}

/// Makes instructions that were written to the range executable on every CPU that takes part in coherency: data
/// lines to the point of unification, then instruction lines and branch predictors. Waits until it is done; another
/// CPU has to execute an ISB of its own.
pub fn synchronize_instructions(start: VirtAddr, bytes: u32) {
    clean_to_unification(start, bytes);
    dsb();
    // SAFETY: an instruction cache holds copies only.
    unsafe { each_line::<Icimvau, 4>(start, bytes, instruction_line_bytes()) };
    // SAFETY: a branch predictor holds guesses only.
    unsafe { cp15::issue::<Bpiallis>(0) };
    dsb();
    isb();
}
