//! Bounce buffers against a list of who has which slots (S106).

use std::collections::BTreeMap;

use kerncore::addr::{PhysAddr, VirtAddr};
use kerncore::bounce::{
    Bounce, Exhausted, Found, GiveBackError, Granule, Loan, Original, SLOT, Slot,
};
use kerncore::streaming::Flow;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use crate::run::prove;

const BASE: u32 = 0x6080_0000;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many bytes, for a device that reaches so many bytes from the base on, and what they have alone.
    Take(u32, u32, Granule),
    /// One of the buffers that have slots, rightly.
    GiveBack(u32),
    /// Anything.
    GiveBackAt(u32),
    /// Who has what lies so far behind the base?
    Find(u32),
}

fn steps() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![1..=SLOT, 1..=6 * SLOT, Just(SLOT), Just(2 * SLOT)];
    let reach = prop_oneof![3 => Just(u32::MAX - BASE), 1 => 0..40 * SLOT];
    let near = prop_oneof![0..34 * SLOT, (0..34_u32).prop_map(|slot| slot * SLOT)];
    prop_oneof![
        6 => (bytes, reach, prop_oneof![Just(Granule::Slot), Just(Granule::Page)])
            .prop_map(|(bytes, reach, granule)| Step::Take(bytes, reach, granule)),
        5 => any::<u32>().prop_map(Step::GiveBack),
        1 => near.clone().prop_map(Step::GiveBackAt),
        2 => near.prop_map(Step::Find),
    ]
}

/// The buffers, by their first slots.
struct Model {
    slots: u32,
    loans: BTreeMap<u32, Loan>,
    made: u32,
}

/// A page has two slots.
fn granule_of(loan: &Loan) -> u32 {
    if loan.granule == Granule::Page { 2 } else { 1 }
}

fn slots_of(loan: &Loan) -> u32 {
    loan.bytes.div_ceil(granule_of(loan) * SLOT) * granule_of(loan)
}

fn at(slot: u32) -> PhysAddr {
    PhysAddr::new(BASE + slot * SLOT)
}

impl Model {
    fn is_free(&self, slot: u32) -> bool {
        slot < self.slots && self.owner(slot).is_none()
    }

    fn owner(&self, slot: u32) -> Option<(u32, Loan)> {
        let mut loans = self.loans.iter().map(|(&first, &loan)| (first, loan));
        loans.find(|(first, loan)| (*first..first + slots_of(loan)).contains(&slot))
    }

    fn taken(&self) -> u32 {
        self.loans.values().map(slots_of).sum()
    }

    /// The first of the lowest run of `count` slots, of the first `reached`, whose number is a multiple of `granule`.
    fn lowest(&self, count: u32, reached: u32, granule: u32) -> Option<u32> {
        (0..reached.min(self.slots)).step_by(granule as usize).find(|first| {
            let mut run = *first..first + count;
            first + count <= reached && run.all(|slot| self.is_free(slot))
        })
    }

    fn give_back(&self, offset: u32) -> Result<u32, GiveBackError> {
        let (slot, physical) = (offset / SLOT, PhysAddr::new(BASE + offset));
        if slot >= self.slots {
            return Err(GiveBackError::NotMine { physical });
        }
        match self.owner(slot) {
            None => Err(GiveBackError::Free { physical }),
            Some((first, _)) if first * SLOT == offset => Ok(first),
            Some((first, _)) => Err(GiveBackError::NotAStart { physical, first: at(first) }),
        }
    }
}

fn take(bounce: &mut Bounce<'_>, model: &mut Model, step: Step) -> TestCaseResult {
    match step {
        Step::Take(bytes, reach, granule) => {
            model.made += 1;
            let original = Original::Address(VirtAddr::new(model.made));
            let loan = Loan { original, bytes, flow: Flow::ToDevice, device: "a device", granule };
            let granule = granule_of(&loan);
            let reached = u32::try_from((u64::from(reach) + 1) / u64::from(SLOT));
            let reached = reached.expect("less than four billion");
            match (
                bounce.take(loan, PhysAddr::new(BASE + reach)),
                model.lowest(slots_of(&loan), reached, granule),
            ) {
                (Ok(physical), Some(first)) => {
                    prop_assert_eq!(physical, at(first));
                    model.loans.insert(first, loan);
                }
                (Err(Exhausted { bytes: wanted, slots, largest, .. }), None) => {
                    prop_assert_eq!((wanted, slots), (bytes, model.slots));
                    prop_assert!(largest < slots_of(&loan));
                    prop_assert_eq!(model.lowest(largest + 1, reached, granule), None);
                }
                (ours, theirs) => prop_assert!(false, "{ours:?}, the model says {theirs:?}"),
            }
        }
        Step::GiveBack(choice) => {
            let index = (choice as usize).checked_rem(model.loans.len());
            let first = index.and_then(|index| model.loans.keys().nth(index).copied());
            if let Some(first) = first {
                let loan = model.loans.remove(&first).expect("a key of the map");
                prop_assert_eq!(bounce.give_back(at(first)), Ok(loan));
            }
        }
        Step::GiveBackAt(offset) => {
            let expected = model.give_back(offset);
            let given = bounce.give_back(PhysAddr::new(BASE + offset));
            match expected {
                Ok(first) => prop_assert_eq!(given.ok(), model.loans.remove(&first)),
                Err(error) => prop_assert_eq!(given, Err(error)),
            }
        }
        Step::Find(offset) => {
            let owner = if offset / SLOT < model.slots { model.owner(offset / SLOT) } else { None };
            let wanted = owner.map(|(first, loan)| Found {
                first: at(first),
                loan,
                offset: offset - first * SLOT,
            });
            prop_assert_eq!(bounce.find(PhysAddr::new(BASE + offset)), wanted);
        }
    }
    Ok(())
}

#[test]
fn s106_bounce_buffers_agree_with_a_list_of_who_has_which_slots() {
    let histories = (1..=32_u32, vec(steps(), 1..150));
    prove(
        "-p properties",
        "bounce::s106_bounce_buffers_agree_with_a_list_of_who_has_which_slots",
        400,
        &histories,
        |(slots, steps)| {
            let mut records = vec![Slot::FREE; slots as usize];
            let mut bounce = Bounce::new(at(0), &mut records);
            let mut model = Model { slots, loans: BTreeMap::new(), made: 0 };
            for step in steps {
                take(&mut bounce, &mut model, step)?;
                prop_assert_eq!(bounce.taken(), model.taken());
                let loans = bounce.loans();
                let listed = model.loans.iter().map(|(&first, &loan)| (at(first), loan));
                prop_assert!(loans.eq(listed));
            }
            Ok(())
        },
    );
}
