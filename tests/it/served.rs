//! Sources whose rows a hook gives, slice by slice.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chunkwise::{
    Batched, ByRange, ByValue, Engine, ErrorKind, FreshInput, InputMode, InputSlice, Pipeline, Result, RunOptions,
    RunReport, SourceHook, Status, Task, UserSource, async_trait, sql,
};
use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;

use crate::support::{Multiset, engine, make_parquet, oracle, parquet_source, query_rows, read_rows};

/// A service with some rows, which can be changed; it remembers what it was asked for.
#[derive(Debug, Default)]
struct Service {
    /// Rows that were added to those with `k = 3`.
    added: AtomicU64,
    /// Whether each answer is of another version.
    is_restless: AtomicU64,
    /// Whether slices have versions of their own.
    knows_slices: bool,
    asked: Mutex<Vec<InputSlice>>,
}

impl Service {
    fn rows(&self) -> String {
        let added = self.added.load(Ordering::SeqCst);
        format!(
            "SELECT value % 10 AS k, value AS amount FROM generate_series(1, 100) AS g(value)
            UNION ALL SELECT 3 AS k, value AS amount FROM generate_series(1, {added}) AS g(value)"
        )
    }
}

#[derive(Debug, Clone)]
struct Client(Arc<Service>);

#[async_trait]
impl SourceHook for Client {
    fn schema(&self) -> SchemaRef {
        let field = |name: &str| Field::new(name, DataType::Int64, true);
        Arc::new(Schema::new(vec![field("k"), field("amount")]))
    }

    async fn version(&self, slice: &InputSlice) -> Result<String> {
        let restless = match self.0.is_restless.load(Ordering::SeqCst) {
            0 => 0,
            _ => self.0.is_restless.fetch_add(1, Ordering::SeqCst),
        };
        let added = self.0.added.load(Ordering::SeqCst);
        // The chunk of 3, which is the first of the values that are asked for.
        let is_changed = !self.0.knows_slices || slice.chunk.is_none_or(|(chunk, _)| chunk == 1);
        Ok(if is_changed { format!("{added} {restless}") } else { "0".into() })
    }

    async fn read(&self, slice: &InputSlice) -> Result<Arc<dyn TableProvider>> {
        self.0.asked.lock().unwrap().push(slice.clone());
        let context = SessionContext::new();
        let mut rows = context.sql(&self.0.rows()).await.unwrap();
        // What it understands; the engine keeps to the chunk's rows either way.
        if let Some(predicate) = slice.predicate.clone().filter(|predicate| !predicate.to_string().contains("chunk_of"))
        {
            rows = rows.filter(predicate).unwrap();
        }
        let batches = rows.collect().await.unwrap();
        let batches = batches.into_iter().map(|batch| batch.with_schema(self.schema()).unwrap()).collect();
        Ok(Arc::new(datafusion::datasource::MemTable::try_new(self.schema(), vec![batches]).unwrap()))
    }
}

const JOIN: &str = "SELECT s.k, n.name, sum(s.amount) AS amount, count(*) AS n
    FROM service s LEFT JOIN names n ON s.k = n.k GROUP BY s.k, n.name";

fn pipeline(folder: &Path, service: &Arc<Service>, task: Task) -> Pipeline {
    let names =
        sql::definitions("CREATE EXTERNAL TABLE names STORED AS PARQUET LOCATION 'names.parquet'", "a.sql", folder);
    let source = UserSource::new("service", Client(Arc::clone(service)));
    Pipeline::builder().with(names.unwrap()).with(source).with(task).build().unwrap()
}

async fn data(folder: &Path) {
    make_parquet(folder, "names", "SELECT value AS k, 'name ' || value AS name FROM generate_series(0, 7) AS g(value)")
        .await;
}

async fn run(engine: &Engine, folder: &Path, service: &Arc<Service>, task: Task) -> RunReport {
    engine.run(&pipeline(folder, service, task), &RunOptions::default()).await.unwrap()
}

async fn expected(folder: &Path, service: &Service) -> Multiset {
    let view = format!("CREATE VIEW service AS {}", service.rows());
    query_rows(&oracle(&[parquet_source(folder, "names"), view]).await, JOIN).await
}

fn join() -> Task {
    sql::task("t", JOIN).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_asks_for_its_slice() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    for (name, task, chunks, mode) in [
        ("whole", join(), 1, InputMode::Replicate),
        ("hash", join().invoke(Batched::by(["k"]).chunks(3)), 3, InputMode::Serve),
        ("values", join().invoke(ByValue::values("k", [3i64, 5])), 3, InputMode::Serve),
        ("ranges", join().invoke(ByRange::on("k").bounds([2i64, 5, 8])), 4, InputMode::Serve),
    ] {
        let service = Arc::new(Service::default());
        let engine = engine(&folder.path().join(name));
        let report = run(&engine, folder.path(), &service, task.clone()).await;
        assert!(report.succeeded(), "{name}: {report:#?}");
        let task_report = &report.tasks[0];
        assert_eq!((task_report.chunks, task_report.executed), (chunks, chunks), "{name}");
        let mode_of = task_report.inputs.iter().find(|input| input.table == "service").map(|input| input.mode);
        assert_eq!(mode_of, Some(mode), "{name}: {report:#?}");
        assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), &service).await, "{name}");
        let mut asked: Vec<_> = service.asked.lock().unwrap().iter().map(|slice| slice.chunk).collect();
        asked.sort_unstable();
        let wanted: Vec<_> = match mode {
            InputMode::Serve => (0..chunks).map(|chunk| Some((chunk, chunks))).collect(),
            _ => vec![None],
        };
        assert_eq!(asked, wanted, "{name}");
        // Nothing changed: nothing is asked for but versions.
        service.asked.lock().unwrap().clear();
        let again = run(&engine, folder.path(), &service, task.clone()).await;
        assert_eq!(again.tasks[0].status, Status::Reused, "{name}: {again:#?}");
        assert!(service.asked.lock().unwrap().is_empty(), "{name}");
        service.added.store(4, Ordering::SeqCst);
        let changed = run(&engine, folder.path(), &service, task).await;
        assert_eq!(changed.tasks[0].executed, chunks, "{name}: {changed:#?}");
        assert_eq!(changed.tasks[0].reason, "changed: input `service`", "{name}");
        assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), &service).await, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_with_versions_of_their_own_run_alone() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let service = Arc::new(Service { knows_slices: true, ..Service::default() });
    let task = || join().invoke(ByValue::values("k", [3i64, 5]));
    run(&engine, folder.path(), &service, task()).await;
    service.added.store(4, Ordering::SeqCst);
    let options = |fresh_input| RunOptions { fresh_input, ..RunOptions::default() };
    let pipeline = pipeline(folder.path(), &service, task());
    let ignored = engine.run(&pipeline, &options(FreshInput::Ignore)).await.unwrap();
    assert_eq!(ignored.tasks[0].status, Status::Reused, "{ignored:#?}");
    let failed = engine.run(&pipeline, &options(FreshInput::Fail)).await.unwrap();
    assert!(failed.tasks[0].reason.contains("would have to run: service"), "{failed:#?}");
    let changed = engine.run(&pipeline, &options(FreshInput::Use)).await.unwrap();
    assert_eq!((changed.tasks[0].executed, changed.tasks[0].reused), (1, 2), "{changed:#?}");
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), &service).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_changes_meanwhile_fails_the_task() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let service = Arc::new(Service::default());
    service.is_restless.store(1, Ordering::SeqCst);
    for task in [join(), join().invoke(Batched::by(["k"]).chunks(3))] {
        let report = run(&engine, folder.path(), &service, task).await;
        assert_eq!(report.tasks[0].status, Status::Failed);
        assert!(report.tasks[0].reason.contains("the source `service` changed while it was read"), "{report:#?}");
    }
    assert!(engine.published_tables().unwrap().is_empty());
    service.is_restless.store(0, Ordering::SeqCst);
    assert!(run(&engine, folder.path(), &service, join()).await.succeeded());
    assert_eq!(read_rows(&engine, "t").await.unwrap(), expected(folder.path(), &service).await);
}

/// A service that is not there.
#[derive(Debug)]
struct Gone;

#[async_trait]
impl SourceHook for Gone {
    fn schema(&self) -> SchemaRef {
        Client(Arc::default()).schema()
    }

    async fn version(&self, _slice: &InputSlice) -> Result<String> {
        Ok("1".into())
    }

    async fn read(&self, _slice: &InputSlice) -> Result<Arc<dyn TableProvider>> {
        Err(chunkwise::Error::new(ErrorKind::Source, "the service is gone"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_says_is_told() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path()).await;
    let engine = engine(&folder.path().join("cache"));
    let build = |task: Task| Pipeline::builder().with(UserSource::new("service", Gone)).with(task).build();
    let pipeline = build(sql::task("t", "SELECT count(*) AS n FROM service").unwrap()).unwrap();
    let report = engine.run(&pipeline, &RunOptions::default()).await.unwrap();
    assert!(report.tasks[0].reason.contains("the service is gone"), "{report:#?}");
    let twice = build(sql::task("service", "SELECT 1 AS a").unwrap()).unwrap_err().to_string();
    assert!(twice.contains("`service` is defined twice"), "{twice}");
    let by_value = sql::task("t", "SELECT k FROM service").unwrap().invoke(ByValue::each_of("service", "k"));
    let report = engine.run(&build(by_value).unwrap(), &RunOptions::default()).await.unwrap();
    assert!(report.tasks[0].reason.contains("the service is gone"), "{report:#?}");
    let cut = sql::task("t", "SELECT k FROM service").unwrap().invoke(Batched::by(["k"]).chunks(2));
    let text = engine.explain(&build(cut).unwrap(), None).await.unwrap().remove(0).unwrap();
    assert!(text.contains("service  serve: a chunk asks the source's hook for its rows by (k)"), "{text}");
}
