//! EXPLAIN as it stands in `tests/plans/`: for each operator of the prover a task that is cut and one that is not, and
//! the ways in which a task runs in steps. `UPDATE_EXPECT=1` writes the files again. That what is accepted has the rows
//! of the whole run is shown in `prove`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use expect_test::expect_file;

use crate::support::{engine_one_by_one, make_parquet, parquet_source};

const TABLES: [(&str, &str); 4] = [
    (
        "orders",
        "SELECT value AS o_id, nullif(value % 9, 0) AS c_id, value % 3 AS status, value % 5 AS n FROM generate_series(1, 60)",
    ),
    ("items", "SELECT value % 50 AS o_id, CAST(value % 7 AS INT) AS p_id, value % 4 AS n FROM generate_series(1, 90)"),
    ("parts", "SELECT value AS p_id, concat('p', value % 3) AS label FROM generate_series(1, 6)"),
    ("lists", "SELECT value AS id, make_array(value % 3, value) AS elements FROM generate_series(1, 9)"),
];

/// A file's name, and tasks: how each is cut, and its query.
type Case = (&'static str, &'static [(&'static str, &'static str)]);

/// Cut by a key.
const BY: &str = "CLUSTERED BY (o_id) INTO 3 BUCKETS";
/// Cut by what the engine finds.
const AUTO: &str = "WITH (chunk_by = 'auto', chunks = 3)";

const CASES: &[Case] = &[
    ("scan", &[(BY, "SELECT * FROM orders"), (BY, "SELECT count(*) AS n FROM parts, (SELECT 1 AS o_id) AS q")]),
    (
        "filter_and_projection",
        &[
            (BY, "SELECT o_id, n + 1 AS n FROM orders AS o WHERE status = 1"),
            (
                "CLUSTERED BY (key) INTO 3 BUCKETS",
                "SELECT key, count(*) AS n FROM (SELECT o_id % 10 AS key FROM orders) AS q GROUP BY key",
            ),
            (
                "CLUSTERED BY (c_id) INTO 3 BUCKETS",
                "SELECT key, string_agg(o_id, ' ' ORDER BY o_id) AS ids FROM (SELECT o_id, c_id / 1.5 AS key FROM orders) AS q GROUP BY key",
            ),
        ],
    ),
    (
        "inner_join",
        &[
            (
                BY,
                "SELECT o.o_id, i.n, p.label FROM orders AS o JOIN items AS i ON o.o_id = i.o_id JOIN parts AS p ON i.p_id = p.p_id",
            ),
            (BY, "SELECT l.o_id, r.n FROM orders AS l JOIN orders AS r ON l.c_id = r.c_id"),
        ],
    ),
    (
        "outer_join",
        &[
            (BY, "SELECT o.o_id, i.n FROM orders AS o LEFT JOIN items AS i ON o.o_id = i.o_id"),
            (BY, "SELECT i.o_id, o.n FROM orders AS o RIGHT JOIN items AS i ON o.o_id = i.o_id"),
            (
                BY,
                "SELECT coalesce(o.o_id, i.o_id) AS o_id, count(*) AS n FROM orders AS o FULL JOIN items AS i ON o.o_id = i.o_id GROUP BY coalesce(o.o_id, i.o_id)",
            ),
            (BY, "SELECT p.p_id, o.o_id FROM parts AS p LEFT JOIN orders AS o ON p.p_id = o.n"),
            (BY, "SELECT p.p_id, o.o_id FROM parts AS p FULL JOIN orders AS o ON p.p_id = o.n"),
        ],
    ),
    (
        "semi_and_anti_join",
        &[
            (
                BY,
                "SELECT o_id FROM orders WHERE o_id IN (SELECT o_id FROM items WHERE n > 1) AND NOT EXISTS (SELECT 1 FROM parts WHERE p_id = orders.n)",
            ),
            (BY, "SELECT p_id FROM parts WHERE EXISTS (SELECT 1 FROM orders WHERE n = p_id)"),
        ],
    ),
    (
        "null_aware_anti_join",
        &[
            (BY, "SELECT o_id FROM orders WHERE o_id NOT IN (SELECT p_id FROM parts)"),
            (
                "CLUSTERED BY (c_id) INTO 3 BUCKETS",
                "SELECT c_id, n FROM orders WHERE c_id NOT IN (SELECT c_id FROM orders WHERE n = 9)",
            ),
            (
                "CLUSTERED BY (c_id) INTO 3 BUCKETS",
                "SELECT p_id FROM parts WHERE p_id NOT IN (SELECT c_id FROM orders)",
            ),
        ],
    ),
    (
        "mark_join",
        &[
            (BY, "SELECT o_id FROM orders WHERE n = 1 OR o_id IN (SELECT o_id FROM items)"),
            (BY, "SELECT p_id FROM parts WHERE label = 'p1' OR p_id IN (SELECT n FROM orders)"),
        ],
    ),
    (
        "cross_join",
        &[
            (BY, "SELECT o.o_id, p.label FROM orders AS o CROSS JOIN parts AS p"),
            (BY, "SELECT p.label, q.n FROM parts AS p LEFT JOIN (SELECT o_id, n FROM orders) AS q ON true"),
        ],
    ),
    (
        "aggregate",
        &[
            (BY, "SELECT o_id, status, sum(n) AS n FROM orders GROUP BY o_id, status"),
            (
                BY,
                "SELECT status, sum(n) AS n, count(DISTINCT o_id) AS orders FROM orders GROUP BY status HAVING sum(n) > 1",
            ),
            (BY, "SELECT status, string_agg(n, ',' ORDER BY o_id) AS numbers FROM orders GROUP BY status"),
        ],
    ),
    (
        "grouping_sets",
        &[
            (BY, "SELECT o_id, status, count(*) AS n FROM orders GROUP BY GROUPING SETS ((o_id, status), (o_id))"),
            (BY, "SELECT o_id, string_agg(n, ',' ORDER BY n) AS numbers FROM orders GROUP BY ROLLUP (o_id)"),
        ],
    ),
    ("distinct", &[(BY, "SELECT DISTINCT o_id, n FROM items"), (BY, "SELECT DISTINCT n FROM items")]),
    (
        "distinct_on",
        &[
            (BY, "SELECT DISTINCT ON (o_id) o_id, n FROM items ORDER BY o_id, n"),
            (BY, "SELECT DISTINCT ON (n) o_id, n FROM items ORDER BY n, o_id"),
        ],
    ),
    (
        "window",
        &[
            (BY, "SELECT o_id, rank() OVER (PARTITION BY o_id ORDER BY n) AS place FROM items"),
            (BY, "SELECT o_id, rank() OVER (ORDER BY n) AS place FROM items"),
        ],
    ),
    ("sort", &[(BY, "SELECT o_id, n FROM orders ORDER BY n")]),
    (
        "limit",
        &[
            (BY, "SELECT o_id, n FROM orders ORDER BY n, o_id LIMIT 5 OFFSET 2"),
            (BY, "SELECT o_id, n FROM orders LIMIT 5"),
        ],
    ),
    (
        "union_all",
        &[
            (
                BY,
                "SELECT o_id, count(*) AS n FROM (SELECT o_id FROM orders UNION ALL SELECT o_id FROM items) AS q GROUP BY o_id",
            ),
            (BY, "SELECT o_id, n FROM orders UNION ALL SELECT p_id, 0 FROM parts"),
        ],
    ),
    (
        "intersect_and_except",
        &[
            (
                BY,
                "SELECT o_id, n FROM orders INTERSECT SELECT o_id, n FROM items EXCEPT SELECT o_id, n FROM orders WHERE n = 2",
            ),
            (BY, "SELECT p_id FROM parts EXCEPT SELECT o_id FROM orders"),
        ],
    ),
    (
        "unnest",
        &[
            ("CLUSTERED BY (id) INTO 3 BUCKETS", "SELECT id, unnest(elements) AS element FROM lists"),
            (
                "CLUSTERED BY (id) INTO 3 BUCKETS",
                "SELECT element, string_agg(id, ' ' ORDER BY id) AS ids FROM (SELECT id, unnest(elements) AS element FROM lists) AS q GROUP BY element",
            ),
        ],
    ),
    (
        "recursion",
        &[
            (
                BY,
                "WITH RECURSIVE r AS (SELECT 1 AS d UNION ALL SELECT d + 1 FROM r WHERE d < 3) SELECT o_id, d FROM orders JOIN r ON n = d",
            ),
            (
                BY,
                "WITH RECURSIVE r AS (SELECT o_id FROM orders UNION SELECT o_id + 1 FROM r WHERE o_id < 9) SELECT o_id FROM r",
            ),
        ],
    ),
    (
        "values_and_functions",
        &[(
            BY,
            "SELECT o_id FROM orders JOIN (VALUES (1), (2)) AS v(x) ON n = x JOIN generate_series(1, 2) AS g(y) ON status = y",
        )],
    ),
    (
        "scalar_subquery",
        &[
            (BY, "SELECT o_id FROM orders WHERE n > (SELECT min(p_id) FROM parts)"),
            (BY, "SELECT o_id, (SELECT max(i.n) FROM items AS i WHERE i.o_id = o.o_id) AS n FROM orders AS o"),
            (BY, "SELECT o_id FROM orders WHERE n > (SELECT avg(n) FROM orders)"),
            (BY, "SELECT p_id FROM parts WHERE p_id > (SELECT n FROM orders WHERE o_id = 3)"),
        ],
    ),
    (
        "volatile",
        &[
            (BY, "SELECT o_id, random() AS dice FROM orders"),
            (BY, "SELECT o_id, dice FROM orders CROSS JOIN (SELECT random() AS dice) AS q"),
            (BY, "SELECT o_id FROM orders WHERE random() < 0.5"),
        ],
    ),
    (
        "stored_rows",
        &[(
            AUTO,
            "SELECT o_id, label, rank() OVER (ORDER BY n) AS r FROM (SELECT o.*, i.n AS items, i.p_id, p.label FROM orders AS o
             JOIN items AS i ON o.o_id = i.o_id LEFT JOIN parts AS p ON i.p_id = p.p_id) AS q WHERE status = 1 AND items > 2",
        )],
    ),
    (
        "run_first",
        &[
            (
                BY,
                "SELECT i.o_id, r.place FROM items AS i JOIN (SELECT o_id, rank() OVER (ORDER BY total) AS place FROM (SELECT o_id, sum(n) AS total FROM orders GROUP BY o_id) AS t) AS r ON i.o_id = r.o_id",
            ),
            (
                BY,
                "SELECT q.p_id, i.o_id FROM (SELECT p.p_id, o.n FROM parts AS p LEFT JOIN orders AS o ON p.p_id = o.n) AS q JOIN items AS i ON i.o_id = q.p_id",
            ),
            (
                BY,
                "SELECT o.o_id, q.p_id FROM orders AS o JOIN (SELECT p_id FROM parts ORDER BY label LIMIT 2) AS q ON o.n = q.p_id",
            ),
        ],
    ),
    (
        "found_keys",
        &[
            (AUTO, "SELECT o.c_id, sum(i.n) AS n FROM orders AS o JOIN items AS i ON o.o_id = i.o_id GROUP BY o.c_id"),
            (AUTO, "SELECT row_number() OVER (ORDER BY o_id) AS place, o_id FROM orders"),
            ("", "SELECT o_id FROM orders"),
        ],
    ),
    (
        "coercion",
        &[
            (
                "CLUSTERED BY (p_id) INTO 3 BUCKETS",
                "SELECT i.p_id, p.label FROM items AS i JOIN parts AS p ON i.p_id = p.p_id",
            ),
            (
                "CLUSTERED BY (p_id) INTO 3 BUCKETS",
                "SELECT i.p_id, p.label FROM items AS i JOIN parts AS p ON CAST(i.p_id AS DECIMAL(9, 2)) = p.p_id",
            ),
            (
                "CLUSTERED BY (p_id) INTO 3 BUCKETS",
                "SELECT l.p_id FROM items AS l JOIN items AS r ON coalesce(l.p_id, 0) = coalesce(r.p_id, 0)",
            ),
        ],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_says_how_each_operator_is_cut_or_why_not() {
    let folder = tempfile::tempdir().unwrap();
    for (name, query) in TABLES {
        make_parquet(folder.path(), name, query).await;
    }
    let sources: Vec<String> = TABLES.iter().map(|(name, _)| parquet_source(folder.path(), name)).collect();
    let engine = engine_one_by_one(&folder.path().join("cache"));
    for (name, tasks) in CASES {
        let mut text = String::new();
        for (cut, query) in *tasks {
            let task = format!("CREATE TABLE t {cut} AS\n{query}");
            // The task stands first, so that places in it don't depend on the tables.
            let sql = format!("{task};\n{};", sources.join(";\n"));
            let pipeline = chunkwise::sql::parse(&sql, "t.sql", folder.path()).unwrap();
            let explained = engine.explain(&pipeline, None).await.unwrap_or_else(|error| vec![Err(error)]);
            for explained in explained {
                let explained = explained.unwrap_or_else(|refusal| format!("{refusal}\n"));
                writeln!(text, "{task}\n\n{explained}").unwrap();
            }
        }
        expect_file![plans().join(format!("{name}.txt"))].assert_eq(&text);
    }
}

#[test]
fn every_file_has_its_case() {
    let files = std::fs::read_dir(plans()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<String> = files.map(|file| file.file_stem().unwrap().to_str().unwrap().to_string()).collect();
    let mut cases: Vec<String> = CASES.iter().map(|(name, _)| name.to_string()).collect();
    files.sort();
    cases.sort();
    assert_eq!(files, cases);
}

fn plans() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans")
}
