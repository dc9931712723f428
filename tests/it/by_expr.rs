//! Chunks by predicates of each input: [`ByExpr::per_input`].

use std::path::Path;
use std::sync::{Arc, Mutex};

use chunkwise::{
    Batched, ByExpr, DematerializationHook, Engine, Event, InputMode, InputPlan, Pipeline, RunOptions, RunReport,
    Status, Task, TaskReport, sql,
};
use datafusion::logical_expr::{Expr, LogicalPlan, col, lit};
use datafusion::prelude::{current_date, random};

use crate::support::{Multiset, engine, make_parquet, oracle, parquet_source, query_rows, read_rows};

const SOURCES: &str = "CREATE EXTERNAL TABLE orders STORED AS PARQUET LOCATION 'orders.parquet';
    CREATE EXTERNAL TABLE items STORED AS PARQUET LOCATION 'items.parquet';
    CREATE VIEW late AS SELECT * FROM orders WHERE amount > 500;";

const ORDERS: &str = "SELECT CASE WHEN value % 11 = 0 THEN NULL ELSE value % 200 END AS k,
    CASE value % 4 WHEN 0 THEN 'open' WHEN 1 THEN 'paid' WHEN 2 THEN 'sent' END AS status,
    DATE '2026-01-01' + CAST(value % 365 AS INT) AS day, value AS amount,
    CASE value % 5 WHEN 0 THEN CAST('-0.0' AS DOUBLE) WHEN 1 THEN 0.0 WHEN 2 THEN CAST('NaN' AS DOUBLE) ELSE value % 9 END AS x
    FROM generate_series(1, 1000) AS g(value)";

const ITEMS: &str = "SELECT CASE WHEN value % 13 = 0 THEN NULL ELSE value % 250 END AS k, value % 9 AS quantity
    FROM generate_series(1, 3000) AS g(value)";

async fn data(folder: &Path) {
    make_parquet(folder, "orders", ORDERS).await;
    make_parquet(folder, "items", ITEMS).await;
}

async fn expected(folder: &Path, query: &str) -> Multiset {
    let late = "CREATE VIEW late AS SELECT * FROM orders WHERE amount > 500".to_string();
    query_rows(&oracle(&[parquet_source(folder, "orders"), parquet_source(folder, "items"), late]).await, query).await
}

fn pipeline(folder: &Path, tasks: impl IntoIterator<Item = Task>) -> Pipeline {
    let sources = sql::definitions(SOURCES, "sources.sql", folder).unwrap();
    tasks.into_iter().fold(Pipeline::builder().with(sources), |builder, task| builder.with(task)).build().unwrap()
}

async fn report(engine: &Engine, folder: &Path, task: Task) -> RunReport {
    engine.run(&pipeline(folder, [task]), &RunOptions::default()).await.unwrap_or_else(|e| panic!("{e}"))
}

async fn run(engine: &Engine, folder: &Path, task: Task) -> TaskReport {
    report(engine, folder, task).await.tasks.remove(0)
}

async fn error(engine: &Engine, folder: &Path, task: Task) -> String {
    let report = run(engine, folder, task).await;
    assert_eq!(report.status, Status::Failed, "{report:#?}");
    report.reason
}

fn task(query: &str) -> Task {
    sql::task("t", query).unwrap()
}

/// Chunks by the key: NULL, below 50, below 120, and from there.
fn by_k() -> Vec<Expr> {
    let k = || col("k");
    vec![k().is_null(), k().lt(lit(50)), k().between(lit(50), lit(119)), k().gt_eq(lit(120))]
}

fn by_amount() -> Vec<Expr> {
    let amount = || col("amount");
    vec![
        amount().lt(lit(10)),
        amount().between(lit(10), lit(400)),
        (amount() % lit(2)).eq(lit(0)).and(amount().gt(lit(400))),
        (amount() % lit(2)).eq(lit(1)).and(amount().gt(lit(400))),
    ]
}

fn by_quantity() -> Vec<Expr> {
    let quantity = |values: &[i64]| col("quantity").in_list(values.iter().map(|value| lit(*value)).collect(), false);
    vec![quantity(&[8]), quantity(&[0, 1, 2]), quantity(&[3, 4]), quantity(&[5, 6, 7])]
}

fn both(orders: Vec<Expr>, items: Vec<Expr>) -> ByExpr {
    ByExpr::per_input([("orders", orders), ("items", items)])
}

fn orders(predicates: Vec<Expr>) -> ByExpr {
    ByExpr::per_input([("orders", predicates)])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_proved_has_the_rows_of_the_whole_however_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let status = vec![col("status").is_null(), col("status").gt(lit("open")), col("status").eq(lit("open"))];
    let x = vec![col("x").gt(lit(7.0)), col("x").lt_eq(lit(7.0))];
    let cases: Vec<(&str, ByExpr)> = vec![
        ("SELECT amount, status FROM orders WHERE status <> 'paid'", orders(by_amount())),
        (
            "SELECT amount + 1 AS a FROM orders WHERE amount > 400 UNION ALL SELECT quantity FROM items",
            both(by_amount(), by_quantity()),
        ),
        // One of them is whole in every chunk.
        ("SELECT o.amount, i.quantity FROM orders o JOIN items i ON o.k = i.k", orders(by_amount())),
        ("SELECT o.amount, i.quantity FROM orders o LEFT JOIN items i ON o.k = i.k", orders(by_amount())),
        ("SELECT amount FROM orders UNION ALL SELECT quantity FROM items", orders(status.clone())),
        // Both are cut by the same function of what is equal.
        ("SELECT o.amount, i.quantity FROM orders o JOIN items i ON o.k = i.k", both(by_k(), by_k())),
        ("SELECT o.amount, i.quantity FROM orders o FULL JOIN items i ON o.k = i.k", both(by_k(), by_k())),
        ("SELECT amount FROM orders o WHERE EXISTS (SELECT 1 FROM items i WHERE o.k = i.k)", both(by_k(), by_k())),
        ("SELECT a.amount, b.status FROM orders a JOIN orders b ON a.amount = b.amount", orders(by_amount())),
        // The predicates are functions of the groups.
        ("SELECT k, sum(amount) AS s FROM orders GROUP BY k", orders(by_k())),
        // A constant that is also one of a predicate's.
        ("SELECT k, max(fifty) AS f FROM (SELECT k, 50 AS fifty FROM orders) AS o GROUP BY k", orders(by_k())),
        ("SELECT DISTINCT k, status FROM orders", orders(status)),
        ("SELECT o.k, count(*) AS n FROM orders o LEFT JOIN items i ON o.k = i.k GROUP BY o.k", both(by_k(), by_k())),
        (
            "SELECT coalesce(o.k, i.k) AS k, count(*) AS n FROM orders o FULL JOIN items i ON o.k = i.k GROUP BY 1",
            both(by_k(), by_k()),
        ),
        // In two phases.
        ("SELECT status, sum(amount) AS s, count(*) AS n FROM orders GROUP BY status", orders(by_k())),
        ("SELECT count(*) AS n FROM orders", orders(vec![lit(false), lit(true)])),
        ("SELECT amount FROM orders ORDER BY amount DESC LIMIT 7", orders(by_amount())),
        // NaN is above 7, which statistics of row groups don't tell, and groups don't tell -0.0 from 0.0.
        ("SELECT amount, x FROM orders", orders(x.clone())),
        ("SELECT amount, x FROM orders WHERE x > 7", orders(x)),
        (
            "SELECT abs(x) AS x, count(*) AS n FROM orders GROUP BY 1",
            orders(vec![
                datafusion::prelude::signum(col("x")).gt_eq(lit(0.0)),
                datafusion::prelude::signum(col("x")).lt(lit(0.0)),
            ]),
        ),
        // Of a view the source is cut.
        ("SELECT amount, status FROM late", orders(by_k())),
        // Dates are compared with text as in SQL.
        (
            "SELECT day, amount FROM orders",
            orders(vec![col("day").lt(lit("2026-07-01")), col("day").gt_eq(lit("2026-07-01"))]),
        ),
    ];
    for (at, (query, hook)) in cases.into_iter().enumerate() {
        let expected = expected(folder.path(), query).await;
        for read_by in ["rescan", "split"] {
            let engine = engine(&folder.path().join(format!("{read_by}_{at}")));
            let task = sql::definitions(
                &format!("CREATE TABLE t WITH (read_by = '{read_by}', chunks = 2) AS {query}"),
                "t.sql",
                folder.path(),
            )
            .unwrap();
            let sources = sql::definitions(SOURCES, "sources.sql", folder.path()).unwrap();
            let pipeline = Pipeline::builder().with(sources).with(task).build().unwrap();
            let pipeline = pipeline.configure("t", |task| task.invoke(hook.clone())).unwrap();
            let report = engine.run(&pipeline, &RunOptions::default()).await.unwrap().tasks.remove(0);
            assert_eq!((report.status, &report.assumed), (Status::Executed, &None), "{query}: {report:#?}");
            assert!(report.chunks > 1, "{query}: {report:#?}");
            assert_eq!(read_rows(&engine, "t").await.unwrap(), expected, "{query}, {read_by}");
            let again = engine.run(&pipeline, &RunOptions::default()).await.unwrap().tasks.remove(0);
            assert_eq!(again.status, Status::Reused, "{query}: {again:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_no_predicate_or_of_several_fail_the_task() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let query = "SELECT amount, k FROM orders WHERE amount < 300";
    let cases = [
        // Also of rows that the query leaves out, of which the predicates need not say where they are.
        (vec![col("amount").lt(lit(500)), col("amount").gt(lit(500))], "for 1 row none of its 2 predicates holds"),
        (
            vec![col("amount").lt(lit(0)), col("amount").lt_eq(lit(500)), col("amount").gt_eq(lit(499))],
            "for 2 rows the predicates of chunks 1 and 2 hold; change them",
        ),
        (vec![col("k").lt(lit(50)), col("k").gt_eq(lit(50))], "for 90 rows none of its 2 predicates holds; change"),
        (vec![col("k").lt(lit(50)), !col("k").lt(lit(50))], "NULLs need an IS NULL in one of them"),
        (vec![lit(true), lit(true)], "for 1000 rows the predicates of chunks 0 and 1 hold"),
    ];
    for (predicates, words) in cases {
        for task in [task(query), task(query).assume_chunkable("so it is")] {
            let message = error(&engine, folder.path(), task.invoke(orders(predicates.clone()))).await;
            assert!(message.contains("input `orders` is not cut by its predicates: "), "{message}");
            assert!(message.contains(words), "{message}");
            assert_eq!(engine.published_tables().unwrap().len(), 0);
        }
    }
    // The second of two inputs.
    let union = "SELECT k FROM orders UNION ALL SELECT k FROM items";
    let wrong = by_quantity().into_iter().take(3).chain([col("quantity").eq(lit(5))]).collect();
    let message = error(&engine, folder.path(), task(union).invoke(both(by_k(), wrong))).await;
    assert!(
        message.contains("input `items` is not cut") && message.contains("for 666 rows none of its 4"),
        "{message}"
    );
    let mended = run(&engine, folder.path(), task(union).invoke(both(by_k(), by_quantity()))).await;
    assert_eq!(mended.status, Status::Executed);
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), union).await);

    // What is published stays where later rows don't fit.
    let before = engine.published_tables().unwrap().remove(0).version;
    make_parquet(folder.path(), "items", &format!("{ITEMS} UNION ALL SELECT 1, 9")).await;
    let message = error(&engine, folder.path(), task(union).invoke(both(by_k(), by_quantity()))).await;
    assert!(message.contains("for 1 row none"), "{message}");
    assert_eq!(engine.published_tables().unwrap().remove(0).version, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_proved_runs_only_when_its_author_says_so() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let cases = [
        // Right because amounts are unique, which nobody can see.
        (
            "SELECT amount, row_number() OVER (PARTITION BY amount ORDER BY k) AS n FROM orders",
            orders(by_k()),
            "rows of one window partition may lie in different chunks",
        ),
        // Right because the second is what the first is, in other words.
        (
            "SELECT o.amount, i.quantity FROM orders o JOIN items i ON o.k = i.k",
            both(by_k(), by_k().into_iter().map(|predicate| predicate.and(lit(true))).collect()),
            "both sides are cut, but the join's equalities don't pair their keys",
        ),
    ];
    for (at, (query, hook, rule)) in cases.into_iter().enumerate() {
        let engine = engine(&folder.path().join(at.to_string()));
        let message = error(&engine, folder.path(), task(query).invoke(hook.clone())).await;
        assert!(message.contains("can't be cut at") && message.contains(rule), "{message}");
        let assumed = || task(query).invoke(hook.clone()).assume_chunkable("amounts are unique");
        let report = run(&engine, folder.path(), assumed()).await;
        let told = report.assumed.clone().unwrap();
        assert!(told.starts_with("amounts are unique; the prover says: can't be cut") && told.contains(rule), "{told}");
        assert_eq!((report.status, report.chunks), (Status::Executed, 4));
        assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), query).await, "{query}");
        let text = engine.explain(&pipeline(folder.path(), [assumed()]), None).await.unwrap().remove(0).unwrap();
        assert!(text.contains("assumed to be right, which is not proved: amounts are unique"), "{text}");
    }
    // Which of the groups a float is in is not known by what it equals.
    let sign =
        vec![datafusion::prelude::signum(col("x")).gt_eq(lit(0.0)), datafusion::prelude::signum(col("x")).lt(lit(0.0))];
    for query in [
        "SELECT x, row_number() OVER (PARTITION BY x ORDER BY amount) AS n FROM orders",
        "SELECT a.amount FROM orders a JOIN orders b ON a.x = b.x",
    ] {
        let engine = engine(&folder.path().join("floats"));
        let message = error(&engine, folder.path(), task(query).invoke(orders(sign.clone()))).await;
        assert!(message.contains("can't be cut at"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_runs_the_chunks_that_it_is_in() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let checked = Arc::new(Mutex::new(Vec::new()));
    let engine = {
        let checked = Arc::clone(&checked);
        let listen = move |event| {
            if let Event::Checked { input, rows, .. } = event {
                checked.lock().unwrap().push((input, rows));
            }
        };
        Engine::builder().cache_folder(folder.path().join("cache")).jobs(2).on_event(listen).build().unwrap()
    };
    let checked = || std::mem::take(&mut *checked.lock().unwrap());
    let query = "SELECT k, amount AS a FROM orders UNION ALL SELECT k, quantity FROM items";
    let by = |orders, items| task(query).invoke(both(orders, items));
    let first = run(&engine, folder.path(), by(by_amount(), by_quantity())).await;
    assert_eq!((first.executed, checked()), (4, vec![("orders".into(), 1000), ("items".into(), 3000)]));
    let again = run(&engine, folder.path(), by(by_amount(), by_quantity())).await;
    assert_eq!((again.status, checked()), (Status::Reused, vec![]));

    // A row of chunk 1, whose file is checked again.
    make_parquet(
        folder.path(),
        "orders",
        &ORDERS.replace("value % 200 END", "CASE value WHEN 15 THEN 7 ELSE value % 200 END END"),
    )
    .await;
    let changed = run(&engine, folder.path(), by(by_amount(), by_quantity())).await;
    assert_eq!((changed.executed, changed.reused, checked()), (1, 3, vec![("orders".into(), 1000)]), "{changed:#?}");
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), query).await);

    // A row goes from one chunk to another.
    let mut other = by_amount();
    other[0] = col("amount").lt(lit(11));
    other[1] = col("amount").between(lit(11), lit(400));
    let moved = run(&engine, folder.path(), by(other.clone(), by_quantity())).await;
    assert_eq!((moved.executed, moved.reused, checked()), (2, 2, vec![("orders".into(), 1000)]), "{moved:#?}");
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), query).await);

    // Chunks are added, the others stay.
    let (mut orders, mut items) = (other, by_quantity());
    orders.push(lit(false));
    items[3] = col("quantity").between(lit(5), lit(6));
    items.push(col("quantity").eq(lit(7)));
    let added = run(&engine, folder.path(), by(orders, items)).await;
    assert_eq!((added.chunks, added.executed, added.reused), (5, 2, 3), "{added:#?}");
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), query).await);

    let forced = RunOptions { force: true, ..RunOptions::default() };
    checked();
    engine.run(&pipeline(folder.path(), [by(by_amount(), by_quantity())]), &forced).await.unwrap();
    assert_eq!(checked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn predicates_that_can_not_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let union = || task("SELECT k FROM orders UNION ALL SELECT k FROM late UNION ALL SELECT k FROM items");
    let short = by_quantity()[1..].to_vec();
    let none: [(&str, Vec<Expr>); 0] = [];
    let cases = [
        (
            union().invoke(both(by_k(), short)),
            "input `orders` is given 4 predicates and input `items` 3; give each one",
        ),
        (
            union().invoke(ByExpr::per_input([("nothing", by_k())])),
            "reads no source or task `nothing`; it reads items, orders",
        ),
        // A view has no rows of its own.
        (
            union().invoke(ByExpr::per_input([("late", by_k())])),
            "reads no source or task `late`; it reads items, orders",
        ),
        (union().invoke(ByExpr::per_input([("orders", by_k()), ("orders", by_k())])), "given predicates twice"),
        (union().invoke(ByExpr::per_input(none)), "no input is given predicates"),
        (union().invoke(orders(vec![])), "use 1 to 4096"),
        (union().invoke(orders(vec![lit(true); 4097])), "use 1 to 4096"),
        (
            union().invoke(orders(vec![col("quantity").eq(lit(1))])),
            "of input `orders` reads quantity, which is not one of its columns; name one of k, status, day, amount, x",
        ),
        (union().invoke(orders(vec![col("o.k").is_null()])), "reads o.k, which is not one of its columns"),
        (union().invoke(orders(vec![random().lt(lit(0.5))])), "not a function of the row alone: `random()`"),
        (
            union().invoke(orders(vec![col("day").lt(current_date())])),
            "not a function of the row alone: `current_date()`",
        ),
        (union().invoke(orders(vec![col("k") + lit(1)])), "has type Int64; write a condition"),
        (union().invoke(orders(by_k())).replicate("orders"), "is given predicates and is to be replicated"),
        (
            union().invoke(orders(by_k())).input("items", ["k"]),
            "is given columns to be cut by, and the task predicates",
        ),
    ];
    for (task, words) in cases {
        let message = error(&engine, folder.path(), task).await;
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(engine.published_tables().unwrap().len(), 0);
}

/// Lets a task see large amounts only, and masks them.
#[derive(Debug)]
struct Masked;

impl DematerializationHook for Masked {
    fn name(&self) -> &str {
        "masked"
    }

    fn rewrite(&self, input: InputPlan<'_>) -> datafusion::common::Result<LogicalPlan> {
        let columns = input.plan().schema().columns().into_iter().map(|column| match column.name.as_str() {
            "amount" => (Expr::Column(column) % lit(100)).alias("amount"),
            _ => Expr::Column(column),
        });
        let columns: Vec<_> = columns.collect();
        Ok(input.dataframe().filter(col("amount").gt(lit(400)))?.select(columns)?.into_unoptimized_plan())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_is_a_source_or_a_task_below_views_and_hooks() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    // The predicates are of the input as it is, not of what the hook makes of it.
    let hidden = task("SELECT amount, k FROM late UNION ALL SELECT amount, k FROM orders")
        .dematerialize("orders", Masked)
        .invoke(orders(by_amount()));
    assert_eq!(run(&engine, folder.path(), hidden).await.status, Status::Executed);
    let rows = "SELECT amount % 100 AS amount, k FROM orders WHERE amount > 400";
    let rows = format!("SELECT amount, k FROM ({rows}) WHERE amount > 500 UNION ALL {rows}");
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), &rows).await);

    // A task's table, stored by a key, is cut by predicates, and what they cut is not stored by any key.
    let before = sql::task("before", "SELECT k, sum(amount) AS amount FROM orders GROUP BY k").unwrap();
    let before = || before.clone().invoke(Batched::by(["k"]).chunks(3));
    let middle = |predicates| {
        task("SELECT k, amount + 1 AS amount FROM before").invoke(ByExpr::per_input([("before", predicates)]))
    };
    let after = || {
        sql::task("after", "SELECT k, max(amount) AS m FROM t GROUP BY k").unwrap().invoke(Batched::by(["k"]).chunks(4))
    };
    let tasks = |predicates| pipeline(folder.path(), [before(), middle(predicates), after()]);
    let report = engine.run(&tasks(by_k()), &RunOptions::default()).await.unwrap();
    assert!(report.succeeded(), "{report:#?}");
    assert_eq!((report.task("t").unwrap().executed, report.task("after").unwrap().executed), (4, 4));
    let modes = ["t", "after"].map(|task| report.task(task).unwrap().inputs[0].mode);
    assert_eq!(modes, [InputMode::Rescan, InputMode::Rescan]);
    let rows = "SELECT k, sum(amount) + 1 AS m FROM orders GROUP BY k";
    assert_eq!(read_rows(&engine, "after").await.unwrap(), expected(folder.path(), rows).await);
    let dry = RunOptions { dry_run: true, force: true, ..RunOptions::default() };
    let planned = engine.run(&tasks(by_k()), &dry).await.unwrap();
    assert!(planned.tasks.iter().all(|task| task.status == Status::Planned), "{planned:#?}");
    // A task of which rows don't fit fails the one that reads it, and no other.
    let report = engine.run(&tasks(by_k()[1..].to_vec()), &RunOptions::default()).await.unwrap();
    let statuses: Vec<Status> = report.tasks.iter().map(|task| task.status).collect();
    assert_eq!(statuses, [Status::Reused, Status::Failed, Status::Skipped], "{report:#?}");
    assert!(
        report.tasks[1].reason.contains("input `before` is not cut by its predicates: for 1 row none"),
        "{report:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_how_each_input_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let query = "SELECT o.k, i.quantity FROM orders o JOIN items i ON o.k = i.k UNION ALL SELECT k, amount FROM orders";
    let text = async |hook: ByExpr| {
        let explained = engine.explain(&pipeline(folder.path(), [task(query).invoke(hook)]), None).await;
        explained.unwrap().remove(0).unwrap()
    };
    let halves = vec![col("k").is_null().or(col("k").lt(lit(100))), col("k").gt_eq(lit(100))];
    let shown = text(both(halves.clone(), halves.clone())).await;
    for line in [
        "  2 chunks by predicates of each input; that one of them holds for each row is checked before a chunk runs\n",
        "MiB and keeps its rows by (k IS NULL OR k < Int32(100), k >= Int32(100))\n",
        "inner join on o.k = i.k: cut by predicates over k\n",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    let shown = text(orders(halves)).await;
    assert!(shown.contains("items   replicate: whole in every chunk; it is given no predicates\n"), "{shown}");
    let many = (0..20).map(|at| col("amount").eq(lit(at))).collect();
    let shown = text(orders(many)).await;
    assert!(shown.contains("amount = Int32(7), and 12 more)\n"), "{shown}");
}
