//! The Rust client of Fleetwire: join as an operator, submit jobs, watch them, read their results and
//! logs. The command line uses nothing else.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use fleetwire_client::{Client, jobfile};
//!
//! let identity = fleetwire_link::Identity::load("operator.identity".as_ref())?;
//! let client = Client::connect(identity).await?;
//! let submitted = client.submit(&jobfile::load("first.toml".as_ref())?).await?;
//! let job = client.watch(submitted.job, |job| println!("{}", job.progress)).await?;
//! println!("{} tasks completed", job.counts.completed);
//! # Ok(()) }
//! ```

#[cfg(feature = "network")]
mod client;
#[cfg(feature = "network")]
mod error;
pub mod jobfile;
pub mod plans;
pub mod policyfile;
pub mod schedules;
#[cfg(feature = "network")]
mod session;
#[cfg(feature = "network")]
mod transport;
pub mod views;

#[cfg(feature = "network")]
pub use {
    client::{Client, LogStream, Submitted, Work, new_submit_id},
    error::ClientError,
    fleetwire_link::{EnrolError, Identity},
};

#[cfg(feature = "network")]
use {
    fleetwire_common::{ids::Name, token::JoinToken},
    fleetwire_link::{DeviceKey, LinkConfig},
};

/// Joins a token's cluster under a name, as what the token says. The credentials are the caller's to keep:
/// they hold the private key.
#[cfg(feature = "network")]
pub async fn login(token: &JoinToken, name: &Name) -> Result<Identity, EnrolError> {
    let key = DeviceKey::generate()?;
    fleetwire_link::enrol(token, name, &key, &LinkConfig::default()).await
}
