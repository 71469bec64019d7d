//! The emulator, stopped while witnesses look at it.
//!
//! Each question costs a turn of the emulator's loop and a waking up on both sides, so what a look will most likely ask goes along
//! with the command to stop, by what was there at the last look. What the guess leaves out is asked one by one.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::witness::decode::Memory;
use crate::witness::judge::{Emulator, RAM};
use crate::witness::qmp::{Answer, Qmp, Question};
use crate::witness::screen::Wanted;

/// The emulator, stopped while it is looked at.
#[derive(Debug)]
pub(super) struct Stopped {
    qmp: Qmp,
    /// What it has said since it stopped.
    said: HashMap<Question, Answer>,
    /// What it said of memory when it was last asked, whenever that was: good for guesses alone.
    before: HashMap<u64, [u32; 16]>,
    /// Where it may write what its screen shows.
    dump: PathBuf,
}

impl Stopped {
    pub(super) fn new(qmp: Qmp, socket: &Path) -> Self {
        let dump = socket.with_extension("ppm");
        Self { qmp, said: HashMap::new(), before: HashMap::new(), dump }
    }

    /// Whether its screen shows what is wanted.
    fn shows(&mut self, wanted: &Wanted) -> Result<(), String> {
        self.qmp.dump_screen(&self.dump.to_string_lossy())?;
        let dumped = fs::read(&self.dump);
        let file = |error: std::io::Error| format!("{}: {error}", self.dump.display());
        wanted.compare(&dumped.map_err(file)?)?;
        // A picture that is wrong is left for whoever looks.
        fs::remove_file(&self.dump).map_err(file)
    }

    /// Stops it for `look`. What that will most likely ask is asked with the command to stop: by what was there before, and of RAM
    /// alone, `ram` bytes, for to look at a device may do something. And `picture` is compared with its screen.
    pub(super) fn stopped(
        &mut self,
        ram: u64,
        picture: Option<&Wanted>,
        mut look: impl FnMut(&mut dyn Emulator) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut guess = Guess { ram: RAM..RAM + ram, before: &self.before, asked: Vec::new() };
        // What is looked at is what was there before, so what comes of it means nothing.
        let _ = look(&mut guess);
        let asked = guess.asked;
        let answers = self.qmp.stop_and_ask(&asked);
        let seen = answers.and_then(|answers| {
            self.said = asked.into_iter().zip(answers).collect();
            look(self)?;
            picture.map_or(Ok(()), |wanted| self.shows(wanted))
        });
        for (question, answer) in self.said.drain() {
            if let (Question::Words(address), Answer::Words(words)) = (question, answer) {
                self.before.insert(address, words);
            }
        }
        // Whatever was seen: a machine that stays stopped can hear of nothing.
        self.qmp.go_on().and(seen)
    }

    fn ask(&mut self, question: Question) -> Result<Answer, String> {
        if let Some(answer) = self.said.get(&question) {
            return Ok(*answer);
        }
        let answer = self.qmp.ask(question)?;
        self.said.insert(question, answer);
        Ok(answer)
    }
}

impl Memory for Stopped {
    fn words(&mut self, address: u64) -> Result<[u32; 16], String> {
        match self.ask(Question::Words(address))? {
            Answer::Words(words) => Ok(words),
            other @ Answer::Translation(_) => Err(format!("{other:?} is no word")),
        }
    }
}

impl Emulator for Stopped {
    fn translate(&mut self, cpu: u32, address: u32) -> Result<Option<u64>, String> {
        match self.ask(Question::Translation(cpu, address))? {
            Answer::Translation(physical) => Ok(physical),
            other @ Answer::Words(_) => Err(format!("{other:?} is no translation")),
        }
    }
}

/// What was there before, and what is asked of it.
#[derive(Debug)]
struct Guess<'a> {
    ram: Range<u64>,
    before: &'a HashMap<u64, [u32; 16]>,
    asked: Vec<Question>,
}

impl Guess<'_> {
    fn note(&mut self, question: Question) {
        if !self.asked.contains(&question) {
            self.asked.push(question);
        }
    }
}

impl Memory for Guess<'_> {
    fn words(&mut self, address: u64) -> Result<[u32; 16], String> {
        if self.ram.contains(&address) {
            self.note(Question::Words(address));
        }
        Ok(self.before.get(&address).copied().unwrap_or_default())
    }
}

impl Emulator for Guess<'_> {
    fn translate(&mut self, cpu: u32, address: u32) -> Result<Option<u64>, String> {
        self.note(Question::Translation(cpu, address));
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_looks_at_a_device_by_a_guess() {
        let before = HashMap::new();
        let mut guess = Guess { ram: RAM..RAM + 0x1000, before: &before, asked: Vec::new() };
        for address in [0x1e00_0000, RAM - 64, RAM, RAM, RAM + 0xfc0, RAM + 0x1000] {
            assert_eq!(guess.words(address), Ok([0; 16]));
        }
        assert_eq!(guess.translate(2, 0x1000), Ok(None));
        let words = [RAM, RAM + 0xfc0].map(Question::Words);
        assert_eq!(guess.asked, [words[0], words[1], Question::Translation(2, 0x1000)]);
    }
}
