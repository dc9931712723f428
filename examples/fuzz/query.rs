//! Random queries, and how they are cut.
//!
//! Queries are deterministic: windows and limits have a total order, and what was computed from floats is only selected.

use std::fmt::Write;

use arrow::datatypes::DataType;
use chunkwise::{ByExpr, ByRange, ByValue, Cut, InvocationContext, InvocationHook, Task, async_trait};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use datafusion::prelude::{ident, lit, try_cast};

use super::kind::{COMMON_VALUES, Kind};
use super::random::Random;
use super::table::{Column, Table};

/// A query and how it is cut.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: String,
    pub sql: String,
    /// `None` leaves the key to the engine.
    pub keys: Option<String>,
    pub chunks: u32,
}

/// Cuts by these predicates the inputs of a task that are some of these tables, at most so many.
#[derive(Debug)]
struct PerInput {
    tables: Vec<String>,
    predicates: Vec<Expr>,
    most: usize,
}

#[async_trait]
impl InvocationHook for PerInput {
    async fn cut(&self, context: &InvocationContext) -> chunkwise::Result<Cut> {
        let inputs = context.inputs().filter(|input| self.tables.iter().any(|table| table == input)).take(self.most);
        let inputs: Vec<_> = inputs.map(|input| (input, self.predicates.clone())).collect();
        Ok(if inputs.is_empty() { Cut::auto(3) } else { Cut::input_predicates(inputs) })
    }
}

/// A name in a FROM and its columns.
#[derive(Debug, Clone)]
pub struct Relation {
    pub alias: String,
    pub columns: Vec<Column>,
}

/// An expression or a column of a scope.
#[derive(Debug, Clone)]
pub struct Typed {
    pub sql: String,
    pub kind: Kind,
}

/// A query and its columns.
#[derive(Debug, Clone)]
pub struct Select {
    pub sql: String,
    pub columns: Vec<Column>,
}

/// Makes one query.
pub struct Generator<'a> {
    pub random: &'a mut Random,
    pub tables: &'a [Table],
    pub aliases: usize,
    pub ctes: Vec<Relation>,
    /// Names of columns of the tables that were read.
    pub read: Vec<String>,
}

impl Case {
    /// The task with chunks that are given in place of the hash: ranges, values or predicates of its key, or predicates of those
    /// of `tables` that it reads.
    pub fn invoked(&self, task: Task, tables: &[Table]) -> Task {
        let Some(key) = self.keys.as_deref().filter(|key| !key.contains([',', '"'])) else { return task };
        let numbers = [ScalarValue::Int64(Some(2)), ScalarValue::Int64(Some(0)), ScalarValue::Int64(Some(5))];
        let texts = ["b", "", "7"].map(ScalarValue::from);
        let values = if self.sql.len().is_multiple_of(4) { texts } else { numbers };
        // Any type is text, too.
        let as_text = try_cast(ident(key), DataType::Utf8View);
        match self.sql.len() % 4 {
            0 => task.invoke(ByRange::on(key).bounds(values)),
            1 => task.invoke(ByValue::groups(key, [vec![values[0].clone()], values[1..].to_vec()])),
            2 => {
                let has_key = |table: &&Table| table.columns.iter().any(|column| column.name == key);
                let tables = tables.iter().filter(has_key).map(|table| table.name.clone()).collect();
                let predicates = vec![
                    as_text.clone().gt_eq(lit("3")),
                    as_text.clone().lt(lit("3")).and(as_text.clone().not_like(lit("%0%"))),
                    as_text.clone().lt(lit("3")).and(as_text.clone().like(lit("%0%"))),
                    as_text.is_null(),
                ];
                let most = if self.chunks.is_multiple_of(3) { 1 } else { usize::MAX };
                task.invoke(PerInput { tables, predicates, most })
            }
            _ => task.invoke(ByExpr::new(
                [key],
                [as_text.clone().lt(lit("3")), as_text.like(lit("%5%")), ident(key).is_null()],
            )),
        }
    }

    /// The task's statement.
    pub fn statement(&self) -> String {
        let Self { name, sql, keys, chunks } = self;
        match keys {
            None => {
                let by = if chunks % 2 == 1 { "range" } else { "auto" };
                format!("CREATE TABLE {name} WITH (chunk_by = '{by}', chunks = {chunks}) AS\n{sql};\n")
            }
            Some(keys) => {
                let with = if chunks % 3 == 0 { " WITH (read_by = 'split')" } else { "" };
                format!("CREATE TABLE {name} CLUSTERED BY ({keys}) INTO {chunks} BUCKETS{with} AS\n{sql};\n")
            }
        }
    }
}

/// A case over `tables`; sometimes nearly the one before, which must not be taken for the same.
pub fn case(random: &mut Random, tables: &[Table], name: String, before: Option<&Case>) -> Case {
    let mut generator = Generator { random, tables, aliases: 0, ctes: Vec::new(), read: Vec::new() };
    let mut case = generator.case(name);
    if let Some(before) = before
        && random.chance(8)
    {
        case.sql = mutated(random, &before.sql);
        case.keys.clone_from(&before.keys);
        case.chunks = before.chunks;
    }
    case
}

/// `sql` with one of its words replaced by a similar one.
fn mutated(random: &mut Random, sql: &str) -> String {
    const PAIRS: [(&str, &str); 16] = [
        (".k", ".j"),
        (".j", ".k"),
        ("LEFT JOIN", "JOIN"),
        (" JOIN", " LEFT JOIN"),
        ("LEFT SEMI", "LEFT ANTI"),
        ("min(", "max("),
        ("max(", "min("),
        ("count(DISTINCT ", "count("),
        ("SELECT DISTINCT", "SELECT"),
        (" = ", " <> "),
        ("EXISTS", "NOT EXISTS"),
        ("UNION ALL", "UNION"),
        (" < ", " > "),
        (">=", ">"),
        (" AND ", " OR "),
        ("t0", "t1"),
    ];
    let (from, to) = *random.pick(&PAIRS);
    let places: Vec<usize> = sql.match_indices(from).map(|(at, _)| at).collect();
    // A recursive query might never end.
    if places.is_empty() || sql.contains("RECURSIVE") {
        return sql.to_string();
    }
    let at = *random.pick(&places);
    format!("{}{to}{}", &sql[..at], &sql[at + from.len()..])
}

impl Generator<'_> {
    fn case(&mut self, name: String) -> Case {
        let (sql, own_keys) = match self.random.chance(28) {
            true => self.shape(),
            false => (self.statement(), None),
        };
        let chunks = [1, 2, 3, 7, 16][self.random.weighted(&[4, 42, 36, 15, 3])];
        let keys = match own_keys {
            Some(keys) => Some(keys),
            None => self.keys(),
        };
        Case { name, sql, keys, chunks }
    }

    fn keys(&mut self) -> Option<String> {
        let other = (!self.read.is_empty()).then(|| self.random.pick(&self.read).clone());
        let keys = match (self.random.weighted(&[48, 12, 8, 10, 22]), other) {
            (_, None) | (4, _) => return None,
            (0, _) => "k".into(),
            (1, _) => "j".into(),
            (2, _) => "k, j".into(),
            (_, Some(other)) => other,
        };
        Some(keys)
    }

    fn statement(&mut self) -> String {
        let mut with = String::new();
        if self.random.chance(12) {
            let query = self.query(1);
            with = format!("WITH w AS ({})\n", query.sql);
            self.ctes.push(Relation { alias: "w".into(), columns: query.columns });
        }
        let query = self.query(2);
        let mut sql = query.sql;
        // What has no order can't be cut off anywhere.
        if query.columns.iter().all(|column| column.kind.is_comparable()) {
            sql = match self.random.weighted(&[86, 7, 7]) {
                0 => sql,
                1 => format!("SELECT * FROM ({sql}) AS o ORDER BY {}", self.order(query.columns.len())),
                _ => self.limited(&sql, &query.columns),
            };
        }
        format!("{with}{sql}")
    }

    /// Some of the rows of a query, in the order of all its columns.
    pub fn limited(&mut self, sql: &str, columns: &[Column]) -> String {
        let mut order: Vec<String> = columns.iter().map(|column| format!("o.{}", column.name)).collect();
        let by = self.random.below(order.len());
        order.rotate_left(by);
        let direction = *self.random.pick(&["", "", " DESC", " NULLS FIRST"]);
        let limit = 1 + self.random.below(12);
        let offset = match self.random.chance(35) {
            true => format!(" OFFSET {}", 1 + self.random.below(4)),
            false => String::new(),
        };
        format!("SELECT * FROM ({sql}) AS o ORDER BY {}{direction} LIMIT {limit}{offset}", order.join(", "))
    }

    /// All of so many columns, the first ones not always first.
    fn order(&mut self, columns: usize) -> String {
        let mut order: Vec<usize> = (1..=columns).collect();
        let by = self.random.below(columns);
        order.rotate_left(by);
        let direction = *self.random.pick(&["", "", " DESC", " NULLS FIRST"]);
        let order: Vec<String> = order.into_iter().map(|at| at.to_string()).collect();
        format!("{}{direction}", order.join(", "))
    }

    pub fn query(&mut self, depth: usize) -> Select {
        if depth > 0 && self.random.chance(12) { self.set_operation(depth - 1) } else { self.select(depth) }
    }

    fn set_operation(&mut self, depth: usize) -> Select {
        const OPERATORS: [&str; 6] = ["UNION ALL", "UNION", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"];
        let operator = OPERATORS[self.random.weighted(&[38, 20, 16, 16, 5, 5])];
        let wanted: Vec<Column> = {
            let table = self.random.pick(self.tables);
            let count = 1 + self.random.below(table.columns.len());
            let comparable = table.columns.iter().filter(|c| c.kind.is_comparable());
            comparable.take(count).cloned().collect()
        };
        let left = self.projected(&wanted, depth);
        let right = match self.random.chance(12) {
            // A branch without an input.
            true => {
                let items: Vec<String> = wanted
                    .iter()
                    .map(|c| format!("{} AS {}", c.kind.value(self.random.below(COMMON_VALUES)), c.name))
                    .collect();
                format!("SELECT {}", items.join(", "))
            }
            false => self.projected(&wanted, depth),
        };
        Select { sql: format!("({left}) {operator} ({right})"), columns: wanted }
    }

    /// A query with columns like `wanted`.
    fn projected(&mut self, wanted: &[Column], depth: usize) -> String {
        let (from, relations) = self.from(depth);
        let scope = columns(&relations);
        let exprs: Vec<String> = wanted
            .iter()
            .map(|column| {
                let end = format!(".{}", column.name);
                let same = scope.iter().find(|c| c.sql.ends_with(&end) && c.kind.is_like(column.kind));
                let like: Vec<&Typed> = scope.iter().filter(|c| c.kind.is_like(column.kind)).collect();
                let expr = match (same, like.as_slice()) {
                    (Some(same), _) if self.random.chance(85) => same.sql.clone(),
                    (_, []) => column.kind.cast("NULL"),
                    (_, like) => self.random.pick(like).sql.clone(),
                };
                format!("{expr} AS {}", column.name)
            })
            .collect();
        let distinct = if self.random.chance(10) { "DISTINCT " } else { "" };
        format!("SELECT {distinct}{} {from}{}", exprs.join(", "), self.filter(&relations, depth))
    }

    fn select(&mut self, depth: usize) -> Select {
        let (from, relations) = self.from(depth);
        let filter = self.filter(&relations, depth);
        match self.random.weighted(&[38, 32, 9, 14, 4]) {
            0 => {
                let items = self.items(&relations, depth);
                named("SELECT", items, &format!("{from}{filter}"))
            }
            1 => self.aggregate(&relations, &format!("{from}{filter}"), depth),
            2 => {
                let mut items = self.items(&relations, depth);
                items.retain(|item| item.kind.is_comparable());
                if items.is_empty() {
                    items.push(self.any(&relations));
                }
                named("SELECT DISTINCT", items, &format!("{from}{filter}"))
            }
            3 => {
                let more = 1 + self.random.below(3);
                let mut items = self.columns_of(&relations, more);
                let ordered_by = self.partition_by(&relations);
                for _ in 0..1 + self.random.below(2) {
                    items.push(self.window(&relations, &ordered_by));
                }
                named("SELECT", items, &format!("{from}{filter}"))
            }
            _ => {
                let on = if self.random.chance(80) { self.key(&relations) } else { self.any(&relations) };
                let mut items = vec![on.clone()];
                items.extend(self.columns_of(&relations, 2));
                let others = columns(&relations).into_iter().map(|c| c.sql).filter(|sql| *sql != on.sql);
                let order: Vec<String> = [on.sql.clone()].into_iter().chain(others).collect();
                let head = format!("SELECT DISTINCT ON ({})", on.sql);
                named(&head, items, &format!("{from}{filter} ORDER BY {}", order.join(", ")))
            }
        }
    }

    fn aggregate(&mut self, relations: &[Relation], rest: &str, depth: usize) -> Select {
        let mut groups: Vec<Typed> = Vec::new();
        if self.random.chance(72) {
            let key = self.key(relations);
            groups.push(if self.random.chance(12) { self.wrapped(&key) } else { key });
        }
        for _ in 0..self.random.below(3) {
            let next = if self.random.chance(70) { self.any(relations) } else { self.expr(relations) };
            if groups.iter().all(|group| group.sql != next.sql) {
                groups.push(next);
            }
        }
        let list: Vec<String> = groups.iter().map(|group| group.sql.clone()).collect();
        // Windows over the groups.
        if depth > 0 && self.random.chance(6) {
            let call = self.aggregate_of(relations);
            let over = match groups.first() {
                Some(group) if self.random.chance(70) => format!("PARTITION BY {} ", group.sql),
                _ => String::new(),
            };
            let window = match call.kind.is_comparable() {
                true => format!("rank() OVER ({over}ORDER BY {} DESC)", call.sql),
                false => format!("count(*) OVER ({over})"),
            };
            groups.extend([call, Typed { sql: window, kind: Kind::UInt(64) }]);
        }
        let aggregates: Vec<Typed> = (0..1 + self.random.below(3)).map(|_| self.aggregate_of(relations)).collect();
        let mut group_by = match (list.len(), self.random.weighted(&[88, 4, 4, 4])) {
            (0, _) => String::new(),
            (_, 1) => format!(" GROUP BY ROLLUP ({})", list.join(", ")),
            (1 | 2, 2) => format!(" GROUP BY CUBE ({})", list.join(", ")),
            (2.., 3) => format!(" GROUP BY GROUPING SETS (({}), ({}))", list.join(", "), list[0]),
            _ => format!(" GROUP BY {}", list.join(", ")),
        };
        if self.random.chance(15) {
            let value = match self.random.below(4) {
                0 if depth > 0 && !list.is_empty() => {
                    self.scalar_subquery(&groups[..1], Some("count(*)")).map_or("1".into(), |subquery| subquery.sql)
                }
                1 => self.whole_scalar(Kind::Int(64)).unwrap_or("1".into()),
                _ => self.random.below(4).to_string(),
            };
            write!(group_by, " HAVING count(*) > {value}").unwrap();
        }
        // A correlated subquery over the groups.
        let mut items = groups.clone();
        if depth > 0 && !list.is_empty() && self.random.chance(4) {
            let group = groups[0].clone();
            items.extend(self.scalar_subquery(&[group], None));
        }
        items.extend(aggregates);
        named("SELECT", items, &format!("{rest}{group_by}"))
    }

    fn items(&mut self, relations: &[Relation], depth: usize) -> Vec<Typed> {
        let mut items = Vec::new();
        if self.random.chance(80) {
            items.push(self.key(relations));
        }
        for _ in 0..1 + self.random.below(3) {
            items.push(match self.random.weighted(&[55, 33, 5, 4, 3]) {
                0 => self.any(relations),
                1 => self.expr(relations),
                2 if depth > 0 => {
                    self.scalar_subquery(&columns(relations), None).unwrap_or_else(|| self.any(relations))
                }
                3 => {
                    let of = self.any(relations);
                    self.whole_scalar(of.kind).map_or(of.clone(), |sql| Typed { sql, kind: of.kind })
                }
                4 => {
                    let all = all_columns(relations);
                    self.random.pick(&all).clone()
                }
                _ => self.any(relations),
            });
        }
        if self.random.chance(2) {
            items.push(Typed { sql: "random() < 2".into(), kind: Kind::Bool });
        }
        items
    }

    fn columns_of(&mut self, relations: &[Relation], more: usize) -> Vec<Typed> {
        let key = self.key(relations);
        let others: Vec<Typed> = (0..more).map(|_| self.any(relations)).collect();
        [key].into_iter().chain(others).collect()
    }

    /// Any comparable column.
    pub fn any(&mut self, relations: &[Relation]) -> Typed {
        let scope = columns(relations);
        match scope.is_empty() {
            true => Typed { sql: "1".into(), kind: Kind::Int(64) },
            false => self.random.pick(&scope).clone(),
        }
    }

    /// A column named `k`, of the first relation that has one; any other column when none has.
    pub fn key(&mut self, relations: &[Relation]) -> Typed {
        let scope = columns(relations);
        let name = if self.random.chance(85) { ".k" } else { ".j" };
        let keys: Vec<&Typed> = scope.iter().filter(|c| c.sql.ends_with(name)).collect();
        match keys.as_slice() {
            [first, ..] if self.random.chance(75) => (*first).clone(),
            [] => self.any(relations),
            keys => (*self.random.pick(keys)).clone(),
        }
    }
}

/// The columns of `relations` that rows can be compared by, qualified.
pub fn columns(relations: &[Relation]) -> Vec<Typed> {
    all_columns(relations).into_iter().filter(|column| column.kind.is_comparable()).collect()
}

fn all_columns(relations: &[Relation]) -> Vec<Typed> {
    let of = |r: &Relation| {
        r.columns.iter().map(|c| Typed { sql: format!("{}.{}", r.alias, c.name), kind: c.kind }).collect::<Vec<_>>()
    };
    relations.iter().flat_map(of).collect()
}

/// `head items rest`, every item under a name of its own: a bare column keeps its name where that is free.
pub fn named(head: &str, items: Vec<Typed>, rest: &str) -> Select {
    let mut columns: Vec<Column> = Vec::new();
    let mut list = Vec::new();
    for (at, Typed { sql, kind }) in items.into_iter().enumerate() {
        // Names of expressions are made here, so they are not free.
        let is_bare = |name: &str| name.len() <= 2 && !name.contains(['x', '(', ')']);
        let bare = sql.split_once('.').filter(|(_, name)| is_bare(name)).map(|(_, name)| name.to_string());
        let name = bare.filter(|name| columns.iter().all(|c| c.name != *name)).unwrap_or_else(|| format!("x{at}"));
        list.push(format!("{sql} AS {name}"));
        columns.push(Column { name, kind });
    }
    Select { sql: format!("{head} {} {rest}", list.join(", ")), columns }
}
