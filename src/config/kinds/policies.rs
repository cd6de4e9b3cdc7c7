//! The kinds that are policies: in the file a word or a table, from code perhaps a function.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Kind, Malformed, Size, duration, duration_text, size_text};
use crate::backoff::{Backoff, Delay};
use crate::config::Growth;

/// How the map grows.
pub struct GrowthPolicy;

impl Kind for GrowthPolicy {
    type Value = Growth;
    type Range = ();
    const NAME: &'static str = "policy";

    fn parse(value: &Spanned<DeValue<'_>>) -> Result<Growth, Malformed> {
        match value.get_ref() {
            DeValue::String(word) if word == "fixed" => Ok(Growth::Fixed),
            DeValue::String(word) if word == "doubling" => Ok(Growth::Doubling),
            DeValue::Table(table) => {
                let [step] = members(value, table, ["step"])?;
                Size::parse(step)
                    .map(Growth::Step)
                    .map_err(|e| e.but_expected("a size like \"64MiB\""))
            }
            _ => Err(Malformed::at(value)),
        }
    }

    fn text(value: &Growth) -> String {
        match value {
            Growth::Fixed => "\"fixed\"".to_owned(),
            Growth::Doubling => "\"doubling\"".to_owned(),
            Growth::Step(step) => format!("{{step = \"{}\"}}", size_text(*step)),
            Growth::Function(_) => "a function".to_owned(),
        }
    }

    fn toml(value: &Growth) -> Option<String> {
        (!matches!(value, Growth::Function(_))).then(|| Self::text(value))
    }

    fn allows((): &(), value: &Growth) -> bool {
        !matches!(value, Growth::Step(0))
    }

    fn allowed((): &()) -> String {
        "\"fixed\", \"doubling\", {step = \"64MiB\"} with a step of 1B or more; a function from code".to_owned()
    }

    fn expected((): &()) -> String {
        "\"fixed\", \"doubling\" or {step = \"64MiB\"} with a step of 1B or more".to_owned()
    }
}

/// A randomised exponential delay.
pub struct Randomised;

/// The longest delay that a backoff may have.
const LONGEST_BACKOFF: Duration = Duration::from_secs(3600);
const LARGEST_FACTOR: f64 = 1000.0;

impl Kind for Randomised {
    type Value = Backoff;
    type Range = ();
    const NAME: &'static str = "backoff";

    fn parse(value: &Spanned<DeValue<'_>>) -> Result<Backoff, Malformed> {
        let DeValue::Table(table) = value.get_ref() else {
            return Err(Malformed::at(value));
        };
        let [base, max, factor] = members(value, table, ["base", "max", "factor"])?;
        let time = |value| {
            duration(value).map_err(|e| e.but_expected("a duration with its unit, like \"5ms\""))
        };
        let number = match factor.get_ref() {
            DeValue::Integer(number) => number.as_str().parse().ok(),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| Malformed::at(factor).but_expected("a number"))?;
        Ok(Backoff::new(time(base)?, time(max)?, number))
    }

    fn text(value: &Backoff) -> String {
        let (base, max) = (duration_text(&value.base), duration_text(&value.max));
        format!(
            "{{base = \"{base}\", max = \"{max}\", factor = {}}}",
            value.factor
        )
    }

    fn allows((): &(), value: &Backoff) -> bool {
        value.base <= value.max
            && value.max <= LONGEST_BACKOFF
            && (1.0..=LARGEST_FACTOR).contains(&value.factor)
    }

    fn allowed((): &()) -> String {
        let longest = duration_text(&LONGEST_BACKOFF);
        format!("base up to max, max up to {longest}, factor 1 to {LARGEST_FACTOR}")
    }

    fn expected((): &()) -> String {
        format!(
            "{{base = \"1ms\", max = \"100ms\", factor = 2}}: {}",
            Self::allowed(&())
        )
    }
}

/// A delay that may also be a function.
pub struct DelayPolicy;

impl Kind for DelayPolicy {
    type Value = Delay;
    type Range = ();
    const NAME: &'static str = "backoff";

    fn parse(value: &Spanned<DeValue<'_>>) -> Result<Delay, Malformed> {
        Randomised::parse(value).map(Delay::Backoff)
    }

    fn text(value: &Delay) -> String {
        match value {
            Delay::Backoff(backoff) => Randomised::text(backoff),
            Delay::Function(_) => "a function".to_owned(),
        }
    }

    fn toml(value: &Delay) -> Option<String> {
        (!matches!(value, Delay::Function(_))).then(|| Self::text(value))
    }

    fn allows((): &(), value: &Delay) -> bool {
        match value {
            Delay::Backoff(backoff) => Randomised::allows(&(), backoff),
            Delay::Function(_) => true,
        }
    }

    fn allowed((): &()) -> String {
        format!("{}; a function from code", Randomised::allowed(&()))
    }

    fn expected((): &()) -> String {
        Randomised::expected(&())
    }
}

/// The members of a table that must have exactly these.
fn members<'a, 'i, const N: usize>(
    whole: &Spanned<DeValue<'i>>,
    table: &'a DeTable<'i>,
    names: [&'static str; N],
) -> Result<[&'a Spanned<DeValue<'i>>; N], Malformed> {
    let expected = format!("{} and nothing else", names.join(", "));
    if let Some((unknown, _)) = table
        .iter()
        .find(|(name, _)| !names.contains(&name.get_ref().as_ref()))
    {
        return Err(Malformed::at(unknown).but_expected(&expected));
    }
    let found: Option<Vec<_>> = names.iter().map(|name| table.get(*name)).collect();
    let missing = || Malformed::at(whole).but_expected(&expected);
    found
        .and_then(|found| found.try_into().ok())
        .ok_or_else(missing)
}
