//! Running one plan: DataFusion's session and memory, a plan's stream into a Parquet file, an input's rows into split
//! files.

pub mod budget;
pub mod checksum;
pub mod compact;
pub mod conform;
pub mod content;
pub mod convert;
pub mod deal;
pub mod disk;
pub mod first_rows;
pub mod floats;
pub mod footers;
pub mod forgotten_order;
pub mod kept_order;
pub mod memory;
pub mod opaque;
pub mod ordered_aggregates;
pub mod own_text;
pub mod planner;
pub mod pool;
pub mod session;
pub mod sorted_joins;
pub mod split;
pub mod text;
pub mod window;
pub mod write;
