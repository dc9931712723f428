//! `WITH (option = value, …)` of a task.

use std::collections::BTreeSet;

use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use sqlparser::ast::{Expr, SqlOption, Value};

use crate::error::Result;
use crate::sql::name::normalised;
use crate::sql::tokens::Statement;
use crate::task::TaskOptions;

/// The options that a task may set.
const KNOWN: &str = "version, compression, row_group_rows";

/// What a value of `compression` may be.
const CODECS: &str = "zstd(1 to 22), snappy, lz4_raw, gzip(0 to 9), brotli(0 to 11) or uncompressed";

/// Reads options; one that is not set keeps its default.
///
/// # Errors
/// At its place: an option that is unknown, set twice, or of a value that it can't take.
pub(crate) fn task_options(statement: &Statement<'_>, options: &[SqlOption]) -> Result<TaskOptions> {
    let mut read = TaskOptions::default();
    let mut seen = BTreeSet::new();
    for option in options {
        let SqlOption::KeyValue { key, value } = option else {
            let message = format!("`{option}` is not an option; write option = value, where option is one of: {KNOWN}");
            return Err(statement.error(statement.clause("WITH"), message));
        };
        let name = normalised(key);
        let refuse = |message: String| Err(statement.error(statement.place(key.span), message));
        if !seen.insert(name.clone()) {
            return refuse(format!("option `{name}` is set twice; remove one of them"));
        }
        match name.as_str() {
            "version" => match text(value).or_else(|| number(value)) {
                Some(version) => read.version = Some(version.to_string()),
                None => return refuse("`version` takes text in single quotes, or a number".into()),
            },
            "compression" => match text(value).and_then(compression) {
                Some(compression) => read.compression = compression,
                None => return refuse(format!("`compression` takes text in single quotes: {CODECS}")),
            },
            "row_group_rows" => match number(value).and_then(|n| n.parse().ok()).filter(|rows| *rows > 0) {
                Some(rows) => read.row_group_rows = rows,
                None => return refuse("`row_group_rows` takes a whole number, at least 1, without quotes".into()),
            },
            _ => return refuse(format!("unknown option `{name}`; the options are: {KNOWN}")),
        }
    }
    Ok(read)
}

/// `name` or `name(level)`; a codec without a level has its library's default.
fn compression(text: &str) -> Option<Compression> {
    let text = text.trim().to_ascii_lowercase();
    let (codec, level) = match text.split_once('(') {
        Some((codec, level)) => (codec.trim_end(), Some(level.strip_suffix(')')?.trim().parse::<u32>().ok()?)),
        None => (text.as_str(), None),
    };
    Some(match (codec, level) {
        ("uncompressed", None) => Compression::UNCOMPRESSED,
        ("snappy", None) => Compression::SNAPPY,
        ("lz4_raw", None) => Compression::LZ4_RAW,
        ("zstd", None) => Compression::ZSTD(ZstdLevel::default()),
        ("zstd", Some(level)) => Compression::ZSTD(ZstdLevel::try_new(i32::try_from(level).ok()?).ok()?),
        ("gzip", None) => Compression::GZIP(GzipLevel::default()),
        ("gzip", Some(level)) => Compression::GZIP(GzipLevel::try_new(level).ok()?),
        ("brotli", None) => Compression::BROTLI(BrotliLevel::default()),
        ("brotli", Some(level)) => Compression::BROTLI(BrotliLevel::try_new(level).ok()?),
        _ => return None,
    })
}

fn text(value: &Expr) -> Option<&str> {
    match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn number(value: &Expr) -> Option<&str> {
    match value {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => Some(digits),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};

    use crate::sql::options::compression;
    use crate::sql::tests::{assert_refused, task};
    use crate::task::TaskOptions;

    fn options(text: &str) -> TaskOptions {
        task(&format!("CREATE TABLE t WITH ({text}) AS SELECT 1")).options
    }

    #[test]
    fn options_that_are_not_set_keep_their_defaults() {
        assert_eq!(options(""), TaskOptions::default());
        let all = options("VERSION = '2.0 é', compression = 'snappy', \"row_group_rows\" = 10");
        let expected =
            TaskOptions { version: Some("2.0 é".into()), compression: Compression::SNAPPY, row_group_rows: 10 };
        assert_eq!(all, expected);
    }

    #[test]
    fn a_version_is_kept_as_it_is_written() {
        for (written, version) in [("1", "1"), ("1.10", "1.10"), ("007", "007"), ("''", ""), ("'it''s'", "it's")] {
            assert_eq!(options(&format!("version = {written}")).version.as_deref(), Some(version));
        }
    }

    #[test]
    fn codecs_have_levels_where_parquet_has() {
        let zstd = |level| Compression::ZSTD(ZstdLevel::try_new(level).expect("a level"));
        for (text, expected) in [
            ("zstd", Some(zstd(1))),
            ("ZSTD( 22 )", Some(zstd(22))),
            ("gzip", Some(Compression::GZIP(GzipLevel::default()))),
            ("gzip(9)", Some(Compression::GZIP(GzipLevel::try_new(9).expect("a level")))),
            ("brotli(11)", Some(Compression::BROTLI(BrotliLevel::try_new(11).expect("a level")))),
            ("Snappy", Some(Compression::SNAPPY)),
            ("lz4_raw", Some(Compression::LZ4_RAW)),
            ("uncompressed", Some(Compression::UNCOMPRESSED)),
            ("zstd(23)", None),
            ("zstd(0)", None),
            ("zstd(-1)", None),
            ("zstd(1", None),
            ("zstd()", None),
            ("zstd(4294967295)", None),
            ("gzip(10)", None),
            ("brotli(12)", None),
            ("snappy(1)", None),
            ("lz4", None),
            ("lzo", None),
            ("", None),
        ] {
            assert_eq!(compression(text), expected, "{text}");
        }
    }

    #[test]
    fn options_that_can_not_be_are_refused_where_they_stand() {
        let known = "the options are: version, compression, row_group_rows";
        for (options, column, words) in [
            ("chunks = 3", 22, "unknown option `chunks`; the options are: version, compression, row_group_rows"),
            ("version = 1, Chunks = 3", 35, known),
            ("version = 1, VERSION = 2", 35, "option `version` is set twice"),
            ("version = now()", 22, "text in single quotes, or a number"),
            ("version = \"x\"", 22, "text in single quotes, or a number"),
            ("version = NULL", 22, "text in single quotes, or a number"),
            ("compression = zstd(3)", 22, "zstd(1 to 22), snappy"),
            ("compression = 'lzo'", 22, "zstd(1 to 22), snappy"),
            ("row_group_rows = 0", 22, "at least 1"),
            ("row_group_rows = -1", 22, "at least 1"),
            ("row_group_rows = 1.5", 22, "at least 1"),
            ("row_group_rows = '10'", 22, "without quotes"),
            ("row_group_rows = 99999999999999999999999", 22, "a whole number"),
            ("HEAP", 16, "write option = value"),
            ("version 1", 30, "expected =, found 1"),
            ("version", 29, "expected =, found )"),
        ] {
            let text = format!("CREATE TABLE t WITH ({options}) AS SELECT 1");
            assert_refused(&[(&text, &format!("1:{column}"), words)]);
        }
        assert_refused(&[(
            "CREATE TABLE t WITH (\n  version = 1,\n  x = 2)\nAS SELECT 1",
            "3:3",
            "unknown option `x`",
        )]);
    }
}
