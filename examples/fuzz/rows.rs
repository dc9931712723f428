//! Rows as text, compared as multisets.
//!
//! Floats are equal when they differ by at most 1e-9, relative to the larger one or, below 1, absolutely: sums of them
//! depend on the order of addition. NaN equals NaN, and -0.0 equals 0.0, since a group of both has either. Encodings of
//! text don't count, nor do the letters of NaN as a text, which DuckDB writes small.

use std::collections::BTreeMap;
use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// How far floats may lie apart.
const TOLERANCE: f64 = 1e-9;

/// A row: its cells other than floats, and its floats.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    text: String,
    floats: Vec<f64>,
}

/// The rows of `batches`, sorted.
pub fn rows_of(batches: &[RecordBatch]) -> Vec<Row> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let floats: Vec<Option<ArrayRef>> = batch.columns().iter().map(as_doubles).collect();
        let formats: Vec<ArrayFormatter> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let (mut text, mut values) = (String::new(), Vec::new());
            for ((column, doubles), format) in batch.columns().iter().zip(&floats).zip(&formats) {
                let separator = if text.is_empty() { "" } else { ", " };
                match doubles {
                    _ if column.is_null(row) => write!(text, "{separator}NULL").unwrap(),
                    Some(doubles) => {
                        let value = doubles.as_primitive::<Float64Type>().value(row);
                        values.push(if value.is_nan() { f64::NAN } else { value + 0.0 });
                        write!(text, "{separator}#").unwrap();
                    }
                    None => {
                        let shown = format.value(row).to_string();
                        let shown = if shown.eq_ignore_ascii_case("nan") { "NaN" } else { &shown };
                        write!(text, "{separator}{shown:?}").unwrap();
                    }
                }
            }
            rows.push(Row { text, floats: values });
        }
    }
    rows.sort_by(order);
    rows
}

fn as_doubles(column: &ArrayRef) -> Option<ArrayRef> {
    column.data_type().is_floating().then(|| cast(column, &DataType::Float64).unwrap())
}

/// Roughly equal floats are equal here too, as far as an order allows.
fn order(a: &Row, b: &Row) -> std::cmp::Ordering {
    let rounded = |x: &f64| if x.is_finite() { (x * 1e6).round() + 0.0 } else { *x };
    let floats = |row: &Row| row.floats.iter().map(rounded).collect::<Vec<f64>>();
    a.text.cmp(&b.text).then_with(|| {
        let pairs = floats(a).into_iter().zip(floats(b));
        pairs.map(|(a, b)| a.total_cmp(&b)).find(|order| order.is_ne()).unwrap_or(a.floats.len().cmp(&b.floats.len()))
    })
}

/// Whether both are the same multiset of rows.
pub fn are_equal(left: &[Row], right: &[Row]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(l, r)| is_equal(l, r))
}

fn is_equal(l: &Row, r: &Row) -> bool {
    let near = |(l, r): (&f64, &f64)| {
        l == r || (l.is_nan() && r.is_nan()) || (l - r).abs() <= TOLERANCE * l.abs().max(r.abs()).max(1.0)
    };
    l.text == r.text && l.floats.len() == r.floats.len() && l.floats.iter().zip(&r.floats).all(near)
}

/// The rows that are lacking (+) or too many (-).
pub fn differences(expected: &[Row], found: &[Row]) -> String {
    const MOST: usize = 30;
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    expected.iter().for_each(|row| *counts.entry(shown(row)).or_default() += 1);
    found.iter().for_each(|row| *counts.entry(shown(row)).or_default() -= 1);
    let mut text =
        format!("-- {} rows whole, {} rows chunked; lacking (+) or too many (-):\n", expected.len(), found.len());
    let differing: Vec<_> = counts.iter().filter(|(_, count)| **count != 0).collect();
    for (row, count) in differing.iter().take(MOST) {
        writeln!(text, "--   {count:+} {row}").unwrap();
    }
    if differing.len() > MOST {
        writeln!(text, "--   and {} more", differing.len() - MOST).unwrap();
    }
    text
}

fn shown(row: &Row) -> String {
    let mut floats = row.floats.iter();
    let cells = row.text.split('#').map(str::to_string).collect::<Vec<_>>();
    let mut text = String::new();
    for (at, cell) in cells.iter().enumerate() {
        text.push_str(cell);
        if at + 1 < cells.len() {
            match floats.next() {
                Some(x) => write!(text, "{x:.9e}").unwrap(),
                None => text.push('#'),
            }
        }
    }
    text
}
