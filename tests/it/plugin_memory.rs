//! Plugins of both languages over many calls, loaded, asked and destroyed: the run that `tests/memory/run`
//! watches with valgrind. Few calls and long deadlines, for it is fifty times slower there.

use serde_json::json;

use countersign::signin::ports::SignalSource;

use crate::support::plugins::{Bench, IP_LIST, facts};

const CALLS: usize = 40;

#[tokio::test]
async fn a_c_and_a_rust_plugin_are_asked_many_times_and_destroyed() {
    let bench = Bench::new();
    let long = "deadline_ms = 30000";
    let rust = bench.rust(IP_LIST, "countersign.ip_list").with("grants = { facts = [\"request.ip\"] }").with(long);
    let rust = rust.with("config = { lists = { office = [\"192.0.2.0/24\", \"2001:db8::/32\"] } }");
    let bench = bench.lock(&rust);
    let c = bench.office_hours().with(long);
    let bench = bench.lock(&c);
    let host = bench.must_load();
    for call in 0..CALLS {
        let ip = if call % 2 == 0 { "192.0.2.7" } else { "198.51.100.1" };
        let answers = host.signals(&facts(ip)).await;
        let listed = if call % 2 == 0 { json!(["office"]) } else { json!([]) };
        assert_eq!(answers["countersign.ip_list"], Some(json!({ "listed": listed })));
        assert_eq!(answers["countersign.office_hours"].as_ref().unwrap()["weekday"], 2);
    }
}

#[tokio::test]
async fn answers_out_of_their_mind_leave_nothing_behind() {
    for mode in ["panic", "garbage", "large", "huge", "wrong_utf8", "silent", "decline"] {
        let bench = Bench::new();
        let entry = bench.misbehaving(&format!("signals = \"{mode}\"")).with("deadline_ms = 30000");
        let bench = bench.lock(&entry);
        let host = bench.must_load();
        for _ in 0..5 {
            let answer = host.signals(&facts("192.0.2.7")).await;
            assert_eq!(answer["countersign.misbehaving"], None, "{mode}");
        }
    }
}
