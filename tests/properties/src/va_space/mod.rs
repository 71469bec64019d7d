//! The vmalloc window's addresses against a flag a page: S1 to S7, S13, S14, S14a, S88.

mod model;
mod right;
mod step;
mod walk;

use proptest::prelude::*;

use crate::run::prove;
use step::{Scene, histories};
use walk::Walk;

/// Small spaces at awkward places, everything compared after every step.
#[test]
fn s1_s14a_small_spaces_agree_with_a_flag_a_page_at_every_step() {
    let pages = prop_oneof![1..=16_u32, 17..=70_u32, 200..=300_u32];
    let small = histories(Scene::anywhere(pages), 1..80);
    prove(
        "-p properties",
        "va_space::s1_s14a_small_spaces_agree_with_a_flag_a_page_at_every_step",
        400,
        &small,
        |(scene, steps)| {
            let mut memory = scene.storage();
            let mut walk = Walk::new(scene, &mut memory);
            for step in &steps {
                walk.take(step)?;
                walk.compare()?;
            }
            walk.finish()
        },
    );
}

/// The whole vmalloc window: every level of the indices, placement compared at every step, all else at the end.
#[test]
fn s1_s7_the_whole_window_agrees_with_a_flag_a_page() {
    let large = histories(Scene::vmalloc_window(), 100..400);
    prove(
        "-p properties",
        "va_space::s1_s7_the_whole_window_agrees_with_a_flag_a_page",
        12,
        &large,
        |(scene, steps)| {
            let mut memory = scene.storage();
            let mut walk = Walk::new(scene, &mut memory);
            for step in &steps {
                walk.take(step)?;
            }
            walk.compare()?;
            walk.finish()
        },
    );
}
