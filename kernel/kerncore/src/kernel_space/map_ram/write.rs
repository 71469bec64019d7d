//! From page pointers to descriptors: most of what a short-lived mapping costs.

use super::{ATTRIBUTES, OWNERS, WORDS};
use crate::addr::PAGE_SHIFT;
use crate::frames::{Belonging, Frame, FrameTable};
use crate::kernel_space::vmap::OwnerSet;
use crate::machine::Machine;
use crate::page_table::Slots;

/// So many pages are worth the quick loop.
pub(super) const MANY: u32 = 8;

/// Writes the descriptors of `pages` into as many `slots`, up to the first page that may not be mapped or slot that is in use
/// (S17), and says how many; into none if one of [`MANY`] or more is in use. Cleans nothing.
#[inline(always)]
pub(in crate::kernel_space) fn write(
    machine: &impl Machine,
    slots: &mut Slots<'_>,
    pages: &[*const Frame],
    ram: &Ram<'_>,
) -> u32 {
    if slots.count() < MANY {
        write_each(machine, slots, pages, ram, 0)
    } else {
        write_many(machine, slots, pages, ram)
    }
}

/// Not inlined, so that what is few keeps its registers.
#[inline(never)]
fn write_many(
    machine: &impl Machine,
    slots: &mut Slots<'_>,
    pages: &[*const Frame],
    ram: &Ram<'_>,
) -> u32 {
    if slots.are_empty(machine) { write_to_empty(machine, slots, pages, ram) } else { 0 }
}

/// As [`write()`], into slots of which somebody has seen that none is in use.
#[inline(always)]
pub(in crate::kernel_space) fn write_to_empty(
    machine: &impl Machine,
    slots: &mut Slots<'_>,
    pages: &[*const Frame],
    ram: &Ram<'_>,
) -> u32 {
    let written = write_alike(machine, slots, pages, ram);
    if written == slots.count() {
        return written;
    }
    write_each(machine, slots, pages, ram, written)
}

/// As [`write()`], one after the other, from the page and slot at `written` on.
#[inline(always)]
fn write_each(
    machine: &impl Machine,
    slots: &mut Slots<'_>,
    pages: &[*const Frame],
    ram: &Ram<'_>,
    written: u32,
) -> u32 {
    // A copy, which stays in registers.
    let ram = *ram;
    let rest = pages.get(written as usize..slots.count() as usize).unwrap_or_default();
    let words = rest.iter().map_while(|page| {
        let index = match ram.table.index_if_owned(page.addr(), OWNERS) {
            Some(index) => index,
            None => index_within(ram.table, page.addr())?,
        };
        Some(ram.word(index))
    });
    slots.write_each_if_empty(machine, written, words)
}

/// Writes the descriptors of `pages`, four at a time, as long as their records say what the first one does, and says how many.
///
/// Not inlined, so that the loop has the registers to itself: it is most of what a large mapping costs.
#[inline(never)]
fn write_alike(
    machine: &impl Machine,
    slots: &mut Slots<'_>,
    pages: &[*const Frame],
    ram: &Ram<'_>,
) -> u32 {
    let ram = *ram;
    let table = ram.table;
    let first = pages.first().and_then(|page| table.likeness_at_record(page.addr()));
    let Some(like) = first.filter(|first| first.is_of(OWNERS)) else { return 0 };
    slots.write_fours(machine, pages, |four| {
        let indices = table.indices_if_like(four.map(<*const Frame>::addr), like)?;
        Some(indices.map(|index| ram.word(index)))
    })
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

    /// The descriptor of the frame at `index` of the table.
    #[inline(always)]
    const fn word(&self, index: u32) -> u32 {
        // The table ends below 4 GiB, so nothing is carried into the attributes.
        self.first.wrapping_add(index << PAGE_SHIFT)
    }
}
