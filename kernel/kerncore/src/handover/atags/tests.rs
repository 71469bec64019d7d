//! Sound lists, and every way in which one can be unsound.

use super::*;

const BASE: PhysAddr = PhysAddr::new(0x6000_0000);
const PLACE: PhysAddr = PhysAddr::new(0x6000_0100);

fn tag(tag: u32, payload: &[u32]) -> Vec<u32> {
    let words = u32::try_from(payload.len()).expect("short") + HEADER;
    [&[words, tag], payload].concat()
}

/// The words of `text` and of what ends it, padded.
fn text(text: &[u8]) -> Vec<u32> {
    let chunks = text.chunks(4).map(|chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        u32::from_le_bytes(word)
    });
    tag(COMMAND_LINE, &chunks.collect::<Vec<_>>())
}

fn core() -> Vec<u32> {
    tag(CORE, &[1, 4096, 0])
}

fn memory(bytes: u32, start: u32) -> Vec<u32> {
    tag(MEMORY, &[bytes, start])
}

const END: [u32; 2] = [0, NONE];

fn bytes(tags: &[&[u32]]) -> Vec<u8> {
    tags.concat().into_iter().flat_map(u32::to_le_bytes).collect()
}

fn read_all(list: &[u8]) -> (Handover<'_>, Vec<Problem>) {
    let mut problems = vec![];
    let handover = read(PLACE, list, BASE, |problem| problems.push(problem));
    (handover, problems)
}

#[test]
fn a_list_tells_ram_command_line_and_initial_ram_disk() {
    let list = bytes(&[
        &core(),
        &memory(512 << 20, 0x6000_0000),
        &tag(0x5441_0007, &[1, 2]),
        &tag(INITRD, &[0x6800_0000, 100]),
        &text(b"seed=3 list\0"),
        &END,
    ]);
    let initrd = Span { start: PhysAddr::new(0x6800_0000), bytes: 100 };
    let expected =
        Handover { command_line: Some(b"seed=3 list"), ram: Some(512 << 20), initrd: Some(initrd) };
    assert_eq!(read_all(&list), (expected, vec![]));
}

#[test]
fn a_core_tag_without_payload_is_one_and_one_of_another_size_is_reported() {
    let list = bytes(&[&tag(CORE, &[]), &memory(4096, 0x6000_0000), &END]);
    assert_eq!(read_all(&list), (Handover { ram: Some(4096), ..Handover::default() }, vec![]));
    let list = bytes(&[&tag(CORE, &[1]), &memory(4096, 0x6000_0000), &END]);
    let problem = Problem::Size { tag: CORE, offset: 0, words: 3 };
    assert_eq!(
        read_all(&list),
        (Handover { ram: Some(4096), ..Handover::default() }, vec![problem])
    );
}

#[test]
fn banks_that_follow_each_other_are_one_and_others_are_reported() {
    let list = bytes(&[
        &core(),
        &memory(0x1000, 0x6000_0000),
        &memory(0x2000, 0x6000_1000),
        &memory(0x1000, 0x8000_0000),
        &memory(0, 0x6000_3000),
        &memory(u32::MAX, 0x6000_3000),
        &END,
    ]);
    let bank = |start, bytes| Problem::Bank { start, bytes };
    let problems = vec![
        bank(0x8000_0000, 0x1000),
        bank(0x6000_3000, 0),
        bank(0x6000_3000, u64::from(u32::MAX)),
    ];
    assert_eq!(read_all(&list), (Handover { ram: Some(0x3000), ..Handover::default() }, problems));
}

#[test]
fn a_list_at_an_odd_address_is_not_read() {
    let list = bytes(&[&core(), &END]);
    let address = PhysAddr::new(0x6000_0102);
    let mut problems = vec![];
    let handover = read(address, &list, BASE, |problem| problems.push(problem));
    assert_eq!((handover, problems), (Handover::default(), vec![Problem::Unaligned { address }]));
}

#[test]
fn a_list_that_begins_with_another_tag_is_not_read() {
    let list = bytes(&[&memory(4096, 0x6000_0000), &core(), &END]);
    assert_eq!(read_all(&list), (Handover::default(), vec![Problem::NotCore { tag: MEMORY }]));
    assert_eq!(read_all(&[]), (Handover::default(), vec![Problem::NotCore { tag: NONE }]));
    assert!(!begins_with_core(&list) && begins_with_core(&list[16..]));
}

#[test]
fn a_tag_of_no_size_ends_the_list() {
    for words in [0, 1] {
        let list = bytes(&[&core(), &[words, MEMORY], &text(b"list\0"), &END]);
        let problem = Problem::Size { tag: MEMORY, offset: 20, words };
        assert_eq!(read_all(&list), (Handover::default(), vec![problem]));
    }
}

#[test]
fn a_tag_that_reaches_beyond_the_list_ends_it() {
    for words in [6, 0x4000_0000, u32::MAX] {
        let list = bytes(&[&core(), &[words, MEMORY, 4096, 0x6000_0000, 0]]);
        let problem = Problem::Overlong { tag: MEMORY, offset: 20, words };
        assert_eq!(read_all(&list), (Handover::default(), vec![problem]));
    }
}

#[test]
fn a_list_without_an_end_is_used_as_far_as_it_goes() {
    let list = bytes(&[&core(), &memory(4096, 0x6000_0000)]);
    let expected = Handover { ram: Some(4096), ..Handover::default() };
    assert_eq!(read_all(&list), (expected, vec![Problem::NoEnd]));
}

#[test]
fn a_known_tag_of_the_wrong_size_is_passed_over() {
    let list =
        bytes(&[&core(), &tag(MEMORY, &[4096]), &tag(INITRD, &[1, 2, 3]), &text(b"list\0"), &END]);
    let expected = Handover { command_line: Some(b"list"), ..Handover::default() };
    let problems = vec![
        Problem::Size { tag: MEMORY, offset: 20, words: 3 },
        Problem::Size { tag: INITRD, offset: 32, words: 5 },
    ];
    assert_eq!(read_all(&list), (expected, problems));
}

#[test]
fn a_command_line_without_an_end_and_a_disk_without_bytes_are_passed_over() {
    let list = bytes(&[&core(), &text(b"list"), &tag(INITRD, &[5, 0]), &END]);
    let problems = vec![Problem::Unterminated, Problem::Initrd { start: 5, bytes: 0 }];
    assert_eq!(read_all(&list), (Handover::default(), problems));
}

/// Every single wrong word in a sound list, and every length of it: no panic, and nothing from beyond what is there.
#[test]
fn no_damage_to_a_list_is_fatal() {
    let sound = bytes(&[
        &core(),
        &memory(512 << 20, 0x6000_0000),
        &tag(INITRD, &[0x6800_0000, 100]),
        &text(b"seed=3\0"),
        &END,
    ]);
    for length in 0..sound.len() {
        read_all(&sound[..length]);
    }
    for place in (0..sound.len()).step_by(4) {
        for wrong in [0, 1, 2, 3, 5, 0x3fff_ffff, 0x4000_0001, 0x8000_0000, u32::MAX, CORE] {
            let mut list = sound.clone();
            list[place..place + 4].copy_from_slice(&wrong.to_le_bytes());
            let (handover, _problems) = read_all(&list);
            if let Some(ram) = handover.ram {
                assert!(BASE.raw().checked_add(ram - 1).is_some(), "{ram:#x}");
            }
        }
    }
}
