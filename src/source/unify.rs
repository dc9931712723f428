//! One type for a column that files have with several: the narrowest that holds the values of both.
//!
//! | types | together |
//! |---|---|
//! | a type and NULLs only | the type |
//! | dictionaries, run-end encoded values | as their values |
//! | integers | the narrowest integer that holds both; `UInt64` and a signed one: `Decimal128(20, 0)` |
//! | integer and float | `Float64`, `Float32` or `Float16` for integers that it holds; a value that it does not hold is an error |
//! | floats | the wider |
//! | decimals, decimal and integer | enough digits on both sides of the point, 38 in all at most |
//! | texts | `Utf8View` |
//! | binaries | `BinaryView` |
//! | dates | `Date32` |
//! | date and timestamp without a zone | the timestamp |
//! | timestamps with, or without, a zone; times of day; durations | the finer unit; of two zones `UTC` |
//! | lists; maps | of the items' common type |
//! | structs | all fields by name, which must not differ by case only; one that a file does not have is NULL |
//! | anything else | an error |

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Fields, TimeUnit};

/// The narrowest type that holds the values of both types, if there is one.
pub fn unified(a: &DataType, b: &DataType) -> Option<DataType> {
    let (a, b) = (&plain(a), &plain(b));
    if a == b {
        return Some(a.clone());
    }
    match (a, b) {
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        (a, b) if a.is_integer() && b.is_integer() => Some(integer(a, b)),
        (a, b) if a.is_floating() && b.is_floating() => Some(wider(a, b).clone()),
        (integer, float) | (float, integer) if integer.is_integer() && float.is_floating() => {
            Some(float_of(integer, float))
        }
        (a, b) if let (Some(a), Some(b)) = (as_decimal(a), as_decimal(b)) => decimal(a, b),
        (DataType::Date32 | DataType::Date64, DataType::Date32 | DataType::Date64) => Some(DataType::Date32),
        (DataType::Date32 | DataType::Date64, timestamp @ DataType::Timestamp(_, None))
        | (timestamp @ DataType::Timestamp(_, None), DataType::Date32 | DataType::Date64) => Some(timestamp.clone()),
        (DataType::Timestamp(a, a_zone), DataType::Timestamp(b, b_zone)) => {
            let zone = match (a_zone, b_zone) {
                (None, None) => None,
                (Some(a), Some(b)) => Some(if a == b { Arc::clone(a) } else { "UTC".into() }),
                _ => return None,
            };
            Some(DataType::Timestamp(finer(*a, *b), zone))
        }
        (a, b) if let (Some(a), Some(b)) = (unit_of_day(a), unit_of_day(b)) => Some(match finer(a, b) {
            unit @ (TimeUnit::Second | TimeUnit::Millisecond) => DataType::Time32(unit),
            unit @ (TimeUnit::Microsecond | TimeUnit::Nanosecond) => DataType::Time64(unit),
        }),
        (DataType::Duration(a), DataType::Duration(b)) => Some(DataType::Duration(finer(*a, *b))),
        (DataType::Map(a, a_sorted), DataType::Map(b, b_sorted)) => {
            Some(DataType::Map(entries(a, b)?, *a_sorted && *b_sorted))
        }
        (DataType::Struct(a), DataType::Struct(b)) => fields(a, b).map(DataType::Struct),
        (a, b) if let (Some(a_item), Some(b_item)) = (item(a), item(b)) => {
            let item = field(a_item, b_item)?;
            let is_large = [a, b].iter().any(|list| matches!(list, DataType::LargeList(_)));
            Some(if is_large { DataType::LargeList(item) } else { DataType::List(item) })
        }
        (a, b) if is_binary(a) && is_binary(b) => Some(DataType::BinaryView),
        _ => None,
    }
}

/// The type of the values, however a file encodes them: what a source's column is.
pub fn plain(data_type: &DataType) -> DataType {
    let field = |field: &FieldRef| Arc::new(field.as_ref().clone().with_data_type(plain(field.data_type())));
    match data_type {
        DataType::Dictionary(_, values) => plain(values),
        DataType::RunEndEncoded(_, values) => plain(values.data_type()),
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        DataType::List(item) | DataType::ListView(item) => DataType::List(field(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(field(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(field(item), *length),
        DataType::Map(entries, is_sorted) => DataType::Map(field(entries), *is_sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        other => other.clone(),
    }
}

fn integer(a: &DataType, b: &DataType) -> DataType {
    let bits = |t: &DataType| t.primitive_width().unwrap_or(8) * 8;
    if a.is_signed_integer() == b.is_signed_integer() {
        return wider(a, b).clone();
    }
    let (signed, unsigned) = if a.is_signed_integer() { (a, b) } else { (b, a) };
    match bits(signed).max(bits(unsigned) * 2) {
        16 => DataType::Int16,
        32 => DataType::Int32,
        64 => DataType::Int64,
        _ => DataType::Decimal128(20, 0),
    }
}

fn wider<'a>(a: &'a DataType, b: &'a DataType) -> &'a DataType {
    if a.primitive_width() >= b.primitive_width() { a } else { b }
}

/// The narrowest float, no narrower than `float`, that holds all values of an integer; the widest for those of 64 bits.
fn float_of(integer: &DataType, float: &DataType) -> DataType {
    let least = match integer {
        DataType::Int8 | DataType::UInt8 => &DataType::Float16,
        DataType::Int16 | DataType::UInt16 => &DataType::Float32,
        _ => &DataType::Float64,
    };
    wider(least, float).clone()
}

/// Digits and scale of a decimal that holds all values of a type.
fn as_decimal(data_type: &DataType) -> Option<(u8, i8)> {
    Some(match data_type {
        DataType::Decimal32(digits, scale)
        | DataType::Decimal64(digits, scale)
        | DataType::Decimal128(digits, scale)
        | DataType::Decimal256(digits, scale) => (*digits, *scale),
        DataType::Int8 | DataType::UInt8 => (3, 0),
        DataType::Int16 | DataType::UInt16 => (5, 0),
        DataType::Int32 | DataType::UInt32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::UInt64 => (20, 0),
        _ => return None,
    })
}

fn decimal((a_digits, a_scale): (u8, i8), (b_digits, b_scale): (u8, i8)) -> Option<DataType> {
    let whole = |digits: u8, scale: i8| i16::from(digits) - i16::from(scale);
    let scale = a_scale.max(b_scale);
    let digits = whole(a_digits, a_scale).max(whole(b_digits, b_scale)) + i16::from(scale);
    u8::try_from(digits).ok().filter(|digits| *digits <= 38).map(|digits| DataType::Decimal128(digits, scale))
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    a.max(b)
}

fn unit_of_day(data_type: &DataType) -> Option<TimeUnit> {
    match data_type {
        DataType::Time32(unit) | DataType::Time64(unit) => Some(*unit),
        _ => None,
    }
}

fn item(data_type: &DataType) -> Option<&FieldRef> {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => Some(item),
        _ => None,
    }
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::BinaryView | DataType::FixedSizeBinary(_))
}

/// The first field, of the type and nullability that holds both.
fn field(a: &FieldRef, b: &FieldRef) -> Option<FieldRef> {
    let data_type = unified(a.data_type(), b.data_type())?;
    let field = a.as_ref().clone().with_data_type(data_type);
    Some(Arc::new(field.with_nullable(a.is_nullable() || b.is_nullable())))
}

/// The entries of a map, keys with keys and values with values, whatever they are called.
fn entries(a: &FieldRef, b: &FieldRef) -> Option<FieldRef> {
    let (DataType::Struct(of_a), DataType::Struct(of_b)) = (a.data_type(), b.data_type()) else { return None };
    let fields: Option<Fields> = of_a.iter().zip(of_b).map(|(a, b)| field(a, b)).collect();
    Some(Arc::new(a.as_ref().clone().with_data_type(DataType::Struct(fields?))))
}

/// All fields of both, those of the first struct first.
fn fields(a: &Fields, b: &Fields) -> Option<Fields> {
    let named = |fields: &Fields, name: &str| fields.iter().find(|field| field.name() == name).cloned();
    let nullable = |field: &FieldRef| -> FieldRef { Arc::new(field.as_ref().clone().with_nullable(true)) };
    let mut all: Vec<FieldRef> = Vec::with_capacity(a.len());
    for one in a {
        all.push(match named(b, one.name()) {
            Some(other) => field(one, &other)?,
            None => nullable(one),
        });
    }
    all.extend(b.iter().filter(|other| named(a, other.name()).is_none()).map(nullable));
    Some(all.into())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType::{self, *};
    use arrow::datatypes::{Field, Fields, TimeUnit};

    use crate::source::unify::unified;

    fn list(item: DataType) -> DataType {
        DataType::new_list(item, true)
    }

    fn a_struct(fields: &[(&str, DataType)]) -> DataType {
        Struct(fields.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect::<Fields>())
    }

    fn ts(unit: TimeUnit, zone: Option<&str>) -> DataType {
        Timestamp(unit, zone.map(Into::into))
    }

    #[test]
    fn the_narrowest_type_that_holds_both_is_taken_or_none() {
        use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
        let dictionary = |values| Dictionary(Box::new(Int8), Box::new(values));
        let cases = [
            (Int32, Int64, Some(Int64)),
            (Int8, UInt8, Some(Int16)),
            (UInt32, Int64, Some(Int64)),
            (UInt32, Int8, Some(Int64)),
            (UInt64, Int8, Some(Decimal128(20, 0))),
            (UInt8, UInt64, Some(UInt64)),
            (Int64, Float64, Some(Float64)),
            (Int32, Float32, Some(Float64)),
            (Int16, Float32, Some(Float32)),
            (Int8, Float16, Some(Float16)),
            (Float32, Float64, Some(Float64)),
            (Decimal128(10, 2), Decimal128(12, 2), Some(Decimal128(12, 2))),
            (Decimal128(10, 4), Decimal128(10, 2), Some(Decimal128(12, 4))),
            (Decimal128(10, 2), Int64, Some(Decimal128(21, 2))),
            (Decimal128(38, 0), Decimal128(38, 10), None),
            (Decimal128(38, 0), Decimal256(38, 0), Some(Decimal128(38, 0))),
            (Decimal128(10, 2), Float64, None),
            (Utf8, LargeUtf8, Some(Utf8View)),
            (Utf8View, dictionary(Utf8), Some(Utf8View)),
            (Utf8, Int64, None),
            (Utf8, Binary, None),
            (Boolean, Int64, None),
            (Null, Int64, Some(Int64)),
            (dictionary(Utf8), Null, Some(Utf8View)),
            (Binary, FixedSizeBinary(4), Some(BinaryView)),
            (FixedSizeBinary(4), FixedSizeBinary(8), Some(BinaryView)),
            (Date32, Date64, Some(Date32)),
            (Date32, ts(Second, None), Some(ts(Second, None))),
            (Date32, ts(Second, Some("UTC")), None),
            (ts(Millisecond, None), ts(Nanosecond, None), Some(ts(Nanosecond, None))),
            (ts(Millisecond, Some("UTC")), ts(Millisecond, None), None),
            (
                ts(Second, Some("Europe/Berlin")),
                ts(Microsecond, Some("Asia/Tokyo")),
                Some(ts(Microsecond, Some("UTC"))),
            ),
            (Time32(Millisecond), Time64(Microsecond), Some(Time64(Microsecond))),
            (Time32(Millisecond), Time32(Second), Some(Time32(Millisecond))),
            (ts(Second, None), Utf8, None),
            (list(Int32), list(Int64), Some(list(Int64))),
            (
                list(Int32),
                LargeList(Field::new_list_field(Int64, true).into()),
                Some(LargeList(Field::new_list_field(Int64, true).into())),
            ),
            (list(Int32), list(Utf8), None),
            (
                a_struct(&[("a", Int32), ("b", Utf8)]),
                a_struct(&[("c", Int8), ("a", Int64)]),
                Some(a_struct(&[("a", Int64), ("b", Utf8View), ("c", Int8)])),
            ),
            (a_struct(&[("a", Int32)]), a_struct(&[("a", Utf8)]), None),
        ];
        for (a, b, expected) in cases {
            assert_eq!(unified(&a, &b), expected, "{a} and {b}");
            if !matches!(a, Struct(_)) {
                assert_eq!(unified(&b, &a), expected, "{b} and {a}");
            }
        }
    }
}
