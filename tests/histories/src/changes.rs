//! What happens to areas while they live: mapped into, resized, copied through.

use crate::bed::{CALLER, WINDOW, page};
use crate::history::{Held, History, OWN_FRAMES};
use crate::step::Step;
use kerncore::{
    addr::{PAGE_SIZE, PageRange, Pfn, VirtAddr},
    area::{AreaFlags, AreaKind, AreaRecord, Mapping},
    attributes::Attributes,
    frames::FrameRequest,
    kernel_space::{Access, Fill, Span},
    machine::Machine,
    map_ram::LARGEST,
    va_space::Request,
};

impl<M: Machine<Authority = ()> + Clone> History<'_, M> {
    /// Those of the steps that are told here.
    pub(crate) fn change(&mut self, step: Step) {
        match step {
            Step::Code { bytes } => self.make_code(bytes),
            Step::Bare { first, count } => self.reserve(first, count),
            Step::Remap { pick, first } => self.remap(pick, first),
            Step::Resize { pick, pages, zeroed } => self.resize(pick, pages, zeroed),
            Step::Copy { from, bytes, writing } => self.copy(from, bytes, writing),
            _ => unreachable!("{step:?} is told in `take`"),
        }
    }

    /// Zeroed memory that has one address each, its own, as long as it lives (S30, S112).
    fn make_code(&mut self, bytes: u32) {
        let area = self.bed.space.vmalloc_exec(bytes, CALLER).expect("memory");
        self.came(AreaKind::Vmalloc, area.pages.start(), bytes);
        for frame in self.areas[&area.pages.start().raw()].frames.clone() {
            self.words.insert(frame, 0);
        }
    }

    /// If the area at `base` is of code, its `frame` has no linear address on any CPU.
    pub(crate) fn linear_agrees(&self, base: VirtAddr, frame: Pfn) {
        let is_code = |record: &AreaRecord| matches!(record.mapping, Mapping::Code { .. });
        if self.bed.space.with_area(base, is_code) == Some(true) {
            let linear = self.bed.space.linear().pages_of(frame, 1).expect("low memory");
            self.is_absent(linear.first());
        }
    }

    /// Other frames in the place of those that are mapped (S55).
    fn remap(&mut self, pick: u32, first: u32) {
        let Some((base, mut held)) = self.pick(pick) else { return };
        if held.kind != AreaKind::Bare {
            return;
        }
        let count = u32::try_from(held.frames.len()).expect("few");
        let all = PageRange::from_numbers(base.page_number(), count).expect("a range");
        let removal = self.bed.space.unmap_area((), all).expect("a bare area");
        assert_eq!(removal.pages, count);
        held.frames = self.map_own(base, first, count);
        self.areas.insert(base.raw(), held);
    }

    /// Addresses first, frames later (S12, S38).
    fn reserve(&mut self, first: u32, count: u32) {
        let space = &self.bed.space;
        let request = Request::of_bytes(count * PAGE_SIZE);
        let bare = space.reserve_area(request, AreaFlags::NONE, CALLER).expect("addresses");
        let base = bare.area.pages.start();
        for number in bare.area.pages.first()..bare.area.pages.end() {
            self.is_absent(number);
        }
        let frames = self.map_own(base, first, count);
        self.came(AreaKind::Bare, base, count * PAGE_SIZE);
        assert_eq!(self.areas[&base.raw()].frames, frames);
    }

    /// Maps `count` frames of the history's own into the bare area at `base`.
    fn map_own(&self, base: VirtAddr, first: u32, count: u32) -> Vec<Pfn> {
        let own = |index: u32| self.own[((first % OWN_FRAMES + index) % OWN_FRAMES) as usize];
        let frames: Vec<Pfn> = (0..count).map(own).collect();
        let table = *self.bed.space.zones().table();
        let offered = frames.iter().map(move |&frame| Some(table.belonging(frame)));
        let mapped = self.bed.space.map_area(base, offered, Attributes::KERNEL_DATA);
        assert_eq!(mapped, Ok(count));
        frames
    }

    /// The same frames, as far as they go, wherever they are afterwards; new ones are nobody's (S86).
    fn resize(&mut self, pick: u32, pages: u32, zeroed: bool) {
        let Some((base, held)) = self.pick(pick) else { return };
        if held.kind != AreaKind::Vmalloc {
            return;
        }
        let is_large = |record: &AreaRecord| matches!(record.mapping, Mapping::Large { .. });
        if self.bed.space.with_area(base, is_large) == Some(true) {
            self.resize_large(base, &held, pages);
            return;
        }
        let fill = if zeroed { Fill::Zeroed } else { Fill::Uninitialised };
        let is_code = |record: &AreaRecord| matches!(record.mapping, Mapping::Code { .. });
        if self.bed.space.with_area(base, is_code) == Some(true) {
            let (space, memory) = (&self.bed.space, FrameRequest::ANY);
            let resized = space.vrealloc((), base, pages * PAGE_SIZE, fill, memory, CALLER);
            assert!(resized.is_err(), "{base}: code has no other size");
            return;
        }
        let area =
            self.bed.space.vrealloc((), base, pages * PAGE_SIZE, fill, FrameRequest::ANY, CALLER);
        let after = area.expect("memory").pages.start();
        self.areas.remove(&base.raw());
        let kept = held.frames.len().min(pages as usize);
        let words: Vec<_> =
            held.frames[..kept].iter().map(|frame| self.words.get(frame).copied()).collect();
        self.came(AreaKind::Vmalloc, after, pages * PAGE_SIZE);
        let frames = self.areas[&after.raw()].frames.clone();
        assert_eq!(frames[..kept], held.frames[..kept], "not a byte is copied");
        for (frame, word) in frames.iter().zip(words) {
            word.map(|word| self.words.insert(*frame, word));
        }
        if zeroed {
            for frame in &frames[kept..] {
                self.words.insert(*frame, 0);
            }
        }
        let gone = if after == base { kept } else { 0 };
        let pages = (gone..held.frames.len()).map(|offset| u32::try_from(offset).expect("few"));
        self.given_up.extend(pages.map(|offset| base.page_number() + offset));
        self.given_up.drain(..self.given_up.len().saturating_sub(12));
    }

    /// A large mapping is not split, whatever is asked of it (S90).
    fn resize_large(&self, base: VirtAddr, held: &Held, pages: u32) {
        let (fill, memory) = (Fill::Uninitialised, FrameRequest::ANY);
        let resized = self.bed.space.vrealloc((), base, pages * PAGE_SIZE, fill, memory, CALLER);
        assert_eq!(resized.is_ok(), held.frames.len() == pages as usize, "{base}: {resized:?}");
    }

    /// Memory is exactly what areas have of it, and what is neither is a gap; the last area's last byte ends it (S40, S42).
    fn copy(&self, from: u32, bytes: u32, writing: bool) {
        let from = VirtAddr::new(page(WINDOW).raw() - 0x1000 + from);
        let access = if writing { Access::Write } else { Access::Read };
        let mut at = u64::from(from.raw());
        let done = self.bed.space.for_each_span(from, bytes, access, |span| match span {
            Span::Gap { bytes } => {
                for number in at >> 12..(at + u64::from(bytes)).div_ceil(0x1000) {
                    let number = u32::try_from(number).expect("below 4 GiB");
                    assert!(!self.is_memory(number), "page {number:#x} is memory");
                }
                at += u64::from(bytes);
            }
            Span::Memory { address, bytes } => {
                assert_eq!(u64::from(address.raw()), at);
                assert!(self.is_memory(address.page_number()), "{address} is no memory");
                at += u64::from(bytes);
            }
        });
        assert_eq!(at, u64::from(from.raw()) + u64::from(done));
        let last = self.areas.iter().rfind(|(_, held)| held.kind != AreaKind::MapRam);
        let Some((&base, held)) = last else { return };
        let end = base + u32::try_from(held.frames.len()).expect("few") * PAGE_SIZE;
        let reached = end.saturating_sub(from.raw()).min(bytes);
        assert!(done >= reached, "{done:#x} bytes from {from}, and {reached:#x} are there");
    }

    /// Whether the page of that number is one that copies go through.
    fn is_memory(&self, number: u32) -> bool {
        self.areas.iter().any(|(&base, held)| {
            let first = base >> 12;
            let pages = first..first + u32::try_from(held.frames.len()).expect("few");
            let is_copied = match held.kind {
                AreaKind::IoRemap | AreaKind::MapRamBlock => false,
                // Others are fragments of a block.
                AreaKind::MapRam => pages.len() > LARGEST as usize,
                _ => true,
            };
            is_copied && pages.contains(&number)
        })
    }
}
