CREATE TABLE q17 WITH (chunk_by = 'auto', chunks = 7) AS
SELECT sum(l_extendedprice) / 7.0 AS yearly
FROM lineitem, part
WHERE p_partkey = l_partkey AND p_brand = 'Brand#23'
    AND l_quantity < (SELECT 0.2 * avg(l_quantity) FROM lineitem WHERE l_partkey = p_partkey);
