//! Edits at random: where a text keeps the names, it has the same rows.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use chunkwise::RunOptions;
use sqlparser::tokenizer::Token;

use super::corpus::{SOURCES, TASKS};
use super::tokens::{join, tokens};
use super::{Named, edits_of, named, names, on_threads, sql_of};
use crate::support::{Multiset, engine, make_parquet, random, read_rows};

/// So many random edits of each task are tried when `MUTATIONS` says nothing else; `SEED` gives others.
const RANDOM_EDITS: usize = 50;

/// Rows of [`SOURCES`] in which ties, NULLs and most values of the tasks occur.
const T: &str = "
    SELECT nullif(value % 17, 5) AS k, value % 4 AS g, nullif(value % 11, 3) AS v, value * 0.25 AS w,
           CAST(nullif(value % 7, 2) AS DOUBLE) AS f, chr(97 + value % 5) AS s, nullif(concat('x-', value % 6), 'x-1') AS p,
           DATE '1999-12-20' + CAST(value % 30 AS INT) AS d, DATE '2024-02-20' + CAST(value % 15 AS INT) AS e,
           arrow_cast(to_timestamp_micros(value * 7200000000), 'Timestamp(Microsecond, None)') AS ts,
           arrow_cast(to_timestamp_micros(value * 86400000000), 'Timestamp(Microsecond, None)') AS tu,
           value % 3 = 0 AS b, nullif(value % 5 = 1, value % 2 = 0) AS c, CAST(value % 9 AS DECIMAL(12, 2)) AS m,
           CAST(value % 8 + 0.5 AS DECIMAL(12, 2)) AS n, [value % 3, value % 5, 2] AS l, [value % 4] AS j,
           named_struct('x', value % 6, 'z', value % 2) AS r, named_struct('x', value % 3, 'z', value % 7) AS q
    FROM generate_series(1, 120)";
const U: &str = "
    SELECT nullif(value % 19, 4) AS k, value % 5 AS g, nullif(value % 13, 6) AS v, chr(96 + value % 7) AS s
    FROM generate_series(1, 70)";

/// The rows of the task `task`, or why there are none.
async fn rows(sql: &str, data: &Path) -> Result<Multiset, String> {
    let cache = tempfile::tempdir().unwrap();
    let engine = engine(cache.path());
    let pipeline = chunkwise::sql::parse(&format!("{SOURCES}{sql}"), "t.sql", data).map_err(|e| e.to_string())?;
    let report = engine.run(&pipeline, &RunOptions::default()).await.map_err(|e| e.to_string())?;
    match report.succeeded() {
        true => read_rows(&engine, "task").await,
        false => Err(report.task("task").map(|task| task.reason.clone()).unwrap_or_default()),
    }
}

/// A text that differs in a few tokens: some left out, doubled or swapped, or one of any task in place of one or before
/// it.
fn edited_at_random(sql: &str, state: &mut u64) -> String {
    let mut tokens = tokens(sql);
    let others = super::tokens::tokens(&sql_of(&TASKS[random(state) as usize % TASKS.len()]));
    let words = |tokens: &[Token]| -> Vec<usize> {
        (0..tokens.len()).filter(|at| !matches!(tokens[*at], Token::Whitespace(_))).collect()
    };
    let (own, other) = (words(&tokens), words(&others));
    let mut place = |places: &[usize]| places[random(state) as usize % places.len()];
    let (at, with, from) = (place(&own), place(&own), place(&other));
    match place(&[0, 1, 2, 3, 4]) {
        0 => drop(tokens.drain(at..(at + place(&[1, 2, 4, 6])).min(tokens.len()))),
        1 => tokens.swap(at, with),
        2 => tokens[at] = others[from].clone(),
        3 => tokens.insert(at, tokens[with].clone()),
        _ => {
            let part = &others[from..(from + place(&[1, 3, 5, 7])).min(others.len())];
            let space = Token::Whitespace(sqlparser::tokenizer::Whitespace::Space);
            let part = part.iter().cloned().chain([space]);
            drop(tokens.splice(at..at, part));
        }
    }
    join(&tokens)
}

/// `SEED=7 MUTATIONS=200 cargo test --test it mutations::sweep -- --ignored --nocapture`; by default 50 edits of each
/// task, and all those that the other tests make.
#[test]
#[ignore = "takes many minutes"]
fn texts_of_the_same_names_have_the_same_rows() {
    let number_of = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let edits = number_of("MUTATIONS").unwrap_or(RANDOM_EDITS);
    let seed = number_of("SEED").unwrap_or(1) as u64;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(64 << 20)
        .enable_all()
        .build()
        .unwrap();
    let data = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        make_parquet(data.path(), "t", T).await;
        make_parquet(data.path(), "u", U).await;
    });
    let (tried, kept) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let wrong = Mutex::new(Vec::new());
    on_threads(TASKS.len(), |number| {
        let sql = sql_of(&TASKS[number]);
        let base = names(&sql);
        let expected = runtime.block_on(rows(&sql, data.path()));
        let mut state = seed.wrapping_mul(1_000_003) + number as u64;
        let at_random: Vec<String> = (0..edits).map(|_| edited_at_random(&sql, &mut state)).collect();
        for edited in edits_of(&sql).into_iter().map(|edit| edit.sql).chain(at_random) {
            tried.fetch_add(1, Ordering::Relaxed);
            match catch_unwind(AssertUnwindSafe(|| named(&edited))) {
                Ok(Named::Names(names)) if names == base => {
                    kept.fetch_add(1, Ordering::Relaxed);
                    let found = runtime.block_on(rows(&edited, data.path()));
                    // Which chunk fails first says nothing.
                    if found.as_ref().ok() != expected.as_ref().ok() {
                        let text = format!("{found:?} for {expected:?}:\n  {sql}\n  {edited}");
                        wrong.lock().unwrap().push(text);
                    }
                }
                Ok(_) => {}
                Err(_) => wrong.lock().unwrap().push(format!("panics:\n  {edited}")),
            }
        }
    });
    let wrong = wrong.into_inner().unwrap();
    println!("tried {}, kept their names {}", tried.into_inner(), kept.into_inner());
    assert!(wrong.is_empty(), "{} edits:\n{}", wrong.len(), wrong.join("\n"));
}
