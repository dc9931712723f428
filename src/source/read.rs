//! Files that are read row by row as a part of DataFusion's scans: CSV, JSON and Arrow.
//!
//! Every pass reads a file from its beginning to its end, never by ranges of bytes, since no
//! place in it says whether it lies within quotes.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::DataFusionError;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::projection::{ProjectionOpener, SplitProjection};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::{FutureExt, StreamExt};
use object_store::ObjectStore;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::{Error, ErrorKind};
use crate::execute::disk::path_of;
use crate::execute::text::{NoValue, TextColumn};
use crate::shown::type_name;
use crate::source::fault::{Fault, quoted};
use crate::source::{arrow as ipc, csv, json};
use crate::table::WholeFiles;
use crate::task::format::Format;

/// A record or object has at most so many bytes.
pub const MOST_RECORD_BYTES: u64 = 256 << 20;

/// Batches that wait to be taken, at most.
const WAITING: usize = 2;

/// What is known of the columns of a source's text files.
#[derive(Debug)]
pub struct TextTable {
    /// Name of the source.
    pub source: String,
    /// Where the source is defined, for errors.
    pub location: crate::error::Location,
    /// The columns that files have, not those that are in their paths.
    pub columns: Vec<KnownColumn>,
    /// Whether files may have others, which are left out.
    pub may_have_others: bool,
    /// Columns that are in the paths, whatever the files have under their names.
    pub of_folders: Vec<String>,
}

/// A column of a source's text files.
#[derive(Debug)]
pub struct KnownColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// Whether it may be NULL.
    pub is_nullable: bool,
    /// Whether it is NULL in a file that has no such column, which is an error otherwise.
    pub may_be_missing: bool,
    /// Where its type comes from.
    pub origin: Origin,
}

/// Where a column's type comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `CREATE EXTERNAL TABLE t (column TYPE)`.
    Declared,
    /// The first so many rows of each file.
    Inferred(usize),
}

impl TextTable {
    /// The columns as a schema.
    pub fn schema(&self) -> Schema {
        let field = |known: &KnownColumn| Field::new(&known.name, known.data_type.clone(), known.is_nullable);
        Schema::new(self.columns.iter().map(field).collect::<Vec<_>>())
    }

    /// For each column the number of the field in a file with this header.
    ///
    /// # Errors
    /// A name that is not a column's, and a column that must be there.
    pub fn fields_of(&self, path: &std::path::Path, header: &[String]) -> Result<Vec<Option<usize>>, Fault> {
        let field = |known: &KnownColumn| {
            let exact = header.iter().position(|name| *name == known.name);
            // SQL takes names without quotes in any case.
            let mut folded = (0..header.len()).filter(|at| {
                header[*at].eq_ignore_ascii_case(&known.name)
                    && !self.columns.iter().any(|other| other.name == header[*at])
            });
            let only = || match (folded.next(), folded.next()) {
                (Some(at), None) if known.origin == Origin::Declared => Some(at),
                _ => None,
            };
            exact.or_else(only)
        };
        let fields: Vec<Option<usize>> = self.columns.iter().map(field).collect();
        let names = |names: &[String]| names.join(", ");
        let is_unknown = |at: &usize| !fields.contains(&Some(*at)) && !self.of_folders.contains(&header[*at]);
        if let Some(unknown) = (0..header.len()).find(is_unknown)
            && !self.may_have_others
        {
            let known: Vec<String> = self.columns.iter().map(|known| known.name.clone()).collect();
            let message = format!(
                "the header has a column {} that `{}` does not have; declare it, or take the file out (the columns are: {})",
                quoted(&header[unknown]),
                self.source,
                names(&known)
            );
            return Err(Fault::new(path, message).at(1));
        }
        let missing = self.columns.iter().zip(&fields).find(|(known, field)| field.is_none() && !known.may_be_missing);
        if let Some((known, _)) = missing {
            let message = format!(
                "the header has no column {}; declare it as NULL ({} {} NULL), or set format.truncated_rows to 'true', to read \
                 NULLs (the header is: {})",
                quoted(&known.name),
                known.name,
                type_name(&known.data_type),
                names(header)
            );
            return Err(Fault::new(path, message).at(1));
        }
        Ok(fields)
    }

    /// Checks that a row with these `keys` may have the key `key`, which is not a column.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn check_unknown(&self, key: &str, keys: impl Fn(&str) -> bool) -> Result<(), String> {
        if self.of_folders.iter().any(|name| name == key) {
            return Ok(());
        }
        if self.may_have_others {
            let meant = self.columns.iter().find(|known| known.name.eq_ignore_ascii_case(key) && !keys(&known.name));
            return meant.map_or(Ok(()), |known| Err(in_other_case(key, &known.name)));
        }
        Err(format!(
            "key {} is in none of the objects that the columns of `{}` were inferred from; raise format.schema_infer_max_rec, or \
             declare the columns",
            quoted(key),
            self.source
        ))
    }

    /// A fault of one of the files as an error.
    pub fn error(&self, fault: Fault) -> Error {
        let (message, cause) = fault.into_parts();
        let error = Error::new(ErrorKind::Source, format!("source `{}`: {message}", self.source));
        let error = error.with_location(self.location.clone());
        match cause {
            Some(cause) => error.with_source(cause),
            None => error,
        }
    }
}

impl KnownColumn {
    /// Adds a value of the column.
    ///
    /// # Errors
    /// When the text is none, or is NULL and must not be.
    pub fn append(&self, values: &mut dyn TextColumn, text: Option<&str>) -> Result<(), NoValue> {
        match text {
            None if !self.is_nullable => Err(NoValue),
            Some(text) if matches!(self.origin, Origin::Inferred(_)) && is_of_other_type(text, &self.data_type) => {
                Err(NoValue)
            }
            text => values.append(text),
        }
    }

    /// The message for a text that is not a value of the column, and what to do.
    pub fn no_value(&self, text: Option<&str>) -> String {
        self.no_value_within("", text)
    }

    /// As [`KnownColumn::no_value`], of a value inside a list or object.
    pub fn no_value_within(&self, inside: &str, text: Option<&str>) -> String {
        let (name, data_type) = (format!("{}{inside}", self.name), type_name(&self.data_type));
        let Some(text) = text else {
            return format!(
                "column {} is NULL, and is declared NOT NULL; fix the file, or leave NOT NULL out",
                quoted(&name)
            );
        };
        let text = quoted(text);
        match &self.origin {
            Origin::Declared => {
                format!(
                    "column {}: {text} is not a valid {data_type}; fix the file, or declare the column as VARCHAR",
                    quoted(&name)
                )
            }
            Origin::Inferred(rows) => {
                let why = match self.data_type {
                    DataType::Null => format!("the first {rows} rows had no value of it"),
                    _ => format!("it was inferred as {data_type} from the first {rows} rows"),
                };
                format!(
                    "column {}: {text} is not of its type: {why}; declare the columns with their types, such as {} VARCHAR, or \
                     raise format.schema_infer_max_rec where it stands behind these rows",
                    quoted(&name),
                    self.name
                )
            }
        }
    }
}

/// That an object has a key and not the declared name, which is another but for its case; and what to do.
pub fn in_other_case(key: &str, name: &str) -> String {
    let (shown, name) = (quoted(key), quoted(name));
    format!("there is key {shown} and not {name}; declare it as \"{key}\", in double quotes")
}

/// Whether a text would lose something as a value of an inferred type, which it alone would not give.
fn is_of_other_type(text: &str, data_type: &DataType) -> bool {
    match data_type {
        data_type if data_type.is_numeric() => is_code(text),
        DataType::Timestamp(_, zone) => match offset(text) {
            Offset::None => zone.is_some(),
            Offset::Digits => zone.is_none(),
            Offset::Name => true,
        },
        _ => false,
    }
}

/// How a timestamp says how far it is from UTC.
enum Offset {
    None,
    /// `Z` or hours and minutes.
    Digits,
    /// The name of a zone.
    Name,
}

fn offset(text: &str) -> Offset {
    let time = text.split_once([' ', 'T', 't']).map_or("", |(_, time)| time);
    match time.strip_suffix(['Z', 'z']) {
        _ if time.trim_end_matches(['Z', 'z']).contains(char::is_alphabetic) => Offset::Name,
        None if !time.contains(['+', '-']) => Offset::None,
        _ => Offset::Digits,
    }
}

/// Whether a number is written as codes are: with zeros or a plus before its digits.
fn is_code(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.starts_with('+') || matches!(digits.as_bytes(), [b'0', b'0'..=b'9', ..])
}

/// The text files of a source.
#[derive(Debug)]
pub struct TextFiles {
    /// Their format.
    pub format: Format,
    /// Their columns.
    pub table: Arc<TextTable>,
}

impl WholeFiles for TextFiles {
    fn scan(&self, schema: TableSchema) -> Arc<dyn FileSource> {
        Arc::new(TextSource::new(&self.format, &self.table, schema))
    }
}

/// Scans text files for DataFusion.
#[derive(Debug, Clone)]
pub struct TextSource {
    format: Format,
    table: Arc<TextTable>,
    table_schema: TableSchema,
    projection: SplitProjection,
    batch_rows: Option<usize>,
    metrics: ExecutionPlanMetricsSet,
}

impl TextSource {
    /// Scans files of `format` with the columns of `table`, behind which `table_schema` has those that are in paths.
    pub fn new(format: &Format, table: &Arc<TextTable>, table_schema: TableSchema) -> Self {
        Self {
            format: format.clone(),
            table: Arc::clone(table),
            projection: SplitProjection::unprojected(&table_schema),
            table_schema,
            batch_rows: None,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl FileSource for TextSource {
    fn create_file_opener(
        &self,
        _store: Arc<dyn ObjectStore>,
        _config: &FileScanConfig,
        _partition: usize,
    ) -> datafusion::common::Result<Arc<dyn FileOpener>> {
        let opener = TextOpener {
            format: self.format.clone(),
            table: Arc::clone(&self.table),
            columns: self.projection.file_indices.clone(),
            batch_rows: self.batch_rows.unwrap_or(BATCH_ROWS),
        };
        ProjectionOpener::try_new(self.projection.clone(), Arc::new(opener), self.table_schema.file_schema())
    }

    fn table_schema(&self) -> &TableSchema {
        &self.table_schema
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(Self { batch_rows: Some(batch_size), ..self.clone() })
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        Some(&self.projection.source)
    }

    fn try_pushdown_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> datafusion::common::Result<Option<Arc<dyn FileSource>>> {
        let projection = self.projection.source.try_merge(projection)?;
        let projection = SplitProjection::new(self.table_schema.file_schema(), &projection);
        Ok(Some(Arc::new(Self { projection, ..self.clone() })))
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        &self.metrics
    }

    fn file_type(&self) -> &str {
        self.format.name()
    }

    /// Whole files only.
    fn supports_repartitioning(&self) -> bool {
        false
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> datafusion::common::Result<TreeNodeRecursion>,
    ) -> datafusion::common::Result<TreeNodeRecursion> {
        datafusion::physical_plan::apply_expression_roots(self.projection.source.iter(), f)
    }
}

/// Rows of a batch, where nobody says how many.
const BATCH_ROWS: usize = 8192;

struct TextOpener {
    format: Format,
    table: Arc<TextTable>,
    columns: Vec<usize>,
    batch_rows: usize,
}

/// Batches of one file.
type Batches = Box<dyn Iterator<Item = Result<RecordBatch, Fault>>>;

impl TextOpener {
    fn rows(&self, path: &std::path::Path) -> Result<Batches, Fault> {
        let Self { format, table, columns, batch_rows } = self;
        Ok(match format {
            Format::Csv(options) => Box::new(csv::Rows::open(path, options, table, columns, *batch_rows)?),
            Format::Json(options) => Box::new(json::Rows::open(path, options, table, columns, *batch_rows)?),
            Format::Arrow => Box::new(ipc::Rows::open(path, table, columns, *batch_rows)?),
            Format::Parquet(_) => return Err(Fault::new(path, "is Parquet, which is not text; this is a bug")),
        })
    }
}

impl FileOpener for TextOpener {
    fn open(&self, file: PartitionedFile) -> datafusion::common::Result<FileOpenFuture> {
        let path = path_of(&file.object_meta.location);
        let opener = Self {
            format: self.format.clone(),
            table: Arc::clone(&self.table),
            columns: self.columns.clone(),
            batch_rows: self.batch_rows,
        };
        let table = Arc::clone(&self.table);
        let open = async move {
            let (sender, receiver) = mpsc::channel(WAITING);
            // On a thread that may wait for the disk; it ends when nobody takes its batches.
            let reader = tokio::task::spawn_blocking(move || {
                let error = |fault| DataFusionError::External(Box::new(opener.table.error(fault)));
                match opener.rows(&path) {
                    Ok(rows) => {
                        for batch in rows {
                            let is_last = batch.is_err();
                            if sender.blocking_send(batch.map_err(error)).is_err() || is_last {
                                return;
                            }
                        }
                    }
                    Err(fault) => drop(sender.blocking_send(Err(error(fault)))),
                }
            });
            Ok(futures::stream::unfold(Reading { receiver, reader: Some(reader), table }, Reading::next).boxed())
        };
        Ok(open.boxed())
    }
}

impl fmt::Debug for TextOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.format, self.table.source)
    }
}

/// A file that is being read.
struct Reading {
    receiver: mpsc::Receiver<datafusion::common::Result<RecordBatch>>,
    reader: Option<JoinHandle<()>>,
    table: Arc<TextTable>,
}

impl Reading {
    async fn next(mut self) -> Option<(datafusion::common::Result<RecordBatch>, Self)> {
        if let Some(batch) = self.receiver.recv().await {
            return Some((batch, self));
        }
        // A reader that panicked has not read all.
        let ended = self.reader.take()?.await;
        let panicked = ended.err()?;
        let message = format!("source `{}`: the reader panicked; this is a bug", self.table.source);
        let error =
            Error::new(ErrorKind::Source, message).with_location(self.table.location.clone()).with_source(panicked);
        Some((Err(DataFusionError::External(Box::new(error))), self))
    }
}
