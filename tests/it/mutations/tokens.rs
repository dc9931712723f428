//! Edits of the text: each word, number, text and sign by itself is left out, or another of its kind put in its place.

use sqlparser::dialect::GenericDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::tree::Edit;

/// Words and signs that may stand for each other.
const ALIKE: &[&[&str]] = &[
    &["ASC", "DESC"],
    &["FIRST", "LAST"],
    &["ROWS", "RANGE", "GROUPS"],
    &["PRECEDING", "FOLLOWING"],
    &["UNION", "INTERSECT", "EXCEPT", "MINUS"],
    &["ALL", "DISTINCT", "ANY"],
    &["AND", "OR"],
    &["LEFT", "RIGHT", "FULL", "INNER", "CROSS", "NATURAL"],
    &["SEMI", "ANTI", "OUTER"],
    &["ROLLUP", "CUBE", "TOTALS"],
    &["LEADING", "TRAILING", "BOTH"],
    &["YEAR", "MONTH", "DAY", "HOUR", "DOW", "EPOCH", "WEEK"],
    &["TRUE", "FALSE", "NULL", "UNKNOWN"],
    &[
        "BIGINT",
        "INT",
        "SMALLINT",
        "DOUBLE",
        "REAL",
        "VARCHAR",
        "DATE",
        "TIMESTAMP",
        "TIME",
        "BOOLEAN",
        "BYTEA",
        "INTERVAL",
    ],
    &["LIMIT", "OFFSET"],
    &["WHERE", "HAVING", "QUALIFY", "PREWHERE"],
    &["IGNORE", "RESPECT"],
    &["LIKE", "ILIKE", "RLIKE"],
    &["CAST", "TRY_CAST"],
    &["EXCLUDE", "EXCEPT", "REPLACE", "RENAME"],
    &["EXISTS", "UNIQUE"],
    &["PARTITION", "ORDER"],
    &["=", "<>", "<", "<=", ">", ">=", "<=>"],
    &["+", "-", "*", "/", "%", "||"],
    &["&", "|", "^", "<<", ">>", "**"],
    &["~", "~*", "!~", "!~*"],
];

/// Every edit of the text.
pub fn edits(sql: &str) -> Vec<Edit> {
    let tokens = tokens(sql);
    let mut all = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if matches!(token, Token::Whitespace(_) | Token::SemiColon) {
            continue;
        }
        let written = token.to_string();
        let word = written.to_uppercase();
        let mut edit = |what: &str, other: &str| {
            all.push(Edit {
                what: format!("{what} {written}"),
                sql: join(&tokens[..at]) + other + &join(&tokens[at + 1..]),
            });
        };
        // Before a name it says nothing.
        if word != "AS" {
            edit("left out:", " ");
        }
        for kind in ALIKE.iter().filter(|kind| kind.contains(&word.as_str())) {
            kind.iter().filter(|other| **other != word).for_each(|other| edit(&format!("{other} for"), other));
        }
        if let Token::Number(digits, _) = token {
            edit("1 before", &format!("1{digits}"));
            edit("minus before", &format!("-{digits}"));
            edit("0 for", "0");
        }
    }
    all
}

/// The tokens of a text; joined they are the text again.
pub fn tokens(sql: &str) -> Vec<Token> {
    Tokenizer::new(&GenericDialect {}, sql).with_unescape(false).tokenize().unwrap_or_else(|e| panic!("{e}\n{sql}"))
}

pub fn join(tokens: &[Token]) -> String {
    tokens.iter().map(ToString::to_string).collect()
}
