//! Makes two small Parquet files, runs a folder of SQL tasks over them twice, runs one more task, and reads the output
//! whole and chunk by chunk.
//!
//! `cargo run --example quickstart`

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use chunkwise::{Engine, Event, RunOptions, Status, sql};
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    make_data(folder.path())?;
    let tasks = folder.path().join("tasks");
    fs::create_dir(&tasks)?;
    fs::write(
        tasks.join("spending.sql"),
        "CREATE EXTERNAL TABLE customers STORED AS PARQUET LOCATION '../customers.parquet';
         CREATE EXTERNAL TABLE orders STORED AS PARQUET LOCATION '../orders.parquet';

         -- Cut by customer: the join carries the key from orders to customers.
         CREATE TABLE spending CLUSTERED BY (customer_id) INTO 8 BUCKETS AS
         SELECT customer_id, name, count(*) AS orders, sum(amount) AS spent
         FROM orders JOIN customers ON orders.customer_id = customers.id
         GROUP BY customer_id, name;",
    )?;

    let engine = Engine::builder()
        .cache_folder(folder.path().join("cache"))
        .jobs(2)
        .on_event(|event| {
            if let Event::Done { task, executed, reused, .. } = event {
                println!("{task}: {executed} chunks executed, {reused} reused");
            }
        })
        .build()?;

    // A folder of tasks. The second run finds every chunk in the cache.
    let pipeline = sql::load([&tasks])?;
    let first = engine.run(&pipeline, &RunOptions::default()).await?;
    let second = engine.run(&pipeline, &RunOptions::default()).await?;
    assert_eq!((first.tasks[0].executed, first.tasks[0].rows), (8, 100));
    assert_eq!(second.tasks[0].status, Status::Reused);
    for explanation in engine.explain(&pipeline, Some("spending")).await? {
        println!("{}", explanation?);
    }

    // One task from text; its locations count from the given folder.
    let task = sql::parse(
        "CREATE EXTERNAL TABLE orders STORED AS PARQUET LOCATION 'orders.parquet';
         CREATE TABLE largest CLUSTERED BY (customer_id) INTO 4 BUCKETS AS
         SELECT customer_id, max(amount) AS amount FROM orders GROUP BY customer_id;",
        "largest.sql",
        folder.path(),
    )?;
    assert!(engine.run(&task, &RunOptions::default()).await?.succeeded());

    // The output: by a query, as a table, and one chunk of it.
    engine.query("SELECT name, spent FROM spending ORDER BY spent DESC LIMIT 3").await?.show().await?;
    let context = SessionContext::new();
    let whole = context.read_table(engine.table("spending").await?)?.count().await?;
    let mut by_chunk = 0;
    for chunk in 0..8 {
        by_chunk += context.read_table(engine.table_chunk("spending", chunk).await?)?.count().await?;
    }
    assert_eq!((whole, by_chunk), (100, 100));
    Ok(())
}

fn make_data(folder: &Path) -> Result<(), Box<dyn Error>> {
    let names: StringArray = (0..100).map(|id| Some(format!("customer {id}"))).collect();
    let customers = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(0..100)) as ArrayRef),
        ("name", Arc::new(names) as ArrayRef),
    ])?;
    let orders = RecordBatch::try_from_iter([
        ("customer_id", Arc::new(Int64Array::from_iter_values((0..10_000).map(|i| i % 100))) as ArrayRef),
        ("amount", Arc::new(Int64Array::from_iter_values((0..10_000).map(|i| i * 7 % 1_000))) as ArrayRef),
    ])?;
    for (name, batch) in [("customers.parquet", customers), ("orders.parquet", orders)] {
        let mut writer = ArrowWriter::try_new(File::create(folder.join(name))?, batch.schema(), None)?;
        writer.write(&batch)?;
        writer.close()?;
    }
    Ok(())
}
