//! Owners of what ioremap's kin map: registers of other types, memory of devices, code in on-chip memory (S93, S97, S98, S112).

extern crate alloc;

use alloc::string::ToString;
use core::mem::transmute;
use core::ptr;

use arch::{probe, smp};
use board::vexpress_a9::{SRAM, SYSTEM_REGISTERS, VRAM};
use kerncore::addr::{PAGE_SIZE, PhysAddr, SECTION_SIZE, VirtAddr};
use kerncore::attributes::{Attributes, MemoryType};
use kerncore::kernel_space::{IoRemapError, MemRemapError, NoArea};
use ktest::{assert_err, ktest};
use mm::io_mem::{IoMem, IoMemError};
use mm::io_memory::{IoMemory, IoText, LoadError};
use mm::kernel;
use mm::page_alloc::Pages;
use safe_mmio::fields::ReadPureWrite;

use super::failures::{no_area, no_table, survives};
use super::witness::{Books, assert_absent, assert_leads, linear, plus, word_at};

/// Memory that is no RAM, behind what other suites use.
const MEMORY: PhysAddr = PhysAddr::new(VRAM.base.raw() + 6 * SECTION_SIZE);
/// On-chip memory, likewise.
const CODE: PhysAddr = PhysAddr::new(SRAM.base.raw() + 9 * SECTION_SIZE);
const TYPES: [(MemoryType, Attributes); 3] = [
    (MemoryType::NormalWriteBack, Attributes::KERNEL_DATA),
    (MemoryType::NormalWriteThrough, Attributes::WRITE_THROUGH),
    (MemoryType::NormalNonCacheable, Attributes::WRITE_COMBINE),
];

/// `mov r0, #n`, for n below 256, and `bx lr`.
const fn answer(number: u8) -> [u8; 8] {
    [number, 0, 0xa0, 0xe3, 0x1e, 0xff, 0x2f, 0xe1]
}

type Pair = [ReadPureWrite<u32>; 2];

#[track_caller]
fn attributes_at(address: VirtAddr) -> Attributes {
    let entry = kernel().table().translate(address).expect("mapped");
    entry.attributes().expect("an entry of ours")
}

/// S93, S98: registers by their type, of each memory type, at any offset.
#[ktest]
fn a_typed_block_of_each_memory_type_goes_with_its_owner_s93_s98() {
    let books = Books::now();
    let at = PhysAddr::new(MEMORY.raw() + 0xffc);
    for (map, wanted) in [
        (IoMem::<Pair>::map as fn(PhysAddr) -> Result<IoMem<Pair>, IoMemError>, Attributes::DEVICE),
        (IoMem::map_shared, Attributes::DEVICE),
        (IoMem::map_non_posted, Attributes::STRONGLY_ORDERED),
        (IoMem::map_combining, Attributes::WRITE_COMBINE),
    ] {
        let mut owner = map(at).expect("addresses");
        let address = owner.address();
        assert_eq!((attributes_at(address), owner.physical()), (wanted, at));
        let mut registers = owner.registers();
        registers.get(0).expect("the first").write(0x1357_9bdf);
        // On the second page.
        registers.get(1).expect("the second").write(0x2468_ace0);
        assert_eq!(registers.get(0).expect("the first").read(), 0x1357_9bdf);
        assert_eq!((word_at(address), word_at(plus(address, 4))), (0x1357_9bdf, 0x2468_ace0));
        assert_leads(plus(address, 4), PhysAddr::new(at.raw() + 4));
        drop(owner);
        assert_absent(address);
        assert_absent(plus(address, 4));
    }
    let physical = PhysAddr::new(MEMORY.raw() + 2);
    let misaligned = IoMemError::Misaligned { physical, alignment: 4 };
    assert_eq!(IoMem::<Pair>::map_combining(physical).expect_err("misaligned"), misaligned);
    assert_eq!(IoMem::<Pair>::map_non_posted(physical).expect_err("misaligned"), misaligned);
    books.assert_unchanged();
}

/// S97: an owner is a party like any other.
#[ktest]
fn owners_of_other_types_exclude_each_other_s97() {
    let books = Books::now();
    let registers = IoMem::<u32>::map(MEMORY).expect("addresses");
    assert_err!(
        IoMem::<u32>::map_combining(MEMORY),
        IoMemError::Map(IoRemapError::Area(NoArea::Alias(_)))
    );
    for (memory, _) in TYPES {
        let refused = IoMemory::map(MEMORY, 4, memory);
        assert_err!(refused, MemRemapError::Map(IoRemapError::Area(NoArea::Alias(_))));
    }
    drop(registers);
    let text = IoText::load(CODE, &answer(1)).expect("on-chip memory");
    assert_err!(
        IoMem::<u32>::map_combining(CODE),
        IoMemError::Map(IoRemapError::Area(NoArea::Alias(_)))
    );
    let again = IoText::load(CODE, &answer(2)).expect_err("it is executed");
    assert!(matches!(again, LoadError::Write(_)), "{again}");
    drop(text);
    let memory = IoMemory::map(CODE, 4, MemoryType::NormalNonCacheable).expect("addresses");
    let refused = IoText::map(CODE, 4).expect_err("it is written");
    assert!(refused.to_string().contains("r-x"), "{refused}");
    assert_err!(IoText::load(CODE, &answer(3)), LoadError::Execute(_));
    drop(memory);
    books.assert_unchanged();
}

/// S93: bytes in and out, to the last one and no further.
#[ktest]
fn memory_of_a_device_is_copied_and_goes_with_its_owner_s93() {
    let books = Books::now();
    let (physical, bytes) = (PhysAddr::new(MEMORY.raw() + 0x404), PAGE_SIZE + 3);
    for (memory, wanted) in TYPES {
        let mut owner = IoMemory::map(physical, bytes, memory).expect("addresses");
        let address = owner.address();
        assert_eq!((owner.physical(), owner.bytes()), (physical, bytes));
        assert_eq!(attributes_at(address), wanted);
        assert_eq!(owner.write(0, b"first"), 5);
        // One byte more than there is room for.
        assert_eq!(owner.write(bytes - 3, b"last"), 3);
        assert_eq!((owner.write(bytes, b"x"), owner.write(u32::MAX, b"x")), (0, 0));
        let mut seen = [7; 6];
        assert_eq!((owner.read(0, &mut seen[..5]), &seen), (5, b"first\x07"));
        assert_eq!((owner.read(bytes - 3, &mut seen), &seen), (3, b"lasst\x07"));
        assert_eq!((owner.read(bytes, &mut seen), owner.read(u32::MAX, &mut seen)), (0, 0));
        // SAFETY: what was written, which nobody changes meanwhile.
        let byte = unsafe {
            ptr::with_exposed_provenance::<u8>(plus(address, bytes - 1).raw() as usize)
                .read_volatile()
        };
        assert_eq!(byte, b's');
        drop(owner);
        assert_absent(address);
        assert_absent(plus(address, bytes - 1));
    }
    books.assert_unchanged();
}

/// S94, S97: RAM is somebody's, so that it takes a promise, and has no second mapping.
#[ktest]
fn memory_of_a_device_is_no_ram_s94_s97() {
    let pages = Pages::new(0).expect("memory");
    let (physical, address) = (pages.first().base(), linear(pages.first()));
    let books = Books::now();
    let ram = IoRemapError::Ram { physical, bytes: 8, ram: physical };
    let refused = IoMemory::map(physical, 8, MemoryType::NormalWriteBack);
    assert_eq!(refused.expect_err("RAM"), MemRemapError::Map(ram));
    for (memory, _) in &TYPES[1..] {
        let refused = IoMemory::map(physical, 8, *memory);
        assert_err!(refused, MemRemapError::RamOtherwise { .. });
    }
    let refused = IoMemory::map(MEMORY, 8, MemoryType::Device);
    assert_err!(refused, MemRemapError::NotMemory { .. });
    // SAFETY: the page is this test's.
    let lent = unsafe { IoMemory::map_ram(physical, 8, MemoryType::NormalWriteBack) };
    let mut lent = lent.expect("as the linear map has it");
    assert_eq!((lent.address(), lent.write(0, b"in place")), (address, 8));
    drop(lent);
    assert_leads(address, physical);
    assert_eq!(word_at(address), u32::from_le_bytes(*b"in p"));
    books.assert_unchanged();
}

/// S93, S112: what is loaded runs, on every CPU, each time anew, and goes with its owner.
#[ktest]
fn code_in_on_chip_memory_goes_with_its_owner_s93_s112() {
    let books = Books::now();
    for number in [42, 77, 5] {
        let text = IoText::load(CODE, &answer(number)).expect("on-chip memory");
        let address = text.address();
        assert_eq!(text.physical(), CODE);
        let pointer = ptr::with_exposed_provenance::<()>(address.raw() as usize);
        // SAFETY: the two instructions that were loaded are a function that gives a number; it is called while they live.
        let code: extern "C" fn() -> u32 = unsafe { transmute(pointer) };
        assert_eq!(code(), u32::from(number));
        for cpu in smp::up() {
            assert_eq!(smp::run_on(cpu, || code()), Ok(u32::from(number)), "CPU {cpu}");
        }
        // SAFETY: could it be written, the test would fail.
        assert!(unsafe { probe::write_u32(address, 0) }.is_err());
        let again = IoText::map(CODE, 8).expect("it may be executed twice");
        drop(text);
        assert_absent(address);
        assert_leads(again.address(), CODE);
    }
    books.assert_unchanged();
}

/// S93: nothing is written where nothing may be executed.
#[ktest]
fn code_is_loaded_nowhere_else_s93() {
    let books = Books::now();
    let mut before = IoMemory::map(MEMORY, 8, MemoryType::NormalNonCacheable).expect("addresses");
    before.write(0, b"as it is");
    for physical in [MEMORY, SYSTEM_REGISTERS.base, PhysAddr::new(SRAM.last().raw())] {
        let refused = IoText::load(physical, &answer(1)).expect_err("not on-chip memory");
        let LoadError::Execute(MemRemapError::NotOnChip { .. }) = refused else {
            panic!("{refused}");
        };
    }
    assert_err!(
        IoText::load(CODE, &[]),
        LoadError::Execute(MemRemapError::Map(IoRemapError::ZeroSize { .. }))
    );
    let mut seen = [0; 8];
    before.read(0, &mut seen);
    assert_eq!(&seen, b"as it is");
    drop(before);
    books.assert_unchanged();
}

/// S8, S9, S19: each allocation of each owner fails in turn, and nothing is lost.
#[ktest]
fn owners_whose_allocations_fail_leave_nothing_s8_s9() {
    let of_map = |point, error: &IoRemapError| match error {
        IoRemapError::Area(error) => no_area(point, error),
        IoRemapError::Map(error) => no_table(point, error),
        _ => false,
    };
    let of_memory = |point, error: &MemRemapError| match error {
        MemRemapError::Map(error) => of_map(point, error),
        _ => false,
    };
    let memory = || IoMemory::map(MEMORY, SECTION_SIZE + 1, MemoryType::NormalWriteBack);
    survives("IoMemory::map", memory, of_memory, drop);
    survives("IoText::map", || IoText::map(CODE, SECTION_SIZE + 1), of_memory, drop);
    let is_right = |point, error: &LoadError| match error {
        LoadError::Execute(error) | LoadError::Write(error) | LoadError::Again(error) => {
            of_memory(point, error)
        }
    };
    survives("IoText::load", || IoText::load(CODE, &answer(9)), is_right, drop);
}
