//! The syntax of Java's properties files.
//!
//! It is written here rather than taken from a crate: these few lines do not justify the regular-expression engine and the
//! encoding library that `java-properties` brings along.

use super::{Garbled, Line};

/// The properties in their order, each with its first line.
pub fn parse(text: &str) -> Result<Vec<Line>, Garbled> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut properties = Vec::new();
    let mut lines = text.split('\n').enumerate();
    while let Some((at, line)) = lines.next() {
        let mut whole = line.trim_start_matches(BLANKS).to_owned();
        if whole.is_empty() || whole.starts_with(['#', '!']) {
            continue;
        }
        // A backslash at the end goes on with the next line, unless it is itself escaped.
        while ends_escaped(&whole) {
            whole.pop();
            let Some((_, next)) = lines.next() else { break };
            whole += next.trim_start_matches(BLANKS);
        }
        if whole.is_empty() {
            continue;
        }
        let number = at + 1;
        let garbled = Garbled {
            line: number,
            expected: "expected four hexadecimal digits after each \\u",
        };
        properties.push(property(&whole, number).ok_or(garbled)?);
    }
    Ok(properties)
}

const BLANKS: [char; 3] = [' ', '\t', '\u{c}'];

fn ends_escaped(line: &str) -> bool {
    let backslashes = line.len() - line.trim_end_matches('\\').len();
    !backslashes.is_multiple_of(2)
}

/// Name and value: between them `=` or `:`, or nothing but blanks.
fn property(line: &str, number: usize) -> Option<Line> {
    let mut escaped = false;
    let ends = |c: char| {
        let ends = !escaped && (BLANKS.contains(&c) || c == '=' || c == ':');
        escaped = !escaped && c == '\\';
        ends
    };
    let (name, rest) = line.split_at(line.find(ends).unwrap_or(line.len()));
    let rest = rest.trim_start_matches(BLANKS);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    Some(Line {
        name: unescape(name)?,
        value: unescape(value)?.trim().to_owned(),
        number,
    })
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('t')) => '\t',
            ('\\', Some('n')) => '\n',
            ('\\', Some('r')) => '\r',
            ('\\', Some('f')) => '\u{c}',
            ('\\', Some('u')) => {
                let digits = chars.as_str().get(..4)?;
                let all = digits.bytes().all(|b| b.is_ascii_hexdigit());
                let code = u32::from_str_radix(digits, 16).ok().filter(|_| all)?;
                chars.nth(3);
                // Half of a pair is nothing that a name or a value here could have.
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            ('\\', Some(other)) => other,
            (other, _) => other,
        });
    }
    Some(plain)
}
