//! The space and the model, hand in hand.

use std::collections::BTreeMap;

use kerncore::addr::{PAGE_SHIFT, VirtAddr};
use kerncore::owned_range::OwnedRange;
use kerncore::va_space::{
    Area, AreaState, PublishError, ReleaseError, ReserveError, VaSpace, VaStorage,
};
use proptest::sample::Index;
use proptest::test_runner::{TestCaseError, TestCaseResult};
use proptest::{prop_assert, prop_assert_eq};

use super::model::{Model, PAGE, State, Verdict};
use super::right;
use super::step::{Memory, Scene, Step, Wish};

pub(super) struct Walk<'s> {
    space: VaSpace<'s, u32>,
    model: Model,
    /// The ranges that are out, by base.
    held: BTreeMap<u64, OwnedRange>,
    next_record: u32,
}

impl<'s> Walk<'s> {
    pub(super) fn new(scene: Scene, memory: &'s mut Memory) -> Self {
        let storage = VaStorage::carve(&mut memory.words, &mut memory.records, scene.pages);
        let storage = storage.expect("enough memory for the scene");
        let space = VaSpace::new(right::to(scene.range()), storage).expect("a scene has a page");
        Self { space, model: Model::new(scene), held: BTreeMap::new(), next_record: 0 }
    }

    /// Does `step` on both sides.
    pub(super) fn take(&mut self, step: &Step) -> TestCaseResult {
        match step {
            Step::Reserve(wish) => self.reserve(*wish),
            Step::Publish(pick) => self.with_area(*pick, Self::publish),
            Step::Retire(pick) => self.with_area(*pick, Self::retire),
            Step::Release(pick) => self.with_area(*pick, Self::release),
            Step::Extend(pick, more) => {
                self.with_area(*pick, |walk, base| walk.extend(base, *more))
            }
            Step::Shrink(pick, gone) => {
                self.with_area(*pick, |walk, base| walk.shrink(base, *gone))
            }
            Step::Find(pick, offset) => self.with_area(*pick, |walk, base| {
                walk.compare_lookups(base.saturating_add_signed(i64::from(*offset)))
            }),
        }
    }

    fn with_area(
        &mut self,
        pick: Index,
        act: impl FnOnce(&mut Self, u64) -> TestCaseResult,
    ) -> TestCaseResult {
        if self.model.areas.is_empty() {
            return Ok(());
        }
        let nth = pick.index(self.model.areas.len());
        let base = *self.model.areas.keys().nth(nth).expect("as many areas as counted");
        act(self, base)
    }

    fn reserve(&mut self, wish: Wish) -> TestCaseResult {
        let expected = self.model.judge(&wish);
        let free = self.space.free_pages();
        match self.space.reserve(&wish.request()) {
            Ok(area) => {
                let base = u64::from(area.start().raw());
                prop_assert_eq!(Verdict::At(base), expected, "{:?}", wish);
                prop_assert_eq!(area.count(), wish.bytes.div_ceil(4096));
                prop_assert_eq!(self.space.free_pages() + area.count() + 1, free, "S2");
                self.model.reserve(base, wish.bytes);
                self.held.insert(base, area);
            }
            Err(ReserveError::ZeroSize) => prop_assert_eq!(expected, Verdict::Zero),
            Err(ReserveError::TooLarge { bytes }) => {
                prop_assert_eq!((expected, bytes), (Verdict::TooLarge, wish.bytes));
            }
            Err(ReserveError::NoSpace { wanted, largest_hole, .. }) => {
                prop_assert_eq!(expected, Verdict::NoSpace, "{:?}", wish);
                prop_assert_eq!(wanted, wish.bytes.div_ceil(4096) + 1);
                prop_assert_eq!(largest_hole as usize, self.model.free().0);
            }
        }
        Ok(())
    }

    /// S86: exactly if what lies behind the guard is free; the right to the pages on top comes out, and no other.
    fn extend(&mut self, base: u64, more: u32) -> TestCaseResult {
        let bytes = self.model.areas[&base].bytes;
        let expected = more != 0 && self.model.is_free(base + bytes + PAGE, u64::from(more) * PAGE);
        let held = self.held.remove(&base).expect("an area's range is out");
        let added = self.space.extend(&held, more);
        prop_assert_eq!(added.is_some(), expected, "{} by {} pages", base, more);
        let Some(added) = added else {
            self.held.insert(base, held);
            return Ok(());
        };
        prop_assert_eq!(added.count(), more);
        let whole = held.join(added).expect("the pages behind");
        prop_assert_eq!(self.space.extend(&whole, 0), None);
        self.held.insert(base, whole);
        self.model.resize(base, bytes + u64::from(more) * PAGE);
        Ok(())
    }

    /// S86: what is given up is free, its guard moves down; a part that is not an area's end is refused.
    fn shrink(&mut self, base: u64, gone: u32) -> TestCaseResult {
        let held = self.held.remove(&base).expect("an area's range is out");
        let keep = held.count() - gone % held.count();
        let (keep, rest) = match held.split_at(keep) {
            Ok(parts) => parts,
            // All of it stays.
            Err(held) => {
                self.held.insert(base, held);
                return Ok(());
            }
        };
        let bytes = u64::from(keep.count()) * PAGE;
        let rest = match rest.split_at(1) {
            // The lower part alone is no whole area's end.
            Ok((middle, last)) => match self.space.shrink(&keep, middle) {
                Ok(()) => return Err(TestCaseError::fail("a part in the middle was given up")),
                Err(middle) => middle.join(last).expect("neighbours"),
            },
            Err(rest) => rest,
        };
        prop_assert_eq!(self.space.shrink(&keep, rest), Ok(()));
        self.held.insert(base, keep);
        self.model.resize(base, bytes);
        Ok(())
    }

    fn publish(&mut self, base: u64) -> TestCaseResult {
        let record = self.next_record;
        let address = virtual_address(base);
        let area = self.model.areas.get_mut(&base).expect("a known area");
        let expected = match area.state {
            State::Reserved => Ok(()),
            State::Live(_) => Err(PublishError::AlreadyLive { base: address, record }),
            State::Dying => Err(PublishError::Dying { base: address, record }),
        };
        prop_assert_eq!(self.space.publish(address, record), expected);
        if area.state == State::Reserved {
            area.state = State::Live(self.next_record);
            self.next_record += 1;
        }
        Ok(())
    }

    fn retire(&mut self, base: u64) -> TestCaseResult {
        let area = self.model.areas.get_mut(&base).expect("a known area");
        let expected = match area.state {
            State::Live(record) => Some(record),
            State::Reserved | State::Dying => None,
        };
        let retired = self.space.retire(virtual_address(base));
        prop_assert_eq!(retired, expected);
        if expected.is_some() {
            area.state = State::Dying;
        }
        prop_assert_eq!(self.space.retire(virtual_address(base)), None, "S14: a second time");
        Ok(())
    }

    fn release(&mut self, base: u64) -> TestCaseResult {
        let state = self.model.areas.get(&base).expect("a known area").state;
        let area = self.held.remove(&base).expect("a held area");
        match (self.space.release(area), state) {
            (Ok(()), State::Reserved | State::Dying) => self.model.release(base),
            (Err(ReleaseError::StillLive { usable }), State::Live(_)) => {
                self.held.insert(base, usable);
            }
            (outcome, _) => prop_assert!(false, "{:#x} was {:?}: {:?}", base, state, outcome),
        }
        Ok(())
    }

    /// Asks both sides who owns `address`.
    fn compare_lookups(&self, address: u64) -> TestCaseResult {
        let Ok(raw) = u32::try_from(address) else { return Ok(()) };
        let address = u64::from(raw);
        let containing = self
            .space
            .find_containing(VirtAddr::new(raw))
            .map(|(pages, record)| (u64::from(pages.start().raw()), *record));
        prop_assert_eq!(containing, self.model.containing(address), "S88 at {:#x}", raw);
        let exact = self.space.find(VirtAddr::new(raw)).copied();
        let expected = self.model.areas.get(&address).and_then(|area| match area.state {
            State::Live(record) => Some(record),
            State::Reserved | State::Dying => None,
        });
        prop_assert_eq!(exact, expected, "S13 at {:#x}", raw);
        let base =
            |area: Option<Area<'_, u32>>| area.map(|area| u64::from(area.usable.start().raw()));
        let next = self.model.areas.range(address..).next().map(|(&base, _)| base);
        prop_assert_eq!(base(self.space.next_area_from(VirtAddr::new(raw))), next);
        let previous = self.model.areas.range(..=address).next_back().map(|(&base, _)| base);
        prop_assert_eq!(base(self.space.previous_area_from(VirtAddr::new(raw))), previous);
        Ok(())
    }

    /// Compares all that can be seen of the space with the model.
    pub(super) fn compare(&self) -> TestCaseResult {
        prop_assert_eq!(self.space.check(), Ok(()));
        let mut expected = self.model.areas.iter();
        let mut end_of_last = self.space.range().first();
        for area in &self.space {
            let (&base, modelled) = expected.next().expect("no more areas than modelled");
            prop_assert_eq!(u64::from(area.usable.start().raw()), base, "S1: by address");
            prop_assert_eq!(u64::from(area.usable.count()) << PAGE_SHIFT, modelled.bytes);
            let state = match area.state {
                AreaState::Reserved => State::Reserved,
                AreaState::Live(record) => State::Live(*record),
                AreaState::Dying => State::Dying,
            };
            prop_assert_eq!(state, modelled.state, "S14a");
            prop_assert!(area.usable.first() >= end_of_last, "S2: behind the last one's guard");
            end_of_last = area.usable.end() + 1;
            for offset in [0, 1, modelled.bytes - 1, modelled.bytes, modelled.bytes + 4096] {
                self.compare_lookups(base + offset)?;
            }
        }
        prop_assert!(end_of_last <= self.space.range().end(), "S7: guard and all");
        prop_assert_eq!(expected.next().map(|(base, _)| *base), None, "an area is missing");
        let free = (self.space.largest_hole() as usize, self.space.free_pages() as usize);
        prop_assert_eq!(free, self.model.free());
        prop_assert_eq!(self.space.area_count() as usize, self.model.areas.len());
        Ok(())
    }

    /// Gives everything back, from the middle outwards; the space is then as new.
    pub(super) fn finish(mut self) -> TestCaseResult {
        while !self.model.areas.is_empty() {
            let nth = self.model.areas.len() / 2;
            let base = *self.model.areas.keys().nth(nth).expect("an area in the middle");
            self.retire(base)?;
            self.release(base)?;
        }
        self.compare()?;
        prop_assert_eq!(self.space.free_pages(), self.space.range().count());
        Ok(())
    }
}

fn virtual_address(base: u64) -> VirtAddr {
    VirtAddr::new(u32::try_from(base).expect("an address of 32 bits"))
}
