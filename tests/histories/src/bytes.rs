//! From bytes to a history: every string of bytes is one, and a byte more or less changes a step and not all of them.
//!
//! ```text
//!   ┌───────────┬───────────┬─────────────────────┬──────
//!   │ behaviour │ step, its │ step, its arguments │ …
//!   │ of the    │ arguments │                     │
//!   │ machine   │           │                     │
//!   └───────────┴───────────┴─────────────────────┴──────
//!    1 byte      1 byte and up to 3
//! ```
//! What is missing at the end is zero.

use crate::bed::Bed;
use crate::history::{Audits, Mistake, Step, live};
use kerncore::addr::PAGE_SIZE;
use machine::Behaviour;

/// The most steps of a history: each costs a comparison of everything.
pub const MOST_STEPS: usize = 48;

/// The bytes to come.
struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u32 {
        match self.0.split_first() {
            Some((&byte, rest)) => {
                self.0 = rest;
                byte.into()
            }
            None => 0,
        }
    }

    /// A size: whole pages, a byte less, a byte more, or odd.
    fn size(&mut self) -> u32 {
        let byte = self.next();
        let pages = (1 + byte / 4 % 5) * PAGE_SIZE;
        match byte % 4 {
            0 => pages,
            1 => pages - 1,
            2 => pages - PAGE_SIZE + 1,
            _ => pages - byte,
        }
    }

    fn step(&mut self) -> Step {
        match self.next() % 25 {
            0 => Step::Vmalloc { bytes: self.size(), zeroed: false },
            1 => Step::Vmalloc { bytes: self.size(), zeroed: true },
            2 => {
                let (first, count) = (self.next(), self.next());
                Step::Vmap { first, count: 1 + count % 5, stride: count / 5 % 4 }
            }
            3 => Step::IoRemap { offset: self.next() * 48, bytes: self.size() },
            4 => Step::Coherent { bytes: self.size() },
            5 | 6 => Step::Write { pick: self.next(), cpu: self.next() as usize % 2 },
            7 => Step::DeviceWrite { pick: self.next() },
            8 => Step::WrongFree { pick: self.next(), how: self.mistake() },
            9 => Step::Famine { left: self.next() % 6 },
            10 => Step::Absurd { bytes: self.next() << 24 | self.next() },
            13 => Step::Code { bytes: self.size() },
            14 | 15 => {
                let (first, count) = (self.next(), self.next());
                // Now and then more than a block's fragments have.
                Step::MapRam { first, count: 1 + count % 66, stride: count / 66 }
            }
            16 => Step::CloseIdle,
            17 => Step::Bare { first: self.next(), count: 1 + self.next() % 5 },
            18 => Step::Remap { pick: self.next(), first: self.next() },
            19 | 20 => {
                let (pick, pages) = (self.next(), self.next());
                Step::Resize { pick, pages: 1 + pages % 9, zeroed: pages > 127 }
            }
            21 | 22 => {
                let (from, bytes) = (self.next() * 67, self.next() * 257);
                Step::Copy { from, bytes, writing: bytes & 1 != 0 }
            }
            23 => {
                let byte = self.next();
                Step::Huge { large: 1 + byte % 2, small: byte / 2 % 4 }
            }
            24 => Step::VmapRun { first: self.next() % 18, count: 14 + self.next() % 19 },
            _ => Step::Remove { pick: self.next() },
        }
    }

    fn mistake(&mut self) -> Mistake {
        match self.next() % 5 {
            0 => Mistake::Misaligned,
            1 => Mistake::Interior,
            2 => Mistake::Guard,
            3 => Mistake::Twice,
            _ => Mistake::AnotherKind,
        }
    }
}

/// The history that `bytes` stand for, and the machine that it happens on.
pub fn decode(bytes: &[u8]) -> (Behaviour, Vec<Step>) {
    let mut bytes = Bytes(bytes);
    let behaviour = match bytes.next() {
        0 => Behaviour::Hoarding,
        1 => Behaviour::Forgetful,
        seed => Behaviour::Random(seed.into()),
    };
    let mut steps = Vec::new();
    while !bytes.0.is_empty() && steps.len() < MOST_STEPS {
        steps.push(bytes.step());
    }
    (behaviour, steps)
}

/// Lives through the history that `bytes` stand for.
///
/// # Panics
/// When anything disagrees.
pub fn live_through(bytes: &[u8], audits: Audits) {
    let (behaviour, steps) = decode(bytes);
    live(&Bed::on(behaviour), &steps, audits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_string_is_a_history_of_bounded_length() {
        assert_eq!(decode(&[]).1.len(), 0);
        assert_eq!(decode(&[0]).1.len(), 0);
        assert_eq!(decode(&[0; 4096]).1.len(), MOST_STEPS);
        for byte in 0..=u8::MAX {
            let (_, steps) = decode(&[byte, byte]);
            assert_eq!(steps.len(), 1, "a step whose arguments are missing is one all the same");
        }
    }

    #[test]
    fn every_kind_of_step_can_be_said() {
        let said = |wanted: &str| {
            (0..=u8::MAX).any(|byte| {
                let (_, steps) = decode(&[0, byte, 0, 0]);
                format!("{:?}", steps[0]).starts_with(wanted)
            })
        };
        for name in [
            "Vmalloc",
            "Vmap",
            "MapRam",
            "CloseIdle",
            "Bare",
            "Remap",
            "Resize",
            "Copy",
            "IoRemap",
            "Coherent",
            "Code",
            "Remove",
            "Write",
            "DeviceWrite",
            "WrongFree",
            "Famine",
            "Absurd",
        ] {
            assert!(said(name), "{name}");
        }
    }
}
