//! A disk without room while a component is uploaded: it is refused and said so, what is in force stays, nothing half-written
//! counts, and with room again it works. The disks are small file systems in memory: where none may be mounted, the stories say
//! that they were skipped.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use sallyport::component::contract::policy;
use sallyport_tests::gateway::TestApp;
use sallyport_tests::vendor::{Admin, Vendor};
use sallyport_tests::wait::{SOON, until};
use serde_json::json;

use crate::catalog::{admin_rows, stages};
use crate::hello;
use crate::rig::Rig;

const SCOPE: &str = "components/acme/scope";

/// A disk of a few megabytes at a directory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(directory: &Path, story: &str) -> Option<Self> {
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(directory).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(directory.to_owned()));
        }
        crate::tell(&format!("skipped: {story} (no file system may be mounted here)"));
        None
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut file = File::create(self.ballast()).unwrap();
        for block in [64 * 1024, 512] {
            let error = loop {
                if let Err(error) = file.write_all(&vec![0; block]) {
                    break error;
                }
            };
            assert_eq!(error.kind(), ErrorKind::StorageFull);
        }
    }

    fn clear(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    /// What is on it besides the ballast.
    fn files(&self) -> usize {
        fs::read_dir(&self.0).unwrap().filter(|file| file.as_ref().unwrap().path() != self.ballast()).count()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is about to end may still have a file open.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_to_a_full_disk_is_refused_changes_nothing_and_works_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::at(folder.path(), "an upload to a full disk") else { return };
    let url = format!("sqlite:{}", folder.path().join("sallyport.sqlite").display());
    let app = TestApp::with(|config| config.set("/database", json!({"url": url}))).await;
    let (admin, acme) = (Admin::of(&app), Vendor::new("acme", 1));
    admin.post("publishers", acme.trust(&["policy"])).await;
    admin.push(acme.copy_of("scope", "1.0.0", 1)).await;
    let nothing = json!({"rules": [{"name": "none", "effect": "deny", "models": ["*"]}]});
    admin.post(&format!("{SCOPE}/activate"), json!({"version": "1.0.0", "config": nothing})).await;
    assert_eq!(admin.call(&hello()).await.status, 451);

    disk.fill();
    let next = acme.copy_of("scope", "2.0.0", 2);
    let refused = admin.send("POST", "components", next.clone()).await;
    assert_eq!(
        (refused.status, refused.header("x-sallyport-code")),
        (503, Some("database_unavailable")),
        "{refused}"
    );
    assert_eq!(admin.call(&hello()).await.status, 451, "what is in force stays in force");
    assert_eq!(
        stages(&admin.get(SCOPE).await.json()),
        [("1.0.0", "active")],
        "and nothing came of the other"
    );

    disk.clear();
    let shown = until("there is room", SOON, || async {
        let again = admin.send("POST", "components", next.clone()).await;
        (again.status == 200).then(|| again.json())
    })
    .await;
    assert_eq!(stages(&shown), [("1.0.0", "active"), ("2.0.0", "staged")]);
    admin.post(&format!("{SCOPE}/activate"), json!({"version": "2.0.0", "config": {"rules": []}})).await;
    assert_eq!(admin.call(&hello()).await.status, 200, "it is whole");
    app.stop();
    let rows = admin_rows(&app, "admin_database_unavailable");
    assert!(!rows.is_empty());
    assert_eq!(rows[0]["outcome"], "error", "{}", rows[0]);
}

#[tokio::test]
async fn code_that_does_not_fit_the_disk_runs_and_is_kept_once_there_is_room() {
    let rig = Rig::new().await;
    let Some(disk) = SmallDisk::at(&rig.directory.path().join("code"), "compiled code on a full disk") else {
        return;
    };
    disk.fill();
    let policy = rig.admit("00-body-in-notes").await;
    assert!(matches!(rig.check(&policy).await, Ok(policy::Verdict::Allow)));
    assert_eq!(disk.files(), 0, "no half file is left");
    disk.clear();
    let policy = rig.admit("00-body-in-notes").await;
    assert!(matches!(rig.check(&policy).await, Ok(policy::Verdict::Allow)));
    assert_eq!(disk.files(), 1, "with room, it is kept");
    rig.honest_work_goes_on().await;
}
