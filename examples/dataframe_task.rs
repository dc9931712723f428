//! A task in Rust between two in SQL: the function is called once to get its plan, which is proved and cut like SQL's.
//!
//! `cargo run --example dataframe_task`

use std::error::Error;

use chunkwise::datafusion::functions_aggregate::expr_fn::{count, max, sum};
use chunkwise::datafusion::prelude::{JoinType, col, lit};
use chunkwise::{Batched, Engine, Pipeline, RunOptions, Status, Task, sql};

const SQL: &str = "
    CREATE EXTERNAL TABLE customers STORED AS CSV LOCATION 'customers.csv' OPTIONS (format.has_header true);
    CREATE EXTERNAL TABLE orders STORED AS CSV LOCATION 'orders.csv' OPTIONS (format.has_header true);
    CREATE TABLE paid CLUSTERED BY (customer) INTO 4 BUCKETS AS SELECT * FROM orders WHERE amount > 0;
    CREATE TABLE per_city AS SELECT city, sum(amount) AS amount FROM spending GROUP BY city;";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("customers.csv"), "id,city\n1,Bonn\n2,Kiel\n3,Bonn\n")?;
    std::fs::write(folder.path().join("orders.csv"), "customer,amount\n1,10\n2,20\n1,5\n3,-1\n3,4\n")?;

    let spending = Task::dataframe("spending", ["paid", "customers"], |inputs| {
        let customers = inputs.table("customers")?;
        let joined = inputs.table("paid")?.join(customers, JoinType::Inner, &["customer"], &["id"], None)?;
        joined.aggregate(
            vec![col("customer"), col("city")],
            vec![
                sum(col("amount")).alias("amount"),
                max(col("amount")).alias("largest"),
                count(lit(1)).alias("orders"),
            ],
        )
    });
    // As many chunks as its input has, so that it reads them by file.
    let spending = spending.invoke(Batched::by(["customer"]).chunks(4));
    let pipeline =
        Pipeline::builder().with(sql::definitions(SQL, "tasks.sql", folder.path())?).with(spending).build()?;

    let engine = Engine::builder().cache_folder(folder.path().join("cache")).build()?;
    println!("{}", engine.explain(&pipeline, Some("spending")).await?.remove(0)?);
    let report = engine.run(&pipeline, &RunOptions::default()).await?;
    assert!(report.succeeded(), "{report:#?}");
    engine.query("SELECT * FROM per_city ORDER BY city").await?.show().await?;
    let again = engine.run(&pipeline, &RunOptions::default()).await?;
    assert!(again.tasks.iter().all(|task| task.status == Status::Reused));
    Ok(())
}
