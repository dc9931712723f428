-- Half of all rows of lineitem have one key, which no number of chunks can cut.
CREATE EXTERNAL TABLE lineitem STORED AS PARQUET LOCATION '../data/lineitem.parquet';
CREATE EXTERNAL TABLE orders   STORED AS PARQUET LOCATION '../data/orders.parquet';

CREATE TABLE skewed AS
SELECT CASE WHEN l_orderkey % 2 = 0 THEN 7 ELSE l_orderkey END AS k, l_orderkey, l_linenumber, l_quantity, l_comment
FROM lineitem;

CREATE TABLE skew CLUSTERED BY (k) INTO 64 BUCKETS AS
SELECT k, o_orderdate, l_orderkey, l_linenumber, l_comment,
       sum(l_quantity) OVER (PARTITION BY k ORDER BY l_orderkey, l_linenumber ROWS UNBOUNDED PRECEDING) AS quantity
FROM skewed JOIN orders ON k = o_orderkey;
