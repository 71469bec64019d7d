//! Every CPU sees each mapping, and each end of one, before the address or the frame is used again (S23, S116).
//!
//! ```text
//!   each CPU reads           its TLB has the entry
//!   the slot is emptied, without maintenance, and each CPU reads: still the old answer, or the test has no teeth
//!   one CPU ends the mapping
//!   each CPU reads           a fault
//! ```
//!
//! The emulated board keeps a TLB for each CPU, and operations that are not inner-shareable leave the others' alone.

extern crate alloc;

use alloc::format;
use alloc::string::String;
use core::iter::once;
use core::sync::atomic::{AtomicU32, Ordering};

use arch::lock::IrqLocks;
use arch::machine::{Authority, CortexA9};
use arch::{cpu, irq, probe, smp};
use board::vexpress_a9::SYSTEM_REGISTERS;
use kerncore::addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr, VirtAddr};
use kerncore::area::AreaSummary;
use kerncore::attributes::Attributes;
use kerncore::descriptor::l2::SmallPages;
use kerncore::frames::FrameOwner;
use kerncore::kernel_space::Fill;
use kerncore::machine::Machine;
use kerncore::page_table::PageTable;
use ktest::{Completion, ktest};
use mm::kernel;
use mm::page_alloc::Pages;

use super::smp::{Barrier, another, on_each};
use super::witness::{
    NOBODY, authority, byte_at, each_page, is_absent, linear, overwrite, plus, slot_of,
};

/// How often a TLB may forget before it counts as forgetful.
const ATTEMPTS: u32 = 5;

/// Why a test that passes might have passed without reason.
const NO_TEETH: &str = "no TLB remembers anything: this test has no teeth";

/// What each CPU that is up reads at `address`: a byte, or nothing if no entry leads anywhere.
fn read_by_each(address: VirtAddr) -> alloc::vec::Vec<Option<u8>> {
    on_each(|| match probe::read_u8(address) {
        Ok(byte) => Some(byte),
        Err(fault) if is_absent(&fault) => None,
        Err(fault) => panic!("CPU {}: {fault}", cpu::id()),
    })
}

/// Lets every CPU read `address`, and says how many of their TLBs remember what it leads to: with the slot emptied it is read all
/// the same. A TLB may forget at any time, and the emulator's does when it needs the place, so it need not be all.
fn remembered_by(address: VirtAddr) -> usize {
    let (machine, slot) = (kernel().table().raw_machine(authority()), slot_of(address));
    let word = machine.read_descriptor(slot);
    // As little as can be between the two reads: each page that is touched may push the entry out.
    let is_remembered = || {
        let before = probe::read_u8(address).ok();
        machine.write_descriptors(slot, once(0));
        let after = probe::read_u8(address).ok();
        machine.write_descriptors(slot, once(word));
        machine.clean_descriptors(slot, 1);
        machine.barrier();
        before.is_some() && before == after
    };
    let remembered = on_each(|| (0..ATTEMPTS).any(|_| irq::masked(is_remembered)));
    remembered.into_iter().filter(|&remembered| remembered).count()
}

#[track_caller]
fn assert_absent_for_each(address: VirtAddr) {
    for (cpu, read) in read_by_each(address).into_iter().enumerate() {
        assert_eq!(read, None, "CPU {cpu} still reads {address}");
    }
}

fn page_of(value: u8) -> Pages {
    let mut page = Pages::new(0).expect("memory");
    page.fill(value);
    page
}

fn map(frame: Pfn) -> AreaSummary {
    kernel().vmap(&[frame], Attributes::KERNEL_DATA, NOBODY).expect("addresses")
}

/// Every CPU in turn makes a mapping, and the next one ends it.
#[ktest]
fn whoever_maps_and_unmaps_everybody_sees_it_s23_s116() {
    let count = on_each(|| ()).len();
    let mut remembered = 0;
    for maker in smp::up() {
        let value = 0x40 + maker.to_le_bytes()[0];
        let page = page_of(value);
        let frame = page.first();
        let area = smp::run_on(maker, || map(frame)).expect("it is up");
        let address = area.pages.start();
        assert_eq!(read_by_each(address), alloc::vec![Some(value); count]);
        remembered += remembered_by(address);
        let remover = smp::up().cycle().nth(maker as usize + 1).expect("somebody is up");
        let removed = smp::run_on(remover, || kernel().vunmap(authority(), address).is_ok());
        assert_eq!(removed, Ok(true));
        assert_absent_for_each(address);
    }
    assert!(remembered > 0, "{NO_TEETH}");
}

/// Memory, registers, coherent buffers; first and last page.
#[ktest]
fn no_cpu_reaches_what_was_freed_s23_s116() {
    const PAGES: u32 = 9;
    let other = another().unwrap_or(0);
    let memory = kernel().vmalloc(PAGES * PAGE_SIZE, Fill::Zeroed, NOBODY).expect("memory").pages;
    let last = plus(memory.start(), (PAGES - 1) * PAGE_SIZE);
    let mut remembered = remembered_by(memory.start()) + remembered_by(last);
    let freed = smp::run_on(other, || kernel().vfree(authority(), memory.start()).is_ok());
    assert_eq!(freed, Ok(true));
    each_page(memory).for_each(assert_absent_for_each);

    let registers = kernel()
        .ioremap(SYSTEM_REGISTERS.base, PAGE_SIZE, Attributes::DEVICE, NOBODY)
        .expect("addresses");
    remembered += remembered_by(registers);
    let unmapped = smp::run_on(other, || kernel().iounmap(authority(), registers).is_ok());
    assert_eq!(unmapped, Ok(true));
    assert_absent_for_each(registers);

    let lent = kernel().coherent_alloc(PAGE_SIZE, FrameOwner::Dma, NOBODY).expect("memory");
    remembered += remembered_by(lent.pages.start());
    let freed = smp::run_on(other, || {
        kernel().coherent_free(authority(), lent.pages.start(), PAGE_SIZE).is_ok()
    });
    assert_eq!(freed, Ok(true));
    assert_absent_for_each(lent.pages.start());
    assert!(remembered > 0, "{NO_TEETH}");
}

/// S97: a frame that one CPU lends uncached is out of every CPU's reach through its linear address.
#[ktest]
fn a_lent_frame_has_no_linear_address_on_any_cpu_s97_s116() {
    let mut remembered = 0;
    for lender in smp::up() {
        let block = Pages::new(0).expect("memory");
        let (frame, address) = (block.first(), linear(block.first()));
        // No free list writes to a frame, so it may be read until it is lent.
        remembered += remembered_by(address);
        drop(block);
        let lent = smp::run_on(lender, || {
            kernel().coherent_alloc(PAGE_SIZE, FrameOwner::Dma, NOBODY).expect("memory")
        });
        let lent = lent.expect("it is up");
        assert_eq!(lent.physical.pfn(), frame, "the frame just freed is lent");
        assert_absent_for_each(address);
        kernel().coherent_free(authority(), lent.pages.start(), PAGE_SIZE).expect("ours");
        assert_eq!(on_each(|| probe::read_u8(address).is_ok()), on_each(|| true));
    }
    assert!(remembered > 0, "{NO_TEETH}");
}

/// Readers never see an owner's bytes after that owner has gone, while owners change as fast as they can.
#[ktest]
fn readers_see_the_owner_of_the_moment_or_a_fault_s23_s116() {
    /// Odd: of the owner that half of it names. Even: nobody's, and 0 is before the first. Bit 31: about to change.
    static EPOCH: AtomicU32 = AtomicU32::new(0);
    const ROUNDS: u32 = 300;
    let pages = [page_of(0), page_of(1), page_of(2)];
    let frames = pages.each_ref().map(Pages::first);
    let address = map(frames[0]).pages.start();
    kernel().vunmap(authority(), address).expect("ours");
    EPOCH.store(0, Ordering::SeqCst);
    let barrier = Barrier::new();
    smp::run_on_each(|number| {
        barrier.wait();
        if number == 0 {
            for round in 0..ROUNDS {
                let owner = frames[round as usize % frames.len()];
                let area = map(owner);
                assert_eq!(area.pages.start(), address, "the lowest fit is the hole just made");
                EPOCH.store(2 * round + 1, Ordering::SeqCst);
                // The readers' chance to see it.
                (0..20).for_each(|_| cpu::relax());
                assert_eq!(byte_at(address), (round % 3).to_le_bytes()[0]);
                EPOCH.fetch_or(1 << 31, Ordering::SeqCst);
                kernel().vunmap(authority(), address).expect("ours");
                EPOCH.store(2 * round + 2, Ordering::SeqCst);
                (0..20).for_each(|_| cpu::relax());
                EPOCH.fetch_or(1 << 31, Ordering::SeqCst);
            }
            EPOCH.store(u32::MAX, Ordering::SeqCst);
            return;
        }
        loop {
            cpu::relax();
            let before = EPOCH.load(Ordering::SeqCst);
            if before == u32::MAX {
                return;
            }
            let read = probe::read_u8(address).ok();
            if before != EPOCH.load(Ordering::SeqCst) || before >> 31 != 0 {
                continue;
            }
            let owner = (before / 2 % 3).to_le_bytes()[0];
            let expected = (before % 2 == 1).then_some(owner);
            assert!(before == 0 || read == expected, "CPU {number} in epoch {before}: {read:?}");
        }
    });
}

// --- The mutant -------------------------------------------------------------------------------------------------------

/// A Cortex-A9 whose maintenance stays on its own CPU: TLBIMVA instead of TLBIMVAIS.
struct LocalMaintenance(CortexA9);

impl Machine for LocalMaintenance {
    type Authority = Authority;

    fn read_descriptor(&self, slot: PhysAddr) -> u32 {
        self.0.read_descriptor(slot)
    }

    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        self.0.write_descriptors(first, descriptors);
    }

    fn clean_descriptors(&self, first: PhysAddr, count: u32) {
        self.0.clean_descriptors(first, count);
    }

    fn barrier(&self) {
        self.0.barrier();
    }

    fn invalidate_tlb(&self, pages: PageRange) {
        for page in each_page(pages) {
            // SAFETY: a TLB holds copies of descriptors; to forget one is always allowed. (TLBIMVAA)
            unsafe { core::arch::asm!("mcr p15, 0, {}, c8, c7, 3", in(reg) page.raw()) };
        }
    }

    fn clean_and_invalidate(&self, pages: PageRange, first: Pfn) {
        self.0.clean_and_invalidate(pages, first);
    }

    fn zero_pages(&self, pages: PageRange) {
        self.0.zero_pages(pages);
    }

    fn in_interrupt(&self) -> bool {
        self.0.in_interrupt()
    }

    fn cpu(&self) -> usize {
        self.0.cpu()
    }
}

/// Whether no CPU reads through `address` any more after `end` has run on this one.
fn every_cpu_forgets(address: VirtAddr, end: impl FnOnce()) -> Result<(), String> {
    let _read = read_by_each(address);
    end();
    let read = read_by_each(address);
    match read.iter().position(Option::is_some) {
        None => Ok(()),
        Some(cpu) => Err(format!("CPU {cpu} still reads {address}")),
    }
}

/// The proof that this suite can fail: the same code that unmaps, over a machine that tells nobody else.
#[ktest]
fn maintenance_that_stays_on_one_cpu_is_caught_s116() -> Completion {
    // At several addresses, since a TLB may need the place of one of them for what a CPU does between two looks.
    let page = page_of(0x5a);
    let areas = [(); 8].map(|()| map(page.first()).pages);
    let mut caught = 0;
    for pages in areas {
        let machine = LocalMaintenance(*kernel().table().raw_machine(authority()));
        let forgotten = every_cpu_forgets(pages.start(), || {
            let root = kernel().table().root();
            let (table, range) = PageTable::<_, IrqLocks>::new(machine, root, pages);
            assert_eq!(table.unmap(range, ()).flush().removal.oddities, 0);
        });
        caught += u32::from(forgotten.is_err());
        overwrite(pages.start(), SmallPages::new(Attributes::KERNEL_DATA).word(page.first()));
    }
    for pages in areas {
        let right = every_cpu_forgets(pages.start(), || {
            kernel().vunmap(authority(), pages.start()).expect("ours");
        });
        assert_eq!(right, Ok(()));
    }
    if let Err(skipped) = another() {
        return skipped;
    }
    assert!(caught > 0, "nobody noticed maintenance that stayed on one CPU");
    Completion::Ran
}
