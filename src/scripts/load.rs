//! From a bundle to a snapshot that is ready to run: everything is compiled here, nothing per sign-in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use rhai::module_resolvers::StaticModuleResolver;
use rhai::{AST, Engine, EvalAltResult, Module, Scope};

use super::LoadError;
use super::bundle::Bundle;
use super::engine::{self, guarded};
use super::lists::{List, Lists};
use super::settings::{AllSettings, parse_reasons};

/// The default that no tenant can break: it is part of the program.
const SHIPPED_DEFAULT: &str = include_str!("../../policies/risk/_default.rhai");
const SHIPPED_REASONS: &str = include_str!("../../policies/reasons.toml");
/// Where the shipped default says it is.
pub(super) const SHIPPED_NAME: &str = "shipped:risk/_default.rhai";

/// A script with its name.
pub(super) struct Script {
    pub file: Arc<str>,
    pub ast: AST,
}

/// Everything that one version of the policies needs.
pub(super) struct Snapshot {
    pub id: Arc<str>,
    pub engine: Engine,
    pub settings: AllSettings,
    pub reasons: Arc<HashSet<String>>,
    pub mapping: HashMap<String, Script>,
    pub risk: HashMap<String, Script>,
    pub shipped: Script,
    pub shipped_reasons: Arc<HashSet<String>>,
}

impl Snapshot {
    /// Compiles a bundle.
    pub fn build(bundle: &Bundle) -> Result<Self, LoadError> {
        let settings = AllSettings::parse(&bundle.files["policy.toml"])?;
        let reasons = Arc::new(parse_reasons(&bundle.files["reasons.toml"])?);
        let lists: BTreeMap<_, _> =
            bundle.of("lists").map(|(stem, _, text)| (stem.to_owned(), List::parse(text))).collect();
        let lists: Lists = Arc::new(lists.into_iter().collect());
        let mut engine = engine::new(lists);
        let mut modules: Vec<(String, &str, &str)> =
            bundle.of("lib").map(|(stem, name, text)| (format!("lib/{stem}"), name, text)).collect();
        modules.extend(
            bundle
                .of("risk")
                .filter(|(stem, ..)| *stem == "_default")
                .map(|(_, name, text)| ("risk/_default".to_owned(), name, text)),
        );
        resolve(&mut engine, modules)?;
        let mapping = scripts(&engine, bundle, "mapping", "map")?;
        let risk = scripts(&engine, bundle, "risk", "assess")?;
        for (scripts, needed) in [(&mapping, "mapping/default.rhai"), (&risk, "risk/_default.rhai")] {
            let stem = needed.split(['/', '.']).nth(1).unwrap_or_default();
            if !scripts.contains_key(stem) {
                return Err(LoadError::new(needed, 0, 0, "is needed and absent"));
            }
        }
        let shipped = compile(&engine, SHIPPED_NAME, SHIPPED_DEFAULT, "assess", 2)?;
        let shipped_reasons = Arc::new(parse_reasons(SHIPPED_REASONS)?);
        Ok(Self { id: bundle.id().into(), engine, settings, reasons, mapping, risk, shipped, shipped_reasons })
    }
}

fn scripts(
    engine: &Engine,
    bundle: &Bundle,
    folder: &str,
    entry: &str,
) -> Result<HashMap<String, Script>, LoadError> {
    bundle
        .of(folder)
        .map(|(stem, name, text)| Ok((stem.to_owned(), compile(engine, name, text, entry, 2)?)))
        .collect()
}

fn compile(engine: &Engine, name: &str, text: &str, entry: &str, arguments: usize) -> Result<Script, LoadError> {
    let ast = parse(engine, name, text)?;
    let found = ast.iter_functions().find(|f| f.name == entry);
    match found {
        Some(function) if function.params.len() == arguments => {}
        Some(_) => {
            return Err(LoadError::new(name, 0, 0, format!("fn {entry} takes {arguments} arguments")));
        }
        None => return Err(LoadError::new(name, 0, 0, format!("has no fn {entry}"))),
    }
    Ok(Script { file: name.into(), ast })
}

/// Compiled with an empty scope: a value that stood in it would be folded into shared code.
fn parse(engine: &Engine, name: &str, text: &str) -> Result<AST, LoadError> {
    let compiled = guarded(name, || engine.compile(text).map_err(Into::into));
    let mut ast = compiled.map_err(LoadError::from)?;
    ast.set_source(name);
    Ok(ast)
}

/// Evaluates helpers until all that they import is there. What imports itself, or nothing that exists,
/// never gets ready.
fn resolve(engine: &mut Engine, modules: Vec<(String, &str, &str)>) -> Result<(), LoadError> {
    let mut resolver = StaticModuleResolver::new();
    engine.set_module_resolver(resolver.clone());
    let mut waiting = modules;
    while !waiting.is_empty() {
        let mut later = Vec::new();
        let mut missing = None;
        let before = waiting.len();
        for (path, name, text) in waiting {
            let ast = parse(engine, name, text)?;
            let evaluated = guarded(name, || match Module::eval_ast_as_new(Scope::new(), &ast, engine) {
                Ok(module) => Ok(Some(module)),
                Err(error) if matches!(error.unwrap_inner(), EvalAltResult::ErrorModuleNotFound(..)) => Ok(None),
                Err(error) => Err(error),
            })
            .map_err(LoadError::from)?;
            match evaluated {
                Some(module) => {
                    resolver.insert(path.as_str(), module);
                    engine.set_module_resolver(resolver.clone());
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
    Ok(())
}
