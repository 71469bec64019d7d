//! Several CPUs: all of them come up through the stub, each with what is its own, and work for others (S116).
//!
//! On a machine with one CPU the tests still hold of that one, but for those that need a second.

extern crate alloc;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use arch::cp15::{Contextidr, Dacr, Mpidr, Sctlr, SysRegRead, Tpidrprw, Ttbcr, Ttbr0, Ttbr1, Vbar};
use arch::lock::IrqSpinLock;
use arch::per_cpu::PerCpu;
use arch::smp::{self, CallError};
use arch::{cpu, irq};
use board::vexpress_a9::SCU;
use boot::layout::{Part, Use, parts};
use kerncore::lock::Class;
use ktest::{Completion, ktest};
use mm::io_mem::IoMem;
use mm::vm_area::VmArea;

use super::faults::{mixed_faults, stack_pointer_of};

/// Modes with a stack of their own, in the order of the stacks.
const MODES: [u32; 5] = [0x11, 0x12, 0x17, 0x1b, 0x13];

/// What `ask` finds on each CPU that is up, by number.
pub(super) fn on_each<R: Send>(ask: impl Fn() -> R + Sync) -> Vec<R> {
    smp::up().map(|cpu| smp::run_on(cpu, &ask).expect("it is up")).collect()
}

/// A CPU other than this one, or the reason to skip.
pub(super) fn another() -> Result<u32, Completion> {
    let here = cpu::id();
    smp::up().find(|&other| other != here).ok_or(Completion::Skipped("there is one CPU only"))
}

/// Waits until every CPU that is up has called this as often as this one. For work on each of them at once.
pub(super) struct Barrier(AtomicU32);

impl Barrier {
    pub(super) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    pub(super) fn wait(&self) {
        #[expect(clippy::cast_possible_truncation, reason = "four at most")]
        let all = smp::up().count() as u32;
        let round = self.0.fetch_add(1, Ordering::AcqRel) / all;
        let mut left = smp::PATIENCE;
        while self.0.load(Ordering::Acquire) / all == round {
            smp::stop_if_ended();
            left = left.checked_sub(1).expect("a CPU does not come to the barrier");
            cpu::relax();
        }
    }
}

// --- Who is there ----------------------------------------------------------------------------------------------------

#[ktest]
fn every_cpu_that_the_snoop_control_unit_knows_is_up_s116() {
    let mut scu = IoMem::<[safe_mmio::fields::ReadPure<u32>; 2]>::map(SCU.base).expect("registers");
    let [control, configuration] = {
        let mut registers = scu.registers();
        [0, 1].map(|index| registers.get(index).expect("two").read())
    };
    let count = (configuration & 3) + 1;
    assert_eq!(boot::secondaries::count(), count);
    assert_eq!(control & 1, 1, "the snoop control unit is off");
    assert!(smp::up().eq(0..count), "{:?} of {count}", smp::up().collect::<Vec<_>>());
}

#[ktest]
fn each_cpu_knows_its_number_by_mpidr_and_by_its_block_s116() {
    static NUMBERS: PerCpu<AtomicU32> = PerCpu::new([const { AtomicU32::new(u32::MAX) }; 4]);
    let asked = on_each(|| {
        NUMBERS.here().store(cpu::id(), Ordering::Relaxed);
        (Mpidr::read().0 & 0xff, cpu::id(), Tpidrprw::read())
    });
    for (number, &(mpidr, id, _)) in (0..).zip(&asked) {
        assert_eq!((mpidr, id), (number, number));
        assert_eq!(NUMBERS.of(number).expect("four").load(Ordering::Relaxed), number);
    }
    for pair in asked.windows(2) {
        assert_eq!(pair[1].2 - pair[0].2, 128, "blocks lie side by side");
    }
    assert!(NUMBERS.of(4).is_none());
    assert_eq!(NUMBERS.iter().count(), cpu::MAX_CPUS);
}

/// One table for the kernel, no walk below it, one set of rules.
#[ktest]
fn every_cpu_translates_by_the_kernel_s_tables_s116() {
    let registers = on_each(|| {
        let sctlr = Sctlr::read_raw();
        let ttbcr = Ttbcr::read().raw();
        let tables = (Ttbr0::read_raw(), Ttbr1::read().base(), Ttbr1::read().walk_attributes());
        (sctlr, ttbcr, tables, Dacr::read_raw(), Contextidr::read_raw(), Vbar::read().0)
    });
    assert_eq!(registers[0].1, 0x11);
    for (number, other) in registers.iter().enumerate() {
        assert_eq!(other, &registers[0], "CPU {number}");
    }
}

#[ktest]
fn each_cpu_has_a_stack_of_its_own_for_each_mode_s116() {
    let stacks: Vec<Part> = parts().into_iter().filter(|part| part.usage == Use::Stack).collect();
    let pointers = on_each(|| (MODES.map(stack_pointer_of), irq::are_masked(), cpu::id()));
    for (number, (pointers, masked, id)) in pointers.into_iter().enumerate() {
        assert!(!masked && id as usize == number, "CPU {number}");
        for (stack, pointer) in stacks[number * MODES.len()..].iter().zip(pointers) {
            let top = stack.pages.start().raw() + stack.pages.bytes();
            let room = if stack.name.starts_with("supervisor") { 64 * 1024 } else { 0 };
            assert!((top - room..=top).contains(&pointer), "{}: {pointer:#x}", stack.name);
        }
    }
}

// --- What each does --------------------------------------------------------------------------------------------------

#[ktest]
fn work_runs_where_it_was_put_and_its_result_comes_back() -> Completion {
    let other = match another() {
        Ok(other) => other,
        Err(skipped) => return skipped,
    };
    for round in 0..100 {
        let on = if round % 7 == 0 { cpu::id() } else { other };
        let mut square = 0;
        let ran = smp::run_on(on, || {
            square = round * round;
            (cpu::id(), round + 1)
        });
        assert_eq!((ran, square), (Ok((on, round + 1)), round * round));
    }
    Completion::Ran
}

#[ktest]
fn work_for_a_cpu_that_does_not_serve_is_refused() {
    let run = |cpu| smp::run_on(cpu, || ());
    for cpu in [boot::secondaries::count(), 4, 5, u32::MAX] {
        assert_eq!(run(cpu), Err(CallError::NotServing { cpu }));
    }
    // The boot CPU has a work of its own, this one.
    if let Ok(other) = another() {
        assert_eq!(smp::run_on(other, || run(0)), Ok(Err(CallError::NotServing { cpu: 0 })));
    }
}

/// All at once: whoever waits at the barrier would wait for ever, were it one after the other.
#[ktest]
fn all_cpus_work_at_the_same_time_s116() {
    static RAN: PerCpu<AtomicU32> = PerCpu::new([const { AtomicU32::new(0) }; 4]);
    let barrier = Barrier::new();
    RAN.iter().for_each(|ran| ran.store(0, Ordering::Relaxed));
    for _ in 0..50 {
        smp::run_on_each(|number| {
            assert_eq!(number, cpu::id());
            barrier.wait();
            RAN.here().fetch_add(1, Ordering::Relaxed);
        });
    }
    for (number, ran) in (0..).zip(RAN.iter()) {
        let expected = if smp::is_up(number) { 50 } else { 0 };
        assert_eq!(ran.load(Ordering::Relaxed), expected, "CPU {number}");
    }
}

#[ktest]
fn every_cpu_takes_its_faults_on_its_own_stacks_s113() {
    let barrier = Barrier::new();
    smp::run_on_each(|_| {
        let before = MODES.map(stack_pointer_of);
        barrier.wait();
        (0..100).for_each(mixed_faults);
        assert_eq!(MODES.map(stack_pointer_of), before, "on CPU {}", cpu::id());
    });
}

#[ktest]
fn a_lock_lets_one_cpu_in_at_a_time() {
    const ROUNDS: u32 = 5000;
    let (inside, count) = (AtomicU32::new(0), IrqSpinLock::new(Class::Test(0), 0_u32));
    let barrier = Barrier::new();
    smp::run_on_each(|_| {
        barrier.wait();
        for _ in 0..ROUNDS {
            count.with(|count| {
                assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "two are inside");
                // Two accesses, so that an increment can be lost.
                let seen = core::hint::black_box(*count);
                *count = seen + 1;
                inside.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(count.with(|count| *count) as usize, ROUNDS as usize * smp::up().count());
}

#[ktest]
fn the_heap_serves_all_cpus_at_once() {
    let barrier = Barrier::new();
    smp::run_on_each(|number| {
        barrier.wait();
        for round in 0..200_u32 {
            let size = 1 + (round * 37 + number * 101) as usize % 700;
            let mine: Vec<u32> = alloc::vec![round * 4 + number; size];
            let second = mine.clone();
            assert!(mine.iter().chain(&second).all(|&word| word == round * 4 + number));
        }
    });
}

/// S23: each CPU's memory is its own, whoever gets the addresses and frames next.
#[ktest]
fn areas_of_four_cpus_do_not_meet_s116() {
    let barrier = Barrier::new();
    smp::run_on_each(|number| {
        barrier.wait();
        for round in 0..60_u32 {
            let mut area = VmArea::new(1 + (round % 5) * 4096).expect("memory");
            let byte = (number * 60 + round).to_le_bytes()[0];
            area.fill(byte);
            assert!(area.iter().all(|&found| found == byte), "round {round} of CPU {number}");
        }
    });
}
