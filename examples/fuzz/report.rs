//! What became of the cases, for a reader.

use super::differ::{Tally, Wrong};
use super::world::Outcome;

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
