//! Running one plan: DataFusion's session and memory, and a plan's stream into a Parquet file.

pub mod budget;
pub mod footers;
pub mod session;
pub mod sorted_joins;
pub mod split;
pub mod write;
