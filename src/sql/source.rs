//! `CREATE EXTERNAL TABLE` → a source.

use std::path::Path;

use datafusion::sql::parser::CreateExternalTable;

use crate::error::{Error, ErrorKind, Result};
use crate::sql::clauses::declared;
use crate::sql::name;
use crate::sql::tokens::Statement;
use crate::task::Source;

/// Why a source is not temporary.
pub(crate) const NOT_STORED: &str = "files are read where they are, so remove it";

/// The formats that DataFusion can create a table of by name. It parses NDJSON, but reads that as JSON only.
const FORMATS: [&str; 4] = ["PARQUET", "CSV", "JSON", "ARROW"];

/// Characters that make DataFusion read a path as a pattern.
const GLOB: [char; 3] = ['*', '?', '['];

/// The source that `create` declares, its relative locations behind `folder`, which is absolute.
///
/// # Errors
/// At its place: a clause without meaning here, an unknown format, a location that is not a local path.
pub(crate) fn source(statement: &Statement<'_>, mut create: CreateExternalTable, folder: &Path) -> Result<Source> {
    let name = name::defined(statement, &create.name)?;
    let refused = [
        (create.or_replace, "OR REPLACE", "a name is defined once, so remove it"),
        (create.temporary && !statement.has("TEMPORARY"), "TEMP", NOT_STORED),
        (create.temporary, "TEMPORARY", NOT_STORED),
        (create.unbounded, "UNBOUNDED", "a task reads its input to the end, so remove it"),
        (create.if_not_exists, "IF NOT EXISTS", "a name is defined once, so remove it"),
    ];
    if let Some((_, clause, advice)) = refused.iter().find(|(is_set, ..)| *is_set) {
        return Err(statement.refuse(clause, advice));
    }
    declared(statement, &create.columns, &create.constraints)?;
    if !FORMATS.contains(&create.file_type.as_str()) {
        let message = format!(
            "can't read files STORED AS {}; write one of: {} (JSON: one value a line)",
            create.file_type,
            FORMATS.join(", ")
        );
        return Err(statement.error(statement.after("STORED AS", 1), message));
    }
    for (at, location) in create.locations.iter_mut().enumerate() {
        *location = resolved(location, folder).map_err(|e| e.with_location(statement.after("LOCATION", at + 1)))?;
    }
    Ok(Source { name, statement: create, folder: folder.to_path_buf(), location: statement.start() })
}

/// `location` behind `folder` unless it is absolute; patterns and a `/` at the end stay.
fn resolved(location: &str, folder: &Path) -> Result<String> {
    if location.is_empty() {
        return Err(Error::new(ErrorKind::Sql, "the location is empty; write a path"));
    }
    if let Some((scheme, rest)) = location.split_once("://") {
        let is_local = scheme.eq_ignore_ascii_case("file") && rest.starts_with('/');
        if is_local {
            return Ok(location.to_string());
        }
        let is_url = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        if is_url {
            let message = format!("can't read `{location}`: only local paths can be read; copy the files to a folder");
            return Err(Error::new(ErrorKind::Sql, message));
        }
    }
    if Path::new(location).is_absolute() {
        return Ok(location.to_string());
    }
    match folder.join(location).into_os_string().into_string() {
        Ok(path) if !folder.to_string_lossy().contains(GLOB) => Ok(path),
        _ => {
            let message = format!(
                "the folder {} has one of the characters * ? [ in its name, or is not UTF-8, so that a relative \
                 location can't be put behind it; rename the folder",
                folder.display()
            );
            Err(Error::new(ErrorKind::Usage, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use datafusion::execution::SessionStateDefaults;

    use crate::error::ErrorKind;
    use crate::pipeline::Item;
    use crate::sql::parse_items;
    use crate::sql::source::FORMATS;
    use crate::sql::tests::assert_refused;
    use crate::task::Source;

    fn source(text: &str) -> Source {
        match parse_items(text, "f.sql", Path::new("/w")).expect("valid").as_slice() {
            [Item::Source(source)] => source.clone(),
            other => panic!("not one source: {other:?}"),
        }
    }

    #[test]
    fn the_formats_are_those_that_datafusion_reads() {
        let known: Vec<_> =
            SessionStateDefaults::default_file_formats().iter().map(|f| f.get_ext().to_ascii_uppercase()).collect();
        for format in FORMATS {
            assert!(known.contains(&format.to_string()), "{format}");
        }
        assert!(!known.contains(&"NDJSON".to_string()));
    }

    #[test]
    fn every_format_is_read_in_any_case() {
        for format in ["parquet", "CSV", "Json", "ARROW"] {
            let source = source(&format!("create external table E stored as {format} location 'x'"));
            assert_eq!((source.name.as_str(), source.statement.file_type), ("e", format.to_ascii_uppercase()));
        }
    }

    #[test]
    fn clauses_about_the_files_are_kept() {
        let source = source(
            "CREATE EXTERNAL TABLE e (a INT NOT NULL, b VARCHAR) STORED AS CSV PARTITIONED BY (b) WITH ORDER (a ASC)
             LOCATION 'x/' OPTIONS ('format.has_header' 'true')",
        );
        assert_eq!(source.statement.columns.len(), 2);
        assert_eq!(source.statement.table_partition_cols, ["b"]);
        assert_eq!((source.statement.order_exprs.len(), source.statement.options.len()), (1, 1));
    }

    #[test]
    fn relative_locations_count_from_the_folder_and_keep_their_form() {
        for (location, expected) in [
            ("'x.parquet'", "/w/x.parquet"),
            ("'x/'", "/w/x/"),
            ("'x/*/y=?/[ab].parquet'", "/w/x/*/y=?/[ab].parquet"),
            ("'../x.parquet'", "/w/../x.parquet"),
            ("'.'", "/w/."),
            ("'a:b.parquet'", "/w/a:b.parquet"),
            ("'tür/ß x.parquet'", "/w/tür/ß x.parquet"),
            ("'/abs/x.parquet'", "/abs/x.parquet"),
            ("'file:///abs/x.parquet'", "file:///abs/x.parquet"),
            ("('x', '/y/', 'z*')", "/w/x,/y/,/w/z*"),
        ] {
            let source = source(&format!("CREATE EXTERNAL TABLE e STORED AS PARQUET LOCATION {location}"));
            assert_eq!(source.statement.locations.join(","), expected);
            assert_eq!(source.folder, Path::new("/w"));
        }
    }

    #[test]
    fn a_relative_folder_is_made_absolute() {
        let text = "CREATE EXTERNAL TABLE e STORED AS CSV LOCATION 'x.csv'";
        let items = parse_items(text, "f.sql", Path::new("sub")).expect("valid");
        let here = std::env::current_dir().expect("a folder").join("sub/x.csv");
        assert!(matches!(&items[..], [Item::Source(s)] if s.statement.locations == [here.display().to_string()]));
    }

    #[test]
    fn a_folder_that_would_read_as_a_pattern_is_refused_for_relative_locations_only() {
        let parse = |location: &str| {
            let text = format!("CREATE EXTERNAL TABLE e STORED AS CSV\n LOCATION '{location}'");
            parse_items(&text, "f.sql", Path::new("/w/[2024]"))
        };
        let error = parse("x.csv").expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert_eq!(error.location().map(|place| (place.line, place.column)), Some((2, 11)));
        assert!(error.message().contains("rename the folder"));
        assert!(parse("/abs/x.csv").is_ok());
    }

    #[test]
    fn what_a_source_is_not_is_refused_where_it_stands() {
        assert_refused(&[
            ("CREATE EXTERNAL TABLE e\nSTORED AS AVRO LOCATION 'x'", "2:11", "one of: PARQUET, CSV, JSON, ARROW"),
            ("CREATE EXTERNAL TABLE e STORED AS NDJSON LOCATION 'x'", "1:35", "JSON: one value a line"),
            ("CREATE EXTERNAL TABLE e STORED AS 'CSV' LOCATION 'x'", "1:35", "expected one of ARROW, PARQUET"),
            ("CREATE EXTERNAL TABLE e STORED AS CSV\n LOCATION 's3://b/x'", "2:11", "only local paths"),
            ("CREATE EXTERNAL TABLE e STORED AS CSV LOCATION ('x',\n 'HTTPS://b/x')", "2:2", "only local paths"),
            ("CREATE EXTERNAL TABLE e STORED AS CSV LOCATION 'file://host/x'", "1:48", "only local paths"),
            ("CREATE EXTERNAL TABLE e STORED AS CSV LOCATION ''", "1:48", "the location is empty"),
            ("CREATE EXTERNAL TABLE e STORED AS CSV LOCATION ()", "1:49", "expected literal string"),
            ("CREATE EXTERNAL TABLE e STORED AS CSV", "1:1", "missing LOCATION clause"),
            (" CREATE EXTERNAL TABLE e LOCATION 'x'", "1:2", "missing STORED AS clause"),
            ("CREATE OR REPLACE EXTERNAL TABLE e STORED AS CSV LOCATION 'x'", "1:8", "OR REPLACE has no meaning"),
            ("CREATE UNBOUNDED EXTERNAL TABLE e STORED AS CSV LOCATION 'x'", "1:8", "UNBOUNDED has no meaning"),
            ("CREATE EXTERNAL TEMP TABLE e STORED AS CSV LOCATION 'x'", "1:17", "TEMP has no meaning"),
            ("CREATE EXTERNAL TEMPORARY TABLE e STORED AS CSV LOCATION 'x'", "1:17", "TEMPORARY has no meaning"),
            ("CREATE TEMPORARY EXTERNAL TABLE e STORED AS CSV LOCATION 'x'", "1:8", "TEMPORARY has no meaning"),
            (
                "CREATE EXTERNAL TABLE IF NOT EXISTS e STORED AS CSV LOCATION 'x'",
                "1:23",
                "IF NOT EXISTS has no meaning",
            ),
            ("CREATE EXTERNAL TABLE a.e STORED AS CSV LOCATION 'x'", "1:23", "`a.e` is qualified"),
            ("CREATE EXTERNAL TABLE e STORED AS CSV LOCATION 'x' AS SELECT 1", "1:52", "found AS"),
        ]);
    }
}
