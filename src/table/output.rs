//! A task's output as a table: all of it, or one chunk.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::execution::SessionState;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;

use crate::cache::publish::{self, PublishedFile};
use crate::cache::store::ChunkEntry;
use crate::error::{Error, ErrorKind, Result};
use crate::execute::checksum::Verified;
use crate::execute::disk::{location_of, object_meta};
use crate::table::{FilesTable, Reader};

/// The table that `entries`, chunk files of the cache, make together.
///
/// # Errors
/// [`ErrorKind::Storage`] when a file is gone.
pub fn of_chunks(cache: &Path, entries: &[Arc<ChunkEntry>], schema: SchemaRef) -> Result<FilesTable> {
    let with_rows = entries.iter().filter(|entry| entry.rows > 0);
    let files = with_rows.map(|entry| partitioned_file(&entry.path(cache))).collect::<Result<Vec<_>>>()?;
    let rows = entries.iter().map(|e| e.rows).sum();
    Ok(FilesTable::new(schema, Reader::parquet(ParquetFormat::default()), files, 0, Some(rows)))
}

/// The published table `name`, or only its chunk `chunk`, at the version that is current now.
///
/// # Errors
/// [`ErrorKind::Usage`] when it is not published or has no such chunk; [`ErrorKind::Storage`] when its files can't be
/// read.
pub async fn published(
    cache: &Path,
    name: &str,
    chunk: Option<u32>,
    state: &SessionState,
    verified: &Arc<Verified>,
) -> Result<VerifiedTable> {
    let Some(version) = publish::current(cache, name)? else {
        return Err(publish::not_published(cache, name)?);
    };
    of_version(cache, name, version, chunk, state, verified).await
}

/// A version of the table `name`, or only its chunk `chunk`.
///
/// # Errors
/// As [`published`].
pub async fn of_version(
    cache: &Path,
    name: &str,
    version: String,
    chunk: Option<u32>,
    state: &SessionState,
    verified: &Arc<Verified>,
) -> Result<VerifiedTable> {
    let table = publish::open_version(cache, name, version)?;
    let failed = |e: DataFusionError| {
        Error::new(ErrorKind::Storage, format!("the published table `{name}` can't be read")).with_source(e)
    };
    let chosen: Vec<_> =
        table.files.iter().filter(|file| chunk.is_none_or(|chunk| chunk == file.chunk)).cloned().collect();
    let files = chosen.iter().map(|file| partitioned_file(&file.path)).collect::<Result<Vec<_>>>()?;
    let Some(first) = files.first() else {
        let message = format!("table `{name}` has chunks 0 to {}", table.files.len().saturating_sub(1));
        return Err(Error::new(ErrorKind::Usage, message));
    };
    let format = ParquetFormat::default().with_options(state.table_options().parquet.clone());
    let store = state.runtime_env().object_store(ObjectStoreUrl::local_filesystem()).map_err(failed)?;
    let schema = format.infer_schema(state, &store, std::slice::from_ref(&first.object_meta)).await.map_err(failed)?;
    let table = FilesTable::new(schema, Reader::parquet(format), files, 0, None);
    Ok(VerifiedTable { name: name.to_string(), table, files: chosen, verified: Arc::clone(verified) })
}

/// A published table. Who scans it first in a process has its files compared with their checksums.
#[derive(Debug)]
pub struct VerifiedTable {
    name: String,
    table: FilesTable,
    files: Vec<PublishedFile>,
    verified: Arc<Verified>,
}

impl VerifiedTable {
    async fn verify(&self) -> Result<()> {
        let (files, verified) = (self.files.clone(), Arc::clone(&self.verified));
        let damaged =
            move || files.into_iter().find(|file| !verified.has(&file.path, &file.checksum).is_ok_and(|is_it| is_it));
        let damaged = tokio::task::spawn_blocking(damaged)
            .await
            .map_err(|e| Error::new(ErrorKind::Storage, "files can't be verified").with_source(e))?;
        match damaged {
            None => Ok(()),
            Some(PublishedFile { chunk, path, .. }) => {
                let (name, path) = (&self.name, path.display());
                let message = format!(
                    "chunk {chunk} of the published table `{name}` is not what was written: {path}; verify the cache, which sets \
                     damaged files aside, and run the task again"
                );
                Err(Error::new(ErrorKind::Storage, message))
            }
        }
    }
}

#[async_trait]
impl TableProvider for VerifiedTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::common::Result<Vec<TableProviderFilterPushDown>> {
        self.table.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        self.verify().await.map_err(|e| DataFusionError::External(Box::new(e)))?;
        self.table.scan(state, projection, filters, limit).await
    }
}

fn partitioned_file(path: &Path) -> Result<PartitionedFile> {
    let failed = |e| Error::storage("read", path, e);
    let path = std::path::absolute(path).map_err(failed)?;
    let metadata = std::fs::metadata(&path).map_err(failed)?;
    let location = location_of(&path).map_err(|e| failed(std::io::Error::other(e)))?;
    Ok(PartitionedFile::new_from_meta(object_meta(location, &metadata).map_err(failed)?))
}
