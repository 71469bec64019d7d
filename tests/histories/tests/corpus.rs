//! Everything that the fuzzer begins with, lived through once more without it.

use histories::history::Audits;
use std::{fs, path::Path};

/// The inputs of a target, by name.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).expect("the corpus is part of the project");
    let mut inputs: Vec<_> = files
        .map(|file| {
            let path = file.expect("a file of the corpus").path();
            (path.display().to_string(), fs::read(&path).expect("a file that can be read"))
        })
        .collect();
    inputs.sort();
    assert!(inputs.len() > 10, "{target}: {} inputs are no corpus", inputs.len());
    inputs
}

#[test]
fn every_history_of_the_corpus_comes_to_a_good_end() {
    for (name, bytes) in inputs("histories") {
        println!("{name}");
        histories::bytes::live_through(&bytes, Audits::AfterEachStep);
    }
}

#[test]
fn whatever_a_loader_of_the_corpus_says_is_read_or_named() {
    for (name, bytes) in inputs("boot") {
        println!("{name}");
        histories::boot::read(&bytes);
    }
}
