//! What the kernel's own witnesses say of one address.

use core::fmt;

use arch::exception::FaultStatus;
use arch::probe;
use arch::translate::{Direction, TranslationFault, translate};
use board::vexpress_a9::{SRAM, UARTS, VRAM};
use kerncore::addr::{PhysAddr, VirtAddr};
use kerncore::attributes::{Attributes, Scope};
use kerncore::descriptor::PageSize;
use mm::kernel;

use crate::Kind;

/// `UARTFR` of a PL011, which may be read at any time.
const FLAGS_OF_A_PORT: u32 = 0x18;

/// What our walker finds in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where the address leads.
    pub physical: PhysAddr,
    /// What the entry covers.
    pub size: PageSize,
    /// What it promises; `None` if it is none that this project writes.
    pub attributes: Option<Attributes>,
}

/// What an access found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It read this word, which nobody changes until the host has answered.
    Read(u32),
    /// It read something that may be another word by now.
    Touched,
    /// It was refused.
    Refused(FaultStatus),
    /// To read there may have an effect, so nobody did.
    Untried,
}

/// What the kernel's own witnesses say of one address.
#[derive(Clone, Copy, Debug)]
pub struct Testimony {
    /// What it is by the books.
    pub kind: Kind,
    /// The address.
    pub address: VirtAddr,
    /// Our walker's word.
    pub walker: Option<Entry>,
    /// The processor's, for a privileged load (ATS1CPR).
    pub read: Result<PhysAddr, TranslationFault>,
    /// The processor's, for a privileged store (ATS1CPW).
    pub write: Result<PhysAddr, TranslationFault>,
    /// That of an access, which the TLB may have answered.
    pub access: Access,
}

impl Testimony {
    /// Hears all of them about `address`. Any context; allocates nothing.
    pub fn of(address: VirtAddr) -> Self {
        let kind = Kind::of(address);
        let walker = kernel().table().translate(address).map(|found| Entry {
            physical: found.physical,
            size: found.size,
            attributes: found.attributes().ok(),
        });
        Self {
            kind,
            address,
            walker,
            read: translate(address, Direction::Read),
            write: translate(address, Direction::Write),
            access: access(kind, address, walker),
        }
    }

    /// The same of what a device sees at `address`, for which this CPU stands in: `walker` is what our walker found in its domain.
    pub fn of_device(address: VirtAddr, walker: Option<Entry>) -> Self {
        let kind = if walker.is_some() { Kind::Device } else { Kind::User };
        let (read, write) = (Direction::Read, Direction::Write);
        let (read, write) = (translate(address, read), translate(address, write));
        Self { kind, address, walker, read, write, access: access(kind, address, walker) }
    }

    /// The same without the access: for a test that has left the TLB another opinion than the tables, or for what must
    /// not be read.
    pub fn of_walkers(address: VirtAddr) -> Self {
        Self { access: Access::Untried, ..Self::of(address) }
    }
}

fn access(kind: Kind, address: VirtAddr, walker: Option<Entry>) -> Access {
    let harmless = walker.is_none_or(|entry| match entry.physical {
        ram if kernel().zones().table().frame(ram.pfn()).is_some() => true,
        other if SRAM.contains(other) || VRAM.contains(other) => true,
        device => UARTS.iter().any(|uart| device.checked_sub(uart.base) == Some(FLAGS_OF_A_PORT)),
    });
    if !harmless {
        return Access::Untried;
    }
    match probe::read_u32(VirtAddr::new(address.raw() & !3)) {
        Err(fault) => Access::Refused(fault.status),
        // The kernel's own variables and registers move on.
        Ok(_) if matches!(kind, Kind::Data | Kind::Stack | Kind::IoRemap) => Access::Touched,
        Ok(word) => Access::Read(word),
    }
}

/// One line of a request: `r KIND ADDRESS` and what our walker, ATS1CPR, ATS1CPW and the access say.
impl fmt::Display for Testimony {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r {} {} ", self.kind.word(), self.address)?;
        match self.walker {
            None => f.write_str("- - - - -")?,
            Some(Entry { physical, size, attributes: None }) => {
                write!(f, "{physical} {} odd odd odd", word(size))?;
            }
            Some(Entry { physical, size, attributes: Some(attributes) }) => {
                let scope = match attributes.scope() {
                    Scope::Global => "global",
                    Scope::NonGlobal => "non-global",
                };
                // Rights and memory type, with a space between them; and a scope of their own that is said in full below.
                let global = Attributes::new(
                    attributes.memory(),
                    attributes.access(),
                    attributes.execute(),
                    Scope::Global,
                );
                write!(f, "{physical} {} {} {scope}", word(size), global.unwrap_or(attributes))?;
            }
        }
        for translated in [self.read, self.write] {
            match translated {
                Ok(physical) => write!(f, " {physical}")?,
                Err(TranslationFault::Refused { status, .. }) => write!(f, " {status:?}")?,
                Err(TranslationFault::Above4GiB { .. }) => f.write_str(" above-4-GiB")?,
            }
        }
        match self.access {
            Access::Read(word) => write!(f, " {word:#010x}"),
            Access::Touched => f.write_str(" touched"),
            Access::Refused(status) => write!(f, " {status:?}"),
            Access::Untried => f.write_str(" -"),
        }
    }
}

const fn word(size: PageSize) -> &'static str {
    match size {
        PageSize::Small => "small",
        PageSize::Large => "large",
        PageSize::Section => "section",
        PageSize::Supersection => "supersection",
    }
}
