//! A task as the steps it runs in.
//!
//! Most tasks are one step. Where an operator sees the whole of its input, so that the task can't be cut at it, the
//! operator is done in two phases (see [`crate::plan::two_phase`]): a step that every chunk does for itself, stored
//! like any table, and the rest of the query over what they gave. The rest is proved again, and may need more steps;
//! what can't be cut of it runs whole.

use std::sync::Arc;

use datafusion::common::Result as PlanResult;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};

use crate::error::Result;
use crate::plan::prove::rule::Rules;
use crate::plan::prove::{Found, Proof, try_prove};
use crate::plan::resolve::{InputSource, Known, Resolved};
use crate::plan::two_phase::two_phase;
use crate::task::Task;

/// At most this many steps are made of one task.
const MAX_STEPS: usize = 16;

/// One step: a query of its own over sources, tasks and earlier steps.
#[derive(Debug, Clone)]
pub struct Step {
    /// The task's name for the last step, `name#1`, `name#2`, … for those before it.
    pub name: String,
    /// Its query over numbered scans.
    pub resolved: Resolved,
    /// How it is cut.
    pub proof: Proof,
}

/// The steps of `task`, the last of which gives its table.
///
/// # Errors
/// Those of [`try_prove`], when the task can't be cut and no operator in the way can be done in two
/// phases.
pub fn steps(task: &Task, resolved: Resolved, _rules: Rules) -> Result<Vec<Step>> {
    let Some(chunking) = &task.chunking else {
        let proof = Proof::whole(&resolved);
        return Ok(vec![Step { name: task.name.clone(), resolved, proof }]);
    };
    let mut steps: Vec<Step> = Vec::new();
    let mut rest = resolved;
    loop {
        let Found { proof, unproved } = try_prove(task, &rest, chunking, false);
        let cut = proof.as_ref().map(|proof| proof.cut_bytes(&rest));
        let name = format!("{}#{}", task.name, steps.len() + 1);
        let way = unproved.iter().filter(|_| steps.len() < MAX_STEPS).find_map(|unproved| {
            let (phase, after) = split(&rest, unproved.at.as_ref()?, &name).ok()??;
            let proof = try_prove(task, &phase, chunking, true).proof?;
            cut.is_none_or(|cut| proof.cut_bytes(&phase) > cut).then_some((proof, phase, after))
        });
        if let Some((proof, phase, after)) = way {
            steps.push(Step { name, resolved: phase, proof });
            rest = after;
            continue;
        }
        let proof = match (proof, unproved.into_iter().next()) {
            (Some(proof), _) => proof,
            // What the user did not ask to be cut by a certain key may as well run whole.
            (None, Some(unproved)) if steps.is_empty() && !chunking.keys.is_empty() => return Err(unproved.error),
            (None, _) => Proof::whole(&rest),
        };
        steps.push(Step { name: task.name.clone(), resolved: rest, proof });
        return Ok(steps);
    }
}

/// The part of the operator `at` that chunks do, as a query of its own, and the rest of the query over its output.
fn split(rest: &Resolved, at: &LogicalPlan, name: &str) -> PlanResult<Option<(Resolved, Resolved)>> {
    if !stands_alone(at)? {
        return Ok(None);
    }
    let Some(phases) = two_phase(at)? else { return Ok(None) };
    let phase = rest.part(phases.chunk)?;
    let source = Arc::new(InputSource::new(name, Known { schema: Arc::clone(&phase.schema), bytes: 0 }));
    let finished = (phases.finish)(LogicalPlanBuilder::scan(name, source, None)?.build()?)?;
    // Equal plans have equal rows, wherever they stand: a common table expression that is read twice is done once.
    let replaced = rest.plan.clone().transform_down_with_subqueries(|node| {
        if &node != at {
            return Ok(Transformed::no(node));
        }
        Ok(Transformed::new(finished.clone(), true, TreeNodeRecursion::Jump))
    })?;
    let replaced = replaced.data.transform_up_with_subqueries(|node| Ok(Transformed::yes(node.recompute_schema()?)))?;
    Ok(Some((phase, rest.part(replaced.data)?)))
}

/// Whether a plan is a query of its own, no part of a correlated subquery, and equal only to plans of the same rows:
/// equality looks at names of scans, which are unique for inputs, but leave the arguments of table functions out.
fn stands_alone(plan: &LogicalPlan) -> PlanResult<bool> {
    let mut stands = true;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            stands &= scan.source.is::<InputSource>();
        }
        node.apply_expressions(|expr| {
            stands &= !expr.contains_outer();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(stands)
}
