//! A ring whose indices have gone round. They have 16 bits, so that takes more requests than all other tests make together, and
//! nothing of the machine changes it: it runs on one of them.

use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use mm::page_alloc::Pages;
use virtio_hal::Blocks;

use super::smp::another;
use super::virtio_odd::{DISK, Odd, SECTOR, Seen, quietly, spin};

/// More requests than the ring's indices count. Other CPUs would only look on.
#[ktest]
fn every_request_is_answered_before_and_after_they_go_round() -> Completion {
    if another().is_ok() {
        return Skipped("it is the same on one CPU");
    }
    quietly(|| {
        let seen = Seen::new();
        let mut disk = Blocks::new(Odd::new(DISK, &seen)).expect("it comes up");
        // Where it need not be copied.
        let mut page = Pages::new(0).expect("memory");
        for number in 0..0x1_0010 {
            let buffer = &mut page[..SECTOR];
            assert_eq!(disk.read(number, buffer, &mut spin), Ok(()), "{number:#x}");
        }
    });
    Ran
}
