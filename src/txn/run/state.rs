//! What an attempt of a transaction knows: what it has read and will write, which of its nodes are open, and why it died.

use smallvec::SmallVec;

use crate::env::RawTable;
use crate::error::{LockError, TxnError};
use crate::locks::{Mode, Object};
use crate::txn::sets::{Mark, Sets};

/// The number of a transaction or of a child, within its attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeId(u64);

impl NodeId {
    pub(super) const ROOT: Self = Self(0);
}

/// A transaction or a child that has begun and not ended.
pub(super) struct OpenNode {
    pub id: NodeId,
    /// Of a child: what its writes began with.
    pub began: Option<Mark>,
    /// Of a child that lost a conflict its family has survived.
    dead: Option<Box<TxnError>>,
    /// What it has locked lately, so that a second lock of it costs no look at the table.
    held: SmallVec<[(Object, Mode); 2]>,
}

/// From how many LMDB snapshots was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sources {
    None,
    One(usize),
    Several,
}

pub(super) struct State {
    pub sets: Sets,
    /// The transaction, and its open child, and so on: only the last may be used.
    open: SmallVec<[OpenNode; 1]>,
    nodes: u64,
    dead: Option<Box<TxnError>>,
    /// The number of outside writes before the first read.
    pub outside: Option<u64>,
    pub sources: Sources,
    /// Locks on what was read are gone: no outside write is needed for it to have changed.
    pub must_compare: bool,
    tables: SmallVec<[RawTable; 2]>,
    /// What it was refused last.
    refused: Option<Box<(Object, Mode)>>,
    /// The locks that it is known to have needed when it died: its children may have ended since.
    needed: Vec<(Object, Mode)>,
    /// Grows with each change of the writes, so that scans can tell what they have at hand from what is so now.
    changes: u64,
}

/// Locks that are remembered: more than most transactions take, and few enough to be gone through.
const REMEMBERED: usize = 16;

impl State {
    pub(super) fn new(sets: Sets) -> Self {
        let mut state = Self {
            sets,
            open: SmallVec::new(),
            nodes: 0,
            dead: None,
            outside: None,
            sources: Sources::None,
            must_compare: false,
            tables: SmallVec::new(),
            refused: None,
            needed: Vec::new(),
            changes: 0,
        };
        state.open_node(None);
        state
    }

    fn open_node(&mut self, began: Option<Mark>) -> NodeId {
        let id = NodeId(self.nodes);
        self.nodes += 1;
        self.open.push(OpenNode {
            id,
            began,
            dead: None,
            held: SmallVec::new(),
        });
        id
    }

    /// Opens a child of the node that may be used now.
    pub(super) fn begin_child(&mut self) -> NodeId {
        let mark = self.sets.savepoint();
        self.open_node(Some(mark))
    }

    /// Why the node may not be used, if it may not.
    pub(super) fn usable(&mut self, node: NodeId) -> Result<&mut OpenNode, TxnError> {
        if let Some(dead) = &self.dead {
            return Err(as_dead(dead));
        }
        let Some(at) = self.open.iter().position(|open| open.id == node) else {
            return Err(TxnError::TransactionEnded);
        };
        let is_last = at + 1 == self.open.len();
        match self.open.get_mut(at) {
            Some(open) if is_last => match &open.dead {
                Some(dead) => Err(as_dead(dead)),
                None => Ok(open),
            },
            _ => Err(TxnError::ChildOpen),
        }
    }

    pub(super) fn is_open(&self, node: NodeId) -> bool {
        self.open.iter().any(|open| open.id == node)
    }

    /// Why the attempt is lost, if it is.
    pub(super) fn death(&self) -> Option<&TxnError> {
        self.dead.as_deref()
    }

    /// The node is lost, or with the first of them the whole attempt.
    pub(super) fn die(&mut self, node: NodeId, whole: bool, why: &TxnError) {
        if whole || node == NodeId::ROOT {
            if self.dead.is_none() {
                self.needed = self
                    .held()
                    .chain(self.refused.as_deref())
                    .cloned()
                    .collect();
            }
            self.dead.get_or_insert_with(|| Box::new(why.duplicate()));
        } else if let Some(open) = self.open.iter_mut().find(|open| open.id == node) {
            open.dead.get_or_insert_with(|| Box::new(why.duplicate()));
        }
    }

    /// Takes a child out, with all that it has begun; `None` if it had ended.
    pub(super) fn close(&mut self, node: NodeId) -> Option<OpenNode> {
        let at = self.open.iter().position(|open| open.id == node)?;
        self.open.truncate(at + 1);
        self.open.pop()
    }

    /// What a child had locked is its parent's.
    pub(super) fn inherit(&mut self, child: OpenNode) {
        if let Some(parent) = self.open.last_mut() {
            for held in child.held {
                parent.remember(held);
            }
        }
    }

    /// The writes are not what they were.
    pub(super) fn changed(&mut self) {
        self.changes += 1;
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Nothing may be used any more.
    pub(super) fn end(&mut self) {
        self.open.clear();
    }

    pub(super) fn table(&self, id: u64) -> Option<&RawTable> {
        self.tables.iter().find(|table| table.id() == id)
    }

    pub(super) fn add_table(&mut self, table: RawTable) {
        self.tables.push(table);
    }

    pub(super) fn take_tables(&mut self) -> SmallVec<[RawTable; 2]> {
        std::mem::take(&mut self.tables)
    }

    /// Something was read from that snapshot of LMDB's, after so many outside writes at least.
    pub(super) fn read_from(&mut self, snapshot: usize, mark: u64) {
        // Of several reads that were under way together the earliest counts.
        self.outside = Some(self.outside.map_or(mark, |outside| outside.min(mark)));
        self.sources = match self.sources {
            Sources::None => Sources::One(snapshot),
            Sources::One(same) if same == snapshot => Sources::One(same),
            _ => Sources::Several,
        };
    }

    /// A lock that it needs was refused.
    pub(super) fn refused(&mut self, object: &Object, mode: Mode) {
        self.refused = Some(Box::new((object.clone(), mode)));
    }

    /// The locks that it is known to have needed before it died.
    pub(super) fn needed(&self) -> Vec<(Object, Mode)> {
        self.needed.clone()
    }

    /// Whether it holds what comes after the object in the order in which declared locks are taken.
    pub(super) fn is_beyond(&self, object: &Object) -> bool {
        self.held().any(|(held, _)| held > object)
    }

    fn held(&self) -> impl Iterator<Item = &(Object, Mode)> {
        self.open.iter().flat_map(|open| &open.held)
    }

    /// Whether one of the open nodes is known to hold such a lock. Which mode covers another one the conflict
    /// table of the namespace says, and it may be the application's own.
    pub(super) fn holds(&self, object: &Object, mode: Mode) -> bool {
        self.held()
            .any(|(held, in_mode)| *in_mode == mode && held == object)
    }
}

impl OpenNode {
    pub(super) fn remember(&mut self, held: (Object, Mode)) {
        if self.held.len() < REMEMBERED {
            self.held.push(held);
        }
    }
}

/// What killed a transaction, as each further use of it is told.
fn as_dead(why: &TxnError) -> TxnError {
    match why {
        TxnError::Conflict(error) => TxnError::Conflict(match error.conflict() {
            Some(conflict) => LockError::Dead(conflict.clone()),
            None => error.clone(),
        }),
        why => why.duplicate(),
    }
}
