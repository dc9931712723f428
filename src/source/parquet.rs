//! What Parquet files say of their columns, and how far their statistics can be relied on.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::execution::SessionState;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore};
use parquet::basic::Type;
use parquet::file::metadata::ParquetMetaData;

use crate::source::fault::Fault;
use crate::source::open::beginning;

/// Footers that are read at a time.
const AT_A_TIME: usize = 16;

/// What a Parquet file begins with.
const MAGIC: &[u8] = b"PAR1";

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
            let metadata = reader.fetch_metadata().await.map_err(|e| unreadable(&path, e))?;
            let schema = format.infer_schema(state, store, std::slice::from_ref(&meta)).await;
            Ok(Footer { schema: schema.map_err(|e| unreadable(&path, e))?, metadata })
        }
    };
    futures::stream::iter(files.to_vec()).map(footer).buffered(AT_A_TIME).try_collect().await
}

fn unreadable(path: &std::path::Path, cause: DataFusionError) -> Fault {
    let start = beginning(path, MAGIC.len() as u64).unwrap_or_default();
    let message = match start.starts_with(MAGIC) {
        true => "is damaged or cut off: its footer can't be read; write the file again",
        false => "is not a Parquet file; check STORED AS and LOCATION",
    };
    Fault::new(path, message).because(cause)
}

/// The column of a file, if any, whose values are not read as they are.
pub fn misread_column(schema: &Schema) -> Option<String> {
    // Arrow's reader takes the days and milliseconds of an INTERVAL, and drops the months.
    let is_interval = |data_type: &DataType| matches!(data_type, DataType::Interval(_));
    schema.fields().iter().find(|field| holds(field.data_type(), &is_interval)).map(|field| field.name().clone())
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
/// Not where a number of NULLs is missing, which DataFusion takes for none, nor where bounds of texts are in the order of
/// signed bytes, as writers of old had it.
pub fn has_reliable_statistics(metadata: &ParquetMetaData) -> bool {
    let columns = metadata.row_groups().iter().flat_map(|group| group.columns());
    columns.filter_map(|column| Some((column, column.statistics()?))).all(|(column, statistics)| {
        let is_text = matches!(column.column_type(), Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY | Type::INT96);
        statistics.null_count_opt().is_some() && !(is_text && statistics.is_min_max_deprecated())
    })
}
