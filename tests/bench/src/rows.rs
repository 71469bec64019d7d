//! The rows: what is prepared, and the operation that is measured.
//!
//! Every function is called as C code would call it: by a pointer whose value the compiler does not know.

use alloc::vec::Vec;
use core::ffi::{c_int, c_uint, c_void};
use core::hint::black_box;
use core::ptr;

use board::vexpress_a9::NOR_FLASH_0;
use dma::device::Device;
use kerncore::addr::{DmaAddr, PAGE_SIZE};
use kerncore::area::VmStruct;
use kerncore::coherent::AllocationFlags;
use kerncore::frames::Frame;
use linux::areas::{free_vm_area, get_vm_area};
use linux::dma::{dma_alloc_coherent, dma_free_coherent};
use linux::free::{vfree, vunmap};
use linux::ioremap::{ioremap, ioremap_shared, iounmap};
use linux::lookup::{find_vm_area, vmalloc_to_page};
use linux::map_ram::{vm_map_ram, vm_unmap_ram};
use linux::page::{__free_pages, alloc_pages};
use linux::protection::PageProtection;
use linux::vmalloc::{vmalloc, vmalloc_huge, vzalloc};
use linux::vmap::vmap;

use crate::disk;
use crate::iommu;
use crate::meter::Meter;

/// One row.
pub(crate) struct Row {
    /// Its name on the host.
    pub(crate) name: &'static str,
    /// How often the operation is repeated when nobody says.
    pub(crate) operations: u32,
    /// Whether the kernel's clock runs meanwhile.
    pub(crate) clock: Clock,
    /// Prepares it and measures it.
    pub(crate) run: fn(&mut Meter),
}

/// Whether the kernel's clock runs while a row is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// It does, as in the shipped image.
    Runs,
    /// It does not. While a CPU waits for a device, time would leap to what a timer does next, and no longer be instructions.
    Stands,
}

const fn row(name: &'static str, run: fn(&mut Meter)) -> Row {
    Row { name, operations: 1000, clock: Clock::Runs, run }
}

/// A row that reads the whole disk.
const fn disk_row(name: &'static str, run: fn(&mut Meter)) -> Row {
    Row { name, operations: disk::REQUESTS, clock: Clock::Stands, run }
}

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

/// All of them.
pub(crate) static ROWS: &[Row] = &[
    row("empty_call", empty_call),
    row("vmalloc_vfree_4K", |meter| allocate_free(meter, vmalloc, 4 * KIB)),
    row("vmalloc_vfree_16K", |meter| allocate_free(meter, vmalloc, 16 * KIB)),
    row("vmalloc_vfree_64K", |meter| allocate_free(meter, vmalloc, 64 * KIB)),
    row("vmalloc_vfree_256K", |meter| allocate_free(meter, vmalloc, 256 * KIB)),
    row("vmalloc_vfree_1M", |meter| allocate_free(meter, vmalloc, MIB)),
    row("vmalloc_vfree_4M", |meter| allocate_free(meter, vmalloc, 4 * MIB)),
    row("vmalloc_huge_vfree_1M", |meter| allocate_free(meter, vmalloc_huge, MIB)),
    row("vzalloc_vfree_4K", |meter| allocate_free(meter, vzalloc, 4 * KIB)),
    row("vzalloc_vfree_64K", |meter| allocate_free(meter, vzalloc, 64 * KIB)),
    row("vzalloc_vfree_1M", |meter| allocate_free(meter, vzalloc, MIB)),
    row("vmap_vunmap_1p", |meter| map_unmap(meter, 1)),
    row("vmap_vunmap_4p", |meter| map_unmap(meter, 4)),
    row("vmap_vunmap_16p", |meter| map_unmap(meter, 16)),
    row("vmap_vunmap_64p", |meter| map_unmap(meter, 64)),
    row("vmap_vunmap_256p", |meter| map_unmap(meter, 256)),
    row("ioremap_iounmap_4K", |meter| remap_unmap(meter, 4 * KIB)),
    row("ioremap_iounmap_64K", |meter| remap_unmap(meter, 64 * KIB)),
    row("ioremap_iounmap_1M", |meter| remap_unmap(meter, MIB)),
    row("ioremap_iounmap_2M", |meter| remap_unmap(meter, 2 * MIB)),
    row("ioremap_iounmap_16M", |meter| remap_unmap(meter, 16 * MIB)),
    row("ioremap_shared_again_4K", share_again),
    row("get_vm_area_free_4K", reserve_free),
    row("vm_map_ram_1p", |meter| map_ram(meter, 1)),
    row("vm_map_ram_16p", |meter| map_ram(meter, 16)),
    row("vm_map_ram_32p", |meter| map_ram(meter, 32)),
    row("vm_map_ram_64p", |meter| map_ram(meter, 64)),
    row("dma_coherent_sleeping_4K", |meter| coherent(meter, AllocationFlags::KERNEL, 4 * KIB)),
    row("dma_coherent_sleeping_64K", |meter| coherent(meter, AllocationFlags::KERNEL, 64 * KIB)),
    row("dma_coherent_sleeping_256K", |meter| coherent(meter, AllocationFlags::KERNEL, 256 * KIB)),
    row("dma_coherent_cma_4K", contiguous),
    row("dma_coherent_atomic_4K", |meter| coherent(meter, AllocationFlags::ATOMIC, 4 * KIB)),
    row("dma_coherent_atomic_64K", |meter| coherent(meter, AllocationFlags::ATOMIC, 64 * KIB)),
    row("dma_coherent_atomic_256K", |meter| coherent(meter, AllocationFlags::ATOMIC, 256 * KIB)),
    row("vmalloc_vfree_4K_live_1000", |meter| beside(meter, 1000)),
    row("vmalloc_vfree_4K_live_10000", |meter| beside(meter, 10_000)),
    row("vmalloc_vfree_4K_live_30000", |meter| beside(meter, 30_000)),
    row("vmalloc_vfree_4K_fragmented", |meter| fragmented(meter, 4 * KIB)),
    row("vmalloc_vfree_8K_fragmented", |meter| fragmented(meter, 8 * KIB)),
    row("vmalloc_vfree_64K_fragmented", |meter| fragmented(meter, 64 * KIB)),
    row("vmalloc_vfree_random_live_1000", |meter| random(meter, 1000, 16)),
    row("vmalloc_vfree_random_live_10000", |meter| random(meter, 10_000, 16)),
    // 16 pages for each would not fit into the window, nor into RAM.
    row("vmalloc_vfree_random_live_30000", |meter| random(meter, 30_000, 8)),
    row("find_vm_area_live_10000", find),
    row("vmalloc_to_page", page_behind),
    row("page_alloc_free_order0", |meter| pages(meter, 0)),
    row("page_alloc_free_order4", |meter| pages(meter, 4)),
    row("iommu_map_unmap_1p", |meter| iommu::map_page(meter, 0)),
    row("iommu_map_unmap_16p", |meter| iommu::map_page(meter, 4)),
    row("iommu_map_unmap_256p", |meter| iommu::map_page(meter, 8)),
    row("iommu_map_sg_1p", |meter| iommu::map_list(meter, 1)),
    row("iommu_map_sg_16p", |meter| iommu::map_list(meter, 16)),
    row("iommu_map_sg_256p", |meter| iommu::map_list(meter, 256)),
    row("iommu_alloc_free_4K", |meter| iommu::allocate(meter, 4 * KIB)),
    row("iommu_alloc_free_64K", |meter| iommu::allocate(meter, 64 * KIB)),
    row("iommu_alloc_free_1M", |meter| iommu::allocate(meter, MIB)),
    disk_row("disk_read_64M_coherent", disk::read_coherent),
    disk_row("disk_read_64M_mapped", disk::read_mapped),
    disk_row("disk_read_64M_bounced", disk::read_bounced),
];

type Allocate = extern "C" fn(c_uint) -> *mut c_void;
type Free = unsafe extern "C" fn(*const c_void);

/// The pointers of what is freed in many rows.
fn vfree_pointer() -> Free {
    black_box(vfree as Free)
}

/// Frees what a row allocated.
fn free(vfree: Free, area: *const c_void) {
    // SAFETY: rows use no memory after they free it.
    unsafe { vfree(area) };
}

/// What a call costs that does nothing: for comparison, subtracted from nothing.
fn empty_call(meter: &mut Meter) {
    extern "C" fn empty(number: c_uint) -> c_uint {
        number
    }
    let empty = black_box(empty as extern "C" fn(c_uint) -> c_uint);
    meter.measure(|_| _ = empty(4 * KIB));
}

fn allocate_free(meter: &mut Meter, allocate: Allocate, bytes: u32) {
    let (allocate, vfree) = (black_box(allocate), vfree_pointer());
    meter.measure(|_| free(vfree, allocate(bytes)));
    assert!(!live(allocate, bytes).is_null(), "what was measured was a failure");
}

/// An area that is never freed.
fn live(allocate: Allocate, bytes: u32) -> *const c_void {
    let area = allocate(bytes);
    assert!(!area.is_null(), "the row needs {bytes} bytes more than there are");
    area
}

fn live_areas(count: usize, bytes: u32) -> Vec<*const c_void> {
    (0..count).map(|_| live(vmalloc, bytes)).collect()
}

fn map_unmap(meter: &mut Meter, count: u32) {
    let pages: Vec<*const Frame> =
        (0..count).map(|_| alloc_pages(AllocationFlags::KERNEL, 0)).collect();
    let vmap = black_box(
        vmap as unsafe extern "C" fn(*const *const Frame, c_uint, c_uint, PageProtection) -> _,
    );
    let vunmap = black_box(vunmap as Free);
    let map = || -> *mut c_void {
        // SAFETY: the array has `count` pages, which stay allocated; nobody uses the mapping.
        unsafe { vmap(pages.as_ptr(), count, 0, PageProtection::KERNEL) }
    };
    meter.measure(|_| free(vunmap, map()));
    assert!(!map().is_null(), "what was measured was a failure");
}

fn map_ram(meter: &mut Meter, count: u32) {
    let pages: Vec<*const Frame> =
        (0..count).map(|_| alloc_pages(AllocationFlags::KERNEL, 0)).collect();
    let map_ram =
        black_box(vm_map_ram as unsafe extern "C" fn(*const *const Frame, c_uint, c_int) -> _);
    let unmap_ram = black_box(vm_unmap_ram as unsafe extern "C" fn(*const c_void, c_uint));
    let map = || -> *mut c_void {
        // SAFETY: the array has `count` pages, which stay allocated; nobody uses the mapping.
        unsafe { map_ram(pages.as_ptr(), count, -1) }
    };
    meter.measure(|_| {
        let mapped = map();
        // SAFETY: nobody uses it.
        unsafe { unmap_ram(mapped, count) };
    });
    assert!(!map().is_null(), "what was measured was a failure");
}

/// Flash stands for registers: there is enough of it, and it is aligned to every size.
fn remap_unmap(meter: &mut Meter, bytes: u32) {
    let physical = NOR_FLASH_0.base.raw();
    let ioremap = black_box(ioremap as extern "C" fn(c_uint, c_uint) -> *mut c_void);
    let iounmap = black_box(iounmap as Free);
    meter.measure(|_| free(iounmap, ioremap(physical, bytes)));
    assert!(!ioremap(physical, bytes).is_null(), "what was measured was a failure");
}

/// Of a page that somebody else has mapped to be shared.
fn share_again(meter: &mut Meter) {
    let physical = NOR_FLASH_0.base.raw();
    let share = black_box(ioremap_shared as extern "C" fn(c_uint, c_uint) -> *mut c_void);
    let iounmap = black_box(iounmap as Free);
    let first = share(physical, 4 * KIB);
    meter.measure(|_| free(iounmap, share(physical, 4 * KIB)));
    assert_eq!(share(physical, 4 * KIB), first, "what was measured was no second use");
}

fn reserve_free(meter: &mut Meter) {
    let get_vm_area = black_box(get_vm_area as extern "C" fn(c_uint, c_uint) -> *const VmStruct);
    let free_vm_area = black_box(free_vm_area as unsafe extern "C" fn(*const VmStruct));
    // SAFETY: nobody uses the area or its descriptor; what is no area ends the kernel.
    meter.measure(|_| unsafe { free_vm_area(get_vm_area(4 * KIB, 0)) });
}

type AllocateCoherent =
    unsafe extern "C" fn(*const Device, c_uint, *mut DmaAddr, AllocationFlags) -> *mut c_void;
type FreeCoherent = unsafe extern "C" fn(*const Device, c_uint, *const c_void, DmaAddr);

/// The pointers by which coherent buffers are made and freed.
pub(crate) fn coherent_pointers() -> (AllocateCoherent, FreeCoherent) {
    (
        black_box(dma_alloc_coherent as AllocateCoherent),
        black_box(dma_free_coherent as FreeCoherent),
    )
}

fn coherent(meter: &mut Meter, gfp: AllocationFlags, bytes: u32) {
    static DEVICE: Device = Device::new("bench");

    let (allocate, free) = coherent_pointers();
    let mut bus = DmaAddr::new(0);
    let mut last: *mut c_void = ptr::null_mut();
    meter.measure(|_| {
        // SAFETY: the device is one, and `bus` a place for an address.
        last = unsafe { allocate(&raw const DEVICE, bytes, &raw mut bus, gfp) };
        // SAFETY: the device is the same; nobody uses the buffer.
        unsafe { free(&raw const DEVICE, bytes, last, bus) };
    });
    assert!(!last.is_null(), "what was measured was a failure");
}

/// By the same calls, where a contiguous region was set aside.
fn contiguous(meter: &mut Meter) {
    assert!(mm::kernel().contiguous().is_some(), "no contiguous region: cma= is missing");
    coherent(meter, AllocationFlags::KERNEL, 4 * KIB);
}

fn beside(meter: &mut Meter, count: usize) {
    let _live = live_areas(count, 4 * KIB);
    allocate_free(meter, vmalloc, 4 * KIB);
}

/// 20,000 areas of a page, of which every second is freed again.
fn fragmented(meter: &mut Meter, bytes: u32) {
    for area in live_areas(20_000, 4 * KIB).chunks(2) {
        free(vfree, area[0]);
    }
    allocate_free(meter, vmalloc, bytes);
}

/// Numbers that look like chance and are the same in every run (Marsaglia's xorshift).
struct Chance(u32);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % limit
    }

    /// A size in bytes, of 1 to `most` pages.
    fn size(&mut self, most: usize) -> u32 {
        (0..=self.below(most)).map(|_| PAGE_SIZE).sum()
    }
}

/// One area of many, picked by chance, is freed, and one of another size allocated.
fn random(meter: &mut Meter, count: usize, most: usize) {
    let mut chance = Chance(0x2545_f491);
    let mut areas: Vec<*const c_void> =
        (0..count).map(|_| live(vmalloc, chance.size(most))).collect();
    let steps: Vec<(usize, u32)> =
        (0..meter.operations()).map(|_| (chance.below(count), chance.size(most))).collect();
    let (vmalloc, vfree) = (black_box(vmalloc as Allocate), vfree_pointer());
    meter.measure(|number| {
        let (which, bytes) = steps[number];
        free(vfree, areas[which]);
        areas[which] = vmalloc(bytes);
    });
    assert!(areas.iter().all(|area| !area.is_null()), "what was measured was a failure");
}

fn find(meter: &mut Meter) {
    let areas = live_areas(10_000, 4 * KIB);
    let mut chance = Chance(0x2545_f491);
    let wanted: Vec<*const c_void> =
        (0..meter.operations()).map(|_| areas[chance.below(areas.len())]).collect();
    let find_vm_area = black_box(find_vm_area as extern "C" fn(*const c_void) -> *const VmStruct);
    let mut found = true;
    meter.measure(|number| found &= !find_vm_area(wanted[number]).is_null());
    assert!(found, "what was measured was a failure");
}

fn page_behind(meter: &mut Meter) {
    let area = live(vmalloc, 4 * KIB);
    let vmalloc_to_page =
        black_box(vmalloc_to_page as extern "C" fn(*const c_void) -> *const Frame);
    let mut page: *const Frame = ptr::null();
    meter.measure(|_| page = vmalloc_to_page(area));
    assert!(!page.is_null(), "what was measured was a failure");
}

fn pages(meter: &mut Meter, order: c_uint) {
    let alloc_pages =
        black_box(alloc_pages as extern "C" fn(AllocationFlags, c_uint) -> *const Frame);
    let free_pages = black_box(__free_pages as unsafe extern "C" fn(*const Frame, c_uint));
    let mut page: *const Frame = ptr::null();
    meter.measure(|_| {
        page = alloc_pages(AllocationFlags::KERNEL, order);
        // SAFETY: nobody uses the pages.
        unsafe { free_pages(page, order) };
    });
    assert!(!page.is_null(), "what was measured was a failure");
}
