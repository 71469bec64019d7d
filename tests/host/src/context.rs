//! What a whole run of the tests agrees on.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use clap::Args;

use crate::junit;
use crate::qemu::{KERNEL_TESTS, Start};
use crate::witness::Witnessed;

/// The file by which a run knows the folder that an earlier one has made.
const OURS: &str = ".made-by-the-tests";

/// What the user may choose.
#[derive(Args, Debug, Default)]
pub(crate) struct Options {
    /// Only tests whose name contains this, or is this when it begins with =
    #[arg(long)]
    filter: Option<String>,
    /// The seed of every order and every random disk
    #[arg(long)]
    seed: Option<u32>,
    /// Only this memory size, such as 512M
    #[arg(long, value_parser = mebibytes)]
    memory: Option<u32>,
    /// How many emulators run at once
    #[arg(long)]
    jobs: Option<usize>,
    /// Only the in-kernel tests of this image, on one machine
    #[arg(long)]
    image: Option<String>,
    /// The most that a boot of that image may take, in seconds
    #[arg(long, requires = "image")]
    timeout: Option<u32>,
    /// Where results are written
    #[arg(long, default_value = "target")]
    output: PathBuf,
}

/// What every test may know.
#[derive(Debug)]
pub(crate) struct Context {
    /// Only tests whose name contains this, or is this when it begins with `=`.
    pub(crate) filter: Option<String>,
    /// The seed of every order and every random disk.
    pub(crate) seed: u32,
    /// The memory size asked for, in MiB.
    pub(crate) memory: Option<u32>,
    /// How many emulators run at once.
    pub(crate) jobs: usize,
    /// The image that alone is to be tested.
    pub(crate) image: Option<String>,
    /// The most that a boot of it may take, in seconds.
    timeout: Option<u32>,
    /// Where results are written.
    pub(crate) output: PathBuf,
    /// A folder for what the tests make, empty at the start. Its path is relative and has no spaces.
    pub(crate) scratch: PathBuf,
    /// What the witnesses agreed about, in all boots.
    witnessed: Mutex<Witnessed>,
}

impl Context {
    /// Settles what the user left open.
    pub(crate) fn new(options: Options) -> Result<Self, String> {
        let output = options.output;
        // What an earlier run left must not pass for the results of this one.
        match fs::remove_file(output.join(junit::FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("{}: {error}", output.display()));
            }
            _ => {}
        }
        let scratch = make_scratch(&output)?;
        let filter = options.filter.filter(|filter| !filter.is_empty());
        if filter.as_ref().is_some_and(|filter| filter.contains(char::is_whitespace)) {
            return Err("a filter is a part of a name, and names have no spaces".into());
        }
        let cpus = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            filter,
            seed: options.seed.unwrap_or_else(seed_of_the_clock),
            memory: options.memory,
            jobs: options.jobs.unwrap_or_else(cpus).max(1),
            image: options.image,
            timeout: options.timeout,
            output,
            scratch,
            witnessed: Mutex::default(),
        })
    }

    /// One that makes no folder, with seed 7.
    #[cfg(test)]
    pub(crate) fn test(options: Options, scratch: PathBuf) -> Self {
        Self {
            filter: options.filter,
            seed: 7,
            memory: options.memory,
            jobs: 1,
            image: options.image,
            timeout: options.timeout,
            output: scratch.clone(),
            scratch,
            witnessed: Mutex::default(),
        }
    }

    /// Counts what was witnessed on one machine.
    pub(crate) fn add_witnessed(&self, more: &Witnessed) {
        self.witnessed.lock().unwrap_or_else(PoisonError::into_inner).add_all(more);
    }

    /// What was witnessed on all of them.
    pub(crate) fn witnessed(&self) -> Witnessed {
        self.witnessed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The image of the in-kernel tests, and how it is started.
    pub(crate) fn start(&self) -> Start {
        let limit = self.timeout.map(|seconds| ["--timeout".to_owned(), seconds.to_string()]);
        let image = self.image.as_deref().unwrap_or(KERNEL_TESTS);
        Start { options: limit.into_iter().flatten().collect(), ..Start::of(image) }
    }

    /// Whether a test of this name was asked for: by a part of it, or by `=` and the whole.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| match filter.strip_prefix('=') {
            Some(whole) => name == whole,
            None => name.contains(filter),
        })
    }
}

/// Makes the folder `test` in `output`, empty. What stands there is removed only if an earlier run has made it.
fn make_scratch(output: &Path) -> Result<PathBuf, String> {
    if output.as_os_str().to_string_lossy().contains(char::is_whitespace) {
        return Err(format!("{}: the folder of results has a space in its name", output.display()));
    }
    let scratch = output.join("test");
    let failed = |error: io::Error| format!("{}: {error}", scratch.display());
    if scratch.exists() {
        // All of `target/` is this project's own, and can be removed at any time.
        if output != Path::new("target") && !scratch.join(OURS).exists() {
            let place = scratch.display();
            return Err(format!("{place} is in the way: no run of the tests has made it"));
        }
        fs::remove_dir_all(&scratch).map_err(failed)?;
    }
    fs::create_dir_all(&scratch).map_err(failed)?;
    fs::write(scratch.join(OURS), "").map_err(failed)?;
    Ok(scratch)
}

fn seed_of_the_clock() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.subsec_nanos())
}

/// `512`, `512M` or `1G`, in MiB.
fn mebibytes(text: &str) -> Result<u32, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'G' | b'g') => (&text[..text.len() - 1], 1024),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1),
        _ => (text, 1),
    };
    let count: u32 = digits.parse().map_err(|_| format!("{text} is no size such as 512M"))?;
    count.checked_mul(unit).ok_or_else(|| format!("{text} is more than there are addresses"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes_are_mebibytes_unless_they_say_gibibytes() {
        assert_eq!(mebibytes("512"), Ok(512));
        assert_eq!(mebibytes("777M"), Ok(777));
        assert_eq!(mebibytes("1G"), Ok(1024));
        for wrong in ["", "M", "512K", "-1", "4194304G", "5 12"] {
            assert!(mebibytes(wrong).is_err(), "{wrong}");
        }
    }

    /// A folder that is removed in the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a temporary folder can be made");
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_an_earlier_run_has_left_is_removed() {
        let output = Folder::new("scratch-again");
        for _ in 0..2 {
            let scratch = make_scratch(&output.0).expect("nothing but its own is in the way");
            assert!(!scratch.join("left").exists());
            fs::write(scratch.join("left"), "").expect("the folder is there");
        }
    }

    #[test]
    fn a_folder_that_somebody_else_has_made_is_left_alone() {
        let output = Folder::new("scratch-of-others");
        let file = output.0.join("test").join("precious");
        fs::create_dir(output.0.join("test")).expect("a folder can be made in it");
        fs::write(&file, "years of work").expect("a file can be made in it");
        let refusal = make_scratch(&output.0).expect_err("it is somebody else's");
        assert!(refusal.contains("is in the way"), "{refusal}");
        assert_eq!(fs::read_to_string(file).expect("it is still there"), "years of work");
    }

    #[test]
    fn a_folder_with_a_space_in_its_name_is_refused() {
        assert!(make_scratch(Path::new("my results")).is_err());
    }
}
