//! `min` and `max` of intervals, by length.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Decimal128Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use crate::arithmetic::interval::length::lengths;

/// The aggregate that replaces `function` over `types`, if that is `min` or `max` of intervals.
pub fn checked_extreme(function: &AggregateUDF, types: &[DataType]) -> Option<AggregateUDF> {
    let is_max = function.inner().is::<Max>();
    let is_of_intervals = matches!(types, [DataType::Interval(_)]);
    let is_checked = is_of_intervals && (is_max || function.inner().is::<Min>());
    let signature = Signature::any(1, Volatility::Immutable);
    is_checked.then(|| AggregateUDF::new_from_impl(IntervalExtreme { is_max, signature }))
}

/// The shortest interval, or the longest; of several of one length the first by DataFusion's order of parts.
#[derive(Debug, PartialEq, Eq, Hash)]
struct IntervalExtreme {
    is_max: bool,
    signature: Signature,
}

impl AggregateUDFImpl for IntervalExtreme {
    fn name(&self) -> &str {
        if self.is_max { "max" } else { "min" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[0].clone())
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let none = ScalarValue::try_from(args.return_field.data_type())?;
        Ok(Box::new(Extreme { is_max: self.is_max, length: None, value: none }))
    }
}

#[derive(Debug)]
struct Extreme {
    is_max: bool,
    /// Of the value.
    length: Option<i128>,
    /// NULL before there is one.
    value: ScalarValue,
}

impl Accumulator for Extreme {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let lengths = lengths(&values[0])?;
        let lengths = lengths.as_primitive::<Decimal128Type>();
        for row in (0..lengths.len()).filter(|row| lengths.is_valid(*row)) {
            let length = lengths.value(row);
            let is_further = |best: i128| if self.is_max { length > best } else { length < best };
            if self.length.is_none_or(|best| best == length || is_further(best)) {
                let value = ScalarValue::try_from_array(&values[0], row)?;
                if self.length != Some(length) || value < self.value {
                    (self.length, self.value) = (Some(length), value);
                }
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value.clone()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}
