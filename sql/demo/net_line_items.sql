-- A view: written into every task that reads it, never stored. A cut by any of its columns reaches lineitem itself.
CREATE VIEW net_line_items AS
SELECT
    l_orderkey,
    l_linenumber,
    l_partkey,
    l_suppkey,
    l_shipdate,
    l_quantity,
    l_extendedprice * (1 - l_discount) AS revenue
FROM lineitem
WHERE l_returnflag <> 'R';
