//! The report: KTAP, one line a result, so that a boot that dies has said all it knows.
//!
//! ```text
//! KTAP version 1
//! # seed 12345 memory 536870912
//! 1..3
//! ok 1 suite::name
//! not ok 2 suite::name # message
//! # diagnostics of the line before
//! ok 3 suite::name # SKIP reason
//! ```

use core::fmt::{self, Display, Write};

/// Writes the report. An output that fails is remembered, not reported: there is nowhere left to say it.
pub(crate) struct Tap<'o> {
    out: &'o mut dyn Write,
    broken: bool,
}

impl<'o> Tap<'o> {
    pub(crate) fn new(out: &'o mut dyn Write) -> Self {
        Self { out, broken: false }
    }

    /// Whether a line was lost.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(crate) fn line(&mut self, line: fmt::Arguments<'_>) {
        self.broken |= self.out.write_fmt(format_args!("{line}\n")).is_err();
    }

    pub(crate) fn ok(&mut self, number: usize, name: &str) {
        self.line(format_args!("ok {number} {name}"));
    }

    pub(crate) fn skip(&mut self, number: usize, name: &str, reason: &str) {
        self.line(format_args!("ok {number} {name} # SKIP {}", OneLine(&reason)));
    }

    pub(crate) fn not_ok(&mut self, number: usize, name: &str, message: &dyn Display) {
        self.line(format_args!("not ok {number} {name} # {}", OneLine(message)));
    }

    /// No result that the host still waits for will come.
    pub(crate) fn bail_out(&mut self, message: &dyn Display) {
        self.line(format_args!("Bail out! {}", OneLine(message)));
    }

    /// The whole text, each of its lines marked as a diagnostic.
    pub(crate) fn diagnostic(&mut self, text: &dyn Display) {
        self.line(format_args!("{}", Commented(text)));
    }
}

/// A text on one line: control characters are written as Rust would write them in a string.
pub(crate) struct OneLine<'a>(pub(crate) &'a dyn Display);

impl Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escape(f), "{}", self.0)
    }
}

struct Escape<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // In runs: each write may be a call of the host.
        text.split_inclusive(char::is_control).try_for_each(|run| match run.chars().next_back() {
            Some(last) if last.is_control() => {
                self.0.write_str(&run[..run.len() - last.len_utf8()])?;
                write!(self.0, "{}", last.escape_default())
            }
            _ => self.0.write_str(run),
        })
    }
}

/// A text of which each line begins with `# `.
struct Commented<'a>(&'a dyn Display);

impl Display for Commented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("# ")?;
        write!(Comment(f), "{}", self.0)
    }
}

struct Comment<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Comment<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                self.0.write_str("\n# ")?;
            }
            self.0.write_str(line)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Tap<'_>)) -> String {
        let mut out = String::new();
        write(&mut Tap::new(&mut out));
        out
    }

    #[test]
    fn a_message_of_several_lines_stays_on_the_results_line() {
        let line = written(|tap| tap.not_ok(2, "a::b", &"left\n  right:\t\u{1b}[31m1\r\n"));
        assert_eq!(line, "not ok 2 a::b # left\\n  right:\\t\\u{1b}[31m1\\r\\n\n");
    }

    #[test]
    fn every_line_of_a_diagnostic_is_marked_wherever_the_text_is_cut() {
        assert_eq!(written(|tap| tap.diagnostic(&"one\ntwo")), "# one\n# two\n");
        assert_eq!(
            written(|tap| tap.diagnostic(&format_args!("{}{}", "one\n", "two"))),
            "# one\n# two\n"
        );
        assert_eq!(
            written(|tap| tap.diagnostic(&"ok 1 a::b\nBail out!")),
            "# ok 1 a::b\n# Bail out!\n"
        );
    }

    #[test]
    fn skipped_is_not_the_same_as_passed() {
        assert_eq!(written(|tap| tap.ok(1, "a::b")), "ok 1 a::b\n");
        assert_eq!(
            written(|tap| tap.skip(1, "a::b", "too\nsmall")),
            "ok 1 a::b # SKIP too\\nsmall\n"
        );
    }

    #[test]
    fn a_lost_line_is_remembered() {
        struct Dead(u32);
        impl Write for Dead {
            fn write_str(&mut self, _: &str) -> fmt::Result {
                self.0 += 1;
                if self.0 == 1 { Err(fmt::Error) } else { Ok(()) }
            }
        }
        let mut out = Dead(0);
        let mut tap = Tap::new(&mut out);
        tap.ok(1, "a::b");
        tap.ok(2, "a::c");
        assert!(tap.is_broken());
    }
}
