//! Correlated subqueries over joins of tables that share the names of their columns.

use super::random::Random;

/// Names within a subquery; `x` is the table around it.
const INNER: [&str; 3] = ["p", "q", "r"];

/// A query of the tables `{t}` and `{u}` with a subquery about a row of the first, over their common key `{k}` and the
/// number `a` that both have.
pub fn correlated(random: &mut Random) -> String {
    let joined = 1 + random.below(3);
    let inner = &INNER[..joined];
    let mut from = format!("{} {}", random.pick(&["{t}", "{u}"]), inner[0]);
    for name in &inner[1..] {
        let table = *random.pick(&["{t}", "{u}"]);
        let on = format!("{name}.{} = {}.{}", column(random), inner[0], column(random));
        from += &match random.below(3) {
            0 => format!(" JOIN {table} {name} ON {on}"),
            1 => format!(" LEFT JOIN {table} {name} ON {on}"),
            _ => format!(" CROSS JOIN {table} {name}"),
        };
    }
    let conditions = (0..1 + random.below(2)).map(|_| {
        let column = column(random);
        let operator = *random.pick(&["=", "=", "<>", "<", "IS NOT DISTINCT FROM"]);
        format!("{}.{column} {operator} x.{column}", random.pick(inner))
    });
    let conditions = conditions.collect::<Vec<_>>().join(" AND ");
    let given = format!("{}.{}", random.pick(inner), column(random));
    // A result may be called what another table's column is.
    let name = *random.pick(&["", " AS a", " AS {k}", " AS m"]);
    let subquery = |given: &str| format!("SELECT {given}{name} FROM {from} WHERE {conditions}");
    let not = *random.pick(&["", "NOT "]);
    let values = |random: &mut Random| {
        format!("SELECT {}({given}){name} FROM {from} WHERE {conditions}", random.pick(&["count", "max", "min"]))
    };
    match random.below(6) {
        0 => format!("SELECT x.{{k}}, x.a FROM {{t}} x WHERE {not}EXISTS ({})", subquery(&given)),
        1 => format!("SELECT x.{{k}}, x.a, {not}EXISTS ({}) AS found FROM {{t}} x", subquery("1")),
        2 => {
            let column = given.split_once('.').map_or("a", |(_, column)| column);
            format!("SELECT x.{{k}}, x.a FROM {{t}} x WHERE x.{column} {not}IN ({})", subquery(&given))
        }
        3 => format!("SELECT x.{{k}}, x.a, ({}) AS v FROM {{t}} x", values(random)),
        4 => format!("SELECT x.{{k}}, l.* FROM {{t}} x, LATERAL ({}) l", values(random)),
        _ => {
            format!("SELECT x.{{k}}, l.v FROM {{t}} x, LATERAL (SELECT {given} AS v FROM {from} WHERE {conditions}) l")
        }
    }
}

fn column(random: &mut Random) -> &'static str {
    ["{k}", "a"][random.below(2)]
}
