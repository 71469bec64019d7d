//! An image as it lies in memory: what a loader copies that knows no ELF.

use std::fmt;

use object::Endianness;
use object::elf::{FileHeader32, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

/// The most that an image may have, so that a wrong address does not become gigabytes of zeros.
const MOST: u64 = 64 << 20;

/// Why an image has no flat form.
#[derive(Debug)]
pub(crate) enum FlatError {
    /// It is no ELF file of 32 bits, or damaged.
    Unreadable(object::Error),
    /// A segment's bytes are not in the file.
    Truncated,
    /// It has nothing to be loaded.
    Empty,
    /// It is entered elsewhere than at its first byte.
    Entry {
        /// Where it is entered.
        entry: u64,
        /// Its first byte.
        first: u64,
    },
    /// It reaches too far.
    TooLarge {
        /// Its length.
        bytes: u64,
    },
}

impl fmt::Display for FlatError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(formatter, "no linked image: {error}"),
            Self::Truncated => formatter.write_str("a segment ends behind the end of the file"),
            Self::Empty => formatter.write_str("the image has nothing to be loaded"),
            Self::Entry { entry, first } => write!(
                formatter,
                "a raw image is entered at its first byte, {first:#x}, and this one at {entry:#x}"
            ),
            Self::TooLarge { bytes } => write!(formatter, "a raw image of {bytes} bytes"),
        }
    }
}

/// The bytes of the image's segments at their physical distances, with zeros between. What is zeroed when the image starts is
/// no part of it.
pub(crate) fn flatten(image: &[u8]) -> Result<Vec<u8>, FlatError> {
    let header = FileHeader32::<Endianness>::parse(image).map_err(FlatError::Unreadable)?;
    let endian = header.endian().map_err(FlatError::Unreadable)?;
    let segments = header.program_headers(endian, image).map_err(FlatError::Unreadable)?;
    let mut parts: Vec<(u64, &[u8])> = Vec::new();
    for segment in segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD) {
        let data = segment.data(endian, image).map_err(|()| FlatError::Truncated)?;
        if !data.is_empty() {
            parts.push((segment.p_paddr(endian).into(), data));
        }
    }
    let first = parts.iter().map(|part| part.0).min().ok_or(FlatError::Empty)?;
    let entry = u64::from(header.e_entry(endian));
    if entry != first {
        return Err(FlatError::Entry { entry, first });
    }
    let mut flat = Vec::new();
    for (address, data) in parts {
        let bytes = address - first + data.len() as u64;
        if bytes > MOST {
            return Err(FlatError::TooLarge { bytes });
        }
        let (begin, end) = (usize::try_from(address - first), usize::try_from(bytes));
        let (Ok(begin), Ok(end)) = (begin, end) else { return Err(FlatError::TooLarge { bytes }) };
        if flat.len() < end {
            flat.resize(end, 0);
        }
        flat[begin..end].copy_from_slice(data);
    }
    Ok(flat)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file of 32 bits with these segments: physical address, bytes in the file.
    fn image(entry: u32, segments: &[(u32, &[u8])]) -> Vec<u8> {
        let count = u32::try_from(segments.len()).expect("few");
        let mut file = b"\x7fELF\x01\x01\x01".to_vec();
        file.resize(16, 0);
        let halves = |file: &mut Vec<u8>, values: &[u16]| {
            file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        };
        let words = |file: &mut Vec<u8>, values: &[u32]| {
            file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        };
        halves(&mut file, &[2, 40]);
        words(&mut file, &[1, entry, 52, 0, 0]);
        halves(&mut file, &[52, 32, segments.len().try_into().expect("few"), 40, 0, 0]);
        let mut offset = 52 + 32 * count;
        for &(physical, data) in segments {
            let size = u32::try_from(data.len()).expect("short");
            words(&mut file, &[1, offset, physical + 0x2000_0000, physical, size, size + 64, 7, 4]);
            offset += size;
        }
        for (_, data) in segments {
            file.extend_from_slice(data);
        }
        file
    }

    #[test]
    fn segments_lie_at_their_physical_distances_and_zeros_between() {
        let image = image(0x1000, &[(0x1000, b"text"), (0x1010, b""), (0x1008, b"data")]);
        assert_eq!(flatten(&image).expect("an image"), b"text\0\0\0\0data");
    }

    #[test]
    fn an_image_that_is_entered_elsewhere_is_refused() {
        let error = flatten(&image(0x1004, &[(0x1000, b"text")])).expect_err("entered elsewhere");
        assert!(error.to_string().contains("at 0x1004"), "{error}");
    }

    #[test]
    fn empty_far_and_cut_images_are_refused() {
        assert!(matches!(flatten(&image(0, &[])), Err(FlatError::Empty)));
        let far = image(0, &[(0, b"a"), (0x4000_0000, b"b")]);
        assert!(matches!(flatten(&far), Err(FlatError::TooLarge { .. })));
        let whole = image(0, &[(0, b"text")]);
        assert!(matches!(flatten(&whole[..whole.len() - 1]), Err(FlatError::Truncated)));
        assert!(matches!(flatten(b"no"), Err(FlatError::Unreadable(_))));
    }
}
