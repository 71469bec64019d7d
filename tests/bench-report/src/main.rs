//! What operations cost: runs the benchmark image row by row, compares, records, and says where instructions go.
//!
//! ```text
//! image ──▶ measure: each row in a boot of its own, twice ──▶ table, target/bench.json, target/bench.svg
//!                                                        └──▶ record: compared with, or written to, recorded.json
//! trace (a log of every instruction) + frames (debug information) ──▶ profile
//! ```

mod frames;
mod gdb;
mod image;
mod measure;
mod plot;
mod profile;
mod record;
mod rows;
mod table;
mod trace;

use std::fs;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::measure::Figures;
use crate::record::Record;

/// The figures, for programs.
const JSON: &str = "target/bench.json";
/// The plot.
const PLOT: &str = "target/bench.svg";
/// The figures that a change is compared with.
const RECORD: &str = "tests/bench/recorded.json";

#[derive(Parser)]
#[command(about = "What operations cost, in instructions")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures all rows and prints the table.
    Run {
        /// Only rows whose name contains this.
        #[arg(long, default_value = "")]
        filter: String,
        /// How many emulators run at once.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Fails on every row that is dearer than recorded by more than 2 %.
        #[arg(long, conflicts_with_all = ["record", "filter"])]
        check: bool,
        /// Records the figures for this compiler.
        #[arg(long, conflicts_with = "filter")]
        record: bool,
    },
    /// Says into which functions the instructions of a row fall.
    Profile {
        /// The row.
        row: String,
        /// How many operations are followed: as many as is quick, without it.
        #[arg(long)]
        operations: Option<u32>,
        /// Lines of source too.
        #[arg(long)]
        lines: bool,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run { filter, jobs, check, record } => {
            let with_record = match (check, record) {
                (true, _) => WithRecord::Compare,
                (_, true) => WithRecord::Write,
                _ => WithRecord::Nothing,
            };
            run(&filter, jobs, with_record)
        }
        Command::Profile { row, operations, lines } => {
            let depth = if lines { profile::Depth::Lines } else { profile::Depth::Functions };
            profile::run(&row, operations, depth)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: bench: {message}");
            ExitCode::FAILURE
        }
    }
}

/// What is done with the recorded figures.
#[derive(Clone, Copy)]
enum WithRecord {
    Nothing,
    Compare,
    Write,
}

fn run(filter: &str, jobs: usize, with_record: WithRecord) -> Result<(), String> {
    let figures = measure::all(filter, jobs)?;
    print!("{}", table::text(rows::ROWS, &figures));
    print!("{}", table::rates(rows::RATES, &figures));
    write(JSON, &measure::json(&figures))?;
    write(PLOT, &plot::svg(&figures))?;
    println!("\nwritten: {JSON}, {PLOT}");
    match with_record {
        WithRecord::Nothing => Ok(()),
        WithRecord::Compare => compare(&figures),
        WithRecord::Write => {
            let compiler = image::compiler()?;
            let record = Record::read(&read_record()?)?.with(&compiler, &figures);
            write(RECORD, &record.text())?;
            println!("recorded for {compiler}: {RECORD}");
            Ok(())
        }
    }
}

fn compare(figures: &Figures) -> Result<(), String> {
    let compiler = image::compiler()?;
    let record = Record::read(&read_record()?)?;
    let Some(recorded) = record.of(&compiler) else {
        println!(
            "no figures are recorded for {compiler}, so none are compared (make bench RECORD=1)"
        );
        return Ok(());
    };
    let complaints = record::complaints(recorded, figures);
    if complaints.is_empty() {
        println!("no row is dearer than recorded for {compiler}");
        return Ok(());
    }
    Err(format!("compared with what is recorded for {compiler}:\n  {}", complaints.join("\n  ")))
}

/// The record as it stands; an empty one if there is none.
fn read_record() -> Result<String, String> {
    match fs::read_to_string(RECORD) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok("{}".into()),
        read => read.map_err(|error| format!("{RECORD}: {error}")),
    }
}

fn write(path: &str, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{path}: {error}"))
}
