//! Calls of functions. What depends on the kind of the function is decided where it is planned.

use sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgOperator, FunctionArgumentClause,
    FunctionArgumentList, FunctionArguments, NullTreatment, WindowFrame, WindowFrameBound, WindowFrameUnits,
    WindowSpec, WindowType,
};

use crate::error::Result;
use crate::sql::clauses::Clauses;
use crate::sql::name::unqualified;

impl Clauses<'_> {
    pub(super) fn function(&mut self, function: &Function) -> Result<()> {
        let Function { name, uses_odbc_syntax: _, parameters, args, filter, null_treatment, over, within_group } =
            function;
        self.name(name);
        // The parser takes a column `t.user` for a call without arguments.
        let is_bare = [parameters, args].into_iter().all(|list| matches!(list, FunctionArguments::None))
            && filter.is_none()
            && null_treatment.is_none()
            && over.is_none()
            && within_group.is_empty();
        if is_bare && name.0.len() > 1 {
            return Ok(());
        }
        if unqualified(name).is_none() {
            return Err(self.error(format!(
                "`{name}` is qualified, but functions have one-part names; write the last part alone"
            )));
        }
        match parameters {
            FunctionArguments::None => {}
            FunctionArguments::Subquery(_) | FunctionArguments::List(_) => {
                return Err(self
                    .error(format!("{name}(…)(…) is not supported; write all arguments in one pair of parentheses")));
            }
        }
        match args {
            FunctionArguments::None => {}
            FunctionArguments::Subquery(_) => {
                let message = match name.to_string().eq_ignore_ascii_case("array") {
                    true => "ARRAY(SELECT …) is not supported; write (SELECT array_agg(x) FROM …)".to_string(),
                    false => format!("a subquery needs its own parentheses; write {name}((SELECT …))"),
                };
                return Err(self.error(message));
            }
            FunctionArguments::List(list) => self.arguments(list)?,
        }
        filter.iter().try_for_each(|condition| self.expr(condition))?;
        match null_treatment {
            None | Some(NullTreatment::IgnoreNulls | NullTreatment::RespectNulls) => {}
        }
        within_group.iter().try_for_each(|key| self.order_by_expr(key))?;
        match over {
            None => Ok(()),
            // Windows by name are mended.
            Some(WindowType::NamedWindow(name)) => {
                self.at(name.span);
                Ok(())
            }
            Some(WindowType::WindowSpec(window)) => self.window(window),
        }
    }

    fn arguments(&mut self, list: &FunctionArgumentList) -> Result<()> {
        let FunctionArgumentList { duplicate_treatment, args, clauses } = list;
        match duplicate_treatment {
            None | Some(DuplicateTreatment::Distinct | DuplicateTreatment::All) => {}
        }
        args.iter().try_for_each(|arg| self.argument(arg))?;
        for clause in clauses {
            match clause {
                FunctionArgumentClause::IgnoreOrRespectNulls(
                    NullTreatment::IgnoreNulls | NullTreatment::RespectNulls,
                ) => {}
                FunctionArgumentClause::OrderBy(keys) => keys.iter().try_for_each(|key| self.order_by_expr(key))?,
                FunctionArgumentClause::Limit(_) => self.refuse(
                    true,
                    "LIMIT",
                    "LIMIT inside a function is not supported; write array_slice(array_agg(x ORDER BY y), 1, n)",
                )?,
                FunctionArgumentClause::OnOverflow(_) => {
                    self.refuse(
                        true,
                        "ON OVERFLOW",
                        "ON OVERFLOW is not supported, text has no longest length; remove it",
                    )?;
                }
                FunctionArgumentClause::Having(_) => self.refuse(
                    true,
                    "HAVING",
                    "HAVING inside a function is not supported; write first_value(x ORDER BY y)",
                )?,
                FunctionArgumentClause::Separator(_) => {
                    self.refuse(true, "SEPARATOR", "SEPARATOR is not supported; write string_agg(x, ',')")?;
                }
                FunctionArgumentClause::JsonNullClause(_) => {
                    self.refuse(true, "NULL", "NULL ON NULL and ABSENT ON NULL are not supported; remove them")?;
                }
                FunctionArgumentClause::JsonReturningClause(_) => {
                    self.refuse(true, "RETURNING", "RETURNING is not supported; write CAST(… AS type) around it")?;
                }
            }
        }
        Ok(())
    }

    fn argument(&mut self, arg: &FunctionArg) -> Result<()> {
        let value = match arg {
            FunctionArg::Unnamed(value) => value,
            FunctionArg::Named { name, arg, operator } => {
                self.at(name.span);
                self.argument_operator(operator)?;
                arg
            }
            FunctionArg::ExprNamed { name: Expr::Identifier(name), arg, operator } => {
                self.at(name.span);
                self.argument_operator(operator)?;
                arg
            }
            FunctionArg::ExprNamed { name, arg: _, operator: _ } => {
                self.expr(name)?;
                return Err(self.error("an argument's name is a word; write name => value"));
            }
        };
        match value {
            FunctionArgExpr::Expr(expr) => self.expr(expr),
            FunctionArgExpr::Wildcard => Ok(()),
            FunctionArgExpr::QualifiedWildcard(name) => {
                self.name(name);
                Ok(())
            }
            FunctionArgExpr::WildcardWithOptions(options) => {
                self.wildcard(options)?;
                Err(self.error("* takes no EXCLUDE or REPLACE inside a function; write the columns"))
            }
        }
    }

    fn argument_operator(&mut self, operator: &FunctionArgOperator) -> Result<()> {
        match operator {
            FunctionArgOperator::RightArrow | FunctionArgOperator::Assignment | FunctionArgOperator::Equals => Ok(()),
            FunctionArgOperator::Colon | FunctionArgOperator::Value => {
                Err(self.error(format!("an argument's name is followed by =>; write it for {operator}")))
            }
        }
    }

    pub(super) fn window(&mut self, window: &WindowSpec) -> Result<()> {
        // What a window takes from another by name is mended.
        let WindowSpec { window_name, partition_by, order_by, window_frame } = window;
        window_name.iter().for_each(|name| self.at(name.span));
        partition_by.iter().try_for_each(|key| self.expr(key))?;
        order_by.iter().try_for_each(|key| self.order_by_expr(key))?;
        let Some(WindowFrame { units, start_bound, end_bound }) = window_frame else { return Ok(()) };
        match units {
            WindowFrameUnits::Rows | WindowFrameUnits::Range | WindowFrameUnits::Groups => {}
        }
        for bound in [Some(start_bound), end_bound.as_ref()].into_iter().flatten() {
            match bound {
                WindowFrameBound::CurrentRow
                | WindowFrameBound::Preceding(None)
                | WindowFrameBound::Following(None) => {}
                WindowFrameBound::Preceding(Some(count)) | WindowFrameBound::Following(Some(count)) => {
                    self.expr(count)?
                }
            }
        }
        Ok(())
    }
}
