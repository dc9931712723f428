//! Columns by name, where DataFusion takes one for another.
//!
//! `USING` and `NATURAL` make one column of two. DataFusion joins on them, but takes the left side's column for both,
//! which is NULL where only the right side has a row; of `*` it keeps the one whose table comes first in the alphabet,
//! and finds no column at all after the second such join. It ignores `* ILIKE`, and `* REPLACE` where no column has the
//! name. So here
//!
//! - such joins are written with `ON`, and what their columns are is written out wherever one is named without a table:
//!   `coalesce(a.k, b.k)` of a full join, `b.k` of a right one, else `a.k`; `a.k` and `b.k` stay what they are;
//! - `*` with options is written out, column by column;
//! - `GROUP BY ALL` and `ORDER BY ALL` are written out.
//!
//! Which columns there are is known to DataFusion alone. So the tree is planned with each relation of a FROM marked,
//! and what a relation has is noted where it is planned ([`columns`]). What can't be written out before something
//! inside of it is, waits for the next time.

mod all;
mod columns;
mod items;
mod replace;
mod scope;

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::planner::ContextProvider;
use sqlparser::ast::{
    Expr, GroupByExpr, JoinConstraint, JoinOperator, OrderByKind, Query, Select, SelectItem, SetExpr, Spanned,
    TableFactor, TableWithJoins, Value, Visit, VisitMut, Visitor, VisitorMut,
};

use crate::plan::query::error::at;
use crate::plan::query::names::columns::{JoinsByName, Known, learn, tag, untag};
use crate::plan::query::names::scope::Scope;
use crate::plan::query::syntax::{each_select, normalised};

/// Writes out what is named in the ways above.
///
/// # Errors
/// At its place: a column that is not on both sides of USING, or twice on one; and DataFusion's where it can't say
/// which columns there are.
pub(super) fn bind(query: &mut Query, tables: &dyn ContextProvider) -> Result<()> {
    if !has_pending(query) {
        return Ok(());
    }
    // Much needs no columns.
    Bind::all(query, &Known::default(), tables)?;
    if !has_pending(query) {
        return Ok(());
    }
    tag(query);
    loop {
        let (known, planned) = learn(query, tables, JoinsByName::Planned);
        let mut bound = Bind::all(query, &known, tables)?;
        if bound == 0 {
            let (known, _) = learn(query, tables, JoinsByName::Crossed);
            bound = Bind::all(query, &known, tables)?;
        }
        if !has_pending(query) {
            untag(query);
            return Ok(());
        }
        if bound == 0 {
            let message = "the columns of this relation are not known; name them, and write ON for USING and NATURAL";
            return Err(planned.err().unwrap_or_else(|| at(query.span(), message)));
        }
    }
}

/// Whether something is left to be written out.
fn has_pending(query: &Query) -> bool {
    struct Find;
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            let is_all = query.order_by.as_ref().is_some_and(|order_by| matches!(order_by.kind, OrderByKind::All(_)));
            if is_all { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
        fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
            let is_pending = needs_columns(select) || matches!(select.group_by, GroupByExpr::All(_));
            if is_pending { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    query.visit(&mut Find).is_break()
}

/// Whether the columns of its FROM must be known to write it out.
fn needs_columns(select: &Select) -> bool {
    select.from.iter().any(joins_by_name) || select.projection.iter().any(has_options)
}

/// Whether a join is by USING or NATURAL.
fn joins_by_name(table: &TableWithJoins) -> bool {
    let inner = |factor: &TableFactor| match factor {
        TableFactor::NestedJoin { table_with_joins, alias: None } => joins_by_name(table_with_joins),
        _ => false,
    };
    inner(&table.relation) || table.joins.iter().any(|join| inner(&join.relation) || is_by_name(&join.join_operator))
}

fn is_by_name(operator: &JoinOperator) -> bool {
    matches!(constraint(operator), Some(JoinConstraint::Using(_) | JoinConstraint::Natural))
}

/// Lets joins by USING and NATURAL pair all rows: what their relations have is the same.
pub(super) fn cross_joins_by_name(table: &mut TableWithJoins) {
    let inner = |factor: &mut TableFactor| {
        if let TableFactor::NestedJoin { table_with_joins, alias: None } = factor {
            cross_joins_by_name(table_with_joins);
        }
    };
    inner(&mut table.relation);
    for join in &mut table.joins {
        inner(&mut join.relation);
        if is_by_name(&join.join_operator) {
            let any = Expr::Value(Value::Boolean(true).into());
            join.join_operator = JoinOperator::Join(JoinConstraint::On(any));
        }
    }
}

/// The condition of a join that can have one.
fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::Semi(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::RightSemi(constraint)
        | JoinOperator::Anti(constraint)
        | JoinOperator::LeftAnti(constraint)
        | JoinOperator::RightAnti(constraint)
        | JoinOperator::CrossJoin(constraint)
        | JoinOperator::StraightJoin(constraint)
        | JoinOperator::AsOf { match_condition: _, constraint } => Some(constraint),
        JoinOperator::CrossApply
        | JoinOperator::OuterApply
        | JoinOperator::ArrayJoin
        | JoinOperator::LeftArrayJoin
        | JoinOperator::InnerArrayJoin => None,
    }
}

/// Whether `*` says more than all columns; EXCLUDE DataFusion knows.
fn has_options(item: &SelectItem) -> bool {
    match item {
        SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) => {
            options.opt_ilike.is_some() || options.opt_replace.is_some() || options.opt_rename.is_some()
        }
        _ => false,
    }
}

fn is_wildcard(item: &SelectItem) -> bool {
    matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
}

/// Writes out what can be, from inside out.
struct Bind<'a> {
    known: &'a Known,
    tables: &'a dyn ContextProvider,
    /// Queries of CTEs, known by their address alone, and their names.
    ctes: Vec<(*const Query, String)>,
    /// Queries whose columns are not known yet, by their address.
    open: HashSet<*const Query>,
    /// CTEs likewise; of several of one name all.
    open_ctes: HashSet<String>,
    /// How much was written out.
    bound: usize,
}

impl VisitorMut for Bind<'_> {
    type Break = DataFusionError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.ctes.push((std::ptr::from_ref(cte.query.as_ref()), normalised(&cte.alias.name)));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        let address = std::ptr::from_ref(&*query);
        match self.query(query) {
            Ok(is_known) => {
                if !is_known {
                    self.open.insert(address);
                    self.open_ctes
                        .extend(self.ctes.iter().filter(|(cte, _)| *cte == address).map(|(_, name)| name.clone()));
                }
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl<'a> Bind<'a> {
    /// Writes out all that can be; how much it was.
    fn all(query: &mut Query, known: &'a Known, tables: &'a dyn ContextProvider) -> Result<usize> {
        let (ctes, open, open_ctes) = (Vec::new(), HashSet::new(), HashSet::new());
        let mut bind = Self { known, tables, ctes, open, open_ctes, bound: 0 };
        match query.visit(&mut bind) {
            ControlFlow::Continue(()) => Ok(bind.bound),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// Writes out what is in the query itself; whether [`Known`] has its columns rightly.
    fn query(&mut self, query: &mut Query) -> Result<bool> {
        let Query { body, order_by, .. } = query;
        let mut is_known = true;
        let is_select = matches!(body.as_ref(), SetExpr::Select(_));
        let mut sorted = order_by.as_mut().filter(|_| is_select);
        each_select(body, &mut |select| {
            let is_open = self.reads_open(select);
            if is_open {
                is_known = is_known && !select.projection.iter().any(is_wildcard);
            }
            let needs = needs_columns(select);
            if needs && !is_open {
                let had_wildcard = select.projection.iter().any(is_wildcard);
                // All of it or nothing.
                let mut from = select.from.clone();
                match Scope::bind(&mut from, self.known)? {
                    Some(scope) => {
                        select.from = from;
                        let order_by = sorted.as_deref_mut();
                        items::bind(select, order_by, &scope, self.known)?;
                        if let Some(item) = select.projection.iter().find(|item| has_options(item)) {
                            return Err(at(item.span(), format!("nothing in FROM is called as in `{item}`")));
                        }
                        self.bound += 1;
                        is_known = is_known && !had_wildcard;
                    }
                    None => is_known = false,
                }
            } else if needs {
                is_known = false;
            }
            if matches!(select.group_by, GroupByExpr::All(_)) && !needs_columns(select) {
                let scope = match is_open || !select.projection.iter().any(is_wildcard) {
                    true => None,
                    false => Scope::bind(&mut select.from.clone(), self.known)?,
                };
                self.bound += usize::from(all::group_by(select, self.tables, scope.as_ref())?);
            }
            Ok(())
        })?;
        if let Some(order_by) = order_by
            && let OrderByKind::All(options) = order_by.kind
            && let Some(count) = self.count(body)?
        {
            order_by.kind = all::positions(count, options);
            self.bound += 1;
        }
        Ok(is_known)
    }

    /// Whether its FROM reads something whose columns are not known yet.
    fn reads_open(&self, select: &Select) -> bool {
        struct Find<'a, 'b>(&'a Bind<'b>);
        impl Visitor for Find<'_, '_> {
            type Break = ();
            fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
                let is_open = match factor {
                    TableFactor::Derived { subquery, .. } => {
                        self.0.open.contains(&std::ptr::from_ref(subquery.as_ref()))
                    }
                    TableFactor::Table { name, args: None, .. } => match name.0.as_slice() {
                        [part] => part.as_ident().is_some_and(|name| self.0.open_ctes.contains(&normalised(name))),
                        _ => false,
                    },
                    _ => false,
                };
                if is_open { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
        }
        select.from.visit(&mut Find(self)).is_break()
    }

    /// How many columns a query gives, if that is known.
    fn count(&self, mut body: &SetExpr) -> Result<Option<usize>> {
        loop {
            match body {
                SetExpr::SetOperation { left, .. } => body = left,
                SetExpr::Query(query) => body = &query.body,
                SetExpr::Values(values) => return Ok(values.rows.first().map(|row| row.content.len())),
                SetExpr::Select(select) if !select.projection.iter().any(is_wildcard) => {
                    return Ok(Some(select.projection.len()));
                }
                SetExpr::Select(select) if !needs_columns(select) && !self.reads_open(select) => {
                    let Some(scope) = Scope::bind(&mut select.from.clone(), self.known)? else { return Ok(None) };
                    return items::count(&select.projection, &scope);
                }
                _ => return Ok(None),
            }
        }
    }
}
