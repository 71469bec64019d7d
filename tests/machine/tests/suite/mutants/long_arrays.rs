//! Page arrays that do not fit in a record and go wrong: too short, one for two areas, left behind, and with a null that nobody
//! minds (S27, S28, S33).

use super::page_arrays::Look;
use super::{Goes, Verdict, board, same};
use histories::bed::{Bed, Furniture, LowMemory, pages};
use histories::host_memory::HostMemory;
use kerncore::{
    addr::{PAGE_SIZE, PageRange, VirtAddr},
    area::{AreaRecord, ArrayArea, IN_A_FRAME, PageArray},
    frames::{FrameBlock, FrameOwner},
    kernel_space::{AreaChunk, IndexChunk, RemoveError, Support},
    page_table::Removal,
};
use machine::Behaviour;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A window with room for more pages than a frame has pointers.
const WINDOW_PAGES: u32 = 8 << 8;
/// On either side of a border: in a frame, in an area.
const SIZES: [u32; 5] = [17, 600, 1024, 1025, 1100];

/// How the memory of arrays is handed out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lends {
    /// As it is.
    Right,
    /// Of a frame all but the last word.
    OneLess,
    /// Of an area all but the last frame.
    FrameLess,
    /// The same frame to all.
    OneForAll,
}

/// The memory of records and arrays.
struct Shelf {
    all: HostMemory,
    how: Lends,
}

impl Shelf {
    /// A kernel with such a shelf.
    fn new(how: Lends) -> (Bed, &'static Self) {
        let shelf: &Self = Box::leak(Box::new(Self { all: HostMemory::default(), how }));
        let usual = Furniture::with(LowMemory::All);
        let furniture = Furniture { window_pages: WINDOW_PAGES, support: shelf, ..usual };
        let bed = Bed::furnished(Behaviour::Forgetful, furniture, |machine| machine.cpu(0));
        bed.warm_up();
        (bed, shelf)
    }

    /// Where the pointers of an area lie.
    fn words<'a>(&self, record: &'a AreaRecord) -> &'a [AtomicU32] {
        match &record.array {
            PageArray::Within => &record.within,
            PageArray::Frame(block) => self.frame_words(block),
            PageArray::Area(area) => self.area_words(area),
            PageArray::Shared { .. } => unreachable!("a section's, of which there is none"),
        }
    }
}

impl Support<'static> for Shelf {
    fn chunk(&self, block: FrameBlock, entries: u32) -> AreaChunk<'static> {
        self.all.chunk(block, entries)
    }

    fn index_chunk(&self, block: FrameBlock, entries: u32) -> IndexChunk<'static> {
        self.all.index_chunk(block, entries)
    }

    fn frame_words<'a>(&self, frame: &'a FrameBlock) -> &'a [AtomicU32] {
        match self.how {
            Lends::OneForAll => self.all.words_at(pages(1, 1)),
            Lends::OneLess => {
                self.all.frame_words(frame).split_last().map_or(&[], |(_, rest)| rest)
            }
            _ => self.all.frame_words(frame),
        }
    }

    fn area_words<'a>(&self, area: &'a ArrayArea) -> &'a [AtomicU32] {
        let words = self.all.area_words(area);
        match self.how {
            Lends::FrameLess => &words[..words.len() - IN_A_FRAME as usize],
            _ => words,
        }
    }

    fn odd_tables(&self, area: PageRange, removal: Removal) {
        self.all.odd_tables(area, removal);
    }

    fn deferred_free_failed(&self, error: &RemoveError) {
        self.all.deferred_free_failed(error);
    }
}

fn with<R>(bed: &Bed, base: VirtAddr, visit: impl FnOnce(&AreaRecord) -> R) -> R {
    bed.space.with_area(base, visit).expect("a live area")
}

/// Each pointer leads to the frame that the walker finds.
fn matches_the_walker(bed: &Bed, shelf: &Shelf, base: VirtAddr, count: u32) -> Verdict {
    let table = bed.space.zones().table();
    let words: Vec<u32> = with(bed, base, |record| {
        let words = &shelf.words(record);
        words.iter().map(|word| word.load(Relaxed)).collect()
    });
    (0..count).try_for_each(|number| {
        let frame = bed.frame_at(VirtAddr::new(base.raw() + number * PAGE_SIZE));
        let found = words.get(number as usize).copied();
        let what = format!("page {number} of {count}");
        same(&what, &found, &Some(table.pointer_to(frame)))
    })
}

/// S27: whatever else has an array beside it.
fn a_long_array_leads_where_the_pages_do(serves: &impl Goes<Lends>) -> Verdict {
    let (bed, shelf) = Shelf::new(serves.how());
    SIZES.into_iter().try_for_each(|count| {
        let both = [(bed.vmalloc(count), count), (bed.vmalloc(20), 20)];
        let judged = both.iter().map(|&(base, count)| matches_the_walker(&bed, shelf, base, count));
        judged.collect::<Verdict>()?;
        for (base, _) in both {
            bed.space.vfree((), base).expect("a live area");
        }
        Ok(())
    })
}

/// How an area is freed that has an array elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Right,
    /// The frame of its array stays in use.
    WithoutItsFrame,
    /// The area that its array is stays.
    WithoutItsArea,
}

impl Ends {
    fn free(self, bed: &Bed, base: VirtAddr) {
        let array = with(bed, base, |record| match &record.array {
            PageArray::Area(area) => Some(area.pages().count()),
            _ => None,
        });
        bed.space.vfree((), base).expect("a live area");
        match (self, array) {
            (Self::WithoutItsFrame, None) => {
                let frame = bed.space.zones().allocate(0, FrameOwner::Vmalloc);
                _ = frame.expect("just freed").leak();
            }
            (Self::WithoutItsArea, Some(pages)) => _ = bed.vmalloc(pages),
            _ => {}
        }
    }
}

/// S33: all that an area took is back.
fn a_long_array_goes_with_its_area(frees: &impl Goes<Ends>) -> Verdict {
    let (bed, _) = Shelf::new(Lends::Right);
    // What is kept for reuse is made.
    for count in SIZES {
        Ends::Right.free(&bed, bed.vmalloc(count));
    }
    SIZES.into_iter().try_for_each(|count| {
        let before = bed.ledger();
        frees.how().free(&bed, bed.vmalloc(count));
        let differences: Vec<String> =
            before.differences(&bed.ledger()).map(|line| line.to_string()).collect();
        same(&format!("{count} pages"), &differences, &vec![])
    })
}

/// S33: as of a short array.
fn a_null_in_a_long_array_is_fatal(looks: &impl Goes<Look>) -> Verdict {
    let look = looks.how();
    for (count, index) in [(17, 0), (17, 16), (1024, 15), (1024, 1023), (1025, 16), (1025, 1024)] {
        let (bed, shelf) = Shelf::new(Lends::Right);
        let base = bed.vmalloc(count);
        with(&bed, base, |record| shelf.words(record)[index].store(0, Relaxed));
        let free = || {
            let words =
                |record: &AreaRecord| look.overlooks(&shelf.words(record)[..count as usize]);
            with(&bed, base, words);
            bed.space.vfree((), base).expect("a live area");
        };
        let died = catch_unwind(AssertUnwindSafe(free));
        let said = died.err().and_then(|words| words.downcast::<String>().ok());
        let wanted = format!("vfree: page {index} of the area at {base} is null");
        same(&format!("{count} pages"), &said.map(|words| *words), &Some(wanted))?;
    }
    Ok(())
}

board! {
    a_long_array_leads_where_the_pages_do(Lends::Right) {
        long_array_one_pointer_short: "S27", "a frame of pointers has room for one less", Lends::OneLess;
        long_array_one_frame_short: "S27", "an area of pointers has one frame less", Lends::FrameLess;
        long_array_of_two_areas: "S27", "two areas have their pointers in one frame", Lends::OneForAll;
    }
    a_long_array_goes_with_its_area(Ends::Right) {
        long_array_keeps_its_frame: "S33", "the frame of an array is not freed", Ends::WithoutItsFrame;
        long_array_keeps_its_area: "S33", "the area that an array is is not removed", Ends::WithoutItsArea;
    }
    a_null_in_a_long_array_is_fatal(Look::Right) {
        long_array_null_is_not_looked_for: "S33", "a null among many pointers is freed as if it were none", Look::Never;
        long_array_null_is_looked_for_first: "S33", "the first of many pointers alone is looked at", Look::First;
        long_array_null_is_not_looked_for_last: "S33", "the last of many pointers is not looked at", Look::ButLast;
        long_array_null_behind_the_sixteenth: "S33", "as many pointers are looked at as a record has", Look::Sixteen;
    }
}
