//! All integration tests in one binary, since each binary links all of DataFusion again.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod arithmetic;
mod by_expr;
mod cancel;
mod cli;
mod collect;
mod crash;
mod cutoff;
mod demo;
mod faults;
mod functions;
mod fuzz;
mod hooks;
mod integrity;
mod layers;
mod literals;
mod materialize;
mod memory;
mod mutations;
mod order;
mod passes;
mod planning;
mod plans;
mod prove;
mod regressions;
mod repeated;
mod reuse;
mod served;
mod slices;
mod slt;
mod sources;
mod stages;
mod support;
mod tpch;
mod types;
mod zones;
