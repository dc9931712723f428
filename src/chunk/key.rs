//! Which data types can be keys, and which of them hash alike.

use std::fmt;

use arrow::datatypes::DataType;
use arrow::datatypes::TimeUnit::{self, Microsecond, Millisecond, Nanosecond, Second};

/// Data types whose values hash alike: equal values of two types of one family have equal hashes.
///
/// A dictionary has the family of its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyFamily {
    /// Hashed as the integer 0 or 1.
    Boolean,
    /// 8 to 64 bits, signed or not; hashed as 8 bytes of two's complement, little-endian.
    Integer,
    /// Hashed as its UTF-8 bytes.
    Text,
    /// Bytes of fixed or variable size; a UUID is 16 of them.
    Binary,
    /// Hashed as the integer of days since 1970-01-01; the time of day in a `Date64` is dropped.
    Date,
    /// Time of day; hashed as an integer of microseconds, rounded down.
    Time,
    /// Date and time without a zone; hashed as an integer of microseconds since 1970-01-01, rounded down.
    Timestamp,
    /// An instant, shown in any zone; hashed as [`KeyFamily::Timestamp`], in UTC.
    TimestampTz,
    /// Hashed as the fewest bytes that hold the unscaled value, big-endian two's complement.
    Decimal {
        /// Digits after the decimal point.
        scale: i8,
    },
    /// 16 to 64 bits; hashed as the bits of the equal double, with -0.0 as 0.0 and every NaN as one.
    Float,
}

impl fmt::Display for KeyFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::TimestampTz => "timestamp with time zone",
            Self::Decimal { scale } => return write!(f, "decimal of scale {scale}"),
            Self::Float => "float",
        })
    }
}

/// The family of a key's data type, or `None` for a type that can't be a key.
///
/// `DataType::Null` has none, although the chunk function accepts columns of it.
pub fn key_family(data_type: &DataType) -> Option<KeyFamily> {
    match data_type {
        DataType::Boolean => Some(KeyFamily::Boolean),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Some(KeyFamily::Integer),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => Some(KeyFamily::Integer),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(KeyFamily::Text),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Some(KeyFamily::Binary),
        DataType::FixedSizeBinary(_) => Some(KeyFamily::Binary),
        DataType::Date32 | DataType::Date64 => Some(KeyFamily::Date),
        DataType::Time32(Second | Millisecond) => Some(KeyFamily::Time),
        DataType::Time64(Microsecond | Nanosecond) => Some(KeyFamily::Time),
        DataType::Timestamp(_, None) => Some(KeyFamily::Timestamp),
        DataType::Timestamp(_, Some(_)) => Some(KeyFamily::TimestampTz),
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => Some(KeyFamily::Decimal { scale: *scale }),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => Some(KeyFamily::Float),
        DataType::Dictionary(keys, values) if keys.is_integer() => key_family(values),
        DataType::Null
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Duration(_)
        | DataType::Interval(_)
        | DataType::List(_)
        | DataType::ListView(_)
        | DataType::LargeList(_)
        | DataType::LargeListView(_)
        | DataType::FixedSizeList(_, _)
        | DataType::Struct(_)
        | DataType::Union(_, _)
        | DataType::Map(_, _)
        | DataType::RunEndEncoded(_, _)
        | DataType::Dictionary(_, _) => None,
    }
}

/// Whether a cast keeps every value's identity and its chunk: both types are of one family and `to` holds all values of
/// `from`. A `true` also covers casts that may fail, such as on overflow, but never ones that alter a value. It is
/// about `CAST`: `TRY_CAST` makes NULLs of such failures.
///
/// False for types without a family, even for equal ones. Each type is taken to hold only what Arrow's specification
/// allows, such as times within one day. False from a dictionary to a view: where a dictionary lists NULL among its
/// values, arrow 59 makes of it the bytes in its slot.
pub fn lossless_cast(from: &DataType, to: &DataType) -> bool {
    let is_view = matches!(to, DataType::Utf8View | DataType::BinaryView);
    if is_view && matches!(from, DataType::Dictionary(_, _)) {
        return false;
    }
    let (from, to) = (decoded(from), decoded(to));
    let Some(family) = key_family(from).filter(|family| key_family(to) == Some(*family)) else {
        return false;
    };
    if from == to {
        return true;
    }
    match family {
        KeyFamily::Boolean | KeyFamily::Text => true,
        KeyFamily::Binary => !matches!(to, DataType::FixedSizeBinary(_)),
        KeyFamily::Integer if from.is_signed_integer() && to.is_unsigned_integer() => false,
        KeyFamily::Integer | KeyFamily::Date | KeyFamily::Float => from.primitive_width() < to.primitive_width(),
        KeyFamily::Time | KeyFamily::Timestamp | KeyFamily::TimestampTz => time_unit(from) <= time_unit(to),
        KeyFamily::Decimal { .. } => decimal_precision(from) <= decimal_precision(to),
    }
}

fn decoded(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => decoded(values),
        plain => plain,
    }
}

fn time_unit(data_type: &DataType) -> Option<TimeUnit> {
    match data_type {
        DataType::Time32(unit) | DataType::Time64(unit) | DataType::Timestamp(unit, _) => Some(*unit),
        _ => None,
    }
}

fn decimal_precision(data_type: &DataType) -> Option<u8> {
    match data_type {
        DataType::Decimal32(precision, _)
        | DataType::Decimal64(precision, _)
        | DataType::Decimal128(precision, _)
        | DataType::Decimal256(precision, _) => Some(*precision),
        _ => None,
    }
}
