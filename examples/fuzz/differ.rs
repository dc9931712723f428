//! Batches of cases, chunked against whole.
//!
//! Everything follows from a seed. A batch is a few small tables, written once, and many queries over them, each a task
//! with random keys and number of chunks, run as one pipeline. Plain DataFusion runs the queries whole; what it can't
//! run is skipped.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use chunkwise::testing::Rule;
use chunkwise::{RunOptions, RunReport, Status};
use futures::FutureExt;

use super::duckdb::{DuckDb, beside};
use super::overflow::{Expected, expected, overflowing};
use super::query::{Case, case};
use super::random::Random;
use super::table::tables;
use super::world::{Layout, Outcome, World, invalid, is_invalid, shortened};

/// Queries that share their tables and run in one pipeline.
pub const BATCH: usize = 40;

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub cases: usize,
    /// Seed of the first batch; the next one's is one more.
    pub seed: u64,
    pub without: Option<Rule>,
    /// Batches at a time; the results don't depend on it.
    pub threads: usize,
    /// Where tables and caches are written.
    pub folder: PathBuf,
    /// Whether no further batch is begun after one with wrong rows.
    pub stops: bool,
    /// Whether DuckDB reads the files, too, and its rows are compared.
    pub duckdb: bool,
}

/// What became of the cases.
#[derive(Debug, Default)]
pub struct Tally {
    pub cases: usize,
    pub accepted: usize,
    /// Accepted with at least one row.
    pub with_rows: usize,
    /// Refusals by their rule.
    pub refused: BTreeMap<String, usize>,
    /// Cases that can't be compared, by the reason.
    pub skipped: BTreeMap<String, usize>,
    /// Wrong rows and failures of accepted tasks, in order.
    pub wrong: Vec<Wrong>,
}

/// A case that is not right.
#[derive(Debug)]
pub struct Wrong {
    /// Of its batch.
    pub seed: u64,
    /// Cases before it in the plan.
    pub before: usize,
    pub world: World,
    pub case: Case,
    pub outcome: Outcome,
}

impl Wrong {
    pub fn has_other_rows(&self) -> bool {
        matches!(self.outcome, Outcome::Wrong(_))
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        for mut wrong in other.wrong {
            wrong.before += self.cases;
            self.wrong.push(wrong);
        }
        self.cases += other.cases;
        self.accepted += other.accepted;
        self.with_rows += other.with_rows;
        for (mine, counts) in [(&mut self.refused, other.refused), (&mut self.skipped, other.skipped)] {
            counts.into_iter().for_each(|(why, count)| *mine.entry(why).or_default() += count);
        }
    }

    fn count(&mut self, outcome: Outcome) -> Option<Outcome> {
        self.cases += 1;
        match outcome {
            Outcome::Same(rows) => {
                self.accepted += 1;
                self.with_rows += usize::from(rows > 0);
            }
            Outcome::Refused(rule) => *self.refused.entry(rule).or_default() += 1,
            Outcome::Skipped(why) => *self.skipped.entry(why).or_default() += 1,
            wrong => return Some(wrong),
        }
        None
    }
}

/// Runs `plan`; calls `progress` with the number of cases done, from many threads.
pub fn fuzz(plan: &Plan, progress: impl Fn(usize) + Sync) -> Tally {
    static RUN: AtomicU64 = AtomicU64::new(0);
    let run = RUN.fetch_add(1, Ordering::Relaxed);
    let folder = plan.folder.join(format!("chunkwise-fuzz-{}-{run}", std::process::id()));
    let batches = plan.cases.div_ceil(BATCH);
    let (next, stop, done) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX), AtomicUsize::new(0));
    let tallies: Mutex<BTreeMap<usize, Tally>> = Mutex::default();
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut duckdb = plan.duckdb.then(DuckDb::start);
        loop {
            let batch = next.fetch_add(1, Ordering::Relaxed);
            if batch >= batches.min(stop.load(Ordering::Relaxed)) {
                break;
            }
            let folder = folder.join(batch.to_string());
            std::fs::create_dir_all(&folder).unwrap();
            let cases = BATCH.min(plan.cases - batch * BATCH);
            let seed = plan.seed.wrapping_add(batch as u64);
            let tally = runtime.block_on(run_batch(seed, cases, plan.without, &folder, duckdb.as_mut()));
            std::fs::remove_dir_all(&folder).unwrap();
            // The tally is lost where a run does not come to its end.
            for wrong in tally.wrong.iter().filter(|_| plan.without.is_none()) {
                eprintln!("case {} of the batch with seed {seed} is wrong", wrong.case.name);
            }
            if plan.stops && tally.wrong.iter().any(Wrong::has_other_rows) {
                stop.fetch_min(batch + 1, Ordering::Relaxed);
            }
            tallies.lock().unwrap().insert(batch, tally);
            progress(done.fetch_add(cases, Ordering::Relaxed) + cases);
        }
    };
    std::thread::scope(|scope| {
        for at in 0..plan.threads {
            // Deep plans are walked by recursion.
            let builder = std::thread::Builder::new().name(format!("fuzz {at}")).stack_size(64 << 20);
            builder.spawn_scoped(scope, work).unwrap();
        }
    });
    let _ = std::fs::remove_dir_all(&folder);
    let mut all = Tally::default();
    for (batch, tally) in tallies.into_inner().unwrap() {
        if batch < stop.load(Ordering::Relaxed) {
            all.add(tally);
        }
    }
    all
}

/// The tables of a batch and its cases.
pub fn batch(seed: u64, cases: usize, without: Option<Rule>) -> (World, Vec<Case>) {
    let mut random = Random::new(seed);
    let world = World {
        tables: tables(&mut random),
        rotates: seed % 2 == 1,
        without,
        invokes: seed % 3 == 1 && without.is_none(),
    };
    let readable = world.readable();
    let mut made: Vec<Case> = Vec::new();
    for at in 0..cases {
        made.push(case(&mut random, &readable, format!("q{at}"), made.last()));
    }
    (world, made)
}

async fn run_batch(
    seed: u64,
    cases: usize,
    without: Option<Rule>,
    folder: &Path,
    duckdb: Option<&mut DuckDb>,
) -> Tally {
    let (world, mut cases) = batch(seed, cases, without);
    let whole = world.whole(2, Layout::OneBatch).await;
    // Made of the others, and not by chance: batches stay what they are.
    if seed % 5 == 2 && without.is_none() {
        for case in &mut cases {
            *case = overflowing(&whole, case).await.unwrap_or_else(|| case.clone());
        }
    }
    let mut outcomes: BTreeMap<usize, Outcome> = BTreeMap::new();
    let mut runnable: Vec<(usize, &Case, Expected)> = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        match expected(&whole, &case.sql).await {
            Ok(expected) => runnable.push((at, case, expected)),
            Err(error) => drop(outcomes.insert(at, Outcome::Skipped(shortened(&error)))),
        }
    }
    match run_together(&world, &mut runnable, &mut outcomes, folder, seed.is_multiple_of(4)).await {
        Some(report) => {
            for (at, case, expected) in &runnable {
                let outcome = match report.task(&case.name) {
                    Some(task) => world.outcome(case, expected, task, folder).await,
                    None => Outcome::Failed("the report leaves the task out".into()),
                };
                // A second run may have found what the first did not.
                outcomes.entry(*at).or_insert(outcome);
            }
        }
        // One of them stops all: find out which.
        None => {
            for (at, case, _) in &runnable {
                outcomes.insert(*at, world.try_case(case, &folder.join("alone")).await);
            }
        }
    }
    let mut tally = Tally::default();
    if let Some(duckdb) = duckdb {
        for (case, outcome) in beside(&world, seed, folder, duckdb).await {
            if let Some(outcome) = tally.count(outcome) {
                tally.wrong.push(Wrong { seed, before: 0, world: world.clone(), case, outcome });
            }
        }
    }
    for (at, outcome) in outcomes {
        if let Some(outcome) = tally.count(outcome) {
            tally.wrong.push(Wrong { seed, before: at, world: world.clone(), case: cases[at].clone(), outcome });
        }
    }
    tally
}

/// Runs the tasks as one pipeline; those with invalid SQL go. `None` when the run as a whole fails.
async fn run_together(
    world: &World,
    runnable: &mut Vec<(usize, &Case, Expected)>,
    outcomes: &mut BTreeMap<usize, Outcome>,
    folder: &Path,
    twice: bool,
) -> Option<RunReport> {
    let sources = world.write(folder);
    let engine = world.engine(folder);
    let (pipeline, report) = loop {
        let tasks: String = runnable.iter().map(|(_, case, _)| case.statement()).collect();
        let pipeline = chunkwise::sql::parse(&format!("{sources}{tasks}"), "fuzz.sql", folder).ok()?;
        let pipeline = world.invoked(pipeline, runnable.iter().map(|(_, case, _)| *case));
        let options = RunOptions::default();
        let run = AssertUnwindSafe(engine.run(&pipeline, &options)).catch_unwind();
        match run.await.ok()? {
            Ok(report) => break (pipeline, report),
            Err(error) if is_invalid(error.kind(), &error.to_string()) => {
                let at = runnable.iter().position(|(_, case, _)| error.task() == Some(case.name.as_str()))?;
                let (at, ..) = runnable.remove(at);
                outcomes.insert(at, Outcome::Skipped(invalid(error.message())));
            }
            Err(_) => return None,
        }
    };
    if twice {
        // Chunks that were computed several at once are computed one by one.
        let audit = RunOptions { audit_percent: 100.0, ..RunOptions::default() };
        let again = engine.run(&pipeline, &audit).await.ok()?;
        for task in &again.tasks {
            // What calls a volatile function is new each time.
            let found = runnable.iter().find(|(_, case, _)| case.name == task.name);
            let Some((at, case, _)) = found else { continue };
            if ["random()", "uuid()"].iter().any(|call| case.sql.contains(call)) {
                continue;
            }
            // These round, by the order of rows.
            let rounds = ["var_", "stddev", "corr(", "covar_", "regr_"].iter().any(|call| case.sql.contains(call));
            match task.status {
                Status::Executed => {
                    outcomes.insert(*at, Outcome::Failed("it ran again although nothing changed".into()));
                }
                Status::Failed if !rounds && task.reason.contains("computed again it has other rows") => {
                    outcomes.insert(*at, Outcome::Wrong(format!("-- {}\n", task.reason)));
                }
                _ => {}
            }
        }
    }
    Some(report)
}
