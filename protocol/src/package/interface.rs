//! Which interfaces of the contract each kind of component imports and exports, by name: what the host links, what the build of a
//! component checks, and what `wit/` says are one table.

use super::statement::Kind;

/// The package of the contract, before the name of an interface.
pub const CONTRACT: &str = "sallyport:gateway/";
/// What every component exports: `configure`.
pub const CONFIGURABLE: &str = "configurable";

// === impl Kind ===

impl Kind {
    /// What every component of this kind may import.
    pub const fn imports(self) -> &'static [&'static str] {
        match self {
            Self::Policy => &["types", "counters", "evidence"],
            Self::Hook => &["types", "evidence"],
            Self::Provider | Self::Predicate => &["types"],
            Self::Scanner => &[],
        }
    }

    /// What it may import where it was granted egress.
    pub const fn granted_imports(self) -> &'static [&'static str] {
        match self {
            Self::Hook => &["egress"],
            Self::Policy | Self::Provider | Self::Predicate | Self::Scanner => &[],
        }
    }

    /// What it exports besides [`CONFIGURABLE`].
    pub const fn api(self) -> &'static str {
        match self {
            Self::Policy => "policy-api",
            Self::Hook => "hook-api",
            Self::Provider => "provider-api",
            Self::Scanner => "scanner-api",
            Self::Predicate => "predicate-api",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// What a world of `wit/` says after `word`: `import types;` is `types`.
    fn listed<'a>(world: &'a str, word: &str) -> BTreeSet<&'a str> {
        let lines = world.lines().filter_map(|line| line.trim().strip_prefix(word));
        lines.map(|rest| rest.trim().trim_end_matches(';')).collect()
    }

    #[test]
    fn the_table_says_what_the_worlds_of_the_contract_say() {
        for kind in Kind::ALL {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../wit/{}.wit", kind.as_str()));
            let text = std::fs::read_to_string(file).unwrap();
            let (_, world) = text.split_once(&format!("world {} {{", kind.as_str())).unwrap();
            let (world, _) = world.split_once('}').unwrap();
            let imports: BTreeSet<_> = kind.imports().iter().chain(kind.granted_imports()).copied().collect();
            assert_eq!(listed(world, "import "), imports, "{kind}");
            assert_eq!(listed(world, "export "), [CONFIGURABLE, kind.api()].into(), "{kind}");
        }
    }
}
