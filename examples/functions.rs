//! Rust where SQL ends: a function that queries call, a function over rows that is cut by its author's word, and a function
//! that stores rows once and gives two tables of them.
//!
//! `cargo run --example functions`

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use chunkwise::datafusion::functions_aggregate::expr_fn::sum;
use chunkwise::datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use chunkwise::datafusion::prelude::{col, lit};
use chunkwise::{Batched, Engine, InputBatches, Pipeline, RunOptions, Status, Task, Tasks, UserFunction, sql};

const SQL: &str = "
    CREATE EXTERNAL TABLE readings STORED AS CSV LOCATION 'readings.csv' OPTIONS (format.has_header true);
    CREATE TABLE clean CLUSTERED BY (sensor) INTO 4 BUCKETS AS
    SELECT sensor, minute, celsius(fahrenheit) AS degrees FROM readings WHERE fahrenheit IS NOT NULL;";

/// `celsius(fahrenheit)`, in whole degrees. A new version would run `clean` again, and what reads it as far as it changed.
fn celsius() -> ScalarUDF {
    let convert = |values: &[ColumnarValue]| {
        let values = ColumnarValue::values_to_arrays(values)?.remove(0);
        let degrees = values.as_primitive::<Int64Type>().iter().map(|value| value.map(|f| (f - 32) * 5 / 9));
        Ok(ColumnarValue::Array(Arc::new(degrees.collect::<Int64Array>())))
    };
    create_udf("celsius", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, Arc::new(convert))
}

/// How often the temperature of each sensor changed its direction, minute by minute: no query that one would want to read.
fn turns() -> Task {
    let columns = ["sensor", "turns"].map(|name| Field::new(name, DataType::Int64, true));
    let schema = Arc::new(Schema::new(columns.to_vec()));
    let columns = Arc::clone(&schema);
    let count = move |inputs: &InputBatches| {
        let mut readings: BTreeMap<Option<i64>, Vec<(i64, i64)>> = BTreeMap::new();
        for batch in inputs.batches("clean")? {
            let [sensors, minutes, degrees] = [0, 1, 2].map(|at| batch.column(at).as_primitive::<Int64Type>());
            for ((sensor, minute), degrees) in sensors.iter().zip(minutes.values()).zip(degrees.values()) {
                readings.entry(sensor).or_default().push((*minute, *degrees));
            }
        }
        let turns = readings.values_mut().map(|readings| {
            readings.sort_unstable();
            let is_turn = |three: &&[(i64, i64)]| (three[1].1 - three[0].1) * (three[2].1 - three[1].1) < 0;
            readings.windows(3).filter(is_turn).count() as i64
        });
        let turns: Int64Array = turns.collect();
        let sensors: Int64Array = readings.keys().copied().collect();
        Ok(vec![RecordBatch::try_new(Arc::clone(&columns), vec![Arc::new(sensors), Arc::new(turns)])?])
    };
    Task::batches("turns", "1", ["clean"], schema, count)
        .invoke(Batched::by(["sensor"]).chunks(4))
        .assume_chunkable("sensors know nothing of each other")
}

/// Sensors in two tables, of sums that are stored once.
fn by_warmth() -> Tasks {
    Task::dataframes("by_warmth", ["warm", "cold"], ["clean"], |inputs| {
        let sums = inputs.table("clean")?.aggregate(vec![col("sensor")], vec![sum(col("degrees")).alias("degrees")])?;
        let sums = inputs.materialize("sums", sums)?;
        Ok(vec![sums.clone().filter(col("degrees").gt(lit(40)))?, sums.filter(col("degrees").lt_eq(lit(40)))?])
    })
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let readings = "sensor,minute,fahrenheit\n1,1,50\n1,2,68\n1,3,50\n1,4,59\n2,1,32\n2,2,41\n2,3,50\n2,4,\n";
    std::fs::write(folder.path().join("readings.csv"), readings)?;
    let pipeline = Pipeline::builder()
        .with(sql::definitions(SQL, "readings.sql", folder.path())?)
        .with(UserFunction::scalar(celsius(), "1"))
        .with(turns())
        .with(by_warmth())
        .build()?;

    let engine = Engine::builder().cache_folder(folder.path().join("cache")).build()?;
    let report = engine.run(&pipeline, &RunOptions::default()).await?;
    assert!(report.succeeded(), "{report:#?}");
    for task in &report.tasks {
        let assumed = task.assumed.as_deref().unwrap_or("proved");
        println!("{:8} {} chunks, {} rows; {assumed}", task.name, task.chunks, task.rows);
    }
    let query = "SELECT w.sensor, w.degrees, t.turns FROM warm w JOIN turns t ON w.sensor = t.sensor";
    let rows = engine.query(query).await?.to_string().await?;
    println!("{rows}");
    assert_eq!(rows.lines().nth(3).map(|row| row.replace(' ', "")).as_deref(), Some("|1|55|2|"));
    let again = engine.run(&pipeline, &RunOptions::default()).await?;
    assert!(again.tasks.iter().all(|task| task.status == Status::Reused));
    Ok(())
}
