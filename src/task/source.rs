//! Files that tasks read.

use std::fmt;
use std::path::{Path, PathBuf};

use datafusion::sql::parser::CreateExternalTable;

use crate::error::Location;
use crate::task::format::Format;

/// Files that tasks read: a `CREATE EXTERNAL TABLE` statement.
#[derive(Debug, Clone)]
pub struct Source {
    /// Name of the table.
    pub name: String,
    /// How the files are read.
    pub format: Format,
    /// Where they are, at least one place.
    pub places: Vec<Place>,
    /// The statement, for the columns that it declares.
    pub statement: Box<CreateExternalTable>,
    /// Where the statement begins.
    pub location: Location,
}

/// Where files of a source are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The folder that a relative path counts from; absolute, and never a pattern.
    pub folder: PathBuf,
    /// The path: of a file, a folder, or a pattern.
    pub text: String,
}

impl Place {
    /// The absolute path, taken as it is written.
    pub fn path(&self) -> PathBuf {
        self.folder.join(Path::new(&self.text))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path().display())
    }
}
