//! What a step is.

use std::sync::Arc;

use crate::chunk::ChunkFunction;
use crate::error::Result;
use crate::plan::need::Need;
use crate::plan::pass::Pass;
use crate::plan::prove::Considered;
use crate::plan::prove::proof::Proof;
use crate::plan::resolve::{Resolved, published};
use crate::plan::slice::Slice;
use crate::plan::steps::size::Fit;
use crate::task::{ReadBy, Task};

/// One step: a query of its own over sources, tasks and earlier steps.
#[derive(Debug, Clone)]
pub struct Step {
    /// The task's name for the last step, `name#1`, `name#2`, … for those before it.
    pub name: String,
    /// Its query over numbered scans.
    pub resolved: Resolved,
    /// How it is cut.
    pub proof: Proof,
    /// Why it is a step.
    pub part: Part,
    /// When the engine chose the key: each key that it looked at and what it found.
    pub considered: Vec<Considered>,
    /// What it needs of each scan, by number; nothing until that is known.
    pub needs: Vec<Need>,
    /// In how many parts, one after the other, each chunk is computed: more than one where memory asks for more chunks
    /// than are kept.
    pub parts: u32,
    /// How several of its chunks are computed at once; nothing until that is known.
    pub pass: Option<Pass>,
    /// Whether its chunks are told by all that the step reads, so that any change of it runs all of them.
    pub told_as_one: bool,
    /// Whether it runs whole since it holds little of its inputs at a time.
    pub holds_little: bool,
    /// What it takes to run the query whole, of the last step of a large task whose cut is the engine's choice.
    pub whole: Option<Fit>,
    /// What planning left out, for EXPLAIN.
    pub notes: Vec<String>,
}

impl Step {
    /// Gives its columns the form in which the table of `task` has them.
    ///
    /// # Errors
    /// As [`published`].
    pub(super) fn publish(&mut self, task: &Task) -> Result<()> {
        let schema = published(self.proof.schema(), task)?;
        self.proof = self.proof.clone().published_as(Arc::clone(&schema));
        self.resolved.schema = schema;
        Ok(())
    }

    /// Bytes that it needs of its inputs' files, about.
    pub fn bytes(&self) -> u64 {
        self.needs.iter().map(|need| need.bytes).sum()
    }

    /// Bytes that a row of all its inputs together takes in memory, about.
    pub fn row_bytes(&self) -> u64 {
        self.needs.iter().map(|need| need.row_bytes).sum()
    }

    /// Bytes that a reader of an input has before rows come of it, at most.
    pub fn reading_bytes(&self) -> u64 {
        self.needs.iter().map(|need| need.reading_bytes).max().unwrap_or_default()
    }

    /// How often an input that is not stored by its keys is read where all of its chunks run.
    pub fn reads(&self) -> u32 {
        let chunks = self.proof.chunks();
        self.pass.as_ref().map_or(chunks, |pass| chunks.div_ceil(pass.most_chunks))
    }

    /// The passes in which some of its chunks are computed; none where they run one by one.
    pub fn passes(&self, chunks: &[u32]) -> Vec<Vec<u32>> {
        let is_range = matches!(self.proof.function(), ChunkFunction::Range(_));
        let least = if is_range { self.proof.chunks() as usize } else { 2 };
        let pass = self.pass.as_ref().filter(|_| chunks.len() >= least.max(2));
        pass.map_or_else(Vec::new, |pass| pass.passes(chunks))
    }

    /// How its chunks, for which inputs are read `runs` times, get their slices of a scan, by number.
    pub fn slice(&self, number: usize, runs: u32, read_by: Option<ReadBy>) -> Option<Slice<'_>> {
        let slice = Slice::of(&self.proof, number, self.resolved.scans.get(number)?);
        Some(match self.needs.get(number) {
            Some(need) => slice.chosen(need, runs, read_by),
            None => slice,
        })
    }
}

/// What a step is of its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The chunks' part of an operator that is done in two phases.
    Phase,
    /// A part of the query that the rest can't compute chunk by chunk.
    First,
    /// A part that the query reads more than once.
    Repeated,
    /// The input of an operator that can't be cut.
    Below,
    /// What the task's function stores on its way.
    Materialized,
    /// The whole query, or the rest of it.
    Rest,
}
