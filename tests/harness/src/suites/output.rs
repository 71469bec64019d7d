//! Tests that hold, in boots whose report is not whole (`crate::output`).

use ktest::ktest;

#[ktest]
fn nothing_is_printed() {}

#[ktest]
fn breaks_off_before_the_result() {}

#[ktest]
fn has_no_plan() {}

#[ktest]
fn has_no_counts_at_its_end() {}
