//! What the prover accepts gives the rows of the whole run; what it refuses, it refuses with a rule and a fix.
//!
//! The tables have NULL keys, repeated rows, and keys that only one of them has.

use std::path::Path;

use arrow::array::AsArray;
use chunkwise::{Error, ErrorKind, Location, RunOptions, RunReport, Status};
use datafusion::prelude::SessionContext;
use tempfile::TempDir;

use crate::support::{
    Multiset, cut, engine, engine_one_by_one, failure, make_parquet, oracle, parquet_source, query_rows, run, try_run,
};

const TABLES: [(&str, &str); 7] = [
    (
        "a",
        "SELECT value AS id, CASE WHEN value % 7 > 0 THEN value % 23 END AS k,
                CAST(CASE WHEN value % 5 > 0 THEN value % 11 END AS INT) AS x,
                CASE WHEN value % 8 > 0 THEN concat('s', value % 9) END AS s, value % 6 AS v,
                to_timestamp_seconds(value % 13 * 20000) AS t
         FROM generate_series(1, 150)",
    ),
    (
        "b",
        "SELECT CASE WHEN value % 6 > 0 THEN value % 29 + 3 END AS k, CAST(value % 7 AS INT) AS y,
                CASE WHEN value % 10 > 0 THEN concat('s', value % 4) END AS s, value % 5 AS w
         FROM generate_series(1, 110)",
    ),
    (
        "c",
        "SELECT CAST(CASE WHEN value % 9 > 0 THEN value % 31 END AS INT) AS k, value % 3 AS z
         FROM generate_series(1, 60)",
    ),
    (
        "r",
        "SELECT CASE WHEN value % 5 > 0 THEN value % 5 END AS n, concat('l', value % 3) AS label
         FROM generate_series(1, 12)",
    ),
    ("lists", "SELECT make_array(value % 3, value) AS items, value % 4 AS g FROM generate_series(1, 9)"),
    (
        "rows",
        "SELECT value AS id, named_struct('a', value % 5, 'b', concat('s', value % 3)) AS pair FROM generate_series(1, 20)",
    ),
    (
        "pairs",
        "SELECT named_struct('a', value % 5, 'b', named_struct('c', value % 3)) AS pair FROM generate_series(1, 20)",
    ),
];

const VIEWS: [&str; 2] = [
    "CREATE VIEW inner_view AS SELECT k AS vk, v FROM a WHERE v < 5",
    "CREATE VIEW outer_view AS SELECT vk AS wk, sum(v) AS total FROM inner_view GROUP BY vk",
];

/// Keys, a query, and the tables that are cut, one word for each reading.
type Accepted = (&'static str, &'static str, &'static str);

const JOINS: &[Accepted] = &[
    ("k", "SELECT a.k, b.w FROM a FULL JOIN b ON a.k = b.k", "a b"),
    ("k", "SELECT a.k, b.w FROM a FULL JOIN b ON a.k = b.k AND a.v > b.w", "a b"),
    (
        "k",
        "SELECT coalesce(a.k, b.k) AS c, count(*) AS n FROM a FULL JOIN b ON a.k = b.k GROUP BY coalesce(a.k, b.k)",
        "a b",
    ),
    ("k", "SELECT a.k, b.k AS l, count(*) AS n FROM a FULL JOIN b ON a.k = b.k GROUP BY a.k, b.k", "a b"),
    ("k", "SELECT a.v, c.z FROM a FULL JOIN b ON a.k = b.k FULL JOIN c ON coalesce(a.k, b.k) = c.k", "a b c"),
    ("k", "SELECT l.k, l.v, m.v AS w FROM a l JOIN a m ON l.k = m.k", "a a"),
    ("k", "SELECT l.k, m.x, l.v FROM a l JOIN a m ON l.k = m.x", "a a"),
    ("x", "SELECT l.k, m.x, l.v FROM a l JOIN a m ON l.k = m.x", "a a"),
    ("k", "SELECT l.k, m.x, l.v FROM a l LEFT JOIN a m ON l.k = m.x", "a a"),
    ("k", "SELECT l.k, count(*) AS n FROM a l JOIN a m ON l.v = m.v GROUP BY l.k", "a"),
    ("k", "SELECT a.k, b.w, c.z FROM a JOIN b ON a.k = b.k JOIN c ON b.k = c.k", "a b c"),
    ("k", "SELECT a.k, b.w, c.z FROM a JOIN b ON a.k = b.k JOIN c ON a.k = c.k AND c.z > b.w", "a b c"),
    ("k", "SELECT a.k, b.w, c.z FROM a LEFT JOIN b ON a.k = b.k LEFT JOIN c ON a.k = c.k", "a b c"),
    ("k", "SELECT a.k, b.w, c.z FROM a LEFT JOIN b ON a.k = b.k LEFT JOIN c ON b.k = c.k", "a b"),
    ("k", "SELECT q.k, c.z FROM (SELECT a.k, b.k AS bk FROM a LEFT JOIN b ON a.k = b.k) q JOIN c ON bk = c.k", "a b"),
    ("k", "SELECT a.k, b.w FROM a, b WHERE a.k = b.k AND a.v > b.w", "a b"),
    ("k", "SELECT a.k, b.w, c.z FROM a, b, c WHERE a.k = b.k AND b.k = c.k AND a.x = b.y", "a b c"),
    ("k", "SELECT b.k, count(*) AS n FROM a JOIN b ON a.s = b.s WHERE a.k = b.k GROUP BY b.k", "a b"),
    ("k", "SELECT k, a.v, b.w FROM a JOIN b USING (k)", "a b"),
    ("k", "SELECT k, s, v, w FROM a NATURAL JOIN b", "a b"),
    ("s", "SELECT k, s, v, w FROM a NATURAL LEFT JOIN b", "a b"),
    ("k, s", "SELECT a.k, a.s, count(*) AS n FROM a JOIN b ON a.k = b.k AND a.s = b.s GROUP BY a.k, a.s", "a b"),
    ("s, k", "SELECT a.k, a.s, b.w FROM a LEFT JOIN b ON a.k = b.k AND a.s = b.s", "a b"),
    ("k", "SELECT b.k, a.v, b.w FROM a RIGHT JOIN b ON a.k = b.k", "a b"),
    ("k", "SELECT b.k, count(a.v) AS n FROM a RIGHT JOIN b ON a.k = b.k GROUP BY b.k", "a b"),
    ("k", "SELECT a.k, a.v, b.w FROM a LEFT JOIN b ON a.k = b.k AND a.v > 2 AND b.w < 3", "a b"),
    ("k", "SELECT a.k, a.v, b.w FROM a LEFT JOIN b ON a.k = b.k WHERE b.w > 2", "a b"),
    ("k", "SELECT a.k, a.v FROM a LEFT JOIN b ON a.k = b.k WHERE b.k IS NULL", "a b"),
    ("k", "SELECT a.k, b.w FROM a LEFT JOIN b ON a.k = b.k WHERE a.k = b.k OR b.w IS NULL", "a b"),
    ("k", "SELECT a.k, r.label FROM a LEFT JOIN r ON a.v = r.n", "a"),
    ("k", "SELECT a.k, r.label FROM r RIGHT JOIN a ON a.v = r.n", "a"),
    ("k", "SELECT a.k, r.label FROM a JOIN r ON a.v < r.n", "a"),
    ("k", "SELECT a.k, r.label FROM a CROSS JOIN r", "a"),
    ("k", "SELECT a.k, g.most FROM a JOIN (SELECT n, max(label) AS most FROM r GROUP BY n) g ON a.v = g.n", "a"),
    ("k", "SELECT a.k, g.place FROM a JOIN (SELECT n, rank() OVER (ORDER BY n) AS place FROM r) g ON a.v = g.n", "a"),
    ("k", "SELECT a.k, b.w FROM a JOIN b ON a.k IS NOT DISTINCT FROM b.k", "a b"),
    ("k", "SELECT a.k, b.w FROM a JOIN b ON (a.k IS NOT DISTINCT FROM b.k) AND a.s = b.s", "a"),
    ("k", "SELECT a.k, b.w FROM a JOIN b ON a.k = b.k AND (a.v = 1 OR b.w = 2)", "a b"),
    ("k", "SELECT a.k, b.w FROM a JOIN b ON (a.k = b.k AND a.v = 1) OR (a.k = b.k AND b.w = 2)", "a b"),
    ("k", "SELECT a.k, b.w FROM a JOIN b ON a.k = b.k OR a.v = b.w", "a"),
    ("k", "SELECT a.k, b.w FROM a JOIN b ON a.s = b.s", "a"),
    ("k", "SELECT a.k, b.w FROM a JOIN b ON a.k = b.k AND a.k = 5", "a b"),
    ("k", "SELECT a.k, b.y FROM a JOIN b ON a.k = b.k AND a.k = b.y", "a b"),
    ("k", "SELECT a.v, q.k FROM a LEFT JOIN (SELECT k, w FROM b) q ON a.v = q.w", "a"),
    ("k", "SELECT l.v, m.k FROM a l JOIN a m ON CAST(l.k AS INT) = m.x", "a"),
    ("k", "SELECT l.k, b.w FROM a l JOIN b ON CAST(l.k AS VARCHAR) = CAST(b.k AS VARCHAR)", "a b"),
    ("k", "SELECT a.k, c.z FROM a JOIN c ON TRY_CAST(a.k AS INT) = c.k", "a c"),
    ("k", "SELECT a.k, c.z FROM a JOIN c ON CAST(a.k AS INT) = c.k", "a c"),
    ("k", "SELECT a.k, b.w FROM a JOIN b ON coalesce(a.k, 0) = coalesce(b.k, 0)", "a b"),
    ("k", "SELECT a.k, b.w FROM a JOIN b ON CASE WHEN a.k > 9 THEN a.k END = b.k", "a"),
    ("t", "SELECT l.t, m.v FROM a l JOIN a m ON date_trunc('day', l.t) = date_trunc('day', m.t)", "a a"),
    ("k", "SELECT u.k, c.z FROM (SELECT k FROM a UNION ALL SELECT k FROM b) u JOIN c ON u.k = c.k", "a b c"),
    ("k", "SELECT a.k, q.total FROM a, LATERAL (SELECT sum(w) AS total FROM b WHERE b.k = a.k) q", "a b"),
];

const SUBQUERIES: &[Accepted] = &[
    ("k", "SELECT k FROM a WHERE k IN (SELECT k FROM b) OR v = 1", "a b"),
    ("k", "SELECT k FROM a WHERE k IS NOT NULL AND k NOT IN (SELECT k FROM b WHERE k IS NOT NULL) OR v = 1", "a"),
    ("k", "SELECT k FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k) OR v = 1", "a b"),
    ("k", "SELECT k, v FROM a WHERE k IN (SELECT k FROM b)", "a b"),
    ("k", "SELECT k, v FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k)", "a b"),
    ("k", "SELECT k, v FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.w > a.v)", "a b"),
    ("k", "SELECT k, v FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k)", "a b"),
    ("k", "SELECT k, v FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.w > a.v)", "a b"),
    ("k", "SELECT k, v FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.w > 3)", "a"),
    ("k", "SELECT k, v FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.w > 99)", "a"),
    ("k", "SELECT k, v FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k > a.k)", "a"),
    ("k", "SELECT k, count(*) AS n FROM a WHERE x IN (SELECT y FROM b) GROUP BY k", "a"),
    ("k", "SELECT k, v FROM a WHERE k NOT IN (SELECT k FROM b WHERE k IS NOT NULL)", "a"),
    ("k", "SELECT k, v FROM a WHERE v NOT IN (SELECT n FROM r WHERE n IS NOT NULL)", "a"),
    ("k", "SELECT k, v FROM a WHERE k IN (1, 2, NULL)", "a"),
    ("k", "SELECT k, v FROM a WHERE (k, s) IN (SELECT (k, s) FROM b) OR true", "a"),
    ("k", "SELECT k, v FROM a WHERE v > (SELECT avg(n) FROM r)", "a r"),
    ("k", "SELECT k, v, (SELECT max(n) FROM r) AS most FROM a", "a r"),
    ("k", "SELECT k, v FROM a WHERE v > (SELECT avg(v) FROM a)", "a a"),
    ("k", "SELECT k, v, (SELECT count(*) FROM b WHERE b.k = a.k) AS n FROM a", "a b"),
    ("k", "SELECT k, v, (SELECT sum(w) FROM b WHERE b.k = a.k) AS n FROM a", "a b"),
    ("k", "SELECT k, v FROM a WHERE v > (SELECT avg(w) FROM b WHERE b.k = a.k)", "a b"),
    ("k", "SELECT k, v, (SELECT count(*) FROM b WHERE b.w = a.v) AS n FROM a", "a"),
    ("k", "SELECT a.k, a.v FROM a LEFT SEMI JOIN b ON a.k = b.k", "a b"),
    ("k", "SELECT a.k, a.v FROM a LEFT ANTI JOIN b ON a.k = b.k", "a b"),
    ("k", "SELECT b.k, b.w FROM a RIGHT SEMI JOIN b ON a.k = b.k", "a b"),
    ("k", "SELECT b.k, b.w FROM a RIGHT ANTI JOIN b ON a.k = b.k", "a b"),
];

const OPERATORS: &[Accepted] = &[
    ("k", "SELECT k, s, count(*) AS n FROM a GROUP BY GROUPING SETS ((k, s), (k))", "a"),
    ("k", "SELECT k, s, v, grouping(s) AS g, count(*) AS n FROM a GROUP BY k, ROLLUP (s, v)", "a"),
    ("k", "SELECT DISTINCT ON (k) k, v FROM a ORDER BY k, v", "a"),
    ("g", "SELECT g, unnest(items) AS item FROM lists", "lists"),
    (
        "g",
        "SELECT g, item, count(*) AS n FROM (SELECT g, unnest(items) AS item FROM lists) q GROUP BY g, item",
        "lists",
    ),
    ("k", "SELECT k, v FROM a JOIN (VALUES (1), (2)) AS q (n) ON v = n", "a"),
    ("k", "SELECT k, v FROM a JOIN generate_series(1, 3) AS q ON v = q.value", "a"),
    (
        "k",
        "WITH RECURSIVE q AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM q WHERE n < 3)
         SELECT k, v FROM a JOIN q ON v = n",
        "a",
    ),
    ("k", "SELECT k, v, 1 AS one FROM a WHERE v > 2", "a"),
    ("k", "SELECT v FROM a", "a"),
    ("k", "SELECT * FROM a ORDER BY v, id", "a"),
    ("k", "SELECT v, s FROM a WHERE k = 5 OR k IS NULL", "a"),
    ("kk", "SELECT kk, count(*) AS n FROM (SELECT k AS kk FROM a) GROUP BY kk", "a"),
    ("k", "SELECT kk, count(*) AS n FROM (SELECT k AS kk FROM a) GROUP BY kk", "a"),
    ("k", "SELECT k AS x, x AS k, count(*) AS n FROM a GROUP BY k, x", "a"),
    ("k", "SELECT CAST(k AS BIGINT) AS wide, count(*) AS n FROM c GROUP BY CAST(k AS BIGINT)", "c"),
    ("wide", "SELECT wide, a.v FROM (SELECT CAST(k AS BIGINT) AS wide FROM c) q JOIN a ON wide = a.k", "a c"),
    ("s", "SELECT arrow_cast(s, 'LargeUtf8') AS s, count(*) AS n FROM a GROUP BY arrow_cast(s, 'LargeUtf8')", "a"),
    ("wk", "SELECT * FROM outer_view", "a"),
    ("k", "SELECT b.w, v.total FROM outer_view v JOIN b ON v.wk = b.k", "a b"),
    ("k", "SELECT k, count(*) AS n, sum(v) AS total, min(s) AS least, avg(x) AS mean FROM a GROUP BY k", "a"),
    ("k", "SELECT k, count(DISTINCT v) AS n, sum(v) FILTER (WHERE x > 3) AS some FROM a GROUP BY k", "a"),
    ("k", "SELECT k, median(v) AS middle, string_agg(s, ',' ORDER BY id) AS texts FROM a GROUP BY k", "a"),
    ("k", "SELECT k, v, count(*) AS n FROM a GROUP BY k, v HAVING count(*) > 1", "a"),
    ("k", "SELECT k, max(n) AS most FROM (SELECT k, s, count(*) AS n FROM a GROUP BY k, s) GROUP BY k", "a"),
    ("k", "SELECT sum(v) AS total FROM a GROUP BY k", "a"),
    ("s", "SELECT s, max(total) AS most FROM (SELECT k, s, sum(v) AS total FROM a GROUP BY k, s) GROUP BY s", "a"),
    ("k", "SELECT DISTINCT k, v FROM a", "a"),
    ("k", "SELECT DISTINCT a.k FROM a JOIN b ON a.k = b.k", "a b"),
    ("k", "SELECT id, rank() OVER (PARTITION BY k ORDER BY v) AS place FROM a", "a"),
    ("k", "SELECT id, sum(v) OVER (PARTITION BY k) AS p, count(*) OVER (PARTITION BY s, k) AS q FROM a", "a"),
    ("k", "SELECT id, lag(v) OVER (PARTITION BY k ORDER BY id) AS before FROM a", "a"),
    ("k", "SELECT k, id FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY id) AS n FROM a) WHERE n = 1", "a"),
    ("k", "SELECT k, v, sum(sum(v)) OVER (PARTITION BY k) AS total FROM a GROUP BY k, v", "a"),
    (
        "k",
        "WITH g AS (SELECT k, sum(v) AS total FROM a GROUP BY k)
         SELECT p.k, p.total, q.total AS other FROM g p JOIN g q ON p.k = q.k",
        "a a",
    ),
    ("k", "SELECT k, v FROM a UNION SELECT k, w FROM b", "a b"),
    ("k", "SELECT k, v FROM a UNION ALL SELECT k, w FROM b", "a b"),
    ("k", "SELECT k, v FROM a UNION ALL SELECT k, z FROM c", "a c"),
    ("k", "SELECT k, x FROM a UNION SELECT x, k FROM a", "a a"),
    ("k", "SELECT k, 1 AS one FROM a UNION ALL SELECT n, 2 FROM r", "a r"),
    ("k", "SELECT k, v FROM a INTERSECT SELECT k, w FROM b", "a b"),
    ("k", "SELECT k, v FROM a EXCEPT SELECT k, w FROM b", "a b"),
    ("k", "SELECT k, count(*) AS n FROM (SELECT k FROM a UNION ALL SELECT k FROM b) GROUP BY k", "a b"),
    ("k", "SELECT CAST(k AS INT) AS i, count(*) AS n FROM a GROUP BY CAST(k AS INT)", "a"),
    ("k", "SELECT CAST(k AS VARCHAR) AS i, count(*) AS n FROM a GROUP BY 1", "a"),
    ("k", "SELECT CAST(k AS DOUBLE) AS i, count(*) AS n FROM a GROUP BY 1", "a"),
    ("k", "SELECT TRY_CAST(k AS INT) AS i, count(*) AS n FROM a GROUP BY 1", "a"),
    ("k", "SELECT coalesce(k, 0) AS i, count(*) AS n FROM a GROUP BY 1", "a"),
    ("t", "SELECT date_trunc('day', t) AS i, count(*) AS n FROM a GROUP BY 1", "a"),
    ("t", "SELECT CAST(t AS DATE) AS i, count(*) AS n FROM a GROUP BY 1", "a"),
    ("s", "SELECT upper(s) AS i, count(*) AS n FROM a GROUP BY 1", "a"),
    ("i", "SELECT k % 4 + 1 AS i, count(*) AS n FROM a GROUP BY 1", "a"),
    ("k", "SELECT count(*) OVER (PARTITION BY k % 4) AS n, id FROM a", "a"),
    ("k", "SELECT DISTINCT ON (coalesce(k, 0)) coalesce(k, 0) AS i, id FROM a ORDER BY coalesce(k, 0), id", "a"),
    ("k", "SELECT k % 4 AS i FROM a UNION SELECT k % 4 FROM b", "a b"),
    ("k", "SELECT k FROM a UNION ALL SELECT 1 FROM r", "a"),
    ("k", "SELECT k, v FROM a UNION ALL (SELECT n, 1 FROM r ORDER BY n LIMIT 2) UNION ALL SELECT k, w FROM b", "a b"),
    // The key is no column of the output, and nothing equates those of the branches.
    ("k", "SELECT v FROM a UNION ALL SELECT v FROM a", "a a"),
    ("k", "SELECT v FROM a UNION ALL SELECT w FROM b UNION ALL SELECT z FROM c", "a b c"),
    ("k", "SELECT x, count(*) OVER (PARTITION BY k) AS n FROM a UNION ALL SELECT y, w FROM b", "a b"),
    ("g", "SELECT items FROM lists", "lists"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_joins_have_the_rows_of_the_whole_run() {
    assert_accepted(JOINS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_subqueries_have_the_rows_of_the_whole_run() {
    assert_accepted(SUBQUERIES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_operators_have_the_rows_of_the_whole_run() {
    assert_accepted(OPERATORS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_null_in_a_whole_not_in_list_leaves_no_row() {
    let lab = Lab::new().await;
    let query = "SELECT k, v FROM a WHERE v NOT IN (SELECT n FROM r)";
    assert_eq!(query_rows(&lab.oracle, query).await.rows, 0);
    let report = lab.run(&[("k", query)], 5).await;
    assert_eq!((report.tasks[0].rows, cut(&report, 0)), (0, "a".into()));
}

/// Keys, and a query that chunks can do a part of.
const TWO_PHASE: &[(&str, &str)] = &[
    ("k", "SELECT s, sum(v + (SELECT max(w) FROM b)) AS n FROM a GROUP BY s"),
    ("k", "SELECT s, sum(v + (SELECT max(k) FROM b)) AS n FROM a GROUP BY s"),
    (
        "k",
        "SELECT s, max(v) AS n FROM a WHERE k > (SELECT min(k) FROM a) GROUP BY s HAVING max(v) > (SELECT min(v) FROM a)",
    ),
    ("k", "SELECT k FROM a ORDER BY k LIMIT 3"),
    ("k", "SELECT s, count(*) AS n FROM a GROUP BY s"),
    ("k", "SELECT count(*) AS n FROM a"),
    ("k, s", "SELECT k, count(*) AS n FROM a GROUP BY k"),
    ("k", "SELECT CASE WHEN k > 3 THEN k ELSE 0 END AS i, count(*) AS n FROM a GROUP BY 1"),
    ("k", "SELECT b.k, count(*) AS n FROM a LEFT JOIN b ON a.k = b.k GROUP BY b.k"),
    ("k", "SELECT a.k, count(*) AS n FROM b LEFT JOIN a ON a.k = b.k OR a.k = b.w GROUP BY a.k"),
    ("k", "SELECT a.k, count(*) AS n FROM a RIGHT JOIN b ON a.k = b.k GROUP BY a.k"),
    ("k", "SELECT DISTINCT v FROM a"),
    ("k", "SELECT DISTINCT b.k AS other FROM a LEFT JOIN b ON a.k = b.k"),
    ("k", "SELECT DISTINCT v FROM (SELECT k, v FROM a UNION SELECT k, w FROM b)"),
    ("k", "SELECT a.k, count(*) AS n FROM a FULL JOIN b ON a.k = b.k GROUP BY a.k"),
    ("k", "SELECT k, s, count(*) AS n FROM a GROUP BY GROUPING SETS ((k), (s))"),
    ("k", "SELECT k, s, count(*) AS n FROM a GROUP BY ROLLUP (k, s)"),
    ("k", "SELECT k, s, count(*) AS n FROM a GROUP BY CUBE (k, s)"),
    (
        "k",
        "SELECT count(*) AS n, count(x) AS m, sum(v) AS s, min(s) AS a, max(t) AS b, avg(v) AS c, avg(CAST(x AS DECIMAL(9, 3))) AS d FROM a",
    ),
    (
        "k",
        "SELECT s, stddev(v) AS a, var_pop(v) AS b, corr(v, x) AS c, covar_samp(v, x) AS d, regr_slope(v, x) AS e FROM (SELECT s, CAST(v AS DOUBLE) AS v, CAST(x AS DOUBLE) AS x FROM a WHERE v = 2) q GROUP BY s",
    ),
    (
        "k",
        "SELECT s, bit_and(v) AS a, bit_or(v) AS b, bit_xor(v) AS c, bool_and(v > 2) AS d, bool_or(v > 4) AS e, median(v) AS f FROM a GROUP BY s",
    ),
    (
        "k",
        "SELECT s, count(DISTINCT v) AS a, count(DISTINCT k) AS b, sum(DISTINCT v) AS c, count(v) AS d, approx_distinct(k) AS e FROM a GROUP BY s",
    ),
    ("k", "SELECT s, count(*) FILTER (WHERE v > 3) AS a, sum(v) FILTER (WHERE x IS NULL) AS b FROM a GROUP BY s"),
    // The sums of chunks don't fit, all of them together do.
    (
        "k",
        "SELECT sum(x) AS a, sum(CAST(-x AS DECIMAL(38, 0))) AS b FROM (SELECT k, 9223372036854775807 - v AS x FROM a UNION ALL SELECT k, v - 9223372036854775807 FROM a)",
    ),
    ("k", "SELECT count(*) AS n, sum(v) AS s, min(k) AS m FROM a WHERE v > 100"),
    ("k", "SELECT s, count(*) AS n FROM a WHERE v > 4 GROUP BY s HAVING count(*) > 1 ORDER BY n DESC, s LIMIT 2"),
    ("k", "SELECT id, v FROM a ORDER BY v DESC, id LIMIT 7 OFFSET 5"),
    ("k", "SELECT v FROM a ORDER BY id DESC LIMIT 7"),
    ("k", "SELECT n, count(*) AS c FROM (SELECT s, count(*) AS n FROM a GROUP BY s) q GROUP BY n"),
    ("k", "SELECT k, count(*) AS n FROM (SELECT DISTINCT v, k FROM a) q GROUP BY k ORDER BY n, k LIMIT 3"),
    ("k", "SELECT a.s, sum(b.w) AS w, count(*) AS n FROM a JOIN b ON a.k = b.k GROUP BY a.s"),
    ("k", "SELECT v, s, grouping(v) AS g, count(*) AS n FROM a GROUP BY ROLLUP (v, s)"),
    ("k", "SELECT v FROM a INTERSECT SELECT w FROM b"),
    ("k", "SELECT s, avg(DISTINCT v) AS a, count(*) AS b FROM a GROUP BY s"),
    (
        "k",
        "SELECT s, percentile_cont(v, 1 - 0.75) AS a, percentile_cont(0.1) WITHIN GROUP (ORDER BY v DESC) AS b FROM a GROUP BY s",
    ),
    (
        "k",
        "WITH q AS (SELECT s, count(*) AS n FROM a GROUP BY s) SELECT l.s, l.n, m.n AS o FROM q l JOIN q m ON l.s = m.s",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_done_in_two_phases_have_the_rows_of_the_whole_run() {
    let lab = Lab::new().await;
    for chunks in [1, 2, 5] {
        let cache = tempfile::tempdir().unwrap();
        let engine = engine(cache.path());
        let sql = lab.tasks(TWO_PHASE, chunks);
        let report = run(&engine, &sql, lab.folder.path()).await;
        let mut wrong = Vec::new();
        for (task, (_, query)) in report.tasks.iter().zip(TWO_PHASE) {
            let whole = query_rows(&lab.oracle, query).await;
            let found = Multiset::of(engine.table(&task.name).await.unwrap()).await;
            // At least one step is cut, and the last puts its parts together.
            if found != whole || found.rows == 0 || task.chunks <= chunks {
                wrong.push(format!("{chunks} chunks, {} in all: {found:?} for {whole:?}\n{query}", task.chunks));
            }
        }
        assert_eq!(wrong, Vec::<String>::new());
        let again = run(&engine, &sql, lab.folder.path()).await;
        assert!(again.tasks.iter().all(|task| task.status == Status::Reused && task.executed == 0), "{again:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_of_structs_are_keys_that_the_engine_finds() {
    let lab = Lab::new().await;
    let cases = [
        ("SELECT pair FROM pairs", "get_field(pair, Utf8(\"a\"))"),
        ("SELECT pair['a'] AS a, count(*) AS n FROM pairs GROUP BY pair['a']", "get_field(pair, Utf8(\"a\"))"),
        (
            "SELECT pair['b']['c'] AS c, count(*) OVER (PARTITION BY pair['b']['c']) AS n FROM pairs",
            "get_field(pair, Utf8(\"b\"), Utf8(\"c\"))",
        ),
    ];
    let mut sql = lab.sources();
    for (at, (query, _)) in cases.iter().enumerate() {
        sql += &format!("CREATE TABLE t{at} WITH (chunk_by = 'auto', chunks = 3) AS {query};");
    }
    let cache = tempfile::tempdir().unwrap();
    let engine = engine_one_by_one(cache.path());
    let report = run(&engine, &sql, lab.folder.path()).await;
    for (task, (query, key)) in report.tasks.iter().zip(cases) {
        let whole = query_rows(&lab.oracle, query).await;
        assert_eq!(Multiset::of(engine.table(&task.name).await.unwrap()).await, whole, "{query}");
        assert_eq!((task.chunks, task.keys.as_slice()), (3, [key.to_string()].as_slice()), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_whose_key_the_engine_finds_have_the_rows_of_the_whole_run() {
    let lab = Lab::new().await;
    let accepted = JOINS.iter().chain(SUBQUERIES).chain(OPERATORS).map(|(_, query, _)| *query);
    let queries: Vec<&str> = accepted.chain(TWO_PHASE.iter().map(|(_, query)| *query)).collect();
    let mut sql = lab.sources();
    for (at, query) in queries.iter().enumerate() {
        sql.push_str(&format!("\nCREATE TABLE t{at:03} WITH (chunk_by = 'auto', chunks = 3) AS {query};"));
    }
    let cache = tempfile::tempdir().unwrap();
    let engine = engine_one_by_one(cache.path());
    let report = run(&engine, &sql, lab.folder.path()).await;
    let mut wrong = Vec::new();
    for (task, query) in report.tasks.iter().zip(&queries) {
        let whole = query_rows(&lab.oracle, query).await;
        let found = Multiset::of(engine.table(&task.name).await.unwrap()).await;
        if found != whole || task.chunks < 3 || task.keys.len() != 1 {
            wrong.push(format!("{} chunks by {:?}: {found:?} for {whole:?}\n{query}", task.chunks, task.keys));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Keys, a query with a part that can't be cut, and the inputs that are cut in any step.
const IN_STEPS: &[Accepted] = &[
    // A scalar subquery over everything.
    ("k", "SELECT k, v FROM a WHERE v > (SELECT avg(v) FROM a WHERE k IS NOT NULL)", "a a"),
    (
        "k",
        "SELECT k, v FROM a WHERE v >= (SELECT min(q.n) - 3 FROM (SELECT k, count(*) AS n FROM a GROUP BY k) q)",
        "a a",
    ),
    (
        "k",
        "SELECT a.k, b.w FROM a JOIN b ON a.k = b.k WHERE a.v > (SELECT min(v) FROM a JOIN b ON a.k = b.k)",
        "a a b b",
    ),
    ("k", "SELECT k FROM a WHERE s > (SELECT first_value(label ORDER BY label) FROM r)", "a"),
    ("k", "SELECT k, (SELECT sum(CAST(n AS DOUBLE)) FROM r) AS total FROM a", "a r"),
    // A rank over the whole.
    (
        "k",
        "SELECT a.k, q.p FROM a JOIN (SELECT n, row_number() OVER (ORDER BY n, label) AS p FROM r) q ON a.v = q.n",
        "a",
    ),
    (
        "k",
        "SELECT a.v, q.k, q.place FROM a JOIN (SELECT k, rank() OVER (ORDER BY n) AS place FROM
         (SELECT k, count(*) AS n FROM b GROUP BY k) g) q ON a.k = q.k",
        "a b",
    ),
    ("k", "SELECT k, rank() OVER (ORDER BY n) AS place FROM (SELECT k, count(*) AS n FROM a GROUP BY k) q", "a"),
    ("k", "SELECT id, count(*) OVER (PARTITION BY k) AS n, count(*) OVER (PARTITION BY s) AS m FROM a", "a"),
    // A side that is whole and whose rows are kept.
    ("k", "SELECT q.n, q.v, b.w FROM (SELECT r.n, a.v FROM r LEFT JOIN a ON r.n = a.v) q JOIN b ON q.n = b.k", "a b r"),
    ("k", "SELECT a.k, q.n FROM a LEFT JOIN (SELECT r.n, c.z FROM r LEFT JOIN c ON r.n = c.z) q ON a.v = q.n", "a"),
    // What each chunk would compute again.
    (
        "k",
        "SELECT a.k, q.t FROM a JOIN (SELECT n, string_agg(label, ',') AS t FROM r GROUP BY n) q ON a.v = q.n",
        "a r",
    ),
    ("k", "SELECT a.k, q.t FROM a JOIN (SELECT n, array_agg(label) AS t FROM r GROUP BY n) q ON a.v = q.n", "a r"),
    ("k", "SELECT a.k, q.t FROM a JOIN (SELECT n, sum(n + 0.5e0) AS t FROM r GROUP BY n) q ON a.v = q.n", "a r"),
    ("k", "SELECT a.k FROM a JOIN (SELECT n, label FROM r ORDER BY n, label LIMIT 3) q ON a.v = q.n", "a r"),
    // One NULL decides every row.
    ("k", "SELECT k, v FROM a WHERE v > 2 AND k NOT IN (SELECT w FROM b WHERE w < 3)", "a"),
    // A branch that is not cut.
    ("k", "SELECT v FROM a UNION SELECT w FROM b", "a b"),
    // A recursive query beside what is cut.
    (
        "k",
        "WITH RECURSIVE q AS (SELECT n FROM r UNION SELECT n + 1 FROM q WHERE n < 9) SELECT a.k, q.n FROM a JOIN q ON v = n",
        "a",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_cut_runs_in_a_step_of_its_own() {
    assert_accepted(IN_STEPS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volatile_function_is_called_once_for_each_row_and_never_reused() {
    let lab = Lab::new().await;
    let cases = [
        ("k", "SELECT k, random() AS dice FROM a"),
        ("k", "SELECT k, dice FROM a CROSS JOIN (SELECT random() AS dice) q"),
        ("k", "SELECT k, v + dice AS sum FROM (SELECT k, v, random() AS dice FROM a) q"),
    ];
    let cache = tempfile::tempdir().unwrap();
    let engine = engine(cache.path());
    let sql = lab.tasks(&cases, 4);
    for _ in 0..2 {
        let report = run(&engine, &sql, lab.folder.path()).await;
        assert!(
            report.tasks.iter().all(|task| task.rows == 150 && task.reused == 0 && task.chunks >= 4),
            "{report:#?}"
        );
    }
    let count = |sql: &'static str| async {
        let rows = engine.query(sql).await.unwrap().collect().await.unwrap();
        rows[0].column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0)
    };
    assert!(count("SELECT count(DISTINCT dice) FROM t000").await > 140);
    assert_eq!(count("SELECT count(DISTINCT dice) FROM t001").await, 1);
}

/// Keys, a query, and words of the rule and of the fix.
type Refused = (&'static str, &'static str, &'static str, &'static str);

const REFUSED: &[Refused] = &[
    ("k", "SELECT id, rank() OVER (ORDER BY v) AS n FROM a", "one window partition", "partition by k too"),
    ("k", "SELECT id, rank() OVER (PARTITION BY s ORDER BY v) AS n FROM a", "one window", "partition by k too"),
    ("k", "SELECT r.n, a.k FROM r LEFT JOIN a ON r.n = a.v", "unmatched rows are kept is whole", "the right side"),
    ("k", "SELECT r.n, a.k FROM a RIGHT JOIN r ON r.n = a.v", "unmatched rows are kept is whole", "the left side"),
    ("k", "SELECT n FROM r WHERE EXISTS (SELECT 1 FROM a WHERE a.v = n)", "unmatched rows", "the join equates"),
    ("k", "SELECT n FROM r WHERE NOT EXISTS (SELECT 1 FROM a WHERE a.v = n)", "unmatched rows", "the join equates"),
    ("k", "SELECT n FROM r WHERE n NOT IN (SELECT v FROM a)", "unmatched rows are kept", "the join equates"),
    ("k", "SELECT a.k, r.n FROM a FULL JOIN r ON a.v = r.n", "unmatched rows are kept is whole", "the left side"),
    ("k", "SELECT k, approx_median(v) AS m FROM a GROUP BY k", "depends on how rows are batched", "use an exact"),
    (
        "k",
        "SELECT s, array_agg(v) AS l FROM a GROUP BY s",
        "rows of one group",
        "array_agg() depends on the order of rows",
    ),
    ("k", "SELECT DISTINCT ON (v) k, v FROM a ORDER BY v, k", "DISTINCT ON compares", "add k to DISTINCT ON"),
    (
        "k",
        "WITH RECURSIVE q AS (SELECT k FROM a UNION ALL SELECT k + 1 FROM q WHERE k < 3) SELECT k FROM q",
        "only the rows of its chunk",
        "task of its own",
    ),
    ("k", "SELECT k FROM a WHERE random() < 2", "a volatile function gives new values", "leave CLUSTERED BY out"),
    (
        "k",
        "SELECT n FROM r WHERE n > (SELECT v FROM a WHERE id = 3)",
        "scalar subquery reads a cut input",
        "its output",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_name_the_rule_and_a_fix_and_publish_nothing() {
    let lab = Lab::new().await;
    let cases: Vec<_> = REFUSED.iter().map(|(keys, query, ..)| (*keys, *query)).collect();
    let pipeline = chunkwise::sql::parse(&lab.tasks(&cases, 4), "f.sql", lab.folder.path()).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let engine = engine(cache.path());
    let mut errors: Vec<Error> = Vec::new();
    for text in engine.explain(&pipeline, None).await.unwrap() {
        errors.push(text.expect_err("refused"));
    }
    let report = engine.run(&pipeline, &RunOptions::default()).await.unwrap();
    assert_eq!((errors.len(), report.tasks.len()), (REFUSED.len(), REFUSED.len()));
    for ((error, task), (_, query, rule, fix)) in errors.iter().zip(&report.tasks).zip(REFUSED) {
        assert_eq!(error.kind(), ErrorKind::Refused, "{query}\n{error}");
        let (found, way_out) = error.message().rsplit_once("; ").unwrap();
        assert!(found.starts_with("can't be cut at ") && found.contains(rule), "{query}\n{error}");
        assert!(way_out.contains(fix), "{query}\n{error}");
        assert_eq!((error.task(), error.location().map(|l| l.file.as_str())), (Some(&*task.name), Some("f.sql")));
        assert_eq!((task.status, task.executed), (Status::Failed, 0), "{query}");
        assert_eq!(task.reason, error.to_string());
        assert_eq!(engine.table(&task.name).await.unwrap_err().kind(), ErrorKind::Usage, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_no_keys_are_errors_at_their_place() {
    let lab = Lab::new().await;
    for (keys, query, words) in [
        ("nothing", "SELECT * FROM a", "no input of the query has the key `nothing`"),
        ("k, nothing", "SELECT * FROM a", "no input of the query has the key `nothing`"),
        ("K_plus", "SELECT CASE WHEN k > 1 THEN k END AS k_plus FROM a", "no input of the query has the key `k_plus`"),
        ("\"K\"", "SELECT * FROM a", "no input of the query has the key `K`"),
        ("items", "SELECT * FROM lists", "this type can't be a key"),
        ("g, items", "SELECT * FROM lists", "this type can't be a key"),
    ] {
        let text = format!("{}\nCREATE TABLE t CLUSTERED BY ({keys}) INTO 2 BUCKETS AS {query}", lab.sources());
        let pipeline = chunkwise::sql::parse(&text, "f.sql", lab.folder.path()).unwrap();
        let cache = tempfile::tempdir().unwrap();
        let engine = engine(cache.path());
        let error = engine.explain(&pipeline, None).await.unwrap().remove(0).expect_err(keys);
        assert_eq!(failure(&engine, &pipeline, "t").await, (error.kind(), error.to_string()));
        assert_eq!(error.kind(), ErrorKind::Sql, "{error}");
        assert!(error.message().contains(words), "{error}");
        let line = text.lines().count() as u64;
        assert_eq!(error.location(), Some(&Location::new("f.sql", line, 30)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_stops_only_what_reads_the_task() {
    let lab = Lab::new().await;
    let cache = tempfile::tempdir().unwrap();
    let engine = engine(cache.path());
    let text = format!(
        "{} CREATE TABLE refused CLUSTERED BY (k) INTO 2 BUCKETS AS SELECT DISTINCT ON (v) k, v FROM a ORDER BY v;
         CREATE TABLE after AS SELECT * FROM refused; CREATE TABLE beside AS SELECT * FROM a;",
        lab.sources()
    );
    let report = try_run(&engine, &text, lab.folder.path()).await;
    let status = |name: &str| report.task(name).unwrap().status;
    assert_eq!(
        (status("refused"), status("after"), status("beside")),
        (Status::Failed, Status::Skipped, Status::Executed)
    );
}

async fn assert_accepted(cases: &[Accepted]) {
    let lab = Lab::new().await;
    let tasks: Vec<_> = cases.iter().map(|(keys, query, _)| (*keys, *query)).collect();
    let cache = tempfile::tempdir().unwrap();
    let mut whole = Vec::new();
    for (_, query) in &tasks {
        whole.push(query_rows(&lab.oracle, query).await);
    }
    // Little as the tables are, all that can be cut is, chunk by chunk; then what is worth it is, in passes.
    for (chunks, alone) in [(2, true), (5, false)] {
        let engine = match alone {
            true => engine_one_by_one(cache.path()),
            false => engine(cache.path()),
        };
        let report = run(&engine, &lab.tasks(&tasks, chunks), lab.folder.path()).await;
        let mut wrong = Vec::new();
        for (at, (keys, query, expected)) in cases.iter().enumerate() {
            let found = Multiset::of(engine.table(&report.tasks[at].name).await.unwrap()).await;
            if found != whole[at] || found.rows == 0 || (alone && cut(&report, at) != *expected) {
                wrong.push(format!("{chunks} chunks by {keys}: cut {}, {found:?}\n{query}", cut(&report, at)));
            }
        }
        assert_eq!(wrong, Vec::<String>::new());
    }
}

/// The tables as files, and the oracle over them.
struct Lab {
    folder: TempDir,
    oracle: SessionContext,
}

impl Lab {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, query) in TABLES {
            make_parquet(folder.path(), name, query).await;
        }
        let sources = declared(folder.path());
        Self { oracle: oracle(&sources).await, folder }
    }

    fn sources(&self) -> String {
        format!("{};", declared(self.folder.path()).join(";\n"))
    }

    /// One task for each pair of keys and query, named so that their order is kept.
    fn tasks(&self, cases: &[(&str, &str)], chunks: u32) -> String {
        let mut text = self.sources();
        for (at, (keys, query)) in cases.iter().enumerate() {
            text.push_str(&format!("\nCREATE TABLE t{at:03} CLUSTERED BY ({keys}) INTO {chunks} BUCKETS AS {query};"));
        }
        text
    }

    async fn run(&self, cases: &[(&str, &str)], chunks: u32) -> RunReport {
        let cache = tempfile::tempdir().unwrap();
        run(&engine(cache.path()), &self.tasks(cases, chunks), self.folder.path()).await
    }
}

/// The statements of all sources and views.
fn declared(folder: &Path) -> Vec<String> {
    let sources = TABLES.iter().map(|(name, _)| parquet_source(folder, name));
    sources.chain(VIEWS.iter().map(|view| view.to_string())).collect()
}
