//! A refused access, decoded.

use core::fmt;

use kerncore::addr::VirtAddr;

use super::frame::{Kind, Mode};
use super::status::FaultStatus;

/// What the processor was about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Load.
    Read,
    /// Store, or maintain a cache by address.
    Write,
    /// Fetch an instruction, or execute it.
    Execute,
}

/// A refused access (S113).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Why.
    pub status: FaultStatus,
    /// What was tried.
    pub access: Access,
    /// Where; `None` if the processor does not know.
    pub address: Option<VirtAddr>,
    /// The instruction that tried.
    pub instruction: VirtAddr,
    /// The mode that it ran in.
    pub mode: Mode,
}

/// DFSR.WnR. Cache maintenance by address counts as a write (ARM ARM B4.1.52).
const WRITE_NOT_READ: u32 = 1 << 11;

impl Fault {
    /// Decodes what an exception of this `kind` left: DFSR or IFSR, DFAR or IFAR, and the interrupted `pc` and `cpsr`.
    /// `None` if the exception is no fault.
    pub(crate) const fn decode(
        kind: Kind,
        fault_status: u32,
        fault_address: u32,
        pc: u32,
        cpsr: u32,
    ) -> Option<Self> {
        let (status, access) = match kind {
            Kind::DataAbort if fault_status & WRITE_NOT_READ != 0 => {
                (FaultStatus::from_register(fault_status), Access::Write)
            }
            Kind::DataAbort => (FaultStatus::from_register(fault_status), Access::Read),
            Kind::PrefetchAbort => (FaultStatus::from_register(fault_status), Access::Execute),
            Kind::Undefined => (FaultStatus::UndefinedInstruction, Access::Execute),
            Kind::SupervisorCall | Kind::Irq | Kind::Fiq => return None,
        };
        let address = match status {
            FaultStatus::UndefinedInstruction => Some(VirtAddr::new(pc)),
            status if status.has_address() => Some(VirtAddr::new(fault_address)),
            _ => None,
        };
        let instruction = VirtAddr::new(pc);
        Some(Self { status, access, address, instruction, mode: Mode::from_cpsr(cpsr) })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match self.access {
            Access::Read => "read",
            Access::Write => "write",
            Access::Execute => "execute",
        };
        write!(f, "{}: {access}", self.status)?;
        if let Some(address) = self.address {
            write!(f, " at {address}")?;
        }
        write!(f, " by {} in {:?} mode", self.instruction, self.mode)
    }
}
