//! Which device a token is of, for devices that show a token and do not say who they are.
//!
//! The table is of hashes, and looking in it takes a time that depends on the hash of what was said. That tells nothing of a
//! token: the hash of a guess is not under its sender's control, and who is found must pass `DeviceRegistry::authenticate`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use uuid::Uuid;

/// SHA-256 of a token.
pub type TokenHash = [u8; 32];

/// Whose token it is; none where several devices have the same one, which then says nobody's name.
#[derive(Debug, Default)]
pub struct TokenOwners(HashMap<TokenHash, Option<Uuid>, foldhash::fast::RandomState>);

impl TokenOwners {
    #[must_use]
    pub fn owner(&self, hash: &TokenHash) -> Option<Uuid> {
        self.0.get(hash).copied().flatten()
    }

    pub fn add(&mut self, hash: TokenHash, device: Uuid) {
        match self.0.entry(hash) {
            Entry::Vacant(vacant) => {
                vacant.insert(Some(device));
            }
            Entry::Occupied(mut known) if *known.get() != Some(device) => {
                known.insert(None);
            }
            Entry::Occupied(_) => {}
        }
    }

    /// A token that several have stays nobody's until all are read again.
    pub fn remove(&mut self, hash: &TokenHash, device: Uuid) {
        if self.owner(hash) == Some(device) {
            self.0.remove(hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_device_and_one_that_several_have_names_none() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut owners = TokenOwners::default();
        owners.add([1; 32], a);
        owners.add([2; 32], b);
        owners.add([1; 32], a);
        assert_eq!(owners.owner(&[1; 32]), Some(a));
        owners.remove(&[1; 32], b);
        owners.remove(&[2; 32], b);
        assert_eq!(
            (owners.owner(&[1; 32]), owners.owner(&[2; 32])),
            (Some(a), None)
        );
        owners.add([1; 32], b);
        assert_eq!(owners.owner(&[1; 32]), None);
        owners.remove(&[1; 32], a);
        assert_eq!(owners.owner(&[1; 32]), None);
    }
}
