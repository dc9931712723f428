//! One plot in SVG: lines over a logarithmic x axis, y from zero.

use std::fmt::Write;

/// Width of a plot with its labels.
pub const WIDTH: f64 = 470.0;
/// Height of a plot with its labels.
pub const HEIGHT: f64 = 250.0;

const LEFT: f64 = 58.0;
const RIGHT: f64 = WIDTH - 14.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = HEIGHT - 42.0;
/// Space between the axes and the first and last x.
const INSET: f64 = 26.0;
/// About so many lines across.
const Y_TICKS: f64 = 5.0;

/// What to plot.
#[derive(Debug)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Below the x axis.
    pub x_label: &'static str,
    /// Where x has a tick, ascending, and what it says; the first and last are the ends of the axis.
    pub x_ticks: Vec<(f64, String)>,
    /// Unit of y.
    pub y_unit: &'static str,
    /// The lines.
    pub lines: Vec<Line>,
    /// Multiplied by x, the y of a dotted curve: the budget in y's unit.
    pub limit_per_x: Option<f64>,
}

/// One line.
#[derive(Debug, Clone)]
pub struct Line {
    /// What the legend says.
    pub name: String,
    /// How it looks.
    pub style: Style,
    /// Its points.
    pub points: Points,
}

/// What a line joins.
#[derive(Debug, Clone)]
pub enum Points {
    /// Each x and its y; without y the run failed, which a cross on the upper edge shows.
    At(Vec<(f64, Option<f64>)>),
    /// The same y whatever x, dashed.
    Level(f64),
}

impl Points {
    /// Whether there is something to draw.
    pub fn any(&self) -> bool {
        !matches!(self, Self::At(points) if points.is_empty())
    }
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Colour, as SVG has it.
    pub colour: &'static str,
    /// What stands at its points.
    pub marker: Marker,
}

/// What stands at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    Circle,
    Square,
    Triangle,
}

impl Plot {
    /// The plot as SVG elements, its upper left corner at 0, 0.
    pub fn svg(&self) -> String {
        let scale = Scale::new(self);
        let mut svg = format!(
            "<text x=\"{LEFT}\" y=\"18\" class=\"title\">{}</text>\n<text x=\"{}\" y=\"{}\" class=\"middle\">{}</text>\n",
            escaped(&self.title),
            (LEFT + RIGHT) / 2.0,
            HEIGHT - 8.0,
            escaped(self.x_label)
        );
        self.axes(&scale, &mut svg);
        if let Some(factor) = self.limit_per_x {
            limit(factor, &scale, &mut svg);
        }
        for line in &self.lines {
            draw(line, &scale, &mut svg);
        }
        svg
    }

    fn axes(&self, scale: &Scale, svg: &mut String) {
        let mut y = 0.0;
        while y <= scale.y_max * 1.001 {
            let at = scale.y(y);
            let _ = writeln!(svg, "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{RIGHT}\" y2=\"{at:.1}\" class=\"grid\"/>");
            let unit = if y + scale.y_step > scale.y_max * 1.001 { self.y_unit } else { "" };
            let (x, below, label) = (LEFT - 6.0, at + 4.0, number(y, scale.y_step));
            let _ = writeln!(svg, "<text x=\"{x}\" y=\"{below:.1}\" class=\"end\">{label} {unit}</text>");
            y += scale.y_step;
        }
        for (x, label) in &self.x_ticks {
            let (at, end, below) = (scale.x(*x), BOTTOM + 4.0, BOTTOM + 17.0);
            let _ = writeln!(svg, "<line x1=\"{at:.1}\" y1=\"{BOTTOM}\" x2=\"{at:.1}\" y2=\"{end}\" class=\"axis\"/>");
            let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{below}\" class=\"middle\">{}</text>", escaped(label));
        }
        let _ = writeln!(svg, "<line x1=\"{LEFT}\" y1=\"{BOTTOM}\" x2=\"{RIGHT}\" y2=\"{BOTTOM}\" class=\"axis\"/>");
    }
}

/// A line's part of the legend, its left end at `x`, its middle at `y`.
pub fn legend(line: &Line, x: f64, y: f64) -> String {
    let (end, middle, text, below) = (x + 28.0, x + 14.0, x + 34.0, y + 4.0);
    let Style { colour, marker } = line.style;
    let (dashes, marker) = match line.points {
        Points::Level(_) => (DASHES, String::new()),
        Points::At(_) => ("", marker.svg(middle, y, colour)),
    };
    format!(
        "<line x1=\"{x}\" y1=\"{y}\" x2=\"{end}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>{marker}\
         <text x=\"{text}\" y=\"{below}\">{}</text>\n",
        escaped(&line.name)
    )
}

/// The dotted curve's part of the legend.
pub fn limit_legend(name: &str, x: f64, y: f64) -> String {
    let (end, text, below) = (x + 28.0, x + 34.0, y + 4.0);
    format!(
        "<line x1=\"{x}\" y1=\"{y}\" x2=\"{end}\" y2=\"{y}\" class=\"limit\"/><text x=\"{text}\" y=\"{below}\">{}</text>\n",
        escaped(name)
    )
}

const DASHES: &str = " stroke-dasharray=\"7 4\"";

/// Where values are.
struct Scale {
    x_from: f64,
    x_to: f64,
    y_max: f64,
    y_step: f64,
}

impl Scale {
    fn new(plot: &Plot) -> Self {
        let mut largest: f64 = 0.0;
        for line in &plot.lines {
            match &line.points {
                Points::At(points) => points.iter().filter_map(|point| point.1).for_each(|y| largest = largest.max(y)),
                Points::Level(y) => largest = largest.max(*y),
            }
        }
        let y_step = step(largest);
        let y_max = (largest * 1.05 / y_step).ceil().max(1.0) * y_step;
        let end = |tick: Option<&(f64, String)>| tick.map_or(1.0, |tick| tick.0);
        Self { x_from: end(plot.x_ticks.first()), x_to: end(plot.x_ticks.last()), y_max, y_step }
    }

    fn x(&self, x: f64) -> f64 {
        let (from, to) = (LEFT + INSET, RIGHT - INSET);
        match self.x_to > self.x_from {
            true => from + (to - from) * (x / self.x_from).ln() / (self.x_to / self.x_from).ln(),
            false => (from + to) / 2.0,
        }
    }

    fn y(&self, y: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * y / self.y_max
    }
}

fn draw(line: &Line, scale: &Scale, svg: &mut String) {
    let Style { colour, marker } = line.style;
    let points = match &line.points {
        Points::Level(y) => {
            let at = scale.y(*y);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{RIGHT}\" y2=\"{at:.1}\" stroke=\"{colour}\" \
                 stroke-width=\"2\"{DASHES}/>"
            );
            return;
        }
        Points::At(points) => points,
    };
    let _ = writeln!(svg, "{}", polyline(points, scale, &format!("stroke=\"{colour}\" stroke-width=\"2\"")));
    for &(x, y) in points {
        let at = scale.x(x);
        let mark = match y {
            Some(y) => marker.svg(at, scale.y(y), colour),
            None => format!(
                "<path d=\"M{:.1} {}l10 10m0 -10l-10 10\" stroke=\"{colour}\" stroke-width=\"3\"/>",
                at - 5.0,
                TOP - 5.0
            ),
        };
        let _ = writeln!(svg, "{mark}");
    }
}

/// Joins the points that have a y.
fn polyline(points: &[(f64, Option<f64>)], scale: &Scale, style: &str) -> String {
    let points: Vec<String> =
        points.iter().filter_map(|&(x, y)| Some(format!("{:.1},{:.1}", scale.x(x), scale.y(y?)))).collect();
    format!("<polyline points=\"{}\" fill=\"none\" {style}/>", points.join(" "))
}

/// The curve y = factor · x, as far as it is in the plot.
fn limit(factor: f64, scale: &Scale, svg: &mut String) {
    let ratio = scale.x_to / scale.x_from;
    let points: Vec<(f64, Option<f64>)> = (0..=100)
        .map(|step| scale.x_from * ratio.powf(f64::from(step) / 100.0))
        .filter(|x| x * factor <= scale.y_max)
        .map(|x| (x, Some(x * factor)))
        .collect();
    let _ = writeln!(svg, "{}", polyline(&points, scale, "class=\"limit\""));
}

/// The distance of ticks: 1, 2 or 5 times a power of ten.
fn step(largest: f64) -> f64 {
    let rough = largest.max(f64::MIN_POSITIVE) / Y_TICKS;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough);
    factor.unwrap_or(10.0) * power
}

/// As many decimals as the step has.
fn number(value: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    format!("{value:.decimals$}")
}

/// Text as XML has it.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Marker {
    fn svg(self, x: f64, y: f64, colour: &str) -> String {
        match self {
            Self::Circle => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>"),
            Self::Square => {
                let (x, y) = (x - 4.0, y - 4.0);
                format!("<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"8\" height=\"8\" fill=\"{colour}\"/>")
            }
            Self::Triangle => {
                let (x, y) = (x - 5.0, y + 4.0);
                format!("<path d=\"M{x:.1} {y:.1}h10l-5 -9z\" fill=\"{colour}\"/>")
            }
        }
    }
}
