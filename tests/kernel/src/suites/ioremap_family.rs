//! ioremap's kin on the live tables: memory types, memory, code in on-chip memory, and what each refuses (S93, S94, S97, S112).

use core::ffi::{c_uint, c_ulong, c_void};
use core::mem::transmute;

use arch::exception::FaultStatus;
use arch::{probe, smp};
use board::vexpress_a9::{SRAM, SYSTEM_REGISTERS, VRAM};
use kerncore::addr::{PAGE_SIZE, PhysAddr, SECTION_SIZE, VirtAddr};
use kerncore::attributes::{Attributes, MemoryType};
use kerncore::descriptor::PageSize;
use kerncore::frames::FrameOwner;
use kerncore::kernel_space::{IoRemapError, MemRemapError};
use ktest::{assert_err, ktest};
use linux::ioremap::{
    MEMREMAP_WB, MEMREMAP_WC, MEMREMAP_WT, ioremap, ioremap_exec, ioremap_np, ioremap_shared,
    ioremap_wc, iounmap, memremap, memunmap,
};
use mm::kernel;
use mm::page_alloc::Pages;

use super::witness::{
    Books, NOBODY, assert_absent, assert_leads, authority, linear, plus, word_at,
};

/// In static RAM, behind the page where other CPUs may wait.
const CODE: u32 = SRAM.base.raw() + 7 * SECTION_SIZE;
/// `mov r0, #n`, for n below 256, and `bx lr`.
const MOVE: u32 = 0xe3a0_0000;
const RETURN: u32 = 0xe12f_ff1e;

/// As `ioremap`.
type Name = extern "C" fn(c_uint, c_uint) -> *mut c_void;

fn at(pointer: *mut c_void) -> VirtAddr {
    assert!(!pointer.is_null(), "no mapping");
    VirtAddr::new(u32::try_from(pointer.expose_provenance()).expect("a pointer has 32 bits"))
}

fn end(pointer: *mut c_void) {
    // SAFETY: the test's own, to which it keeps no reference.
    unsafe { iounmap(pointer) };
}

#[track_caller]
fn write(address: VirtAddr, value: u32) {
    // SAFETY: static or video RAM, which nobody else uses; nothing borrows it.
    unsafe { probe::write_u32(address, value) }.unwrap_or_else(|fault| panic!("{fault}"));
}

#[track_caller]
fn attributes_at(address: VirtAddr) -> Attributes {
    let entry = kernel().table().translate(address).expect("mapped");
    entry.attributes().expect("an entry of ours")
}

/// S93, S94: each name its type, at any offset, small or large.
#[ktest]
fn each_name_maps_its_memory_type_and_nothing_of_it_is_executed_s93() {
    let books = Books::now();
    let names: [(Name, Attributes); 4] = [
        (ioremap, Attributes::DEVICE),
        (ioremap_shared, Attributes::DEVICE),
        (ioremap_wc, Attributes::WRITE_COMBINE),
        (ioremap_np, Attributes::STRONGLY_ORDERED),
    ];
    for (name, wanted) in names {
        for (offset, bytes) in [(0x1404, 8), (0, SECTION_SIZE), (0x1_0000, 0x1_0000)] {
            let physical = VRAM.base.raw() + offset;
            let pointer = name(physical, bytes);
            let address = at(pointer);
            assert_eq!(attributes_at(address), wanted);
            assert_ne!(kernel().find_containing(address).expect("live").caller, NOBODY);
            assert_leads(address, PhysAddr::new(physical));
            assert_leads(plus(address, bytes - 1), PhysAddr::new(physical + bytes - 1));
            write(address, 0x600d_0000 | offset);
            assert_eq!(word_at(address), 0x600d_0000 | offset);
            // SAFETY: could the memory be executed, the run would end by an undefined instruction.
            let fault = unsafe { probe::execute(address.page_base()) }.expect_err("not code");
            assert!(matches!(fault.status, FaultStatus::Permission(_)), "{fault}");
            end(pointer);
            assert_absent(address);
        }
    }
    books.assert_unchanged();
}

/// S94: what ioremap refuses its kin refuse too.
#[ktest]
fn zero_wraps_and_ram_are_null_by_each_name_s94() {
    let books = Books::now();
    for name in [ioremap_wc, ioremap_np, ioremap_exec] {
        for (physical, size) in [(SRAM.base.raw(), 0), (0xffff_ffff, 2), (0x6000_0000, 1)] {
            assert!(name(physical, size).is_null(), "{size:#x} at {physical:#x}");
        }
    }
    for flags in [MEMREMAP_WB, MEMREMAP_WT, MEMREMAP_WC] {
        for (physical, size) in [(SRAM.base.raw(), 0), (0xffff_ffff, 2), (0x5fff_ffff, 2)] {
            assert!(memremap(physical, size, flags).is_null(), "{size:#x} at {physical:#x}");
        }
    }
    books.assert_unchanged();
}

/// S93: memory that is no RAM, in each type, and a choice of types.
#[ktest]
fn memremap_maps_memory_as_it_is_asked_for_s93() {
    let books = Books::now();
    for (flags, wanted) in [
        (MEMREMAP_WB, Attributes::KERNEL_DATA),
        (MEMREMAP_WT, Attributes::WRITE_THROUGH),
        (MEMREMAP_WC, Attributes::WRITE_COMBINE),
        (MEMREMAP_WC | MEMREMAP_WT, Attributes::WRITE_THROUGH),
        (MEMREMAP_WC | MEMREMAP_WB, Attributes::KERNEL_DATA),
    ] {
        let pointer = memremap(CODE + 0x404, 2 * PAGE_SIZE, flags);
        let address = at(pointer);
        assert_eq!((address.page_offset(), attributes_at(address)), (0x404, wanted));
        assert_leads(address, PhysAddr::new(CODE + 0x404));
        write(address, 0x5eed);
        assert_eq!(word_at(address), 0x5eed);
        // SAFETY: as in `end`.
        unsafe { memunmap(pointer) };
        assert_absent(address);
    }
    books.assert_unchanged();
}

/// S93, S97: RAM is where the linear map has it, and as that has it, or it is refused by both parties.
#[ktest]
fn memremap_of_ram_is_the_linear_address_or_nothing_s93_s97() {
    let pages = Pages::new(2).expect("memory");
    let (frame, address) = (pages.first(), linear(pages.first()));
    let physical = frame.base();
    let map = |bytes, memory| kernel().memremap(physical, bytes, memory, NOBODY);
    let books = Books::now();
    assert_eq!(map(4 * PAGE_SIZE, MemoryType::NormalWriteBack), Ok(address));
    let pointer = memremap(physical.raw() + 0x123, 5, MEMREMAP_WB | MEMREMAP_WC);
    assert_eq!(at(pointer), plus(address, 0x123));
    // SAFETY: there is nothing to end.
    unsafe { memunmap(pointer) };
    assert_leads(address, physical);
    for (memory, wanted) in [
        (MemoryType::NormalWriteThrough, Attributes::WRITE_THROUGH),
        (MemoryType::NormalNonCacheable, Attributes::WRITE_COMBINE),
    ] {
        let had = Attributes::KERNEL_DATA;
        let refused = MemRemapError::RamOtherwise { physical, linear: address, had, wanted };
        assert_eq!(map(PAGE_SIZE, memory), Err(refused));
    }
    assert!(memremap(physical.raw(), 4, MEMREMAP_WT | MEMREMAP_WC).is_null());
    let wanted = MemoryType::Device;
    assert_eq!(map(4, wanted), Err(MemRemapError::NotMemory { physical, wanted }));
    // Text is there, and is not to be written.
    let text =
        kernel().memremap(PhysAddr::new(0x6001_0000), 4, MemoryType::NormalWriteBack, NOBODY);
    assert_err!(text, MemRemapError::RamOtherwise { had, .. } if !had.is_writable());
    // Nor is all of a range there as its first byte is.
    let before_text =
        kernel().memremap(PhysAddr::new(0x6000_fffc), 8, MemoryType::NormalWriteBack, NOBODY);
    let text = PhysAddr::new(0x6001_0000);
    assert_err!(before_text, MemRemapError::RamOtherwise { physical, .. } if physical == text);
    // Half RAM is nothing.
    let (first, count) = (kernel().zones().table().first().base(), kernel().zones().table().len());
    let last = PhysAddr::new(first.raw() + (count * PAGE_SIZE - 4));
    for (physical, ram) in [(PhysAddr::new(first.raw() - 4), first), (last, last)] {
        let half = kernel().memremap(physical, 8, MemoryType::NormalWriteBack, NOBODY);
        assert_eq!(half, Err(MemRemapError::PartlyRam { physical, bytes: 8, ram }));
    }
    // There is nothing to end, and nobody minds.
    assert_eq!(kernel().memunmap(authority(), plus(address, 0x123)), Ok(()));
    assert_leads(address, physical);
    books.assert_unchanged();
}

/// S93, S97: a frame that is lent has no linear address to give.
#[ktest]
fn memremap_of_a_lent_frame_is_refused_s93_s97() {
    let lent = kernel().coherent_alloc(PAGE_SIZE, FrameOwner::Dma, NOBODY).expect("memory");
    let physical = lent.physical;
    let refused = kernel().memremap(physical, 4, MemoryType::NormalWriteBack, NOBODY);
    assert_eq!(refused, Err(MemRemapError::NoLinearAddress { physical }));
    let freed = kernel().coherent_free(authority(), lent.pages.start(), PAGE_SIZE);
    assert!(freed.is_ok(), "{freed:?}");
}

#[ktest]
fn memremap_without_a_type_or_with_unknown_ones_is_null_s93() {
    let books = Books::now();
    for flags in [0, 8, 16, MEMREMAP_WB | 8, c_ulong::MAX] {
        assert!(memremap(SRAM.base.raw(), 4, flags).is_null(), "{flags:#x}");
    }
    books.assert_unchanged();
}

/// S93, S112: what was written through another mapping runs, on every CPU, and cannot be written.
#[ktest]
fn code_in_on_chip_memory_runs_and_cannot_be_written_s93_s112() {
    let books = Books::now();
    for answer in [42, 77] {
        let pointer = ioremap_wc(CODE, 8);
        write(at(pointer), MOVE | answer);
        write(plus(at(pointer), 4), RETURN);
        end(pointer);
        let pointer = ioremap_exec(CODE, 8);
        let address = at(pointer);
        let attributes = attributes_at(address);
        assert!(attributes.is_executable() && !attributes.is_writable(), "{attributes}");
        assert_leads(address, PhysAddr::new(CODE));
        // SAFETY: the two instructions written above are a function that gives a number.
        let code: extern "C" fn() -> u32 = unsafe { transmute(pointer.cast_const()) };
        assert_eq!(code(), answer);
        for cpu in smp::up() {
            assert_eq!(smp::run_on(cpu, || code()), Ok(answer), "CPU {cpu}");
        }
        // SAFETY: could it be written, the test would fail.
        let fault = unsafe { probe::write_u32(address, 0) }.expect_err("read-only");
        assert!(matches!(fault.status, FaultStatus::Permission(_)), "{fault}");
        end(pointer);
        assert_absent(address);
    }
    books.assert_unchanged();
}

/// S97, S112: while it may be written by one name it is not executed by another, nor the other way round; to read it is no harm.
#[ktest]
fn code_in_on_chip_memory_is_written_by_nobody_else_s97_s112() {
    let books = Books::now();
    for (first, second, both) in [
        (ioremap_wc as Name, ioremap_exec as Name, false),
        (ioremap_exec, ioremap_wc, false),
        (ioremap_exec, ioremap_np, false),
        (ioremap_exec, ioremap_exec, true),
    ] {
        let live = first(CODE, PAGE_SIZE + 8);
        let leads = attributes_at(at(live));
        let pointer = second(CODE + PAGE_SIZE, 4);
        assert_eq!(!pointer.is_null(), both, "beside {leads}");
        end(pointer);
        end(live);
        let alone = second(CODE + PAGE_SIZE, 4);
        assert!(!alone.is_null(), "when nobody has it");
        end(alone);
        books.assert_unchanged();
    }
}

/// S93: of on-chip memory only, to its last byte.
#[ktest]
fn code_anywhere_else_is_refused_by_both_parties_s93() {
    let books = Books::now();
    let on_chip = mm::bus::on_chip();
    assert_eq!(on_chip.first().map(|range| range.first), Some(SRAM.base));
    let map = |physical: PhysAddr, bytes| kernel().ioremap_exec((physical, bytes), on_chip, NOBODY);
    let end_of = SRAM.last().raw();
    for (physical, bytes) in [
        (VRAM.base, 4),
        (SYSTEM_REGISTERS.base, 4),
        (PhysAddr::new(SRAM.base.raw() - 1), 2),
        (PhysAddr::new(end_of), 2),
        (PhysAddr::new(0x6001_0000), 4),
    ] {
        let refused = map(physical, bytes).expect_err("not on-chip memory");
        let MemRemapError::NotOnChip { on_chip: Some(had), .. } = refused else {
            panic!("{refused}");
        };
        assert_eq!((had.first, had.last), (SRAM.base, SRAM.last()));
    }
    let physical = SRAM.base;
    let zero = MemRemapError::Map(IoRemapError::ZeroSize { physical });
    assert_eq!(map(physical, 0), Err(zero));
    let last = map(PhysAddr::new(end_of), 1).expect("the last byte");
    assert_leads(last, PhysAddr::new(end_of));
    kernel().iounmap(authority(), last).expect("ours");
    let section = map(PhysAddr::new(CODE), SECTION_SIZE).expect("a section");
    assert_eq!(
        kernel().table().translate(section).map(|found| found.size),
        Some(PageSize::Section)
    );
    kernel().iounmap(authority(), section).expect("ours");
    books.assert_unchanged();
}
