//! The columns of a FROM, joins by USING and NATURAL among them.

use std::collections::{HashMap, HashSet};

use datafusion::common::{Result, TableReference};
use sqlparser::ast::{
    BinaryOperator, Expr, Ident, Join, JoinConstraint, JoinOperator, Spanned, TableAlias, TableFactor, TableWithJoins,
    Value,
};
use sqlparser::tokenizer::Span;

use crate::plan::query::error::at;
use crate::plan::query::names::columns::{ColumnName, Known};
use crate::plan::query::names::replace::Replace;
use crate::plan::query::syntax::{call, normalised, quoted};

/// What a FROM has.
#[derive(Debug, Default, Clone)]
pub(super) struct Scope {
    /// What `*` stands for, in order.
    pub visible: Vec<Visible>,
    /// All columns of relations, also those that `*` has as one.
    pub columns: Vec<ColumnName>,
    /// Names of relations.
    pub relations: HashSet<String>,
}

/// A part of what `*` stands for.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there are few at a time")]
pub(super) enum Visible {
    /// A column of a relation.
    Column(ColumnName),
    /// A column that USING or NATURAL make of several.
    Merged {
        /// What it is called.
        name: String,
        /// What it is.
        value: Expr,
    },
    /// All columns of a relation that nobody asked for, by its name.
    Unknown(Option<Ident>),
}

impl Scope {
    /// The columns of `from`, whose joins by name are written with ON; `None` when those of a relation are not known.
    pub(super) fn bind(from: &mut [TableWithJoins], known: &Known) -> Result<Option<Self>> {
        let mut all = Self::default();
        for table in from {
            let Some(scope) = Self::of_table(table, known, &all)? else { return Ok(None) };
            all = all.and(scope);
        }
        Ok(Some(all))
    }

    /// What an unqualified name stands for where two relations have it as one.
    pub(super) fn merged(&self) -> HashMap<String, Expr> {
        let mut merged = HashMap::new();
        for part in &self.visible {
            if let Visible::Merged { name, value } = part
                // Named by several, it is ambiguous, as DataFusion will say.
                && self.visible.iter().filter(|other| other.name() == Some(name)).count() == 1
            {
                merged.insert(name.clone(), value.clone());
            }
        }
        merged
    }

    fn and(mut self, other: Self) -> Self {
        self.visible.extend(other.visible);
        self.columns.extend(other.columns);
        self.relations.extend(other.relations);
        self
    }

    /// `before` is what stands before it in FROM, which a lateral query may name.
    fn of_table(table: &mut TableWithJoins, known: &Known, before: &Self) -> Result<Option<Self>> {
        let TableWithJoins { relation, joins } = table;
        let Some(mut scope) = Self::of_factor(relation, known, before)? else { return Ok(None) };
        for join in joins {
            let outer = before.clone().and(scope.clone());
            let Some(right) = Self::of_factor(&mut join.relation, known, &outer)? else { return Ok(None) };
            scope = scope.joined(right, join, known)?;
        }
        Ok(Some(scope))
    }

    fn of_factor(factor: &mut TableFactor, known: &Known, before: &Self) -> Result<Option<Self>> {
        if let TableFactor::NestedJoin { table_with_joins, alias: None } = factor {
            return Self::of_table(table_with_joins, known, before);
        }
        let alias = match factor {
            TableFactor::UNNEST { alias, array_exprs, .. } => {
                Replace::new(before, known).all(array_exprs)?;
                Some(alias.clone())
            }
            TableFactor::Function { alias, args, .. } => {
                Replace::new(before, known).all(args)?;
                Some(alias.clone())
            }
            TableFactor::Derived { lateral: true, subquery, alias, .. } => {
                Replace::new(before, known).all(subquery)?;
                let alias = alias.clone();
                let columns = known.columns(factor);
                return Ok(columns.map(|columns| Self::of_columns(renamed(columns, alias.as_ref()))));
            }
            _ => None,
        };
        if let Some(alias) = alias {
            return Ok(Some(Self::of_unnamed(alias)));
        }
        Ok(known.columns(factor).map(|columns| Self::of_columns(columns.to_vec())))
    }

    fn of_columns(columns: Vec<ColumnName>) -> Self {
        let relations =
            columns.iter().filter_map(|column| Some(column.relation.as_ref()?.table().to_string())).collect();
        Self { visible: columns.iter().cloned().map(Visible::Column).collect(), columns, relations }
    }

    /// Of a relation of which an alias may say what its columns are.
    fn of_unnamed(alias: Option<TableAlias>) -> Self {
        let Some(TableAlias { name, columns, .. }) = alias else {
            return Self { visible: vec![Visible::Unknown(None)], ..Self::default() };
        };
        let relation = normalised(&name);
        if columns.is_empty() {
            let relations = HashSet::from([relation]);
            return Self { visible: vec![Visible::Unknown(Some(name))], columns: Vec::new(), relations };
        }
        let column = |name: &Ident| ColumnName {
            relation: Some(TableReference::bare(relation.clone())),
            name: normalised(name),
        };
        Self::of_columns(columns.iter().map(|part| column(&part.name)).collect())
    }

    /// Both sides of a join, whose condition becomes an ON.
    fn joined(self, right: Self, join: &mut Join, known: &Known) -> Result<Self> {
        use JoinOperator as Op;
        let kind = Kind::of(&join.join_operator);
        let span = join.relation.span();
        let (Op::Join(constraint)
        | Op::Inner(constraint)
        | Op::Left(constraint)
        | Op::LeftOuter(constraint)
        | Op::Right(constraint)
        | Op::RightOuter(constraint)
        | Op::FullOuter(constraint)
        | Op::Semi(constraint)
        | Op::LeftSemi(constraint)
        | Op::RightSemi(constraint)
        | Op::Anti(constraint)
        | Op::LeftAnti(constraint)
        | Op::RightAnti(constraint)) = &mut join.join_operator
        else {
            return Ok(self.and(right));
        };
        let names: Vec<(String, Span)> = match constraint {
            JoinConstraint::On(condition) => {
                Replace::new(&self.clone().and(right.clone()), known).all(condition)?;
                return Ok(self.kept(right, kind, &[]));
            }
            JoinConstraint::None => return Ok(self.kept(right, kind, &[])),
            JoinConstraint::Using(names) => {
                let idents = names.iter().filter_map(|name| name.0.first()?.as_ident());
                idents.map(|name| (normalised(name), name.span)).collect()
            }
            JoinConstraint::Natural => self.common(&right, span)?.into_iter().map(|name| (name, span)).collect(),
        };
        let mut pairs = Vec::with_capacity(names.len());
        for (name, span) in &names {
            let (left, right) = (self.one(name, "left", *span)?, right.one(name, "right", *span)?);
            pairs.push((name.clone(), left, right));
        }
        let equal = |(_, left, right): &(String, Expr, Expr)| Expr::BinaryOp {
            left: Box::new(left.clone()),
            op: BinaryOperator::Eq,
            right: Box::new(right.clone()),
        };
        let and =
            |left, right| Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: Box::new(right) };
        // NATURAL without a column of both sides pairs all rows.
        let condition = pairs.iter().map(equal).reduce(and);
        *constraint = JoinConstraint::On(condition.unwrap_or_else(|| Expr::Value(Value::Boolean(true).into())));
        Ok(self.kept(right, kind, &pairs))
    }

    /// The columns that both sides have.
    fn common(&self, right: &Self, span: Span) -> Result<Vec<String>> {
        if self.visible.iter().chain(&right.visible).any(|part| matches!(part, Visible::Unknown(_))) {
            let message = "NATURAL needs the names of all columns; write UNNEST(…) AS name(column), or ON";
            return Err(at(span, message));
        }
        let has = |scope: &Self, name: &str| scope.visible.iter().any(|part| part.name() == Some(name));
        let names = self.visible.iter().filter_map(Visible::name).filter(|name| has(right, name));
        Ok(names.map(str::to_string).collect())
    }

    /// What `name` is on one side of a join.
    fn one(&self, name: &str, side: &str, span: Span) -> Result<Expr> {
        let mut found = self.visible.iter().filter(|part| part.name() == Some(name));
        match (found.next(), found.next()) {
            (Some(part), None) => Ok(part.value(span)),
            (Some(_), Some(_)) => Err(at(
                span,
                format!("the {side} side of the join has two columns `{name}`; write ON with the one that is meant"),
            )),
            (None, _) => {
                Err(at(span, format!("the {side} side of the join has no column `{name}`{}", self.similar(name))))
            }
        }
    }

    /// A hint at a column of the name in other letters.
    fn similar(&self, name: &str) -> String {
        let mut names = self.visible.iter().filter_map(Visible::name);
        match names.find(|other| other.eq_ignore_ascii_case(name)) {
            Some(other) => format!("; names without quotes are lower case: write \"{other}\" in double quotes"),
            None => "; write ON with columns of both sides".to_string(),
        }
    }

    /// What is to be seen of both sides.
    fn kept(self, right: Self, kind: Kind, pairs: &[(String, Expr, Expr)]) -> Self {
        match kind {
            Kind::OnlyLeft => return self,
            Kind::OnlyRight => return right,
            Kind::Left | Kind::Right | Kind::Full => {}
        }
        let merged = |name: &str| pairs.iter().find(|(other, ..)| other == name);
        let mut visible = Vec::with_capacity(self.visible.len() + right.visible.len());
        for part in self.visible {
            visible.push(match part.name().and_then(merged) {
                Some((name, left, right)) => {
                    let value = match kind {
                        Kind::Right | Kind::OnlyRight => right.clone(),
                        Kind::Full => coalesce(left, right),
                        Kind::Left | Kind::OnlyLeft => left.clone(),
                    };
                    Visible::Merged { name: name.clone(), value }
                }
                None => part,
            });
        }
        visible.extend(right.visible.into_iter().filter(|part| part.name().and_then(merged).is_none()));
        let columns = self.columns.into_iter().chain(right.columns).collect();
        Self { visible, columns, relations: self.relations.into_iter().chain(right.relations).collect() }
    }
}

impl Visible {
    /// What it is called.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Column(column) => Some(&column.name),
            Self::Merged { name, .. } => Some(name),
            Self::Unknown(_) => None,
        }
    }

    /// What it is.
    pub(super) fn value(&self, span: Span) -> Expr {
        match self {
            Self::Column(column) => column.expr(span),
            Self::Merged { value, .. } => value.clone(),
            Self::Unknown(_) => Expr::Value(Value::Null.into()),
        }
    }
}

impl ColumnName {
    /// The column, named so that it can't be taken for another.
    pub(super) fn expr(&self, span: Span) -> Expr {
        let name = quoted(&self.name, span);
        match &self.relation {
            None => Expr::Identifier(name),
            Some(relation) => Expr::CompoundIdentifier(vec![quoted(relation.table(), span), name]),
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Left,
    Right,
    Full,
    OnlyLeft,
    OnlyRight,
}

impl Kind {
    /// Which side's rows are all there.
    fn of(operator: &JoinOperator) -> Self {
        match operator {
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) => Self::Right,
            JoinOperator::FullOuter(_) => Self::Full,
            JoinOperator::Semi(_) | JoinOperator::LeftSemi(_) | JoinOperator::Anti(_) | JoinOperator::LeftAnti(_) => {
                Self::OnlyLeft
            }
            JoinOperator::RightSemi(_) | JoinOperator::RightAnti(_) => Self::OnlyRight,
            JoinOperator::Join(_)
            | JoinOperator::Inner(_)
            | JoinOperator::Left(_)
            | JoinOperator::LeftOuter(_)
            | JoinOperator::CrossJoin(_)
            | JoinOperator::StraightJoin(_)
            | JoinOperator::AsOf { .. }
            | JoinOperator::CrossApply
            | JoinOperator::OuterApply
            | JoinOperator::ArrayJoin
            | JoinOperator::LeftArrayJoin
            | JoinOperator::InnerArrayJoin => Self::Left,
        }
    }
}

/// `coalesce(left, right)`, of which the left may be one already.
fn coalesce(left: &Expr, right: &Expr) -> Expr {
    call("coalesce", vec![left.clone(), right.clone()], Span::empty())
}

/// Columns of a query behind its alias.
fn renamed(columns: &[ColumnName], alias: Option<&TableAlias>) -> Vec<ColumnName> {
    let Some(TableAlias { name, columns: names, .. }) = alias else { return columns.to_vec() };
    let relation = Some(TableReference::bare(normalised(name)));
    let of = |at: usize, column: &ColumnName| ColumnName {
        relation: relation.clone(),
        name: names.get(at).map_or_else(|| column.name.clone(), |part| normalised(&part.name)),
    };
    columns.iter().enumerate().map(|(at, column)| of(at, column)).collect()
}
