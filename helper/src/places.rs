//! Where things are on each system, and the environment that moves them. Pure: the system and the environment are given, so
//! that the paths of Windows and macOS are tested on Linux.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// What the names of our variables begin with.
const PREFIX: &str = "SP_COWORK_";
/// The variables there are. Any other is a mistake that is told: a misspelt one would be obeyed by nobody.
pub(crate) const VARIABLES: [&str; 9] = [
    "SP_COWORK_CACHE_DIR",
    "SP_COWORK_CA_BUNDLE",
    "SP_COWORK_CONFIG",
    "SP_COWORK_DEVICE_CERT_LABEL",
    "SP_COWORK_GATEWAY_URL",
    "SP_COWORK_KEYSTORE",
    "SP_COWORK_ORG_PLUGINS",
    "SP_COWORK_PAT",
    "SP_COWORK_TIMEOUT_SEC",
];

/// The systems whose places are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Os {
    /// macOS.
    Macos,
    /// Windows.
    Windows,
    /// Linux, and whatever else keeps to the XDG directories.
    Linux,
}

/// Who asks for a credential, as Claude Desktop says in `CLAUDE_HELPER_CONTEXT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A person waits at the screen: a browser or a dialog may open.
    Interactively,
    /// Nobody is known to be there.
    Otherwise,
}

/// The environment of this process, read once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(BTreeMap<String, OsString>);

/// Files and folders of this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// The configuration file that is written.
    pub(crate) config: PathBuf,
    /// The one of the earlier name, read where the first is missing.
    pub(crate) earlier_config: Option<PathBuf>,
    /// Where the cache is kept unless the configuration says otherwise.
    pub(crate) cache_dir: PathBuf,
    /// Where Claude Desktop looks for plugins of the organisation.
    pub(crate) org_plugins: PathBuf,
    /// Where they are put without the rights of an administrator; the client does not look there first.
    pub(crate) user_plugins: PathBuf,
    /// Where programs of this user keep their configuration.
    pub(crate) user_config: PathBuf,
    /// The user's home, which `~/` stands for.
    pub(crate) home: PathBuf,
}

// === impl Os ===

impl Os {
    /// The system that this binary was built for.
    pub(crate) fn here() -> Self {
        if cfg!(windows) {
            Self::Windows
        } else if cfg!(target_os = "macos") {
            Self::Macos
        } else {
            Self::Linux
        }
    }
}

// === impl Environment ===

impl Environment {
    /// That of this process.
    pub(crate) fn of_process() -> Self {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
    }

    /// A variable that holds something.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.0.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// A variable as text.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, Failure> {
        match self.0.get(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => match value.to_str() {
                Some(text) => Ok(Some(text.to_owned())),
                None => Err(Failure::usage(format!("{name} is not text"))),
            },
        }
    }

    /// Refuses variables that nobody would obey.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.0.keys().find(|name| name.starts_with(PREFIX) && !VARIABLES.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(Failure::usage(format!("there is no variable {name}"))),
        }
    }

    /// Whether a person waits.
    pub(crate) fn asked(&self) -> Asked {
        match self.0.get("CLAUDE_HELPER_CONTEXT").and_then(|value| value.to_str()) {
            Some("interactive") => Asked::Interactively,
            _ => Asked::Otherwise,
        }
    }
}

impl FromIterator<(String, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, OsString)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

// === impl Places ===

impl Places {
    /// Those of a system under an environment. `home` is the user's, as the system knows it.
    pub(crate) fn of(os: Os, environment: &Environment, home: Option<&Path>) -> Result<Self, Failure> {
        let absolute = |name: &str| environment.path(name).filter(|path| is_absolute(os, path));
        let home = match os {
            Os::Windows => absolute("USERPROFILE"),
            Os::Linux | Os::Macos => absolute("HOME"),
        }
        .or_else(|| home.map(Path::to_owned))
        .ok_or_else(|| Failure::usage("this user has no home directory"))?;
        let (config_dir, cache_dir, org_plugins, user_plugins) = match os {
            Os::Linux => {
                let data = absolute("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local").join("share"));
                let plugins = data.join("Claude").join("org-plugins");
                (
                    absolute("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")),
                    absolute("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache")),
                    plugins.clone(),
                    plugins,
                )
            }
            Os::Macos => {
                let library = home.join("Library");
                (
                    library.join("Application Support"),
                    absolute("XDG_CACHE_HOME").unwrap_or_else(|| library.join("Caches")),
                    PathBuf::from("/Library/Application Support/Claude/org-plugins"),
                    library.join("Application Support").join("Claude").join("org-plugins"),
                )
            }
            Os::Windows => {
                let roaming = absolute("APPDATA").unwrap_or_else(|| windows(&home, &["AppData", "Roaming"]));
                let local = absolute("LOCALAPPDATA").unwrap_or_else(|| windows(&home, &["AppData", "Local"]));
                let programs = absolute("ProgramFiles").unwrap_or_else(|| PathBuf::from(r"C:\Program Files"));
                (
                    roaming,
                    absolute("XDG_CACHE_HOME").unwrap_or_else(|| local.clone()),
                    // Claude's documentation: "not ProgramData".
                    windows(&programs, &["Claude", "org-plugins"]),
                    windows(&local, &["Claude", "org-plugins"]),
                )
            }
        };
        let named = |dir: &Path, name: &str| match os {
            Os::Windows => windows(dir, &["systemprompt", name]),
            Os::Linux | Os::Macos => dir.join("systemprompt").join(name),
        };
        let given = environment.path("SP_COWORK_CONFIG");
        let earlier = given.is_none().then(|| named(&config_dir, "cowork-auth.toml"));
        Ok(Self {
            config: given.unwrap_or_else(|| named(&config_dir, "systemprompt-cowork.toml")),
            earlier_config: earlier,
            cache_dir: match os {
                Os::Windows => windows(&cache_dir, &["systemprompt"]),
                Os::Linux | Os::Macos => cache_dir.join("systemprompt"),
            },
            org_plugins: environment.path("SP_COWORK_ORG_PLUGINS").unwrap_or(org_plugins),
            user_plugins,
            user_config: config_dir,
            home,
        })
    }

    /// A path of the configuration: `~/` is the user's home.
    pub(crate) fn expand(&self, path: &str) -> PathBuf {
        match path.strip_prefix("~/") {
            Some(rest) => self.home.join(rest),
            None => PathBuf::from(path),
        }
    }
}

/// Whether a path is absolute on that system, wherever this is asked.
fn is_absolute(os: Os, path: &Path) -> bool {
    match (os, path.to_str()) {
        (Os::Windows, Some(text)) => {
            let mut chars = text.chars();
            text.starts_with(r"\\")
                || (chars.next().is_some_and(|letter| letter.is_ascii_alphabetic())
                    && chars.next() == Some(':'))
        }
        _ => path.is_absolute(),
    }
}

/// A path of Windows, put together in the same way on every system.
fn windows(base: &Path, parts: &[&str]) -> PathBuf {
    let mut text = base.display().to_string();
    for part in parts {
        if !text.ends_with('\\') {
            text.push('\\');
        }
        text.push_str(part);
    }
    PathBuf::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect()
    }

    #[test]
    fn the_places_of_linux_follow_the_xdg_directories() {
        let plain = Places::of(Os::Linux, &environment(&[("HOME", "/home/ann")]), None).unwrap();
        assert_eq!(plain.config, Path::new("/home/ann/.config/systemprompt/systemprompt-cowork.toml"));
        assert_eq!(plain.cache_dir, Path::new("/home/ann/.cache/systemprompt"));
        assert_eq!(plain.org_plugins, Path::new("/home/ann/.local/share/Claude/org-plugins"));
        let moved = environment(&[
            ("HOME", "/home/ann"),
            ("XDG_CONFIG_HOME", "/c"),
            ("XDG_CACHE_HOME", "/k"),
            ("XDG_DATA_HOME", "relative is ignored"),
        ]);
        let moved = Places::of(Os::Linux, &moved, None).unwrap();
        assert_eq!(moved.config, Path::new("/c/systemprompt/systemprompt-cowork.toml"));
        assert_eq!(moved.earlier_config.as_deref(), Some(Path::new("/c/systemprompt/cowork-auth.toml")));
        assert_eq!(moved.cache_dir, Path::new("/k/systemprompt"));
        assert_eq!(moved.org_plugins, plain.org_plugins);
    }

    #[test]
    fn the_places_of_macos_and_windows_are_those_of_their_vendors() {
        let mac = Places::of(Os::Macos, &environment(&[("HOME", "/Users/ann")]), None).unwrap();
        assert_eq!(
            mac.config,
            Path::new("/Users/ann/Library/Application Support/systemprompt/systemprompt-cowork.toml")
        );
        assert_eq!(mac.cache_dir, Path::new("/Users/ann/Library/Caches/systemprompt"));
        assert_eq!(mac.org_plugins, Path::new("/Library/Application Support/Claude/org-plugins"));
        let windows = environment(&[
            ("USERPROFILE", r"C:\Users\ann"),
            ("APPDATA", r"C:\Users\ann\AppData\Roaming"),
            ("LOCALAPPDATA", r"C:\Users\ann\AppData\Local"),
            ("ProgramFiles", r"C:\Program Files"),
        ]);
        let windows = Places::of(Os::Windows, &windows, None).unwrap();
        assert_eq!(
            windows.config,
            Path::new(r"C:\Users\ann\AppData\Roaming\systemprompt\systemprompt-cowork.toml")
        );
        assert_eq!(windows.cache_dir, Path::new(r"C:\Users\ann\AppData\Local\systemprompt"));
        assert_eq!(windows.org_plugins, Path::new(r"C:\Program Files\Claude\org-plugins"));
        assert_eq!(windows.user_plugins, Path::new(r"C:\Users\ann\AppData\Local\Claude\org-plugins"));
    }

    #[test]
    fn a_misspelt_variable_is_refused_by_name() {
        let refused = environment(&[("SP_COWORK_GATEWY_URL", "https://x")]).check().unwrap_err();
        assert_eq!(refused.message, "there is no variable SP_COWORK_GATEWY_URL");
        assert!(environment(&[("SP_COWORK_GATEWAY_URL", "x"), ("OTHER", "y")]).check().is_ok());
    }

    #[test]
    fn only_an_interactive_context_may_open_windows() {
        for (value, asked) in [
            ("interactive", Asked::Interactively),
            ("background", Asked::Otherwise),
            ("scheduled-task", Asked::Otherwise),
            ("setup-test", Asked::Otherwise),
            ("mid-session-refresh", Asked::Otherwise),
            ("Interactive", Asked::Otherwise),
        ] {
            assert_eq!(environment(&[("CLAUDE_HELPER_CONTEXT", value)]).asked(), asked, "{value}");
        }
        assert_eq!(environment(&[]).asked(), Asked::Otherwise);
    }
}
