//! Loads a component's configuration: defaults in the struct, a TOML file over them, then
//! `FANFARE__SECTION__KEY` from the environment. Unknown fields are refused and the nearest known
//! name is told.

use std::collections::HashMap;
use std::path::Path;

use config::{Config, Environment, File, FileFormat};
use serde::de::DeserializeOwned;

/// Prefix of overrides in the environment. Two underscores: Kubernetes injects `FANFARE_PORT`
/// and the like.
const PREFIX: &str = "FANFARE";

/// A configuration that cannot be used: one sentence that names the field and the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigurationError(String);

impl ConfigurationError {
    /// For checks across fields: `message` names the fields and says what to do.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Loads `T` from `file` (if any) and `environment`, as pairs of name and value. `lists` are the
/// settings (`section.key`) that are lists of texts: in the environment commas part them.
///
/// # Errors
/// When the file cannot be read, is not TOML, or names or values do not fit `T`.
pub fn load<T: DeserializeOwned>(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    lists: &[&str],
) -> Result<T, ConfigurationError> {
    let mut builder = Config::builder();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|e| ConfigurationError(format!("cannot read {}: {e}", path.display())))?;
        // A syntax error is told with its line, which the layered loader would lose.
        toml::from_str::<toml::Table>(&text)
            .map_err(|e| ConfigurationError(format!("{} is not TOML: {e}", path.display())))?;
        builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
    }
    let mut overrides: HashMap<String, String> = environment.into_iter().collect();
    for setting in lists {
        let name = format!("{PREFIX}__{}", setting.replace('.', "__").to_uppercase());
        if let Some(text) = overrides.remove(&name) {
            let items: Vec<_> = text.split(',').map(|item| item.trim().to_owned()).collect();
            builder = builder
                .set_override(*setting, items)
                .map_err(|error| ConfigurationError(format!("{name}: {error}")))?;
        }
    }
    let environment = Environment::with_prefix(PREFIX)
        .prefix_separator("__")
        .separator("__")
        .source(Some(overrides));
    let loaded = builder.add_source(environment).build();
    loaded
        .and_then(Config::try_deserialize)
        .map_err(|error| ConfigurationError(explain(&error.to_string())))
}

/// The overrides among the process's environment variables.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("FANFARE__"))
}

/// Shortens a long list of expected names to the nearest one.
fn explain(error: &str) -> String {
    let Some((before, expected)) = error
        .split_once(", expected ")
        .filter(|_| error.contains("unknown field"))
    else {
        return error.to_owned();
    };
    let names = |text: &str| -> Vec<String> {
        text.split('`')
            .skip(1)
            .step_by(2)
            .map(String::from)
            .collect()
    };
    let unknown = names(before).into_iter().next_back().unwrap_or_default();
    let nearest = names(expected)
        .into_iter()
        .max_by(|a, b| likeness(a, &unknown).total_cmp(&likeness(b, &unknown)));
    let place = expected.split_once(" for key ").map_or("", |(_, at)| at);
    let at = if place.is_empty() {
        String::new()
    } else {
        format!(" (at {place})")
    };
    match nearest {
        Some(nearest) => format!("unknown field `{unknown}`{at}; did you mean `{nearest}`?"),
        None => format!("unknown field `{unknown}`{at}"),
    }
}

/// How alike two names are, 0 to 1.
fn likeness(a: &str, b: &str) -> f64 {
    strsim::jaro_winkler(a, b)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde::Deserialize;

    use super::*;
    use crate::units::HumanDuration;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Whole {
        server: Server,
        keys: Vec<Key>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Server {
        listen: String,
        drain_deadline: HumanDuration,
        connections_max: u32,
        quiet: bool,
        peers: Vec<String>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Key {
        name: String,
    }

    impl Default for Server {
        fn default() -> Self {
            Self {
                listen: "127.0.0.1:7400".into(),
                drain_deadline: HumanDuration::from_secs(45),
                connections_max: 100,
                quiet: false,
                peers: vec!["a:1".into()],
            }
        }
    }

    fn loaded(text: &str, env: &[(&str, &str)]) -> Result<Whole, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let env = env.iter().map(|(n, v)| ((*n).into(), (*v).into()));
        load(Some(file.path()), env, &["server.peers"]).map_err(|e| e.to_string())
    }

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(load::<Whole>(None, [], &[]), Ok(Whole::default()));
        assert_eq!(
            loaded("", &[("FANFARE_PORT", "tcp://10.0.0.1")]),
            Ok(Whole::default())
        );
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let text = "[server]\nlisten = 'a'\nconnections_max = 5\n[[keys]]\nname = 'k'";
        let env = [
            ("FANFARE__SERVER__CONNECTIONS_MAX", "7"),
            ("FANFARE__SERVER__QUIET", "true"),
            ("FANFARE__SERVER__DRAIN_DEADLINE", "1m"),
            ("FANFARE__SERVER__PEERS", "b:1, c:2"),
        ];
        let whole = loaded(text, &env).unwrap();
        assert_eq!(whole.server.listen, "a");
        assert_eq!(whole.server.connections_max, 7);
        assert!(whole.server.quiet);
        assert_eq!(whole.server.peers, ["b:1", "c:2"]);
        assert_eq!(whole.server.drain_deadline, HumanDuration::from_secs(60));
        assert_eq!(whole.keys[0].name, "k");
    }

    #[test]
    fn an_unknown_field_is_refused_with_the_nearest_name() {
        let error = loaded("[server]\nlisten_adr = 'a'", &[]).unwrap_err();
        assert!(
            error.contains("`listen_adr`") && error.contains("`listen`"),
            "{error}"
        );
        let error = loaded("", &[("FANFARE__SERVER__DRAIN_DEADLIN", "1s")]).unwrap_err();
        assert!(error.contains("did you mean `drain_deadline`"), "{error}");
        let error = loaded("[sever]\n", &[]).unwrap_err();
        assert!(error.contains("did you mean `server`"), "{error}");
    }

    #[test]
    fn a_bad_value_names_its_field() {
        let error = loaded("[server]\ndrain_deadline = 'soon'", &[]).unwrap_err();
        assert!(
            error.contains("drain_deadline") && error.contains("for example 15s"),
            "{error}"
        );
        let error = loaded("[server]\nconnections_max = 'x'", &[]).unwrap_err();
        assert!(error.contains("connections_max"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_or_not_toml_says_so() {
        let error = load::<Whole>(Some(Path::new("/nowhere/f.toml")), [], &[]).unwrap_err();
        assert!(error.to_string().starts_with("cannot read /nowhere/f.toml"));
        assert!(
            loaded("[server\n", &[])
                .unwrap_err()
                .contains("is not TOML")
        );
    }
}
