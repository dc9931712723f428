//! The index: what the footers of the chunk files say, in SQLite (WAL mode), with moka in front.
//!
//! It is a cache of the footers: losing it costs a pass over them, never a chunk. Rows are added only after their
//! file is on disk under its final name.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use moka::sync::Cache as MemoryCache;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, ffi, params};

use crate::cache::store::ChunkEntry;
use crate::error::{Error, ErrorKind, Result};
use crate::execute::checksum::Checksum;
use crate::execute::content::Content;
use crate::plan::components::Components;
use crate::plan::fingerprint::Fingerprint;

/// Name of the index, inside the cache folder.
pub const FILE: &str = "index.sqlite";

/// Most bytes of rows kept in memory.
const MEMORY_BYTES: u64 = 16 << 20;

/// How long to wait for another process's transaction.
const BUSY: Duration = Duration::from_secs(30);

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// Version of the tables below, kept as SQLite's `user_version`.
const SCHEMA_VERSION: i32 = 3;

const SCHEMA: &str = "
    DROP TABLE IF EXISTS chunk; DROP TABLE IF EXISTS recipe; DROP TABLE IF EXISTS published;
    DROP TABLE IF EXISTS slices; DROP TABLE IF EXISTS bytes;
    CREATE TABLE chunk (
        fingerprint BLOB PRIMARY KEY, recipe BLOB NOT NULL, table_name TEXT NOT NULL, chunk INTEGER NOT NULL,
        chunks INTEGER NOT NULL, keys TEXT NOT NULL, rows INTEGER NOT NULL, bytes INTEGER NOT NULL,
        written_unix_ns INTEGER NOT NULL, checksum BLOB NOT NULL, content BLOB NOT NULL, row_checksum BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE recipe (fingerprint BLOB PRIMARY KEY, components TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE published (table_name TEXT PRIMARY KEY, version TEXT NOT NULL, recipe BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE slices (
        number INTEGER PRIMARY KEY, cut BLOB NOT NULL, input BLOB NOT NULL, files BLOB NOT NULL, contents BLOB NOT NULL,
        row_checksum BLOB NOT NULL, UNIQUE (cut, input)
    );
    CREATE TABLE bytes (
        number INTEGER PRIMARY KEY, file BLOB NOT NULL UNIQUE, hashes BLOB NOT NULL, row_checksum BLOB NOT NULL
    );
";

const FIND: &str = "
    SELECT table_name, chunk, chunks, keys, rows, bytes, written_unix_ns, checksum, content, row_checksum
    FROM chunk WHERE fingerprint = ?1";
const PUBLISHED: &str = "
    SELECT components FROM published JOIN recipe ON recipe = recipe.fingerprint WHERE table_name = ?1 AND version = ?2";
const SLICES: &str = "SELECT input, files, contents, row_checksum FROM slices WHERE cut = ?1 ORDER BY number DESC";
const FORGET_SLICES: &str = "DELETE FROM slices WHERE cut = ?1";
const BYTES: &str = "SELECT hashes, row_checksum FROM bytes WHERE file = ?1";

/// When rows are removed, so many of what is known of sources' files and slices are kept.
const MOST_NOTES: i64 = 16_384;

/// Of each cut so many inputs' slices are kept.
const MOST_SLICES: usize = 32;

/// Whether an index was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It was there.
    Existing,
    /// It was made just now and is empty.
    New,
}

/// What the slices of an input say, cut into chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slices {
    /// The input's identity.
    pub input: Fingerprint,
    /// The identity of each of its files, when it is a source.
    pub files: Vec<Fingerprint>,
    /// The content of each chunk's slice.
    pub contents: Vec<Content>,
}

/// An open index. Calls block for a few microseconds to milliseconds.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    connection: Mutex<Connection>,
    rows: MemoryCache<Fingerprint, Arc<ChunkEntry>>,
}

impl Index {
    /// Opens or creates the index at `path`.
    pub fn open(path: &Path) -> Result<(Self, Opened)> {
        let failed = |e| index_error(path, e);
        let mut connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        patient(|| connection.pragma_update(None, "journal_mode", "WAL")).map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        let opened = {
            // Immediate, so that of two processes that find no index only one creates it.
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
            let version: i32 =
                transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
            let opened = match version {
                SCHEMA_VERSION => {
                    check_sound(&transaction).map_err(failed)?;
                    Opened::Existing
                }
                // An older one is made again, too.
                0..SCHEMA_VERSION => {
                    transaction.execute_batch(SCHEMA).map_err(failed)?;
                    transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(failed)?;
                    Opened::New
                }
                other => {
                    let message = format!(
                        "{} has format {other}, this version reads {SCHEMA_VERSION}; use another --cache folder",
                        path.display()
                    );
                    return Err(Error::new(ErrorKind::Storage, message));
                }
            };
            transaction.commit().map_err(failed)?;
            opened
        };
        let rows = MemoryCache::builder()
            .weigher(|_: &Fingerprint, entry: &Arc<ChunkEntry>| weight(entry))
            .max_capacity(MEMORY_BYTES)
            .build();
        Ok((Self { path: path.to_path_buf(), connection: Mutex::new(connection), rows }, opened))
    }

    /// Whether `error` says that the file is not a sound SQLite database.
    pub fn is_damaged(error: &Error) -> bool {
        let cause = std::error::Error::source(error).and_then(|e| e.downcast_ref::<rusqlite::Error>());
        matches!(
            cause.and_then(rusqlite::Error::sqlite_error_code),
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
        )
    }

    /// Moves a damaged index out of the way; returns where to.
    pub fn set_aside(path: &Path) -> Result<PathBuf> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let aside = path.with_extension(format!("damaged-{now}"));
        fs::rename(path, &aside).map_err(|e| Error::storage("move aside", path, e))?;
        for suffix in ["-wal", "-shm"] {
            let mut side = path.as_os_str().to_owned();
            side.push(suffix);
            // These belong to the damaged file; a new index must not read them.
            let _ = fs::remove_file(PathBuf::from(side));
        }
        Ok(aside)
    }

    /// The entries of `fingerprints`, in the same order.
    pub fn find(&self, fingerprints: &[Fingerprint]) -> Result<Vec<Option<Arc<ChunkEntry>>>> {
        let connection = self.connection();
        let mut statement = connection.prepare(FIND).map_err(|e| self.error(e))?;
        let mut found = Vec::with_capacity(fingerprints.len());
        for fingerprint in fingerprints {
            if let Some(entry) = self.rows.get(fingerprint) {
                found.push(Some(entry));
                continue;
            }
            let row = statement.query_row([fingerprint.as_bytes().as_slice()], |row| {
                let keys: String = row.get(3)?;
                let entry = ChunkEntry {
                    fingerprint: *fingerprint,
                    table: row.get(0)?,
                    chunk: row.get(1)?,
                    chunks: row.get(2)?,
                    keys: serde_json::from_str(&keys).unwrap_or_default(),
                    rows: row.get::<_, i64>(4)?.cast_unsigned(),
                    bytes: row.get::<_, i64>(5)?.cast_unsigned(),
                    written_unix_ns: row.get::<_, i64>(6)?.cast_unsigned(),
                    checksum: Checksum::from_bytes(row.get(7)?),
                    content: Content::from_bytes(&row.get(8)?),
                };
                let is_as_written = row.get::<_, [u8; 32]>(9)? == *row_checksum(&entry).as_bytes();
                Ok(is_as_written.then(|| Arc::new(entry)))
            });
            // A row that can't be read, or is not what was written, is a miss: its file is looked at then.
            let entry = match row.optional() {
                Err(e) if e.sqlite_error_code().is_none() => None,
                other => other.map_err(|e| self.error(e))?.flatten(),
            };
            if let Some(entry) = &entry {
                self.rows.insert(*fingerprint, Arc::clone(entry));
            }
            found.push(entry);
        }
        Ok(found)
    }

    /// Reads a chunk's row again when it is asked for next.
    pub fn forget(&self, fingerprint: &Fingerprint) {
        self.rows.invalidate(fingerprint);
    }

    /// Adds chunks whose files are in place.
    pub fn insert(&self, entries: &[Arc<ChunkEntry>], components: &Components) -> Result<()> {
        self.write(|transaction| entries.iter().try_for_each(|entry| insert(transaction, entry, components)))?;
        entries.iter().for_each(|entry| self.rows.insert(entry.fingerprint, Arc::clone(entry)));
        Ok(())
    }

    /// The components of `table`'s version `version`, if that is the one noted as published.
    pub fn published(&self, table: &str, version: &str) -> Result<Option<Components>> {
        let json: Option<String> = self
            .connection()
            .query_row(PUBLISHED, [table, version], |row| row.get(0))
            .optional()
            .map_err(|e| self.error(e))?;
        Ok(json.and_then(|json| serde_json::from_str(&json).ok()).map(Components))
    }

    /// Notes what is published as `table`.
    pub fn set_published(&self, table: &str, version: &str, components: &Components) -> Result<()> {
        self.write(|transaction| set_published(transaction, table, version, components))
    }

    /// Adds chunks whose files are in place, and what is published; rows of files that are gone do no harm.
    pub fn add_all(
        &self,
        entries: &[(ChunkEntry, Components)],
        published: &[(String, String, Components)],
    ) -> Result<()> {
        self.write(|transaction| {
            for (entry, components) in entries {
                insert(transaction, entry, components)?;
            }
            for (table, version, components) in published {
                set_published(transaction, table, version, components)?;
            }
            Ok(())
        })?;
        self.rows.invalidate_all();
        Ok(())
    }

    /// What the slices of each input say that was cut this way, the latest first.
    pub fn slices(&self, cut: &Fingerprint) -> Result<Vec<Slices>> {
        let connection = self.connection();
        let mut statement = connection.prepare(SLICES).map_err(|e| self.error(e))?;
        let rows = statement.query_map([cut.as_bytes().as_slice()], |row| {
            let (input, files): ([u8; 32], Vec<u8>) = (row.get(0)?, row.get(1)?);
            let (contents, checksum): (Vec<u8>, [u8; 32]) = (row.get(2)?, row.get(3)?);
            let is_as_written = *slices_checksum(cut, &input, &files, &contents).as_bytes() == checksum;
            let (files, rest) = files.as_chunks::<32>();
            let files = files.iter().copied().map(Fingerprint::from_bytes).collect();
            let contents = Content::list_from_bytes(&contents).filter(|_| is_as_written && rest.is_empty());
            Ok(contents.map(|contents| Slices { input: Fingerprint::from_bytes(input), files, contents }))
        });
        // What can't be read, or is not what was written, is found out again.
        let rows = rows.map_err(|e| self.error(e))?;
        Ok(rows.filter_map(|row| row.ok().flatten()).collect())
    }

    /// Notes what the slices of an input say, cut this way.
    /// `only`: what was noted of the cut before is removed.
    pub fn add_slices(&self, cut: &Fingerprint, slices: &Slices, only: bool) -> Result<()> {
        let Slices { input, files, contents } = slices;
        let files: Vec<u8> = files.iter().flat_map(|file| *file.as_bytes()).collect();
        let contents = Content::list_to_bytes(contents);
        let checksum = slices_checksum(cut, input.as_bytes(), &files, &contents);
        let (cut, input, checksum) =
            (cut.as_bytes().as_slice(), input.as_bytes().as_slice(), checksum.as_bytes().as_slice());
        self.write(|transaction| {
            if only {
                transaction.execute(FORGET_SLICES, [cut])?;
            }
            transaction
                .prepare("INSERT OR REPLACE INTO slices VALUES (NULL, ?1, ?2, ?3, ?4, ?5)")?
                .execute(params![cut, input, files, contents, checksum])?;
            let old = "DELETE FROM slices WHERE cut = ?1 AND number NOT IN \
                       (SELECT number FROM slices WHERE cut = ?1 ORDER BY number DESC LIMIT ?2)";
            transaction.prepare(old)?.execute(params![cut, MOST_SLICES as i64])?;
            Ok(())
        })
    }

    /// Removes what was noted of a cut.
    pub fn forget_slices(&self, cut: &Fingerprint) -> Result<()> {
        self.write(|transaction| transaction.execute(FORGET_SLICES, [cut.as_bytes().as_slice()]).map(drop))
    }

    /// The hashes of a file's bytes, if they are noted.
    pub fn bytes(&self, file: &Fingerprint) -> Result<Option<Vec<u128>>> {
        let connection = self.connection();
        let row = connection.query_row(BYTES, [file.as_bytes().as_slice()], |row| {
            let (hashes, checksum): (Vec<u8>, [u8; 32]) = (row.get(0)?, row.get(1)?);
            let is_as_written = *bytes_checksum(file, &hashes).as_bytes() == checksum;
            let (hashes, rest) = hashes.as_chunks::<16>();
            let hashes: Vec<u128> = hashes.iter().map(|hash| u128::from_le_bytes(*hash)).collect();
            Ok((is_as_written && rest.is_empty()).then_some(hashes))
        });
        match row.optional() {
            Err(e) if e.sqlite_error_code().is_none() => Ok(None),
            other => Ok(other.map_err(|e| self.error(e))?.flatten()),
        }
    }

    /// Notes the hashes of a file's bytes.
    pub fn add_bytes(&self, file: &Fingerprint, hashes: &[u128]) -> Result<()> {
        let hashes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        let checksum = bytes_checksum(file, &hashes);
        self.write(|transaction| {
            transaction.prepare("INSERT OR REPLACE INTO bytes VALUES (NULL, ?1, ?2, ?3)")?.execute(params![
                file.as_bytes().as_slice(),
                hashes,
                checksum.as_bytes().as_slice()
            ])?;
            Ok(())
        })
    }

    /// Removes the rows of all chunks but these, and what nothing refers to any more.
    pub fn retain(&self, chunks: &HashSet<Fingerprint>) -> Result<()> {
        self.write(|transaction| {
            let mut statement = transaction.prepare("SELECT fingerprint FROM chunk")?;
            let found = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<[u8; 32]>>>()?;
            let mut delete = transaction.prepare("DELETE FROM chunk WHERE fingerprint = ?1")?;
            for gone in found.iter().filter(|found| !chunks.contains(&Fingerprint::from_bytes(**found))) {
                delete.execute([gone.as_slice()])?;
            }
            transaction.execute_batch(
                "DELETE FROM recipe WHERE fingerprint NOT IN (SELECT recipe FROM chunk)
                    AND fingerprint NOT IN (SELECT recipe FROM published)",
            )?;
            let old = "DELETE FROM bytes WHERE number NOT IN (SELECT number FROM bytes ORDER BY number DESC LIMIT ?1)";
            transaction.execute(old, [MOST_NOTES])?;
            let old =
                "DELETE FROM slices WHERE number NOT IN (SELECT number FROM slices ORDER BY number DESC LIMIT ?1)";
            transaction.execute(old, [MOST_NOTES])?;
            Ok(())
        })?;
        self.rows.invalidate_all();
        Ok(())
    }

    fn write(&self, change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>) -> Result<()> {
        let mut connection = self.connection();
        let written = (|| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            change(&transaction)?;
            transaction.commit()
        })();
        written.map_err(|e| self.error(e))
    }

    /// A panic while the lock is held leaves no transaction open: dropping one rolls it back.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, error: rusqlite::Error) -> Error {
        index_error(&self.path, error)
    }
}

/// Reads every page, so that damage shows while the index can still be made again, and not in the middle of a run.
fn check_sound(connection: &Connection) -> rusqlite::Result<()> {
    let damaged = |found| Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(found)));
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    // Names of tables and columns are no structure.
    let unknown =
        [FIND, PUBLISHED, SLICES, BYTES].into_iter().find_map(|statement| connection.prepare(statement).err());
    match (found.as_str(), unknown) {
        ("ok", None) => Ok(()),
        ("ok", Some(unknown)) => damaged(unknown.to_string()),
        _ => damaged(found),
    }
}

fn insert(transaction: &Transaction<'_>, entry: &ChunkEntry, components: &Components) -> rusqlite::Result<()> {
    let ChunkEntry { fingerprint, table, chunk, chunks, keys, rows, bytes, written_unix_ns, checksum, content } = entry;
    let recipe = insert_recipe(transaction, components)?;
    let keys = serde_json::Value::from(keys.clone()).to_string();
    let row = "INSERT OR REPLACE INTO chunk VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    transaction.prepare(row)?.execute(params![
        fingerprint.as_bytes().as_slice(),
        recipe.as_bytes().as_slice(),
        table,
        chunk,
        chunks,
        keys,
        rows.cast_signed(),
        bytes.cast_signed(),
        written_unix_ns.cast_signed(),
        checksum.as_bytes().as_slice(),
        content.to_bytes().as_slice(),
        row_checksum(entry).as_bytes().as_slice(),
    ])?;
    Ok(())
}

/// Tells a row that is not what was written: SQLite finds damaged pages only where their structure suffers.
fn row_checksum(entry: &ChunkEntry) -> Checksum {
    let ChunkEntry { fingerprint, table, chunk, chunks, keys, rows, bytes, written_unix_ns, checksum, content } = entry;
    let numbers = [u64::from(*chunk), u64::from(*chunks), *rows, *bytes, *written_unix_ns, keys.len() as u64];
    let mut hasher = blake3::Hasher::new();
    hasher.update(fingerprint.as_bytes()).update(checksum.as_bytes()).update(&content.to_bytes());
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    for text in keys.iter().chain([table]) {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    hasher.finalize()
}

fn slices_checksum(cut: &Fingerprint, input: &[u8; 32], files: &[u8], contents: &[u8]) -> Checksum {
    let mut hasher = blake3::Hasher::new();
    hasher.update(cut.as_bytes()).update(input);
    hasher.update(&(files.len() as u64).to_le_bytes()).update(files).update(contents);
    hasher.finalize()
}

fn bytes_checksum(file: &Fingerprint, hashes: &[u8]) -> Checksum {
    let mut hasher = blake3::Hasher::new();
    hasher.update(file.as_bytes()).update(hashes);
    hasher.finalize()
}

fn insert_recipe(transaction: &Transaction<'_>, components: &Components) -> rusqlite::Result<Fingerprint> {
    let recipe = Fingerprint::of(components.0.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
    let map: serde_json::Map<_, _> =
        components.0.iter().map(|(k, v)| (k.clone(), serde_json::Value::from(v.as_str()))).collect();
    transaction
        .prepare("INSERT OR IGNORE INTO recipe VALUES (?1, ?2)")?
        .execute(params![recipe.as_bytes().as_slice(), serde_json::Value::Object(map).to_string()])?;
    Ok(recipe)
}

fn set_published(
    transaction: &Transaction<'_>,
    table: &str,
    version: &str,
    components: &Components,
) -> rusqlite::Result<()> {
    let recipe = insert_recipe(transaction, components)?;
    transaction.prepare("INSERT OR REPLACE INTO published VALUES (?1, ?2, ?3)")?.execute(params![
        table,
        version,
        recipe.as_bytes().as_slice()
    ])?;
    Ok(())
}

/// Heap and inline bytes of a cached row, about.
fn weight(entry: &ChunkEntry) -> u32 {
    let text = entry.table.len() + entry.keys.iter().map(|k| k.len() + size_of::<String>()).sum::<usize>();
    u32::try_from(size_of::<ChunkEntry>() + size_of::<Fingerprint>() + text).unwrap_or(u32::MAX)
}

/// Calls again while another process holds the file: SQLite does not wait by itself where waiting could last for ever.
fn patient<T>(mut call: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let start = Instant::now();
    loop {
        match call() {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && start.elapsed() < BUSY => {
                std::thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

fn index_error(path: &Path, error: rusqlite::Error) -> Error {
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "; the cache folder must be writable, or use another one"
        }
        Some(ErrorCode::DiskFull) => "; free some space or use another folder",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "; another process holds it, try again later",
        _ => "",
    };
    let message = format!("the cache's index {} can't be used{advice}", path.display());
    Error::new(ErrorKind::Storage, message).with_source(error)
}
