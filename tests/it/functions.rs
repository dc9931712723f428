//! Tasks that are functions over rows, and functions that queries call.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use chunkwise::{
    Batched, ByExpr, ByRange, ByValue, Engine, Event, InputBatches, Pipeline, RunOptions, Status, StepPart, Task,
    TaskReport, UserFunction, sql,
};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::functions_aggregate::expr_fn::sum;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{
    Accumulator, ColumnarValue, PartitionEvaluator, ScalarUDF, Volatility, cast, col, create_udaf, create_udf,
    create_udwf, lit,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;

use crate::support::{Multiset, engine, make_parquet, oracle, parquet_source, query_rows, read_rows};

const SOURCES: &str = "CREATE EXTERNAL TABLE orders STORED AS PARQUET LOCATION 'orders.parquet';
    CREATE EXTERNAL TABLE items STORED AS PARQUET LOCATION 'items.parquet';
    CREATE VIEW renamed AS SELECT order_k AS k, quantity FROM items;
    CREATE VIEW per_quantity AS SELECT max(order_k) AS k, quantity FROM items GROUP BY quantity;";

/// What [`count`] computes, of `items` by `order_k`.
const COUNTED: &str = "SELECT k, sum(o) AS o, sum(i) AS i FROM (
    SELECT k, 1 AS o, 0 AS i FROM orders UNION ALL SELECT order_k, 0, 1 FROM items) AS u GROUP BY k";

async fn data(folder: &Path, rows: usize) {
    let orders = format!(
        "SELECT CASE WHEN value % 11 = 0 THEN NULL ELSE value % 200 END AS k, value AS amount,
        repeat('order', 20) || value AS note FROM generate_series(1, {rows}) AS g(value)"
    );
    let items = format!(
        "SELECT CASE WHEN value % 13 = 0 THEN NULL ELSE value % 250 END AS order_k, value % 9 AS quantity
        FROM generate_series(1, {}) AS g(value)",
        3 * rows
    );
    make_parquet(folder, "orders", &orders).await;
    make_parquet(folder, "items", &items).await;
}

async fn expected(folder: &Path, query: &str) -> Multiset {
    let sources = [parquet_source(folder, "orders"), parquet_source(folder, "items")];
    query_rows(&oracle(&sources).await, query).await
}

fn pipeline(folder: &Path, task: Task) -> Pipeline {
    let sources = sql::definitions(SOURCES, "sources.sql", folder).unwrap();
    Pipeline::builder().with(sources).with(task).build().unwrap()
}

async fn run(engine: &Engine, folder: &Path, task: Task) -> TaskReport {
    engine.run(&pipeline(folder, task), &RunOptions::default()).await.unwrap().tasks.remove(0)
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

fn schema(columns: &[(&str, bool)]) -> SchemaRef {
    let fields = columns.iter().map(|(name, nullable)| Field::new(*name, DataType::Int64, *nullable));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn counts() -> SchemaRef {
    schema(&[("k", true), ("o", false), ("i", false)])
}

/// Rows for each key of two inputs, whose key columns are the first, or have this name.
fn count(inputs: &InputBatches, orders: &str, items: (&str, &str)) -> Result<Vec<RecordBatch>> {
    let mut found: BTreeMap<Option<i64>, [i64; 2]> = BTreeMap::new();
    for (at, (table, column)) in [(orders, "k"), items].into_iter().enumerate() {
        assert!(inputs.schema(table)?.index_of(column).is_ok());
        for batch in inputs.batches(table)? {
            for key in batch.column_by_name(column).unwrap().as_primitive::<Int64Type>() {
                found.entry(key).or_default()[at] += 1;
            }
        }
    }
    let keys: Int64Array = found.keys().copied().collect();
    let counted = |at: usize| Arc::new(found.values().map(|counts| counts[at]).collect::<Int64Array>());
    Ok(vec![RecordBatch::try_new(counts(), vec![Arc::new(keys), counted(0), counted(1)])?])
}

fn counting(version: &str) -> Task {
    let count = |inputs: &InputBatches| count(inputs, "orders", ("items", "order_k"));
    Task::batches("t", version, ["orders", "items"], counts(), count)
}

/// Rows of `orders` with at least this amount, a batch at a time.
fn filtering(least: i64) -> Task {
    let schema = schema(&[("k", true), ("amount", true)]);
    let columns = Arc::clone(&schema);
    Task::stream("t", "1", ["orders"], schema, move |mut inputs| {
        let columns = Arc::clone(&columns);
        async move {
            let least = match inputs.parameter("least")? {
                ScalarValue::Int64(Some(least)) => *least,
                other => return exec_err!("{other}"),
            };
            let rows = inputs.take("orders")?.map(move |batch| {
                let batch = batch?.project(&[0, 1])?;
                let amounts = batch.column(1).as_primitive::<Int64Type>();
                let is_kept = amounts.iter().map(|amount| amount.map(|amount| amount >= least)).collect();
                Ok(filter_record_batch(&batch, &is_kept)?)
            });
            Ok(Box::pin(RecordBatchStreamAdapter::new(columns, rows)) as SendableRecordBatchStream)
        }
    })
    .parameter("least", least)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_runs_whole_or_cut_as_its_author_says() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path(), 1000).await;
    let expected = expected(folder.path(), COUNTED).await;
    let cut = |task: Task| task.input("items", ["order_k"]).assume_chunkable("it counts rows of each k");
    let tasks = [
        ("none", counting("1"), 1),
        ("auto", counting("1").invoke(Batched::auto().chunks(4)), 1),
        ("hash", cut(counting("1").invoke(Batched::by(["k"]).chunks(5))), 5),
        ("range", cut(counting("1").invoke(ByRange::on("k").bounds([50i64, 100]))), 3),
        ("values", cut(counting("1").invoke(ByValue::values("k", [7i64, 8]))), 3),
    ];
    for (name, task, chunks) in tasks {
        let engine = engine(&folder.path().join(name));
        let report = run(&engine, folder.path(), task.clone()).await;
        assert_eq!((report.status, report.executed), (Status::Executed, chunks), "{name}: {report:#?}");
        let assumed = (chunks > 1).then_some("it counts rows of each k; what a function does can't be proved");
        assert_eq!(report.assumed.as_deref(), assumed, "{name}");
        assert_eq!(read_rows(&engine, "t").await.unwrap(), expected, "{name}");
        let again = run(&engine, folder.path(), task).await;
        assert_eq!((again.status, again.reused), (Status::Reused, chunks), "{name}: {again:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_or_parameter_runs_again_and_a_changed_row_its_chunk() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path(), 1000).await;
    let engine = engine(&folder.path().join("cache"));
    let task = |version: &str| {
        let task = counting(version).invoke(Batched::by(["k"]).chunks(8)).input("items", ["order_k"]);
        task.assume_chunkable("by key")
    };
    run(&engine, folder.path(), task("1")).await;
    let newer = run(&engine, folder.path(), task("2")).await;
    assert_eq!(newer.executed, 8, "{newer:#?}");
    let back = run(&engine, folder.path(), task("1")).await;
    assert_eq!((back.executed, back.reused), (0, 8), "{back:#?}");
    let more = "SELECT value % 9 AS quantity, 7 AS order_k FROM generate_series(1, 3) AS g(value)";
    let items = format!(
        "SELECT CASE WHEN value % 13 = 0 THEN NULL ELSE value % 250 END AS order_k, value % 9 AS quantity
        FROM generate_series(1, 3000) AS g(value) UNION ALL SELECT order_k, quantity FROM ({more})"
    );
    make_parquet(folder.path(), "items", &items).await;
    let changed = run(&engine, folder.path(), task("1")).await;
    assert_eq!((changed.executed, changed.reused), (1, 7), "{changed:#?}");
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), COUNTED).await);

    for least in [500, 10, 500] {
        run(&engine, folder.path(), filtering(least)).await;
        let kept = expected(folder.path(), &format!("SELECT k, amount FROM orders WHERE amount >= {least}")).await;
        assert_eq!(read_rows(&engine, "t").await.unwrap(), kept);
    }
    // Conditions over floats tell rows apart that are equal, which is the author's business here.
    let halves = || cast(col("amount"), DataType::Float64).lt(lit(300.5));
    let per_input = ByExpr::per_input([("orders", vec![halves(), !halves()])]);
    let cut = filtering(10).invoke(per_input).assume_chunkable("row by row");
    assert_eq!(run(&engine, folder.path(), cut).await.executed, 2);
    let kept = expected(folder.path(), "SELECT k, amount FROM orders WHERE amount >= 10").await;
    assert_eq!(read_rows(&engine, "t").await.unwrap(), kept);
    let cut = filtering(10).invoke(Batched::by(["k"]).chunks(3)).assume_chunkable("row by row");
    assert_eq!(run(&engine, folder.path(), cut).await.executed, 3);
    let kept = expected(folder.path(), "SELECT k, amount FROM orders WHERE amount >= 10").await;
    assert_eq!(read_rows(&engine, "t").await.unwrap(), kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_assumed_is_of_the_function_alone() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path(), 1000).await;
    let engine = engine(&folder.path().join("cache"));
    let over = |view: &'static str| {
        let count = move |inputs: &InputBatches| count(inputs, "orders", (view, "k"));
        let task = Task::batches("t", "1", ["orders", view], counts(), count);
        task.invoke(Batched::by(["k"]).chunks(4))
    };
    let message = failure(&engine, folder.path(), over("renamed")).await;
    assert!(message.contains("what a function does with rows can't be proved"), "{message}");
    let message = failure(&engine, folder.path(), over("per_quantity").assume_chunkable("by k")).await;
    assert!(message.contains("can't be cut"), "{message}");
    assert!(engine.published_tables().unwrap().is_empty());

    let renamed = run(&engine, folder.path(), over("renamed").assume_chunkable("by k")).await;
    assert_eq!(renamed.executed, 4, "{renamed:#?}");
    assert!(renamed.inputs.iter().all(|input| input.mode != chunkwise::InputMode::Replicate), "{renamed:#?}");
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), COUNTED).await);

    // A whole input is given to every chunk: wrong rows, as its author says.
    let whole = run(&engine, folder.path(), over("renamed").replicate("items").assume_chunkable("no")).await;
    assert_eq!(whole.executed, 4, "{whole:#?}");
    let rows = read_rows(&engine, "t").await.unwrap().rows;
    assert!(rows > expected(folder.path(), COUNTED).await.rows, "{rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_fails_publishes_nothing_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path(), 100).await;
    let engine = engine(&folder.path().join("cache"));
    let one = |schema: SchemaRef, value: Option<i64>| {
        let column = Arc::new(Int64Array::from(vec![value]));
        RecordBatch::try_new(schema, vec![column]).map(|batch| vec![batch])
    };
    let declared = schema(&[("a", false)]);
    let task = |function: fn(&InputBatches) -> Result<Vec<RecordBatch>>| {
        Task::batches("t", "1", ["orders"], Arc::clone(&declared), function)
    };
    let other = move |_: &InputBatches| Ok(one(schema(&[("b", true)]), Some(1))?);
    let null = move |_: &InputBatches| Ok(one(schema(&[("a", true)]), None)?);
    let cases = [
        (
            task(|inputs| inputs.batches("nothing").map(<[_]>::to_vec)),
            "`nothing` is not among the task's inputs: orders",
        ),
        (task(|inputs| inputs.parameter("p").map(|_| Vec::new())), "no parameter `p`"),
        (task(|_| exec_err!("no luck")), "no luck"),
        (task(|_| panic!("no luck")), "panicked"),
        (Task::batches("t", "1", ["orders"], Arc::clone(&declared), other), "gives columns"),
        (Task::batches("t", "1", ["orders"], Arc::clone(&declared), null), "NULL where it declares none"),
        (Task::batches("t", "1", ["orders"], schema(&[("a", true), ("a", true)]), |_| Ok(Vec::new())), "a"),
    ];
    for (task, words) in cases {
        let message = failure(&engine, folder.path(), task).await;
        assert!(message.contains(words), "{words}: {message}");
    }
    assert!(engine.published_tables().unwrap().is_empty());
    let twice = Task::stream("t", "1", ["orders"], declared, |mut inputs| async move {
        inputs.take("orders")?;
        inputs.take("orders")
    });
    let message = failure(&engine, folder.path(), twice).await;
    assert!(message.contains("not taken yet"), "{message}");
    engine.idle().await;
    assert_eq!(engine.pool_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_fit_in_memory_come_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path(), 60_000).await;
    let parts: Arc<Mutex<u32>> = Arc::default();
    let seen = Arc::clone(&parts);
    let engine = Engine::builder().cache_folder(folder.path().join("cache")).jobs(2).memory_limit_bytes(8 << 20);
    let engine = engine.on_event(move |event| {
        if let Event::ShortOfMemory { parts, .. } = event {
            let mut most = seen.lock().unwrap();
            *most = parts.max(*most);
        }
    });
    let engine = engine.build().unwrap();
    let task = counting("1").invoke(Batched::by(["k"]).chunks(2)).input("items", ["order_k"]);
    let report = run(&engine, folder.path(), task.assume_chunkable("by key")).await;
    assert_eq!(report.executed, 2, "{report:#?}");
    assert!(*parts.lock().unwrap() > 1);
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), COUNTED).await);

    // Whole, it has no parts.
    let message = failure(&engine, folder.path(), counting("2")).await;
    assert!(message.contains("memory does not suffice"), "{message}");
    engine.idle().await;
    assert_eq!(engine.pool_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_of_one_batch_count_once() {
    let folder = tempfile::tempdir().unwrap();
    let query = "SELECT value AS k, value AS amount FROM generate_series(1, 300000) AS g(value)";
    make_parquet(folder.path(), "orders", query).await;
    let engine = Engine::builder().cache_folder(folder.path().join("cache")).jobs(2).memory_limit_bytes(256 << 20);
    // A group for each row, which come as slices of one batch.
    let view = "CREATE VIEW sums AS SELECT k, sum(amount) AS amount FROM orders GROUP BY k;";
    let count = |inputs: &InputBatches| {
        let rows = inputs.batches("sums")?.iter().map(RecordBatch::num_rows).sum::<usize>() as i64;
        Ok(vec![RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![rows])) as ArrayRef)])?])
    };
    let sources = format!("{};{view}", parquet_source(folder.path(), "orders"));
    let pipeline = Pipeline::builder()
        .with(sql::definitions(&sources, "a.sql", folder.path()).unwrap())
        .with(Task::batches("t", "1", ["sums"], schema(&[("n", false)]), count));
    let report = engine.build().unwrap().run(&pipeline.build().unwrap(), &RunOptions::default()).await.unwrap();
    assert!(report.succeeded(), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_has_hooks_and_explains_itself() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path(), 100).await;
    let engine = engine(&folder.path().join("cache"));
    let task = counting("7").invoke(Batched::by(["k"]).chunks(4)).input("items", ["order_k"]);
    let task = task.assume_chunkable("it counts");
    let text = engine.explain(&pipeline(folder.path(), task), None).await.unwrap().remove(0).unwrap();
    assert!(text.contains("it counts; what a function does can't be proved"), "{text}");
    assert!(text.contains("Function of `t` over items, orders, version 7"), "{text}");
}

/// `plus(x)`: more than `x` by `more`.
fn plus(name: &str, more: i64, volatility: Volatility) -> ScalarUDF {
    let plus = move |values: &[ColumnarValue]| {
        let numbers = ColumnarValue::values_to_arrays(values)?.remove(0);
        let sums: Int64Array =
            numbers.as_primitive::<Int64Type>().iter().map(|value| value.map(|v| v + more)).collect();
        Ok(ColumnarValue::Array(Arc::new(sums)))
    };
    create_udf(name, vec![DataType::Int64], DataType::Int64, volatility, Arc::new(plus))
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_call_functions_whose_versions_count() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path(), 1000).await;
    let engine = engine(&folder.path().join("cache"));
    let sql = "CREATE TABLE sums CLUSTERED BY (k) INTO 4 BUCKETS WITH (read_by = 'split') AS
            SELECT k, sum(plus(amount)) AS amount FROM orders WHERE plus(amount) > 500 GROUP BY k;
        CREATE VIEW shown AS SELECT k, plus(k) AS more FROM orders;
        CREATE TABLE viewed AS SELECT more, count(*) AS n FROM shown GROUP BY more;
        CREATE TABLE other AS SELECT count(*) AS n FROM items;";
    let run = async |more: i64, version: &str| {
        let plus = plus("plus", more, Volatility::Immutable);
        let in_rust = plus.clone();
        let in_rust = Task::dataframe("rust", ["orders"], move |inputs| {
            let rows = inputs.table("orders")?.filter(in_rust.call(vec![col("amount")]).gt(lit(500)))?;
            rows.aggregate(vec![col("k")], vec![sum(col("amount")).alias("amount")])
        });
        let pipeline = Pipeline::builder()
            .with(sql::definitions(&format!("{SOURCES}{sql}"), "tasks.sql", folder.path()).unwrap())
            .with(in_rust.invoke(Batched::by(["k"]).chunks(2)))
            .with(UserFunction::scalar(plus, version));
        engine.run(&pipeline.build().unwrap(), &RunOptions::default()).await.unwrap()
    };
    for (more, version) in [(1, "1"), (400, "2"), (1, "1")] {
        let report = run(more, version).await;
        assert!(report.succeeded(), "{report:#?}");
        let sums =
            format!("SELECT k, sum(amount + {more}) AS amount FROM orders WHERE amount + {more} > 500 GROUP BY k");
        assert_eq!(read_rows(&engine, "sums").await.unwrap(), expected(folder.path(), &sums).await, "{version}");
        let viewed = format!("SELECT k + {more} AS more, count(*) AS n FROM orders GROUP BY k");
        assert_eq!(read_rows(&engine, "viewed").await.unwrap(), expected(folder.path(), &viewed).await, "{version}");
        let rust = format!("SELECT k, sum(amount) AS amount FROM orders WHERE amount + {more} > 500 GROUP BY k");
        assert_eq!(read_rows(&engine, "rust").await.unwrap(), expected(folder.path(), &rust).await, "{version}");
    }
    let newer = run(1, "3").await;
    assert_eq!(newer.task("sums").unwrap().executed, 4, "{newer:#?}");
    assert_eq!(newer.task("sums").unwrap().reason, "changed: function plus() 1 → 3");
    assert_eq!(newer.task("other").unwrap().status, Status::Reused, "{newer:#?}");
}

/// The sum of the values' squares, times a number.
#[derive(Debug)]
struct Squares(i64, i64);

impl Accumulator for Squares {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let squares = values[0].as_primitive::<Int64Type>().iter().flatten().map(|value| value * value);
        self.0 += self.1 * squares.sum::<i64>();
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0 += states[0].as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.0.into())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.0.into()])
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// How many rows the partition has.
#[derive(Debug)]
struct Peers;

impl PartitionEvaluator for Peers {
    fn evaluate_all(&mut self, _values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from(vec![rows as i64; rows])))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_groups_and_windows_are_cut_by_the_keys() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path(), 600).await;
    let engine = engine(&folder.path().join("cache"));
    let number = || Arc::new(DataType::Int64);
    let squares = |factor: i64| {
        let accumulator = Arc::new(move |_: AccumulatorArgs| Ok(Box::new(Squares(0, factor)) as Box<dyn Accumulator>));
        let state = Arc::new(vec![DataType::Int64]);
        let squares =
            create_udaf("squares", vec![DataType::Int64], number(), Volatility::Immutable, accumulator, state);
        UserFunction::aggregate(squares, factor.to_string())
    };
    let evaluator = Arc::new(|| Ok(Box::new(Peers) as Box<dyn PartitionEvaluator>));
    let peers = create_udwf("peers", DataType::Int64, number(), Volatility::Immutable, evaluator);
    let task = |keys: &str| {
        format!(
            "CREATE TABLE t CLUSTERED BY ({keys}) INTO 3 BUCKETS AS SELECT k, peers(k) OVER (PARTITION BY k) AS n,
            squares FROM (SELECT k, amount % 3 AS part, squares(amount) AS squares FROM orders GROUP BY k, amount % 3) AS s"
        )
    };
    let whole = |factor: i64| {
        format!(
            "SELECT k, count(*) OVER (PARTITION BY k) AS n, {factor} * squares AS squares FROM
            (SELECT k, amount % 3 AS part, sum(amount * amount) AS squares FROM orders GROUP BY k, amount % 3) AS s"
        )
    };
    let pipeline = |keys: &str, factor: i64| {
        let sql = sql::definitions(&format!("{SOURCES}{}", task(keys)), "tasks.sql", folder.path()).unwrap();
        let pipeline = Pipeline::builder().with(sql).with(squares(factor));
        pipeline.with(UserFunction::window(peers.clone(), "1")).build().unwrap()
    };
    let report = engine.run(&pipeline("k", 1), &RunOptions::default()).await.unwrap();
    assert_eq!(report.tasks[0].executed, 3, "{report:#?}");
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), &whole(1)).await);
    // In two phases, whose states are those of the function's accumulator.
    for (factor, executed) in [(1, 4), (2, 4), (1, 0)] {
        let report = engine.run(&pipeline("amount", factor), &RunOptions::default()).await.unwrap();
        let parts: Vec<_> = report.tasks[0].steps.iter().map(|step| (step.part, step.chunks)).collect();
        assert_eq!(parts, [(StepPart::Phase, 3), (StepPart::Rest, 1)], "{report:#?}");
        assert_eq!(report.tasks[0].executed, executed, "{report:#?}");
        assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), &whole(factor)).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_can_not_be_are_refused_and_volatile_ones_run_again() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path(), 300).await;
    let engine = engine(&folder.path().join("cache"));
    let sql = "CREATE TABLE t AS SELECT k, volatile(amount) AS amount FROM orders;";
    let pipeline = |function: UserFunction| {
        let sql = sql::definitions(&format!("{SOURCES}{sql}"), "tasks.sql", folder.path()).unwrap();
        Pipeline::builder().with(sql).with(function).build()
    };
    let volatile = || UserFunction::scalar(plus("volatile", 1, Volatility::Volatile), "1");
    for _ in 0..2 {
        let report = engine.run(&pipeline(volatile()).unwrap(), &RunOptions::default()).await.unwrap();
        assert_eq!(report.tasks[0].status, Status::Executed, "{report:#?}");
    }
    let own = pipeline(UserFunction::scalar(plus("lower", 1, Volatility::Immutable), "1")).unwrap();
    let (_, error) = crate::support::failure(&engine, &own, "t").await;
    assert!(error.contains("DataFusion has a function `lower` of its own"), "{error}");
    let stable = UserFunction::scalar(plus("rate", 1, Volatility::Stable), "1");
    let stable = Pipeline::builder().with(stable).build().unwrap_err().to_string();
    assert!(stable.contains("function `rate` is stable"), "{stable}");
    let twice = Pipeline::builder().with(volatile()).with(volatile()).build().unwrap_err().to_string();
    assert!(twice.contains("two functions are called `volatile`"), "{twice}");
}
