//! `pgprot_t`: how a mapping may be used.

use core::ffi::c_uint;
use core::fmt;

use kerncore::attributes::Attributes;

/// How a mapping may be used: the `pgprot_t` of callers, who may pass anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct PageProtection(pub c_uint);

impl PageProtection {
    /// `PAGE_KERNEL`: read and written, never executed.
    pub const KERNEL: Self = Self(0);
    /// `PAGE_KERNEL_RO`: read.
    pub const KERNEL_READ_ONLY: Self = Self(1);

    /// Registers: each access as written.
    pub const NONCACHED: Self = Self(2);
    /// Memory that no cache holds.
    pub const WRITE_COMBINE: Self = Self(3);

    /// What goes into the tables, or `None` for a number that means nothing.
    pub(crate) const fn attributes(self) -> Option<Attributes> {
        match self {
            Self::KERNEL => Some(Attributes::KERNEL_DATA),
            Self::KERNEL_READ_ONLY => Some(Attributes::KERNEL_RODATA),
            Self::NONCACHED => Some(Attributes::DEVICE),
            Self::WRITE_COMBINE => Some(Attributes::WRITE_COMBINE),
            _ => None,
        }
    }
}

/// A protection that a mapping of this kind cannot have, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoProtection(pub(crate) PageProtection);

impl fmt::Display for NoProtection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(PageProtection(number)) = self;
        write!(f, "no protection is {number:#x}")
    }
}
