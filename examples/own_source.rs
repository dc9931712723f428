//! A source hook: rows that come from a service of one's own, of which each chunk asks for its slice alone.
//!
//! `cargo run --example own_source`

use std::error::Error;
use std::sync::{Arc, Mutex};

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chunkwise::datafusion::catalog::TableProvider;
use chunkwise::datafusion::datasource::MemTable;
use chunkwise::{
    ByValue, Engine, ErrorKind, InputSlice, Pipeline, Result, RunOptions, SourceHook, UserSource, async_trait, sql,
};

/// Somewhere else: sales by shop, and how often those of each were changed.
#[derive(Debug, Default)]
struct Service(Mutex<Vec<Shop>>);

#[derive(Debug, Clone)]
struct Shop {
    changes: u64,
    amounts: Vec<i64>,
}

/// Its client. Shop n is the n-th value of the cut below, so slice n is its sales.
#[derive(Debug)]
struct Sales(Arc<Service>);

impl Sales {
    fn shops(&self, slice: &InputSlice) -> Vec<(usize, Shop)> {
        let shops: Vec<_> = self.0.0.lock().expect("nobody panicked").iter().cloned().enumerate().collect();
        // Chunk 0 has what is in no shop. A client that knows no slices may give all rows: the engine keeps the chunk's.
        shops.into_iter().filter(|(shop, _)| slice.chunk.is_none_or(|(chunk, _)| *shop + 1 == chunk as usize)).collect()
    }
}

#[async_trait]
impl SourceHook for Sales {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(["shop", "amount"].map(|name| Field::new(name, DataType::Int64, false)).to_vec()))
    }

    async fn version(&self, slice: &InputSlice) -> Result<String> {
        Ok(format!("{:?}", self.shops(slice).iter().map(|(_, shop)| shop.changes).collect::<Vec<_>>()))
    }

    async fn read(&self, slice: &InputSlice) -> Result<Arc<dyn TableProvider>> {
        println!(
            "asked for {:?}, where {}",
            slice.chunk,
            slice.predicate.as_ref().map_or("all".into(), ToString::to_string)
        );
        let sales =
            self.shops(slice).into_iter().flat_map(|(at, shop)| shop.amounts.into_iter().map(move |a| (at as i64, a)));
        let (shops, amounts): (Vec<i64>, Vec<i64>) = sales.unzip();
        let columns: Vec<_> =
            [shops, amounts].into_iter().map(|values| Arc::new(Int64Array::from(values)) as _).collect();
        let rows = RecordBatch::try_new(self.schema(), columns).map_err(Into::into);
        let table = rows.and_then(|rows| MemTable::try_new(self.schema(), vec![vec![rows]]));
        Ok(Arc::new(
            table.map_err(|e| chunkwise::Error::new(ErrorKind::Source, "the service can't answer").with_source(e))?,
        ))
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let shop = |amounts: &[i64]| Shop { changes: 0, amounts: amounts.to_vec() };
    let service = Arc::new(Service(Mutex::new(vec![shop(&[10, 5]), shop(&[7]), shop(&[1, 2, 3])])));
    let per_shop = sql::task("per_shop", "SELECT shop, sum(amount) AS amount FROM sales GROUP BY shop")?;
    let pipeline = Pipeline::builder()
        .with(UserSource::new("sales", Sales(Arc::clone(&service))))
        .with(per_shop.invoke(ByValue::values("shop", [0i64, 1, 2])))
        .build()?;

    let engine = Engine::builder().cache_folder(folder.path().join("cache")).build()?;
    let report = engine.run(&pipeline, &RunOptions::default()).await?;
    assert_eq!(report.tasks[0].executed, 4, "{report:#?}");
    {
        let mut shops = service.0.lock().expect("nobody panicked");
        shops[1].amounts.push(70);
        shops[1].changes += 1;
    }
    let report = engine.run(&pipeline, &RunOptions::default()).await?;
    println!("then {} of {} chunks ran: {}", report.tasks[0].executed, report.tasks[0].chunks, report.tasks[0].reason);
    assert_eq!(report.tasks[0].executed, 1, "{report:#?}");
    let rows = engine.query("SELECT * FROM per_shop ORDER BY shop").await?.to_string().await?;
    println!("{rows}");
    assert!(rows.lines().any(|row| row.replace(' ', "") == "|1|77|"));
    Ok(())
}
