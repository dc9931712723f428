//! What to run next: pure bookkeeping over the DAG. A task is ready when all it reads is done; what reads a failed
//! task is skipped.

use std::collections::{BTreeMap, BTreeSet};

use crate::pipeline::Pipeline;

/// The tasks that are not done yet and what each waits for.
#[derive(Debug, Clone)]
pub struct Schedule {
    waiting: BTreeMap<String, BTreeSet<String>>,
}

impl Schedule {
    /// All tasks of `pipeline`, none done.
    pub fn new(pipeline: &Pipeline) -> Self {
        let tasks: BTreeSet<_> = pipeline.tasks().map(|task| task.name.clone()).collect();
        let waits = |task| pipeline.inputs(task).intersection(&tasks).cloned().collect();
        Self { waiting: pipeline.tasks().map(|task| (task.name.clone(), waits(task))).collect() }
    }

    /// Takes the tasks that wait for nothing any more, sorted by name; each is given once.
    pub fn take_ready(&mut self) -> Vec<String> {
        let ready: Vec<_> = self.waiting.iter().filter(|(_, on)| on.is_empty()).map(|(name, _)| name.clone()).collect();
        for name in &ready {
            self.waiting.remove(name);
        }
        ready
    }

    /// Notes that `task` succeeded.
    pub fn succeeded(&mut self, task: &str) {
        for on in self.waiting.values_mut() {
            on.remove(task);
        }
    }

    /// Notes that `task` failed; returns the tasks that can't run now, directly or not, sorted by name.
    pub fn failed(&mut self, task: &str) -> Vec<String> {
        let mut lost = BTreeSet::from([task.to_string()]);
        loop {
            let more: Vec<_> =
                self.waiting.iter().filter(|(_, on)| !on.is_disjoint(&lost)).map(|(name, _)| name.clone()).collect();
            if more.is_empty() {
                break;
            }
            for name in more {
                self.waiting.remove(&name);
                lost.insert(name);
            }
        }
        lost.remove(task);
        lost.into_iter().collect()
    }
}
