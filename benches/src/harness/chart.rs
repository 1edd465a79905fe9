//! [`Chart`]: bars, as SVG.

use std::fmt::Write;

/// Where things are, in pixels.
const WIDTH: usize = 1060;
const LABELS: usize = 500;
const BARS: usize = 460;
const MARGIN: usize = 12;
const HEAD: usize = 56;
const BAR: usize = 14;
const GAP: usize = 10;

/// A row for each contender, with a bar for each series.
pub(super) struct Chart {
    pub(super) title: String,
    /// What the bars are, and the colour of each.
    pub(super) series: Vec<(&'static str, &'static str)>,
    pub(super) rows: Vec<Row>,
}

pub(super) struct Row {
    pub(super) label: String,
    /// One for each series.
    pub(super) values: Vec<f64>,
}

impl Chart {
    pub(super) fn svg(&self) -> String {
        let most = self.rows.iter().flat_map(|row| &row.values).copied().filter(|value| value.is_finite());
        let most = most.fold(f64::MIN_POSITIVE, f64::max);
        let row_height = BAR * self.series.len() + GAP;
        let height = HEAD + row_height * self.rows.len() + MARGIN;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        text(&mut svg, MARGIN, 22, "font-size=\"16\" font-weight=\"bold\"", &self.title);
        for (at, (name, colour)) in self.series.iter().enumerate() {
            let x = LABELS + at * 150;
            rectangle(&mut svg, x, 34, 10, colour);
            text(&mut svg, x + 16, 44, "", name);
        }
        for (at, row) in self.rows.iter().enumerate() {
            let top = HEAD + at * row_height;
            let middle = top + BAR * self.series.len() / 2 + 4;
            text(&mut svg, LABELS - MARGIN, middle, "text-anchor=\"end\"", &row.label);
            for (at, ((_, colour), value)) in self.series.iter().zip(&row.values).enumerate() {
                let (y, length) = (top + at * BAR, (value / most * BARS as f64).max(1.0) as usize);
                rectangle(&mut svg, LABELS, y, length, colour);
                text(&mut svg, LABELS + length + 6, y + 11, "", &figure(*value));
            }
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn rectangle(svg: &mut String, x: usize, y: usize, width: usize, colour: &str) {
    let height = BAR - 2;
    writeln!(svg, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{colour}\"/>").ok();
}

fn text(svg: &mut String, x: usize, y: usize, attributes: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    writeln!(svg, "<text x=\"{x}\" y=\"{y}\" {attributes}>{text}</text>").ok();
}

fn figure(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_is_the_largest_value_and_labels_are_escaped() {
        let row = |label: &str, value| Row { label: label.to_owned(), values: vec![value] };
        let rows = vec![row("a < b", 50.0), row("c & d", 200.0)];
        let svg = Chart { title: "drain".to_owned(), series: vec![("a second", "#336791")], rows }.svg();
        assert!(svg.contains("width=\"460\"") && svg.contains("width=\"115\""), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("c &amp; d") && svg.contains(">50.00<"), "{svg}");
    }
}
