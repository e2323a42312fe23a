//! Users and groups of a provider on both databases.

use super::*;
use crate::db::scim_group::{GroupEnd, GroupRole, MEMBER, MemberStep, ScimGroup};
use crate::db::testing::on_both;

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap()
}

async fn tenant(db: &Db, id: &str) -> TenantId {
    let tenant = TenantId::parse(id).unwrap();
    db.insert_tenant(&tenant, id, at(0)).await.unwrap();
    tenant
}

fn person(tenant: &TenantId, name: &str) -> ScimUser {
    ScimUser {
        user: User {
            id: UserId::parse(&format!("u_{name}")).unwrap(),
            tenant: tenant.clone(),
            name: name.to_owned(),
            roles: vec![MEMBER.to_owned()],
            department: None,
            created_at: at(0),
            disabled_at: None,
        },
        external_id: Some(format!("ext-{name}")),
        display_name: None,
        changed_at: at(0),
    }
}

fn group(id: &str, name: &str, changed: i64) -> ScimGroup {
    ScimGroup {
        id: id.to_owned(),
        name: name.to_owned(),
        external_id: None,
        created_at: at(0),
        changed_at: at(changed),
    }
}

fn ids(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("u_{name}")).collect()
}

on_both! {
    async fn a_provider_keeps_its_own_users_and_sees_no_others(fresh: Fresh) {
        let db = fresh.db;
        let (acme, other) = (tenant(&db, "acme").await, tenant(&db, "other").await);
        let (ann, ben) = (person(&acme, "ann"), person(&acme, "ben"));
        assert!(db.insert_scim_user(&ann).await.unwrap());
        assert!(db.insert_scim_user(&ben).await.unwrap());
        let local = User { id: UserId::parse("u_local").unwrap(), name: "local".to_owned(), ..ann.user.clone() };
        assert!(db.insert_user(&local).await.unwrap());
        assert!(db.insert_scim_user(&person(&other, "eve")).await.unwrap());

        let listed = async |filter, skip, most| db.scim_users(&acme, &filter, skip, most).await.unwrap();
        assert_eq!(listed(ScimFilter::All, 0, 10).await, (2, vec![ann.clone(), ben.clone()]));
        assert_eq!(listed(ScimFilter::All, 1, 1).await, (2, vec![ben.clone()]));
        assert_eq!(listed(ScimFilter::Name("ben".to_owned()), 0, 10).await, (1, vec![ben.clone()]));
        assert_eq!(listed(ScimFilter::ExternalId("ext-ann".to_owned()), 0, 10).await, (1, vec![ann.clone()]));
        assert_eq!(listed(ScimFilter::Name("local".to_owned()), 0, 10).await, (0, vec![]));
        assert_eq!(db.scim_user(&acme, "u_local").await.unwrap(), None);
        assert_eq!(db.scim_user(&other, "u_ann").await.unwrap(), None);

        // A name that is taken, by whomever, and what the provider calls somebody.
        let twin = |name: &str, external: &str| {
            let mut twin = person(&acme, "twin");
            twin.user.name = name.to_owned();
            twin.external_id = Some(external.to_owned());
            twin
        };
        for taken in [twin("ann", "x"), twin("local", "x"), twin("x", "ext-ann")] {
            assert!(!db.insert_scim_user(&taken).await.unwrap(), "{taken:?}");
        }
        let mut changed = ann.clone();
        changed.user.name = "local".to_owned();
        assert!(!db.change_scim_user(&changed, true).await.unwrap());
        changed.user.name = "anna".to_owned();
        changed.user.disabled_at = Some(at(5));
        changed.changed_at = at(5);
        assert!(db.change_scim_user(&changed, true).await.unwrap());
        assert_eq!(db.scim_user(&acme, "u_ann").await.unwrap(), Some(changed.clone()));
        let revoked = db.revocations(at(0)).await.unwrap();
        assert!(revoked.iter().any(|row| row.kind == "disabled_user" && row.subject == "u_ann"));
        assert!(revoked.iter().any(|row| row.kind == "user" && row.subject == "u_ann"));

        assert!(!db.delete_scim_user(&other, &ann.user.id, at(6)).await.unwrap());
        assert!(db.delete_scim_user(&acme, &ben.user.id, at(6)).await.unwrap());
        assert_eq!(db.scim_user(&acme, "u_ben").await.unwrap(), None);
        assert!(db.user(&acme, &ben.user.id).await.unwrap().unwrap().disabled_at.is_some());
        let again = ScimUser { user: User { id: UserId::parse("u_ben2").unwrap(), ..ben.user.clone() }, ..ben };
        assert!(db.insert_scim_user(&again).await.unwrap(), "the name is free again");
    }

    async fn roles_follow_from_groups_and_end_with_them(fresh: Fresh) {
        let db = fresh.db;
        let acme = tenant(&db, "acme").await;
        for name in ["ann", "ben"] {
            assert!(db.insert_scim_user(&person(&acme, name)).await.unwrap());
        }
        let roles = async |name: &str| {
            db.scim_user(&acme, &format!("u_{name}")).await.unwrap().unwrap().user.roles.join(" ")
        };
        let rule = |name: &str, role: &str| GroupRole { name: name.to_owned(), role: role.to_owned() };
        assert!(db.set_group_role(&acme, &rule("Authors", "author"), true, at(1), 2).await.unwrap());
        assert!(!db.set_group_role(&acme, &rule("Authors", "author"), true, at(1), 2).await.unwrap());
        let put = async |group: &ScimGroup, new, steps: &[MemberStep]| {
            db.put_scim_group(&acme, group, new, steps, 2).await.unwrap()
        };
        let authors = group("g1", "Authors", 2);
        assert_eq!(put(&authors, true, &[MemberStep::Add(ids(&["ann"]))]).await, GroupEnd::Done);
        assert_eq!((roles("ann").await.as_str(), roles("ben").await.as_str()), ("member author", "member"));
        let revoked = db.revocations(at(0)).await.unwrap();
        assert!(revoked.iter().any(|row| row.kind == "user" && row.subject == "u_ann"));
        assert_eq!(put(&group("g2", "Authors", 3), true, &[]).await, GroupEnd::NameTaken);
        assert_eq!(put(&group("g3", "Others", 3), false, &[]).await, GroupEnd::Gone);
        let with_nobody = [MemberStep::Add(ids(&["ben", "nobody"]))];
        assert_eq!(put(&authors, false, &with_nobody).await, GroupEnd::NoSuchUser);
        assert_eq!(roles("ben").await, "member", "all of a change, or nothing");
        assert_eq!(put(&authors, false, &[MemberStep::Replace(ids(&["ben"]))]).await, GroupEnd::Done);
        assert_eq!((roles("ann").await.as_str(), roles("ben").await.as_str()), ("member", "member author"));
        assert!(db.set_group_role(&acme, &rule("Authors", "ring-1"), true, at(4), 2).await.unwrap());
        assert!(!db.set_group_role(&acme, &rule("Authors", "ring-2"), true, at(4), 2).await.unwrap(), "too many");
        assert_eq!(roles("ben").await, "member author ring-1");
        assert_eq!(db.scim_members("g1").await.unwrap().len(), 1);
        assert_eq!(db.scim_groups_of("u_ben").await.unwrap()[0].name, "Authors");

        // Under another name other roles follow.
        assert_eq!(put(&group("g1", "Readers", 5), false, &[]).await, GroupEnd::Done);
        assert_eq!(roles("ben").await, "member");
        assert_eq!(put(&group("g1", "Authors", 6), false, &[]).await, GroupEnd::Done);
        assert_eq!(roles("ben").await, "member author ring-1");
        assert!(db.set_group_role(&acme, &rule("Authors", "ring-1"), false, at(7), 2).await.unwrap());
        assert_eq!(roles("ben").await, "member author");
        assert!(db.delete_scim_group(&acme, "g1", at(8)).await.unwrap());
        assert!(!db.delete_scim_group(&acme, "g1", at(8)).await.unwrap());
        assert_eq!(roles("ben").await, "member");
        assert_eq!(db.scim_groups(&acme, &ScimFilter::All, 0, 10).await.unwrap().0, 0);
    }
}
