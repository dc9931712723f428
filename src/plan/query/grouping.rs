//! GROUP BY in the ways that DataFusion reads as something else, or not at all.
//!
//! It drops `WITH ROLLUP`, `WITH CUBE` and the sets behind `GROUP BY a, b`, takes `(a, b)` for one struct, and knows
//! neither tuples in ROLLUP and CUBE, nor sets in sets, nor positions in any of them. All these are written out as one
//! of its own forms.

use datafusion::common::Result;
use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, GroupByWithModifier, Select,
    SelectItem, Spanned, Value, ValueWithSpan,
};

use crate::plan::query::error::at;

/// Most sets that a CUBE or a set of sets is written out into.
const MAX_SETS: usize = 4096;

/// Rewrites the GROUP BY of `select`.
///
/// # Errors
/// At its place: what has no meaning as a group.
pub(super) fn rewrite(select: &mut Select) -> Result<()> {
    let GroupByExpr::Expressions(keys, modifiers) = &mut select.group_by else { return Ok(()) };
    let (keys, modifiers) = (std::mem::take(keys), std::mem::take(modifiers));
    let is_empty = keys.is_empty();
    let keys = match modifiers.into_iter().next() {
        None => keys,
        Some(GroupByWithModifier::Rollup) => vec![Expr::Rollup(single(keys)?)],
        Some(GroupByWithModifier::Cube) => vec![Expr::Cube(single(keys)?)],
        Some(GroupByWithModifier::GroupingSets(Expr::GroupingSets(sets))) => vec![sets_of(&keys, sets)?],
        Some(GroupByWithModifier::GroupingSets(other)) => {
            return Err(at(other.span(), "GROUPING SETS takes sets in parentheses"));
        }
        Some(GroupByWithModifier::Totals) => {
            return Err(at(
                select.select_token.0.span,
                "WITH TOTALS is not supported; write GROUPING SETS ((columns), ())",
            ));
        }
    };
    let mut written = Vec::with_capacity(keys.len());
    for key in keys {
        written.extend(flat(key, &select.projection)?);
    }
    if written.is_empty() && !is_empty {
        // GROUP BY (): one group of all rows, also of none.
        written.push(Expr::GroupingSets(vec![Vec::new()]));
    }
    select.group_by = GroupByExpr::Expressions(written, Vec::new());
    Ok(())
}

/// One set for each key, as `WITH ROLLUP` has it.
fn single(keys: Vec<Expr>) -> Result<Vec<Vec<Expr>>> {
    keys.into_iter()
        .map(|key| match key {
            Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_) => Err(at(
                key.span(),
                "WITH ROLLUP and WITH CUBE stand behind columns only; write GROUP BY ROLLUP (columns)",
            )),
            key => Ok(vec![key]),
        })
        .collect()
}

/// Hive's `GROUP BY a, b GROUPING SETS (…)`: the sets are of the columns before them.
fn sets_of(keys: &[Expr], sets: Vec<Vec<Expr>>) -> Result<Expr> {
    for key in sets.iter().flatten() {
        if !keys.contains(key) {
            return Err(at(
                key.span(),
                format!("`{key}` is not among the columns of GROUP BY; add it before GROUPING SETS"),
            ));
        }
    }
    for key in keys {
        if !sets.iter().flatten().any(|other| other == key) {
            return Err(at(
                key.span(),
                format!("`{key}` is in none of the GROUPING SETS; remove it, or add a set with it"),
            ));
        }
    }
    Ok(Expr::GroupingSets(sets))
}

/// The key without tuples, and with what positions stand for inside ROLLUP and the like.
fn flat(key: Expr, items: &[SelectItem]) -> Result<Vec<Expr>> {
    Ok(match key {
        Expr::Tuple(keys) => {
            let mut flattened = Vec::with_capacity(keys.len());
            for key in keys {
                flattened.extend(flat(key, items)?);
            }
            flattened
        }
        Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_) => vec![sets(key, items)?],
        other => vec![other],
    })
}

fn sets(key: Expr, items: &[SelectItem]) -> Result<Expr> {
    Ok(match key {
        // DataFusion's own form, if each is one column.
        Expr::Rollup(groups) if are_single(&groups) => Expr::Rollup(resolved(groups, items)?),
        Expr::Cube(groups) if are_single(&groups) => Expr::Cube(resolved(groups, items)?),
        other => {
            let mut all = Vec::new();
            written_out(other, items, &mut all)?;
            Expr::GroupingSets(all)
        }
    })
}

fn are_single(groups: &[Vec<Expr>]) -> bool {
    groups
        .iter()
        .all(|group| matches!(group.as_slice(), [key] if !matches!(key, Expr::Tuple(_)) && nested(key).is_none()))
}

fn resolved(groups: Vec<Vec<Expr>>, items: &[SelectItem]) -> Result<Vec<Vec<Expr>>> {
    groups.into_iter().map(|group| group_of(group, items)).collect()
}

/// The sets that a key is short for.
fn written_out(key: Expr, items: &[SelectItem], all: &mut Vec<Vec<Expr>>) -> Result<()> {
    let span = key.span();
    match key {
        Expr::Rollup(groups) => {
            let groups = resolved(groups, items)?;
            all.extend((0..=groups.len()).rev().map(|count| groups[..count].concat()));
        }
        Expr::Cube(groups) => {
            let groups = resolved(groups, items)?;
            if groups.len() >= MAX_SETS.ilog2() as usize {
                return Err(at(
                    span,
                    format!("CUBE of {} columns has more than {MAX_SETS} sets; write GROUPING SETS", groups.len()),
                ));
            }
            for chosen in (0..1_usize << groups.len()).rev() {
                let is_chosen = |at: &usize| chosen >> (groups.len() - 1 - at) & 1 == 1;
                all.push((0..groups.len()).filter(is_chosen).flat_map(|at| groups[at].clone()).collect());
            }
        }
        Expr::GroupingSets(sets) => {
            for set in sets {
                match set.as_slice() {
                    [key] if nested(key).is_some() => {
                        let inner = set.first().and_then(nested);
                        inner.map_or(Ok(()), |inner| written_out(inner, items, all))?;
                    }
                    _ => all.push(group_of(set, items)?),
                }
            }
        }
        other => all.push(group_of(vec![other], items)?),
    }
    if all.len() > MAX_SETS {
        return Err(at(span, format!("these are more than {MAX_SETS} grouping sets; write the ones that are needed")));
    }
    Ok(())
}

/// `ROLLUP (…)` and the like inside of GROUPING SETS, which the parser takes for functions.
fn nested(key: &Expr) -> Option<Expr> {
    let of_args = |function: &Function| -> Option<Vec<Vec<Expr>>> {
        let FunctionArguments::List(list) = &function.args else { return None };
        let group = |arg: &FunctionArg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Tuple(keys))) => Some(keys.clone()),
            FunctionArg::Unnamed(FunctionArgExpr::Expr(key)) => Some(vec![key.clone()]),
            _ => None,
        };
        list.args.iter().map(group).collect()
    };
    match key {
        Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_) => Some(key.clone()),
        Expr::Function(function) => match function.name.to_string().to_ascii_lowercase().as_str() {
            "rollup" => Some(Expr::Rollup(of_args(function)?)),
            "cube" => Some(Expr::Cube(of_args(function)?)),
            _ => None,
        },
        _ => None,
    }
}

/// The columns of one set.
fn group_of(group: Vec<Expr>, items: &[SelectItem]) -> Result<Vec<Expr>> {
    let mut keys = Vec::with_capacity(group.len());
    for key in group {
        match key {
            Expr::Tuple(inner) => keys.extend(group_of(inner, items)?),
            Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_) => {
                return Err(at(
                    key.span(),
                    "ROLLUP, CUBE and GROUPING SETS can stand in GROUPING SETS only; write out the sets",
                ));
            }
            key => keys.push(at_position(key, items)?),
        }
    }
    Ok(keys)
}

/// What stands at a position of the SELECT list, for a number: DataFusion looks it up outside of ROLLUP and the like
/// only.
fn at_position(key: Expr, items: &[SelectItem]) -> Result<Expr> {
    let Expr::Value(ValueWithSpan { value: Value::Number(digits, _), span }) = &key else { return Ok(key) };
    let position = digits.parse::<usize>().ok().filter(|position| (1..=items.len()).contains(position));
    let refuse = || at(*span, format!("{digits} is not the position of a column here; write the column"));
    let position = position.ok_or_else(refuse)?;
    let mut chosen = None;
    for item in &items[..position] {
        chosen = match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, alias: _ } => Some(expr.clone()),
            // Nobody knows yet how many columns it is.
            SelectItem::ExprWithAliases { .. } | SelectItem::QualifiedWildcard(..) | SelectItem::Wildcard(_) => {
                return Err(refuse());
            }
        };
    }
    chosen.ok_or_else(refuse)
}
