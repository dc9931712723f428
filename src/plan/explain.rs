//! A proof, and one chunk's plan, in words.

use std::fmt::Write;

use datafusion::logical_expr::{Distinct, LogicalPlan};

use crate::chunk::{ChunkBy, ChunkFunction, LEAST_CUT_BYTES};
use crate::plan::prove::proof::Role;
use crate::plan::prove::{Considered, Verdict};
use crate::plan::slice::InputMode;
use crate::plan::steps::size::Fit;
use crate::plan::steps::{Part, Step};
use crate::task::Task;

/// How a step of `task` is run: its cut, what each input gives to a chunk and why, what was found at each node, and
/// `plan`, the optimised plan of chunk 0. `together` are the tasks of its stage.
pub fn explain(task: &Task, together: &[&str], step: &Step, plan: &LogicalPlan) -> String {
    let proof = &step.proof;
    let mut text = match step.name == task.name {
        true => format!("task `{}` ({})\n", task.name, task.location),
        false => {
            format!("step `{}` of task `{}` ({}), stored but not published\n", step.name, task.name, task.location)
        }
    };
    let out = &mut text;
    // Writing to a String can't fail.
    if let Some(stage) = task.stage.as_ref().filter(|_| step.name == task.name) {
        let others: Vec<_> = together.iter().copied().filter(|other| *other != task.name).collect();
        let _ = match others.is_empty() {
            true => writeln!(out, "  stage {stage}: has no other task"),
            false => writeln!(out, "  stage {stage}: published together with {}", others.join(", ")),
        };
    }
    let _ = match step.part {
        Part::Phase => writeln!(out, "  every chunk does its part of an operator that is done in two phases"),
        Part::First => writeln!(out, "  a part of the query that runs first; the next steps read its rows"),
        Part::Repeated => writeln!(out, "  a part that the query reads more than once; the next steps read its rows"),
        Part::Below => writeln!(out, "  the input of an operator that can't be cut; the next step reads its rows"),
        Part::Materialized => writeln!(out, "  stored by the task's function; the next steps read its rows"),
        Part::Rest if step.name == task.name && reads_steps(task, step) => {
            writeln!(out, "  the rest of the query, over what the steps before gave")
        }
        Part::Rest => Ok(()),
    };
    let _ = match proof.keys() {
        [] if matches!(proof.function(), ChunkFunction::Branches(_)) => {
            writeln!(out, "  {} chunks, each with a query of its own", proof.chunks())
        }
        [] if task.chunking.is_none() => {
            let bytes: u64 = step.resolved.scans.iter().map(|scan| scan.bytes).sum();
            let why = match bytes < LEAST_CUT_BYTES {
                true => format!(": its inputs have less than {} MiB", LEAST_CUT_BYTES >> 20),
                false if step.holds_little => {
                    ": it holds little of its inputs at a time, so that to cut it would save nothing".into()
                }
                false => String::new(),
            };
            writeln!(out, "  runs whole, as one chunk{why}")
        }
        [] => writeln!(out, "  runs whole, as one chunk"),
        _ if matches!(proof.function(), ChunkFunction::PerInput(_)) => writeln!(
            out,
            "  {} chunks by predicates of each input; that one of them holds for each row is checked before a chunk runs",
            proof.chunks()
        ),
        keys => {
            let is_found = task.chunking.as_ref().is_none_or(|c| c.keys.is_empty())
                || matches!(step.part, Part::First | Part::Repeated);
            let found = if is_found { ", found by the engine" } else { "" };
            let function = match proof.function() {
                ChunkFunction::Hash(_) => "hash",
                ChunkFunction::Range(_) => "range",
                ChunkFunction::Cases(_) => "given cases",
                ChunkFunction::Branches(_) => "queries",
                ChunkFunction::PerInput(_) => "predicates",
            };
            let asked = task.chunking.as_ref().is_some_and(|chunking| chunking.by == ChunkBy::Range);
            let why = match proof.function() {
                ChunkFunction::Hash(_) if asked => {
                    "; not by range, since no statistics of its inputs give bounds: sort a Parquet source by the key"
                }
                _ => "",
            };
            let passes = match (step.pass.is_some(), step.reads()) {
                (false, _) => String::new(),
                (true, 1) => ", computed in one pass".into(),
                (true, passes) => format!(", computed in {passes} passes"),
            };
            writeln!(out, "  {} chunks by {function} of ({}){found}{passes}{why}", proof.chunks(), keys.join(", "))
        }
    };
    explain_whole(out, step);
    explain_considered(out, step);
    let width = proof.inputs().iter().map(|i| i.table.len()).max().unwrap_or(0);
    for (number, input) in proof.inputs().iter().enumerate() {
        let table = &input.table;
        let slice = step.slice(number, step.reads(), task.read_by);
        let need = step.needs.get(number).map_or(0, |need| need.bytes) as f64 / f64::from(1 << 20);
        let _ = match (&input.role, slice) {
            (Role::Partitioned { keys: _, names }, Some(slice)) if slice.mode() == InputMode::Reuse => {
                let chunks = 0..proof.chunks();
                let opened =
                    chunks.clone().filter_map(|chunk| slice.stored(chunk)).map(|(opened, of)| (opened.len(), of));
                let (opened, stored) = opened.max().unwrap_or_default();
                let rest =
                    if chunks.into_iter().all(|chunk| slice.is_exact(chunk)) { "" } else { " and keeps its rows" };
                let by = names.join(", ");
                writeln!(
                    out,
                    "  {table:width$}  reuse: stored by ({by}), a chunk opens {opened} of {stored} files{rest}"
                )
            }
            (Role::Partitioned { keys: _, names }, Some(slice)) if slice.mode() == InputMode::Range => {
                let times = slice.opened_bytes() as f64 / slice.bytes().max(1) as f64;
                let by = names.join(", ");
                writeln!(
                    out,
                    "  {table:width$}  range: clustered by ({by}), all chunks together read it {times:.2} times"
                )
            }
            (Role::Partitioned { keys: _, names }, Some(slice)) if slice.mode() == InputMode::Split => {
                let by = names.join(", ");
                writeln!(
                    out,
                    "  {table:width$}  split: one pass over {need:.1} MiB cuts it by ({by}), each chunk reads its part"
                )
            }
            (Role::Partitioned { keys: _, names }, Some(slice)) if slice.mode() == InputMode::Serve => {
                let by = names.join(", ");
                writeln!(out, "  {table:width$}  serve: a chunk asks the source's hook for its rows by ({by})")
            }
            (Role::Partitioned { keys: _, names }, _) => {
                let by = names.join(", ");
                let reads = match (step.pass.is_some(), step.reads()) {
                    (false, _) => format!("each chunk reads {need:.1} MiB and keeps its rows"),
                    (true, 1) => format!("the pass reads {need:.1} MiB and deals its rows"),
                    (true, _) => format!("each pass reads {need:.1} MiB and keeps its rows"),
                };
                writeln!(out, "  {table:width$}  rescan: {reads} by ({by})")
            }
            (Role::Replicated { why }, _) => writeln!(out, "  {table:width$}  replicate: whole in every chunk; {why}"),
        };
    }
    if let Some(assumed) = proof.assumed() {
        let _ = writeln!(out, "  assumed to be right, which is not proved: {assumed}");
    } else if !proof.steps().is_empty() {
        let _ = writeln!(out, "  proof");
        for step in proof.steps() {
            let _ = writeln!(out, "    {:indent$}{}: {}", "", step.node, step.finding, indent = 2 * step.depth);
        }
    }
    for open in step.resolved.open.iter().filter(|_| step.name == task.name) {
        let _ = writeln!(out, "  {open}");
    }
    for note in &step.notes {
        let _ = writeln!(out, "  note: {note}");
    }
    if proof.chunks() > 1 && sorts(proof.plan()) {
        let _ = writeln!(out, "  ORDER BY holds within a chunk that fits in memory; order is not kept between chunks");
    }
    let _ = writeln!(out, "  plan of chunk 0 of {}", proof.chunks());
    for line in plan.display_indent().to_string().lines() {
        let _ = writeln!(out, "    {line}");
    }
    text
}

/// What the engine expected of a run of the whole query, where it might have been cut.
fn explain_whole(out: &mut String, step: &Step) {
    let Some(Fit { bytes, held, most_held: Some(most), .. }) = step.whole else { return };
    let (read, most) = (bytes >> 20, most >> 20);
    let _ = match held {
        Some(held) => {
            writeln!(
                out,
                "  whole it reads {read} MiB and holds about {} MiB at a time; {most} MiB are there",
                held >> 20
            )
        }
        None => writeln!(out, "  whole it reads {read} MiB, and may hold all of that; {most} MiB are there"),
    };
}

/// So many keys that could cut no more than another are named.
const MOST_THAT_CUT_NO_MORE: usize = 3;

/// The keys that the engine looked at.
fn explain_considered(out: &mut String, step: &Step) {
    if step.considered.is_empty() {
        return;
    }
    let all: u64 = step.resolved.scans.iter().map(|scan| scan.bytes).sum();
    let percent = |bytes: u64| (bytes * 100).checked_div(all).unwrap_or_default();
    let _ = writeln!(out, "  keys that were looked at");
    let no_more = || step.considered.iter().filter(|key| matches!(key.verdict, Verdict::CutsNoMore));
    let is_folded = no_more().count() > MOST_THAT_CUT_NO_MORE;
    for Considered { key, bytes, verdict } in &step.considered {
        let _ = match verdict {
            Verdict::CutsNoMore if is_folded => Ok(()),
            Verdict::Chosen(cut) => writeln!(out, "    {key}: chosen; cuts {} % of the bytes", percent(*cut)),
            Verdict::Accepted(cut) => writeln!(out, "    {key}: right, but cuts {} % of the bytes", percent(*cut)),
            Verdict::CutsNoMore => writeln!(out, "    {key}: could cut no more than {} %", percent(*bytes)),
            Verdict::Refused(why) => writeln!(out, "    {key}: {why}"),
        };
    }
    if is_folded {
        let most = no_more().map(|key| key.bytes).max().unwrap_or_default();
        let _ = writeln!(out, "    {} others: could cut no more than {} %", no_more().count(), percent(most));
    }
}

/// Whether the step reads rows of other steps of its task.
fn reads_steps(task: &Task, step: &Step) -> bool {
    let prefix = format!("{}#", task.step_prefix());
    step.resolved.scans.iter().any(|scan| scan.table.starts_with(&prefix))
}

/// Whether the query's last word is an ORDER BY.
fn sorts(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(node) => sorts(&node.input),
        LogicalPlan::SubqueryAlias(node) => sorts(&node.input),
        LogicalPlan::Distinct(Distinct::All(input)) => sorts(input),
        _ => false,
    }
}
