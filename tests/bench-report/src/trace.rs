//! The emulator's log of executed instructions, and what of it belongs to operations.
//!
//! ```text
//! clock … clock      eight times nothing: what lies outside the clock is the loop's own
//! clock … clock      the operations, one after the other
//! ```

use std::cmp::Ordering;
use std::collections::HashMap;
use std::io::BufRead;
use std::ops::Range;

/// How often nothing is measured before the operations.
const NOTHINGS: usize = 8;

/// How often each instruction was executed, by its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    /// By operations, the first left out.
    pub(crate) counts: HashMap<u32, u64>,
    /// How many operations that were.
    pub(crate) operations: u64,
    /// Instructions of the loop that are in each operation's count, and are not the operation's.
    pub(crate) nothing: u64,
    /// The cost of the first operation.
    pub(crate) first: u64,
}

impl Trace {
    /// The instructions of all operations but the first, without the loop's.
    pub(crate) fn total(&self) -> u64 {
        self.counts.values().sum::<u64>().saturating_sub(self.nothing * self.operations)
    }

    /// Reads a log to its end; `clock` is where the function lies that reads the clock.
    pub(crate) fn read(log: impl BufRead, clock: Range<u32>) -> Result<Self, String> {
        let mut reader = Reader { clock, ..Reader::default() };
        for line in log.split(b'\n') {
            let line = line.map_err(|error| format!("the log: {error}"))?;
            if line.starts_with(b"Stopped") {
                reader.last = None; // was logged, and did not run
            } else if let Some(address) = executed(&line) {
                reader.flush();
                reader.last = Some(address);
            }
        }
        reader.flush();
        Ok(reader.trace)
    }
}

/// The address in a line `Trace 0: 0x7f…​ [00000000/8001478c/00000013/ff000001] name`.
fn executed(line: &[u8]) -> Option<u32> {
    if !line.starts_with(b"Trace") {
        return None;
    }
    let mut fields = line.split(|&byte| byte == b'[').nth(1)?.split(|&byte| byte == b'/');
    let address = fields.nth(1)?;
    u32::from_str_radix(std::str::from_utf8(address).ok()?, 16).ok()
}

#[derive(Default)]
struct Reader {
    clock: Range<u32>,
    /// Logged; the next line says whether it ran.
    last: Option<u32>,
    in_clock: bool,
    /// How often the clock was read.
    readings: usize,
    /// What ran since the last reading.
    since: Vec<u32>,
    trace: Trace,
}

impl Reader {
    fn flush(&mut self) {
        let Some(address) = self.last.take() else { return };
        let in_clock = self.clock.contains(&address);
        if !in_clock {
            self.since.push(address);
        } else if !self.in_clock {
            self.end();
        }
        self.in_clock = in_clock;
    }

    /// The clock is read: what ran since the last reading was an operation, or lay between two of them.
    fn end(&mut self) {
        let (pair, is_operation) = (self.readings / 2, self.readings % 2 == 1);
        self.readings += 1;
        if is_operation {
            let count = self.since.len() as u64;
            match pair.cmp(&NOTHINGS) {
                Ordering::Less => self.trace.nothing = count,
                Ordering::Equal => self.trace.first = count.saturating_sub(self.trace.nothing),
                Ordering::Greater => {
                    self.trace.operations += 1;
                    for &address in &self.since {
                        *self.trace.counts.entry(address).or_default() += 1;
                    }
                }
            }
        }
        self.since.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of these addresses; the clock is 100 to 104.
    fn read(addresses: &[u32]) -> Trace {
        let line = |address| format!("Trace 0: 0x7f00 [00000000/{address:08x}/00000013/1] f\n");
        let log: String = addresses.iter().map(line).collect();
        Trace::read(log.as_bytes(), 100..108).expect("read from memory")
    }

    /// Eight times nothing, which takes two instructions, and then operations.
    fn after_nothings(rest: &[u32]) -> Trace {
        let mut log = [7, 100, 104, 1, 2, 100, 104, 3].repeat(NOTHINGS);
        log.extend(rest);
        read(&log)
    }

    #[test]
    fn what_lies_between_two_readings_is_counted_without_the_loop() {
        let first = [100, 104, 1, 50, 51, 52, 2, 100, 104, 3];
        let others = [100, 104, 1, 50, 51, 2, 100, 104, 3].repeat(2);
        let trace = after_nothings(&[&first[..], &others].concat());
        assert_eq!((trace.first, trace.operations, trace.nothing), (3, 2, 2));
        assert_eq!(trace.total(), 4);
        assert_eq!(trace.counts.get(&50), Some(&2));
        assert_eq!(trace.counts.get(&3), None, "behind the operation");
    }

    #[test]
    fn a_block_that_was_stopped_did_not_run() {
        let log = b"Trace 0: 0x7f [0/00000032/0/1] f\nStopped execution of TB chain before 0x7f\n";
        let trace = Trace::read(&log[..], 100..108).expect("read from memory");
        assert_eq!(trace, Trace::default());
        assert_eq!(executed(b"Trace 0: 0x7f [00000000/8001478c/13/ff] f"), Some(0x8001_478c));
        assert_eq!(executed(b"Linking TBs 0x7f [8001478c]"), None);
    }
}
