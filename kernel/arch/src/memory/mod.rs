//! Copying and filling memory.
//!
//! The compiler calls `memcpy`, `memmove` and `memset`, under these names and those of the run-time ABI for Arm, for
//! Rust's own copies and fills. The ones defined here are strong symbols and so take the place of the generic ones that
//! come with the compiler, which go by single words. [`zero_pages`] is for what the kernel zeroes most, and runs of words
//! for the page arrays of areas.

use core::sync::atomic::AtomicU32;

use kerncore::addr::PageRange;
use kerncore::machine;

core::arch::global_asm!(include_str!("copy.S"), options(raw));
core::arch::global_asm!(include_str!("fill.S"), options(raw));
core::arch::global_asm!(include_str!("words.S"), options(raw));

unsafe extern "C" {
    fn memory_zero_pages(first: u32, bytes: u32);
    fn memory_write_steps(first: *const AtomicU32, end: *const AtomicU32, value: u32, step: u32);
    fn memory_clear_words(first: *const AtomicU32, end: *const AtomicU32);
    fn memory_common_bits(first: *const AtomicU32, end: *const AtomicU32) -> u32;
}

/// As many words as go at a time.
const MANY: usize = 32;

/// [`kerncore::machine::Machine::write_steps`]: 1.2 instructions a word, if they are many.
#[inline(always)]
pub fn write_steps<const STEP: u32>(words: &[AtomicU32], first: u32) {
    let (many, rest) = split(words);
    let mut behind = first;
    if !many.is_empty() {
        let range = many.as_ptr_range();
        // SAFETY: the words of a slice, which are atomics: whoever has a reference may write them. As many as are asked for.
        unsafe { memory_write_steps(range.start, range.end, first, STEP) };
        #[expect(clippy::cast_possible_truncation, reason = "lengths have 32 bits")]
        let written = many.len() as u32;
        behind = first.wrapping_add(written.wrapping_mul(STEP));
    }
    machine::write_steps::<STEP>(rest, behind);
}

/// [`kerncore::machine::Machine::clear_words`]: an instruction for six words, if they are many.
#[inline(always)]
pub fn clear_words(words: &[AtomicU32]) {
    let (many, rest) = split(words);
    if !many.is_empty() {
        let range = many.as_ptr_range();
        // SAFETY: as in `write_steps`.
        unsafe { memory_clear_words(range.start, range.end) };
    }
    machine::write_steps::<0>(rest, 0);
}

/// [`kerncore::machine::Machine::common_bits`]: 1.2 instructions a word, if they are many.
#[inline(always)]
pub fn common_bits(words: &[AtomicU32]) -> u32 {
    let (many, rest) = split(words);
    let mut common = machine::common_bits(rest);
    if !many.is_empty() {
        let range = many.as_ptr_range();
        // SAFETY: as in `write_steps`, of reading.
        common &= unsafe { memory_common_bits(range.start, range.end) };
    }
    common
}

/// As many as go by many, and those behind them.
#[inline(always)]
fn split(words: &[AtomicU32]) -> (&[AtomicU32], &[AtomicU32]) {
    let many = words.len() - words.len() % MANY;
    words.split_at(many)
}

/// Fills `pages` with zeros, by store-multiple: about 170 instructions a page.
///
/// # Safety
/// The pages must be mapped writable, and nothing may rely on what they held.
///
/// # Panics
/// If `pages` is the whole address space, of which nobody can say that.
#[inline]
pub unsafe fn zero_pages(pages: PageRange) {
    assert!(pages.count() < 1 << 20, "the whole address space is not to be zeroed");
    if !pages.is_empty() {
        // SAFETY: by the caller's promise; start and size are multiples of the page size, and the size is not zero.
        unsafe { memory_zero_pages(pages.start().raw(), pages.bytes()) };
    }
}
