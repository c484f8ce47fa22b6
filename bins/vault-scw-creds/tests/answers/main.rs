//! What the servers answer, case by case, and what we make of it: a test for each row of their refusals.
//!
//! The server is a real OpenBao. Where it cannot be brought to answer so by itself (a standby behind its active server,
//! a proxy without one), what stands before it answers in its place.

#![allow(
    clippy::disallowed_methods,
    reason = "the rules are for the tool; a test looks at it from outside"
)]
#![allow(clippy::unwrap_used, reason = "a helper that fails here fails its test")]

mod login;
mod secret;
mod server;
mod token;
#[path = "../world/mod.rs"]
mod world;

use serde_json::Value;
use towpath_sandbox::servers::{Canned, Fault, Proxy, Rule};
use world::{Ran, SECRET_KEY, World, run};

struct Case {
    world: World,
    tokens: Vec<String>,
}

impl Case {
    async fn start() -> Case {
        let world = World::start().await;
        let tokens = world.tokens().await;
        Case { world, tokens }
    }

    /// Runs `exec` with these flags and variables, and a command that ends with 42.
    async fn exec(&self, flags: &[&str], variables: &[(&str, &str)]) -> Ran {
        let mut command = self.world.tool();
        command
            .envs(variables.iter().copied())
            .arg("exec")
            .args(flags)
            .args(["--", "sh", "-c", "exit 42"]);
        run(command).await
    }

    /// Ends with `code`, says `words`, shows no secret and leaves no token.
    async fn refused(self, ran: &Ran, code: i32, words: &[&str]) {
        assert_eq!(ran.code, code, "{ran:?}");
        for word in words {
            assert!(ran.stderr.contains(word), "{word:?} is not in {}", ran.stderr);
        }
        ran.assert_discreet(&[SECRET_KEY, &self.world.jwt]);
        assert_eq!(self.world.tokens().await, self.tokens, "a token is left");
        self.world.stop().await;
    }

    /// Logs in as the service account with this token.
    fn present(&self, jwt: &str) {
        std::fs::write(self.world.jwt_file(), jwt).unwrap();
    }

    async fn write(&self, path: &str, body: Value) -> Value {
        self.world.server.write(path, &body).await.unwrap()
    }

    /// A proxy before the server, with these rules.
    async fn behind(&self, rules: Vec<Rule>) -> (Proxy, String) {
        let proxy = Proxy::start(self.world.server.address().trim_start_matches("http://"))
            .await
            .unwrap();
        rules.into_iter().for_each(|rule| proxy.add(rule));
        let address = format!("http://{}", proxy.host());
        (proxy, address)
    }
}

fn canned(status: u16, body: &str) -> Fault {
    Fault::Answer(Canned {
        status,
        body: body.to_owned(),
        ..Canned::default()
    })
}
