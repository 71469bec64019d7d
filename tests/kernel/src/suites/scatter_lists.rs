//! Scatter lists by their C names: mapped, synchronised and ended entry by entry, to their mark, through what they lead to, whole or not
//! at all (S105, S106). The device is played by the test.

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use dma::bounce::usage;
use dma::device::Device;
use dma::scatter::ScatterEntry;
use image::capture::capture_log;
use kerncore::addr::PAGE_SIZE;
use kerncore::bounce::SLOT;
use kerncore::streaming::Flow;
use ktest::ktest;
use linux::iommu::{arm_iommu_sync_sg_for_cpu, arm_iommu_sync_sg_for_device, arm_iommu_unmap_sg};
use linux::page::pointer_to;
use linux::streaming_sg::{
    dma_map_sg, dma_sync_sg_for_cpu, dma_sync_sg_for_device, dma_unmap_sg, tell_again,
};
use mm::page_alloc::Pages;

use super::iommu::Attached;
use super::played_device::{device_reads, device_writes};

static DEVICE: Device = Device::new("a scattered device");

const BOTH: u32 = Flow::Bidirectional as u32;
const FROM: u32 = Flow::FromDevice as u32;
const TO: u32 = Flow::ToDevice as u32;

/// Where the pieces lie in their page, and how long each is: of odd bytes, so that what a device writes is copied; and of whole lines.
const ODD: [(u32, u32); 3] = [(5, 100), (1024, 64), (2049, 1700)];
const WHOLE: [(u32, u32); 3] = [(0, 128), (1024, 64), (2048, 1024)];

fn list(page: &Pages, pieces: &[(u32, u32)]) -> Vec<ScatterEntry> {
    let mut list = vec![ScatterEntry::EMPTY; pieces.len()];
    ScatterEntry::initialise(&mut list);
    for (entry, &(offset, length)) in list.iter_mut().zip(pieces) {
        let record = pointer_to(page.first());
        entry.set_page(u32::try_from(record.addr()).expect("32 bits"), length, offset);
    }
    list
}

fn map(list: &mut [ScatterEntry], count: u32, dir: u32) -> i32 {
    // SAFETY: a device, and a list of pages of the test's, which leaves them alone meanwhile.
    unsafe { dma_map_sg(&raw const DEVICE, list.as_mut_ptr(), count, dir) }
}

fn unmap(list: &mut [ScatterEntry], count: u32, dir: u32) {
    // SAFETY: mapped by `map`; the device is done.
    unsafe { dma_unmap_sg(&raw const DEVICE, list.as_mut_ptr(), count, dir) };
}

fn device_has(entry: &ScatterEntry, mark: u8) -> bool {
    device_reads(entry.dma_address, entry.dma_length).iter().all(|&byte| byte == mark)
}

fn device_fills(entry: &ScatterEntry, mark: u8) {
    device_writes(entry.dma_address, &vec![mark; entry.dma_length as usize]);
}

fn piece(page: &mut Pages, (offset, length): (u32, u32)) -> &mut [u8] {
    &mut page[offset as usize..(offset + length) as usize]
}

/// Each entry is where its page and offset say, goes to the device and comes back, and so do all of them.
#[ktest]
fn every_entry_is_mapped_synchronised_and_ended_s105_s106() {
    for pieces in [ODD, WHOLE] {
        let mut page = Pages::new(0).expect("memory");
        page.fill(0x11);
        let mut list = list(&page, &pieces);
        assert_eq!(map(&mut list, 3, BOTH), 3);
        for (round, entry) in (1..).zip(&list) {
            assert_eq!(entry.dma_length, entry.length);
            assert!(device_has(entry, 0x11));
            device_fills(entry, round);
        }
        // SAFETY: mapped above; the device is done for now.
        unsafe { dma_sync_sg_for_cpu(&raw const DEVICE, list.as_mut_ptr(), 3, BOTH) };
        for (round, place) in (1..).zip(pieces) {
            assert!(piece(&mut page, place).iter().all(|&byte| byte == round), "entry {round}");
            piece(&mut page, place).fill(0x20 + round);
        }
        // SAFETY: as above.
        unsafe { dma_sync_sg_for_device(&raw const DEVICE, list.as_mut_ptr(), 3, BOTH) };
        for (round, entry) in (0x21..).zip(&list) {
            assert!(device_has(entry, round), "entry {round:#x}");
            device_fills(entry, round + 0x20);
        }
        unmap(&mut list, 3, BOTH);
        for (round, place) in (0x41..).zip(pieces) {
            assert!(piece(&mut page, place).iter().all(|&byte| byte == round), "entry {round:#x}");
            piece(&mut page, place).fill(0x11);
        }
        assert!(page.iter().all(|&byte| byte == 0x11), "the neighbours are as they were");
        assert_eq!(usage().taken, 0);
    }
}

/// As many as are asked for, at most up to the mark; an entry that leads to others is none itself.
#[ktest]
fn a_list_ends_with_its_mark_and_goes_on_where_it_leads_s105() {
    let page = Pages::new(0).expect("memory");
    let mut second = list(&page, &[WHOLE[1], WHOLE[2], (3072, 32)]);
    let mut first = list(&page, &[WHOLE[0], (0, 0)]);
    let lead = u32::try_from(second.as_ptr().expose_provenance()).expect("32 bits") | 1;
    // SAFETY: the first word of an entry is where it leads; the lowest bit says that to others.
    unsafe { (&raw mut first[1]).cast::<u32>().write(lead) };
    for (asked, mapped) in [(1, 1), (3, 3), (4, 4), (9, 4)] {
        for entry in &mut second {
            entry.dma_length = 7;
        }
        assert_eq!(map(&mut first, asked, TO), mapped, "of {asked}");
        let written = second.iter().filter(|entry| entry.dma_length != 7).count();
        assert_eq!(i32::try_from(written + 1), Ok(mapped));
        unmap(&mut first, asked, TO);
    }
    // Behind the mark there is none, whatever is asked for.
    let mut short = list(&page, &WHOLE);
    ScatterEntry::initialise(&mut short[..1]);
    short[0].set_page(u32::try_from(pointer_to(page.first()).addr()).expect("32 bits"), 64, 0);
    assert_eq!(map(&mut short, 3, TO), 1);
    unmap(&mut short, 3, TO);
}

/// Whichever entry cannot be mapped, those before it are not left with the device; and it is named.
#[ktest]
fn of_a_list_that_cannot_be_mapped_whole_nothing_is_s105_s106() {
    let page = Pages::new(0).expect("memory");
    for (pieces, dir) in [(ODD, FROM), (WHOLE, FROM), (ODD, TO)] {
        for wrong in 0..3 {
            let before = (usage(), arch::lines::runs(), dma::debug::mappings());
            let mut list = list(&page, &pieces);
            list[wrong].length = 0;
            tell_again();
            let (mapped, log) = capture_log(|| map(&mut list, 3, dir));
            assert_eq!(mapped, 0);
            let line = alloc::format!("entry {wrong} of 3 for a scattered device was refused: ");
            assert_eq!(
                (log.text().matches(line.as_str()).count(), log.text().lines().count()),
                (1, 1),
                "{log:?}"
            );
            assert_eq!((usage(), arch::lines::runs(), dma::debug::mappings()), before);
        }
    }
    // What is too much for the bounce buffers, behind what is not.
    let pages = Pages::new(8).expect("a MiB");
    let most = usage().slots * SLOT;
    if most >= pages.count() * PAGE_SIZE {
        return;
    }
    let mut list = list(&pages, &[(1, 100), (PAGE_SIZE + 1, most)]);
    let (mapped, _log) = capture_log(|| map(&mut list, 2, FROM));
    assert_eq!((mapped, usage().taken), (0, 0));
}

/// No list, or none of its entries: that nothing ends, or changes hands, is told; what is mapped stands.
#[ktest]
fn what_names_no_entries_is_told_and_changes_nothing_s105() {
    type Call = unsafe extern "C" fn(*const Device, *mut ScatterEntry, u32, u32);
    let on_bus: [(&str, Call); 3] = [
        ("dma_unmap_sg", dma_unmap_sg),
        ("dma_sync_sg_for_cpu", dma_sync_sg_for_cpu),
        ("dma_sync_sg_for_device", dma_sync_sg_for_device),
    ];
    let behind: [(&str, Call); 3] = [
        ("dma_unmap_sg", arm_iommu_unmap_sg),
        ("dma_sync_sg_for_cpu", arm_iommu_sync_sg_for_cpu),
        ("dma_sync_sg_for_device", arm_iommu_sync_sg_for_device),
    ];
    let each = |calls: [(&str, Call); 3]| {
        let page = Pages::new(0).expect("memory");
        let mut list = list(&page, &WHOLE[..1]);
        let before = dma::debug::mappings();
        assert_eq!(map(&mut list, 1, TO), 1);
        let mapped = (usage(), dma::debug::mappings());
        let all = list.as_mut_ptr();
        let none = core::ptr::null_mut();
        for (name, call) in calls {
            for (list, count, words) in [
                (none, 3, "no list of 3 entries of a scattered device: nothing is done"),
                (none, 0, "no list of 0 entries of a scattered device: nothing is done"),
                (all, 0, "a list of 0 entries of a scattered device: nothing is done"),
            ] {
                tell_again();
                // SAFETY: a device, and no entries.
                let ((), log) = capture_log(|| unsafe { call(&raw const DEVICE, list, count, TO) });
                let line = alloc::format!("{name}: {words}");
                let told = log.text().lines().filter(|told| told.contains(&line)).count();
                assert_eq!((told, log.text().lines().count()), (1, 1), "{line}: {log:?}");
                assert_eq!((usage(), dma::debug::mappings()), mapped, "{line}");
            }
        }
        let ((), log) = capture_log(|| unmap(&mut list, 1, TO));
        assert_eq!((log.text(), dma::debug::mappings()), ("", before), "it stood");
    };
    each(on_bus);
    let attached = Attached::new(&DEVICE, 1 << 20);
    each(behind);
    assert_eq!(attached.taken(), 0);
    tell_again();
}
