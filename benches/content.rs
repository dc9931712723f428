//! Content fingerprints: bytes of values per second, on one core.
//!
//! `cargo bench --bench content`

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray,
};
use chunkwise::testing::RowHasher;
use criterion::{Criterion, Throughput};

const ROWS: usize = 1 << 20;
const BATCH_ROWS: usize = 8192;

fn main() {
    let mut criterion =
        Criterion::default().measurement_time(Duration::from_secs(3)).sample_size(20).configure_from_args();
    let mut group = criterion.benchmark_group("content");
    type Make = fn(usize) -> ArrayRef;
    let int64: Make = |start| Arc::new((start..start + BATCH_ROWS).map(|n| (n * 7919) as i64).collect::<Int64Array>());
    let int32: Make = |start| Arc::new((start..start + BATCH_ROWS).map(|n| (n % 5000) as i32).collect::<Int32Array>());
    let date: Make =
        |start| Arc::new((start..start + BATCH_ROWS).map(|n| Some((n % 2500) as i32)).collect::<Date32Array>());
    let double: Make = |start| Arc::new((start..start + BATCH_ROWS).map(|n| n as f64 / 7.0).collect::<Float64Array>());
    let decimal: Make =
        |start| Arc::new((start..start + BATCH_ROWS).map(|n| n as i128 * 100).collect::<Decimal128Array>());
    let text: Make = |start| {
        Arc::new(
            (start..start + BATCH_ROWS).map(|n| Some(format!("some words of text, {n}"))).collect::<StringViewArray>(),
        )
    };
    let sets: [(&str, &[Make]); 6] = [
        ("Int64", &[int64]),
        ("4 × Int64", &[int64, int64, int64, int64]),
        ("2 × Int64, 2 × Float64", &[int64, int64, double, double]),
        ("Int64, Int32, Date32, 4 × Decimal128", &[int64, int32, date, decimal, decimal, decimal, decimal]),
        ("16 × Float64", &[double; 16]),
        ("Int64, Utf8View", &[int64, text]),
    ];
    for (name, columns) in sets {
        let batches: Vec<_> = (0..ROWS / BATCH_ROWS).map(|at| batch(columns, at * BATCH_ROWS)).collect();
        let bytes: usize =
            batches.iter().flat_map(|batch| batch.columns()).map(|column| value_bytes(column.as_ref())).sum();
        let mut hasher = RowHasher::try_new(&batches[0].schema()).expect("types");
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |bench| {
            bench.iter(|| {
                batches.iter().map(|batch| hasher.content(batch).expect("hashed")).reduce(|all, content| all + content)
            })
        });
    }
    group.finish();
    criterion.final_summary();
}

fn batch(columns: &[fn(usize) -> ArrayRef], start: usize) -> RecordBatch {
    let columns = columns.iter().enumerate().map(|(at, make)| (format!("c{at}"), make(start)));
    RecordBatch::try_from_iter(columns).expect("columns")
}

/// Bytes of the values alone.
fn value_bytes(column: &dyn Array) -> usize {
    match column.data_type().primitive_width() {
        Some(width) => width * column.len(),
        None => column
            .as_any()
            .downcast_ref::<StringViewArray>()
            .map_or(0, |texts| texts.iter().flatten().map(str::len).sum()),
    }
}
