//! One task: its steps one after the other, the chunks of a step side by side, then its publication.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::future::try_join_all;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cache::split::{SplitId, remove};
use crate::cache::store::ChunkEntry;
use crate::chunk::ChunkFunction;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::execute::write::is_damaged;
use crate::plan::fingerprint::{Components, FUNCTION, input_component};
use crate::plan::resolve::Scan;
use crate::plan::slice::{InputMode, Slice};
use crate::plan::steps::{Part, Step};
use crate::run::chunk::{ChunkJob, unix_ns};
use crate::run::report::{self, InputReport, Status, StepPart, StepReport, TaskReport};
use crate::run::sliced::Sliced;
use crate::run::split::SplitJob;
use crate::run::{Context, Input, Output, PlannedTask};
use crate::table::source::Snapshot;
use crate::task::Task;

/// One task to run, its inputs at hand.
pub struct TaskJob {
    /// What the run works with.
    pub context: Context,
    /// The task.
    pub planned: Arc<PlannedTask>,
    /// The sources and tasks that it reads.
    pub inputs: BTreeMap<String, Input>,
    /// One permit for each chunk that may run.
    pub permits: Arc<Semaphore>,
    /// Whether every chunk runs again.
    pub force: bool,
    /// Whether nothing runs, only the report is made.
    pub is_dry: bool,
}

impl TaskJob {
    /// Runs the task; the report says what was done, also when it failed.
    pub async fn run(mut self) -> (TaskReport, Result<Output>) {
        let start = Instant::now();
        let PlannedTask { task, steps } = self.planned.as_ref();
        let name = task.name.clone();
        let mut report = TaskReport::new(&name, Status::Reused);
        report.keys =
            steps.iter().map(|step| step.proof.keys()).find(|keys| !keys.is_empty()).unwrap_or_default().to_vec();
        report.chunks = steps.iter().map(|step| step.proof.chunks()).sum();
        // What steps hand on to each other is nobody's input.
        report.steps = steps.iter().map(|step| step_report(task, step)).collect();
        let read: BTreeSet<String> = self.inputs.keys().cloned().collect();
        let result = self.run_steps(&mut report).await.map_err(|e| e.with_task(&name));
        let inputs = report.steps.iter().flat_map(|step| &step.inputs);
        report.inputs = inputs.filter(|input| read.contains(&input.table)).cloned().collect();
        report.wall_ms = report::millis(start.elapsed());
        if result.is_ok() && !self.is_dry {
            self.context.events.send(Event::Done {
                task: report.name.clone(),
                executed: report.executed,
                reused: report.reused,
                rows: report.rows,
                bytes: report.bytes,
                wall: start.elapsed(),
                reason: report.reason.clone(),
            });
        }
        (report, result)
    }

    async fn run_steps(&mut self, report: &mut TaskReport) -> Result<Output> {
        let planned = Arc::clone(&self.planned);
        let Context { cache, events, .. } = self.context.clone();
        let task = &planned.task;
        let before = cache.published(&task.name)?;
        let sources: Vec<Arc<Snapshot>> = self.inputs.values().filter_map(Input::source).collect();
        let mut whole = Components::default();
        let mut output = Output::default();
        for number in 0..planned.steps.len() {
            let prefix = if planned.steps.len() == 1 { String::new() } else { format!("{}|", number + 1) };
            let before = before.as_ref().map(|before| before.below(&prefix));
            let components;
            (output, components) = self.run_step(number, before.as_ref(), &sources, report).await?;
            whole.add(&prefix, components);
            self.inputs.insert(planned.steps[number].name.clone(), Input::Output(Arc::new(output.clone())));
        }
        report.rows = output.entries.iter().map(|e| e.rows).sum();
        report.bytes = output.entries.iter().map(|e| e.bytes).sum();
        if self.is_dry {
            return Ok(output);
        }
        for source in &sources {
            source.check_unchanged().await?;
        }
        if cache.publish(&task.name, &output.entries, &whole)? {
            events.send(Event::Published { task: task.name.clone() });
        }
        Ok(output)
    }

    async fn run_step(
        &self,
        number: usize,
        before: Option<&Components>,
        sources: &[Arc<Snapshot>],
        report: &mut TaskReport,
    ) -> Result<(Output, Components)> {
        let task = &self.planned.task;
        let Step { name, resolved, proof, .. } = &self.planned.steps[number];
        let Context { cache, events, .. } = &self.context;
        let identities = self.inputs.iter().map(|(name, input)| (name.clone(), input.identity())).collect();
        let run = format!("{} {}", std::process::id(), unix_ns());
        let components = Components::of(task, resolved, proof, &identities, &run)
            .map_err(|e| Error::new(ErrorKind::Sql, "the query can't be fingerprinted").with_source(e))?;
        let own = self.own(number);
        let fingerprints: Vec<_> = (0..).zip(own).map(|(chunk, own)| components.chunk(chunk, own)).collect();
        let mut entries = if self.force { vec![None; fingerprints.len()] } else { cache.find(&fingerprints)? };
        let mut missing: Vec<u32> =
            (0u32..).zip(&entries).filter(|(_, e)| e.is_none()).map(|(chunk, _)| chunk).collect();
        let reused = proof.chunks() - missing.len() as u32;
        report.reused += reused;
        // The first step that runs has the reason; those after it run because it did.
        if report.status == Status::Reused {
            report.reason = self.reason(before, &components, missing.len());
        }
        events.send(Event::Planned {
            task: task.name.clone(),
            chunks: proof.chunks(),
            reused,
            reason: report.reason.clone(),
        });
        if self.is_dry && !missing.is_empty() {
            report.status = Status::Planned;
            report.executed += missing.len() as u32;
            for chunk in missing {
                let fingerprint = fingerprints[chunk as usize];
                entries[chunk as usize] = Some(Arc::new(ChunkEntry::new(fingerprint, name, chunk, proof)));
            }
        } else if !missing.is_empty() {
            report.status = Status::Executed;
            let (inputs, split_bytes) = self.sliced(number, missing.len() as u32).await?;
            report.split_bytes += split_bytes;
            if let Some(step) = report.steps.get_mut(number) {
                step.inputs.iter_mut().zip(&inputs).for_each(|(input, sliced)| input.mode = sliced.mode());
            }
            // The largest first, so that at the end no processor waits for one of them.
            missing.sort_by_key(|chunk| std::cmp::Reverse(inputs.iter().map(|input| input.rows(*chunk)).sum::<u64>()));
            let splits: Vec<SplitId> = inputs.iter().filter_map(Sliced::split).collect();
            let job = Arc::new(ChunkJob {
                context: self.context.clone(),
                planned: Arc::clone(&self.planned),
                step: number,
                inputs,
                sources: sources.to_vec(),
                components: components.clone(),
                fingerprints: fingerprints.clone(),
                force: self.force,
                spilled_bytes: AtomicU64::new(0),
            });
            let mut running = JoinSet::new();
            for chunk in missing {
                let (job, permits) = (Arc::clone(&job), Arc::clone(&self.permits));
                running.spawn(async move { (chunk, job.run_within(chunk, &permits).await) });
            }
            while let Some(finished) = running.join_next().await {
                let (chunk, result) =
                    finished.map_err(|e| Error::new(ErrorKind::Execute, "a chunk panicked").with_source(e))?;
                if result.as_ref().is_err_and(is_damaged) {
                    splits.iter().for_each(|id| remove(cache.folder(), id));
                }
                entries[chunk as usize] = Some(result.map_err(|e| e.with_chunk(chunk))?);
                report.executed += 1;
            }
            report.spilled_bytes += job.spilled_bytes.load(Ordering::Relaxed);
        }
        let entries: Vec<Arc<ChunkEntry>> = entries.into_iter().flatten().collect();
        Ok((Output { schema: Arc::clone(proof.schema()), entries }, components))
    }

    /// What the chunks of a step, of which `runs` will run, read of each scan, by number, and how; and the bytes of the
    /// splits that were made for it.
    async fn sliced(&self, number: usize, runs: u32) -> Result<(Vec<Sliced>, u64)> {
        let scans = 0..self.planned.steps[number].resolved.scans.len();
        // Side by side: where one has no more work for a processor the next one has.
        let sliced = try_join_all(scans.map(|scan| self.sliced_scan(number, scan, runs))).await?;
        let (sliced, split_bytes): (Vec<_>, Vec<_>) = sliced.into_iter().unzip();
        Ok((sliced, split_bytes.iter().sum()))
    }

    async fn sliced_scan(&self, number: usize, scan: usize, runs: u32) -> Result<(Sliced, u64)> {
        let PlannedTask { task, steps } = self.planned.as_ref();
        let step @ Step { resolved, proof, needs, .. } = &steps[number];
        let Scan { table, schema, .. } = &resolved.scans[scan];
        let (Some(input), Some(slice)) = (self.inputs.get(table), step.slice(scan, runs, task.read_by)) else {
            return Err(Error::new(ErrorKind::Source, format!("input `{table}` is not there")));
        };
        let job = needs.get(scan).map(|need| SplitJob { task: &task.name, proof, scan, input, need });
        let job = job.filter(|_| [InputMode::Rescan, InputMode::Split].contains(&slice.mode()));
        let splits = &self.context.splits;
        let (split, split_bytes) = match &job {
            Some(job) if slice.mode() == InputMode::Split => {
                let (split, bytes) = splits.make(&self.context, job, &self.permits).await?;
                (Some(split), bytes)
            }
            Some(job) if task.read_by.is_none() => (splits.find(&self.context, job)?, 0),
            _ => (None, 0),
        };
        let sliced = match &split {
            Some(split) => Sliced::of_split(split, schema, proof.chunks())?,
            None => Sliced::new(input, &slice, proof.chunks(), &self.context.cache)?,
        };
        Ok((sliced, split_bytes))
    }

    /// What each chunk of a step is made of that others are not: its range, and of sources that it reads by row group the
    /// files that it opens.
    fn own(&self, step: usize) -> Vec<Components> {
        let Step { resolved, proof, .. } = &self.planned.steps[step];
        let mut own = vec![Components::default(); proof.chunks() as usize];
        let ChunkFunction::Range(bounds) = proof.function() else { return own };
        for (chunk, own) in (0u32..).zip(&mut own) {
            own.0.insert(FUNCTION.into(), format!("{:?} {}", bounds.range(chunk), bounds.data_type()));
        }
        let mut whole: BTreeSet<&str> = BTreeSet::new();
        let mut opened: BTreeMap<&str, Vec<BTreeSet<usize>>> = BTreeMap::new();
        for (number, scan) in resolved.scans.iter().enumerate() {
            let slice = Slice::of(proof, number, scan);
            if slice.mode() != InputMode::Range {
                whole.insert(&scan.table);
                continue;
            }
            let files = opened.entry(&scan.table).or_insert_with(|| vec![BTreeSet::new(); own.len()]);
            for (chunk, files) in (0u32..).zip(files) {
                files.extend(slice.row_groups(chunk).into_iter().map(|group| group.file));
            }
        }
        for (table, opened) in opened.into_iter().filter(|(table, _)| !whole.contains(table)) {
            let Some(source) = self.inputs.get(table).and_then(Input::source) else { continue };
            for (own, files) in own.iter_mut().zip(opened) {
                own.0.insert(input_component(table), source.identity_of(&files).to_string());
            }
        }
        own
    }

    /// Why chunks run, or why none has to.
    fn reason(&self, before: Option<&Components>, components: &Components, missing: usize) -> String {
        if missing == 0 {
            return "nothing changed".into();
        }
        if self.force {
            return "forced".into();
        }
        let Some(before) = before else { return "not published yet".into() };
        match components.changed_since(before).as_slice() {
            [] if missing == 1 => "a chunk file is missing".into(),
            [] => format!("{missing} chunk files are missing"),
            changed => format!("changed: {}", changed.join(", ")),
        }
    }
}

fn step_report(task: &Task, step: &Step) -> StepReport {
    let part = match step.part {
        Part::Phase => StepPart::Phase,
        Part::First => StepPart::First,
        Part::Below => StepPart::Below,
        Part::Rest => StepPart::Rest,
    };
    let chunks = step.proof.chunks();
    let input = |(number, scan): (usize, &Scan)| {
        let mode = step.slice(number, chunks, task.read_by).map_or(InputMode::Replicate, |slice| slice.mode());
        InputReport { table: scan.table.clone(), mode }
    };
    let inputs = step.resolved.scans.iter().enumerate().map(input).collect();
    StepReport { name: step.name.clone(), part, keys: step.proof.keys().to_vec(), chunks, inputs }
}
