//! What was measured of a task, as text.

use crate::configuration::Configuration;
use crate::report::{Result, TaskReport};

const COLUMNS: [&str; 13] = [
    "configuration",
    "chunks",
    "wall s",
    "× unchunked",
    "peak RSS",
    "× unchunked",
    "RSS − budget",
    "allocator",
    "pool",
    "read",
    "written",
    "spilled",
    "split",
];

const MIB: f64 = 1024.0 * 1024.0;

/// Most letters shown of why something failed.
const REASON_LETTERS: usize = 110;

/// One line for each configuration; bytes are in MiB.
pub fn table(task: &TaskReport) -> String {
    let names = task.results.iter().map(|result| name(result.configuration));
    let figures = task.results.iter().map(|result| figures(task, result));
    let mut rows = vec![COLUMNS.map(str::to_string).to_vec()];
    rows.extend(names.zip(figures).map(|(name, figures)| match figures {
        Ok(figures) => std::iter::once(name).chain(figures).collect(),
        Err(reason) => vec![name, reason],
    }));
    let width = |column: usize| {
        // A reason may be longer than the column that it stands in.
        let whole = rows.iter().filter(|row| column == 0 || row.len() == COLUMNS.len());
        whole.map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();

    let expected = task.expected.map_or(String::new(), |expected| format!(", {} rows", expected.rows));
    let mut text = format!("\n{}{expected}; medians, bytes in MiB\n", task.task);
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(&cells.collect::<Vec<_>>().join("  "));
        text.push('\n');
    }
    text
}

fn name(configuration: Configuration) -> String {
    match configuration.is_unchunked() {
        true => format!("{configuration} (unchunked)"),
        false => configuration.to_string(),
    }
}

/// All columns but the first, or why there are none.
fn figures(task: &TaskReport, result: &Result) -> std::result::Result<[String; COLUMNS.len() - 1], String> {
    let Some(median) = &result.median else {
        let line = result.complaint().unwrap_or_default().lines().next().unwrap_or_default();
        return Err(format!("failed: {}", line.chars().take(REASON_LETTERS).collect::<String>()));
    };
    let unchunked = task.unchunked();
    let ratio = |own: f64, other: f64| format!("{:.2}", own / other);
    let over = median.peak_rss_bytes.zip(result.configuration.budget_bytes);
    let rss = median.peak_rss_bytes.zip(unchunked.and_then(|unchunked| unchunked.peak_rss_bytes));
    Ok([
        or_dash(median.chunks.map(|chunks| chunks.to_string())),
        format!("{:.2}", median.wall.as_secs_f64()),
        or_dash(unchunked.map(|unchunked| ratio(median.wall.as_secs_f64(), unchunked.wall.as_secs_f64()))),
        mib(median.peak_rss_bytes),
        or_dash(rss.map(|(own, other)| ratio(own as f64, other as f64))),
        or_dash(over.map(|(rss, budget)| format!("{:+.0}", (rss as f64 - budget as f64) / MIB))),
        mib(median.allocator_peak_bytes),
        mib(median.pool_peak_bytes),
        mib(median.read_bytes),
        mib(median.written_bytes),
        mib(median.spilled_bytes),
        mib(median.split_bytes),
    ])
}

fn mib(bytes: Option<u64>) -> String {
    or_dash(bytes.map(|bytes| format!("{:.0}", bytes as f64 / MIB)))
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".to_string())
}
