//! How much a query that runs whole holds in memory at a time, about.
//!
//! An estimate by what Parquet files say: rows never depend on it, and where it is wrong operators spill, or the query
//! is cut. What streams is not held: the larger input of an inner join, through filters and projections. Held are the
//! smaller inputs of joins with hash tables over them, groups, and what is sorted or seen by a window.

use datafusion::common::JoinType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};

use crate::plan::order::function::{Reads, call_reads};
use crate::plan::prove::stable::unaliased;
use crate::plan::rows::Input;
use crate::plan::two_phase::state::aggregate_behind;

/// Copies of the rows that a join holds while it puts them together, and of groups.
const COPIES: f64 = 2.0;

/// What a hash table has for each row or group.
const ENTRY_BYTES: f64 = 24.0;

/// What an optimised plan takes, about.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// Bytes that its operators hold at a time.
    pub bytes: f64,
    /// Whether it computes many more rows than it reads: some join gives more than twice those of its larger input.
    pub grows: bool,
}

impl Held {
    /// What a plan takes; `None` where that is not known.
    pub fn of(plan: &LogicalPlan) -> Option<Self> {
        Self::with_rows(plan).map(|(held, _)| held)
    }

    /// The same, and the rows that the plan gives.
    fn with_rows(plan: &LogicalPlan) -> Option<(Self, Input)> {
        let mut all = Self { bytes: 0.0, grows: false };
        let mut inputs = Vec::new();
        for input in plan.inputs() {
            let (held, rows) = Self::with_rows(input)?;
            all = all.and(held);
            inputs.push(rows);
        }
        let mut of_subqueries = Some(all);
        let visited = plan.apply_subqueries(|subquery| {
            of_subqueries = of_subqueries.zip(Self::of(subquery)).map(|(all, held)| all.and(held));
            Ok(TreeNodeRecursion::Continue)
        });
        all = visited.ok().and(of_subqueries)?;
        let given = Input::given_by(plan, inputs.clone())?;
        Some((all.and(Self::by(plan, &inputs, &given)?), given))
    }

    fn and(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, grows: self.grows || other.grows }
    }

    /// What the node at the top of a plan takes, whose inputs are these and which gives that.
    fn by(plan: &LogicalPlan, inputs: &[Input], given: &Input) -> Option<Self> {
        let little = |bytes| Some(Self { bytes, grows: false });
        match (plan, inputs) {
            (LogicalPlan::Join(join), [left, right]) => {
                let bytes =
                    |input: &Input, plan: &LogicalPlan| COPIES * input.bytes(plan.schema()) + ENTRY_BYTES * input.rows;
                let sides = (bytes(left, &join.left), bytes(right, &join.right));
                // Which side others hold is not known.
                let is_smaller =
                    !join.null_aware && !matches!(join.join_type, JoinType::LeftMark | JoinType::RightMark);
                let held = if is_smaller { sides.0.min(sides.1) } else { sides.0.max(sides.1) };
                Some(Self { bytes: held, grows: given.rows > 2.0 * left.rows.max(right.rows) })
            }
            (LogicalPlan::Aggregate(aggregate), [input]) => {
                // A group may have the longest of its rows' values.
                let all = input.bytes(aggregate.input.schema());
                let kept = if keeps_rows(aggregate) { all } else { 0.0 };
                little(COPIES * all * (given.rows / input.rows) + ENTRY_BYTES * given.rows + kept)
            }
            (LogicalPlan::Sort(_) | LogicalPlan::Window(_) | LogicalPlan::Distinct(_), _) => {
                little(given.bytes(plan.schema()))
            }
            _ => little(0.0),
        }
    }
}

/// Whether the state of an aggregate grows with its rows, or nobody knows.
fn keeps_rows(aggregate: &Aggregate) -> bool {
    aggregate.aggr_expr.iter().any(|expr| {
        let Expr::AggregateFunction(call) = unaliased(expr) else { return true };
        let (name, is_distinct) = aggregate_behind(&call.func).unwrap_or((call.func.name(), call.params.distinct));
        let reads = call_reads(name, &call.params.args, aggregate.input.schema());
        is_distinct || ["median", "percentile_cont"].contains(&name) || reads != Reads::Set
    })
}
