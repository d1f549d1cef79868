//! Argon2id (RFC 9106) on threads of its own kind: a hash takes tens of milliseconds and 19 MiB, so only a
//! few run at once, and who waits too long is told so.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::{Error, PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::people::ports::{HashError, PasswordHasher};
use crate::secret::{Entropy, Secret};

const SALT_BYTES: usize = 16;
/// How long a caller waits for its turn.
const PATIENCE: Duration = Duration::from_secs(3);

/// How much a hash costs.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Cost {
    /// 19 MiB and two passes, the least that OWASP's Password Storage Cheat Sheet gives for Argon2id.
    pub const RECOMMENDED: Self = Self { memory_kib: 19 * 1024, passes: 2 };
}

/// Hashes passwords, a few at once.
pub struct Argon2Hasher {
    cost: Cost,
    turns: Arc<Semaphore>,
    entropy: Arc<dyn Entropy>,
}

impl Argon2Hasher {
    /// With at most `at_once` hashes being computed.
    #[must_use]
    pub fn new(cost: Cost, at_once: usize, entropy: Arc<dyn Entropy>) -> Self {
        Self { cost, turns: Arc::new(Semaphore::new(at_once.max(1))), entropy }
    }

    fn argon2(cost: Cost) -> Result<Argon2<'static>, HashError> {
        let params = Params::new(cost.memory_kib, cost.passes, 1, None).map_err(failed)?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashError> {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| HashError::Busy)?.map_err(failed)?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        done.await.map_err(failed)?
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> HashError {
    HashError::Failed(Box::new(error))
}

#[async_trait]
impl PasswordHasher for Argon2Hasher {
    async fn hash(&self, password: Secret) -> Result<String, HashError> {
        let mut salt = [0; SALT_BYTES];
        self.entropy.fill(&mut salt);
        let cost = self.cost;
        self.run(move || {
            let hash = Self::argon2(cost)?.hash_password_with_salt(password.expose(), &salt).map_err(failed)?;
            Ok(hash.to_string())
        })
        .await
    }

    async fn matching(&self, password: Secret, hashes: Vec<String>) -> Result<Option<usize>, HashError> {
        let cost = self.cost;
        self.run(move || {
            let argon2 = Self::argon2(cost)?;
            for (place, hash) in hashes.iter().enumerate() {
                match argon2.verify_password(password.expose(), hash.as_str()) {
                    Ok(()) => return Ok(Some(place)),
                    Err(Error::PasswordInvalid) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            Ok(None)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SystemEntropy;

    fn hasher() -> Argon2Hasher {
        Argon2Hasher::new(Cost { memory_kib: 64, passes: 1 }, 1, Arc::new(SystemEntropy))
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn a_password_fits_its_own_hash_and_no_other_and_salts_differ() {
        let hasher = hasher();
        let (one, two) = (hasher.hash(secret("a")).await.unwrap(), hasher.hash(secret("a")).await.unwrap());
        assert!(one.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{one}");
        assert_ne!(one, two);
        assert_eq!(hasher.matching(secret("a"), vec![one.clone(), two.clone()]).await.unwrap(), Some(0));
        assert_eq!(hasher.matching(secret("A"), vec![one, two]).await.unwrap(), None);
        assert!(hasher.matching(secret("a"), vec!["nonsense".to_owned()]).await.is_err());
    }

    #[tokio::test]
    async fn a_hash_with_other_parameters_is_compared_by_its_own() {
        let stronger = Argon2Hasher::new(Cost { memory_kib: 256, passes: 3 }, 1, Arc::new(SystemEntropy));
        let hash = stronger.hash(secret("a")).await.unwrap();
        assert_eq!(hasher().matching(secret("a"), vec![hash]).await.unwrap(), Some(0));
    }
}
