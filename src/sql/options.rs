//! `WITH (option = value, …)` of a task.

use std::collections::BTreeSet;

use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use sqlparser::ast::{Expr, SqlOption, Value};

use crate::chunk::{ChunkBy, Chunking, DEFAULT_CHUNKS, MAX_CHUNKS};
use crate::error::Result;
use crate::pipeline::{FOLDER_CHARACTERS, is_folder};
use crate::sql::name::normalised;
use crate::sql::tokens::Statement;
use crate::task::{ReadBy, TaskOptions};

/// The options that a task may set.
const KNOWN: &str = "version, compression, row_group_rows, chunk_by, chunks, read_by, stage";

/// What a value of `compression` may be.
const CODECS: &str = "zstd(1 to 22), snappy, lz4_raw, gzip(0 to 9), brotli(0 to 11) or uncompressed";

/// What options say.
pub(crate) struct WithOptions {
    /// What the task's files depend on.
    pub task: TaskOptions,
    /// A cut without keys.
    pub chunking: Option<Chunking>,
    /// How inputs are read.
    pub read_by: Option<ReadBy>,
    /// What it is published together with.
    pub stage: Option<String>,
}

/// Reads options; one that is not set keeps its default. `chunk_by` and `chunks` make a cut without keys; `is_cut` says
/// that `CLUSTERED BY` makes one already.
///
/// # Errors
/// At its place: an option that is unknown, set twice, or of a value that it can't take.
pub(crate) fn task_options(statement: &Statement<'_>, options: &[SqlOption], is_cut: bool) -> Result<WithOptions> {
    let mut read = TaskOptions::default();
    let (mut chunks, mut by) = (None, None);
    let (mut read_by, mut stage) = (None, None);
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
            "chunk_by" | "chunks" if is_cut => {
                return refuse(format!("`{name}` and CLUSTERED BY both say how to cut; remove one of them"));
            }
            "chunk_by" => match text(value) {
                Some("auto") => by = Some(ChunkBy::Auto),
                Some("hash") => by = Some(ChunkBy::Hash),
                Some("range") => by = Some(ChunkBy::Range),
                _ => return refuse("`chunk_by` takes 'auto', 'hash' or 'range': the engine finds the key".into()),
            },
            "read_by" => match text(value) {
                Some("split") => read_by = Some(ReadBy::Split),
                Some("rescan") => read_by = Some(ReadBy::Rescan),
                _ => return refuse("`read_by` takes 'split' or 'rescan'; without it the cheaper one is taken".into()),
            },
            "stage" => match text(value).filter(|name| is_folder(name)) {
                Some(name) => stage = Some(name.to_string()),
                None => return refuse(format!("`stage` takes a name in single quotes, of {FOLDER_CHARACTERS}")),
            },
            "chunks" => match number(value).and_then(|n| n.parse().ok()).filter(|n| (1..=MAX_CHUNKS).contains(n)) {
                Some(number) => chunks = Some(number),
                None => return refuse(format!("`chunks` takes a whole number from 1 to {MAX_CHUNKS}")),
            },
            _ => return refuse(format!("unknown option `{name}`; the options are: {KNOWN}")),
        }
    }
    // Ranges are the engine's own choice only where the number of chunks is.
    let by = match (by, chunks) {
        (None, None) => return Ok(WithOptions { task: read, chunking: None, read_by, stage }),
        (None | Some(ChunkBy::Auto), Some(_)) => ChunkBy::Hash,
        (Some(by), _) => by,
    };
    let chunking = Some(Chunking { keys: Vec::new(), chunks: chunks.unwrap_or(DEFAULT_CHUNKS), by });
    Ok(WithOptions { task: read, chunking, read_by, stage })
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

    use crate::chunk::{ChunkBy, Chunking, DEFAULT_CHUNKS};
    use crate::sql::options::compression;
    use crate::sql::tests::{assert_refused, task};
    use crate::task::TaskOptions;

    #[test]
    fn a_cut_without_keys_is_asked_for_by_options() {
        let chunking = |text: &str| task(&format!("CREATE TABLE t WITH ({text}) AS SELECT 1")).chunking;
        let found = |chunks, by| Some(Chunking { keys: Vec::new(), chunks, by });
        assert_eq!(chunking("version = 1"), None);
        assert_eq!(chunking("chunk_by = 'auto'"), found(DEFAULT_CHUNKS, ChunkBy::Auto));
        assert_eq!(chunking("chunks = 7"), found(7, ChunkBy::Hash));
        assert_eq!(chunking("chunk_by = 'auto', chunks = 7"), found(7, ChunkBy::Hash));
        assert_eq!(chunking("chunks = 7, chunk_by = 'auto'"), found(7, ChunkBy::Hash));
        assert_eq!(chunking("chunks = 7, chunk_by = 'range'"), found(7, ChunkBy::Range));
        assert_eq!(chunking("chunk_by = 'hash'"), found(DEFAULT_CHUNKS, ChunkBy::Hash));
        let twice = "CREATE TABLE t CLUSTERED BY (a) INTO 2 BUCKETS WITH (chunks = 7) AS SELECT 1 AS a";
        assert_refused(&[(twice, "1:54", "`chunks` and CLUSTERED BY both say how to cut")]);
    }

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
    fn a_stage_is_no_option_of_the_files() {
        let task = task("CREATE TABLE t WITH (stage = 'Daily-1_x', version = 1) AS SELECT 1");
        assert_eq!(task.stage.as_deref(), Some("Daily-1_x"));
        assert_eq!(task.options, options("version = 1"));
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
            ("buckets = 3", 22, known),
            ("version = 1, Buckets = 3", 35, "unknown option `buckets`; the options are: version"),
            ("chunks = 0", 22, "a whole number from 1 to 4096"),
            ("chunks = 4097", 22, "a whole number from 1 to 4096"),
            ("chunks = '8'", 22, "a whole number from 1 to 4096"),
            ("chunk_by = 'rows'", 22, "`chunk_by` takes 'auto', 'hash' or 'range'"),
            ("chunk_by = auto", 22, "`chunk_by` takes 'auto'"),
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
            ("stage = ''", 22, "a name in single quotes, of ASCII letters"),
            ("stage = 'a/b'", 22, "a name in single quotes"),
            ("stage = '..'", 22, "a name in single quotes"),
            ("stage = daily", 22, "a name in single quotes"),
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
