//! How a task is cut: the key columns, the number of chunks, and the function that maps a key to a chunk.
//!
//! The chunk function is [`bucket`]'s: Iceberg's bucket transform. A row whose keys are all NULL is in chunk 0.

pub mod bucket;
pub mod key;
pub mod overlap;

/// Chunks of a task whose key the engine finds, unless it says how many.
pub const DEFAULT_CHUNKS: u32 = 16;

/// A task that says nothing of its cut has a chunk for about as many bytes of its inputs' files, at most
/// [`DEFAULT_CHUNKS`].
pub const BYTES_PER_CHUNK: u64 = 256 << 20;

/// The most chunks that one task may have.
pub const MAX_CHUNKS: u32 = 4096;

/// The columns a task is cut by and into how many chunks: `CLUSTERED BY (keys) INTO chunks BUCKETS`, or
/// `WITH (chunk_by = 'auto', chunks = chunks)` without keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chunking {
    /// Column names of the query's inputs or output, in order, already normalised (lower case unless quoted); none when
    /// the engine is to find the key.
    pub keys: Vec<String>,
    /// Number of chunks, 1 to [`MAX_CHUNKS`].
    pub chunks: u32,
}
