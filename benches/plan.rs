//! Proving a join of ten tables and rewriting its plan for 1,000 chunks: what planning adds to a chunk.
//!
//! `cargo bench --bench plan`

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chunkwise::testing::Planning;
use criterion::{Criterion, Throughput};

const TABLES: usize = 10;
const CHUNKS: u64 = 1000;

fn main() {
    let planning = planning();
    let start = Instant::now();
    assert_eq!(planning.prove_and_rewrite().expect("accepted").len() as u64, CHUNKS);
    println!("first: {:.1?} per chunk", start.elapsed() / CHUNKS as u32);
    let mut criterion =
        Criterion::default().measurement_time(Duration::from_secs(10)).sample_size(20).configure_from_args();
    let mut group = criterion.benchmark_group("plan");
    group.throughput(Throughput::Elements(CHUNKS));
    group.bench_function("10-way join, 1,000 chunks", |bench| {
        bench.iter(|| planning.prove_and_rewrite().expect("accepted"))
    });
    group.finish();
    criterion.final_summary();
}

/// Ten tables, each joined to the one before by the key, and aggregated by it.
fn planning() -> Planning {
    let mut sql = String::new();
    let mut inputs: BTreeMap<String, SchemaRef> = BTreeMap::new();
    for table in 0..TABLES {
        sql.push_str(&format!("CREATE EXTERNAL TABLE t{table} STORED AS PARQUET LOCATION 't{table}.parquet';\n"));
        let columns = (0..8).map(|column| match column {
            0 => Field::new(format!("k{table}"), DataType::Int64, true),
            1..5 => Field::new(format!("t{table}_n{column}"), DataType::Int32, true),
            _ => Field::new(format!("t{table}_s{column}"), DataType::Utf8View, true),
        });
        inputs.insert(format!("t{table}"), Arc::new(Schema::new(columns.collect::<Vec<_>>())));
    }
    let joins: String = (1..TABLES).map(|t| format!(" JOIN t{t} ON k{} = k{t}", t - 1)).collect();
    let sums: String = (0..TABLES).map(|t| format!(", sum(t{t}_n1) AS sum{t}, max(t{t}_s5) AS max{t}")).collect();
    sql.push_str(&format!(
        "CREATE TABLE joined CLUSTERED BY (k0) INTO {CHUNKS} BUCKETS AS
         SELECT k0{sums} FROM t0{joins} WHERE t0_n2 > 1 AND t1_s6 <> 'x' GROUP BY k0"
    ));
    let pipeline = chunkwise::sql::parse(&sql, "bench.sql", Path::new("/")).expect("valid");
    Planning::new(&pipeline, "joined", &inputs).expect("valid")
}
