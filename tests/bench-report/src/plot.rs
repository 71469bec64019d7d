//! The plot: what an allocation costs beside more and more live areas.

use std::fmt::Write;

use crate::measure::Figures;
use crate::rows::ROWS;
use crate::table::grouped;

/// Live areas, and the row that is measured beside them.
const POINTS: [(u32, &str); 4] = [
    (0, "vmalloc_vfree_4K"),
    (1_000, "vmalloc_vfree_4K_live_1000"),
    (10_000, "vmalloc_vfree_4K_live_10000"),
    (30_000, "vmalloc_vfree_4K_live_30000"),
];
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 60.0;

/// One line: its name, its colour, its points.
type Line = (&'static str, &'static str, Vec<(u32, u32)>);

/// The plot, as SVG.
pub(crate) fn svg(figures: &Figures) -> String {
    let linux = |figure: fn(&crate::rows::Row) -> Option<u32>| {
        let value = |name| ROWS.iter().find(|row| row.name == name).and_then(figure);
        POINTS.iter().filter_map(|&(live, name)| Some((live, value(name)?))).collect()
    };
    let ours = POINTS.iter().filter_map(|&(live, name)| Some((live, figures.get(name)?.mean())));
    draw(&[
        ("Linux 6.12 (smp)", "#b0413e", linux(|row| row.smp)),
        ("Linux (best)", "#d08a2e", linux(|row| row.best)),
        ("Mapwright", "#2a6f97", ours.collect()),
    ])
}

fn draw(lines: &[Line]) -> String {
    let values = || lines.iter().flat_map(|(_, _, points)| points);
    let most_live = values().map(|point| point.0).max().unwrap_or(1).max(1);
    // The axis ends at a whole thousand.
    let top = values().map(|point| point.1).max().unwrap_or(1).next_multiple_of(1000);
    let x = |live: u32| LEFT + f64::from(live) / f64::from(most_live) * (WIDTH - LEFT - RIGHT);
    let y =
        |cost: u32| HEIGHT - BOTTOM - f64::from(cost) / f64::from(top) * (HEIGHT - TOP - BOTTOM);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">vmalloc and vfree of 4 KiB: instructions, by live areas</text>\n"
    );
    for cost in (0..=top).step_by(1000.max(top as usize / 5000 * 1000)) {
        let (y, right, label) = (y(cost), WIDTH - RIGHT, grouped(cost));
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 8.0,
            y + 4.0,
        );
    }
    for (live, _) in POINTS {
        // 0 and 1,000 are too near for two labels side by side.
        let (x, y) = (x(live), HEIGHT - BOTTOM + if live == 1_000 { 34.0 } else { 18.0 });
        let label = grouped(live);
        let _ =
            writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{label}</text>");
    }
    for (name, colour, points) in lines {
        let path: Vec<String> =
            points.iter().map(|&(live, cost)| format!("{:.1},{:.1}", x(live), y(cost))).collect();
        let Some(&(live, cost)) = points.last() else { continue };
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}: {}</text>",
            path.join(" "),
            x(live) + 8.0,
            y(cost) + 4.0,
            grouped(cost),
        );
        for (&(live, cost), at) in points.iter().zip(&path) {
            let (x, y) = at.split_once(',').unwrap_or_default();
            let _ = writeln!(
                svg,
                "<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"{colour}\"><title>{live} live: {cost}</title></circle>"
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dearer_point_lies_higher_and_more_areas_lie_further_right() {
        let svg = draw(&[("a", "red", vec![(0, 1000), (30_000, 2000)])]);
        let points = svg.split_once("points=\"").and_then(|(_, rest)| rest.split_once('"'));
        assert_eq!(points.map(|(points, _)| points), Some("80.0,200.0 590.0,40.0"), "{svg}");
        assert!(svg.contains("2,000"));
    }

    #[test]
    fn every_point_is_a_row_of_the_table() {
        for (_, name) in POINTS {
            assert!(ROWS.iter().any(|row| row.name == name), "{name}");
        }
    }

    #[test]
    fn nothing_measured_is_nothing_drawn_of_ours() {
        assert_eq!(svg(&Figures::new()).matches("<polyline").count(), 2);
    }
}
