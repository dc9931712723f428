//! What is wrong with a source's data, and where.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Something in a file that can't be read as it is asked to.
#[derive(Debug)]
pub struct Fault {
    path: PathBuf,
    line: Option<u64>,
    message: String,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl Fault {
    /// A fault of a file; `message` says what is wrong and what to do.
    pub fn new(path: &Path, message: impl Into<String>) -> Self {
        Self { path: path.to_path_buf(), line: None, message: message.into(), cause: None }
    }

    /// A file that can't be read to its end.
    pub fn unreadable(path: &Path, cause: io::Error) -> Self {
        let message = match cause.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                "is cut off or damaged; write the file again"
            }
            _ => "can't be read",
        };
        Self::new(path, message).because(cause)
    }

    /// At a line of the file, from 1.
    pub fn at(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }

    /// Adds the cause.
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The fault in words, and its cause.
    pub fn into_parts(mut self) -> (String, Option<Box<dyn StdError + Send + Sync>>) {
        let cause = self.cause.take();
        (self.to_string(), cause)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A value in quotes, cut off where it is long.
pub fn quoted(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("'{}…'", &text[..at]),
        None => format!("'{text}'"),
    }
}
