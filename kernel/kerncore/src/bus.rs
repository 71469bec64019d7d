//! Ranges of physical addresses that the board has a name for.

use core::fmt;

use crate::addr::PhysAddr;

/// What lies at some physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusRange {
    /// What the board calls it.
    pub name: &'static str,
    /// The first byte.
    pub first: PhysAddr,
    /// The last byte.
    pub last: PhysAddr,
}

impl BusRange {
    /// Whether all bytes from `first` to `last` lie inside.
    pub const fn has_all(&self, first: PhysAddr, last: PhysAddr) -> bool {
        first.raw() >= self.first.raw() && last.raw() <= self.last.raw()
    }
}

/// The addresses, then the name.
impl fmt::Display for BusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{} {}", self.first, self.last, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_its_first_and_its_last_byte_and_none_beside() {
        let at = PhysAddr::new;
        let range = BusRange { name: "sram", first: at(0x4800_0000), last: at(0x49ff_ffff) };
        for (first, last, inside) in [
            (0x4800_0000, 0x49ff_ffff, true),
            (0x4800_0000, 0x4800_0000, true),
            (0x49ff_ffff, 0x49ff_ffff, true),
            (0x47ff_ffff, 0x4800_0000, false),
            (0x49ff_ffff, 0x4a00_0000, false),
            (0x47ff_ffff, 0x4a00_0000, false),
        ] {
            assert_eq!(range.has_all(at(first), at(last)), inside, "{first:#x}-{last:#x}");
        }
        assert_eq!(range.to_string(), "0x48000000-0x49ffffff sram");
    }
}
