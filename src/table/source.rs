//! A source's files, listed once per run: every chunk sees the same ones, and none that changed meanwhile.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::iter;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::{TableProvider, TableProviderFactory};
use datafusion::common::{ColumnStatistics, DFSchema, DataFusionError};
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingTable, PartitionedFile};
use datafusion::datasource::listing_table_factory::ListingTableFactory;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::execution::SessionState;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::sql::parser::{CreateExternalTable, Statement};
use futures::future::try_join_all;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use xxhash_rust::xxh3::Xxh3;

use crate::chunk::key::lossless_cast;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::clustering::{ByteRanges, RowGroups};
use crate::plan::fingerprint::Fingerprint;
use crate::table::FilesTable;
use crate::task::Source;

/// The files of one source as they were when a run began.
#[derive(Debug)]
pub struct Snapshot {
    name: String,
    table: Arc<FilesTable>,
    /// How the files are read.
    read_as: String,
    files: Vec<ObjectMeta>,
    row_groups: Option<Arc<RowGroups>>,
    /// Whether files have values of columns in their paths.
    has_values_in_paths: bool,
    store: Arc<dyn ObjectStore>,
}

/// What of a source's file is hashed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePart {
    location: ObjectPath,
    ranges: Vec<Range<u64>>,
    /// What says, beside the bytes, which values they are.
    read_as: String,
}

/// A file is hashed in pieces of so many bytes.
const PIECE_BYTES: usize = 256 << 10;

impl FilePart {
    fn hash(&self) -> io::Result<u128> {
        let Self { location, ranges, read_as } = self;
        let path = LocalFileSystem::new().path_to_filesystem(location).map_err(io::Error::other)?;
        let mut file = File::open(path)?;
        let mut hasher = Xxh3::new();
        hasher.update(read_as.as_bytes());
        let mut piece = vec![0; PIECE_BYTES];
        for range in ranges {
            let mut left = range.end - range.start;
            hasher.update(&left.to_le_bytes());
            file.seek(SeekFrom::Start(range.start))?;
            while left > 0 {
                let piece = &mut piece[..PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES))];
                file.read_exact(piece)?;
                hasher.update(piece);
                left -= piece.len() as u64;
            }
        }
        Ok(hasher.digest128())
    }
}

impl Snapshot {
    /// Lists the files of `source` and finds their schema.
    ///
    /// # Errors
    /// [`ErrorKind::Source`], at the statement: no file matches, one can't be read, or their columns don't fit
    /// each other or the declared ones.
    pub async fn take(source: &Source, state: &SessionState) -> Result<Self> {
        let failed = |e: DataFusionError| {
            let places = source.statement.locations.join(", ");
            Error::new(ErrorKind::Source, format!("source `{}` can't be read from {places}", source.name))
                .with_location(source.location.clone())
                .with_source(e)
        };
        let no_files = |place: &str| {
            let message = format!("source `{}`: no file at {place}; check its LOCATION", source.name);
            Error::new(ErrorKind::Source, message).with_location(source.location.clone())
        };
        for place in &source.statement.locations {
            if !place.contains(['*', '?', '[']) && !Path::new(place).exists() {
                return Err(no_files(place));
            }
        }
        let statement = Statement::CreateExternalTable(source.statement.clone());
        let plan = state.statement_to_plan(statement).await.map_err(failed)?;
        let LogicalPlan::Ddl(DdlStatement::CreateExternalTable(command)) = plan else {
            return Err(failed(DataFusionError::Plan("it is not CREATE EXTERNAL TABLE".into())));
        };
        let table = match ListingTableFactory::new().create(state, &command).await {
            // Its own message leaves out the pattern that matched nothing.
            Err(e) if is_no_file(&e) => return Err(no_files(&source.statement.locations.join(", "))),
            other => other.map_err(failed)?,
        };
        let Some(listing) = table.downcast_ref::<ListingTable>() else {
            return Err(failed(DataFusionError::Plan("it is not a table of files".into())));
        };
        let listed = listing.list_files_for_scan(state, &[], None).await.map_err(failed)?;
        let mut files: Vec<PartitionedFile> = listed.file_groups.into_iter().flat_map(|g| g.into_inner()).collect();
        files.sort_by(|a, b| a.object_meta.location.cmp(&b.object_meta.location));
        files.iter_mut().for_each(|file| forget_float_statistics(file, &table.schema()));
        if files.is_empty() {
            return Err(no_files(&source.statement.locations.join(", ")));
        }
        let store = state.runtime_env().object_store(ObjectStoreUrl::local_filesystem()).map_err(failed)?;
        let metas: Vec<ObjectMeta> = files.iter().map(|f| f.object_meta.clone()).collect();
        let format = &listing.options().format;
        if !source.statement.columns.is_empty() && ["parquet", "arrow"].contains(&format.get_ext().as_str()) {
            let found = format.infer_schema(state, &store, &metas).await.map_err(failed)?;
            let partitions: Vec<_> = listing.options().table_partition_cols.iter().map(|(name, _)| name).collect();
            check_declared(&table.schema(), &found, &partitions)
                .map_err(|message| failed(DataFusionError::Plan(message)))?;
        }
        let read_as = read_as(&source.statement, &table.schema());
        let rows = listed.statistics.num_rows;
        let rows = if rows.is_exact() == Some(true) { rows.get_value().map(|rows| *rows as u64) } else { None };
        let partition_columns = listing.options().table_partition_cols.len();
        let row_groups = match format.is::<ParquetFormat>() && partition_columns == 0 {
            true => Some(Arc::new(row_groups(&table.schema(), store.as_ref(), &metas, state).await.map_err(failed)?)),
            false => None,
        };
        let table = FilesTable::new(table.schema(), Arc::clone(format), files, partition_columns, rows);
        let (name, table, has_values_in_paths) = (source.name.clone(), Arc::new(table), partition_columns > 0);
        Ok(Self { name, table, read_as, files: metas, row_groups, has_values_in_paths, store })
    }

    /// The files as a table.
    pub fn table(&self) -> Arc<FilesTable> {
        Arc::clone(&self.table)
    }

    /// Size of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The row groups, when the files are Parquet.
    pub fn row_groups(&self) -> Option<Arc<RowGroups>> {
        self.row_groups.clone()
    }

    /// Number of files.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// The identity of one file, by number, at this moment: its path, size, modification time and etag.
    pub fn file_identity(&self, file: usize) -> Fingerprint {
        let stamp = self.files.get(file).map(stamp).unwrap_or_default();
        Fingerprint::of([("read as", self.read_as.as_bytes()), ("file", stamp.as_bytes())])
    }

    /// The identity of some of the files, by number, at this moment.
    pub fn identity_of(&self, files: &BTreeSet<usize>) -> Fingerprint {
        let files: Vec<_> = files.iter().map(|file| self.file_identity(*file)).collect();
        Fingerprint::of(files.iter().map(|file| ("file", file.as_bytes().as_slice())))
    }

    /// How the files are read, and path, size, modification time and etag of each.
    pub fn identity(&self) -> Fingerprint {
        self.identity_of(&(0..self.files.len()).collect())
    }

    /// The parts of a file that can change alone, for who reads only some columns: its row groups, or all of it.
    pub fn parts(&self, file: usize, columns: &BTreeSet<usize>) -> Vec<FilePart> {
        let Some(meta) = self.files.get(file) else { return Vec::new() };
        let location = meta.location.clone();
        let schema = self.table.schema();
        let names = columns.iter().map(|at| schema.field(*at).name().as_str()).collect();
        let mut read_as = self.read_as.clone();
        if self.has_values_in_paths {
            read_as += meta.location.as_ref();
        }
        match &self.row_groups {
            Some(groups) => {
                let groups = groups.byte_ranges(file, &names).into_iter();
                let part = |ByteRanges { ranges, read_as: as_group }| FilePart {
                    location: location.clone(),
                    ranges,
                    read_as: format!("{read_as} {as_group}"),
                };
                groups.map(part).collect()
            }
            None => vec![FilePart { location, ranges: iter::once(0..meta.size).collect(), read_as }],
        }
    }

    /// The hash of each part's bytes, and of how they are read; on `threads` threads.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] when they can't be read.
    pub async fn hashes(&self, parts: Vec<FilePart>, threads: usize) -> Result<Vec<u128>> {
        let share = parts.len().div_ceil(threads.max(1)).max(1);
        let hash = |parts: &[FilePart]| {
            let (parts, name) = (parts.to_vec(), self.name.clone());
            // On threads that may wait, a whole share each: memory that is freed on another thread stays with its own.
            tokio::task::spawn_blocking(move || {
                let hash = |part: &FilePart| {
                    part.hash().map_err(|e| {
                        let message = format!("/{} of source `{name}` can't be read", part.location);
                        Error::new(ErrorKind::Source, message).with_source(e)
                    })
                };
                parts.iter().map(hash).collect::<Result<Vec<_>>>()
            })
        };
        let mut hashes = Vec::with_capacity(parts.len());
        for share in try_join_all(parts.chunks(share).map(hash)).await.map_err(|e| {
            Error::new(ErrorKind::Source, format!("source `{}` can't be read", self.name)).with_source(e)
        })? {
            hashes.extend(share?);
        }
        Ok(hashes)
    }

    /// Checks that the files are still those that were listed.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] with the file that changed.
    pub async fn check_unchanged(&self) -> Result<()> {
        for file in &self.files {
            let now = self.store.head(&file.location).await;
            if !now.is_ok_and(|now| stamp(&now) == stamp(file)) {
                let message = format!(
                    "/{} of source `{}` changed while it was read; nothing was published, run again",
                    file.location, self.name
                );
                return Err(Error::new(ErrorKind::Source, message));
            }
        }
        Ok(())
    }
}

async fn row_groups(
    schema: &SchemaRef,
    store: &dyn ObjectStore,
    files: &[ObjectMeta],
    state: &SessionState,
) -> datafusion::common::Result<RowGroups> {
    let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
    let mut footers = Vec::new();
    for file in files {
        let reader = DFParquetMetadata::new(store, file).with_file_metadata_cache(Some(Arc::clone(&cache)));
        footers.push(reader.fetch_metadata().await?);
    }
    Ok(RowGroups::new(Arc::clone(schema), footers))
}

/// Whether DataFusion had no file to find a schema in.
fn is_no_file(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::Plan(message) if message.starts_with("No files found at"))
}

/// Parquet's bounds of a float column leave NaN out. DataFusion would take a column whose bounds are equal for
/// constant, NaN for that constant, and would skip files whose NaN a filter keeps.
fn forget_float_statistics(file: &mut PartitionedFile, schema: &Schema) {
    let Some(statistics) = &mut file.statistics else { return };
    for (column, field) in Arc::make_mut(statistics).column_statistics.iter_mut().zip(schema.fields()) {
        if field.data_type().is_floating() {
            *column = ColumnStatistics::new_unknown();
        }
    }
}

/// What tells a changed file from an unchanged one.
fn stamp(file: &ObjectMeta) -> String {
    let ObjectMeta { location, last_modified, size, e_tag, version } = file;
    format!("{location} {size} {} {e_tag:?} {version:?}", last_modified.to_rfc3339())
}

fn read_as(statement: &CreateExternalTable, schema: &Schema) -> String {
    // The location and the flags say where to find the files, not how to read them.
    let CreateExternalTable {
        name: _,
        columns,
        file_type,
        locations: _,
        table_partition_cols,
        order_exprs: _,
        if_not_exists: _,
        or_replace: _,
        temporary: _,
        unbounded: _,
        options,
        constraints: _,
    } = statement;
    let columns: Vec<_> = columns.iter().map(ToString::to_string).collect();
    let options: Vec<_> = options.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let fields = schema.fields().iter().map(|f| format!("{} {} {}", f.name(), f.data_type(), f.is_nullable()));
    let fields: Vec<_> = fields.collect();
    format!("{file_type} {columns:?} {table_partition_cols:?} {options:?} {fields:?}")
}

/// Columns declared in the statement must be in the files, with types that hold the files' values unchanged.
fn check_declared(declared: &Schema, found: &Schema, partitions: &[&String]) -> Result<(), String> {
    for field in declared.fields().iter().filter(|f| !partitions.contains(&f.name())) {
        let (name, wanted) = (field.name(), field.data_type());
        let Ok(file) = found.field_with_name(name) else {
            let names: Vec<_> = found.fields().iter().map(|f| f.name().as_str()).collect();
            return Err(format!("column `{name}` is declared, but the files have only: {}", names.join(", ")));
        };
        if !fits(file.data_type(), wanted) {
            let has = file.data_type();
            return Err(format!("column `{name}` is declared as {wanted}, but it is {has} in the files"));
        }
    }
    Ok(())
}

fn fits(file: &DataType, declared: &DataType) -> bool {
    DFSchema::datatype_is_logically_equal(file, declared) || lossless_cast(file, declared)
}
