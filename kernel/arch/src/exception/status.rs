//! The fault status codes of the short-descriptor format (ARM ARM B3.13.3, table B3-23).
//!
//! The code is five bits: FS\[4\] is bit 10 of DFSR and IFSR, FS\[3:0\] are bits 3 to 0. Bits 7 to 4 are the domain,
//! which the `aarch32-cpu` crate's `Dfsr` takes for the status' upper bits, as the long-descriptor format would have
//! it; hence this table.

use core::fmt;

/// Which level of the translation tables a fault came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The first-level table: a section or supersection, or no entry.
    First,
    /// A second-level table: a page.
    Second,
}

/// Why an access was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultStatus {
    /// An unaligned access, where the instruction, the memory type or SCTLR.A forbids it.
    Alignment,
    /// A debug event, or BKPT.
    DebugEvent,
    /// The access flag was clear (only while SCTLR.AFE is set).
    AccessFlag(Level),
    /// Cache maintenance by address met an instruction-cache fault.
    InstructionCacheMaintenance,
    /// No valid descriptor.
    Translation(Level),
    /// The bus refused the access, at once.
    SynchronousExternal,
    /// The domain gives no access.
    Domain(Level),
    /// The bus refused the walker's access to a table.
    ExternalOnWalk(Level),
    /// The permissions, or execute-never, forbid the access.
    Permission(Level),
    /// The TLB held two entries for the address.
    TlbConflict,
    /// Implementation defined: lockdown.
    Lockdown,
    /// Implementation defined: coprocessor abort.
    CoprocessorAbort,
    /// The bus refused an earlier access; which one is not known.
    AsynchronousExternal,
    /// A parity error of an earlier access.
    AsynchronousParity,
    /// A parity error of this access.
    SynchronousParity,
    /// A parity error of the walker's access to a table.
    ParityOnWalk(Level),
    /// Not from a status register: the instruction is undefined.
    UndefinedInstruction,
    /// A code that the architecture reserves.
    Reserved(u8),
}

impl FaultStatus {
    /// Decodes the status in a raw DFSR or IFSR.
    pub const fn from_register(raw: u32) -> Self {
        Self::from_code((raw >> 6 & 0x10) as u8 | (raw & 0xf) as u8)
    }

    /// Decodes a five-bit code FS\[4:0\].
    pub const fn from_code(code: u8) -> Self {
        match code {
            0b0_0001 => Self::Alignment,
            0b0_0010 => Self::DebugEvent,
            0b0_0011 => Self::AccessFlag(Level::First),
            0b0_0100 => Self::InstructionCacheMaintenance,
            0b0_0101 => Self::Translation(Level::First),
            0b0_0110 => Self::AccessFlag(Level::Second),
            0b0_0111 => Self::Translation(Level::Second),
            0b0_1000 => Self::SynchronousExternal,
            0b0_1001 => Self::Domain(Level::First),
            0b0_1011 => Self::Domain(Level::Second),
            0b0_1100 => Self::ExternalOnWalk(Level::First),
            0b0_1101 => Self::Permission(Level::First),
            0b0_1110 => Self::ExternalOnWalk(Level::Second),
            0b0_1111 => Self::Permission(Level::Second),
            0b1_0000 => Self::TlbConflict,
            0b1_0100 => Self::Lockdown,
            0b1_0110 => Self::AsynchronousExternal,
            0b1_1000 => Self::AsynchronousParity,
            0b1_1001 => Self::SynchronousParity,
            0b1_1010 => Self::CoprocessorAbort,
            0b1_1100 => Self::ParityOnWalk(Level::First),
            0b1_1110 => Self::ParityOnWalk(Level::Second),
            reserved => Self::Reserved(reserved),
        }
    }

    /// Whether the fault address register names the access that this status is about (ARM ARM table B3-23).
    pub const fn has_address(self) -> bool {
        !matches!(
            self,
            Self::DebugEvent
                | Self::AsynchronousExternal
                | Self::AsynchronousParity
                | Self::UndefinedInstruction
                | Self::Reserved(_)
        )
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first level",
            Self::Second => "second level",
        })
    }
}

impl fmt::Display for FaultStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alignment => f.write_str("alignment fault"),
            Self::DebugEvent => f.write_str("debug event"),
            Self::AccessFlag(level) => write!(f, "access flag fault, {level}"),
            Self::InstructionCacheMaintenance => f.write_str("instruction cache maintenance fault"),
            Self::Translation(level) => write!(f, "translation fault, {level}"),
            Self::SynchronousExternal => f.write_str("synchronous external abort"),
            Self::Domain(level) => write!(f, "domain fault, {level}"),
            Self::ExternalOnWalk(level) => write!(f, "external abort on a table walk, {level}"),
            Self::Permission(level) => write!(f, "permission fault, {level}"),
            Self::TlbConflict => f.write_str("TLB conflict"),
            Self::Lockdown => f.write_str("lockdown fault"),
            Self::CoprocessorAbort => f.write_str("coprocessor abort"),
            Self::AsynchronousExternal => f.write_str("asynchronous external abort"),
            Self::AsynchronousParity => f.write_str("asynchronous parity error"),
            Self::SynchronousParity => f.write_str("synchronous parity error"),
            Self::ParityOnWalk(level) => write!(f, "parity error on a table walk, {level}"),
            Self::UndefinedInstruction => f.write_str("undefined instruction"),
            Self::Reserved(code) => write!(f, "reserved fault status {code:#04x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S113: what the emulated board was seen to report, domain and write bits included.
    #[test]
    fn registers_as_measured_decode_whatever_the_domain_and_the_write_bit() {
        let measured = [
            (0x005, FaultStatus::Translation(Level::First)),
            (0x805, FaultStatus::Translation(Level::First)),
            (0x807, FaultStatus::Translation(Level::Second)),
            (0x003, FaultStatus::AccessFlag(Level::First)),
            (0x006, FaultStatus::AccessFlag(Level::Second)),
            (0x039, FaultStatus::Domain(Level::First)),
            (0x03b, FaultStatus::Domain(Level::Second)),
            (0x83d, FaultStatus::Permission(Level::First)),
            (0x80f, FaultStatus::Permission(Level::Second)),
            (0x001, FaultStatus::Alignment),
            (0x00e, FaultStatus::ExternalOnWalk(Level::Second)),
            (0x808, FaultStatus::SynchronousExternal),
            (0x002, FaultStatus::DebugEvent),
        ];
        for (raw, status) in measured {
            assert_eq!(FaultStatus::from_register(raw), status, "{raw:#x}");
        }
    }

    #[test]
    fn bit_ten_is_the_upper_bit_of_the_code_and_the_domain_is_not() {
        assert_eq!(FaultStatus::from_register(0x406), FaultStatus::AsynchronousExternal);
        assert_eq!(FaultStatus::from_register(0x016), FaultStatus::AccessFlag(Level::Second));
        assert_eq!(FaultStatus::from_register(0x40e), FaultStatus::ParityOnWalk(Level::Second));
    }

    /// Every code that ARM DDI 0406C lists, once, and nothing else, is named.
    #[test]
    fn exactly_the_listed_codes_have_names() {
        let listed = [
            0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f,
            0x10, 0x14, 0x16, 0x18, 0x19, 0x1a, 0x1c, 0x1e,
        ];
        for code in 0..32 {
            let named = !matches!(FaultStatus::from_code(code), FaultStatus::Reserved(_));
            assert_eq!(named, listed.contains(&code), "{code:#x}");
        }
        for (index, code) in listed.iter().enumerate() {
            for other in &listed[index + 1..] {
                assert_ne!(FaultStatus::from_code(*code), FaultStatus::from_code(*other));
            }
        }
    }

    #[test]
    fn an_asynchronous_abort_has_no_address() {
        assert!(!FaultStatus::AsynchronousExternal.has_address());
        assert!(FaultStatus::Translation(Level::Second).has_address());
    }
}
