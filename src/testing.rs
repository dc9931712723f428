//! For this project's own tests and benches: rules of the prover switched off, scans in another order, planning alone.
//! Not for use: what runs under it may be wrong, and nothing here is kept from version to version.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::datasource::empty::EmptyTable;
use datafusion::logical_expr::LogicalPlan;

use crate::cache::index::{self, Index};
use crate::cache::store::ChunkEntry;
use crate::chunk::bucket::{bucket_of, hash_keys};
use crate::error::{Error, ErrorKind, Result};
use crate::execute::checksum::Checksum;
use crate::execute::content::Content;
use crate::execute::session::{runtime, session};
use crate::pipeline::Pipeline;
use crate::plan::components::Components;
use crate::plan::fingerprint::Fingerprint;
use crate::plan::prove::proof::Role;
use crate::plan::prove::rule::Rules;
use crate::plan::resolve::{Known, ResolvedTask, resolve};
use crate::plan::rewrite::{Piece, Provided, rewrite};
use crate::plan::steps::size::Fit;
use crate::plan::steps::{Step, steps, steps_and_work};
use crate::task::Task;

/// What fits in memory, and is worth to be cut.
const LARGE: Fit = Fit { chunks: 1, most: 1, bytes: u64::MAX, held: None, given: None, most_held: None };

pub use crate::execute::content::RowHasher;
pub use crate::execute::split::file::SplitFile;
pub use crate::execute::split::{SplitSize, SplitWriter};
pub use crate::execute::write::spilled_bytes;
pub use crate::failpoint::faults::inject as inject_faults;
pub use crate::plan::prove::rule::Rule;
pub use crate::plan::repair::{EquijoinsOfOneKind, JoinsOfOneKind};

/// A task ready to be proved.
#[derive(Debug)]
pub struct Planning {
    task: Task,
    query: ResolvedTask,
}

impl Planning {
    /// Resolves the task `name` over inputs with these columns, each a gigabyte large.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when there is no such task, [`ErrorKind::Sql`] when its query is invalid.
    pub fn new(pipeline: &Pipeline, name: &str, inputs: &BTreeMap<String, SchemaRef>) -> Result<Self> {
        let task = pipeline.task(name).ok_or_else(|| Error::new(ErrorKind::Usage, format!("no task `{name}`")))?;
        let known = |schema: &SchemaRef| Known { has_order: true, ..Known::new(Arc::clone(schema), 1 << 30) };
        let inputs = inputs.iter().map(|(name, schema)| (name.clone(), known(schema))).collect();
        let state = session(runtime(None, None)?, None);
        Ok(Self { task: task.clone(), query: resolve(task, pipeline, &inputs, &state, Rules::default())? })
    }

    /// What the chunk 0 of each step of the task is named by, over inputs whose rows don't change.
    ///
    /// # Errors
    /// When the task is refused.
    pub fn names(&self) -> Result<Vec<Fingerprint>> {
        let failed = |e: DataFusionError| Error::new(ErrorKind::Sql, "a step has no name").with_source(e);
        let steps = steps(&self.task, self.query.clone(), Rules::default(), &|_| LARGE, &|_, _| None, &[])?;
        let rows = Fingerprint::from_bytes([0; 32]);
        let name = |step: &Step| {
            let inputs = step.resolved.scans.iter().map(|scan| (scan.table.clone(), rows)).collect();
            let is_last = step.name == self.task.name;
            let components = Components::of(&self.task, &step.resolved, &step.proof, &inputs, "run", is_last)?;
            Ok(components.chunk(0, Components::default()))
        };
        steps.iter().map(name).collect::<datafusion::common::Result<_>>().map_err(failed)
    }

    /// Nodes of plans that are looked at to prove the task, and why it is refused, if it is.
    pub fn work(&self) -> (usize, Option<Error>) {
        let (steps, nodes) =
            steps_and_work(&self.task, self.query.clone(), Rules::default(), &|_| LARGE, &|_, _| None, &[]);
        (nodes, steps.err())
    }

    /// How many scans the step that gives the task's table cuts; 0 when it is refused.
    pub fn cut_scans(&self) -> usize {
        let steps =
            steps(&self.task, self.query.clone(), Rules::default(), &|_| LARGE, &|_, _| None, &[]).unwrap_or_default();
        let inputs = steps.last().map_or(&[][..], |step| step.proof.inputs());
        inputs.iter().filter(|input| matches!(input.role, Role::Partitioned { .. })).count()
    }

    /// Proves the task and makes the plans of all its chunks, over tables without rows.
    ///
    /// # Errors
    /// When the task is refused.
    pub fn prove_and_rewrite(&self) -> Result<Vec<LogicalPlan>> {
        let failed = |e: DataFusionError| Error::new(ErrorKind::Execute, "a chunk can't be planned").with_source(e);
        let mut plans = Vec::new();
        for step in steps(&self.task, self.query.clone(), Rules::default(), &|_| LARGE, &|_, _| None, &[])? {
            let tables: Vec<Arc<dyn TableProvider>> = step
                .resolved
                .scans
                .iter()
                .map(|scan| Arc::new(EmptyTable::new(Arc::clone(&scan.schema))) as Arc<dyn TableProvider>)
                .collect();
            for chunk in 0..step.proof.chunks() {
                plans.push(
                    rewrite(&step.proof, Piece::whole(chunk), &|scan| {
                        Ok(Provided { table: Arc::clone(&tables[scan]), is_exact: false })
                    })
                    .map_err(failed)?,
                );
            }
        }
        Ok(plans)
    }
}

/// Adds rows of `count` chunks that are not there to the index of a cache, all of one table; returns their fingerprints.
///
/// # Errors
/// [`ErrorKind::Storage`] when the index can't be written.
pub fn add_rows(cache: &Path, count: u32) -> Result<Vec<Fingerprint>> {
    let (index, _) = Index::open(&cache.join(index::FILE))?;
    let entry = |chunk: u32| ChunkEntry {
        fingerprint: Fingerprint::of([("chunk", chunk.to_le_bytes().as_slice())]),
        table: "a_table_of_rows_alone".into(),
        chunk,
        chunks: count,
        keys: vec!["key".into()],
        rows: 1_000_000,
        bytes: 100_000_000,
        written_unix_ns: 1 << 60,
        checksum: Checksum::from_bytes([1; 32]),
        content: Content::default(),
    };
    let entries: Vec<_> = (0..count).map(|chunk| (entry(chunk), Components::default())).collect();
    index.add_all(&entries, &[])?;
    Ok(entries.into_iter().map(|(entry, _)| entry.fingerprint).collect())
}

/// Opens the index of a cache, as each process does, and looks chunks up; returns how many it has.
///
/// # Errors
/// [`ErrorKind::Storage`] when the index can't be read.
pub fn find_rows(cache: &Path, chunks: &[Fingerprint]) -> Result<usize> {
    let (index, _) = Index::open(&cache.join(index::FILE))?;
    Ok(index.find(chunks)?.into_iter().flatten().count())
}

/// The chunk of each of `rows` key tuples, a column per key part.
///
/// # Errors
/// [`ErrorKind::Execute`] when a column can't be a key or is not `rows` long.
pub fn chunk_numbers(keys: &[ArrayRef], rows: usize, chunks: u32) -> Result<Int32Array> {
    let failed = |e| Error::new(ErrorKind::Execute, "rows can't be cut").with_source(e);
    Ok(hash_keys(keys, rows).map_err(failed)?.into_iter().map(|hash| bucket_of(hash, chunks)).collect())
}
