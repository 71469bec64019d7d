//! The short-descriptor format, read anew from the manual: what tables in physical memory say of an address.
//!
//! Nothing here is shared with the kernel, nor with SoftMachine: it is a witness. Written from ARM DDI 0406C: B3.5.1
//! (figures B3-4 and B3-5), B3.5.4 (which table), B3.5.5 (the walk), B3.7 (permissions), B3.8.2 (memory types without remapping),
//! B3.12.3 (domains), B3.13.3 (fault codes). Large pages and supersections must stand sixteen times, alike; a table where they do not is
//! not one that processors agree about, and an error here.

use std::fmt;

/// The registers that a walk depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    /// Base of the table for low addresses.
    pub(crate) ttbr0: u32,
    /// Base of the table for high addresses.
    pub(crate) ttbr1: u32,
    /// Which addresses are low, and which walks are disabled.
    pub(crate) ttbcr: u32,
    /// What each domain may do.
    pub(crate) dacr: u32,
    /// Whether there is translation, and what some bits of descriptors mean.
    pub(crate) sctlr: u32,
}

/// Sixteen aligned words of physical memory, as somebody gets them.
pub(crate) trait Memory {
    /// The words from `address` on, a multiple of 64.
    fn words(&mut self, address: u64) -> Result<[u32; 16], String>;
}

/// What an entry covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    Large,
    Section,
    Supersection,
}

impl Size {
    /// The kernel's word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
            Self::Section => "section",
            Self::Supersection => "supersection",
        }
    }

    const fn level(self) -> Level {
        match self {
            Self::Small | Self::Large => Level::Second,
            Self::Section | Self::Supersection => Level::First,
        }
    }
}

/// A level of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    First,
    Second,
}

/// A valid entry, for one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Where the address leads, in 40 bits.
    pub(crate) physical: u64,
    /// What the entry covers.
    pub(crate) size: Size,
    /// AP\[2:0\].
    ap: u32,
    /// TEX\[2:0\].
    tex: u32,
    /// C and B.
    c_b: u32,
    /// XN.
    pub(crate) execute_never: bool,
    /// S.
    pub(crate) shareable: bool,
    /// nG.
    pub(crate) non_global: bool,
    /// What DACR says of its domain.
    domain: Domain,
}

/// What the two bits of a domain allow (B3.12.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Domain {
    /// Nothing; and so does the reserved value, as far as anybody may rely on it.
    NoAccess,
    /// What the permissions say.
    Client,
    /// Everything.
    Manager,
}

/// Why an access is refused: the fault's name and level, as the kernel prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Translation(Level),
    AccessFlag(Level),
    Domain(Level),
    Permission(Level),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Why there is no answer at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unclear {
    /// The memory could not be read.
    Memory(String),
    /// The registers choose something that is not decoded here.
    Registers(&'static str),
    /// A large page or supersection that does not stand sixteen times: where, and what.
    Uneven { at: u64, descriptor: u32 },
}

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(why) => f.write_str(why),
            Self::Registers(what) => write!(f, "{what}, which this decoder does not read"),
            Self::Uneven { at, descriptor } => {
                write!(f, "{descriptor:#010x} at {at:#x} does not stand in all its sixteen slots")
            }
        }
    }
}

const SCTLR_M: u32 = 1;
const SCTLR_TRE: u32 = 1 << 28;
const SCTLR_AFE: u32 = 1 << 29;
const TTBCR_EAE: u32 = 1 << 31;

/// What the tables say of `address`: an entry, or the fault that any access takes.
pub(crate) fn walk(
    registers: Registers,
    memory: &mut dyn Memory,
    address: u32,
) -> Result<Result<Mapping, Fault>, Unclear> {
    if registers.sctlr & SCTLR_M == 0 {
        return Err(Unclear::Registers("the MMU is off"));
    }
    if registers.ttbcr & TTBCR_EAE != 0 {
        return Err(Unclear::Registers("the long-descriptor format"));
    }
    if registers.sctlr & SCTLR_TRE != 0 {
        return Err(Unclear::Registers("TEX remapping"));
    }
    let Some((table, index)) = first_table(registers, address) else {
        return Ok(Err(Fault::Translation(Level::First)));
    };
    let at = u64::from(table) + 4 * u64::from(index);
    let first = word(memory, at)?;
    let mapping = match first & 0b11 {
        // A page table: its base, and the domain of all that it maps.
        0b01 => {
            let index = address >> 12 & 0xff;
            let at = u64::from(first & 0xffff_fc00) + 4 * u64::from(index);
            let second = word(memory, at)?;
            let domain = first >> 5 & 0xf;
            match second & 0b11 {
                0b00 => return Ok(Err(Fault::Translation(Level::Second))),
                0b01 => {
                    even(memory, at, second)?;
                    large_page(registers, second, domain, address)
                }
                _ => small_page(registers, second, domain, address),
            }
        }
        // Bit 18 tells supersections; bit 0 would be PXN, which this processor lacks (ID_MMFR0.VMSA = 3), so that 0b11 is reserved.
        0b10 if first & 1 << 18 != 0 => {
            even(memory, at, first)?;
            supersection(registers, first, address)
        }
        0b10 => section(registers, first, address),
        _ => return Ok(Err(Fault::Translation(Level::First))),
    };
    Ok(mapping.checked(registers))
}

/// The first-level table for `address`, and the index in it; `None` if the walk is disabled (B3.5.4).
fn first_table(registers: Registers, address: u32) -> Option<(u32, u32)> {
    let n = registers.ttbcr & 0b111;
    let is_low = n == 0 || address >> (32 - n) == 0;
    if is_low {
        // The table has 2^(12-N) entries; TTBR0[31:14-N] is its base, the index VA[31-N:20].
        let disabled = registers.ttbcr & 1 << 4 != 0;
        let base = registers.ttbr0 & (u32::MAX << (14 - n));
        return (!disabled).then_some((base, address << n >> n >> 20));
    }
    let disabled = registers.ttbcr & 1 << 5 != 0;
    (!disabled).then_some((registers.ttbr1 & 0xffff_c000, address >> 20))
}

fn word(memory: &mut dyn Memory, at: u64) -> Result<u32, Unclear> {
    let words = memory.words(at & !63).map_err(Unclear::Memory)?;
    Ok(words[usize::try_from(at % 64 / 4).unwrap_or(0)])
}

/// Makes sure that `descriptor` stands in all sixteen slots about `at`: they are 64 bytes, aligned.
fn even(memory: &mut dyn Memory, at: u64, descriptor: u32) -> Result<(), Unclear> {
    let words = memory.words(at & !63).map_err(Unclear::Memory)?;
    let even = words.iter().all(|&word| word == descriptor);
    if even { Ok(()) } else { Err(Unclear::Uneven { at, descriptor }) }
}

fn small_page(registers: Registers, word: u32, domain: u32, address: u32) -> Mapping {
    Mapping {
        physical: u64::from(word & 0xffff_f000 | address & 0x0fff),
        size: Size::Small,
        ap: word >> 4 & 0b11 | word >> 7 & 0b100,
        tex: word >> 6 & 0b111,
        c_b: word >> 2 & 0b11,
        execute_never: word & 1 != 0,
        shareable: word & 1 << 10 != 0,
        non_global: word & 1 << 11 != 0,
        domain: domain_of(registers, domain),
    }
}

fn large_page(registers: Registers, word: u32, domain: u32, address: u32) -> Mapping {
    Mapping {
        physical: u64::from(word & 0xffff_0000 | address & 0xffff),
        size: Size::Large,
        ap: word >> 4 & 0b11 | word >> 7 & 0b100,
        tex: word >> 12 & 0b111,
        c_b: word >> 2 & 0b11,
        execute_never: word & 1 << 15 != 0,
        shareable: word & 1 << 10 != 0,
        non_global: word & 1 << 11 != 0,
        domain: domain_of(registers, domain),
    }
}

fn section(registers: Registers, word: u32, address: u32) -> Mapping {
    Mapping {
        physical: u64::from(word & 0xfff0_0000 | address & 0x000f_ffff),
        size: Size::Section,
        ap: word >> 10 & 0b11 | word >> 13 & 0b100,
        tex: word >> 12 & 0b111,
        c_b: word >> 2 & 0b11,
        execute_never: word & 1 << 4 != 0,
        shareable: word & 1 << 16 != 0,
        non_global: word & 1 << 17 != 0,
        domain: domain_of(registers, word >> 5 & 0xf),
    }
}

/// PA\[35:32\] are bits 23 to 20, PA\[39:36\] bits 8 to 5, where others have their domain: its own is 0.
fn supersection(registers: Registers, word: u32, address: u32) -> Mapping {
    let above = u64::from(word >> 20 & 0xf) << 32 | u64::from(word >> 5 & 0xf) << 36;
    Mapping {
        physical: above | u64::from(word & 0xff00_0000 | address & 0x00ff_ffff),
        size: Size::Supersection,
        domain: domain_of(registers, 0),
        ..section(registers, word, address)
    }
}

const fn domain_of(registers: Registers, domain: u32) -> Domain {
    match registers.dacr >> (2 * domain) & 0b11 {
        0b01 => Domain::Client,
        0b11 => Domain::Manager,
        _ => Domain::NoAccess,
    }
}

impl Mapping {
    /// The faults that any access takes, whatever it does: access flag, then domain (B3.13.2, figure B3-27).
    fn checked(self, registers: Registers) -> Result<Self, Fault> {
        let level = self.size.level();
        // With access flags AP[0] is one, and the rights are those of AP[2:1], which are those of the three bits with AP[0]
        // set (B3.7.1, table B3-7): so there is nothing more to change.
        if registers.sctlr & SCTLR_AFE != 0 && self.ap & 1 == 0 {
            return Err(Fault::AccessFlag(level));
        }
        match self.domain {
            Domain::NoAccess => Err(Fault::Domain(level)),
            Domain::Client | Domain::Manager => Ok(self),
        }
    }

    /// Where a privileged load is led.
    pub(crate) fn read(&self) -> Result<u64, Fault> {
        self.access(self.privileged().0)
    }

    /// Where a privileged store is led.
    pub(crate) fn write(&self) -> Result<u64, Fault> {
        self.access(self.privileged().1)
    }

    fn access(&self, allowed: bool) -> Result<u64, Fault> {
        match self.domain {
            Domain::Manager => Ok(self.physical),
            _ if allowed => Ok(self.physical),
            _ => Err(Fault::Permission(self.size.level())),
        }
    }

    /// Whether privileged code may read, and may write (table B3-6). 0b100 is reserved: nobody may.
    const fn privileged(&self) -> (bool, bool) {
        match self.ap {
            0b001..=0b011 => (true, true),
            0b101..=0b111 => (true, false),
            _ => (false, false),
        }
    }

    /// The same of unprivileged code.
    const fn unprivileged(&self) -> (bool, bool) {
        match self.ap {
            0b011 => (true, true),
            0b010 | 0b110 | 0b111 => (true, false),
            _ => (false, false),
        }
    }

    /// Rights of the kernel and the user: `rwx/rwx`.
    pub(crate) fn rights(&self) -> String {
        let one = |(read, write): (bool, bool)| {
            let letter = |is: bool, letter| if is { letter } else { '-' };
            let execute = read && !self.execute_never;
            [letter(read, 'r'), letter(write, 'w'), letter(execute, 'x')].iter().collect::<String>()
        };
        format!("{}/{}", one(self.privileged()), one(self.unprivileged()))
    }

    /// The memory type, by the kernel's words for those that it uses (table B3-10, without remapping).
    pub(crate) fn memory_type(&self) -> &'static str {
        match (self.tex, self.c_b, self.shareable) {
            (0b000, 0b00, _) => "strongly-ordered",
            (0b000, 0b01, _) => "device",
            (0b010, 0b00, _) => "device-not-shareable",
            (0b000, 0b10, true) => "write-through",
            (0b001, 0b00, true) => "non-cacheable",
            (0b001, 0b11, true) => "write-back",
            (0b000, 0b10 | 0b11, _) | (0b001, 0b00 | 0b11, _) | (0b100.., ..) => {
                "normal-of-another-kind"
            }
            _ => "reserved",
        }
    }
}

#[cfg(test)]
#[path = "decode/tests.rs"]
mod tests;
