//! Which lines of the scripts some case ran. An engine of its own: rhai's debugger interface tells every statement,
//! and costs half of the time again, which no sign-in shall pay for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use rhai::debugger::DebuggerCommand;
use rhai::{AST, ASTNode, Engine, Expr, Stmt};

use super::LoadError;
use super::engine::{self, Surroundings};
use super::load::{Snapshot, parse};
use crate::policy::bundle::Bundle;
use crate::policy::check::FileLines;

type Lines = BTreeMap<String, BTreeSet<usize>>;

thread_local! {
    static RAN: RefCell<Lines> = const { RefCell::new(BTreeMap::new()) };
}

/// The engine that tells what it runs: the same calls, the same limits but for the deadline.
static TELLING: LazyLock<Engine> = LazyLock::new(|| {
    let mut engine = engine::without_deadline();
    #[expect(deprecated, reason = "it is not; rhai marks what may change so")]
    engine.register_debugger(
        |_, debugger| debugger,
        |_, _, node, source, position| {
            // The debugger steps over wrappers by itself; blocks and what they end with are no lines of their own.
            if let (Some(source), Some(line)) = (source, position.line())
                && !matches!(node, ASTNode::Stmt(Stmt::Block(_)))
            {
                RAN.with_borrow_mut(|ran| {
                    if !ran.contains_key(source) {
                        ran.insert(source.to_owned(), BTreeSet::new());
                    }
                    if let Some(lines) = ran.get_mut(source) {
                        lines.insert(line);
                    }
                });
            }
            Ok(DebuggerCommand::StepInto)
        },
    );
    engine
});

/// The same policies, run by the engine that tells.
pub(super) fn told(snapshot: &Snapshot) -> Snapshot {
    RAN.take();
    let around = &snapshot.surroundings;
    let (lists, modules) = (Arc::clone(&around.lists), around.modules.clone());
    Snapshot {
        surroundings: Arc::new(Surroundings { lists, modules, engine: &TELLING }),
        id: Arc::clone(&snapshot.id),
        settings: snapshot.settings.clone(),
        reasons: Arc::clone(&snapshot.reasons),
        mapping: snapshot.mapping.clone(),
        risk: snapshot.risk.clone(),
    }
}

/// The lines of every script of the bundle, and those that nothing ran on this thread since [`told`].
///
/// # Errors
/// When a script does not compile.
pub(super) fn lines(snapshot: &Snapshot, bundle: &Bundle) -> Result<Vec<FileLines>, LoadError> {
    let ran = RAN.take();
    let nothing = BTreeSet::new();
    ["lib", "mapping", "risk"]
        .into_iter()
        .flat_map(|folder| bundle.of(folder))
        .map(|(_, name, text)| {
            let lines = statements(&parse(&snapshot.surroundings, name, text)?);
            let never = lines.difference(ran.get(name).unwrap_or(&nothing)).copied().collect();
            Ok(FileLines { file: name.to_owned(), lines: lines.len(), never })
        })
        .collect()
}

/// Lines on which a statement begins, or what an arm of a `switch` gives.
fn statements(ast: &AST) -> BTreeSet<usize> {
    let mut lines = BTreeSet::new();
    ast.walk(&mut |path: &[ASTNode<'_>]| {
        let inside = path.len().checked_sub(2).map(|parent| path[parent]);
        let counts = match path.last() {
            Some(ASTNode::Stmt(Stmt::Noop(_) | Stmt::Block(_) | Stmt::Expr(_)) | ASTNode::Expr(Expr::Stmt(_))) => {
                false
            }
            Some(ASTNode::Stmt(_)) => true,
            Some(ASTNode::Expr(_)) => matches!(inside, Some(ASTNode::Stmt(Stmt::Expr(_) | Stmt::Switch(..)))),
            _ => false,
        };
        if counts && let Some(line) = path.last().and_then(|node| node.position().line()) {
            lines.insert(line);
        }
        true
    });
    lines
}
