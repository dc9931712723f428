//! Text → values of a column, each exactly or not at all: fields of CSV, values of JSON, names of folders.
//!
//! Numbers are decimal digits with a sign, a point and an exponent; dates and times are ISO 8601, with a space or a `T`
//! between them. What has no exact value of the column's type, such as `1.5` of an integer or `10:00:00.25` of a time
//! in seconds, is not rounded but refused. Fractions become the nearest float, whole numbers a float only if it is
//! equal.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BooleanBuilder, LargeStringBuilder, NullArray, PrimitiveBuilder, StringBuilder,
    StringViewBuilder,
};
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::*;

/// That a text has no value of the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoValue;

/// A column in the making.
pub trait TextColumn: Send {
    /// Adds the value of `text`, or NULL.
    ///
    /// # Errors
    /// When it has none, or when it is NULL and the column has only NULLs to be refused; the column is as before then.
    fn append(&mut self, text: Option<&str>) -> Result<(), NoValue>;

    /// The values that were added, leaving none.
    fn finish(&mut self) -> ArrayRef;
}

/// Whether text can be of a type, nested ones aside.
pub fn is_of_text(data_type: &DataType) -> bool {
    text_column(data_type, 0).is_some()
}

/// A column of `data_type` with room for so many values; `None` for types that text is not read as.
pub fn text_column(data_type: &DataType, capacity: usize) -> Option<Box<dyn TextColumn>> {
    macro_rules! parsed {
        ($type:ty, $parse:expr) => {
            Box::new(Parsed {
                values: PrimitiveBuilder::<$type>::with_capacity(capacity).with_data_type(data_type.clone()),
                parse: $parse,
            })
        };
    }
    Some(match data_type {
        DataType::Null => Box::new(Nulls(0)),
        DataType::Boolean => Box::new(Booleans(BooleanBuilder::with_capacity(capacity))),
        DataType::Int8 => parsed!(Int8Type, number::<i8>),
        DataType::Int16 => parsed!(Int16Type, number::<i16>),
        DataType::Int32 => parsed!(Int32Type, number::<i32>),
        DataType::Int64 => parsed!(Int64Type, number::<i64>),
        DataType::UInt8 => parsed!(UInt8Type, number::<u8>),
        DataType::UInt16 => parsed!(UInt16Type, number::<u16>),
        DataType::UInt32 => parsed!(UInt32Type, number::<u32>),
        DataType::UInt64 => parsed!(UInt64Type, number::<u64>),
        DataType::Float32 => parsed!(Float32Type, |text: &str| float::<f32>(text, |value| f64::from(*value))),
        DataType::Float64 => parsed!(Float64Type, |text: &str| float::<f64>(text, |value| *value)),
        DataType::Decimal128(precision, scale) => {
            let (precision, scale) = (*precision, *scale);
            parsed!(Decimal128Type, move |text: &str| {
                let value = unscaled(text, scale)?.to_i128()?;
                Decimal128Type::is_valid_decimal_precision(value, precision).then_some(value)
            })
        }
        DataType::Decimal256(precision, scale) => {
            let (precision, scale) = (*precision, *scale);
            parsed!(Decimal256Type, move |text: &str| {
                let value = unscaled(text, scale)?;
                Decimal256Type::is_valid_decimal_precision(value, precision).then_some(value)
            })
        }
        DataType::Date32 => parsed!(Date32Type, date),
        DataType::Date64 => parsed!(Date64Type, |text: &str| Some(i64::from(date(text)?) * 86_400_000)),
        DataType::Time32(TimeUnit::Second) => {
            parsed!(Time32SecondType, |text: &str| i32::try_from(time(text, TimeUnit::Second)?).ok())
        }
        DataType::Time32(TimeUnit::Millisecond) => {
            parsed!(Time32MillisecondType, |text: &str| i32::try_from(time(text, TimeUnit::Millisecond)?).ok())
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            parsed!(Time64MicrosecondType, |text: &str| time(text, TimeUnit::Microsecond))
        }
        DataType::Time64(TimeUnit::Nanosecond) => {
            parsed!(Time64NanosecondType, |text: &str| time(text, TimeUnit::Nanosecond))
        }
        DataType::Timestamp(unit, zone) => {
            let zone = Tz::from_str(zone.as_deref().unwrap_or(UTC)).ok()?;
            match unit {
                TimeUnit::Second => {
                    parsed!(TimestampSecondType, move |text: &str| timestamp(text, TimeUnit::Second, zone))
                }
                TimeUnit::Millisecond => {
                    parsed!(TimestampMillisecondType, move |text: &str| timestamp(text, TimeUnit::Millisecond, zone))
                }
                TimeUnit::Microsecond => {
                    parsed!(TimestampMicrosecondType, move |text: &str| timestamp(text, TimeUnit::Microsecond, zone))
                }
                TimeUnit::Nanosecond => {
                    parsed!(TimestampNanosecondType, move |text: &str| timestamp(text, TimeUnit::Nanosecond, zone))
                }
            }
        }
        DataType::Utf8 => Box::new(StringBuilder::with_capacity(capacity, 0)),
        DataType::LargeUtf8 => Box::new(LargeStringBuilder::with_capacity(capacity, 0)),
        DataType::Utf8View => Box::new(StringViewBuilder::with_capacity(capacity)),
        _ => return None,
    })
}

struct Parsed<T: ArrowPrimitiveType, F> {
    values: PrimitiveBuilder<T>,
    parse: F,
}

impl<T, F> TextColumn for Parsed<T, F>
where
    T: ArrowPrimitiveType,
    F: Fn(&str) -> Option<T::Native> + Send,
{
    fn append(&mut self, text: Option<&str>) -> Result<(), NoValue> {
        match text {
            Some(text) => self.values.append_value((self.parse)(text).ok_or(NoValue)?),
            None => self.values.append_null(),
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.values.finish())
    }
}

struct Booleans(BooleanBuilder);

impl TextColumn for Booleans {
    fn append(&mut self, text: Option<&str>) -> Result<(), NoValue> {
        match text {
            Some(text) if text.eq_ignore_ascii_case("true") => self.0.append_value(true),
            Some(text) if text.eq_ignore_ascii_case("false") => self.0.append_value(false),
            Some(_) => return Err(NoValue),
            None => self.0.append_null(),
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}

/// A column of which no value was seen has a type for NULLs only.
struct Nulls(usize);

impl TextColumn for Nulls {
    fn append(&mut self, text: Option<&str>) -> Result<(), NoValue> {
        self.0 += 1;
        match text {
            Some(_) => Err(NoValue),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(NullArray::new(std::mem::take(&mut self.0)))
    }
}

macro_rules! text {
    ($builder:ty) => {
        impl TextColumn for $builder {
            fn append(&mut self, text: Option<&str>) -> Result<(), NoValue> {
                self.append_option(text);
                Ok(())
            }

            fn finish(&mut self) -> ArrayRef {
                Arc::new(<$builder>::finish(self))
            }
        }
    };
}

text!(StringBuilder);
text!(LargeStringBuilder);
text!(StringViewBuilder);

/// A whole number; also `12.0` and `1e3`, which are whole.
fn number<T: FromStr + TryFrom<i128>>(text: &str) -> Option<T> {
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => T::try_from(unscaled(text, 0)?.to_i128()?).ok(),
    }
}

/// The nearest float; one that is equal, if the text is a whole number.
fn float<T: FromStr>(text: &str, as_double: impl Fn(&T) -> f64) -> Option<T> {
    let value: T = text.parse().ok()?;
    let double = as_double(&value);
    if double.is_nan() {
        // There is one, whatever its sign.
        return text.trim_start_matches(['-', '+']).parse().ok();
    }
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-' || byte == b'+');
    if is_digits {
        let whole = text.parse::<i128>().ok()?;
        let is_equal = double.abs() < 1e38 && double as i128 == whole;
        return is_equal.then_some(value);
    }
    // Digits that are too large for the type become infinite.
    let is_named = !text.bytes().any(|byte| byte.is_ascii_digit());
    (double.is_finite() || is_named).then_some(value)
}

/// `text` times ten to the power of `scale`, if that is a whole number.
fn unscaled(text: &str, scale: i8) -> Option<i256> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let all = format!("{whole}{fraction}");
    // So many digits of `all` stand after the point of the result; less than none are zeros to add.
    let after = i64::try_from(fraction.len()).ok()? - i64::from(exponent) - i64::from(scale);
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return Some(i256::ZERO);
    }
    let digits = match usize::try_from(after) {
        Ok(after) => {
            let kept = significant.len().checked_sub(after)?;
            let (kept, lost) = significant.split_at(kept);
            if kept.is_empty() || lost.bytes().any(|byte| byte != b'0') {
                return None;
            }
            kept.to_string()
        }
        Err(_) => {
            let zeros = usize::try_from(-after).ok().filter(|zeros| *zeros <= 80)?;
            format!("{significant}{}", "0".repeat(zeros))
        }
    };
    // More than the widest type holds.
    if digits.len() > 77 {
        return None;
    }
    i256::from_string(&format!("{sign}{digits}"))
}

/// Days since 1970 of a date without a time.
fn date(text: &str) -> Option<i32> {
    // Arrow's parser also takes what looks like a timestamp, and drops the time.
    if text.contains([':', ' ', 'T', 't']) {
        return None;
    }
    Date32Type::parse(text)
}

/// A time of day, in units.
fn time(text: &str, unit: TimeUnit) -> Option<i64> {
    // Arrow's parser also takes bare numbers, for nanoseconds.
    let is_clock = text.contains(':') && text.starts_with(|first: char| first.is_ascii_digit());
    if !is_clock || !has_fraction_of(text, unit) || is_leap_second(text) {
        return None;
    }
    Some(Time64NanosecondType::parse(text)? / nanoseconds(unit))
}

/// The zone of timestamps that have none: what is shown in it is what is stored.
const UTC: &str = "+00:00";

/// Units since 1970. A text with an offset is that instant; one without is a local time of `zone`.
fn timestamp(text: &str, unit: TimeUnit, zone: Tz) -> Option<i64> {
    if !has_fraction_of(text, unit) || is_leap_second(text) || has_too_many_minutes(text) {
        return None;
    }
    let instant = string_to_datetime(&zone, text).ok()?;
    let seconds = i128::from(instant.timestamp()) * 1_000_000_000;
    let nanoseconds_since_1970 = seconds + i128::from(instant.timestamp_subsec_nanos());
    i64::try_from(nanoseconds_since_1970 / i128::from(nanoseconds(unit))).ok()
}

fn nanoseconds(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// Whether a text has a second 60, which no type holds: parsers make the next minute of it.
fn is_leap_second(text: &str) -> bool {
    let seconds = text.splitn(3, ':').nth(2);
    seconds.is_some_and(|seconds| seconds.starts_with("60"))
}

/// Whether an offset has 60 minutes or more, which parsers add to its hours.
fn has_too_many_minutes(text: &str) -> bool {
    let offset =
        text.split_once(':').and_then(|(_, rest)| rest.split_once(['+', '-'])).map_or("", |(_, offset)| offset);
    let digits: Vec<u8> = offset.bytes().filter(u8::is_ascii_digit).collect();
    matches!(digits.as_slice(), [_, _, tens, _, ..] if *tens > b'5')
}

/// Whether the fraction of a second in a text is a whole number of units.
fn has_fraction_of(text: &str, unit: TimeUnit) -> bool {
    let digits = match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    let fraction = text.split_once('.').map_or("", |(_, after)| after);
    fraction.bytes().take_while(u8::is_ascii_digit).skip(digits).all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, TimeUnit};
    use arrow::util::display::array_value_to_string;

    use crate::execute::text::{is_of_text, text_column};

    /// The value of a text as arrow shows it, or `-` when it has none.
    fn value(data_type: &DataType, text: &str) -> String {
        let mut column = text_column(data_type, 1).unwrap();
        match column.append(Some(text)) {
            Ok(()) => array_value_to_string(&column.finish(), 0).unwrap(),
            Err(_) => "-".into(),
        }
    }

    #[test]
    fn a_text_has_its_exact_value_or_none() {
        let timestamp = |unit| DataType::Timestamp(unit, None);
        let zoned = |zone: &str| DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()));
        let cases: Vec<(DataType, &[(&str, &str)])> = vec![
            (
                DataType::Int64,
                &[
                    ("007", "7"),
                    ("-9223372036854775808", "-9223372036854775808"),
                    ("9223372036854775808", "-"),
                    ("1.5", "-"),
                    ("1.0", "1"),
                    ("1e3", "1000"),
                    ("1e-3", "-"),
                    ("1e999999999", "-"),
                    ("", "-"),
                    (" 1", "-"),
                    ("0x10", "-"),
                    ("-", "-"),
                    (".", "-"),
                ],
            ),
            (DataType::Int8, &[("127", "127"), ("128", "-"), ("-128", "-128")]),
            (DataType::UInt64, &[("18446744073709551615", "18446744073709551615"), ("-1", "-")]),
            (
                DataType::Float64,
                &[
                    ("0.1", "0.1"),
                    ("-.5", "-0.5"),
                    ("9007199254740992", "9007199254740992.0"),
                    ("9007199254740993", "-"),
                    ("1e400", "-"),
                    ("inf", "inf"),
                    ("NaN", "NaN"),
                    ("1,5", "-"),
                ],
            ),
            (DataType::Float32, &[("16777216", "16777216.0"), ("16777217", "-"), ("0.1", "0.1"), ("1e39", "-")]),
            (
                DataType::Decimal128(5, 2),
                &[
                    ("1.25", "1.25"),
                    ("1.250", "1.25"),
                    ("1.255", "-"),
                    ("-999.99", "-999.99"),
                    ("1000", "-"),
                    ("1e2", "100.00"),
                    ("125e-2", "1.25"),
                    ("0.001e1", "0.01"),
                    ("0.000", "0.00"),
                    ("-0", "0.00"),
                    ("abc", "-"),
                    ("1.2.3", "-"),
                ],
            ),
            (DataType::Decimal128(3, -2), &[("12300", "12300"), ("12340", "-")]),
            (
                DataType::Decimal256(76, 0),
                &[(
                    "9999999999999999999999999999999999999999999999999999999999999999999999999999",
                    "9999999999999999999999999999999999999999999999999999999999999999999999999999",
                )],
            ),
            (DataType::Boolean, &[("true", "true"), ("FALSE", "false"), ("t", "-"), ("1", "-")]),
            (
                DataType::Date32,
                &[
                    ("2024-02-29", "2024-02-29"),
                    ("2023-02-29", "-"),
                    ("2024-01-01 10:00:00", "-"),
                    ("0001-01-01", "0001-01-01"),
                ],
            ),
            (
                DataType::Time32(TimeUnit::Second),
                &[("10:00:01", "10:00:01"), ("10:00:01.5", "-"), ("10:00:01.000", "10:00:01")],
            ),
            (DataType::Time64(TimeUnit::Microsecond), &[("10:00:01.5", "10:00:01.500"), ("10:00:01.0000001", "-")]),
            (
                timestamp(TimeUnit::Second),
                &[
                    ("2024-01-01 10:00:00", "2024-01-01T10:00:00"),
                    ("2024-01-01T10:00:00+02:00", "2024-01-01T08:00:00"),
                    ("2024-01-01", "2024-01-01T00:00:00"),
                    ("2024-01-01 10:00:00.5", "-"),
                    ("2024-13-01 10:00:00", "-"),
                    ("9999-12-31 23:59:59", "9999-12-31T23:59:59"),
                ],
            ),
            (timestamp(TimeUnit::Nanosecond), &[("2024-01-01 10:00:00.1234567891", "-"), ("9999-12-31", "-")]),
            (
                zoned("Europe/Berlin"),
                &[
                    ("2024-01-01 10:00:00", "2024-01-01T10:00:00+01:00"),
                    ("2024-01-01 10:00:00Z", "2024-01-01T11:00:00+01:00"),
                ],
            ),
            (DataType::Utf8View, &[("a", "a"), ("", "")]),
            (DataType::Null, &[("a", "-")]),
        ];
        for (data_type, texts) in cases {
            for (text, expected) in texts {
                assert_eq!(value(&data_type, text), *expected, "{text} as {data_type}");
            }
        }
    }

    #[test]
    fn some_types_are_not_read_from_text() {
        for data_type in
            [DataType::Binary, DataType::new_list(DataType::Int64, true), DataType::Duration(TimeUnit::Second)]
        {
            assert!(!is_of_text(&data_type), "{data_type}");
        }
        assert!(is_of_text(&DataType::Int64));
    }
}
