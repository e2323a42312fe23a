//! Somebody adds a provider: a folder of its own in a copy of this tree, and nothing else of it changes. What is built of it serves.

use std::path::Path;
use std::process::Command;

use sallyport_tests::gateway::{TestApp, profile_dir};
use sallyport_tests::vendor::{Admin, Vendor};
use serde_json::json;

use crate::tidy::{files, shown};

/// What is copied, and what the copy is called.
const ORIGINAL: &str = "echo";
const COPY: &str = "parrot";

/// The tree without what was built, and in it the folder of a provider once more under another name.
fn tree_with_a_copy(tree: &Path) {
    for file in files("") {
        let (name, to) = (shown(&file), tree.join(shown(&file)));
        put(&to, &std::fs::read(&file).unwrap());
        if let Some(inside) = name.strip_prefix(&format!("guest-providers/{ORIGINAL}/")) {
            let mut bytes = std::fs::read(&file).unwrap();
            // The name of the crate and of the component; what the code says stays what it is.
            if Path::new(inside).extension().is_some_and(|it| it == "toml") {
                bytes = String::from_utf8(bytes).unwrap().replace(ORIGINAL, COPY).into_bytes();
            }
            put(&tree.join("guest-providers").join(COPY).join(inside), &bytes);
        }
    }
}

fn put(file: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, bytes).unwrap();
}

/// The component, built with cargo as `cargo xtask guests` does.
fn built(tree: &Path) -> Vec<u8> {
    let (target, out) = ("wasm32-unknown-unknown", profile_dir().join("kit"));
    let package = format!("provider-{COPY}");
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--offline",
            "--profile",
            "guest",
            "--target",
            target,
            "--package",
            &package,
        ])
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", &out)
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let wasm = out.join(target).join("guest").join(package.replace('-', "_")).with_extension("wasm");
    std::fs::read(wasm).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_added_is_one_folder_and_serves() {
    let tree = tempfile::tempdir().unwrap();
    tree_with_a_copy(tree.path());
    let component = built(tree.path());
    let manifest = tree.path().join("guest-providers").join(COPY).join("component.toml");
    let acme = Vendor::new("acme", 1);
    let package = acme.pack(&std::fs::read_to_string(manifest).unwrap(), &component);

    // By a gateway that was built before anybody thought of it.
    let name = format!("acme/{COPY}");
    let app = TestApp::with(|config| {
        let price =
            json!({"provider": "*", "model": "*", "input": 1, "output": 1, "cache_read": 1, "cache_write": 1});
        config.route(json!({"model_pattern": "acme-*", "provider": name})).set("/prices/models", json!([price]))
    })
    .await;
    let admin = Admin::of(&app);
    admin.post("publishers", acme.trust(&["provider"])).await;
    admin.push(package).await;
    admin.post(&format!("components/{name}/activate"), json!({"version": "0.1.0"})).await;
    let served = app.messages(crate::ask("acme-1", "Hello")).await;
    assert_eq!(served.status, 200, "{served}");
    assert!(served.text().contains("Hello"), "it answers as what it was copied from: {served}");
    assert_eq!(app.row_of(&served).await["provider"], name);
}
