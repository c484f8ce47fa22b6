//! The keys, and what each of the servers before them knows.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::kubernetes::new_uid;

/// How IAM behaves.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// For how many requests that concern it a change is not known everywhere. Zero: at once.
    pub settles_after: u32,
    /// Decides which of these requests meet a server that does not know it yet.
    pub seed: u64,
    /// The longest that the organization lets a key last, in seconds; then each needs an end.
    pub longest: Option<i64>,
    /// How many keys a bearer may have.
    pub quota: Option<usize>,
    /// By how many seconds its clock is ahead of this machine's.
    pub clock: i64,
}

impl Settings {
    /// What time it is by its clock.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_secs(self.clock)
    }
}

/// Why requests are turned away that are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// There were too many of them (429).
    RateLimited,
    /// What they are about is being changed (409).
    Changing,
}

/// An application and what it may do.
#[derive(Clone, Debug)]
pub(super) struct Application {
    pub(super) manages: bool,
    pub(super) reads: bool,
}

/// A key as it is, with its secret half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public half.
    pub access_key: String,
    /// Its secret half.
    pub secret_key: String,
    /// Its bearer.
    pub application_id: String,
    /// What it is said to be for.
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Its project.
    pub default_project_id: String,
}

/// A key, and for how many more requests somebody may not know what became of it.
#[derive(Debug)]
struct Entry {
    key: ApiKey,
    deleted: bool,
    unsettled: u32,
}

#[derive(Debug)]
pub(super) struct State {
    settings: Settings,
    applications: BTreeMap<String, Application>,
    entries: Vec<Entry>,
    dice: u64,
    turned_away: Option<(Busy, u32)>,
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
}

impl Shared {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            state: Mutex::new(State {
                // A state of zero would never leave it.
                dice: settings.seed.wrapping_mul(2).wrapping_add(1),
                settings,
                applications: BTreeMap::new(),
                entries: Vec::new(),
                turned_away: None,
            }),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ApiKey {
    pub(super) fn ended(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// As the API shows it; the secret half only on request.
    pub(super) fn document(&self, with_secret: bool) -> Value {
        json!({
            "access_key": self.access_key,
            "secret_key": with_secret.then_some(&self.secret_key),
            "application_id": self.application_id,
            "description": self.description,
            "created_at": self.created_at.to_string(),
            "updated_at": self.created_at.to_string(),
            "expires_at": self.expires_at.map(|end| end.to_string()),
            "default_project_id": self.default_project_id,
            "editable": true,
            "deletable": true,
            "managed": false,
            "creation_ip": "127.0.0.1",
        })
    }
}

impl State {
    pub(super) fn create_application(&mut self, manages: bool, reads: bool) -> String {
        let id = new_uid();
        self.applications
            .insert(id.clone(), Application { manages, reads });
        id
    }

    pub(super) fn create_settled_key(&mut self, application_id: &str, description: &str) -> ApiKey {
        assert!(
            self.applications.contains_key(application_id),
            "there is no application {application_id}"
        );
        let key = self.new_key(application_id, description, None, None);
        if let Some(entry) = self.entries.last_mut() {
            entry.unsettled = 0;
        }
        key
    }

    pub(super) fn new_key(
        &mut self,
        application_id: &str,
        description: &str,
        expires_at: Option<Timestamp>,
        project_id: Option<&str>,
    ) -> ApiKey {
        let letters = new_uid().replace('-', "").to_uppercase();
        let key = ApiKey {
            access_key: format!("SCW{}", &letters[..17]),
            secret_key: new_uid(),
            application_id: application_id.to_owned(),
            description: description.to_owned(),
            created_at: self.settings.now(),
            expires_at,
            default_project_id: project_id.map_or_else(new_uid, str::to_owned),
        };
        self.entries.push(Entry {
            key: key.clone(),
            deleted: false,
            unsettled: self.settings.settles_after,
        });
        key
    }

    pub(super) fn keys(&self) -> Vec<ApiKey> {
        self.entries
            .iter()
            .filter(|entry| !entry.deleted)
            .map(|entry| entry.key.clone())
            .collect()
    }

    pub(super) fn refuse_next(&mut self, busy: Busy, requests: u32) {
        self.turned_away = (requests > 0).then_some((busy, requests));
    }

    /// Why the next request is turned away, if it is.
    pub(super) fn turn_away(&mut self) -> Option<Busy> {
        let (busy, requests) = self.turned_away?;
        self.refuse_next(busy, requests - 1);
        Some(busy)
    }

    pub(super) fn settle(&mut self) {
        self.entries.retain(|entry| !entry.deleted);
        for entry in &mut self.entries {
            entry.unsettled = 0;
        }
    }

    pub(super) fn age(&mut self, access_key: &str, seconds: i64) {
        let by = SignedDuration::from_secs(seconds);
        if let Some(entry) = self
            .entries
            .iter_mut()
            .find(|entry| entry.key.access_key == access_key)
        {
            entry.key.created_at -= by;
            entry.key.expires_at = entry.key.expires_at.map(|end| end - by);
        }
    }

    pub(super) fn set_clock(&mut self, ahead: i64) {
        self.settings.clock = ahead;
    }

    pub(super) fn forget(&mut self, access_key: &str) {
        self.entries.retain(|entry| entry.key.access_key != access_key);
    }

    pub(super) fn is_good(&self, secret_key: &str) -> bool {
        let now = self.settings.now();
        self.entries
            .iter()
            .any(|entry| entry.key.secret_key == secret_key && !entry.deleted && !entry.key.ended(now))
    }

    pub(super) fn application(&self, id: &str) -> Option<&Application> {
        self.applications.get(id)
    }

    /// Who asks with a secret half, as the server knows it that this request meets; else why nobody does, in the API's word.
    pub(super) fn bearer(&mut self, secret_key: &str) -> Result<String, &'static str> {
        let place = self
            .entries
            .iter()
            .position(|entry| entry.key.secret_key == secret_key);
        let Some(place) = place.filter(|&place| self.knows(place)) else {
            return Err("not_found");
        };
        let key = &self.entries[place].key;
        if key.ended(self.settings.now()) {
            return Err("expired");
        }
        Ok(key.application_id.clone())
    }

    /// What time it is by its clock.
    pub(super) fn now(&self) -> Timestamp {
        self.settings.now()
    }

    /// A key, as the server knows it that this request meets.
    pub(super) fn seen(&mut self, access_key: &str) -> Option<ApiKey> {
        let place = self.place(access_key)?;
        self.knows(place).then(|| self.entries[place].key.clone())
    }

    /// All keys that the server knows that this request meets.
    pub(super) fn all_seen(&mut self) -> Vec<ApiKey> {
        (0..self.entries.len())
            .filter(|&place| self.knows(place))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|place| self.entries[place].key.clone())
            .collect()
    }

    /// Changes go to the one place that knows everything: a key is found there, or really is not there.
    pub(super) fn change(&mut self, access_key: &str, change: impl FnOnce(&mut ApiKey)) -> Option<ApiKey> {
        let place = self.place(access_key)?;
        let entry = &mut self.entries[place];
        if entry.deleted {
            return None;
        }
        change(&mut entry.key);
        Some(entry.key.clone())
    }

    pub(super) fn delete(&mut self, access_key: &str) -> bool {
        let Some(place) = self.place(access_key) else {
            return false;
        };
        let settles_after = self.settings.settles_after;
        let entry = &mut self.entries[place];
        if entry.deleted {
            return false;
        }
        entry.deleted = true;
        entry.unsettled = settles_after;
        if settles_after == 0 {
            self.entries.remove(place);
        }
        true
    }

    pub(super) fn refuses_end(&self, end: Option<Timestamp>) -> Option<&'static str> {
        let now = self.settings.now();
        match (end, self.settings.longest) {
            (Some(end), _) if end <= now => Some("must be in the future"),
            (None, Some(_)) => Some("is required by the organization"),
            (Some(end), Some(longest)) if end > now + SignedDuration::from_secs(longest) => {
                Some("is beyond the organization's maximum")
            }
            _ => None,
        }
    }

    pub(super) fn is_full(&self, application_id: &str) -> bool {
        let there = self
            .keys()
            .iter()
            .filter(|key| key.application_id == application_id)
            .count();
        self.settings.quota.is_some_and(|quota| there >= quota)
    }

    fn place(&self, access_key: &str) -> Option<usize> {
        self.entries
            .iter()
            .position(|entry| entry.key.access_key == access_key)
    }

    /// Whether the server that this request meets takes the key for there. One more request was asked about it then.
    fn knows(&mut self, place: usize) -> bool {
        // xorshift64 (Marsaglia 2003): the same seed meets the same servers.
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        let behind = self.dice.is_multiple_of(2);
        let entry = &mut self.entries[place];
        let there = !entry.deleted;
        if entry.unsettled == 0 {
            return there;
        }
        entry.unsettled -= 1;
        there != behind
    }
}
