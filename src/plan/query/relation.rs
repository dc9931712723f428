//! Relations of our own in a syntax tree: joins in parentheses whose alias says what they are.
//!
//! DataFusion asks planners of relations before it plans one itself. What is inside is planned with all that is known
//! at its place: CTEs, outer columns, tables.

use sqlparser::ast::{Ident, Join, JoinConstraint, JoinOperator, TableAlias, TableFactor, TableWithJoins};
use sqlparser::tokenizer::Span;

/// No name that SQL text can have.
const MARK: char = '\u{0}';

/// Relations that one of our planners makes one of.
#[derive(Debug)]
pub(super) struct Marked {
    /// What is to be made of them.
    pub label: String,
    /// The relations, in order.
    pub factors: Vec<TableFactor>,
}

/// One relation in the tree that stands for `factors`.
pub(super) fn mark(label: &str, factors: Vec<TableFactor>) -> Option<TableFactor> {
    let mut factors = factors.into_iter();
    let relation = factors.next()?;
    let join =
        |relation| Join { relation, global: false, join_operator: JoinOperator::CrossJoin(JoinConstraint::None) };
    let alias = TableAlias {
        explicit: true,
        name: Ident { value: format!("{MARK}{label}"), quote_style: Some('"'), span: Span::empty() },
        columns: Vec::new(),
        at: None,
    };
    let table_with_joins = Box::new(TableWithJoins { relation, joins: factors.map(join).collect() });
    Some(TableFactor::NestedJoin { table_with_joins, alias: Some(alias) })
}

/// What is to be made of it, if it is one of ours.
pub(super) fn label(factor: &TableFactor) -> Option<&str> {
    match factor {
        TableFactor::NestedJoin { alias: Some(alias), .. } => alias.name.value.strip_prefix(MARK),
        _ => None,
    }
}

/// The relations that it stands for.
///
/// # Errors
/// The relation itself, if [`mark`] did not make it.
pub(super) fn unmark(factor: TableFactor) -> std::result::Result<Marked, Box<TableFactor>> {
    let Some(label) = label(&factor).map(str::to_string) else { return Err(Box::new(factor)) };
    let TableFactor::NestedJoin { table_with_joins, .. } = factor else { return Err(Box::new(factor)) };
    let TableWithJoins { relation, joins } = *table_with_joins;
    let factors = [relation].into_iter().chain(joins.into_iter().map(|join| join.relation)).collect();
    Ok(Marked { label, factors })
}
