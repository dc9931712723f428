//! Arithmetic that fails where its result does not fit, whole and cut. Right values are those of PostgreSQL and DuckDB.

use chunkwise::sql;

use crate::support::{Case, make_parquet, wrong_cases};

/// Numbers at the ends of their types: `k` tells rows apart, `g` groups them, and `o` is the same for all.
const NUMBERS: &str = "SELECT k, g, 0 AS o, b, arrow_cast(i, 'Int32') AS i, arrow_cast(s, 'Int8') AS s, arrow_cast(u, 'UInt64') AS u,
        arrow_cast(e, 'Decimal128(38, 0)') AS e, arrow_cast(e, 'Decimal256(76, 0)') AS w, x
    FROM (VALUES
        (1, 1, 9223372036854775807, 2147483647, 127, 18446744073709551615, '99999999999999999999999999999999999999', 1e300),
        (2, 1, 1, 1, 1, 1, '1', 1.5),
        (3, 2, -5, -5, -5, 0, '-5', -2.5),
        (4, 2, -9223372036854775807 - 1, -2147483648, -128, 0, '-99999999999999999999999999999999999999', -1e300),
        (5, 3, NULL, NULL, NULL, NULL, NULL, NULL),
        (6, 3, 2, 2, 2, 2, '2', 0.0)) AS n(k, g, b, i, s, u, e, x)";

const OVERFLOW: &str = "Arithmetic overflow";

async fn check(cases: &[Case<'_>]) {
    check_with(cases, &[""]).await;
}

async fn check_with(cases: &[Case<'_>], options: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    make_parquet(folder.path(), "n", NUMBERS).await;
    make_parquet(folder.path(), "far", FAR).await;
    let sources = "CREATE EXTERNAL TABLE n STORED AS PARQUET LOCATION 'n.parquet';
        CREATE EXTERNAL TABLE far STORED AS PARQUET LOCATION 'far.parquet';";
    let wrong = wrong_cases(folder.path(), sources, cases, options).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_fail_where_a_result_does_not_fit() {
    check(&[
        ("k", "SELECT k, b + 1 AS v FROM n", Err("`b + 1`: 9223372036854775807 + 1 does not fit BIGINT")),
        ("k", "SELECT k, b + 1 AS v FROM n WHERE k > 2", Ok(&["3 -4", "4 -9223372036854775807", "5 -", "6 3"])),
        ("k", "SELECT k, 1 + b AS v FROM n", Err(OVERFLOW)),
        ("k", "SELECT k, b - 1 AS v FROM n", Err(OVERFLOW)),
        ("k", "SELECT k, 0 - b AS v FROM n", Err(OVERFLOW)),
        ("k", "SELECT k, -b AS v FROM n", Err("`-(b)`: -(-9223372036854775808) does not fit BIGINT")),
        ("k", "SELECT k, -b AS v FROM n WHERE k <> 4", Ok(&["1 -9223372036854775807", "2 -1", "3 5", "5 -", "6 -2"])),
        ("k", "SELECT k, b * 2 AS v FROM n", Err(OVERFLOW)),
        ("k", "SELECT k, b * b AS v FROM n WHERE k IN (2, 3, 5)", Ok(&["2 1", "3 25", "5 -"])),
        ("k", "SELECT k, b * -1 AS v FROM n", Err(OVERFLOW)),
        ("k", "SELECT k, b / -1 AS v FROM n", Err(OVERFLOW)),
        ("k", "SELECT k, b % -1 AS v FROM n WHERE k < 5", Ok(&["1 0", "2 0", "3 0", "4 0"])),
        ("k", "SELECT k, abs(b) AS v FROM n", Err("overflow")),
        ("k", "SELECT k, i + i AS v FROM n", Err("does not fit INT")),
        ("k", "SELECT k, i + 1 AS v FROM n WHERE k = 1", Ok(&["1 2147483648"])),
        ("k", "SELECT k, s * s AS v FROM n", Err("does not fit TINYINT; CAST one side to BIGINT")),
        ("k", "SELECT k, s - s AS v FROM n WHERE k IN (1, 4)", Ok(&["1 0", "4 0"])),
        ("k", "SELECT k, u + u AS v FROM n", Err("does not fit BIGINT UNSIGNED")),
        ("k", "SELECT k, u - arrow_cast(1, 'UInt64') AS v FROM n", Err("0 - 1 does not fit BIGINT UNSIGNED")),
        ("k", "SELECT k, u * u AS v FROM n WHERE k IN (2, 3, 6)", Ok(&["2 1", "3 0", "6 4"])),
        // DataFusion puts BIGINT and BIGINT UNSIGNED together as decimals.
        ("k", "SELECT k, u + b AS v FROM n WHERE k = 1", Ok(&["1 27670116110564327422"])),
        (
            "k",
            "SELECT k, e + 1 AS v FROM n",
            Err("100000000000000000000000000000000000000 does not fit DECIMAL(38, 0)"),
        ),
        ("k", "SELECT k, e + 1 AS v FROM n WHERE k IN (2, 5)", Ok(&["2 2", "5 -"])),
        ("k", "SELECT k, e - 1 AS v FROM n", Err(OVERFLOW)),
        ("k", "SELECT k, e * 2 AS v FROM n", Err("does not fit DECIMAL(38, 0)")),
        ("k", "SELECT k, e * e AS v FROM n WHERE k IN (3, 5)", Ok(&["3 25", "5 -"])),
        ("k", "SELECT k, e / CAST(0.001 AS DECIMAL(4, 3)) AS v FROM n", Err(OVERFLOW)),
        ("k", "SELECT k, e - e AS v FROM n WHERE k IN (1, 4)", Ok(&["1 0", "4 0"])),
        ("k", "SELECT k, -e AS v FROM n WHERE k = 4", Ok(&["4 99999999999999999999999999999999999999"])),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_never_evaluated_does_not_fail() {
    check(&[
        (
            "k",
            "SELECT k, CASE WHEN b BETWEEN -9 AND 9 THEN b * b END AS v FROM n WHERE k < 4",
            Ok(&["1 -", "2 1", "3 25"]),
        ),
        ("k", "SELECT k, CASE WHEN k < 0 THEN 9223372036854775807 + 1 END AS v FROM n WHERE k = 2", Ok(&["2 -"])),
        ("k", "SELECT k, coalesce(k, 9223372036854775807 + 1) AS v FROM n WHERE k = 2", Ok(&["2 2"])),
        ("k", "SELECT k, 9223372036854775807 + 1 AS v FROM n", Err("9223372036854775807 + 1 does not fit BIGINT")),
        // Nor do casts of constants.
        ("k", "SELECT k, CASE WHEN k = 9 THEN CAST('x' AS INT) ELSE 1 END AS v FROM n WHERE k = 2", Ok(&["2 1"])),
        ("k", "SELECT k, CASE WHEN k < 9 THEN 1 ELSE CAST(300 AS TINYINT) END AS v FROM n WHERE k = 2", Ok(&["2 1"])),
        ("k", "SELECT k, CASE WHEN k = 9 THEN CAST(300 + k - k AS TINYINT) END AS v FROM n WHERE k = 2", Ok(&["2 -"])),
        ("k", "SELECT k, CASE WHEN k = 9 THEN CAST(299 + 1 AS TINYINT) END AS v FROM n WHERE k = 2", Ok(&["2 -"])),
        ("k", "SELECT k, CASE WHEN k = 9 THEN arrow_cast('x', 'Int8') END AS v FROM n WHERE k = 2", Ok(&["2 -"])),
        ("k", "SELECT k, CASE WHEN k = 9 THEN CAST('x' AS DATE) END AS v FROM n WHERE k = 2", Ok(&["2 -"])),
        ("k", "SELECT k, CASE WHEN k = 9 THEN TIMESTAMP 'x' END AS v FROM n WHERE k = 2", Ok(&["2 -"])),
        ("k", "SELECT k, CASE WHEN k = 9 THEN CAST(12345 AS DECIMAL(3, 0)) END AS v FROM n WHERE k = 2", Ok(&["2 -"])),
        ("k", "SELECT k, coalesce(k, CAST('x' AS BIGINT)) AS v FROM n WHERE k = 2", Ok(&["2 2"])),
        ("k", "SELECT k FROM n WHERE k < 0 AND CAST('x' AS INT) = 1", Ok(&[])),
        ("k", "SELECT k FROM n WHERE CAST('x' AS INT) = 1 AND false", Ok(&[])),
        ("k", "SELECT k FROM n WHERE k = 2 OR k > 9 AND b = CAST('x' AS INT)", Ok(&["2"])),
        ("k", "SELECT k, CASE WHEN k = 2 THEN CAST('x' AS INT) END AS v FROM n", Err("Cannot cast string 'x'")),
        ("k", "SELECT k FROM n WHERE k = 2 AND CAST('x' AS INT) = 1", Err("Cannot cast string 'x'")),
        ("k", "SELECT k, coalesce(b, CAST('x' AS BIGINT)) AS v FROM n", Err("Cannot cast string 'x'")),
        ("k", "SELECT k, CAST(1 + 1 AS TINYINT) AS v, CAST('7' AS INT) AS w FROM n WHERE k = 2", Ok(&["2 2 7"])),
        ("k", "SELECT k, DATE '2024-01-01' + 7 * 2 AS v FROM n WHERE k = 2", Ok(&["2 2024-01-15"])),
        ("k", "SELECT k, CASE WHEN true THEN 9223372036854775807 END + 1 AS v FROM n", Err(OVERFLOW)),
        ("k", "SELECT q.k, q.a + 1 AS v FROM (SELECT k, 9223372036854775807 AS a FROM n) q", Err(OVERFLOW)),
        // A later part of an AND or OR counts only where the others leave it open.
        ("k", "SELECT k FROM n WHERE b > -9 AND b < 9 AND b * b < 5", Ok(&["2", "6"])),
        ("k", "SELECT k FROM n WHERE b * b < 5 AND b > -9 AND b < 9", Ok(&["2", "6"])),
        ("k", "SELECT k FROM (SELECT * FROM n WHERE b > -9 AND b < 9) q WHERE b * b < 5", Ok(&["2", "6"])),
        ("k", "SELECT k FROM n WHERE b > 9 OR b < -9 OR b * b < 5", Ok(&["1", "2", "4", "6"])),
        ("k", "SELECT k FROM n WHERE NOT (b > 9 OR b < -9 OR b * b < 5)", Ok(&["3"])),
        (
            "k",
            "SELECT k, b > 9 OR b < -9 OR b * b < 5 AS v FROM n",
            Ok(&["1 true", "2 true", "3 false", "4 true", "5 -", "6 true"]),
        ),
        (
            "k",
            "SELECT k, b < 9 AND b > -9 AND b * b < 5 AS v FROM n",
            Ok(&["1 false", "2 true", "3 false", "4 false", "5 -", "6 true"]),
        ),
        ("k", "SELECT k FROM n WHERE u <> 0 AND b / CAST(u AS BIGINT) > 0 AND k <> 1", Ok(&["2", "6"])),
        (
            "k",
            "SELECT k, count(*) FILTER (WHERE b > -9 AND b < 9 AND b * b < 5) AS v FROM n GROUP BY k",
            Ok(&["1 0", "2 1", "3 0", "4 0", "5 0", "6 1"]),
        ),
        (
            "k",
            "SELECT l.k, r.k AS o FROM n l JOIN n r ON l.k = r.k AND l.b < 9 AND l.b > -9 AND l.b * r.b = 4",
            Ok(&["6 6"]),
        ),
        ("k", "SELECT k FROM n WHERE b * b < 5", Err(OVERFLOW)),
        // In whatever order they stand: each of these fails for a row that the other one decides.
        ("k", "SELECT k FROM n WHERE b * 3 < 9 AND 2 / (k - 4) >= -2 AND k NOT IN (1, 4)", Ok(&["2", "3", "6"])),
        ("k", "SELECT k FROM n WHERE 2 / (k - 3) >= -2 AND b * b < 9 AND k <> 1 AND k <> 4", Ok(&["2", "6"])),
        ("k", "SELECT k FROM n WHERE b * b < 9 AND 2 / (k - 3) >= -2 AND k <> 1 AND k <> 4", Ok(&["2", "6"])),
        (
            "k",
            "SELECT k, 2 / (k - 3) >= -2 AND b * b < 9 AS v, 2 / (k - 3) < -2 OR b * b >= 9 AS w FROM n WHERE k IN (2, 3, 5, 6)",
            Ok(&["2 true false", "3 false true", "5 - -", "6 true false"]),
        ),
        ("k", "SELECT k FROM n WHERE 2 / (k - 3) >= -2 AND b * b < 99 AND k <> 1 AND k <> 4", Err("Divide by zero")),
        // Nested, and with what is computed before.
        (
            "k",
            "SELECT k, NOT ((b * b < 5 OR b < -9 OR b > 9) AND (k > 3 OR k = 1 OR k + b < 5)) AS v FROM n",
            Ok(&["1 false", "2 false", "3 true", "4 false", "5 -", "6 false"]),
        ),
        (
            "k",
            "SELECT k FROM n WHERE b * b < (SELECT max(k) FROM n) AND b > -9 AND b < 9",
            Ok(&["2", "6"]),
        ),
        (
            "k",
            "SELECT l.k, r.k AS o FROM n l LEFT JOIN n r ON l.k = r.k AND l.b * r.b = 4 AND l.b < 9 AND l.b > -9",
            Ok(&["1 -", "2 -", "3 -", "4 -", "5 -", "6 6"]),
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_chain_of_operators_is_checked_like_a_short_one() {
    let sum = |terms: usize| ["b"].into_iter().chain(["1"; 99]).cycle().take(terms).collect::<Vec<_>>().join(" + ");
    let ones = |terms: usize| vec!["1"; terms].join(" + ");
    check(&[
        ("k", &format!("SELECT k, {} AS v FROM n WHERE k IN (2, 3, 5)", sum(100)), Ok(&["2 100", "3 94", "5 -"])),
        ("k", &format!("SELECT k, {} AS v FROM n", sum(100)), Err("does not fit BIGINT; CAST one side")),
        ("k", &format!("SELECT k FROM n WHERE {} < 101 AND k > 1", sum(100)), Ok(&["2", "3", "4"])),
        ("k", &format!("SELECT k, {} AS v FROM n WHERE k = 6", ones(200)), Ok(&["6 200"])),
        ("k", &format!("SELECT k, {} + 9223372036854775807 AS v FROM n", ones(100)), Err(OVERFLOW)),
        (
            "k",
            &format!(
                "SELECT k, CASE WHEN k < 0 THEN {} + 9223372036854775807 ELSE {} END AS v FROM n WHERE k = 2",
                ones(100),
                ones(9)
            ),
            Ok(&["2 9"]),
        ),
        ("k", &format!("SELECT k, sum({}) AS v FROM n WHERE k IN (2, 3) GROUP BY k", sum(100)), Ok(&["2 100", "3 94"])),
        ("k", &format!("SELECT k, x + {} AS v FROM n WHERE k = 2", sum(100)), Ok(&["2 101.5"])),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_names_the_statement_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    make_parquet(folder.path(), "n", NUMBERS).await;
    let engine = crate::support::engine(&folder.path().join("cache"));
    for (query, place, words) in [
        ("SELECT k / (k - k) AS v FROM n", "2:1", "nullif(x, 0)"),
        ("SELECT 1 / 0 AS v", "2:1", "nullif(x, 0)"),
        ("SELECT b + 1 AS v FROM n", "2:1", "CAST one side to DECIMAL(38, 0)"),
        ("SELECT CAST(b AS INT) AS v FROM n", "2:1", "TRY_CAST"),
        ("SELECT (SELECT k FROM n) AS v", "2:1", "LIMIT 1"),
        // Constants at the cast, also where DataFusion folds them in vain.
        ("SELECT k,\n CAST(300 AS TINYINT) AS v FROM n", "3:7", "TRY_CAST"),
        ("SELECT k,\n CAST(-300 AS TINYINT) AS v FROM n", "3:8", "TRY_CAST"),
        ("SELECT k FROM n\n WHERE k = CAST('2.5' AS INT)", "3:17", "TRY_CAST"),
        ("SELECT DATE '2024-13-01' AS v", "2:31", "TRY_CAST"),
    ] {
        let text =
            format!("CREATE EXTERNAL TABLE n STORED AS PARQUET LOCATION 'n.parquet';\nCREATE TABLE t AS {query}");
        let pipeline = sql::parse(&text, "t.sql", folder.path()).unwrap();
        let error = match engine.run(&pipeline, &Default::default()).await {
            Ok(report) => report.task("t").unwrap().reason.clone(),
            Err(error) => error.to_string(),
        };
        let said = error.starts_with(&format!("t.sql:{place}: task `t`")) && error.contains(words);
        assert!(said, "{error} for {query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunk_predicates_wrap_around() {
    // The keys of rows that the queries drop overflow, as `b + 1` of the first one does.
    let cases: &[Case<'_>] = &[
        ("b", "SELECT l.k, r.k AS o FROM n l JOIN n r ON l.b + 1 = r.b WHERE l.k <> 1", Ok(&["2 6"])),
        ("b", "SELECT l.k, r.k AS o FROM n l JOIN n r ON l.b + 1 = r.b", Err(OVERFLOW)),
        (
            "v",
            "SELECT b + 1 AS v, count(*) AS n FROM n WHERE k <> 1 GROUP BY b + 1",
            Ok(&["- 1", "-4 1", "-9223372036854775807 1", "2 1", "3 1"]),
        ),
        (
            "v",
            "SELECT b * 3 - 1 AS v, count(*) AS n FROM n WHERE k IN (2, 3) GROUP BY b * 3 - 1",
            Ok(&["-16 1", "2 1"]),
        ),
        ("v", "SELECT b + 1 AS v, count(*) AS n FROM n GROUP BY b + 1", Err(OVERFLOW)),
        // Timestamps that are in no calendar, and what nanoseconds don't reach.
        (
            "v",
            "SELECT date_part('year', arrow_cast(b, 'Timestamp(Second, None)')) AS v, count(*) AS n FROM n WHERE k IN (2, 3) GROUP BY 1",
            Ok(&["1969 1", "1970 1"]),
        ),
        (
            "v",
            "SELECT date_trunc('year', arrow_cast(b, 'Timestamp(Nanosecond, None)')) AS v, count(*) AS n FROM n WHERE k IN (2, 6) GROUP BY 1",
            Ok(&["1970-01-01T00:00:00 2"]),
        ),
        (
            "v",
            "SELECT CAST(arrow_cast(b, 'Timestamp(Second, None)') AS DATE) AS v, count(*) AS n FROM n WHERE k IN (2, 6) GROUP BY 1",
            Ok(&["1970-01-01 2"]),
        ),
        ("b", "SELECT b, count(*) OVER (PARTITION BY b - 3) AS n FROM n WHERE k IN (2, 3)", Ok(&["-5 1", "1 1"])),
        // Rows that are dropped after the input is cut.
        (
            "b",
            "SELECT l.k, r.k AS o FROM (SELECT * FROM n WHERE k IN (SELECT k FROM n WHERE s < 100)) l JOIN n r ON l.b + 1 = r.b",
            Ok(&["2 6"]),
        ),
        (
            "b",
            "SELECT l.k, r.k AS o FROM (SELECT * FROM n WHERE k IN (SELECT k FROM n WHERE k IN (2, 6))) l
                JOIN n r ON date_part('year', arrow_cast(l.b, 'Timestamp(Second, None)')) = date_part('year', arrow_cast(r.b - r.b, 'Timestamp(Second, None)'))
                WHERE r.k = 2",
            Ok(&["2 2", "6 2"]),
        ),
    ];
    check_with(cases, &["", "WITH (read_by = 'split')"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_fail_only_where_the_result_does_not_fit() {
    check(&[
        // Parts of this sum don't fit. In two phases where it is cut by k.
        ("k", "SELECT sum(b) AS v FROM n", Ok(&["-3"])),
        ("k", "SELECT sum(e) AS v FROM n", Ok(&["-2"])),
        ("k", "SELECT CAST(sum(w) AS VARCHAR) AS v FROM n", Ok(&["-2"])),
        (
            "k",
            "SELECT sum(b) AS v FROM n WHERE k < 3",
            Err("a sum does not fit BIGINT; CAST its argument to DECIMAL(38, 0)"),
        ),
        ("k", "SELECT sum(CAST(b AS DECIMAL(38, 0))) AS v FROM n WHERE k < 3", Ok(&["9223372036854775808"])),
        ("k", "SELECT sum(e) AS v FROM n WHERE k < 3", Err("a sum does not fit DECIMAL(38, 0)")),
        (
            "k",
            "SELECT CAST(sum(CAST(e AS DECIMAL(60, 0))) AS VARCHAR) AS v FROM n WHERE k < 3",
            Ok(&["100000000000000000000000000000000000000"]),
        ),
        ("k", "SELECT sum(u) AS v FROM n", Err("a sum does not fit BIGINT UNSIGNED")),
        ("k", "SELECT sum(i) AS v, sum(s) AS w FROM n WHERE k < 3", Ok(&["2147483648 128"])),
        ("k", "SELECT sum(b) AS v FROM n WHERE k > 9", Ok(&["-"])),
        ("k", "SELECT sum(b) AS v, count(*) AS c FROM n WHERE k = 5", Ok(&["- 1"])),
        (
            "k",
            "SELECT g, sum(b) AS v FROM n WHERE k NOT IN (2, 3) GROUP BY g",
            Ok(&["1 9223372036854775807", "2 -9223372036854775808", "3 2"]),
        ),
        ("k", "SELECT g, sum(b) AS v FROM n GROUP BY g", Err(OVERFLOW)),
        ("g", "SELECT g, sum(b) AS v FROM n GROUP BY g", Err(OVERFLOW)),
        ("g", "SELECT g, sum(b) FILTER (WHERE k <> 1 AND k <> 4) AS v FROM n GROUP BY g", Ok(&["1 1", "2 -5", "3 2"])),
        ("k", "SELECT sum(DISTINCT b) AS v, count(DISTINCT k) AS c FROM n", Ok(&["-3 6"])),
        ("k", "SELECT sum(DISTINCT b) AS v, count(DISTINCT k) AS c FROM n WHERE k < 3", Err(OVERFLOW)),
        ("k", "SELECT sum(DISTINCT e) AS v FROM n WHERE k < 3", Err(OVERFLOW)),
        ("g", "SELECT g, sum(DISTINCT b) AS v, count(DISTINCT k) AS c FROM n GROUP BY g", Err(OVERFLOW)),
        // DataFusion would take the constant out of the sum, whose rest does not fit.
        (
            "k",
            "SELECT sum(b - 9223372036854775806) AS v, sum(b - 9223372036854775805) AS w FROM n WHERE k IN (1, 2)",
            Ok(&["-9223372036854775804 -9223372036854775802"]),
        ),
        ("k", "SELECT avg(b) AS v FROM n WHERE k IN (2, 6)", Ok(&["1.5"])),
        ("k", "SELECT avg(e) AS v FROM n WHERE k IN (2, 6)", Ok(&["1.5000"])),
        ("k", "SELECT avg(e) AS v FROM n WHERE k = 1", Err("verflow")),
        ("k", "SELECT CAST(avg(w) AS VARCHAR) AS v FROM n WHERE k IN (1, 4, 6)", Ok(&["0.6666"])),
        ("k", "SELECT CAST(avg(DISTINCT w) AS VARCHAR) AS v, count(*) AS c FROM n WHERE k IN (2, 6)", Ok(&["1.5000 2"])),
        ("k", "SELECT sum(arrow_cast(i, 'Interval(YearMonth)')) = INTERVAL '-3 months' AS v FROM n", Ok(&["true"])),
        ("k", "SELECT sum(arrow_cast(i, 'Interval(YearMonth)')) = INTERVAL '1 month' AS v FROM n WHERE k < 3", Err(OVERFLOW)),
        (
            "k",
            "SELECT sum(DISTINCT arrow_cast(i, 'Interval(YearMonth)')) = INTERVAL '1 month' AS v, count(*) AS c FROM n WHERE k < 3",
            Err(OVERFLOW),
        ),
        ("k", "SELECT CAST(sum(arrow_cast(b, 'Duration(Second)')) AS BIGINT) AS v FROM n", Ok(&["-3"])),
        ("k", "SELECT CAST(sum(arrow_cast(b, 'Duration(Second)')) AS BIGINT) AS v FROM n WHERE k < 3", Err(OVERFLOW)),
        ("k", "SELECT CAST(avg(arrow_cast(b, 'Duration(Second)')) AS BIGINT) AS v FROM n WHERE k < 5", Ok(&["-1"])),
        (
            "k",
            "SELECT g, CAST(avg(arrow_cast(b, 'Duration(Second)')) AS BIGINT) AS v FROM n GROUP BY g",
            Ok(&["1 4611686018427387904", "2 -4611686018427387906", "3 2"]),
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_of_windows_are_those_of_their_frames() {
    let over =
        |frame: &str| format!("SELECT k, sum(b) OVER (PARTITION BY o ORDER BY k {frame}) AS v FROM n WHERE k <> 5");
    let by_g =
        |frame: &str| format!("SELECT g, k, sum(b) OVER (PARTITION BY g ORDER BY k {frame}) AS v FROM n WHERE k <> 5");
    let (two, one) = ("ROWS BETWEEN 1 PRECEDING AND CURRENT ROW", "ROWS BETWEEN CURRENT ROW AND CURRENT ROW");
    let (around, to_end) =
        ("ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING", "ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING");
    let values = ["1 9223372036854775807", "2 1", "3 -5", "4 -9223372036854775808", "6 2"];
    check(&[
        ("o", &over(two), Err(OVERFLOW)),
        ("o", &over(one), Ok(&values)),
        ("o", &over(around), Err(OVERFLOW)),
        ("o", &over("ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"), Err(OVERFLOW)),
        ("o", &over(to_end), Err(OVERFLOW)),
        ("g", &by_g("ROWS BETWEEN 1 FOLLOWING AND 1 FOLLOWING"), Ok(&["1 1 1", "1 2 -", "2 3 -9223372036854775808", "2 4 -", "3 6 -"])),
        ("g", &by_g(two), Err(OVERFLOW)),
        ("o", &over("ROWS BETWEEN 1 PRECEDING AND 3 PRECEDING"), Err("ends before it starts")),
        ("o", &over("ROWS BETWEEN 2 FOLLOWING AND 1 FOLLOWING"), Err("ends before it starts")),
        ("o", "SELECT k, sum(b) OVER (PARTITION BY o) AS v FROM n WHERE k IN (1, 2, 4)", Ok(&["1 0", "2 0", "4 0"])),
        ("o", "SELECT k, sum(e) OVER (PARTITION BY o ORDER BY k ROWS BETWEEN 1 PRECEDING AND 1 PRECEDING) AS v FROM n WHERE k IN (1, 2, 4)", Ok(&["1 -", "2 99999999999999999999999999999999999999", "4 1"])),
        ("o", "SELECT k, sum(e) OVER (PARTITION BY o ORDER BY k ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS v FROM n WHERE k IN (1, 2, 4)", Err(OVERFLOW)),
        ("o", "SELECT k, sum(DISTINCT b) OVER (PARTITION BY o ORDER BY k ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS v FROM n WHERE k IN (1, 4, 6)", Ok(&["1 9223372036854775807", "4 -1", "6 -9223372036854775806"])),
        ("o", "SELECT k, CAST(avg(arrow_cast(b, 'Duration(Second)')) OVER (PARTITION BY o ORDER BY k ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS BIGINT) AS v FROM n WHERE k < 3", Ok(&["1 9223372036854775807", "2 4611686018427387904"])),
        ("o", "SELECT k, count(*) OVER (PARTITION BY o ORDER BY b RANGE BETWEEN 10 PRECEDING AND 10 FOLLOWING) AS v FROM n WHERE k <> 5", Ok(&["1 1", "2 3", "3 3", "4 1", "6 3"])),
    ])
    .await;
}

/// Dates and timestamps beyond what nanoseconds reach.
const FAR: &str = "SELECT k, CAST(d AS DATE) AS d, arrow_cast(d, 'Timestamp(Microsecond, None)') AS us,
        arrow_cast(n, 'Timestamp(Nanosecond, None)') AS ns, arrow_cast(d, 'Timestamp(Microsecond, Some(\"UTC\"))') AS uz,
        arrow_cast(n, 'Timestamp(Nanosecond, Some(\"UTC\"))') AS nz
    FROM (VALUES (1, '2024-05-01', '2024-05-01'), (2, '9999-12-31', '2262-04-11T23:47:16.854775807'), (3, NULL, NULL),
        (4, '1969-12-31', '1677-09-21T00:12:43.145224192')) AS t(k, d, n)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dates_and_timestamps_of_all_units_meet_exactly() {
    let far = ["1 2024-05-01T00:00:00", "2 9999-12-31T00:00:00", "3 -", "4 1969-12-31T00:00:00"];
    let pairs = ["1 1", "2 2", "4 4"];
    let joined = |left: &str, right: &str| {
        format!(
            "SELECT a.k, b.j AS v FROM (SELECT k, {left} FROM far) AS a JOIN (SELECT k AS j, {right} AS x FROM far) AS b \
             ON a.{left} = b.x"
        )
    };
    check(&[
        ("k", "SELECT k FROM far WHERE d = us", Ok(&["1", "2", "4"])),
        ("k", "SELECT k FROM far WHERE us <= d", Ok(&["1", "2", "4"])),
        ("k", "SELECT k FROM far WHERE d = ns", Ok(&["1"])),
        ("k", "SELECT k FROM far WHERE ns < d", Ok(&["2", "4"])),
        ("k", "SELECT k FROM far WHERE NOT ns >= us", Ok(&["2", "4"])),
        ("k", "SELECT k, ns IS DISTINCT FROM us AS v FROM far", Ok(&["1 false", "2 true", "3 false", "4 true"])),
        ("k", "SELECT k FROM far WHERE ns BETWEEN d AND us", Ok(&["1"])),
        ("k", "SELECT k FROM far WHERE uz = d", Ok(&["1", "2", "4"])),
        ("k", "SELECT k FROM far WHERE nz < d AND nz < uz", Ok(&["2", "4"])),
        ("k", "SELECT k FROM far WHERE ns BETWEEN TIMESTAMP '1900-01-01' AND d", Ok(&["1", "2"])),
        ("k", "SELECT k FROM far WHERE ns IN (d, us)", Ok(&["1"])),
        ("k", "SELECT k FROM far WHERE us NOT IN (d, ns)", Ok(&[])),
        ("k", "SELECT k, CASE ns WHEN d THEN 1 ELSE 0 END AS v FROM far", Ok(&["1 1", "2 0", "3 0", "4 0"])),
        ("k", "SELECT k, coalesce(d, us) AS v FROM far", Ok(&far)),
        ("k", "SELECT k, CASE WHEN k < 3 THEN d ELSE us END AS v FROM far", Ok(&far)),
        ("k", "SELECT k, d AS v FROM far WHERE k < 3 UNION ALL SELECT k, us FROM far WHERE k > 2", Ok(&far)),
        ("k", "SELECT k, d AS v FROM far UNION ALL SELECT k, ns FROM far", Err("CAST(… AS TIMESTAMP(6))")),
        ("us", &joined("us", "d"), Ok(&pairs)),
        ("ns", &joined("ns", "d"), Ok(&["1 1"])),
        ("us", &joined("us", "ns"), Ok(&["1 1"])),
        ("us", "SELECT k FROM far WHERE us IN (SELECT d FROM far)", Ok(&["1", "2", "4"])),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn casts_and_functions_keep_values_or_fail() {
    check(&[
        ("k", "SELECT k, CAST(x AS REAL) AS v FROM n", Err("does not fit REAL; CAST to DOUBLE")),
        ("k", "SELECT k, TRY_CAST(x AS REAL) AS v FROM n", Ok(&["1 -", "2 1.5", "3 -2.5", "4 -", "5 -", "6 0.0"])),
        ("k", "SELECT k, CAST(CAST('inf' AS DOUBLE) AS REAL) AS v FROM n WHERE k = 1", Ok(&["1 inf"])),
        // Which of two chunks that fail is told, is open.
        ("k", "SELECT k, CAST(x AS INT) AS v FROM n", Err("1e300 to type Int32")),
        ("k", "SELECT k, TRY_CAST(b AS INT) AS v FROM n", Ok(&["1 -", "2 1", "3 -5", "4 -", "5 -", "6 2"])),
        ("k", "SELECT k, CAST(b AS INT) AS v FROM n", Err("to type Int32")),
        ("k", "SELECT k, CAST(e AS DECIMAL(5, 0)) AS v FROM n", Err("to store in a Decimal128 of precision 5")),
        ("k", "SELECT k, TRY_CAST(e AS DECIMAL(5, 0)) AS v FROM n WHERE k < 3", Ok(&["1 -", "2 1"])),
        (
            "k",
            "SELECT k, TRY_CAST(arrow_cast(b, 'Date64') AS TIMESTAMP) AS v FROM n WHERE k IN (1, 2)",
            Ok(&["1 -", "2 1970-01-01T00:00:00.001"]),
        ),
        (
            "k",
            "SELECT k, TRY_CAST(arrow_cast(b, 'Timestamp(Second, None)') AS DATE) AS v FROM n",
            Ok(&["1 -", "2 1970-01-01", "3 1969-12-31", "4 -", "5 -", "6 1970-01-01"]),
        ),
        (
            "k",
            "SELECT k, date_part('year', arrow_cast(b, 'Timestamp(Second, None)')) AS v FROM n",
            Err("in no calendar"),
        ),
        ("k", "SELECT k, to_timestamp(x) AS v FROM n", Err("to_timestamp reaches from 1677 to 2262")),
        ("k", "SELECT k, to_timestamp(x) AS v FROM n WHERE k IN (2, 5)", Ok(&["2 1970-01-01T00:00:01.500", "5 -"])),
        ("k", "SELECT k, to_timestamp_micros('9999-12-31') AS v FROM n WHERE k = 1", Ok(&["1 9999-12-31T00:00:00"])),
        ("k", "SELECT k, d + 200000 AS v FROM far WHERE k = 1", Ok(&["1 2571-11-30"])),
        ("k", "SELECT k, d - 1000000 AS v FROM far WHERE k = 2", Ok(&["2 7262-02-02"])),
        ("k", "SELECT k, d + 9223372036854775807 AS v FROM far", Err(OVERFLOW)),
        ("k", "SELECT k, d + INTERVAL '300000 years' AS v FROM far", Err("overflow")),
        ("k", "SELECT k, ns + INTERVAL '1 day' AS v FROM far", Err("out of range")),
        (
            "k",
            "SELECT k, CAST(ns - TIMESTAMP '1970-01-01' AS VARCHAR) AS v FROM far WHERE k = 1",
            Ok(&["1 19844 days 0 hours 0 mins 0.000000000 secs"]),
        ),
        (
            "k",
            "SELECT k, date_trunc('month', us) AS v FROM far",
            Ok(&["1 2024-05-01T00:00:00", "2 9999-12-01T00:00:00", "3 -", "4 1969-12-01T00:00:00"]),
        ),
        (
            "k",
            "SELECT k, date_trunc('week', us) AS v FROM far WHERE k < 3",
            Ok(&["1 2024-04-29T00:00:00", "2 9999-12-27T00:00:00"]),
        ),
        (
            "k",
            "SELECT k, date_bin(INTERVAL '7 days', us) AS v FROM far WHERE k < 4",
            Ok(&["1 2024-04-25T00:00:00", "2 9999-12-30T00:00:00", "3 -"]),
        ),
        ("k", "SELECT k, date_bin(INTERVAL '1 month', us) AS v FROM far", Err("use date_trunc")),
        ("k", "SELECT k, date_bin(INTERVAL '1 day', ns) AS v FROM far", Err(OVERFLOW)),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn far_dates_compare_with_any_timestamp() {
    check(&[
        ("k", "SELECT k FROM far WHERE us = TIMESTAMP '9999-12-31 00:00:00'", Ok(&["2"])),
        ("k", "SELECT k FROM far WHERE us = CAST('9999-12-31' AS TIMESTAMP)", Ok(&["2"])),
        ("k", "SELECT k FROM far WHERE us IN (TIMESTAMP '2024-05-01', TIMESTAMP '9999-12-31')", Ok(&["1", "2"])),
        (
            "k",
            "SELECT k, coalesce(us, TIMESTAMP '9999-12-31') AS v FROM far WHERE k > 2",
            Ok(&["3 9999-12-31T00:00:00", "4 1969-12-31T00:00:00"]),
        ),
        ("k", "SELECT k FROM far WHERE ns < TIMESTAMP '9999-12-31'", Ok(&["1", "2", "4"])),
        ("k", "SELECT k FROM far WHERE ns BETWEEN TIMESTAMP '2000-01-01' AND TIMESTAMP '9999-12-31'", Ok(&["1", "2"])),
        ("k", "SELECT k FROM far WHERE d > TIMESTAMP '2024-05-01'", Ok(&["2"])),
        ("k", "SELECT k FROM far WHERE d >= TIMESTAMP '2024-05-01 00:00:00.5'", Ok(&["2"])),
        ("k", "SELECT k FROM far WHERE d > now()", Ok(&["2"])),
        ("k", "SELECT k FROM far WHERE us > now()", Ok(&["2"])),
        // Digits that the column has not.
        ("k", "SELECT k FROM far WHERE us = TIMESTAMP '2024-05-01 00:00:00.0000001'", Ok(&[])),
        ("k", "SELECT k FROM far WHERE us < TIMESTAMP '2024-05-01 00:00:00.0000001'", Ok(&["1", "4"])),
        // What can't be put together says how to write it.
        (
            "k",
            "SELECT k, coalesce(us, ns) AS v FROM far",
            Err("arrow_cast('9999-12-31', 'Timestamp(Microsecond, None)')"),
        ),
        ("k", "SELECT k, CAST(d AS TIMESTAMP) AS v FROM far", Err("CAST(… AS TIMESTAMP(6))")),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_constant_that_makes_datafusion_panic_is_an_error_at_its_task() {
    let folder = tempfile::tempdir().unwrap();
    let text = "CREATE TABLE first AS SELECT arrow_cast(-9223372036854775808, 'Date64') AS d";
    let pipeline = sql::parse(text, "test.sql", folder.path()).unwrap();
    let engine = crate::support::engine(&folder.path().join("cache"));
    let report = engine.run(&pipeline, &Default::default()).await.unwrap();
    assert!(report.tasks[0].reason.contains("DATE64"), "{report:#?}");
    let series = "CREATE TABLE series AS SELECT * FROM generate_series(1, 9223372036854775807 + 1)";
    let pipeline = sql::parse(series, "test.sql", folder.path()).unwrap();
    let report = engine.run(&pipeline, &Default::default()).await.unwrap();
    assert!(report.tasks[0].reason.contains("9223372036854775807 + 1 does not fit BIGINT"), "{report:#?}");
}

/// The chunk of a row is that of the value which the query computes, also where DataFusion's own function fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_cut_by_what_checked_functions_give() {
    let folder = tempfile::tempdir().unwrap();
    make_parquet(folder.path(), "far", FAR).await;
    let months = "SELECT arrow_cast(m, 'Timestamp(Microsecond, None)') AS m FROM (VALUES ('9999-12-01'), ('2024-05-01')) AS t(m)";
    make_parquet(folder.path(), "months", months).await;
    let join = "SELECT months.m, far.k FROM far JOIN months ON date_trunc('month', far.us) = months.m";
    let sql = format!(
        "CREATE EXTERNAL TABLE far STORED AS PARQUET LOCATION 'far.parquet';
         CREATE EXTERNAL TABLE months STORED AS PARQUET LOCATION 'months.parquet';
         CREATE TABLE whole WITH (chunks = 1) AS {join};
         CREATE TABLE cut CLUSTERED BY (m) INTO 16 BUCKETS AS {join};
         CREATE TABLE stored CLUSTERED BY (m) INTO 16 BUCKETS AS
         SELECT date_trunc('month', us) AS m, max(k) AS k FROM far GROUP BY date_trunc('month', us);
         CREATE TABLE reads CLUSTERED BY (m) INTO 16 BUCKETS AS SELECT months.m, stored.k FROM stored JOIN months ON stored.m = months.m;"
    );
    let engine = crate::support::engine(&folder.path().join("cache"));
    crate::support::run(&engine, &sql, folder.path()).await;
    for table in ["whole", "cut", "reads"] {
        let rows = crate::support::rows_as_text(&engine, &format!("SELECT k FROM {table}")).await;
        assert_eq!(rows, ["1", "2"], "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decimals_meet_floats_as_the_numbers_that_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "SELECT k, arrow_cast(d, 'Decimal128(9, 2)') AS d, x FROM (VALUES
        (1, '8.38', 8.38), (2, '1.00', 1.0), (3, '0.29', 0.3), (4, NULL, 1e-17), (5, '1234567.89', 1e20)) AS n(k, d, x)";
    make_parquet(folder.path(), "n", rows).await;
    make_parquet(folder.path(), "u", "SELECT k AS other, x FROM (VALUES (1, 8.38), (2, 0.29)) AS u(k, x)").await;
    let sources = "CREATE EXTERNAL TABLE n STORED AS PARQUET LOCATION 'n.parquet';
        CREATE EXTERNAL TABLE u STORED AS PARQUET LOCATION 'u.parquet';";
    let cases: &[Case<'_>] = &[
        ("k", "SELECT k FROM n WHERE d = 8.38", Ok(&["1"])),
        ("k", "SELECT k FROM n WHERE 8.38 <= d", Ok(&["1", "5"])),
        ("k", "SELECT k FROM n WHERE d <> 8.38", Ok(&["2", "3", "5"])),
        ("k", "SELECT k FROM n WHERE d BETWEEN 8.38 AND 8.38", Ok(&["1"])),
        ("k", "SELECT k FROM n WHERE d IN (8.38, 1.5, 0.29)", Ok(&["1", "3"])),
        ("k", "SELECT k FROM n WHERE d NOT IN (8.38, 1.5)", Ok(&["2", "3", "5"])),
        ("k", "SELECT k FROM n WHERE d IS NOT DISTINCT FROM 8.38", Ok(&["1"])),
        ("k", "SELECT k FROM n WHERE d = x", Ok(&["1", "2"])),
        ("k", "SELECT k FROM n WHERE d < 1e16", Ok(&["1", "2", "3", "5"])),
        ("k", "SELECT k FROM n WHERE d < 'NaN'::double", Ok(&["1", "2", "3", "5"])),
        ("k", "SELECT k FROM n WHERE d = 838e-2 AND -d = -8.38", Ok(&["1"])),
        ("k", "SELECT k, CASE d WHEN 8.38 THEN 1 ELSE 0 END AS v FROM n WHERE k < 3", Ok(&["1 1", "2 0"])),
        ("k", "SELECT k, nullif(d, 8.38) AS v FROM n WHERE k < 3", Ok(&["1 -", "2 1.00"])),
        ("k", "SELECT k, coalesce(d, 0.5) AS v FROM n WHERE k > 2", Ok(&["3 0.29", "4 0.50", "5 1234567.89"])),
        ("k", "SELECT k, coalesce(d, x) AS v FROM n WHERE k IN (1, 4)", Ok(&["1 8.38", "4 1e-17"])),
        ("k", "SELECT k, greatest(d, 8.38) AS v FROM n WHERE k < 3", Ok(&["1 8.38", "2 8.38"])),
        ("k", "SELECT k, CASE WHEN k = 1 THEN d ELSE x END AS v FROM n WHERE k IN (1, 4)", Ok(&["1 8.38", "4 1e-17"])),
        ("k", "SELECT k FROM n WHERE d IN (SELECT x FROM u)", Ok(&["1", "3"])),
        ("k", "SELECT k FROM n WHERE x IN (SELECT d FROM n WHERE d > 1.0)", Ok(&["1"])),
        ("k", "SELECT n.k, u.other FROM n JOIN u ON n.d = u.x", Ok(&["1 1", "3 2"])),
        ("x", "SELECT n.k, u.x FROM n JOIN u ON n.d = u.x", Ok(&["1 8.38", "3 0.29"])),
        ("d", "SELECT n.d, u.other FROM n JOIN u ON n.d = u.x", Ok(&["0.29 2", "8.38 1"])),
        // Types that are known only once what is below has one.
        ("k", "SELECT k FROM (SELECT k, d AS v FROM n UNION ALL SELECT k, x FROM n) q WHERE v = 8.38", Ok(&["1", "1"])),
        ("k", "SELECT k FROM (SELECT k, d AS v FROM n UNION SELECT k, x FROM n) q WHERE v = 8.38", Ok(&["1"])),
        ("k", "SELECT k FROM n WHERE CASE WHEN k > 5 THEN 1 ELSE x END = d", Ok(&["1", "2"])),
        (
            "k",
            "SELECT k FROM (SELECT k, 1 AS v FROM n UNION ALL SELECT k, x FROM n) q WHERE v = CAST('8.38' AS DECIMAL(9, 2))",
            Ok(&["1"]),
        ),
        ("k", "SELECT k FROM n WHERE arrow_cast(CAST(d AS VARCHAR), 'Decimal128(9, 2)') = 8.38", Ok(&["1"])),
        ("k", "SELECT k FROM n WHERE (SELECT max(u.x) FROM u WHERE u.x = n.d) = d", Ok(&["1", "3"])),
        (
            "k",
            "SELECT k FROM (SELECT k, coalesce(d, x) AS c FROM n) q WHERE c IN (SELECT d FROM n WHERE n.k = q.k)",
            Ok(&["1", "2", "3", "5"]),
        ),
        ("d", "SELECT d, count(*) AS v FROM n GROUP BY d HAVING d = 8.38", Ok(&["8.38 1"])),
        ("v", "SELECT d AS v FROM n WHERE k = 1 UNION ALL SELECT x FROM n WHERE k = 4", Ok(&["1e-17", "8.38"])),
        ("v", "SELECT d AS v FROM n INTERSECT SELECT x FROM n", Ok(&["1.00", "8.38"])),
    ];
    let wrong = wrong_cases(folder.path(), sources, cases, &[""]).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn intervals_count_by_their_length_and_move_by_all_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "SELECT k, CAST(d AS DATE) AS d, CAST(s AS TIMESTAMP) AS s, CAST(e AS TIMESTAMP) AS e FROM (VALUES
        (1, '2024-01-01', '2024-01-01T00:00:00', '2024-01-01T23:00:00'),
        (2, '2024-01-02', '2024-01-01T00:00:00', '2024-01-02T00:00:00'),
        (3, '2024-01-03', '2024-01-01T00:00:00', '2024-01-02T01:00:00'),
        (4, NULL, NULL, '2024-01-02T00:00:00')) AS t(k, d, s, e)";
    make_parquet(folder.path(), "t", rows).await;
    let sources = "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 't.parquet';";
    let cases: &[Case<'_>] = &[
        ("k", "SELECT k FROM t WHERE e - s > INTERVAL '1 day'", Ok(&["3"])),
        ("k", "SELECT k FROM t WHERE e - s = INTERVAL '24 hours'", Ok(&["2"])),
        ("k", "SELECT k FROM t WHERE INTERVAL '1 day' <> e - s", Ok(&["1", "3"])),
        ("k", "SELECT k FROM t WHERE e - s BETWEEN INTERVAL '1 day' AND INTERVAL '1 month'", Ok(&["2", "3"])),
        ("k", "SELECT k FROM t WHERE e - s IN (INTERVAL '1 day', INTERVAL '2 days')", Ok(&["2"])),
        ("k", "SELECT k FROM t WHERE e - s IS DISTINCT FROM INTERVAL '1 day'", Ok(&["1", "3", "4"])),
        ("k", "SELECT k, CASE e - s WHEN INTERVAL '1 day' THEN 1 ELSE 0 END AS v FROM t WHERE k < 3", Ok(&["1 0", "2 1"])),
        ("k", "SELECT k, max(e - s) > INTERVAL '1 day' AS v FROM t GROUP BY k", Ok(&["1 false", "2 false", "3 true", "4 -"])),
        ("k", "SELECT a.k FROM t a JOIN t b ON a.k = b.k AND a.e - a.s < INTERVAL '1 day'", Ok(&["1"])),
        ("k", "SELECT k, INTERVAL '1 month' = INTERVAL '30 days' AS v FROM t WHERE k = 1", Ok(&["1 true"])),
        ("k", "SELECT k, d + INTERVAL '1 day' AS v FROM t WHERE k < 2", Ok(&["1 2024-01-02"])),
        ("k", "SELECT k, d - INTERVAL '48 hours' AS v FROM t WHERE k < 2", Ok(&["1 2023-12-30"])),
        ("k", "SELECT k, d + 1 AS v FROM t WHERE k < 2", Ok(&["1 2024-01-02"])),
        ("k", "SELECT k, d + INTERVAL '36 hours' AS v FROM t", Err("an INTERVAL of 36 hours can't move a DATE")),
        (
            "k",
            "SELECT k, d + CASE WHEN k = 3 THEN INTERVAL '1 hour' ELSE INTERVAL '1 day' END AS v FROM t",
            Err("an INTERVAL of 1 hours can't move a DATE"),
        ),
        (
            "k",
            "SELECT k, CASE WHEN k < 3 THEN d + CASE WHEN k = 3 THEN INTERVAL '1 hour' ELSE INTERVAL '1 day' END END AS v
             FROM t WHERE k <> 2",
            Ok(&["1 2024-01-02", "3 -", "4 -"]),
        ),
        (
            "k",
            "SELECT k, CAST(s AS TIMESTAMP(0)) + INTERVAL '500 milliseconds' AS v FROM t",
            Err("can't move a TIMESTAMP(0), which has whole seconds; CAST it to TIMESTAMP(9)"),
        ),
        (
            "k",
            "SELECT k, CAST(s AS TIMESTAMP(0)) + (s + INTERVAL '1 microsecond' - s) AS v FROM t",
            Err("can't move a TIMESTAMP(0), which has whole seconds"),
        ),
        (
            "k",
            "SELECT k, date_bin(INTERVAL '1500 milliseconds', CAST(s AS TIMESTAMP(0))) AS v FROM t",
            Err("date_bin of bins that begin between two values of its type"),
        ),
        (
            "k",
            "SELECT k, count(*) OVER (ORDER BY d RANGE BETWEEN INTERVAL '36 hours' PRECEDING AND CURRENT ROW) AS v FROM t",
            Err("an INTERVAL of 36 hours can't move a DATE"),
        ),
        (
            "k",
            "SELECT min(CASE WHEN k = 1 THEN INTERVAL '1 day' ELSE INTERVAL '25 hours' END) = INTERVAL '1 day' AS v FROM t",
            Ok(&["true"]),
        ),
        (
            "k",
            "SELECT max(CASE k WHEN 1 THEN INTERVAL '1 day' WHEN 2 THEN INTERVAL '25 hours' END) = INTERVAL '25 hours' AS v FROM t",
            Ok(&["true"]),
        ),
        (
            "k",
            "SELECT CAST(i AS VARCHAR) AS v FROM (SELECT k, CASE WHEN k = 1 THEN INTERVAL '1 day' ELSE INTERVAL '24 hours' END AS i
                FROM t WHERE k < 3) q ORDER BY i LIMIT 1",
            Ok(&["1 days"]),
        ),
        (
            "k",
            "SELECT k, greatest(INTERVAL '1 day', INTERVAL '25 hours') = INTERVAL '25 hours' AS v FROM t",
            Err("have no order of their own; compare date_part('epoch', interval)"),
        ),
        (
            "k",
            "SELECT k FROM t ORDER BY CASE k WHEN 1 THEN INTERVAL '1 day' WHEN 2 THEN INTERVAL '23 hours' ELSE
                INTERVAL '1 month' END LIMIT 1",
            Ok(&["2"]),
        ),
    ];
    let wrong = wrong_cases(folder.path(), sources, cases, &[""]).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn written_numbers_keep_all_of_their_digits() {
    let folder = tempfile::tempdir().unwrap();
    make_parquet(folder.path(), "t", "SELECT * FROM (VALUES (1, 0.5), (2, 1.005)) AS t(k, x)").await;
    let sources = "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 't.parquet';";
    let cases: &[Case<'_>] = &[
        (
            "k",
            "SELECT k, CAST(12345678901234567.89 AS DECIMAL(20, 2)) AS v FROM t WHERE k = 1",
            Ok(&["1 12345678901234567.89"]),
        ),
        ("k", "SELECT k, -12345678901234567.89 AS v FROM t WHERE k = 1", Ok(&["1 -12345678901234567.89"])),
        ("k", "SELECT k, 18446744073709551616 AS v FROM t WHERE k = 1", Ok(&["1 18446744073709551616"])),
        ("k", "SELECT k, -9223372036854775808 AS v FROM t WHERE k = 1", Ok(&["1 -9223372036854775808"])),
        ("k", "SELECT k, -9223372036854775809 AS v FROM t WHERE k = 1", Ok(&["1 -9223372036854775809"])),
        ("k", "SELECT k, - 18446744073709551615 + 1 AS v FROM t WHERE k = 1", Ok(&["1 -18446744073709551614"])),
        ("k", "SELECT k, x * -9223372036854775809 AS v FROM t WHERE k = 1", Ok(&["1 -4.611686018427388e18"])),
        ("k", "SELECT k, CAST(1.005 AS DECIMAL(9, 2)) AS v FROM t WHERE k = 1", Ok(&["1 1.01"])),
        ("k", "SELECT k, TRY_CAST(1.005 AS DECIMAL(9, 2)) AS v FROM t WHERE k = 1", Ok(&["1 1.01"])),
        ("k", "SELECT k, CAST(-1.005 AS DECIMAL(9, 2)) AS v FROM t WHERE k = 1", Ok(&["1 -1.01"])),
        ("k", "SELECT k, x * 3.14159265358979323846 AS v FROM t WHERE k = 1", Ok(&["1 1.5707963267948966"])),
        ("k", "SELECT k, CAST(3.14159265358979323846 AS DOUBLE) AS v FROM t WHERE k = 1", Ok(&["1 3.141592653589793"])),
        ("k", "SELECT k, cos(3.14159265358979323846) AS v FROM t WHERE k = 1", Ok(&["1 -1.0"])),
        ("k", "SELECT k, 0.1 + 0.2 AS v FROM t WHERE k = 1", Ok(&["1 0.30000000000000004"])),
        ("k", "SELECT k, 1e39 AS v FROM t WHERE k = 1", Ok(&["1 1e39"])),
        ("k", "SELECT k FROM t WHERE x = 0.50000000000000000000", Ok(&["1"])),
        (
            "k",
            "SELECT k, 1234567890123456789012345678901234567890 AS v FROM t",
            Err("has more digits than DECIMAL, which has 38; write a DOUBLE, 1.2345678901234568e39"),
        ),
    ];
    let wrong = wrong_cases(folder.path(), sources, cases, &[""]).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounded_decimals_have_the_digits_that_were_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "SELECT k, CAST(x AS DECIMAL(9, 2)) AS x FROM (VALUES (1, '1.25'), (2, '9.99')) AS t(k, x)";
    make_parquet(folder.path(), "t", rows).await;
    let sources = "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 't.parquet';";
    let cases: &[Case<'_>] = &[
        ("k", "SELECT k, round(x, 1) AS v FROM t", Ok(&["1 1.3", "2 10.0"])),
        ("k", "SELECT k, CAST(r AS VARCHAR) AS v FROM (SELECT k, round(x, 1) AS r FROM t)", Ok(&["1 1.3", "2 10.0"])),
        (
            "k",
            "SELECT k, CAST(round(sum(x), CAST(1 AS INT)) AS VARCHAR) AS v FROM t GROUP BY k",
            Ok(&["1 1.3", "2 10.0"]),
        ),
        ("k", "SELECT k, CAST(round(x) AS VARCHAR) AS v FROM t", Ok(&["1 1", "2 10"])),
        ("k", "SELECT k, CAST(round(CAST(x AS DECIMAL(9, 0)), -1) AS VARCHAR) AS v FROM t", Ok(&["1 0", "2 10"])),
        (
            "k",
            "WITH r AS (SELECT k, round(x, 1) AS r FROM t) SELECT a.k, CAST(a.r + b.r AS VARCHAR) AS v FROM r a JOIN r b USING (k)",
            Ok(&["1 2.6", "2 20.0"]),
        ),
        (
            "k",
            "SELECT k, CAST(v AS VARCHAR) AS v FROM (SELECT k, round(x, 1) AS v FROM t UNION ALL SELECT k, round(x, 0) FROM t)",
            Ok(&["1 1.0", "1 1.3", "2 10.0", "2 10.0"]),
        ),
    ];
    let wrong = wrong_cases(folder.path(), sources, cases, &[""]).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_are_neither_dates_nor_times() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "SELECT k, CAST(d AS DATE) AS d FROM (VALUES (1, '2024-01-01'), (2, NULL)) AS t(k, d)";
    make_parquet(folder.path(), "t", rows).await;
    let sources = "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 't.parquet';";
    let refused = Err("BIGINT and DATE have no type in common");
    let cases: &[Case<'_>] = &[
        ("k", "SELECT k FROM t WHERE d = k", refused),
        ("k", "SELECT k FROM t WHERE d IN (1, 2)", refused),
        ("k", "SELECT k FROM t WHERE d BETWEEN 1 AND 2", refused),
        ("k", "SELECT k, CASE WHEN k = 1 THEN d ELSE 0 END AS v FROM t", refused),
        ("k", "SELECT k, nullif(d, 0) AS v FROM t", refused),
        ("k", "SELECT k FROM t UNION ALL SELECT d FROM t", refused),
        ("k", "SELECT k FROM t EXCEPT SELECT d FROM t", refused),
        ("k", "SELECT k FROM t WHERE k IN (SELECT d FROM t)", refused),
        ("k", "SELECT a.k FROM t a JOIN t b ON a.d = b.k", refused),
        ("k", "SELECT k, coalesce(d, NULL) AS v FROM t", Ok(&["1 2024-01-01", "2 -"])),
        ("k", "SELECT k FROM t WHERE d = '2024-01-01'", Ok(&["1"])),
    ];
    let wrong = wrong_cases(folder.path(), sources, cases, &[""]).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// DataFusion counts in unsigned integers, which become decimals beside others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_and_positions_are_operands_and_arguments() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "SELECT * FROM (VALUES (1, [5, 6, 7]), (2, [8]), (3, NULL)) AS t(k, l)";
    make_parquet(folder.path(), "t", rows).await;
    let sources = "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 't.parquet';";
    let ranked = "rank() OVER (PARTITION BY k ORDER BY k)";
    let cases: &[Case<'_>] = &[
        ("k", "SELECT k, arrow_typeof(cardinality(l) + 1) AS v FROM t WHERE k = 1", Ok(&["1 Int64"])),
        ("k", "SELECT k, cardinality(l) - 2 AS v FROM t", Ok(&["1 1", "2 -1", "3 -"])),
        ("k", "SELECT k, -array_length(l) AS v, 1 - (list_length(l)) AS w FROM t", Ok(&["1 -3 -2", "2 -1 0", "3 - -"])),
        ("k", "SELECT k, l[cardinality(l)] AS v FROM t", Ok(&["1 7", "2 8", "3 -"])),
        ("k", "SELECT k, array_slice(l, 1, cardinality(l) - 1) AS v FROM t WHERE k < 3", Ok(&["1 [5, 6]", "2 []"])),
        (
            "k",
            "SELECT k, l[array_positions(l, 6)[1] - 1] AS v, array_dims(l)[1] * -1 AS w FROM t WHERE k = 1",
            Ok(&["1 5 -3"]),
        ),
        (
            "k",
            "SELECT k, unnest(l) AS v, unnest(range(1, cardinality(l) + 1)) AS place FROM t",
            Ok(&["1 5 1", "1 6 2", "1 7 3", "2 8 1"]),
        ),
        ("k", "SELECT k, substr('abc', array_length(l)) AS v FROM t", Ok(&["1 c", "2 abc", "3 -"])),
        ("k", "SELECT k, coalesce(array_position(l, 6), -1) AS v FROM t", Ok(&["1 2", "2 -1", "3 -1"])),
        ("k", "SELECT k, CASE WHEN k = 1 THEN array_ndims(l) ELSE -1 END AS v FROM t", Ok(&["1 1", "2 -1", "3 -1"])),
        ("k", "SELECT k, cardinality(l) % 2 AS v FROM t GROUP BY k, cardinality(l) % 2", Ok(&["1 1", "2 1", "3 -"])),
        ("k", "SELECT k FROM t WHERE cardinality(l) > -1 AND cardinality(l) IN (-1, 1)", Ok(&["2"])),
        ("k", &format!("SELECT k, chr(65 + {ranked}) AS v FROM t"), Ok(&["1 B", "2 B", "3 B"])),
        ("k", &format!("SELECT k, substr('abc', {ranked}) AS v FROM t"), Ok(&["1 abc", "2 abc", "3 abc"])),
        ("k", &format!("SELECT k, k - {ranked} AS v FROM t"), Ok(&["1 0", "2 1", "3 2"])),
        ("k", "SELECT k, approx_distinct(k) - 2 AS v FROM t WHERE k = 1 GROUP BY k", Ok(&["1 -1"])),
    ];
    let wrong = wrong_cases(folder.path(), sources, cases, &[""]).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_of_day_of_different_units_compare() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "SELECT k, arrow_cast(v, 'Time64(Microsecond)') AS v, arrow_cast(v, 'Time32(Millisecond)') AS s
        FROM (VALUES (1, '01:00:00'), (2, '02:00:00'), (3, NULL)) AS t(k, v)";
    make_parquet(folder.path(), "t", rows).await;
    let sources = "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 't.parquet';";
    let cases: &[Case<'_>] = &[
        ("k", "SELECT k FROM t WHERE v = TIME '01:00:00'", Ok(&["1"])),
        ("k", "SELECT k FROM t WHERE v < TIME '01:00:00.0000001'", Ok(&["1"])),
        ("k", "SELECT k, v > TIME '01:30:00' AS v, v = s AS w FROM t", Ok(&["1 false true", "2 true true", "3 - -"])),
        ("k", "SELECT k FROM t WHERE v BETWEEN TIME '01:00:00' AND s", Ok(&["1", "2"])),
        ("k", "SELECT k FROM t WHERE v IN (TIME '02:00:00', TIME '03:00:00')", Ok(&["2"])),
        ("k", "SELECT k FROM t WHERE v IS DISTINCT FROM TIME '01:00:00'", Ok(&["2", "3"])),
        (
            "k",
            "SELECT k, CASE WHEN k = 1 THEN v ELSE TIME '03:00:00' END AS v FROM t WHERE k < 3",
            Ok(&["1 01:00:00", "2 03:00:00"]),
        ),
        ("k", "SELECT k, CASE v WHEN TIME '01:00:00' THEN 'one' END AS v FROM t", Ok(&["1 one", "2 -", "3 -"])),
        (
            "k",
            "SELECT k, v FROM t WHERE k = 1 UNION ALL SELECT k, TIME '02:00:00' FROM t WHERE k = 2",
            Ok(&["1 01:00:00", "2 02:00:00"]),
        ),
        ("v", "SELECT v FROM t EXCEPT SELECT TIME '01:00:00'", Ok(&["-", "02:00:00"])),
        ("k", "SELECT a.k, b.k AS o FROM t a JOIN t b ON a.v = b.s AND a.k = b.k", Ok(&["1 1", "2 2"])),
        ("k", "SELECT k FROM t JOIN (SELECT k, s AS v FROM t) u USING (k, v)", Ok(&["1", "2"])),
        ("k", "SELECT k FROM t WHERE v IN (SELECT TIME '01:00:00')", Ok(&["1"])),
        ("k", "SELECT k, v IN (SELECT TIME '01:00:00') AS v FROM t", Ok(&["1 true", "2 false", "3 -"])),
        ("k", "SELECT k FROM t WHERE v IN (SELECT u.s FROM t u WHERE u.k = t.k)", Ok(&["1", "2"])),
        ("k", "SELECT k FROM t WHERE v > ALL (SELECT TIME '01:00:00')", Ok(&["2"])),
        ("k", "SELECT k FROM t WHERE v > 5", Err("BIGINT and TIME have no type in common")),
    ];
    let wrong = wrong_cases(folder.path(), sources, cases, &[""]).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_constants_is_not_of_millions_of_values() {
    let long = Err("values, and 1000000 are the most; write FROM");
    let cases: &[Case<'_>] = &[
        ("v", "SELECT unnest(range(0, 2000000000)) AS v", long),
        ("v", "SELECT cardinality(generate_series(1, 1000 * 1000 * 1000)) AS v", long),
        ("v", "SELECT unnest(range(0, -3000000, -2)) AS v", long),
        ("v", "SELECT unnest(range(DATE '0001-01-01', DATE '9999-01-01', INTERVAL '1 day')) AS v", long),
        ("v", "SELECT cardinality(range(0, 1000000)) AS v", Ok(&["1000000"])),
        ("v", "SELECT count(*) AS v FROM range(0, 2000000) AS r(n)", Ok(&["2000000"])),
        ("k", "SELECT k, cardinality(range(0, k)) AS v FROM n WHERE k < 3", Ok(&["1 1", "2 2"])),
    ];
    // Cut by what none of the whole ones has.
    check_with(cases, &[]).await;
}
