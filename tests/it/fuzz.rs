//! Random queries over random tables, chunked against unchunked: short runs of the fuzzer in `examples/fuzz`.

use std::path::Path;

use chunkwise::testing::Rule;

use self::differ::{BATCH, Plan, Wrong, fuzz};
use self::report::{describe, print};
use self::shrink::shrink;

#[path = "../../examples/fuzz/correlated.rs"]
mod correlated;
#[path = "../../examples/fuzz/differ.rs"]
mod differ;
#[path = "../../examples/fuzz/duckdb.rs"]
mod duckdb;
#[path = "../../examples/fuzz/expr.rs"]
mod expr;
#[path = "../../examples/fuzz/files.rs"]
mod files;
#[path = "../../examples/fuzz/from.rs"]
mod from;
#[path = "../../examples/fuzz/kind.rs"]
mod kind;
#[path = "../../examples/fuzz/overflow.rs"]
mod overflow;
#[path = "../../examples/fuzz/query.rs"]
mod query;
#[path = "../../examples/fuzz/random.rs"]
mod random;
#[path = "../../examples/fuzz/reduce.rs"]
mod reduce;
#[path = "../../examples/fuzz/report.rs"]
mod report;
#[path = "../../examples/fuzz/rows.rs"]
mod rows;
#[path = "../../examples/fuzz/shape.rs"]
mod shape;
#[path = "../../examples/fuzz/shrink.rs"]
mod shrink;
#[path = "../../examples/fuzz/table.rs"]
mod table;
#[path = "../../examples/fuzz/world.rs"]
mod world;

/// Seeds of batches in which wrong rows show that a rule is off, as `--without all` of the command prints them.
const PINS: &[(Rule, u64)] = &[
    (Rule::JoinOnKeys, 500),
    (Rule::KeptSide, 501),
    (Rule::NullAware, 526),
    (Rule::PaddedKeys, 522),
    (Rule::EqualInAllRows, 522),
    (Rule::Conjuncts, 519),
    (Rule::LosslessCasts, 542),
    (Rule::ExactArguments, 552),
    (Rule::GroupByKeys, 500),
    (Rule::GroupingSets, 500),
    (Rule::DistinctKeys, 500),
    (Rule::DistinctOnKeys, 501),
    (Rule::PartitionByKeys, 503),
    (Rule::Limit, 502),
    (Rule::UnionOnce, 501),
    (Rule::UnionKeys, 521),
    (Rule::Recursion, 504),
    (Rule::ScalarSubquery, 508),
    (Rule::Stable, 511),
    (Rule::Volatile, 518),
    (Rule::KeptOrder, 509),
    (Rule::OffsetLast, 507),
    (Rule::UnorderedStates, 501),
    (Rule::SameSources, 505),
];
/// Most cases to find wrong rows in when a pin no longer does.
const MOST_CASES: usize = 10 * BATCH;

#[test]
fn random_queries_give_the_same_rows_chunk_by_chunk_as_whole() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan { cases: 300, ..plan(1, folder.path()) };
    let tally = fuzz(&plan, |_| {});
    print(&tally);
    for wrong in &tally.wrong {
        println!("\n{}", describe(&shrink(wrong, folder.path())));
    }
    assert!(tally.wrong.is_empty(), "{} of {} cases are wrong", tally.wrong.len(), tally.cases);
    assert!(2 * tally.accepted >= tally.cases, "only {} of {} cases accepted", tally.accepted, tally.cases);
}

/// `cargo run --release --example fuzz -- --cases 3000 --seed 500 --without all` prints the table of PINS.
#[test]
#[ignore = "takes minutes"]
fn every_rule_is_noticed() {
    let pinned: Vec<Rule> = PINS.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(pinned, Rule::ALL, "pin every rule: --without all of the fuzz example prints the table");
    let folder = tempfile::tempdir().unwrap();
    let is_noticed = |rule: Rule, seed: u64, cases: usize| {
        let plan = Plan { cases, without: Some(rule), stops: true, ..plan(seed, folder.path()) };
        fuzz(&plan, |_| {}).wrong.iter().any(Wrong::has_other_rows)
    };
    for (rule, seed) in PINS {
        if !is_noticed(*rule, *seed, BATCH) {
            assert!(
                is_noticed(*rule, 1, MOST_CASES),
                "nothing shows that {rule} is off; find a seed for PINS with\n\
                 cargo run --release --example fuzz -- --cases 100000 --without {rule}"
            );
            println!("{rule} is no longer noticed with seed {seed}, but with another; pin it");
        }
    }
}

fn plan(seed: u64, folder: &Path) -> Plan {
    Plan { cases: BATCH, seed, without: None, threads: 2, folder: folder.to_path_buf(), stops: false, duckdb: false }
}
