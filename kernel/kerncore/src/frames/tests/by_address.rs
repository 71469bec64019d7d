//! Frames named by number or by the address of their record, as C callers name them.

use super::*;

/// Without a handle too, the largest included; a larger order is no block's.
#[test]
fn every_order_comes_back_by_its_number() {
    let records = records(4096);
    let mut allocator = full(&records);
    for order in 0..=MAX_ORDER {
        let block = allocator.allocate(order, FrameOwner::Test).expect("4,096 frames are free");
        let (first, _) = block.leak();
        let larger = allocator.free_at(first, order + 1, FrameOwner::Test);
        assert!(larger.is_err(), "{order}: {larger:?}");
        assert_eq!(allocator.free_at(first, order, FrameOwner::Test), Ok(()));
        sound(&allocator);
    }
    assert_eq!(allocator.free_pages(), 4096);
}

#[test]
fn a_record_stands_for_its_frame_at_a_stride_of_sixteen_bytes() {
    // S85a: C callers hold the record's address as a page pointer.
    let records = records(16);
    let table = FrameTable::new(&records, frame(RAM)).expect("aligned, below 4 GiB");
    assert_eq!(size_of::<Frame>(), 16);
    let base = core::ptr::from_ref(&records[0]).addr();
    let third = table.frame(frame(RAM + 3)).expect("in the table");
    assert_eq!(core::ptr::from_ref(third).addr(), base + 48);
    assert_eq!(table.frame_at_record(base + 48), Some(frame(RAM + 3)));
    assert_eq!(table.frame_at_record(base + 49), None);
    assert_eq!(table.frame_at_record(base + 256), None);
    assert_eq!(table.frame_at_record(base - 16), None);
    let absent = Belonging { frame: frame(RAM + 3), owner: FrameOwner::Absent };
    assert_eq!(table.belonging_at_record(base + 48), Some(absent));
    table.reserve(frame(RAM + 3), 1, FrameOwner::Test).expect("absent");
    let owned = Belonging { owner: FrameOwner::Test, ..absent };
    assert_eq!(table.belonging_at_record(base + 48), Some(owned));
    assert_eq!(table.belonging(frame(RAM + 3)), owned);
    for no_record in [base + 49, base + 256, base.wrapping_sub(16), 0, usize::MAX] {
        assert_eq!(table.belonging_at_record(no_record), None);
    }
    assert!(table.frame(frame(RAM + 16)).is_none());
    third.spare().store(7, core::sync::atomic::Ordering::Relaxed);
}
