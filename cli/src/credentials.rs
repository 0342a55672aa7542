//! Whom to be: the credentials of an operator, from a scheduler's data folder on this machine or
//! from the user's own configuration.

use crate::error::CliError;
use fleetwire_link::{Identity, IdentityError};
use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// The file in a scheduler's data folder with the local operator's credentials.
pub const OPERATOR_FILE: &str = "operator.identity";
/// The file in a scheduler's data folder with the address on which it listens.
pub const ADDRESS_FILE: &str = "address";

/// Finds credentials: those of the folder if one is named, else the user's own.
pub fn find(data: Option<&Path>) -> Result<Identity, CliError> {
    if let Some(folder) = data {
        let mut identity = read(&folder.join(OPERATOR_FILE))?;
        // The scheduler may listen elsewhere than when the credentials were made.
        if let Ok(address) = fs::read_to_string(folder.join(ADDRESS_FILE)) {
            identity.addresses = vec![reachable(address.trim())];
        }
        return Ok(identity);
    }
    let own = own_path();
    if !own.exists() {
        return Err(CliError::NoCredentials { looked: own });
    }
    read(&own)
}

/// Where the user's own credentials are: `$FLEETWIRE_HOME/identity`, else
/// `$XDG_CONFIG_HOME/fleetwire/identity`, else `~/.config/fleetwire/identity`.
pub fn own_path() -> PathBuf {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = folder("FLEETWIRE_HOME");
    let config = || {
        let base = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")));
        base.unwrap_or_default().join("fleetwire")
    };
    home.unwrap_or_else(config).join("identity")
}

/// Writes credentials so that only their owner can read them.
pub fn write(path: &Path, identity: &Identity, replace: bool) -> Result<(), CliError> {
    let fault = |doing, path: &Path| {
        let path = path.to_owned();
        move |error| CliError::File { doing, path, error }
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fault("make the folder", folder))?;
    }
    if path.exists() && !replace {
        return Err(CliError::LoggedIn { path: path.to_owned() });
    }
    identity.save(path).map_err(fault("write", path))
}

fn read(path: &Path) -> Result<Identity, CliError> {
    Identity::load(path).map_err(|error| {
        let error = match &error {
            IdentityError::File(error) if error.kind() == io::ErrorKind::NotFound => {
                "there is no such file: is this a scheduler's data folder?".to_owned()
            }
            IdentityError::File(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "they belong to another user".to_owned()
            }
            error => error.to_string(),
        };
        CliError::Credentials { path: path.to_owned(), error }
    })
}

/// An address to connect to, from one that is listened on: the wildcard is every address of this
/// machine, so its loopback will do.
fn reachable(address: &str) -> String {
    match address.parse::<std::net::SocketAddr>() {
        Ok(mut listening) if listening.ip().is_unspecified() => {
            listening.set_ip(match listening.is_ipv4() {
                true => std::net::Ipv4Addr::LOCALHOST.into(),
                false => std::net::Ipv6Addr::LOCALHOST.into(),
            });
            listening.to_string()
        }
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::reachable;

    #[test]
    fn the_wildcard_is_reached_by_loopback() {
        assert_eq!(reachable("0.0.0.0:7450"), "127.0.0.1:7450");
        assert_eq!(reachable("[::]:7450"), "[::1]:7450");
        assert_eq!(reachable("10.1.2.3:7450"), "10.1.2.3:7450");
        assert_eq!(reachable("scheduler.lan:7450"), "scheduler.lan:7450");
    }
}
