//! Edits of what a source says of its files: the tasks over it run again, it is refused, or the rows are the same.

use std::fs;
use std::path::Path;

use chunkwise::{RunOptions, RunReport, Status};

use super::Figures;
use crate::support::{engine, make_parquet, read_rows};

/// A source: its columns, its format and its options, each as it is and as it is edited.
struct Declared {
    columns: &'static [(&'static str, &'static [&'static str])],
    format: &'static str,
    place: (&'static str, &'static str),
    options: &'static [(&'static str, &'static str, &'static [&'static str])],
    /// Options that are added.
    others: &'static [(&'static str, &'static str)],
}

const CSV: Declared = Declared {
    columns: &[
        (
            "k INT NOT NULL",
            &["k BIGINT NOT NULL", "k DOUBLE NOT NULL", "k VARCHAR NOT NULL", "k INT", "v INT NOT NULL"],
        ),
        (
            "v BIGINT",
            &[
                "v INT",
                "v SMALLINT",
                "v DOUBLE",
                "v REAL",
                "v DECIMAL(10, 2)",
                "v DECIMAL(11, 2)",
                "v VARCHAR",
                "v BIGINT NOT NULL",
            ],
        ),
        ("s VARCHAR", &["s VARCHAR NOT NULL", "s BYTEA", "other VARCHAR"]),
        ("d DATE", &["d VARCHAR", "d TIMESTAMP", "d TIMESTAMP(3)", "d TIMESTAMP WITH TIME ZONE"]),
    ],
    format: "CSV",
    place: ("a.csv", "b.csv"),
    options: &[
        ("has_header", "true", &["false"]),
        ("delimiter", "';'", &["','", "'|'", "'\\t'"]),
        ("quote", "''''", &["'\"'"]),
        ("escape", "'\\'", &["'!'"]),
        ("double_quote", "false", &["true"]),
        ("comment", "'#'", &["'1'"]),
        ("null_regex", "'^NA$'", &["'^$'", "'^30$'", "'NA|it.s'"]),
        ("truncated_rows", "true", &["false"]),
    ],
    others: &[
        ("terminator", "'3'"),
        ("compression", "'gzip'"),
        ("compression", "'uncompressed'"),
        ("newlines_in_values", "true"),
        ("schema_infer_max_rec", "1"),
    ],
};

const JSON: Declared = Declared {
    columns: &[
        ("k BIGINT", &["k INT", "k DOUBLE", "k VARCHAR", "k BIGINT NOT NULL", "v BIGINT"]),
        (
            "r STRUCT<x BIGINT, y VARCHAR>",
            &["r STRUCT<x BIGINT>", "r STRUCT<x DOUBLE, y VARCHAR>", "r STRUCT<y VARCHAR, x BIGINT>", "r VARCHAR"],
        ),
        ("l BIGINT[]", &["l DOUBLE[]", "l VARCHAR[]"]),
        ("s VARCHAR NULL", &["s VARCHAR", "t VARCHAR NULL"]),
    ],
    format: "JSON",
    place: ("a.json", "b.json"),
    options: &[("newline_delimited", "false", &["true"])],
    others: &[("compression", "'zstd'"), ("schema_infer_max_rec", "1")],
};

const INFERRED: Declared = Declared {
    columns: &[],
    format: "CSV",
    place: ("a.csv", "b.csv"),
    options: &[
        ("delimiter", "';'", &["','", "'|'"]),
        ("quote", "''''", &["'\"'"]),
        ("escape", "'\\'", &["'!'"]),
        ("comment", "'#'", &["'1'"]),
        ("null_regex", "'^NA$'", &["'^30$'", "'it'"]),
        ("truncated_rows", "true", &["false"]),
        ("schema_infer_max_rec", "10", &["1", "2"]),
    ],
    others: &[("has_header", "false"), ("double_quote", "false")],
};

const PARQUET: Declared = Declared {
    columns: &[
        ("k BIGINT", &["k INT", "k DOUBLE", "k VARCHAR", "k DECIMAL(20, 0)", "k BIGINT NOT NULL", "v BIGINT"]),
        ("s VARCHAR", &["s VARCHAR NOT NULL", "other VARCHAR NULL"]),
        ("ts TIMESTAMP", &["ts TIMESTAMP(3)", "ts TIMESTAMP WITH TIME ZONE", "ts DATE", "ts VARCHAR"]),
    ],
    format: "PARQUET",
    place: ("a.parquet", "b.parquet"),
    options: &[],
    others: &[],
};

fn write_files(folder: &Path) {
    let csv = "k;v;s;d\n#9;9;nine;2024-01-09\n1;10;'a;b';2024-01-01\n2;NA;'it\\'s';2024-01-02\n3;30;x\"y\";1999-12-31\n4;40\n";
    fs::write(folder.join("a.csv"), csv).unwrap();
    fs::write(folder.join("b.csv"), csv.replace("40", "41")).unwrap();
    let json = r#"[{"k": 1, "r": {"x": 2, "y": "3"}, "l": [1, 2], "s": "a"}, {"k": 2, "v": 7, "r": null, "l": []}]"#;
    fs::write(folder.join("a.json"), json).unwrap();
    fs::write(folder.join("b.json"), json.replace('7', "8").replace("\"a\"", "\"b\"")).unwrap();
}

/// Statements of the source and of each edit of it.
fn statements(declared: &Declared) -> (String, Vec<String>) {
    let Declared { columns, format, place, options, others } = declared;
    let as_it_is: Vec<String> = columns.iter().map(|(column, _)| (*column).to_string()).collect();
    let set: Vec<String> = options.iter().map(|(name, value, _)| format!("format.{name} {value}")).collect();
    let text = |columns: &[String], format: &str, place: &str, options: &[String]| {
        let columns = if columns.is_empty() { String::new() } else { format!("({})", columns.join(", ")) };
        let options = if options.is_empty() { String::new() } else { format!("OPTIONS ({})", options.join(", ")) };
        format!("CREATE EXTERNAL TABLE f {columns} STORED AS {format} LOCATION '{place}' {options};")
    };
    let mut all = Vec::new();
    for (at, (_, edits)) in columns.iter().enumerate() {
        for edit in *edits {
            let mut edited = as_it_is.clone();
            edited[at] = (*edit).to_string();
            all.push(text(&edited, format, place.0, &set));
        }
        let mut edited = as_it_is.clone();
        edited.remove(at);
        all.push(text(&edited, format, place.0, &set));
        let mut edited = as_it_is.clone();
        edited.swap(at, (at + 1) % columns.len());
        all.push(text(&edited, format, place.0, &set));
    }
    for (at, (name, _, edits)) in options.iter().enumerate() {
        for edit in *edits {
            let mut edited = set.clone();
            edited[at] = format!("format.{name} {edit}");
            all.push(text(&as_it_is, format, place.0, &edited));
        }
        let mut edited = set.clone();
        edited.remove(at);
        all.push(text(&as_it_is, format, place.0, &edited));
    }
    for (name, value) in *others {
        let edited: Vec<String> = set.iter().cloned().chain([format!("format.{name} {value}")]).collect();
        all.push(text(&as_it_is, format, place.0, &edited));
    }
    all.push(text(&as_it_is, format, place.1, &set));
    all.push(text(&[], format, place.0, &set));
    all.push(text(&as_it_is, format, place.0, &[]));
    for other in ["CSV", "JSON", "PARQUET", "ARROW"] {
        all.push(text(&as_it_is, other, place.0, &set));
    }
    let base = text(&as_it_is, format, place.0, &set);
    all.retain(|edited| *edited != base);
    (base, all)
}

/// How many [`TASKS`] are.
const COUNT: usize = 3;
const TASKS: &str = "
    CREATE TABLE whole WITH (chunks = 1) AS SELECT * FROM f;
    CREATE TABLE cut CLUSTERED BY (k) INTO 2 BUCKETS AS SELECT * FROM f;
    CREATE TABLE counted CLUSTERED BY (k) INTO 2 BUCKETS AS SELECT k, count(*) AS n FROM f GROUP BY k;
";

async fn run(cache: &Path, folder: &Path, source: &str, dry_run: bool) -> Result<RunReport, String> {
    let pipeline = chunkwise::sql::parse(&format!("{source}{TASKS}"), "t.sql", folder).map_err(|e| e.to_string())?;
    let options = RunOptions { dry_run, ..RunOptions::default() };
    engine(cache).run(&pipeline, &options).await.map_err(|e| e.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_edited_in_a_source_runs_again_or_is_refused_or_has_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path());
    let rows = |last: i64| {
        format!(
            "SELECT value AS k, value + 1 AS v, chr(96 + value) AS s,
                    arrow_cast(to_timestamp_micros(value * 3600001000), 'Timestamp(Microsecond, None)') AS ts
             FROM generate_series(1, {last})"
        )
    };
    make_parquet(folder.path(), "a", &rows(5)).await;
    make_parquet(folder.path(), "b", &rows(6)).await;
    let mut figures = Figures::default();
    let mut wrong = Vec::new();
    for declared in [CSV, INFERRED, JSON, PARQUET] {
        let (base, edits) = statements(&declared);
        let cache = tempfile::tempdir().unwrap();
        let report = run(cache.path(), folder.path(), &base, false).await.unwrap_or_else(|e| panic!("{e}\n{base}"));
        assert!(report.succeeded(), "{base}\n{report:#?}");
        for edited in edits {
            // Each task over it by itself: one that reads other columns is not to run again.
            figures.edits += COUNT;
            let report = match run(cache.path(), folder.path(), &edited, true).await {
                Ok(report) => report,
                Err(_) => {
                    figures.unread += COUNT;
                    continue;
                }
            };
            let count = |status| report.tasks.iter().filter(|task| task.status == status).count();
            figures.renamed += count(Status::Planned);
            figures.refused += COUNT - count(Status::Planned) - count(Status::Reused);
            figures.neutral += count(Status::Reused);
            let kept: Vec<_> = report.tasks.iter().filter(|task| task.status == Status::Reused).collect();
            if kept.is_empty() {
                continue;
            }
            let own = tempfile::tempdir().unwrap();
            let again = run(own.path(), folder.path(), &edited, false).await;
            for task in kept {
                let served = read_rows(&engine(cache.path()), &task.name).await;
                let right = match &again {
                    Ok(report) if report.task(&task.name).is_some_and(|task| task.executed > 0) => {
                        read_rows(&engine(own.path()), &task.name).await
                    }
                    Ok(report) => Err(format!("{:?}", report.task(&task.name).map(|task| task.reason.clone()))),
                    Err(error) => Err(error.clone()),
                };
                if served != right {
                    wrong.push(format!("{}: {served:?} for {right:?}\n  {base}\n  {edited}", task.name));
                }
            }
        }
    }
    println!("sources: {figures}");
    assert!(wrong.is_empty(), "{} edits:\n{}", wrong.len(), wrong.join("\n"));
    assert!(figures.edits >= 300 && figures.renamed >= 50, "{figures}");
}
