//! Keeping the cache small: what no published or pinned table is made of goes, what was used least recently first.
//!
//! When a chunk file was used last is its time of access, which runs that find it set, whatever else does; a split's is
//! its folder's time of modification, a version's that of its list, set when another took its place, that of what was
//! published of a stage its folder's. Runs hold a shared lock while they use files, collection an exclusive one.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::cache::lock::{PAUSE, Waiting};
use crate::cache::publish::{self, VERSIONS, list_path};
use crate::cache::split::SPLITS;
use crate::cache::stage;
use crate::cache::store::{self, DAMAGED, read_folder};
use crate::error::{Error, Result};
use crate::event::EventSink;

/// Name of the file that runs and collection lock, inside the cache folder.
pub const IN_USE: &str = "in-use.lock";

/// What another version took the place of is kept so long at least: who reads it may have files yet to open.
const GRACE: Duration = Duration::from_secs(60 * 60);

/// What to remove from a cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectOptions {
    /// What was not used for so long goes. `None`: nothing goes for its age. In both cases versions go that others took
    /// the place of an hour ago, and none before, since they may be being read.
    pub older_than: Option<Duration>,
    /// What was used least recently goes until all files have at most so many bytes. `None`: no limit.
    pub limit_bytes: Option<u64>,
}

/// What [`crate::Engine::collect`] did.
#[non_exhaustive]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Number of chunk files, splits, versions of tables and stages, and damaged files that were removed.
    pub removed: u64,
    /// Bytes that were freed.
    pub removed_bytes: u64,
    /// Bytes of the files that are left: those of published and pinned tables, and what was used lately.
    pub left_bytes: u64,
}

/// Says that files of the cache are in use, until it is dropped.
#[derive(Debug)]
pub struct InUse(#[expect(dead_code, reason = "its lock goes with it")] File);

impl InUse {
    /// Waits for a collection that is under way, and says so if it takes long.
    pub fn new(cache: &Path, events: &EventSink) -> Result<Self> {
        let (path, file) = open(cache)?;
        let mut waiting = Waiting::begin(events);
        loop {
            match file.try_lock_shared() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => return Ok(Self(file)),
                Err(TryLockError::Error(e)) => return Err(Error::storage("lock", &path, e)),
                Err(TryLockError::WouldBlock) => {
                    waiting.goes_on(|| "the cache to itself, to remove what nobody needs".into(), &path);
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
}

fn open(cache: &Path) -> Result<(PathBuf, File)> {
    let path = cache.join(IN_USE);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    Ok((path.clone(), file.map_err(|e| Error::storage("create", &path, e))?))
}

/// Something that can be removed.
#[derive(Debug)]
struct Item {
    path: PathBuf,
    used: SystemTime,
    bytes: u64,
}

/// Removes what `options` say, and then calls `removed`, before a run may use the cache again; `None` when one uses it now,
/// and nothing was done.
pub fn collect(
    cache: &Path,
    options: &CollectOptions,
    removed: impl FnOnce() -> Result<()>,
) -> Result<Option<Collected>> {
    let (path, lock) = open(cache)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {}
        Err(TryLockError::Error(e)) => return Err(Error::storage("lock", &path, e)),
    }
    let mut done = Collected::default();
    let now = SystemTime::now();
    let is_older = |used: SystemTime, than: Duration| now.duration_since(used).is_ok_and(|age| age >= than);
    let kept = kept_versions(cache)?;
    for version in versions(cache)?.into_iter().filter(|version| !kept.contains(version)) {
        let left = fs::metadata(list_path(&version)).and_then(|list| list.modified());
        if left.map_or(true, |left| is_older(left, GRACE)) {
            remove(&version)?;
            done.removed += 1;
        }
    }
    for (folder, left) in stage::left(cache)? {
        if is_older(left, GRACE) {
            remove(&folder)?;
            done.removed += 1;
        }
    }
    // By name as well, since links may be copies.
    let (mut in_use, mut names): (HashSet<(u64, u64)>, HashSet<OsString>) = Default::default();
    for file in versions(cache)?.iter().map(|version| files_in(version)).collect::<Result<Vec<_>>>()?.concat() {
        let metadata = fs::metadata(&file).map_err(|e| Error::storage("read", &file, e))?;
        if in_use.insert(inode(&metadata)) {
            done.left_bytes += metadata.len();
        }
        names.extend(file.file_name().map(OsString::from));
    }
    for version in versions(cache)? {
        let steps = fs::read_to_string(publish::steps_path(&version)).unwrap_or_default();
        names.extend(steps.lines().map(OsString::from));
    }
    let mut items = Vec::new();
    for path in store::files(cache)?.into_iter().chain(read_folder(&cache.join(DAMAGED))?) {
        let metadata = fs::metadata(&path).map_err(|e| Error::storage("read", &path, e))?;
        let name = store::named(&path).map(store::file_name);
        if !in_use.contains(&inode(&metadata)) && !name.is_some_and(|name| names.contains(OsStr::new(&name))) {
            let used = metadata.accessed().map_err(|e| Error::storage("read", &path, e))?;
            items.push(Item { path, used, bytes: metadata.len() });
        }
    }
    for cut in read_folder(&cache.join(SPLITS))? {
        for path in read_folder(&cut)? {
            let used = fs::metadata(&path).and_then(|folder| folder.modified());
            let used = used.map_err(|e| Error::storage("read", &path, e))?;
            let bytes = files_in(&path)?.iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum();
            items.push(Item { path, used, bytes });
        }
    }
    items.sort_by_key(|item| item.used);
    done.left_bytes += items.iter().map(|item| item.bytes).sum::<u64>();
    for Item { path, used, bytes } in items {
        let is_old = options.older_than.is_some_and(|than| is_older(used, than));
        if is_old || options.limit_bytes.is_some_and(|limit| done.left_bytes > limit) {
            remove(&path)?;
            done.removed += 1;
            done.removed_bytes += bytes;
            done.left_bytes -= bytes;
        }
    }
    remove_lists(cache)?;
    removed()?;
    Ok(Some(done))
}

/// Folders of all versions of all tables.
fn versions(cache: &Path) -> Result<Vec<PathBuf>> {
    let tables = read_folder(&cache.join(VERSIONS))?;
    let found = tables.iter().map(|table| read_folder(table)).collect::<Result<Vec<_>>>()?.concat();
    Ok(found.into_iter().filter(|path| path.is_dir()).collect())
}

/// Folders of the versions that are published or pinned.
fn kept_versions(cache: &Path) -> Result<HashSet<PathBuf>> {
    let published = publish::snapshot(cache)?.into_iter();
    let mut kept: HashSet<PathBuf> =
        published.map(|(table, version)| cache.join(VERSIONS).join(table).join(version)).collect();
    kept.extend(versions(cache)?.into_iter().filter(|version| publish::pin_path(version).exists()));
    Ok(kept)
}

/// Removes the lists of versions that are gone: those of what was written only when all its chunk files are gone, too.
fn remove_lists(cache: &Path) -> Result<()> {
    let names = store::files(cache)?.into_iter().filter_map(|path| store::named(&path)).map(store::file_name);
    let names: HashSet<String> = names.collect();
    for table in read_folder(&cache.join(VERSIONS))? {
        for list in read_folder(&table)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "b3")) {
            let text = fs::read_to_string(&list).unwrap_or_default();
            let is_there = |line: &str| line.rsplit_once('/').is_some_and(|(_, name)| names.contains(name));
            let version = list.with_extension("");
            if !version.is_dir() {
                remove(&publish::steps_path(&version))?;
                if !text.lines().any(is_there) {
                    remove(&list)?;
                }
            }
        }
    }
    Ok(())
}

fn inode(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in read_folder(folder)? {
        match path.is_dir() {
            true => found.extend(files_in(&path)?),
            false => found.push(path),
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::storage("remove", path, e)),
        _ => Ok(()),
    }
}

/// Pins the published version of `table`, so that it is kept when another is published.
///
/// # Errors
/// [`ErrorKind::Usage`] when the table is not published.
pub fn pin(cache: &Path, table: &str) -> Result<()> {
    let Some(version) = publish::current(cache, table)? else {
        return Err(publish::not_published(cache, table)?);
    };
    let path = publish::pin_path(&cache.join(VERSIONS).join(table).join(version));
    File::create(&path).and_then(|pin| pin.sync_all()).map_err(|e| Error::storage("create", &path, e))
}

/// Removes the pins of all versions of `table`; returns how many there were.
pub fn unpin(cache: &Path, table: &str) -> Result<u64> {
    let mut removed = 0;
    for path in read_folder(&cache.join(VERSIONS).join(table))? {
        if path.extension().is_some_and(|extension| extension == "pin") {
            remove(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}
