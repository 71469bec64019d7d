//! Page arrays that go wrong: pointers in another order, of frames that are gone, too few, and a null that nobody minds (S27, S33).

use super::{Goes, Verdict, board, flushes::Right, same};
use histories::bed::{Bed, CALLER};
use kerncore::{
    addr::{PAGE_SIZE, VirtAddr},
    area::{AreaRecord, WITHIN},
    frames::FrameRequest,
    kernel_space::Fill,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const PAGES: u32 = 9;

/// What is done to an array behind the kernel's back, or in its place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slip {
    /// From the last page to the first.
    Backwards,
    /// Each pointer leads to the next page's frame.
    OneFurther,
    /// The last page has no pointer.
    OneLess,
    /// After a change of size the array is what it was.
    Stale,
    /// After a change of size only what came on top was noted.
    NotesTheNew,
    /// A shorter area counts as many pointers as it had.
    CountsTheOld,
}

/// Who makes memory and changes its size.
trait Notes {
    fn slip(&self) -> Option<Slip>;

    fn make(&self, bed: &Bed, pages: u32) -> VirtAddr {
        let base = bed.vmalloc(pages);
        let slip = self.slip();
        with(bed, base, |record| {
            let words = &record.within[..pages as usize];
            let old: Vec<u32> = words.iter().map(|word| word.load(Relaxed)).collect();
            for (index, word) in words.iter().enumerate() {
                match slip {
                    Some(Slip::Backwards) => word.store(old[old.len() - 1 - index], Relaxed),
                    Some(Slip::OneFurther) => word.store(old[(index + 1) % old.len()], Relaxed),
                    Some(Slip::OneLess) if index + 1 == old.len() => word.store(0, Relaxed),
                    _ => {}
                }
            }
        });
        base
    }

    fn resize(&self, bed: &Bed, base: VirtAddr, pages: u32) -> Result<VirtAddr, String> {
        let old = with(bed, base, |record| {
            let words = record.within.each_ref().map(|word| word.load(Relaxed));
            (words, record.vm.nr_pages(), record.pages().count())
        });
        let (fill, bytes) = (Fill::Uninitialised, pages * PAGE_SIZE);
        let area = bed.space.vrealloc((), base, bytes, fill, FrameRequest::ANY, CALLER);
        let moved = area.map_err(|error| error.to_string())?.pages.start();
        let (words, counted, had) = old;
        with(bed, moved, |record| match self.slip() {
            Some(Slip::Stale) => {
                record.within.iter().zip(words).for_each(|(word, old)| word.store(old, Relaxed));
            }
            // From a fresh array on, which has nothing of what was there before.
            Some(Slip::NotesTheNew) if pages > had => {
                record.within[..had as usize].iter().for_each(|word| word.store(0, Relaxed));
            }
            Some(Slip::CountsTheOld) => {
                record.vm.set_pages(VirtAddr::new(record.vm.pages()), counted);
            }
            _ => {}
        });
        Ok(moved)
    }
}

impl Notes for Right {
    fn slip(&self) -> Option<Slip> {
        None
    }
}

impl Notes for Slip {
    fn slip(&self) -> Option<Slip> {
        Some(*self)
    }
}

fn with<R>(bed: &Bed, base: VirtAddr, visit: impl FnOnce(&AreaRecord) -> R) -> R {
    bed.space.with_area(base, visit).expect("a live area")
}

/// Each pointer leads to the frame that the walker finds, and behind the last there is none.
fn matches_the_walker(bed: &Bed, base: VirtAddr, pages: u32) -> Verdict {
    let table = bed.space.zones().table();
    let (words, counted) = with(bed, base, |record| {
        (record.within.each_ref().map(|word| word.load(Relaxed)), record.vm.nr_pages())
    });
    same("pointers", &counted, &pages)?;
    for (number, word) in (0..pages).zip(&words) {
        let frame = bed.frame_at(VirtAddr::new(base.raw() + number * PAGE_SIZE));
        same(&format!("page {number}"), word, &table.pointer_to(frame))?;
    }
    Ok(())
}

/// S27, S85a: in the order of the pages.
fn an_array_leads_where_the_pages_do(notes: &impl Notes) -> Verdict {
    let bed = Bed::warm();
    [1, 2, PAGES, 16].into_iter().try_for_each(|pages| {
        // Of two blocks or more, so that frames do not follow each other.
        let _between = bed.vmalloc(1);
        let base = notes.make(&bed, pages);
        matches_the_walker(&bed, base, pages)
    })
}

/// S27, S86: longer and shorter, in place and elsewhere.
fn an_array_follows_its_memory(notes: &impl Notes) -> Verdict {
    let bed = Bed::warm();
    let mut base = Right.make(&bed, 3);
    [7, 2, 12, 16, 5].into_iter().try_for_each(|pages| {
        let _fence = (pages == 12).then(|| bed.vmalloc(1));
        base = notes.resize(&bed, base, pages)?;
        matches_the_walker(&bed, base, pages)
    })
}

/// What a free does with a null.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Right,
    /// It does not look.
    Never,
    /// It looks at the first pointer.
    First,
    /// It looks at all but the last.
    ButLast,
    /// It looks at as many as a record has room for.
    Sixteen,
}

impl Look {
    /// Makes pointers of those words that are not looked at that are as good as any.
    pub(super) fn overlooks(self, words: &[AtomicU32]) {
        for (index, word) in words.iter().enumerate() {
            let looks = match self {
                Self::Right => true,
                Self::Never => false,
                Self::First => index == 0,
                Self::ButLast => index + 1 != words.len(),
                Self::Sixteen => index < WITHIN,
            };
            if !looks {
                word.store(u32::MAX, Relaxed);
            }
        }
    }

    fn free(self, bed: &Bed, base: VirtAddr) {
        let count = |record: &AreaRecord| record.pages().count() as usize;
        with(bed, base, |record| self.overlooks(&record.within[..count(record)]));
        bed.space.vfree((), base).expect("a live area");
    }
}

/// S33: whichever pointer is null, it is fatal, by its number.
fn a_null_is_fatal(looks: &impl Goes<Look>) -> Verdict {
    let look = looks.how();
    for pages in [1, 2, PAGES, 16] {
        for index in 0..pages {
            let bed = Bed::warm();
            let base = bed.vmalloc(pages);
            with(&bed, base, |record| record.within[index as usize].store(0, Relaxed));
            let died = catch_unwind(AssertUnwindSafe(|| look.free(&bed, base)));
            let said = died.err().and_then(|words| words.downcast::<String>().ok());
            let wanted = format!("vfree: page {index} of the area at {base} is null");
            same(&format!("{pages} pages"), &said.map(|words| *words), &Some(wanted))?;
        }
    }
    Ok(())
}

board! {
    an_array_leads_where_the_pages_do(Right) {
        page_array_backwards: "S27", "the pointers stand from the last page to the first", Slip::Backwards;
        page_array_one_further: "S27", "each pointer is the next page's", Slip::OneFurther;
        page_array_without_the_last: "S27", "the last page has no pointer", Slip::OneLess;
    }
    an_array_follows_its_memory(Right) {
        page_array_stale_after_vrealloc: "S86", "the array is as it was before the memory changed its size", Slip::Stale;
        page_array_of_new_pages_alone: "S86", "a longer area's array has the new pages alone", Slip::NotesTheNew;
        page_array_counts_what_it_had: "S86", "a shorter area's descriptor counts the pages that it had", Slip::CountsTheOld;
    }
    a_null_is_fatal(Look::Right) {
        null_page_is_not_looked_for: "S33", "a null among the pointers is freed as if it were none", Look::Never;
        null_page_is_looked_for_first: "S33", "the first pointer alone is looked at", Look::First;
        null_page_is_not_looked_for_last: "S33", "the last pointer is not looked at", Look::ButLast;
    }
}
