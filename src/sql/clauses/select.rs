//! SELECT and what stands in it, but for FROM.

use sqlparser::ast::{
    ConnectByKind, Distinct, ExceptSelectItem, ExcludeSelectItem, Expr, GroupByExpr, GroupByWithModifier, Ident,
    IdentWithAlias, IlikeSelectItem, LateralView, NamedWindowDefinition, NamedWindowExpr, ObjectName, RenameSelectItem,
    ReplaceSelectElement, ReplaceSelectItem, Select, SelectFlavor, SelectInto, SelectItem,
    SelectItemQualifiedWildcardKind, Top, Value, WildcardAdditionalOptions,
};

use crate::error::Result;
use crate::sql::clauses::Clauses;

impl Clauses<'_> {
    pub(super) fn select(&mut self, select: &Select) -> Result<()> {
        let Select {
            select_token,
            // A comment.
            optimizer_hints: _,
            distinct,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        self.at(select_token.0.span);
        if let Some(Top { with_ties: _, percent: _, quantity: _ }) = top {
            self.refuse(true, "TOP", "TOP is not supported; write LIMIT n at the end of the query")?;
        }
        self.refuse(
            select_modifiers.is_some(),
            "SELECT",
            "words such as SQL_NO_CACHE or STRAIGHT_JOIN behind SELECT have no meaning here; remove them",
        )?;
        self.refuse(
            value_table_mode.is_some(),
            "AS",
            "SELECT AS STRUCT and SELECT AS VALUE are not supported; write SELECT named_struct('name', value, …)",
        )?;
        match distinct {
            None | Some(Distinct::All | Distinct::Distinct) => {}
            Some(Distinct::On(keys)) => self.distinct_on(keys)?,
        }
        match flavor {
            SelectFlavor::Standard | SelectFlavor::FromFirst if projection.is_empty() => {
                return Err(self.error("the SELECT has no columns; write them behind SELECT, or *"));
            }
            SelectFlavor::Standard | SelectFlavor::FromFirst => {}
            // Mended: it is SELECT *.
            SelectFlavor::FromFirstNoSelect => {}
        }
        projection.iter().try_for_each(|item| self.select_item(item))?;
        self.refuse(
            exclude.is_some(),
            "EXCLUDE",
            "EXCLUDE behind the columns is not supported; write * EXCLUDE (columns)",
        )?;
        if let Some(SelectInto { temporary: _, unlogged: _, table: _, name: _ }) = into {
            let message = "SELECT … INTO has no meaning here; write CREATE TABLE name AS SELECT …";
            self.refuse(true, "INTO", message)?;
        }
        from.iter().try_for_each(|table| self.table_with_joins(table))?;
        if let Some(LateralView { lateral_view: _, lateral_view_name: _, lateral_col_alias: _, outer: _ }) =
            lateral_views.first()
        {
            let message = "LATERAL VIEW is not supported; write CROSS JOIN UNNEST(list) AS name(column)";
            self.refuse(true, "LATERAL VIEW", message)?;
        }
        self.refuse(prewhere.is_some(), "PREWHERE", "PREWHERE is not supported; write WHERE")?;
        selection.iter().try_for_each(|condition| self.expr(condition))?;
        if let Some(first) = connect_by.first() {
            let words = match first {
                ConnectByKind::ConnectBy { connect_token: _, nocycle: _, relationships: _ } => "CONNECT BY",
                ConnectByKind::StartWith { start_token: _, condition: _ } => "START WITH",
            };
            let message = "START WITH and CONNECT BY are not supported; write WITH RECURSIVE";
            self.refuse(true, words, message)?;
        }
        self.group_by(group_by)?;
        for (is_set, words) in [
            (!cluster_by.is_empty(), "CLUSTER BY"),
            (!distribute_by.is_empty(), "DISTRIBUTE BY"),
            (!sort_by.is_empty(), "SORT BY"),
        ] {
            let message = format!(
                "{words} has no meaning in a query; write ORDER BY to sort, and CREATE TABLE … CLUSTERED BY (columns) INTO n \
                 BUCKETS to cut a task"
            );
            self.refuse(is_set, words, &message)?;
        }
        having.iter().try_for_each(|condition| self.expr(condition))?;
        for NamedWindowDefinition(name, window) in named_window {
            self.at(name.span);
            match window {
                // Windows by name are mended.
                NamedWindowExpr::NamedWindow(name) => self.at(name.span),
                NamedWindowExpr::WindowSpec(window) => self.window(window)?,
            }
        }
        qualify.iter().try_for_each(|condition| self.expr(condition))
    }

    /// DataFusion takes a number here for itself, and then all rows for equal.
    fn distinct_on(&mut self, keys: &[Expr]) -> Result<()> {
        for key in keys {
            self.expr(key)?;
            if matches!(key, Expr::Value(value) if matches!(value.value, Value::Number(..))) {
                return Err(self.error("DISTINCT ON takes columns, not their positions; write the column"));
            }
        }
        self.refuse(keys.is_empty(), "ON", "DISTINCT ON needs columns; write them in parentheses behind ON")
    }

    pub(super) fn select_item(&mut self, item: &SelectItem) -> Result<()> {
        match item {
            SelectItem::UnnamedExpr(expr) => self.expr(expr),
            SelectItem::ExprWithAlias { expr, alias } => {
                self.expr(expr)?;
                self.at(alias.span);
                Ok(())
            }
            SelectItem::ExprWithAliases { expr, aliases: _ } => {
                self.expr(expr)?;
                Err(self.error("one expression can't have several names; select each part by itself with AS"))
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                self.name(name);
                self.wildcard(options)
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(expr), options) => {
                self.expr(expr)?;
                self.at(options.wildcard_token.0.span);
                Err(self.error(
                    "`.*` behind an expression is not supported; write unnest(expression) to make columns of a struct",
                ))
            }
            SelectItem::Wildcard(options) => self.wildcard(options),
        }
    }

    /// ILIKE, REPLACE and RENAME are mended, and so are names of columns in upper case.
    pub(super) fn wildcard(&mut self, options: &WildcardAdditionalOptions) -> Result<()> {
        let WildcardAdditionalOptions {
            wildcard_token,
            opt_ilike,
            opt_exclude,
            opt_except,
            opt_replace,
            opt_rename,
            opt_alias,
        } = options;
        self.at(wildcard_token.0.span);
        if let Some(IlikeSelectItem { pattern: _ }) = opt_ilike {}
        match opt_exclude {
            None => {}
            Some(ExcludeSelectItem::Single(name)) => self.excluded(name)?,
            Some(ExcludeSelectItem::Multiple(names)) => names.iter().try_for_each(|name| self.excluded(name))?,
        }
        if let Some(ExceptSelectItem { first_element: _, additional_elements: _ }) = opt_except {}
        if let Some(ReplaceSelectItem { items }) = opt_replace {
            for item in items {
                let ReplaceSelectElement { expr, column_name: _, as_keyword: _ } = item.as_ref();
                self.expr(expr)?;
            }
        }
        match opt_rename {
            None
            | Some(RenameSelectItem::Single(IdentWithAlias { ident: _, alias: _ }) | RenameSelectItem::Multiple(_)) => {
            }
        }
        match opt_alias {
            None => Ok(()),
            Some(alias) => {
                self.at(alias.span);
                Err(self.error("* can't have an alias; remove it"))
            }
        }
    }

    fn excluded(&mut self, name: &ObjectName) -> Result<()> {
        self.name(name);
        match name.0.as_slice() {
            [_] => Ok(()),
            _ => Err(self.error(format!("`{name}` is qualified; write the column alone, or table.* EXCLUDE (column)"))),
        }
    }

    fn group_by(&mut self, group_by: &GroupByExpr) -> Result<()> {
        let modifiers = match group_by {
            GroupByExpr::All(modifiers) => {
                self.refuse(
                    !modifiers.is_empty(),
                    "WITH",
                    "GROUP BY ALL can't be followed by WITH ROLLUP and the like; write GROUP BY ROLLUP (columns)",
                )?;
                modifiers
            }
            GroupByExpr::Expressions(keys, modifiers) => {
                keys.iter().try_for_each(|key| self.group_key(key))?;
                modifiers
            }
        };
        for (at, modifier) in modifiers.iter().enumerate() {
            match modifier {
                // Mended.
                GroupByWithModifier::Rollup | GroupByWithModifier::Cube => {}
                GroupByWithModifier::GroupingSets(sets) => self.group_key(sets)?,
                GroupByWithModifier::Totals => self.refuse(
                    true,
                    "WITH TOTALS",
                    "WITH TOTALS is not supported; write GROUP BY GROUPING SETS ((columns), ()), which adds a row for all",
                )?,
            }
            self.refuse(
                at > 0,
                "WITH",
                "GROUP BY takes one of WITH ROLLUP, WITH CUBE and GROUPING SETS; remove the others",
            )?;
        }
        Ok(())
    }

    /// What only a GROUP BY has is walked here, and refused by [`Self::expr`] elsewhere.
    fn group_key(&mut self, key: &Expr) -> Result<()> {
        match key {
            Expr::Rollup(sets) | Expr::Cube(sets) | Expr::GroupingSets(sets) => {
                sets.iter().flatten().try_for_each(|key| self.group_key(key))
            }
            // Tuples of columns, and GROUP BY (), are mended.
            Expr::Tuple(keys) => keys.iter().try_for_each(|key| self.group_key(key)),
            other => self.expr(other),
        }
    }

    pub(super) fn name(&mut self, name: &ObjectName) {
        for part in &name.0 {
            if let Some(Ident { span, value: _, quote_style: _ }) = part.as_ident() {
                self.at(*span);
            }
        }
    }
}
