//! Claims of the id_tokens a job asks for, as GitLab's "OpenID Connect (OIDC) Authentication Using ID Tokens" page
//! lists them. Signing is the caller's: see [`super::settings::Settings::id_tokens`].

use serde_json::{Value, json};

use super::hub::Hub;
use super::state::{Job, Pipeline, Project, User};
use super::tokens::random_token;

/// The claims of one token.
///
/// # Errors
/// When no random `jti` can be made.
pub(super) fn claims(
    hub: &Hub,
    job: &Job,
    pipeline: &Pipeline,
    project: &Project,
    user: &User,
    audience: &Value,
) -> anyhow::Result<Value> {
    let issued = jiff::Timestamp::now().as_second();
    let timeout = job.spec.timeout.unwrap_or(hub.settings.job_timeout);
    let (ref_type, folder) = if pipeline.tag {
        ("tag", "tags")
    } else {
        ("branch", "heads")
    };
    let ref_path = format!("refs/{folder}/{}", pipeline.ref_name);
    let protected = project.is_protected(&pipeline.ref_name, pipeline.tag).to_string();
    let role = project.role(user.id).map_or("guest", |role| role.name());
    let config = format!(
        "127.0.0.1:{}/{}//{}",
        hub.port, project.path, project.settings.ci_config_path
    );
    let mut claims = json!({
        "iss": hub.settings.issuer.as_ref().unwrap_or(&hub.url),
        "sub": format!("project_path:{}:ref_type:{ref_type}:ref:{}", project.path, pipeline.ref_name),
        "aud": audience,
        "jti": random_token("")?,
        "iat": issued,
        "nbf": issued - 5,
        "exp": issued + i64::try_from(timeout.as_secs())?,
        "namespace_id": namespace_id(project),
        "namespace_path": project.namespace(),
        "project_id": project.id.to_string(),
        "project_path": project.path,
        "project_visibility": project.settings.visibility.name(),
        "user_id": user.id.to_string(),
        "user_login": user.username,
        "user_email": user.email,
        "user_access_level": role,
        "pipeline_id": pipeline.id.to_string(),
        "pipeline_source": pipeline.source.as_str(),
        "job_id": job.id.to_string(),
        "ref": pipeline.ref_name,
        "ref_type": ref_type,
        "ref_path": ref_path,
        "ref_protected": protected,
        "runner_id": 1,
        "runner_environment": "self-hosted",
        "sha": pipeline.sha,
        "ci_config_ref_uri": format!("{config}@{ref_path}"),
        "ci_config_sha": pipeline.sha,
    });
    if let (Some(environment), Some(claims)) = (&job.environment, claims.as_object_mut()) {
        let spec = job.spec.environment.clone().unwrap_or_default();
        claims.insert("environment".into(), json!(environment));
        claims.insert("environment_protected".into(), json!("false"));
        claims.insert(
            "environment_action".into(),
            json!(spec.action.as_deref().unwrap_or("start")),
        );
        if let Some(tier) = spec.deployment_tier {
            claims.insert("deployment_tier".into(), json!(tier));
        }
    }
    Ok(claims)
}

/// Groups are no objects here; a number made of the path's bytes stays the same for one group.
fn namespace_id(project: &Project) -> String {
    let sum = project
        .namespace()
        .bytes()
        .fold(7_u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
    (sum % 100_000 + 1).to_string()
}
