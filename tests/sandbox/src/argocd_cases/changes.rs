//! What is committed before a wait.

use super::Cluster;

/// What never becomes ready carries this label on its pods. Where pods are simulated, whoever simulates them has to
/// leave those alone; where images are pulled, [`Cluster::unready`] names one that is not there.
pub const NEVER_READY: &str = "towpath.example.com/never-ready";

/// What is committed before the wait.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// A Deployment of the image of this digit.
    Deploy(char),
    /// The same with other text in the repository.
    Text,
    /// A base that is not there.
    Break,
    /// A Deployment whose pods never become ready.
    Unready,
    /// A Deployment that selects other pods than the one that is there, which nobody may change.
    Selector(char),
    /// A CronJob in the place of the Deployment.
    CronJob(char),
    /// The application that does not sync by itself.
    Manual(char),
    /// The same with a note on its Deployment.
    ManualNote,
    /// A setting in the other repository, from which an application of several sources takes one.
    Elsewhere(char),
    /// A Deployment of this image in each of the two folders of the application of several sources.
    Several(char),
    /// The same with other text in the repository.
    SeveralText,
    /// A base that is not there in the last source alone.
    SeveralBreak,
    /// The last source has a Deployment of the name of the first folder's, of this image.
    SeveralOverride(char),
    /// The last source's Deployment selects other pods.
    SeveralSelector(char),
    /// The application of several sources that does not sync by itself.
    SeveralManual(char),
}

/// Which application a change is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Which {
    #[default]
    One,
    Manual,
    Several,
    SeveralManual,
}

/// A change, made out.
pub(super) struct Made {
    /// Paths in the repository, and what stands there.
    pub(super) files: Vec<(String, String)>,
    /// In the other repository.
    pub(super) is_elsewhere: bool,
    pub(super) application: Which,
    /// What the application runs then, if that is another image.
    pub(super) image: Option<String>,
}

/// What each folder is rendered from.
const KUSTOMIZATION: &str = "resources: [web.yaml]\n";

pub(super) fn make(cluster: &Cluster<'_>, change: Change) -> Made {
    let of = |digit: char| (cluster.image)(digit);
    match change {
        Change::Deploy(digit) => one(deployment("web", &of(digit), ""), Some(of(digit))),
        Change::Text => text(Which::One, "app/prod", "# Nothing new.\nresources: [web.yaml]\n"),
        Change::Break => text(Which::One, "app/prod", "resources: [web.yaml, ../nothere]\n"),
        Change::Unready => {
            let label = format!(", {NEVER_READY}: \"true\"");
            let resource = deployment("web", &cluster.unready, &label);
            one(resource, Some(cluster.unready.clone()))
        }
        Change::Selector(digit) => {
            let resource = deployment("web", &of(digit), "").replace("{app: web}", "{app: other}");
            one(resource, Some(of(digit)))
        }
        Change::CronJob(digit) => one(cron_job(&of(digit)), Some(of(digit))),
        Change::Manual(digit) => made(
            Which::Manual,
            folder("app/manual", deployment("manual", &of(digit), "")),
            Some(of(digit)),
        ),
        Change::ManualNote => {
            let kustomization = format!("{KUSTOMIZATION}commonAnnotations: {{note: later}}\n");
            text(Which::Manual, "app/manual", &kustomization)
        }
        Change::Elsewhere(digit) => {
            let settings = format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{level: \"{digit}\"}}\n"
            );
            Made {
                is_elsewhere: true,
                ..made(Which::Several, folder("settings", settings), None)
            }
        }
        Change::Several(digit) => several(
            deployment("web", &of(digit), ""),
            deployment("worker", &of(digit), ""),
            of(digit),
        ),
        Change::SeveralText => text(
            Which::Several,
            "app/several",
            "# Nothing new.\nresources: [web.yaml]\n",
        ),
        Change::SeveralBreak => text(Which::Several, "app/more", "resources: [web.yaml, ../nothere]\n"),
        Change::SeveralOverride(digit) => {
            let files = folder("app/more", deployment("web", &of(digit), ""));
            made(Which::Several, files, Some(of(digit)))
        }
        Change::SeveralSelector(digit) => {
            let worker = deployment("worker", &of(digit), "").replace("{app: worker}", "{app: other}");
            several(deployment("web", &of(digit), ""), worker, of(digit))
        }
        Change::SeveralManual(digit) => made(
            Which::SeveralManual,
            folder("app/several-manual", deployment("manual", &of(digit), "")),
            Some(of(digit)),
        ),
    }
}

fn made(application: Which, files: Vec<(String, String)>, image: Option<String>) -> Made {
    Made {
        files,
        is_elsewhere: false,
        application,
        image,
    }
}

fn one(resource: String, image: Option<String>) -> Made {
    made(Which::One, folder("app/prod", resource), image)
}

fn several(web: String, worker: String, image: String) -> Made {
    let files = [folder("app/several", web), folder("app/more", worker)].concat();
    made(Which::Several, files, Some(image))
}

/// Another kustomization, of what is there.
fn text(application: Which, folder: &str, kustomization: &str) -> Made {
    let file = (format!("{folder}/kustomization.yaml"), kustomization.to_owned());
    made(application, vec![file], None)
}

fn folder(name: &str, resource: String) -> Vec<(String, String)> {
    vec![
        (format!("{name}/web.yaml"), resource),
        (format!("{name}/kustomization.yaml"), KUSTOMIZATION.to_owned()),
    ]
}

fn deployment(name: &str, image: &str, labels: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: 1\n  \
         progressDeadlineSeconds: 5\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: \
         {name}{labels}}}}}\n    spec:\n      containers:\n      - name: web\n        image: {image}\n"
    )
}

fn cron_job(image: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: report}}\nspec:\n  schedule: \"0 3 1 1 *\"\n  \
         jobTemplate:\n    spec:\n      template:\n        spec:\n          restartPolicy: Never\n          \
         containers:\n          - name: report\n            image: {image}\n"
    )
}
