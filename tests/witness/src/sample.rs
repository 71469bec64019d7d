//! What is asked about: what a test points at while it lives, thinned out, and a sample of everything after every test.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use boot::layout::parts;
use kerncore::addr::{PAGE_SIZE, PageRange, VirtAddr};
use kerncore::layout::{
    HEAP_END, HEAP_START, LINEAR_END, LINEAR_START, STATIC_START, TEMPORARY_START, linear_address,
};
use mm::kernel;

use crate::channel::{Failure, ask, is_open};
use crate::{Kind, Testimony};

/// How many addresses of the window are remembered after a test has shown them.
const REMEMBERED: usize = 8;

// Relaxed throughout: tests run one after the other on one CPU, and a wrong count would only choose another sample.
/// The test that the counts belong to, by where its name lies.
static TEST: AtomicUsize = AtomicUsize::new(0);
/// How often it has pointed at each kind.
static COUNTS: [AtomicU32; Kind::COUNT] = [const { AtomicU32::new(0) }; Kind::COUNT];
/// Addresses of the window that were mapped when a test pointed at them, the last ones.
static SHOWN: [AtomicU32; REMEMBERED] = [const { AtomicU32::new(0) }; REMEMBERED];
/// How many there have been.
static SHOWN_COUNT: AtomicUsize = AtomicUsize::new(0);
/// How many tests there have been.
static TESTS: AtomicU32 = AtomicU32::new(0);

/// Asks the host about `testimony`, unless this test has asked about enough of the kind: the 1st, 4th, 16th, 64th… count.
///
/// # Errors
/// [`Failure`].
pub fn check(testimony: impl FnOnce() -> Testimony, address: VirtAddr) -> Result<(), Failure> {
    if !is_open() || !is_due(address) {
        return Ok(());
    }
    let testimony = testimony();
    remember(&testimony);
    ask(&[testimony])
}

/// Asks the host about the first and the last of `pages`, one between them, and the page behind.
///
/// # Errors
/// [`Failure`].
pub fn check_pages(pages: PageRange) -> Result<(), Failure> {
    if !is_open() || !is_due(pages.start()) {
        return Ok(());
    }
    let page =
        |number: u32, offset: u32| VirtAddr::new(pages.start().raw() + number * PAGE_SIZE + offset);
    let last = pages.count().saturating_sub(1);
    let testimonies =
        [page(0, 0), page(last / 2, 0x7fc), page(last, PAGE_SIZE - 1), page(last + 1, 0)];
    let testimonies = testimonies.map(Testimony::of);
    testimonies.iter().for_each(remember);
    ask(&testimonies)
}

/// Asks the host about one of everything that there is, another after each test.
///
/// # Errors
/// [`Failure`].
pub fn after_a_test() -> Result<(), Failure> {
    if !is_open() {
        return Ok(());
    }
    let test = TESTS.fetch_add(1, Relaxed);
    let turn = test / 4;
    let place = match test % 4 {
        0 => area_place(turn),
        1 => image_place(turn),
        2 => other_place(turn),
        _ => freed_place(turn),
    };
    ask(&[Testimony::of(place.unwrap_or(LINEAR_START))])
}

/// Whether `address` was mapped when a test pointed at it, not long ago.
pub(crate) fn was_witnessed(address: VirtAddr) -> bool {
    SHOWN.iter().any(|shown| shown.load(Relaxed) == address.raw())
}

/// Counts one more of its kind.
fn is_due(address: VirtAddr) -> bool {
    let test = ktest::running().map_or(0, |name| name.as_ptr() as usize);
    if TEST.swap(test, Relaxed) != test {
        for count in &COUNTS {
            count.store(0, Relaxed);
        }
    }
    let count = COUNTS[Kind::of(address) as usize].fetch_add(1, Relaxed) + 1;
    count.is_power_of_two() && count.trailing_zeros().is_multiple_of(2)
}

fn remember(testimony: &Testimony) {
    let of_window = matches!(
        testimony.kind,
        Kind::Vmalloc
            | Kind::Vmap
            | Kind::LargePage
            | Kind::Section
            | Kind::IoRemap
            | Kind::Coherent
    );
    if of_window && testimony.walker.is_some() {
        let place = SHOWN_COUNT.fetch_add(1, Relaxed) % REMEMBERED;
        SHOWN[place].store(testimony.address.raw(), Relaxed);
    }
}

/// A place in a page, always another.
fn within(turn: u32) -> u32 {
    turn.wrapping_mul(0x2c4) & (PAGE_SIZE - 4)
}

/// Each part of the image in its turn, and the page below each stack.
fn image_place(turn: u32) -> Option<VirtAddr> {
    let parts = parts();
    let part = parts[turn as usize % parts.len()].pages;
    let below = VirtAddr::new(part.start().raw() - PAGE_SIZE);
    let is_guard = turn % 2 == 1 && Kind::of(below) == Kind::StackGuard;
    let base = if is_guard {
        below
    } else {
        VirtAddr::new(part.start().raw() + turn.wrapping_mul(7) % part.count() * PAGE_SIZE)
    };
    base.checked_add(within(turn))
}

/// Each live area in its turn, and the page behind it.
fn area_place(turn: u32) -> Option<VirtAddr> {
    let mut left = turn / 2 % kernel().area_counts().areas.max(1);
    let mut found = None;
    let _ended = mm::area_list::for_each_line(|line| {
        if left == 0 && found.is_none() {
            found = Some(line.0.pages);
        }
        left = left.saturating_sub(1);
    });
    let pages = found?;
    let page =
        if turn.is_multiple_of(2) { turn.wrapping_mul(5) % pages.count() } else { pages.count() };
    // Of a port, the flags.
    VirtAddr::new(pages.start().raw() + page * PAGE_SIZE).checked_add(0x18)
}

/// The linear map here and there, its lent and its absent parts, the heap, the regions without anything, the user's half.
fn other_place(turn: u32) -> Option<VirtAddr> {
    let ram = kernel().zones().table().len();
    let linear = LINEAR_START;
    let scattered = turn.wrapping_mul(0x9e37_79b9) >> 8;
    let base = match turn % 8 {
        0..=2 => VirtAddr::new(linear.raw() + scattered % ram * PAGE_SIZE),
        3 => heap_page(turn),
        4 => dma::atomic_pool::usage().and_then(|pool| lent(pool.base)).unwrap_or(linear),
        5 => VirtAddr::new(LINEAR_END.raw() - PAGE_SIZE),
        6 => VirtAddr::new(scattered.wrapping_mul(PAGE_SIZE) % LINEAR_START.raw()),
        _ => {
            let places = [
                VirtAddr::new(HEAP_END.raw() - PAGE_SIZE),
                STATIC_START,
                TEMPORARY_START,
                VirtAddr::new(HEAP_START.raw() - PAGE_SIZE),
            ];
            places[turn as usize / 8 % places.len()]
        }
    };
    base.checked_add(within(turn))
}

fn heap_page(turn: u32) -> VirtAddr {
    let pages = mm::heap::usage().pages;
    let page = if pages == 0 { 0 } else { turn.wrapping_mul(3) % pages };
    VirtAddr::new(HEAP_START.raw() + page * PAGE_SIZE)
}

/// The linear address of what `address` leads to.
fn lent(address: VirtAddr) -> Option<VirtAddr> {
    let physical = kernel().table().translate(address)?.physical;
    linear_address(physical)
}

/// An address that a test has shown and that nobody has now.
fn freed_place(turn: u32) -> Option<VirtAddr> {
    let shown = SHOWN[turn as usize % REMEMBERED].load(Relaxed);
    let address = VirtAddr::new(shown);
    (shown != 0 && Kind::of(address) == Kind::Freed).then_some(address)
}
