//! SELECT, GROUP BY and ORDER BY over a FROM whose columns are known.

use std::collections::HashSet;

use datafusion::common::Result;
use sqlparser::ast::{
    Distinct, ExcludeSelectItem, Expr, Ident, IdentWithAlias, ObjectName, ObjectNamePart, OrderBy, OrderByKind,
    RenameSelectItem, Select, SelectItem, SelectItemQualifiedWildcardKind, Spanned, WildcardAdditionalOptions,
};

use crate::plan::query::error::at;
use crate::plan::query::names::columns::{ColumnName, Known};
use crate::plan::query::names::replace::Replace;
use crate::plan::query::names::scope::{Scope, Visible};
use crate::plan::query::syntax::{all_columns, normalised, quoted};

/// Writes out `*` and the names of merged columns in `select`, and in the ORDER BY behind it.
///
/// # Errors
/// At its place: a column that is not there, or may be two.
pub(super) fn bind(select: &mut Select, order_by: Option<&mut OrderBy>, scope: &Scope, known: &Known) -> Result<()> {
    let mut replace = Replace::new(scope, known);
    expand(&mut select.projection, scope, &mut replace)?;
    for item in &mut select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) => *item = named(expr.clone(), &mut replace)?,
            SelectItem::ExprWithAlias { expr, alias: _ } => replace.all(expr)?,
            SelectItem::ExprWithAliases { .. } | SelectItem::QualifiedWildcard(..) | SelectItem::Wildcard(_) => {}
        }
    }
    replace.all(&mut select.selection)?;
    // A group is of a column, whatever the SELECT list calls something else.
    replace.all(&mut select.group_by)?;
    replace.all(&mut select.having)?;
    replace.all(&mut select.qualify)?;
    let outputs: HashSet<String> = select.projection.iter().filter_map(output).collect();
    let is_output = |expr: &Expr| matches!(expr, Expr::Identifier(name) if outputs.contains(&normalised(name)));
    if let Some(Distinct::On(keys)) = &mut select.distinct {
        for key in keys.iter_mut().filter(|key| !is_output(key)) {
            replace.all(key)?;
        }
    }
    if let Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) = order_by {
        // DataFusion looks a name up in the SELECT list first, wherever it stands in the key.
        replace.without(&outputs);
        for key in keys {
            replace.all(key)?;
        }
    }
    Ok(())
}

/// Writes out `*` in a SELECT list.
///
/// # Errors
/// As for [`bind`].
pub(super) fn expand_alone(items: &mut Vec<SelectItem>, scope: &Scope) -> Result<()> {
    expand(items, scope, &mut Replace::new(scope, &Known::default()))
}

fn expand(items: &mut Vec<SelectItem>, scope: &Scope, replace: &mut Replace<'_>) -> Result<()> {
    let mut written = Vec::with_capacity(items.len());
    for item in std::mem::take(items) {
        match item {
            SelectItem::Wildcard(options) => written.extend(expanded(scope.visible.clone(), options, replace)?),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                match of_relation(scope, &name) {
                    Some(columns) => written.extend(expanded(columns, options, replace)?),
                    None => written.push(SelectItem::QualifiedWildcard(
                        SelectItemQualifiedWildcardKind::ObjectName(name),
                        options,
                    )),
                }
            }
            other => written.push(other),
        }
    }
    *items = written;
    Ok(())
}

/// How many columns a SELECT list gives, if that is known.
pub(super) fn count(items: &[SelectItem], scope: &Scope) -> Result<Option<usize>> {
    let mut count = 0;
    for item in items {
        let (columns, options) = match item {
            SelectItem::Wildcard(options) => (scope.visible.clone(), options),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                let Some(columns) = of_relation(scope, name) else { return Ok(None) };
                (columns, options)
            }
            SelectItem::QualifiedWildcard(..) => return Ok(None),
            SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. } | SelectItem::ExprWithAliases { .. } => {
                count += 1;
                continue;
            }
        };
        if columns.iter().any(|part| matches!(part, Visible::Unknown(_))) {
            return Ok(None);
        }
        let excluded = excluded(options);
        count += columns
            .iter()
            .filter(|part| part.name().is_none_or(|name| !excluded.iter().any(|e| e.value == name)))
            .count();
    }
    Ok(Some(count))
}

/// What an item calls its column, as far as others can name it.
fn output(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(normalised(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(normalised(name)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(names)) => names.last().map(normalised),
        _ => None,
    }
}

/// The item with names replaced; it is called what it was.
fn named(mut expr: Expr, replace: &mut Replace<'_>) -> Result<SelectItem> {
    let before = expr.clone();
    replace.all(&mut expr)?;
    if expr == before {
        return Ok(SelectItem::UnnamedExpr(expr));
    }
    let name = match &before {
        Expr::Identifier(name) => normalised(name),
        Expr::CompoundIdentifier(names) => names.last().map(normalised).unwrap_or_default(),
        other => other.to_string(),
    };
    Ok(SelectItem::ExprWithAlias { expr, alias: quoted(name, before.span()) })
}

/// The columns of a relation, as they are without a join.
fn of_relation(scope: &Scope, name: &ObjectName) -> Option<Vec<Visible>> {
    let [part] = name.0.as_slice() else { return None };
    let relation = normalised(part.as_ident()?);
    let is_of = |column: &&ColumnName| column.relation.as_ref().is_some_and(|of| of.table() == relation);
    let columns: Vec<_> = scope.columns.iter().filter(is_of).cloned().map(Visible::Column).collect();
    // Else DataFusion says what is wrong.
    (!columns.is_empty()).then_some(columns)
}

/// The items that `*` stands for.
fn expanded(
    columns: Vec<Visible>,
    options: WildcardAdditionalOptions,
    replace: &mut Replace<'_>,
) -> Result<Vec<SelectItem>> {
    let span = options.wildcard_token.0.span;
    let mut excluded = excluded(&options);
    let has_options = !excluded.is_empty()
        || options.opt_ilike.is_some()
        || options.opt_replace.is_some()
        || options.opt_rename.is_some();
    let mut replaced: Vec<_> = options.opt_replace.into_iter().flat_map(|replace| replace.items).collect();
    let mut renamed = match options.opt_rename {
        None => Vec::new(),
        Some(RenameSelectItem::Single(rename)) => vec![rename],
        Some(RenameSelectItem::Multiple(renames)) => renames,
    };
    let mut items = Vec::with_capacity(columns.len());
    let names: Vec<String> = columns.iter().filter_map(|part| part.name().map(str::to_string)).collect();
    for part in columns {
        let name = match &part {
            Visible::Unknown(Some(relation)) if !has_options => {
                let relation = ObjectName(vec![ObjectNamePart::Identifier(relation.clone())]);
                let relation = SelectItemQualifiedWildcardKind::ObjectName(relation);
                items.push(SelectItem::QualifiedWildcard(relation, all_columns()));
                continue;
            }
            Visible::Unknown(_) => {
                return Err(at(span, "* needs the names of all columns here; write UNNEST(…) AS name(column)"));
            }
            Visible::Column(column) => column.name.clone(),
            Visible::Merged { name, .. } => name.clone(),
        };
        if excluded.iter().any(|other| other.value == name) {
            continue;
        }
        if options.opt_ilike.as_ref().is_some_and(|ilike| !matches(&name.to_lowercase(), &ilike.pattern.to_lowercase()))
        {
            continue;
        }
        let replacement = replaced.iter().find(|item| item.column_name.value == name);
        let value = match replacement {
            Some(item) => {
                let mut value = item.expr.clone();
                replace.all(&mut value)?;
                value
            }
            None => part.value(span),
        };
        let alias = renamed.iter().find(|rename| rename.ident.value == name).map(|rename| rename.alias.clone());
        let is_plain = replacement.is_none() && alias.is_none() && matches!(part, Visible::Column(_));
        items.push(match is_plain {
            true => SelectItem::UnnamedExpr(value),
            false => SelectItem::ExprWithAlias { expr: value, alias: alias.unwrap_or_else(|| quoted(name, span)) },
        });
    }
    let is_missing = |name: &Ident| !names.contains(&name.value);
    excluded.retain(is_missing);
    replaced.retain(|item| is_missing(&item.column_name));
    renamed.retain(|rename| is_missing(&rename.ident));
    let missing = excluded.into_iter().map(|name| ("EXCLUDE", name));
    let missing = missing.chain(replaced.into_iter().map(|item| ("REPLACE", item.column_name)));
    let mut missing = missing.chain(renamed.into_iter().map(|IdentWithAlias { ident, alias: _ }| ("RENAME", ident)));
    if let Some((clause, name)) = missing.next() {
        let message =
            format!("{clause} names the column `{}`, which * does not have; it has {}", name.value, names.join(", "));
        return Err(at(name.span, message));
    }
    match items.is_empty() {
        true => Err(at(span, "* stands for no column here; write the columns")),
        false => Ok(items),
    }
}

fn excluded(options: &WildcardAdditionalOptions) -> Vec<Ident> {
    let last = |name: &ObjectName| name.0.last().and_then(|part| part.as_ident()).cloned();
    let mut names: Vec<Ident> = match &options.opt_exclude {
        None => Vec::new(),
        Some(ExcludeSelectItem::Single(name)) => last(name).into_iter().collect(),
        Some(ExcludeSelectItem::Multiple(names)) => names.iter().filter_map(last).collect(),
    };
    if let Some(except) = &options.opt_except {
        names.push(except.first_element.clone());
        names.extend(except.additional_elements.iter().cloned());
    }
    names
}

/// Whether a text is of a pattern of LIKE: `%` stands for any letters, `_` for one, `\` takes the next one as it is.
fn matches(text: &str, pattern: &str) -> bool {
    let (text, mut pattern): (Vec<char>, std::str::Chars<'_>) = (text.chars().collect(), pattern.chars());
    // Which starts of the text are of the pattern so far.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    while let Some(letter) = pattern.next() {
        let mut next = vec![false; text.len() + 1];
        match letter {
            '%' => {
                let mut any = false;
                for (at, is_reached) in reached.iter().enumerate() {
                    any |= is_reached;
                    next[at] = any;
                }
            }
            other => {
                let wanted = match other {
                    '_' => None,
                    '\\' => Some(pattern.next().unwrap_or('\\')),
                    letter => Some(letter),
                };
                for at in 0..text.len() {
                    next[at + 1] = reached[at] && wanted.is_none_or(|wanted| wanted == text[at]);
                }
            }
        }
        reached = next;
    }
    reached.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::plan::query::names::items::matches;

    #[test]
    fn patterns_are_those_of_like() {
        for (text, pattern, expected) in [
            ("abc", "abc", true),
            ("abc", "a%", true),
            ("abc", "%c", true),
            ("abc", "%b%", true),
            ("abc", "_b_", true),
            ("abc", "a", false),
            ("", "%", true),
            ("", "_", false),
            ("a_c", "a\\_c", true),
            ("abc", "a\\_c", false),
            ("aab", "%ab", true),
        ] {
            assert_eq!(matches(text, pattern), expected, "{text} {pattern}");
        }
    }
}
