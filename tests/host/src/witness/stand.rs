//! Where the kernel's requests arrive and are answered, for one boot.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use std::{fs, thread};

use crate::witness::judge::judge;
use crate::witness::qmp::Qmp;
use crate::witness::screen::{self, Wanted};
use crate::witness::stopped::Stopped;
use crate::witness::testimony::{Head, Testimony};
use crate::witness::witnessed::Witnessed;

/// The most that the name of a socket may have; one in a folder with a longer name is made elsewhere.
const LONGEST_NAME: usize = 100;
/// The most that an answer may say: the kernel has room for a line of 900 bytes.
const LONGEST_ANSWER: usize = 850;
/// How long bytes are left to gather while a request is not whole.
const GATHERING: Duration = Duration::from_micros(300);
/// How long to wait before one looks again whether the boot has ended.
const NAP: Duration = Duration::from_millis(5);

/// A place for the emulator to connect to.
#[derive(Debug)]
pub(crate) struct Stand {
    listener: UnixListener,
    uart: PathBuf,
    qmp: PathBuf,
    /// RAM that the kernel may use, in bytes.
    ram: u64,
}

/// What was heard in one boot.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// How many requests were answered.
    pub(crate) requests: usize,
    /// What the witnesses agreed about.
    pub(crate) witnessed: Witnessed,
    /// What they did not agree about: the test that asked, and who said what.
    pub(crate) disagreements: Vec<(String, String)>,
    /// What else was wrong.
    pub(crate) faults: Vec<String>,
}

impl Stand {
    /// Opens one in `folder`, if its name is short enough, for a kernel with `ram` bytes.
    pub(crate) fn open(folder: &Path, ram: u64) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let uart = socket_in(folder, number, "uart");
        let qmp = uart.with_extension("qmp");
        let listener = UnixListener::bind(&uart)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| format!("{}: {error}", uart.display()))?;
        Ok(Self { listener, uart, qmp, ram })
    }

    /// The options by which `scripts/qemu` connects to it.
    pub(crate) fn options(&self) -> Vec<String> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        vec!["--uart1".into(), path(&self.uart), "--qmp".into(), path(&self.qmp)]
    }

    /// Answers until the emulator ends, or `ended` says that it has.
    pub(crate) fn serve(self, ended: &AtomicBool) -> Heard {
        let mut heard = Heard::default();
        let served = match accept(&self.listener, ended) {
            Ok(Some(stream)) => self.answer_all(stream, ended, &mut heard),
            Ok(None) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        heard.faults.extend(served.err().map(|why| format!("witnesses: {why}")));
        // What is left of them is only in the way; a socket that was never made is no loss.
        let _ = (fs::remove_file(&self.uart), fs::remove_file(&self.qmp));
        heard
    }

    fn answer_all(
        &self,
        mut stream: UnixStream,
        ended: &AtomicBool,
        heard: &mut Heard,
    ) -> Result<(), String> {
        let said = |error: std::io::Error| format!("UART1: {error}");
        stream.set_nonblocking(false).map_err(said)?;
        stream.set_read_timeout(Some(NAP * 20)).map_err(said)?;
        let mut emulator = None;
        let (mut text, mut room) = (Vec::new(), [0; 4096]);
        let mut request = Request::default();
        loop {
            match stream.read(&mut room) {
                Ok(0) => break,
                Ok(length) => {
                    text.extend_from_slice(&room[..length]);
                    // Bytes come one by one: to take each as it comes would cost more than all else here.
                    if !has_end(&text) {
                        thread::sleep(GATHERING);
                    }
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if ended.load(Relaxed) {
                        break;
                    }
                }
                // The emulator was killed.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => return Err(said(error)),
            }
            while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line[..end]);
                let Some(request) = request.take_in(&line) else { continue };
                let emulator = match &mut emulator {
                    Some(emulator) => emulator,
                    none => none.insert(Stopped::new(Qmp::connect(&self.qmp)?, &self.qmp)),
                };
                let answer = request.answer(self.ram, emulator, heard);
                // An emulator that is gone reads no answer, and the next read says so.
                let _ = stream.write_all(answer.as_bytes());
            }
        }
        if request.is_begun() {
            heard.faults.push(format!("the kernel broke off in a request: {request:?}"));
        }
        Ok(())
    }
}

/// A name for a socket in `folder`, or elsewhere if that would be too long.
pub(crate) fn socket_in(folder: &Path, number: u32, kind: &str) -> PathBuf {
    let name = folder.join(format!("{number}.{kind}"));
    if name.as_os_str().len() <= LONGEST_NAME {
        return name;
    }
    std::env::temp_dir().join(format!("mapwright-{}-{number}.{kind}", std::process::id()))
}

/// The emulator's connection; `None` when the boot ended without one.
pub(crate) fn accept(
    listener: &UnixListener,
    ended: &AtomicBool,
) -> std::io::Result<Option<UnixStream>> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(Some(stream)),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            Err(_) if ended.load(Relaxed) => return Ok(None),
            Err(_) => thread::sleep(NAP),
        }
    }
}

/// Whether the last line is whole and ends a request.
fn has_end(text: &[u8]) -> bool {
    let last =
        text.strip_suffix(b"\n").and_then(|lines| lines.rsplit(|&byte| byte == b'\n').next());
    last.is_some_and(|line| line.starts_with(b"e "))
}

/// A request as far as it has been read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    head: Option<Head>,
    testimonies: Vec<Testimony>,
    picture: Option<Wanted>,
    wrong: Option<String>,
}

impl Request {
    fn is_begun(&self) -> bool {
        *self != Self::default()
    }

    /// Takes in a line; gives the request when that was its last.
    fn take_in(&mut self, line: &str) -> Option<Self> {
        let is_end = line.starts_with("e ");
        if let Some(testimony) = Testimony::read(line) {
            self.testimonies.push(testimony);
        } else if let (None, Some(picture)) = (&self.picture, Wanted::read(line)) {
            self.picture = Some(picture);
        } else if let (None, Some(head)) = (&self.head, Head::read(line)) {
            self.head = Some(head);
        } else if !is_end {
            self.wrong.get_or_insert(format!("this line is no part of a request: {line}"));
        }
        let number = self.head.as_ref().map(|head| format!("e {}", head.number));
        if is_end && number.as_deref() != Some(line) {
            self.wrong.get_or_insert(format!("`{line}` ends a request that did not begin so"));
        }
        is_end.then(|| std::mem::take(self))
    }

    /// Compares all witnesses with the machine stopped, and says how that went, in a line for the kernel.
    fn answer(self, ram: u64, emulator: &mut Stopped, heard: &mut Heard) -> String {
        heard.requests += 1;
        let Some(head) = self.head else {
            heard.faults.push(format!("a request without a head: {:?}", self.wrong));
            return "-0 a request without a head\n".into();
        };
        let judged = match self.wrong {
            Some(wrong) => Err(wrong),
            None if self.testimonies.is_empty() && self.picture.is_none() => {
                Err("a request without a testimony".into())
            }
            None => emulator.stopped(ram, self.picture.as_ref(), |emulator| {
                self.testimonies
                    .iter()
                    .map(|testimony| judge(ram, &head, testimony, emulator))
                    .fold(Ok(()), Result::and)
            }),
        };
        match judged {
            Ok(()) => {
                for testimony in &self.testimonies {
                    heard.witnessed.add(head.suite(), &testimony.kind);
                }
                if self.picture.is_some() {
                    heard.witnessed.add(head.suite(), screen::KIND);
                }
                format!("+{}\n", head.number)
            }
            Err(why) => {
                let mut line = format!("-{} {}", head.number, why.replace('\n', " "));
                while line.len() > LONGEST_ANSWER || !line.is_ascii() {
                    line = line.chars().filter(char::is_ascii).take(LONGEST_ANSWER).collect();
                }
                heard.disagreements.push((head.test, why));
                line + "\n"
            }
        }
    }
}

#[cfg(test)]
#[path = "stand/tests.rs"]
mod tests;
