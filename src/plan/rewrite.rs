//! The plan of one chunk, or of a pass, from a proof.
//!
//! Every scan gets the provider of its input; above a partitioned one stands a `Filter` that keeps the rows of the
//! chunk, unless the provider gives no others. The filter is a node of its own: filters inside a scan are not checked
//! again by anyone.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::catalog::TableProvider;
use datafusion::common::Column;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, LogicalPlanBuilder, lit};

use crate::chunk::ChunkFunction;
use crate::chunk::bucket::chunk_of_udf;
use crate::plan::keys::expr::{KeyExpr, over};
use crate::plan::pass::Pass;
use crate::plan::prove::is_chunk_0;
use crate::plan::prove::proof::{Proof, Role};
use crate::plan::resolve::InputSource;
use crate::plan::split::number;

/// What a chunk reads in place of a scan.
#[derive(Debug, Clone)]
pub struct Provided {
    /// The rows.
    pub table: Arc<dyn TableProvider>,
    /// Whether they are all of the chunk.
    pub is_exact: bool,
}

/// A chunk, or a part of it: where a chunk needs too much memory it is done in parts, by another function of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Number of the chunk.
    pub chunk: u32,
    /// Number of the part, from 0.
    pub part: u32,
    /// Number of parts, at least 1.
    pub parts: u32,
}

impl Piece {
    /// All of a chunk.
    pub fn whole(chunk: u32) -> Self {
        Self { chunk, part: 0, parts: 1 }
    }

    /// The two pieces that it is made of; `None` when there are as many parts as numbers.
    pub fn halves(self) -> Option<[Self; 2]> {
        let Self { chunk, part, parts } = self;
        let half = |part| Self { chunk, part, parts: 2 * parts };
        parts.checked_mul(2).map(|_| [half(part), half(part + parts)])
    }
}

/// The plan of a piece of `proof`, its scans reading the providers that `provide` gives by scan number.
///
/// # Errors
/// What `provide` returns, and DataFusion's when a provider's schema is not the one that was planned with.
pub fn rewrite(
    proof: &Proof,
    piece: Piece,
    provide: &dyn Fn(usize) -> datafusion::common::Result<Provided>,
) -> datafusion::common::Result<LogicalPlan> {
    let is_first = piece.chunk == 0 && piece.part == 0;
    let kept = |keys: &[KeyExpr], columns: &[Column], is_exact: bool| match is_exact && piece.parts == 1 {
        true => Ok(None),
        false => in_piece(proof.function(), piece, keys, columns).map(Some),
    };
    read_from(proof.plan_of(piece.chunk)?, proof, is_first, provide, &kept)
}

/// The plan of a pass of `proof`, which computes `chunks`; as [`rewrite`].
///
/// # Errors
/// As [`rewrite`].
pub fn rewrite_pass(
    proof: &Proof,
    pass: &Pass,
    chunks: &[u32],
    provide: &dyn Fn(usize) -> datafusion::common::Result<Provided>,
) -> datafusion::common::Result<LogicalPlan> {
    let is_all = chunks.len() == proof.chunks() as usize;
    let kept = |keys: &[KeyExpr], columns: &[Column], is_exact: bool| match is_all || is_exact {
        true => Ok(None),
        false => {
            let numbers = chunks.iter().map(|chunk| lit(*chunk as i32)).collect();
            Ok(Some(number(proof.function(), keys, columns)?.in_list(numbers, false)))
        }
    };
    read_from(&pass.plan, proof, chunks.contains(&0), provide, &kept)
}

/// Which of the rows of a partitioned input with these keys and columns are kept, if the rows that are provided are not
/// exactly those.
type Kept<'a> = &'a dyn Fn(&[KeyExpr], &[Column], bool) -> datafusion::common::Result<Option<Expr>>;

/// A plan over the scans of `proof` that reads what `provide` gives, and keeps of it what `kept` says.
fn read_from(
    plan: &LogicalPlan,
    proof: &Proof,
    is_first: bool,
    provide: &dyn Fn(usize) -> datafusion::common::Result<Provided>,
    kept: Kept<'_>,
) -> datafusion::common::Result<LogicalPlan> {
    let is_chunk_0 = is_chunk_0();
    let rewritten = plan.clone().transform_up_with_subqueries(|node| {
        let mut scan = match node {
            LogicalPlan::TableScan(scan) => scan,
            LogicalPlan::Filter(filter) if filter.predicate == is_chunk_0 => {
                let filter = Filter::try_new(lit(is_first), filter.input)?;
                return Ok(Transformed::yes(LogicalPlan::Filter(filter)));
            }
            other => return Ok(Transformed::no(other)),
        };
        let Some(number) = scan.source.downcast_ref::<InputSource>().and_then(InputSource::scan) else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        let columns: Vec<Column> = scan.projected_schema.columns();
        let Provided { table, is_exact } = provide(number)?;
        if table.schema() != scan.source.schema() {
            let message = format!("the columns of {} changed since the task was planned", scan.table_name);
            return Err(datafusion::common::DataFusionError::Plan(message));
        }
        scan.source = provider_as_source(table);
        let plan = LogicalPlan::TableScan(scan);
        match proof.inputs().get(number).map(|input| &input.role) {
            Some(Role::Partitioned { keys, names: _ }) => Ok(Transformed::yes(match kept(keys, &columns, is_exact)? {
                Some(kept) => LogicalPlanBuilder::from(plan).filter(kept)?.build()?,
                None => plan,
            })),
            Some(Role::Replicated { .. }) => Ok(Transformed::yes(plan)),
            None => Err(datafusion::common::DataFusionError::Internal(format!("scan {number} is not in the proof"))),
        }
    })?;
    Ok(rewritten.data)
}

/// Whether a row of scan number `scan` is in chunk `chunk`, over its columns by their bare names; `None` when all rows are.
///
/// # Errors
/// When the keys are not those of the chunk function.
pub fn in_chunk(proof: &Proof, scan: usize, chunk: u32, schema: &Schema) -> datafusion::common::Result<Option<Expr>> {
    let Some(Role::Partitioned { keys, names: _ }) = proof.inputs().get(scan).map(|input| &input.role) else {
        return Ok(None);
    };
    let columns = schema.fields().iter().map(|field| Column::new_unqualified(field.name()));
    in_piece(proof.function(), Piece::whole(chunk), keys, &columns.collect::<Vec<_>>()).map(Some)
}

/// Whether a row with these columns is in the piece.
fn in_piece(
    function: &ChunkFunction,
    Piece { chunk, part, parts }: Piece,
    keys: &[KeyExpr],
    columns: &[Column],
) -> datafusion::common::Result<Expr> {
    match (function, keys) {
        // Chunk k of n is the chunks k, k + n, k + 2n, … of a multiple of n.
        (ChunkFunction::Hash(chunks), keys) => Ok(in_bucket(chunk + part * chunks, chunks * parts, keys, columns)),
        (ChunkFunction::Range(bounds), [key]) => {
            let in_range = bounds.range(chunk).predicate(&key.over(columns), key.data_type());
            Ok(match parts {
                1 => in_range,
                _ => in_range.and(in_bucket(part, parts, std::slice::from_ref(key), columns)),
            })
        }
        (ChunkFunction::Range(_), _) => datafusion::common::internal_err!("ranges are of one key"),
        (ChunkFunction::Cases(cases), keys) => {
            let keyed: Vec<Expr> = keys.iter().map(|key| key.over(columns)).collect();
            let is_case = cases.predicate(chunk, &keyed);
            Ok(if parts == 1 { is_case } else { is_case.and(in_bucket(part, parts, keys, columns)) })
        }
        (ChunkFunction::Branches(_), _) => datafusion::common::internal_err!("a chunk with its own query has no keys"),
        // Exactly one holds for each row, so the others need not be asked.
        (ChunkFunction::PerInput(_), [key]) if parts == 1 => {
            match key.predicates().and_then(|predicates| predicates.get(chunk as usize)) {
                Some(predicate) => Ok(over(predicate, columns)),
                None => datafusion::common::internal_err!("an input has no predicate for chunk {chunk}"),
            }
        }
        (ChunkFunction::PerInput(_), _) => datafusion::common::internal_err!("predicates of inputs have no parts"),
    }
}

fn in_bucket(bucket: u32, buckets: u32, keys: &[KeyExpr], columns: &[Column]) -> Expr {
    let keys = keys.iter().map(|key| key.over(columns));
    let args = [lit(buckets as i32)].into_iter().chain(keys).collect();
    chunk_of_udf().call(args).eq(lit(bucket as i32))
}
