//! Asking a real registry whether the digest is still there.

use std::path::PathBuf;

use towpath_sandbox::base_image;
use towpath_sandbox::guardian::Guardian;
use towpath_sandbox::servers::{Canned, Fault, Proxy, Registry, Rule, docker_config};
use towpath_sandbox::tools::{Progress, Tools};

use crate::world::{self, B, Way, World, both_ways};
use crate::{PROD, ROLLBACK};

both_ways!(
    what_the_registry_has_is_gone_back_to_and_what_was_pruned_is_not,
    a_registry_that_does_not_tell_stops_nobody,
);

const USER: (&str, &str) = ("puller", "canary-of-a-password");

/// A registry with one image, and a repository in which that image was followed by another.
struct Place {
    world: World,
    registry: Registry,
    _guardian: Guardian,
    pushed: String,
    config: PathBuf,
}

impl Place {
    async fn start(way: Way) -> Place {
        let tools = Tools::find_or_install(&Progress::silent()).await.unwrap();
        let guardian = Guardian::start().unwrap();
        let registry = Registry::start(&guardian, &tools, "production", &[USER])
            .await
            .unwrap();
        let pushed = base_image::push(&tools, &registry, Some(USER), "shop/app", "v1")
            .await
            .unwrap();
        let world = World::over(way, &[("README.md", "hello\n")]).await;
        let config = world.folder.path().join("docker");
        std::fs::create_dir(&config).unwrap();
        let place = Place {
            world,
            registry,
            _guardian: guardian,
            pushed,
            config,
        };
        place.log_in(USER.1);
        place.point_to(place.registry.host()).await;
        place
    }

    fn log_in(&self, password: &str) {
        let document = docker_config(&[(self.registry.host(), USER.0, password)]);
        std::fs::write(self.config.join("config.json"), document.to_string()).unwrap();
    }

    /// Has the image come from this host, first as it was pushed, then as a digest that is nowhere.
    async fn point_to(&self, host: &str) {
        for digest in [self.pushed.as_str(), B] {
            let text = format!("images:\n- name: app\n  newName: {host}/shop/app\n  digest: {digest}\n");
            self.world.push(&[(PROD, &text)]).await;
        }
    }

    async fn run(&self, more: &[&str]) -> world::Ended {
        let variables = [("DOCKER_CONFIG", self.config.to_str().unwrap())];
        let arguments = [&ROLLBACK[..], &["--dry-run"], more].concat();
        self.world.bump_with(&variables, &arguments).await
    }
}

async fn what_the_registry_has_is_gone_back_to_and_what_was_pruned_is_not(way: Way) {
    let place = Place::start(way).await;
    let commits = place.world.commits().await;
    let ended = place.run(&[]).await;
    assert_eq!(ended.went_to(), place.pushed.as_str());
    assert_eq!(ended.report()["images"][0]["in_registry"], true);
    assert!(!ended.stderr.contains(USER.1), "{}", ended.stderr);

    let gone = format!("sha256:{}", "9".repeat(64));
    let ended = place.run(&["--to", &gone]).await;
    ended.refused(5, "the registry has no");
    assert!(
        ended.stderr.contains("--to 2") && ended.stderr.contains("--offline"),
        "{}",
        ended.stderr
    );
    let offline = place.run(&["--to", &gone, "--offline"]).await.report();
    assert_eq!(offline["images"][0]["in_registry"], serde_json::Value::Null);
    assert_eq!(place.world.commits().await, commits);
}

async fn a_registry_that_does_not_tell_stops_nobody(way: Way) {
    let place = Place::start(way).await;
    let unknown = async |why: &str| {
        let ended = place.run(&[]).await;
        assert_eq!(ended.went_to(), place.pushed.as_str(), "{why}");
        assert_eq!(
            ended.report()["images"][0]["in_registry"],
            serde_json::Value::Null,
            "{why}"
        );
        assert!(
            ended.stderr.contains("can still be pulled is not known"),
            "{why}: {}",
            ended.stderr
        );
    };
    place.log_in("wrong");
    unknown("another password").await;
    std::fs::write(place.config.join("config.json"), "no json").unwrap();
    unknown("a broken configuration").await;
    std::fs::remove_file(place.config.join("config.json")).unwrap();
    unknown("no login").await;

    place.log_in(USER.1);
    let proxy = Proxy::start(place.registry.host()).await.unwrap();
    proxy.add(Rule::on(
        "HEAD",
        "/manifests/",
        Fault::Answer(Canned {
            status: 502,
            ..Canned::default()
        }),
    ));
    place.point_to(proxy.host()).await;
    unknown("a broken registry").await;
    // Nobody listens there.
    place.point_to("127.0.0.1:9").await;
    unknown("no registry").await;
}
