//! Words for many slots, however they are drawn.

use super::*;

/// A machine may draw the words one by one or have them all given to it.
#[test]
fn steps_are_the_same_one_by_one_and_folded() {
    for left in 0..=40 {
        let steps = || Steps::<0x1000> { next: 0xffff_e45f, left };
        let expected: Vec<u32> =
            (0..left).map(|step| 0xffff_e45f_u32.wrapping_add(step * 0x1000)).collect();
        let folded = steps().fold(Vec::new(), |mut words, word| {
            words.push(word);
            // More would go on for ever.
            assert!(words.len() <= expected.len(), "{left} words");
            words
        });
        assert_eq!(folded, expected);
        let mut drawn = Vec::new();
        for word in steps() {
            drawn.push(word);
            assert!(drawn.len() <= expected.len(), "{left} words");
        }
        assert_eq!(drawn, expected);
    }
}
