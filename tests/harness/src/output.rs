//! An output that loses what an image should say. What it loses is chosen by the one test that is asked for.

use core::fmt;

use arch::semihosting::Console;
use ktest::{Filter, Mode, Options};

/// What is lost of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Nothing,
    Everything,
    /// All from the first result on.
    Results,
    /// The line that says how many tests there are.
    Plan,
    /// The line that says how they went.
    Counts,
}

/// The host's standard output, for a report that need not be whole.
pub(crate) struct Mangled {
    loss: Loss,
    /// The start of the line that is being written, as far as it tells what line it is.
    line: [u8; 4],
    length: usize,
    lost_all: bool,
}

impl Mangled {
    /// Loses what the test that `options` name asks for.
    pub(crate) fn of(options: &Options<'_>) -> Self {
        let loss = match (options.mode, options.filter) {
            (Mode::Run, Filter::Exactly("output::nothing_is_printed")) => Loss::Everything,
            (Mode::Run, Filter::Exactly("output::breaks_off_before_the_result")) => Loss::Results,
            (Mode::Run, Filter::Exactly("output::has_no_plan")) => Loss::Plan,
            (Mode::Run, Filter::Exactly("output::has_no_counts_at_its_end")) => Loss::Counts,
            _ => Loss::Nothing,
        };
        Self { loss, line: [0; 4], length: 0, lost_all: loss == Loss::Everything }
    }

    /// Takes one character of a line. The first four decide whether the line is lost.
    fn put(&mut self, character: char) -> fmt::Result {
        use fmt::Write as _;

        if let (Some(place), Ok(byte)) = (self.line.get_mut(self.length), u8::try_from(character)) {
            *place = byte;
        }
        self.length += 1;
        let start = &self.line[..self.length.min(4)];
        let is_counts = start.starts_with(b"# ") && start.get(2).is_some_and(u8::is_ascii_digit);
        let lost = match self.loss {
            Loss::Nothing => false,
            Loss::Everything => true,
            Loss::Results => {
                self.lost_all |= start.starts_with(b"ok ");
                self.lost_all
            }
            Loss::Plan => start.starts_with(b"1.."),
            Loss::Counts => is_counts,
        };
        // A line is shown when its start is known.
        let shown = if lost {
            Ok(())
        } else if self.length == 4 || character == '\n' && self.length < 4 {
            self.line[..self.length].iter().try_for_each(|&byte| Console.write_char(byte.into()))
        } else if self.length > 4 {
            Console.write_char(character)
        } else {
            Ok(())
        };
        if character == '\n' {
            self.length = 0;
        }
        shown
    }
}

impl fmt::Write for Mangled {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.loss == Loss::Nothing {
            return Console.write_str(text);
        }
        text.chars().try_for_each(|character| self.put(character))
    }
}
