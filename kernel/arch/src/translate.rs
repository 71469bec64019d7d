//! The processor's own answer to "where does this address lead?" (ATS1CPR, ATS1CPW; ARM ARM B3.12, B4.1.112).
//!
//! It walks the live tables with the permissions of privileged code. Whether it also looks into the TLB is the
//! implementation's choice; the emulated board's walks the tables, so that here it is a witness for what they say,
//! not for what a stale TLB entry still does.

use core::fmt;

use kerncore::addr::{PhysAddr, SUPERSECTION_SIZE, VirtAddr};

use crate::exception::FaultStatus;

/// What the access to be translated would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A privileged load.
    Read,
    /// A privileged store.
    Write,
}

/// Why there is no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TranslationFault {
    /// The access would fault.
    Refused {
        /// The address asked for.
        address: VirtAddr,
        /// The fault that it would take.
        status: FaultStatus,
    },
    /// A supersection leads to memory above 4 GiB, for which this kernel has no type.
    Above4GiB {
        /// The address asked for.
        address: VirtAddr,
        /// PAR as it was.
        par: u32,
    },
}

impl fmt::Display for TranslationFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { address, status } => write!(f, "{address}: {status}"),
            Self::Above4GiB { address, par } => {
                write!(f, "{address}: leads above 4 GiB (PAR {par:#010x})")
            }
        }
    }
}

/// Decodes PAR after the translation of `address`.
///
/// PAR.F, bit 0, says that there is none, and bits 5 to 1 are then FS\[4:0\]. PAR.SS, bit 1, says that it is a
/// supersection: then only bits 31 to 24 belong to the address, and bits 23 to 16 are PA\[39:32\].
#[cfg_attr(
    not(any(test, target_arch = "arm")),
    expect(dead_code, reason = "only the processor sets PAR")
)]
const fn decode(address: VirtAddr, par: u32) -> Result<PhysAddr, TranslationFault> {
    if par & 1 != 0 {
        let status = FaultStatus::from_code((par >> 1 & 0x1f) as u8);
        return Err(TranslationFault::Refused { address, status });
    }
    if par & 2 == 0 {
        return Ok(PhysAddr::new(par & 0xffff_f000 | address.page_offset()));
    }
    if par & 0x00ff_0000 != 0 {
        return Err(TranslationFault::Above4GiB { address, par });
    }
    Ok(PhysAddr::new(par & 0xff00_0000 | address.raw() & (SUPERSECTION_SIZE - 1)))
}

/// Translates `address` as a privileged access in `direction` would be. Any context.
///
/// # Errors
/// The fault that the access would take.
#[cfg(target_arch = "arm")]
pub fn translate(address: VirtAddr, direction: Direction) -> Result<PhysAddr, TranslationFault> {
    use crate::cp15::{self, Ats1cpr, Ats1cpw, Par};

    // A handler that translates something would leave its own answer in PAR.
    let par = crate::irq::masked(|| {
        match direction {
            // SAFETY: a translation changes PAR and nothing else.
            Direction::Read => unsafe { cp15::issue::<Ats1cpr>(address.raw()) },
            // SAFETY: as above.
            Direction::Write => unsafe { cp15::issue::<Ats1cpw>(address.raw()) },
        }
        crate::barrier::isb();
        Par::read().0
    });
    decode(address, par)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exception::Level;

    const ADDRESS: VirtAddr = VirtAddr::new(0xc012_3456);

    #[test]
    fn a_page_keeps_the_offset_and_drops_the_attributes() {
        assert_eq!(decode(ADDRESS, 0x6abc_d4c8), Ok(PhysAddr::new(0x6abc_d456)));
    }

    #[test]
    fn a_supersection_takes_sixteen_mib_of_the_virtual_address() {
        assert_eq!(decode(ADDRESS, 0x6100_0002), Ok(PhysAddr::new(0x6112_3456)));
        assert_eq!(
            decode(ADDRESS, 0x6101_0002),
            Err(TranslationFault::Above4GiB { address: ADDRESS, par: 0x6101_0002 })
        );
    }

    #[test]
    fn faults_carry_the_status_that_the_access_would_have() {
        for (par, status) in [
            (0x0b, FaultStatus::Translation(Level::First)),
            (0x0f, FaultStatus::Translation(Level::Second)),
            (0x1f, FaultStatus::Permission(Level::Second)),
        ] {
            assert_eq!(
                decode(ADDRESS, par),
                Err(TranslationFault::Refused { address: ADDRESS, status })
            );
        }
    }
}
