//! The misuse checker of streaming mappings (S107): every class is provoked, and names both parties. By a device that snoops, with which
//! the ledger of cache lines has nothing to do.

extern crate alloc;

mod behind_iommu;
mod freed;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::ffi::c_void;
use core::ptr;

use dma::bounce::is_forced;
use dma::debug::{found, is_on, mappings};
use dma::device::Device;
use dma::scatter::ScatterEntry;
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE};
use kerncore::coherent::AllocationFlags;
use kerncore::config::DmaChecks;
use kerncore::streaming::Flow;
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use linux::dma::{dma_alloc_coherent, dma_free_coherent};
use linux::page::pointer_to;
use linux::streaming::{
    dma_debug_device_goes, dma_map_page, dma_map_single, dma_mapping_error,
    dma_sync_single_for_cpu, dma_sync_single_for_device, dma_unmap_page, dma_unmap_single,
};
use linux::streaming_sg::{dma_map_sg, dma_sync_sg_for_cpu, dma_sync_sg_for_device, dma_unmap_sg};
use mm::page_alloc::Pages;

use super::iommu::Attached;
use super::iommu_lists::Scattered;

static DISK: Device = Device::coherent("a careless disk");
static CARD: Device = Device::coherent("a careless card");
/// Another that is called the same.
static TWIN: Device = Device::coherent("a careless disk");

const FROM: u32 = Flow::FromDevice as u32;
const TO: u32 = Flow::ToDevice as u32;
const BYTES: u32 = 256;

/// A page, and a mapping of its first bytes whose failure was asked for.
struct Scene {
    page: Pages,
    dma: DmaAddr,
}

impl Scene {
    fn at(&self, offset: usize) -> *mut c_void {
        ptr::with_exposed_provenance_mut(self.page.address().raw() as usize + offset)
    }

    fn map(&self, offset: usize, dir: u32) -> DmaAddr {
        // SAFETY: the test's page, which it leaves alone.
        unsafe { dma_map_single(&raw const DISK, self.at(offset), BYTES, dir) }
    }

    /// An entry of 64 bytes in the middle of the page.
    fn list(&self) -> [ScatterEntry; 1] {
        let mut list = [ScatterEntry::EMPTY];
        ScatterEntry::initialise(&mut list);
        let record = pointer_to(self.page.first());
        list[0].set_page(u32::try_from(record.addr()).expect("32 bits"), 64, 1024);
        list
    }
}

fn ask(dma: DmaAddr) {
    // SAFETY: a device.
    assert_eq!(unsafe { dma_mapping_error(&raw const DISK, dma) }, 0);
}

/// What `device` says that it ends: `bytes` at `dma`.
fn end(device: &'static Device, dma: DmaAddr, bytes: u32, dir: u32) {
    // SAFETY: no device does anything, and the memory is the test's.
    unsafe { dma_unmap_single(ptr::from_ref(device), dma, bytes, dir) };
}

/// Provokes one misuse by `act`, of a mapping that is there, and whose end `act` may be; returns what was told.
fn provoke(act: impl FnOnce(&Scene)) -> String {
    let page = Pages::new(0).expect("memory");
    let mut scene = Scene { page, dma: DmaAddr::new(0) };
    scene.dma = scene.map(0, FROM);
    ask(scene.dma);
    let before = found();
    let ((), log) = capture_log(|| act(&scene));
    assert_eq!(found(), before + 1, "one misuse: {log:?}");
    let told = |part| log.text().matches(part).count();
    assert_eq!((told("DMA misuse: "), told("Backtrace:")), (1, 1), "{log:?}");
    let line = log.text().lines().find(|line| line.contains("DMA misuse: "));
    let line = String::from(line.expect("the line that was counted"));
    if mappings() != 0 {
        end(&DISK, scene.dma, BYTES, FROM);
    }
    assert_eq!((mappings(), found()), (0, before + 1), "{line}");
    line
}

/// Both parties are named, by device, address, size and function.
#[track_caller]
fn assert_names(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "no {word:?} in {line:?}");
    }
    assert!(!line.contains("by 0x"), "callers have no names: {line}");
}

macro_rules! unless_on {
    () => {
        if !is_on() {
            return Skipped("dma_debug is off");
        }
    };
}

#[ktest]
fn an_end_with_another_size_direction_or_family_names_both_s107() -> Completion {
    unless_on!();
    let line = provoke(|scene| end(&DISK, scene.dma, BYTES / 2, FROM));
    assert_names(
        &line,
        &["a careless disk: 128 bytes", "with another size: 256 bytes", "given by", "mapped by"],
    );
    let line = provoke(|scene| end(&DISK, scene.dma, BYTES, TO));
    assert_names(
        &line,
        &["with another direction", "to the device, given by", "from the device, mapped by"],
    );
    let line = provoke(|scene| {
        // SAFETY: as in `end`.
        unsafe { dma_unmap_page(&raw const DISK, scene.dma, BYTES, FROM) };
    });
    assert_names(&line, &["a page, ", "by other functions", "a buffer, "]);
    Ran
}

#[ktest]
fn an_end_at_another_address_of_nothing_or_of_anothers_names_both_s107() -> Completion {
    unless_on!();
    let line = provoke(|scene| end(&DISK, DmaAddr::new(scene.dma.raw() + 64), 64, FROM));
    assert_names(&line, &["at another address: 256 bytes"]);
    let line = provoke(|scene| end(&DISK, DmaAddr::new(scene.dma.raw() + 1024), 64, FROM));
    assert_names(&line, &["64 bytes", "which was never mapped"]);
    let line = provoke(|scene| end(&CARD, scene.dma, BYTES, FROM));
    assert_names(
        &line,
        &["a careless card: 256 bytes", "for another device: a careless disk: 256 bytes"],
    );
    let line = provoke(|scene| end(&TWIN, scene.dma, BYTES, FROM));
    assert_names(&line, &["for another device: a careless disk: 256 bytes"]);
    Ran
}

#[ktest]
fn a_mapping_that_was_not_asked_about_is_told_when_it_ends_s107() -> Completion {
    unless_on!();
    let line = provoke(|scene| {
        end(&DISK, scene.dma, BYTES, FROM);
        let dma = scene.map(512, TO);
        end(&DISK, dma, BYTES, TO);
    });
    assert_names(
        &line,
        &["nobody asked whether mapping it had failed", "to the device, mapped by"],
    );
    Ran
}

#[ktest]
fn two_mappings_of_one_cache_line_are_told_s107() -> Completion {
    unless_on!();
    if is_forced() {
        return Skipped("copies have lines of their own");
    }
    let line = provoke(|scene| {
        let second = scene.map(240, TO);
        ask(second);
        end(&DISK, second, BYTES, TO);
    });
    assert_names(&line, &["in a cache line of another: 256 bytes"]);
    Ran
}

/// Behind an IOMMU an end of another size is refused, and so is one of a list whose pieces are others: what stands is listed still, and its
/// right end says nothing.
#[ktest]
fn a_mapping_whose_end_was_refused_is_listed_still_s107() -> Completion {
    static BEHIND: Device = Device::coherent("a careless disk behind an IOMMU");
    unless_on!();
    let _attached = Attached::new(&BEHIND, 1 << 20);
    let page = Pages::new(0).expect("memory");
    let before = found();
    let told = |act: &dyn Fn(), words: &[&str]| {
        let (count, mapped) = (found(), mappings());
        let ((), log) = capture_log(act);
        assert_eq!((found(), mappings()), (count + 1, mapped), "one misuse: {log:?}");
        assert_names(log.text(), words);
    };
    let memory = ptr::with_exposed_provenance_mut(page.address().raw() as usize);
    // SAFETY: the test's page, which it leaves alone.
    let dma = unsafe { dma_map_single(&raw const BEHIND, memory, BYTES, FROM) };
    // SAFETY: a device.
    assert_eq!(unsafe { dma_mapping_error(&raw const BEHIND, dma) }, 0);
    told(&|| end(&BEHIND, dma, BYTES + PAGE_SIZE, FROM), &["with another size: 256 bytes"]);
    end(&BEHIND, dma, BYTES, FROM);
    let mut scattered = Scattered::new(2, 0, PAGE_SIZE);
    let list = &mut scattered.list;
    // SAFETY: the test's pages, which it leaves alone.
    let segments = unsafe { dma_map_sg(&raw const BEHIND, list.as_mut_ptr(), 2, FROM) };
    assert_eq!(segments, if is_forced() { 2 } else { 1 });
    if !is_forced() {
        told(&|| end(&BEHIND, list[0].dma_address, 64, FROM), &["a buffer, "]);
    }
    // SAFETY: as in `end`.
    unsafe { dma_unmap_sg(&raw const BEHIND, list.as_mut_ptr(), 2, FROM) };
    assert_eq!(found(), before + if is_forced() { 1 } else { 2 }, "right ends say nothing");
    assert_eq!(mappings(), 0);
    Ran
}

type Sync = unsafe extern "C" fn(*const Device, DmaAddr, u32, u32);

/// By both names, in each way in which it can fit no mapping.
#[ktest]
fn a_synchronisation_that_fits_no_mapping_names_both_s107() -> Completion {
    unless_on!();
    let ways: [(&str, Sync); 2] = [
        ("dma_sync_single_for_cpu: ", dma_sync_single_for_cpu),
        ("dma_sync_single_for_device: ", dma_sync_single_for_device),
    ];
    for (name, sync) in ways {
        let beside = |scene: &Scene, bytes| DmaAddr::new(scene.dma.raw() + bytes);
        // SAFETY: as in `end`.
        let line = provoke(|scene| unsafe { sync(&raw const DISK, scene.dma, BYTES, TO) });
        assert_names(&line, &[name, "with another direction: 256 bytes", "given by", "mapped by"]);
        // Of a copy nothing is beyond its end: that is refused besides.
        if !is_forced() {
            // SAFETY: as above.
            let line =
                provoke(|scene| unsafe { sync(&raw const DISK, beside(scene, 128), 129, FROM) });
            assert_names(&line, &[name, "129 bytes", "with another size: 256 bytes", "mapped by"]);
            // SAFETY: as above.
            let line =
                provoke(|scene| unsafe { sync(&raw const DISK, beside(scene, 512), 64, FROM) });
            assert_names(&line, &[name, "which was never mapped", "given by"]);
        }
        // SAFETY: as above.
        let line = provoke(|scene| unsafe { sync(&raw const CARD, scene.dma, 64, FROM) });
        assert_names(
            &line,
            &[name, "a careless card: 64 bytes", "for another device: a careless disk"],
        );
    }
    Ran
}

/// An entry of a list is no buffer by itself, nor is its address another entry's.
#[ktest]
fn a_list_s_entry_that_is_ended_otherwise_names_both_s107() -> Completion {
    unless_on!();
    let line = provoke(|scene| {
        let mut list = scene.list();
        // SAFETY: the test's page, which it leaves alone.
        assert_eq!(unsafe { dma_map_sg(&raw const DISK, list.as_mut_ptr(), 1, FROM) }, 1);
        // Nobody asks about entries one by one.
        end(&DISK, list[0].dma_address, 64, FROM);
    });
    assert_names(
        &line,
        &["dma_unmap_single", "a buffer, ", "by other functions", "a scatter list's entry, "],
    );
    Ran
}

#[ktest]
fn a_device_that_goes_with_mappings_is_told_s107() -> Completion {
    unless_on!();
    let mut left = DmaAddr::new(0);
    let line = provoke(|scene| {
        // SAFETY: the test's page, which it leaves alone.
        left = unsafe {
            dma_map_page(&raw const CARD, pointer_to(scene.page.first()), 1024, 64, FROM)
        };
        // SAFETY: a device.
        unsafe { dma_debug_device_goes(&raw const CARD) };
    });
    let words =
        format!("a careless card goes and 1 of its mappings stay: 64 bytes at {left}, a page");
    assert_names(&line, &[&words]);
    // The mapping itself is there still, and nobody checks it any more.
    let ((), _log) = capture_log(|| {
        // SAFETY: as in `end`.
        unsafe { dma_unmap_page(&raw const CARD, left, 64, FROM) };
    });
    Ran
}

/// Coherent buffers that stay are named one by one, with size and caller; those of another device of that name are not.
#[ktest]
fn a_device_that_goes_with_coherent_buffers_is_told_s107() -> Completion {
    unless_on!();
    let (goes, stays) = (Device::new("a careless screen"), Device::new("a careless screen"));
    let take = |device: &'static Device, bytes| {
        let mut dma = DmaAddr::new(0);
        // SAFETY: a device, and a place for an address.
        let memory =
            unsafe { dma_alloc_coherent(device, bytes, &raw mut dma, AllocationFlags::KERNEL) };
        assert!(!memory.is_null(), "no memory");
        (device, bytes, memory, dma)
    };
    let [goes, stays]: [&'static Device; 2] =
        [Box::leak(Box::new(goes)), Box::leak(Box::new(stays))];
    let before = found();
    let go = || {
        // SAFETY: a device.
        capture_log(|| unsafe { dma_debug_device_goes(goes) }).1
    };
    assert!(go().text().is_empty(), "it never had a buffer");
    let buffers = [take(stays, 4096), take(goes, 12288), take(goes, 1)];
    let log = go();
    let told = |part: &str| log.text().matches(part).count();
    assert_eq!(found(), before + 1);
    let line = "a careless screen goes and 2 of its coherent buffers stay";
    assert_eq!((told("DMA misuse: "), told(line), told("Backtrace:")), (1, 1, 1), "{log:?}");
    for (_, bytes, memory, dma) in &buffers[1..] {
        let line = format!("{:p}-", *memory);
        let line = log.text().lines().find(|told| told.contains(&line)).expect("a line of its own");
        let size = format!(" {} ", bytes.next_multiple_of(4096));
        for part in [size, format!("dma={dma}"), "+0x".into(), "for \"a careless screen\"".into()] {
            assert!(line.contains(&part), "no {part:?} in {line:?}");
        }
    }
    assert_eq!(told(&format!("dma={}", buffers[0].3)), 0, "another's: {log:?}");
    for (device, bytes, memory, dma) in buffers {
        // SAFETY: made above, and no reference was ever made.
        unsafe { dma_free_coherent(device, bytes, memory, dma) };
    }
    assert!(go().text().is_empty(), "it has none any more");
    assert_eq!(found(), before + 1);
    for device in [goes, stays] {
        // SAFETY: made of a box above, and nobody has it any more.
        drop(unsafe { Box::from_raw(ptr::from_ref(device).cast_mut()) });
    }
    Ran
}

/// What is right says nothing, by the functions of each family.
#[ktest]
fn right_use_is_no_misuse_s107() -> Completion {
    unless_on!();
    let before = found();
    let page = Pages::new(0).expect("memory");
    let scene = Scene { page, dma: DmaAddr::new(0) };
    let disk = &raw const DISK;
    for dir in [TO, FROM] {
        let dma = scene.map(0, dir);
        ask(dma);
        assert_eq!(mappings(), 1);
        // SAFETY: as in `end`.
        unsafe { dma_sync_single_for_cpu(disk, dma, BYTES, dir) };
        // SAFETY: as above.
        unsafe { dma_sync_single_for_device(disk, dma, BYTES, dir) };
        end(&DISK, dma, BYTES, dir);
        // SAFETY: the test's page, which it leaves alone.
        let dma = unsafe { dma_map_page(disk, pointer_to(scene.page.first()), 64, BYTES, dir) };
        ask(dma);
        // SAFETY: as in `end`.
        unsafe { dma_unmap_page(disk, dma, BYTES, dir) };
        // Nobody asks about entries one by one.
        let mut list = scene.list();
        // SAFETY: the test's page, which it leaves alone.
        assert_eq!(unsafe { dma_map_sg(disk, list.as_mut_ptr(), 1, dir) }, 1);
        assert_eq!(mappings(), 1);
        // SAFETY: as in `end`.
        unsafe { dma_sync_sg_for_cpu(disk, list.as_mut_ptr(), 1, dir) };
        // SAFETY: as above.
        unsafe { dma_sync_sg_for_device(disk, list.as_mut_ptr(), 1, dir) };
        // SAFETY: as above.
        unsafe { dma_unmap_sg(disk, list.as_mut_ptr(), 1, dir) };
        assert_eq!(mappings(), 0);
    }
    assert_eq!((mappings(), found()), (0, before));
    Ran
}

/// Where there are more mappings than places checking ends, which is told once and whoever asks is told, too; what goes on is checked
/// no more, until it begins anew.
#[ktest]
fn checking_ends_where_there_are_too_many_mappings_and_says_so_s107() -> Completion {
    if !is_on() {
        return Skipped("mappings are not checked: dma_debug=on");
    }
    if is_forced() {
        return Skipped("there are not so many bounce buffers");
    }
    let page = Pages::new(0).expect("memory");
    let at = ptr::with_exposed_provenance_mut(page.address().raw() as usize);
    let before = found();
    // Readers may be as many as they like.
    // SAFETY: the test's page, which it leaves alone.
    let map = || unsafe { dma_map_single(&raw const DISK, at, BYTES, TO) };
    let (dma, log) = capture_log(|| {
        let dma = map();
        let mut count = 1;
        while is_on() && count < 10_000 {
            assert_eq!(map(), dma);
            count += 1;
        }
        (0..count).for_each(|_| end(&CARD, dma, BYTES, FROM));
        dma
    });
    let told = log.text().matches("checking ends").count();
    assert_eq!((is_on(), found(), told), (false, before + 1, 1), "{}", log.text());
    assert_eq!(mappings(), 0, "nothing is listed");
    dma::debug::init(DmaChecks::On);
    assert!(is_on());
    let ((), log) = capture_log(|| end(&DISK, dma, BYTES, TO));
    assert!(log.text().contains("which was never mapped"), "{}", log.text());
    let mapped = map();
    ask(mapped);
    assert_eq!(mappings(), 1);
    end(&DISK, mapped, BYTES, TO);
    assert_eq!((mappings(), found()), (0, before + 2));
    Ran
}
