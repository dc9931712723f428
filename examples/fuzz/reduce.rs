//! One step smaller: each way to leave something out of a query's syntax tree.

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Distinct, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident,
    JoinConstraint, JoinOperator, LimitClause, ObjectName, Query, Select, SelectItem, SetExpr, TableFactor, Value,
    VisitMut, VisitorMut,
};

/// The query after edit number `at`, from the outside in; `None` beyond the last. Most edits make sense only sometimes:
/// whether the result is still a query must be tried.
pub fn reduced(query: &Query, tables: &[String], at: usize) -> Option<Query> {
    let mut query = query.clone();
    let mut edit = Edit { left: at, is_done: false, tables };
    let _ = query.visit(&mut edit);
    edit.is_done.then_some(query)
}

struct Edit<'a> {
    /// Edits to pass by.
    left: usize,
    is_done: bool,
    /// What a subquery may be replaced by.
    tables: &'a [String],
}

impl Edit<'_> {
    /// Whether it is the next edit's turn.
    fn is_it(&mut self) -> bool {
        if self.is_done {
            return false;
        }
        self.is_done = self.left == 0;
        self.left = self.left.saturating_sub(1);
        self.is_done
    }

    /// Removes the one of `items` whose turn it is, unless fewer than `least` would stay.
    fn remove_one<T>(&mut self, items: &mut Vec<T>, least: usize) -> bool {
        if items.len() <= least {
            return false;
        }
        match (0..items.len()).find(|_| self.is_it()) {
            Some(at) => {
                items.remove(at);
                true
            }
            None => false,
        }
    }

    /// Clears an option that is set.
    fn clear<T>(&mut self, option: &mut Option<T>) -> bool {
        let clears = option.is_some() && self.is_it();
        if clears {
            *option = None;
        }
        clears
    }

    fn flow(&self) -> ControlFlow<()> {
        if self.is_done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn set_expr(&mut self, body: &mut SetExpr) {
        let smaller: Vec<SetExpr> = match body {
            SetExpr::SetOperation { left, right, .. } => vec![(**left).clone(), (**right).clone()],
            SetExpr::Query(query) if query.order_by.is_none() && query.limit_clause.is_none() => {
                vec![(*query.body).clone()]
            }
            _ => Vec::new(),
        };
        if let Some(smaller) = smaller.into_iter().find(|_| self.is_it()) {
            *body = smaller;
            return;
        }
        if let SetExpr::SetOperation { left, right, .. } = body {
            self.set_expr(left);
            self.set_expr(right);
        }
    }

    fn select(&mut self, select: &mut Select) {
        self.remove_one(&mut select.from, 1);
        for from in &mut select.from {
            if !from.joins.is_empty() && self.is_it() {
                // The first relation goes, the next one takes its place.
                from.relation = from.joins.remove(0).relation;
            }
            self.remove_one(&mut from.joins, 0);
            for join in &mut from.joins {
                let on: Option<JoinConstraint> = match &join.join_operator {
                    JoinOperator::Left(on)
                    | JoinOperator::LeftOuter(on)
                    | JoinOperator::Right(on)
                    | JoinOperator::RightOuter(on)
                    | JoinOperator::FullOuter(on) => Some(on.clone()),
                    _ => None,
                };
                if let Some(on) = on
                    && self.is_it()
                {
                    join.join_operator = JoinOperator::Join(on);
                }
            }
        }
        self.remove_one(&mut select.projection, 1);
        self.clear(&mut select.selection);
        self.clear(&mut select.having);
        if matches!(&select.distinct, Some(Distinct::Distinct | Distinct::On(_))) {
            self.clear(&mut select.distinct);
        }
        if let GroupByExpr::Expressions(by, _) = &mut select.group_by {
            self.remove_one(by, 0);
        }
    }

    /// What may stand for an expression.
    fn smaller(expr: &Expr) -> Vec<Expr> {
        let constant = |value| Expr::Value(Value::Boolean(value).into());
        match expr {
            Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
                vec![(**left).clone(), (**right).clone()]
            }
            Expr::BinaryOp {
                left, op: BinaryOperator::Plus | BinaryOperator::Minus | BinaryOperator::Modulo, ..
            } => {
                vec![(**left).clone()]
            }
            Expr::BinaryOp { .. } | Expr::Between { .. } | Expr::IsNull(_) | Expr::IsNotNull(_) => {
                vec![constant(true)]
            }
            Expr::InSubquery { .. } | Expr::Exists { .. } | Expr::InList { .. } => vec![constant(true)],
            Expr::Subquery(_) => vec![Expr::Value(Value::Number("1".into(), false).into())],
            Expr::Nested(inner) | Expr::UnaryOp { expr: inner, .. } | Expr::Cast { expr: inner, .. } => {
                vec![(**inner).clone()]
            }
            Expr::Case { conditions, else_result, .. } => {
                let results = conditions.iter().map(|when| when.result.clone());
                results.chain(else_result.iter().map(|other| (**other).clone())).collect()
            }
            Expr::Function(Function { name, args: FunctionArguments::List(list), filter, over, .. }) => {
                let mut smaller: Vec<Expr> = list
                    .args
                    .iter()
                    .filter_map(|arg| match arg {
                        FunctionArg::Unnamed(FunctionArgExpr::Expr(inner)) => Some(inner.clone()),
                        _ => None,
                    })
                    .take(1)
                    .collect();
                if filter.is_some() || over.is_some() || name.to_string() != "count" {
                    smaller.extend(count());
                }
                smaller
            }
            _ => Vec::new(),
        }
    }
}

impl VisitorMut for Edit<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        // `SELECT * FROM (query) AS alias` is the query.
        if let SetExpr::Select(select) = query.body.as_ref()
            && let ([from], [SelectItem::Wildcard(_)]) = (select.from.as_slice(), select.projection.as_slice())
            && let (TableFactor::Derived { subquery, .. }, true) = (&from.relation, from.joins.is_empty())
        {
            let inner = subquery.as_ref().clone();
            if self.is_it() {
                *query = inner;
                return self.flow();
            }
        }
        self.set_expr(&mut query.body);
        self.clear(&mut query.limit_clause);
        if let Some(LimitClause::LimitOffset { offset, .. }) = &mut query.limit_clause {
            self.clear(offset);
        }
        if query.limit_clause.is_none() {
            self.clear(&mut query.order_by);
        }
        self.clear(&mut query.with);
        if let Some(with) = &mut query.with {
            self.remove_one(&mut with.cte_tables, 1);
        }
        self.flow()
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.select(select);
        self.flow()
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let (TableFactor::Derived { alias, .. } | TableFactor::Table { alias, .. }) = factor else {
            return self.flow();
        };
        let alias = alias.clone();
        let own = match factor {
            TableFactor::Table { name, .. } => name.to_string(),
            _ => String::new(),
        };
        // A table is replaced by one before it, so that this ends.
        let before = self.tables.iter().take_while(|table| **table != own).cloned().collect::<Vec<_>>();
        if let Some(table) = before.into_iter().find(|_| self.is_it()) {
            *factor = TableFactor::Table {
                name: ObjectName::from(vec![Ident::new(table)]),
                alias,
                args: None,
                with_hints: Vec::new(),
                version: None,
                with_ordinality: false,
                partitions: Vec::new(),
                json_path: None,
                sample: None,
                index_hints: Vec::new(),
            };
        }
        self.flow()
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(smaller) = Self::smaller(expr).into_iter().find(|_| self.is_it()) {
            *expr = smaller;
        }
        self.flow()
    }
}

fn count() -> Option<Expr> {
    let parsed = sqlparser::parser::Parser::new(&sqlparser::dialect::GenericDialect {});
    parsed.try_with_sql("count(*)").ok()?.parse_expr().ok()
}
