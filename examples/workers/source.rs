//! The file: made if need be, and cut into jobs.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Lines, Write};
use std::path::{Path, PathBuf};

use crate::options::Options;

const HEADER: &str = "from,to,amount";
const MADE: &str = "transfers.csv";
const LARGEST: u64 = 10_000;

/// A file of transfers.
#[derive(Clone)]
pub struct Source {
    pub path: PathBuf,
    /// Transfers in it.
    pub lines: u64,
}

/// Some consecutive lines, as they stand in the file: one job.
#[derive(Debug)]
pub struct Chunk {
    /// The number of the first, counted from 1.
    pub first: u64,
    pub lines: Vec<String>,
}

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    pub from: u64,
    pub to: u64,
    /// Cents.
    pub amount: i64,
}

impl Source {
    /// The given file, or one that was made before, or one that is made now.
    pub fn prepare(options: &Options, folder: &Path) -> Result<Self, Box<dyn Error>> {
        let path = match &options.file {
            Some(given) => given.clone(),
            None => {
                let path = folder.join(MADE);
                if !path.is_file() {
                    make(&path, options.lines, options.accounts)?;
                }
                path
            }
        };
        let mut source = Self { path, lines: 0 };
        source.lines = source
            .count()
            .map_err(|error| format!("cannot read {}: {error}", source.path.display()))?;
        Ok(source)
    }

    fn count(&self) -> io::Result<u64> {
        let mut file = BufReader::with_capacity(1 << 20, File::open(&self.path)?);
        let (mut lines, mut ends_open) = (0_u64, false);
        loop {
            let part = file.fill_buf()?;
            let Some(last) = part.last() else { break };
            ends_open = *last != b'\n';
            lines += part
                .iter()
                .map(|byte| u64::from(*byte == b'\n'))
                .sum::<u64>();
            let len = part.len();
            file.consume(len);
        }
        Ok((lines + u64::from(ends_open)).saturating_sub(1))
    }

    /// The lines of the file, after its names.
    pub fn lines(&self) -> io::Result<Lines<BufReader<File>>> {
        let mut lines = BufReader::with_capacity(1 << 20, File::open(&self.path)?).lines();
        match lines.next().transpose()? {
            Some(header) if header.trim() == HEADER => Ok(lines),
            _ => Err(io::Error::other(format!(
                "the first line is not {HEADER:?}"
            ))),
        }
    }

    /// The file, so many lines at a time.
    pub fn chunks(
        &self,
        lines_per_job: u64,
    ) -> io::Result<impl Iterator<Item = io::Result<Chunk>> + use<>> {
        let mut lines = self.lines()?;
        let size = usize::try_from(lines_per_job).unwrap_or(usize::MAX);
        let mut first = 1;
        Ok(std::iter::from_fn(move || {
            let chunk = lines.by_ref().take(size).collect::<io::Result<Vec<_>>>();
            let chunk = chunk.map(|lines| Chunk { first, lines });
            first += lines_per_job;
            match chunk {
                Ok(chunk) if chunk.lines.is_empty() => None,
                chunk => Some(chunk),
            }
        }))
    }
}

impl Transfer {
    /// What stands in a line.
    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line.trim_end().split(',');
        let transfer = Self {
            from: fields.next()?.parse().ok()?,
            to: fields.next()?.parse().ok()?,
            amount: fields.next()?.parse().ok()?,
        };
        fields.next().is_none().then_some(transfer)
    }
}

/// Whole, or not at all: what is being made has another name.
fn make(path: &Path, lines: u64, accounts: u64) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&part)?);
    writeln!(file, "{HEADER}")?;
    for line in 0..lines {
        let random = mix(line);
        let from = random % accounts;
        // Never to itself.
        let to = (from + 1 + (random >> 20) % (accounts - 1)) % accounts;
        let amount = 1 + (random >> 40) % LARGEST;
        writeln!(file, "{from},{to},{amount}")?;
    }
    file.into_inner()?.sync_all()?;
    std::fs::rename(part, path)
}

/// Numbers that look random, the same in each run (splitmix64).
pub fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
