//! A network card with a peer on the host (`tests/host`, `devices`): each frame is compared by who gets it.
//!
//! ```text
//!   the kernel                                   the peer
//!   ASK seed, count                        ──▶
//!                                          ◀──   DATA 0, DATA 1, … all at once: more than the queue has places
//!   ANSWER 0: the bytes, each changed      ──▶   compares
//!   …
//!                                          ◀──   VERDICT: how many were right, and which was the first that was not
//! ```

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use dma::bounce::{is_forced, usage};
use dma::coherent::CoherentBox;
use drivers::virtio::completion::Completion as DeviceInterrupt;
use drivers::virtio::network::{Network, QUEUE, Steady, is_network};
use drivers::virtio::{DeviceError, RequestError, Wait};
use ktest::Completion;
use ktest::{assert_err, ktest};
use mm::page_alloc::Pages;
use virtio_drivers::Error;

use super::virtio_devices::{DEVICE, assert_known, known_byte, with_device, without_memory};

pub(super) const NONE: &str = "no virtio slot holds a network card";

/// Frames of one test: the queue is used up many times.
const FRAMES: u32 = 200;
const _: () = assert!(FRAMES as usize > 10 * QUEUE);
/// Bytes of a buffer: a whole frame and the device's header.
const BUFFER_BYTES: u32 = 2048;
pub(super) const BUFFER: usize = BUFFER_BYTES as usize;

/// Destination, source, and a type for private use (IEEE 802, local experimental).
const HEADER: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
pub(super) const ASK: u8 = 1;
const DATA: u8 = 2;
const ANSWER: u8 = 3;
const VERDICT: u8 = 4;
/// In a verdict: nothing was wrong.
pub(super) const NO_FRAME: u32 = u32::MAX;
pub(super) const WRONG: &str = "the peer got another frame than was sent";

static INTERRUPT: DeviceInterrupt = DeviceInterrupt::new();

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    u32::from_le_bytes(word.expect("a frame that has these bytes"))
}

/// How many bytes frame `number` carries, and what they are made of.
fn carried(seed: u32, number: u32) -> (usize, u64) {
    let seed = u64::from(seed) << 32 | u64::from(number);
    let length = u16::from_le_bytes([known_byte(seed, 0), known_byte(seed, 1)]);
    (usize::from(length) % 1480 + 1, seed)
}

pub(super) fn frame(kind: u8, number: u32, rest: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let begin = HEADER.into_iter().chain([kind]).chain(number.to_le_bytes());
    begin.chain(rest).collect()
}

/// What is to be sent for `bytes`, which must be frame `number` of the peer's.
pub(super) fn answer_to(bytes: &[u8], seed: u32, number: u32) -> Vec<u8> {
    let begin = frame(DATA, number, []);
    let start = &bytes[..bytes.len().min(24)];
    assert!(bytes.starts_with(&begin), "frame {number} begins with {start:02x?}");
    let (length, seed) = carried(seed, number);
    assert_eq!(bytes.len(), begin.len() + length, "frame {number}");
    let data = &bytes[begin.len()..];
    assert_known(data, seed, 0, "a frame of the peer's");
    frame(ANSWER, number, data.iter().rev().map(|byte| !byte))
}

/// What the peer thinks of `count` answers.
pub(super) fn verdict(bytes: &[u8], count: u32) -> u32 {
    assert!(bytes.starts_with(&frame(VERDICT, count, [])), "{bytes:02x?}");
    word(bytes, 19)
}

/// Talks with the peer over buffers that `make` makes: `incoming` for what comes, and half of that for what goes.
fn talk<B: Steady>(seed: u32, incoming: usize, make: impl Fn() -> B) -> Completion {
    with_device(is_network, NONE, &INTERRUPT, |slot| {
        let before = INTERRUPT.taken();
        let make = |count| (0..count).map(|_| make()).collect::<Vec<B>>();
        let buffers = (make(incoming), make(incoming / 2));
        let mut card = Network::new(slot, Wait::Interrupt, buffers).expect("a card that comes up");
        let ask = frame(ASK, seed, FRAMES.to_le_bytes());
        assert_eq!(card.send(&ask), Ok(()));
        for number in 0..FRAMES {
            let answer = card.receive(|bytes| answer_to(bytes, seed, number));
            assert_eq!(card.send(&answer.expect("a frame")), Ok(()));
        }
        // With few buffers the last frame is on its way when the card goes.
        if incoming > 2 {
            assert_eq!(card.flush(), Ok(()));
            assert_eq!(virtio_hal::shared_buffers(), incoming, "buffers of frames that are sent");
        }
        assert_eq!(card.receive(|bytes| verdict(bytes, FRAMES)), Ok(NO_FRAME), "{WRONG}");
        assert!(INTERRUPT.taken() != before, "nobody was woken");
        // Buffers for frames to come are left: the end of the card takes them back.
        drop(card);
    })
}

/// Mapped in place, or copied where everything is.
#[ktest]
fn frames_go_both_ways_in_the_linear_map() -> Completion {
    // Where each page is copied, those for frames to come are to leave some room for those that are sent.
    let has_room = !is_forced() || usage().slots > 32;
    let incoming = if has_room { QUEUE } else { QUEUE / 2 };
    talk(0x1111, incoming, || Pages::new(0).expect("memory"))
}

/// Copied.
#[ktest]
fn frames_go_both_ways_in_the_heap() -> Completion {
    talk(0x5555, QUEUE, || vec![0xee_u8; BUFFER])
}

#[ktest]
fn frames_go_both_ways_in_coherent_memory() -> Completion {
    talk(0x2222, QUEUE / 2, || CoherentBox::new(&DEVICE, BUFFER_BYTES).expect("memory"))
}

#[ktest]
fn frames_go_both_ways_in_the_atomic_pool() -> Completion {
    talk(0x3333, QUEUE / 2, || {
        arch::irq::masked(|| CoherentBox::new_atomic(&DEVICE, BUFFER_BYTES)).expect("room")
    })
}

/// With one buffer a way, each frame has to wait for the last.
#[ktest]
fn frames_go_both_ways_one_at_a_time() -> Completion {
    talk(0x4444, 2, || Pages::new(0).expect("memory"))
}

/// Its two rings want four pages; with less it does not come up, and takes nothing.
#[ktest]
fn a_card_without_memory_for_its_rings_takes_nothing() -> Completion {
    with_device(is_network, NONE, &INTERRUPT, |slot| {
        for frames in 0..4 {
            let buffers = (Vec::<Pages>::new(), Vec::new());
            let refused =
                without_memory(frames, || Network::new(slot, Wait::Interrupt, buffers).map(drop));
            assert_eq!(
                refused,
                Err(DeviceError::Device(RequestError::Device(Error::DmaError))),
                "{frames}"
            );
        }
    })
}

#[ktest]
fn buffers_that_are_never_used_are_taken_back() -> Completion {
    with_device(is_network, NONE, &INTERRUPT, |slot| {
        let make = |count, bytes| (0..count).map(|_| vec![0_u8; bytes]).collect::<Vec<_>>();
        for count in [0, 1, QUEUE] {
            let buffers = (make(count, BUFFER), make(1, BUFFER));
            let mut card = Network::new(slot, Wait::Interrupt, buffers).expect("it comes up");
            assert_eq!(virtio_hal::shared_buffers(), count);
            // Its only buffer is there for the next.
            for _ in 0..2 {
                let refused = RequestError::Device(Error::InvalidParam);
                assert_eq!(card.send(&[0; BUFFER]), Err(refused));
                assert_eq!(virtio_hal::shared_buffers(), count);
            }
        }
        let mut card = Network::new(slot, Wait::Interrupt, (make(1, BUFFER), make(0, BUFFER)))
            .expect("it comes up");
        assert_eq!(card.send(&[0; 60]), Err(RequestError::Device(Error::QueueFull)));
        drop(card);
        // What a frame does not fit into is refused, and what the device had is taken back.
        let buffers = (make(3, 1000), make(1, BUFFER));
        let refused = DeviceError::Device(RequestError::Device(Error::InvalidParam));
        assert_err!(Network::new(slot, Wait::Interrupt, buffers), error if error == refused);
        let buffers = (make(QUEUE + 1, BUFFER), make(1, BUFFER));
        let refused = DeviceError::Device(RequestError::Device(Error::QueueFull));
        assert_err!(Network::new(slot, Wait::Interrupt, buffers), error if error == refused);
    })
}
