//! Applications of several sources: which of them is asked about, and how.

use serde_json::{Value, json};

use crate::support::{Ends as _, LOOK, OLD, REFRESH, STREAM, SYNC, Scripted, image, ok, recorded, stream};

/// The commits that the recorded answer was compared to.
const ELSEWHERE: &str = "9820e4a92554c1b72656acf9e492ff1067c2f120";
const OF_D: &str = "1024608b475984dceceb47efc493cc032d3962de";

/// The recorded answer, of a repository that this server is the address of, where there is none.
fn of_this_server(server: &Scripted) -> Value {
    let text = recorded("sources-5").to_string();
    serde_json::from_str(&text.replace("https://gitlab.example.com", &server.url)).unwrap()
}

fn show(server: &Scripted, state: &Value) {
    server
        .on(LOOK, [ok(state)])
        .on(REFRESH, [ok(state)])
        .on(STREAM, [stream(std::slice::from_ref(state))]);
}

#[tokio::test]
async fn a_later_commit_is_asked_of_the_source_that_has_our_repository() {
    let server = Scripted::start().await;
    let mut state = of_this_server(&server);
    // What it tells of earlier deployments would be another clue.
    state["status"]["history"] = json!([]);
    show(&server, &state);
    let metadata = |commit: &str| format!("{LOOK}/revisions/{commit}/metadata?sourceIndex=1");
    let manifests = format!(
        "{LOOK}/manifests?revisions={ELSEWHERE}&sourcePositions=1&revisions={OF_D}&sourcePositions=2\
         &revisions={OF_D}&sourcePositions=3"
    );
    let manifest =
        json!({"kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [{"image": image('d')}]}});
    server
        .on(&metadata(OF_D), [ok(json!({"date": "2026-01-02T00:00:00Z"}))])
        .on(&metadata(OLD), [ok(json!({"date": "2026-01-01T00:00:00Z"}))])
        .on(&manifests, [ok(json!({"manifests": [manifest.to_string()]}))]);
    let repository = format!("{}/shop/env.git", server.url);
    let wait = async |digit| {
        let tool = server.tool(&["--repo", &repository]).env("ENV_COMMIT", OLD);
        let tool = tool.env("IMAGE_REF", &image(digit));
        tool.env("PATH", &std::env::var("PATH").unwrap()).run().await
    };
    wait('e')
        .await
        .ends(6, "superseded", &["superseded by 1024608b4759", &image('d')]);
    assert_eq!(server.asked_for(&manifests).len(), 1);
    // The same image is as good.
    wait('d').await.ends(0, "ready", &[]);
}

#[tokio::test]
async fn a_sync_goes_to_what_it_is_compared_to() {
    // A later commit carries our image, and is what the application stays out of sync with.
    let server = Scripted::start().await;
    let mut off = recorded("deploy-2");
    off["spec"].as_object_mut().unwrap().remove("syncPolicy");
    off["status"].as_object_mut().unwrap().remove("operationState");
    let mut done = recorded("deploy-5");
    done["spec"].as_object_mut().unwrap().remove("syncPolicy");
    // The history says that ours was there before.
    for state in [&mut off, &mut done] {
        state["status"]["history"] = json!([{"revision": OLD}]);
    }
    let manifest =
        json!({"kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [{"image": image('d')}]}});
    let later = crate::support::OURS;
    server
        .on(LOOK, [ok(&off), ok(&done)])
        .on(REFRESH, [ok(&off)])
        .on(STREAM, [stream(std::slice::from_ref(&off))])
        .on(
            &format!("{LOOK}/manifests?revision={later}"),
            [ok(json!({"manifests": [manifest.to_string()]}))],
        )
        .on(SYNC, [ok(json!({}))]);
    let ran = server.tool(&["--sync"]).env("ENV_COMMIT", OLD).run().await;
    ran.ends(0, "ready", &["started"]);
    assert_eq!(server.asked_for(SYNC)[0].body["revision"], later);
}
