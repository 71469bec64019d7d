//! What C callers' mistakes and misfortunes say on the console: the words, how often, and what is silent (S8, S9, S17, S18, S26,
//! S28, S29, S32, S34, S37).

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ffi::c_void;
use core::num::NonZeroU32;
use core::ptr;

use arch::failure::fail_nth;
use dma::device::Device;
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, VirtAddr};
use kerncore::attributes::Attributes;
use kerncore::coherent::AllocationFlags;
use kerncore::descriptor::l2::SmallPages;
use kerncore::failure::{Afterwards, Point};
use kerncore::frames::Frame;
use kerncore::kernel_space::Fill;
use ktest::ktest;
use linux::dma_attrs::dma_alloc_attrs;
use linux::free::{vfree, vunmap};
use linux::iommu::arm_iommu_get_sgtable;
use linux::objects::kvfree;
use linux::page::pointer_to;
use linux::protection::PageProtection;
use linux::vmalloc::{vmalloc, vzalloc};
use linux::vmap::vmap;
use mm::kernel;
use mm::page_alloc::Pages;
use mm::report::RateLimit;
use mm::vm_area::VmArea;

use super::witness::{Books, NOBODY, authority, overwrite, plus};

/// More refusals than that pass between two that are told only after as many as no test causes.
const PATIENCE: u32 = 1 << 14;

/// More refusals of a function that tests seldom call than all of them together cause, doubled.
const FEW: u32 = 1 << 9;

/// The next line that `refused` says, which it need not say each time.
#[track_caller]
fn next_line(refused: impl Fn()) -> String {
    for _ in 0..PATIENCE {
        let ((), log) = capture_log(&refused);
        if let Some(line) = log.text().lines().next() {
            return line.to_string();
        }
    }
    panic!("it is never told");
}

/// Everything that `act` says, first lines of backtraces included.
fn lines(act: impl FnOnce()) -> Vec<String> {
    let ((), log) = capture_log(act);
    log.text().lines().map(ToString::to_string).collect()
}

/// S8: four times, and then when their number has doubled.
#[ktest]
fn warnings_are_told_four_times_and_at_each_doubling_s8() {
    let limit = RateLimit::new();
    let told = lines(|| (0..100).for_each(|number| limit.warn(format_args!("refusal {number}"))));
    let again =
        [7, 15, 31, 63].map(|number| format!("refusal {number} ({} times so far)", number + 1));
    let first = [0, 1, 2, 3].map(|number| format!("refusal {number}"));
    assert_eq!(told, [first, again].concat());
    assert_eq!(limit.count(), 100);
}

fn pointer(address: VirtAddr) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address.raw() as usize)
}

/// Which allocation of `vzalloc` of two pages is the one at `point`.
#[track_caller]
fn nth_at(point: Point) -> NonZeroU32 {
    let is_it = |&nth: &NonZeroU32| {
        let make = || kernel().vmalloc(2 * PAGE_SIZE, Fill::Zeroed, NOBODY);
        let (made, outcome) = fail_nth(nth, Afterwards::Nothing, make);
        if let Ok(area) = made {
            assert_eq!(kernel().vfree(authority(), area.pages.start()), Ok(()));
        }
        outcome.failed == Some(point)
    };
    (1..9).filter_map(NonZeroU32::new).find(is_it).expect("it allocates there")
}

/// Each thing that vmalloc may lack has its own words; those about addresses name the parameter.
#[ktest]
fn what_vmalloc_lacks_is_told_s8_s9_s28_s29() {
    for (point, words) in [
        (Point::Record, "no memory for the record"),
        (Point::Addresses, "vmalloc=<size> on the command line sets the size of the window"),
        (Point::Frames, "no 2 frames for vmalloc: of any memory"),
        (Point::Table, "no memory for the second-level table of 0x"),
    ] {
        let nth = nth_at(point);
        let books = Books::now();
        let line = next_line(|| {
            let (made, _) = fail_nth(nth, Afterwards::Nothing, || vzalloc(2 * PAGE_SIZE));
            assert!(made.is_null());
        });
        assert!(line.starts_with("vzalloc: 8192 bytes were refused: "), "{line}");
        assert!(line.contains(words), "{point}: {line}");
        books.assert_unchanged();
    }
}

/// Each function's words are limited by themselves: one that has refused so often that it is silent leaves another its own.
#[ktest]
fn a_function_that_refuses_often_silences_no_other_s99_s108() {
    static DETACHED: Device = Device::new("a device that nobody attached, and that asks");
    let mut dma = DmaAddr::new(0);
    let mut unknown = || {
        let flags = AllocationFlags::KERNEL;
        // SAFETY: a device, and a place for an address; the attributes mean nothing.
        let memory = unsafe { dma_alloc_attrs(&raw const DETACHED, 1, &raw mut dma, flags, 1) };
        assert!(memory.is_null());
    };
    // Until the next word is as many refusals away.
    let told_at =
        |line: &str| line.split_once(" times so far").map(|(before, _)| before.to_string());
    loop {
        let said = lines(&mut unknown);
        let count = said.first().and_then(|line| told_at(line));
        let count = count.and_then(|line| line.rsplit('(').next()?.parse::<u32>().ok());
        if count.is_some_and(|count| count >= 4 * FEW) {
            break;
        }
    }
    let other = || {
        // SAFETY: a device, and places that are not looked at: it is attached to nothing.
        let answer = unsafe {
            arm_iommu_get_sgtable(
                &raw const DETACHED,
                ptr::null_mut(),
                ptr::null_mut(),
                DmaAddr::new(0),
                1,
                0,
            )
        };
        assert!(answer < 0);
    };
    let line = (0..FEW).find_map(|_| lines(other).into_iter().next());
    let line = line.expect("a word of its own");
    assert!(
        line.starts_with("arm_iommu_get_sgtable: ") && line.contains("attached to no IOMMU"),
        "{line}"
    );
}

/// S26, S32, S37: nothing, and more than there is, are null without a word, and null is freed without one.
#[ktest]
fn what_cannot_be_meant_is_refused_without_a_word_s26_s32_s37() {
    let none: *const *const Frame = ptr::null();
    let said = lines(|| {
        for bytes in [0, u32::MAX, 0xffff_f000, 0xffff_f001, 0x8000_0000] {
            assert!(vmalloc(bytes).is_null() && vzalloc(bytes).is_null());
        }
        for count in [0, 1 << 20, u32::MAX] {
            // SAFETY: refused before the array is read.
            assert!(unsafe { vmap(none, count, 0, PageProtection::KERNEL) }.is_null());
        }
        // SAFETY: null is nobody's.
        unsafe { vfree(ptr::null()) };
        // SAFETY: as above.
        unsafe { vunmap(ptr::null()) };
    });
    assert_eq!(said, [""; 0]);
}

/// S32, S34: what is wrong with a free, each in words of its own, and who did it, every time.
#[ktest]
fn wrong_frees_are_told_with_a_backtrace_every_time_s32_s34() {
    let area = VmArea::new(2 * PAGE_SIZE).expect("memory");
    let page = Pages::new(0).expect("memory");
    let map = kernel().vmap(&[page.first()], Attributes::KERNEL_DATA, NOBODY).expect("addresses");
    let (memory, mapped) = (area.address(), map.pages.start());
    let books = Books::now();
    for _ in 0..6 {
        for (wrong, words) in [
            (plus(memory, 1), "is not the address of a page"),
            (plus(memory, PAGE_SIZE), "no area begins at"),
        ] {
            // SAFETY: refused, whatever is used.
            let said = lines(|| unsafe { vfree(pointer(wrong)) });
            assert!(said[0].starts_with("vfree: ") && said[0].contains(words), "{said:?}");
            assert!(said[0].contains(&wrong.to_string()) && said[1] == "Backtrace:", "{said:?}");
            // SAFETY: as above.
            let said = lines(|| unsafe { kvfree(pointer(wrong)) });
            assert!(said[0].starts_with("vfree: ") && said[0].contains(words), "{said:?}");
            // SAFETY: as above.
            let said = lines(|| unsafe { vunmap(pointer(wrong)) });
            assert!(said[0].starts_with("vunmap: ") && said[0].contains(words), "{said:?}");
        }
    }
    // SAFETY: refused, and nobody uses the memory.
    let said = lines(|| unsafe { vunmap(pointer(memory)) });
    assert_eq!(said[0], format!("vunmap: the area at {memory} is of kind vmalloc"));
    // SAFETY: as above.
    let said = lines(|| unsafe { vfree(pointer(mapped)) });
    assert_eq!(said[0], format!("vfree: the area at {mapped} is of kind vmap"));
    books.assert_unchanged();
    assert_eq!(kernel().vunmap(authority(), mapped), Ok(()));
}

/// S17, S18: what stops a mapping is named.
#[ktest]
fn what_stops_a_mapping_is_told_s17_s18() {
    let page = Pages::new(0).expect("memory");
    let record = pointer_to(page.first());
    let map = |pages: &[*const Frame]| {
        let count = u32::try_from(pages.len()).expect("few");
        // SAFETY: so many page pointers, or such as are refused.
        unsafe { vmap(pages.as_ptr(), count, 0, PageProtection::KERNEL) }
    };
    let line = next_line(|| assert!(map(&[record, ptr::null(), record]).is_null()));
    assert!(line.contains("vmap: 12288 bytes were refused: page 1, 0x0, is no page"), "{line}");

    let made = map(&[record, record]);
    let address = VirtAddr::new(u32::try_from(made.addr()).expect("32 bits"));
    // SAFETY: made a moment before, and nobody has a reference.
    unsafe { vunmap(made) };
    let second = plus(address, PAGE_SIZE);
    let descriptor = SmallPages::new(Attributes::KERNEL_RODATA).word(page.first());
    assert_eq!(overwrite(second, descriptor), 0);
    let line = next_line(|| assert!(map(&[record, record]).is_null()));
    assert_eq!(overwrite(second, 0), descriptor, "left alone");
    assert!(line.contains("vmap: 8192 bytes were refused: "), "{line}");
    assert!(line.contains(&second.to_string()), "{line}");
    assert!(line.contains(&format!("{descriptor:#010x}")), "{line}");
}
