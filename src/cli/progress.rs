//! How a run looks: bars on a terminal, plain lines elsewhere; what went wrong on stderr.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, MultiProgress, ProgressBar, ProgressStyle};

use crate::cli::{complain, say};
use crate::event::Event;
use crate::pipeline::Pipeline;
use crate::run::report::{RunReport, Status, TaskReport};
use crate::shown::on_one_line;

/// Shows a run's events. Clones show to the same place.
#[derive(Debug, Clone)]
pub struct Progress {
    bars: MultiProgress,
    running: Arc<Mutex<BTreeMap<String, ProgressBar>>>,
    width: usize,
    is_terminal: bool,
    verbose: bool,
}

impl Progress {
    /// Shows the tasks of `pipeline`.
    /// `verbose` shows what is left out of sources, too.
    pub fn start(pipeline: &Pipeline, verbose: bool) -> Self {
        let width = pipeline.tasks().map(|task| task.name.chars().count()).max().unwrap_or(0);
        Self {
            bars: MultiProgress::new(),
            running: Arc::default(),
            width,
            is_terminal: std::io::stderr().is_terminal(),
            verbose,
        }
    }

    /// Shows one event.
    pub fn show(&self, event: &Event) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let width = self.width;
        match event {
            Event::Warning { message } => self.problem(&format!("warning: {message}")),
            Event::Waiting { what, process: Some(process) } if *process != std::process::id() => {
                self.problem(&format!("waiting for process {process}, which has {what}"));
            }
            // Processes in containers have the same numbers.
            Event::Waiting { what, process: _ } => {
                self.problem(&format!("waiting for another task or process, which has {what}"));
            }
            Event::LeftOut { source, note } if self.verbose => self.problem(&format!("source `{source}`: {note}")),
            Event::Planned { task, chunks, reused, reason: _ } if self.is_terminal && reused < chunks => {
                let bar = self.bars.add(ProgressBar::new((*chunks).into()));
                let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} chunks, {elapsed}");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_prefix(format!("{task:width$}"));
                bar.set_position((*reused).into());
                running.insert(task.clone(), bar);
            }
            Event::ChunkDone { task, .. } => {
                if let Some(bar) = running.get(task) {
                    bar.inc(1);
                }
            }
            Event::Done { task, executed, reused, rows, bytes, wall, reason } => {
                self.clear(running.remove(task));
                let what = if *executed == 0 { "reused" } else { "executed" };
                let chunks = match (executed, reused) {
                    (0, reused) => chunks_of(*reused),
                    (executed, 0) => chunks_of(*executed),
                    (executed, reused) => format!("{executed} of {} chunks", executed + reused),
                };
                let (rows, bytes, seconds) = (HumanCount(*rows), HumanBytes(*bytes), seconds(*wall));
                self.line(&format!("{task:width$}  {what:8}  {chunks}, {rows} rows, {bytes}, {seconds}; {reason}"));
            }
            Event::Failed { task, message } => {
                self.clear(running.remove(task));
                self.problem(&format!("{task:width$}  failed    {message}"));
            }
            Event::Withheld { task, message } => self.problem(&format!("{task:width$}  withheld  {message}")),
            Event::Skipped { task, message } => self.problem(&format!("{task:width$}  skipped   {message}")),
            Event::Evicted { removed, bytes } => {
                self.line(&format!("cache: {} files removed, {}", HumanCount(*removed), HumanBytes(*bytes)));
            }
            Event::LeftOut { .. }
            | Event::Planned { .. }
            | Event::Reused { .. }
            | Event::ChunkStarted { .. }
            | Event::Checked { .. }
            | Event::Split { .. }
            | Event::ShortOfMemory { .. }
            | Event::Published { .. } => {}
        }
    }

    /// Takes the bars away and sums up.
    pub fn finish(&self, report: Option<&RunReport>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *running).into_values().for_each(|bar| self.clear(Some(bar)));
        let Some(report) = report else { return };
        let width = self.width;
        for TaskReport { name, status, executed, chunks, reason, .. } in &report.tasks {
            if *status == Status::Planned {
                self.line(&format!("{name:width$}  would run {executed} of {}; {reason}", chunks_of(*chunks)));
            }
        }
        if report.tasks.iter().any(|task| task.status == Status::Planned) {
            let reused = report.tasks.iter().filter(|task| task.status == Status::Reused).count();
            self.line(&format!("nothing was run; {reused} of {} tasks would be reused", report.tasks.len()));
            return;
        }
        let count = |status| report.tasks.iter().filter(|task| task.status == status).count();
        let memory =
            report.peak_rss_bytes.map_or(String::new(), |bytes| format!(", peak memory {}", HumanBytes(bytes)));
        let withheld = match count(Status::Withheld) {
            0 => String::new(),
            withheld => format!("{withheld} withheld, "),
        };
        self.line(&format!(
            "{} executed, {} reused, {withheld}{} failed, {} skipped in {}{memory}",
            count(Status::Executed),
            count(Status::Reused),
            count(Status::Failed),
            count(Status::Skipped),
            seconds(Duration::from_millis(report.wall_ms)),
        ));
    }

    /// A line above the bars.
    fn line(&self, text: &str) {
        self.bars.suspend(|| say(on_one_line(text)));
    }

    /// A line above the bars about something that went wrong.
    fn problem(&self, text: &str) {
        self.bars.suspend(|| complain(on_one_line(text)));
    }

    fn clear(&self, bar: Option<ProgressBar>) {
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn chunks_of(number: u32) -> String {
    if number == 1 { "1 chunk".into() } else { format!("{number} chunks") }
}
