//! `CREATE EXTERNAL TABLE` → a source.

use std::path::Path;

use datafusion::sql::parser::CreateExternalTable;
use percent_encoding::percent_decode_str;

use crate::error::Result;
use crate::sql::clauses::{declared, widen_floats};
use crate::sql::format::format;
use crate::sql::name;
use crate::sql::tokens::Statement;
use crate::task::source::{Place, Source};

/// Why a source is not temporary.
pub(crate) const NOT_STORED: &str = "files are read where they are, so remove it";

/// The source that `create` declares; relative locations count from `folder`, which is absolute.
///
/// # Errors
/// At its place: a clause without meaning here, an unknown format or option, a location that is not a local path.
pub(crate) fn source(statement: &Statement<'_>, mut create: CreateExternalTable, folder: &Path) -> Result<Source> {
    let name = name::defined(statement, &create.name)?;
    let refused = [
        (create.or_replace, "OR REPLACE", "a name is defined once, so remove it"),
        (create.temporary && !statement.has("TEMPORARY"), "TEMP", NOT_STORED),
        (create.temporary, "TEMPORARY", NOT_STORED),
        (create.unbounded, "UNBOUNDED", "a task reads its input to the end, so remove it"),
        (create.if_not_exists, "IF NOT EXISTS", "a name is defined once, so remove it"),
        (
            !create.order_exprs.is_empty(),
            "WITH ORDER",
            "whether files are sorted is read from their statistics, so remove it",
        ),
    ];
    if let Some((_, clause, advice)) = refused.iter().find(|(is_set, ..)| *is_set) {
        return Err(statement.refuse(clause, advice));
    }
    // DataFusion keeps them as they are written.
    create.table_partition_cols.iter_mut().for_each(|name| *name = name::normalised_text(name));
    create.columns.iter_mut().for_each(|column| widen_floats(&mut column.data_type));
    declared(statement, &create.columns, &create.constraints)?;
    let format = format(statement, &create.file_type, &create.options)?;
    let place = |(at, location): (usize, &String)| {
        let text = path(location).map_err(|message| statement.error(statement.after("LOCATION", at + 1), message))?;
        Ok(Place { folder: folder.to_path_buf(), text })
    };
    let places = create.locations.iter().enumerate().map(place).collect::<Result<_>>()?;
    Ok(Source { name, format, places, statement: Box::new(create), location: statement.start() })
}

/// The path that a location stands for.
fn path(location: &str) -> Result<String, String> {
    if location.is_empty() {
        return Err("the location is empty; write a path".into());
    }
    let Some((scheme, rest)) = location.split_once("://") else { return Ok(location.to_string()) };
    if scheme.eq_ignore_ascii_case("file") {
        return match rest.strip_prefix("localhost").unwrap_or(rest) {
            path if path.starts_with('/') => percent_decode_str(path)
                .decode_utf8()
                .map(Into::into)
                .map_err(|_| format!("`{location}` is not UTF-8 once it is decoded; write the path alone")),
            _ => Err(format!("`{location}` names another machine; write file:/// and a path, or the path alone")),
        };
    }
    let is_url = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    match is_url {
        true => Err(format!("can't read `{location}`: only local paths can be read; copy the files to a folder")),
        false => Ok(location.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::pipeline::Item;
    use crate::sql::parse_items;
    use crate::sql::tests::assert_refused;
    use crate::task::source::Source;

    fn source(text: &str) -> Source {
        match parse_items(text, "f.sql", Path::new("/w")).expect("valid").as_slice() {
            [Item::Source(source)] => source.clone(),
            other => panic!("not one source: {other:?}"),
        }
    }

    #[test]
    fn clauses_about_the_files_are_kept() {
        let source = source(
            "CREATE EXTERNAL TABLE e (a INT NOT NULL, b VARCHAR) STORED AS CSV PARTITIONED BY (b)
             LOCATION 'x/' OPTIONS ('format.has_header' 'true')",
        );
        assert_eq!(source.statement.columns.len(), 2);
        assert_eq!(source.statement.table_partition_cols, ["b"]);
    }

    #[test]
    fn relative_locations_count_from_the_folder() {
        for (location, expected) in [
            ("'x.parquet'", "/w/x.parquet"),
            ("'x/'", "/w/x/"),
            ("'x/*/y=?/[ab].parquet'", "/w/x/*/y=?/[ab].parquet"),
            ("'../x.parquet'", "/w/../x.parquet"),
            ("'.'", "/w/."),
            ("'a:b.parquet'", "/w/a:b.parquet"),
            ("'tür/ß x.parquet'", "/w/tür/ß x.parquet"),
            ("'/abs/x.parquet'", "/abs/x.parquet"),
            ("'file:///abs/x.parquet'", "/abs/x.parquet"),
            ("'FILE://localhost/abs/a%20b.parquet'", "/abs/a b.parquet"),
            ("('x', '/y/', 'z*')", "/w/x,/y/,/w/z*"),
        ] {
            let source = source(&format!("CREATE EXTERNAL TABLE e STORED AS PARQUET LOCATION {location}"));
            let places: Vec<_> = source.places.iter().map(ToString::to_string).collect();
            assert_eq!(places.join(","), expected);
        }
    }

    #[test]
    fn a_relative_folder_is_made_absolute() {
        let text = "CREATE EXTERNAL TABLE e STORED AS CSV LOCATION 'x.csv'";
        let items = parse_items(text, "f.sql", Path::new("sub")).expect("valid");
        let here = std::env::current_dir().expect("a folder").join("sub/x.csv");
        assert!(matches!(&items[..], [Item::Source(s)] if s.places[0].path() == here));
    }

    #[test]
    fn what_a_source_is_not_is_refused_where_it_stands() {
        assert_refused(&[
            (
                "CREATE EXTERNAL TABLE e\nSTORED AS AVRO LOCATION 'x'",
                "2:11",
                "one of: PARQUET, CSV, JSON (one value a line",
            ),
            ("CREATE EXTERNAL TABLE e STORED AS NDJSON LOCATION 'x'", "1:35", "JSON (one value a line"),
            ("CREATE EXTERNAL TABLE e STORED AS 'CSV' LOCATION 'x'", "1:35", "expected one of ARROW, PARQUET"),
            ("CREATE EXTERNAL TABLE e STORED AS CSV\n LOCATION 's3://b/x'", "2:11", "only local paths"),
            ("CREATE EXTERNAL TABLE e STORED AS CSV LOCATION ('x',\n 'HTTPS://b/x')", "2:2", "only local paths"),
            ("CREATE EXTERNAL TABLE e STORED AS CSV LOCATION 'file://host/x'", "1:48", "names another machine"),
            ("CREATE EXTERNAL TABLE e STORED AS CSV WITH ORDER (a) LOCATION 'x'", "1:39", "WITH ORDER has no meaning"),
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
