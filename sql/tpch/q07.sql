CREATE TABLE q07 WITH (chunk_by = 'auto', chunks = 7) AS
SELECT supp_nation, cust_nation, ship_year, sum(volume) AS revenue
FROM (
    SELECT a.n_name AS supp_nation, b.n_name AS cust_nation, date_part('year', l_shipdate) AS ship_year,
        l_extendedprice * (1 - l_discount) AS volume
    FROM supplier, lineitem, orders, customer, nation a, nation b
    WHERE s_suppkey = l_suppkey AND o_orderkey = l_orderkey AND c_custkey = o_custkey
        AND s_nationkey = a.n_nationkey AND c_nationkey = b.n_nationkey
        AND ((a.n_name = 'FRANCE' AND b.n_name = 'GERMANY') OR (a.n_name = 'GERMANY' AND b.n_name = 'FRANCE'))
        AND l_shipdate BETWEEN DATE '1995-01-01' AND DATE '1996-12-31')
GROUP BY supp_nation, cust_nation, ship_year
ORDER BY supp_nation, cust_nation, ship_year;
