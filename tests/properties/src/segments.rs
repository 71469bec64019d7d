//! Segments of scatter lists against what is said of them: S109 for pieces anywhere, and limits of any size.

use kerncore::addr::{PAGE_SIZE, PhysAddr};
use kerncore::iommu::{Segment, SegmentLimits};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use crate::run::prove;

/// Pieces, mostly of whole pages.
fn pieces() -> impl Strategy<Value = Vec<(u32, u32)>> {
    let offset = prop_oneof![5 => Just(0), 1 => 1..PAGE_SIZE];
    let piece =
        (0x6_0000..0x8_0000_u32, offset, 1..20_u32, prop_oneof![5 => Just(0), 1 => 1..PAGE_SIZE]);
    vec(
        piece.prop_map(|(page, offset, pages, short)| {
            let bytes = (pages * PAGE_SIZE).saturating_sub(offset + short);
            (page * PAGE_SIZE + offset, bytes.max(1))
        }),
        1..40,
    )
}

fn limits() -> impl Strategy<Value = SegmentLimits> {
    let most = prop_oneof![Just(64 << 10), 1..300_000_u32, Just(u32::MAX)];
    (most, prop_oneof![1..=31_u32, Just(32)]).prop_map(|(most, bits)| {
        let boundary = 1_u32.checked_shl(bits).map_or(u32::MAX, |next| next - 1);
        SegmentLimits::new(most, boundary).expect("limits")
    })
}

fn follow(pieces: &[(u32, u32)], limits: SegmentLimits) -> TestCaseResult {
    // Segments, by the pieces in them.
    let mut segments: Vec<(Segment, Vec<(u32, u32)>)> = Vec::new();
    for &(first, bytes) in pieces {
        let place = PhysAddr::new(first);
        let joined = segments.last().and_then(|(open, _)| open.joined(place, bytes, limits));
        if let (Some(joined), Some((open, own))) = (joined, segments.last_mut()) {
            *open = joined;
            own.push((first, bytes));
        } else {
            segments.push((Segment::new(place, bytes), vec![(first, bytes)]));
        }
    }
    for (segment, own) in &segments {
        let bytes: u32 = own.iter().map(|(_, bytes)| bytes).sum();
        prop_assert_eq!(segment.bytes(), bytes);
        if own.len() == 1 {
            continue;
        }
        let offset = own[0].0 % PAGE_SIZE;
        prop_assert!(bytes <= limits.most());
        // Wherever it comes to lie, aligned to its order.
        let order = (offset + bytes).next_power_of_two();
        prop_assert!(order - 1 <= limits.boundary() || offset + bytes - 1 <= limits.boundary());
        for pair in own.windows(2) {
            prop_assert_eq!((pair[0].0 + pair[0].1) % PAGE_SIZE, 0, "a seam");
            prop_assert_eq!(pair[1].0 % PAGE_SIZE, 0, "a seam");
        }
    }
    // No two could have been one.
    for pair in segments.windows(2) {
        let ((before, own), (_, next)) = (&pair[0], &pair[1]);
        let offset = own[0].0 % PAGE_SIZE;
        let whole = before.bytes() + next[0].1;
        let ends_a_page = (offset + before.bytes()).is_multiple_of(PAGE_SIZE);
        let is_seam = ends_a_page && next[0].0.is_multiple_of(PAGE_SIZE);
        let fits = whole <= limits.most() && offset + whole - 1 <= limits.boundary();
        prop_assert!(!is_seam || !fits || offset + whole > 16 << 20);
    }
    Ok(())
}

/// S109: seams are those of pages, no segment is larger than its device takes, and no two could be one.
#[test]
fn pieces_are_joined_as_far_as_they_can_be_and_no_further() {
    prove(
        "-p properties --lib",
        "segments::pieces_are_joined_as_far_as_they_can_be_and_no_further",
        400,
        &(pieces(), limits()),
        |(pieces, limits)| follow(&pieces, limits),
    );
}
