CREATE TABLE q21 WITH (chunk_by = 'auto', chunks = 7) AS
SELECT s_name, count(*) AS waits
FROM supplier, lineitem late, orders, nation
WHERE s_suppkey = late.l_suppkey AND o_orderkey = late.l_orderkey AND o_orderstatus = 'F'
    AND late.l_receiptdate > late.l_commitdate
    AND EXISTS (SELECT 1 FROM lineitem a WHERE a.l_orderkey = late.l_orderkey AND a.l_suppkey <> late.l_suppkey)
    AND NOT EXISTS (
        SELECT 1 FROM lineitem b
        WHERE b.l_orderkey = late.l_orderkey AND b.l_suppkey <> late.l_suppkey AND b.l_receiptdate > b.l_commitdate)
    AND s_nationkey = n_nationkey AND n_name = 'SAUDI ARABIA'
GROUP BY s_name
ORDER BY waits DESC, s_name
LIMIT 100;
