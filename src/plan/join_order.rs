//! The order of inner joins.
//!
//! DataFusion joins in the order in which a query names its tables. Where that makes many more rows on the way than
//! another order would, the joins are made again: of the inputs those two are joined that give the fewest rows, and
//! so on with what comes of it (greedy operator ordering; Fegaras, *A New Heuristic for Optimizing Large Queries*,
//! 1998). How many rows there are is estimated from what files say of their rows and distinct values, see
//! [`crate::plan::rows`]; where a number of rows is not known, the order stays as it is.
//!
//! The rows of the result are the same in any order. So that no other errors come of it either, only joins are moved
//! whose conditions can't fail.
//!
//! DataFusion holds the left side of a join in memory, and looks for the smaller one itself, but does not know how many
//! rows other joins give. So the side that is smaller by these estimates becomes the left one of any join. Semi joins
//! are taken below other joins before, see [`crate::plan::semi_joins`].

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, JoinConstraint, JoinType, NullEquality, Result};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{BinaryExpr, Expr, Join, LogicalPlan, LogicalPlanBuilder, Operator, Projection};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::arithmetic::lazy::fails;
use crate::arithmetic::terms::together;
use crate::plan::rows::{Input, joined_rows};
use crate::plan::semi_joins::lowered;

/// Joins of more inputs than this keep their order.
const MOST_INPUTS: usize = 32;

/// Another order is taken if it makes fewer rows on the way than this share of those that the given one makes:
/// estimates are rough.
const WORTH_IT: f64 = 0.5;

/// Orders that make no more rows than this on the way are good enough.
const FEW_ROWS: f64 = 100_000.0;

/// A side is smaller if it has less than this share of the bytes of the other.
const SMALLER: f64 = 0.8;

/// Joins in the order that makes the fewest rows on the way, of which each holds its smaller side. It must come after
/// filters are pushed down.
#[derive(Debug, Default)]
pub struct JoinOrder;

impl OptimizerRule for JoinOrder {
    fn name(&self) -> &str {
        "join_order"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let lowered = lowered(plan)?;
        let ordered = ordered(lowered.data)?;
        let (plan, _) = smaller_first(ordered.data)?;
        Ok(Transformed { transformed: plan.transformed || ordered.transformed || lowered.transformed, ..plan })
    }
}

/// A plan whose joins have their smaller side first, and what it gives, where that is known.
fn smaller_first(plan: LogicalPlan) -> Result<(Transformed<LogicalPlan>, Option<Input>)> {
    let mut inputs = Some(Vec::new());
    let plan = plan.map_children(|input| {
        let (input, given) = smaller_first(input)?;
        inputs = inputs.take().zip(given).map(|(mut inputs, given)| {
            inputs.push(given);
            inputs
        });
        Ok(input)
    })?;
    let Some(inputs) = inputs else { return Ok((plan, None)) };
    let swapped = match (&plan.data, inputs.as_slice()) {
        (LogicalPlan::Join(join), [left, right]) => {
            let (left, right) = (left.hashed_bytes(join.left.schema()), right.hashed_bytes(join.right.schema()));
            let is_smaller = right < SMALLER * left;
            if is_smaller { swapped(join)? } else { None }
        }
        _ => None,
    };
    let given = Input::given_by(&plan.data, inputs);
    Ok((swapped.map_or(plan, Transformed::yes), given))
}

/// The same join with its sides the other way round.
fn swapped(join: &Join) -> Result<Option<LogicalPlan>> {
    if join.null_aware || matches!(join.join_type, JoinType::LeftMark | JoinType::RightMark) {
        return Ok(None);
    }
    let (left, right) = (Arc::clone(&join.right), Arc::clone(&join.left));
    let on = join.on.iter().map(|(left, right)| (right.clone(), left.clone())).collect();
    let (kind, constraint) = (join.join_type.swap(), join.join_constraint);
    let swapped = Join::try_new(left, right, on, join.filter.clone(), kind, constraint, join.null_equality, false)?;
    if swapped.schema.columns() == join.schema.columns() {
        return Ok(Some(LogicalPlan::Join(swapped)));
    }
    LogicalPlanBuilder::from(LogicalPlan::Join(swapped)).project(join.schema.columns())?.build().map(Some)
}

fn ordered(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let Some((region, given)) = region(&plan) else { return plan.map_children(ordered) };
    match region.ordered(&plan, &given)? {
        Some(plan) => Ok(Transformed::yes(plan)),
        None => below_region(plan),
    }
}

/// Joins below the inputs of a region whose order stays.
fn below_region(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match &plan {
        LogicalPlan::Join(_) if is_movable(&plan) => plan.map_children(below_region),
        LogicalPlan::Projection(projection) if keeps_columns(projection) => plan.map_children(below_region),
        _ => plan.map_children(ordered),
    }
}

/// The inputs of nested inner joins, whose rows are joined in any order, and the conditions.
#[derive(Default)]
struct Region {
    inputs: Vec<LogicalPlan>,
    conditions: Vec<Condition>,
}

/// One condition, of all that rows must meet.
struct Condition {
    /// The columns in it.
    columns: HashSet<Column>,
    form: Form,
}

enum Form {
    /// Two values are equal.
    Equal(Expr, Expr),
    /// Anything else.
    Other(Expr),
}

/// Inputs in the order in which they are joined.
#[derive(Debug, Clone)]
enum Tree {
    Input(usize),
    Join(Box<Tree>, Box<Tree>),
}

/// The joins of a plan that may be made in another order, and the one that they have.
fn region(plan: &LogicalPlan) -> Option<(Region, Tree)> {
    if !is_movable(plan) {
        return None;
    }
    let mut region = Region::default();
    let tree = region.collect(plan);
    let mut seen = HashSet::new();
    let is_unambiguous = region.inputs.iter().flat_map(|input| input.schema().columns()).all(|c| seen.insert(c));
    ((3..=MOST_INPUTS).contains(&region.inputs.len()) && is_unambiguous).then_some((region, tree))
}

/// Whether a plan is an inner join whose conditions can't fail.
fn is_movable(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Join(join) = plan else { return false };
    join.join_type == JoinType::Inner && join.null_equality == NullEquality::NullEqualsNothing && !can_fail(join)
}

/// Whether a condition of a join can fail, or gives other values each time.
pub fn can_fail(join: &Join) -> bool {
    let sides = [join.left.schema(), join.right.schema()];
    let Ok(schema) = sides[0].join(sides[1]) else { return true };
    let can_fail = |expr: &Expr| expr.is_volatile() || fails(expr, &schema).unwrap_or(true);
    join.on.iter().any(|(left, right)| can_fail(left) || can_fail(right)) || join.filter.as_ref().is_some_and(can_fail)
}

impl Region {
    /// Takes up a plan: its inputs where it is a join, or one below a projection to some of its columns.
    fn collect(&mut self, plan: &LogicalPlan) -> Tree {
        match plan {
            LogicalPlan::Join(join) if is_movable(plan) => {
                let tree = Tree::Join(Box::new(self.collect(&join.left)), Box::new(self.collect(&join.right)));
                for (left, right) in &join.on {
                    self.add(Form::Equal(left.clone(), right.clone()));
                }
                for condition in join.filter.clone().map(split_conjunction_owned).unwrap_or_default() {
                    self.add(match condition {
                        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => Form::Equal(*left, *right),
                        other => Form::Other(other),
                    });
                }
                tree
            }
            LogicalPlan::Projection(projection) if keeps_columns(projection) => self.collect(&projection.input),
            other => {
                self.inputs.push(other.clone());
                Tree::Input(self.inputs.len() - 1)
            }
        }
    }

    fn add(&mut self, form: Form) {
        let columns = match &form {
            Form::Equal(left, right) => left.column_refs().into_iter().chain(right.column_refs()).cloned().collect(),
            Form::Other(condition) => condition.column_refs().into_iter().cloned().collect(),
        };
        self.conditions.push(Condition { columns, form });
    }

    /// `plan`, which has these joins in the order `given`, in a better one, if there is one.
    fn ordered(self, plan: &LogicalPlan, given: &Tree) -> Result<Option<LogicalPlan>> {
        let Some(leaves) = self.inputs.iter().enumerate().map(|(at, input)| Part::of_input(at, input)).collect() else {
            return Ok(None);
        };
        let leaves: Vec<Part> = leaves;
        let given = self.part_of(given, &leaves);
        let best = self.greedy(&leaves);
        if given.made <= FEW_ROWS || best.made > WORTH_IT * given.made {
            return Ok(None);
        }
        let mut left: Vec<&Condition> = self.conditions.iter().collect();
        let joined = self.build(&best.tree, &mut left)?;
        if !left.is_empty() {
            return Ok(None);
        }
        LogicalPlanBuilder::from(joined).project(plan.schema().columns())?.build().map(Some)
    }

    fn part_of(&self, tree: &Tree, leaves: &[Part]) -> Part {
        match tree {
            Tree::Input(at) => leaves[*at].clone(),
            Tree::Join(left, right) => {
                let (left, right) = (self.part_of(left, leaves), self.part_of(right, leaves));
                let (_, rows) = self.joined_rows(&left, &right);
                left.joined(right, rows)
            }
        }
    }

    /// Joins those two of the parts that give the fewest rows, until one is left.
    fn greedy(&self, leaves: &[Part]) -> Part {
        let mut parts = leaves.to_vec();
        while parts.len() > 1 {
            let pairs = (0..parts.len()).flat_map(|a| (a + 1..parts.len()).map(move |b| (a, b)));
            let joined = pairs.map(|(a, b)| {
                let (conditions, rows) = self.joined_rows(&parts[a], &parts[b]);
                // Without a condition only where nothing else is left.
                (conditions == 0, rows, a, b)
            });
            let fewest = joined.min_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
            let Some((_, rows, a, b)) = fewest else { break };
            let second = parts.remove(b);
            let first = parts.remove(a);
            parts.insert(a, first.joined(second, rows));
        }
        parts.swap_remove(0)
    }

    /// The conditions over both parts that hold in neither.
    fn new_conditions<'a>(&'a self, a: &'a Part, b: &'a Part) -> impl Iterator<Item = &'a Condition> {
        self.conditions.iter().filter(|Condition { columns, .. }| {
            let is_in = |part: &Part| columns.iter().all(|column| part.columns.contains(column));
            !is_in(a) && !is_in(b) && columns.iter().all(|c| a.columns.contains(c) || b.columns.contains(c))
        })
    }

    /// The number of conditions by which two parts are joined, and the rows that come of it.
    fn joined_rows(&self, a: &Part, b: &Part) -> (usize, f64) {
        let is_of = |expr: &Expr, part: &Part| expr.column_refs().into_iter().all(|c| part.columns.contains(c));
        let (mut pairs, mut others) = (Vec::new(), 0);
        for condition in self.new_conditions(a, b) {
            match &condition.form {
                Form::Equal(left, right) if is_of(left, a) && is_of(right, b) => pairs.push((left, right)),
                Form::Equal(left, right) if is_of(right, a) && is_of(left, b) => pairs.push((right, left)),
                _ => others += 1,
            }
        }
        (pairs.len() + others, joined_rows(&a.input, &b.input, &pairs, others))
    }

    /// The plan of a tree, which takes from `left` the conditions that it meets.
    fn build(&self, tree: &Tree, left: &mut Vec<&Condition>) -> Result<LogicalPlan> {
        let (first, second) = match tree {
            // What is below has an order of its own.
            Tree::Input(at) => return Ok(self.inputs[*at].clone().map_children(ordered)?.data),
            Tree::Join(first, second) => (self.build(first, left)?, self.build(second, left)?),
        };
        let is_of = |expr: &Expr, plan: &LogicalPlan| {
            expr.column_refs().into_iter().all(|column| plan.schema().has_column(column))
        };
        let (mut on, mut others) = (Vec::new(), Vec::new());
        left.retain(|Condition { columns, form }| {
            let is_met = columns.iter().all(|c| first.schema().has_column(c) || second.schema().has_column(c));
            if is_met {
                match form {
                    Form::Equal(a, b) if is_of(a, &first) && is_of(b, &second) => on.push((a.clone(), b.clone())),
                    Form::Equal(a, b) if is_of(b, &first) && is_of(a, &second) => on.push((b.clone(), a.clone())),
                    Form::Equal(a, b) => others.push(a.clone().eq(b.clone())),
                    Form::Other(condition) => others.push(condition.clone()),
                }
            }
            !is_met
        });
        let (first, second) = (Arc::new(first), Arc::new(second));
        let (kind, nulls) = (JoinType::Inner, NullEquality::NullEqualsNothing);
        let filter = together(Operator::And, others);
        Join::try_new(first, second, on, filter, kind, JoinConstraint::On, nulls, false).map(LogicalPlan::Join)
    }
}

/// Some of the inputs, joined.
#[derive(Clone)]
struct Part {
    input: Input,
    columns: HashSet<Column>,
    tree: Tree,
    /// Rows of all joins together.
    made: f64,
}

impl Part {
    /// `None` where the number of rows is not known.
    fn of_input(at: usize, plan: &LogicalPlan) -> Option<Self> {
        let columns = plan.schema().columns().into_iter().collect();
        Some(Self { input: Input::of(plan)?, columns, tree: Tree::Input(at), made: 0.0 })
    }

    /// Both, of which so many `rows` come.
    fn joined(self, other: Self, rows: f64) -> Self {
        // The smaller one is held in memory.
        let (first, second) = if self.input.rows <= other.input.rows { (self, other) } else { (other, self) };
        let mut columns = first.columns;
        columns.extend(second.columns);
        Self {
            input: first.input.joined(second.input, rows),
            columns,
            tree: Tree::Join(Box::new(first.tree), Box::new(second.tree)),
            made: first.made + second.made + rows,
        }
    }
}

/// Whether a projection gives some columns of a join as they are.
pub fn keeps_columns(projection: &Projection) -> bool {
    projection.expr.iter().all(|expr| matches!(expr, Expr::Column(_)))
}

#[cfg(test)]
pub mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
    use async_trait::async_trait;
    use datafusion::catalog::{Session, TableProvider};
    use datafusion::common::stats::Precision;
    use datafusion::common::{Statistics, not_impl_err};
    use datafusion::datasource::TableType;
    use datafusion::execution::SessionStateBuilder;
    use datafusion::logical_expr::{Expr, LogicalPlan};
    use datafusion::physical_plan::ExecutionPlan;
    use datafusion::prelude::SessionContext;

    use crate::plan::repair::repaired;

    /// A table of so many rows, whose columns have so many values.
    #[derive(Debug)]
    struct Counted {
        rows: Option<usize>,
        columns: Vec<(&'static str, usize)>,
    }

    #[async_trait]
    impl TableProvider for Counted {
        fn schema(&self) -> SchemaRef {
            let field = |(name, _): &(&'static str, usize)| Field::new(*name, DataType::Int64, true);
            Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
        }

        fn table_type(&self) -> TableType {
            TableType::Base
        }

        fn statistics(&self) -> Option<Statistics> {
            let mut statistics = Statistics::new_unknown(&self.schema());
            statistics.num_rows = self.rows.map_or(Precision::Absent, Precision::Exact);
            for (column, (_, values)) in statistics.column_statistics.iter_mut().zip(&self.columns) {
                column.distinct_count = Precision::Inexact(*values);
            }
            Some(statistics)
        }

        async fn scan(
            &self,
            _: &dyn Session,
            _: Option<&Vec<usize>>,
            _: &[Expr],
            _: Option<usize>,
        ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
            not_impl_err!("nothing is run")
        }
    }

    /// The optimised plan of a query over tables of known sizes.
    pub async fn optimised(rows_of_sales: Option<usize>, sql: &str) -> LogicalPlan {
        let state = SessionStateBuilder::new().with_default_features().build();
        let rules = repaired(state.optimizers());
        let state = SessionStateBuilder::new_from_existing(state).with_optimizer_rules(rules).build();
        let context = SessionContext::new_with_state(state);
        let tables = [
            ("sales", rows_of_sales, vec![("day", 1000), ("item", 1000), ("shop", 100)]),
            ("stock", Some(1_000_000), vec![("item", 1000), ("held", 1000)]),
            ("days", Some(1000), vec![("day", 1000), ("year", 10)]),
            ("shops", Some(100), vec![("shop", 100), ("country", 50)]),
        ];
        for (name, rows, columns) in tables {
            context.register_table(name, Arc::new(Counted { rows, columns })).unwrap();
        }
        context.sql(sql).await.unwrap().into_optimized_plan().unwrap()
    }

    /// The tables of a plan in the order in which they are joined, a join in brackets, and the plan's columns.
    pub async fn order_of(rows_of_sales: Option<usize>, sql: &str) -> String {
        let plan = optimised(rows_of_sales, sql).await;
        fn shown(plan: &LogicalPlan) -> String {
            match plan {
                LogicalPlan::TableScan(scan) => scan.table_name.to_string(),
                LogicalPlan::Join(join) => format!("({} {})", shown(&join.left), shown(&join.right)),
                other => other.inputs().into_iter().map(shown).collect(),
            }
        }
        format!("{}: {}", shown(&plan), plan.schema().field_names().join(", "))
    }

    const JOINED: &str = "SELECT stock.held, sales.shop FROM sales JOIN stock ON sales.item = stock.item
                          JOIN days ON sales.day = days.day JOIN shops ON sales.shop = shops.shop";

    #[tokio::test]
    async fn what_leaves_few_rows_is_joined_first() {
        let million = Some(1_000_000);
        let filtered = format!("{JOINED} WHERE days.year = 2026 AND shops.country = 1");
        let found = order_of(million, &filtered).await;
        assert_eq!(found, "((days (shops sales)) stock): stock.held, sales.shop");
        // Where each join keeps all rows no order is better.
        let kept =
            "SELECT days.year FROM sales JOIN days ON sales.day = days.day JOIN shops ON sales.shop = shops.shop";
        assert_eq!(order_of(million, kept).await, "(shops (days sales)): days.year");
    }

    #[tokio::test]
    async fn the_smaller_side_of_any_join_is_held() {
        for (kind, found) in [
            ("LEFT JOIN", "(shops sales): sales.day, sales.shop, shops.shop, shops.country"),
            ("FULL JOIN", "(shops sales): sales.day, sales.shop, shops.shop, shops.country"),
            ("LEFT SEMI JOIN", "(shops sales): sales.day, sales.shop"),
            ("LEFT ANTI JOIN", "(shops sales): sales.day, sales.shop"),
        ] {
            let sales = "(SELECT day, shop FROM sales) AS sales";
            let query = format!("SELECT * FROM {sales} {kind} shops ON sales.shop = shops.shop");
            assert_eq!(order_of(Some(1_000_000), &query).await, found, "{kind}");
        }
        let smaller = "SELECT shops.shop, sales.day FROM shops JOIN sales ON sales.shop = shops.shop";
        assert_eq!(order_of(Some(1_000_000), smaller).await, "(shops sales): shops.shop, sales.day");
    }

    #[tokio::test]
    async fn the_order_stays_where_sizes_are_not_known_or_a_condition_may_fail() {
        let filtered = format!("{JOINED} WHERE days.year = 2026 AND shops.country = 1");
        assert!(order_of(None, &filtered).await.starts_with("(((sales stock) days) shops)"));
        let failing = format!("{filtered} AND sales.item / stock.held > days.year");
        let found = order_of(Some(1_000_000), &failing).await;
        assert!(found.starts_with("(shops (days (sales stock)))"), "{found}");
    }
}
