-- Windows that are partitioned by the key. Ships on one day are told apart by order and line, so no two rows tie.
CREATE TABLE part_price_history CLUSTERED BY (l_partkey) INTO 16 BUCKETS AS
SELECT
    l_partkey,
    l_shipdate,
    l_orderkey,
    l_linenumber,
    l_quantity,
    l_discount,
    lag(l_discount) OVER (
        PARTITION BY l_partkey
        ORDER BY l_shipdate, l_orderkey, l_linenumber
    ) AS previous_discount,
    sum(l_quantity) OVER (
        PARTITION BY l_partkey
        ORDER BY l_shipdate, l_orderkey, l_linenumber
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS quantity_so_far
FROM lineitem;
