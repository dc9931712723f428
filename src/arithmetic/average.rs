//! `avg`, exact where DataFusion's would wrap around.

pub mod integers;

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray};
use arrow::datatypes::{
    DataType, Decimal256Type, DecimalType, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Field, FieldRef, TimeUnit, UInt64Type, i256,
};
use datafusion::common::{Result, ScalarValue, internal_err, not_impl_err};
use datafusion::functions_aggregate::average::Avg;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature};

use crate::arithmetic::operator::out_of_range;
use crate::arithmetic::sum::{of_states, state_type, to_state, total_of_list};
use crate::arithmetic::total::{Addend, Total};
use crate::shown::type_name;

/// DataFusion's `avg`, of the same types.
///
/// DataFusion sums decimals in a type with room for a thousand million rows of the largest numbers, but for those with more
/// digits than [`MOST_DIGITS`], and durations in their own type. Of these two kinds the sum is a [`Total`] here.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct CheckedAvg {
    of: Avg,
}

/// Most digits of a decimal for which DataFusion has a type with the room that it wants, 13 digits.
const MOST_DIGITS: u8 = Decimal256Type::MAX_PRECISION - 13;

/// Whether the average of this type is computed here.
fn is_own(data_type: &DataType) -> bool {
    match data_type {
        DataType::Decimal256(digits, _) => *digits > MOST_DIGITS,
        DataType::Duration(_) => true,
        _ => false,
    }
}

/// The argument's type, or an error where there is no average of it.
fn argument<'a>(args: &'a AccumulatorArgs<'_>) -> Result<&'a DataType> {
    let [field] = args.expr_fields else { return internal_err!("avg has {} arguments", args.expr_fields.len()) };
    match field.data_type() {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale)
            if *scale < 0 =>
        {
            // DataFusion divides by zero there.
            let name = type_name(field.data_type());
            not_impl_err!("avg over {name}, which has a negative scale; CAST the argument to DOUBLE or another DECIMAL")
        }
        other => Ok(other),
    }
}

impl CheckedAvg {
    fn own(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let (from, to) = (argument(&args)?.clone(), args.return_field.data_type().clone());
        match from {
            DataType::Decimal256(..) if args.is_distinct => {
                let inner = self.of.accumulator(args)?;
                Ok(distinct::<Decimal256Type>(inner, from, to, decimal))
            }
            // DataFusion knows no average of distinct durations.
            _ if args.is_distinct => self.of.accumulator(args),
            DataType::Decimal256(..) => Ok(average::<Decimal256Type>(from, to, decimal)),
            DataType::Duration(TimeUnit::Second) => {
                Ok(average::<DurationSecondType>(from, to, duration::<DurationSecondType>))
            }
            DataType::Duration(TimeUnit::Millisecond) => {
                Ok(average::<DurationMillisecondType>(from, to, duration::<DurationMillisecondType>))
            }
            DataType::Duration(TimeUnit::Microsecond) => {
                Ok(average::<DurationMicrosecondType>(from, to, duration::<DurationMicrosecondType>))
            }
            DataType::Duration(TimeUnit::Nanosecond) => {
                Ok(average::<DurationNanosecondType>(from, to, duration::<DurationNanosecondType>))
            }
            other => internal_err!("the average of {other} is DataFusion's"),
        }
    }
}

impl AggregateUDFImpl for CheckedAvg {
    fn name(&self) -> &str {
        self.of.name()
    }

    fn aliases(&self) -> &[String] {
        self.of.aliases()
    }

    fn signature(&self) -> &Signature {
        self.of.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.of.return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if is_own(argument(&args)?) { self.own(args) } else { self.of.accumulator(args) }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        match args.input_fields {
            [field] if is_own(field.data_type()) && !args.is_distinct => Ok(vec![
                Arc::new(Field::new(format_state_name(args.name, "count"), DataType::UInt64, true)),
                Arc::new(Field::new(format_state_name(args.name, "sum"), state_type(field.data_type()), true)),
                Arc::new(Field::new(format_state_name(args.name, "carry"), DataType::Int64, true)),
            ]),
            _ => self.of.state_fields(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !argument(&args).is_ok_and(is_own) && self.of.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        argument(&args)?;
        self.of.create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if is_own(argument(&args)?) { self.own(args) } else { self.of.create_sliding_accumulator(args) }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.of.reverse_expr()
    }
}

/// The average as a value of the type `to`, of a sum of `from` and a number of rows, at least one.
type Divide<N> = fn(Total<N>, u64, from: &DataType, to: &DataType) -> Result<ScalarValue>;

fn average<T>(from: DataType, to: DataType, divide: Divide<T::Native>) -> Box<dyn Accumulator>
where
    T: ArrowPrimitiveType,
    T::Native: Addend,
{
    Box::new(AverageOf::<T> { total: Total::default(), count: 0, from, to, divide, of: PhantomData })
}

/// The average of some rows, which may be taken away again.
struct AverageOf<T: ArrowPrimitiveType> {
    total: Total<T::Native>,
    /// Values that are not NULL.
    count: u64,
    from: DataType,
    to: DataType,
    divide: Divide<T::Native>,
    of: PhantomData<fn() -> T>,
}

impl<T: ArrowPrimitiveType> Debug for AverageOf<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AverageOf({}, {} rows)", self.from, self.count)
    }
}

impl<T> Accumulator for AverageOf<T>
where
    T: ArrowPrimitiveType,
    T::Native: Addend,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (total, count) = Total::of(values[0].as_primitive::<T>());
        self.total.merge(total);
        self.count += count;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (total, count) = Total::of(values[0].as_primitive::<T>());
        self.total.retract(total);
        self.count -= count;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let Self { total, count, from, to, divide, of: _ } = self;
        if *count == 0 { ScalarValue::try_from(&*to) } else { divide(*total, *count, from, to) }
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let total = (self.count > 0).then_some(self.total);
        Ok([ScalarValue::from(self.count)].into_iter().chain(to_state::<T>(total, &self.from)?).collect())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [count, sum @ ..] = states else { return internal_err!("an average's state has no columns") };
        if let Some(total) = of_states::<T>(sum)? {
            self.total.merge(total);
        }
        self.count += arrow::compute::sum(count.as_primitive::<UInt64Type>()).unwrap_or(0);
        Ok(())
    }
}

fn distinct<T>(
    inner: Box<dyn Accumulator>,
    from: DataType,
    to: DataType,
    divide: Divide<T::Native>,
) -> Box<dyn Accumulator>
where
    T: ArrowPrimitiveType,
    T::Native: Addend,
{
    Box::new(DistinctOf::<T> { inner, from, to, divide })
}

/// The average of distinct values, which DataFusion's own accumulator gathers.
struct DistinctOf<T: ArrowPrimitiveType> {
    inner: Box<dyn Accumulator>,
    from: DataType,
    to: DataType,
    divide: Divide<T::Native>,
}

impl<T: ArrowPrimitiveType> Debug for DistinctOf<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DistinctOf({}, {:?})", self.from, self.inner)
    }
}

impl<T> Accumulator for DistinctOf<T>
where
    T: ArrowPrimitiveType,
    T::Native: Addend,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let (total, count) = total_of_list::<T>(&self.inner.state()?)?;
        if count == 0 { ScalarValue::try_from(&self.to) } else { (self.divide)(total, count, &self.from, &self.to) }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }
}

/// Towards zero, as DataFusion rounds it. It is between the smallest and the largest value.
fn duration<T>(total: Total<i64>, count: u64, _from: &DataType, to: &DataType) -> Result<ScalarValue>
where
    T: ArrowPrimitiveType<Native = i64>,
{
    let sum = i128::from(total.low) + (i128::from(total.carry) << 64);
    ScalarValue::new_primitive::<T>(Some((sum / i128::from(count)) as i64), to)
}

/// The average with the digits behind the point that DataFusion gives it, the rest cut off.
fn decimal(total: Total<i256>, count: u64, from: &DataType, to: &DataType) -> Result<ScalarValue> {
    let (DataType::Decimal256(_, scale), DataType::Decimal256(digits, to_scale)) = (from, to) else {
        return internal_err!("the average of {from} is no {to}");
    };
    let too_large = || out_of_range(&format!("an average does not fit {}; CAST its argument to DOUBLE", type_name(to)));
    let scaled = i256::from_i128(10).pow_checked(u32::from((to_scale - scale).unsigned_abs()))?;
    let sum = total.value().and_then(|sum| sum.checked_mul(scaled)).ok_or_else(too_large)?;
    let average = sum.div_checked(i256::from_i128(i128::from(count)))?;
    Decimal256Type::validate_decimal_precision(average, *digits, *to_scale).map_err(|_| too_large())?;
    ScalarValue::new_primitive::<Decimal256Type>(Some(average), to)
}
