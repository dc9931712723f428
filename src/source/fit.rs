//! Columns of Parquet files as the table has them: by name, and each value the same in the table's type or an error.
//!
//! DataFusion's own adapter casts, which rounds and cuts off.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::{Error, ErrorKind, Location};
use crate::execute::convert::{NotConverted, convert};
use crate::execute::floats::with_equal_floats;
use crate::shown::type_name;
use crate::source::fault::quoted;
use crate::source::parquet::holds_floats;

/// Files of so many bytes are searched for a value that does not fit.
const MOST_SEARCHED_BYTES: u64 = 1 << 30;

/// Of bytes that are no text so many are shown.
const MOST_SHOWN_BYTES: usize = 32;

/// Makes the columns of each file those of the table.
#[derive(Debug)]
pub struct Fitting {
    /// Name of the source.
    pub source: String,
    /// Where the source is defined.
    pub location: Location,
    /// For each column and name of a type that files have, the files that have it so.
    pub files: BTreeMap<(String, String), Vec<PathBuf>>,
    /// Columns of texts that may not be UTF-8, since they are bytes in these files.
    pub unchecked: BTreeMap<String, Vec<PathBuf>>,
}

impl Fitting {
    /// The files that have a column in a type: DataFusion reads text in another of Arrow's types than the file says.
    fn files_of(&self, column: &str, given: &DataType) -> &[PathBuf] {
        self.files.get(&(column.to_string(), type_name(given))).map_or(&[], Vec::as_slice)
    }

    fn error(&self, which: &str, column: &str, message: &str) -> DataFusionError {
        let message = format!("source `{}`: {which}column {} {message}", self.source, quoted(column));
        let error = Error::new(ErrorKind::Source, message).with_location(self.location.clone());
        DataFusionError::External(Box::new(error))
    }
}

/// Has one file's columns fit.
#[derive(Debug)]
struct Adapter {
    fitting: Arc<Fitting>,
    table: SchemaRef,
    file: SchemaRef,
}

/// A factory for DataFusion.
#[derive(Debug)]
pub struct FittingFactory(pub Arc<Fitting>);

impl PhysicalExprAdapterFactory for FittingFactory {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        Ok(Arc::new(Adapter { fitting: Arc::clone(&self.0), table, file }))
    }
}

impl PhysicalExprAdapter for Adapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        expr.transform(|part| match part.downcast_ref::<Column>() {
            Some(column) => self.column(column).map(Transformed::yes),
            None => Ok(Transformed::no(part)),
        })
        .data()
    }
}

impl Adapter {
    fn column(&self, column: &Column) -> Result<Arc<dyn PhysicalExpr>> {
        let wanted = self.table.field_with_name(column.name())?;
        let Ok(at) = self.file.index_of(column.name()) else {
            if !wanted.is_nullable() {
                let message = "is declared NOT NULL, and a file does not have it; leave NOT NULL out";
                return Err(self.fitting.error("", column.name(), message));
            }
            return Ok(Arc::new(Literal::new(ScalarValue::try_from(wanted.data_type())?)));
        };
        let given = self.file.field(at);
        let inner: Arc<dyn PhysicalExpr> = Arc::new(Column::new(column.name(), at));
        let is_null_checked = given.is_nullable() && !wanted.is_nullable();
        let is_text_checked = self.fitting.unchecked.contains_key(column.name());
        let has_floats = holds_floats(wanted.data_type());
        if given.data_type() == wanted.data_type() && !is_null_checked && !is_text_checked && !has_floats {
            return Ok(inner);
        }
        let (fitting, field) = (Arc::clone(&self.fitting), Arc::new(wanted.clone()));
        Ok(Arc::new(Fitted { fitting, inner, given: given.data_type().clone(), field }))
    }
}

/// The first value of a column, or inside of its values, that is text but not UTF-8, in hexadecimal digits.
fn not_utf8(column: &ArrayRef) -> Result<Option<String>> {
    // As bytes first: what is not UTF-8 must not be looked at as a text.
    let bytes = match column.data_type() {
        DataType::Utf8 => cast(column, &DataType::Binary)?,
        DataType::LargeUtf8 => cast(column, &DataType::LargeBinary)?,
        DataType::Utf8View => cast(column, &DataType::BinaryView)?,
        DataType::Dictionary(..) => return not_utf8(column.as_any_dictionary().values()),
        DataType::Struct(_) => return first_not_utf8(column.as_struct().columns()),
        DataType::List(_) => return not_utf8(column.as_list::<i32>().values()),
        DataType::LargeList(_) => return not_utf8(column.as_list::<i64>().values()),
        DataType::FixedSizeList(..) => return not_utf8(column.as_fixed_size_list().values()),
        DataType::Map(..) => return first_not_utf8(column.as_map().entries().columns()),
        _ => return Ok(None),
    };
    let bytes = cast(&bytes, &DataType::BinaryView)?;
    let first = bytes.as_binary_view().iter().flatten().find(|bytes| std::str::from_utf8(bytes).is_err());
    Ok(first.map(|bytes| format!("0x{}", hex(&bytes[..bytes.len().min(MOST_SHOWN_BYTES)]))))
}

fn first_not_utf8(columns: &[ArrayRef]) -> Result<Option<String>> {
    for column in columns {
        if let Some(bytes) = not_utf8(column)? {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A column of a file in the type, and with the NULLs, of the table's.
#[derive(Debug)]
struct Fitted {
    fitting: Arc<Fitting>,
    inner: Arc<dyn PhysicalExpr>,
    given: DataType,
    field: FieldRef,
}

/// Why a column does not fit.
struct Unfit<'a> {
    /// The files that it may be of.
    files: &'a [PathBuf],
    /// What is wrong, and what to do.
    message: String,
}

impl Fitted {
    fn fit(&self, column: &ArrayRef) -> std::result::Result<ArrayRef, Unfit<'_>> {
        let (name, wanted) = (self.field.name(), self.field.data_type());
        let files = self.fitting.files_of(name, &self.given);
        let unfit = |message: String| Unfit { files, message };
        if let Some(files) = self.fitting.unchecked.get(name)
            && let Some(bytes) = not_utf8(column).map_err(|e| unfit(format!("can't be read as text: {e}")))?
        {
            let message =
                format!("is bytes, and {bytes} is not UTF-8; declare it as BYTEA, or write the file again as text");
            return Err(Unfit { files, message });
        }
        let fitted = convert(column, wanted).map_err(|error| match error {
            NotConverted::Value { shown } => {
                let (given, wanted) = (type_name(&self.given), type_name(wanted));
                unfit(format!(
                    "is {given} there, and {} is not a valid {wanted}, which the column is in all files together; declare the \
                     column with a type that holds it, or fix the files",
                    quoted(&shown)
                ))
            }
            NotConverted::Types(error) => unfit(format!("can't be read as {}: {error}", type_name(wanted))),
        })?;
        match !self.field.is_nullable() && fitted.null_count() > 0 {
            true => Err(unfit("has NULLs, and is declared NOT NULL; fix the files, or leave NOT NULL out".into())),
            false => Ok(fitted),
        }
    }

    /// The file that does not fit, as far as it is found in little time: a batch does not know which it is of.
    fn which(&self, files: &[PathBuf]) -> String {
        let mut left = MOST_SEARCHED_BYTES;
        let is_it = |path: &&PathBuf| {
            left = left.saturating_sub(fs::metadata(path).map_or(0, |metadata| metadata.len()));
            left > 0 && self.is_unfit(path).unwrap_or(false)
        };
        match files {
            [] => String::new(),
            [path] => format!("{}: ", path.display()),
            [first, ..] => match files.iter().find(is_it) {
                Some(path) => format!("{}: ", path.display()),
                None => format!("{} or another of {} files like it: ", first.display(), files.len()),
            },
        }
    }

    /// Whether the column of a file does not fit.
    fn is_unfit(&self, path: &Path) -> parquet::errors::Result<bool> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
        let only = ProjectionMask::columns(reader.parquet_schema(), [self.field.name().as_str()]);
        for batch in reader.with_projection(only).build()? {
            if let Some(column) = batch?.columns().first()
                && self.fit(column).is_err()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl PartialEq for Fitted {
    fn eq(&self, other: &Self) -> bool {
        let Self { fitting, inner, given, field } = self;
        Arc::ptr_eq(fitting, &other.fitting) && inner == &other.inner && given == &other.given && field == &other.field
    }
}

impl Eq for Fitted {}

impl Hash for Fitted {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let Self { fitting: _, inner, given, field } = self;
        inner.hash(state);
        given.hash(state);
        field.hash(state);
    }
}

impl fmt::Display for Fitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {}", self.inner, self.field.data_type())
    }
}

impl PhysicalExpr for Fitted {
    fn data_type(&self, _schema: &Schema) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn nullable(&self, _schema: &Schema) -> Result<bool> {
        Ok(self.field.is_nullable())
    }

    fn return_field(&self, _schema: &Schema) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.field.name(), self.field.data_type().clone(), self.field.is_nullable())))
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let column = self.inner.evaluate(batch)?.into_array(batch.num_rows())?;
        match self.fit(&column) {
            Ok(fitted) => Ok(ColumnarValue::Array(with_equal_floats(fitted)?)),
            Err(Unfit { files, message }) => Err(self.fitting.error(&self.which(files), self.field.name(), &message)),
        }
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let inner = children.pop().unwrap_or_else(|| Arc::clone(&self.inner));
        let (fitting, given, field) = (Arc::clone(&self.fitting), self.given.clone(), Arc::clone(&self.field));
        Ok(Arc::new(Self { fitting, inner, given, field }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
