-- UNION ALL: each branch has the key as its first column, so each is cut by its own table's part.
CREATE TABLE part_movements CLUSTERED BY (partkey) INTO 8 BUCKETS AS
SELECT l_partkey AS partkey, l_suppkey AS suppkey, 'sold' AS movement, -l_quantity AS quantity
FROM lineitem
UNION ALL
SELECT ps_partkey, ps_suppkey, 'in stock', CAST(ps_availqty AS DECIMAL(15, 2))
FROM partsupp;
