//! What C callers do with coherent buffers behind an IOMMU: attributes, cookies, windows of programs, scatter lists, listings (S79, S80,
//! S82, S83, S99).

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::{c_int, c_uint, c_void};
use core::hint::black_box;
use core::ptr;

use dma::device::Device;
use dma::listing::{self, Line, Source};
use dma::scatter::{Link, ScatterTable};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, VirtAddr, pages_for};
use kerncore::area::{AreaFlags, AreaKind};
use kerncore::attributes::MemoryType;
use kerncore::coherent::AllocationFlags;
use kerncore::dma_attributes::DmaAttributes;
use kerncore::frames::Frame;
use ktest::ktest;
use linux::dma_sgtable::{dma_get_sgtable, sg_free_table};
use linux::errno::{EINVAL, ENXIO};
use linux::iommu::{
    arm_iommu_alloc_attrs, arm_iommu_free_attrs, arm_iommu_get_sgtable, arm_iommu_mmap_attrs,
};
use linux::lookup::find_vm_area;
use linux::user::{VM_RESERVED, dma_mmap_coherent};
use mm::kernel;

use super::iommu::{Attached, BASE, BYTES, Engine};
use super::user::at;
use super::user_programs as code;
use super::user_sharing::{WINDOW, waiting, window};
use super::witness::{Books, frame_at};

static DEVICE: Device = Device::new("a listed device of scattered frames");
static SNOOPING: Device = Device::coherent("a listed snooping device");
static DETACHED: Device = Device::new("a device that nobody attached");

const NONE: c_uint = DmaAttributes::NONE.bits();
const HIDDEN: c_uint = DmaAttributes::NO_KERNEL_MAPPING.bits();
const CONTIGUOUS: c_uint = DmaAttributes::FORCE_CONTIGUOUS.bits();
const COMBINED: c_uint = DmaAttributes::WRITE_COMBINE.bits();

/// What [`arm_iommu_alloc_attrs`] gave, to be given back as it was asked for.
struct Given {
    device: &'static Device,
    memory: *mut c_void,
    dma: DmaAddr,
    bytes: u32,
    attributes: c_uint,
}

impl Given {
    /// Not the last thing that it does, so that it is the caller.
    #[inline(never)]
    fn by(device: &'static Device, bytes: u32, flags: AllocationFlags, attributes: c_uint) -> Self {
        let mut dma = DmaAddr::new(0);
        // SAFETY: a device, and a place for an address.
        let memory =
            unsafe { arm_iommu_alloc_attrs(device, bytes, &raw mut dma, flags, attributes) };
        black_box(Self { device, memory, dma, bytes, attributes })
    }

    fn new(device: &'static Device, bytes: u32, attributes: c_uint) -> Self {
        let given = Self::by(device, bytes, AllocationFlags::KERNEL, attributes);
        assert!(!given.memory.is_null(), "no memory");
        given
    }

    #[expect(clippy::cast_possible_truncation, reason = "pointers have 32 bits")]
    fn address(&self) -> VirtAddr {
        VirtAddr::new(self.memory.addr() as u32)
    }

    fn line(&self) -> Option<Line> {
        let mut found = None;
        listing::for_each_line(|line| {
            if line.dma == self.dma || line.address == self.address() {
                found = Some(*line);
            }
        });
        found
    }

    /// Shows it to a program, by what somebody says of it.
    fn map(&self, said: (*mut c_void, DmaAddr, u32), count: u32, offset: u32) -> c_int {
        let space = waiting(code::loads(), count);
        let mut vma = window(&space, count, offset);
        let (memory, dma, bytes) = said;
        // SAFETY: the device, the window and its space live.
        let answer = unsafe {
            arm_iommu_mmap_attrs(self.device, &raw mut vma, memory, dma, bytes, self.attributes)
        };
        assert_eq!(vma.vm_flags == VM_RESERVED, answer == 0);
        assert_eq!(space.attributes_at(at(WINDOW)).is_some(), answer == 0);
        answer
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        // SAFETY: nobody uses it, and no device is at work.
        unsafe {
            arm_iommu_free_attrs(self.device, self.bytes, self.memory, self.dma, self.attributes);
        }
    }
}

/// S80: who looks the area up finds its page array, by a flag that says whose it is.
#[ktest]
fn a_lookup_finds_the_page_array_of_a_scattered_buffer_s80() {
    for pages in [1, 14, 15, 1025] {
        let _attached = Attached::new(&DEVICE, BYTES);
        let given = Given::new(&DEVICE, pages * PAGE_SIZE, NONE);
        // SAFETY: the area lives.
        let area = unsafe { &*find_vm_area(given.memory) };
        assert!(area.flags().contains(AreaFlags::DMA.with(AreaFlags::USERMAP)));
        assert_eq!(area.nr_pages(), pages);
        let array = ptr::with_exposed_provenance::<*const Frame>(area.pages() as usize);
        let table = kernel().zones().table();
        for index in [0, pages / 2, pages - 1] {
            // SAFETY: the array has so many pointers.
            let page = unsafe { array.wrapping_add(index as usize).read() };
            let own = frame_at(VirtAddr::new(given.address().raw() + index * PAGE_SIZE));
            assert_eq!(table.frame_at_record(page.addr()), Some(own), "page {index} of {pages}");
        }
    }
}

/// S99: without a mapping the caller's cookie is the page array; the device reaches the memory all the same, and only the cookie frees
/// it.
#[ktest]
fn the_cookie_of_a_buffer_without_a_mapping_is_its_page_array_s99() {
    for device in [&DEVICE, &SNOOPING] {
        let attached = Attached::new(device, BYTES);
        for pages in [3, 40] {
            let given = Given::new(device, pages * PAGE_SIZE, HIDDEN);
            let line = given.line().expect("it is listed");
            assert_eq!((line.source, line.dma), (Source::Scattered, given.dma));
            assert_ne!(line.address, given.address(), "a cookie");
            let array = given.memory.cast::<*const Frame>();
            let table = kernel().zones().table();
            for index in 0..pages {
                // SAFETY: the page array has so many pointers.
                let page = unsafe { array.wrapping_add(index as usize).read() };
                let iommu = device.iommu().expect("attached");
                let seen = DmaAddr::new(given.dma.raw() + index * PAGE_SIZE);
                let physical = iommu.domain().translate(seen).expect("mapped").physical;
                assert_eq!(table.frame_at_record(page.addr()), Some(physical.pfn()));
            }
            assert_eq!(Engine(device).write(given.dma.raw(), &[1, 2]), Ok(()));
            let books = Books::now();
            let ((), log) = capture_log(|| {
                let hidden = ptr::with_exposed_provenance(line.address.raw() as usize);
                // SAFETY: refused.
                unsafe { arm_iommu_free_attrs(device, given.bytes, hidden, given.dma, NONE) };
            });
            assert!(log.text().contains("was given out by the cookie"), "{log:?}");
            books.assert_unchanged();
            assert_eq!(given.map((given.memory, given.dma, given.bytes), pages, 0), 0);
            drop(given);
            assert_eq!(attached.taken(), 0);
        }
    }
}

/// S67, S99: without a mapping a buffer goes back by its cookie. Whatever else is given is told, of each kind of device, and changes nothing.
#[ktest]
fn what_is_no_cookie_is_told_and_frees_nothing_s67_s99() {
    for device in [&DEVICE, &SNOOPING] {
        let attached = Attached::new(device, BYTES);
        for (bytes, kind) in [(100, HIDDEN), (3 * PAGE_SIZE, HIDDEN), (3 * PAGE_SIZE, NONE)] {
            let given = Given::new(device, bytes, kind);
            let (own, taken) = (given.memory.addr(), attached.taken());
            let odd = [0x10, 0x1000, own + 4, own.wrapping_sub(4096), usize::MAX];
            let odd = odd.into_iter().chain((kind == NONE).then_some(own));
            for wrong in odd {
                for dma in [given.dma, DmaAddr::new(given.dma.raw() + PAGE_SIZE)] {
                    let memory = ptr::without_provenance(wrong);
                    let ((), log) = capture_log(|| {
                        // SAFETY: refused.
                        unsafe { arm_iommu_free_attrs(device, bytes, memory, dma, HIDDEN) };
                    });
                    let told = log.text().contains("Backtrace:");
                    let name = device.name();
                    assert!(told, "{name}: {wrong:#x} of {kind:#x} was silent: {log:?}");
                    assert_eq!(attached.taken(), taken, "{name}: {wrong:#x} of {kind:#x}");
                }
            }
            let ((), log) = capture_log(|| drop(given));
            assert_eq!((log.text(), attached.taken()), ("", 0));
        }
    }
}

/// S76, S77, S79, S99: what is in one piece, and what a handler is given, is memory as for any other device, and seen by this one.
#[ktest]
fn attributes_and_context_decide_what_a_buffer_is_made_of_s99() {
    for (device, whole, atomic) in
        [(&DEVICE, Source::Remap, Source::Atomic), (&SNOOPING, Source::Direct, Source::Direct)]
    {
        let _attached = Attached::new(device, BYTES);
        let kernels = AllocationFlags::KERNEL;
        for (flags, attributes, source) in [
            (kernels, NONE, Source::Scattered),
            (kernels, COMBINED, Source::Scattered),
            (kernels, CONTIGUOUS, whole),
            (AllocationFlags::ATOMIC, NONE, atomic),
        ] {
            let given = Given::by(device, 3 * PAGE_SIZE, flags, attributes);
            assert!(!given.memory.is_null(), "{source:?}");
            let line = given.line().expect("it is listed");
            let contiguous = kernel().contiguous().is_some() && source == Source::Remap;
            let source = if contiguous { Source::Contiguous } else { source };
            assert_eq!((line.source, line.device()), (source, device.name()));
            assert_eq!(format!("{line}").contains("write_combine"), attributes == COMBINED);
            let iommu = device.iommu().expect("attached");
            for page in 0..3 {
                let seen = DmaAddr::new(given.dma.raw() + page * PAGE_SIZE);
                let physical = iommu.domain().translate(seen).expect("mapped").physical;
                let own = VirtAddr::new(given.address().raw() + page * PAGE_SIZE);
                assert_eq!(physical.pfn(), frame_at(own));
            }
            let is_scattered = source == Source::Scattered;
            let kind = kernel().find(given.address()).map(|area| area.kind);
            assert_eq!(kind == Some(AreaKind::Scattered), is_scattered);
        }
    }
    let _attached = Attached::new(&DEVICE, BYTES);
    let unknown = Given::by(&DEVICE, PAGE_SIZE, AllocationFlags::KERNEL, 1);
    assert!(unknown.memory.is_null(), "attributes that mean nothing");
    assert!(Given::by(&DETACHED, PAGE_SIZE, AllocationFlags::KERNEL, NONE).memory.is_null());
}

/// S82: offset and count are bounded by the buffer, to the page; by the caller's word, too.
#[ktest]
fn a_window_of_a_scattered_buffer_keeps_to_its_pages_s82() {
    for (device, memory) in
        [(&DEVICE, MemoryType::NormalNonCacheable), (&SNOOPING, MemoryType::NormalWriteBack)]
    {
        let _attached = Attached::new(device, BYTES);
        // The last page is not filled, and mapped all the same.
        let given = Given::new(device, 3 * PAGE_SIZE + 1, NONE);
        let own = (given.memory, given.dma, given.bytes);
        for count in 1..=6 {
            for offset in (0..=6).chain([0x10_0000, 0x3fff_ffff, u32::MAX - 1, u32::MAX]) {
                let fits = u64::from(offset) + u64::from(count) <= 4;
                let answer = given.map(own, count, offset);
                assert_eq!(answer, if fits { 0 } else { -ENXIO }, "{count} from {offset}");
                // Whatever the caller says of its size.
                let lie = given.map((given.memory, given.dma, u32::MAX), count, offset);
                assert_eq!(lie, if fits { 0 } else { -ENXIO }, "{count} from {offset}, and a lie");
            }
        }
        assert_eq!(given.map((given.memory, given.dma, PAGE_SIZE), 2, 0), -ENXIO, "its own word");
        let next = DmaAddr::new(given.dma.raw() + PAGE_SIZE);
        let second = given.memory.wrapping_byte_add(PAGE_SIZE as usize);
        for (memory, dma) in [
            (given.memory, next),
            (second, given.dma),
            (second, next),
            (ptr::null_mut(), given.dma),
        ] {
            assert_eq!(given.map((memory, dma, given.bytes), 1, 0), -ENXIO, "unknown");
        }
        // What a program sees there.
        assert_eq!(Engine(device).write(given.dma.raw() + 2 * PAGE_SIZE, &[1, 2, 3, 4]), Ok(()));
        let space = waiting(code::loads(), 2);
        let mut vma = window(&space, 2, 1);
        // SAFETY: the device, the window and its space live.
        let answer = unsafe {
            dma_mmap_coherent(device, &raw mut vma, given.memory, given.dma, given.bytes)
        };
        assert_eq!(answer, 0, "by the ordinary name");
        let promised = space.attributes_at(at(WINDOW)).expect("mapped");
        assert_eq!(promised.memory(), memory);
        let mut seen = [0; 4];
        space.copy_from(&mut seen, at(WINDOW + PAGE_SIZE)).expect("its own");
        assert_eq!(seen, [1, 2, 3, 4]);
        // S46: while it is seen it stays.
        let books = Books::now();
        let ((), log) = capture_log(|| {
            // SAFETY: refused.
            unsafe { arm_iommu_free_attrs(device, given.bytes, given.memory, given.dma, NONE) };
        });
        assert!(log.text().contains("is seen by programs, in 1 windows"), "{log:?}");
        books.assert_unchanged();
        drop(space);
    }
}

/// The pages that a list names, one by one.
fn pages_of(table: &ScatterTable) -> Vec<u32> {
    let frames = kernel().zones().table();
    let mut pages = Vec::new();
    for index in 0..table.nents as usize {
        // SAFETY: the list has so many entries, one behind the other.
        let entry = unsafe { &*table.sgl.wrapping_add(index) };
        let Link::Page(page) = entry.link() else { panic!("a chain") };
        let first = frames.frame_at_record(page as usize).expect("a page of RAM");
        let count = entry.length / PAGE_SIZE;
        assert_eq!((entry.offset, entry.length % PAGE_SIZE), (0, 0));
        pages.extend(first.number()..first.number() + count);
    }
    pages
}

/// S82, S99: the list has the pages of the page array, in their order, as many as were asked for.
#[ktest]
fn the_scatter_list_of_a_scattered_buffer_has_its_pages_s82() {
    for device in [&DEVICE, &SNOOPING] {
        let _attached = Attached::new(device, BYTES);
        let given = Given::new(device, 21 * PAGE_SIZE - 7, NONE);
        let own: Vec<u32> = (0..21)
            .map(|index| VirtAddr::new(given.address().raw() + index * PAGE_SIZE))
            .map(|page| frame_at(page).number())
            .collect();
        let list = |memory, dma, size| {
            let mut table = ScatterTable::NONE;
            // SAFETY: the device lives, and there is a place for a table.
            let answer =
                unsafe { arm_iommu_get_sgtable(device, &raw mut table, memory, dma, size, NONE) };
            (answer, table)
        };
        for size in [1, PAGE_SIZE, 4097, 16 * PAGE_SIZE, 17 * PAGE_SIZE, given.bytes] {
            let (answer, mut table) = list(given.memory, given.dma, size);
            assert_eq!(answer, 0, "{size}");
            assert_eq!(pages_of(&table), own[..pages_for(size) as usize], "{size}");
            assert_eq!(table.nents, table.orig_nents);
            // SAFETY: made above.
            unsafe { sg_free_table(&raw mut table) };
        }
        let books = Books::now();
        let next = DmaAddr::new(given.dma.raw() + PAGE_SIZE);
        let second = given.memory.wrapping_byte_add(PAGE_SIZE as usize);
        for (memory, dma, size, answer) in [
            (given.memory, given.dma, 0, -EINVAL),
            (given.memory, given.dma, 21 * PAGE_SIZE + 1, -ENXIO),
            (given.memory, given.dma, u32::MAX, -ENXIO),
            (given.memory, next, PAGE_SIZE, -ENXIO),
            (second, next, PAGE_SIZE, -ENXIO),
            (second, given.dma, PAGE_SIZE, -ENXIO),
            (ptr::null_mut(), given.dma, PAGE_SIZE, -ENXIO),
        ] {
            assert_eq!(list(memory, dma, size).0, answer, "{size} at {dma}");
        }
        books.assert_unchanged();
        let mut table = ScatterTable::NONE;
        // SAFETY: as above.
        let answer = unsafe {
            dma_get_sgtable(device, &raw mut table, given.memory, given.dma, given.bytes)
        };
        assert_eq!((answer, pages_of(&table)), (0, own), "by the ordinary name");
        // SAFETY: made above.
        unsafe { sg_free_table(&raw mut table) };
    }
}

/// S64, S83: the listing says where the device sees it, where its first frame is, who asked and for which device.
#[ktest]
fn the_listing_shows_a_scattered_buffer_by_its_device_address_s83() {
    let _attached = Attached::new(&DEVICE, BYTES);
    let before = listing::for_each_line(|_| ()).of(Source::Scattered);
    let given = Given::new(&DEVICE, 20 * PAGE_SIZE, COMBINED);
    let line = given.line().expect("it is listed");
    let physical = frame_at(given.address()).base();
    assert_eq!((line.dma, line.physical, line.bytes), (BASE, physical, 20 * PAGE_SIZE));
    let mut text = String::new();
    monitor::execute("dma", &mut text).expect("a command");
    let (start, end) = (given.address().raw(), given.address().raw() + given.bytes);
    let wanted =
        format!("{start:#010x}-{end:#010x}     81920 scattered dma={BASE} phys={physical} ");
    let shown = text.lines().find(|shown| shown.starts_with(&wanted));
    let shown = shown.unwrap_or_else(|| panic!("{wanted} is not in\n{text}"));
    assert!(shown.contains("for \"a listed device of scattered frames\""), "{shown}");
    assert!(shown.ends_with(" write_combine"), "{shown}");
    let called = kernel().find(given.address()).expect("live").caller;
    assert_eq!(line.holder.caller, called);
    let by: fn(&'static Device, u32, AllocationFlags, c_uint) -> Given = Given::by;
    #[expect(clippy::cast_possible_truncation, reason = "pointers have 32 bits")]
    let begins = by as usize as u32 & !1;
    assert!((begins..begins + 0x400).contains(&called.raw()), "the caller is who called: {called}");
    let after = listing::for_each_line(|_| ()).of(Source::Scattered);
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, 20));
    drop(given);
    assert_eq!(listing::for_each_line(|_| ()).of(Source::Scattered), before);
}
