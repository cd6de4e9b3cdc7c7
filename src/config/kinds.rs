//! The kinds of settings: how each is written in the file, shown to a person, and checked against its range.

mod policies;
mod words;

use std::marker::PhantomData;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeValue};

pub use policies::{DelayPolicy, GrowthPolicy, Randomised};
pub use words::Word;

/// One kind of setting.
pub trait Kind {
    /// What the program sees.
    type Value;
    /// What a table row says about the range.
    type Range;
    /// The kind in a word, for the docs.
    const NAME: &'static str;

    /// Reads the value from the file.
    fn parse(value: &Spanned<DeValue<'_>>) -> Result<Self::Value, Malformed>;
    /// The value as a person writes it; what `parse` reads, unless it can be set from code only.
    fn text(value: &Self::Value) -> String;
    /// The value as it stands in the file, or none if it can be set from code only.
    fn toml(value: &Self::Value) -> Option<String> {
        Some(Self::text(value))
    }
    /// Whether the value is allowed.
    fn allows(range: &Self::Range, value: &Self::Value) -> bool;
    /// The allowed values, for the docs.
    fn allowed(range: &Self::Range) -> String;
    /// What was expected, for an error.
    fn expected(range: &Self::Range) -> String;
}

/// A value of the file that is not what its setting takes.
#[derive(Debug)]
pub struct Malformed {
    /// The part of the file.
    pub span: Range<usize>,
    /// What was expected there, if that is something else than what the whole setting expects.
    pub expected: Option<String>,
}

impl Malformed {
    fn at<T>(value: &Spanned<T>) -> Self {
        Self {
            span: value.span(),
            expected: None,
        }
    }

    fn but_expected(self, expected: &str) -> Self {
        Self {
            expected: Some(expected.to_owned()),
            ..self
        }
    }
}

/// From the least to the most, and 0 besides if that has a meaning of its own.
#[derive(Debug)]
pub struct Bounds<T> {
    least: T,
    most: T,
    zero: Option<&'static str>,
}

/// From `least` to `most`.
pub const fn bounds<T>(least: T, most: T) -> Bounds<T> {
    Bounds {
        least,
        most,
        zero: None,
    }
}

/// From `least` to `most`, or 0, which means `zero`.
pub const fn zero_or<T>(zero: &'static str, least: T, most: T) -> Bounds<T> {
    Bounds {
        least,
        most,
        zero: Some(zero),
    }
}

impl<T: PartialOrd + Default> Bounds<T> {
    fn allow(&self, value: &T) -> bool {
        (self.least <= *value && *value <= self.most)
            || (self.zero.is_some() && *value == T::default())
    }

    fn text(&self, text: impl Fn(&T) -> String) -> String {
        let span = format!("{} to {}", text(&self.least), text(&self.most));
        self.zero
            .map_or(span.clone(), |zero| format!("0 ({zero}), or {span}"))
    }

    /// How 0 can be written, if it is allowed.
    fn off(&self) -> &'static str {
        if self.zero.is_some() {
            ", or \"off\" for 0"
        } else {
            ""
        }
    }
}

fn integer(value: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(value.as_str(), value.radix()).ok()
}

/// A size in bytes: a number, or a string with a binary unit.
pub struct Size;

const UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// The bytes of a size as a person writes it: `64MiB`, `64 MiB`, `67108864`.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits)?;
    let factor = if unit.is_empty() {
        1
    } else {
        UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))?
            .1
    };
    let digits = digits.trim_end();
    // `parse` would take a sign, too.
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// A size in the largest unit that gives a whole number.
pub fn size_text(bytes: u64) -> String {
    let fits = |&&(_, factor): &&(&str, u64)| bytes != 0 && bytes.is_multiple_of(factor);
    let (unit, factor) = UNITS.iter().find(fits).copied().unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

impl Kind for Size {
    type Value = u64;
    type Range = Bounds<u64>;
    const NAME: &'static str = "size in bytes";

    fn parse(value: &Spanned<DeValue<'_>>) -> Result<u64, Malformed> {
        let bytes = match value.get_ref() {
            DeValue::Integer(number) => integer(number),
            DeValue::String(text) => parse_size(text),
            _ => None,
        };
        bytes.ok_or_else(|| Malformed::at(value))
    }

    fn text(value: &u64) -> String {
        size_text(*value)
    }

    fn toml(value: &Self::Value) -> Option<String> {
        Some(format!("\"{}\"", Self::text(value)))
    }

    fn allows(range: &Self::Range, value: &u64) -> bool {
        range.allow(value)
    }

    fn allowed(range: &Self::Range) -> String {
        range.text(|bytes| size_text(*bytes))
    }

    fn expected(range: &Self::Range) -> String {
        format!(
            "a number of bytes, or a string like \"64MiB\" (B, KiB, MiB, GiB, TiB): {}",
            Self::allowed(range)
        )
    }
}

/// A whole number.
pub struct Count<N>(PhantomData<N>);

/// A type of whole numbers that a setting can have.
pub trait Number: Copy + Default + PartialOrd + ToString + TryFrom<u64> {
    /// The kind in a word.
    const NAME: &'static str = "number";
}

impl Number for u8 {
    const NAME: &'static str = "percent";
}
impl Number for u32 {}
impl Number for usize {}

impl<N: Number> Kind for Count<N> {
    type Value = N;
    type Range = Bounds<N>;
    const NAME: &'static str = N::NAME;

    fn parse(value: &Spanned<DeValue<'_>>) -> Result<N, Malformed> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => integer(number).and_then(|number| N::try_from(number).ok()),
            DeValue::String(text) if text == "off" => Some(N::default()),
            _ => None,
        };
        number.ok_or_else(|| Malformed::at(value))
    }

    fn text(value: &N) -> String {
        value.to_string()
    }

    fn allows(range: &Self::Range, value: &N) -> bool {
        range.allow(value)
    }

    fn allowed(range: &Self::Range) -> String {
        range.text(N::to_string)
    }

    fn expected(range: &Self::Range) -> String {
        format!("a whole number{}: {}", range.off(), Self::allowed(range))
    }
}

/// A span of time, as humans write it.
pub struct Time;

fn duration(value: &Spanned<DeValue<'_>>) -> Result<Duration, Malformed> {
    let duration = match value.get_ref() {
        DeValue::String(text) if text == "off" => Some(Duration::ZERO),
        DeValue::String(text) => humantime::parse_duration(text).ok(),
        // Of all numbers 0 alone needs no unit.
        DeValue::Integer(number) if integer(number) == Some(0) => Some(Duration::ZERO),
        _ => None,
    };
    duration.ok_or_else(|| Malformed::at(value))
}

fn duration_text(duration: &Duration) -> String {
    humantime::format_duration(*duration).to_string()
}

impl Kind for Time {
    type Value = Duration;
    type Range = Bounds<Duration>;
    const NAME: &'static str = "duration";

    fn parse(value: &Spanned<DeValue<'_>>) -> Result<Duration, Malformed> {
        duration(value)
    }

    fn text(value: &Duration) -> String {
        duration_text(value)
    }

    fn toml(value: &Self::Value) -> Option<String> {
        Some(format!("\"{}\"", Self::text(value)))
    }

    fn allows(range: &Self::Range, value: &Duration) -> bool {
        range.allow(value)
    }

    fn allowed(range: &Self::Range) -> String {
        range.text(duration_text)
    }

    fn expected(range: &Self::Range) -> String {
        format!(
            "a duration with its unit, like \"500ms\"{}: {}",
            range.off(),
            Self::allowed(range)
        )
    }
}

/// Yes or no.
pub struct Switch;

impl Kind for Switch {
    type Value = bool;
    type Range = ();
    const NAME: &'static str = "switch";

    fn parse(value: &Spanned<DeValue<'_>>) -> Result<bool, Malformed> {
        value
            .get_ref()
            .as_bool()
            .ok_or_else(|| Malformed::at(value))
    }

    fn text(value: &bool) -> String {
        value.to_string()
    }

    fn allows((): &(), _: &bool) -> bool {
        true
    }

    fn allowed((): &()) -> String {
        "true, false".to_owned()
    }

    fn expected((): &()) -> String {
        "true or false".to_owned()
    }
}
