//! Counts the instructions of an operation, by the global timer.
//!
//! Under `-icount shift=5` an instruction takes 32 ns, and the timer ticks every 10 ns, so that a difference of two
//! readings, rounded, is a number of instructions and exact. What lies between two readings with nothing between them
//! is measured first, and subtracted; nothing else is. Each operation is measured by itself, and the total is their sum: the
//! loop around them does not count, the calls and their arguments do.

use board::vexpress_a9::GLOBAL_TIMER;
use mm::io_mem::{IoMem, IoMemError};
use safe_mmio::fields::{ReadPure, ReadPureWrite};
use safe_mmio::{SharedMmioPointer, UniqueMmioPointer, field, field_shared};
use zerocopy::{FromBytes, Immutable};

/// Nanoseconds of a tick. (`board::vexpress_a9::MPCORE_TIMER_HZ`)
const TICK: u32 = 1_000_000_000 / board::vexpress_a9::MPCORE_TIMER_HZ;
/// An instruction takes 2^this nanoseconds.
const SHIFT: u32 = 5;

/// The registers of the global timer that are used (Cortex-A9 `MPCore` TRM 4.4.1).
#[derive(FromBytes, Immutable)]
#[repr(C)]
struct GlobalTimer {
    /// The lower half of the counter: wraps after 42 s, or 1.3 thousand million instructions.
    low: ReadPure<u32>,
    high: ReadPure<u32>,
    control: ReadPureWrite<u32>,
}

/// The control register's bit that lets the timer count.
const ENABLE: u32 = 1;

/// How often nothing is measured; the profile counts on it.
const NOTHINGS: u32 = 8;

/// What the operations of a row cost, in instructions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// All of them.
    pub(crate) total: u64,
    /// The first one, which finds nothing prepared.
    pub(crate) first: u32,
    /// The dearest of the others.
    pub(crate) dearest: u32,
}

/// Measures one row.
pub(crate) struct Meter {
    timer: UniqueMmioPointer<'static, GlobalTimer>,
    operations: u32,
    cost: Cost,
}

impl Meter {
    /// Starts the clock, for a row of so many operations.
    pub(crate) fn new(operations: u32) -> Result<Self, IoMemError> {
        let mut timer = IoMem::<GlobalTimer>::map(GLOBAL_TIMER.base)?.leak();
        field!(timer, control).write(ENABLE);
        Ok(Self { timer, operations, cost: Cost::default() })
    }

    /// How many operations are to be measured.
    pub(crate) const fn operations(&self) -> u32 {
        self.operations
    }

    /// What was measured.
    pub(crate) const fn cost(&self) -> Cost {
        self.cost
    }

    /// Runs `operation` as often as wanted, with its number, from 0.
    pub(crate) fn measure(&mut self, operation: impl FnMut(usize)) {
        bench_begin();
        let nothing = self.run(NOTHINGS, 0, |_| {}).dearest;
        self.cost = self.run(self.operations, nothing, operation);
        bench_end();
    }

    #[inline(never)]
    fn run(&self, operations: u32, nothing: u32, mut operation: impl FnMut(usize)) -> Cost {
        let clock = field_shared!(self.timer, low);
        let mut cost = Cost::default();
        for number in 0..operations {
            let begin = bench_clock(clock);
            operation(number as usize);
            let end = bench_clock(clock);
            let spent = instructions(end.wrapping_sub(begin)) - nothing;
            cost.total += u64::from(spent);
            if number == 0 {
                cost.first = spent;
            } else {
                cost.dearest = cost.dearest.max(spent);
            }
        }
        cost
    }
}

/// The number of instructions that so many ticks are.
fn instructions(ticks: u32) -> u32 {
    let nanoseconds = u64::from(ticks) * u64::from(TICK);
    u32::try_from((nanoseconds + (1 << (SHIFT - 1))) >> SHIFT).unwrap_or(u32::MAX)
}

/// Reads the clock. A function with a name, for the profile: what is measured begins and ends in it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "Rust" fn bench_clock(clock: SharedMmioPointer<'_, ReadPure<u32>>) -> u32 {
    clock.read()
}

/// Where the profile begins: a place to stop at.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn bench_begin() {
    core::hint::black_box(1); // a body of its own, or the two become one
}

/// Where the profile ends.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn bench_end() {
    core::hint::black_box(2);
}
