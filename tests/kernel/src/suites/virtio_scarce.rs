//! Devices while there is no room for copies (S106): a request is refused by a value that names device, size and reason, nothing of it
//! stays, and when there is room again the very same device goes on.

extern crate alloc;

use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::ops::RangeInclusive;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use arch::smp;
use dma::bounce::usage;
use dma::streaming::MapError;
use drivers::virtio::block::{Disk, SECTOR, is_disk};
use drivers::virtio::completion::Completion as DeviceInterrupt;
use drivers::virtio::entropy::Entropy;
use drivers::virtio::network::{Network, QUEUE, is_network};
use drivers::virtio::{DeviceError, RequestError, Wait};
use kerncore::bounce::SLOT;
use ktest::Completion::{self, Skipped};
use ktest::ktest;
use virtio_hal::shared_buffers;

use super::hoard::Hoard;
use super::smp::another;
use super::virtio_devices::{KINDS, Kind, assert_known, fill_known, slot_with, with_device};
use super::virtio_net::{self, ASK, BUFFER, NO_FRAME, WRONG, answer_to, frame, verdict};
use super::virtio_rng::{fill, with_source};
use super::virtio_write::{self, is_writable};

const SOURCE: &str = "virtio source of random bytes";
const NO_DISK: &str = "no virtio slot holds a disk";

static INTERRUPT: DeviceInterrupt = DeviceInterrupt::new();

/// The refusal names the device, how many bytes, and how many slots were free; and nothing was taken.
#[track_caller]
fn assert_refused<R: Debug>(
    ask: impl FnOnce() -> Result<R, RequestError>,
    (wanted, sizes, slots): (&str, RangeInclusive<usize>, u32),
) {
    let before = (shared_buffers(), usage());
    let refused = ask();
    assert_eq!((shared_buffers(), usage()), before, "after {refused:?}");
    let Err(error @ RequestError::Buffer { device, bytes, error: why }) = refused else {
        panic!("{refused:?}, with {:?}", usage());
    };
    assert_eq!(device, wanted);
    assert!(sizes.contains(&(bytes as usize)), "{error}");
    let MapError::Exhausted { error: short, .. } = why else { panic!("{why}") };
    assert_eq!((short.device, short.bytes, short.free), (wanted, bytes, slots));
    let text = error.to_string();
    assert!(text.starts_with(wanted) && text.contains(&bytes.to_string()), "{text}");
}

/// Of just so many bytes.
fn of(bytes: usize) -> RangeInclusive<usize> {
    bytes..=bytes
}

#[ktest]
fn a_disk_is_not_read_into_a_copy_that_there_is_no_room_for() -> Completion {
    const BYTES: usize = 8 * SECTOR;
    with_device(is_disk, NO_DISK, &INTERRUPT, |slot| {
        let mut disk = Disk::new(slot, Wait::Interrupt).expect("a disk that comes up");
        let mut wanted = alloc::vec![0; BYTES];
        assert_eq!(disk.read(5, &mut wanted), Ok(()));
        let mut memories = KINDS.map(|kind| (kind, kind.memory(BYTES)));
        let hoard = Hoard::all_but(1);
        // More often than a queue has places.
        for _ in 0..20 {
            for (kind, memory) in &mut memories {
                memory.fill(0xee);
                let before = INTERRUPT.taken();
                if kind.is_copied() {
                    assert_refused(|| disk.read(5, memory), ("virtio disk", of(BYTES), 1));
                    assert!(memory.iter().all(|&byte| byte == 0xee), "{kind:?} was written");
                    assert_eq!(INTERRUPT.taken(), before, "the device was asked");
                } else {
                    assert_eq!(disk.read(5, memory), Ok(()), "{kind:?} wants no copy");
                    assert!(**memory == *wanted, "{kind:?} differs");
                }
            }
        }
        drop(hoard);
        for (kind, memory) in &mut memories {
            memory.fill(0xee);
            assert_eq!(disk.read(5, memory), Ok(()), "{kind:?}, with room again");
            assert!(**memory == *wanted, "{kind:?} differs");
        }
    })
}

#[ktest]
fn a_disk_is_not_written_from_a_copy_that_there_is_no_room_for() -> Completion {
    const BYTES: usize = 8 * SECTOR;
    /// Behind what the host looks for; there it looks for zeroes.
    const FIRST: u64 = 300;
    with_device(is_writable, virtio_write::NONE, &INTERRUPT, |slot| {
        let mut disk = Disk::new(slot, Wait::Interrupt).expect("a disk that comes up");
        let mut heap = Kind::Heap.memory(BYTES);
        let mut there = Kind::Coherent.memory(BYTES);
        fill_known(&mut heap, 7, 0);
        let hoard = Hoard::all_but(0);
        for _ in 0..20 {
            assert_refused(|| disk.write(FIRST, &heap), ("virtio disk", of(BYTES), 0));
            assert_known(&heap, 7, 0, "what was to be written has changed");
        }
        assert_eq!(disk.read(FIRST, &mut there), Ok(()));
        assert!(there.iter().all(|&byte| byte == 0), "it was written");
        drop(hoard);
        assert_eq!(disk.write(FIRST, &heap), Ok(()));
        assert_eq!(disk.read(FIRST, &mut there), Ok(()));
        assert_known(&there, 7, 0, "written with room again");
        heap.fill(0);
        assert_eq!(disk.write(FIRST, &heap), Ok(()));
    })
}

/// What is left is enough for some requests and not for others, whichever came before.
#[ktest]
fn a_request_takes_no_more_than_its_buffer_wants() -> Completion {
    const LEFT: u32 = 16;
    with_device(is_disk, NO_DISK, &INTERRUPT, |slot| {
        let mut disk = Disk::new(slot, Wait::Interrupt).expect("a disk that comes up");
        let mut wanted = Kind::Coherent.memory(64 << 10);
        assert_eq!(disk.read(0, &mut wanted), Ok(()));
        let mut heap = Kind::Heap.memory(64 << 10);
        let _hoard = Hoard::all_but(LEFT as usize);
        let most = (LEFT * SLOT) as usize;
        for round in 0..10 {
            heap.fill(0xee);
            let asked = if round % 2 == 0 { most + SECTOR } else { heap.len() };
            assert_refused(|| disk.read(0, &mut heap[..asked]), ("virtio disk", of(asked), LEFT));
            assert_eq!(disk.read(0, &mut heap[..most]), Ok(()));
            assert!(heap[..most] == wanted[..most], "round {round}");
            assert!(heap[most..].iter().all(|&byte| byte == 0xee), "round {round}");
        }
    })
}

#[ktest]
fn random_bytes_do_not_come_into_a_copy_that_there_is_no_room_for() -> Completion {
    with_source(|slot| {
        let mut source = Entropy::new(slot, Wait::Interrupt).expect("a device that comes up");
        let mut heap = Kind::Heap.memory(3000);
        let mut coherent = Kind::Coherent.memory(3000);
        let hoard = Hoard::all_but(1);
        for _ in 0..20 {
            heap.fill(0xee);
            assert_refused(|| source.fill(&mut heap), (SOURCE, of(3000), 1));
            assert!(heap.iter().all(|&byte| byte == 0xee), "it was written");
            fill(&mut source, &mut coherent, "it wants no copy");
        }
        drop(hoard);
        fill(&mut source, &mut heap, "with room again: no byte was lost");
    })
}

fn buffers(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|_| alloc::vec![0xee_u8; BUFFER]).collect()
}

const CARD: &str = "virtio network card";

/// A frame without anything is refused with its header, which depends on the card's face.
#[track_caller]
fn assert_not_sent(card: &mut Network<'_, Vec<u8>>, slots: u32) {
    assert_refused(|| card.send(&[0; 60]), (CARD, 70..=72, slots));
}

#[ktest]
fn a_card_whose_buffers_have_no_room_does_not_come_up() -> Completion {
    with_device(is_network, virtio_net::NONE, &INTERRUPT, |slot| {
        for left in [0, 1, QUEUE - 1] {
            let _hoard = Hoard::all_but(left);
            let both = (buffers(QUEUE), buffers(1));
            let new = || match Network::new(slot, Wait::Interrupt, both) {
                Err(DeviceError::Device(error)) => Err(error),
                other => Ok(other.map(drop)),
            };
            // What was free is free again, but the last one found nothing.
            assert_refused(new, (CARD, of(BUFFER), 0));
        }
        let _hoard = Hoard::all_but(QUEUE);
        let both = (buffers(QUEUE), buffers(1));
        let mut card = Network::new(slot, Wait::Interrupt, both).expect("there is room for all");
        assert_eq!(shared_buffers(), QUEUE);
        assert_not_sent(&mut card, 0);
    })
}

/// A frame that has come is never lost with its buffer; nor is a buffer for frames to be sent.
#[ktest]
fn frames_come_and_go_again_when_there_is_room_again() -> Completion {
    const SEED: u32 = 0x7777;
    const FRAMES: u32 = 40;
    with_device(is_network, virtio_net::NONE, &INTERRUPT, |slot| {
        let both = (buffers(2), buffers(3));
        let mut card = Network::new(slot, Wait::Interrupt, both).expect("a card that comes up");
        assert_eq!(card.send(&frame(ASK, SEED, FRAMES.to_le_bytes())), Ok(()));
        assert_eq!(card.flush(), Ok(()));
        let mut answers = Vec::new();
        let mut hoard = Hoard::none();
        // While a frame is looked at, its room goes to somebody else: the device does not get the buffer back.
        for (number, left) in [(0, 1), (1, 0)] {
            let answer = card.receive(|bytes| {
                hoard.take_all();
                answer_to(bytes, SEED, number)
            });
            answers.push(answer.expect("a frame"));
            assert_eq!(shared_buffers(), left);
        }
        // More often than there are buffers, and than the queue has places.
        for _ in 0..20 {
            assert_refused(|| card.receive(|_| ()), (CARD, of(BUFFER), 0));
            assert_not_sent(&mut card, 0);
        }
        // With room for one, one buffer serves; with room for all, all do.
        hoard.give_back(1);
        let mut numbers = 2..FRAMES;
        for number in numbers.by_ref().take(10) {
            let answer = card.receive(|bytes| answer_to(bytes, SEED, number));
            answers.push(answer.expect("a frame"));
            assert_eq!(shared_buffers(), 1);
        }
        drop(hoard);
        for number in numbers {
            let answer = card.receive(|bytes| answer_to(bytes, SEED, number));
            answers.push(answer.expect("a frame"));
            assert_eq!(shared_buffers(), 2);
        }
        // With room for one frame that is sent, each waits for the last.
        let hoard = Hoard::all_but(1);
        for answer in &answers {
            assert_eq!(card.send(answer), Ok(()));
        }
        assert_eq!(card.flush(), Ok(()));
        assert_eq!(card.receive(|bytes| verdict(bytes, FRAMES)), Ok(NO_FRAME), "{WRONG}");
        drop(hoard);
    })
}

/// A request of one device is under way while another's is made, refused, made.
#[ktest]
fn requests_of_two_devices_do_not_meet() -> Completion {
    const BYTES: usize = 4 * SECTOR;
    let Some((_, mut registers)) = slot_with(is_disk) else { return Skipped(NO_DISK) };
    let done = with_source(|slot| {
        let mut disk = Disk::new(&mut registers, Wait::Polling).expect("a disk that comes up");
        let mut source = Entropy::new(slot, Wait::Polling).expect("a device that comes up");
        let (mut wanted, mut heap) = (alloc::vec![0; BYTES], alloc::vec![0; BYTES]);
        assert_eq!(disk.read(9, &mut wanted), Ok(()));
        let mut bytes = [0; 40];
        for round in 0..20 {
            heap.fill(0xee);
            let read = disk.read_by(9, &mut heap, &mut |is_done| {
                let hoard = Hoard::all_but(0);
                assert_refused(|| source.fill(&mut bytes), (SOURCE, of(40), 0));
                drop(hoard);
                fill(&mut source, &mut bytes, "while a disk is read");
                while !is_done() {
                    core::hint::spin_loop();
                }
            });
            assert_eq!(read, Ok(()));
            assert!(heap == wanted, "round {round}");
        }
    });
    drop(registers);
    done
}

/// Requests that were carried out, and that were refused.
struct Fates {
    whole: AtomicU32,
    refused: AtomicU32,
}

impl Fates {
    const ENOUGH: u32 = 30;

    fn are_enough(&self) -> bool {
        self.whole.load(Relaxed).min(self.refused.load(Relaxed)) >= Self::ENOUGH
    }

    /// Waits for one more of a kind.
    fn await_one(&self, fate: &AtomicU32) {
        let before = fate.load(Relaxed);
        while fate.load(Relaxed) == before && !self.are_enough() {
            smp::stop_if_ended();
            smp::beat();
            arch::cpu::relax();
        }
    }

    /// Reads the disk until both have come often; others see to that.
    fn read(&self, disk: &mut Disk<'_>) {
        const BYTES: usize = 8 * SECTOR;
        let mut wanted = Kind::Coherent.memory(BYTES);
        assert_eq!(disk.read(3, &mut wanted), Ok(()));
        let mut heap = Kind::Heap.memory(BYTES);
        while !self.are_enough() {
            smp::stop_if_ended();
            smp::beat();
            heap.fill(0xee);
            match disk.read(3, &mut heap) {
                Ok(()) => {
                    assert!(*heap == *wanted, "what was read differs");
                    self.whole.fetch_add(1, Relaxed);
                }
                Err(RequestError::Buffer { error: MapError::Exhausted { .. }, .. }) => {
                    assert!(heap.iter().all(|&byte| byte == 0xee), "it was written");
                    self.refused.fetch_add(1, Relaxed);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// One CPU takes all room and gives it back, again and again, others a little of it, while one makes requests and takes the
/// interrupts (S116).
#[ktest]
fn requests_are_whole_or_refused_while_others_take_all_room_s116() -> Completion {
    let Ok(other) = another() else { return Skipped("there is one CPU only") };
    with_device(is_disk, NO_DISK, &INTERRUPT, |_| {
        let here = arch::cpu::id();
        let fates = Fates { whole: AtomicU32::new(0), refused: AtomicU32::new(0) };
        smp::run_on_each(|cpu| {
            if cpu == here {
                let (_, mut slot) = slot_with(is_disk).expect("it was there before");
                let mut disk = Disk::new(&mut slot, Wait::Interrupt).expect("it comes up");
                return fates.read(&mut disk);
            }
            let mut hoard = Hoard::none();
            while !fates.are_enough() {
                smp::stop_if_ended();
                smp::beat();
                if cpu == other {
                    hoard.take_all();
                    fates.await_one(&fates.refused);
                    hoard.give_back(hoard.taken.len());
                    fates.await_one(&fates.whole);
                } else {
                    hoard.take(4);
                    hoard.give_back(hoard.taken.len());
                }
            }
        });
    })
}
