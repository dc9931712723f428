//! Stages: tables that are published together, by one rename of one link.
//!
//! ```text
//! <cache>/stages/<stage>/<v>/<table>   symbolic link to one version of the table
//! <cache>/stages/<stage>/current       symbolic link to <v>: what of the stage is published
//! <cache>/tables/<table>               symbolic link to <cache>/stages/<stage>/current/<table>
//! ```
//!
//! `<v>` is a hash of its tables and their versions. Whatever was published last as a table is in `current` before the
//! table's own link leads there, so that the renames of these links change nothing for readers, and the one of `current`
//! changes all tables at once.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::cache::lock::Switching;
use crate::cache::publish::{
    self, CURRENT, Guard, Link, STAGES, TABLES, VERSIONS, named_by, replace_link, stage_folder,
};
use crate::cache::store::{create_folder, read_folder, sync_folder};
use crate::cache::temp::TempFolder;
use crate::error::{Error, Result};
use crate::event::EventSink;
use crate::failpoint::failpoint;
use crate::plan::fingerprint::Fingerprint;

/// Tables and their versions.
pub type Tables = BTreeMap<String, String>;

/// Publishes `tables`, at versions whose folders are made, as tables of `stage`: readers see all of them as before, or all
/// new. Tables of the stage that are not among them stay as they are.
///
/// Returns the tables of which readers see another version now.
pub fn publish(
    cache: &Path,
    temp: &TempFolder,
    stage: &str,
    tables: &Tables,
    guard: &Guard<'_>,
) -> Result<Vec<String>> {
    let _lock = Switching::begin(cache, guard.events)?;
    (guard.is_current)()?;
    let links = publish::links(cache)?;
    let is_of_stage = |table: &String| matches!(links.get(table), Some(Link::Stage(of)) if of == stage);
    let seen = publish::snapshot(cache)?;
    let staying: Tables = seen.iter().filter(|(table, _)| is_of_stage(table)).map(owned).collect();
    let joining: Vec<&String> = tables.keys().filter(|table| !is_of_stage(table)).collect();
    // A table that readers see already must be in `current` as they see it when its link leads there.
    let mut with_joining = staying.clone();
    with_joining.extend(seen.iter().filter(|(table, _)| joining.contains(table)).map(owned));
    if !joining.is_empty() {
        // Not what an earlier run left there under a name that is not published any more.
        switch(cache, temp, stage, &with_joining)?;
        let target = |table: &str| Path::new("..").join(STAGES).join(stage).join(CURRENT).join(table);
        for table in joining {
            publish::point(cache, temp, table, &target(table))?;
        }
        sync_folder(&cache.join(TABLES))?;
    }
    let changed: Vec<String> = tables
        .iter()
        .filter(|(table, version)| seen.get(*table) != Some(version))
        .map(|(table, _)| table.clone())
        .collect();
    for (table, version) in seen.iter().filter(|(table, _)| changed.contains(table)) {
        publish::leave(cache, table, version);
    }
    let mut all = staying;
    all.extend(tables.iter().map(owned));
    switch(cache, temp, stage, &all)?;
    Ok(changed)
}

/// Takes `table` from readers, and from the stage that it is in. Its versions are as those that another took the place
/// of.
///
/// # Errors
/// [`ErrorKind::Usage`] when it is not published.
pub fn unpublish(cache: &Path, temp: &TempFolder, table: &str, events: &EventSink) -> Result<()> {
    let _lock = Switching::begin(cache, events)?;
    let Some(link) = publish::link(cache, table)? else { return Err(publish::not_published(cache, table)?) };
    let seen = publish::snapshot(cache)?;
    let links = publish::links(cache)?;
    if let Some(version) = seen.get(table) {
        publish::leave(cache, table, version);
    }
    // Its link goes last, so that what stops half-way can be done again: a link that leads nowhere is no table.
    if let Link::Stage(stage) = link {
        let is_of_stage = |other: &String| other != table && links.get(other).and_then(Link::stage) == Some(&stage);
        let staying: Tables = seen.iter().filter(|(other, _)| is_of_stage(other)).map(owned).collect();
        switch(cache, temp, &stage, &staying)?;
    }
    let published = cache.join(TABLES).join(table);
    failpoint(&published)?;
    fs::remove_file(&published).map_err(|e| Error::storage("remove", &published, e))?;
    sync_folder(&cache.join(TABLES))
}

/// The folders in `stages/`, of all stages, that are not published, and when each was left.
pub fn left(cache: &Path) -> Result<Vec<(PathBuf, SystemTime)>> {
    let mut left = Vec::new();
    for stage in read_folder(&cache.join(STAGES))? {
        let current = named_by(&stage.join(CURRENT))?;
        for folder in read_folder(&stage)? {
            let is_current = folder.file_name().and_then(|name| name.to_str()) == current.as_deref();
            if !is_current && !folder.is_symlink() && folder.is_dir() {
                let time = fs::metadata(&folder).and_then(|folder| folder.modified());
                left.push((folder.clone(), time.map_err(|e| Error::storage("read", &folder, e))?));
            }
        }
    }
    Ok(left)
}

/// The folders of what is published of stages that have not the links that their names say; the next run makes others.
pub fn damaged(cache: &Path) -> Result<Vec<PathBuf>> {
    let mut damaged = Vec::new();
    for stage in read_folder(&cache.join(STAGES))? {
        if let Some(current) = named_by(&stage.join(CURRENT))? {
            let folder = stage.join(&current);
            let folders = read_folder(&stage)?.len() as u64;
            let is_named = |tables: &Tables| (0..=folders).any(|attempt| name(tables, attempt) == current);
            if !contents(&folder)?.is_some_and(|tables| is_named(&tables)) {
                damaged.push(folder);
            }
        }
    }
    Ok(damaged)
}

fn owned((table, version): (&String, &String)) -> (String, String) {
    (table.clone(), version.clone())
}

/// Points `current` to a folder of `tables`, by one rename; removes it when there are none.
fn switch(cache: &Path, temp: &TempFolder, stage: &str, tables: &Tables) -> Result<()> {
    let folder = stage_folder(cache, stage);
    let current = folder.join(CURRENT);
    if tables.is_empty() {
        return match fs::remove_file(&current) {
            Ok(()) => sync_folder(&folder),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::storage("remove", &current, e)),
        };
    }
    let before = named_by(&current)?;
    if let Some(before) = &before
        && contents(&folder.join(before))?.as_ref() == Some(tables)
    {
        return Ok(());
    }
    create_folder(&folder)?;
    let name = make(temp, &folder, tables)?;
    if let Some(before) = before {
        // From now on nobody begins to read it.
        let now = FileTimes::new().set_modified(SystemTime::now());
        let _ = File::open(folder.join(before)).and_then(|before| before.set_times(now));
    }
    replace_link(temp, Path::new(&name), &current)?;
    sync_folder(&folder)
}

/// Makes a folder of `tables`, unless it is there; gives its name.
fn make(temp: &TempFolder, stage: &Path, tables: &Tables) -> Result<String> {
    let mut attempt = 0;
    let (name, folder) = loop {
        let name = name(tables, attempt);
        let folder = stage.join(&name);
        if contents(&folder)?.as_ref() == Some(tables) {
            return Ok(name);
        }
        if fs::symlink_metadata(&folder).is_err() {
            break (name, folder);
        }
        // It is damaged, and readers may be in it.
        attempt += 1;
    };
    let building = temp.new_path("stage");
    fs::create_dir(&building).map_err(|e| Error::storage("create", &building, e))?;
    for (table, version) in tables {
        let link = building.join(table);
        std::os::unix::fs::symlink(target(table, version), &link).map_err(|e| Error::storage("create", &link, e))?;
        failpoint(&link)?;
    }
    sync_folder(&building)?;
    failpoint(&folder)?;
    fs::rename(&building, &folder).map_err(|e| Error::storage("create", &folder, e))?;
    failpoint(&folder)?;
    sync_folder(stage)?;
    Ok(name)
}

/// What the links in a folder of a stage say; `None` when it is not there, or something in it is no such link.
fn contents(folder: &Path) -> Result<Option<Tables>> {
    let mut tables = Tables::new();
    for link in read_folder(folder)? {
        let table = link.file_name().map(|name| name.to_string_lossy().into_owned());
        let (Some(table), Some(version)) = (table, named_by(&link)?) else { return Ok(None) };
        if !fs::read_link(&link).is_ok_and(|found| found == target(&table, &version)) {
            return Ok(None);
        }
        tables.insert(table, version);
    }
    Ok(Some(tables).filter(|tables| !tables.is_empty()))
}

/// The folder of a version, as seen from a stage's folder of links.
fn target(table: &str, version: &str) -> PathBuf {
    Path::new("../../..").join(VERSIONS).join(table).join(version)
}

/// 32 hexadecimal digits; `attempt` counts the folders of these tables that were found damaged.
fn name(tables: &Tables, attempt: u64) -> String {
    let attempt = attempt.to_le_bytes();
    let pairs =
        tables.iter().flat_map(|(table, version)| [("table", table.as_bytes()), ("version", version.as_bytes())]);
    let mut name = Fingerprint::of(pairs.chain([("attempt", attempt.as_slice())])).to_string();
    name.truncate(32);
    name
}
