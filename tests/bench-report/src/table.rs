//! The table: our figures beside Linux's.

use std::fmt::Write;

use crate::image::Cost;
use crate::measure::Figures;
use crate::rows::{self, EMPTY_CALL, Rate, Row};

/// Where a row has no figure.
const NONE: &str = "–";

/// The table as text.
pub(crate) fn text(rows: &[Row], figures: &Figures) -> String {
    let mut text = format!(
        "{:<33}{:>9}{:>9}{:>9}{:>10}{:>9}{:>9}{:>8}{:>8}\n",
        "instructions", "best", "smp", "goal", "Mapwright", "first", "dearest", "best/", "smp/"
    );
    for row in rows {
        text.push_str(&line(row, figures.get(row.name)));
    }
    let there: Vec<_> = rows.iter().filter_map(|row| Some((row, figures.get(row.name)?))).collect();
    let met = there.iter().filter(|(row, cost)| cost.mean() <= row.goal).count();
    let missing = rows.len() - there.len();
    let _ = write!(
        text,
        "\n{met} of {} goals are met (*); {missing} rows are not there yet. best/, smp/: how many times as dear Linux is.\n\
         Mapwright: the mean of all operations; dearest: of all but the first.\n",
        there.len(),
    );
    if let Some(cost) = figures.get(EMPTY_CALL) {
        let mean = cost.mean();
        let _ = writeln!(
            text,
            "Subtracted is the reading of the clock alone; a call that does nothing costs {mean}, which is in every figure."
        );
    }
    text
}

/// The table of the rows that move data, as text; nothing if none was measured.
pub(crate) fn rates(rates: &[Rate], figures: &Figures) -> String {
    let there = rates.iter().filter_map(|rate| Some((rate, figures.get(rate.name)?)));
    let mut lines = there.map(|(rate, cost)| {
        let figures = [rows::figure(rate.name, cost), cost.mean(), cost.first, cost.dearest];
        let [bytes, mean, first, dearest] = figures.map(grouped);
        let (name, note) = (rate.name, rate.note);
        format!("{name:<33}{bytes:>12}{mean:>12}{first:>9}{dearest:>9}  ({note})\n")
    });
    let Some(first) = lines.next() else { return String::new() };
    format!(
        "\n{:<33}{:>12}{:>12}{:>9}{:>9}\n{first}{}",
        "bytes per thousand instructions",
        "Mapwright",
        "a request",
        "first",
        "dearest",
        lines.collect::<String>()
    )
}

fn line(row: &Row, cost: Option<&Cost>) -> String {
    let linux = |figure: Option<u32>| figure.map_or(NONE.into(), grouped);
    let (best, smp, goal) = (linux(row.best), linux(row.smp), grouped(row.goal));
    let start = format!("{:<33}{best:>9}{smp:>9}{goal:>9}", row.name);
    let note = if row.note.is_empty() { String::new() } else { format!("  ({})", row.note) };
    let Some(cost) = cost else { return format!("{start}  not there yet{note}\n") };
    let ours = cost.mean();
    let ratio = |figure: Option<u32>| {
        figure.map_or(NONE.into(), |linux| {
            format!("{:.1}", f64::from(linux) / f64::from(ours.max(1)))
        })
    };
    let mark = if ours <= row.goal { '*' } else { ' ' };
    let (mean, first, dearest) = (grouped(ours), grouped(cost.first), grouped(cost.dearest));
    let (best, smp) = (ratio(row.best), ratio(row.smp));
    format!("{start}{mean:>9}{mark}{first:>9}{dearest:>9}{best:>8}{smp:>8}{note}\n")
}

/// A number with a comma every three digits.
pub(crate) fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Row =
        Row { name: "a", best: Some(1500), smp: Some(3000), goal: 500, note: "as said" };

    fn cost(mean: u32) -> Cost {
        Cost { operations: 10, total: u64::from(mean) * 10, first: 2000, dearest: 600 }
    }

    #[test]
    fn a_row_has_figures_ratios_and_a_mark_if_its_goal_is_met() {
        let words = |mean| {
            line(&ROW, Some(&cost(mean))).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            words(500),
            ["a", "1,500", "3,000", "500", "500*", "2,000", "600", "3.0", "6.0", "(as", "said)"]
        );
        assert_eq!(words(501)[4], "501");
    }

    #[test]
    fn a_row_that_cannot_be_measured_says_so() {
        assert!(line(&ROW, None).contains("not there yet"));
        let table = text(&[ROW], &Figures::new());
        assert!(table.contains("0 of 0 goals are met (*); 1 rows are not there yet"), "{table}");
    }

    #[test]
    fn rows_that_move_data_have_a_table_of_their_own() {
        let name = rows::RATES[0].name;
        let figures: Figures = [(name.to_owned(), cost(500))].into();
        let table = rates(rows::RATES, &figures);
        let words: Vec<&str> = table.lines().last().expect("lines").split_whitespace().collect();
        assert_eq!(words[..5], [name, "131,072", "500", "2,000", "600"]);
        assert_eq!(rates(rows::RATES, &Figures::new()), "");
    }

    #[test]
    fn digits_stand_in_groups_of_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
