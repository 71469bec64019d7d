//! The recorded figures: by compiler, since another compiler makes other instructions.
//!
//! ```text
//! { "rustc 1.96.0 (…)": { "vmalloc_vfree_4K": 480, … }, … }
//! ```

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::measure::{Figures, pretty};
use crate::rows::{self, EMPTY_CALL};

/// The figures of one compiler, by row.
pub(crate) type Recorded = BTreeMap<String, u32>;

/// The figures of all compilers that somebody recorded with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record(BTreeMap<String, Recorded>);

impl Record {
    /// Reads a record.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| format!("the record: {error}"))?;
        let object = |value: &Value| value.as_object().cloned();
        let compilers = object(&value).ok_or("the record is no object")?;
        let figures = |(compiler, rows): (String, Value)| {
            let rows = object(&rows)?;
            let row =
                |(name, cost): (String, Value)| Some((name, u32::try_from(cost.as_u64()?).ok()?));
            Some((compiler, rows.into_iter().map(row).collect::<Option<Recorded>>()?))
        };
        let read = compilers.into_iter().map(figures).collect::<Option<_>>();
        Ok(Self(read.ok_or("the record has something that is no figure")?))
    }

    /// What was recorded with `compiler`.
    pub(crate) fn of(&self, compiler: &str) -> Option<&Recorded> {
        self.0.get(compiler)
    }

    /// The record with `figures` in the place of what `compiler` had.
    pub(crate) fn with(mut self, compiler: &str, figures: &Figures) -> Self {
        let rows = figures.iter().filter(|(name, _)| *name != EMPTY_CALL);
        let recorded = rows.map(|(name, cost)| (name.clone(), rows::figure(name, cost))).collect();
        self.0.insert(compiler.to_owned(), recorded);
        self
    }

    /// As it is written to its file: rows in the order of the table.
    pub(crate) fn text(&self) -> String {
        let rows = |recorded: &Recorded| {
            let rows = rows::names()
                .filter_map(|name| Some((name.to_owned(), (*recorded.get(name)?).into())));
            Value::Object(rows.collect::<Map<_, _>>())
        };
        let compilers =
            self.0.iter().map(|(compiler, recorded)| (compiler.clone(), rows(recorded)));
        pretty(&Value::Object(compilers.collect()))
    }
}

/// What a row may cost at most that is recorded with this: 2 % more.
fn limit(recorded: u32) -> u64 {
    u64::from(recorded) * 102 / 100
}

/// The least that a row may move that is recorded with this: 2 % less.
fn least(recorded: u32) -> u64 {
    (u64::from(recorded) * 98).div_ceil(100)
}

/// Whether a row has got worse than is allowed.
fn is_worse(name: &str, before: u32, now: u32) -> bool {
    match rows::rate(name) {
        Some(_) => u64::from(now) < least(before),
        None => u64::from(now) > limit(before),
    }
}

/// A line for each row that got dearer, or vanished, or was never recorded.
pub(crate) fn complaints(recorded: &Recorded, figures: &Figures) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, &before) in recorded {
        match figures.get(name).map(|cost| rows::figure(name, cost)) {
            None => complaints.push(format!("{name}: recorded, and not measured any more")),
            Some(now) if is_worse(name, before, now) => {
                let percent = (f64::from(now) / f64::from(before) - 1.0) * 100.0;
                complaints.push(format!("{name}: {now}, recorded {before}: {percent:+.1} %"));
            }
            Some(_) => {}
        }
    }
    let unrecorded =
        figures.keys().filter(|name| *name != EMPTY_CALL && !recorded.contains_key(*name));
    complaints.extend(unrecorded.map(|name| format!("{name}: not recorded (make bench RECORD=1)")));
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Cost;

    const COMPILER: &str = "rustc 1.2.3 (abc 2026-01-02)";

    fn figures(rows: &[(&str, u32)]) -> Figures {
        let cost = |mean: u32| Cost { operations: 1, total: mean.into(), first: 0, dearest: 0 };
        rows.iter().map(|&(name, mean)| (name.to_owned(), cost(mean))).collect()
    }

    fn recorded(rows: &[(&str, u32)]) -> Recorded {
        rows.iter().map(|&(name, mean)| (name.to_owned(), mean)).collect()
    }

    #[test]
    fn a_row_dearer_by_three_percent_is_named_with_both_figures() {
        let before = recorded(&[("a", 1000), ("b", 1000), ("c", 1000)]);
        let now = figures(&[("a", 1030), ("b", 1020), ("c", 900)]);
        assert_eq!(complaints(&before, &now), ["a: 1030, recorded 1000: +3.0 %"]);
    }

    #[test]
    fn every_dearer_row_is_named() {
        let before = recorded(&[("a", 1000), ("b", 2000)]);
        let now = figures(&[("a", 1021), ("b", 3000)]);
        assert_eq!(complaints(&before, &now).len(), 2);
    }

    #[test]
    fn two_percent_are_allowed_and_no_instruction_more() {
        for (before, most) in [(1000, 1020), (28, 28), (50, 51), (99, 100)] {
            let before = recorded(&[("a", before)]);
            assert_eq!(complaints(&before, &figures(&[("a", most)])), [""; 0]);
            assert_eq!(complaints(&before, &figures(&[("a", most + 1)])).len(), 1);
        }
    }

    #[test]
    fn of_a_row_that_moves_data_more_is_better() {
        let name = "disk_read_64M_bounced";
        let moved = |total| -> Figures {
            let cost = Cost { operations: 1000, total, first: 0, dearest: 0 };
            [(name.to_owned(), cost)].into()
        };
        let before = recorded(&[(name, 65_536)]);
        assert_eq!(complaints(&before, &moved(1_000_000)), [""; 0]);
        assert_eq!(complaints(&before, &moved(500_000)), [""; 0], "twice as much");
        assert_eq!(complaints(&before, &moved(1_020_000)), [""; 0]);
        let slower = complaints(&before, &moved(1_021_000));
        assert_eq!(slower, [format!("{name}: 64188, recorded 65536: -2.1 %")]);
    }

    #[test]
    fn a_row_that_vanished_and_one_that_nobody_recorded_are_named() {
        let complaints = complaints(&recorded(&[("a", 1)]), &figures(&[("b", 1), (EMPTY_CALL, 6)]));
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].starts_with("a: recorded, and not measured"));
        assert!(complaints[1].starts_with("b: not recorded"));
    }

    #[test]
    fn figures_of_another_compiler_are_kept_and_not_compared_with() {
        let (new, old) = (figures(&[("vmalloc_to_page", 28)]), figures(&[("vmalloc_to_page", 30)]));
        let record = Record::default().with("rustc 1.0.0", &old).with(COMPILER, &old);
        let record = record.with(COMPILER, &new);
        assert_eq!(record.of(COMPILER), Some(&recorded(&[("vmalloc_to_page", 28)])));
        assert_eq!(record.of("rustc 1.0.0"), Some(&recorded(&[("vmalloc_to_page", 30)])));
        assert_eq!(record.of("rustc 9.0.0"), None);
        assert_eq!(Record::read(&record.text()), Ok(record));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for text in
            ["", "[]", "{\"rustc\": 1}", "{\"rustc\": {\"a\": \"1\"}}", "{\"rustc\": {\"a\": -1}}"]
        {
            assert!(Record::read(text).is_err(), "{text}");
        }
    }
}
