//! Types of columns: their names, their values, and which of them compare with each other.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray, StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::util::display::array_value_to_string;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// A type of column. Its values are numbered from 0, and comparable types have mostly equal values of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    /// Of that many bits.
    Int(u8),
    /// Of that many bits.
    UInt(u8),
    /// Of this precision and scale.
    Decimal(u8, i8),
    /// Of that many bits.
    Float(u8),
    /// A double that was computed from floats: its last digits depend on the order of additions, so it may be selected,
    /// but nothing may be decided by it.
    Inexact,
    Text(Text),
    Binary,
    Date,
    Timestamp(TimeUnit),
    /// Shown in a zone two hours east of UTC.
    Instant(TimeUnit),
    /// A list of BIGINT.
    List,
}

/// How text is laid out in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    Plain,
    Large,
    View,
    Dictionary,
}

/// One has what separates and quotes fields of text files.
const TEXTS: [&str; 9] = ["a", "", "b", "ab", "A", "é", "a\"b,\nc;d|e\tf", "-1", "1"];
/// Small domains have only those that are numbers.
const FLOATS: [f64; 12] =
    [1.0, 0.0, 2.0, 1.5, -0.0, f64::NAN, -2.0, f64::INFINITY, 0.25, 9_007_199_254_740_992.0, 4.0, 5.0];
const DAY_US: i64 = 86_400_000_000;
/// Microseconds since 1970: midnights, noons, and fractions of all units on both sides of 1970.
const TIMES: [i64; 9] = [
    19_000 * DAY_US,
    19_000 * DAY_US + DAY_US / 2,
    19_001 * DAY_US,
    19_001 * DAY_US + 1_000,
    -1_500_000,
    19_002 * DAY_US + 1,
    19_002 * DAY_US,
    19_003 * DAY_US + 1_000_000,
    0,
];
/// Beyond this number some types have values that others can't hold.
pub const COMMON_VALUES: usize = 9;
/// Numbers of values of types that have such.
pub const ALL_VALUES: usize = 12;

impl Kind {
    pub fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int(8) => DataType::Int8,
            Self::Int(16) => DataType::Int16,
            Self::Int(32) => DataType::Int32,
            Self::Int(_) => DataType::Int64,
            Self::UInt(8) => DataType::UInt8,
            Self::UInt(16) => DataType::UInt16,
            Self::UInt(32) => DataType::UInt32,
            Self::UInt(_) => DataType::UInt64,
            Self::Decimal(precision, scale) => DataType::Decimal128(precision, scale),
            Self::Float(32) => DataType::Float32,
            Self::Float(_) | Self::Inexact => DataType::Float64,
            Self::Text(Text::Plain) => DataType::Utf8,
            Self::Text(Text::Large) => DataType::LargeUtf8,
            Self::Text(Text::View) => DataType::Utf8View,
            Self::Text(Text::Dictionary) => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            Self::Binary => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Timestamp(unit) => DataType::Timestamp(unit, None),
            Self::Instant(unit) => DataType::Timestamp(unit, Some("+02:00".into())),
            Self::List => DataType::new_list(DataType::Int64, true),
        }
    }

    /// `x` made a value of this type.
    pub fn cast(self, x: &str) -> String {
        match self {
            Self::Bool => format!("CAST({x} AS BOOLEAN)"),
            Self::Int(32) => format!("CAST({x} AS INT)"),
            Self::Int(64) => format!("CAST({x} AS BIGINT)"),
            Self::Decimal(precision, scale) => format!("CAST({x} AS DECIMAL({precision}, {scale}))"),
            Self::Float(64) | Self::Inexact => format!("CAST({x} AS DOUBLE)"),
            Self::Text(Text::Plain) => format!("CAST({x} AS VARCHAR)"),
            Self::Date => format!("CAST({x} AS DATE)"),
            other => format!("arrow_cast({x}, '{}')", other.data_type()),
        }
    }

    /// Whether value `v` is a number that JSON has.
    pub fn is_finite(self, v: usize) -> bool {
        !matches!(self, Self::Float(_) | Self::Inexact) || FLOATS[v % FLOATS.len()].is_finite()
    }

    /// Value `v` in the name of a folder; `None` where it has no place there.
    pub fn name_of_folder(self, v: usize) -> Option<String> {
        let text = match self {
            Self::Bool | Self::Int(_) | Self::UInt(_) | Self::Date | Self::Text(_) => {
                array_value_to_string(&self.array(&[Some(v)]), 0).unwrap()
            }
            _ => return None,
        };
        (!text.is_empty()).then(|| utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string())
    }

    pub fn is_number(self) -> bool {
        matches!(self, Self::Int(_) | Self::UInt(_) | Self::Decimal(..) | Self::Float(_))
    }

    pub fn is_integer(self) -> bool {
        matches!(self, Self::Int(_) | Self::UInt(_))
    }

    pub fn is_text(self) -> bool {
        matches!(self, Self::Text(_))
    }

    pub fn is_time(self) -> bool {
        matches!(self, Self::Date | Self::Timestamp(_) | Self::Instant(_))
    }

    /// Whether rows may be compared, grouped or sorted by it.
    pub fn is_comparable(self) -> bool {
        !matches!(self, Self::Inexact | Self::List)
    }

    /// Whether values of both can be compared with `=`.
    pub fn is_like(self, other: Self) -> bool {
        if !self.is_comparable() || !other.is_comparable() {
            return false;
        }
        match self {
            Self::Text(_) => other.is_text(),
            Self::Date | Self::Timestamp(_) => matches!(other, Self::Date | Self::Timestamp(_)),
            Self::Instant(_) => matches!(other, Self::Instant(_)),
            number if number.is_number() => other.is_number(),
            _ => self == other,
        }
    }

    /// Value `v` as an SQL expression of this type.
    pub fn value(self, v: usize) -> String {
        match self {
            Self::Int(_) | Self::UInt(_) | Self::Decimal(..) | Self::Date => self.cast(&self.literal(v)),
            Self::Text(_) if self != Self::Text(Text::Plain) => self.cast(&self.literal(v)),
            Self::Float(32) => self.cast(&self.literal(v)),
            _ => self.literal(v),
        }
    }

    /// Value `v` as an SQL constant that compares with this type.
    pub fn literal(self, v: usize) -> String {
        match self {
            Self::Bool => if v % 2 == 1 { "true" } else { "false" }.into(),
            Self::Int(bits) => int(v, bits).to_string(),
            Self::UInt(_) => v.to_string(),
            Self::Decimal(_, scale) => {
                let (unscaled, unit) = (decimal(v, scale), 10_i128.pow(scale as u32));
                let sign = if unscaled < 0 { "-" } else { "" };
                let (whole, fraction) = (unscaled.abs() / unit, unscaled.abs() % unit);
                if scale == 0 {
                    return format!("{sign}{whole}");
                }
                format!("{sign}{whole}.{fraction:0width$}", width = scale as usize)
            }
            Self::Float(_) | Self::Inexact => format!("CAST('{:?}' AS DOUBLE)", FLOATS[v % FLOATS.len()]),
            Self::Text(_) => format!("'{}'", TEXTS[v % TEXTS.len()]),
            Self::Binary => {
                let bytes = TEXTS[v % TEXTS.len()].bytes();
                format!("X'{}'", bytes.map(|byte| format!("{byte:02X}")).collect::<String>())
            }
            Self::Date => format!("arrow_cast({}, 'Date32')", time(v).div_euclid(DAY_US)),
            Self::Timestamp(unit) | Self::Instant(unit) => {
                format!("arrow_cast({}, '{}')", ticks(v, unit), self.data_type())
            }
            Self::List => {
                let items: Vec<String> =
                    list(v).into_iter().map(|i| i.map_or("NULL".into(), |i| i.to_string())).collect();
                format!("arrow_cast(make_array({}), '{}')", items.join(", "), self.data_type())
            }
        }
    }

    /// The values of these numbers.
    pub fn array(self, picks: &[Option<usize>]) -> ArrayRef {
        let values = picks.iter().copied();
        let plain: ArrayRef = match self {
            Self::Bool => Arc::new(values.map(|v| v.map(|v| v % 2 == 1)).collect::<BooleanArray>()),
            Self::Int(bits) => Arc::new(values.map(|v| v.map(|v| int(v, bits))).collect::<Int64Array>()),
            Self::UInt(_) => Arc::new(values.map(|v| v.map(|v| v as i64)).collect::<Int64Array>()),
            Self::Decimal(precision, scale) => {
                let array: Decimal128Array = values.map(|v| v.map(|v| decimal(v, scale))).collect();
                Arc::new(array.with_precision_and_scale(precision, scale).unwrap())
            }
            Self::Float(_) | Self::Inexact => {
                Arc::new(values.map(|v| v.map(|v| FLOATS[v % FLOATS.len()])).collect::<Float64Array>())
            }
            Self::Text(_) => Arc::new(values.map(|v| v.map(|v| TEXTS[v % TEXTS.len()])).collect::<StringArray>()),
            Self::Binary => {
                Arc::new(values.map(|v| v.map(|v| TEXTS[v % TEXTS.len()].as_bytes())).collect::<BinaryArray>())
            }
            Self::Date => {
                let days = values.map(|v| v.map(|v| time(v).div_euclid(DAY_US))).collect::<Int64Array>();
                cast(&days, &DataType::Int32).unwrap()
            }
            Self::Timestamp(unit) | Self::Instant(unit) => {
                Arc::new(values.map(|v| v.map(|v| ticks(v, unit))).collect::<Int64Array>())
            }
            Self::List => Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(values.map(|v| v.map(list)))),
        };
        cast(&plain, &self.data_type()).unwrap()
    }
}

fn int(v: usize, bits: u8) -> i64 {
    match v {
        // Doubles can't tell the second of these from the first.
        COMMON_VALUES.. if bits == 64 => 9_007_199_254_740_992 + (v - COMMON_VALUES) as i64,
        v => v as i64 - 2,
    }
}

fn decimal(v: usize, scale: i8) -> i128 {
    let unit = 10_i128.pow(scale as u32);
    let quarter = if v % 3 == 2 && scale >= 2 { unit / 4 } else { 0 };
    (v as i128 - 2) * unit + quarter
}

fn time(v: usize) -> i64 {
    TIMES[v % TIMES.len()]
}

fn ticks(v: usize, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => time(v).div_euclid(1_000_000),
        TimeUnit::Millisecond => time(v).div_euclid(1_000),
        TimeUnit::Microsecond => time(v),
        TimeUnit::Nanosecond => time(v) * 1_000,
    }
}

fn list(v: usize) -> Vec<Option<i64>> {
    let of = v as i64 - 2;
    match v % 4 {
        0 => vec![Some(of), Some(of + 1)],
        1 => Vec::new(),
        2 => vec![Some(of), None, Some(of)],
        _ => vec![Some(of)],
    }
}
