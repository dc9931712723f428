//! Damage to files of the cache: never a wrong row, and the next run mends it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use chunkwise::{Engine, ErrorKind, Pipeline, RunOptions, RunReport};

use crate::support::{copy_folder, engine, files_in, make_parquet, oracle, query_rows, random, read_rows, run};

const PARTS: &str = "SELECT k, sum(v) AS v, count(*) AS n, max(s) AS s FROM items WHERE v % 5 <> 0 GROUP BY k";
const TOTALS: &str = "SELECT n, count(*) AS groups, sum(v) AS v FROM parts GROUP BY n";

/// The pipeline; another `version` runs `parts` again, and another `reader` reads its chunks again.
fn sql(folder: &Path, version: u64, reader: u64) -> String {
    format!(
        "CREATE EXTERNAL TABLE items STORED AS PARQUET LOCATION '{}/items.parquet';
         CREATE TABLE parts CLUSTERED BY (k) INTO 3 BUCKETS WITH (read_by = 'split', version = '{version}') AS {PARTS};
         CREATE TABLE totals WITH (version = '{reader}') AS {TOTALS};",
        folder.display()
    )
}

/// Runs the pipeline; what an engine can't begin with is an `Err`.
async fn try_run(engine: &Engine, sql: &str, folder: &Path) -> chunkwise::Result<RunReport> {
    let pipeline: Pipeline = chunkwise::sql::parse(sql, "test.sql", folder)?;
    engine.run(&pipeline, &RunOptions::default()).await
}

/// Changes one byte of one file of the cache; says which.
fn flip(cache: &Path, seed: u64) -> String {
    let mut state = seed;
    let files = files_in(cache);
    loop {
        let file = &files[(random(&mut state) % files.len() as u64) as usize];
        let mut bytes = fs::read(file).unwrap();
        if bytes.is_empty() {
            continue;
        }
        let at = (random(&mut state) % bytes.len() as u64) as usize;
        let by = (random(&mut state) % 255 + 1) as u8;
        bytes[at] ^= by;
        fs::write(file, bytes).unwrap();
        return format!("seed {seed}: byte {at} of {} xor {by:#x}", file.strip_prefix(cache).unwrap().display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_never_gives_a_wrong_row() {
    let flips: u64 = std::env::var("CHUNKWISE_TEST_FLIPS").map_or(60, |text| text.parse().unwrap());
    let first: u64 = std::env::var("CHUNKWISE_TEST_SEED").map_or(0, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let rows = "SELECT value % 97 AS k, value AS v, 'text ' || value AS s FROM generate_series(1, 3000) AS t(value)";
    make_parquet(folder.path(), "items", rows).await;
    let pristine = folder.path().join("pristine");
    run(&engine(&pristine), &sql(folder.path(), 0, 0), folder.path()).await;
    let source =
        format!("CREATE EXTERNAL TABLE items STORED AS PARQUET LOCATION '{}/items.parquet'", folder.path().display());
    let whole = oracle(&[source, format!("CREATE VIEW parts AS {PARTS}")]).await;
    let expected = [("parts", query_rows(&whole, PARTS).await), ("totals", query_rows(&whole, TOTALS).await)];

    let (mut unreadable, mut set_aside, mut failed, mut refused) = (0, 0, 0, 0);
    for seed in first..first + flips {
        let cache = folder.path().join("cache");
        copy_folder(&pristine, &cache);
        let what = flip(&cache, seed);
        let reader = engine(&cache);
        for (table, rows) in &expected {
            match read_rows(&reader, table).await {
                Ok(found) => assert_eq!(found, *rows, "{what}: {table}"),
                Err(_) => unreadable += 1,
            }
        }
        let engine = Arc::new(engine(&cache));
        let sql = match seed % 3 {
            0 => {
                set_aside += engine.verify_cache().map_or(1, |found| found.damaged.len());
                sql(folder.path(), 0, 0)
            }
            1 => sql(folder.path(), 1, 0),
            _ => sql(folder.path(), 0, 1),
        };
        let first = try_run(&engine, &sql, folder.path()).await;
        let report = match first {
            Ok(report) if report.succeeded() => report,
            Ok(_) => {
                failed += 1;
                run(&engine, &sql, folder.path()).await
            }
            // Such as an index whose version number is that of a later format.
            Err(error) => {
                assert!(
                    error.kind() == ErrorKind::Storage && error.to_string().contains("index.sqlite"),
                    "{what}: {error}"
                );
                refused += 1;
                fs::remove_dir_all(&cache).unwrap();
                continue;
            }
        };
        for (table, rows) in &expected {
            // What was not read by the run may still be damaged, and says so.
            match read_rows(&engine, table).await {
                Ok(found) => assert_eq!(found, *rows, "{what}: {table} after {report:#?}"),
                Err(error) => {
                    assert!(seed % 3 > 0, "{what}: {error} after {report:#?}");
                    assert!(!engine.verify_cache().unwrap().damaged.is_empty(), "{what}: {error}");
                    run(&engine, &sql, folder.path()).await;
                    assert_eq!(read_rows(&engine, table).await.as_ref(), Ok(rows), "{what}");
                }
            }
        }
        drop((reader, engine));
        fs::remove_dir_all(&cache).unwrap();
    }
    println!(
        "{flips} flipped bytes: {unreadable} tables not read, {set_aside} files set aside by verify, {failed} runs that \
         failed once, {refused} refused for the index; no wrong row"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_not_in_the_index_is_found_by_its_file() {
    let folder = tempfile::tempdir().unwrap();
    make_parquet(
        folder.path(),
        "items",
        "SELECT value % 7 AS k, value AS v, '' AS s FROM generate_series(1, 90) AS t(value)",
    )
    .await;
    let cache = folder.path().join("cache");
    let sql = sql(folder.path(), 0, 0);
    run(&engine(&cache), &sql, folder.path()).await;
    // As if the process had died between the file's rename and the index row, for every chunk.
    let index = rusqlite::Connection::open(cache.join("index.sqlite")).unwrap();
    assert_eq!(index.execute("DELETE FROM chunk", []).unwrap(), 4);
    drop(index);
    let report = run(&engine(&cache), &sql, folder.path()).await;
    assert!(report.tasks.iter().all(|task| task.executed == 0), "{report:#?}");
    let expected = read_rows(&engine(&cache), "parts").await.unwrap();

    // Nor in the list of a published version, and damaged: what its rows say is not what its footer says.
    let index = rusqlite::Connection::open(cache.join("index.sqlite")).unwrap();
    index.execute("DELETE FROM chunk", []).unwrap();
    drop(index);
    fs::remove_dir_all(cache.join("versions")).unwrap();
    let chunks = files_in(&cache.join("chunks"));
    for chunk in &chunks {
        let mut bytes = fs::read(chunk).unwrap();
        bytes[40] ^= 1;
        fs::write(chunk, bytes).unwrap();
    }
    let report = run(&engine(&cache), &sql, folder.path()).await;
    assert_eq!(report.tasks.iter().map(|task| task.executed).sum::<u32>(), 4, "{report:#?}");
    assert_eq!(files_in(&cache.join("damaged")).len(), 4);
    assert_eq!(read_rows(&engine(&cache), "parts").await.as_ref(), Ok(&expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_index_does_not_take_damage_for_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "SELECT value % 7 AS k, value AS v, 'text ' || value AS s FROM generate_series(1, 900) AS t(value)";
    make_parquet(folder.path(), "items", rows).await;
    for is_lost in [false, true] {
        let cache = folder.path().join(format!("cache {is_lost}"));
        run(&engine(&cache), &sql(folder.path(), 0, 0), folder.path()).await;
        let expected = read_rows(&engine(&cache), "parts").await.unwrap();
        // A byte of a page, of a copy that no published table shares.
        let chunk = files_in(&cache.join("chunks")).into_iter().max_by_key(|file| fs::metadata(file).unwrap().len());
        let chunk = chunk.unwrap();
        let mut bytes = fs::read(&chunk).unwrap();
        bytes[40] ^= 1;
        fs::remove_file(&chunk).unwrap();
        fs::write(&chunk, bytes).unwrap();
        if is_lost {
            fs::remove_file(cache.join("index.sqlite")).unwrap();
        }
        let warnings = engine(&cache).rebuild_cache().unwrap();
        assert!(warnings.iter().any(|warning| warning.contains("is not what was written")), "{warnings:?}");
        let next = engine(&cache);
        let verified = next.verify_cache().unwrap();
        assert!(is_lost || verified.damaged == [chunk.clone()], "{verified:?}");
        // Its readers run again.
        let report = try_run(&next, &sql(folder.path(), 0, 1), folder.path()).await.unwrap();
        if !report.succeeded() {
            run(&next, &sql(folder.path(), 0, 1), folder.path()).await;
        }
        assert_eq!(read_rows(&next, "parts").await.as_ref(), Ok(&expected), "index lost: {is_lost}");
    }
}

/// The list of a published version that was cut off at the end of a line reads as one of fewer files.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_lost_lines_is_an_error_and_no_smaller_table() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "SELECT value % 7 AS k, value AS v, '' AS s FROM generate_series(1, 90) AS t(value)";
    make_parquet(folder.path(), "items", rows).await;
    let cache = folder.path().join("cache");
    let sql = sql(folder.path(), 0, 0);
    run(&engine(&cache), &sql, folder.path()).await;
    let expected = read_rows(&engine(&cache), "parts").await.unwrap();
    let list =
        files_in(&cache.join("versions/parts")).into_iter().find(|file| file.extension().unwrap() == "b3").unwrap();
    let text = fs::read_to_string(&list).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for damaged in [lines[..2].join("\n"), [lines.as_slice(), &lines[..1]].concat().join("\n"), lines[0].to_string()] {
        fs::write(&list, damaged + "\n").unwrap();
        let error = read_rows(&engine(&cache), "parts").await.unwrap_err();
        assert!(error.to_string().contains("chunks in"), "{error}");
        assert!(!engine(&cache).verify_cache().unwrap().damaged.is_empty());
        run(&engine(&cache), &sql, folder.path()).await;
        assert_eq!(read_rows(&engine(&cache), "parts").await.as_ref(), Ok(&expected));
    }
}
