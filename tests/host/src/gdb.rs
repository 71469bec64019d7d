//! The debugger's view: `make gdb`, driven by a script as a user would drive it.

use std::fs;
use std::process::Command;

use crate::context::Context;
use crate::pool::Job;
use crate::qemu::{self, Ended};

/// What each stop of a session must show: the words that head it, and what the backtrace below them has, in order.
type Stops = &'static [(&'static str, &'static [&'static str])];

/// What `scripts/gdb` says when QEMU's log of errors is not empty.
const TOUCHED: &str = "touched what is not there";

/// From reset to Rust: the last code at physical addresses, the first at virtual ones, and a Rust path.
const BOOT: &str = "\
tbreak build_tables
tbreak boot_high
tbreak mapwright::kernel::kernel_main
continue
echo @ before the MMU is on\\n
backtrace
continue
echo @ after the MMU is on\\n
backtrace
continue
echo @ on a Rust path\\n
backtrace
";
const BOOT_STOPS: Stops = &[
    ("before the MMU is on", &["#0 ", "build_tables", "#1 ", "_start"]),
    ("after the MMU is on", &["#0 ", "boot_high"]),
    ("on a Rust path", &["#0 ", "mapwright::kernel::kernel_main", "#1 ", "boot_high"]),
];

/// By a C name, in the test image, where a suite calls it.
const VMALLOC: &str = "\
tbreak vmalloc
continue
echo @ on vmalloc\\n
backtrace
info registers pc
";
const VMALLOC_STOPS: Stops =
    &[("on vmalloc", &["#0 ", "vmalloc", "#1 ", "kernel_main", "pc ", "0x8"])];

/// The sessions.
pub(crate) fn jobs() -> Vec<Job> {
    let session = |name: &'static str, image: &'static str, script: &'static str, stops: Stops| {
        Job::test(format!("gdb::{name}"), move |context| {
            let ended = make_gdb(context, name, image, script)?;
            shows(stops, &ended)
        })
    };
    vec![
        session("stops_before_and_after_the_mmu_is_on", "mapwright", BOOT, BOOT_STOPS),
        session("stops_on_vmalloc_by_its_c_name", "kernel-tests", VMALLOC, VMALLOC_STOPS),
    ]
}

/// `make gdb GDBFLAGS='-batch -x FILE'`.
fn make_gdb(context: &Context, name: &str, image: &str, script: &str) -> Result<Ended, String> {
    let file = context.scratch.join(name).with_extension("gdb");
    fs::write(&file, script).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut command = Command::new("make");
    command
        .args(["--no-print-directory", "gdb", &format!("IMAGE={image}")])
        .arg(format!("GDBFLAGS=-batch -x {}", file.display()));
    qemu::output(qemu::without_make(&mut command))
}

/// Whether the session was good, and every stop shows what it must.
fn shows(stops: Stops, ended: &Ended) -> Result<(), String> {
    let missing =
        |what: &str| format!("{what}; status {}, and it said:\n{}", ended.status, ended.tail());
    if ended.status != 0 {
        return Err(missing("gdb was not content"));
    }
    // These sessions read nothing but the image's own.
    if ended.complaints.contains(TOUCHED) {
        return Err(missing("guest_errors has something"));
    }
    for (heading, words) in stops {
        let begin = format!("@ {heading}");
        let Some((_, text)) = ended.output.split_once(&begin) else {
            return Err(missing(&format!("it never stopped {heading}")));
        };
        let mut rest = text.split("\n@ ").next().unwrap_or(text);
        for word in *words {
            rest = match rest.split_once(word) {
                Some((_, rest)) => rest,
                None => return Err(missing(&format!("{heading}, `{word}` is not in its place"))),
            };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOPS: Stops = &[("here", &["#0 ", "a", "#1 ", "b"]), ("there", &["#0 ", "c"])];

    fn session(output: &str) -> Ended {
        Ended { status: 0, output: output.into(), complaints: String::new() }
    }

    #[test]
    fn every_stop_must_show_its_frames_in_order() {
        assert!(shows(STOPS, &session("@ here\n#0 a\n#1 b\n@ there\n#0 c\n")).is_ok());
        for wrong in [
            "",
            "@ here\n#0 a\n#1 b\n",
            "@ here\n#0 b\n#1 a\n@ there\n#0 c\n",
            "@ here\n#0 a\n@ there\n#0 c\n#1 b\n",
            "@ there\n#0 c\n@ here\n#0 a\n",
        ] {
            assert!(shows(STOPS, &session(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_session_in_which_something_touched_a_hole_is_no_good_whatever_it_showed() {
        let mut ended = session("@ here\n#0 a\n#1 b\n@ there\n#0 c\n");
        ended.complaints = format!("warning: gdb: the image, or gdb, {TOUCHED}:\nInvalid read\n");
        assert!(shows(STOPS, &ended).is_err());
    }

    #[test]
    fn a_session_that_gdb_gave_up_is_no_good_whatever_it_showed() {
        let mut ended = session("@ here\n#0 a\n#1 b\n@ there\n#0 c\n");
        ended.status = 1;
        assert!(shows(STOPS, &ended).is_err());
    }
}
