//! Cutting a million rows into N chunks on one core: chunk numbers, sorting, writing the split file. And reading it.
//!
//! `cargo bench --bench split`

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray,
};
use chunkwise::testing::{SplitFile, SplitSize, SplitWriter, chunk_numbers};
use criterion::{Criterion, Throughput};

const ROWS: usize = 1 << 20;
const BATCH_ROWS: usize = 8192;
const BUFFER_BYTES: usize = 256 << 20;

fn main() {
    let batches: Vec<_> = (0..ROWS / BATCH_ROWS).map(batch).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("split");
    let mut criterion =
        Criterion::default().measurement_time(Duration::from_secs(5)).sample_size(10).configure_from_args();
    let mut group = criterion.benchmark_group("split");
    group.throughput(Throughput::Elements(ROWS as u64));
    let keys: [(&str, &[usize]); 4] =
        [("Int64", &[0]), ("Utf8View", &[1]), ("Decimal128", &[2]), ("two keys", &[0, 1])];
    for (name, columns) in keys {
        for chunks in [16, 256, 4096] {
            let run = || write(&batches, columns, chunks, BUFFER_BYTES, &path);
            println!("{name}, {chunks} chunks: {} bytes", run().bytes);
            group.bench_function(format!("write/{name}/{chunks}"), |bench| bench.iter(run));
        }
    }
    for chunks in [16, 4096] {
        write(&batches, &[0], chunks, BUFFER_BYTES, &path);
        group.bench_function(format!("read/{chunks}"), |bench| bench.iter(|| read(&path)));
        let run = || write(&batches, &[0], chunks, BUFFER_BYTES / 8, &path);
        println!("an eighth of the buffer, {chunks} chunks: {} bytes", run().bytes);
        group.bench_function(format!("write/an eighth of the buffer/{chunks}"), |bench| bench.iter(run));
    }
    group.finish();
    criterion.final_summary();
}

fn write(batches: &[RecordBatch], keys: &[usize], chunks: u32, buffer_bytes: usize, path: &Path) -> SplitSize {
    let file = File::create(path).expect("a file");
    let mut writer = SplitWriter::try_new(file, batches[0].schema(), chunks, buffer_bytes).expect("valid");
    for batch in batches {
        let keys: Vec<_> = keys.iter().map(|key| Arc::clone(batch.column(*key))).collect();
        let numbers = chunk_numbers(&keys, batch.num_rows(), chunks).expect("keys");
        writer.write(batch.clone(), &numbers).expect("written");
    }
    writer.finish().expect("written")
}

fn read(path: &Path) -> usize {
    let split = Arc::new(SplitFile::open(path).expect("a split file"));
    let blocks = (0..split.chunks()).flat_map(|chunk| split.read(chunk, None));
    blocks.map(|block| block.expect("whole").num_rows()).sum()
}

/// Eight columns, about 100 bytes a row; keys differ in most rows.
fn batch(number: usize) -> RecordBatch {
    let random = |salt: u64| {
        let first = (number * BATCH_ROWS) as u64;
        (first..first + BATCH_ROWS as u64).map(move |row| mixed(row ^ (salt << 40)))
    };
    let columns: [(&str, ArrayRef); 8] = [
        ("id", Arc::new(random(1).map(|n| (n % 1_500_000) as i64).collect::<Int64Array>())),
        (
            "name",
            Arc::new(random(2).map(|n| Some(format!("Customer#{:012}", n % 1_500_000))).collect::<StringViewArray>()),
        ),
        ("price", Arc::new(random(3).map(|n| Some((n % 10_000_000) as i128)).collect::<Decimal128Array>())),
        ("discount", Arc::new(random(4).map(|n| (n % 100) as f64 / 100.0).collect::<Float64Array>())),
        ("quantity", Arc::new(random(5).map(|n| (n % 50) as i32).collect::<Int32Array>())),
        ("day", Arc::new(random(6).map(|n| Some(8000 + (n % 2500) as i32)).collect::<Date32Array>())),
        (
            "mode",
            Arc::new(
                random(7).map(|n| Some(["AIR", "SHIP", "TRUCK", "MAIL"][n as usize % 4])).collect::<StringViewArray>(),
            ),
        ),
        ("line", Arc::new(random(8).map(|n| (n % 7) as i64).collect::<Int64Array>())),
    ];
    RecordBatch::try_from_iter(columns).expect("equal lengths")
}

/// SplitMix64's mixing function.
fn mixed(number: u64) -> u64 {
    let n = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
