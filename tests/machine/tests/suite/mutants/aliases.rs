//! Guards against mismatched aliases that look away (S95, S97).

use super::{Verdict, board};
use histories::bed::{Bed, CALLER};
use kerncore::{
    addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr},
    area::AreaFlags,
    attributes::Attributes,
    bus::BusRange,
    kernel_space::StaticRequest,
    va_space::Request,
};
use machine::Behaviour;

/// Registers, of which the board has one page mapped for good.
const DEVICE: u32 = 0x1e00_8000;
const FOR_GOOD: u32 = 2;

/// Who maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    IoRemap,
    VmapPfn,
}

/// Whoever maps, by number, pages that follow [`DEVICE`].
trait Maps {
    /// Where they are mapped, unless they are refused.
    fn map(&self, bed: &Bed, by: By, pages: &[u32], wanted: Attributes) -> Option<VirtAddr>;
}

fn frame(page: u32) -> Pfn {
    Pfn::new(DEVICE / PAGE_SIZE + page).expect("below 4 GiB")
}

/// Ours.
struct Right;

impl Maps for Right {
    fn map(&self, bed: &Bed, by: By, pages: &[u32], wanted: Attributes) -> Option<VirtAddr> {
        match by {
            By::IoRemap => {
                let bytes = u32::try_from(pages.len()).expect("few") * PAGE_SIZE;
                let physical = PhysAddr::new(DEVICE + pages[0] * PAGE_SIZE);
                bed.space.ioremap(physical, bytes, wanted, CALLER).ok()
            }
            By::VmapPfn => {
                let frames: Vec<Pfn> = pages.iter().map(|&page| frame(page)).collect();
                let area = bed.space.vmap_devices(frames.into_iter(), wanted, CALLER);
                area.ok().map(|area| area.pages.start())
            }
        }
    }
}

/// Where it does not look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blind {
    /// What the board has mapped for good is not asked of by `vmap_pfn`.
    ToTheBoard,
    /// Nor by ioremap.
    ToTheBoardAsIoRemap,
    /// One page of the list is judged, for all.
    BehindTheFirstPage,
    /// Mappings of ioremap's are seen, those of `vmap_pfn` are not.
    ToFrameNumbers,
}

impl Blind {
    /// Maps whatever is asked for.
    fn anyhow(bed: &Bed, pages: &[u32], wanted: Attributes) -> Option<VirtAddr> {
        let bytes = u32::try_from(pages.len()).expect("few") * PAGE_SIZE;
        let area = bed.space.reserve_area(Request::of_bytes(bytes), AreaFlags::NONE, CALLER);
        let base = area.ok()?.area.pages.start();
        for (page, offset) in pages.iter().zip(0..) {
            let address = VirtAddr::new(base.raw() + offset * PAGE_SIZE);
            bed.poke_page(address, frame(*page), wanted);
        }
        Some(base)
    }
}

impl Maps for Blind {
    fn map(&self, bed: &Bed, by: By, pages: &[u32], wanted: Attributes) -> Option<VirtAddr> {
        let for_good = |by_whom| by == by_whom && pages.contains(&FOR_GOOD);
        match self {
            Self::ToTheBoard if for_good(By::VmapPfn) => Self::anyhow(bed, pages, wanted),
            Self::ToTheBoardAsIoRemap if for_good(By::IoRemap) => Self::anyhow(bed, pages, wanted),
            Self::BehindTheFirstPage if by == By::VmapPfn => {
                let first = Right.map(bed, by, &pages[..1], wanted)?;
                let _ended = bed.space.vunmap((), first);
                Self::anyhow(bed, pages, wanted)
            }
            Self::ToFrameNumbers if by == By::VmapPfn => {
                let area = Right.map(bed, by, pages, wanted)?;
                let _ended = bed.space.vunmap((), area);
                Self::anyhow(bed, pages, wanted)
            }
            _ => Right.map(bed, by, pages, wanted),
        }
    }
}

/// Of all that one and then another map, no page has two types, and what goes together is not refused.
fn no_page_has_two_types(maps: &impl Maps) -> Verdict {
    const WAYS: [Attributes; 2] = [Attributes::DEVICE, Attributes::WRITE_COMBINE];
    const LISTS: [(By, &[u32]); 6] = [
        (By::IoRemap, &[1, 2]),
        (By::IoRemap, &[4, 5]),
        (By::IoRemap, &[5]),
        (By::VmapPfn, &[2]),
        (By::VmapPfn, &[6, 2, 5]),
        (By::VmapPfn, &[7, 5, 0]),
    ];
    for ((first, one), (second, other)) in LISTS.map(|one| LISTS.map(|other| (one, other))).concat()
    {
        for (of_first, of_second) in WAYS.map(|one| WAYS.map(|other| (one, other))).concat() {
            let mut bed = Bed::warm_on(Behaviour::Forgetful);
            let at = |page| PhysAddr::new(DEVICE + page * PAGE_SIZE);
            let (name, last) = ("l2", PhysAddr::new(at(FOR_GOOD + 1).raw() - 1));
            let range = BusRange { name, first: at(FOR_GOOD), last };
            let request = StaticRequest { range, attributes: Attributes::DEVICE };
            bed.map_statics(&[request]).map_err(|error| error.to_string())?;
            let mut live = vec![(FOR_GOOD, Attributes::DEVICE)];
            for (by, pages, wanted) in [(first, one, of_first), (second, other, of_second)] {
                let clash =
                    live.iter().any(|(page, type_of)| pages.contains(page) && *type_of != wanted);
                let mapped = maps.map(&bed, by, pages, wanted);
                if mapped.is_some() == clash {
                    let what = if clash { "were mapped" } else { "were refused" };
                    return Err(format!("pages {pages:?} {what} as {wanted} beside {live:?}"));
                }
                if mapped.is_some() {
                    live.extend(pages.iter().map(|&page| (page, wanted)));
                }
            }
        }
    }
    Ok(())
}

board! {
    no_page_has_two_types(Right) {
        vmap_pfn_does_not_ask_the_board: "S95, S97", "frames that are mapped for good are mapped by number in another type", Blind::ToTheBoard;
        ioremap_does_not_ask_the_board: "S95", "what is mapped for good is mapped anew in another type", Blind::ToTheBoardAsIoRemap;
        one_frame_is_judged_for_all: "S97", "of a list of frames the first alone is compared with what is mapped", Blind::BehindTheFirstPage;
        what_was_mapped_by_number_is_not_seen: "S97", "ioremap knows its own mappings, not those of vmap_pfn", Blind::ToFrameNumbers;
    }
}
