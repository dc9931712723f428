//! An invocation hook of one's own: a chunk for each month that a source has, so that each opens only its row groups.
//!
//! `cargo run --example monthly_ranges`

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Date32Array, Int64Array, RecordBatch};
use chunkwise::datafusion::common::ScalarValue;
use chunkwise::datafusion::functions::expr_fn::date_trunc;
use chunkwise::datafusion::prelude::{cast, col, lit};
use chunkwise::{
    Cut, Engine, ErrorKind, InvocationContext, InvocationHook, Pipeline, Result, RunOptions, async_trait, sql,
};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

/// Cuts by the months of a date column of a source.
#[derive(Debug)]
struct Monthly {
    table: &'static str,
    column: &'static str,
}

#[async_trait]
impl InvocationHook for Monthly {
    async fn cut(&self, context: &InvocationContext) -> Result<Cut> {
        let failed = |e| chunkwise::Error::new(ErrorKind::Source, "the months can't be found").with_source(e);
        let month = cast(date_trunc(lit("month"), col(self.column)), arrow::datatypes::DataType::Date32).alias("month");
        let months = context.source(self.table)?.select(vec![month]).and_then(|months| months.distinct());
        let mut bounds = Vec::new();
        for batch in months.map_err(failed)?.collect().await.map_err(failed)? {
            for row in 0..batch.num_rows() {
                bounds.push(ScalarValue::try_from_array(batch.column(0), row).map_err(failed)?);
            }
        }
        bounds.retain(|bound| !bound.is_null());
        Ok(Cut::ranges(self.column, bounds))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    make_data(&folder.path().join("sales.parquet"))?;
    let source = "CREATE EXTERNAL TABLE sales STORED AS PARQUET LOCATION 'sales.parquet'";
    let task = sql::task("per_day", "SELECT day, sum(amount) AS amount FROM sales GROUP BY day")?;
    let task = task.invoke(Monthly { table: "sales", column: "day" });
    let pipeline =
        Pipeline::builder().with(sql::definitions(source, "sales.sql", folder.path())?).with(task).build()?;

    let engine = Engine::builder().cache_folder(folder.path().join("cache")).build()?;
    println!("{}", engine.explain(&pipeline, None).await?.remove(0)?);
    let report = engine.run(&pipeline, &RunOptions::default()).await?;
    println!("{} days in {} chunks", report.tasks[0].rows, report.tasks[0].chunks);
    // One for what is before the first month, of which there is nothing.
    assert_eq!((report.tasks[0].rows, report.tasks[0].chunks), (365, 13));
    Ok(())
}

/// Sales of the days of 2026, in order, a row group of a thousand.
fn make_data(path: &Path) -> Result<(), Box<dyn Error>> {
    let days = Date32Array::from_iter_values((0..36_500).map(|row| 20_454 + row / 100));
    let amounts = Int64Array::from_iter_values((0..36_500).map(|row| row * 7 % 1_000));
    let rows = RecordBatch::try_from_iter([("day", Arc::new(days) as _), ("amount", Arc::new(amounts) as _)])?;
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1_000)).build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, rows.schema(), Some(properties))?;
    writer.write(&rows)?;
    writer.close()?;
    Ok(())
}
