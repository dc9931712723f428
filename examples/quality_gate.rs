//! A materialization hook: rows that break a rule stop the task, and the table stays as it was.
//!
//! `cargo run --example quality_gate`

use std::collections::HashSet;
use std::error::Error;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use chunkwise::{
    Batched, ChunkRows, Engine, ErrorKind, FinishedTable, HookContext, MaterializationHook, OutputChunk, Pipeline,
    Result, RunOptions, Status, async_trait, sql,
};

/// No customer twice, no negative amount, and at least one row in the whole. Rows with one key are in one chunk, so what
/// is unique in each chunk is unique in the whole.
#[derive(Debug)]
struct QualityGate;

#[derive(Default)]
struct Checked(HashSet<i64>);

#[async_trait]
impl MaterializationHook for QualityGate {
    fn name(&self) -> &str {
        "quality_gate"
    }

    fn begin(&self, _chunk: &OutputChunk) -> Result<Option<Box<dyn ChunkRows>>> {
        Ok(Some(Box::new(Checked::default())))
    }

    async fn finish(&self, table: &FinishedTable, _context: &HookContext) -> Result<()> {
        match table.files.iter().map(|file| file.rows).sum::<u64>() {
            0 => Err(chunkwise::Error::new(ErrorKind::Rejected, "the table is empty")),
            _ => Ok(()),
        }
    }
}

impl ChunkRows for Checked {
    fn batch(&mut self, rows: RecordBatch) -> Result<RecordBatch> {
        let reject = |message: String| Err(chunkwise::Error::new(ErrorKind::Rejected, message));
        let (customers, amounts) =
            (rows.column(0).as_primitive::<Int64Type>(), rows.column(1).as_primitive::<Int64Type>());
        if let Some(twice) = customers.iter().flatten().find(|customer| !self.0.insert(*customer)) {
            return reject(format!("customer {twice} is there twice"));
        }
        if let Some(negative) = amounts.iter().flatten().find(|amount| *amount < 0) {
            return reject(format!("an amount is {negative}"));
        }
        Ok(rows)
    }
}

async fn run(engine: &Engine, folder: &Path, orders: &str) -> Result<(Status, String), Box<dyn Error>> {
    std::fs::write(folder.join("orders.csv"), format!("customer,amount\n{orders}"))?;
    let source = "CREATE EXTERNAL TABLE orders STORED AS CSV LOCATION 'orders.csv' OPTIONS (format.has_header true)";
    let task = sql::task("spending", "SELECT customer, sum(amount) AS amount FROM orders GROUP BY customer")?;
    let task = task.invoke(Batched::by(["customer"]).chunks(4)).materialize(QualityGate);
    let pipeline = Pipeline::builder().with(sql::definitions(source, "orders.sql", folder)?).with(task).build()?;
    let report = engine.run(&pipeline, &RunOptions::default()).await?;
    Ok((report.tasks[0].status, report.tasks[0].reason.clone()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let engine = Engine::builder().cache_folder(folder.path().join("cache")).build()?;
    assert_eq!(run(&engine, folder.path(), "1,10\n2,20\n1,5\n").await?.0, Status::Executed);
    let (status, reason) = run(&engine, folder.path(), "1,10\n2,20\n3,-40\n").await?;
    println!("{reason}");
    assert!(status == Status::Failed && reason.contains("an amount is -40"));
    // What was published is still there.
    let rows =
        engine.query("SELECT count(*) AS customers, sum(amount) AS amount FROM spending").await?.to_string().await?;
    println!("{rows}");
    assert!(rows.contains("35"));
    Ok(())
}
