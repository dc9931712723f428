//! `memory.svg`: for each task, peak memory and time against the number of chunks, and against the budget.

use std::fmt::Write;

use crate::child::Measured;
use crate::configuration::{System, bytes_text};
use crate::plot::{self, Line, Marker, Plot, Points, Style, escaped, legend, limit_legend};
use crate::report::{Report, Result, TaskReport};

const MARGIN: f64 = 16.0;
const WIDTH: f64 = 2.0 * plot::WIDTH + 2.0 * MARGIN;
const HEADER: f64 = 56.0;
const TASK_TITLE: f64 = 34.0;
const LEGEND_LINE: f64 = 20.0;
/// About the width of a letter.
const LETTER: f64 = 6.7;

const DATAFUSION: Style = Style { colour: "#d55e00", marker: Marker::Square };
const DUCKDB: Style = Style { colour: "#b8860b", marker: Marker::Triangle };
const CHUNKWISE: Style = Style { colour: "#0072b2", marker: Marker::Circle };
/// For limits within which each number of chunks was tried, in turn.
const CUT: [Style; 4] = [
    Style { colour: "#009e73", marker: Marker::Circle },
    Style { colour: "#56b4e9", marker: Marker::Circle },
    Style { colour: "#0b4f8a", marker: Marker::Circle },
    Style { colour: "#a0568c", marker: Marker::Circle },
];

const BUDGET: &str = "the budget";

/// A figure of a run.
#[derive(Debug, Clone, Copy)]
enum Figure {
    Memory { unit: &'static str, unit_bytes: f64 },
    Time,
}

/// The whole chart, a document of its own.
pub fn chart(report: &Report) -> String {
    let mut body = String::new();
    let mut top = HEADER;
    for task in &report.tasks {
        let (svg, height) = panels(task);
        let _ = write!(body, "<g transform=\"translate({MARGIN} {top})\">\n{svg}</g>\n");
        top += height;
    }
    let title = format!("Peak memory and time, TPC-H at scale {}", report.scale);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" width=\"{WIDTH}\" height=\"{top}\" \
         role=\"img\">\n<title>{title}</title>\n<style>\n\
         text {{ font: 12px system-ui, sans-serif; fill: #222 }}\n\
         .head {{ font-size: 17px; font-weight: 600 }}\n.task {{ font-size: 15px; font-weight: 600 }}\n\
         .title {{ font-weight: 600 }}\n.end {{ text-anchor: end }}\n.middle {{ text-anchor: middle }}\n\
         .grid {{ stroke: #ddd }}\n.axis {{ stroke: #555 }}\n\
         .limit {{ stroke: #777; stroke-width: 1.5; stroke-dasharray: 2 3 }}\n</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{MARGIN}\" y=\"26\" class=\"head\">{title}</text>\n\
         <text x=\"{MARGIN}\" y=\"46\">{}; a cross on the upper edge is a run that failed</text>\n{body}</svg>\n",
        escaped(&report.machine())
    )
}

/// A task's title, legend and four plots, and how high they are.
fn panels(task: &TaskReport) -> (String, f64) {
    let largest = task.results.iter().filter_map(|result| result.median.as_ref()?.peak_rss_bytes).max().unwrap_or(0);
    let memory = match largest {
        0x8000_0000.. => Figure::Memory { unit: "GiB", unit_bytes: f64::from(1 << 30) },
        _ => Figure::Memory { unit: "MiB", unit_bytes: f64::from(1 << 20) },
    };
    let figures = [memory, Figure::Time];
    let plots: Vec<[Plot; 2]> =
        figures.into_iter().map(|figure| [against_chunks(task, figure), against_budget(task, figure)]).collect();

    let mut svg = format!("<text y=\"18\" class=\"task\">{}</text>\n", escaped(task.task));
    let mut top = TASK_TITLE;
    top += legends(&plots, top, &mut svg);
    for row in &plots {
        for (column, plot) in row.iter().enumerate() {
            let left = column as f64 * plot::WIDTH;
            let _ = write!(svg, "<g transform=\"translate({left} {top})\">\n{}</g>\n", plot.svg());
        }
        top += plot::HEIGHT;
    }
    (svg, top + 10.0)
}

/// Writes each line's name once, and returns how high all are.
fn legends(plots: &[[Plot; 2]], top: f64, svg: &mut String) -> f64 {
    let mut lines: Vec<&Line> = Vec::new();
    for line in plots.iter().flatten().flat_map(|plot| &plot.lines) {
        if !lines.iter().any(|known| known.name == line.name) {
            lines.push(line);
        }
    }
    let (mut x, mut y) = (0.0, top);
    let mut place = |name: &str| {
        let width = 34.0 + name.chars().count() as f64 * LETTER + 18.0;
        if x + width > WIDTH - 2.0 * MARGIN {
            (x, y) = (0.0, y + LEGEND_LINE);
        }
        let at = (x, y);
        x += width;
        at
    };
    for line in lines {
        let (x, y) = place(&line.name);
        svg.push_str(&legend(line, x, y));
    }
    let (x, y) = place(BUDGET);
    svg.push_str(&limit_legend(BUDGET, x, y));
    y - top + LEGEND_LINE
}

fn against_chunks(task: &TaskReport, figure: Figure) -> Plot {
    let mut limits: Vec<Option<u64>> = Vec::new();
    let mut ticks: Vec<u32> = Vec::new();
    for result in &task.results {
        if let Some(chunks) = result.configuration.chunks {
            ticks.push(chunks);
            if !limits.contains(&result.configuration.budget_bytes) {
                limits.push(result.configuration.budget_bytes);
            }
        }
    }
    ticks.sort_unstable();
    ticks.dedup();
    let lines = limits.into_iter().zip(CUT.into_iter().cycle()).map(|(limit, style)| {
        let name = format!("Chunkwise, N chunks, {}", limit_text(limit));
        let points = points(task, figure, |result| {
            let configuration = result.configuration;
            (configuration.budget_bytes == limit).then_some(f64::from(configuration.chunks?))
        });
        Line { name, style, points }
    });
    Plot {
        title: format!("{} against the number of chunks N", figure.name()),
        x_label: "N",
        x_ticks: ticks.into_iter().map(|chunks| (f64::from(chunks), chunks.to_string())).collect(),
        y_unit: figure.unit(),
        lines: unlimited(task, figure).into_iter().chain(lines).collect(),
        limit_per_x: None,
    }
}

fn against_budget(task: &TaskReport, figure: Figure) -> Plot {
    let budgets = task.results.iter().filter(|result| result.configuration.chunks.is_none());
    let mut budgets: Vec<u64> = budgets.filter_map(|result| result.configuration.budget_bytes).collect();
    budgets.sort_unstable();
    budgets.dedup();
    let systems = [System::DataFusion, System::DuckDb, System::Chunkwise].into_iter();
    let lines = systems.map(|system| {
        let points = points(task, figure, |result| {
            let configuration = result.configuration;
            let is_it = configuration.system == system && configuration.chunks.is_none();
            configuration.budget_bytes.filter(|_| is_it).map(|bytes| bytes as f64)
        });
        Line { name: format!("{}, within the budget", name(system)), style: style(system), points }
    });
    Plot {
        title: format!("{} against the budget", figure.name()),
        x_label: "memory limit",
        x_ticks: budgets.into_iter().map(|bytes| (bytes as f64, bytes_text(bytes))).collect(),
        y_unit: figure.unit(),
        lines: unlimited(task, figure).into_iter().chain(lines.filter(|line| line.points.any())).collect(),
        limit_per_x: match figure {
            Figure::Memory { unit_bytes, .. } => Some(1.0 / unit_bytes),
            Figure::Time => None,
        },
    }
}

/// A level for each system as it is without a limit.
fn unlimited(task: &TaskReport, figure: Figure) -> Vec<Line> {
    let mut lines = Vec::new();
    for result in &task.results {
        let configuration = result.configuration;
        let value = result.median.as_ref().and_then(|median| figure.of(median));
        let Some(value) = value.filter(|_| configuration.budget_bytes.is_none() && configuration.chunks.is_none())
        else {
            continue;
        };
        let how = if configuration.is_unchunked() { "unchunked, no limit" } else { "no limit" };
        let (name, style) = (name(configuration.system), style(configuration.system));
        lines.push(Line { name: format!("{name}, {how}"), style, points: Points::Level(value) });
    }
    lines
}

/// The results that `x` gives a place to, by that place.
fn points(task: &TaskReport, figure: Figure, x: impl Fn(&Result) -> Option<f64>) -> Points {
    let mut points: Vec<(f64, Option<f64>)> = task
        .results
        .iter()
        .filter_map(|result| Some((x(result)?, result.median.as_ref().and_then(|median| figure.of(median)))))
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Points::At(points)
}

fn name(system: System) -> &'static str {
    match system {
        System::DataFusion => "DataFusion",
        System::Chunkwise => "Chunkwise",
        System::DuckDb => "DuckDB",
    }
}

fn style(system: System) -> Style {
    match system {
        System::DataFusion => DATAFUSION,
        System::Chunkwise => CHUNKWISE,
        System::DuckDb => DUCKDB,
    }
}

fn limit_text(limit: Option<u64>) -> String {
    limit.map_or_else(|| "no limit".to_string(), |bytes| format!("limit {}", bytes_text(bytes)))
}

impl Figure {
    fn name(self) -> &'static str {
        match self {
            Self::Memory { .. } => "Peak RSS",
            Self::Time => "Time",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Memory { unit, .. } => unit,
            Self::Time => "s",
        }
    }

    fn of(self, measured: &Measured) -> Option<f64> {
        match self {
            Self::Memory { unit_bytes, .. } => measured.peak_rss_bytes.map(|bytes| bytes as f64 / unit_bytes),
            Self::Time => Some(measured.wall.as_secs_f64()),
        }
    }
}
