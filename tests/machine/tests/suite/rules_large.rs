//! The machine's rules for large entries (ARM DDI 0406C, B3.5.1, B3.10.1): each is held, and goes, as a whole, and what other
//! entries serve the same address is unpredictable.

use kerncore::{
    addr::{PageRange, PhysAddr, VirtAddr},
    machine::Machine,
};
use machine::{Behaviour, Fault, Kind, Privilege, SoftCpu, SoftMachine};

const ROOT: u32 = 0x6000_4000;
const TABLE: u32 = 0x6000_8000;
/// The first address of a section.
const START: u32 = 0xc000_0000;
/// Read and written by the kernel, Normal memory; each at frames of its own.
const SECTION: u32 = 0x6111_141e;
const LARGE: u32 = 0x6101_941d;
const SMALL: u32 = 0x6110_045f;

fn hoarding() -> SoftMachine {
    SoftMachine::new(Behaviour::Hoarding, 1, PhysAddr::new(ROOT))
}

/// Sixteen MiB of Device memory.
const SUPERSECTION: u32 = 0x4104_0416;

fn link(machine: &SoftMachine, word: u32) {
    machine.device_write(PhysAddr::new(ROOT + (START >> 20) * 4), word);
}

fn slots(machine: &SoftMachine, slots: std::ops::Range<u32>, word: u32) {
    slots.for_each(|slot| machine.device_write(PhysAddr::new(TABLE + slot * 4), word));
}

fn at(page: u32) -> VirtAddr {
    VirtAddr::new(START + page * 0x1000)
}

fn reach(cpu: SoftCpu<'_>, page: u32) -> Result<u32, Fault> {
    cpu.access(at(page), Kind::Write, Privilege::Kernel).map(PhysAddr::raw)
}

fn forget(cpu: SoftCpu<'_>, page: u32) {
    cpu.invalidate_tlb(PageRange::new(at(page), 1).expect("a page"));
    cpu.barrier();
}

#[test]
fn a_section_goes_by_any_address_in_it() {
    let machine = hoarding();
    let cpu = machine.cpu(0);
    link(&machine, SECTION);
    assert_eq!(reach(cpu, 3), Ok(0x6110_3000));
    link(&machine, 0);
    assert_eq!(reach(cpu, 200), Ok(0x611c_8000), "held, and as a whole");
    forget(cpu, 77);
    assert_eq!(reach(cpu, 3), Err(Fault::Translation(at(3))));
}

#[test]
fn a_large_page_goes_by_any_address_in_it_and_with_no_other() {
    let machine = hoarding();
    let cpu = machine.cpu(0);
    link(&machine, TABLE | 1);
    slots(&machine, 16..32, LARGE);
    assert_eq!(reach(cpu, 17), Ok(0x6101_1000));
    slots(&machine, 16..32, 0);
    assert_eq!(reach(cpu, 31), Ok(0x6101_f000), "one descriptor was enough for all");
    forget(cpu, 15);
    forget(cpu, 32);
    assert_eq!(reach(cpu, 17), Ok(0x6101_1000));
    forget(cpu, 30);
    assert_eq!(reach(cpu, 17), Err(Fault::Translation(at(17))));
}

#[test]
fn entries_of_two_sizes_for_one_address_are_a_conflict() {
    let machine = hoarding();
    let cpu = machine.cpu(0);
    link(&machine, SECTION);
    assert_eq!(reach(cpu, 0), Ok(0x6110_0000));
    slots(&machine, 0..1, SMALL);
    link(&machine, TABLE | 1);
    assert_eq!(reach(cpu, 0), Err(Fault::Conflict(at(0))), "though they lead to the same");
    forget(cpu, 9);
    assert_eq!(reach(cpu, 0), Ok(0x6110_0000), "the small one is left");
    link(&machine, SECTION);
    assert_eq!(reach(cpu, 1), Ok(0x6110_1000));
    assert_eq!(reach(cpu, 0), Err(Fault::Conflict(at(0))));
}

#[test]
fn a_slot_of_a_large_page_that_differs_is_a_conflict() {
    let machine = hoarding();
    let cpu = machine.cpu(0);
    link(&machine, TABLE | 1);
    slots(&machine, 16..32, LARGE);
    slots(&machine, 20..21, LARGE | 1 << 9);
    assert_eq!(reach(cpu, 16), Ok(0x6101_0000));
    assert_eq!(reach(cpu, 20), Ok(0x6101_4000), "by the first entry that came");
    assert_eq!(reach(cpu, 16), Err(Fault::Conflict(at(16))));
}

/// Writes `word` into first-level slots, counted from that of `START`.
fn above(machine: &SoftMachine, sections: std::ops::Range<u32>, word: u32) {
    let first = ROOT + (START >> 20) * 4;
    sections.for_each(|index| machine.device_write(PhysAddr::new(first + index * 4), word));
}

/// S96.
#[test]
fn a_supersection_goes_by_any_address_in_it_and_with_no_other() {
    let machine = hoarding();
    let cpu = machine.cpu(0);
    above(&machine, 0..16, SUPERSECTION);
    assert_eq!(reach(cpu, 0x123), Ok(0x4112_3000));
    above(&machine, 0..16, 0);
    assert_eq!(reach(cpu, 0xfff), Ok(0x41ff_f000), "one descriptor was enough for all");
    forget(cpu, 0x1000);
    assert_eq!(reach(cpu, 0x123), Ok(0x4112_3000));
    forget(cpu, 0xabc);
    assert_eq!(reach(cpu, 0x123), Err(Fault::Translation(at(0x123))));
}

/// S96.
#[test]
fn a_slot_of_a_supersection_that_differs_is_a_conflict() {
    // One that does not allow what the others do, and one that is a section, though it leads to the same.
    for other in [SUPERSECTION | 1 << 15, 0x4150_0416] {
        let machine = hoarding();
        let cpu = machine.cpu(0);
        above(&machine, 0..16, SUPERSECTION);
        above(&machine, 5..6, other);
        assert_eq!(reach(cpu, 0), Ok(0x4100_0000));
        assert_eq!(reach(cpu, 0x500), Ok(0x4150_0000), "by the first entry that came");
        let conflict = if other & 1 << 18 == 0 { 0x500 } else { 0 };
        assert_eq!(reach(cpu, conflict), Err(Fault::Conflict(at(conflict))), "{other:#x}");
    }
}
