//! What the console hears of refusals: once for what is worth it, and nothing where a caller or the seeds want silence (S3, S8,
//! S26).

use core::ptr::null;

use kerncore::addr::PAGE_SIZE;
use kerncore::coherent::AllocationFlags;
use ktest::ktest;
use linux::areas::{__vmalloc_area, alloc_vm_area, get_vm_area_node};
use linux::exec::vmalloc_exec;
use linux::objects::kvmalloc;
use linux::protection::PageProtection;
use linux::realloc::vrealloc;
use linux::refusal::{Refusals, refusals};
use linux::vmalloc::{__vmalloc, vmalloc, vmalloc_node};

use super::witness::{Books, feed, starve};

const KERNEL: AllocationFlags = AllocationFlags::KERNEL;
const PROTECTED: PageProtection = PageProtection::KERNEL;

/// How often there was something to tell of what `act` does.
pub(super) fn told(act: impl FnOnce()) -> (u32, u32) {
    let before = refusals();
    act();
    let Refusals { short, mistaken } = refusals();
    (short - before.short, mistaken - before.mistaken)
}

fn with(flags: u32) -> AllocationFlags {
    AllocationFlags(KERNEL.0 | flags)
}

/// However often callers ask for what means nothing, the first shortage is told.
#[ktest]
fn mistakes_and_shortage_are_counted_apart_s8() {
    let books = Books::now();
    let mistakes = told(|| {
        assert!(__vmalloc(PAGE_SIZE, with(0x8), PROTECTED).is_null());
        assert!(__vmalloc(PAGE_SIZE, KERNEL, PageProtection(9)).is_null());
        assert!(kvmalloc(16, with(0x3)).is_null());
        assert!(vmalloc_node(PAGE_SIZE, 9).is_null() && vmalloc_node(17 * PAGE_SIZE, 9).is_null());
        assert!(get_vm_area_node(PAGE_SIZE, 0, 9, KERNEL).is_null());
        assert!(get_vm_area_node(PAGE_SIZE, 0, 0, with(0x8)).is_null(), "flags of the record (S9)");
    });
    assert_eq!(mistakes, (0, 7));
    let hunger = starve(0);
    let short = told(|| assert!(vmalloc(PAGE_SIZE).is_null()));
    feed(hunger);
    assert_eq!(short, (1, 0));
    books.assert_unchanged();
}

#[ktest]
fn callers_who_want_no_words_are_refused_in_silence() {
    let books = Books::now();
    let quiet = |flags| with(flags | AllocationFlags::NO_WARNING);
    let refused = |quiet: &dyn Fn(u32) -> AllocationFlags| {
        let filled = |gfp, prot| {
            let area = get_vm_area_node(PAGE_SIZE, 2, -1, KERNEL);
            // SAFETY: a consumed area's descriptor is not used.
            unsafe { __vmalloc_area(area, gfp, prot) }
        };
        assert!(__vmalloc(PAGE_SIZE, quiet(0x8), PROTECTED).is_null());
        assert!(kvmalloc(PAGE_SIZE, quiet(0x8)).is_null());
        // SAFETY: there is no memory yet that could be used.
        assert!(unsafe { vrealloc(null(), PAGE_SIZE, quiet(0x8)) }.is_null());
        assert!(get_vm_area_node(PAGE_SIZE, 0, 9, quiet(0)).is_null());
        assert!(filled(quiet(0x8), PROTECTED).is_null());
        assert!(filled(quiet(0), PageProtection(9)).is_null());
        let hunger = starve(0);
        assert!(__vmalloc(PAGE_SIZE, quiet(0), PROTECTED).is_null());
        assert!(kvmalloc(2 * PAGE_SIZE, quiet(0)).is_null());
        // SAFETY: as above.
        assert!(unsafe { vrealloc(null(), PAGE_SIZE, quiet(0)) }.is_null());
        assert!(filled(quiet(0), PROTECTED).is_null());
        feed(hunger);
    };
    assert_eq!(told(|| refused(&quiet)), (0, 0));
    assert_eq!(told(|| refused(&with)), (4, 6), "those who do not forbid it are heard");
    books.assert_unchanged();
}

/// Sizes that cannot be: null, and not a word.
#[ktest]
fn impossible_sizes_are_refused_in_silence_s3_s26() {
    let books = Books::now();
    let silence = told(|| {
        for size in [0, 0xffff_f000, u32::MAX] {
            assert!(alloc_vm_area(size).is_null(), "{size:#x}");
            assert!(vmalloc_exec(size).is_null(), "{size:#x}");
            assert!(vmalloc(size).is_null(), "{size:#x}");
        }
        assert!(vmalloc_exec(0x8000_0000).is_null(), "more than the board's RAM");
    });
    assert_eq!(silence, (0, 0));
    let told = told(|| assert!(vmalloc_exec(5 << 20).is_null(), "more than a block"));
    assert_eq!(told, (1, 0));
    books.assert_unchanged();
}
