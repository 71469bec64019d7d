//! The table as bytes.
//!
//! ```text
//!  0  u32  0x4d59_534b, "KSYM"          all little endian
//!  4  u32  count
//!  8  u32  bytes of names
//! 12  count × { u32 address, u32 size, u32 offset of the name }, by ascending address
//!     names, UTF-8, one after the other; each ends where the next begins
//! ```
//!
//! The reader looks an address up by bisection, in a section that it may only read, and possibly in the middle of a
//! fault: so there is nothing to unpack, and nothing to allocate.

/// The first word of a table.
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"KSYM");

/// One function of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    /// Where it begins, as linked.
    pub(crate) address: u32,
    /// Its length in bytes.
    pub(crate) size: u32,
    /// Its name as a reader wants it.
    pub(crate) name: String,
}

/// The bytes for `symbols`, which are in ascending order of address.
pub(crate) fn encode(symbols: &[Symbol]) -> Vec<u8> {
    debug_assert!(symbols.is_sorted_by_key(|symbol| symbol.address));
    let names: String = symbols.iter().map(|symbol| symbol.name.as_str()).collect();
    let mut bytes = Vec::new();
    let mut word = |value: u32| bytes.extend_from_slice(&value.to_le_bytes());
    word(MAGIC);
    word(length(symbols.len()));
    word(length(names.len()));
    let mut offset = 0;
    for symbol in symbols {
        word(symbol.address);
        word(symbol.size);
        word(offset);
        offset += length(symbol.name.len());
    }
    bytes.extend_from_slice(names.as_bytes());
    bytes
}

/// A length within an image whose addresses have 32 bits.
fn length(value: usize) -> u32 {
    u32::try_from(value).expect("an image's symbols are fewer than its addresses")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Reads a table as the kernel does, with no help from the encoder.
    pub(crate) fn decode(bytes: &[u8]) -> Vec<Symbol> {
        let word = |at: usize| {
            u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes are a word"))
        };
        assert_eq!(word(0), 0x4d59_534b, "the magic number");
        let (count, names_len) = (word(4) as usize, word(8) as usize);
        let names = &bytes[12 + 12 * count..][..names_len];
        let entry = |index: usize| 12 + 12 * index;
        (0..count)
            .map(|index| {
                let begin = word(entry(index) + 8) as usize;
                let end = if index + 1 == count {
                    names_len
                } else {
                    word(entry(index + 1) + 8) as usize
                };
                let name = String::from_utf8(names[begin..end].to_vec()).expect("names are UTF-8");
                Symbol { address: word(entry(index)), size: word(entry(index) + 4), name }
            })
            .collect()
    }

    fn symbol(address: u32, size: u32, name: &str) -> Symbol {
        Symbol { address, size, name: name.into() }
    }

    #[test]
    fn an_empty_table_is_a_header() {
        assert_eq!(encode(&[]), b"KSYM\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn the_bytes_are_as_the_head_of_this_file_draws_them() {
        let bytes = encode(&[symbol(0x8001_0000, 4, "ab"), symbol(0x8001_0004, 8, "c")]);
        let words: [u32; 9] = [MAGIC, 2, 3, 0x8001_0000, 4, 0, 0x8001_0004, 8, 2];
        let mut expected: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        expected.extend_from_slice(b"abc");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_was_written_is_read_back() {
        let symbols = [
            symbol(0, 1, "first"),
            symbol(0x8001_0000, 0x40, "<mm::VmArea as core::ops::Drop>::drop"),
            symbol(0xffff_fff0, 0x10, "größte"),
        ];
        assert_eq!(decode(&encode(&symbols)), symbols);
    }
}
