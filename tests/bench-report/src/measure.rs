//! All rows measured: each in a boot of its own, twice, which must agree.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use serde_json::{Map, Value};

use crate::image::{self, Cost};
use crate::rows::{self, EMPTY_CALL};

/// What was measured, by row.
pub(crate) type Figures = BTreeMap<String, Cost>;

/// Measures the rows that the image has and whose name contains `filter`.
pub(crate) fn all(filter: &str, jobs: usize) -> Result<Figures, String> {
    let there = image::rows()?;
    if let Some(unknown) = there.iter().find(|name| !is_known(name)) {
        return Err(format!("the image has a row {unknown}, which the table does not have"));
    }
    let wanted: Vec<&String> = there.iter().filter(|name| name.contains(filter)).collect();
    if wanted.is_empty() {
        return Err(format!("no row that can be measured has \"{filter}\" in its name"));
    }
    eprintln!("measuring {} rows, each twice", wanted.len());
    let next = AtomicUsize::new(0);
    let measured = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, wanted.len()) {
            scope.spawn(|| {
                while let Some(name) = wanted.get(next.fetch_add(1, Relaxed)) {
                    let cost = twice(name);
                    measured.lock().expect("no thread panics with it").push((*name, cost));
                }
            });
        }
    });
    let measured = measured.into_inner().expect("no thread panics with it");
    measured.into_iter().map(|(name, cost)| Ok((name.clone(), cost?))).collect()
}

fn is_known(name: &str) -> bool {
    name == EMPTY_CALL || rows::names().any(|row| row == name)
}

/// A figure that is not the same the second time is none.
fn twice(name: &str) -> Result<Cost, String> {
    let (one, other) = (image::measure(name, None)?, image::measure(name, None)?);
    agree(name, one, other)
}

fn agree(name: &str, one: Cost, other: Cost) -> Result<Cost, String> {
    if one == other {
        return Ok(one);
    }
    Err(format!("{name}: two runs in a row do not agree: {one:?}, {other:?}"))
}

/// The figures as JSON, in the order of the table.
pub(crate) fn json(figures: &Figures) -> String {
    let figure =
        |name: &'static str| Some((name.into(), rows::figure(name, figures.get(name)?).into()));
    pretty(&Value::Object(rows::names().filter_map(figure).collect::<Map<_, _>>()))
}

/// Readable JSON with an end of line.
pub(crate) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Cost = Cost { operations: 10, total: 95, first: 9, dearest: 10 };

    #[test]
    fn the_smallest_difference_between_two_runs_is_an_error() {
        assert_eq!(agree("a", COST, COST), Ok(COST));
        for other in
            [Cost { total: 96, ..COST }, Cost { first: 8, ..COST }, Cost { dearest: 11, ..COST }]
        {
            let error = agree("a", COST, other).expect_err("they differ");
            assert!(error.starts_with("a: two runs"), "{error}");
        }
    }

    #[test]
    fn the_json_has_the_figures_of_the_rows_that_were_measured() {
        let figures: Figures = [("vmalloc_to_page".into(), COST), (EMPTY_CALL.into(), COST)].into();
        assert_eq!(json(&figures), "{\n  \"vmalloc_to_page\": 10\n}\n");
    }
}
