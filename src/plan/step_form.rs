//! The form in which a step's rows are stored, where Parquet has none for their type.
//!
//! A step takes the rows of any part of a query, also of types that no table may have: what is an interval there is
//! stored as its bytes, a dictionary as its values, and both are what they were for the rest of the query.

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, AsArray, FixedSizeBinaryBuilder, PrimitiveBuilder};
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, SchemaRef};
use datafusion::common::{Column, Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
/// Bytes of an interval: months and days of 32 bits, nanoseconds of 64.
const INTERVAL_BYTES: i32 = 16;

/// The plan with columns that can be stored.
pub fn stored(plan: LogicalPlan) -> Result<LogicalPlan> {
    let schema = Arc::clone(plan.schema());
    if schema.fields().iter().all(|field| stored_type(field.data_type()).is_none()) {
        return Ok(plan);
    }
    let columns = schema.iter().map(|(qualifier, field)| {
        let column = Expr::Column(Column::from((qualifier, field)));
        let stored = match (field.data_type(), stored_type(field.data_type())) {
            (_, None) => column,
            (&INTERVAL, Some(_)) => Form::Bytes.call(column),
            (_, Some(values)) => column.cast_to(&values, schema.as_ref())?,
        };
        Ok(stored.alias_qualified(qualifier.cloned(), field.name()))
    });
    LogicalPlanBuilder::from(plan).project(columns.collect::<Result<Vec<_>>>()?)?.build()
}

/// What [`stored`] made of rows with the columns of `schema`, as it was.
pub fn restored(plan: LogicalPlan, schema: &SchemaRef) -> Result<LogicalPlan> {
    if schema.fields().iter().all(|field| stored_type(field.data_type()).is_none()) {
        return Ok(plan);
    }
    let stored = Arc::clone(plan.schema());
    let columns = stored.iter().zip(schema.fields()).map(|((qualifier, field), was)| {
        let column = Expr::Column(Column::from((qualifier, field)));
        let restored = match (was.data_type(), stored_type(was.data_type())) {
            (_, None) => column,
            (&INTERVAL, Some(_)) => Form::Interval.call(column),
            (data_type, Some(_)) => column.cast_to(data_type, stored.as_ref())?,
        };
        Ok(restored.alias_qualified(qualifier.cloned(), field.name()))
    });
    LogicalPlanBuilder::from(plan).project(columns.collect::<Result<Vec<_>>>()?)?.build()
}

/// The type that stands for another one; `None` for those that are stored as they are.
fn stored_type(data_type: &DataType) -> Option<DataType> {
    match data_type {
        &INTERVAL => Some(DataType::FixedSizeBinary(INTERVAL_BYTES)),
        DataType::Dictionary(_, values) => Some(stored_type(values).unwrap_or_else(|| values.as_ref().clone())),
        DataType::RunEndEncoded(_, values) => {
            Some(stored_type(values.data_type()).unwrap_or_else(|| values.data_type().clone()))
        }
        _ => None,
    }
}

/// From intervals to bytes, and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    Bytes,
    Interval,
}

impl Form {
    fn call(self, column: Expr) -> Expr {
        let from = match self {
            Self::Bytes => INTERVAL,
            Self::Interval => DataType::FixedSizeBinary(INTERVAL_BYTES),
        };
        let function = InForm { form: self, signature: Signature::exact(vec![from], Volatility::Immutable) };
        ScalarUDF::new_from_impl(function).call(vec![column])
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct InForm {
    form: Form,
    signature: Signature,
}

impl ScalarUDFImpl for InForm {
    fn name(&self) -> &str {
        match self.form {
            Form::Bytes => "bytes_of_interval",
            Form::Interval => "interval_of_bytes",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.form {
            Form::Bytes => DataType::FixedSizeBinary(INTERVAL_BYTES),
            Form::Interval => INTERVAL,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let [column] = columns.as_slice() else { return exec_err!("{} takes one column", self.name()) };
        match self.form {
            Form::Bytes => {
                let mut bytes = FixedSizeBinaryBuilder::with_capacity(column.len(), INTERVAL_BYTES);
                for interval in column.as_primitive::<IntervalMonthDayNanoType>() {
                    match interval {
                        Some(IntervalMonthDayNano { months, days, nanoseconds }) => {
                            let parts = [&months.to_le_bytes()[..], &days.to_le_bytes(), &nanoseconds.to_le_bytes()];
                            bytes.append_value(parts.concat())?;
                        }
                        None => bytes.append_null(),
                    }
                }
                Ok(ColumnarValue::Array(Arc::new(bytes.finish())))
            }
            Form::Interval => {
                let mut intervals = PrimitiveBuilder::<IntervalMonthDayNanoType>::with_capacity(column.len());
                for bytes in column.as_fixed_size_binary() {
                    intervals.append_option(bytes.and_then(interval_of));
                }
                Ok(ColumnarValue::Array(Arc::new(intervals.finish())))
            }
        }
    }
}

fn interval_of(bytes: &[u8]) -> Option<IntervalMonthDayNano> {
    let (months, rest) = bytes.split_first_chunk()?;
    let (days, rest) = rest.split_first_chunk()?;
    let (nanoseconds, _) = rest.split_first_chunk()?;
    let (months, days) = (i32::from_le_bytes(*months), i32::from_le_bytes(*days));
    Some(IntervalMonthDayNano::new(months, days, i64::from_le_bytes(*nanoseconds)))
}
