//! Of which entries a run is made (S4, S96), and how they are counted.

use super::*;
use crate::addr::PAGE_SIZE;
use crate::va_space::{Alignment, IoRemapPolicy};

const SIZES: [(PageSize, u32); 4] = [
    (PageSize::Supersection, 4096),
    (PageSize::Section, 256),
    (PageSize::Large, 16),
    (PageSize::Small, 1),
];

fn parts(first: u32, pages: u32) -> LargeParts {
    LargeParts::of_run(Pfn::new(first).expect("a frame"), pages)
}

fn counts(parts: LargeParts) -> [u32; 3] {
    [parts.supersections(), parts.sections(), parts.large_pages()]
}

/// The largest entry that may stand at page `page` of a run of `pages` that begins at a border of everything.
fn largest(first: u32, pages: u32, page: u32) -> (PageSize, u32) {
    let fits = |&&(_, count): &&(PageSize, u32)| {
        page.is_multiple_of(count) && (first + page).is_multiple_of(count) && pages - page >= count
    };
    *SIZES.iter().find(fits).expect("a small page always does")
}

/// S96: entry by entry, the largest that both sides allow and that is not too long.
#[test]
fn a_run_is_made_of_the_largest_entries_that_fit_s96() {
    let lengths = (1..=600).chain([4095, 4096, 4097, 4111, 4112, 4352, 4369, 8191, 8192, 8465]);
    for pages in lengths {
        for first in
            [0, 1, 15, 16, 48, 255, 256, 0x110, 0xf00, 0x1000, 0x4_0000, 0x4_0010, 0x4_0100]
        {
            let parts = parts(first, pages);
            let mut page = 0;
            while page < pages {
                let (size, count) = largest(first, pages, page);
                for within in page..page + count {
                    let found = parts.size_at(within);
                    assert_eq!(found, size, "page {within} of {pages} from frame {first:#x}");
                }
                page += count;
            }
            assert!(parts.pages() <= pages && pages - parts.pages() <= pages);
        }
    }
}

/// The table at [`LargeParts::of_run`], row by row.
#[test]
fn the_table_of_runs_is_as_it_is_written_s96() {
    let lengths = [15, 16, 256, 257, 4096, 4352 + 17];
    let rows: [(u32, [[u32; 3]; 6]); 4] = [
        (0x4_0000, [[0; 3], [0, 0, 1], [0, 1, 0], [0, 1, 0], [1, 0, 0], [1, 1, 1]]),
        (0x4_0100, [[0; 3], [0, 0, 1], [0, 1, 0], [0, 1, 0], [0, 16, 0], [0, 17, 1]]),
        (0x4_0010, [[0; 3], [0, 0, 1], [0, 0, 16], [0, 0, 16], [0, 0, 256], [0, 0, 273]]),
        (0x4_0001, [[0; 3]; 6]),
    ];
    for (first, row) in rows {
        for (pages, wanted) in lengths.into_iter().zip(row) {
            assert_eq!(counts(parts(first, pages)), wanted, "{pages} pages from {first:#x}");
        }
    }
}

/// S4: whichever policy gave the address, and from whichever size in bytes, it is on a border of the first entry.
#[test]
fn both_policies_align_to_whatever_the_first_entry_needs_s4_s96() {
    let around = |bytes: u32| [bytes - 1, bytes, bytes + 1];
    let sizes = (12..31).flat_map(|order| around(1 << order)).chain(1..0x3000);
    for bytes in sizes.chain(around(3 << 20)).chain(around(0x110_0000)).chain(around(0x111_1000)) {
        let pages = crate::addr::pages_for(bytes);
        for first in [0, 0x10, 0x100, 0x1000, 0x1001] {
            let needed = parts(first, pages).alignment_order();
            for policy in [IoRemapPolicy::Seed, IoRemapPolicy::Modern] {
                for asked in [bytes, pages * PAGE_SIZE] {
                    let given = Alignment::IoRemap(policy).order_in_pages(asked);
                    assert!(given >= needed, "{policy:?}, {asked:#x} bytes from frame {first:#x}");
                }
            }
        }
    }
}

#[test]
fn parts_are_counted_each_by_itself() {
    let all = LargeParts::new(5, 7).behind(3);
    assert_eq!(counts(all), [3, 5, 7]);
    assert_eq!(all.first_level_slots(), 53);
    assert_eq!(all.pages_in_supersections(), 3 * 4096);
    assert_eq!(all.pages_in_sections(), 53 * 256);
    assert_eq!(all.pages(), 53 * 256 + 7 * 16);
    assert_eq!(format!("{all:?}"), "LargeParts { supersections: 3, sections: 5, large_pages: 7 }");
    assert_eq!(counts(all.behind(1)), [1, 5, 7]);
    // What cannot be counted is left to small pages.
    assert_eq!(counts(LargeParts::new(u32::MAX, u32::MAX).behind(u32::MAX)), [63, 4095, 16383]);
    let far = parts(0, 1 << 20);
    assert_eq!(counts(far), [63, 193 * 16, 0]);
    let orders = [LargeParts::NONE, LargeParts::new(0, 1), LargeParts::new(1, 1), all];
    assert_eq!(orders.map(LargeParts::alignment_order), [0, 4, 8, 12]);
    assert_eq!(orders.map(LargeParts::is_none), [true, false, false, false]);
    assert_eq!(all.smaller(), Some(LargeParts::new(0, 53 * 16 + 7)));
}
