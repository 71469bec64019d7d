//! All public operations from all CPUs at once, by a seed (S116).
//!
//! ```text
//!   a round:  each CPU makes, fills, checks, swaps and frees ── all wait ── audit, and CPU 0 checks what everybody holds
//!                  │                        │
//!                  │ interrupts itself      └─ with an exchange, so that many a thing is freed by another CPU than
//!                  ▼                           the one that made it
//!             its handler takes from the atomic pool, and gives an area to be freed later
//! ```
//!
//! Whatever is held is filled with a pattern of its own and checked whole: a page that two have, or that was used again too early,
//! shows as a word of somebody else's. `make stress` boots this one test over and over, from one seed to the next.

extern crate alloc;

use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::{AtomicU32, Ordering};

use arch::lock::IrqSpinLock;
use arch::per_cpu::PerCpu;
use arch::{cpu, smp};
use board::vexpress_a9::SYSTEM_REGISTERS;
use dma::coherent::CoherentBox;
use dma::device::Device;
use drivers::gic::Receivers;
use drivers::interrupts;
use image::start;
use kerncore::addr::PAGE_SIZE;
use kerncore::lock::Class;
use ktest::ktest;
use mm::io_mem::IoMem;
use mm::mapped_pages::VmMap;
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;
use safe_mmio::fields::ReadPure;

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

type Id = [ReadPure<u32>; 1];

/// Something that was had, filled with its pattern.
struct Held {
    pattern: u32,
    what: What,
}

enum What {
    Memory(VmArea),
    Mapped(VmMap),
    Block(Pages),
    Coherent(CoherentBox),
    Heap(Vec<u8>),
    Registers(IoMem<Id>),
}

impl What {
    fn bytes(&mut self) -> Option<&mut [u8]> {
        match self {
            Self::Memory(memory) => Some(memory),
            Self::Mapped(memory) => Some(memory),
            Self::Block(memory) => Some(memory),
            Self::Coherent(memory) => Some(memory),
            Self::Heap(memory) => Some(memory),
            Self::Registers(_) => None,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "vmalloc",
            Self::Mapped(_) => "vmap",
            Self::Block(_) => "pages",
            Self::Coherent(_) => "coherent",
            Self::Heap(_) => "heap",
            Self::Registers(_) => "ioremap",
        }
    }
}

/// The word number `index` of a pattern.
const fn word(pattern: u32, index: u32) -> [u8; 4] {
    (pattern ^ index.wrapping_mul(0x9e37_79b9)).to_le_bytes()
}

impl Held {
    fn new(mut what: What, pattern: u32) -> Self {
        if let What::Registers(registers) = &mut what {
            // The board's identification: the same whoever asks.
            return Self { pattern: identification(registers), what };
        }
        for (place, index) in what.bytes().unwrap_or_default().chunks_mut(4).zip(0..) {
            place.copy_from_slice(&word(pattern, index)[..place.len()]);
        }
        Self { pattern, what }
    }

    /// Every word is still what was put there.
    fn check(&mut self) {
        let (pattern, name) = (self.pattern, self.what.name());
        if let What::Registers(registers) = &mut self.what {
            assert_eq!(identification(registers), pattern, "a register of the board");
        }
        for (found, index) in self.what.bytes().unwrap_or_default().chunks(4).zip(0..) {
            let wanted = &word(pattern, index)[..found.len()];
            assert!(
                found == wanted,
                "word {index} of {name}, seen by CPU {}: {found:x?}, not {wanted:x?}",
                cpu::id()
            );
        }
    }
}

fn identification(registers: &mut IoMem<Id>) -> u32 {
    registers.registers().get(0).map_or(0, |register| register.read())
}

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
    if let Some(mut held) = TO_FREE.here().with(Option::take) {
        held.check();
        if let What::Memory(area) = held.what {
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
        match self.draw.below(8) {
            0..=3 if !full => self.make(),
            4 => self.swap(),
            5 => self.interrupt(),
            _ => drop(self.take()),
        }
    }

    fn make(&mut self) {
        let pages = 1 + self.draw.below(PAGES);
        let bytes = pages * PAGE_SIZE - self.draw.below(PAGE_SIZE);
        let what = match self.draw.below(8) {
            0 | 1 => What::Memory(VmArea::new(bytes).expect("memory")),
            2 => What::Memory(VmArea::zeroed(bytes).expect("memory")),
            3 => {
                let blocks = (0..=pages % 3).map(|order| Pages::new(order).expect("memory"));
                What::Mapped(VmArea::map(blocks.collect()).expect("addresses"))
            }
            4 => What::Block(Pages::exactly(pages).expect("memory")),
            5 => What::Coherent(CoherentBox::new(&DEVICE, bytes).expect("memory")),
            6 => What::Heap(alloc::vec![0; bytes as usize]),
            _ => What::Registers(IoMem::map(SYSTEM_REGISTERS.base).expect("addresses")),
        };
        let held = Held::new(what, self.draw.next());
        self.mine.push(held);
    }

    /// Something of this CPU's, as it should be.
    fn take(&mut self) -> Option<Held> {
        let count = u32::try_from(self.mine.len()).unwrap_or(u32::MAX);
        let place = self.draw.below(count.max(1)) as usize;
        let mut held = (place < self.mine.len()).then(|| self.mine.swap_remove(place))?;
        held.check();
        Some(held)
    }

    /// Puts something of this CPU's into the exchange, and takes what is there.
    fn swap(&mut self) {
        let offered = self.take();
        let place = &self.stage.exchange[self.draw.below(8) as usize];
        let taken = place.with(|place| mem::replace(place, offered));
        self.mine.extend(taken.map(|mut held| {
            held.check();
            held
        }));
    }

    /// Lets a handler free something, and take something for itself.
    fn interrupt(&mut self) {
        let held = self.take();
        let is_area = held.as_ref().is_some_and(|held| matches!(held.what, What::Memory(_)));
        let (area, kept) = if is_area { (held, None) } else { (None, held) };
        self.mine.extend(kept);
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
        let mut held = shelf.with(mem::take);
        held.iter_mut().for_each(Held::check);
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
    interrupts::unregister(SOFTWARE).expect("registered above");
    let (operations, cpus) = (stage.operations.into_inner(), smp::up().count());
    log::info!("stress: {operations} operations by {cpus} CPUs, seed {seed}");
}
