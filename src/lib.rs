mod cache;
mod chunk;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod config;
mod engine;
mod error;
mod event;
mod execute;
mod pipeline;
mod plan;
mod run;
mod schedule;
pub mod sql;
mod table;
mod task;

pub use crate::chunk::bucket::chunk_of_udf;
pub use crate::config::Settings;
pub use crate::engine::{Engine, EngineBuilder};
pub use crate::error::{Error, ErrorKind, Location, Result};
pub use crate::event::Event;
pub use crate::pipeline::{Item, Pipeline};
pub use crate::run::RunOptions;
pub use crate::run::report::{InputMode, InputReport, RunReport, Status, TaskReport};
