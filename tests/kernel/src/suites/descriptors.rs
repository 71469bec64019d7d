//! Descriptors by the run, as the processor reads and clears them: eight at a time, which SoftMachine's do not.
//!
//! The words are those of a page that is no table.

use arch::machine::CortexA9;
use kerncore::addr::PhysAddr;
use kerncore::descriptor::SLOT_SIZE;
use kerncore::machine::Machine;
use ktest::ktest;
use mm::page_alloc::Pages;

use super::witness::authority;

/// The longest run: several times eight, and some.
const LONGEST: u32 = 35;
/// Slots before and behind it that it is not to touch.
const MARGIN: u32 = 9;

/// A page of slots, and the machine.
struct Slots {
    machine: CortexA9,
    page: Pages,
}

impl Slots {
    fn new() -> Self {
        let machine = *mm::kernel().table().raw_machine(authority());
        Self { machine, page: Pages::new(0).expect("a free frame") }
    }

    fn at(&self, index: u32) -> PhysAddr {
        self.page.first().base().checked_add(index * SLOT_SIZE).expect("a page of RAM")
    }

    fn write(&self, index: u32, word: u32) {
        self.machine.write_descriptors(self.at(index), [word].into_iter());
    }

    fn read(&self, index: u32) -> u32 {
        self.machine.read_descriptor(self.at(index))
    }
}

#[ktest]
fn a_run_is_joined_whole_and_nothing_beside_it_s17() {
    let slots = Slots::new();
    for index in 0..LONGEST + 2 * MARGIN {
        slots.write(index, 1 << 31);
    }
    for count in 0..=LONGEST {
        for index in MARGIN..MARGIN + count {
            slots.write(index, 1 << (index % 30));
        }
        let any = slots.machine.join_descriptors(slots.at(MARGIN), count, 1 << 30, |a, b| a | b);
        let wanted = (MARGIN..MARGIN + count).fold(1 << 30, |any, index| any | 1 << (index % 30));
        assert_eq!(any, wanted, "{count} slots");
    }
    // One that differs, at each place.
    for odd in MARGIN..MARGIN + LONGEST {
        slots.write(odd, 0x7fff_fffe);
        let all = slots.machine.join_descriptors(slots.at(MARGIN), LONGEST, 0, |a, b| a ^ b);
        let before = (MARGIN..MARGIN + LONGEST).fold(0, |all, index| all ^ slots.read(index));
        assert_eq!(all, before, "slot {odd}");
    }
}

#[ktest]
fn a_run_is_cleared_whole_and_nothing_beside_it_s21() {
    let slots = Slots::new();
    for count in 0..=LONGEST {
        for index in 0..LONGEST + 2 * MARGIN {
            slots.write(index, 0xa5a5_0000 | index);
        }
        slots.machine.clear_descriptors(slots.at(MARGIN), count);
        for index in 0..LONGEST + 2 * MARGIN {
            let inside = (MARGIN..MARGIN + count).contains(&index);
            let wanted = if inside { 0 } else { 0xa5a5_0000 | index };
            assert_eq!(slots.read(index), wanted, "slot {index} of {count} from {MARGIN}");
        }
    }
}
