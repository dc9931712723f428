//! A task's output as a table: all of it, or one chunk.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::execution::SessionState;
use datafusion::execution::object_store::ObjectStoreUrl;
use object_store::ObjectMeta;
use object_store::path::Path as ObjectPath;

use crate::cache::publish;
use crate::cache::store::ChunkEntry;
use crate::error::{Error, ErrorKind, Result};
use crate::table::FilesTable;

/// The table that `entries`, chunk files of the cache, make together.
///
/// # Errors
/// [`ErrorKind::Storage`] when a file is gone.
pub fn of_chunks(cache: &Path, entries: &[Arc<ChunkEntry>], schema: SchemaRef) -> Result<FilesTable> {
    let with_rows = entries.iter().filter(|entry| entry.rows > 0);
    let files = with_rows.map(|entry| partitioned_file(&entry.path(cache))).collect::<Result<Vec<_>>>()?;
    let rows = entries.iter().map(|e| e.rows).sum();
    Ok(FilesTable::new(schema, Arc::new(ParquetFormat::default()), files, 0, Some(rows)))
}

/// The published table `name`, or only its chunk `chunk`, at the version that is current now.
///
/// # Errors
/// [`ErrorKind::Usage`] when it is not published or has no such chunk; [`ErrorKind::Storage`] when its files can't be
/// read.
pub async fn published(cache: &Path, name: &str, chunk: Option<u32>, state: &SessionState) -> Result<FilesTable> {
    let Some(table) = publish::open(cache, name)? else {
        let known = publish::tables(cache)?.join(", ");
        let known = if known.is_empty() { "none yet".into() } else { known };
        let message = format!("no table `{name}` is published in {}; published are: {known}", cache.display());
        return Err(Error::new(ErrorKind::Usage, message));
    };
    let failed = |e: DataFusionError| {
        Error::new(ErrorKind::Storage, format!("the published table `{name}` can't be read")).with_source(e)
    };
    let chosen = table.files.iter().filter(|(number, _)| chunk.is_none_or(|chunk| chunk == *number));
    let files = chosen.map(|(_, path)| partitioned_file(path)).collect::<Result<Vec<_>>>()?;
    let Some(first) = files.first() else {
        let message = format!("table `{name}` has chunks 0 to {}", table.files.len().saturating_sub(1));
        return Err(Error::new(ErrorKind::Usage, message));
    };
    let format = ParquetFormat::default().with_options(state.table_options().parquet.clone());
    let store = state.runtime_env().object_store(ObjectStoreUrl::local_filesystem()).map_err(failed)?;
    let schema = format.infer_schema(state, &store, std::slice::from_ref(&first.object_meta)).await.map_err(failed)?;
    Ok(FilesTable::new(schema, Arc::new(format), files, 0, None))
}

fn partitioned_file(path: &Path) -> Result<PartitionedFile> {
    let failed = |e| Error::storage("read", path, e);
    let path = std::path::absolute(path).map_err(failed)?;
    let metadata = std::fs::metadata(&path).map_err(failed)?;
    let location = ObjectPath::from_absolute_path(&path).map_err(|e| failed(std::io::Error::other(e)))?;
    Ok(PartitionedFile::new_from_meta(ObjectMeta {
        location,
        last_modified: metadata.modified().map_err(failed)?.into(),
        size: metadata.len(),
        e_tag: None,
        version: None,
    }))
}
