//! How a property is run: from a seed, again and again the same.

use std::env;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestError, TestRng, TestRunner};

/// The seed when `PROPERTIES_SEED` is not set.
pub const DEFAULT_SEED: u64 = 0x6d61_7077;

/// For how many milliseconds a failing history is made shorter. On a slower machine it stays longer, and fails all the same.
const SHRINK_TIME: u32 = 8000;

/// Checks `property` on `cases` values of `values`. `target` says where the test is and `name` is its path, as `cargo test`
/// takes them.
///
/// # Panics
/// With the smallest value found that fails, and the command that runs it again.
#[track_caller]
pub fn prove<S: Strategy>(
    target: &str,
    name: &str,
    cases: u32,
    values: &S,
    property: impl Fn(S::Value) -> TestCaseResult,
) {
    let seed = number_from_environment("PROPERTIES_SEED").unwrap_or(DEFAULT_SEED);
    let factor = number_from_environment("PROPERTIES_CASES").unwrap_or(1);
    let cases = cases.saturating_mul(u32::try_from(factor).unwrap_or(u32::MAX));
    println!("{name}: {cases} histories from seed {seed}");
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: u32::MAX,
        max_shrink_time: SHRINK_TIME,
        ..Config::default()
    };
    match TestRunner::new_with_rng(config, generator(seed)).run(values, property) {
        Ok(()) => {}
        Err(TestError::Abort(reason)) => panic!("{name}: gave up: {reason}"),
        Err(TestError::Fail(reason, value)) => panic!(
            "{reason}\nsmallest history: {value:#?}\n\
             again: PROPERTIES_SEED={seed} PROPERTIES_CASES={factor} cargo test {target} -- --exact {name}"
        ),
    }
}

/// The same stream of random numbers for the same seed, on every machine.
fn generator(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// A decimal number from a variable of the environment.
///
/// # Panics
/// If the variable is set to something else: a mistyped seed must not pass for a run of that seed.
fn number_from_environment(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(error) => panic!("{name}={text}: {error}"),
    }
}
