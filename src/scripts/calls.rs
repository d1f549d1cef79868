//! What scripts can read and call: told in the same breath as it is registered, so that what the
//! definitions say is what the engine has. Nothing else registers anything.

use rhai::{Dynamic, Engine, Module, RhaiNativeFunc};

/// One call.
pub(super) struct Call {
    /// As the definitions write it: `risk.deny(code: String)`, or `lists::has(…)` for one of a module.
    pub signature: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// The type that it is called on.
    pub on: Option<&'static str>,
}

/// Registers calls in an engine, and keeps what is told of them.
pub(super) struct Calls<'e> {
    engine: &'e mut Engine,
    on: &'static str,
    /// What was registered, but for facts.
    pub told: Vec<Call>,
    /// Facts, as `type.name`.
    pub facts: Vec<&'static str>,
}

impl<'e> Calls<'e> {
    pub fn on(engine: &'e mut Engine) -> Self {
        Self { engine, on: "", told: Vec::new(), facts: Vec::new() }
    }

    /// The type that the following calls are made on.
    pub fn of<T: Clone + Send + Sync + 'static>(&mut self, name: &'static str) -> &mut Self {
        self.engine.register_type_with_name::<T>(name);
        self.on = name;
        self
    }

    /// `signature` is `object.name(parameter: Type, …)`, with `-> Type` where something is given back.
    pub fn call<A: 'static, const N: usize, const X: bool, R: Clone + Send + Sync + 'static, const F: bool>(
        &mut self,
        signature: &'static str,
        doc: &'static str,
        function: impl RhaiNativeFunc<A, N, X, R, F> + Send + Sync + 'static,
    ) -> &mut Self {
        let on = signature.split('(').next().is_some_and(|head| head.contains('.')).then_some(self.on);
        let call = Call { signature, doc, on };
        debug_assert_eq!(call.parameters().len() + usize::from(on.is_some()), N, "{signature}");
        self.engine.register_fn(call.name(), function);
        self.told.push(call);
        self
    }

    /// A module with its one call: `module::name(parameter: Type, …) -> Type`.
    pub fn module<A: 'static, const N: usize, const X: bool, R: Clone + Send + Sync + 'static>(
        &mut self,
        signature: &'static str,
        doc: &'static str,
        function: impl RhaiNativeFunc<A, N, X, R, true> + Send + Sync + 'static,
    ) -> &mut Self {
        let call = Call { signature, doc, on: None };
        let mut module = Module::new();
        module.set_native_fn(call.name(), function);
        self.engine.register_static_module(call.object(), module.into());
        self.told.push(call);
        self
    }

    /// A property: `object.name -> Type`.
    pub fn get<T: Clone + Send + Sync + 'static>(
        &mut self,
        signature: &'static str,
        doc: &'static str,
        function: impl Fn(&mut T) -> Dynamic + Send + Sync + 'static,
    ) -> &mut Self {
        let call = Call { signature, doc, on: Some(self.on) };
        self.engine.register_get(call.name(), function);
        self.told.push(call);
        self
    }

    /// A fact, by `type.name`; what it is stands in the table of facts.
    pub fn fact<T: Clone + Send + Sync + 'static>(
        &mut self,
        path: &'static str,
        function: impl Fn(&mut T) -> Dynamic + Send + Sync + 'static,
    ) {
        let name = path.rsplit_once('.').map_or(path, |(_, name)| name);
        self.engine.register_get(name, function);
        self.facts.push(path);
    }

    /// `object["key"]`: the signature is `object.index$get$(key: String) -> Type`, as rhai writes it.
    pub fn index<T: Clone + Send + Sync + 'static>(
        &mut self,
        signature: &'static str,
        doc: &'static str,
        function: impl Fn(&mut T, &str) -> Dynamic + Send + Sync + 'static,
    ) {
        self.engine.register_indexer_get(function);
        self.told.push(Call { signature, doc, on: Some(self.on) });
    }
}

impl Call {
    fn parts(&self) -> (&'static str, &'static str) {
        let head = self.signature.find(['(', ' ']).map_or(self.signature, |end| &self.signature[..end]);
        head.split_once("::").or_else(|| head.split_once('.')).unwrap_or(("", head))
    }

    /// What it is called on, by the name that the entry points give it; or its module.
    pub fn object(&self) -> &'static str {
        self.parts().0
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.parts().1
    }

    /// Whether it is one of a module.
    pub fn is_of_module(&self) -> bool {
        self.on.is_none() && !self.object().is_empty()
    }

    /// Whether it is `object[key]`.
    pub fn is_index(&self) -> bool {
        self.name().contains('$')
    }

    /// Whether it is read and not called.
    pub fn is_property(&self) -> bool {
        !self.signature.contains('(')
    }

    /// `name: Type` each, without the object.
    pub fn parameters(&self) -> Vec<&'static str> {
        let inner = self.signature.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
        inner.map_or_else(Vec::new, |(list, _)| list.split(", ").filter(|p| !p.is_empty()).collect())
    }

    /// The type that it gives.
    pub fn gives(&self) -> &'static str {
        self.signature.split_once("-> ").map_or("()", |(_, gives)| gives)
    }
}
