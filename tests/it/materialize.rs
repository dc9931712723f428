//! Rows that a task stores on its way, and chunks that it makes itself.

use std::path::Path;

use arrow::datatypes::DataType;
use chunkwise::{
    Batched, ByValue, Engine, FreshInput, Pipeline, RunOptions, Status, StepPart, Task, TaskInputs, TaskReport, Tasks,
    Whole, sql,
};
use datafusion::common::Result;
use datafusion::functions_aggregate::expr_fn::{count, max, sum};
use datafusion::logical_expr::{JoinType, cast, col, lit};
use datafusion::prelude::{DataFrame, random};

use crate::support::{Multiset, engine, make_parquet, oracle, parquet_source, query_rows, read_rows};

const SOURCES: &str = "CREATE EXTERNAL TABLE items STORED AS PARQUET LOCATION 'items.parquet';
    CREATE EXTERNAL TABLE other STORED AS PARQUET LOCATION 'other.parquet';";

fn items(rows: u32) -> String {
    format!(
        "SELECT CASE WHEN value % 13 = 0 THEN NULL ELSE value % 250 END AS k, value % 12 AS month, value AS amount
        FROM generate_series(1, {rows}) AS g(value)"
    )
}

async fn data(folder: &Path) {
    make_parquet(folder, "items", &items(3000)).await;
    make_parquet(
        folder,
        "other",
        "SELECT value AS k, 0 AS month, value AS amount FROM generate_series(1, 9) AS g(value)",
    )
    .await;
}

async fn expected(folder: &Path, query: &str) -> Multiset {
    let sources = [parquet_source(folder, "items"), parquet_source(folder, "other")];
    query_rows(&oracle(&sources).await, query).await
}

fn pipeline(folder: &Path, task: Task) -> Pipeline {
    let sources = sql::definitions(SOURCES, "sources.sql", folder).unwrap();
    Pipeline::builder().with(sources).with(task).build().unwrap()
}

async fn run(engine: &Engine, folder: &Path, task: Task) -> TaskReport {
    engine.run(&pipeline(folder, task), &RunOptions::default()).await.unwrap_or_else(|e| panic!("{e}")).tasks.remove(0)
}

async fn failure(engine: &Engine, folder: &Path, task: Task) -> String {
    match engine.run(&pipeline(folder, task), &RunOptions::default()).await {
        Ok(report) => {
            assert_eq!(report.tasks[0].status, Status::Failed, "{report:#?}");
            report.tasks[0].reason.clone()
        }
        Err(error) => error.to_string(),
    }
}

const PER_KEY: &str = "SELECT k, sum(amount) AS amount, count(*) AS n FROM items GROUP BY k";

fn per_key(inputs: &TaskInputs) -> Result<DataFrame> {
    let aggregates = vec![sum(col("amount")).alias("amount"), count(lit(1)).alias("n")];
    inputs.materialize("per_key", inputs.table("items")?.aggregate(vec![col("k")], aggregates)?)
}

/// What is above the mean of keys, of rows that are stored once and read twice.
fn above() -> Task {
    Task::dataframe("t", ["items"], |inputs| {
        let per_key = per_key(inputs)?;
        let most = per_key.clone().aggregate(vec![], vec![max(col("amount")).alias("most")])?;
        per_key
            .join_on(most, JoinType::Inner, [(col("amount") * lit(2)).gt(col("most"))])?
            .select_columns(&["k", "amount"])
    })
}

const ABOVE: &str = "SELECT k, amount FROM (SELECT k, sum(amount) AS amount FROM items GROUP BY k) AS a,
    (SELECT max(amount) AS most FROM (SELECT sum(amount) AS amount FROM items GROUP BY k) AS b) AS m WHERE amount * 2 > most";

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_stored_once_and_read_on() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let expected = expected(folder.path(), ABOVE).await;
    assert!(expected.rows > 0);
    for (name, task, chunks) in [
        ("none", above(), [1, 1]),
        ("whole", above().invoke(Whole), [1, 1]),
        ("hash", above().invoke(Batched::by(["k"]).chunks(5)), [5, 5]),
        ("values", above().invoke(ByValue::values("k", [7i64, 8])), [3, 3]),
    ] {
        let engine = engine(&folder.path().join(name));
        let report = run(&engine, folder.path(), task.clone()).await;
        let first = &report.steps[0];
        assert_eq!((first.name.as_str(), first.part), ("t#per_key", StepPart::Materialized), "{name}: {report:#?}");
        let last = report.steps.last().unwrap();
        assert_eq!([first.chunks, last.chunks], chunks, "{name}: {report:#?}");
        assert_eq!(read_rows(&engine, "t").await.unwrap(), expected, "{name}");
        let again = run(&engine, folder.path(), task).await;
        assert_eq!((again.status, again.executed), (Status::Reused, 0), "{name}: {again:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_as_it_was_stored_is_the_table_and_what_nobody_reads_is_not_computed() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let task = Task::dataframe("t", ["items"], |inputs| {
        let unread = inputs.table("items")?.select(vec![(col("amount") / lit(0)).alias("fails")])?;
        inputs.materialize("unread", unread)?;
        per_key(inputs)
    });
    let report = run(&engine, folder.path(), task.invoke(Batched::by(["k"]).chunks(3))).await;
    assert_eq!((report.steps.len(), report.executed), (1, 3), "{report:#?}");
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), PER_KEY).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_that_can_not_be_cut_runs_over_rows_that_are() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let task = Task::dataframe("t", ["items"], |inputs| {
        let ordered = vec![col("amount").sort(false, true)];
        per_key(inputs)?.sort(ordered)?.limit(3, Some(4))
    });
    let report = run(&engine, folder.path(), task.invoke(Batched::by(["k"]).chunks(4))).await;
    assert_eq!((report.steps[0].chunks, report.status), (4, Status::Executed), "{report:#?}");
    let whole = format!("SELECT k, amount, n FROM ({PER_KEY}) AS p ORDER BY amount DESC LIMIT 4 OFFSET 3");
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), &whole).await);
}

/// A chunk for each of these months, and one of another source; the months' rows count by `factor`.
fn months(months: &[i64], factor: impl Fn(i64) -> i64 + Send + Sync + 'static) -> Task {
    let months = months.to_vec();
    Task::dataframe("t", ["items", "other"], move |inputs| {
        let rows = |table: &str, month: i64, factor: i64| -> Result<DataFrame> {
            let rows = inputs.table(table)?.filter(col("month").eq(lit(month)))?;
            rows.select(vec![col("month"), col("k"), (col("amount") * lit(factor)).alias("amount")])
        };
        let mut chunks = vec![rows("other", 0, 1)?];
        for month in &months {
            chunks.push(rows("items", *month, factor(*month))?);
        }
        inputs.chunks("months", chunks)
    })
}

const MONTHS: &str = "SELECT month, k, amount FROM other WHERE month = 0 UNION ALL
    SELECT month, k, amount FROM items WHERE month IN (1, 3, 5)";

#[tokio::test(flavor = "multi_thread")]
async fn a_union_of_its_own_chunks_runs_those_that_changed() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let report = run(&engine, folder.path(), months(&[1, 3, 5], |_| 1)).await;
    assert_eq!((report.chunks, report.executed, report.steps.len()), (4, 4, 1), "{report:#?}");
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), MONTHS).await);
    let again = run(&engine, folder.path(), months(&[1, 3, 5], |_| 1)).await;
    assert_eq!((again.status, again.reused), (Status::Reused, 4), "{again:#?}");

    // The query of one.
    let other = run(&engine, folder.path(), months(&[1, 3, 5], |month| if month == 3 { 2 } else { 1 })).await;
    assert_eq!((other.executed, other.reused), (1, 3), "{other:#?}");
    let twice = MONTHS.replace("k, amount FROM items", "k, CASE month WHEN 3 THEN 2 ELSE 1 END * amount FROM items");
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), &twice).await);

    // One more, at the end.
    let more = run(&engine, folder.path(), months(&[1, 3, 5, 7], |_| 1)).await;
    assert_eq!((more.executed, more.reused), (1, 4), "{more:#?}");

    // A row of one month, in a source that all others of them read, too.
    make_parquet(folder.path(), "items", &format!("{} UNION ALL SELECT 1, 5, 1000000", items(3000))).await;
    let changed = run(&engine, folder.path(), months(&[1, 3, 5], |_| 1)).await;
    assert_eq!((changed.executed, changed.reused), (1, 3), "{changed:#?}");
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), MONTHS).await);

    // The source of one.
    let row = "SELECT value AS k, 0 AS month, value AS amount FROM generate_series(1, 10) AS g(value)";
    make_parquet(folder.path(), "other", row).await;
    let changed = run(&engine, folder.path(), months(&[1, 3, 5], |_| 1)).await;
    assert_eq!((changed.executed, changed.reused), (1, 3), "{changed:#?}");
    assert!(changed.reason.contains("input `other`; 1 of 4 chunks differ"), "{changed:#?}");
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), MONTHS).await);
    assert!(engine.verify_cache().unwrap().damaged.is_empty());
    let part = engine.table_chunk("t", 2).await.unwrap();
    assert_eq!(
        Multiset::of(part).await,
        expected(folder.path(), "SELECT month, k, amount FROM items WHERE month = 3").await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn own_chunks_are_read_on_like_any_table() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let task = Task::dataframe("t", ["items"], |inputs| {
        let rows = |month: i64| inputs.table("items")?.filter(col("month").eq(lit(month)));
        let all = inputs.chunks("months", [rows(1)?, rows(2)?, rows(1)?])?;
        let per_key = all.aggregate(vec![col("k")], vec![sum(col("amount")).alias("amount")])?;
        inputs.materialize("per_key", per_key)?.filter(col("amount").gt(lit(100)))
    });
    let report = run(&engine, folder.path(), task.clone().invoke(Batched::by(["k"]).chunks(2))).await;
    let chunks: Vec<_> = report.steps.iter().map(|step| (step.name.as_str(), step.chunks)).collect();
    assert_eq!(chunks, [("t#months", 3), ("t#per_key", 2), ("t", 2)], "{report:#?}");
    let whole = "SELECT k, sum(amount) AS amount FROM (SELECT k, amount FROM items WHERE month IN (1, 2) UNION ALL
        SELECT k, amount FROM items WHERE month = 1) AS u GROUP BY k HAVING sum(amount) > 100";
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), whole).await);
    let text = engine.explain(&pipeline(folder.path(), task), None).await.unwrap().remove(0).unwrap();
    assert!(text.contains("step `t#months` of task `t`"), "{text}");
    assert!(text.contains("3 chunks, each with a query of its own"), "{text}");
    assert!(text.contains("stored by the task's function; the next steps read its rows"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_volatile_chunk_runs_each_time() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let task = || {
        Task::dataframe("t", ["items"], |inputs| {
            let chance = inputs.table("items")?.select(vec![random().alias("r")])?;
            let amount = cast(col("amount"), DataType::Float64);
            let sure = inputs.table("items")?.select(vec![amount.alias("r")])?;
            inputs.chunks("parts", [sure, chance])
        })
    };
    run(&engine, folder.path(), task()).await;
    let again = run(&engine, folder.path(), task()).await;
    assert_eq!((again.executed, again.reused), (1, 1), "{again:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_can_not_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let task = |build: fn(&TaskInputs) -> Result<DataFrame>| Task::dataframe("t", ["items"], build);
    let cases = [
        (task(|i| i.materialize("1", i.table("items")?)), "can't name a step"),
        (task(|i| i.chunks("a", [])), "no chunks; give at least one"),
        (
            task(|i| i.chunks("a", [i.table("items")?, i.table("items")?.select_columns(&["k"])?])),
            "chunk 1 of step `a` has columns (k Int64), and chunk 0 has (k Int64, month Int64, amount Int64)",
        ),
        (
            task(|i| {
                i.materialize("a", i.table("items")?)?;
                i.materialize("a", i.table("items")?)
            }),
            "two steps are called `t#a`",
        ),
        (
            task(|i| {
                let other = i.table("items")?.alias("o")?;
                let both = i.table("items")?.join_on(other, JoinType::Inner, [col("items.k").eq(col("o.k"))])?;
                i.materialize("a", both)
            }),
            "two columns of step `a` are named `k`",
        ),
        (
            task(|i| i.chunks("a", [i.table("items")?])).invoke(Batched::by(["k"]).chunks(2)),
            "the task gives chunks that it makes itself",
        ),
    ];
    for (task, words) in cases {
        let message = failure(&engine, folder.path(), task).await;
        assert!(message.contains(words), "{words}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_gives_several_tables_and_stores_once_what_they_share() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let tables = |least: i64| {
        let tables = Task::dataframes("by_size", ["small", "large"], ["items"], move |inputs| {
            let per_key = per_key(inputs)?;
            let kept = inputs.materialize("kept", per_key.filter(col("n").gt(lit(least)))?)?;
            Ok(vec![
                kept.clone().filter(col("amount").lt(lit(18_000)))?,
                kept.filter(col("amount").gt_eq(lit(18_000)))?,
            ])
        });
        tables.each(|task| task.invoke(Batched::by(["k"]).chunks(3)))
    };
    let run = async |tables: Tasks| {
        let sql = format!("{SOURCES} CREATE TABLE n AS SELECT count(*) AS n FROM small;");
        let sql = sql::definitions(&sql, "tasks.sql", folder.path()).unwrap();
        let pipeline = Pipeline::builder().with(sql).with(tables).build().unwrap();
        engine.run(&pipeline, &RunOptions::default()).await
    };
    let report = run(tables(1)).await.unwrap();
    assert!(report.succeeded(), "{report:#?}");
    // Both steps are made once, and three chunks of each table.
    let executed = |name: &str| report.task(name).unwrap().executed;
    assert_eq!((executed("small") + executed("large"), executed("n")), (8, 1), "{report:#?}");
    for (table, comparison) in [("small", "<"), ("large", ">=")] {
        let query = format!("SELECT * FROM ({PER_KEY}) AS p WHERE n > 1 AND amount {comparison} 18000");
        let expected = expected(folder.path(), &query).await;
        assert!(expected.rows > 0, "{table}");
        assert_eq!(read_rows(&engine, table).await.unwrap(), expected, "{table}");
    }
    let again = run(tables(1)).await.unwrap();
    assert!(again.tasks.iter().all(|task| task.status == Status::Reused), "{again:#?}");

    let chance = Task::dataframes("chance", ["small", "other_half"], ["items"], |inputs| {
        let drawn = inputs.table("items")?.with_column("r", random())?;
        let drawn = inputs.materialize("drawn", drawn)?;
        Ok(vec![drawn.clone().filter(col("r").lt(lit(0.5)))?, drawn.filter(col("r").gt_eq(lit(0.5)))?])
    });
    let error = run(chance).await.unwrap().task("small").unwrap().reason.clone();
    assert!(error.contains("random() gives each table of `chance` other values"), "{error}");
    let fewer = Task::dataframes("fewer", ["small", "large"], ["items"], |inputs| Ok(vec![inputs.table("items")?]));
    let error = run(fewer).await.unwrap().task("small").unwrap().reason.clone();
    assert!(error.contains("gives 1 tables, and 2 are declared"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_have_the_types_that_their_queries_have_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = ("SELECT 1 AS k, CAST(2 AS INT) AS v", "SELECT 1 AS k, 2.5 AS v UNION ALL SELECT 2, 5000000000");
    make_parquet(folder.path(), "items", a).await;
    make_parquet(folder.path(), "other", b).await;
    let engine = engine(&folder.path().join("cache"));
    let summed = Task::dataframe("t", ["items", "other"], |inputs| {
        let both = inputs.materialize("both", inputs.table("items")?.union(inputs.table("other")?)?)?;
        both.aggregate(vec![col("k")], vec![sum(col("v")).alias("v")])
    });
    let chunks = Task::dataframe("t", ["items", "other"], |inputs| {
        let (small, both) = (inputs.table("items")?, inputs.table("items")?.union(inputs.table("other")?)?);
        let whole = inputs.materialize("both", both)?;
        let small = small.select(vec![col("k"), cast(col("v"), DataType::Float64).alias("v")])?;
        let all = inputs.chunks("all", [small.clone(), whole])?.union(small)?;
        all.aggregate(vec![col("k")], vec![sum(col("v")).alias("v")])
    });
    let union = "SELECT k, CAST(v AS DOUBLE) AS v FROM items UNION ALL SELECT k, v FROM other";
    let thrice = format!("{union} UNION ALL SELECT k, v FROM items UNION ALL SELECT k, v FROM items");
    for (task, rows) in [(summed, union), (chunks, thrice.as_str())] {
        run(&engine, folder.path(), task).await;
        let query = format!("SELECT k, sum(v) AS v FROM ({rows}) AS u GROUP BY k");
        assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), &query).await, "{query}");
    }
    let other = Task::dataframe("t", ["items", "other"], |inputs| {
        inputs.chunks("all", [inputs.table("items")?, inputs.table("other")?])
    });
    let message = failure(&engine, folder.path(), other).await;
    assert!(message.contains("v Float64), and chunk 0 has (k Int64, v Int32)"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_inputs_wrongly_is_told() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let task = |table: &str, column: &str| {
        let task = Task::dataframe("t", ["items", "other"], |inputs| {
            let other = inputs.table("other")?.aggregate(vec![col("k")], vec![sum(col("amount")).alias("others")])?;
            let other = other.select(vec![col("k").alias("o"), col("others")])?;
            per_key(inputs)?.join(other, JoinType::Left, &["k"], &["o"], None)
        });
        task.invoke(Batched::by(["k"]).chunks(2)).input(table, [column])
    };
    for (table, column) in [("items", "kk"), ("other", "kk")] {
        let message = failure(&engine, folder.path(), task(table, column)).await;
        assert!(message.contains(&format!("input `{table}` has no column `kk`")), "{message}");
    }
    let optimized = Task::dataframe("t", ["items"], |inputs| {
        let (state, plan) = inputs.table("items")?.select_columns(&["amount"])?.into_parts();
        let plan = state.optimize(&plan)?;
        Ok(DataFrame::new(state, plan))
    });
    let message = failure(&engine, folder.path(), optimized).await;
    assert!(message.contains("don't optimize it"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_option_of_a_run_knows_steps_and_own_chunks() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    for (name, task, executed) in [
        ("chunks", months(&[1, 3, 5], |_| 1), 4),
        ("steps", above().invoke(Batched::by(["k"]).chunks(3)), 6),
        ("tables", per_key_task().invoke(Batched::by(["k"]).chunks(2)), 2),
    ] {
        let engine = engine(&folder.path().join(name));
        let pipeline = pipeline(folder.path(), task);
        let run = async |options: RunOptions| engine.run(&pipeline, &options).await.unwrap().tasks.remove(0);
        let dry = run(RunOptions { dry_run: true, ..RunOptions::default() }).await;
        assert_eq!(dry.status, Status::Planned, "{name}: {dry:#?}");
        assert!(dry.executed >= executed - 1, "{name}: {dry:#?}");
        let first = run(RunOptions::default()).await;
        assert!(first.executed >= executed, "{name}: {first:#?}");
        let rows = read_rows(&engine, "t").await.unwrap();
        let audited = run(RunOptions { audit_percent: 100.0, ..RunOptions::default() }).await;
        assert_eq!((audited.status, audited.audited), (Status::Reused, first.executed), "{name}: {audited:#?}");
        let forced = run(RunOptions { force: true, ..RunOptions::default() }).await;
        assert_eq!(forced.executed, first.executed, "{name}: {forced:#?}");
        make_parquet(folder.path(), "items", &format!("{} UNION ALL SELECT 7, 3, 1000000", items(3000))).await;
        let ignored = run(RunOptions { fresh_input: FreshInput::Ignore, ..RunOptions::default() }).await;
        assert_eq!(ignored.status, Status::Reused, "{name}: {ignored:#?}");
        let failed = run(RunOptions { fresh_input: FreshInput::Fail, ..RunOptions::default() }).await;
        assert!(failed.reason.contains("would have to run: items"), "{name}: {failed:#?}");
        assert_eq!(read_rows(&engine, "t").await.unwrap(), rows, "{name}");
        let dry = run(RunOptions { dry_run: true, ..RunOptions::default() }).await;
        assert_eq!(dry.status, Status::Planned, "{name}: {dry:#?}");
        let changed = run(RunOptions::default()).await;
        assert!((1..first.executed).contains(&changed.executed), "{name}: {changed:#?}");
        assert!(changed.executed <= dry.executed, "{name}: {dry:#?} {changed:#?}");
        assert_ne!(read_rows(&engine, "t").await.unwrap(), rows, "{name}");
        assert!(engine.verify_cache().unwrap().damaged.is_empty(), "{name}");
        assert!(engine.rebuild_cache().unwrap().is_empty(), "{name}");
        assert_eq!(run(RunOptions::default()).await.status, Status::Reused, "{name}");
        make_parquet(folder.path(), "items", &items(3000)).await;
    }
}

fn per_key_task() -> Task {
    Task::dataframe("t", ["items"], per_key)
}
