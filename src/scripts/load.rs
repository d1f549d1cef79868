//! From a bundle to a snapshot that is ready to run: everything is compiled here, nothing per sign-in.
//! What two bundles have in common is compiled and kept once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use rhai::{AST, EvalAltResult, Module, Scope};

use super::LoadError;
use super::engine::{ENGINE, Surroundings, guarded};
use super::lists::{List, Lists};
use super::settings::{AllSettings, parse_reasons};
use crate::policy::bundle::Bundle;
use crate::secret::sha256;

/// The default that no tenant can break: it is part of the program.
const SHIPPED_DEFAULT: &str = include_str!("../../policies/risk/_default.rhai");
const SHIPPED_REASONS: &str = include_str!("../../policies/reasons.toml");
/// Where the shipped default says it is.
pub(super) const SHIPPED_NAME: &str = "shipped:risk/_default.rhai";

/// A script with its name.
pub(super) struct Script {
    pub file: Arc<str>,
    pub ast: AST,
    /// Whether it has a `fn token`.
    pub shapes_tokens: bool,
}

/// What stands in for a script that failed.
pub(super) struct Shipped {
    pub script: Script,
    pub reasons: Arc<HashSet<String>>,
    pub surroundings: Arc<Surroundings>,
}

/// The shipped default. A test loads it, so it compiles.
pub(super) static SHIPPED: LazyLock<Shipped> = LazyLock::new(|| {
    let surroundings = Arc::default();
    let script = compile(&surroundings, SHIPPED_NAME, SHIPPED_DEFAULT, "assess", 2);
    let reasons = parse_reasons(SHIPPED_REASONS);
    Shipped {
        script: script.expect("the shipped default compiles"),
        reasons: Arc::new(reasons.expect("the shipped reasons are well-formed")),
        surroundings,
    }
});

/// Everything that one version of the policies needs.
pub(super) struct Snapshot {
    pub id: Arc<str>,
    pub settings: AllSettings,
    pub reasons: Arc<HashSet<String>>,
    pub mapping: HashMap<String, Arc<Script>>,
    pub risk: HashMap<String, Arc<Script>>,
    pub surroundings: Arc<Surroundings>,
}

impl Snapshot {
    /// Compiles a bundle.
    pub fn build(bundle: &Bundle) -> Result<Self, LoadError> {
        let text = |name: &str| bundle.text(name).map_or("", |text| &**text);
        let settings = AllSettings::parse(text("policy.toml"))?;
        let reasons = Arc::new(parse_reasons(text("reasons.toml"))?);
        let surroundings = surroundings(bundle)?;
        let mapping = scripts(&surroundings, bundle, "mapping", "map")?;
        let risk = scripts(&surroundings, bundle, "risk", "assess")?;
        for (scripts, needed) in [(&mapping, "mapping/default.rhai"), (&risk, "risk/_default.rhai")] {
            let stem = needed.split(['/', '.']).nth(1).unwrap_or_default();
            if !scripts.contains_key(stem) {
                return Err(LoadError::new(needed, 0, 0, "is needed and absent"));
            }
        }
        LazyLock::force(&SHIPPED);
        Ok(Self { id: bundle.id().into(), settings, reasons, mapping, risk, surroundings })
    }
}

/// Values by the hash of what they are made of, for as long as somebody holds them.
struct Held<T: ?Sized>(Mutex<HashMap<[u8; 32], Weak<T>>>);

impl<T: ?Sized> Held<T> {
    fn get(&self, key: [u8; 32], make: impl FnOnce() -> Result<Arc<T>, LoadError>) -> Result<Arc<T>, LoadError> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).and_then(Weak::upgrade);
        if let Some(held) = held {
            return Ok(held);
        }
        let made = make()?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, weak| weak.strong_count() > 0);
        all.insert(key, Arc::downgrade(&made));
        Ok(made)
    }
}

static SCRIPTS: LazyLock<Held<Script>> = LazyLock::new(|| Held(Mutex::default()));
static AROUND: LazyLock<Held<Surroundings>> = LazyLock::new(|| Held(Mutex::default()));

fn hash<'a>(parts: impl Iterator<Item = &'a str>) -> [u8; 32] {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&(part.len() as u64).to_be_bytes());
        all.extend_from_slice(part.as_bytes());
    }
    sha256(&all)
}

fn surroundings(bundle: &Bundle) -> Result<Arc<Surroundings>, LoadError> {
    let shared_default = |stem: &str| stem == "_default";
    let helpers = || {
        let lib = bundle.of("lib").map(|(stem, name, text)| (format!("lib/{stem}"), name, &**text));
        let default = bundle.of("risk").filter(|(stem, ..)| shared_default(stem));
        lib.chain(default.map(|(_, name, text)| ("risk/_default".to_owned(), name, &**text)))
    };
    let texts = helpers().flat_map(|(_, name, text)| [name, text]);
    let lists = bundle.of("lists").flat_map(|(_, name, text)| [name, &**text]);
    AROUND.get(hash(texts.chain(lists)), || {
        let lists: BTreeMap<_, _> =
            bundle.of("lists").map(|(stem, _, text)| (stem.to_owned(), List::parse(text))).collect();
        let lists: Lists = Arc::new(lists.into_iter().collect());
        resolve(lists, helpers().collect()).map(Arc::new)
    })
}

fn scripts(
    surroundings: &Arc<Surroundings>,
    bundle: &Bundle,
    folder: &str,
    entry: &str,
) -> Result<HashMap<String, Arc<Script>>, LoadError> {
    bundle
        .of(folder)
        .map(|(stem, name, text)| {
            let make = || compile(surroundings, name, text, entry, 2).map(Arc::new);
            Ok((stem.to_owned(), SCRIPTS.get(hash([name, &**text].into_iter()), make)?))
        })
        .collect()
}

fn compile(
    surroundings: &Arc<Surroundings>,
    name: &str,
    text: &str,
    entry: &str,
    arguments: usize,
) -> Result<Script, LoadError> {
    let ast = parse(surroundings, name, text)?;
    let found = ast.iter_functions().find(|f| f.name == entry);
    match found {
        Some(function) if function.params.len() == arguments => {}
        Some(_) => {
            return Err(LoadError::new(name, 0, 0, format!("fn {entry} takes {arguments} arguments")));
        }
        None => return Err(LoadError::new(name, 0, 0, format!("has no fn {entry}"))),
    }
    let token = ast.iter_functions().find(|f| entry == "assess" && f.name == "token").map(|f| f.params.len());
    if token.is_some_and(|parameters| parameters != 3) {
        return Err(LoadError::new(name, 0, 0, "fn token takes 3 arguments: token(s, d, token)"));
    }
    Ok(Script { file: name.into(), ast, shapes_tokens: token.is_some() })
}

/// Compiled with an empty scope: a value that stood in it would be folded into shared code.
pub(super) fn parse(surroundings: &Arc<Surroundings>, name: &str, text: &str) -> Result<AST, LoadError> {
    let compiled = guarded(name, surroundings, || ENGINE.compile(text).map_err(Into::into));
    let mut ast = compiled.map_err(LoadError::from)?;
    ast.set_source(name);
    Ok(ast)
}

/// Evaluates helpers until all that they import is there. What imports itself, or nothing that exists,
/// never gets ready.
fn resolve(lists: Lists, helpers: Vec<(String, &str, &str)>) -> Result<Surroundings, LoadError> {
    let mut modules: HashMap<String, rhai::Shared<Module>> = HashMap::new();
    let mut waiting = helpers;
    while !waiting.is_empty() {
        let mut later = Vec::new();
        let mut missing = None;
        let before = waiting.len();
        for (path, name, text) in waiting {
            let around = Arc::new(Surroundings {
                lists: Arc::clone(&lists),
                modules: modules.clone(),
                ..Surroundings::default()
            });
            let ast = parse(&around, name, text)?;
            let evaluated = guarded(name, &around, || match Module::eval_ast_as_new(Scope::new(), &ast, &ENGINE) {
                Ok(module) => Ok(Some(module)),
                Err(error) if matches!(error.unwrap_inner(), EvalAltResult::ErrorModuleNotFound(..)) => Ok(None),
                Err(error) => Err(error),
            })
            .map_err(LoadError::from)?;
            match evaluated {
                Some(module) => {
                    modules.insert(path, module.into());
                }
                None => {
                    missing.get_or_insert(name);
                    later.push((path, name, text));
                }
            }
        }
        if later.len() == before {
            let name = missing.unwrap_or("lib");
            return Err(LoadError::new(name, 0, 0, "imports something that is not in lib/, or itself"));
        }
        waiting = later;
    }
    Ok(Surroundings { lists, modules, ..Surroundings::default() })
}
