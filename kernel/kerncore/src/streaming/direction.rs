//! Which way data flows: a type for who writes Rust, a number for who writes C.

use core::fmt;

/// Which way data flows between memory and a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The device reads and writes.
    Bidirectional = 0,
    /// The device reads.
    ToDevice = 1,
    /// The device writes.
    FromDevice = 2,
}

impl Flow {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bidirectional, Self::ToDevice, Self::FromDevice];

    /// The flow that C callers give this number; 3 is theirs for none at all.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Bidirectional),
            1 => Some(Self::ToDevice),
            2 => Some(Self::FromDevice),
            _ => None,
        }
    }

    /// Whether the device reads what the processor wrote.
    pub const fn device_reads(self) -> bool {
        matches!(self, Self::Bidirectional | Self::ToDevice)
    }

    /// Whether the device writes what the processor will read.
    pub const fn device_writes(self) -> bool {
        matches!(self, Self::Bidirectional | Self::FromDevice)
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bidirectional => "both ways",
            Self::ToDevice => "to the device",
            Self::FromDevice => "from the device",
        })
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A [`Flow`] as a type: an owner of a mapping has it in its own, so that it cannot be ended or synchronised with another.
pub trait Direction: sealed::Sealed {
    /// Which it is.
    const FLOW: Flow;
}

/// A direction in which the device reads what the processor wrote: whoever has the bytes for a while may write them. What is written in
/// a buffer that the device only writes reaches nobody: not the device, and where a copy was made (S106) not the buffer's owner either,
/// who gets what is in the copy.
pub trait Outgoing: Direction {}

/// [`Flow::ToDevice`].
#[derive(Clone, Copy, Debug)]
pub enum ToDevice {}
/// [`Flow::FromDevice`].
#[derive(Clone, Copy, Debug)]
pub enum FromDevice {}
/// [`Flow::Bidirectional`].
#[derive(Clone, Copy, Debug)]
pub enum Bidirectional {}

impl sealed::Sealed for ToDevice {}
impl sealed::Sealed for FromDevice {}
impl sealed::Sealed for Bidirectional {}

impl Direction for ToDevice {
    const FLOW: Flow = Flow::ToDevice;
}
impl Direction for FromDevice {
    const FLOW: Flow = Flow::FromDevice;
}
impl Direction for Bidirectional {
    const FLOW: Flow = Flow::Bidirectional;
}

impl Outgoing for ToDevice {}
impl Outgoing for Bidirectional {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_c_and_no_other_number_is_a_flow_s105() {
        for flow in Flow::ALL {
            assert_eq!(Flow::from_number(flow as u32), Some(flow));
        }
        assert_eq!([0, 1, 2].map(Flow::from_number), Flow::ALL.map(Some));
        assert_eq!([3, 4, u32::MAX].map(Flow::from_number), [None; 3]);
    }

    #[test]
    fn who_reads_and_who_writes_follows_from_the_flow() {
        let who = |flow: Flow| (flow.device_reads(), flow.device_writes());
        assert_eq!(who(ToDevice::FLOW), (true, false));
        assert_eq!(who(FromDevice::FLOW), (false, true));
        assert_eq!(who(Bidirectional::FLOW), (true, true));
        assert_eq!(
            Flow::ALL.map(|flow| flow.to_string()).join(", "),
            "both ways, to the device, from the device"
        );
    }
}
