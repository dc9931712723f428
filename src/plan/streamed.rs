//! Whether a query that runs whole holds little of its inputs at a time, so that cutting it would spare nothing.
//!
//! An estimate by what Parquet files say: rows never depend on it, and where it is wrong operators spill. What streams
//! is not held: the largest input, through filters, projections and joins. Held are the other inputs of joins, the
//! groups of aggregates, and what is sorted.

use datafusion::common::{Column, Result};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, FetchType, GroupingSet, Join, Limit, LogicalPlan, Projection, SkipType, TableScan,
};

use crate::plan::need::Need;
use crate::plan::order::function::{Reads, call_reads};
use crate::plan::prove::proof::{Proof, Role};
use crate::plan::prove::stable::unaliased;
use crate::plan::resolve::{InputSource, Resolved, Scan};
use crate::plan::two_phase::state::aggregate_behind;

/// Copies of the rows that the joins hold: their values, and hash tables over them.
const COPIES: u64 = 3;

/// What a group or a sorted row takes, about.
const ROW_BYTES: u64 = 256;

/// How much of its inputs a query that is cut holds, and reads again.
pub struct Cut {
    /// Bytes in memory of all rows that its chunks hold of inputs that are cut, together. What every chunk holds does
    /// not shrink with more chunks, and groups spill: neither counts.
    pub held: u64,
    /// How many chunks read as much again of the inputs that are not cut as a quarter of the others.
    pub chunks_worth: u64,
}

/// What a query that is cut as `proof` says holds and reads again; `None` where every input is cut.
pub fn cut(query: &Resolved, needs: &[Need], proof: &Proof) -> Option<Cut> {
    let (mut replicated, mut partitioned, mut largest) = (0, 0, 0);
    for (input, need) in proof.inputs().iter().zip(needs) {
        match input.role {
            Role::Replicated { .. } => replicated += need.memory_bytes,
            Role::Partitioned { .. } => {
                partitioned += need.memory_bytes;
                largest = u64::max(largest, need.memory_bytes);
            }
        }
    }
    let is_streamed = Estimate { query }.held(&query.plan).ok().flatten().is_some();
    let held = if is_streamed { partitioned - largest } else { partitioned };
    (replicated > 0).then(|| Cut { held, chunks_worth: partitioned / replicated.saturating_mul(4) })
}

/// Whether the query holds no more than `most_bytes`.
pub fn holds_little(query: &Resolved, needs: &[Need], most_bytes: u64) -> bool {
    let sizes = || needs.iter().map(|need| need.memory_bytes);
    let joined = sizes().sum::<u64>() - sizes().max().unwrap_or_default();
    let held = Estimate { query }.held(&query.plan).ok().flatten();
    held.is_some_and(|held| joined.saturating_mul(COPIES).saturating_add(held.bytes()) <= most_bytes)
}

/// Whether the groups that a query makes may be nearly as many as the rows that it reads: at least a quarter of those
/// of its largest input. Of other queries nothing is known.
pub fn groups_little(query: &Resolved) -> bool {
    let mut plan = &query.plan;
    while let LogicalPlan::Projection(projection) = plan {
        plan = &projection.input;
    }
    let LogicalPlan::Aggregate(aggregate) = plan else { return false };
    let (keys, sets) = match aggregate.group_expr.as_slice() {
        [Expr::GroupingSet(set @ GroupingSet::GroupingSets(sets))] => (set.distinct_expr(), sets.len() as u64),
        [Expr::GroupingSet(set)] => (set.distinct_expr(), 2),
        keys => (keys.iter().collect(), 1),
    };
    let groups_of = query.scans.iter().filter_map(|scan| scan.row_groups.as_ref());
    let rows = groups_of.map(|groups| groups.rows()).max();
    let values = |key: &Expr| Estimate { query }.distinct(key, &aggregate.input);
    let groups = keys.into_iter().try_fold(sets, |all: u64, key| Some(all.saturating_mul(values(key)?)));
    rows.zip(groups).is_some_and(|(rows, groups)| groups.saturating_mul(4) > rows)
}

/// What a part of a query holds.
struct Held {
    /// Groups and sorted rows.
    rows: u64,
    /// How many rows it gives at most, where that is known.
    given: Option<u64>,
}

impl Held {
    fn bytes(&self) -> u64 {
        self.rows.saturating_mul(ROW_BYTES)
    }

    /// The same, and its rows at once; `None` where these are not known.
    fn whole(self) -> Option<Self> {
        let given = self.given?;
        Some(Self { rows: self.rows.saturating_add(given), given: Some(given) })
    }
}

struct Estimate<'a> {
    query: &'a Resolved,
}

impl Estimate<'_> {
    /// What a plan holds; `None` where that is not known.
    fn held(&self, plan: &LogicalPlan) -> Result<Option<Held>> {
        Ok(match plan {
            LogicalPlan::TableScan(scan) => Some(Held { rows: 0, given: self.rows(scan) }),
            LogicalPlan::EmptyRelation(_) => Some(Held { rows: 0, given: Some(1) }),
            LogicalPlan::Values(values) => Some(Held { rows: 0, given: Some(values.values.len() as u64) }),
            LogicalPlan::Projection(Projection { input, .. }) => self.held(input)?,
            LogicalPlan::Filter(filter) => self.held(&filter.input)?,
            LogicalPlan::SubqueryAlias(alias) => self.held(&alias.input)?,
            LogicalPlan::Join(join) => self.joined(join)?,
            LogicalPlan::Union(union) => {
                let mut all = Held { rows: 0, given: Some(0) };
                for input in &union.inputs {
                    let Some(Held { rows, given }) = self.held(input)? else { return Ok(None) };
                    all.rows = all.rows.saturating_add(rows);
                    all.given = all.given.zip(given).map(|(all, given)| all.saturating_add(given));
                }
                Some(all)
            }
            LogicalPlan::Sort(sort) => self.held(&sort.input)?.and_then(Held::whole),
            LogicalPlan::Distinct(Distinct::All(input)) => self.held(input)?.and_then(Held::whole),
            LogicalPlan::Limit(limit) => self.limited(limit)?,
            LogicalPlan::Aggregate(aggregate) => self.grouped(aggregate)?,
            _ => None,
        })
    }

    /// Rows of a join by keys, of which DataFusion holds the smaller input.
    fn joined(&self, join: &Join) -> Result<Option<Held>> {
        let (Some(left), Some(right)) = (self.held(&join.left)?, self.held(&join.right)?) else { return Ok(None) };
        let rows = left.rows.saturating_add(right.rows);
        Ok((!join.on.is_empty()).then_some(Held { rows, given: None }))
    }

    fn limited(&self, limit: &Limit) -> Result<Option<Held>> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Ok(None);
        };
        let Some(fetch) = fetch else { return self.held(&limit.input) };
        let most = skip.saturating_add(fetch) as u64;
        // The first rows of a sort are found without the others.
        let below = match limit.input.as_ref() {
            LogicalPlan::Sort(sort) => self.held(&sort.input)?,
            other => self.held(other)?,
        };
        Ok(below.map(|below| Held { rows: below.rows.saturating_add(most), given: Some(most) }))
    }

    fn grouped(&self, aggregate: &Aggregate) -> Result<Option<Held>> {
        let schema = aggregate.input.schema();
        for call in &aggregate.aggr_expr {
            let Expr::AggregateFunction(call) = unaliased(call) else { return Ok(None) };
            // What depends on nothing but the set of rows, and is no list of them.
            let (name, is_distinct) = aggregate_behind(&call.func).unwrap_or((call.func.name(), call.params.distinct));
            let is_held = is_distinct || ["median", "percentile_cont"].contains(&name);
            if is_held || call_reads(name, &call.params.args, schema) != Reads::Set {
                return Ok(None);
            }
        }
        let Some(below) = self.held(&aggregate.input)? else { return Ok(None) };
        let mut groups: u64 = 1;
        for key in &aggregate.group_expr {
            let Some(values) = self.distinct(key, &aggregate.input) else { return Ok(None) };
            groups = groups.saturating_mul(values);
        }
        Ok(Some(Held { rows: below.rows.saturating_add(groups), given: Some(groups) }))
    }

    /// How many values an expression over the columns of `input` has at most, about.
    fn distinct(&self, expr: &Expr, input: &LogicalPlan) -> Option<u64> {
        if matches!(unaliased(expr), Expr::GroupingSet(_)) {
            return None;
        }
        let of_column = |column: &Column| self.distinct_of_column(column, input);
        expr.column_refs().into_iter().try_fold(1, |all: u64, column| Some(all.saturating_mul(of_column(column)?)))
    }

    fn distinct_of_column(&self, column: &Column, plan: &LogicalPlan) -> Option<u64> {
        let at = plan.schema().maybe_index_of_column(column)?;
        match plan {
            LogicalPlan::TableScan(scan) => {
                let of = self.scan(scan)?;
                of.values(of.schema.index_of(plan.schema().field(at).name()).ok()?)
            }
            LogicalPlan::Projection(projection) => self.distinct(projection.expr.get(at)?, &projection.input),
            LogicalPlan::SubqueryAlias(alias) => {
                self.distinct_of_column(alias.input.schema().columns().get(at)?, &alias.input)
            }
            LogicalPlan::Filter(filter) => self.distinct_of_column(column, &filter.input),
            LogicalPlan::Join(join) => {
                let is_left = join.left.schema().has_column(column);
                self.distinct_of_column(column, if is_left { &join.left } else { &join.right })
            }
            _ => None,
        }
    }

    fn rows(&self, scan: &TableScan) -> Option<u64> {
        Some(self.scan(scan)?.row_groups.as_ref()?.rows())
    }

    fn scan(&self, scan: &TableScan) -> Option<&Scan> {
        let number = scan.source.downcast_ref::<InputSource>()?.scan()?;
        self.query.scans.get(number)
    }
}
