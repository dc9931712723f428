//! The `chunkwise` command as a person or a script meets it: exit codes, what is printed where, and what a run that
//! fails or is killed leaves behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{age, write_parquet};

const ORDERS: &str = "CREATE EXTERNAL TABLE orders STORED AS PARQUET LOCATION '../data/orders.parquet';\n";
const CUSTOMERS: &str = "CREATE EXTERNAL TABLE customers STORED AS PARQUET LOCATION '../data/customers.parquet';\n";
const REVENUE: &str = "
    CREATE TABLE revenue CLUSTERED BY (customer) INTO 4 BUCKETS AS
    SELECT o.customer, c.region, sum(o.amount) AS total FROM orders o JOIN customers c ON o.customer = c.id
    GROUP BY o.customer, c.region;
";
const REGIONS: &str = "
    CREATE TABLE regions CLUSTERED BY (region) INTO 2 BUCKETS AS
    SELECT region, count(*) AS customers, sum(total) AS total FROM revenue GROUP BY region;
";
const SUMMARY: &str = "CREATE TABLE summary AS SELECT count(*) AS regions, sum(total) AS total FROM regions;";

#[test]
fn run_executes_then_reuses_and_says_so_per_task() {
    let lab = Lab::new();
    let first = lab.run(&[]);
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""));
    assert_eq!(first.lines_of(["regions", "revenue", "summary"]), ["executed", "executed", "executed"]);
    assert!(first.stdout.contains("3 executed, 0 reused, 0 failed, 0 skipped"), "{}", first.stdout);
    assert!(!first.stdout.contains('\u{1b}'), "no terminal, no colours: {:?}", first.stdout);
    lab.assert_published();
    let tables = lab.tables();
    let second = lab.run(&[]);
    assert_eq!((second.code, second.stderr.as_str()), (Some(0), ""));
    assert_eq!(second.lines_of(["regions", "revenue", "summary"]), ["reused", "reused", "reused"]);
    assert!(second.stdout.contains("0 executed, 3 reused, 0 failed, 0 skipped"), "{}", second.stdout);
    assert_eq!(lab.tables(), tables);
}

#[test]
fn the_report_is_json_with_what_each_task_did() {
    let lab = Lab::new();
    let report = lab.report(&[]);
    assert_eq!(keys(&report), ["peak_rss_bytes", "tasks", "wall_ms"]);
    assert!(report["wall_ms"].as_u64().unwrap() > 0);
    assert!(report["peak_rss_bytes"].as_u64().unwrap() > 1 << 20);
    let tasks = report["tasks"].as_array().unwrap();
    assert_eq!(tasks.iter().map(|task| &task["name"]).collect::<Vec<_>>(), ["revenue", "regions", "summary"]);
    let every = [
        "assumed",
        "audited",
        "bytes",
        "chunks",
        "error",
        "executed",
        "inputs",
        "keys",
        "name",
        "reason",
        "reused",
        "rows",
        "scanned_bytes",
        "spilled_bytes",
        "split_bytes",
        "stage",
        "status",
        "steps",
        "wall_ms",
    ];
    for task in tasks {
        assert_eq!(keys(task), every);
        assert_eq!((&task["status"], &task["reason"]), (&json!("executed"), &json!("not published yet")));
        assert_eq!((&task["executed"], &task["reused"]), (&task["chunks"], &json!(0)));
        let name = task["name"].as_str().unwrap();
        let bytes: u64 = files_below(&lab.cache("tables").join(name)).iter().map(|f| f.metadata().unwrap().len()).sum();
        assert_eq!(task["bytes"].as_u64().unwrap(), bytes);
        assert!(task["wall_ms"].as_u64().unwrap() <= report["wall_ms"].as_u64().unwrap());
        assert!(task["inputs"].as_array().unwrap().iter().all(|input| keys(input) == ["mode", "table"]));
        let steps = task["steps"].as_array().unwrap();
        assert_eq!((steps.len(), &steps[0]["name"], &steps[0]["part"]), (1, &task["name"], &json!("rest")));
        assert_eq!(
            (keys(&steps[0]), &steps[0]["chunks"]),
            (vec!["chunks", "inputs", "keys", "name", "part"], &task["chunks"])
        );
    }
    assert_eq!(
        (&tasks[0]["keys"], &tasks[0]["chunks"], &tasks[0]["rows"]),
        (&json!(["customer"]), &json!(4), &json!(50))
    );
    assert_eq!(
        tasks[0]["inputs"],
        json!([{"table": "orders", "mode": "rescan"}, {"table": "customers", "mode": "rescan"}])
    );
    assert_eq!((&tasks[2]["keys"], &tasks[2]["chunks"], &tasks[2]["rows"]), (&json!([]), &json!(1), &json!(1)));
    assert_eq!(tasks[2]["inputs"][0]["table"], json!("regions"));
    for task in lab.report(&[])["tasks"].as_array().unwrap() {
        assert_eq!((&task["status"], &task["reason"]), (&json!("reused"), &json!("nothing changed")));
        assert_eq!((&task["executed"], &task["reused"]), (&json!(0), &task["chunks"]));
    }
}

#[test]
fn a_selected_task_runs_with_what_it_needs() {
    let lab = Lab::new();
    let names = |report: &Value| report["tasks"].as_array().unwrap().iter().map(|t| t["name"].clone()).collect();
    let ran: Vec<Value> = names(&lab.report(&["--task", "regions"]));
    assert_eq!(ran, ["revenue", "regions"]);
    assert_eq!(lab.tables().into_keys().collect::<Vec<_>>(), ["regions", "revenue"]);
    let ran: Vec<Value> = names(&lab.report(&["--task", "summary", "--task", "revenue"]));
    assert_eq!(ran, ["revenue", "regions", "summary"]);
    let unknown = lab.run(&["--task", "sumary"]);
    assert_eq!(unknown.code, Some(2));
    unknown.says(&["no task `sumary`", "regions", "revenue", "summary"]);
}

#[test]
fn force_runs_every_chunk_again() {
    let lab = Lab::new();
    lab.report(&[]);
    let forced = lab.report(&["--force"]);
    for task in forced["tasks"].as_array().unwrap() {
        assert_eq!((&task["status"], &task["reason"]), (&json!("executed"), &json!("forced")));
        assert_eq!((&task["executed"], &task["reused"]), (&task["chunks"], &json!(0)));
    }
    lab.assert_published();
}

#[test]
fn a_cache_is_listed_pinned_and_bounded() {
    let lab = Lab::new();
    let cache = |arguments: &[&str]| {
        let done = lab.chunkwise(&[&["cache"], arguments, &["--cache", "cache"]].concat());
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        done.stdout
    };
    lab.run(&[]);
    let lines = |text: &str| text.lines().map(|line| line.split_whitespace().map(String::from).collect()).collect();
    let listed: Vec<Vec<String>> = lines(&cache(&["ls"]));
    assert_eq!(
        listed.iter().map(|line| line[0].as_str()).collect::<Vec<_>>(),
        ["table", "regions", "revenue", "summary"]
    );
    cache(&["pin", "revenue"]);
    let listed: Vec<Vec<String>> = lines(&cache(&["ls"]));
    assert_eq!(listed[2].last().map(String::as_str), Some("pinned"));
    assert_eq!(cache(&["show", "revenue"]).lines().count(), 6);

    let edited = REVENUE.replace("sum(o.amount)", "sum(o.amount) + 1");
    lab.write("sql/pipeline.sql", &[ORDERS, CUSTOMERS, &edited, REGIONS, SUMMARY].concat());
    assert_eq!(lab.run(&["--audit", "100%"]).code, Some(0));
    assert_eq!(chunk_files(&lab.path("cache")), 14);
    assert!(cache(&["gc"]).starts_with("0 chunks, splits and versions removed"));
    assert!(cache(&["gc", "--older-than", "0s"]).starts_with("0 chunks, splits and versions removed"));
    age(&lab.path("cache"));
    let removed = cache(&["gc", "--older-than", "0s"]);
    // The two chunks of `regions` and the one of `summary`, and their versions; of `revenue` all is pinned.
    assert!(removed.starts_with("5 chunks, splits and versions removed"), "{removed}");
    assert_eq!(chunk_files(&lab.path("cache")), 11);
    assert!(cache(&["unpin", "revenue"]).starts_with("1 versions"));
    let audited = lab.run(&["--audit", "100", "--cache-limit", "1GB"]);
    assert!(audited.stdout.contains("nothing changed; 4 computed again and found equal"), "{}", audited.stdout);
    age(&lab.path("cache"));
    let removed = cache(&["gc", "--older-than", "0s", "--limit", "1KB"]);
    assert!(removed.starts_with("4 chunks, splits and versions removed"), "{removed}");
    assert!(cache(&["verify"]).contains("all as they were written"));
    lab.assert_no_unfinished_files();

    // A table that can't be read doesn't hide the others.
    let mut versions = fs::read_dir(lab.cache("versions/summary")).unwrap().map(|entry| entry.unwrap().path());
    let list = versions.find(|path| path.extension().is_some_and(|ending| ending == "b3")).unwrap();
    let lines = fs::read_to_string(&list).unwrap();
    fs::write(&list, "").unwrap();
    let broken = lab.chunkwise(&["cache", "ls", "--cache", "cache"]);
    assert!(broken.code == Some(1) && broken.stdout.contains("revenue"), "{}", broken.stdout);
    broken.says(&["`summary` has lost the list of its files"]);
    fs::write(&list, lines).unwrap();

    write_parquet(
        &lab.path("data/orders.parquet"),
        &RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
            ("customer", Arc::new(Int64Array::from(vec![1]))),
            ("amount", Arc::new(Int64Array::from(vec![1]))),
        ])
        .unwrap(),
    );
    let failed = lab.run(&["--assert-no-fresh-input"]);
    assert_eq!(failed.code, Some(1));
    failed.says(&["input changed since the table was published", "orders"]);
    let ignored = lab.run(&["--ignore-fresh-input"]);
    assert_eq!(ignored.lines_of(["regions", "revenue", "summary"]), ["reused", "reused", "reused"]);
    assert_eq!(lab.run(&[]).code, Some(0));
}

#[test]
fn a_table_whose_task_is_gone_is_named_and_can_be_taken_away() {
    let lab = Lab::new();
    let first = lab.run(&[]);
    assert!(first.code == Some(0) && !first.stderr.contains("note:"), "{}", first.stderr);
    lab.write("sql/pipeline.sql", &[ORDERS, CUSTOMERS, REVENUE, REGIONS].concat());
    lab.run(&[]).says(&["note: summary: published, and made by no task here", "chunkwise cache rm"]);
    let rm = |tables: &[&str], cache: &str| lab.chunkwise(&[&["cache", "rm"], tables, &["--cache", cache]].concat());
    assert_eq!(rm(&["summary"], "cache").code, Some(0));
    let again = lab.run(&[]);
    assert!(!again.stderr.contains("note:") && !again.stderr.contains("summary"), "{}", again.stderr);
    let gone = rm(&["summary"], "cache");
    assert_eq!(gone.code, Some(2));
    gone.says(&["no table `summary` is published", "published are: regions, revenue"]);
    let nowhere = rm(&["summary"], "another");
    nowhere.says(&["there is no cache folder another"]);
    assert!(!lab.path("another").exists());
}

#[test]
fn arguments_out_of_range_are_wrong_usage() {
    let lab = Lab::new();
    for (arguments, words) in [
        (["--jobs", "0"], "--jobs"),
        (["--jobs", "-1"], "-1"),
        (["--jobs", "many"], "--jobs"),
        (["--memory", "0"], "at least one byte"),
        (["--memory", "5 parsec"], "`parsec` is not a unit"),
        (["--memory", "lots"], "--memory"),
        (["--memory", "1"], "the process itself needs 64 MiB"),
        (["--memory", "-5GB"], "-5"),
        (["--sideways", "1"], "--sideways"),
    ] {
        let refused = lab.run(&arguments);
        assert_eq!(refused.code, Some(2), "{arguments:?}");
        refused.says(&[words]);
    }
    for paths in [&[][..], &["nowhere"], &["nowhere.sql"], &["data"], &["data/orders.parquet"]] {
        let refused = lab.chunkwise(&[&["run"], paths].concat());
        assert_eq!(refused.code, Some(2), "{paths:?}");
        refused.says(&[paths.first().copied().unwrap_or("PATH")]);
    }
    assert!(!lab.cache("").exists(), "nothing was begun");
    let fine = lab.run(&["--jobs", "3", "--memory", "1.5 GiB"]);
    assert_eq!(fine.code, Some(0), "{}", fine.stderr);
}

#[test]
fn statements_may_lie_in_several_files_and_folders_in_any_order() {
    let lab = Lab::new();
    assert_eq!(lab.run(&[]).code, Some(0));
    let sources = [ORDERS, CUSTOMERS].concat().replace("../data", "../../data");
    for (file, text) in [
        ("split/1.sql", SUMMARY),
        ("split/2.sql", REGIONS),
        ("split/deep/3.sql", &sources),
        ("split/deep/note.txt", "not SQL"),
        ("other/4.sql", REVENUE),
    ] {
        lab.write(file, text);
    }
    for paths in [
        &["split", "other"][..],
        &["other/4.sql", "split"],
        &["split/1.sql", "other", "split/deep/3.sql", "split/2.sql", "split"],
    ] {
        let again = lab.chunkwise(&[&["run", "--cache", "cache"], paths].concat());
        assert_eq!(again.code, Some(0), "{}", again.stderr);
        assert_eq!(again.lines_of(["regions", "revenue", "summary"]), ["reused", "reused", "reused"], "{paths:?}");
    }
}

#[test]
fn query_prints_tables_csv_and_json() {
    let lab = Lab::new();
    assert_eq!(lab.run(&[]).code, Some(0));
    let sql = "SELECT region, customers, total, CAST(NULL AS INT) AS none FROM regions ORDER BY region";
    let expected = expected_regions();
    let query = |format: &str, sql: &str| {
        let done = lab.chunkwise(&["query", sql, "--cache", "cache", "--format", format]);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{sql}");
        done.stdout
    };
    let csv: Vec<String> = expected.iter().map(|(region, (n, total))| format!("{region},{n},{total},")).collect();
    assert_eq!(query("csv", sql), format!("region,customers,total,none\n{}\n", csv.join("\n")));
    let rows: Vec<Value> = serde_json::from_str(&query("json", sql)).unwrap();
    for (row, (region, (customers, total))) in rows.iter().zip(&expected) {
        assert_eq!(row["region"], json!(region));
        assert_eq!((&row["customers"], &row["total"]), (&json!(customers), &json!(total)));
        assert_eq!(row["none"], Value::Null);
    }
    assert_eq!(rows.len(), expected.len());
    let table = query("table", sql);
    let cells: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let mut wanted = vec![["region", "customers", "total", "none"].map(String::from).to_vec()];
    wanted.extend(expected.iter().map(|(r, (n, t))| vec![r.to_string(), n.to_string(), t.to_string(), String::new()]));
    assert_eq!(cells, wanted);
    let odd = "SELECT 'NaN'::DOUBLE AS a, '-inf'::REAL AS b, ['NaN'::DOUBLE, NULL, 0.5] AS c, map(['x'], [NULL]) AS d, NULL AS e";
    let expected = json!([{"a": "NaN", "b": "-inf", "c": ["NaN", null, 0.5], "d": {"x": null}, "e": null}]);
    assert_eq!(serde_json::from_str::<Value>(&query("json", odd)).unwrap(), expected);
    for (format, sql, remedy) in
        [("csv", "SELECT [1] AS a", "--format json"), ("json", "SELECT map([1], [2]) AS a", "--format table")]
    {
        let done = lab.chunkwise(&["query", sql, "--cache", "cache", "--format", format]);
        assert!(done.code == Some(1) && done.stderr.contains(remedy), "{}", done.stderr);
    }
    let nothing = "SELECT region, total FROM regions WHERE total < 0";
    assert_eq!(query("csv", nothing), "region,total\n");
    assert_eq!(serde_json::from_str::<Value>(&query("json", nothing)).unwrap(), json!([]));
    assert!(query("table", nothing).contains("| region | total |"));
}

#[test]
fn query_refuses_what_is_no_query_over_published_tables() {
    let lab = Lab::new();
    assert_eq!(lab.run(&[]).code, Some(0));
    let tables = lab.tables();
    for (sql, words) in [
        ("SELEC 1", "SELEC"),
        ("", "write a SELECT"),
        ("SELECT 1; SELECT 2", "one query"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("SELECT * FROM orders", "orders"),
        ("SELECT nothing FROM regions", "nothing"),
        ("CREATE TABLE x AS SELECT 1", "write a SELECT"),
        ("CREATE VIEW x AS SELECT 1", "write a SELECT"),
        ("CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION 'data/orders.parquet'", "write a SELECT"),
        ("DROP TABLE regions", "write a SELECT"),
        ("INSERT INTO regions SELECT * FROM regions", "write a SELECT"),
        ("DELETE FROM regions", "write a SELECT"),
        ("COPY regions TO 'copy.csv' STORED AS CSV", "write a SELECT"),
    ] {
        let refused = lab.chunkwise(&["query", sql, "--cache", "cache"]);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{sql}");
        refused.says(&[words]);
    }
    assert!(!lab.path("copy.csv").exists());
    assert_eq!(lab.tables(), tables);
    let nothing_there = lab.chunkwise(&["query", "SELECT * FROM regions", "--cache", "another"]);
    assert_eq!(nothing_there.code, Some(2));
    assert!(!lab.path("another").exists(), "a query creates no cache");
    let failing = lab.chunkwise(&["query", "SELECT 1 / (total - total) AS x FROM regions", "--cache", "cache"]);
    assert_eq!(failing.code, Some(1));
    failing.says(&["Divide by zero"]);
}

#[test]
fn a_reader_that_hangs_up_is_no_failure() {
    let lab = Lab::new();
    assert_eq!(lab.run(&[]).code, Some(0));
    let many = "SELECT a.*, b.total AS other FROM revenue a, revenue b, regions c";
    for arguments in [
        &["query", many, "--cache", "cache", "--format", "table"][..],
        &["query", many, "--cache", "cache", "--format", "csv"],
        &["query", many, "--cache", "cache", "--format", "json"],
        &["query", "SELECT 1 AS one", "--cache", "cache"],
        &["explain", "sql"],
        &["run", "sql", "--cache", "cache", "--force"],
    ] {
        let mut child = lab.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let done = Done::of(child.wait_with_output().unwrap());
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
    lab.assert_published();
}

#[test]
fn explain_shows_each_task_or_only_one_and_runs_nothing() {
    let lab = Lab::new();
    lab.write("sql/refused.sql", "CREATE TABLE ranks CLUSTERED BY (customer) INTO 2 BUCKETS AS\n  SELECT customer, row_number() OVER (ORDER BY amount) AS n FROM orders;");
    lab.write("sql/lost.sql", "CREATE EXTERNAL TABLE lost STORED AS PARQUET LOCATION 'lost.parquet';\nCREATE TABLE found AS SELECT * FROM lost;");
    let all = lab.chunkwise(&["explain", "sql"]);
    assert_eq!((all.code, all.stderr.as_str()), (Some(0), ""));
    for words in [
        "task `revenue` (sql/pipeline.sql:",
        "4 chunks by hash of (customer)",
        "orders     rescan",
        "task `regions`",
        "2 chunks by hash of (region)",
        "task `summary`",
        "chunk_of(Int32(4), ",
    ] {
        assert!(all.stdout.contains(words), "{words}\n{}", all.stdout);
    }
    let refusal = all.stdout.lines().find(|line| line.contains("`ranks`")).unwrap();
    for words in ["not run: sql/refused.sql:2:48: ", "can't be cut", "row_number", "; "] {
        assert!(refusal.contains(words), "{words}\n{refusal}");
    }
    let lost = all.stdout.lines().find(|line| line.contains("`lost`")).unwrap();
    assert!(lost.contains("not run") && lost.contains("lost.parquet"), "{lost}");
    let one = lab.chunkwise(&["explain", "sql", "--task", "regions"]);
    assert_eq!(one.code, Some(0), "{}", one.stderr);
    assert!(one.stdout.starts_with("task `regions`"), "{}", one.stdout);
    assert_eq!(one.stdout.matches("task `").count(), 1, "{}", one.stdout);
    let bound =
        |memory: &str| lab.chunkwise(&["explain", "sql", "--task", "regions", "--jobs", "1", "--memory", memory]);
    assert_eq!((bound("1GiB").code, bound("1").code), (Some(0), Some(2)));
    let unknown = lab.chunkwise(&["explain", "sql", "--task", "nothing"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(2), ""));
    unknown.says(&["no task `nothing`"]);
    assert!(!lab.path(".chunkwise").exists() && !lab.cache("").exists());
}

#[test]
fn invalid_sql_stops_what_it_concerns_and_names_its_place() {
    let lab = Lab::new();
    assert_eq!(lab.run(&[]).code, Some(0));
    let tables = lab.tables();
    let clustered = "CREATE TABLE t CLUSTERED BY (customer) INTO 2 BUCKETS\n";
    for (text, place, words) in [
        ("CREATE TABLE t AS\n  SELEC 1;".into(), "2:3", &["SELEC"][..]),
        ("CREATE TABLE t AS SELECT 'open;".into(), "1:26", &[]),
        ("DROP TABLE revenue;".into(), "1:1", &["remove this statement"]),
        ("CREATE TABLE t AS\n  SELECT * FROM ordres;".into(), "2:17", &["unknown table `ordres`", "`orders`"]),
        ("CREATE TABLE t AS\n  SELECT customer,\n    nope FROM orders;".into(), "3:5", &["`t`", "nope"]),
        ("CREATE TABLE t AS\n  SELECT o.nope FROM orders o;".into(), "2:10", &["`t`", "nope"]),
        ("CREATE TABLE t AS SELECT nope(customer) FROM orders;".into(), "1:", &["`t`", "nope"]),
        (
            "CREATE TABLE a AS SELECT * FROM b;\nCREATE TABLE b AS SELECT * FROM a;".into(),
            "2:33",
            &["cycle", "a → b → a"],
        ),
        ("CREATE VIEW t AS SELECT 1;\n CREATE TABLE t AS SELECT 1;".into(), "2:2", &["`t` is defined twice", "1:1"]),
        ("CREATE TABLE revenue AS SELECT 1;".into(), "", &["`revenue` is defined twice"]),
        (
            format!("{clustered}WITH (versoin = 1) AS SELECT customer FROM orders;"),
            "2:7",
            &["unknown option `versoin`", "version"],
        ),
        (
            "CREATE TABLE t CLUSTERED BY (costumer) INTO 2 BUCKETS AS SELECT customer FROM orders;".into(),
            "1:30",
            &["`t`", "the key `costumer`", "customer"],
        ),
        (format!("{}AS SELECT 1;", clustered.replace('2', "0")), "1:", &["0"]),
        ("CREATE TABLE t AS SELECT 1 AS a, 2 AS a;".into(), "1:", &["`t`", "two columns are called `a`"]),
        ("CREATE TABLE t AS SELECT sum(region) AS s FROM customers;".into(), "1:", &["`t`", "sum"]),
    ] {
        lab.write("sql/bad.sql", &text);
        let refused = lab.run(&[]);
        // What can't be read at all stops everything; a query that is wrong stops what reads its task.
        match refused.stderr.contains("failed") {
            true => {
                assert_eq!(refused.code, Some(1), "{text}\n{}", refused.stderr);
                assert_eq!(refused.lines_of(["revenue", "regions", "summary"]), ["reused"; 3], "{text}");
            }
            false => assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{text}\n{}", refused.stderr),
        }
        let file = if place.is_empty() { "sql/" } else { "sql/bad.sql:" };
        refused.says(&[&format!("{file}{place}")]);
        refused.says(words);
        assert_eq!(lab.tables(), tables, "{text}");
        lab.assert_no_unfinished_files();
    }
    fs::write(lab.path("sql/bad.sql"), b"CREATE TABLE t AS\n SELECT '\xff';").unwrap();
    let refused = lab.run(&[]);
    assert_eq!(refused.code, Some(2));
    refused.says(&["sql/bad.sql:2:10: ", "UTF-8"]);
    lab.assert_published();
}

#[test]
fn a_broken_source_fails_its_readers_only() {
    let lab = Lab::new();
    let whole = fs::read(lab.path("data/orders.parquet")).unwrap();
    lab.write("data/short.parquet", "");
    lab.write("data/text.parquet", "no Parquet at all, only text");
    fs::write(lab.path("data/cut.parquet"), &whole[..whole.len() - 40]).unwrap();
    fs::write(lab.path("data/head.parquet"), &whole[..whole.len() / 2]).unwrap();
    for folder in ["conflict", "empty"] {
        fs::create_dir(lab.path("data").join(folder)).unwrap();
    }
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["x", "y"]));
    for (file, column) in [("a", &numbers), ("b", &texts)] {
        let batch = RecordBatch::try_from_iter([("v", Arc::clone(column))]).unwrap();
        write_parquet(&lab.path("data/conflict").join(file).with_extension("parquet"), &batch);
    }
    for (columns, location, words) in [
        ("", "nowhere.parquet", &["nowhere.parquet", "check the path"][..]),
        ("", "no*.parquet", &["no file matches", "no*.parquet"]),
        ("", "empty/", &["empty"]),
        ("", "short.parquet", &["short.parquet"]),
        ("", "text.parquet", &["text.parquet"]),
        ("", "cut.parquet", &["cut.parquet"]),
        ("", "head.parquet", &["head.parquet"]),
        ("", "conflict/*.parquet", &["conflict/b.parquet", "'v' is VARCHAR here, and BIGINT in", "conflict/a.parquet"]),
        ("(id BIGINT, colour VARCHAR)", "orders.parquet", &["column 'colour' is declared", "id, customer, amount"]),
        ("(id BIGINT, amount DATE)", "orders.parquet", &["column 'amount' is declared as DATE", "it is BIGINT there"]),
    ] {
        let _ = fs::remove_dir_all(lab.cache(""));
        lab.write(
            "sql/bad.sql",
            &format!(
                "\n  CREATE EXTERNAL TABLE broken {columns} STORED AS PARQUET LOCATION '../data/{location}';
                 CREATE TABLE bad AS SELECT * FROM broken;
                 CREATE TABLE after_bad AS SELECT count(*) AS n FROM bad;"
            ),
        );
        let failed = lab.run(&["--report", "report.json"]);
        assert_eq!(failed.code, Some(1), "{location}\n{}", failed.stderr);
        failed.says(&["bad ", "failed", "sql/bad.sql:2:3: ", "source `broken`", "after_bad", "skipped"]);
        failed.says(words);
        assert_eq!(failed.lines_of(["regions", "revenue", "summary"]), ["executed", "executed", "executed"]);
        let report: Value = serde_json::from_slice(&fs::read(lab.path("report.json")).unwrap()).unwrap();
        let statuses: BTreeSet<_> = report["tasks"].as_array().unwrap().iter().map(|t| t["status"].as_str()).collect();
        assert_eq!(statuses, BTreeSet::from([Some("executed"), Some("failed"), Some("skipped")]));
        lab.assert_published();
        lab.assert_no_unfinished_files();
    }
}

#[test]
fn tables_of_a_stage_are_withheld_when_one_fails() {
    let lab = Lab::new();
    let stage = |amount: &str| {
        format!(
            "CREATE TABLE one WITH (stage = 'pair') AS SELECT customer FROM orders;
             CREATE TABLE two WITH (stage = 'pair', chunks = 1) AS SELECT CAST({amount} AS INT) AS n FROM orders;
             CREATE TABLE reads_one AS SELECT count(*) AS n FROM one;"
        )
    };
    lab.write("sql/stage.sql", &stage("CAST(customer AS VARCHAR) || 'x'"));
    let failed = lab.run(&["--task", "pair", "--task", "reads_one"]);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    failed.says(&["one ", "withheld", "not published: task `two` of stage `pair` failed", "reads_one", "skipped"]);
    assert!(failed.stdout.contains("0 executed, 0 reused, 1 withheld, 1 failed, 1 skipped"), "{}", failed.stdout);
    assert!(lab.tables().is_empty());
    lab.write("sql/stage.sql", &stage("amount"));
    let mended = lab.run(&["--task", "reads_one"]);
    assert!(mended.stdout.contains("2 executed, 1 reused, 0 failed, 0 skipped"), "{}{}", mended.stdout, mended.stderr);
    assert_eq!(lab.tables().into_keys().collect::<Vec<_>>(), ["one", "reads_one", "two"]);
}

#[test]
fn a_refused_task_is_skipped_over_and_the_others_run() {
    let lab = Lab::new();
    lab.write(
        "sql/refused.sql",
        "CREATE TABLE ranks CLUSTERED BY (customer) INTO 2 BUCKETS AS
           SELECT customer, row_number() OVER (ORDER BY amount) AS n FROM orders;
         CREATE TABLE best AS SELECT * FROM ranks WHERE n = 1;",
    );
    let failed = lab.run(&[]);
    assert_eq!(failed.code, Some(1));
    failed.says(&["ranks", "failed", "sql/refused.sql:2:57: ", "can't be cut", "row_number", "best", "skipped"]);
    assert_eq!(failed.lines_of(["regions", "revenue", "summary"]), ["executed", "executed", "executed"]);
    lab.assert_published();
    lab.assert_no_unfinished_files();
}

#[test]
fn a_chunk_that_fails_is_named_and_what_was_committed_stays() {
    let lab = Lab::new();
    for (expression, words) in [
        ("1000 / (amount - 500)", "Divide by zero"),
        ("CAST(CASE WHEN amount = 500 THEN 'many' ELSE '1' END AS BIGINT)", "many"),
    ] {
        let _ = fs::remove_dir_all(lab.cache(""));
        let task = |where_clause: &str| {
            format!(
                "CREATE TABLE t CLUSTERED BY (id) INTO 16 BUCKETS AS SELECT id, {expression} AS x FROM orders {where_clause};
                 CREATE TABLE after_t AS SELECT count(*) AS n FROM t;"
            )
        };
        lab.write("sql/t.sql", &task("WHERE amount < 500"));
        assert_eq!(lab.run(&[]).code, Some(0));
        let (tables, before) = (lab.tables(), chunk_files(&lab.cache("")));
        lab.write("sql/t.sql", &task(""));
        let failed = lab.run(&["--jobs", "1"]);
        assert_eq!(failed.code, Some(1));
        failed.says(&["task `t`, chunk ", words, "after_t", "skipped"]);
        assert_eq!(failed.lines_of(["regions", "revenue", "summary"]), ["reused", "reused", "reused"]);
        assert_eq!(lab.tables(), tables);
        assert_eq!(lab.count("after_t", "n"), 500);
        lab.assert_no_unfinished_files();
        // Chunks of the failed task that were committed don't run again.
        for _ in 0..3 {
            let committed = chunk_files(&lab.cache("")) - before;
            assert!(committed < 16, "{committed}");
            assert_eq!(lab.run(&["--report", "report.json", "--jobs", "2"]).code, Some(1));
            let report: Value = serde_json::from_slice(&fs::read(lab.path("report.json")).unwrap()).unwrap();
            let t = report["tasks"].as_array().unwrap().iter().find(|task| task["name"] == "t").unwrap();
            assert_eq!((&t["status"], t["reused"].as_u64()), (&json!("failed"), Some(committed as u64)));
        }
        // The fix gives the rows that the whole table has.
        lab.write("sql/t.sql", &task("WHERE amount <> 500"));
        assert_eq!(lab.run(&[]).code, Some(0));
        assert_eq!(lab.count("after_t", "n"), 999);
    }
}

#[test]
fn a_cache_that_cannot_be_used_is_said_before_anything_runs() {
    let lab = Lab::new();
    lab.write("file", "not a folder");
    lab.write("taken/index.sqlite/here", "");
    lab.write("blocked/chunks", "not a folder");
    let locked = lab.path("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    // Root may write there all the same; then another place that nobody can write to takes its part.
    let is_locked = File::create(locked.join("probe")).is_err();
    let unwritable = if is_locked { "locked/cache" } else { "file/deep/cache" };
    for cache in ["file", "file/below", "taken", "blocked", unwritable, "/proc/nowhere"] {
        let failed = lab.chunkwise(&["run", "sql", "--cache", cache]);
        assert_eq!((failed.code, failed.stdout.as_str()), (Some(1), ""), "{cache}");
        let place = if cache == "file" || cache.starts_with('/') { cache } else { cache.split('/').next().unwrap() };
        failed.says(&["error: ", "can't ", place]);
        assert!(!lab.path(cache).join("tables/revenue").exists());
    }
    assert_eq!(fs::read_to_string(lab.path("file")).unwrap(), "not a folder");
    let query = lab.chunkwise(&["query", "SELECT * FROM revenue", "--cache", "file"]);
    assert_eq!(query.code, Some(2));
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_full_disk_fails_cleanly_and_the_next_run_completes() {
    let big = "CREATE TABLE big WITH (compression = 'uncompressed') AS
               SELECT id, id * 7919 AS a, id * 104729 AS b, id * 1299709 AS c FROM wide;";
    let many = "CREATE TABLE big CLUSTERED BY (id) INTO 64 BUCKETS WITH (read_by = 'rescan') AS
                SELECT id, id * 7919 AS a, id * 104729 AS b, id * 1299709 AS c FROM wide;";
    let wide = "CREATE EXTERNAL TABLE wide STORED AS PARQUET LOCATION '../data/wide.parquet';\n";
    // Blocks of 512 bytes: not enough for an index, for one big chunk, for the index of many chunks.
    for (task, rows, blocks, words) in [
        (big, 60_000_i64, 8, &["index"][..]),
        (big, 60_000, 400, &["task `big`, chunk 0: ", "can't be written", "too large"]),
        (many, 1000, 400, &["task `big`, chunk ", "index", "can't be used"]),
    ] {
        let lab = Lab::new();
        let ids: ArrayRef = Arc::new((0..rows).collect::<Int64Array>());
        write_parquet(&lab.path("data/wide.parquet"), &RecordBatch::try_from_iter([("id", ids)]).unwrap());
        fs::remove_file(lab.path("sql/pipeline.sql")).unwrap();
        lab.write("sql/wide.sql", &format!("{wide} CREATE TABLE big AS SELECT 1 AS old;"));
        assert_eq!(lab.run(&[]).code, Some(0));
        let before = lab.tables();
        lab.write("sql/wide.sql", &format!("{wide}{task}"));
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        let mut limited = Command::new("sh");
        limited.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_chunkwise"));
        limited.args(["run", "sql", "--cache", "cache", "--jobs", "1"]).current_dir(lab.folder.path());
        let failed = Done::of(limited.output().unwrap());
        assert_eq!(failed.code, Some(1), "{task}\n{}", failed.stderr);
        failed.says(words);
        assert_eq!(lab.tables(), before, "{task}");
        assert_eq!(lab.query("SELECT * FROM big"), json!([{"old": 1}]));
        lab.assert_no_unfinished_files();
        let report = lab.report(&[]);
        let done = &report["tasks"][0];
        assert_eq!((&done["status"], &done["rows"]), (&json!("executed"), &json!(rows)));
        if blocks == 400 && task == many {
            assert!(done["reused"].as_u64().unwrap() > 0, "committed chunks are kept: {done}");
        }
        let sums = lab.query("SELECT count(DISTINCT id) AS n, sum(a) AS a, sum(b) AS b, sum(c) AS c FROM big");
        let sum = rows * (rows - 1) / 2;
        assert_eq!(sums, json!([{"n": rows, "a": sum * 7919, "b": sum * 104_729, "c": sum * 1_299_709}]));
        lab.assert_no_unfinished_files();
    }
}

#[test]
fn an_interrupted_run_ends_at_once_and_the_next_goes_on() {
    let slow = Slow::start();
    let (status, took) = slow.stop("INT");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(status.code(), Some(130));
    slow.lab.assert_no_unfinished_files();
    slow.goes_on();
}

#[test]
fn a_terminated_run_ends_like_an_interrupted_one() {
    let slow = Slow::start();
    let (status, took) = slow.stop("TERM");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(status.code(), Some(130));
    slow.lab.assert_no_unfinished_files();
    slow.lab.assert_old_version();
}

#[test]
fn what_a_killed_run_left_is_removed_and_what_it_committed_is_reused() {
    let slow = Slow::start();
    let (status, _) = slow.stop("KILL");
    assert_eq!(status.signal(), Some(9));
    assert!(!files_below(&slow.lab.cache("tmp")).is_empty(), "the process had no time to clean up");
    slow.goes_on();
}

#[test]
fn two_processes_share_a_fresh_cache() {
    for _ in 0..4 {
        let lab = Lab::new();
        let start = || {
            let mut command = lab.command(&["run", "sql", "--cache", "cache", "--jobs", "2"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let children = [start(), start()];
        for child in children {
            let done = Done::of(child.wait_with_output().unwrap());
            assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{}", done.stdout);
        }
        lab.assert_published();
        lab.assert_no_unfinished_files();
        assert_eq!(lab.run(&[]).lines_of(["regions", "revenue", "summary"]), ["reused", "reused", "reused"]);
    }
}

/// A folder with `data/`, `sql/pipeline.sql` and, after a run, `cache/`.
struct Lab {
    folder: TempDir,
}

impl Lab {
    /// 1000 orders of 50 customers in 3 regions.
    fn new() -> Self {
        let lab = Self { folder: TempDir::new().unwrap() };
        fs::create_dir(lab.path("data")).unwrap();
        let ints = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
        let orders = [
            ("id", ints((0..1000).collect())),
            ("customer", ints((0..1000).map(customer).collect())),
            ("amount", ints((0..1000).collect())),
        ];
        write_parquet(&lab.path("data/orders.parquet"), &RecordBatch::try_from_iter(orders).unwrap());
        let regions: ArrayRef = Arc::new((0..50).map(|id| Some(region(id))).collect::<StringArray>());
        let customers = [("id", ints((0..50).collect())), ("region", regions)];
        write_parquet(&lab.path("data/customers.parquet"), &RecordBatch::try_from_iter(customers).unwrap());
        lab.write("sql/pipeline.sql", &[ORDERS, CUSTOMERS, SUMMARY, REGIONS, REVENUE].concat());
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn cache(&self, name: &str) -> PathBuf {
        self.path("cache").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chunkwise"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn chunkwise(&self, arguments: &[&str]) -> Done {
        Done::of(self.command(arguments).output().unwrap())
    }

    /// `chunkwise run sql --cache cache` with more arguments.
    fn run(&self, arguments: &[&str]) -> Done {
        self.chunkwise(&[&["run", "sql", "--cache", "cache"], arguments].concat())
    }

    /// The report of a run that must succeed.
    fn report(&self, arguments: &[&str]) -> Value {
        let done = self.run(&[&["--report", "report.json"], arguments].concat());
        assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
        serde_json::from_slice(&fs::read(self.path("report.json")).unwrap()).unwrap()
    }

    fn query(&self, sql: &str) -> Value {
        let done = self.chunkwise(&["query", sql, "--cache", "cache", "--format", "json"]);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{sql}");
        serde_json::from_str(&done.stdout).unwrap()
    }

    fn count(&self, table: &str, column: &str) -> i64 {
        self.query(&format!("SELECT {column} FROM {table}"))[0][column].as_i64().unwrap()
    }

    /// The published tables, each with the version that it is at.
    fn tables(&self) -> BTreeMap<String, PathBuf> {
        let links = fs::read_dir(self.cache("tables")).unwrap().map(|entry| entry.unwrap());
        links.map(|l| (l.file_name().into_string().unwrap(), fs::read_link(l.path()).unwrap())).collect()
    }

    /// The pipeline's tables have the right rows.
    fn assert_published(&self) {
        let mut totals = BTreeMap::new();
        for order in 0..1000 {
            *totals.entry(customer(order)).or_insert(0) += order;
        }
        let revenue: Vec<_> =
            totals.iter().map(|(id, total)| json!({"customer": id, "region": region(*id), "total": total})).collect();
        assert_eq!(self.query("SELECT * FROM revenue ORDER BY customer"), json!(revenue));
        let regions: Vec<_> = expected_regions()
            .iter()
            .map(|(region, (customers, total))| json!({"region": region, "customers": customers, "total": total}))
            .collect();
        assert_eq!(self.query("SELECT * FROM regions ORDER BY region"), json!(regions));
        assert_eq!(self.query("SELECT * FROM summary"), json!([{"regions": 3, "total": 499_500}]));
    }

    fn assert_no_unfinished_files(&self) {
        let folder = self.cache("tmp");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "{:?}", files_below(&folder));
    }

    /// `pairs` is as it was before its long run.
    fn assert_old_version(&self) {
        assert_eq!(self.query("SELECT * FROM pairs"), json!([{"old": true}]));
    }
}

/// A run of one task with 32 chunks, one at a time, of which at least two are committed.
struct Slow {
    lab: Lab,
    child: std::cell::RefCell<Child>,
}

impl Slow {
    const KEYS: i64 = 320;
    const ROWS: i64 = 32_000;

    fn start() -> Self {
        let lab = Lab::new();
        let column =
            |value: fn(i64) -> i64| -> ArrayRef { Arc::new((0..Self::ROWS).map(value).collect::<Int64Array>()) };
        let rows = [("k", column(|row| row % Self::KEYS)), ("v", column(|row| row))];
        write_parquet(&lab.path("data/rows.parquet"), &RecordBatch::try_from_iter(rows).unwrap());
        fs::remove_file(lab.path("sql/pipeline.sql")).unwrap();
        lab.write("sql/pairs.sql", "CREATE TABLE pairs AS SELECT true AS old;");
        assert_eq!(lab.run(&[]).code, Some(0));
        lab.write(
            "sql/pairs.sql",
            "CREATE EXTERNAL TABLE rows STORED AS PARQUET LOCATION '../data/rows.parquet';
             CREATE TABLE pairs CLUSTERED BY (k) INTO 32 BUCKETS WITH (read_by = 'rescan') AS
             SELECT a.k, count(*) AS pairs, sum(a.v + b.v) AS total FROM rows a JOIN rows b ON a.k = b.k GROUP BY a.k;",
        );
        let mut command = lab.command(&["run", "sql", "--cache", "cache", "--jobs", "1"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let patience = Instant::now() + Duration::from_secs(60);
        // One more than those two is the earlier version's.
        while chunk_files(&lab.cache("")) < 3 {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it could be stopped");
            assert!(Instant::now() < patience);
            std::thread::sleep(Duration::from_millis(2));
        }
        Self { lab, child: child.into() }
    }

    /// Sends a signal; returns how the process ended, and how soon.
    fn stop(&self, signal: &str) -> (ExitStatus, Duration) {
        let mut child = self.child.borrow_mut();
        self.lab.assert_old_version();
        let sent = Instant::now();
        let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(sent.elapsed() < Duration::from_secs(30), "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        };
        let took = sent.elapsed();
        let mut stderr = String::new();
        std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        if status.code().is_some() {
            assert!(stderr.contains("interrupted"), "{stderr}");
        }
        (status, took)
    }

    /// The old version is still published; the next run reuses what was committed, cleans up and gives the right rows.
    fn goes_on(&self) {
        let lab = &self.lab;
        lab.assert_old_version();
        // The last file's index row comes after the file, and may be missing.
        let committed = chunk_files(&lab.cache("")) as u64 - 2;
        assert!((1..31).contains(&committed), "{committed}");
        let report = lab.report(&[]);
        let task = &report["tasks"][0];
        assert!(task["reused"].as_u64().unwrap() >= committed, "committed {committed}: {task}");
        assert!(task["executed"].as_u64().unwrap() > 0, "{task}");
        lab.assert_no_unfinished_files();
        let each = Self::ROWS / Self::KEYS;
        let expected: Vec<_> = (0..Self::KEYS)
            .map(|k| {
                let sum: i64 = (0..each).map(|i| k + i * Self::KEYS).sum();
                json!({"k": k, "pairs": each * each, "total": 2 * each * sum})
            })
            .collect();
        assert_eq!(lab.query("SELECT * FROM pairs ORDER BY k"), json!(expected));
    }
}

/// What a process that ended by itself printed.
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Done {
    fn of(output: std::process::Output) -> Self {
        let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(!stderr.contains("panicked"), "{stderr}");
        Self { code: output.status.code(), stdout, stderr }
    }

    /// stderr has all of `words`.
    fn says(&self, words: &[&str]) {
        for word in words {
            assert!(self.stderr.contains(word), "{word}\n{}", self.stderr);
        }
    }

    /// What the line of each task says became of it.
    fn lines_of<const N: usize>(&self, tasks: [&str; N]) -> [&str; N] {
        tasks.map(|task| {
            let mut words = self.stdout.lines().map(str::split_whitespace);
            words.find_map(|mut line| if line.next() == Some(task) { line.next() } else { None }).unwrap_or("")
        })
    }
}

fn customer(order: i64) -> i64 {
    order % 50
}

fn region(customer: i64) -> &'static str {
    ["east", "north", "south"][customer as usize % 3]
}

/// Customers and revenue of each region.
fn expected_regions() -> BTreeMap<&'static str, (i64, i64)> {
    let mut regions = BTreeMap::new();
    for id in 0..50 {
        regions.entry(region(id)).or_insert((0, 0)).0 += 1;
    }
    for order in 0..1000 {
        regions.entry(region(customer(order))).or_insert((0, 0)).1 += order;
    }
    regions
}

fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// How many files `chunks/` has.
fn chunk_files(cache: &Path) -> usize {
    files_below(&cache.join("chunks")).len()
}

/// Files at any depth, symbolic links to folders followed.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}
