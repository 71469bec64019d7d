//! Scatter lists of a device behind an IOMMU: what it sees as one is one to it, and each piece comes back to its own memory (S105, S109).

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use dma::bounce;
use dma::device::Device;
use dma::iommu::{IommuMapping, detach};
use dma::mapping_list::StreamingList;
use dma::scatter::ScatterEntry;
use dma::streaming::{self, Memory, UnmapError};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, VirtAddr};
use kerncore::bounce::{GiveBackError, SLOT};
use kerncore::iommu::SegmentLimits;
use kerncore::streaming::{Bidirectional, Flow};
use ktest::Completion::{self, Ran, Skipped};
use ktest::{assert_err, ktest};
use linux::page::pointer_to;
use linux::streaming::{dma_sync_single_for_cpu, dma_sync_single_for_device, dma_unmap_single};
use linux::streaming_sg::{
    dma_map_sg, dma_sync_sg_for_cpu, dma_sync_sg_for_device, dma_unmap_sg, tell_again,
};
use mm::page_alloc::Pages;

use super::iommu::{Attached, BASE, Engine, copies_lack, pattern};
use super::played_device::call;

const BYTES: u32 = 1 << 20;

const BOTH: u32 = Flow::Bidirectional as u32;
const TO: u32 = Flow::ToDevice as u32;
const FROM: u32 = Flow::FromDevice as u32;

static DEVICE: Device = Device::new("a device of lists");
static SNOOPING: Device = Device::coherent("a snooping device of lists");
static LOW: Device = Device::coherent("a device of lists that reaches less");

/// Pages of which no two are adjacent, the last one first, and a list of them that begins and ends inside a page.
pub(super) struct Scattered {
    pub(super) pages: Vec<Pages>,
    pub(super) pieces: Vec<(u32, u32)>,
    pub(super) list: Vec<ScatterEntry>,
}

impl Scattered {
    /// `count` pages, at least two: from `offset` in the first to `end` in the last.
    pub(super) fn new(count: usize, offset: u32, end: u32) -> Self {
        let mut all: Vec<Pages> = (0..2 * count).map(|_| Pages::new(0).expect("memory")).collect();
        let pages: Vec<Pages> = (0..count).rev().map(|index| all.remove(2 * index)).collect();
        let mut pieces = vec![(0, PAGE_SIZE); count];
        pieces[0] = (offset, PAGE_SIZE - offset);
        pieces[count - 1] = (0, end);
        let mut list = vec![ScatterEntry::EMPTY; count];
        ScatterEntry::initialise(&mut list);
        for ((entry, page), &(offset, length)) in list.iter_mut().zip(&pages).zip(&pieces) {
            let record = pointer_to(page.first());
            entry.set_page(u32::try_from(record.addr()).expect("32 bits"), length, offset);
        }
        Self { pages, pieces, list }
    }

    pub(super) fn bytes(&self) -> u32 {
        self.pieces.iter().map(|(_, length)| length).sum()
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.list.len()).expect("a few")
    }

    /// The bytes of all pieces, one behind the other.
    fn read(&self) -> Vec<u8> {
        let pieces = self.pages.iter().zip(&self.pieces);
        let bytes = |(page, &(offset, length)): (&Pages, &(u32, u32))| {
            page[offset as usize..(offset + length) as usize].to_vec()
        };
        pieces.flat_map(bytes).collect()
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) {
        for (page, &(offset, length)) in self.pages.iter_mut().zip(&self.pieces) {
            let (here, rest) = bytes.split_at(length as usize);
            page[offset as usize..(offset + length) as usize].copy_from_slice(here);
            bytes = rest;
        }
    }

    pub(super) fn map(&mut self, device: &Device, dir: u32) -> usize {
        // SAFETY: a device, and a list of pages of the test's, which leaves them alone meanwhile.
        let mapped = unsafe { dma_map_sg(device, self.list.as_mut_ptr(), self.count(), dir) };
        usize::try_from(mapped).expect("a count")
    }

    fn unmap_as(&mut self, device: &Device, count: u32, dir: u32) {
        // SAFETY: mapped by `map`, or refused; the device is done.
        unsafe { dma_unmap_sg(device, self.list.as_mut_ptr(), count, dir) };
    }

    pub(super) fn unmap(&mut self, device: &Device, dir: u32) {
        self.unmap_as(device, self.count(), dir);
    }

    /// What the device was told.
    pub(super) fn segments(&self, count: usize) -> Vec<(u32, u32)> {
        let told = |entry: &ScatterEntry| (entry.dma_address.raw(), entry.dma_length);
        let (told, rest) = (self.list[..count].iter().map(told), &self.list[count..]);
        assert!(rest.iter().all(|entry| entry.dma_length == 0), "{rest:?}");
        told.collect()
    }
}

fn device_reads(engine: &Engine, segments: &[(u32, u32)]) -> Vec<u8> {
    let mut all = Vec::new();
    for &(dma, bytes) in segments {
        let mut here = vec![0; bytes as usize];
        engine.read(dma, &mut here).expect("mapped");
        all.append(&mut here);
    }
    all
}

fn device_writes(engine: &Engine, segments: &[(u32, u32)], mut bytes: &[u8]) {
    for &(dma, count) in segments {
        let (here, rest) = bytes.split_at(count as usize);
        engine.write(dma, here).expect("mapped");
        bytes = rest;
    }
}

/// How many segments there are of `count` pages from `offset` on to `end`: what must be copied is one by itself.
fn wanted(device: &Device, dir: u32, count: usize, (offset, end): (u32, u32)) -> usize {
    let is_copied = |edge: u32| {
        let whole_lines = edge.is_multiple_of(mm::kernel().line_bytes());
        dir != TO && !whole_lines && core::ptr::eq(device, &raw const DEVICE)
    };
    if bounce::is_forced() {
        return count;
    }
    let edges = usize::from(is_copied(offset)) + usize::from(is_copied(end));
    edges + usize::from(edges < count)
}

/// S109: pages that lie anywhere are one run to the device; it reads and writes across the seams, and all comes back to its place.
#[ktest]
fn a_list_of_scattered_pages_is_one_piece_to_the_device_s109() -> Completion {
    if copies_lack(17) {
        return Skipped("the bounce buffers are too small for its copies");
    }
    for device in [&DEVICE, &SNOOPING] {
        let attached = Attached::new(device, BYTES);
        let engine = Engine(device);
        for (count, offset, end) in
            [(2, 0, PAGE_SIZE), (2, 0xfff, 1), (3, 0x7e5, 0x123), (16, 0x20, 0x40), (17, 0xfe0, 32)]
        {
            for dir in [BOTH, TO, FROM] {
                let mut list = Scattered::new(count, offset, end);
                let known = dma::debug::mappings();
                let (bytes, wanted) = (list.bytes(), wanted(device, dir, count, (offset, end)));
                list.write(&pattern(1, bytes));
                assert_eq!(list.map(device, dir), wanted, "{count}, {offset:#x}, {end:#x}, {dir}");
                let segments = list.segments(wanted);
                assert_eq!(segments.iter().map(|(_, bytes)| bytes).sum::<u32>(), bytes);
                if wanted == 1 {
                    assert_eq!(segments[0].0 % PAGE_SIZE, offset);
                }
                if dir != FROM {
                    assert!(device_reads(&engine, &segments) == pattern(1, bytes)[..]);
                }
                if dir != TO {
                    device_writes(&engine, &segments, &pattern(2, bytes));
                }
                list.unmap(device, dir);
                let now = pattern(if dir == TO { 1 } else { 2 }, bytes);
                assert!(list.read() == now, "{count}, {offset:#x}, {end:#x}, {dir}");
                assert_eq!((attached.taken(), bounce::usage().taken), (0, 0));
                assert_eq!(dma::debug::mappings(), known);
                for (dma, _) in segments {
                    assert!(engine.read(dma, &mut [0]).is_err(), "it is seen no more");
                }
            }
        }
    }
    Ran
}

/// S105, S109: both ways and back, by the list's functions and by those that know the segment alone.
#[ktest]
fn a_joined_list_changes_its_owner_across_its_seams_s105() {
    for (device, whole) in [(&DEVICE, false), (&DEVICE, true), (&SNOOPING, true)] {
        let attached = Attached::new(device, BYTES);
        let engine = Engine(device);
        let mut list = Scattered::new(5, 0x40, 0x60);
        let bytes = list.bytes();
        let count = list.map(device, BOTH);
        let segments = list.segments(count);
        for round in 3..6 {
            device_writes(&engine, &segments, &pattern(round, bytes));
            if whole {
                let (first, nents) = (list.list.as_mut_ptr(), list.count());
                // SAFETY: mapped above; the device waits.
                unsafe { dma_sync_sg_for_cpu(device, first, nents, BOTH) };
            } else {
                for &(dma, bytes) in &segments {
                    // SAFETY: as above.
                    unsafe { dma_sync_single_for_cpu(device, DmaAddr::new(dma), bytes, BOTH) };
                }
            }
            assert!(list.read() == pattern(round, bytes));
            list.write(&pattern(round + 10, bytes));
            if whole {
                let (first, nents) = (list.list.as_mut_ptr(), list.count());
                // SAFETY: as above; nobody else uses the pages.
                unsafe { dma_sync_sg_for_device(device, first, nents, BOTH) };
            } else {
                for &(dma, bytes) in &segments {
                    // SAFETY: as above.
                    unsafe { dma_sync_single_for_device(device, DmaAddr::new(dma), bytes, BOTH) };
                }
            }
            assert!(device_reads(&engine, &segments) == pattern(round + 10, bytes)[..]);
        }
        list.unmap(device, BOTH);
        assert!(list.read() == pattern(15, bytes));
        assert_eq!(attached.taken(), 0);
    }
}

/// S109: no more in one piece than the device takes, and none across its boundary.
#[ktest]
fn a_device_is_given_no_larger_pieces_than_it_takes_s109() -> Completion {
    static DEVICE: Device = Device::coherent("a device of small pieces");
    if copies_lack(20) {
        return Skipped("the bounce buffers are too small for its copies");
    }
    let attached = Attached::new(&DEVICE, BYTES);
    for (most, boundary, wanted) in [
        (64 << 10, u32::MAX, vec![16, 4]),
        (1 << 20, u32::MAX, vec![20]),
        (1 << 20, 0x7fff, vec![8, 8, 4]),
        (3 * PAGE_SIZE, u32::MAX, vec![3, 3, 3, 3, 3, 3, 2]),
        (2 * PAGE_SIZE - 1, u32::MAX, vec![1; 20]),
    ] {
        let wanted: Vec<u32> = if bounce::is_forced() { vec![1; 20] } else { wanted };
        DEVICE.set_segment_limits(SegmentLimits::new(most, boundary).expect("limits"));
        let mut list = Scattered::new(20, 0, PAGE_SIZE);
        assert_eq!(list.map(&DEVICE, TO), wanted.len());
        let segments = list.segments(wanted.len());
        let sizes: Vec<u32> = segments.iter().map(|(_, bytes)| bytes / PAGE_SIZE).collect();
        assert_eq!(sizes, wanted, "{most:#x}, {boundary:#x}");
        let crosses = |&(dma, bytes): &(u32, u32)| (dma ^ (dma + bytes - 1)) & !boundary != 0;
        assert!(!segments.iter().any(crosses), "{segments:x?}");
        list.unmap(&DEVICE, TO);
        assert_eq!(attached.taken(), 0);
    }
    Ran
}

/// All or nothing: whichever piece cannot be mapped, and when addresses run out.
#[ktest]
fn of_a_joined_list_that_cannot_be_mapped_nothing_is_s105() -> Completion {
    if copies_lack(20) {
        return Skipped("the bounce buffers are too small for its copies");
    }
    let before = || (bounce::usage(), arch::lines::runs(), dma::debug::mappings());
    for device in [&DEVICE, &SNOOPING] {
        let attached = Attached::new(device, BYTES);
        for (wrong, dir) in (0..20).flat_map(|wrong| [(wrong, FROM), (wrong, TO)]) {
            let mut list = Scattered::new(20, 0x21, 0x37);
            // No bytes, or a page that is none.
            if dir == FROM {
                list.list[wrong].length = 0;
            } else {
                list.list[wrong].set_page(0, PAGE_SIZE, 0);
            }
            let books = before();
            tell_again();
            let (mapped, log) = capture_log(|| list.map(device, dir));
            assert_eq!(mapped, 0, "{wrong}");
            let line = alloc::format!("entry {wrong} of 20 for {} was refused: ", device.name());
            assert_eq!(
                (log.text().matches(line.as_str()).count(), log.text().lines().count()),
                (1, 1),
                "{log:?}"
            );
            assert_eq!((attached.taken(), before()), (0, books), "{wrong}");
        }
    }
    // Of 20 pages the first 16 have addresses, or none.
    for (pages, entry) in [
        (19, if bounce::is_forced() { 19 } else { 16 }),
        (8, if bounce::is_forced() { 8 } else { 0 }),
    ] {
        let attached = Attached::new(&SNOOPING, pages * PAGE_SIZE);
        let mut list = Scattered::new(20, 0, PAGE_SIZE);
        let books = before();
        tell_again();
        let (mapped, log) = capture_log(|| list.map(&SNOOPING, TO));
        assert_eq!(mapped, 0);
        let line = alloc::format!("entry {entry} of 20 for {} was refused: ", SNOOPING.name());
        assert!(log.text().contains(line.as_str()), "{log:?}");
        assert!(!log.text().contains("lost"), "no more is ended than was begun: {log:?}");
        assert_eq!((attached.taken(), before()), (0, books));
    }
    // Addresses that the device does not reach.
    let high = IommuMapping::new(DmaAddr::new(0x7f00_0000), BYTES).expect("memory");
    LOW.set_mask(kerncore::dma_mask::DmaMask::new(0x7f00_7fff)).expect("RAM begins below");
    // SAFETY: the test's device has nothing.
    unsafe { high.attach(&LOW) }.expect("attached to nothing");
    let mut list = Scattered::new(20, 0, PAGE_SIZE);
    let books = before();
    let (mapped, _log) = capture_log(|| list.map(&LOW, TO));
    assert_eq!((mapped, high.domain().usage().taken, before()), (0, 0, books));
    // SAFETY: the device has nothing.
    unsafe { detach(&LOW) }.expect("attached");
    Ran
}

/// S67: what is not the list that was mapped is refused, and stays mapped.
#[ktest]
fn a_joined_list_ends_as_it_was_mapped_or_not_at_all_s67() {
    if bounce::is_forced() {
        return;
    }
    let attached = Attached::new(&SNOOPING, BYTES);
    let mut list = Scattered::new(4, 0x800, 0x800);
    let bytes = list.bytes();
    assert_eq!(list.map(&SNOOPING, TO), 1);
    let (dma, _) = list.segments(1)[0];
    assert_eq!(dma, BASE.raw() + 0x800);
    let refused = |end: &mut dyn FnMut()| {
        let ((), log) = capture_log(end);
        let line = alloc::format!(
            "the {bytes} bytes at {dma:#010x} were mapped for the device in other pieces"
        );
        assert_eq!(log.text().matches(line.as_str()).count(), 1, "{log:?}");
        assert_eq!(attached.taken(), 4);
        let last = VirtAddr::new(dma + bytes - 1);
        assert_eq!(Engine(&SNOOPING).read(last.raw(), &mut [0]), Ok(()));
    };
    // As many entries as the device has pieces, or fewer than there are; one buffer; another page; another order.
    refused(&mut || list.unmap_as(&SNOOPING, 1, TO));
    refused(&mut || list.unmap_as(&SNOOPING, 3, TO));
    // SAFETY: refused.
    refused(&mut || unsafe { dma_unmap_single(&raw const SNOOPING, DmaAddr::new(dma), bytes, TO) });
    let other = Pages::new(0).expect("memory");
    let record = |page: &Pages| u32::try_from(pointer_to(page.first()).addr()).expect("32 bits");
    let (second, third) = (record(&list.pages[1]), record(&list.pages[2]));
    list.list[2].set_page(record(&other), PAGE_SIZE, 0);
    refused(&mut || list.unmap(&SNOOPING, TO));
    list.list[2].set_page(second, PAGE_SIZE, 0);
    list.list[1].set_page(third, PAGE_SIZE, 0);
    refused(&mut || list.unmap(&SNOOPING, TO));
    list.list[1].set_page(second, PAGE_SIZE, 0);
    list.list[2].set_page(third, PAGE_SIZE, 0);
    list.unmap(&SNOOPING, TO);
    assert_eq!(attached.taken(), 0);
}

/// S105, S109: the same by their owner; the pages come back in their order.
#[ktest]
fn an_owned_list_of_pages_is_one_piece_to_the_device_s105_s109() {
    let attached = Attached::new(&DEVICE, BYTES);
    let engine = Engine(&DEVICE);
    let list = Scattered::new(6, 0, PAGE_SIZE);
    let bytes = list.bytes();
    let places: Vec<_> = list.pages.iter().map(Pages::address).collect();
    let mapped = StreamingList::<Bidirectional, _>::map(&DEVICE, list.pages);
    let mut mapped = mapped.expect("a mapping");
    assert_eq!(mapped.len(), 6);
    let segments: Vec<(u32, u32)> = mapped
        .pieces()
        .map(|(dma, bytes)| (dma.raw(), u32::try_from(bytes).expect("a few pages")))
        .collect();
    assert_eq!(segments.len(), if bounce::is_forced() { 6 } else { 1 });
    device_writes(&engine, &segments, &pattern(1, bytes));
    // SAFETY: the device waits.
    let mut synced = unsafe { mapped.sync_for_cpu() }.expect("low memory");
    assert!(synced.iter().flatten().copied().eq(pattern(1, bytes)));
    synced.iter_mut().flatten().for_each(|byte| *byte = !*byte);
    drop(synced);
    let inverted: Vec<u8> = pattern(1, bytes).iter().map(|byte| !byte).collect();
    assert!(device_reads(&engine, &segments) == inverted);
    device_writes(&engine, &segments, &pattern(2, bytes));
    // SAFETY: the device is done.
    let pages = unsafe { mapped.unmap() }.expect("low memory");
    assert!(pages.iter().flat_map(|page| page.iter()).copied().eq(pattern(2, bytes)));
    assert_eq!(pages.iter().map(Pages::address).collect::<Vec<_>>(), places);
    assert_eq!((attached.taken(), bounce::usage().taken), (0, 0));
    // One that cannot be mapped: all come back, and the device sees none.
    let mut buffers: Vec<Vec<u8>> = (0..4).map(|_| vec![7; PAGE_SIZE as usize]).collect();
    buffers[3] = Vec::new();
    let refused = StreamingList::<Bidirectional, _>::map(&DEVICE, buffers).map(drop);
    let refused = refused.expect_err("a buffer of no bytes");
    assert_eq!(refused.buffers.iter().map(Vec::len).collect::<Vec<_>>(), [4096, 4096, 4096, 0]);
    assert_eq!((attached.taken(), bounce::usage().taken), (0, 0));
    // On the bus nothing is joined.
    let apart = Scattered::new(3, 0, PAGE_SIZE);
    let mapped = StreamingList::<Bidirectional, _>::map(&SNOOPING, apart.pages);
    let mapped = mapped.expect("a mapping on the bus");
    assert_eq!(mapped.pieces().count(), 3);
    // SAFETY: the device is done.
    assert_eq!(unsafe { mapped.unmap() }.expect("low memory").len(), 3);
}

/// Where copies are forced, the address of a copy's second slot, in the very page that the device sees, is no mapping's.
#[ktest]
fn an_unmap_that_names_the_inside_of_a_copy_changes_nothing_s106_s109() {
    let call = call(&DEVICE, Flow::Bidirectional);
    let attached = Attached::new(&DEVICE, BYTES);
    let mut page = Pages::new(0).expect("memory");
    page.fill(0x11);
    // SAFETY: the test's page, which it leaves alone until it is unmapped.
    let dma = unsafe { streaming::map(call, Memory::Linear(page.address()), PAGE_SIZE) };
    let dma = dma.expect("a mapping");
    if bounce::is_forced() {
        let inside = DmaAddr::new(dma.raw() + SLOT);
        let before = (attached.taken(), bounce::usage().taken);
        // SAFETY: to be refused.
        let refused = unsafe { streaming::unmap(call, inside, SLOT) };
        assert_err!(refused, UnmapError::Bounce(GiveBackError::NotAStart { .. }));
        assert_eq!((attached.taken(), bounce::usage().taken), before);
        assert_eq!(Engine(&DEVICE).write(dma.raw(), &[0x22; 4]), Ok(()), "it is seen still");
    }
    // SAFETY: mapped above; there is no device.
    assert_eq!(unsafe { streaming::unmap(call, dma, PAGE_SIZE) }, Ok(()));
    assert_eq!(page[0], if bounce::is_forced() { 0x22 } else { 0x11 });
    assert_eq!((attached.taken(), bounce::usage().taken), (0, 0));
}

/// [`super::iommu::copy_by`] of lists of `count` pages, two at least, that begin and end inside a page.
pub(super) fn copy_list_by(device: &'static Device, seed: u32, count: usize) {
    let (engine, count) = (Engine(device), count.max(2));
    let [mut source, mut destination] = [(); 2].map(|()| Scattered::new(count, 0x40, 0x60));
    let bytes = source.bytes();
    source.write(&pattern(seed, bytes));
    let (from, to) = (source.map(device, TO), destination.map(device, FROM));
    assert!(from != 0 && to != 0, "mapped");
    let read = device_reads(&engine, &source.segments(from));
    device_writes(&engine, &destination.segments(to), &read);
    source.unmap(device, TO);
    destination.unmap(device, FROM);
    assert!(destination.read() == pattern(seed, bytes), "what was copied is what was there");
}
