-- Without CLUSTERED BY: totals and a LIMIT over another task's table, run whole. The order is total, so is the result.
CREATE TABLE top_nations AS
SELECT
    n_name AS nation,
    count(*) AS customers,
    sum(orders) AS orders,
    sum(spent) AS spent
FROM customer_orders
JOIN nation ON c_nationkey = n_nationkey
GROUP BY n_name
ORDER BY spent DESC, nation
LIMIT 10;
