//! Registers at odd places, and pointers that nobody gave out, on the live tables: what no driver should ask, and some do (S59, S93
//! to S97).
//!
//! Nothing here touches an address that no device answers.

use core::ffi::{c_uint, c_void};
use core::sync::atomic::{AtomicU32, Ordering};

use arch::smp;
use board::vexpress_a9::{L2_CACHE_CONTROLLER, SRAM, VRAM};
use kerncore::addr::{
    LARGE_PAGE_SIZE, PAGE_SIZE, PhysAddr, SECTION_SIZE, SUPERSECTION_SIZE, VirtAddr,
};
use kerncore::attributes::Attributes;
use kerncore::kernel_space::{IoRemapError, NoArea, VmapError};
use ktest::ktest;
use linux::ioremap::{
    MEMREMAP_WC, ioremap, ioremap_exec, ioremap_np, ioremap_shared, ioremap_wc, iounmap, memremap,
    memunmap,
};
use linux::vmalloc::vmalloc;
use mm::kernel;

use super::failures::{no_area, no_table, survives};
use super::smp::on_each;
use super::witness::{Books, NOBODY, assert_absent, assert_leads, authority, plus};

/// Nothing answers there, and nothing is asked.
const BEYOND_RAM: u32 = 0xa000_0000;

fn at(pointer: *mut c_void) -> VirtAddr {
    VirtAddr::new(u32::try_from(pointer.addr()).expect("a pointer has 32 bits"))
}

fn to(address: u32) -> *const c_void {
    core::ptr::without_provenance(address as usize)
}

fn by_combining(physical: c_uint, size: c_uint) -> *mut c_void {
    memremap(physical, size, MEMREMAP_WC)
}

/// By its name, a call that maps.
type Maps = (&'static str, fn(c_uint, c_uint) -> *mut c_void);

const NAMES: [Maps; 5] = [
    ("ioremap", |physical, size| ioremap(physical, size)),
    ("ioremap_shared", |physical, size| ioremap_shared(physical, size)),
    ("ioremap_wc", |physical, size| ioremap_wc(physical, size)),
    ("ioremap_np", |physical, size| ioremap_np(physical, size)),
    ("memremap", by_combining),
];

/// S94, S96: the end of the bus is like any other place, by entries of each size; a byte more wraps.
#[ktest]
fn the_top_of_the_bus_is_mapped_by_entries_of_each_size_s94_s96() {
    let books = Books::now();
    for (name, map) in NAMES {
        for bytes in [
            1,
            PAGE_SIZE - 1,
            PAGE_SIZE,
            PAGE_SIZE + 1,
            LARGE_PAGE_SIZE - 1,
            LARGE_PAGE_SIZE,
            SECTION_SIZE,
            SECTION_SIZE + 1,
            SUPERSECTION_SIZE,
            SUPERSECTION_SIZE + PAGE_SIZE,
        ] {
            let first = 0u32.wrapping_sub(bytes);
            let address = at(map(first, bytes));
            assert_ne!(address, VirtAddr::new(0), "{name}: the last {bytes:#x} bytes");
            assert_eq!(address.page_offset(), first % PAGE_SIZE);
            assert_leads(address, PhysAddr::new(first));
            assert_leads(plus(address, bytes - 1), PhysAddr::new(u32::MAX));
            assert!(map(first, bytes + 1).is_null(), "{name}: {bytes:#x} bytes and one");
            // SAFETY: nobody uses it.
            unsafe { iounmap(to(plus(address, bytes - 1).raw())) };
            assert_absent(address);
        }
        for (physical, size) in
            [(1, u32::MAX), (u32::MAX, u32::MAX), (0x8000_0000, 0x8000_0001), (0xffff_f000, 0x1001)]
        {
            assert!(map(physical, size).is_null(), "{name}: {size:#x} bytes at {physical:#x}");
        }
    }
    books.assert_unchanged();
}

/// S32, S59: pointers that nobody gave out are refused, wherever they point, and change nothing; nor do those of other owners.
#[ktest]
fn pointers_that_nobody_gave_out_end_nothing_s32_s59() {
    let live = ioremap(VRAM.base.raw(), 3 * PAGE_SIZE);
    let shared = ioremap_shared(VRAM.base.raw(), 3 * PAGE_SIZE);
    let memory = vmalloc(2 * PAGE_SIZE);
    assert!(!live.is_null() && !shared.is_null() && !memory.is_null());
    let window = kernel().window();
    let linear = kernel().linear().window();
    let statics = kernel().static_region();
    let books = Books::now();
    let pointers = [
        0,
        1,
        0xfff,
        0x1000,
        u32::MAX,
        0xffff_0000,
        window.start().raw() - 1,
        window.start().raw() + (window.bytes() - 1),
        window.start().raw() + (window.bytes() - PAGE_SIZE),
        linear.start().raw(),
        linear.start().raw() + 0x12_3457,
        statics.start().raw(),
        statics.start().raw() + (statics.bytes() - 1),
        at(live).raw() + 3 * PAGE_SIZE,
        at(shared).raw() + 3 * PAGE_SIZE,
        at(shared).raw() + 4 * PAGE_SIZE - 1,
        at(memory).raw(),
        at(memory).raw() + PAGE_SIZE + 1,
        kerncore::layout::HEAP_START.raw(),
        kerncore::layout::TEMPORARY_START.raw(),
        VRAM.base.raw(),
        SRAM.base.raw(),
    ];
    for pointer in pointers {
        // SAFETY: they end nothing.
        unsafe { iounmap(to(pointer)) };
        // SAFETY: as above.
        unsafe { memunmap(to(pointer)) };
        books.assert_unchanged();
    }
    // Nor do other frees end registers, at their base or inside.
    for pointer in [live, shared] {
        for offset in [0, 1, PAGE_SIZE] {
            let pointer = to(at(pointer).raw() + offset);
            // SAFETY: they are refused.
            unsafe { linux::free::vfree(pointer) };
            // SAFETY: as above.
            unsafe { linux::free::vunmap(pointer) };
            // SAFETY: as above.
            unsafe { linux::free::vfree_atomic(pointer) };
            // SAFETY: as above.
            assert!(unsafe { linux::areas::remove_vm_area(pointer) }.is_null());
            // SAFETY: as above.
            unsafe { linux::objects::kvfree(pointer) };
            books.assert_unchanged();
        }
    }
    for pointer in [live, shared] {
        assert_leads(at(pointer), VRAM.base);
        // SAFETY: nobody uses it.
        unsafe { iounmap(pointer) };
        assert_absent(at(pointer));
    }
    // SAFETY: nobody uses it.
    unsafe { linux::free::vfree(memory) };
}

/// S93: what one name of the family made, the other ends.
#[ktest]
fn iounmap_ends_what_memremap_made_and_memunmap_what_ioremap_made_s93() {
    let books = Books::now();
    let registers = ioremap(VRAM.base.raw() + 5, 7);
    // SAFETY: nobody uses it.
    unsafe { memunmap(registers) };
    assert_absent(at(registers));
    let memory = memremap(VRAM.base.raw() + 5, SECTION_SIZE, MEMREMAP_WC);
    // SAFETY: nobody uses it.
    unsafe { iounmap(memory) };
    assert_absent(at(memory));
    let code = ioremap_exec(SRAM.last().raw(), 1);
    // SAFETY: nobody uses it.
    unsafe { memunmap(code) };
    assert_absent(at(code));
    books.assert_unchanged();
}

/// S95, S97: a page beside what is mapped for good, and the last byte of it, by all names.
#[ktest]
fn the_edges_of_a_static_mapping_are_told_apart_s95() {
    let books = Books::now();
    let (first, last) = (L2_CACHE_CONTROLLER.base.raw(), L2_CACHE_CONTROLLER.last().raw());
    let mapped = kernel().static_region();
    for map in [NAMES[0].1, NAMES[1].1] {
        for (physical, bytes, is_static) in [
            (first, 1, true),
            (last, 1, true),
            (first, PAGE_SIZE, true),
            (first - 1, 1, false),
            (first - 1, 2, false),
            (last, 2, false),
            (last + 1, 1, false),
        ] {
            let pointer = map(physical, bytes);
            assert_eq!(mapped.contains(at(pointer)), is_static, "{bytes:#x} at {physical:#x}");
            assert_leads(at(pointer), PhysAddr::new(physical));
            // SAFETY: nobody uses it.
            unsafe { iounmap(pointer) };
            assert_leads(
                mapped.start().checked_add(PAGE_SIZE).expect("inside"),
                PhysAddr::new(first),
            );
        }
    }
    for (_, map) in &NAMES[2..] {
        for (physical, bytes) in
            [(first, 1), (last, 1), (first - 1, 2), (last, 2), (0, 0x2000_0000)]
        {
            assert!(map(physical, bytes).is_null(), "{bytes:#x} at {physical:#x}");
        }
    }
    books.assert_unchanged();
}

/// S9, S61: shared registers, small and large, and a list of frames that are many runs, while the index has no place at hand.
#[ktest]
fn shared_registers_and_lists_of_frames_survive_each_failure_s8_s9_s61() {
    let others: [VirtAddr; 40] = core::array::from_fn(|number| {
        #[expect(clippy::cast_possible_truncation, reason = "forty")]
        let physical = PhysAddr::new(BEYOND_RAM + 0x1000_0000 + number as u32 * 2 * PAGE_SIZE);
        kernel().ioremap_own(physical, 4, Attributes::DEVICE, NOBODY).expect("addresses")
    });
    let is_right = |point, error: &IoRemapError| match error {
        IoRemapError::Area(error) => no_area(point, error),
        IoRemapError::Map(error) => no_table(point, error),
        _ => false,
    };
    for (name, offset, bytes) in [
        ("ioremap_shared, a page", 0, 4),
        ("ioremap_shared, 3 MiB and a byte", 0, (3 << 20) + 1),
        ("ioremap_shared, entries of each size", 0, (18 << 20) + 0x1_1000),
    ] {
        let map = || {
            let physical = PhysAddr::new(BEYOND_RAM + offset);
            kernel().ioremap_shared(physical, bytes, Attributes::WRITE_COMBINE, NOBODY)
        };
        let end = |address| assert_eq!(kernel().iounmap(authority(), address), Ok(()));
        survives(name, map, is_right, end);
    }
    let is_right = |point, error: &VmapError| match error {
        VmapError::Area(error) => no_area(point, error),
        VmapError::Map(error) => no_table(point, error),
        _ => false,
    };
    let frames = (0..20).map(|number| PhysAddr::new(BEYOND_RAM + number * 3 * PAGE_SIZE).pfn());
    survives(
        "vmap_pfn, twenty runs",
        || kernel().vmap_devices(frames.clone(), Attributes::WRITE_COMBINE, NOBODY),
        is_right,
        |area| assert_eq!(kernel().vunmap(authority(), area.pages.start()), Ok(())),
    );
    for address in others {
        kernel().iounmap(authority(), address).expect("ours");
    }
}

/// S97, S116: CPUs that want a page in different types never have it so at once.
#[ktest]
fn cpus_of_smp_never_have_a_page_in_two_types_at_once_s97() {
    const ROUNDS: u32 = 300;
    const WAYS: [Attributes; 3] =
        [Attributes::DEVICE, Attributes::WRITE_COMBINE, Attributes::STRONGLY_ORDERED];
    let having = [const { AtomicU32::new(0) }; 3];
    let refusals = AtomicU32::new(0);
    let books = Books::now();
    on_each(|| {
        for round in 0..ROUNDS {
            let way = ((round * 5 + arch::cpu::id()) / 3 % 3) as usize;
            // A page, or entries of several sizes; alone, or shared.
            let bytes = [4, SECTION_SIZE + 1, 17 * PAGE_SIZE][(round % 3) as usize];
            let mapped = if round % 2 == 0 {
                kernel().ioremap_own(VRAM.base, bytes, WAYS[way], NOBODY)
            } else {
                kernel().ioremap_shared(VRAM.base, bytes, WAYS[way], NOBODY)
            };
            match mapped {
                Ok(address) => {
                    having[way].fetch_add(1, Ordering::SeqCst);
                    for (other, count) in having.iter().enumerate() {
                        let count = count.load(Ordering::SeqCst);
                        assert!(other == way || count == 0, "{count} have it otherwise");
                    }
                    let found = kernel().table().translate(address).expect("mapped");
                    assert_eq!(found.attributes(), Ok(WAYS[way]));
                    having[way].fetch_sub(1, Ordering::SeqCst);
                    assert_eq!(kernel().iounmap(authority(), address), Ok(()));
                }
                Err(IoRemapError::Area(NoArea::Alias(_))) => {
                    refusals.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => panic!("{error}"),
            }
            smp::beat();
        }
    });
    log::info!("{} were refused", refusals.load(Ordering::Relaxed));
    books.assert_unchanged();
}
