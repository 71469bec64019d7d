//! The call by which programs print: every byte that they may read, and each character whole.

extern crate alloc;

use alloc::string::String;
use alloc::vec;

use image::programs::{EFAULT, write};
use kerncore::addr::PAGE_SIZE;
use kerncore::user::{Protection, USER_END};
use ktest::ktest;
use mm::user::AddressSpace;

use super::user::{DATA, at, pages};

/// A space with a page at `start` that ends with `text`.
fn ending_with(start: u32, text: &[u8]) -> AddressSpace {
    let space = AddressSpace::new().expect("memory");
    space.map_data(pages(start, 1), Protection::ReadWrite).expect("memory");
    let room = u32::try_from(text.len()).expect("less than a page");
    space.copy_to(at(start + PAGE_SIZE - room), text).expect("its own");
    space
}

/// What is printed of the last `bytes` of that page, and `more` behind it; and the answer.
fn printed(text: &[u8], more: u32) -> (u32, String) {
    let mut output = String::new();
    let bytes = u32::try_from(text.len()).expect("less than a page");
    let start = at(DATA + PAGE_SIZE - bytes);
    let answer = write(&ending_with(DATA, text), start, bytes + more, &mut output);
    (answer, output)
}

/// However the text is cut into pieces to be copied, no character is lost in between.
#[ktest]
fn a_character_is_printed_wherever_it_lies_s118() {
    for character in ["é", "€", "🦀"] {
        for before in 120..136 {
            let text = ["a".repeat(before), character.repeat(80), "z".into()].concat();
            let (answer, output) = printed(text.as_bytes(), 0);
            assert_eq!((answer as usize, output), (text.len(), text), "{character} {before}");
        }
    }
}

#[ktest]
fn what_is_no_text_is_printed_as_such() {
    let bytes = [b"a\xffb\xe2\x82".as_slice(), &[b'c'; 200], b"\xf0\x9f"].concat();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert_eq!(printed(&bytes, 0), (207, text));
    let text = "\u{fffd}".repeat(300);
    assert_eq!(printed(&[0xff; 300], 0), (300, text));
}

/// What can be read is printed, and the answer says how much that was.
#[ktest]
fn a_text_is_printed_up_to_where_it_cannot_be_read_s118() {
    for bytes in [1, 5, 127, 128, 129, 300] {
        let text = "x".repeat(bytes);
        for more in [1, 100, 1000, 0x4000_0000] {
            let (answer, output) = printed(text.as_bytes(), more);
            assert_eq!((answer as usize, output.as_str()), (bytes, &*text), "{more} more");
        }
    }
    // A character that does not end before the fault.
    assert_eq!(printed(b"ab\xe2\x82", 1), (4, "ab\u{fffd}".into()));
}

/// The last page below the kernel ends where no program's memory goes on.
#[ktest]
fn a_text_is_printed_up_to_the_kernels_first_byte_s118() {
    let start = USER_END.raw() - PAGE_SIZE;
    let space = ending_with(start, b"end");
    for (bytes, expected) in [(3, 3), (4, 3), (500, 3), (u32::MAX, 3)] {
        let mut output = String::new();
        let answer = write(&space, at(USER_END.raw() - 3), bytes, &mut output);
        assert_eq!((answer, output.as_str()), (expected, "end"));
    }
    let mut nothing = vec![];
    for address in [0, DATA, USER_END.raw(), u32::MAX] {
        let mut output = String::new();
        nothing.push((write(&space, at(address), 9, &mut output), output));
    }
    let refused = (EFAULT.wrapping_neg(), String::new());
    assert_eq!(nothing, vec![refused; 4]);
}
