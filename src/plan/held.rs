//! How much a query that runs whole holds in memory at a time, about.
//!
//! An estimate by what Parquet files say: rows never depend on it, and where it is wrong operators spill, or the query
//! is cut. What streams is not held: the larger input of an inner join, through filters and projections. Held are the
//! smaller inputs of joins with hash tables over them, groups, and what is sorted or seen by a window.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchemaRef, JoinType};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};

use crate::plan::order::function::{Reads, call_reads};
use crate::plan::prove::stable::unaliased;
use crate::plan::rows::{ENTRY_BYTES, Input};
use crate::plan::two_phase::state::aggregate_behind;

/// What an optimised plan takes, about.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// Bytes that its operators keep.
    pub kept: f64,
    /// Bytes that one of them has twice while it puts its rows together, or gives its groups.
    copied: f64,
    /// Rows that it gives, and their bytes.
    pub given: (f64, f64),
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
        let mut all = Self::little(0.0);
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
        let all = all.and(Self::by(plan, &inputs, &given)?);
        Some((Self { given: (given.rows, given.bytes(plan.schema())), ..all }, given))
    }

    fn and(self, other: Self) -> Self {
        let (kept, copied) = (self.kept + other.kept, self.copied.max(other.copied));
        Self { kept, copied, grows: self.grows || other.grows, ..self }
    }

    /// What keeps so many bytes, and gives nothing.
    pub fn little(kept: f64) -> Self {
        Self { kept, copied: 0.0, given: (0.0, 0.0), grows: false }
    }

    /// Bytes that its operators hold at a time.
    pub fn bytes(&self) -> f64 {
        self.kept + self.copied
    }

    /// What the node at the top of a plan takes, whose inputs are these and which gives that.
    fn by(plan: &LogicalPlan, inputs: &[Input], given: &Input) -> Option<Self> {
        match (plan, inputs) {
            (LogicalPlan::Join(join), [left, right]) => {
                let sides = ((left, join.left.schema()), (right, join.right.schema()));
                let hashed = |(side, schema): (&Input, &DFSchemaRef)| side.hashed_bytes(schema);
                // Which side others hold is not known.
                let is_smaller =
                    !join.null_aware && !matches!(join.join_type, JoinType::LeftMark | JoinType::RightMark);
                let is_left = (hashed(sides.0) <= hashed(sides.1)) == is_smaller;
                let (held, schema) = if is_left { sides.0 } else { sides.1 };
                let grows = given.rows > 2.0 * left.rows.max(right.rows);
                Some(Self { copied: held.bytes(schema), grows, ..Self::little(held.hashed_bytes(schema)) })
            }
            (LogicalPlan::Aggregate(aggregate), [input]) => {
                // A group may have the longest of its rows' values.
                let all = input.bytes(aggregate.input.schema());
                let groups = all * (given.rows / input.rows);
                let kept = groups + ENTRY_BYTES * given.rows + if keeps_rows(aggregate) { all } else { 0.0 };
                Some(Self { copied: groups, ..Self::little(kept) })
            }
            (LogicalPlan::Sort(_) | LogicalPlan::Window(_) | LogicalPlan::Distinct(_), _) => {
                Some(Self::little(given.bytes(plan.schema())))
            }
            _ => Some(Self::little(0.0)),
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
