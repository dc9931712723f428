-- Another task's table, stored by order and now cut by customer: it is split once, then aggregated chunk by chunk.
CREATE TABLE customer_revenue CLUSTERED BY (o_custkey) INTO 12 BUCKETS AS
SELECT
    o_custkey,
    count(*) AS orders,
    sum(line_items) AS line_items,
    sum(revenue) AS revenue,
    max(revenue) AS best_order
FROM order_revenue
GROUP BY o_custkey;
