//! Arrow IPC: files and streams of batches, whose columns are read by name.

mod claims;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_ipc::reader::{FileReader, StreamReader};

use crate::execute::convert::{NotConverted, convert};
use crate::execute::floats::with_equal_floats;
use crate::source::arrow::claims::check_claims;
use crate::source::fault::Fault;
use crate::source::open::beginning;
use crate::source::read::TextTable;
use crate::source::storable::{is_too_deep, too_deep};

/// What an Arrow file begins with; a stream does not.
const MAGIC: &[u8] = b"ARROW1";

/// What a file of Arrow's predecessor begins with.
const FEATHER_V1: &[u8] = b"FEA1";

/// The columns of a file.
///
/// # Errors
/// When it is not Arrow.
pub fn schema(path: &Path) -> Result<SchemaRef, Fault> {
    Ok(Reader::open(path)?.schema())
}

enum Reader {
    File(Box<FileReader<BufReader<File>>>),
    Stream(Box<StreamReader<BufReader<File>>>),
}

impl Reader {
    fn open(path: &Path) -> Result<Self, Fault> {
        let failed = |cause: std::io::Error| Fault::new(path, "can't be read").because(cause);
        let start = beginning(path, MAGIC.len() as u64).map_err(failed)?;
        if start.starts_with(FEATHER_V1) {
            return Err(Fault::new(path, "is Feather V1; write it as Arrow (Feather V2)"));
        }
        let is_file = start.starts_with(MAGIC);
        check_claims(path, is_file)?;
        let file = BufReader::new(File::open(path).map_err(failed)?);
        let reader = contained(|| match is_file {
            true => FileReader::try_new(file, None).map(Box::new).map(Self::File),
            false => StreamReader::try_new(file, None).map(Box::new).map(Self::Stream),
        });
        reader.map_err(|e| match is_too_deep(&e) {
            true => Fault::new(path, format!("a column {}", too_deep())),
            false => Fault::new(path, "is not an Arrow file or stream, or it is cut off").because(e),
        })
    }

    fn schema(&self) -> SchemaRef {
        match self {
            Self::File(reader) => reader.schema(),
            Self::Stream(reader) => reader.schema(),
        }
    }
}

impl Iterator for Reader {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        contained(|| match self {
            Self::File(reader) => reader.next().transpose(),
            Self::Stream(reader) => match reader.next().transpose()? {
                Some(batch) => Ok(Some(batch)),
                None if reader.get_mut().fill_buf()?.is_empty() => Ok(None),
                None => Err(ArrowError::IpcError("the file goes on after the end of its stream".into())),
            },
        })
        .transpose()
    }
}

/// What `read` gives, or an error where Arrow's reader panics, as it does at what is damaged.
fn contained<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    let unreadable = |_| Err(ArrowError::IpcError("it has what Arrow's reader does not know".into()));
    let read = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(unreadable);
    read.map_err(|error| match error {
        // What the reader says there is a structure.
        ArrowError::ParseError(_) if !is_too_deep(&error) => {
            ArrowError::IpcError("one of its messages can't be decoded".into())
        }
        error => error,
    })
}

/// The rows of a file, in batches.
pub struct Rows {
    path: PathBuf,
    reader: Reader,
    schema: SchemaRef,
    table: Arc<TextTable>,
    columns: Vec<usize>,
    batch_rows: usize,
    /// What was read and not given yet.
    left: Option<RecordBatch>,
}

impl Rows {
    /// The columns `columns` of `table`, by number, of one file.
    ///
    /// # Errors
    /// When it is not Arrow.
    pub fn open(path: &Path, table: &Arc<TextTable>, columns: &[usize], batch_rows: usize) -> Result<Self, Fault> {
        let schema: Schema = table.schema().project(columns).map_err(|e| Fault::new(path, "columns").because(e))?;
        let (reader, path, columns) = (Reader::open(path)?, path.to_path_buf(), columns.to_vec());
        Ok(Self { path, reader, schema: Arc::new(schema), table: Arc::clone(table), columns, batch_rows, left: None })
    }

    /// The batch with the table's columns.
    fn fitted(&self, batch: &RecordBatch) -> Result<RecordBatch, Fault> {
        let column = |number: &usize| {
            let known = &self.table.columns[*number];
            let column = match batch.column_by_name(&known.name) {
                Some(column) => convert(column, &known.data_type).map_err(|error| match error {
                    NotConverted::Value { shown } => Fault::new(&self.path, known.no_value(Some(&shown))),
                    NotConverted::Types(error) => {
                        Fault::new(&self.path, format!("column '{}' can't be read", known.name)).because(error)
                    }
                })?,
                None => new_null_array(&known.data_type, batch.num_rows()),
            };
            match !known.is_nullable && column.null_count() > 0 {
                true => Err(Fault::new(&self.path, known.no_value(None))),
                false => with_equal_floats(column).map_err(|e| Fault::new(&self.path, "can't be read").because(e)),
            }
        };
        let columns = self.columns.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| Fault::new(&self.path, "can't be read").because(e))
    }
}

impl Iterator for Rows {
    type Item = Result<RecordBatch, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = match self.left.take() {
            Some(batch) => batch,
            None => match self.reader.next()? {
                Ok(batch) => batch,
                Err(error) => {
                    return Some(Err(Fault::new(&self.path, "is damaged; write the file again").because(error)));
                }
            },
        };
        let given = batch.num_rows().min(self.batch_rows);
        if given < batch.num_rows() {
            self.left = Some(batch.slice(given, batch.num_rows() - given));
        }
        Some(self.fitted(&batch.slice(0, given)))
    }
}
