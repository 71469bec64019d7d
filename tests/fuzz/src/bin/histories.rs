//! Histories of a kernel on SoftMachine, from bytes.
#![no_main]

use histories::{bytes::live_through, history::Audits};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| live_through(bytes, Audits::AtTheEnd));
