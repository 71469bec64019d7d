//! What a boot loader says, from bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| histories::boot::read(bytes));
