//! Wrong ways to hide a few frames from a device in one go: an IOTLB that is not told, frames that go before it is.

use super::iommu::{Devices, Mistake, domain_of, with_open};
use super::{Goes, Verdict, board, same};
use histories::bed::{Bed, RAM, frame};
use kerncore::{
    addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr},
    attributes::MemoryType,
    coherent::Coherency,
    iommu::Grant,
    streaming::Flow,
};
use machine::{Behaviour, Fault, Kind, Privilege, SoftCpu};

/// The highest address of a device that reaches all.
const ANYWHERE: DmaAddr = DmaAddr::new(u32::MAX);

fn may_read(cpu: &SoftCpu<'_>, address: VirtAddr) -> Result<PhysAddr, Fault> {
    cpu.access(address, Kind::Read, Privilege::User)
}

/// S23, S81, S110: when it returns, and so when anybody can have the addresses or the frames, the device sees none of them.
fn few_hidden_pages_are_seen_by_no_device(subject: &impl Goes<Mistake>) -> Verdict {
    let mistake = subject.how();
    let bed = Bed::on(Behaviour::Hoarding);
    bed.warm_up();
    let devices = Devices::with(&bed, mistake);
    let domain = domain_of(&devices, 0, 4 << 20);
    let cpu = devices.cpu(1);
    // So that there is a table.
    let run = [(frame(RAM), 1)].into_iter();
    let iova = domain.map((), run, Grant::Read, MemoryType::NormalWriteBack);
    domain.unmap(iova.map_err(|error| error.to_string())?, ()).flush();
    let how = (Flow::ToDevice, Coherency::Coherent);
    for count in [1, 3, 16] {
        let first = frame(RAM + 0x40);
        let seen = match count {
            1 => domain.map_page_at_hand((), first, how, ANYWHERE),
            16 => domain.map_large_page_at_hand((), first, how, ANYWHERE),
            count => domain.map_few_at_hand((), (first, count), how, ANYWHERE),
        };
        let start = seen.ok_or("not at hand")?;
        let pages: Vec<VirtAddr> =
            (0..count).map(|page| VirtAddr::new(start.raw() + page * PAGE_SIZE)).collect();
        let look = || pages.iter().map(|&page| may_read(&cpu, page)).collect::<Vec<_>>();
        let gone: Vec<_> = pages.iter().map(|&page| Err(Fault::Translation(page))).collect();
        let seen = with_open(&domain, &cpu, || {
            let mut seen = look();
            let may_end = |_| {
                if mistake == Mistake::FreesBeforeTheUnmap {
                    seen = look();
                }
                true
            };
            let is_hidden = match count {
                1 => domain.unmap_page_at_hand((), start, may_end),
                16 => domain.unmap_large_page_at_hand((), start, may_end),
                count => domain.unmap_few_at_hand((), (start, count), may_end),
            };
            if !is_hidden {
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
    few_hidden_pages_are_seen_by_no_device(Mistake::None) {
        hides_few_and_forgets_the_iotlb: "S110", "the IOTLB is told nothing of few pages that were hidden", Mistake::NothingInvalidated;
        hides_few_and_forgets_the_first_alone: "S110", "the IOTLB is told of the first of few pages", Mistake::FirstPageAlone;
        hides_few_and_leaves_the_last: "S110", "the IOTLB is not told of the last of few pages", Mistake::LastPageLeftOut;
        frees_few_where_they_may_end: "S81", "frames go when the mapping may end, before it has", Mistake::FreesBeforeTheUnmap;
    }
}
