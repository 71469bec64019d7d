//! What SoftMachine may do and may not: the manual's rules, in the SPEC's words.

use crate::support::{ROOT, SEEDS, absent, at, frame, pages};
use kerncore::{
    addr::{PhysAddr, VirtAddr},
    machine::Machine,
};
use machine::{Behaviour, Fault, Kind, Privilege, SoftCpu, SoftMachine};

/// The section of page 0xC0000, and a table for it.
const L1_SLOT: PhysAddr = PhysAddr::new(0x6000_4000 + 0xc00 * 4);
const TABLE: PhysAddr = PhysAddr::new(0x6001_0000);
const PAGE: u32 = 0xc_0000;
/// Small pages: write-back, kernel read and write, never executed; and the same, non-cacheable.
const DATA: u32 = 0x45f;
const UNCACHED: u32 = 0x453;

/// A machine whose one table is linked, the slots of which are empty.
fn linked(behaviour: Behaviour) -> SoftMachine {
    let machine = SoftMachine::new(behaviour, 2, ROOT);
    machine.device_write(L1_SLOT, TABLE.raw() | 1);
    machine
}

fn slot(index: u32) -> PhysAddr {
    PhysAddr::new(TABLE.raw() + index * 4)
}

fn reach(cpu: SoftCpu<'_>, page: u32) -> Result<kerncore::addr::Pfn, Fault> {
    cpu.access(at(page), Kind::Read, Privilege::Kernel).map(PhysAddr::pfn)
}

/// Writes, cleans and waits: the slot is in memory.
fn set(cpu: SoftCpu<'_>, index: u32, word: u32) {
    cpu.write_descriptors(slot(index), [word].into_iter());
    cpu.clean_descriptors(slot(index), 1);
    cpu.barrier();
}

/// S16a.
#[test]
fn a_written_descriptor_is_seen_by_the_walker_only_after_clean_and_barrier() {
    let machine = linked(Behaviour::Hoarding);
    let cpu = machine.cpu(0);
    cpu.write_descriptors(slot(0), [0x6010_0000 | DATA].into_iter());
    cpu.barrier();
    assert_eq!(reach(cpu, PAGE), absent(PAGE), "a barrier cleans nothing");
    assert_eq!(cpu.read_descriptor(slot(0)), 0x6010_0000 | DATA, "loads look into the cache");
    cpu.clean_descriptors(slot(0), 1);
    assert_eq!(reach(cpu, PAGE), absent(PAGE), "a clean completes at the barrier");
    machine.cpu(1).barrier();
    assert_eq!(reach(cpu, PAGE), absent(PAGE), "and at that of the CPU that began it");
    cpu.barrier();
    assert_eq!(reach(cpu, PAGE), Ok(frame(0x6_0100)));
}

#[test]
fn a_clean_covers_what_was_written_before_it_and_only_that() {
    let machine = linked(Behaviour::Hoarding);
    let cpu = machine.cpu(0);
    cpu.write_descriptors(slot(0), [0x6010_0000 | DATA].into_iter());
    cpu.clean_descriptors(slot(0), 1);
    cpu.write_descriptors(slot(1), [0x6010_1000 | DATA].into_iter());
    cpu.barrier();
    assert_eq!(reach(cpu, PAGE), Ok(frame(0x6_0100)));
    assert_eq!(reach(cpu, PAGE + 1), absent(PAGE + 1));
}

/// S23 rests on this.
#[test]
fn a_translation_stays_until_exactly_its_page_was_invalidated_and_the_barrier_done() {
    let machine = linked(Behaviour::Hoarding);
    let cpu = machine.cpu(0);
    set(cpu, 0, 0x6010_0000 | DATA);
    assert_eq!(reach(cpu, PAGE), Ok(frame(0x6_0100)));
    set(cpu, 0, 0);
    cpu.invalidate_tlb(pages(PAGE + 1, 7));
    cpu.barrier();
    assert_eq!(
        reach(cpu, PAGE),
        Ok(frame(0x6_0100)),
        "its neighbours' invalidation is not its own"
    );
    cpu.invalidate_tlb(pages(PAGE, 1));
    assert_eq!(reach(cpu, PAGE), Ok(frame(0x6_0100)), "nothing completes before the barrier");
    cpu.barrier();
    assert_eq!(reach(cpu, PAGE), absent(PAGE));
}

/// S116.
#[test]
fn a_local_invalidation_leaves_the_other_cpu_stale() {
    let machine = linked(Behaviour::Hoarding);
    let (zero, one) = (machine.cpu(0), machine.cpu(1));
    set(zero, 0, 0x6010_0000 | DATA);
    assert_eq!(reach(one, PAGE), Ok(frame(0x6_0100)));
    assert_eq!(reach(zero, PAGE), Ok(frame(0x6_0100)));
    set(zero, 0, 0);
    zero.invalidate_tlb_local(pages(PAGE, 1));
    zero.barrier();
    assert_eq!(reach(zero, PAGE), absent(PAGE));
    assert_eq!(reach(one, PAGE), Ok(frame(0x6_0100)));
    zero.invalidate_tlb(pages(PAGE, 1));
    zero.barrier();
    assert_eq!(reach(one, PAGE), absent(PAGE));
}

/// B3.9: a translation fault is not cached.
#[test]
fn an_absent_entry_is_never_remembered() {
    let machine = linked(Behaviour::Hoarding);
    let cpu = machine.cpu(0);
    assert_eq!(reach(cpu, PAGE), absent(PAGE));
    set(cpu, 0, 0x6010_0000 | DATA);
    assert_eq!(reach(cpu, PAGE), Ok(frame(0x6_0100)));
}

/// The walker may read ahead: what was cleared but not cleaned comes back after an invalidation.
#[test]
fn invalidating_before_the_clear_has_reached_memory_does_not_help() {
    let machine = linked(Behaviour::Hoarding);
    let cpu = machine.cpu(0);
    set(cpu, 0, 0x6010_0000 | DATA);
    assert_eq!(reach(cpu, PAGE), Ok(frame(0x6_0100)));
    cpu.write_descriptors(slot(0), [0].into_iter());
    cpu.clean_descriptors(slot(0), 1);
    cpu.invalidate_tlb(pages(PAGE, 1));
    cpu.barrier();
    assert_eq!(reach(cpu, PAGE), Ok(frame(0x6_0100)), "there was no barrier between the two");
}

#[test]
fn the_forgetful_machine_forgives_what_an_emulator_forgives() {
    let machine = linked(Behaviour::Forgetful);
    let cpu = machine.cpu(0);
    cpu.write_descriptors(slot(0), [0x6010_0000 | DATA].into_iter());
    assert_eq!(reach(cpu, PAGE), Ok(frame(0x6_0100)));
    cpu.write_descriptors(slot(0), [0].into_iter());
    assert_eq!(reach(machine.cpu(1), PAGE), absent(PAGE));
}

/// B3.5.1: an entry is invalidated by any address that it translates.
#[test]
fn a_section_is_invalidated_by_any_of_its_pages_and_a_large_page_too() {
    let machine = SoftMachine::new(Behaviour::Hoarding, 1, ROOT);
    let cpu = machine.cpu(0);
    machine.device_write(L1_SLOT, 0x6011_141e);
    assert_eq!(reach(cpu, PAGE + 255), Ok(frame(0x6_01ff)));
    machine.device_write(L1_SLOT, TABLE.raw() | 1);
    cpu.invalidate_tlb(pages(PAGE + 3, 1));
    cpu.barrier();
    assert_eq!(reach(cpu, PAGE + 255), absent(PAGE + 255));
    (16..32).for_each(|index| machine.device_write(slot(index), 0x6001_941d));
    assert_eq!(reach(cpu, PAGE + 18), Ok(frame(0x6_0012)));
    (16..32).for_each(|index| machine.device_write(slot(index), 0));
    cpu.invalidate_tlb(pages(PAGE + 31, 1));
    cpu.barrier();
    assert_eq!(reach(cpu, PAGE + 18), absent(PAGE + 18));
}

/// Table B3-8.
#[test]
fn permissions_are_those_of_the_manual() {
    let machine = linked(Behaviour::Hoarding);
    let cpu = machine.cpu(0);
    let kinds = [Kind::Read, Kind::Write, Kind::Execute];
    let rights =
        |page: u32, privilege| kinds.map(|kind| cpu.access(at(page), kind, privilege).is_ok());
    // Word; kernel reads, writes, executes; user reads, writes, executes.
    let table = [
        (0x44f, [false; 3], [false; 3]),
        (0x45f, [true, true, false], [false; 3]),
        (0x46f, [true, true, false], [true, false, false]),
        (0x47f, [true, true, false], [true, true, false]),
        (0x65f, [true, false, false], [false; 3]),
        (0x65e, [true, false, true], [false; 3]),
        (0x67e, [true, false, true], [true, false, true]),
    ];
    for (index, (word, kernel, user)) in (0u32..).zip(table) {
        machine.device_write(slot(index), 0x6010_0000 | word);
        assert_eq!(rights(PAGE + index, Privilege::Kernel), kernel, "kernel, {word:#x}");
        assert_eq!(rights(PAGE + index, Privilege::User), user, "user, {word:#x}");
    }
    assert_eq!(cpu.store(at(PAGE + 4), 1), Err(Fault::Permission(at(PAGE + 4))));
}

/// B2.2: a device sees only what was cleaned, and a line in the cache hides what it writes.
#[test]
fn devices_and_caches_do_not_look_at_each_other() {
    let machine = linked(Behaviour::Hoarding);
    let cpu = machine.cpu(0);
    set(cpu, 0, 0x6010_0000 | DATA);
    let (virt, phys) = (VirtAddr::new(PAGE << 12 | 64), PhysAddr::new(0x6010_0040));
    cpu.store(virt, 7).expect("mapped");
    cpu.barrier();
    assert_eq!(machine.device_read(phys), 0);
    cpu.clean_and_invalidate(pages(PAGE, 1), frame(0x6_0100));
    cpu.barrier();
    assert_eq!(machine.device_read(phys), 7);
    machine.device_write(phys, 8);
    assert_eq!(cpu.load(virt), Ok(7), "read ahead again while a cacheable mapping is live");
}

/// B2.2: what a cacheable mapping reaches may be in the cache, whether anybody has asked for it or not.
#[test]
fn a_line_that_nobody_has_touched_may_hide_what_a_device_writes() {
    let machine = linked(Behaviour::Hoarding);
    let cpu = machine.cpu(0);
    set(cpu, 0, 0x6010_0000 | DATA);
    assert_eq!(reach(cpu, PAGE), Ok(frame(0x6_0100)));
    machine.device_write(PhysAddr::new(0x6010_0080), 8);
    assert_eq!(
        cpu.load(VirtAddr::new(PAGE << 12 | 0x80)),
        Ok(0),
        "read ahead before the device wrote"
    );
}

/// B2.2: a dirty line is written back whole, over what a device wrote beside it; what the processor wrote is never lost.
#[test]
fn a_clean_writes_the_whole_line_over_what_a_device_wrote() {
    for behaviour in Behaviour::all(SEEDS) {
        let machine = linked(behaviour);
        let cpu = machine.cpu(0);
        cpu.write_descriptors(slot(0), [7].into_iter());
        machine.device_write(slot(1), 8);
        cpu.clean_descriptors(slot(0), 1);
        cpu.barrier();
        assert_eq!(machine.device_read(slot(0)), 7, "{behaviour:?}");
        if behaviour == Behaviour::Hoarding {
            assert_eq!(machine.device_read(slot(1)), 0, "the line as it was in the cache");
        }
    }
}

/// Table B3-10, TRE = 0: which types a line may be cached of, as small pages say it.
#[test]
fn what_may_be_cached_is_what_the_manual_calls_cacheable() {
    for texcb in 0..32 {
        let (tex, cb) = (texcb >> 2, texcb & 3);
        let cacheable = match (tex, cb) {
            (0b000, 0b10 | 0b11) | (0b001, 0b11) => true,
            (0b100.., _) => (tex & 3, cb) != (0, 0),
            _ => false,
        };
        let machine = linked(Behaviour::Hoarding);
        let cpu = machine.cpu(0);
        set(cpu, 0, 0x6010_0413 | tex << 6 | cb << 2);
        cpu.store(at(PAGE), 7).expect("mapped");
        let seen = machine.device_read(PhysAddr::new(0x6010_0000));
        assert_eq!(seen, if cacheable { 0 } else { 7 }, "TEX {tex:#b}, CB {cb:#b}");
    }
}

/// A3.5.7: with mismatched attributes, an uncached access may find a line of the cached one.
#[test]
fn an_uncached_alias_may_see_stale_lines_of_a_cached_one() {
    let machine = linked(Behaviour::Hoarding);
    let cpu = machine.cpu(0);
    set(cpu, 0, 0x6010_0000 | DATA);
    set(cpu, 1, 0x6010_0000 | UNCACHED);
    assert_eq!(cpu.load(at(PAGE)), Ok(0));
    machine.device_write(PhysAddr::new(0x6010_0000), 9);
    assert_eq!(cpu.load(at(PAGE + 1)), Ok(0), "the stale line");
}

#[test]
#[should_panic(expected = "which is not mapped")]
fn maintenance_by_mva_needs_a_mapping() {
    let machine = linked(Behaviour::Hoarding);
    machine.cpu(0).clean_and_invalidate(pages(PAGE, 1), frame(0x6_0100));
}

#[test]
fn a_seed_repeats_itself_and_another_one_differs() {
    // What the walker sees of 64 slots that were written and not cleaned is chance.
    let seen = |seed| {
        let machine = linked(Behaviour::Random(seed));
        let cpu = machine.cpu(0);
        let words = (0..64).map(|page| (0x6_0100 + page) << 12 | DATA);
        cpu.write_descriptors(slot(0), words);
        (0..64).map(|page| reach(cpu, PAGE + page).is_ok()).collect::<Vec<_>>()
    };
    assert_eq!(seen(1), seen(1));
    assert!((2..20).any(|seed| seen(seed) != seen(1)));
}
