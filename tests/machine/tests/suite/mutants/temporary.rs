//! Temporary mappings that end without what S23 asks for, or were never right.

use super::{
    Verdict, board,
    flushes::{Drives, Flush, Right, Told, touch},
    same,
};
use histories::bed::{Bed, LowMemory, frame};
use kerncore::{
    addr::{Pfn, PhysAddr, VirtAddr},
    frames::{FrameList, FrameOwner, FrameRequest},
    kmap::Mapped,
};
use machine::{Behaviour, Fault, Kind, Privilege, SoftCpu};

/// A kernel the upper half of whose memory is high, and two frames of that.
fn bed_of<D: Drives>(behaviour: Behaviour, drives: &D) -> (Bed<D::Cpu>, FrameList, Vec<Pfn>) {
    let bed = Bed::divided(behaviour, LowMemory::Half, |machine| drives.drive(machine));
    let zones = bed.space.zones();
    let list = zones.allocate_list_from(FrameRequest::ANY, 4, FrameOwner::Test);
    let list = list.expect("high memory");
    let frames = list.frames(zones.table()).collect();
    (bed, list, frames)
}

fn reach(cpu: SoftCpu<'_>, address: VirtAddr) -> Result<Pfn, Fault> {
    cpu.access(address, Kind::Write, Privilege::Kernel).map(PhysAddr::pfn)
}

/// S23: when a mapping is dropped, no CPU reaches the frame there any more.
fn no_cpu_reaches_a_frame_that_is_unmapped<D: Drives<Cpu: Told>>(drives: &D) -> Verdict {
    for behaviour in Behaviour::all(3) {
        let (bed, _list, frames) = bed_of(behaviour, drives);
        let mapped = bed.space.kmap(frames[0]).map_err(|error| error.to_string())?;
        let page = mapped.page();
        for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
            touch(cpu, page);
        }
        bed.space.table().raw_machine(()).ends(page);
        drop(mapped);
        for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
            let found = reach(cpu, page.start());
            let wanted = Err(Fault::Translation(page.start()));
            same(&format!("{behaviour:?}: {cpu:?}"), &found, &wanted)?;
        }
    }
    Ok(())
}

/// S23: who is given a slot after somebody else finds his own frame there, on every CPU.
fn a_slot_used_again_leads_to_the_new_frame<D: Drives<Cpu: Told>>(drives: &D) -> Verdict {
    for behaviour in Behaviour::all(3) {
        let (bed, _list, frames) = bed_of(behaviour, drives);
        let mut last = None;
        for &frame in &frames {
            let mapped = bed.space.kmap(frame).map_err(|error| error.to_string())?;
            let page = mapped.page();
            same("the slot", last.get_or_insert(page), &page)?;
            for cpu in [bed.machine.cpu(1), bed.machine.cpu(0)] {
                let found = reach(cpu, page.start());
                same(&format!("{behaviour:?}: {cpu:?}"), &found, &Ok(frame))?;
            }
            bed.space.table().raw_machine(()).ends(page);
        }
    }
    Ok(())
}

/// How temporary mappings are made and ended.
trait Mappings {
    fn map(&self, bed: &Bed, frame: Pfn) -> Result<VirtAddr, String>;

    fn end(&self, bed: &Bed, address: VirtAddr) -> Result<(), String> {
        bed.space.kunmap((), address).map_err(|error| error.to_string())
    }
}

impl Mappings for Right {
    fn map(&self, bed: &Bed, frame: Pfn) -> Result<VirtAddr, String> {
        bed.space.kmap(frame).map(Mapped::keep).map_err(|error| error.to_string())
    }
}

/// The same, with one thing wrong.
enum Mistake {
    SlotGoesAtOnce,
    NextFrame,
    FirstFrame,
    LeftMapped,
}

impl Mappings for Mistake {
    fn map(&self, bed: &Bed, wanted: Pfn) -> Result<VirtAddr, String> {
        let wrong = match self {
            Self::NextFrame => frame(wanted.number() ^ 1),
            Self::FirstFrame => frame(wanted.number() & !3),
            Self::SlotGoesAtOnce | Self::LeftMapped => wanted,
        };
        let address = Right.map(bed, wrong)?;
        if matches!(self, Self::SlotGoesAtOnce) {
            Right.end(bed, address)?;
            // The descriptor is as it was: only the slot is free too early.
            let attributes = kerncore::attributes::Attributes::KERNEL_DATA;
            bed.poke_page(address, wrong, attributes);
        }
        Ok(address)
    }

    fn end(&self, bed: &Bed, address: VirtAddr) -> Result<(), String> {
        match self {
            // The slot is given back already.
            Self::SlotGoesAtOnce => _ = bed.poke(bed.l2_slot(address), 0),
            Self::LeftMapped => {}
            Self::NextFrame | Self::FirstFrame => Right.end(bed, address)?,
        }
        Ok(())
    }
}

/// S16, S117: as long as a mapping is held it leads to its own frame, whatever is mapped and ended meanwhile; and then nowhere.
fn what_is_held_leads_to_its_own_frame(mappings: &impl Mappings) -> Verdict {
    for behaviour in Behaviour::all(2) {
        let (bed, _list, frames) = bed_of(behaviour, &Right);
        let leads = |address, frame| {
            [0, 1].iter().try_for_each(|&number| {
                let found = reach(bed.machine.cpu(number), address);
                same(&format!("CPU {number}, {behaviour:?}"), &found, &Ok(frame))
            })
        };
        let outer = mappings.map(&bed, frames[1])?;
        leads(outer, frames[1])?;
        let inner = mappings.map(&bed, frames[2])?;
        leads(inner, frames[2])?;
        leads(outer, frames[1])?;
        mappings.end(&bed, inner)?;
        let last = mappings.map(&bed, frames[3])?;
        leads(last, frames[3])?;
        leads(outer, frames[1])?;
        for address in [outer, last] {
            mappings.end(&bed, address)?;
            let found = bed.space.table().translate(address).map(|found| found.physical.pfn());
            same("what is left", &found, &None)?;
        }
    }
    Ok(())
}

board! {
    no_cpu_reaches_a_frame_that_is_unmapped(Right, Flush::Right) {
        temporary_mapping_never_flushed: "S23", "a slot is given back without a flush", Flush::Never;
        temporary_mapping_flushed_here_only: "S23", "a slot is flushed in the TLB of one CPU", Flush::Local;
        temporary_mapping_flushed_before_clear: "S23", "a slot is flushed, then its descriptor is cleared", Flush::BeforeClear;
        temporary_mapping_flushed_with_the_next: "S23", "a slot is flushed when the next is written", Flush::Later;
    }
    a_slot_used_again_leads_to_the_new_frame(Right, Flush::Right) {
        slot_reused_unflushed: "S23", "a slot is used again without a flush", Flush::Never;
        slot_reused_after_a_flush_of_its_gap: "S23", "the gap behind the slot is flushed", Flush::Beside;
        slot_reused_after_a_local_flush: "S23", "another CPU remembers who had the slot", Flush::Local;
    }
    what_is_held_leads_to_its_own_frame(Right) {
        slot_reused_while_it_is_held: "S16", "a slot is free as soon as it is written", Mistake::SlotGoesAtOnce;
        neighbour_s_frame_mapped: "S16", "the frame beside the one wanted is mapped", Mistake::NextFrame;
        block_s_first_frame_mapped: "S16", "the first frame of a block stands for all of it", Mistake::FirstFrame;
        temporary_mapping_left: "S117", "the descriptor stays when the mapping ends", Mistake::LeftMapped;
    }
}
