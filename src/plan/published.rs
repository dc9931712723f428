//! The one Parquet form of each Arrow type in a published table: the nearest that DuckDB, Polars, pandas, pyarrow and
//! Spark read as the value that it is.
//!
//! | Arrow type | column of a published table | why |
//! |---|---|---|
//! | `Timestamp(s)` | `Timestamp(ms)`, in the same zone | Parquet has no seconds: others read a bare integer |
//! | `Time32(s)` | `Time32(ms)` | as above |
//! | `Time64(ns)` | `Time64(µs)` | DuckDB and pandas have no finer time of day |
//! | `Date64` | `Date32` | Parquet's date is a number of days: others read a bare integer |
//! | `Float16` | `Float32` | few readers know it |
//! | `Decimal32`, `Decimal64`, `Decimal256` | `Decimal128`, of at most 38 digits | what every reader knows |
//! | dictionaries, run-end encoded values | their values | an encoding, not a type: Parquet has its own |
//! | `ListView`, `LargeListView` | `List`, `LargeList` | as above |
//! | `Interval`, `Duration`, unions, structs without fields or with two of one name, decimals of more than 38 digits | refused | no form that all read |
//! | `Utf8View`, `BinaryView` | the same; the files say `Utf8`, `Binary` ([`schema_of_files`]) | pandas reads no lists of views, pyarrow doesn't sort them |
//! | all others | as they are | |
//!
//! Lists, structs and maps are converted inside. No value may change on the way: one that has no place in the other
//! type fails the chunk (see [`crate::execute::conform`]).

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};

/// The most digits that other readers know.
const MOST_DIGITS: u8 = 38;

/// A column that has no published form.
#[derive(Debug, PartialEq, Eq)]
pub struct NotPublished {
    /// Name of the column.
    pub column: String,
    /// Its type.
    pub data_type: DataType,
    /// What to write instead.
    pub advice: &'static str,
}

/// The columns of a published table whose query gives those of `schema`.
///
/// # Errors
/// The first column without such a form.
pub fn published_schema(schema: &Schema) -> Result<SchemaRef, NotPublished> {
    let published = |field: &FieldRef| {
        let data_type = published_type(field.data_type()).map_err(|advice| NotPublished {
            column: field.name().clone(),
            data_type: field.data_type().clone(),
            advice,
        })?;
        Ok(Field::new(field.name(), data_type, field.is_nullable()))
    };
    Ok(Arc::new(Schema::new(schema.fields().iter().map(published).collect::<Result<Vec<_>, _>>()?)))
}

/// Whether two fields have one name.
fn has_twins(fields: &Fields) -> bool {
    let mut seen = HashSet::new();
    !fields.iter().all(|field| seen.insert(field.name()))
}

/// The type that a column of `data_type` has in a published table.
///
/// # Errors
/// What to write instead, when it has none.
pub fn published_type(data_type: &DataType) -> Result<DataType, &'static str> {
    Ok(match data_type {
        DataType::Timestamp(TimeUnit::Second, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
        DataType::Time32(TimeUnit::Second) => DataType::Time32(TimeUnit::Millisecond),
        DataType::Time64(TimeUnit::Nanosecond) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Date64 => DataType::Date32,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(digits, scale)
        | DataType::Decimal64(digits, scale)
        | DataType::Decimal128(digits, scale)
        | DataType::Decimal256(digits, scale) => decimal(*digits, *scale)?,
        DataType::Dictionary(_, values) => published_type(values)?,
        DataType::RunEndEncoded(_, values) => published_type(values.data_type())?,
        DataType::List(item) | DataType::ListView(item) => DataType::List(published_field(item)?),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(published_field(item)?),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(published_field(item)?, *length),
        DataType::Map(entries, is_sorted) => DataType::Map(published_field(entries)?, *is_sorted),
        DataType::Struct(fields) if fields.is_empty() => return Err("a struct needs a field: leave the column out"),
        DataType::Struct(fields) if has_twins(fields) => {
            return Err("readers take two fields of one name for one: give them names apart");
        }
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(published_field).collect::<Result<Vec<_>, _>>()?.into())
        }
        DataType::Interval(_) => {
            return Err("store its parts, date_part('month', x), date_part('day', x), …, or CAST it to VARCHAR");
        }
        DataType::Duration(_) => return Err("CAST it to BIGINT, a number of its units, or to VARCHAR"),
        DataType::Union(..) => return Err("store each of its members in a column of its own"),
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
        | DataType::Float32
        | DataType::Float64
        | DataType::Timestamp(..)
        | DataType::Date32
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Binary
        | DataType::FixedSizeBinary(_)
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View => data_type.clone(),
    })
}

/// The Arrow schema that files with these columns name for other readers: text and bytes in the layout that all know.
pub fn schema_of_files(schema: &Schema) -> Schema {
    let fields: Vec<_> = schema.fields().iter().map(without_views).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

fn without_views(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) => DataType::List(without_views(item)),
        DataType::LargeList(item) => DataType::LargeList(without_views(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(without_views(item), *length),
        DataType::Map(entries, is_sorted) => DataType::Map(without_views(entries), *is_sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(without_views).collect()),
        _ => return Arc::clone(field),
    };
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

/// A decimal that counts tens, hundreds, … (a negative scale) becomes one that counts ones.
fn decimal(digits: u8, scale: i8) -> Result<DataType, &'static str> {
    let (digits, scale) = match scale < 0 {
        true => (digits.saturating_add(scale.unsigned_abs()), 0),
        false => (digits, scale),
    };
    match digits <= MOST_DIGITS {
        true => Ok(DataType::Decimal128(digits, scale)),
        false => Err("other readers know 38 digits at most: CAST it to DECIMAL(38, …), DOUBLE or VARCHAR"),
    }
}

fn published_field(field: &FieldRef) -> Result<FieldRef, &'static str> {
    let published = published_type(field.data_type())?;
    Ok(match published == *field.data_type() {
        true => Arc::clone(field),
        false => Arc::new(field.as_ref().clone().with_data_type(published)),
    })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType::{self, *};
    use arrow::datatypes::{Field, Fields, IntervalUnit, Schema, TimeUnit};

    use crate::plan::published::{published_type, schema_of_files};

    fn list(item: DataType) -> DataType {
        DataType::new_list(item, true)
    }

    fn a_struct(field: DataType) -> DataType {
        Struct(Fields::from(vec![Field::new("a", field, true)]))
    }

    #[test]
    fn each_type_has_one_form_or_none() {
        let seconds = |zone: Option<&str>| Timestamp(TimeUnit::Second, zone.map(Into::into));
        let milliseconds = |zone: Option<&str>| Timestamp(TimeUnit::Millisecond, zone.map(Into::into));
        let dictionary = |values| Dictionary(Box::new(Int32), Box::new(values));
        let cases = [
            (Int64, Some(Int64)),
            (Null, Some(Null)),
            (seconds(None), Some(milliseconds(None))),
            (seconds(Some("Europe/Berlin")), Some(milliseconds(Some("Europe/Berlin")))),
            (milliseconds(None), Some(milliseconds(None))),
            (Time32(TimeUnit::Second), Some(Time32(TimeUnit::Millisecond))),
            (Time64(TimeUnit::Nanosecond), Some(Time64(TimeUnit::Microsecond))),
            (Date64, Some(Date32)),
            (Float16, Some(Float32)),
            (Decimal32(5, 2), Some(Decimal128(5, 2))),
            (Decimal256(38, 10), Some(Decimal128(38, 10))),
            (Decimal256(39, 10), None),
            (Decimal128(36, -2), Some(Decimal128(38, 0))),
            (Decimal128(37, -2), None),
            (dictionary(Utf8View), Some(Utf8View)),
            (dictionary(Date64), Some(Date32)),
            (dictionary(dictionary(Utf8)), Some(Utf8)),
            (list(Date64), Some(list(Date32))),
            (a_struct(list(Float16)), Some(a_struct(list(Float32)))),
            (a_struct(Interval(IntervalUnit::DayTime)), None),
            (Struct(Fields::empty()), None),
            (Interval(IntervalUnit::MonthDayNano), None),
            (Duration(TimeUnit::Second), None),
            (list(Duration(TimeUnit::Second)), None),
        ];
        for (data_type, expected) in cases {
            assert_eq!(published_type(&data_type).ok(), expected, "{data_type}");
        }
    }

    #[test]
    fn the_form_of_a_form_is_itself() {
        for data_type in [Date64, Float16, Decimal256(20, 2), list(Time64(TimeUnit::Nanosecond))] {
            let published = published_type(&data_type).unwrap();
            assert_eq!(published_type(&published), Ok(published.clone()));
        }
    }

    #[test]
    fn files_name_no_views() {
        let of = |text: DataType, bytes: DataType| {
            let nested = [list(text.clone()), a_struct(list(bytes.clone())), text, bytes, Int64];
            Schema::new(nested.map(|data_type| Field::new("c", data_type, true)).to_vec())
        };
        assert_eq!(schema_of_files(&of(Utf8View, BinaryView)), of(Utf8, Binary));
    }
}
