//! Random histories of the whole kernel space: vmalloc, vmap, ioremap and coherent buffers, rightly used and wrongly.
//!
//! ```text
//!   model     areas by base, what each page leads to, and the word last written to each frame
//!   tables    what a walk finds
//!   CPUs      what an access through each CPU's TLB reaches, and what it reads there
//!   device    what a bus master reads past the cache, of coherent buffers
//! ```
//!
//! After each step the four agree about every page of every live area, about the guards and about the addresses that were
//! given up, and the audit finds nothing. A history ends with everything removed and the ledger as it was.

use crate::bed::{Bed, CALLER, WINDOW, page};
pub use crate::step::{Mistake, Step};
use kerncore::{
    addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr, VirtAddr, pages_for},
    area::{AreaFlags, AreaKind, AreaSummary},
    attributes::Attributes,
    frames::FrameOwner,
    kernel_space::{Fill, RemoveError},
    machine::Machine,
    map_ram::LARGEST,
    page_table::consecutive,
};
use machine::{Fault, Kind, Privilege, SoftCpu};
use std::collections::BTreeMap;

/// Registers that are nobody's memory.
const DEVICE: u32 = 0x1001_3000;
/// Frames of the test's own that are lent to vmap.
pub(crate) const OWN_FRAMES: u32 = 6;
/// The binary logarithm of how many there are that follow each other.
const RUN_ORDER: u32 = 5;
/// Which word of a page is written and read.
const PLACE: u32 = 0x7fc;

/// A live area as the model knows it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) kind: AreaKind,
    /// What each page leads to.
    pub(crate) frames: Vec<Pfn>,
    /// What the caller named when it asked, for coherent buffers.
    bytes: u32,
}

/// When the audit runs, which looks at every page of the kernel's and costs more than all the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audits {
    /// After each step: whoever breaks something is known.
    AfterEachStep,
    /// When all is over: more histories in the same time.
    AtTheEnd,
}

pub(crate) struct History<'b, M: Machine> {
    pub(crate) bed: &'b Bed<M>,
    audits: Audits,
    pub(crate) own: Vec<Pfn>,
    /// Frames of the history's own that follow each other, from a border of large pages on.
    pub(crate) run: Vec<Pfn>,
    pub(crate) areas: BTreeMap<u32, Held>,
    /// The word at [`PLACE`] of every frame that was written to, while it is known.
    pub(crate) words: BTreeMap<Pfn, u32>,
    /// Pages of addresses that were given up, the latest last.
    pub(crate) given_up: Vec<u32>,
    written: u32,
}

impl<M: Machine<Authority = ()> + Clone> History<'_, M> {
    pub(crate) fn pick(&self, pick: u32) -> Option<(VirtAddr, Held)> {
        let index = (pick as usize).checked_rem(self.areas.len())?;
        let (&base, held) = self.areas.iter().nth(index)?;
        Some((VirtAddr::new(base), held.clone()))
    }

    fn remove_as(&self, kind: AreaKind, base: VirtAddr, bytes: u32) -> Result<(), RemoveError> {
        let space = &self.bed.space;
        match kind {
            // A page array is nobody's to free, and says so.
            AreaKind::Vmalloc | AreaKind::PageArray => space.vfree((), base),
            AreaKind::Vmap | AreaKind::Bare => space.vunmap((), base),
            AreaKind::MapRam | AreaKind::MapRamBlock => space.unmap_ram((), base, pages_for(bytes)),
            AreaKind::IoRemap => space.iounmap((), base),
            // None of the second kind is made here.
            AreaKind::Dma | AreaKind::Scattered => {
                let freed = space.coherent_free((), base, bytes)?;
                assert_eq!((freed.actual, freed.missing), (pages_for(bytes), 0));
                Ok(())
            }
        }
    }

    /// An area has come: nobody else's addresses, and frames that no other owner has.
    pub(crate) fn came(&mut self, kind: AreaKind, base: VirtAddr, bytes: u32) {
        let count = pages_for(bytes);
        let (first, end) = (base.raw(), base.raw() + (count + 1) * PAGE_SIZE);
        for (&other, held) in &self.areas {
            let other_end =
                other + (u32::try_from(held.frames.len()).expect("few") + 1) * PAGE_SIZE;
            assert!(end <= other || other_end <= first, "{base} overlaps the area at {other:#x}");
        }
        let at = |offset| VirtAddr::new(base.raw() + offset * PAGE_SIZE);
        let frames: Vec<Pfn> = (0..count).map(|offset| self.bed.frame_at(at(offset))).collect();
        if matches!(kind, AreaKind::Vmalloc | AreaKind::Dma) {
            let taken: Vec<Pfn> =
                self.areas.values().flat_map(|held| held.frames.clone()).collect();
            for frame in &frames {
                assert!(
                    !taken.contains(frame)
                        && !self.own.contains(frame)
                        && !self.run.contains(frame),
                    "{frame} is in use"
                );
                self.words.remove(frame);
            }
        }
        if kind == AreaKind::Dma {
            assert!(frames.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1])));
        }
        self.areas.insert(base.raw(), Held { kind, frames, bytes });
    }

    fn write(&mut self, base: VirtAddr, held: &Held, cpu: SoftCpu<'_>) {
        for (offset, frame) in (0..).zip(&held.frames) {
            self.written += 1;
            let address = VirtAddr::new(base.raw() + offset * PAGE_SIZE + PLACE);
            assert_eq!(cpu.store(address, self.written), Ok(()), "{address}");
            self.words.insert(*frame, self.written);
        }
    }

    /// Maps `frames` by their numbers, or by page pointers, as `choice` has it.
    fn vmap(&self, frames: &[Pfn], choice: u32) -> VirtAddr {
        let (bed, data) = (self.bed, Attributes::KERNEL_DATA);
        if choice.is_multiple_of(2) {
            bed.space.vmap(frames, data, CALLER).expect("addresses").pages.start()
        } else {
            let records = bed.records(frames);
            bed.space.vmap_pages(&records, AreaFlags::MAP, CALLER).expect("addresses")
        }
    }

    fn take(&mut self, step: Step) {
        let bed = self.bed;
        let space = &bed.space;
        match step {
            Step::Vmalloc { bytes, zeroed } => {
                let fill = if zeroed { Fill::Zeroed } else { Fill::Uninitialised };
                let base = space.vmalloc(bytes, fill, CALLER).expect("memory").pages.start();
                self.came(AreaKind::Vmalloc, base, bytes);
                if zeroed {
                    for frame in self.areas[&base.raw()].frames.clone() {
                        self.words.insert(frame, 0);
                    }
                }
            }
            Step::Huge { .. } | Step::VmapRun { .. } => self.large(step),
            Step::MapRam { first, count, stride } => {
                let frames = self.chosen(first, count, stride);
                let records = bed.records(&frames);
                let base = space.map_ram(&records, CALLER).expect("addresses");
                let area = space.find_containing(base).expect("its own area, or a block");
                self.came(area.kind, base, count * PAGE_SIZE);
                assert_eq!(self.areas[&base.raw()].frames, frames);
                assert_eq!(area.kind == AreaKind::MapRam, count > LARGEST);
            }
            Step::CloseIdle => _ = space.close_idle_blocks(),
            Step::Vmap { first, count, stride } => {
                let frames = self.chosen(first, count, stride);
                let base = self.vmap(&frames, first);
                self.came(AreaKind::Vmap, base, count * PAGE_SIZE);
                assert_eq!(self.areas[&base.raw()].frames, frames);
            }
            Step::IoRemap { offset, bytes } => {
                let physical = PhysAddr::new(DEVICE + offset);
                let address = space.ioremap(physical, bytes, Attributes::DEVICE, CALLER);
                let address = address.expect("addresses");
                assert_eq!(address.page_offset(), physical.page_offset());
                let base = VirtAddr::new(address.raw() - address.page_offset());
                self.came(AreaKind::IoRemap, base, physical.page_offset() + bytes);
                assert_eq!(self.areas[&base.raw()].frames[0], physical.pfn());
            }
            Step::Coherent { bytes } => {
                let area = space.coherent_alloc(bytes, FrameOwner::Dma, CALLER).expect("memory");
                self.came(AreaKind::Dma, area.pages.start(), bytes);
                for frame in self.areas[&area.pages.start().raw()].frames.clone() {
                    self.words.insert(frame, 0);
                }
            }
            Step::Remove { pick } => {
                let Some((base, held)) = self.pick(pick) else { return };
                assert_eq!(self.remove_as(held.kind, base, held.bytes), Ok(()));
                self.areas.remove(&base.raw());
                let count = u32::try_from(held.frames.len()).expect("few");
                self.given_up.extend((0..count).map(|offset| base.page_number() + offset));
                self.given_up.drain(..self.given_up.len().saturating_sub(12));
            }
            Step::Write { pick, cpu } => {
                let Some((base, held)) = self.pick(pick) else { return };
                if held.kind != AreaKind::IoRemap {
                    self.write(base, &held, bed.machine.cpu(cpu));
                }
            }
            Step::DeviceWrite { pick } => {
                let Some((_, held)) = self.pick(pick) else { return };
                if held.kind == AreaKind::Dma {
                    for frame in held.frames {
                        self.written += 1;
                        bed.machine.device_write(place_in(frame), self.written);
                        self.words.insert(frame, self.written);
                    }
                }
            }
            Step::WrongFree { pick, how } => self.free_wrongly(pick, how),
            Step::Famine { left } => self.starve(left),
            Step::Absurd { bytes } => self.ask_absurdly(bytes),
            other => self.change(other),
        }
    }

    /// So many of the history's own frames.
    fn chosen(&self, first: u32, count: u32, stride: u32) -> Vec<Pfn> {
        let place = |index: u32| (first % OWN_FRAMES + index * stride) % OWN_FRAMES;
        (0..count).map(|index| self.own[place(index) as usize]).collect()
    }

    fn starve(&self, left: u32) {
        let space = &self.bed.space;
        let hunger = self.bed.starve(left.min(space.zones().free_pages()));
        let want = (left + 1) * PAGE_SIZE;
        assert!(space.vmalloc(want, Fill::Zeroed, CALLER).is_err());
        assert!(space.coherent_alloc(want, FrameOwner::Dma, CALLER).is_err());
        self.bed.feed(hunger);
    }

    fn ask_absurdly(&self, bytes: u32) {
        let space = &self.bed.space;
        let bytes = if bytes < 1 << 24 { 0 } else { bytes };
        assert!(space.vmalloc(bytes, Fill::Zeroed, CALLER).is_err());
        assert!(space.coherent_alloc(bytes, FrameOwner::Dma, CALLER).is_err());
        let wraps = PhysAddr::new(bytes.wrapping_neg().wrapping_add(1));
        assert!(space.ioremap(wraps, bytes, Attributes::DEVICE, CALLER).is_err());
        let ram = PhysAddr::new(DEVICE);
        assert!(space.ioremap(ram, bytes, Attributes::DEVICE, CALLER).is_err());
        assert!(space.vmap(&[], Attributes::KERNEL_DATA, CALLER).is_err());
        assert!(space.map_ram(&[], CALLER).is_err());
        assert!(space.map_ram(&[std::ptr::null()], CALLER).is_err());
    }

    /// Every refusal names what was wrong; nothing changes, as the comparison after the step shows.
    fn free_wrongly(&mut self, pick: u32, how: Mistake) {
        let Some((base, held)) = self.pick(pick) else { return };
        let count = u32::try_from(held.frames.len()).expect("few");
        let wrong = |address| self.remove_as(held.kind, address, held.bytes);
        match how {
            Mistake::Misaligned if held.kind != AreaKind::IoRemap => {
                let address = VirtAddr::new(base.raw() + 4);
                assert_eq!(wrong(address), Err(RemoveError::Misaligned { address }));
            }
            // Any address inside a mapping of registers stands for it.
            Mistake::Interior if count > 1 && held.kind != AreaKind::IoRemap => {
                let address = VirtAddr::new(base.raw() + PAGE_SIZE);
                assert_eq!(wrong(address), Err(RemoveError::Unknown { address }));
            }
            Mistake::Guard => {
                let address = VirtAddr::new(base.raw() + count * PAGE_SIZE);
                assert_eq!(wrong(address), Err(RemoveError::Unknown { address }));
            }
            Mistake::Twice => {
                let Some(&gone) = self.given_up.last() else { return };
                let address = page(gone);
                if !self.lives(address) {
                    // A block may lie where a fragment of it was: nobody has its pages, and its first page is the area's address.
                    let area = match held.kind {
                        // Any address inside stands for an area of registers.
                        AreaKind::IoRemap => self.bed.space.find_containing(address),
                        // A fragment is looked for in its block.
                        AreaKind::MapRam | AreaKind::MapRamBlock => None,
                        _ => self.bed.space.find(address),
                    };
                    let wanted = area.map_or(RemoveError::Unknown { address }, |area| {
                        RemoveError::WrongKind { address: area.pages.start(), found: area.kind }
                    });
                    assert_eq!(wrong(address), Err(wanted));
                }
            }
            Mistake::AnotherKind if held.kind == AreaKind::MapRamBlock => {
                // A fragment is no area; at a block's first page lies the block's.
                let other = self.remove_as(AreaKind::Vmap, base, held.bytes);
                let found = self.bed.space.find(base).map(|area| area.kind);
                let wanted = match found {
                    Some(found) => RemoveError::WrongKind { address: base, found },
                    None => RemoveError::Unknown { address: base },
                };
                assert_eq!(other, Err(wanted));
                let size = self.remove_as(held.kind, base, held.bytes + PAGE_SIZE);
                let (found, wanted) = (count, pages_for(held.bytes) + 1);
                assert_eq!(size, Err(RemoveError::OtherSize { address: base, found, wanted }));
            }
            Mistake::AnotherKind => {
                let found = held.kind;
                let other =
                    if found == AreaKind::Vmalloc { AreaKind::Vmap } else { AreaKind::Vmalloc };
                let refused = self.remove_as(other, base, held.bytes);
                assert_eq!(refused, Err(RemoveError::WrongKind { address: base, found }));
            }
            Mistake::Misaligned | Mistake::Interior => {}
        }
    }

    /// Model, tables, both CPUs and the device agree.
    fn compare(&self) {
        let bed = self.bed;
        let mut next = page(WINDOW);
        for (&base, held) in &self.areas {
            let base = VirtAddr::new(base);
            let count = u32::try_from(held.frames.len()).expect("few");
            if held.kind == AreaKind::MapRamBlock {
                let fragment = bed.space.map_ram_blocks().fragment_containing(base);
                assert_eq!(fragment, PageRange::new(base, count), "the fragment at {base}");
            } else {
                let found = self.next_area(&mut next).expect("an area of the model");
                let what = (found.pages.start(), found.pages.count(), found.kind);
                assert_eq!(what, (base, count, held.kind));
            }
            for (offset, frame) in (0..).zip(&held.frames) {
                self.page_agrees(VirtAddr::new(base.raw() + offset * PAGE_SIZE), *frame, held.kind);
                if held.kind == AreaKind::Vmalloc {
                    self.linear_agrees(base, *frame);
                }
            }
            self.is_absent(base.page_number() + count);
        }
        assert_eq!(self.next_area(&mut next), None, "no area that the model does not know");
        for &gone in &self.given_up {
            if !self.lives(page(gone)) {
                self.is_absent(gone);
            }
        }
        if self.audits == Audits::AfterEachStep {
            bed.clean();
        }
    }

    /// The next area from `next` on that is no block, whose fragments alone the model knows.
    fn next_area(&self, next: &mut VirtAddr) -> Option<AreaSummary> {
        loop {
            let area = self.bed.space.next_area(*next)?;
            *next = VirtAddr::new(area.pages.start().raw() + area.bytes_with_guard());
            if area.kind != AreaKind::MapRamBlock {
                return Some(area);
            }
        }
    }

    /// Whether `address` is a page of an area of the model.
    fn lives(&self, address: VirtAddr) -> bool {
        let below = self.areas.range(..=address.raw()).next_back();
        below.is_some_and(|(base, held)| {
            let bytes = u32::try_from(held.frames.len()).expect("few") * PAGE_SIZE;
            address.raw() - base < bytes
        })
    }

    fn page_agrees(&self, address: VirtAddr, frame: Pfn, kind: AreaKind) {
        assert_eq!(self.bed.frame_at(address), frame, "the tables at {address}");
        for number in 0..2 {
            let cpu = self.bed.machine.cpu(number);
            for access in [Kind::Read, Kind::Write] {
                let reached = cpu.access(address, access, Privilege::Kernel).map(PhysAddr::pfn);
                assert_eq!(reached, Ok(frame), "CPU {number} at {address}");
            }
            let run = cpu.access(address, Kind::Execute, Privilege::Kernel);
            assert_eq!(run, Err(Fault::Permission(address)), "CPU {number}");
            if kind != AreaKind::IoRemap
                && let Some(&word) = self.words.get(&frame)
            {
                let place = VirtAddr::new(address.raw() + PLACE);
                assert_eq!(cpu.load(place), Ok(word), "CPU {number} at {place}");
            }
        }
        if kind == AreaKind::Dma
            && let Some(&word) = self.words.get(&frame)
        {
            assert_eq!(self.bed.machine.device_read(place_in(frame)), word, "the device, {frame}");
        }
    }

    pub(crate) fn is_absent(&self, number: u32) {
        let address = page(number);
        assert!(self.bed.space.table().translate(address).is_none(), "the tables at {address}");
        for number in 0..2 {
            let reached =
                self.bed.machine.cpu(number).access(address, Kind::Read, Privilege::Kernel);
            assert_eq!(reached, Err(Fault::Translation(address)), "CPU {number}");
        }
    }
}

fn place_in(frame: Pfn) -> PhysAddr {
    PhysAddr::new(frame.base().raw() + PLACE)
}

/// Lives through a history on the bed, comparing after every step, and leaves nothing behind.
///
/// # Panics
/// When anything disagrees.
pub fn live<M: Machine<Authority = ()> + Clone>(bed: &Bed<M>, steps: &[Step], audits: Audits) {
    bed.warm_up();
    bed.gives_back(|bed| {
        let (list, own) = bed.frames(OWN_FRAMES);
        let block = bed.space.zones().allocate(RUN_ORDER, FrameOwner::Test).expect("memory");
        let run = consecutive(block.first(), block.pages()).expect("below 4 GiB").collect();
        let (areas, words) = (BTreeMap::new(), BTreeMap::new());
        let given_up = Vec::new();
        let mut history = History { bed, audits, own, run, areas, words, given_up, written: 0 };
        for &step in steps {
            history.take(step);
            history.compare();
        }
        while !history.areas.is_empty() {
            history.take(Step::Remove { pick: 0 });
            history.compare();
        }
        bed.feed(list);
        bed.space.zones().free(block).expect("the history's own");
    });
}
