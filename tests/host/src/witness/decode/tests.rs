//! Tables made by hand from the manual's figures, word by word.

use std::collections::BTreeMap;

use super::*;

/// Physical memory with some words in it, and zeros; above 4 GiB there is nothing.
#[derive(Default)]
struct Words(BTreeMap<u64, u32>);

impl Memory for Words {
    fn words(&mut self, address: u64) -> Result<[u32; 16], String> {
        assert_eq!(address % 64, 0);
        if address == HOLE {
            return Err("no memory".into());
        }
        let word = |index: u64| self.0.get(&(address + 4 * index)).copied().unwrap_or(0);
        Ok(std::array::from_fn(|index| word(index as u64)))
    }
}

/// Where nothing can be read.
const HOLE: u64 = 0x9000_0000;
/// N = 1: table 0 for the lower half, table 1 for the upper one. Domain 0 is a client, domain 1 a manager, 2 nothing, 3 reserved.
const REGISTERS: Registers = Registers {
    ttbr0: 0x6000_204a,
    ttbr1: 0x6000_404a,
    ttbcr: 1,
    dacr: 0b1000_1101,
    sctlr: 0x30c5_187d & !(SCTLR_TRE | SCTLR_AFE),
};
/// An address in the upper half: first-level index 0xc01, second-level index 0x23.
const ADDRESS: u32 = 0xc012_3456;
const FIRST: u64 = 0x6000_4000 + 4 * 0xc01;
const SECOND: u64 = 0x6abc_d400 + 4 * 0x23;
/// A page table at 0x6abcd400, domain 0.
const TABLE: u32 = 0x6abc_d401;

fn walk_words(
    registers: Registers,
    words: &[(u64, u32)],
    address: u32,
) -> Result<Result<Mapping, Fault>, Unclear> {
    walk(registers, &mut Words(words.iter().copied().collect()), address)
}

/// Sixteen of them from the one at `at`'s group on.
fn sixteen(at: u64, word: u32) -> Vec<(u64, u32)> {
    (0..16).map(|index| ((at & !63) + 4 * index, word)).collect()
}

#[track_caller]
fn mapped(words: &[(u64, u32)]) -> Mapping {
    walk_words(REGISTERS, words, ADDRESS).expect("clear").expect("a mapping")
}

/// A small page with these bits below the frame.
#[track_caller]
fn small(bits: u32) -> Mapping {
    mapped(&[(FIRST, TABLE), (SECOND, 0x6123_4000 | bits)])
}

#[test]
fn a_small_page_gives_twelve_bits_to_the_offset() {
    let page = small(0x45f);
    assert_eq!((page.physical, page.size), (0x6123_4456, Size::Small));
    assert_eq!((page.rights().as_str(), page.memory_type()), ("rw-/---", "write-back"));
    assert!(!page.non_global);
    assert_eq!((page.read(), page.write()), (Ok(0x6123_4456), Ok(0x6123_4456)));
}

#[test]
fn a_page_table_has_256_entries_and_lies_on_1_kib() {
    let last = [(FIRST, TABLE), (0x6abc_d400 + 4 * 0xff, 0x6123_445f)];
    let page = walk_words(REGISTERS, &last, 0xc01f_f456).expect("clear").expect("a mapping");
    assert_eq!(page.physical, 0x6123_4456);
}

#[test]
fn every_bit_of_a_small_page_has_its_own_meaning() {
    assert_eq!(small(0x45e).rights(), "rwx/---");
    assert_eq!(small(0x65f).rights(), "r--/---");
    assert_eq!(small(0x46f).rights(), "rw-/r--");
    assert_eq!(small(0x47f).rights(), "rw-/rw-");
    assert_eq!(small(0x66e).rights(), "r-x/r-x");
    assert_eq!(small(0x67e).rights(), "r-x/r-x");
    assert_eq!(small(0x453).memory_type(), "non-cacheable");
    assert_eq!(small(0x41b).memory_type(), "write-through");
    assert_eq!(small(0x017).memory_type(), "device");
    assert_eq!(small(0x013).memory_type(), "strongly-ordered");
    assert_eq!(small(0x093).memory_type(), "device-not-shareable");
    assert_eq!(small(0x05f).memory_type(), "normal-of-another-kind", "not shareable");
    assert!(small(0xc5f).non_global);
}

/// Reserved: TEX 001 with C, B = 01; TEX 010 with anything but 00; TEX 011.
#[test]
fn reserved_memory_types_are_named_so() {
    for (tex, c_b) in [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 0), (3, 3)] {
        assert_eq!(small(0x413 | tex << 6 | c_b << 2).memory_type(), "reserved", "{tex} {c_b}");
    }
}

#[test]
fn reserved_and_absent_permissions_let_nobody_in() {
    for bits in [0x40f, 0x60f] {
        let page = small(bits);
        assert_eq!(page.rights(), "---/---", "{bits:#x}");
        assert_eq!(page.read(), Err(Fault::Permission(Level::Second)));
    }
    assert_eq!(small(0x65f).write(), Err(Fault::Permission(Level::Second)));
}

#[test]
fn a_large_page_gives_sixteen_bits_to_the_offset_and_has_its_tex_and_xn_elsewhere() {
    let word = 0x6129_941d;
    let mut words = sixteen(SECOND, word);
    words.push((FIRST, TABLE));
    let page = mapped(&words);
    assert_eq!((page.physical, page.size), (0x6129_3456, Size::Large));
    assert_eq!((page.rights().as_str(), page.memory_type()), ("rw-/---", "write-back"));
    let mut words = sixteen(SECOND, word & !(1 << 15));
    words.push((FIRST, TABLE));
    assert_eq!(mapped(&words).rights(), "rwx/---");
}

#[test]
fn a_section_gives_twenty_bits_to_the_offset() {
    // Base 0x612, S, TEX 001, AP 01, domain 0, XN, C, B.
    let section = mapped(&[(FIRST, 0x6121_141e)]);
    assert_eq!((section.physical, section.size), (0x6122_3456, Size::Section));
    assert_eq!((section.rights().as_str(), section.memory_type()), ("rw-/---", "write-back"));
    assert!(!section.non_global);
    assert_eq!(mapped(&[(FIRST, 0x6121_140e)]).rights(), "rwx/---", "XN is bit 4");
    let read_only = mapped(&[(FIRST, 0x6121_941e)]);
    assert_eq!(read_only.rights(), "r--/---", "AP[2] is bit 15");
    assert_eq!(read_only.write(), Err(Fault::Permission(Level::First)));
    assert!(mapped(&[(FIRST, 0x6123_141e)]).non_global, "nG is bit 17");
}

#[test]
fn a_supersection_gives_twenty_four_bits_to_the_offset_and_reaches_beyond_four_gib() {
    // Index 0xc01 lies in the group of 0xc00. Base 0x61, bit 18.
    let low = mapped(&sixteen(FIRST, 0x6105_141e));
    assert_eq!((low.physical, low.size), (0x6112_3456, Size::Supersection));
    // PA[35:32] = 0xa in bits 23 to 20, PA[39:36] = 0x5 in bits 8 to 5, which are no domain here.
    let high = mapped(&sixteen(FIRST, 0x61a5_14be));
    assert_eq!(high.physical, 0x5a_6112_3456);
    assert_eq!(high.read(), Ok(0x5a_6112_3456));
}

#[test]
fn what_does_not_stand_sixteen_times_is_unclear() {
    let mut words = sixteen(SECOND, 0x6129_941d);
    words.push((FIRST, TABLE));
    words[5].1 ^= 1 << 9;
    let uneven = Unclear::Uneven { at: SECOND, descriptor: 0x6129_941d };
    assert_eq!(walk_words(REGISTERS, &words, ADDRESS), Err(uneven));
    let alone = [(FIRST, 0x6105_141e)];
    assert!(matches!(walk_words(REGISTERS, &alone, ADDRESS), Err(Unclear::Uneven { .. })));
}

#[test]
fn empty_and_reserved_descriptors_are_translation_faults_of_their_level() {
    let first = Ok(Err(Fault::Translation(Level::First)));
    for word in [0, 0x6abc_d400, 0x6abc_d403, 0x6121_141f] {
        assert_eq!(walk_words(REGISTERS, &[(FIRST, word)], ADDRESS), first, "{word:#x}");
    }
    let second = Ok(Err(Fault::Translation(Level::Second)));
    for word in [0, 0x6123_445c] {
        let words = [(FIRST, TABLE), (SECOND, word)];
        assert_eq!(walk_words(REGISTERS, &words, ADDRESS), second, "{word:#x}");
    }
}

#[test]
fn domains_decide_before_permissions() {
    let page = |domain: u32, bits: u32| {
        let words = [(FIRST, TABLE | domain << 5), (SECOND, 0x6123_4000 | bits)];
        walk_words(REGISTERS, &words, ADDRESS).expect("clear")
    };
    let manager = page(1, 0x60f).expect("a mapping");
    assert_eq!(manager.write(), Ok(0x6123_4456), "a manager's permissions are not looked at");
    for domain in [2, 3] {
        assert_eq!(page(domain, 0x45f), Err(Fault::Domain(Level::Second)));
    }
    let section = walk_words(REGISTERS, &[(FIRST, 0x6121_141e | 2 << 5)], ADDRESS);
    assert_eq!(section, Ok(Err(Fault::Domain(Level::First))));
}

#[test]
fn an_access_flag_is_one_only_if_the_register_says_so() {
    let registers = Registers { sctlr: REGISTERS.sctlr | SCTLR_AFE, ..REGISTERS };
    let page = |bits: u32| {
        let words = [(FIRST, TABLE), (SECOND, 0x6123_4000 | bits)];
        walk_words(registers, &words, ADDRESS).expect("clear")
    };
    assert_eq!(page(0x44f), Err(Fault::AccessFlag(Level::Second)));
    assert_eq!(page(0x45f).expect("a mapping").rights(), "rw-/---");
    assert_eq!(page(0x67f).expect("a mapping").rights(), "r--/r--");
}

#[test]
fn ttbcr_chooses_the_table_and_the_length_of_its_index() {
    // Table 0 has 2048 entries, and its base 13 bits less: 0x60002000.
    let low = 0x4012_3456;
    let words = [(0x6000_2000 + 4 * 0x401, 0x6121_141e)];
    assert_eq!(
        walk_words(REGISTERS, &words, low).expect("clear").map(|it| it.physical),
        Ok(0x6122_3456)
    );
    // N = 0: table 0 for everything; N = 2: table 1 already from 0x40000000 on.
    let words = [(0x6000_0000 + 4 * 0xc01, 0x6121_141e)];
    let all = Registers { ttbcr: 0, ttbr0: 0x6000_0000, ..REGISTERS };
    assert!(walk_words(all, &words, ADDRESS).expect("clear").is_ok());
    let quarter = Registers { ttbcr: 2, ..REGISTERS };
    let words = [(0x6000_4000 + 4 * 0x401, 0x6121_141e)];
    assert!(walk_words(quarter, &words, low).expect("clear").is_ok());
}

#[test]
fn disabled_walks_find_nothing() {
    let disabled = Ok(Err(Fault::Translation(Level::First)));
    let words = [(FIRST, 0x6121_141e), (0x6000_2000, 0x6121_141e)];
    let pd0 = Registers { ttbcr: 1 | 1 << 4, ..REGISTERS };
    assert_eq!(walk_words(pd0, &words, 0), disabled);
    assert!(walk_words(pd0, &words, ADDRESS).expect("clear").is_ok());
    let pd1 = Registers { ttbcr: 1 | 1 << 5, ..REGISTERS };
    assert_eq!(walk_words(pd1, &words, ADDRESS), disabled);
    assert!(walk_words(pd1, &words, 0).expect("clear").is_ok());
}

#[test]
fn what_is_not_decoded_is_not_guessed() {
    let unclear =
        |registers| matches!(walk_words(registers, &[], ADDRESS), Err(Unclear::Registers(_)));
    assert!(unclear(Registers { sctlr: 0, ..REGISTERS }));
    assert!(unclear(Registers { sctlr: REGISTERS.sctlr | SCTLR_TRE, ..REGISTERS }));
    assert!(unclear(Registers { ttbcr: 1 << 31, ..REGISTERS }));
    let words = [(FIRST, 0x9000_0001)];
    let address = ADDRESS & 0xfff0_0fff;
    assert_eq!(walk_words(REGISTERS, &words, address), Err(Unclear::Memory("no memory".into())));
}
