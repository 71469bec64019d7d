//! A source of random bytes, which under test has known ones: the host gave the emulator a file of them (`tests/host`,
//! `devices`).
//!
//! A source without that file is not taken for a reason to skip, since wrong bytes would be one as well.

extern crate alloc;

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use drivers::virtio::block::Disk;
use drivers::virtio::completion::Completion as DeviceInterrupt;
use drivers::virtio::entropy::{Entropy, is_entropy};
use drivers::virtio::transport::SlotError;
use drivers::virtio::{DeviceError, RequestError, Wait};
use ktest::Completion;
use ktest::{assert_err, ktest};
use mm::io_mem::IoMem;
use virtio_drivers::Error;
use virtio_hal::Slot;

use super::virtio_devices::{KINDS, assert_known, with_device, without_memory};

const NONE: &str = "no virtio slot holds a source of random bytes";

/// What the file's bytes are made of.
const SEED: u64 = 0x6d61_7077_7269_6768;

/// How many of them came in this boot.
static CAME: AtomicU64 = AtomicU64::new(0);

static INTERRUPT: DeviceInterrupt = DeviceInterrupt::new();

pub(super) fn with_source(test: impl FnOnce(&mut IoMem<Slot>)) -> Completion {
    with_device(is_entropy, NONE, &INTERRUPT, test)
}

/// Asks for bytes, and sees that they are the next ones.
#[track_caller]
pub(super) fn fill(source: &mut Entropy<'_>, buffer: &mut [u8], what: &str) {
    buffer.fill(0xee);
    assert_eq!(source.fill(buffer), Ok(()), "{what}");
    let from = CAME.fetch_add(buffer.len() as u64, Relaxed);
    assert_known(buffer, SEED, from, what);
}

/// S115: asleep until the device says that it is done, by one interrupt a request.
#[ktest]
fn bytes_come_as_the_host_has_them_into_memory_of_each_kind() -> Completion {
    with_source(|slot| {
        let mut source = Entropy::new(slot, Wait::Interrupt).expect("a device that comes up");
        let mut requests = 0;
        let before = INTERRUPT.taken();
        for kind in KINDS {
            let mut memory = kind.memory(5000);
            for (first, bytes) in [(0, 1), (3, 7), (64, 32), (0, 4096), (1, 4097), (0, 5000)] {
                memory.fill(0x11);
                fill(&mut source, &mut memory[first..first + bytes], "bytes");
                let beside = memory[..first].iter().chain(&memory[first + bytes..]);
                assert!(beside.copied().all(|byte| byte == 0x11), "{kind:?}: bytes beside");
                requests += 1;
            }
        }
        let interrupts = INTERRUPT.taken().wrapping_sub(before);
        assert!((requests..2 * requests).contains(&interrupts), "{interrupts} of {requests}");
    })
}

#[ktest]
fn bytes_differ_and_all_values_come() -> Completion {
    with_source(|slot| {
        let mut source = Entropy::new(slot, Wait::Interrupt).expect("a device that comes up");
        let mut bytes = alloc::vec![0; 16 << 10];
        fill(&mut source, &mut bytes, "many bytes");
        let mut counts = [0_u32; 256];
        for &byte in &bytes {
            counts[usize::from(byte)] += 1;
        }
        // Of 64 expected each; outside lie fewer than one of a hundred million such files.
        let odd = counts.iter().position(|count| !(16..=128).contains(count));
        assert_eq!(odd, None, "a value that comes too rarely or too often");
        let same = bytes.chunks(8).zip(bytes.chunks(8).skip(1)).any(|(one, other)| one == other);
        assert!(!same, "eight bytes twice");
    })
}

/// Where one may not sleep, or with interrupts masked, the ring is looked at; on the stack, at an odd address.
#[ktest]
fn bytes_are_polled_for_with_interrupts_masked() -> Completion {
    with_source(|slot| {
        let mut source = Entropy::new(slot, Wait::Polling).expect("a device that comes up");
        let mut stack = [0; 100];
        arch::irq::masked(|| fill(&mut source, &mut stack[7..71], "on the stack"));
        assert_eq!(source.fill(&mut []), Ok(()), "nothing is asked for");
    })
}

#[ktest]
fn a_source_without_memory_for_its_ring_takes_nothing() -> Completion {
    with_source(|slot| {
        let refused = without_memory(0, || Entropy::new(slot, Wait::Interrupt).map(drop));
        assert_eq!(refused, Err(DeviceError::Device(RequestError::Device(Error::DmaError))));
        let mut source = Entropy::new(slot, Wait::Interrupt).expect("a device that comes up now");
        fill(&mut source, &mut [0; 16], "now");
    })
}

#[ktest]
fn it_comes_up_again_and_again_and_is_no_disk() -> Completion {
    with_source(|slot| {
        for round in 0..10 {
            let mut source = Entropy::new(slot, Wait::Interrupt).expect("a device that comes up");
            let mut bytes = [0; 32];
            // Every other time without a request in between.
            if round % 2 == 0 {
                fill(&mut source, &mut bytes, "again");
            }
        }
        let refused = SlotError::Other { device: 4, wanted: 2 };
        assert_err!(Disk::new(slot, Wait::Polling), DeviceError::Slot(error) if error == refused);
        let error = RequestError::Device(Error::InvalidParam);
        assert_eq!(alloc::format!("{error}"), "Invalid parameter");
    })
}
