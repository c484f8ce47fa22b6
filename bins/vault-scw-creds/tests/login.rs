//! Each way to log in, and what is said when it is refused.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod world;

use std::time::Duration;

use serde_json::json;
use towpath_sandbox::jwt::Signer;
use towpath_sandbox::servers::JwtRole;
use world::{Ran, SECRET_KEY, STRAY_TOKEN, World, run, tool};

const HOUR: Duration = Duration::from_secs(3600);
const ISSUER: &str = "https://gitlab.example.com";

/// Runs `exec -- true` with changed arguments.
async fn exec(world: &World, flags: &[&str]) -> Ran {
    world.exec(flags, "exit 0").await
}

fn assert_refused(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is not in {}", ran.stderr);
    }
}

#[tokio::test]
async fn a_refused_service_account_learns_why() {
    let world = World::start().await;
    let tokens = world.tokens().await;
    world.cluster.create_service_account("elsewhere", "deployer");
    world.cluster.bind_auth_delegator("elsewhere", "deployer");
    let mint = |namespace: &str, audience: &str| {
        world
            .cluster
            .mint_service_account_token(namespace, "deployer", &[audience], HOUR)
            .unwrap()
    };
    let expired = world
        .cluster
        .mint_expired_service_account_token("gitlab-ci", "deployer", &["vault"])
        .unwrap();
    let nobody = exec(&world, &["--role", "nobody"]).await;
    assert_refused(&nobody, 4, &["as role nobody", "--role"]);
    let cases = [
        (
            mint("gitlab-ci", "elsewhere"),
            vec!["audience elsewhere", "role's audience"],
        ),
        (
            mint("elsewhere", "vault"),
            vec![
                "system:serviceaccount:elsewhere:deployer",
                "bound_service_account_namespaces",
            ],
        ),
        (
            expired,
            vec!["the token has ended", "system:serviceaccount:gitlab-ci:deployer"],
        ),
        ("e30.e30.c2ln".to_owned(), vec!["TokenReview"]),
    ];
    for (jwt, words) in cases {
        std::fs::write(world.jwt_file(), &jwt).unwrap();
        let ran = exec(&world, &[]).await;
        assert_refused(&ran, 4, &words);
        ran.assert_discreet(&[&jwt]);
    }
    std::fs::write(world.jwt_file(), &world.jwt).unwrap();
    assert_refused(
        &exec(&world, &["--auth-mount", "nowhere"]).await,
        4,
        &["auth/nowhere", "--auth-mount"],
    );
    assert_refused(
        &exec(&world, &["--vault-namespace", "nowhere"]).await,
        5,
        &["namespace nowhere", "VAULT_NAMESPACE"],
    );
    assert_eq!(world.tokens().await, tokens);
    world.stop().await;
}

#[tokio::test]
async fn a_job_logs_in_by_its_id_token() {
    let world = World::start().await;
    let tokens = world.tokens().await;
    let signer = Signer::generate("gitlab");
    world
        .server
        .enable_jwt_auth("gitlab", &signer.public_key_pem(), ISSUER)
        .await
        .unwrap();
    let role = JwtRole {
        user_claim: "sub".to_owned(),
        bound_audiences: vec!["https://vault.example.com".to_owned()],
        bound_claims: [("project_path".to_owned(), json!("team/infra"))]
            .into_iter()
            .collect(),
        policies: vec!["ci".to_owned()],
        ttl: "15m".to_owned(),
    };
    world.server.write_jwt_role("gitlab", "ci", &role).await.unwrap();
    let now = seconds_since_epoch();
    let token = |audience: &str, project: &str, lifetime: i64| {
        signer.sign(&json!({
            "iss": ISSUER, "sub": format!("project_path:{project}:ref_type:branch:ref:main"), "aud": audience,
            "project_path": project, "nbf": now - 600, "iat": now - 600, "exp": now + lifetime,
        }))
    };
    let with = |variable: &'static str, token: &str| {
        let mut command = world.tool();
        // The file of the other method stays set, as in the template: the job's own variable comes first.
        command
            .env(variable, token)
            .args(["exec", "--auth", "jwt", "--auth-mount", "gitlab"]);
        command
    };

    let good = token("https://vault.example.com", "team/infra", 300);
    let mut command = with("VAULT_ID_TOKEN", &good);
    command.args(["--", "sh", "-c", "env | grep -c VAULT_ID_TOKEN; exit 3"]);
    let ran = run(command).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (3, "0\n"), "{ran:?}");
    ran.assert_discreet(&[&good]);
    let mut command = with("MY_TOKEN", &good);
    command.args([
        "--jwt-variable",
        "MY_TOKEN",
        "--",
        "sh",
        "-c",
        "env | grep -c MY_TOKEN; true",
    ]);
    let ran = run(command).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "0\n"), "{ran:?}");

    let cases = [
        (
            token("https://other.example.com", "team/infra", 300),
            "audience https://other.example.com",
        ),
        (
            token("https://vault.example.com", "team/other", 300),
            "project_path:team/other",
        ),
        (
            token("https://vault.example.com", "team/infra", -300),
            "the token has ended",
        ),
    ];
    for (jwt, word) in cases {
        let mut command = with("VAULT_ID_TOKEN", &jwt);
        command.args(["--", "true"]);
        let ran = run(command).await;
        assert_refused(&ran, 4, &[word]);
        ran.assert_discreet(&[&jwt]);
    }
    let mut command = world.tool();
    command
        .env_remove("TOWPATH_JWT_FILE")
        .args(["exec", "--auth", "jwt", "--", "true"]);
    assert_refused(&run(command).await, 2, &["VAULT_ID_TOKEN", "id_tokens"]);
    assert_eq!(world.tokens().await, tokens, "a token is left");
    world.stop().await;
}

#[tokio::test]
async fn a_namespace_has_logins_and_secrets_of_its_own() {
    const INNER: &str = "0badcafe-0000-4000-8000-00000000ca77";
    let world = World::start().await;
    let signer = Signer::generate("gitlab");
    let write = async |path: &str, body: serde_json::Value| world.server.write(path, &body).await.unwrap();
    write("sys/namespaces/team", json!({})).await;
    write(
        "team/sys/mounts/kv",
        json!({"type": "kv", "options": {"version": "2"}}),
    )
    .await;
    write("team/sys/auth/ci/gitlab", json!({"type": "jwt"})).await;
    let keys = [signer.public_key_pem()];
    write(
        "team/auth/ci/gitlab/config",
        json!({"jwt_validation_pubkeys": keys, "bound_issuer": ISSUER}),
    )
    .await;
    let role = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "token_policies": ["ci"],
    });
    write("team/auth/ci/gitlab/role/ci", role).await;
    let policy = r#"path "kv/data/scw" { capabilities = ["read"] }"#;
    write("team/sys/policies/acl/ci", json!({"policy": policy})).await;
    let data = json!({"access_key": world::ACCESS_KEY, "secret_key": INNER});
    write("team/kv/data/scw", json!({"data": data})).await;
    let now = seconds_since_epoch();
    let token = signer.sign(&json!({
        "iss": ISSUER, "sub": "somebody", "aud": "vault", "iat": now - 60, "nbf": now - 60, "exp": now + 600,
    }));
    for inline in ["auto", "never"] {
        let mut command = world.tool();
        command
            .env("VAULT_NAMESPACE", "team")
            .env("VAULT_ID_TOKEN", &token)
            .args([
                "exec",
                "--auth",
                "jwt",
                "--auth-mount",
                "auth/ci/gitlab/",
                "--secret",
                "kv/scw",
            ])
            .args([
                "--inline-auth",
                inline,
                "--no-mask",
                "--",
                "sh",
                "-c",
                "echo $SCW_SECRET_KEY",
            ]);
        let ran = run(command).await;
        assert_eq!((ran.code, ran.stdout.trim()), (0, INNER), "{ran:?}");
    }
    let left = world.server.read("team/auth/token/accessors?list=true").await;
    assert!(left.is_err(), "a token is left: {left:?}");
    world.stop().await;
}

fn seconds_since_epoch() -> i64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

#[tokio::test]
async fn an_approle_logs_in_by_its_two_files() {
    let world = World::start().await;
    let tokens = world.tokens().await;
    let role = world.server.make_approle("approle", "ci", &["ci"]).await.unwrap();
    let (role_id, secret_id) = (world.path("role-id"), world.path("secret-id"));
    std::fs::write(&role_id, format!("{}\n", role.role_id)).unwrap();
    std::fs::write(&secret_id, format!("{}\n", role.secret_id)).unwrap();
    let command = || {
        let mut command = world.tool();
        command
            .env("VAULT_ROLE_ID_FILE", &role_id)
            .env("VAULT_SECRET_ID_FILE", &secret_id)
            .args([
                "exec",
                "--auth",
                "approle",
                "--",
                "sh",
                "-c",
                "env | grep -c '^VAULT_[RS]'; exit 4",
            ]);
        command
    };
    let ran = run(command()).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (4, "0\n"), "{ran:?}");
    ran.assert_discreet(&[&role.secret_id]);
    std::fs::write(&secret_id, "00000000-0000-0000-0000-000000000000").unwrap();
    assert_refused(&run(command()).await, 4, &["secret id"]);
    std::fs::write(&secret_id, "\n").unwrap();
    assert_refused(&run(command()).await, 2, &["AppRole secret id", "is empty"]);
    assert_eq!(world.tokens().await, tokens, "a token is left");
    world.stop().await;
}

#[tokio::test]
async fn a_given_token_is_used_but_not_revoked() {
    let world = World::start().await;
    let body = json!({"policies": ["ci"], "ttl": "10m", "no_parent": true});
    let created = world.server.write("auth/token/create", &body).await.unwrap();
    let token = created["auth"]["client_token"].as_str().unwrap();
    let tokens = world.tokens().await;
    let file = world.path("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let mut command = world.tool();
    command
        .env_remove("VAULT_TOKEN")
        .env("VAULT_TOKEN_FILE", &file)
        .args([
            "exec",
            "--auth",
            "token",
            "--",
            "sh",
            "-c",
            "env | grep -c '^VAULT_TOKEN'; true",
        ]);
    let ran = run(command).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "0\n"), "{ran:?}");
    ran.assert_discreet(&[token]);
    assert_eq!(world.tokens().await, tokens);

    let ran = exec(&world, &["--auth", "token"]).await;
    assert_refused(&ran, 4, &["log in again"]);
    ran.assert_discreet(&[STRAY_TOKEN]);
    world.stop().await;
}

#[tokio::test]
async fn a_batch_token_is_left_to_expire() {
    let world = World::start().await;
    let role = world.server.make_approle("approle", "ci", &["ci"]).await.unwrap();
    let body = json!({"token_policies": ["ci"], "token_type": "batch", "token_ttl": "5m"});
    world.server.write("auth/approle/role/ci", &body).await.unwrap();
    std::fs::write(world.path("role-id"), &role.role_id).unwrap();
    std::fs::write(world.path("secret-id"), &role.secret_id).unwrap();
    let mut command = world.tool();
    command
        .args(["exec", "--dry-run", "--auth", "approle", "--role-id-file"])
        .arg(world.path("role-id"))
        .arg("--secret-id-file")
        .arg(world.path("secret-id"))
        .args(["--", "true"]);
    let ran = run(command).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.json()["token"], "expires");
    world.stop().await;
}

#[tokio::test]
async fn a_server_that_cannot_answer_is_unavailable() {
    let world = World::start().await;
    // Sealing answers before it is done.
    world.server.write("sys/seal", &json!({})).await.unwrap();
    let ran = exec(&world, &[]).await;
    assert_refused(&ran, 7, &["503", "sealed"]);
    let mut command = world.tool();
    command.args(["doctor", "--output", "json"]);
    let ran = run(command).await;
    assert_eq!(ran.code, 7, "{ran:?}");
    let checks = ran.json()["checks"].clone();
    let outcome = |name: &str| {
        checks
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["check"] == name)
            .unwrap()["outcome"]
            .clone()
    };
    assert_eq!(
        (outcome("address"), outcome("server"), outcome("login")),
        (json!("ok"), json!("failed"), json!("ok"))
    );
    world.stop().await;
}

#[tokio::test]
async fn doctor_walks_the_whole_way_and_prints_no_value() {
    let world = World::start().await;
    let tokens = world.tokens().await;
    let mut command = world.tool();
    command.args(["doctor", "--output", "json"]);
    let ran = run(command).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let report = ran.json();
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 8);
    assert!(checks.iter().all(|check| check["outcome"] == "ok"), "{report}");
    assert_eq!(report["token"], "revoked");
    ran.assert_discreet(&[SECRET_KEY, &world.jwt, STRAY_TOKEN]);
    assert_eq!(world.tokens().await, tokens);
    world.stop().await;
}

#[tokio::test]
async fn wrong_arguments_are_refused_before_anything_is_sent() {
    let exec = async |variables: &[(&str, &str)], flags: &[&str]| {
        let mut command = tool();
        command
            .envs(variables.iter().copied())
            .arg("exec")
            .args(flags)
            .args(["--", "true"]);
        run(command).await
    };
    let there = ("VAULT_ADDR", "https://vault.example.com");
    let secret = ("TOWPATH_SECRET", "secret/ci/scw");
    let role = ("TOWPATH_VAULT_ROLE", "ci");
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], i32, &'a str);
    let cases: [Case<'_>; 8] = [
        (&[secret, role], &[], 2, "--vault-addr"),
        (
            &[("VAULT_ADDR", ""), secret, role],
            &[],
            2,
            "VAULT_ADDR is set but empty",
        ),
        (&[there, secret], &[], 2, "--role"),
        (&[there, role, secret], &["--field", "password=x"], 2, "password"),
        (&[there, role, ("TOWPATH_SECRET", "scw")], &[], 2, "secret path"),
        (
            &[there, role, secret],
            &["--registry-login", "https://rg.fr-par.scw.cloud"],
            2,
            "registry",
        ),
        (&[there, role, secret], &["--secret-version", "0"], 2, "--version"),
        (
            &[("VAULT_ADDR", "http://vault.example.com"), role, secret],
            &["--jwt-file", "/dev/null"],
            4,
            "plain http",
        ),
    ];
    for (variables, flags, code, word) in cases {
        assert_refused(&exec(variables, flags).await, code, &[word]);
    }
    let missing = exec(
        &[there, role, secret, ("TOWPATH_JWT_FILE", "/no/such/token")],
        &[],
    )
    .await;
    assert_refused(&missing, 2, &["service account token", "/no/such/token"]);
}
