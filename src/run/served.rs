//! A source whose rows a hook gives, as a task reads it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use datafusion::catalog::TableProvider;

use crate::error::{Error, ErrorKind, Result};
use crate::execute::write::execution_error;
use crate::hook::{InputSlice, SourceHook};
use crate::plan::fingerprint::Fingerprint;
use crate::plan::prove::Proof;
use crate::plan::rewrite::in_chunk;
use crate::table::served::ServedTable;

/// The source, and what it said of its slices.
#[derive(Debug)]
pub struct Served {
    table: String,
    hook: Arc<dyn SourceHook>,
    /// Version of all rows when the task began.
    version: OnceLock<String>,
    /// Slices that are read, and their versions.
    read: Mutex<Vec<(InputSlice, String)>>,
}

impl Served {
    /// The source `table`, not asked yet.
    pub fn new(table: &str, hook: &Arc<dyn SourceHook>) -> Self {
        Self { table: table.to_string(), hook: Arc::clone(hook), version: OnceLock::new(), read: Mutex::default() }
    }

    /// All rows.
    pub fn whole(&self) -> Arc<dyn TableProvider> {
        self.table(self.all())
    }

    /// The rows of a slice.
    pub fn table(&self, slice: InputSlice) -> Arc<dyn TableProvider> {
        Arc::new(ServedTable::new(Arc::clone(&self.hook), slice, self.hook.schema()))
    }

    /// All rows as a slice.
    pub fn all(&self) -> InputSlice {
        InputSlice { table: self.table.clone(), chunk: None, predicate: None }
    }

    /// What chunk `chunk` of `proof` needs of the source, its scan number `scan`.
    ///
    /// # Errors
    /// When the keys are not those of the chunk function.
    pub fn slice(&self, proof: &Proof, scan: usize, chunk: u32) -> Result<InputSlice> {
        let predicate = in_chunk(proof, scan, chunk, &self.hook.schema()).map_err(execution_error)?;
        Ok(InputSlice { chunk: Some((chunk, proof.chunks())), predicate, ..self.all() })
    }

    /// Asks for the version of all rows.
    ///
    /// # Errors
    /// The hook's.
    pub async fn ask_version(&self) -> Result<()> {
        let version = self.hook.version(&self.all()).await?;
        // A task asks once.
        let _ = self.version.set(version);
        Ok(())
    }

    /// That all rows are what they were when the task began.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] when they are not, and the hook's.
    pub async fn check_begun(&self) -> Result<()> {
        let now = self.hook.version(&self.all()).await?;
        if self.version.get() == Some(&now) { Ok(()) } else { Err(self.changed()) }
    }

    fn changed(&self) -> Error {
        Error::new(ErrorKind::Source, format!("the source `{}` changed while it was read; run again", self.table))
    }

    /// The identity of all rows when the task began.
    pub fn identity(&self) -> Fingerprint {
        self.named(self.version.get().map_or("", String::as_str))
    }

    /// The identity of a slice that is to be read, by its version.
    ///
    /// # Errors
    /// The hook's.
    pub async fn identity_of(&self, slice: InputSlice) -> Result<Fingerprint> {
        let version = self.hook.version(&slice).await?;
        let identity = self.named(&version);
        self.read.lock().unwrap_or_else(PoisonError::into_inner).push((slice, version));
        Ok(identity)
    }

    fn named(&self, version: &str) -> Fingerprint {
        Fingerprint::of([("source", self.table.as_bytes()), ("version", version.as_bytes())])
    }

    /// That what a chunk reads is what it was when its version was asked for; for `None`, what all of them read.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] when one is not, and the hook's.
    pub async fn check_unchanged(&self, chunk: Option<u32>) -> Result<()> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_read = |slice: &InputSlice| slice.chunk.is_none_or(|(of, _)| chunk.is_none_or(|chunk| chunk == of));
        for (slice, before) in read.iter().filter(|(slice, _)| is_read(slice)) {
            if self.hook.version(slice).await? != *before {
                return Err(self.changed());
            }
        }
        Ok(())
    }
}
