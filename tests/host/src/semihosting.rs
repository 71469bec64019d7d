//! What nobody may ask of the host: a shell, and to serve programs in User mode.
//!
//! The emulator denies programs its host calls unless it is told otherwise, and one of the kernel's own host calls runs shell
//! commands. Neither the images nor the project's text may have what it takes.

use std::fs;

use crate::context::Context;
use crate::pool::Job;
use crate::qemu::{KERNEL_TESTS, MAPWRIGHT};

/// The call that runs a shell command, and one that every image makes; in whatever letters.
const SHELL: &str = concat!("sys_", "system");
const EXIT: &str = "sys_exit_extended";

/// One job an image.
pub(crate) fn jobs() -> Vec<Job> {
    let of = |(name, image): (&str, &'static str)| {
        Job::test(
            format!("semihosting::{name}_has_no_call_of_the_hosts_shell"),
            move |_: &Context| {
                let bytes = fs::read(image).map_err(|error| format!("{image}: {error}"))?;
                calls_no_shell(&bytes).map_err(|why| format!("{image}: {why}"))
            },
        )
    };
    [("mapwright", MAPWRIGHT), ("kernel_tests", KERNEL_TESTS)].into_iter().map(of).collect()
}

/// By symbols and by what the debugger is told: a function that was inlined is named there, too.
fn calls_no_shell(image: &[u8]) -> Result<(), String> {
    let image = image.to_ascii_lowercase();
    let has = |name: &str| image.windows(name.len()).any(|window| window == name.as_bytes());
    match (has(EXIT), has(SHELL)) {
        (_, true) => Err(format!("it names {SHELL}")),
        (false, false) => Err(format!("it does not even name {EXIT}, so it has no names")),
        (true, false) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// Every file of the project that Git knows or would take, from its root.
    fn files() -> Vec<String> {
        let listed = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(root())
            .output()
            .expect("git is there: the project is its clone");
        let listed = String::from_utf8(listed.stdout).expect("names of ours are ASCII");
        let files: Vec<String> = listed.lines().map(String::from).collect();
        assert!(files.iter().any(|name| name == "scripts/qemu"), "these are other files");
        files
    }

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
    }

    fn files_with(text: &str) -> Vec<String> {
        let has = |name: &String| {
            // A file that was removed and not yet from the index has nothing.
            let bytes = fs::read(root().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).to_lowercase().contains(text)
        };
        files().into_iter().filter(has).collect()
    }

    /// S118: the host's calls stay the kernel's.
    #[test]
    fn nobody_opens_the_hosts_calls_to_programs() {
        assert_eq!(files_with(concat!("userspace", "=on")), [""; 0]);
    }

    #[test]
    fn no_code_of_ours_asks_for_the_hosts_shell() {
        assert_eq!(files_with(SHELL), [""; 0]);
    }

    #[test]
    fn an_image_that_names_the_shell_or_has_no_names_is_refused() {
        let image = |names: &[&str]| names.join("\0").into_bytes();
        assert_eq!(calls_no_shell(&image(&["SYS_EXIT_EXTENDED"])), Ok(()));
        assert!(calls_no_shell(&image(&["sys_exit_extended", SHELL])).is_err());
        assert!(calls_no_shell(&image(&["kernel_main"])).is_err());
    }
}
