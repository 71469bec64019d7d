//! The system calls: what the kernel does for programs.
//!
//! | r7 | call | arguments | answer |
//! |---|---|---|---|
//! | 1 | exit | status | none |
//! | 4 | write | 1 or 2, first byte, how many | how many were written, or `-EFAULT`, `-EBADF` |
//!
//! Numbers are those of Linux for ARM. Any other is answered `-ENOSYS`.

use core::fmt::Write as _;

use kerncore::addr::VirtAddr;
use mm::user::{AddressSpace, Answer, Call};

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
const PIECE: u32 = 128;

/// What the kernel says to `call` of the program in `space`.
pub fn answer(space: &AddressSpace, call: Call) -> Answer {
    let [first, second, third, ..] = call.arguments;
    match call.number {
        EXIT => Answer::Exit(first),
        WRITE if OUTPUTS.contains(&first) => {
            Answer::Return(write(space, VirtAddr::new(second), third))
        }
        WRITE => Answer::Return(EBADF.wrapping_neg()),
        _ => Answer::Return(ENOSYS.wrapping_neg()),
    }
}

/// Prints `bytes` of the program's memory from `start`, up to the first that it may not read itself.
fn write(space: &AddressSpace, start: VirtAddr, bytes: u32) -> u32 {
    let mut written = 0;
    while written < bytes {
        let mut piece = [0; PIECE as usize];
        let count = (bytes - written).min(PIECE);
        let piece = &mut piece[..count as usize];
        let copied = start.checked_add(written).map(|from| space.copy_from(piece, from));
        if !matches!(copied, Some(Ok(()))) {
            return if written == 0 { EFAULT.wrapping_neg() } else { written };
        }
        for text in piece.utf8_chunks() {
            // A console that does not take text cannot be told so.
            let _ = Console.write_str(text.valid());
        }
        written += count;
    }
    written
}
