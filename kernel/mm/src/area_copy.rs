//! Copying out of areas and into them, whatever lies at the addresses (S39 to S42).
//!
//! ```text
//!   addresses   ..... area ..... registers ..... area  (no area above)
//!   read        00000 xxxx 00000 000000000 00000 xxxx   the rest of the buffer is not touched
//!   write       ..... xxxx ..... ......... ..... xxxx   what falls between is written nowhere
//! ```

use core::ptr;

use arch::machine::Authority;
use kerncore::addr::VirtAddr;
use kerncore::kernel_space::{Access, Span};

use crate::kernel;

/// Copies what lies at `from` and above to `to`, and says how many bytes that were: fewer where no area is left above, and then
/// what is behind them in `to` is as it was. Gaps, guards, registers, and what is not mapped read as zero.
///
/// What others write meanwhile may be read or not, byte by byte. Not in interrupt context.
pub fn read(from: VirtAddr, to: &mut [u8]) -> usize {
    let bytes = u32::try_from(to.len()).unwrap_or(u32::MAX);
    let mut left = Rest(to);
    let done = kernel().for_each_span(from, bytes, Access::Read, |span| match span {
        Span::Gap { bytes } => left.take(bytes).fill(0),
        Span::Memory { address, bytes } => {
            let memory: *const u8 = ptr::with_exposed_provenance(address.raw() as usize);
            for (index, byte) in left.take(bytes).iter_mut().enumerate() {
                // SAFETY: the span is mapped memory that may be read until this visit ends; a volatile access may meet
                // another's write.
                *byte = unsafe { memory.wrapping_add(index).read_volatile() };
            }
        }
    });
    done as usize
}

/// Copies `from` to what lies at `to` and above, and says how many bytes were taken: fewer where no area is left above. Bytes
/// for gaps, guards, registers, and what is not mapped or may not be written, are taken and written nowhere.
///
/// Not in interrupt context. The authority says that nobody has a reference to the memory, or its owner wants it written.
pub fn write(_authority: Authority, from: &[u8], to: VirtAddr) -> usize {
    let mut left = from;
    let bytes = u32::try_from(left.len()).unwrap_or(u32::MAX);
    let done = kernel().for_each_span(to, bytes, Access::Write, |span| match span {
        Span::Gap { bytes } => _ = take(&mut left, bytes),
        Span::Memory { address, bytes } => {
            let memory: *mut u8 = ptr::with_exposed_provenance_mut(address.raw() as usize);
            for (index, &byte) in take(&mut left, bytes).iter().enumerate() {
                // SAFETY: the span is mapped memory that may be written until this visit ends, and nobody has a reference
                // to it by the authority.
                unsafe { memory.wrapping_add(index).write_volatile(byte) };
            }
        }
    });
    done as usize
}

/// What is left of a buffer that is written to from its beginning.
struct Rest<'b>(&'b mut [u8]);

impl<'b> Rest<'b> {
    /// The next `bytes`.
    fn take(&mut self, bytes: u32) -> &'b mut [u8] {
        let all = core::mem::take(&mut self.0);
        let count = (bytes as usize).min(all.len());
        let (taken, rest) = all.split_at_mut(count);
        self.0 = rest;
        taken
    }
}

/// The next `bytes` of what is left.
fn take<'b>(left: &mut &'b [u8], bytes: u32) -> &'b [u8] {
    let (taken, rest) = left.split_at((bytes as usize).min(left.len()));
    *left = rest;
    taken
}
