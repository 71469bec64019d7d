//! What one place holds of the lines of one page: a cache, of those that it has.

use super::{Line, PAGE_LINES};

/// Lines of a page, by their numbers in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    /// A bit for each line that is held.
    held: u128,
    /// A bit for each held line that differs from what is behind.
    dirty: u128,
    /// Room for all of them, made for the first.
    room: Option<Box<[Line; PAGE_LINES]>>,
}

/// Numbers of the bits that are set, in order.
pub(super) fn numbers(mut bits: u128) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let number = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (number < u128::BITS).then_some(number)
    })
}

impl Lines {
    /// A bit for each line that is held.
    pub(super) const fn held(&self) -> u128 {
        self.held
    }

    /// The line, if it is held.
    pub(super) fn get(&self, number: u32) -> Option<&Line> {
        let room = self.room.as_ref()?;
        (self.held >> number & 1 == 1).then(|| &room[number as usize])
    }

    /// The line, if it is held and dirty.
    pub(super) fn get_dirty(&self, number: u32) -> Option<&Line> {
        self.get(number).filter(|_| self.dirty >> number & 1 == 1)
    }

    /// The line, for a change that makes it no dirtier than it is.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Line> {
        let room = self.room.as_mut()?;
        (self.held >> number & 1 == 1).then(|| &mut room[number as usize])
    }

    /// Holds `line` as what is behind, too.
    pub(super) fn hold(&mut self, number: u32, line: Line) -> &mut Line {
        self.held |= 1 << number;
        self.dirty &= !(1 << number);
        let room = self.room.get_or_insert_with(|| Box::new([Line::default(); PAGE_LINES]));
        room[number as usize] = line;
        &mut room[number as usize]
    }

    /// From now on the line differs from what is behind.
    pub(super) const fn soil(&mut self, number: u32) {
        self.dirty |= 1 << number;
    }

    /// What is behind has the line as it is, if that is this version.
    pub(super) fn clean(&mut self, number: u32, version: u64) {
        if self.get(number).is_some_and(|line| line.version == version) {
            self.dirty &= !(1 << number);
        }
    }

    /// Holds the line no longer; gives it if it was dirty.
    pub(super) fn remove(&mut self, number: u32) -> Option<Line> {
        let line = self.get_dirty(number).copied();
        self.held &= !(1 << number);
        self.dirty &= !(1 << number);
        line
    }

    /// Holds nothing.
    pub(super) const fn clear(&mut self) {
        self.held = 0;
        self.dirty = 0;
    }
}
