//! How many rows plans give, about.
//!
//! The usual estimates (Selinger et al., *Access Path Selection in a Relational Database Management System*, 1979): of
//! two inputs with a and b rows, joined by columns that had at most v values before rows were left out, come a · b / v
//! rows; of rows with v values of a column each value has its share.

use std::collections::HashMap;

use datafusion::catalog::TableProvider;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, DFSchema};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, FetchType, JoinType, LogicalPlan, Operator, SkipType, TableScan,
};

use crate::chunk::bucket::chunk_of_udf;
use crate::plan::clustering::ColumnSize;
use crate::plan::prove::unaliased;
use crate::plan::resolve::InputSource;

/// The share of rows that pass a condition of which nothing is known.
const UNKNOWN: f64 = 0.3;

/// The share of rows that pass a comparison of other columns than those that are joined by.
const COMPARED: f64 = 0.5;

/// The share of rows that have a value which is given, where nothing is known of the column.
const OF_VALUE: f64 = 0.1;

/// The share of rows that are NULL, or begin with something.
const RARE: f64 = 0.05;

/// An input of joins: how many rows it has, and how many values its columns have.
#[derive(Debug, Clone)]
pub struct Input {
    /// Rows, at least 1.
    pub rows: f64,
    values: HashMap<Column, Values>,
}

/// The values of a column before rows are left out.
#[derive(Debug, Clone, Copy)]
struct Values {
    count: f64,
    /// Whether each row seems to have another: files don't tell how many there are, since there are many.
    is_key: bool,
    /// Mean bytes of one, where they are of variable length.
    bytes: f64,
}

/// What a value of variable length takes of which nothing is known, or the state of an aggregate.
const VALUE_BYTES: f64 = 32.0;

impl Input {
    /// What a plan gives; `None` where nothing is known of its rows.
    pub fn of(plan: &LogicalPlan) -> Option<Self> {
        let inputs = plan.inputs().into_iter().map(Self::of).collect::<Option<Vec<_>>>()?;
        Self::given_by(plan, inputs)
    }

    /// What the node at the top of a plan gives, if its inputs are these.
    pub fn given_by(plan: &LogicalPlan, inputs: Vec<Self>) -> Option<Self> {
        let mut inputs = inputs.into_iter();
        let found = match plan {
            LogicalPlan::TableScan(scan) => Self::of_scan(scan)?,
            LogicalPlan::EmptyRelation(_) => Self { rows: 1.0, values: HashMap::new() },
            LogicalPlan::Values(values) => Self { rows: values.values.len() as f64, values: HashMap::new() },
            LogicalPlan::Filter(filter) => inputs.next()?.filtered(&filter.predicate),
            LogicalPlan::Projection(projection) => {
                let input = inputs.next()?;
                let named = plan.schema().iter().zip(&projection.expr);
                let values = named.filter_map(|(column, expr)| {
                    let values = input.values.get(unaliased(expr).try_as_col()?)?;
                    Some((Column::from(column), *values))
                });
                Self { values: values.collect(), rows: input.rows }
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = inputs.next()?;
                let named = alias.input.schema().columns().into_iter().zip(plan.schema().columns());
                let values = named.filter_map(|(inner, column)| Some((column, *input.values.get(&inner)?)));
                Self { values: values.collect(), rows: input.rows }
            }
            LogicalPlan::Sort(sort) => inputs.next()?.at_most(sort.fetch),
            LogicalPlan::Limit(limit) => match (limit.get_skip_type().ok()?, limit.get_fetch_type().ok()?) {
                (SkipType::Literal(_), FetchType::Literal(fetch)) => inputs.next()?.at_most(fetch),
                _ => return None,
            },
            LogicalPlan::Aggregate(aggregate) => {
                let input = inputs.next()?;
                let values = aggregate.group_expr.iter().map(|key| input.values_of(key.try_as_col()?));
                // Where nothing is known, some rows have a group in common.
                let groups = values.product::<Option<f64>>().unwrap_or(input.rows * COMPARED);
                Self { rows: groups.min(input.rows), ..input }
            }
            LogicalPlan::Distinct(Distinct::All(_)) => {
                let input = inputs.next()?;
                let values = plan.schema().iter().map(|column| input.values_of(&Column::from(column)));
                let rows = values.product::<Option<f64>>().map_or(input.rows, |groups| groups.min(input.rows));
                Self { rows, ..input }
            }
            LogicalPlan::Window(_) | LogicalPlan::Subquery(_) => inputs.next()?,
            LogicalPlan::Union(_) => Self { rows: inputs.map(|input| input.rows).sum(), values: HashMap::new() },
            LogicalPlan::Join(join) => {
                let (left, right) = (inputs.next()?, inputs.next()?);
                let pairs: Vec<_> = join.on.iter().map(|(left, right)| (left, right)).collect();
                let others = join.filter.iter().flat_map(|filter| split_conjunction(filter)).count();
                let inner = joined_rows(&left, &right, &pairs, others);
                match join.join_type {
                    JoinType::Inner => left.joined(right, inner),
                    JoinType::Left => {
                        let rows = inner.max(left.rows);
                        left.joined(right, rows)
                    }
                    JoinType::Right => {
                        let rows = inner.max(right.rows);
                        left.joined(right, rows)
                    }
                    JoinType::Full => {
                        let rows = inner.max(left.rows + right.rows);
                        left.joined(right, rows)
                    }
                    JoinType::LeftSemi => Self { rows: inner.min(left.rows), ..left },
                    JoinType::RightSemi => Self { rows: inner.min(right.rows), ..right },
                    JoinType::LeftAnti => Self { rows: left.rows * COMPARED, ..left },
                    JoinType::RightAnti => Self { rows: right.rows * COMPARED, ..right },
                    JoinType::LeftMark => left,
                    JoinType::RightMark => right,
                }
            }
            _ => return None,
        };
        Some(Self { rows: found.rows.max(1.0), ..found })
    }

    /// Both inputs joined, of which so many `rows` come.
    pub fn joined(mut self, other: Self, rows: f64) -> Self {
        self.values.extend(other.values);
        Self { rows, ..self }
    }

    fn of_scan(scan: &TableScan) -> Option<Self> {
        let columns = scan.projected_schema.columns();
        let (rows, sizes): (u64, Vec<ColumnSize>) = match scan.source.downcast_ref::<InputSource>() {
            Some(input) => {
                let groups = input.row_groups()?;
                let size = |column: &Column| groups.size(column.name()).unwrap_or_default();
                (groups.rows(), columns.iter().map(size).collect())
            }
            None => {
                let provider = source_as_provider(&scan.source).ok()?;
                let statistics = TableProvider::statistics(provider.as_ref())?;
                let known = |precision: &Precision<usize>| precision.get_value().map(|value| *value as u64);
                let schema = provider.schema();
                let values = |column: &Column| {
                    let at = schema.index_of(column.name()).ok()?;
                    known(&statistics.column_statistics.get(at)?.distinct_count)
                };
                let size = |column| ColumnSize { values: values(column), bytes: 0 };
                (known(&statistics.num_rows)?, columns.iter().map(size).collect())
            }
        };
        let rows = rows as f64;
        let values = columns.into_iter().zip(sizes).map(|(column, ColumnSize { values, bytes })| {
            let count = values.map_or(rows, |values| rows.min(values as f64));
            let bytes = if bytes > 0 { bytes as f64 / rows.max(1.0) } else { VALUE_BYTES };
            (column, Values { count, is_key: count >= rows, bytes })
        });
        let values = values.collect();
        Some(Self { rows, values }).map(|input| input.at_most(scan.fetch))
    }

    /// Bytes of all rows, which have the columns of `schema`, in memory.
    pub fn bytes(&self, schema: &DFSchema) -> f64 {
        let of_row = schema.iter().map(|(qualifier, field)| match field.data_type().primitive_width() {
            Some(width) => width as f64,
            None => self.values.get(&Column::from((qualifier, field))).map_or(VALUE_BYTES, |values| values.bytes),
        });
        self.rows * of_row.sum::<f64>()
    }

    /// How many values a column has in these rows.
    fn values_of(&self, column: &Column) -> Option<f64> {
        self.values.get(column).map(|values| values.count.min(self.rows))
    }

    fn at_most(self, rows: Option<usize>) -> Self {
        let rows = rows.map_or(self.rows, |most| self.rows.min(most as f64));
        Self { rows, ..self }
    }

    fn filtered(self, predicate: &Expr) -> Self {
        let share: f64 = split_conjunction(predicate).into_iter().map(|condition| self.share(condition)).product();
        Self { rows: (self.rows * share).max(1.0), ..self }
    }

    /// The share of rows that pass a condition.
    fn share(&self, condition: &Expr) -> f64 {
        let of_value = |expr: &Expr| {
            let mut columns = expr.column_refs().into_iter();
            let values = columns.next().filter(|_| columns.next().is_none()).and_then(|c| self.values_of(c));
            values.map_or(OF_VALUE, |values| 1.0 / values)
        };
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
                Operator::And => self.share(left) * self.share(right),
                Operator::Or => (self.share(left) + self.share(right)).min(1.0),
                Operator::Eq if is_number_of_chunk(left) => 1.0,
                Operator::Eq => of_value(if left.column_refs().is_empty() { right } else { left }),
                Operator::NotEq => 1.0 - of_value(if left.column_refs().is_empty() { right } else { left }),
                _ => UNKNOWN,
            },
            // The inputs of a chunk are all cut alike.
            Expr::InList(InList { expr, .. }) if is_number_of_chunk(expr) => 1.0,
            Expr::InList(InList { expr, list, negated: false }) => (of_value(expr) * list.len() as f64).min(1.0),
            Expr::Not(inner) => 1.0 - self.share(inner),
            Expr::IsNotNull(_) => 1.0 - RARE,
            Expr::IsNull(_) => RARE,
            Expr::Between(_) => UNKNOWN * UNKNOWN,
            Expr::Like(like) if !like.negated => RARE,
            _ => UNKNOWN,
        }
    }
}

fn is_number_of_chunk(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func == chunk_of_udf())
}

/// How many rows two inputs give, joined by pairs of values that are equal, one of each, and by so many other
/// conditions.
pub fn joined_rows(a: &Input, b: &Input, pairs: &[(&Expr, &Expr)], others: usize) -> f64 {
    let values = |input: &Input, expr: &Expr| {
        let mut columns = expr.column_refs().into_iter();
        let column = columns.next().filter(|_| columns.next().is_none());
        let known = column.and_then(|column| input.values.get(column).copied());
        known.unwrap_or(Values { count: input.rows, is_key: true, bytes: VALUE_BYTES })
    };
    // Values that refer to a key are among its own.
    let of_pair = |left: Values, right: Values| match (left.is_key, right.is_key) {
        (true, true) => left.count.min(right.count),
        (true, false) => left.count,
        (false, true) => right.count,
        (false, false) => left.count.max(right.count),
    };
    let of_pairs: f64 = pairs.iter().map(|(left, right)| of_pair(values(a, left), values(b, right))).product();
    // Several columns have no more values together than there are rows.
    let of_pairs = if pairs.len() > 1 { of_pairs.min(a.rows.max(b.rows)) } else { of_pairs };
    (a.rows * b.rows / of_pairs.max(1.0) * COMPARED.powi(others as i32)).max(1.0)
}
