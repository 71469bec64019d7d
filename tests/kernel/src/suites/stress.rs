//! All public operations from all CPUs at once, by a seed (S116).
//!
//! ```text
//!   a round:  each CPU makes, fills, checks, changes, swaps and frees ── all wait ── audit, and CPU 0 checks what
//!                  │                        │                                        everybody holds
//!                  │ interrupts itself      └─ with an exchange, so that many a thing is freed by another CPU than
//!                  ▼                           the one that made it
//!             its handler takes from the atomic pool, and gives an area to be freed later
//! ```
//!
//! | room | what is in it |
//! |---|---|
//! | here | the rounds, the exchange, the handler |
//! | [`behind`] | a device of each CPU, on the bus and behind IOMMUs that come and go |
//! | [`held`] | what can be held, and its pattern |
//! | [`named`] | what is had by a C name and has no owner in Rust |
//! | [`on_bus`] | what is mapped of the bus: registers, and memory that is no RAM |
//! | [`operations`] | how things are made, made longer and shorter, mapped anew, read and written |
//! | [`transfers`] | what a device is lent, in place or by a copy, and small blocks |
//!
//! Whatever is held is filled with a pattern of its own and checked: a page that two have, or that was used again too early,
//! shows as a word of somebody else's. `make stress` boots this one test over and over, from one seed to the next.

extern crate alloc;

mod behind;
mod held;
mod named;
mod on_bus;
mod operations;
mod transfers;

use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::{AtomicU32, Ordering};

use arch::lock::IrqSpinLock;
use arch::per_cpu::PerCpu;
use arch::{cpu, smp};
use dma::coherent::CoherentBox;
use dma::device::Device;
use drivers::gic::Receivers;
use drivers::interrupts;
use image::start;
use kerncore::addr::PAGE_SIZE;
use kerncore::lock::Class;
use ktest::ktest;

use held::{Held, What};

/// Rounds, when `operations=` names no other number.
const ROUNDS: u32 = 5;
/// Steps of a CPU in a round.
const STEPS: u32 = 25;
/// How much a CPU holds at most, and pages of the largest of that.
const HOLDS: u32 = 12;
const PAGES: u32 = 16;
/// The software interrupt by which a CPU interrupts itself.
const SOFTWARE: u16 = 7;

static DEVICE: Device = Device::new("stress");

/// Numbers from a seed (xorshift).
struct Draw(u64);

impl Draw {
    fn of(seed: u64, round: u32, cpu: u32) -> Self {
        let mixed = seed ^ u64::from(round) << 40 ^ u64::from(cpu + 1) << 56;
        let mut draw = Self(mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        draw.next();
        draw
    }

    const fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    const fn below(&mut self, bound: u32) -> u32 {
        self.next() % bound
    }
}

/// What all CPUs share.
struct Stage {
    /// What each CPU holds between two rounds.
    shelves: PerCpu<IrqSpinLock<Vec<Held>>>,
    exchange: [IrqSpinLock<Option<Held>>; 8],
    operations: AtomicU32,
}

/// What a handler is to free, and how often it ran, on each CPU.
static TO_FREE: PerCpu<IrqSpinLock<Option<Held>>> =
    PerCpu::new([const { IrqSpinLock::new(Class::Test(0), None) }; cpu::MAX_CPUS]);
static HANDLED: PerCpu<AtomicU32> = PerCpu::new([const { AtomicU32::new(0) }; cpu::MAX_CPUS]);

/// Does what a handler may (S77, S89).
fn handler() {
    if let Ok(buffer) = CoherentBox::new_atomic(&DEVICE, PAGE_SIZE) {
        Held::new(What::Coherent(buffer), 0x5a5a_0000 | cpu::id()).check();
    }
    if let Some(held) = TO_FREE.here().with(Option::take) {
        held.check();
        if let What::Memory(area) = held.into_what() {
            area.free_later();
        }
    }
    HANDLED.here().fetch_add(1, Ordering::Release);
}

/// One CPU in one round.
struct Worker<'s> {
    stage: &'s Stage,
    draw: Draw,
    mine: Vec<Held>,
}

impl Worker<'_> {
    fn step(&mut self) {
        smp::beat();
        self.stage.operations.fetch_add(1, Ordering::Relaxed);
        let full = self.mine.len() >= HOLDS as usize;
        match self.draw.below(15) {
            0..=5 if !full => self.make(),
            6 => self.swap(),
            7 => self.interrupt(),
            8 => self.resize(),
            9 => self.map_anew(),
            10 => self.copy(),
            11 => self.transfer(),
            12 => self.behind(),
            _ => drop(self.take()),
        }
    }

    /// Where something of this CPU's lies that `suits`, if it has one.
    fn pick(&mut self, suits: impl Fn(&What) -> bool) -> Option<usize> {
        let count = self.mine.len();
        let from = self.draw.below(u32::try_from(count.max(1)).unwrap_or(u32::MAX)) as usize;
        (from..count).chain(0..from).find(|&place| suits(self.mine[place].what()))
    }

    /// Something of this CPU's, as it should be.
    fn take(&mut self) -> Option<Held> {
        let place = self.pick(|_| true)?;
        let held = self.mine.swap_remove(place);
        held.check();
        Some(held)
    }

    /// Puts something of this CPU's into the exchange, and takes what is there.
    fn swap(&mut self) {
        let offered = self.take();
        let place = &self.stage.exchange[self.draw.below(8) as usize];
        let taken = place.with(|place| mem::replace(place, offered));
        self.mine.extend(taken.inspect(Held::check));
    }

    /// Lets a handler free something, and take something for itself.
    fn interrupt(&mut self) {
        let place = self.pick(|what| matches!(what, What::Memory(_)));
        let area = place.map(|place| self.mine.swap_remove(place));
        let left = TO_FREE.here().with(|place| mem::replace(place, area));
        assert!(left.is_none(), "the handler has left an area");
        let before = HANDLED.here().load(Ordering::Acquire);
        interrupts::send(SOFTWARE, Receivers::Own).expect("a software interrupt");
        cpu::wait_until(|| HANDLED.here().load(Ordering::Acquire) != before);
    }
}

/// No rule is broken, and everything that somebody holds is as it should be.
fn audit(stage: &Stage, round: u32) {
    // What handlers have left.
    mm::vm_area::free_deferred();
    let mut findings = 0;
    mm::audit::audit(&mut |finding| {
        log::error!("after round {round}: {finding}");
        findings += 1;
    });
    assert_eq!(findings, 0, "the audit after round {round}");
    assert_eq!(mm::kernel().check_books(), Ok(()));
    for shelf in stage.shelves.iter() {
        let held = shelf.with(mem::take);
        held.iter().for_each(Held::check);
        shelf.with(|shelf| *shelf = held);
    }
}

#[ktest]
fn everything_at_once_from_every_cpu_s116() {
    let config = &start::started().expect("the kernel has started").config;
    let (seed, rounds) = (config.seed.unwrap_or(1), config.operations.unwrap_or(ROUNDS));
    let empty = || IrqSpinLock::new(Class::Test(1), Vec::new());
    let stage = Stage {
        shelves: PerCpu::new([empty(), empty(), empty(), empty()]),
        exchange: [const { IrqSpinLock::new(Class::Test(2), None) }; 8],
        operations: AtomicU32::new(0),
    };
    interrupts::register(SOFTWARE, &handler).expect("a line without a handler");
    smp::run_on_each(|_| interrupts::enable_here(SOFTWARE).expect("it has a handler"));
    transfers::open_pool();
    behind::open_mapping();
    for round in 0..rounds {
        smp::run_on_each(|cpu| {
            let mine = stage.shelves.here().with(mem::take);
            let mut worker = Worker { stage: &stage, draw: Draw::of(seed, round, cpu), mine };
            (0..STEPS).for_each(|_| worker.step());
            let mine = mem::take(&mut worker.mine);
            stage.shelves.here().with(|shelf| *shelf = mine);
        });
        audit(&stage, round);
    }
    // Each CPU frees what its neighbour has.
    smp::run_on_each(|cpu| {
        let shelf = stage.shelves.of((cpu + 1) % 4).expect("four at most");
        drop(shelf.with(mem::take));
    });
    stage.shelves.iter().for_each(|shelf| drop(shelf.with(mem::take)));
    stage.exchange.iter().for_each(|place| drop(place.with(Option::take)));
    transfers::close_pool();
    behind::close_mapping();
    interrupts::unregister(SOFTWARE).expect("registered above");
    let (operations, cpus) = (stage.operations.into_inner(), smp::up().count());
    log::info!("stress: {operations} operations by {cpus} CPUs, seed {seed}");
}
