//! Lists that are cut.

use super::*;

/// The numbers of a list's frames, in its order.
fn numbers(list: &FrameList, table: &FrameTable<'_>) -> Vec<u32> {
    list.frames(table).map(Pfn::number).collect()
}

/// S86: wherever a list is cut, both parts together are what it was, in its order; both are freed like any other.
#[test]
fn a_list_is_cut_anywhere_and_loses_nothing() {
    for pages in [1, 2, 6, 7, 13] {
        for keep in 0..=pages + 1 {
            let records = records(1024);
            let mut allocator = full(&records);
            let free = allocator.free_pages();
            let mut list = allocator.allocate_list(pages, FrameOwner::Test).expect("empty memory");
            let table = allocator.table();
            let whole = numbers(&list, &table);
            let rest = list.split_off(&table, keep);
            let (kept, gone) = (numbers(&list, &table), numbers(&rest, &table));
            assert_eq!(kept.len(), keep.min(pages) as usize, "{keep} of {pages}");
            assert_eq!([kept, gone].concat(), whole, "{keep} of {pages}");
            assert_eq!(list.pages() + rest.pages(), pages);
            for &number in &whole {
                assert_eq!(table.owner_of(frame(number)), FrameOwner::Test, "{number:#x}");
            }
            allocator.free_list(rest).expect("its own");
            assert_eq!(allocator.free_pages(), free - keep.min(pages));
            allocator.free_list(list).expect("its own");
            assert_eq!(allocator.free_pages(), free);
            assert_eq!(allocator.check(), Ok(()));
        }
    }
}
