//! Tests inside the kernel: `#[ktest]`, the runner, the ledger and the audit around every test.
//!
//! What this crate believes:
//!
//! * **A test is a function.** `#[ktest]` puts it into a slice that the linker gathers; nothing is listed by hand, and
//!   what is not run is not forgotten by anybody.
//! * **Order is drawn, not written.** Tests are shuffled by a printed seed, so that none can lean on another.
//! * **Passing is not enough.** After each test every [`Ledger`] must be back where it was and its audit must hold. A
//!   test that leaks, or leaves the tables wrong, fails by name.
//! * **Death is a result.** A failed assertion ends the image, which cannot unwind. [`report_panic`] says which test it
//!   was; the host boots the image again with `from=` the next number and the same seed.
//! * **Skipping is said and counted.** [`Completion::Skipped`] is neither a pass nor a failure.
//!
//! All but the registration is plain code over a slice of tests and a [`core::fmt::Write`], and is tested on the host.
//! The crate knows no layer of the kernel but kerncore, whose ledger it can read: it asks for a trait, and the test image
//! brings who implements it.
//!
//! A linker drops what nothing refers to, so suites belong in the test image itself and not in a library of it.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

mod assert;
mod death;
mod ledger;
mod options;
mod order;
mod runner;
mod tap;
mod test;

pub use death::Death;
pub use ledger::{Counter, Difference, Ledger, MAX_COUNTERS, Snapshot};
pub use options::{Filter, Mode, Options};
pub use order::MAX_TESTS;
pub use runner::{End, Summary};
pub use test::{Completion, Conclusion, Kind, Outcome, Report, Test};

/// Registers a function as a test of the kernel.
///
/// ```
/// use ktest::{Completion, ktest};
///
/// #[ktest]
/// fn two_and_two_are_four() {
///     assert_eq!(2 + 2, 4);
/// }
///
/// #[ktest]
/// fn numbers_are_read() -> Result<(), core::num::ParseIntError> {
///     assert_eq!("12".parse::<u32>()?, 12);
///     Ok(())
/// }
///
/// #[ktest]
/// fn needs_a_large_machine() -> Completion {
///     Completion::Skipped("less than 1 GiB of RAM")
/// }
///
/// /// SPEC calls it fatal: it ends the kernel with a message that contains this one. Booted alone by the host.
/// #[ktest(fatal = "freed twice")]
/// fn a_double_free_ends_the_kernel() {
///     panic!("the block at 0xf0001000 was freed twice");
/// }
/// ```
///
/// The function is plain: no arguments, no generics, no `async`, `const` or `unsafe`.
///
/// ```compile_fail
/// #[ktest::ktest]
/// fn of_what(size: usize) {}
/// ```
/// ```compile_fail
/// #[ktest::ktest]
/// fn of_which<T>() {}
/// ```
/// ```compile_fail
/// #[ktest::ktest]
/// async fn when() {}
/// ```
/// ```compile_fail
/// #[ktest::ktest]
/// static NOT_A_FUNCTION: u32 = 1;
/// ```
/// ```compile_fail
/// #[ktest::ktest]
/// fn answers() -> u32 { 42 }
/// ```
/// ```compile_fail
/// #[ktest::ktest(fatal)]
/// fn without_a_message() {}
/// ```
/// ```compile_fail
/// #[ktest::ktest(should_panic)]
/// fn not_our_word() {}
/// ```
pub use ktest_macros::ktest;

use core::fmt::{Arguments, Write};
use core::panic::PanicInfo;

static CURRENT: death::Current = death::Current::new();

/// Does what `options` ask for with the tests of this image, and writes the report to `out`.
///
/// Runs on the boot CPU, once a boot, in task context with interrupts as the tests expect them. Needs about 8 KiB of
/// stack, and 1 KiB more for each ledger. What is left to do is to leave with [`Summary::exit_code`].
pub fn run<const LEDGERS: usize>(
    options: &Options<'_>,
    out: &mut dyn Write,
    ledgers: [&dyn Ledger; LEDGERS],
) -> Summary {
    runner::run(&__private::KTESTS, &CURRENT, options, out, ledgers)
}

/// The full name of the test that runs, or whose ledgers are being examined; `None` between tests.
pub fn running() -> Option<&'static str> {
    CURRENT.test(&__private::KTESTS).map(Test::full_name)
}

/// Reports a panic as the end of the test that runs. For the image's panic handler, in any context and on any CPU: it
/// takes no lock and allocates nothing. A panic that it meets itself comes back as [`Death::Nested`].
pub fn report_panic(info: &PanicInfo<'_>, out: &mut dyn Write) -> Death {
    let location = info.location();
    let location = location.as_ref().map(|location| location as &dyn core::fmt::Display);
    CURRENT.report(&__private::KTESTS, &info.message(), location, out)
}

/// Reports any other end of the kernel, such as an exception that nobody expected, as the end of the test that runs.
pub fn report_death(message: Arguments<'_>, out: &mut dyn Write) -> Death {
    CURRENT.report(&__private::KTESTS, &message, None, out)
}

/// What `#[ktest]` writes refers to. Not for anybody else.
#[doc(hidden)]
pub mod __private {
    pub use linkme;

    use crate::test::{Conclusion, Report, Test};

    /// All tests of the image.
    #[linkme::distributed_slice]
    pub static KTESTS: [Test];

    /// Runs a test function and says what it returned.
    pub fn conclude<C: Conclusion>(test: fn() -> C, report: Report<'_>) {
        test().conclude(report);
    }
}
