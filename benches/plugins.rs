//! What a call to a plugin costs beyond the plugin's own work: straight across the border, through pool and
//! deadline, and to a process of its own. The plugin is one C function that answers with 14 bytes.

use std::hint::black_box;
use std::path::Path;
use std::process::Command;

use countersign::plugin_host::Services;
use countersign::plugin_host::check::{Bare, Driven, Trial};
use criterion::{Criterion, criterion_group, criterion_main};

const HOOK: &str = "signal.signals";

fn bench_calls(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let library = dir.path().join("plain.so");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = Command::new("cc")
        .args(["-std=c11", "-shared", "-fPIC", "-O2", "-I"])
        .arg(root.join("plugins/sdk/include"))
        .arg(root.join("benches/plain_plugin.c"))
        .arg("-o")
        .arg(&library)
        .status()
        .unwrap();
    assert!(built.success());
    let services = Services { program: env!("CARGO_BIN_EXE_countersign").into(), ..Services::default() };
    let trial = Trial { file: &library, config_json: "{}", services };
    let input =
        format!("{{\"request\":{{\"time_unix_s\":1767225600}},\"claims\":{{\"pad\":\"{}\"}}}}", "x".repeat(342));
    assert_eq!(input.len(), 400);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _inside = runtime.enter();

    let bare = Bare::load(&trial, HOOK).unwrap();
    c.bench_function("plugin, 400 bytes across the border", |b| {
        b.iter(|| black_box(bare.call(black_box(input.as_bytes()))));
    });
    let here = Driven::here(&trial).unwrap();
    c.bench_function("plugin, through pool and deadline", |b| {
        b.to_async(&runtime).iter(|| here.call(HOOK, input.clone().into_bytes()));
    });
    let apart = Driven::apart(&trial).unwrap();
    c.bench_function("plugin, to a process of its own", |b| {
        b.to_async(&runtime).iter(|| apart.call(HOOK, input.clone().into_bytes()));
    });
}

criterion_group!(benches, bench_calls);
criterion_main!(benches);
