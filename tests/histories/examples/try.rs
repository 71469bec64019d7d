//! One input of the fuzzer's, without the fuzzer: says what it stands for, and where it fails.
//!
//!     cargo run -p histories --example try -- histories|boot FILE...

use histories::{boot, bytes, history::Audits};
use std::{env, fs, process::ExitCode};

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let target = arguments.next().unwrap_or_default();
    for file in arguments {
        let input = match fs::read(&file) {
            Ok(input) => input,
            Err(error) => {
                eprintln!("error: {file}: {error}");
                return ExitCode::FAILURE;
            }
        };
        match target.as_str() {
            "histories" => {
                // Before it is lived through: nothing may come after.
                let (behaviour, steps) = bytes::decode(&input);
                println!("{file}: on {behaviour:?}");
                for step in steps {
                    println!("    {step:?}");
                }
                bytes::live_through(&input, Audits::AfterEachStep);
            }
            "boot" => boot::read(&input),
            _ => {
                eprintln!("error: there is no target {target:?}");
                return ExitCode::FAILURE;
            }
        }
        println!("{file}: comes to a good end");
    }
    ExitCode::SUCCESS
}
