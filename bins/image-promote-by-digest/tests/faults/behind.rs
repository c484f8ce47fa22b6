//! Real registries of both kinds, each behind a proxy that breaks exchanges.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use towpath_sandbox::servers::{Canned, Fault, Proxy, ReferrersRegistry, Registry, Rule};

use crate::image::Image;
use crate::world::{Run, World, assert_holds, tagged};

/// A registry behind a proxy.
pub(crate) struct Behind {
    pub(crate) proxy: Proxy,
    server: Arc<Server>,
}

enum Server {
    Docker(Registry),
    Referrers(ReferrersRegistry),
}

/// What goes wrong under which name, and how the run has to end.
pub(crate) type Case = (&'static str, Vec<Rule>, End);

/// How a run has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With the image complete, the tag moved, and exit code 0.
    Complete,
    /// With the tag as it was, and one of these exit codes.
    Untouched(&'static [i32]),
}

/// A docker-registry, and where Go is there a registry with the referrers API.
pub(crate) async fn each_kind(world: &World, name: &str) -> Vec<Behind> {
    let docker = Server::Docker(world.registry(name, &[]).await);
    let name = format!("{name}-with-referrers");
    let referrers = ReferrersRegistry::start(&world.guardian, &name);
    let servers = [docker]
        .into_iter()
        .chain(referrers.await.unwrap().map(Server::Referrers));
    let mut all = Vec::new();
    for server in servers {
        all.push(Behind {
            proxy: Proxy::start(server.host()).await.unwrap(),
            server: Arc::new(server),
        });
    }
    all
}

impl Server {
    fn host(&self) -> &str {
        match self {
            Server::Docker(registry) => registry.host(),
            Server::Referrers(registry) => registry.host(),
        }
    }
}

impl Behind {
    /// Where the registry itself listens: what goes there is not broken.
    pub(crate) fn direct(&self) -> &str {
        self.server.host()
    }

    pub(crate) fn is_docker(&self) -> bool {
        matches!(*self.server, Server::Docker(_))
    }

    /// The same registry behind a proxy of its own.
    pub(crate) async fn again(&self) -> Self {
        Behind {
            proxy: Proxy::start(self.direct()).await.unwrap(),
            server: self.server.clone(),
        }
    }

    /// Lets exchanges through this proxy break in these ways.
    pub(crate) fn break_by(&self, rules: &[Rule]) {
        for rule in rules {
            self.proxy.add(rule.clone());
        }
    }

    /// Checks that what was to go wrong did.
    pub(crate) fn assert_broke(&self, case: &str, rules: &[Rule]) {
        let exchanges = self.proxy.exchanges();
        assert!(
            exchanges.iter().any(|exchange| exchange.faulty),
            "{case} never happened"
        );
        let broken = exchanges.iter().any(|exchange| exchange.broken);
        assert!(
            broken || !rules.iter().any(Rule::breaks),
            "{case}: nothing broke: {exchanges:#?}"
        );
    }

    /// A reference through the proxy.
    pub(crate) fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.proxy.host())
    }

    /// Puts an image into a repository under a tag, past the proxy.
    pub(crate) async fn hold(&self, world: &World, name: &str, layout: &str) {
        let target = format!("{}/{name}", self.direct());
        world.promote(&[layout, &target]).await.succeeded();
    }

    /// Looks past the proxy at how a run ended that was to bring `new` to `repository:1`, which named `old`.
    pub(crate) async fn check(
        &self,
        run: Run,
        end: End,
        repository: &str,
        old: &Image,
        new: &Image,
        case: &str,
    ) {
        let named = tagged(self.direct(), None, repository, "1").await;
        let shown = format!("{case}: {}\n{}", run.report, run.log);
        match end {
            End::Complete => {
                assert_eq!(run.code, 0, "{shown}");
                assert_eq!(named.as_ref(), Some(&new.root), "{shown}");
                assert_holds(self.direct(), None, repository, new).await;
            }
            End::Untouched(codes) => {
                assert!(codes.contains(&run.code), "exit code {}: {shown}", run.code);
                run.failed_with(run.code);
                assert_eq!(named.as_ref(), Some(&old.root), "{shown}");
                // There is no report of a run that never got to know the source.
                assert_ne!(run.report["changed"], true, "{shown}");
            }
        }
    }

    /// How many blobs came in through the proxy.
    pub(crate) fn uploads(&self) -> usize {
        self.proxy.answered("PUT", "/blobs/uploads/", 201)
    }

    /// How many manifests came in through the proxy, tags among them.
    pub(crate) fn manifests(&self) -> usize {
        self.proxy.answered("PUT", "/manifests/", 201)
    }
}

/// Does `check` with every case, some at a time: most wait for most of their time.
pub(crate) async fn each_case<'a, F>(cases: &'a [Case], check: impl Fn(usize, &'a Case) -> F)
where
    F: Future<Output = ()> + 'a,
{
    let checks = cases.iter().enumerate().map(|(number, case)| check(number, case));
    stream::iter(checks).buffer_unordered(6).collect::<()>().await;
}

/// A rule for the first request of each thing.
pub(crate) fn once(method: &str, part: &str, fault: Fault) -> Rule {
    Rule::on(method, part, fault).each().times(1)
}

pub(crate) fn busy() -> Fault {
    Fault::Answer(Canned::error(429, "TOOMANYREQUESTS"))
}

/// Seconds, or a date.
pub(crate) fn busy_for(wait: &str) -> Fault {
    Fault::Answer(Canned::error(429, "TOOMANYREQUESTS").with("retry-after", wait))
}

pub(crate) fn status(status: u16) -> Fault {
    Fault::Answer(Canned::status(status))
}
