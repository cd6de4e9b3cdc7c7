//! Scans: records in order, read in portions, with what the transaction itself has written.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::{Bound, ControlFlow};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;

use super::attempt::{Node, table_ref, too_much};
use super::error::OpError;
use super::fetched::Fetched;
use super::isolation::Isolation;
use super::ops::Txn;
use crate::env::RawTable;
use crate::error::{Site, TxnError};
use crate::locks::{Mode, Object};
use crate::txn::sets::{Content, RangeId, Span, Visible};

type Entry = (Box<[u8]>, Box<[u8]>);
type Record<KC, DC> = (Fetched<KC>, Fetched<DC>);
type Fetch = Pin<Box<dyn Future<Output = Result<Fetching, TxnError>> + Send>>;

/// How many records the first portion of a scan has; each further one has twice as many, up to a bound.
const FIRST_PORTION: usize = 16;
const LARGEST_PORTION: usize = 256;
/// A portion ends with the record that makes it larger than this, in bytes.
const PORTION_BYTES: usize = 256 << 10;

/// The keys of a scan.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub from: Bound<Box<[u8]>>,
    pub to: Bound<Box<[u8]>>,
}

impl Keys {
    /// Those that begin with these bytes.
    pub(super) fn prefix(prefix: &[u8]) -> Self {
        // The first key after all of them: the prefix without its trailing 0xff, and one more.
        let last = prefix.iter().rposition(|byte| *byte < u8::MAX);
        let to = match last.and_then(|last| prefix.get(..=last)) {
            Some(end) => {
                let mut end = end.to_vec();
                if let Some(byte) = end.last_mut() {
                    *byte += 1;
                }
                Bound::Excluded(end.into())
            }
            None => Bound::Unbounded,
        };
        Self {
            from: Bound::Included(prefix.into()),
            to,
        }
    }

    /// What is locked for them: the range in the default order; of another order nobody knows the gaps, so everything. `None`
    /// if no key can be among them.
    fn object(&self, table: &RawTable) -> Option<Object> {
        match table.is_byte_order() {
            true => Object::range(
                Arc::clone(table.name()),
                (self.from.clone(), self.to.clone()),
            )
            .ok(),
            false => Some(Object::whole(Arc::clone(table.name()))),
        }
    }

    fn span(self, table: &RawTable, reverse: bool) -> Span {
        Span {
            table: table_ref(table),
            from: self.from,
            to: self.to,
            reverse,
        }
    }
}

/// The records of a range, one after the other; made with [`Txn::scan`].
///
/// It reads in portions and holds no LMDB snapshot between them. What the transaction writes ahead of it is seen; what is
/// written behind it is not. It is a [`Stream`] too. After its first error it has ended.
#[must_use = "a scan reads nothing until it is asked for records"]
pub struct Scan<KC, DC> {
    node: Arc<Node>,
    /// Until the first portion: what to scan, or why that cannot be done.
    plan: Option<Result<Plan, TxnError>>,
    reverse: bool,
    content: Content,
    ready: VecDeque<Entry>,
    fetching: Option<Fetch>,
    at: Option<Box<Position>>,
    /// Where `ready` comes from.
    portion: Option<Box<Portion>>,
    /// The key of the record of this portion that was answered last.
    last: Option<Vec<u8>>,
    site: Site,
    codecs: PhantomData<fn() -> (KC, DC)>,
}

struct Plan {
    table: RawTable,
    keys: Keys,
}

/// Where a scan stands.
struct Position {
    node: Arc<Node>,
    table: RawTable,
    /// What is left of the range.
    span: Span,
    /// What of it counts when it is compared.
    content: Content,
    portion: usize,
    /// Its entry in the read set.
    range: Option<RangeId>,
    site: Site,
}

/// A portion, and the position behind it unless it was the last.
struct Fetching {
    entries: Vec<Entry>,
    portion: Option<Box<Portion>>,
    next: Option<Box<Position>>,
}

/// What a portion was made of, in case the transaction writes while some of it is at hand.
struct Portion {
    span: Span,
    /// What is committed; `None` if the transaction had written nothing and that is what is at hand.
    base: Option<Vec<Entry>>,
    /// The changes of the writes that are in it.
    changes: u64,
}

impl<KC, DC> Scan<KC, DC> {
    pub(super) fn new(
        txn: Txn,
        table: Result<RawTable, TxnError>,
        keys: Result<Keys, TxnError>,
        site: Site,
    ) -> Self {
        let plan = table.and_then(|table| Ok(Plan { table, keys: keys? }));
        Self {
            node: txn.node,
            plan: Some(plan),
            reverse: false,
            content: Content::Entries,
            ready: VecDeque::new(),
            fetching: None,
            at: None,
            portion: None,
            last: None,
            site,
            codecs: PhantomData,
        }
    }

    /// The same records in reverse order. Only before the first record has been asked for.
    pub fn rev(mut self) -> Self {
        if self.plan.is_some() {
            self.reverse = !self.reverse;
        }
        self
    }

    /// The next record, or `None` at the end.
    ///
    /// # Errors
    ///
    /// See [`OpError`]. After an error the scan has ended.
    #[expect(
        clippy::should_implement_trait,
        reason = "it is the same for an asynchronous sequence"
    )]
    pub fn next(&mut self) -> impl Future<Output = Result<Option<Record<KC, DC>>, OpError>> + Send {
        std::future::poll_fn(|context| self.poll_record(context))
    }

    fn poll_record(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Record<KC, DC>>, OpError>> {
        Poll::Ready(match ready!(self.poll_portion(context)) {
            Ok(true) => Ok(self.ready.pop_front().map(|(key, value)| {
                self.pass(&key);
                (Fetched::new(key), Fetched::new(value))
            })),
            Ok(false) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }

    /// Only keys matter: a value that changes is no change.
    pub(super) fn keys_only(mut self) -> Self {
        self.content = Content::Keys;
        self
    }

    /// Passes over the records that are at hand; answers how many they were, or `None` at the end.
    pub(super) async fn skip_portion(&mut self) -> Result<Option<u64>, OpError> {
        match std::future::poll_fn(|context| self.poll_portion(context)).await? {
            true => {
                if let Some((key, _)) = self.ready.pop_back() {
                    self.pass(&key);
                }
                let count = self.ready.len() as u64 + 1;
                self.ready.clear();
                Ok(Some(count))
            }
            false => Ok(None),
        }
    }

    /// True when there is a record at hand, false at the end.
    fn poll_portion(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, TxnError>> {
        let was_whole = self.fetching.is_none();
        let polled = self.poll_usable_portion(context);
        // While a child is open it only waits.
        let waits = matches!(polled, Poll::Ready(Err(TxnError::ChildOpen)));
        if let Poll::Ready(Err(_)) = &polled
            && !(waits && was_whole)
        {
            (self.plan, self.at, self.fetching) = (None, None, None);
            self.portion = None;
            self.ready.clear();
        }
        polled
    }

    /// The record with this key is answered.
    fn pass(&mut self, key: &[u8]) {
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
    }

    /// Brings what is at hand up to date with what the transaction has written since.
    fn refresh(&mut self) {
        let Some(portion) = &mut self.portion else {
            return;
        };
        let state = self.node.attempt.state();
        if state.changes() == portion.changes {
            return;
        }
        portion.changes = state.changes();
        let mut base = match portion.base.take() {
            Some(base) => base,
            None => self.ready.drain(..).collect(),
        };
        let mut span = portion.span.clone();
        if let Some(last) = &self.last {
            let order = span.table.order;
            base.retain(|(key, _)| match span.reverse {
                true => order(key, last).is_lt(),
                false => order(key, last).is_gt(),
            });
            *span.near() = Bound::Excluded(last.as_slice().into());
        }
        portion.base = Some(base.clone());
        let seen = state.sets.overlay(span, base, true);
        self.ready = seen.entries.into_iter().map(entry).collect();
    }

    fn poll_usable_portion(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, TxnError>> {
        // A transaction that is dead has nothing to show any more, also not what was read before.
        if self.fetching.is_none() {
            self.node.check()?;
            self.refresh();
        }
        loop {
            if !self.ready.is_empty() {
                return Poll::Ready(Ok(true));
            }
            if let Some(fetching) = &mut self.fetching {
                let fetched = ready!(fetching.as_mut().poll(context));
                self.fetching = None;
                let fetched = fetched?;
                self.ready.extend(fetched.entries);
                (self.portion, self.last) = (fetched.portion, None);
                self.at = fetched.next;
                continue;
            }
            if let Some(plan) = self.plan.take() {
                let Plan { table, keys } = plan?;
                let object = keys.object(&table);
                let begin = Position {
                    node: Arc::clone(&self.node),
                    span: keys.span(&table, self.reverse),
                    table,
                    content: self.content,
                    portion: FIRST_PORTION,
                    range: None,
                    site: self.site,
                };
                self.fetching = Some(Box::pin(Box::new(begin).begin(object)));
            } else if let Some(at) = self.at.take() {
                self.fetching = Some(Box::pin(at.fetch()));
            } else {
                self.portion = None;
                return Poll::Ready(Ok(false));
            }
        }
    }
}

impl Position {
    /// Takes the locks of the range, and reads the first portion.
    async fn begin(mut self: Box<Self>, object: Option<Object>) -> Result<Fetching, TxnError> {
        let isolation = self.node.attempt.start.isolation;
        if isolation == Isolation::Serializable {
            let Some(object) = object else {
                // No key can be in the range.
                return Ok(Fetching {
                    entries: Vec::new(),
                    portion: None,
                    next: None,
                });
            };
            self.node.lock(&object, Mode::Read, self.site).await?;
        }
        if isolation.compares_ranges() {
            let mut state = self.node.attempt.state();
            state.usable(self.node.id)?;
            let range = state.sets.begin_range(self.span.clone(), self.content);
            self.range = Some(range.map_err(too_much)?);
        }
        self.fetch().await
    }

    async fn fetch(mut self: Box<Self>) -> Result<Fetching, TxnError> {
        let (mut base, is_last) = self.read().await?;
        if self.node.attempt.start.isolation == Isolation::RepeatableRead {
            self.lock_each(&mut base).await?;
        }
        let mut state = self.node.attempt.state();
        state.usable(self.node.id)?;
        if let Some(range) = self.range {
            for (key, value) in &base {
                state.sets.extend_range(range, key, value);
            }
            if is_last {
                state.sets.end_range(range);
            }
        }
        let mut portion = Box::new(Portion {
            span: self.span.clone(),
            base: (!state.sets.is_read_only()).then(|| base.clone()),
            changes: state.changes(),
        });
        let reached = base.last().map(|(key, _)| key.clone());
        let seen = state.sets.overlay(self.span.clone(), base, is_last);
        let entries = seen.entries.into_iter().map(entry);
        let (entries, rest) = (entries.collect(), seen.rest);
        drop(state);
        let portion = match (is_last, reached) {
            (true, _) => Some(portion),
            (false, Some(key)) => {
                *portion.span.far() = Bound::Included(key);
                Some(portion)
            }
            (false, None) => None,
        };
        let next = rest.map(|rest| {
            self.span = rest;
            self.portion = (self.portion * 2).min(LARGEST_PORTION);
            self
        });
        Ok(Fetching {
            entries,
            portion,
            next,
        })
    }

    /// The next records that are committed, and whether they are the last.
    async fn read(&self) -> Result<(Vec<Entry>, bool), TxnError> {
        let (table, span) = (self.table.clone(), self.span.clone());
        let most = self.portion;
        let read = move |txn: &crate::env::ReadTxn<'_>| {
            let (mut entries, mut bytes) = (Vec::<Entry>::with_capacity(most), 0);
            let mut is_last = true;
            let (from, to) = (as_slice(&span.from), as_slice(&span.to));
            table.walk(txn, from, to, span.reverse, &mut |key, value| {
                if entries.len() >= most || bytes >= PORTION_BYTES {
                    is_last = false;
                    return ControlFlow::Break(());
                }
                bytes += key.len() + value.len();
                entries.push((key.into(), value.into()));
                ControlFlow::Continue(())
            })?;
            Ok((entries, is_last))
        };
        let read = self.node.attempt.read(read).await?;
        let (snapshot, mark) = (read.snapshot, read.mark);
        self.node.attempt.state().read_from(snapshot, mark);
        Ok(read.value)
    }

    /// Locks the records that were met, and reads them again under their locks. Those that are gone by then are left out.
    async fn lock_each(&self, base: &mut Vec<Entry>) -> Result<(), TxnError> {
        let mut locked = Vec::with_capacity(base.len());
        for (key, _) in base.drain(..) {
            let object = Node::record(&self.table, &key);
            self.node.lock(&object, Mode::Read, self.site).await?;
            let value = self.node.fetch(&self.table, &key, true).await?;
            locked.extend(value.map(|value| (key, value)));
        }
        *base = locked;
        Ok(())
    }
}

impl Txn {
    pub(super) async fn clear_keys(
        &self,
        table: RawTable,
        keys: Keys,
        site: Site,
    ) -> Result<(), OpError> {
        let node = &self.node;
        let Some(object) = keys.object(&table) else {
            return Ok(node.check()?);
        };
        node.lock(&object, Mode::Write, site).await?;
        if node.attempt.start.isolation == Isolation::Snapshot {
            // What the snapshot has there has to be there still at the commit.
            let span = keys.clone().span(&table, false);
            let range = {
                let mut state = node.attempt.state();
                state.usable(node.id)?;
                state.sets.begin_range(span.clone(), Content::Entries)
            };
            let mut at = Some(Box::new(Position {
                node: Arc::clone(node),
                table: table.clone(),
                span,
                content: Content::Entries,
                portion: LARGEST_PORTION,
                range: Some(range.map_err(too_much)?),
                site,
            }));
            while let Some(position) = at.take() {
                at = position.fetch().await?.next;
            }
        }
        let mut state = node.attempt.state();
        state.usable(node.id)?;
        state.changed();
        let cleared = state.sets.clear(table_ref(&table), keys.from, keys.to);
        Ok(cleared.map_err(too_much)?)
    }
}

impl<KC, DC> Stream for Scan<KC, DC> {
    type Item = Result<Record<KC, DC>, OpError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut()
            .poll_record(context)
            .map(|record| record.transpose())
    }
}

impl<KC, DC> fmt::Debug for Scan<KC, DC> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("reverse", &self.reverse)
            .finish_non_exhaustive()
    }
}

fn entry(seen: Visible<'_, Box<[u8]>, Box<[u8]>>) -> Entry {
    match seen {
        Visible::Base(key, value) => (key, value),
        Visible::Own(key, value) => (key.into(), value.into()),
    }
}

pub(super) fn as_slice(bound: &Bound<Box<[u8]>>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| &**key)
}
