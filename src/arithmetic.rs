//! Arithmetic that fails where its result does not fit, in place of DataFusion's.
//!
//! | what | DataFusion 55 | here |
//! |---|---|---|
//! | `+`, `-`, `*` and unary minus of integers | wrap around | an error |
//! | `+`, `-`, `*`, `/` of decimals with the most digits that the type has | may give more digits | an error |
//! | `sum`, also DISTINCT and in windows | wraps around | summed exactly; an error if the result does not fit |
//! | `avg` of durations and of the widest decimals | wraps around | likewise |
//! | `avg` of integers | summed as floats | summed exactly |
//! | sums and variances of floats over frames that rows leave | by subtraction, which leaves what was rounded | of the rows in the frame ([`sliding`]) |
//! | casts of large numbers to REAL | infinite | an error ([`cast`]) |
//! | casts of constants that fail | an error, even in a branch not taken | an error where the value counts ([`cast`]) |
//! | functions of dates beyond nanoseconds | NULL, or an error | right, or an error ([`function`]) |
//! | decimals beside floats | cut to 15 decimal places | written numbers are decimals, else DOUBLE ([`mixed`]) |
//! | comparisons, extremes and orders of intervals | by parts | by length ([`interval`]) |
//! | dates and timestamps moved by intervals with finer parts | lose these | an error ([`interval`]) |
//! | numbers beside dates and times | days, or nanoseconds | an error ([`mixed`]) |
//! | times of day beside those of another unit | an error | of the finer unit ([`mixed`]) |
//! | `min` and `max` of floats by group | the last of NaN and a number | NaN is the largest ([`extreme`]) |
//! | comparisons and orders of lists and structs with NULLs | several | one ([`nested`]) |
//! | comparisons of dates and timestamps with constants | fail for the year 9999; round the constant | exact ([`compare`]) |
//! | dates and timestamps beside those of another unit | fail for the year 9999 | exact, in the unit of the timestamp ([`moments`]) |
//!
//! Plans keep DataFusion's own expressions until they are executed, so that its optimizer and the prover know what they see.
//! [`checked::checked`] replaces them in the last step before physical planning. Constants are folded earlier:
//! [`fold::CheckedFolding`] lets DataFusion fold checked expressions, and what overflows stays in the plan as one, so that
//! it fails only if it is evaluated.
//!
//! An AND or OR evaluates what may fail only for the rows for which it decides ([`lazy`], [`condition`]), so that it
//! does not depend on batches whether a query fails.
//!
//! Chains of very many operators are functions from the start, so that planning them takes linear time ([`chain`]).
//!
//! A predicate that says which chunk a row is in is evaluated for rows that the query itself never looks at, so it must not
//! fail: [`operator::wrapping`] gives its arithmetic, which wraps around.

pub mod average;
pub mod cast;
pub mod chain;
pub mod checked;
mod compare;
pub mod condition;
mod extreme;
pub mod fold;
pub mod function;
mod interval;
mod kernel;
pub mod lazy;
pub mod mixed;
pub mod moments;
pub mod nested;
pub mod operator;
pub mod remedy;
pub mod sliding;
pub mod sum;
pub mod terms;
pub mod total;
pub mod written;
