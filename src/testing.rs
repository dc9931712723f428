//! For this project's own tests and benches: rules of the prover switched off, scans in another order. Not for use:
//! what runs under it may be wrong, and nothing here is kept from version to version.

pub use crate::plan::prove::rule::Rule;
