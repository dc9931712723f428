//! The form in which a step's rows are stored, where Parquet has none for their type.
//!
//! A step takes the rows of any part of a query, also of types that no table may have: what is an interval there is
//! stored as its bytes, a dictionary as its values, also inside of structs and lists, and they are what they were for
//! the rest of the query. Rows without columns get one, since a file would keep none of them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, LargeListArray, ListArray, PrimitiveBuilder, StructArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, SchemaRef};
use datafusion::common::{Column, Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, lit,
};

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
/// Bytes of an interval: months and days of 32 bits, nanoseconds of 64.
const INTERVAL_BYTES: i32 = 16;

/// The plan with columns that can be stored.
pub fn stored(plan: LogicalPlan) -> Result<LogicalPlan> {
    if plan.schema().fields().is_empty() {
        return LogicalPlanBuilder::from(plan).project([lit(true).alias("is_row")])?.build();
    }
    let types = plan.schema().fields().iter().map(|field| stored_type(field.data_type())).collect();
    in_form(plan, types)
}

/// What [`stored`] made of rows with the columns of `schema`, as it was.
pub fn restored(plan: LogicalPlan, schema: &SchemaRef) -> Result<LogicalPlan> {
    if schema.fields().is_empty() {
        return LogicalPlanBuilder::from(plan).project(Vec::<Expr>::new())?.build();
    }
    let was = |field: &FieldRef| stored_type(field.data_type()).map(|_| field.data_type().clone());
    in_form(plan, schema.fields().iter().map(was).collect())
}

/// The plan with those columns in another form that have a type here.
fn in_form(plan: LogicalPlan, types: Vec<Option<DataType>>) -> Result<LogicalPlan> {
    if types.iter().all(Option::is_none) {
        return Ok(plan);
    }
    let schema = Arc::clone(plan.schema());
    let columns = schema.iter().zip(types).map(|((qualifier, field), to)| {
        let column = Expr::Column(Column::from((qualifier, field)));
        let formed = match to {
            Some(to) => ScalarUDF::new_from_impl(InForm::new(to)).call(vec![column]),
            None => column,
        };
        formed.alias_qualified(qualifier.cloned(), field.name())
    });
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// The type that stands for another one; `None` for those that are stored as they are.
fn stored_type(data_type: &DataType) -> Option<DataType> {
    let with = |field: &FieldRef| {
        let data_type = stored_type(field.data_type())?;
        Some(Arc::new(field.as_ref().clone().with_data_type(data_type)))
    };
    match data_type {
        &INTERVAL => Some(DataType::FixedSizeBinary(INTERVAL_BYTES)),
        DataType::Dictionary(_, values) => Some(stored_type(values).unwrap_or_else(|| values.as_ref().clone())),
        DataType::RunEndEncoded(_, values) => {
            Some(stored_type(values.data_type()).unwrap_or_else(|| values.data_type().clone()))
        }
        DataType::Struct(fields) if fields.iter().any(|field| with(field).is_some()) => {
            let fields = fields.iter().map(|field| with(field).unwrap_or_else(|| Arc::clone(field)));
            Some(DataType::Struct(fields.collect()))
        }
        DataType::List(item) => with(item).map(DataType::List),
        DataType::LargeList(item) => with(item).map(DataType::LargeList),
        _ => None,
    }
}

/// The column's values in the form of another type.
fn formed(column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    Ok(match (column.data_type(), to) {
        (from, to) if from == to => Arc::clone(column),
        (&INTERVAL, DataType::FixedSizeBinary(_)) => {
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
            Arc::new(bytes.finish())
        }
        (DataType::FixedSizeBinary(_), &INTERVAL) => {
            let mut intervals = PrimitiveBuilder::<IntervalMonthDayNanoType>::with_capacity(column.len());
            for bytes in column.as_fixed_size_binary() {
                intervals.append_option(bytes.and_then(interval_of));
            }
            Arc::new(intervals.finish())
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let of = column.as_struct();
            let columns = of.columns().iter().zip(fields).map(|(column, field)| formed(column, field.data_type()));
            let columns = columns.collect::<Result<Vec<_>>>()?;
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns, of.nulls().cloned(), of.len())?)
        }
        (DataType::List(_), DataType::List(item)) => {
            let of = column.as_list::<i32>();
            let items = formed(of.values(), item.data_type())?;
            Arc::new(ListArray::try_new(Arc::clone(item), of.offsets().clone(), items, of.nulls().cloned())?)
        }
        (DataType::LargeList(_), DataType::LargeList(item)) => {
            let of = column.as_list::<i64>();
            let items = formed(of.values(), item.data_type())?;
            Arc::new(LargeListArray::try_new(Arc::clone(item), of.offsets().clone(), items, of.nulls().cloned())?)
        }
        (DataType::Dictionary(_, values), to) => formed(&cast(column, values)?, to)?,
        (_, DataType::Dictionary(_, values)) => cast(&formed(column, values)?, to)?,
        (_, to) => cast(column, to)?,
    })
}

fn interval_of(bytes: &[u8]) -> Option<IntervalMonthDayNano> {
    let (months, rest) = bytes.split_first_chunk()?;
    let (days, rest) = rest.split_first_chunk()?;
    let (nanoseconds, _) = rest.split_first_chunk()?;
    let (months, days) = (i32::from_le_bytes(*months), i32::from_le_bytes(*days));
    Some(IntervalMonthDayNano::new(months, days, i64::from_le_bytes(*nanoseconds)))
}

/// A column in the form of another type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct InForm {
    /// Fingerprints go by it.
    name: String,
    to: DataType,
    signature: Signature,
}

impl InForm {
    fn new(to: DataType) -> Self {
        Self { name: format!("in_form_of_{to}"), to, signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for InForm {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.to.clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let [field] = args.arg_fields else { return exec_err!("{} takes one column", self.name) };
        Ok(Arc::new(field.as_ref().clone().with_data_type(self.to.clone())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let [column] = columns.as_slice() else { return exec_err!("{} takes one column", self.name()) };
        Ok(ColumnarValue::Array(formed(column, &self.to)?))
    }
}
