//! Which function an instruction belongs to: by symbol, and by source, inlined functions included.

use std::fs;
use std::ops::Range;

use addr2line::gimli::{Dwarf, EndianSlice, LittleEndian, SectionId};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

type Slice<'d> = EndianSlice<'d, LittleEndian>;

/// A linked image, read.
pub(crate) struct Image<'d> {
    context: addr2line::Context<Slice<'d>>,
    /// Functions by address.
    symbols: Vec<(Range<u32>, String)>,
}

/// Where an instruction came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The functions, innermost first: each was inlined into the next. Rust's own library is left out, as far as it was
    /// inlined into something else: what it does is its caller's.
    pub(crate) functions: Vec<String>,
    /// The line, in the innermost of these.
    pub(crate) line: String,
}

/// The whole file.
pub(crate) fn read(path: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{path}: {error}"))
}

impl<'d> Image<'d> {
    /// Reads symbols and debug information.
    pub(crate) fn parse(bytes: &'d [u8]) -> Result<Self, String> {
        let file = object::File::parse(bytes).map_err(|error| error.to_string())?;
        let load = |id: SectionId| {
            let section = file.section_by_name(id.name());
            let data = section.and_then(|section| section.data().ok()).unwrap_or_default();
            Ok::<_, addr2line::gimli::Error>(EndianSlice::new(data, LittleEndian))
        };
        let dwarf = Dwarf::load(load).map_err(|error| error.to_string())?;
        let context = addr2line::Context::from_dwarf(dwarf).map_err(|error| error.to_string())?;
        let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
        let symbol = |symbol: object::Symbol<'_, '_>| {
            let start = u32::try_from(symbol.address()).ok()?;
            let end = start.checked_add(u32::try_from(symbol.size()).ok()?)?;
            Some((start..end, readable(symbol.name().ok()?)))
        };
        let mut symbols: Vec<_> = functions.filter_map(symbol).collect();
        symbols.sort_by_key(|(range, _)| range.start);
        Ok(Self { context, symbols })
    }

    /// Where the function `name` lies.
    pub(crate) fn function(&self, name: &str) -> Result<Range<u32>, String> {
        let found = self.symbols.iter().find(|(_, symbol)| symbol == name);
        found.map(|(range, _)| range.clone()).ok_or_else(|| format!("no function is called {name}"))
    }

    /// The symbol that the instruction at `address` lies in.
    pub(crate) fn symbol(&self, address: u32) -> &str {
        let behind = self.symbols.partition_point(|(range, _)| range.start <= address);
        let before = self.symbols[..behind].iter().rev();
        let mut holding = before.take(8).filter(|(range, _)| range.contains(&address));
        holding.next().map_or("(no symbol)", |(_, name)| name)
    }

    /// The functions of the source that the instruction at `address` came from.
    pub(crate) fn origin(&self, address: u32) -> Origin {
        let mut origin = Origin { functions: vec![], line: "?".into() };
        let Ok(mut frames) = self.context.find_frames(address.into()).skip_all_loads() else {
            return origin;
        };
        let mut in_library = false;
        while let Ok(Some(frame)) = frames.next() {
            let (file, line) = frame.location.as_ref().map_or(("?", 0), |location| {
                (location.file.unwrap_or("?"), location.line.unwrap_or(0))
            });
            if !origin.functions.is_empty() && !file.contains(LIBRARY) && in_library {
                origin.functions.clear();
            }
            if origin.functions.is_empty() {
                origin.line = format!("{}:{line}", shortened(file));
                in_library = file.contains(LIBRARY);
            }
            let name = frame.function.as_ref().and_then(|function| function.raw_name().ok());
            origin.functions.push(name.map_or("?".into(), |name| readable(&name)));
        }
        if origin.functions.is_empty() {
            origin.functions.push(self.symbol(address).to_owned());
        }
        origin
    }
}

/// A name as a person writes it.
fn readable(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

/// In the paths of Rust's own library.
const LIBRARY: &str = "/library/";

/// The end of a path: crate and file.
fn shortened(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    parts[parts.len().saturating_sub(4)..].join("/")
}
