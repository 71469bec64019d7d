//! Wrong ways to map for a device: an IOTLB that is not told, frames that go too early, entries of other sizes.

use super::{Goes, Verdict, board, same};
use histories::bed::{Bed, RAM, frame};
use kerncore::{
    addr::{DmaAddr, PAGE_SIZE, PageRange, Pfn, PhysAddr, VirtAddr},
    attributes::MemoryType,
    descriptor::{PageSize, l1, l2},
    iommu::{
        CreateError, Domain, DomainSummary, Grant,
        iova::IovaSpace,
        machine::{CpuIotlb, Iotlb},
    },
    machine::Machine,
    pool::Word,
    user::Spaces,
};
use machine::{Behaviour, Fault, HostLocks, Kind, Privilege, SoftCpu};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    None,
    NothingInvalidated,
    FirstPageAlone,
    LastPageLeftOut,
    NothingForgottenAtTheEnd,
    FreesBeforeTheFlush,
    FreesBeforeTheUnmap,
}

/// What is remembered of a domain, by CPUs that are told what they should be told, or not.
#[derive(Debug)]
pub(crate) struct Unit {
    cpus: CpuIotlb<'static, SoftCpu<'static>, HostLocks>,
    mistake: Mistake,
}

impl Iotlb for Unit {
    fn invalidate(&self, pages: PageRange) {
        let part = match self.mistake {
            Mistake::NothingInvalidated => None,
            Mistake::FirstPageAlone => pages.sub_range(0, 1),
            Mistake::LastPageLeftOut => pages.sub_range(0, pages.count() - 1),
            _ => Some(pages),
        };
        if let Some(part) = part.filter(|part| !part.is_empty()) {
            self.cpus.invalidate(part);
        }
    }

    fn invalidate_all(&self) {
        if self.mistake != Mistake::NothingForgottenAtTheEnd {
            self.cpus.invalidate_all();
        }
    }
}

pub(crate) type Of<'b, M = SoftCpu<'static>> = Domain<'b, 'static, M, Unit, HostLocks>;

/// A kernel with devices behind an IOMMU, for which its CPUs stand in.
pub(crate) struct Devices<'b, M: Machine = SoftCpu<'static>> {
    pub(crate) bed: &'b Bed<M>,
    pub(crate) spaces: &'static Spaces<HostLocks>,
    mistake: Mistake,
}

impl<'b, M: Machine<Authority = ()> + Clone> Devices<'b, M> {
    pub(crate) fn new(bed: &'b Bed<M>) -> Self {
        Self::with(bed, Mistake::None)
    }

    pub(crate) fn with(bed: &'b Bed<M>, mistake: Mistake) -> Self {
        let root = bed.space.table().root();
        for number in [0, 1] {
            bed.machine.cpu(number).split(root, root);
        }
        // As few as there can be, so that one who goes leaves his to the next.
        Self { bed, spaces: Box::leak(Box::new(Spaces::with_numbers(root, 5))), mistake }
    }

    pub(crate) fn cpu(&self, number: usize) -> SoftCpu<'static> {
        self.bed.machine.cpu(number)
    }

    pub(crate) fn domain(&self, base: DmaAddr, bytes: u32) -> Result<Of<'b, M>, CreateError> {
        let window = Of::<M>::window_of(base, bytes)?;
        let words = vec![Word::FREE; IovaSpace::words_for(window)].leak();
        let cpus = CpuIotlb::new(self.cpu(0), self.spaces);
        Domain::new(&self.bed.space, Unit { cpus, mistake: self.mistake }, window, words)
    }

    /// Where the second-level slot of `address` lies.
    pub(crate) fn slot(&self, domain: &Of<'_, M>, address: VirtAddr) -> PhysAddr {
        let above = PhysAddr::new(domain.root().raw() + l1::index(address) * 4);
        let above = self.cpu(0).read_descriptor(above);
        assert_eq!(above & 3, 1, "no table above {address}");
        PhysAddr::new((above & !0x3ff) + l2::index(address) * 4)
    }
}

/// Runs `act` while `cpu` sees what the domain's device does.
pub(crate) fn with_open<M: Machine, R>(
    domain: &Of<'_, M>,
    cpu: &SoftCpu<'static>,
    act: impl FnOnce() -> R,
) -> R {
    domain.iotlb().cpus.with_open_on(cpu, domain.root(), act)
}

/// The domain of `bytes` from `base`.
pub(crate) fn domain_of<'b, M: Machine<Authority = ()> + Clone>(
    devices: &Devices<'b, M>,
    base: u32,
    bytes: u32,
) -> Of<'b, M> {
    devices.domain(DmaAddr::new(base), bytes).expect("memory")
}

/// A run of one frame.
pub(crate) fn single(frame: Pfn) -> (Pfn, u32) {
    (frame, 1)
}

/// The audit of `domain` finds nothing.
#[track_caller]
pub(crate) fn audit<M: Machine>(domain: &Of<'_, M>) -> DomainSummary {
    domain.audit(&mut |violation| panic!("{violation}"))
}

fn hoarding() -> Bed {
    let bed = Bed::on(Behaviour::Hoarding);
    bed.warm_up();
    bed
}

const TYPE: MemoryType = MemoryType::NormalWriteBack;

fn may_read(cpu: &SoftCpu<'_>, address: VirtAddr) -> Result<PhysAddr, Fault> {
    cpu.access(address, Kind::Read, Privilege::User)
}

/// S23, S110: when frames go to somebody else, no device sees them any more, on whichever page of whatever entry.
fn an_unmapped_page_is_seen_by_no_device(subject: &impl Goes<Mistake>) -> Verdict {
    let mistake = subject.how();
    let bed = hoarding();
    let devices = Devices::with(&bed, mistake);
    let domain = domain_of(&devices, 0, 4 << 20);
    let cpu = devices.cpu(1);
    let (list, frames) = bed.frames(5);
    let runs = frames.iter().copied().map(single);
    let iova = domain.map((), runs, Grant::Read, TYPE).map_err(|error| error.to_string())?;
    let start = iova.start().raw();
    let pages = [0, 2, 4].map(|page| VirtAddr::new(start + page * PAGE_SIZE));
    let gone = pages.map(|page| Err(Fault::Translation(page)));
    with_open(&domain, &cpu, || {
        let before = pages.map(|page| may_read(&cpu, page).is_ok());
        same("before", &before, &[true; 3])?;
        match mistake {
            Mistake::FreesBeforeTheFlush => {
                let unmapped = domain.unmap(iova, ());
                let seen = pages.map(|page| may_read(&cpu, page));
                bed.feed(list);
                unmapped.flush();
                same("when they went", &seen, &gone)
            }
            Mistake::FreesBeforeTheUnmap => {
                let seen = pages.map(|page| may_read(&cpu, page));
                bed.feed(list);
                domain.unmap(iova, ()).flush();
                same("when they went", &seen, &gone)
            }
            _ => {
                let (list, _) = domain.unmap(iova, list).flush();
                let seen = pages.map(|page| may_read(&cpu, page));
                bed.feed(list);
                same("when they went", &seen, &gone)
            }
        }
    })
}

/// S23, S108: a domain that goes is remembered by nobody, under whatever number the next one has.
fn a_domain_that_went_is_not_remembered(subject: &impl Goes<Mistake>) -> Verdict {
    let mistake = subject.how();
    let bed = hoarding();
    let devices = Devices::with(&bed, mistake);
    let cpu = devices.cpu(0);
    for mark in 1..8_u32 {
        let domain = domain_of(&devices, 0, 1 << 20);
        let run = [(frame(RAM + mark), 1)].into_iter();
        let iova = domain.map((), run, Grant::Read, TYPE).map_err(|error| error.to_string())?;
        let page = VirtAddr::new(iova.leak().raw());
        let seen = with_open(&domain, &cpu, || may_read(&cpu, page));
        same("what the next device sees", &seen, &Ok(frame(RAM + mark).base()))?;
    }
    Ok(())
}

/// How entries are chosen.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Right,
    /// Small pages alone.
    Small,
    /// Nothing larger than a section's part: runs are cut at every MiB.
    CutAtSections,
    /// By the device's address alone: frames are moved to where they would fit.
    FramesRoundedDown,
}

/// S109: what there is of each page of one mapping: its entry's size, and where it leads.
fn entries_are_chosen_by_both_sides(choice: &impl Goes<Choice>) -> Verdict {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0, 64 << 20);
    for (first, count) in [(0x3_0000, 4096), (0x3_0100, 512), (0x3_0010, 40), (0x3_0008, 300)] {
        let cut = |pages: u32| (0..count).step_by(pages as usize).map(move |at| (at, pages));
        let runs: Vec<(Pfn, u32)> = match choice.how() {
            Choice::Right => vec![(frame(first), count)],
            Choice::Small => cut(1).map(|(at, pages)| (frame(first + at), pages)).collect(),
            Choice::CutAtSections => {
                cut(256).map(|(at, pages)| (frame(first + at), pages.min(count - at))).collect()
            }
            Choice::FramesRoundedDown => vec![(frame(first & !15), count)],
        };
        let iova = domain
            .map((), runs.into_iter(), Grant::Read, TYPE)
            .map_err(|error| error.to_string())?;
        let start = iova.start().raw();
        for page in 0..count {
            let address = DmaAddr::new(start + page * PAGE_SIZE);
            let found = domain.translate(address);
            let found = found.map(|found| (found.size, found.physical.pfn().number()));
            let fits = |size: &PageSize| {
                let pages = size.bytes() / PAGE_SIZE;
                let (low, at) = (page - page % pages, start / PAGE_SIZE);
                (at + low).is_multiple_of(pages)
                    && (first + low).is_multiple_of(pages)
                    && low + pages <= count
            };
            let sizes = [PageSize::Supersection, PageSize::Section, PageSize::Large];
            let size = sizes.into_iter().find(fits).unwrap_or(PageSize::Small);
            same("an entry", &found, &Some((size, first + page)))?;
        }
        domain.unmap(iova, ()).flush();
    }
    Ok(())
}

board! {
    an_unmapped_page_is_seen_by_no_device(Mistake::None) {
        forgets_the_iotlb: "S110", "the IOTLB is told nothing of what was unmapped", Mistake::NothingInvalidated;
        forgets_the_first_page_alone: "S110", "the IOTLB is told of the first page of a range", Mistake::FirstPageAlone;
        leaves_the_last_page_in_the_iotlb: "S110", "the IOTLB is not told of the last page of a range", Mistake::LastPageLeftOut;
        frees_before_the_iotlb_forgets: "S81", "frames go when the entries do, before the flush", Mistake::FreesBeforeTheFlush;
        frees_before_the_device_is_unmapped: "S81", "frames go before the device addresses", Mistake::FreesBeforeTheUnmap;
    }
    a_domain_that_went_is_not_remembered(Mistake::None) {
        leaves_a_domain_in_the_iotlb: "S108", "a domain's number changes hands with its entries", Mistake::NothingForgottenAtTheEnd;
    }
    entries_are_chosen_by_both_sides(Choice::Right) {
        maps_devices_by_small_pages_alone: "S109", "no entry is larger than 4 KiB", Choice::Small;
        makes_no_supersections_for_devices: "S109", "runs are cut at every MiB", Choice::CutAtSections;
        rounds_frames_down_to_fit: "S109", "the device's address alone decides, and the frames are rounded", Choice::FramesRoundedDown;
    }
}
