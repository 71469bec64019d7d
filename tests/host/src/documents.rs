//! What the documents say of the crates is what Cargo knows of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A crate's folder and the crates of this workspace that it depends on, by its name.
type Crates = BTreeMap<String, (String, BTreeSet<String>)>;

fn read(path: &str) -> String {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(top.join(path)).expect("the file is there")
}

/// The lines of a manifest's section.
fn section<'a>(manifest: &'a str, heading: &str) -> impl Iterator<Item = &'a str> {
    let below = manifest.lines().skip_while(move |line| *line != heading).skip(1);
    below.take_while(|line| !line.starts_with('['))
}

/// What the manifests say.
fn known() -> Crates {
    let workspace = read("Cargo.toml");
    let is_folder = |line: &&str| line.starts_with("    \"");
    let members = workspace.lines().skip_while(|line| *line != "members = [");
    let members = members.take_while(|line| *line != "]").filter(is_folder);
    let folders: Vec<&str> = members.map(|line| line.trim_matches([' ', '"', ','])).collect();
    let manifests: Vec<(&str, String)> =
        folders.into_iter().map(|folder| (folder, read(&format!("{folder}/Cargo.toml")))).collect();
    let name = |manifest: &str| {
        let line = section(manifest, "[package]").find_map(|line| line.strip_prefix("name = "));
        line.expect("a package has a name").trim_matches('"').to_owned()
    };
    let names: BTreeSet<String> = manifests.iter().map(|(_, text)| name(text)).collect();
    let crates = manifests.iter().map(|(folder, manifest)| {
        let headings = ["[dependencies]", "[target.'cfg(target_arch = \"arm\")'.dependencies]"];
        let lines = headings.into_iter().flat_map(|heading| section(manifest, heading));
        let dependencies = lines.filter_map(|line| line.split(['.', ' ', '=']).next());
        let own = dependencies.filter(|name| names.contains(*name)).map(str::to_owned).collect();
        (name(manifest), ((*folder).to_owned(), own))
    });
    crates.collect()
}

/// What the table says: `| `name` | `folder` | dependencies | what it is |`.
fn told() -> Crates {
    let text = read("ARCHITECTURE.md");
    let rows = text.lines().skip_while(|line| !line.starts_with("| crate |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let crates = rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim_matches([' ', '`'])).collect();
        let dependencies = cells[3].split(", ").filter(|name| *name != "–").map(str::to_owned);
        (cells[1].to_owned(), (cells[2].to_owned(), dependencies.collect()))
    });
    crates.collect()
}

#[test]
fn every_crate_is_in_the_table_with_its_folder_and_what_it_depends_on() {
    let (known, told) = (known(), told());
    assert!(
        known.len() > 20 && known["mm"].1.contains("boot"),
        "the manifests are misread: {known:?}"
    );
    for (name, what) in &known {
        assert_eq!(told.get(name), Some(what), "{name}");
    }
    assert_eq!(told.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>());
}

/// Whether C code has `name`, and a parenthesis behind it.
fn has_call(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let is_whole = before.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_');
        is_whole && text[at + name.len()..].starts_with('(')
    })
}

/// S85a.
#[test]
fn every_c_name_is_declared_in_the_header_and_called_by_the_tests_in_c() {
    let list = read("scripts/c-symbols.list");
    let (header, tests) = (read("include/mapwright.h"), read("tests/kernel/c/c_unit.c"));
    let names = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut count = 0;
    for name in names {
        assert!(has_call(&header, name), "{name} is not declared");
        assert!(has_call(&tests, name), "{name} is not called");
        count += 1;
    }
    assert!(count > 50, "{count} names");
    assert!(!has_call(&header, "malloc") && !has_call(&header, "vmalloc_"), "whole names alone");
}
