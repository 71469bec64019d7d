//! The C names that the images promise, read back from them.

use std::fs;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind};

use crate::context::Context;
use crate::pool::Job;
use crate::qemu::{KERNEL_TESTS, MAPWRIGHT};

/// The names, one a line; the linker keeps them by the same list.
const LIST: &str = "scripts/c-symbols.list";

/// One job an image.
pub(crate) fn jobs() -> Vec<Job> {
    let of = |(name, image): (&str, &'static str)| {
        [
            Job::test(format!("symbols::{name}_has_every_listed_c_name"), |_: &Context| {
                has_all(image)
            }),
            Job::test(format!("symbols::{name}_knows_its_own_names"), |_: &Context| {
                knows_names(image)
            }),
        ]
    };
    [("mapwright", MAPWRIGHT), ("kernel_tests", KERNEL_TESTS)].into_iter().flat_map(of).collect()
}

/// Whether the table that backtraces are named by was filled: it begins as it must, and has a name that every image has.
fn knows_names(image: &str) -> Result<(), String> {
    let bytes = fs::read(image).map_err(|error| format!("{image}: {error}"))?;
    let file = object::File::parse(&*bytes).map_err(|error| format!("{image}: {error}"))?;
    let table = file.section_by_name(".ksyms").and_then(|section| section.data().ok());
    let table = table.ok_or_else(|| format!("{image} has no section .ksyms"))?;
    let name = b"kernel_main";
    if table.starts_with(b"KSYM") && table.windows(name.len()).any(|window| window == name) {
        return Ok(());
    }
    Err(format!("{image}: the table in .ksyms is not filled"))
}

/// Whether every listed name is there.
fn has_all(image: &str) -> Result<(), String> {
    let list = fs::read_to_string(LIST).map_err(|error| format!("{LIST}: {error}"))?;
    let names: Vec<&str> = names(&list).collect();
    if names.is_empty() {
        return Err(format!("{LIST} lists nothing"));
    }
    let bytes = fs::read(image).map_err(|error| format!("{image}: {error}"))?;
    let file = object::File::parse(&*bytes).map_err(|error| format!("{image}: {error}"))?;
    let missing: Vec<&str> = names.into_iter().filter(|name| !has_function(&file, name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("{image} has no global function {}", missing.join(", ")))
}

/// The names in a list with comments.
fn names(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Whether `name` can be called: a global function with a body, among the instructions.
fn has_function(file: &object::File<'_>, name: &str) -> bool {
    file.symbols().any(|symbol| {
        let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
        symbol.name() == Ok(name)
            && symbol.is_global()
            && symbol.kind() == SymbolKind::Text
            && symbol.size() > 0
            && section.is_some_and(|section| section.kind() == SectionKind::Text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_are_no_names() {
        let list = "# Linux's names\n\nvmalloc\n  vfree  \n";
        assert_eq!(names(list).collect::<Vec<_>>(), ["vmalloc", "vfree"]);
    }
}
