//! One error type for the whole engine: a kind that says what to do, and the task, chunk and place it is about.

use std::error::Error as StdError;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::shown::on_one_line;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by what its reader can do about it.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorKind {
    /// The SQL or its options are invalid: edit the file at [`Error::location`].
    Sql,
    /// The task can't be proved chunkable: the message names the rule and a fix.
    Refused,
    /// A hook rejected the task's rows: the message says why.
    Rejected,
    /// A source is missing, unreadable, of another schema, or changed during the run.
    Source,
    /// A chunk's plan failed while it ran.
    Execute,
    /// The cache folder can't be read or written: a full disk, missing rights, a damaged file.
    Storage,
    /// The run was stopped by its token, or its engine was dropped.
    Cancelled,
    /// A setting or argument is out of range.
    Usage,
}

/// A place in an SQL file; line and column count from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The file as the user named it, or `<sql>` for text without a file.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

impl Location {
    /// A place in `file`; line and column count from 1.
    pub fn new(file: impl Into<String>, line: u64, column: u64) -> Self {
        Self { file: file.into(), line, column }
    }

    /// Where the function that asks was called, if it has `#[track_caller]`.
    #[track_caller]
    pub(crate) fn caller() -> Self {
        let caller = std::panic::Location::caller();
        Self::new(caller.file(), caller.line().into(), caller.column().into())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// An error with its kind, the task and chunk it is about, its place in the SQL, and its cause.
///
/// `Display` prints all of them on one line, the cause's text last.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    task: Option<String>,
    chunk: Option<u32>,
    location: Option<Location>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` says what happened and what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), task: None, chunk: None, location: None, source: None }
    }

    /// A storage error about one path.
    pub(crate) fn storage(action: &str, path: &Path, cause: std::io::Error) -> Self {
        let advice = match cause.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "; free some space or use a folder on another disk"
            }
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                "; the folder must be writable, or use one that is"
            }
            _ => "",
        };
        Self::new(ErrorKind::Storage, format!("can't {action} {}{advice}", path.display())).with_source(cause)
    }

    /// Names the task, unless one is named already.
    pub fn with_task(mut self, task: impl Into<String>) -> Self {
        self.task.get_or_insert_with(|| task.into());
        self
    }

    /// Names the chunk, unless one is named already.
    pub fn with_chunk(mut self, chunk: u32) -> Self {
        self.chunk.get_or_insert(chunk);
        self
    }

    /// Names the place in the SQL, unless one is named already.
    pub fn with_location(mut self, location: Location) -> Self {
        self.location.get_or_insert(location);
        self
    }

    /// Names another place in the SQL.
    pub(crate) fn moved_to(mut self, location: Location) -> Self {
        self.location = Some(location);
        self
    }

    /// Says in other words what happened and what to do.
    pub(crate) fn with_message(self, message: String) -> Self {
        Self { message, ..self }
    }

    /// Adds something to know to the message.
    pub(crate) fn noting(mut self, note: &str) -> Self {
        self.message += &format!("; {note}");
        self
    }

    /// Adds the cause.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error, for who has only borrowed it; its cause is told in words.
    pub(crate) fn again(&self) -> Self {
        let Self { kind, message, task, chunk, location, source } = self;
        let source = source.as_ref().map(|cause| cause.to_string().into());
        let (kind, chunk, task, location) = (*kind, *chunk, task.clone(), location.clone());
        Self { kind, message: message.clone(), task, chunk, location, source }
    }

    /// What went wrong, by what to do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What happened and what to do, without task, place and cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The task that it is about.
    pub fn task(&self) -> Option<&str> {
        self.task.as_deref()
    }

    /// The chunk that it is about, from 0.
    pub fn chunk(&self) -> Option<u32> {
        self.chunk
    }

    /// The place in the SQL.
    pub fn location(&self) -> Option<&Location> {
        self.location.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{}: ", on_one_line(&location.to_string()))?;
        }
        if let Some(task) = &self.task {
            write!(f, "task `{}`", on_one_line(task))?;
            if let Some(chunk) = self.chunk {
                write!(f, ", chunk {chunk}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&on_one_line(&self.message))?;
        if let Some(source) = &self.source {
            let text = source.to_string();
            let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            write!(f, ": {}", on_one_line(&lines.join("; ")))?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|s| s.as_ref() as &(dyn StdError + 'static))
    }
}
