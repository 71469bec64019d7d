//! The board of mutants: which wrong implementation was noticed by which test.
//!
//! The tests print it ([`Board::read`] says how), and this only believes what it reads: a mutant that the tests list and nobody
//! ran is a failure with a name.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use crate::context::Context;
use crate::tally::Verdict;

/// What a test prints of a mutant that it caught, before five fields.
const KILLED: &str = "mutant: ";
/// What a test prints before the names of all mutants.
const LISTED: &str = "mutants listed: ";

/// A mutant that was caught.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Killed {
    name: String,
    spec: String,
    wrong: String,
    killer: String,
}

/// All that the tests said of mutants.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Board {
    killed: BTreeSet<Killed>,
    listed: BTreeSet<String>,
}

impl Board {
    /// Reads what the tests printed: `mutant: name | SPEC | what is wrong | killer | what the killer saw`, and
    /// `mutants listed: name name …`.
    pub(crate) fn read(report: &str) -> Self {
        let mut board = Self::default();
        for line in report.lines() {
            if let Some(names) = line.strip_prefix(LISTED) {
                board.listed.extend(names.split_whitespace().map(String::from));
            }
            let Some(fields) = line.strip_prefix(KILLED) else { continue };
            let mut fields = fields.splitn(5, " | ").map(String::from);
            if let (Some(name), Some(spec), Some(wrong), Some(killer), Some(_)) =
                (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
            {
                board.killed.insert(Killed { name, spec, wrong, killer });
            }
        }
        board
    }

    /// What is to be said of a whole run: that there is a list, and that nothing on it was left out. A mutant that survived is
    /// a failure already, by its test.
    pub(crate) fn verdicts(&self, context: &Context) -> Vec<Verdict> {
        if context.filter.is_some() {
            return Vec::new();
        }
        self.missing()
            .map(|why| Verdict::of_a_run("mutants::board", Err(why)))
            .into_iter()
            .collect()
    }

    fn missing(&self) -> Option<String> {
        if self.listed.is_empty() {
            return Some("no test listed any mutant".into());
        }
        let killed: BTreeSet<&str> =
            self.killed.iter().map(|mutant| mutant.name.as_str()).collect();
        let left: Vec<&str> =
            self.listed.iter().map(String::as_str).filter(|name| !killed.contains(name)).collect();
        (!left.is_empty()).then(|| format!("listed, and killed by no test: {}", left.join(", ")))
    }
}

/// A table, or nothing if nothing was killed.
impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.killed.is_empty() {
            return Ok(());
        }
        let width = |of: fn(&Killed) -> &str, title: &str| {
            let longest = self.killed.iter().map(|mutant| of(mutant).len()).max();
            longest.unwrap_or(0).max(title.len())
        };
        let (name, spec) = (width(|it| &it.name, "mutant"), width(|it| &it.spec, "SPEC"));
        let mut table = String::new();
        let mut row = |a: &str, b: &str, c: &str| {
            let _ = writeln!(table, "{a:name$} | {b:spec$} | {c}");
        };
        row("mutant", "SPEC", "killed by");
        let mut by_number: Vec<&Killed> = self.killed.iter().collect();
        by_number.sort_by_key(|it| (number(&it.spec), &it.killer, &it.name));
        for Killed { name, spec, killer, .. } in by_number {
            row(name, spec, killer);
        }
        f.write_str(&table)
    }
}

/// `S16a` as 16.
fn number(spec: &str) -> u32 {
    let digits: String = spec.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
running 3 tests
test mutants::a::no_flush ... ok
---- mutants::a::no_flush stdout ----
mutant: no_flush | S23 | nothing is invalidated | mutants::a | Hoarding: Ok(3) | not Err(4)
mutant: no_clean | S16a | no clean | mutants::bcd | it was wrong
mutant: broken line
mutants listed: no_flush no_clean overlooked
";

    #[test]
    fn what_the_tests_print_becomes_a_table_by_number() {
        let table = "\
mutant   | SPEC | killed by
no_clean | S16a | mutants::bcd
no_flush | S23  | mutants::a
";
        assert_eq!(Board::read(REPORT).to_string(), table);
        assert_eq!(Board::default().to_string(), "");
    }

    #[test]
    fn a_mutant_that_is_listed_and_was_not_run_is_named() {
        let missing = Board::read(REPORT).missing();
        assert_eq!(missing.as_deref(), Some("listed, and killed by no test: overlooked"));
        let complete = REPORT.replace(" overlooked", "");
        assert_eq!(Board::read(&complete).missing(), None);
        let unlisted = REPORT.replace("mutants listed:", "");
        assert_eq!(Board::read(&unlisted).missing().as_deref(), Some("no test listed any mutant"));
    }
}
