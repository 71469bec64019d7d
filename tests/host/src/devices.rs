//! What the devices of a test kernel's machine are connected to, for one boot: a disk that may be written, a file of known
//! bytes that pass for random ones, and a peer on the network, who says what he got.
//!
//! The kernel's side is in `tests/kernel/src/suites/virtio_{write,rng,net}.rs`, which has the pictures.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use crate::disk::random_bytes;
use crate::witness::{accept, socket_in};

/// What the bytes are made of that pass for random ones, and how many there are: more than any boot asks for.
const RANDOM: (u64, usize) = (0x6d61_7077_7269_6768, 1 << 20);
/// What the disk is made of where it is written.
const DISK: u64 = 0x6469_736b;
/// Bytes of the disk.
const DISK_BYTES: usize = 512 * 512;
/// Bytes that each test writes.
const REGION: usize = 64 * 512;
/// The tests that write to it, in the order of what they write.
const WRITERS: [&str; 4] = [
    "virtio_write::sectors_are_written_from_the_linear_map",
    "virtio_write::sectors_are_written_from_the_heap",
    "virtio_write::sectors_are_written_from_coherent_memory",
    "virtio_write::sectors_are_written_from_the_atomic_pool",
];

/// Destination, source, and a type for private use.
const HEADER: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
/// Its length with the kind of frame and a number.
const BEGIN: usize = HEADER.len() + 5;
const ASK: u8 = 1;
const DATA: u8 = 2;
const ANSWER: u8 = 3;
const VERDICT: u8 = 4;
/// In a verdict: nothing was wrong.
const NO_FRAME: u32 = u32::MAX;
/// How long to wait for bytes before one looks whether the boot has ended.
const PATIENCE: Duration = Duration::from_millis(100);

/// Files and a socket for the emulator.
#[derive(Debug)]
pub(crate) struct Devices {
    listener: UnixListener,
    net: PathBuf,
    rng: PathBuf,
    disk: PathBuf,
}

impl Devices {
    /// Makes them in `folder`.
    pub(crate) fn open(folder: &Path) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let net = socket_in(folder, number, "net");
        let (rng, disk) =
            (folder.join(format!("{number}.rng")), folder.join(format!("{number}.disk")));
        let failed = |path: &Path| format!("{}: ", path.display());
        let write = |path: &Path, bytes: &[u8]| {
            fs::write(path, bytes).map_err(|error| failed(path) + &error.to_string())
        };
        write(&rng, &random_bytes(RANDOM.1, RANDOM.0))?;
        write(&disk, &vec![0; DISK_BYTES])?;
        let listener = UnixListener::bind(&net)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| failed(&net) + &error.to_string())?;
        Ok(Self { listener, net, rng, disk })
    }

    /// The options by which `scripts/qemu` connects to them.
    pub(crate) fn options(&self) -> Vec<String> {
        let options = [("--net", &self.net), ("--rng", &self.rng), ("--second-disk", &self.disk)];
        let path = |path: &Path| path.to_string_lossy().into_owned();
        options.into_iter().flat_map(|(name, file)| [name.to_owned(), path(file)]).collect()
    }

    /// Is the peer until the emulator ends, or `ended` says that it has; gives what was wrong.
    pub(crate) fn serve(&self, ended: &AtomicBool) -> Vec<String> {
        let mut peer = Peer::default();
        let served = match accept(&self.listener, ended) {
            Ok(Some(stream)) => peer.talk(&stream, ended),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        peer.faults.extend(served.err().map(|error| error.to_string()));
        if peer.answered < peer.count {
            peer.faults.push(format!("{} of {} frames came", peer.answered, peer.count));
        }
        peer.faults.into_iter().map(|fault| format!("the peer on the network: {fault}")).collect()
    }

    /// Says what is wrong with the disk after a boot with this report, and removes everything.
    pub(crate) fn close(self, report: &str) -> Vec<String> {
        let read = fs::read(&self.disk).map_err(|error| error.to_string());
        let faults = read.map_or_else(|error| vec![error], |disk| disk_faults(&disk, report));
        for file in [&self.net, &self.rng, &self.disk] {
            // What is left of it is only in the way.
            let _ = fs::remove_file(file);
        }
        faults.into_iter().map(|fault| format!("the disk that was written: {fault}")).collect()
    }
}

/// Each test that passed has written its bytes, and nobody any others.
fn disk_faults(disk: &[u8], report: &str) -> Vec<String> {
    let has_passed = |name: &&str| {
        report.lines().any(|line| line.starts_with("ok ") && line.ends_with(&format!(" {name}")))
    };
    let mut wanted = random_bytes(WRITERS.len() * REGION, DISK);
    wanted.resize(DISK_BYTES, 0);
    let differs = |range: std::ops::Range<usize>| {
        let (wanted, disk) = (&wanted[range.clone()], disk.get(range.clone()).unwrap_or_default());
        let first = wanted.iter().zip(disk).position(|(wanted, found)| wanted != found);
        first.or((wanted.len() != disk.len()).then_some(disk.len())).map(|at| range.start + at)
    };
    let mut faults = Vec::new();
    for (number, name) in WRITERS.iter().enumerate().filter(|(_, name)| has_passed(name)) {
        if let Some(at) = differs(number * REGION..(number + 1) * REGION) {
            faults.push(format!("{name} has passed, and byte {at} is another"));
        }
    }
    faults.extend(
        differs(WRITERS.len() * REGION..DISK_BYTES)
            .map(|at| format!("byte {at}, which nobody was to write, is another")),
    );
    faults
}

/// The peer.
#[derive(Debug, Default)]
struct Peer {
    seed: u32,
    /// Frames that were asked for.
    count: u32,
    /// Of them, those that were answered.
    answered: u32,
    /// The first answer that was not right.
    wrong: Option<u32>,
    faults: Vec<String>,
}

impl Peer {
    fn talk(&mut self, mut stream: &UnixStream, ended: &AtomicBool) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut output = stream.try_clone()?;
        thread::scope(|scope| {
            // The sender goes first of all, and with it the thread that waits for more.
            let (sender, to_send) = mpsc::channel::<Vec<u8>>();
            // Beside reading, since the kernel may want to be heard before it takes more.
            scope.spawn(move || {
                // An emulator that is gone takes nothing, and the reader notices.
                to_send.into_iter().try_for_each(|bytes| output.write_all(&bytes))
            });
            let (mut bytes, mut room) = (Vec::new(), vec![0; 1 << 16]);
            loop {
                match stream.read(&mut room) {
                    Ok(0) => return Ok(()),
                    Ok(length) => bytes.extend_from_slice(&room[..length]),
                    Err(error)
                        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                    {
                        if ended.load(Relaxed) {
                            return Ok(());
                        }
                    }
                    // The emulator was killed.
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                    Err(error) => return Err(error),
                }
                while let Some(frame) = first_frame(&mut bytes) {
                    let _ = sender.send(self.hear(&frame));
                }
            }
        })
    }

    /// What is to be sent because of `frame`.
    fn hear(&mut self, frame: &[u8]) -> Vec<u8> {
        let number = word(frame, BEGIN - 4);
        match (frame.strip_prefix(&HEADER).and_then(<[u8]>::first), number) {
            (Some(&ASK), Some(seed)) if frame.len() == BEGIN + 4 => {
                let count = word(frame, BEGIN).unwrap_or_default();
                let faults = std::mem::take(&mut self.faults);
                *self = Self { seed, count, faults, ..Self::default() };
                (0..count).flat_map(|number| on_wire(DATA, number, &data(seed, number))).collect()
            }
            (Some(&ANSWER), Some(number)) if number == self.answered && number < self.count => {
                let data = data(self.seed, number);
                let right: Vec<u8> = data.iter().rev().map(|byte| !byte).collect();
                self.answered += 1;
                if frame[BEGIN..] != right {
                    self.wrong.get_or_insert(number);
                }
                if self.answered == self.count { self.verdict() } else { vec![] }
            }
            _ => {
                let start = &frame[..frame.len().min(24)];
                let (length, next) = (frame.len(), self.answered);
                self.faults.push(format!(
                    "{length} bytes that are no answer to frame {next}: {start:02x?}"
                ));
                self.wrong.get_or_insert(next);
                self.verdict()
            }
        }
    }

    /// What the kernel is told.
    fn verdict(&mut self) -> Vec<u8> {
        if let Some(wrong) = self.wrong {
            self.faults.push(format!("the answer to frame {wrong} is wrong"));
        }
        on_wire(VERDICT, self.answered, &self.wrong.unwrap_or(NO_FRAME).to_le_bytes())
    }
}

/// What frame `number` carries.
fn data(seed: u32, number: u32) -> Vec<u8> {
    let seed = u64::from(seed) << 32 | u64::from(number);
    let length = random_bytes(2, seed);
    let length = usize::from(u16::from_le_bytes([length[0], length[1]])) % 1480 + 1;
    random_bytes(length, seed)
}

/// A frame with its length in front, as the emulator has it.
fn on_wire(kind: u8, number: u32, rest: &[u8]) -> Vec<u8> {
    let length = u32::try_from(BEGIN + rest.len()).expect("a frame is short");
    let parts: [&[u8]; 5] = [&length.to_be_bytes(), &HEADER, &[kind], &number.to_le_bytes(), rest];
    parts.concat()
}

/// Takes the first frame out of what came, if it is whole.
fn first_frame(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    let end = 4 + usize::try_from(length).ok()?;
    let frame = bytes.get(4..end)?.to_vec();
    bytes.drain(..end);
    Some(frame)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict in what the peer sends last, and his faults.
    fn verdict(frames: &[Vec<u8>]) -> (Option<(u32, u32)>, usize) {
        let mut peer = Peer::default();
        let mut said: Vec<_> = frames.iter().map(|frame| peer.hear(&frame[4..])).collect();
        let last = said.last_mut().and_then(first_frame);
        let verdict = last.filter(|frame| frame.get(HEADER.len()) == Some(&VERDICT));
        let words = |frame: Vec<u8>| word(&frame, BEGIN - 4).zip(word(&frame, BEGIN));
        (verdict.and_then(words), peer.faults.len())
    }

    fn ask(count: u32) -> Vec<u8> {
        on_wire(ASK, 7, &count.to_le_bytes())
    }

    fn answer(number: u32) -> Vec<u8> {
        let bytes: Vec<u8> = data(7, number).iter().rev().map(|byte| !byte).collect();
        on_wire(ANSWER, number, &bytes)
    }

    #[test]
    fn whoever_answers_all_frames_rightly_is_told_so() {
        let frames = [ask(3), answer(0), answer(1), answer(2)];
        assert_eq!(verdict(&frames), (Some((3, NO_FRAME)), 0));
        assert_eq!(verdict(&frames[..3]), (None, 0), "one is missing");
    }

    #[test]
    fn a_wrong_byte_a_missing_one_and_a_frame_out_of_turn_are_named() {
        let mut wrong = answer(1);
        *wrong.last_mut().expect("bytes") ^= 1;
        assert_eq!(verdict(&[ask(2), answer(0), wrong]), (Some((2, 1)), 1));
        let mut short = answer(1);
        short.pop();
        assert_eq!(verdict(&[ask(2), answer(0), short]), (Some((2, 1)), 1));
        assert_eq!(verdict(&[ask(2), answer(1)]), (Some((0, 0)), 2));
        assert_eq!(verdict(&[ask(2), vec![0; 30]]), (Some((0, 0)), 2));
    }

    #[test]
    fn frames_are_taken_one_by_one_when_they_are_whole() {
        let mut bytes = [ask(1), answer(0)].concat();
        let last = bytes.pop().expect("bytes");
        assert_eq!(first_frame(&mut bytes), Some(ask(1)[4..].to_vec()));
        assert_eq!(first_frame(&mut bytes), None);
        bytes.push(last);
        assert_eq!(first_frame(&mut bytes), Some(answer(0)[4..].to_vec()));
        assert_eq!(bytes, [0; 0]);
    }

    #[test]
    fn what_tests_have_written_is_looked_at_and_what_nobody_wrote_too() {
        let mut disk = random_bytes(WRITERS.len() * REGION, DISK);
        disk.resize(DISK_BYTES, 0);
        let report = format!("ok 1 {}\nok 2 {}\n", WRITERS[0], WRITERS[3]);
        assert_eq!(disk_faults(&disk, &report), [""; 0]);
        for (at, faults) in [(0, 1), (REGION, 0), (3 * REGION, 1), (DISK_BYTES - 1, 1)] {
            disk[at] ^= 1;
            assert_eq!(disk_faults(&disk, &report).len(), faults, "{at}");
            disk[at] ^= 1;
        }
        assert_eq!(disk_faults(&disk[..DISK_BYTES - 1], &report).len(), 1, "it is shorter");
        assert_eq!(disk_faults(&disk[..REGION - 1], &report).len(), 3);
    }
}
