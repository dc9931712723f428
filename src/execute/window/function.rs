//! The functions of running windows.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Int64Array, PrimitiveArray, UInt64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::{concat, sum, take};
use arrow::datatypes::{
    ArrowNumericType, DataType, Date32Type, Date64Type, Decimal128Type, Decimal256Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::count::Count;
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::functions_window::lead_lag::{WindowShift, WindowShiftKind};
use datafusion::functions_window::rank::Rank;
use datafusion::functions_window::row_number::RowNumber;
use datafusion::logical_expr::{WindowFrame, WindowFrameBound, WindowFrameUnits};
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::window::{PlainAggregateWindowExpr, StandardWindowExpr, WindowExpr};
use datafusion::physical_plan::windows::WindowUDFExpr;

use crate::arithmetic::sum::{CheckedSum, check_digits, does_not_fit};
use crate::arithmetic::total::{Addend, Total};
use crate::execute::own_text::has_no_filter;
use crate::execute::split::memory::without_shared_views;

/// Most rows that `lag` may look back to be computed here.
const MOST_ROWS_BACK: i64 = 8192;

/// How the rows of a batch belong together.
pub struct Rows {
    pub count: usize,
    /// Those of one partition each.
    pub partitions: Vec<Range<usize>>,
    /// Those of one partition that are equal in its order; empty where nobody asks.
    pub peers: Vec<Range<usize>>,
    /// Whether the first partition began in an earlier batch.
    pub continues: bool,
    /// Whether the first peers began in an earlier batch.
    pub peers_continue: bool,
}

/// What a function needs of the rows that are equal to one in the window's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peers {
    /// Nothing.
    None,
    /// Which they are.
    Known,
    /// All of them at once.
    Together,
}

impl Rows {
    /// Partitions, and whether each one begins here.
    fn partitions(&self) -> impl Iterator<Item = (Range<usize>, bool)> {
        self.partitions.iter().enumerate().map(|(at, rows)| (rows.clone(), at > 0 || !self.continues))
    }

    /// Frames' new rows, and whether each one is the first of its partition: a row each, or with all its peers.
    fn each_step(&self, by_peers: bool, mut step: impl FnMut(Range<usize>, bool)) {
        let mut peers = self.peers.iter().peekable();
        for (rows, begins) in self.partitions() {
            if by_peers {
                while let Some(peers) = peers.next_if(|peers| peers.start < rows.end) {
                    step(peers.clone(), begins && peers.start == rows.start);
                }
            } else {
                rows.clone().for_each(|row| step(row..row + 1, begins && row == rows.start));
            }
        }
    }
}

/// A function and what it keeps between batches.
pub trait Function: Send {
    /// What it needs of a row's peers.
    fn peers(&self) -> Peers;

    /// Its column for the rows of one more batch, of `values` where it has an argument.
    fn next(&mut self, values: Option<&ArrayRef>, rows: &Rows) -> Result<ArrayRef>;
}

/// The function of a window expression; `None` where it is not one of those computed here.
pub fn function(expr: &dyn WindowExpr, input: &SchemaRef) -> Result<Option<Box<dyn Function>>> {
    let any = expr.as_any();
    if let Some(expr) = any.downcast_ref::<StandardWindowExpr>() {
        return Ok(standard(expr));
    }
    let Some(plain) = any.downcast_ref::<PlainAggregateWindowExpr>() else { return Ok(None) };
    let aggregate = plain.get_aggregate_expr();
    let is_plain = !aggregate.is_distinct()
        && !aggregate.ignore_nulls()
        && aggregate.order_bys().is_empty()
        && has_no_filter(expr);
    let Some(by_peers) = by_peers(expr.get_window_frame(), !expr.order_by().is_empty()) else { return Ok(None) };
    let args = aggregate.expressions();
    let ([arg], true) = (args.as_slice(), is_plain) else { return Ok(None) };
    let (from, to) = (arg.data_type(input)?, aggregate.field().data_type().clone());
    let fun = aggregate.fun().inner();
    Ok(if fun.is::<Count>() {
        (to == DataType::Int64).then(|| Box::new(RunningCount { by_peers, count: 0 }) as Box<dyn Function>)
    } else if fun.is::<CheckedSum>() {
        match (from, &to) {
            (DataType::Int64, DataType::Int64) => Some(running_sum::<Int64Type>(by_peers, to)),
            (DataType::UInt64, DataType::UInt64) => Some(running_sum::<UInt64Type>(by_peers, to)),
            (DataType::Float64, DataType::Float64) => Some(running_float_sum(by_peers)),
            (DataType::Decimal128(_, a), DataType::Decimal128(_, b)) if a == *b => {
                Some(running_sum::<Decimal128Type>(by_peers, to))
            }
            (DataType::Decimal256(_, a), DataType::Decimal256(_, b)) if a == *b => {
                Some(running_sum::<Decimal256Type>(by_peers, to))
            }
            _ => None,
        }
    } else if from == to && (fun.is::<Max>() || fun.is::<Min>()) {
        running_extreme(by_peers, to, fun.is::<Max>())
    } else {
        None
    })
}

/// Whether a frame from the partition's start ends with the peers of the current row, or with the row itself; `None` for
/// another frame.
fn by_peers(frame: &WindowFrame, is_ordered: bool) -> Option<bool> {
    let is_running = frame.start_bound.is_unbounded() && matches!(frame.end_bound, WindowFrameBound::CurrentRow);
    match frame.units {
        _ if !is_running => None,
        WindowFrameUnits::Rows => Some(false),
        WindowFrameUnits::Range | WindowFrameUnits::Groups => is_ordered.then_some(true),
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
    by_peers: bool,
    count: i64,
}

impl Function for RunningCount {
    fn peers(&self) -> Peers {
        if self.by_peers { Peers::Together } else { Peers::None }
    }

    fn next(&mut self, values: Option<&ArrayRef>, rows: &Rows) -> Result<ArrayRef> {
        let nulls = values.and_then(|values| values.logical_nulls());
        let mut counts = Vec::with_capacity(rows.count);
        rows.each_step(self.by_peers, |step, begins| {
            let new = match &nulls {
                Some(nulls) => step.clone().filter(|row| nulls.is_valid(*row)).count(),
                None => step.len(),
            };
            self.count = if begins { 0 } else { self.count } + new as i64;
            counts.extend(step.map(|_| self.count));
        });
        Ok(Arc::new(Int64Array::from(counts)))
    }
}

/// An aggregate whose state is its value.
struct Fold<T: ArrowPrimitiveType> {
    by_peers: bool,
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
    fn peers(&self) -> Peers {
        if self.by_peers { Peers::Together } else { Peers::None }
    }

    fn next(&mut self, values: Option<&ArrayRef>, rows: &Rows) -> Result<ArrayRef> {
        let values = values.expect("it has an argument").as_primitive::<T>();
        let mut folded = Vec::with_capacity(rows.count);
        let mut valid = Vec::with_capacity(rows.count);
        rows.each_step(self.by_peers, |step, begins| {
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
            folded.extend(step.clone().map(|_| self.value.unwrap_or_default()));
            valid.extend(step.map(|_| self.value.is_some()));
        });
        let nulls = NullBuffer::from(valid);
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        Ok(Arc::new(PrimitiveArray::<T>::new(folded.into(), nulls).with_data_type(self.data_type.clone())))
    }
}

/// `sum` of floats.
fn running_float_sum(by_peers: bool) -> Box<dyn Function> {
    // DataFusion's begins with 0, and so never gives -0.
    let start = Some(0.0);
    let (of, both) = (sum::<Float64Type>, |a, b| a + b);
    Box::new(Fold::<Float64Type> { by_peers, data_type: DataType::Float64, of, both, start, value: None })
}

fn running_sum<T>(by_peers: bool, data_type: DataType) -> Box<dyn Function>
where
    T: ArrowPrimitiveType,
    T::Native: Addend,
{
    Box::new(RunningSum::<T> { by_peers, data_type, total: Total::default(), count: 0 })
}

/// `sum` of integers or decimals, exact: an error where the sum of a row's frame does not fit.
struct RunningSum<T: ArrowPrimitiveType> {
    by_peers: bool,
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
    fn peers(&self) -> Peers {
        if self.by_peers { Peers::Together } else { Peers::None }
    }

    fn next(&mut self, values: Option<&ArrayRef>, rows: &Rows) -> Result<ArrayRef> {
        let values = values.expect("it has an argument").as_primitive::<T>();
        let mut sums = Vec::with_capacity(rows.count);
        let mut valid = Vec::with_capacity(rows.count);
        let mut fits = true;
        rows.each_step(self.by_peers, |step, begins| {
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
            fits &= self.total.carry == 0;
            sums.extend(step.clone().map(|_| self.total.low));
            valid.extend(step.map(|_| self.count > 0));
        });
        if !fits {
            return Err(does_not_fit(&self.data_type));
        }
        let nulls = NullBuffer::from(valid);
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        let sums = PrimitiveArray::<T>::new(sums.into(), nulls).with_data_type(self.data_type.clone());
        check_digits(&sums)?;
        Ok(Arc::new(sums))
    }
}

/// `max` or `min` of values that have one order only, which floats have not.
fn running_extreme(by_peers: bool, data_type: DataType, is_max: bool) -> Option<Box<dyn Function>> {
    fn extreme<T>(by_peers: bool, data_type: DataType, is_max: bool) -> Box<dyn Function>
    where
        T: ArrowNumericType,
        T::Native: Ord,
    {
        let (start, value) = (None, None);
        Box::new(match is_max {
            true => Fold::<T> { by_peers, data_type, of: arrow::compute::max, both: Ord::max, start, value },
            false => Fold::<T> { by_peers, data_type, of: arrow::compute::min, both: Ord::min, start, value },
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
    Some(function(by_peers, data_type, is_max))
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
    fn peers(&self) -> Peers {
        if self.by == Number::Row { Peers::None } else { Peers::Known }
    }

    fn next(&mut self, _values: Option<&ArrayRef>, rows: &Rows) -> Result<ArrayRef> {
        let mut numbers = Vec::with_capacity(rows.count);
        let by_peers = self.by != Number::Row;
        rows.each_step(by_peers, |step, begins| {
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
        });
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
    fn peers(&self) -> Peers {
        Peers::None
    }

    fn next(&mut self, values: Option<&ArrayRef>, rows: &Rows) -> Result<ArrayRef> {
        let values = values.expect("it has an argument");
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
