//! Published tables: a folder of hard links per version, and one symbolic link that says which version is current.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cache::store::{ChunkEntry, create_folder, read_folder, sync_folder};
use crate::cache::temp::TempFolder;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::fingerprint::Fingerprint;

/// Name of the folder of versions, inside the cache folder.
pub const VERSIONS: &str = "versions";
/// Name of the folder of published tables, inside the cache folder.
pub const TABLES: &str = "tables";

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
    /// Chunk numbers and files, in order.
    pub files: Vec<(u32, PathBuf)>,
}

/// Links `entries` into a folder of their own and points `tables/<table>` to it by one rename.
///
/// Returns whether readers see another version now.
pub fn publish(
    cache: &Path,
    temp: &TempFolder,
    table: &str,
    version: &Version,
    entries: &[Arc<ChunkEntry>],
) -> Result<bool> {
    let versions = cache.join(VERSIONS).join(table);
    let folder = versions.join(version.as_str());
    let is_whole = entries.iter().all(|e| fs::metadata(link_path(&folder, e)).is_ok_and(|m| m.len() == e.bytes));
    if is_whole && current(cache, table)?.as_deref() == Some(version.as_str()) {
        return Ok(false);
    }
    if !is_whole {
        create_folder(&versions)?;
        let building = temp.new_path("version");
        for entry in entries {
            let link = link_path(&building, entry);
            if let Some(parent) = link.parent() {
                fs::create_dir_all(parent).map_err(|e| Error::storage("create", parent, e))?;
                link_or_copy(&entry.path(cache), &link)?;
                sync_folder(parent)?;
            }
        }
        sync_folder(&building)?;
        // A damaged folder of this version gives way; nothing replaces a non-empty folder by rename.
        let aside = temp.new_path("damaged");
        match fs::rename(&folder, &aside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::storage("replace", &folder, e)),
            _ => {}
        }
        match fs::rename(&building, &folder) {
            // Another process has just published the same chunks.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            other => other.map_err(|e| Error::storage("create", &folder, e))?,
        }
        sync_folder(&versions)?;
    }
    let tables = cache.join(TABLES);
    let link = temp.new_path("link");
    let target = Path::new("..").join(VERSIONS).join(table).join(version.as_str());
    std::os::unix::fs::symlink(&target, &link).map_err(|e| Error::storage("create", &link, e))?;
    let published = tables.join(table);
    fs::rename(&link, &published).map_err(|e| Error::storage("publish", &published, e))?;
    sync_folder(&tables)?;
    Ok(true)
}

/// The version that is published as `table`, if any.
pub fn current(cache: &Path, table: &str) -> Result<Option<String>> {
    let link = cache.join(TABLES).join(table);
    match fs::read_link(&link) {
        Ok(target) => Ok(target.file_name().map(|name| name.to_string_lossy().into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::storage("read", &link, e)),
    }
}

/// The published table `table`: one version, whatever is published meanwhile. `None` when it is not published.
pub fn open(cache: &Path, table: &str) -> Result<Option<PublishedTable>> {
    let Some(version) = current(cache, table)? else { return Ok(None) };
    let folder = cache.join(VERSIONS).join(table).join(&version);
    let mut files = Vec::new();
    for chunk in read_folder(&folder)? {
        let number = chunk.file_name().and_then(|n| n.to_str()?.strip_prefix("chunk=")?.parse().ok());
        if let Some(number) = number {
            files.extend(read_folder(&chunk)?.into_iter().map(|file| (number, file)));
        }
    }
    if files.is_empty() {
        let message = format!("the published table `{table}` has lost its files in {}; run it again", folder.display());
        return Err(Error::new(ErrorKind::Storage, message));
    }
    files.sort();
    Ok(Some(PublishedTable { version, files }))
}

/// Names of the published tables, sorted.
pub fn tables(cache: &Path) -> Result<Vec<String>> {
    let links = read_folder(&cache.join(TABLES))?;
    Ok(links.iter().filter_map(|link| Some(link.file_name()?.to_str()?.to_string())).collect())
}

fn link_path(folder: &Path, entry: &ChunkEntry) -> PathBuf {
    let mut name = entry.fingerprint.to_string();
    name.truncate(16);
    folder.join(format!("chunk={:04}", entry.chunk)).join(name).with_extension("parquet")
}

/// Hard links need a file system that has them and a file with links to spare.
fn link_or_copy(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to).map_err(|e| Error::storage("copy a chunk to", to, e))?;
    fs::File::open(to).and_then(|f| f.sync_all()).map_err(|e| Error::storage("write", to, e))
}
