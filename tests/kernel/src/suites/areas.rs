//! Each kind of area is removed by its own call, from its own base, once; every refusal changes nothing (S13, S14, S32,
//! S34, S67).

use kerncore::addr::{PAGE_SIZE, PageRange, VirtAddr};
use kerncore::area::{AreaKind, AreaSummary};
use kerncore::attributes::Attributes;
use kerncore::frames::FrameOwner;
use kerncore::kernel_space::{Fill, RemoveError};
use ktest::ktest;
use mm::kernel;
use mm::page_alloc::Pages;

use super::witness::{
    Books, NOBODY, ask_host_of, assert_absent, assert_leads, authority, each_page, frame_at,
    guard_of, last_of, plus,
};

const PAGES: u32 = 3;

/// One area of each kind, in the order of [`AreaKind`], and the pages behind the vmap.
struct OneOfEach {
    areas: [AreaSummary; 4],
    _pages: Pages,
}

const KINDS: [AreaKind; 4] = [AreaKind::Vmalloc, AreaKind::Vmap, AreaKind::IoRemap, AreaKind::Dma];

fn one_of_each() -> OneOfEach {
    let pages = Pages::exactly(PAGES).expect("memory");
    let frames: [_; PAGES as usize] = {
        let mut frames = pages.frames();
        core::array::from_fn(|_| frames.next().expect("as many as were taken"))
    };
    let bytes = PAGES * PAGE_SIZE;
    let vram = board::vexpress_a9::VRAM.base;
    let device = kernel().ioremap(vram, bytes, Attributes::DEVICE, NOBODY).expect("addresses");
    let areas = [
        kernel().vmalloc(bytes, Fill::Zeroed, NOBODY).expect("memory"),
        kernel().vmap(&frames, Attributes::KERNEL_DATA, NOBODY).expect("addresses"),
        kernel().find(device).expect("just mapped"),
        kernel().coherent_alloc(bytes, FrameOwner::Dma, NOBODY).expect("memory"),
    ];
    assert_eq!(areas.map(|area| area.kind), KINDS);
    for area in areas {
        ask_host_of(area.pages);
    }
    OneOfEach { areas, _pages: pages }
}

/// The call that removes areas of `kind`.
fn remove(kind: AreaKind, address: VirtAddr) -> Result<(), RemoveError> {
    match kind {
        AreaKind::Vmalloc | AreaKind::PageArray => kernel().vfree(authority(), address),
        AreaKind::Vmap | AreaKind::Bare | AreaKind::MapRam | AreaKind::MapRamBlock => {
            kernel().vunmap(authority(), address)
        }
        AreaKind::IoRemap => kernel().iounmap(authority(), address),
        // None of the second kind is made here.
        AreaKind::Dma | AreaKind::Scattered => {
            kernel().coherent_free(authority(), address, PAGES * PAGE_SIZE).map(drop)
        }
    }
}

/// Where every page of `area` leads.
fn frames_of(pages: PageRange) -> [kerncore::addr::Pfn; PAGES as usize] {
    let mut each = each_page(pages);
    core::array::from_fn(|_| frame_at(each.next().expect("three pages")))
}

impl OneOfEach {
    /// Tries what must be refused with `wanted`, and looks at everything afterwards.
    #[track_caller]
    fn refuses(&self, kind: AreaKind, address: VirtAddr, wanted: RemoveError) {
        let books = Books::now();
        let frames = self.areas.map(|area| frames_of(area.pages));
        assert_eq!(remove(kind, address), Err(wanted), "{kind} of {address}");
        books.assert_unchanged();
        for (area, frames) in self.areas.iter().zip(frames) {
            assert_eq!(kernel().find(area.pages.start()), Some(*area), "still found");
            for (page, frame) in each_page(area.pages).zip(frames) {
                assert_leads(page, frame.base());
            }
        }
    }

    /// Each by its own call; the second time it is unknown.
    #[track_caller]
    fn remove_all(self) {
        for area in self.areas {
            let base = area.pages.start();
            assert_eq!(remove(area.kind, base), Ok(()), "{}", area.kind);
            each_page(area.pages).for_each(assert_absent);
            for kind in KINDS {
                assert_eq!(remove(kind, base), Err(RemoveError::Unknown { address: base }));
            }
        }
    }
}

#[ktest]
fn each_kind_is_refused_by_the_calls_of_the_others_which_say_what_it_is_s34_s67() {
    let books = Books::now();
    let one_of_each = one_of_each();
    for area in one_of_each.areas {
        let address = area.pages.start();
        for kind in KINDS.into_iter().filter(|&kind| kind != area.kind) {
            let wanted = RemoveError::WrongKind { address, found: area.kind };
            one_of_each.refuses(kind, address, wanted);
        }
    }
    one_of_each.remove_all();
    books.assert_unchanged();
}

/// S32: whole pages inside, and the guard, are nobody's base. ioremap's own areas are the exception (S59).
#[ktest]
fn an_inner_page_and_the_guard_are_unknown_to_every_call_s13_s32() {
    let one_of_each = one_of_each();
    for area in one_of_each.areas {
        for kind in KINDS {
            let guard = guard_of(area.pages);
            one_of_each.refuses(kind, guard, RemoveError::Unknown { address: guard });
            if kind == AreaKind::IoRemap {
                continue;
            }
            for inside in [1, 2] {
                let address = plus(area.pages.start(), inside * PAGE_SIZE);
                one_of_each.refuses(kind, address, RemoveError::Unknown { address });
            }
        }
    }
    one_of_each.remove_all();
}

/// S34, S59: an address inside another kind's area tells iounmap which area that is.
#[ktest]
fn iounmap_inside_an_area_of_another_kind_is_refused_by_its_kind_s34() {
    let one_of_each = one_of_each();
    for area in one_of_each.areas.into_iter().filter(|area| area.kind != AreaKind::IoRemap) {
        let wanted = RemoveError::WrongKind { address: area.pages.start(), found: area.kind };
        for address in [plus(area.pages.start(), 1), last_of(area.pages)] {
            one_of_each.refuses(AreaKind::IoRemap, address, wanted);
        }
    }
    one_of_each.remove_all();
}

#[ktest]
fn an_address_off_a_page_boundary_is_told_apart_from_an_unknown_one_s32() {
    let one_of_each = one_of_each();
    for area in one_of_each.areas {
        for kind in [AreaKind::Vmalloc, AreaKind::Vmap, AreaKind::Dma] {
            for offset in [1, 2, 4, 0x800, PAGE_SIZE - 1] {
                let address = plus(area.pages.start(), offset);
                one_of_each.refuses(kind, address, RemoveError::Misaligned { address });
            }
        }
    }
    one_of_each.remove_all();
}

/// Null, user addresses, the linear map and the image in it, the window's edges, the top of memory.
#[ktest]
fn addresses_that_never_were_an_area_are_unknown_s32() {
    let window = kernel().window();
    let above = guard_of(window);
    let image = boot::layout::image().start();
    let never = [
        VirtAddr::new(0),
        VirtAddr::new(0x1000),
        VirtAddr::new(0x7fff_f000),
        VirtAddr::new(0x8000_0000),
        image.page_base(),
        VirtAddr::new(window.start().raw() - PAGE_SIZE),
        last_of(window).page_base(),
        above,
        VirtAddr::new(0xffff_f000),
    ];
    let one_of_each = one_of_each();
    for address in never {
        for kind in KINDS {
            one_of_each.refuses(kind, address, RemoveError::Unknown { address });
        }
        assert_eq!((kernel().find(address), kernel().find_containing(address)), (None, None));
    }
    one_of_each.remove_all();
}

/// S14: what lies at the address now is another area, and the old owner's second free must not take it. By kind it can be
/// told; this is why a double free is not harmless even where it is diagnosed.
#[ktest]
fn a_second_free_is_refused_when_another_kind_has_moved_in_s14_s34() {
    let books = Books::now();
    let first = kernel().vmalloc(PAGE_SIZE, Fill::Uninitialised, NOBODY).expect("memory");
    let base = first.pages.start();
    assert_eq!(kernel().vfree(authority(), base), Ok(()));
    let pages = Pages::new(0).expect("memory");
    let second =
        kernel().vmap(&[pages.first()], Attributes::KERNEL_DATA, NOBODY).expect("addresses");
    assert_eq!(second.pages, first.pages, "the lowest fit is the hole just made");
    assert_eq!(
        kernel().vfree(authority(), base),
        Err(RemoveError::WrongKind { address: base, found: AreaKind::Vmap })
    );
    assert_leads(base, pages.physical());
    assert_eq!(kernel().vunmap(authority(), base), Ok(()));
    drop(pages);
    books.assert_unchanged();
}
