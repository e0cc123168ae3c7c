"""tpu.sh against a gcloud whose hosts are folders, and whose clock is its calls."""

import os
import pathlib
import shutil
import signal
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = (ROOT / "launch/tpu.sh", ROOT / "launch/slurm.sbatch")

# Each look at the request takes the next line of `states`, and each look at the
# machine the next of `nodes`; the last line stays. Before look N at the request,
# `event_N` runs. What is sent to a host runs in its folder; a host without a folder
# cannot be reached.
_GCLOUD = r"""#!/bin/bash
echo "$*" | tr '\n' ' ' >>"$FAKE/calls"; echo >>"$FAKE/calls"
take() {
  head -n 1 "$FAKE/$1"
  if [[ $(wc -l <"$FAKE/$1") -gt 1 ]]; then sed -i 1d "$FAKE/$1"; fi
}
case "$*" in
*" describe "*) echo "WARNING: a new version of gcloud is available" >&2 ;;
esac
case "$*" in
*"queued-resources describe"*)
  echo look >>"$FAKE/looks"
  number=$(wc -l <"$FAKE/looks")
  if [[ -e $FAKE/event_$number ]]; then bash "$FAKE/event_$number"; fi
  answer=$(take states)
  if [[ $answer == MISSING ]]; then echo "ERROR: NOT_FOUND: no such" >&2; exit 1; fi
  if [[ $answer == BROKEN ]]; then echo "ERROR: no network" >&2; exit 1; fi
  echo "$answer" ;;
*"tpu-vm describe"*) take nodes ;;
*"tpu-vm scp"*)
  for host in "$FAKE"/hosts/?; do cp "$5" "$host/palette.tar.gz"; done ;;
*"tpu-vm ssh"*)
  hosts="0 1"
  for word in "$@"; do
    case $word in
    --command=*) command=${word#--command=} ;;
    --worker=0) hosts=0 ;;
    esac
  done
  for host in $hosts; do
    cd "$FAKE/hosts/$host" 2>/dev/null || { echo "host $host: no route" >&2; exit 1; }
    bash -c "$command" || exit 1
  done ;;
*" create "*)
  if [[ -e $FAKE/refusal ]]; then cat "$FAKE/refusal" >&2; exit 1; fi
  rm -rf "$FAKE/hosts"; mkdir -p "$FAKE/hosts/0" "$FAKE/hosts/1"
  for word in "$@"; do
    case $word in --metadata-from-file=*) cp "${word##*=}" "$FAKE/guard" ;; esac
  done ;;
esac
"""

# A host's Python 3.10, which the package refuses; `uv venv` brings another one.
_PYTHON3 = """#!/bin/bash
echo "$*" >>"$FAKE/installs"
case "$*" in
*"uv venv"*"--python 3.12"*) mkdir -p .venv/bin; cp "$FAKE/trainer" .venv/bin/python ;;
"-m venv"*) mkdir -p .venv/bin; echo 'exit 1' >.venv/bin/pip; chmod +x .venv/bin/pip ;;
esac
"""

# Trains until the file `stop` says with which code to end.
_TRAINER = """#!/bin/bash
printf '%s\\n' "$@" >>"$PWD/arguments"
for _ in $(seq 600); do
  if [[ -e stop ]]; then code=$(cat stop); rm stop; exit "$code"; fi
  sleep 0.05
done
exit 9
"""


@pytest.fixture
def tpu(tmp_path):
    """Returns a function that runs tpu.sh and returns its result and gcloud's calls."""
    for name, text in (
        ("bin/gcloud", _GCLOUD),
        ("bin/python3", _PYTHON3),
        ("trainer", _TRAINER),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    for host in "01":
        (tmp_path / "hosts" / host).mkdir(parents=True)
    script = tmp_path / "checkout/launch/tpu.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(SCRIPTS[0], script)
    shutil.copy(ROOT / "requirements.txt", tmp_path / "checkout")

    def run(*args, states=(), nodes=("READY\tHEALTHY",), events=None, **variables):
        for name, lines in (("calls", ()), ("states", states), ("nodes", nodes)):
            (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
        (tmp_path / "looks").write_text("")
        for number, command in (events or {}).items():
            (tmp_path / f"event_{number}").write_text(f'cd "$FAKE/hosts"\n{command}\n')
        env = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "FAKE": str(tmp_path),
            "TPU_NAME": "mine",
            "TPU_ZONE": "us-west4-a",
            "TPU_TYPE": "v5litepod-16",
            "TPU_VERSION": "v2-alpha-tpuv5-lite",
            "TPU_MAX_HOURS": "3",
            "TPU_POLL": "0.3",
            "TPU_SETTLE": "1",
            "TPU_RESTARTS": "2",
        } | variables
        result = subprocess.run(
            [script, *args], env=env, capture_output=True, text=True, timeout=60
        )
        return result, (tmp_path / "calls").read_text().splitlines()

    yield run
    for pid in tmp_path.glob("hosts/*/palette_jax/run.pid"):
        try:
            os.killpg(int(pid.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            pass


END = "for host in ?; do echo {} >$host/palette_jax/stop; done"
KILL = "kill -9 -- -$(cat {0}/palette_jax/run.pid)"


def _kinds(calls):
    """Returns what changes something, in order."""
    words = (" create ", " scp ", "(setsid ", " delete ")
    return [word.strip(" (") for call in calls for word in words if word in call]


STARTED = ["create", "scp", "setsid"]


def test_watch_runs_to_the_end_and_deletes_the_machine(tpu, tmp_path):
    result, calls = tpu(
        "watch",
        "--config=a b",
        states=("MISSING", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"),
        events={7: END.format(0)},
    )
    assert result.returncode == 0, result.stderr
    assert _kinds(calls) == [*STARTED, "delete"]
    for host in "01":
        arguments = tmp_path / "hosts" / host / "palette_jax/arguments"
        assert arguments.read_text() == "main.py\n--config=a b\n"


@pytest.mark.parametrize(
    ("refusal", "is_final"),
    [
        ("ERROR: PERMISSION_DENIED: tpu.nodes.create", True),
        ("ERROR: INVALID_ARGUMENT: no such accelerator type", True),
        ("ERROR: RESOURCE_EXHAUSTED: quota exceeded", False),
    ],
)
def test_a_request_that_can_never_be_granted_ends_watch(
    tpu, tmp_path, refusal, is_final
):
    (tmp_path / "refusal").write_text(refusal)
    grant = {3: "rm $FAKE/refusal"}
    end = {8: END.format(0)}
    result, calls = tpu(
        "watch",
        "--config=x",
        states=("MISSING", "MISSING", "MISSING", "ACTIVE"),
        events={} if is_final else grant | end,
    )
    assert refusal in result.stderr
    assert result.returncode == (2 if is_final else 0)
    assert _kinds(calls) == (
        ["create"] if is_final else ["create", "create", *STARTED, "delete"]
    )


def test_a_host_with_an_old_python_gets_a_new_one_and_the_pinned_versions(
    tpu, tmp_path
):
    result, _ = tpu("sync")
    assert result.returncode == 0, result.stderr
    installs = (tmp_path / "installs").read_text().splitlines()
    half = len(installs) // 2
    assert installs[:half] == installs[half:], "both hosts are installed alike"
    uv, venv, package = installs[:half]
    assert "uv venv" in venv and "--python 3.12" in venv
    assert "-c requirements.txt" in uv and "-c requirements.txt" in package
    assert ".[train,tpu]" in package
    assert (tmp_path / "hosts/1/palette_jax/requirements.txt").exists()


@pytest.mark.parametrize("state", ["SUSPENDED", "FAILED"])
def test_after_a_preemption_the_machine_is_created_again_and_runs_again(tpu, state):
    result, calls = tpu(
        "watch",
        "--config=x",
        states=("MISSING", "ACTIVE", "ACTIVE", state, "MISSING", "ACTIVE"),
        events={9: END.format(0)},
    )
    assert result.returncode == 0, result.stderr
    assert _kinds(calls) == [*STARTED, "delete", *STARTED, "delete"]


@pytest.mark.parametrize("node", ["PREEMPTED\t", "TERMINATED\t", "READY\tTIMEOUT"])
def test_a_host_that_is_taken_away_ends_the_others_before_the_service_knows(tpu, node):
    # The request stays ACTIVE; only the machine's state tells, and it does so late.
    healthy = "READY\tHEALTHY"
    result, calls = tpu(
        "watch",
        "--config=x",
        states=("MISSING", *["ACTIVE"] * 7, "MISSING", "ACTIVE"),
        nodes=(*[healthy] * 5, node, healthy),
        events={
            4: f"{KILL.format(1)}; rm -r 1; echo 1 >0/palette_jax/stop",
            14: END.format(0),
        },
        TPU_SETTLE="20",
    )
    assert result.returncode == 0, result.stderr
    assert "preempted" in result.stderr
    assert _kinds(calls) == [*STARTED, "delete", *STARTED, "delete"]


def test_a_run_that_a_reboot_ended_is_started_again(tpu):
    # What was written stays; the processes and what they would have written do not.
    result, calls = tpu(
        "watch",
        "--config=x",
        states=("MISSING", "ACTIVE"),
        events={4: f"{KILL.format(0)}; {KILL.format(1)}", 14: END.format(0)},
    )
    assert result.returncode == 0, result.stderr
    assert _kinds(calls) == [*STARTED, "scp", "setsid", "delete"]


def test_where_one_host_failed_the_others_are_ended_before_the_restart(tpu, tmp_path):
    result, _ = tpu(
        "watch",
        "--config=x",
        states=("MISSING", "ACTIVE"),
        events={
            4: "cp 1/palette_jax/run.pid $FAKE/old; echo 1 >0/palette_jax/stop",
            16: 'kill -0 -- -$(cat "$FAKE/old") && touch "$FAKE/both"; '
            + END.format(0),
        },
    )
    assert result.returncode == 0, result.stderr
    assert "restart 1 of 2" in result.stderr
    assert not (tmp_path / "both").exists()


def test_a_run_that_fails_again_and_again_shows_its_log_and_leaves_no_machine(tpu):
    result, calls = tpu(
        "watch",
        "--config=x",
        states=("ACTIVE",),
        events={n: END.format(1) for n in range(2, 60)},
        TPU_SETTLE="0",
    )
    assert result.returncode == 2
    assert "after 2 restarts" in result.stderr
    assert "tail -n 40" in calls[-2]
    assert _kinds(calls) == [*["scp", "setsid"] * 3, "delete"]


def test_an_installation_that_fails_again_and_again_leaves_no_machine(tpu, tmp_path):
    (tmp_path / "bin/python3").write_text("#!/bin/bash\nexit 1\n")
    result, calls = tpu("watch", "--config=x", states=("ACTIVE",))
    assert result.returncode == 2
    assert _kinds(calls) == [*["scp"] * 3, "delete"]


def test_a_lost_connection_is_not_a_preemption(tpu):
    result, calls = tpu(
        "watch",
        "--config=x",
        states=("ACTIVE", "ACTIVE", "BROKEN", "ACTIVE"),
        events={3: "mv 1 away", 4: "mv away 1", 6: END.format(0)},
    )
    assert result.returncode == 0, result.stderr
    assert _kinds(calls) == ["scp", "setsid", "delete"]


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
        'echo x >>"$FAKE/clock"; echo $((3600 * $(wc -l <"$FAKE/clock")))\n'
    )
    clock.chmod(0o755)
    result, calls = tpu("watch", "--config=x", states=("ACTIVE",))
    assert result.returncode == 2
    assert "within 3 hours" in result.stderr
    assert _kinds(calls) == ["scp", "setsid", "delete"]


def test_what_runs_on_the_machine_goes_on_after_75_and_keeps_its_flags(tpu, tmp_path):
    result, _ = tpu(
        "watch",
        "--config=a b",
        "--workdir=$HOME",
        states=("ACTIVE",),
        events={3: END.format(75), 6: END.format(0)},
    )
    assert result.returncode == 0, result.stderr
    arguments = tmp_path / "hosts/0/palette_jax/arguments"
    assert arguments.read_text() == "main.py\n--config=a b\n--workdir=$HOME\n" * 2


@pytest.mark.parametrize(
    ("args", "variables", "words"),
    [
        ((), {}, "usage"),
        (("start",), {}, "got 'start'"),
        (("create",), {"TPU_NAME": ""}, "TPU_NAME"),
        (("create",), {"TPU_MAX_HOURS": ""}, "TPU_MAX_HOURS"),
        (("create",), {"TPU_MAX_HOURS": "soon"}, "got 'soon'"),
        (("create",), {"TPU_SPOT": "yes"}, "got 'yes'"),
        (("watch", "--config=x"), {"TPU_RESTARTS": "many"}, "got 'many'"),
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
