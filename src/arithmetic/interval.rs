//! Intervals: a number of months, one of days, and a time.
//!
//! DataFusion 55 takes them for their parts. So 24 hours are less than a day there, a date loses the hours that it is
//! moved by, and a timestamp in seconds the milliseconds.

mod extreme;
mod length;
mod sum;
mod unit;

pub use extreme::checked_extreme;
pub use length::{compare_by_length, keys_by_length, sort_by_length};
pub use sum::{DistinctIntervals, IntervalSum};
pub use unit::{as_of_unit, check_frame, in_unit};
