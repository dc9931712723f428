//! Planning ends, and what it costs is bounded: by the nodes of plans that are looked at, not by time.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chunkwise::testing::Planning;

/// Of each of the queries below so many nodes are looked at, at most; a search that tries everything looks at a
/// million.
const MOST_NODES: usize = 20_000;

/// Number of views of which each squares the key of the one before.
const SQUARED: usize = 40;

fn schema() -> SchemaRef {
    let columns = ["k", "v", "w"].map(|name| Field::new(name, DataType::Int64, true));
    Arc::new(Schema::new([columns.to_vec(), vec![Field::new("s", DataType::Utf8View, true)]].concat()))
}

/// Tables `t0`, `t1`, … of `k`, `v`, `w` and `s`, and a task over them.
fn planned(tables: usize, cut: &str, query: &str) -> Planning {
    let mut sql = String::new();
    for table in 0..tables {
        writeln!(sql, "CREATE EXTERNAL TABLE t{table} STORED AS PARQUET LOCATION 't{table}.parquet';").unwrap();
    }
    // What is squared again and again.
    for view in 1..=SQUARED {
        let of = if view == 1 { "t0".into() } else { format!("squared{}", view - 1) };
        writeln!(sql, "CREATE VIEW squared{view} AS SELECT k * k AS k, v FROM {of};").unwrap();
    }
    write!(sql, "CREATE TABLE task {cut} AS {query}").unwrap();
    let inputs: BTreeMap<String, SchemaRef> = (0..tables).map(|table| (format!("t{table}"), schema())).collect();
    let pipeline = chunkwise::sql::parse(&sql, "t.sql", Path::new("/")).unwrap();
    Planning::new(&pipeline, "task", &inputs).unwrap()
}

/// Calls a test with a stack that is large enough for plans that are deep in unoptimised builds.
fn on_a_large_stack(test: fn()) {
    std::thread::Builder::new().stack_size(256 << 20).spawn(test).unwrap().join().unwrap();
}

#[test]
fn equalities_that_hold_themselves_are_put_into_each_other_a_bounded_number_of_times() {
    on_a_large_stack(|| {
        let long: Vec<String> = (1..300).map(|at| format!("'{at}', s")).collect();
        let equal: Vec<String> = (0..300).map(|at| format!("k * {at} = v * {at} AND k + {at} = w * {at}")).collect();
        let queries = [
            "SELECT k, s FROM t0 WHERE k = k * k",
            "SELECT k, s FROM t0 WHERE k = k + k",
            "SELECT k, s FROM t0 WHERE k = k - k",
            "SELECT k, s FROM t0 WHERE k IN (k * k)",
            "SELECT k, s FROM t0 WHERE k = v + 1 AND v = k + 1",
            "SELECT k, s FROM t0 WHERE k = v * v AND v = k * k",
            "SELECT k, s FROM t0 WHERE k = v * v AND v = w * w AND w = k * k",
            "SELECT k, count(*) AS n FROM t0 WHERE k = v * v AND v = k * k GROUP BY k",
            "SELECT k, count(*) OVER (PARTITION BY k) AS n FROM t0 WHERE k = v * v AND v = k * w",
            "SELECT a.k FROM t0 a JOIN t1 b ON a.k = b.k AND b.k = a.k * a.k",
            "SELECT a.k FROM t0 a JOIN t1 b ON a.k = b.k * b.k AND b.k = a.k * a.k AND a.v = a.k * a.v",
            "SELECT a.k FROM t0 a LEFT JOIN t1 b ON a.k = b.k WHERE a.k = a.k * a.k * a.k",
            "SELECT a.k FROM t0 a FULL JOIN t1 b ON a.k = b.k AND a.k = b.k * b.k
         FULL JOIN t2 c ON coalesce(a.k, b.k) = c.k AND coalesce(a.k, b.k) * coalesce(a.k, b.k) = c.k",
            "SELECT a.s FROM t0 a JOIN t1 b ON upper(a.s) = b.s AND lower(b.s) = a.s WHERE a.s = upper(b.s)",
            "SELECT k FROM t0 WHERE k = coalesce(k, v) AND v = coalesce(v, k) AND w = coalesce(k, v, w)",
            &format!("SELECT k, count(*) AS n FROM squared{SQUARED} GROUP BY k"),
            &format!("SELECT k, v FROM squared{SQUARED} WHERE k = v"),
            &format!("SELECT concat({0}) AS k, count(*) AS n FROM t0 GROUP BY concat({0})", long.join(", ")),
            &format!("SELECT k, v, w FROM t0 WHERE {}", equal.join(" AND ")),
        ];
        let cuts = [
            "CLUSTERED BY (k) INTO 3 BUCKETS",
            "WITH (chunk_by = 'hash', chunks = 3)",
            "WITH (chunk_by = 'range', chunks = 3)",
        ];
        for query in queries {
            // The first needs a key of that name.
            let cuts = if query.contains("a.s =") { &cuts[1..] } else { &cuts[..] };
            for cut in cuts {
                let (nodes, error) = planned(3, cut, query).work();
                assert!(nodes > 0 && nodes <= MOST_NODES, "{nodes} nodes for {cut}\n{query}");
                // What a bound leaves out may be the key that would do, and then it is said.
                let is_right =
                    error.as_ref().is_none_or(|e| e.message().contains("not all of them were tried as keys"));
                assert!(is_right, "{error:?} for {cut}\n{query}");
            }
        }
    });
}

#[test]
fn a_union_or_join_of_many_tables_has_keys() {
    on_a_large_stack(|| {
        let union = |tables: usize| {
            let branches: Vec<_> = (0..tables).map(|table| format!("SELECT k, v, s FROM t{table}")).collect();
            branches.join(" UNION ALL ")
        };
        // Each table is joined to the one before, so that the key has to be carried on.
        let joins: String = (1..70).map(|t| format!(" JOIN t{t} ON t{t}.k = t{}.k", t - 1)).collect();
        let same = (1..70).map(|t| format!(" LEFT JOIN t{t} ON t{t}.k = t0.k")).collect::<String>();
        for (tables, query) in [
            (63, format!("SELECT k, count(*) OVER (PARTITION BY k ORDER BY v, s) AS n FROM ({}) u", union(63))),
            (64, format!("SELECT k, count(*) OVER (PARTITION BY k ORDER BY v, s) AS n FROM ({}) u", union(64))),
            (65, format!("SELECT k, count(*) OVER (PARTITION BY k ORDER BY v, s) AS n FROM ({}) u", union(65))),
            (200, format!("SELECT k, count(*) OVER (PARTITION BY k ORDER BY v, s) AS n FROM ({}) u", union(200))),
            (200, format!("SELECT k, sum(v) AS v FROM ({}) u GROUP BY k", union(200))),
            (200, format!("SELECT k % 7 AS k, sum(v) AS v FROM ({}) u GROUP BY k % 7", union(200))),
            (70, format!("SELECT t69.k, t0.v FROM t0{joins}")),
            (70, format!("SELECT t0.k, t69.v FROM t0{same}")),
        ] {
            for cut in ["CLUSTERED BY (k) INTO 3 BUCKETS", "WITH (chunk_by = 'hash', chunks = 3)"] {
                let planning = planned(tables, cut, &query);
                let (nodes, error) = planning.work();
                assert!(error.is_none() && nodes <= MOST_NODES, "{nodes} nodes, {error:?}\n{query:.300}");
                assert_eq!(planning.cut_scans(), tables, "{cut}\n{query:.300}");
            }
        }
    });
}

/// How many times as long the second task may take as the first one, which is a third as long: a linear time is three
/// times as long at most, a square one nine times.
const MOST_TIMES: f64 = 6.0;

/// The query of a size.
type Query<'a> = &'a dyn Fn(usize) -> String;

/// `((a + 1 < 5 OR a + 2 < 6) AND a + 3 < 7) OR …`
fn nested(depth: usize) -> String {
    let op = |at: usize| if at.is_multiple_of(2) { "OR" } else { "AND" };
    (0..depth).fold("a + 1 < 5".into(), |inner, at| format!("({inner} {} a + {at} < {})", op(at), at + 4))
}

#[test]
fn what_a_condition_or_chain_costs_grows_with_its_length() {
    on_a_large_stack(|| {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(costs_grow_with_length());
    });
}

async fn costs_grow_with_length() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::support::engine(&folder.path().join("cache"));
    let row = "FROM (VALUES (1)) t(a)";
    let terms = |op: &str, count: usize| {
        let terms: Vec<_> =
            (0..count).map(|at| format!("a + {at} < {}", if op == " AND " { at + 5 } else { at })).collect();
        terms.join(op)
    };
    let cases: [(Query<'_>, usize, &[&str]); 6] = [
        (&|size| format!("SELECT a {row} WHERE {}", terms(" AND ", size)), 2_100, &["1"]),
        (&|size| format!("SELECT a {row} WHERE {}", terms(" OR ", size)), 2_100, &[]),
        (&|size| format!("SELECT {} AS v {row}", nested(size)), 42, &["true"]),
        (&|size| format!("SELECT a {row} WHERE {}", nested(size)), 42, &["1"]),
        (&|size| format!("SELECT {} AS v", vec!["1"; size].join(" + ")), 480, &["480"]),
        (&|size| format!("SELECT {} AS v {row}", vec!["a"; size].join(" + ")), 480, &["480"]),
    ];
    let mut tasks = 0;
    for (query, size, expected) in cases {
        let mut time = async |size: usize| {
            tasks += 1;
            let (name, query) = (format!("task_{tasks}"), query(size));
            let start = std::time::Instant::now();
            let report = crate::support::run(&engine, &format!("CREATE TABLE {name} AS {query}"), folder.path()).await;
            (start.elapsed().as_secs_f64(), report.tasks.last().map(|task| task.name.clone()))
        };
        // Other processes may hold one of them up.
        let mut times = Vec::new();
        for _ in 0..3 {
            let (short, _) = time(size / 3).await;
            let (long, name) = time(size).await;
            assert_eq!(crate::support::texts(&engine, &name.unwrap()).await, expected);
            times.push(long / short);
            if long / short <= MOST_TIMES {
                break;
            }
        }
        assert!(times.iter().any(|times| *times <= MOST_TIMES), "{times:?} for {:.80}", query(size));
    }
}
