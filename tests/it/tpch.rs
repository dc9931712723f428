//! The 22 TPC-H queries of `sql/tpch`, with keys that the engine finds, against plain DataFusion.
//!
//! `CHUNKWISE_TEST_SCALE` is the scale factor, 0.01 unless it is set; `CHUNKWISE_TEST_CHUNKS` lists numbers of chunks, 7
//! unless it is set. The test prints how each query was cut.

use std::fs;
use std::path::Path;

use chunkwise::{InputMode, Status, StepPart, StepReport, TaskReport};

use crate::demo::root;
use crate::support::{Multiset, engine, engine_one_by_one, oracle, query_rows, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_has_the_rows_of_the_whole_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/tpch");
    let read = |name: &str| fs::read_to_string(folder.join(format!("{name}.sql"))).unwrap();
    let location = format!("LOCATION '{}/data/", root().await.display());
    let sources = read("sources").replace("LOCATION '../data/", &location);
    let declared = sources.split(';').map(str::trim).filter(|s| s.contains("CREATE")).map(str::to_string);
    let plain = oracle(&declared.collect::<Vec<_>>()).await;
    let queries: Vec<String> = (1..=22).map(|number| read(&format!("q{number:02}"))).collect();
    let mut whole = Vec::new();
    for query in &queries {
        let (_, select) = query.split_once(" AS\n").unwrap();
        whole.push(query_rows(&plain, select.trim().trim_end_matches(';')).await);
    }

    let chunks = std::env::var("CHUNKWISE_TEST_CHUNKS").unwrap_or_else(|_| "7".into());
    for chunks in chunks.split(',').map(|n| n.parse::<u32>().unwrap()) {
        let cut = |query: &String| {
            assert!(query.contains("chunks = 7)"), "{query}");
            query.replace("chunks = 7)", &format!("chunks = {chunks})"))
        };
        let sql = sources.clone() + &queries.iter().map(cut).collect::<String>();
        let cache = tempfile::tempdir().unwrap();
        let alone = engine_one_by_one(cache.path());
        let report = run(&alone, &sql, &folder).await;
        assert_eq!(report.tasks.len(), 22);
        for (number, whole) in whole.iter().enumerate() {
            let task = report.task(&format!("q{:02}", number + 1)).unwrap();
            println!("{}", described(task));
            assert_eq!(Multiset::of(alone.table(&task.name).await.unwrap()).await, *whole, "{task:#?}");
            assert!(whole.rows > 0 && task.status == Status::Executed && task.chunks >= chunks, "{task:#?}");
            assert!(task.inputs.iter().any(|input| input.mode != InputMode::Replicate), "{task:#?}");
        }
        // Cut where that is worth it, in passes.
        let cache = tempfile::tempdir().unwrap();
        let passing = engine(cache.path());
        let report = run(&passing, &sql, &folder).await;
        for (task, whole) in report.tasks.iter().zip(&whole) {
            assert_eq!(Multiset::of(passing.table(&task.name).await.unwrap()).await, *whole, "{task:#?}");
        }
    }
}

/// A line of the table in `sql/tpch/README.md`.
fn described(task: &TaskReport) -> String {
    let of = |part| task.steps.iter().filter(move |step| step.part == part);
    let tables = |step: &StepReport, is_cut: bool| -> String {
        let inputs = step.inputs.iter().filter(|input| is_cut == (input.mode != InputMode::Replicate));
        let tables: Vec<_> = inputs.map(|input| input.table.as_str()).collect();
        tables.join(", ")
    };
    let cut: Vec<String> = task
        .steps
        .iter()
        .filter(|step| !step.keys.is_empty())
        .map(|step| format!("{} by {}", tables(step, true), step.keys.join(", ")))
        .collect();
    let cut_steps = || task.steps.iter().filter(|step| !step.keys.is_empty());
    let whole: Vec<String> = cut_steps().map(|step| tables(step, false)).filter(|tables| !tables.is_empty()).collect();
    let names = |part| of(part).map(|step| step.name.as_str()).collect::<Vec<_>>().join(", ");
    let first = [names(StepPart::First), names(StepPart::Below)].join(" ");
    format!(
        "| {} | {} | {} | {} | {} |",
        task.name,
        cut.join("; "),
        whole.join("; "),
        names(StepPart::Phase),
        first.trim()
    )
}
