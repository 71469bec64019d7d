//! The tagged list of Linux's boot protocol for ARM.
//!
//! ```text
//!   ┌ words ┬ tag ┬ words − 2 words of payload ┐┌ words ┬ tag ┬ …    …  ┌ 0 ┬ ATAG_NONE ┐
//! ```
//! All words are little-endian; `words` counts the header's two. The first tag is `ATAG_CORE`.

use super::{Handover, Problem, Span};
use crate::addr::PhysAddr;

/// The most that is read of a list, in bytes.
pub const MAX_BYTES: u32 = 16 << 10;

/// Ends the list.
const NONE: u32 = 0;
/// Begins the list.
pub const CORE: u32 = 0x5441_0001;
/// A bank of RAM: bytes, start.
const MEMORY: u32 = 0x5441_0002;
/// The initial RAM disk: start, bytes.
const INITRD: u32 = 0x5442_0005;
/// The command line, ended by a zero byte.
const COMMAND_LINE: u32 = 0x5441_0009;

/// A tag's two first words.
const HEADER: u32 = 2;

/// Whether a list of tags begins with these bytes.
pub fn begins_with_core(list: &[u8]) -> bool {
    word(list, 1) == Some(CORE)
}

/// Reads the list that lies at `address`, of which `list` is as much as may be read. The board's RAM begins at `ram_base`.
/// Each problem is told to `complain`; what is sound beside it is used.
pub fn read(
    address: PhysAddr,
    list: &[u8],
    ram_base: PhysAddr,
    mut complain: impl FnMut(Problem),
) -> Handover<'_> {
    let mut handover = Handover::default();
    if !address.raw().is_multiple_of(4) {
        complain(Problem::Unaligned { address });
        return handover;
    }
    let first = word(list, 1).unwrap_or(NONE);
    if first != CORE {
        complain(Problem::NotCore { tag: first });
        return handover;
    }
    let mut rest = list;
    let mut offset = 0;
    loop {
        let (Some(words), Some(tag)) = (word(rest, 0), word(rest, 1)) else {
            complain(Problem::NoEnd);
            return handover;
        };
        if tag == NONE {
            return handover;
        }
        if words < HEADER {
            complain(Problem::Size { tag, offset, words });
            return handover;
        }
        let Some((this, behind)) = split(rest, words) else {
            complain(Problem::Overlong { tag, offset, words });
            return handover;
        };
        if let Err(problem) = apply(&mut handover, tag, &this[8..], ram_base) {
            complain(problem.unwrap_or(Problem::Size { tag, offset, words }));
        }
        rest = behind;
        offset += words * 4;
    }
}

/// Takes in one tag; without a problem of its own the payload has the wrong size. Unknown tags are somebody else's.
fn apply<'h>(
    handover: &mut Handover<'h>,
    tag: u32,
    payload: &'h [u8],
    ram_base: PhysAddr,
) -> Result<(), Option<Problem>> {
    match tag {
        // Flags, page size and root device, or nothing at all.
        CORE if matches!(payload.len(), 0 | 12) => Ok(()),
        MEMORY => {
            let (bytes, start) = pair(payload).ok_or(None)?;
            Ok(handover.add_bank(ram_base, start, bytes)?)
        }
        INITRD => {
            let (start, bytes) = pair(payload).ok_or(None)?;
            let span = Span::new(start, bytes).ok_or(Problem::Initrd { start, bytes })?;
            handover.initrd = Some(span);
            Ok(())
        }
        COMMAND_LINE => {
            let end = payload.iter().position(|&byte| byte == 0).ok_or(Problem::Unterminated)?;
            handover.command_line = Some(&payload[..end]);
            Ok(())
        }
        CORE => Err(None),
        _ => Ok(()),
    }
}

/// The two words that are all of `payload`.
fn pair(payload: &[u8]) -> Option<(u64, u64)> {
    (payload.len() == 8).then_some(())?;
    Some((word(payload, 0)?.into(), word(payload, 1)?.into()))
}

fn word(bytes: &[u8], index: usize) -> Option<u32> {
    let bytes = bytes.get(index * 4..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

/// The first `words` words and what follows.
fn split(bytes: &[u8], words: u32) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(usize::try_from(words).ok()?.checked_mul(4)?)
}

#[cfg(test)]
mod tests;
