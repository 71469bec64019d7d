//! The results as `JUnit` XML, for programs: `target/junit.xml`.
//!
//! One `testsuite` is what ran together: the tests of the host, one boot of the suites, or all tests that boot on their own. A
//! failure carries its message and the command that repeats it. The file is written however the run ended, and what an
//! earlier run left is removed at the start ([`crate::context`]).

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use crate::context::Context;
use crate::tally::{self, Outcome, Verdict};

/// The file's name, in the folder of results.
pub(crate) const FILE: &str = "junit.xml";

/// Verdicts that were reached together.
#[derive(Debug)]
pub(crate) struct Suite {
    /// What ran them.
    pub(crate) name: String,
    /// How long it took.
    pub(crate) time: Duration,
    /// How its tests ended.
    pub(crate) verdicts: Vec<Verdict>,
}

/// Writes all results of a run.
pub(crate) fn write(context: &Context, suites: &[Suite]) -> Result<(), String> {
    let path = context.output.join(FILE);
    fs::write(&path, document(context, suites))
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn document(context: &Context, suites: &[Suite]) -> String {
    let all = || suites.iter().flat_map(|suite| &suite.verdicts);
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(xml, "<testsuites name=\"mapwright\"{}>", counts(all()));
    for suite in suites.iter().filter(|suite| !suite.verdicts.is_empty()) {
        let (name, time) = (Escaped(&suite.name), suite.time.as_secs_f64());
        let counts = counts(suite.verdicts.iter());
        let _ = writeln!(xml, "  <testsuite name=\"{name}\"{counts} time=\"{time:.3}\">");
        let seed = context.seed;
        let _ = writeln!(
            xml,
            "    <properties><property name=\"seed\" value=\"{seed}\"/></properties>"
        );
        suite.verdicts.iter().for_each(|verdict| case(&mut xml, context, suite, verdict));
        xml.push_str("  </testsuite>\n");
    }
    xml + "</testsuites>\n"
}

/// One test.
fn case(xml: &mut String, context: &Context, suite: &Suite, verdict: &Verdict) {
    let (class, name) = verdict.name.rsplit_once("::").unwrap_or(("", &verdict.name));
    let class = format!("{}.{}", suite.name.replace('.', "_"), class.replace("::", "."));
    let (class, name) = (Escaped(&class), Escaped(name));
    let _ = write!(xml, "    <testcase classname=\"{class}\" name=\"{name}\"");
    // What one boot has many of has no time of its own; the suite's is what they took together.
    let time = verdict.time.unwrap_or_default().as_secs_f64();
    let _ = write!(xml, " time=\"{time:.3}\"");
    let _ = match &verdict.outcome {
        Outcome::Passed => writeln!(xml, "/>"),
        Outcome::Skipped(reason) => {
            writeln!(xml, "><skipped message=\"{}\"/></testcase>", Escaped(reason))
        }
        Outcome::Failed(why) => {
            let again = tally::again(verdict, context.seed, context.filter.as_deref());
            let message = Escaped(why.lines().next().unwrap_or_default());
            let text = format!("{why}\n{again}");
            writeln!(xml, "><failure message=\"{message}\">{}</failure></testcase>", Escaped(&text))
        }
    };
}

/// ` tests="N" failures="N" skipped="N"`.
fn counts<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> String {
    let (mut tests, mut failures, mut skipped) = (0, 0, 0);
    for verdict in verdicts {
        tests += 1;
        failures += usize::from(verdict.is_failure());
        skipped += usize::from(matches!(verdict.outcome, Outcome::Skipped(_)));
    }
    format!(" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\"")
}

/// A text as it may stand between tags and between quotes. What XML has no way to write is written as Rust would.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                // As references, for a parser makes spaces of them in an attribute.
                '\n' | '\t' => write!(f, "&#{};", u32::from(character))?,
                // XML 1.0, 2.2: everything else below the space, and the non-characters, can not even be referred to.
                '\0'..' ' | '\u{fffe}' | '\u{ffff}' => write!(f, "{}", character.escape_default())?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
