//! Whatever takes rows by their order gives the same rows whole and cut, and again, whatever was cached before.

use arrow::util::display::{ArrayFormatter, FormatOptions};
use chunkwise::{Engine, Status};
use tempfile::TempDir;

use crate::support::{engine, make_parquet, run, try_run};

/// `u` in two files: k 1 to 8, g a, b, c, d, a, b, c, d, v 3, 1, 4, 1, 5, 9, 2, 6.
async fn lab() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("u")).unwrap();
    for (file, from, to) in [("1", 1, 4), ("2", 5, 8)] {
        let query = format!(
            "SELECT value AS k, substr('dabc', CAST(value % 4 + 1 AS BIGINT), 1) AS g,
             CAST(substr('31415926', value, 1) AS INT) AS v FROM generate_series({from}, {to})"
        );
        make_parquet(&folder.path().join("u"), file, &query).await;
    }
    folder
}

const SOURCE: &str = "CREATE EXTERNAL TABLE u STORED AS PARQUET LOCATION 'u/*.parquet';";

/// The rows of a published table as text, sorted.
async fn rows(engine: &Engine, table: &str) -> String {
    let batches = engine.query(&format!("SELECT * FROM {table}")).await.unwrap().collect().await.unwrap();
    let options = FormatOptions::default().with_null("NULL");
    let mut rows: Vec<String> = Vec::new();
    for batch in &batches {
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        rows.extend(
            (0..batch.num_rows())
                .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join(" ")),
        );
    }
    rows.sort();
    rows.join("; ")
}

/// A query, its rows, a key by which it is cut, and one by which it is refused.
type Case = (&'static str, &'static str, &'static str, &'static str);

const CASES: &[Case] = &[
    // In the order of an ORDER BY in a subquery.
    ("SELECT array_agg(k) AS x FROM (SELECT k, v FROM u ORDER BY v DESC, k)", "[6, 8, 5, 3, 1, 7, 2, 4]", "", "k"),
    (
        "SELECT g, array_agg(k) AS x FROM (SELECT k, v, g FROM u ORDER BY v DESC) GROUP BY g",
        "a [5, 1]; b [6, 2]; c [3, 7]; d [8, 4]",
        "g",
        "k",
    ),
    (
        "SELECT g, first_value(k) AS f, last_value(k) AS l, nth_value(k, 2) AS n, string_agg(CAST(k AS VARCHAR), '-') AS s
         FROM (SELECT k + 1 AS k, g FROM (SELECT * FROM u ORDER BY v DESC) AS q WHERE k < 8) AS r GROUP BY g",
        "a 6 2 2 6-2; b 7 3 3 7-3; c 4 8 8 4-8; d 5 5 NULL 5",
        "g",
        "k",
    ),
    ("SELECT k FROM (SELECT k, v FROM u ORDER BY v DESC, k) WHERE k <> 6 LIMIT 3", "3; 5; 8", "k", ""),
    ("SELECT k FROM (SELECT * FROM (SELECT k, v FROM u ORDER BY v, k) LIMIT 3) LIMIT 1 OFFSET 2", "7", "k", ""),
    (
        "SELECT k, row_number() OVER () AS n FROM (SELECT k FROM u ORDER BY v, k)",
        "1 4; 2 1; 3 5; 4 2; 5 6; 6 8; 7 3; 8 7",
        "",
        "k",
    ),
    (
        "SELECT g, k, lag(k) OVER (PARTITION BY g) AS before FROM (SELECT * FROM u ORDER BY v)",
        "a 1 NULL; a 5 1; b 2 NULL; b 6 2; c 3 7; c 7 NULL; d 4 NULL; d 8 4",
        "g",
        "k",
    ),
    ("SELECT DISTINCT ON (g) g, k FROM (SELECT * FROM u ORDER BY v DESC)", "a 5; b 6; c 3; d 8", "g", "k"),
    // DISTINCT ON gives its rows in the order of its own.
    ("SELECT DISTINCT ON (g) g, k FROM u ORDER BY g DESC, v DESC LIMIT 2", "c 3; d 8", "g", "k"),
    ("SELECT DISTINCT ON (g) k FROM u ORDER BY g DESC, v DESC LIMIT 1 OFFSET 1", "3", "g", "k"),
    (
        "SELECT x, row_number() OVER () AS n FROM (SELECT DISTINCT ON (g) k AS x FROM u ORDER BY g DESC, v DESC)",
        "3 2; 5 4; 6 3; 8 1",
        "",
        "k",
    ),
    (
        "SELECT array_agg(k) AS x FROM (SELECT DISTINCT ON (g) g, k FROM u ORDER BY g DESC, v DESC)",
        "[8, 3, 6, 5]",
        "",
        "k",
    ),
    ("SELECT k FROM (SELECT DISTINCT ON (g) * FROM u ORDER BY g DESC, v) WHERE v < 3 LIMIT 2", "4; 7", "g", "k"),
    // A window without partitions gives its rows in its order.
    ("SELECT k FROM (SELECT k, rank() OVER (ORDER BY v DESC, k) AS r FROM u) LIMIT 2", "6; 8", "k", ""),
    // In the order of the source's files and rows.
    ("SELECT g, array_agg(k) AS x FROM u GROUP BY g", "a [1, 5]; b [2, 6]; c [3, 7]; d [4, 8]", "g", "k"),
    ("SELECT first_value(v) FILTER (WHERE k > 2) AS x, nth_value(v, 2) AS y, any_value(v) AS z FROM u", "4 1 3", "", "k"),
    ("SELECT g, array_agg(DISTINCT v + k) AS x FROM u GROUP BY g", "a [4, 10]; b [3, 15]; c [7, 9]; d [5, 14]", "g", "k"),
    ("SELECT k, row_number() OVER () AS n FROM u WHERE k > 6", "7 1; 8 2", "", "k"),
    // Rows that tie, by their values.
    ("SELECT k FROM u ORDER BY g LIMIT 3", "1; 2; 5", "k", ""),
    ("SELECT k, v FROM u ORDER BY g DESC LIMIT 1", "4 1", "k", ""),
    ("SELECT v FROM u ORDER BY g, k % 2 OFFSET 6", "1; 6", "k", ""),
    ("SELECT array_agg(k ORDER BY k % 2) AS x FROM u", "[2, 4, 6, 8, 1, 3, 5, 7]", "", "k"),
    ("SELECT k % 2 AS o, last_value(k ORDER BY g) AS x FROM u GROUP BY k % 2", "0 8; 1 7", "k", "v"),
    // Rows without an order, by their values.
    ("SELECT array_agg(b.k) AS x FROM u a JOIN u b ON a.k = b.v", "[1, 2, 3, 4, 5, 7, 8]", "k", ""),
    (
        "SELECT a.g, string_agg(CAST(b.k AS VARCHAR), ',') AS x FROM u a JOIN u b ON a.k = b.v GROUP BY a.g",
        "a 2,4,5; b 7,8; c 1; d 3",
        "g",
        "",
    ),
    ("SELECT k FROM (SELECT k FROM u UNION ALL SELECT v FROM u) LIMIT 3", "1; 1; 1", "k", ""),
    (
        "SELECT first_value(k) AS a, last_value(v) AS b, any_value(g) AS c, nth_value(k, -1) AS d
         FROM (SELECT k, v, g FROM u UNION ALL SELECT v, k, g FROM u)",
        "1 9 a 9",
        "",
        "k",
    ),
    ("SELECT g, n FROM (SELECT g, count(*) AS n FROM u WHERE k > 3 GROUP BY g) LIMIT 2", "a 1; b 1", "g", ""),
    ("SELECT array_agg(l) AS x FROM (SELECT make_array(g) AS l FROM u GROUP BY g)", "[[b], [d], [c], [a]]", "g", ""),
    (
        "SELECT string_agg(DISTINCT a.g, '') AS x, array_agg(DISTINCT b.g) AS y FROM u a JOIN u b ON a.k = b.v",
        "abcd [a, b, c, d]",
        "k",
        "",
    ),
    // No order is needed.
    ("SELECT sum(k ORDER BY v) AS x, count(*) AS n, max(v ORDER BY k) AS m FROM u", "36 8 9", "k", ""),
    ("SELECT percentile_cont(v, 0.25) AS x, percentile_cont(0.25) WITHIN GROUP (ORDER BY v DESC) AS y FROM u", "1.75 5.25", "k", ""),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_rows_by_their_order_has_the_same_rows_whole_and_cut() {
    let folder = lab().await;
    let engine = engine(&folder.path().join("cache"));
    let mut sql = SOURCE.to_string();
    for (at, (query, _, key, refused)) in CASES.iter().enumerate() {
        sql += &format!("CREATE TABLE whole{at} WITH (chunks = 1) AS {query};");
        sql += &format!("CREATE TABLE auto{at} WITH (chunk_by = 'auto', chunks = 3) AS {query};");
        if !key.is_empty() {
            sql += &format!("CREATE TABLE two{at} CLUSTERED BY ({key}) INTO 2 BUCKETS AS {query};");
            sql += &format!("CREATE TABLE five{at} CLUSTERED BY ({key}) INTO 5 BUCKETS AS {query};");
        }
        if !refused.is_empty() {
            sql += &format!("CREATE TABLE refused{at} CLUSTERED BY ({refused}) INTO 2 BUCKETS AS {query};");
        }
    }
    let report = try_run(&engine, &sql, folder.path()).await;
    let mut wrong = Vec::new();
    for task in &report.tasks {
        let (way, at) = task.name.split_at(task.name.find(|c: char| c.is_ascii_digit()).unwrap());
        let (query, expected, ..) = CASES[at.parse::<usize>().unwrap()];
        let found = match task.status {
            Status::Executed | Status::Reused => rows(&engine, &task.name).await,
            _ => task.reason.clone(),
        };
        let is_right = if way == "refused" { found.contains("can't be cut at") } else { found == expected };
        if !is_right {
            wrong.push(format!("{way}: {found}\nfor {expected}\n{query}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_comes_between_others_gives_what_a_fresh_cache_gives() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("f");
    std::fs::create_dir(&files).unwrap();
    let file = |name: &'static str| {
        let query = format!("SELECT value % 3 AS g, concat('{name}', value) AS s FROM generate_series(1, 7)");
        let files = files.clone();
        async move { make_parquet(&files, name, &query).await }
    };
    let query = "SELECT g, string_agg(s, ',') AS s FROM f GROUP BY g";
    let sql = format!(
        "CREATE EXTERNAL TABLE f STORED AS PARQUET LOCATION 'f/*.parquet';
         CREATE TABLE split CLUSTERED BY (g) INTO 2 BUCKETS WITH (read_by = 'split') AS {query};
         CREATE TABLE rescan CLUSTERED BY (g) INTO 2 BUCKETS WITH (read_by = 'rescan') AS {query};
         CREATE TABLE whole WITH (chunks = 1) AS {query};"
    );
    let all_alike = async |cache: &str| {
        let engine = engine(&folder.path().join(cache));
        run(&engine, &sql, folder.path()).await;
        let (split, rescan, whole) =
            (rows(&engine, "split").await, rows(&engine, "rescan").await, rows(&engine, "whole").await);
        assert_eq!((&split, &rescan), (&whole, &whole), "{cache}");
        whole
    };
    file("a").await;
    file("c").await;
    all_alike("warm").await;
    // Behind, between, and another order of the same rows.
    file("d").await;
    assert_eq!(all_alike("warm").await, all_alike("fresh1").await);
    file("b").await;
    let found = all_alike("warm").await;
    assert!(found.starts_with("0 a3,a6,b3,b6,c3,c6,d3,d6;"), "{found}");
    assert_eq!(found, all_alike("fresh2").await);
    std::fs::rename(files.join("a.parquet"), files.join("e.parquet")).unwrap();
    let found = all_alike("warm").await;
    assert!(found.starts_with("0 b3,b6,c3,c6,d3,d6,a3,a6;"), "{found}");
    assert_eq!(found, all_alike("fresh3").await);
    let engine = engine(&folder.path().join("warm"));
    let again = run(&engine, &sql, folder.path()).await;
    assert!(again.tasks.iter().all(|task| task.status == Status::Reused), "{again:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_says_what_a_query_leaves_open() {
    let folder = lab().await;
    let by_files = "takes rows in the order of the files of `u`";
    let by_values = "takes rows in the order of their values";
    let cases: [(&str, Vec<String>); 9] = [
        (
            "SELECT g, array_agg(k) AS x, count(*) AS n FROM u GROUP BY g",
            vec![format!("order: column `x`: array_agg() {by_files}")],
        ),
        (
            "SELECT x || '!' AS y FROM (SELECT string_agg(a.g, ',') AS x FROM u a JOIN u b ON a.k = b.v)",
            vec![format!("order: column `y`: string_agg() {by_values}")],
        ),
        ("SELECT array_agg(k) AS x FROM (SELECT k FROM u ORDER BY v)", vec![]),
        ("SELECT array_agg(k ORDER BY v) AS x, sum(v) AS s FROM u", vec![]),
        ("SELECT k FROM u LIMIT 3", vec!["rows: LIMIT 3 takes the first rows of the files of `u`".into()]),
        ("SELECT g FROM u GROUP BY g LIMIT 3", vec!["rows: LIMIT 3 takes the rows of the least values".into()]),
        ("SELECT k FROM u ORDER BY v LIMIT 3", vec![]),
        (
            "SELECT k, row_number() OVER (ORDER BY v) AS n FROM u",
            vec!["order: column `n`: row_number() takes rows that tie in its ORDER BY as they come".into()],
        ),
        (
            "SELECT approx_median(v) AS m FROM u",
            vec!["order: column `m`: approx_median() depends on how rows are batched".into()],
        ),
    ];
    for (query, expected) in cases {
        let engine = engine(&folder.path().join("cache"));
        let sql = format!("{SOURCE} CREATE TABLE t AS {query}");
        let pipeline = chunkwise::sql::parse(&sql, "t.sql", folder.path()).unwrap();
        let text = engine.explain(&pipeline, None).await.unwrap().remove(0).unwrap();
        let open: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  any ")).collect();
        assert_eq!(open.len(), expected.len(), "{query}\n{text}");
        assert!(open.iter().zip(&expected).all(|(line, words)| line.starts_with(words)), "{query}\n{text}");
    }
}
