//! Inline SVG: an area with two axes onto which points, lines and labels are put.
//!
//! Across, places are shares of the page's width; up, and for all text, they are pixels. So a plot fits a phone without its
//! text becoming small.

use std::fmt::Write;

use super::html::escape;

/// Pixels below and above the area; the style sheet leaves room beside it.
const BOTTOM: f64 = 34.0;
const TOP: f64 = 10.0;
/// Pixels from the foot of one line of text to the next.
const LINE: f64 = 14.0;

/// A plot with a linear x axis and a logarithmic or linear y axis. Colours are classes of the page's style sheet.
pub(super) struct Plot {
    x: [f64; 2],
    y: [f64; 2],
    log: bool,
    height: f64,
    body: String,
}

impl Plot {
    /// A plot of these ranges; with `log`, `y` must be positive.
    pub(super) fn new(x: [f64; 2], y: [f64; 2], log: bool, height: f64) -> Self {
        Self { x, y, log, height, body: String::new() }
    }

    /// Per cent across, pixels down.
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let scale = |value: f64| if self.log { value.ln() } else { value };
        let share = |value: f64, [low, high]: [f64; 2]| if high > low { (value - low) / (high - low) } else { 0.5 };
        let across = share(x, self.x).clamp(0.0, 1.0);
        let up = share(scale(y), self.y.map(scale)).clamp(0.0, 1.0);
        (100.0 * across, self.height - BOTTOM - up * (self.height - BOTTOM - TOP))
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.body.write_fmt(element);
    }

    /// A dot with a text that shows when it is pointed at.
    pub(super) fn dot(&mut self, x: f64, y: f64, class: &str, title: &str) {
        let (x, y) = self.at(x, y);
        let title = escape(title);
        self.put(format_args!(
            "<circle cx='{x:.2}%' cy='{y:.1}' r='4' class='{class}'><title>{title}</title></circle>"
        ));
    }

    /// A line through points.
    pub(super) fn line(&mut self, points: &[(f64, f64)], class: &str) {
        for pair in points.windows(2) {
            let [(x1, y1), (x2, y2)] = [pair[0], pair[1]].map(|(x, y)| self.at(x, y));
            self.put(format_args!("<line x1='{x1:.2}%' y1='{y1:.1}' x2='{x2:.2}%' y2='{y2:.1}' class='{class}'/>"));
        }
    }

    /// Texts at the right end, above these values; higher where one would cover another.
    pub(super) fn labels(&mut self, mut labels: Vec<(f64, String)>) {
        labels.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut lowest = f64::INFINITY;
        for (value, text) in labels {
            let y = (self.at(self.x[1], value).1 - 4.0).min(lowest);
            self.put(format_args!("<text x='100%' y='{y:.1}' class='end'>{}</text>", escape(&text)));
            lowest = y - LINE;
        }
    }

    /// A text that starts at a point.
    pub(super) fn text(&mut self, x: f64, y: f64, text: &str) {
        let (x, y) = self.at(x, y);
        self.put(format_args!("<text x='{x:.2}%' y='{:.1}'>{}</text>", y - 4.0, escape(text)));
    }

    /// A mark on the y axis.
    pub(super) fn tick_y(&mut self, y: f64, text: &str) {
        let (_, y) = self.at(self.x[0], y);
        self.put(format_args!(
            "<line x1='0' y1='{y:.1}' x2='100%' y2='{y:.1}' class='grid'/>\
             <text x='-6' y='{:.1}' class='end'>{}</text>",
            y + 4.0,
            escape(text)
        ));
    }

    /// A mark on the x axis.
    pub(super) fn tick_x(&mut self, x: f64, text: &str) {
        let (x, _) = self.at(x, self.y[0]);
        let y = self.height - BOTTOM + 16.0;
        self.put(format_args!("<text x='{x:.2}%' y='{y:.1}' class='mid'>{}</text>", escape(text)));
    }

    /// The element.
    pub(super) fn finish(self, description: &str) -> String {
        format!("<svg height='{}' role='img' aria-label='{}'>{}</svg>", self.height, escape(description), self.body)
    }
}

/// Round values within a range of a logarithmic axis: 1, 2 or 5 times powers of ten, or finer where that gives few.
pub(super) fn log_ticks([low, high]: [f64; 2]) -> Vec<f64> {
    const STEPS: [&[f64]; 3] = [
        &[1.0, 2.0, 5.0],
        &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0],
        &[
            1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0, 3.25,
            3.5, 3.75, 4.0, 4.25, 4.5, 4.75, 5.0, 5.25, 5.5, 5.75, 6.0, 6.5, 7.0, 7.5, 8.0, 8.5, 9.0, 9.5,
        ],
    ];
    let within = |steps: &[f64]| -> Vec<f64> {
        let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
        decades
            .flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)))
            .filter(|value| (low..=high).contains(value))
            .collect()
    };
    STEPS.iter().map(|steps| within(steps)).find(|ticks| ticks.len() >= 4).unwrap_or_else(|| within(STEPS[2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_enough() {
        assert_eq!(log_ticks([4.0, 120.0]), [5.0, 10.0, 20.0, 50.0, 100.0]);
        let narrow = log_ticks([5.5, 6.8]);
        assert!(narrow.len() >= 4 && narrow.iter().all(|tick| (5.5..=6.8).contains(tick)), "{narrow:?}");
    }

    #[test]
    fn labels_that_would_cover_each_other_are_moved_up() {
        let mut plot = Plot::new([0.0, 1.0], [0.0, 100.0], false, 144.0);
        plot.labels(vec![(50.0, "b".into()), (49.0, "a".into()), (10.0, "c".into())]);
        let svg = plot.finish("");
        let at = |text: &str| -> f64 {
            let (before, _) = svg.split_once(&format!("' class='end'>{text}<")).unwrap();
            before.rsplit_once("y='").unwrap().1.parse().unwrap()
        };
        assert_eq!((at("c"), at("a"), at("b")), (96.0, 57.0, 43.0));
    }

    #[test]
    fn points_stay_within_the_plot_and_text_is_escaped() {
        let mut plot = Plot::new([0.0, 10.0], [1.0, 100.0], true, 200.0);
        plot.dot(5.0, 1e9, "trial", "a<b");
        let svg = plot.finish("it's");
        assert!(svg.contains("cy='10.0'") && svg.contains("a&lt;b") && svg.contains("it&#39;s"), "{svg}");
    }
}
