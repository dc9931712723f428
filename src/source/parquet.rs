//! What Parquet files say of their columns, and how far their statistics can be relied on.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::{DataFusionError, internal_datafusion_err};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::execution::SessionState;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore};
use parquet::arrow::ARROW_SCHEMA_META_KEY;
use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::Type as SchemaType;

use crate::source::fault::{Fault, quoted};
use crate::source::open::beginning;
use crate::source::storable::{is_too_deep, too_deep};

/// Footers that are read at a time.
const AT_A_TIME: usize = 16;

/// What a Parquet file begins with.
const MAGIC: &[u8] = b"PAR1";
/// The same with an encrypted footer.
const ENCRYPTED: &[u8] = b"PARE";

/// The columns and the footer of a file.
#[derive(Debug)]
pub struct Footer {
    /// Its columns, as they are read.
    pub schema: SchemaRef,
    /// All else.
    pub metadata: Arc<ParquetMetaData>,
}

/// The footers of files, in order.
///
/// # Errors
/// The first file that is not Parquet.
pub async fn footers(
    files: &[(PathBuf, ObjectMeta)],
    format: &dyn FileFormat,
    store: &Arc<dyn ObjectStore>,
    state: &SessionState,
) -> Result<Vec<Footer>, Fault> {
    let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
    let footer = |(path, meta): (PathBuf, ObjectMeta)| {
        let cache = Arc::clone(&cache);
        async move {
            let reader = DFParquetMetadata::new(store.as_ref(), &meta).with_file_metadata_cache(Some(cache));
            // It panics where the footer claims to be longer than the file.
            let metadata = match AssertUnwindSafe(reader.fetch_metadata()).catch_unwind().await {
                Ok(metadata) => metadata.map_err(|e| unreadable(&path, e))?,
                Err(_) => return Err(unreadable(&path, internal_datafusion_err!("what it says of itself can't be"))),
            };
            if has_impossible_places(&metadata) {
                return Err(unreadable(&path, internal_datafusion_err!("a column stands before the file's beginning")));
            }
            let schema = format.infer_schema(state, store, std::slice::from_ref(&meta));
            // Arrow panics where the schema that the writer left for it has types that it does not know.
            match AssertUnwindSafe(schema).catch_unwind().await {
                Ok(schema) => Ok(Footer { schema: schema.map_err(|e| unreadable(&path, e))?, metadata }),
                Err(_) => Err(unknown_type(&path, &metadata)),
            }
        }
    };
    futures::stream::iter(files.to_vec()).map(footer).buffered(AT_A_TIME).try_collect().await
}

/// Whether a footer says of a column that it is nowhere.
fn has_impossible_places(metadata: &ParquetMetaData) -> bool {
    let mut columns = metadata.row_groups().iter().flat_map(|group| group.columns());
    columns.any(|column| {
        let start = column.dictionary_page_offset().unwrap_or_default();
        [start, column.data_page_offset(), column.compressed_size()].iter().any(|place| *place < 0)
    })
}

fn unreadable(path: &Path, cause: DataFusionError) -> Fault {
    if is_too_deep(&cause) {
        return Fault::new(path, format!("a column {}", too_deep()));
    }
    let start = beginning(path, MAGIC.len() as u64).unwrap_or_default();
    match start.as_slice() {
        MAGIC => {
            Fault::new(path, "is damaged or cut off: its footer can't be read; write the file again").because(cause)
        }
        ENCRYPTED => Fault::new(path, "is encrypted, which is not supported; write it decrypted"),
        _ => Fault::new(path, "is not a Parquet file; check STORED AS and LOCATION").because(cause),
    }
}

/// Polars' integers of 128 bits, most of all: 16 bytes without a type of Parquet's.
fn unknown_type(path: &Path, metadata: &ParquetMetaData) -> Fault {
    let is_bare = |column: &SchemaType| {
        column.is_primitive()
            && column.get_physical_type() == Type::FIXED_LEN_BYTE_ARRAY
            && column.get_basic_info().logical_type_ref().is_none()
    };
    let columns = metadata.file_metadata().schema().get_fields().iter();
    let bare: Vec<_> =
        columns.filter(|column| any_part(column, &is_bare)).map(|column| quoted(column.name())).collect();
    let which = if bare.is_empty() { "a column".into() } else { format!("column {}", bare.join(" or ")) };
    let message = format!(
        "{which} has a type that Arrow's Parquet reader does not know, such as an integer of 128 bits; write it as a decimal of at \
         most 38 digits, or as text"
    );
    Fault::new(path, message)
}

fn any_part(column: &SchemaType, is_it: &dyn Fn(&SchemaType) -> bool) -> bool {
    is_it(column) || (column.is_group() && column.get_fields().iter().any(|part| any_part(part, is_it)))
}

/// Whether timestamps of 96 bits are to be read in microseconds, those of the columns that `is_read` says.
///
/// They hold years and nanoseconds that no timestamp of Arrow's holds together, and Arrow's reader wraps what is too
/// far for nanoseconds and cuts off what is too fine for microseconds. Spark writes microseconds; a file with a schema
/// of Arrow's says itself what it has.
///
/// # Errors
/// A file of whose writer neither is known, or files that have to be read differently.
pub fn has_int96_in_microseconds(
    files: &[(PathBuf, ObjectMeta)],
    footers: &[Footer],
    is_read: impl Fn(&str) -> bool,
) -> Result<bool, Fault> {
    let is_int96 = |part: &SchemaType| part.is_primitive() && part.get_physical_type() == Type::INT96;
    let mut known = None;
    for ((path, _), footer) in files.iter().zip(footers) {
        let file = footer.metadata.file_metadata();
        let mut columns = file.schema().get_fields().iter();
        let Some(column) = columns.find(|column| is_read(column.name()) && any_part(column, &is_int96)) else {
            continue;
        };
        let has_key = |is_it: &dyn Fn(&str) -> bool| {
            file.key_value_metadata().is_some_and(|pairs| pairs.iter().any(|pair| is_it(&pair.key)))
        };
        let of_file = match has_key(&|key| key == ARROW_SCHEMA_META_KEY) {
            true => Some(false),
            false => has_key(&|key| key.starts_with("org.apache.spark.")).then_some(true),
        };
        if of_file.is_none() || known.is_some_and(|known| Some(known) != of_file) {
            let message = format!(
                "column {} is a timestamp of 96 bits, and not all files say how fine: add OPTIONS (format.coerce_int96 'us') to read \
                 microseconds and cut off what is finer, or 'ns' if all are in the years 1678 to 2261",
                quoted(column.name())
            );
            return Err(Fault::new(path, message));
        }
        known = of_file;
    }
    Ok(known.unwrap_or(false))
}

/// The column of a file, if any, that is a VARIANT, of which Arrow shows the bytes that it is stored as.
pub fn variant_column(metadata: &ParquetMetaData, schema: &Schema) -> Option<String> {
    let is_variant =
        |part: &SchemaType| matches!(part.get_basic_info().logical_type_ref(), Some(LogicalType::Variant(_)));
    let columns = metadata.file_metadata().schema().get_fields().iter();
    let mut read = columns.filter(|column| schema.index_of(column.name()).is_ok());
    read.find(|column| any_part(column, &is_variant)).map(|column| column.name().to_string())
}

/// The column of a file, if any, whose values are not read as they are.
pub fn misread_column(schema: &Schema) -> Option<String> {
    // Arrow's reader takes the days and milliseconds of an INTERVAL, and drops the months.
    let is_interval = |data_type: &DataType| matches!(data_type, DataType::Interval(_));
    schema.fields().iter().find(|field| holds(field.data_type(), &is_interval)).map(|field| field.name().clone())
}

/// Whether a type is text, or has text in it.
pub fn holds_text(data_type: &DataType) -> bool {
    holds(data_type, &DataType::is_string)
}

/// Whether a type is one of floats, or has floats in it.
pub fn holds_floats(data_type: &DataType) -> bool {
    holds(data_type, &DataType::is_floating)
}

/// Whether a column of a file has bytes that the file does not say to be UTF-8: Arrow's reader takes them for text
/// without a look where it is told that they are.
pub fn has_bare_bytes(metadata: &ParquetMetaData, column: &str) -> bool {
    let is_bare = |part: &SchemaType| {
        part.is_primitive()
            && part.get_physical_type() == Type::BYTE_ARRAY
            && part.get_basic_info().converted_type() != ConvertedType::UTF8
    };
    let mut columns = metadata.file_metadata().schema().get_fields().iter();
    columns.any(|field| field.name() == column && any_part(field, &is_bare))
}

fn holds(data_type: &DataType, is_it: &dyn Fn(&DataType) -> bool) -> bool {
    is_it(data_type)
        || match data_type {
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _)
            | DataType::Map(item, _) => holds(item.data_type(), is_it),
            DataType::Struct(fields) => fields.iter().any(|field| holds(field.data_type(), is_it)),
            _ => false,
        }
}

/// Whether row groups may be skipped by the file's statistics.
///
/// Not where a number of NULLs is missing, which DataFusion takes for none, nor where bounds of texts are in the order
/// of signed bytes, as writers of old had it.
pub fn has_reliable_statistics(metadata: &ParquetMetaData) -> bool {
    let columns = metadata.row_groups().iter().flat_map(|group| group.columns());
    columns.filter_map(|column| Some((column, column.statistics()?))).all(|(column, statistics)| {
        let is_text = matches!(column.column_type(), Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY | Type::INT96);
        statistics.null_count_opt().is_some() && !(is_text && statistics.is_min_max_deprecated())
    })
}
