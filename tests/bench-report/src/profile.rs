//! Into which functions the instructions of an operation fall.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::frames::{self, Image, Origin};
use crate::gdb::Stub;
use crate::image::{self, Cost, IMAGE};
use crate::table::grouped;
use crate::trace::Trace;

/// About how many instructions are followed when nobody says how many operations: a few seconds' worth.
const INSTRUCTIONS: u64 = 1_000_000;
/// The fewest operations that are followed then.
const FEWEST: u64 = 8;
/// How many rows of a view are shown.
const SHOWN: usize = 40;

/// How deep the profile goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Symbols and functions.
    Functions,
    /// Lines too.
    Lines,
}

/// Measures `row`, follows its operations one instruction after the other, and prints where they fall.
pub(crate) fn run(row: &str, operations: Option<u32>, depth: Depth) -> Result<(), String> {
    let operations = match operations {
        Some(operations) => operations,
        None => quick(image::measure(row, None)?),
    };
    let measured = image::measure(row, Some(operations))?;
    let bytes = frames::read(IMAGE)?;
    let image = Image::parse(&bytes).map_err(|error| format!("{IMAGE}: {error}"))?;
    let trace = follow(row, operations, &image)?;
    print(row, &trace, &image, depth);
    agrees(&trace, measured)
}

/// As many operations as make about so many instructions, and no more than were measured.
fn quick(cost: Cost) -> u32 {
    let enough = (INSTRUCTIONS / u64::from(cost.mean().max(1))).max(FEWEST) + 1;
    u32::try_from(enough).unwrap_or(u32::MAX).min(cost.operations)
}

/// What was followed must be what was measured, to the instruction.
fn agrees(trace: &Trace, measured: Cost) -> Result<(), String> {
    let others = measured.total - u64::from(measured.first);
    let same = trace.total() == others
        && trace.first == u64::from(measured.first)
        && trace.operations + 1 == u64::from(measured.operations);
    if same {
        println!("\nThe sum is what was measured by the clock: {others} instructions.");
        return Ok(());
    }
    Err(format!(
        "followed were {} operations after one of {}, with {} instructions; measured were {measured:?}",
        trace.operations,
        trace.first,
        trace.total(),
    ))
}

/// Boots the image with every instruction logged between the two marks.
fn follow(row: &str, operations: u32, image: &Image<'_>) -> Result<Trace, String> {
    let scratch = Scratch::new()?;
    let (socket, log) = (scratch.0.join("gdb"), scratch.0.join("log"));
    let made = Command::new("mkfifo").arg(&log).status();
    if !made.is_ok_and(|status| status.success()) {
        return Err(format!("mkfifo {} failed", log.display()));
    }
    let begin = image.function("bench_begin")?.start;
    let end = image.function("bench_end")?.start;
    let clock = image.function("bench_clock")?;

    let gdb = format!("unix:{}", socket.display());
    let words = [format!("test={row}"), format!("operations={operations}")];
    let mut command =
        image::command(&["--singlestep", "--gdb", &gdb], &[words[0].as_str(), words[1].as_str()]);
    let emulator = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut emulator = Emulator(emulator.map_err(|error| format!("scripts/qemu: {error}"))?);
    let mut stub = Stub::connect(&socket)?;
    stub.run_to(begin)?;
    let reader = thread::spawn({
        let log = log.clone();
        move || {
            let log = File::open(&log).map_err(|error| format!("{}: {error}", log.display()))?;
            Trace::read(BufReader::with_capacity(1 << 20, log), clock)
        }
    });
    stub.monitor(&format!("logfile {}", log.display()))?;
    stub.monitor("log exec,nochain")?;
    stub.run_to(end)?;
    stub.kill();
    let _ended = emulator.0.wait();
    reader.join().map_err(|_| "the log's reader panicked".to_owned())?
}

/// An emulator that does not outlive an error.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            // The script passes the signal on; by `kill` it would leave the emulator behind.
            let pid = self.0.id().to_string();
            let _ = Command::new("sh").args(["-c", &format!("kill {pid}")]).status();
            let _ = self.0.wait();
        }
    }
}

/// A folder for sockets, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, String> {
        let path = Path::new("target").join(format!("bench.{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Counts by name: of the thing itself, and with what is inlined into it.
#[derive(Default)]
struct View(HashMap<String, (u64, u64)>);

impl View {
    fn add(&mut self, name: &str, count: u64) {
        self.0.entry(name.to_owned()).or_default().0 += count;
    }

    fn add_inclusive(&mut self, name: &str, count: u64) {
        self.0.entry(name.to_owned()).or_default().1 += count;
    }

    /// The dearest first; those of equal cost by name.
    fn sorted(self) -> Vec<(String, u64, u64)> {
        let mut rows: Vec<_> =
            self.0.into_iter().map(|(name, (own, all))| (name, own, all)).collect();
        rows.sort_by(|one, other| (other.1, other.2, &one.0).cmp(&(one.1, one.2, &other.0)));
        rows
    }
}

fn print(row: &str, trace: &Trace, image: &Image<'_>, depth: Depth) {
    let operations = trace.operations.max(1);
    let (mut symbols, mut functions, mut lines) =
        (View::default(), View::default(), View::default());
    for (&address, &count) in &trace.counts {
        let Origin { functions: chain, line } = image.origin(address);
        symbols.add(image.symbol(address), count);
        functions.add(&chain[0], count);
        let mut seen: Vec<&String> = Vec::new();
        for name in &chain {
            if !seen.contains(&name) {
                functions.add_inclusive(name, count);
                seen.push(name);
            }
        }
        lines.add(&format!("{line}  {}", last_part(&chain[0])), count);
    }
    let mean = per_operation(trace.total(), operations);
    let first = grouped(u32::try_from(trace.first).unwrap_or(u32::MAX));
    println!(
        "{row}: {mean} instructions an operation, mean of {operations}; the one before, the first, took {first}"
    );
    println!(
        "Of them, {} are the measuring loop's, and not in the figure.\n",
        -i64::try_from(trace.nothing).unwrap_or(0)
    );
    println!("By symbol:");
    for (name, own, _) in symbols.sorted().into_iter().take(SHOWN) {
        println!("{:>10} {}  {name}", per_operation(own, operations), percent(own, trace));
    }
    println!("\nBy function of the source (own; with what is inlined into it):");
    for (name, own, all) in functions.sorted().into_iter().take(SHOWN) {
        let (own_each, all) = (per_operation(own, operations), per_operation(all, operations));
        println!("{own_each:>10} {}{all:>10}  {name}", percent(own, trace));
    }
    if depth == Depth::Lines {
        println!("\nBy line:");
        for (name, own, _) in lines.sorted().into_iter().take(2 * SHOWN) {
            println!("{:>10} {}  {name}", per_operation(own, operations), percent(own, trace));
        }
    }
}

/// The last part of a path.
fn last_part(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

/// Instructions an operation, with a digit behind the point.
fn per_operation(count: u64, operations: u64) -> String {
    let tenths = (count * 10 + operations / 2) / operations;
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn percent(count: u64, trace: &Trace) -> String {
    let all = trace.counts.values().sum::<u64>().max(1);
    let tenths = count * 1000 / all;
    format!("{:>4}.{} %", tenths / 10, tenths % 10)
}
