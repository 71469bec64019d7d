//! From page pointers to descriptors: most of what a short-lived mapping costs.

use super::{ATTRIBUTES, OWNERS, WORDS};
use crate::addr::PAGE_SHIFT;
use crate::frames::{Belonging, Frame, FrameTable};
use crate::kernel_space::vmap::OwnerSet;
use crate::machine::Machine;
use crate::page_table::{Paired, Slots};

/// Writes the descriptors of `pages` into as many `slots`, up to the first page that may not be mapped or slot that is in use
/// (S17), and cleans what it wrote.
///
/// # Errors
/// How many it wrote, if that is not all.
#[inline(always)]
pub(in crate::kernel_space) fn write(
    machine: &impl Machine,
    slots: &mut Slots<'_>,
    pages: &[*const Frame],
    ram: &Ram<'_>,
) -> Result<(), u32> {
    match pages {
        &[page] => write_one(machine, slots, page, ram),
        _ => write_all(machine, slots, pages, ram),
    }
}

/// As [`write()`], of many pages rather than one.
#[inline(always)]
pub(in crate::kernel_space) fn write_all(
    machine: &impl Machine,
    slots: &mut Slots<'_>,
    pages: &[*const Frame],
    ram: &Ram<'_>,
) -> Result<(), u32> {
    let written = write_many(machine, slots, pages, ram);
    if written == slots.count() { Ok(()) } else { Err(written) }
}

/// As [`write()`], of a single page: what it costs is mostly the way to it.
#[inline(always)]
fn write_one(
    machine: &impl Machine,
    slots: &mut Slots<'_>,
    page: *const Frame,
    ram: &Ram<'_>,
) -> Result<(), u32> {
    match ram.word_at_record(page) {
        Some(word) if slots.write_first_if_empty(machine, word) => Ok(()),
        _ => Err(0),
    }
}

/// Four at a time, as long as their records say what the first one does; then one after the other.
///
/// Not inlined, so that the loop has the registers to itself: it is most of what a large mapping costs.
#[inline(never)]
fn write_many(
    machine: &impl Machine,
    slots: &mut Slots<'_>,
    pages: &[*const Frame],
    ram: &Ram<'_>,
) -> u32 {
    let Some(mut pair) = slots.with(pages) else { return 0 };
    let mut written = write_alike(machine, &mut pair, *ram);
    if written != pair.count() {
        written = write_rest(machine, slots, pages, ram, written);
    }
    slots.clean(machine, written);
    written
}

#[inline(always)]
fn write_alike(machine: &impl Machine, pair: &mut Paired<'_, '_>, ram: Ram<'_>) -> u32 {
    let table = ram.table;
    let first = pair.pages().first().and_then(|page| table.likeness_at_record(page.addr()));
    let Some(like) = first.filter(|first| first.is_of(OWNERS)) else { return 0 };
    pair.write_fours_if_empty(machine, |four| {
        let indices = table.indices_if_like(four.map(<*const Frame>::addr), like)?;
        Some(indices.map(|index| ram.word(index)))
    })
}

/// From the page and slot at `written` on; cleans nothing.
#[inline(never)]
fn write_rest(
    machine: &impl Machine,
    slots: &mut Slots<'_>,
    pages: &[*const Frame],
    ram: &Ram<'_>,
    written: u32,
) -> u32 {
    let ram = *ram;
    let Some(mut pair) = slots.with(pages) else { return written };
    pair.write_each_if_empty(machine, written, |page| ram.word_at_record(page))
}

/// The number of the frame whose record begins at `address`, which by itself does not say whose it is, if it may be mapped.
#[cold]
#[inline(never)]
fn index_within(table: FrameTable<'_>, address: usize) -> Option<u32> {
    let Belonging { frame, owner } = table.belonging_at_record(address)?;
    let allowed = OwnerSet::allowed_under(ATTRIBUTES).contains(owner);
    allowed.then(|| frame.checked_sub(table.first())).flatten()
}

/// The frames that may be mapped, and their descriptors.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernel_space) struct Ram<'t> {
    table: FrameTable<'t>,
    /// The descriptor of the table's first frame: a word that is loaded costs less than what makes it.
    first: u32,
}

impl<'t> Ram<'t> {
    pub(in crate::kernel_space) const fn new(table: FrameTable<'t>) -> Self {
        Self { table, first: WORDS.word(table.first()) }
    }

    /// The descriptor of the frame whose record begins at `page`, if it may be mapped.
    #[inline(always)]
    fn word_at_record(&self, page: *const Frame) -> Option<u32> {
        let index = match self.table.index_if_owned(page.addr(), OWNERS) {
            Some(index) => index,
            None => index_within(self.table, page.addr())?,
        };
        Some(self.word(index))
    }

    /// The descriptor of the frame at `index` of the table.
    #[inline(always)]
    const fn word(&self, index: u32) -> u32 {
        // The table ends below 4 GiB, so nothing is carried into the attributes.
        self.first.wrapping_add(index << PAGE_SHIFT)
    }
}
