//! The TPC-H tables as Parquet files, to try pipelines on: the same rows for the same scale, everywhere.
//!
//! A file has its final name only once it is complete, and its footer says at which scale it was made. So a run that
//! was interrupted goes on with the tables that are missing, and a folder never mixes scales.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;

use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RecordBatchIterator, RegionArrow,
    SupplierArrow,
};

use crate::error::{Error, ErrorKind, Result};

/// The tables, the smallest first.
pub const TABLES: [&str; 8] = ["region", "nation", "supplier", "part", "customer", "partsupp", "orders", "lineitem"];

/// Writes the eight TPC-H tables to `dir/<table>.parquet`, two at a time, and creates `dir` if need be.
///
/// `scale` is TPC-H's scale factor: 1 makes 6 million line items, about 1 GB of text. A table that is there at this
/// scale is kept as it is. Integers come out as 32 or 64 bit, money and quantities as `DECIMAL(15, 2)`, days as `DATE`,
/// the rest as strings; no column is NULL. Rows come in the order of each table's first column. Takes about 350 MB of
/// memory, most of it for the text that comments are cut from, whatever the scale.
///
/// `progress` is called on the calling thread with a table, its rows so far, and all its rows, which for `lineitem` are
/// an estimate until it is complete. A table's last call, once its file is in place, has both alike; a table that is
/// kept has only this one.
///
/// # Errors
/// - [`ErrorKind::Usage`], before anything is written: `scale` is not within 0.0001 to 1000, or `dir` has a table of
///   another scale or one that this function has not written.
/// - [`ErrorKind::Storage`]: `dir` can't be written, or another process is writing to it. Tables that were complete
///   by then stay.
pub fn generate(dir: &Path, scale: f64, progress: &mut dyn FnMut(&str, u64, u64)) -> Result<()> {
    // Written so that NaN is refused too. Below the minimum there is not one supplier.
    if !(MIN_SCALE..=MAX_SCALE).contains(&scale) {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("the TPC-H scale factor is {scale}; use one from {MIN_SCALE} to {MAX_SCALE}, such as 1 for 1 GB"),
        ));
    }
    fs::create_dir_all(dir).map_err(|cause| Error::storage("create", dir, cause))?;

    // A complete folder is only read, so it may be read-only.
    let mut complete = complete_rows(dir, scale)?;
    let _lock = if complete.iter().all(Option::is_some) {
        None
    } else {
        let lock = lock(dir)?;
        complete = complete_rows(dir, scale)?;
        Some(lock)
    };

    let mut missing = Vec::new();
    for (generator, rows) in GENERATORS.iter().zip(complete) {
        match rows {
            Some(rows) => progress(generator.table, rows, rows),
            None => missing.push(generator),
        }
    }
    write_tables(&missing, dir, scale, progress)
}

const MIN_SCALE: f64 = 0.0001;
const MAX_SCALE: f64 = 1000.0;
const SCALE_KEY: &str = "chunkwise.tpch.scale";
const BATCH_ROWS: usize = 8 * 1024;
const ROW_GROUP_ROWS: usize = 15 * BATCH_ROWS;
const WRITERS: usize = 2;

/// One table: how many rows it has at a scale, and how to make them.
struct Generator {
    table: &'static str,
    rows: fn(f64) -> i64,
    batches: fn(f64) -> Box<dyn RecordBatchIterator>,
}

/// In the order of [`TABLES`].
const GENERATORS: [Generator; 8] = [
    Generator {
        table: TABLES[0],
        rows: |_| 5,
        batches: |scale| Box::new(RegionArrow::new(RegionGenerator::new(scale, 1, 1)).with_batch_size(BATCH_ROWS)),
    },
    Generator {
        table: TABLES[1],
        rows: |_| 25,
        batches: |scale| Box::new(NationArrow::new(NationGenerator::new(scale, 1, 1)).with_batch_size(BATCH_ROWS)),
    },
    Generator {
        table: TABLES[2],
        rows: |scale| SupplierGenerator::calculate_row_count(scale, 1, 1),
        batches: |scale| Box::new(SupplierArrow::new(SupplierGenerator::new(scale, 1, 1)).with_batch_size(BATCH_ROWS)),
    },
    Generator {
        table: TABLES[3],
        rows: |scale| PartGenerator::calculate_row_count(scale, 1, 1),
        batches: |scale| Box::new(PartArrow::new(PartGenerator::new(scale, 1, 1)).with_batch_size(BATCH_ROWS)),
    },
    Generator {
        table: TABLES[4],
        rows: |scale| CustomerGenerator::calculate_row_count(scale, 1, 1),
        batches: |scale| Box::new(CustomerArrow::new(CustomerGenerator::new(scale, 1, 1)).with_batch_size(BATCH_ROWS)),
    },
    Generator {
        table: TABLES[5],
        // The generator counts parts, each of which has four suppliers.
        rows: |scale| 4 * PartSuppGenerator::calculate_row_count(scale, 1, 1),
        batches: |scale| Box::new(PartSuppArrow::new(PartSuppGenerator::new(scale, 1, 1)).with_batch_size(BATCH_ROWS)),
    },
    Generator {
        table: TABLES[6],
        rows: |scale| OrderGenerator::calculate_row_count(scale, 1, 1),
        batches: |scale| Box::new(OrderArrow::new(OrderGenerator::new(scale, 1, 1)).with_batch_size(BATCH_ROWS)),
    },
    Generator {
        table: TABLES[7],
        // An order has one to seven line items, four on average.
        rows: |scale| 4 * OrderGenerator::calculate_row_count(scale, 1, 1),
        batches: |scale| Box::new(LineItemArrow::new(LineItemGenerator::new(scale, 1, 1)).with_batch_size(BATCH_ROWS)),
    },
];

/// A table, its rows so far, all its rows.
type Written = (&'static str, u64, u64);

/// Writes `missing`, the last first: it is the largest, so it must not start last.
fn write_tables(
    missing: &[&Generator],
    dir: &Path,
    scale: f64,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<()> {
    let taken = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel::<Result<Written>>();
    thread::scope(|scope| {
        for _ in 0..WRITERS.min(missing.len()) {
            let (taken, sender) = (&taken, sender.clone());
            scope.spawn(move || {
                while let Some(generator) = missing.iter().rev().nth(taken.fetch_add(1, Ordering::Relaxed)) {
                    // Nobody listens once the other writer has failed: its error is the one returned.
                    let Some(written) = write_table(generator, dir, scale, &sender).transpose() else { return };
                    let failed = written.is_err();
                    if sender.send(written.map(|rows| (generator.table, rows, rows))).is_err() || failed {
                        return;
                    }
                }
            });
        }
        drop(sender);
        // Leaving drops the receiver, which stops the writer that is still at work.
        for written in receiver {
            let (table, rows, total) = written?;
            progress(table, rows, total);
        }
        Ok(())
    })
}

/// Writes one table. Returns its rows, or nothing if nobody listens any more; then, and after an error, no file stays.
fn write_table(
    generator: &Generator,
    dir: &Path,
    scale: f64,
    listener: &Sender<Result<Written>>,
) -> Result<Option<u64>> {
    let temporary = dir.join(format!(".{}.parquet.tmp", generator.table));
    let path = table_path(dir, generator.table);
    let written = write_rows(generator, &temporary, scale, listener).and_then(|rows| {
        if rows.is_some() {
            fs::rename(&temporary, &path).map_err(|cause| Error::storage("create", &path, cause))?;
        }
        Ok(rows)
    });
    if !matches!(written, Ok(Some(_))) {
        // One that can't be removed is overwritten by the next run.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Writes and syncs a whole table to `path`. Returns its rows, or nothing if nobody listens any more.
fn write_rows(
    generator: &Generator,
    path: &Path,
    scale: f64,
    listener: &Sender<Result<Written>>,
) -> Result<Option<u64>> {
    let failed = |cause| Error::storage("write", path, cause);
    let batches = (generator.batches)(scale);
    let file = File::create(path).map_err(failed)?;
    // Without the Arrow schema in the footer, every reader sees plain Parquet types, not the generator's string views.
    let options = ArrowWriterOptions::new().with_properties(properties(scale)).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(file, batches.schema().clone(), options)
        .map_err(|cause| failed(io_cause(cause)))?;

    let estimate = u64::try_from((generator.rows)(scale)).unwrap_or(0);
    let mut rows = 0;
    for batch in batches {
        writer.write(&batch).map_err(|cause| failed(io_cause(cause)))?;
        rows += batch.num_rows() as u64;
        if listener.send(Ok((generator.table, rows, estimate.max(rows)))).is_err() {
            return Ok(None);
        }
    }
    writer.finish().map_err(|cause| failed(io_cause(cause)))?;
    writer.inner().sync_all().map_err(failed)?;
    Ok(Some(rows))
}

fn properties(scale: f64) -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_key_value_metadata(Some(vec![KeyValue::new(SCALE_KEY.to_owned(), scale_text(scale))]))
        .build()
}

/// The rows of each table that is there already, in the order of [`TABLES`].
fn complete_rows(dir: &Path, scale: f64) -> Result<Vec<Option<u64>>> {
    TABLES.iter().map(|table| complete_table_rows(&table_path(dir, table), scale)).collect()
}

fn complete_table_rows(path: &Path, scale: f64) -> Result<Option<u64>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::storage("read", path, cause)),
    };
    let foreign = || {
        Error::new(
            ErrorKind::Usage,
            format!("{} is there, but the TPC-H generator did not write it; pick another --dir", path.display()),
        )
    };
    let footer = ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|cause| foreign().with_source(cause))?;
    let footer = footer.file_metadata();
    let stored = footer.key_value_metadata().into_iter().flatten().find(|entry| entry.key == SCALE_KEY);
    let stored = stored.and_then(|entry| entry.value.as_deref()).ok_or_else(foreign)?;
    if stored != scale_text(scale) {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("{} has scale factor {stored}, not {scale}; pick another --dir for this one", path.display()),
        ));
    }
    Ok(Some(u64::try_from(footer.num_rows()).unwrap_or(0)))
}

/// Keeps other processes from writing to `dir` until the file is dropped. The file stays: removing it would let two
/// processes lock two files of that name.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(".tpch.lock");
    let failed = |cause| Error::storage("lock", &path, cause);
    let file = File::options().create(true).write(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Storage,
            format!("another process is writing TPC-H tables to {}; wait for it, or pick another --dir", dir.display()),
        )),
        Err(TryLockError::Error(cause)) => Err(failed(cause)),
    }
}

fn table_path(dir: &Path, table: &str) -> PathBuf {
    dir.join(format!("{table}.parquet"))
}

/// The shortest text that reads back as `scale`, so equal texts are equal scales.
fn scale_text(scale: f64) -> String {
    scale.to_string()
}

/// The I/O error inside a Parquet error, which says more about what to do.
fn io_cause(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(cause) => *cause,
            Err(cause) => io::Error::other(cause),
        },
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs::{self, File};
    use std::path::Path;
    use std::time::SystemTime;

    use arrow::datatypes::DataType;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::{GENERATORS, ROW_GROUP_ROWS, TABLES, generate, lock, table_path};
    use crate::error::{ErrorKind, Result};

    fn quietly(dir: &Path, scale: f64) -> Result<()> {
        generate(dir, scale, &mut |_, _, _| {})
    }

    fn open(dir: &Path, table: &str) -> ParquetRecordBatchReaderBuilder<File> {
        ParquetRecordBatchReaderBuilder::try_new(File::open(table_path(dir, table)).unwrap()).unwrap()
    }

    fn names(dir: &Path) -> BTreeSet<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn modified(dir: &Path) -> BTreeMap<&'static str, SystemTime> {
        TABLES.iter().map(|t| (*t, fs::metadata(table_path(dir, t)).unwrap().modified().unwrap())).collect()
    }

    #[test]
    fn every_table_has_its_rows_and_plain_types() {
        let dir = tempfile::tempdir().unwrap();
        let mut calls: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        generate(dir.path(), 0.01, &mut |table, rows, total| {
            calls.entry(table.to_owned()).or_default().push((rows, total));
        })
        .unwrap();

        let expected = [
            ("region", 5),
            ("nation", 25),
            ("supplier", 100),
            ("part", 2_000),
            ("customer", 1_500),
            ("partsupp", 8_000),
            ("orders", 15_000),
            ("lineitem", 60_175),
        ];
        assert_eq!(expected.map(|(table, _)| table), TABLES);
        for (table, rows) in expected {
            let mut stored = 0;
            for batch in open(dir.path(), table).build().unwrap() {
                stored += batch.unwrap().num_rows() as u64;
            }
            assert_eq!(stored, rows, "{table}");

            let calls = &calls[table];
            assert_eq!(calls.last(), Some(&(rows, rows)), "{table}");
            assert!(calls.is_sorted_by_key(|(rows, _)| *rows), "{table}: {calls:?}");
            assert!(calls.iter().all(|(rows, total)| rows <= total), "{table}: {calls:?}");

            let reader = open(dir.path(), table);
            for field in reader.schema().fields() {
                let plain = match field.data_type() {
                    DataType::Int64 => field.name().ends_with("key"),
                    DataType::Utf8 => true,
                    DataType::Date32 => field.name().ends_with("date"),
                    DataType::Int32 => {
                        ["p_size", "ps_availqty", "o_shippriority", "l_linenumber"].contains(&field.name().as_str())
                    }
                    other => *other == DataType::Decimal128(15, 2),
                };
                assert!(plain && !field.is_nullable(), "{field}");
            }
        }
        let tables = TABLES.iter().map(|table| format!("{table}.parquet"));
        assert_eq!(names(dir.path()), tables.chain([".tpch.lock".to_owned()]).collect());
    }

    #[test]
    fn row_groups_are_full_but_the_last() {
        let dir = tempfile::tempdir().unwrap();
        quietly(dir.path(), 0.03).unwrap();
        let groups: Vec<_> =
            open(dir.path(), "lineitem").metadata().row_groups().iter().map(|group| group.num_rows()).collect();
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0], ROW_GROUP_ROWS as i64);
    }

    #[test]
    fn a_second_run_writes_only_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        quietly(dir.path(), 0.001).unwrap();
        let first = modified(dir.path());
        let part = fs::read(table_path(dir.path(), "part")).unwrap();

        let mut calls = Vec::new();
        generate(dir.path(), 0.001, &mut |table, rows, total| calls.push((table.to_owned(), rows == total))).unwrap();
        assert_eq!(calls, TABLES.map(|table| (table.to_owned(), true)));
        assert_eq!(modified(dir.path()), first);

        fs::remove_file(table_path(dir.path(), "part")).unwrap();
        fs::write(dir.path().join(".part.parquet.tmp"), "what a crash left").unwrap();
        quietly(dir.path(), 0.001).unwrap();
        assert_eq!(fs::read(table_path(dir.path(), "part")).unwrap(), part);
        let mut second = modified(dir.path());
        second.insert("part", first["part"]);
        assert_eq!(second, first);
        assert_eq!(names(dir.path()).len(), TABLES.len() + 1);
    }

    #[test]
    fn a_folder_of_another_scale_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        quietly(dir.path(), 0.001).unwrap();
        fs::remove_file(table_path(dir.path(), "region")).unwrap();
        let before = names(dir.path());

        let error = quietly(dir.path(), 0.002).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.message().contains("scale factor 0.001, not 0.002; pick another --dir"), "{error}");
        assert_eq!(names(dir.path()), before);
    }

    #[test]
    fn a_file_of_someone_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(table_path(dir.path(), "orders"), "mine").unwrap();
        let error = quietly(dir.path(), 0.001).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.message().contains("pick another --dir"), "{error}");
        assert_eq!(names(dir.path()), BTreeSet::from(["orders.parquet".to_owned()]));
    }

    #[test]
    fn a_folder_that_is_being_written_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _lock = lock(dir.path()).unwrap();
        assert_eq!(quietly(dir.path(), 0.001).unwrap_err().kind(), ErrorKind::Storage);
    }

    #[test]
    fn a_failed_table_stops_the_run_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join(".supplier.parquet.tmp");
        fs::create_dir(&blocked).unwrap();
        assert_eq!(quietly(dir.path(), 0.001).unwrap_err().kind(), ErrorKind::Storage);

        fs::remove_dir(&blocked).unwrap();
        assert!(names(dir.path()).iter().all(|name| !name.ends_with(".tmp")), "{:?}", names(dir.path()));
        quietly(dir.path(), 0.001).unwrap();
        assert_eq!(names(dir.path()).len(), TABLES.len() + 1);
    }

    #[test]
    fn scales_out_of_range_are_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        for scale in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, -0.0, 0.0, 0.000_09, 1000.1] {
            let error = quietly(&dir.path().join("data"), scale).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{scale}");
        }
        assert_eq!(names(dir.path()), BTreeSet::new());
    }

    #[test]
    fn the_smallest_scale_works() {
        let dir = tempfile::tempdir().unwrap();
        quietly(dir.path(), 0.0001).unwrap();
        assert!(GENERATORS.iter().all(|generator| (generator.rows)(0.0001) > 0));
    }
}
