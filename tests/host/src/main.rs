//! The runner on the host: `make test`.
//!
//! It runs the host's own tests, boots the test image on every machine that the project promises to serve and reads its
//! reports ([`ktap`]), and looks at the kernel from outside: by what a user types, by gdb, by the image's symbols. It
//! trusts nothing that it did not see: a report that breaks off, a test that was listed and has no result, a word from
//! QEMU that nobody expected, each is a failure with a name.

mod board;
mod cargo;
mod context;
mod devices;
mod disk;
#[cfg(test)]
mod documents;
mod fatal;
mod gdb;
mod harness;
mod junit;
mod kernel;
mod ktap;
mod listing;
mod panel;
mod pool;
mod progress;
mod qemu;
#[cfg(test)]
mod registers;
mod run;
mod semihosting;
mod stress;
mod symbols;
mod tally;
mod typed;
mod witness;

use std::mem;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::cargo::Said;
use crate::context::{Context, Options};
use crate::junit::Suite;
use crate::pool::Job;
use crate::tally::{Tally, Verdict};

/// The runner on the host.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// All tests.
    Test(Options),
}

fn main() -> ExitCode {
    let Command::Test(options) = Arguments::parse().command;
    let context = match Context::new(options) {
        Ok(context) => context,
        Err(message) => {
            eprintln!("error: test: {message}");
            return ExitCode::from(2);
        }
    };
    println!("seed {}", context.seed);
    want_small_pages();

    let (suites, said) = run(&context);
    let written = junit::write(&context, &suites);
    let mut tally = Tally::default();
    tally.add_all(suites.into_iter().flat_map(|suite| suite.verdicts));
    if let Err(message) = written {
        tally.add(Verdict::of_a_run("junit::write", Err(message)));
    }
    print!("{said}{}", context.witnessed());
    tally.print(&context);
    if tally.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs everything that was asked for. The tests of the host are the first of the jobs: they take one CPU, and longer than any other.
fn run(context: &Context) -> (Vec<Suite>, Said) {
    if context.image.is_some() {
        return (pool::run(context, jobs(context)), Said::default());
    }
    let said = Arc::new(Mutex::new(Said::default()));
    let mut all = Vec::new();
    let mut failed = Vec::new();
    match cargo::compile_tests() {
        Ok(()) => all.push(cargo::job(Arc::clone(&said))),
        Err(message) => failed.push(Verdict::of_a_run("build::tests", Err(message))),
    }
    match cargo::images() {
        Ok(()) => all.extend(jobs(context)),
        Err(message) => failed.push(Verdict::of_a_run("build::images", Err(message))),
    }
    let mut suites = pool::run(context, all);
    if !failed.is_empty() {
        suites.push(Suite { name: "build".into(), time: Duration::ZERO, verdicts: failed });
    }
    let said = mem::take(&mut *said.lock().unwrap_or_else(PoisonError::into_inner));
    (suites, said)
}

/// All that is to be done with the images.
fn jobs(context: &Context) -> Vec<Job> {
    let mut jobs = Vec::new();
    match kernel::list(&context.start()) {
        Ok(listed) => {
            jobs.extend(kernel::jobs(context, &listed));
            jobs.extend(fatal::jobs(&listed));
        }
        Err(message) => {
            let unlisted = |_: &Context| vec![Verdict::of_a_run("kernel::list", Err(message))];
            jobs.push(Job::new("kernel::list", unlisted));
        }
    }
    if context.image.is_some() {
        return jobs;
    }
    jobs.extend(harness::jobs());
    jobs.extend(run::jobs());
    jobs.extend(panel::jobs());
    jobs.extend(listing::jobs());
    jobs.extend(stress::jobs());
    jobs.extend(gdb::jobs());
    jobs.extend(semihosting::jobs());
    jobs.extend(symbols::jobs());
    jobs.extend(qemu::jobs());
    jobs.extend(typed::jobs());
    jobs.retain(|job| job.is_wanted(context));
    jobs
}

/// The emulators begun from here on get their memory by small pages. A boot touches a page here and there of all its RAM, which
/// by huge pages would all have to be found and zeroed: most of what a short boot costs.
fn want_small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        eprintln!("note: the emulators get huge pages, and take longer: {error}");
    }
}
