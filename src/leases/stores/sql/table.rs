//! What the table is called in statements, and whether it is one of leases.

use crate::leases::TableName;

/// The name as statements write it, between the marks that the database has for that.
pub(in crate::leases::stores) fn quoted(table: &TableName, mark: char) -> String {
    match table.parts() {
        (Some(schema), table) => format!("{mark}{schema}{mark}.{mark}{table}{mark}"),
        (None, table) => format!("{mark}{table}{mark}"),
    }
}

/// A table as the database describes it.
#[derive(Debug, Clone, Default)]
pub(in crate::leases::stores) struct Shape {
    /// Its columns.
    pub(in crate::leases::stores) columns: Vec<Column>,
    /// Whether no two rows can have the same name: a primary key or a unique index on it alone.
    pub(in crate::leases::stores) one_row_a_name: bool,
    /// Anything else that is wrong with it.
    pub(in crate::leases::stores) unfit: Option<String>,
}

/// A column of a table.
#[derive(Debug, Clone)]
pub(in crate::leases::stores) struct Column {
    pub(in crate::leases::stores) name: String,
    pub(in crate::leases::stores) kind: String,
    /// It has to be given when a row is added.
    pub(in crate::leases::stores) needed: bool,
}

/// The columns that Go's dbmutex has, in its order.
const COLUMNS: [&str; 13] = [
    "name",
    "locked",
    "locked_count",
    "locked_seconds",
    "locker_host",
    "locker_pid",
    "locker_id",
    "locked_at",
    "refresh_at",
    "expires_at",
    "released_at",
    "created_at",
    "updated_at",
];

impl Shape {
    /// Why it is no table of leases; `None` if it is one. `fits` says whether a type can hold a column, or else what it
    /// should be.
    pub(in crate::leases::stores) fn why_wrong(
        &self,
        fits: impl Fn(&str, &str) -> Result<(), &'static str>,
    ) -> Option<String> {
        for wanted in COLUMNS {
            let Some(column) = self.columns.iter().find(|column| column.name == wanted) else {
                return Some(format!("it has no column {wanted}"));
            };
            if let Err(expected) = fits(wanted, &column.kind) {
                let kind = &column.kind;
                return Some(format!(
                    "its column {wanted} is of the type {kind}, and not {expected}"
                ));
            }
        }
        let foreign = |column: &&Column| column.needed && !COLUMNS.contains(&&*column.name);
        if let Some(column) = self.columns.iter().find(foreign) {
            return Some(format!("its column {} has no default", column.name));
        }
        if !self.one_row_a_name {
            return Some("nothing keeps two rows from having the same name".to_owned());
        }
        self.unfit.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            kind: "good".to_owned(),
            needed: false,
        };
        Shape {
            columns: COLUMNS.iter().map(column).collect(),
            one_row_a_name: true,
            unfit: None,
        }
    }

    fn fits(_: &str, kind: &str) -> Result<(), &'static str> {
        (kind == "good").then_some(()).ok_or("good")
    }

    #[test]
    fn a_table_is_told_from_others_by_its_columns_and_its_key() {
        assert_eq!(shape().why_wrong(fits), None);
        let mut missing = shape();
        missing.columns.remove(9);
        let why = missing.why_wrong(fits).unwrap();
        assert_eq!(why, "it has no column expires_at");
        let mut typed = shape();
        typed.columns[1].kind = "bad".to_owned();
        let why = typed.why_wrong(fits).unwrap();
        assert_eq!(why, "its column locked is of the type bad, and not good");
        let mut keyless = shape();
        keyless.one_row_a_name = false;
        assert!(keyless.why_wrong(fits).is_some());
        let mut more = shape();
        more.columns.push(Column {
            name: "owner".to_owned(),
            kind: "good".to_owned(),
            needed: true,
        });
        assert_eq!(
            more.why_wrong(fits).unwrap(),
            "its column owner has no default"
        );
    }
}
