//! Mappings of every kind, by every witness: our walker, the processor's own translation, an access, and the descriptor
//! bit by bit. What memory type an entry promises shows in its bits alone: the emulator makes no difference.

extern crate alloc;

use alloc::vec;

use arch::exception::{Access, FaultStatus, Level};
use arch::probe;
use arch::translate::{Direction, TranslationFault, translate};
use boot::layout::{Use, parts};
use dma::coherent::CoherentBox;
use dma::device::Device;
use kerncore::addr::{PAGE_SIZE, PageRange, PhysAddr, VirtAddr};
use kerncore::attributes::Attributes;
use kerncore::descriptor::PageSize;
use kerncore::frames::FrameOwner;
use kerncore::layout::{linear_address, linear_physical};
use ktest::ktest;
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;

use super::faults::{assert_fault, assert_unmapped};

use super::witness::{ask_host, authority};

/// Small pages, as the ARM ARM (B3.5.1, tables B3-8 and B3-10) would have them, without the frame:
/// nG 11, S 10, AP\[2\] 9, TEX 8..6, AP\[1:0\] 5..4, C 3, B 2, small page 1, XN 0.
pub(super) mod bits {
    /// Normal write-back write-allocate, shareable, privileged read and write, never executed.
    pub(crate) const DATA: u32 = 0b0100_0101_1111;
    /// The same, read only.
    pub(crate) const RODATA: u32 = 0b0110_0101_1111;
    /// The same, read only and executed.
    pub(crate) const TEXT: u32 = 0b0110_0101_1110;
    /// Normal non-cacheable, shareable, privileged read and write, never executed.
    pub(crate) const NON_CACHEABLE: u32 = 0b0100_0101_0011;
    /// Device, privileged read and write, never executed.
    pub(crate) const DEVICE: u32 = 0b0000_0001_0111;
    /// Strongly-ordered, privileged read and write, never executed.
    pub(crate) const STRONGLY_ORDERED: u32 = 0b0000_0001_0011;
    /// Normal write-through, shareable, privileged read and write, never executed.
    pub(crate) const WRITE_THROUGH: u32 = 0b0100_0001_1011;
    /// AP\[2\]: read only.
    pub(crate) const READ_ONLY: u32 = 1 << 9;
    /// Never executed.
    pub(crate) const XN: u32 = 1;
}

/// Asserts that the walker finds a small page of `physical` with these bits, and that the processor, asked where the
/// address leads, says the same for reading and what the bits say for writing.
#[track_caller]
pub(super) fn assert_entry(address: VirtAddr, physical: PhysAddr, bits: u32) {
    let Some(found) = mm::kernel().table().translate(address) else {
        panic!("{address} is not mapped, wanted {physical}");
    };
    assert_eq!(found.physical, physical, "where {address} leads");
    assert_eq!(found.size, PageSize::Small, "{address}");
    assert_eq!(
        found.descriptor(),
        physical.page_base().raw() | bits,
        "descriptor of {address}, which is {:#x}",
        found.descriptor()
    );
    assert_eq!(translate(address, Direction::Read), Ok(physical), "ATS1CPR of {address}");
    let status = FaultStatus::Permission(Level::Second);
    let writing = if bits & bits::READ_ONLY == 0 {
        Ok(physical)
    } else {
        Err(TranslationFault::Refused { address, status })
    };
    assert_eq!(translate(address, Direction::Write), writing, "ATS1CPW of {address}");
    ask_host(address);
}

/// Asserts that neither the walker nor the processor finds anything, and that every access is refused.
#[track_caller]
pub(super) fn assert_absent(address: VirtAddr, level: Level) {
    assert_eq!(mm::kernel().table().translate(address), None, "{address}");
    let refused = TranslationFault::Refused { address, status: FaultStatus::Translation(level) };
    assert_eq!(translate(address, Direction::Read), Err(refused));
    assert_eq!(translate(address, Direction::Write), Err(refused));
    assert_unmapped(address, level);
}

/// Asserts the entry of `address`, and that accesses do what its bits say. What is there stays as it is.
///
/// # Safety
/// Nobody else writes the word at `address` meanwhile, and a read has no effect.
#[track_caller]
pub(super) unsafe fn assert_mapped(address: VirtAddr, physical: PhysAddr, bits: u32) {
    assert_entry(address, physical, bits);
    let word = VirtAddr::new(address.raw() & !3);
    let value = probe::read_u32(word).unwrap_or_else(|fault| panic!("{fault}"));
    // SAFETY: if it is not refused, it writes what is there.
    let written = unsafe { probe::write_u32(word, value) };
    let status = FaultStatus::Permission(Level::Second);
    if bits & bits::READ_ONLY == 0 {
        assert_eq!(written, Ok(()), "{word}");
    } else {
        assert_fault(written, status, Access::Write, word);
    }
    if bits & bits::XN != 0 {
        // SAFETY: the entry says "never", so that this is refused on any processor that keeps its word.
        let executed = unsafe { probe::execute(word) };
        assert_fault(executed, status, Access::Execute, word);
    }
}

/// The first and the last byte of each page.
pub(super) fn edges(pages: PageRange) -> impl Iterator<Item = VirtAddr> {
    (pages.first()..pages.end())
        .filter_map(|number| PageRange::from_numbers(number, 1))
        .flat_map(|page| [page.start(), VirtAddr::new(page.start().raw() + PAGE_SIZE - 1)])
}

/// The page behind an area: its guard.
fn behind(pages: PageRange) -> VirtAddr {
    VirtAddr::new(pages.start().raw() + pages.bytes())
}

fn caller() -> VirtAddr {
    parts()[0].pages.start()
}

#[ktest]
fn vmalloc_maps_ordinary_memory_that_is_the_linear_map_s_memory() {
    let mut area = VmArea::new(5 * PAGE_SIZE - 3).expect("memory");
    let pages = area.pages();
    assert_eq!(pages.count(), 5);
    for (byte, number) in area.iter_mut().zip(0_u32..) {
        *byte = number.wrapping_mul(37).to_le_bytes()[1] ^ number.to_le_bytes()[0];
    }
    for address in edges(pages) {
        let there = mm::kernel().table().translate(address).expect("mapped").physical;
        // SAFETY: memory of ours.
        unsafe { assert_mapped(address, there, bits::DATA) };
        assert_eq!(mm::kernel().zones().table().owner_of(there.pfn()), FrameOwner::Vmalloc);
        let mapped = mm::kernel().kmap(there.pfn()).expect("the area's frame");
        let other = VirtAddr::new(mapped.page().start().raw() + address.page_offset());
        // SAFETY: as above.
        unsafe { assert_mapped(other, there, bits::DATA) };
        assert_eq!(probe::read_u8(other), probe::read_u8(address), "{address} is not {other}");
    }
    assert_absent(behind(pages), Level::Second);
    drop(area);
    edges(pages).for_each(|address| assert_absent(address, Level::Second));
}

#[ktest]
fn vmap_maps_the_given_frames_in_the_given_order() {
    let mut given = vec![
        Pages::exactly(2).expect("pages"),
        Pages::new(0).expect("a page"),
        Pages::exactly(3).expect("pages"),
    ];
    given.sort_by_key(|pages| core::cmp::Reverse(pages.first()));
    let frames: vec::Vec<_> = given.iter().flat_map(Pages::frames).collect();
    let map = VmArea::map(given).expect("a mapping");
    let pages = map.pages();
    assert_eq!(pages.count(), 6);
    for (page, frame) in frames.iter().zip(0..).map(|(frame, page)| (page, frame)) {
        let address = VirtAddr::new(pages.start().raw() + page * PAGE_SIZE);
        // SAFETY: memory of ours.
        unsafe { assert_mapped(address, frame.base(), bits::DATA) };
    }
    assert_absent(behind(pages), Level::Second);
    drop(map);
    edges(pages).for_each(|address| assert_absent(address, Level::Second));
    for frame in frames {
        let linear = linear_address(frame.base()).expect("RAM is in the linear map");
        assert_entry(linear, frame.base(), bits::DATA);
    }
}

#[ktest]
fn a_read_only_vmap_refuses_what_the_writable_one_takes() {
    let mut page = Pages::new(0).expect("a page");
    let frame = page.first();
    let area = mm::kernel().vmap(&[frame], Attributes::KERNEL_RODATA, caller()).expect("a mapping");
    let address = area.pages.start();
    page[..4].copy_from_slice(&0x1357_9bdf_u32.to_le_bytes());
    // SAFETY: memory of ours.
    unsafe { assert_mapped(address, frame.base(), bits::RODATA) };
    assert_eq!(probe::read_u32(address), Ok(0x1357_9bdf));
    mm::kernel().vunmap(authority(), address).expect("it is mapped");
    assert_absent(address, Level::Second);
}

#[ktest]
fn ioremap_maps_device_memory_at_the_byte_asked_for() {
    let registers = board::vexpress_a9::SYSTEM_REGISTERS;
    let physical = PhysAddr::new(registers.base.raw() + 0x5c);
    let address =
        mm::kernel().ioremap(physical, 4, Attributes::DEVICE, caller()).expect("a mapping");
    assert_eq!(address.page_offset(), 0x5c);
    assert_entry(address, physical, bits::DEVICE);
    // The 24 MHz counter counts: this really is the device.
    let first = probe::read_u32(address).expect("mapped");
    let counts = (0..1_000_000).any(|_| probe::read_u32(address) != Ok(first));
    assert!(counts, "the counter stands still at {first:#x}");
    // SAFETY: expected to be refused: Device memory is never executed.
    let executed = unsafe { probe::execute(address) };
    assert_fault(executed, FaultStatus::Permission(Level::Second), Access::Execute, address);
    assert_absent(VirtAddr::new(address.page_base().raw() + PAGE_SIZE), Level::Second);
    mm::kernel().iounmap(authority(), address).expect("it is mapped");
    assert_absent(address, Level::Second);
}

#[ktest]
fn every_memory_type_has_its_own_bits() {
    let device = board::vexpress_a9::SYSTEM_REGISTERS.base;
    for (attributes, bits) in [
        (Attributes::DEVICE, bits::DEVICE),
        (Attributes::STRONGLY_ORDERED, bits::STRONGLY_ORDERED),
        (Attributes::WRITE_COMBINE, bits::NON_CACHEABLE),
        (Attributes::WRITE_THROUGH, bits::WRITE_THROUGH),
        (Attributes::KERNEL_DATA, bits::DATA),
    ] {
        let address =
            mm::kernel().ioremap(device, 3 * PAGE_SIZE, attributes, caller()).expect("a mapping");
        for page in 0..3 {
            let offset = page * PAGE_SIZE;
            let physical = PhysAddr::new(device.raw() + offset);
            assert_entry(VirtAddr::new(address.raw() + offset), physical, bits);
        }
        mm::kernel().iounmap(authority(), address).expect("it is mapped");
    }
}

static DEVICE: Device = Device::new("suite");

/// S97: while memory is lent uncached, no other view of it is left; afterwards the linear one is back.
#[ktest]
fn coherent_memory_is_uncached_and_has_no_second_view_s97() {
    let mut buffer = CoherentBox::new(&DEVICE, 3 * PAGE_SIZE).expect("a buffer");
    let (address, dma) = (buffer.address(), buffer.dma_address());
    assert!(buffer.iter().all(|&byte| byte == 0), "it is not zeroed");
    buffer.fill(0x3c);
    for page in 0..3 {
        let offset = page * PAGE_SIZE;
        let (there, physical) =
            (VirtAddr::new(address.raw() + offset), PhysAddr::new(dma.raw() + offset));
        // SAFETY: memory of ours.
        unsafe { assert_mapped(there, physical, bits::NON_CACHEABLE) };
        assert_absent(linear_address(physical).expect("RAM"), Level::Second);
    }
    assert_absent(VirtAddr::new(address.raw() + 3 * PAGE_SIZE), Level::Second);
    drop(buffer);
    for page in 0..3 {
        let offset = page * PAGE_SIZE;
        assert_absent(VirtAddr::new(address.raw() + offset), Level::Second);
        let physical = PhysAddr::new(dma.raw() + offset);
        let linear = linear_address(physical).expect("RAM");
        assert_entry(linear, physical, bits::DATA);
        assert_eq!(probe::read_u32(linear), Ok(0x3c3c_3c3c), "what was written is not in RAM");
    }
}

#[ktest]
fn atomic_coherent_memory_is_uncached_and_has_no_second_view_s97() {
    let mut buffer = CoherentBox::new_atomic(&DEVICE, 2 * PAGE_SIZE).expect("the pool has room");
    buffer.fill(0x5a);
    for page in 0..2 {
        let offset = page * PAGE_SIZE;
        let there = VirtAddr::new(buffer.address().raw() + offset);
        let physical = PhysAddr::new(buffer.dma_address().raw() + offset);
        // SAFETY: memory of ours.
        unsafe { assert_mapped(there, physical, bits::NON_CACHEABLE) };
        assert_absent(linear_address(physical).expect("RAM"), Level::Second);
    }
}

#[ktest]
fn the_heap_is_ordinary_memory() {
    let boxed = vec![0x77_u8; 3 * PAGE_SIZE as usize];
    let start = VirtAddr::new(boxed.as_ptr() as u32);
    for offset in [0, PAGE_SIZE, 3 * PAGE_SIZE - 1] {
        let address = VirtAddr::new(start.raw() + offset);
        let physical = mm::kernel().table().translate(address).expect("mapped").physical;
        // SAFETY: memory of ours.
        unsafe { assert_mapped(address, physical, bits::DATA) };
        assert_eq!(mm::kernel().zones().table().owner_of(physical.pfn()), FrameOwner::Heap);
    }
    assert!(boxed.iter().all(|&byte| byte == 0x77));
}

/// S112: each part of the image has the bits of its use and no other.
#[ktest]
fn every_page_of_the_image_has_the_descriptor_of_its_part_s112() {
    for part in parts() {
        let bits = match part.usage {
            Use::Text => bits::TEXT,
            Use::ReadOnly => bits::RODATA,
            Use::Data | Use::Stack | Use::Tables => bits::DATA,
        };
        for address in edges(part.pages) {
            let physical = linear_physical(address).expect("the image is in the linear map");
            let owner = mm::kernel().zones().table().owner_of(physical.pfn());
            // Tables of RAM that is not there are free memory, and may be lent uncached.
            if matches!(owner, FrameOwner::Dma | FrameOwner::AtomicPool) {
                assert_eq!(part.usage, Use::Tables, "{address} of the {} is lent", part.name);
                assert_absent(address, Level::Second);
            } else {
                assert_entry(address, physical, bits);
            }
        }
    }
}

/// The linear map's first-level entries name its tables, in order, in domain 0, and those of RAM that is not there are
/// empty.
#[ktest]
fn the_linear_map_s_first_level_names_its_tables_in_order() {
    let kernel = mm::kernel();
    let sections = kernel.linear().window().count() / 256;
    let tables = linear_physical(boot::layout::linear_tables()).expect("in the linear map");
    for section in 0..1024 {
        let slot = PhysAddr::new(kernel.table().root().raw() + (2048 + section) * 4);
        let wanted = if section < sections { (tables.raw() + section * 1024) | 1 } else { 0 };
        let found = kernel.table().read_descriptor(slot);
        assert_eq!(found, wanted, "MiB {section} of the linear map");
    }
}

/// The lower half of the kernel's own table is never walked, and holds nothing.
#[ktest]
fn the_unused_half_of_the_kernel_s_first_level_is_empty() {
    let kernel = mm::kernel();
    for index in 0..2048 {
        let slot = PhysAddr::new(kernel.table().root().raw() + index * 4);
        assert_eq!(kernel.table().read_descriptor(slot), 0, "slot {index}");
    }
}
