//! Who called whom.
//!
//! Every function keeps a frame pointer (`-Cforce-frame-pointers=yes`), so the frames form a chain:
//!
//! ```text
//!             ┌──────────────┐ higher addresses
//!             │ LR           │  where the caller goes on
//!   r11 ────▶ │ caller's r11 │ ────▶ the caller's pair
//!             └──────────────┘
//! ```
//!
//! The walk believes nothing: it is bounded, goes upwards only, and reads through a function that says "no" rather than
//! fault. The stub starts the chain with r11 = 0.

use kerncore::addr::VirtAddr;

/// The deepest chain that is followed.
pub const MAX_FRAMES: usize = 64;

/// Bytes of an instruction in ARM state. A return address is where a call goes on; the call itself is one before, and
/// is what lies inside the calling function even if nothing follows it.
const INSTRUCTION: u32 = 4;

/// The addresses of the calls that led here, innermost first.
#[derive(Clone, Debug)]
pub struct Backtrace<R> {
    read: R,
    /// Addresses to give before the chain is followed.
    pending: [Option<VirtAddr>; 2],
    frame_pointer: u32,
    left: usize,
}

impl<R: FnMut(VirtAddr) -> Option<u32>> Backtrace<R> {
    /// The chain that begins at `frame_pointer`, read by `read`, which gives `None` for what is not readable.
    pub const fn from_frame_pointer(frame_pointer: u32, read: R) -> Self {
        Self { read, pending: [None, None], frame_pointer, left: MAX_FRAMES }
    }

    fn next_in_chain(&mut self) -> Option<VirtAddr> {
        let pair = self.frame_pointer;
        if pair == 0 || !pair.is_multiple_of(4) {
            return None;
        }
        let caller_pair = (self.read)(VirtAddr::new(pair))?;
        let return_address = (self.read)(VirtAddr::new(pair).checked_add(4)?)?;
        // Stacks grow down: a caller's pair lies above. Anything else ends the walk after this one.
        self.frame_pointer = if caller_pair > pair { caller_pair } else { 0 };
        return_address.checked_sub(INSTRUCTION).map(VirtAddr::new).filter(|call| call.raw() != 0)
    }
}

impl<R: FnMut(VirtAddr) -> Option<u32>> Iterator for Backtrace<R> {
    type Item = VirtAddr;

    fn next(&mut self) -> Option<VirtAddr> {
        self.left = self.left.checked_sub(1)?;
        let pending = self.pending.iter_mut().find_map(Option::take);
        pending.or_else(|| self.next_in_chain())
    }
}

#[cfg(target_arch = "arm")]
pub use live::{Live, from_frame, here, return_address};

#[cfg(target_arch = "arm")]
mod live {
    use super::{Backtrace, INSTRUCTION, VirtAddr};
    use crate::exception::Frame;
    use crate::{probe, symbols};

    /// A backtrace of this machine's stacks.
    pub type Live = Backtrace<fn(VirtAddr) -> Option<u32>>;

    fn read(address: VirtAddr) -> Option<u32> {
        probe::read_u32(address).ok()
    }

    /// The calls that led to the caller of this function.
    #[inline(always)]
    pub fn here() -> Live {
        let frame_pointer: u32;
        // SAFETY: reads a register; inlined, so it is the caller's.
        unsafe {
            core::arch::asm!("mov {}, r11", out(reg) frame_pointer, options(nomem, nostack, preserves_flags));
        }
        Backtrace::from_frame_pointer(frame_pointer, read)
    }

    /// Where the function that this is inlined into will return to: the caller that an allocation is recorded for. The
    /// function must not be inlined itself if that is to mean anything.
    #[inline(always)]
    pub fn return_address() -> VirtAddr {
        let address: u32;
        // SAFETY: every function keeps a frame pointer, so r11 points to the pair of this one, whose second word is LR.
        unsafe {
            core::arch::asm!("ldr {}, [r11, #4]", out(reg) address, options(readonly, nostack, preserves_flags));
        }
        VirtAddr::new(address)
    }

    /// The instruction that `frame` interrupted, then the calls that led to it.
    ///
    /// A function that keeps no frame, such as `memcpy`, or an address where there is no function at all, would hide its
    /// caller: the chain then goes on with the caller's caller. There LR is still the way back, which shows by its
    /// leading into another function than the interrupted one.
    pub fn from_frame(frame: &Frame) -> Live {
        let mut backtrace = Backtrace::from_frame_pointer(frame.registers[11], read as fn(_) -> _);
        let interrupted = VirtAddr::new(frame.pc);
        backtrace.pending = [Some(interrupted), frameless_caller(frame, interrupted)];
        backtrace
    }

    fn frameless_caller(frame: &Frame, interrupted: VirtAddr) -> Option<VirtAddr> {
        let call = VirtAddr::new(frame.lr.checked_sub(INSTRUCTION)?);
        let in_chain = read(VirtAddr::new(frame.registers[11]).checked_add(4)?);
        let start = |address: VirtAddr| {
            symbols::lookup(address).map(|symbol| address.raw().wrapping_sub(symbol.offset))
        };
        // An LR that leads into no function is a register like any other.
        let elsewhere = start(call).is_some() && start(call) != start(interrupted);
        (elsewhere && in_chain != Some(frame.lr)).then_some(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn walk(memory: &[(u32, u32)], frame_pointer: u32) -> Vec<u32> {
        let memory: HashMap<_, _> = memory.iter().copied().collect();
        Backtrace::from_frame_pointer(frame_pointer, |address| memory.get(&address.raw()).copied())
            .map(VirtAddr::raw)
            .collect()
    }

    #[test]
    fn the_chain_is_followed_to_its_zero() {
        let memory = [(0x1000, 0x1020), (0x1004, 0x804), (0x1020, 0), (0x1024, 0x904)];
        assert_eq!(walk(&memory, 0x1000), [0x800, 0x900]);
    }

    #[test]
    fn a_chain_that_turns_back_ends() {
        let memory = [(0x1000, 0x1000), (0x1004, 0x804)];
        assert_eq!(walk(&memory, 0x1000), [0x800]);
        let loop_of_two = [(0x1000, 0x1020), (0x1004, 0x804), (0x1020, 0x1000), (0x1024, 0x904)];
        assert_eq!(walk(&loop_of_two, 0x1000), [0x800, 0x900]);
    }

    #[test]
    fn unreadable_unaligned_and_absent_pairs_end_it() {
        assert_eq!(walk(&[], 0x1000), []);
        assert_eq!(walk(&[(0x1000, 0x1020)], 0x1000), []);
        assert_eq!(walk(&[(0x1001, 0x1020), (0x1005, 0x804)], 0x1001), []);
        assert_eq!(walk(&[(0, 0x1020), (4, 0x804)], 0), []);
        assert_eq!(walk(&[(u32::MAX - 3, 0)], u32::MAX - 3), []);
    }

    #[test]
    fn an_endless_stack_is_cut_off() {
        let endless = Backtrace::from_frame_pointer(0x1000, |address| {
            Some(if address.raw().is_multiple_of(8) { address.raw() + 8 } else { 0x8000_0004 })
        });
        assert_eq!(endless.count(), MAX_FRAMES);
    }
}
