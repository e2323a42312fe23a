//! Stories of the writer: what is kept, refused and dropped, and what of it stands in the database.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::record::tests::draft;
use super::{Evidence, Fate, SealError, Vault, VaultError, WAITING};
use crate::auth::keys::SecretKey;
use crate::clock::{ManualClock, SystemEntropy};
use crate::db::Db;
use crate::db::testing::on_both;

const BIG: usize = 1024;

fn evidence(db: &Db) -> (Arc<ManualClock>, Arc<Evidence>, Vault) {
    let clock = Arc::new(ManualClock::new(OffsetDateTime::UNIX_EPOCH + Duration::from_hours(24_000)));
    let vault =
        || Vault::new(db.clone(), SecretKey::new([9; 32]), Arc::clone(&clock) as _, Arc::new(SystemEntropy));
    (Arc::clone(&clock), Evidence::new(vault()), vault())
}

/// Stores what waits.
async fn settle(evidence: &Arc<Evidence>) {
    let over = CancellationToken::new();
    over.cancel();
    Arc::clone(evidence).run(over).await;
}

on_both! {
    async fn what_calls_hand_over_is_stored_sealed_and_comes_back_as_it_was(fresh: Fresh) {
        let (_, evidence, vault) = evidence(&fresh.db);
        assert_eq!(evidence.keep(draft("t_1", "acme", "{\"prompt\": \"canary\"}", BIG)), Fate::Kept);
        assert_eq!(evidence.keep(draft("t_2", "acme", &"x".repeat(BIG + 1), BIG)), Fate::TooLarge);
        settle(&evidence).await;
        let stored = fresh.db.evidence_of("t_1", Some("acme")).await.unwrap();
        assert!(memchr::memmem::find(&stored[0].sealed, b"canary").is_none());
        let opened = vault.open(&stored[0]).await.unwrap();
        assert_eq!(&*opened.last_body(), b"{\"prompt\": \"canary\"}");
        assert_eq!(&*opened.head.call.principal.tenant, "acme");
        assert!(fresh.db.evidence_of("t_2", None).await.unwrap().is_empty());
    }

    async fn a_record_opens_in_its_own_row_alone(fresh: Fresh) {
        let (_, evidence, vault) = evidence(&fresh.db);
        evidence.keep(draft("t_1", "acme", "{}", BIG));
        evidence.keep(draft("t_2", "other", "{}", BIG));
        settle(&evidence).await;
        let stored = fresh.db.evidence_of("t_1", None).await.unwrap().remove(0);
        let broken = |error| matches!(error, VaultError::Seal(SealError::Broken));
        let mut moved = stored.clone();
        moved.trace_id = "t_3".to_owned();
        assert!(broken(vault.open(&moved).await.unwrap_err()));
        let mut changed = stored.clone();
        let last = changed.sealed.len() - 1;
        changed.sealed[last] ^= 1;
        assert!(broken(vault.open(&changed).await.unwrap_err()));
        let mut foreign = stored;
        foreign.tenant_id = "other".to_owned();
        assert!(vault.open(&foreign).await.is_err());
    }

    async fn a_shredded_tenant_cannot_be_read_and_can_record_again(fresh: Fresh) {
        let (_, evidence, vault) = evidence(&fresh.db);
        evidence.keep(draft("t_1", "acme", "{}", BIG));
        settle(&evidence).await;
        assert!(fresh.db.delete_tenant_data_key("acme").await.unwrap());
        let before = fresh.db.evidence_of("t_1", None).await.unwrap().remove(0);
        let shredded = |error| matches!(error, VaultError::Seal(SealError::Shredded));
        assert!(shredded(vault.open(&before).await.unwrap_err()));
        vault.keep(&draft("t_2", "acme", "{}", BIG).finish()).await.unwrap();
        let after = fresh.db.evidence_of("t_2", None).await.unwrap().remove(0);
        vault.open(&after).await.unwrap();
        assert!(shredded(vault.open(&before).await.unwrap_err()), "the new key opens nothing of the old one");
    }

    async fn what_is_older_than_its_days_goes_and_is_counted_by_tenant(fresh: Fresh) {
        let (clock, evidence, vault) = evidence(&fresh.db);
        for (trace, tenant) in [("t_1", "acme"), ("t_2", "acme"), ("t_3", "other")] {
            vault.keep(&draft(trace, tenant, "{}", BIG).finish()).await.unwrap();
        }
        clock.advance(Duration::from_hours(24 * 31));
        vault.keep(&draft("t_4", "acme", "{}", BIG).finish()).await.unwrap();
        let expiry = evidence.expired(30).await.unwrap();
        assert_eq!(expiry.counts, [("acme".to_owned(), 2), ("other".to_owned(), 1)]);
        assert_eq!(evidence.expire(&expiry).await.unwrap(), 3);
        assert_eq!(fresh.db.evidence_of("t_4", None).await.unwrap().len(), 1);
        assert!(evidence.expired(30).await.unwrap().counts.is_empty());
    }

    async fn a_full_queue_drops_evidence_at_once(fresh: Fresh) {
        let (_, evidence, _) = evidence(&fresh.db);
        for number in 0..WAITING {
            assert_eq!(evidence.keep(draft(&format!("t_{number}"), "acme", "{}", BIG)), Fate::Kept);
        }
        assert_eq!(evidence.keep(draft("t_more", "acme", "{}", BIG)), Fate::Dropped);
        settle(&evidence).await;
        let stored = fresh.db.evidence_counts(0, i64::MAX, None).await.unwrap();
        assert_eq!(stored, [("acme".to_owned(), i64::try_from(WAITING).unwrap())]);
    }
}
