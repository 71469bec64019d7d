//! Writes the symbol table into a linked image.
//!
//! The kernel names functions in its backtraces by itself, with no host at hand, so the names must be part of it. They
//! are known only once it is linked; therefore the linker script reserves a read-only section, `.ksyms`, and this
//! program fills it in a copy of the image. Addresses do not move by that, and an image that was never filled simply
//! has no names.
//!
//! The same copy is written once more as it lies in memory, for loaders that know no ELF.
//!
//! ```text
//! ksyms IMAGE COPY RAW
//! ```

mod flat;
mod image;
mod table;

use std::process::ExitCode;
use std::{env, fs};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let [image, copy, raw] = arguments.as_slice() else {
        eprintln!("error: ksyms: usage: ksyms IMAGE COPY RAW");
        return ExitCode::from(2);
    };
    let filled = fs::read(image)
        .map_err(|error| error.to_string())
        .and_then(|mut bytes| {
            image::fill(&mut bytes).map_err(|error| error.to_string())?;
            let flat = flat::flatten(&bytes).map_err(|error| error.to_string())?;
            Ok((bytes, flat))
        })
        .map_err(|error| format!("{}: {error}", image.display()));
    let written = filled.and_then(|(bytes, flat)| {
        for (path, bytes) in [(raw, flat), (copy, bytes)] {
            fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: ksyms: {message}");
            ExitCode::FAILURE
        }
    }
}
