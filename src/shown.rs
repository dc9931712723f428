//! Text from data, names and other libraries, and types, as they may be shown to a person.

use std::borrow::Cow;

use arrow::datatypes::{DataType, TimeUnit};

/// The text on one line, its control characters escaped: a name can't move the cursor, ring the bell, or look like a
/// line of its own, nor turn the direction of what follows.
pub fn on_one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_unsafe(c) || c == '\n' || c == '\t')
}

/// The text with its lines and tabs, all other control characters escaped.
#[cfg(any(feature = "cli", test))]
pub fn in_lines(text: &str) -> Cow<'_, str> {
    escaped(text, is_unsafe)
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match is_escaped(c) {
            true => safe.extend(c.escape_default()),
            false => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// Whether a character acts on the terminal or the text around it, lines and tabs aside.
fn is_unsafe(c: char) -> bool {
    let changes_direction = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks_line = matches!(c, '\u{2028}' | '\u{2029}');
    (c.is_control() && c != '\n' && c != '\t') || changes_direction || breaks_line
}

/// The name of a type in SQL, or Arrow's where SQL has none.
pub fn type_name(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INT UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float32 => "FLOAT",
        DataType::Float64 => "DOUBLE",
        DataType::Decimal32(digits, scale)
        | DataType::Decimal64(digits, scale)
        | DataType::Decimal128(digits, scale)
        | DataType::Decimal256(digits, scale) => return format!("DECIMAL({digits}, {scale})"),
        DataType::Date32 => "DATE",
        DataType::Time64(_) => "TIME",
        DataType::Timestamp(unit, zone) => {
            let digits = match unit {
                TimeUnit::Second => "(0)",
                TimeUnit::Millisecond => "(3)",
                TimeUnit::Microsecond => "(6)",
                TimeUnit::Nanosecond => "",
            };
            let zone = if zone.is_some() { " WITH TIME ZONE" } else { "" };
            return format!("TIMESTAMP{digits}{zone}");
        }
        DataType::Interval(_) => "INTERVAL",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTEA",
        DataType::List(item) | DataType::LargeList(item) => return format!("{}[]", type_name(item.data_type())),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| format!("{} {}", field.name(), type_name(field.data_type())));
            return format!("STRUCT<{}>", fields.collect::<Vec<_>>().join(", "));
        }
        other => return other.to_string(),
    };
    name.to_string()
}

#[cfg(test)]
mod tests {
    use crate::shown::{in_lines, on_one_line};

    #[test]
    fn what_acts_on_a_terminal_is_escaped() {
        for (text, one_line, lines) in [
            ("tür 日本 😀", "tür 日本 😀", "tür 日本 😀"),
            ("a\nb\tc", "a\\nb\\tc", "a\nb\tc"),
            ("\u{1b}[31mred\u{7}\r", "\\u{1b}[31mred\\u{7}\\r", "\\u{1b}[31mred\\u{7}\\r"),
            ("x\u{202e}y", "x\\u{202e}y", "x\\u{202e}y"),
            ("x\u{2028}y\u{85}z", "x\\u{2028}y\\u{85}z", "x\\u{2028}y\\u{85}z"),
        ] {
            assert_eq!((on_one_line(text), in_lines(text)), (one_line.into(), lines.into()));
        }
    }
}
