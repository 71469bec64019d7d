//! From page pointers to descriptors: most of what a short-lived mapping costs.

use super::{ATTRIBUTES, OWNERS, WORDS};
use crate::addr::PAGE_SHIFT;
use crate::frames::{Belonging, Frame, FrameTable};
use crate::kernel_space::vmap::OwnerSet;
use crate::machine::Machine;
use crate::page_table::{Slots, Wrote};

/// So many pages are worth the quick loop.
pub(super) const MANY: u32 = 8;

/// Writes the descriptors of `pages` into as many `slots`, up to the first page that may not be mapped or slot that is in use
/// (S17), and says how many. Cleans nothing.
#[inline(always)]
pub(in crate::kernel_space) fn write(
    machine: &impl Machine,
    slots: &mut Slots<'_>,
    pages: &[*const Frame],
    table: &FrameTable<'_>,
) -> u32 {
    let mut written = 0;
    if slots.count() >= MANY {
        if !slots.are_empty(machine) {
            return 0;
        }
        written = write_alike(machine, slots, pages, table);
    }
    for page in pages.get(written as usize..).unwrap_or_default() {
        let index = match table.index_if_owned(page.addr(), OWNERS) {
            Some(index) => index,
            None => match index_within(table, page.addr()) {
                Some(index) => index,
                None => break,
            },
        };
        if slots.write_if_empty(machine, written, word_of(table, index)) == Wrote::No {
            break;
        }
        written = written.wrapping_add(1);
    }
    written
}

/// Writes the descriptors of `pages`, four at a time, as long as their records say what the first one does, and says how many.
///
/// Not inlined, so that the loop has the registers to itself: it is most of what a large mapping costs.
#[inline(never)]
fn write_alike(
    machine: &impl Machine,
    slots: &mut Slots<'_>,
    pages: &[*const Frame],
    table: &FrameTable<'_>,
) -> u32 {
    let table = *table;
    let first = pages.first().and_then(|page| table.likeness_at_record(page.addr()));
    let Some(like) = first.filter(|first| first.is_of(OWNERS)) else { return 0 };
    slots.write_fours(machine, pages, |four| {
        let indices = table.indices_if_like(four.map(<*const Frame>::addr), like)?;
        Some(indices.map(|index| word_of(&table, index)))
    })
}

/// The number of the frame whose record begins at `address`, which by itself does not say whose it is, if it may be mapped.
#[cold]
#[inline(never)]
fn index_within(table: &FrameTable<'_>, address: usize) -> Option<u32> {
    let Belonging { frame, owner } = table.belonging_at_record(address)?;
    let allowed = OwnerSet::allowed_under(ATTRIBUTES).contains(owner);
    allowed.then(|| frame.checked_sub(table.first())).flatten()
}

/// The descriptor of the frame at `index` of the table.
#[inline(always)]
fn word_of(table: &FrameTable<'_>, index: u32) -> u32 {
    // The table ends below 4 GiB, so nothing is carried into the attributes.
    WORDS.word(table.first()).wrapping_add(index << PAGE_SHIFT)
}
