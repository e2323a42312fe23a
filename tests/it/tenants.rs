//! Where what a tenant brought runs: in the gateway's process while the tenant is alone, in a worker from the second tenant on.

use std::path::Path;

use sallyport_tests::gateway::TestApp;
use sallyport_tests::upstream::{Script, Turn};
use sallyport_tests::vendor::{Admin, Vendor};
use sallyport_tests::wait::{SOON, until, until_true};
use serde_json::{Value, json};

use crate::hello;
use crate::workers::child_of;

async fn workers(app: &TestApp) -> Value {
    app.get("/ready").await.json()["workers"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_hook_moves_into_a_worker_once_there_is_another_tenant_and_decides_as_before() {
    let app = TestApp::start().await;
    app.cli(&["user", "create", "boss", "--tenant", "default", "--role", "tenant-admin"]);
    let boss = Admin::named(&app, "boss", "default");
    let vendor = Vendor::new("acme", 7);
    boss.post("publishers", vendor.trust(&["hook"])).await;
    boss.push(vendor.copy_of("block-tool", "1.0.0", 1)).await;
    let hook = "components/acme/block-tool";
    let config = json!({"tools": ["Bash"], "reason": "not here"});
    boss.post(&format!("{hook}/activate"), json!({"version": "1.0.0", "config": config})).await;
    let command = Turn::Tool("toolu_1".into(), "Bash".into(), json!({"command": "ls"}));
    app.upstream.script(Script::Turn(vec![command]));
    let nobody = json!({"registered": 0, "running": 0, "confined": 0});

    let alone = boss.call(&hello()).await.text();
    assert!(alone.contains("not here"), "{alone}");
    assert_eq!(workers(&app).await, nobody, "a tenant that is alone has nobody to be kept from");

    Admin::new_tenant(&app, "other", "tenant-admin");
    until("the hook has moved", SOON, || async { (workers(&app).await["confined"] == 1).then_some(()) })
        .await;
    let worker = child_of(app.pid(), "run-components").await;
    assert_eq!(boss.call(&hello()).await.text(), alone, "it decides as before");

    boss.post(&format!("{hook}/retire"), json!({})).await;
    until("the worker has nothing left to do", SOON, || async {
        (workers(&app).await == nobody).then_some(())
    })
    .await;
    let process = format!("/proc/{worker}");
    until_true("its process is gone", SOON, || !Path::new(&process).exists()).await;
    let passed = boss.call(&hello()).await;
    assert!(String::from_utf8_lossy(&passed.body).contains("toolu_1"), "{passed}");
}
