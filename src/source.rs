//! A source's files, listed once per run: every chunk sees the same ones, and none that changed meanwhile.
//!
//! | step | where |
//! |---|---|
//! | which files a LOCATION means | [`find`], columns of folders' names [`hive`] |
//! | what each file says of its columns | [`csv`], [`json`], [`arrow`], [`parquet`] |
//! | the table's columns, out of those and the declared ones | [`columns`], [`names`], [`unify`], [`storable`] |
//! | files → rows with these columns | [`read`], for Parquet DataFusion's reader and [`fit`] |
//! | whether a file changed | [`stamp`], [`bytes`] |
//! | which file is damaged | [`damage`] |

mod arrow;
mod bytes;
mod columns;
mod csv;
mod damage;
mod fault;
mod find;
mod fit;
mod hive;
mod json;
mod names;
mod open;
mod parquet;
mod read;
mod stamp;
mod storable;
mod unify;

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use ::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::execution::SessionState;
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::future::try_join_all;

use crate::error::{Error, ErrorKind, Result};
use crate::execute::disk::{location_of, object_meta};
use crate::plan::clustering::{ByteRanges, RowGroups};
use crate::plan::fingerprint::Fingerprint;
use crate::source::bytes::FilePart;
use crate::source::damage::check_decodes;
use crate::source::fault::Fault;
use crate::source::find::{Found, FoundFile, Skipped, find};
use crate::source::hive::Partitions;
use crate::source::stamp::Stamp;
use crate::table::FilesTable;
use crate::task::format::Format;
use crate::task::source::Source;

/// For the name of a damaged file no more than this is read again.
const MOST_DECODED_BYTES: u64 = 4 << 30;

/// The files of one source as they were when a run began.
#[derive(Debug)]
pub struct Snapshot {
    name: String,
    table: Arc<FilesTable>,
    /// Columns that must not be NULL, which is checked when they are read.
    promised: Arc<BTreeSet<String>>,
    /// How each column is read, by number.
    read_as: Vec<String>,
    files: Arc<Vec<SourceFile>>,
    row_groups: Option<Arc<RowGroups>>,
    notes: Vec<String>,
}

/// One of the files.
#[derive(Debug, Clone)]
struct SourceFile {
    path: PathBuf,
    stamp: Stamp,
    bytes: u64,
    /// Whether any change since it was listed shows in its stamp.
    is_settled: bool,
    /// The columns that are in its path, and their values.
    partitions: String,
}

/// What a source's files are, before they are a table.
struct Listed {
    files: BTreeMap<PathBuf, FoundFile>,
    skipped: Vec<(PathBuf, Skipped)>,
}

impl Snapshot {
    /// Lists the files of `source` and finds their schema.
    ///
    /// # Errors
    /// [`ErrorKind::Source`], at the statement: no file is there, one can't be read, or their columns don't fit each
    /// other or the declared ones.
    pub async fn take(source: &Source, state: &SessionState) -> Result<Self> {
        let failed = |fault: Fault| source_error(source, fault);
        let listed = list(source).await?;
        let declared = columns::declared(source, state).await?;
        let partitions = match &declared.partitions {
            Some(columns) => hive::declared(&listed.files, columns).map_err(failed)?,
            None if let Some(columns) = &declared.columns => {
                // A key that no object has is NULL, so nothing else would tell.
                let in_folders = match &source.format {
                    Format::Json(_) => hive::keys(&listed.files).map_err(failed)?,
                    _ => BTreeSet::new(),
                };
                let is_in_folders = |(field, _): &&(Field, bool)| in_folders.contains(field.name());
                if let Some((field, _)) = columns.iter().find(is_in_folders) {
                    let name = field.name();
                    let message = format!(
                        "column '{name}' is in the names of folders; add PARTITIONED BY ({name}), or leave it out"
                    );
                    return Err(planner_error(source, DataFusionError::Plan(message)));
                }
                Partitions { values: vec![Vec::new(); listed.files.len()], ..Partitions::default() }
            }
            None => hive::found(&listed.files).map_err(failed)?,
        };
        let mut files = Vec::with_capacity(listed.files.len());
        let mut partitioned = Vec::with_capacity(listed.files.len());
        let now = SystemTime::now();
        for (at, ((path, found), values)) in listed.files.iter().zip(&partitions.values).enumerate() {
            let stamp = Stamp::of(&found.metadata);
            let location = location_of(path).map_err(|e| failed(Fault::new(path, "can't be a location").because(e)))?;
            let meta = object_meta(location, &found.metadata)
                .map_err(|e| failed(Fault::new(path, "has no time of modification").because(e)))?;
            files.push(SourceFile {
                path: path.clone(),
                stamp,
                bytes: meta.size,
                is_settled: stamp.unsettled_for(now).is_some_and(|wait| wait.is_zero()),
                partitions: partitions.in_words(at),
            });
            let mut file = PartitionedFile::new_from_meta(meta);
            file.partition_values = values.clone();
            partitioned.push(file);
        }
        let columns::Columns { schema, promised, reader, rows, row_groups } =
            columns::columns(source, &declared, &files, &partitioned, &partitions, state).await?;
        let read_as =
            schema.fields().iter().enumerate().map(|(at, field)| columns::read_as(source, at, field)).collect();
        let fields: Vec<_> =
            schema.fields().iter().cloned().chain(partitions.columns.iter().cloned().map(Arc::new)).collect();
        let whole: SchemaRef = Arc::new(Schema::new(fields));
        let table = FilesTable::new(Arc::clone(&whole), reader, partitioned, partitions.columns.len(), rows);
        let row_groups = row_groups.map(|footers| Arc::new(RowGroups::new(whole, footers)));
        let table = table.promising(&promised).with_row_groups(row_groups.clone());
        let notes = notes(&listed.skipped, &partitions);
        let (name, table, files) = (source.name.clone(), Arc::new(table), Arc::new(files));
        Ok(Self { name, table, promised: Arc::new(promised), read_as, files, row_groups, notes })
    }

    /// The files as a table.
    pub fn table(&self) -> Arc<FilesTable> {
        Arc::clone(&self.table)
    }

    /// Columns that must not be NULL, which is checked when they are read.
    pub fn promised(&self) -> Arc<BTreeSet<String>> {
        Arc::clone(&self.promised)
    }

    /// What was left out of the source, and why, in words.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Size of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The row groups, when the files are Parquet.
    pub fn row_groups(&self) -> Option<Arc<RowGroups>> {
        self.row_groups.clone().filter(|_| self.table.partition_columns() == 0)
    }

    /// Number of files.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// Whether what is found out of some files, by number, may be noted for later runs: any change of them shows.
    pub fn is_settled(&self, files: impl IntoIterator<Item = usize>) -> bool {
        files.into_iter().all(|file| self.files.get(file).is_some_and(|file| file.is_settled))
    }

    /// The identity of one file, by number, at this moment: its path, and what the file system says of it.
    pub fn file_identity(&self, file: usize) -> Fingerprint {
        let Some(file) = self.files.get(file) else { return Fingerprint::of([]) };
        let read_as = self.read_as.join(" ");
        let stamp = file.stamp.text();
        let path = std::os::unix::ffi::OsStrExt::as_bytes(file.path.as_os_str());
        let partitions = file.partitions.as_bytes();
        Fingerprint::of([
            ("read as", read_as.as_bytes()),
            ("partitions", partitions),
            ("path", path),
            ("stamp", stamp.as_bytes()),
        ])
    }

    /// The identity of some of the files, by number, at this moment.
    pub fn identity_of(&self, files: &BTreeSet<usize>) -> Fingerprint {
        let files: Vec<_> = files.iter().map(|file| self.file_identity(*file)).collect();
        Fingerprint::of(files.iter().map(|file| ("file", file.as_bytes().as_slice())))
    }

    /// The identity of all files.
    pub fn identity(&self) -> Fingerprint {
        self.identity_of(&(0..self.files.len()).collect())
    }

    /// The parts of a file that can change alone, for who reads only some columns: its row groups, or all of it.
    pub fn parts(&self, file: usize, columns: &BTreeSet<usize>) -> Vec<FilePart> {
        let Some(file_of) = self.files.get(file) else { return Vec::new() };
        let schema = self.table.schema();
        let names = columns.iter().map(|at| schema.field(*at).name().as_str()).collect();
        // Columns that are in paths have no number among those of the files.
        let read_as: Vec<&str> = columns.iter().filter_map(|at| self.read_as.get(*at)).map(String::as_str).collect();
        let read_as = format!("{} {}", read_as.join(" "), file_of.partitions);
        match &self.row_groups {
            Some(groups) => {
                let part = |ByteRanges { ranges, read_as: as_group }| FilePart {
                    path: file_of.path.clone(),
                    ranges,
                    read_as: format!("{read_as} {as_group}"),
                };
                groups.byte_ranges(file, &names).into_iter().map(part).collect()
            }
            None => {
                vec![FilePart { path: file_of.path.clone(), ranges: iter::once(0..file_of.bytes).collect(), read_as }]
            }
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
                        let message = format!("{} of source `{name}` can't be read", part.path.display());
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
        let (name, files) = (self.name.clone(), Arc::clone(&self.files));
        let checked = tokio::task::spawn_blocking(move || check(&name, &files));
        checked.await.unwrap_or_else(|panicked| {
            let message = format!("files of source `{}` can't be looked at", self.name);
            Err(Error::new(ErrorKind::Source, message).with_source(panicked))
        })
    }

    /// Looks for a file that can't be decoded, among the first [`MOST_DECODED_BYTES`], for who knows that there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] with the first file and its column.
    pub async fn check_decodes(&self) -> Result<()> {
        if self.row_groups.is_none() {
            return Ok(());
        }
        let (name, files) = (self.name.clone(), Arc::clone(&self.files));
        let check = move || -> std::result::Result<(), Fault> {
            let mut left = MOST_DECODED_BYTES;
            for file in files.iter() {
                let Some(less) = left.checked_sub(file.bytes) else { break };
                left = less;
                check_decodes(&file.path)?;
            }
            Ok(())
        };
        match tokio::task::spawn_blocking(check).await {
            Ok(Err(fault)) => {
                let (message, cause) = fault.into_parts();
                let error = Error::new(ErrorKind::Source, format!("source `{name}`: {message}"));
                Err(match cause {
                    Some(cause) => error.with_source(cause),
                    None => error,
                })
            }
            // What can't be looked into says nothing.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// As [`Snapshot::check_unchanged`], for callers that may wait for the disk.
    ///
    /// # Errors
    /// As [`Snapshot::check_unchanged`].
    pub fn check_now(&self) -> Result<()> {
        check(&self.name, &self.files)
    }
}

fn check(source: &str, files: &[SourceFile]) -> Result<()> {
    let is_changed = |file: &&SourceFile| !Stamp::now(&file.path).is_ok_and(|now| now == file.stamp);
    match files.iter().find(is_changed) {
        None => Ok(()),
        Some(SourceFile { path, .. }) => {
            let path = path.display();
            let message =
                format!("{path} of source `{source}` changed while it was read; nothing was published, run again");
            Err(Error::new(ErrorKind::Source, message))
        }
    }
}

/// The files of a source. Those that changed a moment ago are waited for, until another change would get another time.
async fn list(source: &Source) -> Result<Listed> {
    let (places, format) = (source.places.clone(), source.format.clone());
    let listed = tokio::task::spawn_blocking(move || {
        let mut all = Listed { files: BTreeMap::new(), skipped: Vec::new() };
        let mut before: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for place in &places {
            let Found { mut files, skipped } = find(place, &format)?;
            // A file that two places mean is read once, however they are written. Within a place links count.
            if places.len() > 1 {
                let real = |path: &PathBuf| std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
                let mut left = before.clone();
                let mut is_left = |path: &PathBuf| {
                    let left = left.get_mut(&real(path)).filter(|left| **left > 0);
                    left.map(|left| *left -= 1).is_some()
                };
                files.retain(|path, _| !all.files.contains_key(path) || !is_left(path));
                files.retain(|path, _| !is_left(path));
                for path in files.keys() {
                    *before.entry(real(path)).or_default() += 1;
                }
            }
            all.files.extend(files);
            all.skipped.extend(skipped);
        }
        let now = SystemTime::now();
        let waits = all.files.values().filter_map(|file| Stamp::of(&file.metadata).unsettled_for(now));
        let wait = waits.max().unwrap_or_default();
        if !wait.is_zero() {
            std::thread::sleep(wait);
            for (path, file) in &mut all.files {
                file.metadata = std::fs::metadata(path).map_err(|cause| find::NotFound {
                    message: format!("{} is gone", path.display()),
                    cause: Some(cause),
                })?;
            }
        }
        Ok::<_, find::NotFound>(all)
    });
    let failed = |message: String| {
        Error::new(ErrorKind::Source, format!("source `{}`: {message}", source.name))
            .with_location(source.location.clone())
    };
    match listed.await {
        Ok(Ok(listed)) => Ok(listed),
        Ok(Err(find::NotFound { message, cause: None })) => Err(failed(message)),
        Ok(Err(find::NotFound { message, cause: Some(cause) })) => Err(failed(message).with_source(cause)),
        Err(panicked) => Err(failed("its files can't be listed".into()).with_source(panicked)),
    }
}

fn source_error(source: &Source, fault: Fault) -> Error {
    let (message, cause) = fault.into_parts();
    let error = Error::new(ErrorKind::Source, format!("source `{}`: {message}", source.name));
    let error = error.with_location(source.location.clone());
    match cause {
        Some(cause) => error.with_source(cause),
        None => error,
    }
}

fn planner_error(source: &Source, cause: DataFusionError) -> Error {
    let message = format!("source `{}` can't be read: {}", source.name, cause.strip_backtrace());
    Error::new(ErrorKind::Source, message).with_location(source.location.clone())
}

/// The store that local files are read through.
fn store(state: &SessionState) -> datafusion::common::Result<Arc<dyn object_store::ObjectStore>> {
    state.runtime_env().object_store(ObjectStoreUrl::local_filesystem())
}

/// What was left out, in words.
fn notes(skipped: &[(PathBuf, Skipped)], partitions: &Partitions) -> Vec<String> {
    /// So many paths are told of each kind.
    const MOST: usize = 100;
    let kinds = [
        (Skipped::Hidden, "have hidden names"),
        (Skipped::OtherEnding, "have another ending than the format's files"),
        (Skipped::Empty, "are empty"),
        (Skipped::Loop, "are links to a folder that they lie in"),
        (Skipped::Cache, "are folders of a cache"),
    ];
    let mut notes = Vec::new();
    for (kind, why) in kinds {
        let paths: Vec<_> = skipped.iter().filter(|(_, why)| *why == kind).map(|(path, _)| path.display()).collect();
        if !paths.is_empty() {
            let told = paths.iter().take(MOST).map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let more = if paths.len() > MOST { format!(" and {} more", paths.len() - MOST) } else { String::new() };
            notes.push(format!("not read, since they {why}: {told}{more}"));
        }
    }
    if let Some((keys, without)) = &partitions.not_in_all {
        notes.push(format!(
            "{keys} of folders' names are not columns, since {} is in no such folder",
            without.display()
        ));
    }
    notes
}
