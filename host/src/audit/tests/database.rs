//! Stories of databases that are not the one that the spool knows.

use super::*;
use crate::db::audit::replica::{Mark, ReplicaWriter, Standing};
use crate::db::audit::testing::execute;

/// How the database is found: as it was left, or what is said of it.
async fn found(trail: &Trail, audit: &Audit) -> Option<String> {
    trail.clock.advance(Duration::from_secs(3));
    audit.flush().await;
    audit.other_database()
}

/// A trail on each database with one call delivered, closed again.
async fn each(delivered: &[&str]) -> Vec<Trail> {
    let mut dir = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for db in both(dir.path()).await {
        // The first is SQLite, which lies in the first directory.
        let trail = Trail::on(std::mem::replace(&mut dir, tempfile::tempdir().unwrap()), db);
        let audit = trail.start().await;
        for trace in delivered {
            call(&audit, trace).await.unwrap();
            assert!(audit.flush().await);
        }
        audit.close().await;
        all.push(trail);
    }
    all
}

async fn survey(trail: &Trail) -> Option<Survey> {
    Survey::take(&trail.settings, &trail.db, "a story").await.unwrap()
}

/// What the database says; its mark is set back as a backup would do it.
async fn standing(trail: &Trail) -> Standing {
    trail.db.audit_standing(&trail.settings.replica).await.unwrap()
}

async fn set_back(trail: &Trail, to: &Mark) {
    execute(&trail.db, &format!("DELETE FROM audit_events WHERE sequence > {}", to.last_row)).await;
    execute(
        &trail.db,
        &format!(
            "UPDATE audit_replicas SET next_record = {}, hash = '{}', last_row = {}",
            to.next, to.hash, to.last_row
        ),
    )
    .await;
}

async fn refuses(audit: &Audit, trail: &Trail) {
    let before = trail.rows().await;
    let refused = audit.open(intent("t_refused")).await.unwrap_err();
    assert!(matches!(refused, Unavailable::OtherDatabase(_)), "{refused}");
    assert!(matches!(audit.record(event(Kind::Auth, "t")).await, Err(Unavailable::OtherDatabase(_))));
    assert!(matches!(audit.health(), Health::Down(why) if why.contains("sallyport audit reconcile")));
    assert_eq!(trail.rows().await, before, "nothing goes there");
}

fn numbers_of(rows: &[Row]) -> Vec<i64> {
    rows.iter().map(|row| row.sequence).collect()
}

#[tokio::test]
async fn another_database_takes_no_rows_and_no_calls() {
    for trail in each(&["t_1"]).await {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = Trail { db: sqlite(dir.path()).await, ..trail };
        let audit = elsewhere.start().await;
        assert!(audit.other_database().unwrap().contains("another one"), "{:?}", audit.other_database());
        refuses(&audit, &elsewhere).await;
        assert!(found(&elsewhere, &audit).await.is_some(), "and it stays so");
        audit.close().await;
    }
}

#[tokio::test]
async fn a_database_that_was_emptied_is_noticed_while_the_gateway_runs_and_at_its_start() {
    let ways: [(&[&str], &str); 4] = [
        (&["DELETE FROM audit_events", "DELETE FROM audit_replicas"], "was emptied"),
        (&["DELETE FROM audit_events"], "is not in the database"),
        (&["DELETE FROM audit_events WHERE sequence = 3"], "is not in the database"),
        (
            &["DELETE FROM audit_database", "DELETE FROM audit_replicas", "DELETE FROM audit_events"],
            "was emptied",
        ),
    ];
    for (statements, said) in ways {
        for trail in each(&["t_1"]).await {
            let audit = trail.start().await;
            assert_eq!(found(&trail, &audit).await, None);
            for statement in statements {
                execute(&trail.db, statement).await;
            }
            let why = found(&trail, &audit).await.unwrap_or_default();
            assert!(why.contains(said), "{statements:?}: {why}");
            refuses(&audit, &trail).await;
            audit.close().await;
            drop(audit);
            let audit = trail.start().await;
            assert!(audit.other_database().is_some_and(|why| why.contains(said)), "{statements:?}");
            refuses(&audit, &trail).await;
            audit.close().await;
        }
    }
}

#[tokio::test]
async fn a_database_without_tables_is_an_emptied_one() {
    for trail in each(&["t_1"]).await {
        let audit = trail.start().await;
        for table in ["audit_events", "audit_replicas", "audit_database"] {
            execute(&trail.db, &format!("ALTER TABLE {table} RENAME TO {table}_gone")).await;
        }
        let why = found(&trail, &audit).await.unwrap_or_default();
        assert!(why.contains("was emptied"), "{why}");
        assert!(matches!(audit.open(intent("t_2")).await, Err(Unavailable::OtherDatabase(_))));
        for table in ["audit_events", "audit_replicas", "audit_database"] {
            execute(&trail.db, &format!("ALTER TABLE {table}_gone RENAME TO {table}")).await;
        }
        assert_eq!(found(&trail, &audit).await, None, "what is mended is taken back");
        call(&audit, "t_2").await.unwrap();
        audit.close().await;
        assert_eq!(numbers_of(&trail.rows().await), (1..=6).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_database_from_a_backup_is_noticed_while_the_gateway_runs_and_at_its_start() {
    for trail in each(&["t_1"]).await {
        let backup = standing(&trail).await.mark.unwrap();
        let audit = trail.start().await;
        call(&audit, "t_2").await.unwrap();
        assert!(audit.flush().await);
        set_back(&trail, &backup).await;
        let why = found(&trail, &audit).await.unwrap_or_default();
        assert!(why.contains("rows up to 3") && why.contains("up to 6 were delivered"), "{why}");
        refuses(&audit, &trail).await;
        audit.close().await;
        drop(audit);
        let audit = trail.start().await;
        assert!(audit.other_database().is_some_and(|why| why.contains("backup")));
        refuses(&audit, &trail).await;
        audit.close().await;
    }
}

#[tokio::test]
async fn a_row_that_somebody_else_added_under_this_name_is_noticed() {
    for trail in each(&["t_1"]).await {
        let audit = trail.start().await;
        execute(
            &trail.db,
            "INSERT INTO audit_events (kind, user_id, session_id, trace_id, client_id, tenant_id, policy_ver, \
             call_source, outcome, payload, replica, sequence) \
             VALUES ('auth', 'u', 's', 't', 'c', 't', 'v', 'api', 'allowed', '{}', 'gateway-1', 4)",
        )
        .await;
        let why = found(&trail, &audit).await.unwrap_or_default();
        assert!(why.contains("has row 4"), "{why}");
        audit.close().await;
    }
}

#[tokio::test]
async fn a_database_file_that_was_removed_is_noticed_and_taken_back_when_it_is_there_again() {
    let trail = Trail::new().await;
    let (file, away) = (trail.dir.path().join("audit.db"), trail.dir.path().join("away.db"));
    let audit = trail.start().await;
    call(&audit, "t_1").await.unwrap();
    assert!(audit.flush().await);
    fs::rename(&file, &away).unwrap();
    // The pool still writes to it: the name is what counts.
    call(&audit, "t_2").await.unwrap();
    assert!(!audit.flush().await);
    assert!(audit.other_database().unwrap().contains("was removed"));
    assert!(matches!(audit.open(intent("t_3")).await, Err(Unavailable::OtherDatabase(_))));
    fs::copy(&away, &file).unwrap();
    assert!(!audit.flush().await);
    assert!(audit.other_database().unwrap().contains("was replaced"));
    assert_eq!(trail.rows().await.len(), 3);
    fs::rename(&away, &file).unwrap();
    assert!(audit.flush().await);
    call(&audit, "t_4").await.unwrap();
    audit.close().await;
    assert_eq!(numbers_of(&trail.rows().await), (1..=9).collect::<Vec<_>>());
}

#[tokio::test]
async fn rows_that_the_spool_still_holds_go_to_the_reconciled_database_each_once() {
    for trail in each(&["t_1"]).await {
        let backup = standing(&trail).await.mark.unwrap();
        let audit = trail.start().await;
        for trace in ["t_2", "t_3"] {
            call(&audit, trace).await.unwrap();
        }
        assert!(audit.flush().await);
        assert!(survey(&trail).await.is_none(), "there is nothing to reconcile");
        set_back(&trail, &backup).await;
        assert!(found(&trail, &audit).await.is_some());

        let survey = survey(&trail).await.unwrap();
        assert_eq!((survey.again, survey.lost), (6, None));
        survey.approve().unwrap();
        assert_eq!(found(&trail, &audit).await, None, "it goes on while it runs");
        call(&audit, "t_4").await.unwrap();
        audit.close().await;
        let told = trail.told().await;
        assert_eq!(told[..3], ["1 inference allowed t_1", "2 tool_call allowed t_1", "3 cost allowed t_1"]);
        assert!(told[3].ends_with("t_2") && told[6].ends_with("t_3"), "{told:?}");
        assert_eq!(told[9], "10 admin allowed - a story", "{told:?}");
        assert_eq!(told[10], "11 inference allowed t_4");
        assert_eq!(told.len(), 13);
        let row = &trail.rows().await[9].payload.0;
        assert_eq!(
            (&row["code"], &row["detail"]["rows_from_spool"]),
            (&json!("audit.reconciled"), &json!(6))
        );
        // Once: the next start finds the database as it was left, and no approval.
        drop(audit);
        let again = trail.start().await;
        assert_eq!(again.health(), Health::Ok);
        again.close().await;
        assert_eq!(trail.rows().await.len(), 13);
    }
}

#[tokio::test]
async fn an_empty_database_gets_what_the_spool_holds_and_the_row_names_what_is_lost() {
    for mut trail in each(&[]).await {
        trail.settings.max_bytes = 256 * 1024;
        let audit = trail.start().await;
        // Far more than the spool keeps.
        for _ in 0..20 {
            for _ in 0..20 {
                call(&audit, "t_1").await.unwrap();
            }
            assert!(audit.flush().await);
        }
        call(&audit, "t_last").await.unwrap();
        audit.close().await;
        drop(audit);
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = Trail { db: sqlite(dir.path()).await, ..trail };
        let survey = survey(&elsewhere).await.unwrap();
        let (from, to) = survey.lost.unwrap();
        assert_eq!((from, to + survey.again), (1, 1203));
        survey.approve().unwrap();
        let audit = elsewhere.start().await;
        assert_eq!(audit.other_database(), None);
        audit.close().await;
        let rows = elsewhere.rows().await;
        let expected: Vec<i64> = (i64::try_from(to).unwrap() + 1..=1204).collect();
        assert_eq!(numbers_of(&rows), expected);
        assert_eq!(rows.last().unwrap().payload.0["detail"]["rows_lost"], json!([1, to]));
    }
}

#[tokio::test]
async fn an_approval_is_for_the_database_that_was_looked_at() {
    for trail in each(&["t_1"]).await {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let looked_at = Trail { db: sqlite(one.path()).await, ..trail };
        survey(&looked_at).await.unwrap().approve().unwrap();
        let other = Trail { db: sqlite(two.path()).await, ..looked_at };
        let audit = other.start().await;
        refuses(&audit, &other).await;
        audit.close().await;
    }
}

#[tokio::test]
async fn where_another_gateway_has_the_name_rows_go_on_under_a_new_one() {
    for mut trail in each(&["t_1", "t_2"]).await {
        let dir = tempfile::tempdir().unwrap();
        let db = sqlite(dir.path()).await;
        let other = Trail::on(tempfile::tempdir().unwrap(), db.clone());
        let theirs = other.start().await;
        call(&theirs, "t_theirs").await.unwrap();
        theirs.close().await;
        trail.db = db;
        let error = Survey::take(&trail.settings, &trail.db, "").await.unwrap_err();
        assert!(error.to_string().contains("choose another audit.replica"), "{error}");
        trail.settings.replica = "gateway-2".into();
        assert!(matches!(trail.try_start(Arc::new(LocalDisk)).await, Err(AuditStartError::Replica { .. })));
        survey(&trail).await.unwrap().approve().unwrap();
        let audit = trail.start().await;
        assert_eq!(audit.other_database(), None);
        audit.close().await;
        let rows = trail.rows().await;
        let of = |name: &str| rows.iter().filter(|row| row.replica == name).count();
        assert_eq!((of("gateway-1"), of("gateway-2")), (3, 7), "six of before, and the row that says so");
    }
}

#[tokio::test]
async fn a_second_gateway_with_the_same_name_does_not_start() {
    for trail in each(&["t_1"]).await {
        let other = Trail::on(tempfile::tempdir().unwrap(), trail.db.clone());
        let one = trail.start().await;
        let error = other.try_start(Arc::new(LocalDisk)).await.unwrap_err();
        assert!(matches!(&error, AuditStartError::Leased { seconds: 1..=15, .. }), "{error}");
        assert!(error.to_string().contains("give each gateway its own audit.replica"), "{error}");
        call(&one, "t_2").await.unwrap();
        assert!(one.flush().await, "the first goes on: {:?}", one.health());

        // Killed without a word and started again: its own spool has the name at once, another one when the lease is over.
        drop(one);
        let again = trail.killed();
        let one = again.start().await;
        assert_eq!(one.health(), Health::Ok);
        execute(&trail.db, "UPDATE audit_replicas SET leased_until = 0").await;
        let two = other.start().await;
        call(&two, "t_3").await.unwrap();
        assert!(two.flush().await);
        let why = found(&again, &one).await.unwrap_or_default();
        assert!(why.contains("another gateway writes under this name"), "{why}");
        assert!(matches!(one.open(intent("t_4")).await, Err(Unavailable::OtherDatabase(_))));
        assert_eq!(numbers_of(&trail.rows().await), (1..=9).collect::<Vec<_>>());
        two.close().await;
    }
}

#[tokio::test]
async fn a_gateway_that_ended_gives_its_name_up() {
    for trail in each(&["t_1"]).await {
        let other = Trail::on(tempfile::tempdir().unwrap(), trail.db.clone());
        let two = other.start().await;
        assert_eq!(two.health(), Health::Ok);
        call(&two, "t_2").await.unwrap();
        assert!(two.flush().await);
        assert_eq!(numbers_of(&trail.rows().await), (1..=6).collect::<Vec<_>>());
        two.close().await;
    }
}

#[tokio::test]
async fn rows_whose_commit_was_never_answered_are_not_delivered_again() {
    for trail in each(&["t_1"]).await {
        let audit = trail.start().await;
        call(&audit, "t_2").await.unwrap();
        // The same records reach the database behind this gateway's back, as a commit does whose answer is lost.
        let twin = trail.killed();
        let other = twin.start().await;
        assert!(other.flush().await);
        drop(other);
        assert_eq!(trail.rows().await.len(), 6);
        call(&audit, "t_3").await.unwrap();
        assert!(audit.flush().await, "{:?}", audit.health());
        assert_eq!(audit.health(), Health::Ok);
        assert_eq!(numbers_of(&trail.rows().await), (1..=9).collect::<Vec<_>>());
        audit.close().await;
    }
}

#[tokio::test]
async fn a_spool_of_an_earlier_version_is_taken_over_and_its_database_must_have_what_was_delivered() {
    for trail in each(&["t_1", "t_2"]).await {
        // As an earlier version left them: a place without a database, a database that knows no replicas.
        let place = trail.settings.spool_dir.join("database.place");
        fs::write(&place, &fs::read(&place).unwrap()[..20]).unwrap();
        execute(&trail.db, "DELETE FROM audit_replicas").await;
        let audit = trail.start().await;
        assert_eq!(audit.health(), Health::Ok);
        call(&audit, "t_3").await.unwrap();
        audit.close().await;
        drop(audit);
        assert_eq!(numbers_of(&trail.rows().await), (1..=9).collect::<Vec<_>>());

        fs::write(&place, &fs::read(&place).unwrap()[..20]).unwrap();
        execute(&trail.db, "DELETE FROM audit_replicas").await;
        execute(&trail.db, "DELETE FROM audit_events WHERE sequence > 3").await;
        let audit = trail.start().await;
        assert!(audit.other_database().is_some_and(|why| why.contains("rows up to 3")));
        audit.close().await;
    }
}

#[tokio::test]
async fn a_writer_without_the_name_moves_nothing() {
    for trail in each(&["t_1"]).await {
        let before = standing(&trail).await;
        let (mark, identity) = (before.mark.clone().unwrap(), before.identity.clone().unwrap());
        let right = before.holder.clone().unwrap();
        let to = Mark { next: mark.next + 1, ..mark.clone() };
        for (holder, identity) in [("somebody", identity.as_str()), (right.as_str(), "another")] {
            let writer = ReplicaWriter { replica: "gateway-1", holder, identity };
            let delivered = trail.db.audit_deliver(writer, &mark, &to, &[]).await.unwrap();
            assert_eq!(delivered, crate::db::audit::replica::Delivery::Moved);
        }
        assert_eq!(standing(&trail).await.mark, before.mark);
    }
}
