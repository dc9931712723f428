-- Small tables joined to cut ones: every chunk reads all of nation and region, and only its suppliers and line items,
-- the latter through a view.
CREATE TABLE supplier_sales CLUSTERED BY (s_suppkey) INTO 8 BUCKETS AS
SELECT
    s_suppkey,
    s_name,
    n_name AS nation,
    r_name AS region,
    sum(l_quantity) AS quantity,
    sum(revenue) AS revenue
FROM net_line_items
JOIN supplier ON l_suppkey = s_suppkey
JOIN nation ON s_nationkey = n_nationkey
JOIN region ON n_regionkey = r_regionkey
GROUP BY s_suppkey, s_name, n_name, r_name;
