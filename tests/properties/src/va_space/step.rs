//! Random spaces and random histories.

use core::ops::Range;

use kerncore::addr::{PAGE_SHIFT, PAGES_IN_ADDRESS_SPACE, PageRange, VirtAddr};
use kerncore::va_space::{Alignment, IoRemapPolicy, Request, VaStorage, Window};
use proptest::prelude::*;
use proptest::sample::Index;

/// Where a space lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene {
    pub(super) first: u32,
    pub(super) pages: u32,
}

impl Scene {
    /// So many pages at the bottom, at the top, or at an odd page in between.
    pub(super) fn anywhere(pages: impl Strategy<Value = u32>) -> impl Strategy<Value = Self> {
        pages.prop_flat_map(|pages| {
            let top = PAGES_IN_ADDRESS_SPACE - pages;
            let first = prop_oneof![Just(0), Just(top), Just(0xc_0000), 0xb_0000..0xd_0000_u32];
            first.prop_map(move |first| Self { first, pages })
        })
    }

    /// The kernel's default window.
    pub(super) fn vmalloc_window() -> impl Strategy<Value = Self> {
        Just(Self { first: 0xc_0000, pages: 0x3_0000 })
    }

    /// Memory for the books, full of what they must not rely on.
    pub(super) fn storage(self) -> Memory {
        Memory {
            words: vec![0xdead_beef; VaStorage::<u32>::words(self.pages)],
            records: vec![Some(0xdead_beef); self.pages as usize],
        }
    }

    pub(super) fn range(self) -> PageRange {
        PageRange::from_numbers(self.first, self.pages).expect("a scene lies in the address space")
    }
}

/// Memory for books.
pub(super) struct Memory {
    pub(super) words: Vec<u32>,
    pub(super) records: Vec<Option<u32>>,
}

/// One thing that is done to a space. Areas are picked among those that exist.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Reserve(Wish),
    Publish(Index),
    Retire(Index),
    Release(Index),
    /// Makes the area longer by so many pages, where it lies.
    Extend(Index, u32),
    /// Makes the area shorter: of its pages all but so many stay, counted round and round.
    Shrink(Index, u32),
    /// Looks up an address this many bytes from the area's base.
    Find(Index, i32),
}

/// A request as a caller would utter it: bytes, addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) bytes: u32,
    pub(super) alignment: Alignment,
    pub(super) window: Option<Limits>,
}

/// A window in bytes; `end` is `None` at the top of memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) start: u32,
    pub(super) end: Option<u32>,
}

impl Wish {
    pub(super) fn request(self) -> Request {
        let window = self.window.map(|Limits { start, end }| match end {
            Some(end) => Window::new(VirtAddr::new(start), VirtAddr::new(end)),
            None => Window::to_top(VirtAddr::new(start)),
        });
        Request { bytes: self.bytes, window, alignment: self.alignment }
    }
}

/// A scene and a history in it.
pub(super) fn histories(
    scenes: impl Strategy<Value = Scene>,
    length: Range<usize>,
) -> impl Strategy<Value = (Scene, Vec<Step>)> {
    scenes.prop_flat_map(move |scene| {
        (Just(scene), proptest::collection::vec(steps(scene), length.clone()))
    })
}

fn steps(scene: Scene) -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => wishes(scene).prop_map(Step::Reserve),
        4 => any::<Index>().prop_map(Step::Publish),
        3 => any::<Index>().prop_map(Step::Retire),
        5 => any::<Index>().prop_map(Step::Release),
        2 => (any::<Index>(), 0..9_u32).prop_map(|(area, more)| Step::Extend(area, more)),
        2 => (any::<Index>(), any::<u32>()).prop_map(|(area, gone)| Step::Shrink(area, gone)),
        2 => (any::<Index>(), -0x3000..0x1_0000).prop_map(|(area, offset)| Step::Find(area, offset)),
    ]
}

fn wishes(scene: Scene) -> impl Strategy<Value = Wish> {
    let alignment = prop_oneof![
        4 => Just(Alignment::Page),
        2 => (0..7_u32).prop_map(Alignment::Order),
        1 => (7..40_u32).prop_map(Alignment::Order),
        2 => Just(Alignment::IoRemap(IoRemapPolicy::Seed)),
        2 => Just(Alignment::IoRemap(IoRemapPolicy::Modern)),
    ];
    let window = prop_oneof![3 => Just(None), 2 => limits(scene).prop_map(Some)];
    (sizes(scene), alignment, window).prop_map(|(bytes, alignment, window)| Wish {
        bytes,
        alignment,
        window,
    })
}

/// Bytes: mostly small, odd as well as whole pages and powers of two, now and then more than there is.
fn sizes(scene: Scene) -> impl Strategy<Value = u32> {
    let all = scene.pages << PAGE_SHIFT;
    prop_oneof![
        6 => 1..=0x6000_u32,
        3 => (0..=all.ilog2()).prop_map(|shift| 1 << shift),
        3 => 1..=all / 4 + 1,
        1 => all - 0x1000..=all + 1,
        1 => prop_oneof![Just(0), Just(0xffff_f000), 0xffff_e000..=u32::MAX, any::<u32>()],
    ]
}

/// Windows: inside the space, overhanging it, unaligned, empty, upside down.
fn limits(scene: Scene) -> impl Strategy<Value = Limits> {
    let start = scene.first << PAGE_SHIFT;
    let all = scene.pages << PAGE_SHIFT;
    let near = (0..all + 0x6000)
        .prop_map(move |offset| start.saturating_add(offset).saturating_sub(0x3000));
    let page = (0..=scene.pages).prop_map(move |page| start.saturating_add(page << PAGE_SHIFT));
    let address = prop_oneof![3 => near, 3 => page, 1 => any::<u32>()];
    let end = prop_oneof![6 => address.clone().prop_map(Some), 1 => Just(None)];
    (address, end).prop_map(|(start, end)| Limits { start, end })
}
