//! One run of the emulator, by the project's only command line for it: `scripts/qemu`.

use std::fmt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::pool::Job;

/// The shipped image. A relative path: the kernel reads it as the first word of its command line.
pub(crate) const MAPWRIGHT: &str = "target/mapwright.elf";
/// The image of the in-kernel tests.
pub(crate) const KERNEL_TESTS: &str = "target/kernel-tests.elf";
/// The disk that is made when none is named: each sector holds its own number.
pub(crate) const DEFAULT_DISK: &str = "target/disk.img";

/// After how many seconds a boot is taken to hang. All tests take a fifth of that on a computer that does nothing else, and
/// several times as long on one that is busy.
const BOOT_TIMEOUT: &str = "300";

/// The face of virtio-mmio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Version 1, of before the standard.
    Legacy,
    /// Version 2, the standard's.
    Modern,
}

impl fmt::Display for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        })
    }
}

/// A machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// RAM in MiB.
    pub(crate) memory: u32,
    /// CPUs.
    pub(crate) cpus: u32,
    /// The face of virtio-mmio.
    pub(crate) transport: Transport,
}

impl Machine {
    /// What `make run` boots.
    pub(crate) const USUAL: Self = Self { memory: 512, cpus: 1, transport: Transport::Legacy };
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}M {} smp {}", self.memory, self.transport, self.cpus)
    }
}

/// What is started, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// The file. A relative path: the kernel reads it as the first word of its command line.
    pub(crate) image: String,
    /// Further options of `scripts/qemu`; they win over those that every boot has.
    pub(crate) options: Vec<String>,
    /// What its machine has.
    pub(crate) equipment: Equipment,
}

/// The devices that can move data by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Equipment {
    /// A disk that may not be written.
    Disk,
    /// Another that may, a source of random bytes, and a network card, with everything that they are connected to.
    Everything,
}

impl Start {
    /// An image as it is usually started.
    pub(crate) fn of(image: &str) -> Self {
        Self { image: image.to_owned(), options: vec![], equipment: Equipment::Disk }
    }
}

/// Who has standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Console {
    /// UART and semihosting together.
    Run,
    /// Semihosting alone.
    Test,
}

/// What became of a run.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit status of the image, or that of `scripts/qemu`; 128 and more when a signal ended it.
    pub(crate) status: i32,
    /// Standard output.
    pub(crate) output: String,
    /// What QEMU and the script had to say. A good run is silent.
    pub(crate) complaints: String,
}

impl Ended {
    /// That of any process that was waited for.
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            status: output.status.code().unwrap_or(128),
            output: text(&output.stdout),
            complaints: text(&output.stderr),
        }
    }

    /// The last lines of all that was said, for a reader.
    pub(crate) fn tail(&self) -> String {
        let lines: Vec<&str> = self.output.lines().chain(self.complaints.lines()).collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Good when the status is `wanted` and there were no complaints.
    pub(crate) fn expect_status(&self, wanted: i32) -> Result<(), String> {
        if self.status == wanted && self.complaints.is_empty() {
            return Ok(());
        }
        Err(format!("status {}, and {wanted} was expected; it said:\n{}", self.status, self.tail()))
    }
}

/// Boots `start` on `machine` with `disk`, with `words` as the kernel's command line.
pub(crate) fn boot(
    machine: Machine,
    console: Console,
    start: &Start,
    disk: &Path,
    words: &[String],
) -> Result<Ended, String> {
    let mut command = Command::new("scripts/qemu");
    command
        .args(["--memory", &format!("{}M", machine.memory)])
        .args(["--smp", &machine.cpus.to_string()])
        .args(["--transport", &machine.transport.to_string()])
        .args(["--console", if matches!(console, Console::Run) { "run" } else { "test" }])
        .args(["--timeout", BOOT_TIMEOUT])
        .arg("--disk")
        .arg(disk)
        .args(&start.options)
        .args([&start.image, "--"])
        .args(words);
    output(&mut command)
}

/// Runs a command that reads nothing.
pub(crate) fn output(command: &mut Command) -> Result<Ended, String> {
    let output = command.stdin(Stdio::null()).output();
    let program = command.get_program().display();
    Ok(Ended::of(&output.map_err(|error| format!("{program}: {error}"))?))
}

/// Takes from a nested `make` what the outer one left for it: it is to run as if typed.
pub(crate) fn without_make(command: &mut Command) -> &mut Command {
    for inherited in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"] {
        command.env_remove(inherited);
    }
    command
}

/// The promises of the script itself, kept on a machine that is halted and never ends.
pub(crate) fn jobs() -> Vec<Job> {
    vec![
        Job::test("qemu::a_run_without_an_end_is_stopped_with_status_124", |context| {
            let ended = output(&mut halted(context, "endless", "1"))?;
            let errors: Vec<_> =
                ended.complaints.lines().filter(|line| line.starts_with("error: ")).collect();
            match (ended.status, errors.as_slice()) {
                (124, [line]) if line.contains("stopped after 1 seconds") => Ok(()),
                _ => Err(format!("status {}, and it said:\n{}", ended.status, ended.complaints)),
            }
        }),
        Job::test("qemu::a_run_that_somebody_ends_is_no_success", |context| {
            let mut command = halted(context, "killed", "60");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut running = command.spawn().map_err(|error| error.to_string())?;
            let socket = context.scratch.join("killed.gdb");
            let deadline = Instant::now() + Duration::from_secs(20);
            while !socket.exists() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(20));
            }
            let pid = running.id().to_string();
            let killed =
                // The shell's own: a small machine has no such program.
                Command::new("sh")
                    .args(["-c", &format!("kill {pid}")])
                    .status()
                    .map_err(|error| error.to_string())?;
            let status = running.wait().map_err(|error| error.to_string())?;
            match (killed.success(), status.code()) {
                (true, Some(143)) => Ok(()),
                (_, code) => Err(format!("status {code:?}, and 143 was expected")),
            }
        }),
    ]
}

/// A run that nobody starts: halted at reset, for a debugger that does not come.
fn halted(context: &Context, name: &str, seconds: &str) -> Command {
    let mut command = Command::new("scripts/qemu");
    let socket = context.scratch.join(name).with_extension("gdb");
    command
        .args(["--timeout", seconds, "--gdb", &format!("unix:{}", socket.display())])
        .arg(MAPWRIGHT);
    command
}
