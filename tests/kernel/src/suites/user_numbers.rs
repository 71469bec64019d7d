//! Numbers of address spaces change hands while programs run on all CPUs (S116, S118): there are as few as there can be.

extern crate alloc;

use alloc::vec::Vec;

use arch::lock::IrqLocks;
use arch::machine::CortexA9;
use arch::smp;
use arch::user::{Trap, UserContext, copy_to, run};
use kerncore::layout::linear_physical;
use kerncore::user::{CPUS, Protection, Spaces, UserSpace};
use ktest::ktest;
use mm::kernel;

use super::user::{DATA, STACK_TOP, TEXT, at, pages};
use super::user_programs as code;

type Space<'k> = UserSpace<'k, 'static, CortexA9, IrqLocks>;

/// More than there are numbers, on one CPU alone.
const SPACES: u32 = 6;
const ROUNDS: u32 = 12;

/// A space with a program that reads its data, which is `mark`.
fn space_of(spaces: &Spaces<IrqLocks>, mark: u32) -> Space<'_> {
    let space = Space::new(kernel(), spaces).expect("memory");
    space.map_text(pages(TEXT, 1), code::loads()).expect("memory");
    space.map_data(pages(DATA, 1), Protection::ReadWrite).expect("memory");
    space.with_open(|| copy_to(at(DATA), &mark.to_le_bytes())).expect("its own");
    space
}

/// What the program in `space` reads.
fn mark_in(space: &Space<'_>) -> u32 {
    let mut context = UserContext::new(at(TEXT), at(STACK_TOP));
    context.registers_mut()[0] = DATA;
    assert_eq!(space.with_open(|| run(&mut context)), Trap::SystemCall);
    context.registers()[0]
}

/// Each space has its own memory, however often it loses its number to another, and others come and go.
#[ktest]
fn numbers_change_hands_on_all_cpus_at_once_s116_s118() {
    let empty = linear_physical(boot::layout::user_l1()).expect("the image's");
    let spaces = Spaces::with_numbers(empty, CPUS + 1);
    smp::run_on_each(|cpu| {
        let mark = |round: u32, index: u32| cpu << 16 | round << 8 | index;
        let mut own: Vec<(u32, Space<'_>)> =
            (0..SPACES).map(|index| (mark(0, index), space_of(&spaces, mark(0, index)))).collect();
        for round in 1..=ROUNDS {
            for (mark, space) in &own {
                assert_eq!(mark_in(space), *mark, "CPU {cpu}");
            }
            // One dies, while others run, and another comes.
            drop(own.remove(0));
            own.push((mark(round, 0), space_of(&spaces, mark(round, 0))));
            smp::beat();
        }
    });
    assert!(spaces.rollovers() > u64::from(ROUNDS), "{}", spaces.rollovers());
    assert_eq!(spaces.numbers_taken(), 0, "all spaces are dead");
}
