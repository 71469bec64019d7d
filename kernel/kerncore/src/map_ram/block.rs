//! One block: a word that says what is cut from it, and a mark for each fragment that is used.
//!
//! ```text
//!    31                          16   15     14        9           0
//!   ┌──────────────────────────────┬────────┬───────────┬───────────┐
//!   │          fragments           │ closed │     0     │   used    │
//!   └──────────────────────────────┴────────┴───────────┴───────────┘
//! ```
//! `used` counts the pages below which everything was cut, guards included; it is 0 exactly if `fragments` is. Nobody cuts from
//! a block that is `closed`; without fragments either, it is none. Closed, the lower half is more than any block holds: one
//! comparison sees both.

use core::array;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU8, AtomicU32, fence};

use super::{LARGEST, NoFragment};
use crate::addr::{PAGES_PER_SECTION, PhysAddr};
use crate::va_space::GUARD_PAGES;

const FRAGMENT: u32 = 1 << 16;
const CLOSED: u32 = 1 << 15;
const USED: u32 = CLOSED - 1;
/// The word of what is no block.
const NO_BLOCK: u32 = CLOSED;

const _: () = assert!(LARGEST <= u8::MAX as u32, "a mark holds a fragment's pages");

/// The books of one block. Only [`super::MapRam`] reads and writes them.
#[derive(Debug)]
pub struct Block {
    word: AtomicU32,
    table: AtomicU32,
    /// At a used fragment's first page its pages, else 0.
    marks: [AtomicU8; PAGES_PER_SECTION as usize],
}

/// What is left after something was put back, or after a block was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PutBack {
    /// The block stays.
    Stays,
    /// The block is none any more.
    Last,
}

impl Block {
    /// No block.
    pub fn new() -> Self {
        Self {
            word: AtomicU32::new(NO_BLOCK),
            table: AtomicU32::new(0),
            marks: array::from_fn(|_| AtomicU8::new(0)),
        }
    }

    /// Makes it one, all of it unused.
    pub(super) fn open(&self, table: PhysAddr) {
        self.table.store(table.raw(), Relaxed);
        self.word.store(0, Release);
    }

    #[inline(always)]
    pub(crate) fn table(&self) -> PhysAddr {
        PhysAddr::new(self.table.load(Relaxed))
    }

    /// Takes `pages` and a guard; gives where they begin. What was put back before is seen as it was left.
    #[inline(always)]
    pub(super) fn cut(&self, pages: u32) -> Option<u32> {
        let mut word = self.word.load(Relaxed);
        loop {
            // Of a fragment that is not too large: nothing here can wrap.
            let next = word.wrapping_add(FRAGMENT + GUARD_PAGES).wrapping_add(pages);
            if next & (CLOSED | USED) > PAGES_PER_SECTION {
                return None;
            }
            match self.word.compare_exchange_weak(word, next, Acquire, Relaxed) {
                Ok(_) => return Some(word & USED),
                Err(now) => word = now,
            }
        }
    }

    /// The fragment of `pages` at `offset` is used from now on.
    #[inline(always)]
    pub(super) fn show(&self, offset: u32, pages: u32) {
        // Relaxed, as in `claim`: whoever tells another CPU the address tells it what was done before.
        if let Some(mark) = self.marks.get(offset as usize) {
            // No more than a mark holds, which the mask says once more.
            mark.store(u8::try_from(pages & u32::from(u8::MAX)).unwrap_or(0), Relaxed);
        }
    }

    /// Takes the fragment of `pages` at `offset` out of use.
    #[inline(always)]
    pub(super) fn claim(&self, offset: u32, pages: u32) -> Result<(), NoFragment> {
        let mark = self.marks.get(offset as usize).ok_or(NoFragment::Unknown)?;
        let wanted = match u8::try_from(pages) {
            Ok(0) | Err(_) => return Err(self.refusal(mark.load(Relaxed))),
            Ok(wanted) => wanted,
        };
        match mark.compare_exchange(wanted, 0, Relaxed, Relaxed) {
            Ok(_) => Ok(()),
            Err(found) => Err(self.refusal(found)),
        }
    }

    #[cold]
    fn refusal(&self, found: u8) -> NoFragment {
        match found {
            0 if self.word.load(Relaxed) == NO_BLOCK => NoFragment::NotInBlock,
            0 => NoFragment::Unknown,
            found => NoFragment::OtherSize { found: u32::from(found) },
        }
    }

    /// Gives the `pages` at `offset` back with their guard.
    #[inline(always)]
    pub(super) fn put_back(&self, offset: u32, pages: u32) -> PutBack {
        // What was done to the pages is seen by whoever cuts them from the word that is written below.
        fence(Release);
        let mut word = self.word.load(Relaxed);
        let left = loop {
            let next = after_putting_back(word, offset, pages);
            match self.word.compare_exchange_weak(word, next, Relaxed, Relaxed) {
                Ok(_) => break next,
                Err(now) => word = now,
            }
        };
        // Closed, and this was the last.
        if left == NO_BLOCK { PutBack::Last } else { PutBack::Stays }
    }

    /// Nobody cuts from it any more.
    pub(super) fn close(&self) -> PutBack {
        let closed = |word| (word & CLOSED == 0).then_some(word | CLOSED);
        match self.word.fetch_update(Acquire, Relaxed, closed) {
            Ok(0) => PutBack::Last,
            // Closed before, perhaps ended, perhaps somebody else's by now.
            _ => PutBack::Stays,
        }
    }

    /// Ends it, if it is open and nobody has anything of it.
    pub(super) fn end_idle(&self) -> bool {
        self.word.compare_exchange(0, NO_BLOCK, Acquire, Relaxed).is_ok()
    }

    pub(super) fn fragment_at(&self, offset: u32) -> u32 {
        self.marks.get(offset as usize).map_or(0, |mark| u32::from(mark.load(Relaxed)))
    }

    pub(super) fn fragments(&self) -> u32 {
        self.word.load(Relaxed) / FRAGMENT
    }
}

impl Default for Block {
    fn default() -> Self {
        Self::new()
    }
}

/// The word when `pages` at `offset` went back with their guard.
#[inline(always)]
const fn after_putting_back(word: u32, offset: u32, pages: u32) -> u32 {
    let word = word.wrapping_sub(FRAGMENT);
    if word < FRAGMENT {
        // All of it can be cut again.
        word & CLOSED
    } else if word & USED == offset.wrapping_add(pages).wrapping_add(GUARD_PAGES) {
        word.wrapping_sub(pages + GUARD_PAGES)
    } else {
        word
    }
}
