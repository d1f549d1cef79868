//! Policies at size: a replay over many records, and many tenants with scripts of their own.
//!
//!     cargo bench --bench policies                    # 100 000 records, 1 000 tenants
//!     RECORDS=10000 TENANTS=100 cargo bench --bench policies

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use countersign::admin::audit::Author;
use countersign::clock::{Clock, SystemClock, UnixTime};
use countersign::ids::{EventId, TenantId};
use countersign::policy::bundle::Bundle;
use countersign::policy::explain::{StoredDecision, Trace};
use countersign::policy::ports::{DecisionPage, Decisions, PolicyLab};
use countersign::policy::service::PolicyService;
use countersign::scripts::bundle::read_folder;
use countersign::scripts::lab::Lab;
use countersign::secret::{Secret, SystemEntropy};
use countersign::signin::assessment::combine;
use countersign::signin::decision::decide_again;
use countersign::signin::history::Pseudonyms;
use countersign::store::decisions::DecisionRecords;
use countersign::store::policies::OpenedDecisions;
use countersign::store::{Store, StoreOptions};
use countersign::vault::Vault;
use serde_json::Map;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn main() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let bundle = read_folder(&shipped).unwrap();
    tenants(&bundle, setting("TENANTS", 1000));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(replay(&bundle, setting("RECORDS", 100_000)));
}

/// The script of each is as long as the shipped one, and another text.
fn tenants(bundle: &Bundle, count: usize) {
    let lab = Lab;
    let default = bundle.text("risk/_default.rhai").unwrap().to_string();
    let _first = lab.prepare(bundle).unwrap();
    let (before, started) = (resident_kib(), Instant::now());
    let held: Vec<_> = (0..count)
        .map(|n| {
            let mut files: BTreeMap<String, Arc<str>> = bundle.files().clone();
            files.insert(format!("risk/tenant{n}.rhai"), format!("{default}\n// tenant {n}\n").into());
            lab.prepare(&Bundle::new(files).unwrap()).unwrap()
        })
        .collect();
    let (grown, took) = (resident_kib().saturating_sub(before) / 1024, started.elapsed());
    println!("{} tenants with a script of their own: {grown} MiB more, compiled in {took:?}", held.len());
}

async fn replay(bundle: &Bundle, records: usize) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("replay.db").display());
    let store = Store::open(&StoreOptions { url }).await.unwrap();
    let vault = Vault::new(Secret::new(vec![7; 32]));
    let pseudonyms = Pseudonyms::new(vault.derive("pseudonyms"));
    let keep = std::time::Duration::from_secs(86_400 * 30);
    let kept = Arc::new(DecisionRecords::new(vault, pseudonyms.clone(), keep));
    let tenant = TenantId::parse("default").unwrap();
    let now = SystemClock.now();
    let prepared = Lab.prepare(bundle).unwrap();
    let mut set = Map::new();
    let devices = ["match", "match", "match", "partial", "new"];
    let mut batch = Vec::new();
    for n in 0..records {
        set.insert("history.device".to_owned(), devices[n % devices.len()].into());
        set.insert("history.known_country".to_owned(), (n % 11 != 0).into());
        set.insert("request.network_kind".to_owned(), if n % 13 == 0 { "hosting" } else { "residential" }.into());
        let mut facts = Lab.facts(&tenant, &set).unwrap();
        facts.request.time = UnixTime::from_millis(now.as_millis() - i64::try_from(records - n).unwrap());
        let facts = Arc::new(facts);
        let assessment = combine(prepared.assess(Arc::clone(&facts)));
        let trace = Trace::of(&assessment, &decide_again(&assessment, &facts));
        let id = EventId::generate(facts.request.time, &SystemEntropy);
        let decision = StoredDecision { id, tenant: tenant.clone(), facts: Arc::unwrap_or_clone(facts), trace };
        batch.push(decision);
        if batch.len() == 5000 || n + 1 == records {
            store.import_decisions(&kept, std::mem::take(&mut batch)).await.unwrap();
        }
    }
    let candidate = {
        let mut files = bundle.files().clone();
        let text = files["risk/_default.rhai"]
            .replace("risk.add(15, \"hosting_network\")", "risk.add(30, \"hosting_network\")");
        files.insert("risk/_default.rhai".to_owned(), text.into());
        Bundle::new(files).unwrap()
    };
    let folder = bundle.clone();
    let service = PolicyService {
        clock: Arc::new(SystemClock),
        store: Arc::<Store>::clone(&store),
        audit: Arc::<Store>::clone(&store),
        decisions: Arc::new(OpenedDecisions { store: Arc::clone(&store), records: kept }),
        lab: Arc::new(Lab),
        folder: Arc::new(move || Ok(folder.clone())),
        signers: Arc::default(),
    };
    let started = Instant::now();
    let author = Author::command_line(Some(tenant.clone()), SystemClock.now(), &SystemEntropy);
    let since = UnixTime::from_secs(0);
    let report = service.replay(&tenant, &candidate, since, None, &|_, _| {}, author).await.unwrap();
    println!("replay of {} records, two bundles each, two threads: {:?}", report.total, started.elapsed());
    println!("{report}");
    read_only(&*service.decisions, &tenant).await;
    store.close().await;
}

/// What reading and opening alone take.
async fn read_only(decisions: &dyn Decisions, tenant: &TenantId) {
    let (started, mut after, mut total) = (Instant::now(), None, 0);
    loop {
        let DecisionPage { last, open } = decisions.page(tenant, UnixTime::from_secs(0), after).await.unwrap();
        total += open().unwrap().len();
        match last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    println!("reading and opening alone, one thread: {total} in {:?}", started.elapsed());
}
