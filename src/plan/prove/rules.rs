//! The rules of the prover, one for each operator.

use std::collections::BTreeSet;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, JoinType};
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::utils::{enumerate_grouping_sets, grouping_set_to_exprlist};
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, ExprSchemable, Join, LogicalPlan, TableScan, Union, Unnest, Window,
};

use crate::chunk::key::{KeyFamily, key_family};
use crate::plan::keys::{equal_columns, hash_alike, passed_column};
use crate::plan::prove::Step;
use crate::plan::prove::assign::Assignment;
use crate::plan::prove::property::Property::{Partitioned, Replicated};
use crate::plan::prove::property::{Key, Property, all_visible, named, unite_equal};
use crate::plan::prove::refusal::{
    Checked, Refusal, describe, refuse_unstable, replicated_outer, shortened, unsupported,
};
use crate::plan::prove::stable::{order_sensitive_aggregate, order_sensitive_window, unaliased};
use crate::plan::resolve::{InputSource, Resolved};

/// What holds of a plan that may be cut.
pub struct Accepted {
    /// What was found at each node.
    pub steps: Vec<Step>,
    /// The keys among the plan's columns.
    pub keys: Vec<Key>,
}

/// A refusal and the node that was refused; none for the plan as a whole.
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// The node.
    pub at: Option<Box<LogicalPlan>>,
}

/// Proves `resolved` with its scans cut as `assignment` says, by keys of these names.
///
/// With `is_phase` the plan's top operator is the chunks' part of one done in two phases: what is stored is exactly what
/// each chunk gives, so only the operator's input has to be cut.
pub fn attempt(
    resolved: &Resolved,
    assignment: &Assignment,
    keys: &[String],
    is_phase: bool,
) -> Result<Accepted, Refused> {
    let whole = |refusal| Refused { refusal, at: None };
    check_families(resolved, assignment).map_err(whole)?;
    let mut prover = Prover { assignment, keys, steps: Vec::new(), refused: None };
    let found = match is_phase {
        true => prover.phase(&resolved.plan),
        false => prover.property(&resolved.plan, 0),
    };
    match found {
        Ok(Partitioned { keys }) => Ok(Accepted { steps: prover.steps, keys }),
        Ok(Replicated { .. }) => Err(Refused {
            refusal: Refusal {
                node: "the root".into(),
                rule: "the result does not depend on the chunk, so there is nothing to cut",
                fix: "cut by a column of an input that the result's rows come from".into(),
            },
            at: None,
        }),
        Err(refusal) => Err(Refused { refusal, at: prover.refused.map(Box::new) }),
    }
}

/// What is wrong with a key of a type that has no chunk function, and what to do.
pub const NO_KEY_TYPE: (&str, &str) = (
    "this type can't be a key",
    "use an integer, text, date, time, timestamp, decimal, float, boolean or binary column",
);

/// One attempt: the property of every node under one assignment.
struct Prover<'a> {
    assignment: &'a Assignment,
    keys: &'a [String],
    steps: Vec<Step>,
    /// The first node that was refused.
    refused: Option<LogicalPlan>,
}

impl Prover<'_> {
    fn property(&mut self, plan: &LogicalPlan, depth: usize) -> Checked<Property> {
        self.rule(plan, depth).inspect_err(|_| {
            self.refused.get_or_insert_with(|| plan.clone());
        })
    }

    /// The chunks' part of an operator that is done in two phases, below a projection that names its columns.
    fn phase(&mut self, plan: &LogicalPlan) -> Checked<Property> {
        let operator = match plan {
            LogicalPlan::Projection(node) => &node.input,
            other => other,
        };
        let [input] = operator.inputs()[..] else { return Err(unsupported(plan)) };
        let finding = "each chunk does its part; a later step puts the parts together".into();
        self.steps.push(Step { depth: 0, node: describe(operator), finding });
        self.check_subqueries(operator, 0)?;
        match self.property(input, 1)? {
            Partitioned { keys } => {
                Ok(Partitioned { keys: keys.iter().map(|key| key.moved(|_| Vec::new())).collect() })
            }
            replicated => Ok(replicated),
        }
    }

    fn rule(&mut self, plan: &LogicalPlan, depth: usize) -> Checked<Property> {
        let step = self.steps.len();
        self.steps.push(Step { depth, node: describe(plan), finding: String::new() });
        self.check_subqueries(plan, depth)?;
        let found = match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan)?,
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => Replicated { unstable: None },
            LogicalPlan::SubqueryAlias(node) => self.property(&node.input, depth + 1)?,
            LogicalPlan::Filter(node) => {
                let mut property = self.property(&node.input, depth + 1)?;
                if let Partitioned { keys } = &mut property {
                    unite_equal(keys, &equal_columns(&node.predicate, node.input.schema()));
                }
                property
            }
            LogicalPlan::Projection(node) => {
                self.property(&node.input, depth + 1)?.through(&node.expr, node.input.schema())
            }
            LogicalPlan::Sort(node) => {
                let property = self.property(&node.input, depth + 1)?;
                if node.fetch.is_some() { limit(plan, property)? } else { property }
            }
            LogicalPlan::Limit(node) => {
                let property = self.property(&node.input, depth + 1)?;
                limit(plan, property)?
            }
            LogicalPlan::Join(join) => {
                let left = self.property(&join.left, depth + 1)?;
                let right = self.property(&join.right, depth + 1)?;
                self::join(plan, join, left, right)?
            }
            LogicalPlan::Aggregate(node) => aggregate(plan, node, self.property(&node.input, depth + 1)?)?,
            LogicalPlan::Distinct(Distinct::All(input)) => distinct(plan, self.property(input, depth + 1)?)?,
            LogicalPlan::Distinct(Distinct::On(node)) => {
                distinct_on(plan, node, self.property(&node.input, depth + 1)?)?
            }
            LogicalPlan::Union(node) => {
                let branches = node.inputs.iter().map(|i| self.property(i, depth + 1)).collect::<Checked<Vec<_>>>()?;
                union(plan, node, branches)?
            }
            LogicalPlan::Window(node) => window(plan, node, self.property(&node.input, depth + 1)?)?,
            LogicalPlan::Unnest(node) => unnest(node, self.property(&node.input, depth + 1)?),
            LogicalPlan::RecursiveQuery(node) => {
                let first = self.property(&node.static_term, depth + 1)?;
                match (first, self.property(&node.recursive_term, depth + 1)?) {
                    (Replicated { unstable: a }, Replicated { unstable: b }) => Replicated { unstable: a.or(b) },
                    _ => return Err(unsupported(plan)),
                }
            }
            LogicalPlan::Repartition(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Extension(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::DescribeTable(_) => return Err(unsupported(plan)),
        };
        self.steps[step].finding = found.in_words(plan.schema());
        Ok(found)
    }

    /// Subqueries that are still expressions: an uncorrelated scalar one over replicated inputs has one value for all
    /// chunks; nothing else is known to be right.
    fn check_subqueries(&mut self, plan: &LogicalPlan, depth: usize) -> Checked<()> {
        let mut subqueries = Vec::new();
        let mut other = None;
        let visited = plan.apply_expressions(|expr| {
            expr.apply(|e| {
                match e {
                    Expr::ScalarSubquery(s) if s.outer_ref_columns.is_empty() => subqueries.push(s.subquery.clone()),
                    Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => {
                        other = Some(e.to_string());
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        });
        if let Some(expr) = other.or_else(|| visited.err().map(|e| e.to_string())) {
            return Err(Refusal {
                node: format!("{}, in {}", describe(plan), shortened(&expr)),
                rule: "this subquery can't be turned into a join",
                fix: "write it as a join, or compute it in a task of its own".into(),
            });
        }
        for subquery in subqueries {
            let rule = match self.property(&subquery, depth + 1)? {
                Replicated { unstable: None } => continue,
                Replicated { unstable: Some(_) } => "its scalar subquery may have another value in each chunk",
                Partitioned { .. } => "its scalar subquery reads a cut input, so every chunk would see another value",
            };
            let fix = "compute the subquery in a task of its own and join its output".into();
            return Err(Refusal { node: describe(plan), rule, fix });
        }
        Ok(())
    }

    fn scan(&self, scan: &TableScan) -> Checked<Property> {
        if scan.fetch.is_some() || !scan.filters.is_empty() {
            return Err(Refusal {
                node: format!("scan of {}", scan.table_name),
                rule: "scans with a limit or filter of their own are not known to be right in a cut task",
                fix: "compute it in a task of its own, without CLUSTERED BY, and read that".into(),
            });
        }
        // Without a number it is a table function over constants, or the rows of a recursive query so far.
        let number = scan.source.downcast_ref::<InputSource>().and_then(InputSource::scan);
        let columns = number.and_then(|number| self.assignment.get(number).cloned().flatten());
        Ok(match columns {
            Some(columns) => {
                Partitioned { keys: self.keys.iter().zip(columns).map(|(name, c)| Key::column(name, c)).collect() }
            }
            None => Replicated { unstable: None },
        })
    }
}

/// All cut scans must hash each key in the same family of types.
fn check_families(resolved: &Resolved, assignment: &Assignment) -> Checked<()> {
    let mut families: Option<Vec<KeyFamily>> = None;
    for (scan, columns) in resolved.scans.iter().zip(assignment) {
        let Some(columns) = columns else { continue };
        let mut here = Vec::new();
        for column in columns {
            let field = scan.schema.field(*column);
            here.push(key_family(field.data_type()).ok_or_else(|| Refusal {
                node: format!("input {}, column {} of type {}", scan.table, field.name(), field.data_type()),
                rule: NO_KEY_TYPE.0,
                fix: NO_KEY_TYPE.1.into(),
            })?);
        }
        if families.get_or_insert_with(|| here.clone()) != &here {
            return Err(Refusal {
                node: format!("input {}", scan.table),
                rule: "its key columns hash differently from the other inputs'",
                fix: "CAST the key columns to one type before joining".into(),
            });
        }
    }
    Ok(())
}

fn join(plan: &LogicalPlan, join: &Join, left: Property, right: Property) -> Checked<Property> {
    // Which sides' rows survive a missing match: such a side must not be whole in every chunk against a cut one.
    let (kept_left, kept_right) = match join.join_type {
        JoinType::Inner => (false, false),
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (true, false),
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (false, true),
        JoinType::Full => (true, true),
    };
    match (left, right) {
        (Replicated { unstable: l }, Replicated { unstable: r }) => Ok(Replicated { unstable: l.or(r) }),
        (Partitioned { keys }, Replicated { unstable }) => {
            refuse_unstable(plan, unstable)?;
            if kept_right {
                return Err(replicated_outer(plan, "left"));
            }
            let none = vec![None; keys.len()];
            Ok(joined_keys(join, keys.into_iter().map(Some).collect(), none))
        }
        (Replicated { unstable }, Partitioned { keys }) => {
            refuse_unstable(plan, unstable)?;
            if kept_left {
                return Err(replicated_outer(plan, "right"));
            }
            let none = vec![None; keys.len()];
            Ok(joined_keys(join, none, keys.into_iter().map(Some).collect()))
        }
        (Partitioned { keys: l }, Partitioned { keys: r }) => {
            if join.null_aware && !never_null(join) {
                return Err(Refusal {
                    node: describe(plan),
                    rule: "NOT IN over a cut subquery: one NULL in any chunk decides every row",
                    fix: "write NOT EXISTS, or use columns that are declared NOT NULL".into(),
                });
            }
            if !on_keys(join, &l, &r) {
                return Err(Refusal {
                    node: describe(plan),
                    rule: "both sides are cut, but the join's equalities don't pair their keys",
                    fix: format!(
                        "join on {} = {} too, or cut by a column that the join equates",
                        named(&l, join.left.schema()),
                        named(&r, join.right.schema())
                    ),
                });
            }
            Ok(joined_keys(join, l.into_iter().map(Some).collect(), r.into_iter().map(Some).collect()))
        }
    }
}

/// Whether the join's equalities pair each key of the left with the same key of the right.
fn on_keys(join: &Join, left: &[Key], right: &[Key]) -> bool {
    let (left_schema, right_schema) = (join.left.schema(), join.right.schema());
    let alike = |l: &Expr, r: &Expr| {
        let family = |e: &Expr, schema: &DFSchema| e.get_type(schema).ok().and_then(|t| key_family(&t));
        family(l, left_schema).is_some() && family(l, left_schema) == family(r, right_schema)
    };
    let paired = |(lk, rk): (&Key, &Key)| {
        join.on.iter().any(|(l, r)| lk.is(l, left_schema) && rk.is(r, right_schema) && alike(l, r))
    };
    left.iter().zip(right).all(paired)
}

/// Whether neither side of a `NOT IN` can be NULL, as the schemas say.
fn never_null(join: &Join) -> bool {
    let not_null = |e: &Expr, schema: &DFSchema| e.nullable(schema).is_ok_and(|nullable| !nullable);
    join.on.iter().all(|(l, r)| not_null(l, join.left.schema()) && not_null(r, join.right.schema()))
}

/// The keys among the columns of an accepted join; `None` where that side is replicated.
fn joined_keys(join: &Join, left: Vec<Option<Key>>, right: Vec<Option<Key>>) -> Property {
    let (left_schema, right_schema) = (join.left.schema(), join.right.schema());
    let width = left_schema.fields().len();
    let pairs: Vec<(usize, usize)> = join
        .on
        .iter()
        .filter_map(|(l, r)| Some((passed_column(l, left_schema)?, passed_column(r, right_schema)?)))
        .filter(|(l, r)| hash_alike(left_schema, *l, right_schema, *r))
        .map(|(l, r)| (l, r + width))
        .collect();
    let right_moved = |key: &Key| key.moved(|column| vec![column + width]);
    let keys = left.into_iter().zip(right).filter_map(|sides| {
        Some(match (join.join_type, sides) {
            (JoinType::Inner, (Some(l), Some(r))) => {
                let r = right_moved(&r);
                let columns = l.columns.union(&r.columns).copied().collect();
                Key { name: l.name, columns, coalesced: l.coalesced.union(&r.coalesced).copied().collect() }
            }
            (JoinType::Inner, (Some(l), None)) => l,
            (JoinType::Inner | JoinType::Right, (None, Some(r))) => right_moved(&r),
            (JoinType::Right, (Some(_), Some(r))) => right_moved(&r),
            (JoinType::Full, (Some(l), Some(r))) => {
                let r = right_moved(&r);
                let coalesced = l.columns.iter().flat_map(|a| r.columns.iter().map(|b| (*a, *b))).collect();
                Key { name: l.name, columns: BTreeSet::new(), coalesced }
            }
            (JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark, (_, Some(r))) => r,
            // Left joins of all kinds keep the left's keys; no other pair is accepted.
            (_, (Some(l), _)) => l,
            (_, (None, r)) => r?,
        })
    });
    let mut keys: Vec<Key> = keys.collect();
    if join.join_type == JoinType::Inner {
        unite_equal(&mut keys, &pairs);
    }
    Partitioned { keys }
}

fn aggregate(plan: &LogicalPlan, node: &Aggregate, input: Property) -> Checked<Property> {
    let schema = node.input.schema();
    let keys = match input {
        Replicated { unstable } => {
            let unstable = unstable.or_else(|| node.aggr_expr.iter().find_map(order_sensitive_aggregate));
            return Ok(Replicated { unstable });
        }
        Partitioned { keys } => keys,
    };
    let columns = grouping_set_to_exprlist(&node.group_expr).map_err(|_| unsupported(plan))?;
    let mut carried: Vec<Key> = keys.iter().map(|key| key.among(columns.iter().copied(), schema)).collect();
    if let Some(sets) = grouping_sets(node) {
        // A column that one set leaves out is NULL in its rows, whatever the key is.
        let in_all = |i: &usize| sets.iter().all(|set| set.contains(columns[*i]));
        for key in &mut carried {
            key.columns.retain(in_all);
            key.coalesced.retain(|(a, b)| in_all(a) && in_all(b));
        }
    }
    if all_visible(&carried) {
        return Ok(Partitioned { keys: carried });
    }
    Err(Refusal {
        node: describe(plan),
        rule: "rows of one group may lie in different chunks, since it does not group by every key",
        fix: format!("group by {} too, or cut by a column that it groups by", named(&keys, schema)),
    })
}

/// The sets of GROUPING SETS, ROLLUP or CUBE; `None` for a plain GROUP BY.
fn grouping_sets(node: &Aggregate) -> Option<Vec<Vec<Expr>>> {
    match enumerate_grouping_sets(node.group_expr.clone()).ok()?.as_slice() {
        [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => Some(sets.clone()),
        // Both have a set of no columns, which holds no key.
        [Expr::GroupingSet(GroupingSet::Rollup(_) | GroupingSet::Cube(_))] => Some(vec![Vec::new()]),
        _ => None,
    }
}

fn distinct(plan: &LogicalPlan, input: Property) -> Checked<Property> {
    match &input {
        Partitioned { keys } if !all_visible(keys) => Err(Refusal {
            node: describe(plan),
            rule: "equal rows may lie in different chunks, since not every key is among the columns",
            fix: "select the keys too, or cut by columns that are selected".into(),
        }),
        Partitioned { .. } | Replicated { .. } => Ok(input),
    }
}

fn distinct_on(plan: &LogicalPlan, node: &DistinctOn, input: Property) -> Checked<Property> {
    let schema = node.input.schema();
    match &input {
        Replicated { unstable } => {
            let ties = || Some("DISTINCT ON over ties may depend on the order of rows".to_string());
            Ok(Replicated { unstable: unstable.clone().or_else(ties) })
        }
        Partitioned { keys }
            if all_visible(&keys.iter().map(|k| k.among(&node.on_expr, schema)).collect::<Vec<_>>()) =>
        {
            Ok(input.through(&node.select_expr, schema))
        }
        Partitioned { keys } => Err(Refusal {
            node: describe(plan),
            rule: "rows that DISTINCT ON compares may lie in different chunks, since it does not name every key",
            fix: format!("add {} to DISTINCT ON, or cut by a column that it names", named(keys, schema)),
        }),
    }
}

fn limit(plan: &LogicalPlan, input: Property) -> Checked<Property> {
    match input {
        Replicated { unstable } => {
            let ties = || Some("which rows LIMIT keeps may depend on their order".to_string());
            Ok(Replicated { unstable: unstable.or_else(ties) })
        }
        Partitioned { .. } => Err(Refusal {
            node: describe(plan),
            rule: "LIMIT counts the rows of the whole, and each chunk would count its own",
            fix: "put the LIMIT in a task of its own, without CLUSTERED BY, that reads this one's output".into(),
        }),
    }
}

fn union(plan: &LogicalPlan, node: &Union, branches: Vec<Property>) -> Checked<Property> {
    let mut united: Option<Property> = None;
    for (branch, input) in branches.into_iter().zip(&node.inputs) {
        united = Some(match (united, branch) {
            (None, branch) => branch,
            (Some(Replicated { unstable: a }), Replicated { unstable: b }) => Replicated { unstable: a.or(b) },
            (Some(Partitioned { keys: a }), Partitioned { keys: b }) => {
                let first = node.inputs.first().unwrap_or(input).schema();
                let common = |(a, b): (Key, &Key)| Key {
                    name: a.name,
                    columns: a
                        .columns
                        .intersection(&b.columns)
                        .copied()
                        .filter(|c| hash_alike(first, *c, input.schema(), *c))
                        .collect(),
                    coalesced: BTreeSet::new(),
                };
                Partitioned { keys: a.into_iter().zip(&b).map(common).collect() }
            }
            (Some(Partitioned { .. }), Replicated { .. }) | (Some(Replicated { .. }), Partitioned { .. }) => {
                return Err(Refusal {
                    node: describe(plan),
                    rule: "one branch is cut and another is not: its rows would repeat in every chunk",
                    fix: "cut every branch (give each a column that carries the key), or make it a task of its own"
                        .into(),
                });
            }
        });
    }
    united.ok_or_else(|| unsupported(plan))
}

fn window(plan: &LogicalPlan, node: &Window, input: Property) -> Checked<Property> {
    let schema = node.input.schema();
    match input {
        Replicated { unstable } => {
            let unstable = unstable.or_else(|| node.window_expr.iter().find_map(order_sensitive_window));
            Ok(Replicated { unstable })
        }
        Partitioned { keys } => {
            for expr in &node.window_expr {
                let Expr::WindowFunction(function) = unaliased(expr) else { return Err(unsupported(plan)) };
                let by = &function.params.partition_by;
                if !all_visible(&keys.iter().map(|key| key.among(by, schema)).collect::<Vec<_>>()) {
                    return Err(Refusal {
                        node: describe(plan),
                        rule: "rows of one window partition may lie in different chunks, since not every key is in PARTITION BY",
                        fix: format!(
                            "partition by {} too, or cut by a column that every window partitions by",
                            named(&keys, schema)
                        ),
                    });
                }
            }
            Ok(Partitioned { keys })
        }
    }
}

/// Columns that are not unnested are repeated beside each element.
fn unnest(node: &Unnest, input: Property) -> Property {
    let Partitioned { keys } = input else { return input };
    let unnested: Vec<usize> = node
        .list_type_columns
        .iter()
        .map(|(column, _)| *column)
        .chain(node.struct_type_columns.iter().copied())
        .collect();
    let positions = |column: usize| match unnested.contains(&column) {
        true => Vec::new(),
        false => (0..node.dependency_indices.len()).filter(|i| node.dependency_indices[*i] == column).collect(),
    };
    Partitioned { keys: keys.iter().map(|key| key.moved(positions)).collect() }
}
