//! Which files a LOCATION means.
//!
//! | location | files |
//! |---|---|
//! | a file | that file, whatever its name |
//! | a folder | all files of the format below it, at any depth |
//! | a pattern | all files that match: `*`, `?` and `[…]` within a name, `**` for any number of folders |
//!
//! A location that exists as it is written is no pattern, whatever characters it has. A folder that a pattern matches
//! stands for the files below it.
//!
//! In folders and patterns these are left out, and told by [`Found::skipped`]:
//! - names that begin with `.`, and those that begin with `_` unless they are `_key=value`, but where a pattern's name
//!   begins with the same character;
//! - files that have another ending than the format's (see [`Format::is_of`]), but where a pattern names the ending;
//! - files without a byte;
//! - folders of caches below the location: what a run writes is no source of the next;
//! - links to a folder that the link lies in.
//!
//! Anything else that can't be read is an error, so that no data is missing without a word: a link to nothing, a folder
//! without permission, a pipe or device.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::cache::is_cache;
use crate::task::format::Format;
use crate::task::source::Place;

/// Characters that make a name a pattern.
const PATTERN: [char; 3] = ['*', '?', '['];

/// A name in a folder is compared with a pattern's by case, and hidden names are handled here.
const MATCH: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// What was found at a place.
#[derive(Debug, Default)]
pub struct Found {
    /// The files, by absolute path.
    pub files: BTreeMap<PathBuf, FoundFile>,
    /// Files and folders that were left out, and why.
    pub skipped: Vec<(PathBuf, Skipped)>,
}

/// A file, and what its place says of it.
#[derive(Debug, Clone)]
pub struct FoundFile {
    /// Its metadata when it was found.
    pub metadata: Metadata,
    /// The path's last names, the file's own among them, that the location left open: those below a folder, or
    /// those that stand for `**` or `key=…`.
    pub open_names: Vec<String>,
}

/// Why a file or folder was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skipped {
    /// Its name begins with `.` or `_`.
    Hidden,
    /// It has another ending than the format's files.
    OtherEnding,
    /// It has no bytes.
    Empty,
    /// It is a link to a folder that it lies in.
    Loop,
    /// It is the folder of a cache.
    Cache,
}

/// Why files could not be found: the path, and what is wrong with it.
#[derive(Debug)]
pub struct NotFound {
    /// What is wrong, with the path, and what to do.
    pub message: String,
    /// The system's error.
    pub cause: Option<io::Error>,
}

/// Finds the files of `format` at `place`.
///
/// # Errors
/// When there is none, or something that may be one can't be read.
pub fn find(place: &Place, format: &Format) -> Result<Found, NotFound> {
    let mut walk = Walk { format, found: Found::default(), other: BTreeMap::new(), way: Vec::new() };
    let literal = place.path();
    match fs::metadata(&literal) {
        Ok(metadata) if metadata.is_dir() => walk.enter(&literal, |walk| walk.folder(&literal, &[]))?,
        Ok(metadata) => walk.named(&literal, metadata)?,
        Err(_) if place.text.contains(PATTERN) => walk.pattern(place)?,
        Err(cause) => return Err(missing(&literal, cause)),
    }
    if walk.found.files.is_empty() {
        return Err(walk.nothing(place));
    }
    Ok(walk.found)
}

struct Walk<'a> {
    format: &'a Format,
    found: Found,
    /// Endings of files that were left out, and how many have each.
    other: BTreeMap<String, usize>,
    /// The real paths of the folders from the location to the one at hand.
    way: Vec<PathBuf>,
}

/// How a file was come upon.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// As one of a folder.
    Folder,
    /// By a pattern for its own name, which may have an ending.
    Pattern { has_ending: bool },
}

impl Walk<'_> {
    /// A file that the location names.
    fn named(&mut self, path: &Path, metadata: Metadata) -> Result<(), NotFound> {
        check_kind(path, &metadata)?;
        if metadata.len() == 0 {
            let message =
                format!("{} is empty, so that it has no columns; remove it, or name another file", path.display());
            return Err(NotFound { message, cause: None });
        }
        self.add(path, metadata, Vec::new());
        Ok(())
    }

    /// All files of the format below a folder, whose way from the place that the location left open is `open`.
    fn folder(&mut self, folder: &Path, open: &[String]) -> Result<(), NotFound> {
        for name in names(folder)? {
            self.entry(&folder.join(&name), open, By::Folder)?;
        }
        Ok(())
    }

    /// A file or folder in a folder.
    fn entry(&mut self, path: &Path, open: &[String], by: By) -> Result<(), NotFound> {
        let name = name_of(path);
        if by == By::Folder && is_hidden(&name) {
            self.skip(path, Skipped::Hidden);
            return Ok(());
        }
        let metadata = fs::metadata(path);
        let is_folder = metadata.as_ref().is_ok_and(Metadata::is_dir);
        let is_named = by == By::Pattern { has_ending: true };
        if !is_folder && !is_named && !self.format.is_of(&name) {
            *self.other.entry(ending(&name)).or_default() += 1;
            self.skip(path, Skipped::OtherEnding);
            return Ok(());
        }
        let metadata = metadata.map_err(|cause| missing(path, cause))?;
        if is_folder {
            // What stands for a folder in a pattern is among the open names already, if it is to be.
            let open: Vec<String> = open.iter().cloned().chain((by == By::Folder).then_some(name)).collect();
            return self.enter(path, |walk| walk.folder(path, &open));
        }
        let open = open.iter().cloned().chain([name]).collect();
        check_kind(path, &metadata)?;
        match metadata.len() {
            0 => self.skip(path, Skipped::Empty),
            _ => self.add(path, metadata, open),
        }
        Ok(())
    }

    /// All files that match a pattern.
    fn pattern(&mut self, place: &Place) -> Result<(), NotFound> {
        let path = Path::new(&place.text);
        let mut root = if path.is_absolute() { PathBuf::from("/") } else { place.folder.clone() };
        let mut parts: Vec<String> = Vec::new();
        for component in path.components() {
            let text = component.as_os_str().to_string_lossy().into_owned();
            match component {
                std::path::Component::RootDir | std::path::Component::CurDir => {}
                _ if parts.is_empty() && !text.contains(PATTERN) => root.push(text),
                _ => parts.push(text),
            }
        }
        self.enter(&root, |walk| walk.matching(&root, &parts, &[]))
    }

    /// Does something in a folder, unless that is one on the way to it: links may lead back.
    fn enter(&mut self, folder: &Path, visit: impl FnOnce(&mut Self) -> Result<(), NotFound>) -> Result<(), NotFound> {
        let real = fs::canonicalize(folder).map_err(|cause| missing(folder, cause))?;
        if folder.is_symlink() && self.way.iter().any(|before| before.starts_with(&real)) {
            self.skip(folder, Skipped::Loop);
            return Ok(());
        }
        if is_cache(&real) {
            if !self.way.is_empty() {
                self.skip(folder, Skipped::Cache);
                return Ok(());
            }
            let message = format!(
                "{} is the folder of a cache, whose own files would be read; keep sources and caches in folders apart",
                folder.display()
            );
            return Err(NotFound { message, cause: None });
        }
        self.way.push(real);
        let visited = visit(self);
        self.way.pop();
        visited
    }

    /// What lies in `folder` and matches the names `parts`, one below the other.
    fn matching(&mut self, folder: &Path, parts: &[String], open: &[String]) -> Result<(), NotFound> {
        let Some((part, rest)) = parts.split_first() else { return Ok(()) };
        let by = By::Pattern { has_ending: part.contains('.') };
        if part == "**" {
            return self.at_any_depth(folder, rest, open);
        }
        if !part.contains(PATTERN) {
            let path = folder.join(part);
            return match (rest.is_empty(), fs::metadata(&path)) {
                // As many patterns, a name may be there in some folders only.
                (_, Err(cause)) if cause.kind() == io::ErrorKind::NotFound && !path.is_symlink() => Ok(()),
                (_, Err(cause)) => Err(missing(&path, cause)),
                (true, Ok(_)) => self.entry(&path, open, By::Pattern { has_ending: true }),
                (false, Ok(metadata)) if metadata.is_dir() => {
                    self.enter(&path, |walk| walk.matching(&path, rest, open))
                }
                (false, Ok(_)) => Ok(()),
            };
        }
        if part.contains("[^") {
            let message = format!("`{part}` is not a pattern; write [!…] for one of the other characters");
            return Err(NotFound { message, cause: None });
        }
        let pattern = Pattern::new(part).map_err(|e| NotFound {
            message: format!("`{part}` is not a pattern ({}); write [[] for a bracket of the name", e.msg),
            cause: None,
        })?;
        for name in names(folder)? {
            let (path, text) = (folder.join(&name), name.to_string_lossy().into_owned());
            if !pattern.matches_with(&text, MATCH) {
                continue;
            }
            if is_hidden(&text) && !part.starts_with(&text[..1]) {
                self.skip(&path, Skipped::Hidden);
                continue;
            }
            // `year=*` names a column, `*` a folder.
            let names_column = part.split_once('=').is_some_and(|(key, _)| !key.contains(PATTERN));
            let open: Vec<String> = open.iter().cloned().chain(names_column.then_some(text)).collect();
            match rest.is_empty() {
                true => self.entry(&path, &open, by)?,
                false if is_folder(&path)? => self.enter(&path, |walk| walk.matching(&path, rest, &open))?,
                false => {}
            }
        }
        Ok(())
    }

    /// What matches the names `rest` in `folder`, or in a folder below it.
    fn at_any_depth(&mut self, folder: &Path, rest: &[String], open: &[String]) -> Result<(), NotFound> {
        if rest.is_empty() {
            return self.folder(folder, open);
        }
        self.matching(folder, rest, open)?;
        for name in names(folder)? {
            let (path, text) = (folder.join(&name), name.to_string_lossy().into_owned());
            if is_hidden(&text) {
                if path.is_dir() {
                    self.skip(&path, Skipped::Hidden);
                }
            } else if is_folder(&path)? {
                let open: Vec<String> = open.iter().cloned().chain([text]).collect();
                self.enter(&path, |walk| walk.at_any_depth(&path, rest, &open))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, metadata: Metadata, open_names: Vec<String>) {
        self.found.files.entry(path.to_path_buf()).or_insert(FoundFile { metadata, open_names });
    }

    fn skip(&mut self, path: &Path, why: Skipped) {
        self.found.skipped.push((path.to_path_buf(), why));
    }

    /// Says what is there where no file of the format is.
    fn nothing(self, place: &Place) -> NotFound {
        let (format, path) = (self.format, place.path());
        let shown = path.display();
        let mut there: Vec<String> = self.other.iter().map(|(ending, count)| files(*count, ending)).collect();
        for (why, told) in [(Skipped::Hidden, "with hidden names"), (Skipped::Empty, "without a byte")] {
            let count = self.found.skipped.iter().filter(|(_, skipped)| *skipped == why).count();
            if count > 0 {
                there.push(format!("{} {told}", files(count, "")));
            }
        }
        let endings = format.endings().join(", .");
        let message = match (there.is_empty(), self.other.keys().next()) {
            (true, _) if place.text.contains(PATTERN) => {
                format!("no file matches {shown}; check the path and the pattern (** is for any number of folders)")
            }
            (true, _) => format!("no file is in {shown}; check the path"),
            (false, Some(ending)) => {
                let advice = match Format::named_by(ending) {
                    Some(other) if other != format.name() => format!("write STORED AS {other}"),
                    _ => {
                        let pattern = path.join(format!("**/*{ending}"));
                        format!("write '{}' to read such files as {format}", pattern.display())
                    }
                };
                format!("no file of {shown} ends with .{endings}: {}; {advice}", there_is(&there))
            }
            (false, None) => format!("no file with rows is in {shown}: {}", there_is(&there)),
        };
        NotFound { message, cause: None }
    }
}

fn there_is(files: &[String]) -> String {
    let is_one = matches!(files, [one] if one.starts_with("1 "));
    format!("there {} {}", if is_one { "is" } else { "are" }, files.join(", "))
}

fn files(count: usize, ending: &str) -> String {
    let word = if count == 1 { "file" } else { "files" };
    format!("{count} {ending}{}{word}", if ending.is_empty() { "" } else { " " })
}

/// What a name ends with, compression included.
fn ending(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.split_once('.') {
        Some((_, rest)) => {
            let parts: Vec<&str> = rest.split('.').collect();
            let is_compressed = parts.last().is_some_and(|last| ["gz", "bz2", "xz", "zst"].contains(last));
            let kept = if is_compressed { 2 } else { 1 };
            format!(".{}", parts[parts.len().saturating_sub(kept)..].join("."))
        }
        None => name,
    }
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Result<Vec<std::ffi::OsString>, NotFound> {
    let failed = |cause| missing(folder, cause);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether what a pattern looks for may lie below a path. A name with an ending is taken for a file where it can't be
/// looked at.
fn is_folder(path: &Path) -> Result<bool, NotFound> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(_) if path.extension().is_some() => Ok(false),
        Err(cause) => Err(missing(path, cause)),
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || (name.starts_with('_') && !name.contains('='))
}

/// That a path is a file's, and can be read more than once.
fn check_kind(path: &Path, metadata: &Metadata) -> Result<(), NotFound> {
    if metadata.is_file() {
        return Ok(());
    }
    let message = format!(
        "{} is a pipe, a socket or a device, which can't be read twice; write what it gives to a file",
        path.display()
    );
    Err(NotFound { message, cause: None })
}

/// Why a path can't be looked at.
fn missing(path: &Path, cause: io::Error) -> NotFound {
    let shown = path.display();
    let message = match cause.kind() {
        io::ErrorKind::NotFound if path.is_symlink() => {
            let to = fs::read_link(path).unwrap_or_default();
            format!("{shown} is a link to {}, which does not exist; restore that, or remove the link", to.display())
        }
        io::ErrorKind::NotFound => match nearest(path) {
            Some((folder, name)) => {
                format!("no file at {shown}: {} has no {name}; check the path", folder.display())
            }
            None => format!("no file at {shown}; check the path"),
        },
        io::ErrorKind::PermissionDenied => {
            format!("{shown} can't be read: no permission; ask for the right to read it")
        }
        io::ErrorKind::NotADirectory => format!("no file at {shown}: a part of the path is a file; check the path"),
        io::ErrorKind::InvalidInput => format!("{shown} can't be a path; check its characters"),
        _ => format!("{shown} can't be read"),
    };
    NotFound { message, cause: Some(cause) }
}

/// The deepest folder of a path that exists, and the name that it lacks.
fn nearest(path: &Path) -> Option<(PathBuf, String)> {
    let mut below = path;
    for folder in path.ancestors().skip(1) {
        if folder.is_dir() {
            return Some((folder.to_path_buf(), name_of(below)));
        }
        below = folder;
    }
    None
}
