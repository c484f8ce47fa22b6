//! Token servers of every temper: the gate in front of a real registry says who gets what.

use std::fs;

use axum::http::Method;

use towpath_sandbox::servers::{Authority, Registry, Tokens, Validity};

use crate::gate::{Asked, BEARER, Gate, Rules};
use crate::image::Image;
use crate::world::{World, assert_holds};

const DEV: (&str, &str) = ("dev", "canary-password-of-dev");
const PROD: (&str, &str) = ("prod", "canary-password-of-prod");

/// A real registry that holds an image as `dev/app:1`, with a gate before it.
struct Guarded {
    world: World,
    registry: Registry,
    gate: Gate,
    image: Image,
}

impl Guarded {
    async fn start(rules: Rules) -> Self {
        let world = World::open().await;
        let registry = world.registry("registry", &[]).await;
        let image = Image::of_three_platforms("1");
        let source = format!("{}/dev/app:1", registry.host());
        world.promote(&[&world.layout(&image), &source]).await.succeeded();
        let gate = Gate::start(registry.host(), &[DEV, PROD], rules).await;
        Guarded {
            world,
            registry,
            gate,
            image,
        }
    }

    fn log_in(&self, user: (&str, &str)) {
        self.world.log_in(&[(&self.gate.host, user.0, user.1)]);
    }

    /// Promotes `dev/app:1` to `prod/app:1` through the gate, and looks behind it for the result.
    async fn promote(&self) -> serde_json::Value {
        let host = &self.gate.host;
        let source = format!("{host}/dev/app:1");
        let target = format!("{host}/prod/app:1");
        let report = self.world.promote(&[&source, &target]).await.succeeded();
        assert_holds(self.registry.host(), None, "prod/app", &self.image).await;
        report
    }

    fn scopes(&self) -> Vec<Vec<String>> {
        self.gate.asked().into_iter().map(|asked| asked.scopes).collect()
    }
}

const SOURCE: &str = "repository:dev/app:pull";
const TARGET: &str = "repository:prod/app:pull,push";

#[tokio::test]
async fn one_token_has_every_scope_of_the_run() {
    let guarded = Guarded::start(Rules::default()).await;
    guarded.log_in(PROD);
    let report = guarded.promote().await;
    assert_eq!(report["targets"][0]["mounted"], 13);
    assert_eq!(guarded.scopes(), [[SOURCE, TARGET]]);
    // The one request that found out.
    assert_eq!(guarded.gate.refused(), 1);
}

#[tokio::test]
async fn scopes_are_asked_for_one_by_one_where_that_is_all_a_server_takes() {
    for rules in [
        Rules {
            last_scope_alone: true,
            ..Rules::default()
        },
        Rules {
            last_scope_alone: true,
            explains: false,
            ..Rules::default()
        },
    ] {
        let guarded = Guarded::start(rules).await;
        guarded.log_in(PROD);
        let report = guarded.promote().await;
        // No token is good for both sides of a mount.
        assert_eq!(report["targets"][0]["copied"], 13);
        // A handful, and not one for each blob.
        assert!(guarded.scopes().len() <= 8, "{:?}", guarded.scopes());
    }
}

#[tokio::test]
async fn two_logins_at_one_registry_mount_where_they_may_and_send_where_they_may_not() {
    const MAY_READ_ALL: fn(Option<&str>, &str, &str) -> bool = |user, repository, action| match user {
        Some("dev") => repository == "dev/app" && action == "pull",
        Some("prod") => repository == "prod/app" || action == "pull",
        _ => false,
    };
    const OWN_ALONE: fn(Option<&str>, &str, &str) -> bool =
        |user, repository, _| user.is_some_and(|user| repository.starts_with(user));
    for (grants, all_or_nothing, hides_sources, count) in [
        (MAY_READ_ALL, false, false, "mounted"),
        (OWN_ALONE, false, false, "copied"),
        (OWN_ALONE, true, false, "copied"),
        (OWN_ALONE, false, true, "copied"),
    ] {
        let guarded = Guarded::start(Rules {
            grants,
            all_or_nothing,
            hides_sources,
            ..Rules::default()
        })
        .await;
        let host = &guarded.gate.host;
        guarded.world.log_in(&[
            (&format!("{host}/dev"), DEV.0, DEV.1),
            (&format!("{host}/prod"), PROD.0, PROD.1),
        ]);
        let report = guarded.promote().await;
        assert_eq!(report["targets"][0][count], 13, "{report}");
        assert!(guarded.scopes().len() <= 8, "{:?}", guarded.scopes());
        let of_dev = guarded
            .gate
            .asked()
            .into_iter()
            .filter(|asked| asked.user.as_deref() == Some("dev"));
        assert_eq!(of_dev.map(|asked| asked.scopes).collect::<Vec<_>>(), [[SOURCE]]);
    }
}

#[tokio::test]
async fn a_token_that_ran_out_is_replaced_for_all_who_hold_it() {
    for explains in [true, false] {
        let guarded = Guarded::start(Rules {
            token_uses: Some(15),
            explains,
            ..Rules::default()
        })
        .await;
        guarded.log_in(PROD);
        guarded.promote().await;
        let asked = guarded.scopes();
        assert!(
            asked.len() >= 2 && asked.iter().all(|scopes| scopes.len() == 2),
            "{asked:?}"
        );
    }
}

#[tokio::test]
async fn what_is_open_for_reading_asks_for_a_login_when_written_to() {
    let guarded = Guarded::start(Rules {
        reading_is_free: true,
        ..Rules::default()
    })
    .await;
    let source = format!("{}/dev/app:1", guarded.gate.host);
    let target = format!("{}/prod/app:1", guarded.gate.host);
    let error = guarded.world.promote(&[&source, &target]).await.failed_with(4);
    assert!(error.contains("no login"), "{error}");
    guarded.log_in(PROD);
    guarded.promote().await;
    assert_eq!(guarded.scopes().last().unwrap(), &[SOURCE, TARGET]);
}

#[tokio::test]
async fn strangers_get_a_token_where_the_registry_gives_them_one() {
    let guarded = Guarded::start(Rules {
        grants: |user, _, action| user.is_some() || action == "pull",
        ..Rules::default()
    })
    .await;
    let host = &guarded.gate.host;
    guarded.world.log_in(&[(&format!("{host}/prod"), PROD.0, PROD.1)]);
    guarded.promote().await;
    let strangers = guarded
        .gate
        .asked()
        .into_iter()
        .filter(|asked| asked.user.is_none());
    assert_eq!(
        strangers.map(|asked| asked.scopes).collect::<Vec<_>>(),
        [[SOURCE]]
    );
}

#[tokio::test]
async fn challenges_are_met_however_they_are_written() {
    for challenges in [
        vec!["Bearer realm=http://HOST/token,service=gate"],
        vec!["bearer service='gate' realm='http://HOST/token'"],
        vec!["Negotiate abc==, Bearer realm=\"http://HOST/token\", service=\"gate\""],
        vec!["Digest realm=\"x\"", BEARER],
    ] {
        let guarded = Guarded::start(Rules {
            challenges: challenges.clone(),
            ..Rules::default()
        })
        .await;
        guarded.log_in(PROD);
        guarded.promote().await;
        assert_eq!(guarded.scopes(), [[SOURCE, TARGET]], "{challenges:?}");
    }
}

#[tokio::test]
async fn a_password_goes_to_the_registry_itself_where_its_token_server_cannot_be_used() {
    // Both ways in are open: tokens are preferred, unless they would be had from somebody else in the clear.
    for (bearer, tokens) in [
        (BEARER, 1),
        (
            "Bearer realm=\"http://tokens.example.com/token\",service=\"gate\"",
            0,
        ),
        ("Bearer realm=\"nowhere\",service=\"gate\"", 0),
    ] {
        let guarded = Guarded::start(Rules {
            challenges: vec!["Basic realm=\"gate\"", bearer],
            ..Rules::default()
        })
        .await;
        guarded.log_in(PROD);
        guarded.promote().await;
        assert_eq!(guarded.scopes().len(), tokens, "{bearer}");
    }
    let guarded = Guarded::start(Rules {
        challenges: vec!["Bearer realm=\"http://tokens.example.com/token\",service=\"gate\""],
        ..Rules::default()
    })
    .await;
    guarded.log_in(PROD);
    let source = format!("{}/dev/app:1", guarded.gate.host);
    let error = guarded
        .world
        .promote(&[&source, &format!("{}/prod/app:1", guarded.gate.host)])
        .await
        .failed_with(4);
    assert!(error.contains("without TLS, tokens.example.com"), "{error}");
}

#[tokio::test]
async fn identity_tokens_and_servers_that_take_forms_alone() {
    let guarded = Guarded::start(Rules {
        post_alone: true,
        ..Rules::default()
    })
    .await;
    let expected = Asked {
        method: Method::POST,
        user: Some(PROD.0.to_owned()),
        scopes: vec![SOURCE.to_owned(), TARGET.to_owned()],
    };
    guarded.log_in(PROD);
    guarded.promote().await;
    assert_eq!(guarded.gate.asked(), std::slice::from_ref(&expected));

    let entry = serde_json::json!({"auths": {&guarded.gate.host: {"identitytoken": PROD.1}}});
    fs::write(guarded.world.path("docker/config.json"), entry.to_string()).unwrap();
    assert_eq!(guarded.promote().await["changed"], false);
    assert_eq!(guarded.gate.asked(), [expected.clone(), expected]);

    // A token for the registry itself is shown as it is, and there is no other when it is refused.
    let before = guarded.gate.refused();
    let entry = serde_json::json!({"auths": {&guarded.gate.host: {"registrytoken": "canary-stale-token"}}});
    fs::write(guarded.world.path("docker/config.json"), entry.to_string()).unwrap();
    let source = format!("{}/dev/app:1", guarded.gate.host);
    let target = format!("{}/prod/app:2", guarded.gate.host);
    let error = guarded.world.promote(&[&source, &target]).await.failed_with(4);
    assert!(error.contains("config.json, entry"), "{error}");
    // The first request without it, and the two of the look with it.
    assert_eq!(guarded.gate.refused(), before + 3);
}

#[tokio::test]
async fn scopes_are_asked_for_in_the_registrys_own_words() {
    let guarded = Guarded::start(Rules {
        prefix: "virtual/",
        ..Rules::default()
    })
    .await;
    guarded.log_in(PROD);
    let report = guarded.promote().await;
    assert_eq!(report["targets"][0]["mounted"], 13);
    assert!(guarded.scopes().len() <= 6, "{:?}", guarded.scopes());
}

#[tokio::test]
async fn a_registry_that_hides_what_it_has_is_asked_how_to_log_in() {
    let guarded = Guarded::start(Rules {
        hides: true,
        ..Rules::default()
    })
    .await;
    guarded.log_in(PROD);
    guarded.promote().await;
    assert_eq!(guarded.scopes(), [[SOURCE, TARGET]]);
    // What it hid, and the question how.
    assert_eq!(guarded.gate.refused(), 2);

    // The same where only writing is refused, and what was read first was open to all.
    let guarded = Guarded::start(Rules {
        hides: true,
        reading_is_free: true,
        ..Rules::default()
    })
    .await;
    guarded.world.log_in(&[(&guarded.gate.host, PROD.0, PROD.1)]);
    let by_digest = format!("{}/dev/app@{}", guarded.gate.host, guarded.image.root);
    let target = format!("{}/dev/app:2", guarded.gate.host);
    guarded.world.promote(&[&by_digest, &target]).await.succeeded();
}

/// No gate stands before this registry: it checks the tokens by itself, and says by itself what they lack.
#[tokio::test]
async fn a_registry_with_a_token_server_of_its_own_gives_each_login_what_is_its_own() {
    let world = World::open().await;
    let authority = Authority::new("authority").unwrap();
    let signer = authority.issue(&["gate"], Validity::Now).unwrap();
    let image = Image::of_three_platforms("1");
    for (name, all_or_nothing) in [("narrowing", false), ("refusing", true)] {
        let tokens = Gate::start(
            "",
            &[DEV, PROD],
            Rules {
                signer: Some(signer.clone()),
                grants: |user, repository, action| match user {
                    Some("dev") => repository.starts_with("dev/"),
                    // It may read what is open to all, and not what is dev's.
                    Some("prod") => {
                        repository.starts_with("prod/") || (repository == "open/app" && action == "pull")
                    }
                    _ => false,
                },
                all_or_nothing,
                ..Rules::default()
            },
        )
        .await;
        let realm = format!("http://{}/token", tokens.host);
        let settings = Tokens {
            realm: &realm,
            service: "gate",
            issuer: "gate",
            authority: authority.certificate(),
        };
        let registry = Registry::start_tokens(&world.guardian, &world.tools, name, settings)
            .await
            .unwrap();
        let host = registry.host();
        world.log_in(&[
            (&format!("{host}/dev"), DEV.0, DEV.1),
            (&format!("{host}/prod"), PROD.0, PROD.1),
        ]);
        let source = format!("{host}/dev/app:1");
        world.promote(&[&world.layout(&image), &source]).await.succeeded();

        let within = world
            .promote(&[&source, &format!("{host}/dev/copy:1")])
            .await
            .succeeded();
        assert_eq!(within["targets"][0]["mounted"], 13, "{within}");
        let across = world
            .promote(&[&source, &format!("{host}/prod/app:1")])
            .await
            .succeeded();
        assert_eq!(across["targets"][0]["copied"], 13, "{across}");
        let again = world
            .promote(&[&source, &format!("{host}/prod/app:1")])
            .await
            .succeeded();
        assert_eq!(again["changed"], false);

        // Who may not write is told so, with what was asked for.
        let refused = world
            .promote(&[&source, &format!("{host}/dev-other/app:1")])
            .await
            .failed_with(4);
        assert!(refused.contains("no login"), "{refused}");
        world.log_in(&[(host, DEV.0, DEV.1)]);
        let refused = world
            .promote(&[&source, &format!("{host}/prod/other:1")])
            .await
            .failed_with(4);
        assert!(refused.contains("repository:prod/other:pull"), "{refused}");
        // No run took more than a handful of tokens.
        assert!(tokens.asked().len() <= 30, "{:?}", tokens.asked());
    }
}
