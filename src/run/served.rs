//! A source whose rows a hook gives, as a task reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::catalog::TableProvider;
use tokio::sync::OnceCell;

use crate::error::{Error, ErrorKind, Result};
use crate::execute::write::execution_error;
use crate::hook::{InputSlice, SourceHook};
use crate::plan::fingerprint::Fingerprint;
use crate::plan::prove::proof::Proof;
use crate::plan::rewrite::in_chunk;
use crate::table::served::ServedTable;

/// So many slices are asked for at a time.
pub const MOST_ASKED: usize = 16;

/// The source, and what it said of its slices.
#[derive(Debug)]
pub struct Served {
    table: String,
    hook: Arc<dyn SourceHook>,
    /// Version of all rows in this run, which all its tasks see.
    version: Arc<OnceCell<String>>,
    /// Slices that are read, and their versions, by chunk; `None` for all rows.
    read: Mutex<BTreeMap<Option<u32>, Vec<Asked>>>,
}

/// A slice and its version.
type Asked = (InputSlice, String);

impl Served {
    /// The source `table`, whose version is asked for once for all that share `version`.
    pub fn new(table: &str, hook: &Arc<dyn SourceHook>, version: &Arc<OnceCell<String>>) -> Self {
        let (hook, version) = (Arc::clone(hook), Arc::clone(version));
        Self { table: table.to_string(), hook, version, read: Mutex::default() }
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

    /// Asks for the version of all rows, if no task of the run has.
    ///
    /// # Errors
    /// The hook's.
    pub async fn ask_version(&self) -> Result<()> {
        let all = self.all();
        self.version.get_or_try_init(|| self.hook.version(&all)).await.map(drop)
    }

    /// That all rows are what they were when a task of the run asked first.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] when they are not, and the hook's.
    pub async fn check_begun(&self) -> Result<()> {
        // What nobody asked for nobody has read.
        let Some(before) = self.version.get() else { return Ok(()) };
        if self.hook.version(&self.all()).await? == *before { Ok(()) } else { Err(self.changed()) }
    }

    fn changed(&self) -> Error {
        Error::new(ErrorKind::Source, format!("the source `{}` changed while it was read; run again", self.table))
    }

    /// The identity of all rows in this run.
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
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let of_chunk = read.entry(slice.chunk.map(|(chunk, _)| chunk)).or_default();
        // A scan that stands in a query twice asks twice.
        match of_chunk.iter().find(|(known, _)| *known == slice) {
            Some((_, before)) if *before != version => return Err(self.changed()),
            Some(_) => {}
            None => of_chunk.push((slice, version)),
        }
        Ok(identity)
    }

    fn named(&self, version: &str) -> Fingerprint {
        let schema = self.hook.schema();
        let columns = schema.fields().iter().map(|f| (f.name(), f.data_type(), f.is_nullable()));
        let columns = format!("{:?}", columns.collect::<Vec<_>>());
        let parts = [("source", self.table.as_str()), ("columns", &columns), ("version", version)];
        Fingerprint::of(parts.map(|(name, part)| (name, part.as_bytes())))
    }

    /// That what a chunk reads is what it was when its version was asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] when it is not, and the hook's.
    pub async fn check_unchanged(&self, chunk: u32) -> Result<()> {
        let of_chunk: Vec<_> = {
            let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            [None, Some(chunk)].iter().filter_map(|chunk| read.get(chunk)).flatten().cloned().collect()
        };
        for (slice, before) in of_chunk {
            if self.hook.version(&slice).await? != before {
                return Err(self.changed());
            }
        }
        Ok(())
    }
}
