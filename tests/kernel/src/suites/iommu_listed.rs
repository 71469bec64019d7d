//! Lists of pages by the short cut, and by the general way, which is gone while short cuts fail: the same is told, and each ends what the
//! other has begun (S105, S109).

extern crate alloc;

use alloc::vec::Vec;
use core::num::NonZeroU32;

use arch::failure::fail_nth;
use dma::bounce;
use dma::device::Device;
use image::capture::capture_log;
use kerncore::addr::PAGE_SIZE;
use kerncore::failure::Afterwards;
use kerncore::iommu::SegmentLimits;
use kerncore::streaming::Flow;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::page::pointer_to;

use super::iommu::{Attached, copies_lack};
use super::iommu_lists::Scattered;

const TO: u32 = Flow::ToDevice as u32;
const WINDOW: u32 = 1 << 20;

static DEVICE: Device = Device::coherent("a snooping device of lists of pages");

#[derive(Clone, Copy, Debug)]
enum Way {
    Short,
    General,
}

const WAYS: [Way; 2] = [Way::Short, Way::General];

fn by<R>(way: Way, act: impl FnOnce() -> R) -> R {
    match way {
        Way::Short => act(),
        Way::General => fail_nth(NonZeroU32::MAX, Afterwards::Nothing, act).0,
    }
}

fn map(way: Way, list: &mut Scattered) -> Vec<(u32, u32)> {
    let count = by(way, || list.map(&DEVICE, TO));
    list.segments(count)
}

/// Whatever the device takes as one segment, wherever the list begins and ends.
#[ktest]
fn a_list_of_pages_is_told_the_same_by_either_way_s109() -> Completion {
    if copies_lack(40) {
        return Skipped("the bounce buffers are too small for its copies");
    }
    let attached = Attached::new(&DEVICE, WINDOW);
    let whole = PAGE_SIZE;
    for (most, boundary) in [
        (64 << 10, u32::MAX),
        ((64 << 10) - 1, u32::MAX),
        (WINDOW, 0x7fff),
        (WINDOW, u32::MAX),
        (3 * PAGE_SIZE, 0x1fff),
        (PAGE_SIZE - 1, u32::MAX),
    ] {
        DEVICE.set_segment_limits(SegmentLimits::new(most, boundary).expect("limits"));
        for count in [2, 3, 8, 15, 16, 17, 18, 33, 40] {
            for (offset, end) in
                [(0, whole), (0x800, 0x800), (0x800, 0x801), (0, 0xfff), (0, 1), (0xfff, whole)]
            {
                let mut list = Scattered::new(count, offset, end);
                let bytes = list.bytes();
                let [short, general] = WAYS.map(|way| {
                    let told = map(way, &mut list);
                    by(way, || list.unmap(&DEVICE, TO));
                    assert_eq!(attached.taken(), 0, "{way:?}");
                    told
                });
                assert_eq!(
                    short, general,
                    "{count} in {most:#x}, {boundary:#x}: {offset:#x}, {end:#x}"
                );
                assert_eq!(short.iter().map(|(_, bytes)| bytes).sum::<u32>(), bytes);
                for (way, other) in [(WAYS[0], WAYS[1]), (WAYS[1], WAYS[0])] {
                    map(way, &mut list);
                    by(other, || list.unmap(&DEVICE, TO));
                    assert_eq!(attached.taken(), 0, "{way:?}, and then {other:?}");
                }
            }
        }
    }
    DEVICE.set_segment_limits(SegmentLimits::DEFAULT);
    Ran
}

/// S67: a list that begins or ends elsewhere in its pages than what was mapped is refused by either way, and stays mapped.
#[ktest]
fn a_list_that_begins_or_ends_elsewhere_in_its_pages_is_refused_s67() {
    if bounce::is_forced() {
        return;
    }
    let attached = Attached::new(&DEVICE, WINDOW);
    let whole = PAGE_SIZE;
    for (offset, end, changed) in [
        (0x800, 0x800, [(0, whole), (0, 0x800)]),
        (0x800, 0x800, [(0, whole), (0, whole)]),
        (0x800, 0x800, [(0x400, whole - 0x400), (0, 0x400)]),
        (0x800, whole, [(0, whole), (0, 0x800)]),
        (0, 0x800, [(0x800, 0x800), (0, whole)]),
        (0, 0x800, [(0, 0x800), (0, whole)]),
        (0, whole, [(0x10, whole - 0x10), (0, whole)]),
        (0, whole, [(0, whole), (0, whole - 1)]),
        (0, whole, [(0, whole), (1, whole - 1)]),
    ] {
        for way in WAYS {
            let mut list = Scattered::new(6, offset, end);
            assert_eq!(map(way, &mut list).len(), 1);
            let taken = attached.taken();
            let pieces = [(offset, whole - offset), (0, end)];
            for (case, is_it) in [(changed, false), (pieces, true)] {
                for (index, (offset, length)) in [0, 5].into_iter().zip(case) {
                    let page = &list.pages[index];
                    let record = pointer_to(page.first()).addr();
                    list.list[index].set_page(record.try_into().expect("32 bits"), length, offset);
                }
                let ((), log) = capture_log(|| by(way, || list.unmap(&DEVICE, TO)));
                let left = if is_it { 0 } else { taken };
                assert_eq!(attached.taken(), left, "{way:?}, {offset:#x}, {end:#x}: {log:?}");
                assert_eq!(log.text().is_empty(), is_it, "{log:?}");
            }
        }
    }
}

/// S105: a length that no segment has, behind which addresses would wrap, ends nothing.
#[ktest]
fn a_list_whose_told_length_was_overwritten_stays_s105_s109() -> Completion {
    if copies_lack(4) {
        return Skipped("the bounce buffers are too small for its copies");
    }
    DEVICE.set_segment_limits(SegmentLimits::new(WINDOW, u32::MAX).expect("limits"));
    let attached = Attached::new(&DEVICE, WINDOW);
    let mut list = Scattered::new(4, 0x800, PAGE_SIZE);
    list.map(&DEVICE, TO);
    let taken = attached.taken();
    let told = list.list[0].dma_length;
    for spoilt in [u32::MAX, 0xffff_f800, 0xffff_f7ff, 0x7fff_ffff] {
        list.list[0].dma_length = spoilt;
        let ((), log) = capture_log(|| list.unmap(&DEVICE, TO));
        assert!(log.text().contains("dma_unmap_sg"), "{spoilt:#x}: {log:?}");
        assert_eq!(attached.taken(), taken, "{spoilt:#x}");
    }
    list.list[0].dma_length = told;
    list.unmap(&DEVICE, TO);
    assert_eq!(attached.taken(), 0);
    Ran
}
