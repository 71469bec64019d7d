//! Who holds a mapping for devices: its maker, each device that is attached, each buffer of scattered frames; with the last it goes
//! (S108).
//!
//! The one test of that is written over a trait, which the kernel's mappings implement, and so does every mutant: a way to count that
//! is wrong. It must pass on the first, and on a count without a mistake, and say of each mutant what it saw.

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dma::coherent::{self, Buffer};
use dma::device::Device;
use dma::iommu::{IommuMapping, detach};
use image::capture::capture_log;
use kerncore::addr::PAGE_SIZE;
use kerncore::coherent::Sleep;
use ktest::ktest;
use mm::domain::DeviceDomain;

use super::iommu::{BASE, BYTES};
use super::witness::NOBODY;

static DEVICES: [Device; 2] =
    [Device::new("the first holder of a mapping"), Device::coherent("the second holder")];

/// Mappings for two devices.
trait Mappings {
    /// Makes one more, which its maker holds.
    fn make(&mut self);
    /// The maker of a mapping lets it go.
    fn let_go(&mut self, mapping: usize);
    /// Attaches a device. Says whether.
    fn attach(&mut self, mapping: usize, device: usize) -> bool;
    /// Detaches a device. Says whether.
    fn detach(&mut self, device: usize) -> bool;
    /// A buffer for a device, which has none.
    fn take(&mut self, device: usize);
    /// Gives it back.
    fn give_back(&mut self, device: usize);
    /// How many hold a mapping, as long as its maker can ask.
    fn holders(&self, mapping: usize) -> Option<u32>;

    /// Does a step. Says whether.
    fn does(&mut self, step: Step) -> bool {
        match step {
            Make => self.make(),
            LetGo(mapping) => self.let_go(mapping),
            Attach(mapping, device) | AttachAgain(mapping, device) => {
                return self.attach(mapping, device);
            }
            Detach(device) | DetachAgain(device) => return self.detach(device),
            Take(device) => self.take(device),
            GiveBack(device) => self.give_back(device),
        }
        true
    }
}

/// Those of the kernel.
#[derive(Default)]
struct Real {
    mappings: Vec<Option<IommuMapping>>,
    buffers: [Option<Buffer>; 2],
}

impl Mappings for Real {
    fn make(&mut self) {
        self.mappings.push(Some(IommuMapping::new(BASE, BYTES).expect("memory")));
    }

    fn let_go(&mut self, mapping: usize) {
        drop(self.mappings[mapping].take());
    }

    fn attach(&mut self, mapping: usize, device: usize) -> bool {
        let mapping = self.mappings[mapping].as_ref().expect("its maker has it");
        // SAFETY: the device has nothing but a buffer of this mapping.
        unsafe { mapping.attach(&DEVICES[device]) }.is_ok()
    }

    fn detach(&mut self, device: usize) -> bool {
        // SAFETY: as above.
        capture_log(|| unsafe { detach(&DEVICES[device]) }).0.is_ok()
    }

    fn take(&mut self, device: usize) {
        let buffer = coherent::allocate(&DEVICES[device], PAGE_SIZE, Sleep::May, NOBODY);
        self.buffers[device] = Some(buffer.expect("memory"));
    }

    fn give_back(&mut self, device: usize) {
        let Buffer { address, dma } = self.buffers[device].take().expect("taken");
        // SAFETY: nobody uses it.
        let freed = unsafe { coherent::free(&DEVICES[device], PAGE_SIZE, address, dma) };
        assert_eq!(freed, Ok(()));
    }

    fn holders(&self, mapping: usize) -> Option<u32> {
        self.mappings[mapping].as_ref().map(|mapping| mapping.holders())
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    AttachmentIsNotCounted,
    DetachmentIsNotCounted,
    RefusedAttachmentIsCounted,
    RefusedDetachmentIsCounted,
    DevicesCountAsOne,
    GoesWithItsMaker,
    BufferIsNotCounted,
    BufferHoldsForEver,
}

/// Domains with a count of their own, in which something goes wrong.
struct Counted {
    wrong: Wrong,
    /// Each with its holders, and whether its maker has it.
    mappings: Vec<(Option<DeviceDomain>, u32, bool)>,
    places: [Option<usize>; 2],
}

impl Counted {
    const fn new(wrong: Wrong) -> Self {
        Self { wrong, mappings: Vec::new(), places: [None; 2] }
    }

    fn count(&mut self, mapping: usize, is_more: bool) {
        let (domain, holders, _) = &mut self.mappings[mapping];
        *holders = if is_more { *holders + 1 } else { holders.saturating_sub(1) };
        if *holders == 0 {
            drop(domain.take());
        }
    }

    fn is_alone(&self, device: usize) -> bool {
        self.places[1 - device].is_none() || self.wrong != Wrong::DevicesCountAsOne
    }
}

impl Mappings for Counted {
    fn make(&mut self) {
        let domain = DeviceDomain::new(BASE, BYTES).expect("memory");
        self.mappings.push((Some(domain), 1, true));
    }

    fn let_go(&mut self, mapping: usize) {
        self.mappings[mapping].2 = false;
        self.count(mapping, false);
        if self.wrong == Wrong::GoesWithItsMaker {
            drop(self.mappings[mapping].0.take());
        }
    }

    fn attach(&mut self, mapping: usize, device: usize) -> bool {
        let is_refused = self.places[device].is_some();
        let counts = if is_refused {
            self.wrong == Wrong::RefusedAttachmentIsCounted
        } else {
            self.wrong != Wrong::AttachmentIsNotCounted && self.is_alone(device)
        };
        if counts {
            self.count(mapping, true);
        }
        if !is_refused {
            self.places[device] = Some(mapping);
        }
        !is_refused
    }

    fn detach(&mut self, device: usize) -> bool {
        let place = self.places[device].take();
        let counts = match (place, self.wrong) {
            (Some(_), Wrong::AttachmentIsNotCounted | Wrong::DetachmentIsNotCounted) => false,
            (Some(_), _) => self.is_alone(device),
            (None, wrong) => wrong == Wrong::RefusedDetachmentIsCounted,
        };
        if counts {
            self.count(place.unwrap_or(0), false);
        }
        place.is_some()
    }

    fn take(&mut self, device: usize) {
        let place = self.places[device].expect("attached");
        if self.wrong != Wrong::BufferIsNotCounted {
            self.count(place, true);
        }
    }

    fn give_back(&mut self, device: usize) {
        let place = self.places[device].expect("attached");
        if ![Wrong::BufferIsNotCounted, Wrong::BufferHoldsForEver].contains(&self.wrong) {
            self.count(place, false);
        }
    }

    fn holders(&self, mapping: usize) -> Option<u32> {
        let (_, holders, is_held) = self.mappings[mapping];
        is_held.then_some(holders)
    }
}

/// What somebody does: with a mapping, with a device, or with both.
#[derive(Clone, Copy, Debug)]
enum Step {
    Make,
    LetGo(usize),
    Attach(usize, usize),
    /// To be refused: the device is attached.
    AttachAgain(usize, usize),
    Detach(usize),
    /// To be refused: the device is attached to nothing.
    DetachAgain(usize),
    Take(usize),
    GiveBack(usize),
}

use Step::{Attach, AttachAgain, Detach, DetachAgain, GiveBack, LetGo, Make, Take};

/// Each step with how many mappings live behind it, and who holds the first, if its maker can ask.
const HISTORIES: [&[(Step, u32, Option<u32>)]; 5] = [
    // The maker goes first, and then one device after the other.
    &[
        (Make, 1, Some(1)),
        (Attach(0, 0), 1, Some(2)),
        (Attach(0, 1), 1, Some(3)),
        (LetGo(0), 1, None),
        (Detach(0), 1, None),
        (Detach(1), 0, None),
    ],
    // The devices go first.
    &[
        (Make, 1, Some(1)),
        (Attach(0, 0), 1, Some(2)),
        (Attach(0, 1), 1, Some(3)),
        (Detach(1), 1, Some(2)),
        (Detach(0), 1, Some(1)),
        (DetachAgain(0), 1, Some(1)),
        (LetGo(0), 0, None),
    ],
    // What is refused counts for nothing, here or there.
    &[
        (Make, 1, Some(1)),
        (Make, 2, Some(1)),
        (Attach(0, 0), 2, Some(2)),
        (AttachAgain(0, 0), 2, Some(2)),
        (AttachAgain(1, 0), 2, Some(2)),
        (LetGo(1), 1, Some(2)),
        (LetGo(0), 1, None),
        (Detach(0), 0, None),
    ],
    // A buffer that stays behind, and comes back by the same mapping.
    &[
        (Make, 1, Some(1)),
        (Attach(0, 0), 1, Some(2)),
        (Take(0), 1, Some(3)),
        (Detach(0), 1, Some(2)),
        (Attach(0, 0), 1, Some(3)),
        (LetGo(0), 1, None),
        (GiveBack(0), 1, None),
        (Detach(0), 0, None),
    ],
    // One device has a buffer, the other goes.
    &[
        (Make, 1, Some(1)),
        (Attach(0, 0), 1, Some(2)),
        (Attach(0, 1), 1, Some(3)),
        (Take(1), 1, Some(4)),
        (Detach(0), 1, Some(3)),
        (GiveBack(1), 1, Some(2)),
        (Detach(1), 1, Some(1)),
        (LetGo(0), 0, None),
    ],
];

/// S108: whether mappings live as long as somebody holds them, and no longer; if not, what was seen.
fn a_mapping_goes_with_its_last_holder<M: Mappings>(make: impl Fn() -> M) -> Result<(), String> {
    let before = mm::domain::usage().0;
    for history in HISTORIES {
        let mut subject = make();
        for &(step, live, holders) in history {
            let wanted = !matches!(step, AttachAgain(..) | DetachAgain(_));
            let done = subject.does(step);
            let found = (done, mm::domain::usage().0 - before, subject.holders(0));
            if found != (wanted, live, holders) {
                return Err(format!("{step:?}: {found:?}, not {:?}", (wanted, live, holders)));
            }
        }
    }
    Ok(())
}

#[ktest]
fn a_mapping_goes_with_its_last_holder_and_not_before_s108() {
    assert_eq!(a_mapping_goes_with_its_last_holder(Real::default), Ok(()));
    // So that it is the mistake alone that is caught below.
    assert_eq!(a_mapping_goes_with_its_last_holder(|| Counted::new(Wrong::Nothing)), Ok(()));
}

/// The mutants, each with what is wrong in it for its name.
#[ktest]
fn each_wrong_count_of_holders_is_caught_s108() {
    for wrong in [
        Wrong::AttachmentIsNotCounted,
        Wrong::DetachmentIsNotCounted,
        Wrong::RefusedAttachmentIsCounted,
        Wrong::RefusedDetachmentIsCounted,
        Wrong::DevicesCountAsOne,
        Wrong::GoesWithItsMaker,
        Wrong::BufferIsNotCounted,
        Wrong::BufferHoldsForEver,
    ] {
        match a_mapping_goes_with_its_last_holder(|| Counted::new(wrong)) {
            Ok(()) => panic!("the mutant {wrong:?} survived"),
            Err(saw) => log::info!("{wrong:?} is caught: {saw}"),
        }
    }
}
