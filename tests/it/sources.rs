//! What is read of files, and what is refused: folders, patterns, names, types, text that is not what it seems.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int8Array,
    Int32Array, Int64Array, LargeStringArray, RecordBatch, StringArray, StringViewArray, StructArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema, TimeUnit};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use chunkwise::{Engine, Event, InputMode, RunOptions};
use parquet::arrow::{ARROW_SCHEMA_META_KEY, ArrowWriter, encode_arrow_schema};
use parquet::data_type::{Int96, Int96Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::support::{engine, rows_as_text, write_arrow, write_parquet};

/// Rows of the table `o` as sorted CSV lines, or why there are none.
async fn table_o(folder: &Path, sql: &str) -> Result<Vec<String>, String> {
    let cache = tempfile::tempdir().unwrap();
    let engine = engine(cache.path());
    let pipeline = chunkwise::sql::parse(sql, "t.sql", folder).map_err(|e| e.to_string())?;
    let report = engine.run(&pipeline, &RunOptions::default()).await.map_err(|e| e.to_string())?;
    if let Some(failed) =
        report.tasks.iter().find(|task| !task.reason.is_empty() && task.rows == 0 && task.executed == 0)
    {
        return Err(failed.reason.clone());
    }
    Ok(rows_as_text(&engine, "SELECT * FROM o").await)
}

/// The rows that the source gives whole, and cut in each of the ways; all must be the same.
async fn rows(folder: &Path, source: &str, columns: &str) -> Result<Vec<String>, String> {
    let whole = table_o(folder, &format!("{source}; CREATE TABLE o AS SELECT {columns} FROM t")).await;
    for read_by in ["split", "rescan"] {
        let options = format!("WITH (chunk_by = 'auto', chunks = 3, read_by = '{read_by}')");
        let cut = table_o(folder, &format!("{source}; CREATE TABLE o {options} AS SELECT {columns} FROM t")).await;
        match (&whole, &cut) {
            (Err(_), Err(_)) => {}
            (whole, cut) => assert_eq!(whole, cut, "{source} {read_by}"),
        }
    }
    whole
}

/// Asserts rows, or that each of the words is in the error.
async fn check(folder: &Path, source: &str, columns: &str, expected: Result<&[&str], &[&str]>) {
    let found = rows(folder, source, columns).await;
    match (found, expected) {
        (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{source}"),
        (Err(error), Err(words)) => {
            for word in words {
                assert!(error.contains(word), "{source}\n{word}\n{error}");
            }
        }
        (found, expected) => panic!("{source}\nfound {found:?}\nexpected {expected:?}"),
    }
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn parquet(folder: &Path, name: &str, columns: Vec<(&str, ArrayRef)>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_parquet(&path, &RecordBatch::try_from_iter(columns).unwrap());
}

fn csv(location: &str, options: &str) -> String {
    format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{location}' {options}")
}

fn of_parquet(location: &str) -> String {
    format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{location}'")
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_columns_go_by_the_names_in_the_header() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(
        at,
        &[
            ("d/a.csv", "net,tax\n100,19\n200,38\n"),
            ("d/b.csv", "tax,net\n57,300\n"),
            ("more/a.csv", "net,tax\n1,2\n"),
            ("more/b.csv", "net,new,tax\n3,4,5\n"),
            ("less/a.csv", "net,tax\n1,2\n"),
            ("less/b.csv", "net\n3\n"),
            ("upper/a.csv", "NET,Tax\n1,2\n"),
            ("case/a.csv", "id\n1\n"),
            ("case/b.csv", "ID\n2\n"),
            ("one/twice.csv", "id,name,name\n1,a,b\n"),
            ("two/empty.csv", "id,,x\n1,2,3\n"),
            ("bom/a.csv", "\u{feff}net,tax\n1,2\n"),
            ("none/a.csv", "1,2\n3,4\n"),
            ("none/b.csv", "5,6\n"),
        ],
    );
    let declared = |columns: &str, location: &str| {
        format!("CREATE EXTERNAL TABLE t ({columns}) STORED AS CSV LOCATION '{location}'")
    };
    let swapped: &[&str] = &["100,19", "200,38", "300,57"];
    check(at, &csv("d/", ""), "net, tax", Ok(swapped)).await;
    check(at, &declared("tax INT, net INT", "d/"), "net, tax", Ok(swapped)).await;
    check(at, &csv("bom/", ""), "*", Ok(&["1,2"])).await;
    // Another column is an error, and NULL only for who asks for it.
    check(at, &declared("net INT, tax INT", "more/"), "*", Err(&["more/b.csv, line 1", "'new'", "declare it"])).await;
    check(at, &csv("more/", ""), "*", Err(&["more/a.csv, line 1", "no column 'new'", "format.truncated_rows"])).await;
    check(at, &csv("more/", "OPTIONS (format.truncated_rows true)"), "net, new, tax", Ok(&["1,,2", "3,4,5"])).await;
    check(at, &csv("less/", ""), "*", Err(&["less/b.csv, line 1", "no column 'tax'"])).await;
    check(at, &declared("net INT, tax INT", "less/"), "*", Err(&["less/b.csv, line 1", "no column 'tax'"])).await;
    check(at, &declared("net INT, tax INT NULL", "less/"), "*", Ok(&["1,2", "3,"])).await;
    // Names without quotes are of any case; two of two files are not one.
    check(at, &declared("net INT, tax INT", "upper/"), "*", Ok(&["1,2"])).await;
    check(at, &csv("case/", ""), "*", Err(&["case/b.csv", "'ID'", "case/a.csv"])).await;
    check(at, &csv("one/", ""), "id", Err(&["twice.csv, line 1", "names column 'name' twice"])).await;
    check(at, &csv("two/", ""), "id", Err(&["empty.csv, line 1", "no name for column 2"])).await;
    let no_header = "OPTIONS (format.has_header false)";
    check(at, &csv("none/", no_header), "column_2, column_1", Ok(&["2,1", "4,3", "6,5"])).await;
    check(at, &format!("{} {no_header}", declared("a INT, b INT", "none/")), "b, a", Ok(&["2,1", "4,3", "6,5"])).await;
    check(
        at,
        &format!("{} {no_header}", declared("a INT", "none/")),
        "*",
        Err(&["none/a.csv, line 1", "has 2 fields"]),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_text_is_its_value_or_an_error_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let late =
        |last: &str| format!("id,v\n{}5000,{last}\n", (0..2000).map(|i| format!("{i},{i}\n")).collect::<String>());
    write(
        at,
        &[
            ("late.csv", &late("1.5")),
            ("code.csv", &late("007")),
            ("signs.csv", "id,v\n1,-5\n2,NA\n3,-\n4,\n"),
            ("blank.csv", "\n"),
            ("codes.csv", "zip\n01001\n99999\n"),
            ("lines.csv", "id,note\n1,\"a\nb\"\n2,\"c\"\"d\"\n3,x\n"),
            ("short.csv", "id,note\n1,\"a\nb\"\n2\n"),
            ("long.csv", "id,note\n1,a,b\n"),
            ("null.csv", "id,n,s\n1,NA,NA\n2,5,\"\"\n3,,\n4,\\N,x\n"),
            ("times.csv", "ts\n2024-01-01 10:00:00\n2024-01-02 11:30:00.25\n"),
            ("zones.csv", "ts\n2024-01-01T10:00:00+02:00\n2024-01-01T10:00:00Z\n"),
            ("money.csv", "v\n1.25\n1.255\n"),
            ("big.csv", "v\n9007199254740993\n1\n"),
            ("tab.csv", "id\tname\n1\ta b\n2\t\"x\ty\"\n"),
            ("pipe.csv", "1|it''s|x\n2|'a|b'|y\n"),
            ("escape.csv", "id,s\n1,\"a\\\"b\"\n2,\"c,d\"\n"),
            ("path.csv", "s\n\"C:\\\\a\"\n\"C:\\new\"\n"),
            ("comment.csv", "id\n# none\n1\n"),
            ("empty.csv", ""),
            ("open.csv", "id,s\n1,x\n2,\"y\n3,z\n4,w\n"),
            ("open_last.csv", "id,s\n1,\"x"),
            ("one.csv", "s\n\"a\""),
            ("returns.csv", "k\r1\r#x\r2\r3\r"),
            ("clock.csv", "t\n1030\n"),
            ("day.csv", "d\n2024-01-01 092656\n"),
            ("leap.csv", "ts\n2024-01-01 10:00:60\n"),
            ("header.csv", "id,v\n"),
            ("not_null.csv", "id,v\n1,\n"),
        ],
    );
    fs::write(at.join("latin.csv"), b"id,s\n1,ok\n2,\xe9\n").unwrap();
    let declared =
        |columns: &str, file: &str| format!("CREATE EXTERNAL TABLE t ({columns}) STORED AS CSV LOCATION '{file}'");
    let option = |file: &str, options: &str| csv(file, &format!("OPTIONS ({options})"));
    check(at, &csv("late.csv", ""), "sum(v)", Err(&["late.csv, line 2002", "column 'v'", "'1.5'", "v VARCHAR"])).await;
    check(at, &csv("code.csv", ""), "sum(v)", Err(&["code.csv, line 2002", "'007'"])).await;
    check(at, &option("late.csv", "format.schema_infer_max_rec 5000"), "sum(v)", Ok(&["1999001.5"])).await;
    check(at, &declared("id INT, v DOUBLE", "late.csv"), "sum(v)", Ok(&["1999001.5"])).await;
    check(at, &declared("id INT, v INT", "code.csv"), "max(v)", Ok(&["1999"])).await;
    check(at, &csv("codes.csv", ""), "*", Ok(&["01001", "99999"])).await;
    check(at, &csv("lines.csv", ""), "id, length(note)", Ok(&["1,3", "2,3", "3,1"])).await;
    check(at, &csv("short.csv", ""), "*", Err(&["short.csv, line 4", "has 1 fields", "format.truncated_rows"])).await;
    check(at, &option("short.csv", "format.truncated_rows true"), "id", Ok(&["1", "2"])).await;
    check(at, &csv("long.csv", ""), "*", Err(&["long.csv, line 2", "has 3 fields, and the first line has 2"])).await;
    check(at, &csv("null.csv", ""), "id, s IS NULL", Ok(&["1,false", "2,true", "3,true", "4,false"])).await;
    let nulls = "OPTIONS ('format.null_regex' '^(NA|\\\\N|)$')";
    let source = format!("{} {nulls}", declared("id INT, n INT, s VARCHAR", "null.csv"));
    check(at, &source, "*", Ok(&["1,,", "2,5,", "3,,", "4,,x"])).await;
    // The expression is about the whole field.
    let some = "format.null_regex 'NA|-|'";
    check(at, &option("signs.csv", some), "id, v", Ok(&["1,-5", "2,", "3,", "4,"])).await;
    check(at, &csv("times.csv", ""), "ts", Ok(&["2024-01-01T10:00:00", "2024-01-02T11:30:00.250"])).await;
    check(at, &csv("zones.csv", ""), "ts", Ok(&["2024-01-01T08:00:00Z", "2024-01-01T10:00:00Z"])).await;
    check(
        at,
        &declared("v DECIMAL(10, 2)", "money.csv"),
        "*",
        Err(&["money.csv, line 3", "'1.255' is not a valid DECIMAL(10, 2)"]),
    )
    .await;
    check(
        at,
        &declared("v DOUBLE", "big.csv"),
        "*",
        Err(&["big.csv, line 2", "'9007199254740993' is not a valid DOUBLE"]),
    )
    .await;
    check(at, &option("tab.csv", "'format.delimiter' '\\t'"), "*", Ok(&["1,a b", "2,x\ty"])).await;
    let pipe = "format.has_header false, 'format.delimiter' '|', 'format.quote' ''''";
    check(at, &option("pipe.csv", pipe), "*", Ok(&["1,it''s,x", "2,a|b,y"])).await;
    check(at, &option("escape.csv", "'format.escape' '\\'"), "s", Ok(&["\"a\"\"b\"", "\"c,d\""])).await;
    let lone = "format.escape before a character that is neither a quote nor itself";
    check(at, &option("path.csv", "'format.escape' '\\'"), "*", Err(&["path.csv, line 3", lone])).await;
    // As an editor counts lines, whatever ends them.
    for (name, text, line) in [
        ("crlf.csv", "id,v\r\n1,1\r\n2,x\r\n", 3),
        ("blanks.csv", "id,v\n1,1\n\n\n2,x\n", 5),
        ("quotes.csv", "id,v\r\n\"a\r\nb\",1\r\n\r\n2,x\r\n", 5),
        ("return.csv", "id,v\r1,1\r2,x\r", 3),
    ] {
        write(at, &[(name, text)]);
        check(at, &declared("id VARCHAR, v INT", name), "*", Err(&[&format!("{name}, line {line}: "), "'x'"])).await;
    }
    let comments =
        "CREATE EXTERNAL TABLE t (id INT, v INT) STORED AS CSV LOCATION 'comments.csv' OPTIONS ('format.comment' '#')";
    write(at, &[("comments.csv", "id,v\n1,1\n# none\n\n#\n2,x\n")]);
    check(at, comments, "*", Err(&["comments.csv, line 6: ", "'x'"])).await;
    check(at, &csv("path.csv", ""), "*", Ok(&["C:\\\\a", "C:\\new"])).await;
    check(at, &option("comment.csv", "'format.comment' '#'"), "*", Ok(&["1"])).await;
    check(at, &csv("empty.csv", ""), "*", Err(&["empty.csv is empty"])).await;
    check(at, &csv("header.csv", ""), "count(*)", Ok(&["0"])).await;
    let keyed =
        format!("{}; CREATE TABLE o CLUSTERED BY (id) INTO 2 BUCKETS AS SELECT * FROM t", csv("header.csv", ""));
    let error = table_o(at, &keyed).await.unwrap_err();
    assert!(error.contains("has type Null: this type can't be a key; declare the columns with their types"), "{error}");
    check(at, &csv("blank.csv", ""), "*", Err(&["blank.csv: has no column; declare the columns"])).await;
    check(at, &csv("latin.csv", ""), "*", Err(&["latin.csv, line 3", "field 2 is not UTF-8"])).await;
    check(
        at,
        &declared("id INT, v INT NOT NULL", "not_null.csv"),
        "*",
        Err(&["line 2", "'v' is NULL, and is declared NOT NULL"]),
    )
    .await;
    // Comments end with a line feed only.
    let comments = csv("returns.csv", "OPTIONS (format.comment '#')");
    check(at, &comments, "*", Err(&["returns.csv", "carriage returns without line feeds"])).await;
    // The comment takes the row 2, and the end of the file is not read.
    write(at, &[("many.csv", &format!("k\n#x\r2\n{}", "3\n".repeat(100_000)))]);
    let first =
        format!("{}; CREATE TABLE o AS SELECT * FROM t LIMIT 1", csv("many.csv", "OPTIONS (format.comment '#')"));
    assert!(table_o(at, &first).await.unwrap_err().contains("carriage returns without line feeds"));
    let both = csv("returns.csv", "OPTIONS (format.comment '#', format.terminator ';')");
    check(at, &both, "*", Err(&["comments end with a line feed"])).await;
    // What Arrow's parsers read as something else.
    check(at, &declared("t TIME", "clock.csv"), "*", Err(&["line 2", "'1030' is not a valid TIME"])).await;
    check(at, &declared("d DATE", "day.csv"), "*", Err(&["line 2", "'2024-01-01 092656' is not a valid DATE"])).await;
    check(at, &declared("ts TIMESTAMP", "leap.csv"), "*", Err(&["line 2", "is not a valid TIMESTAMP"])).await;
    // What comes behind an open quote is no text.
    check(at, &csv("open.csv", ""), "*", Err(&["open.csv, line 3", "a quote that opens in this row is never closed"]))
        .await;
    check(at, &csv("open_last.csv", ""), "*", Err(&["open_last.csv, line 2", "never closed"])).await;
    check(at, &csv("one.csv", ""), "*", Ok(&["a"])).await;
    check(at, &declared("id INT, v BYTEA", "not_null.csv"), "*", Err(&["column 'v'", "can't be read from CSV"])).await;
}

/// A line break in quotes far beyond what one reader takes at a time is no row of its own, whoever reads it.
#[tokio::test(flavor = "multi_thread")]
async fn line_breaks_in_quotes_give_no_rows() {
    let folder = tempfile::tempdir().unwrap();
    let inside = "7,b\n".repeat(600_000);
    let rows: String = (0..1000).map(|i| format!("{i},a\n")).collect();
    let text = format!("k,s\n{rows}5,\"x\n{inside}7,b\"\n{rows}");
    fs::write(folder.path().join("t.csv"), text).unwrap();
    check(folder.path(), &csv("t.csv", ""), "count(*), count(DISTINCT k), max(length(s))", Ok(&["2001,1000,2400005"]))
        .await;
}

/// What a run writes into a folder of sources is no source of the next run.
#[tokio::test(flavor = "multi_thread")]
async fn a_cache_among_the_files_of_a_source_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    parquet(folder.path(), "data/a.parquet", vec![("k", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef)]);
    for location in [".", "**/*.parquet", "data/"] {
        let sql = format!("{}; CREATE TABLE o AS SELECT * FROM t", of_parquet(location));
        for _ in 0..3 {
            let engine = engine(&folder.path().join("data/cache"));
            let pipeline = chunkwise::sql::parse(&sql, "t.sql", folder.path()).unwrap();
            engine.run(&pipeline, &RunOptions::default()).await.unwrap();
            assert_eq!(rows_as_text(&engine, "SELECT count(*) FROM o").await, ["3"], "{location}");
        }
    }
    let sql = format!("{}; CREATE TABLE o AS SELECT * FROM t", of_parquet("data/cache"));
    let error = table_o(folder.path(), &sql).await.unwrap_err();
    assert!(error.contains("is the folder of a cache"), "{error}");
}

/// What an Arrow file claims to need is not reserved before it is known to be true.
#[tokio::test(flavor = "multi_thread")]
async fn arrow_files_that_claim_too_much_are_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
    let batch = RecordBatch::try_from_iter(vec![("k", column)]).unwrap();
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD)).unwrap();
    let mut bytes = Vec::new();
    let mut writer = FileWriter::try_new_with_options(&mut bytes, &batch.schema(), options).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let claim = bytes.windows(8).position(|bytes| bytes == 8000i64.to_le_bytes()).unwrap();
    // Of a buffer, of a message, and of the footer.
    let message = bytes.windows(4).rposition(|bytes| bytes == [0xff; 4]).unwrap();
    let message = bytes[..message].windows(4).rposition(|bytes| bytes == [0xff; 4]).unwrap();
    for (name, at, value) in [
        ("whole", bytes.len() - 1, b'1'),
        ("buffer", claim + 7, 0x40),
        ("message", message + 4 + 3, 0x7f),
        ("footer", bytes.len() - 7, 0x7f),
    ] {
        let mut damaged = bytes.clone();
        damaged[at] = value;
        fs::write(folder.path().join(format!("{name}.arrow")), damaged).unwrap();
        let source = format!("CREATE EXTERNAL TABLE t STORED AS ARROW LOCATION '{name}.arrow'");
        match name {
            "whole" => check(folder.path(), &source, "count(*), sum(k)", Ok(&["1000,499500"])).await,
            _ => {
                let words = [&format!("{name}.arrow: is damaged or cut off"), "claims", "write the file again"];
                check(folder.path(), &source, "*", Err(&words)).await;
            }
        }
    }
    let mut cut = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut cut, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let end = cut.len();
    cut[end - 8..end - 4].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
    fs::write(folder.path().join("p.parquet"), cut).unwrap();
    check(folder.path(), &of_parquet("p.parquet"), "*", Err(&["p.parquet: is damaged or cut off: its footer"])).await;
}

/// Of several files that could have it, the one is named that has it.
#[tokio::test(flavor = "multi_thread")]
async fn the_file_with_a_value_that_does_not_fit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("a", 1), ("b", 2), ("c", 300), ("d", 4)] {
        let values = Int64Array::from(vec![Some(value), (name == "b").then_some(5)]);
        parquet(folder.path(), &format!("d/{name}.parquet"), vec![("k", Arc::new(values) as ArrayRef)]);
    }
    let declared = |column: &str| format!("CREATE EXTERNAL TABLE t ({column}) STORED AS PARQUET LOCATION 'd/'");
    check(folder.path(), &declared("k TINYINT"), "*", Err(&["d/c.parquet: column 'k'", "'300'"])).await;
    check(folder.path(), &declared("k INT NOT NULL"), "*", Err(&["d/a.parquet: column 'k' has NULLs"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_values_are_kept_or_an_error_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let late = |last: &str| format!("{}{last}\n", (0..1500).map(|i| format!("{{\"a\": {i}}}\n")).collect::<String>());
    write(
        at,
        &[
            ("deepest.json", &format!("{{\"a\": {}1{}}}\n", "[".repeat(30), "]".repeat(30))),
            ("deep.json", &format!("{{\"a\": {}1{}}}\n", "[".repeat(200), "]".repeat(200))),
            ("late_key.json", &late(r#"{"a": 1, "b": 2}"#)),
            ("late_fraction.json", &late(r#"{"a": 1.5}"#)),
            ("late_text.json", &late(r#"{"a": "12"}"#)),
            ("array.json", "[{\"a\": 1, \"b\": \"x\"},\n {\"a\": 2, \"b\": \"y\"}]\n"),
            ("lines.json", "{\"a\": 1}\n\n{\"a\":\n 2}\n"),
            ("broken.json", "{\"a\": 1}\n{\"a\": 2\n{\"a\": 3}\n"),
            ("cut.json", "{\"a\": 1}\n{\"a\": "),
            ("cut_array.json", "[{\"a\": 1},"),
            ("no_comma.json", "[{\"a\": 1}\n {\"a\": 2}]"),
            ("two_commas.json", "[, {\"a\": 2}]"),
            ("twice.json", "{\"a\": 1, \"a\": 2}\n"),
            ("big.json", "{\"a\": 9223372036854775808}\n{\"a\": 9223372036854775809}\n"),
            ("wide.json", "{\"a\": -1}\n{\"a\": 9223372036854775809}\n"),
            ("mixed.json", "{\"a\": 1}\n{\"a\": \"x\"}\n"),
            ("scalar.json", "1\n"),
            (
                "nested.json",
                "{\"s\": {\"x\": 1}, \"l\": [1, null]}\n{\"s\": null, \"l\": []}\n{\"l\": [3], \"s\": {\"x\": 2}}\n",
            ),
            (
                "odd.json",
                "\u{feff}{\"a\": 1, \"s\": \"\\u00e9 \\ud83d\\ude00\"}\r\n\r\n{\"a\": 2, \"s\": \"line\\nbreak\"}\r\n",
            ),
            ("d/x.ndjson", "{\"a\": 1}\n"),
            ("d/y.jsonl", "{\"b\": 2}\n"),
            ("null.json", "{\"a\": null}\n{\"b\": 1}\n"),
            ("case/0.json", "{\"s\": [{\"userId\": 1}]}\n"),
            ("case/1.json", "{\"s\": []}\n{\"s\": [{\"userid\": 2, \"USERID\": 3}]}\n"),
            ("late_case.json", "{\"s\": {\"x\": 1}}\n{\"s\": {}}\n{\"s\": {\"X\": 2}}\n"),
        ],
    );
    let source = |file: &str| format!("CREATE EXTERNAL TABLE t STORED AS JSON LOCATION '{file}'");
    let declared =
        |columns: &str, file: &str| format!("CREATE EXTERNAL TABLE t ({columns}) STORED AS JSON LOCATION '{file}'");
    check(at, &source("deep.json"), "*", Err(&["deep.json", "in more than 30 others", "a VARCHAR"])).await;
    check(
        at,
        &source("late_key.json"),
        "*",
        Err(&["late_key.json, line 1501", "key 'b'", "format.schema_infer_max_rec"]),
    )
    .await;
    let more = "OPTIONS (format.schema_infer_max_rec 2000)";
    check(at, &format!("{} {more}", source("late_key.json")), "sum(b)", Ok(&["2"])).await;
    check(at, &declared("a INT, b INT", "late_key.json"), "sum(b)", Ok(&["2"])).await;
    check(at, &source("late_fraction.json"), "*", Err(&["line 1501", "column 'a'", "'1.5'"])).await;
    check(at, &source("late_text.json"), "*", Err(&["line 1501", "column 'a'"])).await;
    check(at, &declared("a INT", "late_text.json"), "max(a), count(*)", Ok(&["1499,1501"])).await;
    check(at, &source("array.json"), "*", Ok(&["1,x", "2,y"])).await;
    check(at, &format!("{} OPTIONS (format.newline_delimited false)", source("array.json")), "*", Ok(&["1,x", "2,y"]))
        .await;
    let one_a_line = "OPTIONS (format.newline_delimited true)";
    check(at, &format!("{} {one_a_line}", source("array.json")), "*", Err(&["array.json, line 1", "is an array"]))
        .await;
    check(at, &source("lines.json"), "*", Ok(&["1", "2"])).await;
    check(at, &source("broken.json"), "*", Err(&["broken.json, line 3", "is not JSON", "begins in line 2"])).await;
    check(at, &source("cut.json"), "*", Err(&["cut.json, line 2", "has no end"])).await;
    check(at, &source("cut_array.json"), "*", Err(&["cut_array.json", "cut off"])).await;
    check(at, &source("no_comma.json"), "*", Err(&["no_comma.json, line 2", "no comma before this object"])).await;
    check(at, &source("two_commas.json"), "*", Err(&["two_commas.json, line 1", "is not JSON"])).await;
    check(at, &source("twice.json"), "*", Err(&["twice.json, line 1", "key 'a' stands twice"])).await;
    check(at, &source("big.json"), "*", Ok(&["9223372036854775808", "9223372036854775809"])).await;
    check(at, &source("wide.json"), "*", Ok(&["-1", "9223372036854775809"])).await;
    check(
        at,
        &source("mixed.json"),
        "*",
        Err(&["key 'a' is a number in one object and a text in another", "a VARCHAR"]),
    )
    .await;
    check(at, &declared("a VARCHAR", "mixed.json"), "*", Ok(&["1", "x"])).await;
    check(at, &source("scalar.json"), "*", Err(&["scalar.json, line 1", "a value that is not an object"])).await;
    check(at, &source("nested.json"), "s['x'] AS x, l[1] AS l", Ok(&[",", "1,1", "2,3"])).await;
    check(at, &source("odd.json"), "a, s", Ok(&["1,é 😀", "2,\"line", "break\""])).await;
    check(at, &source("d/"), "a, b", Ok(&[",2", "1,"])).await;
    check(at, &source("null.json"), "count(a), sum(b)", Ok(&["0,1"])).await;
    check(at, &source("deepest.json"), "count(a)", Ok(&["1"])).await;
    let many = format!("a INT{}", "[]".repeat(31));
    check(at, &declared(&many, "deep.json"), "*", Err(&["column 'a' has more than 30 lists"])).await;
    // Keys of objects inside go by their case, as those of columns do.
    let words = ["case/1.json: field 'userid' of column 's[]' is 'userId' in", "case/0.json"];
    check(at, &source("case/"), "*", Err(&words)).await;
    let words = ["case/0.json, line 1", "column 's[]': there is key 'userId' and not 'userid'", "as \"userId\""];
    check(at, &declared("s STRUCT<userId INT>[]", "case/"), "*", Err(&words)).await;
    check(at, &declared("s STRUCT<userId INT>[]", "case/1.json"), "count(*), sum(s[1]['userid'])", Ok(&["2,2"])).await;
    let words = ["late_case.json, line 3", "column 's': there is key 'X' and not 'x'"];
    check(at, &declared("s STRUCT<x INT>", "late_case.json"), "s['x']", Err(&words)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_and_patterns_mean_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let file = |name: &str, id: i64| parquet(at, name, vec![("id", Arc::new(Int64Array::from(vec![id])))]);
    for (id, name) in
        ["d/a.parquet", "d/x/b.parquet", "d/x/y/c.pq", "d/.hidden/e.parquet", "d/_tmp/f.parquet", "d/._g.parquet"]
            .into_iter()
            .enumerate()
    {
        file(name, id as i64);
    }
    file("br[1]/x.parquet", 10);
    file("tab\tx/new\nline.parquet", 11);
    file("h/_k=1/a.parquet", 12);
    file("noending", 13);
    write(
        at,
        &[
            ("d/README.md", "hi"),
            ("d/empty.parquet", ""),
            ("other/x.txt", "a"),
            ("other/y.txt", "a"),
            ("z/e.csv.gz", ""),
        ],
    );
    std::os::unix::fs::symlink("..", at.join("d/x/up")).unwrap();
    std::os::unix::fs::symlink("../d/x", at.join("link")).unwrap();
    fs::create_dir(at.join("dead")).unwrap();
    std::os::unix::fs::symlink("nowhere", at.join("dead/x.parquet")).unwrap();
    std::os::unix::fs::symlink("d", at.join("real")).unwrap();
    fs::create_dir(at.join("hollow")).unwrap();
    let all: &[&str] = &["0", "1", "2"];
    check(at, &of_parquet("d/"), "id", Ok(all)).await;
    check(at, &of_parquet("d"), "id", Ok(all)).await;
    check(at, &of_parquet("real/"), "id", Ok(all)).await;
    check(at, &of_parquet("d/**/*.parquet"), "id", Ok(&["0", "1"])).await;
    check(at, &of_parquet("d/**"), "id", Ok(all)).await;
    check(at, &of_parquet("d/*/*.parquet"), "id", Ok(&["1"])).await;
    check(at, &of_parquet("d/*"), "id", Ok(all)).await;
    check(at, &of_parquet("d/_*/*"), "id", Ok(&["4"])).await;
    check(at, &of_parquet("d/x/[a-c].parquet"), "id", Ok(&["1"])).await;
    check(at, &of_parquet("d/?.parquet"), "id", Ok(&["0"])).await;
    check(at, &of_parquet("br[1]/x.parquet"), "id", Ok(&["10"])).await;
    check(at, &of_parquet("tab\tx"), "id", Ok(&["11"])).await;
    check(at, &of_parquet("h"), "id", Ok(&["12"])).await;
    check(at, &of_parquet("noending"), "id", Ok(&["13"])).await;
    check(at, &of_parquet(&format!("file://{}/noending", at.display())), "id", Ok(&["13"])).await;
    let two = "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION ('d/a.parquet', 'd/x/')";
    check(at, two, "id", Ok(all)).await;
    let twice =
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION ('d/a.parquet', 'd/../real/a.parquet', 'd/*.parquet')";
    check(at, twice, "id", Ok(&["0"])).await;
    check(at, &of_parquet("d/[!b].parquet"), "id", Ok(&["0"])).await;
    check(at, &of_parquet("d/[^b].parquet"), "id", Err(&["`[^b].parquet` is not a pattern; write [!…]"])).await;
    check(at, &of_parquet("dead/"), "id", Err(&["dead/x.parquet is a link to nowhere, which does not exist"])).await;
    check(at, &of_parquet("none/x.parquet"), "id", Err(&["no file at", "has no none"])).await;
    check(at, &of_parquet("d/*.csv"), "id", Err(&["no file matches", "d/*.csv"])).await;
    check(at, &of_parquet("other/"), "id", Err(&["ends with .parquet, .pq", "2 .txt files", "other/**/*.txt'"])).await;
    check(at, &csv("z/", ""), "id", Err(&["no file with rows", "1 file without a byte"])).await;
    check(at, &of_parquet("hollow/"), "id", Err(&["no file is in"])).await;
    let pipe = at.join("pipe.parquet");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    check(at, &of_parquet("pipe.parquet"), "id", Err(&["pipe.parquet is a pipe, a socket or a device"])).await;
    check(at, &of_parquet("/dev/zero"), "id", Err(&["/dev/zero is a pipe, a socket or a device"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_told() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        &[
            ("d/a.csv", "id\n1\n"),
            ("d/b.txt", "x"),
            ("d/.c.csv", "id\n2\n"),
            ("d/d.csv", ""),
            ("d/x/.h/e.csv", "id\n3\n"),
            ("d/x/_f.csv", "id\n4\n"),
        ],
    );
    for (location, all) in [
        (
            "d/",
            &[
                "hidden names: ",
                "d/.c.csv",
                "another ending than the format's files: ",
                "d/b.txt",
                "are empty: ",
                "d/d.csv",
                "d/x/.h",
            ][..],
        ),
        ("d/*.csv", &["hidden names: ", "d/.c.csv", "d/d.csv"]),
        ("d/**/*.csv", &["hidden names: ", "d/.c.csv", "d/x/.h", "d/x/_f.csv"]),
    ] {
        let told = told(folder.path(), location).await;
        for words in all {
            assert!(told.contains(words), "{location} {words}\n{told}");
        }
    }
}

/// What is said to be left out of a location.
async fn told(folder: &Path, location: &str) -> String {
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let engine = Engine::builder().cache_folder(folder.join("cache")).on_event(move |event| {
        if let Event::LeftOut { source, note } = event {
            listener.lock().unwrap().push(format!("{source}: {note}"));
        }
    });
    let sql = format!("{}; CREATE TABLE o AS SELECT * FROM t", csv(location, ""));
    crate::support::run(&engine.build().unwrap(), &sql, folder).await;
    told.lock().unwrap().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_are_keys_and_values_are_columns() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let file = |name: &str, id: i64| parquet(at, name, vec![("id", Arc::new(Int64Array::from(vec![id])))]);
    file("d/year=2023/month=01/a.parquet", 1);
    file("d/year=2024/month=12/a.parquet", 2);
    file("c/code=x%20y/a.parquet", 1);
    file("c/code=__HIVE_DEFAULT_PARTITION__/a.parquet", 2);
    file("c/code=007/a.parquet", 3);
    file("mixed/k=1/a.parquet", 1);
    file("mixed/b.parquet", 2);
    parquet(
        at,
        "own/k=1/a.parquet",
        vec![("k", Arc::new(Int64Array::from(vec![5]))), ("id", Arc::new(Int64Array::from(vec![1])))],
    );
    write(at, &[("csv/k=1/a.csv", "id\n10\n"), ("csv/k=2/a.csv", "id\n20\n")]);
    check(at, &of_parquet("d/"), "*", Ok(&["1,2023,01", "2,2024,12"])).await;
    check(at, &of_parquet("d/**/*.parquet"), "id, year, month", Ok(&["1,2023,01", "2,2024,12"])).await;
    check(at, &of_parquet("d/year=*/month=01/*.parquet"), "*", Ok(&["1,2023"])).await;
    check(at, &of_parquet("d/year=2024/*/*.parquet"), "*", Ok(&["2"])).await;
    check(at, &of_parquet("c/"), "*", Ok(&["1,x y", "2,", "3,007"])).await;
    check(at, &of_parquet("mixed/"), "*", Ok(&["1", "2"])).await;
    check(at, &csv("csv/", ""), "*", Ok(&["10,1", "20,2"])).await;
    file("twice/y=1/y=2/a.parquet", 1);
    let words = ["twice/y=1/y=2/a.parquet", "is in two folders y=…, one below the other"];
    check(at, &of_parquet("twice/"), "*", Err(&words)).await;
    let by_y = "CREATE EXTERNAL TABLE t STORED AS PARQUET PARTITIONED BY (y) LOCATION 'twice/'";
    check(at, by_y, "*", Err(&words)).await;
    let without = "CREATE EXTERNAL TABLE t (id BIGINT) STORED AS PARQUET LOCATION 'twice/'";
    check(at, without, "*", Ok(&["1"])).await;
    let typed = "CREATE EXTERNAL TABLE t (id BIGINT, year INT, month INT) STORED AS PARQUET PARTITIONED BY (year, month) LOCATION";
    check(at, &format!("{typed} 'd/'"), "id, year + month", Ok(&["1,2024", "2,2036"])).await;
    check(at, &format!("{typed} 'd/year=2023/*/*.parquet'"), "*", Ok(&["1,2023,1"])).await;
    let typed = "CREATE EXTERNAL TABLE t (id BIGINT, code INT) STORED AS PARQUET PARTITIONED BY (code) LOCATION 'c/'";
    check(at, typed, "*", Err(&["code=x%20y/a.parquet", "column 'code'", "'x y' is not a valid INT"])).await;
    let by_k = "CREATE EXTERNAL TABLE t STORED AS PARQUET PARTITIONED BY (k) LOCATION";
    check(at, &format!("{by_k} 'mixed/'"), "*", Err(&["mixed/b.parquet", "is in no folder k=…"])).await;
    check(at, &of_parquet("own/"), "*", Err(&["own/k=1/a.parquet", "in the file and in the name of its folder"])).await;
    check(at, &format!("{by_k} 'own/'"), "*", Ok(&["1,1"])).await;
    let alone = "CREATE EXTERNAL TABLE t STORED AS PARQUET PARTITIONED BY (Year INT, \"month\" INT) LOCATION 'd/'";
    check(at, alone, "id, year + month", Ok(&["1,2024", "2,2036"])).await;
    write(at, &[("own_csv/k=1/a.csv", "id,k\n10,7\n"), ("own_json/k=1/a.json", "{\"id\": 10, \"k\": 7}\n")]);
    for (format, folder) in [("CSV", "own_csv/"), ("JSON", "own_json/")] {
        let source = |columns: &str, by: &str| {
            format!("CREATE EXTERNAL TABLE t {columns} STORED AS {format} {by} LOCATION '{folder}'")
        };
        check(at, &source("", ""), "*", Err(&["in the file and in the name of its folder", "PARTITIONED BY (k)"]))
            .await;
        check(at, &source("", "PARTITIONED BY (K)"), "*", Ok(&["10,1"])).await;
        check(at, &source("(id INT, K INT)", "PARTITIONED BY (k)"), "id, k + 1", Ok(&["10,2"])).await;
    }
    write(
        at,
        &[
            ("json/k=1/a.json", "{\"id\": 10}\n"),
            ("upper.json", "{\"ID\": 1}\n"),
            ("both.json", "{\"ID\": 1, \"id\": 2}\n"),
        ],
    );
    let json = |columns: &str, location: &str| {
        format!("CREATE EXTERNAL TABLE t ({columns}) STORED AS JSON LOCATION '{location}'")
    };
    check(at, &json("id INT, k INT", "json/"), "*", Err(&["'k' is in the names of folders", "PARTITIONED BY (k)"]))
        .await;
    check(at, &json("id INT", "upper.json"), "*", Err(&["upper.json, line 1", "key 'ID' and not 'id'"])).await;
    check(at, &json("id INT", "both.json"), "*", Ok(&["2"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_drift_become_one_that_holds_all_values() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let array = |array: ArrayRef| array;
    let decimal = |value, digits, scale| {
        Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(digits, scale).unwrap()) as ArrayRef
    };
    let dictionary: DictionaryArray<Int32Type> = vec!["d"].into_iter().collect();
    let a_struct = |columns: Vec<(&str, ArrayRef)>| {
        let fields: Fields = columns.iter().map(|(n, c)| Field::new(*n, c.data_type().clone(), true)).collect();
        Arc::new(StructArray::new(fields, columns.into_iter().map(|(_, c)| c).collect(), None)) as ArrayRef
    };
    let int = |value: i32| Arc::new(Int32Array::from(vec![value])) as ArrayRef;
    let long = |value: i64| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    type Case<'a> = (&'a str, Vec<ArrayRef>, Result<Vec<&'a str>, Vec<&'a str>>);
    let cases: Vec<Case> = vec![
        ("ints", vec![int(1), long(1 << 40)], Ok(vec!["1", "1099511627776"])),
        (
            "signs",
            vec![array(Arc::new(Int8Array::from(vec![-1]))), array(Arc::new(UInt64Array::from(vec![u64::MAX])))],
            Ok(vec!["-1", "18446744073709551615"]),
        ),
        (
            "floats",
            vec![long(1 << 53), array(Arc::new(Float64Array::from(vec![0.5])))],
            Ok(vec!["0.5", "9007199254740992.0"]),
        ),
        (
            "inexact",
            vec![long((1 << 53) + 1), array(Arc::new(Float64Array::from(vec![0.5])))],
            Err(vec!["inexact/0.parquet", "'9007199254740993' is not a valid DOUBLE"]),
        ),
        ("decimals", vec![decimal(123, 5, 2), decimal(4, 4, 0), long(5)], Ok(vec!["1.23", "4.00", "5.00"])),
        (
            "texts",
            vec![
                text("a"),
                array(Arc::new(LargeStringArray::from(vec!["b"]))),
                array(Arc::new(StringViewArray::from(vec!["c"]))),
                array(Arc::new(dictionary)),
            ],
            Ok(vec!["a", "b", "c", "d"]),
        ),
        (
            "times",
            vec![
                array(Arc::new(TimestampMillisecondArray::from(vec![1]))),
                array(Arc::new(TimestampMicrosecondArray::from(vec![1]))),
                array(Arc::new(TimestampNanosecondArray::from(vec![1]))),
            ],
            Ok(vec!["1970-01-01T00:00:00.000000001", "1970-01-01T00:00:00.000001", "1970-01-01T00:00:00.001"]),
        ),
        (
            "too_far",
            vec![
                array(Arc::new(TimestampMillisecondArray::from(vec![i64::MAX / 1000]))),
                array(Arc::new(TimestampNanosecondArray::from(vec![1]))),
            ],
            Err(vec!["too_far/0.parquet", "is not a valid TIMESTAMP"]),
        ),
        (
            "dates",
            vec![
                array(Arc::new(Date32Array::from(vec![1]))),
                array(Arc::new(TimestampMillisecondArray::from(vec![1]))),
            ],
            Ok(vec!["1970-01-01T00:00:00.001", "1970-01-02T00:00:00"]),
        ),
        (
            "zones",
            vec![
                array(Arc::new(TimestampMillisecondArray::from(vec![1]).with_timezone("Europe/Berlin"))),
                array(Arc::new(TimestampMillisecondArray::from(vec![2]).with_timezone("Asia/Tokyo"))),
            ],
            Ok(vec!["1970-01-01T00:00:00.001Z", "1970-01-01T00:00:00.002Z"]),
        ),
        (
            "half_zoned",
            vec![
                array(Arc::new(TimestampMillisecondArray::from(vec![1]).with_timezone("UTC"))),
                array(Arc::new(TimestampMillisecondArray::from(vec![2]))),
            ],
            Err(vec!["half_zoned/1.parquet", "WITH TIME ZONE in"]),
        ),
        (
            "conflict",
            vec![int(1), text("n/a")],
            Err(vec!["conflict/1.parquet", "'v' is VARCHAR here, and INT in", "0.parquet"]),
        ),
        ("bytes", vec![array(Arc::new(BinaryArray::from_vec(vec![b"a"]))), text("a")], Err(vec!["no type holds both"])),
        ("booleans", vec![array(Arc::new(BooleanArray::from(vec![true]))), int(1)], Err(vec!["no type holds both"])),
    ];
    for (name, columns, expected) in cases {
        for (format, write) in [("PARQUET", write_parquet as fn(&Path, &RecordBatch)), ("ARROW", write_arrow)] {
            let folder = at.join(format).join(name);
            fs::create_dir_all(&folder).unwrap();
            for (number, column) in columns.iter().enumerate() {
                let batch = RecordBatch::try_from_iter([("v", Arc::clone(column))]).unwrap();
                write(&folder.join(format!("{number}.{}", format.to_lowercase())), &batch);
            }
            let source = format!("CREATE EXTERNAL TABLE t STORED AS {format} LOCATION '{}/'", folder.display());
            let words: Vec<String> = expected
                .as_ref()
                .err()
                .into_iter()
                .flatten()
                .map(|w| w.replace(".parquet", &format!(".{}", format.to_lowercase())))
                .collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            check(at, &source, "v", expected.as_ref().map(Vec::as_slice).map_err(|_| words.as_slice())).await;
        }
    }
    // Structs by the names of their fields, columns that one file lacks, and a declared type that decides.
    parquet(at, "s/0.parquet", vec![("s", a_struct(vec![("a", int(1)), ("b", text("x"))])), ("only", int(7))]);
    parquet(at, "s/1.parquet", vec![("s", a_struct(vec![("b", text("y")), ("a", long(2))]))]);
    check(at, &of_parquet("s/"), "s['a'], s['b'], only", Ok(&["1,x,7", "2,y,"])).await;
    parquet(at, "n/0.parquet", vec![("v", long(300))]);
    let declared = |data_type: &str| format!("CREATE EXTERNAL TABLE t (v {data_type}) STORED AS PARQUET LOCATION 'n/'");
    check(at, &declared("INT"), "v", Ok(&["300"])).await;
    check(at, &declared("TINYINT"), "v", Err(&["n/0.parquet", "'300' is not a valid TINYINT"])).await;
    check(at, &declared("VARCHAR"), "v", Ok(&["300"])).await;
    check(at, &declared("DATE"), "v", Err(&["n/0.parquet", "is declared as DATE, but it is BIGINT there"])).await;
    parquet(at, "case/0.parquet", vec![("id", int(1))]);
    parquet(at, "case/1.parquet", vec![("ID", int(2))]);
    check(at, &of_parquet("case/"), "*", Err(&["case/1.parquet", "column 'ID' is 'id' in", "case/0.parquet"])).await;
    parquet(at, "null/0.parquet", vec![("v", Arc::new(Int32Array::from(vec![Some(1), None])))]);
    let not_null = "CREATE EXTERNAL TABLE t (v INT NOT NULL) STORED AS PARQUET LOCATION 'null/'";
    check(at, not_null, "v", Err(&["null/0.parquet", "'v' has NULLs, and is declared NOT NULL"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_structs_go_by_name_as_columns_do() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let a_struct = |fields: &[(&str, i32)]| {
        let names: Fields = fields.iter().map(|(name, _)| Field::new(*name, DataType::Int32, true)).collect();
        let values = fields.iter().map(|(_, value)| Arc::new(Int32Array::from(vec![*value])) as ArrayRef);
        Arc::new(StructArray::new(names, values.collect(), None)) as ArrayRef
    };
    for (format, write) in [("PARQUET", write_parquet as fn(&Path, &RecordBatch)), ("ARROW", write_arrow)] {
        let ending = format.to_lowercase();
        for (name, fields) in [
            ("case/0", &[("userId", 1), ("x", 2)][..]),
            ("case/1", &[("userid", 3)]),
            ("some/0", &[("a", 1), ("b", 2)]),
            ("some/1", &[("b", 3), ("c", 4)]),
        ] {
            let path = at.join(format!("{format}/{name}.{ending}"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            write(&path, &RecordBatch::try_from_iter([("v", a_struct(fields))]).unwrap());
        }
        let source = |columns: &str, place: &str| {
            format!("CREATE EXTERNAL TABLE t {columns} STORED AS {format} LOCATION '{format}/{place}'")
        };
        let first = format!("case/0.{ending}");
        let not_userid =
            format!("{first}: has field 'userId' of column 'v' and not 'userid'; declare it as \"userId\"");
        check(at, &source("(v STRUCT<userId INT>)", "case/"), "*", Err(&[not_userid.as_str()])).await;
        check(at, &source("(v STRUCT<\"userId\" INT>)", &first), "v['userId']", Ok(&["1"])).await;
        let differ = format!("case/1.{ending}: field 'userid' of column 'v' is 'userId' in");
        check(at, &source("", "case/"), "*", Err(&[differ.as_str(), first.as_str()])).await;
        check(at, &source("", "some/"), "v['a'], v['b'], v['c']", Ok(&[",3,4", "1,2,"])).await;
        check(at, &source("(v STRUCT<a INT, b INT>)", "some/"), "v['a'], v['b']", Ok(&[",3", "1,2"])).await;
        let nowhere = ["field 'd' of column 'v' is declared, but no file has it", "the fields are: a, b, c"];
        check(at, &source("(v STRUCT<a INT, d INT>)", "some/"), "*", Err(&nowhere)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_can_not_be_stored_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let item = |data_type: DataType| Arc::new(Field::new_list_field(data_type, true));
    let lists = |levels: usize| (0..levels).fold(DataType::Int32, |inner, _| DataType::List(item(inner)));
    let schema_of = |data_type: DataType| {
        Arc::new(Schema::new(vec![Field::new("id", DataType::Int32, true), Field::new("v", data_type, true)]))
    };
    let deep = "column 'v' has more than 30 lists, structs and maps inside each other";
    let no_items = "column 'v' has lists of the fixed length 0, which can't be stored";
    let no_bytes = "column 'v' has bytes of length 0, which can't be stored";
    for (name, format, data_type, words) in [
        ("lists.arrow", "ARROW", lists(31), deep),
        ("lists.parquet", "PARQUET", lists(31), deep),
        ("items.arrow", "ARROW", DataType::FixedSizeList(item(DataType::Int32), 0), no_items),
        ("items.parquet", "PARQUET", DataType::FixedSizeList(item(DataType::Int32), 0), no_items),
        ("bytes.arrow", "ARROW", DataType::List(item(DataType::FixedSizeBinary(0))), no_bytes),
    ] {
        let file = fs::File::create(at.join(name)).unwrap();
        match format {
            "ARROW" => FileWriter::try_new(file, &schema_of(data_type)).unwrap().finish().unwrap(),
            _ => drop(ArrowWriter::try_new(file, schema_of(data_type), None).unwrap().close().unwrap()),
        }
        let source = |columns: &str| format!("CREATE EXTERNAL TABLE t {columns} STORED AS {format} LOCATION '{name}'");
        check(at, &source(""), "id", Err(&["t.sql:1:1", name, words])).await;
        check(at, &source("(id INT)"), "id", Ok(&[])).await;
    }
    // Readers don't follow these at all.
    let file = fs::File::create(at.join("deeper.arrow")).unwrap();
    FileWriter::try_new(file, &schema_of(lists(90))).unwrap().finish().unwrap();
    let file = fs::File::create(at.join("deeper.parquet")).unwrap();
    ArrowWriter::try_new(file, schema_of(lists(90)), None).unwrap().close().unwrap();
    for (name, format) in [("deeper.arrow", "ARROW"), ("deeper.parquet", "PARQUET")] {
        let source = format!("CREATE EXTERNAL TABLE t STORED AS {format} LOCATION '{name}'");
        check(at, &source, "*", Err(&[name, "a column has more than 30 lists"])).await;
    }
}

/// Rows of CSV, compressed with gzip two times.
const GZIP_TWICE: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x93\xef\xe6\x60\x00\x01\x26\xe6\xd3\x3e\x0f\x8d\
    \x9e\x30\x31\xf0\xbf\x8c\x3e\xcb\x0a\x14\x00\x00\xbe\x51\xae\x4f\x19\x00\x00\x00";

#[tokio::test(flavor = "multi_thread")]
async fn files_of_other_kinds_are_told_by_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    parquet(at, "p.csv", vec![("id", Arc::new(Int32Array::from(vec![1])))]);
    let whole = fs::read(at.join("p.csv")).unwrap();
    fs::write(at.join("cut.parquet"), &whole[..whole.len() / 2]).unwrap();
    write(at, &[("text.parquet", "id\n1\n"), ("not.csv.gz", "id\n1\n")]);
    fs::write(at.join("gzip.csv"), b"\x1f\x8b\x08\x00").unwrap();
    fs::write(at.join("utf16.csv"), b"\xff\xfei\0d\0\n\0").unwrap();
    check(at, &csv("p.csv", ""), "*", Err(&["p.csv", "is a Parquet file; write STORED AS PARQUET"])).await;
    check(at, &of_parquet("text.parquet"), "*", Err(&["text.parquet", "is not a Parquet file"])).await;
    check(at, &of_parquet("cut.parquet"), "*", Err(&["cut.parquet", "is damaged or cut off"])).await;
    fs::write(at.join("twice.csv.gz"), GZIP_TWICE).unwrap();
    fs::write(at.join("zip.csv"), b"PK\x03\x04\x14\0\0\0").unwrap();
    let mut tar = vec![0; 1024];
    tar[..4].copy_from_slice(b"a.js");
    tar[257..262].copy_from_slice(b"ustar");
    fs::write(at.join("tar.json"), tar).unwrap();
    fs::write(at.join("v1.feather"), b"FEA1\0\0\0\0").unwrap();
    check(at, &csv("twice.csv.gz", ""), "*", Err(&["twice.csv.gz: is compressed twice, with gzip and then with gzip"]))
        .await;
    let as_it_is = csv("twice.csv.gz", "OPTIONS (format.compression 'uncompressed')");
    check(at, &as_it_is, "*", Err(&["twice.csv.gz: it is compressed with gzip; leave format.compression out"])).await;
    check(at, &csv("zip.csv", ""), "*", Err(&["zip.csv: it is a ZIP archive"])).await;
    let json = "CREATE EXTERNAL TABLE t STORED AS JSON LOCATION 'tar.json'";
    check(at, json, "*", Err(&["tar.json: it is a tar archive"])).await;
    let feather = "CREATE EXTERNAL TABLE t STORED AS ARROW LOCATION 'v1.feather'";
    check(at, feather, "*", Err(&["v1.feather: is Feather V1; write it as Arrow"])).await;
    check(at, &csv("gzip.csv", ""), "*", Err(&["gzip.csv", "compressed with gzip", ".gz"])).await;
    check(at, &csv("not.csv.gz", ""), "*", Err(&["not.csv.gz", "is not compressed with gzip"])).await;
    check(at, &csv("utf16.csv", ""), "*", Err(&["utf16.csv", "is UTF-16"])).await;
    let arrow = "CREATE EXTERNAL TABLE t STORED AS ARROW LOCATION 'text.parquet'";
    check(at, arrow, "*", Err(&["text.parquet", "is not an Arrow file or stream"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_without_a_type_is_null_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("t.csv", "id,note\n1,\n2,\n")]);
    check(folder.path(), &csv("t.csv", ""), "id, note", Ok(&["1,", "2,"])).await;
    let late = format!("id,note\n{}3,late\n", "1,\n".repeat(1500));
    write(folder.path(), &[("late.csv", &late)]);
    check(folder.path(), &csv("late.csv", ""), "*", Err(&["late.csv, line 1502", "'late'", "had no value of it"]))
        .await;
}

/// What Polars writes as `ARROW:schema` of a column `v` of Int128.
const INT128: &str = concat!(
    "/////3YAAAAEAAAA8v///xQAAAAEAAEAAAAKAAsACAAKAAQA+P///wwAAAAIAAgAAAAEAAEAAAAEAAAA7P//",
    "/zgAAAAgAAAAGAAAAAECAAAQABIABAAQABEACAAAAAwAAAAAAPT///+AAAAAAQAAAAgACQAEAAgAAQAAAHYA",
);

/// A Parquet file with these columns and this pair of metadata, in the making.
fn bare_parquet(path: &Path, columns: &str, pair: (&str, &str)) -> SerializedFileWriter<fs::File> {
    let schema = parse_message_type(&format!("message m {{ {columns} }}")).unwrap();
    let pair = KeyValue::new(pair.0.to_string(), pair.1.to_string());
    let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![pair])).build();
    let file = fs::File::create(path).unwrap();
    SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_arrow_does_not_know_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let int128 = "OPTIONAL FIXED_LEN_BYTE_ARRAY (16) v;";
    bare_parquet(&at.join("int128.parquet"), int128, (ARROW_SCHEMA_META_KEY, INT128)).close().unwrap();
    let words = ["t.sql:1:1", "int128.parquet: column 'v' has a type", "write it as a decimal"];
    check(at, &of_parquet("int128.parquet"), "*", Err(&words)).await;
    let variant = "OPTIONAL INT64 id; OPTIONAL GROUP v (VARIANT) { REQUIRED BINARY metadata; REQUIRED BINARY value; }";
    bare_parquet(&at.join("variant.parquet"), variant, ("", "")).close().unwrap();
    let words = ["t.sql:1:1", "variant.parquet: column 'v' is a VARIANT", "write it as JSON"];
    check(at, &of_parquet("variant.parquet"), "*", Err(&words)).await;
    let without = "CREATE EXTERNAL TABLE t (id BIGINT) STORED AS PARQUET LOCATION 'variant.parquet'";
    check(at, without, "*", Ok(&[])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_columns_of_one_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let int = |value| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
    parquet(at, "twice.parquet", vec![("k", int(1)), ("v", int(2)), ("v", int(3))]);
    check(at, &of_parquet("twice.parquet"), "*", Err(&["twice.parquet: has two columns called 'v'"])).await;
    let without = "CREATE EXTERNAL TABLE t (k BIGINT) STORED AS PARQUET LOCATION 'twice.parquet'";
    check(at, without, "*", Ok(&["1"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timestamps_of_96_bits_are_as_fine_as_their_writer_says() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // Julian days of the years 1 and 9999, with the microseconds that Spark writes.
    let far = [(1_721_426, 0), (5_373_484, 86_399_999_999_000)];
    let write = |name: &str, pair: (&str, &str), values: &[(u32, u64)]| {
        let value =
            |(day, nanoseconds): &(u32, u64)| Int96::from(vec![*nanoseconds as u32, (nanoseconds >> 32) as u32, *day]);
        let values: Vec<Int96> = values.iter().map(value).collect();
        fs::create_dir_all(at.join(name).parent().unwrap()).unwrap();
        let mut file = bare_parquet(&at.join(name), "REQUIRED INT96 v;", pair);
        let mut group = file.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int96Type>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        file.close().unwrap();
    };
    let spark = ("org.apache.spark.version", "4.0.0");
    let of_arrow = encode_arrow_schema(&Schema::new(vec![Field::new(
        "v",
        DataType::Timestamp(TimeUnit::Nanosecond, None),
        false,
    )]));
    write("spark/1.parquet", spark, &far);
    write("arrow.parquet", (ARROW_SCHEMA_META_KEY, &of_arrow), &[(2_440_588, 1)]);
    write("hive.parquet", ("writer.model.name", "hive"), &far);
    write("both/1.parquet", spark, &far);
    write("both/2.parquet", (ARROW_SCHEMA_META_KEY, &of_arrow), &[(2_440_588, 1)]);
    let years = ["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999"];
    check(at, &of_parquet("spark/"), "v", Ok(&years)).await;
    check(at, &of_parquet("arrow.parquet"), "v", Ok(&["1970-01-01T00:00:00.000000001"])).await;
    for (place, file) in [("hive.parquet", "hive.parquet"), ("both/", "both/2.parquet")] {
        let words = ["t.sql:1:1", file, "column 'v' is a timestamp of 96 bits", "format.coerce_int96 'us'"];
        check(at, &of_parquet(place), "v", Err(&words)).await;
    }
    let in_microseconds = format!("{} OPTIONS (format.coerce_int96 'us')", of_parquet("hive.parquet"));
    check(at, &in_microseconds, "v", Ok(&years)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_are_declared_not_null_are_checked_also_where_a_query_asks_for_nulls() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(at, &[("t.csv", "k,v\n1,10\n2,\n"), ("t.json", "{\"k\":1,\"v\":10}\n{\"k\":2,\"v\":null}\n")]);
    let columns = || -> Vec<(&str, ArrayRef)> {
        let v = Int32Array::from(vec![Some(10), None]);
        vec![("k", Arc::new(Int32Array::from(vec![1, 2]))), ("v", Arc::new(v))]
    };
    parquet(at, "t.parquet", columns());
    write_arrow(&at.join("t.arrow"), &RecordBatch::try_from_iter(columns()).unwrap());
    for format in ["CSV", "JSON", "PARQUET", "ARROW"] {
        let file = format!("t.{}", format.to_lowercase());
        let source = format!("CREATE EXTERNAL TABLE t (k INT, v INT NOT NULL) STORED AS {format} LOCATION '{file}'");
        for asked in ["v IS NULL", "v IS NOT NULL", "CASE WHEN v IS NULL THEN 1 END", "v = v"] {
            check(at, &source, &format!("k, {asked} AS a"), Err(&["NOT NULL"])).await;
        }
        for rest in ["WHERE v IS NULL", "WHERE v IS NOT NULL", "WHERE k NOT IN (SELECT v FROM t WHERE v IS NULL)"] {
            let sql = format!("{source}; CREATE TABLE o AS SELECT k FROM t {rest}");
            assert!(table_o(at, &sql).await.unwrap_err().contains("NOT NULL"), "{format} {rest}");
        }
    }
    // A proof may rely on it, also of what another task read: the join reads both columns.
    write(at, &[("u.csv", "k,w\n1,10\n2,30\n")]);
    let not_in = "CREATE EXTERNAL TABLE u (k INT NOT NULL, w INT NOT NULL) STORED AS CSV LOCATION 'u.csv';
        CREATE TABLE c AS SELECT k, w FROM u;
        CREATE TABLE o CLUSTERED BY (k) INTO 3 BUCKETS AS SELECT u.k FROM u WHERE u.k NOT IN (SELECT c.k FROM c WHERE c.w > 20)";
    assert_eq!(table_o(at, not_in).await.unwrap(), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_read_as_text_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let bytes = |values: Vec<&[u8]>| Arc::new(BinaryArray::from_vec(values)) as ArrayRef;
    let ids = || Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef;
    parquet(at, "t/0.parquet", vec![("k", ids()), ("v", bytes(vec![b"ok", b"\xc3\xa9"]))]);
    let source = "CREATE EXTERNAL TABLE t (k INT, v VARCHAR) STORED AS PARQUET LOCATION 't/'";
    let as_string = "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 't/' OPTIONS (format.binary_as_string 'true')";
    for source in [source, as_string] {
        check(at, source, "k, upper(v) AS v", Ok(&["1,OK", "2,É"])).await;
    }
    parquet(at, "t/1.parquet", vec![("k", ids()), ("v", bytes(vec![b"a\xff", b"ok"]))]);
    for source in [source, as_string] {
        for column in ["upper(v) AS v", "v", "substr(v, 1, 1) AS v", "v = 'ok' AS v"] {
            let words = ["t/1.parquet: column 'v'", "'v' is bytes, and 0x61ff is not UTF-8", "declare it as BYTEA"];
            check(at, source, column, Err(&words)).await;
        }
        check(at, source, "k", Ok(&["1", "1", "2", "2"])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_decoded_is_named_with_its_column() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let columns = |from: i32| -> Vec<(&str, ArrayRef)> {
        let text = StringArray::from_iter_values((from..from + 50).map(|k| format!("some text {k}")));
        vec![("k", Arc::new(Int32Array::from_iter_values(from..from + 50))), ("v", Arc::new(text))]
    };
    for number in 0..3 {
        parquet(at, &format!("t/{number}.parquet"), columns(50 * number));
    }
    let mut bytes = fs::read(at.join("t/1.parquet")).unwrap();
    let place = bytes.windows(12).position(|part| part == b"some text 70").unwrap();
    bytes[place] = 0xff;
    fs::write(at.join("t/1.parquet"), bytes).unwrap();
    check(at, &of_parquet("t/"), "k, v", Err(&["t/1.parquet: column 'v' can't be decoded", "write the file again"]))
        .await;
    check(at, &of_parquet("t/"), "min(k) AS k", Ok(&["0"])).await;
}

/// Two columns k and v of three BIGINTs each, whose pages have checksums, as pyarrow writes them.
const WITH_CHECKSUMS: &str = concat!(
    "504152311500153c153c15facad7a90d1c15061500150615061c00000002000000060101000000000000000200000000000000030000",
    "00000000001500153c153c15b298c2940d1c15061500150615061c00000002000000060141420f000000000042420f00000000004342",
    "0f00000000001504193c35001806736368656d611504001504250218016b0015042502180176001606191c192c26001c150419250600",
    "1918016b15001606166e166e2608491c150015001502003c29061926000600000026001c1504192506001918017615001606166e166e",
    "2676491c150015001502003c29061926000600000016dc011606260816dc01002820706172717565742d6370702d6172726f77207665",
    "7273696f6e2032362e302e31192c1c00001c000000b100000050415231",
);

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_not_what_its_checksum_says_is_no_value() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.parquet");
    let digits: Vec<u8> = WITH_CHECKSUMS.bytes().map(|digit| (digit as char).to_digit(16).unwrap() as u8).collect();
    let mut bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    fs::write(&path, &bytes).unwrap();
    check(folder.path(), &of_parquet("p.parquet"), "*", Ok(&["1,1000001", "2,1000002", "3,1000003"])).await;
    let value = 1_000_002_i64.to_le_bytes();
    let at = bytes.windows(value.len()).position(|window| window == value).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    check(folder.path(), &of_parquet("p.parquet"), "*", Err(&["p.parquet", "CRC checksum mismatch"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_later_is_read_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let late = |first: &str, last: &str| format!("a\n{}{last}\n", format!("{first}\n").repeat(3));
    write(
        at,
        &[
            ("wide.csv", "a\n0.1\n"),
            ("offset.csv", &late("2024-01-01 10:00:00", "2024-01-01 10:00:00+02:00")),
            ("local.csv", &late("2024-01-01 10:00:00Z", "2024-01-01 10:00:00")),
        ],
    );
    let declared = "CREATE EXTERNAL TABLE t (a FLOAT(53)) STORED AS CSV LOCATION 'wide.csv'";
    check(at, declared, "a = 0.1 AS x, a", Ok(&["true,0.1"])).await;
    for file in ["offset.csv", "local.csv"] {
        let inferred = csv(file, "OPTIONS (format.schema_infer_max_rec 3)");
        check(at, &inferred, "a", Err(&[file, "line 5", "is not of its type", "declare the columns"])).await;
    }
    // A stream, and what stands behind its end.
    let stream = |rows: &[i64]| {
        let batch = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(rows.to_vec())) as ArrayRef)]).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        writer.into_inner().unwrap()
    };
    let arrow = |name: &str| format!("CREATE EXTERNAL TABLE t STORED AS ARROW LOCATION '{name}'");
    fs::write(at.join("one.arrows"), stream(&[1, 2])).unwrap();
    fs::write(at.join("two.arrows"), [stream(&[1]), stream(&[2])].concat()).unwrap();
    check(at, &arrow("one.arrows"), "a", Ok(&["1", "2"])).await;
    check(at, &arrow("two.arrows"), "a", Err(&["two.arrows", "goes on after the end of its stream"])).await;
    // A frame that is to be skipped comes first.
    let skipped = [b"\x50\x2a\x4d\x18\x04\0\0\0abcd".to_vec(), zstd::encode_all(&b"a\n1\n"[..], 0).unwrap()].concat();
    fs::write(at.join("skip.csv.zst"), skipped).unwrap();
    check(at, &csv("skip.csv.zst", ""), "a", Ok(&["1"])).await;
}

/// The rows of a Parquet file of row groups of three rows, whose column `k` is declared with a type, and how the file is
/// read, for each of the cuts that may go by statistics.
async fn grouped(folder: &Path, k: ArrayRef, declared: &str) -> Vec<(Vec<String>, InputMode)> {
    let batch = RecordBatch::try_from_iter([("k", k)]).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(3)).build();
    let file = fs::File::create(folder.join("t.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let mut found = Vec::new();
    // With a number of chunks 'auto' is a cut by hash.
    for options in ["chunk_by = 'auto', chunks = 3", "chunk_by = 'auto'", "chunk_by = 'range', chunks = 3"] {
        let sql = format!(
            "CREATE EXTERNAL TABLE t (k {declared}) STORED AS PARQUET LOCATION 't.parquet';
             CREATE TABLE o WITH ({options}) AS SELECT k, count(*) AS n FROM t GROUP BY k"
        );
        let cache = tempfile::tempdir().unwrap();
        let engine = engine(cache.path());
        let report = crate::support::run(&engine, &sql, folder).await;
        found.push((rows_as_text(&engine, "SELECT k FROM o").await, report.tasks[0].inputs[0].mode));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_are_read_as_types_of_another_order_lose_no_rows() {
    let folder = tempfile::tempdir().unwrap();
    let strings = |values: &[&str]| values.iter().map(|value| value.to_string()).collect::<Vec<_>>();
    let text = |values: &[String]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let long = |values: &[i64]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
    // In each row group a value is outside the least and the most one once they are read as another type.
    let digits = strings(&["1", "150", "2", "3", "4", "5", "200", "201", "202", "300", "301", "302"]);
    let integers = [1, 5, 20, 3, 30, 9, 400, 4000, 999, 50, 500, 77];
    let floats = integers.map(|value| value as f64 + 0.5);
    let hours = [0, 4, 8, 11];
    let times = hours.map(|h| ["00+00:00", "30-12:00", "59+00:00"].map(|rest| format!("2024-01-01 {h:02}:00:{rest}")));
    let instants = hours.map(|h| [(h, "00"), (h + 12, "30"), (h, "59")]).concat();
    let instants = instants.iter().map(|(hour, second)| format!("2024-01-01T{hour:02}:00:{second}Z")).collect();
    for (k, declared, mut rows) in [
        (text(&digits), "BIGINT", digits),
        (long(&integers), "VARCHAR", integers.map(|value| value.to_string()).to_vec()),
        (Arc::new(Float64Array::from(floats.to_vec())), "VARCHAR", floats.map(|value| value.to_string()).to_vec()),
        (text(&times.concat()), "TIMESTAMPTZ", instants),
    ] {
        rows.sort();
        for (found, mode) in grouped(folder.path(), k, declared).await {
            assert_eq!((&found, mode), (&rows, InputMode::Rescan), "{declared}");
        }
    }
    // Types of one order are cut by what the statistics say.
    let (dates, days) = (["02", "03", "04", "05"].map(|day| format!("1970-01-{day}")), vec![1, 2, 3, 4]);
    let plain = strings(&["10", "11", "12", "13"]);
    for (k, declared, rows) in [
        (Arc::new(Int32Array::from(vec![10, 11, 12, 13])) as ArrayRef, "BIGINT", plain.clone()),
        (long(&[10, 11, 12, 13]), "INT", plain.clone()),
        (long(&[10, 11, 12, 13]), "BIGINT", plain.clone()),
        (long(&[10, 11, 12, 13]), "DECIMAL(10, 2)", strings(&["10.00", "11.00", "12.00", "13.00"])),
        (text(&plain), "VARCHAR", plain),
        (Arc::new(Date32Array::from(days)), "TIMESTAMP", dates.map(|date| format!("{date}T00:00:00")).to_vec()),
    ] {
        let modes = [InputMode::Rescan, InputMode::Range, InputMode::Range];
        let expected: Vec<_> = modes.into_iter().map(|mode| (rows.clone(), mode)).collect();
        assert_eq!(grouped(folder.path(), k, declared).await, expected, "{declared}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csv_file_ends_where_its_bytes_end() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // Characters that stand behind the end of a file when it is read.
    let marks = "\u{1f}".repeat(16);
    for mark in ["\u{1f}", &marks] {
        for (name, text) in [
            ("first.csv", format!("s\n{mark}\na\nb\n")),
            ("middle.csv", format!("s\na\n{mark}\nb\n")),
            ("last.csv", format!("s\na\nb\n{mark}\n")),
            ("last_open.csv", format!("s\na\nb\n{mark}")),
            ("last_crlf.csv", format!("s\r\na\r\nb\r\n{mark}\r\n")),
            ("quoted.csv", format!("s\na\nb\n\"{mark}\"")),
        ] {
            write(at, &[(name, &text)]);
            check(at, &csv(name, ""), "s", Ok(&[mark, "a", "b"])).await;
        }
        write(at, &[("alone.csv", mark)]);
        check(at, &csv("alone.csv", "OPTIONS (format.has_header false)"), "*", Ok(&[mark])).await;
    }
    let two: &[&str] = &["1,x", "2,"];
    for (text, options) in [
        ("k,s\n1,x\n2,", ""),
        ("k,s\n1,x\n2,\n", ""),
        ("k,s\n1,x\n2,\"\"", ""),
        ("k,s\r\n1,x\r\n2,\r\n", ""),
        ("k,s\r\n1,x\r\n2,", ""),
        ("k,s\r1,x\r2,\r", ""),
        ("k,s\n1,x\n2,\n\n\n", ""),
        ("k,s\r\n\r\n1,x\r\n2,\r\n\r\n", ""),
        ("k,s\n1,x\n2,\n#end", "OPTIONS (format.comment '#')"),
        ("k,s\n1,x\n2,\n#end\n", "OPTIONS (format.comment '#')"),
        ("k,s;1,x;2,", "OPTIONS (format.terminator ';')"),
        ("k,s;1,x;2,;", "OPTIONS (format.terminator ';')"),
    ] {
        write(at, &[("end.csv", text)]);
        check(at, &csv("end.csv", options), "k, s", Ok(two)).await;
    }
    for (text, options, line) in [
        ("k,s\n1,x\n2,\"", "", 3),
        ("k,s\n1,x\n2,\"\n", "", 3),
        ("k,s\n1,x\n2,\"y\"\"", "", 3),
        ("k,s\n1,x\n\"2", "", 3),
        ("k\n1\n\"", "", 3),
        ("k\n1\n\"2\r\n3\r\n", "", 3),
        ("k\n1\n\"2\\", "OPTIONS ('format.escape' '\\')", 3),
        ("k\n1\n\"2\\\"", "OPTIONS ('format.escape' '\\')", 3),
    ] {
        write(at, &[("open.csv", text)]);
        let words = [&format!("open.csv, line {line}: "), "a quote that opens in this row is never closed"];
        check(at, &csv("open.csv", options), "k", Err(&words)).await;
    }
}

/// CSV of a column `v` whose last value stands in line 1002, behind all that its type is inferred from.
fn late(first: &str, last: &str) -> String {
    format!("v\n{}{last}\n", format!("{first}\n").repeat(1000))
}

#[tokio::test(flavor = "multi_thread")]
async fn later_values_that_an_inferred_type_would_change_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (local, instant) = ("2024-01-01 10:00:00", "2024-01-01 10:00:00+02:00");
    for (first, last) in [
        (local, "2024-01-01 10:00:00 EST"),
        (local, "2024-01-01 10:00:00 Europe/Berlin"),
        (local, "2024-01-01 10:00:00 UTC"),
        (local, "2024-01-01 10:00:00Z"),
        (local, "2024-01-01 10:00:00+02:00"),
        (local, "2024-01-01T10:00:00-0930"),
        (instant, "2024-01-01 10:00:00"),
        (instant, "2024-01-01T10:00:00.5"),
        (instant, "2024-01-01 10:00:00 EST"),
        (instant, "2024-01-01 10:00:00 UTC"),
        (instant, "2024-01-01 10:00:00+02:60"),
        ("1.5", "007"),
        ("1.5", "007.5"),
        ("1.5", "-007.5"),
        ("1.5", "+1.5"),
        ("1", "+5"),
        ("1", "-05"),
    ] {
        write(at, &[("late.csv", &late(first, last))]);
        let words = ["late.csv, line 1002: ", "column 'v'", &format!("'{last}'")];
        check(at, &csv("late.csv", ""), "count(v)", Err(&words)).await;
    }
    for (first, last, most) in [
        (local, "2024-01-02T10:00:00.5", "2024-01-02T10:00:00.500"),
        (instant, "2024-01-02T10:00:00Z", "2024-01-02T10:00:00Z"),
        (instant, "2024-01-02 10:00:00-0930", "2024-01-02T19:30:00Z"),
        ("-1.5", "0.5", "0.5"),
        ("-1.5", "-0.5", "-0.5"),
        ("-1.5", "0", "0.0"),
        ("-1", "0", "0"),
    ] {
        write(at, &[("late.csv", &late(first, last))]);
        check(at, &csv("late.csv", ""), "max(v)", Ok(&[most])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn minutes_of_an_offset_are_less_than_60() {
    let folder = tempfile::tempdir().unwrap();
    let declared = "CREATE EXTERNAL TABLE t (v TIMESTAMPTZ) STORED AS CSV LOCATION 't.csv'";
    for (offset, instant) in [
        ("+02:99", None),
        ("+0299", None),
        ("+02:60", None),
        ("-0260", None),
        ("+05:30", Some("2024-01-31T04:30:00Z")),
        ("-0930", Some("2024-01-31T19:30:00Z")),
        ("+02:59", Some("2024-01-31T07:01:00Z")),
        ("+02", Some("2024-01-31T08:00:00Z")),
        ("Z", Some("2024-01-31T10:00:00Z")),
    ] {
        for time in ["10:00:00", "10:00:00.000"] {
            let text = format!("2024-01-31 {time}{offset}");
            write(folder.path(), &[("t.csv", &format!("v\n{text}\n"))]);
            for source in [csv("t.csv", ""), declared.to_string()] {
                let words = ["t.csv, line 2: ", "column 'v'", &text];
                let expected = instant.as_ref().map(std::slice::from_ref).ok_or(&words[..]);
                check(folder.path(), &source, "v", expected).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_text_behind_a_closing_quote_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (comment, escape) = ("OPTIONS ('format.comment' '#')", "OPTIONS ('format.escape' '\\')");
    for (text, options, line) in [
        ("k,s\n1,\"a\"b\"c\"\n", "", 2),
        ("k,s\n1,x\n2,\"a\" \n3,y\n", "", 3),
        ("k,s\r\n1,x\r\n2,\"a\" \r\n", "", 3),
        ("k,s\n\"1\" ,x\n", "", 2),
        ("k,s\n1,\"a\nb\"\n2,\"c\"d", "", 4),
        ("k,\"s\"x\n1,a\n", "", 1),
        ("k,s\n#\"\n1,\"a\"#\n", comment, 3),
        ("k,s\n1,\"a\\\"\"b\n", escape, 2),
        ("k,s\n1,\"a\"b\n", "OPTIONS (format.double_quote false)", 2),
    ] {
        write(at, &[("behind.csv", text)]);
        let words = [&format!("behind.csv, line {line}: "), "text behind a quote that closes a field"];
        check(at, &csv("behind.csv", options), "*", Err(&words)).await;
    }
    for (text, options, rows) in [
        ("k,s\n1,\"a \"\"b\"\" c\"\n", "", ["1,a 'b' c"]),
        ("k,s\n1,\"\"\"a\"\"\"\n", "", ["1,'a'"]),
        ("k,s\n1,in\"side\n", "", ["1,in'side"]),
        ("k,s\n1, \"a\"\n", "", ["1, 'a'"]),
        ("\"k\",\"s\"\n\"1\",\"b\"\n", "", ["1,b"]),
        ("\"k\",\"s\"\r\n\"1\",\"b\"\r\n", "", ["1,b"]),
        ("\"k\",\"s\"\n\"1\",\"b\"", "", ["1,b"]),
        ("k,s\n# \"a\"b \"c\n1,b\n#\"", comment, ["1,b"]),
        ("k,s\n1,\"# \"\"b\"\n", comment, ["1,# 'b"]),
        ("k,s\n1,\"a\\\"b\"\n", escape, ["1,a'b"]),
        ("k,s\n1,\"a\\\\\"\n", escape, ["1,a\\"]),
        ("k,s\n1,\"a\nb\"\n", "", ["1,a/b"]),
        ("k,s\r\n1,\"a\r\n\"\"b\"\"\"\r\n", "", ["1,a//'b'"]),
        ("k,s\n1,'a''b'\n", "OPTIONS ('format.quote' '''')", ["1,a'b"]),
        ("k,s\n1,a\"b\"\n", "OPTIONS ('format.quote' '''')", ["1,a'b'"]),
    ] {
        write(at, &[("within.csv", text)]);
        let plain = "k, translate(s, concat('\"', chr(10), chr(13)), '''//') AS s";
        check(at, &csv("within.csv", options), plain, Ok(&rows)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_pass_over_no_link_that_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(at, &[("d/x/a.csv", "id\n1\n"), ("d/z/a.csv", "id\n2\n"), ("d/readme.md", "")]);
    std::os::unix::fs::symlink("nowhere", at.join("d/y")).unwrap();
    let patterns = ["d/*/a.csv", "d/**/a.csv"];
    for pattern in patterns {
        check(at, &csv(pattern, ""), "id", Err(&["d/y is a link to nowhere, which does not exist"])).await;
    }
    check(at, &csv("d/x/*.csv", ""), "id", Ok(&["1"])).await;
    fs::remove_file(at.join("d/y")).unwrap();
    for pattern in patterns {
        check(at, &csv(pattern, ""), "id", Ok(&["1", "2"])).await;
    }
    std::os::unix::fs::symlink("x", at.join("d/y")).unwrap();
    for pattern in patterns {
        check(at, &csv(pattern, ""), "id", Ok(&["1", "1", "2"])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_count_alike_in_whatever_order_locations_stand() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(at, &[("p6/a.csv", "id\n1\n"), ("p7/a.csv", "id\n1\n")]);
    std::os::unix::fs::symlink("a.csv", at.join("p6/b.csv")).unwrap();
    for locations in [
        "'p6'",
        "'p6', 'p6/a.csv'",
        "'p6/a.csv', 'p6'",
        "'p6/b.csv', 'p6'",
        "'p6', 'p6/b.csv'",
        "'p6', 'p6/../p6'",
        "'p6/a.csv', 'p6', 'p6/b.csv'",
        "'p6/a.csv', 'p7'",
    ] {
        let source = format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION ({locations})");
        check(at, &source, "id", Ok(&["1", "1"])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_byte_of_a_page_is_damaged_the_file_is_named_and_no_panic_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // Indices of 7 bits may be too large for a dictionary of 69 values; the first version has none of decimals.
    for (version, count, least) in [(WriterVersion::PARQUET_1_0, 6, 20), (WriterVersion::PARQUET_2_0, 70, 80)] {
        let values = Decimal128Array::from_iter((0..count).map(|value| (value != 3).then_some(value * 100)));
        let values = Arc::new(values.with_precision_and_scale(20, 2).unwrap()) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("d", values)]).unwrap();
        let properties = WriterProperties::builder().set_writer_version(version).build();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        let footer = writer.close().unwrap();
        let column = footer.row_group(0).column(0);
        let (start, length) = column.byte_range();
        let places: Vec<usize> = (column.data_page_offset() as usize..(start + length) as usize).collect();
        let mut sql = String::new();
        for place in &places {
            let mut damaged = bytes.clone();
            damaged[*place] = 255;
            let name = format!("{count}/{place}/p.parquet");
            fs::create_dir_all(at.join(&name).parent().unwrap()).unwrap();
            fs::write(at.join(&name), damaged).unwrap();
            sql += &format!(
                "CREATE EXTERNAL TABLE t{place} STORED AS PARQUET LOCATION '{name}';
                 CREATE TABLE o{place} AS SELECT d FROM t{place};"
            );
        }
        let engine = engine(&at.join(format!("cache{count}")));
        let report = crate::support::try_run(&engine, &sql, at).await;
        let mut told = 0;
        for place in places {
            let task = report.task(&format!("o{place}")).unwrap();
            if task.error.is_some() {
                let words = format!("{count}/{place}/p.parquet: column 'd' can't be decoded, so it is damaged");
                assert!(task.reason.contains(&words) && !task.reason.contains("panicked"), "{}", task.reason);
                told += 1;
            }
        }
        // The others are other values.
        assert!(told >= least, "{told}");
        fs::write(at.join("p.parquet"), bytes).unwrap();
        let sum = (0..count).filter(|value| *value != 3).sum::<i128>();
        let row = format!("{},{sum}.00", count - 1);
        check(at, &of_parquet("p.parquet"), "count(d), sum(d)", Ok(&[&row])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_has_no_type_is_told_with_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(
        at,
        &[
            ("two/a.json", "{\"k\": 1}\n"),
            ("two/b.json", "{\"k\": \"x\"}\n"),
            ("three/a.json", "{\"k\": null}\n"),
            ("three/b.json", "{\"k\": 1}\n"),
            ("three/c.json", "{\"k\": 1}\n{\"k\": \"x\"}\n"),
            ("alike/a.json", "{\"k\": 1}\n"),
            ("alike/b.json", "{\"k\": 1.5}\n"),
            ("twice/a.json", "{\"s\": {\"a\": 1}}\n"),
            ("twice/b.json", "{\"s\": {\"a\": 1, \"a\": 2}}\n"),
            ("list.json", "{\"s\": [{\"a\": 1, \"b\": 1, \"a\": 2}]}\n"),
            ("once.json", "{\"s\": {\"a\": 1, \"b\": {\"a\": 2}}}\n"),
        ],
    );
    let json = |location: &str| format!("CREATE EXTERNAL TABLE t STORED AS JSON LOCATION '{location}'");
    let words = ["two/b.json: key 'k' is a number in one object and a text in another, beside ", "two/a.json; declare"];
    check(at, &json("two/"), "k", Err(&words)).await;
    let words = ["three/c.json: key 'k' is a number in one object and a text in another; declare it"];
    check(at, &json("three/"), "k", Err(&words)).await;
    check(at, &json("alike/"), "k", Ok(&["1.0", "1.5"])).await;
    check(at, &json("twice/"), "*", Err(&["twice/b.json: key 's' has key 'a' twice in an object"])).await;
    check(at, &json("list.json"), "*", Err(&["list.json: key 's' has key 'a' twice in an object"])).await;
    check(at, &json("once.json"), "s['a'], s['b']['a']", Ok(&["1,2"])).await;
    // UTF-32 begins as UTF-16 does.
    fs::write(at.join("little"), b"\xff\xfe\0\0{\0\0\0}\0\0\0").unwrap();
    fs::write(at.join("big"), b"\0\0\xfe\xff\0\0\0{\0\0\0}").unwrap();
    fs::write(at.join("utf16"), b"\xff\xfe{\0}\0").unwrap();
    for (name, words) in [
        ("little", "little: it is UTF-32; save it as UTF-8"),
        ("big", "big: it is UTF-32; save it as UTF-8"),
        ("utf16", "utf16: it is UTF-16; save it as UTF-8"),
    ] {
        check(at, &json(name), "*", Err(&[words])).await;
        check(at, &csv(name, ""), "*", Err(&[words])).await;
    }
}
