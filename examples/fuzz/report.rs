//! What the command prints.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::differ::{Tally, Wrong};
use super::world::Outcome;

/// Tells on stderr how far a run is, about every thousand cases.
pub struct Progress {
    start: Instant,
    cases: usize,
    told: AtomicUsize,
}

impl Progress {
    pub fn new(cases: usize) -> Self {
        Self { start: Instant::now(), cases, told: AtomicUsize::new(0) }
    }

    pub fn report(&self, done: usize) {
        if self.told.fetch_max(done / 1000, Ordering::Relaxed) < done / 1000 {
            eprintln!("{done} of {} cases, {:.1} cases/s", self.cases, self.speed(done));
        }
    }

    /// Says how long it took.
    pub fn summary(&self, cases: usize) {
        println!("{cases} cases in {:.0} s, {:.1} cases/s", self.start.elapsed().as_secs_f64(), self.speed(cases));
    }

    fn speed(&self, cases: usize) -> f64 {
        cases as f64 / self.start.elapsed().as_secs_f64()
    }
}

/// Prints the counts.
pub fn print(tally: &Tally) {
    println!("accepted {}, of these {} with rows", tally.accepted, tally.with_rows);
    for (what, counts) in [("refused", &tally.refused), ("skipped", &tally.skipped)] {
        println!("{what} {}", counts.values().sum::<usize>());
        let mut counts: Vec<_> = counts.iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (why, count) in counts {
            println!("  {count:6} {why}");
        }
    }
    println!("mismatches {}", tally.wrong.len());
}

/// A case as SQL that stands alone, and what is wrong with it.
pub fn describe(wrong: &Wrong) -> String {
    let Wrong { seed, before: _, world, case, outcome } = wrong;
    let off = world.without.map_or(String::new(), |rule| format!(", without {rule}"));
    let what = match outcome {
        Outcome::Wrong(differences) => differences.clone(),
        Outcome::Failed(error) => format!("-- it failed: {}\n", error.replace('\n', "\n-- ")),
        other => format!("-- {other:?}\n"),
    };
    format!("-- seed {seed}, case {}{off}\n{}{}{what}", case.name, world.as_sql(&case.sql), case.statement())
}
