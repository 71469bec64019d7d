//! What a kernel has, by its audit and its ledger.

use super::{Bed, HEAP_MAPPED, IMAGE, IMAGE_PAGES, pages, parts};
use kerncore::{
    addr::PageRange,
    audit::{Expected, Summary, Violation, audit, ledger},
    frames::FrameOwner,
    ledger::{Count, Ledger},
    machine::Machine,
};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// While this lives, audits know of tables that are not the kernel's own.
#[derive(Debug)]
#[must_use = "audits know of no others' tables when this is gone"]
pub struct Beside<'b>(&'b AtomicU32);

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        self.0.store(0, Relaxed);
    }
}

impl<M: Machine<Authority = ()> + Clone> Bed<M> {
    /// Everything that the audit finds.
    ///
    /// # Panics
    /// If it counts otherwise than it reports.
    pub fn audit(&self) -> (Summary, Vec<Violation>) {
        let expected = Expected {
            constants: PageRange::EMPTY,
            image: pages(IMAGE, IMAGE_PAGES),
            parts: &parts(),
            heap: self.heap.pages(),
            heap_mapped: HEAP_MAPPED,
            space_tables: self.space_tables.load(Relaxed),
        };
        let mut found = Vec::new();
        let summary = audit(&self.space, &expected, &mut |violation| found.push(violation));
        assert_eq!(summary.violations as usize, found.len(), "each is counted and reported");
        (summary, found)
    }

    /// The audit finds nothing.
    #[track_caller]
    pub fn clean(&self) -> Summary {
        let (summary, found) = self.audit();
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(lines, [""; 0]);
        summary
    }

    /// Audits know that programs and devices have tables in so many frames, until what this gives is dropped.
    pub fn beside(&self, space_tables: u32) -> Beside<'_> {
        self.space_tables.store(space_tables, Relaxed);
        Beside(&self.space_tables)
    }

    /// As [`Bed::clean`], while programs and devices have tables in so many frames.
    #[track_caller]
    pub fn clean_beside(&self, space_tables: u32) -> Summary {
        let _beside = self.beside(space_tables);
        self.clean()
    }

    /// The audit finds exactly this.
    #[track_caller]
    pub fn finds(&self, violations: &[Violation]) {
        let (_, found) = self.audit();
        let lines =
            |list: &[Violation]| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
        assert_eq!(lines(&found), lines(violations));
        assert_eq!(found, violations);
    }

    /// The ledger, with no free frame waiting unmerged, and no block idle.
    pub fn ledger(&self) -> Ledger {
        self.space.close_idle_blocks();
        self.space.zones().drain();
        ledger(&self.space)
    }

    /// Runs `test`, after which everything must be back where it was: what is held exactly, and what is kept for reuse must
    /// account for every frame that is not free any more.
    #[track_caller]
    pub fn gives_back<R>(&self, test: impl FnOnce(&Self) -> R) -> R {
        let before = self.ledger();
        let result = test(self);
        let after = self.ledger();
        let leaks: Vec<String> = before.leaks(&after).map(|leak| leak.to_string()).collect();
        assert_eq!(leaks, [""; 0]);
        let available = |ledger: &Ledger| -> u32 {
            let kept = [FrameOwner::Free, FrameOwner::PageTable, FrameOwner::Slab];
            kept.iter().map(|&owner| ledger.frames[owner as usize]).sum()
        };
        assert_eq!(available(&before), available(&after));
        self.clean();
        result
    }

    /// As [`Bed::gives_back`], with nothing kept either.
    #[track_caller]
    pub fn changes_nothing<R>(&self, test: impl FnOnce(&Self) -> R) -> R {
        let before = self.ledger();
        let result = test(self);
        let differences: Vec<String> =
            before.differences(&self.ledger()).map(|line| line.to_string()).collect();
        assert_eq!(differences, [""; 0]);
        self.clean();
        result
    }

    /// One of its counts.
    pub fn count(&self, count: Count) -> u32 {
        self.ledger().counts[count as usize]
    }
}
