//! What Linux's test of vmalloc does, written anew from its description, on every CPU at once; with what it does not look at:
//! that areas lie apart, that guards fault, that every page keeps what was written to it, and that nothing is lost (S1, S2,
//! S7, S8, S23, S27, S87, S89).
//!
//! Each CPU marks its pages with words of its own, so that a page which two have shows. `operations=` repeats a case more often.

extern crate alloc;

use alloc::vec::Vec;

use arch::{irq, probe, smp};
use image::start;
use kerncore::addr::{PAGE_SIZE, PageRange, VirtAddr};
use kerncore::area::AreaFlags;
use kerncore::frames::Frame;
use kerncore::kernel_space::{Fill, NoArea};
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
    Books, NOBODY, Numbers, authority, each_page, guard_of, is_absent, plus, word_at,
};

/// Pages, marked from the first to the last.
struct Held {
    pages: PageRange,
    mark: u32,
}

/// What one CPU does with.
struct Hand {
    numbers: Numbers,
    /// The next mark: the CPU's number, and a count.
    next: u32,
}

impl Hand {
    fn of(cpu: u32) -> Self {
        Self { numbers: Numbers::new(0x51ab_1e00 + cpu), next: cpu << 24 }
    }

    /// `pages`, marked.
    #[track_caller]
    fn mark(&mut self, pages: PageRange) -> Held {
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

    /// Checks it once more, and frees it.
    #[track_caller]
    fn give(self) {
        self.assert_intact();
        assert_eq!(kernel().vfree(authority(), self.pages.start()), Ok(()));
    }
}

/// No two overlap, guards included (S1, S2).
#[track_caller]
fn assert_apart(held: &[Held]) {
    let mut pages: Vec<PageRange> = held.iter().map(|held| held.pages).collect();
    pages.sort_unstable_by_key(|pages| pages.first());
    for pair in pages.windows(2) {
        assert!(pair[0].end() < pair[1].first(), "{} and {}", pair[0], pair[1]);
    }
}

fn give_all(held: Vec<Held>) {
    held.into_iter().for_each(Held::give);
}

/// How often a case is repeated: `few` times, unless the command line says otherwise.
fn rounds(few: u32) -> u32 {
    start::started().and_then(|started| started.config.operations).unwrap_or(few)
}

/// Runs `case` on all CPUs at once; afterwards everything is back.
#[track_caller]
fn on_every_cpu(case: impl Fn(&mut Hand) + Sync) {
    let settle = || mm::ledger::settle();
    settle();
    let (books, barrier) = (Books::now(), Barrier::new());
    smp::run_on_each(|cpu| {
        barrier.wait();
        case(&mut Hand::of(cpu));
    });
    settle();
    books.assert_unchanged();
}

#[ktest]
fn areas_of_a_fixed_size_s1_s2() {
    on_every_cpu(|hand| {
        for pages in [1, 2, 4, 16, 64] {
            (0..rounds(20)).for_each(|_| hand.take(pages).give());
        }
    });
}

/// Every second area goes, and the holes are filled by areas that just fit.
#[ktest]
fn areas_that_fit_holes_exactly_s1_s7() {
    on_every_cpu(|hand| {
        for _ in 0..rounds(2) {
            let mut kept = Vec::new();
            let mut holes = Vec::new();
            for index in 0..100 {
                let held = hand.take(1);
                if index % 2 == 0 { kept.push(held) } else { holes.push(held) }
            }
            give_all(holes);
            for _ in 0..50 {
                kept.push(hand.take(1));
            }
            assert_apart(&kept);
            give_all(kept);
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
            assert_apart(&two);
            two.into_iter().for_each(Held::give);
        }
        assert_apart(&busy);
        give_all(busy);
    });
}

#[ktest]
fn areas_of_random_sizes_s1_s2() {
    on_every_cpu(|hand| {
        let mut held: Vec<Held> = Vec::new();
        for _ in 0..rounds(150) {
            if held.len() > 12 || (!held.is_empty() && hand.numbers.below(3) == 0) {
                let count = u32::try_from(held.len()).expect("few");
                held.swap_remove(hand.numbers.below(count) as usize).give();
            } else {
                let pages = 1 + hand.numbers.below(100);
                held.push(hand.take(pages));
                assert_apart(&held);
            }
        }
        give_all(held);
    });
}

#[ktest]
fn areas_of_a_fixed_alignment_s1_s4() {
    on_every_cpu(|hand| {
        for _ in 0..rounds(30) {
            hand.take_aligned(5, 2).expect("addresses").give();
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
                assert_apart(&held);
                give_all(core::mem::take(&mut held));
            }
        }
        give_all(held);
    });
}

/// An alignment that no address of the window has is refused, and only that is.
#[ktest]
fn each_alignment_is_had_or_refused_s1_s7() {
    let window = kernel().window();
    on_every_cpu(|hand| {
        for order in 0..32 {
            let aligned = window
                .first()
                .checked_next_multiple_of(1_u32.checked_shl(order).unwrap_or(0).max(1));
            // From 20 on only address zero is aligned; and another CPU may have the only place just now.
            let never = order >= 20 || aligned.is_none_or(|first| first + 1 >= window.end());
            match hand.take_aligned(1, order.min(31)) {
                Ok(held) => {
                    assert!(!never, "2^{order} pages");
                    held.give();
                }
                Err(NoArea::Addresses(ReserveError::NoSpace { .. })) => {
                    assert!(never || order > 12, "2^{order} pages");
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
        smp::run_on_each(|cpu| {
            let mut hand = Hand::of(cpu);
            let held = hand.mark(areas[cpu as usize]);
            held.assert_intact();
        });
        for (cpu, pages) in (0..).zip(areas) {
            let held = Held { pages, mark: (cpu << 24) + 1 };
            if smp::is_up(cpu) {
                held.give();
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
        for _ in 0..rounds(40) {
            let pages = 1 + hand.numbers.below(8);
            let held = hand.take(pages);
            held.assert_intact();
            let base = held.pages.start();
            let pointer = core::ptr::with_exposed_provenance(base.raw() as usize);
            // SAFETY: nobody uses it any more.
            irq::masked(|| unsafe { vfree_atomic(pointer) });
            // Somebody else may have freed what was queued, and have the address by now.
            assert!(smp::up().count() > 1 || kernel().find(base).is_none());
            hand.take(pages).give();
        }
        vm_area::free_deferred();
    });
}

/// The same by the owner, many before any is freed.
#[ktest]
fn frees_that_are_deferred_by_their_owner_s89() {
    on_every_cpu(|hand| {
        for _ in 0..rounds(5) {
            for _ in 0..12 {
                let bytes = (1 + hand.numbers.below(8)) * PAGE_SIZE;
                let area = VmArea::new(bytes).expect("memory");
                let held = hand.mark(area.pages());
                held.assert_intact();
                irq::masked(|| area.free_later());
            }
            hand.take(3).give();
        }
        vm_area::free_deferred();
    });
}

/// S87: from blocks of this CPU and as whole areas; what is written there is in the pages.
#[ktest]
fn short_lived_mappings_s23_s87() {
    on_every_cpu(|hand| {
        let own: Vec<Pages> = (0..100).map(|_| Pages::new(0).expect("memory")).collect();
        let records: Vec<*const Frame> = own.iter().map(|page| pointer_to(page.first())).collect();
        for round in 0..rounds(40) {
            let count = 1 + hand.numbers.below(100);
            // SAFETY: so many page pointers; nobody borrows the pages while they are mapped.
            let mapped = unsafe { vm_map_ram(records.as_ptr(), count, -1) };
            assert!(!mapped.is_null(), "{count} pages");
            let start = u32::try_from(mapped.expose_provenance()).expect("32 bits");
            let pages = PageRange::new(VirtAddr::new(start), count).expect("whole pages");
            let held = hand.mark(pages);
            for (address, word) in held.words() {
                assert_eq!(word_at(address), word, "in round {round}");
            }
            // SAFETY: our own, and nobody looks at it any more.
            unsafe { vm_unmap_ram(mapped, count) };
            assert!(probe::read_u8(pages.start()).is_err());
            for (index, (_, word)) in held.words().enumerate() {
                let (page, last) = (&own[index / 2], index % 2 == 1);
                let offset = if last { PAGE_SIZE - 4 } else { 0 };
                assert_eq!(word_at(plus(page.address(), offset)), word);
            }
        }
        drop(own);
    });
    kernel().close_idle_blocks();
}
