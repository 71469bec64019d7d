//! The interrupt controller: Arm's GIC, as the Cortex-A9 `MPCore` has it (architecture version 1).
//!
//! ```text
//!   devices ──▶ Distributor ──▶ CpuInterface of CPU 0 ──▶ IRQ
//!               which lines,    CpuInterface of CPU 1 ──▶ IRQ
//!               for which CPU   …
//! ```
//!
//! The kernel runs in the secure state and leaves every line in group 0, which reaches the CPU as IRQ. Interrupts have one
//! priority: a handler is not interrupted. The lower 32 lines are banked: each CPU has its own, and enables them itself.
//!
//! The crate `arm-gic` serves later versions. On this one its set-up puts all lines into group 1, where acknowledging
//! gives 1022, and it has no call for the CPUs that a shared line goes to; what is needed is the few registers below.
//!
//! References: **GIC** is ARM IHI 0048B, **MP** the Cortex-A9 `MPCore` TRM (ARM DDI 0407), chapter 3.

use core::fmt;

use mm::io_mem::IoMem;
use safe_mmio::fields::{ReadOnly, ReadPure, ReadPureWrite, WriteOnly};
use safe_mmio::{UniqueMmioPointer, field, field_shared};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The most lines that this version has; the registers below have room for them.
pub const LINES: u16 = 1020;
/// The lines that each CPU raises for the others, or for itself: software-generated interrupts.
pub const SOFTWARE_LINES: u16 = 16;
/// The first line that the CPUs share. Those below are each CPU's own.
pub const FIRST_SHARED: u16 = 32;

/// The one priority: in the middle of those that the secure state has.
const PRIORITY: u8 = 0xa0;
/// Every priority above this value's is let through: all.
const PRIORITY_MASK: u32 = 0xff;
/// Control registers: let interrupts through.
const ENABLE: u32 = 1;
/// The interrupt's number, in what acknowledging gives; above it stands the CPU that raised a software interrupt.
const NUMBER: u32 = 0x3ff;
/// Numbers from here up are no interrupts: there is none, or none that this CPU may take (GIC 3.2.5).
const SPURIOUS: u32 = 1020;

/// The distributor's registers (GIC 4.3).
#[derive(Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct DistributorRegisters {
    control: ReadPureWrite<u32>,
    kind: ReadPure<u32>,
    implementer: ReadPure<u32>,
    _reserved_1: [u32; 29],
    group: [ReadPureWrite<u32>; 32],
    enable: [ReadPureWrite<u32>; 32],
    disable: [ReadPureWrite<u32>; 32],
    set_pending: [ReadPureWrite<u32>; 32],
    clear_pending: [ReadPureWrite<u32>; 32],
    active: [ReadPure<u32>; 32],
    _reserved_2: [u32; 32],
    priority: [ReadPureWrite<u8>; 1024],
    targets: [ReadPureWrite<u8>; 1024],
    configuration: [ReadPureWrite<u32>; 64],
    _reserved_3: [u32; 128],
    software: WriteOnly<u32>,
}

/// The registers of a CPU's interface (GIC 4.4).
#[derive(Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct CpuInterfaceRegisters {
    control: ReadPureWrite<u32>,
    priority_mask: ReadPureWrite<u32>,
    binary_point: ReadPureWrite<u32>,
    acknowledge: ReadOnly<u32>,
    end: WriteOnly<u32>,
    running_priority: ReadPure<u32>,
    highest_pending: ReadPure<u32>,
}

// Fixed by the architecture.
const _: () = {
    assert!(core::mem::offset_of!(DistributorRegisters, enable) == 0x100);
    assert!(core::mem::offset_of!(DistributorRegisters, active) == 0x300);
    assert!(core::mem::offset_of!(DistributorRegisters, priority) == 0x400);
    assert!(core::mem::offset_of!(DistributorRegisters, targets) == 0x800);
    assert!(core::mem::offset_of!(DistributorRegisters, configuration) == 0xc00);
    assert!(core::mem::offset_of!(DistributorRegisters, software) == 0xf00);
    assert!(core::mem::offset_of!(CpuInterfaceRegisters, highest_pending) == 0x18);
};

/// A line that the controller does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchLine {
    /// The line asked for.
    pub line: u16,
    /// How many there are.
    pub lines: u16,
}

impl fmt::Display for NoSuchLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the interrupt controller has {} lines, none is {}", self.lines, self.line)
    }
}

impl core::error::Error for NoSuchLine {}

/// To which CPUs a software interrupt goes (GIC 4.3.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receivers {
    /// The CPUs whose bits are set.
    Mask(u8),
    /// All but the one that sends.
    Others,
    /// The one that sends.
    Own,
}

/// Which interrupts go to which CPU. Plain state: the caller keeps it behind a lock that masks interrupts.
#[derive(Debug)]
pub struct Distributor {
    registers: UniqueMmioPointer<'static, DistributorRegisters>,
    lines: u16,
}

impl Distributor {
    /// Takes the distributor over: every shared line is off, not pending, of one priority and for no CPU.
    pub fn new(registers: IoMem<DistributorRegisters>) -> Self {
        let mut registers = registers.leak();
        field!(registers, control).write(0);
        // GIC 4.3.2: 32 (N + 1) lines.
        let banks = (field_shared!(registers, kind).read() & 0x1f) + 1;
        let lines = u16::try_from(banks * 32).map_or(LINES, |lines| lines.min(LINES));
        let mut distributor = Self { registers, lines };
        for line in FIRST_SHARED..lines {
            distributor.silence(line);
            distributor.write_target(line, 0);
        }
        field!(distributor.registers, control).write(ENABLE);
        distributor
    }

    /// How many lines there are.
    pub const fn lines(&self) -> u16 {
        self.lines
    }

    /// Silences the lines that this CPU does not share.
    pub fn start_cpu(&mut self) {
        for line in 0..FIRST_SHARED {
            self.silence(line);
        }
    }

    /// Lets `line` through, to CPU number `cpu` if it is a shared one.
    ///
    /// # Errors
    /// [`NoSuchLine`].
    pub fn enable(&mut self, line: u16, cpu: u32) -> Result<(), NoSuchLine> {
        let (bank, bit) = self.place(line)?;
        if line >= FIRST_SHARED {
            self.write_target(line, 1_u8.wrapping_shl(cpu));
        }
        write(&mut field!(self.registers, enable), bank, bit);
        Ok(())
    }

    /// Lets `line` through no more. What is pending stays so.
    ///
    /// # Errors
    /// [`NoSuchLine`].
    pub fn disable(&mut self, line: u16) -> Result<(), NoSuchLine> {
        let (bank, bit) = self.place(line)?;
        write(&mut field!(self.registers, disable), bank, bit);
        Ok(())
    }

    /// Whether `line` is let through.
    ///
    /// # Errors
    /// [`NoSuchLine`].
    pub fn is_enabled(&mut self, line: u16) -> Result<bool, NoSuchLine> {
        let (bank, bit) = self.place(line)?;
        Ok(read(&mut field!(self.registers, enable), bank) & bit != 0)
    }

    /// Whether `line` waits to be taken.
    ///
    /// # Errors
    /// [`NoSuchLine`].
    pub fn is_pending(&mut self, line: u16) -> Result<bool, NoSuchLine> {
        let (bank, bit) = self.place(line)?;
        Ok(read(&mut field!(self.registers, set_pending), bank) & bit != 0)
    }

    /// Raises `line`, which is no software line, as its device would, once.
    ///
    /// # Errors
    /// [`NoSuchLine`].
    pub fn raise(&mut self, line: u16) -> Result<(), NoSuchLine> {
        let (bank, bit) = self.place(line)?;
        write(&mut field!(self.registers, set_pending), bank, bit);
        Ok(())
    }

    /// Raises software line `line` at `receivers`. What was written before is seen by who takes it.
    ///
    /// # Errors
    /// [`NoSuchLine`], beyond the software lines.
    pub fn send(&mut self, line: u16, receivers: Receivers) -> Result<(), NoSuchLine> {
        if line >= SOFTWARE_LINES {
            return Err(NoSuchLine { line, lines: SOFTWARE_LINES });
        }
        let filter = match receivers {
            Receivers::Mask(cpus) => u32::from(cpus) << 16,
            Receivers::Others => 1 << 24,
            Receivers::Own => 2 << 24,
        };
        // The write lies in Device memory, which only a DSB orders behind Normal memory for another CPU's handler.
        arch::barrier::dsb();
        field!(self.registers, software).write(filter | u32::from(line));
        Ok(())
    }

    fn place(&self, line: u16) -> Result<(usize, u32), NoSuchLine> {
        if line < self.lines {
            Ok((usize::from(line / 32), 1 << (line % 32)))
        } else {
            Err(NoSuchLine { line, lines: self.lines })
        }
    }

    /// Off, not pending, of the one priority.
    fn silence(&mut self, line: u16) {
        if let Ok((bank, bit)) = self.place(line) {
            write(&mut field!(self.registers, disable), bank, bit);
            write(&mut field!(self.registers, clear_pending), bank, bit);
            let mut priorities = field!(self.registers, priority);
            if let Some(mut priority) = priorities.get(usize::from(line)) {
                priority.write(PRIORITY);
            }
        }
    }

    fn write_target(&mut self, line: u16, cpus: u8) {
        let mut targets = field!(self.registers, targets);
        if let Some(mut target) = targets.get(usize::from(line)) {
            target.write(cpus);
        }
    }
}

/// An array of registers with a bit for each line.
type Banks<'a> = UniqueMmioPointer<'a, [ReadPureWrite<u32>; 32]>;

fn write(banks: &mut Banks<'_>, bank: usize, bits: u32) {
    if let Some(mut register) = banks.get(bank) {
        register.write(bits);
    }
}

fn read(banks: &mut Banks<'_>, bank: usize) -> u32 {
    banks.get(bank).map_or(0, |register| register.read())
}

/// An interrupt that was taken and must be finished.
#[derive(Debug)]
#[must_use = "the controller gives no other until this is finished"]
pub struct Taken(u32);

impl Taken {
    /// Its line.
    pub const fn line(&self) -> u16 {
        (self.0 & NUMBER) as u16
    }
}

/// One CPU's way to its interrupts, used on that CPU alone: the registers are banked.
#[derive(Debug)]
pub struct CpuInterface(UniqueMmioPointer<'static, CpuInterfaceRegisters>);

impl CpuInterface {
    /// Takes the interface over and lets every priority through.
    pub fn new(registers: IoMem<CpuInterfaceRegisters>) -> Self {
        let mut registers = registers.leak();
        field!(registers, priority_mask).write(PRIORITY_MASK);
        // No interrupt goes before another that runs, whatever its priority.
        field!(registers, binary_point).write(7);
        field!(registers, control).write(ENABLE);
        Self(registers)
    }

    /// Takes the interrupt that waits, if one does.
    pub fn take(&mut self) -> Option<Taken> {
        let taken = field!(self.0, acknowledge).read();
        (taken & NUMBER < SPURIOUS).then_some(Taken(taken))
    }

    /// Ends it: another of the same line may come.
    pub fn finish(&mut self, Taken(taken): Taken) {
        // The handler's accesses to its device come first, above all the one that made it lower its line.
        arch::barrier::dsb();
        field!(self.0, end).write(taken);
    }
}
