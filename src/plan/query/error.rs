//! Errors of planning, in words for who wrote the SQL.

use datafusion::common::{DataFusionError, Diagnostic, Span};
use sqlparser::tokenizer::Span as SqlSpan;

/// An error at `span`.
pub(super) fn at(span: SqlSpan, message: impl Into<String>) -> DataFusionError {
    let message = message.into();
    let diagnostic = Diagnostic::new_error(message.clone(), Span::try_from_sqlparser_span(span));
    DataFusionError::Plan(message).with_diagnostic(diagnostic)
}

/// The message of DataFusion's error without the names of its kinds.
pub fn readable(error: &DataFusionError) -> String {
    error.strip_backtrace()
}
