//! `struct vm_struct`: what C callers hold a pointer to, and read and write (S85a).
//!
//! ```text
//!   offset  0      4      8      12     16     20        24         28
//!          ┌──────┬──────┬──────┬──────┬──────┬─────────┬──────────┬────────┐
//!          │ next │ addr │ size │ flags│ pages│ nr_pages│ phys_addr│ caller │
//!          └──────┴──────┴──────┴──────┴──────┴─────────┴──────────┴────────┘
//! ```
//!
//! A caller that owns an area may write its flags, page array, page count, physical base and caller; what each write means
//! is said at the field's reader here. Nobody has a reason to write base and size. The kernel believes none of them where
//! it decides what to unmap, free or give back: that is in the record beside the descriptor, which no pointer leads to.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::AreaFlags;
use crate::addr::{PhysAddr, VirtAddr};

/// The descriptor of an area, laid out as C callers expect.
///
/// All words are atomics, because C code may write them while Rust code looks at them.
#[derive(Debug)]
#[repr(C)]
pub struct VmStruct {
    next: AtomicU32,
    addr: AtomicU32,
    size: AtomicU32,
    flags: AtomicU32,
    pages: AtomicU32,
    nr_pages: AtomicU32,
    phys_addr: AtomicU32,
    caller: AtomicU32,
}

impl VmStruct {
    /// Where C callers find each field but the first, in their order (S85a).
    pub const OFFSETS: [usize; 7] = [
        offset_of!(Self, addr),
        offset_of!(Self, size),
        offset_of!(Self, flags),
        offset_of!(Self, pages),
        offset_of!(Self, nr_pages),
        offset_of!(Self, phys_addr),
        offset_of!(Self, caller),
    ];

    /// The descriptor of no area.
    pub const fn vacant() -> Self {
        let nowhere = VirtAddr::new(0);
        Self::new(nowhere, 0, AreaFlags::NONE, PhysAddr::new(0), nowhere, (nowhere, 0))
    }

    /// That of an area of `size` bytes at `addr`, guard included (S2), with so many page pointers at `pages`: none at address zero
    /// but for vmalloc's (S11, S27).
    #[inline(always)]
    pub const fn new(
        addr: VirtAddr,
        size: u32,
        flags: AreaFlags,
        physical: PhysAddr,
        caller: VirtAddr,
        (pages, nr_pages): (VirtAddr, u32),
    ) -> Self {
        Self {
            next: AtomicU32::new(0),
            addr: AtomicU32::new(addr.raw()),
            size: AtomicU32::new(size),
            flags: AtomicU32::new(flags.bits()),
            pages: AtomicU32::new(pages.raw()),
            nr_pages: AtomicU32::new(nr_pages),
            phys_addr: AtomicU32::new(physical.raw()),
            caller: AtomicU32::new(caller.raw()),
        }
    }

    /// The first usable byte.
    pub fn addr(&self) -> VirtAddr {
        VirtAddr::new(self.addr.load(Relaxed))
    }

    /// Bytes, the guard page included while the area lives (S2).
    pub fn size(&self) -> u32 {
        self.size.load(Relaxed)
    }

    /// What it is. A caller that adds a flag means it: `VM_USERMAP` makes memory of vmalloc one that programs may see.
    pub fn flags(&self) -> AreaFlags {
        AreaFlags::from_bits(self.flags.load(Relaxed))
    }

    /// The address of the page array, which areas of vmalloc have, or zero (S27). What anybody writes is kept for whoever asks,
    /// and neither read nor freed: where the array lies and how long it is, is in the record.
    pub fn pages(&self) -> u32 {
        self.pages.load(Relaxed)
    }

    /// How many page pointers the array has. Who frees an area of vmalloc looks for a null among so many of them, but no more
    /// than there are (S33).
    pub fn nr_pages(&self) -> u32 {
        self.nr_pages.load(Relaxed)
    }

    /// The physical base of a contiguous mapping, else zero. The owner of a bare area may note one, for listings.
    pub fn phys_addr(&self) -> PhysAddr {
        PhysAddr::new(self.phys_addr.load(Relaxed))
    }

    /// The return address of whoever asked for it, or whom the owner names instead.
    pub fn caller(&self) -> VirtAddr {
        VirtAddr::new(self.caller.load(Relaxed))
    }

    /// Writes the flags.
    pub fn set_flags(&self, flags: AreaFlags) {
        self.flags.store(flags.bits(), Relaxed);
    }

    /// Notes the page array at `pages`, with `count` pointers.
    pub fn set_pages(&self, pages: VirtAddr, count: u32) {
        self.pages.store(pages.raw(), Relaxed);
        self.nr_pages.store(count, Relaxed);
    }

    /// Tells of no physical base: the frames lie anywhere.
    pub fn forget_phys_addr(&self) {
        self.phys_addr.store(0, Relaxed);
    }

    /// Counts without the guard any more: the area is gone (S2, S14).
    pub fn set_size(&self, size: u32) {
        self.size.store(size, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_has_the_layout_that_c_callers_read_s85a() {
        assert_eq!(size_of::<VmStruct>(), 32);
        assert_eq!(VmStruct::OFFSETS, [4, 8, 12, 16, 20, 24, 28]);
    }

    #[test]
    fn a_new_descriptor_has_no_page_array_s11() {
        let (base, flags) = (VirtAddr::new(0xc000_0000), AreaFlags::ALLOC);
        let none = (VirtAddr::new(0), 0);
        let physical = PhysAddr::new(0x1000);
        let vm = VmStruct::new(base, 0x3000, flags, physical, VirtAddr::new(7), none);
        assert_eq!((vm.addr(), vm.size(), vm.flags()), (base, 0x3000, flags));
        assert_eq!((vm.pages(), vm.nr_pages()), (0, 0));
        assert_eq!((vm.phys_addr(), vm.caller()), (PhysAddr::new(0x1000), VirtAddr::new(7)));
        vm.set_pages(VirtAddr::new(0x9000_0000), 2);
        vm.set_flags(flags.with(AreaFlags::USERMAP));
        vm.set_size(0x2000);
        assert_eq!((vm.pages(), vm.nr_pages(), vm.size()), (0x9000_0000, 2, 0x2000));
        assert_eq!(vm.flags().bits(), 0x0a);
    }
}
