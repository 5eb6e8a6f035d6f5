//! Nodes that belong together, and their directory.

use anyhow::{Context, Result};

use crate::home::Home;
use crate::node::Node;

/// Tries to start, on other ports: one that was free a moment ago may be taken by then.
const TRIES: u32 = 3;

/// One or three running nodes. Dropping it kills them and removes their files.
pub struct Cluster {
    // Before the directory, so that they are gone when it is removed.
    pub(crate) nodes: Vec<Node>,
    pub(crate) home: Home,
    /// Whether the others need the first one to be up when they start.
    pub(crate) first_leads: bool,
}

impl Cluster {
    /// Where clients connect to: `host:port` of each node.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|n| n.address.clone()).collect()
    }

    /// Each node.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Node `index`, from 0.
    ///
    /// # Panics
    /// If there is none.
    pub fn node(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }

    /// Ends every node politely and removes the files.
    pub fn shutdown(mut self) -> Result<()> {
        self.nodes.iter_mut().try_for_each(Node::shutdown)
    }

    /// Starts all nodes at once, but for a first one that leads, and waits for each.
    fn run(mut self) -> Result<Self> {
        if self.first_leads {
            self.nodes[0].spawn()?;
            self.nodes[0].wait_ready()?;
        }
        for node in self.nodes.iter_mut().skip(usize::from(self.first_leads)) {
            node.spawn()?;
        }
        for node in &mut self.nodes {
            node.wait_ready()?;
        }
        Ok(self)
    }
}

/// Runs what `prepare` makes ready in a new directory, a few times if need be.
pub(crate) fn start(kind: &str, prepare: impl Fn(Home) -> Result<Cluster>) -> Result<Cluster> {
    let mut tries = 1;
    loop {
        let started = Home::create(kind).and_then(&prepare).and_then(Cluster::run);
        match started {
            Err(error) if tries < TRIES && was_unlucky(&error) => tries += 1,
            other => return other.with_context(|| format!("cannot start {kind}")),
        }
    }
}

/// A port was lost, or a node did not find its seed in time.
fn was_unlucky(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    let unlucky = [
        "Address already in use",
        "BindException",
        "Unable to gossip",
    ];
    unlucky.iter().any(|said| text.contains(said))
}
