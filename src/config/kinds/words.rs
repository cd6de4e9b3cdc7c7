//! The kind of settings that are one word out of a few.

use std::marker::PhantomData;

use toml::Spanned;
use toml::de::DeValue;

use super::{Kind, Malformed};
use crate::config::{Durability, OnFatal, WhenFull};
use crate::locks::VictimPolicy;

/// One word out of a few.
pub struct Word<W>(PhantomData<W>);

/// A type whose values have names.
pub trait Words: Copy + PartialEq + 'static {
    /// All values with their names.
    const WORDS: &'static [(&'static str, Self)];
}

impl Words for Durability {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("full", Self::Full),
        ("no-meta-sync", Self::NoMetaSync),
        ("no-sync", Self::NoSync),
    ];
}

impl Words for WhenFull {
    const WORDS: &'static [(&'static str, Self)] =
        &[("wait", Self::Wait), ("refuse", Self::Refuse)];
}

impl Words for OnFatal {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("recover", Self::Recover),
        ("wait", Self::Wait),
        ("exit", Self::Exit),
        ("abort", Self::Abort),
    ];
}

impl Words for VictimPolicy {
    const WORDS: &'static [(&'static str, Self)] = &[
        (Self::Default.name(), Self::Default),
        (Self::Expire.name(), Self::Expire),
        (Self::MaxLocks.name(), Self::MaxLocks),
        (Self::MaxWrite.name(), Self::MaxWrite),
        (Self::MinLocks.name(), Self::MinLocks),
        (Self::MinWrite.name(), Self::MinWrite),
        (Self::Oldest.name(), Self::Oldest),
        (Self::Random.name(), Self::Random),
        (Self::Youngest.name(), Self::Youngest),
    ];
}

impl<W: Words> Kind for Word<W> {
    type Value = W;
    type Range = ();
    const NAME: &'static str = "word";

    fn parse(value: &Spanned<DeValue<'_>>) -> Result<W, Malformed> {
        let word = value.get_ref().as_str();
        let found = W::WORDS.iter().find(|(name, _)| word == Some(*name));
        found
            .map(|(_, value)| *value)
            .ok_or_else(|| Malformed::at(value))
    }

    fn text(value: &W) -> String {
        let found = W::WORDS.iter().find(|(_, word)| word == value);
        found.map_or_else(String::new, |(name, _)| format!("\"{name}\""))
    }

    fn allows((): &(), _: &W) -> bool {
        true
    }

    fn allowed((): &()) -> String {
        let names: Vec<_> = W::WORDS
            .iter()
            .map(|(name, _)| format!("\"{name}\""))
            .collect();
        names.join(", ")
    }

    fn expected((): &()) -> String {
        format!("one of {}", Self::allowed(&()))
    }
}
