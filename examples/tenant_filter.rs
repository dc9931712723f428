//! A dematerialization hook: the same tasks for each tenant, which see nothing of the others.
//!
//! `cargo run --example tenant_filter`

use std::error::Error;
use std::path::Path;

use chunkwise::datafusion::common::{Result as PlanResult, plan_datafusion_err};
use chunkwise::datafusion::logical_expr::LogicalPlan;
use chunkwise::datafusion::prelude::{col, lit};
use chunkwise::{Batched, DematerializationHook, Engine, InputPlan, Pipeline, Result, RunOptions, sql};

/// Keeps the rows of one tenant.
#[derive(Debug)]
struct TenantFilter;

impl DematerializationHook for TenantFilter {
    fn name(&self) -> &str {
        "tenant_filter"
    }

    fn rewrite(&self, input: InputPlan<'_>) -> PlanResult<LogicalPlan> {
        let tenant = input.parameter("tenant").ok_or_else(|| plan_datafusion_err!("the task has no tenant"))?;
        Ok(input.dataframe().filter(col("tenant").eq(lit(tenant.clone())))?.into_unoptimized_plan())
    }
}

fn pipeline(folder: &Path, tenant: &str) -> Result<Pipeline> {
    let source = "CREATE EXTERNAL TABLE orders STORED AS CSV LOCATION 'orders.csv' OPTIONS (format.has_header true)";
    let task = sql::task("spending", "SELECT customer, sum(amount) AS amount FROM orders GROUP BY customer")?;
    let task = task
        .parameter("tenant", tenant)
        .dematerialize("orders", TenantFilter)
        .invoke(Batched::by(["customer"]).chunks(4));
    Pipeline::builder().with(sql::definitions(source, "orders.sql", folder)?).with(task).build()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let orders = "tenant,customer,amount\nred,1,10\nred,2,20\nblue,1,300\nred,1,5\nblue,3,7\n";
    std::fs::write(folder.path().join("orders.csv"), orders)?;
    let engine = Engine::builder().cache_folder(folder.path().join("cache")).build()?;
    for (tenant, customers, amount) in [("red", 2, 35), ("blue", 2, 307), ("red", 2, 35)] {
        let report = engine.run(&pipeline(folder.path(), tenant)?, &RunOptions::default()).await?;
        let task = &report.tasks[0];
        println!("{tenant}: {} customers, {} chunks executed, {} reused", task.rows, task.executed, task.reused);
        assert_eq!(task.rows, customers);
        let sum =
            engine.query("SELECT CAST(sum(amount) AS VARCHAR) AS amount FROM spending").await?.to_string().await?;
        assert!(sum.contains(&amount.to_string()), "{sum}");
    }
    Ok(())
}
