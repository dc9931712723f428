//! Sources of the user's own: rows that come from a service, slice by slice.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::logical_expr::Expr;

use crate::error::{Location, Result};

/// Where the rows of a custom source come from: a database, a service, a format of the user's own.
///
/// A chunk of a task that is cut by columns of the source asks for its slice alone, any other for all rows. The engine still
/// keeps only the chunk's rows of what it is given, so a slice may have more than these, but must not have less. Where a task is
/// cut by predicates of each input, all rows are read once for each version to check these.
#[async_trait]
pub trait SourceHook: fmt::Debug + Send + Sync {
    /// Columns of the source. They must not change while it is in use.
    fn schema(&self) -> SchemaRef;

    /// Its size in bytes, about, by which the engine decides what is worth to be cut; more than a pebibyte counts as that.
    /// Default: 1.
    fn bytes(&self) -> u64 {
        1
    }

    /// What tells the rows of a slice from those of another time: a number that grows with each change, a time, a hash. The
    /// same text means the same rows, and nothing is read then that was computed of them. That of all rows must change whenever
    /// that of a slice does.
    ///
    /// It is asked for all rows once in a run, before the first task reads them, and for the slice of each chunk, up to 16 at a
    /// time. Both are asked for again when a chunk, or a task, is done: one that read what changed meanwhile fails.
    ///
    /// # Errors
    /// What stops the task.
    async fn version(&self, slice: &InputSlice) -> Result<String>;

    /// The rows of a slice, lazily: at least those for which its predicate holds. A chunk may ask for them more than once.
    ///
    /// # Errors
    /// What stops the chunk.
    async fn read(&self, slice: &InputSlice) -> Result<Arc<dyn TableProvider>>;
}

/// What a chunk, or all of them, needs of a source.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub struct InputSlice {
    /// Name of the source.
    pub table: String,
    /// The chunk, from 0, and the number of chunks; `None` for all rows, which every chunk may see.
    pub chunk: Option<(u32, u32)>,
    /// Which rows are in it, over the source's columns by their bare names; `None` for all. Of chunks by hash that is a
    /// comparison of [`chunk_of`](crate::chunk_of_udf), of others one of the columns themselves.
    pub predicate: Option<Expr>,
}

/// A source of a pipeline whose rows come from a hook; it is added with
/// [`PipelineBuilder::with`](crate::PipelineBuilder::with).
#[derive(Debug, Clone)]
pub struct UserSource {
    pub(crate) name: String,
    pub(crate) hook: Arc<dyn SourceHook>,
    pub(crate) location: Location,
}

impl UserSource {
    /// The source `name`.
    #[track_caller]
    pub fn new(name: impl Into<String>, hook: impl SourceHook + 'static) -> Self {
        Self { name: name.into(), hook: Arc::new(hook), location: Location::caller() }
    }
}
