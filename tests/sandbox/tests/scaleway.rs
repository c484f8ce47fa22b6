//! The stand-in for Scaleway's IAM refuses, forgets and hesitates as the real one does.

#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

use reqwest::Method;
use serde_json::{Value, json};
use towpath_sandbox::scaleway::{Busy, Iam, Settings};
use towpath_sandbox::servers::http_client;

struct Client<'a> {
    iam: &'a Iam,
    token: String,
}

impl Client<'_> {
    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("{}/iam/v1alpha1/api-keys{path}", self.iam.url());
        let mut request = http_client()
            .unwrap()
            .request(method, url)
            .header("X-Auth-Token", &self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.send(Method::GET, path, None).await
    }
}

/// An IAM whose changes take so many requests to be known, with an application that manages keys, and its key.
async fn world(settings: Settings) -> (Iam, String, String) {
    let iam = Iam::start(settings).await.unwrap();
    let application = iam.create_application(true, true);
    let token = iam.create_key(&application, "by hand").secret_key;
    (iam, application, token)
}

#[tokio::test]
async fn a_secret_half_is_told_once_and_a_deleted_key_is_gone() {
    let (iam, application, token) = world(Settings::default()).await;
    let client = Client { iam: &iam, token };
    let wanted = json!({"application_id": application, "description": "a test"});
    let (status, made) = client.send(Method::POST, "", Some(wanted)).await;
    assert_eq!(status, 200, "{made}");
    let (secret_key, name) = (
        made["secret_key"].as_str().unwrap(),
        made["access_key"].as_str().unwrap(),
    );
    assert!(iam.is_good(secret_key));
    let (_, shown) = client.get(&format!("/{name}")).await;
    assert_eq!(
        (&shown["description"], &shown["secret_key"]),
        (&json!("a test"), &Value::Null)
    );
    let (status, _) = client.send(Method::DELETE, &format!("/{name}"), None).await;
    assert_eq!(status, 204);
    assert!(!iam.is_good(secret_key));
    let (status, refusal) = client.get(&format!("/{name}")).await;
    assert_eq!((status, &refusal["type"]), (404, &json!("not_found")));
}

#[tokio::test]
async fn what_is_wrong_or_too_much_is_refused() {
    let settings = Settings {
        longest: Some(3600),
        quota: Some(1),
        ..Settings::default()
    };
    let (iam, application, token) = world(settings).await;
    let other = iam.create_application(false, true);
    let reader = Client {
        iam: &iam,
        token: iam.create_key(&other, "reads").secret_key,
    };
    let client = Client { iam: &iam, token };
    let end = |seconds: i64| (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string();
    let refused = async |client: &Client<'_>, body: Value| {
        let (status, refusal) = client.send(Method::POST, "", Some(body)).await;
        (status, refusal["type"].as_str().unwrap().to_owned())
    };
    for body in [
        json!({"application_id": other}),
        json!({"application_id": other, "expires_at": end(7200)}),
        json!({"application_id": other, "expires_at": end(-1)}),
        json!({"application_id": other, "expires_at": end(60), "description": "x".repeat(201)}),
        json!({"expires_at": end(60)}),
    ] {
        assert_eq!(
            refused(&client, body).await,
            (400, "invalid_arguments".to_owned())
        );
    }
    let body = json!({"application_id": application, "expires_at": end(60)});
    assert_eq!(
        refused(&client, body.clone()).await,
        (403, "quotas_exceeded".to_owned())
    );
    assert_eq!(
        refused(&reader, body.clone()).await,
        (403, "permissions_denied".to_owned())
    );
    assert_eq!(reader.get("?page_size=100").await.0, 200);
    assert_eq!(reader.get("?page_size=101").await.0, 400);
    let nobody = Client {
        iam: &iam,
        token: "wrong".to_owned(),
    };
    assert_eq!(
        refused(&nobody, body).await,
        (401, "denied_authentication".to_owned())
    );
    iam.refuse_next(Busy::RateLimited, 1);
    assert_eq!(client.get("").await.0, 429);
    iam.refuse_next(Busy::Changing, 1);
    assert_eq!(client.get("").await.0, 409);
    assert_eq!(client.get("").await.0, 200);
}

#[tokio::test]
async fn lists_come_in_pages_and_by_bearer() {
    let (iam, application, token) = world(Settings::default()).await;
    let other = iam.create_application(false, false);
    for number in 0..5 {
        iam.create_key(&other, &format!("key {number}"));
    }
    let client = Client { iam: &iam, token };
    let (_, page) = client
        .get(&format!("?bearer_id={other}&page=2&page_size=2"))
        .await;
    assert_eq!(page["total_count"], 5);
    let names: Vec<_> = page["api_keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["description"].clone())
        .collect();
    assert_eq!(names, ["key 2", "key 3"]);
    let (_, own) = client.get(&format!("?bearer_id={application}")).await;
    assert_eq!(own["total_count"], 1);
}

#[tokio::test]
async fn changes_are_known_here_and_there_before_everywhere() {
    let settings = Settings {
        settles_after: 12,
        seed: 7,
        ..Settings::default()
    };
    let (iam, application, token) = world(settings).await;
    let client = Client { iam: &iam, token };
    let (_, made) = client
        .send(Method::POST, "", Some(json!({"application_id": application})))
        .await;
    let path = format!("/{}", made["access_key"].as_str().unwrap());
    let looks = async |found: u16| {
        let mut seen = Vec::new();
        for _ in 0..12 {
            seen.push(client.get(&path).await.0 == found);
        }
        seen
    };
    let found = looks(200).await;
    let changes = found.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changes > 1, "it is found once and for all: {found:?}");
    assert_eq!(client.get(&path).await.0, 200);
    assert_eq!(client.send(Method::DELETE, &path, None).await.0, 204);
    let still = looks(200).await;
    assert!(still.contains(&true) && still.contains(&false), "{still:?}");
    assert_eq!(client.get(&path).await.0, 404);
}

#[tokio::test]
async fn a_key_has_one_bearer_and_nobody_makes_it_for_another_person() {
    let (iam, application, token) = world(Settings::default()).await;
    let client = Client { iam: &iam, token };
    let user = "0badcafe-2222-4222-8222-222222222222";
    for (wanted, status, kind) in [
        (json!({}), 400, "invalid_arguments"),
        (json!({"application_id": ""}), 400, "invalid_arguments"),
        (
            json!({"application_id": application, "user_id": user}),
            400,
            "invalid_arguments",
        ),
        (json!({"user_id": user}), 403, "permissions_denied"),
        (json!({"application_id": user}), 404, "not_found"),
    ] {
        let (got, refusal) = client.send(Method::POST, "", Some(wanted.clone())).await;
        assert_eq!((got, &refusal["type"]), (status, &json!(kind)), "{wanted}");
    }
    assert_eq!(iam.keys().len(), 1);
}

#[tokio::test]
async fn time_is_told_and_counted_by_its_own_clock() {
    let (iam, application, token) = world(Settings::default()).await;
    let client = Client { iam: &iam, token };
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(600);
    let wanted = json!({"application_id": application, "description": "unlike others", "expires_at": soon.to_string()});
    let (status, made) = client.send(Method::POST, "", Some(wanted.clone())).await;
    assert_eq!(status, 200, "{made}");
    let (_, page) = client.get("?description=unlike").await;
    assert_eq!(page["total_count"], 1, "{page}");
    iam.set_clock(3600);
    // It has ended, which is not the same as not being there.
    let ended = Client {
        iam: &iam,
        token: made["secret_key"].as_str().unwrap().to_owned(),
    };
    let (status, refusal) = ended.get("").await;
    assert_eq!((status, &refusal["reason"]), (401, &json!("expired")));
    let (status, _) = client.send(Method::POST, "", Some(wanted)).await;
    assert_eq!(status, 400, "an end in the past was taken");
}
