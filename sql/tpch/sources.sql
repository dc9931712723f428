-- The TPC-H tables, as the demo and the tests make them.
CREATE EXTERNAL TABLE customer STORED AS PARQUET LOCATION '../data/customer.parquet';
CREATE EXTERNAL TABLE lineitem STORED AS PARQUET LOCATION '../data/lineitem.parquet';
CREATE EXTERNAL TABLE nation STORED AS PARQUET LOCATION '../data/nation.parquet';
CREATE EXTERNAL TABLE orders STORED AS PARQUET LOCATION '../data/orders.parquet';
CREATE EXTERNAL TABLE part STORED AS PARQUET LOCATION '../data/part.parquet';
CREATE EXTERNAL TABLE partsupp STORED AS PARQUET LOCATION '../data/partsupp.parquet';
CREATE EXTERNAL TABLE region STORED AS PARQUET LOCATION '../data/region.parquet';
CREATE EXTERNAL TABLE supplier STORED AS PARQUET LOCATION '../data/supplier.parquet';
