//! A proof, and one chunk's plan, in words.

use std::fmt::Write;

use datafusion::logical_expr::{Distinct, LogicalPlan};

use crate::plan::prove::Role;
use crate::plan::steps::Step;
use crate::task::Task;

/// How a step of `task` is run: its cut, what each input gives to a chunk and why, what was found at each node, and
/// `plan`, the optimised plan of chunk 0.
pub fn explain(task: &Task, step: &Step, plan: &LogicalPlan) -> String {
    let proof = &step.proof;
    let mut text = match step.name == task.name {
        true => format!("task `{}` ({})\n", task.name, task.location),
        false => {
            format!("step `{}` of task `{}` ({}), stored but not published\n", step.name, task.name, task.location)
        }
    };
    let out = &mut text;
    // Writing to a String can't fail.
    let _ = match proof.keys() {
        [] if step.resolved.scans.iter().any(|scan| scan.table.starts_with(&format!("{}#", task.name))) => {
            writeln!(out, "  puts together what the chunks of the step before gave; runs whole")
        }
        [] => writeln!(out, "  runs whole, as one chunk"),
        keys => {
            let found =
                if task.chunking.as_ref().is_some_and(|c| c.keys.is_empty()) { ", found by the engine" } else { "" };
            writeln!(out, "  {} chunks by hash of ({}){found}", proof.chunks(), keys.join(", "))
        }
    };
    let width = proof.inputs().iter().map(|i| i.table.len()).max().unwrap_or(0);
    for input in proof.inputs() {
        let table = &input.table;
        let _ = match &input.role {
            Role::Partitioned { columns: _, names } => {
                writeln!(out, "  {table:width$}  rescan: each chunk keeps its rows by ({})", names.join(", "))
            }
            Role::Replicated { why } => writeln!(out, "  {table:width$}  replicate: whole in every chunk; {why}"),
        };
    }
    if !proof.steps().is_empty() {
        let _ = writeln!(out, "  proof");
        for step in proof.steps() {
            let _ = writeln!(out, "    {:indent$}{}: {}", "", step.node, step.finding, indent = 2 * step.depth);
        }
    }
    if proof.chunks() > 1 && sorts(proof.plan()) {
        let _ = writeln!(out, "  ORDER BY holds within a chunk; order is not kept between chunks");
    }
    let _ = writeln!(out, "  plan of chunk 0 of {}", proof.chunks());
    for line in plan.display_indent().to_string().lines() {
        let _ = writeln!(out, "    {line}");
    }
    text
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
