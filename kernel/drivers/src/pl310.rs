//! The outer cache's controller, Arm's PL310 (L2C-310 TRM, ARM DDI 0246).
//!
//! It is maintained by physical address, line by line: one register takes one line's address. What is begun so is done in
//! order, and complete when *cache sync* has been written and reads zero. The emulator has the registers and no cache behind them.

use core::fmt;

use arch::barrier::dsb;
use arch::lock::IrqSpinLock;
use kerncore::addr::{PAGE_SIZE, PhysAddr};
use kerncore::lock::Class;
use kerncore::streaming::{OuterCache, Upkeep};
use mm::io_mem::IoMem;
use safe_mmio::fields::{ReadPure, ReadPureWrite};
use safe_mmio::{UniqueMmioPointer, field, field_shared};
use spin::Once;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The registers (TRM 3.2).
#[derive(Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Registers {
    id: ReadPure<u32>,
    kind: ReadPure<u32>,
    _reserved_0: [u32; 0x3e],
    control: ReadPureWrite<u32>,
    auxiliary: ReadPureWrite<u32>,
    _reserved_1: [u32; 0x18a],
    sync: ReadPureWrite<u32>,
    _reserved_2: [u32; 0xf],
    invalidate_line: ReadPureWrite<u32>,
    _reserved_3: [u32; 2],
    invalidate_ways: ReadPureWrite<u32>,
    _reserved_4: [u32; 0xc],
    clean_line: ReadPureWrite<u32>,
    _reserved_5: [u32; 0xf],
    clean_and_invalidate_line: ReadPureWrite<u32>,
    _reserved_6: [u32; 0x203],
}

// Fixed by the manual.
const _: () = {
    assert!(core::mem::offset_of!(Registers, control) == 0x100);
    assert!(core::mem::offset_of!(Registers, sync) == 0x730);
    assert!(core::mem::offset_of!(Registers, invalidate_line) == 0x770);
    assert!(core::mem::offset_of!(Registers, invalidate_ways) == 0x77c);
    assert!(core::mem::offset_of!(Registers, clean_line) == 0x7b0);
    assert!(core::mem::offset_of!(Registers, clean_and_invalidate_line) == 0x7f0);
    assert!(size_of::<Registers>() == 0x1000);
};

/// Bytes in a line.
const LINE: u32 = 32;
/// Lines that are named under one lock: interrupts wait for as long.
const AT_ONCE: u32 = 128;
/// Of the identification: who made it, and what it is.
const ID: (u32, u32) = (0xff00_03c0, 0x4100_00c0);
const ENABLE: u32 = 1;
/// Accesses that are marked shared are not made cacheable ones: uncached memory is shared.
const SHARED_AS_IT_IS: u32 = 1 << 22;
/// It has sixteen ways, and not eight.
const SIXTEEN_WAYS: u32 = 1 << 16;
/// Turns that a register is waited for.
const PATIENCE: u32 = 10_000_000;

/// Why it was not turned on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The registers identify something else.
    NotAPl310 {
        /// What they say.
        id: u32,
    },
    /// It was turned on before.
    Again,
    /// It does not become empty.
    Stuck,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPl310 { id } => write!(f, "identification {id:#010x} is no PL310's"),
            Self::Again => f.write_str("the outer cache is on already"),
            Self::Stuck => f.write_str("the outer cache does not become empty"),
        }
    }
}

impl core::error::Error for StartError {}

/// The controller, with its cache on.
pub struct Pl310(IrqSpinLock<UniqueMmioPointer<'static, Registers>>);

static PL310: Once<Pl310> = Once::new();

/// Turns the cache on, empty, and tells `arch` of it. At boot, when the other CPUs are up: what is written for one that has
/// its caches off yet would not reach memory.
///
/// # Errors
/// [`StartError`]; it is as it was, or off.
pub fn start(registers: IoMem<Registers>) -> Result<&'static Pl310, StartError> {
    let mut registers = registers;
    let unique = registers.registers();
    let id = field_shared!(unique, id).read();
    if id & ID.0 != ID.1 {
        return Err(StartError::NotAPl310 { id });
    }
    if PL310.is_completed() {
        return Err(StartError::Again);
    }
    turn_on(unique)?;
    let pl310 = PL310.call_once(|| Pl310(IrqSpinLock::new(Class::OuterCache, registers.leak())));
    arch::outer::register(pl310);
    Ok(pl310)
}

fn turn_on(mut registers: UniqueMmioPointer<'_, Registers>) -> Result<(), StartError> {
    if field_shared!(registers, control).read() & ENABLE != 0 {
        // Somebody did before; what it holds is ours.
        return Ok(());
    }
    let auxiliary = field_shared!(registers, auxiliary).read() | SHARED_AS_IT_IS;
    field!(registers, auxiliary).write(auxiliary);
    let ways = if auxiliary & SIXTEEN_WAYS != 0 { 0xffff } else { 0xff };
    field!(registers, invalidate_ways).write(ways);
    let empty = (0..PATIENCE).any(|_| field_shared!(registers, invalidate_ways).read() & ways == 0);
    if !empty {
        return Err(StartError::Stuck);
    }
    field!(registers, sync).write(0);
    field!(registers, control).write(ENABLE);
    dsb();
    Ok(())
}

/// Begins `what` for `count` lines from `line` on, and gives the address of the next. Half a page in a turn: what there is to
/// do for a line is a store and an addition.
#[inline(always)]
fn begin(
    mut registers: UniqueMmioPointer<'_, Registers>,
    what: Upkeep,
    mut line: u32,
    count: u32,
) -> u32 {
    const TURN: u32 = 64;
    let mut register = match what {
        Upkeep::Clean => field!(registers, clean_line),
        Upkeep::Invalidate => field!(registers, invalidate_line),
        Upkeep::CleanAndInvalidate => field!(registers, clean_and_invalidate_line),
    };
    for _ in 0..count / TURN {
        for number in 0..TURN {
            // The line behind the last of all may be the first.
            register.write(line.wrapping_add(number * LINE));
        }
        line = line.wrapping_add(TURN * LINE);
    }
    for _ in 0..count % TURN {
        register.write(line);
        line = line.wrapping_add(LINE);
    }
    line
}

/// Waits until what was begun is complete.
#[inline(always)]
fn complete(mut registers: UniqueMmioPointer<'_, Registers>) {
    field!(registers, sync).write(0);
    while field_shared!(registers, sync).read() & 1 != 0 {}
    dsb();
}

/// The first line that `bytes` from `first`, not none, touch, and how many do. They may be all that there are, and one more.
#[inline(always)]
fn lines(first: PhysAddr, bytes: u32) -> (u32, u32) {
    let line = first.raw() & !(LINE - 1);
    let last = first.raw().wrapping_add(bytes - 1) & !(LINE - 1);
    (line, last.wrapping_sub(line) / LINE + 1)
}

impl Pl310 {
    /// Whether the cache is on.
    pub fn is_on(&self) -> bool {
        self.0.with(|registers| field_shared!(registers, control).read() & ENABLE != 0)
    }
}

impl OuterCache for Pl310 {
    fn maintain(&self, what: Upkeep, first: PhysAddr, bytes: u32) {
        if bytes == 0 {
            return;
        }
        let (mut line, mut left) = lines(first, bytes);
        while left != 0 {
            let some = left.min(AT_ONCE);
            self.0.with(|registers| line = begin(registers.reborrow(), what, line, some));
            left -= some;
        }
    }

    fn wait(&self) {
        self.0.with(|registers| complete(registers.reborrow()));
    }

    fn maintain_now(&self, what: Upkeep, first: PhysAddr, bytes: u32) {
        match bytes {
            0 => {}
            1..=PAGE_SIZE => self.0.with(|registers| {
                let (line, count) = lines(first, bytes);
                begin(registers.reborrow(), what, line, count);
                complete(registers.reborrow());
            }),
            _ => {
                self.maintain(what, first, bytes);
                self.wait();
            }
        }
    }
}

impl fmt::Debug for Pl310 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pl310").field("on", &self.is_on()).finish_non_exhaustive()
    }
}
