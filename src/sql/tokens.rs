//! Text → one token list per statement, each token with its place in the whole file, and errors that keep the place.

use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParserBuilder, Statement as Parsed};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::ParserError;
use sqlparser::tokenizer::{Location as SqlPlace, Span, Token, TokenWithSpan, Tokenizer};

use crate::error::{Error, ErrorKind, Location, Result};
use crate::sql::depth::check_terms;

/// DataFusion's default dialect; it also knows Hive's `CLUSTERED BY`.
const DIALECT: GenericDialect = GenericDialect {};

/// How deep expressions and queries may stand in each other, as the parser counts: each `IS DISTINCT FROM` in a row is
/// one.
const MAX_NESTED: usize = 1000;

/// The tokens of one statement, its `;` replaced by an end token.
#[derive(Debug)]
pub(crate) struct Statement<'a> {
    file: &'a str,
    start: Location,
    tokens: Vec<TokenWithSpan>,
}

/// Cuts `text` at every `;` that is a token of its own (not in a string or comment). A byte order mark at the start
/// is skipped, and so are statements without a token.
///
/// # Errors
/// [`ErrorKind::Sql`] with the place: a string, quoted name or comment without an end.
pub(crate) fn split<'a>(text: &str, file: &'a str) -> Result<Vec<Statement<'a>>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let tokens = Tokenizer::new(&DIALECT, text).tokenize_with_location().map_err(|error| {
        let place = Location::new(file, error.location.line.max(1), error.location.column.max(1));
        Error::new(ErrorKind::Sql, readable(&error.message)).with_location(place)
    })?;
    let mut statements = Vec::new();
    let mut pending: Vec<TokenWithSpan> = Vec::new();
    for token in tokens.into_iter().map(Some).chain([None]) {
        match token {
            Some(token) if token.token != Token::SemiColon => pending.push(token),
            end => {
                let mut tokens = std::mem::take(&mut pending);
                let mut code = tokens.iter().filter(|t| is_code(t));
                let Some(first) = code.next() else { continue };
                let last = code.next_back().unwrap_or(first);
                let start = Location::new(file, first.span.start.line, first.span.start.column);
                let place = end.map_or(last.span.end, |semicolon| semicolon.span.start);
                tokens.push(TokenWithSpan::at(Token::EOF, place, place));
                let mut statement = Statement { file, start, tokens };
                statement.put_options_last();
                statements.push(statement);
            }
        }
    }
    Ok(statements)
}

impl Statement<'_> {
    /// Parses the statement.
    ///
    /// # Errors
    /// [`ErrorKind::Sql`] with the place that the parser names, else the statement's start.
    pub(crate) fn parse(&self) -> Result<Parsed> {
        check_terms(self)?;
        let parsed = DFParserBuilder::new(self.tokens.clone())
            .with_dialect(&DIALECT)
            .with_recursion_limit(MAX_NESTED)
            .build()
            .and_then(|mut parser| Ok((parser.parse_statement()?, parser.parser.peek_token())));
        match parsed {
            Ok((statement, next)) if next.token == Token::EOF => Ok(statement),
            Ok((_, next)) => {
                let place = self.place(next.span);
                let hint = self.hint(&place);
                Err(self.error(place, format!("expected the end of the statement, found {next}{hint}")))
            }
            Err(error) => Err(self.parser_error(&error)),
        }
    }

    /// Where the statement begins.
    pub(crate) fn start(&self) -> Location {
        self.start.clone()
    }

    /// Where `span` begins, or the statement when the parser recorded no span.
    pub(crate) fn place(&self, span: Span) -> Location {
        match span.start.line {
            0 => self.start(),
            line => Location::new(self.file, line, span.start.column),
        }
    }

    /// Where the statement ends.
    pub(crate) fn end(&self) -> Location {
        self.tokens.last().map_or_else(|| self.start(), |token| self.place(token.span))
    }

    /// Where the keywords of `clause` stand one after the other outside parentheses and before the query, or the
    /// statement's start.
    pub(crate) fn clause(&self, clause: &str) -> Location {
        self.find(clause).map_or_else(|| self.start(), |at| self.place(self.tokens[at].span))
    }

    /// Where the `offset`th token after the keywords of `clause` stands, from 1; parentheses and commas don't count.
    pub(crate) fn after(&self, clause: &str, offset: usize) -> Location {
        let last_word = offset + clause.split(' ').count() - 1;
        let skipped = |token: &Token| matches!(token, Token::LParen | Token::RParen | Token::Comma);
        self.find(clause)
            .and_then(|at| {
                self.tokens[at..].iter().filter(|t| is_code(t)).filter(|t| !skipped(&t.token)).nth(last_word)
            })
            .map_or_else(|| self.start(), |token| self.place(token.span))
    }

    /// Where the first parenthesis opens, or the statement's start.
    pub(crate) fn first_parenthesis(&self) -> Location {
        let first = self.code().find(|(_, _, token)| token.token == Token::LParen);
        first.map_or_else(|| self.start(), |(_, _, token)| self.place(token.span))
    }

    /// Where the string literal `text` stands first, or the statement's start: the parser records no span for it.
    pub(crate) fn string(&self, text: &str) -> Location {
        let is_it = |token: &Token| matches!(token, Token::SingleQuotedString(string) if string == text);
        let first = self.tokens.iter().find(|token| is_it(&token.token));
        first.map_or_else(|| self.start(), |token| self.place(token.span))
    }

    /// Where the key `name` of OPTIONS stands, in single quotes or bare, with or without `format.` before it; the
    /// statement's start when it does not.
    pub(crate) fn option(&self, name: &str) -> Location {
        let name = name.strip_prefix("format.").unwrap_or(name);
        let is_it = |text: &str| {
            let text = text.to_ascii_lowercase();
            text.strip_prefix("format.").unwrap_or(&text) == name
        };
        let code: Vec<_> = self.code().map(|(_, _, token)| token).collect();
        let Some(options) = code.iter().position(|token| is_word(token, "OPTIONS")) else { return self.start() };
        let found = (options..code.len()).find(|at| match &code[*at].token {
            Token::SingleQuotedString(text) => is_it(text),
            Token::Word(word) => is_it(&word.value),
            _ => false,
        });
        let Some(at) = found else { return self.start() };
        // A bare key is three tokens.
        let has_prefix = at >= 2 && code[at - 1].token == Token::Period && is_word(code[at - 2], "FORMAT");
        self.place(code[if has_prefix { at - 2 } else { at }].span)
    }

    /// Where the keywords of `clause` stand next, one after the other, at or behind `from`; `None` when they don't.
    pub(crate) fn next(&self, clause: &str, from: SqlPlace) -> Option<Location> {
        let words: Vec<_> = clause.split(' ').collect();
        let code: Vec<_> = self.tokens.iter().filter(|token| is_code(token)).collect();
        let behind = code.iter().position(|token| token.span.start >= from)?;
        let found = code[behind..]
            .windows(words.len())
            .find(|window| window.iter().zip(&words).all(|(token, word)| is_word_or_sign(token, word)));
        found.and_then(|window| window.first()).map(|token| self.place(token.span))
    }

    /// Where `word` stands last before `until`; `None` when it doesn't.
    pub(crate) fn previous(&self, word: &str, until: SqlPlace) -> Option<Location> {
        let before = self.tokens.iter().take_while(|token| token.span.start < until);
        before.filter(|token| is_word_or_sign(token, word)).last().map(|token| self.place(token.span))
    }

    /// Whether the first word is `keyword`.
    pub(crate) fn starts_with(&self, keyword: &str) -> bool {
        self.code().next().is_some_and(|(_, _, token)| is_word(token, keyword))
    }

    /// Whether the keywords of `clause` stand one after the other outside parentheses and before the query.
    pub(crate) fn has(&self, clause: &str) -> bool {
        self.find(clause).is_some()
    }

    /// An SQL error at `place`.
    pub(crate) fn error(&self, place: Location, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Sql, message).with_location(place)
    }

    /// A refusal of `clause`, where it stands; `advice` says what to do.
    pub(crate) fn refuse(&self, clause: &str, advice: &str) -> Error {
        self.error(self.clause(clause), format!("{clause} has no meaning here; {advice}"))
    }

    /// `WITH (…) CLUSTERED BY (…) INTO n BUCKETS` is put in the order that the parser knows, options last.
    fn put_options_last(&mut self) {
        let Some(with) = self.find("WITH") else { return };
        let Some(clustered) = self.find("CLUSTERED BY") else { return };
        let Some(buckets) = self.find("BUCKETS") else { return };
        let between = self.code().filter(|(at, depth, _)| with < *at && *at < clustered && *depth == 0);
        let is_options = between.map(|(_, _, token)| &token.token).eq([&Token::LParen, &Token::RParen]);
        if is_options && clustered < buckets {
            self.tokens[with..=buckets].rotate_left(clustered - with);
        }
    }

    /// The position of the first of `clause`'s keywords.
    fn find(&self, clause: &str) -> Option<usize> {
        let header: Vec<_> = self.header().filter(|(_, depth, _)| *depth == 0).collect();
        let words: Vec<_> = clause.split(' ').collect();
        header
            .windows(words.len())
            .find(|window| window.iter().zip(&words).all(|((_, _, token), word)| is_word(token, word)))
            .and_then(|window| window.first())
            .map(|(at, _, _)| *at)
    }

    /// The tokens before and with the `AS` that the query follows.
    fn header(&self) -> impl Iterator<Item = (usize, usize, &TokenWithSpan)> {
        let mut is_over = false;
        let mut stored = false;
        self.code().take_while(move |(_, depth, token)| {
            let is_within = !is_over;
            is_over |= *depth == 0 && is_word(token, "AS") && !stored;
            stored = is_word(token, "STORED");
            is_within
        })
    }

    /// Positions, depths in parentheses and tokens; a parenthesis has the depth outside of it.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, usize, &TokenWithSpan)> {
        let mut depth = 0_usize;
        self.tokens.iter().enumerate().filter(|(_, token)| is_code(token)).map(move |(at, token)| {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                _ => {}
            }
            let outside = if token.token == Token::LParen { depth - 1 } else { depth };
            (at, outside, token)
        })
    }

    fn parser_error(&self, error: &DataFusionError) -> Error {
        let DataFusionError::SQL(error, _) = error.find_root() else {
            return self.error(self.start(), error.strip_backtrace());
        };
        let text = match error.as_ref() {
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => text,
            ParserError::RecursionLimitExceeded => {
                return self.error(self.start(), "the statement is nested too deeply; move parts of it into views");
            }
        };
        let (message, place) = match take_place(text) {
            Some((message, line, column)) => (message, Location::new(self.file, line, column)),
            None => (text.as_str(), self.start()),
        };
        let mut message = readable(message);
        if self.is_in_clustered_by(&place) {
            message.push_str("; write CLUSTERED BY (columns) INTO n BUCKETS, the columns by their names alone");
        }
        for (words, found) in [("MATERIALIZED", "MATERIALIZED"), ("NOT MATERIALIZED", "NOT")] {
            let next = || self.next(words, SqlPlace::new(place.line, place.column));
            if message == format!("expected (, found {found}") && next().is_some_and(|next| next == place) {
                message = format!("{words} has no meaning here; leave it out, it says nothing of the rows");
            }
        }
        message.push_str(self.hint(&place));
        self.error(place, message)
    }

    /// What to write for what the parser does not know, at the place where it stops.
    fn hint(&self, place: &Location) -> &'static str {
        let words: Vec<_> = self.tokens.iter().filter(|token| is_code(token)).collect();
        let Some(at) = words.iter().position(|token| self.place(token.span) == *place) else { return "" };
        let is = |back: usize, word: &str| at.checked_sub(back).is_some_and(|at| is_word(words[at], word));
        let trims = |word: &&str| is(1, "FROM") && is(2, word);
        match () {
            () if is(0, "EXCLUDE") => {
                "; windows have no EXCLUDE, write two frames, one before the row and one behind it"
            }
            () if is(1, "SYMMETRIC") => "; for SYMMETRIC, write x BETWEEN least(a, b) AND greatest(a, b)",
            () if ["LEADING", "TRAILING", "BOTH"].iter().any(trims) => "; write ltrim(x), rtrim(x) or btrim(x)",
            () if is(0, "ON") => "; put joins that are joined in parentheses: a JOIN (b JOIN c ON …) ON …",
            () => "",
        }
    }

    fn is_in_clustered_by(&self, place: &Location) -> bool {
        let last = if self.has("BUCKETS") { "BUCKETS" } else { "AS" };
        self.has("CLUSTERED BY") && self.clause("CLUSTERED BY") < *place && *place <= self.clause(last)
    }
}

/// Parts "… at Line: 3, Column: 7".
fn take_place(text: &str) -> Option<(&str, u64, u64)> {
    let (message, place) = text.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    Some((message, line.parse().ok()?, column.trim_end().parse().ok()?))
}

/// The parser's words in the style of this crate's messages.
fn readable(message: &str) -> String {
    let message = message.trim().replacen("Expected: ", "expected ", 1).replacen(", found: ", ", found ", 1);
    let message = match message.strip_suffix(", found EOF") {
        Some(start) => format!("{start}, found the end of the statement"),
        None => message,
    };
    let mut letters = message.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if first.is_ascii_uppercase() && second.is_ascii_lowercase() => {
            format!("{}{}", first.to_ascii_lowercase(), &message[1..])
        }
        _ => message,
    }
}

fn is_code(token: &TokenWithSpan) -> bool {
    !matches!(token.token, Token::Whitespace(_))
}

fn is_word(token: &TokenWithSpan, keyword: &str) -> bool {
    matches!(&token.token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(keyword))
}

/// As [`is_word`], also for signs such as `%`.
fn is_word_or_sign(token: &TokenWithSpan, word: &str) -> bool {
    match &token.token {
        Token::Word(_) => is_word(token, word),
        sign => sign.to_string() == word,
    }
}

#[cfg(test)]
mod tests {
    use crate::sql::tests::{assert_refused, task};
    use crate::sql::tokens::split;

    #[test]
    fn only_a_semicolon_of_its_own_ends_a_statement() {
        let text = "a ';' \";\" -- ;\n /* ; /* ; */ ; */ b; c $$;$$ ;; -- ;\n;d";
        let statements = split(text, "f.sql").expect("tokens");
        let starts: Vec<_> = statements.iter().map(|s| (s.start().line, s.start().column)).collect();
        assert_eq!(starts, [(1, 1), (2, 23), (3, 2)]);
    }

    #[test]
    fn syntax_errors_are_placed_in_the_whole_file() {
        assert_refused(&[
            ("CREATE VIEW v AS SELECT 1;\n\nCREATE VIEW w AS\n  SELECT * FROM )", "4:17", "found )"),
            ("CREATE VIEW v AS SELECT 1;\r\nCREATE VIEW w AS\r\n  SELECT a b c\r\n", "3:14", "found c"),
            ("\u{feff}CREATE VIEW v AS SELECT 1 2", "1:27", "expected the end of the statement, found 2"),
            ("CREATE VIEW v AS SELECT 'äöü😀' 2", "1:32", "expected the end of the statement, found 2"),
            ("CREATE VIEW v AS SELECT ';' -- ;\n/* ; */ 2", "2:9", "expected the end of the statement, found 2"),
            ("CREATE VIEW v AS SELECT 1 CREATE VIEW w AS SELECT 1", "1:34", "found VIEW"),
            ("CREATE VIEW v AS (SELECT 1;\nCREATE VIEW w AS SELECT 2", "1:27", "expected ), found the end of the stat"),
            (
                "CREATE VIEW v AS SELECT trim(LEADING FROM 'a')",
                "1:43",
                "expected ), found 'a'; write ltrim(x), rtrim(x) or btrim(x)",
            ),
            ("CREATE VIEW v AS SELECT 1 FROM t WHERE x BETWEEN SYMMETRIC 2 AND 1", "1:60", "BETWEEN least(a, b)"),
            ("CREATE VIEW v AS SELECT 1 FROM a JOIN b JOIN c ON b.k = c.k ON a.k = b.k", "1:61", "in parentheses"),
            (
                "CREATE VIEW v AS SELECT sum(x) OVER (ORDER BY k ROWS 1 PRECEDING EXCLUDE TIES) FROM t",
                "1:66",
                "windows have no EXCLUDE",
            ),
            ("CREATE VIEW v AS (SELECT 1 -- end\n", "1:27", "expected ), found the end of the statement"),
            ("CREATE VIEW v AS WITH a AS MATERIALIZED (SELECT 1) SELECT * FROM a", "1:28", "leave it out"),
            ("CREATE VIEW v AS WITH a AS NOT MATERIALIZED (SELECT 1) SELECT * FROM a", "1:28", "leave it out"),
            ("CREATE VIEW v AS WITH a AS NOT (SELECT 1) SELECT * FROM a", "1:28", "expected (, found NOT"),
        ]);
    }

    #[test]
    fn text_without_its_end_is_refused_where_it_begins() {
        assert_refused(&[
            ("CREATE VIEW v AS SELECT 1;\nCREATE VIEW w AS SELECT 'abc;\n", "2:25", "unterminated string literal"),
            ("CREATE VIEW v AS SELECT \"abc", "1:25", "expected close delimiter '\"' before EOF"),
            ("CREATE VIEW v AS SELECT 1 /* abc", "1:33", "unexpected EOF while in a multi-line comment"),
        ]);
    }

    #[test]
    fn deep_nesting_is_refused_and_not_a_crash() {
        let text = format!("CREATE VIEW v AS SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
        assert_refused(&[(&text, "1:1", "nested too deeply; move parts of it into views")]);
    }

    #[test]
    fn long_conditions_and_unions_are_no_deep_nesting() {
        let conditions: String = (0..5000).map(|at| format!(" OR a = {at}")).collect();
        let unions: String = (0..2000).map(|at| format!(" UNION ALL SELECT {at}")).collect();
        task(&format!("CREATE TABLE t AS SELECT * FROM u WHERE a = 0{conditions}"));
        task(&format!("CREATE TABLE t AS SELECT 0{unions}"));
    }

    #[test]
    fn options_stand_before_or_after_the_keys() {
        let after = task("CREATE TABLE t CLUSTERED BY (a) INTO 3 BUCKETS WITH (version = 1) AS SELECT 1 AS a");
        let before = task("CREATE TABLE t WITH (version = 1) CLUSTERED BY (a) INTO 3 BUCKETS AS SELECT 1 AS a");
        assert_eq!(before.options, after.options);
        assert_eq!(before.chunking, after.chunking);
        assert_eq!(before.keys_location.map(|place| place.column), Some(49));
        assert_refused(&[
            ("CREATE TABLE t WITH (a = 1) CLUSTERED BY (a) INTO 3 BUCKETS AS SELECT 1", "1:22", "unknown option `a`"),
            (
                "CREATE TABLE t WITH (version = 1) CLUSTERED BY (a) INTO 3 BUCKETS WITH (version = 1) AS SELECT 1",
                "1:67",
                "found WITH",
            ),
        ]);
    }
}
