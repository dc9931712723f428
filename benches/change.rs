//! What a change of one row costs: a pipeline of three tasks of 64 chunks, cold, after a row of `lineitem` has changed in
//! its file, and after a row came in a file of its own. Medians of three.
//!
//! `cargo bench --bench change -- 1` for TPC-H at scale 1; 0.1 without an argument.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, RecordBatch};
use arrow::datatypes::Decimal128Type;
use chunkwise::{Engine, RunOptions, RunReport};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

const SQL: &str = "
    CREATE EXTERNAL TABLE lineitem STORED AS PARQUET LOCATION 'lineitem/';
    CREATE EXTERNAL TABLE orders STORED AS PARQUET LOCATION 'orders.parquet';
    CREATE TABLE joined CLUSTERED BY (o_orderkey) INTO 64 BUCKETS AS
        SELECT o_orderkey, o_custkey, max(o_orderdate) AS ordered, sum(l_extendedprice) AS price,
            max(l_shipdate) AS shipped, string_agg(l_comment, '|') AS comments
        FROM lineitem JOIN orders ON l_orderkey = o_orderkey GROUP BY o_orderkey, o_custkey;
    CREATE TABLE late CLUSTERED BY (o_orderkey) INTO 64 BUCKETS AS
        SELECT o_orderkey, o_custkey, price, comments, shipped FROM joined WHERE shipped > ordered;
    CREATE TABLE ranked CLUSTERED BY (o_orderkey) INTO 64 BUCKETS AS
        SELECT o_orderkey, price, upper(comments) AS comments,
            row_number() OVER (PARTITION BY o_orderkey ORDER BY price) AS r FROM late;
";

fn main() {
    let scale = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(0.1);
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    chunkwise::cli::tpch::generate(folder.path(), scale, &mut |_, _, _| {}).expect("the data can be made");
    std::fs::create_dir(at("lineitem")).expect("a folder");
    let (whole, more) = (at("lineitem/a.parquet"), at("lineitem/b.parquet"));
    let pipeline = chunkwise::sql::parse(SQL, "change.sql", folder.path()).expect("a pipeline");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let run = || {
        let engine = Engine::builder().cache_folder(at("cache")).build().expect("an engine");
        let report = runtime.block_on(engine.run(&pipeline, &RunOptions::default())).expect("a run");
        assert!(report.succeeded(), "{report:#?}");
        report
    };
    let mut walls: [Vec<u64>; 4] = Default::default();
    for _ in 0..3 {
        let _ = std::fs::remove_dir_all(at("cache"));
        let _ = std::fs::remove_file(&more);
        copy(&at("lineitem.parquet"), &whole, Some);
        let reports = [
            run(),
            run(),
            {
                copy(&at("lineitem.parquet"), &whole, |batch| Some(with_another_price(&batch)));
                run()
            },
            {
                let mut is_first = true;
                copy(&at("lineitem.parquet"), &more, |batch| std::mem::take(&mut is_first).then(|| batch.slice(0, 1)));
                run()
            },
        ];
        assert_eq!(reports.each_ref().map(executed), [[64, 64, 64], [0, 0, 0], [1, 1, 1], [1, 1, 1]], "{reports:#?}");
        for (walls, report) in walls.iter_mut().zip(&reports) {
            walls.push(report.wall_ms);
        }
    }
    let [cold, null, row, file] = walls.map(|mut walls| {
        walls.sort_unstable();
        walls[walls.len() / 2]
    });
    println!("TPC-H at {scale}: cold {cold} ms, nothing changed {null} ms");
    println!("one row changed: {row} ms = {:.3} of cold; one chunk of each task ran", row as f64 / cold as f64);
    println!(
        "one row added in a file: {file} ms = {:.3} of cold; one chunk of each task ran",
        file as f64 / cold as f64
    );
}

fn executed(report: &RunReport) -> [u32; 3] {
    ["joined", "late", "ranked"].map(|task| report.task(task).map_or(0, |task| task.executed))
}

/// Copies a Parquet file, each batch as `change` gives it.
fn copy(from: &Path, to: &Path, mut change: impl FnMut(RecordBatch) -> Option<RecordBatch>) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(from).expect("a file")).expect("Parquet");
    let schema = Arc::clone(reader.schema());
    let zstd = Compression::ZSTD(ZstdLevel::try_new(1).expect("a level"));
    let properties = WriterProperties::builder().set_compression(zstd).build();
    let mut writer =
        ArrowWriter::try_new(File::create(to).expect("a file"), schema, Some(properties)).expect("a writer");
    for batch in reader.build().expect("Parquet").map(|batch| batch.expect("rows")) {
        if let Some(batch) = change(batch) {
            writer.write(&batch).expect("written");
        }
    }
    writer.close().expect("written");
}

/// The first line of order 1 costs a cent more.
fn with_another_price(batch: &RecordBatch) -> RecordBatch {
    let at = batch.schema().index_of("l_extendedprice").expect("a column");
    let is_first = batch
        .column_by_name("l_orderkey")
        .is_some_and(|keys| keys.as_primitive::<arrow::datatypes::Int64Type>().value(0) == 1);
    let prices = batch.column(at).as_primitive::<Decimal128Type>();
    let values = (0..batch.num_rows()).map(|row| prices.value(row) + i128::from(is_first && row == 0));
    let changed = Decimal128Array::from_iter_values(values).with_data_type(prices.data_type().clone());
    let mut columns = batch.columns().to_vec();
    columns[at] = Arc::new(changed) as ArrayRef;
    RecordBatch::try_new(batch.schema(), columns).expect("columns")
}
