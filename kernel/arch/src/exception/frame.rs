//! What an exception interrupted.

use core::fmt;

use super::fault::Fault;

/// CPSR.T: the interrupted code is Thumb code.
#[cfg(target_arch = "arm")]
pub(crate) const THUMB: u32 = 1 << 5;
/// CPSR.IT, both halves: where in a Thumb IT block the interrupted code was.
#[cfg(target_arch = "arm")]
pub(crate) const IT_STATE: u32 = 0x0600_fc00;

/// Which exception, by the number of its vector (ARM ARM B1.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// An undefined instruction.
    Undefined = 1,
    /// SVC.
    SupervisorCall = 2,
    /// An instruction that could not be fetched and was reached.
    PrefetchAbort = 3,
    /// A load or store that was refused.
    DataAbort = 4,
    /// An interrupt.
    Irq = 6,
    /// A fast interrupt.
    Fiq = 7,
}

impl Kind {
    /// The exception with this vector number. `vectors.S` knows six, and no other ever reaches Rust.
    pub(crate) const fn from_vector(number: u32) -> Self {
        match number {
            1 => Self::Undefined,
            2 => Self::SupervisorCall,
            3 => Self::PrefetchAbort,
            4 => Self::DataAbort,
            6 => Self::Irq,
            _ => Self::Fiq,
        }
    }
}

/// A processor mode, CPSR.M (ARM ARM table B1-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Unprivileged.
    User,
    /// Handling a fast interrupt.
    Fiq,
    /// Handling an interrupt.
    Irq,
    /// The kernel's own.
    Supervisor,
    /// Secure monitor.
    Monitor,
    /// Handling an abort.
    Abort,
    /// Hypervisor.
    Hyp,
    /// Handling an undefined instruction.
    Undefined,
    /// Privileged, with User mode's registers.
    System,
    /// A value that is no mode.
    Reserved(u8),
}

impl Mode {
    /// Decodes CPSR.M, the low five bits of `cpsr`.
    pub const fn from_cpsr(cpsr: u32) -> Self {
        match cpsr & 0x1f {
            0x10 => Self::User,
            0x11 => Self::Fiq,
            0x12 => Self::Irq,
            0x13 => Self::Supervisor,
            0x16 => Self::Monitor,
            0x17 => Self::Abort,
            0x1a => Self::Hyp,
            0x1b => Self::Undefined,
            0x1f => Self::System,
            reserved => Self::Reserved((reserved & 0x1f) as u8),
        }
    }
}

/// The interrupted state, as `vectors.S` stores it, and as it is loaded again when the handler returns: what is
/// changed here is changed there. One exception: for a mode that interrupted itself, `sp` cannot be changed.
///
/// The layout is fixed by `vectors.S`.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Frame {
    /// r0 to r12 of the interrupted mode.
    pub registers: [u32; 13],
    /// SP of the interrupted mode.
    pub sp: u32,
    /// LR of the interrupted mode; lost if the exception's own mode was interrupted.
    pub lr: u32,
    /// DFSR or IFSR as it was, for an abort.
    pub(crate) fault_status: u32,
    /// DFAR or IFAR as it was, for an abort.
    pub(crate) fault_address: u32,
    /// The vector's number.
    pub(crate) kind: u32,
    /// The address of the instruction that faulted; for an interrupt or an SVC, of the one to go on with.
    pub pc: u32,
    /// CPSR of the interrupted code.
    pub cpsr: u32,
}

// Fixed by vectors.S.
const _: () = {
    assert!(size_of::<Frame>() == 80);
    assert!(core::mem::offset_of!(Frame, sp) == 52);
    assert!(core::mem::offset_of!(Frame, lr) == 56);
    assert!(core::mem::offset_of!(Frame, kind) == 68);
    assert!(core::mem::offset_of!(Frame, pc) == 72);
    assert!(core::mem::offset_of!(Frame, cpsr) == 76);
};

impl Frame {
    /// A program that is to begin at `pc`.
    #[cfg(target_arch = "arm")]
    pub(crate) const fn of_program(pc: u32, sp: u32, cpsr: u32) -> Self {
        let kind = Kind::SupervisorCall as u32;
        Self { registers: [0; 13], sp, lr: 0, fault_status: 0, fault_address: 0, kind, pc, cpsr }
    }

    /// Which exception this is.
    pub const fn kind(&self) -> Kind {
        Kind::from_vector(self.kind)
    }

    /// The mode that was interrupted.
    pub const fn mode(&self) -> Mode {
        Mode::from_cpsr(self.cpsr)
    }

    /// What was refused, if this is a fault: an abort or an undefined instruction.
    pub const fn fault(&self) -> Option<Fault> {
        Fault::decode(self.kind(), self.fault_status, self.fault_address, self.pc, self.cpsr)
    }
}

/// The registers, four a line.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, register) in self.registers.iter().enumerate() {
            let separator = if number % 4 == 3 { '\n' } else { ' ' };
            let indent = if number < 10 { "  " } else { " " };
            write!(f, "{indent}r{number} {register:08x}{separator}")?;
        }
        writeln!(f, "  sp {:08x}   lr {:08x}   pc {:08x}", self.sp, self.lr, self.pc)?;
        write!(f, "cpsr {:08x} ({:?} mode)", self.cpsr, self.mode())
    }
}

#[cfg(test)]
mod tests {
    use kerncore::addr::VirtAddr;

    use super::super::fault::Access;
    use super::super::status::{FaultStatus, Level};
    use super::*;

    fn frame(kind: Kind, fault_status: u32) -> Frame {
        Frame {
            registers: [0; 13],
            sp: 0x8010_0000,
            lr: 0x8001_0004,
            fault_status,
            fault_address: 0xc000_0000,
            kind: kind as u32,
            pc: 0x8001_0000,
            cpsr: 0x6000_0113,
        }
    }

    /// S113: status, address, access, instruction and mode.
    #[test]
    fn a_data_abort_names_the_address_and_the_direction() {
        let fault = frame(Kind::DataAbort, 0x80f).fault().expect("an abort is a fault");
        assert_eq!(fault.status, FaultStatus::Permission(Level::Second));
        assert_eq!(fault.access, Access::Write);
        assert_eq!(fault.address, Some(VirtAddr::new(0xc000_0000)));
        assert_eq!(fault.instruction, VirtAddr::new(0x8001_0000));
        assert_eq!(fault.mode, Mode::Supervisor);
        let load = frame(Kind::DataAbort, 0x007).fault().expect("an abort is a fault");
        assert_eq!(load.access, Access::Read);
    }

    #[test]
    fn an_undefined_instruction_takes_nothing_from_the_status_registers() {
        let fault = frame(Kind::Undefined, 0x80f).fault().expect("a fault");
        assert_eq!(fault.status, FaultStatus::UndefinedInstruction);
        assert_eq!(fault.address, Some(VirtAddr::new(0x8001_0000)));
    }

    #[test]
    fn an_asynchronous_abort_does_not_repeat_a_stale_address() {
        let fault = frame(Kind::DataAbort, 0x406).fault().expect("a fault");
        assert_eq!((fault.status, fault.address), (FaultStatus::AsynchronousExternal, None));
    }

    #[test]
    fn interrupts_and_supervisor_calls_are_not_faults() {
        for kind in [Kind::SupervisorCall, Kind::Irq, Kind::Fiq] {
            assert_eq!(frame(kind, 0x80f).fault(), None);
            assert_eq!(frame(kind, 0).kind(), kind);
        }
    }

    #[test]
    fn every_mode_has_its_number() {
        let modes = (0..32).filter(|mode| !matches!(Mode::from_cpsr(*mode), Mode::Reserved(_)));
        assert_eq!(
            modes.collect::<Vec<_>>(),
            [0x10, 0x11, 0x12, 0x13, 0x16, 0x17, 0x1a, 0x1b, 0x1f]
        );
    }
}
