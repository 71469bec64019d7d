//! Tests that bear false witness, or do not listen to those who say so.

use core::iter::once;

use arch::machine::Authority;
use kerncore::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::attributes::Attributes;
use kerncore::descriptor::{l1, l2};
use kerncore::machine::Machine;
use ktest::ktest;
use mm::kernel;
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;
use witness::{Access, Entry, Testimony};

/// An area with something in it.
fn area() -> VmArea {
    let mut area = VmArea::new(PAGE_SIZE).expect("memory for one page");
    area.fill(0x11);
    area
}

/// Tells the host, and does as it says.
fn tell(testimony: Testimony) {
    if let Err(failure) = witness::ask(&[testimony]) {
        panic!("{failure}");
    }
}

/// What our walker says of `area`, changed by `lie`.
fn tell_of_the_entry(area: &VmArea, lie: impl Fn(Entry) -> Entry) {
    let mut testimony = Testimony::of(area.address());
    testimony.walker = testimony.walker.map(lie);
    tell(testimony);
}

fn next_frame(physical: PhysAddr) -> PhysAddr {
    PhysAddr::new(physical.raw() + PAGE_SIZE)
}

#[ktest]
fn names_another_frame() {
    tell_of_the_entry(&area(), |entry| Entry { physical: next_frame(entry.physical), ..entry });
}

#[ktest]
fn names_other_rights() {
    let attributes = Some(Attributes::KERNEL_RODATA);
    tell_of_the_entry(&area(), |entry| Entry { attributes, ..entry });
}

/// All of the kernel's own witnesses are of one mind: what they say of a mapping, they say of the page behind it.
#[ktest]
fn shows_a_mapping_that_is_not_there() {
    let area = area();
    let address = VirtAddr::new(area.address().raw() + PAGE_SIZE);
    tell(Testimony { address, ..Testimony::of(area.address()) });
}

/// All of it was true a moment ago.
#[ktest]
fn shows_what_was_there_before() {
    let area = area();
    let testimony = Testimony::of(area.address());
    drop(area);
    tell(testimony);
}

/// The tables have changed, and nobody has told the TLB: only the access still goes where it went.
#[ktest]
fn reads_through_a_stale_translation() {
    let (area, mut other) = (area(), Pages::new(0).expect("one frame"));
    other.fill(0x22);
    let address = area.address();
    let (slot, machine) = (slot_of(address), machine());
    let old = machine.read_descriptor(slot);
    let word = l2::SmallPages::new(Attributes::KERNEL_DATA).word(other.first());
    // The two accesses are next to the change: a TLB may forget at any time, and the emulator's is small.
    let before = arch::probe::read_u32(address);
    machine.write_descriptors(slot, once(word));
    machine.clean_descriptors(slot, 1);
    machine.barrier();
    let after = arch::probe::read_u32(address);
    let access = after.map_or(Access::Untried, Access::Read);
    let told = witness::ask(&[Testimony { access, ..Testimony::of(address) }]);
    machine.write_descriptors(slot, once(old));
    machine.clean_descriptors(slot, 1);
    machine.barrier();
    arch::tlb::invalidate_page(address);
    assert_eq!((before, after), (Ok(0x1111_1111), Ok(0x1111_1111)), "no teeth: the TLB forgot");
    if let Err(failure) = told {
        panic!("{failure}");
    }
}

fn machine() -> &'static arch::machine::CortexA9 {
    // SAFETY: none: that this must not be done is what the witnesses are for. Nobody uses the page meanwhile.
    let authority = unsafe { Authority::claim() };
    kernel().table().raw_machine(authority)
}

/// The second-level slot of `address`.
fn slot_of(address: VirtAddr) -> PhysAddr {
    let at = |base: PhysAddr, index: u32| base.checked_add(index * 4).expect("inside a table");
    let table = kernel().table();
    let above = table.read_descriptor(at(table.root(), l1::index(address)));
    match l1::Descriptor::decode(above) {
        Ok(l1::Descriptor::Table(base)) => at(base, l2::index(address)),
        other => panic!("{address} has no second-level table: {other:?}"),
    }
}

/// The host says that it is wrong, and nobody listens.
#[ktest]
fn does_not_listen() {
    let area = area();
    let mut testimony = Testimony::of(area.address());
    testimony.walker = None;
    let _ignored = witness::ask(&[testimony]);
}

/// A host that never answers, which is one that waits for the rest of the question.
#[ktest]
fn gets_no_answer() {
    witness::say(format_args!("q 1000 0 0x0 0x0 0x0 0x0 0x0 witness::gets_no_answer\n"));
    if let Err(failure) = witness::answer(1000, 50) {
        panic!("{failure}");
    }
}

#[ktest]
fn asks_what_is_no_question() {
    witness::say(format_args!("where am I?\ne 1000\n"));
    if let Err(failure) = witness::answer(1000, witness::PATIENCE) {
        panic!("{failure}");
    }
}

/// The image does not open the channel in this boot (`crate::kernel`).
#[ktest]
fn asks_nobody() {}
