//! Domains of devices, seen by the processor in the place of a device (S110).
//!
//! ```text
//!   a test ──with_open──▶ TTBR0: the domain's table ──▶ ldrt, strt: what a device could read and write
//!                                                  └──▶ ATS1CPR, ATS1CPW: where the tables lead
//! ```
//! QEMU's TLB for this board forgets more than it is told to. That an invalidation is missing shows on SoftMachine; here it shows in
//! what the IOTLB was told.

extern crate alloc;

use alloc::vec::Vec;

use arch::exception::{Access, FaultStatus, Level};
use arch::lock::IrqLocks;
use arch::machine::{Authority, CortexA9};
use arch::translate::{Direction, TranslationFault, translate};
use arch::user::{copy_from, copy_to};
use kerncore::addr::{DmaAddr, PAGE_SIZE, Pfn, VirtAddr};
use kerncore::attributes::MemoryType;
use kerncore::descriptor::PageSize;
use kerncore::frames::{FrameList, FrameOwner};
use kerncore::iommu::machine::Iotlb;
use kerncore::iommu::{Domain, Grant, Iova};
use kerncore::layout::linear_address;
use ktest::{Completion, ktest};
use mm::domain::{DeviceDomain, DomainError};
use mm::kernel;

use super::smp::another;

const BASE: DmaAddr = DmaAddr::new(0x1000_0000);
const BYTES: u32 = 64 << 20;
const TYPE: MemoryType = MemoryType::NormalWriteBack;

fn domain() -> DeviceDomain {
    DeviceDomain::new(BASE, BYTES).expect("memory")
}

/// Frames that are not adjacent, and the list that they go back by.
fn scattered(count: u32) -> (FrameList, Vec<Pfn>) {
    let zones = kernel().zones();
    let (mut list, mut gaps) = (FrameList::new(), FrameList::new());
    for _ in 0..count {
        list.push(zones.table(), zones.allocate(0, FrameOwner::Test).expect("memory"));
        gaps.push(zones.table(), zones.allocate(0, FrameOwner::Test).expect("memory"));
    }
    zones.free_list(gaps).expect("the test's own");
    let frames = list.frames(zones.table()).collect();
    (list, frames)
}

fn give_back(list: FrameList) {
    kernel().zones().free_list(list).expect("the test's own");
}

/// Lets the devices of `domain` see frames that are the test's, or that nobody writes.
#[track_caller]
pub(super) fn shown<T: Iotlb>(
    domain: &Domain<'_, '_, CortexA9, T, IrqLocks>,
    runs: impl Iterator<Item = (Pfn, u32)> + Clone,
    grant: Grant,
) -> Iova {
    // SAFETY: by our callers' promise above.
    let authority = unsafe { Authority::claim() };
    domain.map(authority, runs, grant, TYPE).expect("room")
}

fn at(iova: &Iova, offset: u32) -> VirtAddr {
    VirtAddr::new(iova.start().raw() + offset)
}

/// The device reads a word.
pub(super) fn read(address: VirtAddr) -> Result<u32, (FaultStatus, Option<VirtAddr>, Access)> {
    let mut word = [0; 4];
    match copy_from(&mut word, address) {
        Ok(()) => Ok(u32::from_le_bytes(word)),
        Err(error) => Err((error.fault.status, error.fault.address, error.fault.access)),
    }
}

/// The device writes a word.
pub(super) fn write(
    address: VirtAddr,
    word: u32,
) -> Result<(), (FaultStatus, Option<VirtAddr>, Access)> {
    let copied = copy_to(address, &word.to_le_bytes());
    copied.map_err(|error| (error.fault.status, error.fault.address, error.fault.access))
}

/// The kernel's view of a word of a frame.
fn own(frame: Pfn, offset: u32) -> *mut u32 {
    let linear = linear_address(frame.base()).expect("low memory");
    core::ptr::with_exposed_provenance_mut((linear.raw() + offset) as usize)
}

fn single(frame: Pfn) -> (Pfn, u32) {
    (frame, 1)
}

/// S109, S110: what the device writes the kernel reads, and the other way round, frame by frame.
#[ktest]
fn scattered_frames_are_contiguous_to_a_device_and_both_views_agree_s109() {
    const COUNT: u32 = 9;
    let domain = domain();
    let (list, frames) = scattered(COUNT);
    let iova = shown(&domain, frames.iter().copied().map(single), Grant::ReadWrite);
    for (index, &frame) in (0..).zip(&frames) {
        let (seen, word) = (at(&iova, index * PAGE_SIZE + 4 * index), own(frame, 4 * index));
        let mark = 0xd000_0000 | index;
        assert_eq!(domain.with_open(|| write(seen, mark)), Ok(()));
        // SAFETY: the frame is the test's; nobody else writes it.
        assert_eq!(unsafe { word.read_volatile() }, mark);
        // SAFETY: as above.
        unsafe { word.write_volatile(!mark) };
        assert_eq!(domain.with_open(|| read(seen)), Ok(!mark));
        let leads = domain.with_open(|| translate(seen, Direction::Write));
        let physical = frame.base().checked_add(4 * index);
        assert_eq!(leads.ok(), physical, "the processor's own walk");
        let walked = domain.translate(DmaAddr::new(seen.raw())).map(|found| found.physical);
        assert_eq!(walked, physical, "ours");
    }
    let (list, removal) = domain.unmap(iova, list).flush();
    assert_eq!((removal.pages, removal.oddities), (COUNT, 0));
    give_back(list);
}

/// S110: an address that is not mapped faults as such, with status and address; so does a read-only one that is written, and
/// one that the device may not use at all.
#[ktest]
fn a_device_meets_the_fault_that_its_tables_say_s110() {
    let domain = domain();
    let (list, frames) = scattered(1);
    let faults = |status, address, access| Err((status, Some(address), access));
    let translation = |level| FaultStatus::Translation(level);
    let permission = FaultStatus::Permission(Level::Second);
    for (grant, reads, writes) in
        [(Grant::ReadWrite, true, true), (Grant::Read, true, false), (Grant::Nothing, false, false)]
    {
        let iova = shown(&domain, frames.iter().copied().map(single), grant);
        let word = at(&iova, 0x7fc);
        let found = domain.with_open(|| (read(word), write(word, 1)));
        assert_eq!(found.0.is_ok(), reads, "{grant:?}");
        if !reads {
            assert_eq!(found.0, faults(permission, word, Access::Read));
        }
        let refused = faults(permission, word, Access::Write).map(|_: u32| ());
        assert_eq!(found.1, if writes { Ok(()) } else { refused }, "{grant:?}");
        // Behind it, below the same second-level table; and where there is none.
        let behind = at(&iova, PAGE_SIZE + 8);
        let wanted = faults(translation(Level::Second), behind, Access::Read);
        assert_eq!(domain.with_open(|| read(behind)), wanted);
        let far = at(&iova, 32 << 20);
        let wanted = faults(translation(Level::First), far, Access::Write).map(|_: u32| ());
        assert_eq!(domain.with_open(|| write(far, 1)), wanted);
        let status = FaultStatus::Translation(Level::First);
        let refused = TranslationFault::Refused { address: far, status };
        assert_eq!(domain.with_open(|| translate(far, Direction::Read)), Err(refused));
        domain.unmap(iova, ()).flush();
        assert_eq!(
            domain.with_open(|| read(word)),
            faults(translation(Level::Second), word, Access::Read),
            "unmapped"
        );
    }
    give_back(list);
}

/// S110: the same address of two domains, and of none.
#[ktest]
fn two_domains_do_not_see_each_other_and_who_has_none_sees_nothing_s110() {
    let (list, frames) = scattered(2);
    let domains = [domain(), domain()];
    let mut iovas = Vec::new();
    for (domain, frame) in domains.iter().zip(&frames) {
        iovas.push(shown(domain, [single(*frame)].into_iter(), Grant::ReadWrite));
    }
    let word = at(&iovas[0], 16);
    assert_eq!(word, at(&iovas[1], 16), "the same address of both");
    for (mark, domain) in (1..).zip(&domains) {
        assert_eq!(domain.with_open(|| write(word, mark)), Ok(()));
    }
    for (mark, domain) in (1..).zip(&domains) {
        assert_eq!(domain.with_open(|| read(word)), Ok(mark));
    }
    // SAFETY: the frames are the test's.
    let own = [0, 1].map(|index: usize| unsafe { own(frames[index], 16).read_volatile() });
    assert_eq!(own, [1, 2]);
    assert!(read(word).is_err(), "no domain");
    for (domain, iova) in domains.iter().zip(iovas) {
        domain.unmap(iova, ()).flush();
    }
    give_back(list);
}

/// S109: an entry of each size, as the processor walks it.
#[ktest]
fn entries_of_all_sizes_lead_where_they_should_s109() {
    let domain = domain();
    let ram = kernel().zones().table().first();
    // Devices may be led to frames that others have, as long as nobody writes there.
    for (pages, size) in [
        (1, PageSize::Small),
        (16, PageSize::Large),
        (256, PageSize::Section),
        (4096, PageSize::Supersection),
    ] {
        // Of 16 MiB there may be no whole one in which all frames are somebody's: such entries are looked at, and not used.
        let first = Pfn::new(ram.number().next_multiple_of(4096)).expect("RAM");
        let iova = shown(&domain, [(first, pages)].into_iter(), Grant::Read);
        for page in [0, pages / 2, pages - 1] {
            let address = at(&iova, page * PAGE_SIZE + 12);
            let physical = first.base().checked_add(page * PAGE_SIZE + 12);
            let leads = domain.with_open(|| translate(address, Direction::Read));
            assert_eq!(leads.ok(), physical, "{size:?}");
            let walked = domain.translate(DmaAddr::new(address.raw())).expect("mapped");
            assert_eq!((Some(walked.physical), walked.size), (physical, size));
        }
        let last = at(&iova, (pages - 1) * PAGE_SIZE);
        domain.unmap(iova, ()).flush();
        assert!(domain.with_open(|| read(last)).is_err());
    }
}

/// S23: what one CPU unmaps another does not see.
#[ktest]
fn what_one_cpu_unmaps_another_does_not_see_smp() -> Completion {
    let other = match another() {
        Ok(other) => other,
        Err(skipped) => return skipped,
    };
    let domain = domain();
    let (list, frames) = scattered(1);
    for round in 0..64_u32 {
        let iova = shown(&domain, frames.iter().copied().map(single), Grant::ReadWrite);
        let word = at(&iova, 4 * round);
        let there = || domain.with_open(|| write(word, round));
        assert_eq!(arch::smp::run_on(other, there).expect("it serves"), Ok(()));
        assert_eq!(domain.with_open(|| read(word)), Ok(round));
        domain.unmap(iova, ()).flush();
        let later = arch::smp::run_on(other, || domain.with_open(|| read(word)));
        assert!(later.expect("it serves").is_err());
    }
    give_back(list);
    Completion::Ran
}

/// S108: a window that cannot be is refused by what is wrong with it.
#[ktest]
fn a_domain_that_cannot_be_is_refused_s108() {
    for (base, bytes) in [(0x1000_0800, PAGE_SIZE), (0x1000_0000, 100), (0xffff_f000, PAGE_SIZE)] {
        let made = DeviceDomain::new(DmaAddr::new(base), bytes);
        assert!(matches!(made, Err(DomainError::Create(_))), "{base:#x}, {bytes}");
    }
}
