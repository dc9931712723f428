//! Columns that a source declares.

use sqlparser::ast::{ColumnDef, ColumnOption, ColumnOptionDef, Spanned, TableConstraint};
use sqlparser::tokenizer::Location as SqlPlace;

use crate::error::Result;
use crate::sql::clauses::Clauses;
use crate::sql::tokens::Statement;

/// Looks at the columns and constraints of `CREATE EXTERNAL TABLE`.
///
/// # Errors
/// At its place: what would be a promise about the data that nobody keeps.
pub(crate) fn declared(
    statement: &Statement<'_>,
    columns: &[ColumnDef],
    constraints: &[TableConstraint],
) -> Result<()> {
    let mut clauses = Clauses { statement, near: SqlPlace::new(0, 0) };
    for ColumnDef { name, data_type, options } in columns {
        clauses.at(name.span);
        clauses.data_type(data_type)?;
        for ColumnOptionDef { name, option } in options {
            name.iter().for_each(|name| clauses.at(name.span));
            clauses.column_option(option)?;
        }
    }
    if let Some(constraint) = constraints.first() {
        let words = match constraint {
            TableConstraint::Unique(_) | TableConstraint::UniqueUsingIndex(_) => "UNIQUE",
            TableConstraint::PrimaryKey(_) | TableConstraint::PrimaryKeyUsingIndex(_) => "PRIMARY KEY",
            TableConstraint::ForeignKey(_) => "FOREIGN KEY",
            TableConstraint::Check(_) => "CHECK",
            TableConstraint::Index(_) => "INDEX",
            TableConstraint::FulltextOrSpatial(_) => "FULLTEXT and SPATIAL",
        };
        // A constraint may stand before columns.
        clauses.near = SqlPlace::new(0, 0);
        clauses.at(constraint.span());
        let place = statement.previous(words.split(' ').next().unwrap_or(words), clauses.near);
        let place = place.or_else(|| statement.next(words, SqlPlace::new(0, 0))).unwrap_or_else(|| clauses.here());
        return Err(statement.error(place, not_kept(words)));
    }
    Ok(())
}

impl Clauses<'_> {
    fn column_option(&mut self, option: &ColumnOption) -> Result<()> {
        let (words, message) = match option {
            // NOT NULL is checked when the files are read.
            ColumnOption::Null | ColumnOption::NotNull => return Ok(()),
            ColumnOption::Default(_) => (
                "DEFAULT",
                "DEFAULT has no meaning here, what a file lacks is NULL; write coalesce(column, value) in a view".to_string(),
            ),
            ColumnOption::PrimaryKey(_) => ("PRIMARY KEY", not_kept("PRIMARY KEY")),
            ColumnOption::Unique(_) => ("UNIQUE", not_kept("UNIQUE")),
            ColumnOption::ForeignKey(_) => ("REFERENCES", not_kept("REFERENCES")),
            ColumnOption::Check(_) => ("CHECK", not_kept("CHECK")),
            ColumnOption::Collation(_) => (
                "COLLATE",
                "COLLATE has no meaning here, text is compared byte by byte; write lower(column) in a view to ignore case".to_string(),
            ),
            ColumnOption::CharacterSet(_) => (
                "CHARACTER SET",
                "CHARACTER SET has no meaning here, files are read as UTF-8; convert them".to_string(),
            ),
            ColumnOption::Comment(_) => ("COMMENT", "COMMENT has no meaning here; write it as an SQL comment".to_string()),
            ColumnOption::Generated {
                generated_as: _,
                sequence_options: _,
                generation_expr: _,
                generation_expr_mode: _,
                generated_keyword: _,
            } => ("AS", "a computed column has no meaning here; compute it in a view".to_string()),
            ColumnOption::Materialized(_) => ("MATERIALIZED", no_meaning("MATERIALIZED")),
            ColumnOption::Ephemeral(_) => ("EPHEMERAL", no_meaning("EPHEMERAL")),
            ColumnOption::Alias(_) => ("ALIAS", no_meaning("ALIAS")),
            ColumnOption::OnUpdate(_) => ("ON UPDATE", no_meaning("ON UPDATE")),
            ColumnOption::Options(_) => ("OPTIONS", no_meaning("OPTIONS of a column")),
            ColumnOption::Identity(_) => ("IDENTITY", no_meaning("IDENTITY")),
            ColumnOption::OnConflict(_) => ("ON CONFLICT", no_meaning("ON CONFLICT")),
            ColumnOption::Policy(_) => ("POLICY", no_meaning("POLICY")),
            ColumnOption::Tags(_) => ("TAG", no_meaning("TAG")),
            ColumnOption::Srid(_) => ("SRID", no_meaning("SRID")),
            ColumnOption::Invisible => ("INVISIBLE", no_meaning("INVISIBLE")),
            ColumnOption::DialectSpecific(tokens) => {
                let words: Vec<_> = tokens.iter().map(ToString::to_string).collect();
                let words = words.join(" ");
                return self.refuse(true, &words, &no_meaning(&words));
            }
        };
        self.refuse(true, words, &message)
    }
}

fn not_kept(words: &str) -> String {
    format!(
        "{words} has no meaning here, files are not checked for it; remove it, and write a task that counts what breaks it"
    )
}

fn no_meaning(words: &str) -> String {
    format!("{words} has no meaning here; remove it")
}
