//! How far a run is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

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
