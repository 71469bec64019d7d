//! A CPU as transfers of devices see it: its data caches, maintained by line.

use crate::{
    SoftCpu,
    cpu::{number_of, state_of},
    memory::LINE,
    state::{Pending, PendingOuter},
    tlb::Found,
};
use kerncore::{
    addr::{PhysAddr, VirtAddr},
    streaming::{StreamMachine, Upkeep},
};

/// The lines that `bytes` from `first` touch.
fn lines(first: u32, bytes: u32) -> impl Iterator<Item = u32> {
    let end = if bytes == 0 { first & !(LINE - 1) } else { first + bytes };
    (first & !(LINE - 1)..end).step_by(LINE as usize)
}

impl StreamMachine for SoftCpu<'_> {
    fn line_bytes(&self) -> u32 {
        LINE
    }

    /// By MVA, as hardware does it: every line must translate.
    fn maintain_inner(&self, what: Upkeep, start: VirtAddr, bytes: u32) {
        let mut state = state_of(self);
        let cpu = number_of(self);
        for line in lines(start.raw(), bytes) {
            let address = VirtAddr::new(line);
            let Found::Entry(entry) = state.translate(cpu, address.page_number()) else {
                panic!("maintenance by MVA of {address}, which leads nowhere");
            };
            let physical = entry.leads(address);
            match what {
                Upkeep::Clean => state.begin_clean(cpu, physical, LINE),
                Upkeep::Invalidate => state.begin(cpu, Pending::Drop(physical)),
                Upkeep::CleanAndInvalidate => {
                    state.begin(cpu, Pending::CleanAndInvalidate(physical));
                }
            }
        }
    }

    fn maintain_outer(&self, what: Upkeep, first: PhysAddr, bytes: u32) {
        let mut state = state_of(self);
        for line in lines(first.raw(), bytes) {
            let pending = match what {
                Upkeep::Clean => match state.memory.begin_clean_outer(line) {
                    Some(snapshot) => PendingOuter::Clean(snapshot),
                    None => continue,
                },
                Upkeep::Invalidate => PendingOuter::Drop(PhysAddr::new(line)),
                Upkeep::CleanAndInvalidate => PendingOuter::Evict(PhysAddr::new(line)),
            };
            state.outer.push_back(pending);
        }
    }

    fn wait_outer(&self) {
        state_of(self).wait_outer();
    }
}
