//! Device addresses: which are taken, in a domain's window.
//!
//! ```text
//!   multiple of 16 MiB   base                                      base + size
//!          ├──────────────┼─────────────────────────────────────────┤
//!          │ never given  │ runs of pages, first fit, order-aligned │   the bitmaps of the atomic pool (`crate::pool`)
//!          └──────────────┴─────────────────────────────────────────┘
//! ```
//! The bitmaps begin at a multiple of the largest alignment, so that what is aligned in them is aligned as an address, wherever the
//! window begins: a run's first address is a multiple of the power of two that holds it, up to 16 MiB, as large entries need it.
//!
//! Whoever ends a mapping step by step claims its run first, so that nobody else does: the run stays taken, and is marked. While there are
//! such marks, whoever frees a run looks whether it has one ([`IovaSpace::release_unclaimed`]), and not otherwise.
//!
//! Plain state: the caller keeps it behind a lock.

use crate::addr::{DmaAddr, LARGE_PAGE_SIZE, PAGE_SHIFT, PAGE_SIZE, PageRange, VirtAddr};
use crate::frames::Freed;
use crate::iommu::error::{CreateError, IovaError};
use crate::pool::{MOST_ALIGNED, Marks, NewError, Pool, Size, Word};

/// How full a window is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IovaUse {
    /// Pages there are.
    pub pages: u32,
    /// Pages that are taken.
    pub taken: u32,
    /// Runs that are taken.
    pub runs: u32,
}

/// Which addresses of a window are taken.
#[derive(Debug)]
pub struct IovaSpace<'s> {
    pool: Pool<'s>,
    /// Pages of the pool below the window: one run, which is never given back.
    below: u32,
    /// The first page of a run that somebody is ending, or [`NO_PAGE`].
    claim: u32,
    /// Those of all others.
    others: Marks<'s>,
    /// What begins below is not given back at a glance: `below`, or [`SHUT`] while somebody is ending a run.
    gate: u32,
}

/// The number of no page.
const NO_PAGE: u32 = u32::MAX;

/// A gate that all pages are below.
const SHUT: u32 = u32::MAX;

/// The window of `bytes` from `base`, in whole pages. The last page of all addresses is left out: its last address stands for a
/// mapping that failed.
///
/// # Errors
/// [`CreateError`].
pub fn window(base: DmaAddr, bytes: u32) -> Result<PageRange, CreateError> {
    if !base.raw().is_multiple_of(PAGE_SIZE) {
        return Err(CreateError::Unaligned { base });
    }
    let pages = bytes >> PAGE_SHIFT;
    if pages == 0 {
        return Err(CreateError::NoPages { bytes });
    }
    let wraps = CreateError::Wraps { base, bytes };
    let window = PageRange::new(VirtAddr::new(base.raw()), pages).ok_or(wraps)?;
    if window.contains(VirtAddr::new(u32::MAX)) { Err(wraps) } else { Ok(window) }
}

impl<'s> IovaSpace<'s> {
    /// Words that the bitmaps of `window` have.
    pub const fn words_for(window: PageRange) -> usize {
        let pages = below(window) + window.count();
        // Less than all pages, and so less than 4 GiB.
        Pool::words_for(pages << PAGE_SHIFT) + Marks::words_for(pages)
    }

    /// The addresses of `window`, all free. There must be [`IovaSpace::words_for`] words.
    ///
    /// # Errors
    /// [`CreateError::Bits`].
    pub fn new(window: PageRange, words: &'s mut [Word]) -> Result<Self, CreateError> {
        let below = below(window);
        let base = VirtAddr::new((window.first() - below) << PAGE_SHIFT);
        let bytes = (below + window.count()) << PAGE_SHIFT;
        let (wanted, had) = (Self::words_for(window), words.len());
        let too_few = CreateError::Bits(NewError::TooFewWords { wanted, had });
        let (words, rest) = words.split_at_mut_checked(Pool::words_for(bytes)).ok_or(too_few)?;
        let marks = rest.get_mut(..Marks::words_for(bytes >> PAGE_SHIFT)).ok_or(too_few)?;
        let mut pool = Pool::new(base, bytes, words).map_err(CreateError::Bits)?;
        if below != 0 {
            let taken = pool.take_capped(below << PAGE_SHIFT);
            debug_assert_eq!(taken, Some(0), "the first run of all");
        }
        Ok(Self { pool, below, claim: NO_PAGE, others: Marks::new(marks), gate: below })
    }

    /// Takes the lowest aligned run of `pages`.
    ///
    /// # Errors
    /// [`IovaError::Empty`], [`IovaError::Exhausted`].
    pub fn take(&mut self, pages: u32) -> Result<PageRange, IovaError> {
        if pages == 0 {
            return Err(IovaError::Empty);
        }
        let bytes = pages.checked_mul(PAGE_SIZE);
        match bytes.and_then(|bytes| self.pool.take_capped(bytes)) {
            Some(first) => Ok(self.run(first, pages)),
            None => Err(self.exhausted(pages)),
        }
    }

    /// As [`IovaSpace::take`], of a page, if it is at hand: its number, of all addresses'.
    #[inline(always)]
    pub(super) fn take_page(&mut self) -> Option<u32> {
        self.pool.take_page().map(|page| self.first().wrapping_add(page))
    }

    /// As [`IovaSpace::take_page`], of the pages of a large page: the number of the first.
    #[inline(always)]
    pub(super) fn take_large_page(&mut self) -> Option<u32> {
        const SIZE: Size = Size::of(LARGE_PAGE_SIZE);
        let Size::Many(sixteen) = SIZE else { return None };
        self.pool.take_many(sixteen).map(|page| self.first().wrapping_add(page))
    }

    /// Takes `run` again, which [`IovaSpace::release`] took back a moment ago.
    #[cold]
    #[inline(never)]
    pub(super) fn take_again(&mut self, run: PageRange) {
        self.pool.take_again(run.first().wrapping_sub(self.first()), run.bytes());
    }

    #[cold]
    fn exhausted(&self, pages: u32) -> IovaError {
        let (free, largest) = (self.pool.free_pages(), self.pool.largest_capped());
        IovaError::Exhausted { pages, largest, free }
    }

    /// The run of `pages` from `start` on, if it is taken.
    ///
    /// # Errors
    /// [`IovaError`], if that is no run that was taken.
    pub fn find(&self, start: DmaAddr, pages: u32) -> Result<PageRange, IovaError> {
        let page = start.raw() >> PAGE_SHIFT;
        let first = page.wrapping_sub(self.first());
        let is_inside = first >= self.below && first < self.pool.pages();
        let bytes = pages.checked_mul(PAGE_SIZE).filter(|&bytes| bytes != 0);
        let is_run = bytes.is_some_and(|bytes| self.pool.is_run(first, bytes));
        if start.raw().is_multiple_of(PAGE_SIZE) && is_inside && is_run {
            Ok(self.run(first, pages))
        } else {
            Err(self.no_run(start, pages, if is_inside { Some(first) } else { None }))
        }
    }

    #[cold]
    fn no_run(&self, start: DmaAddr, pages: u32, first: Option<u32>) -> IovaError {
        let Some(first) = first else { return IovaError::Outside { start } };
        let at = |page: u32| DmaAddr::new((self.first() + page) << PAGE_SHIFT);
        match self.pool.run_around(first) {
            None => IovaError::Free { start },
            Some(run) => {
                let (found, has) = (at(run.first), run.pages);
                IovaError::OtherRun { start, pages, found, has }
            }
        }
    }

    /// As [`IovaSpace::find`], for whoever is going to end what is mapped there: nobody else can, before he has said
    /// [`IovaSpace::release`] or [`IovaSpace::disclaim`].
    ///
    /// # Errors
    /// As for that; [`IovaError::Claimed`].
    pub fn claim(&mut self, start: DmaAddr, pages: u32) -> Result<PageRange, IovaError> {
        let run = self.find(start, pages)?;
        let first = run.first().wrapping_sub(self.first());
        if self.gate != SHUT {
            (self.claim, self.gate) = (first, SHUT);
        } else if !self.claim_too(first) {
            return Err(IovaError::Claimed { start });
        }
        Ok(run)
    }

    /// Beside other claims.
    #[cold]
    #[inline(never)]
    fn claim_too(&mut self, first: u32) -> bool {
        first != self.claim && self.others.set(first)
    }

    /// `run` stays, whoever claimed it.
    pub fn disclaim(&mut self, run: PageRange) {
        self.give_up_claim(run.first().wrapping_sub(self.first()));
    }

    #[inline(always)]
    fn give_up_claim(&mut self, first: u32) {
        if first == self.claim && self.others.are_none() {
            (self.claim, self.gate) = (NO_PAGE, self.below);
        } else {
            self.give_up_one_of(first);
        }
    }

    #[cold]
    #[inline(never)]
    fn give_up_one_of(&mut self, first: u32) {
        if first == self.claim {
            self.claim = NO_PAGE;
        } else {
            self.others.clear(first);
        }
        if self.claim == NO_PAGE && self.others.are_none() {
            self.gate = self.below;
        }
    }

    /// Takes back a run that nothing is mapped at, and no IOTLB remembers, and with it the claim. What is no run changes nothing.
    pub fn release(&mut self, run: PageRange) -> Freed {
        let first = run.first().wrapping_sub(self.first());
        if first < self.below || self.pool.give_back(first, run.bytes()) == Freed::No {
            return Freed::No;
        }
        if self.gate == SHUT {
            self.give_up_claim(first);
        }
        Freed::Yes
    }

    /// As [`IovaSpace::release`], for whoever has claimed nothing, and ends what is mapped under the same hold of the lock: what somebody
    /// else has claimed is not taken back.
    #[inline(always)]
    pub fn release_unclaimed(&mut self, run: PageRange) -> Freed {
        let first = run.first().wrapping_sub(self.first());
        if first < self.gate {
            return self.release_if_unclaimed(first, run.bytes());
        }
        self.pool.give_back(first, run.bytes())
    }

    #[cold]
    #[inline(never)]
    fn release_if_unclaimed(&mut self, first: u32, bytes: u32) -> Freed {
        if first < self.below || first == self.claim || self.others.has(first) {
            return Freed::No;
        }
        self.pool.give_back(first, bytes)
    }

    /// The run that `address` lies in, if it is taken. Looks at its words alone.
    pub fn run_of(&self, address: DmaAddr) -> Option<PageRange> {
        let page = (address.raw() >> PAGE_SHIFT).checked_sub(self.first())?;
        let run = self.pool.run_around(page).filter(|_| page >= self.below)?;
        Some(self.run(run.first, run.pages))
    }

    /// The runs that are taken, lowest first. Looks at every page.
    pub fn runs(&self) -> impl Iterator<Item = PageRange> {
        let below = usize::from(self.below != 0);
        self.pool.runs().skip(below).map(|run| self.run(run.first, run.pages))
    }

    /// The first run that begins at `page` of all addresses or behind it.
    pub fn run_from(&self, page: u32) -> Option<PageRange> {
        let from = page.saturating_sub(self.first()).max(self.below);
        self.pool.runs_from(from).next().map(|run| self.run(run.first, run.pages))
    }

    /// How full it is. Looks at every page.
    pub fn usage(&self) -> IovaUse {
        let taken = self.pool.taken_pages() - self.below;
        // No more than pages.
        let runs = u32::try_from(self.runs().count()).unwrap_or(u32::MAX);
        IovaUse { pages: self.pool.pages() - self.below, taken, runs }
    }

    /// Whether nothing is taken. Looks at every word.
    pub fn is_unused(&self) -> bool {
        self.pool.taken_pages() == self.below
    }

    /// The page of the pool's first bit.
    const fn first(&self) -> u32 {
        self.pool.base().page_number()
    }

    fn run(&self, first: u32, pages: u32) -> PageRange {
        PageRange::trusted(self.first() + first, pages)
    }
}

/// Pages between `window` and the multiple of the largest alignment below it.
const fn below(window: PageRange) -> u32 {
    window.first() % MOST_ALIGNED
}
