//! Every tool in one program, as images and releases carry them: one copy of what they share instead of six.

use std::process::ExitCode;

use towpath::cli::{Tool, run_one_of};

/// In the order of a delivery.
const TOOLS: [Tool; 6] = [
    Tool {
        name: "vault-scw-creds",
        does: "hands Scaleway credentials from Vault or OpenBao to one command",
        main: vault_scw_creds::main,
    },
    Tool {
        name: "image-build",
        does: "builds an image with kaniko or buildah, and hands on its digest",
        main: image_build::main,
    },
    Tool {
        name: "image-promote-by-digest",
        does: "copies images between repositories, with every platform, and puts tags back",
        main: image_promote_by_digest::main,
    },
    Tool {
        name: "env-trigger",
        does: "starts another project's pipeline once, and follows it to its end",
        main: env_trigger::main,
    },
    Tool {
        name: "kustomize-bump",
        does: "sets images in kustomizations, takes them back, and holds them there",
        main: kustomize_bump::main,
    },
    Tool {
        name: "argocd-wait",
        does: "waits until what was committed is what runs, or says why not",
        main: argocd_wait::main,
    },
];

fn main() -> ExitCode {
    run_one_of("towpath", &TOOLS)
}
