//! Short-lived mappings that end without what S23 asks for.

use super::{
    Verdict, board,
    flushes::{Drives, Flush, Right, Told, each, touch},
    same,
};
use histories::bed::{Bed, CALLER};
use kerncore::addr::{PageRange, Pfn};
use machine::{Behaviour, Fault, Kind, Privilege};

/// Pages of the mapping that ends.
const PAGES: u32 = 3;

/// S23: when the unmapping has returned, no CPU reaches the frames any more.
fn no_cpu_reaches_an_ended_mapping<D: Drives<Cpu: Told>>(drives: &D) -> Verdict {
    ended(drives, |bed, pages, _| {
        for cpu in [bed.machine.cpu(0), bed.machine.cpu(1)] {
            for address in each(pages) {
                let reached = cpu.access(address, Kind::Write, Privilege::Kernel);
                same(&format!("{cpu:?}"), &reached, &Err(Fault::Translation(address)))?;
            }
        }
        Ok(())
    })
}

/// S23: who is given a block's addresses anew finds his own frames there, on every CPU.
fn reused_addresses_lead_to_the_new_frames<D: Drives<Cpu: Told>>(drives: &D) -> Verdict {
    ended(drives, |bed, pages, others| {
        // What the machine still remembers shows once the frames are others'.
        let records = bed.records(others);
        let again = bed.space.map_ram(&records, CALLER).map_err(|error| error.to_string())?;
        same("the addresses", &again, &pages.start())?;
        for cpu in [bed.machine.cpu(1), bed.machine.cpu(0)] {
            for (address, frame) in each(pages).zip(others) {
                let reached = cpu.access(address, Kind::Write, Privilege::Kernel);
                same(&format!("{cpu:?}"), &reached, &Ok(frame.base()))?;
            }
        }
        Ok(())
    })
}

/// Maps, uses and ends a mapping, on machines of every behaviour, and has `judge` look at what is left.
fn ended<D: Drives<Cpu: Told>>(
    drives: &D,
    judge: impl Fn(&Bed<D::Cpu>, PageRange, &[Pfn]) -> Verdict,
) -> Verdict {
    for behaviour in Behaviour::all(8) {
        let bed = Bed::driven_by(behaviour, |machine| drives.drive(machine));
        bed.warm_up();
        let (_list, frames) = bed.frames(2 * PAGES);
        let (ours, others) = frames.split_at(PAGES as usize);
        let address = bed.space.map_ram(&bed.records(ours), CALLER);
        let address = address.map_err(|error| error.to_string())?;
        let pages = PageRange::new(address, PAGES).ok_or("pages")?;
        touch(bed.machine.cpu(0), pages);
        touch(bed.machine.cpu(1), pages);
        bed.space.table().raw_machine(()).ends(pages);
        bed.space.unmap_ram((), address, PAGES).map_err(|error| error.to_string())?;
        judge(&bed, pages, others).map_err(|saw| format!("{behaviour:?}: {saw}"))?;
    }
    Ok(())
}

board! {
    no_cpu_reaches_an_ended_mapping(Right, Flush::Right) {
        fragment_never_flushed: "S23", "a fragment goes back without a flush", Flush::Never;
        fragment_flushed_before_clear: "S23", "a fragment is flushed, then its descriptors are cleared", Flush::BeforeClear;
        fragment_flushed_with_the_next: "S23", "a fragment goes back before its flush", Flush::Later;
        fragment_flushed_in_part: "S23", "of a fragment the first page only is flushed", Flush::FirstPage;
        fragment_flushed_on_one_cpu: "S23", "a fragment is flushed in the TLB of one CPU", Flush::Local;
    }
    reused_addresses_lead_to_the_new_frames(Right, Flush::Right) {
        block_reused_unflushed: "S87", "a block's addresses are used again without a flush", Flush::Never;
        block_reused_after_another_flush: "S87", "the pages beside those used again are flushed", Flush::Beside;
    }
}
