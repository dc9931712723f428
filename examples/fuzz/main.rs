//! Random queries over random tables, chunked against unchunked: what the prover accepts must give the same rows.
//!
//! ```sh
//! cargo run --release --example fuzz -- --cases 100000 --seed 1
//! cargo run --release --example fuzz -- --cases 20000 --without all
//! cargo run --release --example fuzz -- --cases 50000 --duckdb
//! ```
//!
//! The first compares, and prints each mismatch as a small SQL case. The second switches one rule of the prover off
//! after the other and says how many cases it took to notice. The third lets DuckDB read the same files, too, and
//! compares its rows of some fifty more queries for each batch of forty.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod correlated;
mod differ;
mod duckdb;
mod expr;
mod files;
mod from;
mod kind;
mod overflow;
mod progress;
mod query;
mod random;
mod reduce;
mod report;
mod rows;
mod shape;
mod shrink;
mod table;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use chunkwise::testing::Rule;
use clap::Parser;

use crate::differ::{Plan, Wrong, fuzz};
use crate::progress::Progress;
use crate::report::{describe, print};
use crate::shrink::shrink;

/// Compares chunked runs of random queries with unchunked ones.
#[derive(Debug, Parser)]
struct Arguments {
    /// Queries to make; with `--without`, the most for each rule.
    #[arg(long, default_value_t = 10_000)]
    cases: usize,
    /// Seed of the first batch.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A rule of the prover to switch off until wrong rows show it, or `all` for one after the other.
    #[arg(long)]
    without: Option<Without>,
    /// Makes a small case of the wrong rows that a rule's absence lets through.
    #[arg(long)]
    shrink: bool,
    /// Lets DuckDB read the same files, run some fifty more queries for each batch, too, and compares its rows: needs
    /// Python with duckdb and pyarrow.
    #[arg(long)]
    duckdb: bool,
    /// Batches at a time [default: the number of processors].
    #[arg(long)]
    threads: Option<usize>,
    /// Folder for tables and caches, best in memory [default: /dev/shm where it is, else the system's].
    #[arg(long)]
    folder: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy)]
enum Without {
    One(Rule),
    All,
}

impl FromStr for Without {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if name == "all" { Ok(Self::All) } else { name.parse().map(Self::One) }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let memory = Path::new("/dev/shm");
    let system = || if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let plan = Plan {
        cases: arguments.cases,
        seed: arguments.seed,
        without: None,
        threads: arguments.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        folder: arguments.folder.clone().unwrap_or_else(system),
        stops: false,
        duckdb: arguments.duckdb,
    };
    let is_good = match arguments.without {
        None => compare(&plan),
        Some(Without::One(rule)) => notice(&plan, &[rule], arguments.shrink),
        Some(Without::All) => notice(&plan, Rule::ALL, arguments.shrink),
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Compares; false when there was a mismatch.
fn compare(plan: &Plan) -> bool {
    let progress = Progress::new(plan.cases);
    let tally = fuzz(plan, |done| progress.report(done));
    print(&tally);
    progress.summary(tally.cases);
    for wrong in &tally.wrong {
        eprintln!("making case {} of the batch with seed {} smaller", wrong.case.name, wrong.seed);
        println!("\n{}", describe(&shrink(wrong, &plan.folder)));
    }
    tally.wrong.is_empty()
}

/// Switches each rule off; false when one was not noticed.
fn notice(plan: &Plan, rules: &[Rule], shrinks: bool) -> bool {
    let mut pins = Vec::new();
    let mut unnoticed = 0;
    for rule in rules {
        let plan = Plan { without: Some(*rule), stops: true, ..plan.clone() };
        let tally = fuzz(&plan, |_| {});
        let failed = tally.wrong.iter().filter(|wrong| !wrong.has_other_rows()).count();
        let first = tally.wrong.iter().find(|wrong| wrong.has_other_rows());
        match first {
            Some(first) => {
                println!("{:20} {:7} cases until wrong rows, {failed} failed", rule.name(), first.before + 1);
                pins.push(format!("    (Rule::{rule:?}, {}),", first.seed));
            }
            None => {
                unnoticed += 1;
                println!("{:20} not noticed in {} cases, {failed} failed", rule.name(), tally.cases);
                pins.push(format!("    // Rule::{rule:?} was not noticed."));
            }
        }
        let shown: Vec<&Wrong> = if shrinks { first.into_iter().collect() } else { Vec::new() };
        for wrong in shown {
            println!("\n{}\n", describe(&shrink(wrong, &plan.folder)));
        }
    }
    println!("\nconst PINS: &[(Rule, u64)] = &[\n{}\n];", pins.join("\n"));
    unnoticed == 0
}
