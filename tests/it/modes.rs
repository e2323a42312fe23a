//! What the gateway keeps is for its own user: looser modes are put right and told of, or refused where that may come too late.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sallyport_tests::gateway::TestApp;
use sallyport_tests::process;
use sallyport_tests::wait::{SOON, until};

use crate::hello;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Every file of the spool.
fn segments(home: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(home.join("spool")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn loose_modes_of_home_database_spool_and_cache_are_put_right_and_told_of() {
    let app = TestApp::start().await;
    assert_eq!(app.messages(hello()).await.status, 200);
    app.stop();
    let home = app.home();
    let [database, spool, cache] = ["sallyport.sqlite", "spool", "cache"].map(|name| home.join(name));
    for (path, loose) in [(home, 0o777), (&database, 0o666), (&spool, 0o777), (&cache, 0o777)] {
        set(path, loose);
    }
    for file in segments(home) {
        set(&file, 0o644);
    }

    app.launch().await;
    assert_eq!(app.messages(hello()).await.status, 200);
    assert_eq!(mode(home), 0o755, "it may be looked at");
    assert_eq!((mode(&database), mode(&spool), mode(&cache)), (0o600, 0o700, 0o700));
    assert!(segments(home).len() > 3);
    for file in segments(home) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    let log = app.log();
    for (path, loose) in [(home, "0777"), (&database, "0666"), (&spool, "0777"), (&cache, "0777")] {
        let told = format!("others could get at {} (mode {loose})", path.display());
        assert!(log.contains(&told), "{told}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_everybody_may_change_and_a_key_that_others_may_read_are_refused() {
    let app = TestApp::start().await;
    set(&app.home().join("sallyport.yaml"), 0o666);
    process::signal(app.pid(), "HUP").unwrap();
    until("the reload is refused", SOON, || {
        std::future::ready(app.log().contains("can be changed by others (mode 0666)").then_some(()))
    })
    .await;
    assert_eq!(app.messages(hello()).await.status, 200, "the old one stays in force");
    app.stop();

    let keys = app.home().join("keys");
    let key = fs::read_dir(&keys).unwrap().next().unwrap().unwrap().path();
    set(&key, 0o640);
    let said = app.launch_fails();
    assert!(said.contains(key.file_name().unwrap().to_str().unwrap()), "{said}");
    set(&key, 0o600);
    set(&keys, 0o755);
    let said = app.launch_fails();
    assert!(said.contains("keys"), "{said}");
    set(&keys, 0o700);
    app.launch().await;
}
