//! Chunkwise runs a data-pipeline task chunk by chunk.
//!
//! A query is written as if it ran on whole tables, and names the columns to cut by. Chunkwise proves that the cut
//! changes nothing, rewrites the plan of every input so that chunk k sees only its rows, runs the chunk plans in parallel
//! on Apache DataFusion, writes partitioned Parquet, and keeps every chunk in a local cache, so that the next run
//! computes only what changed.
//!
//! - **Right or refused.** A chunked run gives exactly the rows of the unchunked one, or the task is refused with the
//!   reason. (Sums of floats depend on the order of addition, here as everywhere in DataFusion.)
//! - **Nothing lost, nothing stale.** Files are write-once, named by what they are made of, and appear only when they are
//!   whole; a published table is switched by one rename.
//!
//! # Quick start
//!
//! ```
//! use chunkwise::{Engine, RunOptions, Status};
//!
//! # #[tokio::main(flavor = "multi_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! std::fs::write(folder.path().join("sales.csv"), "shop,day,amount\n1,2026-01-01,10\n1,2026-01-02,5\n2,2026-01-01,7\n")?;
//! let pipeline = chunkwise::sql::parse(
//!     "CREATE EXTERNAL TABLE sales STORED AS CSV LOCATION 'sales.csv' OPTIONS (format.has_header true);
//!      CREATE TABLE per_shop CLUSTERED BY (shop) INTO 4 BUCKETS AS
//!      SELECT shop, sum(amount) AS amount FROM sales GROUP BY shop;",
//!     "sales.sql",
//!     folder.path(),
//! )?;
//!
//! let engine = Engine::builder().cache_folder(folder.path().join("cache")).build()?;
//! let report = engine.run(&pipeline, &RunOptions::default()).await?;
//! assert_eq!(report.tasks[0].executed, 4);
//! let again = engine.run(&pipeline, &RunOptions::default()).await?;
//! assert_eq!(again.tasks[0].status, Status::Reused);
//!
//! let rows = engine.query("SELECT amount FROM per_shop ORDER BY shop").await?.collect().await?;
//! assert_eq!(rows[0].num_rows(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! [`sql::load`] reads files and folders. [`Engine::explain`] says how a task is cut and why that is right, or why it is
//! refused. [`Engine::table`] gives an output as a DataFusion `TableProvider`, [`Engine::table_chunk`] one chunk of it.
//! [`EngineBuilder::on_event`] and [`Run::events`] tell what happens while it happens, [`RunReport`] what has happened.
//!
//! # Tasks in Rust
//!
//! | made by | what it is | how it is cut |
//! |---|---|---|
//! | `CREATE TABLE … AS`, [`sql::task`] | a query | as is proved |
//! | [`Task::dataframe`] | a function over lazy tables, which gives one | as is proved of its plan |
//! | [`Task::dataframes`] | such a function that gives several tables, published together | each by itself, as is proved |
//! | [`Task::batches`], [`Task::stream`] | a function over rows | whole, or as its author says with [`Task::assume_chunkable`] |
//!
//! [`Pipeline::builder`] puts them together with what SQL files define. A function over lazy tables is called when the task is
//! planned, with tables that have columns but no rows: its plan is proved, cut and fingerprinted as that of SQL is, so that no
//! version has to be kept. A function over rows has a version, since nobody can see what it does; so has a [`UserFunction`] that
//! queries call.
//!
//! ```
//! use chunkwise::datafusion::functions_aggregate::expr_fn::{max, sum};
//! use chunkwise::datafusion::prelude::{col, lit};
//! use chunkwise::{Batched, Engine, Pipeline, RunOptions, Task, sql};
//!
//! # #[tokio::main(flavor = "multi_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # std::fs::write(folder.path().join("sales.csv"), "shop,day,amount\n1,1,10\n1,1,5\n2,2,7\n")?;
//! let sales = "CREATE EXTERNAL TABLE sales STORED AS CSV LOCATION 'sales.csv' OPTIONS (format.has_header true)";
//! let per_shop = Task::dataframe("per_shop", ["sales"], |inputs| {
//!     inputs.table("sales")?.aggregate(vec![col("shop")], vec![sum(col("amount")).alias("amount")])
//! });
//! // A chunk for each day, each with a query of its own; then the best day, over what is stored of them.
//! let best_day = Task::dataframe("best_day", ["sales"], |inputs| {
//!     let mut days = Vec::new();
//!     for day in 1..=2 {
//!         let sales = inputs.table("sales")?.filter(col("day").eq(lit(day)))?;
//!         days.push(sales.aggregate(vec![col("day")], vec![sum(col("amount")).alias("amount")])?);
//!     }
//!     inputs.chunks("days", days)?.aggregate(vec![], vec![max(col("amount")).alias("amount")])
//! });
//! let pipeline = Pipeline::builder()
//!     .with(sql::definitions(sales, "sales.sql", folder.path())?)
//!     .with(per_shop.invoke(Batched::by(["shop"]).chunks(4)))
//!     .with(best_day)
//!     .build()?;
//! let engine = Engine::builder().cache_folder(folder.path().join("cache")).build()?;
//! let report = engine.run(&pipeline, &RunOptions::default()).await?;
//! assert_eq!(report.task("per_shop").unwrap().executed, 4);
//! // Two days, and the rest.
//! assert_eq!(report.task("best_day").unwrap().executed, 3);
//! # Ok(())
//! # }
//! ```
//!
//! [`TaskInputs::materialize`] stores a lazy table on the way and gives it back, [`TaskInputs::chunks`] the union of several
//! that are chunks of their own: of them those run again whose query, or what it reads, changed.
//!
//! Several runs may use one engine: they share its threads, jobs and memory. [`Run::token`] and dropping stop one.
//!
//! # Hooks
//!
//! ```text
//!             InvocationHook: into which chunks, in which order
//!                                    │
//!   SourceHook ─ rows ┐              ▼
//!   files ────────────┼─ input ─ DematerializationHook ─ query, proved and cut ─ rows of chunk k
//!   other tasks ──────┘                                                              │
//!                       published table ◄─ finish ◄─ committed ◄─ MaterializationHook┘
//! ```
//!
//! - An [`InvocationHook`] says into which chunks a task is cut, and may run them in its own way. [`Batched`] is one,
//!   [`ByRange`], [`ByValue`], [`ByExpr`] and [`Whole`] are others. It gives a [`Cut`], keys and a function of them, or
//!   predicates of each input, and the data is asked whether one of them holds for each row: the proof is the engine's.
//!   One that can't be made is a refusal, unless the task says [`Task::assume_chunkable`].
//! - A [`SourceHook`] gives the rows of a custom source, slice by slice.
//! - A [`DematerializationHook`] rewrites an input, as a plan over the whole of it, before the proof is made.
//! - A [`MaterializationHook`] sees the rows of each chunk while they are written, may refuse or extend them, and sees the
//!   whole before it is published.
//!
//! To write one, implement its trait. [`HookContext`] has all that the user set, and a folder for temporary files that goes with
//! the task, whatever happens to it. There is no other state: nothing is global or of a thread.
//!
//! ```
//! use chunkwise::datafusion::common::{Result as PlanResult, ScalarValue};
//! use chunkwise::datafusion::logical_expr::LogicalPlan;
//! use chunkwise::datafusion::prelude::{col, lit};
//! use chunkwise::{
//!     Cut, DematerializationHook, Engine, InputPlan, InvocationContext, InvocationHook, Pipeline, Result, RunOptions,
//!     async_trait, sql,
//! };
//!
//! /// A chunk for each shop that the task's parameter names, and one for all others.
//! #[derive(Debug)]
//! struct ByShop;
//!
//! #[async_trait]
//! impl InvocationHook for ByShop {
//!     async fn cut(&self, context: &InvocationContext) -> Result<Cut> {
//!         let shops = context.parameter("shops").map(ToString::to_string).unwrap_or_default();
//!         let shops = shops.split(',').filter_map(|shop| shop.parse().ok());
//!         Ok(Cut::values("shop", shops.map(|shop: i64| vec![ScalarValue::from(shop)])))
//!     }
//! }
//!
//! /// Leaves out what was given back.
//! #[derive(Debug)]
//! struct Sold;
//!
//! impl DematerializationHook for Sold {
//!     fn name(&self) -> &str {
//!         "sold"
//!     }
//!
//!     fn rewrite(&self, input: InputPlan<'_>) -> PlanResult<LogicalPlan> {
//!         Ok(input.dataframe().filter(col("amount").gt(lit(0)))?.into_unoptimized_plan())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "multi_thread")]
//! # async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # std::fs::write(folder.path().join("sales.csv"), "shop,amount\n1,10\n1,-5\n2,7\n3,1\n")?;
//! # let sales = "CREATE EXTERNAL TABLE sales STORED AS CSV LOCATION 'sales.csv' OPTIONS (format.has_header true)";
//! let task = sql::task("per_shop", "SELECT shop, sum(amount) AS amount FROM sales GROUP BY shop")?;
//! let task = task.parameter("shops", "1,2").invoke(ByShop).dematerialize("sales", Sold);
//! let pipeline = Pipeline::builder().with(sql::definitions(sales, "sales.sql", folder.path())?).with(task).build()?;
//! let engine = Engine::builder().cache_folder(folder.path().join("cache")).build()?;
//! let report = engine.run(&pipeline, &RunOptions::default()).await?;
//! assert_eq!((report.tasks[0].chunks, report.tasks[0].rows), (3, 3));
//! # Ok(())
//! # }
//! ```
//!
//! A hook changes what chunks are named by through its name and version, an invocation hook through its cut, a source hook
//! through the versions of slices: so give it a new version when it does something else. The project's `examples/` have one of
//! each.
//!
//! # How a task is cut
//!
//! ```text
//!   orders  ──chunk_of(16, o_orderkey) = k──┐
//!                                           ├─ join ── aggregate by o_orderkey ── chunk k of the output
//!   lineitem ─chunk_of(16, l_orderkey) = k──┘              k = 0 … 15
//!   nation  ──────── whole, in every chunk ─┘
//! ```
//!
//! `CLUSTERED BY (o_orderkey) INTO 16 BUCKETS` names a column of the output or of an input. Equalities of joins and
//! filters carry it to other inputs; an input that they don't reach is *replicated*. A key is cut by what the query
//! compares: `CAST(k AS DECIMAL)`, `coalesce(k, 0)`, `date_trunc('day', t)`. The chunk function is Iceberg's
//! bucket transform ([`chunk_of_udf`] makes it usable in SQL): any type that has equality, other than nested ones, can be
//! a key; NULL keys are in chunk 0.
//!
//! The prover accepts scans, filters, projections, all joins on the keys, joins with a replicated side whose unmatched
//! rows are not kept, aggregates, grouping sets and windows by the keys, DISTINCT, UNION ALL (a branch that is not cut
//! is given to chunk 0), INTERSECT and EXCEPT, unnest, sorts. Correlated subqueries, IN and EXISTS become joins first.
//!
//! Where a part of the query can't be cut, the task runs in *steps*, whose rows are stored like those of any task:
//!
//! - An aggregate or DISTINCT without the keys, or ORDER BY … LIMIT, is done in *two phases*: each chunk does its part,
//!   and the next step puts the parts together.
//! - A part that chunks would compute again, each with another result or all reading everything, *runs first*: scalar
//!   subqueries, sides that depend on the order of rows, outer joins that keep the rows of a replicated side.
//! - *Below* an operator that can't be cut, its input is cut if that is worth it.
//! - What a query that says nothing of its cut reads more than once, such as a common table expression that it names
//!   twice, is computed once, if it reads 32 MiB of files or more and gives at most a quarter of that, if no rows
//!   depend on the order of others, and no reader takes less of it: by a filter of its own, or by a join of what is a
//!   join itself.
//!
//! Filters, limits and projections are pushed down before a part is taken out, so that only the rows and columns that
//! the rest reads are stored. Steps that don't read each other run side by side. What gives one row runs whole, and so
//! does a query without keys that fits in memory, where steps would cut less than half of it or store nearly as much as
//! they read. EXPLAIN says what the whole of a large query is expected to hold at a time.
//!
//! All else is refused with the node, its place, the rule and what to change. What counts as the same rows is what
//! DataFusion does not leave to the order of rows: floats are summed in another order, and of -0.0 and 0.0 either stands
//! for a group of both.
//!
//! `WITH (chunk_by = 'auto', chunks = n)` lets the engine find the key: of those that the proof holds for, the one
//! that cuts the most bytes of the inputs, the largest of its chunks left out where it has fewer values than there are
//! chunks. What can't be cut at all runs whole then. A task that says nothing is cut the same way when its inputs are
//! large.
//!
//! # How a chunk reads its inputs
//!
//! [`InputMode`] has the ways: by file where the input is *stored* by the same keys, by row group where Parquet statistics
//! say that it is *clustered* by the key (the chunks are key ranges then), from a *split* that one pass over the input has
//! made, by *rescan*, from the hook that *serves* its source, or the whole input where it is replicated. They differ in
//! what is read, never in the rows; the cheapest is taken, and EXPLAIN shows it.
//!
//! Chunks that fit in memory together are computed in one *pass*, if the rows of the result say their chunk: the query
//! runs once over the rows of all of them, with the chunk's number as one column more, and its rows are dealt to the
//! chunks' files. That is so for steps that read at most 512 MiB of the inputs' files. Where a pass fails, its chunks
//! run one by one.
//!
//! Inner joins whose conditions can't fail are made in the order that leaves the fewest rows on the way, by the
//! numbers of rows and of distinct values that Parquet files tell (dictionaries, least and most values), where that is
//! clearly better than the order in the query. Of any join the side that is smaller by these numbers is held in memory.
//! Where an aggregate makes groups of which a join above drops those that are not in a filtered table, the rows of
//! these are left out below.
//!
//! # Memory
//!
//! [`EngineBuilder::memory_limit_bytes`] bounds the resident memory of the process, by default to half of what the machine or
//! its control group has. Less memory makes a run slower, not fail:
//!
//! - Of the limit a part is held back for what nobody counts: the process itself, pages being decoded, files being written.
//!   Operators reserve memory from a pool of the rest, which all runs of an engine share. Half of the pool is given out
//!   first come, first served; the other half is divided evenly among the operators that can spill.
//! - The number of chunks follows from what the needed columns take in memory, where it is the engine's own choice, and is kept
//!   from run to run while it serves.
//! - A chunk that does not fit is cut further by the same function, into halves and halves of these, one after the other. Chunks
//!   by predicates of each input, and those with queries of their own, have no halves.
//! - What many rows of one key keep from being cut runs alone, with joins that sort and spill.
//! - An aggregate over the distinct values of several expressions becomes a join of aggregates over one expression
//!   each, which can be cut and can spill.
//! - Batches of wide rows have fewer of them, and texts are copied out of the pages that they were read from.
//! - A page of a Parquet file is in memory as a whole, and so is a row group's part of the needed columns as it is in
//!   the file. Where that is more than the limit, a warning says so before the step begins; its chunks run one at a
//!   time, and take more.
//!
//! What a user's code holds is not counted: only the batches that [`Task::batches`] is given and gives are. A function
//! that needs all rows in memory at once, and is not cut, fails where they do not fit.
//!
//! # What is reused and why
//!
//! A chunk is named by a hash of all that it is made of: the query's plan (so that comments, layout and aliases inside
//! the query don't matter), keys, the number of chunks or what else says which rows are its own, parameters, options, the
//! versions of hooks, functions, the engine, DataFusion and the chunk function, and the content of its slices of the inputs. A chunk whose name is in the cache is not run. A query that
//! calls a volatile function such as `random()` runs each time; `now()` and `current_date` count as the constants they
//! are during one run.
//!
//! Content is what rows say, whatever their order, encoding and files: a sum of row hashes for each chunk, made while
//! chunks and splits are written. So a source that changed in a few rows runs a few chunks, and a chunk that comes
//! out as it was runs nothing that reads it. Only of a query without keys do small steps that the engine takes out of
//! it run as one: to tell their chunks' rows apart would cost as much. Of what a chunk reads by row group or whole
//! from a source, it is the bytes of the needed columns. A source's files are looked at by path, size, inode and
//! times first; what was found out of them is noted in the index. [`FreshInput`] and [`RunOptions`] have the ways to
//! look away, or to look again.
//!
//! Processes that want the same chunk wait for the one that makes it. [`Engine::collect`] removes what no published or
//! pinned table is made of, [`EngineBuilder::cache_limit_bytes`] does so after each run.
//!
//! A source's files are listed once per run, and a hook is asked for the version of its source. If one changes before what was
//! made of it is published, the task fails and nothing is.
//!
//! Every file has a checksum, in the index and in the list beside a published table, and is compared with it before a
//! process reads it first: a damaged one is an error, is set aside, and is computed again by the next run.
//! [`Engine::verify_cache`] compares all of them.
//!
//! # Stages
//!
//! A table is published by itself, as soon as its task is done. Tables that belong together are of one *stage*,
//! `WITH (stage = 'daily')` or [`Task::stage`]: they are published by one rename once all tasks of the stage have succeeded, so
//! that [`Engine::query`] sees all of them as before or all new. If one fails, none is published: the others are
//! [`Status::Withheld`], and the next run finds their chunks in the cache. What reads a table of a stage from outside waits
//! for the whole stage; so a stage can't read what reads it. [`RunOptions::tasks`] takes stages, and of a task's stage all
//! tasks run.
//!
//! A table of a stage that no task of the run has any more stays in the stage as it is. One that joins a stage, or moves
//! to another, changes with it; one that leaves is published by itself again.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | chunk (k of N) | the unit of work, of caching and of the published folder |
//! | keys | the columns that decide a row's chunk |
//! | input | a source or task that a task reads: *partitioned* (a chunk sees its rows) or *replicated* (it sees all) |
//! | proof | why a task may be cut, and by which column of each input |
//! | slice | an input's part for a chunk, and how it is read |
//! | split | an input cut into chunks in one pass, stored |
//! | pass | one reading of the inputs: for a split, or to compute several chunks at once |
//! | fingerprint | the hash of all that a chunk is made of |
//! | content | what a set of rows says, whatever their order and encoding |
//! | hit, miss, reason | a chunk that is in the cache, one that isn't, and what changed |
//! | step | a query that a task runs as; one for most tasks, more where a part of it can't be cut with the rest, or is stored on the way |
//! | publish | make a table's new version the one that readers see |
//! | stage | tasks whose tables are published together or not at all |
//! | partition, batch, row group, bucket | DataFusion's parallel stream, Arrow's record batch, Parquet's row group, Hive's word for a chunk |
//!
//! # Layers
//!
//! A module imports only from its own row and rows above; a test checks it.
//!
//! | module | what it is |
//! |---|---|
//! | `error`, `config`, `event`, `failpoint`, `shown` | one error type; settings as plain data; what happened; where tests let a process die or a write fail; text for terminals |
//! | `arithmetic` | operators and aggregates that fail where a result does not fit |
//! | `zone` | what SQL says of time zones |
//! | `chunk` | keys × N × a function: hash, range, values, predicates, own queries; which types are keys; which chunks overlap |
//! | `hook`, `task`, `pipeline` | what users write; a task, its inputs, functions and options; the DAG |
//! | `sql` | Hive/Spark DDL → tasks; which clauses a query may have |
//! | `plan` | pure: resolve, keys, prove, two phases and steps, slices, rewrite, fingerprint, explain |
//! | `execute` | DataFusion's session and memory; functions over rows; a plan's stream into a file, or into a split |
//! | `cache` | immutable chunk files; the index; the published folder; splits; locks; what is removed |
//! | `table` | files as a `TableProvider`: outputs, single chunks, parts of splits |
//! | `source` | files of others: which they are, their columns, their rows, whether they changed |
//! | `schedule`, `run` | what is next (pure); running it |
//! | `engine` | the public API |
//! | `testing` | what the project's own tests and benches need |
//! | `cli` | the command line |

mod arithmetic;
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
mod failpoint;
mod hook;
mod pipeline;
mod plan;
mod run;
mod schedule;
mod shown;
mod source;
pub mod sql;
mod table;
mod task;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;
mod zone;

pub use async_trait::async_trait;
pub use datafusion;
pub use tokio_util::sync::CancellationToken;

pub use crate::cache::Verification;
pub use crate::cache::collect::{CollectOptions, Collected};
pub use crate::cache::publish::{ChunkSummary, PublishedSummary};
pub use crate::chunk::MAX_CHUNKS;
pub use crate::chunk::bucket::chunk_of_udf;
pub use crate::config::Settings;
pub use crate::engine::{Engine, EngineBuilder, Run, RunEvents};
pub use crate::error::{Error, ErrorKind, Location, Result};
pub use crate::event::Event;
pub use crate::hook::{
    Batched, ByExpr, ByRange, ByValue, ChunkFile, ChunkRows, Chunks, Cut, DematerializationHook, FinishedTable,
    HookContext, InputPlan, InputSlice, InvocationContext, InvocationHook, MaterializationHook, OutputChunk,
    SourceHook, UserSource, Whole,
};
pub use crate::pipeline::{Definitions, Pipeline, PipelineBuilder};
pub use crate::plan::slice::InputMode;
pub use crate::run::report::{InputReport, RunReport, Status, StepPart, StepReport, TaskReport};
pub use crate::run::{FreshInput, RunOptions};
pub use crate::task::dataframe::TaskInputs;
pub use crate::task::function::UserFunction;
pub use crate::task::opaque::{InputBatches, InputStreams};
pub use crate::task::{Task, TaskOptions, Tasks};
