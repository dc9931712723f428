//! The table cache: immutable chunk files, an index of them, and the published tables.
//!
//! ```text
//! <cache>/chunks/3f/3f….parquet                          one file per chunk, named by its fingerprint, write-once
//! <cache>/index.sqlite                                   what the footers of these files say, for quick look-up
//! <cache>/versions/<table>/<version>/chunk=0007/….parquet  hard links to chunk files
//! <cache>/tables/<table>                                 symbolic link to one version: the published table
//! <cache>/stages/<stage>/current/<table>                 what `tables/<table>` points to for a table of a stage; see [`stage`]
//! <cache>/splits/<cut>/<input>/0.arrow                 inputs that were cut into chunks; see [`split`]
//! <cache>/locks/                                       one file for each chunk and split that is being made
//! <cache>/tmp/<process>/                                 files being written; gone with their process
//! <cache>/damaged/                                       chunk files that were found damaged
//! <cache>/in-use.lock                                    locked by runs, and by who removes files; see [`collect`]
//! <cache>/switch.lock                                    locked while links of published tables are replaced
//! ```
//!
//! A file has its final name only when it is whole and on disk, and its index row only after that. So a crash at any
//! point leaves whole files; at worst some that the index doesn't know, which [`Cache::rebuild`] finds again.

pub mod collect;
pub mod index;
pub mod lock;
pub mod publish;
pub mod split;
pub mod stage;
pub mod store;
pub mod temp;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::cache::collect::{CollectOptions, Collected};
use crate::cache::index::{Index, Opened, Slices};
use crate::cache::lock::Lock;
use crate::cache::publish::{Guard, PublishedFile, PublishedTable, Version};
use crate::cache::store::{ChunkEntry, PendingChunk};
use crate::cache::temp::{PendingFolder, TempFolder};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventSink;
use crate::execute::checksum::{Checksum, Verified, checksum_of};
use crate::failpoint::failpoint;
use crate::plan::components::Components;
use crate::plan::fingerprint::Fingerprint;

/// A cache folder opened for writing by this process; others may have it open too.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    index: Index,
    temp: TempFolder,
    verified: Arc<Verified>,
}

/// Whether a folder is one of a cache, of whichever engine.
pub fn is_cache(folder: &Path) -> bool {
    let parts = [store::CHUNKS, publish::VERSIONS, publish::TABLES];
    parts.iter().all(|part| folder.join(part).is_dir()) && folder.join(collect::IN_USE).is_file()
}

impl Cache {
    /// Opens `folder`, creating it if need be, and removes what dead processes left unfinished.
    ///
    /// An index that is missing or damaged is made again from the files' footers. The strings are warnings for the
    /// user: what was damaged and what was done about it.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Storage`] when the folder can't be created, read or written.
    pub fn open(folder: &Path, verified: Arc<Verified>) -> Result<(Self, Vec<String>)> {
        let folder = std::path::absolute(folder).map_err(|e| Error::storage("use", folder, e))?;
        for part in [store::CHUNKS, publish::VERSIONS, publish::TABLES] {
            store::create_folder(&folder.join(part))?;
        }
        let temp = TempFolder::create(&folder.join(temp::TEMP))?;
        lock::remove_dead(&folder)?;
        split::remove_unused(&folder)?;
        let mut warnings = Vec::new();
        let path = folder.join(index::FILE);
        let (index, opened) = match Index::open(&path) {
            Ok(found) => found,
            Err(damaged) if Index::is_damaged(&damaged) => {
                let aside = Index::set_aside(&path)?;
                warnings.push(format!("{damaged}; it was moved to {} and made again", aside.display()));
                Index::open(&path)?
            }
            Err(other) => return Err(other),
        };
        let cache = Self { folder, index, temp, verified };
        if opened == Opened::New {
            warnings.extend(cache.rebuild()?);
        }
        Ok((cache, warnings))
    }

    /// The cache folder, absolute.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// This process's own folder for unfinished files; removed when the cache is dropped.
    pub fn temp_folder(&self) -> &Path {
        self.temp.path()
    }

    /// Removes this process's unfinished files; nothing can be written with this cache any more.
    pub fn close(&self) {
        self.temp.remove();
    }

    /// The entries of those fingerprints whose files are there, in the same order. They are used now.
    pub fn find(&self, fingerprints: &[Fingerprint]) -> Result<Vec<Option<Arc<ChunkEntry>>>> {
        self.look_up(fingerprints, true)
    }

    fn look_up(&self, fingerprints: &[Fingerprint], are_used: bool) -> Result<Vec<Option<Arc<ChunkEntry>>>> {
        let mut found = self.index.find(fingerprints)?;
        let mut listed = None;
        for (entry, fingerprint) in found.iter_mut().zip(fingerprints) {
            if entry.is_none()
                && let Some((there, components)) = store::find(&self.folder, fingerprint)
            {
                let listed = match &mut listed {
                    Some(listed) => listed,
                    None => listed.insert(publish::listed_checksums(&self.folder)?),
                };
                if !store::is_as_listed(&self.folder, &there, listed) {
                    store::set_aside(&self.folder, &there.path(&self.folder))?;
                    continue;
                }
                let there = Arc::new(there);
                self.index.insert(std::slice::from_ref(&there), &components)?;
                *entry = Some(there);
            }
        }
        let is_whole = |entry: &Arc<ChunkEntry>| store::is_whole(&self.folder, entry, are_used);
        Ok(found.into_iter().map(|entry| entry.filter(is_whole)).collect())
    }

    /// Checks chunk files that are about to be read: their bytes must be those that were written. Damaged files are set
    /// aside, so that the next run computes their chunks again.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Storage`] when a file was damaged.
    pub fn check(&self, entries: &[Arc<ChunkEntry>]) -> Result<()> {
        let mut damaged = Ok(());
        for entry in entries {
            let path = entry.path(&self.folder);
            if self.is_as_written(entry, |checksum| self.verified.has(&path, checksum))? {
                continue;
            }
            let aside = store::set_aside(&self.folder, &path)?;
            let (table, chunk, aside) = (&entry.table, entry.chunk, aside.display());
            let message =
                format!("chunk {chunk} of `{table}` was damaged and is in {aside} now; run again to compute it");
            damaged = damaged.and(Err(Error::new(ErrorKind::Storage, message)));
        }
        damaged
    }

    /// Whether a chunk's file is what was written, by whoever wrote it last: another process may have replaced it since its
    /// row was read.
    fn is_as_written(&self, entry: &ChunkEntry, has: impl Fn(&Checksum) -> io::Result<bool>) -> Result<bool> {
        if has(&entry.checksum).is_ok_and(|is_it| is_it) {
            return Ok(true);
        }
        self.index.forget(&entry.fingerprint);
        let now = self.index.find(&[entry.fingerprint])?.into_iter().flatten().next();
        let now = now.filter(|now| now.checksum != entry.checksum);
        Ok(now.is_some_and(|now| has(&now.checksum).is_ok_and(|is_it| is_it)))
    }

    /// The lock of a chunk that is to be made, if no other process, or task, holds it.
    pub fn lock(&self, fingerprint: &Fingerprint) -> Result<Option<Lock>> {
        Lock::try_take(&self.folder, &fingerprint.to_string())
    }

    /// A new folder among this process's unfinished files.
    pub fn new_folder(&self) -> Result<PendingFolder> {
        PendingFolder::create(&self.temp)
    }

    /// A path among this process's unfinished files that was not given before.
    pub fn new_temp_path(&self, extension: &str) -> PathBuf {
        self.temp.new_path(extension)
    }

    /// A file for a chunk to be written to.
    pub fn begin(&self) -> Result<PendingChunk> {
        PendingChunk::create(&self.temp)
    }

    /// Makes written chunks of one step part of the cache: fsync, their final names, then their index rows.
    ///
    /// Returns the entries of the files that are in the cache then: those of another writer who came first, unless
    /// `replace`.
    pub fn commit(
        &self,
        written: Vec<(PendingChunk, ChunkEntry)>,
        components: &Components,
        replace: bool,
    ) -> Result<Vec<Arc<ChunkEntry>>> {
        let committed = written.into_iter().map(|(pending, entry)| pending.commit(&self.folder, entry, replace));
        let entries = committed.map(|entry| entry.map(Arc::new)).collect::<Result<Vec<_>>>()?;
        self.index.insert(&entries, components)?;
        failpoint(&self.folder)?;
        Ok(entries)
    }

    /// What the slices of each input say that was cut this way, the latest first.
    pub fn slices(&self, cut: &Fingerprint) -> Result<Vec<Slices>> {
        self.index.slices(cut)
    }

    /// Notes what the slices of an input say, cut this way.
    /// `only`: what was noted of the cut before is forgotten.
    pub fn add_slices(&self, cut: &Fingerprint, slices: &Slices, only: bool) -> Result<()> {
        self.index.add_slices(cut, slices, only)
    }

    /// Forgets what the slices of inputs say that were cut this way.
    pub fn forget_slices(&self, cut: &Fingerprint) -> Result<()> {
        self.index.forget_slices(cut)
    }

    /// The hashes of a source file's bytes, by part, if they are noted.
    pub fn bytes(&self, file: &Fingerprint) -> Result<Option<Vec<u128>>> {
        self.index.bytes(file)
    }

    /// Notes the hashes of a source file's bytes.
    pub fn add_bytes(&self, file: &Fingerprint, hashes: &[u128]) -> Result<()> {
        self.index.add_bytes(file, hashes)
    }

    /// What `table`'s published version is made of, if it is published.
    pub fn published(&self, table: &str) -> Result<Option<Components>> {
        Ok(match publish::current(&self.folder, table)? {
            Some(version) => self.index.published(table, &version)?,
            None => None,
        })
    }

    /// The published version of `table` and its chunks, if all are in the cache.
    pub fn published_chunks(&self, table: &str) -> Result<Option<(Prepared, Vec<Arc<ChunkEntry>>)>> {
        let Some(PublishedTable { version, files }) = publish::open(&self.folder, table)? else { return Ok(None) };
        let footers = files.iter().map(|file| store::read_footer(&file.path, file.checksum));
        let fingerprints = footers.map(|footer| Ok(footer?.0.fingerprint)).collect::<Result<Vec<_>>>()?;
        let entries = self.find(&fingerprints)?.into_iter().collect::<Option<Vec<_>>>();
        let prepared = Prepared { table: table.to_string(), version: Version::named(version), components: None };
        Ok(entries.map(|entries| (prepared, entries)))
    }

    /// Whether readers of `table` see these chunks, as they were written.
    pub fn is_published(&self, table: &str, entries: &[Arc<ChunkEntry>]) -> Result<bool> {
        Ok(publish::current(&self.folder, table)?.is_some_and(|current| current == Version::of(entries).as_str()))
    }

    /// Makes the version of `table` that `entries` are, one per chunk in order, ready to be published.
    ///
    /// `before` are the chunks of earlier steps that it came of: they are kept as long as the version.
    pub fn prepare(
        &self,
        table: &str,
        entries: &[Arc<ChunkEntry>],
        before: &[Fingerprint],
        components: &Components,
    ) -> Result<Prepared> {
        let version = Version::of(entries);
        publish::make(&self.folder, &self.temp, table, &version, entries, before)?;
        Ok(Prepared { table: table.to_string(), version, components: Some(components.clone()) })
    }

    /// Publishes a version by itself: readers see the old table or the new one, whole.
    ///
    /// Returns whether anything changed.
    pub fn publish(&self, prepared: &Prepared, guard: &Guard<'_>) -> Result<bool> {
        let switched = publish::switch(&self.folder, &self.temp, &prepared.table, &prepared.version, guard)?;
        failpoint(&self.folder)?;
        self.note_published(prepared)?;
        failpoint(&self.folder)?;
        Ok(switched)
    }

    /// Takes `table` from readers.
    ///
    /// # Errors
    /// As [`stage::unpublish`].
    pub fn unpublish(&self, table: &str, events: &EventSink) -> Result<()> {
        stage::unpublish(&self.folder, &self.temp, table, events)
    }

    /// Publishes tables as those of a stage: readers see all of them as before, or all new, each whole.
    ///
    /// Returns the tables that changed.
    pub fn publish_stage(&self, stage: &str, prepared: &[Prepared], guard: &Guard<'_>) -> Result<Vec<String>> {
        let tables = prepared.iter().map(|table| (table.table.clone(), table.version.as_str().to_string())).collect();
        let switched = stage::publish(&self.folder, &self.temp, stage, &tables, guard)?;
        failpoint(&self.folder)?;
        prepared.iter().try_for_each(|table| self.note_published(table))?;
        failpoint(&self.folder)?;
        Ok(switched)
    }

    fn note_published(&self, Prepared { table, version, components }: &Prepared) -> Result<()> {
        match components {
            Some(components) if self.index.published(table, version.as_str())?.as_ref() != Some(components) => {
                self.index.set_published(table, version.as_str(), components)
            }
            _ => Ok(()),
        }
    }

    /// Removes what `options` say, with its rows in the index; `None` when a run uses the cache, and nothing was done.
    pub fn collect(&self, options: &CollectOptions) -> Result<Option<Collected>> {
        collect::collect(&self.folder, options, || {
            let files = store::files(&self.folder)?;
            self.index.retain(&files.iter().filter_map(|path| store::named(path)).collect())
        })
    }

    /// Makes the index again from the footers of the chunk files and the published links.
    ///
    /// Returns a warning for each file whose footer can't be read, or whose bytes are not those that its row, or the list
    /// of a published version, says were written. Such files are left where they are, and their rows as they are.
    pub fn rebuild(&self) -> Result<Vec<String>> {
        let store::Found { mut entries, mut warnings } = store::read_all(&self.folder)?;
        let listed = publish::listed_checksums(&self.folder)?;
        let fingerprints: Vec<Fingerprint> = entries.iter().map(|(entry, _)| entry.fingerprint).collect();
        for fingerprint in &fingerprints {
            self.index.forget(fingerprint);
        }
        let rows = self.index.find(&fingerprints)?;
        let mut rows = rows.into_iter();
        entries.retain(|(entry, _)| {
            let row = rows.next().flatten();
            let is_as_written = match &row {
                Some(row) => row.checksum == entry.checksum,
                None => store::is_as_listed(&self.folder, entry, &listed),
            };
            if !is_as_written {
                let path = entry.path(&self.folder);
                warnings.push(format!("{} is not what was written; verify the cache", path.display()));
            }
            is_as_written
        });
        let mut published = Vec::new();
        for (table, version) in publish::snapshot(&self.folder)? {
            let PublishedTable { version, files } = publish::open_version(&self.folder, &table, version)?;
            // The latest chunk knows best what the version is made of.
            if let Some((_, components)) = files
                .iter()
                .filter_map(|file| store::read_footer(&file.path, file.checksum).ok())
                .max_by_key(|(entry, _)| entry.written_unix_ns)
            {
                published.push((table, version, components));
            }
        }
        self.index.add_all(&entries, &published)?;
        Ok(warnings)
    }

    /// Reads all chunk files, splits and the files of the published tables, and compares them with their checksums.
    /// Damaged files are set aside, so that the next run computes their chunks again, or links the tables' files again;
    /// damaged splits are removed.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Storage`] when a folder can't be read or a damaged file not be set aside or removed.
    pub fn verify(&self) -> Result<Verification> {
        let mut done = Verification::default();
        let files = store::files(&self.folder)?;
        let named: Vec<_> = files.iter().filter_map(|path| Some((path, store::named(path)?))).collect();
        let fingerprints: Vec<Fingerprint> = named.iter().map(|(_, fingerprint)| *fingerprint).collect();
        for ((path, _), entry) in named.into_iter().zip(self.look_up(&fingerprints, false)?) {
            let _as_before = LastUse::of(path);
            let has = |checksum: &Checksum| Ok(checksum_of(path)? == *checksum);
            let is_as_written = entry.map_or(Ok(false), |entry| self.is_as_written(&entry, has))?;
            done.add(path, is_as_written);
            if done.damaged.last() == Some(path) {
                store::set_aside(&self.folder, path)?;
            }
        }
        for (path, bytes, is_as_written) in split::verify(&self.folder)? {
            done.files += 1;
            done.bytes += bytes;
            done.damaged.extend((!is_as_written).then_some(path));
        }
        let tables = store::read_folder(&self.folder.join(publish::TABLES))?;
        done.damaged.extend(tables.into_iter().filter(|table| !table.is_symlink()));
        done.damaged.extend(stage::damaged(&self.folder)?);
        for (table, version) in publish::snapshot(&self.folder)? {
            let Ok(published) = publish::open_version(&self.folder, &table, version) else {
                done.add(&self.folder.join(publish::TABLES).join(&table), false);
                continue;
            };
            for PublishedFile { path, checksum, .. } in published.files {
                done.add(&path, checksum_of(&path).is_ok_and(|found| found == checksum));
                if done.damaged.last() == Some(&path) {
                    store::set_aside(&self.folder, &path)?;
                }
            }
        }
        Ok(done)
    }
}

/// A version of a table that is ready to be published.
#[derive(Debug, Clone)]
pub struct Prepared {
    table: String,
    version: Version,
    /// What it is made of; `None` for the version that was published before.
    components: Option<Components>,
}

/// Gives a file the time of its last use back that it had before it was verified.
struct LastUse<'a>(&'a Path, Option<SystemTime>);

impl<'a> LastUse<'a> {
    fn of(path: &'a Path) -> Self {
        Self(path, std::fs::metadata(path).and_then(|metadata| metadata.accessed()).ok())
    }
}

impl Drop for LastUse<'_> {
    fn drop(&mut self) {
        if let Some(used) = self.1 {
            store::set_used(self.0, used);
        }
    }
}

/// What [`crate::Engine::verify_cache`] found.
#[non_exhaustive]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Number of files that were read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Where the damaged ones were.
    pub damaged: Vec<PathBuf>,
}

impl Verification {
    fn add(&mut self, path: &Path, is_as_written: bool) {
        self.files += 1;
        self.bytes += std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        if !is_as_written {
            self.damaged.push(path.to_path_buf());
        }
    }
}
