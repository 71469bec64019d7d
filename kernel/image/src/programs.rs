//! The system calls: what the kernel does for programs.
//!
//! | r7 | call | arguments | answer |
//! |---|---|---|---|
//! | 1 | exit | status | none |
//! | 4 | write | 1 or 2, first byte, how many | how many were written (all that the program may read), or `-EFAULT`, `-EBADF` |
//!
//! Numbers are those of Linux for ARM. Any other is answered `-ENOSYS`.

use core::fmt;

use kerncore::addr::VirtAddr;
use kerncore::user::USER_END;
use mm::user::{AddressSpace, Answer, Call, CopyError};

use crate::console::Console;

/// Ends the program.
pub const EXIT: u32 = 1;
/// Prints.
pub const WRITE: u32 = 4;

/// No such file.
pub const EBADF: u32 = 9;
/// A bad address.
pub const EFAULT: u32 = 14;
/// No such call.
pub const ENOSYS: u32 = 38;

/// The standard output, and the standard error output: the console.
const OUTPUTS: [u32; 2] = [1, 2];
/// Bytes that are copied at a time.
const PIECE: usize = 128;

/// What the kernel says to `call` of the program in `space`.
pub fn answer(space: &AddressSpace, call: Call) -> Answer {
    let [first, second, third, ..] = call.arguments;
    match call.number {
        EXIT => Answer::Exit(first),
        WRITE if OUTPUTS.contains(&first) => {
            Answer::Return(write(space, VirtAddr::new(second), third, &mut Console))
        }
        WRITE => Answer::Return(EBADF.wrapping_neg()),
        _ => Answer::Return(ENOSYS.wrapping_neg()),
    }
}

/// Writes the `bytes` of the program's memory from `start` to `output`, up to the first that it may not read itself: how many
/// those are, or `-EFAULT` for none. What is no text (UTF-8) becomes U+FFFD.
pub fn write(
    space: &AddressSpace,
    start: VirtAddr,
    bytes: u32,
    output: &mut dyn fmt::Write,
) -> u32 {
    let mut piece = [0; PIECE];
    // What stands first in the piece: the beginning of a character, whose end is to follow.
    let mut held = 0;
    let mut written = 0;
    loop {
        let wanted = (PIECE - held).min((bytes - written) as usize);
        let from = start.checked_add(written);
        let read = from.map_or(0, |from| read(space, from, &mut piece[held..held + wanted]));
        #[expect(clippy::cast_possible_truncation, reason = "at most a piece")]
        let more = read as u32;
        written += more;
        let is_last = read < wanted || written == bytes;
        let text = &piece[..held + read];
        let finished = if is_last { text.len() } else { text.len() - unfinished(text) };
        for chunk in text[..finished].utf8_chunks() {
            // A console that does not take text cannot be told so.
            let _ = output.write_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                let _ = output.write_char(char::REPLACEMENT_CHARACTER);
            }
        }
        if is_last {
            let is_fault = written == 0 && bytes != 0;
            return if is_fault { EFAULT.wrapping_neg() } else { written };
        }
        let end = held + read;
        piece.copy_within(finished..end, 0);
        held = end - finished;
    }
}

/// Fills `piece` from the program's memory: how many bytes there are before the first that it may not read.
fn read(space: &AddressSpace, from: VirtAddr, piece: &mut [u8]) -> usize {
    let below_the_kernel = USER_END.raw().saturating_sub(from.raw());
    let count = piece.len().min(below_the_kernel as usize);
    match space.copy_from(&mut piece[..count], from) {
        Ok(()) => count,
        Err(CopyError::Fault(fault)) => fault.copied,
        Err(CopyError::NotUsers { .. }) => 0,
    }
}

/// How many bytes at the end of `text` begin a character that does not end there.
fn unfinished(text: &[u8]) -> usize {
    // Of a character's first byte as many bits lead as it has bytes, and of the others one.
    let has_more = |(back, byte): &(usize, &u8)| byte.leading_ones() as usize > *back;
    (1..=3).zip(text.iter().rev()).find(has_more).map_or(0, |(back, _)| back)
}
