//! Time zones as PostgreSQL and DuckDB mean them, whole and cut: the right values are DuckDB's with `SET TimeZone = 'UTC'`.

use crate::support::{Case, make_parquet, wrong_cases};

/// Wall times, and instants shown in UTC and in Berlin. The last two are the hour that Berlin's clocks showed twice, and a wall
/// time that they left out.
const TIMES: &str = "SELECT k, n, arrow_cast(n, 'Timestamp(Microsecond, Some(\"UTC\"))') AS u,
        arrow_cast(arrow_cast(n, 'Timestamp(Microsecond, Some(\"UTC\"))'), 'Timestamp(Microsecond, Some(\"Europe/Berlin\"))') AS b
    FROM (SELECT k, arrow_cast(t, 'Timestamp(Microsecond, None)') AS n FROM (VALUES (1, '2024-06-01T22:30:00'),
        (2, '2024-01-01T23:30:00'), (3, NULL), (4, '2024-10-27T02:30:00'), (5, '2024-03-31T02:30:00')) AS t(k, t)) q";

async fn check(cases: &[Case<'_>]) {
    let folder = tempfile::tempdir().unwrap();
    make_parquet(folder.path(), "t", TIMES).await;
    let sources = "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 't.parquet';
        CREATE VIEW berlin AS SELECT k, u AT TIME ZONE 'Europe/Berlin' AS wall FROM t;";
    let wrong = wrong_cases(folder.path(), sources, cases, &[""]).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instant_at_a_zone_is_its_wall_time() {
    let berlin =
        ["1 2024-06-02T00:30:00", "2 2024-01-02T00:30:00", "3 -", "4 2024-10-27T03:30:00", "5 2024-03-31T04:30:00"];
    check(&[
        ("k", "SELECT k, u AT TIME ZONE 'Europe/Berlin' AS v FROM t", Ok(&berlin)),
        ("k", "SELECT k, CAST(u AT TIME ZONE 'Europe/Berlin' AS TIMESTAMP) AS v FROM t", Ok(&berlin)),
        ("k", "SELECT k, (u AT TIME ZONE 'Europe/Berlin')::timestamp AS v FROM t", Ok(&berlin)),
        ("k", "SELECT k, to_local_time(u AT TIME ZONE 'Europe/Berlin') AS v FROM t", Ok(&berlin)),
        ("k", "SELECT k, wall AS v FROM berlin", Ok(&berlin)),
        ("k", "SELECT k, wall::TIMESTAMP AS v FROM berlin", Ok(&berlin)),
        ("k", "SELECT k, b::TIMESTAMP AS v FROM t", Ok(&berlin)),
        ("k", "SELECT k, TRY_CAST(b AS TIMESTAMP) AS v FROM t", Ok(&berlin)),
        ("k", "SELECT k, to_timestamp(b) AS v FROM t", Ok(&berlin)),
        ("k", "SELECT k, b AT TIME ZONE 'UTC' AS v FROM t WHERE k < 3", Ok(&["1 2024-06-01T22:30:00", "2 2024-01-01T23:30:00"])),
        ("k", "SELECT k, u::TIMESTAMP AS v FROM t WHERE k < 3", Ok(&["1 2024-06-01T22:30:00", "2 2024-01-01T23:30:00"])),
        ("k", "SELECT k, u AT TIME ZONE 'Europe/Berlin' AT TIME ZONE 'America/New_York' AS v FROM t WHERE k = 1", Ok(&["1 2024-06-02T00:30:00-04:00"])),
        ("k", "SELECT k, date_trunc('day', u AT TIME ZONE 'Europe/Berlin') AS v FROM t WHERE k < 3", Ok(&["1 2024-06-02T00:00:00", "2 2024-01-02T00:00:00"])),
        ("k", "SELECT k, extract(hour FROM u AT TIME ZONE 'Europe/Berlin') AS v FROM t WHERE k < 3", Ok(&["1 0", "2 0"])),
        ("k", "SELECT k, CAST(u AT TIME ZONE 'Europe/Berlin' AS DATE) AS v, to_char(u AT TIME ZONE 'Europe/Berlin', '%H:%M') AS w FROM t WHERE k < 3", Ok(&["1 2024-06-02 00:30", "2 2024-01-02 00:30"])),
        ("k", "SELECT CAST(u AT TIME ZONE 'Europe/Berlin' AS DATE) AS v, count(*) AS n FROM t WHERE k < 3 GROUP BY 1", Ok(&["2024-01-02 1", "2024-06-02 1"])),
        ("k", "SELECT k FROM t WHERE u AT TIME ZONE 'Europe/Berlin' >= TIMESTAMP '2024-06-02'", Ok(&["1", "4"])),
        // Of a type with a zone all of these are by its wall time.
        ("k", "SELECT k, b::DATE AS v, b::TIME AS w, date_part('hour', b) AS h, to_char(b, '%d %H') AS c FROM t WHERE k = 1", Ok(&["1 2024-06-02 00:30:00 0 02 00"])),
        ("k", "SELECT k, date_trunc('day', b)::TIMESTAMP AS v FROM t WHERE k = 1", Ok(&["1 2024-06-02T00:00:00"])),
        ("k", "SELECT k, extract(epoch FROM b) - extract(epoch FROM u) AS v FROM t WHERE k < 3", Ok(&["1 0.0", "2 0.0"])),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_time_at_a_zone_is_an_instant() {
    check(&[
        (
            "k",
            "SELECT k, n AT TIME ZONE 'Europe/Berlin' AT TIME ZONE 'UTC' AS v FROM t",
            Ok(&["1 2024-06-01T20:30:00", "2 2024-01-01T22:30:00", "3 -", "4 2024-10-27T01:30:00", "5 2024-03-31T01:30:00"]),
        ),
        ("k", "SELECT k, n AT TIME ZONE 'UTC' AT TIME ZONE 'Europe/Berlin' AS v FROM t WHERE k = 1", Ok(&["1 2024-06-02T00:30:00"])),
        ("k", "SELECT k, CAST(n AS TIMESTAMPTZ) AS v FROM t WHERE k = 1", Ok(&["1 2024-06-01T22:30:00Z"])),
        ("k", "SELECT k, CAST(b AS TIMESTAMP WITH TIME ZONE) AS v FROM t WHERE k = 1", Ok(&["1 2024-06-01T22:30:00Z"])),
        ("k", "SELECT k, TIMESTAMPTZ '2024-06-01 12:00:00+02' AT TIME ZONE 'Europe/Berlin' AS v FROM t WHERE k = 1", Ok(&["1 2024-06-01T12:00:00"])),
        ("k", "SELECT k FROM t WHERE u = TIMESTAMPTZ '2024-06-02 00:30:00+02'", Ok(&["1"])),
        ("k", "SELECT k, now() AT TIME ZONE 'Asia/Tokyo' - now() AT TIME ZONE 'UTC' = INTERVAL '9 hours' AS v FROM t WHERE k = 1", Ok(&["1 true"])),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_that_is_none_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::support::engine(&folder.path().join("cache"));
    for (sql, part) in [
        ("SELECT TIMESTAMP '2024-01-01' AT TIME ZONE 'Nowhere' AS v", "there is no time zone 'Nowhere'"),
        ("SELECT TIMESTAMP '2024-01-01' AT TIME ZONE concat('U', 'TC') AS v", "takes the name of a zone"),
        ("SELECT 1 AT TIME ZONE 'UTC' AS v", "AT TIME ZONE is of a timestamp, not of Int64"),
    ] {
        let message = match chunkwise::sql::parse(&format!("CREATE TABLE a AS {sql}"), "test.sql", folder.path()) {
            Ok(pipeline) => engine.run(&pipeline, &Default::default()).await.unwrap().tasks[0].reason.clone(),
            Err(error) => error.to_string(),
        };
        assert!(message.contains(part), "{message}");
    }
}
