//! Several users of one mapping of registers, and one type for each page, on the live tables (S57 to S63, S97).

extern crate alloc;

use alloc::format;
use alloc::string::ToString;
use core::ffi::c_void;

use arch::smp;
use board::vexpress_a9::{GIC_CPU, GLOBAL_TIMER, SCU, VRAM};
use image::start;
use kerncore::addr::{PAGE_SIZE, PhysAddr, SECTION_SIZE, VirtAddr};
use kerncore::area::AreaKind;
use kerncore::attributes::{Access, Attributes};
use kerncore::config::IoMappings;
use kerncore::kernel_space::{Fill, IoRemapError, NoArea, RemoveError, VmapError};
use ktest::{Completion, assert_err, ktest};
use linux::ioremap::{ioremap_shared, iounmap};
use mm::io_mem::IoMem;
use mm::kernel;
use mm::vm_area::VmArea;

use super::witness::{Books, NOBODY, assert_absent, assert_leads, authority, plus, word_at};

#[track_caller]
fn share(physical: u32, bytes: u32) -> VirtAddr {
    let mapped =
        kernel().ioremap_shared(PhysAddr::new(physical), bytes, Attributes::DEVICE, NOBODY);
    mapped.unwrap_or_else(|error| panic!("{bytes:#x} bytes at {physical:#010x}: {error}"))
}

#[track_caller]
fn own(physical: PhysAddr, bytes: u32) -> VirtAddr {
    kernel().ioremap_own(physical, bytes, Attributes::DEVICE, NOBODY).expect("addresses")
}

#[track_caller]
fn unmap(address: VirtAddr) {
    kernel().iounmap(authority(), address).unwrap_or_else(|error| panic!("{error}"));
}

/// How many share the page of the snoop control unit already: drivers do, where ioremap shares by default.
fn others() -> u32 {
    let address = share(SCU.base.raw(), 4);
    let users = kernel().users_of(address).expect("just mapped");
    unmap(address);
    users - 1
}

/// S59, S62: the board's own case. The snoop control unit, the interrupt controller's interface and the global timer lie in one
/// page; each handle reads its own registers, for as long as it lives, whichever goes first.
#[ktest]
fn three_devices_in_one_page_read_their_own_registers_by_one_mapping_s59_s62() {
    let mapped = own(SCU.base, 0x300);
    let wanted = [4, 0x104, 0x208].map(|offset| word_at(plus(mapped, offset)));
    unmap(mapped);
    let others = others();
    let books = Books::now();
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let bases = [SCU.base, GIC_CPU.base, GLOBAL_TIMER.base];
        let mut handles =
            bases.map(|base| Some(IoMem::<[u32; 3]>::map_shared(base).expect("addresses")));
        let addresses = [0, 1, 2].map(|which| handles[which].as_ref().expect("made").address());
        assert_eq!(addresses[1].raw() - addresses[0].raw(), 0x100);
        assert_eq!(addresses[2].raw() - addresses[0].raw(), 0x200);
        let reads = |which: usize| word_at(plus(addresses[which], [4, 4, 8][which]));
        for left in (1..=3).rev() {
            assert_eq!(kernel().users_of(addresses[0]), Some(others + left));
            for which in order.into_iter().skip(3 - left as usize) {
                assert_leads(addresses[which], bases[which]);
                assert_eq!(reads(which), wanted[which], "handle {which} of {left}");
            }
            handles[order[3 - left as usize]] = None;
        }
        if others == 0 {
            assert_absent(addresses[0]);
        }
        books.assert_unchanged();
    }
}

/// S58, S59: two devices at `0x2000_1000` and `0x2000_1400`, by the C names. Nothing answers there, so the pointers alone are
/// looked at.
#[ktest]
fn two_devices_of_one_kilobyte_have_one_page_and_a_pointer_each_s58_s59() {
    let address =
        |pointer: *mut c_void| VirtAddr::new(u32::try_from(pointer.addr()).expect("32 bits"));
    for order in [[0, 1], [1, 0]] {
        let books = Books::now();
        let pointers = [0x2000_1000, 0x2000_1400].map(|base| ioremap_shared(base, 0x400));
        let users = pointers.map(address);
        assert_eq!(users[1].raw() - users[0].raw(), 0x400);
        assert_leads(users[1], PhysAddr::new(0x2000_1400));
        let caller = kernel().find(users[0]).expect("one area").caller;
        assert_ne!(caller, VirtAddr::new(0), "who asked is recorded");
        for (left, which) in [1, 0].into_iter().zip(order) {
            // SAFETY: nobody uses it.
            unsafe { iounmap(pointers[which]) };
            assert_eq!(kernel().users_of(users[0]), (left == 1).then_some(1));
        }
        assert_absent(users[0]);
        books.assert_unchanged();
        assert!(ioremap_shared(0x2000_1000, 0).is_null());
        assert!(ioremap_shared(0xffff_f000, 0x1001).is_null());
        books.assert_unchanged();
    }
}

/// S59, S62: what was never mapped, and a use more than there are, are refused by name, and the uses that there are stay.
#[ktest]
fn a_use_that_nobody_has_is_refused_and_none_is_lost_s59_s62() {
    let address = share(VRAM.base.raw(), 2 * PAGE_SIZE);
    let again = share(VRAM.base.raw() + PAGE_SIZE + 8, 4);
    let books = Books::now();
    let guard = plus(address, 2 * PAGE_SIZE);
    assert_eq!(kernel().iounmap(authority(), guard), Err(RemoveError::Unknown { address: guard }));
    let found = AreaKind::IoRemap;
    assert_eq!(
        kernel().vunmap(authority(), address),
        Err(RemoveError::WrongKind { address, found })
    );
    books.assert_unchanged();
    assert_eq!(kernel().users_of(again), Some(2));
    unmap(again);
    unmap(again);
    for address in [again, address] {
        assert_eq!(kernel().iounmap(authority(), address), Err(RemoveError::Unknown { address }));
    }
}

/// S58, S59: who asks for some of it gets a pointer as far in; who asks for more than all of it, or for other rights, shares nothing.
#[ktest]
fn what_lies_wholly_inside_is_shared_and_what_reaches_beyond_is_not_s58_s59() {
    let books = Books::now();
    let page = |number: u32| VRAM.base.raw() + number * PAGE_SIZE;
    let whole = share(page(1), 2 * PAGE_SIZE);
    for (physical, bytes, inside) in [
        (page(1), 2 * PAGE_SIZE, true),
        (page(2) + 8, 4, true),
        (page(3) - 1, 1, true),
        (page(3) - 1, 2, false),
        (page(1) - 1, 2, false),
        (page(0), 4 * PAGE_SIZE, false),
        (page(0), PAGE_SIZE, false),
        (page(3), PAGE_SIZE, false),
    ] {
        let user = share(physical, bytes);
        assert_leads(user, PhysAddr::new(physical));
        assert_leads(plus(user, bytes - 1), PhysAddr::new(physical + bytes - 1));
        let as_far_in = whole.raw().wrapping_add(physical.wrapping_sub(page(1)));
        assert_eq!(user.raw() == as_far_in, inside, "{bytes:#x} bytes at {physical:#x}");
        assert_eq!(kernel().users_of(whole), Some(1 + u32::from(inside)));
        unmap(user);
    }
    let device = Attributes::DEVICE;
    let (memory, execute, scope) = (device.memory(), device.execute(), device.scope());
    let read_only = Attributes::new(memory, Access::KernelReadOnly, execute, scope);
    let read_only = read_only.expect("registers that are only read");
    let first = PhysAddr::new(page(1));
    let user = kernel().ioremap_shared(first, 4, read_only, NOBODY).expect("the same type");
    let entry = kernel().table().translate(user).expect("mapped");
    assert_eq!((entry.physical, entry.attributes()), (first, Ok(read_only)));
    assert_eq!(kernel().users_of(whole), Some(1));
    unmap(user);
    unmap(whole);
    books.assert_unchanged();
}

/// S34, S59: iounmap ends what ioremap made, and nothing else.
#[ktest]
fn iounmap_of_what_is_no_registers_is_refused_and_changes_nothing_s34() {
    let device = [VRAM.base.pfn()];
    let listed = kernel().vmap_devices(device.into_iter(), Attributes::DEVICE, NOBODY);
    let listed = listed.expect("addresses").pages.start();
    let memory = VmArea::new(PAGE_SIZE).expect("memory");
    let large = VmArea::huge(SECTION_SIZE, Fill::Uninitialised).expect("memory");
    let books = Books::now();
    for (address, found) in [
        (listed, AreaKind::Vmap),
        (memory.address(), AreaKind::Vmalloc),
        (large.address(), AreaKind::Vmalloc),
    ] {
        let refused = Err(RemoveError::WrongKind { address, found });
        assert_eq!(kernel().iounmap(authority(), address), refused);
        assert_eq!(kernel().users_of(address), Some(0));
        assert!(kernel().table().translate(address).is_some(), "{found} stays");
    }
    books.assert_unchanged();
    kernel().vunmap(authority(), listed).expect("a live area");
}

/// S58, S97: a page has one type, whoever maps it; the refusal names both.
#[ktest]
fn a_page_is_mapped_with_one_type_whoever_asks_s58_s97() {
    let combined = Attributes::WRITE_COMBINE;
    let page = VRAM.base;
    for live in [share(page.raw(), 2 * PAGE_SIZE), own(page, 2 * PAGE_SIZE)] {
        let books = Books::now();
        let inside = PhysAddr::new(page.raw() + PAGE_SIZE);
        let below = PhysAddr::new(page.raw() - PAGE_SIZE);
        let second = plus(live, PAGE_SIZE);
        for (refused, address) in [
            (kernel().ioremap_own(inside, 4, combined, NOBODY), second),
            (kernel().ioremap_shared(inside, 4, combined, NOBODY), second),
            (kernel().ioremap_own(inside, 0x10_0000, combined, NOBODY), second),
            (kernel().ioremap_own(page, 0x10_0000, combined, NOBODY), live),
            // By its last page alone.
            (kernel().ioremap_own(below, 2 * PAGE_SIZE, combined, NOBODY), live),
        ] {
            let refused = refused.expect_err("it is device memory already");
            let told = refused.to_string();
            let is_alias = matches!(refused, IoRemapError::Area(NoArea::Alias(_)));
            assert!(is_alias && told.contains("device, by ioremap"), "{told}");
            assert!(told.contains("non-cacheable"), "{told}");
            assert!(told.contains(&format!("at {address} they are")), "{told}");
        }
        let frames = [inside.pfn()];
        let refused = kernel().vmap_devices(frames.into_iter(), combined, NOBODY);
        assert_err!(refused, VmapError::Area(NoArea::Alias(_)));
        books.assert_unchanged();
        // Beside it, and with the same type, it is nobody's business.
        let beside = PhysAddr::new(page.raw() + 2 * PAGE_SIZE);
        let beside = kernel().ioremap_own(beside, 4, combined, NOBODY).expect("nobody else");
        let same = kernel().vmap_devices(frames.into_iter(), Attributes::DEVICE, NOBODY);
        let same = same.expect("the same type").pages.start();
        unmap(beside);
        kernel().vunmap(authority(), same).expect("a live area");
        unmap(live);
    }
    let now = kernel().ioremap_own(page, 4, combined, NOBODY).expect("nobody else");
    unmap(now);
}

/// S60, S61: all CPUs map, read and unmap registers of one page, again and again: each reads what it should for as long as it has a
/// use, and nothing is left.
#[ktest]
fn all_cpus_share_one_page_again_and_again_s60_s61() {
    const ROUNDS: u32 = 400;
    let mapped = own(SCU.base, 8);
    let wanted = word_at(plus(mapped, 4));
    unmap(mapped);
    let others = others();
    let books = Books::now();
    // With nobody else, the page comes and goes all the time; with one who stays, there is never but one mapping.
    for stays in [None, Some(share(SCU.base.raw(), 8))] {
        smp::run_on_each(|_| {
            for round in 0..ROUNDS {
                let address = share(SCU.base.raw() + 4, 4);
                assert_eq!(word_at(address), wanted, "round {round}");
                let second = share(SCU.base.raw(), 8);
                if let Some(stays) = stays {
                    assert_eq!((second, address), (stays, plus(stays, 4)));
                    assert!(kernel().users_of(stays) >= Some(3), "round {round}");
                }
                unmap(address);
                assert_eq!(word_at(plus(second, 4)), wanted, "round {round}");
                unmap(second);
                smp::beat();
            }
        });
        if let Some(stays) = stays {
            assert_eq!(kernel().users_of(stays), Some(others + 1));
            unmap(stays);
        }
    }
    books.assert_unchanged();
}

/// `ioremap=shared`: who does not say shares. Its drivers' own mappings are shared, too.
#[ktest]
fn ioremap_shares_when_the_command_line_says_so_s57() -> Completion {
    let config = &start::started().expect("the kernel has started").config;
    if config.ioremap != IoMappings::Shared {
        return Completion::Skipped("each has a mapping of his own (ioremap=shared)");
    }
    assert!(kernel().shares_by_default(), "as it says");
    let books = Books::now();
    let map = |base: PhysAddr| IoMem::<u32>::map(base).expect("addresses");
    let (one, two) = (map(SCU.base), map(GLOBAL_TIMER.base));
    assert_eq!(two.address().raw() - one.address().raw(), 0x200);
    assert!(kernel().users_of(one.address()) >= Some(2));
    let alone = own(SCU.base, 4);
    assert_ne!(alone.page_base(), one.address().page_base());
    unmap(alone);
    drop(one);
    assert_leads(two.address(), GLOBAL_TIMER.base);
    drop(two);
    books.assert_unchanged();
    Completion::Ran
}
