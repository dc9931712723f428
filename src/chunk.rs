//! How a task is cut: the key columns, the number of chunks, and the function that maps a key to a chunk.
//!
//! The chunk function is [`bucket`]'s, Iceberg's bucket transform, or one of ranges of the key, see [`mod@range`], or of
//! predicates over the keys, see [`cases`]; a row whose keys are all NULL is in chunk 0. Or each input has predicates over
//! its own columns, see [`only`].

pub mod bucket;
pub mod cases;
pub mod given;
pub mod key;
pub mod only;
pub mod overlap;
pub mod range;

use crate::chunk::cases::Cases;
use crate::chunk::given::Given;
use crate::chunk::overlap::{are_nested, overlap};
use crate::chunk::range::Bounds;

/// Chunks of a task whose key the engine finds, unless it says how many.
pub const DEFAULT_CHUNKS: u32 = 16;

/// A task that says nothing of its cut is cut if its inputs' files have so many bytes.
pub const LEAST_CUT_BYTES: u64 = 512 << 20;

/// It has a chunk for about as many of these bytes, at most [`MOST_CHUNKS_BY_SIZE`]: smaller chunks, whose rows stay
/// nearer to the processor, take less time than larger ones, as far as many files are no burden.
pub const BYTES_PER_CHUNK: u64 = 16 << 20;

/// See [`BYTES_PER_CHUNK`]; memory may ask for more.
pub const MOST_CHUNKS_BY_SIZE: u32 = 64;

/// The most chunks that one task may have.
pub const MAX_CHUNKS: u32 = 4096;

/// The most parts that a chunk is done in where memory is short.
pub const MAX_PARTS: u32 = 64;

/// The columns a task is cut by and into how many chunks: `CLUSTERED BY (keys) INTO chunks BUCKETS`, or
/// `WITH (chunk_by = 'auto', chunks = chunks)` without keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chunking {
    /// Column names of the query's inputs or output, in order, already normalised (lower case unless quoted); none when
    /// the engine is to find the key, and one that is no column's where inputs have predicates of their own.
    pub keys: Vec<String>,
    /// Number of chunks, 1 to [`MAX_CHUNKS`]; about as many when they are ranges.
    pub chunks: u32,
    /// The chunk functions that may be taken.
    pub by: ChunkBy,
}

impl Chunking {
    /// As many chunks by whatever key the engine finds.
    pub fn by_any_key(&self) -> Self {
        let by = match &self.by {
            // They are of the keys.
            ChunkBy::Given(_) => ChunkBy::Auto,
            by => by.clone(),
        };
        Self { keys: Vec::new(), chunks: self.chunks, by }
    }
}

/// Which chunk functions a task may be cut with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ChunkBy {
    /// The bucket of the keys' hash: the only one for keys and a number of chunks that are given.
    Hash,
    /// Ranges of the key.
    Range,
    /// Ranges where that saves work, else the hash.
    Auto,
    /// Ranges, values or predicates of the keys, or predicates of each input.
    Given(Given),
}

/// The function from a row's keys to its chunk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ChunkFunction {
    /// The bucket of the keys' hash, out of so many.
    Hash(u32),
    /// The range of the only key.
    Range(Bounds),
    /// The first predicate over the keys that holds.
    Cases(Cases),
    /// None: the rows of each of so many chunks come of a query of its own.
    Branches(u32),
    /// The only predicate over an input's own columns that holds, out of so many. The key of each input is the number of it,
    /// see [`only::only_chunk`].
    PerInput(u32),
}

impl ChunkFunction {
    /// Number of chunks, at least 1.
    pub fn chunks(&self) -> u32 {
        match self {
            Self::Hash(chunks) | Self::PerInput(chunks) | Self::Branches(chunks) => *chunks,
            Self::Range(bounds) => bounds.chunks(),
            Self::Cases(cases) => cases.chunks(),
        }
    }

    /// Whether a chunk can be cut further by the keys: rows of one key stay together.
    pub fn has_parts(&self) -> bool {
        match self {
            Self::Hash(_) | Self::Range(_) | Self::Cases(_) => true,
            Self::PerInput(_) | Self::Branches(_) => false,
        }
    }

    /// The chunks by `other` that can share rows with chunk `chunk`, and whether they have no others than it; `None` when
    /// nothing is known, so that all may. Keys of both must be of types that hash or compare alike.
    pub fn overlap(&self, chunk: u32, other: &Self) -> Option<(Vec<u32>, bool)> {
        match (self, other) {
            (Self::Hash(chunks), Self::Hash(others)) => {
                let is_exact = others.is_multiple_of(*chunks);
                are_nested(*chunks, *others).then(|| (overlap(chunk, *chunks, *others).collect(), is_exact))
            }
            (Self::Range(bounds), Self::Range(others)) => {
                let range = bounds.range(chunk);
                let shares: Vec<u32> = (0..others.chunks()).filter(|at| range.overlaps(&others.range(*at))).collect();
                let is_exact = shares.iter().all(|at| range.contains(&others.range(*at)));
                Some((shares, is_exact))
            }
            (Self::Cases(cases), Self::Cases(others)) => (cases == others).then(|| (vec![chunk], true)),
            (Self::Hash(_) | Self::Range(_) | Self::Cases(_) | Self::PerInput(_) | Self::Branches(_), _) => None,
        }
    }
}
