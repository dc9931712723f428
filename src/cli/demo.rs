//! `chunkwise demo`: everything once, on data made here.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::cli::{complain, run, say, tpch};
use crate::error::{Error, Result};
use crate::run::RunOptions;
use crate::sql;

/// The tasks of `sql/demo/`, so that the command needs no checkout.
const TASKS: [(&str, &str); 13] = [
    ("sources.sql", include_str!("../../sql/demo/sources.sql")),
    ("net_line_items.sql", include_str!("../../sql/demo/net_line_items.sql")),
    ("order_revenue.sql", include_str!("../../sql/demo/order_revenue.sql")),
    ("late_orders.sql", include_str!("../../sql/demo/late_orders.sql")),
    ("late_order_revenue.sql", include_str!("../../sql/demo/late_order_revenue.sql")),
    ("customer_orders.sql", include_str!("../../sql/demo/customer_orders.sql")),
    ("idle_customers.sql", include_str!("../../sql/demo/idle_customers.sql")),
    ("supplier_sales.sql", include_str!("../../sql/demo/supplier_sales.sql")),
    ("part_price_history.sql", include_str!("../../sql/demo/part_price_history.sql")),
    ("part_movements.sql", include_str!("../../sql/demo/part_movements.sql")),
    ("supply_routes.sql", include_str!("../../sql/demo/supply_routes.sql")),
    ("customer_revenue.sql", include_str!("../../sql/demo/customer_revenue.sql")),
    ("top_nations.sql", include_str!("../../sql/demo/top_nations.sql")),
];

/// Arguments of `chunkwise demo`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// TPC-H scale factor: 1 is 6 million line items
    #[arg(long, value_name = "F", default_value_t = 0.1)]
    scale: f64,
    /// Folder for the data, the tasks and the cache
    #[arg(long, value_name = "DIR", default_value = "chunkwise-demo")]
    dir: PathBuf,
}

/// Makes the data once, lays out the tasks, and runs them.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    let (data, tasks, cache) = (arguments.dir.join("data"), arguments.dir.join("sql"), arguments.dir.join("cache"));
    say(format_args!("TPC-H data at scale {} in {}", arguments.scale, data.display()));
    make_data(&data, arguments.scale)?;
    lay_out(&tasks)?;
    say(format_args!("tasks in {}", tasks.display()));
    let pipeline = sql::load([&tasks])?;
    let options = run::Options::in_folder(cache.clone());
    let Some(report) = run::run(&pipeline, &RunOptions::default(), &options, false)? else {
        complain("interrupted; finished chunks are kept, and the next run goes on from them");
        return Ok(ExitCode::from(130));
    };
    let (tasks, cache) = (tasks.display(), cache.display());
    say(format_args!(
        "published in {cache}/tables; try next:
  chunkwise run {tasks} --cache {cache}                      nothing runs again
  chunkwise explain {tasks} --task order_revenue             how it is cut, and why that is right
  chunkwise query 'SELECT * FROM top_nations' --cache {cache}
edit a file in {tasks} and run again: only it and what reads it runs"
    ));
    Ok(if report.succeeded() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn make_data(folder: &Path, scale: f64) -> Result<()> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{prefix:9} {bar:30} {human_pos} rows, {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut done = BTreeMap::new();
    tpch::generate(folder, scale, &mut |table, rows, total| {
        done.insert(table.to_string(), rows);
        bar.set_prefix(table.to_string());
        bar.set_length(total);
        bar.set_position(rows);
    })?;
    bar.finish_and_clear();
    let done: Vec<_> = done.iter().map(|(table, rows)| format!("{table} {}", HumanCount(*rows))).collect();
    say(format_args!("rows: {}", done.join(", ")));
    Ok(())
}

/// Writes the tasks that are not there yet: edited ones stay.
fn lay_out(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::storage("create", folder, e))?;
    for (name, text) in TASKS {
        let file = folder.join(name);
        if !file.exists() {
            std::fs::write(&file, text).map_err(|e| Error::storage("write", &file, e))?;
        }
    }
    Ok(())
}
