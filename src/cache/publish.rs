//! Published tables: a folder of hard links per version, and one symbolic link that says which version is current: that
//! of the table itself, or that of its stage, see [`stage`](crate::cache::stage).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::cache::lock::Switching;
use crate::cache::store::{ChunkEntry, create_folder, file_name, read_folder, read_footer, set_aside, sync_folder};
use crate::cache::temp::TempFolder;
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventSink;
use crate::execute::checksum::Checksum;
use crate::failpoint::failpoint;
use crate::plan::fingerprint::Fingerprint;

/// Name of the folder of versions, inside the cache folder.
pub const VERSIONS: &str = "versions";
/// Name of the folder of published tables, inside the cache folder.
pub const TABLES: &str = "tables";
/// Name of the folder of stages, inside the cache folder.
pub const STAGES: &str = "stages";
/// Name of the link to what of a stage is published, inside the stage's folder.
pub const CURRENT: &str = "current";

/// Names one version of a table: its chunks and when each was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(String);

impl Version {
    /// The version that these chunks make.
    pub fn of(entries: &[Arc<ChunkEntry>]) -> Self {
        let written: Vec<_> = entries.iter().map(|e| e.written_unix_ns.to_le_bytes()).collect();
        let parts = entries.iter().zip(&written).flat_map(|(entry, written)| {
            [("chunk", entry.fingerprint.as_bytes().as_slice()), ("written", written.as_slice())]
        });
        let mut name = Fingerprint::of(parts).to_string();
        name.truncate(32);
        Self(name)
    }

    /// The version of this name.
    pub fn named(name: String) -> Self {
        Self(name)
    }

    /// 32 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A published table as one reader sees it: the files of one version.
#[derive(Debug, Clone)]
pub struct PublishedTable {
    /// Name of the version.
    pub version: String,
    /// Its files, in order of chunks.
    pub files: Vec<PublishedFile>,
}

/// A file of a published table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedFile {
    /// Number of the chunk.
    pub chunk: u32,
    /// Its path.
    pub path: PathBuf,
    /// Its checksum when it was written.
    pub checksum: Checksum,
}

/// Makes the folder of a version of `table`: links to the files of `entries`, and the lists beside it. Nobody sees it yet.
pub fn make(
    cache: &Path,
    temp: &TempFolder,
    table: &str,
    version: &Version,
    entries: &[Arc<ChunkEntry>],
    before: &[Fingerprint],
) -> Result<()> {
    let versions = cache.join(VERSIONS).join(table);
    let folder = versions.join(version.as_str());
    let steps: String = before.iter().map(|chunk| file_name(*chunk) + "\n").collect();
    for (path, text) in [(list_path(&folder), checksums(entries)), (steps_path(&folder), steps)] {
        if text != fs::read_to_string(&path).unwrap_or_default() {
            create_folder(&versions)?;
            let list = temp.new_path("list");
            fs::write(&list, text)
                .and_then(|()| fs::File::open(&list)?.sync_all())
                .and_then(|()| fs::rename(&list, &path))
                .map_err(|e| Error::storage("write", &path, e))?;
            failpoint(&path)?;
            sync_folder(&versions)?;
        }
    }
    let is_whole = || entries.iter().all(|e| fs::metadata(link_path(&folder, e)).is_ok_and(|m| m.len() == e.bytes));
    if is_whole() {
        return Ok(());
    }
    create_folder(&versions)?;
    let building = temp.new_path("version");
    for entry in entries {
        let link = link_path(&building, entry);
        if let Some(parent) = link.parent() {
            fs::create_dir_all(parent).map_err(|e| Error::storage("create", parent, e))?;
            link_or_copy(&entry.path(cache), &link)?;
            let (there, _) = read_footer(&link, entry.checksum).map_err(|e| {
                // The next run computes it.
                let _ = set_aside(cache, &entry.path(cache));
                let message = format!("chunk {} of `{table}` was damaged and was set aside; run again", entry.chunk);
                Error::new(ErrorKind::Storage, message).with_source(e)
            })?;
            if there.written_unix_ns != entry.written_unix_ns {
                let (chunk, path) = (entry.chunk, link.display());
                let message =
                    format!("chunk {chunk} was made again by another run before {path} was published; run again");
                return Err(Error::new(ErrorKind::Storage, message));
            }
            failpoint(&building)?;
            sync_folder(parent)?;
        }
    }
    failpoint(&folder)?;
    sync_folder(&building)?;
    // Nothing replaces a non-empty folder by rename.
    let is_taken = |e: &io::Error| {
        use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotADirectory};
        matches!(e.kind(), AlreadyExists | DirectoryNotEmpty | NotADirectory)
    };
    let name_it = || match fs::rename(&building, &folder) {
        Err(e) if is_taken(&e) => Ok(false),
        other => other.map(|()| true).map_err(|e| Error::storage("create", &folder, e)),
    };
    // Another process may just have made the same version, and have published it; only a damaged one gives way.
    if !name_it()? && !is_whole() {
        match fs::rename(&folder, temp.new_path("damaged")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::storage("replace", &folder, e)),
            _ => {}
        }
        failpoint(&folder)?;
        name_it()?;
    }
    failpoint(&folder)?;
    sync_folder(&versions)
}

/// What stands between a version that was made and its publication.
pub struct Guard<'a> {
    /// Checks, while nobody else publishes, that what the version was made of is still so: a run that began earlier
    /// must not put its table in the place of a later one's.
    pub is_current: &'a dyn Fn() -> Result<()>,
    /// Where to say that one waits.
    pub events: &'a EventSink,
}

/// Points `tables/<table>` to a version that was made, by one rename.
///
/// Returns whether readers see another version now.
pub fn switch(cache: &Path, temp: &TempFolder, table: &str, version: &Version, guard: &Guard<'_>) -> Result<bool> {
    let is_there = || Ok(link(cache, table)? == Some(Link::Version(version.as_str().to_string())));
    if is_there()? {
        return Ok(false);
    }
    let _lock = Switching::begin(cache, guard.events)?;
    if is_there()? {
        return Ok(false);
    }
    (guard.is_current)()?;
    let before = current(cache, table)?;
    let is_other = before.as_deref() != Some(version.as_str());
    if let Some(before) = before.filter(|_| is_other) {
        leave(cache, table, &before);
    }
    point(cache, temp, table, &Path::new("..").join(VERSIONS).join(table).join(version.as_str()))?;
    sync_folder(&cache.join(TABLES))?;
    Ok(is_other)
}

/// Notes that from now on nobody begins to read a version of `table`.
pub fn leave(cache: &Path, table: &str, version: &str) {
    let list = list_path(&cache.join(VERSIONS).join(table).join(version));
    let now = fs::FileTimes::new().set_modified(SystemTime::now());
    let _ = fs::File::options().write(true).open(&list).and_then(|list| list.set_times(now));
}

/// Points `tables/<table>` to `target`, as seen from there; it is durable when the folder is.
pub fn point(cache: &Path, temp: &TempFolder, table: &str, target: &Path) -> Result<()> {
    let published = cache.join(TABLES).join(table);
    replace_link(temp, target, &published)
}

/// Makes a symbolic link to `target`, or has it take the place of another, by one rename.
pub fn replace_link(temp: &TempFolder, target: &Path, path: &Path) -> Result<()> {
    let link = temp.new_path("link");
    std::os::unix::fs::symlink(target, &link).map_err(|e| Error::storage("create", &link, e))?;
    failpoint(path)?;
    fs::rename(&link, path).map_err(|e| Error::storage("publish", path, e))?;
    failpoint(path)
}

/// What `tables/<table>` is a link to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// This version.
    Version(String),
    /// What this stage has under the table's name now.
    Stage(String),
}

impl Link {
    /// The stage, if it is one's.
    pub fn stage(&self) -> Option<&String> {
        match self {
            Self::Version(_) => None,
            Self::Stage(stage) => Some(stage),
        }
    }
}

/// Where `tables/<table>` points to, if it is there.
pub fn link(cache: &Path, table: &str) -> Result<Option<Link>> {
    let path = cache.join(TABLES).join(table);
    let target = match fs::read_link(&path) {
        Ok(target) => target,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::storage("read", &path, e)),
    };
    let parts: Vec<_> = target.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    Ok(match parts.as_slice() {
        [_, stages, stage, current, _] if stages == STAGES && current == CURRENT => Some(Link::Stage(stage.clone())),
        [.., version] => Some(Link::Version(version.clone())),
        [] => None,
    })
}

/// The links of all tables, also of those that are not published yet. What else lies there is passed over.
pub fn links(cache: &Path) -> Result<BTreeMap<String, Link>> {
    let paths = read_folder(&cache.join(TABLES))?;
    let tables = paths.iter().filter(|path| path.is_symlink()).filter_map(|path| path.file_name()?.to_str());
    let links = tables.map(|table| Ok(link(cache, table)?.map(|link| (table.to_string(), link))));
    Ok(links.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// The folder of a stage.
pub fn stage_folder(cache: &Path, stage: &str) -> PathBuf {
    cache.join(STAGES).join(stage)
}

/// The name of what a link in a stage's folder, or below, points to; `None` when it is none.
pub fn named_by(link: &Path) -> Result<Option<String>> {
    use io::ErrorKind::{InvalidInput, NotADirectory, NotFound};
    match fs::read_link(link) {
        Ok(target) => Ok(target.file_name().map(|name| name.to_string_lossy().into_owned())),
        Err(e) if matches!(e.kind(), InvalidInput | NotADirectory | NotFound) => Ok(None),
        Err(e) => Err(Error::storage("read", link, e)),
    }
}

/// The version that is published as `table`, if any.
pub fn current(cache: &Path, table: &str) -> Result<Option<String>> {
    let link = || Ok(link(cache, table)?.map(|link| (table.to_string(), link)).into_iter().collect());
    Ok(resolve(cache, link)?.remove(table))
}

/// The published tables and their versions. Those of a stage are as one publication of it left them, whatever is published
/// meanwhile.
pub fn snapshot(cache: &Path) -> Result<BTreeMap<String, String>> {
    resolve(cache, || links(cache))
}

/// The versions that the tables' links lead to.
fn resolve(cache: &Path, links: impl Fn() -> Result<BTreeMap<String, Link>>) -> Result<BTreeMap<String, String>> {
    loop {
        let found = links()?;
        let currents = currents(cache, &found)?;
        let mut versions = BTreeMap::new();
        for (table, link) in &found {
            let version = match link {
                Link::Version(version) => Some(version.clone()),
                Link::Stage(stage) => match currents.get(stage) {
                    Some(current) => named_by(&stage_folder(cache, stage).join(current).join(table))?,
                    None => None,
                },
            };
            versions.extend(version.map(|version| (table.clone(), version)));
        }
        // A table that joined or left a stage meanwhile may have been read before that, and the others after. And what had
        // been published when a stage was read may be gone.
        let now = links()?;
        let of_same_stages = found.len() == now.len()
            && found.iter().zip(&now).all(|((table, link), (other, now))| {
                table == other && (link == now || matches!((link, now), (Link::Version(_), Link::Version(_))))
            });
        if of_same_stages && (versions.len() == found.len() || self::currents(cache, &found)? == currents) {
            return Ok(versions);
        }
    }
}

/// What is published now of each stage that one of `links` leads to.
fn currents(cache: &Path, links: &BTreeMap<String, Link>) -> Result<BTreeMap<String, String>> {
    let stages: BTreeSet<&String> = links.values().filter_map(Link::stage).collect();
    let current = |stage: &String| Ok(named_by(&stage_folder(cache, stage).join(CURRENT))?.map(|v| (stage.clone(), v)));
    Ok(stages.into_iter().map(current).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// The published table `table`: one version, whatever is published meanwhile. `None` when it is not published.
pub fn open(cache: &Path, table: &str) -> Result<Option<PublishedTable>> {
    current(cache, table)?.map(|version| open_version(cache, table, version)).transpose()
}

/// A version of `table`.
pub fn open_version(cache: &Path, table: &str, version: String) -> Result<PublishedTable> {
    let folder = cache.join(VERSIONS).join(table).join(&version);
    let list = fs::read_to_string(list_path(&folder)).unwrap_or_default();
    let files = list.lines().map(|line| {
        let (checksum, name) = line.split_once("  ")?;
        let chunk = name.split('/').next()?.strip_prefix("chunk=")?.parse().ok()?;
        Some(PublishedFile { chunk, path: folder.join(name), checksum: Checksum::from_hex(checksum).ok()? })
    });
    let list = list_path(&folder);
    let message = match files.collect::<Option<Vec<_>>>() {
        Some(files) if !files.is_empty() => {
            // A list that was cut off between two lines still reads as one.
            let listed: BTreeSet<u32> = files.iter().map(|file| file.chunk).collect();
            let is_chunk =
                |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("chunk="));
            // Other programs may leave files of their own beside them.
            let there = read_folder(&folder)?.iter().filter(|path| is_chunk(path)).count();
            if (listed.len(), there) == (files.len(), files.len()) {
                return Ok(PublishedTable { version, files });
            }
            let (folder, list) = (folder.display(), list.display());
            format!(
                "the published table `{table}` has {there} chunks in {folder}, and {} in {list}; run it again",
                files.len()
            )
        }
        _ => format!("the published table `{table}` has lost the list of its files, {}; run it again", list.display()),
    };
    Err(Error::new(ErrorKind::Storage, message))
}

/// Beside a version's folder lies the list of its files and their checksums, a line for each as `b3sum` writes and checks
/// them; the folder has nothing but Parquet.
pub fn list_path(folder: &Path) -> PathBuf {
    folder.with_extension("b3")
}

/// Beside the folder of a version whose task runs in steps lies the list of the chunks of the steps before the last, a file
/// name a line.
pub fn steps_path(folder: &Path) -> PathBuf {
    folder.with_extension("steps")
}

/// Beside the folder of a version that is pinned lies an empty file.
pub fn pin_path(folder: &Path) -> PathBuf {
    folder.with_extension("pin")
}

/// The checksums that the lists of all versions have for each [`file_name`]: more than one where a chunk was computed
/// again.
pub fn listed_checksums(cache: &Path) -> Result<HashMap<String, Vec<Checksum>>> {
    let mut found: HashMap<String, Vec<Checksum>> = HashMap::new();
    for table in read_folder(&cache.join(VERSIONS))? {
        for list in read_folder(&table)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "b3")) {
            let text = fs::read_to_string(&list).unwrap_or_default();
            for (checksum, name) in text.lines().filter_map(|line| line.split_once("  ")) {
                if let (Ok(checksum), Some((_, name))) = (Checksum::from_hex(checksum), name.rsplit_once('/')) {
                    found.entry(name.to_string()).or_default().push(checksum);
                }
            }
        }
    }
    Ok(found)
}

/// The list of a version's files and their checksums.
fn checksums(entries: &[Arc<ChunkEntry>]) -> String {
    let line = |entry: &Arc<ChunkEntry>| {
        format!("{}  {}\n", entry.checksum.to_hex(), link_path(Path::new(""), entry).display())
    };
    entries.iter().map(line).collect()
}

/// A published table in a few numbers.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedSummary {
    /// Its name.
    pub table: String,
    /// Name of its version: 32 hexadecimal digits.
    pub version: String,
    /// Whether this version is kept when another is published.
    pub is_pinned: bool,
    /// Columns that alone decide a row's chunk; empty when the keys are not among its columns.
    pub keys: Vec<String>,
    /// Its chunks, in order.
    pub chunks: Vec<ChunkSummary>,
}

/// A chunk of a published table.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkSummary {
    /// Its number, from 0.
    pub chunk: u32,
    /// Its rows.
    pub rows: u64,
    /// Size of its file.
    pub bytes: u64,
    /// When it was written, in nanoseconds since 1970.
    pub written_unix_ns: u64,
    /// Its file.
    pub path: PathBuf,
}

/// A version of `table`, by the footers of its files.
///
/// # Errors
/// [`ErrorKind::Storage`] when a file is gone or its footer damaged.
pub fn summary(cache: &Path, table: &str, version: String) -> Result<PublishedSummary> {
    let PublishedTable { version, files } = open_version(cache, table, version)?;
    let is_pinned = pin_path(&cache.join(VERSIONS).join(table).join(&version)).exists();
    let (table, keys, chunks) = (table.to_string(), Vec::new(), Vec::new());
    let mut summary = PublishedSummary { table, version, is_pinned, keys, chunks };
    for PublishedFile { chunk, path, checksum } in files {
        let (ChunkEntry { keys, rows, bytes, written_unix_ns, .. }, _) = read_footer(&path, checksum)?;
        summary.keys = keys;
        summary.chunks.push(ChunkSummary { chunk, rows, bytes, written_unix_ns, path });
    }
    Ok(summary)
}

/// The error that `table` is not published.
pub fn not_published(cache: &Path, table: &str) -> Result<Error> {
    let folder = cache.display();
    let known = snapshot(cache)?.into_keys().collect::<Vec<_>>().join(", ");
    let message = match known.as_str() {
        _ if !cache.is_dir() => format!("there is no cache folder {folder}; run tasks with it first, or name another"),
        "" => format!("no table `{table}` is published in {folder}; published are: none yet"),
        known => format!("no table `{table}` is published in {folder}; published are: {known}"),
    };
    Ok(Error::new(ErrorKind::Usage, message))
}

fn link_path(folder: &Path, entry: &ChunkEntry) -> PathBuf {
    folder.join(format!("chunk={:04}", entry.chunk)).join(file_name(entry.fingerprint))
}

/// Hard links need a file system that has them and a file with links to spare.
fn link_or_copy(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to).map_err(|e| Error::storage("copy a chunk to", to, e))?;
    fs::File::open(to).and_then(|f| f.sync_all()).map_err(|e| Error::storage("write", to, e))
}
