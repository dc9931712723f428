//! Functions of windows that need only what came before, or have one value for a group of rows.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Int64Array, PrimitiveArray, UInt64Array, new_empty_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, concat, sum, take};
use arrow::datatypes::{
    ArrowNumericType, DataType, Date32Type, Date64Type, Decimal128Type, Decimal256Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::functions_aggregate::count::Count;
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::functions_window::lead_lag::{WindowShift, WindowShiftKind};
use datafusion::functions_window::rank::Rank;
use datafusion::functions_window::row_number::RowNumber;
use datafusion::logical_expr::{Accumulator, WindowFrame, WindowFrameBound, WindowFrameUnits};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::window::{PlainAggregateWindowExpr, StandardWindowExpr, WindowExpr};
use datafusion::physical_plan::windows::WindowUDFExpr;

use crate::arithmetic::sum::{CheckedSum, check_digits, does_not_fit, scalar};
use crate::arithmetic::total::{Addend, Total};
use crate::execute::memory::without_shared_views;
use crate::execute::own_text::has_no_filter;

/// Most rows that `lag` may look back to be computed here.
const MOST_ROWS_BACK: i64 = 8192;

/// How the rows of a batch belong together.
pub struct Groups {
    pub count: usize,
    /// Those of one partition each.
    pub partitions: Vec<Range<usize>>,
    /// Those of one partition that are equal in its order; empty where nobody asks.
    pub peers: Vec<Range<usize>>,
    /// Whether the first partition began in an earlier batch.
    pub continues: bool,
    /// Whether the first peers began in an earlier batch.
    pub peers_continue: bool,
    /// Rows before the last group, which may go on; all of them where functions have a value for each row alone.
    pub closed: usize,
}

/// The rows that a function has one value for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Each row by itself.
    Row,
    /// Those of a partition that are equal in its order.
    Peers,
    /// Those of a partition.
    Partition,
}

impl Groups {
    /// Partitions, and whether each one begins here.
    fn partitions(&self) -> impl Iterator<Item = (Range<usize>, bool)> {
        self.partitions.iter().enumerate().map(|(at, rows)| (rows.clone(), at > 0 || !self.continues))
    }

    /// Frames' new rows, whether each one is the first of its partition, and whether all rows with the same value
    /// have come.
    fn each_step(&self, by: Step, mut step: impl FnMut(Range<usize>, bool, bool) -> Result<()>) -> Result<()> {
        let mut peers = self.peers.iter().peekable();
        for (rows, begins) in self.partitions() {
            match by {
                Step::Row => rows.clone().try_for_each(|row| step(row..row + 1, begins && row == rows.start, true))?,
                Step::Peers => {
                    while let Some(peers) = peers.next_if(|peers| peers.start < rows.end) {
                        step(peers.clone(), begins && peers.start == rows.start, peers.start < self.closed)?;
                    }
                }
                Step::Partition => step(rows.clone(), begins, rows.start < self.closed)?,
            }
        }
        Ok(())
    }
}

/// A function and what it keeps between batches.
pub trait Function: Send {
    /// The rows that it has one value for.
    fn step(&self) -> Step;

    /// Whether it asks which rows are equal in the order.
    fn asks_peers(&self) -> bool {
        self.step() == Step::Peers
    }

    /// Its column for the rows of one more batch, of which these are the values of its arguments: for each row, or else
    /// for the rows before the last group.
    fn next(&mut self, values: &[ArrayRef], rows: &Groups) -> Result<ArrayRef>;

    /// Bytes that it keeps, where they grow with the rows.
    fn kept_bytes(&self) -> usize {
        0
    }

    /// Its value for the last group, which has ended; for functions that have one for each row, none.
    fn close(&mut self) -> Result<ScalarValue> {
        internal_err!("there is a value for each row")
    }
}

/// The function of a window expression; `None` where it is not one of those computed here.
pub fn function(expr: &dyn WindowExpr, input: &SchemaRef) -> Result<Option<Box<dyn Function>>> {
    let any = expr.as_any();
    if let Some(expr) = any.downcast_ref::<StandardWindowExpr>() {
        return Ok(standard(expr));
    }
    let Some(plain) = any.downcast_ref::<PlainAggregateWindowExpr>() else { return Ok(None) };
    let aggregate = plain.get_aggregate_expr();
    let is_plain = !aggregate.is_distinct() && !aggregate.ignore_nulls();
    let Some(step) = step(expr.get_window_frame(), !expr.order_by().is_empty()) else { return Ok(None) };
    if !aggregate.order_bys().is_empty() || !has_no_filter(expr) {
        return Ok(None);
    }
    let any = || -> Option<Box<dyn Function>> {
        let accumulated = || Accumulated { step, aggregate: aggregate.clone(), accumulator: None };
        (step != Step::Row).then(|| Box::new(accumulated()) as _)
    };
    let args = aggregate.expressions();
    let ([arg], true) = (args.as_slice(), is_plain) else { return Ok(any()) };
    let (from, to) = (arg.data_type(input)?, aggregate.field().data_type().clone());
    let fun = aggregate.fun().inner();
    let running = if fun.is::<Count>() {
        (to == DataType::Int64).then(|| Box::new(RunningCount { step, count: 0 }) as Box<dyn Function>)
    } else if fun.is::<CheckedSum>() {
        match (from, &to) {
            (DataType::Int64, DataType::Int64) => Some(running_sum::<Int64Type>(step, to)),
            (DataType::UInt64, DataType::UInt64) => Some(running_sum::<UInt64Type>(step, to)),
            (DataType::Float64, DataType::Float64) => Some(running_float_sum(step)),
            (DataType::Decimal128(_, a), DataType::Decimal128(_, b)) if a == *b => {
                Some(running_sum::<Decimal128Type>(step, to))
            }
            (DataType::Decimal256(_, a), DataType::Decimal256(_, b)) if a == *b => {
                Some(running_sum::<Decimal256Type>(step, to))
            }
            _ => None,
        }
    } else if from == to && (fun.is::<Max>() || fun.is::<Min>()) {
        running_extreme(step, to, fun.is::<Max>())
    } else {
        None
    };
    Ok(running.or_else(any))
}

/// The rows whose frames, which begin with the partition, end alike; `None` for another frame.
fn step(frame: &WindowFrame, is_ordered: bool) -> Option<Step> {
    let WindowFrame { units, start_bound, end_bound, .. } = frame;
    if !start_bound.is_unbounded() || matches!(start_bound, WindowFrameBound::Following(_)) {
        return None;
    }
    match (units, end_bound) {
        (WindowFrameUnits::Rows, WindowFrameBound::CurrentRow) => Some(Step::Row),
        (_, WindowFrameBound::CurrentRow) if is_ordered => Some(Step::Peers),
        (_, WindowFrameBound::CurrentRow) => Some(Step::Partition),
        (_, WindowFrameBound::Following(end)) if end.is_null() => Some(Step::Partition),
        _ => None,
    }
}

fn standard(expr: &StandardWindowExpr) -> Option<Box<dyn Function>> {
    let function = expr.get_standard_func_expr();
    let udf = function.as_any().downcast_ref::<WindowUDFExpr>()?;
    // What it ignores and whether it is reversed are not to be had otherwise.
    if !format!("{udf:?}").ends_with("is_reversed: false, ignore_nulls: false }") {
        return None;
    }
    let fun = udf.fun().inner();
    if fun.is::<RowNumber>() {
        return Some(Box::new(Numbered { by: Number::Row, row: 0, number: 0 }));
    }
    if fun.is::<Rank>() && !expr.order_by().is_empty() {
        return match udf.fun().name() {
            "rank" => Some(Box::new(Numbered { by: Number::Rank, row: 0, number: 0 })),
            "dense_rank" => Some(Box::new(Numbered { by: Number::DenseRank, row: 0, number: 0 })),
            _ => None,
        };
    }
    if *fun.downcast_ref::<WindowShift>()?.kind() != WindowShiftKind::Lag {
        return None;
    }
    let back = match udf.args() {
        [_] => 1,
        [_, back] => match back.downcast_ref::<Literal>()?.value() {
            ScalarValue::Int64(Some(back @ 1..=MOST_ROWS_BACK)) => *back as usize,
            _ => return None,
        },
        _ => return None,
    };
    Some(Box::new(Lag { back, before: None }))
}

/// `count` of one argument.
struct RunningCount {
    step: Step,
    count: i64,
}

impl Function for RunningCount {
    fn step(&self) -> Step {
        self.step
    }

    fn next(&mut self, values: &[ArrayRef], rows: &Groups) -> Result<ArrayRef> {
        let nulls = values.first().and_then(|values| values.logical_nulls());
        let mut counts = Vec::with_capacity(rows.count);
        rows.each_step(self.step, |step, begins, ends| {
            let new = match &nulls {
                Some(nulls) => step.clone().filter(|row| nulls.is_valid(*row)).count(),
                None => step.len(),
            };
            self.count = if begins { 0 } else { self.count } + new as i64;
            if ends {
                counts.extend(step.map(|_| self.count));
            }
            Ok(())
        })?;
        Ok(Arc::new(Int64Array::from(counts)))
    }

    fn close(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(self.count)))
    }
}

/// An aggregate whose state is its value.
struct Fold<T: ArrowPrimitiveType> {
    step: Step,
    data_type: DataType,
    /// The value of some rows; `None` where all are NULL.
    of: fn(&PrimitiveArray<T>) -> Option<T::Native>,
    /// The value of two such.
    both: fn(T::Native, T::Native) -> T::Native,
    /// What the first value of a partition is put together with.
    start: Option<T::Native>,
    value: Option<T::Native>,
}

impl<T: ArrowPrimitiveType> Function for Fold<T> {
    fn step(&self) -> Step {
        self.step
    }

    fn next(&mut self, values: &[ArrayRef], rows: &Groups) -> Result<ArrayRef> {
        let values = values[0].as_primitive::<T>();
        let mut folded = Vec::with_capacity(rows.count);
        let mut valid = Vec::with_capacity(rows.count);
        rows.each_step(self.step, |step, begins, ends| {
            let new = match step.len() {
                1 => values.is_valid(step.start).then(|| values.value(step.start)),
                len => (self.of)(&values.slice(step.start, len)),
            };
            let before = if begins { None } else { self.value };
            self.value = match (before.or(self.start), new) {
                (_, None) => before,
                (Some(before), Some(new)) => Some((self.both)(before, new)),
                (None, new) => new,
            };
            if ends {
                folded.extend(step.clone().map(|_| self.value.unwrap_or_default()));
                valid.extend(step.map(|_| self.value.is_some()));
            }
            Ok(())
        })?;
        let nulls = NullBuffer::from(valid);
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        Ok(Arc::new(PrimitiveArray::<T>::new(folded.into(), nulls).with_data_type(self.data_type.clone())))
    }

    fn close(&mut self) -> Result<ScalarValue> {
        ScalarValue::new_primitive::<T>(self.value, &self.data_type)
    }
}

/// `sum` of floats.
fn running_float_sum(step: Step) -> Box<dyn Function> {
    // DataFusion's begins with 0, and so never gives -0.
    let start = Some(0.0);
    let (of, both) = (sum::<Float64Type>, |a, b| a + b);
    Box::new(Fold::<Float64Type> { step, data_type: DataType::Float64, of, both, start, value: None })
}

fn running_sum<T>(step: Step, data_type: DataType) -> Box<dyn Function>
where
    T: ArrowPrimitiveType,
    T::Native: Addend,
{
    Box::new(RunningSum::<T> { step, data_type, total: Total::default(), count: 0 })
}

/// `sum` of integers or decimals, exact: an error where the sum of a row's frame does not fit.
struct RunningSum<T: ArrowPrimitiveType> {
    step: Step,
    data_type: DataType,
    total: Total<T::Native>,
    /// Values of the partition so far that are not NULL.
    count: u64,
}

impl<T> Function for RunningSum<T>
where
    T: ArrowPrimitiveType,
    T::Native: Addend,
{
    fn step(&self) -> Step {
        self.step
    }

    fn next(&mut self, values: &[ArrayRef], rows: &Groups) -> Result<ArrayRef> {
        let values = values[0].as_primitive::<T>();
        let mut sums = Vec::with_capacity(rows.count);
        let mut valid = Vec::with_capacity(rows.count);
        let mut fits = true;
        rows.each_step(self.step, |step, begins, ends| {
            if begins {
                (self.total, self.count) = (Total::default(), 0);
            }
            match step.len() {
                1 if values.is_null(step.start) => {}
                1 => {
                    self.total.add(values.value(step.start));
                    self.count += 1;
                }
                len => {
                    let (total, count) = Total::of(&values.slice(step.start, len));
                    self.total.merge(total);
                    self.count += count;
                }
            }
            if ends {
                fits &= self.total.carry == 0;
                sums.extend(step.clone().map(|_| self.total.low));
                valid.extend(step.map(|_| self.count > 0));
            }
            Ok(())
        })?;
        if !fits {
            return Err(does_not_fit(&self.data_type));
        }
        let nulls = NullBuffer::from(valid);
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        let sums = PrimitiveArray::<T>::new(sums.into(), nulls).with_data_type(self.data_type.clone());
        check_digits(&sums)?;
        Ok(Arc::new(sums))
    }

    fn close(&mut self) -> Result<ScalarValue> {
        scalar::<T>((self.count > 0).then_some(self.total), &self.data_type)
    }
}

/// `max` or `min` of values that have one order only, which floats have not.
fn running_extreme(step: Step, data_type: DataType, is_max: bool) -> Option<Box<dyn Function>> {
    fn extreme<T>(step: Step, data_type: DataType, is_max: bool) -> Box<dyn Function>
    where
        T: ArrowNumericType,
        T::Native: Ord,
    {
        let (start, value) = (None, None);
        Box::new(match is_max {
            true => Fold::<T> { step, data_type, of: arrow::compute::max, both: Ord::max, start, value },
            false => Fold::<T> { step, data_type, of: arrow::compute::min, both: Ord::min, start, value },
        })
    }
    let function = match &data_type {
        DataType::Int8 => extreme::<Int8Type>,
        DataType::Int16 => extreme::<Int16Type>,
        DataType::Int32 => extreme::<Int32Type>,
        DataType::Int64 => extreme::<Int64Type>,
        DataType::UInt8 => extreme::<UInt8Type>,
        DataType::UInt16 => extreme::<UInt16Type>,
        DataType::UInt32 => extreme::<UInt32Type>,
        DataType::UInt64 => extreme::<UInt64Type>,
        DataType::Decimal128(..) => extreme::<Decimal128Type>,
        DataType::Decimal256(..) => extreme::<Decimal256Type>,
        DataType::Date32 => extreme::<Date32Type>,
        DataType::Date64 => extreme::<Date64Type>,
        DataType::Timestamp(TimeUnit::Second, _) => extreme::<TimestampSecondType>,
        DataType::Timestamp(TimeUnit::Millisecond, _) => extreme::<TimestampMillisecondType>,
        DataType::Timestamp(TimeUnit::Microsecond, _) => extreme::<TimestampMicrosecondType>,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => extreme::<TimestampNanosecondType>,
        _ => return None,
    };
    Some(function(step, data_type, is_max))
}

/// Any aggregate that has one value for a group of rows.
struct Accumulated {
    step: Step,
    aggregate: AggregateFunctionExpr,
    /// That of the partition.
    accumulator: Option<Box<dyn Accumulator>>,
}

impl Function for Accumulated {
    fn step(&self) -> Step {
        self.step
    }

    fn next(&mut self, values: &[ArrayRef], rows: &Groups) -> Result<ArrayRef> {
        let (mut of_groups, mut group_of_row) = (Vec::new(), Vec::with_capacity(rows.closed));
        rows.each_step(self.step, |step, begins, ends| {
            if begins {
                self.accumulator = None;
            }
            let accumulator = match &mut self.accumulator {
                Some(accumulator) => accumulator,
                none => none.insert(self.aggregate.create_accumulator()?),
            };
            let values: Vec<_> = values.iter().map(|values| values.slice(step.start, step.len())).collect();
            accumulator.update_batch(&values)?;
            if ends {
                group_of_row.extend(step.map(|_| of_groups.len() as u64));
                of_groups.push(accumulator.evaluate()?);
            }
            Ok(())
        })?;
        let field = self.aggregate.field();
        if of_groups.is_empty() {
            return Ok(new_empty_array(field.data_type()));
        }
        let values = take(&ScalarValue::iter_to_array(of_groups)?, &UInt64Array::from(group_of_row), None)?;
        Ok(if values.data_type() == field.data_type() { values } else { cast(&values, field.data_type())? })
    }

    fn kept_bytes(&self) -> usize {
        self.accumulator.as_ref().map_or(0, |accumulator| accumulator.size())
    }

    fn close(&mut self) -> Result<ScalarValue> {
        let Some(accumulator) = &mut self.accumulator else { return internal_err!("no group is open") };
        accumulator.evaluate()?.cast_to(self.aggregate.field().data_type())
    }
}

/// What a row's number counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Number {
    Row,
    Rank,
    DenseRank,
}

/// `row_number`, `rank` or `dense_rank`.
struct Numbered {
    by: Number,
    /// Rows of the partition so far.
    row: u64,
    /// The last number given.
    number: u64,
}

impl Function for Numbered {
    fn step(&self) -> Step {
        Step::Row
    }

    fn asks_peers(&self) -> bool {
        self.by != Number::Row
    }

    fn next(&mut self, _values: &[ArrayRef], rows: &Groups) -> Result<ArrayRef> {
        let mut numbers = Vec::with_capacity(rows.count);
        let by_peers = self.by != Number::Row;
        let by = if by_peers { Step::Peers } else { Step::Row };
        rows.each_step(by, |step, begins, _| {
            if begins {
                (self.row, self.number) = (0, 0);
            }
            self.number = match self.by {
                _ if by_peers && rows.peers_continue && step.start == 0 => self.number,
                Number::Row | Number::Rank => self.row + 1,
                Number::DenseRank => self.number + 1,
            };
            self.row += step.len() as u64;
            numbers.extend(step.map(|_| self.number));
            Ok(())
        })?;
        Ok(Arc::new(UInt64Array::from(numbers)))
    }
}

/// `lag`: the value of a row some rows before.
struct Lag {
    /// Rows to look back, at least 1.
    back: usize,
    /// The last values of the partition, at most as many.
    before: Option<ArrayRef>,
}

impl Function for Lag {
    fn step(&self) -> Step {
        Step::Row
    }

    fn next(&mut self, values: &[ArrayRef], rows: &Groups) -> Result<ArrayRef> {
        let values = &values[0];
        let before = self.before.take().filter(|_| rows.continues).unwrap_or_else(|| values.slice(0, 0));
        let held = before.len();
        let all = if held == 0 { Arc::clone(values) } else { concat(&[&before, values])? };
        let mut from = Vec::with_capacity(rows.count);
        let mut start = 0;
        for (partition, begins) in rows.partitions() {
            start = if begins { held + partition.start } else { 0 };
            from.extend(partition.map(|row| (held + row).checked_sub(self.back).filter(|at| *at >= start)));
        }
        let from: UInt64Array = from.into_iter().map(|at| at.map(|at| at as u64)).collect();
        // A copy, so that it holds no more than its own rows.
        let last: UInt64Array =
            (all.len().saturating_sub(self.back).max(start)..all.len()).map(|at| at as u64).collect();
        self.before = Some(without_shared_views(&take(&all, &last, None)?)?);
        Ok(take(&all, &from, None)?)
    }
}
