//! `sum`, exact.

use std::collections::HashMap;
use std::fmt::{self, Debug, Formatter};
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Int64Array, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Field, FieldRef, Int64Type, TimeUnit,
    UInt64Type,
};
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_err};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
};
use datafusion::physical_expr::NullState;

use crate::arithmetic::interval::{DistinctIntervals, IntervalSum};
use crate::arithmetic::operator::{first_too_long, out_of_range};
use crate::arithmetic::total::{Addend, Total};
use crate::shown::type_name;

/// DataFusion's `sum`, of the same types, which sums exactly and fails if the result does not fit.
///
/// Sums on the way may be larger than the result's type: of parts of a table, of a window's rows before others leave it.
/// A state is a [`Total`], in two columns.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct CheckedSum {
    of: Sum,
}

/// Calls a generic function for the type of a sum; `$other` for floats and intervals.
macro_rules! of_type {
    ($data_type:expr, $function:ident($($arg:expr),*), $other:expr) => {
        match $data_type {
            DataType::Int64 => $function::<Int64Type>($($arg),*),
            DataType::UInt64 => $function::<UInt64Type>($($arg),*),
            DataType::Decimal32(..) => $function::<Decimal32Type>($($arg),*),
            DataType::Decimal64(..) => $function::<Decimal64Type>($($arg),*),
            DataType::Decimal128(..) => $function::<Decimal128Type>($($arg),*),
            DataType::Decimal256(..) => $function::<Decimal256Type>($($arg),*),
            DataType::Duration(TimeUnit::Second) => $function::<DurationSecondType>($($arg),*),
            DataType::Duration(TimeUnit::Millisecond) => $function::<DurationMillisecondType>($($arg),*),
            DataType::Duration(TimeUnit::Microsecond) => $function::<DurationMicrosecondType>($($arg),*),
            DataType::Duration(TimeUnit::Nanosecond) => $function::<DurationNanosecondType>($($arg),*),
            _ => $other,
        }
    };
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.of.name()
    }

    fn signature(&self) -> &Signature {
        self.of.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.of.return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let result = args.return_field.data_type().clone();
        match &result {
            DataType::Interval(unit) if !args.is_distinct => Ok(Box::new(IntervalSum::new(*unit))),
            DataType::Interval(unit) => {
                Ok(Box::new(DistinctIntervals { inner: self.of.accumulator(args)?, unit: *unit }))
            }
            DataType::Float64 => self.of.accumulator(args),
            _ if args.is_distinct => {
                let inner = self.of.accumulator(args)?;
                of_type!(&result, distinct(inner, result.clone()), internal_err!("there is no sum of {result}"))
            }
            _ => of_type!(&result, plain(result.clone()), internal_err!("there is no sum of {result}")),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let result = args.return_type();
        match result {
            DataType::Interval(_) if !args.is_distinct => Ok(IntervalSum::state_fields(args.name)),
            DataType::Interval(_) | DataType::Float64 => self.of.state_fields(args),
            _ if args.is_distinct => self.of.state_fields(args),
            _ => Ok(vec![
                Arc::new(Field::new(format_state_name(args.name, "sum"), state_type(result), true)),
                Arc::new(Field::new(format_state_name(args.name, "carry"), DataType::Int64, true)),
            ]),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct && !matches!(args.return_field.data_type(), DataType::Interval(_))
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let result = args.return_field.data_type().clone();
        of_type!(&result, groups(result.clone()), self.of.create_groups_accumulator(args))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let result = args.return_field.data_type().clone();
        match &result {
            DataType::Int64 if args.is_distinct => Ok(Box::new(SlidingDistinct::default())),
            DataType::Interval(_) if !args.is_distinct => self.accumulator(args),
            DataType::Interval(_) | DataType::Float64 => self.of.create_sliding_accumulator(args),
            // DataFusion says which it does not know.
            _ if args.is_distinct => self.of.create_sliding_accumulator(args),
            _ => of_type!(&result, plain(result.clone()), internal_err!("there is no sum of {result}")),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.of.reverse_expr()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.of.order_sensitivity()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.of.set_monotonicity(data_type)
    }
}

/// The type of a state's numbers, which may have more digits than those of the result.
pub fn state_type(result: &DataType) -> DataType {
    match result {
        DataType::Decimal32(_, scale) => DataType::Decimal32(Decimal32Type::MAX_PRECISION, *scale),
        DataType::Decimal64(_, scale) => DataType::Decimal64(Decimal64Type::MAX_PRECISION, *scale),
        DataType::Decimal128(_, scale) => DataType::Decimal128(Decimal128Type::MAX_PRECISION, *scale),
        DataType::Decimal256(_, scale) => DataType::Decimal256(Decimal256Type::MAX_PRECISION, *scale),
        other => other.clone(),
    }
}

/// That all `sums` fit their type.
///
/// # Errors
/// When a decimal has too many digits.
pub fn check_digits(sums: &dyn Array) -> Result<()> {
    let too_long = match sums.data_type() {
        DataType::Decimal32(digits, _) => first_too_long(sums.as_primitive::<Decimal32Type>(), *digits),
        DataType::Decimal64(digits, _) => first_too_long(sums.as_primitive::<Decimal64Type>(), *digits),
        DataType::Decimal128(digits, _) => first_too_long(sums.as_primitive::<Decimal128Type>(), *digits),
        DataType::Decimal256(digits, _) => first_too_long(sums.as_primitive::<Decimal256Type>(), *digits),
        _ => None,
    };
    match too_long {
        Some(_) => Err(does_not_fit(sums.data_type())),
        None => Ok(()),
    }
}

/// The error for a sum that does not fit its type.
pub fn does_not_fit(result: &DataType) -> DataFusionError {
    let remedy = match result {
        DataType::Int64 | DataType::UInt64 => "CAST its argument to DECIMAL(38, 0)",
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) => {
            "CAST its argument to DECIMAL(76, …), or to DOUBLE"
        }
        DataType::Decimal256(..) => "CAST its argument to DOUBLE",
        _ => "sum fewer rows, or a number in its place",
    };
    out_of_range(&format!("a sum does not fit {}; {remedy}", type_name(result)))
}

/// A sum as a scalar of the result's type; NULL for none.
///
/// # Errors
/// When it does not fit.
pub fn scalar<T>(total: Option<Total<T::Native>>, result: &DataType) -> Result<ScalarValue>
where
    T: ArrowPrimitiveType,
    T::Native: Addend,
{
    let value = match total {
        Some(total) => Some(total.value().ok_or_else(|| does_not_fit(result))?),
        None => None,
    };
    let scalar = ScalarValue::new_primitive::<T>(value, result)?;
    if value.is_some() && result.is_decimal() {
        check_digits(&scalar.to_array()?)?;
    }
    Ok(scalar)
}

/// The sum of the states in `columns`: numbers and carries.
///
/// # Errors
/// When the columns are of other types.
pub fn of_states<T>(columns: &[ArrayRef]) -> Result<Option<Total<T::Native>>>
where
    T: ArrowPrimitiveType,
    T::Native: Addend,
{
    let [sums, carries] = columns else { return internal_err!("a sum's state has two columns, not {}", columns.len()) };
    let (mut total, count) = Total::of(sums.as_primitive::<T>());
    total.carry += arrow::compute::sum(carries.as_primitive::<Int64Type>()).unwrap_or(0);
    Ok((count > 0).then_some(total))
}

/// A state as scalars.
///
/// # Errors
/// DataFusion's.
pub fn to_state<T>(total: Option<Total<T::Native>>, result: &DataType) -> Result<[ScalarValue; 2]>
where
    T: ArrowPrimitiveType,
    T::Native: Addend,
{
    let low = ScalarValue::new_primitive::<T>(total.map(|total| total.low), &state_type(result))?;
    // As groups have it: a state says the same, whichever accumulator made it.
    Ok([low, ScalarValue::Int64(Some(total.map_or(0, |total| total.carry)))])
}

fn plain<T>(result: DataType) -> Result<Box<dyn Accumulator>>
where
    T: ArrowPrimitiveType,
    T::Native: Addend,
{
    Ok(Box::new(SumOf::<T> { total: Total::default(), count: 0, result }))
}

/// The sum of some rows, which may be taken away again.
struct SumOf<T: ArrowPrimitiveType> {
    total: Total<T::Native>,
    /// Values that are not NULL.
    count: u64,
    result: DataType,
}

impl<T: ArrowPrimitiveType> Debug for SumOf<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "SumOf({}, {} rows)", self.result, self.count)
    }
}

impl<T> Accumulator for SumOf<T>
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
        scalar::<T>((self.count > 0).then_some(self.total), &self.result)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        to_state::<T>((self.count > 0).then_some(self.total), &self.result).map(Vec::from)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        if let Some(total) = of_states::<T>(states)? {
            self.total.merge(total);
            // As many as there are states, at least one.
            self.count += 1;
        }
        Ok(())
    }
}

fn distinct<T>(inner: Box<dyn Accumulator>, result: DataType) -> Result<Box<dyn Accumulator>>
where
    T: ArrowPrimitiveType,
    T::Native: Addend,
{
    Ok(Box::new(Distinct::<T> { inner, result, of: PhantomData }))
}

/// The sum of distinct values, which DataFusion's own accumulator gathers.
struct Distinct<T> {
    inner: Box<dyn Accumulator>,
    result: DataType,
    of: PhantomData<fn() -> T>,
}

impl<T> Debug for Distinct<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Distinct({}, {:?})", self.result, self.inner)
    }
}

impl<T> Accumulator for Distinct<T>
where
    T: ArrowPrimitiveType,
    T::Native: Addend,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let (total, count) = total_of_list::<T>(&self.inner.state()?)?;
        scalar::<T>((count > 0).then_some(total), &self.result)
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

/// The sum of the values in a state that is one list, and their number.
///
/// # Errors
/// When it is something else.
pub fn total_of_list<T>(state: &[ScalarValue]) -> Result<(Total<T::Native>, u64)>
where
    T: ArrowPrimitiveType,
    T::Native: Addend,
{
    match state {
        [ScalarValue::List(list)] if list.value_type().equals_datatype(list.values().data_type()) => {
            match list.values().as_primitive_opt::<T>() {
                Some(values) => Ok(Total::of(values)),
                None => internal_err!("distinct values are of {}", list.value_type()),
            }
        }
        other => internal_err!("distinct values are in {other:?}"),
    }
}

/// The sum of the distinct values of a window's frame; of `BIGINT` only, as in DataFusion.
#[derive(Debug, Default)]
struct SlidingDistinct {
    counts: HashMap<i64, usize>,
    total: Total<i64>,
}

impl Accumulator for SlidingDistinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<Int64Type>().iter().flatten() {
            let count = self.counts.entry(value).or_default();
            if *count == 0 {
                self.total.add(value);
            }
            *count += 1;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<Int64Type>().iter().flatten() {
            match self.counts.get_mut(&value) {
                Some(count) if *count > 1 => *count -= 1,
                Some(_) => {
                    self.counts.remove(&value);
                    self.total.sub(value);
                }
                None => return internal_err!("a value leaves a window that it is not in"),
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        scalar::<Int64Type>((!self.counts.is_empty()).then_some(self.total), &DataType::Int64)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.counts.capacity() * size_of::<(i64, usize)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<_> = self.counts.keys().map(|value| ScalarValue::from(*value)).collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Int64))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        states[0].as_list::<i32>().iter().flatten().try_for_each(|values| self.update_batch(&[values]))
    }
}

/// The sums of groups as numbers of the type `result`.
///
/// # Errors
/// Never.
pub fn groups<T>(result: DataType) -> Result<Box<dyn GroupsAccumulator>>
where
    T: ArrowPrimitiveType + Send,
    T::Native: Addend,
{
    Ok(Box::new(GroupSums::<T> { sums: Vec::new(), carries: Vec::new(), nulls: NullState::new(), result }))
}

/// The sums of groups.
struct GroupSums<T: ArrowPrimitiveType> {
    /// The sum of each group modulo 2^bits.
    sums: Vec<T::Native>,
    /// The carries of the first groups; as good as never there.
    carries: Vec<i64>,
    /// Which groups have a value.
    nulls: NullState,
    result: DataType,
}

impl<T> GroupSums<T>
where
    T: ArrowPrimitiveType + Send,
    T::Native: Addend,
{
    /// What is in the state of these groups: sums, which of them are NULL, and carries.
    fn take(&mut self, emit_to: EmitTo) -> (Vec<T::Native>, Option<NullBuffer>, Vec<i64>) {
        let carries = if self.carries.is_empty() {
            Vec::new()
        } else {
            self.carries.resize(self.sums.len(), 0);
            emit_to.take_needed(&mut self.carries)
        };
        (emit_to.take_needed(&mut self.sums), self.nulls.build(emit_to), carries)
    }
}

#[cold]
#[inline(never)]
fn carry_over(carries: &mut Vec<i64>, group: usize, carry: i64) {
    if carries.len() <= group {
        carries.resize(group + 1, 0);
    }
    carries[group] += carry;
}

impl<T> GroupsAccumulator for GroupSums<T>
where
    T: ArrowPrimitiveType + Send,
    T::Native: Addend,
{
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let values = values[0].as_primitive::<T>();
        self.sums.resize(total_num_groups, T::Native::default());
        let Self { sums, carries, nulls, result: _ } = self;
        nulls.accumulate(group_indices, values, opt_filter, total_num_groups, |group, value| {
            let sum = &mut sums[group];
            let (low, carry) = sum.add_with_carry(value);
            *sum = low;
            if carry != 0 {
                carry_over(carries, group, carry);
            }
        });
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (sums, nulls, carries) = self.take(emit_to);
        if carries.iter().any(|carry| *carry != 0) {
            return Err(does_not_fit(&self.result));
        }
        let sums = PrimitiveArray::<T>::new(sums.into(), nulls).with_data_type(self.result.clone());
        check_digits(&sums)?;
        Ok(Arc::new(sums))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (sums, nulls, mut carries) = self.take(emit_to);
        carries.resize(sums.len(), 0);
        let sums = PrimitiveArray::<T>::new(sums.into(), nulls).with_data_type(state_type(&self.result));
        Ok(vec![Arc::new(sums), Arc::new(Int64Array::from(carries))])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        let [sums, carries] = values else {
            return internal_err!("a sum's state has two columns, not {}", values.len());
        };
        self.update_batch(std::slice::from_ref(sums), group_indices, None, total_num_groups)?;
        let carries = carries.as_primitive::<Int64Type>();
        for (group, carry) in group_indices.iter().zip(carries.iter()) {
            if let Some(carry) = carry.filter(|carry| *carry != 0) {
                carry_over(&mut self.carries, *group, carry);
            }
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<T>();
        let kept = opt_filter.map(|filter| NullBuffer::from_iter(filter.iter().map(|kept| kept == Some(true))));
        let nulls = NullBuffer::union(values.nulls(), kept.as_ref());
        let sums = PrimitiveArray::<T>::new(values.values().clone(), nulls).with_data_type(state_type(&self.result));
        let carries = Int64Array::from(vec![0; sums.len()]);
        Ok(vec![Arc::new(sums), Arc::new(carries)])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<T::Native>() + self.carries.capacity() * size_of::<i64>() + self.nulls.size()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, BooleanArray, Decimal128Array, Int64Array};
    use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
    use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

    use super::{SumOf, Total, groups};

    fn integers(values: &[Option<i64>]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    fn of_groups() -> Box<dyn GroupsAccumulator> {
        groups::<Int64Type>(DataType::Int64).unwrap()
    }

    #[test]
    fn groups_fail_only_for_sums_that_do_not_fit() {
        let max = i64::MAX;
        let mut sums = of_groups();
        sums.update_batch(&[integers(&[Some(max), Some(1), None, Some(5)])], &[0, 0, 1, 2], None, 3).unwrap();
        // The first group is beyond the range, and comes back.
        let kept = BooleanArray::from(vec![Some(true), Some(false), None]);
        sums.update_batch(&[integers(&[Some(-2), Some(9), Some(9)])], &[0, 1, 2], Some(&kept), 3).unwrap();
        let first = sums.evaluate(EmitTo::First(2)).unwrap();
        assert_eq!(first.as_ref(), integers(&[Some(max - 1), None]).as_ref());
        // What was the third is the first now.
        sums.update_batch(&[integers(&[Some(max)])], &[0], None, 1).unwrap();
        assert!(sums.evaluate(EmitTo::All).unwrap_err().to_string().contains("does not fit BIGINT"));
    }

    #[test]
    fn states_of_groups_add_up_wherever_they_were_made() {
        let max = i64::MAX;
        let mut parts = of_groups();
        parts.update_batch(&[integers(&[Some(max), Some(max), Some(3), None])], &[0, 0, 1, 2], None, 3).unwrap();
        let state = parts.state(EmitTo::All).unwrap();
        let mut whole = of_groups();
        whole.merge_batch(&state, &[2, 1, 0], 3).unwrap();
        // Rows may be states of themselves.
        let values = [integers(&[Some(-max), Some(-max), Some(7), Some(8)])];
        let kept = BooleanArray::from(vec![true, true, true, false]);
        let state = of_groups().convert_to_state(&values, Some(&kept)).unwrap();
        whole.merge_batch(&state, &[2, 2, 0, 0], 3).unwrap();
        assert_eq!(whole.evaluate(EmitTo::All).unwrap().as_ref(), integers(&[Some(7), Some(3), Some(0)]).as_ref());
    }

    #[test]
    fn a_sum_without_groups_is_put_together_and_taken_apart() {
        let decimals = |values: Vec<i128>| -> ArrayRef {
            Arc::new(Decimal128Array::from(values).with_precision_and_scale(38, 2).unwrap())
        };
        let most = 10_i128.pow(38) - 1;
        let new = || SumOf::<Decimal128Type> { total: Total::default(), count: 0, result: DataType::Decimal128(38, 2) };
        let (mut first, mut second) = (new(), new());
        first.update_batch(&[decimals(vec![most, most])]).unwrap();
        second.update_batch(&[decimals(vec![-most])]).unwrap();
        assert!(first.evaluate().is_err());
        let state: Vec<ArrayRef> = first.state().unwrap().iter().map(|value| value.to_array().unwrap()).collect();
        second.merge_batch(&state).unwrap();
        assert_eq!(second.evaluate().unwrap().to_array().unwrap().as_ref(), decimals(vec![most]).as_ref());
        first.retract_batch(&[decimals(vec![most])]).unwrap();
        assert_eq!(first.evaluate().unwrap().to_array().unwrap().as_ref(), decimals(vec![most]).as_ref());
        first.retract_batch(&[decimals(vec![most])]).unwrap();
        assert!(first.evaluate().unwrap().is_null());
        // The state of no rows changes nothing.
        let none: Vec<ArrayRef> = new().state().unwrap().iter().map(|value| value.to_array().unwrap()).collect();
        assert_eq!(none.iter().map(|column| column.null_count()).collect::<Vec<_>>(), [1, 0]);
        second.merge_batch(&none).unwrap();
        assert_eq!(second.evaluate().unwrap().to_array().unwrap().as_ref(), decimals(vec![most]).as_ref());
    }
}
