//! What SoftMachine may do and may not when there is more than one address space: the manual's rules.
//!
//! ```text
//!   below 2 GiB     TTBR0: ONE or TWO, an address space each; entries are not global
//!   from 2 GiB on   TTBR1: ROOT, the kernel's; entries are global
//! ```

use crate::support::{ROOT, SEEDS, at, pages};
use kerncore::{addr::PhysAddr, machine::Machine};
use machine::{
    Asid, Behaviour, Fault, Kind, Privilege, Reach, Register, Scope, SoftCpu, SoftMachine, Ttbcr,
};

/// Two address spaces: a first level of 8 KiB and a second-level table each. The kernel's has one table, too.
const ONE: PhysAddr = PhysAddr::new(0x6002_0000);
const TWO: PhysAddr = PhysAddr::new(0x6002_2000);
const TABLE_OF_ONE: u32 = 0x6003_0000;
const TABLE_OF_TWO: u32 = 0x6003_0400;
const TABLE_OF_KERNEL: u32 = 0x6003_0800;
/// A page of theirs, the one behind it, and a page of the kernel's.
const PAGE: u32 = 0x4_0000;
const OTHER: u32 = PAGE + 1;
const KERNEL: u32 = 0xc_0000;
/// Small pages that both may read and write and nobody may execute: of one address space, and global.
const USER: u32 = 0xc7f;
const GLOBAL: u32 = 0x47f;
const HALVES: Ttbcr = Ttbcr { split: 1, no_walk_by_ttbr0: false, no_walk_by_ttbr1: false };

fn frame_of(asid: u8) -> u32 {
    0x6_0100 + u32::from(asid)
}

/// Space 1 has [`PAGE`], space 2 has it elsewhere and [`OTHER`] as well; the CPUs are in space 1.
fn two_spaces(behaviour: Behaviour) -> SoftMachine {
    let machine = SoftMachine::new(behaviour, 2, ROOT);
    let write = |address: u32, word| machine.device_write(PhysAddr::new(address), word);
    write(ONE.raw() + (PAGE >> 8) * 4, TABLE_OF_ONE | 1);
    write(TWO.raw() + (PAGE >> 8) * 4, TABLE_OF_TWO | 1);
    write(ROOT.raw() + (KERNEL >> 8) * 4, TABLE_OF_KERNEL | 1);
    write(TABLE_OF_ONE, frame_of(1) << 12 | USER);
    write(TABLE_OF_TWO, frame_of(2) << 12 | USER);
    write(TABLE_OF_TWO + 4, frame_of(3) << 12 | USER);
    write(TABLE_OF_KERNEL, 0x6_0200 << 12 | GLOBAL);
    for number in 0..2 {
        let cpu = machine.cpu(number);
        cpu.write_register(Register::Ttbcr(HALVES));
        cpu.write_register(Register::Ttbr0(ONE));
        cpu.write_register(Register::ContextId(Asid(1)));
        cpu.barrier();
    }
    machine
}

fn reach(cpu: SoftCpu<'_>, page: u32) -> Result<u32, Fault> {
    cpu.access(at(page), Kind::Read, Privilege::User).map(|to| to.pfn().number())
}

fn absent(page: u32) -> Result<u32, Fault> {
    Err(Fault::Translation(at(page)))
}

/// The manual's way (B3.10.4): through an address space that nobody has, with a barrier after each step.
fn switch(cpu: SoftCpu<'_>, table: PhysAddr, asid: Asid) {
    for register in
        [Register::ContextId(Asid(0)), Register::Ttbr0(table), Register::ContextId(asid)]
    {
        cpu.write_register(register);
        cpu.barrier();
    }
}

/// Takes what the tables hold at `slot` away, as far as memory is concerned.
fn clear(machine: &SoftMachine, slot: u32) {
    machine.device_write(PhysAddr::new(slot), 0);
}

/// B3.9.1: an entry that is not global serves the address space in which it was walked, and no other.
#[test]
fn an_entry_that_is_not_global_serves_its_own_address_space_only() {
    let machine = two_spaces(Behaviour::Hoarding);
    let cpu = machine.cpu(0);
    assert_eq!(reach(cpu, PAGE), Ok(frame_of(1)));
    switch(cpu, TWO, Asid(2));
    assert_eq!(reach(cpu, PAGE), Ok(frame_of(2)));
    clear(&machine, TABLE_OF_ONE);
    clear(&machine, TABLE_OF_TWO);
    assert_eq!(reach(cpu, PAGE), Ok(frame_of(2)), "remembered");
    switch(cpu, ONE, Asid(1));
    assert_eq!(reach(cpu, PAGE), Ok(frame_of(1)), "remembered beside it");
}

/// B3.9.1.
#[test]
fn a_global_entry_serves_every_address_space() {
    let machine = two_spaces(Behaviour::Hoarding);
    let cpu = machine.cpu(0);
    assert_eq!(reach(cpu, KERNEL), Ok(0x6_0200));
    clear(&machine, TABLE_OF_KERNEL);
    switch(cpu, TWO, Asid(2));
    assert_eq!(reach(cpu, KERNEL), Ok(0x6_0200));
}

/// What is left of the four entries, as (page of space 1, page of space 2, the kernel's, space 1 on CPU 1), after
/// CPU 0 has done this and a barrier.
fn left_after(scope: Scope, extent: Reach) -> [bool; 4] {
    let machine = two_spaces(Behaviour::Hoarding);
    let (cpu, other) = (machine.cpu(0), machine.cpu(1));
    assert_eq!(reach(other, PAGE), Ok(frame_of(1)));
    assert_eq!((reach(cpu, PAGE), reach(cpu, KERNEL)), (Ok(frame_of(1)), Ok(0x6_0200)));
    switch(cpu, TWO, Asid(2));
    assert_eq!(reach(cpu, PAGE), Ok(frame_of(2)));
    for slot in [TABLE_OF_ONE, TABLE_OF_TWO, TABLE_OF_KERNEL] {
        clear(&machine, slot);
    }
    cpu.invalidate(scope, extent);
    assert!(reach(cpu, PAGE).is_ok() && reach(cpu, KERNEL).is_ok(), "not before the barrier");
    cpu.barrier();
    let (two, kernel) = (reach(cpu, PAGE).is_ok(), reach(cpu, KERNEL).is_ok());
    switch(cpu, ONE, Asid(1));
    [reach(cpu, PAGE).is_ok(), two, kernel, reach(other, PAGE).is_ok()]
}

/// B4.2.2: each operation forgets exactly what it names, on this CPU or on all.
#[test]
fn each_invalidation_forgets_what_it_names_and_nothing_else() {
    let (page, kernel) = (pages(PAGE, 1), pages(KERNEL, 1));
    for (scope, local, shareable) in [
        (Scope::All, [false, false, false, true], [false; 4]),
        (Scope::Pages(page), [false, false, true, true], [false, false, true, false]),
        (Scope::Pages(kernel), [true, true, false, true], [true, true, false, true]),
        (Scope::PagesOf(page, Asid(1)), [false, true, true, true], [false, true, true, false]),
        (Scope::PagesOf(page, Asid(2)), [true, false, true, true], [true, false, true, true]),
        // By address and address space, a global entry counts as everybody's.
        (Scope::PagesOf(kernel, Asid(2)), [true, true, false, true], [true, true, false, true]),
        (Scope::PagesOf(pages(OTHER, 1), Asid(1)), [true; 4], [true; 4]),
        // By address space, it counts as nobody's.
        (Scope::Space(Asid(1)), [false, true, true, true], [false, true, true, false]),
        (Scope::Space(Asid(2)), [true, false, true, true], [true, false, true, true]),
        (Scope::Space(Asid(3)), [true; 4], [true; 4]),
    ] {
        assert_eq!(left_after(scope, Reach::Local), local, "{scope:?}, local");
        assert_eq!(left_after(scope, Reach::InnerShareable), shareable, "{scope:?}, shareable");
    }
}

/// B3.5.4, B4.1.154: addresses whose top N bits are zero are TTBR0's, by a table of 16 KiB >> N.
#[test]
fn the_split_says_which_table_is_walked() {
    let machine = SoftMachine::new(Behaviour::Forgetful, 1, ROOT);
    let cpu = machine.cpu(0);
    // A section for each table, the upper one's where the lower one cannot reach.
    let section = |table: PhysAddr, index: u32, base: u32| {
        machine.device_write(PhysAddr::new(table.raw() + index * 4), base | 0xc1e);
    };
    cpu.write_register(Register::Ttbr0(ONE));
    cpu.write_register(Register::Ttbr1(ROOT));
    for split in 0..=7 {
        let border = (1_u32 << 20) >> split;
        let last = (border - 1) >> 8;
        section(ONE, last, 0x6100_0000);
        let above = border >> 8;
        if split != 0 {
            section(ROOT, above, 0x6200_0000);
        }
        let ttbcr = Ttbcr { split, ..Ttbcr::default() };
        cpu.write_register(Register::Ttbcr(ttbcr));
        cpu.barrier();
        assert_eq!(reach(cpu, border - 256), Ok(0x6_1000), "N = {split}: the last of TTBR0's");
        if split != 0 {
            assert_eq!(reach(cpu, border), Ok(0x6_2000), "N = {split}: the first of TTBR1's");
        }
        // No walks by the one, by the other.
        cpu.write_register(Register::Ttbcr(Ttbcr { no_walk_by_ttbr0: true, ..ttbcr }));
        cpu.barrier();
        assert_eq!(reach(cpu, border - 256), absent(border - 256), "PD0");
        cpu.write_register(Register::Ttbcr(Ttbcr { no_walk_by_ttbr1: true, ..ttbcr }));
        cpu.barrier();
        assert_eq!(reach(cpu, border - 256), Ok(0x6_1000));
        if split != 0 {
            assert_eq!(reach(cpu, border), absent(border), "PD1");
            machine.device_write(PhysAddr::new(ROOT.raw() + above * 4), 0);
        }
        machine.device_write(PhysAddr::new(ONE.raw() + last * 4), 0);
    }
}

/// A3.8.3, B3.10.4: a write to a register counts after the barrier, and perhaps before.
#[test]
fn a_register_is_written_at_the_latest_by_the_barrier() {
    let machine = two_spaces(Behaviour::Hoarding);
    let cpu = machine.cpu(0);
    cpu.write_register(Register::Ttbr0(TWO));
    assert_eq!(reach(cpu, OTHER), absent(OTHER));
    machine.cpu(1).barrier();
    assert_eq!(reach(cpu, OTHER), absent(OTHER), "another CPU's barrier is not this one's");
    cpu.write_register(Register::ContextId(Asid(1)));
    assert_eq!(reach(cpu, OTHER), absent(OTHER), "nor is a write to another register one");
    cpu.barrier();
    assert_eq!(reach(cpu, OTHER), Ok(frame_of(3)));
    // Two writes to one register come true in their order, whatever comes between.
    cpu.write_register(Register::ContextId(Asid(7)));
    cpu.write_register(Register::Ttbr0(ONE));
    cpu.write_register(Register::Ttbr0(TWO));
    cpu.barrier();
    assert_eq!(reach(cpu, PAGE), Ok(frame_of(2)));
}

/// A way to go from one address space to another.
type Switch = fn(SoftCpu<'_>, PhysAddr, Asid);

/// Both spaces keep showing their own, over and over, by this way to switch.
fn shows_each_its_own(behaviour: Behaviour, switch: Switch) -> bool {
    let machine = two_spaces(behaviour);
    let cpu = machine.cpu(0);
    let mut right = true;
    for _ in 0..4 {
        right &= reach(cpu, PAGE) == Ok(frame_of(1));
        right &= reach(cpu, OTHER) == absent(OTHER);
        switch(cpu, TWO, Asid(2));
        right &= reach(cpu, PAGE) == Ok(frame_of(2));
        right &= reach(cpu, OTHER) == Ok(frame_of(3));
        switch(cpu, ONE, Asid(1));
    }
    right
}

/// B3.10.4: table and address space change at two moments, between which the walker may read ahead. What it brings in then
/// is tagged with one and comes from the other. Through an address space that nobody has, or with no walks allowed
/// meanwhile, nothing comes of it.
#[test]
fn a_walk_between_table_and_address_space_brings_in_what_belongs_to_neither() {
    let space_first: Switch = |cpu, table, asid| {
        cpu.write_register(Register::ContextId(asid));
        cpu.barrier();
        cpu.write_register(Register::Ttbr0(table));
        cpu.barrier();
    };
    let table_first: Switch = |cpu, table, asid| {
        cpu.write_register(Register::Ttbr0(table));
        cpu.barrier();
        cpu.write_register(Register::ContextId(asid));
        cpu.barrier();
    };
    let both_at_once: Switch = |cpu, table, asid| {
        cpu.write_register(Register::ContextId(asid));
        cpu.write_register(Register::Ttbr0(table));
        cpu.barrier();
    };
    let without_walks: Switch = |cpu, table, asid| {
        cpu.write_register(Register::Ttbcr(Ttbcr { no_walk_by_ttbr0: true, ..HALVES }));
        cpu.barrier();
        cpu.write_register(Register::Ttbr0(table));
        cpu.write_register(Register::ContextId(asid));
        cpu.barrier();
        cpu.write_register(Register::Ttbcr(HALVES));
        cpu.barrier();
    };
    for behaviour in Behaviour::all(SEEDS) {
        for (name, right) in [("reserved ASID", switch as Switch), ("PD0", without_walks)] {
            assert!(shows_each_its_own(behaviour, right), "{name} on {behaviour:?}");
        }
    }
    for (name, wrong) in [("the space first", space_first), ("the table first", table_first)] {
        assert!(!shows_each_its_own(Behaviour::Hoarding, wrong), "{name}");
    }
    for (name, wrong) in [
        ("the space first", space_first),
        ("the table first", table_first),
        ("no barrier between", both_at_once),
    ] {
        let caught = (0..SEEDS * 4).any(|seed| !shows_each_its_own(Behaviour::Random(seed), wrong));
        assert!(caught, "{name} passed on every seed");
        assert!(shows_each_its_own(Behaviour::Forgetful, wrong), "{name}: an emulator forgives it");
    }
}

/// An address space's number may be given to another one once everything that bears it is forgotten, everywhere.
#[test]
fn a_number_that_is_used_again_brings_back_what_its_last_owner_had() {
    let reuse = |scope: Option<(Scope, Reach)>| {
        let machine = two_spaces(Behaviour::Hoarding);
        let (cpu, other) = (machine.cpu(0), machine.cpu(1));
        assert_eq!((reach(cpu, PAGE), reach(other, PAGE)), (Ok(frame_of(1)), Ok(frame_of(1))));
        // Space 1 dies, and space 2 gets its number. No CPU may walk meanwhile.
        for cpu in [cpu, other] {
            switch(cpu, TWO, Asid(0));
        }
        if let Some((scope, extent)) = scope {
            cpu.invalidate(scope, extent);
            cpu.barrier();
        }
        for cpu in [cpu, other] {
            switch(cpu, TWO, Asid(1));
        }
        [reach(cpu, PAGE), reach(other, PAGE)].map(|found| found == Ok(frame_of(2)))
    };
    assert_eq!(reuse(None), [false, false]);
    assert_eq!(reuse(Some((Scope::Space(Asid(1)), Reach::Local))), [true, false]);
    assert_eq!(reuse(Some((Scope::Space(Asid(1)), Reach::InnerShareable))), [true, true]);
    assert_eq!(reuse(Some((Scope::Space(Asid(2)), Reach::InnerShareable))), [false, false]);
}

/// What `Machine::invalidate_tlb` promises: the pages, in every address space, on every CPU.
#[test]
fn the_machine_forgets_a_page_in_every_address_space_s23() {
    for behaviour in Behaviour::all(SEEDS) {
        let machine = two_spaces(behaviour);
        let (cpu, other) = (machine.cpu(0), machine.cpu(1));
        assert_eq!((reach(cpu, PAGE), reach(other, PAGE)), (Ok(frame_of(1)), Ok(frame_of(1))));
        switch(cpu, TWO, Asid(2));
        assert_eq!(reach(cpu, PAGE), Ok(frame_of(2)));
        clear(&machine, TABLE_OF_ONE);
        clear(&machine, TABLE_OF_TWO);
        cpu.invalidate_tlb(pages(PAGE, 1));
        cpu.barrier();
        let gone = absent(PAGE);
        assert_eq!((reach(cpu, PAGE), reach(other, PAGE)), (gone, gone), "{behaviour:?}");
        switch(cpu, ONE, Asid(1));
        assert_eq!(reach(cpu, PAGE), gone, "{behaviour:?}");
    }
}
