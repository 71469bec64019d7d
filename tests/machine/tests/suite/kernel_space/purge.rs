//! The backlog of freed areas: flushed together, bounded, and purged before anybody is refused (S89, S92).

use super::bed::{Bed, CALLER, WINDOW, WINDOW_PAGES, page};
use crate::mutants::exec::linear_of;
use kerncore::{
    addr::{PAGE_SIZE, PageRange, VirtAddr},
    kernel_space::{BATCH, Fill, MOST_WAITING},
};
use machine::{Behaviour, Event, Fault, Reach, Scope};

fn free_later(bed: &Bed, base: VirtAddr) {
    assert_eq!(bed.space.vfree_atomic((), base), Ok(()));
}

/// All descriptors of a batch are cleared before the first invalidation, each range is invalidated exactly, and one barrier
/// ends it all.
#[test]
fn a_batch_is_flushed_together_and_exactly_s21_s92() {
    let bed = Bed::warm();
    let sizes = [3, 1, 4, 1, 5];
    let areas = sizes.map(|count| PageRange::new(bed.vmalloc(count), count).expect("pages"));
    for area in areas {
        free_later(&bed, area.start());
    }
    bed.machine.take_log();
    assert_eq!(bed.space.free_deferred(), 5);
    let log: Vec<Event> = bed.machine.take_log().into_iter().map(|(_, event)| event).collect();
    let is_flush = |event: &Event| matches!(event, Event::Invalidate(..));
    let first = log.iter().position(is_flush).expect("a flush");
    let flushes: Vec<&Event> = log[first..].iter().take_while(|event| is_flush(event)).collect();
    let wanted = areas.map(|area| Event::Invalidate(Scope::Pages(area), Reach::InnerShareable));
    assert_eq!(flushes, wanted.iter().collect::<Vec<_>>());
    assert_eq!(log[first - 1], Event::Barrier, "cleared and cleaned, visibly");
    assert_eq!(log[first + 5..], [Event::Barrier]);
    assert!(log[..first].iter().any(|event| matches!(event, Event::Write(..))));
    bed.clean();
}

/// Code is flushed when it is freed, and from the queue in its turn: before what was queued ahead of it, which waits for the
/// others. When that is done its frames have their linear addresses again.
#[test]
fn memory_for_code_is_flushed_alone_and_at_once_s92_s112() {
    for behaviour in Behaviour::all(3) {
        let bed = Bed::warm_on(behaviour);
        bed.changes_nothing(|bed| {
            let code = || bed.space.vmalloc_exec(2 * PAGE_SIZE, CALLER).expect("memory").pages;
            let cpus = [bed.machine.cpu(0), bed.machine.cpu(1)];
            let run = |pages: PageRange| {
                bed.space.seal((), pages.start(), 2).expect("memory for code");
                assert!(cpus.iter().all(|cpu| cpu.fetch(pages.start()).is_ok()), "sealed");
            };
            let is_gone = |pages: PageRange, linear| {
                for cpu in cpus {
                    let gone = Err(Fault::Translation(pages.start()));
                    assert_eq!((cpu.fetch(pages.start()), cpu.load(pages.start())), (gone, gone));
                    assert!(cpu.load(linear).is_ok(), "its frames are ordinary memory again");
                }
            };
            let pages = code();
            let linear = linear_of(bed, pages.start());
            run(pages);
            bed.space.vfree((), pages.start()).expect("a live area");
            assert_eq!(bed.space.deferred(), 0);
            is_gone(pages, linear);

            let (below, pages, above) = (bed.vmalloc(1), code(), bed.vmalloc(1));
            let linear = linear_of(bed, pages.start());
            run(pages);
            for area in [below, pages.start(), above] {
                free_later(bed, area);
            }
            bed.machine.take_log();
            assert_eq!(bed.space.free_deferred(), 3);
            is_gone(pages, linear);
            let log: Vec<Event> =
                bed.machine.take_log().into_iter().map(|(_, event)| event).collect();
            let flushed = |first: VirtAddr| {
                log.iter().position(|event| match event {
                    Event::Invalidate(Scope::Pages(pages), Reach::InnerShareable) => {
                        pages.start() == first
                    }
                    _ => false,
                })
            };
            let order = [pages.start(), below, above].map(flushed);
            assert!(order.is_sorted() && order[0].is_some(), "{order:?}");
        });
    }
}

/// S23: on machines of all behaviours, more than one batch.
#[test]
fn nothing_remembers_what_was_purged_s23_s92() {
    for behaviour in Behaviour::all(12) {
        let bed = Bed::warm_on(behaviour);
        bed.changes_nothing(|bed| {
            let areas: Vec<VirtAddr> = (0..BATCH + 3).map(|_| bed.vmalloc(2)).collect();
            let cpus = [bed.machine.cpu(0), bed.machine.cpu(1)];
            for &area in &areas {
                for cpu in cpus {
                    cpu.store(area, 7).expect("mapped");
                }
                free_later(bed, area);
                assert_eq!(bed.space.find(area), None, "dying");
                assert_eq!(cpus[1].load(area), Ok(7), "and still mapped: nothing is free");
            }
            bed.space.free_deferred();
            for &area in &areas {
                for cpu in cpus {
                    assert_eq!(cpu.load(area), Err(Fault::Translation(area)), "{behaviour:?}");
                }
            }
        });
    }
}

/// S92: who makes an area while too many wait frees them first; who makes one while fewer wait does not.
#[test]
fn the_backlog_is_bounded_by_whoever_makes_the_next_area_s92() {
    let bed = Bed::warm();
    bed.gives_back(|bed| {
        let areas: Vec<VirtAddr> = (0..=MOST_WAITING).map(|_| bed.vmalloc(1)).collect();
        for &area in &areas[1..] {
            assert!(bed.space.deferred() < MOST_WAITING);
            free_later(bed, area);
        }
        assert_eq!(bed.space.deferred(), MOST_WAITING);
        let next = bed.vmalloc(1);
        assert_eq!(bed.space.deferred(), 0);
        assert_eq!(next, areas[1], "the lowest of what is free after the purge");
        free_later(bed, next);
        let other = bed.vmalloc(1);
        assert_eq!((bed.space.deferred(), other), (1, areas[2]));
        bed.space.free_deferred();
        bed.space.vfree((), other).expect("a live area");
        bed.space.vfree((), areas[0]).expect("a live area");
    });
}

/// S92, S14a: a request that a purge can satisfy is not refused: of addresses, and of frames.
#[test]
fn exhaustion_purges_and_tries_again_s92() {
    let bed = Bed::warm();
    bed.gives_back(|bed| {
        let whole = bed.space.window().count() - 1;
        let (list, frames) = bed.frames(1);
        let many = vec![frames[0]; whole as usize];
        let map = || {
            let attributes = kerncore::attributes::Attributes::KERNEL_DATA;
            bed.space.vmap(&many, attributes, CALLER)
        };
        free_later(bed, bed.vmalloc(3));
        let area = map().expect("all addresses").pages;
        assert_eq!((area.start(), area.count()), (page(WINDOW), WINDOW_PAGES - 1));
        bed.space.vunmap((), area.start()).expect("a live area");
        let held = bed.vmalloc(9);
        let hunger = bed.starve(0);
        free_later(bed, held);
        let again = bed.space.vmalloc(9 * PAGE_SIZE, Fill::Zeroed, CALLER).expect("frames");
        bed.space.vfree((), again.pages.start()).expect("a live area");
        bed.feed(hunger);
        bed.feed(list);
    });
}
