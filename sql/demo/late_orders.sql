-- A semi join: orders with a line item that came later than promised. The subquery is cut with the orders.
CREATE TABLE late_orders CLUSTERED BY (o_orderkey) INTO 16 BUCKETS AS
SELECT o_orderkey, o_custkey, o_orderdate, o_orderpriority
FROM orders
WHERE EXISTS (
    SELECT 1
    FROM lineitem
    WHERE l_orderkey = o_orderkey
      AND l_commitdate < l_receiptdate
);
