//! Hooks and tasks in Rust, with nothing but what is public.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chunkwise::{
    Batched, ByExpr, ByRange, ByValue, ChunkFile, ChunkRows, Chunks, Cut, DematerializationHook, Engine, Error,
    ErrorKind, FinishedTable, HookContext, InputPlan, InvocationContext, InvocationHook, MaterializationHook,
    OutputChunk, Pipeline, Result, RunOptions, Status, Task, TaskReport, Whole, async_trait, sql,
};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::logical_expr::{ColumnarValue, JoinType, LogicalPlan, Volatility, cast, col, create_udf, lit};
use datafusion::prelude::SessionContext;

use crate::support::{
    Multiset, engine, failure, files_in, make_parquet, oracle, parquet_source, query_rows, read_rows,
};

const SOURCES: &str = "CREATE EXTERNAL TABLE orders STORED AS PARQUET LOCATION 'orders.parquet';
    CREATE EXTERNAL TABLE items STORED AS PARQUET LOCATION 'items.parquet';";

const JOIN: &str = "SELECT o.k, o.status, count(*) AS n, sum(i.quantity) AS quantity
    FROM orders o LEFT JOIN items i ON o.k = i.k GROUP BY o.k, o.status";

/// Orders whose keys are sometimes NULL, and their items.
async fn data(folder: &Path) {
    let orders = "SELECT CASE WHEN value % 11 = 0 THEN NULL ELSE value % 200 END AS k,
        CASE value % 4 WHEN 0 THEN 'open' WHEN 1 THEN 'paid' WHEN 2 THEN 'sent' END AS status,
        DATE '2026-01-01' + CAST(value % 365 AS INT) AS day, value % 7 AS tenant, value AS amount
        FROM generate_series(1, 1000) AS g(value)";
    let items = "SELECT CASE WHEN value % 13 = 0 THEN NULL ELSE value % 250 END AS k, value % 9 AS quantity
        FROM generate_series(1, 3000) AS g(value)";
    make_parquet(folder, "orders", orders).await;
    make_parquet(folder, "items", items).await;
}

async fn expected(folder: &Path, query: &str) -> Multiset {
    let sources = [parquet_source(folder, "orders"), parquet_source(folder, "items")];
    query_rows(&oracle(&sources).await, query).await
}

fn pipeline(folder: &Path, task: Task) -> Pipeline {
    let sources = sql::definitions(SOURCES, "sources.sql", folder).unwrap();
    Pipeline::builder().with(sources).with(task).build().unwrap()
}

/// The report of the only task.
async fn run(engine: &Engine, folder: &Path, task: Task) -> TaskReport {
    let report = engine.run(&pipeline(folder, task), &RunOptions::default()).await;
    report.map(|mut report| report.tasks.remove(0)).unwrap_or_else(|e| panic!("{e}"))
}

async fn error(engine: &Engine, folder: &Path, task: Task) -> String {
    match engine.run(&pipeline(folder, task), &RunOptions::default()).await {
        Ok(report) => {
            assert_eq!(report.tasks[0].status, Status::Failed, "{report:#?}");
            report.tasks[0].reason.clone()
        }
        Err(error) => error.to_string(),
    }
}

fn join() -> Task {
    sql::task("t", JOIN).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_chunks_gives_the_rows_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let expected = expected(folder.path(), JOIN).await;
    let text = |values: &[&str]| values.iter().map(|value| ScalarValue::from(*value)).collect::<Vec<_>>();
    let thirds = [col("k").lt(lit(50)), (col("k") % lit(3)).eq(lit(0)), col("k").is_null(), col("k").gt(lit(1000))];
    let both = [col("k").lt(lit(50)).and(col("status").eq(lit("open"))), col("status").is_null()];
    let tasks: Vec<(&str, Task, u32)> = vec![
        ("whole", join().invoke(Whole), 1),
        ("hash", join().invoke(Batched::by(["k"]).chunks(5)), 5),
        ("auto", join().invoke(Batched::auto().chunks(4)), 4),
        ("bounds", join().invoke(ByRange::on("k").bounds([50i64, 10, 120, 50])), 4),
        ("bounds of another type", join().invoke(ByRange::on("k").bounds([50i32])), 2),
        ("statistics", join().invoke(ByRange::on("k").chunks(4)), 4),
        ("values", join().invoke(ByValue::values("k", [7i64, 8, 500])), 4),
        ("groups", join().invoke(ByValue::groups("status", [text(&["open", "paid"]), text(&["sent"]), vec![]])), 4),
        ("each", join().invoke(ByValue::each_of("orders", "status")), 4),
        ("predicates", join().invoke(ByExpr::new(["k"], thirds)), 5),
        ("two keys", join().replicate("items").invoke(ByExpr::new(["k", "status"], both)), 3),
    ];
    for (name, task, chunks) in tasks {
        let engine = engine(&folder.path().join(name.replace(' ', "_")));
        let report = run(&engine, folder.path(), task.clone()).await;
        assert_eq!(report.status, Status::Executed, "{name}: {report:#?}");
        assert_eq!((report.chunks, report.executed), (chunks, chunks), "{name}: {report:#?}");
        assert_eq!(read_rows(&engine, "t").await.unwrap(), expected, "{name}");
        let again = run(&engine, folder.path(), task).await;
        assert_eq!((again.status, again.reused), (Status::Reused, chunks), "{name}: {again:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_can_not_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let cases = [
        (join().invoke(Batched::by(["k"]).chunks(0)), "use 1 to 4096"),
        (join().invoke(Batched::by(["k", "k"])), "stands twice"),
        (join().invoke(Batched::by(["nothing"])), "no input of the query has the key `nothing`"),
        (join().invoke(ByRange::on("k").bounds(["a"])), "no value of a key of type Int64"),
        (join().invoke(ByValue::values("k", [1i64, 1])), "given twice"),
        (join().invoke(ByExpr::new(["k"], [col("status").eq(lit("open"))])), "which is not a key"),
        (join().invoke(ByValue::each_of("nothing", "k")), "the task reads no `nothing`"),
        (join().invoke(Batched::by(["k"])).replicate("nothing"), "reads no source or task `nothing`"),
        (join().invoke(Batched::by(["k"])).input("items", ["nothing"]), "no column `nothing`"),
        (join().invoke(Batched::by(["quantity"])), "can't be cut"),
    ];
    for (task, words) in cases {
        let message = error(&engine, folder.path(), task).await;
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(engine.published_tables().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_group_runs_its_chunk_and_the_rest_again() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let by = |groups: &[&[i64]]| {
        let groups: Vec<Vec<ScalarValue>> =
            groups.iter().map(|group| group.iter().map(|value| (*value).into()).collect()).collect();
        join().invoke(ByValue::groups("k", groups))
    };
    run(&engine, folder.path(), by(&[&[1, 2], &[3], &[4]])).await;
    // The second group, and what is in no group.
    let changed = run(&engine, folder.path(), by(&[&[1, 2], &[3, 5], &[4]])).await;
    assert_eq!((changed.executed, changed.reused), (2, 2), "{changed:#?}");
    let added = run(&engine, folder.path(), by(&[&[1, 2], &[3, 5], &[4], &[6]])).await;
    assert_eq!((added.executed, added.reused), (2, 3), "{added:#?}");
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), JOIN).await);
}

/// Runs chunks one after the other, or not all of them.
#[derive(Debug)]
struct OneByOne {
    skipped: Option<u32>,
    seen: Arc<Mutex<Vec<u32>>>,
}

#[async_trait]
impl InvocationHook for OneByOne {
    async fn cut(&self, context: &InvocationContext) -> Result<Cut> {
        assert_eq!(context.inputs().collect::<Vec<_>>(), ["items", "orders"]);
        let orders =
            context.source("orders")?.count().await.map_err(|e| Error::new(ErrorKind::Source, e.to_string()))?;
        Ok(Cut::hash(["k"], (orders / 250) as u32))
    }

    async fn run(&self, chunks: &Chunks, context: &HookContext) -> Result<()> {
        std::fs::write(context.temp_folder()?.join("note"), "x").unwrap();
        assert_eq!((context.task(), context.chunks(), context.keys().len()), ("t", chunks.total(), 1));
        for chunk in chunks.pending().iter().rev().filter(|chunk| Some(**chunk) != self.skipped) {
            chunks.run(*chunk).await?;
            chunks.run(*chunk).await?;
            self.seen.lock().unwrap().push(*chunk);
        }
        assert!(chunks.run(99).await.is_err());
        Ok(())
    }

    async fn finish(&self, table: &FinishedTable, context: &HookContext) -> Result<()> {
        assert!(context.temp_folder()?.join("note").exists());
        assert_eq!(table.files.len(), 4);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_runs_the_chunks_in_its_own_order_and_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let cache = folder.path().join("cache");
    let engine = engine(&cache);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let hook = |skipped| OneByOne { skipped, seen: Arc::clone(&seen) };
    let message = error(&engine, folder.path(), join().invoke(hook(Some(2)))).await;
    assert!(message.contains("did not run chunk 2"), "{message}");
    let report = run(&engine, folder.path(), join().invoke(hook(None))).await;
    // The others stayed in the cache.
    assert_eq!((report.executed, report.reused), (1, 3));
    assert_eq!(seen.lock().unwrap().last(), Some(&2));
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), JOIN).await);
    let left: Vec<_> = files_in(&cache.join("tmp")).into_iter().filter(|file| !file.ends_with("note")).collect();
    assert!(left.iter().all(|file| file.extension().is_some_and(|e| e == "lock")), "{left:?}");
}

fn per_key(inputs: &chunkwise::TaskInputs) -> datafusion::common::Result<datafusion::prelude::DataFrame> {
    let orders = inputs.table("orders")?.select(vec![col("k"), col("amount")])?;
    let items = inputs.table("items")?.select(vec![col("k").alias("item_k"), col("quantity")])?;
    orders
        .join(items, JoinType::Inner, &["k"], &["item_k"], None)?
        .aggregate(vec![col("k")], vec![sum(col("quantity")).alias("quantity"), count(lit(1)).alias("n")])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_over_dataframes_is_proved_cut_and_reused_like_sql() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let query =
        "SELECT o.k, sum(quantity) AS quantity, count(*) AS n FROM orders o JOIN items i ON o.k = i.k GROUP BY o.k";
    let task = || Task::dataframe("per_key", ["orders", "items"], per_key).invoke(Batched::by(["k"]).chunks(3));
    let after =
        sql::definitions("CREATE TABLE most AS SELECT max(n) AS n FROM per_key", "most.sql", folder.path()).unwrap();
    let sources = sql::definitions(SOURCES, "sources.sql", folder.path()).unwrap();
    let pipeline = Pipeline::builder().with(after).with(task()).with(sources).build().unwrap();
    let report = engine.run(&pipeline, &RunOptions::default()).await.unwrap();
    assert!(report.succeeded(), "{report:#?}");
    assert_eq!((report.tasks[0].name.as_str(), report.tasks[0].executed), ("per_key", 3));
    assert_eq!(read_rows(&engine, "per_key").await.unwrap(), expected(folder.path(), query).await);
    let text = engine.explain(&pipeline, Some("per_key")).await.unwrap().remove(0).unwrap();
    assert!(text.contains("hooks.rs") && text.contains("3 chunks by hash of (k)"), "{text}");

    assert_eq!(run(&engine, folder.path(), task()).await.status, Status::Reused);
    let other = |inputs: &chunkwise::TaskInputs| per_key(inputs)?.filter(col("n").gt(lit(1)));
    let other = Task::dataframe("per_key", ["orders", "items"], other).invoke(Batched::by(["k"]).chunks(3));
    let report = run(&engine, folder.path(), other).await;
    assert_eq!((report.executed, report.reason.as_str()), (3, "changed: query"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_may_read_nothing_but_its_inputs() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let own = |_: &chunkwise::TaskInputs| {
        let rows = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1])) as ArrayRef)])?;
        SessionContext::new().read_batch(rows)
    };
    let foreign = |inputs: &chunkwise::TaskInputs| {
        let upper = |values: &[ColumnarValue]| Ok(values[0].clone());
        let upper =
            create_udf("upper", vec![DataType::Utf8View], DataType::Utf8View, Volatility::Immutable, Arc::new(upper));
        inputs.table("orders")?.select(vec![upper.call(vec![col("status")]).alias("a")])
    };
    let cases = [
        (Task::dataframe("t", ["orders"], own), "none of its inputs"),
        (Task::dataframe("t", ["orders"], foreign), "calls `upper`, which is none of DataFusion's functions"),
        (
            Task::dataframe("t", ["orders"], |inputs| inputs.table("items")),
            "`items` is not among the task's inputs: orders",
        ),
        (
            Task::dataframe("t", ["orders"], |inputs| inputs.table("orders")?.limit(0, None)?.select(vec![col("x")])),
            "x",
        ),
        (
            Task::dataframe("t", ["orders"], |inputs| {
                inputs.parameter("p")?;
                inputs.table("orders")
            }),
            "no parameter `p`",
        ),
    ];
    for (task, words) in cases {
        let message = error(&engine, folder.path(), task).await;
        assert!(message.contains(words), "{message}");
    }
    let sources = sql::definitions(SOURCES, "sources.sql", folder.path()).unwrap();
    let builder = || Pipeline::builder().with(sources.clone());
    let table = |name: &str, input: &'static str| Task::dataframe(name, [input], move |inputs| inputs.table(input));
    let cases = [
        (builder().with(table("a/b", "orders")), "`a/b` is also the name of a folder"),
        (builder().with(table(&"a".repeat(201), "orders")), "use at most 200 characters"),
        (builder().with(table("T", "orders")).with(table("t", "orders")), "the tasks `T` and `t` are one folder"),
        (
            builder().with(table("a", "orders").stage("S")).with(table("b", "orders").stage("s")),
            "the stages `S` and `s` are one folder",
        ),
        (builder().with(table("t", "nothing")), "unknown table `nothing`"),
        (builder().with(table("t", "t")), "cycle: t → t"),
        (builder().with(table("orders", "items")), "`orders` is defined twice"),
    ];
    for (builder, words) in cases {
        let message = builder.build().unwrap_err().to_string();
        assert!(message.contains(words) && message.contains("hooks.rs"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_values_of_the_query_and_part_of_the_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let task = |least: i64| {
        let task = sql::task("t", "SELECT k, amount FROM orders WHERE amount >= $least").unwrap();
        task.parameter("least", least).invoke(Batched::by(["k"]).chunks(2))
    };
    for (least, executed) in [(500, 2), (900, 2), (500, 0)] {
        let report = run(&engine, folder.path(), task(least)).await;
        assert_eq!(report.executed, executed, "{report:#?}");
        let query = format!("SELECT k, amount FROM orders WHERE amount >= {least}");
        assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), &query).await);
    }
    let without = sql::task("t", "SELECT k FROM orders WHERE amount >= $least").unwrap();
    let message = error(&engine, folder.path(), without).await;
    assert!(message.contains("least"), "{message}");
    let message = sql::task("t", "SELECT a b c FROM x").unwrap_err().to_string();
    assert!(message.starts_with("<sql>:1:12:"), "{message}");
    assert!(sql::task("t", "SELECT 1; SELECT 2").is_err());
    assert!(sql::task("a b", "SELECT 1").is_err());
}

/// Lets a task see the rows of one tenant.
#[derive(Debug)]
struct Tenant;

impl DematerializationHook for Tenant {
    fn name(&self) -> &str {
        "tenant"
    }

    fn rewrite(&self, input: InputPlan<'_>) -> datafusion::common::Result<LogicalPlan> {
        let tenant = input.parameter("tenant").cloned().unwrap_or(ScalarValue::Int64(None));
        Ok(input.dataframe().filter(col("tenant").eq(lit(tenant)))?.into_unoptimized_plan())
    }
}

/// Hides a column, and renames it on demand.
#[derive(Debug)]
struct Masked(&'static str);

impl DematerializationHook for Masked {
    fn name(&self) -> &str {
        "masked"
    }

    fn rewrite(&self, input: InputPlan<'_>) -> datafusion::common::Result<LogicalPlan> {
        let columns = input.plan().schema().columns().into_iter().map(|column| match column.name.as_str() {
            "status" => cast(lit("?"), DataType::Utf8View).alias(self.0),
            _ => datafusion::logical_expr::Expr::Column(column),
        });
        let columns: Vec<_> = columns.collect();
        Ok(input.dataframe().select(columns)?.into_unoptimized_plan())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_of_an_input_is_rewritten_before_the_proof() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let task = |tenant: i64| {
        join().dematerialize("orders", Tenant).parameter("tenant", tenant).invoke(Batched::by(["k"]).chunks(3))
    };
    let query = |tenant: i64, status: &str| {
        JOIN.replace("FROM orders o", &format!("FROM (SELECT * FROM orders WHERE tenant = {tenant}) o"))
            .replace("o.k, o.status, count", &format!("o.k, {status} AS status, count"))
    };
    for tenant in [1, 2] {
        assert_eq!(run(&engine, folder.path(), task(tenant)).await.executed, 3);
        let rows = expected(folder.path(), &query(tenant, "o.status")).await;
        assert_eq!(read_rows(&engine, "t").await.unwrap(), rows);
    }
    let masked = task(2).dematerialize("orders", Masked("status"));
    let report = run(&engine, folder.path(), masked.clone()).await;
    assert_eq!(report.executed, 3, "{report:#?}");
    let rows = expected(folder.path(), &query(2, "'?'").replace("GROUP BY o.k, o.status", "GROUP BY o.k")).await;
    assert_eq!(read_rows(&engine, "t").await.unwrap(), rows);
    assert_eq!(run(&engine, folder.path(), masked).await.status, Status::Reused);
    // The key is masked in every row, so that it does not say a row's chunk any more: it takes two phases.
    let by_status = join().dematerialize("orders", Masked("status")).invoke(Batched::by(["status"]));
    assert_eq!(run(&engine, folder.path(), by_status).await.steps.len(), 2);
    let rows = expected(
        folder.path(),
        &JOIN.replace("o.k, o.status, count", "o.k, '?' AS status, count").replace(", o.status", ""),
    )
    .await;
    assert_eq!(read_rows(&engine, "t").await.unwrap(), rows);

    let view = sql::definitions("CREATE VIEW seen AS SELECT * FROM orders", "view.sql", folder.path()).unwrap();
    let sources = sql::definitions(SOURCES, "sources.sql", folder.path()).unwrap();
    let over_view = sql::task("t", "SELECT k, amount FROM seen").unwrap();
    let of = |table: &str| {
        let task = over_view.clone().dematerialize(table, Tenant).parameter("tenant", 1i64);
        Pipeline::builder().with(sources.clone()).with(view.clone()).with(task).build().unwrap()
    };
    let (_, refused) = failure(&engine, &of("seen"), "t").await;
    assert!(refused.contains("reads no source or task `seen`; it reads orders"), "{refused}");
    assert!(engine.run(&of("orders"), &RunOptions::default()).await.unwrap().succeeded());
    let rows = expected(folder.path(), "SELECT k, amount FROM orders WHERE tenant = 1").await;
    assert_eq!(read_rows(&engine, "t").await.unwrap(), rows);
    let message = error(&engine, folder.path(), join().dematerialize("orders", Masked("other"))).await;
    assert!(message.contains("hook `masked` must give the columns of `orders`"), "{message}");
}

/// Counts rows, refuses amounts, and adds a column, as it is told.
#[derive(Debug, Clone, Default)]
struct Watch {
    version: &'static str,
    refuses: Option<i64>,
    refuses_whole: bool,
    adds: bool,
    rows: Arc<AtomicU32>,
    committed: Arc<AtomicU32>,
    finished: Arc<AtomicU32>,
}

struct WatchRows(Watch);

#[async_trait]
impl MaterializationHook for Watch {
    fn name(&self) -> &str {
        "watch"
    }

    fn version(&self) -> &str {
        self.version
    }

    fn schema(&self, query: &SchemaRef) -> Result<Option<SchemaRef>> {
        let added = Arc::new(Field::new("double", DataType::Int64, true));
        let fields = query.fields().iter().cloned().chain([added]).collect::<Vec<_>>();
        Ok(self.adds.then(|| Arc::new(Schema::new(fields))))
    }

    fn begin(&self, _chunk: &OutputChunk) -> Result<Option<Box<dyn ChunkRows>>> {
        Ok(Some(Box::new(WatchRows(self.clone()))))
    }

    async fn committed(&self, file: &ChunkFile, _context: &HookContext) -> Result<()> {
        assert!(file.path.exists() && file.bytes > 0);
        self.committed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn finish(&self, table: &FinishedTable, _context: &HookContext) -> Result<()> {
        let rows = SessionContext::new().read_table(Arc::clone(&table.table)).unwrap().count().await.unwrap();
        assert_eq!(rows as u64, table.files.iter().map(|file| file.rows).sum::<u64>());
        self.finished.fetch_add(1, Ordering::Relaxed);
        match self.refuses_whole {
            true => Err(Error::new(ErrorKind::Rejected, "the whole is not good enough")),
            false => Ok(()),
        }
    }
}

impl ChunkRows for WatchRows {
    fn batch(&mut self, rows: RecordBatch) -> Result<RecordBatch> {
        self.0.rows.fetch_add(rows.num_rows() as u32, Ordering::Relaxed);
        let amount = rows.column_by_name("amount").unwrap().as_primitive::<arrow::datatypes::Int64Type>();
        if let Some(refused) = self.0.refuses.filter(|refused| amount.values().contains(refused)) {
            return Err(Error::new(ErrorKind::Rejected, format!("an amount is {refused}")));
        }
        let double: Int64Array = amount.iter().map(|amount| amount.map(|amount| 2 * amount)).collect();
        let columns = rows.columns().iter().cloned().chain([Arc::new(double) as ArrayRef]).collect();
        let schema = self.0.schema(&rows.schema())?;
        // Where no schema is declared what is returned does not matter.
        Ok(schema.map_or_else(|| rows.slice(0, 0), |schema| RecordBatch::try_new(schema, columns).unwrap()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_seen_refused_and_extended() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let task = |hook: &Watch| {
        sql::task("t", "SELECT k, amount FROM orders")
            .unwrap()
            .invoke(Batched::by(["k"]).chunks(4))
            .materialize(hook.clone())
    };
    let counts =
        |hook: &Watch| [&hook.rows, &hook.committed, &hook.finished].map(|count| count.swap(0, Ordering::Relaxed));
    let strict = Watch { version: "1", refuses: Some(500), ..Watch::default() };
    let report = run(&engine, folder.path(), task(&strict)).await;
    assert!(report.status == Status::Failed && report.reason.contains("an amount is 500"), "{report:#?}");
    assert!(engine.published_tables().unwrap().is_empty());
    let [_, committed, finished] = counts(&strict);
    assert!(committed <= 3 && finished == 0);

    // A version of its own: what the other had seen does not count.
    let lax = Watch { version: "2", ..Watch::default() };
    assert_eq!(run(&engine, folder.path(), task(&lax)).await.executed, 4);
    assert_eq!(counts(&lax), [1000, 4, 1]);
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), "SELECT k, amount FROM orders").await);
    assert_eq!(run(&engine, folder.path(), task(&lax)).await.status, Status::Reused);
    assert_eq!(counts(&lax), [0, 0, 0]);

    let picky = Watch { version: "3", refuses_whole: true, ..Watch::default() };
    let report = run(&engine, folder.path(), task(&picky)).await;
    assert!(report.reason.contains("the whole is not good enough"), "{report:#?}");
    let version = |engine: &Engine| engine.published_tables().unwrap().remove(0).version;
    let before = version(&engine);
    // Its chunks are in the cache, so only the whole is looked at again.
    let content = Watch { refuses_whole: false, ..picky.clone() };
    let report = run(&engine, folder.path(), task(&content)).await;
    assert_eq!((report.executed, counts(&content)[2]), (0, 2));
    assert_ne!(version(&engine), before);

    let adds = Watch { version: "3", adds: true, ..Watch::default() };
    let report = run(&engine, folder.path(), task(&adds)).await;
    assert_eq!(report.executed, 4, "the columns are part of what a chunk is named by: {report:#?}");
    let rows = expected(folder.path(), "SELECT k, amount, 2 * amount AS double FROM orders").await;
    assert_eq!(read_rows(&engine, "t").await.unwrap(), rows);

    // Who reads a table whose rows were changed does not take its chunks for those of the keys.
    let sources = sql::definitions(SOURCES, "sources.sql", folder.path()).unwrap();
    let reader = sql::task("reader", "SELECT k, sum(double) AS x FROM t GROUP BY k").unwrap();
    let reader = reader.invoke(Batched::by(["k"]).chunks(4));
    let pipeline = Pipeline::builder().with(sources).with(task(&adds)).with(reader).build().unwrap();
    let report = engine.run(&pipeline, &RunOptions::default()).await.unwrap();
    assert!(report.succeeded(), "{report:#?}");
    assert_ne!(report.task("reader").unwrap().inputs[0].mode, chunkwise::InputMode::Reuse);
    let rows = expected(folder.path(), "SELECT k, sum(2 * amount) AS x FROM orders GROUP BY k").await;
    assert_eq!(read_rows(&engine, "reader").await.unwrap(), rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_proved_runs_only_when_its_author_says_so() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    // Right because each amount is in one order only, which nobody can see in the query.
    let query = "SELECT amount, row_number() OVER (PARTITION BY amount ORDER BY k) AS n FROM orders";
    let task = || sql::task("t", query).unwrap().invoke(Batched::by(["tenant"]).chunks(3));
    let message = error(&engine, folder.path(), task()).await;
    assert!(message.contains("can't be cut"), "{message}");
    let report = run(&engine, folder.path(), task().assume_chunkable("amounts are unique")).await;
    let assumed = report.assumed.clone().unwrap();
    assert!(assumed.starts_with("amounts are unique; the prover says: can't be cut"), "{assumed}");
    assert_eq!((report.status, report.chunks), (Status::Executed, 3));
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), query).await);
    let pipeline = pipeline(folder.path(), task().assume_chunkable("amounts are unique"));
    let text = engine.explain(&pipeline, None).await.unwrap().remove(0).unwrap();
    assert!(text.contains("assumed to be right, which is not proved: amounts are unique"), "{text}");

    // What can be proved is not assumed, also where that takes steps.
    for query in [JOIN, "SELECT sum(amount) AS s FROM orders"] {
        let task = sql::task("t", query).unwrap().invoke(Batched::by(["k"]).chunks(3)).assume_chunkable("so it is");
        let report = run(&engine, folder.path(), task).await;
        assert_eq!(report.assumed, None, "{report:#?}");
        assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), query).await, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_are_cut_by_other_columns_or_not_at_all_as_told() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let hash = || Batched::by(["k"]).chunks(3);
    let cut = |report: &TaskReport| -> Vec<String> {
        let cut = report.inputs.iter().filter(|input| input.mode != chunkwise::InputMode::Replicate);
        cut.map(|input| input.table.clone()).collect()
    };
    let report = run(&engine, folder.path(), join().invoke(hash())).await;
    assert_eq!(cut(&report), ["orders", "items"]);
    let report = run(&engine, folder.path(), join().invoke(hash()).replicate("items")).await;
    assert_eq!(cut(&report), ["orders"]);
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), JOIN).await);
    // The other side of an outer join can't be whole in every chunk.
    let message = error(&engine, folder.path(), join().invoke(hash()).replicate("orders")).await;
    assert!(message.contains("can't be cut"), "{message}");
    // Nor can items be cut by what no join equates with the key, unless somebody knows.
    let by_quantity = join().invoke(hash()).input("items", ["quantity"]);
    let message = error(&engine, folder.path(), by_quantity).await;
    assert!(message.contains("can't be cut"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_a_sorted_source_read_it_once_in_all() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "SELECT value AS k, value * 7919 % 100003 AS x, md5(CAST(value AS VARCHAR)) AS s
        FROM generate_series(1, 100000) AS g(value) ORDER BY k";
    let rows = crate::support::rows_of(rows).await;
    let properties =
        parquet::file::properties::WriterProperties::builder().set_max_row_group_row_count(Some(5000)).build();
    let file = std::fs::File::create(folder.path().join("sorted.parquet")).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let source = "CREATE EXTERNAL TABLE sorted STORED AS PARQUET LOCATION 'sorted.parquet'";
    let scanned = async |hook: Task, name: &str| {
        let definitions = sql::definitions(source, "sorted.sql", folder.path()).unwrap();
        let pipeline = Pipeline::builder().with(definitions).with(hook).build().unwrap();
        let engine = engine(&folder.path().join(name));
        let report = engine.run(&pipeline, &RunOptions::default()).await.unwrap();
        assert_eq!(report.tasks[0].rows, 100_000, "{report:#?}");
        (report.tasks[0].chunks, report.tasks[0].scanned_bytes, report.tasks[0].inputs[0].mode)
    };
    let task = || sql::task("t", "SELECT k, max(s) AS s FROM sorted GROUP BY k").unwrap();
    let (_, once, _) = scanned(task().invoke(Whole), "whole").await;
    assert!(once > 3_000_000, "{once}");
    let bounds: Vec<i64> = (1..20).map(|at| at * 5000 + 1).collect();
    let given = scanned(task().invoke(ByRange::on("k").bounds(bounds)), "given").await;
    let found = scanned(task().invoke(ByRange::on("k").chunks(20)), "found").await;
    for (chunks, all, mode) in [given, found] {
        assert_eq!((chunks, mode), (20, chunkwise::InputMode::Range));
        println!("{chunks} chunks read {:.3} times what one scan reads", all as f64 / once as f64);
        assert!(10 * all <= 11 * once, "{all} of {once}");
    }
    let (_, hashed, mode) = scanned(task().invoke(Batched::by(["k"]).chunks(2)), "hash").await;
    assert!(
        mode == chunkwise::InputMode::Rescan && 10 * hashed <= 11 * once,
        "one pass reads all once: {hashed} of {once}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hook_has_refused_is_not_published_by_a_later_run() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let pipeline = |refuses_whole: bool| {
        let hook = Watch { version: "1", refuses_whole, ..Watch::default() };
        let task = sql::task("t", "SELECT k, amount FROM orders").unwrap().invoke(Batched::by(["k"]).chunks(2));
        pipeline(folder.path(), task.materialize(hook))
    };
    assert!(engine.run(&pipeline(false), &RunOptions::default()).await.unwrap().succeeded());
    let version = || engine.published_tables().unwrap().remove(0).version;
    let before = version();
    // The chunks are made again and stay in the cache, the whole is refused.
    let forced = RunOptions { force: true, ..RunOptions::default() };
    for options in [forced, RunOptions::default()] {
        let report = engine.run(&pipeline(true), &options).await.unwrap();
        assert_eq!(report.tasks[0].status, Status::Failed, "{report:#?}");
        assert_eq!(version(), before);
    }
    assert!(engine.run(&pipeline(false), &RunOptions::default()).await.unwrap().succeeded());
    assert_ne!(version(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_print_alike_are_not_alike() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let list = |values: &[Option<&str>]| {
        let values: Vec<_> = values.iter().map(|value| ScalarValue::Utf8View(value.map(str::to_string))).collect();
        ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Utf8View))
    };
    for (values, rows) in [(vec![Some("open, paid")], 0), (vec![Some("open"), Some("paid")], 500), (vec![Some("")], 0)]
    {
        let task = sql::task("t", "SELECT amount FROM orders WHERE array_has($states, status)").unwrap();
        let report = run(&engine, folder.path(), task.parameter("states", list(&values))).await;
        assert_eq!((report.rows, report.status), (rows, Status::Executed), "{values:?}: {report:#?}");
    }
}

/// Writes the name of the task, which only its context tells.
#[derive(Debug)]
struct TaskName;

struct TaskNameRows(String);

#[async_trait]
impl MaterializationHook for TaskName {
    fn name(&self) -> &str {
        "task_name"
    }

    fn schema(&self, query: &SchemaRef) -> Result<Option<SchemaRef>> {
        let name = Arc::new(Field::new("task", DataType::Utf8, false));
        Ok(Some(Arc::new(Schema::new(query.fields().iter().cloned().chain([name]).collect::<Vec<_>>()))))
    }

    fn begin(&self, chunk: &OutputChunk) -> Result<Option<Box<dyn ChunkRows>>> {
        Ok(Some(Box::new(TaskNameRows(chunk.context.task().to_string()))))
    }
}

impl ChunkRows for TaskNameRows {
    fn batch(&mut self, rows: RecordBatch) -> Result<RecordBatch> {
        let names = Arc::new(arrow::array::StringArray::from(vec![self.0.as_str(); rows.num_rows()])) as ArrayRef;
        let columns = rows.columns().iter().cloned().chain([names]).collect();
        Ok(RecordBatch::try_new(TaskName.schema(&rows.schema())?.unwrap(), columns).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_with_one_query_have_each_what_their_hook_was_told() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let sources = sql::definitions(SOURCES, "sources.sql", folder.path()).unwrap();
    let task = |name: &str| sql::task(name, "SELECT k, amount FROM orders").unwrap().materialize(TaskName);
    let pipeline = Pipeline::builder().with(sources).with(task("one")).with(task("other")).build().unwrap();
    let report = engine.run(&pipeline, &RunOptions::default()).await.unwrap();
    assert!(report.succeeded(), "{report:#?}");
    for name in ["one", "other"] {
        let query = format!("SELECT k, amount, '{name}' AS task FROM orders");
        assert_eq!(read_rows(&engine, name).await.unwrap(), expected(folder.path(), &query).await, "{name}");
    }
    let renamed = pipeline.configure("one", |_| task("three")).unwrap_err();
    assert!(renamed.to_string().contains("can't get another name"), "{renamed}");
}
