//! The tables of programs and of devices' domains are tables like the kernel's: nobody else has them, and each is counted (S112).

use crate::mutants::iommu::{Devices, audit as audit_domain, domain_of, single};
use crate::mutants::user::{Programs, Right, audit, own_page};
use histories::bed::{Bed, CALLER, page};
use kerncore::{
    addr::{PAGE_SIZE, Pfn, PhysAddr},
    attributes::{Attributes, MemoryType},
    audit::Violation,
    descriptor::l1,
    frames::FrameOwner,
    iommu::{DomainViolation, Grant},
    kernel_space::VmapError,
    kmap::KmapError,
    ledger::{Count, Item},
    machine::Machine,
};

const OWNER: FrameOwner = FrameOwner::PageTable;
const TYPE: MemoryType = MemoryType::NormalWriteBack;

/// The frame of the first second-level table that the table at `root` names.
fn leaf_below(bed: &Bed, root: PhysAddr) -> Pfn {
    let slots = (0..2048).map(|index| PhysAddr::new(root.raw() + index * 4));
    let mut words = slots.map(|slot| bed.machine.cpu(0).read_descriptor(slot));
    let above = words.find(|word| word & 3 == 1).expect("something is mapped");
    PhysAddr::new(above & !0x3ff).pfn()
}

/// No device has it for a transfer, and no second mapping writes it.
fn assert_kept(bed: &Bed, frame: Pfn) {
    assert_eq!(bed.space.zones().table().owner_of(frame), OWNER);
    let (refused, attributes) =
        (KmapError::KernelsOwn { frame, owner: OWNER }, Attributes::KERNEL_DATA);
    for bytes in [1, 64, PAGE_SIZE] {
        let is_streamable = bed.space.is_streamable(frame.base(), bytes, |_| true);
        assert_eq!(is_streamable, Err(refused));
    }
    let mapped = bed.space.vmap(&[frame], attributes, CALLER);
    assert_eq!(mapped, Err(VmapError::Protection { frame, owner: OWNER, wanted: attributes }));
}

/// S105, S112: of both levels, of programs and of domains.
#[test]
fn no_device_has_a_table_of_a_program_or_of_a_domain_s105_s112() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let (devices, programs) = (Devices::new(bed), Programs::new(bed, &Right));
        let domain = domain_of(&devices, 0, 0xf000_0000);
        let (list, frames) = bed.frames(1);
        let run = || [single(frames[0])].into_iter();
        let iova = domain.map((), run(), Grant::Read, TYPE).expect("room");
        let space = programs.space();
        own_page(&space, 1);
        let tables = |root: PhysAddr, root_pages| {
            let leaf = leaf_below(bed, root);
            let first = root.pfn();
            (0..root_pages).filter_map(move |index| first.checked_add(index)).chain([leaf])
        };
        let all: Vec<Pfn> = tables(domain.root(), 4).chain(tables(space.root(), 2)).collect();
        let _beside = bed.beside(4 + 1 + 2 + 1);
        bed.changes_nothing(|bed| all.iter().for_each(|&frame| assert_kept(bed, frame)));
        // Whoever may map any frame gives the table to the device, and the audit sees it.
        for &frame in &all {
            let shown = domain.map((), [single(frame)].into_iter(), Grant::Read, TYPE);
            let shown = shown.expect("room");
            let mut found = Vec::new();
            domain.audit(&mut |violation| found.push(violation));
            let (address, physical) = (page(shown.start().raw() / PAGE_SIZE), frame.base());
            assert_eq!(found, [DomainViolation::Owner { address, physical, had: OWNER }]);
            domain.unmap(shown, ()).flush();
        }
        let (list, _) = domain.unmap(iova, list).flush();
        bed.feed(list);
    });
}

/// S16: one frame too many or too few is seen, and so is one that nobody has any more.
#[test]
fn tables_of_programs_and_domains_are_counted_to_the_last_frame() {
    let bed = Bed::warm();
    let before = bed.ledger();
    let own = before.frames[OWNER as usize];
    let (devices, programs) = (Devices::new(&bed), Programs::new(&bed, &Right));
    let domain = domain_of(&devices, 0, 16 << 20);
    let space = programs.space();
    own_page(&space, 1);
    let made = audit_domain(&domain).table_frames + audit(&space).table_frames;
    assert_eq!(made, 2 + 2 + 1, "the domain's root, the program's root and its table");
    bed.clean_beside(made);
    for wrong in [0, made - 1, made + 1] {
        let beside = bed.beside(wrong);
        let (owner, owned, found) = (OWNER, own + made, own + wrong);
        bed.finds(&[Violation::FrameCount { owner, owned, found }]);
        drop(beside);
    }
    drop(space);
    bed.clean_beside(2);
    // Forgotten, its tables are nobody's.
    core::mem::forget(domain);
    bed.finds(&[Violation::FrameCount { owner: OWNER, owned: own + 2, found: own }]);
    let after = bed.ledger();
    let leaks: Vec<_> = before.leaks(&after).map(|leak| (leak.item, leak.after)).collect();
    assert_eq!(leaks, [(Item::Count(Count::SpaceTables), 2)]);
    assert_eq!(
        before.leaks(&after).map(|leak| leak.to_string()).collect::<Vec<_>>(),
        ["table frames of programs and devices: 2 more"]
    );
}

/// S16: a slot that names a table in somebody's data, though the number of tables is right.
#[test]
fn a_domains_table_in_a_frame_that_is_no_tables_is_seen() {
    let bed = Bed::warm();
    let devices = Devices::new(&bed);
    let domain = domain_of(&devices, 0, 16 << 20);
    let (list, frames) = bed.frames(1);
    let run = [single(frames[0])].into_iter();
    let iova = domain.map((), run, Grant::Read, TYPE).expect("room");
    let address = page((iova.start().raw() / PAGE_SIZE) & !0xff);
    let slot = PhysAddr::new(domain.root().raw() + l1::index(address) * 4);
    for had in [FrameOwner::User, FrameOwner::Test] {
        let other = bed.space.zeroed_frames(0, had).expect("memory");
        let table = other.first().base();
        let was = bed.poke(slot, table.raw() | 1);
        let mut found = Vec::new();
        domain.audit(&mut |violation| found.push(violation));
        bed.poke(slot, was);
        assert!(
            found.contains(&DomainViolation::ForeignTable { address, table, had }),
            "{found:?}"
        );
        bed.space.zones().free(other).expect("the test's own");
    }
    let (list, _) = domain.unmap(iova, list).flush();
    bed.feed(list);
}
