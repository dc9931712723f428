//! What may be written in another way: edits that say the same, each with the reason, and rewritings of whole texts.

use std::ops::ControlFlow;

use sqlparser::ast::{CastKind, Expr, Statement, VisitMut, VisitorMut};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::corpus::TASKS;
use super::tokens::{join, tokens};
use super::{Named, SOURCES, named, names, on_threads, sql_of, tree};

/// What an edit puts in the place of what, white space aside, and why that says the same.
const SAME: &[(&str, &str, &str)] = &[
    ("count(*)", "count()", "both count rows"),
    ("CAST('12.50'", "TRY_CAST('12.50'", "a constant is cast while the query is planned"),
    ("CAST('NaN'", "TRY_CAST('NaN'", "a constant is cast while the query is planned"),
    ("CAST('-0.0'", "TRY_CAST('-0.0'", "a constant is cast while the query is planned"),
    ("CAST('0.1'", "TRY_CAST('0.1'", "a constant is cast while the query is planned"),
    (" IS NOT NULL", " NOT NULL", "PostgreSQL's short form"),
    (" 0", " -0", "a number without a sign"),
    ("coalesce(v, g, 0)", "coalesce(v, g, 0, 1)", "what follows a value that is never NULL is not looked at"),
    ("struct(v, s)", "(v, s)", "a tuple is a struct"),
    ("INTERVAL '2 days' PRECEDING", "'2 days' PRECEDING", "the bound of a frame over times is an interval"),
    ("CROSS JOIN", "JOIN", "a join without a condition pairs all rows"),
    ("CROSS JOIN", "INNER JOIN", "a join without a condition pairs all rows"),
    ("ON t.k = u.k WHERE", "USING(k) WHERE", "USING compares the same columns"),
    ("ON t.k = u.k;", "USING(k);", "USING compares the same columns"),
    ("LEFT SEMI JOIN", "SEMI JOIN", "the left rows are kept"),
    ("LEFT ANTI JOIN", "ANTI JOIN", "the left rows are kept"),
    ("JOIN (SELECT", "JOIN LATERAL (SELECT", "it reads no column of the tables before it"),
    ("FROM (", "FROM LATERAL (", "it reads no column of the tables before it"),
    ("FROM u) y;", "FROM u);", "the name is used nowhere"),
    ("EXISTS (SELECT *", "EXISTS (SELECT DISTINCT *", "EXISTS asks for any row"),
    ("EXISTS (SELECT *", "EXISTS (SELECT DISTINCT ON (b) *", "EXISTS asks for any row"),
    ("EXISTS (SELECT *", "EXISTS (SELECT * EXCLUDE k", "EXISTS asks for any row"),
    ("u.g > t.g)", "u.g > t.g LIMIT 2)", "EXISTS asks for any row"),
    ("u.g > t.g)", "u.g > t.g FETCH FIRST 1 ROWS ONLY)", "EXISTS asks for any row"),
    ("u.k = t.k);", "u.k = t.k LIMIT 2);", "EXISTS asks for any row"),
    ("u.k = t.k);", "u.k = t.k FETCH FIRST 1 ROWS ONLY);", "EXISTS asks for any row"),
    ("UNION SELECT", "UNION DISTINCT SELECT", "the default"),
    ("INTERSECT SELECT", "INTERSECT DISTINCT SELECT", "the default"),
    ("EXCEPT ALL", "MINUS ALL", "another word"),
    ("* EXCLUDE", "* EXCEPT", "another word"),
    ("* EXCEPT", "* EXCLUDE", "another word"),
    ("FETCH FIRST 5 ROWS ONLY", "FETCH 5 ROWS ONLY", "a word that says nothing"),
    ("FETCH FIRST 5 ROWS ONLY", "FETCH FIRST 5 ONLY", "a word that says nothing"),
    ("FETCH FIRST 5 ROWS ONLY", "FETCH FIRST 5 ROWS", "a word that says nothing"),
    ("WITH y AS", "WITH RECURSIVE y AS", "the query does not read itself"),
    ("FROM u |> SELECT k", "FROM u SELECT k", "a query may begin with FROM"),
    ("BY NAME SELECT g, k", "BY NAME SELECT k, g", "columns are put together by name"),
    ("FROM t |> JOIN", "FROM t JOIN", "the same join"),
    ("|> AS y", "", "the name is used nowhere"),
    ("chunk_by = 'hash', chunks", "chunks", "the default where chunks are given"),
];

/// Why `edited` says the same as `sql`, if that is known.
pub fn why_neutral(sql: &str, edited: &str) -> Option<&'static str> {
    let words = |text: &str| -> Vec<String> {
        let tokens = tokens(text).into_iter();
        tokens.filter(|token| !matches!(token, Token::Whitespace(_))).map(|token| token.to_string()).collect()
    };
    let edited = words(edited);
    let texts = [words(sql), words(&tree::printed(sql))];
    let is_it = |(before, after, _): &&(&str, &str, &str)| {
        let (before, after) = (words(before), words(after));
        texts.iter().any(|text| {
            let mut places = text.windows(before.len()).enumerate().filter(|(_, words)| *words == before);
            places.any(|(at, _)| [&text[..at], &after, &text[at + before.len()..]].concat() == edited)
        })
    };
    SAME.iter().find(is_it).map(|(_, _, why)| *why)
}

/// Tasks whose whole text is part of their names, since a plan does not say all of them: names and parentheses in it
/// count.
const OF_TEXT: [&str; 1] = ["WITH RECURSIVE"];
const IN_TEXT: [&str; 4] = ["names of tables", "parentheses", "without AS", "upper case"];

/// The same statements in other words.
fn rewritings(sql: &str) -> Vec<(&'static str, String)> {
    let tokens = tokens(sql);
    let each = |change: &dyn Fn(&Token) -> String| -> String { tokens.iter().map(change).collect() };
    let is_bare = |token: &Token| matches!(token, Token::Word(word) if word.quote_style.is_none());
    let case = |to: &dyn Fn(&str) -> String| {
        each(&|token| if is_bare(token) { to(&token.to_string()) } else { token.to_string() })
    };
    let is_space = |token: &Token| matches!(token, Token::Whitespace(_));
    let spaced = |space: &str| each(&|token| if is_space(token) { space.to_string() } else { token.to_string() });
    let word = |change: &dyn Fn(&str) -> Option<&str>| {
        each(&|token| change(&token.to_string()).map_or_else(|| token.to_string(), str::to_string))
    };
    let mut all = vec![
        ("printed", tree::printed(sql)),
        ("lower case", case(&str::to_lowercase)),
        ("upper case", case(&str::to_uppercase)),
        ("line breaks", spaced("\n\n\t")),
        ("comments", spaced(" /* SELECT 1; */ -- 'x\n")),
        ("a comment at the end", format!("{sql} -- the end")),
        ("other signs", word(&|sign| (sign == "<>").then_some("!="))),
        (
            "names of tables",
            word(&|name| match name {
                "x" => Some("named_x"),
                "y" => Some("named_y"),
                "z" => Some("\"Named z\""),
                _ => None,
            }),
        ),
        ("statements in another order", {
            let mut statements: Vec<_> = tokens.split(|token| *token == Token::SemiColon).map(join).collect();
            statements.reverse();
            statements.join(";")
        }),
        (
            "other tasks",
            format!(
                "CREATE EXTERNAL TABLE other STORED AS CSV LOCATION 'other.csv'; {sql}
                 CREATE TABLE after AS SELECT k FROM t WHERE v IN (SELECT v FROM u WHERE u.g > (SELECT avg(g) FROM t));
                 CREATE TABLE below AS SELECT * FROM task;"
            ),
        ),
        ("parentheses", walked(sql, Rewrite::Parentheses)),
        ("casts", walked(sql, Rewrite::Casts)),
    ];
    let without_as: Vec<Token> = tokens
        .iter()
        .enumerate()
        .filter(|(at, token)| !(token.to_string() == "AS" && is_before_name(&tokens[at + 1..])))
        .map(|(_, token)| token.clone())
        .collect();
    all.push(("without AS", join(&without_as)));
    all
}

/// Whether the tokens behind an AS are the name of an output.
fn is_before_name(tokens: &[Token]) -> bool {
    let mut tokens = tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_)));
    let (Some(Token::Word(name)), Some(next)) = (tokens.next(), tokens.next()) else { return false };
    let is_end = matches!(next, Token::Comma) || next.to_string() == "FROM";
    is_end && name.value.chars().all(|letter| letter.is_ascii_lowercase())
}

#[derive(Clone, Copy)]
enum Rewrite {
    Parentheses,
    Casts,
}

fn walked(sql: &str, mut rewrite: Rewrite) -> String {
    let mut statements: Vec<Statement> = Parser::parse_sql(&GenericDialect {}, sql).unwrap();
    let _ = statements.visit(&mut rewrite);
    statements.iter().map(|statement| format!("{statement};\n")).collect()
}

impl VisitorMut for Rewrite {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match (*self, &mut *expr) {
            (
                Self::Parentheses,
                Expr::BinaryOp { .. }
                | Expr::UnaryOp { .. }
                | Expr::Case { .. }
                | Expr::Like { .. }
                | Expr::Between { .. },
            ) => *expr = Expr::Nested(Box::new(expr.clone())),
            (Self::Casts, Expr::Cast { kind: kind @ CastKind::DoubleColon, .. }) => *kind = CastKind::Cast,
            (Self::Casts, Expr::Cast { kind: kind @ CastKind::Cast, expr: inner, .. }) => {
                *kind = CastKind::DoubleColon;
                **inner = Expr::Nested(inner.clone());
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn what_says_the_same_in_other_words_keeps_its_names() {
    let failed = std::sync::Mutex::new(Vec::new());
    let tried = std::sync::atomic::AtomicUsize::new(0);
    on_threads(TASKS.len(), |number| {
        let sql = sql_of(&TASKS[number]);
        let base = names(&sql);
        let is_of_text = OF_TEXT.iter().any(|words| sql.contains(words));
        for (what, rewritten) in rewritings(&sql) {
            if rewritten == sql || is_of_text && IN_TEXT.contains(&what) {
                continue;
            }
            tried.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let why = match named(&rewritten) {
                Named::Names(names) if names == base => continue,
                Named::Names(_) => "other names".to_string(),
                Named::Unread(why) | Named::Refused(why) => why,
            };
            failed.lock().unwrap().push(format!("{what}: {why}\n  {sql}\n  {rewritten}"));
        }
    });
    let failed = failed.into_inner().unwrap();
    let tried = tried.into_inner();
    println!("rewritings {tried}");
    assert!(tried > 1_000, "{tried} rewritings");
    assert!(failed.is_empty(), "{} rewritings of\n{SOURCES}\n{}", failed.len(), failed.join("\n"));
}
