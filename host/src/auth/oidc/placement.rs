//! What follows from what a provider says of somebody: tenant, roles and department, or that the person stays out.

use sallyport_protocol::id::TenantId;

use super::id_token::Person;
use super::{OidcProvider, form, role_fits};

/// What follows from being in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRule {
    /// The group, as the provider's claim has it.
    pub group: String,
    /// Roles of its members.
    pub roles: Vec<String>,
    /// Their department.
    pub department: Option<String>,
    /// Their tenant.
    pub tenant: Option<TenantId>,
}

/// Where somebody belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PersonPlace {
    pub(super) tenant: TenantId,
    pub(super) roles: Vec<String>,
    pub(super) department: Option<String>,
}

/// Why a person stays out whom a provider vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlacementFault {
    /// The address is not verified, or none of the domains.
    #[error("the address is not of a domain that may come in, or not verified")]
    Domain,
    /// In none of the groups that may come in.
    #[error("the person is in no group that may come in")]
    Groups,
    /// The groups give what may not be had together.
    #[error("the groups give roles that the tenant cannot give, or too many")]
    Roles,
    /// The user is of another tenant than the provider says, or that tenant is closed.
    #[error("the person belongs to another tenant")]
    Tenant,
    /// Nobody who comes for the first time is let in.
    #[error("no user is linked to this person")]
    NotLinked,
    /// The provider gives no name that a user may have.
    #[error("the provider gives no name that a user may have")]
    Name,
    /// A user of this name is there already, and nothing says that it is the same person.
    #[error("a user of this name is there already")]
    NameTaken,
    /// The user, or its tenant, is disabled.
    #[error("the user is disabled")]
    Disabled,
}

// === impl PlacementFault ===

impl PlacementFault {
    /// A stable name for the audit row.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Domain => "provider_email_domain",
            Self::Groups => "provider_groups",
            Self::Roles => "provider_roles",
            Self::Tenant => "provider_tenant",
            Self::NotLinked => "provider_not_linked",
            Self::Name => "provider_name",
            Self::NameTaken => "provider_name_taken",
            Self::Disabled => "user_disabled",
        }
    }
}

// === impl OidcProvider ===

impl OidcProvider {
    /// Where somebody belongs of whom this provider speaks.
    pub(super) fn place(&self, person: &Person) -> Result<PersonPlace, PlacementFault> {
        self.check_address(person)?;
        let member_of = |rule: &&GroupRule| person.groups.contains(&rule.group);
        let rules: Vec<&GroupRule> = self.groups.iter().filter(member_of).collect();
        if rules.is_empty() && self.groups_only {
            return Err(PlacementFault::Groups);
        }
        let mut roles: Vec<String> = Vec::new();
        for role in self.roles.iter().chain(rules.iter().flat_map(|rule| &rule.roles)) {
            if !roles.contains(role) {
                roles.push(role.clone());
            }
        }
        let tenant = rules.iter().find_map(|rule| rule.tenant.clone()).unwrap_or_else(|| self.tenant.clone());
        if roles.len() > form::MAX_ROLES || !roles.iter().all(|role| role_fits(role, &tenant)) {
            return Err(PlacementFault::Roles);
        }
        let department = rules.iter().find_map(|rule| rule.department.clone());
        Ok(PersonPlace { tenant, roles, department })
    }

    /// Whether roles are the provider's to say, each time that somebody comes.
    pub(super) fn decides(&self) -> bool {
        !self.groups.is_empty()
    }

    /// The same of departments.
    pub(super) fn decides_departments(&self) -> bool {
        self.groups.iter().any(|rule| rule.department.is_some())
    }

    /// A name that is an address, and a domain, count as far as the provider verified them.
    fn check_address(&self, person: &Person) -> Result<(), PlacementFault> {
        let is_name = self.name_claim == "email";
        if person.email_verified == Some(false) && (is_name || !self.email_domains.is_empty()) {
            return Err(PlacementFault::Domain);
        }
        if self.email_domains.is_empty() {
            return Ok(());
        }
        let domain = person.email.as_deref().and_then(|it| it.rsplit_once('@')).map(|(_, domain)| domain);
        let listed = |domain: &str| self.email_domains.iter().any(|it| it.eq_ignore_ascii_case(domain));
        if person.email_verified == Some(true) && domain.is_some_and(listed) {
            Ok(())
        } else {
            Err(PlacementFault::Domain)
        }
    }
}
