//! Memory for code on SoftMachine: what is refused, what the audit says of it, and what is left of it (S30, S36, S112). What a
//! seal must not forget is on the board of mutants.

use super::bed::{Bed, CALLER, LowMemory, RAM, RAM_PAGES, WINDOW_PAGES, frame, page};
use crate::mutants::exec::linear_of;
use kerncore::{
    addr::{PAGE_SIZE, VirtAddr},
    area::AreaKind,
    attributes::Attributes,
    audit::Violation,
    frames::{FrameOwner, FrameRequest},
    kernel_space::{ChangeError, ExecError, NoArea, SealError, VmapError},
};
use machine::{Behaviour, Fault, Kind, Privilege};

fn code(bed: &Bed, count: u32) -> VirtAddr {
    let area = bed.space.vmalloc_exec(count * PAGE_SIZE, CALLER).expect("memory");
    assert_eq!((area.kind, area.pages.count()), (AreaKind::Vmalloc, count));
    area.pages.start()
}

/// S14a, S97: frames and linear entries are back as soon as it is freed, sealed or not.
#[test]
fn memory_for_code_is_sound_at_each_stage_and_leaves_nothing_s112() {
    for behaviour in Behaviour::all(4) {
        let bed = Bed::warm_on(behaviour);
        for seals in [0, 1] {
            bed.changes_nothing(|bed| {
                let base = code(bed, 3);
                assert_eq!(bed.clean().code_pages, 3);
                for _ in 0..seals {
                    assert_eq!(bed.space.seal((), base, 3), Ok(()));
                    assert_eq!(bed.clean().code_pages, 3);
                }
                bed.space.vfree((), base).expect("a live area");
            });
        }
    }
}

#[test]
fn what_is_no_memory_for_code_or_not_all_of_it_is_not_sealed_s30() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        assert_eq!(bed.space.vmalloc_exec(0, CALLER), Err(ExecError::ZeroSize));
        let total = bed.space.zones().total();
        for (bytes, wanted) in [(total * PAGE_SIZE + 1, total + 1), (u32::MAX, 0x10_0000)] {
            let refused = bed.space.vmalloc_exec(bytes, CALLER);
            assert_eq!(refused, Err(ExecError::MoreThanMemory { wanted, total }));
        }
        let (base, data) = (code(bed, 3), bed.vmalloc(1));
        let seal = |address, pages| bed.space.seal((), address, pages).expect_err("refused");
        let found = AreaKind::Vmalloc;
        assert_eq!(seal(data, 1), SealError::NotExec { address: data, found });
        for given in [0, 1, 2, 4, u32::MAX] {
            let partial = SealError::Partial { address: base, area: 3, given };
            assert_eq!(seal(base, given), partial);
        }
        let inside = page(base.page_number() + 1);
        assert_eq!(seal(inside, 2), SealError::Area(ChangeError::Unknown { address: inside }));
        let odd = VirtAddr::new(base.raw() + 4);
        assert_eq!(seal(odd, 3), SealError::Area(ChangeError::Misaligned { address: odd }));
        // None of these has changed anything.
        assert_eq!(bed.machine.cpu(0).store(base, 1), Ok(()));
        assert_eq!(bed.machine.cpu(0).fetch(base), Err(Fault::Permission(base)));
        assert_eq!(bed.space.seal((), base, 3), Ok(()));
        assert_eq!(seal(base, 3), SealError::Sealed { address: base });
        assert_eq!(bed.machine.cpu(0).fetch(base), Ok(1));
        for area in [base, data] {
            bed.space.vfree((), area).expect("a live area");
        }
    });
}

/// S112: nobody makes a second view of code, be it writable or not.
#[test]
fn frames_of_code_are_mapped_nowhere_else_s112() {
    let bed = Bed::warm();
    let base = code(&bed, 1);
    let frame = bed.frame_at(base);
    for seals in [0, 1] {
        for _ in 0..seals {
            assert_eq!(bed.space.seal((), base, 1), Ok(()));
        }
        for attributes in [Attributes::KERNEL_DATA, Attributes::KERNEL_RODATA] {
            let refused = bed.space.vmap(&[frame], attributes, CALLER);
            let owner = FrameOwner::Text;
            let wanted = VmapError::Protection { frame, owner, wanted: attributes };
            assert_eq!(refused, Err(wanted));
        }
    }
}

#[test]
fn the_audit_sees_code_that_can_be_written_s112() {
    let bed = Bed::warm();
    let base = code(&bed, 1);
    let frame = bed.frame_at(base);
    assert_eq!(bed.space.seal((), base, 1), Ok(()));
    // The entry that was there before the seal.
    let sealed = bed.poke_page(base, frame, Attributes::KERNEL_DATA);
    assert_ne!(bed.audit().1, []);
    bed.poke(bed.l2_slot(base), sealed);
    bed.clean();
    // A linear entry.
    let linear = linear_of(&bed, base);
    bed.poke_page(linear, frame, Attributes::KERNEL_DATA);
    let found: Vec<Violation> = bed.audit().1;
    assert!(found.iter().any(|violation| violation.to_string().contains(&linear.to_string())));
}

/// Where no two free frames are adjacent, code is of frames that are not: in their order, with no linear address while it lives,
/// whatever a CPU remembered (S28, S97, S112).
fn scattered(behaviour: Behaviour, count: u32) {
    let bed = Bed::warm_on(behaviour);
    // Enough for the code, the pointers to its pages, records and a table.
    let kept = [bed.scatter(), bed.starve(count + 8)];
    let both = [0, 1].map(|number| bed.machine.cpu(number));
    let table = bed.space.zones().table();
    let is_free = |number: &u32| table.owner_of(frame(*number)) == FrameOwner::Free;
    // Every CPU may remember each free frame's linear address, of which the code will have some; and what somebody left there.
    for number in (RAM..RAM + RAM_PAGES).filter(is_free) {
        let linear = page(number + 0x2_0000);
        assert!(both.iter().all(|cpu| cpu.store(linear, !0) == Ok(())), "{number:#x}");
    }
    bed.gives_back(|bed| {
        let base = code(bed, count);
        let at = |index| page(base.page_number() + index);
        let linear: Vec<VirtAddr> = (0..count).map(|index| linear_of(bed, at(index))).collect();
        let adjoin = |pair: &[VirtAddr]| pair[0].page_number().abs_diff(pair[1].page_number()) < 2;
        assert!(!linear.windows(2).any(adjoin), "scattered");
        for (index, &linear) in (0..).zip(&linear) {
            assert_eq!(both[0].load(at(index)), Ok(0), "zeroed");
            assert_eq!(both[(index % 2) as usize].store(at(index), 0x1000 + index), Ok(()));
            for cpu in both {
                assert_eq!(cpu.fetch(at(index)), Err(Fault::Permission(at(index))));
                assert_eq!(cpu.load(linear), Err(Fault::Translation(linear)));
            }
        }
        assert_eq!(bed.clean().code_pages, count);
        assert_eq!(bed.space.seal((), base, count), Ok(()));
        assert_eq!(bed.clean().code_pages, count);
        for (index, &linear) in (0..).zip(&linear) {
            for cpu in both {
                assert_eq!(cpu.fetch(at(index)), Ok(0x1000 + index));
                let written = cpu.access(at(index), Kind::Write, Privilege::Kernel);
                assert_eq!(written, Err(Fault::Permission(at(index))));
                assert_eq!(cpu.load(linear), Err(Fault::Translation(linear)));
            }
        }
        bed.space.vfree((), base).expect("a live area");
        for (index, &linear) in (0..).zip(&linear) {
            for cpu in both {
                assert_eq!(cpu.fetch(at(index)), Err(Fault::Translation(at(index))));
                assert_eq!(cpu.store(linear, 0), Ok(()));
            }
        }
    });
    for kept in kept {
        bed.feed(kept);
    }
}

#[test]
fn scattered_frames_become_code_s28_s112() {
    for behaviour in Behaviour::all(3) {
        for count in [2, 16, 17] {
            scattered(behaviour, count);
        }
    }
}

/// S8, S26, S28: it fails where the window ends, or low memory does; then nothing was taken.
#[test]
fn code_is_refused_for_want_of_addresses_or_of_low_frames_alone_s8_s28() {
    let refused = |bed: &Bed, count| {
        let make = |bed: &Bed| bed.space.vmalloc_exec(count * PAGE_SIZE, CALLER);
        bed.gives_back(make).expect_err("there is not so much")
    };
    let bed = Bed::warm();
    assert!(matches!(refused(&bed, WINDOW_PAGES), ExecError::Area(NoArea::Addresses(_))));
    let taken = bed.vmalloc(WINDOW_PAGES - 20);
    assert!(matches!(refused(&bed, 19), ExecError::Area(NoArea::Addresses(_))));
    let base = code(&bed, 18);
    for area in [base, taken] {
        bed.space.vfree((), area).expect("a live area");
    }
    // High memory is none for code: it has no linear address that could be withdrawn.
    let bed = Bed::divided(Behaviour::Hoarding, LowMemory::Half, |machine| machine.cpu(0));
    bed.warm_up();
    let low = bed.space.zones().free_pages_of(FrameRequest::LOW);
    assert!(bed.space.zones().free_pages() > 2 * low - 64, "as much is high memory");
    assert!(matches!(refused(&bed, low + 1), ExecError::Frames(_)));
    let base = code(&bed, 20);
    for index in 0..20 {
        let frame = bed.frame_at(page(base.page_number() + index));
        assert!(frame.number() < RAM + RAM_PAGES / 2, "{frame} is low memory");
    }
    bed.clean();
    bed.space.vfree((), base).expect("a live area");
}

/// S112: an area whose entries were not its own is never executed; it is freed as ever, and what was missing is not missed.
#[test]
fn what_somebody_unmapped_is_not_sealed_and_comes_back_s112() {
    let bed = Bed::warm();
    bed.gives_back(|bed| {
        for index in 0..3 {
            let base = code(bed, 3);
            bed.poke(bed.l2_slot(page(base.page_number() + index)), 0);
            assert_eq!(bed.space.seal((), base, 3), Err(SealError::Disturbed { address: base }));
            for address in (0..3).map(|index| page(base.page_number() + index)) {
                let gone = Err(Fault::Translation(address));
                assert_eq!(
                    [bed.machine.cpu(0), bed.machine.cpu(1)].map(|cpu| cpu.fetch(address)),
                    [gone; 2]
                );
            }
            assert_eq!(bed.space.vfree((), base), Ok(()));
            bed.clean();
        }
    });
}
