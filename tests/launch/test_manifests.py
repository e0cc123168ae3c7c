"""Manifests: what Kubernetes and JobSet demand of them, and the command they run."""

import pathlib
import subprocess

import pytest
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

yaml = pytest.importorskip("yaml")

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch"
JOBSETS = sorted(LAUNCH.glob("gke-*.yaml"))


def _job(path: pathlib.Path) -> tuple[dict, dict]:
    jobset = yaml.safe_load(path.read_text())
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert jobset["kind"] == "JobSet"
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return jobset, replicated["template"]["spec"]


@pytest.mark.parametrize("path", JOBSETS, ids=lambda path: path.stem)
def test_a_manifest_has_no_field_that_the_published_api_has_not(path):
    manifest = yaml.safe_load(path.read_text())
    # What is of another type is refused, and what is unknown does not come back.
    assert not _lost(manifest, JobsetV1alpha2JobSet.from_dict(manifest).to_dict())
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    pod["containers"][0]["argz"] = ["--config=x"]
    (found,) = _lost(manifest, JobsetV1alpha2JobSet.from_dict(manifest).to_dict())
    assert found.endswith("/containers/0/argz")


def _lost(given, understood, path=""):
    """Returns the paths of what is given and was not understood."""
    if isinstance(given, list):
        given, understood = dict(enumerate(given)), dict(enumerate(understood))
    if not isinstance(given, dict):
        return [] if given == understood else [path]
    lost = []
    for key, value in given.items():
        below = f"{path}/{key}"
        known = key in understood
        lost += _lost(value, understood[key], below) if known else [below]
    return lost


@pytest.mark.parametrize("path", JOBSETS, ids=lambda path: path.stem)
def test_code_75_and_lost_nodes_restart_without_being_counted(path):
    jobset, job = _job(path)
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    codes, lost = job["podFailurePolicy"]["rules"]
    (container,) = job["template"]["spec"]["containers"]
    assert codes["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [75],
    }
    assert lost["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert {codes["action"], lost["action"]} == {"FailJob"}
    # Kubernetes takes a pod failure policy with this restart policy alone.
    assert job["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("path", JOBSETS, ids=lambda path: path.stem)
def test_every_host_has_a_pod_that_may_save_and_ends_some_day(path):
    _, job = _job(path)
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert job["parallelism"] == job["completions"] > 1
    assert job["completionMode"] == "Indexed"
    assert job["activeDeadlineSeconds"] > 0
    assert pod["terminationGracePeriodSeconds"] >= 300
    for arg in container["args"]:
        if arg.startswith("--num_processes="):
            assert arg == f"--num_processes={job['completions']}"


def test_a_gpu_pod_is_not_root_and_a_tpu_pod_is_unprivileged():
    _, job = _job(LAUNCH / "gke-gpu.yaml")
    pod = job["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["containers"][0]["command"] == ["python", "main.py"]
    _, job = _job(LAUNCH / "gke-tpu.yaml")
    (container,) = job["template"]["spec"]["containers"]
    security = container["securityContext"]
    # Only root may open the device nodes and lock memory for them.
    assert security["runAsUser"] == 0 and security["privileged"] is False
    assert security["capabilities"]["add"] == ["SYS_RESOURCE"]


def test_the_command_of_the_tpu_pod_locks_memory_and_keeps_its_arguments(tmp_path):
    _, job = _job(LAUNCH / "gke-tpu.yaml")
    (container,) = job["template"]["spec"]["containers"]
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    bash, option, script, *rest = container["command"]
    script = script.replace("ulimit -l 68719476736;", "echo locked;")
    done = subprocess.run(
        [bash, option, script, *rest, "--a=b c", "--d"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "locked\nmain.py\n--a=b c\n--d\n", done.stderr


def test_the_tpu_slice_has_the_chips_of_its_topology():
    _, job = _job(LAUNCH / "gke-tpu.yaml")
    pod = job["template"]["spec"]
    rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
    assert int(rows) * int(columns) == job["completions"] * chips


@pytest.mark.parametrize("path", sorted(LAUNCH.glob("*.Dockerfile")), ids=str)
def test_containers_do_not_run_as_root(path):
    lines = path.read_text().splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER palette"]


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_job_of_skypilot_goes_on_after_75_and_every_node_knows_its_place(
    tmp_path, nodes
):
    job = yaml.safe_load((LAUNCH / "sky.yaml").read_text())
    assert job["resources"]["use_spot"] is True
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(
        '#!/bin/bash\necho "$@"\n[ -e once ] && exit 3\ntouch once\nexit 75\n'
    )
    python.chmod(0o755)
    env = job["envs"] | {
        "PATH": "/usr/bin:/bin",
        "WORKDIR": "gs://bucket/run",
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
        "SKYPILOT_NUM_NODES": str(nodes),
        "SKYPILOT_NODE_RANK": "1",
    }
    done = subprocess.run(
        ["bash", "-c", job["run"]],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    said = f"main.py --config={job['envs']['CONFIG']} --workdir=gs://bucket/run"
    if nodes == 2:
        said += " --coordinator=10.0.0.1:1234 --num_processes=2 --process_id=1"
    assert (done.returncode, done.stdout) == (3, f"{said}\n" * 2), done.stderr
