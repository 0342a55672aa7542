//! `token create` and `login`.

use super::{print, print_json};
use crate::{
    args::{Login, Token},
    credentials,
    error::CliError,
};
use fleetwire_client::Client;
use fleetwire_common::{
    fb,
    ids::{Name, role_name},
    token::JoinToken,
};
use serde_json::json;

/// `fleetwire token create`.
pub async fn token(client: &Client, command: &Token, as_json: bool) -> Result<(), CliError> {
    let Token::Create { role, uses, expires } = command;
    let text = client.create_token(role.role(), *uses, *expires).await?;
    if as_json {
        return print_json(&json!({
            "token": text,
            "role": role_name(role.role()),
            "uses": uses,
            "expires_s": expires.as_secs(),
        }));
    }
    // The token alone on standard output, so that `$(fleetwire token create)` is one.
    let next = match role.role() {
        fb::Role::Agent => "fleetwire-agent --join TOKEN --data DIR",
        _ => "fleetwire login TOKEN",
    };
    eprintln!(
        "a token for {} {}{}, good for {}; on the other machine: {next}",
        uses,
        role_name(role.role()),
        if *uses == 1 { "" } else { "s" },
        crate::table::span(*expires)
    );
    print(&format!("{text}\n"))
}

/// `fleetwire login`.
pub async fn login(command: &Login, as_json: bool) -> Result<(), CliError> {
    let token = JoinToken::from_text(&command.token)?;
    let path = credentials::own_path();
    if path.exists() && !command.force {
        return Err(CliError::LoggedIn { path });
    }
    let user = || std::env::var("USER").ok().filter(|name| Name::new(name).is_ok());
    let name = command.name.clone().or_else(user).unwrap_or_else(|| String::from("operator"));
    let identity = fleetwire_client::login(&token, &Name::new(&name)?)
        .await
        .map_err(|error| CliError::Login(error.to_string()))?;
    credentials::write(&path, &identity, command.force)?;
    let principal = identity.principal.to_string();
    if as_json {
        return print_json(&json!({
            "principal": principal,
            "cluster": token.cluster,
            "credentials": path.display().to_string(),
        }));
    }
    print(&format!("you are {principal} of {}; credentials in {}\n", token.cluster, path.display()))
}
