//! The written order of locks, which the host's locks watch as the kernel's do in the images of tests.

use super::bed::{Bed, CALLER};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    attributes::Attributes,
    frames::FrameOwner,
    kernel_space::Fill,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The message that `act` panics with.
fn last_words(act: impl FnOnce()) -> String {
    let died = catch_unwind(AssertUnwindSafe(act)).expect_err("it went on");
    *died.downcast::<String>().expect("a message with its parts")
}

type Call = fn(&Bed, VirtAddr);

#[test]
fn what_may_sleep_is_not_called_under_the_lock_of_areas() {
    let bed = Bed::warm();
    let area = bed.vmalloc(1);
    let calls: [(&str, Call); 9] = [
        ("vmalloc", |bed, _| {
            let _area = bed.space.vmalloc(1, Fill::Uninitialised, CALLER);
        }),
        ("vmap", |bed, _| {
            let frames = [bed.space.zone().table().first()];
            let _area = bed.space.vmap(&frames, Attributes::KERNEL_DATA, CALLER);
        }),
        ("ioremap", |bed, _| {
            let _area = bed.space.ioremap(PhysAddr::new(0), 4, Attributes::DEVICE, CALLER);
        }),
        ("dma_alloc_coherent", |bed, _| {
            let _area = bed.space.coherent_alloc(PAGE_SIZE, FrameOwner::Dma, CALLER);
        }),
        ("vfree", |bed, area| {
            let _freed = bed.space.vfree((), area);
        }),
        ("vunmap", |bed, area| {
            let _freed = bed.space.vunmap((), area);
        }),
        ("iounmap", |bed, area| {
            let _freed = bed.space.iounmap((), area);
        }),
        ("dma_free_coherent", |bed, area| {
            let _freed = bed.space.coherent_free((), area, PAGE_SIZE);
        }),
        ("free_deferred", |bed, _| {
            bed.space.free_deferred();
        }),
    ];
    for (operation, call) in calls {
        let said = last_words(|| {
            bed.space.with_area(area, |_| call(&bed, area)).expect("it is there");
        });
        let wanted = format!("sleeping call under a spin lock: {operation} under areas; held: ");
        assert!(said.starts_with(&wanted), "{operation}: {said}");
    }
    bed.space.vfree((), area).expect("nothing was done to it");
}

#[test]
fn locks_are_compared_with_the_order_and_with_themselves() {
    let bed = Bed::warm();
    let area = bed.vmalloc(1);
    let said = last_words(|| {
        bed.space.with_area(area, |_| bed.space.find(area)).expect("it is there");
    });
    assert!(said.starts_with("lock held twice: areas, at "), "{said}");
    let said = last_words(|| {
        bed.space.with_area(area, |_| bed.space.table_memory().tables_made()).expect("it is there");
    });
    assert!(said.starts_with("wrong lock order: table memory under areas, at "), "{said}");
    // What comes later is taken, and what was held by those that died is given back.
    bed.space.with_area(area, |_| bed.space.zone().free_pages()).expect("it is there");
    bed.space.vfree((), area).expect("nothing was done to it");
}
