//! Queries of certain shapes over random tables: each is refused, or done in steps, because of a rule that chance alone
//! would seldom ask. With that rule switched off they give wrong rows.

use arrow::datatypes::TimeUnit;

use super::kind::{COMMON_VALUES, Kind, Text};
use super::query::Generator;
use super::table::Table;

/// A query, and the key that it is meant for unless any will do.
type Shape = (String, Option<String>);

impl Generator<'_> {
    /// One of the shapes.
    pub fn shape(&mut self) -> Shape {
        match self.random.weighted(&[11, 6, 6, 6, 12, 8, 9, 12, 5, 12, 6, 5, 5, 11, 6, 5, 7, 2, 4, 4, 5, 4]) {
            0 => self.joined_elsewhere(),
            1 => self.kept_side(),
            2 => self.not_in(),
            3 => self.padded(),
            4 => self.no_conjunct(),
            5 => self.lossy_cast(),
            6 => self.float_texts(),
            7 => self.without_key(),
            8 => self.uncut_branch(),
            9 => self.keys_swapped(),
            10 => self.unnested_key(),
            11 => self.recursion(),
            12 => self.scalars(),
            13 => self.unstable(),
            14 => self.volatile(),
            15 => self.same_looks(),
            16 => self.ordered_states(),
            17 => self.two_own_keys(),
            18 => self.distinct_zeros(),
            19 => self.scalar_of_cut(),
            20 => self.kept_order(),
            _ => self.steps(),
        }
    }

    /// Both zeros, which a DISTINCT aggregate takes for one. Beside `count(q.k)` its values do not become groups.
    fn distinct_zeros(&mut self) -> Shape {
        let t = self.name();
        let zeros = format!("SELECT k, CAST(CASE WHEN a > 2 THEN '-0.0' ELSE '0.0' END AS DOUBLE) AS f FROM {t}");
        (format!("SELECT count(DISTINCT q.f) AS n, count(q.k) AS m FROM ({zeros}) q"), Some("k".into()))
    }

    /// Rows that LIMIT takes by the order of DISTINCT ON.
    fn kept_order(&mut self) -> Shape {
        let t = self.name();
        let (way, next) = (self.one_of(&["", " DESC", " NULLS FIRST"]), self.one_of(&["", " DESC"]));
        let (limit, offset) = (1 + self.random.below(4), self.random.below(3));
        let first = format!("SELECT DISTINCT ON (t.j) t.j AS j, t.a AS a FROM {t} t ORDER BY t.j{way}, t.a{next}");
        let sql = match self.random.below(3) {
            0 => format!("{first} LIMIT {limit} OFFSET {offset}"),
            1 => format!("SELECT q.j AS j FROM ({first} LIMIT {limit} OFFSET {offset}) q"),
            _ => format!("SELECT q.a AS a, count(*) AS n FROM ({first} LIMIT {limit}) q GROUP BY q.a"),
        };
        (sql, Some("j".into()))
    }

    /// Constant rows, compared with what one chunk alone knows.
    fn scalar_of_cut(&mut self) -> Shape {
        let table = self.some();
        let (t, value) = (&table.name, table.columns[0].kind.value(self.random.below(COMMON_VALUES)));
        let of = self.one_of(&["count(*)", "max(t.a)"]);
        let group = format!("SELECT {of} AS n FROM {t} t WHERE t.k = {value} GROUP BY t.k");
        // DataFusion takes a count for one that is never NULL, also where there is no group.
        let scalar =
            if of == "count(*)" { format!("(SELECT max(s.n) FROM ({group}) s)") } else { format!("({group})") };
        let sql = format!("SELECT v.x AS x FROM (VALUES (1), (2), (5), (9)) AS v(x) WHERE v.x > coalesce({scalar}, 0)");
        (sql, Some("k".into()))
    }

    fn some(&mut self) -> Table {
        let table = self.random.pick(self.tables);
        self.read.extend(table.columns.iter().filter(|c| c.kind.is_comparable()).map(|c| c.name.clone()));
        table.clone()
    }

    fn name(&mut self) -> String {
        self.some().name
    }

    /// A table with a column that no other has, and that column.
    fn with_own(&mut self) -> Option<(String, String)> {
        let own = self.tables.iter().filter_map(|table| {
            let column = table.columns.iter().find(|c| c.name.starts_with('e'))?;
            Some((table.name.clone(), column.name.clone()))
        });
        let own: Vec<(String, String)> = own.collect();
        (!own.is_empty()).then(|| self.random.pick(&own).clone())
    }

    /// A table whose keys compare with each other, if there is one.
    fn with_like_keys(&mut self) -> String {
        let compare = |table: &&Table| table.columns[0].kind.is_like(table.columns[1].kind);
        let both: Vec<&Table> = self.tables.iter().filter(compare).collect();
        if both.is_empty() { self.name() } else { self.random.pick(&both).name.clone() }
    }

    fn one_of(&mut self, texts: &[&str]) -> String {
        (*self.random.pick(texts)).to_string()
    }

    fn joined_elsewhere(&mut self) -> Shape {
        let (a, b, c) = (self.name(), self.name(), self.name());
        let sql = match self.random.below(4) {
            0 => format!(
                "SELECT aa.k AS k, bb.a AS a, cc.j AS j FROM {a} aa JOIN {b} bb ON aa.j = bb.j LEFT JOIN {c} cc ON cc.k = aa.k AND cc.k = bb.k"
            ),
            1 => format!(
                "SELECT aa.k AS k, bb.k AS m FROM {a} aa JOIN {b} bb ON aa.j = bb.j UNION ALL SELECT cc.k, cc.k AS m FROM {c} cc"
            ),
            2 => format!(
                "SELECT aa.k AS k, bb.k AS m FROM {a} aa LEFT JOIN {b} bb ON aa.a = bb.a UNION ALL SELECT cc.k, cc.k AS m FROM {c} cc"
            ),
            _ => format!(
                "SELECT aa.k AS k FROM {a} aa WHERE EXISTS (SELECT 1 FROM {b} bb WHERE aa.j = bb.j AND EXISTS (SELECT 1 FROM {c} cc WHERE cc.k = bb.k)) UNION ALL SELECT bb.k FROM {b} bb"
            ),
        };
        (sql, Some("k".into()))
    }

    fn kept_side(&mut self) -> Shape {
        let first = self.some();
        let a = &first.name;
        if self.random.chance(50)
            && let Some((b, own)) = self.with_own()
        {
            let sql = match self.random.below(4) {
                0 => format!(
                    "SELECT aa.k AS k, aa.a AS a, bb.{own} AS {own} FROM {a} aa LEFT JOIN {b} bb ON aa.k = bb.k"
                ),
                1 => format!("SELECT bb.{own} AS {own}, aa.a AS a FROM {b} bb FULL JOIN {a} aa ON aa.k = bb.k"),
                2 => format!(
                    "SELECT aa.k AS k, aa.a AS a FROM {a} aa WHERE NOT EXISTS (SELECT 1 FROM {b} bb WHERE bb.k = aa.k)"
                ),
                _ => format!("SELECT aa.k AS k, (SELECT count(*) FROM {b} bb WHERE bb.k = aa.k) AS n FROM {a} aa"),
            };
            return (sql, Some(own));
        }
        let kind = first.columns[0].kind;
        let values: Vec<String> =
            (0..3).map(|_| format!("({})", kind.value(self.random.below(COMMON_VALUES)))).collect();
        let values = format!("(VALUES {}, (NULL)) AS v(k)", values.join(", "));
        let sql = match self.random.below(3) {
            0 => format!("SELECT v.k AS k, t.a AS a FROM {values} LEFT JOIN {a} t ON v.k = t.k"),
            1 => format!("SELECT v.k AS v, t.k AS k FROM {a} t FULL JOIN {values} ON v.k = t.k"),
            _ => {
                format!("SELECT v.k AS v FROM {values} WHERE v.k NOT IN (SELECT t.k FROM {a} t WHERE t.k IS NOT NULL)")
            }
        };
        (sql, Some("k".into()))
    }

    fn not_in(&mut self) -> Shape {
        let (a, b) = (self.name(), self.name());
        let filter = self.one_of(&["", " WHERE bb.a > 1", " WHERE bb.a <> 0", " WHERE bb.k IS NULL OR bb.a > 2"]);
        (
            format!("SELECT aa.k AS k, aa.a AS a FROM {a} aa WHERE aa.k NOT IN (SELECT bb.k FROM {b} bb{filter})"),
            Some("k".into()),
        )
    }

    fn padded(&mut self) -> Shape {
        let (a, b, c) = (self.name(), self.name(), self.name());
        let (join, side) = match self.random.below(4) {
            0 | 1 => (format!("{a} aa LEFT JOIN {b} bb"), "bb"),
            2 => (format!("{b} bb RIGHT JOIN {a} aa"), "bb"),
            _ => (format!("{a} aa FULL JOIN {b} bb"), if self.random.chance(50) { "aa" } else { "bb" }),
        };
        let on = match self.random.below(3) {
            0 => "aa.k = bb.k AND bb.a > 1",
            _ => "aa.k = bb.k",
        };
        let sql = match self.random.below(5) {
            0 => format!("SELECT {side}.k AS k, count(*) AS n FROM {join} ON {on} GROUP BY {side}.k"),
            1 => format!("SELECT DISTINCT {side}.k AS k FROM {join} ON {on}"),
            2 => format!(
                "SELECT {side}.k AS k, aa.a AS a, count(*) OVER (PARTITION BY {side}.k) AS n FROM {join} ON {on}"
            ),
            3 => format!(
                "SELECT {side}.k AS k, cc.a AS a FROM {join} ON {on} JOIN {c} cc ON cc.k IS NOT DISTINCT FROM {side}.k"
            ),
            _ => {
                let or = self.one_of(&["aa.k = bb.k", "bb.k = aa.k"]);
                format!(
                    "SELECT q.m AS k, count(*) AS n FROM (SELECT {side}.k AS m, aa.a FROM {join} ON {or}) q GROUP BY q.m"
                )
            }
        };
        (sql, Some("k".into()))
    }

    fn no_conjunct(&mut self) -> Shape {
        let (a, b) = (self.with_like_keys(), self.name());
        let test = self.one_of(&[
            "t.k = t.j OR t.a > 0",
            "t.k = t.j OR t.a IS NOT NULL",
            "NOT (t.k = t.j)",
            "t.k = t.j OR t.k IS NULL",
            "(t.k = t.j) IS NOT TRUE",
        ]);
        let sql = match self.random.below(4) {
            0 => format!("SELECT t.j AS j, count(*) AS n FROM {a} t WHERE {test} GROUP BY t.j"),
            1 => format!("SELECT DISTINCT t.j AS j FROM {a} t WHERE {test}"),
            2 => format!("SELECT t.k AS k, bb.a AS a FROM {a} t JOIN {b} bb ON t.k = bb.k OR t.a = bb.a"),
            _ => format!("SELECT t.k AS k, bb.a AS a FROM {a} t, {b} bb WHERE t.k = bb.k OR (t.a > 0 AND bb.a > 0)"),
        };
        (sql, Some("k".into()))
    }

    /// Grouped or joined by a cast that makes one value of several.
    fn lossy_cast(&mut self) -> Shape {
        let table = self.some();
        let casts: Vec<(&str, Kind)> =
            table.columns.iter().filter_map(|c| Some((c.name.as_str(), self.coarser(c.kind)?))).collect();
        if casts.is_empty() {
            return self.without_key();
        }
        let (name, to) = *self.random.pick(&casts);
        let (t, cast) = (&table.name, to.cast(&format!("t.{name}")));
        let sql = match self.random.below(4) {
            0 => format!("SELECT {cast} AS x, count(*) AS n FROM {t} t GROUP BY {cast}"),
            1 => format!("SELECT DISTINCT {cast} AS x FROM {t} t"),
            2 => format!("SELECT t.{name} AS {name}, count(*) OVER (PARTITION BY {cast}) AS n FROM {t} t"),
            _ => {
                let other = to.cast(&format!("u.{name}"));
                format!("SELECT t.{name} AS {name}, u.a AS a FROM {t} t JOIN {t} u ON {cast} = {other}")
            }
        };
        (sql, Some(name.to_string()))
    }

    fn coarser(&self, kind: Kind) -> Option<Kind> {
        match kind {
            Kind::Decimal(precision, 1..) => Some(Kind::Decimal(precision, 0)),
            Kind::Timestamp(TimeUnit::Second) => Some(Kind::Date),
            Kind::Timestamp(_) => Some(Kind::Timestamp(TimeUnit::Second)),
            Kind::Instant(TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond) => {
                Some(Kind::Instant(TimeUnit::Second))
            }
            Kind::Int(64) => Some(Kind::Float(64)),
            _ => None,
        }
    }

    /// Texts of floats, which tell -0.0 from 0.0, beside the floats themselves.
    fn float_texts(&mut self) -> Shape {
        let floats = |table: &&Table| table.columns.iter().any(|c| matches!(c.kind, Kind::Float(_)));
        let tables: Vec<&Table> = self.tables.iter().filter(floats).collect();
        if tables.is_empty() {
            return self.padded();
        }
        let (a, b) = (*self.random.pick(&tables), *self.random.pick(&tables));
        let column =
            |table: &Table| table.columns.iter().find(|c| matches!(c.kind, Kind::Float(_))).unwrap().name.clone();
        let text = |table: &Table| {
            let f = column(table);
            let x = Kind::Text(Text::Plain).cast(&f);
            format!("(SELECT {f} AS f, {x} AS x, a AS a FROM {})", table.name)
        };
        let own = |table: &&Table| table.columns.iter().any(|c| c.name.starts_with('e') && c.kind == Kind::Int(64));
        if let Some(numbered) = self.tables.iter().find(own)
            && numbered.name != a.name
            && self.random.chance(60)
        {
            // Cut by the lengths of the texts: -0.0 has one more character than 0.0.
            let own = numbered.name.replace('t', "e");
            let (f, numbered) = (column(a), &numbered.name);
            let length = format!("octet_length({}) - 3", Kind::Text(Text::Plain).cast(&format!("t.{f}")));
            let from = format!("FROM {numbered} u JOIN {} t ON u.{own} = {length}", a.name);
            return (format!("SELECT t.{f} AS f, count(*) AS n {from} GROUP BY t.{f}"), Some(own));
        }
        let (a, b, key) = (text(a), text(b), column(a));
        if self.random.chance(40) {
            // By the text the window can be cut, and the aggregate could be if equal floats had equal texts.
            let numbered = "row_number() OVER (PARTITION BY t.x ORDER BY t.a) AS n";
            let sql = format!("SELECT q.f AS f, count(*) AS n FROM (SELECT t.f, {numbered} FROM {a} t) q GROUP BY q.f");
            return (sql, Some(key));
        }
        let sql = match self.random.below(6) {
            0 => format!("SELECT t.f AS f, count(*) AS n FROM {a} t GROUP BY t.f"),
            1 => format!("SELECT t.x AS x, count(*) AS n FROM {a} t GROUP BY t.x"),
            2 => format!("SELECT t.x AS x, u.a AS a FROM {a} t JOIN {b} u ON t.f = u.f"),
            3 => format!("SELECT t.x AS x, count(*) AS n FROM {a} t JOIN {b} u ON t.f = u.f GROUP BY t.x"),
            4 => format!("SELECT t.x AS x, u.x AS y FROM {a} t JOIN {b} u ON t.x = u.x"),
            _ => format!("SELECT t.x AS x, u.a AS a FROM {a} t LEFT JOIN {b} u ON t.f = u.f AND t.x = u.x"),
        };
        let keys = self.one_of(&["x", "x", &key]);
        (sql, Some(keys))
    }

    /// What sees all rows, whatever their key.
    fn without_key(&mut self) -> Shape {
        let t = self.name();
        let total = "t.a, t.k, t.j";
        let sql = match self.random.below(9) {
            0 => format!("SELECT t.j AS j, count(*) AS n, min(t.a) AS a FROM {t} t GROUP BY t.j"),
            1 => format!("SELECT DISTINCT t.j AS j, t.a AS a FROM {t} t"),
            2 => format!("SELECT DISTINCT ON (t.j) t.j AS j, t.a AS a, t.k AS k FROM {t} t ORDER BY t.j, t.a, t.k"),
            3 => format!("SELECT t.k AS k, t.a AS a, rank() OVER (PARTITION BY t.j ORDER BY t.a) AS n FROM {t} t"),
            4 => format!("SELECT t.k AS k, t.a AS a, count(*) OVER (ORDER BY t.a) AS n FROM {t} t"),
            5 => format!("SELECT t.k AS k, t.a AS a, count(*) AS n FROM {t} t GROUP BY ROLLUP (t.k, t.a)"),
            6 => format!(
                "SELECT t.k AS k, t.a AS a, sum(t.a) AS n FROM {t} t GROUP BY GROUPING SETS ((t.k, t.a), (t.a))"
            ),
            7 => {
                let limit = 1 + self.random.below(6);
                format!("SELECT t.a AS a, t.k AS k, t.j AS j FROM {t} t ORDER BY {total} LIMIT {limit}")
            }
            _ => {
                let (limit, offset) = (1 + self.random.below(6), 1 + self.random.below(5));
                format!("SELECT t.a AS a, t.k AS k, t.j AS j FROM {t} t ORDER BY {total} LIMIT {limit} OFFSET {offset}")
            }
        };
        (sql, Some("k".into()))
    }

    fn uncut_branch(&mut self) -> Shape {
        let (first, b) = (self.some(), self.name());
        let (a, k) = (&first.name, first.columns[0].kind.value(1));
        match self.with_own() {
            Some((t, own)) if self.random.chance(60) => {
                let kind = self
                    .tables
                    .iter()
                    .find(|table| table.name == t)
                    .and_then(|table| table.columns.iter().find(|c| c.name == own).map(|c| c.kind));
                let value = kind.map_or("NULL".into(), |kind| kind.value(1));
                let sql =
                    format!("SELECT t.{own} AS {own}, t.a AS a FROM {t} t UNION ALL SELECT {value}, bb.a FROM {b} bb");
                (sql, Some(own))
            }
            _ => {
                let sql = match self.random.below(3) {
                    0 => format!("SELECT t.k AS k, t.a AS a FROM {a} t UNION ALL SELECT {k}, 7"),
                    1 => format!(
                        "SELECT t.k AS k, t.a AS a FROM {a} t UNION ALL SELECT {k}, v.a FROM (VALUES (1), (2)) AS v(a)"
                    ),
                    _ => format!(
                        "SELECT t.k AS k, count(*) AS n FROM (SELECT k FROM {a} UNION ALL SELECT {k}) t GROUP BY t.k"
                    ),
                };
                (sql, Some("k".into()))
            }
        }
    }

    /// Branches of a union that carry the key at different places.
    fn keys_swapped(&mut self) -> Shape {
        let (a, b, c) = (self.with_like_keys(), self.with_like_keys(), self.name());
        let union = match self.random.below(3) {
            0 => {
                format!(
                    "SELECT k AS x, j AS y FROM {a} UNION ALL SELECT j, k FROM {b} UNION ALL SELECT k, k AS y FROM {c}"
                )
            }
            1 => format!("SELECT k AS x, a AS y FROM {a} UNION ALL SELECT j, a FROM {b}"),
            _ => format!("SELECT k AS x, j AS y FROM {a} UNION ALL SELECT j, k FROM {b}"),
        };
        let sql = match self.random.below(3) {
            0 => format!("SELECT q.x AS x, count(*) AS n FROM ({union}) q GROUP BY q.x"),
            1 => format!("SELECT q.y AS x, count(*) AS n FROM ({union}) q GROUP BY q.y"),
            _ => format!("SELECT q.x AS x, q.y AS y, t.a AS a FROM ({union}) q JOIN {c} t ON t.k = q.x"),
        };
        (sql, Some("k".into()))
    }

    fn unnested_key(&mut self) -> Shape {
        let t = self.name();
        let array =
            self.one_of(&["make_array(k, j)", "make_array(k, k)", "make_array(a, a + 1)", "l", "make_array(k)"]);
        let sql = match self.random.below(3) {
            0 => format!("SELECT q.k AS k, count(*) AS n FROM (SELECT unnest({array}) AS k FROM {t}) q GROUP BY q.k"),
            1 => format!("SELECT q.x AS x, q.k AS k FROM (SELECT k, unnest({array}) AS x FROM {t}) q"),
            _ => {
                format!("SELECT q.x AS x, count(*) AS n FROM (SELECT k, unnest({array}) AS x FROM {t}) q GROUP BY q.x")
            }
        };
        (sql, Some(self.one_of(&["k", "k", "a"])))
    }

    fn recursion(&mut self) -> Shape {
        let (a, b) = (self.name(), self.name());
        let all = self.one_of(&["", " ALL"]);
        let step = match self.random.below(3) {
            0 => format!("SELECT bb.a, r.n + 1 FROM r JOIN {b} bb ON bb.k = r.n"),
            1 => format!("SELECT DISTINCT bb.a + 1, r.n + 1 FROM r JOIN {b} bb ON bb.a = r.x"),
            _ => format!("SELECT r.x + 1, r.n + 1 FROM r JOIN (SELECT count(*) AS m FROM {b}) bb ON bb.m > r.x"),
        };
        let start = format!("SELECT DISTINCT CAST(a AS BIGINT) AS x, CAST(0 AS BIGINT) AS n FROM {a}");
        let recursive = format!("WITH RECURSIVE r AS ({start} UNION{all} {step} WHERE r.n < 2)");
        let sql = match self.random.below(3) {
            0 => format!("{recursive} SELECT x, n FROM r"),
            1 => format!("{recursive} SELECT x, count(*) AS m FROM r GROUP BY x"),
            _ => format!("{recursive} SELECT t.k AS k, r.n AS n FROM {a} t JOIN r ON r.x = t.a"),
        };
        (sql, Some(self.one_of(&["a", "a", "k"])))
    }

    fn scalars(&mut self) -> Shape {
        let (a, b) = (self.name(), self.name());
        let scalar = match self.random.below(4) {
            0 => format!("(SELECT avg(bb.a) FROM {b} bb)"),
            1 => format!("(SELECT count(*) FROM {b} bb WHERE bb.a > 0)"),
            2 => format!("(SELECT max(cc.a) FROM {b} bb JOIN {b} cc ON bb.k = cc.k)"),
            _ => format!("(SELECT min(bb.a) FROM {b} bb WHERE bb.a > (SELECT min(cc.a) FROM {a} cc))"),
        };
        let sql = match self.random.below(5) {
            0 => format!("SELECT t.k AS k, t.a AS a FROM {a} t WHERE t.a > {scalar}"),
            1 => format!("SELECT t.k AS k, count(*) AS n FROM {a} t GROUP BY t.k HAVING count(*) > {scalar}"),
            // Unsigned numbers have no difference below zero.
            2 => format!("SELECT t.k AS k, CAST(t.a AS BIGINT) - {scalar} AS x, {scalar} AS y FROM {a} t"),
            3 => format!("SELECT sum(t.a) AS x, count(*) FILTER (WHERE t.a > {scalar}) AS y FROM {a} t"),
            _ => format!(
                "SELECT t.k AS k, CASE WHEN t.a > {scalar} THEN 1 ELSE 0 END AS x FROM {a} t ORDER BY 1, 2 LIMIT 5"
            ),
        };
        (sql, None)
    }

    /// What depends on the order of rows, in a query whose rows do not as long as it is computed once.
    fn unstable(&mut self) -> Shape {
        let (a, b) = (self.name(), self.name());
        let text = "coalesce(CAST(a AS VARCHAR), '')";
        let one = match self.random.below(6) {
            0 => format!("SELECT {text} AS x FROM {b} LIMIT 1"),
            1 => format!("SELECT first_value({text}) AS x FROM {b}"),
            2 => format!("SELECT string_agg({text}, ',') AS x FROM {b}"),
            3 => format!("SELECT x FROM (SELECT {text} AS x, row_number() OVER () AS n FROM {b}) s WHERE n = 1"),
            4 => format!("SELECT CAST(array_agg(a) AS VARCHAR) AS x FROM {b}"),
            _ => format!("SELECT {text} AS x FROM (SELECT DISTINCT ON (1) a FROM {b}) s"),
        };
        let sql = match self.random.below(6) {
            0 => format!("SELECT count(DISTINCT q.x) AS n FROM {a} t CROSS JOIN ({one}) q"),
            1 => format!("SELECT count(DISTINCT ({one})) AS n FROM {a} t"),
            2 => format!("SELECT count(*) AS n FROM (SELECT DISTINCT q.x FROM {a} t, ({one}) q) s"),
            3 => format!("SELECT min(q.x) = max(q.x) AS x FROM {a} t CROSS JOIN ({one}) q"),
            4 => format!(
                "SELECT count(DISTINCT q.x || '/' || CAST(q.n AS VARCHAR)) AS n FROM {a} t CROSS JOIN (SELECT {text} AS x, row_number() OVER () AS n FROM {b}) q"
            ),
            _ => format!("SELECT count(*) AS n FROM (SELECT t.k FROM {a} t LIMIT 3) q"),
        };
        (sql, None)
    }

    /// Random values, in a query whose rows do not depend on them as long as they are drawn once.
    fn volatile(&mut self) -> Shape {
        let t = self.name();
        let call = self.one_of(&["random()", "random()", "uuid()"]);
        let sql = match self.random.below(6) {
            0 => format!("SELECT count(DISTINCT q.r) AS n FROM {t} t CROSS JOIN (SELECT {call} AS r) q"),
            1 => format!("SELECT count(DISTINCT (SELECT {call})) AS n FROM {t} t"),
            2 => format!("SELECT min(q.r) = max(q.r) AS x FROM {t} t CROSS JOIN (SELECT {call} AS r) q"),
            3 => format!("SELECT t.k AS k, {call} IS NULL AS x FROM {t} t"),
            4 => format!("SELECT t.k AS k, count(*) AS n FROM {t} t WHERE random() < 2 GROUP BY t.k"),
            _ => format!("SELECT q.k AS k, count(q.r) AS n FROM (SELECT k, {call} AS r FROM {t}) q GROUP BY q.k"),
        };
        (sql, None)
    }

    /// Two parts that differ only in what a table function gives.
    fn same_looks(&mut self) -> Shape {
        let t = self.name();
        let (m, n) = (1 + self.random.below(4), 2 + self.random.below(4));
        let part = |end: usize| match end % 2 {
            0 => format!("SELECT count(*) AS n FROM {t} AS t CROSS JOIN generate_series(1, {end}) AS g"),
            _ => format!("SELECT sum(t.a) AS n FROM {t} AS t CROSS JOIN generate_series(1, {end}) AS g"),
        };
        (format!("{} UNION ALL {}", part(m), part(m + 2 * n)), Some("k".into()))
    }

    fn ordered_states(&mut self) -> Shape {
        let t = self.name();
        let text = "CAST(t.a AS VARCHAR)";
        let call = match self.random.below(5) {
            0 => format!("string_agg({text}, ',' ORDER BY t.a)"),
            1 => "array_agg(t.a ORDER BY t.a DESC)".to_string(),
            2 => "first_value(t.a ORDER BY t.a)".to_string(),
            3 => "nth_value(t.a, 2 ORDER BY t.a)".to_string(),
            _ => format!("string_agg(DISTINCT {text}, ',' ORDER BY {text})"),
        };
        let sql = match self.random.chance(50) {
            true => format!("SELECT t.j AS j, {call} AS x FROM {t} t GROUP BY t.j"),
            false => format!("SELECT {call} AS x FROM {t} t"),
        };
        (sql, Some("k".into()))
    }

    /// Keys of which no input has all.
    fn two_own_keys(&mut self) -> Shape {
        match (self.with_own(), self.with_own()) {
            (Some((a, x)), Some((b, y))) if x != y => {
                let sql = format!("SELECT aa.{x} AS x, bb.{y} AS y, aa.a AS a FROM {a} aa JOIN {b} bb ON aa.k = bb.k");
                (sql, Some(self.one_of(&[&x, &y, &format!("{x}, {y}"), &format!("k, {x}")])))
            }
            _ => self.steps(),
        }
    }

    /// Aggregates below joins, which don't have the key.
    fn steps(&mut self) -> Shape {
        let (a, b) = (self.name(), self.name());
        let sql = match self.random.below(4) {
            0 => format!(
                "SELECT t.k AS k, q.n AS n FROM {a} t JOIN (SELECT j, count(*) AS n FROM {b} GROUP BY j) q ON q.j = t.j"
            ),
            1 => format!(
                "SELECT t.k AS k, q.n AS n FROM {a} t CROSS JOIN (SELECT count(*) AS n, max(a) AS m FROM {b}) q"
            ),
            2 => format!(
                "WITH w AS (SELECT j, sum(a) AS s FROM {a} GROUP BY j) SELECT x.j AS j, y.s AS s FROM w x JOIN w y ON x.j = y.j"
            ),
            _ => format!(
                "SELECT t.k AS k, q.a AS a FROM {a} t JOIN (SELECT j, a, k FROM {b} ORDER BY a, j, k LIMIT 4) q ON q.k = t.k"
            ),
        };
        let keys = self.one_of(&["k", "k", "j"]);
        (sql, (self.random.chance(70)).then_some(keys))
    }
}
