//! Who the agent is: read from its data folder, or, on the first start, joined for with a token.
//!
//! Invariants: the key is on disk before it is shown to anyone, so that a lost reply can be asked for
//! again with the same key; the identity is on disk before it is used.

use crate::{AgentConfig, AgentError, error::hint, limits::JOIN_DELAY_MAX, probe::host_name};
use fleetwire_common::{
    fb,
    ids::{Name, role_name},
};
use fleetwire_link::{Backoff, DeviceKey, EnrolError, Identity, IdentityError, LinkConfig, enrol};
use std::{io, path::Path, time::Duration};

/// The identity in the folder; joins the cluster if there is none.
pub(crate) async fn identity(config: &AgentConfig) -> Result<Identity, AgentError> {
    let path = config.data.join(IDENTITY_FILE);
    match Identity::load(&path) {
        Ok(identity) => {
            if let Some(name) = config.name.as_ref().filter(|name| **name != identity.principal.name) {
                let is = &identity.principal.name;
                tracing::warn!("this agent is `{is}` since its first start; --name {name} changes nothing");
            }
            Ok(identity)
        }
        Err(IdentityError::File(error)) if error.kind() == io::ErrorKind::NotFound => join(config, &path).await,
        Err(source) => Err(AgentError::Identity { path, source }),
    }
}

async fn join(config: &AgentConfig, path: &Path) -> Result<Identity, AgentError> {
    let token = config.join.as_ref().ok_or_else(|| AgentError::NoToken { data: config.data.clone() })?;
    if token.role != fb::Role::Agent {
        return Err(AgentError::TokenRole { found: role_name(token.role) });
    }
    let name = match &config.name {
        Some(name) => name.clone(),
        None => name_of_host(&host_name())?,
    };
    let key_path = config.data.join(KEY_FILE);
    let key =
        DeviceKey::load_or_generate(&key_path).map_err(|source| AgentError::Key { path: key_path.clone(), source })?;
    let mut backoff = Backoff::new(Duration::from_millis(250), JOIN_DELAY_MAX);
    let mut said = String::new();
    let identity = loop {
        match enrol(token, &name, &key, &LinkConfig::default()).await {
            Ok(identity) => break identity,
            Err(EnrolError::Connect(error)) if error.is_passing() => {
                let text = error.to_string();
                if text != said {
                    tracing::warn!(error = text, "cannot join yet; trying on");
                    said = text;
                }
                tokio::time::sleep(backoff.delay()).await;
            }
            Err(source) => return Err(AgentError::Join { hint: hint(source.code()), name, source }),
        }
    };
    identity.save(path).map_err(|source| AgentError::File { path: path.to_owned(), source })?;
    // The identity holds the key from now on.
    let _ = std::fs::remove_file(&key_path);
    tracing::info!(cluster = identity.cluster, agent = %identity.principal.name, "joined");
    Ok(identity)
}

/// A name made of the host's: what names do not have becomes `-`.
fn name_of_host(host: &str) -> Result<Name, AgentError> {
    let fits = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    let text: String = host.chars().map(fits).take(fleetwire_common::limits::NAME_BYTES_MAX).collect();
    Name::new(text.trim_start_matches(['.', '_', '-'])).map_err(|_| AgentError::NoName { host: host.to_owned() })
}

pub(crate) const IDENTITY_FILE: &str = "identity";
const KEY_FILE: &str = "identity.key";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_name_becomes_an_agents() {
        assert_eq!(name_of_host("pi-1.local").unwrap().as_str(), "pi-1.local");
        assert_eq!(name_of_host("-my host").unwrap().as_str(), "my-host");
        assert!(name_of_host("").is_err());
    }
}
