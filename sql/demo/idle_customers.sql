-- An anti join: customers without orders. Both sides are cut by customer, so a chunk sees all orders of its customers.
CREATE TABLE idle_customers CLUSTERED BY (c_custkey) INTO 12 BUCKETS AS
SELECT c_custkey, c_name, c_nationkey, c_acctbal
FROM customer
WHERE NOT EXISTS (SELECT 1 FROM orders WHERE o_custkey = c_custkey);
