//! Runs of lines in one state, in order; what is in no run is in the unlisted state.

use super::Wrong;
use super::state::State;

#[derive(Clone, Copy, Debug)]
struct Run {
    first: u32,
    end: u32,
    state: State,
}

/// At most `N` runs.
#[derive(Debug)]
pub(super) struct Runs<const N: usize> {
    runs: [Run; N],
    count: usize,
}

impl<const N: usize> Runs<N> {
    pub(super) const fn new() -> Self {
        let none = Run { first: 0, end: 0, state: State::UNLISTED };
        Self { runs: [none; N], count: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    fn listed(&self) -> &[Run] {
        &self.runs[..self.count]
    }

    /// Puts every line from `first` to before `end` into the state that `step` makes of its own. If that is wrong for one, nothing
    /// changes, and the first such is told.
    pub(super) fn change(
        &mut self,
        first: u32,
        end: u32,
        step: impl Fn(State) -> Result<State, Wrong>,
    ) -> Result<(), (u32, Wrong)> {
        if first >= end {
            return Ok(());
        }
        let mut new = Self::new();
        let mut at = first;
        for run in self.listed() {
            if run.first < first {
                new.push(Run { end: run.end.min(first), ..*run })?;
            }
            let (from, to) = (run.first.max(first), run.end.min(end));
            if from < to {
                if at < from {
                    new.push_after(at, from, State::UNLISTED, &step)?;
                }
                new.push_after(from, to, run.state, &step)?;
                at = to;
            }
            if run.end > end {
                if at < end {
                    new.push_after(at, end, State::UNLISTED, &step)?;
                    at = end;
                }
                new.push(Run { first: run.first.max(end), ..*run })?;
            }
        }
        if at < end {
            new.push_after(at, end, State::UNLISTED, &step)?;
        }
        *self = new;
        Ok(())
    }

    fn push_after(
        &mut self,
        first: u32,
        end: u32,
        state: State,
        step: &impl Fn(State) -> Result<State, Wrong>,
    ) -> Result<(), (u32, Wrong)> {
        let state = step(state).map_err(|wrong| (first, wrong))?;
        self.push(Run { first, end, state })
    }

    /// Adds a run behind all others, to the last if it goes on.
    fn push(&mut self, run: Run) -> Result<(), (u32, Wrong)> {
        if run.state == State::UNLISTED {
            return Ok(());
        }
        if let Some(last) = self.count.checked_sub(1).and_then(|last| self.runs.get_mut(last))
            && last.end == run.first
            && last.state == run.state
        {
            last.end = run.end;
            return Ok(());
        }
        let place = self.runs.get_mut(self.count).ok_or((run.first, Wrong::NoRoom))?;
        *place = run;
        self.count += 1;
        Ok(())
    }
}
