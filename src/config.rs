//! Settings of an engine, as plain data.

use std::path::PathBuf;

/// What an engine is told once; see [`crate::engine::EngineBuilder`] for how to set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Folder of the cache and the published tables. Default: `.chunkwise`.
    pub cache_folder: PathBuf,
    /// Chunks that run at a time, at least 1. Default: the number of processors.
    pub jobs: usize,
    /// Bytes that all running chunks' operators may hold together; sorts and aggregates spill beyond it.
    /// `None`, the default, sets no limit.
    pub memory_limit_bytes: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cache_folder: PathBuf::from(".chunkwise"),
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            memory_limit_bytes: None,
        }
    }
}
