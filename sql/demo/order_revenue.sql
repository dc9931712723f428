-- Two large tables joined on the key: both are cut, and each chunk joins only its own orders and line items.
CREATE TABLE order_revenue CLUSTERED BY (o_orderkey) INTO 16 BUCKETS AS
SELECT
    o_orderkey,
    o_custkey,
    o_orderdate,
    count(*) AS line_items,
    sum(l_extendedprice * (1 - l_discount)) AS revenue
FROM lineitem
JOIN orders ON l_orderkey = o_orderkey
GROUP BY o_orderkey, o_custkey, o_orderdate;
