//! Which columns the relations of a query have, as DataFusion plans them.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::{Result, TableReference};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::{
    ContextProvider, PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use sqlparser::ast::{
    GroupByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins, VisitMut, VisitorMut,
};

use crate::plan::query::casts;
use crate::plan::query::names::cross_joins_by_name;
use crate::plan::query::plan_as_it_is;
use crate::plan::query::provider::Mended;
use crate::plan::query::relation::{label, mark, unmark};
use crate::plan::query::sets::{query_of, select_from};

/// A column as it can be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnName {
    /// The relation that it is of, if it has a name.
    pub relation: Option<TableReference>,
    /// Its own name.
    pub name: String,
}

/// Columns of relations, by the numbers that [`tag`] gave them.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<usize, Vec<ColumnName>>);

impl Known {
    /// The columns of a tagged relation, if it was planned.
    pub(super) fn columns(&self, factor: &TableFactor) -> Option<&[ColumnName]> {
        self.0.get(&number(factor)?).map(Vec::as_slice)
    }
}

/// The number of a tagged relation.
fn number(factor: &TableFactor) -> Option<usize> {
    match factor {
        TableFactor::Derived { lateral: true, subquery, .. } => match subquery.body.as_ref() {
            SetExpr::Select(select) => number(&select.from.first()?.relation),
            _ => None,
        },
        other => label(other)?.parse().ok(),
    }
}

/// Puts a mark with a number around each relation, so that [`learn`] can say what it has. Of lateral ones, it is around
/// the query inside; UNNEST has no name that anybody would look for.
pub(super) fn tag(query: &mut Query) {
    struct Tag {
        next: usize,
    }
    impl VisitorMut for Tag {
        type Break = ();
        fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            let number = self.next.to_string();
            match factor {
                TableFactor::UNNEST { .. }
                | TableFactor::Function { .. }
                | TableFactor::NestedJoin { alias: None, .. } => {
                    return ControlFlow::Continue(());
                }
                TableFactor::Derived { lateral: true, subquery, .. } => {
                    let inner = std::mem::replace(
                        subquery.as_mut(),
                        query_of(SetExpr::Select(Box::new(select_from(Vec::new())))),
                    );
                    let inner =
                        TableFactor::Derived { lateral: false, subquery: Box::new(inner), alias: None, sample: None };
                    if let Some(relation) = mark(&number, vec![inner]) {
                        let from = vec![TableWithJoins { relation, joins: Vec::new() }];
                        *subquery.as_mut() = query_of(SetExpr::Select(Box::new(select_from(from))));
                    }
                }
                other => {
                    let nothing = TableFactor::UNNEST {
                        alias: None,
                        array_exprs: Vec::new(),
                        with_offset: false,
                        with_offset_alias: None,
                        with_ordinality: false,
                    };
                    let inner = std::mem::replace(other, nothing);
                    if let Some(marked) = mark(&number, vec![inner]) {
                        *other = marked;
                    }
                }
            }
            self.next += 1;
            ControlFlow::Continue(())
        }
    }
    let _ = query.visit(&mut Tag { next: 0 });
}

/// Takes the marks off.
pub(super) fn untag(query: &mut Query) {
    struct Untag;
    impl VisitorMut for Untag {
        type Break = ();
        fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            match factor {
                TableFactor::Derived { lateral: true, subquery, .. } => {
                    // The mark itself is off already: it is inside.
                    let inner = match subquery.body.as_mut() {
                        SetExpr::Select(select) if select.from.len() == 1 => match &mut select.from[0].relation {
                            TableFactor::Derived { lateral: false, subquery, alias: None, .. } => subquery,
                            _ => return ControlFlow::Continue(()),
                        },
                        _ => return ControlFlow::Continue(()),
                    };
                    let inner = inner.as_ref().clone();
                    *subquery.as_mut() = inner;
                }
                other if label(other).is_some() => {
                    if let Ok(marked) = unmark(other.clone())
                        && let Some(inner) = marked.factors.into_iter().next()
                    {
                        *other = inner;
                    }
                }
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    let _ = query.visit(&mut Untag);
}

/// What is planned for a join by USING or NATURAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JoinsByName {
    /// The join: a lateral query may name its columns. DataFusion can't plan more than two of one column.
    Planned,
    /// One of all rows: then nobody can name the column alone.
    Crossed,
}

/// Plans `query`, without what is to be written out, to see what its relations have; and how that went.
pub(super) fn learn(query: &Query, tables: &dyn ContextProvider, joins: JoinsByName) -> (Known, Result<LogicalPlan>) {
    struct Plain(JoinsByName);
    impl VisitorMut for Plain {
        type Break = ();
        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            if query.order_by.as_ref().is_some_and(|order_by| matches!(order_by.kind, OrderByKind::All(_))) {
                query.order_by = None;
            }
            ControlFlow::Continue(())
        }
        fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
            if let GroupByExpr::All(modifiers) = &mut select.group_by {
                modifiers.clear();
            }
            if self.0 == JoinsByName::Crossed {
                select.from.iter_mut().for_each(cross_joins_by_name);
            }
            for item in &mut select.projection {
                if let SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) = item {
                    options.opt_ilike = None;
                    options.opt_replace = None;
                    options.opt_rename = None;
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut plain = query.clone();
    let _ = plain.visit(&mut Plain(joins));
    let noted = Arc::new(Learn::default());
    let casts = casts::planner(&plain);
    let planned = plan_as_it_is(plain, &Mended::new(tables, Arc::clone(&noted) as Arc<dyn RelationPlanner>, casts));
    let mut known = noted.known.lock().unwrap_or_else(PoisonError::into_inner);
    (std::mem::take(&mut *known), planned)
}

/// Notes the columns of what is tagged.
#[derive(Debug, Default)]
struct Learn {
    known: Mutex<Known>,
}

impl RelationPlanner for Learn {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let marked = match unmark(relation) {
            Ok(marked) => marked,
            Err(other) => return Ok(RelationPlanning::Original(other)),
        };
        let number = marked.label.parse::<usize>();
        let (Ok(number), Some(factor)) = (number, marked.factors.into_iter().next()) else {
            return datafusion::common::internal_err!("a relation with the mark {} is in the tree", marked.label);
        };
        let plan = context.plan(factor)?;
        let columns = plan
            .schema()
            .iter()
            .map(|(relation, field)| ColumnName { relation: relation.cloned(), name: field.name().clone() });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.0.insert(number, columns.collect());
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}
