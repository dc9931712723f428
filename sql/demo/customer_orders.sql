-- A left join on the key: a customer without orders is kept, with a count of 0, by the one chunk that has the customer.
CREATE TABLE customer_orders CLUSTERED BY (c_custkey) INTO 12 BUCKETS AS
SELECT
    c_custkey,
    c_nationkey,
    c_mktsegment,
    count(o_orderkey) AS orders,
    min(o_orderdate) AS first_order,
    max(o_orderdate) AS last_order,
    coalesce(sum(o_totalprice), 0) AS spent
FROM customer
LEFT JOIN orders ON c_custkey = o_custkey
GROUP BY c_custkey, c_nationkey, c_mktsegment;
