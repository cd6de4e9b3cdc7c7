//! A statement with its values, prepared or as plain text.
//!
//! A pooler in transaction mode gives each transaction a session of its choice: what was prepared in one is missing in the
//! next, or is another client's of the same name. Behind a pooler the values are therefore written into the text, which
//! arrives in one piece in whatever session.

use std::fmt::Write as _;
use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection};

/// A statement, and a value for each of its `$1`, `$2` and so on.
pub(super) struct Ask<'a> {
    sql: Arc<str>,
    values: Vec<Value<'a>>,
}

/// A value of one of the types that our statements need.
pub(super) enum Value<'a> {
    Text(&'a str),
    Number(i64),
    Texts(Vec<&'a str>),
    Numbers(Vec<i64>),
}

impl<'a> Ask<'a> {
    pub(super) fn of(sql: impl Into<Arc<str>>) -> Self {
        Self {
            sql: sql.into(),
            values: Vec::new(),
        }
    }

    /// The next value.
    pub(super) fn bind(mut self, value: impl Into<Value<'a>>) -> Self {
        self.values.push(value.into());
        self
    }

    /// All rows of the answer.
    pub(super) async fn rows(
        self,
        connection: &mut PgConnection,
        plainly: bool,
    ) -> sqlx::Result<Vec<PgRow>> {
        if plainly {
            let plain = sqlx::raw_sql(AssertSqlSafe(self.plain()));
            return plain.fetch_all(connection).await;
        }
        let mut query = sqlx::query(AssertSqlSafe(self.sql));
        for value in self.values {
            query = match value {
                Value::Text(text) => query.bind(text),
                Value::Number(number) => query.bind(number),
                Value::Texts(texts) => query.bind(texts),
                Value::Numbers(numbers) => query.bind(numbers),
            };
        }
        query.fetch_all(connection).await
    }

    /// The first row of the answer.
    pub(super) async fn row(
        self,
        connection: &mut PgConnection,
        plainly: bool,
    ) -> sqlx::Result<Option<PgRow>> {
        Ok(self.rows(connection, plainly).await?.into_iter().next())
    }

    /// The text with the values in it. A dollar between quotes is part of a name.
    fn plain(&self) -> String {
        let mut plain = String::with_capacity(2 * self.sql.len());
        let mut quote = None;
        let mut rest = self.sql.chars().peekable();
        while let Some(next) = rest.next() {
            if next == '$' && quote.is_none() {
                let mut place = 0;
                while let Some(digit) = rest.peek().and_then(|digit| digit.to_digit(10)) {
                    place = 10 * place + digit as usize;
                    rest.next();
                }
                match self.values.get(place.wrapping_sub(1)) {
                    Some(value) => value.write(&mut plain),
                    None => plain.push('$'),
                }
                continue;
            }
            match quote {
                Some(open) if open == next => quote = None,
                None if matches!(next, '"' | '\'') => quote = Some(next),
                _ => {}
            }
            plain.push(next);
        }
        plain
    }
}

impl Value<'_> {
    fn write(&self, plain: &mut String) {
        match self {
            Self::Text(text) => literal(text, plain),
            // In parentheses, since a minus binds less than a cast.
            Self::Number(number) => {
                let _ = write!(plain, "({number})::bigint");
            }
            Self::Texts(texts) => {
                plain.push_str("array[");
                for (at, text) in texts.iter().enumerate() {
                    plain.push_str(if at == 0 { "" } else { "," });
                    literal(text, plain);
                }
                plain.push_str("]::text[]");
            }
            Self::Numbers(numbers) => {
                plain.push_str("array[");
                for (at, number) in numbers.iter().enumerate() {
                    let _ = write!(plain, "{}{number}", if at == 0 { "" } else { "," });
                }
                plain.push_str("]::bigint[]");
            }
        }
    }
}

/// A text as its bytes: no setting of the server's changes how these digits are read.
fn literal(text: &str, plain: &mut String) {
    plain.push_str("convert_from(decode('");
    for byte in text.bytes() {
        let _ = write!(plain, "{byte:02x}");
    }
    plain.push_str("','hex'),'UTF8')");
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl<'a> From<Vec<&'a str>> for Value<'a> {
    fn from(texts: Vec<&'a str>) -> Self {
        Self::Texts(texts)
    }
}

impl From<Vec<i64>> for Value<'_> {
    fn from(numbers: Vec<i64>) -> Self {
        Self::Numbers(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_bytes_and_numbers_where_they_belong() {
        let ask = Ask::of("select $2, $1 from \"a$1\" where x = '$2' and y = $3 and z = $4")
            .bind("a'; drop --")
            .bind(-7)
            .bind(vec!["x", "ä"])
            .bind(vec![1, -2]);
        assert_eq!(
            ask.plain(),
            "select (-7)::bigint, convert_from(decode('61273b2064726f70202d2d','hex'),'UTF8') from \"a$1\" where x = '$2' \
             and y = array[convert_from(decode('78','hex'),'UTF8'),convert_from(decode('c3a4','hex'),'UTF8')]::text[] \
             and z = array[1,-2]::bigint[]"
        );
        let none = Ask::of("$1 $2").bind(Vec::<&str>::new());
        assert_eq!(none.plain(), "array[]::text[] $");
        let tenth = (1..=10).fold(Ask::of("$10 $1"), |ask, number| ask.bind(number));
        assert_eq!(tenth.plain(), "(10)::bigint (1)::bigint");
    }
}
