//! How the chunks of a step get their slices of an input.
//!
//! | mode | a chunk's slice |
//! |---|---|
//! | reuse | the input is stored by the same keys: the chunk opens the stored chunks that can have its rows |
//! | range | the input is clustered by the key: the chunk opens the row groups that can have its rows |
//! | serve | the hook that gives the source's rows is asked for the chunk's |
//! | split | one pass cuts what is needed of the input into files, and the chunk reads its own |
//! | rescan | the whole input, of which the chunk keeps its rows |
//! | replicate | the whole input |
//!
//! The modes differ in what is read, not in the rows: where more is read than the slice, the chunk's predicate stands
//! above the scan.

use serde::Serialize;

use crate::chunk::ChunkFunction;
use crate::chunk::range::compare_alike;
use crate::plan::clustering::{Interval, RowGroup};
use crate::plan::keys::expr::KeyExpr;
use crate::plan::need::Need;
use crate::plan::prove::proof::{Input, Proof, Role};
use crate::plan::resolve::Scan;
use crate::plan::split::is_worth_it;
use crate::task::ReadBy;

/// How a chunk gets its part of an input.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InputMode {
    /// It opens those files of the input, stored by the same keys, that can have its rows.
    Reuse,
    /// It opens those row groups of the input, clustered by the key, that can have its rows.
    Range,
    /// It asks the hook that gives the source's rows for its own.
    Serve,
    /// It reads its part of what one pass over the input, before any chunk, has cut.
    Split,
    /// It reads the whole input and keeps its own rows.
    Rescan,
    /// It reads and keeps the whole input.
    Replicate,
}

impl InputMode {
    /// Whether each row of the whole input is given to its chunk, in one pass or one for each chunk.
    pub fn is_cut(self) -> bool {
        matches!(self, Self::Split | Self::Rescan)
    }
}

/// How a table is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The key columns, in order.
    pub keys: Vec<String>,
    /// The function from a row's keys to its chunk.
    pub function: ChunkFunction,
}

impl Stored {
    /// How the table that `proof` makes is stored; `None` when its columns don't say a row's chunk.
    pub fn by(proof: &Proof) -> Option<Self> {
        let keys = proof.stored_by().to_vec();
        (!keys.is_empty()).then(|| Self { keys, function: proof.function().clone() })
    }

    /// Whether the keys of a scan are the columns that it is stored by, so that both functions see the same values. A
    /// bare column hashes as its own type does, in the stored table and here.
    pub fn has_keys(&self, keys: &[KeyExpr], scan: &Scan) -> bool {
        let fields = keys.iter().map(|key| Some(scan.schema.field(key.as_column()?)));
        let is_alike = |at: usize, data_type| match &self.function {
            ChunkFunction::Hash(_) => true,
            ChunkFunction::Range(bounds) => compare_alike(bounds.data_type(), data_type),
            ChunkFunction::Cases(cases) => cases.types().nth(at) == Some(data_type),
            ChunkFunction::Branches(_) | ChunkFunction::PerInput(_) => false,
        };
        keys.len() == self.keys.len()
            && fields
                .zip(&self.keys)
                .enumerate()
                .all(|(at, (field, name))| field.is_some_and(|f| f.name() == name && is_alike(at, f.data_type())))
    }
}

/// What of an input the chunks of a step have to read.
#[derive(Debug)]
pub struct Slice<'a> {
    mode: InputMode,
    function: &'a ChunkFunction,
    stored: Option<&'a ChunkFunction>,
    groups: Vec<(RowGroup, Interval)>,
}

impl<'a> Slice<'a> {
    /// How the chunks of `proof` get their slices of its scan number `number`, which is `scan`.
    pub fn of(proof: &'a Proof, number: usize, scan: &'a Scan) -> Self {
        let function = proof.function();
        let slice = |mode| Self { mode, function, stored: None, groups: Vec::new() };
        let Some(Input { role: Role::Partitioned { keys, names: _ }, .. }) = proof.inputs().get(number) else {
            return slice(InputMode::Replicate);
        };
        if let Some(stored) = &scan.stored
            && stored.has_keys(keys, scan)
            && function.overlap(0, &stored.function).is_some()
        {
            return Self { stored: Some(&stored.function), ..slice(InputMode::Reuse) };
        }
        if scan.is_served {
            return slice(InputMode::Serve);
        }
        if let (ChunkFunction::Range(_), [key]) = (function, keys.as_slice()) {
            let slice = Self { groups: clustering(key, scan), ..slice(InputMode::Range) };
            if !slice.groups.is_empty() && slice.opened_bytes() <= MOST_OPENED * slice.bytes() {
                return slice;
            }
        }
        slice(InputMode::Rescan)
    }

    /// The same, with a split in place of a rescan.
    pub fn by_split(self) -> Self {
        match self.mode {
            InputMode::Rescan => Self { mode: InputMode::Split, ..self },
            _ => self,
        }
    }

    /// With a split if `read_by` says so, or if that costs less than that `runs` chunks read what is needed.
    pub fn chosen(self, need: &Need, runs: u32, read_by: Option<ReadBy>) -> Self {
        let splits = match read_by {
            Some(ReadBy::Split) => true,
            Some(ReadBy::Rescan) => false,
            None => is_worth_it(need.bytes, runs),
        };
        if splits { self.by_split() } else { self }
    }

    /// The mode.
    pub fn mode(&self) -> InputMode {
        self.mode
    }

    /// The stored chunks that a chunk opens, and of how many; for [`InputMode::Reuse`].
    pub fn stored(&self, chunk: u32) -> Option<(Vec<u32>, u32)> {
        let stored = self.stored?;
        let (opened, _) = self.function.overlap(chunk, stored)?;
        Some((opened, stored.chunks()))
    }

    /// The row groups that a chunk opens; for [`InputMode::Range`].
    pub fn row_groups(&self, chunk: u32) -> Vec<RowGroup> {
        let ChunkFunction::Range(bounds) = self.function else { return Vec::new() };
        let range = bounds.range(chunk);
        self.groups.iter().filter(|(_, interval)| interval.meets(&range)).map(|(group, _)| *group).collect()
    }

    /// Whether what a chunk reads are its rows and no others.
    pub fn is_exact(&self, chunk: u32) -> bool {
        let is_exact = self.stored.and_then(|stored| self.function.overlap(chunk, stored));
        matches!(self.mode, InputMode::Replicate | InputMode::Split) || is_exact.is_some_and(|(_, is_exact)| is_exact)
    }

    /// Bytes of the row groups; for [`InputMode::Range`].
    pub fn bytes(&self) -> u64 {
        self.groups.iter().map(|(group, _)| group.bytes).sum()
    }

    /// Bytes of the row groups that the chunks open, all together; for [`InputMode::Range`].
    pub fn opened_bytes(&self) -> u64 {
        (0..self.function.chunks()).flat_map(|chunk| self.row_groups(chunk)).map(|group| group.bytes).sum()
    }
}

/// A table is clustered by a key when its chunks together read it at most so many times.
const MOST_OPENED: u64 = 2;

/// The row groups of a scan with the values that the key has in each; none when that is not known.
pub fn clustering(key: &KeyExpr, scan: &Scan) -> Vec<(RowGroup, Interval)> {
    let known = || {
        let groups = scan.row_groups.as_ref()?;
        let column = scan.schema.field(key.as_column()?);
        let intervals = groups.intervals(column.name()).filter(|_| column.data_type() == key.data_type())?;
        Some(groups.all().into_iter().zip(intervals).collect())
    };
    known().unwrap_or_default()
}
