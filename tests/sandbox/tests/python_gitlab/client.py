"""What a program does with python-gitlab, in two parts: the test moves jobs in between. Says what it saw as JSON."""

import json
import os
import sys

import gitlab

url, project_path, part = os.environ["GITLAB_URL"], os.environ["PROJECT"], sys.argv[1]
client = gitlab.Gitlab(url, private_token=os.environ["ACCESS_TOKEN"])
project = client.projects.get(project_path)
said = {}


def refused(action):
    """The status and the message of a refusal."""
    try:
        action()
    except gitlab.exceptions.GitlabError as error:
        return [error.response_code, error.error_message]
    return "not refused"


def start():
    client.auth()
    said["version"] = client.version()[0]
    said["user"] = client.user.username
    by_api = project.pipelines.create(
        {"ref": "main", "variables": [{"key": "WORD", "value": "yes"}], "inputs": {"delivery": "d-1"}}
    )
    said["started"] = by_api.get_id()
    said["name"] = project.pipelines.get(by_api.id).name
    said["variables"] = [[item.key, item.value] for item in by_api.variables.list(get_all=True)]
    by_trigger = project.trigger_pipeline("main", os.environ["TRIGGER_TOKEN"], {"WORD": "no"})
    said["triggered"] = [by_trigger.id, by_trigger.source]
    by_job = project.trigger_pipeline("main", os.environ["JOB_TOKEN"])
    said["by job token"] = [by_job.id, by_job.source]
    said["no such ref"] = refused(lambda: project.pipelines.create({"ref": "nowhere"}))
    said["unknown input"] = refused(lambda: project.pipelines.create({"ref": "main", "inputs": {"other": "x"}}))
    said["no such token"] = refused(lambda: project.trigger_pipeline("main", "nonsense"))


def look():
    pipeline = project.pipelines.get(int(os.environ["PIPELINE"]))
    said["status"] = pipeline.status
    said["jobs"] = {job.name: job.status for job in pipeline.jobs.list(iterator=True, per_page=2)}
    said["attempts"] = len(pipeline.jobs.list(get_all=True, include_retried=True))
    said["failed"] = [job.name for job in pipeline.jobs.list(get_all=True, scope="failed")]
    said["bridges"] = [
        [bridge.name, bridge.downstream_pipeline["status"]] for bridge in pipeline.bridges.list(get_all=True)
    ]
    jobs = {job.name: project.jobs.get(job.id) for job in pipeline.jobs.list(get_all=True)}
    said["trace"] = jobs["lint"].trace().decode()
    jobs["approve"].play()
    said["played"] = project.jobs.get(jobs["approve"].id).status
    said["played again"] = refused(jobs["approve"].play)
    said["retried"] = jobs["lint"].retry()["id"] > jobs["lint"].id
    said["retried again"] = refused(jobs["lint"].retry)
    pipeline.cancel()
    said["after cancel"] = project.pipelines.get(pipeline.id).status
    pipeline.retry()
    said["after retry"] = project.pipelines.get(pipeline.id).status
    said["newest"] = [found.id for found in project.pipelines.list(ref="main", source="api", per_page=1, get_all=False)]
    said["on the way"] = len(project.pipelines.list(get_all=True, scope="running"))


def change():
    commit = project.commits.create(
        {
            "branch": "bump",
            "start_branch": "main",
            "commit_message": "Bump",
            "actions": [{"action": "create", "file_path": "tag.txt", "content": "1.2.3"}],
        }
    )
    said["commit"] = [commit.title, len(commit.parent_ids)]
    said["file"] = project.files.get("tag.txt", ref="bump").decode().decode()
    request = project.mergerequests.create({"source_branch": "bump", "target_branch": "main", "title": "Bump"})
    said["merge requests"] = [[found.iid, found.title] for found in project.mergerequests.list(get_all=True)]
    said["state"] = project.mergerequests.get(request.iid).state


def with_job_token():
    own = gitlab.Gitlab(url, job_token=os.environ["JOB_TOKEN"])
    seen = own.projects.get(project_path, lazy=True).pipelines.get(int(os.environ["PIPELINE"]), lazy=True)
    said["jobs"] = sorted(job.name for job in seen.jobs.list(get_all=True))
    said["cancel"] = refused(seen.cancel)[0]


def throttled():
    # It waits as long as Retry-After says, and asks again by itself.
    said["pipelines"] = len(project.pipelines.list(get_all=True, ref="main"))


{"start": start, "look": look, "change": change, "with_job_token": with_job_token, "throttled": throttled}[part]()
json.dump(said, sys.stdout)
