//! The frame allocator against a cell a frame: placement, exhaustion, every kind of wrong free, and nothing lost.

mod model;
mod walk;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::run::prove;
use walk::{Scene, Step, Walk};

/// RAM of a few blocks with odd edges and holes in it.
fn scenes(frames: impl Strategy<Value = u32>) -> impl Strategy<Value = Scene> {
    let cuts = vec((any::<u32>(), 1..600_u32, any::<bool>()), 0..6);
    (frames, cuts).prop_map(|(frames, cuts)| Scene::new(frames, &cuts))
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..=11_u32).prop_map(Step::Block),
        4 => (0..3_u32).prop_map(Step::Block),
        4 => prop_oneof![0..40_u32, 0..1100_u32].prop_map(Step::Pages),
        4 => prop_oneof![0..40_u32, 0..3000_u32].prop_map(Step::List),
        3 => (0..5_u32).prop_map(Step::Raw),
        10 => any::<u32>().prop_map(Step::Free),
        2 => (any::<u32>(), any::<u32>()).prop_map(|(one, other)| Step::Join(one, other)),
        2 => any::<u32>().prop_map(Step::Pop),
        2 => any::<u32>().prop_map(Step::ChangeHands),
        3 => any::<u32>().prop_map(Step::FreeRaw),
        4 => (any::<u32>(), 0..13_u32).prop_map(|(frame, order)| Step::FreeAnything(frame, order)),
        1 => Just(Step::Drain),
    ]
}

#[test]
fn small_memories_agree_with_a_cell_a_frame_at_every_step() {
    let histories = (scenes(1..600_u32), vec(steps(), 1..80));
    prove(
        "-p properties",
        "frames::small_memories_agree_with_a_cell_a_frame_at_every_step",
        300,
        &histories,
        |(scene, steps)| {
            let records = scene.records();
            let mut walk = Walk::new(&scene, &records)?;
            for step in &steps {
                walk.take(step)?;
                walk.compare()?;
            }
            walk.finish()
        },
    );
}

#[test]
fn memories_of_several_largest_blocks_agree_with_a_cell_a_frame() {
    let histories = (scenes(2000..9000_u32), vec(steps(), 50..150));
    prove(
        "-p properties",
        "frames::memories_of_several_largest_blocks_agree_with_a_cell_a_frame",
        40,
        &histories,
        |(scene, steps)| {
            let records = scene.records();
            let mut walk = Walk::new(&scene, &records)?;
            for step in &steps {
                walk.take(step)?;
            }
            walk.compare()?;
            walk.finish()
        },
    );
}
