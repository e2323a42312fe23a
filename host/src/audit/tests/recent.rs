//! What consumers have from memory, and what from files.

use super::*;

#[tokio::test]
async fn a_consumer_that_keeps_up_reads_no_file() {
    let trail = Trail::new().await;
    let audit = trail.start().await;
    let segment = path(&trail.settings.spool_dir, 1);
    fs::rename(&segment, segment.with_extension("elsewhere")).unwrap();
    for trace in ["t_1", "t_2"] {
        call(&audit, trace).await.unwrap();
        assert!(audit.flush().await, "{:?}", audit.health());
    }
    let told = trail.told().await;
    assert_eq!(told.len(), 6, "{told:?}");
    assert!(told[5].starts_with("6 cost allowed t_2"), "{told:?}");
}

#[tokio::test]
async fn a_consumer_that_fell_behind_begins_with_files_and_misses_nothing() {
    let mut trail = Trail::new().await;
    trail.settings.max_bytes = 64 << 20;
    let file = trail.dir.path().join("siem.jsonl");
    trail.settings.siem = vec![Sink::File(file.clone())];
    let audit = trail.start().await;
    take_away(&trail.db).await;
    // Rows of 24 KB: half as many again as are kept in memory.
    let rows = i64::try_from(spool::recent::KEPT / (16 << 10)).unwrap();
    for number in 1..=rows {
        let mut row = event(Kind::Hook, &format!("t_{number}"));
        row.payload = json!({ "list": vec!["x".repeat(117); 200] }).into();
        audit.record(row).await.unwrap();
        if number % 50 == 0 {
            assert!(!audit.flush().await, "the database is away, the SIEM is not");
        }
    }
    bring_back(&trail.db).await;
    call(&audit, "t_last").await.unwrap();
    assert!(audit.flush().await, "{:?}", audit.health());
    let found = trail.rows().await;
    assert!(found.iter().zip(1..).all(|(row, sequence)| row.sequence == sequence));
    assert_eq!(found.len(), usize::try_from(rows).unwrap() + 3);
    let text = fs::read_to_string(&file).unwrap();
    for (line, row) in text.lines().zip(&found) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (line["sequence"].as_i64(), line["trace_id"].as_str()),
            (Some(row.sequence), Some(&*row.trace_id))
        );
    }
    assert_eq!(text.lines().count(), found.len());
}

#[tokio::test]
async fn many_rows_go_in_by_several_statements() {
    let trail = Trail::new().await;
    let audit = trail.start().await;
    take_away(&trail.db).await;
    // Two whole statements, and some rows over: of a record, and of several.
    let many: Vec<Event> = (0..70).map(|_| event(Kind::ToolCall, "t_many")).collect();
    audit.open(intent("t_many")).await.unwrap().close(many).await.unwrap();
    for _ in 0..22 {
        call(&audit, "t_few").await.unwrap();
    }
    bring_back(&trail.db).await;
    assert!(audit.flush().await, "{:?}", audit.health());
    let found = trail.rows().await;
    assert!(found.iter().zip(1..).all(|(row, sequence)| row.sequence == sequence));
    let of = |trace: &str| found.iter().filter(|row| row.trace_id == trace).count();
    assert_eq!((of("t_many"), of("t_few")), (70, 66));
}
