//! What Linux's test of vmalloc does, written anew from its description, on every CPU at once; with what it does not look at:
//! that areas lie apart, that guards fault, that every page keeps what was written to it, and that nothing is lost (S1, S2,
//! S7, S8, S23, S27, S87, S89).
//!
//! Each CPU marks its pages with words of its own, so that a page which two have shows; and what all of them hold is in one
//! list, in which no two overlap. `operations=` repeats a case more often.

extern crate alloc;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use arch::lock::IrqSpinLock;
use arch::{irq, probe, smp};
use image::start;
use kerncore::addr::{PAGE_SIZE, PageRange, VirtAddr};
use kerncore::area::AreaFlags;
use kerncore::frames::Frame;
use kerncore::kernel_space::{Fill, NoArea};
use kerncore::lock::Class;
use kerncore::va_space::{Alignment, Request, ReserveError};
use ktest::ktest;
use linux::free::vfree_atomic;
use linux::map_ram::{vm_map_ram, vm_unmap_ram};
use linux::page::pointer_to;
use mm::kernel;
use mm::page_alloc::Pages;
use mm::vm_area::{self, VmArea};

use super::smp::Barrier;
use super::witness::{
    Books, NOBODY, Numbers, areas_by_address, authority, each_page, guard_of, is_absent,
    lowest_fit, plus, word_at,
};

/// Pages, marked from the first to the last.
struct Held {
    pages: PageRange,
    mark: u32,
}

/// More ranges than that are not held at once.
const MOST_HELD: usize = 4000;

/// What all CPUs hold, by address.
struct Everyone(IrqSpinLock<Vec<PageRange>>);

impl Everyone {
    fn new() -> Self {
        // Nothing is allocated under the lock.
        Self(IrqSpinLock::new(Class::Test(0), Vec::with_capacity(MOST_HELD)))
    }

    /// Notes that somebody has `pages`, which nobody else may have, guards included (S1, S2).
    #[track_caller]
    fn add(&self, pages: PageRange) {
        let neighbours = self.0.with(|held| {
            let place = held.partition_point(|other| other.first() < pages.first());
            assert!(held.len() < held.capacity(), "too many are held");
            let below = place.checked_sub(1).map(|place| held[place]);
            let above = held.get(place).copied();
            held.insert(place, pages);
            [below, above]
        });
        for other in neighbours.into_iter().flatten() {
            let apart = other.end() < pages.first() || pages.end() < other.first();
            assert!(apart, "{pages} was given while somebody has {other}");
        }
    }

    /// Notes that `pages` are about to be freed.
    #[track_caller]
    fn remove(&self, pages: PageRange) {
        self.0.with(|held| {
            let place = held.binary_search_by_key(&pages.first(), |held| held.first());
            let was = place.map(|place| held.remove(place));
            assert_eq!(was, Ok(pages));
        });
    }
}

/// What one CPU does with.
struct Hand<'e> {
    cpu: u32,
    numbers: Numbers,
    /// The next mark: the CPU's number, and a count.
    next: u32,
    everyone: &'e Everyone,
}

impl<'e> Hand<'e> {
    fn of(cpu: u32, everyone: &'e Everyone) -> Self {
        Self { cpu, numbers: Numbers::new(0x51ab_1e00 + cpu), next: cpu << 24, everyone }
    }

    /// `pages`, which are this CPU's alone, marked.
    #[track_caller]
    fn mark(&mut self, pages: PageRange) -> Held {
        self.everyone.add(pages);
        self.next += 1;
        let held = Held { pages, mark: self.next };
        for (address, word) in held.words() {
            // SAFETY: memory of this CPU's alone, which nobody borrows.
            let written = unsafe { probe::write_u32(address, word) };
            written.unwrap_or_else(|fault| panic!("{fault}"));
        }
        held
    }

    /// So many pages by vmalloc, marked.
    #[track_caller]
    fn take(&mut self, pages: u32) -> Held {
        let area = kernel().vmalloc(pages * PAGE_SIZE, Fill::Uninitialised, NOBODY);
        let area = area.unwrap_or_else(|error| panic!("{pages} pages: {error}"));
        assert_eq!(area.pages.count(), pages);
        self.mark(area.pages)
    }

    /// The same, aligned to 2^`order` pages; zeroed.
    fn take_aligned(&mut self, pages: u32, order: u32) -> Result<Held, NoArea> {
        let request =
            Request { bytes: pages * PAGE_SIZE, window: None, alignment: Alignment::Order(order) };
        let pages = kernel().reserve_area(request, AreaFlags::NONE, NOBODY)?.area.pages;
        assert!(pages.first().is_multiple_of(1 << order), "{pages} aligned to 2^{order} pages");
        kernel().fill_area(pages.start(), Fill::Zeroed).expect("memory");
        each_page(pages).for_each(|page| assert_eq!(word_at(plus(page, 64)), 0));
        Ok(self.mark(pages))
    }

    /// Looks at `held` once more, and says where it begins, for the caller to free it.
    #[track_caller]
    fn let_go(&self, held: &Held) -> VirtAddr {
        held.assert_intact();
        self.everyone.remove(held.pages);
        held.pages.start()
    }

    /// Checks `held` once more, and frees it.
    #[track_caller]
    fn give(&self, held: &Held) {
        let base = self.let_go(held);
        assert_eq!(kernel().vfree(authority(), base), Ok(()));
    }

    #[track_caller]
    fn give_all(&self, held: Vec<Held>) {
        for held in held {
            self.give(&held);
        }
    }

    /// Takes one out of `held`, and not always the last.
    fn draw(&mut self, held: &mut Vec<Held>) -> Held {
        let count = u32::try_from(held.len()).expect("few");
        held.swap_remove(self.numbers.below(count) as usize)
    }
}

impl Held {
    /// The first and the last word of every page, and what they should be.
    fn words(&self) -> impl Iterator<Item = (VirtAddr, u32)> + use<> {
        let mark = self.mark;
        each_page(self.pages).flat_map(move |page| {
            [0, PAGE_SIZE - 4].map(|offset| {
                let address = plus(page, offset);
                (address, address.raw().rotate_left(7) ^ mark)
            })
        })
    }

    /// Every page is as it was marked, and the guard faults (S2).
    #[track_caller]
    fn assert_intact(&self) {
        for (address, word) in self.words() {
            assert_eq!(word_at(address), word, "at {address}, of {}", self.pages);
        }
        for address in [guard_of(self.pages), plus(guard_of(self.pages), PAGE_SIZE - 1)] {
            let fault = probe::read_u8(address).expect_err("a guard");
            assert!(is_absent(&fault) && fault.address == Some(address), "{fault}");
        }
    }
}

/// How often a case is repeated: `few` times, unless the command line says otherwise.
fn rounds(few: u32) -> u32 {
    start::started().and_then(|started| started.config.operations).unwrap_or(few)
}

/// Runs `case` on all CPUs at once; afterwards everything is back.
#[track_caller]
fn on_every_cpu(case: impl Fn(&mut Hand<'_>) + Sync) {
    let settle = || mm::ledger::settle();
    settle();
    let (books, barrier, everyone) = (Books::now(), Barrier::new(), Everyone::new());
    smp::run_on_each(|cpu| {
        barrier.wait();
        case(&mut Hand::of(cpu, &everyone));
    });
    settle();
    assert_eq!(everyone.0.with(core::mem::take), [], "somebody has kept something");
    books.assert_unchanged();
}

#[ktest]
fn areas_of_a_fixed_size_s1_s2() {
    on_every_cpu(|hand| {
        for pages in [1, 2, 4, 16, 64] {
            for _ in 0..rounds(4) {
                let mut held: Vec<Held> = (0..5).map(|_| hand.take(pages)).collect();
                while !held.is_empty() {
                    let one = hand.draw(&mut held);
                    hand.give(&one);
                }
            }
        }
    });
}

/// Numbers from many CPUs, told apart by their sum and by the exclusive or of them all.
#[derive(Debug)]
struct Sum([AtomicU32; 2]);

impl Sum {
    const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; 2])
    }

    fn add(&self, number: u32) {
        self.0[0].fetch_add(number, Relaxed);
        self.0[1].fetch_xor(number, Relaxed);
    }

    fn take(&self) -> [u32; 2] {
        self.0.each_ref().map(|sum| sum.swap(0, Relaxed))
    }
}

/// Every second area goes, and the holes are filled by areas that just fit: below the last area all other addresses are in use,
/// so that the lowest fits are those holes, one and all.
#[ktest]
fn areas_that_fit_holes_exactly_s1_s7() {
    let (barrier, freed, filled) = (Barrier::new(), Sum::new(), Sum::new());
    on_every_cpu(|hand| {
        for _ in 0..rounds(2) {
            let mut kept: Vec<Held> = (0..100).map(|_| hand.take(1)).collect();
            barrier.wait();
            for index in (0..50).rev() {
                let hole = kept.swap_remove(2 * index);
                freed.add(hole.pages.first());
                hand.give(&hole);
            }
            barrier.wait();
            for _ in 0..50 {
                let held = hand.take(1);
                filled.add(held.pages.first());
                kept.push(held);
            }
            barrier.wait();
            if hand.cpu == 0 {
                assert_eq!(filled.take(), freed.take(), "other addresses than the holes'");
            }
            hand.give_all(kept);
            barrier.wait();
        }
    });
}

/// Among many areas that stay, a large and a small one come and go.
#[ktest]
fn a_long_list_of_live_areas_s1() {
    on_every_cpu(|hand| {
        let busy: Vec<Held> = (0..600).map(|_| hand.take(1)).collect();
        for _ in 0..rounds(10) {
            let two = [hand.take(100), hand.take(1)];
            for held in &two {
                hand.give(held);
            }
        }
        hand.give_all(busy);
    });
}

#[ktest]
fn areas_of_random_sizes_s1_s2() {
    on_every_cpu(|hand| {
        let mut held: Vec<Held> = Vec::new();
        for _ in 0..rounds(150) {
            if held.len() > 12 || (!held.is_empty() && hand.numbers.below(3) == 0) {
                let one = hand.draw(&mut held);
                hand.give(&one);
            } else {
                let pages = 1 + hand.numbers.below(100);
                held.push(hand.take(pages));
            }
        }
        hand.give_all(held);
    });
}

#[ktest]
fn areas_of_a_fixed_alignment_s1_s4() {
    on_every_cpu(|hand| {
        for _ in 0..rounds(4) {
            let aligned = |pages| hand.take_aligned(pages, 2).expect("addresses");
            let mut held: Vec<Held> = [5, 1, 3, 4, 7, 5, 2, 8].map(aligned).into();
            while !held.is_empty() {
                let one = hand.draw(&mut held);
                hand.give(&one);
            }
        }
    });
}

#[ktest]
fn areas_of_random_sizes_and_alignments_s1() {
    on_every_cpu(|hand| {
        let mut held = Vec::new();
        for _ in 0..rounds(30) {
            let (pages, order) = (1 + hand.numbers.below(10), hand.numbers.below(11));
            held.push(hand.take_aligned(pages, order).expect("addresses"));
            if held.len() == 10 {
                hand.give_all(core::mem::take(&mut held));
            }
        }
        hand.give_all(held);
    });
}

/// Where pages begin that are aligned to 2^`order` pages and free, with one behind each; four at most.
fn aligned_places(order: u32) -> usize {
    let window = kernel().window();
    let is_free = |first: u32| {
        let mut areas = areas_by_address();
        areas.all(|area| area.pages.end() < first || first + 1 < area.pages.first())
    };
    let places = (window.first().next_multiple_of(1 << order)..window.end()).step_by(1 << order);
    places.filter(|&at| at + 1 < window.end() && is_free(at)).take(4).count()
}

/// An alignment is refused if the window has no free place for it, and only then. One CPU is given the lowest place; of several,
/// each has one area at most, which can take one place from the others.
#[ktest]
fn each_alignment_is_had_or_refused_s1_s7() {
    mm::ledger::settle();
    // From 20 on only address zero is aligned, which is in no window.
    let places: [usize; 32] =
        core::array::from_fn(|order| (0..20).nth(order).map_or(0, aligned_places));
    assert!(places[0] == 4 && places[10] != 0 && places[19] == 0, "{places:?}");
    let cpus = smp::up().count();
    on_every_cpu(|hand| {
        for (order, places) in (0..).zip(places) {
            let lowest = if order < 20 { lowest_fit(1, order) } else { None };
            match hand.take_aligned(1, order) {
                Ok(held) => {
                    assert_ne!(places, 0, "2^{order} pages");
                    assert!(cpus > 1 || lowest == Some(held.pages.start()), "2^{order} pages");
                    hand.give(&held);
                }
                Err(NoArea::Addresses(ReserveError::NoSpace { .. })) => {
                    assert!(places < cpus, "2^{order} pages: there are {places} places");
                }
                Err(error) => panic!("2^{order} pages: {error}"),
            }
        }
    });
}

/// An area for each CPU, made by one and written by the CPU that it is for.
#[ktest]
fn areas_for_each_cpu() {
    for round in 0..rounds(10) {
        let areas = arch::cpu::NUMBERS.map(|_| {
            let bytes = (1 + round % 7) * PAGE_SIZE;
            kernel().vmalloc(bytes, Fill::Zeroed, NOBODY).expect("memory").pages
        });
        let everyone = Everyone::new();
        smp::run_on_each(|cpu| {
            let held = Hand::of(cpu, &everyone).mark(areas[cpu as usize]);
            held.assert_intact();
        });
        for (cpu, pages) in (0..).zip(areas) {
            let held = Held { pages, mark: (cpu << 24) + 1 };
            if smp::is_up(cpu) {
                Hand::of(cpu, &everyone).give(&held);
            } else {
                assert_eq!(kernel().vfree(authority(), pages.start()), Ok(()));
            }
        }
    }
}

/// With interrupts off, by address: the area cannot be found any more, and is free when somebody has time (S89).
#[ktest]
fn frees_that_are_deferred_by_address_s23_s89() {
    on_every_cpu(|hand| {
        for _ in 0..rounds(8) {
            let mut gone = Vec::new();
            let mut held: Vec<Held> = (0..5)
                .map(|_| {
                    let pages = 1 + hand.numbers.below(8);
                    hand.take(pages)
                })
                .collect();
            while !held.is_empty() {
                let one = hand.draw(&mut held);
                let base = hand.let_go(&one);
                let pointer = core::ptr::with_exposed_provenance(base.raw() as usize);
                // SAFETY: nobody uses it any more.
                irq::masked(|| unsafe { vfree_atomic(pointer) });
                gone.push(base);
                // Somebody else may have freed what was queued, and have the address by now.
                assert!(smp::up().count() > 1 || kernel().find(base).is_none());
                let other = hand.take(one.pages.count());
                hand.give(&other);
            }
            free_deferred(&gone);
        }
    });
}

/// Frees what waits, `gone` among it: no TLB knows that any more (S23).
#[track_caller]
fn free_deferred(gone: &[VirtAddr]) {
    // This CPU's knew it until now, if it still waits: other flushes may have emptied it.
    for &base in gone {
        let _value = probe::read_u8(base);
    }
    vm_area::free_deferred();
    // Of several CPUs another may have the addresses by now.
    if smp::up().count() == 1 {
        for &base in gone {
            let fault = probe::read_u8(base).expect_err("it was freed");
            assert!(is_absent(&fault), "{fault}");
        }
    }
}

/// The same by the owner, many before any is freed.
#[ktest]
fn frees_that_are_deferred_by_their_owner_s89() {
    on_every_cpu(|hand| {
        for _ in 0..rounds(5) {
            let mut gone = Vec::new();
            for _ in 0..12 {
                let bytes = (1 + hand.numbers.below(8)) * PAGE_SIZE;
                let area = VmArea::new(bytes).expect("memory");
                let held = hand.mark(area.pages());
                hand.let_go(&held);
                gone.push(area.address());
                irq::masked(|| area.free_later());
            }
            let other = hand.take(3);
            hand.give(&other);
            free_deferred(&gone);
        }
    });
}

/// Pages of a round's mappings at most: of the first, which may be an area of its own, and of two more.
const SHORT_LIVED: [u32; 3] = [100, 30, 8];

/// S87: from blocks of this CPU and as whole areas, several at once; what is written there is in the pages.
#[ktest]
fn short_lived_mappings_s23_s87() {
    on_every_cpu(|hand| {
        let total = SHORT_LIVED.iter().sum();
        let own: Vec<Pages> = (0..total).map(|_| Pages::new(0).expect("memory")).collect();
        let records: Vec<*const Frame> = own.iter().map(|page| pointer_to(page.first())).collect();
        for _ in 0..rounds(20) {
            let mut from = 0;
            let mut mappings: Vec<(usize, Held)> = Vec::new();
            for most in SHORT_LIVED {
                let count = 1 + hand.numbers.below(most);
                // SAFETY: so many page pointers; nobody borrows the pages while they are mapped.
                let mapped = unsafe { vm_map_ram(records[from..].as_ptr(), count, -1) };
                assert!(!mapped.is_null(), "{count} pages");
                let start = u32::try_from(mapped.expose_provenance()).expect("32 bits");
                let pages = PageRange::new(VirtAddr::new(start), count).expect("whole pages");
                mappings.push((from, hand.mark(pages)));
                from += count as usize;
            }
            while !mappings.is_empty() {
                let left = u32::try_from(mappings.len()).expect("few");
                let (from, held) = mappings.swap_remove(hand.numbers.below(left) as usize);
                let base = hand.let_go(&held);
                let mapped = core::ptr::with_exposed_provenance(base.raw() as usize);
                // SAFETY: our own, and nobody looks at it any more.
                unsafe { vm_unmap_ram(mapped, held.pages.count()) };
                // Nobody but this CPU has its blocks; of the addresses of an area others may have some by now.
                assert!(smp::up().count() > 1 || probe::read_u8(base).is_err());
                for (index, (_, word)) in held.words().enumerate() {
                    let (page, offset) = (&own[from + index / 2], [0, PAGE_SIZE - 4][index % 2]);
                    assert_eq!(word_at(plus(page.address(), offset)), word);
                }
            }
        }
        drop(own);
    });
    kernel().close_idle_blocks();
}
