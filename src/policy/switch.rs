//! Nodes change to new activations together: each gets ready, says so, and the first one that sees all of them
//! ready writes the switch, which all follow. A node that is not ready in time is named and left behind.

use std::time::Duration;

use super::NodeState;
use crate::clock::UnixTime;

/// How long the nodes that are ready wait for those that are not.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// A node that said nothing for so long is not waited for.
pub const LIVE: Duration = Duration::from_secs(30);

/// Activations up to a number came into force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// Up to this one.
    pub seq: i64,
    /// When.
    pub at: UnixTime,
    /// The node that found it due.
    pub node: String,
    /// Nodes that were not ready, and were not waited for any longer.
    pub laggards: Vec<Laggard>,
}

/// A node that was not ready.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Laggard {
    /// The node.
    pub node: String,
    /// Up to which activation it was.
    pub ready: i64,
    /// What it said of the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What `own`, one of the nodes, finds due now: up to which activation, and without whom. `switched` is what is in
/// force, `waited` how long it has seen something newer.
#[must_use]
pub fn due(
    own: &str,
    nodes: &[NodeState],
    switched: i64,
    waited: Duration,
    now: UnixTime,
) -> Option<(i64, Vec<Laggard>)> {
    let ready = nodes.iter().find(|node| node.node == own)?.ready;
    let live = || nodes.iter().filter(|node| node.node == own || now.since(node.seen_at) <= LIVE);
    let joint = live().map(|node| node.ready).min()?;
    if joint > switched {
        return Some((joint, Vec::new()));
    }
    if ready <= switched || waited < PATIENCE {
        return None;
    }
    let late = live().filter(|node| node.ready < ready);
    let named = late.map(|n| Laggard { node: n.node.clone(), ready: n.ready, error: n.error.clone() });
    Some((ready, named.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_000_000);

    fn node(name: &str, ready: i64, silent_s: i64) -> NodeState {
        let seen_at = UnixTime::from_secs(NOW.as_secs() - silent_s);
        NodeState { node: name.to_owned(), seq: 4, ready, error: None, seen_at }
    }

    fn due_after(waited_s: u64, nodes: &[NodeState]) -> Option<(i64, Vec<String>)> {
        let due = due("a", nodes, 4, Duration::from_secs(waited_s), NOW);
        due.map(|(seq, laggards)| (seq, laggards.into_iter().map(|l| l.node).collect()))
    }

    #[test]
    fn all_live_nodes_are_waited_for_and_no_longer_than_ten_seconds() {
        let none: Vec<String> = Vec::new();
        assert_eq!(due_after(0, &[node("a", 5, 0)]), Some((5, none.clone())), "alone");
        assert_eq!(due_after(0, &[node("a", 7, 0), node("b", 6, 9)]), Some((6, none.clone())), "as far as all are");
        for (ready, waited, due) in [(4, 0, None), (4, 9, None), (5, 9, Some((5, none.clone())))] {
            assert_eq!(due_after(waited, &[node("a", 5, 0), node("b", ready, 30)]), due, "{ready} {waited}");
        }
        let late = [node("a", 5, 0), node("b", 4, 30), node("c", 5, 0)];
        assert_eq!(due_after(10, &late), Some((5, vec!["b".to_owned()])));
        assert_eq!(
            due_after(0, &[node("a", 5, 0), node("b", 4, 31)]),
            Some((5, none)),
            "a silent one is not waited for"
        );
    }

    #[test]
    fn a_node_that_is_not_ready_itself_switches_nobody() {
        for waited in [0, 10, 1000] {
            assert_eq!(due_after(waited, &[node("a", 4, 0), node("b", 5, 0)]), None);
            assert_eq!(due_after(waited, &[node("b", 5, 0)]), None, "it is not there");
        }
    }
}
