//! A GitLab job in kaniko's own image: the root is laid out like the image's target `kaniko`, the job's script runs from
//! inside of it, and the real executor wipes around our programs.
//!
//! As in osscontainertools/kaniko 1.28.3's debug image: the executor and the certificates below `/kaniko`, busybox in
//! `/busybox`, which is a volume and therefore mounted, `/bin/sh` a link into it, and nothing else but `/etc`. Our program
//! and a link to it for each tool stand below `/kaniko`, as `docker/Dockerfile` copies them there; a program that is not static
//! brings the libraries that it needs. In Kubernetes the project's folder is on a
//! mount of its own; with other executors it may not be, and then the build wipes the folder that the job stands in.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use towpath_sandbox::servers::{Authority, docker_config};
use towpath_sandbox::static_binaries::{self, PROGRAM};
use towpath_sandbox::towpath_binaries;

use crate::workshop::{COMMIT, PASSWORD, USER, Workshop};

const PROJECT: &str = "builds/shop/web";

/// `$1` is the root, `$2` whether the project's folder is on a mount of its own, the rest is what runs in it.
const ENTER: &str = r#"
set -e
root=$1
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
for device in null zero full random urandom; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount --rbind "$root/dev" "$root/dev"
mount --bind "$root/busybox" "$root/busybox"
[ "$2" = unmounted ] || mount --bind "$root/builds" "$root/builds"
shift 2
exec chroot "$root" "$@"
"#;

/// Two stages with steps of their own: the file system is wiped between them.
const TWO_STAGES: &str = "\
FROM REGISTRY/base/busybox:1 AS build
COPY page.html /src/page.html
RUN tr a-z A-Z < /src/page.html > /page.html && echo more > /left-in-the-first-stage
FROM REGISTRY/base/busybox:1
COPY --from=build /page.html /page.html
RUN test \"$(cat /page.html)\" = HELLO && test ! -e /left-in-the-first-stage && test ! -e /src
";

/// A job's script. What runs in it, and stands where it stood, is there after the build: the program, and the links to it.
const BUILD: &str = r#"
set -eu
if grep -qE 'docker|kubepods|containerd|libpod|lxc|garden' /proc/1/cgroup; then
    echo 'this looks like a container: kaniko would delete nothing of anybody' > /kaniko/refused
elif env -u KUBERNETES_SERVICE_HOST image-build --oci-layout out --no-push 2> /kaniko/refused; then
    exit 71
else
    [ $? = 4 ]
fi
image-build --oci-layout out --no-push --handoff handoff.env --output json > /kaniko/first.json
for tool in TOOLS; do
    [ "$(readlink "/kaniko/$tool")" = towpath ]
    [ "$(command -v "$tool")" = "/kaniko/$tool" ]
    "$tool" --version | grep "^$tool [0-9]"
    towpath "$tool" --version | grep "^$tool [0-9]"
done
"#;

/// The folder that the shell stands in was wiped, and its name given to another one: relative paths lead nowhere.
const STAND_AGAIN: &str = r#"
if image-build push out 2> /kaniko/stranded; then exit 70; else [ $? = 2 ]; fi
cd /builds/shop/web
"#;

const PUSH: &str = r#"
cp handoff.env /kaniko/first.env
image-build push out --handoff handoff.env --output json > /kaniko/pushed.json
cp handoff.env /kaniko/pushed.env
"#;

/// Another build in the same container finds its context where that is not wiped.
const BUILD_AGAIN: &str = r#"
image-build --oci-layout again --output json > /kaniko/again.json
image-build --oci-layout anew --rebuild --output json > /kaniko/anew.json
"#;

#[tokio::test]
async fn a_job_in_kanikos_image_keeps_its_programs() {
    let Some(executor) = executor() else { return };
    let workshop = Workshop::open().await;
    let root = lay_out(&workshop, &executor);
    let script = [BUILD, PUSH, BUILD_AGAIN, "echo the-end"].concat();
    came_to_its_end(&enter(&workshop, &root, "mounted", &script).await);
    let digest = pushed(&workshop, &root);
    for name in ["again.json", "anew.json"] {
        let report = report(&root, name);
        assert_eq!(report["digest"], digest.as_str(), "{name}: the same commit");
        assert_eq!(report["changed"], true, "{name}: the layout is new");
    }
    for layout in ["again", "anew"] {
        assert!(root.join(PROJECT).join(layout).join("index.json").is_file());
    }
    left_nothing(&root);
    workshop.close().await;
}

#[tokio::test]
async fn a_job_whose_folder_is_wiped_still_has_its_layout_and_handoff() {
    let Some(executor) = executor() else { return };
    let workshop = Workshop::open().await;
    let root = lay_out(&workshop, &executor);
    let script = [BUILD, STAND_AGAIN, PUSH, "echo the-end"].concat();
    came_to_its_end(&enter(&workshop, &root, "unmounted", &script).await);
    pushed(&workshop, &root);
    assert!(
        !root.join(PROJECT).join("page.html").exists(),
        "the checkout was wiped, or this test shows nothing"
    );
    let stranded = read(&root, "stranded");
    assert!(stranded.contains("is gone"), "{stranded}");
    left_nothing(&root);
    workshop.close().await;
}

/// The real executor, where there is one.
#[allow(
    clippy::print_stdout,
    reason = "whoever runs the tests is told what was not looked at"
)]
pub(crate) fn executor() -> Option<PathBuf> {
    let named = std::env::var_os("TOWPATH_KANIKO").map(PathBuf::from);
    if named.is_none() {
        println!("skipped: TOWPATH_KANIKO names no executor, and only the real one shows this");
    }
    named
}

fn came_to_its_end(ran: &Output) {
    let (said, log) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert!(ran.status.success(), "{}\n{said}\n{log}", ran.status);
    assert!(!said.contains(PASSWORD) && !log.contains(PASSWORD), "{said}{log}");
    assert!(said.ends_with("the-end\n"), "{said}\n{log}");
}

/// What the registry has is what was built and handed over. Gives its digest.
fn pushed(workshop: &Workshop, root: &Path) -> String {
    let built = report(root, "first.json");
    assert_eq!(built["builder"], "kaniko");
    let refused = read(root, "refused");
    assert!(
        refused.contains("container") && refused.contains("kaniko would delete"),
        "{refused}"
    );
    let digest = built["digest"].as_str().unwrap().to_owned();
    assert_eq!(report(root, "pushed.json")["digest"], digest.as_str());
    assert_eq!(workshop.tagged("1.4.0"), Some(digest.clone()));
    assert!(
        !read(root, "first.env").contains("IMAGE_REF="),
        "nothing was pushed yet"
    );
    assert!(read(root, "pushed.env").contains(&format!("IMAGE_REF={}@{digest}", workshop.repository())));
    assert!(root.join(PROJECT).join("out/index.json").is_file());
    digest
}

fn read(root: &Path, name: &str) -> String {
    fs::read_to_string(root.join("kaniko").join(name)).unwrap()
}

fn report(root: &Path, name: &str) -> serde_json::Value {
    serde_json::from_str(&read(root, name)).unwrap()
}

fn left_nothing(root: &Path) {
    let left: Vec<String> = fs::read_dir(root.join("kaniko"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("towpath-"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

/// Nothing says there who root is but the variable USER, which kaniko looks the owner of copied files up by.
#[tokio::test]
async fn an_image_that_stands_on_nothing_is_built() {
    let Some(executor) = executor() else { return };
    let workshop = Workshop::open().await;
    let root = lay_out(&workshop, &executor);
    let project = root.join(PROJECT);
    fs::write(project.join("One"), "FROM scratch\nCOPY page.html /\n").unwrap();
    let two_stages = TWO_STAGES.replace("REGISTRY", workshop.registry.host());
    let (first, _) = two_stages.rsplit_once("FROM").unwrap();
    fs::write(
        project.join("Two"),
        format!("{first}FROM scratch\nCOPY --from=build /page.html /\n"),
    )
    .unwrap();
    let script = "set -eu\nfor file in One Two; do image-build --dockerfile $file --oci-layout $file.out --no-push >/kaniko/$file.json; done\necho the-end";
    came_to_its_end(&enter(&workshop, &root, "mounted", script).await);
    workshop.close().await;
}

/// We never have the executor push an image. Whoever does it by hand sees this; the table in `executor.rs` has it from here.
const PUSH_DIRECTLY: &str = r#"
push() {
    name=$1
    shift
    rm -f /kaniko/digest
    code=0
    /kaniko/executor --force --context=dir:///builds/shop/web --dockerfile=/builds/shop/web/Direct --destination=DESTINATION \
        --insecure-registry=HOST --digest-file=/kaniko/digest --log-timestamp=false "$@" 2> "/kaniko/$name" || code=$?
    [ ! -e /kaniko/digest ] || said=with
    echo "$code ${said:-without} a digest"
    said=
}
cp -R /kaniko/.docker /kaniko/right
echo '{}' > /kaniko/.docker/config.json
push no-login
printf '{"auths": {"HOST": {"username": "someone", "password": "another"}}}' > /kaniko/.docker/config.json
push wrong-login
push late --skip-push-permission-check
cp /kaniko/right/config.json /kaniko/.docker/config.json
push right-login
echo the-end
"#;

#[tokio::test]
async fn the_executor_pushes_by_itself_with_the_right_login_alone() {
    let Some(executor) = executor() else { return };
    let workshop = Workshop::open().await;
    let root = lay_out(&workshop, &executor);
    fs::write(
        root.join(PROJECT).join("Direct"),
        "FROM scratch\nCOPY page.html /\n",
    )
    .unwrap();
    let (host, destination) = (
        workshop.registry.host(),
        format!("{}:direct", workshop.repository()),
    );
    let script = PUSH_DIRECTLY
        .replace("HOST", host)
        .replace("DESTINATION", &destination);
    let ran = enter(&workshop, &root, "mounted", &script).await;
    came_to_its_end(&ran);
    assert_eq!(
        String::from_utf8_lossy(&ran.stdout),
        "1 without a digest\n1 without a digest\n1 with a digest\n0 with a digest\nthe-end\n",
        "{}{}",
        read(&root, "late"),
        read(&root, "right-login")
    );
    let before =
        format!("error checking push permissions: checking push permission for {destination:?}: POST ");
    for name in ["no-login", "wrong-login"] {
        let said = read(&root, name);
        let last = said.lines().last().unwrap();
        assert!(
            last.starts_with(&before) && last.contains("UNAUTHORIZED: authentication required"),
            "{said}"
        );
        assert!(
            !said.contains("Building stage"),
            "it is asked before the build: {said}"
        );
    }
    let late = read(&root, "late");
    let last = late.lines().last().unwrap();
    let after = format!("error pushing image: failed to push to destination {destination}: ");
    assert!(
        last.starts_with(&after) && last.contains("401 Unauthorized"),
        "{late}"
    );
    let digest = read(&root, "digest");
    assert_eq!(workshop.tagged("direct"), Some(digest));
    workshop.close().await;
}

/// Once from each of two checkouts, whose files have times of their own.
#[tokio::test]
async fn the_same_image_twice_is_one_digest() {
    let Some(executor) = executor() else { return };
    let workshop = Workshop::open().await;
    let mut digests = Vec::new();
    for day in ["2025-05-05", "2026-06-06"] {
        let root = lay_out(&workshop, &executor);
        let script = format!(
            "touch -d '{day} 12:00' page.html Dockerfile\nimage-build --oci-layout out --no-push --output json > /kaniko/{day}.json\necho the-end"
        );
        came_to_its_end(&enter(&workshop, &root, "mounted", &script).await);
        digests.push(report(&root, &format!("{day}.json"))["digest"].clone());
        fs::remove_dir_all(root).unwrap();
    }
    assert!(digests[0].is_string());
    assert_eq!(digests[0], digests[1]);
    workshop.close().await;
}

/// Lays a root out like the image, with a checkout of the project in it.
fn lay_out(workshop: &Workshop, executor: &Path) -> PathBuf {
    let root = workshop.guardian.dir().join("image");
    let at = |path: &str| root.join(path);
    for folder in [
        "kaniko/ssl/certs",
        "kaniko/.docker",
        "kaniko/lib",
        "kaniko/programs",
        "busybox",
        "bin",
        "etc",
        "tmp",
        "proc",
        "dev",
        "sys",
        PROJECT,
    ] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    fs::copy(executor, at("kaniko/executor")).unwrap();
    // The variable SSL_CERT_DIR is all that says where these are, and wiping must not take them.
    let authority = Authority::new("someone's authority").unwrap();
    fs::write(
        at("kaniko/ssl/certs/ca-certificates.crt"),
        authority.certificate(),
    )
    .unwrap();
    fs::write(at("etc/nsswitch.conf"), "hosts: files dns\n").unwrap();
    fs::write(at("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    let busybox = &workshop.tools.busybox;
    fs::copy(busybox, at("busybox/busybox")).unwrap();
    let programs = output(Command::new(busybox).arg("--list"));
    for program in programs.lines().filter(|name| *name != "busybox") {
        symlink("busybox", at("busybox").join(program)).unwrap();
    }
    symlink("/busybox/sh", at("bin/sh")).unwrap();
    let built = towpath_binaries::build().unwrap();
    install(&built.join(PROGRAM), PROGRAM, &root);
    static_binaries::link(&at("kaniko")).unwrap();
    let logins = docker_config(&[(workshop.registry.host(), USER, PASSWORD)]);
    fs::write(at("kaniko/.docker/config.json"), logins.to_string()).unwrap();
    let dockerfile = TWO_STAGES.replace("REGISTRY", workshop.registry.host());
    fs::write(at(PROJECT).join("Dockerfile"), dockerfile).unwrap();
    fs::write(at(PROJECT).join("page.html"), "hello\n").unwrap();
    root
}

/// Puts a program below `/kaniko`: as it is where it is static, as in the image; else beside its libraries, and run by their
/// loader under the name that it was called by, since what is outside of `/kaniko` is wiped.
fn install(program: &Path, name: &str, root: &Path) {
    let libraries = Command::new("ldd").arg(program).output().unwrap();
    let target = root.join("kaniko").join(name);
    if !libraries.status.success() {
        fs::copy(program, target).unwrap();
        return;
    }
    let text = String::from_utf8(libraries.stdout).unwrap();
    let files = text
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(Path::new);
    let mut loader = None;
    for file in files {
        let file_name = file.file_name().unwrap();
        fs::copy(file, root.join("kaniko/lib").join(file_name)).unwrap();
        if file_name.to_string_lossy().starts_with("ld-") {
            loader = Some(file_name.to_string_lossy().into_owned());
        }
    }
    let loader = loader.expect("a program with libraries has a loader");
    fs::copy(program, root.join("kaniko/programs").join(name)).unwrap();
    let start = format!(
        "#!/busybox/sh\nexec /kaniko/lib/{loader} --argv0 \"$0\" --library-path /kaniko/lib /kaniko/programs/{name} \"$@\"\n"
    );
    fs::write(&target, start).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs a job's script inside, with the image's environment and a runner's in Kubernetes.
async fn enter(workshop: &Workshop, root: &Path, place: &str, script: &str) -> Output {
    workshop
        .guardian
        .command("unshare")
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
        ])
        .args(["sh", "-c", ENTER, "job"])
        .arg(root)
        .arg(place)
        .args(["/busybox/sh", "-c"])
        .arg(format!(
            "cd /{PROJECT}\n{}",
            script.replace("TOOLS", &towpath_binaries::NAMES.join(" "))
        ))
        .env_clear()
        .env("TOWPATH_WORLD", workshop.guardian.id())
        .env(
            "PATH",
            "/kaniko:/usr/local/bin:/busybox:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/root")
        .env("USER", "root")
        .env("DOCKER_CONFIG", "/kaniko/.docker")
        .env("SSL_CERT_DIR", "/kaniko/ssl/certs")
        .env("KUBERNETES_SERVICE_HOST", "10.32.0.1")
        .env("TOWPATH_REPOSITORY", workshop.repository())
        .env("CI_COMMIT_TAG", "v1.4.0")
        .env("CI_COMMIT_SHA", COMMIT)
        .env("CI_COMMIT_TIMESTAMP", "2026-01-02T03:04:05Z")
        .env("CI_PROJECT_PATH", "shop/web")
        .output()
        .await
        .unwrap()
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}
