-- Two tasks' tables that are stored by the same key and chunks: chunk k opens the files of chunk k, and no others.
CREATE TABLE late_order_revenue CLUSTERED BY (o_orderkey) INTO 16 BUCKETS AS
SELECT late.o_orderkey, late.o_orderpriority, earned.line_items, earned.revenue
FROM late_orders AS late
JOIN order_revenue AS earned ON late.o_orderkey = earned.o_orderkey;
