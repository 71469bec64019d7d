//! The written order of locks: each way to break it ends the kernel with the names of all concerned, and what keeps to it
//! goes on. The images of tests alone watch it.

extern crate alloc;

use alloc::boxed::Box;

use arch::irq;
use arch::lock::IrqSpinLock;
use board::vexpress_a9;
use dma::coherent::CoherentBox;
use dma::device::Device;
use kerncore::addr::{PAGE_SIZE, PageRange, VirtAddr};
use kerncore::attributes::Attributes;
use kerncore::coherent::AllocationFlags;
use kerncore::lock::Class;
use kerncore::user::Protection;
use ktest::ktest;
use linux::objects::{kfree, kvmalloc};
use mm::io_mem::IoMem;
use mm::page_alloc::Pages;
use mm::user::{AddressSpace, Program};
use mm::user_area::UserArea;
use mm::vm_area::VmArea;

use super::interrupts::in_handler;

/// Two locks of a test, the first to be taken outside the second.
fn outer_and_inner() -> (IrqSpinLock<u32>, IrqSpinLock<u32>) {
    (IrqSpinLock::new(Class::Test(1), 0), IrqSpinLock::new(Class::Test(2), 0))
}

/// Runs `section` under the kernel's lock of areas.
fn under_the_lock_of_areas<R>(section: impl FnOnce() -> R) -> R {
    let area = VmArea::new(1).expect("memory for one page");
    mm::kernel().with_area(area.address(), |_| section()).expect("it is there")
}

#[ktest(fatal = "wrong lock order: test 1 under test 2, at tests/kernel/src/suites/lock_order.rs:")]
fn a_wrong_order_ends_the_kernel_though_nobody_waits() {
    let (outer, inner) = outer_and_inner();
    inner.with(|_| outer.with(|_| ()));
}

#[ktest(fatal = "lock held twice: test 1, at tests/kernel/src/suites/lock_order.rs:")]
fn a_lock_held_twice_ends_the_kernel_and_does_not_hang_it() {
    let (outer, _) = outer_and_inner();
    outer.with(|_| outer.with(|_| ()));
}

#[ktest(fatal = "two locks of one class: test 1, at tests/kernel/src/suites/lock_order.rs:")]
fn two_locks_of_one_class_end_the_kernel() {
    let ((one, _), (other, _)) = (outer_and_inner(), outer_and_inner());
    one.with(|_| other.with(|_| ()));
}

#[ktest(fatal = "interrupts unmasked under a lock: test 1")]
fn a_section_that_unmasks_interrupts_ends_the_kernel() {
    let (outer, _) = outer_and_inner();
    // SAFETY: none: this is the mistake that must not go unnoticed. No source of interrupts is enabled.
    outer.with(|_| unsafe { irq::unmask() });
}

#[ktest(fatal = "; CPU 0 holds: areas (taken at kernel/kerncore/src/kernel_space/mod.rs:")]
fn the_heap_is_not_asked_under_the_lock_of_areas() {
    drop(under_the_lock_of_areas(|| Box::new(core::hint::black_box([1_u8; 40]))));
}

#[ktest(fatal = "wrong lock order: log capture under areas, at kernel/image/src/capture.rs:")]
fn nothing_is_logged_under_the_lock_of_areas() {
    under_the_lock_of_areas(|| log::info!("one line too early"));
}

#[ktest(fatal = "lock held twice: areas, at kernel/kerncore/src/kernel_space/mod.rs:")]
fn no_area_is_looked_up_under_the_lock_of_areas() {
    under_the_lock_of_areas(|| mm::kernel().find(VirtAddr::new(0xc000_0000)));
}

/// However many descriptors wait for their owners, an object's free does not look through them.
#[ktest(fatal = "wrong lock order: heap under areas, at kernel/mm/src/heap.rs:")]
fn an_objects_free_asks_the_heap_and_not_the_areas_s86() {
    let object = kvmalloc(100, AllocationFlags::KERNEL);
    // SAFETY: nobody uses it.
    under_the_lock_of_areas(|| unsafe { kfree(object) });
}

/// Runs `operation` under a lock of a test: the last word of a test of what may sleep.
fn under_a_lock<R>(operation: impl FnOnce() -> R) -> R {
    IrqSpinLock::new(Class::Test(1), ()).with(|()| operation())
}

#[ktest(fatal = "sleeping call under a spin lock: vmalloc under test 1")]
fn vmalloc_under_a_lock_ends_the_kernel() {
    drop(under_a_lock(|| VmArea::new(1)));
}

#[ktest(fatal = "sleeping call under a spin lock: vfree under test 1")]
fn vfree_under_a_lock_ends_the_kernel() {
    let area = VmArea::new(1).expect("memory for one page");
    under_a_lock(|| drop(area));
}

#[ktest(fatal = "sleeping call under a spin lock: vmap under test 1")]
fn vmap_under_a_lock_ends_the_kernel() {
    let page = Pages::new(0).expect("one frame");
    let frames = [page.frames().next().expect("one frame")];
    let mapped =
        under_a_lock(|| mm::kernel().vmap(&frames, Attributes::KERNEL_RODATA, VirtAddr::new(0)));
    assert!(mapped.is_err(), "it was mapped");
}

#[ktest(fatal = "sleeping call under a spin lock: vm_map_ram under test 1")]
fn vm_map_ram_under_a_lock_ends_the_kernel() {
    let mapped = under_a_lock(|| mm::kernel().map_ram(&[], VirtAddr::new(0)));
    assert!(mapped.is_err(), "nothing was mapped");
}

/// Also for a device that snoops, whose memory is neither mapped nor unmapped.
#[ktest(fatal = "sleeping call under a spin lock: dma_alloc_coherent under test 1")]
fn coherent_memory_for_a_snooping_device_under_a_lock_ends_the_kernel() {
    static SNOOPING: Device = Device::coherent("a snooping device under a lock");
    drop(under_a_lock(|| CoherentBox::new(&SNOOPING, 1)));
}

#[ktest(fatal = "sleeping call under a spin lock: vunmap under test 1")]
fn vunmap_under_a_lock_ends_the_kernel() {
    let mapped = VmArea::map(alloc::vec![Pages::new(0).expect("one frame")]);
    let mapped = mapped.expect("addresses for one page");
    drop(under_a_lock(|| mapped.unmap()));
}

/// Registers that nobody minds being mapped.
fn registers() -> IoMem<[u32; 4]> {
    IoMem::map(vexpress_a9::UARTS[3].base).expect("addresses for one page")
}

#[ktest(fatal = "sleeping call under a spin lock: ioremap under test 1")]
fn ioremap_under_a_lock_ends_the_kernel() {
    drop(under_a_lock(registers));
}

#[ktest(fatal = "sleeping call under a spin lock: iounmap under test 1")]
fn iounmap_under_a_lock_ends_the_kernel() {
    let registers = registers();
    under_a_lock(|| drop(registers));
}

/// Where windows of these tests begin.
const USER: VirtAddr = VirtAddr::new(0x0010_0000);

/// A page of user memory.
fn user_page() -> AddressSpace {
    let space = AddressSpace::new().expect("memory for a table");
    space.map_data(page_of_user(), Protection::ReadWrite).expect("memory for a page");
    space
}

fn page_of_user() -> PageRange {
    PageRange::new(USER, 1).expect("one page")
}

#[ktest(fatal = "sleeping call under a spin lock: copy_to_user under test 1")]
fn a_copy_to_user_memory_under_a_lock_ends_the_kernel() {
    let space = user_page();
    let copied = under_a_lock(|| space.copy_to(USER, &[1]));
    assert!(copied.is_err(), "it was copied");
}

#[ktest(fatal = "sleeping call in interrupt context: copy_from_user")]
fn a_copy_from_user_memory_in_a_handler_ends_the_kernel() {
    static SPACE: IrqSpinLock<Option<AddressSpace>> = IrqSpinLock::new(Class::OuterTest(0), None);
    let space = user_page();
    SPACE.with(|slot| *slot = Some(space));
    in_handler(|| {
        let space = SPACE.with(Option::take).expect("put there above");
        let copied = space.copy_from(&mut [0], USER);
        assert!(copied.is_err(), "it was copied");
    });
}

#[ktest(fatal = "sleeping call under a spin lock: mapping user memory under test 1")]
fn mapping_user_memory_under_a_lock_ends_the_kernel() {
    let space = AddressSpace::new().expect("memory for a table");
    let mapped = under_a_lock(|| space.map_data(page_of_user(), Protection::ReadWrite));
    assert!(mapped.is_err(), "it was mapped");
}

#[ktest(fatal = "sleeping call under a spin lock: unmapping user memory under test 1")]
fn unmapping_user_memory_under_a_lock_ends_the_kernel() {
    let space = user_page();
    let unmapped = under_a_lock(|| space.unmap(USER));
    assert!(unmapped.is_err(), "it was unmapped");
}

#[ktest(fatal = "sleeping call under a spin lock: showing memory to a program under test 1")]
fn showing_memory_under_a_lock_ends_the_kernel() {
    let space = AddressSpace::new().expect("memory for a table");
    space.reserve(page_of_user(), Protection::ReadOnly).expect("free addresses");
    let area = UserArea::new(PAGE_SIZE).expect("memory for one page");
    let shown = under_a_lock(|| area.show(&space, USER, 0));
    assert!(shown.is_err(), "it was shown");
}

#[ktest(fatal = "sleeping call under a spin lock: making an address space under test 1")]
fn making_an_address_space_under_a_lock_ends_the_kernel() {
    assert!(under_a_lock(AddressSpace::new).is_err(), "it was made");
}

/// With nothing in it, too.
#[ktest(fatal = "sleeping call under a spin lock: ending an address space under test 1")]
fn ending_an_address_space_under_a_lock_ends_the_kernel() {
    let space = AddressSpace::new().expect("memory for a table");
    under_a_lock(|| drop(space));
}

#[ktest(fatal = "sleeping call under a spin lock: running a program under test 1")]
fn running_a_program_under_a_lock_ends_the_kernel() {
    let mut program = Program::new(user_page(), USER, USER);
    assert!(under_a_lock(|| program.resume()).is_err(), "it called");
}

static DEVICE: Device = Device::new("locked");

#[ktest(fatal = "sleeping call under a spin lock: dma_alloc_coherent under test 1")]
fn a_waiting_dma_alloc_coherent_under_a_lock_ends_the_kernel() {
    drop(under_a_lock(|| CoherentBox::new(&DEVICE, 1)));
}

#[ktest(fatal = "sleeping call under a spin lock: dma_free_coherent under test 1")]
fn a_free_of_a_remapped_buffer_under_a_lock_ends_the_kernel() {
    let buffer = CoherentBox::new(&DEVICE, 1).expect("memory for one page");
    under_a_lock(|| drop(buffer));
}

/// What is said of areas themselves is in `interrupts.rs`.
#[ktest(fatal = "sleeping call in interrupt context: dma_alloc_coherent; CPU 0 holds: none")]
fn a_waiting_dma_alloc_coherent_in_a_handler_ends_the_kernel() {
    static SNOOPING: Device = Device::coherent("snooping");
    in_handler(|| drop(CoherentBox::new(&SNOOPING, 1)));
}

/// S77: who may not sleep takes from the atomic pool and gives back to it, under any lock.
#[ktest]
fn a_buffer_of_the_atomic_pool_is_taken_and_given_back_under_a_lock() {
    under_the_lock_of_areas(|| {
        let buffer = CoherentBox::new_atomic(&DEVICE, PAGE_SIZE).expect("a page of the pool");
        drop(buffer);
    });
}

#[ktest]
fn locks_are_taken_in_their_order_again_and_again() {
    let (outer, inner) = outer_and_inner();
    for _ in 0..100 {
        outer.with(|count| {
            inner.with(|other| *other += 1);
            *count += 1;
        });
        inner.with(|other| *other += 1);
    }
    assert_eq!((outer.with(|count| *count), inner.with(|count| *count)), (100, 200));
}

/// A report of a fault tries the lock that the fault happened under.
#[ktest]
fn who_does_not_wait_may_ask_in_any_order() {
    let (outer, inner) = outer_and_inner();
    inner.with(|_| {
        assert_eq!(outer.try_with(|value| *value), Some(0));
        assert_eq!(inner.try_with(|value| *value), None);
    });
    outer.with(|_| inner.with(|_| ()));
}

/// S15: a report of a fault that happened while somebody looked names the area all the same.
#[ktest]
fn under_a_lookup_areas_can_be_tried_to_be_looked_at_s15() {
    let area = VmArea::new(1).expect("memory for one page");
    let looked = mm::kernel().with_area(area.address(), |record| {
        let nearest = mm::kernel().nearest_area(area.address()).expect("nobody changes anything");
        assert_eq!(nearest.map(|nearest| nearest.pages), Some(area.pages()));
        record.vm.addr()
    });
    assert_eq!(looked, Some(area.address()));
}

/// What was had without waiting counts for what is waited for under it.
#[ktest(fatal = "wrong lock order: test 1 under test 2, at tests/kernel/src/suites/lock_order.rs:")]
fn a_lock_that_was_tried_has_its_place_in_the_order() {
    let (outer, inner) = outer_and_inner();
    inner.try_with(|_| outer.with(|_| ()));
}

/// A lock in memory that is about to go.
fn lock_at(memory: *mut u8) -> &'static IrqSpinLock<u32> {
    let place: *mut IrqSpinLock<u32> = memory.cast();
    // SAFETY: the callers name memory of their own, a page or more, aligned to a page; nobody looks at the lock when that has
    // gone, for the kernel ends before, or the section is over.
    unsafe { place.write(IrqSpinLock::new(Class::OuterTest(0), 0)) };
    // SAFETY: as above.
    unsafe { &*place }
}

#[ktest(fatal = "memory is freed with a held lock in it: outer test 0")]
fn an_area_does_not_go_with_a_held_lock_in_it_s36() {
    let mut area = VmArea::new(3 * PAGE_SIZE).expect("memory");
    let lock = lock_at(area[PAGE_SIZE as usize..].as_mut_ptr());
    lock.with(|_| area.free_later());
}

#[ktest(fatal = "memory is freed with a held lock in it: outer test 0")]
fn pages_do_not_go_with_a_held_lock_in_them_s36() {
    let mut pages = Pages::new(1).expect("memory");
    let lock = lock_at(pages[PAGE_SIZE as usize..].as_mut_ptr());
    lock.with(|_| drop(pages));
}

#[ktest(fatal = "memory is freed with a held lock in it: outer test 0")]
fn bytes_of_the_heap_do_not_go_with_a_held_lock_in_them_s36() {
    let lock = Box::into_raw(Box::new(IrqSpinLock::new(Class::OuterTest(0), 0)));
    // SAFETY: made just now, and the kernel ends before it goes.
    let held = unsafe { &*lock };
    // SAFETY: of the box above, once.
    held.with(|_| drop(unsafe { Box::from_raw(lock) }));
}

/// Locks that are not held, or lie elsewhere, are nobody's concern.
#[ktest]
fn memory_goes_with_locks_that_nobody_holds_s36() {
    let elsewhere = IrqSpinLock::new(Class::OuterTest(1), ());
    let mut area = VmArea::new(PAGE_SIZE).expect("memory");
    let mut pages = Pages::new(0).expect("memory");
    for lock in [lock_at(area.as_mut_ptr()), lock_at(pages.as_mut_ptr())] {
        lock.with(|count| *count += 1);
    }
    elsewhere.with(|()| {
        area.free_later();
        drop(pages);
    });
}
