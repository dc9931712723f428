//! What to do about errors of DataFusion's own, where they don't say.

use datafusion::common::DataFusionError;

/// What errors say, and what to do about them.
const REMEDIES: [(&[&str], &str); 8] = [
    (
        &["exceeds the representable i64 range", "to Nanosecond", "represented as nanoseconds"],
        "nanoseconds reach from 1677 to 2262, so let all timestamps that meet be of microseconds: arrow_cast('9999-12-31', \
         'Timestamp(Microsecond, None)') or CAST(… AS TIMESTAMP(6))",
    ),
    (&["Divide by zero"], "leave such rows out, or divide by nullif(x, 0), which gives NULL"),
    (
        &["Can't cast value", "Cannot cast string", "Cannot parse decimal", "Error parsing timestamp"],
        "cast to a type that holds the value, or write TRY_CAST, which gives NULL",
    ),
    (
        &["Scalar subquery returned more than one row"],
        "a subquery in the place of a value must give one row at most: let it compute max(x) or another aggregate, add ORDER BY \
         and LIMIT 1, or join with it",
    ),
    (
        &["CompiledTooBig", "Compiled regex exceeds size limit"],
        "a regular expression is too large, which needs more than 10 MiB; repeat less in {…}",
    ),
    (
        &["can not be used as a sliding accumulator"],
        "of rows that leave a frame again DataFusion 55 computes only some aggregates; let the frame begin at UNBOUNDED PRECEDING, or \
         leave DISTINCT out",
    ),
    (
        &["only support Literal types for field"],
        "the rows and the default of lag and lead are constants; write CASE WHEN row_number() OVER (…) = 1 THEN y ELSE \
         lag(x) OVER (…) END for one that is not",
    ),
    // Of DataFusion's operators and functions; the checked ones say more.
    (&["Overflow happened on", "verflow on abs("], "CAST the value to a wider type before"),
];

/// What to do about an error that says what is known here.
pub fn remedy(error: &DataFusionError) -> Option<&'static str> {
    let text = error.to_string();
    let (_, remedy) = REMEDIES.iter().find(|(known, _)| known.iter().any(|known| text.contains(known)))?;
    Some(remedy)
}
