//! The cases, in their order.

use super::changes::Change;

/// Which commit and image are waited for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// Those of the last change.
    Latest,
    /// The commit of the last but one change, with this image.
    Earlier(char),
    /// The commit of the last change, with this image.
    Image(char),
    /// A commit that was never pushed, with the last image.
    Unpushed,
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it shows.
    pub name: &'static str,
    pub(super) changes: &'static [Change],
    pub(super) wanted: Wanted,
    /// What is special about the call.
    pub(super) call: Call,
    pub(super) code: i32,
    pub(super) verdict: &'static str,
    /// What the message has to say.
    pub(super) words: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Plain,
    /// With `--sync`.
    Sync,
    /// With `--healthy-within 5s`, which the second attempt of a sync that fails is behind.
    Impatient,
    /// With `--timeout 4s`.
    Hurried,
    UnknownApplication,
    WrongToken,
    PowerlessToken,
}

const fn case(
    name: &'static str,
    changes: &'static [Change],
    wanted: Wanted,
    code: i32,
    verdict: &'static str,
    words: &'static [&'static str],
) -> Case {
    Case {
        name,
        changes,
        wanted,
        call: Call::Plain,
        code,
        verdict,
        words,
    }
}

const fn called(call: Call, case: Case) -> Case {
    Case { call, ..case }
}

/// The table.
pub const CASES: &[Case] = &[
    case(
        "a first deployment",
        &[Change::Deploy('c')],
        Wanted::Latest,
        0,
        "ready",
        &[],
    ),
    case(
        "another digest",
        &[Change::Deploy('d')],
        Wanted::Latest,
        0,
        "ready",
        &[],
    ),
    case("what runs already", &[], Wanted::Latest, 0, "ready", &[]),
    called(
        Call::Hurried,
        case(
            "a commit that is not there",
            &[],
            Wanted::Unpushed,
            9,
            "deadline",
            &["not synced yet"],
        ),
    ),
    case(
        "other text, same manifests",
        &[Change::Text],
        Wanted::Latest,
        0,
        "ready",
        &[],
    ),
    case(
        "an earlier commit with the same image",
        &[],
        Wanted::Earlier('d'),
        0,
        "ready",
        &[],
    ),
    case(
        "a base that is not there",
        &[Change::Break],
        Wanted::Image('d'),
        8,
        "comparison_error",
        &["ComparisonError", "nothere"],
    ),
    case("mended", &[Change::Deploy('e')], Wanted::Latest, 0, "ready", &[]),
    case(
        "an earlier commit with another image",
        &[Change::Deploy('d'), Change::Deploy('e')],
        Wanted::Earlier('d'),
        6,
        "superseded",
        &["superseded"],
    ),
    case(
        "another image than the commit sets",
        &[],
        Wanted::Image('c'),
        6,
        "not_in_manifests",
        &["does not make"],
    ),
    case(
        "pods that never become ready",
        &[Change::Unready],
        Wanted::Latest,
        8,
        "degraded",
        &["Degraded", "Deployment web"],
    ),
    case(
        "nothing but a CronJob",
        &[Change::CronJob('d')],
        Wanted::Latest,
        0,
        "ready",
        &[],
    ),
    case(
        "well again",
        &[Change::Deploy('c')],
        Wanted::Latest,
        0,
        "ready",
        &[],
    ),
    // The last one of this application: Argo CD goes on trying for minutes.
    called(
        Call::Impatient,
        case(
            "a field that cannot be changed",
            &[Change::Selector('d')],
            Wanted::Latest,
            8,
            "sync_failed",
            &["failed in attempt 1 of 6", "Deployment web", "field is immutable"],
        ),
    ),
    called(
        Call::UnknownApplication,
        case(
            "an application that is not there",
            &[],
            Wanted::Latest,
            4,
            "",
            &["none of that name", "may not"],
        ),
    ),
    called(
        Call::PowerlessToken,
        case(
            "an application that may not be read",
            &[],
            Wanted::Latest,
            4,
            "",
            &["none of that name", "may not"],
        ),
    ),
    called(
        Call::WrongToken,
        case(
            "a token that is none",
            &[],
            Wanted::Latest,
            4,
            "",
            &["does not know the token"],
        ),
    ),
    case(
        "auto-sync is off",
        &[Change::Manual('c')],
        Wanted::Latest,
        9,
        "auto_sync_off",
        &["auto-sync is off"],
    ),
    called(
        Call::Sync,
        case("a sync on request", &[], Wanted::Latest, 0, "ready", &[]),
    ),
    // What is synced is the tip of the branch, which carries our image as well: our commit would stay out of sync with it.
    called(
        Call::Sync,
        case(
            "a sync on request after another commit",
            &[Change::Manual('d'), Change::ManualNote],
            Wanted::Earlier('d'),
            0,
            "ready",
            &[],
        ),
    ),
    case(
        "three sources of two repositories",
        &[Change::Elsewhere('1'), Change::Several('c')],
        Wanted::Latest,
        0,
        "ready",
        &[],
    ),
    case(
        "another digest in two of three sources",
        &[Change::Several('d')],
        Wanted::Latest,
        0,
        "ready",
        &[],
    ),
    case(
        "a commit in the other repository alone",
        &[Change::Elsewhere('2')],
        Wanted::Latest,
        0,
        "ready",
        &[],
    ),
    called(
        Call::Hurried,
        case(
            "a commit that no source has",
            &[],
            Wanted::Unpushed,
            9,
            "deadline",
            &["not synced yet"],
        ),
    ),
    case(
        "an earlier commit of several sources with the same image",
        &[Change::SeveralText],
        Wanted::Earlier('d'),
        0,
        "ready",
        &[],
    ),
    case(
        "an earlier commit of several sources with another image",
        &[Change::Several('c')],
        Wanted::Earlier('d'),
        6,
        "superseded",
        &["superseded"],
    ),
    case(
        "a base that is not there in the last source",
        &[Change::SeveralBreak],
        Wanted::Image('c'),
        8,
        "comparison_error",
        &["ComparisonError", "source 3 of 3", "nothere"],
    ),
    case(
        "the last source mended",
        &[Change::Several('e')],
        Wanted::Latest,
        0,
        "ready",
        &[],
    ),
    case(
        "the last of two sources of one resource",
        &[Change::SeveralOverride('d')],
        Wanted::Latest,
        0,
        "ready",
        &[],
    ),
    case(
        "the first of two sources of one resource",
        &[],
        Wanted::Image('e'),
        6,
        "not_in_manifests",
        &["does not make", "dddd"],
    ),
    case(
        "each resource of one source again",
        &[Change::Several('d')],
        Wanted::Latest,
        0,
        "ready",
        &[],
    ),
    // The last one of this application, too.
    called(
        Call::Impatient,
        case(
            "a field of the last source that cannot be changed",
            &[Change::SeveralSelector('c')],
            Wanted::Latest,
            8,
            "sync_failed",
            &[
                "failed in attempt 1 of 6",
                "Deployment worker",
                "field is immutable",
            ],
        ),
    ),
    case(
        "auto-sync of several sources is off",
        &[Change::SeveralManual('c')],
        Wanted::Latest,
        9,
        "auto_sync_off",
        &["auto-sync is off"],
    ),
    called(
        Call::Sync,
        case(
            "a sync of several sources on request",
            &[],
            Wanted::Latest,
            0,
            "ready",
            &[],
        ),
    ),
];
