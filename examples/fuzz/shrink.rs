//! A small case of what is wrong: leaves things out as long as the outcome stays the same.

use std::path::Path;

use sqlparser::ast::{Query, Statement};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;
use tokio::runtime::Runtime;

use super::differ::Wrong;
use super::files::{Files, Place};
use super::query::Case;
use super::reduce::reduced;
use super::world::{Layout, Outcome, World, rows_whole, shortened};

/// At most so many runs of the engine for one case.
const MOST_TRIES: usize = 400;
/// At most so many runs of plain DataFusion for one case.
const MOST_PLANS: usize = 4_000;

/// A smaller case with the same kind of outcome, run below `folder`.
pub fn shrink(wrong: &Wrong, folder: &Path) -> Wrong {
    let folder = folder.join(format!("chunkwise-shrink-{}", std::process::id()));
    let builder = std::thread::Builder::new().stack_size(64 << 20);
    std::thread::scope(|scope| {
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            Shrinker { runtime, folder: &folder, tries: 0, plans: 0, best: copy(wrong) }.run()
        };
        let best = builder.spawn_scoped(scope, work).unwrap().join();
        best.unwrap_or_else(|_| copy(wrong))
    })
}

struct Shrinker<'a> {
    runtime: Runtime,
    folder: &'a Path,
    tries: usize,
    plans: usize,
    best: Wrong,
}

impl Shrinker<'_> {
    fn run(mut self) -> Wrong {
        // Alone it may do something else than among others.
        let (world, case) = (self.best.world.clone(), self.best.case.clone());
        if !self.is_still_wrong(world, case) {
            return self.best;
        }
        loop {
            let before = (self.best.case.sql.len(), self.rows());
            self.settings();
            self.query();
            self.tables();
            if (self.best.case.sql.len(), self.rows()) == before || self.is_spent() {
                return self.best;
            }
        }
    }

    fn rows(&self) -> usize {
        self.best.world.tables.iter().map(|table| table.rows.len()).sum()
    }

    fn is_spent(&self) -> bool {
        self.tries >= MOST_TRIES || self.plans >= MOST_PLANS
    }

    /// Tries a candidate and keeps it if it is as wrong.
    fn is_still_wrong(&mut self, world: World, case: Case) -> bool {
        if self.is_spent() {
            return false;
        }
        self.plans += 1;
        // A query that is none needs no engine.
        let is_query = self
            .runtime
            .block_on(async { rows_whole(&world.whole(2, Layout::OneBatch).await, &case.sql).await.is_ok() });
        if !is_query {
            return false;
        }
        self.tries += 1;
        let outcome = self.runtime.block_on(world.try_case(&case, self.folder));
        let is_same = match (&outcome, &self.best.outcome) {
            (Outcome::Wrong(_), Outcome::Wrong(_)) => true,
            (Outcome::Failed(a), Outcome::Failed(b)) => is_same_error(a, b),
            _ => false,
        };
        if is_same {
            (self.best.world, self.best.case, self.best.outcome) = (world, case, outcome);
        }
        is_same
    }

    fn settings(&mut self) {
        for chunks in [2, 3] {
            if self.best.case.chunks > chunks {
                let case = Case { chunks, ..self.best.case.clone() };
                let _ = self.is_still_wrong(self.best.world.clone(), case);
            }
        }
        if self.best.world.rotates {
            let world = World { rotates: false, ..self.best.world.clone() };
            let _ = self.is_still_wrong(world, self.best.case.clone());
        }
        for at in 0..self.best.world.tables.len() {
            let files = self.best.world.tables[at].files.clone();
            let simpler = [
                Files::plain(),
                Files { count: 1, ..files.clone() },
                Files { drifts: false, ..files.clone() },
                Files { by_folder: false, ..files.clone() },
                Files { has_others: false, ..files.clone() },
                Files { place: Place::Folder, ..files },
            ];
            for files in simpler {
                let mut world = self.best.world.clone();
                if world.tables[at].files != files {
                    world.tables[at].files = files;
                    let _ = self.is_still_wrong(world, self.best.case.clone());
                }
            }
        }
    }

    fn query(&mut self) {
        let Some(mut query) = parsed(&self.best.case.sql) else { return };
        let mut tables: Vec<String> = self.best.world.tables.iter().map(|table| table.name.clone()).collect();
        tables.extend(["u".into(), "v".into()]);
        let mut at = 0;
        while let Some(smaller) = reduced(&query, &tables, at) {
            let case = Case { sql: smaller.to_string(), ..self.best.case.clone() };
            match self.is_still_wrong(self.best.world.clone(), case) {
                true => query = smaller,
                false => at += 1,
            }
            if self.is_spent() {
                break;
            }
        }
    }

    fn tables(&mut self) {
        let mut at = 0;
        while at < self.best.world.tables.len() {
            // A table that the query does not read goes as a whole, except the first, which others stand on.
            let mut world = self.best.world.clone();
            world.tables.remove(at);
            if at == 0 || !self.is_still_wrong(world, self.best.case.clone()) {
                self.rows_of(at);
                self.columns_of(at);
                at += 1;
            }
        }
    }

    /// Drops halves, quarters, … and single rows.
    fn rows_of(&mut self, table: usize) {
        let mut size = self.best.world.tables[table].rows.len().div_ceil(2);
        while size > 0 {
            let mut start = 0;
            while start < self.best.world.tables[table].rows.len() {
                let mut world = self.best.world.clone();
                let rows = &mut world.tables[table].rows;
                rows.drain(start..(start + size).min(rows.len()));
                let table = &mut world.tables[table];
                table.files.fit(&table.columns, &table.rows);
                if !self.is_still_wrong(world, self.best.case.clone()) {
                    start += size;
                }
                if self.is_spent() {
                    return;
                }
            }
            size /= 2;
        }
    }

    fn columns_of(&mut self, table: usize) {
        // The first column is the key of a task over the first table.
        let mut column = 1;
        while column < self.best.world.tables[table].columns.len() {
            let mut world = self.best.world.clone();
            let table = &mut world.tables[table];
            table.columns.remove(column);
            for row in &mut table.rows {
                row.remove(column);
            }
            table.files.fit(&table.columns, &table.rows);
            if !self.is_still_wrong(world, self.best.case.clone()) {
                column += 1;
            }
        }
    }
}

fn is_same_error(a: &str, b: &str) -> bool {
    // Names of columns and literals differ: the first words of the cause tell.
    let last = |text: &str| shortened(text.rsplit(": ").next().unwrap_or(text)).chars().take(25).collect::<String>();
    last(a) == last(b)
}

fn parsed(sql: &str) -> Option<Query> {
    match Parser::parse_sql(&GenericDialect {}, sql).ok()?.pop()? {
        Statement::Query(query) => Some(*query),
        _ => None,
    }
}

fn copy(wrong: &Wrong) -> Wrong {
    let Wrong { seed, before, world, case, outcome } = wrong;
    Wrong { seed: *seed, before: *before, world: world.clone(), case: case.clone(), outcome: outcome.clone() }
}
