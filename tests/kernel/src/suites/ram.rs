//! How much RAM there is (S117).

use image::start;
use ktest::ktest;

#[ktest]
fn probing_finds_as_much_ram_as_the_host_tells_of() {
    let ram = start::started().expect("the kernel has started").ram;
    let told = ram.told.expect("a host that tells");
    assert_eq!(ram.probed, told);
    assert!(ram.used <= told);
}

#[ktest]
fn every_frame_of_ram_has_a_record_s117() {
    let ram = start::started().expect("the kernel has started").ram;
    assert_eq!(mm::kernel().zones().total(), ram.used / 4096);
}
