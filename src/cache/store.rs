//! Chunk files: write-once Parquet, each named by its fingerprint, its footer saying what it is.

use std::collections::HashMap;
use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use arrow::datatypes::Schema;
use parquet::arrow::{ARROW_SCHEMA_META_KEY, encode_arrow_schema};
use parquet::file::metadata::{KeyValue, ParquetMetaDataReader};
use serde::{Deserialize, Serialize};

use crate::cache::temp::TempFolder;
use crate::error::{Error, ErrorKind, Result};
use crate::execute::checksum::{Checksum, checksum_of};
use crate::execute::content::{Content, content_of_file};
use crate::failpoint::failpoint;
use crate::plan::components::Components;
use crate::plan::fingerprint::Fingerprint;
use crate::plan::prove::proof::Proof;
use crate::plan::published::schema_of_files;

/// Name of the folder of chunk files, inside the cache folder.
pub const CHUNKS: &str = "chunks";

/// Name of the folder of damaged files, inside the cache folder.
pub const DAMAGED: &str = "damaged";

/// The time of a chunk file's last use is written at most this often.
const USED_LATELY: Duration = Duration::from_secs(60);

/// Key of the footer's metadata under which [`ChunkEntry`] is kept as JSON.
const FOOTER_KEY: &str = "chunkwise.chunk";

/// One committed chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkEntry {
    /// What it is made of.
    pub fingerprint: Fingerprint,
    /// The task's table.
    pub table: String,
    /// Number of the chunk, from 0.
    pub chunk: u32,
    /// Number of chunks of the table.
    pub chunks: u32,
    /// Columns of the table that alone decide a row's chunk; empty when the keys are not among its columns.
    pub keys: Vec<String>,
    /// Rows in the file.
    pub rows: u64,
    /// Size of the file.
    pub bytes: u64,
    /// When it was written, in nanoseconds since 1970: tells a file from one that was computed again.
    pub written_unix_ns: u64,
    /// Checksum of the file.
    pub checksum: Checksum,
    /// What its rows say.
    pub content: Content,
}

/// The footer's form of a [`ChunkEntry`]; size and checksum are the file's.
#[derive(Debug, Serialize, Deserialize)]
struct Footer {
    format: u32,
    fingerprint: String,
    table: String,
    chunk: u32,
    chunks: u32,
    keys: Vec<String>,
    rows: u64,
    written_unix_ns: u64,
    /// Hexadecimal digits of the content's bytes.
    content: String,
    /// BLAKE3 of the columns as Arrow's schema in the file says them: Arrow's readers panic at some that are damaged.
    columns: String,
    components: std::collections::BTreeMap<String, String>,
}

/// Version of [`Footer`].
const FORMAT: u32 = 3;

impl ChunkEntry {
    /// A chunk of the table of step `table`, cut by `proof`, before it is written.
    pub fn new(fingerprint: Fingerprint, table: &str, chunk: u32, proof: &Proof) -> Self {
        Self {
            fingerprint,
            table: table.to_string(),
            chunk,
            chunks: proof.chunks(),
            keys: proof.stored_by().to_vec(),
            rows: 0,
            bytes: 0,
            written_unix_ns: 0,
            checksum: Checksum::from_bytes([0; 32]),
            content: Content::default(),
        }
    }

    /// The metadata for the footer of this chunk's file, whose columns are `schema`, written before its size is known.
    pub fn footer(&self, components: &Components, schema: &Schema) -> Result<KeyValue> {
        let Self { fingerprint, table, chunk, chunks, keys, rows, bytes: _, written_unix_ns, checksum: _, content } =
            self.clone();
        let footer = Footer {
            format: FORMAT,
            fingerprint: fingerprint.to_string(),
            table,
            chunk,
            chunks,
            keys,
            rows,
            written_unix_ns,
            content: content.to_string(),
            columns: blake3::hash(encode_arrow_schema(&schema_of_files(schema)).as_bytes()).to_string(),
            components: components.0.clone(),
        };
        let json = serde_json::to_string(&footer)
            .map_err(|e| Error::new(ErrorKind::Storage, "can't write a chunk's footer").with_source(e))?;
        Ok(KeyValue::new(FOOTER_KEY.to_string(), json))
    }

    /// Path of this chunk's file.
    pub fn path(&self, cache: &Path) -> PathBuf {
        chunk_path(cache, &self.fingerprint)
    }
}

/// A chunk file being written; dropping it removes the file.
#[derive(Debug)]
pub struct PendingChunk {
    path: PathBuf,
    file: File,
}

impl PendingChunk {
    /// A new file in `temp`.
    pub fn create(temp: &TempFolder) -> Result<Self> {
        let path = temp.new_path("parquet");
        let file = File::create_new(&path).map_err(|e| Error::storage("create", &path, e))?;
        let pending = Self { path, file };
        failpoint(&pending.path)?;
        Ok(pending)
    }

    /// A handle to write with.
    pub fn writer(&self) -> Result<File> {
        self.file.try_clone().map_err(|e| Error::storage("write", &self.path, e))
    }

    /// Size of what was written.
    pub fn bytes(&self) -> Result<u64> {
        self.file.metadata().map(|m| m.len()).map_err(|e| Error::storage("read", &self.path, e))
    }

    /// fsync, the chunk's final name, fsync of the folder. Returns the entry of the file that has the name then.
    ///
    /// A whole file that got the name meanwhile, from a task of the same query or another process, keeps it, since it
    /// may be being read; `replace` replaces it.
    pub fn commit(self, cache: &Path, entry: ChunkEntry, replace: bool) -> Result<ChunkEntry> {
        failpoint(&self.path)?;
        self.file.sync_all().map_err(|e| Error::storage("write", &self.path, e))?;
        let path = entry.path(cache);
        let folder = path.parent().unwrap_or(cache);
        create_folder(folder)?;
        failpoint(&self.path)?;
        // A link never replaces a file, as a rename would; the old name goes with `self`.
        let is_linked = !replace && fs::hard_link(&self.path, &path).is_ok();
        let there = if is_linked || replace { None } else { read_entry(&path).ok().map(|(there, _)| there) };
        // What it says of its rows must hold: nobody has vouched for its bytes.
        let is_sound = |there: &ChunkEntry| {
            there.fingerprint == entry.fingerprint && content_of_file(&path).is_ok_and(|found| found == there.content)
        };
        let there = there.filter(is_sound);
        if !is_linked && there.is_none() {
            fs::rename(&self.path, &path).map_err(|e| Error::storage("create", &path, e))?;
        }
        failpoint(&self.path)?;
        sync_folder(folder)?;
        failpoint(&self.path)?;
        Ok(there.unwrap_or(entry))
    }
}

impl Drop for PendingChunk {
    fn drop(&mut self) {
        // After a commit there is nothing under this name any more.
        let _ = fs::remove_file(&self.path);
    }
}

/// The name of a chunk's file.
fn chunk_path(cache: &Path, fingerprint: &Fingerprint) -> PathBuf {
    let name = fingerprint.to_string();
    cache.join(CHUNKS).join(&name[..2]).join(name).with_extension("parquet")
}

/// The chunk of this fingerprint, if its file is there and is what its name says: who wrote it may have stopped before
/// it was noted in the index.
pub fn find(cache: &Path, fingerprint: &Fingerprint) -> Option<(ChunkEntry, Components)> {
    let path = chunk_path(cache, fingerprint);
    if !path.is_file() {
        return None;
    }
    read_entry(&path).ok().filter(|(entry, _)| entry.fingerprint == *fingerprint)
}

/// The fingerprint in the name of a chunk's file.
pub fn named(path: &Path) -> Option<Fingerprint> {
    Fingerprint::from_hex(path.file_stem()?.to_str()?)
}

/// Paths of all chunk files.
pub fn files(cache: &Path) -> Result<Vec<PathBuf>> {
    let folders = read_folder(&cache.join(CHUNKS))?;
    let files = folders.iter().map(|folder| read_folder(folder)).collect::<Result<Vec<_>>>()?;
    Ok(files.concat())
}

/// Whether the chunk's file is there at its full size. If so and `is_used`, that is noted, unless it was lately.
pub fn is_whole(cache: &Path, entry: &ChunkEntry, is_used: bool) -> bool {
    let path = entry.path(cache);
    let Some(metadata) = fs::metadata(&path).ok().filter(|m| m.is_file() && m.len() == entry.bytes) else {
        return false;
    };
    let is_late = |used: SystemTime| used.elapsed().is_ok_and(|unused| unused > USED_LATELY);
    if is_used && metadata.accessed().is_ok_and(is_late) {
        set_used(&path, SystemTime::now());
    }
    true
}

/// Sets the time of a chunk file's last use. That it can't be written is no reason not to use it.
pub fn set_used(path: &Path, used: SystemTime) {
    let times = FileTimes::new().set_accessed(used);
    let _ = File::open(path).and_then(|file| file.set_times(times));
}

/// Reads a chunk file's footer, and the whole file for its checksum.
///
/// # Errors
/// [`ErrorKind::Storage`] when the file can't be read, is not Parquet, or was not written by a compatible version.
pub fn read_entry(path: &Path) -> Result<(ChunkEntry, Components)> {
    let checksum = checksum_of(path).map_err(|e| Error::storage("read", path, e))?;
    read_footer(path, checksum)
}

/// Reads the footer of a chunk file whose checksum is known.
///
/// # Errors
/// As [`read_entry`].
pub fn read_footer(path: &Path, checksum: Checksum) -> Result<(ChunkEntry, Components)> {
    let file = File::open(path).map_err(|e| Error::storage("read", path, e))?;
    let bytes = file.metadata().map_err(|e| Error::storage("read", path, e))?.len();
    let damaged =
        |why: String| Error::new(ErrorKind::Storage, format!("{} is not a chunk file: {why}", path.display()));
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|e| damaged(e.to_string()))?;
    let pairs = metadata.file_metadata().key_value_metadata();
    let value =
        |key: &str| pairs.into_iter().flatten().find(|pair| pair.key == key).and_then(|pair| pair.value.as_deref());
    let json = value(FOOTER_KEY);
    let json = json.ok_or_else(|| damaged("its footer does not say what it is".into()))?;
    let footer: Footer = serde_json::from_str(json).map_err(|e| damaged(e.to_string()))?;
    let Footer { format, fingerprint, table, chunk, chunks, keys, rows, written_unix_ns, content, columns, components } =
        footer;
    if format != FORMAT {
        return Err(damaged(format!("its format is {format}, this version reads {FORMAT}")));
    }
    if value(ARROW_SCHEMA_META_KEY).map(|schema| blake3::hash(schema.as_bytes()).to_string()) != Some(columns) {
        return Err(damaged("its columns are not what was written".into()));
    }
    if u64::try_from(metadata.file_metadata().num_rows()) != Ok(rows) {
        return Err(damaged("its footer names another number of rows".into()));
    }
    let fingerprint =
        Fingerprint::from_hex(&fingerprint).ok_or_else(|| damaged("its fingerprint is not one".into()))?;
    let content = content.parse().map_err(|()| damaged("its content is not one".into()))?;
    let entry = ChunkEntry { fingerprint, table, chunk, chunks, keys, rows, bytes, written_unix_ns, checksum, content };
    Ok((entry, Components(components)))
}

/// What the footers of all chunk files say.
#[derive(Debug, Default)]
pub struct Found {
    /// The chunks.
    pub entries: Vec<(ChunkEntry, Components)>,
    /// A warning for each file that is not what its name says.
    pub warnings: Vec<String>,
}

/// Reads the footers of all chunk files.
pub fn read_all(cache: &Path) -> Result<Found> {
    let mut found = Found::default();
    for path in files(cache)? {
        match read_entry(&path) {
            Ok((entry, components)) if entry.path(cache) == path => found.entries.push((entry, components)),
            Ok(_) => found.warnings.push(format!("{} is not the chunk that its name says", path.display())),
            Err(error) => found.warnings.push(error.to_string()),
        }
    }
    Ok(found)
}

/// Whether a chunk that no index row tells of is what was written: its file has a checksum that the list of a published
/// version has, or, where none lists it, its rows say what its footer says.
pub fn is_as_listed(cache: &Path, entry: &ChunkEntry, listed: &HashMap<String, Vec<Checksum>>) -> bool {
    match listed.get(&file_name(entry.fingerprint)) {
        Some(checksums) => checksums.contains(&entry.checksum),
        None => content_of_file(&entry.path(cache)).is_ok_and(|content| content == entry.content),
    }
}

/// The name of a chunk's file in published versions.
pub fn file_name(chunk: Fingerprint) -> String {
    let mut name = chunk.to_string();
    name.truncate(16);
    format!("{name}.parquet")
}

/// Moves a damaged chunk file out of the way; returns where to.
pub fn set_aside(cache: &Path, path: &Path) -> Result<PathBuf> {
    let folder = cache.join(DAMAGED);
    create_folder(&folder)?;
    let aside = folder.join(path.file_name().unwrap_or(path.as_os_str()));
    match fs::rename(path, &aside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::storage("set aside", path, e)),
        _ => Ok(aside),
    }
}

/// Paths in a folder, sorted; none when it is not there.
pub fn read_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        other => other.map_err(|e| Error::storage("read", folder, e))?,
    };
    let paths = entries.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = paths.map_err(|e| Error::storage("read", folder, e))?;
    paths.sort();
    Ok(paths)
}

/// Creates a folder and those above it, so that they outlive a crash.
pub fn create_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_folder(parent)?;
        match fs::create_dir(folder) {
            // Another process may have created it meanwhile; a file of that name is in the way.
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists || !folder.is_dir() => {
                return Err(Error::storage("create", folder, e));
            }
            _ => sync_folder(parent)?,
        }
    }
    Ok(())
}

/// fsync of a folder: makes the renames and links in it durable.
pub fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| Error::storage("write", folder, e))
}
