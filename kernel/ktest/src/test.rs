//! What a test is, and what it may say when it is done.

use core::fmt::{self, Debug};

/// A registered test. Made by `#[ktest]`; the linker gathers all of them in one slice.
pub struct Test {
    path: &'static str,
    kind: Kind,
    run: fn(Report<'_>),
}

impl Test {
    /// The test at `path` (crate, modules and function, joined by `::`). For `#[ktest]`, and for tests of the runner.
    pub const fn new(path: &'static str, kind: Kind, run: fn(Report<'_>)) -> Self {
        Self { path, kind, run }
    }

    /// Suite and function, `vmalloc::maps_what_it_says`: the path without the crate, which is the same for all tests
    /// of an image, and without a module `suites` that gathers them. A function in the crate's root keeps the crate's
    /// name, and so has a suite as well.
    pub fn full_name(&self) -> &'static str {
        match self.path.split_once("::") {
            Some((_, rest)) if rest.contains("::") => {
                let inner = rest.strip_prefix("suites::").filter(|inner| inner.contains("::"));
                inner.unwrap_or(rest)
            }
            _ => self.path,
        }
    }

    /// The modules the test lies in.
    pub fn suite(&self) -> &'static str {
        self.full_name().rsplit_once("::").map_or("", |(suite, _)| suite)
    }

    /// The function's name.
    pub fn name(&self) -> &'static str {
        self.full_name().rsplit_once("::").map_or(self.path, |(_, name)| name)
    }

    /// Whether it returns, or is expected to end the kernel.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Runs it here and now, and hands what it says to `report`, once.
    pub(crate) fn run(&self, report: Report<'_>) {
        (self.run)(report);
    }
}

impl Debug for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Test")
            .field("path", &self.path)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// How a test is expected to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It returns.
    Normal,
    /// It shows a behaviour that SPEC calls fatal: it ends the kernel with a message that contains this one. Such a
    /// test never runs among the others; the host boots an image for it alone.
    Fatal {
        /// Part of the message; never empty.
        message: &'static str,
    },
}

/// What a test said.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// All that it asserted holds.
    Passed,
    /// It returned this error.
    Failed(&'a dyn Debug),
    /// It could not be run here, for this reason.
    Skipped(&'static str),
}

/// Takes what a test said. A callback, because an error may borrow nothing longer than the call.
pub type Report<'a> = &'a mut dyn FnMut(Outcome<'_>);

/// The end of a test that may find itself out of place, for example on a machine with too little memory.
///
/// A skipped test is counted as skipped, never as passed. Its ledger and audit are examined all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a skip that is not returned is not reported"]
pub enum Completion {
    /// It ran to its end.
    Ran,
    /// It did not, for this reason.
    Skipped(&'static str),
}

/// What a test function may return: `()`, [`Completion`], or a `Result` of either with an error that is [`Debug`].
#[diagnostic::on_unimplemented(
    message = "a test cannot return `{Self}`",
    label = "this test's return type is none that the runner understands",
    note = "a test returns `()`, `Completion`, or `Result<(), E>` or `Result<Completion, E>` with `E: Debug`"
)]
pub trait Conclusion {
    /// Says it to `report`, once.
    fn conclude(self, report: Report<'_>);
}

impl Conclusion for () {
    fn conclude(self, report: Report<'_>) {
        report(Outcome::Passed);
    }
}

impl Conclusion for Completion {
    fn conclude(self, report: Report<'_>) {
        match self {
            Self::Ran => report(Outcome::Passed),
            Self::Skipped(reason) => report(Outcome::Skipped(reason)),
        }
    }
}

impl<C: Conclusion, E: Debug> Conclusion for Result<C, E> {
    fn conclude(self, report: Report<'_>) {
        match self {
            Ok(conclusion) => conclusion.conclude(report),
            Err(error) => report(Outcome::Failed(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: &'static str) -> Test {
        Test::new(path, Kind::Normal, |report| ().conclude(report))
    }

    #[test]
    fn a_name_is_the_path_without_the_crate() {
        let test = named("suites::dma::pool::keeps_order");
        assert_eq!(test.full_name(), "dma::pool::keeps_order");
        assert_eq!((test.suite(), test.name()), ("dma::pool", "keeps_order"));
    }

    #[test]
    fn a_module_that_gathers_suites_is_no_part_of_the_name() {
        assert_eq!(named("image::suites::pool::keeps_order").full_name(), "pool::keeps_order");
        assert_eq!(named("image::suites::stands_alone").full_name(), "suites::stands_alone");
    }

    #[test]
    fn a_test_in_the_root_has_the_crate_for_a_suite() {
        let test = named("suites::stands_alone");
        assert_eq!(test.full_name(), "suites::stands_alone");
        assert_eq!((test.suite(), test.name()), ("suites", "stands_alone"));
    }

    #[test]
    fn every_return_type_says_what_it_means() {
        fn said(conclusion: impl Conclusion) -> String {
            let mut said = Vec::new();
            conclusion.conclude(&mut |outcome| said.push(format!("{outcome:?}")));
            assert_eq!(said.len(), 1, "a test says one thing: {said:?}");
            said.remove(0)
        }
        assert_eq!(said(()), "Passed");
        assert_eq!(said(Completion::Ran), "Passed");
        assert_eq!(said(Completion::Skipped("dry")), "Skipped(\"dry\")");
        assert_eq!(said(Ok::<(), u8>(())), "Passed");
        assert_eq!(said(Ok::<_, u8>(Completion::Skipped("dry"))), "Skipped(\"dry\")");
        assert_eq!(said(Err::<(), _>(Some(7))), "Failed(Some(7))");
    }
}
