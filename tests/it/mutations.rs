//! Whatever is edited in a task or a source, its chunks get other names or it is refused: nothing stale is served. And
//! what says the same in other words gets the same names: nothing runs again without need.
//!
//! The tasks of [`corpus`] are edited mechanically, field by field of their syntax trees ([`tree`]) and word by word of
//! their text ([`tokens`]). What keeps its names is in a list with the reason ([`neutral`]).

use std::collections::BTreeSet;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use chunkwise::testing::Planning;

use self::corpus::{SOURCES, TASKS, inputs};
use self::neutral::why_neutral;
use self::tree::Edit;

mod corpus;
mod neutral;
mod rust;
mod sources;
mod sweep;
mod tokens;
mod tree;

/// A test looks at one of so many edits, another at all.
const SHARE: usize = 3;

/// What the chunks of a task are named by, or why it is refused.
enum Named {
    Names(Vec<String>),
    /// The text is none that Chunkwise reads.
    Unread(String),
    /// The query can't be planned, or not be cut as it says.
    Refused(String),
}

/// Of the task `task` in `sql`, over [`SOURCES`].
fn named(sql: &str) -> Named {
    let pipeline = match chunkwise::sql::parse(&format!("{SOURCES}{sql}"), "t.sql", Path::new("/")) {
        Ok(pipeline) => pipeline,
        Err(error) => return Named::Unread(error.to_string()),
    };
    match Planning::new(&pipeline, "task", &inputs()).and_then(|planning| planning.names()) {
        Ok(names) => Named::Names(names.iter().map(ToString::to_string).collect()),
        Err(error) => Named::Refused(error.to_string()),
    }
}

/// The names of a task that must have some.
fn names(sql: &str) -> Vec<String> {
    match named(sql) {
        Named::Names(names) => names,
        Named::Unread(why) | Named::Refused(why) => panic!("{why}\n{sql}"),
    }
}

fn sql_of((cut, before, query): &(&str, &str, &str)) -> String {
    format!("{before}\nCREATE TABLE task {cut} AS {query};")
}

/// How many edits ended how.
#[derive(Debug, Default)]
struct Figures {
    edits: usize,
    renamed: usize,
    unread: usize,
    refused: usize,
    neutral: usize,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, Self { edits, renamed, unread, refused, neutral }: Self) {
        self.edits += edits;
        self.renamed += renamed;
        self.unread += unread;
        self.refused += refused;
        self.neutral += neutral;
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { edits, renamed, unread, refused, neutral } = self;
        let all = unread + refused;
        write!(f, "edits {edits}, refused {all} ({unread} by the parser), renamed {renamed}, kept neutral {neutral}")
    }
}

/// Calls `work` for each of so many numbers, on as many threads as there are processors, with stacks that are large
/// enough for plans in unoptimised builds.
fn on_threads(numbers: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let all = || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers {
                        return;
                    }
                    work(number);
                }
            };
            std::thread::Builder::new().stack_size(256 << 20).spawn_scoped(scope, all).unwrap();
        }
    });
}

/// Every edit of a task that gives another text.
fn edits_of(sql: &str) -> Vec<Edit> {
    let mut seen = BTreeSet::from([sql.to_string(), tree::printed(sql)]);
    let edits = tree::edits(sql).into_iter().chain(tokens::edits(sql));
    edits.filter(|edit| seen.insert(edit.sql.clone())).collect()
}

/// Tries one of `share` edits, and asserts that each gives other names, is refused, or is known to say the same.
fn try_edits(share: usize) {
    let figures = Mutex::new(Figures::default());
    let wrong = Mutex::new(Vec::new());
    on_threads(TASKS.len(), |number| {
        let sql = sql_of(&TASKS[number]);
        let base = names(&sql);
        let mut own = Figures::default();
        let chosen = edits_of(&sql).into_iter().skip(number % share).step_by(share);
        for Edit { what, sql: edited } in chosen {
            own.edits += 1;
            match catch_unwind(AssertUnwindSafe(|| named(&edited))) {
                Ok(Named::Names(names)) if names != base => own.renamed += 1,
                Ok(Named::Names(_)) if why_neutral(&sql, &edited).is_some() => own.neutral += 1,
                Ok(Named::Names(_)) => wrong.lock().unwrap().push(format!("KEPT {what}:\n  {sql}\n  {edited}")),
                Ok(Named::Unread(_)) => own.unread += 1,
                Ok(Named::Refused(_)) => own.refused += 1,
                Err(_) => wrong.lock().unwrap().push(format!("PANIC {what}:\n  {edited}")),
            }
        }
        *figures.lock().unwrap() += own;
    });
    let (figures, wrong) = (figures.into_inner().unwrap(), wrong.into_inner().unwrap());
    println!("{figures}");
    assert!(wrong.is_empty(), "{} edits:\n{}", wrong.len(), wrong.join("\n"));
    assert!(figures.edits >= 2_000 && figures.renamed >= 1_000, "{figures}");
}

#[test]
fn whatever_is_edited_gets_other_names_or_is_refused() {
    try_edits(SHARE);
}

/// `cargo test --test it mutations::every_edit -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes"]
fn every_edit_gets_other_names_or_is_refused() {
    try_edits(1);
}

#[test]
fn clauses_that_a_function_has_no_use_for_are_refused() {
    for call in [
        "grouping(DISTINCT g)",
        "grouping(g) FILTER (WHERE v > 1)",
        "grouping(g ORDER BY p)",
        "grouping(g) IGNORE NULLS",
        "grouping(g) WITHIN GROUP (ORDER BY p)",
        "grouping(g) OVER ()",
        "upper(DISTINCT p)",
        "upper(p) FILTER (WHERE v > 1)",
        "row_number() FILTER (WHERE v > 1) OVER (ORDER BY g)",
        "sum(v) IGNORE NULLS",
        "sum(v ORDER BY v) OVER ()",
    ] {
        let sql = format!("CREATE TABLE task AS SELECT g, p, {call} AS a FROM t GROUP BY ROLLUP (g, p)");
        match named(&sql) {
            Named::Refused(why) => assert!(why.contains("has no meaning for"), "{why}"),
            Named::Unread(why) => panic!("{why}"),
            Named::Names(_) => panic!("{call} has names"),
        }
    }
}
