//! Line charts as SVG: panels in two columns, each with its own scale. Numbers are written with one
//! digit after the point, so that the same figures make the same file everywhere.

use std::fmt::{self, Display, Write};

/// Several panels below a title.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// How it came about.
    pub subtitle: String,
    /// What the horizontal axis of every panel counts.
    pub along: String,
    /// The panels, row by row.
    pub panels: Vec<Panel>,
}

/// Lines over one scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// What it shows, with its unit.
    pub title: String,
    /// Where its scale ends.
    pub scale: Scale,
    /// The lines.
    pub lines: Vec<Line>,
}

/// The vertical scale of a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From zero to a round number above all points.
    FromZero,
    /// From a round number below all points to a hundred.
    Percent,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// What it is.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

impl Display for Plot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.panels.len().div_ceil(2);
        let height = HEAD + rows as f64 * PANEL_HEIGHT + MARGIN;
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" \
             font-family=\"sans-serif\" font-size=\"12\" fill=\"{INK}\">"
        )?;
        writeln!(f, "<rect width=\"{WIDTH:.0}\" height=\"{height:.0}\" fill=\"#ffffff\"/>")?;
        text(f, (MARGIN, 26.0), "font-size=\"17\" font-weight=\"bold\"", &self.title)?;
        text(f, (MARGIN, 45.0), FAINT, &self.subtitle)?;
        for (at, panel) in self.panels.iter().enumerate() {
            let left = MARGIN + (at % 2) as f64 * PANEL_WIDTH;
            let top = HEAD + (at / 2) as f64 * PANEL_HEIGHT;
            panel.draw(f, (left, top), &self.along)?;
        }
        write!(f, "</svg>")
    }
}

impl Panel {
    fn draw(&self, f: &mut fmt::Formatter<'_>, (left, top): Point, along: &str) -> fmt::Result {
        let all = || self.lines.iter().flat_map(|line| &line.points).copied();
        let area = Area {
            left: left + LABELS,
            right: left + PANEL_WIDTH - GAP,
            top: top + LEGEND,
            bottom: top + PANEL_HEIGHT - GAP - LABELS,
            x: Axis::below(all().map(|(x, _)| x).fold(0.0, f64::max)),
            y: match self.scale {
                Scale::FromZero => Axis::below(all().map(|(_, y)| y).fold(0.0, f64::max)),
                Scale::Percent => Axis::percent(all().map(|(_, y)| y).fold(PERCENT_SPAN, f64::min)),
            },
        };
        text(f, (left, top + 14.0), "font-weight=\"bold\"", &self.title)?;
        area.draw_axes(f, along)?;
        // The names stand in one line, each as wide as it roughly is.
        let mut name_at = area.left;
        for (line, color) in self.lines.iter().zip(COLORS.iter().cycle()) {
            let (from, to) = (name_at, name_at + 16.0);
            writeln!(
                f,
                "<path d=\"M{from:.1} {:.1}H{to:.1}\" stroke=\"{color}\" stroke-width=\"3\"/>",
                top + 27.0
            )?;
            text(f, (to + 4.0, top + 31.0), "", &line.name)?;
            name_at = to + 22.0 + 6.6 * line.name.chars().count() as f64;
            area.draw_line(f, line, color)?;
        }
        Ok(())
    }
}

// Where the lines of a panel are drawn, and what it stands for.
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x: Axis,
    y: Axis,
}

impl Area {
    fn at(&self, (x, y): Point) -> Point {
        let across = self.x.share(x) * (self.right - self.left);
        let up = self.y.share(y) * (self.bottom - self.top);
        (self.left + across, self.bottom - up)
    }

    fn draw_axes(&self, f: &mut fmt::Formatter<'_>, along: &str) -> fmt::Result {
        let Area { left, right, bottom, .. } = *self;
        for tick in self.y.ticks() {
            let (_, y) = self.at((self.x.from, tick));
            writeln!(f, "<path d=\"M{left:.1} {y:.1}H{right:.1}\" stroke=\"{GRID}\"/>")?;
            let place = (left - 6.0, y + 4.0);
            text(f, place, "text-anchor=\"end\"", &self.y.label(tick))?;
        }
        for tick in self.x.ticks() {
            let (x, _) = self.at((tick, self.y.from));
            let end = bottom + 4.0;
            writeln!(f, "<path d=\"M{x:.1} {bottom:.1}V{end:.1}\" stroke=\"{INK}\"/>")?;
            let place = (x, bottom + 17.0);
            text(f, place, "text-anchor=\"middle\"", &self.x.label(tick))?;
        }
        writeln!(f, "<path d=\"M{left:.1} {bottom:.1}H{right:.1}\" stroke=\"{INK}\"/>")?;
        let style = format!("{FAINT} text-anchor=\"end\"");
        text(f, (right, bottom + 31.0), &style, along)
    }

    fn draw_line(&self, f: &mut fmt::Formatter<'_>, line: &Line, color: &str) -> fmt::Result {
        let mut path = String::new();
        for (n, point) in line.points.iter().enumerate() {
            let (x, y) = self.at(*point);
            write!(path, "{}{x:.1} {y:.1}", if n == 0 { "M" } else { "L" })?;
        }
        writeln!(
            f,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" \
             stroke-linejoin=\"round\"/>"
        )?;
        for point in line.points.iter().filter(|_| line.points.len() <= POINTS_MARKED_MAX) {
            let (x, y) = self.at(*point);
            writeln!(f, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\"/>")?;
        }
        Ok(())
    }
}

// A scale between two round numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Axis {
    from: f64,
    to: f64,
    step: f64,
}

impl Axis {
    // From zero to the round number above `max`.
    fn below(max: f64) -> Axis {
        let step = round_step(max / TICKS);
        Axis { from: 0.0, to: (max / step).ceil().max(1.0) * step, step }
    }

    // From the round number below `min` to a hundred.
    fn percent(min: f64) -> Axis {
        let step = round_step((100.0 - min) / TICKS);
        let steps = ((100.0 - min) / step).ceil().max(1.0);
        Axis { from: 100.0 - steps * step, to: 100.0, step }
    }

    fn share(&self, x: f64) -> f64 {
        (x - self.from) / (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + use<> {
        let Axis { from, to, step } = *self;
        let count = ((to - from) / step).round() as u32;
        (0..=count).map(move |n| from + f64::from(n) * step)
    }

    fn label(&self, tick: f64) -> String {
        let digits = [1.0, 0.1, 0.01].into_iter().take_while(|unit| self.step < *unit).count();
        format!("{tick:.digits$}")
    }
}

// 1, 2 or 5 times a power of ten: the smallest that is not below `least`.
fn round_step(least: f64) -> f64 {
    let mut unit = 1e-2;
    loop {
        for times in [1.0, 2.0, 5.0] {
            if unit * times >= least {
                return unit * times;
            }
        }
        unit *= 10.0;
    }
}

type Point = (f64, f64);

fn text(f: &mut fmt::Formatter<'_>, (x, y): Point, style: &str, what: &str) -> fmt::Result {
    write!(f, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>")?;
    for c in what.chars() {
        match c {
            '<' => f.write_str("&lt;")?,
            '>' => f.write_str("&gt;")?,
            '&' => f.write_str("&amp;")?,
            c => f.write_char(c)?,
        }
    }
    writeln!(f, "</text>")
}

const WIDTH: f64 = 1_000.0;
const MARGIN: f64 = 20.0;
/// Title and subtitle.
const HEAD: f64 = 64.0;
const PANEL_WIDTH: f64 = 485.0;
const PANEL_HEIGHT: f64 = 270.0;
const GAP: f64 = 24.0;
const LABELS: f64 = 44.0;
const LEGEND: f64 = 46.0;
/// About as many steps on an axis.
const TICKS: f64 = 5.0;
/// A scale of percents reaches down to this at least: tiny differences should look tiny.
const PERCENT_SPAN: f64 = 95.0;
/// Longer lines go without dots.
const POINTS_MARKED_MAX: usize = 60;
const INK: &str = "#222222";
const GRID: &str = "#dddddd";
const FAINT: &str = "fill=\"#666666\"";
/// Told apart by people who see few colours as well (Okabe and Ito).
const COLORS: [&str; 6] = ["#0072b2", "#e69f00", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers_and_hold_every_point() {
        assert_eq!(Axis::below(870.0), Axis { from: 0.0, to: 1_000.0, step: 200.0 });
        assert_eq!(Axis::below(1.0).to, 1.0);
        assert_eq!(Axis::percent(99.3).ticks().count(), 5);
        assert_eq!(Axis::percent(41.0), Axis { from: 40.0, to: 100.0, step: 20.0 });
        assert_eq!((Axis::below(0.0).to, Axis::percent(100.0).to), (0.01, 100.0));
        for max in [0.3, 7.0, 24.0, 99_999.0] {
            let axis = Axis::below(max);
            assert!(axis.to >= max && axis.ticks().count() <= 7, "{axis:?}");
        }
        assert_eq!(Axis::below(1.0).label(0.2), "0.2");
        assert_eq!(Axis::below(24.0).label(5.0), "5");
    }

    #[test]
    fn plot_is_well_formed_and_escapes_what_it_is_told() {
        let line = Line { name: "a<b".to_owned(), points: vec![(0.5, 3.0), (1.0, 4.0)] };
        let panel = |scale| Panel { title: "x & y".to_owned(), scale, lines: vec![line.clone()] };
        let plot = Plot {
            title: "t".to_owned(),
            subtitle: String::new(),
            along: "hours".to_owned(),
            panels: vec![panel(Scale::FromZero), panel(Scale::Percent), panel(Scale::FromZero)],
        };
        let svg = plot.to_string();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>"));
        assert!(svg.contains("x &amp; y") && svg.contains("a&lt;b") && !svg.contains("a<b"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert_eq!(svg, plot.to_string());
    }

    #[test]
    fn panel_without_points_is_empty_not_broken() {
        let panel = Panel { title: String::new(), scale: Scale::FromZero, lines: Vec::new() };
        let plot = Plot {
            title: String::new(),
            subtitle: String::new(),
            along: String::new(),
            panels: vec![panel],
        };
        assert!(!plot.to_string().contains("NaN"));
    }
}
