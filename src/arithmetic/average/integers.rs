//! `avg` of integers, exact up to the division: DataFusion casts them to floats first, whose sum depends on their
//! order.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Float64Array, UInt64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, UInt64Type};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue, internal_err};
use datafusion::functions_aggregate::average::Avg;
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Cast, EmitTo, Expr, ExprSchemable, GroupsAccumulator, Signature,
    Volatility, WindowFunctionDefinition, cast,
};

use crate::arithmetic::sum::groups;
use crate::arithmetic::total::{Addend, Total};

/// The average of integers, for DataFusion's average of integers that are cast to floats. `expr` is over `schema`.
///
/// # Errors
/// DataFusion's, where an argument has no type.
pub fn of_integers(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::AggregateFunction(AggregateFunction { func, mut params }) if func.inner().is::<Avg>() => {
            let Some(integers) = integers_of(&params.args, schema)? else {
                return Ok(Transformed::no(Expr::AggregateFunction(AggregateFunction { func, params })));
            };
            params.args = vec![integers];
            Ok(Transformed::yes(Expr::AggregateFunction(AggregateFunction { func: average(), params })))
        }
        Expr::WindowFunction(mut function) => {
            let is_average =
                matches!(&function.fun, WindowFunctionDefinition::AggregateUDF(func) if func.inner().is::<Avg>());
            let integers = if is_average { integers_of(&function.params.args, schema)? } else { None };
            let Some(integers) = integers else { return Ok(Transformed::no(Expr::WindowFunction(function))) };
            let WindowFunction { fun, params } = function.as_mut();
            *fun = WindowFunctionDefinition::AggregateUDF(average());
            params.args = vec![integers];
            Ok(Transformed::yes(Expr::WindowFunction(function)))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn average() -> Arc<AggregateUDF> {
    let signature = Signature::uniform(1, vec![DataType::Int64, DataType::UInt64], Volatility::Immutable);
    Arc::new(AggregateUDF::new_from_impl(IntegerAvg { signature }))
}

/// The integers of 64 bits that an average is of, if it is of integers that were cast to floats.
fn integers_of(args: &[Expr], schema: &DFSchema) -> Result<Option<Expr>> {
    let [Expr::Cast(Cast { expr, field })] = args else { return Ok(None) };
    let from = expr.get_type(schema)?;
    if *field.data_type() != DataType::Float64 || !from.is_integer() {
        return Ok(None);
    }
    let to = if from.is_signed_integer() { DataType::Int64 } else { DataType::UInt64 };
    let expr = expr.as_ref().clone();
    Ok(Some(if from == to { expr } else { cast(expr, to) }))
}

/// The average of integers of 64 bits as a float: their exact sum, rounded once, by their number.
#[derive(Debug, PartialEq, Eq, Hash)]
struct IntegerAvg {
    signature: Signature,
}

/// Calls a generic function for the type of the integers.
macro_rules! of_type {
    ($data_type:expr, $function:ident($($arg:expr),*)) => {
        match $data_type {
            DataType::Int64 => $function::<Int64Type>($($arg),*),
            DataType::UInt64 => $function::<UInt64Type>($($arg),*),
            other => internal_err!("there is no average of integers of {other}"),
        }
    };
}

/// The type of the argument.
fn argument(fields: &[FieldRef]) -> Result<&DataType> {
    let [field] = fields else { return internal_err!("avg has {} arguments", fields.len()) };
    Ok(field.data_type())
}

impl AggregateUDFImpl for IntegerAvg {
    fn name(&self) -> &str {
        "avg"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let from = argument(args.expr_fields)?.clone();
        if !args.is_distinct {
            return of_type!(&from, plain(from.clone()));
        }
        // DataFusion's sum gathers distinct values.
        let return_field = Arc::new(Field::new("sum", from.clone(), true));
        let inner = Sum::new().accumulator(AccumulatorArgs { return_field, ..args })?;
        of_type!(&from, distinct(inner, from.clone()))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let from = argument(args.input_fields)?.clone();
        if args.is_distinct {
            let return_field = Arc::new(Field::new("sum", from, true));
            return Sum::new().state_fields(StateFieldsArgs { return_field, ..args });
        }
        Ok(vec![
            Arc::new(Field::new(format_state_name(args.name, "count"), DataType::UInt64, true)),
            Arc::new(Field::new(format_state_name(args.name, "sum"), from, true)),
            Arc::new(Field::new(format_state_name(args.name, "carry"), DataType::Int64, true)),
        ])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let from = argument(args.expr_fields)?.clone();
        of_type!(&from, grouped(from.clone()))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.accumulator(args)
    }
}

/// An integer of 64 bits.
trait Integer: Addend {
    fn widened(self) -> i128;
}

impl Integer for i64 {
    fn widened(self) -> i128 {
        self.into()
    }
}

impl Integer for u64 {
    fn widened(self) -> i128 {
        self.into()
    }
}

fn plain<T>(from: DataType) -> Result<Box<dyn Accumulator>>
where
    T: ArrowPrimitiveType,
    T::Native: Integer,
{
    Ok(super::average::<T>(from, DataType::Float64, scalar))
}

fn distinct<T>(inner: Box<dyn Accumulator>, from: DataType) -> Result<Box<dyn Accumulator>>
where
    T: ArrowPrimitiveType,
    T::Native: Integer,
{
    Ok(super::distinct::<T>(inner, from, DataType::Float64, scalar))
}

fn scalar<N: Integer>(total: Total<N>, count: u64, _from: &DataType, _to: &DataType) -> Result<ScalarValue> {
    Ok(ScalarValue::from(divided(total, count)))
}

/// `total` by `count`, which is not 0.
fn divided<N: Integer>(total: Total<N>, count: u64) -> f64 {
    let sum = total.low.widened() + (i128::from(total.carry) << 64);
    sum as f64 / count as f64
}

fn grouped<T>(from: DataType) -> Result<Box<dyn GroupsAccumulator>>
where
    T: ArrowPrimitiveType + Send,
    T::Native: Integer,
{
    Ok(Box::new(GroupAverages::<T> { sums: groups::<T>(from)?, counts: Vec::new(), of: PhantomData }))
}

/// The averages of groups.
struct GroupAverages<T> {
    /// Their sums, of which the states are taken.
    sums: Box<dyn GroupsAccumulator>,
    /// Values that are not NULL.
    counts: Vec<u64>,
    of: PhantomData<fn() -> T>,
}

impl<T> GroupsAccumulator for GroupAverages<T>
where
    T: ArrowPrimitiveType + Send,
    T::Native: Integer,
{
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.counts.resize(total_num_groups, 0);
        let nulls = values[0].nulls();
        for (row, group) in group_indices.iter().enumerate() {
            let is_kept = opt_filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            self.counts[*group] += u64::from(is_kept && nulls.is_none_or(|nulls| nulls.is_valid(row)));
        }
        self.sums.update_batch(values, group_indices, opt_filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let counts = emit_to.take_needed(&mut self.counts);
        let [low, carries] = &self.sums.state(emit_to)?[..] else {
            return internal_err!("a sum's state has two columns");
        };
        let (low, carries) = (low.as_primitive::<T>(), carries.as_primitive::<Int64Type>());
        let average = |(row, count): (usize, u64)| {
            let total = Total { low: low.value(row), carry: carries.value(row) };
            (count > 0).then(|| divided(total, count))
        };
        Ok(Arc::new(counts.into_iter().enumerate().map(average).collect::<Float64Array>()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let counts: ArrayRef = Arc::new(UInt64Array::from(emit_to.take_needed(&mut self.counts)));
        Ok([counts].into_iter().chain(self.sums.state(emit_to)?).collect())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        let [counts, sums @ ..] = values else { return internal_err!("an average's state has no columns") };
        self.counts.resize(total_num_groups, 0);
        for (group, count) in group_indices.iter().zip(counts.as_primitive::<UInt64Type>()) {
            self.counts[*group] += count.unwrap_or_default();
        }
        self.sums.merge_batch(sums, group_indices, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let sums = self.sums.convert_to_state(values, opt_filter)?;
        let counts = (0..sums[0].len()).map(|row| Some(u64::from(sums[0].is_valid(row)))).collect::<UInt64Array>();
        let counts: ArrayRef = Arc::new(counts);
        Ok([counts].into_iter().chain(sums).collect())
    }

    fn size(&self) -> usize {
        self.sums.size() + self.counts.capacity() * size_of::<u64>()
    }
}
