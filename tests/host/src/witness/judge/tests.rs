//! Witnesses that agree, and each of them lying in its turn.

use super::*;
use crate::witness::decode::Registers;

const TABLE: u64 = 0x6abc_d400;
const FRAME: u32 = 0x6123_4000;

/// A machine with one page at 0xc0123008, and a guard behind it.
struct Fake {
    descriptor: u32,
    /// What gva2gpa says.
    emulated: Option<u64>,
    /// The word at the frame's third place.
    word: u32,
}

fn right() -> Fake {
    Fake { descriptor: FRAME | 0x45f, emulated: Some(u64::from(FRAME) + 8), word: 0x1234_5678 }
}

impl Memory for Fake {
    fn words(&mut self, address: u64) -> Result<[u32; 16], String> {
        let mut words = [0; 16];
        match address {
            0x6000_7000 => words[1] = 0x6abc_d401,
            at if at == TABLE + 0x80 => words[3] = self.descriptor,
            at if at == u64::from(FRAME) => words[2] = self.word,
            _ => {}
        }
        Ok(words)
    }
}

impl Emulator for Fake {
    fn translate(&mut self, cpu: u32, _address: u32) -> Result<Option<u64>, String> {
        if cpu == 0 { Ok(self.emulated) } else { Err(format!("there is no CPU {cpu}")) }
    }
}

fn head() -> Head {
    let registers =
        Registers { ttbr0: 0x6000_2000, ttbr1: 0x6000_4000, ttbcr: 1, dacr: 1, sctlr: 1 };
    Head { number: 1, cpu: 0, registers, test: "vmalloc::maps".into() }
}

fn read(line: &str) -> Testimony {
    Testimony::read(line).expect("a testimony")
}

const TRUE: &str = "r vmalloc 0xc0123008 0x61234008 small rw-/--- write-back global 0x61234008 \
                    0x61234008 0x12345678";
const ABSENT: &str = "r freed 0xc0123008 - - - - - Translation(Second) Translation(Second) \
                      Translation(Second)";
/// A machine where nothing is at 0xc0123008.
fn empty() -> Fake {
    Fake { descriptor: 0, emulated: None, word: 0 }
}

#[test]
fn who_agrees_is_believed() {
    assert_eq!(judge(64 << 20, &head(), &read(TRUE), &mut right()), Ok(()));
    for access in ["touched", "-"] {
        let said = TRUE.replace("0x12345678", access);
        assert_eq!(judge(64 << 20, &head(), &read(&said), &mut right()), Ok(()));
    }
    assert_eq!(judge(64 << 20, &head(), &read(ABSENT), &mut empty()), Ok(()));
}

/// Each lie is told once, and named by who told it.
#[test]
fn each_witness_that_differs_is_named() {
    for (from, to, named) in [
        ("0x61234008 small", "0x61235008 small", "our walker's entry"),
        ("small", "large", "our walker's entry"),
        ("rw-/---", "r--/---", "our walker's entry"),
        ("write-back", "device", "our walker's entry"),
        ("global 0x", "non-global 0x", "our walker's entry"),
        ("global 0x61234008", "global 0x61235008", "ATS1CPR"),
        ("global 0x61234008", "global Permission(Second)", "ATS1CPR"),
        ("0x61234008 0x1", "Permission(Second) 0x1", "ATS1CPW"),
        ("0x12345678", "0x12345679", "the access"),
        ("0x12345678", "Translation(Second)", "the access"),
    ] {
        let said = TRUE.replacen(from, to, 1);
        assert_ne!(said, TRUE, "{from}");
        let why = judge(64 << 20, &head(), &read(&said), &mut right()).expect_err(&said);
        assert!(why.starts_with(&format!("vmalloc 0xc0123008: {named} against")), "{why}");
        assert!(why.contains("0x61234008"), "it says what the others say: {why}");
    }
    for emulated in [None, Some(0x6123_5008)] {
        let why = judge(64 << 20, &head(), &read(TRUE), &mut Fake { emulated, ..right() });
        let why = why.expect_err("the emulator differs");
        assert!(why.starts_with("vmalloc 0xc0123008: gva2gpa against"), "{why}");
    }
}

/// A kernel whose own witnesses all say so is not believed either.
#[test]
fn a_mapping_that_is_not_there_is_refused_however_many_say_so() {
    let why = judge(64 << 20, &head(), &read(TRUE), &mut empty()).expect_err("nothing is there");
    for named in ["our walker's entry", "ATS1CPR", "ATS1CPW", "the access", "the rule"] {
        assert!(why.contains(named), "{why}");
    }
    let why =
        judge(64 << 20, &head(), &read(ABSENT), &mut right()).expect_err("something is there");
    assert!(why.contains("gva2gpa 0x61234008") && why.contains("the rule"), "{why}");
}

#[test]
fn what_was_touched_must_be_there() {
    let said = ABSENT.replacen("Translation(Second)", "touched", 3).replacen(
        "touched",
        "Translation(Second)",
        2,
    );
    let why = judge(64 << 20, &head(), &read(&said), &mut empty()).expect_err("nothing is there");
    assert!(why.starts_with("freed 0xc0123008: the access against"), "{why}");
}

/// A linear address leads to one place only, whatever all say.
#[test]
fn the_linear_map_leads_to_its_own_frames() {
    // A section at 0x60000000 for 0x80000000; and one for 0x80100000, which leads to the same place.
    struct Linear;
    impl Memory for Linear {
        fn words(&mut self, address: u64) -> Result<[u32; 16], String> {
            let mut words = [0; 16];
            if address == 0x6000_6000 {
                words[..2].fill(0x6001_141e);
            }
            Ok(words)
        }
    }
    impl Emulator for Linear {
        fn translate(&mut self, _cpu: u32, address: u32) -> Result<Option<u64>, String> {
            Ok(Some(u64::from(address & 0x000f_ffff | 0x6000_0000)))
        }
    }
    let line =
        "r linear 0x80000000 0x60000000 section rw-/--- write-back global 0x60000000 0x60000000 -";
    let told = |line: &str| judge(64 << 20, &head(), &read(line), &mut Linear);
    assert_eq!(told(line), Ok(()));
    let why = told(&line.replacen("0x80000000", "0x80100000", 1)).expect_err("elsewhere");
    assert!(why.contains("the rule for this kind"), "{why}");
}

/// All agree about an entry that the kind may not have.
#[test]
fn what_all_agree_about_must_still_be_what_the_kind_promises() {
    let why = |from: &str, to: &str, descriptor: u32| {
        let said = TRUE.replace(from, to);
        judge(64 << 20, &head(), &read(&said), &mut Fake { descriptor, ..right() })
    };
    let rule = "the rule for this kind against";
    for (from, to, descriptor) in [
        ("rw-/---", "rwx/---", FRAME | 0x45e),
        ("write-back", "non-cacheable", FRAME | 0x453),
        ("vmalloc", "heap", FRAME | 0x45f),
        ("vmalloc", "freed", FRAME | 0x45f),
        ("vmalloc", "ioremap", FRAME | 0x45f),
        ("vmalloc", "coherent", FRAME | 0x45f),
    ] {
        let why = why(from, to, descriptor).expect_err(to);
        assert!(why.contains(rule), "{why}");
    }
    assert!(why("vmalloc", "vmap", FRAME | 0x45f).is_ok());
    assert!(why("vmalloc", "something", FRAME | 0x45f).is_err());
}

/// S93, S112: code of on-chip memory is nobody's to write, cached nowhere, and nowhere else.
#[test]
fn registers_are_executed_on_chip_alone_and_never_written() {
    let ioremap = TRUE.replace("vmalloc", "ioremap").replace("0x12345678", "-");
    let says = |frame: u32, bits: u32, rights: &str, memory: &str, store: &str| {
        let at = format!("{:#010x}", frame + 8);
        let said = ioremap.replace(
            &format!("global 0x61234008 {:#010x}", FRAME + 8),
            &format!("global {at} {store}"),
        );
        let said = said.replace("0x61234008", &at).replace("rw-/---", rights);
        let said = said.replace("write-back", memory);
        let emulated = Some(u64::from(frame) + 8);
        let mut machine = Fake { descriptor: frame | bits, emulated, ..right() };
        judge(64 << 20, &head(), &read(&said), &mut machine)
    };
    let refused = "Permission(Second)";
    let right = says(0x4870_1000, 0x652, "r-x/---", "non-cacheable", refused);
    assert_eq!(right, Ok(()));
    for (frame, bits, rights, memory, store) in [
        (0x47ff_f000, 0x652, "r-x/---", "non-cacheable", refused),
        (0x4a00_0000, 0x652, "r-x/---", "non-cacheable", refused),
        (0x4870_1000, 0x65e, "r-x/---", "write-back", refused),
        (0x4870_1000, 0x452, "rwx/---", "non-cacheable", "0x48701008"),
    ] {
        let why = says(frame, bits, rights, memory, store).expect_err(rights);
        assert!(why.starts_with("ioremap 0xc0123008: the rule for this kind against"), "{why}");
    }
}

#[test]
fn the_cpu_that_asked_is_the_one_that_is_asked_about() {
    let head = Head { cpu: 2, ..head() };
    let why = judge(64 << 20, &head, &read(TRUE), &mut right()).expect_err("another CPU");
    assert!(why.contains("there is no CPU 2"), "{why}");
}
