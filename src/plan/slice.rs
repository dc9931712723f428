//! How the chunks of a step get their slices of an input.
//!
//! | mode | a chunk's slice |
//! |---|---|
//! | reuse | the input is stored by the same keys: the chunk opens the stored chunks that can hold its rows |
//! | rescan | the whole input, of which the chunk keeps its rows |
//! | replicate | the whole input |
//!
//! The modes differ in what is read, not in the rows: where more is read than the slice, the chunk's predicate stands
//! above the scan.

use serde::Serialize;

use crate::chunk::overlap::{are_nested, overlap};
use crate::plan::prove::{Input, Proof, Role};
use crate::plan::resolve::Scan;

/// How a chunk gets its part of an input.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InputMode {
    /// It opens those files of the input, stored by the same keys, that can hold its rows.
    Reuse,
    /// It reads the whole input and keeps its own rows.
    Rescan,
    /// It reads and keeps the whole input.
    Replicate,
}

/// How a table is stored: a row's chunk is the bucket of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The key columns, in order.
    pub keys: Vec<String>,
    /// Number of chunks.
    pub chunks: u32,
}

impl Stored {
    /// How the table that `proof` makes is stored; `None` when its columns don't say a row's chunk.
    pub fn by(proof: &Proof) -> Option<Self> {
        let keys = proof.stored_by().to_vec();
        (!keys.is_empty()).then_some(Self { keys, chunks: proof.chunks() })
    }
}

/// What of an input a chunk has to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// How.
    pub mode: InputMode,
    /// Number of chunks that the input is stored in; 1 when it is read whole.
    pub stored_chunks: u32,
    /// Whether what is read are the chunk's rows and no others.
    pub is_exact: bool,
}

impl Slice {
    /// How the chunks of `proof` get their slices of its scan number `scan`, which is this one.
    pub fn of(proof: &Proof, number: usize, scan: &Scan) -> Self {
        let whole = |mode| Self { mode, stored_chunks: 1, is_exact: false };
        let Some(Input { role: Role::Partitioned { keys, names: _ }, .. }) = proof.inputs().get(number) else {
            return Self { is_exact: true, ..whole(InputMode::Replicate) };
        };
        let Some(stored) = &scan.stored else { return whole(InputMode::Rescan) };
        // A bare column hashes as its own type does, in the stored table and here.
        let columns = keys.iter().map(|key| Some(scan.schema.field(key.as_column()?).name()));
        let is_same = columns.eq(stored.keys.iter().map(Some));
        if !is_same || !are_nested(proof.chunks(), stored.chunks) {
            return whole(InputMode::Rescan);
        }
        let is_exact = stored.chunks.is_multiple_of(proof.chunks());
        Self { mode: InputMode::Reuse, stored_chunks: stored.chunks, is_exact }
    }

    /// Numbers of the stored chunks that can hold rows of chunk `chunk` of `chunks`.
    pub fn stored(&self, chunk: u32, chunks: u32) -> impl Iterator<Item = u32> {
        let chunks = if self.mode == InputMode::Reuse { chunks } else { 1 };
        overlap(chunk, chunks, self.stored_chunks)
    }
}
