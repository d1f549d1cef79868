//! What `/metrics` shows, and how finely.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::StartError;

/// Bounds of times in seconds.
const SECONDS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// The same for one run of a script, which ends after 5 ms of the processor.
const SCRIPT_SECONDS: [f64; 9] = [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005];
/// Bounds of operations of one run, which ends after 20 000.
const SCRIPT_OPERATIONS: [f64; 8] = [100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 20_000.0];

/// How often measured values are taken into the distributions. Until then each takes memory of its own.
const UPKEEP: Duration = Duration::from_secs(5);

/// One recorder for the process, however many servers a test starts in it.
pub(super) fn recorder() -> Result<PrometheusHandle, StartError> {
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    HANDLE.get_or_init(|| install().map_err(|e| e.to_string())).clone().map_err(StartError::Metrics)
}

fn install() -> Result<PrometheusHandle, BuildError> {
    let named = |name: &str| Matcher::Full(name.to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(named("countersign_script_seconds"), &SCRIPT_SECONDS)?
        .set_buckets_for_metric(named("countersign_script_operations"), &SCRIPT_OPERATIONS)?
        .install_recorder()
}

/// Keeps the memory of a server bounded that nobody asks for its metrics.
pub(super) async fn keep_up(recorder: PrometheusHandle) {
    let mut tick = tokio::time::interval(UPKEEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        recorder.run_upkeep();
    }
}
