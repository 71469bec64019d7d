//! Every class of misuse, and what is none.

use super::*;

const DISK: Party = Party { id: 1, name: "a disk" };
const CARD: Party = Party { id: 2, name: "a card" };

fn mapping(dma: u32, bytes: u32) -> Mapping {
    Mapping {
        device: DISK,
        family: Family::Single,
        space: 0,
        dma: DmaAddr::new(dma),
        memory: (PhysAddr::new(dma), bytes),
        bytes,
        flow: Flow::FromDevice,
        caller: VirtAddr::new(0x8001_0000),
    }
}

/// The same call, from elsewhere.
fn call(mapping: Mapping) -> Mapping {
    Mapping { caller: VirtAddr::new(0x8002_0000), ..mapping }
}

fn with(checker: &mut Checker<'_>, mapping: Mapping) {
    assert_eq!(checker.mapped(mapping), Ok(()));
    checker.asked(mapping.device, (mapping.space, mapping.dma));
}

fn checking(test: impl FnOnce(&mut Checker<'_>)) {
    let mut entries = [Entry::FREE; 4];
    test(&mut Checker::new(&mut entries, 32));
}

const M: u32 = 0x6010_0000;

#[test]
fn a_mapping_that_ends_as_it_began_is_no_misuse_s107() {
    checking(|checker| {
        for _ in 0..10 {
            with(checker, mapping(M, 64));
            assert_eq!(checker.synced(call(mapping(M + 32, 32))), Ok(()));
            assert_eq!(checker.mappings(), 1);
            assert_eq!(checker.unmapped(call(mapping(M, 64))), Ok(()));
        }
        assert_eq!((checker.mappings(), checker.gone(DISK)), (0, Ok(())));
    });
}

type Wrong = fn(Mapping, Mapping) -> Misuse;

#[test]
fn an_end_with_another_size_direction_or_family_names_both_s107() {
    let mapped = mapping(M, 64);
    let cases: [(Mapping, Wrong); 3] = [
        (mapping(M, 32), |mapped, call| Misuse::OtherSize { mapped, call }),
        (Mapping { flow: Flow::ToDevice, ..mapped }, |mapped, call| Misuse::OtherFlow {
            mapped,
            call,
        }),
        (Mapping { family: Family::Page, ..mapped }, |mapped, call| Misuse::OtherFamily {
            mapped,
            call,
        }),
    ];
    for (given, wrong) in cases {
        checking(|checker| {
            with(checker, mapped);
            assert_eq!(checker.unmapped(call(given)), Err(wrong(mapped, call(given))));
            assert_eq!(checker.mappings(), 0, "it has ended");
        });
    }
}

/// A call that was refused has ended nothing: it is judged, and the right end is still to come.
#[test]
fn a_mapping_whose_end_was_refused_is_still_there_s107() {
    checking(|checker| {
        let mapped = mapping(M, 64);
        with(checker, mapped);
        let other = call(mapping(M, 32));
        let wrong = Misuse::OtherSize { mapped, call: other };
        assert_eq!([checker.refused(other), checker.refused(other)], [Err(wrong); 2]);
        let inside = call(mapping(M + 4, 60));
        assert_eq!(checker.refused(inside), Err(Misuse::OtherAddress { mapped, call: inside }));
        assert_eq!(checker.refused(call(mapped)), Ok(()), "right, and refused for another reason");
        assert_eq!(checker.mappings(), 1);
        assert_eq!(checker.unmapped(call(mapped)), Ok(()));
        let never = call(mapped);
        assert_eq!(checker.refused(never), Err(Misuse::NeverMapped { call: never }));
        // Whoever has not asked is told when it ends, and not before.
        assert_eq!(checker.mapped(mapped), Ok(()));
        assert_eq!(checker.refused(call(mapped)), Ok(()));
        let unchecked = Misuse::Unchecked { mapped, call: call(mapped) };
        assert_eq!(checker.unmapped(call(mapped)), Err(unchecked));
    });
    let blind = Checker::off();
    assert_eq!(blind.refused(mapping(M, 64)), Ok(()));
}

#[test]
fn an_end_at_another_address_or_of_another_device_ends_nothing_s107() {
    checking(|checker| {
        with(checker, mapping(M, 64));
        let (mapped, inside) = (mapping(M, 64), call(mapping(M + 4, 60)));
        assert_eq!(checker.unmapped(inside), Err(Misuse::OtherAddress { mapped, call: inside }));
        let theirs = Mapping { device: CARD, ..call(mapped) };
        assert_eq!(checker.unmapped(theirs), Err(Misuse::OtherDevice { mapped, call: theirs }));
        let beyond = call(mapping(M + 64, 64));
        assert_eq!(checker.unmapped(beyond), Err(Misuse::NeverMapped { call: beyond }));
        assert_eq!(checker.mappings(), 1);
    });
}

#[test]
fn a_mapping_whose_failure_nobody_asked_for_is_a_misuse_when_it_ends_s107() {
    checking(|checker| {
        let mapped = mapping(M, 64);
        assert_eq!(checker.mapped(mapped), Ok(()));
        checker.asked(CARD, (0, mapped.dma));
        checker.asked(DISK, (0, DmaAddr::new(M + 1)));
        checker.asked(DISK, (7, mapped.dma));
        let end = call(mapped);
        assert_eq!(checker.unmapped(end), Err(Misuse::Unchecked { mapped, call: end }));
        // The entries of a list are checked by their number.
        let entry = Mapping { family: Family::Scatter, ..mapped };
        assert_eq!(checker.mapped(entry), Ok(()));
        assert_eq!(checker.unmapped(call(entry)), Ok(()));
    });
}

#[test]
fn two_mappings_of_one_line_are_a_misuse_if_one_is_written_s107() {
    checking(|checker| {
        let first = mapping(M, 33);
        with(checker, first);
        for (dma, shares) in [(M + 63, true), (M + 64, false), (M - 32, false)] {
            let second = call(mapping(dma, 32));
            let wanted = Misuse::SharedLine { mapped: first, call: second };
            assert_eq!(checker.mapped(second), if shares { Err(wanted) } else { Ok(()) });
            checker.asked(DISK, (0, second.dma));
            assert_eq!(checker.unmapped(second), Ok(()), "it is entered all the same");
        }
        let reads = Mapping { flow: Flow::ToDevice, ..call(first) };
        assert!(checker.mapped(reads).is_err());
    });
    checking(|checker| {
        let reads = Mapping { flow: Flow::ToDevice, ..mapping(M, 33) };
        with(checker, reads);
        with(checker, reads);
    });
}

#[test]
fn a_synchronisation_of_what_is_not_mapped_so_is_a_misuse_s107() {
    checking(|checker| {
        let mapped = mapping(M, 64);
        with(checker, mapped);
        let beyond = call(mapping(M + 32, 33));
        assert_eq!(checker.synced(beyond), Err(Misuse::OtherSize { mapped, call: beyond }));
        let other = Mapping { flow: Flow::Bidirectional, ..call(mapped) };
        assert_eq!(checker.synced(other), Err(Misuse::OtherFlow { mapped, call: other }));
        let never = call(mapping(M + 64, 4));
        assert_eq!(checker.synced(never), Err(Misuse::NeverMapped { call: never }));
    });
}

#[test]
fn a_device_that_goes_leaves_its_mappings_named_and_forgotten_s107() {
    checking(|checker| {
        with(checker, mapping(M, 64));
        with(checker, mapping(M + 64, 64));
        with(checker, Mapping { device: CARD, ..mapping(M + 128, 64) });
        let mapped = mapping(M, 64);
        assert_eq!(checker.gone(DISK), Err(Misuse::Leak { mapped, count: 2 }));
        assert_eq!((checker.mappings(), checker.gone(DISK)), (1, Ok(())));
    });
}

/// Another space may lie where it lay, and what was its is neither that one's nor in anybody's way.
#[test]
fn a_space_that_ends_leaves_its_mappings_named_and_forgotten_s107_s109() {
    let behind = |space, device, dma| Mapping { device, space, ..mapping(dma, 64) };
    checking(|checker| {
        let first = behind(7, DISK, M);
        with(checker, first);
        with(checker, behind(7, CARD, M + 64));
        with(checker, behind(8, DISK, M + 128));
        let ended = Misuse::SpaceEnded { mapped: first, count: 2 };
        assert_eq!(checker.space_ended(7), Err(ended));
        assert_eq!(
            ended.to_string(),
            "2 mappings in it end with it: a disk: 64 bytes at 0x60100000, a buffer, from the device, mapped by 0x80010000"
        );
        assert_eq!((checker.mappings(), checker.mappings_of(DISK, 7)), (1, 0));
        assert_eq!(checker.mapped(call(first)), Ok(()), "nobody has that line");
        assert_eq!((checker.mappings_of(DISK, 7), checker.space_ended(9)), (1, Ok(())));
        assert_eq!(checker.mappings_of(DISK, 8), 1);
    });
    assert_eq!(Checker::off().space_ended(0), Ok(()));
}

#[test]
fn a_full_checker_says_so_once_and_checks_nothing_more_s107() {
    checking(|checker| {
        (0..4).for_each(|index| with(checker, mapping(M + 64 * index, 64)));
        let more = mapping(M + 256, 64);
        assert_eq!(checker.mapped(more), Err(Misuse::NoRoom { places: 4 }));
        assert!(!checker.is_on());
        assert_eq!((checker.mapped(more), checker.unmapped(more)), (Ok(()), Ok(())));
        assert_eq!(checker.synced(more), Ok(()));
        // Whatever it had listed ends unseen.
        assert_eq!((checker.mappings(), checker.mappings_of(DISK, 0)), (0, 0));
        assert_eq!((checker.unmapped(call(mapping(M, 64))), checker.gone(DISK)), (Ok(()), Ok(())));
        checker.begin_again();
        assert_eq!((checker.is_on(), checker.mappings()), (true, 0));
        let unknown = call(mapping(M, 64));
        assert_eq!(checker.unmapped(unknown), Err(Misuse::NeverMapped { call: unknown }));
        (0..4).for_each(|index| with(checker, mapping(M + 64 * index, 64)));
    });
    let mut off = Checker::off();
    assert_eq!((off.mapped(mapping(M, 1)), off.is_on()), (Ok(()), false));
    off.begin_again();
    assert!(!off.is_on(), "without places");
}

#[test]
fn a_buffer_that_is_freed_is_accused_of_what_is_mapped_of_it_alone_s107() {
    checking(|checker| {
        let mapped = Mapping { device: CARD, ..mapping(M, 64) };
        with(checker, mapped);
        let at = mapped.memory.0.raw();
        let buffer = |start, bytes| {
            let (address, caller) = (VirtAddr::new(0x8000_1000), VirtAddr::new(0x42));
            Buffer { device: DISK, address, memory: (PhysAddr::new(start), bytes), caller }
        };
        for (start, bytes) in [(at, 64), (at, 1), (at + 63, 1), (at - 64, 65), (at - 64, 192)] {
            let buffer = buffer(start, bytes);
            assert_eq!(checker.freed(buffer), Err(Misuse::Freed { mapped, buffer }), "{bytes}");
        }
        for (start, bytes) in [(at - 64, 64), (at + 64, 64), (at + 64, u32::MAX), (0, at)] {
            assert_eq!(checker.freed(buffer(start, bytes)), Ok(()), "{start:#x}, {bytes}");
        }
        let misuse = checker.freed(buffer(at, 4096)).expect_err("mapped").to_string();
        let all = [
            "disk: frees 4096 bytes at 0x80001000, a coherent buffer, allocated by 0x00000042",
            "which is mapped still: a card: 64 bytes at ",
        ];
        assert!(all.iter().all(|part| misuse.contains(part)), "{misuse}");
        assert_eq!(
            Misuse::FreedByAnother { buffer: buffer(at, 4096), owner: "a card" }.to_string(),
            "a disk: frees 4096 bytes at 0x80001000, a coherent buffer, allocated by 0x00000042 for another device: a card"
        );
    });
}

#[test]
fn a_misuse_names_both_parties() {
    let (mapped, end) = (mapping(M, 64), call(mapping(M, 32)));
    assert_eq!(
        Misuse::OtherSize { mapped, call: end }.to_string(),
        "a disk: 32 bytes at 0x60100000, a buffer, from the device, given by 0x80020000, with another size: 64 bytes at \
         0x60100000, a buffer, from the device, mapped by 0x80010000"
    );
    let theirs = Mapping { device: CARD, family: Family::Page, ..end };
    let told = Misuse::OtherDevice { mapped, call: theirs }.to_string();
    assert!(told.starts_with("a card: 32 bytes at 0x60100000, a page, "), "{told}");
    assert!(told.contains("for another device: a disk: 64 bytes"), "{told}");
    assert_eq!(
        Misuse::Leak { mapped, count: 3 }.to_string(),
        "a disk goes and 3 of its mappings stay: 64 bytes at 0x60100000, a buffer, from the device, mapped by 0x80010000"
    );
    assert_eq!(Misuse::NoRoom { places: 7 }.to_string(), "more than 7 mappings: checking ends");
    let ends = [
        (Misuse::NeverMapped { call: end }, "given by 0x80020000, which was never mapped"),
        (
            Misuse::Unchecked { mapped, call: end },
            "and nobody asked whether mapping it had failed: ",
        ),
        (Misuse::SharedLine { mapped, call: end }, "in a cache line of another: "),
        (Misuse::OtherAddress { mapped, call: end }, "at another address: "),
        (Misuse::OtherFlow { mapped, call: end }, "with another direction: "),
        (Misuse::OtherFamily { mapped, call: end }, "by other functions: "),
    ];
    for (misuse, words) in ends {
        assert!(misuse.to_string().contains(words), "{misuse}");
    }
}

/// Several mappings may begin where a device only reads; the one that is meant ends.
#[test]
fn of_mappings_that_begin_together_the_one_that_is_meant_ends_s107() {
    checking(|checker| {
        let reads = |bytes| Mapping { flow: Flow::ToDevice, ..mapping(M, bytes) };
        for order in [[64, 32, 128], [128, 64, 32], [32, 128, 64]] {
            for bytes in [32, 64, 128] {
                with(checker, reads(bytes));
            }
            for bytes in order {
                assert_eq!(checker.unmapped(call(reads(bytes))), Ok(()), "{order:?}");
            }
            assert_eq!(checker.mappings(), 0);
        }
    });
}

/// What the device only reads may be mapped by functions of two families; each ends its own.
#[test]
fn of_mappings_of_the_same_bytes_the_one_of_the_family_ends_s107() {
    checking(|checker| {
        let reads = |family| Mapping { flow: Flow::ToDevice, family, ..mapping(M, 64) };
        let (single, page) = (reads(Family::Single), reads(Family::Page));
        for order in [[single, page], [page, single]] {
            with(checker, single);
            with(checker, page);
            for ends in order {
                assert_eq!(checker.unmapped(call(ends)), Ok(()));
            }
        }
    });
}

/// Mappings that a device only reads may overlap: a synchronisation that lies in one of them is right.
#[test]
fn of_mappings_that_overlap_the_one_is_synchronised_that_is_meant_s107() {
    let reads = |dma, bytes| Mapping { flow: Flow::ToDevice, ..mapping(dma, bytes) };
    let (low, high) = (reads(M, 64), reads(M + 32, 64));
    for order in [[low, high], [high, low]] {
        checking(|checker| {
            for mapping in order {
                with(checker, mapping);
            }
            for right in [low, high, reads(M + 40, 56), reads(M + 32, 32)] {
                assert_eq!(checker.synced(call(right)), Ok(()), "{order:?}");
            }
            let across = call(reads(M, 96));
            assert_eq!(
                checker.synced(across),
                Err(Misuse::OtherSize { mapped: low, call: across })
            );
        });
    }
}

/// S107, S109: devices behind IOMMUs see memory wherever their domains lead, and what they share is memory.
#[test]
fn addresses_of_different_domains_are_different_and_memory_is_one_s107_s109() {
    let behind = |space, device, memory| Mapping {
        space,
        device,
        memory: (PhysAddr::new(memory), 64),
        ..mapping(M, 64)
    };
    checking(|checker| {
        with(checker, behind(1, DISK, 0x6800_0000));
        // First fit gives every domain's first mapping the same address.
        with(checker, behind(2, CARD, 0x6800_0040));
        let counts = [(DISK, 1), (CARD, 2), (CARD, 1), (DISK, 0)];
        let counts = counts.map(|(device, space)| checker.mappings_of(device, space));
        assert_eq!(counts, [1, 1, 0, 0]);
        // On the bus it is nobody's.
        let nobodys = call(Mapping { device: CARD, ..mapping(M, 64) });
        assert_eq!(checker.synced(nobodys), Err(Misuse::NeverMapped { call: nobodys }));
        assert_eq!(checker.unmapped(nobodys), Err(Misuse::NeverMapped { call: nobodys }));
        assert_eq!(checker.unmapped(call(behind(2, CARD, 0x6800_0040))), Ok(()));
        let never = call(Mapping { space: 2, device: CARD, ..mapping(M, 64) });
        assert_eq!(checker.unmapped(never), Err(Misuse::NeverMapped { call: never }));
        let same = call(behind(1, CARD, 0x6800_0000));
        let mapped = behind(1, DISK, 0x6800_0000);
        assert_eq!(checker.unmapped(same), Err(Misuse::OtherDevice { mapped, call: same }));
    });
    checking(|checker| {
        let first = behind(1, DISK, 0x6800_0000);
        with(checker, first);
        let again = Mapping { dma: DmaAddr::new(M + 0x1000), ..call(behind(1, DISK, 0x6800_0020)) };
        let shared = Misuse::SharedLine { mapped: first, call: again };
        assert_eq!(checker.mapped(again), Err(shared), "one buffer, mapped twice");
    });
}
