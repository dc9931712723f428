//! For this project's own tests and benches: rules of the prover switched off, scans in another order, planning alone.
//! Not for use: what runs under it may be wrong, and nothing here is kept from version to version.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::datasource::empty::EmptyTable;
use datafusion::logical_expr::LogicalPlan;

use crate::chunk::bucket::{bucket_of, hash_keys};
use crate::error::{Error, ErrorKind, Result};
use crate::execute::session::{runtime, session};
use crate::pipeline::Pipeline;
use crate::plan::prove::rule::Rules;
use crate::plan::resolve::{Known, Resolved, resolve};
use crate::plan::rewrite::{Piece, Provided, rewrite};
use crate::plan::steps::steps;
use crate::task::Task;

pub use crate::execute::split::file::SplitFile;
pub use crate::execute::split::{SplitSize, SplitWriter};
pub use crate::execute::write::spilled_bytes;
pub use crate::plan::prove::rule::Rule;
pub use crate::plan::repair::{EquijoinsOfOneKind, JoinsOfOneKind};

/// A task ready to be proved.
#[derive(Debug)]
pub struct Planning {
    task: Task,
    resolved: Resolved,
}

impl Planning {
    /// Resolves the task `name` over inputs with these columns, each a gigabyte large.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when there is no such task, [`ErrorKind::Sql`] when its query is invalid.
    pub fn new(pipeline: &Pipeline, name: &str, inputs: &BTreeMap<String, SchemaRef>) -> Result<Self> {
        let task = pipeline.task(name).ok_or_else(|| Error::new(ErrorKind::Usage, format!("no task `{name}`")))?;
        let known =
            |schema: &SchemaRef| Known { schema: Arc::clone(schema), bytes: 1 << 30, stored: None, row_groups: None };
        let inputs = inputs.iter().map(|(name, schema)| (name.clone(), known(schema))).collect();
        let state = session(runtime(None, None)?, None);
        Ok(Self { task: task.clone(), resolved: resolve(task, pipeline, &inputs, &state)? })
    }

    /// Proves the task and makes the plans of all its chunks, over tables without rows.
    ///
    /// # Errors
    /// When the task is refused.
    pub fn prove_and_rewrite(&self) -> Result<Vec<LogicalPlan>> {
        let failed = |e: DataFusionError| Error::new(ErrorKind::Execute, "a chunk can't be planned").with_source(e);
        let mut plans = Vec::new();
        for step in steps(&self.task, self.resolved.clone(), Rules::default(), 1, &[])? {
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

/// The chunk of each of `rows` key tuples, a column per key part.
///
/// # Errors
/// [`ErrorKind::Execute`] when a column can't be a key or is not `rows` long.
pub fn chunk_numbers(keys: &[ArrayRef], rows: usize, chunks: u32) -> Result<Int32Array> {
    let failed = |e| Error::new(ErrorKind::Execute, "rows can't be cut").with_source(e);
    Ok(hash_keys(keys, rows).map_err(failed)?.into_iter().map(|hash| bucket_of(hash, chunks)).collect())
}
