//! The plan that cuts an input into chunks in one pass.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::{Column, Result};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Operator, lit};

use crate::arithmetic::terms::together;
use crate::chunk::ChunkFunction;
use crate::chunk::bucket::chunk_of_udf;
use crate::chunk::range::range_of_udf;
use crate::plan::keys::expr::KeyExpr;
use crate::plan::need::Need;

/// Name of the last column of rows that say their chunk: its number.
pub const CHUNK: &str = "$chunk";

/// A split is worth its writing when it spares the reading of so many bytes.
const LEAST_SPARED_BYTES: u64 = 64 << 20;

/// What a split costs, in readings of the input: one to read it, and what it takes to write the rows and read them back.
const COST: u64 = 3;

/// Whether it costs less to cut an input of so many bytes once than that each of `runs` chunks reads it.
pub fn is_worth_it(bytes: u64, runs: u32) -> bool {
    u64::from(runs).saturating_sub(COST) * bytes > LEAST_SPARED_BYTES
}

/// The rows of `table` that are needed, the needed columns in order and last the number of the chunk by `function` of
/// `keys`.
///
/// # Errors
/// DataFusion's when a column is not there.
pub fn split_plan(
    table: Arc<dyn TableProvider>,
    need: &Need,
    function: &ChunkFunction,
    keys: &[KeyExpr],
) -> Result<LogicalPlan> {
    let mut plan = LogicalPlanBuilder::scan("input", provider_as_source(table), None)?;
    let columns = plan.schema().columns();
    if let Some(filter) = together(Operator::And, need.filters.clone()) {
        plan = plan.filter(filter)?;
    }
    let needed = need.columns.iter().filter_map(|at| columns.get(*at)).cloned().map(Expr::Column);
    let number = number(function, keys, &columns)?.alias(CHUNK);
    plan.project(needed.chain([number]))?.build()
}

/// The chunk of a row with these columns, an `Int32`.
///
/// # Errors
/// Where the keys are not those of the function.
pub fn number(function: &ChunkFunction, keys: &[KeyExpr], columns: &[Column]) -> Result<Expr> {
    let over = |key: &KeyExpr| key.over(columns);
    match (function, keys) {
        (ChunkFunction::Hash(1), _) => Ok(lit(0i32)),
        (ChunkFunction::Hash(chunks), keys) => {
            Ok(chunk_of_udf().call([lit(*chunks as i32)].into_iter().chain(keys.iter().map(over)).collect()))
        }
        (ChunkFunction::Range(bounds), [key]) => Ok(range_of_udf(bounds.clone()).call(vec![over(key)])),
        (ChunkFunction::Range(_), _) => datafusion::common::internal_err!("ranges are of one key"),
        // The key is the chunk.
        (ChunkFunction::PerInput(_), [key]) => Ok(over(key)),
        (ChunkFunction::PerInput(_), _) => datafusion::common::internal_err!("predicates of inputs are one key"),
        (ChunkFunction::Cases(cases), keys) => Ok(cases.number(&keys.iter().map(over).collect::<Vec<_>>())),
        (ChunkFunction::Branches(_), _) => datafusion::common::internal_err!("a chunk with its own query has no keys"),
    }
}
