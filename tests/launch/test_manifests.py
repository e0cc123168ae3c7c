"""Manifests: what Kubernetes and JobSet demand of them, and the command they run."""

import pathlib

import pytest

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
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["command"] == ["python", "main.py"]
    for arg in container["args"]:
        if arg.startswith("--num_processes="):
            assert arg == f"--num_processes={job['completions']}"


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
