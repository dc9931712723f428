//! Rows of a plan in the columns that were planned for their file, every value kept.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};

use crate::error::{Error, ErrorKind, Result};
use crate::execute::convert::{NotConverted, convert};
use crate::execute::write::arrow_error;
use crate::plan::published::published_type;

/// The batch with the columns of `schema`: the same values in other encodings, or in the published form of their type
/// (see [`crate::plan::published`]).
///
/// # Errors
/// [`ErrorKind::Execute`] with the column: a value has no place in the planned type, or the types are not forms of one
/// another.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| converted(column, field)).collect::<Result<Vec<_>>>()?;
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &rows).map_err(arrow_error)
}

fn converted(column: &ArrayRef, field: &FieldRef) -> Result<ArrayRef> {
    let (name, given, planned) = (field.name(), column.data_type(), field.data_type());
    if !is_form_of(given, planned) {
        let message = format!("column `{name}` was planned as {planned} and comes as {given}; this is a bug");
        return Err(Error::new(ErrorKind::Execute, message));
    }
    convert(column, planned).map_err(|error| match error {
        NotConverted::Value { shown } => {
            let message = format!(
                "column `{name}` has {shown}, a {given} that {planned}, the type that it is stored as, does not hold; round it \
                 in the query, or CAST it to VARCHAR"
            );
            Error::new(ErrorKind::Execute, message)
        }
        NotConverted::Types(error) => arrow_error(error),
    })
}

/// Whether values of both types may stand for each other.
fn is_form_of(given: &DataType, planned: &DataType) -> bool {
    match given {
        given if given == planned => true,
        DataType::Dictionary(_, values) => is_form_of(values, planned),
        DataType::RunEndEncoded(_, values) => is_form_of(values.data_type(), planned),
        given if given.is_decimal() && planned.is_decimal() => true,
        given if given.is_string() && planned.is_string() => true,
        given if is_binary(given) && is_binary(planned) => true,
        given if given.is_nested() && planned.is_nested() => true,
        given => published_type(given).is_ok_and(|form| form == *planned),
    }
}

fn is_binary(data_type: &DataType) -> bool {
    data_type.is_binary() || matches!(data_type, DataType::BinaryView)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Date64Array, Decimal128Array, Int32Array, RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use crate::execute::conform::conform;

    fn conformed(column: impl arrow::array::Array + 'static, planned: DataType) -> Result<ArrayRef, String> {
        let batch = RecordBatch::try_from_iter([("c", Arc::new(column) as ArrayRef)]).unwrap();
        let schema = Arc::new(Schema::new(vec![Field::new("c", planned, true)]));
        let conformed = conform(&batch, &schema).map_err(|error| error.to_string())?;
        Ok(Arc::clone(conformed.column(0)))
    }

    #[test]
    fn published_forms_and_other_encodings_are_taken() {
        assert!(conformed(Date64Array::from(vec![86_400_000]), DataType::Date32).is_ok());
        assert!(conformed(StringArray::from(vec!["a"]), DataType::Utf8View).is_ok());
        let decimal = Decimal128Array::from(vec![1230]).with_precision_and_scale(10, 2).unwrap();
        assert!(conformed(decimal, DataType::Decimal128(10, 1)).is_ok());
    }

    #[test]
    fn a_value_that_would_change_and_other_types_are_errors() {
        let message = conformed(Date64Array::from(vec![1]), DataType::Date32).unwrap_err();
        assert!(message.contains("column `c` has 1970-01-01T00:00:00.001, a Date64"), "{message}");
        let message = conformed(Int32Array::from(vec![1]), DataType::Utf8).unwrap_err();
        assert!(message.contains("was planned as Utf8 and comes as Int32; this is a bug"), "{message}");
    }
}
