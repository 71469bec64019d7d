//! Names for addresses, from the image itself.
//!
//! `scripts/ksyms` fills the section `.ksyms` after linking. Little endian:
//!
//! ```text
//!   0   magic "KSYM" (0x4d59_534b)
//!   4   count
//!   8   bytes of names
//!   12  count × { address, size, offset of the name }, sorted by address
//!       names, UTF-8; each ends where the next entry's begins, the last at "bytes of names"
//! ```
//!
//! The table is looked into while a fault is reported, so nothing in it is believed: every offset is checked, and what
//! does not fit is no symbol. An image that was never filled has none.

use core::fmt;

use kerncore::addr::VirtAddr;

const MAGIC: u32 = 0x4d59_534b;
const HEADER: usize = 12;
const ENTRY: usize = 12;

/// A function, how far into it, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Its name.
    pub name: &'a str,
    /// Bytes from its start.
    pub offset: u32,
    /// Bytes that it has.
    pub size: u32,
}

/// `name+0xoffset/0xsize`, as Linux has it.
impl fmt::Display for Symbol<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}/{:#x}", self.name, self.offset, self.size)
    }
}

/// A symbol table in memory.
#[derive(Clone, Copy, Debug)]
pub struct SymbolTable<'a> {
    entries: &'a [[u8; ENTRY]],
    names: &'a [u8],
}

/// The little-endian word at `offset`.
fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let word = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*word))
}

fn size(raw: u32) -> Option<usize> {
    usize::try_from(raw).ok()
}

impl<'a> SymbolTable<'a> {
    /// The table in `section`; `None` if there is no magic number or it does not fit.
    pub fn new(section: &'a [u8]) -> Option<Self> {
        if word(section, 0)? != MAGIC {
            return None;
        }
        let entry_bytes = size(word(section, 4)?)?.checked_mul(ENTRY)?;
        let (entries, names) = section.get(HEADER..)?.split_at_checked(entry_bytes)?;
        let (entries, _) = entries.as_chunks();
        Some(Self { entries, names: names.get(..size(word(section, 8)?)?)? })
    }

    /// The symbol that `address` lies in.
    pub fn lookup(&self, address: VirtAddr) -> Option<Symbol<'a>> {
        let start = |entry: &[u8; ENTRY]| word(entry, 0).unwrap_or(u32::MAX);
        let after = self.entries.partition_point(|entry| start(entry) <= address.raw());
        let index = after.checked_sub(1)?;
        let entry = self.entries.get(index)?;
        let offset = address.raw().checked_sub(start(entry))?;
        let length = word(entry, 4)?;
        if offset >= length {
            return None;
        }
        let name_start = size(word(entry, 8)?)?;
        let name_end = match self.entries.get(after) {
            Some(next) => size(word(next, 8)?)?,
            None => self.names.len(),
        };
        let name = self.names.get(name_start..name_end)?;
        Some(Symbol { name: core::str::from_utf8(name).ok()?, offset, size: length })
    }
}

/// The image's own symbol that `address` lies in. Any context; never faults.
#[cfg(target_arch = "arm")]
pub fn lookup(address: VirtAddr) -> Option<Symbol<'static>> {
    unsafe extern "C" {
        static __ksyms_start: u8;
        static __ksyms_end: u8;
    }
    let start = &raw const __ksyms_start;
    let bytes = (&raw const __ksyms_end).addr() - start.addr();
    // SAFETY: the linker script puts both symbols around a section of read-only, mapped memory that lives for ever.
    let section = unsafe { core::slice::from_raw_parts(start, bytes) };
    SymbolTable::new(section)?.lookup(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(symbols: &[(u32, u32, &str)]) -> Vec<u8> {
        let names: String = symbols.iter().map(|symbol| symbol.2).collect();
        let mut bytes = Vec::new();
        let word = |length: usize| u32::try_from(length).expect("a short test");
        let mut push = |value: u32| bytes.extend(value.to_le_bytes());
        push(MAGIC);
        push(word(symbols.len()));
        push(word(names.len()));
        let mut offset = 0;
        for (address, size, name) in symbols {
            push(*address);
            push(*size);
            push(offset);
            offset += word(name.len());
        }
        bytes.extend(names.as_bytes());
        bytes.extend([0; 100]); // what is reserved and not used
        bytes
    }

    fn name_at(bytes: &[u8], address: u32) -> Option<(&str, u32)> {
        let symbol = SymbolTable::new(bytes)?.lookup(VirtAddr::new(address))?;
        Some((symbol.name, symbol.offset))
    }

    #[test]
    fn a_symbol_knows_its_size_wherever_in_it_the_address_lies() {
        let bytes = section(&[(0x1000, 0x10, "first"), (0x1010, 4, "second")]);
        let table = SymbolTable::new(&bytes).expect("a table");
        let size = |address| table.lookup(VirtAddr::new(address)).map(|symbol| symbol.size);
        assert_eq!([0x1000, 0x100f, 0x1010].map(size), [Some(0x10), Some(0x10), Some(4)]);
    }

    #[test]
    fn an_address_belongs_to_the_symbol_that_covers_it_and_to_no_other() {
        let bytes =
            section(&[(0x1000, 0x10, "first"), (0x1010, 4, "second"), (0x2000, 8, "lästig")]);
        assert_eq!(name_at(&bytes, 0xfff), None);
        assert_eq!(name_at(&bytes, 0x1000), Some(("first", 0)));
        assert_eq!(name_at(&bytes, 0x100f), Some(("first", 15)));
        assert_eq!(name_at(&bytes, 0x1010), Some(("second", 0)));
        assert_eq!(name_at(&bytes, 0x1014), None);
        assert_eq!(name_at(&bytes, 0x2007), Some(("lästig", 7)));
        assert_eq!(name_at(&bytes, 0x2008), None);
        assert_eq!(name_at(&bytes, u32::MAX), None);
    }

    #[test]
    fn a_section_that_was_never_filled_has_no_symbols() {
        assert!(SymbolTable::new(&[0; 384]).is_none());
        assert!(SymbolTable::new(&[]).is_none());
        assert_eq!(name_at(&section(&[]), 0x1000), None);
    }

    /// A table cut short or overwritten anywhere gives wrong names or none, and never a crash.
    #[test]
    fn no_damage_leads_outside_the_section() {
        let bytes = section(&[(0x1000, 0x10, "first"), (0x1010, 4, "second")]);
        for length in 0..bytes.len() {
            let _ = name_at(&bytes[..length], 0x1004);
        }
        for position in 0..48 {
            for value in [0, 0x7f, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[position] = value;
                let _ = name_at(&damaged, 0x1004);
                let _ = name_at(&damaged, 0x1012);
            }
        }
        let mut backwards = bytes.clone();
        backwards[HEADER + 8] = 9; // the first name begins behind the second
        assert_eq!(name_at(&backwards, 0x1000), None);
    }
}
