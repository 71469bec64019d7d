//! Memory of the kernel's in windows of programs: what vmalloc made for them (S31, S43 to S46), and coherent buffers (S78).

extern crate alloc;

use alloc::vec;
use core::ffi::c_void;
use core::ptr;

use arch::exception::Access;
use dma::coherent::{Coherent, CoherentBox};
use dma::device::Device;
use image::capture::capture_log;
use image::programs;
use kerncore::addr::{DmaAddr, PAGE_SIZE, VirtAddr};
use kerncore::area::{AreaFlags, AreaKind};
use kerncore::attributes::{Attributes, MemoryType};
use kerncore::kernel_space::{RemoveError, ShareError};
use kerncore::user::{PlaceError, Protection, ShowError, windows::WindowError};
use ktest::ktest;
use linux::dma::{dma_alloc_coherent, dma_free_coherent};
use linux::errno::{EBUSY, EINVAL, ENXIO};
use linux::free::vfree;
use linux::lookup::find_vm_area;
use linux::user::{VM_RESERVED, VmAreaStruct, dma_mmap_coherent, remap_vmalloc_range};
use linux::vmalloc::{vmalloc, vmalloc_32_user, vmalloc_user};
use mm::kernel;
use mm::user::{AddressSpace, End};
use mm::user_area::UserArea;
use mm::vm_area::VmArea;

use super::user::{DATA, FORBIDDEN, NO_PAGE, TEXT, assert_killed, at, pages, program_in, space_of};
use super::user_programs as code;

/// Where the tests show things: pages in the middle of a section, so that what lies around them has a table.
pub(super) const WINDOW: u32 = 0x5008_0000;

static DEVICE: Device = Device::new("user sharing test");

fn area(count: u32) -> UserArea {
    UserArea::new(count * PAGE_SIZE).expect("memory")
}

/// A space with a window of `count` pages that waits for memory.
pub(super) fn waiting(text: &[u8], count: u32) -> AddressSpace {
    let space = space_of(text);
    space.reserve(pages(WINDOW, count), Protection::ReadWrite).expect("free addresses");
    space
}

/// Runs the program in `space` to its end, and gives the space back.
fn run_in(space: AddressSpace, arguments: &[u32]) -> (End, AddressSpace) {
    let mut program = program_in(space, arguments);
    let end = program.run(programs::answer);
    (end, program.into_space())
}

/// S31: zeroed whatever the frames held, and tagged.
#[ktest]
fn memory_for_programs_is_zeroed_and_tagged_s31() {
    let mut soiled = VmArea::new(8 * PAGE_SIZE).expect("memory");
    soiled.fill(0xa5);
    drop(soiled);
    for make in [vmalloc_user, vmalloc_32_user] {
        let memory = make(8 * PAGE_SIZE);
        // SAFETY: it was given just now, and has so many bytes.
        let bytes =
            unsafe { core::slice::from_raw_parts(memory.cast::<u8>(), 8 * PAGE_SIZE as usize) };
        assert!(bytes.iter().all(|&byte| byte == 0));
        // SAFETY: the area lives.
        let flags = unsafe { (*find_vm_area(memory)).flags() };
        assert_eq!(flags, AreaKind::Vmalloc.flags().with(AreaFlags::USERMAP));
        // SAFETY: nobody uses it.
        unsafe { vfree(memory) };
        assert!(make(0).is_null());
        assert!(make(u32::MAX).is_null());
    }
}

/// S43, S118: a program writes what the kernel reads, and reads what the kernel writes.
#[ktest]
fn a_program_and_the_kernel_see_one_memory_s43() {
    let shared = area(3);
    let space = waiting(code::fills(), 2);
    shared.show(&space, at(WINDOW), 1).expect("it fits");
    let promised = space.attributes_at(at(WINDOW)).expect("mapped");
    assert_eq!(promised.memory(), Attributes::KERNEL_DATA.memory());
    let words = 2 * PAGE_SIZE / 4;
    let (end, space) = run_in(space, &[WINDOW, 0x1234_5678, words]);
    assert_eq!(end, End::Exited(0));
    let mut seen = vec![0; 3 * PAGE_SIZE as usize];
    assert_eq!(shared.read(0, &mut seen), seen.len());
    let (before, shown) = seen.split_at(PAGE_SIZE as usize);
    assert!(before.iter().all(|&byte| byte == 0), "a page before the window");
    assert!(shown.chunks(4).all(|word| word == 0x1234_5678_u32.to_le_bytes()));
    assert_eq!(shared.write(2 * PAGE_SIZE as usize + 8, &77_u32.to_le_bytes()), 4);
    let mut found = [0; 4];
    space.copy_from(&mut found, at(WINDOW + PAGE_SIZE + 8)).expect("its own");
    assert_eq!(u32::from_le_bytes(found), 77);
    drop(space);
}

/// S44: one byte past the end, and one before the beginning, is nobody's; what may only be read is only read.
#[ktest]
fn a_program_reaches_nothing_around_its_window_s44() {
    let shared = area(4);
    let shows = |text, protection, arguments: &[u32]| {
        let space = space_of(text);
        space.reserve(pages(WINDOW, 2), protection).expect("free addresses");
        shared.show(&space, at(WINDOW), 1).expect("it fits");
        run_in(space, arguments).0
    };
    let (last, end) = (WINDOW + 2 * PAGE_SIZE - 4, WINDOW + 2 * PAGE_SIZE);
    let both = Protection::ReadWrite;
    assert_eq!(shows(code::stores(), both, &[last, 1]), End::Exited(0));
    let beyond = shows(code::stores(), both, &[end, 1]);
    assert_killed(beyond, NO_PAGE, Access::Write, end, TEXT);
    let beyond = shows(code::loads(), both, &[end]);
    assert_killed(beyond, NO_PAGE, Access::Read, end, TEXT);
    let before = shows(code::loads(), both, &[WINDOW - 4]);
    assert_killed(before, NO_PAGE, Access::Read, WINDOW - 4, TEXT);
    let written = shows(code::stores(), Protection::ReadOnly, &[WINDOW, 1]);
    assert_killed(written, FORBIDDEN, Access::Write, WINDOW, TEXT);
    let executed = shows(code::jumps(), both, &[WINDOW]);
    assert_killed(executed, FORBIDDEN, Access::Execute, WINDOW, WINDOW);
    let mut seen = vec![0; 4 * PAGE_SIZE as usize];
    shared.read(0, &mut seen);
    assert_eq!(seen.iter().filter(|&&byte| byte != 0).count(), 1, "one store succeeded");
}

/// S43, S44: every refusal names its reason, and maps nothing.
#[ktest]
fn what_is_not_for_programs_or_does_not_fit_is_refused_s43_s44() {
    let shared = area(4);
    let plain = VmArea::new(4 * PAGE_SIZE).expect("memory");
    let device = CoherentBox::new(&DEVICE, 4 * PAGE_SIZE).expect("memory").share();
    let space = waiting(code::exits(), 2);
    let refused = |base: VirtAddr, offset| {
        let shown = space.show_vmalloc(at(WINDOW), base, offset);
        assert!(space.attributes_at(at(WINDOW)).is_none(), "nothing is mapped");
        match shown {
            Err(ShowError::Share(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let base = shared.address();
    let inside = |offset| base.checked_add(offset).expect("below the top");
    let [odd, second, guard] = [1, PAGE_SIZE, 4 * PAGE_SIZE].map(inside);
    assert_eq!(refused(odd, 0), ShareError::Misaligned { address: odd });
    assert_eq!(refused(second, 0), ShareError::Unknown { address: second });
    assert_eq!(refused(guard, 0), ShareError::Unknown { address: guard });
    assert_eq!(refused(at(DATA), 0), ShareError::Unknown { address: at(DATA) });
    let not_for = |address, found| ShareError::NotForUsers { address, found };
    assert_eq!(refused(plain.address(), 0), not_for(plain.address(), AreaKind::Vmalloc));
    assert_eq!(refused(device.address(), 0), not_for(device.address(), AreaKind::Dma));
    // 0x10_0000 pages are 4 GiB, whose bytes do not fit 32 bits: shifted, they would be nothing.
    for offset in [3, 4, 0x10_0000, 0xf_ffff, u32::MAX, u32::MAX - 1] {
        assert_eq!(refused(base, offset), ShareError::Outside { area: 4, offset, window: 2 });
    }
    let nothing = space.reserve(pages(WINDOW + 0x10_0000, 0), Protection::ReadOnly);
    assert_eq!(nothing, Err(PlaceError::Window(WindowError::Empty)), "a window of nothing");
    assert_eq!(kernel().find(base).map(|area| area.users), Some(0), "nobody was counted");
    assert_eq!(shared.show(&space, at(WINDOW), 2), Ok(()));
    let again = shared.show(&space, at(WINDOW), 0);
    assert_eq!(again, Err(ShowError::InUse { address: at(WINDOW) }));
    drop(space);
}

/// S46: while a program sees it, it is not freed, by whatever name; when the window ends, or the program, it is.
#[ktest]
fn what_a_program_sees_is_not_freed_under_it_s46() {
    let memory = vmalloc_user(2 * PAGE_SIZE);
    let base = kernel().find_containing(address_of(memory)).expect("live").pages.start();
    let [one, two] = [1, 2].map(|_| waiting(code::loads(), 2));
    for space in [&one, &two] {
        space.show_vmalloc(at(WINDOW), base, 0).expect("it fits");
    }
    let refused = |users: u16| {
        // SAFETY: it is refused, by what is tested here.
        let authority = unsafe { arch::machine::Authority::claim() };
        assert_eq!(
            kernel().vfree(authority, base),
            Err(RemoveError::InUse { address: base, users })
        );
    };
    refused(2);
    let ((), log) = capture_log(|| {
        // SAFETY: as above.
        unsafe { vfree(memory) };
    });
    assert!(log.text().contains("vfree: the area at"), "{log:?}");
    one.unmap(at(WINDOW)).expect("a window");
    refused(1);
    let (end, two) = run_in(two, &[WINDOW + PAGE_SIZE]);
    assert_eq!(end, End::Exited(0), "it is still there");
    drop(two);
    // SAFETY: nobody sees it any more.
    unsafe { vfree(memory) };
    assert_eq!(kernel().find(base), None);
}

fn address_of<T>(pointer: *const T) -> VirtAddr {
    VirtAddr::new(u32::try_from(pointer.addr()).expect("32 bits"))
}

/// The first `count` pages of that window, as a C caller describes them.
pub(super) fn window(space: &AddressSpace, count: u32, vm_pgoff: u32) -> VmAreaStruct {
    let vm_end = at(WINDOW + count * PAGE_SIZE);
    VmAreaStruct { vm_mm: space, vm_start: at(WINDOW), vm_end, vm_pgoff, vm_flags: 0 }
}

/// The same by its Linux name: numbers in place of reasons.
#[ktest]
fn remap_vmalloc_range_answers_in_numbers_s43_s45() {
    let memory = vmalloc_user(3 * PAGE_SIZE);
    let plain = vmalloc(3 * PAGE_SIZE);
    let space = waiting(code::loads(), 2);
    let remap = |vma: &mut VmAreaStruct, addr: *const c_void, offset| {
        // SAFETY: the window and its space live.
        unsafe { remap_vmalloc_range(vma, addr, offset) }
    };
    let mut vma = window(&space, 2, 0);
    assert_eq!(remap(&mut vma, plain, 0), -EINVAL);
    assert_eq!(remap(&mut vma, memory, 2), -EINVAL);
    assert_eq!(remap(&mut vma, memory, 0x10_0000), -EINVAL);
    assert_eq!(remap(&mut vma, memory.wrapping_byte_add(4), 0), -EINVAL);
    assert_eq!(remap(&mut window(&space, 1, 0), memory, 0), -EINVAL, "another window");
    // SAFETY: null is refused.
    assert_eq!(unsafe { remap_vmalloc_range(ptr::null_mut(), memory, 0) }, -EINVAL);
    assert_eq!(vma.vm_flags, 0);
    assert_eq!(remap(&mut vma, memory, 1), 0);
    assert_eq!(vma.vm_flags, VM_RESERVED);
    assert_eq!(remap(&mut vma, memory, 1), -EBUSY);
    drop(space);
    for memory in [memory, plain] {
        // SAFETY: nobody uses it.
        unsafe { vfree(memory) };
    }
}

/// S78: a program, the kernel and (by the type of the memory) a device see one coherent buffer.
#[ktest]
fn a_coherent_buffer_is_seen_by_a_program_s78() {
    let buffer: Coherent = CoherentBox::new(&DEVICE, 2 * PAGE_SIZE).expect("memory").share();
    let space = waiting(code::fills(), 1);
    buffer.show(&space, at(WINDOW), 1).expect("it fits");
    let promised = space.attributes_at(at(WINDOW)).expect("mapped");
    assert_eq!(promised.memory(), MemoryType::NormalNonCacheable);
    let (end, space) = run_in(space, &[WINDOW, 0xc0de, PAGE_SIZE / 4]);
    assert_eq!(end, End::Exited(0));
    let mut seen = vec![0; 2 * PAGE_SIZE as usize];
    buffer.read(&mut seen);
    let (before, shown) = seen.split_at(PAGE_SIZE as usize);
    assert!(before.iter().all(|&byte| byte == 0));
    assert!(shown.chunks(4).all(|word| word == 0xc0de_u32.to_le_bytes()));
    drop(space);
    let space = waiting(code::loads(), 1);
    buffer.show(&space, at(WINDOW), 1).expect("it fits");
    let (end, space) = run_in(space, &[WINDOW + PAGE_SIZE]);
    assert_killed(end, NO_PAGE, Access::Read, WINDOW + PAGE_SIZE, TEXT);
    drop(space);
}

/// S78: by its Linux name; what does not lie in the buffer, or cannot be shown, is `-ENXIO`, and nothing is mapped.
#[ktest]
fn dma_mmap_coherent_keeps_to_the_buffer_s78() {
    let mut handle = DmaAddr::new(0);
    let mut elsewhere = DmaAddr::new(0);
    // A size that does not fill its last page, which is mapped all the same.
    let size = 2 * PAGE_SIZE + 1;
    let [sleeping, atomic] =
        [kerncore::coherent::AllocationFlags::KERNEL, kerncore::coherent::AllocationFlags::ATOMIC];
    // SAFETY: the device lives for ever, and the handles are places for addresses.
    let buffer = unsafe { dma_alloc_coherent(&raw const DEVICE, size, &raw mut handle, sleeping) };
    // SAFETY: as above.
    let pool =
        unsafe { dma_alloc_coherent(&raw const DEVICE, PAGE_SIZE, &raw mut elsewhere, atomic) };
    let space = waiting(code::loads(), 2);
    let map = |offset, address: *const c_void, handle, size| {
        let mut vma = window(&space, 2, offset);
        // SAFETY: the device, the window and its space live.
        let answer =
            unsafe { dma_mmap_coherent(&raw const DEVICE, &raw mut vma, address, handle, size) };
        assert_eq!(vma.vm_flags == VM_RESERVED, answer == 0);
        assert_eq!(space.attributes_at(at(WINDOW)).is_some(), answer == 0);
        answer
    };
    for offset in [2, 3, 4, 0x10_0000, u32::MAX] {
        assert_eq!(map(offset, buffer, handle, size), -ENXIO, "{offset}");
        assert_eq!(map(offset, buffer, handle, u32::MAX), -ENXIO, "{offset}, and a lie");
    }
    assert_eq!(map(0, buffer, handle, PAGE_SIZE), -ENXIO, "by the caller's own word");
    assert_eq!(map(0, buffer, elsewhere, size), -ENXIO, "another's handle");
    assert_eq!(map(0, buffer.wrapping_byte_add(PAGE_SIZE as usize), handle, size), -ENXIO);
    assert_eq!(map(0, pool, elsewhere, 2 * PAGE_SIZE), -ENXIO, "the atomic pool");
    assert_eq!(map(1, buffer, handle, size), 0);
    let ((), log) = capture_log(|| {
        // SAFETY: it is refused: a program sees it.
        unsafe { dma_free_coherent(&raw const DEVICE, size, buffer, handle) };
    });
    assert!(log.text().contains("is seen by programs, in 1 windows"), "{log:?}");
    drop(space);
    // SAFETY: nobody uses them.
    unsafe { dma_free_coherent(&raw const DEVICE, size, buffer, handle) };
    // SAFETY: as above.
    unsafe { dma_free_coherent(&raw const DEVICE, PAGE_SIZE, pool, elsewhere) };
}
