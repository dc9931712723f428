//! The plan of a *pass*, which computes several chunks at once.
//!
//! By the proof, all chunks together have the rows of the whole query, and wherever the keys are visible among a
//! node's columns, they tell the chunk of each row. So the query can run once over the rows of several chunks, with
//! the chunk's number as an additional column by which its rows are then dealt out. The plan stays as it is up to the
//! last node where the keys are visible. Above that node the number is carried along; a join takes it from the side
//! that each of its rows has a row of. The chunks' part of an operator that is done in two phases is done separately
//! for each number:
//!
//! | operator | in a pass |
//! |---|---|
//! | aggregate | the number is one more group column |
//! | DISTINCT | the number is one more column |
//! | the first n rows | the first n rows of each number |

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Column, DFSchema, ExprSchema, Result};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{
    Aggregate, Distinct, EmptyRelation, Expr, ExprFunctionExt, FetchType, Filter, GroupingSet, Join, JoinType,
    LogicalPlan, LogicalPlanBuilder, Projection, SkipType, Sort, SubqueryAlias, Union, cast, lit,
};

use crate::chunk::ChunkFunction;
use crate::chunk::range::compare_alike;
use crate::plan::keys::expr::KeyExpr;
use crate::plan::prove::proof::Proof;
use crate::plan::prove::unaliased;
use crate::plan::repair::compared::told_apart;
use crate::plan::split::{CHUNK, number};
use crate::plan::two_phase::state::is_alike_in_groups;

/// What computes several chunks at once.
#[derive(Debug, Clone)]
pub struct Pass {
    /// A plan over the scans of the proof's; its last column, an `Int32`, is the chunk of each row.
    pub plan: LogicalPlan,
    /// What a chunk has that has no rows in the plan, if that is something: totals of nothing.
    pub of_nothing: Option<LogicalPlan>,
    /// Whether the plan takes the first rows of each chunk, of all that it has below.
    pub takes_first_rows: bool,
    /// At most so many chunks are computed at once, at least 2.
    pub most_chunks: u32,
}

/// Chunks of a step that reads more bytes of its inputs run one by one: what a pass has computed is lost when it is
/// killed.
const MOST_BYTES: u64 = 512 << 20;

impl Pass {
    /// How the chunks of `proof`, which together read `bytes` of their inputs, are computed in `passes` or a few more
    /// of them, the files of each with at most so many `columns` together. The plan is the chunks' part of an operator
    /// that is done in two phases if `is_phase`.
    ///
    /// `None` where rows don't tell their chunk, or no two chunks can be computed at once.
    ///
    /// # Errors
    /// DataFusion's, of a plan that can't be built.
    pub fn of(proof: &Proof, is_phase: bool, bytes: u64, passes: u64, columns: usize) -> Result<Option<Self>> {
        let files = columns / proof.schema().fields().len().max(1);
        let most_chunks = (u64::from(proof.chunks()) / passes.max(1)).min(files as u64) as u32;
        // The row groups of only some ranges can't be read at once.
        let least = if matches!(proof.function(), ChunkFunction::Range(_)) { proof.chunks() } else { 2 };
        if bytes > MOST_BYTES || most_chunks < least.max(2) {
            return Ok(None);
        }
        let numbered = numbered(proof, is_phase)?;
        let takes_first_rows = is_phase && is_limit(proof.plan());
        Ok(numbered.map(|(plan, of_nothing)| Self { plan, of_nothing, takes_first_rows, most_chunks }))
    }

    /// These chunks in as few passes as can be, all about as large.
    pub fn passes(&self, chunks: &[u32]) -> Vec<Vec<u32>> {
        let passes = chunks.len().div_ceil(self.most_chunks as usize);
        (0..passes).map(|at| chunks.iter().copied().skip(at).step_by(passes).collect()).collect()
    }
}

/// Whether the operator below projections is a LIMIT.
fn is_limit(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => is_limit(&projection.input),
        other => matches!(other, LogicalPlan::Limit(_)),
    }
}

/// The plan, and what chunks have that have no rows in it.
fn numbered(proof: &Proof, is_phase: bool) -> Result<Option<(LogicalPlan, Option<LogicalPlan>)>> {
    if !proof.once().is_empty() || proof.assumed().is_some() {
        return Ok(None);
    }
    let mut carrier = Carrier { function: proof.function(), visible: proof.visible(), way: Vec::new() };
    let plan = match is_phase {
        true => carrier.phase(proof.plan())?,
        false => carrier.numbered(proof.plan())?,
    };
    let of_nothing = if is_phase { of_nothing(proof.plan())? } else { None };
    Ok(plan.map(|plan| (plan, of_nothing)))
}

struct Carrier<'a> {
    function: &'a ChunkFunction,
    /// The keys over the columns of a node where they are visible, by the way to it from the root.
    visible: &'a BTreeMap<Vec<usize>, Vec<KeyExpr>>,
    /// The way from the root to the node at hand.
    way: Vec<usize>,
}

impl Carrier<'_> {
    /// [`numbered`](Self::numbered) of input number `at` of the node at hand.
    fn input(&mut self, plan: &LogicalPlan, at: usize) -> Result<Option<LogicalPlan>> {
        self.way.push(at);
        let numbered = self.numbered(plan);
        self.way.pop();
        numbered
    }

    /// The plan with the number of each row's chunk as its last column.
    fn numbered(&mut self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        if let Some(keys) = self.visible.get(&self.way).filter(|keys| self.is_known(keys)) {
            let columns = plan.schema().columns();
            let number = number(self.function, keys, &columns)?.alias(CHUNK);
            let all = columns.into_iter().map(Expr::Column).chain([number]);
            return LogicalPlanBuilder::from(plan.clone()).project(all)?.build().map(Some);
        }
        let input = match plan {
            LogicalPlan::Projection(Projection { input, .. })
            | LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. })
            | LogicalPlan::Filter(Filter { input, .. })
            | LogicalPlan::Sort(Sort { input, fetch: None, .. }) => self.input(input, 0)?,
            LogicalPlan::Join(join) => return self.joined(join),
            LogicalPlan::Union(union) => return self.united(union),
            _ => None,
        };
        input.map(|input| above(plan, input)).transpose()
    }

    /// As [`numbered`](Self::numbered), of a join: each of its rows is of the chunk of the row of one side that it has.
    fn joined(&mut self, join: &Join) -> Result<Option<LogicalPlan>> {
        let (has_left, has_right) = match join.join_type {
            JoinType::Inner => (true, true),
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (true, false),
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (false, true),
            JoinType::Full => (false, false),
        };
        let left = if has_left { self.input(&join.left, 0)? } else { None };
        let right = if has_right && left.is_none() { self.input(&join.right, 1)? } else { None };
        let Some(number) = left.as_ref().or(right.as_ref()).map(number_of) else { return Ok(None) };
        let left = left.map_or_else(|| Arc::clone(&join.left), Arc::new);
        let right = right.map_or_else(|| Arc::clone(&join.right), Arc::new);
        let (on, filter) = (join.on.clone(), join.filter.clone());
        let Join { join_type, join_constraint, null_equality, null_aware, .. } = *join;
        let numbered = Join::try_new(left, right, on, filter, join_type, join_constraint, null_equality, null_aware)?;
        // The number stands between the columns of both sides.
        let columns = join.schema.columns().into_iter().map(Expr::Column).chain([number]);
        LogicalPlanBuilder::from(LogicalPlan::Join(numbered)).project(columns)?.build().map(Some)
    }

    /// As [`numbered`](Self::numbered), of a union, each of whose inputs is cut.
    fn united(&mut self, union: &Union) -> Result<Option<LogicalPlan>> {
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for (at, input) in union.inputs.iter().enumerate() {
            let Some(input) = self.input(input, at)? else { return Ok(None) };
            inputs.push(Arc::new(input));
        }
        let fields = union.schema.iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
        let number = (None, Arc::new(Field::new(CHUNK, DataType::Int32, true)));
        let schema =
            DFSchema::new_with_metadata(fields.chain([number]).collect(), union.schema.as_ref().metadata().clone())?;
        Ok(Some(LogicalPlan::Union(Union { inputs, schema: Arc::new(schema) })))
    }

    /// As [`numbered`](Self::numbered), of the chunks' part of an operator that is done in two phases.
    fn phase(&mut self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        match plan {
            LogicalPlan::Projection(node) => {
                self.way.push(0);
                let input = self.phase(&node.input)?;
                input.map(|input| above(plan, input)).transpose()
            }
            LogicalPlan::Aggregate(node) => {
                let Some(input) = self.input(&node.input, 0)? else { return Ok(None) };
                grouped(node, input)
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let Some(input) = self.input(input, 0)? else { return Ok(None) };
                LogicalPlanBuilder::from(input).distinct()?.build().map(Some)
            }
            LogicalPlan::Limit(limit) => {
                match (limit.input.as_ref(), limit.get_skip_type()?, limit.get_fetch_type()?) {
                    (LogicalPlan::Sort(sort), SkipType::Literal(0), FetchType::Literal(Some(most)))
                        if sort.fetch.is_none() =>
                    {
                        self.way.push(0);
                        let Some(input) = self.input(&sort.input, 0)? else { return Ok(None) };
                        first_rows(sort, most, input).map(Some)
                    }
                    _ => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    /// Whether keys of these types tell the chunk as those of the inputs do.
    fn is_known(&self, keys: &[KeyExpr]) -> bool {
        match self.function {
            ChunkFunction::Hash(_) => true,
            ChunkFunction::Range(bounds) => {
                keys.iter().all(|key| compare_alike(bounds.data_type(), key.data_type())) && keys.len() == 1
            }
            ChunkFunction::Cases(cases) => cases.types().eq(keys.iter().map(KeyExpr::data_type)),
            ChunkFunction::Branches(_) | ChunkFunction::PerInput(_) => false,
        }
    }
}

/// A node that gives its input's rows, or some of them, over an input whose last column is their chunk's number.
fn above(plan: &LogicalPlan, input: LogicalPlan) -> Result<LogicalPlan> {
    let number = number_of(&input);
    match plan {
        LogicalPlan::Projection(node) => {
            let exprs = node.expr.iter().cloned().chain([number]).collect();
            Projection::try_new(exprs, Arc::new(input)).map(LogicalPlan::Projection)
        }
        LogicalPlan::SubqueryAlias(node) => {
            SubqueryAlias::try_new(Arc::new(input), node.alias.clone()).map(LogicalPlan::SubqueryAlias)
        }
        other => other.with_new_exprs(other.expressions(), vec![input]),
    }
}

/// The last column of a plan.
fn number_of(plan: &LogicalPlan) -> Expr {
    let columns = plan.schema().columns();
    columns.into_iter().next_back().map_or_else(|| lit(0i32), Expr::Column)
}

/// What the chunks' part of an operator that is done in two phases gives of no rows, if that is something: an aggregate
/// that has a total.
fn of_nothing(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let has_total = |group_expr: &[Expr]| match group_expr {
        [] | [Expr::GroupingSet(GroupingSet::Rollup(_) | GroupingSet::Cube(_))] => true,
        [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => sets.iter().any(Vec::is_empty),
        _ => false,
    };
    match plan {
        LogicalPlan::Projection(node) => {
            let input = of_nothing(&node.input)?;
            input.map(|input| plan.with_new_exprs(plan.expressions(), vec![input])).transpose()
        }
        LogicalPlan::Aggregate(node) if has_total(&node.group_expr) => {
            let nothing = EmptyRelation { produce_one_row: false, schema: Arc::clone(node.input.schema()) };
            let nothing = Arc::new(LogicalPlan::EmptyRelation(nothing));
            let aggregate = Aggregate::try_new(nothing, node.group_expr.clone(), node.aggr_expr.clone())?;
            Ok(Some(LogicalPlan::Aggregate(aggregate)))
        }
        _ => Ok(None),
    }
}

/// The groups of each chunk apart; `None` where states have lists, whose items have no order, or are not those that an
/// aggregate without groups has.
fn grouped(node: &Aggregate, input: LogicalPlan) -> Result<Option<LogicalPlan>> {
    let has_list = |field: &FieldRef| match field.data_type() {
        DataType::Struct(state) => state.iter().any(|field| field.data_type().is_nested()),
        _ => false,
    };
    let is_alike = |expr: &Expr| match unaliased(expr) {
        Expr::AggregateFunction(call) => is_alike_in_groups(&call.func),
        _ => false,
    };
    let has_groups = !node.group_expr.is_empty();
    if node.schema.fields().iter().any(has_list) || !(has_groups || node.aggr_expr.iter().all(is_alike)) {
        return Ok(None);
    }
    let number = number_of(&input);
    let Some(group_expr) = with_number(&node.group_expr, &number) else { return Ok(None) };
    let grouped = Aggregate::try_new(Arc::new(input), group_expr, node.aggr_expr.clone())?;
    let schema = Arc::clone(&grouped.schema);
    let columns = node.schema.iter().map(|(qualifier, field)| {
        let column = Column::new(qualifier.cloned(), field.name());
        let found = schema.field_from_column(&column)?;
        Ok(match found.data_type() == field.data_type() {
            true => Expr::Column(column),
            // The number of a grouping set is wider where there are more group columns.
            false => {
                cast(Expr::Column(column), field.data_type().clone()).alias_qualified(qualifier.cloned(), field.name())
            }
        })
    });
    let columns = columns.chain([Ok(number)]).collect::<Result<Vec<_>>>()?;
    LogicalPlanBuilder::from(LogicalPlan::Aggregate(grouped)).project(columns)?.build().map(Some)
}

/// The group columns, and the number. In grouping sets it comes first: DataFusion tells sets apart by a number with a
/// bit for each group column, the first column's the highest. `None` where a set stands twice, for which there are
/// bits above these.
fn with_number(group_expr: &[Expr], number: &Expr) -> Option<Vec<Expr>> {
    let set = match group_expr {
        [Expr::GroupingSet(set)] => set,
        exprs if exprs.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) => return None,
        exprs => return Some(exprs.iter().chain([number]).cloned().collect()),
    };
    let sets: Vec<Vec<Expr>> = match set {
        GroupingSet::Rollup(exprs) => (0..=exprs.len()).map(|end| exprs[..end].to_vec()).collect(),
        GroupingSet::Cube(_) => return None,
        GroupingSet::GroupingSets(sets) => sets.clone(),
    };
    let mut seen: Vec<HashSet<&Expr>> = Vec::new();
    for set in &sets {
        let set = set.iter().collect();
        if seen.contains(&set) {
            return None;
        }
        seen.push(set);
    }
    let numbered = sets.into_iter().map(|set| [number.clone()].into_iter().chain(set).collect());
    let numbered = GroupingSet::GroupingSets(numbered.collect());
    let is_in_order = numbered.distinct_expr().into_iter().skip(1).eq(set.distinct_expr());
    is_in_order.then(|| vec![Expr::GroupingSet(numbered)])
}

/// The first rows of each chunk.
fn first_rows(sort: &Sort, most: usize, input: LogicalPlan) -> Result<LogicalPlan> {
    let columns = input.schema().columns().into_iter().map(Expr::Column);
    let (input, keys) = told_apart(input, sort.expr.clone())?;
    let place = row_number().partition_by(vec![number_of(&input)]).order_by(keys).build()?;
    let placed = LogicalPlanBuilder::from(input).window([place])?.build()?;
    let is_first = number_of(&placed).lt_eq(lit(most as u64));
    LogicalPlanBuilder::from(placed).filter(is_first)?.project(columns)?.build()
}
