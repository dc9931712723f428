//! `CREATE VIEW` → a view.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlparser::ast::{CreateTableOptions, CreateView};

use crate::error::Result;
use crate::sql::tokens::Statement;
use crate::sql::{checked, name};
use crate::task::View;

/// The view that `create` defines.
///
/// # Errors
/// At its place: a clause without meaning here, a column that is not a bare name or stands twice.
pub(crate) fn view(statement: &Statement<'_>, create: CreateView) -> Result<View> {
    // Every field is named, so that a clause of a later sqlparser is refused or read, but never ignored.
    let CreateView {
        or_alter,
        or_replace,
        materialized,
        secure,
        name,
        name_before_not_exists: _,
        columns,
        mut query,
        options,
        cluster_by,
        comment,
        with_no_schema_binding,
        if_not_exists,
        temporary,
        copy_grants,
        to,
        params,
    } = create;
    let name = name::defined(statement, &name)?;
    let once = "a name is defined once, so remove it";
    let inlined = "a view is a named query that is not stored, so remove it";
    let refused = [
        (or_alter, "OR ALTER", once),
        (or_replace, "OR REPLACE", once),
        (if_not_exists, "IF NOT EXISTS", once),
        (materialized, "MATERIALIZED", "write CREATE TABLE … AS to store the result"),
        (temporary && !statement.has("TEMPORARY"), "TEMP", inlined),
        (temporary, "TEMPORARY", inlined),
        (secure, "SECURE", inlined),
        (matches!(options, CreateTableOptions::With(_)), "WITH", inlined),
        (options != CreateTableOptions::None, "OPTIONS", inlined),
        (!cluster_by.is_empty(), "CLUSTER BY", inlined),
        (comment.is_some(), "COMMENT", "write it as an SQL comment"),
        (with_no_schema_binding, "WITH NO SCHEMA BINDING", inlined),
        (copy_grants, "COPY GRANTS", inlined),
        (to.is_some(), "TO", inlined),
    ];
    if let Some((_, clause, advice)) = refused.iter().find(|(is_set, ..)| *is_set) {
        return Err(statement.refuse(clause, advice));
    }
    if let Some(params) = params {
        let message = format!("{} has no meaning here; {inlined}", params.to_string().trim());
        return Err(statement.error(statement.start(), message));
    }
    let mut names = Vec::with_capacity(columns.len());
    let mut seen = BTreeSet::new();
    for column in columns {
        let place = statement.place(column.name.span);
        let name = name::normalised(&column.name);
        if column.data_type.is_some() || column.options.is_some() {
            let message = format!("column `{name}` of a view takes a name only; write CAST in the query for a type");
            return Err(statement.error(place, message));
        }
        if !seen.insert(name.clone()) {
            return Err(statement.error(place, format!("column `{name}` stands twice; rename one of them")));
        }
        names.push(name);
    }
    let reads = checked(statement, &mut query)?;
    Ok(View { name, columns: names, query: Arc::from(query), reads, location: statement.start() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::pipeline::Item;
    use crate::sql::parse_items;
    use crate::sql::tests::assert_refused;
    use crate::task::View;

    fn view(text: &str) -> View {
        match parse_items(text, "f.sql", Path::new("/w")).expect("valid").as_slice() {
            [Item::View(view)] => view.clone(),
            other => panic!("not one view: {other:?}"),
        }
    }

    #[test]
    fn a_view_has_a_name_columns_and_reads() {
        let plain = view("CREATE VIEW \"My view\" AS SELECT * FROM t");
        assert_eq!((plain.name.as_str(), plain.columns.len()), ("My view", 0));
        assert_eq!(plain.reads.first().map(|read| (read.name.as_str(), read.location.column)), Some(("t", 40)));
        let renamed = view("create view V (a, B, \"C\") as select 1, 2, 3");
        assert_eq!((renamed.name.as_str(), renamed.columns), ("v", vec!["a".into(), "b".into(), "C".into()]));
    }

    #[test]
    fn what_a_view_is_not_is_refused_where_it_stands() {
        assert_refused(&[
            ("CREATE OR REPLACE VIEW v AS SELECT 1", "1:8", "OR REPLACE has no meaning"),
            ("CREATE OR ALTER VIEW v AS SELECT 1", "1:8", "OR ALTER has no meaning"),
            ("CREATE MATERIALIZED VIEW v AS SELECT 1", "1:8", "write CREATE TABLE … AS to store the result"),
            ("CREATE\nTEMP VIEW v AS SELECT 1", "2:1", "TEMP has no meaning"),
            ("CREATE TEMPORARY VIEW temp AS SELECT 1", "1:8", "TEMPORARY has no meaning"),
            ("CREATE SECURE VIEW v AS SELECT 1", "1:8", "SECURE has no meaning"),
            ("CREATE ALGORITHM=MERGE VIEW v AS SELECT 1", "1:1", "ALGORITHM = MERGE has no meaning"),
            ("CREATE VIEW IF NOT EXISTS v AS SELECT 1", "1:13", "IF NOT EXISTS has no meaning"),
            ("CREATE VIEW v IF NOT EXISTS AS SELECT 1", "1:15", "IF NOT EXISTS has no meaning"),
            ("CREATE VIEW v WITH (a = 1) AS SELECT 1", "1:15", "WITH has no meaning"),
            ("CREATE VIEW v OPTIONS (a = 1) AS SELECT 1", "1:15", "OPTIONS has no meaning"),
            ("CREATE VIEW v COPY GRANTS AS SELECT 1", "1:15", "COPY GRANTS has no meaning"),
            ("CREATE VIEW v CLUSTER BY (a) AS SELECT 1", "1:15", "CLUSTER BY has no meaning"),
            ("CREATE VIEW v TO w AS SELECT 1", "1:15", "TO has no meaning"),
            ("CREATE VIEW v COMMENT = 'x' AS SELECT 1", "1:15", "COMMENT has no meaning"),
            ("CREATE VIEW v AS SELECT 1 WITH NO SCHEMA BINDING", "1:1", "WITH NO SCHEMA BINDING has no meaning"),
            ("CREATE VIEW v (a INT) AS SELECT 1", "1:18", "expected ), found INT"),
            ("CREATE VIEW v (a,\n A) AS SELECT 1, 2", "2:2", "column `a` stands twice"),
            ("CREATE VIEW a.v AS SELECT 1", "1:13", "`a.v` is qualified"),
            ("CREATE VIEW \"\" AS SELECT 1", "1:13", "the name is empty"),
            ("CREATE VIEW v", "1:14", "expected AS, found the end of the statement"),
            ("CREATE VIEW v AS DELETE FROM t", "1:1", "a query only reads; write a SELECT"),
        ]);
    }
}
