//! Names in SQL: lower case unless quoted, and never qualified.

use sqlparser::ast::{Ident, ObjectName};

use crate::error::{Location, Result};
use crate::pipeline::{FOLDER_CHARACTERS, is_of_folder};
use crate::sql::tokens::Statement;

/// The name as DataFusion sees it: unquoted in lower case, quoted as it is.
pub(crate) fn normalised(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    }
}

/// As [`normalised`], of a name as it is written.
pub(crate) fn normalised_text(name: &str) -> String {
    let quote = name.chars().next().filter(|first| matches!(first, '"' | '`'));
    match quote.and_then(|quote| Some((quote, name.strip_prefix(quote)?.strip_suffix(quote)?))) {
        Some((quote, inside)) => inside.replace(&format!("{quote}{quote}"), &quote.to_string()),
        None => name.to_ascii_lowercase(),
    }
}

/// The only part of `name`, if it has one part.
pub(crate) fn unqualified(name: &ObjectName) -> Option<&Ident> {
    match name.0.as_slice() {
        [part] => part.as_ident(),
        _ => None,
    }
}

/// What is wrong with a name of several parts.
pub(crate) fn qualified(name: &ObjectName) -> String {
    format!("`{name}` is qualified, but there is only one schema; write the last part alone")
}

/// Where `name` stands.
pub(crate) fn place(statement: &Statement<'_>, name: &ObjectName) -> Location {
    name.0.first().and_then(|part| part.as_ident()).map_or_else(|| statement.start(), |i| statement.place(i.span))
}

/// The normalised name of what a statement defines.
///
/// # Errors
/// A qualified or empty name, at its place.
pub(crate) fn defined(statement: &Statement<'_>, name: &ObjectName) -> Result<String> {
    let Some(ident) = unqualified(name) else {
        return Err(statement.error(place(statement, name), qualified(name)));
    };
    match normalised(ident) {
        empty if empty.is_empty() => Err(statement.error(place(statement, name), "the name is empty; give it one")),
        name => Ok(name),
    }
}

/// As [`defined`], for a name that is also a folder's: ASCII letters, digits, `_` and `-`.
///
/// # Errors
/// As [`defined`], and any other character.
pub(crate) fn published(statement: &Statement<'_>, name: &ObjectName) -> Result<String> {
    let published = defined(statement, name)?;
    if published.chars().all(is_of_folder) {
        return Ok(published);
    }
    let message = format!("`{published}` is also the name of a folder; use {FOLDER_CHARACTERS} only");
    Err(statement.error(place(statement, name), message))
}
