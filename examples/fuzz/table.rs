//! Random tables: in memory for the whole run, in files for the chunked one, and as SQL for a reader.

use std::fmt::Write;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};

use super::files::{Files, write};
use super::kind::{ALL_VALUES, COMMON_VALUES, Kind, Text};
use super::random::Random;

/// A column of a table or query.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
}

/// Rows under a name.
#[derive(Debug, Clone)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    /// Numbers of values, a row at a time.
    pub rows: Vec<Vec<Option<usize>>>,
    /// How its rows lie in files.
    pub files: Files,
}

const UNITS: [TimeUnit; 4] = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
const INTS: [Kind; 2] = [Kind::Int(32), Kind::Int(64)];
const ALL_INTS: [Kind; 8] = [
    Kind::Int(8),
    Kind::Int(16),
    Kind::Int(32),
    Kind::Int(64),
    Kind::UInt(8),
    Kind::UInt(16),
    Kind::UInt(32),
    Kind::UInt(64),
];
const NUMBERS: [&[Kind]; 3] = [
    &[Kind::Int(32), Kind::Int(64), Kind::Decimal(9, 2), Kind::Decimal(12, 4), Kind::Decimal(9, 0)],
    &[Kind::Int(32), Kind::Int(64), Kind::Float(64), Kind::Float(32)],
    &[Kind::Int(32), Kind::Decimal(9, 2), Kind::Float(64)],
];
const DECIMALS: [Kind; 4] = [Kind::Decimal(9, 2), Kind::Decimal(12, 4), Kind::Decimal(18, 2), Kind::Decimal(9, 0)];
const TEXTS: [Kind; 4] =
    [Kind::Text(Text::Plain), Kind::Text(Text::Large), Kind::Text(Text::View), Kind::Text(Text::Dictionary)];
const FLOATS: [Kind; 2] = [Kind::Float(32), Kind::Float(64)];

/// Two to four tables, all with keys `k` and `j` of types that mostly fit each other, a number `a`, and some of: `b`
/// text, `c` decimal, `d` date, `f` float, `g` boolean, `s` timestamp, `l` list, and `e0`, `e1`, …, which only one
/// table has.
pub fn tables(random: &mut Random) -> Vec<Table> {
    let k = family(random);
    // Keys that compare with each other have more ways to be confused.
    let j = if random.chance(35) { k.clone() } else { family(random) };
    let tables = 2 + random.below(3);
    (0..tables).map(|at| table(random, at, &[&k, &j])).collect()
}

fn family(random: &mut Random) -> Vec<Kind> {
    match random.weighted(&[22, 9, 14, 8, 14, 6, 8, 5, 3, 3, 8]) {
        0 => INTS.to_vec(),
        1 => ALL_INTS.to_vec(),
        2 => NUMBERS[random.weighted(&[4, 4, 1])].to_vec(),
        3 => DECIMALS.to_vec(),
        4 => TEXTS.to_vec(),
        5 => FLOATS.to_vec(),
        6 => UNITS.into_iter().map(Kind::Timestamp).chain([Kind::Date, Kind::Date]).collect(),
        7 => UNITS.into_iter().map(Kind::Instant).collect(),
        8 => vec![Kind::Bool],
        9 => vec![Kind::Binary],
        _ => vec![Kind::Date],
    }
}

fn table(random: &mut Random, at: usize, keys: &[&Vec<Kind>; 2]) -> Table {
    let mut columns = Vec::new();
    for (name, family) in ["k", "j"].into_iter().zip(keys) {
        let other = if random.chance(5) { Some(self::family(random)) } else { None };
        columns.push((name.to_string(), *random.pick(other.as_ref().unwrap_or(family))));
    }
    columns.push(("a".into(), *random.pick(&ALL_INTS)));
    if random.chance(45) {
        columns.push((format!("e{at}"), *random.pick(&[Kind::Int(64), Kind::Text(Text::Plain)])));
    }
    let others = [
        ("b", *random.pick(&TEXTS)),
        ("c", *random.pick(&DECIMALS)),
        ("d", Kind::Date),
        ("f", *random.pick(&FLOATS)),
        ("g", Kind::Bool),
        ("s", Kind::Timestamp(*random.pick(&UNITS))),
        ("l", Kind::List),
    ];
    columns.extend(others.into_iter().filter(|_| random.chance(35)).map(|(name, kind)| (name.to_string(), kind)));
    // The last one may be in the names of folders.
    if random.chance(30) {
        let last = columns.remove(random.below(columns.len()));
        columns.push(last);
    }
    let rows = match random.weighted(&[8, 75, 17]) {
        0 => 0,
        1 => 3 + random.below(22),
        _ => 25 + random.below(20),
    };
    let values: Vec<Vec<Option<usize>>> = columns.iter().map(|(_, kind)| values(random, *kind, rows)).collect();
    let columns: Vec<Column> = columns.into_iter().map(|(name, kind)| Column { name, kind }).collect();
    let rows: Vec<_> = (0..rows).map(|row| values.iter().map(|column| column[row]).collect()).collect();
    let files = Files::random(random, &columns, &rows);
    Table { name: format!("t{at}"), columns, rows, files }
}

/// Values out of a few, some of them NULL, often one of them far more frequent than the others.
fn values(random: &mut Random, kind: Kind, rows: usize) -> Vec<Option<usize>> {
    let has_more = matches!(kind, Kind::Int(64) | Kind::Float(64)) && random.chance(15);
    let (first, domain) = match has_more {
        true => (COMMON_VALUES, ALL_VALUES - COMMON_VALUES),
        false => (0, 3 + random.below(COMMON_VALUES - 2)),
    };
    let nulls = *random.pick(&[0, 0, 10, 30]);
    let skew = *random.pick(&[0, 0, 60]);
    let value = |random: &mut Random| match (random.chance(nulls), random.chance(skew)) {
        (true, _) => None,
        (false, true) => Some(first + 1),
        (false, false) => Some(first + random.below(domain)),
    };
    (0..rows).map(|_| value(random)).collect()
}

impl Table {
    /// The same rows under another name.
    pub fn renamed(&self, name: &str) -> Self {
        Self { name: name.into(), ..self.clone() }
    }

    /// The same rows, the last first.
    pub fn reversed(&self) -> Self {
        Self { rows: self.rows.iter().rev().cloned().collect(), ..self.clone() }
    }

    fn slice(&self, rows: &[Vec<Option<usize>>]) -> RecordBatch {
        let arrays = self.columns.iter().enumerate().map(|(at, column)| {
            let picks: Vec<Option<usize>> = rows.iter().map(|row| row[at]).collect();
            (column.name.as_str(), column.kind.array(&picks), true)
        });
        RecordBatch::try_from_iter_with_nullable(arrays).unwrap()
    }

    /// All rows in the types that DataFusion reads from Parquet files: it makes views of text and bytes.
    pub fn as_read(&self) -> RecordBatch {
        let batch = self.batch();
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
            let to = match field.data_type() {
                DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
                DataType::Binary => DataType::BinaryView,
                other => other.clone(),
            };
            (field.name(), cast(column, &to).unwrap(), true)
        });
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    /// All rows in the types of the columns.
    pub fn batch(&self) -> RecordBatch {
        self.slice(&self.rows)
    }

    /// Whether a text is empty.
    pub fn has_empty_text(&self) -> bool {
        let texts = self.columns.iter().enumerate().filter(|(_, column)| column.kind.is_text());
        let is_empty =
            |at: usize, kind: Kind| self.rows.iter().filter_map(|row| row[at]).any(|v| kind.literal(v) == "''");
        texts.into_iter().any(|(at, column)| is_empty(at, column.kind))
    }

    /// Writes the files below `folder` and gives the statement that declares them.
    pub fn write(&self, folder: &Path) -> String {
        write(self, folder)
    }

    /// A statement that makes the same table in memory.
    pub fn as_sql(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|c| c.name.as_str()).collect();
        let row = |row: &Vec<Option<usize>>| {
            let cells: Vec<String> = row
                .iter()
                .zip(&self.columns)
                .map(|(v, column)| match v {
                    Some(v) => column.kind.literal(*v),
                    None => "NULL".into(),
                })
                .collect();
            format!("({})", cells.join(", "))
        };
        let none = vec![None; self.columns.len()];
        let rows: Vec<String> =
            if self.rows.is_empty() { vec![row(&none)] } else { self.rows.iter().map(row).collect() };
        let casts: Vec<String> = self
            .columns
            .iter()
            .map(|Column { name, kind }| format!("arrow_cast({name}, '{}') AS {name}", kind.data_type()))
            .collect();
        let mut sql = String::new();
        if self.files != Files::plain() {
            writeln!(sql, "-- in {:?}", self.files).unwrap();
        }
        let (name, casts, names) = (&self.name, casts.join(", "), names.join(", "));
        write!(sql, "CREATE TABLE {name} AS SELECT {casts}\n  FROM (VALUES {}) AS v({names})", rows.join(", "))
            .unwrap();
        sql + if self.rows.is_empty() { " WHERE false;\n" } else { ";\n" }
    }
}
