//! What a pipeline is made of: tasks, the sources they read, and views.

use std::collections::BTreeSet;
use std::path::PathBuf;

use datafusion::sql::parser::CreateExternalTable;
use parquet::basic::Compression;
use sqlparser::ast::Query;

use crate::chunk::Chunking;
use crate::error::Location;

/// A query whose result is stored and published under the task's name.
#[derive(Debug, Clone)]
pub struct Task {
    /// Name of the task and of the table it publishes: ASCII letters, digits, `_` and `-`.
    pub name: String,
    /// The query, as if it ran on whole tables.
    pub query: Box<Query>,
    /// Names of the tables, views and tasks that the query reads, CTEs not among them.
    pub reads: BTreeSet<TableRead>,
    /// Where to cut it; `None` runs it whole, as one chunk.
    pub chunking: Option<Chunking>,
    /// What `WITH (…)` set.
    pub options: TaskOptions,
    /// How chunks get their part of inputs that are neither stored nor clustered by the key; `None` leaves it to cost.
    pub read_by: Option<ReadBy>,
    /// Where the statement begins.
    pub location: Location,
    /// Where the first key of `CLUSTERED BY` stands, for errors about keys.
    pub keys_location: Option<Location>,
}

/// How chunks get their part of an input: `read_by` in `WITH (…)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBy {
    /// One pass cuts the input first.
    Split,
    /// Each reads all of it.
    Rescan,
}

/// What a task's `WITH (…)` may set that its files depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskOptions {
    /// `version`: any text; changing it runs the task again.
    pub version: Option<String>,
    /// `compression` of the Parquet files: `zstd(level)`, `snappy`, `lz4_raw`, `gzip(level)`, `brotli(level)` or
    /// `uncompressed`. Default: zstd(1).
    pub compression: Compression,
    /// `row_group_rows`: rows of a Parquet row group, at least 1. Default: 1,048,576.
    pub row_group_rows: usize,
}

/// A table name that a query reads, and where it stands first. Ordered and compared by name.
#[derive(Debug, Clone)]
pub struct TableRead {
    /// Normalised name.
    pub name: String,
    /// Where the query names it first.
    pub location: Location,
}

impl PartialEq for TableRead {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for TableRead {}

impl PartialOrd for TableRead {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TableRead {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name.cmp(&other.name)
    }
}

/// Files that tasks read: a `CREATE EXTERNAL TABLE` statement.
#[derive(Debug, Clone)]
pub struct Source {
    /// Name of the table.
    pub name: String,
    /// The statement, its locations already absolute.
    pub statement: CreateExternalTable,
    /// The folder that the statement's relative locations were resolved against.
    pub folder: PathBuf,
    /// Where the statement begins.
    pub location: Location,
}

/// A named query that is inlined where it is read and never stored.
#[derive(Debug, Clone)]
pub struct View {
    /// Name of the view.
    pub name: String,
    /// Column names of `CREATE VIEW name (a, b)`; empty keeps the query's own.
    pub columns: Vec<String>,
    /// The query.
    pub query: Box<Query>,
    /// Names of the tables, views and tasks that the query reads.
    pub reads: BTreeSet<TableRead>,
    /// Where the statement begins.
    pub location: Location,
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self { version: None, compression: Compression::ZSTD(Default::default()), row_group_rows: 1024 * 1024 }
    }
}
