//! What the boot stub tells the processor on the way from reset to high addresses (S111), read in its code.
//!
//! The emulator comes out of reset with everything empty, has no cache and takes every step at once: a stub without one of
//! these steps boots there as well. It runs once, before anything can look, so that its code is all there is to be looked at.

extern crate alloc;

use alloc::vec::Vec;

use arch::{probe, symbols};
use boot::layout::parts;
use kerncore::addr::VirtAddr;
use kerncore::layout::{LINEAR_PHYSICAL, LINEAR_START, linear_physical};
use ktest::{Completion, ktest};

use super::instructions::{DSB, ISB, mcr, order};
use super::symbols::has_symbols;

const ACTLR: u32 = mcr(0, 1, 0, 1);
const BPIALL: u32 = mcr(0, 7, 5, 6);
const CONTEXTIDR: u32 = mcr(0, 13, 0, 1);
const CSSELR: u32 = mcr(2, 0, 0, 0);
const DACR: u32 = mcr(0, 3, 0, 0);
const DCISW: u32 = mcr(0, 7, 6, 2);
const ICIALLU: u32 = mcr(0, 7, 5, 0);
const SCTLR: u32 = mcr(0, 1, 0, 0);
const TLBIALL: u32 = mcr(0, 8, 7, 0);
const TTBCR: u32 = mcr(0, 2, 0, 2);
const TTBR0: u32 = mcr(0, 2, 0, 0);
const TTBR1: u32 = mcr(0, 2, 0, 1);

const NO_SYMBOLS: Completion = Completion::Skipped("the image has no symbols");

/// One thing that the stub does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A barrier, or a write to a register of coprocessor 15.
    Order(u32),
    /// A call of the function that is linked here.
    Call(VirtAddr),
}

/// Where a function of this name is linked: high, or, what runs before the MMU is on, at its physical address.
fn linked(name: &str) -> VirtAddr {
    let begins = |address: &VirtAddr| {
        symbols::lookup(*address).is_some_and(|symbol| symbol.offset == 0 && symbol.name == name)
    };
    let text = parts()[0].pages;
    let high =
        (text.start().raw()..text.start().raw() + text.bytes()).step_by(4).map(VirtAddr::new);
    let low = |address| linear_physical(address).map(|physical| VirtAddr::new(physical.raw()));
    let addresses = high.flat_map(|address| [Some(address), low(address)]).flatten();
    addresses.into_iter().find(begins).unwrap_or_else(|| panic!("no function is called {name}"))
}

/// Where what is linked at `address` lies.
fn place(address: VirtAddr) -> VirtAddr {
    if address < LINEAR_START {
        VirtAddr::new(address.raw() - LINEAR_PHYSICAL.raw() + LINEAR_START.raw())
    } else {
        address
    }
}

/// The target of `BL`, at `address` (ARM ARM A8.8.25).
fn call(address: VirtAddr, word: u32) -> Option<VirtAddr> {
    let offset = (word << 8).cast_signed() >> 6;
    let target = address.raw().wrapping_add(8).wrapping_add_signed(offset);
    (word >> 24 == 0xeb).then_some(VirtAddr::new(target))
}

/// What the function called `name` does, in the order of its code.
fn steps(name: &str) -> Vec<Step> {
    let start = linked(name);
    let mut steps = Vec::new();
    for offset in (0..).step_by(4) {
        let address = start.checked_add(offset).expect("text ends below the top");
        if symbols::lookup(address).is_none_or(|symbol| symbol.offset != offset) {
            break;
        }
        let word = probe::read_u32(place(address)).expect("text is readable");
        steps.extend(order(word).map(Step::Order).or(call(address, word).map(Step::Call)));
    }
    steps
}

/// Asserts that `wanted` are among the steps of `name` in this order, whatever lies between.
#[track_caller]
fn assert_does(name: &str, wanted: &[Step]) {
    let steps = steps(name);
    let mut left = steps.iter();
    let missing = wanted.iter().find(|step| !left.any(|done| done == *step));
    assert!(missing.is_none(), "{name} does {steps:x?}, and not {missing:x?} in its place");
}

#[ktest]
fn what_reset_left_is_gone_and_what_the_walker_needs_is_there_before_the_mmu_is_on_s111()
-> Completion {
    if !has_symbols() {
        return NO_SYMBOLS;
    }
    let emptied = Step::Call(linked("invalidate_data_cache"));
    let filled = Step::Call(linked("build_tables"));
    let joined = Step::Call(linked("join_coherency"));
    let orders = [TLBIALL, ICIALLU, BPIALL, TTBCR, TTBR0, TTBR1, CONTEXTIDR, DACR].map(Step::Order);
    for first in orders.into_iter().chain([emptied, joined, filled]) {
        let [dsb, isb, sctlr] = [DSB, ISB, SCTLR].map(Step::Order);
        assert_does("_start", &[first, dsb, isb, sctlr, isb]);
    }
    // No line may be left that could later be written over the tables, or that others could ask for.
    assert_does("_start", &[emptied, joined, filled]);
    assert_does("wait_for_boot_cpu", &[joined]);
    assert_does("join_coherency", &[ACTLR, ISB].map(Step::Order));
    Completion::Ran
}

#[ktest]
fn the_data_cache_is_emptied_by_set_and_way_and_waited_for() -> Completion {
    if !has_symbols() {
        return NO_SYMBOLS;
    }
    assert_does("invalidate_data_cache", &[CSSELR, ISB, DCISW, DSB].map(Step::Order));
    Completion::Ran
}

#[ktest]
fn the_identity_mapping_is_gone_for_walkers_before_it_is_forgotten_s111() -> Completion {
    if !has_symbols() {
        return NO_SYMBOLS;
    }
    for kernel in ["kernel_main", "kernel_secondary"].map(|name| Step::Call(linked(name))) {
        for first in [TTBR0, TTBCR] {
            let [leave, isb, forget, dsb] = [first, ISB, TLBIALL, DSB].map(Step::Order);
            assert_does("boot_high", &[leave, isb, forget, dsb, isb, kernel]);
        }
        let [forget, dsb, isb] = [BPIALL, DSB, ISB].map(Step::Order);
        assert_does("boot_high", &[forget, dsb, isb, kernel]);
    }
    Completion::Ran
}
