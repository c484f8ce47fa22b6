//! Registries behind TLS: whom we trust, what we show them, and what is said when either side does not trust the other.

use std::fs;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use towpath_sandbox::servers::{Authority, Certificate, GuardedRegistry, Registry, Tls, Validity};

use crate::image::Image;
use crate::world::{STAGING, World, written};

/// A registry behind TLS, and the files that it takes to speak to it.
struct Guarded {
    registry: Registry,
    authority: Authority,
    ca_file: String,
}

impl Guarded {
    async fn start(world: &World, validity: Validity, wants_certificates: bool) -> Self {
        let GuardedRegistry {
            registry,
            authority,
            ca_file,
        } = GuardedRegistry::start(
            &world.guardian,
            &world.tools,
            &[STAGING],
            validity,
            wants_certificates,
        )
        .await
        .unwrap();
        world.log_in(&[(registry.host(), STAGING.0, STAGING.1)]);
        Guarded {
            registry,
            authority,
            ca_file: ca_file.display().to_string(),
        }
    }

    /// The arguments that bring a layout there, with these besides.
    fn arguments<'a>(&'a self, layout: &'a str, target: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = vec![layout, target, "--tls", self.registry.host()];
        arguments.extend(more);
        arguments
    }

    /// What a tag names, as it lies in the registry's storage.
    fn tagged(&self, repository: &str, tag: &str) -> Option<String> {
        let link = format!("docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}/current/link");
        fs::read_to_string(self.registry.storage().join(link)).ok()
    }
}

/// Writes a client's certificate and key; gives back their paths.
fn client(folder: &Path, certificate: &Certificate) -> (String, String) {
    let (certificate, key) = certificate.write_to(folder).unwrap();
    (certificate.display().to_string(), key.display().to_string())
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_given_and_nowhere_else() {
    let world = World::open().await;
    let guarded = Guarded::start(&world, Validity::Now, false).await;
    let image = Image::of_three_platforms("1");
    let layout = world.layout(&image);
    let target = format!("{}/app:1", guarded.registry.host());

    let stranger = Authority::new("stranger").unwrap();
    let wrong = written(&world.path("stranger.pem"), stranger.certificate());
    for ca in [&[][..], &["--ca-file", &wrong]] {
        let arguments = guarded.arguments(&layout, &target, ca);
        let error = world.promote(&arguments).await.failed_with(4);
        assert!(error.contains("no authority that is trusted here"), "{error}");
    }
    assert_eq!(guarded.tagged("app", "1"), None);

    let arguments = guarded.arguments(&layout, &target, &["--ca-file", &guarded.ca_file]);
    world.promote(&arguments).await.succeeded();
    assert_eq!(guarded.tagged("app", "1"), Some(image.root.clone()));
    assert_eq!(world.promote(&arguments).await.succeeded()["changed"], false);
    // What the server offers is taken: one connection for many requests.
    let log = fs::read_to_string(guarded.registry.log()).unwrap();
    assert!(log.contains(" HTTP/2.0\" 201"), "{log}");
    assert!(!log.contains(" HTTP/1.1\" "), "{log}");
}

#[tokio::test]
async fn a_registry_that_wants_a_certificate_gets_the_one_it_knows() {
    let world = World::open().await;
    let guarded = Guarded::start(&world, Validity::Now, true).await;
    let image = Image::of_three_platforms("1");
    let layout = world.layout(&image);
    let host = guarded.registry.host().to_owned();
    let target = format!("{host}/app:1");
    let own = guarded.authority.issue(&["ci"], Validity::Now).unwrap();
    let (certificate, key) = client(&world.path("own"), &own);
    let with = |more: &[&str]| {
        let mut all = vec!["--ca-file", guarded.ca_file.as_str()];
        all.extend(more);
        guarded
            .arguments(&layout, &target, &all)
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<String>>()
    };
    let run = async |more: &[&str]| {
        let arguments = with(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        world.promote(&arguments).await
    };

    let none = run(&[]).await.failed_with(4);
    assert!(
        none.contains("client certificate") && none.contains(&host),
        "{none}"
    );
    let stranger = Authority::new("stranger").unwrap();
    for (name, wrong) in [
        ("strange", stranger.issue(&["ci"], Validity::Now).unwrap()),
        (
            "expired",
            guarded.authority.issue(&["ci"], Validity::Over).unwrap(),
        ),
    ] {
        let (certificate, key) = client(&world.path(name), &wrong);
        let refused = run(&["--client-certificate", &certificate, "--client-key", &key]).await;
        let error = refused.failed_with(4);
        assert!(error.contains("client certificate"), "{name}: {error}");
    }
    assert_eq!(guarded.tagged("app", "1"), None);

    run(&["--client-certificate", &certificate, "--client-key", &key])
        .await
        .succeeded();
    assert_eq!(guarded.tagged("app", "1"), Some(image.root.clone()));

    // The same, from a folder as docker has it, which needs no other flag.
    let folder: PathBuf = world.path("certs.d");
    client(&folder.join(&host), &own);
    fs::write(folder.join(&host).join("ca.crt"), guarded.authority.certificate()).unwrap();
    let folder = folder.display().to_string();
    let report = world
        .promote(&[&layout, &format!("{host}/app:2"), "--certs-dir", &folder])
        .await
        .succeeded();
    assert_eq!(report["changed"], true);
    assert_eq!(guarded.tagged("app", "2"), Some(image.root));
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_said_to_have() {
    let world = World::open().await;
    let guarded = Guarded::start(&world, Validity::Over, false).await;
    let layout = world.layout(&Image::of_one_layer(b"layer"));
    let target = format!("{}/app:1", guarded.registry.host());
    let arguments = guarded.arguments(&layout, &target, &["--ca-file", &guarded.ca_file]);
    let error = world.promote(&arguments).await.failed_with(4);
    assert!(error.contains("it has expired"), "{error}");
}

#[tokio::test]
async fn certificates_that_are_none_are_named_before_anything_is_sent() {
    let world = World::open().await;
    let authority = Authority::new("authority").unwrap();
    let one = authority.issue(&["one"], Validity::Now).unwrap();
    let other = authority.issue(&["other"], Validity::Now).unwrap();
    let (certificate, key) = client(&world.path("one"), &one);
    let (_, others_key) = client(&world.path("other"), &other);
    let garbage = written(&world.path("garbage.pem"), "canary-no-certificate");
    let encrypted = written(
        &world.path("encrypted.pem"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\ncanary\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    for (flags, words) in [
        (&["--client-certificate", &certificate][..], "--client-key"),
        (
            &["--client-certificate", &certificate, "--client-key", "absent.key"],
            "absent.key",
        ),
        (
            &["--client-certificate", &certificate, "--client-key", &others_key],
            "do not belong together",
        ),
        (
            &["--client-certificate", &garbage, "--client-key", &key],
            "holds no client certificate",
        ),
        (
            &["--client-certificate", &certificate, "--client-key", &encrypted],
            "openssl pkey",
        ),
        (&["--ca-file", &garbage], "garbage.pem"),
        (&["--certs-dir", "absent.d"], "absent.d"),
    ] {
        let mut arguments = vec!["registry.example.com/app:1", "registry.example.com/prod:1"];
        arguments.extend(flags);
        let run = world.promote(&arguments).await;
        assert_eq!(run.code, 2, "{flags:?}: {}", run.log);
        assert!(run.log.contains(words), "{flags:?}: {}", run.log);
    }
}

/// A proxy through which every name leads to the same server, so that a test can speak to one by its real name.
async fn proxy_to(server: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(client.read_u8().await?);
                }
                assert!(request.starts_with(b"CONNECT "));
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                let mut server = TcpStream::connect(server).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn registries_of_platforms_get_what_the_platform_gave_the_job() {
    const SCALEWAY: (&str, &str) = ("nologin", "canary-scaleway-key");
    const GOOGLE_TOKEN: (&str, &str) = ("oauth2accesstoken", "canary-google-token");
    const GOOGLE_KEY: (&str, &str) = (
        "_json_key",
        "{\"type\": \"service_account\", \"private_key\": \"canary-key\"}",
    );
    const HOSTS: [&str; 3] = ["rg.fr-par.scw.cloud", "europe-west9-docker.pkg.dev", "gcr.io"];
    let world = World::open().await;
    let authority = Authority::new("authority").unwrap();
    let server = authority.issue(&HOSTS, Validity::Now).unwrap();
    let tls = Tls {
        server: &server,
        clients: None,
    };
    let users = [SCALEWAY, GOOGLE_TOKEN, GOOGLE_KEY];
    let registry = Registry::start_tls(&world.guardian, &world.tools, "registry", &users, tls)
        .await
        .unwrap();
    let proxy = proxy_to(registry.host().to_owned()).await;
    let ca_file = written(&world.path("ca.pem"), authority.certificate());
    let key_file = written(&world.path("key.json"), GOOGLE_KEY.1);
    let layout = world.layout(&Image::of_one_layer(b"layer"));
    for (host, variable, value) in [
        (HOSTS[0], "SCW_SECRET_KEY", SCALEWAY.1),
        (HOSTS[1], "CLOUDSDK_AUTH_ACCESS_TOKEN", GOOGLE_TOKEN.1),
        (HOSTS[2], "GOOGLE_APPLICATION_CREDENTIALS", &key_file),
    ] {
        let target = format!("{host}/app:{variable}");
        let run = async |variables: &[(&str, &str)]| {
            let mut command = world.command(&[&layout, &target, "--ca-file", &ca_file]);
            command.env("https_proxy", &proxy).envs(variables.iter().copied());
            world.run(command).await
        };
        let nobody = run(&[]).await.failed_with(4);
        assert!(
            nobody.contains("or set ") && nobody.contains(variable),
            "{nobody}"
        );
        let somebody = run(&[(variable, value)]).await;
        assert!(somebody.log.contains(variable), "{}", somebody.log);
        somebody.succeeded();
    }
    let log = fs::read_to_string(registry.log()).unwrap();
    for (user, _) in users {
        assert!(log.contains(&format!("auth.user.name={user} ")), "{user}: {log}");
    }
}
