"""tpu.sh against a gcloud that writes down its calls and answers from a list."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = (ROOT / "launch/tpu.sh", ROOT / "launch/slurm.sbatch")

# Each look at the request takes the next line of `states`, each look at the run the
# next of `ends`; the last line stays.
_GCLOUD = """#!/bin/bash
echo "$*" | tr '\\n' ' ' >>"$FAKE/calls"; echo >>"$FAKE/calls"
take() {
  head -n 1 "$FAKE/$1"
  if [[ $(wc -l <"$FAKE/$1") -gt 1 ]]; then sed -i 1d "$FAKE/$1"; fi
}
case "$*" in
*" describe "*)
  answer=$(take states)
  if [[ $answer == MISSING ]]; then echo "ERROR: NOT_FOUND: no such" >&2; exit 1; fi
  if [[ $answer == BROKEN ]]; then echo "ERROR: no network" >&2; exit 1; fi
  echo "$answer" ;;
*"cat run.exit"*) take ends ;;
*" create "*)
  for word in "$@"; do
    case $word in --metadata-from-file=*) cp "${word##*=}" "$FAKE/guard" ;; esac
  done ;;
esac
"""


@pytest.fixture
def tpu(tmp_path):
    """Returns a function that runs tpu.sh and returns its result and gcloud's calls."""
    (tmp_path / "bin").mkdir()
    gcloud = tmp_path / "bin/gcloud"
    gcloud.write_text(_GCLOUD)
    gcloud.chmod(0o755)

    def run(*args, states=(), ends=(), **variables):
        (tmp_path / "calls").write_text("")
        (tmp_path / "states").write_text("".join(f"{line}\n" for line in states))
        (tmp_path / "ends").write_text("".join(f"{line}\n" for line in ends))
        env = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "FAKE": str(tmp_path),
            "TPU_NAME": "mine",
            "TPU_ZONE": "us-central2-b",
            "TPU_TYPE": "v5litepod-16",
            "TPU_VERSION": "v2-alpha-tpuv5-lite",
            "TPU_MAX_HOURS": "3",
            "TPU_POLL": "0",
        } | variables
        result = subprocess.run(
            [SCRIPTS[0], *args], env=env, capture_output=True, text=True, timeout=60
        )
        return result, (tmp_path / "calls").read_text().splitlines()

    return run


def _kinds(calls):
    """Returns what changes something, in order."""
    words = (" create ", " scp ", "(setsid ", " delete ")
    return [word.strip(" (") for call in calls for word in words if word in call]


def test_watch_runs_to_the_end_and_deletes_the_machine(tpu):
    result, calls = tpu(
        "watch",
        "--config=a b",
        states=("MISSING", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"),
        ends=("none", "", "0"),
    )
    assert result.returncode == 0, result.stderr
    assert _kinds(calls) == ["create", "scp", "setsid", "delete"]
    started = next(call for call in calls if "setsid" in call)
    assert "--worker=all" in started


@pytest.mark.parametrize("state", ["SUSPENDED", "FAILED", "PREEMPTED"])
def test_after_a_preemption_the_machine_is_created_anew_and_runs_again(tpu, state):
    result, calls = tpu(
        "watch",
        "--config=x",
        states=("MISSING", "ACTIVE", "ACTIVE", state, "MISSING", "ACTIVE"),
        ends=("none", "", "none", "0"),
    )
    assert result.returncode == 0, result.stderr
    once = ["create", "scp", "setsid", "delete"]
    assert _kinds(calls) == once + once


def test_a_failed_run_shows_its_log_and_leaves_no_machine(tpu):
    result, calls = tpu("watch", "--config=x", states=("ACTIVE",), ends=("1",))
    assert result.returncode == 2
    assert "got 1" in result.stderr
    assert "tail -n 40" in calls[-2]
    assert _kinds(calls) == ["delete"]


def test_a_lost_connection_is_not_a_preemption(tpu):
    result, calls = tpu(
        "watch", "--config=x", states=("ACTIVE", "BROKEN", "ACTIVE"), ends=("", "0")
    )
    assert result.returncode == 0, result.stderr
    assert _kinds(calls) == ["delete"]


def test_a_machine_ends_itself_at_its_maximum_age(tpu, tmp_path):
    result, calls = tpu("create")
    assert result.returncode == 0, result.stderr
    assert "--spot" in calls[0]
    assert "--valid-until-duration=10800s" in calls[0]
    guard = (tmp_path / "guard").read_text()
    assert "sleep 10800" in guard
    assert "queued-resources delete mine" in guard
    subprocess.run(["bash", "-n"], input=guard, text=True, check=True)

    _, calls = tpu("create", TPU_SPOT="0")
    assert "--spot" not in calls[0]


def test_watch_deletes_the_machine_at_its_maximum_age(tpu, tmp_path):
    clock = tmp_path / "bin/date"  # An hour passes between two looks at it.
    clock.write_text(
        "#!/bin/bash\n"
        'echo x >>"$FAKE/looks"; echo $((3600 * $(wc -l <"$FAKE/looks")))\n'
    )
    clock.chmod(0o755)
    result, calls = tpu("watch", "--config=x", states=("ACTIVE",), ends=("",))
    assert result.returncode == 2
    assert "within 3 hours" in result.stderr
    assert _kinds(calls) == ["delete"]


def test_what_runs_on_the_machine_goes_on_after_75_and_keeps_its_flags(tpu, tmp_path):
    _, calls = tpu("run", "--config=a b", "--workdir=$HOME")
    command = calls[0].split("--command=", 1)[1].strip()
    home = tmp_path / "home"
    python = home / "palette_jax/.venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(
        '#!/bin/bash\nprintf "%s\\n" "$@"\n'
        "if [ ! -e once ]; then touch once; exit 75; fi\nexit 3\n"
    )
    python.chmod(0o755)
    command = command.replace("setsid nohup", "").replace("&)", ")")
    subprocess.run(["bash", "-c", command], cwd=home, check=True, timeout=30)
    assert (home / "palette_jax/run.exit").read_text() == "3\n"
    log = (home / "palette_jax/run.log").read_text()
    assert log == "main.py\n--config=a b\n--workdir=$HOME\n" * 2


@pytest.mark.parametrize(
    ("args", "variables", "words"),
    [
        ((), {}, "usage"),
        (("start",), {}, "got 'start'"),
        (("create",), {"TPU_NAME": ""}, "TPU_NAME"),
        (("create",), {"TPU_MAX_HOURS": ""}, "TPU_MAX_HOURS"),
        (("create",), {"TPU_MAX_HOURS": "soon"}, "got 'soon'"),
        (("create",), {"TPU_SPOT": "yes"}, "got 'yes'"),
        (("run",), {}, "flags of main.py"),
    ],
)
def test_mistakes_are_told_before_gcloud_is_called(tpu, args, variables, words):
    result, calls = tpu(*args, **variables)
    assert result.returncode == 2
    assert words in result.stderr
    assert not calls


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_pass_shellcheck(script):
    if shutil.which("shellcheck") is None:
        pytest.skip("expected shellcheck, got none; apt-get install shellcheck")
    result = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
