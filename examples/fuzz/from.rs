//! What a random query reads: tables, subqueries and other relations, joined.

use std::fmt::Write;

use super::kind::{COMMON_VALUES, Kind, Text};
use super::query::{Generator, Relation, Select, Typed, columns};
use super::table::Column;

impl Generator<'_> {
    /// Relations joined; those that a semi or anti join hides are not among the returned.
    pub fn from(&mut self, depth: usize) -> (String, Vec<Relation>) {
        const JOINS: [&str; 8] =
            ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN", ","];
        let (first, relation) = self.source(depth);
        let mut sql = format!("FROM {first}");
        let mut visible = vec![relation];
        let joins = self.random.weighted(&[45, 39, 16]);
        for at in 1..=joins {
            let (next, relation) = self.source(depth);
            let join = self.random.weighted(&[40, 20, 10, 5, 3, 6, 6, 3]);
            let using = visible.len() == 1 && self.random.chance(15);
            let (left, right) = (columns(&visible), columns(std::slice::from_ref(&relation)));
            match JOINS[join] {
                "CROSS JOIN" => write!(sql, " CROSS JOIN {next}").unwrap(),
                // What is joined after a comma would not see what stands before it.
                "," if at == joins => write!(sql, ", {next}").unwrap(),
                "," => write!(sql, " CROSS JOIN {next}").unwrap(),
                keyword if using && join < 4 && comparable_keys(&left, &right) => {
                    write!(sql, " {keyword} {next} USING (k)").unwrap();
                }
                keyword => {
                    let on = self.join_condition(&left, &right);
                    write!(sql, " {keyword} {next} ON {on}").unwrap();
                }
            }
            if !matches!(JOINS[join], "LEFT SEMI JOIN" | "LEFT ANTI JOIN") {
                visible.push(relation);
            }
        }
        (sql, visible)
    }

    pub fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("r{}", self.aliases)
    }

    pub fn source(&mut self, depth: usize) -> (String, Relation) {
        let alias = self.alias();
        if !self.ctes.is_empty() && self.random.chance(50) {
            let cte = self.random.pick(&self.ctes).clone();
            return (format!("{} AS {alias}", cte.alias), Relation { alias, columns: cte.columns });
        }
        if depth > 0 && self.random.chance(22) {
            let mut query = self.query(depth - 1);
            if self.random.chance(8) && query.columns.iter().all(|column| column.kind.is_comparable()) {
                query.sql = self.limited(&query.sql, &query.columns);
            }
            return derived(query, alias);
        }
        match self.random.weighted(&[1, 1, 2, 1, 95]) {
            0 => {
                let kind = self.random.pick(self.tables).columns[0].kind;
                let values: Vec<String> = (0..1 + self.random.below(4))
                    .map(|_| format!("({})", kind.value(self.random.below(COMMON_VALUES))))
                    .collect();
                let null = if self.random.chance(30) { ", (NULL)" } else { "" };
                let columns = vec![Column { name: "k".into(), kind }];
                (format!("(VALUES {}{null}) AS {alias}(k)", values.join(", ")), Relation { alias, columns })
            }
            1 => {
                let end = 1 + self.random.below(5);
                let sql = format!("SELECT value AS a FROM generate_series(-1, {end})");
                derived(Select { sql, columns: vec![Column { name: "a".into(), kind: Kind::Int(64) }] }, alias)
            }
            2 => self.unnested(alias),
            3 => self.recursive(alias),
            _ => self.table(alias),
        }
    }

    /// One of the tables.
    pub fn table(&mut self, alias: String) -> (String, Relation) {
        let table = self.random.pick(self.tables);
        let comparable = table.columns.iter().filter(|c| c.kind.is_comparable());
        self.read.extend(comparable.map(|c| c.name.clone()));
        (format!("{} AS {alias}", table.name), Relation { alias, columns: table.columns.clone() })
    }

    fn unnested(&mut self, alias: String) -> (String, Relation) {
        let inner = self.alias();
        let (from, table) = self.table(inner.clone());
        let (list, kind) = match table.columns.iter().find(|c| c.kind == Kind::List) {
            Some(list) => (format!("{inner}.{}", list.name), Kind::Int(64)),
            None => (format!("make_array({inner}.k, {inner}.k)"), table.columns[0].kind),
        };
        let mut columns: Vec<Column> = table.columns.iter().take(3).cloned().collect();
        if self.random.chance(25) {
            columns.remove(0);
        }
        let items: Vec<String> = columns.iter().map(|c| format!("{inner}.{} AS {}", c.name, c.name)).collect();
        columns.push(Column { name: "x".into(), kind });
        let sql = format!("SELECT {}, unnest({list}) AS x FROM {from}", items.join(", "));
        derived(Select { sql, columns }, alias)
    }

    /// A few rounds of a recursive query, over a table in each or not.
    fn recursive(&mut self, alias: String) -> (String, Relation) {
        let start = self.alias();
        let (from, table) = self.table(start.clone());
        let key = table.columns[usize::from(self.random.chance(30))].clone();
        let all = if self.random.chance(60) { " ALL" } else { "" };
        let step = match self.random.below(3) {
            0 => format!("SELECT {start}c.k, {start}c.n + 1 FROM {start}c WHERE {start}c.n < 2"),
            1 => {
                let table = from.split(' ').next().unwrap_or_default();
                let on = format!("z.{} = {start}c.k", key.name);
                format!(
                    "SELECT DISTINCT z.{}, {start}c.n + 1 FROM {start}c JOIN {table} AS z ON {on} WHERE {start}c.n < 2",
                    key.name
                )
            }
            _ => format!(
                "SELECT {start}c.k, {start}c.n + 1 FROM {start}c WHERE {start}c.n < 3 AND {start}c.k IS NOT NULL"
            ),
        };
        let sql = format!(
            "WITH RECURSIVE {start}c AS (SELECT DISTINCT {start}.{} AS k, CAST(0 AS BIGINT) AS n FROM {from} UNION{all} {step}) SELECT k, n FROM {start}c",
            key.name
        );
        let columns =
            vec![Column { name: "k".into(), kind: key.kind }, Column { name: "n".into(), kind: Kind::Int(64) }];
        derived(Select { sql, columns }, alias)
    }

    pub fn join_condition(&mut self, left: &[Typed], right: &[Typed]) -> String {
        let mut parts = Vec::new();
        for name in [".k", ".j"] {
            let l: Vec<&Typed> = left.iter().filter(|c| c.sql.ends_with(name)).collect();
            let r: Vec<&Typed> = right.iter().filter(|c| c.sql.ends_with(name)).collect();
            if l.is_empty() || r.is_empty() || self.random.chance(if name == ".k" { 12 } else { 75 }) {
                continue;
            }
            let (l, r) = (*self.random.pick(&l), *self.random.pick(&r));
            if l.kind.is_like(r.kind) {
                parts.push(self.equality(l, r));
            }
        }
        if parts.is_empty() || self.random.chance(20) {
            let pairs: Vec<(&Typed, &Typed)> = left
                .iter()
                .flat_map(|l| right.iter().map(move |r| (l, r)))
                .filter(|(l, r)| l.kind.is_like(r.kind))
                .collect();
            if !pairs.is_empty() {
                let (l, r) = *self.random.pick(&pairs);
                let operator = ["=", "<", "<>"][self.random.weighted(&[66, 22, 12])];
                parts.push(format!("{} {operator} {}", l.sql, r.sql));
            }
        }
        if self.random.chance(12) {
            let side = if self.random.chance(50) { left } else { right };
            if !side.is_empty() {
                let column = self.random.pick(side).clone();
                parts.push(self.comparison(&column));
            }
        }
        if parts.is_empty() { "1 = 1".into() } else { parts.join(" AND ") }
    }

    fn equality(&mut self, l: &Typed, r: &Typed) -> String {
        match self.random.weighted(&[70, 6, 5, 10, 5, 4]) {
            0 => format!("{} = {}", l.sql, r.sql),
            1 => format!("{} = {}", r.sql, l.sql),
            2 => format!("({} IS NOT DISTINCT FROM {})", l.sql, r.sql),
            3 => {
                let how = self.random.next() as usize;
                let (l, r) = (self.wrapped_as(l, how), self.wrapped_as(r, how));
                format!("{} = {}", l.sql, r.sql)
            }
            4 => {
                let l = self.wrapped(l);
                match l.kind.is_like(r.kind) {
                    true => format!("{} = {}", l.sql, r.sql),
                    false => "1 = 1".into(),
                }
            }
            _ => format!("({} = {} OR {} < {})", l.sql, r.sql, l.sql, r.sql),
        }
    }

    /// Something of `of` that rows may be joined or grouped by.
    pub fn wrapped(&mut self, of: &Typed) -> Typed {
        let how = self.random.next() as usize;
        self.wrapped_as(of, how)
    }

    /// Something of `of`; of comparable values the same for the same `how`.
    fn wrapped_as(&mut self, of: &Typed, how: usize) -> Typed {
        let Typed { sql: x, kind } = of;
        let text = Kind::Text(Text::Plain);
        let value = (how / 8) % COMMON_VALUES;
        let (sql, kind) = match (kind, how % 8) {
            // Texts of floats tell -0.0 from 0.0, and which of them a group has is open.
            (_, 0) if !matches!(kind, Kind::Float(_) | Kind::Inexact | Kind::Decimal(..)) => (text.cast(x), text),
            (_, 1) => (format!("CASE WHEN {x} IS NULL THEN {} ELSE {x} END", kind.value(value)), *kind),
            (k, 2) if k.is_integer() => (format!("{x} + 1"), Kind::Int(64)),
            (k, 3) if k.is_integer() => (format!("{x} % 3"), *kind),
            (k, 4) if k.is_number() => (format!("TRY_CAST({x} AS BIGINT)"), Kind::Int(64)),
            (k, 5) if k.is_number() => (Kind::Float(64).cast(x), Kind::Float(64)),
            (k, 6) if k.is_number() => (format!("TRY_CAST({x} AS DECIMAL(12, 1))"), Kind::Decimal(12, 1)),
            (k, 2) if k.is_text() => (format!("upper({x})"), text),
            (k, 3) if k.is_text() => (format!("substr({x}, 1, 1)"), text),
            (k, 2) if k.is_time() => (Kind::Date.cast(x), Kind::Date),
            (k, 3 | 4) if k.is_time() => (format!("date_trunc('day', {x})"), *kind),
            (k, 5) if k.is_time() => (format!("date_trunc('month', {x})"), *kind),
            _ => (format!("coalesce({x}, {})", kind.value(value)), *kind),
        };
        Typed { sql, kind }
    }
}

fn derived(query: Select, alias: String) -> (String, Relation) {
    (format!("({}) AS {alias}", query.sql), Relation { alias, columns: query.columns })
}

fn comparable_keys(left: &[Typed], right: &[Typed]) -> bool {
    let keys = |side: &[Typed]| side.iter().filter(|c| c.sql.ends_with(".k")).map(|c| c.kind).collect::<Vec<_>>();
    match (keys(left).as_slice(), keys(right).as_slice()) {
        ([l], [r]) => l.is_like(*r),
        _ => false,
    }
}
