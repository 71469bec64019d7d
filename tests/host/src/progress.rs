//! Progress as it suits its reader: a bar on a terminal, lines in a log.

use std::io::{IsTerminal as _, stderr};

use indicatif::{ProgressBar, ProgressStyle};

use crate::tally::{Outcome, Verdict};

/// How far a run has come.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    done: usize,
    total: usize,
}

impl Progress {
    /// Nothing of `total` jobs is done.
    pub(crate) fn new(total: usize) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}");
            ProgressBar::new(total as u64)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, done: 0, total }
    }

    /// One more job is done.
    pub(crate) fn done(&mut self, title: &str, verdicts: &[Verdict]) {
        self.done += 1;
        let failed = verdicts.iter().filter(|verdict| verdict.is_failure()).count();
        let passed = verdicts.iter().filter(|verdict| verdict.outcome == Outcome::Passed).count();
        let line = format!("{title}: {passed} passed, {failed} failed");
        match &self.bar {
            Some(bar) => {
                if failed > 0 {
                    bar.println(&line);
                }
                bar.set_message(line);
                bar.inc(1);
                if self.done == self.total {
                    bar.finish_and_clear();
                }
            }
            None => eprintln!("[{:3}/{}] {line}", self.done, self.total),
        }
    }
}
