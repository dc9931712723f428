//! What to run next: pure bookkeeping over the DAG. A task is ready when all it reads is done, and, of tables of another
//! stage, published; what reads a failed task, or a table of a stage of which one fails, is skipped.

use std::collections::{BTreeMap, BTreeSet};

use crate::pipeline::Pipeline;

/// The tasks that are not done yet and what each waits for.
#[derive(Debug, Clone)]
pub struct Schedule {
    waiting: BTreeMap<String, BTreeSet<Need>>,
    /// The stage of each task that has one.
    stages: BTreeMap<String, String>,
    /// The tasks of each stage that are not done; those that failed or were skipped stay.
    unfinished: BTreeMap<String, BTreeSet<String>>,
}

/// What a task waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// That a task is done.
    Task(String),
    /// That a stage is published.
    Stage(String),
}

/// A task that can't run any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The task.
    pub task: String,
    /// The stage that it waits for, where that is why.
    pub stage: Option<String>,
}

impl Schedule {
    /// All tasks of `pipeline`, none done.
    pub fn new(pipeline: &Pipeline) -> Self {
        let mut unfinished: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut stages = BTreeMap::new();
        for task in pipeline.tasks() {
            if let Some(stage) = &task.stage {
                unfinished.entry(stage.clone()).or_default().insert(task.name.clone());
                stages.insert(task.name.clone(), stage.clone());
            }
        }
        let needs = |task| {
            let inputs = pipeline.inputs(task).into_iter().filter_map(|input| pipeline.task(&input));
            let need = inputs.map(|input| match &input.stage {
                Some(stage) if task.stage.as_ref() != Some(stage) => Need::Stage(stage.clone()),
                _ => Need::Task(input.name.clone()),
            });
            need.collect()
        };
        let waiting = pipeline.tasks().map(|task| (task.name.clone(), needs(task))).collect();
        Self { waiting, stages, unfinished }
    }

    /// Takes the tasks that wait for nothing any more, sorted by name; each is given once.
    pub fn take_ready(&mut self) -> Vec<String> {
        let ready: Vec<_> = self.waiting.iter().filter(|(_, on)| on.is_empty()).map(|(name, _)| name.clone()).collect();
        for name in &ready {
            self.waiting.remove(name);
        }
        ready
    }

    /// Notes that `task` succeeded; returns its stage when all tasks of it have: it is to be published then.
    pub fn succeeded(&mut self, task: &str) -> Option<String> {
        self.is_there(&Need::Task(task.to_string()));
        let stage = self.stages.get(task)?;
        let unfinished = self.unfinished.get_mut(stage)?;
        unfinished.remove(task);
        unfinished.is_empty().then(|| stage.clone())
    }

    /// Notes that `stage` was published.
    pub fn published(&mut self, stage: &str) {
        self.is_there(&Need::Stage(stage.to_string()));
    }

    fn is_there(&mut self, need: &Need) {
        for on in self.waiting.values_mut() {
            on.remove(need);
        }
    }

    /// Notes that `task` failed, and that its stage will not be published; returns the tasks that can't run now, directly or
    /// not, sorted by name.
    pub fn failed(&mut self, task: &str) -> Vec<Skipped> {
        let stage = self.stages.get(task).cloned().map(Need::Stage);
        self.lose([Need::Task(task.to_string())].into_iter().chain(stage).collect())
    }

    /// Notes that `stage` could not be published; returns what [`Schedule::failed`] does.
    pub fn not_published(&mut self, stage: &str) -> Vec<Skipped> {
        self.lose(BTreeSet::from([Need::Stage(stage.to_string())]))
    }

    fn lose(&mut self, mut lost: BTreeSet<Need>) -> Vec<Skipped> {
        let mut skipped = BTreeMap::new();
        loop {
            let more: Vec<_> = self
                .waiting
                .iter()
                .filter_map(|(name, on)| Some((name.clone(), on.intersection(&lost).last()?.clone())))
                .collect();
            if more.is_empty() {
                break;
            }
            for (task, need) in more {
                self.waiting.remove(&task);
                lost.extend(self.stages.get(&task).cloned().map(Need::Stage));
                lost.insert(Need::Task(task.clone()));
                let stage = match need {
                    Need::Task(_) => None,
                    Need::Stage(stage) => Some(stage),
                };
                skipped.insert(task, stage);
            }
        }
        skipped.into_iter().map(|(task, stage)| Skipped { task, stage }).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::pipeline::Pipeline;
    use crate::schedule::{Schedule, Skipped};
    use crate::task::Task;

    /// Tasks by name, stage (or none) and what they read.
    fn schedule(tasks: &[(&str, &str, &[&'static str])]) -> Schedule {
        let mut pipeline = Pipeline::builder();
        for (name, stage, reads) in tasks {
            let input = reads.first().copied().unwrap_or_default();
            let task = Task::dataframe(*name, reads.iter().copied(), move |inputs| inputs.table(input));
            pipeline = pipeline.with(if stage.is_empty() { task } else { task.stage(*stage) });
        }
        Schedule::new(&pipeline.build().unwrap())
    }

    fn skipped(task: &str, stage: Option<&str>) -> Skipped {
        Skipped { task: task.into(), stage: stage.map(str::to_string) }
    }

    const PIPELINE: &[(&str, &str, &[&str])] = &[
        ("a", "s", &[]),
        ("b", "s", &["a"]),
        ("c", "s", &[]),
        ("reader", "", &["a"]),
        ("next", "r", &["reader"]),
        ("beside", "r", &[]),
        ("last", "", &["beside"]),
        ("alone", "", &[]),
    ];

    #[test]
    fn a_reader_waits_for_the_whole_stage_and_its_publication() {
        let mut schedule = schedule(PIPELINE);
        assert_eq!(schedule.take_ready(), ["a", "alone", "beside", "c"]);
        assert_eq!(schedule.succeeded("alone"), None);
        assert_eq!(schedule.succeeded("beside"), None);
        assert_eq!(schedule.succeeded("a"), None);
        // Within its stage a task waits for what it reads alone.
        assert_eq!(schedule.take_ready(), ["b"]);
        assert_eq!(schedule.succeeded("b"), None);
        assert_eq!(schedule.succeeded("c").as_deref(), Some("s"));
        assert_eq!(schedule.take_ready(), Vec::<String>::new());
        schedule.published("s");
        assert_eq!(schedule.take_ready(), ["reader"]);
        assert_eq!(schedule.succeeded("reader"), None);
        assert_eq!(schedule.take_ready(), ["next"]);
        assert_eq!(schedule.succeeded("next").as_deref(), Some("r"));
        schedule.published("r");
        assert_eq!(schedule.take_ready(), ["last"]);
    }

    #[test]
    fn a_stage_is_lost_with_one_of_its_tasks_and_its_readers_with_it() {
        let mut lost = schedule(PIPELINE);
        lost.take_ready();
        let expected = [skipped("last", Some("r")), skipped("next", None), skipped("reader", Some("s"))];
        assert_eq!(lost.failed("c"), expected);
        // The rest of the stage goes on, and is not published.
        assert_eq!(lost.succeeded("a"), None);
        assert_eq!(lost.take_ready(), ["b"]);
        assert_eq!(lost.succeeded("b"), None);
        assert_eq!(lost.succeeded("beside"), None);

        let mut lost = schedule(PIPELINE);
        lost.take_ready();
        let of_failed: Vec<_> = lost.failed("a").into_iter().map(|skipped| skipped.task).collect();
        assert_eq!(of_failed, ["b", "last", "next", "reader"]);

        let mut lost = schedule(PIPELINE);
        lost.take_ready();
        assert_eq!(lost.not_published("s"), expected);
    }
}
