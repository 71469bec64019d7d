//! What the stub and the bring-up leave: the processor's state, the image's pages, the linear map (S111, S112, S117).

use core::arch::asm;

use arch::cp15::{Contextidr, Dacr, Sctlr, SysRegRead, Ttbcr, Ttbr0, Ttbr1, Vbar};
use arch::exception::{Access, FaultStatus, Level};
use arch::probe;
use arch::translate::{Direction, translate};
use boot::layout::{Part, Use, image, parts};
use image::start;
use kerncore::addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr, SECTION_SIZE, VirtAddr};
use kerncore::frames::FrameOwner;
use kerncore::layout::{LINEAR_BYTES, LINEAR_END, LINEAR_PHYSICAL, LINEAR_START, linear_physical};
use ktest::{Completion, ktest};
use mm::audit::page_pointers;
use mm::page_alloc::Pages;

use super::faults::{assert_fault, assert_unmapped, stack_pointer_of};
use super::tables::{assert_absent, assert_entry, assert_mapped, bits};

/// BX LR.
const RETURN: u32 = 0xe12f_ff1e;
const NO_RIGHT: FaultStatus = FaultStatus::Permission(Level::Second);

/// Bytes of RAM that have linear addresses: all of it, unless `lowmem=` says less.
fn ram() -> u32 {
    let started = start::started().expect("the kernel has started");
    started.config.low_memory.map_or(started.ram.used, |low| low.min(started.ram.used))
}

fn last_byte(pages: PageRange) -> VirtAddr {
    VirtAddr::new(pages.start().raw() + (pages.bytes() - 1))
}

/// The last word of `pages`.
fn last_word(pages: PageRange) -> VirtAddr {
    VirtAddr::new(pages.start().raw() + (pages.bytes() - 4))
}

/// Whether the frame at `physical` is lent uncached, and so has no linear address (S97).
fn is_lent(physical: PhysAddr) -> bool {
    let owner = mm::kernel().zones().table().owner_of(physical.pfn());
    matches!(owner, FrameOwner::Dma | FrameOwner::AtomicPool)
}

// --- The processor ---------------------------------------------------------------------------------------------------

#[ktest]
fn the_address_space_splits_at_2_gib_and_ttbr0_is_not_walked_s111() {
    let ttbcr = Ttbcr::read();
    assert_eq!(ttbcr.n(), 1);
    assert!(ttbcr.pd0(), "walks through TTBR0 are allowed");
    assert!(!ttbcr.pd1() && !ttbcr.eae());
    assert_eq!(ttbcr.raw(), 0x11);
}

#[ktest]
fn both_table_registers_name_the_image_s_tables_walked_as_they_are_written() {
    let (kernel, user) = (boot::layout::kernel_l1(), boot::layout::user_l1());
    assert_eq!(Some(Ttbr1::read().base()), linear_physical(kernel));
    assert_eq!(Ttbr1::read().base(), mm::kernel().table().root());
    // Inner and outer write-back write-allocate, shareable: IRGN 01, RGN 01, S.
    assert_eq!(Ttbr1::read().walk_attributes(), 0x4a);
    let user = linear_physical(user).expect("in the linear map");
    assert_eq!(Ttbr0::read_raw(), user.raw() | 0x4a);
}

#[ktest]
fn the_mmu_the_caches_and_the_alignment_check_are_on() {
    let sctlr = Sctlr::read().raw_value();
    for (bit, name) in [(0, "M"), (1, "A"), (2, "C"), (11, "Z"), (12, "I")] {
        assert_ne!(sctlr & 1 << bit, 0, "SCTLR.{name} is clear");
    }
    for (bit, name) in [(13, "V"), (25, "EE"), (28, "TRE"), (29, "AFE"), (30, "TE")] {
        assert_eq!(sctlr & 1 << bit, 0, "SCTLR.{name} is set");
    }
}

#[ktest]
fn domain_0_is_checked_and_the_others_are_shut() {
    assert_eq!(Dacr::read().raw_value(), 1);
}

/// (ACTLR, which says whether the processor takes part in coherency, reads as zero under QEMU.)
#[ktest]
fn no_process_is_loaded() {
    assert_eq!(Contextidr::read_raw(), 0);
}

#[ktest]
fn the_vectors_are_high_in_the_text_s111() {
    unsafe extern "C" {
        static exception_vectors: u8;
    }
    let vbar = Vbar::read().0;
    assert_eq!(vbar, (&raw const exception_vectors) as u32);
    assert!(vbar >= LINEAR_START.raw() && vbar.is_multiple_of(32));
    assert!(parts()[0].pages.contains(VirtAddr::new(vbar)));
}

#[ktest]
fn the_kernel_runs_in_supervisor_mode_with_fiq_masked_or_served_by_nobody() {
    let (cpsr, pc): (u32, u32);
    // SAFETY: reads registers.
    unsafe {
        asm!("mrs {}, cpsr", "mov {}, pc", out(reg) cpsr, out(reg) pc, options(nomem, nostack));
    };
    assert_eq!(cpsr & 0x1f, 0x13, "supervisor mode");
    assert_eq!(cpsr & 1 << 5, 0, "ARM state");
    assert_eq!(cpsr & 1 << 9, 0, "little endian");
    assert_ne!(cpsr & 1 << 6, 0, "nobody serves FIQs");
    assert!(parts()[0].pages.contains(VirtAddr::new(pc)), "high, and in the text: {pc:#x}");
}

#[ktest]
fn each_mode_s_stack_is_its_own_and_empty() {
    let top = |name: &str| {
        let stack = parts().into_iter().find(|part| part.name == name).expect("a stack");
        assert_eq!(stack.usage, Use::Stack);
        stack.pages.start().raw() + stack.pages.bytes()
    };
    assert_eq!(stack_pointer_of(0x11), top("FIQ stack of CPU 0"));
    assert_eq!(stack_pointer_of(0x12), top("IRQ stack of CPU 0"));
    assert_eq!(stack_pointer_of(0x17), top("abort stack of CPU 0"));
    assert_eq!(stack_pointer_of(0x1b), top("undefined stack of CPU 0"));
    let ours = stack_pointer_of(0x13);
    let end = top("supervisor stack of CPU 0");
    assert!((end - 64 * 1024..end).contains(&ours), "half of the stack is gone: {ours:#x}");
}

// --- What is not mapped ----------------------------------------------------------------------------------------------

#[ktest]
fn the_identity_mapping_is_gone_s111() {
    let image = image();
    for offset in (0..image.bytes()).step_by(PAGE_SIZE as usize) {
        let address = VirtAddr::new(0x6001_0000 + offset);
        assert_fault(
            probe::read_u32(address),
            FaultStatus::Translation(Level::First),
            Access::Read,
            address,
        );
    }
    for raw in [0x6000_0000, 0x6001_0000, 0x600f_ffff, 0x6010_0000, 0x7fff_ffff] {
        assert_unmapped(VirtAddr::new(raw), Level::First);
    }
}

/// Walks are off; were they on, they would find nothing either.
#[ktest]
fn the_user_s_first_level_is_empty_s111() {
    let table = linear_physical(boot::layout::user_l1()).expect("in the linear map");
    for index in 0..2048 {
        let slot = PhysAddr::new(table.raw() + index * 4);
        let descriptor = mm::kernel().table().read_descriptor(slot);
        assert_eq!(descriptor, 0, "MiB {index}");
    }
}

#[ktest]
fn nothing_below_2_gib_is_mapped() {
    for section in 0..2048 {
        let address = VirtAddr::new(section * SECTION_SIZE + section % 4096);
        let first = FaultStatus::Translation(Level::First);
        assert_fault(probe::read_u8(address), first, Access::Read, address);
        assert!(translate(address, Direction::Read).is_err(), "{address}");
    }
}

#[ktest]
fn page_zero_is_unmapped_s112() {
    for raw in [0, 4, 0x7ff, PAGE_SIZE - 1] {
        assert_unmapped(VirtAddr::new(raw), Level::First);
    }
}

#[ktest]
fn every_stack_s_lower_neighbour_is_unmapped_s112() {
    let stacks = parts().into_iter().filter(|part| part.usage == Use::Stack);
    let mut count = 0;
    for stack in stacks {
        let bottom = stack.pages.start().raw();
        for raw in [bottom - 1, bottom - 4, bottom - PAGE_SIZE / 2, bottom - PAGE_SIZE] {
            assert_absent(VirtAddr::new(raw), Level::Second);
        }
        count += 1;
    }
    assert_eq!(count, 5 * arch::cpu::MAX_CPUS, "a stack for each mode of each CPU");
}

#[ktest]
fn between_the_parts_of_the_image_nothing_is_mapped() {
    let image = image();
    let mut between = 0;
    for number in image.first()..image.end() {
        let address = VirtAddr::new(number * PAGE_SIZE);
        if !parts().iter().any(|part| part.pages.contains(address)) {
            assert_absent(address, Level::Second);
            between += 1;
        }
    }
    assert!(between >= 5 * arch::cpu::MAX_CPUS, "at least a guard for each stack");
    for pair in parts().windows(2) {
        let [lower, upper] = pair else { panic!("a window of two") };
        assert!(lower.pages.end() <= upper.pages.first(), "{} and {}", lower.name, upper.name);
        assert!(!lower.pages.is_empty() && !upper.pages.is_empty());
    }
}

// --- What is mapped, and may be used so and not otherwise ------------------------------------------------------------

fn part_for(usage: Use) -> impl Iterator<Item = Part> {
    parts().into_iter().filter(move |part| part.usage == usage)
}

/// First and last word of a part, but for pages that are lent.
fn end_words(part: &Part) -> impl Iterator<Item = VirtAddr> + use<> {
    [part.pages.start(), last_word(part.pages)]
        .into_iter()
        .filter(|&address| !is_lent(linear_physical(address).expect("in the linear map")))
}

/// Asserts that a word can be read and not written, and returns it.
fn read_only_word(address: VirtAddr) -> u32 {
    let value = probe::read_u32(address).unwrap_or_else(|fault| panic!("{fault}"));
    // SAFETY: expected to be refused; if it is not, it writes what is there.
    let written = unsafe { probe::write_u32(address, value) };
    assert_fault(written, NO_RIGHT, Access::Write, address);
    // SAFETY: as above; a byte.
    let written = unsafe { probe::write_u8(address, value.to_le_bytes()[0]) };
    assert_fault(written, NO_RIGHT, Access::Write, address);
    value
}

/// A BX LR is code that can be called: wherever it lies in the text, it comes back. Most functions end otherwise, so that
/// not every page has one.
#[ktest]
fn text_is_executed_and_written_in_no_page_s112() {
    let text = parts()[0].pages;
    let mut executed = 0;
    for page in (0..text.bytes()).step_by(PAGE_SIZE as usize) {
        let page = text.start().raw() + page;
        read_only_word(VirtAddr::new(page));
        read_only_word(VirtAddr::new(page + PAGE_SIZE - 4));
        let words = (page..page + PAGE_SIZE).step_by(4).map(VirtAddr::new);
        for address in words.filter(|&address| probe::read_u32(address) == Ok(RETURN)).take(1) {
            // SAFETY: the instruction there returns.
            assert_eq!(unsafe { probe::execute(address) }, Ok(()));
            executed += 1;
        }
    }
    assert!(executed > 1, "{executed} of {} pages tried", text.count());
}

#[ktest]
fn read_only_data_is_neither_written_nor_executed_s112() {
    for part in part_for(Use::ReadOnly) {
        for page in part.pages.first()..part.pages.end() {
            let address = VirtAddr::new(page * PAGE_SIZE);
            assert_entry(address, linear_physical(address).expect("linear"), bits::RODATA);
            read_only_word(address);
            // SAFETY: the entry says "never", so that this is refused.
            assert_fault(unsafe { probe::execute(address) }, NO_RIGHT, Access::Execute, address);
        }
    }
}

#[ktest]
fn data_stacks_and_tables_are_written_and_never_executed_s112() {
    let mut tried = 0;
    for part in [Use::Data, Use::Stack, Use::Tables].into_iter().flat_map(part_for) {
        for address in end_words(&part) {
            let physical = linear_physical(address).expect("in the linear map");
            // SAFETY: one CPU, no interrupts: what is written back is what is there.
            arch::irq::masked(|| unsafe { assert_mapped(address, physical, bits::DATA) });
            tried += 1;
        }
    }
    assert!(tried >= 13, "data, five stacks and the first-level tables, two each: {tried}");
}

/// No frame has a second address by which it could be written: the vmalloc window has no business in the image.
#[ktest]
fn no_second_address_leads_into_the_image_s112() {
    let image = image();
    let window = PageRange::new(LINEAR_END, (0_u32.wrapping_sub(LINEAR_END.raw())) / PAGE_SIZE);
    let window = window.expect("from the linear map's end to the top");
    let first = linear_physical(image.start()).expect("in the linear map").raw();
    mm::kernel().table().for_each_entry(window, |entry| {
        let kerncore::page_table::Entry::Mapping { pages, physical, .. } = entry else {
            panic!("{entry:?}")
        };
        let owner = mm::kernel().zones().table().owner_of(physical.pfn());
        let inside = (first..first + image.bytes()).contains(&physical.raw());
        assert!(!inside || owner != FrameOwner::KernelImage, "{pages} leads to {physical}");
    });
}

// --- The linear map --------------------------------------------------------------------------------------------------

/// Every frame of RAM by the walker and by the processor: at its constant distance, as data, unless it is lent.
#[ktest]
fn every_page_of_ram_outside_the_image_is_mapped_at_its_constant_distance_s117() {
    let image = image();
    let mut lent = 0;
    for offset in (0..ram()).step_by(PAGE_SIZE as usize) {
        let address = VirtAddr::new(LINEAR_START.raw() + offset);
        let physical = PhysAddr::new(LINEAR_PHYSICAL.raw() + offset);
        if image.contains(address) {
            continue;
        }
        if is_lent(physical) {
            assert_eq!(mm::kernel().table().translate(address), None, "{address} is lent");
            lent += 1;
        } else {
            assert_entry(address, physical, bits_of_ram(address));
        }
    }
    let pool = dma::atomic_pool::usage().map_or(0, |pool| pool.pages);
    assert!(lent <= pool, "{lent} frames are lent while nobody holds any but the pool's {pool}");
}

/// What the entry of an address of the linear map outside the image promises.
fn bits_of_ram(address: VirtAddr) -> u32 {
    if page_pointers().contains(address) { bits::RODATA } else { bits::DATA }
}

/// By access, once in every MiB.
#[ktest]
fn every_mib_of_ram_answers_and_is_written_and_not_executed_s117() {
    let image = image();
    for section in 0..ram() / SECTION_SIZE {
        let offset = section * SECTION_SIZE + 4 * (section % 1024) + 0x1000 * (section % 256);
        let address = VirtAddr::new(LINEAR_START.raw() + offset);
        let physical = PhysAddr::new(LINEAR_PHYSICAL.raw() + offset);
        if !image.contains(address) && !is_lent(physical) {
            let bits = bits_of_ram(address);
            // SAFETY: one CPU, no interrupts: what is written back is what is there.
            arch::irq::masked(|| unsafe { assert_mapped(address, physical, bits) });
        }
    }
}

#[ktest]
fn the_first_and_the_last_byte_of_ram_are_there_s117() {
    let last = LINEAR_START.raw() + (ram() - 1);
    for address in [LINEAR_START, VirtAddr::new(last)] {
        let physical = linear_physical(address).expect("in the linear map");
        if !is_lent(physical) {
            // SAFETY: as above.
            arch::irq::masked(|| unsafe { assert_mapped(address, physical, bits::DATA) });
            assert!(probe::read_u8(address).is_ok());
        }
    }
}

#[ktest]
fn beyond_ram_the_linear_map_is_empty_s117() -> Completion {
    if ram() == LINEAR_BYTES {
        return Completion::Skipped("RAM fills the linear map");
    }
    let end = LINEAR_START.raw() + ram();
    let level = if ram().is_multiple_of(SECTION_SIZE) { Level::First } else { Level::Second };
    assert_absent(VirtAddr::new(end), level);
    for section in end.div_ceil(SECTION_SIZE)..LINEAR_END.raw() / SECTION_SIZE {
        assert_absent(VirtAddr::new(section * SECTION_SIZE), Level::First);
        assert_absent(VirtAddr::new((section + 1) * SECTION_SIZE - 1), Level::First);
    }
    Completion::Ran
}

#[ktest]
fn a_page_of_ram_holds_code_and_does_not_run_it_s112() {
    let mut pages = Pages::new(0).expect("a page");
    for (place, byte) in pages.iter_mut().zip(RETURN.to_le_bytes().into_iter().cycle()) {
        *place = byte;
    }
    arch::cache::synchronize_instructions(pages.address(), PAGE_SIZE);
    for offset in (0..PAGE_SIZE).step_by(4) {
        let address = VirtAddr::new(pages.address().raw() + offset);
        // SAFETY: were it executed, it would return.
        assert_fault(unsafe { probe::execute(address) }, NO_RIGHT, Access::Execute, address);
    }
}

/// The frame table's books agree with the linker's: the image is nobody's to have, but for the tables without RAM.
#[ktest]
fn the_frames_of_the_image_are_reserved() {
    let table = mm::kernel().zones().table();
    for part in parts().iter().filter(|part| part.usage != Use::Tables) {
        for page in [part.pages.start(), last_byte(part.pages)] {
            let frame = linear_physical(page).map(PhysAddr::pfn).expect("in the linear map");
            assert_eq!(
                table.owner_of(frame),
                FrameOwner::KernelImage,
                "{page} of the {}",
                part.name
            );
        }
    }
    let tables = linear_physical(boot::layout::linear_tables()).expect("in the linear map").pfn();
    for page in 0..ram().div_ceil(SECTION_SIZE).div_ceil(4) {
        let frame = Pfn::new(tables.number() + page).expect("a frame");
        assert_eq!(table.owner_of(frame), FrameOwner::KernelImage, "table page {page}");
    }
}
