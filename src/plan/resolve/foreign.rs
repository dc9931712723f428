//! What a plan that Rust made must not have.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, WindowFunctionDefinition};

use crate::error::{Error, ErrorKind, Result};
use crate::plan::opaque::OpaqueNode;
use crate::plan::resolve::InputSource;
use crate::plan::resolve::call::Call;
use crate::task::Task;
use crate::task::function::UserFunctions;

/// Refuses a plan that Rust made over other tables than the task's inputs, or with functions that are not DataFusion's
/// own: what they give is in no fingerprint, and the prover knows functions by their names.
pub fn refuse_foreign(
    task: &Task,
    plan: &LogicalPlan,
    state: &SessionState,
    users: &UserFunctions,
    is_input: impl Fn(&str) -> bool,
) -> Result<()> {
    let mut foreign = None;
    // The closures never fail.
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && !scan.source.downcast_ref::<InputSource>().is_some_and(|source| is_input(source.table()))
            && Call::behind(scan.source.as_ref()).is_none()
        {
            foreign = Some(format!("reads `{}`, which is none of its inputs; make it a source", scan.table_name));
        }
        // Keys are columns of the whole table.
        if let LogicalPlan::TableScan(scan) = node
            && (scan.projection.is_some() || !scan.filters.is_empty() || scan.fetch.is_some())
        {
            let table = &scan.table_name;
            foreign = Some(format!("reads `{table}` with columns, filters or a limit of the scan's own; don't optimize it"));
        }
        if let LogicalPlan::Extension(extension) = node
            && OpaqueNode::of(extension).is_none()
        {
            foreign = Some(format!("has a node of its own, `{}`; use DataFusion's", extension.node.name()));
        }
        let _ = node.apply_expressions(|expr| {
            expr.apply(|part| {
                let (name, is_own) = match part {
                    Expr::ScalarFunction(f) => {
                        let name = f.func.name();
                        (name, state.scalar_functions().get(name).or(users.scalar(name)) == Some(&f.func))
                    }
                    Expr::AggregateFunction(f) => {
                        let name = f.func.name();
                        (name, state.aggregate_functions().get(name).or(users.aggregate(name)) == Some(&f.func))
                    }
                    Expr::WindowFunction(f) => match &f.fun {
                        WindowFunctionDefinition::AggregateUDF(f) => {
                            let name = f.name();
                            (name, state.aggregate_functions().get(name).or(users.aggregate(name)) == Some(f))
                        }
                        WindowFunctionDefinition::WindowUDF(f) => {
                            let name = f.name();
                            (name, state.window_functions().get(name).or(users.window(name)) == Some(f))
                        }
                    },
                    Expr::HigherOrderFunction(f) => {
                        (f.func.name(), state.higher_order_functions().get(f.func.name()) == Some(&f.func))
                    }
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                if !is_own {
                    foreign = Some(format!(
                        "calls `{name}`, which is none of DataFusion's functions, nor one of the pipeline's; add it as a \
                         UserFunction, and call a clone of it"
                    ));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        });
        Ok(TreeNodeRecursion::Continue)
    });
    let Some(what) = foreign else { return Ok(()) };
    Err(Error::new(ErrorKind::Sql, format!("the plan {what}"))
        .with_task(&task.name)
        .with_location(task.location.clone()))
}
