//! The join token: everything that a new device or operator needs to find a cluster, to know that it
//! is the right one, and to be let in once. Written as one line, `fwj1-` and base64url.

use crate::{
    envelope::keys::Secret,
    fb,
    ids::{TokenId, role_from_name, role_name},
    time::Time,
};
use data_encoding::BASE64URL_NOPAD;

/// A join token, as `fleetwire token create` prints it.
#[derive(Clone, Debug)]
pub struct JoinToken {
    /// Its number: the key id of the enrolment frames.
    pub id: TokenId,
    /// What it lets a holder become.
    pub role: fb::Role,
    /// The cluster's name, part of every principal's URI.
    pub cluster: String,
    /// SHA-256 of the cluster CA's certificate, DER: what the device pins.
    pub authority_sha256: [u8; 32],
    /// The secret that proves the token.
    pub secret: Secret,
    /// When it was made: a lower bound for a device whose clock is not known to be right.
    pub issued_at: Time,
    /// When it ends.
    pub expires_at: Time,
    /// Where the scheduler listens, `host:port`; tried in order.
    pub addresses: Vec<String>,
}

/// Why a text is no join token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin as tokens do.
    #[error("not a join token: expected a line that begins with `{PREFIX}`, as `fleetwire token create` prints it")]
    Prefix,
    /// Letters are missing or were changed.
    #[error("the join token is damaged ({0}): copy the whole line again")]
    Damaged(&'static str),
}

/// What every join token begins with; the number is the format's version.
pub const PREFIX: &str = "fwj1-";
/// A token longer than this is refused unread.
const TEXT_BYTES_MAX: usize = 4_096;
const ADDRESSES_MAX: usize = 8;

impl JoinToken {
    /// Writes the one-line form. Strings longer than 255 bytes and more than 8 addresses are cut.
    pub fn to_text(&self) -> String {
        let mut bytes = Vec::with_capacity(160);
        bytes.extend_from_slice(&self.id.0.to_le_bytes());
        bytes.extend_from_slice(&self.issued_at.0.to_le_bytes());
        bytes.extend_from_slice(&self.expires_at.0.to_le_bytes());
        bytes.extend_from_slice(&self.authority_sha256);
        bytes.extend_from_slice(self.secret.bytes());
        let strings = [role_name(self.role), &self.cluster].into_iter();
        for text in strings.chain(self.addresses.iter().take(ADDRESSES_MAX).map(String::as_str)) {
            let cut = text.as_bytes().get(..255).unwrap_or(text.as_bytes());
            bytes.push(cut.len() as u8);
            bytes.extend_from_slice(cut);
        }
        let sum = crate::envelope::keys::sha256(&bytes);
        bytes.extend_from_slice(sum.get(..4).unwrap_or_default());
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }

    // §token-1
    /// Reads the one-line form; a checksum catches what copying damaged.
    pub fn from_text(text: &str) -> Result<JoinToken, TokenError> {
        let coded = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        if coded.len() > TEXT_BYTES_MAX {
            return Err(TokenError::Damaged("too long"));
        }
        let bytes = BASE64URL_NOPAD.decode(coded.as_bytes()).map_err(|_| TokenError::Damaged("not base64url"))?;
        let (bytes, sum) = bytes.split_last_chunk::<4>().ok_or(TokenError::Damaged("too short"))?;
        if crate::envelope::keys::sha256(bytes).first_chunk::<4>() != Some(sum) {
            return Err(TokenError::Damaged("its checksum is wrong"));
        }
        Self::from_bytes(bytes).ok_or(TokenError::Damaged("a field is missing"))
    }

    fn from_bytes(bytes: &[u8]) -> Option<JoinToken> {
        let (id, rest) = bytes.split_first_chunk::<4>()?;
        let (issued_at, rest) = rest.split_first_chunk::<8>()?;
        let (expires_at, rest) = rest.split_first_chunk::<8>()?;
        let (authority, rest) = rest.split_first_chunk::<32>()?;
        let (secret, rest) = rest.split_first_chunk::<32>()?;
        let (role, rest) = string(rest)?;
        let (cluster, mut rest) = string(rest)?;
        let mut addresses = Vec::new();
        while !rest.is_empty() && addresses.len() < ADDRESSES_MAX {
            let (address, tail) = string(rest)?;
            addresses.push(address.to_owned());
            rest = tail;
        }
        Some(JoinToken {
            id: TokenId(u32::from_le_bytes(*id)),
            role: role_from_name(role)?,
            cluster: cluster.to_owned(),
            authority_sha256: *authority,
            secret: Secret::new(*secret),
            issued_at: Time(u64::from_le_bytes(*issued_at)),
            expires_at: Time(u64::from_le_bytes(*expires_at)),
            addresses,
        })
    }
}

fn string(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            id: TokenId(3),
            role: fb::Role::Agent,
            cluster: "c-1".into(),
            authority_sha256: [7; 32],
            secret: Secret::new([9; 32]),
            issued_at: Time(1),
            expires_at: Time(2),
            addresses: vec!["10.0.0.1:7450".into(), "[::1]:7450".into()],
        }
    }

    #[test]
    fn a_token_survives_its_text_form() {
        let text = token().to_text();
        let read = JoinToken::from_text(&format!(" {text}\n")).unwrap();
        assert_eq!(read.to_text(), text);
        assert_eq!((read.id, read.addresses.len(), read.cluster.as_str()), (TokenId(3), 2, "c-1"));
    }

    // §token-1
    #[test]
    fn damage_is_noticed_wherever_it_is() {
        let text = token().to_text();
        assert_eq!(JoinToken::from_text("hello").unwrap_err(), TokenError::Prefix);
        for cut in PREFIX.len()..text.len() {
            assert!(JoinToken::from_text(&text[..cut]).is_err());
            let mut changed = text.clone().into_bytes();
            changed[cut] = if changed[cut] == b'A' { b'B' } else { b'A' };
            assert!(JoinToken::from_text(&String::from_utf8(changed).unwrap()).is_err());
        }
    }
}
