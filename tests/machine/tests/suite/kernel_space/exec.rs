//! Memory for code on SoftMachine: what is refused, what the audit says of it, and what is left of it (S30, S36, S112). What a
//! seal must not forget is on the board of mutants.

use super::bed::{Bed, CALLER, page};
use crate::mutants::exec::linear_of;
use kerncore::{
    addr::{PAGE_SIZE, VirtAddr},
    area::AreaKind,
    attributes::Attributes,
    audit::Violation,
    frames::FrameOwner,
    kernel_space::{ChangeError, ExecError, SealError, VmapError},
};
use machine::{Behaviour, Fault};

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
        assert!(matches!(bed.space.vmalloc_exec(u32::MAX, CALLER), Err(ExecError::Memory(_))));
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
