//! Hooks: how a task is cut and its chunks are run, what it reads in place of an input, and what is done with its rows.
//!
//! | hook | decides |
//! |---|---|
//! | [`InvocationHook`] | into which chunks a task is cut, and in which order they run |
//! | [`DematerializationHook`] | what the task reads in place of one of its inputs |
//! | [`SourceHook`] | where the rows of a custom source come from |
//! | [`MaterializationHook`] | what becomes of the rows of each chunk, and whether the whole is published |
//!
//! Those of tasks get one [`HookContext`]: there is no other state. [`Batched`], [`ByRange`], [`ByValue`], [`ByExpr`] and [`Whole`] are
//! written with nothing else than what is public here.

mod context;
mod input;
mod invocation;
mod output;
mod source;

pub use context::HookContext;
pub use input::{DematerializationHook, InputPlan};
pub use invocation::{Batched, ByExpr, ByRange, ByValue, Chunks, Cut, InvocationContext, InvocationHook, Whole};
pub use output::{ChunkFile, ChunkRows, FinishedTable, MaterializationHook, OutputChunk};
pub use source::{InputSlice, SourceHook, UserSource};
