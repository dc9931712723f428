//! The types of the columns of a split file.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use crate::error::{Error, ErrorKind, Result};

/// The type that a column of `data_type` is stored as, or `None` when it can't be: unions, and what holds one.
///
/// Dictionaries and run-end encoded values are stored plain, also inside other types: an IPC file holds one dictionary
/// per column, and each batch of an input may come with its own.
pub fn stored_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Dictionary(_, values) => stored_type(values)?,
        DataType::RunEndEncoded(_, values) => stored_type(values.data_type())?,
        DataType::List(field) => DataType::List(stored_field(field)?),
        DataType::LargeList(field) => DataType::LargeList(stored_field(field)?),
        DataType::ListView(field) => DataType::ListView(stored_field(field)?),
        DataType::LargeListView(field) => DataType::LargeListView(stored_field(field)?),
        DataType::FixedSizeList(field, length) => DataType::FixedSizeList(stored_field(field)?, *length),
        DataType::Map(field, sorted) => DataType::Map(stored_field(field)?, *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(stored_field).collect::<Option<_>>()?),
        DataType::Union(..) => return None,
        DataType::Null
        | DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float16
        | DataType::Float32
        | DataType::Float64
        | DataType::Timestamp(..)
        | DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Duration(_)
        | DataType::Interval(_)
        | DataType::Binary
        | DataType::FixedSizeBinary(_)
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => data_type.clone(),
    })
}

/// The columns that those of `schema` are stored as.
///
/// # Errors
/// [`ErrorKind::Execute`] when a column can't be stored.
pub fn stored_schema(schema: &Schema) -> Result<SchemaRef> {
    let stored = |field: &FieldRef| {
        stored_field(field).ok_or_else(|| {
            let (name, data_type) = (field.name(), field.data_type());
            Error::new(ErrorKind::Execute, format!("column `{name}` of type {data_type} can't be split by chunks"))
        })
    };
    let fields = schema.fields().iter().map(stored).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())))
}

fn stored_field(field: &FieldRef) -> Option<FieldRef> {
    let stored = stored_type(field.data_type())?;
    Some(match stored == *field.data_type() {
        true => Arc::clone(field),
        false => {
            let plain = Field::new(field.name(), stored, field.is_nullable());
            Arc::new(plain.with_metadata(field.metadata().clone()))
        }
    })
}
