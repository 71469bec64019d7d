//! What the processor is told, instruction by instruction.
//!
//! The emulator has no cache, its barriers are instant and its TLB is every CPU's: a clean that is left out, a barrier of
//! the wrong kind or an invalidation that stays on one CPU passes every other test here. SoftMachine proves that the
//! algorithms ask for each step; this proves that the machine under them takes it. The functions below are compiled as
//! the kernel's own calls are, and their code is read.

extern crate alloc;

use alloc::vec::Vec;
use core::hint::black_box;

use arch::barrier::{dmb, dsb, isb};
use arch::machine::CortexA9;
use arch::{cache, probe, symbols};
use drivers::virtio::transport::SlotTransport;
use kerncore::addr::{PageRange, Pfn, PhysAddr, VirtAddr};
use kerncore::machine::Machine;
use ktest::{Completion, ktest};
use mm::page_alloc::Pages;
use virtio_drivers::transport::Transport;

use super::witness::authority;

/// `MCR p15, opc1, Rt, CRn, CRm, opc2`, without Rt (ARM ARM A8.8.98).
pub(super) const fn mcr(opc1: u32, crn: u32, crm: u32, opc2: u32) -> u32 {
    0xee00_0f10 | opc1 << 21 | crn << 16 | opc2 << 5 | crm
}

/// All but Rt, bits 15 to 12.
const WITHOUT_REGISTER: u32 = !0xf000;

const DCCMVAU: u32 = mcr(0, 7, 11, 1);
const DCCMVAC: u32 = mcr(0, 7, 10, 1);
const DCCIMVAC: u32 = mcr(0, 7, 14, 1);
const ICIMVAU: u32 = mcr(0, 7, 5, 1);
const BPIALLIS: u32 = mcr(0, 7, 1, 6);
const TLBIMVAAIS: u32 = mcr(0, 8, 3, 3);
const TLBIALLIS: u32 = mcr(0, 8, 3, 0);
/// DSB, DMB and ISB for the full system (ARM ARM A8.8.43, A8.8.44, A8.8.53).
pub(super) const DSB: u32 = 0xf57f_f04f;
const DMB: u32 = 0xf57f_f05f;
pub(super) const ISB: u32 = 0xf57f_f06f;

/// The ordering or maintenance that the instruction `word` is, without its register; `None` if it is another.
pub(super) fn order(word: u32) -> Option<u32> {
    match word {
        DSB | DMB | ISB => Some(word),
        word if word & 0xff10_0f10 == 0xee00_0f10 => Some(word & WITHOUT_REGISTER),
        _ => None,
    }
}

/// The kinds of ordering and maintenance instructions in the code of `function`, each named once, in the order of its first
/// appearance. `None` if the image has no symbols, which say where a function ends.
fn orders(function: *const ()) -> Option<Vec<u32>> {
    let mut found = Vec::new();
    let start = VirtAddr::new(u32::try_from(function.addr()).expect("addresses have 32 bits"));
    symbols::lookup(start)?;
    for offset in (0..).step_by(4) {
        let address = start.checked_add(offset).expect("text ends below the top");
        if symbols::lookup(address).is_none_or(|symbol| symbol.offset != offset) {
            break;
        }
        let word = probe::read_u32(address).expect("text is readable");
        found.extend(order(word).filter(|order| !found.contains(order)));
    }
    Some(found)
}

/// Asserts that the code of `function` gives these orders and no others, the first of each kind in this order.
#[track_caller]
fn assert_orders(function: *const (), wanted: &[u32]) -> Completion {
    let Some(found) = orders(function) else {
        return Completion::Skipped("the image has no symbols");
    };
    assert_eq!(found, wanted, "{found:#x?} instead of {wanted:#x?}");
    Completion::Ran
}

fn machine() -> CortexA9 {
    *mm::kernel().table().raw_machine(authority())
}

#[inline(never)]
extern "C" fn barrier(machine: &CortexA9) {
    machine.barrier();
}

#[inline(never)]
extern "C" fn clean_descriptors(machine: &CortexA9, first: PhysAddr, count: u32) {
    machine.clean_descriptors(first, count);
}

#[inline(never)]
extern "C" fn invalidate_tlb(machine: &CortexA9, pages: &PageRange) {
    machine.invalidate_tlb(*pages);
}

#[inline(never)]
extern "C" fn clean_and_invalidate(machine: &CortexA9, pages: &PageRange, first: &Pfn) {
    machine.clean_and_invalidate(*pages, *first);
}

#[inline(never)]
extern "C" fn clean_for_devices(start: VirtAddr, bytes: u32) {
    cache::clean(start, bytes);
}

#[inline(never)]
extern "C" fn notify(transport: &mut SlotTransport<'_>) {
    transport.notify(0);
}

#[inline(never)]
extern "C" fn all_barriers() {
    dmb();
    dsb();
    isb();
}

#[ktest]
fn a_barrier_waits_and_then_fetches_anew() -> Completion {
    barrier(black_box(&machine()));
    assert_orders(barrier as *const (), &[DSB, ISB])
}

#[ktest]
fn each_barrier_is_the_one_that_it_is_called() -> Completion {
    all_barriers();
    assert_orders(all_barriers as *const (), &[DMB, DSB, ISB])
}

#[ktest]
fn descriptors_are_cleaned_to_where_walkers_read_s16a() -> Completion {
    let root = mm::kernel().table().root();
    clean_descriptors(black_box(&machine()), root, black_box(1));
    assert_orders(clean_descriptors as *const (), &[DCCMVAU])
}

#[ktest]
fn translations_are_forgotten_by_every_cpu_in_every_address_space_s116() -> Completion {
    let window = mm::kernel().window();
    let one = window.sub_range(0, 1).expect("the window has pages");
    invalidate_tlb(black_box(&machine()), black_box(&one));
    let Some(mut found) = orders(invalidate_tlb as *const ()) else {
        return Completion::Skipped("the image has no symbols");
    };
    // Which of the two comes first in the code is the compiler's choice.
    found.sort_unstable();
    assert_eq!(found, [TLBIALLIS, TLBIMVAAIS], "{found:#x?}");
    Completion::Ran
}

#[ktest]
fn what_is_lent_to_a_device_is_cleaned_and_invalidated_to_memory_s85() -> Completion {
    let page = Pages::new(0).expect("a free frame");
    let pages = PageRange::new(page.address(), 1).expect("a page");
    clean_and_invalidate(black_box(&machine()), black_box(&pages), black_box(&page.first()));
    assert_orders(clean_and_invalidate as *const (), &[DCCIMVAC])
}

#[ktest]
fn what_a_device_is_to_read_is_cleaned_to_memory() -> Completion {
    let page = Pages::new(0).expect("a free frame");
    clean_for_devices(page.address(), black_box(64));
    assert_orders(clean_for_devices as *const (), &[DCCMVAC])
}

/// Data to the point of unification before instructions are read from there, and the predictors last.
#[ktest]
fn written_instructions_are_made_visible_in_the_order_of_the_manual() -> Completion {
    let page = Pages::new(0).expect("a free frame");
    black_box(cache::synchronize_instructions as fn(VirtAddr, u32))(page.address(), 64);
    let wanted = [DCCMVAU, DSB, ICIMVAU, BPIALLIS, ISB];
    assert_orders(cache::synchronize_instructions as *const (), &wanted)
}

/// The ring lies in Normal memory and the doorbell in Device memory: nothing but this barrier orders the two for a device.
#[ktest]
fn a_device_is_told_of_its_ring_behind_a_barrier_that_waits() -> Completion {
    let notify = black_box(notify as extern "C" fn(&mut SlotTransport<'_>));
    assert_orders(notify as *const (), &[DSB])
}

/// Sixteen are compared by instructions of their own, and one that differs is seen wherever it stands; other numbers of them
/// by the general way. No slot behind the last matters.
#[ktest]
fn slots_that_all_hold_one_descriptor_are_told_from_others() {
    const WORD: u32 = 0x1e00_0055;
    let page = Pages::new(0).expect("a free frame");
    let (machine, start) = (machine(), page.first().base());
    for (first, count) in [(0, 16), (16, 16), (240, 16), (3, 16), (0, 1), (1, 15), (5, 17), (0, 48)]
    {
        let slot = |index: u32| start.checked_add((first + index) * 4).expect("in the page");
        let write =
            |index: u32, word: u32| machine.write_descriptors(slot(index), [word].into_iter());
        (0..=count).for_each(|index| write(index, WORD));
        write(count, !WORD);
        assert!(machine.all_hold(slot(0), black_box(count), WORD), "{count} from {first}");
        for index in 0..count {
            for other in [0, WORD ^ 1, WORD | 1 << 31, WORD - 1] {
                write(index, other);
                let all = machine.all_hold(slot(0), black_box(count), WORD);
                assert!(!all, "{other:#x} at {index} of {count} from {first}");
            }
            write(index, WORD);
        }
    }
}
