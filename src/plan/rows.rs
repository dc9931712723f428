//! How many rows plans give, about.
//!
//! The usual estimates (Selinger et al., *Access Path Selection in a Relational Database Management System*, 1979): of
//! two inputs with a and b rows, joined by columns that had at most v values before rows were left out, come a · b / v
//! rows; of rows with v values of a column each value has its share. Between the least and the most value of a row group
//! values lie evenly.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Between, BinaryExpr, Distinct, Expr, FetchType, Join, JoinType, LogicalPlan, Operator, SkipType, TableScan,
    TableSource,
};

use crate::chunk::bucket::chunk_of_udf;
use crate::chunk::range::KeyValue;
use crate::plan::clustering::ColumnSize;
use crate::plan::prove::unaliased;
use crate::plan::resolve::InputSource;

/// The share of rows that pass a condition of which nothing is known.
const UNKNOWN: f64 = 0.3;

/// The share of rows that pass a comparison of other columns than those that are joined by.
const COMPARED: f64 = 0.5;

/// The share of rows that have a value which is given, where nothing is known of the column.
const OF_VALUE: f64 = 0.1;

/// A column with this share of values of its rows is a key.
const KEY: f64 = 0.9;

/// The share of rows that are NULL, or begin with something.
const RARE: f64 = 0.05;

/// An input of joins: how many rows it has, and how many values its columns have.
#[derive(Clone)]
pub struct Input {
    /// Rows, at least 1.
    pub rows: f64,
    values: HashMap<Column, Values>,
    /// Scans of which a row of the first tells that of the second, whose key it refers to.
    told: Vec<(ScanId, ScanId)>,
}

/// Tells the scans of a plan apart.
type ScanId = usize;

/// The values of a column before rows are left out.
#[derive(Clone)]
struct Values {
    count: f64,
    /// How many of them there are at most, now that rows are left out.
    left: f64,
    /// Whether each row seems to have another: files don't tell how many there are, since there are many.
    is_key: bool,
    /// Mean bytes of one, where they are of variable length.
    bytes: f64,
    /// What the column is of, and its number there; nothing where that is not known.
    of: Option<(Arc<dyn TableSource>, usize)>,
}

impl Values {
    /// The scan that the column is of.
    fn scan(&self) -> Option<ScanId> {
        self.of.as_ref().map(|(source, _)| Arc::as_ptr(source).cast::<()>() as ScanId)
    }
}

/// What a value of variable length takes of which nothing is known, or the state of an aggregate.
const VALUE_BYTES: f64 = 32.0;

/// What a hash table has for each row or group.
pub const ENTRY_BYTES: f64 = 24.0;

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
            LogicalPlan::EmptyRelation(_) => Self::of_rows(1.0),
            LogicalPlan::Values(values) => Self::of_rows(values.values.len() as f64),
            LogicalPlan::Filter(filter) => inputs.next()?.filtered(&filter.predicate),
            LogicalPlan::Projection(projection) => {
                let input = inputs.next()?;
                let named = plan.schema().iter().zip(&projection.expr);
                let values = named.filter_map(|(column, expr)| {
                    let values = input.values.get(unaliased(expr).try_as_col()?)?;
                    Some((Column::from(column), values.clone()))
                });
                Self { values: values.collect(), ..input }
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = inputs.next()?;
                let named = alias.input.schema().columns().into_iter().zip(plan.schema().columns());
                let values = named.filter_map(|(inner, column)| Some((column, input.values.get(&inner)?.clone())));
                Self { values: values.collect(), ..input }
            }
            LogicalPlan::Sort(sort) => inputs.next()?.at_most(sort.fetch),
            LogicalPlan::Limit(limit) => match (limit.get_skip_type().ok()?, limit.get_fetch_type().ok()?) {
                (SkipType::Literal(_), FetchType::Literal(fetch)) => inputs.next()?.at_most(fetch),
                _ => return None,
            },
            LogicalPlan::Aggregate(aggregate) => {
                let input = inputs.next()?;
                let keys = aggregate.group_expr.iter().map(|key| key.try_as_col().cloned()).collect::<Option<Vec<_>>>();
                // Where nothing is known, some rows have a group in common.
                let groups = keys.and_then(|keys| input.groups(&keys)).unwrap_or(input.rows * COMPARED);
                Self { rows: groups.min(input.rows), ..input }
            }
            LogicalPlan::Distinct(Distinct::All(_)) => {
                let input = inputs.next()?;
                let rows = input.groups(&plan.schema().columns()).map_or(input.rows, |groups| groups.min(input.rows));
                Self { rows, ..input }
            }
            LogicalPlan::Window(_) | LogicalPlan::Subquery(_) => inputs.next()?,
            LogicalPlan::Union(_) => Self::of_rows(inputs.map(|input| input.rows).sum()),
            LogicalPlan::Join(join) => {
                let (left, right) = (inputs.next()?, inputs.next()?);
                let pairs: Vec<_> = join.on.iter().map(|(left, right)| (left, right)).collect();
                let others = join.filter.iter().flat_map(|filter| split_conjunction(filter)).count();
                let inner = joined_rows(&left, &right, &pairs, others);
                let told = told(&left, &right, join);
                let joined = match join.join_type {
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
                };
                Self { told: joined.told.into_iter().chain(told).collect(), ..joined }
            }
            _ => return None,
        };
        Some(Self { rows: found.rows.max(1.0), ..found })
    }

    /// Both inputs joined, of which so many `rows` come.
    pub fn joined(mut self, mut other: Self, rows: f64) -> Self {
        for input in [&mut self, &mut other] {
            input.values.values_mut().for_each(|values| values.left = values.left.min(input.rows));
        }
        self.values.extend(other.values);
        self.told.extend(other.told);
        Self { rows, ..self }
    }

    /// Rows of which nothing is known.
    fn of_rows(rows: f64) -> Self {
        Self { rows, values: HashMap::new(), told: Vec::new() }
    }

    fn of_scan(scan: &TableScan) -> Option<Self> {
        let columns = scan.projected_schema.columns();
        let (rows, sizes): (u64, Vec<ColumnSize>) = match scan.source.downcast_ref::<InputSource>() {
            Some(input) => match (input.row_groups(), input.rows()) {
                (Some(groups), _) => {
                    let size = |column: &Column| groups.size(column.name()).unwrap_or_default();
                    (groups.rows(), columns.iter().map(size).collect())
                }
                (None, Some(rows)) => (rows, vec![ColumnSize::default(); columns.len()]),
                (None, None) => return None,
            },
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
        let schema = scan.source.schema();
        let values = columns.into_iter().zip(sizes).map(|(column, ColumnSize { values, bytes })| {
            let count = values.map_or(rows, |values| rows.min(values as f64));
            let bytes = if bytes > 0 { bytes as f64 / rows.max(1.0) } else { VALUE_BYTES };
            let of = schema.index_of(column.name()).ok().map(|at| (Arc::clone(&scan.source), at));
            let is_key = count >= KEY * rows;
            let count = if is_key { rows } else { count };
            (column, Values { count, left: count, is_key, bytes, of })
        });
        let values = values.collect();
        Some(Self { values, ..Self::of_rows(rows) }).map(|input| input.at_most(scan.fetch))
    }

    /// Bytes of all rows, which have the columns of `schema`, in memory.
    pub fn bytes(&self, schema: &DFSchema) -> f64 {
        let of_row = schema.iter().map(|(qualifier, field)| match field.data_type().primitive_width() {
            Some(width) => width as f64,
            None => self.values.get(&Column::from((qualifier, field))).map_or(VALUE_BYTES, |values| values.bytes),
        });
        self.rows * of_row.sum::<f64>()
    }

    /// Bytes of all rows in a hash table.
    pub fn hashed_bytes(&self, schema: &DFSchema) -> f64 {
        self.bytes(schema) + ENTRY_BYTES * self.rows
    }

    /// How many values a column has in these rows.
    fn values_of(&self, column: &Column) -> Option<f64> {
        self.values.get(column).map(|values| values.left.min(self.rows))
    }

    /// How many combinations of values columns have at most, where that is known: a key tells all of its row, and of the
    /// rows that this refers to.
    fn groups(&self, columns: &[Column]) -> Option<f64> {
        let (mut groups, mut of_scans) = (1.0, BTreeMap::<ScanId, (f64, bool)>::new());
        for column in columns {
            let values = self.values.get(column)?;
            let left = values.left.min(self.rows);
            match (values.scan(), values.is_key) {
                (None, _) => groups *= left,
                (Some(scan), is_key) => {
                    let of_scan = of_scans.entry(scan).or_insert((1.0, false));
                    *of_scan = match (is_key, of_scan.1) {
                        (true, true) => (of_scan.0.min(left), true),
                        (true, false) => (left, true),
                        (false, true) => *of_scan,
                        (false, false) => (of_scan.0 * left, false),
                    };
                }
            }
        }
        let with_keys = of_scans.iter().filter(|(_, (_, has_key))| *has_key).map(|(scan, _)| *scan);
        for scan in with_keys.collect::<Vec<_>>() {
            if of_scans.contains_key(&scan) {
                let told = self.told_by(scan);
                of_scans.retain(|other, _| *other == scan || !told.contains(other));
            }
        }
        Some(of_scans.into_values().fold(groups, |groups, (of_scan, _)| groups * of_scan))
    }

    /// The scans of which a row of `scan` tells that of each.
    fn told_by(&self, scan: ScanId) -> BTreeSet<ScanId> {
        let (mut found, mut pending) = (BTreeSet::new(), vec![scan]);
        while let Some(scan) = pending.pop() {
            let told = self.told.iter().filter(|(by, _)| *by == scan).map(|(_, told)| *told);
            pending.extend(told.filter(|told| found.insert(*told)));
        }
        found
    }

    fn at_most(self, rows: Option<usize>) -> Self {
        let rows = rows.map_or(self.rows, |most| self.rows.min(most as f64));
        Self { rows, ..self }
    }

    fn filtered(self, predicate: &Expr) -> Self {
        let (mut share, mut ranges) = (1.0, HashMap::<&Column, Vec<(Operator, f64)>>::new());
        for condition in split_conjunction(predicate) {
            match bounds(condition) {
                Some((column, bounds)) => ranges.entry(column).or_default().extend(bounds),
                None => share *= self.share(condition),
            }
        }
        let of_ranges: f64 = ranges.into_iter().map(|(column, bounds)| self.share_within(column, &bounds)).product();
        Self { rows: (self.rows * share * of_ranges).max(1.0), ..self }
    }

    /// The share of rows whose value of a column meets some comparisons with numbers.
    fn share_within(&self, column: &Column, bounds: &[(Operator, f64)]) -> f64 {
        let spread = self.values.get(column).and_then(|values| spread(values.of.as_ref()?));
        let Some(spread) = spread else { return UNKNOWN.powi(bounds.len() as i32) };
        let (mut from, mut to) = (f64::NEG_INFINITY, f64::INFINITY);
        for (op, value) in bounds {
            match op {
                Operator::Lt => to = to.min(*value),
                Operator::LtEq => to = to.min(*value + 1.0),
                Operator::Gt => from = from.max(*value + 1.0),
                _ => from = from.max(*value),
            }
        }
        let (mut within, mut all) = (0.0, 0.0);
        for (least, most, rows) in spread {
            let below = |value: f64| ((value - least) / (most + 1.0 - least)).clamp(0.0, 1.0);
            within += rows * (below(to) - below(from)).max(0.0);
            all += rows;
        }
        within / all
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

/// The column that a condition compares with a number, and how; `None` of other conditions.
fn bounds(condition: &Expr) -> Option<(&Column, Vec<(Operator, f64)>)> {
    let number = |expr: &Expr| match expr {
        Expr::Literal(value, _) => number(value),
        _ => None,
    };
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (column, op, other) = match (left.try_as_col(), right.try_as_col()) {
                (Some(column), None) => (column, *op, right),
                (None, Some(column)) => (column, op.swap()?, left),
                _ => return None,
            };
            let is_range = matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
            is_range.then_some((column, vec![(op, number(other)?)]))
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            Some((expr.try_as_col()?, vec![(Operator::GtEq, number(low)?), (Operator::LtEq, number(high)?)]))
        }
        _ => None,
    }
}

/// A value of a type whose values are whole numbers in files: integers, decimals without their point, dates and
/// timestamps.
fn number(value: &ScalarValue) -> Option<f64> {
    match KeyValue::of(&value.to_array().ok()?)?.pop()?? {
        KeyValue::Integer(number) => Some(number as f64),
        KeyValue::Text(_) => None,
    }
}

/// The least and the most value of a column in each row group and its rows, or in the whole table; `None` where that is
/// not known, or they are no numbers.
fn spread((source, at): &(Arc<dyn TableSource>, usize)) -> Option<Vec<(f64, f64, f64)>> {
    if let Some(input) = source.downcast_ref::<InputSource>() {
        let (groups, schema) = (input.row_groups()?, source.schema());
        let number = |value: &KeyValue| match value {
            KeyValue::Integer(number) => Some(*number as f64),
            KeyValue::Text(_) => None,
        };
        let intervals = groups.intervals(schema.field(*at).name())?;
        let numbers = intervals.into_iter().zip(groups.all()).filter_map(|(interval, group)| {
            let (least, most) = interval.ends?;
            Some(number(&least).zip(number(&most)).map(|(least, most)| (least, most, group.rows as f64)))
        });
        return numbers.collect::<Option<Vec<_>>>().filter(|all| !all.is_empty());
    }
    let statistics = TableProvider::statistics(source_as_provider(source).ok()?.as_ref())?;
    let column = statistics.column_statistics.get(*at)?;
    let (least, most) = (number(column.min_value.get_value()?)?, number(column.max_value.get_value()?)?);
    (least <= most).then(|| vec![(least, most, 1.0)])
}

/// The scans of which a row of the first tells that of the second, since it is joined to its key.
fn told(left: &Input, right: &Input, join: &Join) -> Vec<(ScanId, ScanId)> {
    let values = |input: &Input, expr: &Expr| {
        let values = input.values.get(expr.try_as_col()?)?;
        Some((values.scan()?, values.is_key))
    };
    let pairs = join.on.iter().filter_map(|(on_left, on_right)| values(left, on_left).zip(values(right, on_right)));
    let told = pairs.flat_map(|((left, of_left), (right, of_right))| {
        let (by_left, by_right) = (of_right.then_some((left, right)), of_left.then_some((right, left)));
        by_left.into_iter().chain(by_right)
    });
    told.collect()
}

/// How many rows two inputs give, joined by pairs of values that are equal, one of each, and by so many other
/// conditions.
pub fn joined_rows(a: &Input, b: &Input, pairs: &[(&Expr, &Expr)], others: usize) -> f64 {
    let values = |input: &Input, expr: &Expr| {
        let mut columns = expr.column_refs().into_iter();
        let column = columns.next().filter(|_| columns.next().is_none());
        let known = column.and_then(|column| input.values.get(column)).map(|values| (values.count, values.is_key));
        known.unwrap_or((input.rows, true))
    };
    // Values that refer to a key are among its own.
    let of_pair = |(left, of_left): (f64, bool), (right, of_right): (f64, bool)| match (of_left, of_right) {
        (true, true) => left.min(right),
        (true, false) => left,
        (false, true) => right,
        (false, false) => left.max(right),
    };
    let of_pairs: f64 = pairs.iter().map(|(left, right)| of_pair(values(a, left), values(b, right))).product();
    // Several columns have no more values together than there are rows.
    let of_pairs = if pairs.len() > 1 { of_pairs.min(a.rows.max(b.rows)) } else { of_pairs };
    (a.rows * b.rows / of_pairs.max(1.0) * COMPARED.powi(others as i32)).max(1.0)
}
