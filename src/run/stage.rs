//! The end of a stage: all its tables are published together, or none is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::cache::Prepared;
use crate::cache::publish::Guard;
use crate::error::Result;
use crate::event::{Event, EventSink};
use crate::pipeline::Pipeline;
use crate::run::Context;
use crate::run::report::{Status, TaskReport};
use crate::source::Snapshot;

/// The stages of a run.
#[derive(Debug, Default)]
pub struct Stages {
    /// What the tasks of each stage gave that is not published yet.
    prepared: BTreeMap<String, Vec<Prepared>>,
    published: BTreeSet<String>,
}

impl Stages {
    /// Takes what a task of `stage` gave.
    pub fn add(&mut self, stage: &str, prepared: Prepared) {
        self.prepared.entry(stage.to_string()).or_default().push(prepared);
    }

    /// What publishes `stage`, all of whose tasks have succeeded, and which was made of `sources`; it gives the tables
    /// that changed.
    pub fn publication(
        &mut self,
        stage: &str,
        context: &Context,
        sources: Vec<Arc<Snapshot>>,
    ) -> impl FnOnce() -> Result<Vec<String>> + Send + use<> {
        let prepared = self.prepared.remove(stage).unwrap_or_default();
        let (cache, in_use, stage) = (Arc::clone(&context.cache), Arc::clone(&context.in_use), stage.to_string());
        let events = context.events.clone();
        move || {
            let is_current = || sources.iter().try_for_each(|source| source.check_now());
            let guard = Guard { is_current: &is_current, events: &events };
            let published = cache.publish_stage(&stage, &prepared, &guard);
            // The run may be gone.
            drop(in_use);
            published
        }
    }

    /// Notes that `stage` was published, and tells of the tables that `changed`.
    pub fn published(&mut self, stage: &str, changed: Vec<String>, events: &EventSink) {
        self.published.insert(stage.to_string());
        changed.into_iter().for_each(|task| events.send(Event::Published { task }));
    }

    /// Says of the tasks that succeeded, but whose stage is not published, that their tables are as before.
    pub fn withhold(&self, pipeline: &Pipeline, reports: &mut BTreeMap<String, TaskReport>, events: &EventSink) {
        for task in pipeline.tasks() {
            let Some(stage) = task.stage.as_ref().filter(|stage| !self.published.contains(*stage)) else { continue };
            let statuses = pipeline.stage(stage).into_iter().filter_map(|task| Some((task, reports.get(task)?.status)));
            let statuses: Vec<_> = statuses.collect();
            let of = |status| statuses.iter().find(|(_, found)| *found == status).map(|(task, _)| *task);
            let why = match (of(Status::Failed), of(Status::Skipped)) {
                (Some(failed), _) => format!("task `{failed}` of stage `{stage}` failed"),
                (None, Some(skipped)) => format!("task `{skipped}` of stage `{stage}` was skipped"),
                (None, None) => "another task failed, which stops the run".to_string(),
            };
            if let Some(report) = reports.get_mut(&task.name)
                && matches!(report.status, Status::Executed | Status::Reused)
            {
                let message = format!("not published: {why}");
                report.status = Status::Withheld;
                report.reason = format!("{}; {message}", report.reason);
                events.send(Event::Withheld { task: task.name.clone(), message });
            }
        }
    }
}
