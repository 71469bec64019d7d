//! The tables told as runs: everything that is mapped, in order, in as few lines as it can be said.

use super::bed::{Bed, CALLER, HEAP, HEAP_MAPPED, TEXT, WINDOW, frame, page, pages};
use kerncore::{
    addr::{PAGE_SIZE, PageRange, PhysAddr},
    attributes::Attributes,
    audit::{Run, for_each_run, survey},
    descriptor::PageSize,
};

fn runs(bed: &Bed, border: impl Fn(PageRange) -> bool) -> Vec<Run> {
    let mut runs = Vec::new();
    let table = bed.space.table();
    for_each_run(table, table.window(), border, |run| runs.push(run));
    runs
}

fn run(first: u32, count: u32, physical: u32, attributes: Attributes) -> Run {
    let (pages, physical) = (pages(first, count), PhysAddr::new(physical));
    Run::Mapped { pages, physical, size: PageSize::Small, attributes }
}

/// The linear map, split by the image.
fn of_an_empty_bed() -> Vec<Run> {
    let (data, text) = (Attributes::KERNEL_DATA, Attributes::KERNEL_TEXT);
    vec![
        run(0x8_0000, 16, 0x6000_0000, data),
        run(0x8_0010, 2, 0x6001_0000, text),
        run(0x8_0012, 1, 0x6001_2000, Attributes::KERNEL_RODATA),
        run(0x8_0014, 2, 0x6001_4000, data),
        run(0x8_0018, 0x800 - 0x18, 0x6001_8000, data),
    ]
}

#[test]
fn neighbours_that_are_alike_are_one_run_and_others_are_not() {
    let bed = Bed::new();
    let found = runs(&bed, |_| false);
    assert_eq!(found[..5], of_an_empty_bed());
    let heap = found[5..].iter().map(|run| run.pages().count()).sum::<u32>();
    assert_eq!((found[5].pages().first(), heap), (HEAP, HEAP_MAPPED));
}

#[test]
fn a_border_ends_a_run_and_a_bad_word_stands_alone() {
    let bed = Bed::new();
    let end_of_image = 0x8_0020;
    let found = runs(&bed, |pages| pages.first() == end_of_image);
    let data = Attributes::KERNEL_DATA;
    assert_eq!(found[4], run(0x8_0018, 8, 0x6001_8000, data));
    assert_eq!(found[5], run(0x8_0020, 0x7e0, 0x6002_0000, data));
    let text = bed.poke(bed.l2_slot(TEXT), 4);
    let found = runs(&bed, |_| false);
    assert!(matches!(found[1], Run::Bad { pages, .. } if pages.start() == TEXT), "{:?}", found[1]);
    assert_eq!(found[2], run(0x8_0011, 1, 0x6001_1000, Attributes::KERNEL_TEXT));
    bed.poke(bed.l2_slot(TEXT), text);
}

#[test]
fn addresses_that_go_on_while_memory_does_not_are_two_runs() {
    let bed = Bed::warm();
    let (list, mut frames) = bed.frames(3);
    frames.sort_unstable();
    frames.swap(0, 1);
    bed.space.vmap(&frames, Attributes::KERNEL_DATA, CALLER).expect("addresses");
    let found: Vec<u32> = runs(&bed, |_| false)
        .iter()
        .filter(|run| run.pages().first() >= WINDOW && run.pages().first() < HEAP)
        .map(|run| run.pages().count())
        .collect();
    assert_eq!(found, [1, 1, 1]);
    bed.space.vunmap((), page(WINDOW)).expect("a live area");
    bed.feed(list);
}

#[test]
fn the_survey_counts_what_the_ledger_needs() {
    let bed = Bed::new();
    let guards = 3;
    let empty = survey(&bed.space);
    assert_eq!((empty.mapped_pages, empty.tables_in_use, empty.tables_kept), (0, 0, 1));
    assert_eq!(empty.unmapped_linear, guards);
    bed.vmalloc(300);
    bed.space
        .coherent_alloc(5 * PAGE_SIZE, kerncore::frames::FrameOwner::Dma, CALLER)
        .expect("memory");
    let full = survey(&bed.space);
    assert_eq!((full.mapped_pages, full.tables_in_use, full.tables_kept), (305, 2, 3));
    assert_eq!(full.unmapped_linear, guards + 5);
    // One word that should not be there counts as well: nothing that a test leaves behind is too odd to be counted.
    bed.poke_page(page(WINDOW + 511), frame(0x6_0000), Attributes::KERNEL_DATA);
    assert_eq!(survey(&bed.space).mapped_pages, 306);
}
