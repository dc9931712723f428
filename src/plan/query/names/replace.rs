//! Unqualified names of merged columns, replaced by what they stand for.
//!
//! A query inside may have a column of the name itself: then it is that. Where nobody can say, the name is refused.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::common::{DataFusionError, Result};
use sqlparser::ast::{
    AccessExpr, Expr, Ident, LambdaFunction, OneOrManyWithParens, Query, Select, SelectItem, SetExpr, Subscript,
    TableFactor, TableWithJoins, Value, ValueWithSpan, VisitMut, VisitorMut,
};

use crate::plan::query::error::at;
use crate::plan::query::names::columns::Known;
use crate::plan::query::names::scope::Scope;
use crate::plan::query::syntax::{normalised, quoted};

/// Replaces names.
pub(super) struct Replace<'a> {
    merged: HashMap<String, Expr>,
    known: &'a Known,
    /// What names stand for at the visited place, outermost first: the scope itself, queries inside, parameters of `x
    /// -> …`.
    around: Vec<Around>,
    /// Fields behind columns, kept out of sight: they are no columns.
    fields: Vec<Vec<AccessExpr>>,
}

/// Names that mean something inside of the scope.
#[derive(Default)]
struct Around {
    columns: HashSet<String>,
    relations: HashSet<String>,
    /// Names of the SELECT list, which some clauses take for columns.
    aliases: HashSet<String>,
    /// Whether there may be other columns.
    is_unknown: bool,
    /// Whether the visited place can't see it.
    is_hidden: bool,
}

impl<'a> Replace<'a> {
    /// Of the names that `scope` has merged.
    pub(super) fn new(scope: &Scope, known: &'a Known) -> Self {
        let here = Around { relations: scope.relations.clone(), ..Around::default() };
        Self { merged: scope.merged(), known, around: vec![here], fields: Vec::new() }
    }

    /// From now on leaves these names.
    pub(super) fn without(&mut self, names: &HashSet<String>) {
        self.merged.retain(|name, _| !names.contains(name));
    }

    /// Replaces all names in `node`.
    ///
    /// # Errors
    /// At a name that may be two things.
    pub(super) fn all(&mut self, node: &mut impl VisitMut) -> Result<()> {
        if self.merged.is_empty() {
            return Ok(());
        }
        node.visit(self).break_value().map_or(Ok(()), Err)
    }

    /// What an unqualified name stands for, if it is merged.
    fn value(&self, name: &Ident) -> Result<Option<Expr>> {
        let letters = normalised(name);
        let Some(value) = self.merged.get(&letters) else { return Ok(None) };
        for around in self.around.iter().rev().filter(|around| !around.is_hidden) {
            if around.columns.contains(&letters) {
                return Ok(None);
            }
            if around.is_unknown || around.aliases.contains(&letters) {
                let message = format!(
                    "`{name}` may be a column of the join outside, or one of the query inside; write it with its table"
                );
                return Err(at(name.span, message));
            }
        }
        Ok(Some(value.clone()))
    }

    fn is_relation(&self, name: &Ident) -> bool {
        let letters = normalised(name);
        self.around.iter().any(|around| around.relations.contains(&letters))
    }

    fn of_query(&self, query: &Query) -> Around {
        let mut around = Around::default();
        let mut pending = vec![query.body.as_ref()];
        while let Some(body) = pending.pop() {
            match body {
                SetExpr::Select(select) => self.of_select(select, &mut around),
                SetExpr::SetOperation { left, right, .. } => pending.extend([right.as_ref(), left.as_ref()]),
                _ => {}
            }
        }
        around
    }

    fn of_select(&self, select: &Select, around: &mut Around) {
        for item in &select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                around.aliases.insert(normalised(alias));
            }
        }
        select.from.iter().for_each(|table| self.of_table(table, around));
    }

    fn of_table(&self, table: &TableWithJoins, around: &mut Around) {
        for factor in [&table.relation].into_iter().chain(table.joins.iter().map(|join| &join.relation)) {
            if let TableFactor::NestedJoin { table_with_joins, alias: None } = factor {
                self.of_table(table_with_joins, around);
                continue;
            }
            let alias = match factor {
                TableFactor::UNNEST { alias, .. } | TableFactor::Function { alias, .. } => alias.as_ref(),
                TableFactor::Derived { lateral: true, alias, .. } => alias.as_ref(),
                _ => None,
            };
            if let Some(alias) = alias {
                around.relations.insert(normalised(&alias.name));
                around.columns.extend(alias.columns.iter().map(|column| normalised(&column.name)));
            }
            match self.known.columns(factor) {
                Some(columns) => {
                    around.columns.extend(columns.iter().map(|column| column.name.clone()));
                    around
                        .relations
                        .extend(columns.iter().filter_map(|c| Some(c.relation.as_ref()?.table().to_string())));
                }
                None => around.is_unknown |= alias.is_none_or(|alias| alias.columns.is_empty()),
            }
        }
    }
}

impl VisitorMut for Replace<'_> {
    type Break = DataFusionError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        let around = self.of_query(query);
        self.around.push(around);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Self::Break> {
        self.around.pop();
        ControlFlow::Continue(())
    }

    /// A query in FROM does not see what stands beside it, unless it is lateral.
    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        self.hide(factor, true);
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        self.hide(factor, false);
        ControlFlow::Continue(())
    }

    /// A column in a SELECT list keeps its name.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr @ Expr::Identifier(_)) = item
                && let Expr::Identifier(name) = expr
                && self.merged.contains_key(&normalised(name))
            {
                let alias = quoted(normalised(name), name.span);
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        match expr {
            Expr::Lambda(LambdaFunction { params, .. }) => {
                let params = match params {
                    OneOrManyWithParens::One(param) => std::slice::from_ref(param),
                    OneOrManyWithParens::Many(params) => params,
                };
                let columns = params.iter().map(|param| normalised(&param.name)).collect();
                self.around.push(Around { columns, ..Around::default() });
            }
            Expr::CompoundFieldAccess { access_chain, .. } => {
                let fields = access_chain.iter().take_while(|access| matches!(access, AccessExpr::Dot(_))).count();
                let rest = access_chain.split_off(fields);
                self.fields.push(std::mem::replace(access_chain, rest));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        match self.replaced(expr) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(value)) => {
                *expr = value;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Replace<'_> {
    fn replaced(&mut self, expr: &mut Expr) -> Result<Option<Expr>> {
        match expr {
            Expr::Lambda(_) => {
                self.around.pop();
                Ok(None)
            }
            Expr::CompoundFieldAccess { access_chain, .. } => {
                let mut fields = self.fields.pop().unwrap_or_default();
                fields.append(access_chain);
                *access_chain = fields;
                Ok(None)
            }
            Expr::Identifier(name) => self.value(name),
            // A field of a merged column, if it is no column of a relation.
            Expr::CompoundIdentifier(names) => match names.as_slice() {
                [column, fields @ ..] if !fields.is_empty() && !self.is_relation(column) => {
                    Ok(self.value(column)?.map(|value| field_of(value, fields)))
                }
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn hide(&mut self, factor: &TableFactor, is_hidden: bool) {
        // The first one is the scope itself: a relation of it is not visited.
        if matches!(factor, TableFactor::Derived { lateral: false, .. })
            && self.around.len() > 1
            && let Some(around) = self.around.last_mut()
        {
            around.is_hidden = is_hidden;
        }
    }
}

fn field_of(value: Expr, fields: &[Ident]) -> Expr {
    let access = |field: &Ident| {
        let name = Value::SingleQuotedString(normalised(field));
        AccessExpr::Subscript(Subscript::Index { index: Expr::Value(ValueWithSpan { value: name, span: field.span }) })
    };
    Expr::CompoundFieldAccess { root: Box::new(value), access_chain: fields.iter().map(access).collect() }
}
