//! The Cortex-A9 as a machine that runs programs.
//!
//! By the Cortex-A9's erratum 720789, an invalidation that is broadcast with an address space's number, be it of an address
//! (TLBIMVAIS) or of all (TLBIASIDIS), may reach the other CPUs with another number. So neither is used: of an address, the
//! form for all numbers takes its place, of a whole space, that which empties the TLB. Both do more than was asked, never less.

use aarch32_cpu::register::Ttbr0;
use kerncore::addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr};
use kerncore::layout::{linear_address, linear_pages};
use kerncore::user::asid::Asid;
use kerncore::user::machine::{UserMachine, Walks};

use crate::cp15::{self, Bpiallis, Contextidr, Icialluis, Ttbcr, Ttbr1};
use crate::machine::CortexA9;
use crate::{cache, tlb};

impl UserMachine for CortexA9 {
    fn invalidate_tlb_in(&self, _space: Asid, pages: PageRange) {
        tlb::invalidate(pages);
    }

    fn invalidate_tlb_space(&self, _space: Asid) {
        tlb::invalidate_all();
    }

    fn invalidate_tlb_everything(&self) {
        tlb::invalidate_all();
        // SAFETY: a branch predictor holds guesses only.
        unsafe { cp15::issue::<Bpiallis>(0) };
    }

    /// Its walks have the attributes of the kernel's own.
    fn set_user_table(&self, table: PhysAddr) {
        let walks = Ttbr1::read().walk_attributes();
        // SAFETY: the kernel lies in the upper half, which TTBR1 translates. What the table maps is a program's: the contract of
        // `CortexA9::new`.
        unsafe { cp15::issue::<Ttbr0>(table.raw() | walks) };
    }

    fn set_asid(&self, asid: Asid) {
        // SAFETY: entries of the kernel are global, and serve whatever the number is.
        unsafe { cp15::issue::<Contextidr>(u32::from(asid.number())) };
    }

    fn set_user_walks(&self, walks: Walks) {
        let ttbcr = match walks {
            Walks::Allowed => Ttbcr::read().with_ttbr0_walks(),
            Walks::Forbidden => Ttbcr::read().without_ttbr0_walks(),
        };
        // SAFETY: as for `set_user_table`.
        unsafe { cp15::issue::<Ttbcr>(ttbcr.raw()) };
    }

    fn write_frames(&self, first: Pfn, bytes: &[u8]) {
        let frames = bytes.len().div_ceil(PAGE_SIZE as usize);
        let room = u32::try_from(frames).ok().and_then(|frames| linear_pages(first, frames));
        assert!(room.is_some(), "{frames} frames from {first} are not in the linear map");
        let Some(start) = linear_address(first.base()) else { return };
        let to: *mut u8 = core::ptr::with_exposed_provenance_mut(start.raw() as usize);
        // SAFETY: promise 3 of `CortexA9::new`, for frames that are written: they are the caller's alone, and have room.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    fn copy_frame(&self, from: Pfn, to: Pfn) {
        let pointer = |frame: Pfn| {
            let address = linear_pages(frame, 1).map(PageRange::start);
            let address = address.expect("frames of programs are in the linear map");
            core::ptr::with_exposed_provenance_mut::<u8>(address.raw() as usize)
        };
        let (from, to) = (pointer(from), pointer(to));
        // SAFETY: promise 3 of `CortexA9::new`, for frames that are written: `to` is the caller's alone. The other one nobody
        // writes to meanwhile, which is the caller's to see to.
        unsafe { to.copy_from_nonoverlapping(from, PAGE_SIZE as usize) };
    }

    fn clean_instructions(&self, first: Pfn, count: u32) {
        if let Some(pages) = linear_pages(first, count) {
            cache::clean_to_unification(pages.start(), pages.bytes());
        }
    }

    fn invalidate_instructions(&self) {
        // SAFETY: an instruction cache holds copies only.
        unsafe { cp15::issue::<Icialluis>(0) };
        // SAFETY: a branch predictor holds guesses only.
        unsafe { cp15::issue::<Bpiallis>(0) };
    }
}
