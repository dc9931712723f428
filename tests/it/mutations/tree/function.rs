//! Calls, windows and order.

use sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments,
    HavingBound, HavingBoundKind, ListAggOnOverflow, NullTreatment, OrderByExpr, OrderByOptions, Value,
    WindowFrameBound, WindowFrameUnits, WindowSpec, WindowType, WithFill,
};

use super::Walk;
use super::parts::{key, name, no_window, number, one, truth};

impl Walk {
    pub(super) fn options(&mut self, options: &mut OrderByOptions) {
        // The default is ASC NULLS LAST, of DESC it is NULLS FIRST.
        let is_ascending = options.asc.unwrap_or(true);
        let nulls_first = options.nulls_first.unwrap_or(!is_ascending);
        self.set("ASC or DESC", &mut options.asc, [Some(!is_ascending)]);
        self.set("NULLS FIRST or LAST", &mut options.nulls_first, [Some(!nulls_first)]);
    }

    pub(super) fn order(&mut self, keys: &mut Vec<OrderByExpr>) {
        self.drop_each("a key of ORDER BY dropped", keys);
        self.swap_first("keys of ORDER BY swapped", keys);
        for key in keys {
            self.options(&mut key.options);
            self.add("WITH FILL added", &mut key.with_fill, || WithFill { from: None, to: None, step: None });
        }
    }

    pub(super) fn window(&mut self, window: &mut WindowSpec) {
        let WindowSpec { window_name, partition_by, order_by, window_frame } = window;
        self.take("the window's name dropped", window_name);
        self.drop_each("a key of PARTITION BY dropped", partition_by);
        self.order(order_by);
        self.take("the frame dropped", window_frame);
        if let Some(frame) = window_frame {
            let units = [WindowFrameUnits::Rows, WindowFrameUnits::Range, WindowFrameUnits::Groups];
            self.set("units of the frame", &mut frame.units, units);
            self.bound(&mut frame.start_bound);
            match &mut frame.end_bound {
                Some(bound) => self.bound(bound),
                end => self.edit("end of the frame", || *end = Some(WindowFrameBound::Following(None))),
            }
        }
    }

    fn bound(&mut self, bound: &mut WindowFrameBound) {
        let one = || Some(Box::new(Expr::value(number("1"))));
        let others = match bound {
            WindowFrameBound::CurrentRow => [WindowFrameBound::Preceding(one()), WindowFrameBound::Following(one())],
            WindowFrameBound::Preceding(None) | WindowFrameBound::Following(None) => {
                [WindowFrameBound::CurrentRow, WindowFrameBound::Preceding(one())]
            }
            WindowFrameBound::Preceding(value) => {
                [WindowFrameBound::Following(value.clone()), WindowFrameBound::CurrentRow]
            }
            WindowFrameBound::Following(value) => {
                [WindowFrameBound::Preceding(value.clone()), WindowFrameBound::CurrentRow]
            }
        };
        self.set("bound of the frame", bound, others);
        self.set("UNBOUNDED", bound, [WindowFrameBound::Preceding(None), WindowFrameBound::Following(None)]);
    }

    pub(super) fn function(&mut self, function: &mut Function) {
        let Function {
            name: called,
            uses_odbc_syntax: _,
            parameters: _,
            args,
            filter,
            null_treatment,
            over,
            within_group,
        } = function;
        let written = called.to_string();
        for others in FUNCTIONS.iter().filter(|functions| functions.contains(&written.as_str())) {
            for other in others.iter().filter(|other| **other != written) {
                self.edit("another function", || *called = name(other));
            }
        }
        if let FunctionArguments::List(list) = args {
            let treatments = [Some(DuplicateTreatment::Distinct), None];
            self.set("DISTINCT of arguments", &mut list.duplicate_treatment, treatments);
            self.drop_each("an argument dropped", &mut list.args);
            self.swap_first("arguments swapped", &mut list.args);
            self.drop_each("a clause of arguments dropped", &mut list.clauses);
            self.edit("an argument added", || list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(one()))));
            // Elsewhere the order says nothing.
            if ORDERED.contains(&written.as_str()) {
                self.edit("ORDER BY added", || list.clauses.push(FunctionArgumentClause::OrderBy(vec![key()])));
            }
            for clause in [
                FunctionArgumentClause::Limit(one()),
                FunctionArgumentClause::OnOverflow(ListAggOnOverflow::Error),
                FunctionArgumentClause::Having(HavingBound(HavingBoundKind::Max, one())),
                FunctionArgumentClause::Separator(Value::SingleQuotedString("-".into()).into()),
            ] {
                let kind = std::mem::discriminant(&clause);
                if list.clauses.iter().all(|other| std::mem::discriminant(other) != kind) {
                    self.edit("a clause of arguments added", || list.clauses.push(clause));
                }
            }
            for clause in &mut list.clauses {
                match clause {
                    FunctionArgumentClause::OrderBy(keys) => self.order(keys),
                    FunctionArgumentClause::IgnoreOrRespectNulls(nulls) => {
                        self.set(
                            "treatment of NULLs",
                            nulls,
                            [NullTreatment::IgnoreNulls, NullTreatment::RespectNulls],
                        );
                    }
                    _ => {}
                }
            }
        }
        self.take("FILTER dropped", filter);
        self.add("FILTER added", filter, || Box::new(truth()));
        let treatments = [Some(NullTreatment::IgnoreNulls), Some(NullTreatment::RespectNulls)];
        self.set("treatment of NULLs", null_treatment, treatments);
        self.take("OVER dropped", over);
        self.add("OVER added", over, || WindowType::WindowSpec(WindowSpec { order_by: vec![key()], ..no_window() }));
        self.add("OVER () added", over, || WindowType::WindowSpec(no_window()));
        if let Some(WindowType::WindowSpec(window)) = over {
            self.window(window);
        }
        self.order(within_group);
        if within_group.is_empty() {
            self.edit("WITHIN GROUP added", || within_group.push(key()));
        }
    }
}

/// Functions that take the same arguments.
const FUNCTIONS: &[&[&str]] = &[
    &["sum", "min", "max", "avg", "count", "median", "approx_distinct", "approx_median"],
    &["stddev", "stddev_pop", "var_pop", "var_samp"],
    &["corr", "covar_samp", "covar_pop", "regr_slope", "regr_count"],
    &["bit_and", "bit_or", "bit_xor"],
    &["bool_or", "bool_and"],
    &["first_value", "last_value"],
    &["row_number", "rank", "dense_rank", "percent_rank", "cume_dist"],
    &["lag", "lead"],
    &["percentile_cont", "approx_percentile_cont"],
    &["upper", "lower", "reverse", "md5", "length", "octet_length"],
    &["abs", "signum", "sqrt", "ceil", "floor"],
    &["greatest", "least", "coalesce", "nullif"],
    &["round", "trunc", "power"],
    &["left", "right", "repeat"],
    &["lpad", "rpad"],
    &["array_has", "array_position", "array_remove"],
    &["array_concat", "array_union", "array_except"],
    &["date_trunc", "date_part"],
    &["struct", "make_array"],
];

/// Functions whose value depends on the order of rows.
const ORDERED: [&str; 7] =
    ["first_value", "last_value", "nth_value", "array_agg", "string_agg", "percentile_cont", "approx_percentile_cont"];
