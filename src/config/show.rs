//! A configuration as text: the `lockkeeper.toml` that would make it, with where each value came from.

use std::fmt;

use super::Config;

impl fmt::Display for Config {
    /// One line for each setting, as `lockkeeper.toml` has it, with where it came from as a comment; then what other files ask for and
    /// cannot have. Written to a `lockkeeper.toml`, it makes the same configuration again, except for functions, which come from
    /// code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value, source) in self.lines() {
            let line = match value {
                Some(value) => format!("{name} = {value}"),
                None => format!("# {name} is a function"),
            };
            writeln!(f, "{line:WIDTH$} # {source}")?;
        }
        if !self.without_counterpart().is_empty() {
            writeln!(f, "\n# Without a counterpart:")?;
        }
        for one in self.without_counterpart() {
            writeln!(f, "# {one}")?;
        }
        Ok(())
    }
}

/// Where the comments begin: beyond all but the longest lines.
const WIDTH: usize = 36;
