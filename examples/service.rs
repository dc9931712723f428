//! A service that runs tasks for whoever asks, many at a time on one engine, which share its memory and its cache.
//!
//! `cargo run --example service`

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use chunkwise::{Batched, Engine, Pipeline, Result, RunOptions, Status, sql};
use futures::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What all requests share. There is no other state.
struct Service {
    engine: Engine,
    folder: PathBuf,
}

impl Service {
    fn pipeline(&self, city: &str) -> Result<Pipeline> {
        let source =
            "CREATE EXTERNAL TABLE orders STORED AS CSV LOCATION 'orders.csv' OPTIONS (format.has_header true)";
        let query = "SELECT customer, sum(amount) AS amount FROM orders WHERE city = $city GROUP BY customer";
        let name = format!("spending_{city}");
        let task = sql::task(&name, query)?.parameter("city", city).invoke(Batched::by(["customer"]).chunks(4));
        Pipeline::builder().with(sql::definitions(source, "orders.sql", &self.folder)?).with(task).build()
    }
}

/// Computes what a city has spent, as far as it is not in the cache. If the client goes away, the run stops.
async fn spending(State(service): State<Arc<Service>>, Path(city): Path<String>) -> (StatusCode, String) {
    let failed = |error: chunkwise::Error| (StatusCode::BAD_REQUEST, error.to_string());
    let pipeline = match service.pipeline(&city) {
        Ok(pipeline) => pipeline,
        Err(error) => return failed(error),
    };
    match service.engine.run(&pipeline, &RunOptions::default()).await {
        Ok(report) => match (&report.tasks[0].status, &report.tasks[0]) {
            (Status::Executed | Status::Reused, task) => {
                (StatusCode::OK, format!("{}: {} customers, {} chunks executed", task.name, task.rows, task.executed))
            }
            (_, task) => (StatusCode::INTERNAL_SERVER_ERROR, task.reason.clone()),
        },
        Err(error) => failed(error),
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let orders = "city,customer,amount\nbonn,1,10\nkiel,2,20\nbonn,3,5\nkiel,4,1\nkiel,2,4\n";
    std::fs::write(folder.path().join("orders.csv"), orders)?;
    let engine = Engine::builder().cache_folder(folder.path().join("cache")).jobs(2).build()?;
    let service = Arc::new(Service { engine, folder: folder.path().to_path_buf() });
    let router = Router::new().route("/spending/{city}", get(spending)).with_state(service);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });

    let ask = |city: &'static str| async move {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /spending/{city} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answers = try_join_all(["bonn", "kiel", "bonn", "kiel", "kiel", "no/such/path", "a%20b"].map(ask)).await?;
    for answer in &answers {
        println!("{}", answer.lines().last().unwrap_or_default());
    }
    let executed = |city: &str, chunks: u32| {
        let done = format!("spending_{city}: 2 customers, {chunks} chunks executed");
        answers.iter().filter(|answer| answer.ends_with(&done)).count()
    };
    // Whoever came first made a city's chunks, the others have waited for them.
    let all = |city: &str| (0..=4).map(|chunks| executed(city, chunks) as u32 * chunks).sum::<u32>();
    assert_eq!((all("bonn"), all("kiel")), (4, 4));
    assert!(answers[5].starts_with("HTTP/1.1 404") && answers[6].starts_with("HTTP/1.1 400"));
    Ok(())
}
