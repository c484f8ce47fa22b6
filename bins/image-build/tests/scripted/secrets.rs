//! What a builder is given of a job's secrets: nothing but the logins it needs.

use crate::workshop::{PASSWORD, Ran, Workshop};

#[tokio::test]
async fn the_builder_sees_the_logins_it_needs_and_nothing_else() {
    let workshop = Workshop::open().await;
    let mut command = workshop.command(&["--tag", "test"]);
    command
        .env("CI_JOB_TOKEN", "canary-job-token")
        .env("MY_OWN_SECRET", "canary-of-the-project")
        .env("VAULT_TOKEN", "canary-vault-token")
        .env("HTTPS_PROXY", "http://proxy.example.com:3128")
        .env("NO_PROXY", "127.0.0.1")
        .env(
            "DOCKER_AUTH_CONFIG",
            "{\"auths\":{\"third.example.com\":{\"auth\":\"dTpjYW5hcnktb2YtdGhlLXJ1bm5lcg==\"}}}",
        );
    let ran = Ran::of(command.output().await.unwrap());
    ran.done();
    assert!(
        ran.log.contains("DOCKER_AUTH_CONFIG is set"),
        "it is told: {}",
        ran.log
    );
    let (environment, arguments) = (workshop.seen("environment"), workshop.seen("arguments"));
    assert!(
        !environment.contains("canary") && !arguments.contains("canary"),
        "{environment}{arguments}"
    );
    assert!(
        !environment.contains("CI_COMMIT_SHA"),
        "nothing of the job's is there: {environment}"
    );
    assert!(environment.contains("HTTPS_PROXY=http://proxy.example.com:3128"));
    assert_eq!(workshop.seen("seen-mode").trim(), "600");
    let logins = workshop.seen("seen-logins");
    assert!(logins.contains(workshop.registry.host()), "the base image's host");
    assert!(
        !logins.contains("other.example.com") && !logins.contains("third.example.com"),
        "{logins}"
    );
    assert!(!logins.contains(PASSWORD), "it is encoded");
    workshop.close().await;
}

#[tokio::test]
async fn a_login_that_a_step_prints_is_masked() {
    let workshop = Workshop::open().await;
    workshop.behave("cat \"$DOCKER_CONFIG/config.json\"; echo 'password: canary-registry-password-of-the-script'; succeed");
    let ran = workshop.run(&["--tag", "test"]).await;
    ran.done();
    assert!(ran.log.contains("password: ****"), "{}", ran.log);
    workshop.close().await;
}

#[tokio::test]
async fn the_cache_is_asked_for_with_its_login_and_retries() {
    let workshop = Workshop::open().await;
    let cache = "other.example.com/shop/cache";
    let arguments = ["--tag", "test", "--cache-repo", cache, "--cache-ttl", "24h"];
    workshop.run(&arguments).await.done();
    let arguments = workshop.seen("arguments");
    for argument in [
        "--cache=true",
        "--cache-repo=other.example.com/shop/cache",
        "--cache-ttl=86400s",
        "--push-retry=3",
        "--image-download-retry=3",
        "--image-fs-extract-retry=3",
    ] {
        assert!(
            arguments.lines().any(|seen| seen == argument),
            "{argument}: {arguments}"
        );
    }
    assert!(workshop.seen("seen-logins").contains("other.example.com"));
    workshop.close().await;
}
