//! Who told the kernel of RAM and command line (S111, S114), by what the host says of the same boot.

use arch::probe;
use arch::semihosting;
use board::vexpress_a9::{RAM_BASE, SCU, SRAM};
use image::loader::Source;
use image::start::{self, Started};
use kerncore::addr::VirtAddr;
use ktest::{Completion, ktest};
use mm::io_mem::IoMem;

fn started() -> &'static Started {
    start::started().expect("the kernel has started")
}

/// Whether the host has loaded a raw image: the kernel's path is its command line's first word.
fn is_raw() -> bool {
    let mut buffer = [0; 2048];
    let line = semihosting::command_line(&mut buffer).expect("a host that tells");
    let path = line.split(' ').next().and_then(|path| path.rsplit_once('.'));
    path.is_some_and(|(_, extension)| extension == "bin")
}

#[ktest]
fn a_raw_image_is_told_by_its_loader_and_an_elf_by_the_host_s114() {
    assert_eq!(started().source != Source::Host, is_raw(), "{:?}", started().source);
}

#[ktest]
fn the_loader_s_ram_is_the_host_s_s111() -> Completion {
    if started().source == Source::Host {
        return Completion::Skipped("the image is no raw one");
    }
    let host = semihosting::ram_end().and_then(|end| end.checked_sub(RAM_BASE));
    assert!(host.is_some());
    assert_eq!(started().ram.told, host);
    assert_eq!(started().ram.probed, started().ram.told.expect("told"));
    Completion::Ran
}

/// The emulator's code that holds the other CPUs (ARM): it asks their interrupt interface for one that wakes them, waits, and
/// looks for an address in `SYS_FLAGS`; then the two addresses that it works with.
const PEN: [u32; 14] = [
    0xe59f_2028,
    0xe59f_0028,
    0xe3a0_1001,
    0xe582_1000,
    0xe3a0_10ff,
    0xe582_1004,
    0xf57f_f04f,
    0xe320_f003,
    0xe590_1000,
    0xe111_0001,
    0x0aff_fffb,
    0xe12f_ff11,
    0x1e00_0100,
    0x1000_0030,
];

#[ktest]
fn the_pen_of_the_other_cpus_is_as_the_loader_left_it_s111() -> Completion {
    if started().source == Source::Host || cpus() == 1 {
        return Completion::Skipped("no CPU waits in a pen");
    }
    let pen = IoMem::<[u32; 16]>::map(SRAM.base).expect("addresses");
    for (word, wanted) in (0..).zip(PEN) {
        let address = VirtAddr::new(pen.address().raw() + word * 4);
        let found = probe::read_u32(address).expect("it is mapped");
        assert_eq!(found, wanted, "word {word}");
    }
    Completion::Ran
}

/// CPUs that share the snoop control unit, by the low bits of its configuration register.
fn cpus() -> u32 {
    let scu = IoMem::<[u32; 2]>::map(SCU.base).expect("addresses");
    let configuration = VirtAddr::new(scu.address().raw() + 4);
    (probe::read_u32(configuration).expect("it is mapped") & 3) + 1
}
