//! What the table says of an image, and where in the image's file it goes.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind};

use crate::table::{Symbol, encode};

/// The section that the linker script reserves.
const SECTION: &str = ".ksyms";

/// Why an image was not filled.
#[derive(Debug)]
pub(crate) enum FillError {
    /// It is no object file.
    Unreadable(object::Error),
    /// It has no section `.ksyms`, or one without bytes in the file.
    NoSection,
    /// The table is longer than the section, in bytes.
    TooSmall {
        /// The table's length.
        wanted: usize,
        /// The section's length.
        had: usize,
    },
}

impl fmt::Display for FillError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(formatter, "no linked image: {error}"),
            Self::NoSection => write!(formatter, "no section {SECTION} with bytes in the file"),
            Self::TooSmall { wanted, had } => write!(
                formatter,
                "the symbol table wants {wanted} bytes, and the linker script reserves {had} in {SECTION}"
            ),
        }
    }
}

/// Writes the table of the image's functions into its section `.ksyms`.
pub(crate) fn fill(image: &mut [u8]) -> Result<(), FillError> {
    let file = object::File::parse(&*image).map_err(FillError::Unreadable)?;
    let place = section_in_file(&file).ok_or(FillError::NoSection)?;
    let table = encode(&functions(&file));
    if table.len() > place.len() {
        return Err(FillError::TooSmall { wanted: table.len(), had: place.len() });
    }
    let place = image.get_mut(place).ok_or(FillError::NoSection)?;
    let (used, unused) = place.split_at_mut(table.len());
    used.copy_from_slice(&table);
    unused.fill(0);
    Ok(())
}

/// The bytes of the file that hold the section.
fn section_in_file(file: &object::File<'_>) -> Option<Range<usize>> {
    let (offset, size) = file.section_by_name(SECTION)?.file_range()?;
    let begin = usize::try_from(offset).ok()?;
    Some(begin..begin.checked_add(usize::try_from(size).ok()?)?)
}

/// Every function once, by ascending address.
fn functions(file: &object::File<'_>) -> Vec<Symbol> {
    let mut table: Vec<Symbol> = Vec::new();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let candidates = best_names(file, &section);
        let end = section.address() + section.size();
        let mut next = candidates.keys().skip(1).copied().chain([end]);
        let mut named_until = 0;
        for (&address, best) in &candidates {
            let limit = next.next().unwrap_or(end);
            // A label within a function would hide the function's name from all that follows it.
            if !best.is_function && address < named_until {
                continue;
            }
            // Assembly often states no size: then it reaches to its neighbour.
            let size = if best.size == 0 { limit - address } else { best.size };
            named_until = address + size;
            if let (Ok(address), Ok(size @ 1..)) = (u32::try_from(address), u32::try_from(size)) {
                table.push(Symbol { address, size, name: readable(best.name) });
            }
        }
    }
    table.sort_by_key(|symbol| symbol.address);
    table
}

/// What one address is called.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate<'a> {
    // In the order of merit: a function before a label, then what can be seen from outside before what cannot (so that
    // `vmalloc` is not reported as its twin in Rust), then any fixed choice.
    is_function: bool,
    is_global: bool,
    name: &'a str,
    size: u64,
}

/// The best symbol of every address in `section` that has one.
fn best_names<'a>(
    file: &object::File<'a>,
    section: &object::Section<'a, '_>,
) -> BTreeMap<u64, Candidate<'a>> {
    let mut best = BTreeMap::new();
    for symbol in file.symbols() {
        let is_function = symbol.kind() == SymbolKind::Text;
        let is_label = matches!(symbol.kind(), SymbolKind::Label | SymbolKind::Unknown);
        let name = symbol.name().unwrap_or("");
        // `$a`, `$d` and their like mark where instructions and data begin.
        if symbol.section_index() != Some(section.index())
            || !(is_function || is_label)
            || name.is_empty()
            || name.starts_with('$')
        {
            continue;
        }
        // Bit 0 of a function's address says Thumb and is no part of it.
        let address = if is_function { symbol.address() & !1 } else { symbol.address() };
        let candidate =
            Candidate { is_function, is_global: symbol.is_global(), name, size: symbol.size() };
        match best.get(&address) {
            Some(known) if *known >= candidate => {}
            _ => drop(best.insert(address, candidate)),
        }
    }
    best
}

/// The name without its mangling and its hash.
fn readable(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

#[cfg(test)]
mod tests {
    use object::write::{Object, StandardSection, Symbol as NewSymbol, SymbolSection};
    use object::{
        Architecture, BinaryFormat, Endianness, SymbolFlags, SymbolKind, SymbolScope,
        write::SectionId,
    };

    use super::*;
    use crate::table::tests::decode;

    /// An image with 64 bytes of text at zero and `reserved` bytes for the table.
    struct Linked {
        object: Object<'static>,
        text: SectionId,
    }

    impl Linked {
        fn new(reserved: usize) -> Self {
            let mut object = Object::new(BinaryFormat::Elf, Architecture::Arm, Endianness::Little);
            let text = object.section_id(StandardSection::Text);
            object.append_section_data(text, &[0; 64], 4);
            if reserved > 0 {
                let ksyms = object.add_section(
                    vec![],
                    SECTION.as_bytes().to_vec(),
                    SectionKind::ReadOnlyData,
                );
                object.append_section_data(ksyms, &vec![0xee; reserved], 4);
            }
            Self { object, text }
        }

        fn symbol(mut self, name: &str, value: u64, size: u64, kind: SymbolKind) -> Self {
            self.object.add_symbol(NewSymbol {
                name: name.as_bytes().to_vec(),
                value,
                size,
                kind,
                scope: SymbolScope::Linkage,
                weak: false,
                section: SymbolSection::Section(self.text),
                flags: SymbolFlags::None,
            });
            self
        }

        fn function(self, name: &str, value: u64, size: u64) -> Self {
            self.symbol(name, value, size, SymbolKind::Text)
        }

        fn label(self, name: &str, value: u64) -> Self {
            self.symbol(name, value, 0, SymbolKind::Label)
        }

        fn bytes(self) -> Vec<u8> {
            self.object.write().expect("the test's image is well formed")
        }

        /// Address, size and name of all that the filled image says.
        fn filled(self) -> Vec<(u32, u32, String)> {
            let mut bytes = self.bytes();
            fill(&mut bytes).expect("the table fits");
            let file = object::File::parse(&*bytes).expect("the copy is an image still");
            let section = file.section_by_name(SECTION).expect("the section is still there");
            decode(section.data().expect("it has bytes"))
                .into_iter()
                .map(|symbol| (symbol.address, symbol.size, symbol.name))
                .collect()
        }
    }

    fn row(address: u32, size: u32, name: &str) -> (u32, u32, String) {
        (address, size, name.into())
    }

    #[test]
    fn functions_are_listed_by_address_whatever_their_order_in_the_file() {
        let image = Linked::new(256).function("late", 32, 8).function("early", 4, 12);
        assert_eq!(image.filled(), [row(4, 12, "early"), row(32, 8, "late")]);
    }

    #[test]
    fn rust_names_lose_their_mangling_and_their_hash() {
        let image = Linked::new(256)
            .function("_ZN2mm7vmalloc5alloc17h0123456789abcdefE", 0, 4)
            .function("_RNvCskwGfYPst2Cb_3foo16example_function", 8, 4);
        assert_eq!(
            image.filled(),
            [row(0, 4, "mm::vmalloc::alloc"), row(8, 4, "foo::example_function")]
        );
    }

    #[test]
    fn a_function_without_a_size_reaches_to_its_neighbour_or_the_end_of_the_text() {
        let image = Linked::new(256).function("stub", 0, 0).function("last", 16, 0);
        assert_eq!(image.filled(), [row(0, 16, "stub"), row(16, 48, "last")]);
    }

    #[test]
    fn a_label_inside_a_function_does_not_hide_it_and_one_outside_names_its_code() {
        let image = Linked::new(256).function("whole", 0, 16).label("inner", 8).label("outer", 16);
        assert_eq!(image.filled(), [row(0, 16, "whole"), row(16, 48, "outer")]);
    }

    #[test]
    fn marks_of_instructions_and_data_are_no_names() {
        let image = Linked::new(256).label("$a", 0).label("$d.1", 8).function("real", 4, 4);
        assert_eq!(image.filled(), [row(4, 4, "real")]);
    }

    #[test]
    fn the_bit_that_says_thumb_is_no_part_of_the_address() {
        assert_eq!(Linked::new(256).function("thumb", 9, 4).filled(), [row(8, 4, "thumb")]);
    }

    #[test]
    fn one_address_has_one_name_and_a_function_comes_before_a_linker_mark() {
        let image = Linked::new(256).label("zz_text_start", 0).function("reset", 0, 8);
        assert_eq!(image.filled(), [row(0, 8, "reset")]);
    }

    #[test]
    fn the_mark_of_the_end_of_the_text_is_no_function() {
        let image = Linked::new(256).function("only", 0, 64).label("text_end", 64);
        assert_eq!(image.filled(), [row(0, 64, "only")]);
    }

    #[test]
    fn a_table_that_does_not_fit_is_refused_with_both_lengths_and_nothing_is_written() {
        let mut bytes = Linked::new(27).function("name", 0, 4).bytes();
        let before = bytes.clone();
        let error = fill(&mut bytes).expect_err("28 bytes do not fit into 27");
        assert!(matches!(error, FillError::TooSmall { wanted: 28, had: 27 }), "{error:?}");
        assert!(error.to_string().contains("28 bytes"), "{error}");
        assert_eq!(bytes, before);
        assert_eq!(Linked::new(28).function("name", 0, 4).filled().len(), 1);
    }

    #[test]
    fn an_image_without_the_section_is_refused() {
        let error = fill(&mut Linked::new(0).bytes()).expect_err("nowhere to write");
        assert!(matches!(error, FillError::NoSection), "{error:?}");
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let error = fill(&mut b"#!/bin/sh\n".to_vec()).expect_err("a script is no image");
        assert!(matches!(error, FillError::Unreadable(_)), "{error:?}");
    }
}
