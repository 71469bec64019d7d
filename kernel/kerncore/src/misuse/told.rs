//! Misuses in words: both parties, by device, size, address and caller.

use core::fmt;

use super::{Buffer, Family, Mapping, Misuse};
use crate::addr::VirtAddr;

impl Misuse {
    /// Says it, with callers by `name`.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn tell<N: fmt::Display>(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: impl Fn(VirtAddr) -> N,
    ) -> fmt::Result {
        let (mapped, call, what) = match self {
            Self::NoRoom { places } => {
                return write!(f, "more than {places} mappings: checking ends");
            }
            Self::Leak { mapped, count } => {
                write!(f, "{} goes and {count} of its mappings stay: ", mapped.device.name)?;
                return mapped.tell(f, &name, "mapped");
            }
            Self::SpaceEnded { mapped, count } => {
                write!(f, "{count} mappings in it end with it: {}: ", mapped.device.name)?;
                return mapped.tell(f, &name, "mapped");
            }
            Self::Freed { mapped, buffer } => {
                buffer.tell(f, &name)?;
                write!(f, ", which is mapped still: {}: ", mapped.device.name)?;
                return mapped.tell(f, &name, "mapped");
            }
            Self::FreedByAnother { buffer, owner } => {
                buffer.tell(f, &name)?;
                return write!(f, " for another device: {owner}");
            }
            Self::NeverMapped { call } => (None, call, "which was never mapped"),
            Self::OtherAddress { mapped, call } => (Some(mapped), call, "at another address"),
            Self::OtherSize { mapped, call } => (Some(mapped), call, "with another size"),
            Self::OtherFlow { mapped, call } => (Some(mapped), call, "with another direction"),
            Self::OtherFamily { mapped, call } => (Some(mapped), call, "by other functions"),
            Self::OtherDevice { mapped, call } => (Some(mapped), call, "for another device"),
            Self::Unchecked { mapped, call } => {
                (Some(mapped), call, "and nobody asked whether mapping it had failed")
            }
            Self::SharedLine { mapped, call } => (Some(mapped), call, "in a cache line of another"),
        };
        write!(f, "{}: ", call.device.name)?;
        call.tell(f, &name, "given")?;
        write!(f, ", {what}")?;
        match mapped {
            Some(mapped) => {
                f.write_str(": ")?;
                if mapped.device != call.device {
                    write!(f, "{}: ", mapped.device.name)?;
                }
                mapped.tell(f, &name, "mapped")
            }
            None => Ok(()),
        }
    }
}

impl Mapping {
    fn tell<N: fmt::Display>(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: impl Fn(VirtAddr) -> N,
        verb: &str,
    ) -> fmt::Result {
        let Self { family, dma, bytes, flow, caller, .. } = *self;
        let family = match family {
            Family::Single => "a buffer",
            Family::Page => "a page",
            Family::Scatter => "a scatter list's entry",
        };
        write!(f, "{bytes} bytes at {dma}, {family}, {flow}, {verb} by {}", name(caller))
    }
}

impl Buffer {
    fn tell<N: fmt::Display>(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: impl Fn(VirtAddr) -> N,
    ) -> fmt::Result {
        let Self { device, address, memory: (_, bytes), caller } = *self;
        let (device, caller) = (device.name, name(caller));
        write!(
            f,
            "{device}: frees {bytes} bytes at {address}, a coherent buffer, allocated by {caller}"
        )
    }
}

/// Without names, callers are addresses.
impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tell(f, |caller| caller)
    }
}
