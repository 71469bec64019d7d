//! Who may go in: many who look, or one who changes.
//!
//! ```text
//!    31                               2    1     0
//!   ┌─────────────────────────────────┬───────┬───┐
//!   │ how many look                   │ waits │one│
//!   └─────────────────────────────────┴───────┴───┘
//! ```
//!
//! * While one is in, nobody else changes the word but by setting *waits*; so he leaves by a plain store.
//! * Who waits to change keeps those out who come to look after him: many who look can delay him, but not for ever.
//!   Hence nobody may go in to look twice: between the two somebody may have begun to wait.
//! * A store that clears *waits* loses nothing: who waits sets it again.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// One is in, to change something.
const ONE: u32 = 1;
/// Somebody waits to change something.
const WAITS: u32 = 2;
/// One of those who look.
const LOOKS: u32 = 4;

/// The door to what is shared. It says who may; that they heed it is for whoever owns both.
///
/// All methods may be called in any context; none waits.
#[derive(Debug, Default)]
pub struct Gate(AtomicU32);

/// What came of an attempt to go in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "who is not in must stay out"]
pub enum Entry {
    /// In.
    In,
    /// Not: somebody else is in, or waits.
    Busy,
}

impl Gate {
    /// Nobody is in.
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Goes in to look. What was changed before is seen.
    #[inline(always)]
    pub fn look(&self) -> Entry {
        // As a rule nobody is in, and then this is as quick as to go in alone.
        match self.0.compare_exchange(0, LOOKS, Acquire, Relaxed) {
            Ok(_) => Entry::In,
            Err(now) => self.look_beside_others(now),
        }
    }

    #[cold]
    fn look_beside_others(&self, mut word: u32) -> Entry {
        while word & (ONE | WAITS) == 0 {
            match self.0.compare_exchange_weak(word, word + LOOKS, Acquire, Relaxed) {
                Ok(_) => return Entry::In,
                Err(now) => word = now,
            }
        }
        Entry::Busy
    }

    /// Goes out after [`Gate::look`].
    #[inline(always)]
    pub fn looked(&self) {
        self.0.fetch_sub(LOOKS, Release);
    }

    /// Goes in to change something, if nobody is in and nobody waits. What was changed before is seen.
    #[inline(always)]
    pub fn change(&self) -> Entry {
        entry(self.0.compare_exchange(0, ONE, Acquire, Relaxed).is_ok())
    }

    /// As [`Gate::change`], for whoever asks again until he is in: he goes before all who come to look from now on.
    pub fn change_before_others(&self) -> Entry {
        self.0.fetch_or(WAITS, Relaxed);
        entry(self.0.compare_exchange(WAITS, ONE, Acquire, Relaxed).is_ok())
    }

    /// Goes out after [`Gate::change`]. What was changed is seen by whoever comes in.
    #[inline(always)]
    pub fn changed(&self) {
        self.0.store(0, Release);
    }

    /// Whether somebody is in; which may be over when the answer is read.
    pub fn is_used(&self) -> bool {
        self.0.load(Relaxed) & !WAITS != 0
    }
}

const fn entry(in_: bool) -> Entry {
    if in_ { Entry::In } else { Entry::Busy }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    #[test]
    fn many_look_at_once_and_nobody_changes_meanwhile_s15() {
        let gate = Gate::new();
        assert!(!gate.is_used());
        for _ in 0..100 {
            assert_eq!(gate.look(), Entry::In);
            assert_eq!(gate.change(), Entry::Busy);
        }
        for _ in 0..100 {
            assert!(gate.is_used());
            assert_eq!(gate.change(), Entry::Busy);
            gate.looked();
        }
        assert!(!gate.is_used());
        assert_eq!(gate.change(), Entry::In);
    }

    #[test]
    fn one_changes_and_nobody_else_is_in_s15() {
        let gate = Gate::new();
        assert_eq!(gate.change(), Entry::In);
        assert!(gate.is_used());
        assert_eq!((gate.look(), gate.change()), (Entry::Busy, Entry::Busy));
        assert_eq!(gate.change_before_others(), Entry::Busy);
        gate.changed();
        assert!(!gate.is_used());
        assert_eq!(gate.look(), Entry::In);
        gate.looked();
        assert_eq!(gate.change(), Entry::In);
    }

    #[test]
    fn who_waits_to_change_goes_before_those_who_come_to_look() {
        let gate = Gate::new();
        assert_eq!(gate.look(), Entry::In);
        assert_eq!(gate.change_before_others(), Entry::Busy);
        assert_eq!(gate.look(), Entry::Busy, "he would wait for ever");
        assert_eq!(gate.change(), Entry::Busy, "another would pass him");
        gate.looked();
        assert!(!gate.is_used());
        assert_eq!(gate.look(), Entry::Busy);
        assert_eq!(gate.change_before_others(), Entry::In);
        gate.changed();
        assert_eq!(gate.look(), Entry::In, "nobody waits any more");
    }

    #[test]
    fn of_two_who_wait_both_come_in_and_then_those_who_look() {
        let gate = Gate::new();
        assert_eq!(gate.change(), Entry::In);
        // Two others; leaving forgets that they wait, and they say it again.
        assert_eq!(gate.change_before_others(), Entry::Busy);
        assert_eq!(gate.change_before_others(), Entry::Busy);
        gate.changed();
        assert_eq!(gate.change_before_others(), Entry::In);
        assert_eq!(gate.change_before_others(), Entry::Busy);
        gate.changed();
        assert_eq!(gate.change_before_others(), Entry::In);
        gate.changed();
        assert_eq!(gate.look(), Entry::In);
    }

    fn await_entry(try_it: impl Fn() -> Entry) {
        let came_in = (0..50_000_000).any(|_| {
            let entry = try_it();
            if entry == Entry::Busy {
                thread::yield_now();
            }
            entry == Entry::In
        });
        assert!(came_in, "somebody waits for ever");
    }

    /// Two words that are equal whenever nobody changes them; not exclusive, so that a gate that lets in too many shows.
    #[derive(Default)]
    struct Shared {
        gate: Gate,
        words: [AtomicU32; 2],
        failed: AtomicBool,
    }

    impl Shared {
        fn look(&self) {
            await_entry(|| self.gate.look());
            let [first, second] = [0, 1].map(|index| self.words[index].load(Relaxed));
            self.failed.fetch_or(first != second, Relaxed);
            self.gate.looked();
        }

        fn change(&self) {
            if self.gate.change() == Entry::Busy {
                await_entry(|| self.gate.change_before_others());
            }
            let word = self.words[0].load(Relaxed);
            self.words[0].store(word + 1, Relaxed);
            thread::yield_now();
            self.words[1].store(word + 1, Relaxed);
            self.gate.changed();
        }
    }

    #[test]
    fn threads_that_look_see_no_change_half_done_s15() {
        let shared = Shared::default();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..2000).for_each(|_| shared.change()));
                scope.spawn(|| (0..2000).for_each(|_| shared.look()));
            }
        });
        assert!(!shared.failed.load(Relaxed), "somebody looked in the middle of a change");
        assert_eq!(shared.words.each_ref().map(|word| word.load(Relaxed)), [4000, 4000]);
        assert!(!shared.gate.is_used());
    }
}
