//! One task: its steps one after the other, the chunks of a step side by side, then its publication, or what its stage
//! needs for that.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::FutureExt;
use futures::future::{join_all, try_join_all};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{Instrument, debug, info_span};

use crate::cache::Prepared;
use crate::cache::publish::Guard;
use crate::cache::split::{SplitId, remove};
use crate::cache::store::ChunkEntry;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::execute::content::Content;
use crate::execute::write::{is_damaged, is_undecodable};
use crate::hook::{Chunks, FinishedTable, HookContext};
use crate::plan::components::{Components, input_component};
use crate::plan::fingerprint::Fingerprint;
use crate::plan::resolve::Scan;
use crate::plan::slice::InputMode;
use crate::plan::steps::{Part, Step};
use crate::run::chunk::{ChunkJob, chunk_file, unix_ns};
use crate::run::planned::PlannedTask;
use crate::run::report::{self, InputReport, Status, StepPart, StepReport, TaskReport};
use crate::run::sliced::Sliced;
use crate::run::{Context, FreshInput, Input, Output};
use crate::source::Snapshot;
use crate::table::output::of_chunks;
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
    /// What sources that changed mean.
    pub fresh_input: FreshInput,
    /// Share of the chunks in the cache that are computed again, in percent.
    pub audit_percent: f64,
    /// Whether nothing runs, only the report is made.
    pub is_dry: bool,
}

impl TaskJob {
    /// Runs the task; the report says what was done, also when it failed. With the output of a task of a stage comes what is to
    /// be published.
    pub async fn run(mut self) -> (TaskReport, Result<(Output, Option<Prepared>)>) {
        let start = Instant::now();
        let PlannedTask { task, steps } = self.planned.as_ref();
        let (name, location) = (task.name.clone(), task.location.clone());
        let mut report = TaskReport::new(&name, Status::Reused);
        report.keys =
            steps.iter().map(|step| step.proof.keys()).find(|keys| !keys.is_empty()).unwrap_or_default().to_vec();
        report.chunks = steps.iter().map(|step| step.proof.chunks()).sum();
        report.assumed = steps.iter().find_map(|step| step.proof.assumed()).map(str::to_string);
        // What steps hand on to each other is nobody's input.
        report.steps = steps.iter().map(|step| step_report(task, step)).collect();
        let read: BTreeSet<String> = self.inputs.keys().cloned().collect();
        let result = self.run_steps(&mut report).await;
        let result = match result {
            Err(error) if is_undecodable(&error) => Err(self.damaged(error).await),
            result => result,
        };
        let result = result.map_err(|e| match e.kind() {
            ErrorKind::Execute => e.with_task(&name).with_location(location),
            _ => e.with_task(&name),
        });
        let inputs = report.steps.iter().flat_map(|step| &step.inputs);
        report.inputs = inputs.filter(|input| read.contains(&input.table)).cloned().collect();
        report.wall_ms = report::millis(start.elapsed());
        if report.audited > 0 {
            report.reason += &format!("; {} computed again and found equal", report.audited);
        }
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

    /// The error of the source whose file can't be decoded, or `error` where all can.
    async fn damaged(&self, error: Error) -> Error {
        for source in self.inputs.values().filter_map(Input::source) {
            if let Err(damaged) = source.check_decodes().await {
                return damaged;
            }
        }
        error
    }

    async fn run_steps(&mut self, report: &mut TaskReport) -> Result<(Output, Option<Prepared>)> {
        let planned = Arc::clone(&self.planned);
        let Context { cache, events, .. } = self.context.clone();
        let task = &planned.task;
        let before = cache.published(&task.name)?;
        if let (FreshInput::Ignore, false, Some(before)) = (self.fresh_input, self.force, &before)
            && let Some((output, prepared)) = self.as_published(before).ok().flatten()
        {
            report.reason = "nothing else changed than sources, which are taken for unchanged".into();
            report.reused = output.entries.len() as u32;
            report.rows = output.entries.iter().map(|e| e.rows).sum();
            report.bytes = output.entries.iter().map(|e| e.bytes).sum();
            if task.stage.is_some() {
                return Ok((output, Some(prepared)));
            }
            // It may have left a stage.
            let unread = Guard { is_current: &|| Ok(()), events: &events };
            if !self.is_dry && cache.publish(&prepared, &unread)? {
                events.send(Event::Published { task: task.name.clone() });
            }
            return Ok((output, None));
        }
        let sources: Vec<Arc<Snapshot>> = self.inputs.values().filter_map(Input::source).collect();
        for served in self.inputs.values().filter_map(Input::served) {
            served.ask_version().await?;
        }
        self.check_predicates().await?;
        let last = planned.steps.last().map(|step| &step.proof);
        let (keys, chunks) = last.map_or((&[][..], 1), |proof| (proof.keys(), proof.chunks()));
        let hook_context = HookContext::new(task, keys, chunks, cache.new_temp_path("hook"));
        let mut whole = Components::default();
        let mut output = Output::default();
        let mut before_last: Vec<Fingerprint> = Vec::new();
        let mut left: Vec<usize> = (0..planned.steps.len()).collect();
        let mut done: BTreeMap<usize, (Output, Components)> = BTreeMap::new();
        while !left.is_empty() {
            let is_left = |table: &String| left.iter().any(|other| planned.steps[*other].name == *table);
            let waits = |number: &usize| planned.steps[*number].resolved.scans.iter().any(|scan| is_left(&scan.table));
            let (later, ready): (Vec<usize>, Vec<usize>) = left.iter().copied().partition(waits);
            let run = ready.iter().map(|number| {
                let before = before.as_ref().map(|before| before.below(&prefix(planned.steps.len(), *number)));
                let mut own = TaskReport { steps: report.steps.clone(), ..TaskReport::new(&task.name, Status::Reused) };
                let (this, sources, context) = (&*self, &sources, &hook_context);
                async move {
                    let ran = this.run_step(*number, before.as_ref(), sources, context, &mut own).await;
                    (*number, own, ran)
                }
            });
            // Those that don't wait for each other side by side; what one of them has committed stays if another fails.
            for (number, own, ran) in join_all(run).await {
                report.add_step(number, own);
                done.insert(number, ran?);
            }
            let outputs = ready.iter().filter_map(|number| Some((*number, Arc::new(done.get(number)?.0.clone()))));
            let outputs = outputs.map(|(number, output)| (planned.steps[number].name.clone(), Input::Output(output)));
            self.inputs.extend(outputs);
            left = later;
        }
        for (number, (of_step, components)) in done {
            before_last.extend(output.entries.iter().map(|entry| entry.fingerprint));
            whole.add(&prefix(planned.steps.len(), number), components);
            output = of_step;
        }
        report.rows = output.entries.iter().map(|e| e.rows).sum();
        report.bytes = output.entries.iter().map(|e| e.bytes).sum();
        if self.is_dry {
            return Ok((output, None));
        }
        // What others have made since counts like what ran here: nobody else has asked these hooks.
        let is_current = cache.is_published(&task.name, &output.entries)? && before.as_ref() == Some(&whole);
        if report.executed > 0 || !is_current {
            self.finish(&output, &hook_context).await?;
        }
        for source in &sources {
            source.check_unchanged().await?;
        }
        for served in self.inputs.values().filter_map(Input::served) {
            served.check_begun().await?;
        }
        let prepared = cache.prepare(&task.name, &output.entries, &before_last, &whole)?;
        if task.stage.is_some() {
            return Ok((output, Some(prepared)));
        }
        let is_current = || sources.iter().try_for_each(|source| source.check_now());
        if cache.publish(&prepared, &Guard { is_current: &is_current, events: &events })? {
            events.send(Event::Published { task: task.name.clone() });
        }
        Ok((output, None))
    }

    async fn run_step(
        &self,
        number: usize,
        before: Option<&Components>,
        sources: &[Arc<Snapshot>],
        hook_context: &HookContext,
        report: &mut TaskReport,
    ) -> Result<(Output, Components)> {
        let task = &self.planned.task;
        let step @ Step { name, proof, .. } = &self.planned.steps[number];
        let Context { cache, events, .. } = &self.context;
        let identities = self.inputs.iter().map(|(name, input)| (name.clone(), input.identity())).collect();
        let components = components(task, step, &identities)?;
        let (own, split_bytes) = self.own(number).await?;
        report.split_bytes += split_bytes;
        let fingerprints: Vec<_> = (0..).zip(own).map(|(chunk, own)| components.chunk(chunk, own)).collect();
        let mut entries = if self.force { vec![None; fingerprints.len()] } else { cache.find(&fingerprints)? };
        let mut missing: Vec<u32> =
            (0u32..).zip(&entries).filter(|(_, e)| e.is_none()).map(|(chunk, _)| chunk).collect();
        let reused = proof.chunks() - missing.len() as u32;
        report.reused += reused;
        // The first step that runs has the reason; those after it run because it did.
        if report.status == Status::Reused {
            report.reason = self.reason(before, &components, missing.len(), proof.chunks());
        }
        if let (FreshInput::Fail, Some(before), true) = (self.fresh_input, before, !missing.is_empty()) {
            self.check_no_fresh_input(before, &components, missing.len())?;
        }
        events.send(Event::Planned {
            task: task.name.clone(),
            chunks: proof.chunks(),
            reused,
            reason: report.reason.clone(),
        });
        if reused > 0 {
            events.send(Event::Reused { task: task.name.clone(), chunks: reused });
        }
        if self.is_dry && !missing.is_empty() {
            report.status = Status::Planned;
            report.executed += missing.len() as u32;
            for chunk in missing {
                let fingerprint = fingerprints[chunk as usize];
                // Unlike anything that is there, so that who reads it runs, too.
                let content = Content::placeholder(fingerprint.as_bytes());
                let entry = ChunkEntry { content, ..ChunkEntry::new(fingerprint, name, chunk, proof) };
                entries[chunk as usize] = Some(Arc::new(entry));
            }
            return Ok((
                Output { schema: Arc::clone(proof.schema()), entries: entries.into_iter().flatten().collect() },
                components,
            ));
        }
        let hits: Vec<Arc<ChunkEntry>> = entries.iter().flatten().cloned().collect();
        let audited: Vec<Arc<ChunkEntry>> =
            hits.into_iter().filter(|_| !self.is_dry && is_drawn(self.audit_percent)).collect();
        let runs = missing.len() + audited.len();
        if runs > 0 {
            if let Some(needed) = self.context.budget.lacks(step.reading_bytes()) {
                let message = format!(
                    "`{name}` reads row groups of Parquet files of which it has {} MiB in memory before rows come of them, \
                     and so takes more than its --memory; use --memory {}MiB, or write the files with smaller row groups",
                    step.reading_bytes() >> 20,
                    needed.div_ceil(1 << 20),
                );
                events.send(Event::Warning { message });
            }
            if !missing.is_empty() {
                report.status = Status::Executed;
            }
            let passes = step.passes(&missing).len();
            let reads = if passes > 0 { passes + audited.len() } else { runs };
            let (inputs, split_bytes) = self.sliced(number, reads as u32).await?;
            report.split_bytes += split_bytes;
            if let Some(step) = report.steps.get_mut(number) {
                step.inputs.iter_mut().zip(&inputs).for_each(|(input, sliced)| input.mode = sliced.mode());
            }
            // The largest first, so that at the end no processor waits for one of them.
            missing.sort_by_key(|chunk| std::cmp::Reverse(inputs.iter().map(|input| input.rows(*chunk)).sum::<u64>()));
            let splits: Vec<SplitId> = inputs.iter().flat_map(Sliced::splits).copied().collect();
            let job = Arc::new(ChunkJob {
                context: self.context.clone(),
                planned: Arc::clone(&self.planned),
                step: number,
                inputs,
                sources: sources.to_vec(),
                served: self.inputs.values().filter_map(Input::served).collect(),
                components: components.clone(),
                fingerprints: fingerprints.clone(),
                force: self.force,
                hook_context: hook_context.clone(),
                spilled_bytes: AtomicU64::new(0),
                scanned_bytes: AtomicU64::new(0),
            });
            let mut auditing = JoinSet::new();
            for entry in audited {
                let (job, permits) = (Arc::clone(&job), Arc::clone(&self.permits));
                auditing.spawn(async move {
                    let chunk = entry.chunk;
                    job.audit(&entry, &permits).await.map_err(|e| e.with_chunk(chunk))
                });
            }
            let ran = if missing.is_empty() { Vec::new() } else { self.invoke(&job, missing, &splits).await? };
            for (chunk, entry, is_own) in ran {
                entries[chunk as usize] = Some(entry);
                *(if is_own { &mut report.executed } else { &mut report.reused }) += 1;
            }
            while let Some(finished) = auditing.join_next().await {
                let audited =
                    finished.map_err(|e| Error::new(ErrorKind::Execute, "an audit panicked").with_source(e))?;
                if audited.as_ref().is_err_and(is_damaged) {
                    splits.iter().for_each(|id| remove(cache.folder(), id));
                }
                audited?;
                report.audited += 1;
            }
            report.spilled_bytes += job.spilled_bytes.load(Ordering::Relaxed);
            report.scanned_bytes += job.scanned_bytes.load(Ordering::Relaxed);
        }
        let entries: Vec<Arc<ChunkEntry>> = entries.into_iter().flatten().collect();
        Ok((Output { schema: Arc::clone(proof.schema()), entries }, components))
    }

    /// Runs the chunks `missing` of a step as the task's hook says; gives the entry of each, and whether it ran here.
    async fn invoke(
        &self,
        job: &Arc<ChunkJob>,
        missing: Vec<u32>,
        splits: &[SplitId],
    ) -> Result<Vec<(u32, Arc<ChunkEntry>, bool)>> {
        let ran = Arc::new(Mutex::new(Vec::new()));
        let run = {
            let (job, permits, ran) = (Arc::clone(job), Arc::clone(&self.permits), Arc::clone(&ran));
            let (folder, splits) = (self.context.cache.folder().to_path_buf(), splits.to_vec());
            move |chunk: u32| {
                let (job, permits, ran) = (Arc::clone(&job), Arc::clone(&permits), Arc::clone(&ran));
                let (folder, splits) = (folder.clone(), splits.clone());
                let span = info_span!("chunk", chunk);
                let run = async move {
                    let result = job.run_within(chunk, &permits).await;
                    if result.as_ref().is_err_and(is_damaged) {
                        splits.iter().for_each(|id| remove(&folder, id));
                    }
                    let (entry, is_own) = result.map_err(|e| e.with_chunk(chunk))?;
                    ran.lock().unwrap_or_else(PoisonError::into_inner).push((chunk, entry, is_own));
                    Ok(())
                };
                run.instrument(span).boxed()
            }
        };
        let run_together = {
            let (job, permits, ran) = (Arc::clone(job), Arc::clone(&self.permits), Arc::clone(&ran));
            move |chunks: Vec<u32>| {
                let (job, permits, ran) = (Arc::clone(&job), Arc::clone(&permits), Arc::clone(&ran));
                let span = info_span!("pass", chunks = chunks.len());
                let run = async move {
                    let made = job.run_pass(&chunks, &permits).await.unwrap_or_else(|error| {
                        debug!(%error, "the chunks of a pass run one by one");
                        Vec::new()
                    });
                    let chunks = made.iter().map(|(chunk, ..)| *chunk).collect();
                    ran.lock().unwrap_or_else(PoisonError::into_inner).extend(made);
                    chunks
                };
                run.instrument(span).boxed()
            }
        };
        let passes = job.passes(&missing)?;
        let chunks = Chunks::new(missing, job.fingerprints.len() as u32, Arc::new(run));
        let chunks = chunks.with_passes(passes, Arc::new(run_together));
        match &self.planned.task.invocation {
            Some(hook) => hook.run(&chunks, &job.hook_context).await?,
            None => chunks.run_all().await?,
        }
        if let Some(left) = chunks.left().first() {
            let message = format!("the invocation hook did not run chunk {left} of those that have to run");
            return Err(Error::new(ErrorKind::Usage, message));
        }
        let ran = std::mem::take(&mut *ran.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(ran)
    }

    /// Lets the task's hooks see the whole, before it is published.
    async fn finish(&self, output: &Output, context: &HookContext) -> Result<()> {
        let task = &self.planned.task;
        if task.invocation.is_none() && task.materialization.is_empty() {
            return Ok(());
        }
        let cache = &self.context.cache;
        cache.check(&output.entries)?;
        let files = output.entries.iter().map(|entry| chunk_file(entry, cache.folder())).collect();
        let table = Arc::new(of_chunks(cache.folder(), &output.entries, Arc::clone(&output.schema))?);
        let finished = FinishedTable { files, table };
        if let Some(hook) = &task.invocation {
            hook.finish(&finished, context).await?;
        }
        for hook in &task.materialization {
            hook.finish(&finished, context).await?;
        }
        Ok(())
    }

    /// What the chunks of a step, for which inputs are read `runs` times, read of each scan, by number, and how; and
    /// the bytes of the splits that were made for it.
    async fn sliced(&self, number: usize, runs: u32) -> Result<(Vec<Sliced>, u64)> {
        let scans = 0..self.planned.steps[number].resolved.scans.len();
        // Side by side: where one has no more work for a processor the next one has.
        let sliced = try_join_all(scans.map(|scan| self.sliced_scan(number, scan, runs))).await?;
        let (sliced, split_bytes): (Vec<_>, Vec<_>) = sliced.into_iter().unzip();
        Ok((sliced, split_bytes.iter().sum()))
    }

    async fn sliced_scan(&self, number: usize, scan: usize, runs: u32) -> Result<(Sliced, u64)> {
        let PlannedTask { task, steps } = self.planned.as_ref();
        let step @ Step { resolved, proof, .. } = &steps[number];
        let Scan { table, schema, .. } = &resolved.scans[scan];
        let (Some(input), Some(slice)) = (self.inputs.get(table), step.slice(scan, runs, task.read_by)) else {
            return Err(Error::new(ErrorKind::Source, format!("input `{table}` is not there")));
        };
        let job = self.split_job(number, scan, input).filter(|_| slice.mode().is_cut());
        let splits = &self.context.splits;
        let (split, split_bytes) = match &job {
            Some(job) if slice.mode() == InputMode::Split => {
                let (split, bytes) = splits.make(job).await?;
                (Some(split), bytes)
            }
            Some(job) if task.read_by.is_none() => (splits.find(job)?, 0),
            _ => (None, 0),
        };
        let sliced = match &split {
            Some(split) => Sliced::of_split(split, schema, proof.chunks())?,
            None => Sliced::new(input, &slice, proof, scan, &self.context.cache)?,
        };
        Ok((sliced.needed(step.needs.get(scan)), split_bytes))
    }

    /// The published table, if nothing but sources changed since and all its chunks are there.
    fn as_published(&self, before: &Components) -> Result<Option<(Output, Prepared)>> {
        let PlannedTask { task, steps } = self.planned.as_ref();
        let is_task = |table: &str| matches!(self.inputs.get(table), Some(Input::Output(_)));
        let mut now = Components::default();
        let mut passed_over: BTreeSet<String> = BTreeSet::new();
        for (number, step) in steps.iter().enumerate() {
            let prefix = prefix(steps.len(), number);
            let tables = step.resolved.scans.iter().map(|scan| scan.table.as_str());
            let sources = tables.clone().filter(|table| !is_task(table)).map(input_component);
            passed_over.extend(sources.map(|name| format!("{prefix}{name}")));
            let none = Fingerprint::from_bytes([0; 32]);
            let identity = |table: &str| match self.inputs.get(table) {
                Some(Input::Output(output)) => output.identity(),
                _ => none,
            };
            let identities = tables.map(|table| (table.to_string(), identity(table))).collect();
            now.add(&prefix, components(task, step, &identities)?);
        }
        if now.changed_since(before).iter().any(|name| !passed_over.contains(name)) {
            return Ok(None);
        }
        let published = self.context.cache.published_chunks(&task.name)?;
        let schema = steps.last().map(|step| Arc::clone(step.proof.schema()));
        Ok(published.zip(schema).map(|((prepared, entries), schema)| (Output { schema, entries }, prepared)))
    }

    /// Chunks would run: that no source is the reason.
    fn check_no_fresh_input(&self, before: &Components, components: &Components, missing: usize) -> Result<()> {
        let changed = components.changed_since(before);
        let is_source = |(_, input): &(&String, &Input)| !matches!(input, Input::Output(_));
        let sources = self.inputs.iter().filter(is_source).map(|(table, _)| table);
        let fresh: Vec<_> = sources.filter(|table| changed.contains(&input_component(table))).cloned().collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let message = format!(
            "input changed since the table was published, and {missing} chunks would have to run: {}; run without \
             --assert-no-fresh-input to let them",
            fresh.join(", ")
        );
        Err(Error::new(ErrorKind::Source, message))
    }

    /// Why chunks run, or why none has to.
    fn reason(&self, before: Option<&Components>, components: &Components, missing: usize, chunks: u32) -> String {
        if missing == 0 {
            return "nothing changed".into();
        }
        if self.force {
            return "forced".into();
        }
        let Some(before) = before else { return "not published yet".into() };
        let changed = components.changed_since(before);
        let told: Vec<_> = changed.iter().map(|name| components.change(before, name)).collect();
        let told = told.join(", ");
        match changed.as_slice() {
            [] if missing == 1 => "a chunk file is missing".into(),
            [] => format!("{missing} chunk files are missing"),
            _ if missing < chunks as usize => format!("changed: {told}; {missing} of {chunks} chunks differ"),
            _ => format!("changed: {told}"),
        }
    }
}

/// What stands before the names of a step's components.
fn prefix(steps: usize, number: usize) -> String {
    if steps == 1 { String::new() } else { format!("{}|", number + 1) }
}

fn components(task: &Task, step: &Step, identities: &BTreeMap<String, Fingerprint>) -> Result<Components> {
    let run = format!("{} {}", std::process::id(), unix_ns());
    let is_last = step.name == task.name;
    Components::of(task, &step.resolved, &step.proof, identities, &run, is_last)
        .map_err(|e| Error::new(ErrorKind::Sql, "the query can't be fingerprinted").with_source(e))
}

/// Whether chance says so.
fn is_drawn(percent: f64) -> bool {
    // Seeded by the system, each for itself.
    let number = RandomState::new().hash_one(0);
    percent > 0.0 && (number as f64 / u64::MAX as f64) * 100.0 < percent
}

fn step_report(task: &Task, step: &Step) -> StepReport {
    let part = match step.part {
        Part::Phase => StepPart::Phase,
        Part::First => StepPart::First,
        Part::Repeated => StepPart::Repeated,
        Part::Below => StepPart::Below,
        Part::Materialized => StepPart::Materialized,
        Part::Rest => StepPart::Rest,
    };
    let chunks = step.proof.chunks();
    let input = |(number, scan): (usize, &Scan)| {
        let mode = step.slice(number, step.reads(), task.read_by).map_or(InputMode::Replicate, |slice| slice.mode());
        InputReport { table: scan.table.clone(), mode }
    };
    let inputs = step.resolved.scans.iter().enumerate().map(input).collect();
    StepReport { name: step.name.clone(), part, keys: step.proof.keys().to_vec(), chunks, inputs }
}
