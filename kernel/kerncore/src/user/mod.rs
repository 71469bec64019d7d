//! User address spaces: what a program may reach, and under which number the processor knows it.
//!
//! ```text
//! 0x8000_0000 ┌──────────────────────────────────────┐ USER_END = KERNEL_START (TTBCR.N = 1)
//!             │ windows, and nothing between them    │ a first-level table of 8 KiB for each space (TTBR0)
//! 0x0000_1000 ├──────────────────────────────────────┤ USER_START
//!             │ never mapped: null pointers fault    │
//! 0x0000_0000 └──────────────────────────────────────┘
//! ```
//!
//! * [`windows`]: which addresses of a space are taken, and by what.
//! * [`asid`]: the numbers that the TLB tells spaces apart by.
//! * [`machine`]: what a processor must offer, and the order in which its registers change.
//! * `lent`: data in frames of the contiguous region, and how they are moved out when buffers ask for them.
//! * [`UserSpace`]: all of that put together, over the kernel's own page table.
//!
//! What a program can write is never executable, and what it can execute nobody can write, the kernel included (S112).

pub mod asid;
mod audit;
mod lent;
pub mod machine;
mod map;
mod show;
mod space;
pub(crate) mod tables;
mod visit;
mod window;
pub mod windows;

pub use audit::{UserSummary, UserViolation};
pub use space::{CPUS, Spaces, UserSpace, WINDOWS};
pub use visit::Visitor;
pub use window::{CloseError, PlaceError, Protection, ShowError};
pub use windows::WindowError;

use crate::addr::{PAGE_SIZE, PageRange, VirtAddr};
use crate::layout::KERNEL_START;

/// The lowest address that a program can have. The page below is never mapped (S112).
pub const USER_START: VirtAddr = VirtAddr::new(PAGE_SIZE);
/// The first address that no program can have.
pub const USER_END: VirtAddr = KERNEL_START;

/// Every page that a program can have.
pub const USER_PAGES: PageRange =
    match PageRange::new(USER_START, USER_END.page_number() - USER_START.page_number()) {
        Some(pages) => pages,
        None => panic!("the user's half begins on a page boundary"),
    };

/// The last byte of `bytes` from `start`, if all of them are a program's to name: above page zero, below the kernel, without
/// wrapping round. That anything is mapped there is another matter. No byte is nowhere, and so allowed anywhere.
pub fn last_byte(start: VirtAddr, bytes: u32) -> Option<VirtAddr> {
    let last = start.checked_add(bytes.saturating_sub(1))?;
    (bytes == 0 || (start >= USER_START && last < USER_END)).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_runs_between_page_zero_and_the_kernel_are_a_programs_to_name() {
        let allowed = |start, bytes| last_byte(VirtAddr::new(start), bytes).is_some();
        assert!(allowed(0x1000, 1) && allowed(0x7fff_ffff, 1) && allowed(0x1000, 0x7fff_f000));
        assert!(!allowed(0x0fff, 1), "page zero");
        assert!(!allowed(0x0fff, 2), "page zero's last byte");
        assert!(!allowed(0x8000_0000, 1), "the kernel's first byte");
        assert!(!allowed(0x7fff_ffff, 2), "into the kernel");
        assert!(!allowed(0x1000, 0x7fff_f001), "into the kernel");
        assert!(!allowed(0x7fff_f000, 0xffff_ffff), "round the top and back");
        assert!(!allowed(0xffff_ffff, 2), "round the top");
        assert!(allowed(0x8000_0000, 0) && allowed(0, 0), "nothing, anywhere");
        assert_eq!(last_byte(VirtAddr::new(0x1000), 0x1000), Some(VirtAddr::new(0x1fff)));
    }

    #[test]
    fn the_users_half_is_all_but_page_zero() {
        assert_eq!((USER_PAGES.first(), USER_PAGES.end()), (1, 0x8_0000));
    }
}
