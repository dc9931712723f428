-- DISTINCT, cut by two columns together: equal rows have equal keys, so they meet in one chunk.
CREATE TABLE supply_routes CLUSTERED BY (l_partkey, l_suppkey) INTO 8 BUCKETS AS
SELECT DISTINCT l_partkey, l_suppkey, l_shipmode
FROM lineitem;
