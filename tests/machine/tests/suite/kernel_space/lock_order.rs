//! The written order of locks, which the host's locks watch as the kernel's do in the images of tests.

use super::bed::{Bed, CALLER};
use kerncore::{
    addr::{PAGE_SIZE, PhysAddr, VirtAddr},
    attributes::Attributes,
    frames::FrameOwner,
    kernel_space::Fill,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

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
    let calls: [(&str, Call); 11] = [
        ("vmalloc", |bed, _| {
            let _area = bed.space.vmalloc(1, Fill::Uninitialised, CALLER);
        }),
        ("vmap", |bed, _| {
            let frames = [bed.space.zones().table().first()];
            let _area = bed.space.vmap(&frames, Attributes::KERNEL_DATA, CALLER);
        }),
        ("vm_map_ram", |bed, _| {
            let _mapped = bed.space.map_ram(&[], CALLER);
        }),
        ("vm_unmap_ram", |bed, area| {
            let _ended = bed.space.unmap_ram((), area, 1);
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
    bed.space.with_area(area, |_| bed.space.zones().free_pages()).expect("it is there");
    bed.space.vfree((), area).expect("nothing was done to it");
}

/// S15: those who look do so at once; who changes something waits for all of them, and they for him.
#[test]
fn lookups_share_the_lock_of_areas_and_changes_do_not_s15() {
    let bed = Bed::warm();
    let (area, next) = (bed.vmalloc(1), bed.vmalloc(1));
    let freed = AtomicBool::new(false);
    thread::scope(|scope| {
        let looked = bed.space.with_area(area, |record| {
            // Each of these would wait for ever if this thread had the lock alone.
            let lookups = || {
                assert!(bed.space.find(area).is_some());
                assert!(bed.space.find_containing(next).is_some());
                assert!(bed.space.next_area(next).is_some());
                assert!(bed.space.with_area(next, |_| ()).is_some());
                assert!(bed.space.nearest_area(area).is_ok());
                assert!(bed.space.area_counts().areas >= 2);
                assert!(bed.space.check_books().is_ok());
            };
            let lookups = scope.spawn(lookups);
            let begun = Instant::now();
            while !lookups.is_finished() {
                assert!(begun.elapsed() < Duration::from_mins(1), "a lookup waits for another");
                thread::yield_now();
            }
            lookups.join().expect("they hold");
            scope.spawn(|| {
                bed.space.vfree((), next).expect("nobody else frees it");
                freed.store(true, Relaxed);
            });
            // Long enough for a free that does not wait, as a rule; one that waits has no other way than to wait.
            for _ in 0..1000 {
                assert!(!freed.load(Relaxed), "freed while somebody looked");
                thread::yield_now();
            }
            record.vm.addr()
        });
        assert_eq!(looked, Some(area));
    });
    assert!(freed.into_inner());
    bed.space.vfree((), area).expect("nobody else frees it");
}
