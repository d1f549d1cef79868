//! The one rhai engine, and every limit of the sandbox.
//!
//! Deliberately absent: `LanguageCore` and the time package (`sleep` ignores every limit), the
//! optimizer (it folds one user's facts into shared code, and panics on a changed constant), the string
//! interner (a lock that serialises threads), files, `eval`, closures, function pointers, `try`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use rhai::packages::{
    ArithmeticPackage, BasicArrayPackage, BasicIteratorPackage, BasicMapPackage, BasicMathPackage,
    BasicStringPackage, LogicPackage, MoreStringPackage, Package,
};
use rhai::{Dynamic, Engine, EvalAltResult, Module, ModuleResolver, OptimizationLevel, Position};

use super::calls::{Call, Calls};
use super::lists::Lists;
use super::{builder, facts, mapping, token};
use crate::signin::rules::{PolicyFault, RunCost};

/// Operations of one entry.
const OPERATIONS: u64 = 20_000;
/// Time of one entry: of the processor, not of the wall. On a busy machine a thread may wait longer than
/// this for its turn, and no sign-in is refused for that.
const DEADLINE: Duration = Duration::from_millis(5);
/// The clock is read at every so many operations.
const CLOCK_EVERY: u64 = 64;
/// What counts at most between two looks at the clock. Where a hypervisor takes the processor away, the clock of the
/// processor may run on: one such pause is not the script's, and a script that takes its time does so again and again.
const LONGEST_STRETCH: Duration = Duration::from_millis(1);
/// The greatest text a script may hold; also the greatest claim that it may read.
pub(super) const TEXT_BYTES: usize = 8 * 1024;

thread_local! {
    static CLOCK: Cell<Option<Clock>> = const { Cell::new(None) };
    static OPERATED: Cell<u64> = const { Cell::new(0) };
    static TOOK: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static SURROUNDINGS: RefCell<Option<Arc<Surroundings>>> = const { RefCell::new(None) };
}

/// The engine that all scripts of all tenants share. What differs between bundles stands in
/// [`Surroundings`], so that a thousand tenants do not need a thousand engines.
pub(super) static ENGINE: LazyLock<Engine> = LazyLock::new(new);

/// What a script finds around it: the helpers and lists of its bundle.
pub(super) struct Surroundings {
    pub lists: Lists,
    pub modules: HashMap<String, rhai::Shared<Module>>,
    /// What runs them: [`ENGINE`], but for cases whose lines are counted.
    pub engine: &'static LazyLock<Engine>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self { lists: Lists::default(), modules: HashMap::new(), engine: &ENGINE }
    }
}

/// Imports come from the surroundings of the running script, and from nowhere else.
struct FromSurroundings;

impl ModuleResolver for FromSurroundings {
    fn resolve(
        &self,
        _: &Engine,
        _: Option<&str>,
        path: &str,
        at: Position,
    ) -> Result<rhai::Shared<Module>, Box<EvalAltResult>> {
        let found = SURROUNDINGS.with_borrow(|s| s.as_ref().and_then(|s| s.modules.get(path).cloned()));
        found.ok_or_else(|| EvalAltResult::ErrorModuleNotFound(path.to_owned(), at).into())
    }
}

/// What a registered function refuses with. Scripts cannot throw one, so its text is known to be ours.
#[derive(Debug, Clone)]
pub(super) struct Refusal(String);

/// A refusal at the place of the call.
pub(super) fn refuse<T>(position: Position, message: impl Into<String>) -> Result<T, Box<EvalAltResult>> {
    Err(EvalAltResult::ErrorRuntime(Dynamic::from(Refusal(message.into())), position).into())
}

/// An engine with all limits, all facts and builders.
fn new() -> Engine {
    let mut engine = Engine::new_raw();
    ArithmeticPackage::new().register_into_engine(&mut engine);
    LogicPackage::new().register_into_engine(&mut engine);
    BasicStringPackage::new().register_into_engine(&mut engine);
    MoreStringPackage::new().register_into_engine(&mut engine);
    BasicIteratorPackage::new().register_into_engine(&mut engine);
    BasicArrayPackage::new().register_into_engine(&mut engine);
    BasicMapPackage::new().register_into_engine(&mut engine);
    BasicMathPackage::new().register_into_engine(&mut engine);
    engine
        .set_max_strings_interned(0)
        .set_optimization_level(OptimizationLevel::None)
        .set_max_operations(OPERATIONS)
        .set_max_call_levels(16)
        .set_max_expr_depths(32, 32)
        .set_max_string_size(TEXT_BYTES)
        .set_max_array_size(512)
        .set_max_map_size(256)
        .set_max_modules(8)
        .set_max_functions(64)
        .set_max_variables(64)
        .set_strict_variables(true)
        .set_fail_on_invalid_map_property(true)
        .set_allow_anonymous_fn(false)
        .disable_symbol("eval")
        // A curried pointer that holds itself doubles at each turn, between two looks at the clock.
        .disable_symbol("Fn")
        .disable_symbol("curry")
        .disable_symbol("try")
        .disable_symbol("debug")
        .disable_symbol("print")
        .on_print(|_| {})
        .on_debug(|_, _, _| {})
        .on_progress(|operations| {
            OPERATED.set(operations);
            (operations % CLOCK_EVERY == 0 && is_due()).then_some(Dynamic::UNIT)
        });
    register(&mut Calls::on(&mut engine));
    engine.set_module_resolver(FromSurroundings);
    engine
}

/// The same without the deadline: for runs that take longer because they are watched. Operations stay limited.
pub(super) fn without_deadline() -> Engine {
    let mut engine = new();
    engine.on_progress(|_| None);
    engine
}

/// All facts, builders and functions of our own.
fn register(calls: &mut Calls<'_>) {
    // The package's own makes 0 of what is no number: points would vanish without a word.
    calls
        .call(
            "to_int(value: float) -> int",
            "The whole part; an error for what is no number.",
            |context: rhai::NativeCallContext, value: f64| {
                if value.is_finite() && value.abs() < 9.0e18 {
                    Ok(value as i64)
                } else {
                    refuse(context.call_position(), "the number cannot be a whole one")
                }
            },
        )
        .module(
            "lists::has(name: String, value: ?) -> bool",
            "Whether a value stands in lists/NAME.txt: an address, AS number, country or domain. () is in no list.",
            |context: rhai::NativeCallContext, name: &str, value: Dynamic| {
                let lists =
                    SURROUNDINGS.with_borrow(|s| s.as_ref().map(|s| Arc::clone(&s.lists))).unwrap_or_default();
                let Some(list) = lists.get(name) else {
                    let shown = if is_name(name) { name } else { "NAME" };
                    return refuse(context.call_position(), format!("there is no lists/{shown}.txt"));
                };
                Ok(list.has(&value))
            },
        );
    facts::register(calls);
    builder::register(calls);
    mapping::register(calls);
    token::register(calls);
}

/// What scripts can call, and read: `type.name` each.
pub(super) fn told() -> (Vec<Call>, Vec<&'static str>) {
    let mut engine = Engine::new_raw();
    let mut calls = Calls::on(&mut engine);
    register(&mut calls);
    (calls.told, calls.facts)
}

/// The time of the running entry.
#[derive(Clone, Copy)]
struct Clock {
    processor: ThreadTime,
    looked: Instant,
    counted: Duration,
}

/// The clock of the wall is cheap to read, and runs at least as fast as the one of the processor.
fn is_due() -> bool {
    let Some(mut clock) = CLOCK.get() else { return false };
    let now = Instant::now();
    clock.counted += now.duration_since(clock.looked).min(LONGEST_STRETCH);
    clock.looked = now;
    CLOCK.set(Some(clock));
    clock.counted > DEADLINE && clock.processor.elapsed() > DEADLINE
}

/// Runs something of a script under the deadline, and contains a panic. A panic is a defect of the
/// engine or of ours; for the sign-in it is a script that failed.
pub(super) fn guarded<T>(
    file: &str,
    surroundings: &Arc<Surroundings>,
    work: impl FnOnce() -> Result<T, Box<EvalAltResult>>,
) -> Result<T, PolicyFault> {
    SURROUNDINGS.set(Some(Arc::clone(surroundings)));
    OPERATED.set(0);
    let started = Instant::now();
    CLOCK.set(Some(Clock { processor: ThreadTime::now(), looked: started, counted: Duration::ZERO }));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    TOOK.set(started.elapsed());
    CLOCK.set(None);
    SURROUNDINGS.set(None);
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(fault(file, &error)),
        Err(_) => Err(PolicyFault {
            file: file.to_owned(),
            line: 0,
            column: 0,
            message: "the engine failed inside".to_owned(),
        }),
    }
}

/// Operations and microseconds of the last thing that [`guarded`] ran on this thread; the facts that it read are for
/// the caller to tell.
pub(super) fn cost() -> RunCost {
    let micros = u64::try_from(TOOK.get().as_micros()).unwrap_or(u64::MAX);
    RunCost { operations: OPERATED.get(), micros, read: 0 }
}

/// A fault without anything that the script saw: an error may carry a claim, and faults go to logs.
pub(super) fn fault(file: &str, error: &EvalAltResult) -> PolicyFault {
    let inner = error.unwrap_inner();
    let position = inner.position();
    PolicyFault {
        file: file.to_owned(),
        line: position.line().unwrap_or(0),
        column: position.position().unwrap_or(0),
        message: message(inner),
    }
}

/// What an author would write; a claim's value rarely looks like it.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn message(error: &EvalAltResult) -> String {
    use EvalAltResult as E;
    match error {
        E::ErrorRuntime(value, _) => match value.clone().try_cast::<Refusal>() {
            Some(refusal) => refusal.0,
            None => match value.clone().into_immutable_string() {
                Ok(text) if builder::is_code(&text) => format!("the script threw \"{text}\""),
                _ => "the script threw a value".to_owned(),
            },
        },
        E::ErrorIndexNotFound(..) => "there is nothing under this index".to_owned(),
        E::ErrorArrayBounds(..) => "the index is beyond the array".to_owned(),
        E::ErrorStringBounds(..) => "the index is beyond the text".to_owned(),
        E::ErrorTooManyOperations(_) => format!("the script ran more than {OPERATIONS} operations"),
        E::ErrorTerminated(..) => format!("the script ran longer than {} ms", DEADLINE.as_millis()),
        E::ErrorInModule(name, inner, _) => format!("in module \"{name}\": {}", message(inner.unwrap_inner())),
        E::ErrorArithmetic(..) => "an overflow, a division by zero, or a text that is no number".to_owned(),
        E::ErrorFunctionNotFound(signature, _) => match signature.split(' ').next().filter(|n| is_name(n)) {
            Some(_) => format!("there is no function {signature}"),
            None => "there is no such function".to_owned(),
        },
        E::ErrorModuleNotFound(path, _) if path.split('/').all(is_name) => {
            format!("there is no module \"{path}\"; scripts import lib/<name> and risk/_default")
        }
        E::ErrorModuleNotFound(..) => {
            "there is no such module; scripts import lib/<name> and risk/_default".to_owned()
        }
        E::ErrorPropertyNotFound(name, _) if is_name(name) => format!("there is no property {name}"),
        E::ErrorPropertyNotFound(..) => "there is no such property".to_owned(),
        // The rest tell names and types of the script's own text, or what the engine expected.
        other => {
            let mut plain = other.to_string();
            if let Some(at) = plain.find(" (line ") {
                plain.truncate(at);
            }
            plain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Works for so long between two looks at the clock; how many looks until the limit is reached.
    fn looks(stretch: Duration, at_most: u32) -> Option<u32> {
        let (processor, looked) = (ThreadTime::now(), Instant::now());
        CLOCK.set(Some(Clock { processor, looked, counted: Duration::ZERO }));
        (1..=at_most).find(|_| {
            let worked = ThreadTime::now();
            while worked.elapsed() < stretch {}
            is_due()
        })
    }

    #[test]
    fn one_pause_is_not_counted_against_a_script_and_slowness_is() {
        assert_eq!(looks(Duration::from_millis(30), 4), None, "a pause or four of the machine");
        assert!(looks(Duration::from_millis(2), 20).is_some(), "again and again");
        assert!(looks(Duration::from_micros(200), 1_000).is_some(), "in small steps");
    }
}
