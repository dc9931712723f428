//! Random predicates, expressions, aggregates and windows.

use std::fmt::Write;

use super::kind::{COMMON_VALUES, Kind, Text};
use super::query::{Generator, Relation, Typed, columns};

impl Generator<'_> {
    pub fn filter(&mut self, relations: &[Relation], depth: usize) -> String {
        let parts: Vec<String> =
            (0..self.random.weighted(&[52, 37, 11])).map(|_| self.predicate(relations, depth)).collect();
        if parts.is_empty() { String::new() } else { format!(" WHERE {}", parts.join(" AND ")) }
    }

    fn predicate(&mut self, relations: &[Relation], depth: usize) -> String {
        let scope = columns(relations);
        match self.random.weighted(&[45, 8, 10, 4, 9, 9, 6, 6, 6, 3]) {
            0 => self.simple_predicate(relations),
            1 => format!("({} OR {})", self.simple_predicate(relations), self.simple_predicate(relations)),
            at @ (2 | 3) => {
                let key = self.key(relations);
                let not = if at == 3 { "NOT " } else { "" };
                format!("{} {not}IN ({})", key.sql, self.list(&key, relations, depth))
            }
            4 => format!("EXISTS ({})", self.correlated("1", &scope)),
            5 => format!("NOT EXISTS ({})", self.correlated("1", &scope)),
            6 => match self.scalar_subquery(&scope, None) {
                Some(subquery) => {
                    let like: Vec<&Typed> = scope.iter().filter(|c| c.kind.is_like(subquery.kind)).collect();
                    match like.as_slice() {
                        [] => format!("{} IS NOT NULL", subquery.sql),
                        like => format!("{} <= {}", self.random.pick(like).sql, subquery.sql),
                    }
                }
                None => self.simple_predicate(relations),
            },
            7 => {
                let of = self.any(relations);
                match self.whole_scalar(of.kind) {
                    Some(scalar) => format!("{} >= {scalar}", of.sql),
                    None => format!("{} IS NOT NULL", of.sql),
                }
            }
            8 => {
                let of = self.any(relations);
                let other: Vec<&Typed> = scope.iter().filter(|c| c.kind.is_like(of.kind) && c.sql != of.sql).collect();
                match other.as_slice() {
                    [] => self.comparison(&of),
                    other => format!("{} = {}", of.sql, self.random.pick(other).sql),
                }
            }
            _ => format!("({} OR EXISTS ({}))", self.simple_predicate(relations), self.correlated("1", &scope)),
        }
    }

    /// A list or subquery of values like a key's, right of IN.
    fn list(&mut self, key: &Typed, relations: &[Relation], depth: usize) -> String {
        if self.random.chance(15) {
            return format!("{}, {}", self.literal(key.kind), self.literal(key.kind));
        }
        let scope = columns(relations);
        if self.random.chance(20) {
            return self.correlated("k", &scope);
        }
        let (from, inner) = self.from(depth.saturating_sub(1));
        let like: Vec<Typed> = columns(&inner).into_iter().filter(|c| c.kind.is_like(key.kind)).collect();
        let keys: Vec<&Typed> = like.iter().filter(|c| c.sql.ends_with(".k")).collect();
        let value = match (keys.as_slice(), like.as_slice()) {
            ([key, ..], _) => key.sql.clone(),
            (_, [first, ..]) => first.sql.clone(),
            _ => self.literal(key.kind),
        };
        format!("SELECT {value} {from}{}", self.filter(&inner, 0))
    }

    /// `SELECT what FROM a table WHERE its column = one of the scope's AND …`.
    fn correlated(&mut self, what: &str, scope: &[Typed]) -> String {
        let (source, inner) = self.source(0);
        let right = columns(std::slice::from_ref(&inner));
        let mut on = self.join_condition(&right, scope);
        if self.random.chance(40) {
            write!(on, " AND {}", self.simple_predicate(std::slice::from_ref(&inner))).unwrap();
        }
        let what = if what == "1" { "1".into() } else { format!("{}.{what}", inner.alias) };
        format!("SELECT {what} FROM {source} WHERE {on}")
    }

    /// A correlated scalar subquery: an aggregate of a source, `call` if it is given.
    pub fn scalar_subquery(&mut self, scope: &[Typed], call: Option<&str>) -> Option<Typed> {
        let (source, inner) = self.source(0);
        let right = columns(std::slice::from_ref(&inner));
        let same_name = |l: &Typed, r: &Typed| l.sql.rsplit('.').next() == r.sql.rsplit('.').next();
        let pairs: Vec<(&Typed, &Typed)> = scope
            .iter()
            .flat_map(|l| right.iter().map(move |r| (l, r)))
            .filter(|(l, r)| l.kind.is_like(r.kind) && same_name(l, r))
            .collect();
        if pairs.is_empty() {
            return None;
        }
        let (outer, own) = *self.random.pick(&pairs[..pairs.len().min(2)]);
        let aggregate = match call {
            Some(call) => Typed { sql: call.into(), kind: Kind::Int(64) },
            None => self.aggregate_of(std::slice::from_ref(&inner)),
        };
        let mut filter = format!("{} = {}", own.sql, outer.sql);
        if self.random.chance(30) {
            write!(filter, " AND {}", self.simple_predicate(std::slice::from_ref(&inner))).unwrap();
        }
        let sql = format!("(SELECT {} FROM {source} WHERE {filter})", aggregate.sql);
        Some(Typed { sql, kind: aggregate.kind })
    }

    /// A scalar subquery over a whole table, of a value like `kind`.
    pub fn whole_scalar(&mut self, kind: Kind) -> Option<String> {
        let alias = self.alias();
        let (from, relation) = self.table(alias);
        let scope = columns(std::slice::from_ref(&relation));
        let like: Vec<&Typed> = scope.iter().filter(|c| c.kind.is_like(kind)).collect();
        if like.is_empty() {
            return None;
        }
        let x: Typed = (*self.random.pick(&like)).clone();
        let call = match self.random.below(5) {
            0 if x.kind.is_integer() && x.kind != Kind::Int(64) => format!("avg({})", x.sql),
            0 | 1 => format!("max({})", x.sql),
            2 if kind.is_integer() => "count(*)".into(),
            _ => format!("min({})", x.sql),
        };
        let filter = if self.random.chance(25) { format!(" WHERE {}", self.comparison(&x)) } else { String::new() };
        Some(format!("(SELECT {call} FROM {from}{filter})"))
    }

    pub fn simple_predicate(&mut self, relations: &[Relation]) -> String {
        let of = if self.random.chance(80) { self.any(relations) } else { self.expr(relations) };
        self.comparison(&of)
    }

    pub fn comparison(&mut self, of: &Typed) -> String {
        let (x, value) = (&of.sql, self.literal(of.kind));
        if !of.kind.is_comparable() {
            return format!("{x} IS NOT NULL");
        }
        match self.random.weighted(&[20, 20, 15, 10, 8, 10, 5]) {
            0 => format!("{x} >= {value}"),
            1 => format!("{x} <> {value}"),
            2 => format!("{x} = {value}"),
            3 => format!("{x} IS NOT NULL"),
            4 => format!("{x} IS NULL"),
            5 => format!("{x} BETWEEN {value} AND {}", self.literal(of.kind)),
            _ => format!("NOT ({x} < {value})"),
        }
    }

    pub fn literal(&mut self, kind: Kind) -> String {
        kind.literal(self.random.below(COMMON_VALUES))
    }

    pub fn expr(&mut self, relations: &[Relation]) -> Typed {
        let of = self.any(relations);
        match self.random.below(4) {
            0 => {
                let test = self.simple_predicate(relations);
                Typed { sql: format!("CASE WHEN {test} THEN {} END", of.sql), kind: of.kind }
            }
            1 if of.kind.is_text() => Typed { sql: format!("{} || 'x'", of.sql), kind: Kind::Text(Text::Plain) },
            1 if of.kind.is_time() => {
                Typed { sql: format!("CAST(date_part('day', {}) AS INT)", of.sql), kind: Kind::Int(32) }
            }
            _ => self.wrapped(&of),
        }
    }

    pub fn aggregate_of(&mut self, relations: &[Relation]) -> Typed {
        let of = self.any(relations);
        let (x, kind) = (&of.sql, of.kind);
        let (call, kind) = match self.random.weighted(&[18, 10, 8, 22, 11, 11, 8, 6, 3, 3, 6, 4]) {
            0 => ("count(*)".to_string(), Kind::Int(64)),
            1 => (format!("count({x})"), Kind::Int(64)),
            2 => (format!("count(DISTINCT {x})"), Kind::Int(64)),
            3 => sum(x, kind),
            4 => (format!("min({})", of.sql), kind),
            5 => (format!("max({})", of.sql), kind),
            6 if matches!(kind, Kind::Decimal(..)) => (kind.cast(&format!("avg({x})")), kind),
            6 if kind.is_number() => (format!("avg({x})"), Kind::Inexact),
            7 if kind.is_text() => (format!("string_agg({x}, '-' ORDER BY {x})"), Kind::Text(Text::Plain)),
            7 if kind == Kind::Int(64) => (format!("array_agg({x} ORDER BY {x})"), Kind::List),
            7 | 8 => {
                let total: Vec<String> = columns(relations).into_iter().map(|column| column.sql).collect();
                let function = *self.random.pick(&["first_value", "last_value"]);
                (format!("{function}({x} ORDER BY {})", total.join(", ")), kind)
            }
            9 if matches!(kind, Kind::Int(_)) => {
                let function = *self.random.pick(&["bit_and", "bit_or", "bit_xor"]);
                (format!("{function}({x})"), kind)
            }
            10 if kind.is_number() && kind != Kind::Float(32) => {
                let function = *self.random.pick(&["stddev", "stddev_pop", "var_pop", "var_samp"]);
                (format!("{function}({x})"), Kind::Inexact)
            }
            11 if kind.is_integer() => self.of_two(x, relations),
            11 if !matches!(kind, Kind::Float(_) | Kind::Bool) => (format!("approx_distinct({x})"), Kind::UInt(64)),
            _ => (format!("{}({x} IS NULL)", self.random.pick(&["bool_or", "bool_and"])), Kind::Bool),
        };
        if call == "count(*)" && self.random.chance(20) {
            let filter = self.simple_predicate(relations);
            return Typed { sql: format!("count(*) FILTER (WHERE {filter})"), kind };
        }
        Typed { sql: call, kind }
    }

    /// Aggregates of two numbers, defined only where both vary.
    fn of_two(&mut self, x: &str, relations: &[Relation]) -> (String, Kind) {
        let scope = columns(relations);
        let others: Vec<&Typed> = scope.iter().filter(|c| c.kind.is_integer() && c.sql != x).collect();
        if others.is_empty() {
            return (format!("covar_pop({x}, {x})"), Kind::Inexact);
        }
        let y = &self.random.pick(&others).sql;
        let function = *self.random.pick(&["corr", "covar_samp", "regr_slope", "regr_count"]);
        let varies = |a: &str, b: &str| {
            let both = format!("CASE WHEN {b} IS NOT NULL THEN {a} END");
            format!("min({both}) < max({both})")
        };
        let sql = format!("CASE WHEN {} AND {} THEN {function}({x}, {y}) END", varies(x, y), varies(y, x));
        (sql, Kind::Inexact)
    }

    /// A PARTITION BY, or none.
    pub fn partition_by(&mut self, relations: &[Relation]) -> String {
        let mut by = Vec::new();
        if self.random.chance(85) {
            by.push(self.key(relations).sql);
        }
        if self.random.chance(25) {
            by.push(self.any(relations).sql);
        }
        if by.is_empty() { String::new() } else { format!("PARTITION BY {} ", by.join(", ")) }
    }

    /// A window. Those that number rows, and so tell equal ones apart, all partition by `ordered_by`: which of two equal
    /// rows is first in one window and in another is nobody's business.
    pub fn window(&mut self, relations: &[Relation], ordered_by: &str) -> Typed {
        let by = self.partition_by(relations);
        let total: Vec<String> = columns(relations).into_iter().map(|column| column.sql).collect();
        let total = format!("{ordered_by}ORDER BY {}", total.join(", "));
        let of = self.any(relations);
        let (x, some, kind) = (&of.sql, self.any(relations), of.kind);
        let rows = "ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING";
        let (sql, kind) = match self.random.below(13) {
            0 => (format!("row_number() OVER ({total})"), Kind::UInt(64)),
            1 => (format!("rank() OVER ({by}ORDER BY {} DESC)", some.sql), Kind::UInt(64)),
            2 => (format!("dense_rank() OVER ({by}ORDER BY {} NULLS FIRST)", some.sql), Kind::UInt(64)),
            3 => (format!("lag({x}) OVER ({total})"), kind),
            4 => (format!("first_value({x}) OVER ({total})"), kind),
            5 => (format!("count({x}) OVER ({by}ORDER BY {})", some.sql), Kind::Int(64)),
            6 => (format!("max({x}) OVER ({total} {rows})"), kind),
            7 | 8 if kind.is_number() => {
                let (call, kind) = sum(x, kind);
                let frame = if self.random.chance(40) { format!("{total} {rows}") } else { by };
                (call.replace(&format!("sum({x})"), &format!("sum({x}) OVER ({frame})")), kind)
            }
            9 => (format!("ntile(3) OVER ({total})"), Kind::UInt(64)),
            10 if some.kind.is_integer() => {
                let range = "RANGE BETWEEN 1 PRECEDING AND CURRENT ROW";
                (format!("count(*) OVER ({by}ORDER BY {} {range})", some.sql), Kind::Int(64))
            }
            11 => (format!("lead({x}, 2) OVER ({total})"), kind),
            _ => (format!("count(*) OVER ({by})"), Kind::Int(64)),
        };
        Typed { sql, kind }
    }
}

fn sum(x: &str, kind: Kind) -> (String, Kind) {
    match kind {
        Kind::Int(_) => (format!("sum({x})"), Kind::Int(64)),
        Kind::UInt(_) => (format!("sum({x})"), Kind::UInt(64)),
        Kind::Decimal(_, scale) => (Kind::Decimal(20, scale).cast(&format!("sum({x})")), Kind::Decimal(20, scale)),
        Kind::Float(64) => (format!("sum({x})"), Kind::Inexact),
        _ => ("count(*)".into(), Kind::Int(64)),
    }
}
