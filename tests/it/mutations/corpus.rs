//! The tasks whose SQL is edited, and the tables that they read.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

/// What each task reads. `t` has two columns of each type, so that an edit can name another column that fits.
pub const SOURCES: &str = "
    CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 't.parquet';
    CREATE EXTERNAL TABLE u STORED AS PARQUET LOCATION 'u.parquet';
";

/// The columns of `t` that have one type each, and those of the same type.
pub const ALIKE: [(&str, &str); 20] = [
    ("k", "v"),
    ("g", "v"),
    ("v", "g"),
    ("w", "f"),
    ("f", "w"),
    ("s", "p"),
    ("p", "s"),
    ("d", "e"),
    ("e", "d"),
    ("ts", "tu"),
    ("tu", "ts"),
    ("b", "c"),
    ("c", "b"),
    ("m", "n"),
    ("n", "m"),
    ("l", "j"),
    ("j", "l"),
    ("r", "q"),
    ("q", "r"),
    ("x", "z"),
];

/// How most tasks are cut.
const BY_K: &str = "CLUSTERED BY (k) INTO 3 BUCKETS";

/// Tasks: how each is cut, what stands before it, and its query.
pub const TASKS: &[(&str, &str, &str)] = &[
    // Literals and casts.
    (BY_K, "", "SELECT k, v + 1 AS a, w * 1.5 AS b, s || 'x' AS c FROM t WHERE v > 7 AND s <> 'it''s'"),
    (
        BY_K,
        "",
        "SELECT k, CAST(v AS DECIMAL(20, 3)) AS a, TRY_CAST(s AS INT) AS b, CAST('12.50' AS DECIMAL(10, 2)) AS c FROM t",
    ),
    (BY_K, "", "SELECT k, CAST('NaN' AS DOUBLE) AS a, CAST('-0.0' AS DOUBLE) AS b, CAST('0.1' AS REAL) AS c FROM t"),
    (
        BY_K,
        "",
        "SELECT k, DATE '2024-02-29' AS a, DATE '9999-12-31' AS b, TIMESTAMP '2024-02-29 12:30:45.123456' AS c FROM t WHERE d >= '1999-12-31'",
    ),
    (
        BY_K,
        "",
        "SELECT k, arrow_cast(9007199254740993, 'Date64') AS a, arrow_cast(86400000, 'Timestamp(Millisecond, Some(\"+02:00\"))') AS b FROM t",
    ),
    (
        BY_K,
        "",
        "SELECT k, ts + INTERVAL '1 month 2 days' AS a, d - INTERVAL '3' DAY AS b, ts - INTERVAL '90 seconds' AS c FROM t",
    ),
    (BY_K, "", "SELECT k, X'0aff' AS a, E'a\\nb' AS b, $$dollar$$ AS c, NULL AS e, TRUE AS f FROM t"),
    (
        BY_K,
        "",
        "SELECT k, 9223372036854775807 AS a, -9223372036854775807 AS b, 18446744073709551615 AS c, 1e300 AS e, 0.1 AS f FROM t",
    ),
    (
        BY_K,
        "",
        "SELECT k, v::SMALLINT AS a, s::VARCHAR AS b, ts::DATE AS c, d::TIMESTAMP AS e, m::DECIMAL(14, 4) AS f, b::INT AS h FROM t",
    ),
    // Operators and predicates.
    (
        BY_K,
        "",
        "SELECT k, v - g AS a, v / 3 AS b, v % 5 AS c, -v AS e, v & 6 AS f, v | 8 AS h, v ^ 3 AS i, v << 2 AS o, v >> 1 AS q FROM t",
    ),
    (
        BY_K,
        "",
        "SELECT k, s LIKE 'a%' AS a, s NOT LIKE 'b_' AS b, s ILIKE '%c' AS c, s SIMILAR TO 'a(b|c)' AS e, s ~ '^x' AS f, s !~* 'y$' AS h FROM t",
    ),
    (BY_K, "", "SELECT k, s LIKE 'a!%%' ESCAPE '!' AS a, s ILIKE '#_%' ESCAPE '#' AS b FROM t WHERE p NOT ILIKE 'z%'"),
    (
        BY_K,
        "",
        "SELECT k, b IS TRUE AS a, b IS NOT FALSE AS e, b IS UNKNOWN AS f, v IS NULL AS h, s IS NOT NULL AS i, v IS DISTINCT FROM g AS o FROM t",
    ),
    (
        BY_K,
        "",
        "SELECT k FROM t WHERE v BETWEEN 3 AND 9 AND g NOT BETWEEN 1 AND 2 AND s IN ('a', 'b', 'c', 'e') AND v NOT IN (4, 5, 6, 8)",
    ),
    (BY_K, "", "SELECT k, v FROM t WHERE NOT (v > 3 OR g < 2) AND (b OR c) AND v <> g"),
    (BY_K, "", "SELECT k, v <=> g AS a, v >= 4 AS b, m * n AS c, m / 3 AS e, w / f AS h, power(v, 2) AS i FROM t"),
    (BY_K, "", "SELECT k, v FROM t WHERE v > ALL (SELECT g FROM u WHERE v > 2) OR v = ANY (SELECT v FROM u)"),
    // Case, and what has a syntax of its own.
    (
        BY_K,
        "",
        "SELECT k, CASE WHEN v > 3 THEN 'big' WHEN v < 1 THEN 'small' ELSE 'middle' END AS a, CASE g WHEN 1 THEN w WHEN 2 THEN f END AS b FROM t",
    ),
    (BY_K, "", "SELECT k, coalesce(v, g, 0) AS a, nullif(v, 3) AS b, greatest(v, g) AS c, nvl(s, 'none') AS e FROM t"),
    (
        BY_K,
        "",
        "SELECT k, EXTRACT(YEAR FROM d) AS a, EXTRACT(DOW FROM ts) AS b, date_trunc('month', ts) AS c, date_part('hour', ts) AS e FROM t",
    ),
    (
        BY_K,
        "",
        "SELECT k, substring(s FROM 2 FOR 3) AS a, substring(p, 4) AS b, TRIM(LEADING 'x' FROM s) AS c, TRIM(TRAILING '-' FROM p) AS e, POSITION('a' IN s) AS f FROM t",
    ),
    (
        BY_K,
        "",
        "SELECT k, OVERLAY(s PLACING 'yy' FROM 2 FOR 1) AS a, CEIL(w) AS b, FLOOR(f) AS c, round(w, 2) AS e, trunc(f, 1) AS h FROM t",
    ),
    (
        BY_K,
        "",
        "SELECT k, ts AT TIME ZONE 'Europe/Berlin' AS a, to_char(ts, '%Y-%m') AS b, to_timestamp(s, '%d.%m.%Y') AS c, date_bin(INTERVAL '15 minutes', ts, TIMESTAMP '2001-01-01') AS e FROM t",
    ),
    (
        BY_K,
        "",
        "SELECT k, lpad(s, 5, '0') AS a, split_part(p, '-', 2) AS b, replace(s, 'a', 'b') AS c, regexp_replace(s, 'a+', 'z', 'g') AS e, left(s, 3) AS f, concat_ws(',', s, p) AS h FROM t",
    ),
    (
        BY_K,
        "",
        "SELECT k, upper(s) AS a, abs(v) AS b, sqrt(w) AS c, md5(s) AS e, length(p) AS f, power(w, 2) AS h, log(2, f) AS i FROM t",
    ),
    // Lists, structs, maps, lambdas.
    (
        BY_K,
        "",
        "SELECT k, [v, g, 3] AS a, l[1] AS b, j[2:3] AS c, array_has(l, 4) AS e, array_concat(l, j) AS f, array_position(l, 2) AS h FROM t",
    ),
    (
        BY_K,
        "",
        "SELECT k, r['x'] AS a, q['z'] AS b, named_struct('one', v, 'two', s) AS c, {'three': g, 'four': p} AS e, struct(v, s) AS f FROM t",
    ),
    (BY_K, "", "SELECT k, MAP {'a': v, 'b': g} AS b, map(['c'], [v])['c'] AS c FROM t"),
    (BY_K, "", "SELECT k, unnest(l) AS a, g FROM t WHERE v > 0"),
    (BY_K, "", "SELECT t.k, y.h FROM t CROSS JOIN UNNEST(t.l) AS y(h) WHERE y.h > 2"),
    // Aggregates and their constants.
    (
        BY_K,
        "",
        "SELECT k, sum(v) AS a, min(w) AS b, max(s) AS c, count(*) AS e, count(DISTINCT g) AS f, avg(f) AS h FROM t GROUP BY k",
    ),
    (
        "WITH (chunks = 3)",
        "",
        "SELECT g, sum(v) AS a, avg(w) AS b, count(*) AS c, min(d) AS e, max(ts) AS f FROM t GROUP BY g",
    ),
    ("", "", "SELECT sum(v) AS a, count(v) AS b, count(DISTINCT s) AS c, sum(DISTINCT g) AS e FROM t"),
    (
        "",
        "",
        "SELECT g, approx_percentile_cont(0.25) WITHIN GROUP (ORDER BY w) AS a, approx_percentile_cont(0.75, 200) WITHIN GROUP (ORDER BY f DESC) AS b FROM t GROUP BY g",
    ),
    (
        "",
        "",
        "SELECT g, percentile_cont(0.5) WITHIN GROUP (ORDER BY w) AS a, median(f) AS b, approx_distinct(s) AS c, approx_median(v) AS e FROM t GROUP BY g",
    ),
    ("", "", "SELECT g, approx_percentile_cont_with_weight(v, 0.9) WITHIN GROUP (ORDER BY w) AS a FROM t GROUP BY g"),
    (
        "",
        "",
        "SELECT g, string_agg(s, ',' ORDER BY s DESC NULLS FIRST, k) AS a, array_agg(v ORDER BY w, k) AS b FROM t GROUP BY g",
    ),
    (BY_K, "", "SELECT k, string_agg(DISTINCT s, ';' ORDER BY s) AS a, array_agg(DISTINCT v) AS b FROM t GROUP BY k"),
    (
        "",
        "",
        "SELECT g, first_value(v ORDER BY w, k) AS a, last_value(s ORDER BY d DESC, k) AS b, nth_value(v, 2 ORDER BY f DESC, k) AS c FROM t GROUP BY g",
    ),
    (
        "",
        "",
        "SELECT g, first_value(v IGNORE NULLS ORDER BY w, k) AS a, last_value(s RESPECT NULLS ORDER BY p, k) AS b FROM t GROUP BY g",
    ),
    (
        "",
        "",
        "SELECT g, stddev(w) AS a, var_pop(w) AS b, corr(w, f) AS c, covar_samp(w, f) AS e, regr_slope(w, f) AS h FROM t GROUP BY g",
    ),
    (
        "WITH (chunks = 3)",
        "",
        "SELECT g, bit_and(v) AS a, bool_or(b) AS e, sum(v) FILTER (WHERE w > 0.5) AS f, count(*) FILTER (WHERE s = 'a') AS h FROM t GROUP BY g",
    ),
    (BY_K, "", "SELECT k, g, sum(v) AS a FROM t GROUP BY k, g HAVING sum(v) > 10 AND count(*) > 1"),
    (BY_K, "", "SELECT k, g, p, count(*) AS a, grouping(g) AS b FROM t GROUP BY k, ROLLUP (g, p)"),
    (BY_K, "", "SELECT k, g, p, sum(v) AS a FROM t GROUP BY GROUPING SETS ((k, g), (k, p), (k))"),
    ("WITH (chunks = 3)", "", "SELECT g, p, sum(v) AS a FROM t GROUP BY CUBE (g, p)"),
    ("WITH (chunks = 3)", "", "SELECT g, p, sum(v) AS a FROM t GROUP BY g, p WITH ROLLUP"),
    (BY_K, "", "SELECT k, g, sum(v) AS a FROM t GROUP BY ALL"),
    // Windows.
    (
        BY_K,
        "",
        "SELECT k, row_number() OVER (PARTITION BY k ORDER BY v, w DESC NULLS LAST) AS a, rank() OVER (PARTITION BY k, g ORDER BY v) AS b FROM t",
    ),
    (
        BY_K,
        "",
        "SELECT k, v, sum(v) OVER (PARTITION BY k ORDER BY w, d ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS a, avg(f) OVER (PARTITION BY k ORDER BY v RANGE BETWEEN UNBOUNDED PRECEDING AND 3 FOLLOWING) AS b FROM t",
    ),
    (
        BY_K,
        "",
        "SELECT k, lag(v, 2, 0) OVER (PARTITION BY k ORDER BY d, w) AS a, lead(s) OVER (PARTITION BY k ORDER BY d, w) AS b, ntile(4) OVER (PARTITION BY k ORDER BY w, d) AS c FROM t",
    ),
    (
        BY_K,
        "",
        "SELECT k, nth_value(v, 3) OVER w AS a, first_value(v) IGNORE NULLS OVER (w ROWS 1 PRECEDING) AS b FROM t WINDOW w AS (PARTITION BY k ORDER BY d, v)",
    ),
    (
        BY_K,
        "",
        "SELECT k, max(v) FILTER (WHERE b) OVER (PARTITION BY k) AS a, count(*) OVER (PARTITION BY k ORDER BY g GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS e FROM t",
    ),
    (BY_K, "", "SELECT k, v, s FROM t QUALIFY row_number() OVER (PARTITION BY k ORDER BY v DESC, s) <= 2"),
    (
        BY_K,
        "",
        "SELECT k, sum(v) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '2 days' PRECEDING AND CURRENT ROW) AS a FROM t",
    ),
    // Joins.
    (BY_K, "", "SELECT t.k, t.v, u.g FROM t JOIN u ON t.k = u.k AND t.v < u.v"),
    (BY_K, "", "SELECT t.k, t.v, u.g FROM t LEFT JOIN u ON t.k = u.k WHERE t.g > 1"),
    (BY_K, "", "SELECT k, t.v AS a, u.v AS b FROM t FULL JOIN u USING (k)"),
    (BY_K, "", "SELECT u.k, t.s FROM t RIGHT JOIN u ON t.k = u.k AND t.s = u.s"),
    (BY_K, "", "SELECT t.k, t.w FROM t LEFT SEMI JOIN u ON t.k = u.k"),
    (BY_K, "", "SELECT t.k, t.w FROM t LEFT ANTI JOIN u ON t.k = u.k AND t.g > u.g"),
    (BY_K, "", "SELECT t.k, t.w, x.h FROM t CROSS JOIN (SELECT max(v) AS h FROM u) x"),
    (BY_K, "", "SELECT k, t.w FROM t NATURAL JOIN (SELECT k, s FROM u) y"),
    (BY_K, "", "SELECT a.k, a.v, b.v AS o FROM t a, t b WHERE a.k = b.k AND a.v < b.v"),
    (BY_K, "", "SELECT t.k, y.a FROM t, LATERAL (SELECT sum(u.v) AS a FROM u WHERE u.k = t.k) y"),
    // Subqueries.
    (BY_K, "", "SELECT k, v FROM t WHERE k IN (SELECT k FROM u WHERE g > 2)"),
    (BY_K, "", "SELECT k, v FROM t WHERE v NOT IN (SELECT v FROM u WHERE v IS NOT NULL)"),
    (BY_K, "", "SELECT k, v FROM t WHERE EXISTS (SELECT * FROM u WHERE u.k = t.k AND u.g > t.g)"),
    (BY_K, "", "SELECT k, v FROM t WHERE NOT EXISTS (SELECT * FROM u WHERE u.k = t.k)"),
    (BY_K, "", "SELECT k, (SELECT max(v) FROM u WHERE u.k = t.k) AS a, (SELECT count(*) FROM u) AS b FROM t"),
    (BY_K, "", "SELECT k, v FROM t WHERE w > (SELECT avg(w) FROM t WHERE g = 1)"),
    (BY_K, "", "SELECT y.k, y.a FROM (SELECT k, sum(v) AS a FROM t GROUP BY k) AS y WHERE y.a > 5"),
    // Sets, order, limits.
    (BY_K, "", "SELECT k, v FROM t WHERE g = 1 UNION ALL SELECT k, g FROM u"),
    (BY_K, "", "SELECT k, v FROM t UNION SELECT k, v FROM u"),
    (BY_K, "", "SELECT k, v FROM t INTERSECT SELECT k, g FROM u"),
    (BY_K, "", "SELECT k, v FROM t EXCEPT ALL SELECT k, v FROM u"),
    (BY_K, "", "SELECT k, v, g FROM t UNION ALL BY NAME SELECT g, k FROM u"),
    (BY_K, "", "SELECT DISTINCT k, g FROM t"),
    (BY_K, "", "SELECT DISTINCT ON (k) k, v, s FROM t ORDER BY k, v DESC NULLS LAST, s"),
    ("WITH (chunks = 3)", "", "SELECT k, v FROM t ORDER BY v DESC NULLS LAST, k DESC LIMIT 10 OFFSET 2"),
    ("WITH (chunks = 3)", "", "SELECT k, v FROM t ORDER BY v NULLS FIRST, k DESC FETCH FIRST 5 ROWS ONLY"),
    ("", "", "SELECT k, v FROM t ORDER BY ALL DESC LIMIT 3"),
    ("", "", "SELECT * FROM (VALUES (1, 'a', 1.5), (2, 'b', NULL), (3, 'c', 2.5)) AS y(one, two, three) WHERE one > 1"),
    ("", "", "SELECT value AS a FROM generate_series(1, 10, 3)"),
    (BY_K, "", "SELECT k, x.h FROM t JOIN (SELECT k AS i, v AS h FROM u ORDER BY v, k DESC LIMIT 4) x ON t.k = x.i"),
    // Wildcards, CTEs, views, pipes.
    (BY_K, "", "SELECT * EXCLUDE (l, j, r, q) FROM t"),
    (BY_K, "", "SELECT * REPLACE (v + 1 AS v) FROM u"),
    (BY_K, "", "SELECT u.* EXCEPT (s), u.s AS text FROM u"),
    (BY_K, "", "SELECT * EXCLUDE (g) RENAME (v AS value) FROM u"),
    (BY_K, "", "FROM u"),
    (
        BY_K,
        "",
        "WITH y AS (SELECT k, sum(v) AS a FROM t GROUP BY k), z (i, h) AS (SELECT k, max(g) FROM u GROUP BY k) SELECT y.k, y.a, z.h FROM y JOIN z ON y.k = z.i",
    ),
    (
        "",
        "",
        "WITH RECURSIVE y AS (SELECT 1 AS i, 0 AS h UNION ALL SELECT i + 1, h + i FROM y WHERE i < 8) SELECT i, h FROM y",
    ),
    (BY_K, "CREATE VIEW y AS SELECT k, v * 2 AS a FROM t WHERE g > 3;", "SELECT k, sum(a) AS h FROM y GROUP BY k"),
    (
        BY_K,
        "CREATE VIEW y (i, h) AS SELECT k, v FROM u; CREATE VIEW z AS SELECT i, h + 1 AS o FROM y;",
        "SELECT t.k, z.o FROM t LEFT JOIN z ON t.k = z.i",
    ),
    (BY_K, "", "FROM t |> WHERE v > 3 |> SELECT k, v, g |> EXTEND v + g AS a |> AS y"),
    (BY_K, "", "FROM t |> AGGREGATE sum(v) AS a, count(*) AS e GROUP BY k |> WHERE a > 2"),
    ("", "", "FROM u |> SELECT k, v |> UNION ALL (SELECT k, g FROM u) |> ORDER BY k DESC, v DESC |> LIMIT 4 OFFSET 1"),
    (BY_K, "", "FROM t |> JOIN u ON t.k = u.k |> SELECT t.k, u.v"),
    // Cuts and options.
    (
        "CLUSTERED BY (k, g) INTO 4 BUCKETS WITH (version = 1, compression = 'zstd(3)', row_group_rows = 1000)",
        "",
        "SELECT k, g, v FROM t",
    ),
    (
        "CLUSTERED BY (a) INTO 4 BUCKETS WITH (version = 'one', compression = 'snappy')",
        "",
        "SELECT v % 10 AS a, count(*) AS b FROM t GROUP BY v % 10",
    ),
    ("WITH (chunk_by = 'hash', chunks = 5)", "", "SELECT k, v FROM t"),
    (
        "CLUSTERED BY (day) INTO 2 BUCKETS WITH (compression = 'gzip(5)')",
        "",
        "SELECT date_trunc('day', ts) AS day, sum(m) AS a FROM t GROUP BY date_trunc('day', ts)",
    ),
];

/// The columns of the tables in [`SOURCES`].
pub fn inputs() -> BTreeMap<String, SchemaRef> {
    let list = || DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    let row = || {
        let fields = ["x", "z"].map(|name| Field::new(name, DataType::Int64, true));
        DataType::Struct(Fields::from(fields.to_vec()))
    };
    let time = || DataType::Timestamp(TimeUnit::Microsecond, None);
    let pairs = [
        ("w", "f", DataType::Float64),
        ("s", "p", DataType::Utf8View),
        ("d", "e", DataType::Date32),
        ("ts", "tu", time()),
        ("b", "c", DataType::Boolean),
        ("m", "n", DataType::Decimal128(12, 2)),
        ("l", "j", list()),
        ("r", "q", row()),
    ];
    let numbers = ["k", "g", "v"].map(|name| Field::new(name, DataType::Int64, true));
    let others = pairs
        .iter()
        .flat_map(|(one, other, data_type)| [one, other].map(|name| Field::new(*name, data_type.clone(), true)));
    let t: Vec<_> = numbers.iter().cloned().chain(others).collect();
    let u: Vec<_> = numbers.into_iter().chain([Field::new("s", DataType::Utf8View, true)]).collect();
    [("t", t), ("u", u)].map(|(name, fields)| (name.to_string(), Arc::new(Schema::new(fields)))).into()
}
