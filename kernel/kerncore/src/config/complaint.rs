//! One line for each parameter that could not be used.

use core::fmt;

use super::NumberError;

/// A parameter that was not used, or not as given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complaint<'c> {
    /// The word on the command line: `name=value`, or a name alone.
    pub word: &'c str,
    /// What is wrong with it.
    pub why: Why,
    /// What is done instead.
    pub instead: Instead,
}

/// What is wrong with a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is no parameter of this name.
    Unknown,
    /// It has no value and needs one.
    NoValue,
    /// It has a value and is to have none.
    NotAValue,
    /// The value is none of these.
    NotOneOf(&'static str),
    /// The value is no size.
    NotASize(NumberError),
    /// The value is no number.
    NotANumber(NumberError),
    /// The size is smaller than makes sense.
    TooSmall {
        /// The least, in bytes.
        least: u32,
    },
    /// The size is larger than can be.
    TooLarge {
        /// The most, in bytes.
        most: u32,
        /// What sets that.
        bound: Bound,
    },
    /// The number is none of those that are allowed.
    OutOfRange {
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// The size is no multiple of the unit; the rest is unusable (S69).
    NotAMultiple {
        /// The unit, in bytes.
        unit: u32,
    },
    /// Low memory ends at a multiple of the unit; the rest is high memory (S117).
    HighFrom {
        /// The unit, in bytes.
        unit: u32,
    },
}

/// What sets how large something can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The addresses that the kernel has for it.
    AddressMap,
    /// How much RAM the board can have.
    Board,
    /// It is one block of adjacent frames, and no block is larger.
    LargestBlock,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddressMap => "the address map allows",
            Self::Board => "the board can have",
            Self::LargestBlock => "the largest block of adjacent frames has",
        })
    }
}

/// What is done instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// Nothing: the word is passed over.
    Ignored,
    /// A size, in bytes.
    Bytes(u32),
    /// A number.
    Number(u64),
    /// What the kernel finds out or chooses by itself.
    Default,
}

impl fmt::Display for Complaint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, {}", self.word, self.why, self.instead)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unknown => f.write_str("unknown parameter"),
            Self::NoValue => f.write_str("a value is missing"),
            Self::NotAValue => f.write_str("takes no value"),
            Self::NotOneOf(values) => write!(f, "not one of: {values}"),
            Self::NotASize(NumberError::Overflow) | Self::NotANumber(NumberError::Overflow) => {
                f.write_str("does not fit 64 bits")
            }
            Self::NotASize(_) => f.write_str("not a size (digits, then at most one of K, M, G)"),
            Self::NotANumber(_) => f.write_str("not a number"),
            Self::TooSmall { least } => write!(f, "less than {}", Bytes(least)),
            Self::TooLarge { most, bound } => write!(f, "more than {bound} ({})", Bytes(most)),
            Self::OutOfRange { least, most } => write!(f, "not between {least} and {most}"),
            Self::NotAMultiple { unit } => {
                write!(f, "not a multiple of {}, the rest is unusable", Bytes(unit))
            }
            Self::HighFrom { unit } => {
                write!(f, "not a multiple of {}, the rest is high memory", Bytes(unit))
            }
        }
    }
}

impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ignored => f.write_str("ignored"),
            Self::Bytes(bytes) => write!(f, "using {}", Bytes(bytes)),
            Self::Number(number) => write!(f, "using {number}"),
            Self::Default => f.write_str("using the default"),
        }
    }
}

/// Bytes in the largest unit that divides them.
struct Bytes(u32);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0 bytes"),
            bytes if bytes.is_multiple_of(1 << 30) => write!(f, "{} GiB", bytes >> 30),
            bytes if bytes.is_multiple_of(1 << 20) => write!(f, "{} MiB", bytes >> 20),
            bytes if bytes.is_multiple_of(1 << 10) => write!(f, "{} KiB", bytes >> 10),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}
