//! Numbers and sizes as Linux's command line writes them.

use core::fmt;

/// Why a text is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberError {
    /// There is no text.
    Empty,
    /// There are no digits, or something follows that does not belong.
    Malformed,
    /// The number does not fit 64 bits.
    Overflow,
}

impl fmt::Display for NumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "no value",
            Self::Malformed => "malformed",
            Self::Overflow => "too large for any number here",
        })
    }
}

impl core::error::Error for NumberError {}

/// A size in bytes: a [`number`], then at most one of `K M G T P E` in either case, for the powers of 1,024.
///
/// # Errors
/// [`NumberError`]. Linux leaves what follows the suffix to its caller, most of whom ignore it; here it is an error.
pub fn memparse(text: &str) -> Result<u64, NumberError> {
    let (digits, suffix) = match text.char_indices().next_back() {
        Some((at, last)) => match shift_of(last) {
            // In a hexadecimal number the last E is a digit.
            Some(_) if last.eq_ignore_ascii_case(&'e') && is_hexadecimal(text) => (text, 0),
            Some(shift) if at != 0 => (&text[..at], shift),
            _ => (text, 0),
        },
        _ => (text, 0),
    };
    number(digits)?.checked_mul(1 << suffix).ok_or(NumberError::Overflow)
}

/// A whole number: decimal, hexadecimal behind `0x`, or octal behind `0`.
///
/// # Errors
/// [`NumberError`].
pub fn number(text: &str) -> Result<u64, NumberError> {
    if text.is_empty() {
        return Err(NumberError::Empty);
    }
    let (digits, radix) = if is_hexadecimal(text) {
        (&text[2..], 16)
    } else if text.len() > 1 && text.starts_with('0') {
        (&text[1..], 8)
    } else {
        (text, 10)
    };
    if digits.is_empty() {
        return Err(NumberError::Malformed);
    }
    // All digits are looked at before any overflow is told: "999…9x" is malformed.
    let values = || digits.chars().map(|digit| digit.to_digit(radix));
    if values().any(|digit| digit.is_none()) {
        return Err(NumberError::Malformed);
    }
    values()
        .flatten()
        .try_fold(0_u64, |sum, digit| sum.checked_mul(radix.into())?.checked_add(digit.into()))
        .ok_or(NumberError::Overflow)
}

fn is_hexadecimal(text: &str) -> bool {
    text.starts_with("0x") || text.starts_with("0X")
}

const fn shift_of(suffix: char) -> Option<u32> {
    Some(match suffix.to_ascii_uppercase() {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        'T' => 40,
        'P' => 50,
        'E' => 60,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s68_sizes_are_decimal_hexadecimal_or_octal_with_one_suffix() {
        for (text, bytes) in [
            ("0", 0),
            ("00", 0),
            ("4096", 4096),
            ("256K", 256 << 10),
            ("256k", 256 << 10),
            ("4M", 4 << 20),
            ("1g", 1 << 30),
            ("2T", 2 << 40),
            ("3p", 3 << 50),
            ("1E", 1 << 60),
            ("0x1000", 4096),
            ("0X10M", 16 << 20),
            ("0xaBc", 0xabc),
            ("0x1e", 0x1e),
            ("0x1E", 0x1e),
            ("0xeK", 14 << 10),
            ("010", 8),
            ("0777K", 0o777 << 10),
            ("18446744073709551615", u64::MAX),
            ("0xffffffffffffffff", u64::MAX),
            ("15E", 15 << 60),
        ] {
            assert_eq!(memparse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_malformed_wherever_the_junk_stands() {
        for text in [
            "K",
            "M",
            "x",
            "4Mx",
            "4MM",
            "4KM",
            "-1",
            "+1",
            " 1",
            "1 ",
            "0x",
            "0xK",
            "0xg",
            "08",
            "019",
            "1_000",
            "1.5M",
            "4Mi",
            "4MB",
            "ä",
            "4ä",
            "１",
            "99999999999999999999999x",
        ] {
            assert_eq!(memparse(text), Err(NumberError::Malformed), "{text}");
        }
        assert_eq!(memparse(""), Err(NumberError::Empty));
    }

    #[test]
    fn each_error_says_what_is_wrong() {
        let said = [NumberError::Empty, NumberError::Malformed, NumberError::Overflow]
            .map(|error| error.to_string());
        assert_eq!(said, ["no value", "malformed", "too large for any number here"]);
    }

    #[test]
    fn what_passes_64_bits_is_an_overflow_and_not_a_small_size() {
        for text in [
            "18446744073709551616",
            "0x10000000000000000",
            "02000000000000000000000",
            "16E",
            "17179869184G",
            "99999999999999999999999",
        ] {
            assert_eq!(memparse(text), Err(NumberError::Overflow), "{text}");
        }
    }
}
