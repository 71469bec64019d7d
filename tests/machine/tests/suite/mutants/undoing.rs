//! Operations that forget something when they fail half way.

use super::{Verdict, board, same};
use histories::bed::{Bed, CALLER};
use kerncore::{
    addr::{PAGE_SIZE, VirtAddr},
    failure::Afterwards,
    frames::FrameOwner,
    kernel_space::Fill,
    linear_map::{Absent, list::AbsentList},
};
use machine::{Behaviour, fail_nth};
use std::num::NonZeroU32;

/// What takes several things, one after the other, and may fail at each.
trait Operation {
    type Made;

    fn run(&self, bed: &Bed) -> Option<Self::Made>;

    fn undo(&self, bed: &Bed, made: Self::Made);
}

/// As the kernel does it.
struct Coherent;

impl Operation for Coherent {
    type Made = VirtAddr;

    fn run(&self, bed: &Bed) -> Option<VirtAddr> {
        let area = bed.space.coherent_alloc(2 * PAGE_SIZE, FrameOwner::Dma, CALLER);
        area.ok().map(|area| area.pages.start())
    }

    fn undo(&self, bed: &Bed, made: VirtAddr) {
        bed.space.coherent_free((), made, 2 * PAGE_SIZE).expect("a live area");
    }
}

/// Frames out of the linear map, and two areas; each step that fails undoes those before it, but for one.
#[derive(PartialEq, Eq)]
enum Forgets {
    Nothing,
    TheFrames,
    TheLinearEntries,
    TheFirstArea,
}

impl Forgets {
    fn put_back(&self, bed: &Bed, absent: Absent) {
        if *self == Self::TheLinearEntries {
            return;
        }
        let block = bed.space.linear().restore(absent).expect("absent");
        if *self != Self::TheFrames {
            bed.space.zones().free(block).expect("our own");
        }
    }

    fn area(bed: &Bed) -> Option<VirtAddr> {
        let area = bed.space.vmalloc(PAGE_SIZE, Fill::Uninitialised, CALLER);
        area.ok().map(|area| area.pages.start())
    }
}

fn free(bed: &Bed, area: VirtAddr) {
    bed.space.vfree((), area).expect("a live area");
}

impl Operation for Forgets {
    type Made = (Absent, VirtAddr, VirtAddr);

    fn run(&self, bed: &Bed) -> Option<Self::Made> {
        let block = bed.space.zones().allocate_pages(2, FrameOwner::Test).ok()?;
        let absent = bed.space.linear().withdraw(block).expect("in the linear map").flush();
        let Some(first) = Self::area(bed) else {
            self.put_back(bed, absent);
            return None;
        };
        let Some(second) = Self::area(bed) else {
            if *self != Self::TheFirstArea {
                free(bed, first);
            }
            self.put_back(bed, absent);
            return None;
        };
        Some((absent, first, second))
    }

    fn undo(&self, bed: &Bed, (absent, first, second): Self::Made) {
        free(bed, first);
        free(bed, second);
        Self::Nothing.put_back(bed, absent);
    }
}

/// As the kernel does it, of frames in several blocks.
struct Code;

impl Operation for Code {
    type Made = VirtAddr;

    fn run(&self, bed: &Bed) -> Option<VirtAddr> {
        let area = bed.space.vmalloc_exec(3 * PAGE_SIZE, CALLER);
        area.ok().map(|area| area.pages.start())
    }

    fn undo(&self, bed: &Bed, made: VirtAddr) {
        free(bed, made);
    }
}

/// A list of frames out of the linear map, and an area; when that fails, not all of the list comes back.
#[derive(PartialEq, Eq)]
enum ForgetsOfList {
    Nothing,
    OneBlock,
    TheLinearEntries,
}

impl ForgetsOfList {
    fn put_back(&self, bed: &Bed, absent: AbsentList) {
        let table = bed.space.zones().table();
        if *self == Self::TheLinearEntries {
            return;
        }
        let mut list = bed.space.linear().restore_list(table, absent).expect("absent");
        if *self == Self::OneBlock {
            let _lost = list.pop(table);
        }
        bed.space.zones().free_list(list).expect("our own");
    }
}

impl Operation for ForgetsOfList {
    type Made = (AbsentList, VirtAddr);

    fn run(&self, bed: &Bed) -> Option<Self::Made> {
        let table = bed.space.zones().table();
        let list = bed.space.zones().allocate_list(3, FrameOwner::Text).ok()?;
        let withdrawn = bed.space.linear().withdraw_list(table, list);
        let absent = withdrawn.expect("in the linear map").flush(table);
        let Some(area) = Forgets::area(bed) else {
            self.put_back(bed, absent);
            return None;
        };
        Some((absent, area))
    }

    fn undo(&self, bed: &Bed, (absent, area): Self::Made) {
        free(bed, area);
        Self::Nothing.put_back(bed, absent);
    }
}

/// Whichever allocation fails, ledger and audit are afterwards as they were before.
fn no_failure_costs_anything(operation: &impl Operation) -> Verdict {
    for behaviour in Behaviour::all(2) {
        let bed = Bed::warm_on(behaviour);
        let before = bed.ledger();
        for nth in (1..).filter_map(NonZeroU32::new) {
            let run = || operation.run(&bed);
            let (made, outcome) = fail_nth(nth, Afterwards::Plenty, run);
            if let Some(made) = made {
                operation.undo(&bed, made);
            }
            let after = bed.ledger();
            let leaks: Vec<String> = before.leaks(&after).map(|leak| leak.to_string()).collect();
            same(&format!("{:?} failed", outcome.failed), &leaks, &Vec::new())?;
            let violations: Vec<String> = bed.audit().1.iter().map(ToString::to_string).collect();
            same(&format!("{:?} failed", outcome.failed), &violations, &Vec::new())?;
            if outcome.failed.is_none() {
                break;
            }
        }
    }
    Ok(())
}

board! {
    no_failure_costs_anything(Coherent, Code, Forgets::Nothing, ForgetsOfList::Nothing) {
        frames_lost_when_a_later_step_fails: "S28", "no addresses: the frames stay taken", Forgets::TheFrames;
        linear_entries_lost_when_a_later_step_fails: "S97", "no addresses: the frames stay out of the linear map", Forgets::TheLinearEntries;
        area_lost_when_a_later_step_fails: "S66", "the second area fails: the first stays", Forgets::TheFirstArea;
        a_frame_of_a_list_lost_when_a_later_step_fails: "S28", "no addresses: one block of the list stays taken", ForgetsOfList::OneBlock;
        a_list_out_of_the_linear_map_when_a_later_step_fails: "S112", "no addresses: the list is never restored", ForgetsOfList::TheLinearEntries;
    }
}
