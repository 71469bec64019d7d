//! The books of device addresses against a list of runs: S108 in windows of any size, at any place.

use std::collections::BTreeMap;

use kerncore::addr::{DmaAddr, PAGE_SIZE, PageRange, VirtAddr};
use kerncore::frames::Freed;
use kerncore::iommu::IovaError;
use kerncore::iommu::iova::{IovaSpace, window};
use kerncore::pool::Word;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use crate::run::prove;

/// Pages of the largest alignment: 16 MiB.
const CAP: u32 = 4096;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// This many pages.
    Take(u32),
    /// One of the runs that are out, rightly.
    Release(u32),
    /// Around one of the runs that are out: another page, or another size.
    Mistake { run: u32, by: i32, more: i32 },
}

fn steps() -> impl Strategy<Value = Step> {
    let pages = prop_oneof![
        6 => 0..=9_u32,
        3 => 10..=70_u32,
        2 => 71..600_u32,
        2 => 4_000..9_000_u32,
        1 => any::<u32>(),
    ];
    prop_oneof![
        6 => pages.prop_map(Step::Take),
        4 => any::<u32>().prop_map(Step::Release),
        2 => (any::<u32>(), -3..=3_i32, -2..=2_i32)
            .prop_map(|(run, by, more)| Step::Mistake { run, by, more }),
    ]
}

/// A window of up to 40,000 pages that begins anywhere in a few steps of the largest alignment.
fn windows() -> impl Strategy<Value = (u32, u32)> {
    (0..3 * CAP, prop_oneof![1..80_u32, 80..5_000_u32, 8_000..40_000_u32])
}

/// The runs that are out: pages by the number of the first page.
struct Model {
    window: PageRange,
    runs: BTreeMap<u32, u32>,
}

impl Model {
    /// The lowest run of `pages` free pages that begins at a multiple of the power of two that holds them, or of 16 MiB.
    fn lowest(&self, pages: u32) -> Option<u32> {
        let step = pages.checked_next_power_of_two().map_or(CAP, |order| order.min(CAP));
        let mut first = self.window.first().checked_next_multiple_of(step)?;
        while first.checked_add(pages)? <= self.window.end() {
            let below = self.runs.range(..first + pages).next_back();
            if below.is_none_or(|(start, length)| start + length <= first) {
                return Some(first);
            }
            first += step;
        }
        None
    }

    fn holder(&self, page: u32) -> Option<(u32, u32)> {
        let (&first, &pages) = self.runs.range(..=page).next_back()?;
        (first + pages > page).then_some((first, pages))
    }

    fn pick(&self, choice: u32) -> Option<(u32, u32)> {
        let index = (choice as usize).checked_rem(self.runs.len())?;
        self.runs.iter().nth(index).map(|(&first, &pages)| (first, pages))
    }

    fn judge(&self, page: u32, pages: u32) -> Result<PageRange, IovaError> {
        let at = |page: u32| DmaAddr::new(page * PAGE_SIZE);
        let start = at(page);
        if !self.window.contains(VirtAddr::new(start.raw())) {
            return Err(IovaError::Outside { start });
        }
        match self.holder(page) {
            None => Err(IovaError::Free { start }),
            Some((first, has)) if (first, has) == (page, pages) => {
                Ok(PageRange::from_numbers(first, has).expect("a run of the window"))
            }
            Some((first, has)) => Err(IovaError::OtherRun { start, pages, found: at(first), has }),
        }
    }
}

fn take(space: &mut IovaSpace<'_>, model: &mut Model, pages: u32) -> TestCaseResult {
    let wanted = model.lowest(pages).filter(|_| pages != 0);
    match space.take(pages) {
        Ok(run) => {
            prop_assert_eq!((Some(run.first()), run.count()), (wanted, pages));
            model.runs.insert(run.first(), pages);
        }
        Err(IovaError::Empty) => prop_assert_eq!(pages, 0),
        Err(IovaError::Exhausted { free, largest, .. }) => {
            prop_assert_eq!(wanted, None);
            prop_assert_eq!(free, model.window.count() - model.runs.values().sum::<u32>());
            prop_assert!(largest < pages && largest <= free);
            prop_assert!(largest == 0 || model.lowest(largest).is_some());
        }
        Err(other) => prop_assert!(false, "{other}"),
    }
    Ok(())
}

fn follow((first, pages): (u32, u32), steps: &[Step]) -> TestCaseResult {
    let base = DmaAddr::new(first * PAGE_SIZE);
    let window = window(base, pages * PAGE_SIZE).expect("below the top");
    let mut words = vec![Word::default(); IovaSpace::words_for(window)];
    let mut space = IovaSpace::new(window, &mut words).expect("as many words as it takes");
    let mut model = Model { window, runs: BTreeMap::new() };
    // What lies below the window, down to where its bitmaps begin, is nobody's to give back or to find.
    let below = first - first % CAP;
    if let Some(rest) = PageRange::from_numbers(below, first % CAP).filter(|rest| !rest.is_empty())
    {
        prop_assert_eq!(space.release(rest), Freed::No);
        prop_assert_eq!(space.run_from(below), None);
    }
    for step in steps {
        match *step {
            Step::Take(pages) => take(&mut space, &mut model, pages)?,
            Step::Release(choice) => {
                let Some((first, pages)) = model.pick(choice) else { continue };
                let found = space.find(DmaAddr::new(first * PAGE_SIZE), pages);
                prop_assert_eq!(found, model.judge(first, pages));
                let run = PageRange::from_numbers(first, pages).expect("a run");
                prop_assert_eq!(space.release(run), Freed::Yes);
                prop_assert_eq!(space.release(run), Freed::No, "released twice");
                model.runs.remove(&first);
            }
            Step::Mistake { run, by, more } => {
                let Some((first, pages)) = model.pick(run) else { continue };
                let page = first.saturating_add_signed(by);
                let pages = pages.saturating_add_signed(more).max(1);
                let found = space.find(DmaAddr::new(page * PAGE_SIZE), pages);
                prop_assert_eq!(found, model.judge(page, pages));
                let around = space.run_of(DmaAddr::new(page * PAGE_SIZE));
                let around = around.map(|run| (run.first(), run.count()));
                prop_assert_eq!(around, model.holder(page), "{:#x}", page);
                let inside = space.find(DmaAddr::new(page * PAGE_SIZE + 4), pages);
                prop_assert!(inside.is_err(), "no page begins there");
                let behind = space.run_from(page).map(|run| (run.first(), run.count()));
                let next = model.runs.range(page..).next();
                prop_assert_eq!(behind, next.map(|(&first, &pages)| (first, pages)));
            }
        }
        let runs = space.runs().map(|run| (run.first(), run.count()));
        prop_assert!(runs.eq(model.runs.iter().map(|(&first, &pages)| (first, pages))));
        prop_assert_eq!(space.is_unused(), model.runs.is_empty());
        let usage = space.usage();
        prop_assert_eq!(usage.taken, model.runs.values().sum::<u32>());
        prop_assert_eq!(usage.runs as usize, model.runs.len());
        prop_assert_eq!(usage.pages, window.count());
    }
    Ok(())
}

/// S108: first fit, aligned to the order and no further than 16 MiB, as addresses and not in the window.
#[test]
fn device_addresses_are_given_and_taken_back_as_a_list_of_runs_says() {
    prove(
        "-p properties --lib",
        "iova::device_addresses_are_given_and_taken_back_as_a_list_of_runs_says",
        400,
        &(windows(), vec(steps(), 1..60)),
        |(window, steps)| follow(window, &steps),
    );
}
