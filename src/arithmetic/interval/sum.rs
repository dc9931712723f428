//! `sum` of intervals.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, IntervalDayTime, IntervalDayTimeType, IntervalMonthDayNano,
    IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType,
};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::Accumulator;
use datafusion::logical_expr::utils::format_state_name;

use crate::arithmetic::sum::does_not_fit;

/// The type of each part of a state: a number that no sum of as many rows as there can be exceeds.
const PART: DataType = DataType::Decimal128(38, 0);

/// The sum of some intervals: of their months, of their days, and of what is left of them in the unit that they have.
#[derive(Debug)]
pub struct IntervalSum {
    unit: IntervalUnit,
    months: i128,
    days: i128,
    rest: i128,
    /// Values that are not NULL.
    count: u64,
}

impl IntervalSum {
    /// Of no intervals yet.
    pub fn new(unit: IntervalUnit) -> Self {
        Self { unit, months: 0, days: 0, rest: 0, count: 0 }
    }

    /// The columns of a state.
    pub fn state_fields(name: &str) -> Vec<FieldRef> {
        let part = |part| Arc::new(Field::new(format_state_name(name, part), PART, true));
        ["months", "days", "rest"].map(part).to_vec()
    }

    /// Adds `values` as many times as `sign` says, 1 or -1.
    fn add(&mut self, values: &ArrayRef, sign: i128) {
        let mut add = |months: i32, days: i32, rest: i64| {
            self.months += sign * i128::from(months);
            self.days += sign * i128::from(days);
            self.rest += sign * i128::from(rest);
        };
        match self.unit {
            IntervalUnit::YearMonth => {
                values.as_primitive::<IntervalYearMonthType>().iter().flatten().for_each(|months| add(months, 0, 0));
            }
            IntervalUnit::DayTime => {
                let values = values.as_primitive::<IntervalDayTimeType>();
                values.iter().flatten().for_each(|value| add(0, value.days, value.milliseconds.into()));
            }
            IntervalUnit::MonthDayNano => {
                let values = values.as_primitive::<IntervalMonthDayNanoType>();
                values.iter().flatten().for_each(|value| add(value.months, value.days, value.nanoseconds));
            }
        }
    }

    /// The sum, if it is in the type's range.
    fn value(&self) -> Option<ScalarValue> {
        let (months, days) = (i32::try_from(self.months).ok()?, i32::try_from(self.days).ok()?);
        Some(match self.unit {
            IntervalUnit::YearMonth => ScalarValue::IntervalYearMonth(Some(months)),
            IntervalUnit::DayTime => {
                let value = IntervalDayTime::new(days, i32::try_from(self.rest).ok()?);
                ScalarValue::IntervalDayTime(Some(value))
            }
            IntervalUnit::MonthDayNano => {
                let value = IntervalMonthDayNano::new(months, days, i64::try_from(self.rest).ok()?);
                ScalarValue::IntervalMonthDayNano(Some(value))
            }
        })
    }
}

/// The sum of distinct intervals, which DataFusion's own accumulator gathers.
#[derive(Debug)]
pub struct DistinctIntervals {
    /// Gives a list of them as its state.
    pub inner: Box<dyn Accumulator>,
    /// What they are made of.
    pub unit: IntervalUnit,
}

impl Accumulator for DistinctIntervals {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match self.inner.state()?.as_slice() {
            [ScalarValue::List(list)] => {
                let mut sum = IntervalSum::new(self.unit);
                sum.update_batch(&[Arc::clone(list.values())])?;
                sum.evaluate()
            }
            other => internal_err!("distinct intervals are in {other:?}"),
        }
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

impl Accumulator for IntervalSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0], 1);
        self.count += (values[0].len() - values[0].null_count()) as u64;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0], -1);
        self.count -= (values[0].len() - values[0].null_count()) as u64;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let data_type = DataType::Interval(self.unit);
        match self.count {
            0 => ScalarValue::try_from(&data_type),
            _ => self.value().ok_or_else(|| does_not_fit(&data_type)),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let part = |part: i128| ScalarValue::Decimal128((self.count > 0).then_some(part), 38, 0);
        Ok([self.months, self.days, self.rest].map(part).to_vec())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [months, days, rest] = states else {
            return internal_err!("a sum of intervals has a state of three columns, not {}", states.len());
        };
        let sum = |parts: &ArrayRef| parts.as_primitive::<Decimal128Type>().iter().flatten().sum::<i128>();
        self.months += sum(months);
        self.days += sum(days);
        self.rest += sum(rest);
        self.count += (months.len() - months.null_count()) as u64;
        Ok(())
    }
}
