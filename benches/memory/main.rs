//! Memory and time of Chunkwise beside plain DataFusion and DuckDB, as users run them: Parquet in, Parquet out.
//!
//! ```sh
//! cargo bench --bench memory                                   # TPC-H at 0.1, a few minutes
//! cargo bench --bench memory -- --scale 10 --runs 1 --out target/memory
//! cargo bench --bench memory -- --tasks window --budgets 2GiB,512MiB --chunks 8,32
//! cargo bench --bench memory -- --help
//! ```
//!
//! Each configuration runs in a process of its own, `--runs` times: all configurations once before any runs again, each
//! round beginning elsewhere, so that what else the machine does meets them alike. The tables are in the page cache. The
//! medians are printed as a table; `--out` gets all of it as `memory.json`, and the peaks and times against N and against
//! the budget as `memory.svg`.
//!
//! | system | what runs |
//! |---|---|
//! | `datafusion` | `COPY … TO` one Parquet file on all processors, without a limit and in memory pools of `--pool-budgets` |
//! | `chunkwise` | the same query as a task that the engine cuts as it likes, without a limit and within the budgets |
//! | `chunkwise N` | the same with `CLUSTERED BY … INTO N BUCKETS`, within each of `--chunk-budgets` |
//! | `duckdb` | DuckDB's `COPY … TO`, where its command line or its Python module is found, without a limit and limited to the peak RSS that Chunkwise had with `--duckdb-beside` |
//!
//! What the columns say:
//!
//! - *wall*: from building the engine to the output in its place; planning is in it, starting the process is not,
//!   but for DuckDB, which is started again each time.
//! - *peak RSS*: `VmHWM` of Linux, which the process reads at its end and which is looked at from outside meanwhile.
//! - *allocator*: most bytes that were allocated at once; what the allocator keeps for itself is only in the RSS.
//! - *pool*: most bytes that DataFusion's operators had reserved at once.
//! - *read*, *written*: bytes of system calls (`rchar`, `wchar`), whether the page cache or the disk served them.
//! - *spilled*: what operators wrote to spill files, by DataFusion's metrics; DuckDB doesn't tell.
//! - *split*: what Chunkwise wrote to cut inputs before the chunks read them.
//!
//! Every run's output is read back: its number of rows and a checksum that ignores their order must be those of the
//! unchunked run. The exit code is 1 if one differs or Chunkwise failed. That plain DataFusion or DuckDB don't get by with
//! a budget is a result and shown as such.
//!
//! Without any argument, as `cargo test --benches` calls it, it only tries whether it works.

mod allocator;
mod chart;
mod check;
mod child;
mod configuration;
mod duckdb;
mod options;
mod plot;
mod process;
mod report;
mod table;
mod task;

use std::alloc::System;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;

use crate::allocator::Counting;
use crate::check::Checker;
use crate::child::{Job, Outcome};
use crate::configuration::{Configuration, System as Measurable, configurations};
use crate::duckdb::DuckDb;
use crate::options::Options;
use crate::report::{Report, Result as Measurement, TaskReport};
use crate::task::Task;

/// The allocator of every measured process; what it wraps is the one to try others in place of.
#[global_allocator]
static ALLOCATOR: Counting<System> = Counting::new(System);

fn main() -> ExitCode {
    let options = match std::env::args().len() {
        1 => Options::parse_from(options::SMOKE),
        _ => Options::parse(),
    };
    if let Some(job) = &options.child {
        let job: Job = serde_json::from_str(job).expect("the job is JSON");
        println!("{}", serde_json::to_string(&child::run(&job)).expect("an outcome is JSON"));
        return ExitCode::SUCCESS;
    }

    let data = options.data();
    eprintln!("data: TPC-H at {} in {}", options.scale, data.display());
    chunkwise::cli::tpch::generate(&data, options.scale, &mut |_, _, _| {}).expect("the data can be made");
    // Nobody is to be the one that finds the tables only on the disk.
    for table in task::TABLES {
        let file = fs::File::open(child::table_path(&data, table)).expect("the table is there");
        std::io::copy(&mut &file, &mut std::io::sink()).expect("the table can be read");
    }
    let duckdb = DuckDb::find(options.duckdb.as_deref());
    if duckdb.is_none() {
        eprintln!("no DuckDB: neither its command line nor its Python module is there, so it is left out");
    }

    let mut report = Report::new(&options, &data, duckdb.as_ref());
    for task in options.tasks() {
        report.tasks.push(measure(task, &options, &data, duckdb.as_ref()));
        println!("{}", table::table(report.tasks.last().expect("pushed")));
    }
    write(&options.out(), &report);
    match report.problems() {
        problems if problems.is_empty() => ExitCode::SUCCESS,
        problems => {
            problems.iter().for_each(|problem| eprintln!("error: {problem}"));
            ExitCode::from(1)
        }
    }
}

/// Runs a task in all configurations, each as often as asked for.
fn measure(task: &'static Task, options: &Options, data: &Path, duckdb: Option<&DuckDb>) -> TaskReport {
    let mut results: Vec<Measurement> =
        configurations(options, duckdb.is_some()).into_iter().map(Measurement::new).collect();
    let mut checker = Checker::new(task);
    let configurations = results.len();
    for run in 1..=options.runs {
        for step in 0..configurations {
            // Each round begins elsewhere, so that nobody always follows the same one.
            let number = (step + (run as usize - 1) * configurations / options.runs as usize) % configurations;
            let budget_bytes = limit(&results, results[number].configuration);
            let result = &mut results[number];
            result.configuration.budget_bytes = budget_bytes;
            // What failed once fails again, and may take long to do so.
            if result.failure().is_some() {
                continue;
            }
            if result.configuration.beside.is_some() && budget_bytes.is_none() {
                result.add(Outcome::Failed("what it is measured beside failed".into()), None);
                continue;
            }
            let (outcome, problem) = run_once(task, &result.configuration, options, data, duckdb, &mut checker);
            eprintln!(
                "{} run {run}/{} {:>2}/{configurations} {}: {}",
                task.name,
                options.runs,
                number + 1,
                result.configuration,
                problem.as_ref().map_or_else(|| outcome.to_string(), String::clone)
            );
            result.add(outcome, problem);
        }
    }
    TaskReport::new(task, checker.expected(), results)
}

/// The memory limit of a configuration, which may be what another one took in the first round.
fn limit(results: &[Measurement], configuration: Configuration) -> Option<u64> {
    match configuration.beside {
        Some(beside) if configuration.budget_bytes.is_none() => {
            let other = results.iter().find(|result| result.configuration == beside.configuration())?;
            other.median.as_ref()?.peak_rss_bytes
        }
        _ => configuration.budget_bytes,
    }
}

/// Runs one configuration in a process and a folder of its own; also says what is wrong with its rows.
fn run_once(
    task: &'static Task,
    configuration: &Configuration,
    options: &Options,
    data: &Path,
    duckdb: Option<&DuckDb>,
    checker: &mut Checker,
) -> (Outcome, Option<String>) {
    let folder = tempfile::Builder::new().prefix("memory-").tempdir_in(options.work()).expect("a folder to work in");
    let job = Job {
        configuration: *configuration,
        task: task.name.to_string(),
        data: data.to_path_buf(),
        folder: folder.path().to_path_buf(),
        compression: options.compression.clone(),
        threads: options.threads(),
        duckdb: duckdb.filter(|_| configuration.system == Measurable::DuckDb).cloned(),
        stop_after: Duration::from_secs(options.stop_after),
    };
    let program = std::env::current_exe().expect("this program has a path");
    let json = serde_json::to_string(&job).expect("a job is JSON");
    let watched =
        process::watch(Command::new(program).arg("--child").arg(json), None).expect("a process can be started");
    let mut outcome = Outcome::of(&watched);
    let mut problem = None;
    if let Outcome::Done(measured) = &mut outcome {
        measured.peak_rss_bytes = measured.peak_rss_bytes.max(watched.peak_rss_bytes);
        problem = checker.problem(&job.output());
    }
    (outcome, problem)
}

fn write(folder: &Path, report: &Report) {
    fs::create_dir_all(folder).expect("the folder of --out can be made");
    let (json, svg) = (folder.join("memory.json"), folder.join("memory.svg"));
    fs::write(&json, serde_json::to_string_pretty(report).expect("a report is JSON")).expect("--out can be written");
    fs::write(&svg, chart::chart(report)).expect("--out can be written");
    println!("{}\n{}", json.display(), svg.display());
}
