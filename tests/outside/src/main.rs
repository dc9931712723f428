//! One hook of each kind, and what they are told; a task that is a function over rows.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use chunkwise::datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use chunkwise::datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chunkwise::datafusion::catalog::TableProvider;
use chunkwise::datafusion::common::{Result as PlanResult, ScalarValue};
use chunkwise::datafusion::datasource::MemTable;
use chunkwise::datafusion::logical_expr::LogicalPlan;
use chunkwise::datafusion::prelude::{col, lit};
use chunkwise::{
    Batched, ChunkFile, ChunkRows, Chunks, Cut, DematerializationHook, Engine, ErrorKind, FinishedTable, HookContext,
    InputBatches, InputPlan, InputSlice, InvocationContext, InvocationHook, MaterializationHook, OutputChunk, Pipeline,
    Result, RunOptions, SourceHook, Task, UserSource, async_trait, sql,
};

/// A chunk for each size that the caller names, one after the other.
#[derive(Debug)]
struct BySize;

#[async_trait]
impl InvocationHook for BySize {
    async fn cut(&self, context: &InvocationContext) -> Result<Cut> {
        let sizes = context.parameter("sizes").map(ToString::to_string).unwrap_or_default();
        let sizes: Vec<_> = sizes.split(' ').map(|size| vec![ScalarValue::from(size)]).collect();
        assert!(context.task() == "flowers" && context.jobs() == 2 && context.inputs().eq(["plants"]));
        Ok(Cut::values("size", sizes))
    }

    async fn run(&self, chunks: &Chunks, context: &HookContext) -> Result<()> {
        let log = context.temp_folder()?.join("log");
        for chunk in chunks.pending() {
            std::fs::write(&log, chunk.to_string()).expect("the folder is there");
            chunks.run(*chunk).await?;
        }
        Ok(())
    }

    async fn finish(&self, table: &FinishedTable, context: &HookContext) -> Result<()> {
        assert_eq!(table.files.len(), context.chunks() as usize);
        Ok(())
    }
}

/// Leaves out what has no flowers.
#[derive(Debug)]
struct InBloom;

impl DematerializationHook for InBloom {
    fn name(&self) -> &str {
        "in_bloom"
    }

    fn version(&self) -> &str {
        "2"
    }

    fn rewrite(&self, input: InputPlan<'_>) -> PlanResult<LogicalPlan> {
        assert_eq!((input.task(), input.table()), ("flowers", "plants"));
        Ok(input.dataframe().filter(col("flowers").gt(lit(0)))?.into_unoptimized_plan())
    }
}

/// Adds the chunk's number as `part`, and counts files.
#[derive(Debug, Clone, Default)]
struct Numbered(Arc<AtomicU32>);

struct NumberRows(u32, SchemaRef);

#[async_trait]
impl MaterializationHook for Numbered {
    fn name(&self) -> &str {
        "numbered"
    }

    fn schema(&self, query: &SchemaRef) -> Result<Option<SchemaRef>> {
        let number = Arc::new(Field::new("part", DataType::UInt32, false));
        Ok(Some(Arc::new(Schema::new(query.fields().iter().cloned().chain([number]).collect::<Vec<_>>()))))
    }

    fn begin(&self, chunk: &OutputChunk) -> Result<Option<Box<dyn ChunkRows>>> {
        let schema = self.schema(&chunk.schema)?.expect("it has one");
        Ok(Some(Box::new(NumberRows(chunk.chunk, schema))))
    }

    async fn committed(&self, file: &ChunkFile, context: &HookContext) -> Result<()> {
        assert!(file.path.exists() && file.chunk < context.chunks());
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl ChunkRows for NumberRows {
    fn batch(&mut self, rows: RecordBatch) -> Result<RecordBatch> {
        let number = Arc::new(UInt32Array::from(vec![self.0; rows.num_rows()])) as ArrayRef;
        let columns = rows.columns().iter().cloned().chain([number]).collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.1), columns).expect("one number for each row"))
    }
}

/// What each size costs, from a service that is only this program.
#[derive(Debug)]
struct Prices;

#[async_trait]
impl SourceHook for Prices {
    fn schema(&self) -> SchemaRef {
        let (size, price) = (Field::new("size", DataType::Utf8, true), Field::new("price", DataType::UInt32, true));
        Arc::new(Schema::new(vec![size, price]))
    }

    async fn version(&self, slice: &InputSlice) -> Result<String> {
        assert_eq!(slice.table, "prices");
        Ok("of this year".into())
    }

    async fn read(&self, slice: &InputSlice) -> Result<Arc<dyn TableProvider>> {
        // A real one would send them to its service.
        assert_eq!(slice.chunk.is_some(), slice.predicate.is_some());
        let sizes = Arc::new(StringArray::from(vec!["small", "large", "huge"]));
        let rows = RecordBatch::try_new(self.schema(), vec![sizes, Arc::new(UInt32Array::from(vec![2, 5, 9]))]);
        let table = rows.map_err(Into::into).and_then(|rows| MemTable::try_new(self.schema(), vec![vec![rows]]));
        Ok(Arc::new(table.map_err(|e| chunkwise::Error::new(ErrorKind::Source, "no prices").with_source(e))?))
    }
}

/// The number of batches' rows of each size, in Rust.
fn count(inputs: &InputBatches) -> PlanResult<Vec<RecordBatch>> {
    let rows = inputs.batches("flowers")?.iter().map(RecordBatch::num_rows).sum::<usize>();
    let rows: ArrayRef = Arc::new(UInt32Array::from(vec![rows as u32]));
    Ok(vec![RecordBatch::try_from_iter([("rows", rows)])?])
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("plants.csv"), "size,flowers\nsmall,3\nlarge,0\nlarge,5\nhuge,1\nsmall,1\n")?;
    let source = "CREATE EXTERNAL TABLE plants STORED AS CSV LOCATION 'plants.csv' OPTIONS (format.has_header true)";
    let counted = Numbered::default();
    let flowers = Task::dataframe("flowers", ["plants"], |inputs| inputs.table("plants"))
        .parameter("sizes", "small large")
        .dematerialize("plants", InBloom)
        .materialize(counted.clone())
        .invoke(BySize);
    let worth = sql::task(
        "worth",
        "SELECT f.size, sum(f.flowers * p.price) AS worth FROM flowers f
        JOIN prices p ON f.size = p.size GROUP BY f.size",
    )?;
    let columns = Arc::new(Schema::new(vec![Field::new("rows", DataType::UInt32, false)]));
    let pipeline = Pipeline::builder()
        .with(sql::definitions(source, "plants.sql", folder.path())?)
        .with(UserSource::new("prices", Prices))
        .with(flowers)
        .with(worth.invoke(Batched::by(["size"]).chunks(2)))
        .with(Task::batches("counted", "1", ["flowers"], columns, count))
        .build()?;
    let engine = Engine::builder().cache_folder(folder.path().join("cache")).jobs(2).build()?;
    let report = engine.run(&pipeline, &RunOptions::default()).await?;
    assert!(report.succeeded(), "{report:#?}");
    let rows =
        engine.query("SELECT size, flowers, part FROM flowers ORDER BY part, flowers").await?.to_string().await?;
    println!("{rows}");
    let rows: Vec<String> = rows.lines().map(|line| line.replace([' ', '|'], "")).collect();
    assert_eq!(rows[3..7], ["huge10", "small11", "small31", "large52"]);
    assert_eq!(counted.0.load(Ordering::Relaxed), 3);
    let rows = engine.query("SELECT sum(worth) AS worth, min(rows) AS rows FROM worth, counted").await?;
    let rows = rows.to_string().await?;
    println!("{rows}");
    assert_eq!(rows.lines().nth(3).map(|line| line.replace(' ', "")).as_deref(), Some("|42|4|"));
    Ok(())
}
