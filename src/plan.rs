//! Planning: pure and synchronous, without I/O.
//!
//! [`resolve`] turns a task into a normalised logical plan over named inputs; [`prove`] decides whether it may be cut
//! and by what; [`steps`] finds the steps it takes; [`ranges`] cuts by key ranges where statistics ([`clustering`]) say
//! that this saves work; [`slice`] is how a chunk gets its part of an input, [`need`] what a step needs of it;
//! [`rewrite`] makes the plan of one chunk from that proof; [`components`] is what a chunk is made of, and
//! [`fingerprint`] hashes queries; [`explain`] says all that in words. [`rows`] estimates how many rows plans give, from
//! how many values columns have ([`distinct`]), and [`held`] what they hold at a time. [`repair`] keeps DataFusion's
//! optimizer from what it does wrong.

pub mod clustering;
pub mod components;
pub mod distinct;
pub mod distinct_apart;
pub mod explain;
pub mod fingerprint;
pub mod group_filter;
pub mod held;
pub mod join_order;
pub mod keys;
pub mod need;
pub mod opaque;
pub mod order;
pub mod partitionable;
pub mod pass;
pub mod prove;
pub mod published;
mod push_down;
pub mod query;
pub mod ranges;
pub mod repair;
pub mod resolve;
pub mod rewrite;
pub mod rows;
pub mod semi_joins;
pub mod slice;
pub mod split;
mod step_form;
pub mod steps;
pub mod streamed;
pub mod two_phase;
