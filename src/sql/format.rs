//! `STORED AS format … OPTIONS (key value, …)` → how a source's files are read.

use std::collections::BTreeSet;

use datafusion::common::utils::datafusion_strsim::levenshtein;
use regex::Regex;
use sqlparser::ast::Value;

use crate::error::{Error, Result};
use crate::sql::tokens::Statement;
use crate::task::format::{Compression, CsvOptions, Format, JsonOptions};

/// Options that DataFusion knows for CSV and JSON, but that say how files are written.
const OF_WRITERS: [&str; 10] = [
    "compression_level",
    "date_format",
    "datetime_format",
    "ignore_leading_whitespace",
    "ignore_trailing_whitespace",
    "null_value",
    "quote_style",
    "time_format",
    "timestamp_format",
    "timestamp_tz_format",
];

const OF_CSV: [&str; 12] = [
    "comment",
    "compression",
    "delimiter",
    "double_quote",
    "escape",
    "has_header",
    "newlines_in_values",
    "null_regex",
    "quote",
    "schema_infer_max_rec",
    "terminator",
    "truncated_rows",
];

const OF_JSON: [&str; 3] = ["compression", "newline_delimited", "schema_infer_max_rec"];

/// The formats that can be read, as `STORED AS` names them.
const FORMATS: &str = "PARQUET, CSV, JSON (one value a line, or one array), ARROW";

/// The format that `stored_as` and `options` name.
///
/// # Errors
/// At its place: an unknown format, an option that is unknown, set twice, or of a value that it can't take.
pub(crate) fn format(statement: &Statement<'_>, stored_as: &str, options: &[(String, Value)]) -> Result<Format> {
    match stored_as {
        "PARQUET" => Ok(Format::Parquet(read(statement, options, None)?)),
        "ARROW" => {
            let none: [&str; 0] = [];
            read(statement, options, Some(&none))?;
            Ok(Format::Arrow)
        }
        "CSV" => csv(statement, &read(statement, options, Some(&OF_CSV))?).map(Format::Csv),
        "JSON" => json(statement, &read(statement, options, Some(&OF_JSON))?).map(Format::Json),
        other => {
            let message = format!("can't read files STORED AS {other}; write one of: {FORMATS}");
            Err(statement.error(statement.after("STORED AS", 1), message))
        }
    }
}

/// Names, without the `format.` that may stand before them, and values.
fn read(
    statement: &Statement<'_>,
    options: &[(String, Value)],
    known: Option<&[&str]>,
) -> Result<Vec<(String, String)>> {
    let mut read = Vec::with_capacity(options.len());
    let mut seen = BTreeSet::new();
    for (key, value) in options {
        let key = key.to_ascii_lowercase();
        let name = key.strip_prefix("format.").unwrap_or(&key);
        let refuse = |message: String| statement.error(statement.option(&key), message);
        if !seen.insert(name.to_string()) {
            return Err(refuse(format!("option `format.{name}` is set twice; remove one of them")));
        }
        if let Some(known) = known.filter(|known| !known.contains(&name)) {
            return Err(refuse(unknown(name, known)));
        }
        let value = match value {
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => text.clone(),
            Value::Number(digits, _) => digits.clone(),
            Value::Boolean(is_set) => is_set.to_string(),
            other => return Err(refuse(format!("`format.{name}` can't be {other}; write it in single quotes"))),
        };
        read.push((name.to_string(), value));
    }
    Ok(read)
}

fn unknown(name: &str, known: &[&str]) -> String {
    if OF_WRITERS.contains(&name) {
        let instead = if name == "null_value" { "; format.null_regex says what is read as NULL" } else { "" };
        return format!("option `format.{name}` is about writing files, and this table is read; remove it{instead}");
    }
    if known.is_empty() {
        return format!("unknown option `{name}`: this format has none; remove it");
    }
    let nearest = known.iter().map(|other| (levenshtein(name, other), other)).min();
    let hint = match nearest {
        Some((distance, other)) if distance <= 2 => format!(" (did you mean `format.{other}`?)"),
        _ => String::new(),
    };
    format!("unknown option `{name}`{hint}; the options are: format.{}", known.join(", format."))
}

fn csv(statement: &Statement<'_>, options: &[(String, String)]) -> Result<CsvOptions> {
    let mut csv = CsvOptions::default();
    for (name, value) in options {
        let option = Named { statement, name, value };
        match name.as_str() {
            "comment" => csv.comment = Some(option.byte()?),
            "compression" => csv.compression = Some(option.compression()?),
            "delimiter" => csv.delimiter = option.byte()?,
            "double_quote" => csv.double_quote = option.boolean()?,
            "escape" => csv.escape = Some(option.byte()?),
            "has_header" => csv.has_header = option.boolean()?,
            // They are always read.
            "newlines_in_values" => drop(option.boolean()?),
            "null_regex" => csv.null_regex = Some(option.regex()?),
            "quote" => csv.quote = option.byte()?,
            "schema_infer_max_rec" => csv.infer_rows = Some(option.number()?),
            "terminator" => csv.terminator = Some(option.byte()?),
            "truncated_rows" => csv.truncated_rows = option.boolean()?,
            other => return Err(option.refuse(unknown(other, &OF_CSV))),
        }
    }
    let bytes = [
        ("delimiter", Some(csv.delimiter)),
        ("quote", Some(csv.quote)),
        ("comment", csv.comment),
        ("terminator", csv.terminator),
    ];
    for (at, (name, byte)) in bytes.iter().enumerate() {
        if let Some((other, _)) = bytes[..at].iter().find(|(_, other)| byte.is_some() && other == byte) {
            let message = format!("format.{other} and format.{name} are the same character; change one of them");
            return Err(statement.error(statement.clause("OPTIONS"), message));
        }
        if *name != "terminator" && matches!(byte, Some(b'\n' | b'\r')) {
            let message = format!("format.{name} is a line break, which ends rows; choose another character");
            return Err(statement.error(statement.clause("OPTIONS"), message));
        }
    }
    if csv.escape.is_some_and(|escape| escape == csv.delimiter || matches!(escape, b'\n' | b'\r')) {
        let message = "format.escape is the delimiter or a line break; choose another character";
        return Err(statement.error(statement.clause("OPTIONS"), message));
    }
    if csv.comment.is_some() && csv.terminator.is_some_and(|byte| byte != b'\n') {
        let message = "comments end with a line feed, whatever format.terminator is; leave one of the two out";
        return Err(statement.error(statement.option("comment"), message));
    }
    Ok(csv)
}

fn json(statement: &Statement<'_>, options: &[(String, String)]) -> Result<JsonOptions> {
    let mut json = JsonOptions::default();
    for (name, value) in options {
        let option = Named { statement, name, value };
        match name.as_str() {
            "compression" => json.compression = Some(option.compression()?),
            "newline_delimited" => json.is_array = Some(!option.boolean()?),
            "schema_infer_max_rec" => json.infer_rows = Some(option.number()?),
            other => return Err(option.refuse(unknown(other, &OF_JSON))),
        }
    }
    Ok(json)
}

/// One option.
struct Named<'a> {
    statement: &'a Statement<'a>,
    name: &'a str,
    value: &'a str,
}

impl Named<'_> {
    fn refuse(&self, message: String) -> Error {
        self.statement.error(self.statement.option(self.name), message)
    }

    fn takes(&self, what: &str) -> Error {
        self.refuse(format!("`format.{}` takes {what}, not '{}'", self.name, self.value))
    }

    fn boolean(&self) -> Result<bool> {
        match self.value.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.takes("'true' or 'false'")),
        }
    }

    fn number(&self) -> Result<usize> {
        let number = self.value.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| self.takes("a whole number, at least 1"))
    }

    fn byte(&self) -> Result<u8> {
        match self.value {
            "\\t" => Ok(b'\t'),
            "\\n" => Ok(b'\n'),
            "\\r" => Ok(b'\r'),
            "\\0" => Ok(0),
            other => match other.as_bytes() {
                [byte] if byte.is_ascii() => Ok(*byte),
                _ => Err(self.takes("one ASCII character, or \\t for a tab")),
            },
        }
    }

    fn compression(&self) -> Result<Compression> {
        match self.value.to_ascii_lowercase().as_str() {
            "uncompressed" | "none" | "" => Ok(Compression::None),
            "gzip" | "gz" => Ok(Compression::Gzip),
            "bzip2" | "bz2" => Ok(Compression::Bzip2),
            "xz" => Ok(Compression::Xz),
            "zstd" | "zst" => Ok(Compression::Zstd),
            _ => Err(self.takes("'gzip', 'bzip2', 'xz', 'zstd' or 'uncompressed'")),
        }
    }

    fn regex(&self) -> Result<String> {
        match Regex::new(self.value) {
            Ok(_) => Ok(self.value.to_string()),
            Err(_) => Err(self.takes("a regular expression, such as 'NA|null'")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::pipeline::Item;
    use crate::sql::parse_items;
    use crate::sql::tests::assert_refused;
    use crate::task::format::{Compression, CsvOptions, Format, JsonOptions};

    fn format(stored_as: &str, options: &str) -> Format {
        let text = format!("CREATE EXTERNAL TABLE e STORED AS {stored_as} LOCATION 'x' {options}");
        match parse_items(&text, "f.sql", Path::new("/w")).expect("valid").as_slice() {
            [Item::Source(source)] => source.format.clone(),
            other => panic!("not one source: {other:?}"),
        }
    }

    #[test]
    fn every_format_is_known_in_any_case() {
        assert_eq!(format("parquet", ""), Format::Parquet(Vec::new()));
        assert_eq!(format("Arrow", ""), Format::Arrow);
        assert_eq!(format("csv", ""), Format::Csv(CsvOptions::default()));
        assert_eq!(format("JSON", ""), Format::Json(JsonOptions::default()));
    }

    #[test]
    fn options_are_read_with_and_without_their_prefix() {
        let csv = |change: fn(&mut CsvOptions)| {
            let mut csv = CsvOptions::default();
            change(&mut csv);
            Format::Csv(csv)
        };
        for (options, expected) in [
            ("OPTIONS ('format.has_header' 'false')", csv(|csv| csv.has_header = false)),
            ("OPTIONS (format.has_header false)", csv(|csv| csv.has_header = false)),
            ("OPTIONS (HAS_HEADER 'False')", csv(|csv| csv.has_header = false)),
            ("OPTIONS ('format.delimiter' '\\t')", csv(|csv| csv.delimiter = b'\t')),
            ("OPTIONS ('format.delimiter' '\t')", csv(|csv| csv.delimiter = b'\t')),
            (
                "OPTIONS ('format.quote' '''', 'format.escape' '\\')",
                csv(|csv| {
                    csv.quote = b'\'';
                    csv.escape = Some(b'\\');
                }),
            ),
            ("OPTIONS ('format.compression' 'gzip')", csv(|csv| csv.compression = Some(Compression::Gzip))),
            ("OPTIONS ('format.null_regex' '^(NA|)$')", csv(|csv| csv.null_regex = Some("^(NA|)$".into()))),
            ("OPTIONS ('format.newlines_in_values' 'true')", csv(|_| {})),
            ("OPTIONS (format.schema_infer_max_rec 10)", csv(|csv| csv.infer_rows = Some(10))),
        ] {
            assert_eq!(format("CSV", options), expected, "{options}");
        }
        let array = JsonOptions { is_array: Some(true), ..JsonOptions::default() };
        assert_eq!(format("JSON", "OPTIONS ('format.newline_delimited' 'false')"), Format::Json(array));
        let as_text = Format::Parquet(vec![("binary_as_string".into(), "true".into())]);
        assert_eq!(format("PARQUET", "OPTIONS ('format.binary_as_string' 'true')"), as_text);
    }

    #[test]
    fn options_that_can_not_be_are_refused_where_they_stand() {
        for (stored_as, option, words) in [
            ("CSV", "'format.delimeter' ';'", "(did you mean `format.delimiter`?); the options are: format.comment"),
            ("CSV", "'format.delimiter' ';;'", "takes one ASCII character, or \\t for a tab, not ';;'"),
            ("CSV", "'format.delimiter' 'é'", "takes one ASCII character"),
            ("CSV", "'format.delimiter' ''", "takes one ASCII character"),
            ("CSV", "'format.has_header' 'yes'", "takes 'true' or 'false', not 'yes'"),
            ("CSV", "'format.null_regex' '('", "takes a regular expression"),
            (
                "CSV",
                "'format.null_value' 'NA'",
                "about writing files, and this table is read; remove it; format.null_regex",
            ),
            ("CSV", "'format.compression' 'lz4'", "takes 'gzip', 'bzip2', 'xz', 'zstd' or 'uncompressed'"),
            ("CSV", "format.schema_infer_max_rec 0", "at least 1"),
            ("JSON", "'format.has_header' 'true'", "unknown option `has_header`; the options are: format.compression"),
            ("ARROW", "'format.compression' 'gzip'", "this format has none"),
        ] {
            let text = format!("CREATE EXTERNAL TABLE e STORED AS {stored_as} LOCATION 'x' OPTIONS (\n {option})");
            assert_refused(&[(&text, "2:2", words)]);
        }
        let twice =
            "CREATE EXTERNAL TABLE e STORED AS CSV LOCATION 'x' OPTIONS (\n has_header true,\n format.has_header true)";
        assert_refused(&[(twice, "2:2", "option `format.has_header` is set twice")]);
        let same = "CREATE EXTERNAL TABLE e STORED AS CSV LOCATION 'x'\nOPTIONS ('format.quote' ',')";
        assert_refused(&[(same, "2:1", "format.delimiter and format.quote are the same character")]);
    }
}
