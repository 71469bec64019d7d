//! Memory: the live page tables, and the owners of what they map.
//!
//! The algorithms lie in `kerncore`, as one type, [`kerncore::kernel_space::KernelSpace`]. This crate runs it on the
//! Cortex-A9 and adds what only `unsafe` code can: it calls an owned, mapped range *memory*.
//!
//! What this crate believes:
//!
//! * **Owners, not addresses.** [`vm_area::VmArea`], [`mapped_pages::VmMap`], [`mapped_pages::ShortMap`], [`io_mem::IoMem`],
//!   [`io_memory::IoMemory`], [`io_memory::IoText`], [`page_alloc::Pages`], [`any_pages::AnyPages`], [`kv_bytes::KvBytes`],
//!   [`movable_buffer::MovableBuffer`] own what they map; dropping one gives everything back, in the order that
//!   the architecture wants.
//! * **One proof obligation.** [`bring_up::EarlySpace::take`] is the only place that claims the live tables; its contract is
//!   what every `SAFETY` comment here leans on.
//! * **No general heap on a hot path.** Records, tables and lists live in frames; [`heap`] serves the rest.
//! * **It can be audited.** [`audit`] walks every entry and says whose it is.
#![no_std]
#![cfg(target_arch = "arm")]

pub mod any_pages;
pub mod area_copy;
pub mod area_list;
pub mod audit;
pub mod bare_area;
pub mod bring_up;
pub mod bus;
pub mod clock;
mod contiguous;
pub mod domain;
pub mod exec_area;
mod frame_plan;
pub mod heap;
pub mod io_mem;
pub mod io_memory;
pub mod kv_bytes;
mod late;
pub mod ledger;
pub mod mapped_pages;
pub mod memory_map;
mod memory_plan;
pub mod movable_buffer;
pub mod page_alloc;
pub mod ram_probe;
pub mod report;
pub mod reserve;
pub mod streamable;
pub mod user;
pub mod user_area;
pub mod vm_area;

use arch::lock::IrqLocks;
use arch::machine::{Authority, CortexA9};
use kerncore::failure::Point;
use kerncore::frames::{Displaced, Frame, FrameOwner, Freed, Spared, Spares};
use kerncore::kernel_space::KernelSpace;
use kerncore::lock::Locks;
use late::{Late, LateSlice};

/// The kernel's address space on this processor.
pub type Kernel = KernelSpace<'static, CortexA9, IrqLocks>;

static KERNEL: Late<Kernel> = Late::new();

/// What the quick ways to single pages go by, together, so that one address leads to it.
struct Desk {
    /// The records of the frames of the zone that serves the most.
    records: LateSlice<Frame>,
    /// The spare blocks of that zone.
    spares: Spares<'static, IrqLocks>,
}

static DESK: Desk = Desk { records: LateSlice::new(), spares: Spares::new() };

/// Takes the spare block of 2^`order` frames of low memory in the name of `owner`, if there is one: its first frame's record.
/// `None` says nothing about memory: ask [`kernel`]. Any context; before there is a kernel, there is no spare block.
#[inline(always)]
pub fn take_spare(order: u32, owner: FrameOwner) -> Option<&'static Frame> {
    if IrqLocks::fails(Point::ShortCut) { None } else { DESK.spares.take(order, owner) }
}

/// Gives back the page whose record is at the address `record`, if it is one page of `owner`'s and in the zone that serves the
/// most. Otherwise nothing has changed, and [`Kernel::free_frames_at`] frees it or says what is wrong. Any context.
#[inline(always)]
pub fn give_back_page(_authority: Authority, record: usize, owner: FrameOwner) -> Freed {
    IrqLocks::memory_goes(|| kernel().memory_at_record(record, 0));
    match DESK.spares.keep_at(DESK.records.get(), record, 0, owner) {
        Spared::Yes => Freed::Yes,
        Spared::InPlaceOf(other) => {
            take_displaced(other);
            Freed::Yes
        }
        Spared::No => Freed::No,
    }
}

#[inline(never)]
fn take_displaced(displaced: Displaced<'static>) {
    kernel().zones().take_displaced(displaced);
}

/// The kernel's address space.
///
/// # Panics
/// Before [`bring_up::EarlySpace::finish`] has run: nothing may ask for memory earlier.
#[inline]
pub fn kernel() -> &'static Kernel {
    KERNEL.get().expect("memory is asked for before it was brought up")
}

/// The kernel's address space, or `None` while it is still being brought up: for reports of early faults.
#[inline]
pub fn try_kernel() -> Option<&'static Kernel> {
    KERNEL.get()
}
