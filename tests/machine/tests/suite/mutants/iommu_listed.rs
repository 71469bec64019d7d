//! Wrong ways with the pages of a list: what is nobody's is shown, what is another's is hidden, and the IOTLB is not told.

use super::iommu::{Devices, Mistake, Of, domain_of, with_open};
use super::{Goes, Verdict, board, same};
use crate::iommu_listed::{records_of, with_tables};
use histories::bed::Bed;
use kerncore::{
    addr::{DmaAddr, PAGE_SIZE, Pfn, PhysAddr, VirtAddr},
    attributes::MemoryType,
    frames::FrameOwner,
    iommu::{Grant, Iova},
    streaming::Flow,
};
use machine::{Behaviour, Fault, Kind, Privilege, SoftCpu};

const FLOW: Flow = Flow::ToDevice;
const TYPE: MemoryType = MemoryType::NormalWriteBack;

/// How lists are mapped and ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Right,
    /// Whose a page is is not asked when it is mapped.
    ShowsAnybodys,
    /// Pages before the one that is refused stay mapped.
    KeepsTheFirst,
    /// One that is refused is left out.
    LeavesOut,
    /// The pages of the list are not compared with what was mapped.
    EndsAnyList,
    /// The first of them alone is.
    ComparesTheFirst,
    /// The last of them is not.
    OverlooksTheLast,
    /// Whose a page is by now is not asked.
    EndsWhatWasFreed,
    /// What is not the list is ended, and refused all the same.
    RefusesTooLate,
}

/// A domain, and how lists go there.
struct Lists<'d, 'b> {
    domain: &'d Of<'b>,
    bed: &'b Bed,
    way: Way,
}

impl Lists<'_, '_> {
    fn frame(&self, record: usize) -> Option<Pfn> {
        self.bed.space.zones().table().frame_at_record(record)
    }

    fn is_somebodys(&self, record: usize) -> bool {
        let belongs = self.bed.space.zones().table().belonging_at_record(record);
        belongs.is_some_and(|page| page.owner == FrameOwner::Pages)
    }

    fn map(&self, records: &[usize]) -> Option<DmaAddr> {
        let mut all = records.iter().copied();
        let bad = records.iter().position(|&record| !self.is_somebodys(record));
        let part = match (self.way, bad) {
            (Way::ShowsAnybodys, _) => records.to_vec(),
            (Way::KeepsTheFirst, Some(bad)) => records[..bad].to_vec(),
            (Way::LeavesOut, Some(_)) => all.filter(|&record| self.is_somebodys(record)).collect(),
            _ => {
                let pages = u32::try_from(records.len()).ok()?;
                return self.domain.map_list_at_hand((), pages, FLOW, &mut all);
            }
        };
        let pages = u32::try_from(part.len()).ok()?;
        let frames = part.into_iter().map(|record| self.frame(record));
        let iova = self.domain.map_pages((), frames, pages, Grant::for_flow(FLOW), TYPE);
        iova.ok().map(Iova::leak).filter(|_| self.way != Way::KeepsTheFirst)
    }

    fn unmap(&self, start: DmaAddr, records: &[usize]) -> bool {
        let Some(pages) = u32::try_from(records.len()).ok() else { return false };
        let is_same = |page: usize| {
            let at = DmaAddr::new(start.raw() + u32::try_from(page).expect("a few") * PAGE_SIZE);
            let found = self.domain.translate(at).map(|found| found.physical.pfn());
            found.is_some() && found == self.frame(records[page])
        };
        let is_it = match self.way {
            Way::EndsAnyList => true,
            Way::ComparesTheFirst => is_same(0),
            Way::OverlooksTheLast => (0..records.len() - 1).all(is_same),
            Way::EndsWhatWasFreed => (0..records.len()).all(is_same),
            Way::RefusesTooLate => {
                let is_it = (0..records.len()).all(is_same);
                if let Ok(iova) = self.domain.claim((), start, pages) {
                    self.domain.unmap(iova, ()).flush();
                }
                return is_it;
            }
            _ => {
                let mut all = records.iter().copied();
                let run = (start, pages);
                return self.domain.unmap_list_at_hand((), run, FLOW, &mut all, |_| true);
            }
        };
        match self.domain.claim((), start, pages) {
            Ok(iova) if is_it => {
                self.domain.unmap(iova, ()).flush();
                true
            }
            _ => false,
        }
    }
}

/// Pages by themselves.
fn pages(bed: &Bed, count: usize) -> Vec<Pfn> {
    let page = || bed.space.zones().allocate(0, FrameOwner::Pages).expect("memory").leak().0;
    (0..count).map(|_| page()).collect()
}

/// S105: a list is mapped as a whole, or nothing of it is; and no page that is nobody's.
fn a_list_is_shown_as_a_whole_or_not_at_all(way: &impl Goes<Way>) -> Verdict {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0, 4 << 20);
    with_tables(&domain);
    let lists = Lists { domain: &domain, bed: &bed, way: way.how() };
    let free = bed.space.zones().allocate(0, FrameOwner::Pages).expect("memory");
    let hole = free.first();
    let mut frames = pages(&bed, 20);
    let good = records_of(&bed, &frames);
    bed.space.zones().free(free).expect("the test's own");
    let start = lists.map(&good).ok_or("a good list was refused")?;
    same("a good list", &lists.unmap(start, &good), &true)?;
    for index in [0, 1, 13, 19] {
        let page = core::mem::replace(&mut frames[index], hole);
        let found = lists.map(&records_of(&bed, &frames));
        same("a list with a page that is free", &found, &None)?;
        same("the addresses", &domain.is_unused(), &true)?;
        frames[index] = page;
    }
    Ok(())
}

/// S105: a list that is not what was mapped, or whose pages are nobody's, stays mapped.
fn a_list_is_hidden_as_what_it_is_or_not_at_all(way: &impl Goes<Way>) -> Verdict {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0, 4 << 20);
    with_tables(&domain);
    let lists = Lists { domain: &domain, bed: &bed, way: way.how() };
    let mut frames = pages(&bed, 21);
    let other = frames.pop().ok_or("a page")?;
    let good = records_of(&bed, &frames);
    let start = lists.map(&good).ok_or("a good list was refused")?;
    for index in [0, 1, 13, 19] {
        let mut list = frames.clone();
        list[index] = other;
        let ended = lists.unmap(start, &records_of(&bed, &list));
        same("another page's end", &ended, &false)?;
        same("what is mapped", &domain.find(start, 20), &Ok(()))?;
    }
    same("its end", &lists.unmap(start, &good), &true)?;
    let free = bed.space.zones().allocate(0, FrameOwner::Pages).expect("memory");
    frames[7] = free.first();
    let list = records_of(&bed, &frames);
    let start = lists.map(&list).ok_or("a good list was refused")?;
    bed.space.zones().free(free).expect("the test's own");
    same("the end of what is free", &lists.unmap(start, &list), &false)?;
    same("what is mapped", &domain.find(start, 20), &Ok(()))
}

fn may_read(cpu: &SoftCpu<'_>, address: VirtAddr) -> Result<PhysAddr, Fault> {
    cpu.access(address, Kind::Read, Privilege::User)
}

/// S23, S81, S110: when it returns, and so when anybody can have the addresses or the frames, the device sees none of them.
fn hidden_pages_of_a_list_are_seen_by_no_device(subject: &impl Goes<Mistake>) -> Verdict {
    let mistake = subject.how();
    let bed = Bed::on(Behaviour::Hoarding);
    bed.warm_up();
    let devices = Devices::with(&bed, mistake);
    let domain = domain_of(&devices, 0, 4 << 20);
    let cpu = devices.cpu(1);
    with_tables(&domain);
    let all = pages(&bed, 300);
    for count in [2_u32, 20, 300] {
        let records = records_of(&bed, &all[..count as usize]);
        let mut mapped = records.iter().copied();
        let seen = domain.map_list_at_hand((), count, FLOW, &mut mapped);
        let start = seen.ok_or("not at hand")?;
        let at = |page: u32| VirtAddr::new(start.raw() + page * PAGE_SIZE);
        let pages = [at(0), at(1), at(count - 1)];
        let look = || pages.map(|page| may_read(&cpu, page));
        let gone = pages.map(|page| Err(Fault::Translation(page)));
        let seen = with_open(&domain, &cpu, || {
            let mut seen = look();
            let may_end = |_: &_| {
                seen = look();
                true
            };
            let mut ended = records.iter().copied();
            if !domain.unmap_list_at_hand((), (start, count), FLOW, &mut ended, may_end) {
                return Err("not at hand".to_owned());
            }
            if mistake != Mistake::FreesBeforeTheUnmap {
                seen = look();
            }
            Ok(seen)
        })?;
        same("when they went", &seen, &gone)?;
    }
    Ok(())
}

board! {
    a_list_is_shown_as_a_whole_or_not_at_all(Way::Right) {
        shows_lists_of_anybodys_pages: "S105", "whose a list's page is is not asked when it is mapped", Way::ShowsAnybodys;
        keeps_the_first_of_a_refused_list: "S105", "pages before the one that is refused stay mapped", Way::KeepsTheFirst;
        leaves_refused_pages_out_of_a_list: "S105", "a page that is refused is left out of its list", Way::LeavesOut;
    }
    a_list_is_hidden_as_what_it_is_or_not_at_all(Way::Right) {
        hides_any_list: "S67", "the pages of a list are not compared with what was mapped", Way::EndsAnyList;
        compares_the_first_page_of_a_list: "S67", "the first page of a list alone is compared", Way::ComparesTheFirst;
        overlooks_the_last_page_of_a_list: "S67", "the last page of a list is not compared", Way::OverlooksTheLast;
        hides_lists_of_freed_pages: "S105", "whose a list's page is by now is not asked", Way::EndsWhatWasFreed;
        refuses_a_list_that_is_gone: "S67", "a list that is not what was mapped is ended, and then refused", Way::RefusesTooLate;
    }
    hidden_pages_of_a_list_are_seen_by_no_device(Mistake::None) {
        hides_a_list_and_forgets_the_iotlb: "S110", "the IOTLB is told nothing of a list that was hidden", Mistake::NothingInvalidated;
        hides_a_list_and_forgets_the_first_alone: "S110", "the IOTLB is told of the first page of a list", Mistake::FirstPageAlone;
        hides_a_list_and_leaves_the_last: "S110", "the IOTLB is not told of the last page of a list", Mistake::LastPageLeftOut;
        frees_a_list_where_it_may_end: "S81", "frames go when the list may end, before it has", Mistake::FreesBeforeTheUnmap;
    }
}
