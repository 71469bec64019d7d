//! Sections that go, and not as S23 asks.

use super::{
    Verdict, board,
    flushes::{Drives, Flush, Right, Told},
    same,
};
use histories::bed::{Bed, CALLER};
use kerncore::{
    addr::{PAGE_SIZE, SECTION_SIZE, VirtAddr},
    kernel_space::Fill,
};
use machine::{Behaviour, Fault, Kind, Privilege};

/// Pages of two sections that are used and looked at.
const PLACES: [u32; 5] = [0, 1, 200, 256, 511];

/// S23, S90: after the free of two sections no CPU reaches their frames.
fn no_cpu_reaches_freed_sections<D: Drives<Cpu: Told>>(drives: &D) -> Verdict {
    for behaviour in Behaviour::all(6) {
        let bed = Bed::driven_by(behaviour, |machine| drives.drive(machine));
        bed.warm_up();
        freed(&bed).map_err(|saw| format!("{behaviour:?}: {saw}"))?;
    }
    Ok(())
}

fn freed<M: Told + kerncore::machine::Machine<Authority = ()> + Clone>(bed: &Bed<M>) -> Verdict {
    let area = bed.space.vmalloc_huge(2 * SECTION_SIZE, Fill::Uninitialised, CALLER);
    let area = area.map_err(|error| error.to_string())?;
    let at = |place: u32| VirtAddr::new(area.pages.start().raw() + place * PAGE_SIZE);
    let cpus = [bed.machine.cpu(0), bed.machine.cpu(1)];
    for (cpu, place) in cpus.into_iter().flat_map(|cpu| PLACES.map(|place| (cpu, place))) {
        cpu.load(at(place)).map_err(|fault| format!("{fault:?}"))?;
    }
    bed.space.table().raw_machine(()).ends(area.pages);
    bed.space.vfree((), area.pages.start()).map_err(|error| error.to_string())?;
    for (cpu, place) in cpus.into_iter().flat_map(|cpu| PLACES.map(|place| (cpu, place))) {
        let reached = cpu.access(at(place), Kind::Write, Privilege::Kernel);
        same(&format!("{cpu:?} at page {place}"), &reached, &Err(Fault::Translation(at(place))))?;
    }
    Ok(())
}

board! {
    no_cpu_reaches_freed_sections(Right, Flush::Right) {
        sections_never_flushed: "S23", "sections go without a flush", Flush::Never;
        sections_released_before_their_flush: "S23", "sections are released, then flushed", Flush::Later;
        one_of_two_sections_flushed: "S90", "of two sections the first only is flushed", Flush::FirstRange;
        sections_flushed_on_one_cpu: "S23", "sections are flushed in the TLB of one CPU", Flush::Local;
        sections_flushed_before_clear: "S23", "sections are flushed, then their slots are cleared", Flush::BeforeClear;
    }
}
