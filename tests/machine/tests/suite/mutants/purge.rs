//! Freed areas that are flushed together, and not as S23 asks.

use super::{
    Verdict, board,
    flushes::{Drives, Flush, Right, Told, each, touch},
    same,
};
use histories::bed::Bed;
use kerncore::{
    addr::{PageRange, Pfn, PhysAddr},
    kernel_space::BATCH,
};
use machine::{Behaviour, Fault, Kind, Privilege};

/// Pages of the areas that go: more than one batch of them.
const PAGES: [u32; BATCH + 2] = {
    let mut pages = [1; BATCH + 2];
    pages[1] = 3;
    pages[2] = 2;
    pages
};

/// S23, S92: after a purge no CPU reaches a frame that an area had, for it may be anybody's.
fn no_cpu_reaches_what_a_purge_freed<D: Drives<Cpu: Told>>(drives: &D) -> Verdict {
    purged(drives, |bed, areas| {
        for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
            for address in areas.iter().copied().flat_map(each) {
                let reached = cpu.access(address, Kind::Write, Privilege::Kernel);
                same(&format!("{cpu:?}"), &reached, &Err(Fault::Translation(address)))?;
            }
        }
        Ok(())
    })
}

/// S23, S92: whoever is given the addresses next finds his own frames there, on every CPU.
fn purged_addresses_lead_to_the_next_owners_frames<D: Drives<Cpu: Told>>(drives: &D) -> Verdict {
    purged(drives, |bed, areas| {
        // Kept from being given again, so that the same addresses lead elsewhere.
        let (_list, _) = bed.frames(PAGES.iter().sum());
        let all: u32 = areas.iter().map(|pages| pages.count() + 1).sum();
        let base = bed.vmalloc(all - 1);
        same("the addresses", &base, &areas[0].start())?;
        let pages = PageRange::new(base, all - 1).ok_or("pages")?;
        for cpu in [bed.machine.cpu(1), bed.machine.cpu(0)] {
            for address in each(pages) {
                let reached = cpu.access(address, Kind::Write, Privilege::Kernel);
                let wanted: Result<Pfn, Fault> = Ok(bed.frame_at(address));
                same(&format!("{cpu:?} at {address}"), &reached.map(PhysAddr::pfn), &wanted)?;
            }
        }
        Ok(())
    })
}

/// Makes and uses areas, frees them from a handler, purges, and has `judge` look at what is left.
fn purged<D: Drives<Cpu: Told>>(
    drives: &D,
    judge: impl Fn(&Bed<D::Cpu>, &[PageRange]) -> Verdict,
) -> Verdict {
    for behaviour in Behaviour::all(4) {
        let bed = Bed::driven_by(behaviour, |machine| drives.drive(machine));
        bed.warm_up();
        let areas = PAGES
            .map(|count| PageRange::new(bed.vmalloc(count), count).expect("pages of the window"));
        for &pages in &areas {
            touch(bed.machine.cpu(0), pages);
            touch(bed.machine.cpu(1), pages);
            bed.space.vfree_atomic((), pages.start()).map_err(|error| error.to_string())?;
        }
        bed.space.table().raw_machine(()).ends(areas[0]);
        let freed = bed.space.free_deferred() as usize;
        same("areas freed", &freed, &areas.len())?;
        judge(&bed, &areas).map_err(|saw| format!("{behaviour:?}: {saw}"))?;
    }
    Ok(())
}

board! {
    no_cpu_reaches_what_a_purge_freed(Right, Flush::Right) {
        backlog_never_flushed: "S92", "a backlog is released without a flush", Flush::Never;
        backlog_flushed_before_clear: "S23", "a backlog is flushed, then its descriptors are cleared", Flush::BeforeClear;
        backlog_released_before_its_flush: "S23", "a backlog is released, then flushed", Flush::Later;
        backlog_flushed_in_part: "S92", "of the ranges of a backlog the first only is flushed", Flush::FirstRange;
        backlog_flushed_beside: "S21", "the pages beside those of a backlog are flushed", Flush::Beside;
        backlog_flushed_on_one_cpu: "S23", "a backlog is flushed in the TLB of one CPU", Flush::Local;
    }
    purged_addresses_lead_to_the_next_owners_frames(Right, Flush::Right) {
        purged_addresses_unflushed: "S23", "addresses of a backlog are used again without a flush", Flush::Never;
        purged_addresses_flushed_in_part: "S92", "of each range of a backlog the first page is flushed", Flush::FirstPage;
    }
}
