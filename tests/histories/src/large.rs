//! Large mappings: memory by `vmalloc_huge`, and frames that follow each other by vmap (S90).

use crate::bed::CALLER;
use crate::history::History;
use crate::step::Step;
use kerncore::{
    addr::{LARGE_PAGE_SIZE, PAGE_SIZE, Pfn},
    area::AreaKind,
    attributes::Attributes,
    kernel_space::Fill,
    machine::Machine,
};

/// More pages than this are a crowd: what takes many of them waits.
const CROWD: usize = 120;

impl<M: Machine<Authority = ()> + Clone> History<'_, M> {
    /// Those of the steps that are told here.
    pub(crate) fn large(&mut self, step: Step) {
        if self.is_crowded() {
            return;
        }
        let space = &self.bed.space;
        match step {
            Step::Huge { large, small } => {
                let bytes = large * LARGE_PAGE_SIZE + small * PAGE_SIZE;
                let area = space.vmalloc_huge(bytes, Fill::Uninitialised, CALLER).expect("memory");
                self.came(AreaKind::Vmalloc, area.pages.start(), bytes);
            }
            Step::VmapRun { first, count } => {
                let run = self.run.iter().copied().skip(first as usize);
                let frames: Vec<Pfn> = run.take(count as usize).collect();
                if frames.is_empty() {
                    return;
                }
                let area = space.vmap(&frames, Attributes::KERNEL_DATA, CALLER).expect("addresses");
                self.came(AreaKind::Vmap, area.pages.start(), area.pages.bytes());
                assert_eq!(self.areas[&area.pages.start().raw()].frames, frames);
            }
            _ => {}
        }
    }

    fn is_crowded(&self) -> bool {
        self.areas.values().map(|held| held.frames.len() + 1).sum::<usize>() > CROWD
    }
}
