//! Edits of the syntax tree: of each statement every node is met, and each of its fields is given every other value
//! that is worth a try, one at a time.

use std::collections::BTreeMap;
use std::mem::swap;
use std::ops::ControlFlow;

use sqlparser::ast::{
    CreateTableOptions, Distinct, ExceptSelectItem, ExcludeSelectItem, Expr, Fetch, ForClause, FormatClause,
    GroupByExpr, GroupByWithModifier, Ident, Interpolate, JoinConstraint, JoinOperator, LimitClause, LockClause,
    LockType, NamedWindowExpr, ObjectName, Offset, OffsetRows, OrderBy, OrderByKind, OrderByOptions, PipeOperator,
    Query, Select, SelectFlavor, SelectItem, SetExpr, SetOperator, SetQuantifier, Setting, Statement, TableAlias,
    TableFactor, TableWithJoins, ValueTableMode, ValueWithSpan, VisitMut, VisitorMut, WildcardAdditionalOptions,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;

use self::parts::{donor, key, name, number, one, sampled, truth};
use super::corpus::ALIKE;

mod expr;
mod function;
mod parts;

/// An edit: what it does to what, and the SQL that it gives.
pub struct Edit {
    pub what: String,
    pub sql: String,
}

/// The statements, printed as the edits of them are.
pub fn printed(sql: &str) -> String {
    print(&parsed(sql))
}

/// Every edit of the statements.
pub fn edits(sql: &str) -> Vec<Edit> {
    let statements = parsed(sql);
    let mut all = Vec::new();
    loop {
        let mut edited = statements.clone();
        let mut walk = Walk { target: all.len(), seen: 0, what: None, depth: 0 };
        let _ = edited.visit(&mut walk);
        match walk.what {
            Some(what) => all.push(Edit { what, sql: print(&edited) }),
            None => return all,
        }
    }
}

fn parsed(sql: &str) -> Vec<Statement> {
    Parser::parse_sql(&GenericDialect {}, sql).unwrap_or_else(|e| panic!("{e}\n{sql}"))
}

fn print(statements: &[Statement]) -> String {
    statements.iter().map(|statement| format!("{statement};\n")).collect()
}

/// Makes the edit of number `target` in the order in which it meets them.
struct Walk {
    target: usize,
    seen: usize,
    what: Option<String>,
    /// Queries that the walk is in.
    depth: usize,
}

impl Walk {
    fn edit(&mut self, what: &str, edit: impl FnOnce()) {
        if self.seen == self.target && self.what.is_none() {
            edit();
            self.what = Some(what.to_string());
        }
        self.seen += 1;
    }

    fn set<T: Clone + PartialEq>(&mut self, what: &str, place: &mut T, values: impl IntoIterator<Item = T>) {
        let now = place.clone();
        for value in values {
            if value != now {
                self.edit(what, || *place = value);
            }
        }
    }

    fn drop_each<T>(&mut self, what: &str, list: &mut Vec<T>) {
        for at in 0..list.len() {
            self.edit(what, || drop(list.remove(at)));
        }
    }

    fn swap_first<T>(&mut self, what: &str, list: &mut [T]) {
        if list.len() > 1 {
            self.edit(what, || list.swap(0, 1));
        }
    }

    fn take<T>(&mut self, what: &str, place: &mut Option<T>) {
        if place.is_some() {
            self.edit(what, || drop(place.take()));
        }
    }

    fn add<T>(&mut self, what: &str, place: &mut Option<T>, value: impl FnOnce() -> T) {
        if place.is_none() {
            self.edit(what, || *place = Some(value()));
        }
    }

    fn set_flag(&mut self, what: &str, flag: &mut bool) {
        self.set(what, flag, [true]);
    }

    fn done(&self) -> ControlFlow<()> {
        match self.what {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    }

    fn column(&mut self, name: &mut Ident) {
        if let Some((_, other)) = ALIKE.iter().find(|(column, _)| *column == name.value) {
            self.edit("another column", || name.value = (*other).to_string());
        }
    }

    fn rename(&mut self, what: &str, name: &mut Ident) {
        self.edit(what, || name.value.push('_'));
    }

    fn set_expr(&mut self, body: &mut SetExpr) {
        match body {
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                self.set("set operator", op, [SetOperator::Union, SetOperator::Except, SetOperator::Intersect]);
                let quantifiers =
                    [SetQuantifier::All, SetQuantifier::Distinct, SetQuantifier::ByName, SetQuantifier::AllByName];
                self.set("quantifier", set_quantifier, quantifiers);
                self.edit("sides swapped", || swap(left, right));
                self.set_expr(left);
                self.set_expr(right);
            }
            SetExpr::Values(values) => {
                self.drop_each("a row of VALUES dropped", &mut values.rows);
                self.swap_first("rows of VALUES swapped", &mut values.rows);
            }
            _ => {}
        }
        if let SetExpr::SetOperation { left, right, .. } = body {
            let sides = [left.as_ref().clone(), right.as_ref().clone()];
            self.set("a side alone", body, sides);
        }
    }

    fn wildcard(&mut self, options: &mut WildcardAdditionalOptions) {
        self.take("EXCLUDE dropped", &mut options.opt_exclude);
        self.take("EXCEPT dropped", &mut options.opt_except);
        self.take("REPLACE dropped", &mut options.opt_replace);
        self.take("RENAME dropped", &mut options.opt_rename);
        if let Some(ExcludeSelectItem::Multiple(names)) = &mut options.opt_exclude {
            self.drop_each("a column of EXCLUDE dropped", names);
        }
        if let Some(ExceptSelectItem { first_element, additional_elements: _ }) = &mut options.opt_except {
            self.column(first_element);
        }
        if let Some(replace) = &mut options.opt_replace {
            replace.items.iter_mut().for_each(|item| self.column(&mut item.column_name));
        }
    }

    fn projection(&mut self, items: &mut Vec<SelectItem>) {
        self.drop_each("an output dropped", items);
        self.swap_first("outputs swapped", items);
        for item in items {
            match item {
                SelectItem::ExprWithAlias { alias, .. } => self.rename("an output renamed", alias),
                SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) => self.wildcard(options),
                _ => {}
            }
        }
    }

    fn from(&mut self, from: &mut Vec<TableWithJoins>) {
        self.drop_each("a table of FROM dropped", from);
        for TableWithJoins { relation: _, joins } in from {
            self.drop_each("a join dropped", joins);
            for join in joins {
                self.set_flag("GLOBAL added", &mut join.global);
                let of = |constraint: &JoinConstraint| {
                    [
                        JoinOperator::Join(constraint.clone()),
                        JoinOperator::Left(constraint.clone()),
                        JoinOperator::Right(constraint.clone()),
                        JoinOperator::FullOuter(constraint.clone()),
                        JoinOperator::LeftSemi(constraint.clone()),
                        JoinOperator::RightSemi(constraint.clone()),
                        JoinOperator::LeftAnti(constraint.clone()),
                        JoinOperator::RightAnti(constraint.clone()),
                    ]
                };
                match &mut join.join_operator {
                    JoinOperator::Join(constraint)
                    | JoinOperator::Inner(constraint)
                    | JoinOperator::Left(constraint)
                    | JoinOperator::Right(constraint)
                    | JoinOperator::FullOuter(constraint)
                    | JoinOperator::LeftSemi(constraint)
                    | JoinOperator::LeftAnti(constraint)
                    | JoinOperator::CrossJoin(constraint) => {
                        let mut others = vec![JoinConstraint::Natural, JoinConstraint::None];
                        if let JoinConstraint::On(_) = constraint {
                            others.push(JoinConstraint::Using(vec![name("k")]));
                        }
                        let kinds = of(constraint);
                        self.set("condition of a join", constraint, others);
                        self.set("kind of a join", &mut join.join_operator, kinds);
                    }
                    _ => {}
                }
            }
        }
    }

    fn alias(&mut self, alias: Option<&mut TableAlias>) {
        let Some(TableAlias { columns, .. }) = alias else { return };
        self.swap_first("columns of an alias swapped", columns);
        columns.iter_mut().for_each(|column| self.rename("a column of an alias renamed", &mut column.name));
    }
}

impl VisitorMut for Walk {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &mut Statement) -> ControlFlow<()> {
        match statement {
            Statement::CreateTable(create) => {
                self.depth = 0;
                for (what, flag) in [
                    ("OR REPLACE", &mut create.or_replace),
                    ("TEMPORARY", &mut create.temporary),
                    ("IF NOT EXISTS", &mut create.if_not_exists),
                    ("EXTERNAL", &mut create.external),
                    ("TRANSIENT", &mut create.transient),
                    ("STRICT", &mut create.strict),
                ] {
                    self.set_flag(what, flag);
                }
                self.take("CLUSTERED BY dropped", &mut create.clustered_by);
                if let Some(clustered) = &mut create.clustered_by {
                    self.add("SORTED BY added", &mut clustered.sorted_by, || vec![key()]);
                    self.drop_each("a key dropped", &mut clustered.columns);
                    self.swap_first("keys swapped", &mut clustered.columns);
                    clustered.columns.iter_mut().for_each(|key| self.column(key));
                    let others = ["1", "2", "7", "4096"].map(number);
                    self.set("number of chunks", &mut clustered.num_buckets, others);
                }
                if let CreateTableOptions::With(options) = &mut create.table_options {
                    self.drop_each("an option dropped", options);
                }
            }
            Statement::CreateView(create) => {
                // Its query is in another, where no order is taken from it.
                self.depth = 1;
                for (what, flag) in [
                    ("OR REPLACE", &mut create.or_replace),
                    ("MATERIALIZED", &mut create.materialized),
                    ("TEMPORARY", &mut create.temporary),
                    ("IF NOT EXISTS", &mut create.if_not_exists),
                ] {
                    self.set_flag(what, flag);
                }
                self.swap_first("columns of a view swapped", &mut create.columns);
                create
                    .columns
                    .iter_mut()
                    .for_each(|column| self.rename("a column of a view renamed", &mut column.name));
            }
            _ => {}
        }
        self.done()
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some(with) = &mut query.with {
            self.set("RECURSIVE", &mut with.recursive, [true, false]);
            self.drop_each("a CTE dropped", &mut with.cte_tables);
            for cte in &mut with.cte_tables {
                self.alias(Some(&mut cte.alias));
                self.add("FROM added to a CTE", &mut cte.from, || Ident::new("t"));
            }
        }
        self.set_expr(&mut query.body);
        self.take("ORDER BY dropped", &mut query.order_by);
        if let Some(order_by) = &mut query.order_by {
            match &mut order_by.kind {
                OrderByKind::Expressions(keys) => self.order(keys),
                OrderByKind::All(options) => self.options(options),
            }
            self.add("INTERPOLATE added", &mut order_by.interpolate, || Interpolate { exprs: None });
        } else if self.depth == 0 && query.pipe_operators.is_empty() {
            let kind = || OrderByKind::All(OrderByOptions { asc: Some(false), nulls_first: None });
            self.add("ORDER BY ALL added", &mut query.order_by, || OrderBy { kind: kind(), interpolate: None });
        }
        let lock = || LockClause { lock_type: LockType::Update, of: None, nonblock: None };
        self.edit("FOR UPDATE added", || query.locks.push(lock()));
        self.add("FOR BROWSE added", &mut query.for_clause, || ForClause::Browse);
        self.add("SETTINGS added", &mut query.settings, || vec![Setting { key: Ident::new("a"), value: one() }]);
        self.add("FORMAT added", &mut query.format_clause, || FormatClause::Null);
        let fetch = || Fetch { with_ties: false, percent: false, quantity: Some(one()) };
        self.add("FETCH added", &mut query.fetch, fetch);
        let count = |digits: &str| Expr::value(number(digits));
        let offset = || Offset { value: count("3"), rows: OffsetRows::None };
        self.take("LIMIT and OFFSET dropped", &mut query.limit_clause);
        match &mut query.limit_clause {
            Some(LimitClause::LimitOffset { limit, offset: skip, limit_by: _ }) => {
                self.take("LIMIT dropped", limit);
                self.set("OFFSET", skip, [None, Some(offset())]);
            }
            Some(LimitClause::OffsetCommaLimit { .. }) => {}
            place if query.fetch.is_none() => {
                let clause = |limit, offset| Some(LimitClause::LimitOffset { limit, offset, limit_by: Vec::new() });
                self.set("LIMIT added", place, [clause(Some(count("2")), None), clause(None, Some(offset()))]);
            }
            _ => {}
        }
        self.take("FETCH dropped", &mut query.fetch);
        if let Some(fetch) = &mut query.fetch {
            self.set("FETCH … PERCENT", &mut fetch.percent, [true]);
            self.set("FETCH … WITH TIES", &mut fetch.with_ties, [true]);
            self.take("the number of FETCH dropped", &mut fetch.quantity);
        }
        self.depth += 1;
        self.drop_each("a pipe operator dropped", &mut query.pipe_operators);
        for operator in &mut query.pipe_operators {
            match operator {
                PipeOperator::Limit { expr: _, offset } => self.take("OFFSET dropped", offset),
                PipeOperator::OrderBy { exprs } => self.order(exprs),
                PipeOperator::Select { exprs } | PipeOperator::Extend { exprs } => self.projection(exprs),
                PipeOperator::Aggregate { full_table_exprs, group_by_expr } => {
                    self.drop_each("an aggregate dropped", full_table_exprs);
                    self.drop_each("a key of GROUP BY dropped", group_by_expr);
                }
                PipeOperator::Union { set_quantifier, queries } => {
                    self.set("quantifier", set_quantifier, [SetQuantifier::All, SetQuantifier::Distinct]);
                    self.drop_each("a query dropped", queries);
                }
                _ => {}
            }
        }
        self.done()
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        // There is no place for it in a query without SELECT.
        if select.flavor != SelectFlavor::FromFirstNoSelect {
            let others = [None, Some(Distinct::Distinct), Some(Distinct::On(vec![truth()]))];
            self.set("DISTINCT", &mut select.distinct, others);
            self.set("AS STRUCT added", &mut select.value_table_mode, [Some(ValueTableMode::AsStruct)]);
        }
        if let Some(Distinct::On(keys)) = &mut select.distinct {
            self.drop_each("a key of DISTINCT ON dropped", keys);
        }
        self.projection(&mut select.projection);
        self.from(&mut select.from);
        self.take("WHERE dropped", &mut select.selection);
        match &mut select.group_by {
            GroupByExpr::All(_) => {}
            GroupByExpr::Expressions(keys, modifiers) => {
                self.drop_each("a key of GROUP BY dropped", keys);
                self.swap_first("keys of GROUP BY swapped", keys);
                let others = match keys.is_empty() {
                    true => vec![],
                    false => vec![vec![], vec![GroupByWithModifier::Rollup], vec![GroupByWithModifier::Cube]],
                };
                self.set("WITH ROLLUP", modifiers, others);
            }
        }
        if let GroupByExpr::Expressions(keys, modifiers) = &mut select.group_by {
            self.edit("a key of GROUP BY added", || keys.push(truth()));
            self.edit("WITH TOTALS added", || modifiers.push(GroupByWithModifier::Totals));
        }
        self.take("HAVING dropped", &mut select.having);
        self.take("QUALIFY dropped", &mut select.qualify);
        self.add("WHERE added", &mut select.selection, truth);
        let clauses = donor(
            "SELECT TOP 3 k INTO y FROM t LATERAL VIEW explode(l) y AS z PREWHERE b CLUSTER BY k DISTRIBUTE BY k SORT BY k
             HAVING count(*) > 1 QUALIFY row_number() OVER (ORDER BY k) < 3",
        );
        self.add("HAVING added", &mut select.having, || clauses.having.clone().unwrap());
        self.add("QUALIFY added", &mut select.qualify, || clauses.qualify.clone().unwrap());
        self.set("TOP added", &mut select.top, [clauses.top]);
        self.set("EXCLUDE added", &mut select.exclude, [Some(ExcludeSelectItem::Single(name("k")))]);
        self.set("INTO added", &mut select.into, [clauses.into]);
        self.set("LATERAL VIEW added", &mut select.lateral_views, [clauses.lateral_views]);
        self.set("PREWHERE added", &mut select.prewhere, [clauses.prewhere]);
        self.set("CLUSTER BY added", &mut select.cluster_by, [clauses.cluster_by]);
        self.set("DISTRIBUTE BY added", &mut select.distribute_by, [clauses.distribute_by]);
        self.set("SORT BY added", &mut select.sort_by, [clauses.sort_by]);
        let walk = donor("SELECT k FROM t START WITH k = 1 CONNECT BY PRIOR k = v");
        self.set("CONNECT BY added", &mut select.connect_by, [walk.connect_by]);
        for window in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(window) = &mut window.1 {
                self.window(window);
            }
        }
        self.done()
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        let others: BTreeMap<&str, &str> = [("t", "u"), ("u", "t")].into();
        if let Some(other) = others.get(relation.to_string().as_str()) {
            self.edit("another table", || *relation = name(other));
        }
        self.done()
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { alias, args, with_ordinality, sample, partitions, .. } => {
                self.alias(alias.as_mut());
                self.set_flag("WITH ORDINALITY added", with_ordinality);
                self.add("TABLESAMPLE added", sample, sampled);
                self.edit("PARTITION added", || partitions.push(Ident::new("k")));
                if let Some(args) = args {
                    self.drop_each("an argument dropped", &mut args.args);
                }
            }
            TableFactor::Derived { lateral, alias, sample, .. } => {
                self.add("TABLESAMPLE added", sample, sampled);
                self.set("LATERAL", lateral, [true, false]);
                self.alias(alias.as_mut());
            }
            TableFactor::UNNEST { alias, with_offset, with_ordinality, .. } => {
                self.alias(alias.as_mut());
                self.set_flag("WITH OFFSET added", with_offset);
                self.set_flag("WITH ORDINALITY added", with_ordinality);
            }
            _ => {}
        }
        self.done()
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.expr(expr);
        self.done()
    }

    fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<()> {
        self.value(&mut value.value);
        self.done()
    }
}
