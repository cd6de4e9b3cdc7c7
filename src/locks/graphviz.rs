//! Conflicts and snapshots as graphs, in the language of Graphviz.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{ConflictKind, LockConflict, LockerId, Party};

/// A graph that is put together edge by edge.
#[derive(Default)]
pub(super) struct Graph {
    nodes: BTreeMap<LockerId, String>,
    edges: Vec<String>,
}

impl Graph {
    pub(super) fn node(&mut self, locker: LockerId, label: &str) {
        self.nodes.entry(locker).or_insert_with(|| label.to_owned());
    }

    pub(super) fn edge(&mut self, from: LockerId, to: LockerId, label: &str, held: bool) {
        let style = if held { "solid" } else { "dashed" };
        let label = quoted(label);
        self.edges.push(format!(
            "  l{from} -> l{to} [label={label}, style={style}];"
        ));
    }

    pub(super) fn finish(self) -> String {
        let mut text = String::from("digraph locks {\n  node [shape=box];\n");
        for (locker, label) in self.nodes {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  l{locker} [label={}];", quoted(&label));
        }
        for edge in self.edges {
            let _ = writeln!(text, "{edge}");
        }
        text.push_str("}\n");
        text
    }
}

/// A text in double quotes, as Graphviz reads it.
fn quoted(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("\"{escaped}\"")
}

/// The waits of one conflict: solid arrows to those who hold, dashed ones to those who came first.
pub(super) fn conflict(conflict: &LockConflict) -> String {
    let mut graph = Graph::default();
    let mut party = |party: &Party| {
        let label = format!("{party}\n{}", party.began);
        graph.node(party.locker, &label);
        party.locker
    };
    let asker = party(&conflict.asker);
    let mut edges = Vec::new();
    for step in &conflict.cycle {
        let (from, to) = (party(&step.waiter), party(&step.blocker));
        edges.push((
            from,
            to,
            step.waiter.mode,
            step.object.to_string(),
            step.held,
        ));
    }
    if conflict.cycle.is_empty() {
        let object = conflict.object.to_string();
        for owner in &conflict.owners {
            edges.push((asker, party(owner), conflict.mode(), object.clone(), true));
        }
        let is_late = conflict.kind != ConflictKind::HeldTooLong;
        for first in conflict
            .waiters
            .iter()
            .filter(|one| is_late && one.in_the_way)
        {
            edges.push((asker, party(first), conflict.mode(), object.clone(), false));
        }
        if conflict.kind == ConflictKind::HeldTooLong {
            for waiter in &conflict.waiters {
                edges.push((party(waiter), asker, waiter.mode, object.clone(), true));
            }
        }
    }
    for (from, to, mode, object, held) in edges {
        graph.edge(from, to, &format!("{mode} {object}"), held);
    }
    graph.finish()
}
